//! The publications on the source: making those that are missing, and watching over them.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::Client;

use crate::catalog::{Published, SourceTable, TableName};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::preflight::Wanted;
use crate::replication::Publication;

impl Wanted {
    /// Empties the tables of the target that take rows of partitions which the target lacks: no chunk of
    /// these could be told apart there.
    pub(super) async fn delete_mixed(&self, target: &Client) -> Result<()> {
        let parts: Vec<&SourceTable> =
            self.tables.iter().filter(|t| !t.is_partitioned && t.root.is_some()).collect();
        let names: Vec<String> = parts.iter().map(|table| table.name.to_sql()).collect();
        let roots: Vec<String> = parts.iter().map(|table| table.published_as().to_sql()).collect();
        let fault =
            |e| Fault::sql(Side::Target, "emptying the parents of partitions that the target lacks", &e);
        let rows = target
            .query(
                "SELECT DISTINCT root FROM unnest($1::text[], $2::text[]) AS t (name, root)
                  WHERE pg_catalog.to_regclass(name) IS NULL AND pg_catalog.to_regclass(root) IS NOT NULL",
                &[&names, &roots],
            )
            .await
            .map_err(fault)?;
        for row in rows {
            let root: &str = row.get(0);
            target.batch_execute(&format!("DELETE FROM {root}")).await.map_err(fault)?;
        }
        Ok(())
    }

    /// Asks the source whether it would let us make the publications that are missing.
    pub(super) async fn rehearse(&self, source: &Client) -> Result<()> {
        for publication in &self.publications {
            if Publication::find(source, &publication.name).await?.is_none() {
                publication.rehearse(source, &self.partitioned()).await?;
            }
        }
        Ok(())
    }

    /// The parents of partitions.
    fn partitioned(&self) -> Vec<TableName> {
        self.tables.iter().filter(|t| t.is_partitioned).map(|t| t.name.clone()).collect()
    }

    /// The publications that we have made.
    pub(super) async fn ours(&self, ledger: &Ledger) -> Result<Vec<Publication>> {
        let ours = ledger.publications_created().await?;
        Ok(self.publications.iter().filter(|p| ours.contains(&p.name)).cloned().collect())
    }

    /// The names of the publications.
    pub(crate) fn names(&self) -> Vec<String> {
        self.publications.iter().map(|p| p.name.clone()).collect()
    }

    /// Makes the publications, or finds those made by hand. True if one of them was made now: a slot
    /// from before can't be decoded with it.
    pub(crate) async fn publish(&self, source: &Client, ledger: &Ledger) -> Result<bool> {
        let ours = ledger.publications_created().await?;
        let partitioned = self.partitioned();
        let mut has_made_one = false;
        for publication in &self.publications {
            match Publication::find(source, &publication.name).await? {
                Some(tables) if !ours.contains(&publication.name) => {
                    tracing::info!(
                        publication = publication.name,
                        tables = tables.len(),
                        "the publication was made by hand and is used as it is"
                    );
                }
                Some(tables) if tables == publication.tables => {}
                // One of ours from an earlier start that was interrupted; the configuration or the
                // source's tables have changed since. Nothing has been decoded with it yet.
                Some(_) => {
                    let name = crate::catalog::quote_identifier(&publication.name);
                    source
                        .batch_execute(&format!("DROP PUBLICATION {name}"))
                        .await
                        .map_err(|e| Fault::sql(Side::Source, "making the publication anew", &e))?;
                    publication.create(source, &partitioned).await?;
                    has_made_one = true;
                }
                None => {
                    ledger.record_publication(&publication.name).await?;
                    publication.create(source, &partitioned).await?;
                    has_made_one = true;
                    tracing::info!(
                        publication = publication.name,
                        tables = publication.tables.len(),
                        "made the publication"
                    );
                }
            }
        }
        Ok(has_made_one)
    }
}

/// The publications of a migration that has a slot. All of them must still be there: PostgreSQL
/// misses a publication only when the first change comes, and from 18 on leaves out what it held.
pub(super) async fn existing(source: &Client, ledger: &Ledger) -> Result<Vec<String>> {
    let publications = ledger.publications().await?;
    for name in &publications {
        if Publication::find(source, name).await?.is_none() {
            return Err(Publication::gone(name));
        }
    }
    Ok(publications)
}

/// Forgets tables that have been taken out of the publications, also if they are back by now: nobody knows
/// what they have missed. With one of them the stream has to begin anew.
pub(super) async fn refuse_removed(
    source: &Client,
    before: &[Published],
    now: &[Published],
    ledger: &Ledger,
) -> Result<()> {
    let mut has_forgotten = false;
    let now: HashMap<u32, &str> = now.iter().map(|table| (table.oid, table.membership.as_str())).collect();
    for table in before {
        let membership = now.get(&table.oid);
        if membership == Some(&table.membership.as_str()) {
            continue;
        }
        let exists = source
            .query_opt("SELECT FROM pg_catalog.pg_class WHERE oid = $1", &[&table.oid])
            .await
            .map_err(|e| Fault::sql(Side::Source, "looking for a table", &e))?
            .is_some();
        if exists {
            ledger.forget_table(table.oid).await?;
            has_forgotten = true;
        } else {
            tracing::warn!(table = %table.name, "the source has dropped the table");
            ledger.record_dropped(&table.name).await?;
        }
    }
    match has_forgotten {
        true => Err(Fault::retry("tables were taken out of the publication: the stream begins anew without them, and what is back is copied again").on(Side::Source)),
        false => Ok(()),
    }
}

/// Refuses publications of ours that somebody has changed. What they leave out meanwhile is in no stream,
/// so their tables are to be copied again.
pub(super) async fn refuse_changed(source: &Client, ours: &[Publication], ledger: &Ledger) -> Result<()> {
    for publication in ours {
        if let Some((fault, left_out)) = publication.change(source).await? {
            for relation in left_out {
                ledger.forget_table(relation).await?;
            }
            ledger.set_inconsistent().await?;
            return Err(fault);
        }
    }
    Ok(())
}

/// Warns about selected tables that publications which were made by hand leave out.
pub(super) async fn warn_of_unpublished(
    source: &Session,
    wanted: &Wanted,
    publications: &[String],
    ledger: &Ledger,
) -> Result<()> {
    let mut published = Vec::new();
    for name in publications {
        published.extend(Publication::find(source, name).await?.unwrap_or_default());
    }
    let ours = ledger.publications_created().await?;
    let by_hand = wanted.publications.iter().filter(|publication| !ours.contains(&publication.name));
    let selected: BTreeSet<&TableName> = by_hand.flat_map(|publication| &publication.tables).collect();
    for table in selected {
        if !published.contains(table) {
            let fault = Publication::lacks(table);
            tracing::warn!("{fault}");
            ledger.record_incident(crate::ledger::Severity::Warning, &fault).await?;
        }
    }
    Ok(())
}
