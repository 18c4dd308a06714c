//! What becomes of a switch that can't be carried out, or was left: the command, the daemon and the next command do the
//! same.

use std::time::Duration;

use crate::config::{Config, Direction};
use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{Ledger, Phase, Switch};

use super::fence::Fence;
use super::plan::{LEASE, Recovery, Undo, Way, recovery};
use super::pooler::Pooler;
use super::reverse::{self, Turn};
use super::taken_over;

impl Way {
    /// The direction in which the migration runs before such a switch.
    #[must_use]
    pub fn direction(self) -> Direction {
        match self {
            Self::Cutover => Direction::Forward,
            Self::Rollback => Direction::Reverse,
        }
    }

    /// The switch that moves the applications on from where this direction reads.
    #[must_use]
    pub fn from(direction: Direction) -> Self {
        match direction {
            Direction::Forward => Self::Cutover,
            Direction::Reverse => Self::Rollback,
        }
    }
}

/// The configuration of the direction that a switch begins in, whatever runs now.
pub(super) fn facing(config: &Config, switch: &Switch) -> Config {
    let is_back = switch.way == Way::Rollback.as_str();
    config.facing(if is_back { Direction::Reverse } else { Direction::Forward })
}

pub(super) fn application(now: &Config) -> String {
    format!("cdc_{} switch", now.name)
}

async fn open(now: &Config, side: Side) -> Result<Session> {
    let info = if side == Side::Source { &now.source } else { &now.target };
    Session::open(info, side, &application(now)).await
}

/// Undoes everything that was done of a switch which is not decided, the old side's fence first. What fails is told at
/// the end; the rest is done all the same.
///
/// # Errors
/// If something could not be undone: it can be called again.
pub async fn undo(now: &Config, home: &Ledger, switch: &Switch, why: Option<&str>) -> Result<()> {
    let course = home.course().await?;
    if course.is_over || course.direction != now.direction {
        // It was begun by somebody who didn't know yet that another one had switched: it has changed nothing, and what it
        // takes for the old side is fenced for good.
        return undo_one(now, home, switch, Undo::Conclude, why).await;
    }
    let mut failed = None;
    for undo in Undo::ALL {
        if undo == Undo::Conclude && failed.is_some() {
            break;
        }
        if let Err(fault) = undo_one(now, home, switch, undo, why).await {
            tracing::warn!("undoing ({undo:?}): {fault}");
            failed = failed.or(Some(fault));
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn undo_one(now: &Config, home: &Ledger, switch: &Switch, undo: Undo, why: Option<&str>) -> Result<()> {
    match undo {
        Undo::OpenOld => open_old(now, switch).await,
        Undo::Resume => resume(now).await,
        Undo::UnguardNew => {
            let session = open(now, Side::Target).await?;
            Fence::new(&session, Side::Target, &now.name).unguard(switch.id, switch.term).await
        }
        Undo::DropReverse if switch.reverse => reverse::undo(now).await,
        Undo::DropReverse => Ok(()),
        Undo::Stream => enter(now, home, switch, Phase::following(now.direction)).await,
        Undo::Conclude => {
            held(home.conclude_switch(switch, "undone", why, None).await?)?;
            for side in [Side::Source, Side::Target] {
                if let Ok(session) = open(now, side).await {
                    Fence::new(&session, side, &now.name).switch_off().await;
                }
            }
            Ok(())
        }
    }
}

/// Lets the old side take writes again. It asks nobody else: whoever has not decided may do this at any time, and is
/// refused if somebody of a later term has gone on.
pub(super) async fn open_old(now: &Config, switch: &Switch) -> Result<()> {
    Fence::new(&open(now, Side::Source).await?, Side::Source, &now.name).open(switch.term, false).await
}

/// Has `PgBouncer` go on.
pub(super) async fn resume(now: &Config) -> Result<()> {
    match &now.cutover.pgbouncer {
        Some(pgbouncer) => Pooler::resume(pgbouncer, &now.name, Side::Source).await,
        None => Ok(()),
    }
}

pub(super) fn held(is_held: bool) -> Result<()> {
    if is_held { Ok(()) } else { Err(taken_over()) }
}

/// Enters a phase, in the ledger that is applied to, too, where that is another one. In `cutover` nothing is applied
/// there any more.
pub(super) async fn enter(now: &Config, home: &Ledger, switch: &Switch, phase: Phase) -> Result<()> {
    let stops = phase == Phase::Cutover;
    held(home.switch_phase(switch, phase, stops && now.direction == Direction::Forward).await?)?;
    if now.direction == Direction::Reverse {
        let session = std::sync::Arc::new(open(now, Side::Target).await?);
        let ledger = Ledger::new(session, &now.name);
        if stops {
            ledger.end_epoch().await?;
        }
        ledger.set_phase(phase).await?;
    }
    Ok(())
}

async fn keep_closed(now: &Config, switch: &Switch) -> Result<bool> {
    Fence::new(&open(now, Side::Source).await?, Side::Source, &now.name).keep_closed(switch.term).await
}

/// Does what must not wait of a switch that is decided: the new side takes writes, and what is written there goes the
/// other way, or nowhere. The hooks are left to a person.
///
/// # Errors
/// If a database can't be asked: it can be called again.
pub async fn go_on(now: &Config, home: &Ledger, switch: &Switch) -> Result<()> {
    Fence::new(&open(now, Side::Target).await?, Side::Target, &now.name).open(switch.term, true).await?;
    held(home.note_opened(switch).await?)?;
    settle(now, home, switch).await
}

/// Turns the direction, if it hasn't turned.
///
/// # Errors
/// If a database can't be asked: it can be called again.
pub async fn settle(now: &Config, home: &Ledger, switch: &Switch) -> Result<()> {
    let course = home.course().await?;
    if course.is_over || course.direction != now.direction {
        return Ok(());
    }
    if switch.reverse { Turn::open(now).await?.turn().await } else { reverse::end(now).await }
}

/// What was found of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is none under way.
    Nothing,
    /// Somebody carries it out.
    Held(Switch),
    /// It was left, and is undone now.
    Undone(Switch),
    /// It was left when it was decided, and nothing in it can't wait: its command has to be run again.
    Decided(Switch),
}

/// Looks for a switch that was left, and does what can't wait.
///
/// # Errors
/// If a database can't be asked: it can be called again.
pub async fn recover(config: &Config, home: &Ledger, holder: &str) -> Result<Found> {
    let Some(left) = home.open_switch().await? else { return Ok(Found::Nothing) };
    let now = facing(config, &left);
    if left.is_held {
        return Ok(Found::Held(left));
    }
    let is_settled = home.phase().await? != Some(Phase::Cutover);
    if left.is_decided && left.opened_at.is_some() && is_settled {
        return Ok(Found::Decided(left));
    }
    let Some(switch) = home.take_over_switch(left.id, holder, LEASE).await? else {
        return Ok(Found::Held(left));
    };
    tracing::warn!(step = switch.step, "nothing was heard of a {} for too long", switch.way);
    match recovery(switch.is_decided) {
        Recovery::Undo => {
            undo(&now, home, &switch, Some("nothing was heard of it any more")).await?;
            tracing::warn!("the {} is undone: the old side takes writes", switch.way);
            Ok(Found::Undone(switch))
        }
        // Whoever has decided without being told so has given it up, or doesn't any more from here on.
        Recovery::GoOn if switch.opened_at.is_none() && !keep_closed(&now, &switch).await? => {
            held(home.take_back_switch(&switch).await?)?;
            undo(&now, home, &switch, Some("whether it was decided was not known")).await?;
            tracing::warn!("the {} was given up: the old side takes writes", switch.way);
            Ok(Found::Undone(switch))
        }
        Recovery::GoOn => {
            go_on(&now, home, &switch).await?;
            home.release_switch(&switch).await?;
            tracing::warn!(
                "the {0} was decided: the new side takes writes; run cdc {0} again for the rest",
                switch.way
            );
            Ok(Found::Decided(switch))
        }
    }
}

/// True while the daemon must not stream, because a switch is under way.
///
/// # Errors
/// If a database can't be asked.
pub async fn rests(config: &Config, home: &Ledger) -> Result<bool> {
    if !home.exists().await? {
        return Ok(false);
    }
    let found = recover(config, home, &format!("cdc run, pid {}", std::process::id())).await;
    // Whatever a person has to mend, it is tried until it is done: applications may be waiting for it.
    let found = found.map_err(|fault| fault.reacting(Reaction::Retry))?;
    Ok(matches!(found, Found::Held(_)) && home.phase().await? == Some(Phase::Cutover))
}

/// Returns when the daemon has to look after a switch.
pub async fn needs_attention(home: &Ledger) -> Result<bool> {
    if home.phase().await? == Some(Phase::Cutover) {
        return Ok(true);
    }
    Ok(home.open_switch().await?.is_some_and(|switch| !switch.is_held && !switch.is_decided))
}

/// Tries again for a while what fails for a reason that passes.
pub(super) async fn for_a_while<T>(
    patience: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match attempt().await {
            Err(fault) if is_worth_it(&fault) && tokio::time::Instant::now() < deadline => {
                tracing::debug!("trying again: {fault}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            outcome => return outcome,
        }
    }
}

fn is_worth_it(fault: &Fault) -> bool {
    fault.is_unreachable() || fault.passes() || fault.reaction() == Reaction::Retry
}
