//! A reader: carries chunks from the source to the target. Each step is there because without it rows
//! get lost (rule C5).

use std::sync::Arc;

use futures_util::future::try_join;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::format::{Format, types};
use super::pipe::{Broken, Piped, Throttle, pipe};
use super::planner::snapshot;
use super::statements;
use super::table::TableCopy;
use super::who::who;
use crate::catalog::{largest_row, with_digest};
use crate::chunk::{ChunkId, KeyRange, Snapshot, Xid};
use crate::connect::{ConnInfo, Mode, Session};
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{CopiedChunk, record_done};
use crate::limits;
use crate::lsn::Lsn;

/// What all readers of an engine share.
pub struct Readers {
    /// Where rows are read.
    pub source: ConnInfo,
    /// Where they go.
    pub target: ConnInfo,
    /// The application name of their sessions.
    pub application: String,
    /// The migration, and the epoch that they write under.
    pub name: String,
    /// The epoch of this life.
    pub epoch: i64,
    /// How they write.
    pub mode: Mode,
    /// The rate of all of them together.
    pub throttle: Throttle,
    /// Where snapshots are offered.
    pub offers: mpsc::Sender<Offered>,
}

/// Chunks that are copied under one snapshot.
#[derive(Clone, Debug)]
pub struct Job {
    /// Their table.
    pub table: Arc<TableCopy>,
    /// The chunks; one, but for those that rows keep moving between.
    pub chunks: Vec<(ChunkId, KeyRange)>,
}

impl Job {
    /// The chunks' ids.
    #[must_use]
    pub fn ids(&self) -> Vec<ChunkId> {
        self.chunks.iter().map(|(id, _)| *id).collect()
    }
}

/// A snapshot that a reader has taken for its job, and where to say what becomes of it.
pub struct Offered {
    /// The chunks to be read under it.
    pub chunks: Vec<ChunkId>,
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// What has been in the way of the ones before for a while, for a person.
    pub in_the_way: Option<String>,
    /// The answer.
    pub answer: oneshot::Sender<Answer>,
}

/// What becomes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The chunks are being copied under it.
    Accepted,
    /// Another one has to be taken, in which this transaction has ended.
    Refused(Xid),
    /// Another one has to be taken later: the stream is behind.
    Later,
    /// The chunks are not to be copied now.
    Withdrawn,
}

/// Chunks that are committed on the target.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Under this snapshot.
    pub snapshot: Arc<Snapshot>,
    /// Everything that it sees was committed below.
    pub lsn: Lsn,
    /// Rows.
    pub rows: u64,
    /// Bytes of COPY data.
    pub bytes: u64,
}

/// A session to each end.
pub struct Reader {
    source: Session,
    target: Session,
}

impl Reader {
    /// Connects to both ends.
    ///
    /// # Errors
    /// If one of them refuses.
    pub async fn open(readers: &Readers) -> Result<Self> {
        let source = Session::open(&readers.source, Side::Source, &readers.application).await?;
        let target = Session::open(&readers.target, Side::Target, &readers.application).await?;
        // The same rows in the same order when they are read again to name the one that failed. And the
        // message is to be flushed here; a synchronous standby needn't have it.
        source
            .batch_execute(
                "SET synchronize_seqscans = off; SET max_parallel_workers_per_gather = 0; \
                 SET synchronous_commit = local",
            )
            .await
            .map_err(|e| Fault::sql(Side::Source, "setting up a session of the copy", &e))?;
        target.write_as(readers.mode).await?;
        Ok(Self { source, target })
    }

    /// Copies a job's chunks; `None` if they are not to be copied now.
    ///
    /// # Errors
    /// With the table, the chunk and the row that it failed at. Nothing of them is committed then,
    /// unless the connection to the target was lost: only the ledger knows in that case. The reader is
    /// to be dropped: its transactions end with their sessions.
    pub async fn copy(&self, readers: &Readers, job: &Job) -> Result<Option<Copied>> {
        self.copy_chunks(readers, job).await.map_err(|fault| match fault.table_name() {
            Some(_) => fault,
            None => fault.table(job.table.source.name.to_string()),
        })
    }

    async fn copy_chunks(&self, readers: &Readers, job: &Job) -> Result<Option<Copied>> {
        let Some(snapshot) = self.accepted_snapshot(readers, job).await? else { return Ok(None) };
        // Both are on their way to the target at once, in this order.
        let ((), format) = try_join(self.begin_writing(job), self.format(job)).await?;
        let mut chunks = Vec::new();
        for (id, range) in &job.chunks {
            let piped = self.carry(readers, &job.table, range, format).await?;
            let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            chunks.push(CopiedChunk { id: *id, rows: count(piped.rows), bytes: count(piped.bytes) });
        }
        let lsn = self.flushed_beyond_snapshot().await?;
        record_done(&self.target, &readers.name, readers.epoch, &snapshot, lsn, &chunks).await?;
        self.target.batch_execute("COMMIT").await.map_err(|e| {
            let fault = Fault::sql(Side::Target, "committing a chunk", &e);
            match fault.reaction() {
                // It may be committed all the same: only the ledger knows, and is to be read again.
                Reaction::Retry => Fault::unreachable(Side::Target, fault.what()),
                Reaction::Person | Reaction::CopyAgain | Reaction::Usage | Reaction::Bug => fault,
            }
        })?;
        let sum = |of: fn(&CopiedChunk) -> i64| chunks.iter().map(|c| of(c).unsigned_abs()).sum();
        Ok(Some(Copied { snapshot, lsn, rows: sum(|c| c.rows), bytes: sum(|c| c.bytes) }))
    }

    /// Begins to read, under a snapshot that the engine accepts.
    async fn accepted_snapshot(&self, readers: &Readers, job: &Job) -> Result<Option<Arc<Snapshot>>> {
        let began = Instant::now();
        let mut in_the_way = None;
        loop {
            let snapshot = Arc::new(self.take_snapshot(job).await?);
            let (answer, answered) = oneshot::channel();
            let offered = Offered {
                chunks: job.ids(),
                snapshot: Arc::clone(&snapshot),
                in_the_way: in_the_way.take(),
                answer,
            };
            let gone = || Fault::bug("the engine has ended before its readers");
            readers.offers.send(offered).await.map_err(|_| gone())?;
            let answer = answered.await.map_err(|_| gone())?;
            if answer == Answer::Accepted {
                return Ok(Some(snapshot));
            }
            self.source.batch_execute("ROLLBACK").await.map_err(|e| reading(&e))?;
            match answer {
                Answer::Accepted | Answer::Later => {}
                Answer::Refused(xid) if began.elapsed() >= limits::SNAPSHOT_PATIENCE => {
                    in_the_way = Some(who(&self.source, xid).await?);
                }
                Answer::Refused(_) => {}
                Answer::Withdrawn => return Ok(None),
            }
            tokio::time::sleep(limits::SNAPSHOT_INTERVAL).await;
        }
    }

    /// Locks the table, then takes the snapshot: TRUNCATE and rewrites don't respect snapshots, so none
    /// may come between the snapshot and the read.
    async fn take_snapshot(&self, job: &Job) -> Result<Snapshot> {
        let table = &job.table;
        // The server takes a range of a key of several columns for a quarter of the table, as it looks at
        // the first column and at each bound alone, and could read the whole table for each chunk.
        let seqscan = if job.chunks.iter().any(|(_, range)| *range != KeyRange::ALL) { "off" } else { "on" };
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan = {seqscan}; \
             LOCK TABLE {} IN ACCESS SHARE MODE",
            table.source.name.only(table.source.is_partitioned)
        );
        self.source.batch_execute(&begin).await.map_err(|e| reading(&e))?;
        let row = self
            .source
            .query_opt(
                &with_digest(
                    "SELECT pg_catalog.pg_current_snapshot()::text, {digest} FROM pg_catalog.pg_class AS c
                      WHERE oid = $2 AND oid = pg_catalog.to_regclass($1)",
                ),
                &[&table.source.name.to_sql(), &table.source.oid],
            )
            .await
            .map_err(|e| reading(&e))?;
        match row {
            Some(row) if row.get::<_, Option<String>>(1) == table.source.digest => snapshot(row.get(0)),
            Some(_) => Err(Fault::retry("the table's columns have changed").on(Side::Source)),
            None => Err(Fault::retry("another table has taken the table's name").on(Side::Source)),
        }
    }

    /// Begins to write, where nothing of the chunks may be left: they were sent back, or rows have moved
    /// out of them that the stream could not tell.
    async fn begin_writing(&self, job: &Job) -> Result<()> {
        let mut begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}; LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE",
            limits::COPY_LOCK_WAIT.as_millis(),
            job.table.target.to_sql()
        );
        let table = &job.table;
        if table.owns_target {
            for (_, range) in &job.chunks {
                begin.push_str("; ");
                begin.push_str(&statements::delete(
                    &table.source,
                    range,
                    &table.target,
                    table.target_is_partitioned,
                ));
            }
        }
        let doing = "clearing a chunk's place";
        self.target.batch_execute(&begin).await.map_err(|e| Fault::sql(Side::Target, doing, &e))
    }

    /// In which format the table's rows travel. It is locked on both sides, so that nobody changes a type meanwhile:
    /// binary rows of another one could be taken for rows of this one.
    async fn format(&self, job: &Job) -> Result<Format> {
        let table = &job.table;
        let columns = statements::columns(&table.source);
        let asking =
            |side| move |e: tokio_postgres::Error| Fault::sql(side, "asking for the columns' types", &e);
        let (source, target) = try_join(
            async { types(&self.source, &table.source.name, &columns).await.map_err(asking(Side::Source)) },
            async { types(&self.target, &table.target, &columns).await.map_err(asking(Side::Target)) },
        )
        .await?;
        Ok(Format::of(&source, &target))
    }

    /// Carries a chunk's rows over.
    async fn carry(
        &self,
        readers: &Readers,
        table: &TableCopy,
        range: &KeyRange,
        format: Format,
    ) -> Result<Piped> {
        let copy_out = statements::copy_out(&table.source, range, format);
        let copy_in = statements::copy_in(&table.source, &table.target, format);
        let piped = pipe(&self.source, &copy_out, &self.target, &copy_in, format, &readers.throttle).await;
        let place = match range.to_sql(table.source.chunk_columns()) {
            Some(range) => format!("copying the chunk {range}"),
            None => "copying the table".to_owned(),
        };
        match piped {
            Ok(piped) if piped.rows == piped.taken => Ok(piped),
            Ok(piped) => {
                Err(Fault::person(format!("{place}: the target took {} of {} rows", piped.taken, piped.rows))
                    .on(Side::Target)
                    .remedy("look for a trigger or a rule that somebody has just made on the target's table"))
            }
            Err(Broken::Source(error)) => Err(self.large_row(table, range, reading(&error)).await),
            Err(Broken::Target(error)) => {
                let fault = Fault::sql(Side::Target, &place, &error);
                match error.as_db_error().and_then(|e| line_of(e.where_()?)) {
                    Some(line) => Ok(fault.key(self.row(table, range, line).await?)),
                    None => Ok(fault),
                }
                .and_then(Err)
            }
        }
    }

    /// Says which row a fault is about, if it is about one that is too large: the source fails while it
    /// prints the row and doesn't tell.
    async fn large_row(&self, table: &TableCopy, range: &KeyRange, fault: Fault) -> Fault {
        if !fault.may_be_a_large_row() || self.source.batch_execute("ROLLBACK").await.is_err() {
            return fault;
        }
        let condition = range.to_sql(table.source.chunk_columns());
        let search = largest_row(&self.source, &table.source, condition.as_deref());
        let Ok(Ok(Some(row))) = tokio::time::timeout(limits::LARGE_ROW_SEARCH, search).await else {
            return fault;
        };
        fault.table(row.table).key(row.key).reacting(Reaction::Person).remedy(format!(
            "the text of a row with all its values (bytea counts twice, a backslash or a line break in text, too) must \
             stay below 1 GiB; this one, the largest there, has about {} bytes. Make it smaller, or leave its table out \
             (tables.exclude) and carry it by hand, with COPY ... (FORMAT binary)",
            row.bytes
        ))
    }

    /// The key of the row that came in this line, read once more under the same snapshot.
    async fn row(&self, table: &TableCopy, range: &KeyRange, line: usize) -> Result<String> {
        use futures_util::StreamExt;
        let copy_out = statements::copy_out(&table.source, range, Format::Text);
        let rows = self.source.copy_out(&copy_out).await.map_err(|e| reading(&e))?;
        let mut rows = std::pin::pin!(rows);
        let mut row = bytes::Bytes::new();
        for _ in 0..line {
            match rows.next().await {
                Some(next) => row = next.map_err(|e| reading(&e))?,
                None => break,
            }
        }
        let text = String::from_utf8_lossy(&row);
        let key = &table.source.key;
        let columns =
            if key.is_empty() { table.source.columns.iter().take(1) } else { key.iter().take(key.len()) };
        let values = text.trim_end_matches('\n').split('\t').zip(columns);
        Ok(values
            .map(|(value, column)| {
                format!("{column}={}", value.chars().take(limits::SHOWN_CHARS).collect::<String>())
            })
            .collect::<Vec<_>>()
            .join(", "))
    }

    /// Ends the reading, and returns a position below which everything was committed that the snapshot
    /// sees, and which a crash of the source can't take back: a commit is seen a moment before it is
    /// flushed, and the id of one that is lost would be used again. The message's own commit flushes
    /// everything before it.
    async fn flushed_beyond_snapshot(&self) -> Result<Lsn> {
        self.source.batch_execute("COMMIT").await.map_err(|e| reading(&e))?;
        self.source
            .execute("SELECT pg_catalog.pg_logical_emit_message(true, 'cdc', 'chunk')", &[])
            .await
            .map_err(|e| Fault::sql(Side::Source, "writing a message into the log", &e))?;
        let row = self
            .source
            .query_one("SELECT pg_catalog.pg_current_wal_insert_lsn()", &[])
            .await
            .map_err(|e| Fault::sql(Side::Source, "asking for the position", &e))?;
        Ok(row.get(0))
    }
}

/// A table or a column that is gone or has another name is no failure: the table is looked at again.
fn reading(error: &tokio_postgres::Error) -> Fault {
    let fault = Fault::sql(Side::Source, "reading a table", error);
    match fault.code().map(|code| code.code()) {
        Some("42P01" | "42703" | "3F000") => fault.reacting(Reaction::Retry),
        _ => fault,
    }
}

/// The line that COPY's context names: `COPY t, line 3, column c: "x"`.
fn line_of(context: &str) -> Option<usize> {
    let (_, after) = context.split_once(", line ")?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
