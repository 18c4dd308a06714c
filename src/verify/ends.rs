//! A session to each end, and the reads that both are asked for.

use std::collections::BTreeSet;
use std::pin::Pin;

use futures_util::TryStreamExt;
use tokio_postgres::{Row, RowStream};

use super::decide::Sight;
use super::sql::{Hash, Place};
use super::unit::Unit;
use crate::catalog::quote_literal;
use crate::chunk::KeyRange;
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::lsn::Lsn;

/// What a chunk amounts to on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) rows: i64,
    pub(super) hashes: String,
    pub(super) bytes: i64,
}

impl Sums {
    /// True if the rows are the same. The bytes of a text depend on the encoding.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.rows, &self.hashes) == (other.rows, &other.hashes)
    }
}

/// A bucket of a chunk's rows: how many, and the sum of their hashes.
pub(super) type Bucket = (i64, String);

/// Sessions that only read.
pub(super) struct Ends {
    pub(super) source: Session,
    pub(super) target: Session,
}

impl Ends {
    pub(super) async fn open(config: &Config) -> Result<Self> {
        let application = format!("cdc_{} verify", config.name);
        let (source, target) = tokio::try_join!(
            Session::open(&config.source, Side::Source, &application),
            Session::open(&config.target, Side::Target, &application),
        )?;
        let ends = Self { source, target };
        // A range of a key is read by its index: see `copy::Reader`. Where there is none, the table is read
        // all the same.
        let sql = format!(
            "SET default_transaction_read_only = on; SET max_parallel_workers_per_gather = 0; \
             SET lock_timeout = '{}s'",
            limits::VERIFY_LOCK_WAIT.as_secs()
        );
        for side in [Side::Source, Side::Target] {
            ends.session(side).batch_execute(&sql).await.map_err(|e| fault(side, &e))?;
        }
        Ok(ends)
    }

    fn session(&self, side: Side) -> &Session {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    async fn query(&self, side: Side, sql: &str) -> Result<Vec<Row>> {
        self.session(side).query(sql, &[]).await.map_err(|e| fault(side, &e))
    }

    /// Reads parts of tables through their indexes, or whole tables, from now on.
    pub(super) async fn read_parts(&self, parts: bool) -> Result<()> {
        let sql = format!("SET enable_seqscan = {}", if parts { "off" } else { "on" });
        for side in [Side::Source, Side::Target] {
            self.session(side).batch_execute(&sql).await.map_err(|e| fault(side, &e))?;
        }
        Ok(())
    }

    /// How both sides make a number of a text.
    pub(super) async fn common_hash(&self) -> Result<Hash> {
        let sql = format!(
            "SELECT current_setting('server_encoding'), {}, current_setting('server_encoding') <> 'SQL_ASCII'",
            Hash::Fast.of("ROW(1, 'probe', NULL, '')::text")
        );
        let mut answers = BTreeSet::new();
        let mut has_encoding = true;
        for side in [Side::Source, Side::Target] {
            let rows = self.query(side, &sql).await?;
            let row = rows.first().ok_or_else(|| Fault::bug("a probe without an answer").on(side))?;
            answers.insert((row.get::<_, String>(0), row.get::<_, i64>(1)));
            has_encoding &= row.get::<_, bool>(2);
        }
        Ok(if answers.len() == 1 && has_encoding { Hash::Fast } else { Hash::Portable })
    }

    /// The position of the source: everything that was read before was committed below it.
    pub(super) async fn position(&self) -> Result<Lsn> {
        let rows = self.query(Side::Source, "SELECT pg_current_wal_insert_lsn()").await?;
        let row = rows.first().ok_or_else(|| Fault::bug("the source has no position").on(Side::Source))?;
        Ok(row.get(0))
    }

    pub(super) async fn sums(&self, side: Side, unit: &Unit, range: &KeyRange) -> Result<Sums> {
        let rows = self.query(side, &unit.place(side).sums(range, &unit.range_columns)).await?;
        let row = rows.first().ok_or_else(|| Fault::bug("sums without a row").on(side))?;
        Ok(Sums { rows: row.get(0), hashes: row.get(1), bytes: row.get(2) })
    }

    /// The buckets that have rows.
    pub(super) async fn buckets(
        &self,
        side: Side,
        unit: &Unit,
        range: &KeyRange,
    ) -> Result<Vec<(i32, Bucket)>> {
        let rows = self.query(side, &unit.place(side).buckets(range, &unit.range_columns)).await?;
        Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
    }

    /// The rows of these buckets, in the order of their identities.
    pub(super) async fn rows(
        &self,
        side: Side,
        unit: &Unit,
        buckets: &[i32],
        range: &KeyRange,
    ) -> Result<Rows> {
        let sql = unit.place(side).rows_of(buckets, range, &unit.range_columns);
        let stream = self
            .session(side)
            .query_raw(&sql, std::iter::empty::<&(dyn tokio_postgres::types::ToSql + Sync)>())
            .await
            .map_err(|e| fault(side, &e))?;
        let mut rows = Rows { side, stream: Box::pin(stream), next: None };
        rows.read().await?;
        Ok(rows)
    }

    /// The rows with these identities, one sight for each; with the position of the checkpoint of this name
    /// that they belong to: both are read by one statement, and are committed together.
    pub(super) async fn look_up(
        &self,
        side: Side,
        place: &Place,
        ids: &[String],
        checkpoint: Option<&str>,
    ) -> Result<(Lsn, Vec<Sight>)> {
        let mut sights = vec![Sight::default(); ids.len()];
        let odd = || Fault::bug(format!("a key of {:?} can't be read", place.key));
        let rows = place.look_up(&numbered(ids)).ok_or_else(odd)?;
        let position = match checkpoint {
            Some(name) => {
                format!("(SELECT lsn FROM cdc.checkpoint WHERE name = {})", quote_literal(name))
            }
            None => "(SELECT '0/0'::pg_lsn AS lsn)".to_owned(),
        };
        let sql = format!(
            "SELECT p.lsn, x.n, x.version, x.content FROM {position} AS p LEFT JOIN ({rows}) AS x ON true"
        );
        let rows = self.query(side, &sql).await?;
        for row in &rows {
            let Some(n) = row.get::<_, Option<i32>>(1) else { continue };
            let sight = usize::try_from(n).ok().and_then(|n| sights.get_mut(n));
            let sight = sight.ok_or_else(|| Fault::bug("a row that was not asked for").on(side))?;
            sight.add(row.get(2), row.get(3));
        }
        let gone = || Fault::person("the checkpoint is gone").on(side);
        Ok((rows.first().ok_or_else(gone)?.get(0), sights))
    }

    /// Where each of these rows is on one side, and the hash of each of its columns; `None` if it isn't there.
    pub(super) async fn column_hashes(
        &self,
        side: Side,
        unit: &Unit,
        ids: &[String],
    ) -> Result<Vec<Option<(String, Vec<i64>)>>> {
        let mut found = vec![None; ids.len()];
        let Some(sql) = unit.place(side).column_hashes(&numbered(ids)) else { return Ok(found) };
        for row in self.query(side, &sql).await? {
            let n = usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX);
            if let Some(place @ None) = found.get_mut(n) {
                *place = Some((row.get(1), row.get(2)));
            }
        }
        Ok(found)
    }

    /// The beginnings of some values of a row, or of its whole text; `None` if it isn't there.
    pub(super) async fn values(
        &self,
        side: Side,
        unit: &Unit,
        id: &str,
        columns: &[String],
    ) -> Result<Option<Vec<Option<String>>>> {
        let Some(sql) = unit.place(side).values(id, columns, limits::VERIFY_VALUE_CHARS) else {
            return Ok(None);
        };
        Ok(self.query(side, &sql).await?.first().map(|row| row.get(0)))
    }
}

fn numbered(ids: &[String]) -> Vec<(usize, &str)> {
    ids.iter().map(String::as_str).enumerate().collect()
}

pub(super) fn fault(side: Side, error: &tokio_postgres::Error) -> Fault {
    let fault = Fault::sql(side, "comparing the rows", error);
    match fault.code().map(|code| code.code()) {
        Some("42501") => fault.remedy(
            "connect as the owner of the table, or GRANT SELECT ON it; with row level security the role needs \
             BYPASSRLS too, or its owner ALTER TABLE ... NO FORCE ROW LEVEL SECURITY",
        ),
        Some("55P03") => fault.remedy("something holds a lock on the table (pg_locks): verify it again later"),
        _ => fault,
    }
}

/// Rows in the order of their identities, those with the same identity together.
pub(super) struct Rows {
    side: Side,
    stream: Pin<Box<RowStream>>,
    next: Option<(Vec<u8>, i64)>,
}

impl Rows {
    async fn read(&mut self) -> Result<()> {
        let row = self.stream.try_next().await.map_err(|e| fault(self.side, &e))?;
        self.next = row.map(|row| (row.get(0), row.get(1)));
        Ok(())
    }

    /// The next identity.
    pub(super) fn peek(&self) -> Option<&[u8]> {
        self.next.as_ref().map(|(id, _)| &id[..])
    }

    /// The next identity and the contents of its rows, in order.
    pub(super) async fn take(&mut self) -> Result<Option<(Vec<u8>, Vec<i64>)>> {
        let Some((id, content)) = self.next.take() else { return Ok(None) };
        let mut contents = vec![content];
        self.read().await?;
        while self.peek() == Some(&id[..]) && contents.len() < limits::VERIFY_CANDIDATES {
            contents.extend(self.next.take().map(|(_, content)| content));
            self.read().await?;
        }
        contents.sort_unstable();
        Ok(Some((id, contents)))
    }
}
