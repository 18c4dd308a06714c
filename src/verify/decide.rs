//! In flight or real: when a row that looked different is a difference. Pure.
//!
//! Each round reads a row on the source (S), takes the source's position L *after* that, waits until the
//! target has passed L, and reads the row on the target (T), together with the checkpoint P. Of each read
//! count the *versions* of the row (`tableoid, ctid, xmin`: a version never changes) and its content.
//!
//! ```text
//! source      S1 ── L1              S2 ── L2
//! target            └ wait ─ T1 P1        └ wait ─ T2 P2
//! ```
//!
//! **Different** is a row whose versions were the same at S1 and S2, and the same at T1 and T2, while its
//! contents on both sides differ. T1 is the source as it was at P1, not before S1 and not after S2. A
//! version that was there at S1 and S2 was there all the time, so a correct target had it at T1; and what
//! is there at T1 and T2 was there all the time, too, so it isn't about to come or to go. A content that
//! flips back and forth has other versions each time, and a row that was inserted and deleted in between has
//! none twice: neither is ever called a difference.
//!
//! **The same** is a row whose content at a T is that of the last S below P, or of the first S above it: the
//! state at P lies between the two. A row that never rests is found in that way, as a round can have
//! several S: if they lie closely, one of them is the state that the target has got to.
//!
//! Anything else is **undecided**, and the next round follows.

use crate::lsn::Lsn;

/// What a read has found of one row: its versions and their content, usually one or none of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// Each version as `tableoid ctid xmin`, in order.
    pub(super) versions: Vec<String>,
    /// The hash of each version's text, in order.
    pub(super) contents: Vec<i64>,
}

impl Sight {
    /// Adds a version that was found.
    pub(super) fn add(&mut self, version: String, content: i64) {
        self.versions.push(version);
        self.contents.push(content);
        self.versions.sort_unstable();
        self.contents.sort_unstable();
    }

    /// True if both hold the same rows.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.contents == other.contents
    }
}

/// What a round has seen of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// The source, at least once, each with a position that was read after it; the target has passed the
    /// first of them.
    pub(super) source: Vec<(Lsn, Sight)>,
    /// Then the target, with its checkpoint.
    pub(super) target: (Lsn, Sight),
}

impl Round {
    fn first(&self) -> Option<&Sight> {
        self.source.first().map(|(_, sight)| sight)
    }

    /// True if the target's content is a state that the source had around its position; `next` is what the
    /// source had when it was looked at next.
    fn agrees(&self, next: Option<&Sight>) -> bool {
        let (position, found) = &self.target;
        let below = self.source.iter().rposition(|(lsn, _)| lsn <= position);
        let last_below = below.and_then(|i| self.source.get(i)).map(|(_, sight)| sight);
        let first_above = match below.map_or(self.source.first(), |i| self.source.get(i + 1)) {
            Some((_, sight)) => Some(sight),
            None => next,
        };
        [last_below, first_above].into_iter().flatten().any(|sight| sight.is_like(found))
    }
}

/// What is known of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    Different,
    Undecided,
}

/// Decides after a round; `before` is the round before it, if there was one.
pub(super) fn decide(before: Option<&Round>, round: &Round) -> Verdict {
    if round.agrees(None) || before.is_some_and(|before| before.agrees(round.first())) {
        return Verdict::Same;
    }
    let rested = |before: &Round| {
        before.first().map(|s| &s.versions) == round.first().map(|s| &s.versions)
            && before.target.1.versions == round.target.1.versions
    };
    if before.is_some_and(rested) { Verdict::Different } else { Verdict::Undecided }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// A row's history on the source: the state after each commit, whose position is its index.
    struct History(Vec<Sight>);

    impl History {
        /// Few contents, so that they come again; some states have no row, and some have two.
        fn write(&mut self, rng: &mut Rng) {
            let mut sight = Sight::default();
            for i in 0..[0, 1, 1, 1, 2][rng.usize(0..5)] {
                sight.add(format!("{} {i}", self.0.len()), rng.i64(0..3));
            }
            self.0.push(sight);
        }

        fn now(&self) -> usize {
            self.0.len() - 1
        }
    }

    fn lsn(position: usize) -> Lsn {
        Lsn::from(position as u64)
    }

    /// The target: it follows the source, and a corruption of it stays until the row is written again.
    struct Target {
        at: usize,
        corrupted: Option<(usize, Sight)>,
        written_at: usize,
    }

    impl Target {
        fn apply(&mut self, history: &History, rng: &mut Rng) {
            let before = self.at;
            self.at = rng.usize(self.at..=history.now());
            if self.at != before {
                self.written_at = self.at;
            }
        }

        fn sight(&self, history: &History) -> Sight {
            match &self.corrupted {
                Some((at, sight)) if *at == self.at => sight.clone(),
                _ => {
                    let mut found = history.0[self.at].clone();
                    // Its versions are its own, one for each time that the row was written here.
                    for version in &mut found.versions {
                        *version = format!("t{} {version}", self.written_at);
                    }
                    found
                }
            }
        }
    }

    fn round(history: &mut History, target: &mut Target, rng: &mut Rng, unrest: usize) -> Round {
        let mut source: Vec<(Lsn, Sight)> = Vec::new();
        for _ in 0..rng.usize(1..4) {
            let seen = history.0[history.now()].clone();
            (0..rng.usize(0..=unrest)).for_each(|_| history.write(rng));
            source.push((lsn(history.now()), seen));
            (0..rng.usize(0..=unrest)).for_each(|_| history.write(rng));
        }
        let wanted = source[0].0;
        while lsn(target.at) < wanted {
            target.apply(history, rng);
        }
        if rng.bool() {
            target.apply(history, rng);
        }
        let found = (lsn(target.at), target.sight(history));
        (0..rng.usize(0..=unrest)).for_each(|_| history.write(rng));
        Round { source, target: found }
    }

    fn begin(rng: &mut Rng) -> (History, Target) {
        let mut history = History(Vec::new());
        (0..rng.usize(1..5)).for_each(|_| history.write(rng));
        let at = rng.usize(0..history.0.len());
        (history, Target { at, corrupted: None, written_at: at })
    }

    #[test]
    fn a_correct_target_never_has_a_difference_however_the_row_flips() {
        let mut verdicts = [0; 2];
        for seed in 0..20_000 {
            let mut rng = Rng::with_seed(seed);
            let (mut history, mut target) = begin(&mut rng);
            let mut before = None;
            for _ in 0..6 {
                let unrest = rng.usize(0..3);
                let round = round(&mut history, &mut target, &mut rng, unrest);
                let verdict = decide(before.as_ref(), &round);
                assert_ne!(verdict, Verdict::Different, "seed {seed}: {before:?} {round:?}");
                verdicts[usize::from(verdict == Verdict::Same)] += 1;
                before = Some(round);
            }
        }
        assert!(verdicts.iter().all(|times| *times > 10_000), "{verdicts:?}");
    }

    #[test]
    fn a_row_that_never_rests_is_the_same_soon() {
        for seed in 0..1_000 {
            let mut rng = Rng::with_seed(seed);
            let (mut history, mut target) = begin(&mut rng);
            let mut before = None;
            let is_same = (0..100).any(|_| {
                let round = round(&mut history, &mut target, &mut rng, 2);
                let verdict = decide(before.as_ref(), &round);
                before = Some(round);
                verdict == Verdict::Same
            });
            assert!(is_same, "seed {seed}");
        }
    }

    #[test]
    fn a_corruption_is_a_difference_after_two_rounds_of_rest() {
        for seed in 0..5_000 {
            let mut rng = Rng::with_seed(seed);
            let (mut history, mut target) = begin(&mut rng);
            (0..rng.usize(0..3)).for_each(|_| drop(round(&mut history, &mut target, &mut rng, 2)));
            target.at = history.now();
            // Missing, there twice, of another content, or there though it shouldn't be.
            let mut corrupted = history.0[target.at].clone();
            match rng.usize(0..3) {
                0 if !corrupted.contents.is_empty() => corrupted = Sight::default(),
                1 if !corrupted.contents.is_empty() => corrupted.contents[0] += 10,
                _ => corrupted.add("extra".to_owned(), 99),
            }
            target.corrupted = Some((target.at, corrupted));
            let first = round(&mut history, &mut target, &mut rng, 0);
            assert_eq!(decide(None, &first), Verdict::Undecided, "seed {seed}");
            let second = round(&mut history, &mut target, &mut rng, 0);
            assert_eq!(
                decide(Some(&first), &second),
                Verdict::Different,
                "seed {seed}: {first:?} {second:?}"
            );
        }
    }

    #[test]
    fn a_target_that_has_stopped_is_not_the_same_because_of_what_the_source_had_before() {
        let sight = |version: &str, content| {
            let mut sight = Sight::default();
            sight.add(version.to_owned(), content);
            sight
        };
        let old = (Lsn::from(10), sight("old", 1));
        let new = (Lsn::from(20), sight("new", 2));
        let stuck = Round { source: vec![old, new.clone()], target: (Lsn::from(30), sight("t", 1)) };
        assert_eq!(decide(None, &stuck), Verdict::Undecided);
        let again = Round { source: vec![new], target: (Lsn::from(40), sight("t", 1)) };
        let rested = Round { source: again.source.clone(), ..stuck };
        assert_eq!(decide(Some(&rested), &again), Verdict::Different);
    }
}
