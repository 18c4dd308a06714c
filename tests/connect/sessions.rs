//! What a session is like once it is open.

use super::*;

/// Every default that could change how a value looks or what ends a statement.
const HOSTILE: &str = "
    ALTER DATABASE postgres SET datestyle = 'German';
    ALTER DATABASE postgres SET intervalstyle = 'iso_8601';
    ALTER DATABASE postgres SET timezone = 'Asia/Kathmandu';
    ALTER DATABASE postgres SET extra_float_digits = -15;
    ALTER DATABASE postgres SET bytea_output = 'escape';
    ALTER DATABASE postgres SET quote_all_identifiers = on;
    ALTER DATABASE postgres SET array_nulls = off;
    ALTER DATABASE postgres SET xmloption = 'document';
    ALTER DATABASE postgres SET standard_conforming_strings = off;
    ALTER DATABASE postgres SET search_path = 'evil';
    ALTER DATABASE postgres SET default_transaction_read_only = on;
    ALTER DATABASE postgres SET default_transaction_isolation = 'serializable';
    ALTER DATABASE postgres SET synchronous_commit = off;
    ALTER DATABASE postgres SET statement_timeout = '1min';
    ALTER DATABASE postgres SET lock_timeout = '1min';
    ALTER DATABASE postgres SET idle_in_transaction_session_timeout = '1min';
    ALTER DATABASE postgres SET idle_session_timeout = '1min';
    ALTER DATABASE postgres SET client_min_messages = 'error';
    ALTER DATABASE postgres SET jit = on;
    ALTER DATABASE postgres SET lc_monetary = 'C.UTF-8';
";

const VALUES: &str = "SELECT concat_ws('|', pg_catalog.current_setting('datestyle'),
    timestamptz '2001-02-03 04:05:06+00', interval '1 day 2 hours', 0.1::float8 + 0.2, '\\x00ff'::bytea,
    '{NULL}'::text[], pg_catalog.current_setting('search_path'), pg_catalog.current_setting('standard_conforming_strings'),
    pg_catalog.current_setting('statement_timeout'), pg_catalog.current_setting('transaction_read_only'),
    pg_catalog.current_setting('transaction_isolation'), pg_catalog.current_setting('synchronous_commit'),
    pg_catalog.current_setting('idle_session_timeout'), pg_catalog.current_setting('client_min_messages'),
    pg_catalog.current_setting('row_security'), 'pg_class'::regclass,
    pg_catalog.current_setting('lc_monetary'))";

#[tokio::test]
async fn values_look_the_same_in_every_session_whatever_the_database_says() {
    let cluster = Cluster::start("settings").await.unwrap();
    admin(&cluster).await.batch_execute(HOSTILE).await.unwrap();
    let expected = "ISO, DMY|2001-02-03 04:05:06+00|1 day 02:00:00|0.30000000000000004|\\x00ff|{NULL}|\"\"|on|0|off|read \
                    committed|on|0|notice|off|pg_class|C";
    let session = session(&cluster.url("postgres")).await.unwrap();
    assert_eq!(ask(&session, VALUES).await, expected);
    let mut walsender = walsender(&cluster.url("postgres")).await.unwrap();
    assert_eq!(walsender.query(VALUES).await.unwrap(), [[Some(expected.to_owned())]]);
}

#[tokio::test]
async fn the_server_watches_its_clients() {
    let cluster = Cluster::start("watch").await.unwrap();
    let session = session(&cluster.url("postgres")).await.unwrap();
    assert_eq!(ask(&session, "SHOW client_connection_check_interval").await, "10s");
    assert_eq!(ask(&session, "SHOW tcp_keepalives_idle").await, "30");
    assert_eq!(session.server_version_num() / 10_000, cluster.binaries().major());
}

/// Waits until a backend is gone.
async fn gone(admin: &Session, pid: i32) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
    while admin.query_one(sql, &[&pid]).await.unwrap().get::<_, i64>(0) > 0 {}
}

#[tokio::test]
async fn a_session_that_is_dropped_or_closed_is_gone_on_the_server() {
    let cluster = Cluster::start("dropped").await.unwrap();
    let admin = admin(&cluster).await;
    let dropped = session(&cluster.url("postgres")).await.unwrap();
    let pid = dropped.backend_pid();
    assert_eq!(ask(&dropped, "SELECT pg_backend_pid()::text").await, pid.to_string());
    dropped.batch_execute("BEGIN").await.unwrap();
    drop(dropped);
    gone(&admin, pid).await;

    let closed = session(&cluster.url("postgres")).await.unwrap();
    let pid = closed.backend_pid();
    closed.batch_execute("BEGIN").await.unwrap();
    closed.close().await;
    gone(&admin, pid).await;
    // Only the first one left without a word.
    assert_eq!(cluster.log().matches("unexpected EOF on client connection").count(), 1);
}

#[tokio::test]
async fn a_lost_session_says_so() {
    let cluster = Cluster::start("lost").await.unwrap();
    let session = session(&cluster.url("postgres")).await.unwrap();
    let error = session.query_one("SELECT pg_terminate_backend(pg_backend_pid())", &[]).await.unwrap_err();
    let fault = Fault::sql(Side::Target, "asking", &error);
    assert_eq!((fault.reaction(), fault.code().unwrap().code()), (Reaction::Retry, "57P01"));
}
