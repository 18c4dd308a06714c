//! Connections, so many and for so long.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::limits;

/// How long to wait after a connection could not be accepted: no descriptor is free, for one.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers whoever connects, for ever.
pub(super) async fn listen(listener: TcpListener, router: Router) {
    let room = Arc::new(Semaphore::new(limits::HTTP_CONNECTIONS));
    // It is never closed.
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("a connection could not be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits::HTTP_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            // How a reader ends it is the reader's business.
            let _ = timeout(limits::HTTP_LONGEST, served).await;
            drop(place);
        });
    }
}
