//! Messages: the daemon tells somebody what has happened, each thing once.
//!
//! ```text
//! looks at both ends ─► News: what is new? ─► queue ─► webhook
//!                          │      ▲      └──► queue ─► command
//!                          ▼      │
//!                    cdc.told: what was told
//! ```
//!
//! [`News`] compares what is seen with what was told, which the ledger keeps. A trouble is told when it comes and when it
//! is over; what comes and goes is summed up. Each receiver has a queue and a task of its own, with deadlines, so that one
//! that hangs delays nobody: neither the other one, nor whoever replicates.

mod alarm;
mod channel;
mod message;
mod news;
mod progress;
mod webhook;

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub use channel::Receiving;
pub use message::{Level, Message};

use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Result};
use crate::ledger::Ledger;
use crate::limits;
use crate::observe::Seen;
use crate::shutdown::{Shutdown, Trigger, shutdown};
use channel::Channel;
use news::{Look, News};

/// Tells whoever wants to know.
pub struct Notifier {
    name: String,
    channels: Arc<Vec<Channel>>,
    deliveries: Vec<JoinHandle<()>>,
    teller: JoinHandle<()>,
    stop: Trigger,
}

impl Notifier {
    /// Begins to tell what is seen.
    #[must_use]
    pub fn start(config: &Config, seen: watch::Receiver<Seen>) -> Self {
        let (stop, stopped) = shutdown();
        let open = |receiving| Channel::open(receiving, Shutdown::clone(&stopped));
        let (channels, deliveries): (Vec<_>, Vec<_>) =
            Receiving::all(&config.notify).into_iter().map(open).unzip();
        let channels = Arc::new(channels);
        let teller = tokio::spawn(tell(config.clone(), seen, Arc::clone(&channels)));
        Self { name: config.name.clone(), channels, deliveries, teller, stop }
    }

    /// Tells that the daemon has not started, if that is so, and gives what waits a little time.
    pub async fn finish(self, refused: Option<&Fault>) {
        self.teller.abort();
        let _ = self.teller.await;
        if let Some(fault) = refused {
            let text = format!("the daemon has refused to start: {fault}");
            let message = Message::new(&self.name, SystemTime::now(), "refused", Level::Alarm, text);
            self.channels.iter().for_each(|channel| channel.send(&message));
        }
        drop(self.channels);
        self.stop.request();
        for delivery in self.deliveries {
            // They end by themselves a little before.
            let _ = timeout(limits::NOTIFY_FAREWELL * 2, delivery).await;
        }
    }
}

/// Compares each look with what was told before.
async fn tell(config: Config, mut seen: watch::Receiver<Seen>, channels: Arc<Vec<Channel>>) {
    if channels.is_empty() {
        return;
    }
    let mut news = News::new(&config, Instant::now());
    let mut kept = Kept::Unknown;
    while seen.changed().await.is_ok() {
        let has_ledger = matches!(&seen.borrow().last, Some((Ok(status), _)) if status.phase.is_some());
        if has_ledger && matches!(kept, Kept::Unknown) {
            match read(&config).await {
                Ok(told) => {
                    if let Some(told) = told.clone() {
                        news.go_on(told, Instant::now());
                    }
                    kept = Kept::As(told);
                }
                // Without it everything would be told again.
                Err(fault) => {
                    tracing::debug!("what was told is not known: {fault}");
                    continue;
                }
            }
        }
        let messages = {
            let seen = seen.borrow_and_update();
            let Some((looked, time)) = &seen.last else { continue };
            let slot_lost_in = seen.history.slot_lost_in();
            news.look(Look { status: looked.as_ref(), slot_lost_in, at: Instant::now(), time: *time })
        };
        for message in &messages {
            channels.iter().for_each(|channel| channel.send(message));
        }
        let told = news.told();
        if matches!(&kept, Kept::As(kept) if kept.as_ref() != Some(&told)) {
            match write(&config, &told).await {
                Ok(()) => kept = Kept::As(Some(told)),
                // The next look tries again.
                Err(fault) => tracing::debug!("what was told is not recorded: {fault}"),
            }
        }
    }
}

/// What the ledger has of what was told.
enum Kept {
    /// It was not asked yet.
    Unknown,
    As(Option<Value>),
}

async fn read(config: &Config) -> Result<Option<Value>> {
    home(config).await?.told().await
}

async fn write(config: &Config, told: &Value) -> Result<()> {
    home(config).await?.record_told(told).await
}

/// The ledger that knows of the migration whichever way it runs, on a session of its own: this is rare.
async fn home(config: &Config) -> Result<Ledger> {
    let (info, side) = config.home();
    let session = Session::open(info, side, &format!("cdc_{} messages", config.name)).await?;
    Ok(Ledger::new(Arc::new(session), &config.name))
}
