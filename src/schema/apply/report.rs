//! What came of it: for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::archive::Entry;
use crate::fault::{Fault, Result, Side};
use crate::schema::StaysBehind;

/// Something in the schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Object {
    /// What it is: `table`, `index`, `foreign key`, `comment`, ...
    pub kind: String,
    /// Its name, with its schema and, where it is part of one, its table.
    pub name: String,
}

impl Object {
    pub(super) fn stand_ins() -> Self {
        Self { kind: "stand-ins".to_owned(), name: "for parts of the provider".to_owned() }
    }

    pub(super) fn of(entry: &Entry) -> Self {
        let kind = match entry.kind.as_str() {
            "ACL" => "grants".to_owned(),
            "DEFAULT ACL" => "default privileges".to_owned(),
            "FK CONSTRAINT" => "foreign key".to_owned(),
            "TABLE ATTACH" => "partition".to_owned(),
            "INDEX ATTACH" => "index of a partition".to_owned(),
            kind => kind.to_lowercase(),
        };
        let name = match entry.schema.as_str() {
            "" => entry.tag.clone(),
            schema => format!("{schema}.{}", entry.tag),
        };
        Self { kind, name }
    }
}

/// Something that was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Omission {
    /// What.
    #[serde(flatten)]
    pub object: Object,
    /// Why, and what to do where there is something.
    pub why: String,
    /// The SQLSTATE of the target's answer, if it has said no.
    pub sqlstate: Option<String>,
}

impl fmt::Display for Omission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.object.kind, self.object.name, self.why)
    }
}

impl Omission {
    pub(super) fn new(object: Object, why: String) -> Self {
        Self { object, why, sqlstate: None }
    }

    pub(super) fn failed(object: Object, fault: &Fault) -> Self {
        let mut why = fault.what().to_owned();
        if let Some(remedy) = fault.advice() {
            why.push_str(&format!("\nwhat to do: {remedy}"));
        }
        Self { object, why, sqlstate: fault.code().map(|code| code.code().to_owned()) }
    }
}

/// What was made, and what was not. As JSON it has this shape, which stays.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Applied {
    /// The migration's name.
    pub name: String,
    /// True if the target has everything now but for what is left out on purpose.
    pub complete: bool,
    /// What was made, in that order.
    pub made: Vec<Object>,
    /// What is left out on purpose: the configuration says so, or it needs what only the provider has.
    pub left_out: Vec<Omission>,
    /// What could not be made.
    pub failed: Vec<Omission>,
    /// Rows of the provider's that are not copied, and that somebody may miss.
    pub stays_behind: Vec<StaysBehind>,
    /// The first of `failed` without which no rows can be copied: a table or its key.
    #[serde(skip)]
    pub without_tables: Vec<Omission>,
    /// The SQL, where it was only to be shown.
    #[serde(skip)]
    pub script: Option<String>,
}

impl Applied {
    /// How many of each kind were made: `tables 3, indexes 2`.
    #[must_use]
    pub fn counts(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for object in &self.made {
            *counts.entry(&object.kind).or_default() += 1;
        }
        let counts: Vec<String> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        counts.join(", ")
    }

    /// Refuses a target on which a table or its key could not be made: no rows can go there.
    pub(crate) fn refuse_without_tables(&self) -> Result<()> {
        let Some(first) = self.without_tables.first() else { return Ok(()) };
        let (why, remedy) =
            first.why.split_once("\nwhat to do: ").unwrap_or((&first.why, "mend what it says"));
        let names: Vec<String> =
            self.without_tables.iter().map(|o| format!("{} {}", o.object.kind, o.object.name)).collect();
        Err(Fault::person(format!("the schema can't be copied: {}. {why}", names.join(", ")))
            .on(Side::Target)
            .remedy(format!("{remedy}; cdc schema apply tells all that is missing")))
    }

    /// For people; `verbose` names what was made.
    #[must_use]
    pub fn text(&self, verbose: bool) -> String {
        let state = match (self.complete, self.made.is_empty()) {
            (true, true) => "nothing is missing on the target",
            (true, false) => "the target has everything now",
            (false, _) => "something is still missing on the target",
        };
        let mut lines = vec![format!("{}: {state}", self.name)];
        if !self.made.is_empty() {
            lines.extend([String::new(), "made".to_owned(), format!("  {}", self.counts())]);
        }
        if verbose {
            lines.extend(self.made.iter().map(|object| format!("  {} {}", object.kind, object.name)));
        }
        for (title, omissions) in [("left out", &self.left_out), ("not made", &self.failed)] {
            if !omissions.is_empty() {
                lines.extend([String::new(), title.to_owned()]);
            }
            for Omission { object, why, .. } in omissions {
                lines.push(format!("  {} {}", object.kind, object.name));
                lines.push(format!("    {}", why.replace('\n', "\n    ")));
            }
        }
        if !self.stays_behind.is_empty() {
            lines.push(String::new());
        }
        lines.extend(self.stays_behind.iter().map(|stays| format!("{stays}")));
        lines.push(String::new());
        lines.join("\n")
    }
}
