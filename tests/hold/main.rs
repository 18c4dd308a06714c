//! Constraints are held back while rows are copied, and are then exactly what they were.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod exact;
mod faults;

mod kill;
mod live;

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use cdc::catalog::TableName;
use cdc::connect::{ConnInfo, Environment, Mode, Session};
use cdc::demo::Cluster;
use cdc::fault::{Result, Side};
use cdc::ledger::Ledger;
use cdc::schema::{Held, Hold, hold_back};
use support::pair::{PATIENCE, connect, number};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

const NAME: &str = "default";

static SERVER: OnceCell<Cluster> = OnceCell::const_new();

/// The server that all tests share.
async fn server() -> &'static Cluster {
    SERVER
        .get_or_init(|| async {
            let server = Cluster::builder("hold")
                .setting("allow_in_place_tablespaces", "on")
                .setting("max_connections", "100")
                .setting("autovacuum_naptime", "1s")
                .start()
                .await
                .unwrap();
            let admin = connect(&server.url("postgres")).await;
            admin.batch_execute("CREATE TABLESPACE elsewhere LOCATION ''").await.unwrap();
            server
        })
        .await
}

/// A target with its ledger.
struct Target {
    url: String,
    /// Where the test looks.
    admin: Client,
}

impl Target {
    /// A fresh database with these tables.
    async fn new(database: &str, schema: &str) -> Self {
        let server = server().await;
        let admin = connect(&server.url("postgres")).await;
        admin.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        let url = server.url(database);
        let admin = connect(&url).await;
        admin.batch_execute(schema).await.unwrap();
        admin.batch_execute("SET search_path = ''").await.unwrap();
        let target = Self { url, admin };
        Ledger::new(target.session().await.into(), NAME).create().await.unwrap();
        target
    }

    async fn session(&self) -> Session {
        self.session_of("postgres").await
    }

    /// A session of another role.
    async fn session_of(&self, role: &str) -> Session {
        Session::open(&self.info(role), Side::Target, "cdc test").await.unwrap()
    }

    fn info(&self, role: &str) -> ConnInfo {
        let url = self.url.replacen("postgres@", &format!("{role}@"), 1);
        ConnInfo::parse(&url, &Environment::empty().user("postgres")).unwrap()
    }

    /// Holds back, in a transaction, as the adoption of this table does.
    async fn hold_back(&self, table: &TableName, key: &[String]) -> Result<Vec<Held>> {
        self.hold_back_as("postgres", Mode::Replica, table, key).await
    }

    async fn hold_back_as(
        &self,
        role: &str,
        mode: Mode,
        table: &TableName,
        key: &[String],
    ) -> Result<Vec<Held>> {
        let mut session = self.session_of(role).await;
        let transaction = session.transaction().await.unwrap();
        let held = hold_back(&transaction, NAME, table, hold(key, mode)).await?;
        transaction.commit().await.unwrap();
        Ok(held)
    }

    /// Holds back for every table of the database that isn't a partitioned one or a bystander.
    async fn hold_back_all(&self, mode: Mode, key_of: impl Fn(&TableName) -> Vec<String>) {
        for table in self.tables().await {
            if table.name.starts_with("bystander") {
                continue;
            }
            let held = self.hold_back_as("postgres", mode, &table, &key_of(&table)).await;
            held.unwrap_or_else(|e| panic!("{table}: {e}"));
        }
    }

    async fn tables(&self) -> Vec<TableName> {
        let rows = self
            .admin
            .query(
                "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'cdc')
                  ORDER BY c.oid",
                &[],
            )
            .await
            .unwrap();
        rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect()
    }

    /// What pg_dump has about everything but the ledger, in any order, and what it leaves out.
    async fn schema(&self) -> BTreeSet<String> {
        let output = Command::new(server().await.binaries().program("pg_dump"))
            .args(["--schema-only", "--exclude-schema=cdc", "--dbname", &self.url])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        // What comes after the last object is another text each time.
        let text = text.split("--\n-- PostgreSQL database dump complete").next().unwrap();
        let mut schema: BTreeSet<String> =
            text.split("\n--\n-- Name: ").skip(1).map(|entry| entry.trim().to_owned()).collect();
        let rows = self.admin.query(include_str!("marks.sql"), &[]).await.unwrap();
        schema.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        schema
    }

    async fn assert_schema(&self, before: &BTreeSet<String>) {
        let after = self.schema().await;
        let lost: Vec<_> = before.difference(&after).collect();
        let new: Vec<_> = after.difference(before).collect();
        assert!(lost.is_empty() && new.is_empty(), "lost: {lost:#?}\nnew: {new:#?}");
    }
}

/// Waits until this counts something.
async fn until(client: &Client, sql: &str) {
    let deadline = Instant::now() + PATIENCE;
    while number(client, sql).await == 0 {
        assert!(Instant::now() < deadline, "it never came: {sql}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is held back of a small table.
fn hold(key: &[String], mode: Mode) -> Hold<'_> {
    Hold { key, others_than: None, mode }
}

/// A table of schema public.
fn table(name: &str) -> TableName {
    TableName::new("public", name)
}

/// What is held, in words.
fn words(held: &[Held]) -> Vec<String> {
    held.iter().map(|held| format!("{} {} of {}", held.kind, held.object, held.table)).collect()
}

/// The columns of a key.
fn key(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|&column| column.to_owned()).collect()
}
