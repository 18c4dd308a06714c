//! `cdc schema apply`, and the same at the first start of `cdc run`: an empty target is enough.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../connect/certificates.rs"]
#[allow(dead_code, reason = "most of it is for other tests")]
mod certificates;

mod first_start;
mod interrupted;
mod nasty;
mod programs;
mod provider;

use std::path::{Path, PathBuf};
use std::process::Command;

use cdc::demo::Binaries;
use serde_json::Value;
use support::pair::{Pair, connect};

/// Makes what every server needs once.
const ROLES: &str = "
    DO $$
    DECLARE r text;
    BEGIN
      FOREACH r IN ARRAY ARRAY['owner', 'reader', 'anon', 'authenticated', 'service_role'] LOOP
        BEGIN EXECUTE format('CREATE ROLE %I', r); EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
      END LOOP;
    END $$";

/// Databases of an ordinary role on both sides, which is all that `cdc` may be.
async fn owned(name: &str) -> Pair {
    make_owned(Pair::new(name).await).await
}

async fn make_owned(mut pair: Pair) -> Pair {
    // Roles are the servers', which all tests share.
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let guard = ONE_AT_A_TIME.lock().await;
    for client in [&pair.source, &pair.target] {
        let own = format!(
            "ALTER ROLE owner LOGIN REPLICATION CREATEROLE; ALTER DATABASE {} OWNER TO owner",
            pair.name
        );
        client.batch_execute(ROLES).await.unwrap();
        client.batch_execute(&own).await.unwrap();
    }
    // Before 15 there is no such right, and only a superuser may.
    let may = "GRANT SET ON PARAMETER session_replication_role TO owner";
    if pair.target.batch_execute(may).await.is_err() {
        pair.target.batch_execute("ALTER ROLE owner SUPERUSER").await.unwrap();
    }
    drop(guard);
    let own = |url: &str| url.replace("postgres://postgres@", "postgres://owner@");
    (pair.daemon_source_url, pair.daemon_target_url) = (own(&pair.source_url), own(&pair.target_url));
    pair.source = connect(&pair.daemon_source_url).await;
    pair.config = "[schema]\n".to_owned();
    pair.environment = vec![("CDC_PG_DUMP".to_owned(), source_dump().display().to_string())];
    pair
}

/// The `pg_dump` of the source's version.
fn source_dump() -> PathBuf {
    std::env::var_os("CDC_SOURCE_PG_BIN")
        .map_or_else(Binaries::find, Binaries::at)
        .unwrap()
        .program("pg_dump")
}

/// The newest one there is.
fn newest_dump() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/vector-18/bin/pg_dump")
}

/// `cdc schema apply --json` with these arguments: its exit status and its report.
fn apply(pair: &Pair, arguments: &[&str]) -> (i32, Value) {
    let output = pair.run(&[&["schema", "apply", "--json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// `cdc schema diff` is silent.
fn assert_same(pair: &Pair) {
    let output = pair.run(&["schema", "diff"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A dump of the schema, without what names its owner and its database.
fn dump(url: &str) -> Vec<String> {
    let output = Command::new(newest_dump())
        .args([
            "--schema-only",
            "--no-owner",
            "--no-publications",
            "--exclude-schema=cdc",
            "--restrict-key=x",
            url,
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap().replace("FOR ROLE owner ", "");
    let lines = text.lines().map(|line| match line.strip_prefix("-- Dumped from database version ") {
        Some(version) => format!("-- Dumped from {}", version.split('.').next().unwrap()),
        None => line.to_owned(),
    });
    lines.collect()
}

/// The same lines in the same order; shows the first that differ.
fn similar(there: &[String], here: &[String]) {
    let version = |lines: &[String]| {
        lines.iter().find_map(|line| line.strip_prefix("-- Dumped from ").map(str::to_owned))
    };
    if version(there) != version(here) {
        // Each prints some things in its own way; the comparison knows them.
        return;
    }
    if let Some(at) = (0..there.len().max(here.len())).find(|at| there.get(*at) != here.get(*at)) {
        let show = |lines: &[String]| {
            lines[at.min(lines.len()).saturating_sub(5)..].iter().take(12).cloned().collect::<Vec<_>>()
        };
        panic!("line {at}\n--- source\n{}\n--- target\n{}", show(there).join("\n"), show(here).join("\n"));
    }
}
