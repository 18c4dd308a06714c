//! Throw-away servers: they start, keep what was committed, and leave nothing behind.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cdc::demo::{Binaries, Cluster, Stop};
use tokio_postgres::{Client, NoTls};

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn ask(url: &str, query: &str) -> String {
    connect(url).await.query_one(query, &[]).await.unwrap().get(0)
}

/// The processes that work in this directory, by what Linux tells of them.
fn processes_in(dir: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.filter(|process| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == dir)).collect()
}

async fn count(cluster: &Cluster) -> String {
    ask(&cluster.url("postgres"), "SELECT count(*)::text FROM t").await
}

async fn insert(cluster: &Cluster) {
    connect(&cluster.url("postgres")).await.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn a_server_starts_and_answers() {
    let cluster = Cluster::start("answers").await.unwrap();
    for (parameter, value) in [("wal_level", "logical"), ("fsync", "on"), ("server_encoding", "UTF8")] {
        assert_eq!(ask(&cluster.url("template1"), &format!("SHOW {parameter}")).await, value);
    }
    let socket = format!("host={} port={} user=postgres", cluster.socket_dir().display(), cluster.port());
    assert_eq!(ask(&socket, "SELECT current_user::text").await, "postgres");
    let major = cluster.binaries().major().to_string();
    assert_eq!(fs::read_to_string(cluster.data_dir().join("PG_VERSION")).unwrap().trim(), major);
}

#[tokio::test]
async fn what_was_committed_survives_every_kind_of_end() {
    let mut cluster = Cluster::start("survives").await.unwrap();
    let client = connect(&cluster.url("postgres")).await;
    client.batch_execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await.unwrap();
    let port = cluster.port();

    cluster.restart(Stop::Fast).await.unwrap();
    assert!(client.is_closed());
    assert_eq!(count(&cluster).await, "1");

    insert(&cluster).await;
    cluster.restart(Stop::Immediate).await.unwrap();
    assert_eq!(count(&cluster).await, "2");

    insert(&cluster).await;
    cluster.crash().await.unwrap();
    assert_eq!(processes_in(&cluster.data_dir()), Vec::<PathBuf>::new());
    assert!(cluster.stop(Stop::Fast).await.is_err());
    cluster.start_again().await.unwrap();
    assert_eq!(count(&cluster).await, "3");
    assert!(cluster.log().contains("automatic recovery in progress"), "{}", cluster.log());

    cluster.stop(Stop::Smart).await.unwrap();
    cluster.start_again().await.unwrap();
    assert!(cluster.start_again().await.is_err());
    assert_eq!(count(&cluster).await, "3");
    assert_eq!(cluster.port(), port);
}

#[tokio::test]
async fn a_crash_ends_busy_backends_too() {
    let mut cluster = Cluster::start("busy").await.unwrap();
    let client = connect(&cluster.url("postgres")).await;
    let busy =
        tokio::spawn(
            async move { client.batch_execute("DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$").await },
        );
    let looping = "SELECT count(*)::text FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'";
    while ask(&cluster.url("postgres"), looping).await != "1" {}
    cluster.crash().await.unwrap();
    assert_eq!(processes_in(&cluster.data_dir()), Vec::<PathBuf>::new());
    assert!(busy.await.unwrap().is_err());
    cluster.start_again().await.unwrap();
}

#[tokio::test]
async fn a_dropped_cluster_leaves_no_process_and_no_directory() {
    let cluster = Cluster::start("dropped").await.unwrap();
    let client = connect(&cluster.url("postgres")).await;
    let (home, data) = (cluster.socket_dir(), cluster.data_dir());
    assert!(processes_in(&data).len() > 2);
    drop(cluster);
    assert_eq!(processes_in(&data), Vec::<PathBuf>::new());
    assert!(!home.exists());
    assert!(client.batch_execute("SELECT 1").await.is_err());

    let mut stopped = Cluster::start("stopped").await.unwrap();
    stopped.stop(Stop::Fast).await.unwrap();
    let home = stopped.socket_dir();
    drop(stopped);
    assert!(!home.exists());
}

#[tokio::test]
async fn two_servers_at_once_are_two_databases() {
    let (one, two) = tokio::join!(Cluster::start("one"), Cluster::start("two"));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.port(), two.port());
    let identifier = "SELECT system_identifier::text FROM pg_control_system()";
    let identifiers =
        [ask(&one.url("postgres"), identifier).await, ask(&two.url("postgres"), identifier).await];
    assert_ne!(identifiers[0], identifiers[1]);
}

#[tokio::test]
async fn a_server_is_built_as_asked() {
    let builder = Cluster::builder("asked")
        .setting("application_name", "it's me")
        .encoding("LATIN1")
        .hba(["host all alice 127.0.0.1/32 trust"])
        .binaries(Binaries::find().unwrap());
    let cluster = builder.start().await.unwrap();
    let socket = format!("host={} port={} user=postgres", cluster.socket_dir().display(), cluster.port());
    assert_eq!(ask(&socket, "SHOW server_encoding").await, "LATIN1");
    assert_eq!(ask(&socket, "SHOW application_name").await, "it's me");
    assert!(tokio_postgres::connect(&cluster.url("postgres"), NoTls).await.is_err());
    for statement in ["CREATE ROLE alice LOGIN", "CREATE DATABASE \"a b/c\""] {
        connect(&socket).await.batch_execute(statement).await.unwrap();
    }
    let url = cluster.url_as("alice", "a b/c");
    assert_eq!(ask(&url, "SELECT current_user || '@' || current_database()").await, "alice@a b/c");
}

#[tokio::test]
async fn a_server_with_tls_talks_tls() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let builder = Cluster::builder("tls").tls(pair.cert.pem(), pair.signing_key.serialize_pem());
    let cluster = builder.start().await.unwrap();
    assert_eq!(ask(&cluster.url("postgres"), "SHOW ssl").await, "on");
}

#[tokio::test]
async fn a_server_that_does_not_come_up_shows_its_log() {
    let fault = Cluster::builder("broken").setting("wal_level", "nonsense").start().await.unwrap_err();
    assert!(fault.what().contains("invalid value for parameter \"wal_level\""), "{fault}");
}

#[tokio::test]
async fn a_taken_port_is_noticed() {
    let mut cluster = Cluster::start("taken").await.unwrap();
    cluster.stop(Stop::Fast).await.unwrap();
    let _squatter = std::net::TcpListener::bind(("127.0.0.1", cluster.port())).unwrap();
    let fault = cluster.start_again().await.unwrap_err();
    assert!(fault.what().contains("its port was taken"), "{fault}");
}

/// Not a test by itself: starts a server, says where, and waits to be killed.
#[tokio::test]
#[ignore = "run by the test below"]
async fn waits_to_be_killed() {
    let cluster = Cluster::start("orphan").await.unwrap();
    println!("\nhome: {}", cluster.socket_dir().display());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_server_does_not_outlive_a_killed_parent() {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "waits_to_be_killed"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let home = lines.find_map(|line| line.unwrap().strip_prefix("home: ").map(PathBuf::from)).unwrap();
    assert!(processes_in(&home.join("data")).len() > 2);
    parent.kill().unwrap();
    parent.wait().unwrap();

    let deadline = Instant::now() + Duration::from_secs(20);
    while home.exists() || !processes_in(&home.join("data")).is_empty() {
        assert!(Instant::now() < deadline, "the server is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}
