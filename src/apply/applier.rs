//! Applies batches to the target: in sets where it pays, otherwise change by change in the original order.
//!
//! One target transaction holds the rows and the checkpoint. Its statements are pipelined; each must
//! touch exactly the rows that it is for, and COMMIT is sent only after every answer has been seen, so
//! a change that did not do what it did on the source can't be committed.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::future::maybe_done;
use tokio_postgres::types::{Format, IsNull, Json, ToSql, Type};

use super::batch::{Batch, Change, Position, Skipped};
use super::explain::{RoundFailure, explain, locate, refused};
use super::in_flight::{InFlight, Place, Trouble, poll_once};
use super::set::Sets;
use super::statement::{self, Parameter, Shape};
use super::table::Fitted;
use crate::catalog::TableName;
use crate::connect::{Mode, Session};
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{self, record_skip_sql, send_back_sql, write_checkpoint_sql};
use crate::limits;
use crate::lsn::Lsn;
use crate::pgoutput::{OldTuple, PgTimestamp, Relation, Tuple, Value};
use crate::schema;
use crate::schema::drift::Known;

/// What a batch that was committed has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The durable checkpoint; `None` for a piece, which isn't committed yet.
    pub position: Option<Position>,
    /// How many changes it applied.
    pub changes: usize,
    /// How many of these it applied together with others of their table.
    pub in_sets: usize,
}

/// A batch that could not be applied.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub fault: Fault,
    /// What was committed all the same: the transactions before the one that failed.
    pub committed: Option<Position>,
}

/// Applies batches through one session to the target.
pub struct Applier {
    pub(super) session: Arc<Session>,
    /// The migration's name and the epoch of this life.
    name: String,
    epoch: i64,
    mode: Mode,
    /// The topmost parent of each partition on the source that has no partitions itself.
    roots: HashMap<TableName, TableName>,
    /// Which columns of the target those of the stream are, by the source's oid.
    known: HashMap<u32, Known>,
    /// Tables by the source's oid.
    tables: HashMap<u32, Arc<Fitted>>,
    /// Prepared statements by the source's oid and shape.
    statements: HashMap<(u32, Shape), Arc<Prepared>>,
    /// What is known of the tables that are written in sets.
    pub(super) sets: Sets,
    /// Writes the checkpoint.
    checkpoint: tokio_postgres::Statement,
    /// Sends a chunk back.
    send_back: tokio_postgres::Statement,
    /// A target transaction is open: it holds the earlier pieces of a huge one.
    is_open: bool,
    /// Changes in the open transaction's earlier pieces.
    changes_open: usize,
}

struct Prepared {
    statement: tokio_postgres::Statement,
    parameters: Vec<Parameter>,
}

impl Applier {
    /// An applier for one life of the daemon, writing under `epoch`.
    ///
    /// The session must be one that writes already ([`Session::write_as`]), in this `mode`. `roots` names the
    /// topmost parent of each leaf partition that the source has now: changes of one that the target doesn't
    /// have go there. `known` says how the tables of the copy are built.
    ///
    /// # Errors
    /// If the ledger can't be used.
    pub async fn new(
        session: Arc<Session>,
        name: &str,
        epoch: i64,
        mode: Mode,
        roots: HashMap<TableName, TableName>,
        known: HashMap<u32, Known>,
    ) -> Result<Self> {
        let checkpoint = session.prepare(&write_checkpoint_sql()).await.map_err(|e| ledger::fault(&e))?;
        let send_back = session.prepare(send_back_sql()).await.map_err(|e| ledger::fault(&e))?;
        Ok(Self {
            session,
            name: name.to_owned(),
            epoch,
            mode,
            roots,
            known,
            tables: HashMap::new(),
            statements: HashMap::new(),
            sets: Sets::default(),
            checkpoint,
            send_back,
            is_open: false,
            changes_open: 0,
        })
    }

    /// More tables have come: partitions with their topmost parents, and how the tables are built.
    pub fn learn(&mut self, roots: Vec<(TableName, TableName)>, known: Vec<(u32, Known)>) {
        self.roots.extend(roots);
        for (relation, known) in known {
            self.tables.remove(&relation);
            self.known.insert(relation, known);
        }
    }

    /// Applies a batch. `caught_up_to` goes into the checkpoint: everything that was committed on
    /// the source before that time is in this batch or an earlier one.
    ///
    /// If a transaction of it can't be applied for a reason that doesn't pass, those before it are
    /// committed, so that the stream stops exactly there.
    ///
    /// # Errors
    /// With the reason why the first transaction that is not committed could not be applied.
    pub async fn apply(
        &mut self,
        batch: &Batch,
        caught_up_to: Option<PgTimestamp>,
    ) -> Result<Applied, Failure> {
        let failure = match self.round(batch, caught_up_to).await {
            Ok(applied) => return Ok(applied),
            Err(failure) => failure,
        };
        self.is_open = false;
        self.changes_open = 0;
        // What came before a table was changed is fine, and the next look needs nothing else.
        let passes = failure.fault.reaction() == Reaction::Retry && !failure.fault.is_unfit();
        if self.session.batch_execute("ROLLBACK").await.is_err() || passes {
            return Err(Failure { fault: failure.fault, committed: None });
        }
        let committed = match failure.transaction.and_then(|index| batch.before(index)) {
            // The rows before the culprit were fine a moment ago; if they aren't now, the culprit is
            // still what has to be told.
            Some(before) => self.round(&before, None).await.ok().and_then(|applied| applied.position),
            None => None,
        };
        Err(Failure { fault: failure.fault, committed })
    }

    /// Applies a batch in one target transaction, or leaves that open after a piece.
    async fn round(
        &mut self,
        batch: &Batch,
        caught_up_to: Option<PgTimestamp>,
    ) -> Result<Applied, RoundFailure> {
        let session = Arc::clone(&self.session);
        let in_sets = match self.in_sets(&session, batch, caught_up_to).await? {
            Some(changes) => changes,
            None => {
                self.row_by_row(&session, batch, caught_up_to).await?;
                0
            }
        };
        let changes = batch.changes();
        if batch.end.is_some() {
            self.commit(batch).await?;
            self.is_open = false;
            self.changes_open = 0;
        } else {
            self.changes_open += changes;
        }
        Ok(Applied { position: batch.end, changes, in_sets })
    }

    /// Applies the changes of a batch one by one, in the open transaction.
    async fn row_by_row<'a>(
        &mut self,
        session: &'a Arc<Session>,
        batch: &'a Batch,
        caught_up_to: Option<PgTimestamp>,
    ) -> Result<(), RoundFailure> {
        let mut in_flight = InFlight::default();
        self.begin(session, &mut in_flight).await.map_err(|t| explain(batch, t))?;
        for (t, transaction) in batch.transactions.iter().enumerate() {
            for (c, change) in transaction.changes.iter().enumerate() {
                let place = Place { transaction: t, change: c };
                self.send(session, &mut in_flight, batch, place, change).await?;
            }
        }
        self.settle(in_flight, batch, caught_up_to).await
    }

    /// Writes the checkpoint, if the batch ends with one, and waits for all answers: the server has all of the
    /// batch by then, so this takes one round trip. That nothing is left of it keeps the memory of a huge
    /// transaction's pieces bounded.
    pub(super) async fn settle<'a>(
        &self,
        mut in_flight: InFlight<'a>,
        batch: &'a Batch,
        caught_up_to: Option<PgTimestamp>,
    ) -> Result<(), RoundFailure> {
        let Some(end) = batch.end else {
            return in_flight.drain().await.map_err(|t| explain(batch, t));
        };
        let mut checkpoint = pin!(maybe_done(self.write_checkpoint(batch, end, caught_up_to)));
        // This first poll sends it.
        let _ = poll_once(checkpoint.as_mut()).await;
        in_flight.drain().await.map_err(|t| explain(batch, t))?;
        checkpoint.as_mut().await;
        checkpoint.take_output().unwrap_or(Ok(())).map_err(RoundFailure::from)
    }

    /// Opens the target transaction if it isn't.
    pub(super) async fn begin<'a>(
        &mut self,
        session: &'a Session,
        in_flight: &mut InFlight<'a>,
    ) -> Result<(), Trouble> {
        if !self.is_open {
            let begin = begin(self.mode);
            let begin = async move { session.batch_execute(begin).await.map(|()| 1) };
            in_flight.push(begin, 0, None, None).await?;
            self.is_open = true;
        }
        Ok(())
    }

    async fn write_checkpoint(
        &self,
        batch: &Batch,
        end: Position,
        caught_up_to: Option<PgTimestamp>,
    ) -> Result<()> {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 7] = [
            &self.name,
            &self.epoch,
            &end.lsn,
            &end.commit_time,
            &caught_up_to,
            &count(batch.transactions.len()),
            &count(batch.changes() + self.changes_open),
        ];
        match self.session.execute(&self.checkpoint, &parameters).await.map_err(|e| ledger::fault(&e))? {
            1 => Ok(()),
            _ => Err(Fault::retry(
                "the checkpoint is not ours to write: another daemon of this migration has started since, or the \
                 session has lost its settings",
            )
            .on(Side::Target)),
        }
    }

    /// Commits what has been applied, all of it.
    async fn commit(&self, batch: &Batch) -> Result<(), RoundFailure> {
        for transaction in &batch.transactions {
            if let Some(skipped) = &transaction.skipped {
                self.skip(transaction.commit_lsn, skipped).await?;
            }
        }
        self.session.batch_execute("COMMIT").await.map_err(|e| {
            let fault = Fault::sql(Side::Target, "committing a batch", &e);
            match &batch.transactions[..] {
                [only] => fault.lsn(only.commit_lsn),
                // Nobody knows which one it was, and one that is named can be skipped.
                _ => fault,
            }
        })?;
        for transaction in &batch.transactions {
            if let Some(skipped) = &transaction.skipped {
                tracing::warn!(lsn = %transaction.commit_lsn, ?skipped, "skipped a transaction, as asked");
            }
        }
        Ok(())
    }

    /// Records that a transaction was dropped.
    async fn skip(&self, commit_lsn: Lsn, skipped: &Skipped) -> Result<()> {
        let fault = |e| Fault::sql(Side::Target, "recording a skipped transaction", &e);
        let dropped = match skipped {
            Skipped::Counted(dropped) => Some(Json(dropped)),
            Skipped::Unsent => None,
        };
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.name, &commit_lsn, &dropped];
        match self.session.execute(record_skip_sql(), &parameters).await.map_err(fault)? {
            1 => Ok(()),
            _ => Err(Fault::retry("the transaction is not to be skipped any more")
                .on(Side::Target)
                .lsn(commit_lsn)),
        }
    }

    /// Sends one change.
    pub(super) async fn send<'a>(
        &mut self,
        session: &'a Arc<Session>,
        in_flight: &mut InFlight<'a>,
        batch: &'a Batch,
        place: Place,
        change: &'a Change,
    ) -> Result<(), RoundFailure> {
        let (relation, old, new) = match change {
            Change::Insert { relation, new } => (relation, None, Some(new)),
            Change::Update { relation, old, new } => (relation, old.as_ref(), Some(new)),
            Change::Delete { relation, old } => (relation, Some(old), None),
            Change::Truncate { relations, restart_identity } => {
                let sql = match self.truncate(relations, *restart_identity).await {
                    Ok(sql) => sql,
                    Err(fault) => return Err(first_cause(in_flight, batch, place, fault).await),
                };
                let truncate = async move { session.batch_execute(&sql).await.map(|()| 0) };
                return in_flight.push(truncate, 0, Some(place), None).await.map_err(|t| explain(batch, t));
            }
            Change::Clear { relation, key, range } => {
                let table = match self.fitted(relation).await {
                    Ok(table) => table,
                    Err(fault) => return Err(first_cause(in_flight, batch, place, fault).await),
                };
                let sql = statement::clear(&table, key, range);
                let clear = async move { session.batch_execute(&sql).await.map(|()| 0) };
                return in_flight.push(clear, 0, Some(place), None).await.map_err(|t| explain(batch, t));
            }
            Change::SendBack { chunk, .. } => {
                let (name, chunk, statement) = (self.name.clone(), *chunk, self.send_back.clone());
                let ordinal = i32::try_from(chunk.ordinal).unwrap_or(i32::MAX);
                let send_back =
                    async move { session.execute(&statement, &[&name, &chunk.relation, &ordinal]).await };
                return in_flight
                    .push(send_back, 0, Some(place), Some(1))
                    .await
                    .map_err(|t| explain(batch, t));
            }
        };
        let prepared = match self.prepared(relation, change).await {
            Ok(prepared) => prepared,
            Err(fault) => return Err(first_cause(in_flight, batch, place, fault).await),
        };
        let values: Vec<Text<'a>> = prepared
            .parameters
            .iter()
            .map(|parameter| match *parameter {
                Parameter::New(i) => Text::of(new, i),
                Parameter::Old(i) => Text::of(old.map(OldTuple::tuple), i),
            })
            .collect();
        let bytes = values.iter().map(|v| v.0.map_or(4, |bytes| 4 + bytes.len())).sum();
        if let Err(fault) = fits(bytes) {
            return Err(first_cause(in_flight, batch, place, fault).await);
        }
        let execute = async move { session.execute_raw(&prepared.statement, values).await };
        in_flight.push(execute, bytes, Some(place), Some(1)).await.map_err(|t| explain(batch, t))
    }

    /// The prepared statement for a change.
    async fn prepared(&mut self, relation: &Arc<Relation>, change: &Change) -> Result<Arc<Prepared>> {
        let table = self.fitted(relation).await?;
        let shape = match change {
            Change::Insert { new, .. } => statement::insert_shape(new)?,
            Change::Update { old, new, .. } => statement::update_shape(&table, old.as_ref(), new)?,
            Change::Delete { old, .. } => statement::delete_shape(&table, old)?,
            Change::Truncate { .. } | Change::Clear { .. } | Change::SendBack { .. } => {
                return Err(Fault::bug("only a change of one row has a shape"));
            }
        };
        let key = (relation.oid, shape);
        if let Some(prepared) = self.statements.get(&key) {
            return Ok(Arc::clone(prepared));
        }
        let statement = key.1.statement(&table);
        let prepared = Arc::new(Prepared {
            statement: self
                .session
                .prepare(&statement.sql)
                .await
                .map_err(|e| refused("preparing a statement", &e).table(table.target.to_string()))?,
            parameters: statement.parameters,
        });
        if self.statements.len() >= limits::PREPARED_STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(key, Arc::clone(&prepared));
        Ok(prepared)
    }

    /// The target's table for a relation, looked up again when the relation has changed.
    pub(super) async fn fitted(&mut self, relation: &Arc<Relation>) -> Result<Arc<Fitted>> {
        if let Some(fitted) = self.tables.get(&relation.oid)
            && Arc::ptr_eq(&fitted.relation, relation)
        {
            return Ok(Arc::clone(fitted));
        }
        self.statements.retain(|(oid, _), _| *oid != relation.oid);
        self.sets.forget(relation.oid);
        let root = self.roots.get(&TableName::new(&relation.schema, &relation.name));
        let known = self.known.get(&relation.oid);
        let fitted = Arc::new(Fitted::new(&self.session, Arc::clone(relation), root, known).await?);
        // The next start holds it back.
        schema::refuse_stirring(&**self.session, &fitted.target, self.mode).await?;
        self.tables.insert(relation.oid, Arc::clone(&fitted));
        Ok(fitted)
    }

    /// One statement for all tables: foreign keys between them don't stand in its way then.
    ///
    /// Never CASCADE: what the source's CASCADE has reached is in the list, and nothing else on the
    /// target may lose rows.
    async fn truncate(&mut self, relations: &[Arc<Relation>], restart_identity: bool) -> Result<String> {
        let mut names: Vec<String> = Vec::new();
        let listed: Vec<TableName> = relations.iter().map(|r| TableName::new(&r.schema, &r.name)).collect();
        for (relation, partition) in relations.iter().zip(&listed) {
            let table = self.fitted(relation).await?;
            if table.through_root && self.partitions_of(&table.target).any(|p| !listed.contains(p)) {
                return Err(Fault::person(format!(
                    "the source truncated the partition {partition}, which the target doesn't have: its rows are \
                     among others there"
                ))
                .on(Side::Target)
                .table(table.target.to_string())
                .remedy(
                    "create the same partition on the target and move its rows there; the stream goes on by itself \
                     within 30 s",
                ));
            }
            if !names.contains(&table.only()) {
                names.push(table.only());
            }
        }
        let restart = if restart_identity { " RESTART IDENTITY" } else { "" };
        Ok(format!("TRUNCATE {}{restart}", names.join(", ")))
    }

    /// The source's partitions whose rows are in this table of the target: those that there were at
    /// the start, and those that have been in the stream since.
    fn partitions_of<'a>(&'a self, root: &'a TableName) -> impl Iterator<Item = &'a TableName> {
        let at_start = self.roots.iter().filter(move |(_, r)| *r == root).map(|(partition, _)| partition);
        let since = self.tables.values().filter(move |t| t.root.as_ref() == Some(root)).map(|t| &t.source);
        at_start.chain(since)
    }
}

/// A change could not even be sent. If an earlier one has failed meanwhile, that is the cause.
async fn first_cause(
    in_flight: &mut InFlight<'_>,
    batch: &Batch,
    place: Place,
    fault: Fault,
) -> RoundFailure {
    match in_flight.drain().await {
        Err(trouble) => explain(batch, trouble),
        Ok(()) => locate(batch, place, fault),
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

/// A parameter in the text that the source's output function wrote.
#[derive(Clone, Copy, Debug)]
struct Text<'a>(Option<&'a [u8]>);

impl<'a> Text<'a> {
    fn of(tuple: Option<&'a Tuple>, column: usize) -> Self {
        match tuple.and_then(|tuple| tuple.value(column)) {
            Some(Value::Text(bytes)) => Self(Some(bytes)),
            // Shapes have no parameter for a value that wasn't sent, and nothing asks for binary.
            Some(Value::Null | Value::Unchanged | Value::Binary(_)) | None => Self(None),
        }
    }
}

impl ToSql for Text<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Ok(match self.0 {
            Some(bytes) => {
                out.extend_from_slice(bytes);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    fn to_sql_checked(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.to_sql(ty, out)
    }
}

/// Begins a transaction of the target.
fn begin(mode: Mode) -> &'static str {
    match mode {
        Mode::Replica => "BEGIN ISOLATION LEVEL READ COMMITTED",
        // The source may have deferred what is deferrable, or checked it after each of its statements, which
        // can have been many rows. Rows of a replica are not checked for it at all.
        Mode::Owner => "BEGIN ISOLATION LEVEL READ COMMITTED; SET CONSTRAINTS ALL DEFERRED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_the_target_would_not_take_is_refused() {
        assert!(fits(limits::ROW_BYTES).is_ok());
        let fault = fits(limits::ROW_BYTES + 1).unwrap_err();
        assert_eq!(fault.reaction(), Reaction::Person);
        assert!(fault.what().contains("1073676288 bytes"), "{fault}");
    }
}
