//! What went wrong, and what that asks of us.
//!
//! A failure's *reaction* decides what happens next; everything else in a [`Fault`] is for the
//! person who reads it: what happened, on which side, to which table and key, at which LSN, and
//! what to do now. No fault ever carries a secret: connection strings and passwords don't get in.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;

use crate::lsn::Lsn;

/// One of the two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The database that rows are read from.
    Source,
    /// The database that rows are applied to.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// What a failure asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// It passes by itself: try again with backoff, for ever.
    Retry,
    /// Only a person can mend it: refused at the start, `blocked` later.
    Person,
    /// The position in the source's log is lost: only a new copy helps.
    CopyAgain,
    /// Wrong usage or configuration; nothing was touched.
    Usage,
    /// A state that our own code excludes.
    Bug,
}

/// What to do when the position in the source's log is lost.
pub const COPY_ALL_AGAIN: &str = "cdc repair --all, which copies everything again from a new slot on, over the rows that \
     are there";

/// A failure, told for a person.
#[derive(Debug, Clone)]
pub struct Fault(Box<Inner>);

/// The result of everything that can fail here.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

#[derive(Debug, Clone)]
struct Inner {
    reaction: Reaction,
    what: String,
    unreachable: bool,
    unfit: bool,
    side: Option<Side>,
    sqlstate: Option<SqlState>,
    table: Option<String>,
    key: Option<String>,
    lsn: Option<Lsn>,
    remedy: Option<String>,
}

impl Fault {
    /// A failure with the reaction given.
    #[must_use]
    pub fn new(reaction: Reaction, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            reaction,
            what: what.into(),
            unreachable: false,
            unfit: false,
            side: None,
            sqlstate: None,
            table: None,
            key: None,
            lsn: None,
            remedy: None,
        }))
    }

    /// A failure that passes by itself.
    #[must_use]
    pub fn retry(what: impl Into<String>) -> Self {
        Self::new(Reaction::Retry, what)
    }

    /// A failure that only a person can mend.
    #[must_use]
    pub fn person(what: impl Into<String>) -> Self {
        Self::new(Reaction::Person, what)
    }

    /// Wrong usage or configuration.
    #[must_use]
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Reaction::Usage, what)
    }

    /// A state that our own code excludes.
    #[must_use]
    pub fn bug(what: impl Into<String>) -> Self {
        Self::new(Reaction::Bug, what)
            .remedy("this is a bug in cdc: please report it, with this message and the log around it")
    }

    /// A database that can't be reached at all (exit status 3 for a command that needs it).
    #[must_use]
    pub fn unreachable(side: Side, what: impl Into<String>) -> Self {
        let mut fault = Self::retry(what).on(side);
        fault.0.unreachable = true;
        fault
    }

    /// A lost or broken connection.
    #[must_use]
    pub fn io(side: Side, doing: &str, error: &io::Error) -> Self {
        Self::unreachable(side, format!("{doing}: {error}"))
    }

    /// An error that a SQL session reported, classified by its SQLSTATE.
    #[must_use]
    pub fn sql(side: Side, doing: &str, error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => {
                let mut what = format!("{doing}: {}", db.message());
                if let Some(detail) = db.detail() {
                    what.push_str(&format!(" ({detail})"));
                }
                let fault = Self::server(side, what, db.code());
                match (db.schema(), db.table()) {
                    (Some(schema), Some(table)) => fault.table(format!("{schema}.{table}")),
                    _ => fault,
                }
            }
            None if error.is_closed() => Self::unreachable(side, format!("{doing}: the connection was lost")),
            None => match std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>()) {
                Some(io) => Self::io(side, doing, io),
                // What is left are values or messages that the client library can't handle.
                None => Self::person(format!("{doing}: {}", Chain(error))).on(side),
            },
        }
    }

    /// An error that a server reported, with what its SQLSTATE asks of us and of a person.
    #[must_use]
    pub fn server(side: Side, what: String, code: &SqlState) -> Self {
        let fault = Self::new(reaction_to(code), what).on(side).sqlstate(code.clone());
        match usual_remedy(code) {
            Some(remedy) => fault.remedy(remedy),
            None => fault,
        }
    }

    /// Says that a table of the source isn't built as it was when it was looked at last.
    #[must_use]
    pub fn unfit(mut self) -> Self {
        self.0.unfit = true;
        self
    }

    /// True if a table of the source isn't built as it was when it was looked at last.
    #[must_use]
    pub fn is_unfit(&self) -> bool {
        self.0.unfit
    }

    /// Says on which side it happened.
    #[must_use]
    pub fn on(mut self, side: Side) -> Self {
        self.0.side = Some(side);
        self
    }

    /// The same as it is seen in the other direction, in which source and target have traded places.
    #[must_use]
    pub fn swapped(mut self) -> Self {
        self.0.side = self.0.side.map(|side| match side {
            Side::Source => Side::Target,
            Side::Target => Side::Source,
        });
        self
    }

    /// Adds the SQLSTATE that the server gave.
    #[must_use]
    pub fn sqlstate(mut self, state: SqlState) -> Self {
        self.0.sqlstate = Some(state);
        self
    }

    /// Names the table, as `schema.table`.
    #[must_use]
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.0.table = Some(table.into());
        self
    }

    /// Names the row by its key, as `column=value, ...`.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.key = Some(key.into());
        self
    }

    /// Gives the position: the commit LSN of the source's transaction where there is one.
    #[must_use]
    pub fn lsn(mut self, lsn: Lsn) -> Self {
        self.0.lsn = Some(lsn);
        self
    }

    /// Says what to do now.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Replaces the reaction, where the place knows better than the SQLSTATE.
    #[must_use]
    pub fn reacting(mut self, reaction: Reaction) -> Self {
        self.0.reaction = reaction;
        self
    }

    /// What it asks of us.
    #[must_use]
    pub fn reaction(&self) -> Reaction {
        self.0.reaction
    }

    /// True when the database couldn't be reached at all, or the connection to it was lost.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.0.unreachable
    }

    /// True if it is known to pass by itself, however long that takes: a lost connection, a server
    /// that starts, a full disk, a lock. Any other retry that meets the same fault again and again
    /// needs a person after all.
    #[must_use]
    pub fn passes(&self) -> bool {
        let known = |code: &SqlState| {
            // Memory for one row may never be enough: such a fault is told to a person after a while.
            code.code() != "53200"
                && (matches!(
                    code.code(),
                    "40001" | "40P01" | "55P03" | "57014" | "25P03" | "25P04" | "55006"
                ) || matches!(&code.code()[..2], "08" | "53" | "57"))
        };
        self.0.unreachable || self.0.sqlstate.as_ref().is_some_and(known)
    }

    /// True if a row is in the way of another one: of a unique or an exclusion constraint.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.0.sqlstate.as_ref().is_some_and(|code| matches!(code.code(), "23505" | "23P01"))
    }

    /// True for what a server says of a row that it can't print: a limit of its own (54000), an allocation
    /// above 1 GiB (an internal error whose text is never translated), or more memory than it has.
    #[must_use]
    pub fn may_be_a_large_row(&self) -> bool {
        match self.0.sqlstate.as_ref().map(SqlState::code) {
            Some("XX000") => self.0.what.contains("invalid memory alloc request size"),
            Some(code) => matches!(code, "54000" | "53200"),
            None => false,
        }
    }

    /// What happened, without the place and the remedy.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The side it happened on.
    #[must_use]
    pub fn side(&self) -> Option<Side> {
        self.0.side
    }

    /// The SQLSTATE that the server gave.
    #[must_use]
    pub fn code(&self) -> Option<&SqlState> {
        self.0.sqlstate.as_ref()
    }

    /// The table, as `schema.table`.
    #[must_use]
    pub fn table_name(&self) -> Option<&str> {
        self.0.table.as_deref()
    }

    /// The row's key, as `column=value, ...`.
    #[must_use]
    pub fn row_key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// The position it happened at.
    #[must_use]
    pub fn position(&self) -> Option<Lsn> {
        self.0.lsn
    }

    /// What to do now.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }
}

impl fmt::Display for Fault {
    /// One line: `target: what happened [table public.t, key id=1, LSN 0/1, SQLSTATE 23505]; remedy`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(side) = inner.side {
            write!(f, "{side}: ")?;
        }
        f.write_str(&inner.what)?;
        let place: Vec<String> = [
            inner.table.as_ref().map(|t| format!("table {t}")),
            inner.key.as_ref().map(|k| format!("key {k}")),
            inner.lsn.map(|l| format!("LSN {l}")),
            inner.sqlstate.as_ref().map(|s| format!("SQLSTATE {}", s.code())),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !place.is_empty() {
            write!(f, " [{}]", place.join(", "))?;
        }
        if let Some(remedy) = &inner.remedy {
            write!(f, "\n  what to do: {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// An error with its causes, `: ` between them.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// What a SQLSTATE asks of us (PostgreSQL documentation, appendix A).
///
/// A class nobody thought of is retried: the same error that keeps coming back at the same LSN is
/// turned into `blocked` by the daemon, so a retry here can't become an endless one.
#[must_use]
pub fn reaction_to(state: &SqlState) -> Reaction {
    match state.code() {
        // A transaction of ours met another one, or a limit that passes: 55P03 lock not available,
        // 57014 query cancelled, 25P03/25P04 a timeout, 55006 object in use.
        "40001" | "40P01" | "55P03" | "57014" | "25P03" | "25P04" | "55006" => Reaction::Retry,
        // A read-only target, a dropped slot or publication, a privilege, a database that is gone.
        "25006" => Reaction::Person,
        code => match &code[..2] {
            // 08 connection, 53 resources (disk, memory, connections), 57 operator, 58 system.
            "08" | "53" | "57" | "58" => Reaction::Retry,
            // 0A feature, 22 data, 23 constraint, 28 login, 3D/3F catalog or schema name, 42 syntax
            // or privilege, 44 check option, 54 limits, 55 prerequisite, P0 raised by a function.
            "0A" | "22" | "23" | "28" | "2B" | "3D" | "3F" | "42" | "44" | "54" | "55" | "P0" => {
                Reaction::Person
            }
            _ => Reaction::Retry,
        },
    }
}

/// What to do about a SQLSTATE, where the place knows nothing better. What passes within moments needs
/// nothing.
fn usual_remedy(state: &SqlState) -> Option<&'static str> {
    Some(match state.code() {
        "40001" | "40P01" | "55P03" | "55006" | "57014" => return None,
        "25006" => {
            "the database is read-only: a standby, or one that was set so. Connect to the primary, or make it writable"
        }
        "42501" => "give the role this right (GRANT ... TO ...), or connect as the owner",
        "53100" => "make room on the disk of this server; it is tried again until there is some",
        "53200" => "the server has too little memory, or too many locks: its log says which limit to raise",
        "53300" => {
            "end connections that aren't needed, or raise max_connections; it is tried again until one is free"
        }
        "XX001" | "XX002" => {
            "this server's files are damaged: its log says which. Restore it before anything else"
        }
        code => match &code[..2] {
            "08" | "25" | "57" => return None,
            _ => "look at this server's log for more",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_retried_and_what_does_not_needs_a_person() {
        for code in ["08006", "57P01", "57P03", "53300", "53100", "40001", "40P01", "55P03", "57014", "XX000"]
        {
            assert_eq!(reaction_to(&SqlState::from_code(code)), Reaction::Retry, "{code}");
        }
        for code in ["23505", "22P02", "42703", "42501", "428C9", "54000", "P0001", "25006", "28P01", "3D000"]
        {
            assert_eq!(reaction_to(&SqlState::from_code(code)), Reaction::Person, "{code}");
        }
    }

    #[test]
    fn a_fault_says_what_where_and_what_to_do() {
        let fault = Fault::person("the row is missing")
            .on(Side::Target)
            .table("public.t")
            .key("id=1")
            .lsn(Lsn::from(255))
            .remedy("insert it");
        assert_eq!(
            fault.to_string(),
            "target: the row is missing [table public.t, key id=1, LSN 0/FF]\n  what to do: insert it"
        );
    }
}
