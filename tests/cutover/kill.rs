//! kill -9 of the command or of the daemon at any moment: it ends switched or undone, and never do both sides take
//! writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cdc::cutover::Step;

use super::command::{ROWS, SCHEMA, begin, switch, takes_writes};
use crate::support::pair::{Pair, connect, number};

/// The lease of a command, and the start of a daemon on a busy machine.
const LONGEST: Duration = Duration::from_secs(15);

/// What a writer was told, in its order: when it began, on which side, and the key.
type Accepted = Vec<(Instant, bool, i64)>;

/// Writes to both sides in turn, as applications would that have been moved or have not.
async fn write(urls: [String; 2], stop: Arc<AtomicBool>) -> Accepted {
    let clients = [connect(&urls[0]).await, connect(&urls[1]).await];
    let mut accepted = Vec::new();
    for key in 1_000_000.. {
        if stop.load(Relaxed) {
            break;
        }
        for (client, is_target) in clients.iter().zip([false, true]) {
            let began = Instant::now();
            let key = 2 * key + i64::from(is_target);
            let sql = format!("INSERT INTO ticket (id) VALUES ({key})");
            // On the target only if it has been opened for applications.
            let is_open = !is_target
                || client
                    .query_opt("SELECT FROM cdc.fence WHERE state = 'watched'", &[])
                    .await
                    .is_ok_and(|row| row.is_some());
            if is_open && client.batch_execute(&sql).await.is_ok() {
                accepted.push((began, is_target, key));
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    accepted
}

/// True if a switch behind this one has begun this step.
async fn is_as_far_as(pair: &Pair, step: Step, last: i64) -> bool {
    let sql = "SELECT step FROM cdc.cutover WHERE name = $1 AND id > $2 ORDER BY id DESC LIMIT 1";
    let row = pair.target.query_opt(sql, &[&pair.name, &last]).await.unwrap();
    row.is_some_and(|row| Step::named(row.get(0)).unwrap() >= step)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_is_killed_ends_switched_or_undone() {
    let rounds: usize = std::env::var("CDC_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let mut rng =
        fastrand::Rng::with_seed(std::env::var("CDC_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(7));
    let pair = Pair::new("killed").await;
    pair.both(SCHEMA).await;
    pair.write(ROWS).await;
    let mut daemon = pair.streaming().await;
    let mut is_moved = false;
    let mut outcomes = [0, 0];
    for round in 0..rounds {
        let way = if is_moved { "rollback" } else { "cutover" };
        let stop = Arc::new(AtomicBool::new(false));
        let writer = (!is_moved).then(|| {
            tokio::spawn(write([pair.source_url.clone(), pair.target_url.clone()], Arc::clone(&stop)))
        });
        let last =
            number(&connect(&pair.target_url).await, "SELECT coalesce(max(id), 0) FROM cdc.cutover").await;
        let mut child = begin(&pair, &[way, "--yes"]);
        let step = rng.bool().then(|| Step::ALL[rng.usize(..Step::ALL.len())]);
        if let Some(step) = step {
            let began = Instant::now();
            while !is_as_far_as(&pair, step, last).await && began.elapsed() < Duration::from_secs(4) {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..if step.is_some() { 40 } else { 1_800 }))).await;
        let (kills_command, kills_daemon) = match rng.u8(..) {
            0..130 => (true, false),
            130..195 => (false, true),
            _ => (true, true),
        };
        if kills_command {
            child.kill().unwrap();
        }
        if kills_daemon {
            daemon.kill();
            daemon = pair.daemon();
        }
        tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
        let sql = "SELECT outcome, decided_at IS NOT NULL AND opened_at IS NOT NULL, step, error
                     FROM cdc.cutover WHERE name = $1 AND id > $2 ORDER BY id DESC LIMIT 1";
        let deadline = Instant::now() + Duration::from_secs(40);
        let target = connect(&pair.target_url).await;
        // An INSERT of a command that was killed can still come.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let is_switched = loop {
            let row = target.query_opt(sql, &[&pair.name, &last]).await.unwrap();
            let (outcome, is_open) = row
                .as_ref()
                .map_or((None, false), |row| (row.get::<_, Option<String>>(0), row.get::<_, bool>(1)));
            match (row.is_some(), outcome.as_deref(), is_open) {
                (false, _, _) | (_, Some("undone"), _) => break false,
                (_, Some(_), _) => break true,
                (_, None, true) => {
                    let (status, report) = switch(&pair, &[way, "--yes"]);
                    assert_eq!(status, 0, "{report:#}\n{}", daemon.log());
                    break true;
                }
                _ => {}
            }
            assert!(Instant::now() < deadline, "round {round}: it never ended: {row:?}\n{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        outcomes[usize::from(is_switched)] += 1;
        is_moved ^= is_switched;
        let (new, old) = if is_moved {
            (&pair.target_url, &pair.source_url)
        } else {
            (&pair.source_url, &pair.target_url)
        };
        assert!(takes_writes(new).await, "round {round}");
        // The target is fenced only once the applications have been there.
        if outcomes[1] > 0 {
            assert!(!takes_writes(old).await, "round {round}");
        }
        stop.store(true, Relaxed);
        if let Some(writer) = writer {
            let accepted = writer.await.unwrap();
            let gaps = accepted.windows(2).map(|two| two[1].0 - two[0].0);
            let longest = gaps.max().unwrap_or_default();
            assert!(longest < LONGEST, "round {round}: nobody took writes for {longest:?}");
            let first = accepted.iter().find(|(_, is_target, _)| *is_target);
            if let Some((first, ..)) = first {
                let late = accepted.iter().find(|(began, is_target, _)| !is_target && began > first);
                assert!(late.is_none(), "round {round}: both sides took writes");
            }
            let keys: Vec<i64> = accepted.iter().map(|(_, _, key)| *key).collect();
            let client = connect(new).await;
            let there = client
                .query_one("SELECT count(*) FROM ticket WHERE id = ANY ($1::bigint[])", &[&keys])
                .await
                .unwrap()
                .get::<_, i64>(0);
            assert_eq!(there, i64::try_from(keys.len()).unwrap(), "round {round}: a write was lost");
        }
        // What comes next has to be fresh.
        let client = connect(new).await;
        client.batch_execute("INSERT INTO child (parent) VALUES (1)").await.unwrap();
        eprintln!(
            "round {round}: {way} {}; killed at {step:?}: command {kills_command}, daemon {kills_daemon}",
            if is_switched { "switched" } else { "undone" }
        );
    }
    eprintln!("undone {}, switched {}", outcomes[0], outcomes[1]);
    let (new, old) =
        if is_moved { (&pair.target_url, &pair.source_url) } else { (&pair.source_url, &pair.target_url) };
    let deadline = Instant::now() + Duration::from_secs(60);
    let count = "SELECT count(*) FROM child";
    let (new, old) = (connect(new).await, connect(old).await);
    while number(&new, count).await != number(&old, count).await {
        assert!(Instant::now() < deadline, "{:#}\n{}", pair.status(), daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    pair.assert_equal().await;
}
