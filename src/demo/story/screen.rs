//! What is shown: bars and a live line on a terminal, plain lines everywhere else.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use console::{Term, style};
use indicatif::{HumanCount, HumanFloatCount, ProgressDrawTarget};

use super::live::Live;
use crate::ledger::Phase;
use crate::observe::Status;

/// How often a line says how it goes where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// Where the story is told. What can't be written is let go: the story must clean up all the same.
pub struct Screen {
    began: Instant,
    /// Only on a terminal.
    live: Option<Live>,
    /// When a line said how it goes; only without a terminal.
    said: Instant,
}

impl Screen {
    /// Standard output, whatever it is.
    #[must_use]
    pub fn stdout() -> Self {
        let is_terminal = std::io::stdout().is_terminal() && !console::is_dumb();
        let live = || Live::new(ProgressDrawTarget::stdout(), Term::stdout().size().1);
        let now = Instant::now();
        Self { began: now, live: is_terminal.then(live), said: now }
    }

    /// The first line.
    pub(super) fn title(&self, text: &str) {
        self.line(&self.styled(text, |text| style(text).bold()));
        self.gap();
    }

    /// An empty line.
    pub(super) fn gap(&self) {
        self.line("");
    }

    /// Something has happened.
    pub(super) fn step(&mut self, text: &str) {
        self.clear();
        self.line(&format!("{}  {text}", self.clock()));
    }

    /// More about it.
    pub(super) fn detail(&self, text: &str) {
        self.line(&format!("{:11}{}", "", self.styled(text, |text| style(text).dim())));
    }

    /// Something bad has happened.
    pub(super) fn bad(&mut self, text: &str) {
        self.clear();
        self.line(&format!("{}  {}", self.clock(), self.styled(text, |text| style(text).red())));
    }

    /// A line of the summary.
    pub(super) fn fact(&self, name: &str, text: &str) {
        let name = self.styled(&format!("{name:>9}"), |name| style(name).bold());
        self.line(&format!("{name}  {text}"));
    }

    /// The good end.
    pub(super) fn good(&self, word: &str, text: &str) {
        let word = self.styled(&format!("{word:>9}"), |word| style(word).green().bold());
        self.line(&format!("{word}  {text}"));
    }

    /// Something is being done that takes a moment.
    pub(super) fn busy(&mut self, text: &str) {
        match &mut self.live {
            Some(live) => live.busy(text),
            None => self.line(&format!("{}  {text}", self.clock())),
        }
    }

    /// How the migration goes.
    pub(super) fn show(&mut self, status: &Status) {
        match &mut self.live {
            Some(live) => live.show(status),
            None if self.said.elapsed() >= LINE_EVERY => {
                self.said = Instant::now();
                self.line(&format!("{}  {}", self.clock(), how_it_goes(status)));
            }
            None => {}
        }
    }

    /// Takes away what is only shown for the moment.
    pub(super) fn clear(&mut self) {
        self.said = Instant::now();
        if let Some(live) = &mut self.live {
            live.clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.live {
            Some(live) => live.line(text),
            None => {
                let _ = writeln!(std::io::stdout(), "{text}");
            }
        }
    }

    /// The time since the beginning.
    fn clock(&self) -> String {
        let clock = format!("{:7.1} s", self.began.elapsed().as_secs_f64());
        self.styled(&clock, |clock| style(clock).dim())
    }

    /// Styled on a terminal only; the style itself looks at `NO_COLOR`.
    fn styled<'a>(&self, text: &'a str, how: impl Fn(&'a str) -> console::StyledObject<&'a str>) -> String {
        if self.live.is_some() { how(text).to_string() } else { text.to_owned() }
    }
}

/// One line about a moment.
pub(super) fn how_it_goes(status: &Status) -> String {
    let mut parts = Vec::new();
    match (&status.copy, status.daemon.is_running) {
        (_, false) => parts.push("no daemon".to_owned()),
        (Some(copy), true) if status.phase == Some(Phase::Copy) => {
            parts.push(match copy.consistent_since {
                None => format!("copying: {} rows", count(copy.rows.unsigned_abs())),
                Some(_) => format!("putting back constraints: {} left", copy.held_back),
            });
            parts.push(format!("{:.0} rows/s", HumanFloatCount(copy.rows_per_second)));
        }
        _ if status.phase == Some(Phase::Stream) => {
            parts.push("following".to_owned());
            let changes = status.checkpoint.as_ref().map(|checkpoint| checkpoint.changes.unsigned_abs());
            parts.extend(changes.map(|changes| format!("{} changes applied", count(changes))));
        }
        _ => parts.push("starting".to_owned()),
    }
    parts.extend(status.lag.and_then(|lag| lag.seconds).map(|lag| format!("lag {lag:.1} s")));
    parts.extend(status.slot.as_ref().map(|slot| format!("WAL held {}", size(slot.retained_bytes))));
    parts.join(" · ")
}

/// `12,345 rows/s`.
pub(super) fn per_second(rows: u64, time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    format!("{} rows/s", count(rows.saturating_mul(1_000) / millis))
}

/// `1,234,567`.
pub(super) fn count(number: impl Into<u64>) -> String {
    HumanCount(number.into()).to_string()
}

/// `12.3 MiB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}
