//! When a trouble is told, and when its end: each once, and calmly. Pure.
//!
//! A trouble is told at once, and so is its end. If it comes back before the calm interval is over it is only counted;
//! when that is over, one message sums up what came and went.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A kind of trouble. What was told of it outlives the daemon.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Alarm {
    /// What of it has been told and isn't over: numbers of incidents, for example.
    told: BTreeSet<String>,
    /// When something of it was told last, in this life.
    #[serde(skip)]
    told_at: Option<Instant>,
    /// What of it there is, told or not.
    #[serde(skip)]
    now: BTreeSet<String>,
    /// How often something has come that wasn't told.
    #[serde(skip)]
    untold: u32,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// There is trouble. Before, it has come and gone so often without a word.
    Begun(u32),
    /// It is over.
    Over,
    /// It is over again, and has come so often without a word.
    Flapped(u32),
}

impl Alarm {
    /// Notes what of it there is now, and says what is to be told.
    pub(super) fn look(&mut self, now: BTreeSet<String>, calm: Duration, at: Instant) -> Option<Say> {
        let has_come = !now.is_subset(&self.now) && !now.is_subset(&self.told);
        self.now = now;
        self.untold += u32::from(has_come);
        let is_calm = self.told_at.is_none_or(|told_at| at.duration_since(told_at) >= calm);
        let is_new = !self.now.is_subset(&self.told);
        let say = match (self.now.is_empty(), self.told.is_empty()) {
            (true, false) => Say::Over,
            (true, true) if self.untold > 0 && is_calm => Say::Flapped(self.untold),
            (false, _) if is_new && is_calm => Say::Begun(self.untold.saturating_sub(1)),
            _ => return None,
        };
        if say == Say::Over {
            self.told.clear();
            return Some(say);
        }
        self.told.extend(self.now.iter().cloned());
        self.told_at = Some(at);
        self.untold = 0;
        Some(say)
    }

    /// Goes on with what an earlier life has told.
    pub(super) fn after(told: Self, at: Instant) -> Self {
        let told_at = (!told.told.is_empty()).then_some(at);
        Self { told_at, ..told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Duration = Duration::from_secs(300);

    /// What is said when this is looked at, at these seconds.
    fn said(alarm: &mut Alarm, looks: &[(u64, &[&str])]) -> Vec<(u64, Say)> {
        let began = Instant::now();
        let look = |(seconds, now): &(u64, &[&str])| {
            let now = now.iter().map(|&key| key.to_owned()).collect();
            Some((*seconds, alarm.look(now, CALM, began + Duration::from_secs(*seconds))?))
        };
        looks.iter().filter_map(look).collect()
    }

    #[test]
    fn a_trouble_and_its_end_are_told_once_and_at_once() {
        let looks: [(u64, &[&str]); 6] =
            [(0, &[]), (2, &["1"]), (4, &["1"]), (400, &["1"]), (402, &[]), (404, &[])];
        assert_eq!(said(&mut Alarm::default(), &looks), [(2, Say::Begun(0)), (402, Say::Over)]);
    }

    #[test]
    fn what_flaps_is_summed_up_when_the_calm_interval_is_over() {
        let flapping = (0..150).map(|i| (i * 2, if i % 2 == 0 { &["1"][..] } else { &[] }));
        let looks: Vec<(u64, &[&str])> = flapping.chain([(299, &[][..]), (301, &[]), (303, &[])]).collect();
        assert_eq!(
            said(&mut Alarm::default(), &looks),
            [(0, Say::Begun(0)), (2, Say::Over), (301, Say::Flapped(74))]
        );
        // It is there when the interval is over.
        let looks: [(u64, &[&str]); 7] =
            [(0, &["1"]), (2, &[]), (4, &["1"]), (6, &[]), (8, &["1"]), (300, &["1"]), (302, &[])];
        assert_eq!(
            said(&mut Alarm::default(), &looks),
            [(0, Say::Begun(0)), (2, Say::Over), (300, Say::Begun(1)), (302, Say::Over)]
        );
    }

    #[test]
    fn what_is_added_is_told_and_what_becomes_less_is_not() {
        let looks: [(u64, &[&str]); 5] =
            [(0, &["50"]), (400, &["50", "80"]), (402, &["50"]), (900, &["50", "80"]), (902, &[])];
        assert_eq!(
            said(&mut Alarm::default(), &looks),
            [(0, Say::Begun(0)), (400, Say::Begun(0)), (902, Say::Over)]
        );
    }

    #[test]
    fn the_next_life_of_the_daemon_tells_nothing_twice_and_the_end_of_it() {
        let mut alarm = Alarm::default();
        said(&mut alarm, &[(0, &["1"])]);
        let kept = serde_json::from_value(serde_json::to_value(&alarm).unwrap()).unwrap();
        let mut next = Alarm::after(kept, Instant::now());
        assert_eq!(said(&mut next, &[(0, &["1"]), (2, &[])]), [(2, Say::Over)]);
    }
}
