//! Whether the daemon's loops turn: what a service manager's watchdog is fed by.
//!
//! A process that lives is no proof: a task can wait for ever for another one. So each loop that must
//! not stand still says so each time it comes round, and whoever feeds the watchdog asks here first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::limits;

/// Knows all loops that run. Clones know the same.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Vec<Loop>>>);

/// A loop's name, and when it last came round.
type Loop = (&'static str, watch::Receiver<Instant>);

/// A loop that must keep turning until this is dropped.
#[derive(Debug)]
pub struct Turning(watch::Sender<Instant>);

impl Pulse {
    /// Another loop begins; `name` is for the log.
    #[must_use]
    pub fn of(&self, name: &'static str) -> Turning {
        let (turned, turned_at) = watch::channel(Instant::now());
        self.running().push((name, turned_at));
        Turning(turned)
    }

    /// A loop that hasn't turned for so long or longer, and for how long.
    #[must_use]
    pub fn stuck(&self, limit: Duration) -> Option<(&'static str, Duration)> {
        let still = |(name, turned_at): &Loop| (*name, turned_at.borrow().elapsed());
        self.running().iter().map(still).find(|(_, still)| *still >= limit)
    }

    /// Those that have not ended.
    fn running(&self) -> MutexGuard<'_, Vec<Loop>> {
        let mut loops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loops.retain(|(_, turned_at)| turned_at.has_changed().is_ok());
        loops
    }
}

impl Turning {
    /// The loop has come round.
    pub fn turned(&self) {
        self.0.send_replace(Instant::now());
    }

    /// Waits for what may take as long as it wants: a server that is down, a lock, another daemon.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            self.turned();
            if let Ok(done) = timeout(limits::TURN, &mut work).await {
                return done;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(100);

    #[tokio::test(start_paused = true)]
    async fn every_loop_must_turn_in_time_for_as_long_as_it_runs() {
        let pulse = Pulse::default();
        assert_eq!(pulse.stuck(LIMIT), None, "nothing runs yet");
        let (quick, slow) = (pulse.of("quick"), pulse.of("slow"));
        for _ in 0..9 {
            sleep(LIMIT / 10).await;
            assert_eq!(pulse.stuck(LIMIT), None);
            quick.turned();
        }
        sleep(LIMIT / 10).await;
        assert_eq!(pulse.stuck(LIMIT), Some(("slow", LIMIT)));
        slow.turned();
        assert_eq!(pulse.stuck(LIMIT), None);
        sleep(LIMIT).await;
        quick.turned();
        drop(slow);
        assert_eq!(pulse.stuck(LIMIT), None, "what has ended needn't turn");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_allowed_keeps_the_loop_turning_and_another_doesn_t() {
        let pulse = Pulse::default();
        let turning = pulse.of("the loop");
        let look = async {
            sleep(LIMIT * 10).await;
            pulse.stuck(limits::TURN * 2)
        };
        assert_eq!(turning.during(look).await, None);
        // Tasks that wait for each other.
        let deadlock = std::future::pending::<()>();
        assert!(timeout(LIMIT, deadlock).await.is_err());
        assert!(pulse.stuck(LIMIT).is_some_and(|(name, _)| name == "the loop"));
    }
}
