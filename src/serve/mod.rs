//! What the daemon tells over HTTP: the status page, what it is drawn from, metrics and health. Read-only.
//!
//! ```text
//! source ◄─┐                 ┌► /              the page, which asks for the next two
//!          ├─ Looker ─► Seen ┼► /status.json   as `cdc status --json`
//! target ◄─┘  every 2 s      ├► /history.json  how it was of late
//!                            ├► /metrics       for Prometheus
//!                            └► /readyz        200 while it replicates within the limits
//! loops ─────────────► Pulse ──► /healthz      200 while the daemon's loops turn
//! ```
//!
//! No request asks a database: what is shown is what the daemon saw last, and nobody who replicates waits for a reader.
//! Nothing here ends the daemon, either. An address that can't be had is told of and tried again: replication matters
//! more than the view of it, and the predecessor that still has the port is about to end.

mod health;
mod listen;
mod metrics;
mod page;

use std::net::SocketAddr;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use crate::limits;
use crate::observe::Seen;
use crate::pulse::Pulse;

/// What is shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The migration's name.
    pub name: String,
    /// What was seen last.
    pub seen: watch::Receiver<Seen>,
    /// Whether the daemon's loops turn.
    pub pulse: Pulse,
}

/// Serves at this address, for ever.
pub async fn serve(address: SocketAddr, shown: Shown) {
    let router = router(shown);
    let mut is_told = false;
    loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                tracing::info!("the status page is at http://{address}/");
                listen::listen(listener, router).await;
                return;
            }
            Err(error) if !is_told => {
                tracing::warn!(
                    "the status page and the metrics can't be served at {address}, which is tried again: {error}\n  \
                     what to do: end what uses the address, or set another one, or \"off\", as listen in [http]; \
                     replication doesn't need it"
                );
                is_told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(limits::HTTP_RETRY).await;
    }
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/", get(|| async { Html(page::PAGE.as_str()) }))
        .route("/status.json", get(status))
        .route("/history.json", get(history))
        .route("/metrics", get(scrape))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .layer(map_response(async |mut response: Response| {
            for (name, value) in HEADERS {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, page::POLICY.clone());
            response
        }))
        .with_state(shown)
}

/// Of every answer: nobody keeps it, guesses at it, frames it or reads it from another page.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

const JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

async fn status(State(shown): State<Shown>) -> Response {
    let seen = shown.seen.borrow();
    let unknown = |why: String| json!({"name": shown.name, "error": why}).to_string();
    let (code, text) = match &seen.last {
        Some((Ok(status), _)) => match serde_json::to_string(status) {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, unknown(error.to_string())),
        },
        Some((Err(fault), _)) => (StatusCode::SERVICE_UNAVAILABLE, unknown(fault.to_string())),
        None => (StatusCode::SERVICE_UNAVAILABLE, unknown(health::NOT_YET.to_owned())),
    };
    (code, JSON, text).into_response()
}

/// What of the history is asked for.
#[derive(Deserialize)]
struct After {
    /// The points later than this, in seconds since 1970.
    #[serde(default)]
    after: f64,
}

async fn history(State(shown): State<Shown>, Query(After { after }): Query<After>) -> Response {
    match serde_json::to_string(&shown.seen.borrow().history.since(after)) {
        Ok(text) => (JSON, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn scrape(State(shown): State<Shown>) -> Response {
    match metrics::exposition(&shown.name, &shown.seen.borrow(), health::alive(&shown.pulse).is_ok()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn alive(State(shown): State<Shown>) -> Response {
    said(health::alive(&shown.pulse))
}

async fn ready(State(shown): State<Shown>) -> Response {
    said(health::ready(&shown.seen.borrow(), SystemTime::now()))
}

fn said(outcome: Result<String, String>) -> Response {
    match outcome {
        Ok(text) => (StatusCode::OK, text + "\n").into_response(),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text + "\n").into_response(),
    }
}
