//! The report for a person.

use std::fmt;

use bytesize::ByteSize;
use indicatif::HumanCount;

use super::report::{Difference, Outcome, Report, TableReport, Values};

/// The most differences of a table that are shown.
const SHOWN: usize = 20;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "the same",
            Self::Different => "DIFFERENT",
            Self::NotCompared => "NOT COMPARED",
        })
    }
}

impl Report {
    /// What has come out of it, in a line.
    #[must_use]
    pub fn headline(&self) -> String {
        let of = self.sample_percent.map_or(String::new(), |percent| format!(" (a sample of {percent} %)"));
        let mut line = format!("{}: {}{of}: tables {}, ", self.name, self.outcome, self.tables.len());
        line.push_str(&format!("rows {} in {:.1} s", count(self.rows()), self.seconds));
        if self.found() > 0 {
            let is_more = self.tables.iter().any(|table| table.not_looked_at > 0);
            line.push_str(&format!(", differences {}", number(self.found(), is_more)));
        }
        match self.not_compared().count() {
            0 => {}
            tables => line.push_str(&format!(", tables that could not be compared: {tables}")),
        }
        line
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        if let Some(error) = &self.error {
            writeln!(f, "  {}", error.replace('\n', "\n  "))?;
        }
        let width = self.tables.iter().map(|table| table.table.chars().count()).max().unwrap_or(0).min(48);
        self.tables.iter().try_for_each(|table| write_table(f, table, width))?;
        self.besides.iter().try_for_each(|besides| besides.fmt(f))
    }
}

fn write_table(f: &mut fmt::Formatter<'_>, table: &TableReport, width: usize) -> fmt::Result {
    // An outcome writes itself as a whole.
    let outcome = table.outcome.to_string();
    write!(f, "  {:width$}  {outcome:12}", table.table)?;
    if table.chunks_compared > 0 {
        let rows = match table.rows_source == table.rows_target {
            true => count(table.rows_source),
            false => format!("{} and {}", count(table.rows_source), count(table.rows_target)),
        };
        let chunks = match table.chunks == table.chunks_compared {
            true => table.chunks.to_string(),
            false => format!("{} of {}", table.chunks_compared, table.chunks),
        };
        write!(
            f,
            "  rows {rows}, chunks {chunks}, {}, {:.1} s, {} rows/s",
            ByteSize(table.bytes.unsigned_abs()),
            table.seconds,
            HumanCount(per_second(table)),
        )?;
    }
    writeln!(f)?;
    if let Some(reason) = &table.not_compared {
        writeln!(f, "      not compared: {}", reason.replace('\n', "\n      "))?;
    }
    if table.found() > 0 {
        writeln!(f, "      missing {}, extra {}, different {}", table.missing, table.extra, table.different)?;
    }
    for difference in table.differences.iter().take(SHOWN) {
        write_difference(f, difference)?;
    }
    let more = table.differences.len().saturating_sub(SHOWN);
    if more > 0 {
        writeln!(f, "      and {more} more that --json lists")?;
    }
    if table.not_looked_at > 0 {
        let rows = count(i64::try_from(table.not_looked_at).unwrap_or(i64::MAX));
        writeln!(
            f,
            "      and at least {rows} rows that looked different and were not looked at one by one"
        )?;
    }
    Ok(())
}

fn write_difference(f: &mut fmt::Formatter<'_>, difference: &Difference) -> fmt::Result {
    write!(f, "      {:9}  {}", difference.kind.as_str(), difference.key)?;
    if difference.rows > 1 {
        write!(f, ", {} times", difference.rows)?;
    }
    if !difference.columns.is_empty() {
        write!(f, ": {}", difference.columns.join(", "))?;
    }
    writeln!(f)?;
    for Values { column, source, target } in &difference.values {
        let show =
            |value: &Option<String>| value.as_ref().map_or("NULL".to_owned(), |value| format!("'{value}'"));
        match (column, source, target) {
            (Some(column), _, _) => {
                writeln!(f, "                 {column}: source {}, target {}", show(source), show(target))?;
            }
            (None, Some(row), _) | (None, None, Some(row)) => writeln!(f, "                 {row}")?,
            (None, None, None) => {}
        }
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a row is none")]
fn per_second(table: &TableReport) -> u64 {
    table.rows_per_second as u64
}

fn count(number: i64) -> String {
    HumanCount(number.unsigned_abs()).to_string()
}

fn number(number: u64, at_least: bool) -> String {
    format!("{}{}", if at_least { "at least " } else { "" }, HumanCount(number))
}
