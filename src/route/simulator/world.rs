//! A run: what can happen, how often, and in which order.

use super::engine::{Engine, Start};
use super::row::{Identity, Table};
use super::source::{Source, State, Transaction};
use super::target::Target;
use crate::chunk::KeyType;

/// What went wrong, if something did.
pub(super) type Outcome = Result<(), Failure>;

/// What went wrong.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) detail: String,
}

/// How a run can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The target lacks rows.
    Lost,
    /// The target has rows that it should not have.
    TooMany,
    /// Both: rows have values that they should not have.
    Wrong,
    /// A change can't be applied: the stream stops.
    Stopped,
    /// A chunk can't be copied.
    NotCopied,
    /// Transactions wait for each other.
    Deadlock,
    /// The daemon doesn't get to the end, although nothing is in its way.
    Endless,
    /// The slot has confirmed more than the checkpoint holds.
    Refused,
    /// The code says that it has a bug.
    Bug,
}

impl Kind {
    pub(super) fn because(self, detail: impl Into<String>) -> Failure {
        Failure { kind: self, detail: detail.into() }
    }
}

/// How many rounds the end may take in which everything gets its turn.
const LAST_ROUNDS: usize = 1_000;

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    Begin,
    Change,
    WriteCommit,
    RollBack,
    FlushSource,
    Show,
    Publish,
    SaveSlot,
    CrashSource,
    Kill,
    Start,
    SettleOrphan,
    FlushTarget,
    CrashTarget,
    Receive,
    Keepalive,
    Take,
    TakeIdle,
    Apply,
    See,
    Confirm,
    Adopt,
    Repair,
    NewReader,
    Reader,
    ReaderFails,
}

/// Each event, and how often it comes if a run doesn't decide otherwise.
const EVENTS: [(Event, f32); 26] = [
    (Event::Begin, 6.0),
    (Event::Change, 14.0),
    (Event::WriteCommit, 5.0),
    (Event::RollBack, 0.5),
    (Event::FlushSource, 6.0),
    (Event::Show, 4.0),
    (Event::Publish, 0.6),
    (Event::SaveSlot, 0.5),
    (Event::CrashSource, 0.4),
    (Event::Kill, 0.7),
    (Event::Start, 12.0),
    (Event::SettleOrphan, 2.0),
    (Event::FlushTarget, 2.0),
    (Event::CrashTarget, 0.12),
    (Event::Receive, 16.0),
    (Event::Keepalive, 3.0),
    (Event::Take, 5.0),
    (Event::TakeIdle, 2.0),
    (Event::Apply, 16.0),
    (Event::See, 6.0),
    (Event::Confirm, 2.0),
    (Event::Adopt, 5.0),
    (Event::Repair, 2.0),
    (Event::NewReader, 5.0),
    (Event::Reader, 30.0),
    (Event::ReaderFails, 1.2),
];

/// What a run is like: each differs from the others in all of this.
#[derive(Debug)]
pub(super) struct Profile {
    weights: [f32; 26],
    events: usize,
    /// Shares of transactions.
    pub(super) asynchronous: f32,
    pub(super) stuck: f32,
    /// Shares of changes.
    pub(super) inserts: f32,
    pub(super) deletes: f32,
    pub(super) moves: f32,
    pub(super) doc_changes: f32,
    pub(super) truncates: f32,
    /// Most keys are below it.
    pub(super) keys: i32,
    /// How many changes fill a batch.
    pub(super) room: usize,
    pub(super) readers: usize,
}

/// Source, target and daemon.
pub(super) struct World {
    pub(super) rng: fastrand::Rng,
    pub(super) profile: Profile,
    pub(super) tables: Vec<Table>,
    pub(super) source: Source,
    pub(super) target: Target,
    pub(super) start: Option<Start>,
    pub(super) engine: Option<Engine>,
    pub(super) next_token: u32,
    /// The target has `synchronous_commit = on`.
    pub(super) is_flushed_at_once: bool,
    pub(super) is_traced: bool,
}

impl Profile {
    fn any(rng: &mut fastrand::Rng) -> Self {
        let weights = EVENTS.map(|(event, weight)| {
            let factor = [0.25, 0.5, 1.0, 1.0, 2.0, 4.0][rng.usize(..6)];
            let is_rare = matches!(
                event,
                Event::CrashSource
                    | Event::Kill
                    | Event::CrashTarget
                    | Event::ReaderFails
                    | Event::RollBack
                    | Event::Repair
            );
            if is_rare && rng.bool() { 0.0 } else { weight * factor }
        });
        let mut share = |shares: &[f32]| shares[rng.usize(..shares.len())];
        Self {
            weights,
            asynchronous: share(&[0.0, 0.0, 0.5]),
            stuck: share(&[0.0, 0.0, 0.05, 0.2]),
            inserts: share(&[0.1, 0.3, 0.5]),
            deletes: share(&[0.05, 0.1, 0.3]),
            moves: share(&[0.0, 0.5, 0.9, 0.9]),
            doc_changes: share(&[0.05, 0.1, 0.5]),
            truncates: share(&[0.0, 0.0, 0.02, 0.1]),
            events: rng.usize(200..1_200),
            keys: [5, 8, 16][rng.usize(..3)],
            room: [1, 2, 6, 1_000][rng.usize(..4)],
            readers: [1, 1, 2, 3][rng.usize(..4)],
        }
    }
}

impl World {
    pub(super) fn new(seed: u64, is_traced: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let profile = Profile::any(&mut rng);
        let count = [1, 1, 2, 3][rng.usize(..4)];
        let tables: Vec<Table> = (0..count)
            .map(|place| {
                let identity =
                    [Identity::Key, Identity::Key, Identity::FullWithKey, Identity::FullBare][rng.usize(..4)];
                let key = if rng.bool() { KeyType::Integer } else { KeyType::Uuid };
                let step = profile.keys / rng.i32(2..5);
                let bounds = (1..4).map(|i| i * step).filter(|bound| *bound < profile.keys);
                let bounds = bounds.take([0, 1, 2, 3, 3][rng.usize(..5)]).collect();
                Table::new(place, identity, key, bounds)
            })
            .collect();
        let first_xid = [1_000, (1 << 32) - 20, (3 << 32) - 20, (1 << 32) + (1 << 31)][rng.usize(..4)];
        let mut world = Self {
            source: Source::new(count, first_xid),
            target: Target::new(count),
            is_flushed_at_once: rng.bool(),
            rng,
            profile,
            tables,
            start: None,
            engine: None,
            next_token: 0,
            is_traced,
        };
        world.load();
        world
    }

    /// What the source has when it all begins.
    fn load(&mut self) {
        let tx = self.source.begin(false, false);
        for table in 0..self.tables.len() {
            let is_bare = !self.tables[table].has_key();
            for _ in 0..self.rng.usize(..8) {
                let new = self.any_row(is_bare);
                if is_bare || self.source.is_free_key(tx, table, new[0]) {
                    self.source.write(tx, super::source::What::Insert { table, new }, None);
                }
            }
            if self.rng.u8(..3) > 0 {
                self.source.published[table] = Some(0);
            }
        }
        self.source.commit(tx);
        self.source.flush_to(self.source.insert);
        self.source.show(tx);
    }

    /// Says what happens, if somebody wants to know.
    pub(super) fn trace(&self, line: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{}", line());
        }
    }

    /// Lets it all happen, then lets everything end.
    pub(super) fn run(&mut self) -> Outcome {
        let beginning = format!("{:?}\n{:?}", self.profile, self.tables);
        self.trace(|| beginning);
        for _ in 0..self.profile.events {
            self.something()?;
        }
        self.end()
    }

    fn something(&mut self) -> Outcome {
        let mut left = self.rng.f32() * self.profile.weights.iter().sum::<f32>();
        let place = self.profile.weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        self.happen(EVENTS[place.unwrap_or(0)].0)
    }

    /// Rows move to and fro between two chunks, without the value that isn't sent, until the daemon
    /// says that the target is consistent. How many copies that has taken.
    pub(super) fn move_to_and_fro(&mut self) -> Result<usize, Failure> {
        for (weight, (event, usual)) in self.profile.weights.iter_mut().zip(EVENTS) {
            *weight = match event {
                Event::RollBack
                | Event::CrashSource
                | Event::Kill
                | Event::CrashTarget
                | Event::ReaderFails
                | Event::Repair => 0.0,
                // Nothing lags behind for ever.
                Event::Show | Event::Receive | Event::Apply => 40.0,
                _ => usual * [0.5, 1.0, 2.0][self.rng.usize(..3)],
            };
        }
        let (moves, keys, room) = (1.0, 8, 1_000);
        let none = 0.0;
        self.profile = Profile {
            moves,
            keys,
            room,
            weights: self.profile.weights,
            inserts: none,
            deletes: none,
            doc_changes: none,
            truncates: none,
            asynchronous: none,
            stuck: none,
            ..self.profile
        };
        self.tables = vec![Table::new(0, Identity::Key, KeyType::Integer, vec![4])];
        self.source = Source::new(1, 1_000);
        self.target = Target::new(1);
        self.load();
        self.source.published[0] = Some(0);
        let accepted = |world: &Self| {
            let readers = world.engine.iter().flat_map(|engine| &engine.readers);
            readers.filter(|reader| reader.is_accepted).count()
        };
        let mut copies = 0;
        for _ in 0..20_000 {
            let before = accepted(self);
            self.something()?;
            copies += accepted(self).saturating_sub(before);
            if self.says_consistent() {
                return Ok(copies);
            }
        }
        Err(Kind::Endless.because("it doesn't become consistent"))
    }

    fn happen(&mut self, event: Event) -> Outcome {
        match event {
            Event::Begin => self.begin_transaction(),
            Event::Change => self.change_something(),
            Event::WriteCommit => self.write_commit(),
            Event::RollBack => self.roll_back(),
            Event::FlushSource => self.flush_source(),
            Event::Show => self.show_one(),
            Event::Publish => self.publish(),
            Event::SaveSlot => {
                if let Some(slot) = &mut self.source.slot {
                    slot.saved = slot.confirmed;
                }
            }
            Event::CrashSource => {
                let flush = self.source.flush;
                let can_lose = |t: &Transaction| {
                    t.state == State::Visible && t.commit.is_some_and(|(_, end)| end > flush)
                };
                if self.rng.u8(..4) == 0 || !self.source.those(can_lose).is_empty() {
                    self.crash_source();
                }
            }
            Event::Kill => {
                if self.rng.u8(..4) == 0 || self.target.open.iter().any(|open| open.is_committing) {
                    self.kill();
                }
            }
            Event::Start => return self.start_step(),
            Event::SettleOrphan => return self.settle_orphan(),
            Event::FlushTarget => self.target.flush(),
            Event::CrashTarget => {
                self.kill();
                self.target.crash();
                self.trace(|| "target: CRASH".to_owned());
            }
            Event::Receive => return self.receive(),
            Event::Keepalive => self.keepalive(),
            Event::Take => self.take(false),
            Event::TakeIdle => self.take(true),
            Event::Apply => return self.apply_step(),
            Event::See => self.see(),
            Event::Confirm => self.confirm(),
            Event::Adopt => self.adopt(),
            Event::Repair => self.repair(),
            Event::NewReader => self.new_reader(),
            Event::Reader => return self.reader_step(),
            Event::ReaderFails => {
                let which = self.rng.usize(..4);
                return self.reader_fails(which);
            }
        }
        Ok(())
    }

    /// The applications stop, every transaction ends and is seen; now it has to come to an end.
    fn end(&mut self) -> Outcome {
        self.trace(|| "the applications stop".to_owned());
        if self.engine.as_ref().is_some_and(|engine| engine.source_is_gone) {
            self.kill();
        }
        for tx in self.source.those(|t| t.state == State::Running) {
            let can_commit = self.source.transactions[tx].truncates.is_none() && self.rng.bool();
            if can_commit { self.source.commit(tx) } else { self.source.abort(tx) }
        }
        while self.source.published.contains(&None) {
            self.publish();
        }
        self.source.flush_to(self.source.insert);
        for tx in self.source.those(|t| t.state == State::Committed) {
            self.source.show(tx);
        }
        for _ in 0..LAST_ROUNDS {
            if self.is_finished() {
                return self.check_end();
            }
            // A server without work still logs now and then. (After a crash of the source a chunk's
            // position can be one that its log has not reached again.)
            self.source.log(0);
            self.source.flush_to(self.source.insert);
            // One that has begun comes to its end.
            if self.engine.as_ref().is_some_and(|engine| engine.repair.is_some()) {
                self.repair();
            }
            for event in [
                Event::SettleOrphan,
                Event::Start,
                Event::Receive,
                Event::Receive,
                Event::Keepalive,
                Event::TakeIdle,
                Event::Apply,
                Event::Apply,
                Event::Apply,
                Event::See,
                Event::FlushTarget,
                Event::Confirm,
                Event::Adopt,
                Event::NewReader,
                Event::Reader,
                Event::Reader,
                Event::Reader,
            ] {
                self.happen(event)?;
            }
        }
        Err(Kind::Endless.because("it doesn't come to an end"))
    }
}
