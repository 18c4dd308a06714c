//! pgbench runs through a real `PgBouncer` while the database is moved to another server and back: no transaction
//! fails, and none is lost.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cdc::demo::Cluster;

use super::command::switch;
use crate::support::pair::{PATIENCE, Pair, connect, number, source, target};
use crate::support::pooler::Pooler;

const CLIENTS: &str = "8";

fn pgbench(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("pgbench");
    command.args(arguments).arg(url);
    command
}

async fn server(builder: cdc::demo::Builder) -> Cluster {
    builder.setting("max_connections", "100").start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_transaction_of_pgbench_fails_or_is_lost_there_and_back() {
    let (old, new) = (server(source()).await, server(target()).await);
    let mut pair = Pair::on(&old, &new, "bench").await;
    let pooler = Pooler::start(old.port(), "transaction").await;
    for (url, steps) in [(&pair.source_url, "dtgp"), (&pair.target_url, "dtp")] {
        let made =
            pgbench(url, &["-i", "-q", "-s", "2", "-I", steps]).stderr(Stdio::null()).status().unwrap();
        assert!(made.success());
    }
    pair.both("ALTER TABLE pgbench_history ADD COLUMN id bigserial PRIMARY KEY").await;
    let port = format!("$([ $CDC_NEW_SIDE = target ] && echo {} || echo {})", new.port(), old.port());
    pair.config = format!(
        "[cutover]\npgbouncer = {:?}\npgbouncer_databases = [\"bench\"]\nswitch = '''{}'''\n",
        pooler.url("pgbouncer"),
        pooler.switch_to(&port)
    );
    let daemon = pair.streaming().await;
    // The verification before doesn't belong to what is measured here.
    assert_eq!(pair.run(&["verify"]).status.code(), Some(0));
    let seconds = std::env::var("CDC_PGBENCH_SECONDS").unwrap_or_else(|_| "14".to_owned());
    let mut command =
        pgbench(&pooler.url("bench"), &["-n", "-c", CLIENTS, "-j", "2", "-T", &seconds, "-P", "1"]);
    let bench = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pauses = Vec::new();
    for way in ["cutover", "rollback"] {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (status, report) = switch(&pair, &[way, "--yes"]);
        assert_eq!((status, &report["outcome"]), (0, &"switched".into()), "{report:#}\n{}", daemon.log());
        pauses.push(report["pause_ms"].as_u64().unwrap());
    }
    let output = tokio::task::spawn_blocking(|| bench.wait_with_output()).await.unwrap().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("number of failed transactions: 0 "), "{said}");
    let processed =
        said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let processed: i64 = processed.unwrap().split('/').next().unwrap().trim().parse().unwrap();
    eprintln!("transactions {processed}, writes rested {pauses:?} ms\n{said}");
    let (source, target) = (connect(&pair.source_url).await, connect(&pair.target_url).await);
    let history = "SELECT count(*) FROM pgbench_history";
    assert_eq!(number(&source, history).await, processed);
    let deadline = Instant::now() + PATIENCE;
    while number(&target, history).await != processed {
        assert!(Instant::now() < deadline, "{:#}\n{}", pair.status(), daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let balances = "SELECT count(DISTINCT sum) FROM (SELECT sum(abalance) FROM pgbench_accounts UNION ALL
        SELECT sum(tbalance) FROM pgbench_tellers UNION ALL SELECT sum(bbalance) FROM pgbench_branches UNION ALL
        SELECT sum(delta) FROM pgbench_history) AS t (sum)";
    assert_eq!(number(&source, balances).await, 1);
    pair.ends_equal(daemon).await;
}
