//! What is told of a look at both ends, compared with what was told before. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use indicatif::HumanDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::alarm::{Alarm, Say};
use super::message::{Level, Message};
use super::progress::Progress;
use crate::config::{Config, Direction};
use crate::fault::Fault;
use crate::ledger::{Incident, Switch};
use crate::limits;
use crate::observe::{Limits, Status, Verdict};

/// What was told. The ledger keeps it, so that a daemon that is started again doesn't tell it again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Told {
    alarms: BTreeMap<Trouble, Alarm>,
    /// Every row is copied.
    is_copied: bool,
    /// Since when the target is consistent.
    consistent_since: Option<String>,
    /// The last switch, and what had become of it.
    switch: Option<(i64, Option<String>)>,
}

/// The kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Trouble {
    /// A person is needed.
    Blocked,
    /// The slot has used half of its budget.
    Slot,
    /// It has used nearly all of it.
    SlotNearlyLost,
    /// The target is too far behind.
    Lag,
    /// A database doesn't answer.
    Unreachable,
    /// A verification has found differences.
    Verify,
    /// Nobody carries out a switch that was begun.
    SwitchLeft,
}

/// A trouble as it is now.
struct Now {
    trouble: Trouble,
    /// What of it there is.
    keys: BTreeSet<String>,
    /// What is told of it.
    event: &'static str,
    text: String,
    /// What is told when it is over, if anything is.
    over: Option<(&'static str, String)>,
    incident: Option<Incident>,
}

/// A look at both ends.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    /// What was seen.
    pub(super) status: Result<&'a Status, &'a Fault>,
    /// How long the slot's budget lasts at the present rate.
    pub(super) slot_lost_in: Option<Duration>,
    /// When it was.
    pub(super) at: Instant,
    pub(super) time: SystemTime,
}

/// What is told of a migration.
pub(super) struct News {
    name: String,
    calm: Duration,
    told: Told,
    /// Nothing was told before: how it is when it is seen first is no news, unless it is a trouble.
    is_first: bool,
    /// Since when a database doesn't answer, and a switch is left.
    unreachable: Since,
    left: Since,
    progress: Option<Progress>,
}

/// Since when something is so.
#[derive(Default)]
struct Since(Option<Instant>);

impl Since {
    /// True if it isn't so, or is for so long that it matters.
    fn is_settled(&mut self, is_so: bool, patience: Duration, at: Instant) -> bool {
        self.0 = if is_so { self.0.or(Some(at)) } else { None };
        self.0.is_none_or(|since| at.duration_since(since) >= patience)
    }
}

impl News {
    pub(super) fn new(config: &Config, at: Instant) -> Self {
        Self {
            name: config.name.clone(),
            calm: config.notify.calm,
            told: Told::default(),
            is_first: true,
            unreachable: Since::default(),
            left: Since::default(),
            progress: config.notify.every.map(|every| Progress::new(every, at)),
        }
    }

    /// Goes on with what an earlier life has told. This one may have told that it couldn't ask for that.
    pub(super) fn go_on(&mut self, told: Value, at: Instant) {
        // What another version has written may not be known to this one.
        let Ok(mut told) = serde_json::from_value::<Told>(told) else { return };
        let alarms = std::mem::take(&mut told.alarms)
            .into_iter()
            .map(|(trouble, alarm)| (trouble, Alarm::after(alarm, at)));
        let of_this_life = std::mem::take(&mut self.told.alarms);
        let alarms = alarms.chain(of_this_life).collect();
        self.told = Told { alarms, ..told };
        self.is_first = false;
    }

    /// What has been told by now, for the next life.
    pub(super) fn told(&self) -> Value {
        json!(self.told)
    }

    /// What is to be told now.
    pub(super) fn look(&mut self, look: Look<'_>) -> Vec<Message> {
        let mut messages = Vec::new();
        let verdict = look.status.ok().map(|status| status.verdict);
        let mut tell = |event, level, text, incident: Option<Incident>| {
            let message = Message::new(&self.name, look.time, event, level, text);
            messages.push(Message { verdict, incident, ..message });
        };
        if let Ok(status) = look.status {
            for (event, text) in milestones(&mut self.told, self.is_first, status) {
                let level = if event == "switch_undone" { Level::Alarm } else { Level::Info };
                tell(event, level, text, None);
            }
            self.is_first = false;
        }
        let unreachable = unreachable(look.status);
        let mut troubles = Vec::new();
        if self.unreachable.is_settled(unreachable.is_some(), limits::NOTIFY_UNREACHABLE, look.at) {
            troubles.push(said_unreachable(unreachable, look.status.ok()));
        }
        if let Ok(status) = look.status {
            troubles.extend([blocked(status), lag(status)]);
            troubles.extend(slot(status, look.slot_lost_in));
            let left = status.switch.as_ref().filter(|switch| switch.outcome.is_none() && !switch.is_held);
            if self.left.is_settled(left.is_some(), limits::SLOT_FREE, look.at) {
                troubles.push(switch_left(left));
            }
            troubles.extend(verify(status));
        }
        for now in troubles {
            let alarm = self.told.alarms.entry(now.trouble).or_default();
            let say = alarm.look(now.keys, self.calm, look.at);
            match (say, now.over) {
                (None, _) | (Some(Say::Over | Say::Flapped(_)), None) => {}
                (Some(Say::Begun(before)), _) => {
                    tell(now.event, Level::Alarm, now.text + &times(before), now.incident);
                }
                (Some(Say::Over), Some((event, text))) => tell(event, Level::Over, text, None),
                (Some(Say::Flapped(times)), Some((event, text))) => {
                    let text =
                        format!("{text}; it has come and gone since that was told last, times {times}");
                    tell(event, Level::Over, text, None);
                }
            }
        }
        if let Some(text) = self.progress.as_mut().and_then(|progress| progress.due(look)) {
            tell("progress", Level::Info, text, None);
        }
        messages
    }
}

fn times(before: u32) -> String {
    if before == 0 { String::new() } else { format!(" (it has come and gone before, times {before})") }
}

fn keys(keys: impl IntoIterator<Item = impl ToString>) -> BTreeSet<String> {
    keys.into_iter().map(|key| key.to_string()).collect()
}

/// What is done by now and wasn't when something was told last.
fn milestones(told: &mut Told, is_first: bool, status: &Status) -> Vec<(&'static str, String)> {
    let mut news = Vec::new();
    // In reverse the copy is none of ours.
    if let Some(copy) = status.copy.as_ref().filter(|_| status.direction == Direction::Forward) {
        let is_copied = copy.is_complete();
        let is_consistent = copy.consistent_since.is_some() && copy.consistent_since != told.consistent_since;
        let what = format!("tables {}, rows {}", copy.tables, copy.rows);
        if is_consistent {
            let again = if told.consistent_since.is_some() { " again" } else { "" };
            news.push((
                "consistent",
                format!("every row is copied, and the target is consistent{again}: {what}"),
            ));
        } else if is_copied && !told.is_copied {
            news.push(("copied", format!("every row is copied: {what}")));
        }
        told.is_copied = is_copied;
        if is_consistent {
            told.consistent_since.clone_from(&copy.consistent_since);
        }
    }
    if let Some(switch) = &status.switch {
        let now = (switch.id, switch.outcome.clone());
        if told.switch.as_ref() != Some(&now) {
            news.push(switched(switch));
            told.switch = Some(now);
        }
    }
    if is_first { Vec::new() } else { news }
}

fn switched(switch: &Switch) -> (&'static str, String) {
    let way = &switch.way;
    let pause = switch.pause_ms.map_or(String::new(), |ms| format!(": writes rested for {ms} ms"));
    match (switch.outcome.as_deref(), way.as_str()) {
        (None, _) => ("switch_begun", format!("a {way} has begun")),
        (Some("switched"), "rollback") => ("rolled_back", format!("rolled back to the source{pause}")),
        (Some("switched"), _) => ("switched", format!("switched to the target{pause}")),
        (Some(_), _) => {
            let why = switch.error.as_ref().map_or(String::new(), |why| format!(": {why}"));
            ("switch_undone", format!("the {way} was undone, and everything is as before{why}"))
        }
    }
}

fn first_open(status: &Status) -> Option<&Incident> {
    status.incidents.first().filter(|incident| incident.resolved_at.is_none())
}

fn blocked(status: &Status) -> Now {
    let needs_person = |incident: &&Incident| {
        incident.resolved_at.is_none() && matches!(incident.severity.as_str(), "blocked" | "failing")
    };
    let open: Vec<_> = status.incidents.iter().filter(needs_person).collect();
    let mut keys = keys(open.iter().map(|incident| incident.id));
    if status.verdict == Verdict::Lost {
        keys.insert("lost".to_owned());
    }
    let what = open.first().map(|incident| incident.summary());
    let text = match (status.verdict, what) {
        (Verdict::Lost, what) => {
            [Some(Verdict::Lost.to_string()), what].into_iter().flatten().collect::<Vec<_>>().join("; ")
        }
        (_, Some(what)) => what,
        (_, None) => status.verdict.to_string(),
    };
    let more = open.len().saturating_sub(1);
    let more = if more == 0 { String::new() } else { format!("; and {more} more: cdc status --incidents") };
    Now {
        trouble: Trouble::Blocked,
        keys,
        event: "blocked",
        text: format!("a person is needed: {text}{more}"),
        over: Some(("unblocked", format!("nobody is needed any more; {}", status.summary()))),
        incident: open.first().copied().cloned(),
    }
}

/// Each of the two levels is a trouble of its own: the second is told however short a time it is after the first.
fn slot(status: &Status, lost_in: Option<Duration>) -> Vec<Now> {
    let Some(slot) = &status.slot else { return Vec::new() };
    let percent = slot.used_percent().unwrap_or(0);
    let lost_in = lost_in.map_or(String::new(), |left| {
        format!("; at the present rate it is lost in about {}", HumanDuration(left))
    });
    let used = slot.used_fraction.unwrap_or(0.0) * 100.0;
    let held = ByteSize(slot.retained_bytes);
    let text = format!(
        "the replication slot {} has used {used:.0} percent of the log that the source may keep for it ({held}){lost_in}; \
         then everything has to be copied again. Let it catch up, or raise max_slot_wal_keep_size on the source",
        slot.name
    );
    let over = format!("the replication slot {} holds {held}, {used:.0} percent of its budget", slot.name);
    let now = |trouble, level: u8, event, over| Now {
        trouble,
        keys: keys((percent >= level).then_some(level)),
        event,
        text: text.clone(),
        over,
        incident: None,
    };
    vec![
        now(Trouble::Slot, 50, "slot_50", Some(("slot_well", over))),
        now(Trouble::SlotNearlyLost, 80, "slot_80", None),
    ]
}

fn lag(status: &Status) -> Now {
    let limits = Limits::default();
    let why = first_open(status).map_or(String::new(), |incident| format!("; {}", incident.summary()));
    let seconds = status.lag.and_then(|lag| lag.seconds).unwrap_or(0.0);
    Now {
        trouble: Trouble::Lag,
        keys: keys(status.lags(&limits).then_some("lag")),
        event: "lag_over",
        text: format!("the target is {seconds:.0} s behind, the limit is {:.0} s{why}", limits.seconds),
        over: Some(("lag_well", format!("the lag is within the limit again; {}", status.summary()))),
        incident: first_open(status).cloned(),
    }
}

/// Which database doesn't answer, and why.
fn unreachable(status: Result<&Status, &Fault>) -> Option<String> {
    match status {
        Ok(status) => status.source_error.clone(),
        Err(fault) => Some(fault.to_string()),
    }
}

fn said_unreachable(why: Option<String>, status: Option<&Status>) -> Now {
    Now {
        trouble: Trouble::Unreachable,
        keys: keys(why.as_ref().map(|_| "unreachable")),
        event: "unreachable",
        text: format!(
            "a database can't be asked for {} s: {}",
            limits::NOTIFY_UNREACHABLE.as_secs(),
            why.unwrap_or_default()
        ),
        over: Some((
            "reachable",
            format!("both databases answer; {}", status.map_or(String::new(), Status::summary)),
        )),
        incident: status.and_then(first_open).cloned(),
    }
}

/// A verification that could not compare everything says nothing new.
fn verify(status: &Status) -> Option<Now> {
    let last = status.last_verify.as_ref().filter(|last| last.outcome != "not_compared")?;
    Some(Now {
        trouble: Trouble::Verify,
        keys: keys((last.outcome == "different").then_some("different")),
        event: "verify_differs",
        text: format!(
            "a verification has found differences: {last}. cdc verify names them, cdc repair has them copied again"
        ),
        over: Some(("verify_same", format!("a verification has found everything the same: {last}"))),
        incident: first_open(status).cloned(),
    })
}

fn switch_left(left: Option<&Switch>) -> Now {
    let way = left.map_or("switch", |switch| &switch.way);
    Now {
        trouble: Trouble::SwitchLeft,
        keys: keys(left.map(|switch| switch.id)),
        event: "switch_left",
        text: format!(
            "nobody carries out the {way} that was begun: look with cdc status, and run cdc {way} again"
        ),
        over: Some(("switch_held", "the switch is carried out, or over".to_owned())),
        incident: None,
    }
}

#[cfg(test)]
mod tests;
