//! Two databases as they should be, and what there is of a migration already.

use std::time::Instant;

use super::support::pair::{self, Pair, connect};
use super::{as_role, check, run, text};

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_owners_and_an_empty_target_are_enough() {
    let mut pair = Pair::new("check_owners").await;
    pair.config = "[schema]\n".to_owned();
    pair.source
        .batch_execute(
            "CREATE ROLE check_owner LOGIN REPLICATION; ALTER DATABASE check_owners OWNER TO check_owner",
        )
        .await
        .unwrap();
    pair.target
        .batch_execute("CREATE ROLE check_owner LOGIN; ALTER DATABASE check_owners OWNER TO check_owner")
        .await
        .unwrap();
    pair.daemon_source_url = as_role(&pair.source_url, "check_owner");
    pair.daemon_target_url = as_role(&pair.target_url, "check_owner");
    let owner = connect(&pair.daemon_source_url).await;
    owner
        .batch_execute(
            "CREATE SCHEMA crm; CREATE TABLE crm.t (id bigserial PRIMARY KEY, v text UNIQUE);
             CREATE EXTENSION citext; CREATE TABLE crm.u (id citext PRIMARY KEY, t bigint REFERENCES crm.t);
             ALTER TABLE crm.u ENABLE ROW LEVEL SECURITY; INSERT INTO crm.t (v) VALUES ('a')",
        )
        .await
        .unwrap();
    let checked = check(&pair);
    assert_eq!((checked.code, checked.all("blocks")), (0, vec![]), "{:#}", checked.report);
    // What other tests do on the same server is told, too, and that the servers are of different versions.
    let others = |warning: &String| {
        ["-slot ", "-transaction ", "older-target "].iter().any(|other| warning.contains(other))
    };
    let warns: Vec<String> = checked.all("warns").into_iter().filter(|warning| !others(warning)).collect();
    assert_eq!(warns, ["no-replica-role target check_owner", "no-way-back target -"]);
    checked.has("informs", "extension-to-make", "target", "citext", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_and_publications_of_our_name_are_told_unless_they_are_ours() {
    let pair = Pair::new("check_names").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)").await;
    pair.write("SELECT pg_create_logical_replication_slot('cdc_check_names', 'pgoutput')").await;
    pair.write("CREATE PUBLICATION cdc_check_names FOR TABLE t").await;
    let checked = check(&pair);
    assert_eq!(checked.code, 1);
    checked.has(
        "blocks",
        "slot-exists",
        "source",
        "cdc_check_names",
        &["pg_drop_replication_slot('cdc_check_names')"],
    );
    checked.has(
        "warns",
        "publication-exists",
        "source",
        "cdc_check_names",
        &["DROP PUBLICATION \"cdc_check_names\";"],
    );
    checked.has("warns", "not-followed", "source", "public.u", &["ADD TABLE"]);
    pair.write("SELECT pg_drop_replication_slot('cdc_check_names'); DROP PUBLICATION cdc_check_names").await;
    check(&pair).lacks("slot-exists");

    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (1)").await;
    pair.caught_up().await;
    let checked = check(&pair);
    assert_eq!((checked.code, checked.all("blocks")), (0, vec![]), "{:#}", checked.report);
    assert_eq!(checked.report["phase"], "stream");
    checked.has("informs", "under-way", "target", "-", &["its daemon is running"]);
    for code in ["slot-exists", "publication-exists", "existing-rows", "disk-space", "long-transaction"] {
        checked.lacks(code);
    }
    assert!(daemon.terminate().await.success());

    pair.write("ALTER PUBLICATION cdc_check_names SET (publish = 'insert')").await;
    let checked = check(&pair);
    checked.has(
        "blocks",
        "publication-changed",
        "source",
        "cdc_check_names",
        &["insert, update, delete, truncate"],
    );
    pair.write("DROP PUBLICATION cdc_check_names; SELECT pg_drop_replication_slot('cdc_check_names')").await;
    let checked = check(&pair);
    checked.has("blocks", "publication-gone", "source", "cdc_check_names", &["cdc repair --all"]);
    checked.has("blocks", "position-lost", "source", "-", &["the replication slot cdc_check_names is gone"]);
    pair.target.batch_execute("DELETE FROM cdc.checkpoint").await.unwrap();
    check(&pair).has(
        "blocks",
        "ledger",
        "target",
        "cdc",
        &["rows of this migration are missing in the ledger"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_the_slot_would_wait_for_are_told_with_what_ends_them() {
    // Servers of their own: every other test that makes a slot would wait for them, too.
    let source = pair::source().setting("max_prepared_transactions", "2").start().await.unwrap();
    let target = pair::target().start().await.unwrap();
    let pair = Pair::on(&source, &target, "check_waits").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    let open = connect(&pair.source_url).await;
    open.batch_execute("SET application_name = 'night job'; BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    pair.write("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'it''s'").await;
    let pid: i32 = open.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let old = "SELECT bool_and(age > 2) FROM (SELECT extract(epoch FROM clock_timestamp() - prepared) AS age FROM pg_prepared_xacts) AS x";
    while !pair.source.query_one(old, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let checked = check(&pair);
    assert_eq!(checked.code, 0);
    let terminate = format!("SELECT pg_terminate_backend({pid});");
    checked.has(
        "warns",
        "long-transaction",
        "source",
        &format!("pid {pid}"),
        &["postgres (night job)", "check_waits", &terminate],
    );
    checked.has(
        "warns",
        "prepared-transaction",
        "source",
        "it's",
        &["ROLLBACK PREPARED 'it''s';", "COMMIT PREPARED"],
    );
    pair.write("ROLLBACK PREPARED 'it''s'").await;
    open.batch_execute("COMMIT").await.unwrap();
    check(&pair).lacks("prepared-transaction");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_a_table_is_not_waited_for() {
    let pair = Pair::new("check_locked").await;
    pair.write("CREATE TABLE t (id int)").await;
    pair.write("BEGIN; LOCK TABLE t").await;
    let began = Instant::now();
    let text = text(&pair);
    assert!(began.elapsed().as_secs() < 20, "it took {:?}", began.elapsed());
    assert!(text.contains("source  public.t: no replica identity"), "{text}");
    assert!(
        text.contains("measuring the tables: canceling statement due to lock timeout (SQLSTATE 55P03)"),
        "{text}"
    );
    pair.write("ROLLBACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_read_only_or_the_source_itself_is_told() {
    let mut pair = Pair::new("check_read_only").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.target
        .batch_execute("ALTER DATABASE check_read_only SET default_transaction_read_only = on")
        .await
        .unwrap();
    let reset = "ALTER DATABASE \"check_read_only\" SET default_transaction_read_only = off;";
    check(&pair).has("warns", "read-only", "target", "-", &["read-only by default", reset]);
    pair.daemon_target_url = pair.source_url.clone();
    check(&pair).has(
        "blocks",
        "same-database",
        "target",
        "-",
        &["source and target are the same database", "CDC_TARGET_URL"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_end_that_can_not_be_reached_keeps_nobody_from_looking_at_the_other() {
    let mut pair = Pair::new("check_alone").await;
    pair.write("CREATE TABLE t (id int)").await;
    let (source, target) = (pair.source_url.clone(), pair.target_url.clone());
    let nowhere = "postgres://postgres@127.0.0.1:1/nowhere".to_owned();
    pair.daemon_target_url = nowhere.clone();
    let checked = check(&pair);
    assert_eq!((checked.code, &checked.report["outcome"]), (3, &"unreachable".into()));
    checked.has("blocks", "unreachable", "target", "-", &["Connection refused", "nothing listens there"]);
    checked.has("blocks", "no-replica-identity", "source", "public.t", &["FULL"]);
    assert!(checked.report["target"]["error"].as_str().unwrap().contains("Connection refused"));

    pair.daemon_source_url = nowhere;
    pair.daemon_target_url = as_role(&target, "nobody_here");
    let checked = check(&pair);
    assert_eq!(checked.code, 3);
    checked.has("blocks", "cannot-connect", "target", "-", &["nobody_here", "SQLSTATE 28000"]);
    // The other end was asked, and it isn't that it could not be reached.
    pair.daemon_source_url = source;
    let checked = check(&pair);
    assert_eq!((checked.code, &checked.report["outcome"]), (1, &"blocked".into()));
    assert_eq!(run(&pair, &["--jsonn"]).status.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tables_are_looked_at_in_seconds() {
    let pair = Pair::new("check_many").await;
    let make = |identity: &str| {
        format!(
            "DO $$ BEGIN FOR i IN 1..1000 LOOP
               EXECUTE format('CREATE TABLE t%s (id int {identity}, v text, UNIQUE (v))', i); END LOOP; END $$"
        )
    };
    pair.both(&make("")).await;
    let began = Instant::now();
    let checked = check(&pair);
    let took = began.elapsed();
    assert_eq!(checked.all("blocks").len(), 1000);
    assert!(took.as_secs() < 20, "it took {took:?}");
    eprintln!("1,000 tables: {took:?}");
    let text = text(&pair);
    assert!(text.contains("and 980 more that --json lists") && text.lines().count() < 100, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_are_told() {
    let of = |machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1");
    let found = ["x86_64", "aarch64"].map(of).into_iter().find(|path| std::path::Path::new(path).exists());
    let Some(library) = found else {
        eprintln!("not tested: libfaketime is not installed");
        return;
    };
    let mut pair = Pair::new("check_clock").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    check(&pair).lacks("clock-differs");
    for (name, value) in
        [("LD_PRELOAD", library.as_str()), ("FAKETIME", "+60s"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
    {
        pair.environment.push((name.to_owned(), value.to_owned()));
    }
    check(&pair).has("warns", "clock-differs", "both", "-", &["60 s behind", "timedatectl"]);
}
