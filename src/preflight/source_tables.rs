//! The source's tables: whether they can be published, read, and followed.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::finding::Finding;
use super::{Asked, Check, Wanted};
use crate::catalog::{SourceTable, TableName, quote_identifier};
use crate::config::Selection;
use crate::fault::{Fault, Result, Side};
use crate::provider;

const SIDE: Side = Side::Source;

/// A selected table: its size, and how the copy divides it.
pub(super) struct Sized {
    pub(super) name: TableName,
    /// Without indexes.
    pub(super) bytes: u64,
    pub(super) total_bytes: u64,
    pub(super) is_one_chunk: bool,
    /// Which of its parent's rows are its own, if it is a partition.
    pub(super) bounds: Option<String>,
}

/// Looks at what is selected, and at what can't be; gives the sizes of the selected tables.
pub(super) async fn look(
    check: &mut Check<'_>,
    source: &Asked,
    wanted: &Wanted,
    makes_publication: bool,
) -> Result<Vec<Sized>> {
    // Of no tables even that of the default matches none.
    for pattern in wanted.unmatched.iter().filter(|pattern| *pattern != "*.*") {
        check.add(
            Finding::warns("pattern-unmatched", SIDE, "this pattern of the configuration matches no table")
                .object(pattern)
                .why("most likely it is misspelt, and what it should select or leave out is not")
                .mend("correct it in the configuration, or take it out"),
        );
    }
    if wanted.tables.is_empty() {
        check.add(
            Finding::blocks("no-tables", SIDE, "no table of the source is selected")
                .why("there is nothing to replicate")
                .mend("check [tables] include and exclude, and that this is the right database"),
        );
    }
    not_replicated(check, source).await?;
    let oids: Vec<u32> = wanted.tables.iter().map(|table| table.oid).collect();
    let rows = source
        .session
        .query(include_str!("../../sql/catalog/check_source_tables.sql"), &[&oids])
        .await
        .map_err(|e| Fault::sql(SIDE, "looking at the tables", &e))?;
    let rows: BTreeMap<u32, &Row> = rows.iter().map(|row| (row.get("oid"), row)).collect();
    let sizes = check.looked(SIDE, sizes(source, &oids).await).unwrap_or_default();
    let mut sized = Vec::new();
    for table in &wanted.tables {
        // It may have been dropped since.
        let Some(row) = rows.get(&table.oid) else { continue };
        check.findings.extend(identity(wanted, table, row));
        check.findings.extend(rights(table, row, &source.server.role, makes_publication));
        check.findings.extend(peculiarities(table, row));
        if check.config.tables.select(table) == Selection::InsertOnly {
            check.findings.extend(insert_only(table, row));
        }
        let Some(size) = sizes.get(&table.oid) else { continue };
        let bytes = |name| u64::try_from(size.get::<_, i64>(name)).unwrap_or(0);
        sized.push(Sized {
            name: table.name.clone(),
            bytes: bytes("bytes"),
            total_bytes: bytes("total_bytes"),
            is_one_chunk: row.get("is_one_chunk"),
            bounds: size.get("bounds"),
        });
    }
    Ok(sized)
}

async fn sizes(source: &Asked, oids: &[u32]) -> Result<BTreeMap<u32, Row>> {
    let rows = source
        .session
        .query(include_str!("../../sql/catalog/check_sizes.sql"), &[&oids])
        .await
        .map_err(|e| Fault::sql(SIDE, "measuring the tables", &e))?;
    Ok(rows.into_iter().map(|row| (row.get("oid"), row)).collect())
}

/// How an UPDATE or DELETE of the table names its row.
fn identity(wanted: &Wanted, table: &SourceTable, row: &Row) -> Option<Finding> {
    let (name, sql) = (&table.name, table.name.to_sql());
    if let Some(mend) = wanted.unusable.get(name) {
        let what = if row.get("has_deferrable_key") {
            "no replica identity: its primary key is deferrable"
        } else if row.get("has_primary_key") {
            "no usable replica identity, though it has a primary key"
        } else {
            "no replica identity: it has no primary key"
        };
        let fitting = row.get::<_, Option<&str>>("fitting").or(mend.as_deref());
        let mend = fitting.map_or("give it a primary key without generated columns".to_owned(), |identity| {
            format!("ALTER TABLE {sql} REPLICA IDENTITY {identity};")
        });
        return Some(
            Finding::blocks("no-replica-identity", SIDE, what)
                .table(name)
                .why(
                    "published like this, every UPDATE and DELETE of it would fail on the source. A primary key is \
                     best; a table whose rows never change can be named in [tables] insert_only, one that isn't needed \
                     in exclude",
                )
                .mend(mend),
        );
    }
    if table.is_partitioned {
        return None;
    }
    if row.get("is_full") {
        let has_key: bool = row.get("has_primary_key");
        let finding =
            Finding::informs("replica-identity-full", SIDE, "its replica identity is FULL").table(name);
        return Some(match has_key {
            true => finding
                .why("each UPDATE and DELETE writes the whole old row to the log")
                .mend(format!("ALTER TABLE {sql} REPLICA IDENTITY DEFAULT;")),
            false => finding.why(
                "each UPDATE and DELETE writes the whole old row to the log, and the target looks for it without a \
                 key: slow if the table is large",
            ),
        });
    }
    row.get::<_, bool>("is_by_index").then(|| {
        Finding::informs("replica-identity-index", SIDE, "its replica identity is a unique index")
            .table(name)
            .why("dropping that index would make its UPDATEs and DELETEs fail on the source")
    })
}

/// What the role may do with the table.
fn rights(table: &SourceTable, row: &Row, role: &str, makes_publication: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let (name, sql, role_sql) = (&table.name, table.name.to_sql(), quote_identifier(role));
    let owner: &str = row.get("owner");
    if !row.get::<_, bool>("has_usage") {
        found.push(
            Finding::blocks(
                "no-usage-right",
                SIDE,
                format!("the role {role} has no USAGE on the table's schema"),
            )
            .table(name)
            .why("its rows can't be read")
            .mend(format!("GRANT USAGE ON SCHEMA {} TO {role_sql};", quote_identifier(&name.schema))),
        );
    }
    if !table.is_partitioned && !row.get::<_, bool>("can_select") {
        found.push(
            Finding::blocks("no-select-right", SIDE, format!("the role {role} may not read the table"))
                .table(name)
                .why("its rows can't be copied")
                .mend(format!("GRANT SELECT ON {sql} TO {role_sql};")),
        );
    }
    if makes_publication && table.root.is_none() && !row.get::<_, bool>("is_owner") {
        found.push(
            Finding::blocks("not-owner", SIDE, format!("the role {role} doesn't own the table, {owner} does"))
                .table(name)
                .why("only its owner can add a table to a publication")
                .mend(format!(
                    "ALTER TABLE {sql} OWNER TO {role_sql}; or connect as {owner}, or: GRANT {owner} TO {role_sql};"
                )),
        );
    }
    if row.get("is_hidden_by_policies") {
        let is_owner: bool = row.get("is_owner");
        let mend = match is_owner {
            true => format!(
                "as a superuser: ALTER ROLE {role_sql} BYPASSRLS; or: ALTER TABLE {sql} NO FORCE ROW LEVEL SECURITY;"
            ),
            false => {
                format!("as a superuser: ALTER ROLE {role_sql} BYPASSRLS; or connect as the owner, {owner}")
            }
        };
        found.push(
            Finding::blocks(
                "row-level-security",
                SIDE,
                "row-level security would hide rows of the table from us",
            )
            .table(name)
            .why("reading it fails then (row_security = off), so that no row is left out silently")
            .mend(mend),
        );
    }
    for sequence in row.get::<_, Vec<String>>("hidden_sequences") {
        found.push(
            Finding::warns("no-sequence-right", SIDE, format!("the role {role} may not read the sequence"))
                .object(&sequence)
                .why("sequences are brought along at the cutover, and cdc verify looks at them")
                .mend(format!("GRANT SELECT ON SEQUENCE {sequence} TO {role_sql};")),
        );
    }
    found
}

/// What is different about the table, and no harm.
fn peculiarities(table: &SourceTable, row: &Row) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut inform = |code, what: &str, why: &str| {
        found.push(Finding::informs(code, SIDE, what).table(&table.name).why(why));
    };
    if row.get("is_inherited") {
        inform(
            "inheritance",
            "the table inherits from another one, or another one from it",
            "each table of the tree is replicated with its own rows",
        );
    }
    // A partition's columns are its parent's.
    if table.root.is_none() && row.get("has_generated") {
        inform("generated-columns", "it has generated columns", "the target computes them by itself");
    }
    if table.root.is_none() && row.get("has_identity") {
        inform(
            "identity-columns",
            "it has identity columns",
            "values are carried over as they are; the sequences behind them follow at the cutover",
        );
    }
    found
}

fn insert_only(table: &SourceTable, row: &Row) -> Option<Finding> {
    let updated: i64 = row.get("updated");
    (updated > 0).then(|| {
        Finding::warns(
            "insert-only-updated",
            SIDE,
            format!("it is declared insert_only, but {updated} of its rows have been updated or deleted"),
        )
        .table(&table.name)
        .why("only INSERT and TRUNCATE of it are replicated, and the target would be wrong after the next UPDATE")
        .mend(format!(
            "take it out of [tables] insert_only, and: ALTER TABLE {} REPLICA IDENTITY FULL;",
            table.name.to_sql()
        ))
    })
}

/// What no publication can carry.
async fn not_replicated(check: &mut Check<'_>, source: &Asked) -> Result<()> {
    let fault = |e| Fault::sql(SIDE, "looking for what can't be replicated", &e);
    let rows = source
        .session
        .query(include_str!("../../sql/catalog/check_not_replicated.sql"), &[&provider::INTERNAL_SCHEMAS])
        .await
        .map_err(fault)?;
    for row in rows {
        let name = TableName::new(row.get::<_, &str>("schema"), row.get::<_, &str>("name"));
        if !check.config.tables.selects(&name) {
            continue;
        }
        let finding = match row.get("kind") {
            "unlogged" => {
                Finding::warns("unlogged-table", SIDE, "the table is unlogged, and is not replicated")
                    .why("its changes are not in the log that the stream comes from")
                    .mend(format!("ALTER TABLE {} SET LOGGED; or name it in [tables] exclude", name.to_sql()))
            }
            "foreign" => {
                Finding::informs("foreign-table", SIDE, "the table is a foreign one, and is not replicated")
                    .why("its rows are on another server")
            }
            _ => Finding::informs("materialized-view", SIDE, "a materialized view is not replicated")
                .why("it has to be refreshed on the target after the cutover"),
        };
        check.add(finding.table(&name));
    }
    let large_objects =
        "SELECT count(*) FROM (SELECT FROM pg_catalog.pg_largeobject_metadata LIMIT 1000000) AS o";
    let count: i64 = source.session.query_one(large_objects, &[]).await.map_err(fault)?.get(0);
    if count > 0 {
        check.add(
            Finding::warns(
                "large-objects",
                SIDE,
                format!("there are {count} large objects, which are not replicated"),
            )
            .why("no publication carries them; columns that refer to them (oid, lo) would refer to nothing")
            .mend(
                "carry them over by hand (pg_dump --large-objects), or keep their contents in bytea columns",
            ),
        );
    }
    Ok(())
}
