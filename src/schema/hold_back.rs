//! Taking constraints off a table before it is copied.

use std::collections::HashMap;

use serde::Serialize;
use tokio_postgres::{Client, GenericClient, Row};

use super::{locks, take_lock};
use crate::catalog::{TableName, quote_identifier};
use crate::fault::{Fault, Result, Side};
use crate::limits;

const INDEXES: &str = include_str!("../../sql/catalog/held_indexes.sql");
const FOREIGN_KEYS: &str = include_str!("../../sql/catalog/held_foreign_keys.sql");

/// Something that is held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The table that it belongs to, as `schema.table`.
    pub table: String,
    /// `index`, `constraint` or `foreign key`.
    pub kind: String,
    /// Its name.
    pub object: String,
    /// Since when, in RFC 3339.
    pub held_at: String,
}

/// Takes off the table of the target what could refuse two of its rows that never existed together,
/// and records how to put it back, all in the transaction that is open on `client`.
///
/// These are its foreign keys, and, unless `key` is empty, its unique indexes, unique and primary key
/// constraints and exclusion constraints, together with the foreign keys of whatever table that refer to
/// one of these. What is unique over exactly the columns `key` stays: the key that the table's chunks are
/// ranges of. An empty `key` says that the table is one chunk, which has only rows that existed together.
///
/// An object that is recorded already (it could be put back only in part) keeps its first record.
///
/// The transaction is to be a short one from here on: tables that the stream applies to may be locked.
///
/// # Errors
/// With SQLSTATE 55P03 if a lock wasn't to be had in a moment: roll back, and try again. A fault for a
/// person if something could not be put back by this role, or something else depends on it. After
/// either the transaction can only be rolled back.
pub async fn hold_back(
    client: &impl GenericClient,
    name: &str,
    table: &TableName,
    key: &[String],
) -> Result<Vec<Held>> {
    let fault = |e| {
        Fault::sql(Side::Target, "holding constraints back while rows are copied", &e)
            .table(table.to_string())
    };
    take_lock(client, "pg_try_advisory_xact_lock_shared", name).await?;
    let seen = find(client, table, key).await.map_err(fault)?;
    if seen.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(fault) = seen.iter().find_map(Found::not_to_be_put_back) {
        return Err(fault);
    }
    let tables: Vec<String> = seen.iter().flat_map(Found::tables).collect();
    let begin = locks::begin_ddl(client, &tables).await.map_err(fault)?;
    client.batch_execute(&begin).await.map_err(fault)?;
    // Nobody changes them any more.
    let found = find(client, table, key).await.map_err(fault)?;
    let held = record(client, name, &found).await.map_err(fault)?;
    for found in &found {
        if let Some(take_off) = found.row.get::<_, Option<&str>>("take_off") {
            client.batch_execute(take_off).await.map_err(|e| found.not_taken_off(&e))?;
        }
    }
    client.batch_execute("SET LOCAL lock_timeout = 0").await.map_err(fault)?;
    Ok(held)
}

/// The same in a transaction of its own, for a table whose rows are there.
///
/// # Errors
/// As of [`hold_back`].
pub async fn hold_back_now(
    client: &Client,
    name: &str,
    table: &TableName,
    key: &[String],
) -> Result<Vec<Held>> {
    let fault = |e| Fault::sql(Side::Target, "holding constraints back", &e).table(table.to_string());
    // A short wait: whoever waits for us must not be the one that is given up.
    let begin = format!("BEGIN; SET LOCAL lock_timeout = {}", limits::DDL_LOCK_WAIT_MS);
    client.batch_execute(&begin).await.map_err(fault)?;
    let held = hold_back(client, name, table, key).await?;
    client.batch_execute("COMMIT").await.map_err(fault)?;
    Ok(held)
}

/// What is held back and not yet put back, in the order in which it was taken off.
///
/// # Errors
/// If the target can't be asked.
pub async fn held(client: &impl GenericClient, name: &str) -> Result<Vec<Held>> {
    let rows = client
        .query(
            "SELECT schema_name, table_name, kind, object_name, pg_catalog.to_json(held_at) #>> '{}'
               FROM cdc.held_back WHERE name = $1 AND put_back_at IS NULL ORDER BY id",
            &[&name],
        )
        .await
        .map_err(|e| Fault::sql(Side::Target, "reading what is held back (cdc.held_back)", &e))?;
    Ok(rows
        .iter()
        .map(|row| Held {
            table: TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)).to_string(),
            kind: row.get(2),
            object: row.get(3),
            held_at: row.get(4),
        })
        .collect())
}

/// An index or constraint as one of the two queries describes it.
struct Found {
    row: Row,
}

impl Found {
    fn table(&self) -> TableName {
        TableName::new(self.row.get::<_, &str>("schema_name"), self.row.get::<_, &str>("table_name"))
    }

    /// The tables that are locked when it comes or goes, quoted.
    fn tables(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.table().to_sql()).chain(self.row.get::<_, Option<String>>("refers_to"))
    }

    fn describe(&self) -> String {
        let (kind, object): (&str, &str) = (self.row.get("kind"), self.row.get("object_name"));
        format!("{kind} {}", quote_identifier(object))
    }

    /// Nothing is dropped that this role couldn't make again.
    fn not_to_be_put_back(&self) -> Option<Fault> {
        let lacks: &str = self.row.get::<_, Option<&str>>("lacks")?;
        let what = format!(
            "the {} must be off while rows are copied, and this role could not put it back",
            self.describe()
        );
        Some(
            Fault::person(what)
                .on(Side::Target)
                .table(self.table().to_string())
                .remedy(format!("run: {lacks}")),
        )
    }

    fn not_taken_off(&self, error: &tokio_postgres::Error) -> Fault {
        let doing = format!("taking off the {} while rows are copied", self.describe());
        let fault = Fault::sql(Side::Target, &doing, error).table(self.table().to_string());
        match fault.code().map(|code| code.code()) {
            Some("2BP01") => {
                fault.remedy("drop what depends on it (it can be made again when the copy is over)")
            }
            _ => fault,
        }
    }
}

/// What is to be taken off, in that order: foreign keys before what they refer to, wholes before parts.
async fn find(
    client: &impl GenericClient,
    table: &TableName,
    key: &[String],
) -> Result<Vec<Found>, tokio_postgres::Error> {
    let indexes = client.query(INDEXES, &[&table.schema, &table.name, &key]).await?;
    let oids: Vec<u32> = indexes.iter().map(|row| row.get("oid")).collect();
    let foreign_keys = client.query(FOREIGN_KEYS, &[&table.schema, &table.name, &oids]).await?;
    Ok(foreign_keys.into_iter().chain(indexes).map(|row| Found { row }).collect())
}

/// Writes it down in that order.
async fn record(
    client: &impl GenericClient,
    name: &str,
    found: &[Found],
) -> Result<Vec<Held>, tokio_postgres::Error> {
    let insert = client
        .prepare(
            "INSERT INTO cdc.held_back AS h (name, part_of, schema_name, table_name, kind, object_name,
                                             refers_to, tablespace, build, put_back, validate)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (name, schema_name, table_name, kind, object_name) WHERE put_back_at IS NULL
             DO UPDATE SET part_of = coalesce(excluded.part_of, h.part_of)
             RETURNING id, pg_catalog.to_json(held_at) #>> '{}'",
        )
        .await?;
    // An index and a foreign key can have the same oid.
    let mut ids: HashMap<(bool, u32), i64> = HashMap::new();
    let mut held = Vec::with_capacity(found.len());
    for found in found {
        let row = &found.row;
        let (kind, object): (String, String) = (row.get("kind"), row.get("object_name"));
        let table = found.table();
        let is_foreign_key = kind == "foreign key";
        let part_of = row
            .get::<_, Option<u32>>("parent")
            .and_then(|parent| ids.get(&(is_foreign_key, parent)))
            .copied();
        let recorded = client
            .query_one(
                &insert,
                &[
                    &name,
                    &part_of,
                    &table.schema,
                    &table.name,
                    &kind,
                    &object,
                    &row.get::<_, Option<&str>>("refers_to"),
                    &row.get::<_, &str>("tablespace"),
                    &row.get::<_, Option<&str>>("build"),
                    &row.get::<_, Vec<&str>>("put_back"),
                    &row.get::<_, Option<&str>>("validate"),
                ],
            )
            .await?;
        ids.insert((is_foreign_key, row.get("oid")), recorded.get(0));
        held.push(Held { table: table.to_string(), kind, object, held_at: recorded.get(1) });
    }
    Ok(held)
}
