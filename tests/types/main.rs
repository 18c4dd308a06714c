//! Every value is exact (rule C6): through the copy and through the stream, and through a kill -9 in the
//! middle of each, whatever the databases' and the roles' own settings are.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stdout, reason = "all of it is a test")]

mod columns;
mod hostile;
mod keys;
mod situation;
mod target;
mod text;
mod values;

#[path = "../support/mod.rs"]
mod support;

use situation::Situation;
use support::pair::{self, Daemon, Pair, as_admin, as_owner, as_superuser, connect, number};
use tokio_postgres::Client;

/// Extensions with types.
const EXTENSIONS: &[&str] =
    &["citext", "cube", "earthdistance", "hstore", "intarray", "isn", "lo", "ltree", "seg", "vector"];

/// As many readers as tables that are held up; and no TRUNCATE at the start, which would be, too.
const CONFIG: &str = "[tables]\nexisting_rows = \"refuse\"\n[copy]\nreaders = 2\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_value_arrives_exactly() {
    let mut pair = Pair::new("types").await;
    if as_owner() {
        // One of the tables keeps its rows from its owner.
        as_admin(&pair.source, "ALTER ROLE types_owner BYPASSRLS").await;
    }
    extensions(&pair).await;
    let situations = all(&pair).await;
    every_value_arrives(&mut pair, &situations).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_arrives_exactly_through_hostile_settings_at_an_ordinary_owner() {
    if !as_superuser() {
        return;
    }
    let mut pair = Pair::new("hostile").await;
    extensions(&pair).await;
    hostile::owner(&mut pair).await;
    let situations = all(&pair).await;
    hostile::settings(&pair).await;
    every_value_arrives(&mut pair, &situations).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_character_arrives_from_other_encodings_and_collations() {
    for (name, encoding, characters) in text::ENCODINGS {
        let mut pair = text::pair(name, encoding).await;
        let xml = if values::is_known(&pair, "xml", "''").await { "xml" } else { "text" };
        let situations = text::all(encoding, characters, xml);
        every_value_arrives(&mut pair, &situations).await;
    }
}

/// The extensions that both servers have, in a schema that no search path of the daemon has.
async fn extensions(pair: &Pair) {
    let mut left_out = Vec::new();
    pair.both("CREATE SCHEMA extra").await;
    for extension in EXTENSIONS {
        let sql = format!("CREATE EXTENSION {extension} SCHEMA extra");
        let available = "SELECT count(*) FROM pg_available_extensions WHERE name = ";
        let available = format!("{available}'{extension}'");
        if number(&pair.source, &available).await + number(&pair.target, &available).await == 2 {
            as_admin(&pair.source, &sql).await;
            as_admin(&pair.target, &sql).await;
        } else {
            left_out.push(*extension);
        }
    }
    println!("{}: extensions left out: {left_out:?}", pair.name);
    if values::is_debian_15(pair).await {
        assert_eq!(left_out, ["vector"]);
    }
    pair.both("SET search_path = public, extra").await;
}

async fn all(pair: &Pair) -> Vec<Situation> {
    let mut situations = vec![
        values::every_type(pair).await,
        keys::keys(),
        keys::index_identities(),
        keys::duplicates(),
        keys::chains(),
        keys::toast(),
        keys::toasted_keys(),
        columns::names(),
        columns::generated(),
        columns::identities(),
        columns::order(),
        columns::other_types(),
        columns::counts(),
        target::triggers_and_rules(),
        target::row_security(),
        target::inheritance(),
    ];
    if values::is_known(pair, "citext", "'a'").await && values::is_known(pair, "ltree", "'a'").await {
        situations.push(keys::keys_of_extensions());
    }
    if values::is_known(pair, "text COLLATE public.ci", "'a'").await {
        situations.push(keys::collations());
    }
    if pair::source_major().await < 18 {
        situations.push(columns::generated_in_full());
    }
    situations
}

/// A table that the test can hold up everything at, and one that tells how far the stream is.
const GATES: &str = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE gate_1 (id int PRIMARY KEY); CREATE TABLE gate_2 (id int PRIMARY KEY);
                     CREATE TABLE steps (step int PRIMARY KEY);";

/// The tables of `pg_class` that are the test's own.
const OURS: &str = "relkind = 'r' AND relpersistence = 'p' AND oid >= 16384";

/// Copies the rows, streams the changes, empties the tables in the stream and fills and changes them again
/// there; with a kill -9 in the middle of the copy and one in the middle of the stream.
async fn every_value_arrives(pair: &mut Pair, situations: &[Situation]) {
    pair.config = CONFIG.to_owned();
    pair.both(GATES).await;
    pair.write("INSERT INTO gate_1 VALUES (1), (2), (3); INSERT INTO gate_2 VALUES (1), (2), (3)").await;
    for situation in situations {
        pair.both(&situation.schema).await;
        pair.write(&situation.source_schema).await;
        pair.target.batch_execute(&situation.target_schema).await.unwrap();
        pair.write(&situation.rows).await;
    }
    killed_in_the_copy(pair).await;
    if pair.name == "hostile" {
        hostile::swapped(pair).await;
    }
    let daemon = pair.streaming().await;
    pair.assert_equal().await;
    for situation in situations {
        pair.target.batch_execute(&situation.on_target).await.unwrap();
    }
    killed_in_the_stream(pair, daemon, situations).await;
    let daemon = pair.streaming().await;
    pair.caught_up().await;
    pair.assert_equal().await;
    for check in situations.iter().flat_map(|situation| &situation.checks) {
        let row = pair.target.query_one(check, &[]).await.unwrap();
        assert!(row.get::<_, bool>(0), "{check}");
    }
    empty(pair).await;
    for situation in situations {
        pair.write(&situation.rows).await;
        for change in &situation.changes {
            pair.write(change).await;
        }
    }
    assert_eq!(
        number(&pair.target, "SELECT count(*) FROM cdc.incident WHERE severity <> 'retrying'").await,
        0
    );
    pair.ends_equal(daemon).await;
}

/// Holds up both readers at the second of three rows, so that about half of the tables are copied, two are
/// being copied, and the others aren't; and kills the daemon there.
async fn killed_in_the_copy(pair: &Pair) {
    let gate = hold_up(pair, "INSERT INTO gate_1 VALUES (2); INSERT INTO gate_2 VALUES (2)").await;
    let daemon = pair.daemon();
    daemon.wait_for_log("streaming").await;
    held_up(pair, 2).await;
    let tables = number(&pair.source, &format!("SELECT count(*) FROM pg_class WHERE {OURS}")).await;
    pair.target_is("planned", "SELECT count(*) = $1 FROM cdc.chunk", &[&tables]).await;
    // Nobody has ended the readers' sessions on the source, which have nothing to do meanwhile.
    let reading = "SELECT count(*) FROM pg_locks WHERE relation IN ('gate_1'::regclass, 'gate_2'::regclass)";
    assert_eq!(number(&pair.source, reading).await, 2);
    daemon.kill();
    let chunks = "SELECT count(*) FROM cdc.chunk WHERE state =";
    let done = number(&pair.target, &format!("{chunks} 'done'")).await;
    let pending = number(&pair.target, &format!("{chunks} 'pending'")).await;
    println!("{}: killed with {done} chunks done and {pending} pending", pair.name);
    assert!(done > 0 && pending > 2, "{done} chunks done, {pending} pending");
    gate.batch_execute("ROLLBACK").await.unwrap();
}

/// Holds up the applier between two changes of one transaction, with some transactions applied and others
/// not, and kills the daemon there.
async fn killed_in_the_stream(pair: &Pair, daemon: Daemon, situations: &[Situation]) {
    let gate = hold_up(pair, "INSERT INTO gate_1 VALUES (5)").await;
    for (step, situation) in situations.iter().enumerate() {
        let (first, rest) = situation.changes.split_at(situation.changes.len() / 2);
        for change in first {
            pair.write(change).await;
        }
        pair.write(&format!("INSERT INTO steps VALUES ({step})")).await;
        if step == 0 {
            pair.caught_up().await;
            pair.write("BEGIN; INSERT INTO gate_1 VALUES (4); INSERT INTO gate_1 VALUES (5); COMMIT").await;
        }
        for change in rest {
            pair.write(change).await;
        }
    }
    held_up(pair, 1).await;
    daemon.kill();
    let steps = "SELECT count(*) FROM steps";
    assert_eq!(number(&pair.target, steps).await, 1, "of {} steps", situations.len());
    gate.batch_execute("ROLLBACK").await.unwrap();
}

/// A transaction on the target that writes rows which the daemon will come to.
async fn hold_up(pair: &Pair, sql: &str) -> Client {
    let gate = connect(&pair.target_url).await;
    // The database's own settings are for the daemon.
    let begin = "SET idle_in_transaction_session_timeout = 0; SET search_path = public; BEGIN READ WRITE";
    gate.batch_execute(&format!("{begin}; {sql}")).await.unwrap();
    gate
}

/// Waits until so many of the daemon's sessions have waited for that transaction for half a second.
async fn held_up(pair: &Pair, sessions: i64) {
    pair.target_is(
        "held up",
        "SELECT count(*) = $1 FROM pg_locks JOIN pg_stat_activity USING (pid)
          WHERE NOT granted AND locktype = 'transactionid' AND datname = current_database()
            AND waitstart < clock_timestamp() - interval '500 ms'",
        &[&sessions],
    )
    .await;
}

/// Deletes every row of every table on the source, one by one as the stream sees it, and lets sequences begin
/// again.
async fn empty(pair: &Pair) {
    let sql = format!(
        "SELECT string_agg(format('DELETE FROM ONLY %s', oid::regclass), ';') FROM pg_class
          WHERE {OURS} AND relname NOT IN ('gate_1', 'gate_2', 'steps')"
    );
    let row = pair.source.query_one(&sql, &[]).await.unwrap();
    let deletes: &str = row.get(0);
    let sql = format!("SET session_replication_role = replica; {deletes}; RESET session_replication_role");
    as_admin(&pair.source, &sql).await;
    pair.source.query("SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S'", &[]).await.unwrap();
}
