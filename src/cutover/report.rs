//! What came out of a switch, as `cdc cutover --json` prints it.

use std::fmt;

use serde::Serialize;

use super::estimate::Estimate;
use super::plan::{Step, Way};
use crate::preflight::{Finding, Severity};

/// How a switch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Only looked at: nothing stands in the way.
    Possible,
    /// The new side is the one.
    Switched,
    /// Something failed, and everything is as before: the old side takes writes.
    Undone,
    /// Nothing was begun.
    Refused,
    /// A person is needed: see `error`.
    Stuck,
}

/// What became of a step.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// Which.
    pub step: Step,
    /// How long it took.
    pub seconds: f64,
    /// What there is to say of it.
    pub note: Option<String>,
}

/// A switch. Field names and meanings are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The migration's name.
    pub name: String,
    /// `cutover` or `rollback`.
    pub way: Way,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether what is written from now on is sent to the other side, so that there is a way back.
    pub way_back: bool,
    /// The database that takes writes now, as `user@host:port/database`; null if that is not known.
    pub writable: Option<String>,
    /// For how many milliseconds nothing could be written; null if writes never rested.
    pub pause_ms: Option<u64>,
    /// For how long writes would rest, if it was only looked at; null otherwise.
    pub estimate: Option<Estimate>,
    /// What was found before.
    pub findings: Vec<Finding>,
    /// The steps that were done.
    pub steps: Vec<Done>,
    /// The step that failed; null if none has.
    pub failed_step: Option<Step>,
    /// Why it didn't end as asked; null if it did.
    pub error: Option<String>,
    /// How long it took to undo it.
    pub undone_in_ms: Option<u64>,
}

impl Report {
    pub(super) fn new(name: &str, way: Way) -> Self {
        Self {
            name: name.to_owned(),
            way,
            outcome: Outcome::Refused,
            way_back: false,
            writable: None,
            pause_ms: None,
            estimate: None,
            findings: Vec::new(),
            steps: Vec::new(),
            failed_step: None,
            error: None,
            undone_in_ms: None,
        }
    }
}

/// A finding in a line or two.
fn finding(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    let side = finding.side.map_or(String::new(), |side| format!(" ({side})"));
    let object = finding.object.as_ref().map_or(String::new(), |object| format!(" [{object}]"));
    writeln!(f, "  {}{side}: {}{object}", finding.severity.as_str(), finding.what)?;
    match finding.mend.as_ref().filter(|mend| !mend.is_empty()) {
        Some(mend) => writeln!(f, "    what to do: {mend}"),
        None => Ok(()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.outcome {
            Outcome::Possible => "nothing stands in the way",
            Outcome::Switched => "switched",
            Outcome::Undone => "NOT switched: everything is undone",
            Outcome::Refused => "NOT switched: nothing was begun",
            Outcome::Stuck => "a person is needed",
        };
        writeln!(f, "{}: {} {what}", self.name, self.way.as_str())?;
        for found in self.findings.iter().filter(|found| found.severity < Severity::Informs) {
            finding(f, found)?;
        }
        if let Some(writable) = &self.writable {
            writeln!(f, "  writes go to  {writable}")?;
        }
        if let Some(estimate) = &self.estimate {
            writeln!(f, "  writes would rest for about {} ms: {estimate}", estimate.pause_ms)?;
        }
        if let Some(pause) = self.pause_ms {
            writeln!(f, "  writes rested {pause} ms")?;
        }
        if self.outcome == Outcome::Switched {
            let back = if self.way == Way::Cutover { "cdc rollback" } else { "cdc cutover" };
            match self.way_back {
                true => writeln!(f, "  the way back  {back}: what is written now is sent to the other side")?,
                false => writeln!(f, "  there is NO way back: nothing is sent to the other side")?,
            }
        }
        if let Some(error) = &self.error {
            let step = self.failed_step.map_or("", Step::as_str);
            writeln!(f, "  why           {step}{}{error}", if step.is_empty() { "" } else { ": " })?;
        }
        match self.undone_in_ms {
            Some(ms) => writeln!(f, "  undone within {ms} ms"),
            None => Ok(()),
        }
    }
}
