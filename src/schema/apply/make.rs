//! Running the steps on the target.
//!
//! What is new, with all that belongs to it, is made in one transaction: a process that is killed leaves nothing
//! half made. What changes tables that were there before comes after that, each for itself ([`super::beside`]),
//! since others may be using them. Both go round until nothing more can be made: what needs something that was
//! made later is tried again.

use std::collections::BTreeMap;

use super::beside::beside;
use super::plan::{Plan, Step};
use super::report::Object;
use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};

/// How many steps are sent at once.
const STEPS_AT_ONCE: usize = 200;

/// How long what is new waits for the little that it needs of what is there, in milliseconds.
const LOCK_WAIT_MS: u32 = 10_000;

/// What the SQL expects, as `pg_restore` sets it. What a function's body names is looked for when it is called.
pub(super) const SETTINGS: &str = "SET check_function_bodies = off; SET client_min_messages = warning; \
     SET xmloption = content; SET search_path = ''; ";

/// What came of the steps.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// In the order in which they were made.
    pub(super) made: Vec<Object>,
    /// By their places among the steps.
    pub(super) failed: BTreeMap<usize, Fault>,
}

/// Makes what can be made.
///
/// # Errors
/// If the session fails; what was made by then stays, but for the transaction that was open.
pub(super) async fn make(sessions: (&Session, &Session), name: &str, plan: &Plan) -> Result<Outcome> {
    let (target, steps) = (sessions.1, plan.steps.as_slice());
    let doing = |e| Fault::sql(Side::Target, "making the schema", &e);
    target.batch_execute(&format!("{SETTINGS}{}", plan.settings)).await.map_err(doing)?;
    let is_copying = is_copying(target, name).await?;
    let mut outcome = Outcome::default();
    let mut open: Vec<usize> = (0..steps.len()).collect();
    loop {
        let before = open.len();
        let (new, old): (Vec<usize>, Vec<usize>) =
            open.into_iter().partition(|step| steps[*step].tables.is_empty());
        let mut left = new_things(target, steps, new, &mut outcome).await?;
        for step in old {
            let made = match is_copying && steps[step].may_not_hold_yet() {
                true => Err(steps[step].later()),
                false => beside(sessions, &steps[step]).await,
            };
            match made {
                Ok(()) => outcome.made.push(steps[step].object.clone()),
                Err(fault) if ends_it(target, &fault) => return Err(fault),
                Err(fault) => {
                    left.push(step);
                    outcome.failed.insert(step, fault);
                }
            }
        }
        left.sort_unstable();
        if left.is_empty() || left.len() == before {
            outcome.failed.retain(|step, _| left.contains(step));
            outcome.made.dedup();
            undo_partitions(target, steps, &mut outcome).await?;
            return Ok(outcome);
        }
        open = left;
    }
}

/// True while rows of different moments are on the target, and not every constraint can hold.
async fn is_copying(target: &Session, name: &str) -> Result<bool> {
    let fault = |e| Fault::sql(Side::Target, "looking whether rows are being copied", &e);
    let exists = "SELECT pg_catalog.to_regclass('cdc.migration') IS NOT NULL";
    if !target.query_one(exists, &[]).await.map_err(fault)?.get::<_, bool>(0) {
        return Ok(false);
    }
    let copying = "SELECT EXISTS (SELECT FROM cdc.migration WHERE name = $1 AND phase = 'copy')";
    Ok(target.query_one(copying, &[&name]).await.map_err(fault)?.get(0))
}

impl Step {
    /// Two rows that never existed together could violate it.
    fn may_not_hold_yet(&self) -> bool {
        matches!(self.object.kind.as_str(), "constraint" | "foreign key")
            || self.sql.starts_with("CREATE UNIQUE ")
    }

    fn later(&self) -> Fault {
        let Object { kind, name } = &self.object;
        Fault::person(format!("the {kind} {name} can't hold while rows are being copied"))
            .on(Side::Target)
            .remedy("cdc schema apply again, when cdc status says that it only follows")
    }
}

/// Takes back the tables that could not become partitions: their parents have another layout.
async fn undo_partitions(target: &Session, steps: &[Step], outcome: &mut Outcome) -> Result<()> {
    for step in outcome.failed.keys().map(|at| &steps[*at]).filter(|step| step.object.kind == "partition") {
        let table = Object { kind: "table".to_owned(), name: step.object.name.clone() };
        if outcome.made.contains(&table) {
            let drop = format!("DROP TABLE {}", step.name.to_sql());
            target.batch_execute(&drop).await.map_err(|e| explain(step, &e))?;
            let part = format!("{} ", table.name);
            outcome.made.retain(|made| *made != table && !made.name.starts_with(&part));
        }
    }
    Ok(())
}

/// True for what isn't the step's fault.
fn ends_it(target: &Session, fault: &Fault) -> bool {
    target.is_closed() || fault.reaction() == Reaction::Retry
}

/// Makes these steps in one transaction; gives those that could not be made.
async fn new_things(
    target: &Session,
    steps: &[Step],
    mut open: Vec<usize>,
    outcome: &mut Outcome,
) -> Result<Vec<usize>> {
    if open.is_empty() {
        return Ok(open);
    }
    let doing = |e| Fault::sql(Side::Target, "making the schema", &e);
    target
        .batch_execute(&format!("BEGIN; SET LOCAL lock_timeout = {LOCK_WAIT_MS}; SAVEPOINT step"))
        .await
        .map_err(doing)?;
    let mut made = Vec::new();
    loop {
        let before = open.len();
        let mut failed = Vec::new();
        for steps_at_once in open.chunks(STEPS_AT_ONCE) {
            failed.extend(some(target, steps, steps_at_once, &mut made, outcome).await?);
        }
        open = failed;
        if open.is_empty() || open.len() == before {
            break;
        }
    }
    target.batch_execute("COMMIT").await.map_err(doing)?;
    outcome.made.extend(made.into_iter().map(|step| steps[step].object.clone()));
    Ok(open)
}

/// Makes some of them; where one fails, each half for itself. Gives those that failed.
async fn some(
    target: &Session,
    steps: &[Step],
    wanted: &[usize],
    made: &mut Vec<usize>,
    outcome: &mut Outcome,
) -> Result<Vec<usize>> {
    let mut failed = Vec::new();
    let mut parts = vec![wanted];
    while let Some(part) = parts.pop() {
        let mut script = String::new();
        part.iter().for_each(|step| {
            script.push_str(&steps[*step].sql);
            script.push('\n');
        });
        // Not at its beginning: where one statement isn't understood, none is run.
        script.push_str("RELEASE SAVEPOINT step; SAVEPOINT step");
        let Err(error) = target.batch_execute(&script).await else {
            made.extend(part);
            continue;
        };
        let fault = explain(&steps[part[0]], &error);
        if ends_it(target, &fault) {
            // The transaction goes with the session, or with this.
            let _ = target.batch_execute("ROLLBACK").await;
            return Err(fault);
        }
        let undone = target.batch_execute("ROLLBACK TO SAVEPOINT step").await;
        undone.map_err(|e| Fault::sql(Side::Target, "making the schema", &e))?;
        if let &[step] = part {
            failed.push(step);
            outcome.failed.insert(step, fault);
        } else {
            let (first, second) = part.split_at(part.len() / 2);
            parts.extend([second, first]);
        }
    }
    Ok(failed)
}

/// What the target has said to a step.
pub(super) fn explain(step: &Step, error: &tokio_postgres::Error) -> Fault {
    let Object { kind, name } = &step.object;
    let fault = Fault::sql(Side::Target, &format!("making the {kind} {name}"), error);
    let hint = error.as_db_error().and_then(|db| db.hint());
    match fault.code().map(|code| code.code()) {
        Some("53200") => {
            fault.remedy("raise max_locks_per_transaction on the target: each new object takes some")
        }
        Some("42501") if kind == "extension" => {
            fault.remedy(format!("as a superuser of the target: {}", step.sql.replace('\n', " ").trim()))
        }
        Some("42501") => {
            fault.remedy("give the target's role this right (GRANT ... TO ...), or connect as the owner")
        }
        Some("0A000" | "58P01" | "22023") if kind == "extension" => fault.remedy(
            "install the package of the extension on the target's server, or drop on the source what uses it",
        ),
        _ => match hint {
            Some(hint) => fault.remedy(hint.to_owned()),
            None => fault.remedy("make what it needs, or leave it out with [schema] exclude"),
        },
    }
}
