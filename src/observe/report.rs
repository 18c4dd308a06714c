//! The status for a person.

use std::fmt;

use bytesize::ByteSize;

use super::copy::summary;
use super::lag::{Lag, Verdict};
use super::status::{SlotStatus, Status};
use crate::config::Direction;
use crate::ledger::{ChangesByTable, Incident, Repair, Skip, Verification};

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Streaming => "streaming",
            Self::Copying => "copying",
            Self::Behind => "behind",
            Self::Blocked => "blocked: a person is needed",
            Self::Stopped => "stopped: no daemon is running",
            Self::Done => "done: nothing is replicated any more",
            Self::Lost => {
                "lost: the replication slot is gone, the rows have to be copied again (cdc repair --all)"
            }
        })
    }
}

fn seconds(lag: Lag) -> String {
    lag.seconds.map_or("time unknown".to_owned(), |s| format!("{s:.1} s"))
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.verdict)?;
        let phase = self.phase.map_or("not begun", |phase| phase.as_str());
        writeln!(f, "  phase       {phase}, {}", self.direction.as_str())?;
        if self.direction == Direction::Reverse {
            writeln!(f, "              from {}", self.source)?;
            writeln!(f, "              to   {}", self.target)?;
        }
        match &self.daemon.state {
            None => writeln!(f, "  daemon      has never run")?,
            Some(state) => {
                let running = if self.daemon.is_running { "running" } else { "not running, was last" };
                writeln!(
                    f,
                    "  daemon      {running}: {state} since {} (pid {} on {}, version {})",
                    self.daemon.since.as_deref().unwrap_or("?"),
                    self.daemon.pid.unwrap_or_default(),
                    self.daemon.host.as_deref().unwrap_or("?"),
                    self.daemon.version.as_deref().unwrap_or("?"),
                )?;
            }
        }
        // An open incident says the same, and more.
        let is_told = |detail: &str| {
            self.incidents.iter().any(|i| i.resolved_at.is_none() && detail.contains(&i.message))
        };
        if let Some(detail) = self.daemon.detail.as_ref().filter(|detail| !is_told(detail)) {
            writeln!(f, "              {}", detail.replace('\n', "\n              "))?;
        }
        if let Some(copy) = &self.copy {
            write!(f, "{copy}")?;
        }
        if let Some(lag) = self.lag {
            let bytes = lag.bytes;
            writeln!(f, "  lag         {} ({bytes} bytes), {}", ByteSize(bytes), seconds(lag))?;
        }
        if let Some(checkpoint) = &self.checkpoint {
            writeln!(
                f,
                "  applied     changes {}, transactions {}, up to {}",
                checkpoint.changes, checkpoint.transactions, checkpoint.lsn
            )?;
        }
        if let Some(slot) = &self.slot {
            writeln!(
                f,
                "  slot        {}, {}, holds {} of WAL, {}",
                slot.name,
                if slot.is_active { "in use" } else { "not in use" },
                ByteSize(slot.retained_bytes),
                slot.budget(),
            )?;
        }
        if let Some(error) = &self.source_error {
            writeln!(f, "  source      can't be asked: {}", error.replace('\n', "\n              "))?;
        }
        if let Some(last) = &self.skipped.last {
            writeln!(
                f,
                "  skipped     transactions {}: the target lacks what they changed, until it is repaired by hand",
                self.skipped.transactions
            )?;
            writeln!(f, "              the last: {last}")?;
        }
        for repair in &self.repairs {
            writeln!(f, "  repair      {repair}")?;
        }
        if let Some(switch) = self.switch.as_ref().filter(|switch| switch.outcome.is_none()) {
            let open = if switch.is_held { "under way" } else { "left: run it again" };
            writeln!(f, "  {:<12}{open}, at the step {} ({})", switch.way, switch.step, switch.holder)?;
        }
        if let Some(old) = &self.old_side {
            let quiet = old.quiet_days.map_or(String::new(), |days| format!(", quiet for {days:.1} days"));
            let used = if old.users.is_empty() { "nobody uses it" } else { "still in use" };
            writeln!(f, "  old side    {}: {used}{quiet}", old.database)?;
            for user in &old.users {
                let client = user.client.as_deref().unwrap_or("the server itself");
                writeln!(
                    f,
                    "              {} ({}) from {client}: {} sessions, last active {}",
                    user.role,
                    user.application,
                    user.sessions,
                    user.last_active_at.as_deref().unwrap_or("unknown")
                )?;
            }
        }
        if let Some(verify) = &self.last_verify {
            writeln!(f, "  verified    {verify}")?;
        }
        for incident in &self.incidents {
            write!(f, "{incident}")?;
        }
        let shown = self.incidents.iter().filter(|incident| incident.resolved_at.is_none()).count();
        match self.open_incidents - i64::try_from(shown).unwrap_or(i64::MAX) {
            ..=0 => Ok(()),
            more => writeln!(f, "              and {more} more that are open (--incidents)"),
        }
    }
}

impl Status {
    /// The status in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut parts = vec![self.verdict.to_string()];
        if let Some(incident) = self.incidents.first().filter(|incident| incident.resolved_at.is_none()) {
            parts.push(incident.summary());
        } else if let Some(detail) = &self.daemon.detail {
            parts.push(detail.clone());
        }
        if let Some(error) = &self.source_error {
            parts.push(format!("source can't be asked: {error}"));
        }
        if let Some(copy) = self.copy.as_ref().filter(|copy| !copy.is_complete()) {
            parts.push(format!("copied {}", summary(copy)));
        }
        parts.extend(self.lag.map(|lag| format!("lag {}, {}", ByteSize(lag.bytes), seconds(lag))));
        parts.join("; ")
    }
}

impl Incident {
    /// What happened, where, and what to do.
    #[must_use]
    pub fn summary(&self) -> String {
        let side = self.side.as_ref().map_or(String::new(), |side| format!("{side}: "));
        let place = self.place();
        let place = if place.is_empty() { place } else { format!(" [{place}]") };
        let remedy = self.remedy.as_ref().map_or(String::new(), |text| format!("; what to do: {text}"));
        format!("{side}{}{place}{remedy}", self.message)
    }

    pub(super) fn place(&self) -> String {
        let parts = [
            self.table.as_ref().map(|t| format!("table {t}")),
            self.key.as_ref().map(|k| format!("key {k}")),
            self.lsn.as_ref().map(|l| format!("LSN {l}")),
            self.sqlstate.as_ref().map(|s| format!("SQLSTATE {s}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl SlotStatus {
    /// How much is left of it, in words.
    fn budget(&self) -> String {
        match (self.wal_status.as_deref(), self.safe_wal_size_bytes.map(u64::try_from)) {
            (Some("lost"), _) => "LOST: some of that has been removed".to_owned(),
            (Some("unreserved"), _) | (_, Some(Ok(0) | Err(_))) => {
                "MAY BE LOST at the source's next checkpoint (max_slot_wal_keep_size)".to_owned()
            }
            (_, Some(Ok(bytes))) => format!("{} until it may be lost", ByteSize(bytes)),
            (_, None) => "without a limit".to_owned(),
        }
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.resolved_at {
            Some(at) if self.was_skipped => format!("skipped {at}"),
            Some(at) => format!("resolved {at}"),
            None => "open".to_owned(),
        };
        writeln!(
            f,
            "  incident    {} ({state}), count {}, first {}, last {}",
            self.severity, self.count, self.first_at, self.last_at
        )?;
        let side = self.side.as_ref().map_or(String::new(), |side| format!("{side}: "));
        writeln!(f, "              {side}{}", self.message)?;
        let place = self.place();
        if !place.is_empty() {
            writeln!(f, "              {place}")?;
        }
        if let Some(remedy) = self.remedy.as_ref().filter(|_| self.resolved_at.is_none()) {
            writeln!(f, "              what to do: {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LSN {}", self.lsn)?;
        if let Some(at) = &self.skipped_at {
            write!(f, " at {at}, dropped {}", changes(self.dropped.as_ref()))?;
        }
        write!(f, "; asked by {} ({}@{}): {}", self.role, self.os_user, self.host, self.reason)
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (&self.table, self.again.relation, &self.again.ranges) {
            (_, None, _) => "everything".to_owned(),
            (Some(table), _, Some(ranges)) => format!("{table}, key ranges {}", ranges.len()),
            (Some(table), _, None) => format!("{table}, all rows"),
            (None, Some(relation), _) => format!("the table with the oid {relation}"),
        };
        let since = match &self.begun_at {
            Some(at) => format!("under way since {at}"),
            None => format!("asked for {}, waits for the daemon", self.asked_at),
        };
        write!(f, "{what}: {since}; asked by {} ({}@{}): {}", self.role, self.os_user, self.host, self.reason)
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome.as_str() {
            "same" => "the same",
            "different" => "DIFFERENT",
            _ => "NOT COMPARED",
        };
        write!(f, "{}: {outcome}: tables {}, rows {}", self.finished_at, self.tables, self.rows)?;
        if self.differences > 0 {
            write!(f, ", differences {}", self.differences)?;
        }
        match self.not_compared {
            0 => Ok(()),
            tables => write!(f, ", tables that could not be compared: {tables}"),
        }
    }
}

/// How many changes of which tables; `None` if the source could not send them.
#[must_use]
pub fn changes(of: Option<&ChangesByTable>) -> String {
    let Some(of) = of else { return "changes that the source could not send, of unknown number".to_owned() };
    let tables: Vec<_> = of.iter().map(|(table, changes)| format!("{table} {changes}")).collect();
    match of.values().sum::<u64>() {
        1 => format!("1 change ({})", tables.join(", ")),
        all => format!("{all} changes ({})", tables.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_says_how_much_is_left_of_it() {
        let budget = |wal_status: &str, safe_wal_size_bytes| {
            let slot = SlotStatus {
                name: "cdc_a".to_owned(),
                is_active: true,
                wal_status: Some(wal_status.to_owned()),
                confirmed_flush_lsn: None,
                retained_bytes: 0,
                safe_wal_size_bytes,
                used_fraction: None,
            };
            slot.budget()
        };
        assert_eq!(budget("reserved", None), "without a limit");
        assert_eq!(budget("extended", Some(2 << 30)), "2.0 GiB until it may be lost");
        let soon = "MAY BE LOST at the source's next checkpoint (max_slot_wal_keep_size)";
        assert_eq!(budget("unreserved", Some(-5)), soon);
        assert_eq!(budget("extended", Some(0)), soon);
        assert_eq!(budget("lost", None), "LOST: some of that has been removed");
    }
}
