//! The status of a migration, as `cdc status --json` prints it.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::OldSide;
use super::lag::{Lag, Limits, Verdict};
use crate::config::{Config, Direction};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::{CopyProgress, Incident, Ledger, Phase, Repair, Skip, Switch, Verification};
use crate::lsn::Lsn;
use crate::replication::Slot;

/// Everything about a migration at one moment. Field names and meanings are stable.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The migration's name.
    pub name: String,
    /// When it was looked, RFC 3339, by the clock of whoever did.
    pub looked_at: String,
    /// The one word that says how it is.
    pub verdict: Verdict,
    /// How far the migration is; null if it has not begun.
    pub phase: Option<Phase>,
    /// When it began, RFC 3339; null if it has not.
    pub begun_at: Option<String>,
    /// `forward`: from the source to the target; `reverse`: the target's changes go to the source.
    pub direction: Direction,
    /// Where rows are read, as `user@host:port/database`; in reverse that is the target of the configuration. What is
    /// called source and target here and below is that of the direction.
    pub source: String,
    /// Where rows are applied, and the ledger is.
    pub target: String,
    /// The daemon.
    pub daemon: Daemon,
    /// Up to where the source is applied; null before the slot was made.
    pub checkpoint: Option<Checkpoint>,
    /// How far the copy of the rows that were there before is; null before it is planned.
    pub copy: Option<CopyProgress>,
    /// How far the target is behind; null if the source can't be reached, or before the slot was made.
    pub lag: Option<Lag>,
    /// What the source has written; null if it can't be reached.
    pub written: Option<Written>,
    /// The replication slot; null if there is none, or the source can't be reached.
    pub slot: Option<SlotStatus>,
    /// Why the source could not be asked; null if it could.
    pub source_error: Option<String>,
    /// The transactions that the operator has had skipped: the target lacks their changes.
    pub skipped: Skipped,
    /// The cutover or rollback that began last; null if there was none, or the database that knows can't be reached.
    pub switch: Option<Switch>,
    /// Who still uses the database that the applications have left; null if they haven't, or it can't be reached.
    pub old_side: Option<OldSide>,
    /// What is asked to be copied again and is not yet over.
    pub repairs: Vec<Repair>,
    /// The verification that has ended last; null if there was none.
    pub last_verify: Option<Verification>,
    /// How many incidents are open.
    pub open_incidents: i64,
    /// Incidents, open ones first, then the latest. One of them, more with `--incidents`.
    pub incidents: Vec<Incident>,
}

/// The daemon of a migration.
#[derive(Debug, Serialize)]
pub struct Daemon {
    /// It holds its lock on the target now.
    pub is_running: bool,
    /// What it said last: `starting`, `streaming`, `retrying`, `blocked`, `stopped`.
    pub state: Option<String>,
    /// Why, where that needs saying.
    pub detail: Option<String>,
    /// Since when, RFC 3339.
    pub since: Option<String>,
    /// The host it runs on.
    pub host: Option<String>,
    /// Its process id there.
    pub pid: Option<i64>,
    /// Its version.
    pub version: Option<String>,
}

/// The transactions that the operator has had skipped.
#[derive(Debug, Default, Serialize)]
pub struct Skipped {
    /// How many.
    pub transactions: i64,
    /// The last of them; null if there is none.
    pub last: Option<Skip>,
}

/// Up to where the source is applied.
#[derive(Debug, Serialize)]
pub struct Checkpoint {
    /// The end LSN.
    #[serde(serialize_with = "as_text")]
    pub lsn: Lsn,
    /// Commit time of the last transaction applied, RFC 3339, by the source's clock.
    pub commit_time: Option<String>,
    /// Everything committed on the source before this time is applied; RFC 3339, its clock.
    pub caught_up_to: Option<String>,
    /// Source transactions applied.
    pub transactions: i64,
    /// Row changes applied.
    pub changes: i64,
    /// When it was written, RFC 3339, by the target's clock.
    pub updated_at: String,
}

/// What the source has written.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Written {
    /// Up to where its log is flushed.
    #[serde(serialize_with = "as_text")]
    pub lsn: Lsn,
    /// Rows that were inserted, updated and deleted in this database since its statistics began, whichever tables they
    /// are of; the server counts them with a delay of a second or so.
    pub rows: i64,
}

/// The replication slot.
#[derive(Debug, Serialize)]
pub struct SlotStatus {
    /// Its name.
    pub name: String,
    /// Something is connected to it.
    pub is_active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// The position confirmed last.
    pub confirmed_flush_lsn: Option<String>,
    /// Bytes of WAL that the source keeps for it.
    pub retained_bytes: u64,
    /// Bytes that can still be written before it may be lost; null without a limit.
    pub safe_wal_size_bytes: Option<i64>,
    /// What part of what the source may keep for it is used, 0 to 1; null without a limit.
    pub used_fraction: Option<f64>,
}

impl SlotStatus {
    fn new(name: String, slot: Slot, written: Lsn) -> Self {
        let retained_bytes = slot.restart_lsn.map_or(0, |restart| written.bytes_since(restart));
        Self {
            name,
            is_active: slot.active_pid.is_some(),
            confirmed_flush_lsn: slot.confirmed_flush_lsn.map(|lsn| lsn.to_string()),
            retained_bytes,
            safe_wal_size_bytes: slot.safe_wal_size_bytes,
            used_fraction: if slot.is_lost() {
                Some(1.0)
            } else {
                used(retained_bytes, slot.safe_wal_size_bytes)
            },
            wal_status: slot.wal_status,
        }
    }
}

/// What part of a budget is used of which so much is left.
fn used(bytes: u64, left_bytes: Option<i64>) -> Option<f64> {
    let left = u64::try_from(left_bytes?).unwrap_or(0);
    Some(if left == 0 { 1.0 } else { bytes as f64 / (bytes as f64 + left as f64) })
}

fn as_text<S: serde::Serializer>(lsn: &Lsn, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(lsn)
}

/// Asks both ends on sessions that are there, or aren't.
///
/// # Errors
/// If the target can't be asked.
pub async fn look(
    config: &Config,
    limits: &Limits,
    incidents: i64,
    ledger: &Ledger,
    source: Result<&Arc<Session>, &Fault>,
) -> Result<Status> {
    let target = ledger.session();
    let has_ledger = ledger.exists().await?;
    let mut status = Status {
        name: config.name.clone(),
        looked_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        verdict: Verdict::Stopped,
        phase: if has_ledger { ledger.phase().await? } else { None },
        begun_at: if has_ledger { ledger.begun_at().await? } else { None },
        direction: config.direction,
        source: config.source.to_string(),
        target: config.target.to_string(),
        daemon: daemon(target, ledger, &config.name, has_ledger).await?,
        checkpoint: if has_ledger { checkpoint(target, &config.name).await? } else { None },
        copy: if has_ledger { ledger.copy_progress().await? } else { None },
        lag: None,
        written: None,
        slot: None,
        source_error: None,
        skipped: if has_ledger { skipped(ledger).await? } else { Skipped::default() },
        switch: None,
        old_side: None,
        repairs: if has_ledger { ledger.open_repairs().await? } else { Vec::new() },
        last_verify: if has_ledger { ledger.last_verification().await? } else { None },
        open_incidents: if has_ledger { ledger.open_incidents().await? } else { 0 },
        incidents: if has_ledger { ledger.incidents(incidents).await? } else { Vec::new() },
    };
    status.source_error = match source {
        Ok(source) => ask_source(source, config, &mut status).await.err().map(|fault| fault.to_string()),
        Err(fault) => Some(fault.to_string()),
    };
    if let Err(fault) = look_at_switch(config, ledger, source, &mut status).await {
        tracing::debug!("what became of the last switch is not known: {fault}");
    }
    status.verdict = verdict(&status, limits);
    Ok(status)
}

/// Adds the last switch, and who is on the side that it has left.
async fn look_at_switch(
    config: &Config,
    ledger: &Ledger,
    source: Result<&Arc<Session>, &Fault>,
    status: &mut Status,
) -> Result<()> {
    let Ok(source) = source else {
        if config.direction == Direction::Forward && ledger.exists().await? {
            status.switch = ledger.last_switch().await?;
        }
        return Ok(());
    };
    let own;
    let (home, old, database) = match config.direction {
        Direction::Forward => (ledger, &**source, &config.source),
        Direction::Reverse => {
            own = Ledger::new(Arc::clone(source), &config.name);
            (&own, ledger.session(), &config.target)
        }
    };
    if !home.exists().await? {
        return Ok(());
    }
    status.switch = home.last_switch().await?;
    status.old_side = OldSide::look(old, database.to_string(), home).await?;
    Ok(())
}

fn verdict(status: &Status, limits: &Limits) -> Verdict {
    if status.phase == Some(Phase::Done) {
        return Verdict::Done;
    }
    let is_lost = match &status.slot {
        Some(slot) => slot.wal_status.as_deref() == Some("lost"),
        None => status.checkpoint.is_some() && status.source_error.is_none(),
    };
    let needs_person = |incident: &Incident| {
        incident.resolved_at.is_none() && matches!(incident.severity.as_str(), "blocked" | "failing")
    };
    let is_streaming = status.daemon.state.as_deref() == Some("streaming");
    let is_copied = status.copy.as_ref().is_none_or(CopyProgress::is_complete);
    if is_lost {
        Verdict::Lost
    } else if !status.daemon.is_running {
        Verdict::Stopped
    } else if status.daemon.state.as_deref() == Some("blocked") || status.incidents.iter().any(needs_person) {
        Verdict::Blocked
    } else if status.phase == Some(Phase::Copy) || !is_copied {
        Verdict::Copying
    } else if is_streaming && status.lag.is_some_and(|lag| limits.allow(lag)) {
        Verdict::Streaming
    } else {
        Verdict::Behind
    }
}

async fn skipped(ledger: &Ledger) -> Result<Skipped> {
    let (transactions, last) = ledger.skipped().await?;
    Ok(Skipped { transactions, last })
}

async fn daemon(target: &Session, ledger: &Ledger, name: &str, has_ledger: bool) -> Result<Daemon> {
    let fault = |e| Fault::sql(Side::Target, "looking for the daemon", &e);
    let row = match has_ledger {
        true => target
            .query_opt(
                "SELECT state, detail, pg_catalog.to_json(since) #>> '{}', host, pid, version
                   FROM cdc.daemon WHERE name = $1",
                &[&name],
            )
            .await
            .map_err(fault)?,
        false => None,
    };
    let row = row.as_ref();
    Ok(Daemon {
        is_running: ledger.daemon_is_running().await?,
        state: row.map(|row| row.get(0)),
        detail: row.and_then(|row| row.get(1)),
        since: row.map(|row| row.get(2)),
        host: row.map(|row| row.get(3)),
        pid: row.map(|row| row.get(4)),
        version: row.map(|row| row.get(5)),
    })
}

async fn checkpoint(target: &Session, name: &str) -> Result<Option<Checkpoint>> {
    let row = target
        .query_opt(
            "SELECT lsn, pg_catalog.to_json(commit_time) #>> '{}', pg_catalog.to_json(caught_up_to) #>> '{}',
                    transactions, changes, pg_catalog.to_json(updated_at) #>> '{}'
               FROM cdc.checkpoint WHERE name = $1",
            &[&name],
        )
        .await
        .map_err(|e| Fault::sql(Side::Target, "reading the checkpoint", &e))?;
    Ok(row.map(|row| Checkpoint {
        lsn: row.get(0),
        commit_time: row.get(1),
        caught_up_to: row.get(2),
        transactions: row.get(3),
        changes: row.get(4),
        updated_at: row.get(5),
    }))
}

/// Adds what only the source knows.
async fn ask_source(source: &Session, config: &Config, status: &mut Status) -> Result<()> {
    let slot = Slot::find(source, &config.slot()).await?;
    // Not counted from the commit time: a transaction that came to the source from elsewhere carries
    // that other server's.
    let caught_up_to = status.checkpoint.as_ref().and_then(|checkpoint| checkpoint.caught_up_to.as_deref());
    let row = source
        .query_one(
            "SELECT pg_catalog.pg_current_wal_flush_lsn(), pg_catalog.pg_current_wal_lsn(),
                    extract(epoch FROM pg_catalog.clock_timestamp() - $1::text::timestamptz)::float8,
                    (SELECT tup_inserted + tup_updated + tup_deleted FROM pg_catalog.pg_stat_database
                      WHERE datname = pg_catalog.current_database())",
            &[&caught_up_to],
        )
        .await
        .map_err(|e| Fault::sql(Side::Source, "asking for the position", &e))?;
    let flushed: Lsn = row.get(0);
    let written: Lsn = row.get(1);
    status.written = Some(Written { lsn: flushed, rows: row.get::<_, Option<i64>>(3).unwrap_or(0) });
    status.lag = status.checkpoint.as_ref().map(|checkpoint| Lag::new(flushed, checkpoint.lsn, row.get(2)));
    status.slot = slot.map(|slot| SlotStatus::new(config.slot(), slot, written));
    Ok(())
}

#[cfg(test)]
impl Status {
    /// Of a migration that streams, 0.1 s behind.
    pub(crate) fn streaming() -> Self {
        Self {
            name: "salon".to_owned(),
            looked_at: "2026-11-22T03:00:00Z".to_owned(),
            verdict: Verdict::Streaming,
            phase: Some(Phase::Stream),
            begun_at: Some("2026-11-22T01:00:00.5+00:00".to_owned()),
            direction: Direction::Forward,
            source: "a@s:5432/d".to_owned(),
            target: "a@t:5432/d".to_owned(),
            daemon: Daemon {
                is_running: true,
                state: Some("streaming".to_owned()),
                detail: None,
                since: None,
                host: None,
                pid: None,
                version: None,
            },
            checkpoint: None,
            copy: None,
            lag: Some(Lag { bytes: 100, seconds: Some(0.1) }),
            written: None,
            slot: None,
            source_error: None,
            skipped: Skipped::default(),
            switch: None,
            old_side: None,
            repairs: Vec::new(),
            last_verify: None,
            open_incidents: 0,
            incidents: Vec::new(),
        }
    }
}
