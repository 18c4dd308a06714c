//! How long to wait before the next attempt: the one place where the `backoff` crate is used.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use crate::limits;

/// Delays that grow, with jitter, and never end.
#[derive(Debug)]
pub struct Delays(ExponentialBackoff);

impl Default for Delays {
    fn default() -> Self {
        Self(ExponentialBackoff {
            initial_interval: Duration::from_millis(200),
            current_interval: Duration::from_millis(200),
            multiplier: 2.0,
            randomization_factor: 0.3,
            max_interval: limits::BACKOFF_LONGEST,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }
}

impl Delays {
    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        // Without a maximum of elapsed time there always is one.
        self.0.next_backoff().unwrap_or(limits::BACKOFF_LONGEST)
    }

    /// Starts with short delays again.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}
