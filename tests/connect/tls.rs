//! `sslmode` against right and wrong authorities and names.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::certificates::{Authority, Files, Pair, self_signed};
use super::*;

const TRUST_TLS: [&str; 1] = ["hostssl all all 127.0.0.1/32 trust"];
const TRUST: [&str; 1] = ["host all all 127.0.0.1/32 trust"];

async fn server(pair: &Pair, hba: &[&str]) -> Cluster {
    let hba: Vec<String> = hba.iter().map(|line| (*line).to_owned()).collect();
    Cluster::builder("tls").tls(&*pair.certificate, &*pair.key).hba(hba).start().await.unwrap()
}

/// To the server under this name, with more parameters.
fn to(cluster: &Cluster, host: &str, more: &str) -> String {
    let port = cluster.port();
    format!("host={host} hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres {more}")
}

async fn is_encrypted(text: &str) -> bool {
    let session = session(text).await.unwrap();
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let encrypted: bool = session.query_one(sql, &[]).await.unwrap().get(0);
    let mut walsender = walsender(text).await.unwrap();
    let rows = walsender.query(sql).await.unwrap();
    assert_eq!(rows, [[Some(if encrypted { "t" } else { "f" }.to_owned())]]);
    encrypted
}

async fn assert_refused(text: &str, texts: &[&str]) {
    assert_person(session(text).await, texts);
    assert_person(walsender(text).await, texts);
}

#[tokio::test]
async fn every_sslmode_verifies_what_it_says() {
    let (authority, stranger, files) = (Authority::new("ours"), Authority::new("another"), Files::new());
    let right = format!("sslrootcert={}", files.write("right.crt", &authority.certificate, 0o644).display());
    let wrong = format!("sslrootcert={}", files.write("wrong.crt", &stranger.certificate, 0o644).display());
    let pair = authority.sign("anything", &["localhost", "*.db.example.com", "127.0.0.1"]);
    let cluster = server(&pair, &TRUST).await;

    for (host, mode, root, encrypted) in [
        ("localhost", "disable", &*right, false),
        ("localhost", "allow", &right, false),
        ("localhost", "prefer", "", true),
        ("elsewhere", "prefer", &right, true),
        // The handshake fails, and prefer does without.
        ("localhost", "prefer", &wrong, false),
        ("localhost", "require", "", true),
        ("elsewhere", "require", &right, true),
        ("elsewhere", "verify-ca", &right, true),
        ("localhost", "verify-full", &right, true),
        ("a.db.example.com", "verify-full", &right, true),
        ("127.0.0.1", "verify-full", &right, true),
    ] {
        let text = to(&cluster, host, &format!("sslmode={mode} {root}"));
        assert_eq!(is_encrypted(&text).await, encrypted, "{host} {mode} {root}");
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        let text = to(&cluster, "localhost", &format!("sslmode={mode} {wrong}"));
        assert_refused(&text, &["no authority in", "wrong.crt has signed it", "sslrootcert"]).await;
    }
    for host in ["elsewhere", "db.example.com", "a.b.db.example.com", "127.0.0.2"] {
        let text = to(&cluster, host, &format!("sslmode=verify-full {right}"));
        assert_refused(&text, &["the certificate is for localhost, *.db.example.com, 127.0.0.1"]).await;
    }
    let text = to(&cluster, "localhost", "sslmode=verify-full sslrootcert=system");
    assert_refused(&text, &["no authority in the system's list"]).await;
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let cluster = Cluster::start("plain").await.unwrap();
    assert!(!is_encrypted(&to(&cluster, "localhost", "sslmode=prefer")).await);
    assert_refused(&to(&cluster, "localhost", "sslmode=require"), &["has no TLS", "ssl = on"]).await;
    assert_refused(&to(&cluster, "localhost", "channel_binding=require"), &["channel_binding=require"]).await;
}

#[tokio::test]
async fn allow_and_prefer_try_the_other_way_when_the_server_insists() {
    let pair = Authority::new("ours").sign("localhost", &["localhost"]);
    let cluster = server(&pair, &TRUST_TLS).await;
    assert!(is_encrypted(&to(&cluster, "localhost", "sslmode=allow")).await);
    assert_refused(&to(&cluster, "localhost", "sslmode=disable"), &["28000", "sslmode=require"]).await;

    let cluster = server(&pair, &["hostnossl all all 127.0.0.1/32 trust"]).await;
    assert!(!is_encrypted(&to(&cluster, "localhost", "sslmode=prefer")).await);
    assert_refused(&to(&cluster, "localhost", "sslmode=require"), &["28000", "hostnossl"]).await;
}

#[tokio::test]
async fn certificates_of_the_field_are_accepted_like_libpq_does() {
    let files = Files::new();
    // Self-signed, common name only, as in PostgreSQL's documentation.
    let own = self_signed("localhost", &[], &rcgen::PKCS_ECDSA_P256_SHA256);
    let root = format!("sslrootcert={}", files.write("own.crt", &own.certificate, 0o644).display());
    let cluster = server(&own, &TRUST).await;
    assert!(is_encrypted(&to(&cluster, "localhost", &format!("sslmode=verify-full {root}"))).await);
    let text = to(&cluster, "elsewhere", &format!("sslmode=verify-full {root}"));
    assert_refused(&text, &["the certificate is for localhost"]).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let (authority, files) = (Authority::new("ours"), Files::new());
    let root = format!("sslrootcert={}", files.write("root.crt", &authority.certificate, 0o644).display());
    let expired = authority.sign_expired("localhost");
    let cluster = server(&expired, &TRUST).await;
    let text = to(&cluster, "localhost", &format!("sslmode=verify-ca {root}"));
    assert_refused(&text, &["it has expired", "clock"]).await;
    let listed = format!("sslrootcert={}", files.write("own.crt", &expired.certificate, 0o644).display());
    let text = to(&cluster, "localhost", &format!("sslmode=verify-ca {listed}"));
    assert_refused(&text, &["it has expired"]).await;
    assert!(is_encrypted(&to(&cluster, "localhost", "sslmode=require")).await);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let (authority, files) = (Authority::new("ours"), Files::new());
    let root = files.write("root.crt", &authority.certificate, 0o644);
    let (good, bad) =
        (authority.sign("localhost", &["localhost"]), authority.sign("localhost", &["localhost"]));
    let list = files.write("root.crl", &authority.revoke(&bad), 0o644);
    let tls = format!("sslmode=verify-full sslrootcert={} sslcrl={}", root.display(), list.display());
    assert!(is_encrypted(&to(&server(&good, &TRUST).await, "localhost", &tls)).await);
    assert_refused(&to(&server(&bad, &TRUST).await, "localhost", &tls), &["it was revoked"]).await;
}

#[tokio::test]
async fn a_certificate_of_version_1_says_how_to_go_on() {
    let (authority, files) = (Authority::new("ours"), Files::new());
    let root = format!("sslrootcert={}", files.write("root.crt", &authority.certificate, 0o644).display());
    let old = authority.sign_version_1("localhost");
    let cluster = server(&old, &TRUST).await;
    let text = to(&cluster, "localhost", &format!("sslmode=verify-full {root}"));
    assert_refused(&text, &["X.509 version 1", "openssl x509", "sslmode=require"]).await;
    // Both ways that the advice names work.
    assert!(is_encrypted(&to(&cluster, "localhost", "sslmode=require")).await);
    let listed = format!("sslrootcert={}", files.write("own.crt", &old.certificate, 0o644).display());
    assert!(is_encrypted(&to(&cluster, "localhost", &format!("sslmode=verify-full {listed}"))).await);
}

#[tokio::test]
async fn a_client_certificate_logs_in() {
    let (authority, stranger, files) = (Authority::new("ours"), Authority::new("another"), Files::new());
    let root = files.write("root.crt", &authority.certificate, 0o644);
    let pair = authority.sign("localhost", &["localhost"]);
    let cluster = Cluster::builder("clientcert")
        .tls(&*pair.certificate, &*pair.key)
        .setting("ssl_ca_file", root.display().to_string())
        .hba(["hostssl all all 127.0.0.1/32 cert"])
        .start()
        .await
        .unwrap();
    let with = |name: &str, pair: &Pair, mode: u32| {
        let certificate = files.write(&format!("{name}.crt"), &pair.certificate, 0o644);
        let key = files.write(&format!("{name}.key"), &pair.key, mode);
        let tls = format!("sslmode=verify-full sslrootcert={}", root.display());
        to(
            &cluster,
            "localhost",
            &format!("{tls} sslcert={} sslkey={}", certificate.display(), key.display()),
        )
    };
    let client = authority.sign("postgres", &[]);
    assert!(is_encrypted(&with("client", &client, 0o600)).await);
    assert_refused(&to(&cluster, "localhost", "sslmode=require"), &["28000", "sslcert"]).await;
    assert_refused(&with("open", &client, 0o644), &["can be read by others", "chmod 0600"]).await;
    assert_refused(&with("other", &authority.sign("alice", &[]), 0o600), &["28000"]).await;
    assert_refused(&with("stranger", &stranger.sign("postgres", &[]), 0o600), &["client's certificate"])
        .await;
}

/// A server that takes TLS at once, offers these protocols, and then lets everybody in (but knows no SQL).
async fn direct_server(pair: &Pair, protocols: &[&[u8]]) -> String {
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            if let Ok(mut client) = acceptor.accept(client).await {
                let _ = client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await;
                let _ = client.write_all(b"E\0\0\0\x10C0A000\0Mno\0\0Z\0\0\0\x05I").await;
                let _ = client.read_to_end(&mut Vec::new()).await;
            }
        }
    });
    format!("host=localhost hostaddr=127.0.0.1 port={port} user=u sslmode=require sslnegotiation=direct")
}

#[tokio::test]
async fn direct_negotiation_needs_a_server_that_speaks_it() {
    let (authority, files) = (Authority::new("ours"), Files::new());
    let pair = authority.sign("localhost", &["localhost"]);
    // It comes as far as the first statement.
    let fault = walsender(&direct_server(&pair, &[b"postgresql"]).await).await.err().unwrap();
    assert_eq!(fault.code().unwrap().code(), "0A000", "{fault}");
    let other = direct_server(&pair, &[b"http/1.1"]).await;
    assert_refused(&other, &["NoApplicationProtocol", "sslnegotiation=postgres"]).await;
    let none = direct_server(&pair, &[]).await;
    assert_refused(&none, &["not PostgreSQL's protocol", "sslnegotiation=postgres"]).await;
    let cluster = server(&pair, &TRUST_TLS).await;
    let root = files.write("root.crt", &authority.certificate, 0o644);
    let direct = format!("sslmode=verify-full sslnegotiation=direct sslrootcert={}", root.display());
    let text = to(&cluster, "localhost", &direct);
    if cluster.binaries().major() < 17 {
        assert_unreachable(session(&text).await, &["sslnegotiation=postgres"]);
    } else {
        assert!(is_encrypted(&text).await);
        let elsewhere = to(&cluster, "elsewhere", &direct);
        assert_refused(&elsewhere, &["the certificate is for localhost"]).await;
    }
}

/// A server that answers the first message of every client with these bytes, and waits for the end.
async fn impostor(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = [0; 8];
            if client.read_exact(&mut request).await.is_ok() {
                let _ = client.write_all(answer).await;
                let _ = client.read_to_end(&mut Vec::new()).await;
            }
        }
    });
    format!("host=127.0.0.1 port={port} user=u")
}

#[tokio::test]
async fn what_is_no_answer_to_the_request_for_tls_is_refused() {
    let http = impostor(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_refused(&http, &["is not a PostgreSQL server"]).await;
    assert_refused(&format!("{http} sslmode=require"), &["is not a PostgreSQL server"]).await;
    // CVE-2021-23222: what someone put behind the 'S' must not be taken for the server's words.
    let stuffed = impostor(b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await;
    assert_refused(&format!("{stuffed} sslmode=require"), &["TLS handshake"]).await;
    let overloaded = impostor(b"Ecould not fork\n\0").await;
    assert_unreachable(session(&format!("{overloaded} sslmode=require")).await, &["can't take connections"]);
}
