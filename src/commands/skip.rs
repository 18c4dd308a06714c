//! `cdc skip`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;

use super::ask::{ask, can_ask};
use super::{Exit, json, print};
use crate::cli::Skip as Arguments;
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::{Incident, Ledger, Skip};
use crate::lsn::Lsn;
use crate::observe::changes;

/// How it ended, as `--json` prints it. Field names and meanings are stable.
#[derive(Serialize)]
struct Report {
    /// The migration's name.
    name: String,
    outcome: Outcome,
    #[serde(flatten)]
    skip: Skip,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// The daemon has passed it, and nothing of it is on the target.
    Skipped,
    /// The request is recorded, and no daemon is running.
    Asked,
    /// The request is recorded, and the operator didn't wait for the daemon.
    Interrupted,
    /// It could be applied in the meantime.
    Applied,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lsn = &self.skip.lsn;
        match self.outcome {
            Outcome::Skipped => {
                let dropped = changes(self.skip.dropped.as_ref());
                return writeln!(
                    f,
                    "skipped {lsn}: dropped {dropped}\nThe target lacks these changes until somebody brings them there. \
                     Later changes of the same rows can block\nthe daemon again."
                );
            }
            Outcome::Applied => {
                return writeln!(f, "not skipped: the transaction {lsn} could be applied in the meantime");
            }
            Outcome::Asked => {
                writeln!(f, "recorded; no daemon is running: it skips the transaction {lsn} when it starts")?;
            }
            Outcome::Interrupted => {
                writeln!(f, "recorded; the daemon skips the transaction {lsn} when it comes to it")?;
            }
        }
        writeln!(
            f,
            "To take that back before, on the target: DELETE FROM cdc.skip WHERE name = '{}' AND lsn = '{lsn}' AND \
             skipped_at IS NULL",
            self.name
        )
    }
}

/// Lets a blocked daemon pass one transaction.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<Exit> {
    if !arguments.yes && !can_ask() {
        return Err(Fault::usage("skipping drops changes for good, and there is no terminal to ask at")
            .remedy("if you are sure: cdc skip LSN --yes --reason TEXT"));
    }
    let application = format!("cdc_{} skip", config.name);
    let ledger =
        Ledger::new(Arc::new(Session::open(&config.target, Side::Target, &application).await?), &config.name);
    if !ledger.exists().await? {
        return Err(Fault::person(format!("the migration {} has not begun", config.name)).on(Side::Target));
    }
    let lsn = arguments.lsn;
    let is_asked_already = match ledger.skip(lsn).await? {
        Some(skip) => skip.skipped_at.is_some() || ledger.skips_to_come().await?.contains(&lsn),
        None => false,
    };
    if !is_asked_already {
        let incident = blocked_at(&ledger, lsn).await?;
        let Some(reason) = agree(&config.name, lsn, &incident, arguments).await? else {
            print("nothing is skipped\n")?;
            return Ok(Exit::No);
        };
        let os_user = whoami::username().unwrap_or_else(|_| "unknown".to_owned());
        ledger.ask_to_skip(lsn, &reason, &os_user).await?;
    }
    let outcome = wait(&ledger, lsn).await?;
    let report = Report { name: config.name.clone(), outcome, skip: requested(&ledger, lsn).await? };
    print(&if arguments.json { json(&report)? } else { report.to_string() })?;
    Ok(match outcome {
        Outcome::Skipped | Outcome::Asked => Exit::Yes,
        Outcome::Interrupted | Outcome::Applied => Exit::No,
    })
}

/// The open incident of the transaction; refused if the daemon is not blocked at that one.
async fn blocked_at(ledger: &Ledger, lsn: Lsn) -> Result<Incident> {
    const MOST: i64 = 100;
    let incidents = ledger.incidents(MOST).await?;
    let checkpoint = ledger.checkpoint().await?;
    let mut open: Vec<Incident> =
        incidents.into_iter().filter(|i| i.resolved_at.is_none() && i.severity == "blocked").collect();
    // One that was passed is closed a moment later.
    let is_ahead = |lsn: Lsn| checkpoint.is_some_and(|checkpoint| checkpoint.lsn <= lsn);
    let lsn_of = |incident: &Incident| incident.lsn.as_ref()?.parse().ok().filter(|lsn| is_ahead(*lsn));
    if let Some(index) = open.iter().position(|incident| lsn_of(incident) == Some(lsn)) {
        return Ok(open.swap_remove(index));
    }
    let refused = |why: String| Err(Fault::person(why).on(Side::Target));
    if let Some((at, incident)) = open.iter().find_map(|incident| Some((lsn_of(incident)?, incident))) {
        return refused(format!(
            "the daemon is not blocked at {lsn} but at {at}, and only that transaction can be skipped\n{incident}"
        ));
    }
    match open.first() {
        Some(incident) if incident.lsn.is_none() => refused(format!(
            "the daemon is blocked by something that belongs to no transaction: mend that, skipping can't help\n\
             {incident}"
        )),
        _ => refused(format!("the daemon is not blocked at {lsn}: there is nothing to skip")),
    }
}

/// Says what it is about and asks twice; gives the reason, or `None` if it is not to be.
async fn agree(name: &str, lsn: Lsn, incident: &Incident, arguments: &Arguments) -> Result<Option<String>> {
    if arguments.yes {
        return Ok(arguments.reason.clone());
    }
    print(&format!(
        "{name}: blocked at the transaction that commits at {lsn}\n{incident}\n\
         To skip it is the last resort: it is better to mend the cause, as above. If you skip it,\n\
         - all that this transaction changed on the source is dropped, in every table, not only in the one above;\n\
         - the target differs from the source from then on, until somebody repairs that by hand;\n\
         - later changes of the same rows can block the daemon again;\n\
         - it can't be undone. Who has asked for it, when and why is kept, and shown by cdc status.\n\n"
    ))?;
    if !matches!(ask("Skip it? (yes/no) ").await?.as_str(), "y" | "yes") {
        return Ok(None);
    }
    let reason = match &arguments.reason {
        Some(reason) => reason.clone(),
        None => ask("Why? ").await?,
    };
    if reason.is_empty() {
        return Ok(None);
    }
    let typed = ask(&format!("To be sure, type the LSN {lsn}: ")).await?;
    Ok((typed.parse() == Ok(lsn)).then_some(reason))
}

const INTERVAL: Duration = Duration::from_millis(200);

/// Waits until the daemon has passed it, as long as one is running.
async fn wait(ledger: &Ledger, lsn: Lsn) -> Result<Outcome> {
    let line =
        ProgressBar::new_spinner().with_message("waiting for the daemon (Ctrl-C: it goes on without you)");
    line.enable_steady_tick(INTERVAL);
    let outcome = tokio::select! {
        outcome = passed(ledger, lsn) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(Outcome::Interrupted),
    };
    line.finish_and_clear();
    outcome
}

async fn passed(ledger: &Ledger, lsn: Lsn) -> Result<Outcome> {
    loop {
        // In this order: what isn't to come any more has been skipped by then, or never will be.
        let is_to_come = ledger.skips_to_come().await?.contains(&lsn);
        if requested(ledger, lsn).await?.skipped_at.is_some() {
            return Ok(Outcome::Skipped);
        }
        if !is_to_come {
            return Ok(Outcome::Applied);
        }
        if !ledger.daemon_is_running().await? {
            return Ok(Outcome::Asked);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn requested(ledger: &Ledger, lsn: Lsn) -> Result<Skip> {
    ledger.skip(lsn).await?.ok_or_else(|| {
        Fault::person("somebody has taken the request back (cdc.skip): nothing is skipped").on(Side::Target)
    })
}
