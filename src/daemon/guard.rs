//! The lock that makes this the only daemon of its migration, and the session that holds it.

use std::sync::Arc;
use std::time::SystemTime;

use crate::connect::{ConnInfo, Session};
use crate::fault::{Fault, Result, Side};
use crate::ledger::{Ledger, lock_key};
use crate::limits;
use crate::service::Service;

/// The lock on one of the two databases.
#[derive(Default)]
pub(super) struct Guard {
    held: Option<Held>,
    /// Sessions of ours that held it, by pid and start: a connection that was lost half-way may still hold it on the
    /// server.
    earlier: Vec<(i32, SystemTime)>,
}

struct Held {
    session: Arc<Session>,
    ledger: Ledger,
    started_at: SystemTime,
}

impl Guard {
    /// The ledger there, if the lock is ours.
    pub(super) fn ledger(&self) -> Option<&Ledger> {
        self.held.as_ref().map(|held| &held.ledger)
    }

    /// Waits for the lock, unless it is ours. Two daemons of one migration are harmless (the epoch sees to that), but
    /// only one can use the slot.
    pub(super) async fn lock(
        &mut self,
        name: &str,
        (info, side): (&ConnInfo, Side),
        service: &Service,
    ) -> Result<(Arc<Session>, Ledger)> {
        if let Some(held) = &self.held {
            if !held.session.is_closed() && answers(&held.session).await {
                return Ok((Arc::clone(&held.session), held.ledger.clone()));
            }
            self.let_go();
        }
        let session = Session::open(info, side, &format!("cdc_{name} guard")).await?;
        let fault = |e| Fault::sql(side, "taking the daemon's lock", &e);
        let started_at = session
            .query_one(
                "SELECT backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()",
                &[],
            )
            .await
            .map_err(fault)?
            .get(0);
        for (pid, started_at) in &self.earlier {
            session
                .execute(
                    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                      WHERE pid = $1 AND backend_start = $2",
                    &[pid, started_at],
                )
                .await
                .map_err(fault)?;
        }
        self.earlier.clear();
        let mut is_waiting = false;
        while !session
            .query_one(
                "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))",
                &[&lock_key(name)],
            )
            .await
            .map_err(fault)?
            .get::<_, bool>(0)
        {
            if !is_waiting {
                tracing::warn!(
                    name,
                    "another daemon of this migration is running; waiting to take over when it ends"
                );
                service.status("waiting to take over: another daemon of this migration is running");
                service.ready();
                is_waiting = true;
            }
            tokio::time::sleep(limits::CLOCK_INTERVAL).await;
        }
        let session = Arc::new(session);
        let ledger = Ledger::new(Arc::clone(&session), name);
        self.held = Some(Held { session: Arc::clone(&session), ledger: ledger.clone(), started_at });
        Ok((session, ledger))
    }

    /// Gives the session up; the server may not have noticed that it is lost.
    pub(super) fn let_go(&mut self) {
        if let Some(held) = self.held.take() {
            self.earlier.push((held.session.backend_pid(), held.started_at));
        }
    }

    /// Gives the lock back, so that another daemon can take over at once.
    pub(super) async fn unlock(&self) {
        let Some(held) = &self.held else { return };
        if let Err(error) = held.session.batch_execute("SELECT pg_catalog.pg_advisory_unlock_all()").await {
            tracing::debug!("giving the daemon's lock back: {error}");
        }
    }
}

async fn answers(session: &Session) -> bool {
    matches!(tokio::time::timeout(limits::SILENCE, session.simple_query("")).await, Ok(Ok(_)))
}
