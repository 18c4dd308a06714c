//! Finds out that an answer will never come.
//!
//! A statement may take as long as it wants: it can wait for a lock. A connection that was lost
//! half-way looks the same from here, and TCP doesn't notice when a middlebox keeps acknowledging.
//! The server knows: asked on another session, it says that the backend is gone, or that it has
//! been waiting for *us* all the while.

use std::time::{Duration, Instant};

use tokio::sync::watch::Receiver;

use crate::connect::Session;
use crate::fault::{Fault, Side};
use crate::limits;
use crate::pulse::Turning;

/// Returns when the answer that has been awaited since the time in `busy` can't come any more.
///
/// `guard` is another session to the same server; `backend_pid` that of the session which waits.
pub async fn watch(
    guard: &Session,
    backend_pid: i32,
    busy: Receiver<Option<Instant>>,
    turning: Turning,
) -> Fault {
    let lost = |why: &str| {
        Fault::unreachable(Side::Target, format!("the connection that applies changes was lost: {why}"))
    };
    loop {
        turning.during(tokio::time::sleep(limits::SILENCE / 6)).await;
        let Some(since) = *busy.borrow() else { continue };
        if since.elapsed() < limits::SILENCE {
            continue;
        }
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&backend_pid];
        let look = guard.query_opt(
            "SELECT state LIKE 'idle%', extract(epoch FROM pg_catalog.clock_timestamp() - state_change)::float8
               FROM pg_catalog.pg_stat_activity WHERE pid = $1",
            &parameters,
        );
        match tokio::time::timeout(limits::SILENCE, look).await {
            Err(_) => return lost("the server doesn't answer on another one either"),
            Ok(Err(error)) => {
                return Fault::sql(Side::Target, "watching over the connection that applies changes", &error);
            }
            Ok(Ok(None)) => return lost("the server has ended its backend"),
            Ok(Ok(Some(row))) => {
                let is_idle: Option<bool> = row.get(0);
                let seconds: Option<f64> = row.get(1);
                let idle = Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default();
                if is_idle == Some(true) && idle >= limits::SILENCE && *busy.borrow() == Some(since) {
                    return lost("the server has been waiting for us while we have been waiting for it");
                }
            }
        }
    }
}
