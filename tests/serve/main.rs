//! What the daemon serves: the page in a real browser, the metrics in a real Prometheus, from the copy through a stop, a
//! slot that is nearly lost and a switch to the daemon's end.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "all of it is a test")]

mod browser;
mod http;
mod prometheus;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use browser::Browser;
use http::{ask, get};
use prometheus::Prometheus;
use serde_json::Value;
use support::pair::{self, Daemon, PATIENCE, Pair};
use tokio::net::TcpStream;

/// A daemon that serves, and whoever looks at it.
struct Scene {
    pair: Pair,
    address: String,
    browser: Option<Browser>,
    metrics: BTreeSet<String>,
}

impl Scene {
    /// Waits until a path answers like this.
    async fn answers(&self, path: &str, code: u16, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = ask(&self.address, "GET", path).await;
            if answer.as_ref().is_some_and(|answer| answer.code == code && answer.text.contains(text)) {
                return;
            }
            let said = answer.map(|answer| (answer.code, answer.text));
            assert!(Instant::now() < deadline, "{path} never was {code} {text:?}: {said:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The page says all of this, and fits.
    async fn shows(&mut self, name: &str, texts: &[&str]) {
        let Some(browser) = &mut self.browser else { return };
        for text in texts {
            browser.reads(text).await;
        }
        browser.fits(name).await;
    }

    /// A scrape.
    async fn scrape(&mut self) -> String {
        let answer = get(&self.address, "/metrics").await;
        assert_eq!(answer.code, 200, "{}", answer.text);
        assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
        let names = answer.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        self.metrics.extend(names.map(|name| name.split(' ').next().unwrap().to_owned()));
        for line in answer.text.lines().filter(|line| line.starts_with("cdc_")) {
            assert!(line.contains("migration=\"seen\"}"), "{line}");
        }
        // So that the rest of it is easy to read.
        answer.text.replace("{migration=\"seen\"}", "").replace(",migration=\"seen\"", "")
    }

    /// Scrapes until there is this line; Prometheus's own parser takes it.
    async fn measures(&mut self, line: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.scrape().await;
            if text.lines().any(|said| said == line) {
                prometheus::accepts_metrics(&get(&self.address, "/metrics").await.text);
                return text;
            }
            assert!(Instant::now() < deadline, "the metrics never have {line}:\n{text}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

const CONFIG: &str = "[copy]\nmax_rate = \"3MB\"\n[cutover]\nbefore = \"sleep 4\"\nverify = \"none\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_sees_how_it_is_from_the_first_copy_to_the_last_word() {
    prometheus::accepts_files();
    let source = pair::source().setting("max_slot_wal_keep_size", "64MB").start().await.unwrap();
    let target = pair::target().start().await.unwrap();
    let mut pair = Pair::on(&source, &target, "seen").await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    pair.config = format!("{CONFIG}[http]\nlisten = \"{address}\"\n");
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE small (id int PRIMARY KEY)").await;
    pair.write("INSERT INTO t SELECT i, repeat(md5(i::text), 12) FROM generate_series(1, 50000) i; ANALYZE")
        .await;
    let daemon = pair.daemon();
    daemon.wait_for_log(" streaming").await;
    daemon.wait_for_log(&format!("can't be served at {address}")).await;
    drop(taken);
    let mut scene = Scene { pair, address, browser: Browser::start().await, metrics: BTreeSet::new() };

    copying(&mut scene).await;
    let prometheus = Prometheus::start(&scene.address).await;
    streaming(&mut scene).await;
    blocked(&mut scene, prometheus.as_ref()).await;
    if let Some(prometheus) = &prometheus {
        prometheus.answers_the_dashboard().await;
        prometheus.evaluates_the_rules().await;
    }
    switched(&mut scene).await;
    documented(&scene.metrics);
    gone(&mut scene, daemon).await;
}

async fn copying(scene: &mut Scene) {
    // The address is free now, which the daemon finds by itself.
    scene.answers("/healthz", 200, "every loop turns").await;
    scene.answers("/readyz", 503, "copying; copied ").await;
    let text = scene.measures("cdc_verdict{verdict=\"copying\"} 1").await;
    for line in ["cdc_phase{phase=\"copy\"} 1", "cdc_copy_tables 2", "cdc_consistent 0"] {
        assert!(text.lines().any(|said| said == line), "{line}:\n{text}");
    }
    let url = format!("http://{}/", scene.address);
    if let Some(browser) = &mut scene.browser {
        browser.open(&url).await;
    }
    scene.shows("copying", &["Copying: ", "public.t", "of 50,000"]).await;
}

async fn streaming(scene: &mut Scene) {
    scene.pair.copied().await;
    scene.pair.write("INSERT INTO small VALUES (1), (2), (3)").await;
    scene.pair.caught_up().await;
    assert_eq!(scene.pair.run(&["verify"]).status.code(), Some(0));
    scene.answers("/readyz", 200, "streaming; lag ").await;
    scene.answers("/status.json", 200, "\"outcome\":\"same\"").await;
    scene.shows("streaming", &["Streaming: the target is ", "the same", "None is open."]).await;

    // The document is that of the command, but for what changes all the time.
    let served = get(&scene.address, "/status.json").await.json();
    let printed = scene.pair.status();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&served), keys(&printed));
    for key in ["name", "verdict", "phase", "source", "target", "last_verify", "incidents"] {
        assert_eq!(served[key], printed[key], "{key}");
    }
    let text = scene.measures("cdc_rows_applied_total 3").await;
    for line in [
        "cdc_transactions_applied_total 1",
        "cdc_verdict{verdict=\"streaming\"} 1",
        "cdc_daemon_state{state=\"streaming\"} 1",
        "cdc_last_verify_outcome{outcome=\"same\"} 1",
        "cdc_last_verify_rows 50003",
        "cdc_healthy 1",
    ] {
        assert!(text.lines().any(|said| said == line), "{line}:\n{text}");
    }
    history(scene).await;
    strangers(scene).await;
}

/// The history has each look once, and whoever has some of it is given the rest.
async fn history(scene: &Scene) {
    let times = async |after: f64| {
        let history = get(&scene.address, &format!("/history.json?after={after}")).await.json();
        let points = history["recent"].as_array().unwrap().clone();
        points.iter().map(|point| point["at"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let all = times(0.0).await;
    assert!(all.len() > 2 && all.is_sorted_by(|a, b| a < b), "{all:?}");
    let rest = times(all[1]).await;
    assert_eq!(rest[..all.len() - 2], all[2..]);
}

/// What isn't there isn't served, nothing can be changed, and who connects and says nothing holds up nobody for long.
async fn strangers(scene: &Scene) {
    for (method, path, code) in [
        ("GET", "/nothing", 404),
        ("POST", "/", 405),
        ("DELETE", "/status.json", 405),
        ("GET", "/history.json?after=x", 400),
        ("HEAD", "/metrics", 200),
    ] {
        assert_eq!(ask(&scene.address, method, path).await.unwrap().code, code, "{method} {path}");
    }
    let page = get(&scene.address, "/").await;
    for part in [
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
    ] {
        assert!(page.head.contains(part), "{part}: {}", page.head);
    }
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(TcpStream::connect(&scene.address).await.unwrap());
    }
    scene.pair.write("INSERT INTO small VALUES (4)").await;
    scene.pair.caught_up().await;
    drop(silent);
    scene.answers("/healthz", 200, "").await;
}

async fn blocked(scene: &mut Scene, prometheus: Option<&Prometheus>) {
    let (missing, change) = ("DELETE FROM small WHERE id = 3", "UPDATE small SET id = 30 WHERE id = 3");
    scene.pair.target.batch_execute(missing).await.unwrap();
    scene.pair.write(change).await;
    scene.answers("/readyz", 503, "blocked: a person is needed; ").await;
    scene.answers("/healthz", 200, "").await;
    scene
        .shows(
            "blocked",
            &["Blocked: a person is needed", "What to do: ", "public.small", "blocked on the target"],
        )
        .await;
    scene.measures("cdc_incidents_open{severity=\"blocked\"} 1").await;
    if let Some(prometheus) = prometheus {
        prometheus.has("ALERTS{alertname=\"CdcBlocked\",migration=\"seen\"}").await;
    }

    scene
        .pair
        .write("SELECT pg_logical_emit_message(false, '', repeat('x', 1000000)) FROM generate_series(1, 50)")
        .await;
    scene.answers("/history.json?after=1e12", 200, "\"slot_lost_in_seconds\":").await;
    if let Some(browser) = &mut scene.browser {
        browser.sees("document.querySelector('#card-slot[data-tone=bad]')").await;
    }
    scene.shows("slot", &["MiB left"]).await;
    assert!(scene.scrape().await.contains("\ncdc_slot_lost_in_seconds "));

    let lsn = scene.pair.status()["incidents"][0]["lsn"].as_str().unwrap().to_owned();
    let skipped = scene.pair.run(&["skip", &lsn, "--yes", "--reason", "the row is put there by hand"]);
    assert!(skipped.status.success());
    scene.pair.target.batch_execute("INSERT INTO small VALUES (30)").await.unwrap();
    scene.pair.caught_up().await;
    scene.answers("/readyz", 200, "streaming").await;
    scene.measures("cdc_transactions_skipped_total 1").await;
}

async fn switched(scene: &mut Scene) {
    let mut command = scene.pair.command();
    let switch = command
        .args(["cutover", "--yes", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    scene.measures("cdc_switch_step{step=\"before\",way=\"cutover\"} 1").await;
    scene.shows("cutover", &["Switching: hook before", "tidy up"]).await;
    let output = switch.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    scene.answers("/readyz", 200, "streaming").await;
    scene.shows("reverse", &["Streaming back: the old source is ", "in reverse", "switched; begun "]).await;
    let text = scene.measures("cdc_direction{direction=\"reverse\"} 1").await;
    assert!(text.contains("\ncdc_old_side_sessions "), "{text}");
}

/// The README has every metric, and no other.
fn documented(metrics: &BTreeSet<String>) {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let names = |word: &str| {
        let words = readme
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|name| name.starts_with(word));
        words.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let told: BTreeSet<_> = names("cdc_").into_iter().chain(names("process_")).collect();
    let missing: Vec<_> = metrics.difference(&told).collect();
    assert!(missing.is_empty(), "the README lacks {missing:?}");
    let table = readme.split("### Metrics").nth(1).unwrap().split("\n### ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    for name in rows.flat_map(|row| row.split(" |").next().unwrap().split("`, `")) {
        let name = name.trim_end_matches('`').split('{').next().unwrap();
        assert!(metrics.contains(name) || name == "cdc_copy_eta_seconds", "{name} is in the README only");
    }
}

async fn gone(scene: &mut Scene, daemon: Daemon) {
    daemon.kill();
    scene.shows("gone", &["The daemon has not answered since ", "What is below was seen before."]).await;
    let Some(browser) = &scene.browser else { return };
    let page = format!("http://{}/", scene.address);
    let foreign = |url: &&String| !url.starts_with(&page) && !url.starts_with("data:");
    assert_eq!(browser.requests().iter().filter(foreign).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(browser.complaints(), Vec::<&String>::new());
}
