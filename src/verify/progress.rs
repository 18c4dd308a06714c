//! How far a comparison is.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How far a comparison is; whoever shows it looks now and then.
#[derive(Debug, Default)]
pub struct Progress {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
    rows: AtomicU64,
    differences: AtomicU64,
    table: Mutex<String>,
}

/// How far it is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What there is to compare, by the tables' sizes; 0 before that is known.
    pub total_bytes: u64,
    /// What of that is compared.
    pub done_bytes: u64,
    /// Rows of the source that are compared.
    pub rows: u64,
    /// Differences that are found.
    pub differences: u64,
    /// The table that was begun last.
    pub table: String,
}

impl Progress {
    /// How far it is.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment {
            total_bytes: self.total_bytes.load(Relaxed),
            done_bytes: self.done_bytes.load(Relaxed),
            rows: self.rows.load(Relaxed),
            differences: self.differences.load(Relaxed),
            // Nothing in here can panic, so a poisoned lock is as good as any.
            table: self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone(),
        }
    }

    pub(super) fn expect(&self, bytes: u64) {
        self.total_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn begin(&self, table: String) {
        *self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = table;
    }

    pub(super) fn done(&self, bytes: u64, rows: i64, differences: u64) {
        self.done_bytes.fetch_add(bytes, Relaxed);
        self.rows.fetch_add(rows.unsigned_abs(), Relaxed);
        self.differences.fetch_add(differences, Relaxed);
    }
}
