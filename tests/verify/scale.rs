//! Large tables: the report and the memory stay small, and a rate is kept.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::churn::{self, Churn};
use super::support::pair::{Pair, connect};
use super::{assert_same, table, verify};

/// What the command may use at its peak, in KiB.
const MOST_KIB: u64 = 64 * 1024;

/// Runs the command, and looks at its memory meanwhile: its exit status, its report, and its peak in KiB.
fn measured(pair: &Pair, arguments: &[&str]) -> (i32, String, u64) {
    let mut child = pair.command().arg("verify").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let output = child.stdout.take().unwrap();
    let read = std::thread::spawn(move || std::io::read_to_string(output).unwrap());
    let mut peak = 0;
    let code = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.map_or(0, |line| line.split_whitespace().next().unwrap().parse().unwrap()));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended.code().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (code, read.join().unwrap(), peak)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_table_has_a_short_report_and_takes_no_memory() {
    let pair = Pair::new("emptied").await;
    pair.both("CREATE TABLE t (id bigint PRIMARY KEY, v text)").await;
    pair.write("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 300000) i; ANALYZE t").await;
    let daemon = pair.streaming().await;
    // A sample, and a rate.
    let report = assert_same(&pair, &["--sample", "1"]);
    let t = table(&report, "public.t");
    assert_eq!((&t["chunks"], &report["sample_percent"]), (&Value::from(1), &Value::from(1.0)));
    let part = t["rows_source"].as_i64().unwrap();
    assert!((1..200_000).contains(&part), "{t:#}");
    let began = Instant::now();
    let report = assert_same(&pair, &["--max-rate", "10MB"]);
    let seconds = began.elapsed().as_secs_f64();
    let bytes = table(&report, "public.t")["bytes"].as_f64().unwrap();
    assert!(seconds > bytes / 10e6 * 0.9, "{bytes} bytes in {seconds} s");
    pair.target.batch_execute("TRUNCATE t").await.unwrap();
    let began = Instant::now();
    let (status, text, peak) = measured(&pair, &[]);
    println!("300,000 rows that are missing: {:.1} s, {} MiB", began.elapsed().as_secs_f64(), peak / 1024);
    assert_eq!(status, 1, "{text}");
    assert!(text.lines().count() < 40, "{text}");
    assert!(text.contains("differences at least 300,000"), "{text}");
    assert!(peak < MOST_KIB, "{peak} KiB");
    let (_, report) = verify(&pair, &[]);
    let t = table(&report, "public.t");
    assert_eq!(t["differences"].as_array().unwrap().len(), 1000);
    assert_eq!(t["missing"].as_i64().unwrap() + t["not_looked_at"].as_i64().unwrap(), 300_000);
    assert_eq!(
        t["ranges"].as_array().unwrap().len(),
        usize::try_from(t["chunks"].as_u64().unwrap()).unwrap(),
        "{:#}",
        t["ranges"]
    );
    assert!(daemon.terminate().await.success());
}

/// `make torture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes"]
async fn five_million_rows_are_never_different_under_a_thousand_changes_a_second() {
    const ROWS: i64 = 5_000_000;
    const RUNS: usize = 20;
    let pair = Pair::new("five_million").await;
    pair.both(churn::TABLE).await;
    pair.write(&churn::fill(ROWS)).await;
    let daemon = pair.streaming().await;
    let churn = Churn::start(&pair.source_url, ROWS, 1000);
    for run in 0..RUNS {
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let cost = tokio::spawn(cost(pair.source_url.clone(), Arc::clone(&stop)));
        let (status, text, peak) = measured(&pair, &["--json"]);
        let seconds = began.elapsed().as_secs_f64();
        stop.store(true, Relaxed);
        let (cpu_seconds, longest) = cost.await.unwrap();
        println!(
            "run {run}: {seconds:.0} s, {:.0} rows/s, {} MiB; of the source {:.2} cores, no snapshot longer than {longest:.1} s",
            ROWS as f64 / seconds,
            peak / 1024,
            cpu_seconds / seconds
        );
        assert_eq!(status, 0, "{text}");
        assert!(peak < MOST_KIB, "{peak} KiB");
    }
    println!("changes, and those a second: {:?}", churn.stop().await);
    pair.ends_equal(daemon).await;
}

/// What the comparison costs the source until it is over: seconds of its backends, and the longest that one of
/// them has held a snapshot.
async fn cost(url: String, stop: Arc<AtomicBool>) -> (f64, f64) {
    const TICKS_PER_SECOND: f64 = 100.0;
    let client = connect(&url).await;
    let sql = "SELECT pid, coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8
                 FROM pg_stat_activity WHERE application_name LIKE 'cdc_% verify'";
    let (mut ticks, mut longest) = (std::collections::BTreeMap::new(), 0.0_f64);
    while !stop.load(Relaxed) {
        for row in client.query(sql, &[]).await.unwrap() {
            let pid: i32 = row.get(0);
            longest = longest.max(row.get(1));
            // utime and stime (proc(5)), after the name in parentheses.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
            ticks.insert(pid, fields.map(|field| field.parse::<f64>().unwrap()).sum::<f64>());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (ticks.values().sum::<f64>() / TICKS_PER_SECOND, longest)
}
