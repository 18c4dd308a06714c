//! `cdc cutover` and `cdc rollback` with a daemon between two servers.

use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use cdc::demo::compare::compare;
use serde_json::Value;
use tokio_postgres::Client;

use crate::support::pair::{PASSWORD, PATIENCE, Pair, as_admin, assert_well_said, connect, number};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE parent (id int PRIMARY KEY, name text NOT NULL, changed int NOT NULL DEFAULT 0);
    CREATE TABLE child (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent int NOT NULL REFERENCES parent, v jsonb);
    CREATE TABLE ticket (id serial PRIMARY KEY, at timestamptz DEFAULT now());
    CREATE SEQUENCE invoice START 1000 INCREMENT 10;
    CREATE SEQUENCE down INCREMENT -1;
    CREATE TABLE part (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
    CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
    CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.changed := OLD.changed + 1; RETURN NEW; END';
    CREATE TRIGGER counts BEFORE UPDATE ON parent FOR EACH ROW EXECUTE FUNCTION count_up();
    CREATE TRIGGER always BEFORE UPDATE ON parent FOR EACH ROW WHEN (NEW.id < 0) EXECUTE FUNCTION count_up();
    ALTER TABLE parent ENABLE ALWAYS TRIGGER always;";

pub(crate) const ROWS: &str = "
    INSERT INTO parent SELECT i, 'parent ' || i FROM generate_series(1, 50) i;
    INSERT INTO child (parent, v) SELECT 1 + i % 50, jsonb_build_object('i', i) FROM generate_series(1, 200) i;
    INSERT INTO ticket SELECT FROM generate_series(1, 30);
    INSERT INTO part SELECT i, date '2026-01-01' + i, 'part ' || i FROM generate_series(0, 299) i;
    SELECT nextval('invoice'), nextval('invoice'), nextval('down')";

/// Runs it to its end: its exit status, and its report.
pub(crate) fn switch(pair: &Pair, arguments: &[&str]) -> (i32, Value) {
    reported(&pair.run(&[arguments, &["--json"]].concat()))
}

pub(crate) fn reported(output: &Output) -> (i32, Value) {
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap_or(-1), report)
}

/// Starts it.
pub(crate) fn begin(pair: &Pair, arguments: &[&str]) -> Child {
    let mut command = pair.command();
    command.args(arguments).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

pub(crate) fn signal(child: &Child, name: &str) {
    let sent =
        std::process::Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

pub(crate) fn ended(child: Child) -> (i32, Value) {
    let output = child.wait_with_output().unwrap();
    assert_well_said(&String::from_utf8_lossy(&output.stderr));
    reported(&output)
}

/// Waits until the ledger says that the last switch is at this step.
pub(crate) async fn is_at(pair: &Pair, step: &str) {
    let sql = "SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('cdc.cutover'))";
    pair.target_is("of this version", sql, &[]).await;
    let sql = "SELECT coalesce((SELECT step = $2 AND outcome IS NULL FROM cdc.cutover WHERE name = $1 ORDER BY id DESC LIMIT 1), false)";
    pair.target_is(step, sql, &[&pair.name, &step]).await;
}

/// Whether this side takes a write.
pub(crate) async fn takes_writes(url: &str) -> bool {
    let client = connect(url).await;
    match client.batch_execute("BEGIN READ WRITE; UPDATE parent SET name = name WHERE id = 1; ROLLBACK").await
    {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.code().map(|code| code.code()), Some("25006"), "{error:?}");
            false
        }
    }
}

pub(crate) async fn writable(pair: &Pair) -> (bool, bool) {
    (takes_writes(&pair.source_url).await, takes_writes(&pair.target_url).await)
}

/// The applications' first statements: the sequences give fresh values, triggers fire, foreign keys hold.
async fn is_at_home(client: &Client, n: i32) {
    client
        .batch_execute(&format!(
            "INSERT INTO parent VALUES ({n}00, 'new');
             INSERT INTO child (parent, v) VALUES ({n}00, '{{}}'), (1, NULL);
             INSERT INTO ticket DEFAULT VALUES;
             INSERT INTO part VALUES ({n}, '2026-12-01', 'new')"
        ))
        .await
        .unwrap();
    let orphan = client.batch_execute("INSERT INTO child (parent) VALUES (-7)").await.unwrap_err();
    assert_eq!(orphan.code().unwrap().code(), "23503");
    let before = number(client, "SELECT changed::bigint FROM parent WHERE id = 2").await;
    client.batch_execute("UPDATE parent SET name = 'changed' WHERE id = 2").await.unwrap();
    assert_eq!(number(client, "SELECT changed::bigint FROM parent WHERE id = 2").await, before + 1);
    let triggers = "SELECT string_agg(tgname || tgenabled::text, ',' ORDER BY tgname) FROM pg_trigger
                     WHERE tgrelid = 'parent'::regclass AND NOT tgisinternal AND tgname NOT LIKE 'cdc%'";
    assert_eq!(client.query_one(triggers, &[]).await.unwrap().get::<_, String>(0), "alwaysA,countsO");
    let invalid = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated";
    assert_eq!(number(client, invalid).await, 0);
}

/// How long each step took, for whoever reads the test's output.
fn told(report: &Value) {
    let step = |step: &Value| {
        format!("{} {:.0}", step["step"].as_str().unwrap(), step["seconds"].as_f64().unwrap() * 1000.0)
    };
    let steps: Vec<String> = report["steps"].as_array().unwrap().iter().map(step).collect();
    eprintln!("writes rested {} ms; {}", report["pause_ms"], steps.join(", "));
}

fn steps(report: &Value) -> Vec<&str> {
    report["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect()
}

async fn without_a_way_back(pair: &mut Pair) {
    pair.both(SCHEMA).await;
    pair.write(ROWS).await;
    let seen = tempfile::tempdir().unwrap();
    let log = |hook: &str| {
        let path = seen.path().join("hooks").display().to_string();
        format!(
            "{hook} = 'echo $CDC_STEP $CDC_DIRECTION $CDC_NAME ${{CDC_PAUSE_MS:+paused}} >> {path}; env >> {path}.env'\n"
        )
    };
    pair.environment.push(("PGPASSWORD".to_owned(), PASSWORD.to_owned()));
    pair.config = format!(
        "[cutover]\nreverse = false\nsequence_margin = 3\n{}{}{}",
        log("before"),
        log("switch"),
        log("smoke")
    );
    let daemon = pair.streaming().await;

    // A look changes nothing.
    let (status, report) = switch(pair, &["cutover", "--dry-run"]);
    assert_eq!((status, &report["outcome"]), (0, &"possible".into()), "{report:#}");
    let estimate = &report["estimate"];
    // parent, child, ticket, part and its two; two sequences of columns, and two by themselves.
    assert_eq!((&estimate["tables"], &estimate["sequences"]), (&6.into(), &4.into()), "{report:#}");
    let of = |part: &str| estimate[part].as_u64().unwrap();
    let parts = ["fence_ms", "drain_ms", "compare_ms", "sequences_ms", "round_trips_ms"].map(of);
    let sum: u64 = parts.iter().sum();
    assert!((sum..sum + 5).contains(&of("pause_ms")) && of("drain_ms") < 5_000, "{report:#}");
    eprintln!("expected {} ms: {parts:?}", of("pause_ms"));
    let said = pair.run(&["cutover", "--dry-run"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("writes would rest for about ") && said.contains("fence of 6 tables"), "{said}");
    assert_eq!(number(&pair.source, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'cdc%'").await, 0);
    let (status, report) = switch(pair, &["rollback", "--yes"]);
    assert_eq!((status, &report["outcome"]), (1, &"refused".into()), "{report:#}");
    assert!(report["error"].as_str().unwrap().contains("nothing to roll back"));

    pair.write("INSERT INTO ticket DEFAULT VALUES; UPDATE part SET v = 'last' WHERE id = 5").await;
    let (status, report) = switch(pair, &["cutover", "--yes"]);
    assert_eq!((status, &report["outcome"]), (0, &"switched".into()), "{report:#}\n{}", daemon.log());
    assert_eq!(report["way_back"], false);
    told(&report);
    assert!(report["pause_ms"].as_u64().unwrap() < 5_000);
    assert_eq!(steps(&report).first(), Some(&"check"));
    assert_eq!(steps(&report).last(), Some(&"finish"));
    assert_eq!(writable(pair).await, (false, true));
    let hooks = std::fs::read_to_string(seen.path().join("hooks")).unwrap();
    let known = std::fs::read_to_string(seen.path().join("hooks.env")).unwrap();
    assert!(known.contains("CDC_NEW_SIDE=target") && !known.contains(PASSWORD), "{known}");
    let on = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'cdc%' AND tgenabled <> 'D'";
    assert_eq!(number(&pair.target, on).await, 0);
    let name = &pair.name;
    assert_eq!(
        hooks.lines().map(str::trim_end).collect::<Vec<_>>(),
        [
            format!("before cutover {name}"),
            format!("switch cutover {name} paused"),
            format!("smoke cutover {name} paused")
        ]
    );
    let comparison = compare(&pair.source_url, &pair.target_url).await.unwrap();
    assert!(comparison.is_equal(), "{comparison}");
    // Three beyond what the source would have given next.
    let next = "SELECT concat_ws(' ', nextval('invoice'), nextval('down'), nextval('ticket_id_seq'))";
    assert_eq!(pair.target.query_one(next, &[]).await.unwrap().get::<_, String>(0), "1050 -5 35");
    is_at_home(&pair.target, 1).await;
    assert!(daemon.ended().await.success());
    assert_eq!(
        number(&pair.source, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()")
            .await,
        0
    );
    let (_, report) = switch(pair, &["cutover", "--yes"]);
    assert!(report["error"].as_str().unwrap().contains("nothing is replicated any more"), "{report:#}");
    // The test itself is still there.
    let status = pair.status();
    assert_eq!(
        (&status["verdict"], &status["old_side"]["quiet_days"]),
        (&"done".into(), &Value::Null),
        "{status:#}"
    );
    assert!(!status["old_side"]["users"].as_array().unwrap().is_empty(), "{status:#}");
    let output = pair.run(&["drop", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is still connected to"));
    let output = pair.run(&["drop", "--yes", "--force"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    for client in [&pair.source, &pair.target] {
        let left = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc')
                         + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'cdc%')";
        assert_eq!(number(client, left).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_move_for_good() {
    without_a_way_back(&mut Pair::new("for_good").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_of_an_ordinary_owner_move_for_good() {
    without_a_way_back(&mut Pair::of_owner("for_good_owned").await).await;
}

async fn there_and_back(pair: &Pair) {
    pair.both(SCHEMA).await;
    pair.write(ROWS).await;
    let daemon = pair.streaming().await;
    for (n, (command, source_is_old)) in
        [("cutover", true), ("rollback", false), ("cutover", true)].into_iter().enumerate()
    {
        let (status, report) = switch(pair, &[command, "--yes"]);
        assert_eq!((status, &report["outcome"]), (0, &"switched".into()), "{report:#}\n{}", daemon.log());
        told(&report);
        assert_eq!(report["way_back"], true);
        assert_eq!(writable(pair).await, (!source_is_old, source_is_old));
        let (new, old) =
            if source_is_old { (&pair.target, &pair.source) } else { (&pair.source, &pair.target) };
        is_at_home(new, i32::try_from(n).unwrap() + 1).await;
        let wanted = number(new, "SELECT count(*) + (SELECT sum(changed) FROM parent) FROM child").await;
        let deadline = Instant::now() + PATIENCE;
        while number(old, "SELECT count(*) + (SELECT sum(changed) FROM parent) FROM child").await != wanted {
            assert!(Instant::now() < deadline, "it never arrived\n{:#}\n{}", pair.status(), daemon.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let comparison = compare(&pair.target_url, &pair.source_url).await.unwrap();
    assert!(comparison.is_equal(), "{comparison}");
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_move_there_and_back_and_there_again() {
    there_and_back(&Pair::new("forth").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_of_an_ordinary_owner_move_there_and_back() {
    let pair = Pair::of_owner("forth_owned").await;
    as_admin(&pair.target, "ALTER ROLE forth_owned_owner REPLICATION").await;
    there_and_back(&pair).await;
}
