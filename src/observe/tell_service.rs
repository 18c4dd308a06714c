//! Tells the service manager how it is: what `cdc status` says, in a line.

use tokio::sync::watch;

use super::looker::Seen;
use crate::service::Service;

/// Tells it whenever the daemon has looked and it is otherwise, for ever.
pub async fn tell_service(mut seen: watch::Receiver<Seen>, service: Service) {
    let mut told = None;
    // What was seen before may be of a stream before.
    seen.mark_unchanged();
    while seen.changed().await.is_ok() {
        let line = match &seen.borrow_and_update().last {
            Some((Ok(status), _)) => status.summary(),
            Some((Err(_), _)) | None => continue,
        };
        if told.as_ref() != Some(&line) {
            service.status(&line);
            told = Some(line);
        }
    }
}
