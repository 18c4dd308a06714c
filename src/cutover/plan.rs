//! The plan as data: the steps, their order, and what is undone when. Pure.
//!
//! Whoever carries a plan out does the [`Act`]s of one step after the other; whoever finds one that was left does
//! what [`recovery`] says. The simulator does the same with nothing but these, and kills at every point.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::Side;

/// Which way a plan moves the applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From the source to the target.
    Cutover,
    /// Back.
    Rollback,
}

impl Way {
    /// Its name in the ledger, in reports and as a command.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cutover => "cutover",
            Self::Rollback => "rollback",
        }
    }

    /// The side that the applications go to.
    #[must_use]
    pub fn new_side(self) -> Side {
        match self {
            Self::Cutover => Side::Target,
            Self::Rollback => Side::Source,
        }
    }
}

/// A step of the plan. The order is that of [`Step::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Looks at everything that could stand in the way.
    Check,
    /// Compares both sides, if that was not done of late.
    Verify,
    /// Makes everything that takes long, and changes nothing yet for anybody.
    Prepare,
    /// The operator's hook before anything rests.
    Before,
    /// Fences the new side: until the decision nothing but the applier writes there.
    Guard,
    /// Has `PgBouncer` hold the applications' transactions back.
    Pause,
    /// Fences the old side.
    Fence,
    /// A message behind the last transaction of the old side, and the wait until the new side has it.
    Drain,
    /// Stops the stream for good: nothing is applied from here on.
    Turn,
    /// Compares once more what has changed, as far as there is time.
    Compare,
    /// Sets the sequences of the new side.
    Sequences,
    /// Puts triggers and foreign keys of the new side back.
    Restore,
    /// Makes the way back.
    Reverse,
    /// The point of no return.
    Decide,
    /// Opens the new side.
    Open,
    /// The operator's hook that brings the applications there.
    Switch,
    /// Has `PgBouncer` go on.
    Resume,
    /// The operator's hook that looks whether they work.
    Smoke,
    /// What the new side needs no longer, and the old side needs from now on.
    Finish,
}

/// What a step changes of what the invariants are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Closes the fence of the new side.
    CloseNew,
    /// Closes the fence of the old side.
    CloseOld,
    /// Ends the applier's epoch, and enters the phase in which no daemon streams.
    StopStream,
    /// Says in the ledger that the new side is the one.
    Decide,
    /// Opens the fence of the new side, for the applications.
    OpenNew,
    /// Closes the plan.
    Conclude,
}

/// What is done to undo a plan that has not been decided, in this order, whatever of it was done before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// Opens the fence of the old side: the first of all things.
    OpenOld,
    /// Has `PgBouncer` go on.
    Resume,
    /// Opens the fence of the new side, as nobody but the applier writes there anyway; unless it was closed before, as
    /// it is on a database that the applications have left.
    UnguardNew,
    /// Removes what was made for the way back.
    DropReverse,
    /// Enters the phase of before: the daemon streams, and holds back again what was put back.
    Stream,
    /// Closes the plan.
    Conclude,
}

impl Undo {
    /// All of it.
    pub const ALL: [Self; 6] =
        [Self::OpenOld, Self::Resume, Self::UnguardNew, Self::DropReverse, Self::Stream, Self::Conclude];
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 19] = [
        Self::Check,
        Self::Verify,
        Self::Prepare,
        Self::Before,
        Self::Guard,
        Self::Pause,
        Self::Fence,
        Self::Drain,
        Self::Turn,
        Self::Compare,
        Self::Sequences,
        Self::Restore,
        Self::Reverse,
        Self::Decide,
        Self::Open,
        Self::Switch,
        Self::Resume,
        Self::Smoke,
        Self::Finish,
    ];

    /// Its name in the ledger, in reports, and in `CDC_STEP`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Verify => "verify",
            Self::Prepare => "prepare",
            Self::Before => "before",
            Self::Guard => "guard",
            Self::Pause => "pause",
            Self::Fence => "fence",
            Self::Drain => "drain",
            Self::Turn => "turn",
            Self::Compare => "compare",
            Self::Sequences => "sequences",
            Self::Restore => "restore",
            Self::Reverse => "reverse",
            Self::Decide => "decide",
            Self::Open => "open",
            Self::Switch => "switch",
            Self::Resume => "resume",
            Self::Smoke => "smoke",
            Self::Finish => "finish",
        }
    }

    /// The step of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == name)
    }

    /// What it does, for the operator.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Check => "look for what stands in the way",
            Self::Verify => "compare both sides",
            Self::Prepare => "prepare fences and statistics",
            Self::Before => "hook before",
            Self::Guard => "fence the new side",
            Self::Pause => "PgBouncer holds transactions back",
            Self::Fence => "fence the old side: writes rest",
            Self::Drain => "wait until the new side has everything",
            Self::Turn => "stop the stream",
            Self::Compare => "compare what has changed",
            Self::Sequences => "set the sequences",
            Self::Restore => "put triggers and foreign keys back",
            Self::Reverse => "make the way back",
            Self::Decide => "decide",
            Self::Open => "open the new side: it takes writes",
            Self::Switch => "hook switch",
            Self::Resume => "PgBouncer goes on",
            Self::Smoke => "hook smoke",
            Self::Finish => "tidy up",
        }
    }

    /// What of the two sides and the ledger it changes, in this order.
    #[must_use]
    pub fn acts(self) -> &'static [Act] {
        match self {
            Self::Guard => &[Act::CloseNew],
            Self::Fence => &[Act::CloseOld],
            Self::Turn => &[Act::StopStream],
            Self::Decide => &[Act::Decide],
            Self::Open => &[Act::OpenNew],
            Self::Finish => &[Act::Conclude],
            Self::Check
            | Self::Verify
            | Self::Prepare
            | Self::Before
            | Self::Pause
            | Self::Drain
            | Self::Compare
            | Self::Sequences
            | Self::Restore
            | Self::Reverse
            | Self::Switch
            | Self::Resume
            | Self::Smoke => &[],
        }
    }

    /// True of the steps during which writes may rest; all of them together have [`the time that the configuration gives`].
    #[must_use]
    pub fn writes_rest(self) -> bool {
        (Self::Pause..=Self::Open).contains(&self)
    }

    /// True of the steps behind the point of no return.
    #[must_use]
    pub fn is_decided(self) -> bool {
        self > Self::Decide
    }
}

/// What is to become of a plan that somebody has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Everything is undone: the old side is the one.
    Undo,
    /// The rest is done: the new side is the one, and nothing else may be opened.
    GoOn,
}

/// What is to become of a plan that is not concluded, and whose lease has run out.
#[must_use]
pub fn recovery(is_decided: bool) -> Recovery {
    if is_decided { Recovery::GoOn } else { Recovery::Undo }
}

/// How long whoever carries out a plan may say nothing before somebody else takes it over.
pub const LEASE: Duration = Duration::from_secs(5);

/// How often it says something.
pub const RENEWAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_names_of_their_own_and_the_order_of_the_list() {
        assert!(Step::ALL.is_sorted());
        assert!(Step::ALL.iter().all(|step| Step::named(step.as_str()) == Some(*step)));
    }

    #[test]
    fn the_old_side_is_fenced_before_anything_is_decided_and_the_new_one_is_opened_afterwards() {
        let acts: Vec<Act> = Step::ALL.iter().flat_map(|step| step.acts()).copied().collect();
        let place = |act| acts.iter().position(|a| *a == act).unwrap();
        let order = [Act::CloseNew, Act::CloseOld, Act::StopStream, Act::Decide, Act::OpenNew, Act::Conclude];
        assert!(order.map(place).is_sorted());
        assert_eq!(acts.len(), order.len());
    }

    #[test]
    fn what_is_undone_first_is_the_old_sides_fence_and_the_plan_is_closed_last() {
        assert_eq!(Undo::ALL.first(), Some(&Undo::OpenOld));
        assert_eq!(Undo::ALL.last(), Some(&Undo::Conclude));
    }
}
