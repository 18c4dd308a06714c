//! The service manager (systemd), and what it is told: `sd_notify(3)`. Without one, nothing.
//!
//! The watchdog is fed while each loop turns at least as often as it wants to be fed.
//!
//! The service is ready when the stream has begun, or when it waits for something that passes by
//! itself: a refusal is a failed start, but a server that is down doesn't hold up the boot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::limits;
use crate::pulse::Pulse;

/// The service manager that has started us, if one has.
#[derive(Clone, Debug, Default)]
pub struct Service {
    pulse: Pulse,
    is_ready: Arc<AtomicBool>,
}

impl Service {
    /// Begins to feed the watchdog, if there is one, for as long as the loops turn.
    #[must_use]
    pub fn start() -> Self {
        let service = Self::default();
        let slow = service.clone();
        tokio::spawn(async move {
            sleep(limits::READY).await;
            slow.ready();
        });
        if let Some(patience) = sd_notify::watchdog_enabled() {
            tokio::spawn(feed(service.pulse.clone(), patience, || tell(&NotifyState::Watchdog)));
        }
        service
    }

    /// The loops that must turn.
    #[must_use]
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// The start is over.
    pub fn ready(&self) {
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            tell(&NotifyState::Ready);
        }
    }

    /// How it is, for `systemctl status`.
    pub fn status(&self, text: &str) {
        tell(&NotifyState::Status(&one_line(text)));
    }

    /// The stop has begun.
    pub fn stopping(&self) {
        tell(&NotifyState::Stopping);
    }
}

fn tell(state: &NotifyState) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!("the service manager can't be told: {error}");
    }
}

/// Feeds a watchdog of this patience until a loop stands still for as long; again when it turns again.
async fn feed(pulse: Pulse, patience: Duration, feed: impl Fn()) {
    let mut timer = interval(patience / 2);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_stuck = false;
    loop {
        timer.tick().await;
        let stuck = pulse.stuck(patience);
        match stuck {
            None => feed(),
            Some((name, still)) if !was_stuck => tracing::error!(
                "{name} has stood still for {} s; if that doesn't change, the watchdog will restart cdc",
                still.as_secs()
            ),
            Some(_) => {}
        }
        was_stuck = stuck.is_some();
    }
}

/// A line break would end the text, and what follows would be taken for another variable.
fn one_line(text: &str) -> String {
    let words = |line: &str| {
        let words = line.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(" ")
    };
    let line = text.trim().lines().map(words).collect::<Vec<_>>().join("; ");
    match line.char_indices().nth(limits::STATUS_CHARS) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_twice_in_its_interval_until_a_loop_stands_still() {
        let (pulse, fed) = (Pulse::default(), Arc::new(AtomicU32::new(0)));
        let turning = pulse.of("the loop");
        let count = Arc::clone(&fed);
        let feeder = tokio::spawn(feed(pulse, Duration::from_secs(20), move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        let fed_within = async |seconds| {
            let before = fed.load(Ordering::Relaxed);
            sleep(Duration::from_secs(seconds)).await;
            fed.load(Ordering::Relaxed) - before
        };
        assert_eq!(turning.during(fed_within(1005)).await, 101);
        // From here on nobody says that the loop turns.
        assert!(fed_within(20).await <= 2);
        assert_eq!(fed_within(1000).await, 0, "fed though the loop stands still");
        turning.turned();
        assert!(fed_within(15).await >= 1, "not fed though the loop turns again");
        feeder.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_takes_long_is_over_after_a_minute() {
        let service = Service::start();
        sleep(limits::READY - Duration::from_secs(1)).await;
        assert!(!service.is_ready.load(Ordering::Relaxed));
        sleep(Duration::from_secs(2)).await;
        assert!(service.is_ready.load(Ordering::Relaxed));
    }

    #[test]
    fn a_status_is_one_line_of_bounded_length() {
        let text = "blocked: the row\n  what to do:\tmend\u{1b}[31m it\r\nMAINPID=1\n";
        assert_eq!(one_line(text), "blocked: the row; what to do: mend [31m it; MAINPID=1");
        let long = one_line(&"ä".repeat(10_000));
        assert_eq!(long.chars().count(), limits::STATUS_CHARS + 4, "{long}");
    }
}
