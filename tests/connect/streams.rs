//! The walsender connection and the replication stream.

use std::time::Duration;

use cdc::lsn::Lsn;
use cdc::replication::{Feedback, Frame, ReplicationStream};
use tokio::time::timeout;

use super::*;

async fn with_slot(cluster: &Cluster) -> (Session, Walsender) {
    let admin = admin(cluster).await;
    let setup = "CREATE TABLE public.t (id int PRIMARY KEY, v text); CREATE PUBLICATION \"pub \"\"1\"\"\" FOR TABLE public.t;";
    admin.batch_execute(setup).await.unwrap();
    let mut walsender = walsender(&cluster.url("postgres")).await.unwrap();
    walsender.query("CREATE_REPLICATION_SLOT s LOGICAL pgoutput (SNAPSHOT 'nothing')").await.unwrap();
    (admin, walsender)
}

async fn start(walsender: Walsender) -> ReplicationStream {
    walsender.start_replication("s", Lsn::ZERO, &["pub \"1\"".to_owned()]).await.unwrap()
}

async fn payload(stream: &mut ReplicationStream) -> bytes::Bytes {
    loop {
        if let Frame::XLogData { payload, .. } = stream.next().await.unwrap() {
            return payload;
        }
    }
}

fn feedback(lsn: Lsn) -> Feedback {
    Feedback { written: lsn, flushed: lsn, applied: lsn, reply_requested: true }
}

#[tokio::test]
async fn a_walsender_knows_its_server() {
    let cluster = Cluster::start("identify").await.unwrap();
    let admin = admin(&cluster).await;
    let mut walsender = walsender(&cluster.url("postgres")).await.unwrap();
    let identity = walsender.identify_system().await.unwrap();
    let system_id = ask(&admin, "SELECT system_identifier::text FROM pg_control_system()").await;
    assert_eq!((identity.system_id.to_string(), identity.timeline), (system_id, 1));
    assert_eq!(identity.database, "postgres");
    assert!(identity.flush_lsn > Lsn::ZERO);
    assert_eq!(walsender.server_version_num() / 10_000, cluster.binaries().major());

    // An error doesn't end the connection.
    let fault = walsender.query("SELECT 1; SELECT 1/0").await.unwrap_err();
    assert_eq!(fault.code().unwrap().code(), "22012");
    let rows = walsender.query("SELECT 1, NULL, 'a''b'; SELECT 2").await.unwrap();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows, vec![vec![text("1"), None, text("a'b")], vec![text("2")]]);
}

#[tokio::test]
async fn changes_arrive_in_order_and_feedback_moves_the_slot() {
    let cluster = Cluster::start("stream").await.unwrap();
    let (admin, walsender) = with_slot(&cluster).await;
    let mut stream = start(walsender).await;
    admin.batch_execute("INSERT INTO public.t VALUES (1, repeat('x', 1000))").await.unwrap();
    let mut tags = Vec::new();
    let mut commit = Vec::new();
    while tags.last() != Some(&b'C') {
        let message = payload(&mut stream).await;
        tags.push(message[0]);
        commit = message.to_vec();
    }
    assert_eq!(tags, b"BRIC");
    let end_lsn = Lsn::from(u64::from_be_bytes(commit[10..18].try_into().unwrap()));

    stream.send_feedback(&feedback(end_lsn)).await.unwrap();
    loop {
        if let Frame::Keepalive { wal_end, sent_at, .. } = stream.next().await.unwrap() {
            assert!(wal_end >= end_lsn);
            // After 2020, in microseconds since 2000.
            assert!(sent_at > 20 * 365 * 86_400 * 1_000_000);
            break;
        }
    }
    let confirmed = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots";
    while ask(&admin, confirmed).await != end_lsn.to_string() {}

    let slot = "SELECT active::text FROM pg_replication_slots";
    assert_eq!(ask(&admin, slot).await, "true");
    stream.finish().await.unwrap();
    assert_eq!(ask(&admin, slot).await, "false");
}

#[tokio::test]
async fn a_large_value_arrives_whole_also_when_reading_is_cancelled() {
    let cluster = Cluster::start("large").await.unwrap();
    let (admin, walsender) = with_slot(&cluster).await;
    let mut stream = start(walsender).await;
    let sql = "SELECT pg_logical_emit_message(false, 'large', repeat('0123456789', 1200000))";
    admin.batch_execute(sql).await.unwrap();
    let large = loop {
        match timeout(Duration::from_micros(300), stream.next()).await {
            Ok(Ok(Frame::XLogData { payload, .. })) => break payload,
            Ok(frame) => drop(frame.unwrap()),
            Err(_) => {}
        }
    };
    assert!(large.ends_with(b"0123456789") && large.len() > 12_000_000);
    admin.batch_execute("SELECT pg_logical_emit_message(false, 'after', 'x')").await.unwrap();
    assert!(payload(&mut stream).await.ends_with(b"x"));
}

#[tokio::test]
async fn a_stream_that_is_dropped_or_cut_frees_its_slot() {
    let mut cluster = Cluster::start("ends").await.unwrap();
    let (admin, first) = with_slot(&cluster).await;
    let stream = start(first).await;
    let second = walsender(&cluster.url("postgres")).await.unwrap();
    let taken = second.start_replication("s", Lsn::ZERO, &["p".to_owned()]).await.err().unwrap();
    assert_eq!((taken.reaction(), taken.code().unwrap().code()), (Reaction::Retry, "55006"));
    drop(stream);
    while ask(&admin, "SELECT active::text FROM pg_replication_slots").await == "true" {}

    let mut stream = start(walsender(&cluster.url("postgres")).await.unwrap()).await;
    admin.batch_execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots").await.unwrap();
    let fault = loop {
        if let Err(fault) = stream.next().await {
            break fault;
        }
    };
    assert_eq!((fault.is_unreachable(), fault.code().unwrap().code()), (true, "57P01"));

    let mut stream = start(walsender(&cluster.url("postgres")).await.unwrap()).await;
    cluster.stop(cdc::demo::Stop::Immediate).await.unwrap();
    let fault = loop {
        if let Err(fault) = stream.next().await {
            break fault;
        }
    };
    assert!(fault.is_unreachable(), "{fault}");
}

#[tokio::test]
async fn a_refused_start_says_why() {
    let cluster = Cluster::builder("refused").setting("wal_level", "replica").start().await.unwrap();
    let mut sender = walsender(&cluster.url("postgres")).await.unwrap();
    let fault = sender.query("CREATE_REPLICATION_SLOT s LOGICAL pgoutput").await.unwrap_err();
    assert_person::<()>(Err(fault), &["55000", "wal_level = logical"]);
    let missing = sender.start_replication("missing", Lsn::ZERO, &["p".to_owned()]).await.err().unwrap();
    assert_eq!(missing.reaction(), Reaction::Person, "{missing}");
}
