//! Whether the direction can be turned: what the target needs to send, and the source to be written to.
//!
//! The ends are called as the migration runs now: before a cutover, `target` is the database that will send.

use std::collections::BTreeSet;

use super::finding::Finding;
use super::server::{Server, no_create};
use super::{Severity, Wanted, target};
use crate::catalog::{TableName, missing_on_target, published};
use crate::config::Config;
use crate::connect::{Mode, Session};
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::replication::Walsender;
use crate::schema;

/// What stands in the way of a turn, and what it does to the source. Changes nothing.
///
/// # Errors
/// If a database can't be asked.
pub async fn way_back(now: &Config) -> Result<Vec<Finding>> {
    let application = format!("cdc_{} check", now.name);
    let source = Session::open(&now.source, Side::Source, &application).await?;
    let target = std::sync::Arc::new(Session::open(&now.target, Side::Target, &application).await?);
    let mut found = can_send(now, &target).await?;
    found.extend(can_be_written(&source).await?);
    let publications = Ledger::new(std::sync::Arc::clone(&target), &now.name).publications().await?;
    let followed = published(&source, &publications).await?;
    found.extend(followed.iter().filter_map(|table| in_part(table.row_filter.is_some(), &table.name)));
    for name in with_column_lists(&source, &publications).await? {
        found.extend(in_part(true, &name));
    }
    let names = followed.into_iter().map(|table| table.root.unwrap_or(table.name)).collect();
    found.extend(tables(now, (&source, &target), &names).await?);
    found.dedup();
    Ok(found)
}

async fn can_send(now: &Config, session: &Session) -> Result<Vec<Finding>> {
    let server = Server::read(session, Side::Target).await?;
    let mut found: Vec<Finding> = target::way_back(&server).into_iter().collect();
    if !server.can_create {
        found.push(no_create(&server, "a publication, which says what is sent back, has to be made"));
    }
    if found.is_empty() {
        let application = format!("cdc_{} check", now.name);
        if let Err(fault) = Walsender::connect(&now.target, Side::Target, &application).await {
            found.push(Finding::of_fault("no-way-back", &fault).why(
                "after the switch the target's changes are read through a replication connection to it",
            ));
        }
    }
    Ok(found.into_iter().map(|finding| finding.severity(Severity::Blocks)).collect())
}

async fn can_be_written(session: &Session) -> Result<Vec<Finding>> {
    let server = Server::read(session, Side::Source).await?;
    let mut found = Vec::new();
    if !server.can_create {
        found.push(no_create(&server, "the ledger of the way back (schema cdc) has to be made"));
    }
    if session.mode().await? == Mode::Owner {
        found.push(
            Finding::informs(
                "no-replica-role",
                Side::Source,
                format!("the role {} may not set session_replication_role", server.role),
            )
            .object(&server.role)
            .why(
                "while rows come back, triggers and rules of the source are switched off table by table, and its foreign \
                 keys are taken off; all of it is put back with the next turn, or by cdc drop",
            ),
        );
    }
    Ok(found)
}

/// A table of which the target has only a part can't be sent back: what it lacks would be taken for empty.
fn in_part(is_partial: bool, name: &TableName) -> Option<Finding> {
    is_partial.then(|| {
        Finding::blocks(
            "in-part",
            Side::Source,
            "a publication that was made by hand leaves rows or columns of it out",
        )
        .table(name)
        .why("the target has a part of the table only; sent back, that would overwrite what it lacks")
        .mend("take the row filter and the column list away, or set cutover.reverse = false")
    })
}

async fn with_column_lists(source: &Session, publications: &[String]) -> Result<Vec<TableName>> {
    // PostgreSQL 14 has none.
    let sql = "SELECT n.nspname::text, c.relname::text
                 FROM pg_catalog.pg_publication_rel AS r
                 JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid
                 JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE p.pubname = ANY ($1) AND pg_catalog.to_jsonb(r) ->> 'prattrs' IS NOT NULL
                ORDER BY 1, 2";
    let rows = source.query(sql, &[&publications]).await;
    let rows = rows.map_err(|e| Fault::sql(Side::Source, "reading the publications", &e))?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
}

async fn tables(
    now: &Config,
    (source, target): (&Session, &Session),
    names: &BTreeSet<TableName>,
) -> Result<Vec<Finding>> {
    let next = now.facing(now.direction.turned());
    let mut wanted = Wanted::on(target, &next).await.map_err(Fault::swapped)?;
    wanted.keep(names);
    let mut found = Vec::new();
    for (name, mend) in &wanted.unusable {
        let finding =
            Finding::blocks("no-replica-identity", Side::Target, "the table has no replica identity there")
                .table(name)
                .why("its UPDATEs and DELETEs can't be sent back, and published like this they would fail");
        found.push(match mend {
            Some(mend) => finding.mend(format!("ALTER TABLE {} REPLICA IDENTITY {mend};", name.to_sql())),
            None => finding.mend("give it a primary key without generated columns, as the source's has"),
        });
    }
    let all: Vec<_> = wanted.tables.iter().collect();
    for lacks in missing_on_target(source, &all).await.map_err(Fault::swapped)? {
        found.push(
            Finding::blocks(
                "only-on-target",
                Side::Source,
                format!("the source lacks the {lacks}, which the target has"),
            )
            .why("the target's rows could not be written to the source")
            .mend("make it on the source as it is on the target, or drop it on the target"),
        );
    }
    let mode = source.mode().await?;
    let receivers = wanted.targets(source).await.map_err(Fault::swapped)?;
    for fault in schema::not_to_be_put_back(&**source, &receivers, mode).await.map_err(Fault::swapped)? {
        let fault = fault.swapped();
        found.push(
            Finding::of_fault("not-put-back", &fault).why("the source is written to while rows come back"),
        );
    }
    Ok(found)
}
