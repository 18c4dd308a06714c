//! A chunk: sums first, then buckets, rows, and each row by itself.
//!
//! ```text
//! sums ─ differ ─► the stream passes the source's position ─► sums again ─ differ ─► buckets ─► rows ─► decide
//!   └─ equal: the same         └─ equal: the same                                              each by itself
//! ```
//!
//! Everything before the last step only narrows: what it lets pass was equal on both sides, and what it
//! names is decided by [`super::decide`].

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::decide::{Round, Sight, Verdict, decide};
use super::ends::{Ends, Rows, Sums, fault};
use super::report::Kind;
use super::stream::Stream;
use super::unit::Unit;
use crate::chunk::KeyRange;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::limits;
use crate::lsn::Lsn;

/// A chunk, and what it is compared with.
pub(super) struct Chunk<'a> {
    pub(super) ends: &'a Ends,
    pub(super) unit: &'a Unit,
    pub(super) range: &'a KeyRange,
    /// The stream that the target follows the source by; none if both rest.
    pub(super) stream: Option<&'a Stream>,
    /// How long a row may be undecided.
    pub(super) patience: Duration,
    /// The most rows that are looked at one by one.
    pub(super) candidates: usize,
}

/// What has come out of it.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) rows_source: i64,
    pub(super) rows_target: i64,
    pub(super) bytes: i64,
    pub(super) differences: Vec<Found>,
    /// Rows that differed at one look and were not looked at one by one: at least so many.
    pub(super) not_looked_at: u64,
    /// Rows that have changed too often to be decided.
    pub(super) undecided: usize,
}

/// A row that differs.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) kind: Kind,
    /// How many rows it stands for: more than one only where rows have no key.
    pub(super) rows: u64,
}

/// Rows that have looked different.
#[derive(Debug, Default)]
struct Candidates {
    ids: Vec<String>,
    bytes: usize,
    /// How many more there are at least.
    more: u64,
}

impl Candidates {
    fn add(&mut self, id: Vec<u8>, most: usize) -> Result<()> {
        if self.ids.len() >= most || self.bytes + id.len() > limits::VERIFY_CANDIDATES_BYTES {
            self.more += 1;
            return Ok(());
        }
        self.bytes += id.len();
        self.ids.push(String::from_utf8(id).map_err(|_| Fault::bug("a key that is not UTF-8"))?);
        Ok(())
    }
}

impl Chunk<'_> {
    /// Compares it.
    pub(super) async fn compare(&self) -> Result<Compared> {
        let mut compared = Compared::default();
        let (source, target) = tokio::try_join!(self.sums(Side::Source), self.sums(Side::Target))?;
        compared.rows_source = source.rows;
        compared.rows_target = target.rows;
        compared.bytes = source.bytes;
        if source.is_like(&target) {
            return Ok(compared);
        }
        let (deadline, mut looks) = (Instant::now() + self.patience, 0);
        loop {
            if self.stream.is_some() {
                let source = self.sums(Side::Source).await?;
                self.target_has_it().await?;
                if source.is_like(&self.sums(Side::Target).await?) {
                    return Ok(compared);
                }
            }
            let candidates = self.narrow().await?;
            let (differences, undecided) = self.settle(&candidates.ids, deadline).await?;
            // Every row was equal in a bucket, in the merge or by itself; or one of them is a difference.
            if !differences.is_empty() || candidates.more == 0 && undecided == 0 {
                compared.not_looked_at = candidates.more;
                (compared.differences, compared.undecided) = (differences, undecided);
                return Ok(compared);
            }
            looks += 1;
            if looks >= limits::VERIFY_ROUNDS && Instant::now() >= deadline {
                let more = usize::try_from(candidates.more).unwrap_or(usize::MAX);
                compared.undecided = undecided.max(1).saturating_add(more);
                return Ok(compared);
            }
        }
    }

    async fn sums(&self, side: Side) -> Result<Sums> {
        self.ends.sums(side, self.unit, self.range).await
    }

    /// Waits until the target has what was read on the source.
    async fn target_has_it(&self) -> Result<()> {
        match self.stream {
            Some(stream) => stream.passed(self.ends.position().await?).await,
            None => Ok(()),
        }
    }

    /// The rows that look different.
    async fn narrow(&self) -> Result<Candidates> {
        let mut candidates = Candidates::default();
        let buckets = self.differing_buckets(&mut candidates.more).await?;
        if buckets.is_empty() {
            return Ok(candidates);
        }
        let read = self.merge(&buckets, &mut candidates).await;
        let ended = self.ends.source.batch_execute("COMMIT").await.map_err(|e| fault(Side::Source, &e));
        read.and(ended).map(|()| candidates)
    }

    /// The buckets to look into; `more` counts at least the differing rows of those that are too many.
    async fn differing_buckets(&self, more: &mut u64) -> Result<Vec<i32>> {
        let buckets = |side| self.ends.buckets(side, self.unit, self.range);
        let (source, target) = tokio::try_join!(buckets(Side::Source), buckets(Side::Target))?;
        let mut both: BTreeMap<i32, [Option<(i64, String)>; 2]> = BTreeMap::new();
        for (side, buckets) in [source, target].into_iter().enumerate() {
            for (number, sums) in buckets {
                both.entry(number).or_default()[side] = Some(sums);
            }
        }
        let (mut buckets, mut rows) = (Vec::new(), 0);
        for (number, [source, target]) in both {
            if source == target {
                continue;
            }
            let count = |sums: Option<(i64, String)>| sums.map_or(0, |(rows, _)| rows);
            let (source, target) = (count(source), count(target));
            if !buckets.is_empty() && rows + source.max(target) > limits::VERIFY_ROWS {
                *more += source.abs_diff(target).max(1);
                continue;
            }
            rows += source.max(target);
            buckets.push(number);
        }
        Ok(buckets)
    }

    /// Reads the rows of these buckets on both sides, in the same order, and gathers those that differ. The
    /// source is read under a snapshot that the target has passed: nearly nothing is in flight then.
    async fn merge(&self, buckets: &[i32], candidates: &mut Candidates) -> Result<()> {
        self.ends
            .source
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(|e| fault(Side::Source, &e))?;
        self.target_has_it().await?;
        let rows = |side| self.ends.rows(side, self.unit, buckets, self.range);
        let (mut source, mut target): (Rows, Rows) =
            tokio::try_join!(rows(Side::Source), rows(Side::Target))?;
        loop {
            let order = match (source.peek(), target.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(source), Some(target)) => source.cmp(target),
            };
            let (left, right) = match order {
                Ordering::Less => (source.take().await?, None),
                Ordering::Greater => (None, target.take().await?),
                Ordering::Equal => tokio::try_join!(source.take(), target.take())?,
            };
            if left != right {
                let id = left.or(right).map(|(id, _)| id).unwrap_or_default();
                candidates.add(id, self.candidates)?;
            }
        }
    }

    /// Decides rows one by one: those that differ, and the number of those that are undecided when the time
    /// is over.
    async fn settle(&self, ids: &[String], deadline: Instant) -> Result<(Vec<Found>, usize)> {
        let (mut differences, mut undecided) = (Vec::new(), 0);
        // Two texts can be one key: 1.0 and 1.00.
        let mut known = HashSet::new();
        let settled = match self.stream {
            _ if ids.is_empty() => Vec::new(),
            Some(stream) => {
                let mut batch = Batch { chunk: self, stream, open: ids.to_vec(), before: Vec::new() };
                let settled = batch.settle(deadline).await?;
                undecided = batch.open.len();
                settled
            }
            None => self.settle_at_rest(ids).await?,
        };
        for (id, source, target) in settled {
            if known.insert((source.versions.clone(), target.versions.clone())) {
                differences.push(self.found(id, &source, &target));
            }
        }
        Ok((differences, undecided))
    }

    /// Where nothing changes, one look is enough.
    async fn settle_at_rest(&self, ids: &[String]) -> Result<Vec<(String, Sight, Sight)>> {
        let (source, (_, target)) = tokio::try_join!(
            self.ends.look_up(Side::Source, self.unit.place(Side::Source), ids, None),
            self.ends.look_up(Side::Target, self.unit.place(Side::Target), ids, None),
        )
        .map(|((_, source), target)| (source, target))?;
        let both = ids.iter().cloned().zip(source).zip(target);
        Ok(both.filter(|((_, s), t)| !s.is_like(t)).map(|((id, s), t)| (id, s, t)).collect())
    }

    fn found(&self, id: String, source: &Sight, target: &Sight) -> Found {
        let (s, t) = (source.contents.len(), target.contents.len());
        let has_key = !self.unit.place(Side::Source).key.is_empty();
        let kind = match s.cmp(&t) {
            Ordering::Greater if t == 0 || !has_key => Kind::Missing,
            Ordering::Less if s == 0 || !has_key => Kind::Extra,
            Ordering::Greater | Ordering::Less | Ordering::Equal => Kind::Different,
        };
        let rows = if has_key { 1 } else { s.abs_diff(t) as u64 };
        Found { id, kind, rows }
    }
}

/// Rows that are decided together.
struct Batch<'a> {
    chunk: &'a Chunk<'a>,
    stream: &'a Stream,
    /// Those that are undecided.
    open: Vec<String>,
    /// Their last round; none before the first.
    before: Vec<Round>,
}

impl Batch<'_> {
    /// Reads in rounds until all are decided or the time is over. Gives those that differ.
    async fn settle(&mut self, deadline: Instant) -> Result<Vec<(String, Sight, Sight)>> {
        let mut different = Vec::new();
        let mut number = 0;
        while !self.open.is_empty() && (number < limits::VERIFY_ROUNDS || Instant::now() < deadline) {
            // Two rounds decide what rests. What is left is always being changed.
            let samples = if number < 2 {
                1
            } else {
                (limits::VERIFY_SIGHTS / self.open.len()).clamp(1, limits::VERIFY_SAMPLES)
            };
            let rounds = self.round(samples).await?;
            let mut before = std::mem::take(&mut self.before).into_iter();
            let open = std::mem::take(&mut self.open);
            for (id, round) in open.into_iter().zip(rounds) {
                match decide(before.next().as_ref(), &round) {
                    Verdict::Same => {}
                    Verdict::Different => {
                        let source =
                            round.source.into_iter().next().map(|(_, sight)| sight).unwrap_or_default();
                        different.push((id, source, round.target.1));
                    }
                    Verdict::Undecided => {
                        self.open.push(id);
                        self.before.push(round);
                    }
                }
            }
            number += 1;
        }
        if !different.is_empty() {
            self.was_not_copied_again().await?;
        }
        Ok(different)
    }

    /// One round of reads, for each of the open rows.
    async fn round(&self, samples: usize) -> Result<Vec<Round>> {
        let Chunk { ends, unit, .. } = self.chunk;
        let mut source: Vec<Vec<(Lsn, Sight)>> = vec![Vec::with_capacity(samples); self.open.len()];
        let mut first = None;
        for _ in 0..samples {
            let (_, sights) = ends.look_up(Side::Source, unit.place(Side::Source), &self.open, None).await?;
            let position = ends.position().await?;
            first = first.or(Some(position));
            for (samples, sight) in source.iter_mut().zip(sights) {
                samples.push((position, sight));
            }
        }
        self.stream.passed(first.unwrap_or_default()).await?;
        let name = Some(self.stream.name());
        let (position, target) =
            ends.look_up(Side::Target, unit.place(Side::Target), &self.open, name).await?;
        let rounds = source.into_iter().zip(target);
        Ok(rounds.map(|(source, target)| Round { source, target: (position, target) }).collect())
    }

    /// While a chunk waits to be copied again, its changes don't arrive, and its rows may differ.
    async fn was_not_copied_again(&self) -> Result<()> {
        let unit = self.chunk.unit;
        if self.stream.ledger().copied_at(&unit.relations).await?.as_ref() == Some(&unit.copied_at) {
            return Ok(());
        }
        Err(Fault::retry("it is being copied again").table(unit.name.to_string()).reacting(Reaction::Retry))
    }
}
