//! The switch: the applications move from one database to the other, and nothing is lost on the way.
//!
//! ```text
//! check ─ verify ─ prepare ─ hook before ─ guard ─┐ nobody waits for anything until here
//!     ┌───────────────────────────────────────────┘
//!     ├─ pause ─ FENCE ─ drain ─ turn ─ compare ─ sequences ─ restore ─ reverse ─ DECIDE ─ open ─┐ writes rest
//!     └─ hook switch ─ resume ─ hook smoke ─ finish ◄────────────────────────────────────────────┘
//! ```
//!
//! [`plan`] has the steps as data, [`run`] carries them out, [`undo`] takes them back. The *old side* is the one that the
//! applications leave and the *new side* the one that they go to; of a cutover these are source and target, and a
//! rollback is the same plan in the other direction ([`Config::facing`]).
//!
//! # Who holds what
//!
//! `cdc.cutover`, at home ([`Config::home`]), has one row for the switch that is under way: its step, whether it is
//! decided, and a *lease* of five seconds that whoever carries it out renews every second. When it has run out, anybody
//! may take it over: the daemon does within half a second, and so does the next command. Each that takes over has a
//! *term* of its own. `cdc.fence`, in either database, remembers the term of whoever has changed the fence there last,
//! and is changed in the transaction that changes the triggers: so a command that was asleep for a minute closes or
//! opens nothing any more.
//!
//! # The point of no return
//!
//! *Decide* is one UPDATE at home, under the lease. Until then every end undoes all of it, the old side's fence first:
//! the stream stands still by then and can't apply anything (*turn* has ended its epoch), so the order of the rest
//! doesn't matter. That fence asks nobody but its own database, so the old side takes writes again although the other
//! server may be gone. From the decision on the old side is never opened again, and whoever takes over opens the new
//! side. Both sides are fenced when it is decided; so at no moment do both take writes, whoever is killed or sleeps
//! ([`simulator`](self) tries).
//!
//! If the answer to that UPDATE is lost, whoever has sent it opens the old side, in its own term, and so gives up what
//! may have been decided. Therefore whoever takes over a decided switch whose new side was not opened yet first keeps
//! the old side's fence closed for the later term: either that is still closed, and nobody else can open it any more, or
//! it is open, and the decision is taken back.
//!
//! A hook that fails behind it turns everything back if nothing was written to the new side: it is fenced again, and
//! its trigger has counted every statement that wrote since it was opened. If there was one, what was written goes
//! back through the reverse stream: that is a rollback, which the command does by itself. Without a reverse stream
//! there is nothing left but to ask a person.
//!
//! # kill -9
//!
//! | of the command, in | what is there | what becomes of it |
//! | --- | --- | --- |
//! | check to prepare | triggers that are off, a slot for the way back | the daemon undoes it when the lease has run out |
//! | guard to reverse | fences, `PgBouncer` paused, phase `cutover` | the same: the old side takes writes after six seconds |
//! | decide, open | as before, or the new side is open | the daemon opens the new side and turns the direction |
//! | switch to finish | the new side is open | the daemon turns the direction; the command, run again, goes on with that step |
//!
//! The daemon may be killed at any time: the drain fails if it isn't back in time, and before and behind that the
//! switch doesn't need it. If both are killed, the next start of either does the same.

pub mod barrier;
mod check;
mod compare;
mod estimate;
pub mod fence;
mod outside;
pub mod plan;
pub mod pooler;
mod report;
pub mod reverse;
mod run;
pub mod sequences;
#[cfg(test)]
mod simulator;
mod switch;
pub mod undo;

pub use estimate::Estimate;
pub use plan::{Step, Way};
pub use report::{Done, Outcome, Report};
pub use switch::{Options, switch};

#[cfg(doc)]
use crate::config::Config;
use crate::fault::Fault;

/// Something that whoever looks on is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step begins.
    Begun(Step),
    /// It is done.
    Done(&'a Done),
    /// It has failed, and what was done is undone now.
    Failed(Step, &'a Fault),
}

/// Somebody else carries the switch out by now.
fn taken_over() -> Fault {
    Fault::person("this switch was taken over by somebody else, as nothing was heard of it")
        .remedy("see cdc status, which says how it goes on")
}
