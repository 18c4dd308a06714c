//! `cdc verify` finds every difference and no other, while both sides are live.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stdout, reason = "all of it is a test")]

mod by_itself;
mod corrupt;
mod failures;
mod live;
mod scale;
mod tables;

#[path = "../support/mod.rs"]
mod support;

use serde_json::Value;
use support::pair::Pair;

/// `cdc verify --json` with these arguments: its exit status and the report.
pub fn verify(pair: &Pair, arguments: &[&str]) -> (i32, Value) {
    let output = pair.run(&[&["verify", "--json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// Both sides are the same.
pub fn assert_same(pair: &Pair, arguments: &[&str]) -> Value {
    let (status, report) = verify(pair, arguments);
    assert_eq!((status, &report["outcome"]), (0, &Value::from("same")), "{report:#}");
    report
}

/// The report's entry of a table.
pub fn table<'a>(report: &'a Value, name: &str) -> &'a Value {
    let tables = report["tables"].as_array().unwrap();
    tables.iter().find(|table| table["table"] == name).unwrap_or_else(|| panic!("{name} in {report:#}"))
}

/// Every difference that the report lists, as `kind table key: columns`, in order.
pub fn differences(report: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for table in report["tables"].as_array().unwrap() {
        for difference in table["differences"].as_array().unwrap() {
            let text = |key: &str| difference[key].as_str().unwrap().to_owned();
            let columns = difference["columns"].as_array().unwrap();
            let columns = columns.iter().map(|column| column.as_str().unwrap()).collect::<Vec<_>>().join(",");
            let table = table["table"].as_str().unwrap();
            found.push(format!("{} {table} {}: {columns}", text("kind"), text("key")));
        }
    }
    found.sort();
    found
}
