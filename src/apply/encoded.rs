//! A batch as what is sent to the target, and what each of its statements must come to.

use std::collections::VecDeque;

use super::batch::{Batch, Change};
use crate::connect::pipeline::Script;
use crate::connect::report::Report;
use crate::fault::Result;
use crate::lsn::Lsn;

/// A change's place in the batch: the transaction and the change in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) transaction: usize,
    pub(super) change: usize,
}

impl Place {
    /// The change there.
    pub(super) fn of(self, batch: &Batch) -> &Change {
        &batch.transactions[self.transaction].changes[self.change]
    }
}

/// What a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Transactions, savepoints, settings.
    Frame,
    /// The change there, or several changes of its table of which it is the first.
    Change(Place),
    /// The checkpoint.
    Checkpoint,
    /// That a transaction was dropped; its commit LSN.
    Skip(Lsn),
}

/// A statement under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) what: What,
    /// It must touch exactly this many rows.
    pub(super) rows: Option<u64>,
}

/// A statement that did not do what it had to.
#[derive(Debug)]
pub(super) enum Wrong {
    /// The server refused it.
    Refused(Report),
    /// It touched this many rows instead of those that it had to.
    Rows(u64),
}

/// A statement that went wrong, and how.
pub(super) type Trouble = (What, Wrong);

/// A batch, ready to be sent.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) script: Script,
    /// What it must come to, statement by statement.
    pub(super) expected: VecDeque<Expected>,
    /// How many changes are applied together with others of their table.
    pub(super) in_sets: usize,
}

impl Encoded {
    /// Adds a statement without parameters that frames the changes.
    pub(super) fn frame(&mut self, sql: &str) -> Result<()> {
        self.script.run(sql)?;
        self.expect(What::Frame, None);
        Ok(())
    }

    /// Says what the statement that was added to the script must come to.
    pub(super) fn expect(&mut self, what: What, rows: Option<u64>) {
        self.expected.push_back(Expected { what, rows });
    }
}

impl Expected {
    /// What is wrong with this many rows, if anything.
    pub(super) fn check(self, rows: u64) -> Option<Trouble> {
        self.rows.is_some_and(|wanted| wanted != rows).then_some((self.what, Wrong::Rows(rows)))
    }
}
