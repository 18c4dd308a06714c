//! Asking the daemon, as plainly as can be.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

/// Asks for a path; `None` if nobody answers.
pub(crate) async fn ask(address: &str, method: &str, path: &str) -> Option<Answer> {
    // In this version nothing comes in chunks.
    request(address, method, path, "HTTP/1.0").await
}

/// The same in this version of the protocol.
pub(crate) async fn request(address: &str, method: &str, path: &str, version: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("{method} {path} {version}\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // Not every server hangs up as it is asked to.
    while !is_whole(&answer) && stream.read_buf(&mut answer).await.ok()? > 0 {}
    let answer = String::from_utf8(answer).ok()?;
    let (head, text) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { code, head: head.to_lowercase(), text: text.to_owned() })
}

/// The head is there, and as much as it announces.
fn is_whole(answer: &[u8]) -> bool {
    let answer = String::from_utf8_lossy(answer);
    let Some((head, text)) = answer.split_once("\r\n\r\n") else { return false };
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    length.is_some_and(|length: usize| text.len() >= length)
}

/// Asks for a path that is there.
pub(crate) async fn get(address: &str, path: &str) -> Answer {
    ask(address, "GET", path).await.unwrap_or_else(|| panic!("nobody answers at {address}"))
}
