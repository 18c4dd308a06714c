//! The target's server, and what of it has to fit the source's.

use super::finding::Finding;
use super::migration::Known;
use super::server::{Server, no_create};
use super::{Asked, Check, connection, source};
use crate::catalog::quote_identifier;
use crate::connect::Mode;
use crate::fault::{Fault, Result, Side};
use crate::limits;

const SIDE: Side = Side::Target;

/// Looks at the server.
pub(super) async fn look(check: &mut Check<'_>, target: &Asked, known: &Known) {
    (check.tell)("looking at the target's server");
    let server = &target.server;
    if server.major() < limits::MAJOR_VERSION_LEAST {
        check.add(source::too_old(server));
    }
    check.findings.extend(writable(server));
    check.findings.extend(source::connections(server, check.config));
    check.findings.extend(source::durability(server));
    let looked = connection::pooled(check.config, target).await;
    if let Some(Some(finding)) = check.looked(SIDE, looked) {
        check.add(finding);
    }
    if !known.is_under_way() && !server.can_create {
        check.add(no_create(server, "the ledger (schema cdc) and schemas that are missing have to be made"));
    }
    let looked = replica_mode(target).await;
    if let Some(Some(finding)) = check.looked(SIDE, looked) {
        check.add(finding);
    }
    check.findings.extend(way_back(server));
    let looked = event_triggers(check, target).await;
    check.looked(SIDE, looked);
}

fn writable(server: &Server) -> Option<Finding> {
    if server.is_standby {
        return Some(
            Finding::blocks("standby", SIDE, "the target is a hot standby")
                .why("it can't be written to")
                .mend("connect to the primary, or promote it"),
        );
    }
    let set = format!(
        "ALTER DATABASE {} SET default_transaction_read_only = off; or the same for the role, if it is set there",
        quote_identifier(&server.database)
    );
    if server.is_read_only {
        return Some(
            Finding::blocks("read-only", SIDE, "transactions on the target can't write")
                .why("everything that is applied would fail")
                .mend(set),
        );
    }
    server.is_read_only_by_default.then(|| {
        Finding::warns("read-only", SIDE, "transactions on the target are read-only by default")
            .why(
                "our sessions switch that off for themselves, but somebody must have had a reason, and applications \
                 can't write after the cutover",
            )
            .mend(set)
    })
}

/// A schema of the ledger's name that isn't ours to use.
pub(super) async fn ledger_schema(target: &Asked) -> Result<Option<Finding>> {
    let row = target
        .session
        .query_opt(
            "SELECT format('%I', r.rolname) FROM pg_catalog.pg_namespace n
               JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
              WHERE n.nspname = 'cdc' AND NOT pg_catalog.pg_has_role(n.nspowner, 'USAGE')",
            &[],
        )
        .await
        .map_err(|e| Fault::sql(SIDE, "looking for the schema cdc", &e))?;
    Ok(row.map(|row| {
        let (owner, role): (&str, _) = (row.get(0), &target.server.role);
        Finding::blocks("ledger", SIDE, format!("there is a schema cdc already, and its owner is {owner}"))
            .object("cdc")
            .why("the ledger is kept in a schema of that name")
            .mend(format!(
                "connect as {owner}, or: ALTER SCHEMA cdc OWNER TO {}; if it is something else, rename it",
                quote_identifier(role)
            ))
    }))
}

/// Whether triggers and foreign keys can be switched off for our sessions.
async fn replica_mode(target: &Asked) -> Result<Option<Finding>> {
    let role = &target.server.role;
    if target.session.mode().await? == Mode::Replica {
        return Ok(None);
    }
    let finding = Finding::warns(
        "no-replica-role",
        SIDE,
        format!("the role {role} may not set session_replication_role"),
    )
    .object(role)
    .why(
        "without it triggers and rules are switched off table by table, and foreign keys are taken off, all until the \
         cutover; they are put back as they were",
    );
    Ok(Some(match target.server.major() {
        15.. => finding.mend(format!(
            "as a superuser: GRANT SET ON PARAMETER session_replication_role TO {};",
            quote_identifier(role)
        )),
        _ => finding.mend("before PostgreSQL 15 only a superuser may: connect as one, or leave it so"),
    }))
}

/// What a rollback would need: after the cutover the target is replicated to the source.
pub(super) fn way_back(server: &Server) -> Option<Finding> {
    let mut lacking = Vec::new();
    let mut mend = Vec::new();
    if server.wal_level != "logical" {
        lacking.push(format!("wal_level is {}", server.wal_level));
        mend.push("ALTER SYSTEM SET wal_level = logical; and a restart".to_owned());
    }
    if !server.can_replicate {
        lacking.push(format!("the role {} has no REPLICATION attribute", server.role));
        mend.push(format!("ALTER ROLE {} REPLICATION;", quote_identifier(&server.role)));
    }
    for (what, setting, free) in [
        ("replication slot", "max_replication_slots", server.slots_free),
        ("walsender", "max_wal_senders", server.walsenders_free),
    ] {
        if free < 1 {
            lacking.push(format!("no {what} is left ({setting})"));
            mend.push(format!("ALTER SYSTEM SET {setting} = ...; and a restart"));
        }
    }
    (!lacking.is_empty()).then(|| {
        Finding::warns(
            "no-way-back",
            SIDE,
            format!("there is no way back after the cutover until this is mended: {}", lacking.join(", ")),
        )
        .why("after the cutover the target's changes are replicated to the source, so that going back loses none")
        .mend(mend.join(" "))
    })
}

async fn event_triggers(check: &mut Check<'_>, target: &Asked) -> Result<()> {
    let rows = target
        .session
        .query(
            "SELECT t.evtname::text, t.evtevent::text, format('ALTER EVENT TRIGGER %I DISABLE', t.evtname)
               FROM pg_catalog.pg_event_trigger t
              WHERE t.evtenabled <> 'D'
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                                 WHERE d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass
                                   AND d.objid = t.oid AND d.deptype = 'e')
              ORDER BY 1",
            &[],
        )
        .await
        .map_err(|e| Fault::sql(SIDE, "looking at the event triggers", &e))?;
    for row in rows {
        let (name, event, disable): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        check.add(
            Finding::warns("event-trigger", SIDE, format!("an event trigger fires at {event}"))
                .object(name)
                .why("it also fires when we make or change tables and constraints there, and can refuse that")
                .mend(format!("look what it does; if it is in the way: {disable};")),
        );
    }
    Ok(())
}

/// What of the two servers has to fit.
pub(super) fn compare(check: &mut Check<'_>, source: &Server, target: &Server) {
    if target.major() < source.major() {
        check.add(
            Finding::warns(
                "older-target",
                SIDE,
                format!("the target is PostgreSQL {}, the source {}", target.version, source.version),
            )
            .why("what is new in the source's version can't be made on the target")
            .mend("use a target of the same version or a newer one"),
        );
    }
    check.findings.extend(clocks(source.clock_ahead, target.clock_ahead));
}

/// Clocks that differ: the source's, the target's and this host's.
fn clocks(source: f64, target: f64) -> Option<Finding> {
    let most = limits::CLOCKS_APART.as_secs_f64();
    let apart = source.abs().max(target.abs()).max((source - target).abs());
    (apart > most).then(|| {
        let of = |side: &str, ahead: f64| {
            format!("{side} {:.0} s {}", ahead.abs(), if ahead < 0.0 { "behind" } else { "ahead" })
        };
        Finding::warns(
            "clock-differs",
            SIDE,
            format!(
                "the clocks differ: seen from this host, {} and {}",
                of("the source's is", source),
                of("the target's", target)
            ),
        )
        .of_both()
        .why("lag and times in the reports are told by the source's and this host's clocks; nothing else depends on it")
        .mend("switch on NTP (timedatectl set-ntp true) where the clock is wrong")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_some_seconds_are_told() {
        assert_eq!(clocks(0.3, -4.0), None);
        for (source, target) in [(0.0, 30.0), (-30.0, 0.0), (4.0, -4.0)] {
            let finding = clocks(source, target).unwrap();
            assert_eq!((finding.code, finding.side), ("clock-differs", None));
        }
        let said = clocks(-30.0, 2.0).unwrap().what;
        assert!(said.contains("the source's is 30 s behind and the target's 2 s ahead"), "{said}");
    }
}
