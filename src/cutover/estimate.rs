//! For how long writes would rest, from what can be measured while they go on.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::barrier;
use super::fence::Fence;
use super::sequences::Sequences;
use super::undo::application;
use crate::config::{Config, InPause};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::limits;

/// What a pause is expected to be made of. Field names and meanings are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// All of it, in milliseconds as the rest.
    pub pause_ms: u64,
    /// How many tables have to be fenced, partitions included.
    pub tables: usize,
    /// Finding them, twice, and switching their triggers on.
    pub fence_ms: u64,
    /// A message through the stream to the other side, just now.
    pub drain_ms: u64,
    /// The time that the configuration gives to the comparison; null if it is a full one, which takes as long as it takes
    /// and is not in the sum.
    pub compare_ms: Option<u64>,
    /// How many sequences there are.
    pub sequences: usize,
    /// Reading them on both sides, just now, and as long again to set them.
    pub sequences_ms: u64,
    /// Questions to the old side and to the new one.
    pub round_trips: [u32; 2],
    /// How long these take.
    pub round_trips_ms: u64,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "fence of {} tables {} ms, last changes {} ms, ",
            self.tables, self.fence_ms, self.drain_ms
        )?;
        match self.compare_ms {
            Some(ms) => write!(f, "comparison up to {ms} ms, ")?,
            None => write!(f, "and as long as the full comparison takes, ")?,
        }
        write!(
            f,
            "{} sequences {} ms, {} round trips {} ms",
            self.sequences,
            self.sequences_ms,
            self.round_trips.iter().sum::<u32>(),
            self.round_trips_ms
        )
    }
}

/// The questions that are asked one after the other while writes rest, of either side; without those counted elsewhere.
const ROUND_TRIPS: [u32; 2] = [16, 30];

/// Measures it. Writes nothing but a message into the log of the old side.
///
/// # Errors
/// If a database can't be asked, or the message doesn't arrive in time.
pub(super) async fn measure(now: &Config) -> Result<Estimate> {
    let application = application(now);
    let (old, new, ledger) = tokio::try_join!(
        Session::open(&now.source, Side::Source, &application),
        Session::open(&now.target, Side::Target, &application),
        Session::open(&now.target, Side::Target, &application)
    )?;
    let ledger = Ledger::new(std::sync::Arc::new(ledger), &now.name);
    let began = Instant::now();
    let tables = Fence::new(&old, Side::Source, &now.name).count(now).await?;
    let many = u32::try_from(tables).unwrap_or(u32::MAX);
    let fence = 2 * began.elapsed() + limits::FENCE_TABLE.saturating_mul(many);
    let began = Instant::now();
    let arrives = async { barrier::pass(&ledger, &old, barrier::raise(&old).await?).await };
    timeout(now.cutover.pause, arrives).await.map_err(|_| too_slow(now))??;
    let drain = began.elapsed();
    let began = Instant::now();
    let sequences = Sequences::find(&old, &new).await?;
    sequences.read(&old, &new).await?;
    let reading = 2 * began.elapsed();
    let compare = match now.cutover.verify {
        InPause::Nothing => Some(Duration::ZERO),
        InPause::Within(budget) => Some(budget),
        InPause::Everything => None,
    };
    let round_trips = ROUND_TRIPS[0] * round_trip(&old, Side::Source).await?
        + ROUND_TRIPS[1] * round_trip(&new, Side::Target).await?;
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(Estimate {
        pause_ms: ms(fence + drain + compare.unwrap_or_default() + reading + round_trips),
        tables,
        fence_ms: ms(fence),
        drain_ms: ms(drain),
        compare_ms: compare.map(ms),
        sequences: sequences.len(),
        sequences_ms: ms(reading),
        round_trips: ROUND_TRIPS,
        round_trips_ms: ms(round_trips),
    })
}

fn too_slow(now: &Config) -> Fault {
    Fault::person(format!(
        "a message has not come through the stream within {}",
        humantime::format_duration(now.cutover.pause)
    ))
    .remedy("see cdc status: what is the daemon doing? [cutover] pause says how long writes may rest")
}

/// How long an answer takes, the median of three.
async fn round_trip(session: &Session, side: Side) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        session.simple_query("SELECT 1").await.map_err(|e| Fault::sql(side, "measuring a round trip", &e))?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[1])
}
