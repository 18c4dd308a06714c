//! What `cdc run` refuses, how it says so, and that a refusal touches nothing.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cdc::demo::{Cluster, Stop};
use support::pair::{self, Pair, connect, is_since, number};
use support::pooler::Pooler;

/// Refuses with 2 at the first start, and nothing was made on either side.
async fn refuses_untouched(pair: &Pair, said: &[&str]) -> String {
    let log = pair.refuses(2, said).await;
    assert!(log.contains("what to do: "), "{log}");
    assert_untouched(pair).await;
    log
}

async fn assert_untouched(pair: &Pair) {
    let slot = format!("cdc_{}", pair.name);
    let slots: i64 = number(
        &pair.source,
        &format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'"),
    )
    .await;
    assert_eq!(slots, 0, "a slot was made");
    assert_eq!(
        number(&pair.source, "SELECT count(*) FROM pg_publication").await,
        0,
        "a publication was made"
    );
    let schemas = number(&pair.target, "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc'").await;
    assert_eq!(schemas, 0, "a ledger was made");
}

/// The same URL for another role.
fn as_role(url: &str, role: &str) -> String {
    url.replace("postgres://postgres@", &format!("postgres://{role}@"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_without_a_replica_identity_are_named_with_the_statements_that_mend_them() {
    let pair = Pair::new("no_identity").await;
    pair.both(
        "CREATE TABLE good (id int PRIMARY KEY);
         CREATE TABLE \"Heap\" (id int);
         CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE);
         CREATE TABLE nothing (id int PRIMARY KEY);
         ALTER TABLE nothing REPLICA IDENTITY NOTHING;
         CREATE TABLE parts (id int, part int) PARTITION BY LIST (part);
         CREATE TABLE parts_1 PARTITION OF parts (PRIMARY KEY (id, part)) FOR VALUES IN (1);
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
         CREATE TEMP TABLE session_only (id int);
         CREATE UNLOGGED TABLE unlogged (id int);",
    )
    .await;
    pair.write("INSERT INTO \"Heap\" VALUES (1); UPDATE \"Heap\" SET id = 2").await;
    let log = refuses_untouched(
        &pair,
        &[
            "no replica identity: public.Heap, public.deferred, public.nothing, public.parts_2. ",
            "insert_only",
            "exclude",
        ],
    )
    .await;
    pair.write("UPDATE \"Heap\" SET id = 3; TRUNCATE \"Heap\"").await;

    let statements: Vec<&str> =
        log.split("ALTER TABLE ").skip(1).map(|rest| rest.split_inclusive(';').next().unwrap()).collect();
    assert_eq!(statements.len(), 4, "{log}");
    for statement in statements {
        pair.write(&format!("ALTER TABLE {statement}")).await;
    }
    let daemon = pair.streaming().await;
    pair.write(
        "INSERT INTO \"Heap\" VALUES (1), (1); INSERT INTO deferred VALUES (1); INSERT INTO nothing VALUES (1);
         INSERT INTO parts VALUES (1, 1), (2, 2);
         UPDATE \"Heap\" SET id = 5; UPDATE deferred SET id = 5; UPDATE nothing SET id = 5; UPDATE parts SET id = 5",
    )
    .await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_be_left_out_or_be_insert_only_and_updates_of_that_are_an_incident() {
    let mut pair = Pair::new("insert_only").await;
    pair.both(
        "CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE audit (id int);
         CREATE TABLE events (id int, v text);
         CREATE TABLE parted (id int, part int) PARTITION BY LIST (part);
         CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);",
    )
    .await;
    pair.config =
        "[tables]\nexclude = [\"public.audit\"]\ninsert_only = [\"public.events\", \"public.parted\"]\n"
            .into();
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO events VALUES (1, 'a'), (2, 'b'); INSERT INTO parted VALUES (1, 1); INSERT INTO good VALUES (1)").await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.write("INSERT INTO audit VALUES (1)").await;
    assert_eq!(pair.status()["incidents"].as_array().unwrap().len(), 0);

    // A session of their own: until 14, what one has done is counted for certain only when it ends.
    let session = connect(&pair.source_url).await;
    session.batch_execute("UPDATE events SET v = 'c' WHERE id = 1; DELETE FROM parted").await.unwrap();
    drop(session);
    for table in ["public.events", "public.parted"] {
        let status = pair
            .status_is("warned of an update", |status| {
                status["incidents"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|i| i["severity"] == "warning" && i["table"] == table)
            })
            .await;
        assert_eq!(status["daemon"]["state"], "streaming");
        assert!(
            status["incidents"][0]["remedy"].as_str().unwrap().contains("REPLICA IDENTITY FULL"),
            "{status:#}"
        );
    }
    // One that disappears is no reason to stop.
    pair.write("DROP TABLE events").await;
    tokio::time::sleep(cdc::limits::HEALTH_INTERVAL + Duration::from_secs(1)).await;
    pair.write("INSERT INTO good VALUES (2)").await;
    pair.caught_up().await;
    assert_eq!(number(&pair.target, "SELECT count(*) FROM good").await, 2);
    assert_eq!(number(&pair.target, "SELECT count(*) FROM audit").await, 0);
    assert!(!daemon.log().contains("blocked"), "{}", daemon.log());
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_lacks_something_is_refused() {
    let mut pair = Pair::new("lacks").await;
    pair.write(
        "CREATE TABLE here (id int PRIMARY KEY); CREATE TABLE gone (id int PRIMARY KEY);
         CREATE TABLE less (id int PRIMARY KEY, \"Missing\" int); CREATE TABLE viewed (id int PRIMARY KEY)",
    )
    .await;
    pair.target
        .batch_execute(
            "CREATE TABLE here (id int PRIMARY KEY); CREATE TABLE less (id int PRIMARY KEY);
             CREATE VIEW viewed AS SELECT 1 AS id",
        )
        .await
        .unwrap();
    refuses_untouched(&pair, &["table public.gone", "column Missing of public.less", "public.viewed"]).await;

    pair.config = "[tables]\ninclude = [\"nothing.*\"]\n".into();
    refuses_untouched(&pair, &["no table of the source is selected", "include", "nothing.*"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_is_refused_before_anything_is_made() {
    let mut pair = Pair::new("roles").await;
    // Before, only a superuser may apply.
    if !is_since(15, &pair.target).await {
        return;
    }
    pair.both("CREATE TABLE t (id int PRIMARY KEY); GRANT ALL ON t TO PUBLIC").await;
    pair.write(
        "CREATE ROLE plain LOGIN; CREATE ROLE replicating LOGIN REPLICATION;
         CREATE ROLE owning LOGIN REPLICATION; ALTER TABLE t OWNER TO owning",
    )
    .await;
    let source = pair.source_url.clone();
    pair.daemon_source_url = as_role(&source, "plain");
    refuses_untouched(&pair, &["ALTER ROLE plain REPLICATION"]).await;
    pair.daemon_source_url = as_role(&source, "owning");
    refuses_untouched(&pair, &["permission denied for database roles", "GRANT CREATE ON DATABASE"]).await;
    pair.write("GRANT CREATE ON DATABASE roles TO replicating, owning").await;
    pair.daemon_source_url = as_role(&source, "replicating");
    refuses_untouched(&pair, &["must be owner of table t", "exclude"]).await;
    pair.daemon_source_url = as_role(&source, "owning");

    pair.target.batch_execute("CREATE ROLE target_plain LOGIN").await.unwrap();
    let target = pair.target_url.clone();
    pair.daemon_target_url = as_role(&target, "target_plain");
    refuses_untouched(&pair, &["GRANT CREATE ON DATABASE"]).await;
    pair.target.batch_execute("GRANT CREATE ON DATABASE roles TO target_plain").await.unwrap();
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (1)").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_slot_is_left_alone() {
    let pair = Pair::new("foreign_slot").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.write("SELECT pg_create_logical_replication_slot('cdc_foreign_slot', 'pgoutput')").await;
    pair.refuses(
        2,
        &["cdc_foreign_slot", "what to do: ", "pg_drop_replication_slot('cdc_foreign_slot')", "another name"],
    )
    .await;
    assert_eq!(
        number(
            &pair.source,
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc_foreign_slot'"
        )
        .await,
        1
    );
    pair.write("SELECT pg_drop_replication_slot('cdc_foreign_slot')").await;
    assert_untouched(&pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_made_by_hand_is_used_as_it_is() {
    let pair = Pair::new("by_hand").await;
    pair.both("CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY)").await;
    let filters = is_since(15, &pair.source).await;
    let filter = if filters { "WHERE (id > 10)" } else { "" };
    pair.write(&format!("CREATE PUBLICATION cdc_by_hand FOR TABLE a {filter}")).await;
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO a VALUES (10, 1), (11, 1); INSERT INTO b VALUES (1)").await;
    pair.caught_up().await;
    let rows = pair.target.query("SELECT id FROM a UNION ALL SELECT -id FROM b", &[]).await.unwrap();
    let rows: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(rows, if filters { vec![11] } else { vec![10, 11] });
    let status = pair.status();
    assert_eq!(status["incidents"][0]["table"], "public.b", "{status:#}");
    assert_eq!(status["incidents"][0]["severity"], "warning", "{status:#}");
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_wal_level_logical_is_refused() {
    let cluster = pair::source().setting("wal_level", "replica").start().await.unwrap();
    let target = Pair::new("wal_level").await;
    let admin = connect(&cluster.url("postgres")).await;
    admin.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let mut pair = target;
    pair.daemon_source_url = cluster.url("postgres");
    pair.source = admin;
    refuses_untouched(&pair, &["wal_level is replica", "ALTER SYSTEM SET wal_level = logical", "restart"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_and_walsenders_that_are_all_used_are_told() {
    let small = pair::source()
        .setting("max_replication_slots", "2")
        .setting("max_wal_senders", "1")
        .start()
        .await
        .unwrap();
    let target = pair::target().start().await.unwrap();
    let first = Pair::on(&small, &target, "first").await;
    let second = Pair::on(&small, &target, "second").await;
    let third = Pair::on(&small, &target, "third").await;
    for pair in [&first, &second, &third] {
        pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    }
    let running = first.streaming().await;
    // Walsenders come free by themselves, so this is no refusal.
    let waiting = second.daemon();
    waiting.wait_for_log("raise max_wal_senders").await;
    assert_untouched(&second).await;
    first.ends_equal(running).await;
    waiting.wait_for_log("the replication slot is there").await;
    second.write("INSERT INTO t VALUES (1)").await;
    second.ends_equal(waiting).await;
    // Slots don't.
    refuses_untouched(
        &third,
        &["all 2 replication slots", "SQLSTATE 53400", "pg_drop_replication_slot", "max_replication_slots"],
    )
    .await;
}

/// Makes the cluster `standby` a hot standby of `primary`.
async fn make_standby(primary: &Cluster, standby: &mut Cluster) {
    let data = standby.data_dir();
    let owned_by = data.parent().expect("it has one").to_owned();
    let kept: Vec<_> = ["postgresql.conf", "pg_hba.conf"]
        .map(|file| (file, std::fs::read(data.join(file)).expect("it can be read")))
        .into();
    standby.stop(Stop::Fast).await.expect("it stops");
    std::fs::remove_dir_all(&data).expect("it can be removed");
    let connection = format!("host=127.0.0.1 port={} user=postgres", primary.port());
    succeeds(
        Command::new(primary.binaries().program("pg_basebackup"))
            .args(["-d", &connection, "--checkpoint=fast", "--write-recovery-conf", "-D"])
            .arg(&data),
    );
    for (file, content) in kept {
        std::fs::write(data.join(file), content).expect("it is written");
    }
    succeeds(Command::new("chown").arg("-R").arg(format!("--reference={}", owned_by.display())).arg(&data));
    standby.start_again().await.expect("it starts");
}

fn succeeds(command: &mut Command) {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_standby_is_refused_and_so_is_its_timeline_once_it_is_promoted() {
    let primary = pair::source().start().await.unwrap();
    let mut standby = pair::source().start().await.unwrap();
    let target = pair::target().start().await.unwrap();
    let mut pair = Pair::on(&primary, &target, "failover").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    make_standby(&primary, &mut standby).await;

    pair.daemon_source_url = standby.url("failover");
    refuses_untouched(&pair, &["hot standby", "connect to the primary"]).await;
    pair.daemon_source_url = primary.url("failover");
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (1)").await;
    pair.ends_equal(daemon).await;

    let promoted = connect(&standby.url("postgres")).await;
    assert!(promoted.query_one("SELECT pg_promote()", &[]).await.unwrap().get::<_, bool>(0));
    pair.daemon_source_url = standby.url("failover");
    pair.refuses(2, &["another timeline", "made for 1, this is 2", "cdc repair --all"]).await;
    // Whatever either of them has lost or kept, the target is what the new primary is then.
    let ask = "INSERT INTO cdc.repair (name, reason, os_user, host) VALUES ('failover', 'r', 'me', 'here')";
    pair.target.batch_execute(ask).await.unwrap();
    pair.target.batch_execute("DELETE FROM t; INSERT INTO t VALUES (2), (3)").await.unwrap();
    pair.source = connect(&standby.url("failover")).await;
    pair.source_url = standby.url("failover");
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (3)").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_databases_and_hosts_come_with_advice() {
    let hba = ["host all all 127.0.0.1/32 scram-sha-256"];
    let locked = pair::source().hba(hba).start().await.unwrap();
    let mut pair = Pair::new("login").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    let socket = format!(
        "host={} port={} user=postgres dbname=postgres",
        locked.socket_dir().display(),
        locked.port()
    );
    connect(&socket)
        .await
        .batch_execute("CREATE ROLE locked LOGIN SUPERUSER PASSWORD 'right'")
        .await
        .unwrap();
    let at = format!("127.0.0.1:{}", locked.port());

    pair.daemon_source_url = format!("postgres://locked:wr0ng-s3cret@{at}/postgres");
    let log = refuses_untouched(&pair, &["source: ", "28P01", "percent-encoded"]).await;
    assert!(!log.contains("s3cret"), "{log}");
    pair.daemon_source_url = format!("postgres://locked@{at}/postgres");
    refuses_untouched(&pair, &["the server asks for a password, and none was given", "passfile"]).await;
    pair.daemon_source_url = format!("postgres://locked:right@{at}/nosuch");
    refuses_untouched(&pair, &["source: ", "3D000", "nosuch"]).await;
    pair.daemon_source_url = pair.source_url.clone();
    pair.daemon_target_url = format!("postgres://locked:right@{at}/nosuch");
    refuses_untouched(&pair, &["target: ", "3D000"]).await;

    pair.daemon_target_url = format!("{}?sslmode=require", pair.target_url);
    refuses_untouched(&pair, &["target: ", "has no TLS", "ssl = on"]).await;

    // A host that isn't there may come: it is tried for ever, and the log says what to look at.
    for (url, said) in [
        ("postgres://locked@127.0.0.1:1/postgres", ["can't connect to", "nothing listens there"]),
        ("postgres://locked@nosuch.invalid/postgres", ["can't find the address", "check the host name"]),
    ] {
        pair.daemon_target_url = url.to_owned();
        let daemon = pair.daemon();
        daemon.wait_for_log(said[0]).await;
        daemon.wait_for_log(said[1]).await;
        daemon.wait_for_log("trying again").await;
        assert!(daemon.terminate().await.success());
        let (code, text) = pair.status_text(&["--incidents"]);
        assert_eq!(code, 3, "{text}");
        assert!(text.contains(said[0]) && text.contains(said[1]), "{text}");
    }
    pair.daemon_target_url = pair.target_url.clone();
    assert_untouched(&pair).await;
}

#[test]
fn wrong_usage_and_configuration_are_64() {
    let directory = tempfile::tempdir().unwrap();
    let good = "source = \"postgres://u:s3cret@127.0.0.1:1/d\"\ntarget = \"postgres://u@127.0.0.1:1/d\"\n";
    let file = directory.path().join("cdc.toml");
    let cdc = |config: &str, arguments: &[&str]| {
        std::fs::write(&file, config).unwrap();
        run_in(directory.path(), arguments)
    };
    for (config, arguments, said) in [
        ("", vec!["run"], "no source database is given"),
        ("source = \"postgres://u:s3cret@h/d\"", vec!["status"], "CDC_TARGET_URL"),
        ("source = s3cret", vec!["run"], "line 1"),
        (&*format!("{good}nonsense = \"s3cret\""), vec!["run"], "nonsense"),
        (&*format!("{good}[tables]\ninclude = [\"nodot\"]"), vec!["run"], "include"),
        (&*format!("name = \"Not/a name\"\n{good}"), vec!["run"], "lower-case letters"),
        (good, vec!["run", "--source", "postgres://u:s3cret@h/d"], "--source contains a password"),
        (good, vec!["status", "--target", "host=h password=s3cret"], "--target contains a password"),
        (good, vec!["run", "--unknown"], "--unknown"),
        (good, vec!["nonsense"], "nonsense"),
        (good, vec!["status", "--max-lag-bytes", "many"], "--max-lag-bytes"),
        (good, vec!["run", "--config", "nosuch.toml"], "nosuch.toml"),
    ] {
        let output = cdc(config, &arguments);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
        assert!(
            !text.contains("s3cret")
                || arguments.iter().any(|a| a.contains("s3cret")) && !text.contains("u:s3cret"),
            "{text}"
        );
    }
    let output = cdc(good, &["status"]);
    assert_eq!(output.status.code(), Some(3));
}

fn run_in(directory: &Path, arguments: &[&str]) -> std::process::Output {
    // One that would run is ended: that is no refusal.
    Command::new("timeout")
        .args(["10", env!("CARGO_BIN_EXE_cdc")])
        .current_dir(directory)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .args(arguments)
        .output()
        .expect("cdc runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_behind_a_transaction_pooler_is_refused_and_its_sessions_are_left_as_they_were() {
    let mut pair = Pair::new("pooled_target").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    let server_port = pair.target_url.rsplit_once(':').unwrap().1.split_once('/').unwrap().0;
    let pooler = Pooler::start(server_port.parse().unwrap(), "transaction").await;
    pair.daemon_target_url = pooler.url(&pair.name);
    refuses_untouched(&pair, &["target: a pooler in transaction mode", "direct connection"]).await;
    // Nor is a pooler taken for the source.
    let port = pair.source_url.rsplit_once(':').unwrap().1.split_once('/').unwrap().0;
    let before_source = Pooler::start(port.parse().unwrap(), "session").await;
    let pooled_target = std::mem::replace(&mut pair.daemon_target_url, pair.target_url.clone());
    pair.daemon_source_url = before_source.url(&pair.name);
    refuses_untouched(&pair, &["source: ", "this is a connection pooler, which can't replicate"]).await;
    pair.daemon_target_url = pooled_target;
    let locks = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                  WHERE locktype = 'advisory' AND datname = current_database()";
    assert_eq!(number(&pair.target, locks).await, 0);
    // Another client gets the very backend that the daemon had.
    let (client, connection) =
        tokio_postgres::connect(&pair.daemon_target_url, tokio_postgres::NoTls).await.unwrap();
    let _connection = tokio::spawn(connection);
    let row =
        client.simple_query("SELECT current_setting('search_path'), current_setting('datestyle')").await;
    let row = row.unwrap().into_iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.unwrap();
    assert_eq!((row.get(0), row.get(1)), (Some("\"$user\", public"), Some("ISO, MDY")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_its_own_target_is_refused_and_keeps_its_rows() {
    let mut pair = Pair::new("itself").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    pair.daemon_target_url = pair.source_url.replace("127.0.0.1", "localhost");
    refuses_untouched(&pair, &["source and target are the same database", "CDC_TARGET_URL"]).await;
    assert_eq!(number(&pair.source, "SELECT count(*) FROM t").await, 1);
    pair.daemon_target_url = pair.target_url.clone();
    let daemon = pair.streaming().await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_into_the_same_tables_are_refused_and_into_others_they_are_not() {
    let mut pair = Pair::new("one").await;
    pair.both(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO a VALUES (1)",
    )
    .await;
    pair.config = "[tables]\nexclude = [\"public.b\"]\n".to_owned();
    let one = pair.streaming().await;
    pair.name = "two".to_owned();
    pair.config = String::new();
    let said =
        ["the migration \"one\" replicates into this table already", "table public.a", "name = \"one\""];
    pair.refuses(2, &said).await;
    assert_eq!(number(&pair.target, "SELECT count(*) FROM a").await, 1);
    pair.config = "[tables]\nexclude = [\"public.a\"]\n".to_owned();
    let two = pair.streaming().await;
    pair.write("INSERT INTO a VALUES (2); INSERT INTO b VALUES (2)").await;
    pair.caught_up().await;
    assert!(two.terminate().await.success());
    pair.name = "one".to_owned();
    pair.ends_equal(one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_a_hot_standby_is_refused() {
    let primary = pair::target().start().await.unwrap();
    let mut standby = pair::target().start().await.unwrap();
    let mut pair = Pair::new("to_standby").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.target = connect(&primary.url("postgres")).await;
    pair.target_url = primary.url("postgres");
    pair.target.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    make_standby(&primary, &mut standby).await;
    pair.daemon_target_url = standby.url("postgres");
    refuses_untouched(&pair, &["target: the target is a hot standby", "connect to the primary"]).await;
    pair.daemon_target_url = primary.url("postgres");
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t VALUES (1)").await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_cdc_that_is_no_ledger_of_this_version_is_left_alone() {
    let mut pair = Pair::new("foreign_ledger").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.target
        .batch_execute(
            "CREATE ROLE no_owner LOGIN;
             GRANT ALL ON t TO no_owner; GRANT CREATE ON DATABASE foreign_ledger TO no_owner",
        )
        .await
        .unwrap();
    let url = pair.target_url.clone();
    let (owner, other) = (url.clone(), as_role(&url, "no_owner"));
    for (schema, target, message, remedy) in [
        // Somebody else's.
        ("CREATE TABLE cdc.events (id int)", &other, "permission denied for schema cdc", "has to be renamed"),
        (
            "CREATE TABLE cdc.migration (id int)",
            &owner,
            "using the ledger (schema cdc): ",
            "has to be renamed",
        ),
        (
            "CREATE VIEW cdc.migration AS SELECT 1",
            &owner,
            "using the ledger (schema cdc): ",
            "has to be renamed",
        ),
        // As another version has made it.
        (
            "CREATE TABLE cdc.migration (name text); CREATE TABLE cdc.held_back ()",
            &owner,
            "using the ledger (schema cdc): ",
            "Run the version of cdc that made it",
        ),
    ] {
        pair.target.batch_execute(&format!("CREATE SCHEMA cdc; {schema}")).await.unwrap();
        pair.daemon_target_url = target.clone();
        pair.refuses(2, &[message, remedy]).await;
        pair.target.batch_execute("DROP SCHEMA cdc CASCADE").await.unwrap();
        assert_untouched(&pair).await;
    }
    pair.daemon_target_url = url;
    let daemon = pair.streaming().await;
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_somebody_else_uses_is_waited_for_and_told() {
    use cdc::connect::{ConnInfo, Environment};
    let pair = Pair::new("slot_used").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    assert!(pair.streaming().await.terminate().await.success());
    let info = ConnInfo::parse(&pair.source_url, &Environment::empty()).unwrap();
    let side = cdc::fault::Side::Source;
    let somebody = cdc::replication::Walsender::connect(&info, side, "somebody").await.unwrap();
    let publications = ["cdc_slot_used".to_owned()];
    let held = somebody.start_replication("cdc_slot_used", cdc::lsn::Lsn::ZERO, &publications).await.unwrap();
    pair.write("INSERT INTO t VALUES (1)").await;
    let daemon = pair.daemon();
    daemon.wait_for_log("the replication slot cdc_slot_used is in use by pid ").await;
    daemon.wait_for_log("(\"somebody\")").await;
    daemon.wait_for_log("SELECT pg_terminate_backend(").await;
    drop(held);
    daemon.wait_for_log(" streaming").await;
    pair.ends_equal(daemon).await;
}
