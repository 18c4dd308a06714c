//! What the other commands say: `cdc check` before anything is touched, `cdc schema diff` when all is there, and what
//! `cdc verify` and `cdc repair` are for, when somebody changes rows of the target.

use std::process::Output;

use serde_json::Value;

use super::daemon::command;
use super::screen::{Screen, count};
use super::servers::Servers;
use crate::fault::{Fault, Result};

/// Looks at both servers before anything is touched.
///
/// # Errors
/// If something stands in the way.
pub(super) async fn look_first(servers: &Servers, screen: &mut Screen) -> Result<()> {
    screen.busy("cdc check");
    let (status, report) = run(servers, &["check", "--json"]).await?;
    if status != Some(0) {
        return Err(failed("something stands in the way", &report));
    }
    screen.step(&format!(
        "cdc check finds nothing that stands in the way ({} warnings, {} notes)",
        report["warns"], report["informs"]
    ));
    Ok(())
}

/// Compares the schemas.
///
/// # Errors
/// If something is missing or different.
pub(super) async fn compare_schemas(servers: &Servers, screen: &mut Screen) -> Result<()> {
    screen.busy("cdc schema diff");
    let (status, report) = run(servers, &["schema", "diff", "--json"]).await?;
    if status != Some(0) {
        return Err(failed("the schemas differ", &report));
    }
    let differences = report["differences"].as_array();
    let held = differences.map_or(0, |all| all.iter().filter(|d| d["what"] == "held_back").count());
    screen.step(&format!(
        "cdc schema diff finds the same on both sides ({held} foreign keys and triggers are off until the cutover)"
    ));
    Ok(())
}

/// Changes rows on the target, and has them found and repaired by the commands themselves.
///
/// # Errors
/// If exactly these rows are not found, or not repaired.
pub(super) async fn prove(servers: &Servers, screen: &mut Screen) -> Result<()> {
    let made = servers.corrupt().await?;
    screen.step("somebody changes the target: a client's history, a reminder less, a company more");

    screen.busy("cdc verify");
    let (status, report) = run(servers, &["verify", "--json"]).await?;
    let found = differences(&report);
    let named: Vec<&str> = found.iter().map(|(row, _)| row.as_str()).collect();
    if status != Some(1) || named != made {
        return Err(failed(&format!("cdc verify found {named:?} instead of {made:?}"), &report));
    }
    let (rows, seconds) = (report["tables"].as_array().map_or(0, |tables| rows_of(tables)), seconds(&report));
    screen.step(&format!("cdc verify compares {} rows in {seconds:.1} s and finds them:", count(rows)));
    for (row, columns) in &found {
        screen.detail(&format!("{row}{columns}"));
    }

    screen.busy("cdc repair");
    let (status, report) = run(servers, &["repair", "--yes", "--json"]).await?;
    if status != Some(0) || report["outcome"] != "repaired" {
        return Err(failed("cdc repair did not repair them", &report));
    }
    let ranges = report["repairs"].as_array().map_or(0, Vec::len);
    screen.step(&format!(
        "cdc repair has the rows around them copied again ({ranges} tables), and verifies them"
    ));
    Ok(())
}

/// Moves the application to the target, lets it write there, and moves it back.
///
/// # Errors
/// If it doesn't get there, or back.
pub(super) async fn switch(servers: &Servers, screen: &mut Screen) -> Result<()> {
    for (way, what) in [
        ("cutover", "the target takes the writes, and the source refuses them"),
        ("rollback", "the source takes the writes again"),
    ] {
        screen.busy(&format!("cdc {way}"));
        let (status, report) = run(servers, &[way, "--yes", "--json"]).await?;
        if status != Some(0) {
            return Err(failed(&format!("cdc {way} has failed"), &report));
        }
        screen.step(&format!("cdc {way}: {what}; nothing could be written for {} ms", report["pause_ms"]));
        if way == "cutover" {
            let rows = servers.use_target().await?;
            screen.detail(&format!("the application changes {rows} rows there"));
        }
    }
    Ok(())
}

/// What a command prints as JSON, and its exit status.
async fn run(servers: &Servers, arguments: &[&str]) -> Result<(Option<i32>, Value)> {
    let mut command = tokio::process::Command::from(command(&servers.arguments(), arguments)?);
    command.kill_on_drop(true).stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let Output { status, stdout, stderr } = command
        .output()
        .await
        .map_err(|e| Fault::person(format!("can't run cdc {}: {e}", arguments.join(" "))))?;
    let report = serde_json::from_slice(&stdout).map_err(|e| {
        Fault::person(format!("cdc {}: {e}: {}", arguments.join(" "), String::from_utf8_lossy(&stderr)))
    })?;
    Ok((status.code(), report))
}

/// The rows that differ, as `kind table key`, each with `: columns` if it has any, in order.
fn differences(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for table in list(&report["tables"]) {
        for row in list(&table["differences"]) {
            let columns: Vec<String> = list(&row["columns"]).iter().map(text).collect();
            let columns =
                if columns.is_empty() { String::new() } else { format!(": {}", columns.join(", ")) };
            found.push((
                format!("{} {} {}", text(&row["kind"]), text(&table["table"]), text(&row["key"])),
                columns,
            ));
        }
    }
    found.sort();
    found
}

fn rows_of(tables: &[Value]) -> u64 {
    tables.iter().filter_map(|table| table["rows_source"].as_u64()).sum()
}

fn seconds(report: &Value) -> f64 {
    report["seconds"].as_f64().unwrap_or_default()
}

fn failed(what: &str, report: &Value) -> Fault {
    Fault::person(format!("{what}\n{report:#}"))
}
