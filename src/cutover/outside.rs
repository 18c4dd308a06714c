//! What doesn't come along: tables that are not replicated, and rows that are still being copied.

use std::collections::BTreeSet;

use crate::catalog::TableName;
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::preflight::Wanted;
use crate::provider;

/// The tables of the old side that are not replicated.
#[derive(Clone, Debug, Default)]
pub(super) struct Outside {
    /// They are selected: a fence is around them, and their rows don't come along.
    pub(super) selected: BTreeSet<TableName>,
    /// They are not: no fence is around them either.
    pub(super) others: BTreeSet<TableName>,
}

impl Outside {
    pub(super) async fn look(now: &Config, old: &Session, ledger: &Ledger) -> Result<Self> {
        let fault = |e| Fault::sql(Side::Source, "looking for what is not replicated", &e);
        let replicated = ledger.relations().await?;
        let sql = include_str!("../../sql/cutover/outside.sql");
        let rows = old.query(sql, &[&provider::INTERNAL_SCHEMAS, &replicated]).await.map_err(fault)?;
        let wanted = Wanted::on(old, now).await?;
        let fenced: BTreeSet<u32> = wanted.tables.iter().map(|table| table.oid).collect();
        let mut outside = Self::default();
        for row in rows {
            let name = TableName::new(row.get::<_, &str>("schema_name"), row.get::<_, &str>("table_name"));
            let is_fenced = fenced.contains(&row.get("oid"));
            if is_fenced { &mut outside.selected } else { &mut outside.others }.insert(name);
        }
        Ok(outside)
    }

    /// Refuses what was not there `before`, and rows that are not all there: the stream has ended for good.
    pub(super) async fn refuse_new(
        now: &Config,
        old: &Session,
        ledger: &Ledger,
        before: &Self,
    ) -> Result<()> {
        if !ledger.is_whole().await? {
            return Err(Fault::person("rows are being copied: a repair was asked for, or a table has come")
                .on(Side::Target)
                .remedy("wait until the copy is complete (cdc status), then run this again"));
        }
        let outside = Self::look(now, old, ledger).await?;
        match outside.selected.difference(&before.selected).next() {
            None => Ok(()),
            Some(table) => Err(Fault::person("a table has come that is not replicated yet")
                .on(Side::Source)
                .table(table.to_string())
                .remedy("wait until its rows are copied (cdc status), then run this again; no DDL should run meanwhile")),
        }
    }
}

/// The names of some tables, the first of them if they are many.
pub(super) fn names(tables: &BTreeSet<TableName>) -> String {
    const SHOWN: usize = 10;
    let mut names: Vec<String> = tables.iter().take(SHOWN).map(TableName::to_string).collect();
    if tables.len() > SHOWN {
        names.push(format!("and {} more", tables.len() - SHOWN));
    }
    names.join(", ")
}
