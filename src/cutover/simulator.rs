//! Plans that are carried out, killed, stalled and taken over at every point, without a server.
//!
//! An actor does one thing at a time, each as atomic as the transaction that it stands for: the condition is part
//! of it. Between two things anything may happen: it is killed, or sleeps for so long that somebody else takes
//! over, and then goes on as if nothing had been.

use fastrand::Rng;

use super::plan::{Act, Recovery, Step, Undo, recovery};

/// How long a lease is, in turns of the clock.
const LEASE: u64 = 5;

/// How long a daemon that was killed is away at the most.
const AWAY: u64 = 10;

/// How long writes may rest by themselves before the plan is undone.
const DEADLINE: u64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fence {
    /// As it was before any plan; the applications are not there, or have never left.
    Untouched,
    Closed,
    /// The applications may come.
    Open,
}

#[derive(Clone, Copy, Debug)]
struct Database {
    /// The term of whoever has changed the fence last: nobody of an earlier one may change it.
    term: u64,
    fence: Fence,
}

impl Database {
    fn set(&mut self, term: u64, fence: Fence) -> bool {
        let is_ours = self.term <= term;
        if is_ours {
            (self.term, self.fence) = (term, fence);
        }
        is_ours
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Switched,
    Undone,
}

#[derive(Clone, Debug)]
struct World {
    now: u64,
    old: Database,
    new: Database,
    term: u64,
    lease_until: u64,
    is_decided: bool,
    /// The ledger says that the new side was opened.
    is_opened: bool,
    is_streaming: bool,
    /// How the new side was before. A rollback finds it closed: the applications have left it.
    new_before: Fence,
    end: Option<End>,
    /// Since when neither side takes writes.
    dark_since: Option<u64>,
}

impl World {
    fn begin(new_before: Fence) -> Self {
        Self {
            now: 0,
            old: Database { term: 0, fence: Fence::Untouched },
            new: Database { term: 0, fence: new_before },
            new_before,
            term: 1,
            lease_until: LEASE,
            is_decided: false,
            is_opened: false,
            is_streaming: true,
            end: None,
            dark_since: None,
        }
    }

    fn holds(&self, term: u64) -> bool {
        self.term == term && self.end.is_none()
    }

    fn take_over(&mut self) -> Option<u64> {
        if self.end.is_some() || self.lease_until > self.now {
            return None;
        }
        self.term += 1;
        self.lease_until = self.now + LEASE;
        Some(self.term)
    }

    fn act(&mut self, term: u64, act: Act) -> bool {
        match act {
            Act::CloseNew => self.new.set(term, Fence::Closed),
            Act::CloseOld => self.old.set(term, Fence::Closed),
            Act::StopStream => self.holds(term) && std::mem::replace(&mut self.is_streaming, false) | true,
            Act::Decide => {
                let may = self.holds(term) && self.lease_until > self.now;
                self.is_decided |= may;
                may
            }
            Act::OpenNew => self.new.set(term, Fence::Open),
            Act::Conclude => self.conclude(term, End::Switched),
        }
    }

    fn undo(&mut self, term: u64, undo: Undo) -> bool {
        match undo {
            Undo::OpenOld => self.old.set(term, Fence::Open),
            Undo::UnguardNew => self.new.set(term, self.new_before),
            Undo::Stream => self.holds(term) && std::mem::replace(&mut self.is_streaming, true) | true,
            Undo::Conclude => self.conclude(term, End::Undone),
            Undo::Resume | Undo::DropReverse => true,
        }
    }

    /// The hook has failed, the new side is fenced, and nothing was written there; or nobody has gone on.
    fn take_back(&mut self, term: u64) -> bool {
        let may = self.holds(term) && self.lease_until > self.now;
        self.is_decided &= !may;
        self.is_opened &= !may;
        may
    }

    /// Whoever holds an earlier term opens the old side no more; `None` if it is somebody else's.
    fn keep_closed(&mut self, term: u64) -> Option<bool> {
        if self.old.term > term {
            return None;
        }
        let is_closed = self.old.fence == Fence::Closed;
        if is_closed {
            self.old.term = term;
        }
        Some(is_closed)
    }

    fn conclude(&mut self, term: u64, end: End) -> bool {
        let may = self.holds(term);
        if may {
            self.end = Some(end);
        }
        may
    }

    /// What must hold at any moment.
    fn check(&mut self) {
        let old_takes_writes = self.old.fence != Fence::Closed;
        let new_takes_writes = match self.new_before {
            Fence::Untouched => self.new.fence == Fence::Open,
            Fence::Closed | Fence::Open => self.new.fence != Fence::Closed,
        };
        assert!(!(old_takes_writes && new_takes_writes), "both sides take writes: {self:?}");
        // The applier has to get rows to the new side as long as the old one takes writes, and only then.
        assert!(
            !(new_takes_writes && self.is_streaming),
            "the stream writes where applications do: {self:?}"
        );
        if old_takes_writes || new_takes_writes {
            self.dark_since = None;
            return;
        }
        let since = *self.dark_since.get_or_insert(self.now);
        assert!(
            self.now - since <= DEADLINE + AWAY + 3 * LEASE,
            "no side takes writes for too long: {self:?}"
        );
    }
}

/// What an actor is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Act(Act),
    Undo(Undo),
    /// The new side was fenced again after a hook had failed, or the decision was given up.
    TakeBack,
    /// Somebody else may have given the decision up.
    KeepClosed,
    /// The ledger is told that the new side was opened.
    NoteOpened,
    /// Something that may fail: a hook, a drain, a verification.
    Try(Step),
}

#[derive(Clone, Debug)]
struct Actor {
    term: u64,
    deeds: Vec<Deed>,
    began: u64,
    may_fail: bool,
    is_daemon: bool,
}

fn forward(from: Step) -> Vec<Deed> {
    let steps = Step::ALL.into_iter().filter(|step| *step >= from);
    let deeds = |step: Step| {
        let noted = (step == Step::Open).then_some(Deed::NoteOpened);
        step.acts().iter().map(|act| Deed::Act(*act)).chain(noted).chain([Deed::Try(step)])
    };
    steps.flat_map(deeds).collect()
}

fn back() -> Vec<Deed> {
    Undo::ALL.into_iter().map(Deed::Undo).collect()
}

impl Actor {
    /// Does the next thing; false if it is through, or has lost the lease.
    fn turn(&mut self, world: &mut World, rng: &mut Rng) -> bool {
        if world.holds(self.term) {
            world.lease_until = world.now + LEASE;
        }
        if self.deeds.is_empty() {
            return false;
        }
        let has_run_out = self.may_fail
            && !world.is_decided
            && world.now > self.began + DEADLINE
            && !matches!(self.deeds[0], Deed::Undo(_));
        if has_run_out {
            self.deeds = back();
        }
        match self.deeds.remove(0) {
            // The answer is lost, on the way there or back: the old side is opened first of all.
            Deed::Act(Act::Decide) if self.may_fail && rng.u8(..) < 40 => {
                if rng.bool() {
                    world.act(self.term, Act::Decide);
                }
                self.deeds = vec![Deed::Undo(Undo::OpenOld), Deed::TakeBack];
                true
            }
            Deed::Act(act) => world.act(self.term, act),
            Deed::NoteOpened => {
                world.is_opened |= world.holds(self.term);
                true
            }
            Deed::KeepClosed => match world.keep_closed(self.term) {
                Some(false) => {
                    self.deeds = vec![Deed::TakeBack];
                    true
                }
                is_closed => is_closed.is_some(),
            },
            Deed::Undo(undo) => world.undo(self.term, undo),
            Deed::TakeBack => {
                if world.take_back(self.term) {
                    self.deeds = back();
                    return true;
                }
                false
            }
            Deed::Try(step) => {
                if self.may_fail && rng.u8(..) < 12 {
                    self.deeds = match step {
                        step if step < Step::Decide => back(),
                        Step::Switch | Step::Smoke => vec![Deed::Act(Act::CloseNew), Deed::TakeBack],
                        _ => return true,
                    };
                }
                true
            }
        }
    }

    fn recovering(world: &mut World, is_daemon: bool) -> Option<Self> {
        // What is left of a plan then is up to a person.
        if is_daemon && world.new.fence == Fence::Open {
            return None;
        }
        let term = world.take_over()?;
        let deeds = match recovery(world.is_decided) {
            Recovery::Undo => back(),
            Recovery::GoOn => {
                let first = (!world.is_opened).then_some(Deed::KeepClosed);
                // A daemon runs no hooks, and leaves the rest to a person.
                let then = if is_daemon {
                    vec![Deed::Act(Act::OpenNew), Deed::NoteOpened]
                } else {
                    forward(Step::Open)
                };
                first.into_iter().chain(then).collect()
            }
        };
        Some(Self { term, deeds, began: world.now, may_fail: !is_daemon, is_daemon })
    }
}

/// One history: a command, a daemon that may be away for a while, and commands that come later.
fn history(seed: u64) -> End {
    let mut rng = Rng::with_seed(seed);
    let mut world = World::begin(if rng.bool() { Fence::Untouched } else { Fence::Closed });
    let first = Actor { term: 1, deeds: forward(Step::Check), began: 0, may_fail: true, is_daemon: false };
    // Each with the time until which it does nothing.
    let mut actors = vec![(first, 0)];
    let mut daemon_is_away_until = 0;
    let mut kills = 3;
    for _ in 0..20_000 {
        if let Some(end) = world.end {
            // Whoever still sleeps wakes up, and may do no harm.
            for (mut actor, _) in actors.clone() {
                while actor.turn(&mut world, &mut rng) {
                    world.check();
                }
                world.check();
            }
            assert_eq!(world.end, Some(end));
            let is_switched = end == End::Switched;
            assert_eq!(world.old.fence == Fence::Closed, is_switched, "{world:?}");
            assert_eq!(world.new.fence == Fence::Open, is_switched, "{world:?}");
            assert_eq!(world.is_streaming, !is_switched, "{world:?}");
            return end;
        }
        world.now += u64::from(rng.u8(..) < 100);
        if world.now >= daemon_is_away_until && !actors.iter().any(|(actor, _)| actor.is_daemon) {
            actors.extend(Actor::recovering(&mut world, true).map(|actor| (actor, 0)));
        }
        if rng.u8(..) < 2 {
            actors.extend(Actor::recovering(&mut world, false).map(|actor| (actor, 0)));
        }
        if actors.is_empty() {
            world.check();
            continue;
        }
        let chosen = rng.usize(..actors.len());
        if actors[chosen].1 > world.now {
            continue;
        }
        match rng.u8(..) {
            0..12 if kills > 0 => {
                kills -= 1;
                if actors.swap_remove(chosen).0.is_daemon {
                    daemon_is_away_until = world.now + rng.u64(0..AWAY);
                }
            }
            12..20 if kills > 0 => {
                kills -= 1;
                actors[chosen].1 = world.now + rng.u64(0..3 * LEASE);
                // A daemon that sleeps is as good as none: a service manager starts another one.
                actors[chosen].0.is_daemon = false;
            }
            _ => {
                if !actors[chosen].0.turn(&mut world, &mut rng) {
                    actors.swap_remove(chosen);
                }
            }
        }
        world.check();
    }
    panic!("it never came to an end: {world:?} {actors:?}");
}

#[test]
fn a_plan_that_is_killed_stalled_and_taken_over_anywhere_ends_switched_or_undone() {
    let seeds = std::env::var("CDC_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let mut switched = 0;
    for seed in 0..seeds {
        let end = std::panic::catch_unwind(|| history(seed));
        switched += u64::from(end.unwrap_or_else(|_| panic!("seed {seed}")) == End::Switched);
    }
    assert!(switched > seeds / 10 && switched < seeds * 9 / 10, "{switched} of {seeds}");
}
