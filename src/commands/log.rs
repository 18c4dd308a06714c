//! The daemon's log, on standard error: for people, for programs, or for the journal.

use std::fmt;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::LogFormat;
use crate::fault::{Fault, Result};
use crate::observe::Screen;

/// Starts it.
pub(super) fn start(format: LogFormat, screen: &Screen) -> Result<()> {
    start_quietly(format, screen, false)
}

/// The same; with `is_quiet` only warnings are told, unless `CDC_LOG` says otherwise.
pub(super) fn start_quietly(format: LogFormat, screen: &Screen, is_quiet: bool) -> Result<()> {
    let usual = if is_quiet { "warn" } else { "info" };
    let filter = EnvFilter::try_from_env("CDC_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(screen.clone())
        // Whoever has closed the other end must not end the daemon: telling of it would panic.
        .log_internal_errors(false)
        .with_target(false);
    let started = match format {
        LogFormat::Text if is_journal() => log.with_ansi(false).event_format(Journal::new()).try_init(),
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| Fault::bug(format!("the log can't be started: {e}")))
}

/// True if standard error is the stream to the journal that systemd has opened (`systemd.exec(5)`,
/// `$JOURNAL_STREAM`), and not one that was put in its place.
fn is_journal() -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    let metadata = stderr.and_then(|stderr| File::from(stderr).metadata());
    metadata.is_ok_and(|file| journal == format!("{}:{}", file.dev(), file.ino()))
}

/// Lines as the journal wants them (`sd-daemon(3)`): it has a clock of its own, and keeps the priority
/// that each begins with. So `journalctl -p warning` shows warnings and errors, the lines of advice
/// included.
struct Journal(Format<Full, ()>);

impl Journal {
    fn new() -> Self {
        Self(Format::default().without_time().with_level(false).with_target(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        text.lines().try_for_each(|line| writeln!(writer, "<{priority}>{}", line.trim_end()))
    }
}
