//! Connections to real servers: TLS in every mode, every login, and what is said when it fails.

#![allow(clippy::unwrap_used)]

mod certificates;
mod logins;
#[path = "../support/pooler.rs"]
mod pooler;
mod sessions;
mod streams;
mod tls;

use cdc::connect::{ConnInfo, Environment, Session};
use cdc::demo::Cluster;
use cdc::fault::{Fault, Reaction, Side};
use cdc::replication::Walsender;

/// What a connection string says, and nothing else (no variables, no files).
fn info(text: &str) -> ConnInfo {
    ConnInfo::parse(text, &Environment::empty().user("postgres")).unwrap()
}

async fn session(text: &str) -> Result<Session, Fault> {
    Session::open(&info(text), Side::Target, "cdc test").await
}

async fn walsender(text: &str) -> Result<Walsender, Fault> {
    Walsender::connect(&info(text), Side::Source, "cdc test").await
}

/// The first value of the first row.
async fn ask(session: &Session, sql: &str) -> String {
    session.query_one(sql, &[]).await.unwrap().get(0)
}

/// Opens a session for the superuser, through the socket.
async fn admin(cluster: &Cluster) -> Session {
    let socket = format!("host={} port={} user=postgres", cluster.socket_dir().display(), cluster.port());
    session(&socket).await.unwrap()
}

/// Asserts that it failed, that only a person can mend it, and that the texts are in the message.
fn assert_person<T>(result: Result<T, Fault>, texts: &[&str]) {
    let Err(fault) = result else { panic!("it connected; expected: {texts:?}") };
    assert_eq!(fault.reaction(), Reaction::Person, "{fault}");
    assert!(!fault.is_unreachable(), "{fault}");
    assert_says(&fault, texts);
}

/// Asserts that it failed, that it is tried again, and that the texts are in the message.
fn assert_unreachable<T>(result: Result<T, Fault>, texts: &[&str]) {
    let Err(fault) = result else { panic!("it connected; expected: {texts:?}") };
    assert!(fault.is_unreachable(), "{fault}");
    assert_says(&fault, texts);
}

fn assert_says(fault: &Fault, texts: &[&str]) {
    let message = fault.to_string();
    assert!(fault.advice().is_some(), "no advice: {message}");
    for text in texts {
        assert!(message.contains(text), "{text:?} is not in: {message}");
    }
}
