//! The planner: takes tables into the stream, one after the other, while the stream runs.
//!
//! Until a table is taken in, its changes are dropped: a snapshot that is still to come will have them.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_postgres::Client;

use super::partitions::refuse_meeting;
use super::plan::plan;
use super::statements;
use super::table::TableCopy;
use crate::catalog::{Bounds, Identity, PublishedTable, destination, published, rows_exist};
use crate::chunk::{KeyRange, Snapshot, Xid};
use crate::config::ExistingRows;
use crate::connect::{Mode, Session};
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{CopiedTable, Ledger, record_shape, record_table};
use crate::limits;
use crate::lsn::Lsn;
use crate::schema::drift::{Known, Shape, tables};
use crate::schema::{self, Hold};

/// What has become of a table that is published.
pub enum Planned {
    /// It can be copied.
    Ready(Box<PlannedTable>),
    /// Parts of it are copied again.
    Again(Box<CopiedAgain>),
    /// It is not published any more.
    Gone(u32),
}

/// A table of which parts are copied again.
pub struct CopiedAgain {
    /// How it is read and written.
    pub copy: TableCopy,
    /// Its chunks; those that are not to be copied again with their snapshot and its position.
    pub chunks: Vec<(KeyRange, Option<(Snapshot, Lsn)>)>,
}

/// A table that is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its oid on the source.
    pub relation: u32,
    /// What could refuse two of its rows that never existed together is to be held back.
    pub holds_back: bool,
}

/// A table that can be copied.
pub struct PlannedTable {
    /// How it is read and written.
    pub copy: TableCopy,
    /// Its chunks.
    pub ranges: Vec<KeyRange>,
    /// A transaction id that was assigned when the table was published already: those before may have
    /// written to the table earlier.
    pub fence: Xid,
    /// How its changes go to the target's.
    pub known: Known,
}

/// What the planner needs to know.
pub struct PlannerSettings {
    /// The migration.
    pub name: String,
    /// The epoch of this life.
    pub epoch: i64,
    /// The publications of the stream.
    pub publications: Vec<String>,
    /// What to do with rows that are there already.
    pub existing_rows: ExistingRows,
    /// About how many bytes a chunk has.
    pub chunk_bytes: u64,
    /// How rows are written to the target.
    pub mode: Mode,
}

/// Takes tables into the stream.
pub struct Planner {
    /// A session to the source.
    pub source: Session,
    /// A session to the target, which writes as `settings` say.
    pub target: Session,
    /// For what fails.
    pub ledger: Ledger,
    /// The rest.
    pub settings: PlannerSettings,
}

/// A table that waits to be taken in.
struct Waiting {
    look: Look,
    /// What was read of it; read again after a failure.
    table: Option<PublishedTable>,
    not_before: Instant,
    has_failed: bool,
}

impl Waiting {
    fn new(look: Look, table: Option<PublishedTable>) -> Self {
        Self { look, table, not_before: Instant::now(), has_failed: false }
    }
}

impl Planner {
    /// Takes in these tables, each that comes through `looks`, and what is asked to be copied again, until
    /// nobody listens any more.
    pub async fn run(
        self,
        tables: Vec<PublishedTable>,
        looks: mpsc::UnboundedReceiver<Look>,
        planned: mpsc::Sender<Result<Planned>>,
    ) {
        if let Err(fault) = self.run_until_fault(tables, looks, &planned).await {
            // The engine ends with it.
            let _ = planned.send(Err(fault)).await;
        }
    }

    async fn run_until_fault(
        &self,
        tables: Vec<PublishedTable>,
        mut looks: mpsc::UnboundedReceiver<Look>,
        planned: &mpsc::Sender<Result<Planned>>,
    ) -> Result<()> {
        let look = |table: &PublishedTable| Look { relation: table.oid, holds_back: false };
        let mut waiting: VecDeque<Waiting> =
            tables.into_iter().map(|table| Waiting::new(look(&table), Some(table))).collect();
        let mut repairs = tokio::time::interval(limits::REPAIR_INTERVAL);
        repairs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let found = tokio::select! {
                biased;
                _ = repairs.tick() => self.take_up_repairs().await?,
                next = next(&mut waiting, &mut looks) => {
                    let Some(next) = next else { return Ok(()) };
                    match self.take_in(Box::new(next)).await? {
                        Outcome::Planned(table) => vec![table],
                        Outcome::Again(again) => {
                            waiting.push_back(*again);
                            Vec::new()
                        }
                    }
                }
            };
            for table in found {
                if planned.send(Ok(table)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// Takes a table in, or tells why that isn't possible now.
    async fn take_in(&self, mut waiting: Box<Waiting>) -> Result<Outcome> {
        let table = match waiting.table.take() {
            Some(table) => table,
            None => {
                let all = published(&self.source, &self.settings.publications).await?;
                match all.into_iter().find(|table| table.oid == waiting.look.relation) {
                    Some(table) => table,
                    None => {
                        self.ledger.forget_table(waiting.look.relation).await?;
                        return Ok(Outcome::Planned(Planned::Gone(waiting.look.relation)));
                    }
                }
            }
        };
        match self.plan(&table, waiting.look.holds_back).await {
            Ok(planned) => {
                self.ledger.resolve_failing(&table.name, "plan").await?;
                Ok(Outcome::Planned(Planned::Ready(Box::new(planned))))
            }
            Err(fault) if fault.is_unreachable() => Err(fault),
            Err(fault) => {
                self.target
                    .batch_execute("ROLLBACK")
                    .await
                    .map_err(|e| Fault::sql(Side::Target, "giving a table up for now", &e))?;
                let passes = fault.reaction() == Reaction::Retry;
                if passes {
                    tracing::debug!("{fault}");
                } else {
                    if !waiting.has_failed {
                        tracing::error!("the table is not copied: {fault}");
                    }
                    self.ledger.record_failing(&table.name, "plan", &fault).await?;
                    waiting.has_failed = true;
                }
                let rest = if passes { limits::COPY_PAUSE } else { limits::BLOCKED_INTERVAL };
                waiting.not_before = Instant::now() + rest;
                Ok(Outcome::Again(waiting))
            }
        }
    }

    async fn plan(&self, table: &PublishedTable, holds_back: bool) -> Result<PlannedTable> {
        let fence = fence(&self.source).await?;
        let (target, through_root) =
            destination(&self.target, &table.name, table.root.as_ref(), Bounds::Told).await?;
        let publications = &self.settings.publications;
        refuse_meeting(&self.source, &self.target, publications, table, &target, through_root).await?;
        let copy = TableCopy::new(table.clone(), &target, through_root);
        let (shape, known) = self.shape(&copy).await?;
        if let Some((_, chunks)) = self.ledger.copied_table(table.oid).await? {
            if holds_back {
                let hold = Hold { key: &table.key, others_than: None, mode: self.settings.mode };
                schema::hold_back_now(&self.target, &self.settings.name, &copy.target, hold).await?;
            }
            let ranges = chunks.into_iter().map(|chunk| chunk.range).collect();
            return Ok(PlannedTable { copy, ranges, fence, known });
        }
        let is_one_chunk = through_root || !target.has_ranges_of(&copy.chunk_key());
        let ranges = plan(&self.source, table, self.settings.chunk_bytes, is_one_chunk).await?;
        self.adopt(&copy, &ranges, &shape).await?;
        Ok(PlannedTable { copy, ranges, fence, known })
    }

    /// How the table is built: as the ledger has it, or as it is now, if it isn't there yet. What is read of it must
    /// be that.
    pub(super) async fn shape(&self, copy: &TableCopy) -> Result<(Shape, Known)> {
        let table = &copy.source;
        let changed = || Fault::retry("the source's table has changed").on(Side::Source);
        let there = tables(&self.source, Side::Source, &[table.oid]).await?;
        let there = there.get(&table.oid).ok_or_else(changed)?;
        let recorded: Option<Shape> = self.ledger.shape(table.oid).await?;
        let row =
            self.target.query_one("SELECT pg_catalog.to_regclass($1)::oid", &[&copy.target.to_sql()]).await;
        let oid: Option<u32> = row.map_err(|e| Fault::sql(Side::Target, "looking for a table", &e))?.get(0);
        let here = tables(&self.target, Side::Target, oid.as_slice()).await?;
        let here = here.values().next().ok_or_else(|| Fault::retry("the table has gone").on(Side::Target))?;
        let shape = recorded.unwrap_or_else(|| Shape::new(there, here, !copy.owns_target));
        if !shape.is_of(there) || !there.has_digest(table.digest.as_deref()) {
            return Err(changed());
        }
        let known = Known::new(&shape, here, table.columns.len());
        Ok((shape, known))
    }

    /// In one transaction of the target: nothing is there that would be in the way, and the ledger knows
    /// the table.
    async fn adopt(&self, copy: &TableCopy, ranges: &[KeyRange], shape: &Shape) -> Result<()> {
        let table = &copy.source;
        let sql = |doing: &'static str| move |e: tokio_postgres::Error| Fault::sql(Side::Target, doing, &e);
        // A short wait: whoever waits for us must not be the one that is given up.
        let begin = format!("BEGIN; SET LOCAL lock_timeout = {}", limits::DDL_LOCK_WAIT_MS);
        self.target.batch_execute(&begin).await.map_err(sql("beginning a transaction"))?;
        // One chunk has only rows that existed together.
        let key = if ranges.len() == 1 && copy.owns_target { &[][..] } else { &table.key };
        // With a full identity, any index may be the one that finds a row.
        let is_large = table.bytes >= limits::HELD_INDEX_TABLE_BYTES && table.identity != Identity::Full;
        let hold = Hold { key, others_than: is_large.then_some(&table.key[..]), mode: self.settings.mode };
        schema::hold_back(&*self.target, &self.settings.name, &copy.target, hold).await?;
        let target = std::slice::from_ref(&copy.target);
        if copy.owns_target && !rows_exist(&self.target, target).await?.is_empty() {
            let are_ours = self.ledger.was_left_out(table.oid).await?;
            if self.settings.existing_rows == ExistingRows::Refuse && !are_ours {
                return Err(existing_rows(target));
            }
            // They stay until their chunk is copied. Those without a key are in none, unless it is the only one.
            if ranges.len() > 1 {
                let delete = statements::delete_without_key(table, &copy.target, copy.target_is_partitioned);
                self.target.batch_execute(&delete).await.map_err(sql("removing rows without a key"))?;
            }
        }
        record_table(&self.target, &self.settings.name, self.settings.epoch, &recorded(table), ranges)
            .await?;
        record_shape(&self.target, &self.settings.name, table.oid, shape).await?;
        self.target.batch_execute("COMMIT").await.map_err(sql("taking a table into the stream"))
    }
}

/// A table as the ledger has it.
pub(super) fn recorded(table: &PublishedTable) -> CopiedTable {
    CopiedTable {
        relation: table.oid,
        name: table.name.clone(),
        membership: table.membership.clone(),
        key_columns: table.chunk_columns().to_vec(),
        rows_planned: table.rows.unwrap_or(0),
        bytes_planned: i64::try_from(table.bytes).unwrap_or(i64::MAX),
    }
}

/// Refuses tables that have rows nobody knows of.
#[must_use]
pub fn existing_rows(tables: &[crate::catalog::TableName]) -> Fault {
    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let fault = Fault::person(format!(
        "there are rows already in {}: the source's rows would be mixed with them",
        names.join(", ")
    ))
    .on(Side::Target)
    .remedy(
        "empty the tables, or set existing_rows = \"replace\" under [tables] to have their rows deleted and the \
         source's put in their place",
    );
    match &names[..] {
        [one] => fault.table(one),
        _ => fault,
    }
}

/// A transaction id that is assigned now: everything that has written before has a lower one.
///
/// # Errors
/// If the source can't be asked.
pub async fn fence(source: &Client) -> Result<Xid> {
    let fault = |e| Fault::sql(Side::Source, "asking for a transaction id", &e);
    // Rolled back, as a commit could wait for a synchronous standby.
    source.batch_execute("BEGIN").await.map_err(fault)?;
    let row = source.query_one("SELECT pg_catalog.pg_current_xact_id()::text", &[]).await.map_err(fault)?;
    source.batch_execute("ROLLBACK").await.map_err(fault)?;
    let text: &str = row.get(0);
    text.parse()
        .map(Xid::new)
        .map_err(|_| Fault::bug(format!("the source printed a transaction id as {text:?}")))
}

/// What a new snapshot sees at this moment.
///
/// # Errors
/// If the source can't be asked.
pub async fn current_snapshot(source: &Client) -> Result<Snapshot> {
    let row = source
        .query_one("SELECT pg_catalog.pg_current_snapshot()::text", &[])
        .await
        .map_err(|e| Fault::sql(Side::Source, "taking a snapshot", &e))?;
    snapshot(row.get(0))
}

/// Reads a snapshot as the source prints it.
///
/// # Errors
/// If it is none.
pub fn snapshot(text: &str) -> Result<Snapshot> {
    text.parse()
        .map_err(|_| Fault::bug(format!("the source printed a snapshot as {text:?}")).on(Side::Source))
}

enum Outcome {
    Planned(Planned),
    Again(Box<Waiting>),
}

/// The next table whose time has come; `None` when nobody can name any more.
async fn next(waiting: &mut VecDeque<Waiting>, looks: &mut mpsc::UnboundedReceiver<Look>) -> Option<Waiting> {
    loop {
        while let Ok(look) = looks.try_recv() {
            waiting.push_back(Waiting::new(look, None));
        }
        let now = Instant::now();
        if let Some(place) = waiting.iter().position(|table| table.not_before <= now) {
            return waiting.remove(place);
        }
        let soonest = waiting.iter().map(|table| table.not_before).min();
        let pause = soonest.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(now));
        tokio::select! {
            look = looks.recv() => waiting.push_back(Waiting::new(look?, None)),
            () = tokio::time::sleep(pause) => {}
        }
    }
}
