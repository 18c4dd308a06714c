//! The whole story on this machine: two servers, an application that writes all the time, and a
//! migration between them that is killed half-way.
//!
//! ```text
//!  Writer ──► source ──► cdc run (a process of its own) ──► target
//!                │                    ▲                        │
//!                │             kill -9, once                   │
//!                └──────► cdc status, many times ◄─────────────┘
//!                └──────► compare, at the end    ◄─────────────┤
//!                └──────► cdc verify, cdc repair ◄── rows that somebody changes
//!                └──────► cdc cutover, cdc rollback: there and back
//!                └──────► cdc check before, cdc schema diff afterwards
//! ```
//!
//! [`tell`] goes through it from the top down; a [`Screen`] shows it.

mod daemon;
mod live;
mod migration;
mod proof;
mod screen;
mod servers;
mod summary;

pub use screen::Screen;

use std::time::{Duration, Instant};

use self::migration::Migration;
use self::proof::{compare_schemas, look_first, prove, switch};
use self::screen::{count, size};
use self::servers::{EXAMPLE, Servers};
use self::summary::{Copied, Killed, Summary};
use super::compare::{Comparison, compare};
use super::writer::Writer;
use crate::fault::Result;
use crate::ledger::{CopyProgress, Phase};
use crate::observe::Status;
use crate::shutdown::Shutdown;

/// The daemon is killed when one row in so many is copied.
const KILL_AT: u64 = 2;

/// How long it stays dead.
const DEAD: Duration = Duration::from_secs(2);

/// Decides what the application writes.
const SEED: u64 = 7;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many salons are in the database.
    pub scale: u32,
    /// How many rows the application changes each second.
    pub changes_per_second: u32,
    /// For how long the stream is watched after the copy.
    pub stream: Duration,
}

/// How the story ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every row of every table is on the target, and no other one.
    Identical,
    /// It isn't.
    Different,
    /// It was asked to stop before it knew.
    Interrupted,
}

/// Tells the story, and leaves neither a process nor a file behind.
///
/// # Errors
/// If it can't be told to its end: no PostgreSQL here, a daemon that stops or waits for a person.
pub async fn tell(plan: &Plan, screen: &mut Screen, mut stop: Shutdown) -> Result<Ending> {
    screen.title("cdc demo: a database moves to another server while an application writes to it");
    screen.busy("starting two throw-away PostgreSQL servers on this machine");
    // Not cut short: `initdb` would go on writing for a moment.
    let servers = Servers::start().await.inspect_err(|_| screen.clear())?;
    let told = tokio::select! {
        biased;
        () = stop.requested() => None,
        told = to_the_end(plan, &servers, screen) => Some(told),
    };
    screen.busy("stopping both servers and removing their files");
    drop(servers);
    screen.clear();
    let Some(told) = told else {
        screen.bad("interrupted: the daemon, both servers and their files are gone");
        return Ok(Ending::Interrupted);
    };
    let summary = told?;
    summary.show(screen);
    Ok(if summary.comparison.is_equal() { Ending::Identical } else { Ending::Different })
}

async fn to_the_end(plan: &Plan, servers: &Servers, screen: &mut Screen) -> Result<Summary> {
    screen.step(&format!("two PostgreSQL {} servers run on this machine", servers.major()));
    screen.detail(&format!("source  {}", servers.source_url()));
    screen.detail(&format!("target  {}", servers.target_url()));

    screen.busy(&format!("filling the source: {} rows", count(plan.scale * EXAMPLE.rows_per_scale())));
    let stock = servers.furnish(plan.scale).await?;
    screen.step(&format!("the source has {} rows in {} tables", count(stock.rows), stock.tables));
    screen.detail(&format!("{} with the indexes; the target's database is empty", size(stock.bytes)));

    let writer = Writer::start(&servers.source_url(), EXAMPLE, plan.changes_per_second, SEED);
    let rate = count(plan.changes_per_second);
    screen.step(&format!("an application inserts, updates and deletes: {rate} rows a second"));

    look_first(servers, screen).await?;
    let mut migration = Migration::start(servers)?;
    let pid = migration.pid();
    screen.step(&format!(
        "cdc run starts (pid {pid}): it makes the schema, copies and follows at the same time"
    ));
    let copied = copy(&mut migration, stock.rows, screen).await?;
    screen.step("everything is copied; now it only follows");
    let enough = Instant::now() + plan.stream;
    migration.until(screen, |_| Instant::now() >= enough).await?;
    let while_streaming = migration.worst;

    screen.busy("stopping the application");
    let written = writer.stop().await;
    let stopped = Instant::now();
    let end = servers.written().await?;
    let has_all = |status: &Status| status.checkpoint.as_ref().is_some_and(|c| c.lsn >= end);
    migration.until(screen, has_all).await?;
    let seconds = stopped.elapsed().as_secs_f64();
    screen.step(&format!("the application stops; {seconds:.1} s later the target has its last change"));

    let mut comparison = compared(servers, screen, "every row of every table is compared").await?;
    if comparison.is_equal() {
        compare_schemas(servers, screen).await?;
        prove(servers, screen).await?;
        switch(servers, screen).await?;
        comparison = compared(servers, screen, "every row of every table is compared once more").await?;
    }
    migration.stop().await?;
    Ok(Summary { copied, written, while_streaming, comparison })
}

async fn compared(servers: &Servers, screen: &mut Screen, done: &str) -> Result<Comparison> {
    screen.busy("comparing every row of every table");
    let comparison = compare(&servers.source_url(), &servers.target_url()).await?;
    screen.step(done);
    Ok(comparison)
}

/// Lets everything be copied, with a `kill -9` in the middle.
async fn copy(migration: &mut Migration, rows: u64, screen: &mut Screen) -> Result<Copied> {
    let began = Instant::now();
    let is_half_way = |status: &Status| {
        let is_half = |copy: &CopyProgress| copy.rows.unsigned_abs() >= rows / KILL_AT;
        is_copied(status) || status.copy.as_ref().is_some_and(|copy| copy.chunks_done > 0 && is_half(copy))
    };
    let status = migration.until(screen, is_half_way).await?;
    let (pid, mut time) = (migration.pid(), began.elapsed());
    migration.kill();
    let finished = migration.finished_chunks().await?;
    let killed = Killed { half_way: if is_copied(&status) { None } else { status.copy }, finished };
    screen.bad(&format!("kill -9 {pid} {killed}"));
    migration.pause(screen, DEAD).await?;
    migration.start_again()?;
    screen.step(&format!("cdc run starts again (pid {})", migration.pid()));
    let status = migration.until(screen, is_copied).await?;
    if killed.half_way.is_some() {
        time = began.elapsed();
    }
    let kept = killed.kept(&migration.finished_chunks().await?);
    Ok(Copied {
        rows: status.copy.map_or(0, |copy| copy.rows.unsigned_abs()),
        time,
        killed,
        kept,
        worst: std::mem::take(&mut migration.worst),
    })
}

/// True once every row that was there before is on the target, and every constraint is back.
fn is_copied(status: &Status) -> bool {
    status.phase == Some(Phase::Stream)
}
