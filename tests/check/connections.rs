//! Poolers, and TLS in all its degrees.

use super::check;
use super::support::pair::{self, Pair};
use super::support::pooler::Pooler;

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_on_either_side_is_told() {
    let mut pair = Pair::new("check_pooled").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    let port = |url: &str| url.rsplit_once('/').unwrap().0.rsplit_once(':').unwrap().1.parse().unwrap();
    let before = Pooler::start(port(&pair.source_url), "session").await;
    let behind = Pooler::start(port(&pair.target_url), "transaction").await;
    pair.daemon_source_url = before.url("check_pooled");
    pair.daemon_target_url = behind.url("check_pooled");
    let checked = check(&pair);
    assert_eq!(checked.code, 1);
    let said = "this is a connection pooler, which can't replicate: use the direct connection to the server";
    checked.has("blocks", "pooler", "source", "-", &[said]);
    checked.has("blocks", "pooler", "target", "-", &["a pooler in transaction mode", "direct connection"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_well_a_connection_is_protected_is_told() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let server = pair::source().tls(cert.pem(), signing_key.serialize_pem()).start().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root.crt");
    std::fs::write(&root, cert.pem()).unwrap();
    let mut pair = Pair::new("check_tls").await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    let to = |more: &str| {
        let port = server.port();
        format!("host=localhost hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres {more}")
    };
    let root = format!("sslrootcert={}", root.display());
    for (more, code) in [
        ("sslmode=disable".to_owned(), "no-tls"),
        ("sslmode=require".to_owned(), "tls-unverified"),
        (format!("sslmode=verify-ca {root}"), "tls-name-unverified"),
        (format!("sslmode=verify-full {root}"), "tls"),
    ] {
        pair.daemon_source_url = to(&more);
        // Within a host nobody else reads a connection.
        check(&pair).has("informs", code, "source", "-", &[]);
    }
}
