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
use support::pair::{Pair, connect, number, source_major};

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
    // A child's own primary key makes its columns NOT NULL once more (18).
    let is_told = |line: &&str| {
        !(line.is_empty()
            || line.starts_with("--")
            || line.starts_with('\\')
            || line.starts_with("    NOT NULL "))
    };
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
    assert_eq!(kinds.len(), 26, "{kinds:?}");
    mend(&pair, &before).await;
    let after = diff(&pair).await;
    assert!(after.is_same(), "{after}");
    assert!(after.differences.iter().all(|d| d.kind.as_str() == "extension"), "{after}");
    // And PostgreSQL says so, too.
    if number(&pair.target, "SELECT current_setting('server_version_num')::bigint / 10000").await
        == i64::from(source_major().await)
    {
        let (here, there) = (dump(&binaries(), &pair.target_url), dump(&binaries(), &pair.source_url));
        let only = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter().filter(|line| !other.contains(line)).cloned().collect()
        };
        assert_eq!(only(&here, &there), only(&there, &here));
        assert_eq!(here.len(), there.len());
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

#[tokio::test(flavor = "multi_thread")]
async fn what_pg_dump_has_copied_is_the_same() {
    let examples = Example::ALL.map(|example| (example.name(), example.schema()));
    for (name, schema) in examples.into_iter().chain([("views", include_str!("views.sql"))]) {
        let pair = Pair::new(&format!("dumped_{name}")).await;
        pair.write(schema).await;
        let roles = "DO $$ DECLARE r text; BEGIN FOREACH r IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
              BEGIN EXECUTE format('CREATE ROLE %I NOLOGIN', r); EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
            END LOOP; END $$";
        pair.target.batch_execute(roles).await.unwrap();
        let binaries = binaries();
        let mut dump = Command::new(binaries.program("pg_dump"))
            .args(["--schema-only", &pair.source_url])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // An older target doesn't know every setting of a newer pg_dump.
        let restored = Command::new(binaries.program("psql"))
            .args(["--quiet", "--no-psqlrc", "--output=/dev/null", &pair.target_url])
            .stdin(dump.stdout.take().unwrap())
            .stderr(Stdio::null())
            .status();
        assert!(dump.wait().unwrap().success() && restored.unwrap().success());
        let diff = diff(&pair).await;
        assert!(diff.is_same(), "{diff}");
        assert!(diff.differences.iter().all(|d| d.kind.as_str() == "extension"), "{diff}");
        assert!(!diff.tables.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_providers_an_extensions_or_not_selected_is_no_difference() {
    let mut pair = Pair::new("theirs").await;
    pair.write(
        "CREATE SCHEMA auth; CREATE TABLE auth.users (id int PRIMARY KEY); CREATE FUNCTION auth.uid() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE SCHEMA other; CREATE TABLE other.t (id int); CREATE VIEW other.v AS SELECT 1;
         CREATE SCHEMA extensions; SET search_path = public, extensions;
         CREATE EXTENSION citext SCHEMA extensions; CREATE EXTENSION hstore SCHEMA extensions;
         CREATE EXTENSION pg_trgm; CREATE EXTENSION tablefunc SCHEMA extensions;
         CREATE TABLE left_out (id int PRIMARY KEY, CHECK (id > 0)); CREATE INDEX ON left_out (id);
         CREATE TABLE mail (at extensions.citext DEFAULT 'a'::extensions.citext PRIMARY KEY, more extensions.hstore,
                            CHECK (at <> 'extensions.x'));
         CREATE FUNCTION find(a extensions.citext) RETURNS extensions.citext LANGUAGE sql AS 'SELECT a';
         CREATE INDEX ON mail USING gin ((at::text) gin_trgm_ops)",
    )
    .await;
    let on_target = "CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE SCHEMA trigrams; CREATE EXTENSION pg_trgm SCHEMA trigrams;
         CREATE TABLE left_out (id text UNIQUE);
         CREATE TABLE mail (at citext DEFAULT 'a'::citext PRIMARY KEY, more hstore, CHECK (at <> 'extensions.x'));
         CREATE FUNCTION find(a citext) RETURNS citext LANGUAGE sql AS 'SELECT a';
         CREATE INDEX ON mail USING gin ((at::text) trigrams.gin_trgm_ops)";
    pair.target.batch_execute(on_target).await.unwrap();
    pair.config = "[tables]\ninclude = [\"public.*\"]\nexclude = [\"public.left_out\"]\n".to_owned();
    let (code, diff) = json(&pair, &[]);
    assert_eq!(code, 0, "{diff:#}");
    assert_eq!(diff["tables"], serde_json::json!(["public.mail"]));
    let told: Vec<String> = diff["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| format!("{} {}", d["what"], d["name"]))
        .collect();
    assert_eq!(
        told,
        [
            r#""harmless" "citext""#,
            r#""harmless" "hstore""#,
            r#""harmless" "pg_trgm""#,
            r#""harmless" "tablefunc""#,
            r#""left_out" "auth""#,
            r#""left_out" "other""#
        ],
        "{diff:#}"
    );
    // A reference into what is not copied says so, and what mends the rest names the target's schemas.
    pair.write(
        "ALTER TABLE mail ADD owner int REFERENCES auth.users; ALTER TABLE mail ADD cc extensions.citext;
         CREATE POLICY own ON mail USING (owner = auth.uid())",
    )
    .await;
    let (code, diff) = json(&pair, &["--table", "public.mail"]);
    assert_eq!(code, 1, "{diff:#}");
    let found: Vec<(&str, &str, Option<&str>, Option<&str>)> = diff["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| {
            (
                d["what"].as_str().unwrap(),
                d["name"].as_str().unwrap(),
                d["mend"][0].as_str(),
                d["note"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("missing", "public.mail.cc", Some("ALTER TABLE public.mail ADD COLUMN cc public.citext"), None),
            ("missing", "public.mail.owner", Some("ALTER TABLE public.mail ADD COLUMN owner integer"), None),
            (
                "left_out",
                "public.mail.mail_owner_fkey",
                None,
                Some("it refers to table auth.users of the provider's, which the target lacks")
            ),
            (
                "left_out",
                "public.mail.own",
                None,
                Some("it refers to function auth.uid() of the provider's, which the target lacks")
            ),
        ]
    );
}

/// `cdc schema diff --json` with these arguments: its exit status and its report.
fn json(pair: &Pair, arguments: &[&str]) -> (i32, Value) {
    let output = pair.run(&[&["schema", "diff", "--json"], arguments].concat());
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_it_in_text_in_json_and_by_its_exit_status() {
    let mut pair = Pair::new("by_command").await;
    pair.both("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, v text)").await;
    let output = pair.run(&["schema", "diff"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "by_command: the target's schema is the same (tables: 2)\n"
    );
    pair.target
        .batch_execute(
            "ALTER TABLE b ALTER v SET NOT NULL; ALTER TABLE b ADD w int; CREATE INDEX more ON b (w)",
        )
        .await
        .unwrap();
    let output = pair.run(&["schema", "diff"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "by_command: missing on the target: 0, different: 1 (tables: 2)

public.b
  different  column public.b.v
             source  not null: none
             target  not null: NOT NULL
             mend    ALTER TABLE public.b ALTER COLUMN v DROP NOT NULL;

no difference, but good to know
  extra      column public.b.w: only the target has it
  extra      index public.more: only the target has it
"
    );
    let (code, diff) = json(&pair, &["--table", "public.b"]);
    assert_eq!(code, 1);
    assert_eq!(diff["same"], false);
    assert_eq!(
        diff["differences"][0],
        serde_json::json!({
            "what": "different", "kind": "column", "name": "public.b.v", "table": "public.b",
            "source": "not null: none", "target": "not null: NOT NULL",
            "mend": ["ALTER TABLE public.b ALTER COLUMN v DROP NOT NULL"], "note": null
        })
    );
    let (code, diff) = json(&pair, &["--table", "public.a"]);
    assert_eq!((code, &diff["same"], &diff["differences"]), (0, &Value::Bool(true), &serde_json::json!([])));
    assert_eq!(pair.run(&["schema", "diff", "--table", "public.c"]).status.code(), Some(64));
    pair.daemon_target_url = "postgres://postgres@127.0.0.1:1/nothing".to_owned();
    assert_eq!(pair.run(&["schema", "diff"]).status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_during_the_copy_is_no_difference() {
    let mut pair = Pair::new("held").await;
    pair.config = "[copy]\nmax_rate = \"1MB\"\n".to_owned();
    pair.both(
        "CREATE TABLE owners (id int PRIMARY KEY, code int UNIQUE);
         CREATE TABLE things (id int PRIMARY KEY, code text, owner int REFERENCES owners, v text,
                              EXCLUDE (code WITH =));
         CREATE UNIQUE INDEX one ON things (lower(code));
         CREATE TABLE parts (id int, n int, owner int REFERENCES owners, PRIMARY KEY (id, n)) PARTITION BY LIST (n);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
         CREATE UNIQUE INDEX apart ON parts (n, id, owner)",
    )
    .await;
    pair.write(
        "INSERT INTO owners SELECT i, i FROM generate_series(1, 100) i;
         INSERT INTO things SELECT i, i, i % 100 + 1, repeat('v', 300) FROM generate_series(1, 10000) i; ANALYZE",
    )
    .await;
    let daemon = pair.daemon();
    pair.target_is(
        "without its constraints",
        "SELECT to_regclass('cdc.held_back') IS NOT NULL AND to_regclass('one') IS NULL",
        &[],
    )
    .await;
    let (code, diff) = json(&pair, &[]);
    assert_eq!(code, 0, "{diff:#}");
    let held: Vec<&str> = diff["differences"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|d| d["what"] == "held_back" && d["mend"] == serde_json::json!([]))
        .map(|d| d["name"].as_str().unwrap())
        .collect();
    for name in ["public.one", "public.things.things_owner_fkey", "public.things.things_code_excl"] {
        assert!(held.contains(&name), "{diff:#}");
    }
    assert_eq!(held.len(), diff["differences"].as_array().unwrap().len(), "{diff:#}");
    pair.copied().await;
    let (code, diff) = json(&pair, &[]);
    assert_eq!((code, &diff["differences"]), (0, &serde_json::json!([])));
    pair.ends_equal(daemon).await;
}
