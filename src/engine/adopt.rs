//! Tables that come into our publications while we stream, and those that have to leave them.
//!
//! A table that is selected and has a replica identity is made on the target, if it isn't there, and published; the
//! planner does the rest, as for any newcomer. One without an identity is never published: its UPDATEs would fail on
//! the source. One that loses it is taken out at once for the same reason, and is copied again when it has one.

use std::collections::BTreeSet;

use crate::catalog::{SourceTable, TableName};
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Result};
use crate::ledger::Ledger;
use crate::preflight::Wanted;
use crate::replication::Publication;
use crate::schema::drift::Drift;

/// What of a table it is that isn't in our publication.
const NOT_FOLLOWED: &str = "publication";

/// Brings our publications to what is selected now.
pub(super) async fn adopt(
    source: &Session,
    config: &Config,
    ledger: &Ledger,
    drift: &mut Drift,
) -> Result<()> {
    let wanted = Wanted::on(source, config).await?;
    let mut missing = Vec::new();
    for publication in wanted.ours(ledger).await? {
        let Some(published) = Publication::find(source, &publication.name).await? else { continue };
        let unusable: BTreeSet<&TableName> = match publication.insert_only {
            true => BTreeSet::new(),
            false => wanted
                .tables
                .iter()
                .filter(|table| wanted.is_unusable(table))
                .map(SourceTable::published_as)
                .collect(),
        };
        for name in published.iter().filter(|name| unusable.contains(name)) {
            take_out(source, &wanted, ledger, &publication, name).await?;
        }
        for name in publication.tables.iter().filter(|name| !published.contains(name)) {
            if !unusable.contains(name) {
                let in_the_way = take_in(source, &wanted, ledger, drift, &publication, name).await?;
                missing.extend(in_the_way.map(|fault| (name.to_string(), fault)));
            } else if ledger.has_lost_identity(&wanted.relations(name)).await? {
                ledger.record_failing(name, "plan", &wanted.without_identity(name)).await?;
            } else {
                missing.push((name.to_string(), wanted.without_identity(name)));
            }
        }
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
    ledger.resolve_warnings(NOT_FOLLOWED, &names).await?;
    for (name, fault) in &missing {
        ledger.record_warning(name, NOT_FOLLOWED, fault).await?;
    }
    ledger.resolve_dropped().await
}

/// Publishes a table that the target has, or can be given; or says what is in the way.
async fn take_in(
    source: &Session,
    wanted: &Wanted,
    ledger: &Ledger,
    drift: &mut Drift,
    publication: &Publication,
    name: &TableName,
) -> Result<Option<Fault>> {
    let tables: Vec<&SourceTable> =
        wanted.tables.iter().filter(|table| table.published_as() == name || table.name == *name).collect();
    let Some(root) = tables.iter().find(|table| table.name == *name) else { return Ok(None) };
    let relations = wanted.relations(name);
    // Somebody has taken it out, and knows why.
    if ledger.was_taken_out(&relations).await? {
        return Ok(Some(Publication::lacks(name)));
    }
    let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
    if let Some(fault) = drift.make_tables(name, &names).await? {
        return Ok(Some(fault));
    }
    if let Err(fault) = publication.add(source, name, root.is_partitioned).await {
        return if fault.passes() { Err(fault) } else { Ok(Some(fault)) };
    }
    tracing::info!(table = %name, publication = publication.name, "the source has a new table: it is followed from now on");
    Ok(None)
}

/// Takes a table out that has lost its replica identity, before anything else.
async fn take_out(
    source: &Session,
    wanted: &Wanted,
    ledger: &Ledger,
    publication: &Publication,
    name: &TableName,
) -> Result<()> {
    let relations = wanted.relations(name);
    // First, so that it is known whose doing it was.
    ledger.note_lost_identity(&relations).await?;
    publication.remove(source, name).await?;
    tracing::error!("{}", wanted.without_identity(name));
    for relation in relations {
        ledger.forget_table(relation).await?;
    }
    Ok(())
}
