//! From a batch to what is sent: statements, their values, and what each must come to.
//!
//! Nothing is sent from here, so that a batch can be encoded while the one before it is still being applied. The
//! target's catalogs are asked on a session of their own.

use std::sync::Arc;

use postgres_protocol::IsNull;
use tokio_postgres::types::{Format, Json, ToSql, Type};

use super::applier::Work;
use super::batch::{Batch, Change, Position, Skipped, Transaction};
use super::encoded::{Encoded, Place, What};
use super::explain::{RoundFailure, locate};
use super::set::Sets;
use super::statement::{self, Parameter, Statement};
use super::statements::{Kind, Statements};
use super::table::Fitted;
use super::tables::Tables;
use crate::connect::{Mode, Session};
use crate::fault::{Fault, Result, Side};
use crate::ledger::{record_skip_sql, send_back_sql, write_checkpoint_sql};
use crate::limits;
use crate::pgoutput::{OldTuple, Relation, Tuple, Value};

/// Turns batches into scripts.
pub(super) struct Encoder {
    /// Where the catalogs are asked.
    pub(super) session: Arc<Session>,
    /// The migration's name and the epoch of this life.
    name: String,
    epoch: i64,
    mode: Mode,
    pub(super) tables: Tables,
    pub(super) statements: Statements,
    /// What is known of the tables that are written in sets.
    pub(super) sets: Sets,
}

/// How the changes of a batch are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Many at a time, as far as they can be.
    InSets,
    /// One by one, in the order of the source.
    OneByOne,
}

/// How a batch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// With a target transaction of its own, or with one that others join.
    Begin,
    /// In the open target transaction, at a savepoint with this number.
    Savepoint {
        /// What can only be undone as far as here.
        number: u32,
        /// A savepoint that isn't needed any more.
        released: Option<u32>,
    },
}

impl Opening {
    /// What leads back to it, so that it can be taken again.
    pub(super) fn undo(self) -> String {
        match self {
            Self::Begin => "ROLLBACK".to_owned(),
            Self::Savepoint { number, .. } => {
                format!("ROLLBACK TO SAVEPOINT batch{number}; RELEASE SAVEPOINT batch{number}")
            }
        }
    }
}

impl Encoder {
    pub(super) fn new(session: Arc<Session>, name: &str, epoch: i64, mode: Mode, tables: Tables) -> Self {
        Self {
            session,
            name: name.to_owned(),
            epoch,
            mode,
            tables,
            statements: Statements::default(),
            sets: Sets::default(),
        }
    }

    /// The script for a batch, and in which way it applies the changes.
    ///
    /// # Errors
    /// If a change can't be sent; nothing of the batch is to be sent then.
    pub(super) async fn encode(
        &mut self,
        work: &Work,
        opening: Opening,
        way: Way,
    ) -> Result<(Encoded, Way), RoundFailure> {
        if way == Way::InSets && Sets::suit(&work.batch) {
            match self.encode_as(work, opening, Way::InSets).await {
                Ok(encoded) => return Ok((encoded, Way::InSets)),
                Err(failure) if failure.passes() => return Err(failure),
                // One by one it is found out whose it is.
                Err(failure) => tracing::debug!("a batch goes row by row: {}", failure.fault),
            }
        }
        Ok((self.encode_as(work, opening, Way::OneByOne).await?, Way::OneByOne))
    }

    async fn encode_as(&mut self, work: &Work, opening: Opening, way: Way) -> Result<Encoded, RoundFailure> {
        let prepared = self.statements.count();
        let encoded = self.script(work, opening, way).await;
        if encoded.is_err() {
            self.statements.forget_since(prepared);
        }
        encoded
    }

    async fn script(&mut self, work: &Work, opening: Opening, way: Way) -> Result<Encoded, RoundFailure> {
        let mut encoded = Encoded::default();
        self.open(&mut encoded, opening)?;
        match way {
            Way::InSets => self.in_sets(&mut encoded, &work.batch).await?,
            Way::OneByOne => self.one_by_one(&mut encoded, &work.batch).await?,
        }
        if let Some(end) = work.batch.end {
            self.checkpoint(&mut encoded, work, end)?;
        }
        for transaction in &work.batch.transactions {
            self.skip(&mut encoded, transaction)?;
        }
        encoded.script.sync();
        Ok(encoded)
    }

    fn open(&self, encoded: &mut Encoded, opening: Opening) -> Result<()> {
        match opening {
            Opening::Begin => {
                encoded.frame("BEGIN ISOLATION LEVEL READ COMMITTED")?;
                if self.mode == Mode::Owner {
                    // The source may have deferred what is deferrable, or checked it after each of its statements,
                    // which can have been many rows. Rows of a replica are not checked for it at all.
                    encoded.frame("SET CONSTRAINTS ALL DEFERRED")?;
                }
            }
            Opening::Savepoint { number, released } => {
                if let Some(released) = released {
                    encoded.frame(&format!("RELEASE SAVEPOINT batch{released}"))?;
                }
                encoded.frame(&format!("SAVEPOINT batch{number}"))?;
            }
        }
        Ok(())
    }

    async fn one_by_one(&mut self, encoded: &mut Encoded, batch: &Batch) -> Result<(), RoundFailure> {
        for (transaction, t) in batch.transactions.iter().enumerate() {
            for (change, c) in t.changes.iter().enumerate() {
                self.change(encoded, batch, Place { transaction, change }, c).await?;
            }
        }
        Ok(())
    }

    /// Adds one change.
    pub(super) async fn change(
        &mut self,
        encoded: &mut Encoded,
        batch: &Batch,
        place: Place,
        change: &Change,
    ) -> Result<(), RoundFailure> {
        self.add(encoded, place, change).await.map_err(|fault| locate(batch, place, fault))
    }

    async fn add(&mut self, encoded: &mut Encoded, place: Place, change: &Change) -> Result<()> {
        let what = What::Change(place);
        match change {
            Change::Insert { relation, new } => {
                self.row(encoded, what, relation, change, (None, Some(new))).await
            }
            Change::Update { relation, old, new } => {
                let old = old.as_ref().map(OldTuple::tuple);
                self.row(encoded, what, relation, change, (old, Some(new))).await
            }
            Change::Delete { relation, old } => {
                self.row(encoded, what, relation, change, (Some(old.tuple()), None)).await
            }
            Change::Truncate { relations, restart_identity } => {
                let mut tables = Vec::with_capacity(relations.len());
                for relation in relations {
                    tables.push(self.fitted(relation).await?);
                }
                encoded.script.run(&self.tables.truncate(&tables, *restart_identity)?)?;
                encoded.expect(what, None);
                Ok(())
            }
            Change::Clear { relation, key, range } => {
                let table = self.fitted(relation).await?;
                encoded.script.run(&statement::clear(&table, key, range))?;
                encoded.expect(what, None);
                Ok(())
            }
            Change::SendBack { chunk, .. } => {
                let ordinal = i32::try_from(chunk.ordinal).unwrap_or(i32::MAX);
                let parameters: [(&dyn ToSql, Type); 3] =
                    [(&self.name, Type::TEXT), (&chunk.relation, Type::OID), (&ordinal, Type::INT4)];
                record(&mut self.statements, encoded, (Kind::SendBack, what), send_back_sql(), &parameters)
            }
        }
    }

    /// Adds a change of one row.
    async fn row(
        &mut self,
        encoded: &mut Encoded,
        what: What,
        relation: &Arc<Relation>,
        change: &Change,
        (old, new): (Option<&Tuple>, Option<&Tuple>),
    ) -> Result<()> {
        let table = self.fitted(relation).await?;
        let shape = match change {
            Change::Insert { new, .. } => statement::insert_shape(new)?,
            Change::Update { old, new, .. } => statement::update_shape(&table, old.as_ref(), new)?,
            Change::Delete { old, .. } => statement::delete_shape(&table, old)?,
            Change::Truncate { .. } | Change::Clear { .. } | Change::SendBack { .. } => {
                return Err(Fault::bug("only a change of one row has a shape"));
            }
        };
        let value = |parameter: &Parameter| match *parameter {
            Parameter::New(i) => text(new, i),
            Parameter::Old(i) => text(old, i),
        };
        let kind = Kind::Change(relation.oid, shape.clone());
        let prepared = self.statements.get(encoded, kind, &[], |_| shape.statement(&table))?;
        let parameters = &prepared.statement.parameters;
        fits(parameters.iter().map(|parameter| 4 + value(parameter).map_or(0, <[u8]>::len)).sum())?;
        encoded.script.execute(&prepared.name, Format::Text, parameters, |parameter, out| {
            Ok(value(parameter).map_or(IsNull::Yes, |value| {
                out.extend_from_slice(value);
                IsNull::No
            }))
        })?;
        encoded.expect(what, Some(1));
        Ok(())
    }

    fn checkpoint(&mut self, encoded: &mut Encoded, work: &Work, end: Position) -> Result<()> {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let transactions = count(work.batch.transactions.len());
        let changes = count(work.batch.changes() + work.carried);
        let parameters: [(&dyn ToSql, Type); 7] = [
            (&self.name, Type::TEXT),
            (&self.epoch, Type::INT8),
            (&end.lsn, Type::PG_LSN),
            (&end.commit_time, Type::TIMESTAMPTZ),
            (&work.caught_up_to, Type::TIMESTAMPTZ),
            (&transactions, Type::INT8),
            (&changes, Type::INT8),
        ];
        let what = (Kind::Checkpoint, What::Checkpoint);
        record(&mut self.statements, encoded, what, &write_checkpoint_sql(), &parameters)
    }

    /// Records that a transaction is dropped, if it is.
    fn skip(&self, encoded: &mut Encoded, transaction: &Transaction) -> Result<()> {
        let dropped = match &transaction.skipped {
            None => return Ok(()),
            Some(Skipped::Counted(dropped)) => Some(Json(dropped)),
            Some(Skipped::Unsent) => None,
        };
        let lsn = transaction.commit_lsn;
        let parameters: [(&dyn ToSql, Type); 3] =
            [(&self.name, Type::TEXT), (&lsn, Type::PG_LSN), (&dropped, Type::JSONB)];
        encoded.script.prepare("", record_skip_sql(), &parameters.clone().map(|(_, of)| of))?;
        execute(encoded, "", What::Skip(lsn), &parameters)
    }

    /// The target's table for a relation, looked up again when the relation has changed.
    pub(super) async fn fitted(&mut self, relation: &Arc<Relation>) -> Result<Arc<Fitted>> {
        if let Some(fitted) = self.tables.get(relation) {
            return Ok(fitted);
        }
        self.statements.forget(relation.oid);
        self.sets.forget(relation.oid);
        self.tables.look(&self.session, relation, self.mode).await
    }
}

/// Adds a statement of the ledger's, prepared once.
fn record(
    statements: &mut Statements,
    encoded: &mut Encoded,
    (kind, what): (Kind, What),
    sql: &str,
    parameters: &[(&dyn ToSql, Type)],
) -> Result<()> {
    let types: Vec<Type> = parameters.iter().map(|(_, of)| of.clone()).collect();
    let make = |_: &Kind| Statement { sql: sql.to_owned(), parameters: Vec::new() };
    let prepared = statements.get(encoded, kind, &types, make)?;
    execute(encoded, &prepared.name, what, parameters)
}

/// Executes a statement that must touch one row.
fn execute(encoded: &mut Encoded, name: &str, what: What, parameters: &[(&dyn ToSql, Type)]) -> Result<()> {
    encoded.script.execute(name, Format::Binary, parameters, |(value, of), out| {
        Ok(match value.to_sql_checked(of, out)? {
            tokio_postgres::types::IsNull::Yes => IsNull::Yes,
            tokio_postgres::types::IsNull::No => IsNull::No,
        })
    })?;
    encoded.expect(what, Some(1));
    Ok(())
}

/// A value in the text that the source's output function wrote.
fn text(tuple: Option<&Tuple>, column: usize) -> Option<&[u8]> {
    match tuple?.value(column)? {
        Value::Text(text) => Some(text),
        // Shapes have no parameter for a value that wasn't sent, and nothing asks for binary.
        Value::Null | Value::Unchanged | Value::Binary(_) => None,
    }
}

/// The target would end the connection at a longer message, without saying why.
fn fits(bytes: usize) -> Result<()> {
    if bytes <= limits::ROW_BYTES {
        return Ok(());
    }
    let most = limits::ROW_BYTES;
    Err(Fault::person(format!("the row has {bytes} bytes of text, and the target takes no more than {most}"))
        .on(Side::Target)
        .remedy("pass its transaction over (cdc skip with the LSN) and carry its rows by hand, with COPY ... (FORMAT binary)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Reaction;

    #[test]
    fn a_row_that_the_target_would_not_take_is_refused() {
        assert!(fits(limits::ROW_BYTES).is_ok());
        let fault = fits(limits::ROW_BYTES + 1).unwrap_err();
        assert_eq!(fault.reaction(), Reaction::Person);
        assert!(fault.what().contains("1073676288 bytes"), "{fault}");
    }
}
