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
pub(super) mod mend;
pub(super) mod read;
mod report;
#[cfg(test)]
mod tests;
pub(super) mod tokens;

use std::collections::BTreeMap;

use serde::Serialize;

use super::Scope;
use crate::config::Config;
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
    Grant,
}

impl Kind {
    const ALL: [Self; 27] = [
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
        Self::Grant,
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
            Self::Grant => "grant",
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
    /// It is off the target until rows are copied, or until the cutover, and comes back by itself. No difference.
    HeldBack,
    /// It differs in what does no harm: a name, a version, a replica identity. No difference.
    Harmless,
    /// Only the target has it, and it does no harm. No difference.
    Extra,
    /// It is left out on purpose: the configuration says so, or it needs a part of the provider's, or a role, that
    /// the target lacks. No difference.
    LeftOut,
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
    /// How it differs: `missing` and `different` count, `held_back`, `harmless`, `extra` and `left_out` don't.
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

/// Compares the schemas as far as the configuration selects them. Reads the catalogs only.
///
/// # Errors
/// If a database can't be asked.
pub async fn diff(source: &Session, target: &Session, config: &Config) -> Result<SchemaDiff> {
    let scope = Scope::new(source, target, config).await?;
    // Before and afterwards: it comes and goes meanwhile.
    let mut held_back = read::held_back(target, &config.name).await?;
    let (there, here) = tokio::try_join!(
        read::catalog(source, Side::Source, &scope.schemas),
        read::catalog(target, Side::Target, &scope.schemas)
    )?;
    held_back.extend(read::held_back(target, &config.name).await?);
    let there = read::relocate(source, there, &here).await?;
    let mut differences = compare::compare(&there, &here, &scope, &held_back);
    differences.extend(scope.other_schemas.iter().map(|(schema, why)| Difference {
        what: What::LeftOut,
        kind: Kind::Schema,
        name: schema.clone(),
        table: None,
        source: Some(String::new()),
        target: None,
        mend: Vec::new(),
        note: Some(why.clone()),
    }));
    let root = |table: &crate::catalog::SourceTable| {
        Some((table.name.to_string(), table.root.as_ref()?.to_string()))
    };
    Ok(SchemaDiff {
        name: config.name.clone(),
        same: !differences.iter().any(|difference| difference.what.counts()),
        source: config.source.to_string(),
        target: config.target.to_string(),
        tables: scope.tables.iter().map(|table| table.name.to_string()).collect(),
        differences,
        roots: scope.tables.iter().filter_map(root).collect(),
    })
}
