//! `cdc schema diff`: every difference is found and named, what mends it mends it, and what is none is none.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

#[path = "../support/mod.rs"]
mod support;

use std::process::{Command, Stdio};

use cdc::config::{Arguments, Config};
use cdc::connect::{Environment, Session};
use cdc::demo::{Binaries, data::Example};
use cdc::fault::Side;
use cdc::schema::{SchemaDiff, diff::What};
use serde_json::Value;
use support::pair::{Pair, connect, is_since, number, source_major};

const EVERYTHING: &str = include_str!("everything.sql");
const MORE: &str = include_str!("changes.sql");
const ON_SOURCE: &str = include_str!("source.sql");
const ON_TARGET: &str = include_str!("target.sql");

fn config(pair: &Pair) -> Config {
    let arguments = Arguments {
        file: None,
        name: Some(pair.name.clone()),
        source: Some(pair.source_url.clone()),
        target: Some(pair.target_url.clone()),
    };
    Config::load(&arguments, &Environment::empty()).unwrap()
}

async fn diff(pair: &Pair) -> SchemaDiff {
    let config = config(pair);
    let source = Session::open(&config.source, Side::Source, "test").await.unwrap();
    let target = Session::open(&config.target, Side::Target, "test").await.unwrap();
    cdc::schema::diff(&source, &target, &config).await.unwrap()
}

/// What differs, a line each, sorted.
fn lines(diff: &SchemaDiff) -> Vec<String> {
    let mut lines: Vec<String> =
        diff.differences.iter().map(|d| format!("{:?} {} {}", d.what, d.kind.as_str(), d.name)).collect();
    lines.sort();
    lines
}

/// Runs what mends the differences, in their order, on one session of the target.
async fn mend(pair: &Pair, diff: &SchemaDiff) {
    let target = connect(&pair.target_url).await;
    for difference in &diff.differences {
        for sql in &difference.mend {
            let done = target.batch_execute(sql).await;
            done.unwrap_or_else(|e| panic!("{}: {sql}\n{:?}", difference.name, e.as_db_error()));
        }
    }
}

/// A dump of the schema, its lines sorted: columns may come in another order.
fn dump(binaries: &Binaries, url: &str) -> Vec<String> {
    let output = Command::new(binaries.program("pg_dump")).args(["--schema-only", url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let is_told = |line: &&str| !line.starts_with("--") && !line.starts_with('\\') && !line.is_empty();
    let mut lines: Vec<String> =
        text.lines().filter(is_told).map(|line| line.trim_end_matches(',').to_owned()).collect();
    lines.sort();
    lines
}

/// The programs of the source's version.
fn binaries() -> Binaries {
    std::env::var_os("CDC_SOURCE_PG_BIN").map_or_else(Binaries::find, Binaries::at).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_target_becomes_the_same_by_what_mends_it() {
    let pair = Pair::new("from_nothing").await;
    pair.write(EVERYTHING).await;
    pair.target
        .batch_execute(
            "DO $$ BEGIN CREATE ROLE reader NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$",
        )
        .await
        .unwrap();
    let before = diff(&pair).await;
    assert!(!before.is_same());
    assert!(before.differences.iter().all(|d| d.what == What::Missing), "{before}");
    // Every kind is there once at least.
    let mut kinds: Vec<&str> = before.differences.iter().map(|d| d.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), 25, "{kinds:?}");
    mend(&pair, &before).await;
    let after = diff(&pair).await;
    assert!(after.is_same(), "{after}");
    assert!(after.differences.iter().all(|d| d.kind.as_str() == "extension"), "{after}");
    // And PostgreSQL says so, too.
    if number(&pair.target, "SELECT current_setting('server_version_num')::bigint / 10000").await
        == i64::from(source_major().await)
    {
        assert_eq!(dump(&binaries(), &pair.target_url), dump(&binaries(), &pair.source_url));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_difference_is_named_and_mended() {
    let pair = Pair::new("different").await;
    pair.both(EVERYTHING).await;
    pair.both(MORE).await;
    let version = |d: &SchemaDiff| d.differences.iter().filter(|d| d.kind.as_str() == "extension").count();
    let same = diff(&pair).await;
    assert_eq!(same.differences.len(), version(&same), "{same}");
    for sql in ON_SOURCE.split_inclusive(";\n") {
        pair.write(sql).await;
    }
    pair.target.batch_execute(ON_TARGET).await.unwrap();
    let before = diff(&pair).await;
    let mut found = lines(&before);
    found.retain(|line| !line.contains(" extension "));
    let expected: Vec<&str> = include_str!("expected.txt").lines().collect();
    assert_eq!(found, expected, "{}", found.join("\n"));
    mend(&pair, &before).await;
    let after = diff(&pair).await;
    assert!(after.is_same(), "{after}");
    let left: Vec<String> = lines(&after).into_iter().filter(|line| !line.contains(" extension ")).collect();
    let extra: Vec<&str> = expected.into_iter().filter(|line| line.starts_with("Extra ")).collect();
    assert!(extra.iter().all(|line| left.contains(&(*line).to_owned())), "{left:?}");
}
