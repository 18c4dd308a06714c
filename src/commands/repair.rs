//! `cdc repair`.

mod report;
mod wait;

use std::sync::Arc;

use super::ask::{ask, can_ask};
use super::verify::verify_with_bar;
use super::{Exit, json, print};
use crate::catalog::{TableName, published};
use crate::cli::Repair as Arguments;
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{Again, Ledger};
use crate::verify::{self, Options, Part};
use report::{Outcome, Report};
use wait::{Ended, wait};

/// Has what differs copied again, and verifies it.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<Exit> {
    if !arguments.yes && !can_ask() {
        return Err(Fault::usage("a repair replaces rows of the target, and there is no terminal to ask at")
            .remedy("if you are sure: cdc repair --yes"));
    }
    let mut report = Report::new(&config.name);
    match repair(config, arguments, &mut report).await {
        Err(fault) if matches!(fault.reaction(), Reaction::Usage | Reaction::Bug) => return Err(fault),
        Err(fault) => report.error = Some(fault.to_string()),
        Ok(()) => {}
    }
    print(&if arguments.json { json(&report)? } else { report.to_string() })?;
    Ok(match report.outcome {
        Outcome::Same | Outcome::Repaired => Exit::Yes,
        Outcome::Different | Outcome::Declined => Exit::No,
        Outcome::Asked | Outcome::Interrupted | Outcome::NotRepaired => Exit::Unreachable,
    })
}

async fn repair(config: &Config, arguments: &Arguments, report: &mut Report) -> Result<()> {
    let application = format!("cdc_{} repair", config.name);
    let target = Session::open(&config.target, Side::Target, &application).await?;
    let ledger = Ledger::new(Arc::new(target), &config.name);
    let daemon = match ledger.exists().await? {
        true => ledger.daemon_now().await?,
        false => None,
    };
    let Some(daemon) = daemon else {
        return Err(Fault::person(format!(
            "there is no migration {:?} here: no daemon is streaming",
            config.name
        ))
        .on(Side::Target)
        .remedy("start one (cdc run), or name another one (--name)"));
    };
    let wanted = if arguments.all {
        everything(config)
    } else if !daemon.is_running {
        return Err(Fault::person("no daemon is running: rows are copied again only by one that streams")
            .on(Side::Target)
            .remedy("start it (cdc run), then run this again"));
    } else if daemon.state == "blocked" {
        whole_tables(config, arguments).await?
    } else {
        what_differs(config, &ledger, arguments, report).await?
    };
    let Some(wanted) = wanted else { return Ok(()) };
    if !arguments.yes {
        print(&wanted.question)?;
        if !matches!(ask("Go on? (yes/no) ").await?.as_str(), "y" | "yes") {
            report.outcome = Outcome::Declined;
            return Ok(());
        }
    }
    let requests = request(&ledger, arguments, &wanted).await?;
    let ended = wait(&ledger, &requests).await;
    let all = ledger.repairs().await?;
    report.repairs = all.into_iter().filter(|repair| requests.contains(&repair.id)).collect();
    match ended? {
        Ended::Over => {}
        Ended::NoDaemon if arguments.all => {
            report.outcome = Outcome::Asked;
            return Ok(());
        }
        Ended::NoDaemon => {
            return Err(Fault::person("the daemon has ended; it goes on with this when it is started")
                .on(Side::Target));
        }
        Ended::Interrupted => {
            report.outcome = Outcome::Interrupted;
            return Ok(());
        }
    }
    let only = wanted.parts;
    let after = verify_with_bar(config, &Options { only, ..Options::default() }).await?;
    report.conclude(after);
    Ok(())
}

/// What is to be copied again.
struct Wanted {
    /// What is asked of the daemon, one by one.
    again: Vec<Again>,
    /// What is verified afterwards; `None` is everything.
    parts: Option<Vec<Part>>,
    /// What it is about, for whoever is asked.
    question: String,
}

/// Everything, from a new slot on.
fn everything(config: &Config) -> Option<Wanted> {
    Some(Wanted {
        again: vec![Again::default()],
        parts: None,
        question: format!(
            "{}: everything is copied again:\n\
             - the replication slot is removed, if it is there, and a new one is made;\n\
             - every table is copied as at the first time, chunk by chunk, while the stream runs;\n\
             - the target's rows stay until the chunk that they are in takes their place. Until the copy is over, the\n\
             \x20 target is no state that the source ever had, and its unique constraints and foreign keys are off.\n\n",
            config.name
        ),
    })
}

/// All rows of the tables that are named: where the stream stands, nothing can be compared.
async fn whole_tables(config: &Config, arguments: &Arguments) -> Result<Option<Wanted>> {
    if arguments.table.is_empty() {
        return Err(Fault::person("the daemon is blocked: rows can be compared only while it streams")
            .on(Side::Target)
            .remedy(
                "see cdc status. If a row of the target stands in the way or is missing there, name its table (cdc repair \
                 --table schema.table): all of its rows are copied again, and the stream goes on",
            ));
    }
    let application = format!("cdc_{} repair", config.name);
    let target = Session::open(&config.target, Side::Target, &application).await?;
    let publications = Ledger::new(Arc::new(target), &config.name).publications().await?;
    let source = Session::open(&config.source, Side::Source, &application).await?;
    let tables = published(&source, &publications).await?;
    let mut again = Vec::new();
    for name in &arguments.table {
        let of_it = tables.iter().filter(|table| table.name == *name || table.root.as_ref() == Some(name));
        let before = again.len();
        again.extend(of_it.map(|table| Again { relation: Some(table.oid), ..Again::default() }));
        if again.len() == before {
            return Err(Fault::usage(format!("the table {name} is not in the stream"))
                .remedy("write it as schema.table, in the case that the catalog has it in"));
        }
    }
    let part = |table: &TableName| Part { table: table.clone(), ranges: Vec::new() };
    let names: Vec<String> = arguments.table.iter().map(ToString::to_string).collect();
    Ok(Some(Wanted {
        again,
        parts: Some(arguments.table.iter().map(part).collect()),
        question: format!(
            "{}: the daemon is blocked, so nothing can be compared. All rows of {} are copied again,\n\
             over the rows that the target has.\n\n",
            config.name,
            names.join(", ")
        ),
    }))
}

/// What a verification finds to be different; `None` if there is nothing.
async fn what_differs(
    config: &Config,
    ledger: &Ledger,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<Option<Wanted>> {
    let part = |table: &TableName| Part { table: table.clone(), ranges: Vec::new() };
    let only = (!arguments.table.is_empty()).then(|| arguments.table.iter().map(part).collect());
    let found = verify_with_bar(config, &Options { only, ..Options::default() }).await?;
    let mut wanted = Wanted { again: Vec::new(), parts: Some(Vec::new()), question: found.to_string() };
    for table in found.tables.iter().filter(|table| table.outcome == verify::Outcome::Different) {
        let parts = wanted.parts.get_or_insert_default();
        parts.push(Part { table: table.name.clone(), ranges: table.ranges.clone() });
        for relation in &table.relations {
            let copied = ledger.copied_table(*relation).await?;
            wanted.again.push(Again {
                relation: Some(*relation),
                ranges: Some(table.ranges.clone()),
                key_columns: copied.map(|(table, _)| table.key_columns).unwrap_or_default(),
            });
        }
    }
    let ranges: usize = wanted.parts.iter().flatten().map(|part| part.ranges.len()).sum();
    wanted.question.push_str(&format!(
        "\nThe ranges of keys that differ ({ranges}) are copied again while the stream runs, over the rows that the target \
         has\nthere: what only the target has is deleted.\n\n"
    ));
    let is_nothing = wanted.again.is_empty();
    report.found(found);
    Ok((!is_nothing).then_some(wanted))
}

/// Records what is wanted; gives the numbers of the requests.
async fn request(ledger: &Ledger, arguments: &Arguments, wanted: &Wanted) -> Result<Vec<i64>> {
    let reason = arguments.reason.as_deref().unwrap_or("cdc repair");
    let os_user = whoami::username().unwrap_or_else(|_| "unknown".to_owned());
    let mut requests = Vec::new();
    for again in &wanted.again {
        // One that is under way already does it.
        let open =
            ledger.open_repairs().await?.into_iter().find(|repair| arguments.all && repair.again == *again);
        requests.push(match open {
            Some(repair) => repair.id,
            None => ledger.ask_repair(again, reason, &os_user).await?,
        });
    }
    Ok(requests)
}
