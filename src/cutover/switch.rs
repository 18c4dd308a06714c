//! A switch from its beginning to its end, whatever that is.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config::{Config, Direction};
use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{Ledger, Switch};
use crate::limits;
use crate::preflight::{Finding, Severity};
use crate::shutdown::{Shutdown, shutdown};

use super::Event;
use super::check::Ends;
use super::plan::{LEASE, Step, Way};
use super::report::{Done, Outcome, Report};
use super::run::{Run, home, resume};
use super::undo::{Found, application, for_a_while, go_on, held, recover, undo};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which way.
    pub way: Way,
    /// Only looks whether it can be done.
    pub dry_run: bool,
    /// Goes on in spite of warnings.
    pub force: bool,
    /// Who asks, for the ledger.
    pub os_user: String,
}

/// Moves the applications to the other side, or says why not.
///
/// # Errors
/// If nothing was begun because a database can't be reached, or what is asked for makes no sense. Everything else is
/// in the report.
pub async fn switch(
    config: &Config,
    options: &Options,
    tell: &(dyn Fn(&Event<'_>) + Sync),
    stop: &mut Shutdown,
) -> Result<Report> {
    let mut report = Report::new(&config.name, options.way);
    let now = config.facing(options.way.direction());
    let begun = begin(&now, options, &mut report, tell).await;
    match begun {
        Ok(Some((home, switch))) => Box::pin(carry_out(now, home, switch, options, tell, stop, report)).await,
        Ok(None) => Ok(report),
        Err(fault) if fault.reaction() == Reaction::Person => {
            report.error = Some(fault.to_string());
            Ok(report)
        }
        Err(fault) => Err(side_of(&now, fault)),
    }
}

/// The sides as the configuration has them.
fn side_of(now: &Config, fault: Fault) -> Fault {
    if now.direction == Direction::Reverse { fault.swapped() } else { fault }
}

/// Looks at everything, and begins a switch; `None` if there is nothing more to do.
async fn begin(
    now: &Config,
    options: &Options,
    report: &mut Report,
    tell: &(dyn Fn(&Event<'_>) + Sync),
) -> Result<Option<(Ledger, Switch)>> {
    let home = home(now).await?;
    let holder = format!("cdc {}, pid {}", options.way.as_str(), std::process::id());
    if !home.exists().await? || home.phase().await?.is_none() {
        return Err(Fault::person(format!("there is no migration {:?} here", now.name))
            .remedy("start one (cdc run), or name another one (--name)"));
    }
    if !options.dry_run
        && let Some(switch) = take_up(now, &home, options.way, &holder).await?
    {
        return Ok(Some((home, switch)));
    }
    let course = home.course().await?;
    if course.is_over || course.direction != now.direction {
        let what = match (course.is_over, options.way) {
            (true, _) => "nothing is replicated any more: the migration has ended",
            (false, Way::Cutover) => "the switch is done already: the target takes the writes",
            (false, Way::Rollback) => "there is nothing to roll back: the source takes the writes",
        };
        return Err(Fault::person(what).remedy("see cdc status"));
    }
    tell(&Event::Begun(Step::Check));
    let began = Instant::now();
    report.findings = check(now).await?;
    let is_bad = |finding: &Finding| match finding.severity {
        Severity::Blocks => true,
        Severity::Warns => !options.force && finding.code == "schema",
        Severity::Informs => false,
    };
    if now.direction == Direction::Reverse {
        report.findings.iter_mut().for_each(turn_round);
    }
    if report.findings.iter().any(is_bad) {
        report.error = Some("something stands in the way; --force goes on in spite of warnings".to_owned());
        return Ok(None);
    }
    let done = Done { step: Step::Check, seconds: began.elapsed().as_secs_f64(), note: None };
    tell(&Event::Done(&done));
    report.steps.push(done);
    if options.dry_run {
        report.outcome = Outcome::Possible;
        return Ok(None);
    }
    let reverse = options.way == Way::Rollback || now.cutover.reverse;
    let switch = home.begin_switch(options.way.as_str(), reverse, &holder, &options.os_user, LEASE).await?;
    match switch {
        Some(switch) => Ok(Some((home, switch))),
        None => Err(under_way("another one has just begun")),
    }
}

fn turn_round(finding: &mut Finding) {
    finding.side = finding.side.map(|side| if side == Side::Source { Side::Target } else { Side::Source });
}

async fn check(now: &Config) -> Result<Vec<Finding>> {
    let application = application(now);
    let (old, new) = tokio::try_join!(
        Session::open(&now.source, Side::Source, &application),
        Session::open(&now.target, Side::Target, &application)
    )?;
    let new = std::sync::Arc::new(new);
    let ledger = Ledger::new(std::sync::Arc::clone(&new), &now.name);
    // A daemon that has just turned is given a moment.
    let deadline = Instant::now() + limits::SLOT_FREE;
    loop {
        let found = Ends { now, old: &old, new: &new, ledger: &ledger }.check().await?;
        if !found.iter().any(|finding| finding.code == "not-streaming") || Instant::now() > deadline {
            return Ok(found);
        }
        sleep(limits::CLOCK_INTERVAL).await;
    }
}

fn under_way(what: &str) -> Fault {
    Fault::person(format!("a switch is under way: {what}")).remedy("wait for its end; cdc status shows it")
}

/// What another command has left: it is undone, or goes on here.
async fn take_up(now: &Config, home: &Ledger, way: Way, holder: &str) -> Result<Option<Switch>> {
    let deadline = Instant::now() + LEASE + Duration::from_secs(1);
    loop {
        match recover(now, home, holder).await? {
            Found::Nothing | Found::Undone(_) => return Ok(None),
            Found::Held(switch) if Instant::now() > deadline => {
                return Err(under_way(&format!("{} is at the step {}", switch.holder, switch.step)));
            }
            Found::Held(_) => sleep(limits::CLOCK_INTERVAL).await,
            Found::Decided(switch) if switch.way == way.as_str() => {
                if let Some(switch) = home.take_over_switch(switch.id, holder, LEASE).await? {
                    return Ok(Some(switch));
                }
            }
            Found::Decided(switch) => {
                return Err(under_way(&format!("a {} is decided and not finished", switch.way))
                    .remedy(format!("run cdc {} again first: it goes on with what is left", switch.way)));
            }
        }
    }
}

async fn carry_out(
    now: Config,
    home: Ledger,
    switch: Switch,
    options: &Options,
    tell: &(dyn Fn(&Event<'_>) + Sync),
    stop: &mut Shutdown,
    mut report: Report,
) -> Result<Report> {
    let first = match switch.is_decided {
        true => Step::named(&switch.step).unwrap_or(Step::Open).max(Step::Open),
        false => Step::Verify,
    };
    report.way_back = switch.reverse;
    let (mut run, lease) = match Run::begin(now.clone(), home.clone(), switch.clone()).await {
        Ok(begun) => begun,
        Err(fault) => {
            // Nothing was touched.
            home.conclude_switch(&switch, "undone", Some(fault.what()), None).await?;
            return Err(side_of(&now, fault));
        }
    };
    let failed = go_through(&mut run, first, tell, stop, &mut report).await;
    report.pause_ms = run.pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    report.outcome = Outcome::Switched;
    report.writable = Some(now.target.to_string());
    if let Some((step, fault)) = failed {
        let fault = side_of(&now, fault);
        tell(&Event::Failed(step, &fault));
        report.failed_step = Some(step);
        report.error = Some(fault.to_string());
        let began = Instant::now();
        let undone = turn_back(&mut run, step, options, tell).await;
        conclude(&now, undone, began, &mut report);
    }
    lease.abort();
    Ok(report)
}

/// Does one step after the other; gives the one that has failed.
async fn go_through(
    run: &mut Run,
    first: Step,
    tell: &(dyn Fn(&Event<'_>) + Sync),
    stop: &mut Shutdown,
    report: &mut Report,
) -> Option<(Step, Fault)> {
    for step in Step::ALL.into_iter().filter(|step| *step >= first) {
        if run.has_nothing_in(step) {
            continue;
        }
        tell(&Event::Begun(step));
        let began = Instant::now();
        match run.step(step, stop).await {
            Ok(note) => {
                let done = Done { step, seconds: began.elapsed().as_secs_f64(), note };
                tell(&Event::Done(&done));
                report.steps.push(done);
            }
            Err(fault) => return Some((step, fault)),
        }
    }
    None
}

fn conclude(now: &Config, undone: Result<Outcome>, began: Instant, report: &mut Report) {
    match undone {
        Ok(outcome) => report.outcome = outcome,
        Err(fault) => {
            report.outcome = Outcome::Stuck;
            let fault = side_of(now, fault);
            let before = report.error.take().unwrap_or_default();
            report.error = Some(format!("{before}\nand then: {fault}"));
        }
    }
    match report.outcome {
        Outcome::Undone => {
            report.writable = Some(now.source.to_string());
            report.undone_in_ms = u64::try_from(began.elapsed().as_millis()).ok();
        }
        Outcome::Stuck => report.writable = None,
        Outcome::Switched | Outcome::Possible | Outcome::Refused => {}
    }
}

/// How long a switch that has failed is tried to be undone before it is left to the daemon.
const UNDO_PATIENCE: Duration = Duration::from_secs(20);

/// What is done when a step has failed.
async fn turn_back(
    run: &mut Run,
    step: Step,
    options: &Options,
    tell: &(dyn Fn(&Event<'_>) + Sync),
) -> Result<Outcome> {
    let home = home(&run.now).await?;
    let Some(switch) = home.last_switch().await?.filter(|switch| switch.id == run.switch.id) else {
        return Err(Fault::bug("the switch is gone from the ledger"));
    };
    if switch.term != run.switch.term || switch.outcome.is_some() {
        return taken(&home, run.switch.id).await;
    }
    if !switch.is_decided {
        return undo_all(&run.now, &home, &switch, step).await;
    }
    match step {
        Step::Decide | Step::Open => {
            for_a_while(UNDO_PATIENCE, async || go_on(&run.now, &home, &switch).await).await?;
            Err(not_finished(&switch))
        }
        Step::Switch | Step::Resume | Step::Smoke => {
            after_the_decision(run, &home, &switch, step, options, tell).await
        }
        _ => Err(not_finished(&switch)),
    }
}

fn not_finished(switch: &Switch) -> Fault {
    Fault::person("the new side takes writes, but not everything is done")
        .remedy(format!("run cdc {} again: it goes on with what is left", switch.way))
}

async fn undo_all(now: &Config, home: &Ledger, switch: &Switch, step: Step) -> Result<Outcome> {
    let why = format!("the step {} has failed", step.as_str());
    let undone = for_a_while(UNDO_PATIENCE, async || undo(now, home, switch, Some(&why)).await).await;
    undone.map(|()| Outcome::Undone).map_err(|fault| {
        let advice = fault.advice().map_or(String::new(), |advice| format!("{advice}; "));
        fault.remedy(format!("{advice}a daemon that runs goes on undoing it, and so does cdc {}", switch.way))
    })
}

/// Somebody else has taken it over: what comes of it there.
async fn taken(home: &Ledger, id: i64) -> Result<Outcome> {
    let deadline = Instant::now() + UNDO_PATIENCE;
    while Instant::now() < deadline {
        let switch = home.last_switch().await?.filter(|switch| switch.id == id);
        match switch.as_ref().and_then(|switch| switch.outcome.as_deref()) {
            Some("undone") => return Ok(Outcome::Undone),
            Some(_) => return Ok(Outcome::Switched),
            None => sleep(limits::CUTOVER_WATCH).await,
        }
    }
    Err(super::taken_over())
}

/// A hook has failed, and applications may have written to the new side by then.
async fn after_the_decision(
    run: &mut Run,
    home: &Ledger,
    switch: &Switch,
    step: Step,
    options: &Options,
    tell: &(dyn Fn(&Event<'_>) + Sync),
) -> Result<Outcome> {
    let has_turned = home.course().await?.direction != run.now.direction;
    if !has_turned && run.close_new().await? {
        held(home.take_back_switch(switch).await?)?;
        return undo_all(&run.now, home, switch, step).await;
    }
    // What was written there is not lost: it goes back through the stream, if there is one.
    go_on(&run.now, home, switch).await?;
    if let Some(pgbouncer) = &run.now.cutover.pgbouncer {
        resume(pgbouncer, &run.now).await?;
    }
    let pause = run.pause.and_then(|pause| i64::try_from(pause.as_millis()).ok());
    if !switch.reverse {
        return Err(Fault::person("the new side has taken writes, and there is no way back for them (reverse = false)")
            .remedy(format!(
                "mend what the hook {} has failed for and run cdc {} again: it goes on with that step. To give the writes \
                 up instead, see the README",
                step.as_str(),
                switch.way
            )));
    }
    held(home.conclude_switch(switch, "switched", Some("a hook has failed"), pause).await?)?;
    let back = Options { way: Way::from(run.now.direction.turned()), force: true, ..options.clone() };
    let report = Box::pin(switch_back(&run.now, &back, tell)).await?;
    match report.outcome {
        Outcome::Switched => Ok(Outcome::Undone),
        _ => Err(Fault::person(format!("going back has failed, too: {}", report.error.unwrap_or_default()))
            .remedy(format!("see cdc status, then cdc {}", back.way.as_str()))),
    }
}

/// The same plan in the other direction, without hooks that could send it round again.
async fn switch_back(now: &Config, options: &Options, tell: &(dyn Fn(&Event<'_>) + Sync)) -> Result<Report> {
    let mut config = now.clone();
    config.cutover.smoke = None;
    // Whoever has asked to stop wants exactly this.
    let (_never, mut stop) = shutdown();
    switch(&config, options, tell, &mut stop).await
}
