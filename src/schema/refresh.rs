//! Filling the materialized views, once the rows are there that they are made of.

use tokio_postgres::error::SqlState;

use crate::catalog::TableName;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::{Ledger, Severity};

/// Which materialized views are filled, or are not ($1).
const VIEWS: &str = "
    SELECT n.nspname::text, c.relname::text
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'm' AND c.relispopulated = $1
     ORDER BY c.oid";

/// Fills the materialized views of the target that are filled on the source, one after the other. Nobody reads
/// them yet. One that can't be filled is an incident, and the others are filled all the same.
///
/// # Errors
/// If a database can't be asked.
pub async fn refresh_views(source: &Session, target: &Session, ledger: &Ledger) -> Result<()> {
    let filled = views(source, Side::Source, true).await?;
    let mut empty = views(target, Side::Target, false).await?;
    empty.retain(|view| filled.contains(view));
    let mut refused: Vec<(TableName, tokio_postgres::Error)> = Vec::new();
    loop {
        let before = empty.len();
        for view in std::mem::take(&mut empty) {
            match target.batch_execute(&format!("REFRESH MATERIALIZED VIEW {}", view.to_sql())).await {
                Ok(()) => tracing::info!(%view, "filled the materialized view"),
                // One that it is made of comes later.
                Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
                    refused.push((view, error));
                }
                Err(error) => warn(ledger, &view, &error).await?,
            }
        }
        if refused.is_empty() || refused.len() == before {
            break;
        }
        empty = std::mem::take(&mut refused).into_iter().map(|(view, _)| view).collect();
    }
    for (view, error) in &refused {
        warn(ledger, view, error).await?;
    }
    Ok(())
}

async fn views(session: &Session, side: Side, is_filled: bool) -> Result<Vec<TableName>> {
    let rows = session.query(VIEWS, &[&is_filled]).await;
    let rows = rows.map_err(|e| Fault::sql(side, "looking for materialized views", &e))?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
}

async fn warn(ledger: &Ledger, view: &TableName, error: &tokio_postgres::Error) -> Result<()> {
    let fault = Fault::sql(Side::Target, "filling the materialized view", error);
    if fault.is_unreachable() {
        return Err(fault);
    }
    let by_hand = format!("on the target, when that is mended: REFRESH MATERIALIZED VIEW {}", view.to_sql());
    let fault = fault.table(view.to_string()).remedy(by_hand);
    tracing::warn!("{fault}");
    ledger.record_incident(Severity::Warning, &fault).await
}
