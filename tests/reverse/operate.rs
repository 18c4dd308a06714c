//! The commands while the rows go back.

use cdc::config::Direction;
use serde_json::{Value, json};

use super::{arrived, cleared, copies, made, turn};
use crate::support::pair::{Pair, connect, constraints, number};

const TABLES: &str = "
    CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL);
    CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE);
    CREATE TABLE theirs (id int PRIMARY KEY);
    CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''a trigger has fired''; END';
    CREATE TRIGGER never BEFORE UPDATE ON child FOR EACH ROW EXECUTE FUNCTION never();
    ALTER TABLE child ENABLE ALWAYS TRIGGER never;";

/// `cdc` with these arguments: its exit status and its JSON.
fn run(pair: &Pair, arguments: &[&str]) -> (i32, Value) {
    let output = pair.run(arguments);
    let text = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
    let json =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"));
    (output.status.code().unwrap(), json)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_on_the_way_back_and_drop_leaves_nothing_on_either_side() {
    let mut pair = Pair::new("operated").await;
    pair.config = "[tables]\nexclude = [\"public.theirs\"]\nexisting_rows = \"refuse\"\n".to_owned();
    pair.both(TABLES).await;
    let before = constraints(&pair.source).await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 500) i; INSERT INTO child SELECT i, i FROM generate_series(1, 500) i").await;
    // What only the target has is nobody's business on the source.
    pair.target.batch_execute("CREATE TABLE only_here (id int PRIMARY KEY)").await.unwrap();
    turn(&pair).await;
    let target = connect(&pair.target_url).await;
    target.batch_execute("INSERT INTO only_here VALUES (1); DELETE FROM t WHERE id > 400; ALTER TABLE child DISABLE TRIGGER never").await.unwrap();
    target.batch_execute("UPDATE child SET id = -id WHERE id <= 10").await.unwrap();
    arrived(&pair, Direction::Reverse).await;

    // A trigger of the source that fires for a replica, too, is off there while rows come.
    let off = "SELECT count(*) FROM pg_trigger WHERE tgname = 'never' AND tgenabled = 'D'";
    assert_eq!(number(&pair.source, off).await, 1);
    let (code, verified) = run(&pair, &["verify", "--json"]);
    assert_eq!((code, &verified["outcome"]), (0, &json!("same")), "{verified:#}");

    let (code, checked) = run(&pair, &["check", "--json"]);
    assert_eq!((code, &checked["phase"]), (0, &json!("reverse")), "{checked:#}");
    // A row that has got lost on the source is brought back from the target.
    pair.source.batch_execute("SET session_replication_role = replica; DELETE FROM t WHERE id = 7; RESET session_replication_role").await.unwrap();
    let (code, _) = run(&pair, &["verify", "--json"]);
    assert_eq!(code, 1);
    let (code, repaired) = run(&pair, &["repair", "--yes", "--json"]);
    assert_eq!((code, &repaired["outcome"]), (0, &json!("repaired")), "{repaired:#}");
    assert_eq!(number(&pair.source, "SELECT count(*) FROM t WHERE id = 7").await, 1);

    // A new column and a new table are made on the source, as on the target before.
    target.batch_execute("ALTER TABLE t ADD COLUMN more int DEFAULT 3; UPDATE t SET more = id; CREATE TABLE new (id int PRIMARY KEY); INSERT INTO new VALUES (1), (2)").await.unwrap();
    let is_there = "SELECT coalesce((SELECT count(*) FROM cdc.copy WHERE table_name = 'new'), 0) + (SELECT count(*) FROM cdc.chunk WHERE state = 'pending') * 10";
    let source = connect(&pair.source_url).await;
    while number(&source, is_there).await != 1 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    arrived(&pair, Direction::Reverse).await;
    assert_eq!(number(&source, "SELECT sum(more) + (SELECT count(*) FROM new) FROM t").await, 80_202);

    // A transaction that can't be applied blocks, and is skipped.
    source
        .batch_execute("SET session_replication_role = replica; INSERT INTO t VALUES (1000, 'in the way')")
        .await
        .unwrap();
    target.batch_execute("INSERT INTO t VALUES (1000, 'v')").await.unwrap();
    let status = pair
        .status_is("blocked", |s| s["verdict"] == "blocked" && s["incidents"][0]["lsn"].is_string())
        .await;
    let lsn = status["incidents"][0]["lsn"].as_str().unwrap();
    let (code, skipped) = run(&pair, &["skip", lsn, "--yes", "--reason", "a test", "--json"]);
    assert_eq!((code, &skipped["outcome"]), (0, &json!("skipped")), "{skipped:#}");
    pair.status_is("streaming", |s| s["verdict"] == "streaming").await;

    // What was skipped is missing, and everything is copied once more, from a new slot on.
    let (code, repaired) = run(&pair, &["repair", "--all", "--yes", "--json"]);
    assert_eq!((code, &repaired["outcome"]), (0, &json!("repaired")), "{repaired:#}");
    let status = pair.status_is("streaming", |s| s["verdict"] == "streaming").await;
    assert_eq!(
        (&status["phase"], &status["slot"]["name"]),
        (&json!("reverse"), &json!("cdcback_operated")),
        "{status:#}"
    );
    assert!(daemon.terminate().await.success());
    let (code, text) = pair.status_text(&[]);
    assert!(code == 2 && text.contains("phase       reverse, reverse\n              from "), "{text}");
    let (code, dropped) = run(&pair, &["drop", "--yes", "--json"]);
    assert_eq!((code, &dropped["outcome"]), (0, &json!("dropped")), "{dropped:#}");
    let slot = json!({"name": "cdcback_operated", "state": "gone"});
    assert_eq!(dropped["way_back"]["source"]["slot"], slot, "{dropped:#}");
    assert_eq!(made(&pair).await, Vec::<String>::new());
    for side in [&source, &target] {
        assert_eq!(number(side, "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc'").await, 0);
    }
    assert_eq!(number(&pair.source, off).await, 0);
    let after = constraints(&pair.source).await;
    assert!(before.iter().all(|constraint| after.contains(constraint)), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_side_is_gone_the_other_tells_what_it_knows_and_can_be_cleaned() {
    let mut pair = Pair::new("alone").await;
    pair.both(TABLES).await;
    let daemon = pair.streaming().await;
    turn(&pair).await;
    connect(&pair.target_url).await.batch_execute("INSERT INTO t VALUES (1, 'v')").await.unwrap();
    arrived(&pair, Direction::Reverse).await;
    cleared(&pair).await;
    assert!(daemon.terminate().await.success());
    let nobody = "postgres://postgres@127.0.0.1:1/alone".to_owned();

    let target = std::mem::replace(&mut pair.daemon_target_url, nobody.clone());
    let status = pair.status();
    assert_eq!(
        (&status["direction"], &status["phase"]),
        (&json!("reverse"), &json!("reverse")),
        "{status:#}"
    );
    assert!(status["source_error"].is_string() && status["checkpoint"]["lsn"].is_string(), "{status:#}");

    pair.daemon_target_url = target;
    pair.daemon_source_url = nobody;
    assert_eq!(pair.status_text(&[]).0, 3);
    let output = pair.run(&["drop", "--yes"]);
    assert_eq!(output.status.code(), Some(3));
    let (code, dropped) = run(&pair, &["drop", "--yes", "--force", "--json"]);
    assert_eq!((code, &dropped["outcome"]), (1, &json!("incomplete")), "{dropped:#}");
    assert_eq!(dropped["way_back"]["source"]["slot"]["state"], "gone", "{dropped:#}");
    assert!(made(&pair).await.iter().all(|made| made.starts_with("source: ")), "{:?}", made(&pair).await);
    assert_eq!(copies(&connect(&pair.source_url).await).await, 0);
}
