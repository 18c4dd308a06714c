//! The walsender: whole transactions in the order of their commit records, as far as the log is flushed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::row::Table;
use super::source::{Source, Tx, What};
use crate::apply::Change;
use crate::lsn::Lsn;
use crate::pgoutput::{Begin, Commit, PgTimestamp};

/// What the walsender sends.
pub(super) enum Message {
    Begin(Begin),
    Change(Change),
    Commit(Commit),
}

/// A stream that has begun.
pub(super) struct Stream {
    /// The place of the next transaction among the source's commits.
    next: usize,
    queue: VecDeque<Message>,
    /// The server sends transactions without a published change too, as those before 15 do.
    sends_empty: bool,
}

impl Stream {
    /// Begins at the position, or at the one that the slot has confirmed if that is later.
    /// `sends_again`: this server begins where the slot is.
    pub(super) fn begin(source: &Source, at: u64, sends_again: bool, sends_empty: bool) -> Self {
        let confirmed = source.slot.unwrap().confirmed;
        let from = if sends_again { confirmed } else { at.max(confirmed) };
        let is_below = |tx: &Tx| source.transactions[*tx].commit.unwrap().0 < from;
        Self { next: source.commits.partition_point(is_below), queue: VecDeque::new(), sends_empty }
    }

    pub(super) fn next(&mut self, source: &Source, tables: &[Table]) -> Option<Message> {
        while self.queue.is_empty() {
            let tx = *source.commits.get(self.next)?;
            if source.transactions[tx].commit?.1 > source.flush {
                return None;
            }
            self.next += 1;
            self.decode(source, tables, tx);
        }
        self.queue.pop_front()
    }

    /// How far the walsender has decoded: up to the next commit record, exactly.
    pub(super) fn position(&self, source: &Source) -> u64 {
        // In a transaction, the record that is being sent is its commit record.
        let next = if self.queue.is_empty() { self.next } else { self.next - 1 };
        let next = source.commits.get(next).and_then(|tx| source.transactions[*tx].commit);
        next.map_or(source.flush, |(start, _)| start.min(source.flush))
    }

    fn decode(&mut self, source: &Source, tables: &[Table], tx: Tx) {
        let transaction = &source.transactions[tx];
        let (start, end) = transaction.commit.unwrap();
        let is_published = |table: usize, lsn| source.published[table].is_some_and(|since| since <= lsn);
        let changes: Vec<Change> = transaction
            .changes
            .iter()
            .filter_map(|logged| change(tables, &logged.what, &|table| is_published(table, logged.lsn)))
            .collect();
        if changes.is_empty() && !self.sends_empty {
            return;
        }
        let (commit_lsn, end_lsn) = (Lsn::from(start), Lsn::from(end));
        let commit_time = PgTimestamp::from(i64::try_from(start).unwrap());
        let xid = u32::try_from(transaction.xid & u64::from(u32::MAX)).unwrap();
        self.queue.push_back(Message::Begin(Begin { commit_lsn, commit_time, xid }));
        self.queue.extend(changes.into_iter().map(Message::Change));
        self.queue.push_back(Message::Commit(Commit { commit_lsn, end_lsn, commit_time }));
    }
}

fn change(tables: &[Table], what: &What, is_published: &dyn Fn(usize) -> bool) -> Option<Change> {
    let of = |table: &usize| is_published(*table).then(|| &tables[*table]);
    Some(match what {
        What::Insert { table, new } => {
            let table = of(table)?;
            Change::Insert { relation: Arc::clone(&table.relation), new: table.tuple(new, true) }
        }
        What::Update { table, old, new } => {
            let table = of(table)?;
            let tells_old =
                !table.relation.columns.iter().all(|c| c.is_key == (c.name == "id")) || old[0] != new[0];
            Change::Update {
                relation: Arc::clone(&table.relation),
                old: tells_old.then(|| table.old(old)),
                new: table.tuple(new, old[2] != new[2]),
            }
        }
        What::Delete { table, old } => {
            let table = of(table)?;
            Change::Delete { relation: Arc::clone(&table.relation), old: table.old(old) }
        }
        What::Truncate { tables: truncated } => {
            let relations: Vec<_> =
                truncated.iter().filter_map(of).map(|table| Arc::clone(&table.relation)).collect();
            if relations.is_empty() {
                return None;
            }
            Change::Truncate { relations, restart_identity: false }
        }
    })
}
