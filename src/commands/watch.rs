//! `cdc status --watch`: a view on a terminal, and lines anywhere else.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until};

use super::status::exit;
use super::{Exit, write};
use crate::cli::Status as Arguments;
use crate::config::Config;
use crate::cutover::Step;
use crate::fault::{Fault, Result};
use crate::observe::{Limits, Looker, Status, View};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often a line says how it is while nothing changes.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How often the view is drawn anew while nothing is seen: it has a clock.
const CLOCK: Duration = Duration::from_secs(1);

/// How many incidents the view may show.
const INCIDENTS: i64 = 20;

/// How long the terminal is asked for keys at a time.
const KEYS: Duration = Duration::from_millis(100);

/// Looks again and again, until it is asked to end or nobody reads it. The exit status is that of the last look.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<Exit> {
    let limits = Limits { bytes: arguments.max_lag_bytes, seconds: arguments.max_lag_seconds };
    let looker = Looker::new(config.clone(), limits, INCIDENTS);
    let has_view = !arguments.json && std::io::stdout().is_terminal() && !console::is_dumb();
    let mut signals = Signals::new()?;
    // Before the first look nothing is known.
    let mut last = Exit::Unreachable;
    tokio::select! {
        ended = async {
            match has_view {
                true => view(config, looker, &mut last).await,
                false => lines(config, looker, arguments.json, &mut last).await,
            }
        } => ended?,
        () = signals.any() => {}
    }
    Ok(last)
}

/// What ends it from without.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> Result<Self> {
        let handler = |kind| signal(kind).map_err(|e| Fault::bug(format!("signals can't be handled: {e}")));
        Ok(Self([
            handler(SignalKind::interrupt())?,
            handler(SignalKind::terminate())?,
            handler(SignalKind::hangup())?,
        ]))
    }

    async fn any(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
    }
}

/// A line whenever something has changed, and now and then; as JSON an object for each look.
async fn lines(config: &Config, mut looker: Looker, is_json: bool, last: &mut Exit) -> Result<()> {
    let mut said: Option<(String, Instant)> = None;
    loop {
        let next = Instant::now() + INTERVAL;
        let looked = looker.look().await;
        *last = looked.as_ref().map_or_else(Exit::from, exit);
        let state = state(&looked);
        let is_due = said.as_ref().is_none_or(|(before, at)| *before != state || at.elapsed() >= LINE_EVERY);
        if is_json || is_due {
            let line = if is_json { object(config, &looked)? } else { line(config, &looked) };
            if !write(&format!("{line}\n"))? {
                return Ok(());
            }
            said = Some((state, Instant::now()));
        }
        sleep_until(next).await;
    }
}

/// What of a look is worth a line when it has changed.
fn state(looked: &Result<Status>) -> String {
    match looked {
        Ok(status) => {
            let incident = status.incidents.first().filter(|i| i.resolved_at.is_none()).map(|i| i.id);
            let switch = status.switch.as_ref().map(|switch| (&switch.step, &switch.outcome));
            let daemon = (&status.daemon.state, status.daemon.is_running, status.source_error.is_some());
            format!("{:?}", (status.verdict, status.phase, status.direction, daemon, incident, switch))
        }
        Err(fault) => fault.to_string(),
    }
}

/// The JSON object of a look; of one that failed, `{"name": ..., "error": ...}`.
fn object(config: &Config, looked: &Result<Status>) -> Result<String> {
    match looked {
        Ok(status) => serde_json::to_string(status).map_err(|e| Fault::bug(e.to_string())),
        Err(fault) => Ok(json!({"name": config.name, "error": fault.to_string()}).to_string()),
    }
}

fn line(config: &Config, looked: &Result<Status>) -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    match looked {
        Ok(status) => format!("{now}  {}: {}", status.name, status.summary().replace('\n', " ")),
        Err(fault) => {
            let why = fault.to_string().replace('\n', " ");
            format!("{now}  {}: nothing is known, the target can't be asked: {why}", config.name)
        }
    }
}

/// The terminal, as it was when this is dropped.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self> {
        ratatui::try_init().map(Self).map_err(|e| no_terminal(&e))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing more can be done for it.
        let _ = ratatui::try_restore();
    }
}

fn no_terminal(error: &std::io::Error) -> Fault {
    Fault::person(format!("the terminal can't be used: {error}"))
        .remedy("run it without a terminal for lines: cdc status --watch | cat")
}

/// Draws what is seen, until somebody leaves.
async fn view(config: &Config, looker: Looker, last: &mut Exit) -> Result<()> {
    let mut screen = Screen::open()?;
    let mut keys = keys();
    let (looks, mut looked) = mpsc::channel(1);
    let looking = tokio::spawn(look(looker, looks));
    let mut view = View::new(&config.name, Step::ALL.map(Step::as_str).to_vec(), SystemTime::now());
    let mut clock = interval(CLOCK);
    loop {
        screen.0.draw(|frame| view.draw(frame, SystemTime::now())).map_err(|e| no_terminal(&e))?;
        tokio::select! {
            Some(looked) = looked.recv() => {
                *last = looked.as_ref().map_or_else(Exit::from, exit);
                view.note(looked, SystemTime::now());
            }
            key = keys.recv() => match key {
                // Drawn anew: it has another size, for one.
                Some(event) if !leaves(&event) => {}
                Some(_) | None => break,
            },
            _ = clock.tick() => {}
        }
    }
    looking.abort();
    Ok(())
}

/// Looks for as long as somebody wants to know.
async fn look(mut looker: Looker, looks: mpsc::Sender<Result<Status>>) {
    loop {
        let next = Instant::now() + INTERVAL;
        if looks.send(looker.look().await).await.is_err() {
            return;
        }
        sleep_until(next).await;
    }
}

/// What is typed, and that the size has changed. Reading it blocks, so a thread does.
fn keys() -> mpsc::Receiver<Event> {
    let (typed, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !typed.is_closed() {
            let event = event::poll(KEYS).and_then(|is_there| is_there.then(event::read).transpose());
            let Ok(event) = event else { return };
            if event.is_some_and(|event| typed.blocking_send(event).is_err()) {
                return;
            }
        }
    });
    keys
}

fn leaves(event: &Event) -> bool {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return false };
    match code {
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => true,
        KeyCode::Char('c' | 'd') => modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}
