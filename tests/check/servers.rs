//! Servers with little left, of other versions, and in other states than they should be.

use std::path::Path;

use cdc::connect::{ConnInfo, Environment};
use cdc::demo::{Binaries, Cluster, Stop};
use cdc::fault::Side;
use cdc::replication::Walsender;

use super::support::pair::{self, Pair, connect, is_since, number};
use super::support::supabase::project;
use super::{check, inventory};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_little_left_is_told_what_to_raise_and_nothing_is_touched() {
    let source = pair::source()
        .setting("max_replication_slots", "2")
        .setting("max_wal_senders", "2")
        .setting("max_connections", "20")
        .setting("wal_sender_timeout", "2s")
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("fsync", "off")
        .start()
        .await
        .unwrap();
    let target = pair::target()
        .setting("wal_level", "replica")
        .setting("max_replication_slots", "0")
        .setting("max_wal_senders", "0")
        .start()
        .await
        .unwrap();
    let mut pair = Pair::on(&source, &target, "little").await;
    pair.write(
        "SELECT pg_stat_reset_shared('wal');
         CREATE TABLE t (code text PRIMARY KEY, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
         INSERT INTO t SELECT i::text, repeat('x', 100000) FROM generate_series(1, 800) i;
         SELECT pg_create_physical_replication_slot('forgotten', true)",
    )
    .await;
    // A server started from a template has been counting since that was made.
    while number(&pair.source, "SELECT wal_bytes::bigint FROM pg_stat_wal").await < 50_000_000 {
        pair.write("SELECT pg_stat_clear_snapshot()").await;
    }
    let walsender = || async {
        let info = ConnInfo::parse(&pair.source_url, &Environment::empty()).unwrap();
        Walsender::connect(&info, Side::Source, "somebody else").await.unwrap()
    };
    let one = walsender().await;
    let before = (inventory(&pair.source).await, inventory(&pair.target).await);
    let checked = check(&pair);
    assert_eq!((inventory(&pair.source).await, inventory(&pair.target).await), before);
    for (severity, code, object, said) in [
        (
            "warns",
            "replication-slots",
            "-",
            ["one of 2 replication slots is left", "max_replication_slots = 7;"],
        ),
        ("warns", "walsenders", "-", ["one of 2 walsenders is left", "max_wal_senders = 7;"]),
        ("warns", "wal-sender-timeout", "-", ["2000 ms", "wal_sender_timeout = '60s'"]),
        ("warns", "inactive-slot", "forgotten", ["holds back", "pg_drop_replication_slot('forgotten');"]),
        ("warns", "fsync", "-", ["fsync is off", "fsync = on;"]),
        (
            "blocks",
            "wal-budget",
            "public.t",
            ["max_slot_wal_keep_size is 1.0 MiB", "max_slot_wal_keep_size = "],
        ),
    ] {
        checked.has(severity, code, "source", object, &said);
    }
    let no_way_back = ["wal_level is replica", "no replication slot is left", "no walsender is left"];
    checked.has("warns", "no-way-back", "target", "-", &no_way_back);

    pair.write("SELECT pg_create_physical_replication_slot('another')").await;
    let two = walsender().await;
    // Enough for the copy, but for no verification beside it.
    let mut crowd = Vec::new();
    for _ in 0..5 {
        crowd.push(connect(&pair.source_url).await);
    }
    let checked = check(&pair);
    checked.has("blocks", "replication-slots", "source", "-", &["all 2 replication slots are in use"]);
    checked.has("blocks", "walsenders", "source", "-", &["all 2 walsenders are in use"]);
    checked.has("warns", "connections", "source", "-", &["max_connections", "copy.readers"]);
    for _ in 0..7 {
        crowd.push(connect(&pair.source_url).await);
    }
    check(&pair).has("blocks", "connections", "source", "-", &["are left for the role postgres"]);
    drop((one, two, crowd));

    pair.write("ALTER SYSTEM SET wal_sender_timeout = 0").await;
    pair.write("ALTER SYSTEM SET max_slot_wal_keep_size = -1").await;
    pair.write("SELECT pg_reload_conf()").await;
    let checked = check(&pair);
    checked.has("informs", "wal-sender-timeout", "source", "-", &["switched off"]);
    checked.has("informs", "wal-budget", "source", "-", &["without a limit"]);

    // The other way round.
    pair.daemon_source_url = target.url("little");
    pair.daemon_target_url = source.url("little");
    check(&pair).has(
        "blocks",
        "wal-level",
        "source",
        "-",
        &["wal_level is replica", "ALTER SYSTEM SET wal_level = logical;"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_standby_is_told_on_either_side() {
    let mut standby = pair::source().start().await.unwrap();
    connect(&standby.url("postgres"))
        .await
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY)")
        .await
        .unwrap();
    standby.stop(Stop::Fast).await.unwrap();
    let signal = standby.data_dir().join("standby.signal");
    std::fs::write(&signal, "").unwrap();
    standby.start_again().await.unwrap();
    let mut pair = Pair::new("check_standby").await;
    pair.daemon_source_url = standby.url("postgres");
    check(&pair).has("blocks", "standby", "source", "-", &["hot standby", "connect to the primary"]);
    pair.daemon_source_url = pair.source_url.clone();
    pair.daemon_target_url = standby.url("postgres");
    let checked = check(&pair);
    checked.has("blocks", "standby", "target", "-", &["hot standby", "connect to the primary"]);
    checked.lacks("same-database");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_source_is_told_and_what_only_its_version_has() {
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers/vector-18/bin");
    assert!(bin.exists(), "there is no server in {}: run `make vector`", bin.display());
    let source = Cluster::builder("newer")
        .binaries(Binaries::at(bin).unwrap())
        .setting("idle_replication_slot_timeout", "1h")
        .start()
        .await
        .unwrap();
    let target = pair::target().start().await.unwrap();
    let mut pair = Pair::on(&source, &target, "newer").await;
    pair.config = "[schema]\n".to_owned();
    pair.environment = vec![("CDC_PG_DUMP".to_owned(), "/nonexistent/pg_dump".to_owned())];
    pair.write(
        "CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
         CREATE TABLE full_one (id int, twice int GENERATED ALWAYS AS (id * 2) STORED); ALTER TABLE full_one REPLICA IDENTITY FULL;
         CREATE EXTENSION vector; CREATE TABLE v (id int PRIMARY KEY, embedding vector(3));
         CREATE PUBLICATION cdc_newer FOR TABLE t, full_one, v WITH (publish_generated_columns = stored)",
    )
    .await;
    let checked = check(&pair);
    assert_eq!(checked.code, 1);
    if !is_since(18, &pair.target).await {
        checked.has("warns", "older-target", "target", "-", &["the source 18"]);
        checked.has("blocks", "extension-unavailable", "target", "vector", &["no such extension"]);
    }
    checked.has(
        "blocks",
        "pg-dump",
        "both",
        "-",
        &["there is no pg_dump in /nonexistent/pg_dump", "CDC_PG_DUMP"],
    );
    checked.has("warns", "idle-slot-timeout", "source", "-", &["idle_replication_slot_timeout is 1h"]);
    checked.has("blocks", "publication-generated", "source", "-", &["publish_generated_columns = none"]);
    checked.has("blocks", "no-replica-identity", "source", "public.full_one", &["without generated columns"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_at_supabase_is_looked_at_as_its_own_role() {
    let source = project().await;
    let target = pair::target().start().await.unwrap();
    let mut pair = Pair::on(&source, &target, "moving").await;
    pair.daemon_source_url = source.url("postgres");
    pair.config = "[schema]\n".to_owned();
    let checked = check(&pair);
    assert_eq!((checked.code, checked.all("blocks")), (0, vec![]), "{:#}", checked.report);
    checked.has("informs", "tables-to-make", "target", "-", &[]);
    checked.has("informs", "extension-to-make", "target", "citext", &[]);
    checked.has("warns", "stays-behind", "source", "auth.users", &["rows of auth.users: 7", "passwords"]);
    checked.has("warns", "stays-behind", "source", "storage.objects", &["the files of Supabase Storage"]);
    let refers =
        |object: &str, said: &[&str]| checked.has("warns", "provider-reference", "source", object, said);
    refers("public.profiles.profiles_id_fkey", &["refers to table auth.users", "then: cdc schema apply"]);
    refers("public.notes.\"own notes\"", &["function auth.uid()", "stand_ins = true"]);
    refers("public.notes.\"tell the shop\"", &["supabase_functions.http_request()", "a trigger of your own"]);
    refers("cleanup (0 3 * * *)", &["pg_cron", "a timer of the host"]);
    refers("public.notes", &["published to supabase_realtime", "LISTEN"]);
    refers("public.people", &["view refers to table auth.users"]);
    refers("public.ping()", &["names net.http_post", "change the function"]);
    // With stand-ins, what they stand in for is no reason to worry.
    pair.config = "[schema]\nstand_ins = true\n".to_owned();
    let checked = check(&pair);
    let own = &["refers to function auth.uid()"];
    checked.has("informs", "provider-reference", "source", "public.notes.\"own notes\"", own);
}
