//! What a preflight has found: as JSON, and for a person.

use std::fmt;

use console::style;
use serde::Serialize;

use super::finding::{Finding, Severity};
use crate::fault::Side;

/// The most objects of one kind that are listed for a person.
const SHOWN: usize = 20;

/// What has come out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Nothing stands in the way.
    Clear,
    /// Something has to be mended first.
    Blocked,
    /// A database can't be reached; what the other one says is in the report all the same.
    Unreachable,
}

/// One of the two databases.
#[derive(Clone, Debug, Serialize)]
pub struct End {
    /// Where it is, as `user@host:port/database`.
    pub database: String,
    /// The server's version, `15.13`; null if it could not be asked.
    pub version: Option<String>,
    /// Why it could not be examined, or not to the end; null if it was.
    pub error: Option<String>,
}

/// What `cdc check` says. As JSON it has this shape, which stays.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The migration's name.
    pub name: String,
    /// What has come out of it.
    pub outcome: Outcome,
    /// The phase of the migration if it is under way; null otherwise.
    pub phase: Option<String>,
    /// The source.
    pub source: End,
    /// The target.
    pub target: End,
    /// How many findings block.
    pub blocks: usize,
    /// How many findings warn.
    pub warns: usize,
    /// How many findings inform.
    pub informs: usize,
    /// What was found: first what blocks, then what warns, then what informs.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Counts and sorts the findings.
    pub(super) fn new(
        name: &str,
        phase: Option<String>,
        ends: [End; 2],
        is_unreachable: bool,
        mut findings: Vec<Finding>,
    ) -> Self {
        // What is of a kind comes together, each kind where it was first found.
        let mut codes: Vec<&'static str> = Vec::new();
        for finding in &findings {
            if !codes.contains(&finding.code) {
                codes.push(finding.code);
            }
        }
        findings.sort_by_key(|f| {
            (
                f.severity,
                codes.iter().position(|code| *code == f.code),
                f.side.map(|side| side == Side::Target),
            )
        });
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (blocks, warns) = (count(Severity::Blocks), count(Severity::Warns));
        let outcome = match (is_unreachable, blocks) {
            (true, _) => Outcome::Unreachable,
            (false, 0) => Outcome::Clear,
            (false, _) => Outcome::Blocked,
        };
        let informs = count(Severity::Informs);
        let [source, target] = ends;
        Self { name: name.to_owned(), outcome, phase, source, target, blocks, warns, informs, findings }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Clear => style("nothing stands in the way").green(),
            Outcome::Blocked => style("something stands in the way").red(),
            Outcome::Unreachable => style("a database can't be reached").red(),
        };
        let (blocks, warns, informs) = (self.blocks, self.warns, self.informs);
        writeln!(f, "{}: {outcome} (blocks {blocks}, warns {warns}, informs {informs})", self.name)?;
        for (side, end) in [("source", &self.source), ("target", &self.target)] {
            write!(f, "  {side}  {}", end.database)?;
            if let Some(version) = &end.version {
                write!(f, ", PostgreSQL {version}")?;
            }
            writeln!(f)?;
            if let Some(error) = &end.error {
                writeln!(f, "          {}", error.replace('\n', "\n          "))?;
            }
        }
        if let Some(phase) = &self.phase {
            writeln!(f, "  the migration is under way: phase {phase}")?;
        }
        let groups: Vec<&[Finding]> = self.findings.chunk_by(Finding::is_of_a_kind).collect();
        for severity in [Severity::Blocks, Severity::Warns, Severity::Informs] {
            let mut groups = groups.iter().filter(|group| group[0].severity == severity).peekable();
            if groups.peek().is_some() {
                let title = severity.as_str().to_uppercase();
                let title = match severity {
                    Severity::Blocks => style(title).red().bold(),
                    Severity::Warns => style(title).yellow().bold(),
                    Severity::Informs => style(title).bold(),
                };
                writeln!(f, "\n{title}")?;
            }
            groups.try_for_each(|group| write_group(f, group))?;
        }
        Ok(())
    }
}

impl Finding {
    /// True if both say the same of two objects, but for the names.
    fn is_of_a_kind(&self, other: &Self) -> bool {
        (self.severity, self.code, self.side, &self.why)
            == (other.severity, other.code, other.side, &other.why)
    }

    fn place(&self) -> String {
        self.side.map_or("both".to_owned(), |side| side.to_string())
    }
}

/// Findings of one kind: each with what mends it, and why only once. What only informs is a line.
fn write_group(f: &mut fmt::Formatter<'_>, group: &[Finding]) -> fmt::Result {
    let (first, more) = (&group[0], group.len().saturating_sub(SHOWN));
    let (place, code) = (first.place(), style(first.code).dim());
    if first.severity == Severity::Informs && group.iter().all(|finding| finding.what == first.what) {
        let objects: Vec<&str> =
            group.iter().take(SHOWN).filter_map(|finding| finding.object.as_deref()).collect();
        let colon = if objects.is_empty() { "" } else { ": " };
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return writeln!(f, "  {place:6}  {}{colon}{}{more} [{code}]", first.what, objects.join(", "));
    }
    for finding in group.iter().take(SHOWN) {
        let object = finding.object.as_ref().map_or(String::new(), |object| format!("{object}: "));
        writeln!(f, "  {place:6}  {object}{} [{code}]", indented(&finding.what))?;
        if let Some(mend) = finding.mend.as_ref().filter(|_| first.severity != Severity::Informs) {
            writeln!(f, "          mend  {}", indented(mend))?;
        }
    }
    if more > 0 {
        writeln!(f, "          and {more} more that --json lists")?;
    }
    if first.severity != Severity::Informs {
        writeln!(f, "          why   {}", indented(&first.why))?;
    }
    Ok(())
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n                ")
}
