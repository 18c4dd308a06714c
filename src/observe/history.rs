//! How it was of late: what a chart draws, and how fast the slot's budget goes. Pure.
//!
//! Each look at both ends is a point. The points of the last quarter of an hour are kept as they are; of each minute
//! before, one that has its worst lag and its mean rates, for a day. It is nobody's record: it begins with whoever
//! looks, and ends with them.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::status::Status;
use crate::config::Direction;

/// For how many seconds every look is kept.
const RECENT_SECONDS: f64 = 900.0;

/// For how many seconds each minute is kept: a day.
const OLDER_SECONDS: f64 = 86_400.0;

const MINUTE_SECONDS: f64 = 60.0;

/// Over how many seconds it is judged how fast the slot's budget goes.
const BUDGET_SECONDS: f64 = 300.0;

/// A budget of which more than this part is left is full.
const FULL_PART: f64 = 0.95;

/// What a look saw. What it couldn't see is null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// When, in seconds since 1970. Of a minute, its last look.
    pub at: f64,
    /// See [`super::Lag`]. Of a minute, the most.
    pub lag_bytes: Option<u64>,
    /// See [`super::Lag`]. Of a minute, the most.
    pub lag_seconds: Option<f64>,
    /// Rows that were written on the source since the look before, in all of its tables. Of a minute, the mean.
    pub rows_written_per_second: Option<f64>,
    /// Row changes that were applied since the look before. Of a minute, the mean.
    pub rows_applied_per_second: Option<f64>,
    /// Rows that the copy brings. Of a minute, the mean.
    pub rows_copied_per_second: Option<f64>,
    /// WAL that the source keeps for the slot. Of a minute, the most.
    pub retained_bytes: Option<u64>,
    /// WAL that can still be written before the slot may be lost. Of a minute, the least.
    pub safe_wal_size_bytes: Option<i64>,
}

/// The points, oldest first.
#[derive(Debug, Default)]
pub struct History {
    recent: VecDeque<Point>,
    older: VecDeque<Point>,
    last: Option<Counters>,
}

/// What rates are counted from.
#[derive(Clone, Copy, Debug)]
struct Counters {
    at: f64,
    direction: Direction,
    written: Option<i64>,
    applied: Option<i64>,
}

/// The history as `/history.json` has it.
#[derive(Debug, Serialize)]
pub struct Since<'a> {
    /// Each look of the last quarter of an hour.
    pub recent: Vec<&'a Point>,
    /// Each minute of the last day.
    pub older: Vec<&'a Point>,
    /// How long the slot's budget lasts at the present rate; null if it isn't used up, or has no limit.
    pub slot_lost_in_seconds: Option<f64>,
}

impl History {
    /// Notes what a look saw.
    pub fn note(&mut self, status: &Status, at: SystemTime) {
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let now = Counters {
            at,
            direction: status.direction,
            written: status.written.as_ref().map(|written| written.rows),
            applied: status.checkpoint.as_ref().map(|checkpoint| checkpoint.changes),
        };
        let slot = status.slot.as_ref();
        let copy = status.copy.as_ref().filter(|copy| !copy.is_complete());
        let last = self.last.replace(now);
        self.push(Point {
            at,
            lag_bytes: status.lag.map(|lag| lag.bytes),
            lag_seconds: status.lag.and_then(|lag| lag.seconds),
            rows_written_per_second: last.and_then(|last| now.rate(last, |counters| counters.written)),
            rows_applied_per_second: last.and_then(|last| now.rate(last, |counters| counters.applied)),
            rows_copied_per_second: copy.map(|copy| copy.rows_per_second),
            retained_bytes: slot.map(|slot| slot.retained_bytes),
            safe_wal_size_bytes: slot.and_then(|slot| slot.safe_wal_size_bytes),
        });
    }

    fn push(&mut self, point: Point) {
        // A clock that is set back would have two points at one time.
        let add = |points: &mut VecDeque<Point>, point: Point| {
            while points.back().is_some_and(|last| last.at >= point.at) {
                points.pop_back();
            }
            points.push_back(point);
        };
        let minute = |point: &Point| (point.at / MINUTE_SECONDS).floor();
        if let Some(last) = self.recent.back().map(minute).filter(|last| *last < minute(&point))
            && let Some(worst) = worst(self.recent.iter().filter(|before| minute(before) == last))
        {
            add(&mut self.older, worst);
        }
        add(&mut self.recent, point);
        for (points, seconds) in [(&mut self.recent, RECENT_SECONDS), (&mut self.older, OLDER_SECONDS)] {
            while points.front().is_some_and(|first| first.at <= point.at - seconds) {
                points.pop_front();
            }
        }
    }

    /// Each look of the last quarter of an hour.
    #[must_use]
    pub fn recent(&self) -> &VecDeque<Point> {
        &self.recent
    }

    /// The points later than this, in seconds since 1970.
    #[must_use]
    pub fn since(&self, at: f64) -> Since<'_> {
        let later = |points: &'_ VecDeque<Point>| points.partition_point(|point| point.at <= at);
        Since {
            recent: self.recent.range(later(&self.recent)..).collect(),
            older: self.older.range(later(&self.older)..).collect(),
            slot_lost_in_seconds: self.slot_lost_in().map(|left| left.as_secs_f64()),
        }
    }

    /// How long the slot's budget lasts if it goes on as in the last five minutes; `None` if it has no limit, isn't
    /// used up within a day, which five minutes can't tell, or nothing is known yet.
    ///
    /// A slot that is well gives back what it held in steps, so its budget goes up and down like a saw. What counts is
    /// how its tops fall; and while hardly anything is held, nothing does.
    #[must_use]
    pub fn slot_lost_in(&self) -> Option<Duration> {
        let end = self.recent.back()?;
        let left = end.safe_wal_size_bytes?;
        if left <= 0 {
            return Some(Duration::ZERO);
        }
        if float(left) > FULL_PART * (float(left) + float(i64::try_from(end.retained_bytes?).ok()?)) {
            return None;
        }
        let begin = self.recent.iter().find(|point| point.at > end.at - BUDGET_SECONDS)?;
        let middle = f64::midpoint(begin.at, end.at);
        let top = |is_in: &dyn Fn(f64) -> bool| {
            let budgets = self.recent.iter().filter(|point| point.at >= begin.at && is_in(point.at));
            budgets
                .filter_map(|point| point.safe_wal_size_bytes.map(|budget| (budget, point.at)))
                .max_by_key(|(budget, _)| *budget)
        };
        let (before, before_at) = top(&|at| at < middle)?;
        let (after, after_at) = top(&|at| at >= middle)?;
        let seconds = float(left) * (after_at - before_at) / float(before.checked_sub(after)?);
        let is_near = before > after && seconds < OLDER_SECONDS;
        if is_near { Duration::try_from_secs_f64(seconds).ok() } else { None }
    }
}

impl Counters {
    /// How fast a counter has grown; `None` if it is another one by now.
    fn rate(&self, last: Self, of: fn(&Self) -> Option<i64>) -> Option<f64> {
        let more = of(self)?.checked_sub(of(&last)?).filter(|more| *more >= 0)?;
        let seconds = self.at - last.at;
        (self.direction == last.direction && seconds > 0.0).then(|| float(more) / seconds)
    }
}

/// One point for many.
fn worst<'a>(points: impl Iterator<Item = &'a Point> + Clone) -> Option<Point> {
    let last = points.clone().last()?;
    let most = |of: fn(&Point) -> Option<u64>| points.clone().filter_map(of).max();
    let mean = |of: fn(&Point) -> Option<f64>| {
        let (count, sum) =
            points.clone().filter_map(of).fold((0.0, 0.0), |(count, sum), x| (count + 1.0, sum + x));
        (count > 0.0).then(|| sum / count)
    };
    Some(Point {
        at: last.at,
        lag_bytes: most(|point| point.lag_bytes),
        lag_seconds: points.clone().filter_map(|point| point.lag_seconds).reduce(f64::max),
        rows_written_per_second: mean(|point| point.rows_written_per_second),
        rows_applied_per_second: mean(|point| point.rows_applied_per_second),
        rows_copied_per_second: mean(|point| point.rows_copied_per_second),
        retained_bytes: most(|point| point.retained_bytes),
        safe_wal_size_bytes: points.clone().filter_map(|point| point.safe_wal_size_bytes).min(),
    })
}

#[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 15 digits")]
fn float(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: u32) -> Point {
        Point { at: f64::from(at), ..Point::default() }
    }

    fn lag(seconds: u32, lag: f64, rows: f64) -> Point {
        Point { lag_seconds: Some(lag), rows_applied_per_second: Some(rows), ..at(seconds) }
    }

    #[test]
    fn a_minute_keeps_its_worst_lag_and_its_mean_rate_when_its_looks_are_gone() {
        let mut history = History::default();
        for point in
            [lag(60, 1.0, 100.0), lag(80, 7.0, 300.0), at(100), lag(119, 2.0, 200.0), lag(121, 1.0, 9.0)]
        {
            history.push(point);
        }
        assert_eq!(history.since(0.0).older, [&lag(119, 7.0, 200.0)]);
        assert_eq!(history.since(0.0).recent.len(), 5);
        history.push(at(1019));
        assert_eq!(history.since(0.0).recent, [&lag(121, 1.0, 9.0), &at(1019)]);
        assert_eq!(history.since(119.0).older, [&lag(121, 1.0, 9.0)]);
    }

    #[test]
    fn it_stays_small_and_a_clock_that_is_set_back_leaves_no_point_twice() {
        let mut history = History::default();
        for seconds in 0..100_000 {
            history.push(at(seconds * 2));
        }
        assert_eq!((history.recent.len(), history.older.len()), (450, 1440));
        history.push(at(199_500));
        let all = history.since(0.0);
        assert!(all.recent.is_sorted_by(|a, b| a.at < b.at) && all.older.is_sorted_by(|a, b| a.at < b.at));
        assert_eq!(all.recent.last(), Some(&&at(199_500)));
    }

    /// How long a budget lasts of which so much was left, every ten seconds, while so much was held.
    fn lasts_beside(retained: u64, budgets: impl IntoIterator<Item = Option<i64>>) -> Option<u64> {
        let mut history = History::default();
        for (seconds, safe_wal_size_bytes) in (0..).step_by(10).zip(budgets) {
            history.push(Point { safe_wal_size_bytes, retained_bytes: Some(retained), ..at(seconds) });
        }
        history.slot_lost_in().map(|left| left.as_secs())
    }

    fn lasts(budgets: impl IntoIterator<Item = Option<i64>>) -> Option<u64> {
        lasts_beside(1_000_000, budgets)
    }

    #[test]
    fn a_budget_that_is_used_up_says_for_how_long_it_lasts() {
        assert_eq!(lasts((0..20).map(|i| Some(10_000 - 100 * i))), Some(810));
        assert_eq!(lasts([Some(1000), Some(900)]), Some(90));
        assert_eq!(lasts([Some(5), Some(-1)]), Some(0));
    }

    #[test]
    fn a_budget_that_goes_up_and_down_or_is_not_known_lasts() {
        for budgets in
            [vec![], vec![Some(100)], vec![Some(100), None], vec![None, Some(100)], vec![Some(100); 50]]
        {
            assert_eq!(lasts(budgets.clone()), None, "{budgets:?}");
        }
        let saw = |i: i64| Some(10_000 - 100 * (i % 7));
        assert_eq!(lasts((0..100).map(saw)), None, "its tops don't fall");
        assert_eq!(
            lasts_beside(100, (0..20).map(|i| Some(10_000 - 100 * i))),
            None,
            "hardly anything is held"
        );
        assert_eq!(lasts((0..20).map(|i| Some(1_000_000 - i))), None, "nobody knows what is in a week");
    }
}
