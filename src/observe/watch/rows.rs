//! What the lines say, and which of them there is room for.

use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use indicatif::{HumanCount, HumanDuration, HumanFloatCount};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::View;
use crate::config::Direction;
use crate::ledger::{CopyProgress, Incident, Switch, TableState};
use crate::observe::copy::{count, percent};
use crate::observe::history::Point;
use crate::observe::lag::Verdict;
use crate::observe::status::{SlotStatus, Status};

/// Where what belongs to a label begins.
pub(super) const INDENT: usize = 12;

/// The fewest lines for tables of the copy.
const TABLES_LEAST: usize = 2;

/// What fills a chart at the least: a lag of so many milliseconds, or so many rows a second.
const FULL_LEAST: u64 = 1000;

/// From how many lines on one of them says that there is more.
const ROOM_TO_SAY_SO: usize = 8;

/// From this height on a chart takes three lines.
const TALL: usize = 36;

/// A line, or a few of a chart.
#[derive(Debug)]
pub(super) enum Row {
    Text(Line<'static>),
    /// A value, and how it was of late, oldest first.
    Chart {
        label: &'static str,
        value: String,
        points: Vec<Option<u64>>,
        /// What fills it at the least, so that what is next to nothing looks like it.
        full: u64,
        height: u16,
    },
    /// How much of something is there.
    Gauge {
        label: String,
        fraction: f64,
        text: String,
        color: Color,
    },
}

const ALARM: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

impl Row {
    fn text(spans: Vec<Span<'static>>) -> Self {
        Self::Text(Line::from(spans))
    }

    fn styled(text: impl Into<String>, style: Style) -> Self {
        Self::Text(Line::styled(text.into(), style))
    }

    fn labelled(label: &str, text: impl Into<String>) -> Self {
        Self::labelled_in(label, text, Style::new())
    }

    fn labelled_in(label: &str, text: impl Into<String>, style: Style) -> Self {
        Self::text(vec![Span::styled(format!("{label:<INDENT$}"), DIM), Span::styled(text.into(), style)])
    }

    pub(super) fn height(&self) -> usize {
        match self {
            Self::Chart { height, .. } => usize::from(*height),
            Self::Text(_) | Self::Gauge { .. } => 1,
        }
    }
}

/// The lines for a terminal of this size. The last one is for its bottom.
pub(super) fn rows(view: &View, now: SystemTime, width: usize, height: usize) -> Vec<Row> {
    let mut rows = head(view, now, width);
    let Some((status, _)) = &view.known else {
        rows.push(foot(view, None));
        return rows;
    };
    rows.extend(charts(view, status, if height >= TALL { 3 } else { 1 }));
    rows.extend(status.slot.as_ref().map(|slot| budget(slot, view.history.slot_lost_in())));
    let mut last = switch(status, &view.steps, width);
    last.extend(verified(status));
    let incidents = incidents(status, width);
    let used: usize = rows.iter().map(Row::height).sum::<usize>() + last.len() + incidents.len() + 1;
    // In reverse there was nothing to copy.
    if let Some(copy) = status.copy.as_ref().filter(|_| status.direction == Direction::Forward) {
        rows.extend(copied(copy, height.saturating_sub(used + 1).max(TABLES_LEAST)));
    }
    rows.extend(last);
    rows.extend(incidents);
    cut(&mut rows, height.saturating_sub(1));
    rows.push(foot(view, Some(status)));
    rows
}

/// Leaves out at the end what there is no room for, and says so.
fn cut(rows: &mut Vec<Row>, mut room: usize) {
    let fits = |row: &Row| room.checked_sub(row.height()).map(|left| room = left);
    let count = rows.iter().map_while(fits).count();
    if count == rows.len() {
        return;
    }
    rows.truncate(count);
    // On a terminal that has hardly room for anything, how it is matters more.
    if count > ROOM_TO_SAY_SO {
        rows.pop();
        rows.push(Row::styled(format!("{:INDENT$}and more: cdc status --incidents", ""), DIM));
    }
}

fn color(verdict: Verdict) -> Color {
    match verdict {
        Verdict::Streaming | Verdict::Done => Color::Green,
        Verdict::Copying => Color::Cyan,
        Verdict::Behind => Color::Yellow,
        Verdict::Blocked | Verdict::Stopped | Verdict::Lost => Color::Red,
    }
}

fn ago(then: SystemTime, now: SystemTime) -> String {
    format!(
        "{} ago",
        HumanDuration(Duration::from_secs(now.duration_since(then).unwrap_or_default().as_secs()))
    )
}

/// How it is in a word, and which way the rows go.
fn head(view: &View, now: SystemTime, width: usize) -> Vec<Row> {
    let clock = humantime::format_rfc3339_seconds(now).to_string().replace('T', " ").replace('Z', " UTC");
    let mut rows = Vec::new();
    let title = |verdict: String, style: Style| {
        let left = view.name.chars().count() + 2 + verdict.chars().count();
        let gap = width.saturating_sub(left + clock.len()).max(1);
        Row::text(vec![
            Span::styled(format!("{}: ", view.name), BOLD),
            Span::styled(verdict, style),
            Span::raw(" ".repeat(gap)),
            Span::styled(clock.clone(), DIM),
        ])
    };
    match (&view.error, &view.known) {
        (None, None) => return vec![title("looking at both databases".to_owned(), DIM)],
        (Some(fault), known) => {
            rows.push(title("nothing is known, the target can't be asked".to_owned(), ALARM));
            rows.extend(wrapped("", &fault.to_string(), ALARM, width));
            rows.extend(
                known
                    .as_ref()
                    .map(|(_, at)| Row::styled(format!("this is how it was {}:", ago(*at, now)), DIM)),
            );
        }
        (None, Some((status, _))) => {
            let (text, color) = match open_switch(status) {
                Some(switch) => (format!("a {} is under way", switch.way), Color::Yellow),
                None => (status.verdict.to_string(), color(status.verdict)),
            };
            rows.push(title(text, Style::new().fg(color).add_modifier(Modifier::BOLD)));
        }
    }
    if let Some((status, _)) = &view.known {
        rows.extend(course(status, width));
    }
    rows
}

fn course(status: &Status, width: usize) -> Vec<Row> {
    let phase = status.phase.map_or("not begun", |phase| phase.as_str());
    let way = match status.direction {
        Direction::Forward => "forward",
        Direction::Reverse => "what is written on the new side goes back to the old one",
    };
    let daemon = &status.daemon;
    let state = daemon.state.as_deref().unwrap_or("has never run");
    let running = match (daemon.is_running, &daemon.state) {
        (true, _) => format!(
            "{state}, pid {} on {}",
            daemon.pid.unwrap_or_default(),
            daemon.host.as_deref().unwrap_or("?")
        ),
        (false, None) => state.to_owned(),
        (false, Some(_)) => format!("not running, was last: {state}"),
    };
    let style = if daemon.is_running { Style::new() } else { ALARM };
    let mut rows = vec![
        Row::labelled("phase", format!("{phase}, {way}")),
        Row::labelled("from", &status.source),
        Row::labelled("to", &status.target),
        Row::labelled_in("daemon", running, style),
    ];
    rows.extend(wrapped("now", &doing(status), Style::new(), width).into_iter().take(3));
    if let Some(error) = &status.source_error {
        rows.extend(wrapped("source", &format!("can't be asked: {error}"), ALARM, width));
    }
    rows
}

/// The switch that is under way.
fn open_switch(status: &Status) -> Option<&Switch> {
    status.switch.as_ref().filter(|switch| switch.outcome.is_none())
}

/// What the daemon does.
fn doing(status: &Status) -> String {
    let is_told = |detail: &&String| {
        !status.incidents.iter().any(|i| i.resolved_at.is_none() && detail.contains(&i.message))
    };
    let copy = status.copy.as_ref().filter(|copy| !copy.is_complete());
    if let Some(switch) = open_switch(status) {
        format!("the step {} of the {}, which {} carries out", switch.step, switch.way, switch.holder)
    } else if let Some(detail) = status.daemon.detail.as_ref().filter(is_told) {
        detail.clone()
    } else if !status.daemon.is_running {
        "nothing: the slot holds the source's log until a daemon runs".to_owned()
    } else if matches!(status.verdict, Verdict::Blocked | Verdict::Lost) && copy.is_none() {
        "tries again every 30 s, and goes on by itself when that is mended".to_owned()
    } else if let Some(repair) = status.repairs.first() {
        format!("copies again what was asked for: {repair}")
    } else if copy.is_some() {
        "copies rows, and applies what changes meanwhile".to_owned()
    } else {
        match status.daemon.state.as_deref() {
            Some("streaming") => "applies what the source commits".to_owned(),
            Some(state) => state.to_owned(),
            None => "nothing".to_owned(),
        }
    }
}

/// The lag, and the rows in and out.
fn charts(view: &View, status: &Status, height: u16) -> Vec<Row> {
    let points = |of: fn(&Point) -> Option<f64>| {
        view.history.recent().iter().map(|point| of(point).map(whole)).collect()
    };
    let now = |of: fn(&Point) -> Option<f64>| view.history.recent().back().and_then(of);
    let rows = |value: Option<f64>| {
        value.map_or("-".to_owned(), |rows| format!("{:.0} rows/s", HumanFloatCount(rows)))
    };
    let lag = status.lag.map_or("unknown".to_owned(), |lag| {
        let seconds = lag.seconds.map_or("time unknown".to_owned(), |seconds| format!("{seconds:.1} s"));
        format!("{seconds}, {}", ByteSize(lag.bytes))
    });
    let chart = |label, value, points: Vec<Option<u64>>| {
        let full = points.iter().flatten().copied().fold(FULL_LEAST, u64::max);
        Row::Chart { label, value, points, full, height }
    };
    // Milliseconds: a sparkline takes whole numbers.
    let mut charts = vec![
        chart("lag", lag, points(|point| point.lag_seconds.map(|seconds| seconds * 1000.0))),
        chart(
            "rows in",
            rows(now(|point| point.rows_written_per_second)),
            points(|point| point.rows_written_per_second),
        ),
        chart(
            "rows out",
            rows(now(|point| point.rows_applied_per_second)),
            points(|point| point.rows_applied_per_second),
        ),
    ];
    if status.copy.as_ref().is_some_and(|copy| !copy.is_complete()) {
        let copied = |point: &Point| point.rows_copied_per_second;
        charts.push(chart("rows copied", rows(now(copied)), points(copied)));
    }
    charts
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}

/// What the slot holds of what it may.
fn budget(slot: &SlotStatus, lost_in: Option<Duration>) -> Row {
    let held = format!("holds {}", ByteSize(slot.retained_bytes));
    let Some(fraction) = slot.used_fraction else {
        return Row::labelled("slot", format!("{held}, without a limit"));
    };
    let color = match slot.used_percent() {
        None => Color::Green,
        Some(..80) => Color::Yellow,
        Some(_) => Color::Red,
    };
    let rest = match (slot.wal_status.as_deref(), slot.safe_wal_size_bytes, lost_in) {
        (Some("lost"), _, _) => "LOST".to_owned(),
        (_, None | Some(..=0), _) => "MAY BE LOST at the next checkpoint there".to_owned(),
        (_, Some(_), Some(lost_in)) => format!("lost in {} at this rate", HumanDuration(lost_in)),
        (_, Some(left), None) => format!("{} left", ByteSize(left.unsigned_abs())),
    };
    Row::Gauge {
        label: "slot".to_owned(),
        fraction,
        text: format!("{}, {held}, {rest}", percent(fraction)),
        color,
    }
}

/// The whole, and so many tables.
fn copied(copy: &CopyProgress, most: usize) -> Vec<Row> {
    if copy.is_complete() {
        let since = match &copy.consistent_since {
            Some(since) => format!("the target is consistent since {}", short(since)),
            None => "the target is not yet consistent".to_owned(),
        };
        return vec![Row::labelled("copy", format!("complete, {since}"))];
    }
    let mut rows = vec![Row::Gauge {
        label: "copy".to_owned(),
        fraction: copy.fraction,
        text: brief(copy.fraction, copy.eta_seconds, copy.rows, copy.rows_planned),
        color: Color::Cyan,
    }];
    let unfinished: Vec<_> = copy.details.iter().filter(|table| table.state != TableState::Done).collect();
    let shown = if unfinished.len() > most { most.saturating_sub(1) } else { unfinished.len() };
    for table in &unfinished[..shown] {
        let (text, color) = match table.state {
            TableState::Failed => ("failed: see its incident".to_owned(), Color::Red),
            TableState::Copying | TableState::Pending | TableState::Done => {
                (brief(table.fraction, table.eta_seconds, table.rows, table.rows_planned), Color::Cyan)
            }
        };
        rows.push(Row::Gauge { label: format!("  {}", table.table), fraction: table.fraction, text, color });
    }
    if unfinished.len() > shown {
        let more = HumanCount((unfinished.len() - shown) as u64);
        rows.push(Row::styled(format!("{:INDENT$}and {more} more tables", ""), DIM));
    }
    rows
}

/// What there is room for beside a bar.
fn brief(fraction: f64, eta_seconds: Option<f64>, rows: i64, planned: i64) -> String {
    let left = eta_seconds.filter(|_| fraction > 0.0).and_then(|left| Duration::try_from_secs_f64(left).ok());
    let left = left.map_or(String::new(), |left| format!(", {} left", HumanDuration(left)));
    let of = if planned > 0 { format!(" of {}", count(planned)) } else { String::new() };
    format!("{:>4}{left}, {}{of} rows", percent(fraction), count(rows))
}

/// The steps of the switch that is under way, or what became of the last one.
fn switch(status: &Status, steps: &[&'static str], width: usize) -> Vec<Row> {
    let Some(switch) = &status.switch else { return Vec::new() };
    match switch.outcome.as_deref() {
        None => under_way(switch, steps, width),
        Some(outcome) => {
            let pause = switch.pause_ms.map_or(String::new(), |ms| format!(", writes rested for {ms} ms"));
            let why = switch.error.as_ref().map_or(String::new(), |why| format!(": {why}"));
            let at = switch.finished_at.as_deref().map_or(String::new(), |at| format!(" {}", short(at)));
            vec![Row::labelled(&switch.way, format!("{outcome}{at}{pause}{why}"))]
        }
    }
}

fn under_way(switch: &Switch, steps: &[&'static str], width: usize) -> Vec<Row> {
    let at = steps.iter().position(|step| *step == switch.step).unwrap_or(0);
    let mut rows = Vec::new();
    let indent = " ".repeat(INDENT);
    let mut line = vec![Span::styled(format!("{:<INDENT$}", switch.way), DIM)];
    let mut used = INDENT;
    for (i, step) in steps.iter().enumerate() {
        let (mark, style) = match i.cmp(&at) {
            std::cmp::Ordering::Less => ("✓", Style::new().fg(Color::Green)),
            std::cmp::Ordering::Equal => ("▶", Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD)),
            std::cmp::Ordering::Greater => ("·", DIM),
        };
        let text = format!("{mark} {step}  ");
        let needed = text.chars().count();
        if used + needed > width && used > INDENT {
            rows.push(Row::text(std::mem::replace(&mut line, vec![Span::raw(indent.clone())])));
            used = INDENT;
        }
        used += needed;
        line.push(Span::styled(text, style));
    }
    rows.push(Row::text(line));
    if !switch.is_held {
        rows.push(Row::labelled_in(
            "",
            format!("nobody carries it out: run cdc {} again", switch.way),
            ALARM,
        ));
    }
    rows
}

fn verified(status: &Status) -> Vec<Row> {
    let mut rows = Vec::new();
    rows.push(match &status.last_verify {
        Some(last) => {
            let style = if last.outcome == "same" { Style::new() } else { ALARM };
            Row::labelled_in(
                "verified",
                last.to_string().replacen(&last.finished_at, &short(&last.finished_at), 1),
                style,
            )
        }
        None => Row::labelled_in("verified", "never (cdc verify)", DIM),
    });
    if status.skipped.transactions > 0 {
        let text =
            format!("transactions {}: the target lacks what they changed", status.skipped.transactions);
        rows.push(Row::labelled("skipped", text));
    }
    if let Some(old) = &status.old_side {
        let used =
            if old.users.is_empty() { "nobody uses it" } else { "still in use (cdc status names who)" };
        let quiet = old.quiet_days.map_or(String::new(), |days| format!(", quiet for {days:.1} days"));
        rows.push(Row::labelled("old side", format!("{}: {used}{quiet}", old.database)));
    }
    rows
}

/// Those that are open, each with what to do.
fn incidents(status: &Status, width: usize) -> Vec<Row> {
    let open: Vec<_> = status.incidents.iter().filter(|incident| incident.resolved_at.is_none()).collect();
    if open.is_empty() {
        return vec![Row::labelled_in("incidents", "none is open", DIM)];
    }
    let mut rows = Vec::new();
    let shown = i64::try_from(open.len()).unwrap_or(i64::MAX);
    for incident in open {
        rows.extend(told(incident, width));
    }
    if status.open_incidents > shown {
        rows.push(Row::labelled(
            "",
            format!("and {} more: cdc status --incidents", status.open_incidents - shown),
        ));
    }
    rows
}

fn told(incident: &Incident, width: usize) -> Vec<Row> {
    let needs_person = matches!(incident.severity.as_str(), "blocked" | "failing");
    let style = if needs_person { ALARM } else { Style::new().fg(Color::Yellow) };
    let head = format!(
        "since {}, last {}, count {}",
        short(&incident.first_at),
        short(&incident.last_at),
        incident.count
    );
    let mut rows = vec![Row::text(vec![
        Span::styled(format!("{:<INDENT$}", incident.severity), style),
        Span::styled(head, DIM),
    ])];
    let side = incident.side.as_ref().map_or(String::new(), |side| format!("{side}: "));
    rows.extend(wrapped("", &format!("{side}{}", incident.message), style, width));
    let place = incident.place();
    if !place.is_empty() {
        rows.extend(wrapped("", &place, Style::new(), width));
    }
    if let Some(remedy) = &incident.remedy {
        rows.extend(wrapped("", &format!("what to do: {remedy}"), Style::new(), width));
    }
    rows
}

/// How to leave, and since when the charts are.
fn foot(view: &View, status: Option<&Status>) -> Row {
    let began = humantime::format_rfc3339_seconds(view.began).to_string();
    let charts = match status {
        Some(_) => format!("q quits · charts since {} (this view began), a bar is 2 s", &short(&began)[11..]),
        None => "q quits".to_owned(),
    };
    Row::styled(charts, DIM)
}

/// A time without what nobody reads at a glance.
fn short(time: &str) -> String {
    time.chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// A text in lines that fit, broken between words.
fn wrapped(label: &str, text: &str, style: Style, width: usize) -> Vec<Row> {
    let room = width.saturating_sub(INDENT).max(10);
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let mut word: Vec<char> = word.chars().collect();
            if !line.is_empty() && line.chars().count() + 1 + word.len() > room {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            while word.len() > room {
                lines.push(word.drain(..room).collect());
            }
            line.extend(word);
        }
        lines.push(line);
    }
    let label = |i: usize| if i == 0 { label } else { "" };
    lines.into_iter().enumerate().map(|(i, line)| Row::labelled_in(label(i), line, style)).collect()
}
