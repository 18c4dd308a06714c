//! Passwords, roles, hosts, and a pooler in the server's place.

use cdc::demo::Stop;

use super::certificates::{Authority, Files, self_signed};
use super::pooler::Pooler;
use super::*;

const ROLES: &str = "
    SET password_encryption = 'scram-sha-256';
    CREATE ROLE scram LOGIN REPLICATION PASSWORD 'p@ss:/?#[]%  wörd';
    CREATE ROLE humble LOGIN PASSWORD 'humble';
    CREATE ROLE clear LOGIN REPLICATION PASSWORD 'clear';
    CREATE ROLE locked NOLOGIN PASSWORD 'locked';
    SET password_encryption = 'md5';
    CREATE ROLE md LOGIN REPLICATION PASSWORD 'md';
";
const HBA: [&str; 3] = [
    "host all md 127.0.0.1/32 md5",
    "host all clear 127.0.0.1/32 password",
    "host all all 127.0.0.1/32 scram-sha-256",
];
const SCRAM_PASSWORD: &str = "p%40ss%3A%2F%3F%23%5B%5D%25%20%20w%C3%B6rd";

fn url(cluster: &Cluster, who: &str, rest: &str) -> String {
    format!("postgres://{who}@127.0.0.1:{}/{rest}", cluster.port())
}

async fn both(text: &str) {
    session(text).await.unwrap();
    walsender(text).await.unwrap();
}

#[tokio::test]
async fn passwords_are_accepted_and_refused_with_advice() {
    let cluster = Cluster::builder("logins").hba(HBA).start().await.unwrap();
    admin(&cluster).await.batch_execute(ROLES).await.unwrap();
    both(&url(&cluster, &format!("scram:{SCRAM_PASSWORD}"), "postgres")).await;
    both(&url(&cluster, "md:md", "postgres")).await;

    // A password in clear text: only where no encryption was asked for.
    both(&url(&cluster, "clear:clear", "postgres?sslmode=disable")).await;
    assert_person(session(&url(&cluster, "clear:clear", "postgres")).await, &["clear text", "sslmode"]);
    assert_person(walsender(&url(&cluster, "clear:clear", "postgres")).await, &["clear text"]);

    let wrong = url(&cluster, "scram:n0t-th1s", "postgres");
    for fault in [session(&wrong).await.err(), walsender(&wrong).await.err()] {
        let fault = fault.unwrap();
        assert!(!format!("{fault} {fault:?}").contains("n0t-th1s"));
        assert_person::<()>(Err(fault), &["28P01", "scram", "percent-encoded"]);
    }
    assert_person(session(&url(&cluster, "scram", "postgres")).await, &["none was given"]);
    assert_person(session(&url(&cluster, "nobody:x", "postgres")).await, &["28P01"]);
    assert_person(session(&url(&cluster, "locked:locked", "postgres")).await, &["28000", "may log in"]);
    let missing = url(&cluster, "humble:humble", "nowhere");
    assert_person(session(&missing).await, &["3D000", "nowhere", "create it"]);

    let humble = url(&cluster, "humble:humble", "postgres");
    session(&humble).await.unwrap();
    assert_person(walsender(&humble).await, &["42501", "ALTER ROLE humble REPLICATION"]);
}

#[tokio::test]
async fn channel_binding_holds_for_every_hash_that_has_one() {
    let key_kinds = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, true),
        (&rcgen::PKCS_ECDSA_P384_SHA384, true),
        // No hash of its own: PostgreSQL can't do it either.
        (&rcgen::PKCS_ED25519, false),
    ];
    for (kind, binds) in key_kinds {
        let pair = self_signed("localhost", &["localhost"], kind);
        let cluster =
            Cluster::builder("binding").tls(pair.certificate, pair.key).hba(HBA).start().await.unwrap();
        admin(&cluster).await.batch_execute(ROLES).await.unwrap();
        let who = format!("scram:{SCRAM_PASSWORD}");
        both(&url(&cluster, &who, "postgres?sslmode=require")).await;
        both(&url(&cluster, &who, "postgres?sslmode=require&channel_binding=disable")).await;
        let required = url(&cluster, &who, "postgres?sslmode=require&channel_binding=require");
        if binds {
            both(&required).await;
            let md = url(&cluster, "md:md", "postgres?sslmode=require&channel_binding=require");
            assert_person(session(&md).await, &["channel_binding"]);
        } else {
            assert_person(session(&required).await, &["channel_binding"]);
            assert_person(walsender(&required).await, &["channel_binding"]);
        }
    }
}

#[tokio::test]
async fn a_cleartext_password_may_be_sent_over_tls() {
    let (authority, files) = (Authority::new("ours"), Files::new());
    let root = files.write("root.crt", &authority.certificate, 0o644);
    let pair = authority.sign("127.0.0.1", &["127.0.0.1"]);
    let cluster = Cluster::builder("clear").tls(pair.certificate, pair.key).hba(HBA).start().await.unwrap();
    admin(&cluster).await.batch_execute(ROLES).await.unwrap();
    let rest = format!("postgres?sslmode=verify-full&sslrootcert={}", root.display());
    both(&url(&cluster, "clear:clear", &rest)).await;
}

#[tokio::test]
async fn the_first_host_that_answers_is_taken() {
    let cluster = Cluster::start("hosts").await.unwrap();
    let (port, socket) = (cluster.port(), cluster.socket_dir());
    both(&format!("host={} port={port} user=postgres", socket.display())).await;
    both(&format!("postgres://postgres@[::1]:{port}/postgres")).await;
    both(&format!("host=127.0.0.1,nowhere.invalid,127.0.0.1 port=1,{port},{port} user=postgres")).await;
    both(&format!("host=127.0.0.1,127.0.0.1 port=1,{port} user=postgres load_balance_hosts=random")).await;
    both(&format!("{}?target_session_attrs=read-write", cluster.url("postgres"))).await;
    both(&format!("{}?target_session_attrs=prefer-standby", cluster.url("postgres"))).await;

    let standby = format!("{}?target_session_attrs=standby", cluster.url("postgres"));
    assert_unreachable(session(&standby).await, &["is a primary"]);
    assert_unreachable(walsender(&standby).await, &["is a primary"]);
    let dead = session("host=127.0.0.1,nowhere.invalid port=1,2 user=postgres").await;
    assert_unreachable(dead, &["127.0.0.1:1", "refused", "nowhere.invalid", "DNS", "listen_addresses"]);
    assert_unreachable(session("host=/nowhere user=postgres").await, &["the socket doesn't exist"]);
    // A refused login ends the search: the next host isn't asked.
    let wrong = format!("host=127.0.0.1,127.0.0.1 port={port} user=postgres dbname=nowhere");
    assert_person(session(&wrong).await, &["3D000"]);
}

#[tokio::test]
async fn a_standby_is_found_where_one_is_wanted() {
    let primary = Cluster::start("primary").await.unwrap();
    let mut standby = Cluster::start("standby").await.unwrap();
    standby.stop(Stop::Fast).await.unwrap();
    std::fs::write(standby.data_dir().join("standby.signal"), "").unwrap();
    standby.start_again().await.unwrap();
    let hosts = format!("host=127.0.0.1,127.0.0.1 port={},{} user=postgres", primary.port(), standby.port());
    let wanted = [
        ("any", &primary),
        ("primary", &primary),
        ("read-write", &primary),
        ("standby", &standby),
        ("read-only", &standby),
        ("prefer-standby", &standby),
    ];
    for (attrs, cluster) in wanted {
        let text = format!("{hosts} target_session_attrs={attrs}");
        let port = cluster.port().to_string();
        assert_eq!(ask(&session(&text).await.unwrap(), "SHOW port").await, port, "{attrs}");
        let rows = walsender(&text).await.unwrap().query("SHOW port").await.unwrap();
        assert_eq!(rows, [[Some(port)]], "{attrs}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = format!("host=127.0.0.1 port={port} user=u connect_timeout=1");
    assert_unreachable(session(&silent).await, &["no answer from 127.0.0.1", "connect_timeout"]);
    assert_unreachable(walsender(&silent).await, &["no answer from 127.0.0.1"]);
}

#[tokio::test]
async fn a_full_server_is_tried_again() {
    let cluster = Cluster::builder("full").setting("max_connections", "4").setting("max_wal_senders", "0");
    let cluster = cluster.setting("superuser_reserved_connections", "0").start().await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(session(&cluster.url("postgres")).await.unwrap());
    }
    let fault = session(&cluster.url("postgres")).await.err().unwrap();
    assert_eq!(fault.reaction(), Reaction::Retry, "{fault}");
    assert_says(&fault, &["53300", "max_connections"]);
}

#[tokio::test]
async fn a_pooler_is_told_from_a_server() {
    let cluster = Cluster::start("pooled").await.unwrap();
    let pooler = Pooler::start(cluster.port(), "session").await;
    let url = pooler.url("postgres");
    let opened = session(&url).await;
    // Sessions go through it (in session mode); replication doesn't.
    assert_eq!(ask(&opened.unwrap(), "SHOW datestyle").await, "ISO, MDY");
    assert_person(
        walsender(&url).await,
        &["unsupported startup parameter: replication", "direct connection"],
    );
    let options = format!("{url}?options=-cwork_mem%3D1MB");
    assert_person(session(&options).await, &["unsupported startup parameter", "pooler"]);
}
