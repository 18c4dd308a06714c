//! Whether the daemon is well, for whoever asks a machine: a load balancer, a container's host, a script. Pure.

use std::time::SystemTime;

use crate::ledger::host;
use crate::limits;
use crate::observe::{Seen, Status, Verdict};
use crate::pulse::Pulse;

/// Before the first look.
pub(super) const NOT_YET: &str = "nothing is known yet: the daemon has not looked at the databases";

/// The process lives, and its loops turn; or which one doesn't.
pub(super) fn alive(pulse: &Pulse) -> Result<String, String> {
    match pulse.stuck(limits::STILL) {
        None => Ok("every loop turns".to_owned()),
        Some((name, still)) => Err(format!("{name} has stood still for {} s", still.as_secs())),
    }
}

/// It replicates within the limits; or why it doesn't.
pub(super) fn ready(seen: &Seen, now: SystemTime) -> Result<String, String> {
    let (status, at) = match &seen.last {
        None => return Err(NOT_YET.to_owned()),
        Some((Err(fault), _)) => return Err(fault.to_string()),
        Some((Ok(status), at)) => (status, at),
    };
    let age = now.duration_since(*at).unwrap_or_default();
    if age > limits::STATUS_AGE {
        return Err(format!("nothing is known since {} s", age.as_secs()));
    }
    if status.daemon.is_running && !is_ours(status) {
        return Err("another daemon of this migration is running; this one waits to take over".to_owned());
    }
    if status.verdict == Verdict::Streaming { Ok(status.summary()) } else { Err(status.summary()) }
}

/// It is this process that the ledger names.
fn is_ours(status: &Status) -> bool {
    status.daemon.pid == Some(std::process::id().into()) && status.daemon.host == Some(host())
}
