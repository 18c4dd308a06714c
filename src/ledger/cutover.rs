//! Switches: which one is under way, who carries it out, and what has become of it.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::Row;

use super::migration::{Ledger, Phase, fault, host};
use crate::connect::Session;
use crate::fault::Result;

/// A switch as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Switch {
    /// Its number.
    pub id: i64,
    /// `cutover` or `rollback`.
    pub way: String,
    /// Whether there is to be a way back.
    pub reverse: bool,
    /// The term of whoever carries it out.
    #[serde(skip)]
    pub term: i64,
    /// Who carries it out.
    pub holder: String,
    /// Nobody else may take it over yet.
    pub is_held: bool,
    /// The step that was begun last.
    pub step: String,
    /// The new side is the one.
    pub is_decided: bool,
    /// When the new side took writes, RFC 3339; null if it doesn't yet.
    pub opened_at: Option<String>,
    /// When it began, RFC 3339.
    pub begun_at: String,
    /// `switched`, `undone`; null while it is under way.
    pub outcome: Option<String>,
    /// When that was, RFC 3339.
    pub finished_at: Option<String>,
    /// Why it was undone; null if it wasn't.
    pub error: Option<String>,
    /// For how many milliseconds writes rested; null if that is not known.
    pub pause_ms: Option<i64>,
}

const COLUMNS: &str = "id, way, reverse, term, holder, lease_until > pg_catalog.clock_timestamp(), step,
     decided_at IS NOT NULL, pg_catalog.to_json(opened_at) #>> '{}', pg_catalog.to_json(begun_at) #>> '{}', outcome,
     pg_catalog.to_json(finished_at) #>> '{}', error, pause_ms";

fn switch(row: &Row) -> Switch {
    Switch {
        id: row.get(0),
        way: row.get(1),
        reverse: row.get(2),
        term: row.get(3),
        holder: row.get(4),
        is_held: row.get(5),
        step: row.get(6),
        is_decided: row.get(7),
        opened_at: row.get(8),
        begun_at: row.get(9),
        outcome: row.get(10),
        finished_at: row.get(11),
        error: row.get(12),
        pause_ms: row.get(13),
    }
}

/// Of the switch $1, if it is still carried out in the term $2.
const HELD: &str = "id = $1 AND term = $2 AND finished_at IS NULL";

impl Ledger {
    /// The switch that began last, if there was one.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn last_switch(&self) -> Result<Option<Switch>> {
        // A ledger that an older version made has no such table.
        let exists = "SELECT pg_catalog.to_regclass('cdc.cutover') IS NOT NULL";
        if !self.session.query_one(exists, &[]).await.map_err(|e| fault(&e))?.get::<_, bool>(0) {
            return Ok(None);
        }
        let sql = format!("SELECT {COLUMNS} FROM cdc.cutover WHERE name = $1 ORDER BY id DESC LIMIT 1");
        let row = self.session.query_opt(&sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(row.as_ref().map(switch))
    }

    /// The switch that is under way, or was left.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn open_switch(&self) -> Result<Option<Switch>> {
        Ok(self.last_switch().await?.filter(|switch| switch.outcome.is_none()))
    }

    /// Begins one; `None` if another one is under way.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn begin_switch(
        &self,
        way: &str,
        reverse: bool,
        holder: &str,
        os_user: &str,
        lease: Duration,
    ) -> Result<Option<Switch>> {
        self.complete().await?;
        // Larger than any term before, also of a ledger that was dropped: a fence may remember that.
        let sql = format!(
            "INSERT INTO cdc.cutover (name, way, reverse, holder, os_user, host, step, term, lease_until)
             SELECT $1, $2, $3, $4, $5, $6, 'check',
                    greatest(max(term) + 1, extract(epoch FROM pg_catalog.clock_timestamp())::bigint),
                    pg_catalog.clock_timestamp() + $7 * interval '1 second'
               FROM cdc.cutover WHERE name = $1
             ON CONFLICT (name) WHERE finished_at IS NULL DO NOTHING
             RETURNING {COLUMNS}"
        );
        let row = self
            .session
            .query_opt(&sql, &[&self.name, &way, &reverse, &holder, &os_user, &host(), &lease.as_secs_f64()])
            .await
            .map_err(|e| fault(&e))?;
        Ok(row.as_ref().map(switch))
    }

    /// Takes over one whose lease has run out; `None` if somebody else was quicker.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn take_over_switch(&self, id: i64, holder: &str, lease: Duration) -> Result<Option<Switch>> {
        let sql = format!(
            "UPDATE cdc.cutover
                SET term = term + 1, holder = $2, lease_until = pg_catalog.clock_timestamp() + $3 * interval '1 second'
              WHERE id = $1 AND finished_at IS NULL AND lease_until <= pg_catalog.clock_timestamp()
             RETURNING {COLUMNS}"
        );
        let row = self.session.query_opt(&sql, &[&id, &holder, &lease.as_secs_f64()]).await;
        Ok(row.map_err(|e| fault(&e))?.as_ref().map(switch))
    }

    async fn change_switch(
        &self,
        switch: &Switch,
        set: &str,
        more: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<bool> {
        let parameters = [&[&switch.id as _, &switch.term as _], more].concat();
        let sql = format!("UPDATE cdc.cutover SET {set} WHERE {HELD}");
        Ok(self.session.execute(&sql, &parameters).await.map_err(|e| fault(&e))? == 1)
    }

    /// Holds it for another while; false if it was taken over.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn renew_switch(&self, switch: &Switch, lease: Duration) -> Result<bool> {
        let set = "lease_until = pg_catalog.clock_timestamp() + $3 * interval '1 second'";
        self.change_switch(switch, set, &[&lease.as_secs_f64()]).await
    }

    /// Leaves it to whoever comes next.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn release_switch(&self, switch: &Switch) -> Result<bool> {
        self.change_switch(switch, "lease_until = pg_catalog.clock_timestamp()", &[]).await
    }

    /// Says which step is begun; false if it was taken over.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn note_step(&self, switch: &Switch, step: &str) -> Result<bool> {
        self.change_switch(switch, "step = $3", &[&step]).await
    }

    /// The point of no return; false if it was taken over, or may be at any moment.
    ///
    /// # Errors
    /// If the target can't be asked. Then nobody knows whether it is decided, until the ledger can be read again.
    pub async fn decide_switch(&self, switch: &Switch) -> Result<bool> {
        let sql = format!(
            "UPDATE cdc.cutover SET decided_at = pg_catalog.clock_timestamp()
              WHERE {HELD} AND lease_until > pg_catalog.clock_timestamp()"
        );
        Ok(self.session.execute(&sql, &[&switch.id, &switch.term]).await.map_err(|e| fault(&e))? == 1)
    }

    /// Takes the decision back: the new side is fenced again, and nothing was written there.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn take_back_switch(&self, switch: &Switch) -> Result<bool> {
        let sql = format!(
            "UPDATE cdc.cutover SET decided_at = NULL, opened_at = NULL
              WHERE {HELD} AND lease_until > pg_catalog.clock_timestamp()"
        );
        Ok(self.session.execute(&sql, &[&switch.id, &switch.term]).await.map_err(|e| fault(&e))? == 1)
    }

    /// Says that the new side takes writes.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn note_opened(&self, switch: &Switch) -> Result<bool> {
        let set = "opened_at = coalesce(opened_at, pg_catalog.clock_timestamp())";
        self.change_switch(switch, set, &[]).await
    }

    /// Enters a phase; with `ends_epoch` whoever applies can't commit any more when this returns. False if the
    /// switch was taken over.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn switch_phase(&self, switch: &Switch, phase: Phase, ends_epoch: bool) -> Result<bool> {
        let sql = format!(
            "WITH held AS (SELECT name FROM cdc.cutover WHERE {HELD} FOR UPDATE),
                  writer AS (UPDATE cdc.writer AS w SET epoch = epoch + $4::int FROM held WHERE w.name = held.name)
             UPDATE cdc.migration AS m SET phase = $3 FROM held WHERE m.name = held.name"
        );
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&switch.id, &switch.term, &phase.as_str(), &i32::from(ends_epoch)];
        Ok(self.session.execute(&sql, &parameters).await.map_err(|e| fault(&e))? == 1)
    }

    /// The tables that are replicated, by their oids on the source.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn relations(&self) -> Result<Vec<u32>> {
        let sql = "SELECT relation FROM cdc.copy WHERE name = $1";
        let rows = self.session.query(sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// True if all rows of all of these are there, and nothing is asked for that would take any of them away.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn is_whole(&self) -> Result<bool> {
        let sql = "SELECT NOT EXISTS (SELECT FROM cdc.chunk WHERE name = $1 AND state <> 'done')
                      AND NOT EXISTS (SELECT FROM cdc.copy AS t
                                       WHERE name = $1 AND NOT EXISTS (SELECT FROM cdc.chunk AS c
                                             WHERE c.name = t.name AND c.relation = t.relation))
                      AND NOT EXISTS (SELECT FROM cdc.repair WHERE name = $1 AND finished_at IS NULL)";
        let row = self.session.query_one(sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(row.get::<_, bool>(0) && self.copy_is_complete().await?)
    }

    /// For how many days nobody was seen on the side that the last switch has left; `None` if nobody looks.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn quiet_days(&self) -> Result<Option<f64>> {
        let sql = "SELECT CASE WHEN reverse THEN
                            extract(epoch FROM pg_catalog.now() - greatest(used_at, finished_at))::float8 / 86400 END
                     FROM cdc.cutover WHERE name = $1 ORDER BY id DESC LIMIT 1";
        let row = self.session.query_opt(sql, &[&self.name]).await.map_err(|e| fault(&e))?;
        Ok(row.and_then(|row| row.get(0)))
    }

    /// Closes it.
    ///
    /// # Errors
    /// If the target can't be asked.
    pub async fn conclude_switch(
        &self,
        switch: &Switch,
        outcome: &str,
        error: Option<&str>,
        pause_ms: Option<i64>,
    ) -> Result<bool> {
        let set = "outcome = $3, error = $4, pause_ms = $5, finished_at = pg_catalog.clock_timestamp()";
        self.change_switch(switch, set, &[&outcome, &error, &pause_ms]).await
    }
}

/// Notes that somebody is on the side that the last switch has left. `home` is a session to the database whose ledger
/// knows of switches.
///
/// # Errors
/// If it can't be asked.
pub async fn note_used(home: &Session, name: &str) -> Result<()> {
    let sql = "UPDATE cdc.cutover SET used_at = pg_catalog.now()
                WHERE id = (SELECT max(id) FROM cdc.cutover WHERE name = $1)";
    home.execute(sql, &[&name]).await.map_err(|e| fault(&e))?;
    Ok(())
}
