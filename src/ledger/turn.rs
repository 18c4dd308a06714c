//! Which way the rows go, and what a turn writes down: see [`crate::cutover::reverse`].

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Client, Row};

use super::copy::CopiedTable;
use super::migration::{Ledger, Origin, Phase, fault};
use crate::catalog::TableName;
use crate::chunk::{KeyRange, Snapshot};
use crate::config::{Config, Direction};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::lsn::Lsn;

/// Which way the rows go, as the database says that the configuration calls the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// The direction.
    pub direction: Direction,
    /// Nothing goes either way any more.
    pub is_over: bool,
    /// The direction before has left nothing on the servers.
    pub is_cleared: bool,
}

/// The configuration of the direction in which the migration runs now.
///
/// # Errors
/// If the database that knows it can't be asked; or in reverse the other one, which knows what is left alone then.
pub async fn as_it_runs(config: &Config) -> Result<Config> {
    let (home, side) = config.home();
    let application = format!("cdc_{} direction", config.name);
    let ask = async {
        let ledger = |session| Ledger::new(Arc::new(session), &config.name);
        let mut ledger_of_it = ledger(Session::open(home, side, &application).await?);
        let mut now = config.facing(ledger_of_it.course().await?.direction);
        if now.direction == Direction::Reverse {
            ledger_of_it = ledger(Session::open(&now.target, Side::Target, &application).await?);
        }
        now.tables.left_alone = ledger_of_it.left_alone().await?;
        Ok(now)
    };
    match tokio::time::timeout(limits::SILENCE, ask).await {
        Ok(now) => now,
        Err(_) => Err(Fault::unreachable(side, "it has not said for too long which way the rows go")),
    }
}

/// Takes a table into the copy whose rows are there already, with its chunks. `snapshot` sees all that the position
/// is behind.
///
/// # Errors
/// If the ledger can't be used.
pub async fn record_followed(
    client: &Client,
    name: &str,
    table: &CopiedTable,
    ranges: &[KeyRange],
    (snapshot, lsn): (&Snapshot, Lsn),
) -> Result<()> {
    let ranges: Vec<_> = ranges.iter().map(Json).collect();
    client
        .execute(
            "WITH followed AS (
               INSERT INTO cdc.copy
                      (name, relation, schema_name, table_name, membership, key_columns, rows_planned, bytes_planned)
               VALUES ($1, $2, $3, $4, $5, $6, 0, 0)
               RETURNING name, relation)
             INSERT INTO cdc.chunk (name, relation, ordinal, range, state, snapshot, lsn, started_at, finished_at)
             SELECT f.name, f.relation, r.number - 1, r.range, 'done', $8, $9, pg_catalog.now(), pg_catalog.now()
               FROM followed AS f, unnest($7::jsonb[]) WITH ORDINALITY AS r (range, number)",
            &[
                &name,
                &table.relation,
                &table.name.schema,
                &table.name.name,
                &table.membership,
                &table.key_columns,
                &ranges,
                &snapshot.to_string(),
                &lsn,
            ],
        )
        .await
        .map_err(|e| fault(&e).table(table.name.to_string()))?;
    Ok(())
}

fn course(row: &Row) -> Course {
    let direction = if row.get(0) { Direction::Reverse } else { Direction::Forward };
    Course { direction, is_over: row.get(1), is_cleared: row.get(2) }
}

impl Ledger {
    /// Which way the rows go; forward if nothing has begun.
    ///
    /// # Errors
    /// If the ledger can't be asked.
    pub async fn course(&self) -> Result<Course> {
        let known = match self.exists().await? {
            // The ledger of an earlier version has no such columns.
            true => {
                let sql = "SELECT coalesce(pg_catalog.to_jsonb(m) ->> 'direction' = 'reverse', false), phase = 'done',
                                  coalesce((pg_catalog.to_jsonb(m) ->> 'is_cleared')::boolean, true)
                             FROM cdc.migration AS m WHERE name = $1";
                self.session.query_opt(sql, &[&self.name]).await.map_err(|e| fault(&e))?
            }
            false => None,
        };
        Ok(known.map_or(Course { is_cleared: true, ..Course::default() }, |row| course(&row)))
    }

    /// Makes this the ledger of a direction that is about to begin, with nothing in it: what it has of an earlier time
    /// when it was that is forgotten.
    ///
    /// # Errors
    /// If the ledger can't be used; nothing is changed then.
    pub async fn begin_turn(&self, direction: Direction, origin: &Origin) -> Result<()> {
        self.complete().await?;
        // At home the row says how the migration is, whichever way it runs.
        let is_home = direction == Direction::Forward;
        self.session
            .execute(
                "WITH m AS (
                   INSERT INTO cdc.migration AS m (name, direction, phase) VALUES ($1, $2, $3)
                   ON CONFLICT (name) DO UPDATE
                      SET direction = CASE WHEN $4 THEN m.direction ELSE excluded.direction END,
                          phase = CASE WHEN $4 THEN m.phase ELSE excluded.phase END
                   RETURNING name),
                 writer AS (INSERT INTO cdc.writer (name) SELECT name FROM m ON CONFLICT DO NOTHING),
                 copy AS (DELETE FROM cdc.copy WHERE name = $1),
                 left_out AS (DELETE FROM cdc.left_out WHERE name = $1),
                 checkpoint AS (DELETE FROM cdc.checkpoint WHERE name = $1),
                 insert_only AS (DELETE FROM cdc.insert_only WHERE name = $1),
                 skip AS (DELETE FROM cdc.skip WHERE name = $1 AND skipped_at IS NULL),
                 repair AS (
                   UPDATE cdc.repair SET finished_at = pg_catalog.clock_timestamp(), error = 'the direction has turned'
                    WHERE name = $1 AND finished_at IS NULL)
                 UPDATE cdc.incident SET resolved_at = pg_catalog.now() WHERE name = $1 AND resolved_at IS NULL",
                &[&self.name, &direction.as_str(), &Phase::following(direction).as_str(), &is_home],
            )
            .await
            .map_err(|e| fault(&e))?;
        self.record_origin(origin).await
    }

    /// Says with which publications the stream will be decoded, which tables will not be in it, and what the source's
    /// catalog is like that the tables are recorded from.
    ///
    /// # Errors
    /// If the ledger can't be used.
    pub async fn record_publications(
        &self,
        publications: &[String],
        left_alone: &BTreeSet<TableName>,
        seen: &str,
    ) -> Result<()> {
        let sql = "UPDATE cdc.migration SET publications = $2, left_alone = $3, seen = $4 WHERE name = $1";
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.name, &publications, &Json(left_alone), &seen];
        self.session.execute(sql, &parameters).await.map_err(|e| fault(&e))?;
        Ok(())
    }

    /// The tables that this ledger's direction leaves alone.
    ///
    /// # Errors
    /// If the ledger can't be asked.
    pub async fn left_alone(&self) -> Result<BTreeSet<TableName>> {
        if !self.exists().await? {
            return Ok(BTreeSet::new());
        }
        // The ledger of an earlier version has no such column.
        let sql = "SELECT coalesce(pg_catalog.to_jsonb(m) -> 'left_alone', '[]') FROM cdc.migration AS m WHERE name = $1";
        let row = self.session.query_opt(sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(row.map_or_else(BTreeSet::new, |row| row.get::<_, Json<_>>(0).0))
    }

    /// Both sides are the same now: the stream begins at this position. False if the source's catalog isn't as it was
    /// when the tables were recorded; nothing begins then.
    ///
    /// # Errors
    /// If the ledger can't be used.
    pub async fn begin_at(&self, start: Lsn, seen: &str) -> Result<bool> {
        let begun = self
            .session
            .execute(
                "WITH m AS (UPDATE cdc.migration SET consistent_since = pg_catalog.now()
                             WHERE name = $1 AND seen = $3 RETURNING name)
                 INSERT INTO cdc.checkpoint (name, lsn) SELECT name, $2 FROM m
                 ON CONFLICT (name) DO UPDATE SET lsn = excluded.lsn",
                &[&self.name, &start, &seen],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(begun == 1)
    }

    /// Ends this life of whoever applies to this ledger's database: waits for the transaction in which it is writing,
    /// and makes those that are still to come fail.
    ///
    /// # Errors
    /// If the ledger can't be used.
    pub async fn end_epoch(&self) -> Result<()> {
        let sql = "UPDATE cdc.writer SET epoch = epoch + 1 WHERE name = $1";
        self.session.execute(sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Says that this is the ledger of a direction in which the migration doesn't run any more.
    ///
    /// # Errors
    /// If the ledger can't be used.
    pub async fn retire(&self, direction: Direction) -> Result<()> {
        // At home the row says how the migration is, whichever way it runs.
        let is_home = direction == Direction::Forward;
        let sql = "WITH checkpoint AS (DELETE FROM cdc.checkpoint WHERE name = $1)
                   UPDATE cdc.migration SET phase = 'done' WHERE name = $1 AND NOT $2";
        self.session.execute(sql, &[&self.name, &is_home]).await.map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Turns the migration, at home: from here on it runs in this direction, or with `None` not at all. Who applies
    /// here can't commit any more.
    ///
    /// # Errors
    /// If the ledger can't be used; nothing has turned then.
    pub async fn turn(&self, direction: Option<Direction>) -> Result<()> {
        let phase = direction.map_or(Phase::Done, Phase::following);
        self.session
            .execute(
                "WITH m AS (
                   UPDATE cdc.migration
                      SET direction = coalesce($2, direction), phase = $3,
                          is_cleared = is_cleared AND coalesce($2 = direction, false)
                    WHERE name = $1)
                 UPDATE cdc.writer SET epoch = epoch + 1 WHERE name = $1",
                &[&self.name, &direction.map(Direction::as_str), &phase.as_str()],
            )
            .await
            .map_err(|e| fault(&e))?;
        Ok(())
    }

    /// What the direction before had made on the servers is gone.
    ///
    /// # Errors
    /// If the ledger can't be used.
    pub async fn set_cleared(&self) -> Result<()> {
        let sql = "UPDATE cdc.migration SET is_cleared = true WHERE name = $1";
        self.session.execute(sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(())
    }

    /// Forgets the direction that has not begun; the ledger's tables stay.
    ///
    /// # Errors
    /// If the ledger can't be used.
    pub async fn forget_direction(&self) -> Result<()> {
        if !self.exists().await? {
            return Ok(());
        }
        let sql = "DELETE FROM cdc.migration WHERE name = $1 AND direction = 'reverse'";
        self.session.execute(sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(())
    }
}
