//! COPY to COPY: rows go from one server to the other as the one has written them and the other reads them,
//! without being looked at.

use std::sync::Mutex;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;
use tokio_postgres::{Client, Error};

use super::format::Format;
use crate::limits;

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Piped {
    /// Rows that the source has sent.
    pub(super) rows: u64,
    /// Rows that the target has taken.
    pub(super) taken: u64,
    /// Bytes of COPY data.
    pub(super) bytes: u64,
}

/// Which end failed.
#[derive(Debug)]
pub(super) enum Broken {
    /// The source could not be read.
    Source(Error),
    /// The target could not be written.
    Target(Error),
}

/// Pipes what `copy_out` reads into `copy_in`, both in this format.
pub(super) async fn pipe(
    source: &Client,
    copy_out: &str,
    target: &Client,
    copy_in: &str,
    format: Format,
    throttle: &Throttle,
) -> Result<Piped, Broken> {
    let rows = source.copy_out(copy_out).await.map_err(Broken::Source)?;
    let sink = target.copy_in::<_, Bytes>(copy_in).await.map_err(Broken::Target)?;
    let mut rows = std::pin::pin!(rows);
    let mut sink = std::pin::pin!(sink);
    let mut piped = Piped::default();
    // One message a row would cost the target more than reading the row does.
    let mut gathered = BytesMut::with_capacity(limits::COPY_MESSAGE_BYTES);
    while let Some(row) = rows.next().await {
        let mut row = row.map_err(Broken::Source)?;
        // The protocol promises one message a row (PostgreSQL documentation, 55.2.6).
        piped.rows += 1;
        piped.bytes += row.len() as u64;
        throttle.pass(row.len() as u64).await;
        if gathered.len() + row.len() > limits::COPY_MESSAGE_BYTES && !gathered.is_empty() {
            sink.feed(gathered.split().freeze()).await.map_err(Broken::Target)?;
        }
        if row.len() >= limits::COPY_MESSAGE_BYTES {
            // In pieces: the client would make one more copy of a large row.
            while !row.is_empty() {
                let piece = row.split_to(row.len().min(limits::COPY_MESSAGE_BYTES));
                sink.feed(piece).await.map_err(Broken::Target)?;
            }
        } else {
            gathered.extend_from_slice(&row);
        }
    }
    if !gathered.is_empty() {
        sink.feed(gathered.freeze()).await.map_err(Broken::Target)?;
    }
    piped.rows = piped.rows.saturating_sub(format.other_messages());
    piped.taken = sink.finish().await.map_err(Broken::Target)?;
    Ok(piped)
}

/// Keeps all readers together below a rate.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: Option<u64>,
    /// When what has passed is paid for.
    paid_at: Mutex<Instant>,
}

impl Throttle {
    /// No more than this many bytes a second, if any limit is given.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, paid_at: Mutex::new(Instant::now()) }
    }

    /// Returns when this many bytes may pass.
    pub async fn pass(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let cost = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1));
        let paid_at = {
            // Nothing in here can panic, so a poisoned lock is as good as any.
            let mut paid_at = self.paid_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *paid_at = (*paid_at).max(Instant::now()) + cost;
            *paid_at
        };
        // A pause that is too short to be kept is made up for by a later one.
        if paid_at.saturating_duration_since(Instant::now()) >= Duration::from_millis(5) {
            tokio::time::sleep_until(paid_at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_throttle_lets_no_more_through_than_its_rate() {
        let throttle = Throttle::new(Some(1000));
        let began = Instant::now();
        for _ in 0..50 {
            tokio::join!(throttle.pass(100), throttle.pass(100));
        }
        let seconds = began.elapsed().as_secs_f64();
        assert!((9.9..=10.1).contains(&seconds), "{seconds}");
        Throttle::new(None).pass(u64::MAX).await;
        assert_eq!(began.elapsed().as_secs_f64(), seconds);
    }
}
