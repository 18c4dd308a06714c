//! One request to a webhook.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::channel::Untold;
use super::message::Message;
use crate::config::Webhook;
use crate::limits;

/// The most characters of its answer that are shown.
const ANSWER_CHARS: usize = 200;

type Https = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Sends it. Redirects are not followed: an address that has moved is to be looked up by a person.
pub(super) async fn send(webhook: &Webhook, message: &Message) -> Result<(), Untold> {
    let request = Request::post(webhook.uri())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("cdc/", env!("CARGO_PKG_VERSION")))
        .body(Full::from(message.body(webhook).to_string()))
        .map_err(|_| Untold::for_good("the address can't be used"))?;
    let answer = match client()?.request(request).await {
        Ok(answer) => answer,
        Err(error) => return Err(Untold::for_now(webhook.without_secret(&chain(&error)))),
    };
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let header = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
    let after = header.map(Duration::from_secs);
    // What the service says of it: "channel_not_found".
    let body = Limited::new(answer.into_body(), limits::NOTIFY_ANSWER_BYTES).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let said: String = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).collect();
    let said: String = webhook.without_secret(&said).chars().take(ANSWER_CHARS).collect();
    let why =
        if said.is_empty() { format!("it answers {status}") } else { format!("it answers {status}: {said}") };
    let passes = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        );
    Err(if passes { Untold { after, ..Untold::for_now(why) } } else { Untold::for_good(why) })
}

/// A client for one request: messages are rare, and what is kept open would only be found to be closed.
fn client() -> Result<Https, Untold> {
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| Untold::for_now(format!("the system's root certificates can't be used: {error}")))?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
