//! The barrier: a message in the old side's log behind everything that was written there, and the wait until the new
//! side has all that is before it.
//!
//! Why nothing that is published is behind it: every statement that writes to a fenced table takes a lock that closing
//! the fence conflicts with, and a lock is held until the transaction's commit record is in the log. So all that was
//! written before has its commit record before the fence's own, which is before the message; and whatever begins
//! afterwards meets the trigger. Commits reach the new side in the order of their records (C3), and the checkpoint is
//! committed with the rows (C1): when it has come to the message, all of them are there. What the fence stands on is
//! looked at once more before anything is decided ([`super::fence::Fence::is_closed`]): that no table has come
//! meanwhile, and nobody has switched a trigger off.

use tokio::time::{Instant, sleep};

use crate::connect::Session;
use crate::engine::BARRIER;
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::limits;
use crate::lsn::Lsn;

/// Writes the message, flushed, and gives its place.
///
/// # Errors
/// If the old side can't be asked.
pub async fn raise(old: &Session) -> Result<Lsn> {
    // A synchronous standby needn't have it.
    let sql = format!(
        "BEGIN; SET LOCAL synchronous_commit = local;
         SELECT pg_catalog.pg_logical_emit_message(true, 'cdc', '{BARRIER}') AS place; COMMIT"
    );
    let answers = old.simple_query(&sql).await;
    let answers = answers.map_err(|e| Fault::sql(Side::Source, "writing the barrier into the log", &e))?;
    let place = answers.iter().find_map(|answer| match answer {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    place.ok_or_else(|| Fault::bug("the barrier has no place in the log"))
}

/// Waits until the new side has everything before the barrier.
///
/// # Errors
/// If nobody brings it there any more, or the old side is lost.
pub async fn pass(ledger: &Ledger, old: &Session, barrier: Lsn) -> Result<()> {
    let (mut looked_at, mut failed) = (Instant::now(), false);
    loop {
        if ledger.checkpoint().await?.is_some_and(|checkpoint| checkpoint.lsn >= barrier) {
            return Ok(());
        }
        if old.is_closed() {
            return Err(Fault::unreachable(
                Side::Source,
                "waiting for the last changes: the connection was lost",
            ));
        }
        if looked_at.elapsed() >= limits::CLOCK_INTERVAL {
            looked_at = Instant::now();
            let daemon = ledger.daemon_now().await?.unwrap_or_default();
            // What is tried again may pass at once; writes don't rest for it for longer.
            let fails_again = daemon.state == "retrying" && std::mem::replace(&mut failed, true);
            if !daemon.is_running || daemon.state == "blocked" || fails_again {
                let what = if daemon.is_running { daemon.state } else { "gone".to_owned() };
                let why = daemon.detail.map_or(String::new(), |why| format!("; {why}"));
                return Err(Fault::person(format!(
                    "the daemon is {what}: nothing brings the last changes over{why}"
                ))
                .remedy("see cdc status; run this again when it streams"));
            }
        }
        sleep(limits::CUTOVER_POLL).await;
    }
}
