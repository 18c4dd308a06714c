//! What `cdc status` and the log say.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use std::io::BufRead;

use indicatif::{InMemoryTerm, TermLike};
use support::pair::{self, PATIENCE, Pair, connect, number};
use support::proxy::{Cut, Proxy};

const TABLE: &str = "CREATE TABLE t (id bigserial PRIMARY KEY, v text)";

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_how_it_is_with_the_daemon_up_down_and_never_run() {
    let pair = Pair::new("status").await;
    pair.both(TABLE).await;
    let (code, text) = pair.status_text(&[]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("status: stopped") && text.contains("has never run"), "{text}");
    let never = pair.status();
    assert_eq!(never["verdict"], "stopped");
    assert!(
        never["phase"].is_null() && never["checkpoint"].is_null() && never["daemon"]["state"].is_null(),
        "{never:#}"
    );
    assert_eq!(
        number(&pair.target, "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc'").await,
        0,
        "status made a ledger"
    );

    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 500) i").await;
    pair.write("UPDATE t SET v = 'w' WHERE id = 1").await;
    pair.caught_up().await;
    let up = pair.status_is("streaming", |status| status["verdict"] == "streaming").await;
    assert_eq!(up["phase"], "stream", "{up:#}");
    assert_eq!(up["direction"], "forward", "{up:#}");
    assert_eq!(up["daemon"]["is_running"], true, "{up:#}");
    assert_eq!(up["daemon"]["pid"], daemon.pid(), "{up:#}");
    assert_eq!(up["checkpoint"]["transactions"], 2, "{up:#}");
    assert_eq!(up["checkpoint"]["changes"], 501, "{up:#}");
    assert_eq!(up["slot"]["name"], "cdc_status", "{up:#}");
    assert_eq!(up["slot"]["is_active"], true, "{up:#}");
    assert_eq!(up["slot"]["wal_status"], "reserved", "{up:#}");
    assert!(up["incidents"].as_array().unwrap().is_empty() && up["source_error"].is_null(), "{up:#}");
    let (code, text) = pair.status_text(&[]);
    assert_eq!(code, 0, "{text}");
    for part in [
        "status: streaming",
        "stream, forward",
        "running: streaming since",
        "lag ",
        "changes 501, transactions 2",
        "cdc_status, in use",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    assert!(daemon.terminate().await.success());
    let (code, text) = pair.status_text(&[]);
    assert_eq!(code, 2, "{text}");
    assert!(
        text.contains("stopped: no daemon is running") && text.contains("not running, was last: stopped"),
        "{text}"
    );
    assert!(text.contains("cdc_status, not in use"), "{text}");
    let daemon = pair.streaming().await;
    daemon.kill();
    pair.status_is("killed", |status| {
        status["verdict"] == "stopped" && status["daemon"]["state"] == "streaming"
    })
    .await;
}

/// A `cdc status --watch` whose output is read line by line.
struct Watching {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Watching {
    fn start(pair: &Pair, arguments: &[&str]) -> Self {
        let mut command = pair.command();
        let mut child = command
            .args(["status", "--watch"])
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads until a line has this.
    fn says(&mut self, text: &str) -> String {
        self.lines.by_ref().map(|line| line.unwrap()).find(|line| line.contains(text)).expect("it goes on")
    }

    fn ends(mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_watches_databases_that_come_and_go_and_ends_with_the_last_look() {
    let mut pair = Pair::new("watch").await;
    pair.both(TABLE).await;
    let port = |url: &str| url.rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap();
    let (source, target): (u16, u16) = (port(&pair.source_url), port(&pair.target_url));
    let through = async |port: u16| Proxy::start(([127, 0, 0, 1], port).into()).await;
    let proxies = (through(source).await, through(target).await);
    let daemon = pair.streaming().await;
    pair.caught_up().await;
    pair.daemon_source_url = pair.source_url.replace(&source.to_string(), &proxies.0.addr.port().to_string());
    pair.daemon_target_url = pair.target_url.replace(&target.to_string(), &proxies.1.addr.port().to_string());

    let mut text = Watching::start(&pair, &[]);
    text.says("watch: streaming");
    let mut objects = Watching::start(&pair, &["--json"]);
    let first: serde_json::Value = serde_json::from_str(&objects.says("{")).unwrap();
    assert_eq!((&first["name"], &first["verdict"]), (&"watch".into(), &"streaming".into()), "{first}");
    proxies.0.refuse(true).await;
    proxies.0.cut_all(Cut::Reset);
    text.says("source can't be asked");
    assert!(objects.says("\"source_error\":\"").contains("\"verdict\":\"behind\""));
    proxies.1.refuse(true).await;
    proxies.1.cut_all(Cut::Reset);
    text.says("watch: nothing is known, the target can't be asked");
    let object: serde_json::Value = serde_json::from_str(&objects.says("\"error\":")).unwrap();
    assert!(object["error"].as_str().unwrap().starts_with("target: "), "{object}");
    assert_eq!(objects.ends("-TERM"), Some(3));
    proxies.0.refuse(false).await;
    proxies.1.refuse(false).await;
    text.says("watch: streaming");
    assert!(daemon.terminate().await.success());
    text.says("watch: stopped");
    assert_eq!(text.ends("-INT"), Some(2));
    // Nobody reads any more.
    let mut closed = Watching::start(&pair, &[]);
    closed.says("watch: stopped");
    drop(closed.lines);
    assert_eq!(closed.child.wait().unwrap().code(), Some(2));

    for wrong in [["--max-lag-seconds", "-1"], ["--max-lag-seconds", "NaN"], ["--max-lag-bytes", "-1"]] {
        assert_eq!(pair.status_text(&wrong).0, 64, "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_counts_what_a_frozen_daemon_was_not_even_sent() {
    let pair = Pair::new("frozen").await;
    pair.both(TABLE).await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (0)").await;
    pair.caught_up().await;
    daemon.signal("STOP");
    // Each of them is more than the buffers of a connection hold.
    for first in [1, 12_001, 24_001] {
        let rows = format!("generate_series({first}, {})", first + 11_999);
        pair.write(&format!("INSERT INTO t SELECT i, repeat('x', 1000) FROM {rows} i")).await;
    }
    let behind = pair
        .status_is("behind by more than two seconds", |status| {
            status["lag"]["seconds"].as_f64().is_some_and(|s| s > 2.0)
        })
        .await;
    assert!(behind["lag"]["bytes"].as_u64().unwrap() > 36_000_000, "{behind:#}");
    let unsent = format!(
        "SELECT (pg_current_wal_lsn() - sent_lsn) > 1000000 FROM pg_stat_replication WHERE application_name = 'cdc_{} walsender'",
        pair.name
    );
    // Only some are told of it.
    pair.write("SET ROLE NONE").await;
    assert!(pair.source.query_one(&unsent, &[]).await.unwrap().get::<_, bool>(0), "all of it was sent");
    assert_eq!(pair.status_text(&["--max-lag-seconds", "1"]).0, 1);
    assert_eq!(pair.status_text(&["--max-lag-bytes", "1000000"]).0, 1);
    assert_eq!(pair.status_text(&["--max-lag-bytes", "1000000000"]).0, 0);
    let (_, text) = pair.status_text(&["--max-lag-seconds", "1"]);
    assert!(text.contains("frozen: behind"), "{text}");
    daemon.signal("CONT");
    pair.caught_up().await;
    assert_eq!(pair.status_text(&["--max-lag-bytes", "1000000"]).0, 0);
    daemon.signal("STOP");
    daemon.kill();
    assert_eq!(pair.status_text(&[]).0, 2);
    let daemon = pair.streaming().await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_not_finished_is_told_of_and_one_that_fails_needs_a_person() {
    let pair = Pair::new("copying").await;
    pair.both(TABLE).await;
    let daemon = pair.streaming().await;
    pair.caught_up().await;
    daemon.wait_for_log("copied public.t, rows 0; in all complete, rows 0, tables 1").await;
    let ledger = async |sql: &str| pair.target.batch_execute(sql).await.unwrap();
    // A table whose rows are still to come, as if the daemon had just found it.
    ledger(
        "INSERT INTO cdc.copy VALUES ('copying', 4000000000, 'public', 'late', '', '{}', 1000, 65536);
         INSERT INTO cdc.chunk (name, relation, ordinal, range) VALUES ('copying', 4000000000, 0, '{}')",
    )
    .await;
    let status = pair.status_is("copying", |status| status["verdict"] == "copying").await;
    let late = |copy: &serde_json::Value| {
        let tables = copy["details"].as_array().unwrap();
        tables.iter().find(|table| table["table"] == "public.late").unwrap().clone()
    };
    assert_eq!(late(&status["copy"])["state"], "pending", "{status:#}");
    assert_eq!(late(&status["copy"])["rows_planned"], 1000, "{status:#}");
    let (code, text) = pair.status_text(&[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("copying: copying") && text.contains(" of about "), "{text}");

    ledger(
        "INSERT INTO cdc.incident (name, severity, message, table_name, part)
         VALUES ('copying', 'failing', 'the disk is too small', 'public.late', 'copy')",
    )
    .await;
    let (code, text) = pair.status_text(&[]);
    assert_eq!(code, 2, "{text}");
    for part in ["copying: blocked", "public.late: failed at 0 %", "failing (open)", "the disk is too small"]
    {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    assert_eq!(late(&pair.status()["copy"])["state"], "failed");

    ledger(
        "UPDATE cdc.incident SET resolved_at = now() WHERE severity = 'failing';
         UPDATE cdc.chunk SET state = 'done', snapshot = '1:1:', lsn = '0/1', rows = 1234, bytes = 5678,
                              started_at = now(), finished_at = now()
          WHERE relation = 4000000000",
    )
    .await;
    let status = pair.status_is("streaming", |status| status["verdict"] == "streaming").await;
    assert_eq!(status["copy"]["fraction"], 1.0, "{status:#}");
    let (code, text) = pair.status_text(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("copy        complete, rows 1,234"), "{text}");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_bars_beneath_whole_log_lines() {
    let mut pair = Pair::new("terminal").await;
    pair.config = "[copy]\nmax_rate = \"3MB\"\n".to_owned();
    pair.both(TABLE).await;
    pair.both("CREATE TABLE small (id int PRIMARY KEY)").await;
    pair.write("INSERT INTO small VALUES (1), (2)").await;
    pair.write("INSERT INTO t SELECT i, repeat(md5(i::text), 12) FROM generate_series(1, 40000) i; ANALYZE")
        .await;
    let command = pair.command();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut terminal = std::process::Command::new("script")
        .args(["-qefc", &format!("stty rows 60 cols 300; exec {} run", words.join(" "))])
        .arg(file.path())
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let copied = pair.status_is("copied", |status| status["phase"] == "stream").await;
    // The log's lines about it come with a look of their own, up to a second later.
    let deadline = std::time::Instant::now() + PATIENCE;
    while !std::fs::read_to_string(file.path()).unwrap().contains("in all complete") {
        assert!(std::time::Instant::now() < deadline, "the terminal never said that the copy is complete");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let kill = ["-TERM", &copied["daemon"]["pid"].to_string()];
    assert!(std::process::Command::new("kill").args(kill).status().unwrap().success());
    assert!(terminal.wait().unwrap().success());
    let typescript = std::fs::read_to_string(file.path()).unwrap();
    assert!(typescript.contains("public.t  ") && typescript.contains('░') && typescript.contains('█'));
    // What is left on the terminal in the end.
    let terminal = InMemoryTerm::new(60, 300);
    let (_, output) = typescript.split_once('\n').unwrap();
    terminal.write_str(output).unwrap();
    let lines = terminal.contents();
    let (lines, _) = lines.split_once("Script done").unwrap();
    for line in lines.lines().filter(|line| !line.is_empty()) {
        assert!(line.starts_with("20") && line.contains(" INFO ") && !line.contains('█'), "{lines}");
    }
    for said in [" starting ", " copied ", "in all complete, rows 40,002, tables 2", " stopping as asked"] {
        assert!(lines.contains(said), "{lines}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_text_or_json_and_nothing_shows_a_password() {
    let hba = ["host all all 127.0.0.1/32 scram-sha-256"];
    let source = pair::source().hba(hba).start().await.unwrap();
    let plain = Pair::new("secrets").await;
    let socket = format!("host={} port={} user=postgres", source.socket_dir().display(), source.port());
    let admin = connect(&format!("{socket} dbname=postgres")).await;
    admin
        .batch_execute("CREATE ROLE secretive LOGIN SUPERUSER PASSWORD 'p@ss:w/o%r\"d''#&= ?\\x'")
        .await
        .unwrap();
    admin.batch_execute("CREATE DATABASE secrets").await.unwrap();
    let mut pair = plain;
    pair.source_url = format!("{socket} dbname=secrets");
    pair.source = connect(&pair.source_url).await;
    let encoded = "p%40ss%3Aw%2Fo%25r%22d%27%23%26%3D%20%3F%5Cx";
    let shown = ["p@ss", "p%40ss", "w/o", "w%2Fo"];
    pair.daemon_source_url = format!("postgres://secretive:{encoded}@127.0.0.1:{}/secrets", source.port());
    pair.both(TABLE).await;

    for format in ["text", "json"] {
        let daemon = pair.daemon_with(&["--log", format]);
        daemon.wait_for_log("streaming").await;
        pair.write("INSERT INTO t (v) VALUES ('a')").await;
        pair.caught_up().await;
        let command_line = std::fs::read_to_string(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
        // Losing its connections makes it talk.
        pair.source.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cdc_secrets%'", &[]).await.unwrap();
        daemon.wait_for_log("trying again").await;
        pair.write("INSERT INTO t (v) VALUES ('b')").await;
        pair.caught_up().await;
        daemon.signal("TERM");
        let (code, log) = daemon.outcome().await;
        assert_eq!(code, Some(0), "{log}");
        let said =
            [log.clone(), command_line, pair.status_text(&["--incidents"]).1, format!("{:#}", pair.status())]
                .concat();
        for secret in shown {
            assert!(!said.contains(secret), "{secret:?} is shown:\n{said}");
        }
        assert!(!log.contains('\u{1b}'), "colours without a terminal:\n{log}");
        if format == "json" {
            assert_json_lines(&log);
        }
    }
    // A refusal is a line of the log too.
    pair.daemon_source_url = pair.daemon_source_url.replace("p%40ss", "wr0ng%40");
    let (code, log) = pair.daemon_with(&["--log", "json"]).outcome().await;
    assert_eq!(code, Some(2), "{log}");
    assert_json_lines(&log);
    assert!(log.contains("28P01") && !log.contains("wr0ng"), "{log}");
}

fn assert_json_lines(log: &str) {
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(
            line["level"].is_string() && line["timestamp"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
}
