//! Servers that are lost, and disks that are full, while writes rest: the source takes them again within two seconds.

use std::time::{Duration, Instant};

use cdc::demo::{Cluster, Stop};

use super::command::{ROWS, SCHEMA, begin, ended, is_at, signal, switch, takes_writes};
use crate::support::disk::Disk;
use crate::support::pair::{Daemon, PATIENCE, Pair, connect, source, target};

const SOON: Duration = Duration::from_secs(2);

/// Waits until the source takes writes.
async fn is_writable(pair: &Pair, within: Duration) {
    let began = Instant::now();
    while !takes_writes(&pair.source_url).await {
        assert!(began.elapsed() < within, "the source takes no writes after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("the source takes writes after {:?}", began.elapsed());
}

/// The switch is over, undone, and rows go on.
async fn is_over(pair: &Pair, daemon: &Daemon) {
    let sql = "SELECT outcome FROM cdc.cutover WHERE name = $1 ORDER BY id DESC LIMIT 1";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome: Option<String> =
            connect(&pair.target_url).await.query_one(sql, &[&pair.name]).await.unwrap().get(0);
        if outcome.as_deref() == Some("undone") {
            break;
        }
        assert!(outcome.is_none() && Instant::now() < deadline, "{outcome:?}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(takes_writes(&pair.source_url).await);
    connect(&pair.source_url)
        .await
        .batch_execute("UPDATE parent SET name = name || '.' WHERE id = 3")
        .await
        .unwrap();
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.status_is("streaming", |status| status["verdict"] == "streaming").await;
}

/// The outcome of a command that could not undo everything.
async fn is_told(child: std::process::Child, step: &str, whys: &[&str]) {
    let (status, report) = tokio::task::spawn_blocking(|| ended(child)).await.unwrap();
    assert_eq!(
        (status, &report["outcome"], &report["failed_step"]),
        (1, &"undone".into(), &step.into()),
        "{report:#}"
    );
    let error = report["error"].as_str().unwrap();
    for why in whys {
        assert!(error.contains(why), "{error}");
    }
    assert!(report["writable"].as_str().unwrap().contains("/lost"), "{report:#}");
    assert!(report["undone_in_ms"].as_u64().unwrap() < 2_000, "{report:#}");
}

/// Begins a switch whose last changes don't come over, as the daemon hangs.
async fn drains(pair: &mut Pair, daemon: &Daemon) -> std::process::Child {
    pair.config = format!("[cutover]\nbefore = 'kill -STOP {}'\n", daemon.pid());
    let child = begin(pair, &["cutover", "--yes"]);
    is_at(pair, "drain").await;
    pair.config = String::new();
    child
}

/// Makes the decision take so long.
async fn decides_slowly(pair: &Pair, seconds: u32) {
    let sql = format!(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep({seconds}); RETURN NEW; END';
         CREATE TRIGGER slow BEFORE UPDATE ON cdc.cutover FOR EACH ROW
           WHEN (NEW.decided_at IS NOT NULL AND OLD.decided_at IS NULL) EXECUTE FUNCTION slow()"
    );
    connect(&pair.target_url).await.batch_execute(&sql).await.unwrap();
}

async fn is_deciding(pair: &Pair) {
    pair.target_is(
        "deciding",
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')",
        &[],
    )
    .await;
    assert!(!takes_writes(&pair.source_url).await);
}

async fn decides_as_ever(pair: &Pair) {
    connect(&pair.target_url).await.batch_execute("DROP FUNCTION slow() CASCADE").await.unwrap();
}

async fn stop(server: &mut Cluster) {
    server.stop(Stop::Immediate).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_takes_writes_again_whoever_is_lost_while_writes_rest() {
    let (mut old, mut new) = (source().start().await.unwrap(), target().start().await.unwrap());
    let mut pair = Pair::on(&old, &new, "lost").await;
    pair.both(SCHEMA).await;
    pair.write(ROWS).await;
    let daemon = pair.streaming().await;
    assert_eq!(pair.run(&["verify"]).status.code(), Some(0));

    // The target, while the last changes are waited for.
    let child = drains(&mut pair, &daemon).await;
    stop(&mut new).await;
    is_writable(&pair, SOON).await;
    is_told(
        child,
        "drain",
        &["the connection was lost", "a daemon undoes what is left as soon as that is possible"],
    )
    .await;
    new.start_again().await.unwrap();
    daemon.signal("CONT");
    is_over(&pair, &daemon).await;

    // The target, when it is being decided.
    decides_slowly(&pair, 60).await;
    let child = begin(&pair, &["cutover", "--yes"]);
    is_deciding(&pair).await;
    stop(&mut new).await;
    is_writable(&pair, SOON).await;
    is_told(child, "decide", &["the connection was lost"]).await;
    new.start_again().await.unwrap();
    decides_as_ever(&pair).await;
    is_over(&pair, &daemon).await;

    // The decision comes after it was given up, when nobody is there any more who knows that.
    decides_slowly(&pair, 3).await;
    let mut child = begin(&pair, &["cutover", "--yes"]);
    is_deciding(&pair).await;
    is_writable(&pair, SOON).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let sql = "SELECT decided_at IS NOT NULL FROM cdc.cutover ORDER BY id DESC LIMIT 1";
    pair.target_is("decided after all", sql, &[]).await;
    decides_as_ever(&pair).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        assert!(takes_writes(&pair.source_url).await, "both sides could be opened");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    is_over(&pair, &daemon).await;
    assert!(daemon.log().contains("was given up"), "{}", daemon.log());

    // The source: its fence is opened as soon as it is back.
    let child = drains(&mut pair, &daemon).await;
    stop(&mut old).await;
    old.start_again().await.unwrap();
    is_writable(&pair, SOON).await;
    let (status, report) = tokio::task::spawn_blocking(|| ended(child)).await.unwrap();
    assert_eq!(
        (status, &report["outcome"], &report["failed_step"]),
        (1, &"undone".into(), &"drain".into()),
        "{report:#}"
    );
    daemon.signal("CONT");
    is_over(&pair, &daemon).await;

    // What holds a lock on a table doesn't keep its fence from being opened.
    let child = drains(&mut pair, &daemon).await;
    let vacuum = connect(&pair.source_url).await;
    vacuum.batch_execute("BEGIN; LOCK TABLE parent IN SHARE UPDATE EXCLUSIVE MODE").await.unwrap();
    signal(&child, "INT");
    is_writable(&pair, SOON).await;
    vacuum.batch_execute("COMMIT").await.unwrap();
    is_told(child, "drain", &["interrupted, as asked"]).await;
    daemon.signal("CONT");
    is_over(&pair, &daemon).await;

    // Nor does the command itself, interrupted while it closes it.
    let slow = connect(&pair.source_url).await;
    slow.batch_execute("BEGIN; UPDATE parent SET name = 'slow' WHERE id = 7").await.unwrap();
    let child = begin(&pair, &["cutover", "--yes"]);
    is_at(&pair, "fence").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    signal(&child, "INT");
    slow.batch_execute("COMMIT").await.unwrap();
    is_writable(&pair, SOON).await;
    is_told(child, "fence", &["interrupted, as asked"]).await;
    is_over(&pair, &daemon).await;

    let (status, report) = switch(&pair, &["cutover", "--yes"]);
    assert_eq!((status, &report["outcome"]), (0, &"switched".into()), "{report:#}\n{}", daemon.log());
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_target_undoes_the_switch_and_is_told() {
    let (old, new) = (source().start().await.unwrap(), target().start().await.unwrap());
    let (data, space) = (new.data_dir(), new.data_dir().parent().unwrap().join("small"));
    let Some(_disk) = Disk::mount(&space, "4m", &data) else { return };
    let mut pair = Pair::on(&old, &new, "lost_room").await;
    pair.both(SCHEMA).await;
    pair.both("CREATE TABLE filling (id int PRIMARY KEY, v text)").await;
    let sql = format!("CREATE TABLESPACE small LOCATION '{}'", space.display());
    pair.target.batch_execute(&sql).await.unwrap();
    pair.target.batch_execute("ALTER TABLE filling SET TABLESPACE small").await.unwrap();
    pair.write(ROWS).await;
    let fills = "INSERT INTO filling SELECT i, repeat('x', 1000) FROM generate_series(1, 9000) i";
    pair.config = format!("[cutover]\nbefore = '''psql -q \"{}\" -c \"{fills}\"'''\n", pair.source_url);
    let daemon = pair.streaming().await;
    let child = begin(&pair, &["cutover", "--yes"]);
    is_told(child, "drain", &["nothing brings the last changes over", "No space left on device"]).await;
    assert!(takes_writes(&pair.source_url).await);
    assert!(daemon.terminate().await.success());
}
