//! Taking off a table's constraints before it is copied, and what would act on its rows before any come.

use std::collections::HashMap;

use serde::Serialize;
use tokio_postgres::{Client, GenericClient, Row};

use super::{Until, locks, take_lock};
use crate::catalog::{TableName, quote_identifier};
use crate::connect::Mode;
use crate::fault::{Fault, Result, Side};
use crate::limits;

const INDEXES: &str = include_str!("../../sql/catalog/held_indexes.sql");
const FOREIGN_KEYS: &str = include_str!("../../sql/catalog/held_foreign_keys.sql");
const SWITCHES: &str = include_str!("../../sql/catalog/held_switches.sql");

/// Something that is held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The table that it belongs to, as `schema.table`.
    pub table: String,
    /// `index`, `constraint`, `foreign key`, `trigger`, `rule`, or `setting` (FORCE ROW LEVEL SECURITY).
    pub kind: String,
    /// Its name.
    pub object: String,
    /// Until when: `copy` or `cutover`.
    pub until: String,
    /// Since when, in RFC 3339.
    pub held_at: String,
}

/// Takes off the table of the target what could refuse two of its rows that never existed together, and
/// all that [`silence`] takes off; records how to put it back, all in the transaction that is open on `client`.
///
/// These are its foreign keys, and, unless `key` is empty, its unique indexes, unique and primary key
/// constraints and exclusion constraints, together with the foreign keys of whatever table that refer to
/// one of these. What is unique over exactly the columns `key` stays: the key that the table's chunks are
/// ranges of. An empty `key` says that the table is one chunk, which has only rows that existed together.
/// With [`Hold::others_than`] the other indexes, too: it is quicker to build one when the rows are there.
///
/// An object that is recorded already (it could be put back only in part) keeps its first record; one that
/// was switched on again meanwhile is recorded as it is now.
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
    hold: Hold<'_>,
) -> Result<Vec<Held>> {
    take_lock(client, "pg_try_advisory_xact_lock_shared", name, Until::Copy).await?;
    take_off(client, name, &Wanted { table, copied: Some((hold.key, hold.others_than)), mode: hold.mode })
        .await
}

/// What is held back of a table that is copied.
#[derive(Clone, Copy, Debug)]
pub struct Hold<'a> {
    /// The key that its chunks are ranges of.
    pub key: &'a [String],
    /// Indexes that are not unique, too, unless they begin with one of these columns, by which the stream finds
    /// rows; `None` if they all stay.
    pub others_than: Option<&'a [String]>,
    /// How rows are written to it.
    pub mode: Mode,
}

/// Takes off the table of the target what would act on rows that are replicated to it in this mode, until
/// the cutover: triggers and rules, FORCE ROW LEVEL SECURITY, and for an ordinary owner all foreign keys of
/// the table and those that refer to it. Otherwise as [`hold_back`].
///
/// Whoever makes one of these on a table that is in the stream already calls this in the same transaction;
/// what somebody else makes is found within [`limits::HEALTH_INTERVAL`], and acts until then.
///
/// # Errors
/// As of [`hold_back`].
pub async fn silence(
    client: &impl GenericClient,
    name: &str,
    table: &TableName,
    mode: Mode,
) -> Result<Vec<Held>> {
    take_off(client, name, &Wanted { table, copied: None, mode }).await
}

/// What of a table is to be taken off.
struct Wanted<'a> {
    table: &'a TableName,
    /// Key and other indexes, as [`Hold`] has them; `None` if only what acts on replicated rows is.
    copied: Option<(&'a [String], Option<&'a [String]>)>,
    mode: Mode,
}

async fn take_off(client: &impl GenericClient, name: &str, wanted: &Wanted<'_>) -> Result<Vec<Held>> {
    let fault = |e| {
        let doing = "holding back what would refuse or change replicated rows";
        Fault::sql(Side::Target, doing, &e).table(wanted.table.to_string())
    };
    take_lock(client, "pg_try_advisory_xact_lock_shared", name, Until::Cutover).await?;
    let seen = find(client, wanted).await.map_err(fault)?;
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
    let found = find(client, wanted).await.map_err(fault)?;
    let held = record(client, name, &found).await.map_err(fault)?;
    for found in &found {
        if let Some(take_off) = found.row.get::<_, Option<&str>>("take_off") {
            client.batch_execute(take_off).await.map_err(|e| found.not_taken_off(&e))?;
        }
    }
    client.batch_execute("SET LOCAL lock_timeout = 0").await.map_err(fault)?;
    Ok(held)
}

/// The same as [`hold_back`] in a transaction of its own, for a table whose rows are there.
///
/// # Errors
/// As of [`hold_back`].
pub async fn hold_back_now(
    client: &Client,
    name: &str,
    table: &TableName,
    hold: Hold<'_>,
) -> Result<Vec<Held>> {
    begin(client, table).await?;
    let held = hold_back(client, name, table, hold).await?;
    commit(client, table).await?;
    Ok(held)
}

/// The same as [`silence`] in a transaction of its own.
///
/// # Errors
/// As of [`hold_back`].
pub async fn silence_now(client: &Client, name: &str, table: &TableName, mode: Mode) -> Result<Vec<Held>> {
    begin(client, table).await?;
    let held = silence(client, name, table, mode).await?;
    commit(client, table).await?;
    Ok(held)
}

async fn begin(client: &Client, table: &TableName) -> Result<()> {
    // A short wait: whoever waits for us must not be the one that is given up.
    let begin = format!("BEGIN; SET LOCAL lock_timeout = {}", limits::DDL_LOCK_WAIT_MS);
    client.batch_execute(&begin).await.map_err(|e| {
        Fault::sql(Side::Target, "beginning to hold something back", &e).table(table.to_string())
    })
}

async fn commit(client: &Client, table: &TableName) -> Result<()> {
    client
        .batch_execute("COMMIT")
        .await
        .map_err(|e| Fault::sql(Side::Target, "holding something back", &e).table(table.to_string()))
}

/// What of these tables, if they are there, could not be put back by this role: foreign keys, and what is
/// switched off. Takes nothing off.
///
/// # Errors
/// If the target can't be asked.
pub async fn not_to_be_put_back(
    client: &impl GenericClient,
    tables: &[TableName],
    mode: Mode,
) -> Result<Vec<Fault>> {
    let fault = |e| Fault::sql(Side::Target, "looking at what is held back while rows are replicated", &e);
    let mut rows = foreign_keys(client, tables, &[], mode).await.map_err(fault)?;
    rows.extend(switches(client, tables, mode).await.map_err(fault)?);
    Ok(rows.into_iter().filter_map(|row| Found { row, until: Until::Copy }.not_to_be_put_back()).collect())
}

/// What is held back and not yet put back, in the order in which it was taken off.
///
/// # Errors
/// If the target can't be asked.
pub async fn held(client: &impl GenericClient, name: &str) -> Result<Vec<Held>> {
    let rows = client
        .query(
            "SELECT schema_name, table_name, kind, object_name, until, pg_catalog.to_json(held_at) #>> '{}'
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
            until: row.get(4),
            held_at: row.get(5),
        })
        .collect())
}

/// Something that is to be taken off, as one of the queries describes it.
struct Found {
    row: Row,
    until: Until,
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
            "the {} must be off while rows are replicated, and this role could not put it back",
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
        let doing = format!("taking off the {} while rows are replicated", self.describe());
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
async fn find(client: &impl GenericClient, wanted: &Wanted<'_>) -> Result<Vec<Found>, tokio_postgres::Error> {
    let Wanted { table, copied, mode } = wanted;
    let indexes = match copied {
        // Without either no index is one of those, and a database can have many small tables.
        Some((key, others)) if !key.is_empty() || others.is_some() => {
            client.query(INDEXES, &[&table.schema, &table.name, key, others]).await?
        }
        Some(_) | None => Vec::new(),
    };
    let oids: Vec<u32> = indexes.iter().map(|row| row.get("oid")).collect();
    let tables = std::slice::from_ref(*table);
    let foreign_keys = if copied.is_some() || *mode == Mode::Owner {
        foreign_keys(client, tables, &oids, *mode).await?
    } else {
        Vec::new()
    };
    let until = |until: Until| move |row: Row| Found { row, until };
    let keys_until = if *mode == Mode::Owner { Until::Cutover } else { Until::Copy };
    let keys = foreign_keys.into_iter().map(until(keys_until));
    let switches = switches(client, tables, *mode).await?.into_iter().map(until(Until::Cutover));
    Ok(switches.chain(keys).chain(indexes.into_iter().map(until(Until::Copy))).collect())
}

/// What of these tables would act on replicated rows and can be switched off.
pub(super) async fn switches(
    client: &impl GenericClient,
    tables: &[TableName],
    mode: Mode,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (schemas, names) = names(tables);
    client.query(SWITCHES, &[&schemas, &names, &(mode == Mode::Replica)]).await
}

/// The foreign keys of these tables, and those that refer to one of these indexes (oids); for an ordinary
/// owner all those that refer to the tables.
pub(super) async fn foreign_keys(
    client: &impl GenericClient,
    tables: &[TableName],
    indexes: &[u32],
    mode: Mode,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (schemas, names) = names(tables);
    client.query(FOREIGN_KEYS, &[&schemas, &names, &indexes, &(mode == Mode::Owner)]).await
}

fn names(tables: &[TableName]) -> (Vec<&str>, Vec<&str>) {
    tables.iter().map(|table| (&*table.schema, &*table.name)).unzip()
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
                                             refers_to, tablespace, build, put_back, validate, until)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             ON CONFLICT (name, schema_name, table_name, kind, object_name) WHERE put_back_at IS NULL
             DO UPDATE SET part_of = coalesce(excluded.part_of, h.part_of),
                           put_back = CASE WHEN h.kind IN ('trigger', 'rule') THEN excluded.put_back
                                           ELSE h.put_back END,
                           until = CASE WHEN 'cutover' IN (h.until, excluded.until) THEN 'cutover' ELSE 'copy' END
             RETURNING id, pg_catalog.to_json(held_at) #>> '{}'",
        )
        .await?;
    // Two of different catalogs can have the same oid.
    let mut ids: HashMap<(String, u32), i64> = HashMap::new();
    let mut held = Vec::with_capacity(found.len());
    for found in found {
        let row = &found.row;
        let (kind, object): (String, String) = (row.get("kind"), row.get("object_name"));
        let table = found.table();
        // An index and its constraint are one.
        let what = if kind == "constraint" { "index".to_owned() } else { kind.clone() };
        let part_of =
            row.get::<_, Option<u32>>("parent").and_then(|parent| ids.get(&(what.clone(), parent))).copied();
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
                    &found.until.as_str(),
                ],
            )
            .await?;
        ids.insert((what, row.get("oid")), recorded.get(0));
        let until = found.until.as_str().to_owned();
        held.push(Held { table: table.to_string(), kind, object, until, held_at: recorded.get(1) });
    }
    Ok(held)
}
