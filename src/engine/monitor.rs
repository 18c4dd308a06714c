//! Watches the source on a session of its own, beside the stream.
//!
//! Its first duty is a clock: it notes where the source's log ended at what time of the source.
//! Once the checkpoint has passed that position, everything committed before that time is applied,
//! whether there was anything to apply or not. That is what the lag in seconds is counted from.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::watch::{self, Sender};
use tokio::time::{Instant, MissedTickBehavior};

use super::adopt::adopt;
use super::publications::{refuse_changed, refuse_removed};
use crate::catalog::{Published, TableName, published_names, users};
use crate::chunk::Snapshot;
use crate::config::{Config, Direction};
use crate::connect::{ConnInfo, Mode, Session};
use crate::copy::snapshot;
use crate::fault::{Fault, Result, Side};
use crate::ledger::{DaemonState, Ledger, Phase, Severity, Slowdown, note_used};
use crate::limits;
use crate::lsn::Lsn;
use crate::pgoutput::PgTimestamp;
use crate::pulse::Turning;
use crate::replication::{Publication, Slot};
use crate::schema;
use crate::schema::drift::Drift;

/// The end of the source's log at a time of its clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    /// What was flushed by then (`pg_current_wal_flush_lsn`).
    pub(super) lsn: Lsn,
    /// The source's clock.
    pub(super) time: PgTimestamp,
    /// What a new snapshot saw.
    pub(super) snapshot: Snapshot,
}

/// Ticks whose position has not been applied yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Clock(VecDeque<Tick>);

impl Clock {
    /// Notes a tick. A source that is far ahead gives many; every other one is forgotten then,
    /// which makes the clock coarser and nothing else.
    pub(super) fn note(&mut self, tick: Tick) {
        const MOST: usize = 4096;
        if self.0.len() >= MOST {
            let mut keep = false;
            self.0.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.0.push_back(tick);
    }

    /// True if the source was known to be beyond `lsn` already.
    pub(super) fn is_beyond(&self, lsn: Lsn) -> bool {
        self.0.back().is_some_and(|tick| tick.lsn > lsn)
    }

    /// True if there is a time to tell for `lsn`.
    pub(super) fn has_passed(&self, lsn: Lsn) -> bool {
        self.0.front().is_some_and(|tick| tick.lsn <= lsn)
    }

    /// The latest time of which everything committed before is below `lsn`.
    pub(super) fn caught_up_to(&mut self, lsn: Lsn) -> Option<PgTimestamp> {
        let mut time = None;
        while let Some(tick) = self.0.front().filter(|tick| tick.lsn <= lsn) {
            time = Some(tick.time);
            self.0.pop_front();
        }
        time
    }
}

/// What is watched.
pub(super) struct Watched {
    pub(super) source: Session,
    pub(super) ledger: Ledger,
    pub(super) slot: String,
    pub(super) publications: Vec<String>,
    /// Those of them that we have made.
    pub(super) ours: Vec<Publication>,
    pub(super) insert_only: Vec<TableName>,
    /// The tables that are published, when these are others than before.
    pub(super) published: watch::Sender<Vec<Published>>,
    /// Where the rows go, and how.
    pub(super) target: ConnInfo,
    pub(super) mode: Mode,
    /// What is done when a schema changes.
    pub(super) drift: Arc<Mutex<Drift>>,
    pub(super) config: Config,
    /// What keeps the copy from getting a snapshot.
    pub(super) in_the_way: watch::Receiver<Option<String>>,
}

/// Watches until something is wrong, and returns that.
pub(super) async fn watch(watched: Watched, ticks: Sender<Option<Tick>>, turning: Turning) -> Fault {
    let mut watched = watched;
    match watch_until_fault(&mut watched, &ticks, &turning).await {
        Ok(never) => match never {},
        Err(fault) => fault,
    }
}

async fn watch_until_fault(
    watched: &mut Watched,
    ticks: &Sender<Option<Tick>>,
    turning: &Turning,
) -> Result<std::convert::Infallible> {
    let mut timer = tokio::time::interval(limits::CLOCK_INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_health = Instant::now();
    let mut is_first = true;
    // What an earlier life has said of it.
    answered(Side::Target, watched.ledger.resolve_slowdown(Slowdown::Snapshot)).await?;
    loop {
        turning.turned();
        timer.tick().await;
        ticks.send_replace(Some(answered(Side::Source, watched.tick()).await?));
        if watched.in_the_way.has_changed().unwrap_or(false) {
            answered(Side::Target, watched.say_what_is_in_the_way()).await?;
        }
        if Instant::now() >= next_health {
            turning.turned();
            // It may have to wait for a lock, but not for a server that is lost.
            let done = tokio::select! {
                done = turning.during(watched.look()) => done?,
                lost = watched.lost() => return Err(lost),
            };
            if let Some(done) = done {
                return Err(done);
            }
            answered(Side::Source, watched.health()).await?;
            answered(Side::Target, watched.silence()).await?;
            answered(Side::Target, watched.note_users()).await?;
            // A stream that has only just begun proves nothing: what stopped the last one may come
            // with its first message.
            if !is_first {
                answered(Side::Target, watched.ledger.resolve_incidents()).await?;
            }
            is_first = false;
            next_health = Instant::now() + limits::HEALTH_INTERVAL;
        }
    }
}

/// A server that doesn't answer such a small question is lost.
pub(super) async fn answered<T>(side: Side, question: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limits::SILENCE, question).await {
        Ok(answer) => answer,
        Err(_) => {
            let seconds = limits::SILENCE.as_secs();
            Err(Fault::unreachable(
                side,
                format!("the server has not answered a small question for {seconds} s"),
            ))
        }
    }
}

impl Watched {
    async fn tick(&self) -> Result<Tick> {
        let row = self
            .source
            .query_one(
                "SELECT pg_catalog.pg_current_wal_flush_lsn(), pg_catalog.clock_timestamp(),
                        pg_catalog.pg_current_snapshot()::text",
                &[],
            )
            .await
            .map_err(|e| Fault::sql(Side::Source, "asking for the position", &e))?;
        Ok(Tick { lsn: row.get(0), time: row.get(1), snapshot: snapshot(row.get(2))? })
    }

    /// Says in the status whose transaction the copy waits for.
    async fn say_what_is_in_the_way(&mut self) -> Result<()> {
        let who = self.in_the_way.borrow_and_update().clone();
        let detail = who.map(|who| format!("the copy waits for the end of {who} on the source"));
        match &detail {
            Some(detail) => {
                let warning = Fault::retry(detail).remedy(
                    "wait for it, or end it there: SELECT pg_terminate_backend(pid), or ROLLBACK PREPARED",
                );
                tracing::warn!("{warning}");
                self.ledger.record_slowdown(Slowdown::Snapshot, &warning).await?;
            }
            None => self.ledger.resolve_slowdown(Slowdown::Snapshot).await?,
        }
        self.ledger.set_state(DaemonState::Streaming, detail.as_deref()).await
    }

    /// Returns when one of the servers doesn't answer any more.
    async fn lost(&self) -> Fault {
        loop {
            tokio::time::sleep(limits::CLOCK_INTERVAL).await;
            let source = answered(Side::Source, self.tick()).await;
            let target = answered(Side::Target, self.ledger.exists()).await;
            if let Some(fault) = source.err().or(target.err()) {
                return fault;
            }
        }
    }

    /// Looks whether the schema has changed; says why the stream has to begin anew, if it has.
    async fn look(&self) -> Result<Option<Fault>> {
        let mut drift = self.drift.lock().await;
        adopt(&self.source, &self.config, &self.ledger, &mut drift).await?;
        drift.glance().await
    }

    async fn health(&self) -> Result<()> {
        if let Some(slot) = Slot::find(&self.source, &self.slot).await?
            && slot.is_lost()
        {
            return Err(slot.lost(&self.slot));
        }
        // PostgreSQL 18 goes on without a publication that was dropped, and leaves its changes out.
        let gone = self
            .source
            .query_opt(
                "SELECT name FROM unnest($1::text[]) AS name
                  WHERE name NOT IN (SELECT pubname FROM pg_catalog.pg_publication) LIMIT 1",
                &[&self.publications],
            )
            .await
            .map_err(|e| Fault::sql(Side::Source, "looking for the publications", &e))?;
        if let Some(row) = gone {
            let name: &str = row.get(0);
            return Err(Publication::gone(name));
        }
        refuse_changed(&self.source, &self.ours, &self.ledger).await?;
        // One that has rows already, or is given some in a way that is not logged, may never be heard of in
        // the stream.
        let published = published_names(&self.source, &self.publications).await?;
        let before = self.published.borrow().clone();
        refuse_removed(&self.source, &before, &published, &self.ledger).await?;
        self.published.send_if_modified(|before| {
            let is_new = *before != published;
            *before = published;
            is_new
        });
        self.count_missed().await
    }

    /// Holds back what somebody has made on the target, or switched on, since the last look. What it has done
    /// to rows meanwhile a verification finds.
    async fn silence(&self) -> Result<()> {
        let (name, published) = (self.ledger.name(), self.published.borrow().clone());
        // What a switch puts back is the applications'.
        if self.ledger.phase().await? == Some(Phase::Cutover) {
            return Ok(());
        }
        if !schema::is_stirring(&**self.ledger.session(), name, &published, self.mode).await? {
            return Ok(());
        }
        // The ledger's session is others', too.
        let session = Session::open(&self.target, Side::Target, &format!("cdc_{name} schema")).await?;
        match schema::silence_all(&session, name, &published, self.mode).await {
            Err(fault) if fault.is_unreachable() => Err(fault),
            // A lock that isn't to be had now.
            Err(fault) if fault.passes() => {
                tracing::debug!("{fault}");
                Ok(())
            }
            Err(fault) => self.ledger.record_incident(Severity::Warning, &fault).await,
            Ok(()) => Ok(()),
        }
    }

    /// After a switch, notes that somebody is still on the database that the applications have left.
    async fn note_users(&self) -> Result<()> {
        if self.config.direction == Direction::Forward || users(self.ledger.session()).await?.is_empty() {
            return Ok(());
        }
        note_used(&self.source, self.ledger.name()).await.map_err(Fault::swapped)
    }

    /// Updates and deletes of tables that are published for INSERT and TRUNCATE only.
    async fn count_missed(&self) -> Result<()> {
        for table in &self.insert_only {
            // A partitioned table is counted by its partitions. One that is gone counts nothing.
            let row = self
                .source
                .query_one(
                    "SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::bigint
                       FROM pg_catalog.pg_stat_all_tables AS s
                       JOIN (SELECT pg_catalog.to_regclass($1) AS relid
                             UNION
                             SELECT p.relid
                               FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) AS p) AS t
                         ON t.relid = s.relid",
                    &[&table.to_sql()],
                )
                .await
                .map_err(|e| {
                    Fault::sql(Side::Source, "counting updates and deletes", &e).table(table.to_string())
                })?;
            let more = self.ledger.note_missed(&table.to_string(), row.get(0)).await?;
            if more > 0 {
                let fault = Fault::person(
                    "the table is declared insert_only, but the source has counted updates or deletes of its rows; \
                     they are not on the target",
                )
                .on(Side::Source)
                .table(table.to_string())
                .remedy("give it a primary key or REPLICA IDENTITY FULL and take it out of insert_only");
                tracing::warn!(rows = more, "{fault}");
                self.ledger.record_incident(Severity::Warning, &fault).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(lsn: u64, time: i64) -> Tick {
        let snapshot = "3:3:".parse().unwrap();
        Tick { lsn: Lsn::from(lsn), time: PgTimestamp::from(time), snapshot }
    }

    #[test]
    fn the_clock_says_no_more_than_the_checkpoint_has_passed() {
        let mut clock = Clock::default();
        clock.note(tick(10, 1));
        clock.note(tick(20, 2));
        clock.note(tick(20, 3));
        assert_eq!(clock.caught_up_to(Lsn::from(9)), None);
        assert_eq!(clock.caught_up_to(Lsn::from(19)), Some(PgTimestamp::from(1)));
        assert_eq!(clock.caught_up_to(Lsn::from(19)), None);
        assert_eq!(clock.caught_up_to(Lsn::from(20)), Some(PgTimestamp::from(3)));
    }

    #[test]
    fn a_clock_that_is_far_behind_stays_small_and_true() {
        let mut clock = Clock::default();
        for i in 1..100_000 {
            clock.note(tick(i, i64::try_from(i).unwrap()));
        }
        assert!(clock.0.len() <= 4096);
        let time = clock.caught_up_to(Lsn::from(50_000)).unwrap();
        assert!(time <= PgTimestamp::from(50_000));
    }
}
