//! The metrics: what was seen last, in Prometheus's text format. Pure.
//!
//! They are made anew for each scrape, so that nothing is left of a slot that is gone or a state that has passed, and
//! what isn't known isn't there.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, GaugeVec, Opts, Registry, TextEncoder};

use crate::config::Direction;
use crate::ledger::{CopyProgress, DaemonState, Phase, Switch, Verification};
use crate::observe::{OldSide, Seen, SlotStatus, Status, Verdict};

/// The type of what [`exposition`] gives.
pub(super) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Everything, as a scrape gets it.
///
/// # Errors
/// If two metrics have the same name, which is a bug.
pub(super) fn exposition(name: &str, seen: &Seen, is_alive: bool) -> prometheus::Result<String> {
    let labels = HashMap::from([("migration".to_owned(), name.to_owned())]);
    let metrics = Metrics(Registry::new_custom(Some("cdc".to_owned()), Some(labels))?);
    metrics.ourselves(seen, is_alive)?;
    if let Some((Ok(status), _)) = &seen.last {
        metrics.status(status)?;
        let left = seen.history.slot_lost_in().map(|left| left.as_secs_f64());
        metrics.gauge(
            "slot_lost_in_seconds",
            "How long the slot's budget lasts as it was used up in the last five minutes. Absent if it isn't used up.",
            left,
        )?;
    }
    let process = ProcessCollector::for_self().collect().into_iter();
    let families: Vec<MetricFamily> = metrics.0.gather().into_iter().chain(process).collect();
    TextEncoder::new().encode_to_string(&families)
}

struct Metrics(Registry);

impl Metrics {
    /// A value, if it is known.
    fn gauge(&self, name: &str, help: &str, value: Option<f64>) -> prometheus::Result<()> {
        let Some(value) = value else { return Ok(()) };
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        self.0.register(Box::new(gauge))
    }

    /// Yes or no.
    fn flag(&self, name: &str, help: &str, is_so: bool) -> prometheus::Result<()> {
        self.gauge(name, help, Some(f64::from(u8::from(is_so))))
    }

    /// What only grows.
    fn counter(&self, name: &str, help: &str, value: f64) -> prometheus::Result<()> {
        let counter = Counter::new(name, help)?;
        counter.inc_by(value.max(0.0));
        self.0.register(Box::new(counter))
    }

    /// A value for each label.
    fn family<'a>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> prometheus::Result<()> {
        let family = GaugeVec::new(Opts::new(name, help), &[label])?;
        for (of, value) in values {
            family.with_label_values(&[of]).set(value);
        }
        self.0.register(Box::new(family))
    }

    /// 1 for the one of these that it is, 0 for the others.
    fn state<'a>(
        &self,
        (name, label): (&str, &str),
        help: &str,
        states: impl IntoIterator<Item = &'a str>,
        is: Option<&str>,
    ) -> prometheus::Result<()> {
        let is_it = |state| f64::from(u8::from(is == Some(state)));
        self.family(name, help, label, states.into_iter().map(|state| (state, is_it(state))))
    }

    fn ourselves(&self, seen: &Seen, is_alive: bool) -> prometheus::Result<()> {
        let version = [(env!("CARGO_PKG_VERSION"), 1.0)];
        self.family("build_info", "1, for the version that runs.", "version", version)?;
        self.flag("healthy", "1 if every loop of the daemon turns.", is_alive)?;
        let is_known = matches!(seen.last, Some((Ok(_), _)));
        self.flag(
            "status_known",
            "1 if the last look at the database with the ledger succeeded. Otherwise what follows from it is absent.",
            is_known,
        )?;
        let looked_at = seen.last.as_ref().map(|(_, at)| unix(*at));
        self.gauge("status_timestamp_seconds", "When the daemon looked last.", looked_at)
    }

    fn status(&self, status: &Status) -> prometheus::Result<()> {
        self.states(status)?;
        self.progress(status)?;
        if let Some(slot) = &status.slot {
            self.slot(slot)?;
        }
        if let Some(copy) = &status.copy {
            self.copy(copy)?;
        }
        if let Some(verify) = &status.last_verify {
            self.verify(verify)?;
        }
        self.switch(status.switch.as_ref().filter(|switch| switch.outcome.is_none()))?;
        if let Some(old) = &status.old_side {
            self.old_side(old)?;
        }
        let open = |severity| {
            let is_open = |i: &&crate::ledger::Incident| i.resolved_at.is_none() && i.severity == severity;
            float(status.incidents.iter().filter(is_open).count())
        };
        self.family(
            "incidents_open",
            "Incidents that are not over, the latest 20 of them.",
            "severity",
            ["blocked", "failing", "retrying", "warning"].map(|severity| (severity, open(severity))),
        )?;
        let repairs = float(status.repairs.len());
        self.gauge("repairs_open", "Repairs that were asked for and are not over.", Some(repairs))
    }

    fn states(&self, status: &Status) -> prometheus::Result<()> {
        let verdicts = Verdict::ALL.map(Verdict::as_str);
        let verdict = Some(status.verdict.as_str());
        self.state(
            ("verdict", "verdict"),
            "How it is, in a word, as cdc status says it.",
            verdicts,
            verdict,
        )?;
        let phase = status.phase.map(Phase::as_str);
        self.state(("phase", "phase"), "How far the migration is.", Phase::ALL.map(Phase::as_str), phase)?;
        let directions = [Direction::Forward, Direction::Reverse].map(Direction::as_str);
        let direction = Some(status.direction.as_str());
        self.state(("direction", "direction"), "Which way the rows go.", directions, direction)?;
        let states = DaemonState::ALL.map(DaemonState::as_str);
        let state = status.daemon.state.as_deref();
        self.state(("daemon_state", "state"), "What the daemon said last.", states, state)?;
        let is_running = status.daemon.is_running;
        self.flag(
            "daemon_running",
            "1 if a daemon holds the migration's lock, here or elsewhere.",
            is_running,
        )?;
        self.flag("source_up", "1 if the database that is read from answers.", status.source_error.is_none())
    }

    fn progress(&self, status: &Status) -> prometheus::Result<()> {
        let lag = status.lag;
        self.gauge(
            "lag_bytes",
            "Bytes of the source's log that are not applied durably.",
            lag.map(|lag| wide(lag.bytes)),
        )?;
        self.gauge(
            "lag_seconds",
            "Seconds since the time before which everything committed is applied.",
            lag.and_then(|lag| lag.seconds),
        )?;
        if let Some(checkpoint) = &status.checkpoint {
            let (rows, transactions) = (checkpoint.changes, checkpoint.transactions);
            self.counter("rows_applied_total", "Row changes applied.", signed(rows))?;
            self.counter("transactions_applied_total", "Source transactions applied.", signed(transactions))?;
        }
        let skipped = signed(status.skipped.transactions);
        self.counter("transactions_skipped_total", "Transactions that the operator had skipped.", skipped)?;
        if let Some(written) = &status.written {
            self.counter(
                "source_rows_written_total",
                "Rows written in the source's database, of whatever tables.",
                signed(written.rows),
            )?;
            self.counter(
                "source_wal_bytes_total",
                "Where the source's log ends.",
                wide(written.lsn.bytes_since(crate::lsn::Lsn::ZERO)),
            )?;
        }
        Ok(())
    }

    fn slot(&self, slot: &SlotStatus) -> prometheus::Result<()> {
        self.flag("slot_active", "1 if something reads from the replication slot.", slot.is_active)?;
        self.state(
            ("slot_wal_status", "status"),
            "What the source says of the WAL that the slot needs.",
            ["reserved", "extended", "unreserved", "lost"],
            slot.wal_status.as_deref(),
        )?;
        let retained = Some(wide(slot.retained_bytes));
        self.gauge("slot_retained_bytes", "WAL that the source keeps for the slot.", retained)?;
        self.gauge(
            "slot_safe_wal_size_bytes",
            "WAL that can still be written before the slot may be lost. Absent if there is no limit.",
            slot.safe_wal_size_bytes.map(signed),
        )
    }

    fn copy(&self, copy: &CopyProgress) -> prometheus::Result<()> {
        let done = |of: i64| Some(signed(of));
        self.gauge("copy_tables", "Tables that are replicated.", done(copy.tables))?;
        self.gauge("copy_tables_done", "Those of them whose rows are all there.", done(copy.tables_done))?;
        self.gauge("copy_rows", "Rows copied.", done(copy.rows))?;
        self.gauge("copy_rows_planned", "Rows to copy, by the source's estimate.", done(copy.rows_planned))?;
        self.gauge("copy_done_ratio", "What part of the copy is done, 0 to 1.", Some(copy.fraction))?;
        self.gauge("copy_eta_seconds", "How long the copy takes if it goes on like this.", copy.eta_seconds)?;
        let is_consistent = copy.consistent_since.is_some();
        self.flag("consistent", "1 if the target is a state that the source once had.", is_consistent)
    }

    fn verify(&self, verify: &Verification) -> prometheus::Result<()> {
        self.state(
            ("last_verify_outcome", "outcome"),
            "What the last verification has found.",
            ["same", "different", "not_compared"],
            Some(&verify.outcome),
        )?;
        let ended_at = parsed(&verify.finished_at);
        self.gauge("last_verify_timestamp_seconds", "When the last verification ended.", ended_at)?;
        let rows = Some(signed(verify.rows));
        self.gauge("last_verify_rows", "Rows that it compared.", rows)?;
        let differences = Some(signed(verify.differences));
        self.gauge("last_verify_differences", "Differences that it found, at least.", differences)
    }

    fn switch(&self, switch: Option<&Switch>) -> prometheus::Result<()> {
        self.flag(
            "switch_open",
            "1 while a cutover or rollback is under way, or was left.",
            switch.is_some(),
        )?;
        let Some(switch) = switch else { return Ok(()) };
        let help = "1, for the step of the cutover or rollback that was begun last.";
        let family = GaugeVec::new(Opts::new("switch_step", help), &["way", "step"])?;
        family.with_label_values(&[&switch.way, &switch.step]).set(1.0);
        self.0.register(Box::new(family))
    }

    fn old_side(&self, old: &OldSide) -> prometheus::Result<()> {
        let sessions: i64 = old.users.iter().map(|user| user.sessions).sum();
        let help = "Sessions of others on the database that the applications have left.";
        self.gauge("old_side_sessions", help, Some(signed(sessions)))?;
        let quiet = old.quiet_days.map(|days| days * 86_400.0);
        self.gauge("old_side_quiet_seconds", "For how long nobody was there.", quiet)
    }
}

/// A time of the ledger's (RFC 3339, UTC) in seconds since 1970.
fn parsed(time: &str) -> Option<f64> {
    let utc = time.strip_suffix("+00:00").map_or(time.to_owned(), |time| format!("{time}Z"));
    humantime::parse_rfc3339(&utc).ok().map(unix)
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "a metric has 53 bits")]
fn signed(number: i64) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss, reason = "a metric has 53 bits")]
fn wide(number: u64) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss, reason = "a metric has 53 bits")]
fn float(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Side};

    #[test]
    fn what_is_not_known_is_absent() {
        let mut seen = Seen::default();
        let text = exposition("a", &seen, true).unwrap();
        for line in ["cdc_healthy{migration=\"a\"} 1", "cdc_status_known{migration=\"a\"} 0"] {
            assert!(text.lines().any(|said| said == line), "{line}:\n{text}");
        }
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert!(!text.contains("cdc_lag") && !text.contains("cdc_status_timestamp_seconds"), "{text}");
        let fault = Fault::unreachable(Side::Target, "nobody answers");
        seen.last = Some((Err(fault), UNIX_EPOCH + std::time::Duration::from_secs(5)));
        let text = exposition("a", &seen, false).unwrap();
        for line in [
            "cdc_healthy{migration=\"a\"} 0",
            "cdc_status_known{migration=\"a\"} 0",
            "cdc_status_timestamp_seconds{migration=\"a\"} 5",
        ] {
            assert!(text.lines().any(|said| said == line), "{line}:\n{text}");
        }
    }

    #[test]
    fn the_ledgers_times_are_utc() {
        assert_eq!(parsed("1970-01-01T00:01:00.5+00:00"), Some(60.5));
        assert_eq!(parsed("1970-01-01T00:01:00Z"), Some(60.0));
        assert_eq!(parsed("1970-01-01T00:01:00+02:00"), None);
    }
}
