//! The source's server: whether it can replicate, and what it has left.

use super::finding::{Finding, Severity};
use super::migration::Known;
use super::server::Server;
use super::{Asked, Check, connection};
use crate::catalog::quote_identifier;
use crate::config::Config;
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::replication::SystemIdentity;

const SIDE: Side = Side::Source;

/// Looks at the server; gives which one it is, if it lets us replicate.
pub(super) async fn look(check: &mut Check<'_>, source: &Asked, known: &Known) -> Option<SystemIdentity> {
    (check.tell)("looking at the source's server");
    let server = &source.server;
    let before = check.findings.len();
    for finding in can_replicate(server) {
        check.add(finding);
    }
    if !known.is_under_way() {
        for finding in what_is_left(server) {
            check.add(finding);
        }
    }
    let can_connect = check.findings[before..].iter().all(|finding| finding.severity != Severity::Blocks);
    check.findings.extend(timeouts(server));
    check.findings.extend(connections(server, check.config));
    check.findings.extend(durability(server));
    let looked = other_slots(check, source).await;
    check.looked(SIDE, looked);
    // What is known to fail needs no attempt. That the daemon has the last one is no harm.
    if !can_connect || server.walsenders_free < 1 {
        return None;
    }
    match connection::replication(check.config).await {
        Ok(identity) => Some(identity),
        Err(finding) => {
            check.add(finding);
            None
        }
    }
}

fn can_replicate(server: &Server) -> Vec<Finding> {
    let mut found = Vec::new();
    if server.major() < limits::MAJOR_VERSION_LEAST {
        found.push(too_old(server));
    }
    if server.is_standby {
        found.push(
            Finding::blocks("standby", SIDE, "the source is a hot standby")
                .why("its snapshots can't be relied on while rows are copied beside the stream")
                .mend("connect to the primary"),
        );
    }
    if server.wal_level != "logical" {
        found.push(
            Finding::blocks("wal-level", SIDE, format!("wal_level is {}", server.wal_level))
                .why("the changes of rows can be decoded from the log only with wal_level = logical")
                .mend("ALTER SYSTEM SET wal_level = logical; then restart the source (managed servers have a switch for logical replication)"),
        );
    }
    if !server.can_replicate {
        found.push(
            Finding::blocks(
                "no-replication-right",
                SIDE,
                format!("the role {} has no REPLICATION attribute", server.role),
            )
            .object(&server.role)
            .why("the stream of changes is a replication connection")
            .mend(format!("ALTER ROLE {} REPLICATION;", quote_identifier(&server.role))),
        );
    }
    found
}

/// A server that is older than anything that was tried.
pub(super) fn too_old(server: &Server) -> Finding {
    Finding::blocks("server-version", server.side, format!("the server is PostgreSQL {}", server.version))
        .why(format!("cdc works with PostgreSQL {} and later", limits::MAJOR_VERSION_LEAST))
        .mend("upgrade this server first")
}

fn what_is_left(server: &Server) -> Vec<Finding> {
    let of = |code, setting: &str, what: &str, most: i64, free: i64, mend: String| {
        let finding = match free {
            ..=0 => Finding::blocks(code, SIDE, format!("all {most} {what} are in use ({setting})"))
                .why("the migration needs one"),
            1 => Finding::warns(code, SIDE, format!("one of {most} {what} is left ({setting})"))
                .why("the migration takes it, and nothing else that needs one can begin meanwhile"),
            _ => return None,
        };
        Some(finding.mend(mend))
    };
    let raise = |setting: &str, most: i64| {
        format!("ALTER SYSTEM SET {setting} = {}; then restart the source", most + 5)
    };
    [
        of(
            "replication-slots",
            "max_replication_slots",
            "replication slots",
            server.slots,
            server.slots_free,
            format!(
                "drop a slot that nobody uses (SELECT slot_name, active FROM pg_replication_slots), or: {}",
                raise("max_replication_slots", server.slots)
            ),
        ),
        of(
            "walsenders",
            "max_wal_senders",
            "walsenders",
            server.walsenders,
            server.walsenders_free,
            raise("max_wal_senders", server.walsenders),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn timeouts(server: &Server) -> Vec<Finding> {
    let mut found = Vec::new();
    let timeout = server.wal_sender_timeout_ms;
    if timeout == 0 {
        found.push(
            Finding::informs("wal-sender-timeout", SIDE, "wal_sender_timeout is 0: switched off").why(
                "a connection that the network has swallowed keeps the slot in use until TCP gives it up",
            ),
        );
    } else if timeout < limits::WAL_SENDER_TIMEOUT_LEAST_MS {
        found.push(
            Finding::warns("wal-sender-timeout", SIDE, format!("wal_sender_timeout is {timeout} ms"))
                .why("a moment's delay in the network ends the stream, and it has to begin again")
                .mend("ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();"),
        );
    }
    if server.idle_slot_timeout != "0" {
        found.push(
            Finding::warns(
                "idle-slot-timeout",
                SIDE,
                format!("idle_replication_slot_timeout is {}", server.idle_slot_timeout),
            )
            .why(
                "when the daemon is away for longer, the slot is lost, and everything has to be copied again",
            )
            .mend("ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();"),
        );
    }
    found
}

/// Whether there are connections left for the copy and a verification beside it.
pub(super) fn connections(server: &Server, config: &Config) -> Option<Finding> {
    let needed = |factor: usize| i64::try_from(config.copy.readers * factor + 8).unwrap_or(i64::MAX);
    let (side, free) = (server.side, server.connections_free);
    let what = format!(
        "{} of {} connections are left for the role {}",
        free.max(0),
        server.connections,
        server.role
    );
    let mend = format!(
        "end connections that aren't needed, set copy.readers lower (it is {}), or raise max_connections or the role's \
         or database's CONNECTION LIMIT",
        config.copy.readers
    );
    let finding = if free < needed(1) {
        Finding::blocks("connections", side, what).why(format!("the copy takes {}", needed(1)))
    } else if free < needed(2) {
        Finding::warns("connections", side, what)
            .why(format!("the copy and a verification take {} together", needed(2)))
    } else {
        return None;
    };
    Some(finding.mend(mend))
}

/// A server that may forget what it has committed.
pub(super) fn durability(server: &Server) -> Option<Finding> {
    (!server.fsync).then(|| {
        Finding::warns("fsync", server.side, "fsync is off")
            .why("after a crash of this server its rows are not those that were replicated")
            .mend("ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();")
    })
}

/// Slots of others that nobody reads from.
async fn other_slots(check: &mut Check<'_>, source: &Asked) -> Result<()> {
    if source.server.is_standby {
        return Ok(());
    }
    let rows = source
        .session
        .query(
            "SELECT slot_name::text, pg_catalog.pg_size_pretty(pg_catalog.pg_current_wal_lsn() - restart_lsn)
               FROM pg_catalog.pg_replication_slots
              WHERE NOT active AND restart_lsn IS NOT NULL AND slot_name <> $1::text::name
                AND coalesce(wal_status, '') <> 'lost'
              ORDER BY 1",
            &[&check.config.slot()],
        )
        .await
        .map_err(|e| Fault::sql(SIDE, "looking at the replication slots", &e))?;
    for row in rows {
        let (slot, held): (&str, &str) = (row.get(0), row.get(1));
        check.add(
            Finding::warns(
                "inactive-slot",
                SIDE,
                format!("nobody reads from this slot, and it holds back {held} of WAL"),
            )
            .object(slot)
            .why("while it is there, the log of the source grows until its disk is full")
            .mend(format!("if nothing needs it any more: SELECT pg_drop_replication_slot('{slot}');")),
        );
    }
    Ok(())
}
