//! `cdc drop`: nothing of a migration is left, on either database, and nothing else is touched.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use cdc::connect::{ConnInfo, Environment};
use cdc::fault::Side;
use cdc::lsn::Lsn;
use cdc::replication::{ReplicationStream, Walsender};
use serde_json::{Value, json};
use support::pair::{Daemon, PATIENCE, Pair, as_admin, connect, constraints, number};
use support::proxy::{Action, Direction, Proxy};
use tokio_postgres::Client;

/// Constraints and indexes of every kind that is held back; the rows of `child` refer to those of `parent`.
const TABLES: &str = "
    CREATE TABLE parent (id int PRIMARY KEY, code text CONSTRAINT \"the code\" UNIQUE, body text);
    COMMENT ON CONSTRAINT \"the code\" ON parent IS 'unique';
    CREATE UNIQUE INDEX lower_code ON parent (lower(code)) WHERE id > 0;
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE);
    CREATE TABLE other (id int PRIMARY KEY)";

/// Rows that take some seconds to copy at the rate of [`slowly`].
const ROWS: &str = "
    INSERT INTO parent SELECT i, i, repeat(md5(i::text), 40) FROM generate_series(1, 4000) i;
    INSERT INTO child SELECT i, 4001 - i FROM generate_series(1, 100) i; ANALYZE";

fn slowly(pair: &mut Pair) {
    pair.config = "[copy]\nmax_rate = \"1MB\"\nreaders = 1\n".to_owned();
}

/// `cdc drop` with these arguments: its exit status and what it says.
fn drop_(pair: &Pair, arguments: &[&str]) -> (i32, String) {
    let output = pair.run(&[&["drop"], arguments].concat());
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

/// What there is of this migration: slot, publications, the ledger's rows, the schema.
async fn left(pair: &Pair, name: &str) -> [i64; 4] {
    let name = format!("cdc_{name}");
    let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}'");
    let publications = format!("SELECT count(*) FROM pg_publication WHERE pubname LIKE '{name}%'");
    let schema = number(&pair.target, "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc'").await;
    let rows = format!("SELECT count(*) FROM cdc.migration WHERE 'cdc_' || name = '{name}'");
    [
        number(&pair.source, &slots).await,
        number(&pair.source, &publications).await,
        if schema == 1 { number(&pair.target, &rows).await } else { 0 },
        schema,
    ]
}

/// Somebody who reads from the slot under this application name.
async fn reader(pair: &Pair, application: &str) -> ReplicationStream {
    let info = ConnInfo::parse(&pair.daemon_source_url, &Environment::empty()).unwrap();
    let walsender = Walsender::connect(&info, Side::Source, application).await.unwrap();
    let slot = format!("cdc_{}", pair.name);
    walsender.start_replication(&slot, Lsn::ZERO, std::slice::from_ref(&slot)).await.unwrap()
}

/// A daemon that has taken in all tables and copied a part of them.
async fn half_copied(pair: &Pair) -> Daemon {
    let daemon = pair.daemon();
    daemon.wait_for_log("streaming").await;
    until(&pair.target, "SELECT (count(*) = 3)::int::bigint FROM cdc.held_back").await;
    until(&pair.target, "SELECT count(*) FROM cdc.chunk WHERE state = 'done'").await;
    daemon
}

async fn until(client: &Client, query: &str) {
    let deadline = Instant::now() + PATIENCE;
    while number(client, query).await == 0 {
        assert!(Instant::now() < deadline, "never: {query}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_refuses_while_something_uses_the_slot_and_leaves_nothing_behind() {
    let mut pair = Pair::new("drop_all").await;
    pair.config = "[tables]\ninsert_only = [\"public.other\"]\n".to_owned();
    pair.both(TABLES).await;
    let before = constraints(&pair.target).await;
    let (code, text) = drop_(&pair, &["--yes"]);
    assert!(code == 0 && text.contains("schema cdc: gone"), "there is nothing yet: {text}");
    pair.write("CREATE PUBLICATION cdc_drop_all_insert FOR TABLE other WITH (publish = 'insert, truncate')")
        .await;
    let daemon = pair.streaming().await;
    let all = [1, 2, 1, 1];

    let (code, text) = drop_(&pair, &[]);
    assert!(code == 64 && text.contains("cdc drop --yes"), "{text}");
    for force in [&["--yes"][..], &["--yes", "--force"]] {
        let (code, text) = drop_(&pair, force);
        assert!(code == 1 && text.contains("a daemon of this migration is running"), "{text}");
    }
    assert!(daemon.terminate().await.success());
    let stranger = reader(&pair, "stranger").await;
    for force in [&["--yes"][..], &["--yes", "--force"]] {
        let (code, text) = drop_(&pair, force);
        assert!(code == 1 && text.contains("(\"stranger\"), which isn't ours"), "{text}");
    }
    assert_eq!(left(&pair, "drop_all").await, all);
    drop(stranger);
    until(
        &pair.source,
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc_drop_all' AND NOT active",
    )
    .await;

    // The source can't be reached.
    let url = pair.daemon_source_url.clone();
    pair.daemon_source_url = "postgres://postgres@127.0.0.1:1/drop_all".to_owned();
    let (code, text) = drop_(&pair, &["--yes"]);
    assert!(code == 3 && text.contains("--force"), "{text}");
    assert_eq!(left(&pair, "drop_all").await, all);
    // It is another one.
    as_admin(&pair.source, "CREATE DATABASE another").await;
    pair.daemon_source_url = format!("{}another", url.strip_suffix("drop_all").unwrap());
    let (code, text) = drop_(&pair, &["--yes"]);
    assert!(code == 1 && text.contains("not the database that the migration began with"), "{text}");
    assert_eq!(left(&pair, "drop_all").await, all);
    pair.daemon_source_url = url;

    // What an earlier daemon has left, and a source that is read-only unless asked otherwise.
    pair.source
        .batch_execute("ALTER DATABASE drop_all SET default_transaction_read_only = on")
        .await
        .unwrap();
    let leftover = reader(&pair, "cdc_drop_all walsender").await;
    let (code, text) = drop_(&pair, &["--yes", "--json"]);
    assert_eq!(code, 0, "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    let thing = json!({"name": "cdc_drop_all", "state": "gone"});
    assert_eq!(report["outcome"], "dropped", "{text}");
    assert_eq!(report["source"]["slot"], thing, "{text}");
    assert_eq!(report["source"]["publications"], json!([thing]), "{text}");
    assert_eq!(report["source"]["publications_kept"], json!(["cdc_drop_all_insert"]), "{text}");
    assert_eq!(
        (&report["target"]["migration"], &report["target"]["schema"]),
        (&json!("gone"), &json!("gone")),
        "{text}"
    );
    assert_eq!(left(&pair, "drop_all").await, [0, 1, 0, 0]);
    assert_eq!(constraints(&pair.target).await, before);
    drop(leftover);
    let (code, text) = drop_(&pair, &["--yes"]);
    assert!(code == 0 && text.contains("cdc_drop_all_insert: stays"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rows_of_half_a_copy_violate_is_told_and_given_up_only_by_force() {
    let mut pair = Pair::new("drop_half").await;
    slowly(&mut pair);
    pair.both(TABLES).await;
    pair.write(ROWS).await;
    let before = constraints(&pair.target).await;
    half_copied(&pair).await.kill();
    // The copy of the large table comes first, however far it is; rows of the small one that refer to its end
    // were there.
    pair.target
        .batch_execute(
            "DELETE FROM parent WHERE id = 4000;
             INSERT INTO child SELECT i, 4001 - i FROM generate_series(1, 100) i ON CONFLICT DO NOTHING",
        )
        .await
        .unwrap();
    let held = "SELECT count(*) FROM cdc.held_back WHERE put_back_at IS NULL";
    assert_eq!(number(&pair.target, held).await, 3);

    let (code, text) = drop_(&pair, &["--yes"]);
    assert_eq!(code, 1, "{text}");
    for said in [
        "the copy is not complete",
        "NOT dropped",
        "child_parent_fkey of public.child",
        "[key parent=4000]",
        "VALIDATE CONSTRAINT",
        "cdc drop --force",
    ] {
        assert!(text.contains(said), "{said:?} is missing:\n{text}");
    }
    assert_eq!(left(&pair, "drop_half").await, [1, 1, 1, 1]);
    assert_eq!(number(&pair.target, held).await, 1);
    let (code, text) = drop_(&pair, &["--yes", "--force", "--json"]);
    assert_eq!(code, 1, "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["outcome"], "incomplete", "{text}");
    assert_eq!(report["target"]["not_put_back"][0]["table"], "public.child", "{text}");
    assert_eq!(left(&pair, "drop_half").await, [0, 0, 0, 0]);
    pair.target.batch_execute("TRUNCATE parent, child").await.unwrap();
    for statement in report["target"]["to_run"].as_array().unwrap() {
        pair.target.batch_execute(statement.as_str().unwrap()).await.unwrap();
    }
    assert_eq!(constraints(&pair.target).await, before);
    assert_eq!(drop_(&pair, &["--yes"]).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_the_next_one_goes_on() {
    let mut pair = Pair::new("drop_kill").await;
    slowly(&mut pair);
    pair.both(TABLES).await;
    pair.write(ROWS).await;
    pair.write("TRUNCATE child").await;
    let before = constraints(&pair.target).await;
    half_copied(&pair).await.kill();

    killed_at(&pair, "LOCK TABLE parent IN ROW EXCLUSIVE MODE", [1, 1, 1, 1]).await;
    // Cut before a statement, and after it: it can't know whether that was run.
    let url = pair.daemon_source_url.clone();
    let port: u16 = url.rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap();
    let source = Proxy::start(([127, 0, 0, 1], port).into()).await;
    pair.daemon_source_url = url.replace(&format!(":{port}/"), &format!(":{}/", source.addr.port()));
    let cuts: [(&[u8], Action, [i64; 4]); 3] = [
        (b"pg_drop_replication_slot", Action::CutBefore, [1, 1, 1, 1]),
        (b"DROP PUBLICATION", Action::CutBefore, [0, 1, 1, 1]),
        (b"DROP PUBLICATION", Action::CutAfter, [0, 0, 1, 1]),
    ];
    for (pattern, action, left_then) in cuts {
        source.on_bytes(Direction::ToServer, pattern, action);
        let (code, text) = drop_(&pair, &["--yes"]);
        assert_eq!(code, 3, "{text}");
        until_left(&pair, left_then).await;
    }
    assert_eq!(constraints(&pair.target).await, before);
    pair.daemon_source_url = url;
    killed_at(&pair, "SELECT FROM cdc.migration FOR UPDATE", [0, 0, 1, 1]).await;
    let (code, text) = drop_(&pair, &["--yes"]);
    assert!(code == 0 && text.contains("nothing of it is left; both databases were asked"), "{text}");
    assert_eq!(left(&pair, "drop_kill").await, [0, 0, 0, 0]);
    assert_eq!(constraints(&pair.target).await, before);
}

/// kill -9 while it waits for this lock.
async fn killed_at(pair: &Pair, lock: &str, left_then: [i64; 4]) {
    let locker = connect(&pair.target_url).await;
    locker.batch_execute(&format!("BEGIN; {lock}")).await.unwrap();
    let mut command = pair.command();
    let quiet = command.args(["drop", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = quiet.spawn().unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND wait_event_type = 'Lock'
                    AND application_name IN ('cdc_drop_kill schema', 'cdc_drop_kill drop')";
    until(&pair.target, waits).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(left(pair, "drop_kill").await, left_then);
    locker.batch_execute("ROLLBACK").await.unwrap();
}

/// What the server does of a statement whose sender is gone, it may do a moment later.
async fn until_left(pair: &Pair, wanted: [i64; 4]) {
    let deadline = Instant::now() + PATIENCE;
    while left(pair, &pair.name).await != wanted {
        assert!(Instant::now() < deadline, "never {wanted:?}: {:?}", left(pair, &pair.name).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_goes_with_the_last_migration_and_what_a_wiped_target_has_left_goes_by_force() {
    let mut pair = Pair::new("drop_two").await;
    pair.both("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)").await;
    pair.config = "[tables]\ninclude = [\"public.a\"]\n".to_owned();
    let first = pair.streaming().await;
    pair.name = "drop_second".to_owned();
    pair.config = "[tables]\ninclude = [\"public.b\"]\n".to_owned();
    let second = pair.streaming().await;
    assert!(second.terminate().await.success());
    let (code, text) = drop_(&pair, &["--yes"]);
    assert!(code == 0 && text.contains("schema cdc: stays for drop_two"), "{text}");
    assert_eq!(left(&pair, "drop_second").await, [0, 0, 0, 1]);
    // The other one doesn't notice.
    pair.name = "drop_two".to_owned();
    pair.write("INSERT INTO a VALUES (1)").await;
    pair.ends_equal(first).await;

    pair.target.batch_execute("DROP SCHEMA cdc CASCADE").await.unwrap();
    let (code, text) = drop_(&pair, &["--yes"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("the replication slot cdc_drop_two and the publication cdc_drop_two"), "{text}");
    assert_eq!(left(&pair, "drop_two").await, [1, 1, 0, 0]);
    let (code, text) = drop_(&pair, &["--yes", "--force"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(left(&pair, "drop_two").await, [0, 0, 0, 0]);

    // A source that is gone for good.
    let daemon = pair.streaming().await;
    assert!(daemon.terminate().await.success());
    let url =
        std::mem::replace(&mut pair.daemon_source_url, "postgres://postgres@127.0.0.1:1/drop_two".to_owned());
    let (code, text) = drop_(&pair, &["--yes", "--force", "--json"]);
    assert_eq!(code, 1, "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["outcome"], "incomplete", "{text}");
    assert_eq!(left(&pair, "drop_two").await, [1, 1, 0, 0]);
    for statement in report["source"]["to_run"].as_array().unwrap() {
        pair.source.batch_execute(statement.as_str().unwrap()).await.unwrap();
    }
    assert_eq!(left(&pair, "drop_two").await, [0, 0, 0, 0]);
    pair.daemon_source_url = url;
}
