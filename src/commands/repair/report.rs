//! How a repair has ended, as `cdc repair --json` prints it and for a person.

use std::fmt;

use serde::Serialize;

use crate::ledger::Repair;
use crate::verify;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Nothing was to be repaired.
    Same,
    /// What differed was copied again, and is the same now.
    Repaired,
    /// Something is still different, or could not be copied again.
    Different,
    /// Whoever was asked said no.
    Declined,
    /// It is recorded, and no daemon is running.
    Asked,
    /// It is recorded, and nobody waited for the daemon.
    Interrupted,
    /// It could not be done, or not to its end.
    NotRepaired,
}

/// A repair. Field names and meanings are stable.
#[derive(Serialize)]
pub(super) struct Report {
    /// The migration's name.
    name: String,
    pub(super) outcome: Outcome,
    /// Why it could not be done, or not to its end; null if it could.
    pub(super) error: Option<String>,
    /// What the daemon was asked for.
    pub(super) repairs: Vec<Repair>,
    /// What was found before; null where nothing could be compared, and with `--all`.
    before: Option<verify::Report>,
    /// What was found of it afterwards; null if it didn't come to that.
    after: Option<verify::Report>,
}

impl Report {
    /// Of a repair that has done nothing yet.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            outcome: Outcome::NotRepaired,
            error: None,
            repairs: Vec::new(),
            before: None,
            after: None,
        }
    }

    /// Takes in what was found before.
    pub(super) fn found(&mut self, before: verify::Report) {
        if of_rows(&before) == verify::Outcome::Same {
            self.outcome = Outcome::Same;
        }
        self.before = Some(before);
    }

    /// Takes in what was found afterwards, and draws the conclusion.
    pub(super) fn conclude(&mut self, after: verify::Report) {
        let is_refused = self.repairs.iter().any(|repair| repair.error.is_some());
        let unknown: Vec<&str> =
            self.before.iter().flat_map(|report| report.not_compared()).map(|table| &*table.table).collect();
        if !unknown.is_empty() {
            self.error = Some(format!("could not be compared, and are as they were: {}", unknown.join(", ")));
        }
        self.outcome = match of_rows(&after) {
            verify::Outcome::Same if is_refused => Outcome::Different,
            verify::Outcome::Same if self.error.is_some() => Outcome::NotRepaired,
            verify::Outcome::Same => Outcome::Repaired,
            verify::Outcome::Different => Outcome::Different,
            verify::Outcome::NotCompared => Outcome::NotRepaired,
        };
        self.after = Some(after);
    }
}

/// What came out of comparing the rows: nothing else is copied again.
fn of_rows(report: &verify::Report) -> verify::Outcome {
    let is_any = |outcome| report.tables.iter().any(|table| table.outcome == outcome);
    if is_any(verify::Outcome::Different) {
        verify::Outcome::Different
    } else if report.error.is_some() || report.tables.is_empty() || is_any(verify::Outcome::NotCompared) {
        verify::Outcome::NotCompared
    } else {
        verify::Outcome::Same
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for repair in self.repairs.iter().filter_map(|repair| repair.error.as_ref()) {
            writeln!(f, "refused: {}", repair.replace('\n', "\n  "))?;
        }
        if let Some(seen) = self.after.as_ref().or(self.before.as_ref().filter(|_| self.repairs.is_empty())) {
            write!(f, "{seen}")?;
        }
        f.write_str(match self.outcome {
            Outcome::Same => "nothing is to be repaired\n",
            Outcome::Repaired => "repaired: what was copied again is the same now\n",
            Outcome::Different => "not all of it is the same: see above, and run cdc repair again\n",
            Outcome::Declined => "nothing is copied again\n",
            Outcome::Asked => {
                "recorded; no daemon is running: start it (cdc run), and it begins with the copy of everything\n"
            }
            Outcome::Interrupted => {
                "the daemon goes on without you; see cdc status, and run cdc verify when it is done\n"
            }
            Outcome::NotRepaired => "not repaired, or not known to be\n",
        })?;
        match &self.error {
            Some(error) => writeln!(f, "  {}", error.replace('\n', "\n  ")),
            None => Ok(()),
        }
    }
}
