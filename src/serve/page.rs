//! The status page: one document that needs nothing else, and may have nothing else.

use std::sync::LazyLock;

use axum::http::HeaderValue;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::json;

use crate::cutover::Step;

const STYLE: &str = include_str!("page/style.css");

/// Everything that runs in it.
const SCRIPT: &str =
    concat!(include_str!("page/format.js"), include_str!("page/chart.js"), include_str!("page/page.js"));

/// The document.
pub(super) static PAGE: LazyLock<String> = LazyLock::new(|| {
    let steps: Vec<_> = Step::ALL.map(|step| json!({"step": step.as_str(), "what": step.what()})).into();
    include_str!("page/page.html")
        .replace("{style}", STYLE)
        .replace("{steps}", &json!(steps).to_string())
        .replace("{script}", SCRIPT)
});

/// What a browser lets the document do: this style, this script, and asking where it came from.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())));
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});
