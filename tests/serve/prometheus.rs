//! A real Prometheus, with the rules and the dashboard that come along.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::browser::installed;
use crate::http::{ask, get};
use crate::support::pair::PATIENCE;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring").join(name)
}

/// What `promtool` says of it, if it is installed.
fn promtool(arguments: &[&str], input: &str) {
    let Some(promtool) = installed("promtool") else {
        eprintln!("NOT TESTED: promtool is not installed, so nobody checks {arguments:?}");
        return;
    };
    let mut child = Command::new(promtool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "promtool {arguments:?}: {said}\n{input}");
}

/// Prometheus's own parser and its conventions.
pub(crate) fn accepts_metrics(text: &str) {
    promtool(&["check", "metrics"], text);
}

/// The rules are rules, and fire when they should.
pub(crate) fn accepts_files() {
    promtool(&["check", "rules", file("cdc.rules.yml").to_str().unwrap()], "");
    promtool(&["check", "config", file("prometheus.yml").to_str().unwrap()], "");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/rules.yml");
    promtool(&["test", "rules", tests.to_str().unwrap()], "");
}

/// A Prometheus that scrapes every second. Dropping it ends it.
pub(crate) struct Prometheus {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts one, if it is installed.
    pub(crate) async fn start(daemon: &str) -> Option<Self> {
        let Some(program) = installed("prometheus") else {
            eprintln!(
                "NOT TESTED: prometheus is not installed, so nobody scrapes, and no rule or dashboard is tried"
            );
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let config = std::fs::read_to_string(file("prometheus.yml")).unwrap();
        let config = config
            .replace("15s", "1s\n  evaluation_interval: 1s")
            .replace("cdc.rules.yml", file("cdc.rules.yml").to_str().unwrap())
            .replace("127.0.0.1:7432", daemon);
        std::fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(program)
            .arg(format!("--config.file={}", directory.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { child, address, _directory: directory };
        let deadline = Instant::now() + PATIENCE;
        while ask(&prometheus.address, "GET", "/-/ready").await.is_none_or(|answer| answer.code != 200) {
            assert!(Instant::now() < deadline, "prometheus doesn't start");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(prometheus)
    }

    async fn api(&self, path: &str) -> Value {
        let answer = get(&self.address, path).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.text);
        answer.json()["data"].clone()
    }

    /// What a query gives.
    pub(crate) async fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        self.api(&format!("/api/v1/query?query={encoded}")).await["result"].as_array().unwrap().clone()
    }

    /// Waits until a query gives something.
    pub(crate) async fn has(&self, query: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.query(query).await.is_empty() {
            assert!(Instant::now() < deadline, "prometheus never has {query}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Every rule has been evaluated, and well.
    pub(crate) async fn evaluates_the_rules(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let groups = self.api("/api/v1/rules").await;
            let rules = groups["groups"][0]["rules"].as_array().unwrap().clone();
            assert!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:#?}");
            if rules.len() > 10 && rules.iter().all(|rule| rule["health"] == "ok") {
                return;
            }
            assert!(Instant::now() < deadline, "{rules:#?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Every query of the dashboard gives something, but for those of a switch, of which there is none.
    pub(crate) async fn answers_the_dashboard(&self) {
        let text = std::fs::read_to_string(file("cdc.dashboard.json")).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let mut queries = Vec::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                queries.push(target["expr"].as_str().unwrap().to_owned());
            }
        }
        assert!(queries.len() > 15, "{queries:?}");
        for query in queries.iter().filter(|query| !query.contains("cdc_switch_step")) {
            self.has(&query.replace("$__rate_interval", "10s").replace("$migration", ".*")).await;
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
