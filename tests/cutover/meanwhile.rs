//! What others do while a switch is under way, or was.

use std::process::{Child, Command};

use cdc::config::{Arguments, Config};
use cdc::connect::Environment;
use cdc::cutover::{self, Event, Options, Step, Way};
use cdc::shutdown::shutdown;
use serde_json::Value;

use super::command::{ROWS, SCHEMA, begin, ended, is_at, signal, switch, takes_writes, writable};
use crate::support::pair::{Daemon, Pair, connect, number};

/// Undone for this reason at this step, and the source takes writes, which are followed.
async fn is_undone(pair: &Pair, daemon: &Daemon, (status, report): (i32, Value), step: &str, why: &str) {
    let error = report["error"].as_str().unwrap_or_default();
    assert_eq!(
        (status, &report["outcome"], &report["failed_step"]),
        (1, &"undone".into(), &step.into()),
        "{report:#}\n{}",
        daemon.log()
    );
    assert!(error.contains(why), "{error}");
    assert!(report["undone_in_ms"].as_u64().unwrap() < 2_000, "{report:#}");
    assert!(takes_writes(&pair.source_url).await);
    pair.write("UPDATE parent SET name = name || '.' WHERE id = 3").await;
    pair.caught_up().await;
}

fn refused(outcome: &(i32, Value), why: &str) {
    let (status, report) = outcome;
    assert_eq!((*status, &report["outcome"]), (1, &"refused".into()), "{report:#}");
    let said = report.to_string();
    assert!(said.contains(why), "{report:#}");
}

fn findings<'a>(report: &'a Value, code: &str) -> Vec<&'a str> {
    let all = report["findings"].as_array().unwrap().iter();
    all.filter(|finding| finding["code"] == code).map(|finding| finding["what"].as_str().unwrap()).collect()
}

/// A hook that does this on the source.
fn on_source(pair: &Pair, sql: &str) -> String {
    format!("before = '''psql -q -v ON_ERROR_STOP=1 \"{}\" -c \"{sql}\"'''\n", pair.source_url)
}

async fn outcome(child: Child) -> (i32, Value) {
    tokio::task::spawn_blocking(|| ended(child)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_meanwhile_undoes_a_switch_or_waits() {
    let mut pair = Pair::new("meanwhile").await;
    pair.both(SCHEMA).await;
    pair.both(
        "CREATE TABLE outside (id int PRIMARY KEY); CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY)",
    )
    .await;
    let base = "[tables]\nexclude = [\"public.outside\"]\n[copy]\nmax_rate = \"10kB\"\n[cutover]\npatience = '300ms'\n";
    let set = |pair: &mut Pair, more: &str| pair.config = format!("{base}{more}");
    set(&mut pair, "");
    let (status, report) = switch(&pair, &["cutover", "--yes"]);
    assert_eq!((status, &report["outcome"]), (1, &"refused".into()), "{report:#}");
    let daemon = pair.streaming().await;
    pair.write(ROWS).await;
    pair.write(
        "INSERT INTO child (parent, v) SELECT 1, to_jsonb(repeat('x', 500)) FROM generate_series(1, 200)",
    )
    .await;
    pair.caught_up().await;

    // What doesn't come along is said.
    let (status, report) = switch(&pair, &["cutover", "--dry-run"]);
    assert_eq!((status, &report["outcome"]), (0, &"possible".into()), "{report:#}");
    let [what] = findings(&report, "not-fenced")[..] else { panic!("{report:#}") };
    assert!(what.ends_with("public.fleeting, public.outside"), "{what}");

    // A table that has come, a partition that has: their rows are not there yet.
    let partition = "CREATE TABLE part_3 PARTITION OF part FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')";
    pair.target.batch_execute(partition).await.unwrap();
    for ddl in [
        "CREATE TABLE newcomer (id int PRIMARY KEY); INSERT INTO newcomer VALUES (1)",
        &format!("{partition}; INSERT INTO part VALUES (1, '2027-02-01', 'late')"),
    ] {
        let hook = on_source(&pair, ddl);
        set(&mut pair, &hook);
        let outcome = switch(&pair, &["cutover", "--yes"]);
        is_undone(&pair, &daemon, outcome, "turn", "a table has come").await;
        let name = if ddl.contains("newcomer") { "newcomer" } else { "part_3" };
        let sql = "SELECT EXISTS (SELECT FROM cdc.copy WHERE table_name = $1)";
        pair.target_is("followed", sql, &[&name]).await;
        pair.copied().await;
    }

    // A transaction is prepared behind the check.
    let hook =
        on_source(&pair, "BEGIN; UPDATE parent SET name = 'p' WHERE id = 8; PREPARE TRANSACTION 'later'");
    set(&mut pair, &hook);
    let outcome_of = switch(&pair, &["cutover", "--yes"]);
    pair.write("ROLLBACK PREPARED 'later'").await;
    is_undone(&pair, &daemon, outcome_of, "fence", "a prepared transaction holds a lock on public.parent")
        .await;

    // Rows are to be copied again, which is asked for when all others are there.
    pair.target
        .batch_execute(
            "CREATE FUNCTION asks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO cdc.repair (name, relation, reason, os_user, host)
                 SELECT name, relation, 'x', 'x', 'x' FROM cdc.copy WHERE table_name = 'child'; RETURN NEW; END $$;
             CREATE TRIGGER asks BEFORE UPDATE ON cdc.cutover FOR EACH ROW
               WHEN (NEW.step = 'turn' AND OLD.step <> 'turn') EXECUTE FUNCTION asks()",
        )
        .await
        .unwrap();
    set(&mut pair, "");
    let outcome_of = switch(&pair, &["cutover", "--yes"]);
    pair.target.batch_execute("DROP FUNCTION asks() CASCADE").await.unwrap();
    is_undone(&pair, &daemon, outcome_of, "turn", "rows are being copied").await;
    pair.target_is("repaired", "SELECT NOT EXISTS (SELECT FROM cdc.repair WHERE finished_at IS NULL)", &[])
        .await;
    pair.copied().await;
    pair.assert_equal().await;

    others_keep_out(&mut pair, &daemon, base).await;
    assert!(daemon.terminate().await.success());
}

async fn others_keep_out(pair: &mut Pair, daemon: &Daemon, base: &str) {
    // A second one, and a drop, while the first one waits.
    pair.config = format!("{base}before = 'kill -STOP {}'\n", daemon.pid());
    let first = begin(pair, &["cutover", "--yes"]);
    is_at(pair, "drain").await;
    pair.config = base.to_owned();
    let output = pair.run(&["drop", "--yes", "--force"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    refused(&switch(pair, &["cutover", "--yes"]), "a switch is under way");
    signal(&first, "INT");
    let first = outcome(first).await;
    daemon.signal("CONT");
    is_undone(pair, daemon, first, "drain", "interrupted, as asked").await;

    // One that has looked before another one has switched: what it takes for the old side is the new one.
    let config = Config::from_text(
        &pair.config,
        None,
        &Arguments {
            name: Some(pair.name.clone()),
            source: Some(pair.daemon_source_url.clone()),
            target: Some(pair.daemon_target_url.clone()),
            ..Arguments::default()
        },
        &Environment::empty(),
    )
    .unwrap();
    let options = Options { way: Way::Cutover, dry_run: false, force: false, os_user: "late".to_owned() };
    let (_trigger, mut stop) = shutdown();
    let late = |event: &Event<'_>| {
        if matches!(event, Event::Done(done) if done.step == Step::Check) {
            let sequence = "CREATE SEQUENCE late; SELECT nextval('late'), nextval('late')";
            for url in [&pair.source_url, &pair.target_url] {
                let made = Command::new("psql").args(["-q", "-o", "/dev/null", url, "-c", sequence]).status();
                assert!(made.unwrap().success());
            }
            let more = Command::new("psql")
                .args(["-q", "-o", "/dev/null", &pair.source_url, "-c", "SELECT setval('late', 41)"])
                .status();
            assert!(more.unwrap().success());
            let (status, report) = switch(pair, &["cutover", "--yes"]);
            assert_eq!((status, &report["outcome"]), (0, &"switched".into()), "{report:#}");
        }
    };
    let report = cutover::switch(&config, &options, &late, &mut stop).await.unwrap();
    assert!(report.error.unwrap().contains("the switch is done already"));
    assert_eq!(writable(pair).await, (false, true));
    assert_eq!(number(&pair.target, "SELECT nextval('late')").await, 42);

    // And one that was killed before it could see that.
    pair.target
        .batch_execute(
            "INSERT INTO cdc.cutover (name, way, reverse, term, holder, lease_until, step, os_user, host)
             SELECT name, 'cutover', true, max(term) + 1, 'killed', now() - interval '1 second', 'check', 'x', 'x'
               FROM cdc.cutover GROUP BY name",
        )
        .await
        .unwrap();
    let sql = "SELECT (outcome = 'undone') IS TRUE FROM cdc.cutover ORDER BY id DESC LIMIT 1";
    pair.target_is("concluded", sql, &[]).await;
    assert_eq!(writable(pair).await, (false, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superusers_session_is_in_the_way_of_an_ordinary_owner() {
    let mut pair = Pair::of_owner("sessions").await;
    pair.both(SCHEMA).await;
    pair.write(ROWS).await;
    pair.config = "[cutover]\nreverse = false\npatience = '300ms'\n".to_owned();
    let daemon = pair.streaming().await;
    let slow = connect(&pair.source_url).await;
    slow.batch_execute("BEGIN; UPDATE parent SET name = 'slow' WHERE id = 7").await.unwrap();
    let outcome = switch(&pair, &["cutover", "--yes"]);
    slow.batch_execute("COMMIT").await.unwrap();
    is_undone(&pair, &daemon, outcome, "fence", "can't be ended by this role").await;
    assert!(daemon.terminate().await.success());
}
