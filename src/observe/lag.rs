//! How far behind the target is, and whether that is well. Pure.

use serde::Serialize;

use crate::lsn::Lsn;

/// How far the target is behind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lag {
    /// Bytes of the source's log, up to its flushed end, that are not applied durably. What the
    /// walsender has not sent yet counts.
    pub bytes: u64,
    /// Seconds since the time, by the source's clock, before which everything committed is applied;
    /// 0 if there is nothing to apply. Null if no such time is known yet.
    pub seconds: Option<f64>,
}

impl Lag {
    /// The lag of a checkpoint behind a source whose log ends at `flushed`.
    ///
    /// `age_seconds` is the age of the time that the checkpoint is known to have caught up to.
    #[must_use]
    pub fn new(flushed: Lsn, checkpoint: Lsn, age_seconds: Option<f64>) -> Self {
        let bytes = flushed.bytes_since(checkpoint);
        let seconds = if bytes == 0 { Some(0.0) } else { age_seconds.map(|age| age.max(0.0)) };
        Self { bytes, seconds }
    }
}

/// What counts as too far behind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The most bytes.
    pub bytes: Option<u64>,
    /// The most seconds.
    pub seconds: f64,
}

impl Default for Limits {
    /// A minute, and any number of bytes.
    fn default() -> Self {
        Self { bytes: None, seconds: 60.0 }
    }
}

impl Limits {
    /// True if the lag is within the limits. An unknown time is not.
    #[must_use]
    pub fn allow(&self, lag: Lag) -> bool {
        self.bytes.is_none_or(|most| lag.bytes <= most) && lag.seconds.is_some_and(|s| s <= self.seconds)
    }
}

/// The one word that says how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Replicating within the limits.
    Streaming,
    /// Rows that were there before are still being copied, while changes are applied.
    Copying,
    /// Replicating, but further behind than allowed, or still starting, or trying again.
    Behind,
    /// A person is needed: see the incident.
    Blocked,
    /// No daemon is running.
    Stopped,
    /// The slot is lost or gone: the rows have to be copied again.
    Lost,
    /// Nothing is replicated any more, as it was decided.
    Done,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Streaming, Self::Copying, Self::Behind, Self::Blocked, Self::Stopped, Self::Lost, Self::Done];

    /// The word, as in the JSON form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Copying => "copying",
            Self::Behind => "behind",
            Self::Blocked => "blocked",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
            Self::Done => "done",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_apply_is_no_lag_however_long_ago_the_last_change_was() {
        let lag = Lag::new(Lsn::from(100), Lsn::from(100), Some(3600.0));
        assert_eq!(lag, Lag { bytes: 0, seconds: Some(0.0) });
    }

    #[test]
    fn a_lag_counts_from_the_end_of_the_log() {
        let lag = Lag::new(Lsn::from(150), Lsn::from(100), Some(2.5));
        assert_eq!(lag, Lag { bytes: 50, seconds: Some(2.5) });
    }

    #[test]
    fn limits_hold_for_both_and_an_unknown_time_is_outside() {
        let limits = Limits { bytes: Some(50), seconds: 60.0 };
        assert!(limits.allow(Lag { bytes: 50, seconds: Some(60.0) }));
        assert!(!limits.allow(Lag { bytes: 51, seconds: Some(0.0) }));
        assert!(!limits.allow(Lag { bytes: 0, seconds: Some(60.1) }));
        assert!(!limits.allow(Lag { bytes: 1, seconds: None }));
    }
}
