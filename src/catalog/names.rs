//! Names of tables, and how they are written in SQL.

use std::fmt;

pub use postgres_protocol::escape::escape_literal as quote_literal;

use postgres_protocol::escape::escape_identifier;
use serde::{Deserialize, Serialize};

/// An identifier, quoted for SQL in any case.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    escape_identifier(name)
}

/// A table by schema and name, unquoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema it is in.
    pub schema: String,
    /// Its name within the schema.
    pub name: String,
}

impl TableName {
    /// The table `schema.name`.
    #[must_use]
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// Qualified and quoted for SQL.
    #[must_use]
    pub fn to_sql(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }

    /// The table for SQL that must not touch tables which inherit from it.
    #[must_use]
    pub fn only(&self, is_partitioned: bool) -> String {
        // ONLY of a partitioned table is nothing at all.
        if is_partitioned { self.to_sql() } else { format!("ONLY {}", self.to_sql()) }
    }
}

impl fmt::Display for TableName {
    /// For people: `schema.name`, without quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}
