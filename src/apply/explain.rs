//! Tells a person why a batch could not be applied: what, at which table, key and LSN, and what to do.

use super::batch::{Batch, Change};
use super::encoded::{Place, Trouble, What, Wrong};
use crate::connect::report::Report;
use crate::fault::{Fault, Reaction, Side};
use crate::pgoutput::{OldTuple, Relation, Tuple, Value};
use crate::{ledger, limits};

/// A batch that failed, and the source transaction at which it did, if it is known.
pub(super) struct RoundFailure {
    pub(super) fault: Fault,
    pub(super) transaction: Option<usize>,
}

impl RoundFailure {
    /// True if it needs nothing but another attempt.
    pub(super) fn passes(&self) -> bool {
        // What came before a table was changed is fine, and the next look at the catalogs needs nothing else.
        self.fault.reaction() == Reaction::Retry && !self.fault.is_unfit()
    }
}

impl From<Fault> for RoundFailure {
    fn from(fault: Fault) -> Self {
        Self { fault, transaction: None }
    }
}

/// What went wrong with a statement.
pub(super) fn explain(batch: &Batch, (what, wrong): Trouble) -> RoundFailure {
    let fault = |doing: &str, report: &Report| report.bare_fault(Side::Target, doing);
    match (what, wrong) {
        (What::Change(place), Wrong::Refused(report)) => {
            let doing = format!("applying the source's {}", name(place.of(batch)));
            locate(batch, place, advised(fault(&doing, &report)))
        }
        (What::Change(place), Wrong::Rows(rows)) => {
            locate(batch, place, wrong_rows(place.of(batch), rows).on(Side::Target))
        }
        (What::Frame, Wrong::Refused(report)) => fault("beginning a transaction", &report).into(),
        (What::Frame, Wrong::Rows(rows)) => Fault::bug(format!("BEGIN answered with {rows} rows")).into(),
        (What::Checkpoint, Wrong::Refused(report)) => ledger::advise(fault(ledger::USING, &report)).into(),
        (What::Checkpoint, Wrong::Rows(_)) => Fault::retry(
            "the checkpoint is not ours to write: another daemon of this migration has started since, or the session \
             has lost its settings",
        )
        .on(Side::Target)
        .into(),
        (What::Skip(lsn), Wrong::Refused(report)) => {
            fault("recording a skipped transaction", &report).lsn(lsn).into()
        }
        (What::Skip(lsn), Wrong::Rows(_)) => {
            Fault::retry("the transaction is not to be skipped any more").on(Side::Target).lsn(lsn).into()
        }
    }
}

/// Says what to do about what the target refused, where that is known here.
pub(super) fn advised(fault: Fault) -> Fault {
    match remedy_for(fault.code().map(|code| code.code()), fault.what()) {
        Some(remedy) => fault.remedy(remedy),
        None => fault,
    }
}

fn name(change: &Change) -> &'static str {
    match change {
        Change::Insert { .. } => "INSERT",
        Change::Update { .. } => "UPDATE",
        Change::Delete { .. } => "DELETE",
        Change::Truncate { .. } | Change::Clear { .. } => "TRUNCATE",
        Change::SendBack { .. } => "UPDATE of a key",
    }
}

/// A statement touched more rows than one, or none.
fn wrong_rows(change: &Change, rows: u64) -> Fault {
    let what = name(change);
    match (change, rows) {
        (Change::Insert { .. }, _) => Fault::person(format!(
            "the target took {rows} rows for the one that the source inserted"
        ))
        .remedy(
            "look for a rule on the target's table and disable it; the stream goes on by itself within 30 s",
        ),
        (_, 0) => {
            let (table, _) = describe(change).unwrap_or_default();
            Fault::person(format!("the row that the source's {what} changed is not there")).remedy(format!(
                "something else has changed the target. Put the row there as it was on the source before this \
                 transaction, or have the table copied again: cdc repair --table {table}; the stream goes on by itself \
                 within 30 s"
            ))
        }
        _ => Fault::person(format!("the source's {what} changed one row, here it would be {rows}")).remedy(
            "the target's table has duplicates of a key: delete the superfluous rows and create the key's \
             unique index there; the stream goes on by itself within 30 s",
        ),
    }
}

/// Adds where in the stream it was.
pub(super) fn locate(batch: &Batch, place: Place, fault: Fault) -> RoundFailure {
    let transaction = &batch.transactions[place.transaction];
    let change = place.of(batch);
    let mut fault = fault.lsn(transaction.commit_lsn);
    if let Some((table, key)) = describe(change) {
        if fault.table_name().is_none() {
            fault = fault.table(table);
        }
        if let Some(key) = key {
            fault = fault.key(key);
        }
    }
    RoundFailure { fault, transaction: Some(place.transaction) }
}

fn remedy_for(sqlstate: Option<&str>, message: &str) -> Option<&'static str> {
    Some(match sqlstate? {
        "23505" | "23P01" => {
            "the target already has a row that stands in the way: delete that row on the target (the source's row \
             replaces it), or drop the constraint if only the target has it; the stream goes on by itself within 30 s"
        }
        // The server says it in its language, and in English under lc_messages = C.
        "23514" if message.contains("no partition of relation") => {
            "the target's table has no partition for this row: create the partition as it is on the source; the \
             stream goes on by itself within 30 s"
        }
        code if code.starts_with("23") => {
            "the target has a constraint that the source's row does not meet: drop it or make it as on the source; \
             the stream goes on by itself within 30 s"
        }
        "22P02" => {
            "the target's column can't hold the source's value: give it the source's type, or the enum the missing \
             label (ALTER TYPE ... ADD VALUE); the stream goes on by itself within 30 s"
        }
        "22012" => {
            "an index or a generated column of the target's table computes this: drop it or make it as on the source; \
             the stream goes on by itself within 30 s"
        }
        code if code.starts_with("22") => {
            "the target's column can't hold the source's value: give it the source's type; the stream goes on by \
             itself within 30 s"
        }
        "25006" => "the target is read-only: make it writable; the stream goes on by itself within 30 s",
        "42501" => {
            "give the role the right to write this table on the target (GRANT USAGE ON SCHEMA ... TO ...; GRANT \
             SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ... TO ...); if it is row-level security, let it be the table's owner without FORCE, or give \
             it BYPASSRLS; the stream goes on by itself within 30 s"
        }
        "0A000" => {
            "if it is a foreign key of a table that the source doesn't have, drop the foreign key on the target until \
             the cutover; the stream goes on by itself within 30 s"
        }
        code if code.starts_with("42") => {
            "make the target's table as it is on the source; the stream goes on by itself within 30 s"
        }
        code if code.starts_with("54") => {
            "a limit of the target's server: if it is about an index, drop the index on the target, or make it as on \
             the source; the stream goes on by itself within 30 s"
        }
        code if code.starts_with("P0") => {
            "a trigger or a rule of the target's table raised this: disable it on the target until the cutover; the \
             stream goes on by itself within 30 s"
        }
        _ => return None,
    })
}

/// The table and the key of a change, for a person.
fn describe(change: &Change) -> Option<(String, Option<String>)> {
    let (relation, tuple): (&Relation, &Tuple) = match change {
        Change::Insert { relation, new } => (relation, new),
        Change::Update { relation, old, new } => (relation, old.as_ref().map_or(new, OldTuple::tuple)),
        Change::Delete { relation, old } => (relation, OldTuple::tuple(old)),
        Change::Clear { relation, .. } | Change::SendBack { relation, .. } => {
            return Some((format!("{}.{}", relation.schema, relation.name), None));
        }
        Change::Truncate { relations, .. } => {
            let names: Vec<String> = relations.iter().map(|r| format!("{}.{}", r.schema, r.name)).collect();
            return Some((names.join(", "), None));
        }
    };
    let key: Vec<String> = relation
        .columns
        .iter()
        .zip(tuple.values())
        .filter(|(column, _)| column.is_key)
        .map(|(column, value)| match value {
            Value::Null => format!("{}=NULL", column.name),
            Value::Unchanged => format!("{}=(not sent)", column.name),
            Value::Text(bytes) | Value::Binary(bytes) => format!("{}={}", column.name, shorten(bytes)),
        })
        .collect();
    let key = (!key.is_empty()).then(|| key.join(", "));
    Some((format!("{}.{}", relation.schema, relation.name), key))
}

/// A value for a person: at most [`limits::SHOWN_CHARS`] characters of it.
fn shorten(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..limits::SHOWN_CHARS * 4).unwrap_or(bytes));
    let mut short: String = text.chars().take(limits::SHOWN_CHARS).collect();
    if short.len() < bytes.len() {
        short.push('…');
    }
    short
}
