//! The differences for people: grouped by table, each with what mends it.

use std::collections::BTreeMap;
use std::fmt;

use super::{Difference, Kind, SchemaDiff, What};

/// What is longer is cut: the definition of a function says little here.
const LINE_CHARACTERS: usize = 160;

impl fmt::Display for SchemaDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |what: What| self.differences.iter().filter(|difference| difference.what == what).count();
        let (missing, different) = (count(What::Missing), count(What::Different));
        let tables = self.tables.len();
        if self.is_same() {
            writeln!(f, "{}: the target's schema is the same (tables: {tables})", self.name)?;
        } else {
            writeln!(
                f,
                "{}: missing on the target: {missing}, different: {different} (tables: {tables})",
                self.name
            )?;
        }
        let mut groups: BTreeMap<Option<&str>, Vec<&Difference>> = BTreeMap::new();
        for difference in self.differences.iter().filter(|difference| difference.what.counts()) {
            groups.entry(difference.table.as_deref()).or_default().push(difference);
        }
        for (table, differences) in groups {
            writeln!(f, "\n{}", table.unwrap_or("of no table"))?;
            differences.iter().try_for_each(|difference| counting(f, difference))?;
        }
        let rest: Vec<_> = self.differences.iter().filter(|difference| !difference.what.counts()).collect();
        if !rest.is_empty() {
            writeln!(f, "\nno difference, but good to know")?;
        }
        // There is one for each object that a role may use: too many to be read.
        let is_grant =
            |difference: &&&Difference| difference.kind == Kind::Grant && difference.what == What::LeftOut;
        rest.iter().filter(|d| !is_grant(d)).try_for_each(|difference| harmless(f, difference))?;
        let mut grants: BTreeMap<&str, usize> = BTreeMap::new();
        for difference in rest.iter().filter(is_grant) {
            *grants.entry(difference.note.as_deref().unwrap_or("on purpose")).or_default() += 1;
        }
        grants.iter().try_for_each(|(why, count)| writeln!(f, "  left out   grants ({count}): {why}"))
    }
}

fn counting(f: &mut fmt::Formatter<'_>, difference: &Difference) -> fmt::Result {
    let Difference { kind, name, source, target, mend, note, .. } = difference;
    match (source, target) {
        (Some(_), None) => writeln!(f, "  missing    {} {name}", kind.as_str())?,
        (None, _) => {
            writeln!(
                f,
                "  different  {} {name}: only the target has it, and it can refuse or change rows",
                kind.as_str()
            )?;
        }
        (Some(source), Some(target)) => {
            writeln!(f, "  different  {} {name}", kind.as_str())?;
            writeln!(f, "             source  {}", line(source))?;
            writeln!(f, "             target  {}", line(target))?;
        }
    }
    if let Some(note) = note {
        writeln!(f, "             note    {note}")?;
    }
    if mend.is_empty() {
        writeln!(f, "             mend    by hand: no statement does it without loss")?;
    }
    let mut label = "mend";
    for statement in mend {
        writeln!(f, "             {label:<6}  {};", statement.replace('\n', "\n                     "))?;
        label = "";
    }
    Ok(())
}

fn harmless(f: &mut fmt::Formatter<'_>, difference: &Difference) -> fmt::Result {
    let Difference { what, kind, name, source, target, note, .. } = difference;
    let kind = kind.as_str();
    match (what, source, target) {
        (What::HeldBack, ..) => {
            writeln!(f, "  held back  {kind} {name}: {}", note.as_deref().unwrap_or_default())
        }
        (What::Extra, ..) => writeln!(f, "  extra      {kind} {name}: only the target has it"),
        (What::LeftOut, ..) => {
            writeln!(f, "  left out   {kind} {name}: {}", note.as_deref().unwrap_or("on purpose"))
        }
        (_, Some(source), Some(target)) => {
            writeln!(f, "  harmless   {kind} {name}: source {}; target {}", line(source), line(target))
        }
        _ => writeln!(f, "  harmless   {kind} {name}: missing on the target, and nothing here uses it"),
    }
}

/// On one line, and no longer than one is read.
fn line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(LINE_CHARACTERS) {
        Some((at, _)) => format!("{} ...", &words[..at]),
        None => words,
    }
}
