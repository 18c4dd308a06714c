//! `pg_dump`: which one, how it gets to the source, and what it is not told.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::certificates::Authority;
use super::support::pair::{Pair, connect, number, source, target};
use super::{apply, assert_same, owned, source_dump};

/// A program in the way of the real one.
fn script(directory: &Path, text: &str) -> String {
    let path = directory.join(format!("pg_dump-{}", std::fs::read_dir(directory).unwrap().count()));
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_dump_gets_through_tls_and_scram_without_being_told_a_secret() {
    const SECRET: &str = "p@ss:w/o\\rd'# %";
    let (authority, directory) = (Authority::new("ours"), tempfile::tempdir().unwrap());
    let certificate = authority.sign("db", &["localhost"]);
    let root = directory.path().join("root.crt");
    std::fs::write(&root, &authority.certificate).unwrap();
    let hba = [
        "local all all trust",
        "hostssl all owner 127.0.0.1/32 scram-sha-256",
        "host all postgres 127.0.0.1/32 trust",
        "hostssl replication owner 127.0.0.1/32 scram-sha-256",
    ];
    let server = source().tls(&*certificate.certificate, &*certificate.key).hba(hba).start().await.unwrap();
    let other = target().start().await.unwrap();
    let mut pair = Pair::on(&server, &other, "secret").await;
    let role = format!(
        "CREATE ROLE owner LOGIN REPLICATION PASSWORD {}; ALTER DATABASE secret OWNER TO owner;
         CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO owner",
        cdc::catalog::quote_literal(SECRET)
    );
    pair.write(&role).await;
    pair.daemon_source_url = format!(
        "host=nowhere.invalid,localhost hostaddr=127.0.0.2,127.0.0.1 port=1,{} user=owner dbname=secret password='{}' \
         sslmode=verify-full sslrootcert={} channel_binding=require target_session_attrs=read-write",
        server.port(),
        SECRET.replace('\\', r"\\").replace('\'', r"\'"),
        root.display()
    );
    let record = directory.path().join("record");
    let real = source_dump().display().to_string();
    let spy = format!(
        "[ \"$1\" = --version ] || {{ env; echo \"$@\"; stat -c %a \"$PGHOST\"; ls -A \"$PGHOST\"; }} >{}\nexec {real} \"$@\"",
        record.display()
    );
    pair.config = "[schema]\n".to_owned();
    pair.environment = vec![
        ("CDC_PG_DUMP".to_owned(), script(directory.path(), &spy)),
        // What is meant for other programs of the user's.
        ("PGOPTIONS".to_owned(), "-c search_path=nowhere".to_owned()),
        ("PGPASSWORD".to_owned(), "wrong".to_owned()),
        ("PGSSLCERT".to_owned(), "/nonexistent".to_owned()),
    ];
    let (code, report) = apply(&pair, &[]);
    assert_eq!(code, 0, "{report:#}");
    assert_same(&pair);
    let told = std::fs::read_to_string(&record).unwrap();
    for never in [SECRET, "wrong", "nowhere", "PGPASS", "PGOPTIONS", "sslrootcert"] {
        assert!(!told.contains(never), "{told}");
    }
    // Nobody else gets to the socket, and there is nothing but the socket.
    assert!(told.ends_with("\n700\n.s.PGSQL.5432\n"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pg_dump_that_is_missing_too_old_or_broken_is_named_with_what_to_do() {
    let mut pair = owned("no_pg_dump").await;
    pair.write("CREATE TABLE t (id int PRIMARY KEY)").await;
    let directory = tempfile::tempdir().unwrap();
    let version = "[ \"$1\" = --version ] && { echo 'pg_dump (PostgreSQL) 99.1'; exit; }";
    for (program, said) in [
        (
            "/nonexistent/pg_dump".to_owned(),
            &["there is no pg_dump in /nonexistent/pg_dump", "CDC_PG_DUMP"][..],
        ),
        (
            script(directory.path(), "echo 'pg_dump (PostgreSQL) 13.1'"),
            &["is of version 13", "apt-get install postgresql-client-"],
        ),
        (
            script(directory.path(), &format!("{version}\necho broken >&2; exit 1")),
            &["reading the schema with pg_dump: broken"],
        ),
        (
            script(directory.path(), &format!("{version}\necho '-- SQL'")),
            &["can't be read: it is no archive"],
        ),
    ] {
        pair.environment = vec![("CDC_PG_DUMP".to_owned(), program)];
        let output = pair.run(&["schema", "apply"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        said.iter().for_each(|said| assert!(text.contains(said), "{said}: {text}"));
        pair.refuses(2, said).await;
        assert_eq!(number(&pair.target, "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc'").await, 0);
    }
    // Where nothing is missing it isn't needed.
    let target = connect(&pair.daemon_target_url).await;
    target.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    pair.ends_equal(pair.streaming().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_never_waits_long_for_a_lock_on_the_source() {
    let pair = owned("locked").await;
    pair.write("CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut locker = connect(&pair.source_url).await;
    let transaction = locker.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE t").await.unwrap();
    let mut child =
        pair.command().args(["schema", "apply"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // It gives up, and comes again.
    let waiting = "SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity
                    WHERE application_name = 'cdc_locked schema apply' AND datname = current_database() AND wait_event_type = 'Lock'";
    let mut seen = 0;
    for _ in 0..2 {
        loop {
            let pid = number(&pair.source, waiting).await;
            if pid != 0 && pid != seen {
                seen = pid;
                break;
            }
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    transaction.commit().await.unwrap();
    assert!(child.wait().unwrap().success());
    assert_same(&pair);
}
