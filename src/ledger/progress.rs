//! How far the copy is: what the ledger holds, and what the server says of the COPYs under way.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::incident::FAILING;
use super::migration::{Ledger, fault};
use crate::fault::Result;

/// Rates are those of this many seconds.
const WINDOW_SECONDS: f64 = 30.0;

/// What a table weighs at the least, in bytes: an empty one takes its round trips too.
const WEIGHT_LEAST: i64 = 8192;

/// How far the copy is. The JSON form of it is part of `cdc status --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CopyProgress {
    /// Tables that are in the stream.
    pub tables: i64,
    /// Those of them whose chunks are all on the target.
    pub tables_done: i64,
    /// Chunks of all tables.
    pub chunks: i64,
    /// Those that are on the target.
    pub chunks_done: i64,
    /// Rows copied, those of chunks under way included.
    pub rows: i64,
    /// Rows that there were to copy, by the source's estimates.
    pub rows_planned: i64,
    /// Bytes copied, as COPY writes them.
    pub bytes: i64,
    /// Bytes that the tables took on the source. A row is larger or smaller as COPY writes it, so
    /// [`Self::fraction`] says better how much is done.
    pub bytes_planned: i64,
    /// What part of the copy is done: 0 to exactly 1.
    pub fraction: f64,
    /// Rows copied a second, of late.
    pub rows_per_second: f64,
    /// Bytes copied a second, of late.
    pub bytes_per_second: f64,
    /// How long the rest takes if it goes on like this; null if nothing moves.
    pub eta_seconds: Option<f64>,
    /// Since when the target is a state that the source once had, RFC 3339; null while it isn't.
    pub consistent_since: Option<String>,
    /// Constraints and indexes of the target that are held back until their tables are copied.
    pub held_back: i64,
    /// What is held back until the cutover, as it would act on replicated rows: how many of each kind.
    pub held_until_cutover: BTreeMap<String, i64>,
    /// Each table, unfinished ones first.
    pub details: Vec<TableProgress>,
}

/// How far the copy of one table is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableProgress {
    /// Its name on the source, as `schema.table`.
    pub table: String,
    /// In a word.
    pub state: TableState,
    /// Rows copied, those of chunks under way included.
    pub rows: i64,
    /// Rows that there were to copy, by the source's estimate.
    pub rows_planned: i64,
    /// Bytes copied, as COPY writes them.
    pub bytes: i64,
    /// Bytes that the table took on the source.
    pub bytes_planned: i64,
    /// Its chunks.
    pub chunks: i64,
    /// Those that are on the target.
    pub chunks_done: i64,
    /// What part of it is done: 0 to exactly 1.
    pub fraction: f64,
    /// Rows copied a second, of late; null if nothing moves.
    pub rows_per_second: Option<f64>,
    /// How long the rest takes if it goes on like this; null if nothing moves.
    pub eta_seconds: Option<f64>,
}

/// How the copy of a table is, in a word. In the order of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TableState {
    /// A part of it stands until a person acts: see its incident.
    Failed,
    /// Under way.
    Copying,
    /// Not begun.
    Pending,
    /// Every row is there.
    Done,
}

/// What has been copied, or was copied of late: whole chunks and parts of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Amount {
    chunks: f64,
    rows: f64,
    bytes: f64,
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.chunks += other.chunks;
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}

/// A table as the ledger holds it.
#[derive(Clone, Debug)]
struct Table {
    name: String,
    rows_planned: i64,
    bytes_planned: i64,
    chunks: i64,
    chunks_done: i64,
    /// What the chunks that are done have brought.
    rows: i64,
    bytes: i64,
    /// What they have brought within the window.
    recent: Amount,
    /// How long ago the first of those began.
    recent_seconds: Option<f64>,
    is_failing: bool,
}

/// A COPY that is running on the target.
#[derive(Clone, Debug)]
struct UnderWay {
    /// The target's table.
    table: String,
    rows: i64,
    bytes: i64,
    seconds: f64,
}

impl CopyProgress {
    /// True if every row of every table is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.chunks == self.chunks_done
    }
}

impl Ledger {
    /// How far the copy is; `None` before the first table is planned.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn copy_progress(&self) -> Result<Option<CopyProgress>> {
        let tables = self.tables_of_the_copy().await?;
        if tables.is_empty() {
            return Ok(None);
        }
        let row = self
            .session
            .query_one(
                "SELECT pg_catalog.to_json(consistent_since) #>> '{}',
                        (SELECT count(*) FROM cdc.held_back AS h
                          WHERE h.name = m.name AND h.until = 'copy' AND h.put_back_at IS NULL),
                        (SELECT coalesce(pg_catalog.jsonb_object_agg(kind, held), '{}')
                           FROM (SELECT kind, count(*) AS held FROM cdc.held_back AS h
                                  WHERE h.name = m.name AND h.until = 'cutover' AND h.put_back_at IS NULL
                                    AND h.part_of IS NULL
                                  GROUP BY kind) AS kinds)
                   FROM cdc.migration AS m WHERE name = $1",
                &[&self.name],
            )
            .await
            .map_err(|e| fault(&e))?;
        let progress = progress(&tables, &self.copies_under_way().await?);
        let Json(held_until_cutover) = row.get(2);
        Ok(Some(CopyProgress {
            consistent_since: row.get(0),
            held_back: row.get(1),
            held_until_cutover,
            ..progress
        }))
    }

    async fn tables_of_the_copy(&self) -> Result<Vec<Table>> {
        // A chunk counts for the window with the share of its time that is in it.
        let rows = self
            .session
            .query(
                "SELECT t.schema_name || '.' || t.table_name AS table, t.rows_planned, t.bytes_planned,
                        count(*), count(*) FILTER (WHERE c.state = 'done'),
                        coalesce(sum(c.rows), 0)::bigint, coalesce(sum(c.bytes), 0)::bigint,
                        coalesce(sum(r.share), 0)::float8, coalesce(sum(c.rows * r.share), 0)::float8,
                        coalesce(sum(c.bytes * r.share), 0)::float8,
                        extract(epoch FROM now.time - min(c.started_at) FILTER (WHERE r.share > 0))::float8,
                        EXISTS (SELECT FROM cdc.incident AS i
                                 WHERE i.name = $1 AND i.severity = $3 AND i.resolved_at IS NULL
                                   AND i.table_name = t.schema_name || '.' || t.table_name)
                   FROM cdc.copy AS t
                   JOIN cdc.chunk AS c USING (name, relation)
                  CROSS JOIN (SELECT pg_catalog.statement_timestamp() AS time) AS now
                  CROSS JOIN LATERAL (
                    SELECT extract(epoch FROM now.time - c.started_at)::float8 AS began,
                           extract(epoch FROM now.time - c.finished_at)::float8 AS ended) AS ago
                  CROSS JOIN LATERAL (
                    SELECT CASE WHEN ago.ended < $2
                                THEN coalesce((least(ago.began, $2) - ago.ended) / nullif(ago.began - ago.ended, 0), 1)
                           END AS share) AS r
                  WHERE name = $1
                  GROUP BY t.name, t.relation, now.time",
                &[&self.name, &WINDOW_SECONDS, &FAILING],
            )
            .await
            .map_err(|e| fault(&e))?;
        let table = |row: &Row| Table {
            name: row.get(0),
            rows_planned: row.get(1),
            bytes_planned: row.get(2),
            chunks: row.get(3),
            chunks_done: row.get(4),
            rows: row.get(5),
            bytes: row.get(6),
            recent: Amount { chunks: row.get(7), rows: row.get(8), bytes: row.get(9) },
            recent_seconds: row.get(10),
            is_failing: row.get(11),
        };
        Ok(rows.iter().map(table).collect())
    }

    async fn copies_under_way(&self) -> Result<Vec<UnderWay>> {
        // The view came with PostgreSQL 14; before, chunks count when they are done.
        if self.session.server_version_num() < 140_000 {
            return Ok(Vec::new());
        }
        let rows = self
            .session
            .query(
                "SELECT n.nspname || '.' || c.relname, p.tuples_processed, p.bytes_processed,
                        extract(epoch FROM pg_catalog.statement_timestamp() - a.xact_start)::float8
                   FROM pg_catalog.pg_stat_progress_copy AS p
                   JOIN pg_catalog.pg_stat_activity AS a USING (pid)
                   JOIN pg_catalog.pg_class AS c ON c.oid = p.relid
                   JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                  WHERE p.datname = pg_catalog.current_database() AND p.command = 'COPY FROM'
                    AND a.application_name = $1 AND a.xact_start IS NOT NULL",
                &[&format!("cdc_{} copy", self.name)],
            )
            .await
            .map_err(|e| fault(&e))?;
        let under_way = |row: &Row| UnderWay {
            table: row.get(0),
            rows: row.get(1),
            bytes: row.get(2),
            seconds: row.get(3),
        };
        Ok(rows.iter().map(under_way).collect())
    }
}

/// Puts the two together; `consistent_since` and what is held back are not in them.
fn progress(tables: &[Table], under_way: &[UnderWay]) -> CopyProgress {
    // Less than the whole window if nothing of it began so long ago.
    let ages = tables.iter().filter_map(|table| table.recent_seconds);
    let oldest = ages.chain(under_way.iter().map(|copy| copy.seconds)).fold(0.1, f64::max);
    let window = oldest.min(WINDOW_SECONDS);
    let mut copies: HashMap<&str, Vec<&UnderWay>> = HashMap::new();
    // A partition's rows can go to a table of the target that isn't in the stream itself: they count
    // for the whole then, though for no table.
    let mut recent = Amount::default();
    for copy in under_way {
        copies.entry(&copy.table).or_default().push(copy);
        recent.add(copy.recent(window, 0.0));
    }
    let mut details = Vec::with_capacity(tables.len());
    let (mut weights, mut weight_done, mut weight_recent) = (0.0, 0.0, 0.0);
    for table in tables {
        let copies = copies.get(table.name.as_str()).map_or(&[][..], Vec::as_slice);
        let (detail, chunks_recent) = table.progress(copies, window);
        let weight = table.bytes_planned.max(WEIGHT_LEAST) as f64;
        weights += weight;
        weight_done += weight * detail.fraction;
        weight_recent += weight * chunks_recent / table.chunks as f64;
        recent.add(table.recent);
        details.push(detail);
    }
    details.sort_by(|a, b| (a.state, &a.table).cmp(&(b.state, &b.table)));
    let sum = |of: fn(&Table) -> i64| tables.iter().map(of).sum::<i64>();
    let (chunks, chunks_done) = (sum(|t| t.chunks), sum(|t| t.chunks_done));
    let fraction = if chunks == chunks_done { 1.0 } else { (weight_done / weights).min(UNFINISHED) };
    CopyProgress {
        tables: sum(|_| 1),
        tables_done: sum(|t| i64::from(t.is_done())),
        chunks,
        chunks_done,
        rows: sum(|t| t.rows) + under_way.iter().map(|copy| copy.rows).sum::<i64>(),
        rows_planned: sum(|t| t.rows_planned),
        bytes: sum(|t| t.bytes) + under_way.iter().map(|copy| copy.bytes).sum::<i64>(),
        bytes_planned: sum(|t| t.bytes_planned),
        fraction,
        rows_per_second: recent.rows / window,
        bytes_per_second: recent.bytes / window,
        eta_seconds: eta(fraction, weight_recent / weights / window),
        consistent_since: None,
        held_back: 0,
        held_until_cutover: BTreeMap::new(),
        details,
    }
}

/// The most that is said of what isn't finished.
const UNFINISHED: f64 = 0.999;

/// How long the rest takes.
fn eta(fraction: f64, per_second: f64) -> Option<f64> {
    let rest = 1.0 - fraction;
    if rest > 0.0 { (per_second > 0.0).then_some(rest / per_second) } else { Some(0.0) }
}

impl UnderWay {
    /// What it has brought within the window, being this part of a chunk.
    fn recent(&self, window: f64, chunks: f64) -> Amount {
        let share = if self.seconds > window { window / self.seconds } else { 1.0 };
        Amount { chunks: chunks * share, rows: self.rows as f64 * share, bytes: self.bytes as f64 * share }
    }
}

impl Table {
    fn is_done(&self) -> bool {
        self.chunks == self.chunks_done
    }

    /// How far it is with these COPYs of its chunks, and how many chunks of that are of late.
    fn progress(&self, copies: &[&UnderWay], window: f64) -> (TableProgress, f64) {
        let all_chunks = self.chunks as f64;
        let chunk_rows = self.rows_planned as f64 / all_chunks;
        let mut recent = self.recent;
        let mut chunks = self.chunks_done as f64;
        for copy in copies {
            let part = if chunk_rows > 0.0 { (copy.rows as f64 / chunk_rows).min(UNFINISHED) } else { 0.0 };
            recent.add(copy.recent(window, part));
            chunks += part;
        }
        let (fraction, eta_seconds) = if self.is_done() {
            (1.0, None)
        } else {
            let fraction = (chunks / all_chunks).min(UNFINISHED);
            (fraction, eta(fraction, recent.chunks / all_chunks / window))
        };
        let state = if self.is_failing {
            TableState::Failed
        } else if self.is_done() {
            TableState::Done
        } else if self.chunks_done > 0 || !copies.is_empty() {
            TableState::Copying
        } else {
            TableState::Pending
        };
        let rate = recent.rows / window;
        let progress = TableProgress {
            table: self.name.clone(),
            state,
            rows: self.rows + copies.iter().map(|copy| copy.rows).sum::<i64>(),
            rows_planned: self.rows_planned,
            bytes: self.bytes + copies.iter().map(|copy| copy.bytes).sum::<i64>(),
            bytes_planned: self.bytes_planned,
            chunks: self.chunks,
            chunks_done: self.chunks_done,
            fraction,
            rows_per_second: (!self.is_done() && rate > 0.0).then_some(rate),
            eta_seconds,
        };
        (progress, recent.chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1024 * 1024;

    fn table(name: &str, chunks: i64, chunks_done: i64) -> Table {
        Table {
            name: name.to_owned(),
            rows_planned: chunks * 1000,
            bytes_planned: chunks * 16 * MIB,
            chunks,
            chunks_done,
            rows: chunks_done * 1000,
            bytes: chunks_done * 12 * MIB,
            recent: Amount::default(),
            recent_seconds: None,
            is_failing: false,
        }
    }

    fn under_way(table: &str, rows: i64, seconds: f64) -> UnderWay {
        UnderWay { table: table.to_owned(), rows, bytes: rows * 100, seconds }
    }

    #[test]
    fn the_fraction_is_of_bytes_and_ends_at_exactly_one() {
        let tables = |done| [table("s.large", 9, done), table("s.small", 1, 1), table("s.other", 3, 3)];
        let fractions: Vec<f64> = (0..=9).map(|done| progress(&tables(done), &[]).fraction).collect();
        for (done, fraction) in fractions.iter().enumerate().take(9) {
            assert!((fraction - (done as f64 + 4.0) / 13.0).abs() < 1e-9, "{fractions:?}");
        }
        assert_eq!(fractions[9], 1.0);
        let done = progress(&tables(9), &[]);
        assert_eq!((done.tables, done.tables_done, done.chunks, done.chunks_done), (3, 3, 13, 13));
        assert_eq!((done.eta_seconds, done.rows_per_second), (Some(0.0), 0.0));
    }

    #[test]
    fn an_empty_table_counts_and_one_without_an_estimate_is_never_more_than_done() {
        let empty = Table { rows_planned: 0, bytes_planned: 0, ..table("s.empty", 1, 0) };
        assert_eq!(progress(std::slice::from_ref(&empty), &[]).fraction, 0.0);
        let more = progress(
            &[empty, table("s.a", 1, 0)],
            &[under_way("s.empty", 9, 1.0), under_way("s.a", 5000, 1.0)],
        );
        assert!(more.fraction < 1.0 && more.details.iter().all(|table| table.fraction < 1.0), "{more:?}");
        assert_eq!(more.rows, 5009);
    }

    #[test]
    fn chunks_under_way_count_with_what_they_have_brought() {
        let tables = [table("s.a", 4, 1), table("s.b", 1, 0)];
        let copies = [under_way("s.a", 500, 5.0), under_way("s.a", 250, 10.0), under_way("s.root", 250, 2.0)];
        let progress = progress(&tables, &copies);
        assert_eq!((progress.rows, progress.bytes), (2000, 12 * MIB + 100_000));
        assert_eq!((progress.rows_per_second, progress.bytes_per_second), (100.0, 10_000.0));
        assert!((progress.fraction - 1.75 / 5.0).abs() < 1e-9, "{progress:?}");
        // 0.75 of 5 chunks in 10 seconds, 3.25 are left.
        assert!((progress.eta_seconds.unwrap() - 3.25 / 0.075).abs() < 1e-6, "{progress:?}");
        let [a, b] = &progress.details[..] else { panic!("{progress:?}") };
        assert_eq!((a.table.as_str(), a.state, a.rows), ("s.a", TableState::Copying, 1750));
        assert_eq!((a.fraction, a.rows_per_second), (1.75 / 4.0, Some(75.0)));
        assert!((a.eta_seconds.unwrap() - 2.25 / 0.075).abs() < 1e-6, "{a:?}");
        assert_eq!((b.table.as_str(), b.state, b.rows, b.eta_seconds), ("s.b", TableState::Pending, 0, None));
    }

    #[test]
    fn only_the_last_half_minute_makes_the_rate() {
        let of_late = Amount { chunks: 2.0, rows: 2000.0, bytes: 6000.0 };
        let tables = [Table { recent: of_late, recent_seconds: Some(45.0), ..table("s.a", 10, 5) }];
        let progress = progress(&tables, &[under_way("s.a", 900, 90.0)]);
        assert_eq!(progress.rows_per_second, 2300.0 / 30.0);
        assert!((progress.eta_seconds.unwrap() - 4.1 / (2.3 / 30.0)).abs() < 1e-6, "{progress:?}");
    }

    #[test]
    fn what_has_failed_comes_first_and_what_is_done_last() {
        let tables = [
            table("s.done", 1, 1),
            table("s.waits", 1, 0),
            table("s.begun", 2, 1),
            Table { is_failing: true, ..table("s.failed", 2, 1) },
            table("s.also_waits", 1, 0),
        ];
        let order: Vec<_> = progress(&tables, &[]).details.into_iter().map(|t| (t.table, t.state)).collect();
        let is = |table: &str, state| (format!("s.{table}"), state);
        assert_eq!(
            order,
            [
                is("failed", TableState::Failed),
                is("begun", TableState::Copying),
                is("also_waits", TableState::Pending),
                is("waits", TableState::Pending),
                is("done", TableState::Done),
            ]
        );
    }
}
