//! `cdc check` finds what stands in the way, says what mends it, and touches nothing.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "all of it is a test")]

mod connections;
mod databases;
mod servers;
mod source_tables;
mod target_tables;

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use support::pair::{Pair, assert_well_said};
use tokio_postgres::Client;

/// What `cdc check` has said.
pub struct Checked {
    /// The exit status.
    pub code: i32,
    /// Its JSON.
    pub report: Value,
}

/// `cdc check` with these arguments.
pub fn run(pair: &Pair, arguments: &[&str]) -> Output {
    let mut command = pair.command();
    if !pair.environment.iter().any(|(name, _)| name == "CDC_PG_DUMP") {
        // One that reads every source.
        let newest = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/vector-18/bin/pg_dump");
        command.env("CDC_PG_DUMP", newest);
    }
    let output = command.arg("check").args(arguments).output().unwrap();
    assert_well_said(&String::from_utf8_lossy(&output.stdout));
    assert_well_said(&String::from_utf8_lossy(&output.stderr));
    output
}

/// The text of `cdc check`.
pub fn text(pair: &Pair) -> String {
    String::from_utf8(run(pair, &[]).stdout).unwrap()
}

/// `cdc check --json`.
pub fn check(pair: &Pair) -> Checked {
    let output = run(pair, &["--json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    for finding in report["findings"].as_array().unwrap() {
        assert!(finding["what"] != "" && finding["why"] != "", "{finding:#}");
        assert_ne!(finding["code"], "not-examined", "{finding:#}");
        let is_mended = finding["mend"].is_string() || finding["severity"] == "informs";
        assert!(is_mended, "it doesn't say what mends it: {finding:#}");
    }
    Checked { code: output.status.code().unwrap(), report }
}

impl Checked {
    fn findings(&self) -> &Vec<Value> {
        self.report["findings"].as_array().unwrap()
    }

    /// The finding with this severity, code, side (`both` is null) and object (`-` is null); `said` is in what it
    /// says or in what mends it.
    pub fn has(&self, severity: &str, code: &str, side: &str, object: &str, said: &[&str]) -> &Value {
        let text = |value: &Value, null: &str| value.as_str().unwrap_or(null).to_owned();
        let is_it = |finding: &&Value| {
            finding["code"] == code
                && text(&finding["side"], "both") == side
                && text(&finding["object"], "-") == object
        };
        let finding = self
            .findings()
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{code} {side} {object} is not in: {:#}", self.report));
        assert_eq!(finding["severity"], severity, "{finding:#}");
        let all = format!("{}\n{}", text(&finding["what"], ""), text(&finding["mend"], ""));
        for said in said {
            assert!(all.contains(said), "it never says {said:?}: {finding:#}");
        }
        finding
    }

    /// Nothing has this code.
    pub fn lacks(&self, code: &str) {
        let found: Vec<&Value> = self.findings().iter().filter(|finding| finding["code"] == code).collect();
        assert!(found.is_empty(), "{found:#?}");
    }

    /// Everything that has this severity, as `code side object`, sorted.
    pub fn all(&self, severity: &str) -> Vec<String> {
        let text = |value: &Value, null: &str| value.as_str().unwrap_or(null).to_owned();
        let mut all: Vec<String> = self
            .findings()
            .iter()
            .filter(|finding| finding["severity"] == severity)
            .map(|finding| {
                let (side, object) = (text(&finding["side"], "both"), text(&finding["object"], "-"));
                format!("{} {side} {object}", text(&finding["code"], ""))
            })
            .collect();
        all.sort();
        all
    }

    /// What mends this finding, as SQL.
    pub fn mend(&self, code: &str, object: &str) -> String {
        let is_it = |finding: &&Value| finding["code"] == code && finding["object"] == object;
        self.findings().iter().find(is_it).unwrap()["mend"].as_str().unwrap().to_owned()
    }
}

/// The same URL for another role.
pub fn as_role(url: &str, role: &str) -> String {
    url.replace("postgres://postgres@", &format!("postgres://{role}@"))
}

/// Everything that a database and its server have, by name: what a preflight must leave as it is.
pub async fn inventory(client: &Client) -> Vec<String> {
    let sql = "
        SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
         UNION ALL SELECT 'relation ' || oid::regclass || ' ' || relfilenode || ' ' || coalesce(relacl::text, '') FROM pg_class WHERE oid >= 16384
         UNION ALL SELECT 'publication ' || pubname FROM pg_publication
         UNION ALL SELECT 'slot ' || slot_name || ' ' || coalesce(confirmed_flush_lsn::text, '') FROM pg_replication_slots
         UNION ALL SELECT 'setting ' || setdatabase || setrole || setconfig::text FROM pg_db_role_setting
         UNION ALL SELECT 'role ' || rolname || rolreplication FROM pg_roles
         UNION ALL SELECT 'extension ' || extname FROM pg_extension
         UNION ALL SELECT 'writes up to ' || pg_snapshot_xmax(pg_current_snapshot())
         ORDER BY 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}
