//! Partitions whose rows would meet in one partition of the target.
//!
//! A partition that the target lacks goes through its topmost parent, wherever its rows belong there. If that
//! can be a partition which takes another of the source's under the same name, nobody could tell their rows
//! apart any more: to copy the one again, or to truncate it, would remove the other's.

use tokio_postgres::Client;

use crate::catalog::{PublishedTable, TableName, TargetTable, published_names};
use crate::fault::{Fault, Result, Side};

/// Refuses a partition whose rows would be together with another one's.
///
/// # Errors
/// If it is so, or if a database can't be asked.
pub(super) async fn refuse_meeting(
    source: &Client,
    target: &Client,
    publications: &[String],
    table: &PublishedTable,
    found: &TargetTable,
    through_root: bool,
) -> Result<()> {
    if table.root.is_none()
        || !(through_root || takes_others(table.bounds.as_deref(), found.bounds.as_deref()))
    {
        return Ok(());
    }
    let partitions = partitions(source, target, publications, table).await?;
    let missing = partitions.iter().find(|partition| !partition.is_on_target);
    let taking = partitions
        .iter()
        .find(|partition| takes_others(partition.bounds.as_deref(), partition.target_bounds.as_deref()));
    let (Some(missing), Some(taking)) = (missing, taking) else { return Ok(()) };
    Err(Fault::person(format!(
        "the target lacks the partition {}, and its {} also takes rows that are not of the source's ({} there): \
         their rows could not be told apart",
        missing.name,
        taking.name,
        taking.target_bounds.as_deref().unwrap_or_default(),
    ))
    .on(Side::Target)
    .remedy(format!(
        "create {} on the target as it is on the source ({}), and others that are missing",
        missing.name.to_sql(),
        missing.bounds.as_deref().unwrap_or_default(),
    )))
}

/// True if a partition of the target can take rows that are not of its namesake on the source: both by their
/// bounds.
#[must_use]
pub fn takes_others(source: Option<&str>, target: Option<&str>) -> bool {
    target.is_some_and(|bounds| bounds == "DEFAULT" || source != Some(bounds))
}

struct Partition {
    name: TableName,
    bounds: Option<String>,
    is_on_target: bool,
    target_bounds: Option<String>,
}

/// The table and the other partitions in the stream that have its topmost parent.
async fn partitions(
    source: &Client,
    target: &Client,
    publications: &[String],
    table: &PublishedTable,
) -> Result<Vec<Partition>> {
    let published: Vec<u32> =
        published_names(source, publications).await?.iter().map(|table| table.oid).collect();
    let rows = source
        .query(include_str!("../../sql/catalog/partitions.sql"), &[&table.oid, &published])
        .await
        .map_err(|e| Fault::sql(Side::Source, "listing partitions", &e))?;
    let (schemas, names): (Vec<String>, Vec<String>) =
        rows.iter().map(|row| (row.get("schema"), row.get("name"))).unzip();
    let found = target
        .query(include_str!("../../sql/catalog/bounds.sql"), &[&schemas, &names])
        .await
        .map_err(|e| Fault::sql(Side::Target, "looking for partitions", &e))?;
    Ok(rows
        .iter()
        .zip(&found)
        .map(|(row, found)| Partition {
            name: TableName::new(row.get::<_, String>("schema"), row.get::<_, String>("name")),
            bounds: row.get("bounds"),
            is_on_target: found.get("is_there"),
            target_bounds: found.get("bounds"),
        })
        .collect())
}
