//! What slows the replication without stopping it, as incidents: the slot's budget, and a lag over the limit.
//!
//! Whoever looks at both ends sees it, also while nothing is streamed: a slot is lost most easily while its daemon is
//! blocked.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::lag::{Limits, Verdict};
use super::looker::Seen;
use super::status::{SlotStatus, Status};
use crate::config::{Config, Direction};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::{Ledger, Slowdown};

/// Of how many percent of its budget that a slot has used somebody is told.
const SLOT_PERCENTS: [u8; 2] = [80, 50];

impl SlotStatus {
    /// The highest percentage of its budget that it has passed and that matters.
    #[must_use]
    pub fn used_percent(&self) -> Option<u8> {
        let used = self.used_fraction?;
        SLOT_PERCENTS.into_iter().find(|percent| used >= f64::from(*percent) / 100.0)
    }
}

impl Status {
    /// True if it replicates, further behind than these limits allow. That it starts or tries again is no lag yet.
    #[must_use]
    pub fn lags(&self, limits: &Limits) -> bool {
        self.verdict == Verdict::Behind
            && self.lag.is_some_and(|lag| lag.seconds.is_some() && !limits.allow(lag))
    }
}

/// What slows it.
fn slowdowns(status: &Status, limits: &Limits) -> [(Slowdown, Option<Fault>); 2] {
    let slot = status.slot.as_ref().and_then(SlotStatus::used_percent).map(|percent| {
        Fault::person(format!(
            "the replication slot has used more than {percent} percent of the log that the source may keep for it \
             (max_slot_wal_keep_size)"
        ))
        .on(Side::Source)
        .remedy(
            "find out why it is behind: the daemon stands or is slow, or a transaction on the source is long. To gain \
             time, raise max_slot_wal_keep_size there (ALTER SYSTEM SET, then SELECT pg_reload_conf()): after a slot is \
             lost everything has to be copied again",
        )
    });
    let lag = status.lags(limits).then(|| {
        Fault::retry(format!("the target is more than {:.0} s behind the source", limits.seconds)).remedy(
            "wait, if the source has just written very much; otherwise look at the target: its load, its disks, and \
             locks that applying waits for (pg_stat_activity)",
        )
    });
    [(Slowdown::Slot, slot), (Slowdown::Lag, lag)]
}

/// Keeps the ledger's incidents about that, for ever.
pub async fn record_slowdowns(config: Config, mut seen: watch::Receiver<Seen>) {
    // As far as they are recorded, by the direction that they are about.
    let mut recorded: HashMap<(Direction, Slowdown), Option<String>> = HashMap::new();
    while seen.changed().await.is_ok() {
        let (direction, slowdowns) = match &seen.borrow_and_update().last {
            // Without a ledger nothing is slow yet.
            Some((Ok(status), _)) if status.phase.is_some() => {
                (status.direction, slowdowns(status, &Limits::default()))
            }
            Some(_) | None => continue,
        };
        let text = |fault: &Option<Fault>| fault.as_ref().map(Fault::to_string);
        let is_news =
            |(slowdown, fault): &(_, _)| recorded.get(&(direction, *slowdown)) != Some(&text(fault));
        let news: Vec<_> = slowdowns.into_iter().filter(is_news).collect();
        if news.is_empty() {
            continue;
        }
        match record(&config.facing(direction), &news).await {
            Ok(()) => {
                recorded.extend(news.iter().map(|(slowdown, fault)| ((direction, *slowdown), text(fault))))
            }
            // The next look tries again.
            Err(fault) => tracing::debug!("what slows it is not recorded: {fault}"),
        }
    }
}

/// On a session of its own: this is rare.
async fn record(config: &Config, slowdowns: &[(Slowdown, Option<Fault>)]) -> Result<()> {
    let session = Session::open(&config.target, Side::Target, &format!("cdc_{} status", config.name)).await?;
    let ledger = Ledger::new(Arc::new(session), &config.name);
    for (slowdown, fault) in slowdowns {
        match fault {
            Some(fault) => {
                tracing::warn!("{fault}");
                ledger.record_slowdown(*slowdown, fault).await?;
            }
            None => ledger.resolve_slowdown(*slowdown).await?,
        }
    }
    Ok(())
}
