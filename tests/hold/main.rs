//! Constraints are held back while rows are copied, and are then exactly what they were.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod exact;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::process::Command;

use cdc::catalog::TableName;
use cdc::connect::{ConnInfo, Environment, Session};
use cdc::demo::Cluster;
use cdc::fault::{Result, Side};
use cdc::ledger::Ledger;
use cdc::schema::{Held, hold_back};
use support::pair::connect;
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
        let info = ConnInfo::parse(&self.url, &Environment::empty().user("postgres")).unwrap();
        Session::open(&info, Side::Target, "cdc test").await.unwrap()
    }

    /// Holds back, in a transaction, as the adoption of this table does.
    async fn hold_back(&self, table: &TableName, key: &[String]) -> Result<Vec<Held>> {
        let mut session = self.session().await;
        let transaction = session.transaction().await.unwrap();
        let held = hold_back(&transaction, NAME, table, key).await?;
        transaction.commit().await.unwrap();
        Ok(held)
    }

    /// Holds back for every table of the database that isn't a partitioned one; the key of each is its
    /// replica identity if that is the primary key, or these columns of it.
    async fn hold_back_all(&self, key_of: impl Fn(&TableName) -> Vec<String>) {
        for table in self.tables().await {
            self.hold_back(&table, &key_of(&table)).await.unwrap_or_else(|e| panic!("{table}: {e}"));
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

/// The columns of a key.
fn key(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|&column| column.to_owned()).collect()
}
