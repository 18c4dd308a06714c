//! `[tables]`: which tables, and what to do with rows that the target has already.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::pattern::Pattern;
use crate::catalog::{SourceTable, TableName};
use crate::fault::Result;

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    include: Option<Vec<String>>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    insert_only: Vec<String>,
    #[serde(default)]
    existing_rows: ExistingRows,
}

/// What to do with rows in a target table that the ledger doesn't know yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExistingRows {
    /// Refuse the table: they may be somebody's.
    #[default]
    Refuse,
    /// Remove them: the source's rows take their place.
    Replace,
}

/// Which tables are replicated.
#[derive(Clone, Debug)]
pub struct Tables {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    insert_only: Vec<Pattern>,
    /// Tables that aren't replicated in this direction, whatever the patterns say.
    pub left_alone: BTreeSet<TableName>,
    /// What to do with rows in a target table that the ledger doesn't know yet.
    pub existing_rows: ExistingRows,
}

/// How a table is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Not at all.
    Out,
    /// With every change.
    All,
    /// With INSERT and TRUNCATE only.
    InsertOnly,
}

impl Tables {
    pub(super) fn new(section: &Section) -> Result<Self> {
        let patterns = |key: &str, texts: &[String]| -> Result<Vec<Pattern>> {
            texts.iter().map(|text| Pattern::new(&format!("[tables] {key}"), text)).collect()
        };
        let everything = ["*.*".to_owned()];
        Ok(Self {
            include: patterns("include", section.include.as_deref().unwrap_or(&everything))?,
            exclude: patterns("exclude", &section.exclude)?,
            insert_only: patterns("insert_only", &section.insert_only)?,
            left_alone: BTreeSet::new(),
            existing_rows: section.existing_rows,
        })
    }

    /// How the table is replicated. A partition goes with its topmost parent.
    #[must_use]
    pub fn select(&self, table: &SourceTable) -> Selection {
        let name = table.published_as();
        if !self.selects(name) {
            Selection::Out
        } else if self.insert_only.iter().any(|pattern| pattern.matches(name)) {
            Selection::InsertOnly
        } else {
            Selection::All
        }
    }

    /// True if the patterns mean what has this name, and it isn't left alone.
    #[must_use]
    pub fn selects(&self, name: &TableName) -> bool {
        let matches = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        matches(&self.include) && !matches(&self.exclude) && !self.left_alone.contains(name)
    }

    /// The patterns that match none of these tables: most likely misspelt.
    #[must_use]
    pub fn unmatched(&self, tables: &[SourceTable]) -> Vec<String> {
        [&self.include, &self.exclude, &self.insert_only]
            .into_iter()
            .flatten()
            .filter(|pattern| !tables.iter().any(|table| pattern.matches(table.published_as())))
            .map(|pattern| pattern.text().to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Identity;
    use crate::config::tests::{BOTH, load};
    use crate::connect::Environment;

    fn table(schema: &str, name: &str) -> SourceTable {
        SourceTable {
            name: TableName::new(schema, name),
            oid: 1,
            is_partitioned: false,
            root: None,
            identity: Identity::Key,
            mend: None,
            columns: Vec::new(),
        }
    }

    #[test]
    fn patterns_select_tables_and_a_partition_goes_with_its_parent() {
        let text = format!(
            "{BOTH}[tables]\ninclude = [\"public.*\", \"crm.*\"]\nexclude = [\"*.audit_*\"]\ninsert_only = [\"public.event?\"]\n"
        );
        let tables = load(&text, &Environment::empty()).unwrap().tables;
        let partition =
            SourceTable { root: Some(TableName::new("public", "events")), ..table("parts", "audit_1") };
        for (table, selection) in [
            (table("public", "users"), Selection::All),
            (table("crm", "events"), Selection::All),
            (table("public", "events"), Selection::InsertOnly),
            (table("public", "eventss"), Selection::All),
            (table("crm", "audit_log"), Selection::Out),
            (table("other", "users"), Selection::Out),
            (partition, Selection::InsertOnly),
        ] {
            assert_eq!(tables.select(&table), selection, "{table:?}");
        }
        assert_eq!(tables.unmatched(&[table("public", "users")]), ["crm.*", "*.audit_*", "public.event?"]);
    }

    #[test]
    fn without_a_section_every_table_is_selected() {
        let tables = load(BOTH, &Environment::empty()).unwrap().tables;
        assert_eq!(tables.select(&table("any", "thing")), Selection::All);
        assert_eq!(tables.existing_rows, ExistingRows::Refuse);
        assert!(tables.unmatched(&[table("any", "thing")]).is_empty());
    }

    #[test]
    fn rows_that_are_there_already_are_replaced_only_if_that_is_asked_for() {
        let text = format!("{BOTH}[tables]\nexisting_rows = \"replace\"\n");
        let tables = load(&text, &Environment::empty()).unwrap().tables;
        assert_eq!(tables.existing_rows, ExistingRows::Replace);
    }
}
