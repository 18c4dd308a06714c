//! Messages to a webhook and a command, of a daemon that lives through everything there is to tell; and the live view.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod receiver;
#[path = "../support/mod.rs"]
mod support;
mod watch;

use std::path::Path;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use receiver::{Answers, Receiver};
use serde_json::Value;
use support::pair::{self, PATIENCE, Pair};

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i";

/// The objects that a command has appended to a file.
fn appended(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What was told, in words, but for what depends on when somebody looked. What a repair copies makes it consistent again.
fn events(messages: &[Value]) -> Vec<&str> {
    let again = |message: &&Value| !message["text"].as_str().unwrap().contains("consistent again");
    let events = messages.iter().filter(again).map(|message| message["event"].as_str().unwrap());
    events.filter(|event| !["copied", "switch_begun", "progress", "test"].contains(event)).collect()
}

/// Blocks the stream at a row that is on the target already; gives the transaction's LSN.
async fn block(pair: &Pair, id: i32) -> String {
    let row = |v: &str| format!("INSERT INTO t VALUES ({id}, '{v}')");
    pair.target.batch_execute(&row("of the target")).await.unwrap();
    pair.write(&row("of the source")).await;
    let status = pair
        .status_is("blocked", |status| {
            status["verdict"] == "blocked" && status["incidents"][0]["lsn"].is_string()
        })
        .await;
    status["incidents"][0]["lsn"].as_str().unwrap().to_owned()
}

/// Lets it pass that transaction.
fn skip(pair: &Pair, lsn: &str) {
    assert!(pair.run(&["skip", lsn, "--yes", "--reason", "a test"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_happens_is_told_once_from_the_copy_to_the_way_back() {
    let receiver = Receiver::start(Answers::Well).await;
    let directory = tempfile::tempdir().unwrap();
    let (file, fails) = (directory.path().join("told"), directory.path().join("fails"));
    let mut pair = Pair::new("told").await;
    pair.both(TABLE).await;
    let notify = format!(
        "[notify]\nwebhook = {:?}\ncommand = \"cat >> {file}; echo >> {file}\"\ncalm = \"0s\"\nevery = \"3s\"\n",
        receiver.url,
        file = file.display()
    );
    let cutover = format!("[cutover]\nbefore = \"test ! -e {}\"\n", fails.display());
    pair.config = notify.clone() + &cutover;

    // A test message says whether it arrives, and never where it was sent.
    let tested = pair.run(&["notify"]);
    assert!(tested.status.success(), "{tested:?}");
    receiver.answer(Answers::With(StatusCode::NOT_FOUND, 1));
    let refused = pair.run(&["notify", "--json"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let refused: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(refused[0]["error"], "it answers 404 Not Found: no /... today", "{refused}");
    assert!(refused[1]["error"].is_null() && !refused.to_string().contains("s3cret"), "{refused}");

    // Over TLS only to whom the system's authorities vouch for.
    let (url, certificate) = receiver::secure().await;
    pair.config = format!("[notify]\nwebhook = {url:?}\n");
    let distrusted = pair.run(&["notify"]);
    let said = String::from_utf8_lossy(&distrusted.stdout);
    assert!(distrusted.status.code() == Some(1) && said.contains("certificate"), "{said}");
    std::fs::write(directory.path().join("ca.pem"), certificate).unwrap();
    let trusted = directory.path().join("ca.pem").display().to_string();
    pair.environment.push(("SSL_CERT_FILE".to_owned(), trusted));
    let tested = pair.run(&["notify"]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    pair.config = notify + &cutover;

    // It is told all the same, after some attempts.
    receiver.answer(Answers::With(StatusCode::INTERNAL_SERVER_ERROR, 3));
    let daemon = pair.streaming().await;
    let consistent = receiver.told("consistent").await;
    assert_eq!((&consistent["name"], &consistent["level"]), (&"told".into(), &"info".into()), "{consistent}");

    let lsn = block(&pair, 1000).await;
    let blocked = receiver.told("blocked").await;
    let incident = |field: &str| blocked["incident"][field].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (incident("sqlstate"), incident("table"), incident("lsn")),
        ("23505".into(), "public.t".into(), lsn.clone())
    );
    for part in ["a person is needed", "public.t", "id=1000", "what to do: "] {
        assert!(blocked["text"].as_str().unwrap().contains(part), "{blocked:#}");
    }
    assert_eq!((&blocked["level"], &blocked["verdict"]), (&"alarm".into(), &"blocked".into()), "{blocked}");
    skip(&pair, &lsn);
    receiver.told("unblocked").await;

    // The row that was skipped differs, until it is repaired.
    assert_eq!(pair.run(&["verify"]).status.code(), Some(1));
    receiver.told("verify_differs").await;
    assert!(pair.run(&["repair", "--yes"]).status.success());
    assert!(pair.run(&["verify"]).status.success());
    receiver.told("verify_same").await;

    pair.copied().await;
    std::fs::write(&fails, "").unwrap();
    let switch = |way: &str| pair.run(&[way, "--yes", "--json", "--force"]);
    let fails_once = switch("cutover");
    let report = String::from_utf8_lossy(&fails_once.stdout);
    assert!(report.contains("\"outcome\": \"undone\""), "{report}");
    let undone = receiver.told("switch_undone").await;
    assert!(undone["text"].as_str().unwrap().contains("the step before has failed"), "{undone}");
    std::fs::remove_file(&fails).unwrap();
    let switched = switch("cutover");
    assert!(switched.status.success(), "{switched:?}");
    let switched = receiver.told("switched").await;
    assert!(switched["text"].as_str().unwrap().contains("writes rested for "), "{switched}");
    let switched = switch("rollback");
    assert!(switched.status.success(), "{switched:?}");
    receiver.told("rolled_back").await;
    let progress = receiver.told("progress").await;
    for part in ["tables 1 of 1, 100 percent", "elapsed ", "open incidents "] {
        assert!(progress["text"].as_str().unwrap().contains(part), "{progress}");
    }

    // The next life tells nothing again; what it does tell is told behind everything else.
    let before = receiver.taken().len();
    assert!(daemon.terminate().await.success());
    let daemon = pair.streaming().await;
    let deadline = Instant::now() + PATIENCE;
    while !receiver.taken()[before..].iter().any(|message| message["event"] == "progress") {
        assert!(Instant::now() < deadline, "{:#?}", receiver.taken());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let taken = receiver.taken();
    assert_eq!(
        events(&taken),
        [
            "consistent",
            "blocked",
            "unblocked",
            "verify_differs",
            "verify_same",
            "switch_undone",
            "switched",
            "rolled_back"
        ]
    );
    let log = daemon.log();
    pair.ends_equal(daemon).await;
    assert_eq!(events(&appended(&file)), events(&taken), "the command is told the same");
    assert!(!log.contains("s3cret-t0ken"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_runs_out_is_told_while_the_webhook_hangs_and_nothing_waits_for_that() {
    let receiver = Receiver::start(Answers::Never).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("told");
    let source = pair::source().setting("max_slot_wal_keep_size", "128MB").start().await.unwrap();
    let target = pair::target().start().await.unwrap();
    let mut pair = Pair::on(&source, &target, "slot").await;
    pair.both(TABLE).await;
    pair.config = format!(
        "[notify]\nwebhook = {:?}\ncommand = \"cat >> {file}; echo >> {file}\"\n",
        receiver.url,
        file = file.display()
    );
    let told = async |event: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let messages = appended(&file);
            if let Some(message) = messages.iter().find(|message| message["event"] == event) {
                return message["text"].as_str().unwrap().to_owned();
            }
            assert!(Instant::now() < deadline, "{event} was never told: {messages:#?}\n{:#}", pair.status());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let fill = async |mebibytes: u32| {
        let write =
            "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1048576)) FROM generate_series(1, ";
        pair.write(&format!("{write}{mebibytes}); CHECKPOINT")).await;
    };
    let daemon = pair.streaming().await;
    told("consistent").await;
    let lsn = block(&pair, 1000).await;
    fill(80).await;
    let text = told("slot_50").await;
    assert!(text.contains("cdc_slot has used ") && text.contains("raise max_slot_wal_keep_size"), "{text}");
    fill(40).await;
    told("slot_80").await;
    let open = pair.status();
    let open =
        open["incidents"].as_array().unwrap().iter().filter(|incident| incident["resolved_at"].is_null());
    let texts: Vec<_> = open.map(|incident| incident["message"].as_str().unwrap()).collect();
    assert!(texts.len() == 2 && texts[1].contains("more than 80 percent"), "{texts:?}");

    // What was written meanwhile arrives at once when it goes on, hanging webhook or not.
    skip(&pair, &lsn);
    pair.caught_up().await;
    let deadline = Instant::now() + PATIENCE;
    while !appended(&file).iter().any(|message| message["event"] == "slot_well") {
        assert!(Instant::now() < deadline, "the slot never was well: {:#}", pair.status());
        pair.write("INSERT INTO t SELECT max(id) + 1, 'v' FROM t; CHECKPOINT").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    pair.status_is("without an open incident", |status| status["open_incidents"] == 0).await;
    pair.caught_up().await;
    let log = daemon.log();
    assert!(!log.contains("the command could not be told"), "{log}");
    // At the end, what nobody has taken is in the log.
    let began = Instant::now();
    daemon.signal("TERM");
    let (code, log) = daemon.outcome().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(began.elapsed() < Duration::from_secs(20), "it waited for the webhook");
    for said in ["the webhook http://127.0.0.1:", "could not be told: cdc slot on ", "percent of the log"] {
        assert!(log.contains(said), "{said:?} is missing: {log}");
    }
    assert!(!log.contains("s3cret-t0ken"), "{log}");
}
