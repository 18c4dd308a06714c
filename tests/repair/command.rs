//! `cdc repair`, as an operator runs it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::pair::{Pair, connect, number};

/// `cdc repair` with these arguments: its exit status and what it says.
fn repair(pair: &Pair, arguments: &[&str]) -> (i32, String) {
    let output = pair.run(&[&["repair"], arguments].concat());
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

/// The same with `--yes --json`.
fn repair_json(pair: &Pair, arguments: &[&str]) -> (i32, Value) {
    let output = pair.run(&[&["repair", "--yes", "--json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

const CORRUPTION: &str = "
    DELETE FROM t WHERE id BETWEEN 100 AND 120; UPDATE t SET v = 'x' WHERE id = 900;
    INSERT INTO t VALUES (5000, 'extra'); UPDATE other SET v = 'x' WHERE id = 3";

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_found_copied_again_and_verified() {
    let mut pair = Pair::new("repair_command").await;
    pair.config = "[copy]\nmax_rate = \"8MB\"\nreaders = 32\n".to_owned();
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY, v text)")
        .await;
    pair.write(
        "INSERT INTO t SELECT i, repeat('v', 1000) FROM generate_series(1, 1000) i;
         INSERT INTO other SELECT i, 'v' FROM generate_series(1, 10) i; ANALYZE",
    )
    .await;
    let (code, text) = repair(&pair, &["--yes"]);
    assert!(code == 3 && text.contains("no daemon is streaming"), "{code}: {text}");
    let daemon = pair.streaming().await;
    let (code, text) = repair(&pair, &[]);
    assert!(code == 64 && text.contains("cdc repair --yes"), "{code}: {text}");
    for wrong in [&["--json"][..], &["--all", "--table", "public.t", "--yes"], &["--table", "t", "--yes"]] {
        assert_eq!(repair(&pair, wrong).0, 64);
    }
    let (code, text) = repair(&pair, &["--yes", "--table", "public.nosuch"]);
    assert!(code == 64 && text.contains("has no table public.nosuch"), "{code}: {text}");

    pair.target.batch_execute(CORRUPTION).await.unwrap();
    let (code, report) = repair_json(&pair, &["--table", "public.other", "--reason", "row 3"]);
    assert_eq!((code, &report["outcome"]), (0, &"repaired".into()), "{report:#}");
    let repairs = report["repairs"].as_array().unwrap();
    assert_eq!(repairs.len(), 1, "{report:#}");
    assert_eq!((&repairs[0]["table"], &repairs[0]["reason"]), (&"public.other".into(), &"row 3".into()));
    assert!(repairs[0]["finished_at"].is_string() && repairs[0]["error"].is_null(), "{report:#}");
    assert_eq!(number(&pair.target, "SELECT count(*) FROM t WHERE id = 5000").await, 1);

    let copied = "SELECT count(*) FROM cdc.chunk WHERE copies > 1 AND relation =
                    (SELECT relation FROM cdc.copy WHERE table_name = 't')";
    let (code, text) = repair(&pair, &["--yes"]);
    assert!(code == 0 && text.contains("repaired: what was copied again is the same now"), "{code}: {text}");
    assert!(number(&pair.target, copied).await > 0, "nothing was copied again");
    pair.assert_equal().await;
    let (code, report) = repair_json(&pair, &[]);
    assert_eq!((code, &report["outcome"]), (0, &"same".into()), "{report:#}");
    assert!(report["repairs"].as_array().unwrap().is_empty() && report["after"].is_null(), "{report:#}");

    // Where the stream stands, the table has to be named.
    pair.target.batch_execute("DELETE FROM t WHERE id = 77").await.unwrap();
    pair.write("UPDATE t SET v = 'changed' WHERE id = 77").await;
    pair.status_is("blocked", |status| status["daemon"]["state"] == "blocked").await;
    let (code, text) = repair(&pair, &["--yes"]);
    assert!(
        code == 3 && text.contains("the daemon is blocked") && text.contains("--table"),
        "{code}: {text}"
    );
    let (code, report) = repair_json(&pair, &["--table", "public.t"]);
    assert_eq!((code, &report["outcome"]), (0, &"repaired".into()), "{report:#}");
    assert!(report["before"].is_null() && report["after"]["outcome"] == "same", "{report:#}");
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_no_daemon_can_do_ends_and_stays_visible() {
    let pair = Pair::new("repair_alone").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    pair.write("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 1000) i").await;
    let daemon = pair.streaming().await;
    pair.target.batch_execute("UPDATE t SET v = 'x' WHERE id = 9").await.unwrap();
    // It can't get at the row, and is killed.
    let other = connect(&pair.target_url).await;
    other.batch_execute("BEGIN; SELECT FROM t WHERE id = 9 FOR UPDATE").await.unwrap();
    let mut waiting = pair.command();
    let waiting = waiting.args(["repair", "--yes"]).stdout(Stdio::piped()).spawn().unwrap();
    pair.status_is("under way", |status| status["repairs"][0]["begun_at"].is_string()).await;
    let (_, text) = pair.status_text(&[]);
    assert!(text.contains("  repair      public.t, key ranges 1: under way since "), "{text}");
    daemon.kill();
    let began = Instant::now();
    let output = waiting.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(3) && text.contains("the daemon has ended"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    other.batch_execute("ROLLBACK").await.unwrap();

    let (code, text) = repair(&pair, &["--yes"]);
    assert!(code == 3 && text.contains("no daemon is running"), "{code}: {text}");
    // Everything is recorded, once.
    for _ in 0..2 {
        let (code, report) = repair_json(&pair, &["--all"]);
        assert_eq!((code, &report["outcome"]), (3, &"asked".into()), "{report:#}");
    }
    assert_eq!(number(&pair.target, "SELECT count(*) FROM cdc.repair WHERE relation IS NULL").await, 1);
    let (_, text) = pair.status_text(&[]);
    assert!(
        text.contains("  repair      everything: asked for ") && text.contains("waits for the daemon"),
        "{text}"
    );

    // Another one waits for it; whoever ends that ends nothing else.
    other.batch_execute("BEGIN; LOCK TABLE t IN EXCLUSIVE MODE").await.unwrap();
    let daemon = pair.daemon();
    pair.status_is("under way", |status| status["repairs"][0]["begun_at"].is_string()).await;
    let waiting = pair.command().args(["repair", "--all", "--yes"]).stdout(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ended = std::process::Command::new("kill").args(["-INT", &waiting.id().to_string()]).status();
    assert!(ended.unwrap().success());
    let output = waiting.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(3) && text.contains("the daemon goes on without you"), "{text}");
    other.batch_execute("ROLLBACK").await.unwrap();
    let (code, report) = repair_json(&pair, &["--all"]);
    assert_eq!((code, &report["outcome"]), (0, &"repaired".into()), "{report:#}");
    pair.ends_equal(daemon).await;

    // What is asked for ends with the migration.
    assert_eq!(repair(&pair, &["--all", "--yes"]).0, 3);
    let dropped = pair.run(&["drop", "--yes"]);
    assert!(dropped.status.success(), "{}", String::from_utf8_lossy(&dropped.stdout));
    assert_eq!(number(&pair.target, "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc'").await, 0);
}
