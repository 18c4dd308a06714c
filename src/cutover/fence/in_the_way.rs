//! Who is in the way of a fence that is being closed.

use std::convert::Infallible;

use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use super::{Fence, Patience};
use crate::connect::Session;
use crate::fault::{Fault, Result};
use crate::limits;

/// Whoever holds a lock that is waited for.
#[derive(Clone, Debug)]
pub(super) struct InTheWay {
    /// None of a transaction that is prepared for a two-phase commit.
    pid: Option<i32>,
    who: String,
    pub(super) table: String,
}

impl Fence<'_> {
    /// Looks all the time who is in the way of what the fence's session waits for.
    pub(super) async fn watch(&self, watcher: &Session, in_the_way: &mut Vec<InTheWay>) -> Infallible {
        const SQL: &str = "
            SELECT h.pid, pg_catalog.format('%I.%I', n.nspname, c.relname), n.nspname || '.' || c.relname,
                   CASE WHEN h.pid IS NULL THEN 'a prepared transaction' ELSE
                     concat('pid ', h.pid, ' (', concat_ws(', ', a.usename, nullif(a.application_name, ''), a.state,
                            'in a transaction since ' || a.xact_start::timestamptz(0)), ')') END
              FROM pg_catalog.pg_locks w
              JOIN pg_catalog.pg_locks h ON h.locktype = 'relation' AND h.database = w.database AND h.relation = w.relation
               AND h.granted AND h.pid IS DISTINCT FROM w.pid
               AND h.mode NOT IN ('AccessShareLock', 'RowShareLock', 'SIReadLock')
              JOIN pg_catalog.pg_class c ON c.oid = w.relation
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = h.pid
             WHERE w.pid = $1 AND NOT w.granted AND w.locktype = 'relation'";
        let pid = self.session.backend_pid();
        loop {
            sleep(limits::FENCE_LOOK).await;
            match watcher.query(SQL, &[&pid]).await {
                Ok(rows) if rows.is_empty() => {}
                Ok(rows) => {
                    *in_the_way = rows
                        .iter()
                        .map(|row| InTheWay { pid: row.get(0), table: row.get(2), who: row.get(3) })
                        .collect();
                }
                // Whoever waits meets the same.
                Err(error) => {
                    tracing::debug!("who is in the way is not known: {error}");
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    pub(super) async fn end(&self, watcher: &Session, in_the_way: &[InTheWay]) -> Result<()> {
        for blocked in in_the_way {
            let Some(pid) = blocked.pid else { return Err(self.not_ended(blocked)) };
            let ended = watcher.query_one("SELECT pg_catalog.pg_terminate_backend($1)", &[&pid]).await;
            match ended {
                Ok(_) => tracing::warn!("ended {}: it was in the way of the fence", blocked.who),
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    return Err(self.not_ended(blocked));
                }
                Err(error) => return Err(self.fault("ending a session that is in the way")(error)),
            }
        }
        Ok(())
    }

    fn not_ended(&self, blocked: &InTheWay) -> Fault {
        let what =
            format!("{} holds a lock on {} and can't be ended by this role", blocked.who, blocked.table);
        let remedy = match blocked.pid {
            Some(_) => {
                "end it, or have that done: GRANT pg_signal_backend TO this role (a superuser's sessions only a \
                        superuser ends); then run this again"
            }
            None => "COMMIT PREPARED or ROLLBACK PREPARED it (pg_prepared_xacts), then run this again",
        };
        Fault::person(what).on(self.side).table(&blocked.table).remedy(remedy)
    }

    pub(super) fn blocked(&self, in_the_way: &[InTheWay], patience: Patience) -> Fault {
        let Some(blocked) = in_the_way.first() else {
            return Fault::person("the tables could not be locked for the fence in time")
                .on(self.side)
                .remedy("run this again when less is going on");
        };
        let seconds = patience.wait.as_secs_f64();
        Fault::person(format!(
            "{} has written to {} and has not ended within {seconds} s",
            blocked.who, blocked.table
        ))
        .on(self.side)
        .table(&blocked.table)
        .remedy(
            "end it and run this again; with end_sessions = true in [cutover] that is done at the deadline",
        )
    }
}
