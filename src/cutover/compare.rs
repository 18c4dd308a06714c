//! The comparison while writes rest: what has changed since everything was compared, as far as there is time.

use std::time::Duration;

use tokio::time::timeout;

use crate::catalog::TableName;
use crate::config::{Config, InPause};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::limits;
use crate::verify::{Outcome, Part, Progress, Report, verify};

use super::run::options;

/// A table of the old side before anything rests.
#[derive(Clone, Debug)]
pub(super) struct Table {
    name: TableName,
    relations: Vec<u32>,
    bytes: i64,
    changes: i64,
}

/// The tables that are in the stream, with their sizes and how many rows were changed.
pub(super) async fn tables(old: &Session, ledger: &Ledger) -> Result<Vec<Table>> {
    let copied = ledger.copied_tables().await?;
    let relations: Vec<u32> = copied.iter().map(|(table, _)| table.relation).collect();
    look(old, &relations).await
}

async fn look(old: &Session, relations: &[u32]) -> Result<Vec<Table>> {
    // The counters of other sessions are up to a second old. So they say what comes first, and nothing else.
    let rows = old
        .query(
            "SELECT n.nspname::text, r.relname::text, array_agg(c.oid), sum(pg_catalog.pg_relation_size(c.oid))::int8,
                    coalesce(sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0)::int8
               FROM pg_catalog.pg_class AS c
               JOIN pg_catalog.pg_class AS r
                 ON r.oid = CASE WHEN c.relispartition THEN pg_catalog.pg_partition_root(c.oid)::oid ELSE c.oid END
               JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
               LEFT JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = c.oid
              WHERE c.oid = ANY ($1)
              GROUP BY 1, 2",
            &[&relations],
        )
        .await
        .map_err(|e| Fault::sql(Side::Source, "looking at what has changed", &e))?;
    let table = |row: &tokio_postgres::Row| Table {
        name: TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)),
        relations: row.get(2),
        bytes: row.get(3),
        changes: row.get(4),
    };
    Ok(rows.iter().map(table).collect())
}

/// Compares what there is time for; what differs is an error.
pub(super) async fn compare(now: &Config, old: &Session, before: &[Table]) -> Result<Option<String>> {
    match now.cutover.verify {
        InPause::Nothing => Ok(None),
        InPause::Everything => {
            let report = verify(now, &options(None, limits::VERIFY_PATIENCE), &Progress::default()).await?;
            judge(&report).map(|()| Some(report.headline()))
        }
        InPause::Within(budget) => within(now, old, before, budget).await,
    }
}

async fn within(now: &Config, old: &Session, before: &[Table], budget: Duration) -> Result<Option<String>> {
    let comparison = async {
        let relations: Vec<u32> = before.iter().flat_map(|table| table.relations.iter().copied()).collect();
        let tables = look(old, &relations).await?;
        let parts = choose(before, tables, budget);
        let (compared, of) = (parts.len(), before.len());
        if parts.is_empty() {
            return Ok(Some(format!("no table is small enough for {}", humantime::format_duration(budget))));
        }
        let report = verify(now, &options(Some(parts), budget), &Progress::default()).await?;
        judge(&report)?;
        Ok(Some(format!(
            "{compared} of {of} tables, {} rows",
            report.tables.iter().map(|t| t.rows_source).sum::<i64>()
        )))
    };
    match timeout(budget, comparison).await {
        Ok(compared) => compared,
        Err(_) => Ok(Some(format!("not finished within {}", humantime::format_duration(budget)))),
    }
}

fn judge(report: &Report) -> Result<()> {
    if report.outcome != Outcome::Different {
        return Ok(());
    }
    Err(Fault::person(format!("the two sides differ: {}", report.headline()))
        .remedy("see cdc verify; cdc repair copies again what differs"))
}

/// The tables that fit into the time: those that have changed first, and of these the small ones.
fn choose(before: &[Table], mut tables: Vec<Table>, budget: Duration) -> Vec<Part> {
    let has_changed = |table: &Table| {
        before.iter().find(|earlier| earlier.name == table.name).is_none_or(|b| b.changes != table.changes)
    };
    tables.sort_by_key(|table| (!has_changed(table), table.bytes));
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "an estimate")]
    let mut room = (budget.as_secs_f64() * limits::CUTOVER_VERIFY_RATE_BYTES as f64) as i64;
    let fits = |table: &Table| {
        room -= table.bytes.max(limits::CUTOVER_VERIFY_TABLE_BYTES);
        room >= 0
    };
    tables.into_iter().take_while(fits).map(|table| Part { table: table.name, ranges: Vec::new() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, bytes: i64, changes: i64) -> Table {
        Table { name: TableName::new("public", name), relations: Vec::new(), bytes, changes }
    }

    #[test]
    fn what_has_changed_comes_first_and_the_rest_as_far_as_it_fits() {
        let before = [table("still", 10, 5), table("busy", 20_000_000, 5), table("huge", 1 << 40, 5)];
        let now = vec![table("still", 10, 5), table("busy", 20_000_000, 6), table("huge", 1 << 40, 5)];
        let chosen = choose(&before, now, Duration::from_secs(1));
        assert_eq!(chosen.iter().map(|part| &*part.table.name).collect::<Vec<_>>(), ["busy", "still"]);
        assert!(choose(&before, before.to_vec(), Duration::from_micros(1)).is_empty());
    }
}
