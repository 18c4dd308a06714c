//! What the target's schema lacks, or has differently: `cdc schema diff`.
//!
//! ```text
//! source ─► read ─► objects ─► relocate ─┐
//!                                        ├─► compare ─► differences, each with what mends it
//! target ─► read ─► objects ─────────────┘
//! ```
//!
//! The catalogs are asked, and nothing is changed. An object is what PostgreSQL itself says of it
//! (`pg_get_indexdef` and its like), so that the same object is the same text on both sides; where servers of
//! different versions print it differently, [`tokens`] takes that away.

mod compare;
mod mend;
mod read;
mod report;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::catalog::{TableName, source_tables};
use crate::config::{Config, Selection};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};

/// What a difference is about. Their order is that in which they can be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "PostgreSQL's own words")]
pub enum Kind {
    Schema,
    Extension,
    Enum,
    CompositeType,
    RangeType,
    Domain,
    Sequence,
    Function,
    Procedure,
    Aggregate,
    DomainConstraint,
    Table,
    Column,
    SequenceOwner,
    PrimaryKey,
    UniqueConstraint,
    ExclusionConstraint,
    View,
    MaterializedView,
    CheckConstraint,
    UniqueIndex,
    Index,
    ForeignKey,
    Rule,
    Trigger,
    Policy,
}

impl Kind {
    const ALL: [Self; 26] = [
        Self::Schema,
        Self::Extension,
        Self::Enum,
        Self::CompositeType,
        Self::RangeType,
        Self::Domain,
        Self::Sequence,
        Self::Function,
        Self::Procedure,
        Self::Aggregate,
        Self::DomainConstraint,
        Self::Table,
        Self::Column,
        Self::SequenceOwner,
        Self::PrimaryKey,
        Self::UniqueConstraint,
        Self::ExclusionConstraint,
        Self::View,
        Self::MaterializedView,
        Self::CheckConstraint,
        Self::UniqueIndex,
        Self::Index,
        Self::ForeignKey,
        Self::Rule,
        Self::Trigger,
        Self::Policy,
    ];

    /// Its name in the catalog queries and in the report.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Extension => "extension",
            Self::Enum => "enum",
            Self::CompositeType => "composite type",
            Self::RangeType => "range type",
            Self::Domain => "domain",
            Self::Sequence => "sequence",
            Self::Function => "function",
            Self::Procedure => "procedure",
            Self::Aggregate => "aggregate",
            Self::DomainConstraint => "domain constraint",
            Self::Table => "table",
            Self::Column => "column",
            Self::SequenceOwner => "sequence owner",
            Self::PrimaryKey => "primary key",
            Self::UniqueConstraint => "unique constraint",
            Self::ExclusionConstraint => "exclusion constraint",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::CheckConstraint => "check constraint",
            Self::UniqueIndex => "unique index",
            Self::Index => "index",
            Self::ForeignKey => "foreign key",
            Self::Rule => "rule",
            Self::Trigger => "trigger",
            Self::Policy => "policy",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// How an object differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The target hasn't got it.
    Missing,
    /// The target has it otherwise; or only the target has it, and it would refuse rows or change them.
    Different,
    /// It is off the target while rows are copied, and comes back by itself. No difference.
    HeldBack,
    /// It differs in what does no harm: a name, a version, a replica identity. No difference.
    Harmless,
    /// Only the target has it, and it does no harm. No difference.
    Extra,
}

impl What {
    /// True if the two schemas are not the same because of it.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(self, Self::Missing | Self::Different)
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How it differs: `missing` and `different` count, `held_back`, `harmless` and `extra` don't.
    pub what: What,
    /// What it is about: `table`, `column`, `foreign_key`, ...
    pub kind: Kind,
    /// Its name, qualified and quoted where SQL needs it; within a table with the table's name before it.
    pub name: String,
    /// The table or view that it is part of, as `schema.table`; null if of none.
    pub table: Option<String>,
    /// What the source has; null if nothing.
    pub source: Option<String>,
    /// What the target has; null if nothing.
    pub target: Option<String>,
    /// The statements that make the target the same, without semicolons; empty if there is nothing to do, or
    /// nothing that can be said exactly.
    pub mend: Vec<String>,
    /// What else is to be known.
    pub note: Option<String>,
}

/// What `cdc schema diff` says. As JSON it has this shape, which stays.
#[derive(Clone, Debug, Serialize)]
pub struct SchemaDiff {
    /// The migration's name.
    pub name: String,
    /// True if nothing is missing or different.
    pub same: bool,
    /// The source, as `host:port/database`.
    pub source: String,
    /// The target.
    pub target: String,
    /// The source's tables that were compared, as `schema.table`.
    pub tables: Vec<String>,
    /// In the order in which they can be mended.
    pub differences: Vec<Difference>,
    /// The topmost parents of those tables that are partitions.
    #[serde(skip)]
    roots: BTreeMap<String, String>,
}

impl SchemaDiff {
    /// True if nothing is missing or different.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.same
    }

    /// Only what these tables (`schema.table`) and their partitions have.
    ///
    /// # Errors
    /// A usage fault if one is not among the tables that were compared.
    pub fn of_tables(mut self, tables: &[String]) -> Result<Self> {
        for table in tables {
            if !self.tables.contains(table) {
                return Err(Fault::usage(format!(
                    "the source has no table {table:?}, or the configuration leaves it out"
                ))
                .remedy("name it as schema.table, without quotes"));
            }
        }
        let roots = &self.roots;
        let is_wanted = |table: &String| {
            tables.contains(table) || roots.get(table).is_some_and(|root| tables.contains(root))
        };
        self.tables.retain(is_wanted);
        self.differences.retain(|difference| difference.table.as_ref().is_some_and(is_wanted));
        self.same = !self.differences.iter().any(|difference| difference.what.counts());
        Ok(self)
    }
}

/// Which of the source's tables are compared, and which are none of ours.
#[derive(Debug, Default)]
struct Scope {
    selected: BTreeSet<TableName>,
    /// Constraints and indexes that are held back, as an [`read::Id`] names them.
    held_back: BTreeSet<String>,
}

/// Compares the schemas as far as the configuration selects them: the tables, and what else is in their
/// schemas. Reads the catalogs only.
///
/// # Errors
/// If a database can't be asked.
pub async fn diff(source: &Session, target: &Session, config: &Config) -> Result<SchemaDiff> {
    let tables = source_tables(source).await?;
    let selected = || tables.iter().filter(|table| config.tables.select(table) != Selection::Out);
    let schemas: BTreeSet<String> = selected().map(|table| table.name.schema.clone()).collect();
    let schemas: Vec<String> = schemas.into_iter().collect();
    let (there, here) = tokio::try_join!(
        read::catalog(source, Side::Source, &schemas),
        read::catalog(target, Side::Target, &schemas)
    )?;
    let there = read::relocate(source, there, &here).await?;
    let scope = Scope {
        selected: selected().map(|table| table.name.clone()).collect(),
        held_back: read::held_back(target, &config.name).await?,
    };
    let differences = compare::compare(&there, &here, &scope);
    let root = |table: &crate::catalog::SourceTable| {
        Some((table.name.to_string(), table.root.as_ref()?.to_string()))
    };
    Ok(SchemaDiff {
        name: config.name.clone(),
        same: !differences.iter().any(|difference| difference.what.counts()),
        source: config.source.to_string(),
        target: config.target.to_string(),
        tables: selected().map(|table| table.name.to_string()).collect(),
        differences,
        roots: selected().filter_map(root).collect(),
    })
}
