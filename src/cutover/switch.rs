//! A switch from its beginning to its end, whatever that is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config::{Config, Direction};
use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{Ledger, Switch, as_it_runs};
use crate::limits;
use crate::preflight::{Finding, Severity};
use crate::shutdown::{Shutdown, shutdown};

use super::check::Ends;
use super::plan::{LEASE, Step, Way};
use super::report::{Done, Outcome, Report};
use super::run::{Run, home, resume};
use super::undo::{Found, application, for_a_while, go_on, held, open_old, recover, undo};
use super::{Event, estimate};

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
    let mut now = config.facing(options.way.direction());
    let begun = begin(&mut now, options, &mut report, tell).await;
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
    now: &mut Config,
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
    refuse_done(&home, now).await?;
    now.tables.left_alone = as_it_runs(now).await?.tables.left_alone;
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
        report.estimate = Some(estimate::measure(now).await?);
        report.outcome = Outcome::Possible;
        return Ok(None);
    }
    let reverse = options.way == Way::Rollback || now.cutover.reverse;
    let switch = home.begin_switch(options.way.as_str(), reverse, &holder, &options.os_user, LEASE).await?;
    let Some(switch) = switch else { return Err(under_way("another one has just begun")) };
    // From here on nobody else can turn, but somebody may have done so since it was looked at: then what is the old side
    // here is nobody's any more, and its fence must not be opened.
    if let Err(fault) = refuse_done(&home, now).await {
        home.conclude_switch(&switch, "undone", Some(fault.what()), None).await?;
        return Err(fault);
    }
    Ok(Some((home, switch)))
}

/// Refuses if the applications have moved already.
async fn refuse_done(home: &Ledger, now: &Config) -> Result<()> {
    let course = home.course().await?;
    let what = match (course.is_over, now.direction) {
        (false, direction) if direction == course.direction => return Ok(()),
        (true, _) => "nothing is replicated any more: the migration has ended",
        (false, Direction::Forward) => "the switch is done already: the target takes the writes",
        (false, Direction::Reverse) => "there is nothing to roll back: the source takes the writes",
    };
    Err(Fault::person(what).remedy("see cdc status"))
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
    let (old, new) = (Arc::new(old), Arc::new(new));
    let ledger = Ledger::new(Arc::clone(&new), &now.name);
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
        if step <= Step::Decide {
            undo_undecided(run, step, began, &mut report).await;
        } else {
            let undone = turn_back(&run, step, options, tell).await;
            report.undone_in_ms = u64::try_from(began.elapsed().as_millis()).ok();
            conclude(&now, undone, &mut report);
        }
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

fn conclude(now: &Config, undone: Result<Outcome>, report: &mut Report) {
    match undone {
        Ok(outcome) => report.outcome = outcome,
        Err(fault) => {
            report.outcome = Outcome::Stuck;
            and_then(now, fault, report);
        }
    }
    report.writable = match report.outcome {
        Outcome::Undone => Some(now.source.to_string()),
        Outcome::Switched => Some(now.target.to_string()),
        Outcome::Stuck | Outcome::Possible | Outcome::Refused => None,
    };
    report.undone_in_ms = report.undone_in_ms.filter(|_| report.outcome == Outcome::Undone);
}

fn and_then(now: &Config, fault: Fault, report: &mut Report) {
    let before = report.error.take().unwrap_or_default();
    report.error = Some(format!("{before}\nand then: {}", side_of(now, fault)));
}

/// How long a switch that has failed is tried to be undone before it is left to the daemon.
const UNDO_PATIENCE: Duration = Duration::from_secs(20);

/// What is done when a step has failed at which nothing is decided, or not known to be: the old side takes writes again,
/// whoever else can be asked, and then the rest is undone.
async fn undo_undecided(run: Run, step: Step, began: Instant, report: &mut Report) {
    let (now, switch) = (run.now.clone(), run.switch.clone());
    // Its sessions may be in the middle of closing the fence.
    drop(run);
    let is_open = for_a_while(UNDO_PATIENCE, async || open_old(&now, &switch).await).await.is_ok();
    if is_open && let Err(fault) = resume(&now).await {
        tracing::warn!("{fault}");
    }
    report.undone_in_ms = u64::try_from(began.elapsed().as_millis()).ok();
    // What has failed so far is told by this, which tries it again.
    let rest = undo_rest(&now, &switch, step).await;
    match rest {
        Err(fault) if is_open => {
            let advice = fault.advice().map_or(String::new(), |advice| format!("{advice}; "));
            let way = switch.way;
            conclude(&now, Ok(Outcome::Undone), report);
            let rest = "a daemon undoes what is left as soon as that is possible, and so does cdc";
            and_then(&now, fault.remedy(format!("{advice}{rest} {way}")), report);
        }
        rest => conclude(&now, rest, report),
    }
}

/// Undoes all of it, unless somebody else does.
async fn undo_rest(now: &Config, switch: &Switch, step: Step) -> Result<Outcome> {
    let why = format!("the step {} has failed", step.as_str());
    let undone = for_a_while(limits::CUTOVER_TIDY, async || {
        let home = home(now).await?;
        let Some(known) = home.last_switch().await?.filter(|known| known.id == switch.id) else {
            return Err(Fault::person("the ledger of the switch is gone").remedy("see cdc status"));
        };
        if known.term != switch.term || known.outcome.is_some() {
            return taken(&home, switch.id).await;
        }
        if known.is_decided {
            held(home.take_back_switch(&known).await?)?;
        }
        undo(now, &home, &known, Some(&why)).await.map(|()| Outcome::Undone)
    });
    // A server that doesn't answer is not waited for.
    match tokio::time::timeout(3 * limits::CUTOVER_TIDY, undone).await {
        Ok(undone) => undone,
        Err(_) => Err(Fault::retry("it could not be undone in time")),
    }
}

/// What is done when a step has failed behind the decision.
async fn turn_back(
    run: &Run,
    step: Step,
    options: &Options,
    tell: &(dyn Fn(&Event<'_>) + Sync),
) -> Result<Outcome> {
    let home = for_a_while(UNDO_PATIENCE, async || home(&run.now).await).await.map_err(|fault| {
        fault.remedy(format!(
            "it is decided, and the old side stays fenced: bring this database back and run cdc {} again",
            run.switch.way
        ))
    })?;
    let Some(switch) = home.last_switch().await?.filter(|switch| switch.id == run.switch.id) else {
        return Err(Fault::person("the ledger of the switch is gone").remedy("see cdc status"));
    };
    if switch.term != run.switch.term || switch.outcome.is_some() {
        return taken(&home, run.switch.id).await;
    }
    match step {
        Step::Open => {
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
    run: &Run,
    home: &Ledger,
    switch: &Switch,
    step: Step,
    options: &Options,
    tell: &(dyn Fn(&Event<'_>) + Sync),
) -> Result<Outcome> {
    let has_turned = home.course().await?.direction != run.now.direction;
    if !has_turned && run.close_new().await? {
        held(home.take_back_switch(switch).await?)?;
        return undo_rest(&run.now, switch, step).await;
    }
    // What was written there is not lost: it goes back through the stream, if there is one.
    go_on(&run.now, home, switch).await?;
    resume(&run.now).await?;
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
