//! What has come out of a comparison, as `cdc verify --json` prints it.

use serde::Serialize;

use super::besides::Besides;
use crate::catalog::TableName;
use crate::chunk::KeyRange;
use crate::fault::{Fault, Side};
use crate::ledger::Verification;

/// What came out of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything that was to be compared was, and is the same.
    Same,
    /// There is a difference.
    Different,
    /// No difference was found, but something could not be compared.
    NotCompared,
}

impl Outcome {
    /// Its name in the ledger and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::NotCompared => "not_compared",
        }
    }
}

/// A comparison. Field names and meanings are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The migration's name.
    pub name: String,
    /// What came out of it: of everything together, the first of `different`, `not_compared` and `same` that
    /// a part of it is.
    pub outcome: Outcome,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub finished_at: String,
    /// How long it took.
    pub seconds: f64,
    /// The percentage of each table's chunks that was asked for; null for all of them.
    pub sample_percent: Option<f64>,
    /// Why it ended before everything was compared; null if it didn't.
    pub error: Option<String>,
    /// The tables, by name.
    pub tables: Vec<TableReport>,
    /// What was looked at besides their rows; null if only a part was to be compared, or that ended before.
    pub besides: Option<Besides>,
}

/// What came out of comparing one table.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// `schema.table`; the topmost parent where partitions that the target lacks are compared together.
    pub table: String,
    /// The same, as its two parts.
    #[serde(skip)]
    pub name: TableName,
    /// Its oid on the source, or those of the partitions that are compared together.
    pub relations: Vec<u32>,
    /// What came out of it.
    pub outcome: Outcome,
    /// The rows of the source that were compared.
    pub rows_source: i64,
    /// The rows of the target that were compared; while rows are written, the numbers are of two moments.
    pub rows_target: i64,
    /// The ranges of its key that were to be compared; 1 for a table that is compared as a whole.
    pub chunks: usize,
    /// Those of them that were compared.
    pub chunks_compared: usize,
    /// The bytes of the source's rows, as text.
    pub bytes: i64,
    /// For how long it was being compared.
    pub seconds: f64,
    /// Rows of the source a second.
    pub rows_per_second: f64,
    /// Rows that the target lacks.
    pub missing: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Rows that both have, with other values.
    pub different: u64,
    /// Rows that differed at one look and were not looked at one by one, as there are too many: at least so
    /// many. All of them are in `ranges`.
    pub not_looked_at: u64,
    /// Rows that are changed so often that nothing can be said of them.
    pub undecided: usize,
    /// The differing rows, up to a limit.
    pub differences: Vec<Difference>,
    /// The ranges of the key in which there are differences; `{"lower": null, "upper": null}` is the whole table.
    pub ranges: Vec<KeyRange>,
    /// Why it could not be compared, or not all of it; null if it could.
    pub not_compared: Option<String>,
}

/// What is wrong with a row of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It isn't there.
    Missing,
    /// It shouldn't be there.
    Extra,
    /// It has other values.
    Different,
}

impl Kind {
    /// Its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different => "different",
        }
    }
}

/// A row that differs.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// How.
    pub kind: Kind,
    /// Its key, as `column=value, ...`; its place on the side that has it if the table has no key.
    pub key: String,
    /// How many rows it stands for: more than 1 only if the table has no key and rows are there several times.
    pub rows: u64,
    /// The columns that differ, some of them if there are very many.
    pub columns: Vec<String>,
    /// What is in them, shortened, if that is asked for; of a row that is missing or extra its text, under no
    /// column's name.
    pub values: Vec<Values>,
}

/// The two values of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Values {
    /// The column.
    pub column: Option<String>,
    /// The source's value; null is NULL, or no row.
    pub source: Option<String>,
    /// The target's.
    pub target: Option<String>,
}

impl TableReport {
    /// Of a table of which nothing is known yet.
    pub(super) fn new(name: TableName, relations: Vec<u32>) -> Self {
        Self {
            table: name.to_string(),
            name,
            relations,
            outcome: Outcome::NotCompared,
            rows_source: 0,
            rows_target: 0,
            chunks: 0,
            chunks_compared: 0,
            bytes: 0,
            seconds: 0.0,
            rows_per_second: 0.0,
            missing: 0,
            extra: 0,
            different: 0,
            not_looked_at: 0,
            undecided: 0,
            differences: Vec::new(),
            ranges: Vec::new(),
            not_compared: None,
        }
    }

    /// The differences that were found: at least so many.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.missing + self.extra + self.different + self.not_looked_at
    }

    /// What is to be said of a table that differs.
    pub(super) fn fault(&self) -> Fault {
        let Self { table, missing, extra, different, .. } = self;
        let more = if self.not_looked_at > 0 { ", and more" } else { "" };
        Fault::person(format!(
            "the table differs from the source's: rows missing {missing}, extra {extra}, different {different}{more}"
        ))
        .on(Side::Target)
        .table(table)
        .remedy(format!("cdc verify --table {table} names the rows, cdc repair --table {table} copies them again"))
    }

    /// Draws the conclusion; `unfinished` is why what is left was not compared.
    pub(super) fn conclude(&mut self, unfinished: &str) {
        if self.seconds > 0.0 {
            self.rows_per_second = self.rows_source as f64 / self.seconds;
        }
        if self.not_compared.is_none() && (self.chunks == 0 || self.chunks_compared < self.chunks) {
            self.not_compared = Some(unfinished.to_owned());
        }
        if self.not_compared.is_none() && self.undecided > 0 {
            self.not_compared = Some(format!(
                "rows are changed so often that nothing can be said of them: {}; verify again at a calmer time",
                self.undecided
            ));
        }
        self.outcome = match (&self.not_compared, self.found()) {
            (_, 1..) => Outcome::Different,
            (Some(_), 0) => Outcome::NotCompared,
            (None, 0) => Outcome::Same,
        };
    }
}

impl Report {
    /// Draws the conclusion from those of the tables.
    pub(super) fn conclude(&mut self) {
        let is_any = |outcome| self.tables.iter().any(|table| table.outcome == outcome);
        let besides = self.besides.as_ref();
        self.outcome = if is_any(Outcome::Different) || besides.is_some_and(|besides| !besides.is_same()) {
            Outcome::Different
        } else if self.error.is_some()
            || self.tables.is_empty()
            || is_any(Outcome::NotCompared)
            || besides.is_some_and(|besides| !besides.is_checked())
        {
            Outcome::NotCompared
        } else {
            Outcome::Same
        };
    }

    /// The rows of the source that were compared.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.tables.iter().map(|table| table.rows_source).sum()
    }

    /// The differences that were found: at least so many.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.tables.iter().map(TableReport::found).sum()
    }

    /// The tables of which not everything was compared.
    pub fn not_compared(&self) -> impl Iterator<Item = &TableReport> {
        self.tables.iter().filter(|table| table.not_compared.is_some())
    }

    /// The report without the rows' values.
    #[must_use]
    pub fn without_values(&self) -> Self {
        let mut report = self.clone();
        for difference in report.tables.iter_mut().flat_map(|table| &mut table.differences) {
            difference.values.clear();
        }
        report
    }

    /// What the ledger keeps of it.
    pub(super) fn summary(&self) -> Verification {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        Verification {
            started_at: self.started_at.clone(),
            finished_at: self.finished_at.clone(),
            outcome: self.outcome.as_str().to_owned(),
            tables: number(self.tables.len()),
            rows: self.rows(),
            differences: i64::try_from(self.found()).unwrap_or(i64::MAX),
            not_compared: number(self.not_compared().count()),
        }
    }
}
