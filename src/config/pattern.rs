//! `schema.table`: which tables and other objects are meant.

use crate::catalog::TableName;
use crate::fault::{Fault, Result};

/// `schema.table`, where `*` stands for any characters and `?` for one.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    schema: wildmatch::WildMatch,
    table: wildmatch::WildMatch,
}

impl Pattern {
    /// Reads the pattern that is written under `key`.
    pub(super) fn new(key: &str, text: &str) -> Result<Self> {
        let (schema, table) =
            text.split_once('.').filter(|(s, t)| !s.is_empty() && !t.is_empty()).ok_or_else(|| {
                Fault::usage(format!("{key}: {text:?} is no pattern of the form schema.table"))
                    .remedy(format!("write \"public.{text}\", for example; * stands for any characters"))
            })?;
        Ok(Self {
            text: text.to_owned(),
            schema: wildmatch::WildMatch::new(schema),
            table: wildmatch::WildMatch::new(table),
        })
    }

    pub(super) fn matches(&self, name: &TableName) -> bool {
        self.schema.matches(&name.schema) && self.table.matches(&name.name)
    }

    /// True if something in this schema can match.
    pub(super) fn matches_schema(&self, schema: &str) -> bool {
        self.schema.matches(schema)
    }

    /// True if everything in this schema matches.
    pub(super) fn matches_all_of(&self, schema: &str) -> bool {
        self.schema.matches(schema) && self.text.ends_with(".*")
    }

    /// As it is written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}
