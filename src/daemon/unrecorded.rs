//! Faults that could not be written into the ledger when they happened, for one because it was its server that was down.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::fault::{Fault, Result};
use crate::ledger::{Ledger, Severity, Times};

/// The most faults that are remembered; the oldest is forgotten first.
const MOST: usize = 32;

/// What the ledger is told as soon as it can be.
#[derive(Default)]
pub(super) struct Unrecorded(VecDeque<Entry>);

struct Entry {
    severity: Severity,
    fault: Fault,
    count: i64,
    first: Instant,
    last: Instant,
}

impl Unrecorded {
    /// Remembers a fault, or counts it if it is known.
    pub(super) fn note(&mut self, severity: Severity, fault: Fault) {
        let now = Instant::now();
        let text = fault.to_string();
        let known = |entry: &&mut Entry| entry.severity == severity && entry.fault.to_string() == text;
        if let Some(entry) = self.0.iter_mut().find(known) {
            (entry.count, entry.last) = (entry.count + 1, now);
            return;
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(Entry { severity, fault, count: 1, first: now, last: now });
    }

    /// Writes them down. What was written is forgotten.
    pub(super) async fn record(&mut self, ledger: &Ledger) -> Result<()> {
        while let Some(entry) = self.0.front() {
            let times =
                Times { count: entry.count, first: entry.first.elapsed(), last: entry.last.elapsed() };
            ledger.record_seen(entry.severity, &entry.fault, times).await?;
            self.0.pop_front();
        }
        Ok(())
    }
}
