//! Running `pg_dump` on the source.

use std::process::Stdio;

use tokio::process::Command;
use tokio::time::sleep;

use super::archive::{self, Entry};
use super::programs::Programs;
use crate::catalog::TableName;
use crate::config::Config;
use crate::connect::handover::{self, Handover, Served};
use crate::connect::{ConnInfo, Session};
use crate::fault::{Fault, Reaction, Result, Side};
use crate::limits;
use crate::provider;
use crate::retry::Delays;
use crate::schema::Scope;

const DOING: &str = "reading the schema with pg_dump";

/// Everything that makes the source's schema, in an order in which it can be made, but for what belongs to the
/// provider, to us, and to tables that are not selected.
///
/// # Errors
/// If the source can't be reached, or `pg_dump` fails. Locks that can't be had for a while are such a failure.
pub(super) async fn dump(
    config: &Config,
    source: &Session,
    application_name: &str,
    programs: &Programs,
    scope: &Scope,
) -> Result<Vec<Entry>> {
    let arguments = arguments(scope, &sequences(source, scope).await?);
    let mut delays = Delays::default();
    for _ in 1..limits::DDL_ATTEMPTS {
        match once(&config.source, application_name, programs, &arguments).await {
            Err(fault)
                if matches!(fault.code().map(|code| code.code()), Some("55P03" | "57014" | "40P01")) =>
            {
                tracing::info!("{}; trying again", fault.what());
                sleep(delays.next_delay()).await;
            }
            outcome => return outcome,
        }
    }
    once(&config.source, application_name, programs, &arguments).await
}

async fn once(
    source: &ConnInfo,
    application_name: &str,
    programs: &Programs,
    arguments: &[String],
) -> Result<Vec<Entry>> {
    let handover = Handover::open(source, Side::Source, application_name).await?;
    let broken = |e: std::io::Error| {
        Fault::person(format!("{} can't be run: {e}", programs.pg_dump().display()))
            .remedy("see that it is a program that runs on this machine")
    };
    let mut command = Command::new(programs.pg_dump());
    command
        .args(arguments)
        // Nothing of ours means anything to it, and there is no secret among what does.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("LC_ALL", "C")
        .env("PGHOST", handover.host())
        .env("PGPORT", handover::PORT.to_string())
        .env("PGUSER", source.user())
        .env("PGDATABASE", source.dbname())
        .env("PGSSLMODE", "disable")
        .env("PGGSSENCMODE", "disable")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let child = command.spawn().map_err(broken)?;
    let mut output = std::pin::pin!(child.wait_with_output());
    let (served, output) = tokio::select! {
        // Without having said a word to us.
        output = &mut output => (Served::default(), output),
        program = handover.accept() => match program {
            Ok(program) => tokio::join!(handover.serve(program, DOING), output),
            Err(_) => (Served::default(), output.await),
        },
    };
    let output = output.map_err(broken)?;
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().for_each(|line| tracing::debug!("{line}"));
    if output.status.success() {
        return archive::read(&output.stdout).map_err(|why| {
            Fault::person(format!("what {} has written can't be read: {why}", programs.pg_dump().display()))
                .remedy("install the pg_dump of version 18, or of the source's own")
        });
    }
    if let Some(fault) = served.lost.or(served.error) {
        return Err(explain(fault, &said));
    }
    let last = said.lines().last().unwrap_or("it says nothing");
    Err(Fault::person(format!("{DOING}: {last}")).on(Side::Source).remedy("mend what pg_dump says"))
}

/// The sequences that go with the columns of tables that are not selected.
async fn sequences(source: &Session, scope: &Scope) -> Result<Vec<TableName>> {
    let tables: Vec<String> = scope.others.iter().map(TableName::to_sql).collect();
    let rows = source
        .query(
            "SELECT n.nspname::text, s.relname::text
               FROM unnest($1::text[]) AS t (name)
               JOIN pg_catalog.pg_depend d
                 ON d.refobjid = pg_catalog.to_regclass(t.name) AND d.refclassid = d.classid AND d.deptype IN ('a', 'i')
                AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
               JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
               JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace",
            &[&tables],
        )
        .await
        .map_err(|e| Fault::sql(Side::Source, "looking for the sequences of tables", &e))?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
}

/// Says which lock it was, if it was one.
fn explain(fault: Fault, said: &str) -> Fault {
    let lock = said.lines().find_map(|line| line.split_once("LOCK TABLE "));
    match lock.filter(|_| fault.reaction() == Reaction::Retry) {
        Some((_, tables)) => {
            let tables: String = tables.chars().take(limits::SHOWN_CHARS).collect();
            fault
                .remedy(format!("nothing, if it passes: somebody holds a lock on one of {tables} (pg_locks)"))
        }
        None => fault,
    }
}

/// Nothing in them is a secret: every user of the machine can see them.
fn arguments(scope: &Scope, sequences: &[TableName]) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--format=custom",
        "--compress=0",
        "--schema-only",
        "--encoding=UTF8",
        "--no-password",
        // They are for the replication of the source; the labels, for a provider's modules.
        "--no-publications",
        "--no-subscriptions",
        "--no-security-labels",
        // An ALTER TABLE that waits behind ours would make the application wait.
        "--lock-wait-timeout=2000",
    ]
    .map(str::to_owned)
    .into();
    let schemas = provider::INTERNAL_SCHEMAS.iter().copied().chain(["cdc"]);
    let schemas = schemas.chain(scope.other_schemas.keys().map(String::as_str));
    arguments.extend(schemas.map(|schema| format!("--exclude-schema={schema}")));
    // Between quotes nothing is a pattern.
    let without = scope.others.iter().chain(sequences);
    arguments.extend(without.map(|table| format!("--exclude-table={}", table.to_sql())));
    arguments
}
