//! One thing that was found, told for a person and for a script.

use serde::Serialize;

use crate::catalog::TableName;
use crate::fault::{Fault, Side};

/// What a finding means for the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// `cdc run` would refuse to start, or be blocked later.
    Blocks,
    /// It works, but can hurt: somebody should look at it first.
    Warns,
    /// Good to know.
    Informs,
}

impl Severity {
    /// Its name in the report.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Warns => "warns",
            Self::Informs => "informs",
        }
    }
}

/// One thing that was found. As JSON it has this shape, which stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it means for the start.
    pub severity: Severity,
    /// What kind of thing it is, for scripts: `wal-level`, `no-replica-identity`, ...
    pub code: &'static str,
    /// The database it is about; null if about both.
    pub side: Option<Side>,
    /// The table, slot, extension, ... that it is about; null if about the server or the database.
    pub object: Option<String>,
    /// What was found.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// The SQL (it ends with a semicolon), setting or command that mends it; null if there is nothing to do, or
    /// nothing that can be said exactly.
    pub mend: Option<String>,
}

impl Finding {
    fn new(severity: Severity, code: &'static str, side: Option<Side>, what: String) -> Self {
        Self { severity, code, side, object: None, what, why: String::new(), mend: None }
    }

    /// Something that has to be mended first.
    pub(super) fn blocks(code: &'static str, side: Side, what: impl Into<String>) -> Self {
        Self::new(Severity::Blocks, code, Some(side), what.into())
    }

    /// Something that can hurt later.
    pub(super) fn warns(code: &'static str, side: Side, what: impl Into<String>) -> Self {
        Self::new(Severity::Warns, code, Some(side), what.into())
    }

    /// Something that is good to know.
    pub(super) fn informs(code: &'static str, side: Side, what: impl Into<String>) -> Self {
        Self::new(Severity::Informs, code, Some(side), what.into())
    }

    /// What the start would refuse with this fault.
    pub(super) fn of_fault(code: &'static str, fault: &Fault) -> Self {
        let state = fault.code().map_or(String::new(), |state| format!(" (SQLSTATE {})", state.code()));
        let mut finding = Self::new(Severity::Blocks, code, fault.side(), format!("{}{state}", fault.what()));
        finding.object = fault.table_name().map(str::to_owned);
        finding.mend = fault.advice().map(str::to_owned);
        finding.why("cdc run refuses to start with this")
    }

    /// The same with another severity.
    pub(super) fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// It is about both databases.
    pub(super) fn of_both(mut self) -> Self {
        self.side = None;
        self
    }

    /// Names what it is about.
    pub(super) fn object(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Names the table that it is about.
    pub(super) fn table(self, table: &TableName) -> Self {
        self.object(table.to_string())
    }

    /// Says why it matters.
    pub(super) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Says what mends it.
    pub(super) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}
