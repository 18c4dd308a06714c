//! A way to somebody: a queue, and a task that delivers what is in it, one message after the other.
//!
//! Nobody waits for it. What doesn't fit into the queue, or can't be delivered for long, is in the log instead.

use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::message::Message;
use super::webhook;
use crate::config::{NotifyConfig, Webhook};
use crate::hook::Hook;
use crate::limits;
use crate::retry::Delays;
use crate::shutdown::Shutdown;

/// How often a command is tried that fails.
const COMMAND_ATTEMPTS: u32 = 3;

/// Whom messages are given.
#[derive(Clone, Debug)]
pub enum Receiving {
    /// A webhook.
    Webhook(Webhook),
    /// A command for a shell.
    Command(String),
}

/// Why a message could not be delivered.
#[derive(Debug)]
pub(super) struct Untold {
    pub(super) why: String,
    /// It may be another time.
    pub(super) passes: bool,
    /// Not before that.
    pub(super) after: Option<Duration>,
}

impl Untold {
    pub(super) fn for_now(why: impl Into<String>) -> Self {
        Self { why: why.into(), passes: true, after: None }
    }

    pub(super) fn for_good(why: impl Into<String>) -> Self {
        Self { why: why.into(), passes: false, after: None }
    }
}

impl Receiving {
    /// All of them that the configuration names.
    #[must_use]
    pub fn all(config: &NotifyConfig) -> Vec<Self> {
        let webhook = config.webhook.clone().map(Self::Webhook);
        webhook.into_iter().chain(config.command.clone().map(Self::Command)).collect()
    }

    /// What may be shown of it.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Webhook(webhook) => format!("the webhook {}", webhook.shown()),
            Self::Command(_) => "the command".to_owned(),
        }
    }

    /// Delivers a message, in one attempt.
    ///
    /// # Errors
    /// With why it could not be delivered.
    pub async fn give(&self, message: &Message) -> Result<(), String> {
        self.attempt(message).await.map_err(|untold| untold.why)
    }

    async fn attempt(&self, message: &Message) -> Result<(), Untold> {
        let deadline = limits::NOTIFY_DEADLINE;
        match self {
            Self::Webhook(webhook) => {
                let late = || Untold::for_now(format!("it has not answered within {} s", deadline.as_secs()));
                timeout(deadline, webhook::send(webhook, message)).await.unwrap_or_else(|_| Err(late()))
            }
            Self::Command(command) => {
                let hook = Hook { name: "notify", key: "[notify] command", command, deadline };
                let object =
                    serde_json::to_vec(message).map_err(|error| Untold::for_good(error.to_string()))?;
                hook.run(&message.variables(), &object).await.map_err(|fault| Untold::for_now(fault.what()))
            }
        }
    }

    fn attempts(&self) -> u32 {
        match self {
            Self::Webhook(_) => u32::MAX,
            Self::Command(_) => COMMAND_ATTEMPTS,
        }
    }
}

/// The way to one of them.
pub(super) struct Channel {
    shown: String,
    queue: Sender<(Message, Instant)>,
}

impl Channel {
    /// Opens it; its task ends when nobody can send any more, or soon after the request to stop.
    pub(super) fn open(receiving: Receiving, stop: Shutdown) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(limits::NOTIFY_QUEUE);
        let shown = receiving.shown();
        (Self { shown, queue }, tokio::spawn(deliver(receiving, waiting, stop)))
    }

    /// Hands a message over, without waiting.
    pub(super) fn send(&self, message: &Message) {
        if self.queue.try_send((message.clone(), Instant::now())).is_err() {
            not_told(&self.shown, message, "too many messages wait for it");
        }
    }
}

fn not_told(shown: &str, message: &Message, why: &str) {
    tracing::warn!(event = message.event, "{shown} could not be told: {}; {why}", message.line());
}

async fn deliver(receiving: Receiving, mut waiting: Receiver<(Message, Instant)>, mut stop: Shutdown) {
    let shown = receiving.shown();
    // From the request to stop on there is a little time left for everything that waits.
    let mut farewell = None;
    while let Some((message, since)) = waiting.recv().await {
        let delivered = tokio::select! {
            biased;
            delivered = tell(&receiving, &message, since, stop.clone()) => delivered,
            () = leave(&mut stop, &mut farewell) => Err("the daemon ends".to_owned()),
        };
        if let Err(why) = delivered {
            not_told(&shown, &message, &why);
        }
    }
}

/// Returns when there is no more time.
async fn leave(stop: &mut Shutdown, farewell: &mut Option<Instant>) {
    stop.requested().await;
    sleep_until(*farewell.get_or_insert_with(|| Instant::now() + limits::NOTIFY_FAREWELL)).await;
}

/// Tries until it is told, or there is no more use in trying.
async fn tell(
    receiving: &Receiving,
    message: &Message,
    since: Instant,
    mut stop: Shutdown,
) -> Result<(), String> {
    let mut delays = Delays::default();
    for attempt in 1.. {
        let is_last = stop.is_requested() || attempt >= receiving.attempts();
        let Err(untold) = receiving.attempt(message).await else { return Ok(()) };
        let pause = delays.next_delay().max(untold.after.unwrap_or_default());
        if is_last || !untold.passes || since.elapsed() + pause > limits::NOTIFY_PATIENCE {
            return Err(untold.why);
        }
        match attempt {
            1 => tracing::warn!("{} can't be told, trying again: {}", receiving.shown(), untold.why),
            _ => tracing::debug!("{} can't be told: {}", receiving.shown(), untold.why),
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.requested() => {}
        }
    }
    Ok(())
}
