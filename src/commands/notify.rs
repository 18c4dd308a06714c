//! `cdc notify`.

use std::fmt::Write as _;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use super::{Exit, json, log, print};
use crate::cli::{LogFormat, Notify as Arguments};
use crate::config::Config;
use crate::fault::{Fault, Result};
use crate::notify::{Level, Message, Receiving};
use crate::observe::Screen;

/// What became of a test message.
#[derive(Serialize)]
struct Told {
    /// Who was told, as far as that may be shown.
    receiver: String,
    /// Why it could not be told; null if it was.
    error: Option<String>,
    seconds: f64,
}

/// Sends everybody whom the configuration names a test message, and says whether it arrived.
pub(super) async fn run(config: &Config, arguments: &Arguments) -> Result<Exit> {
    if !config.notify.tells() {
        return Err(Fault::usage("there is nobody to tell: [notify] has neither a webhook nor a command")
            .remedy(
                "set webhook = \"https://...\" or command = \"...\" under [notify] in the configuration",
            ));
    }
    // A command may say something.
    log::start(LogFormat::Text, &Screen::new(false))?;
    let text = "a test: messages about this migration arrive here".to_owned();
    let message = Message::new(&config.name, SystemTime::now(), "test", Level::Info, text);
    let mut all = Vec::new();
    for receiving in Receiving::all(&config.notify) {
        let began = Instant::now();
        let error = receiving.give(&message).await.err();
        all.push(Told { receiver: receiving.shown(), error, seconds: began.elapsed().as_secs_f64() });
    }
    print(&if arguments.json { json(&all)? } else { said(&all) })?;
    Ok(if all.iter().all(|told| told.error.is_none()) { Exit::Yes } else { Exit::No })
}

fn said(all: &[Told]) -> String {
    let mut text = String::new();
    for told in all {
        let outcome = match &told.error {
            None => "told".to_owned(),
            Some(error) => format!("NOT told: {error}"),
        };
        let _ = writeln!(text, "{}: {outcome} ({:.1} s)", told.receiver, told.seconds);
    }
    text
}
