//! A comparison from its beginning to its end: a planner, and workers that take chunks from it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::future::{join, try_join_all};
use tokio::sync::{Mutex as Turn, mpsc};

use super::chunk::{Chunk, Compared};
use super::describe::describe;
use super::ends::Ends;
use super::progress::Progress;
use super::report::{Kind, TableReport};
use super::stream::Stream;
use super::unit::{Search, Unit};
use super::{Live, Options};
use crate::chunk::KeyRange;
use crate::config::Config;
use crate::copy::Throttle;
use crate::fault::{Fault, Reaction, Result};
use crate::ledger::Ledger;
use crate::limits;

/// What a worker takes.
struct Job {
    /// The place of its table among the units.
    unit: usize,
    range: KeyRange,
    /// What it counts in the progress.
    bytes: u64,
}

struct Run<'a> {
    config: &'a Config,
    options: &'a Options,
    progress: &'a Progress,
    stream: Option<&'a Stream>,
    units: &'a [Unit],
    throttle: Throttle,
    /// A report for each unit, and when its first chunk was begun.
    tables: Vec<Mutex<(TableReport, Option<Instant>)>>,
    /// The differences of all tables that are listed.
    listed: AtomicUsize,
}

/// Compares everything, and adds to `tables` what comes out, also if it fails.
pub(super) async fn run(
    config: &Config,
    options: &Options,
    progress: &Progress,
    ledger: &Ledger,
    tables: &mut Vec<TableReport>,
) -> Result<()> {
    let stream = match options.live {
        Live::Yes => Some(Stream::open(config, ledger, options.patience).await?),
        Live::No => None,
    };
    let ends = Ends::open(config).await?;
    let search = Search {
        config,
        ledger,
        source: &ends.source,
        target: &ends.target,
        only: options.only.as_deref(),
        hash: ends.common_hash().await?,
    };
    let found = search.units().await?;
    for (name, relation, reason) in found.not_compared {
        let mut table = TableReport::new(name, vec![relation]);
        table.not_compared = Some(reason);
        tables.push(table);
    }
    if found.units.is_empty() && tables.is_empty() {
        return Err(Fault::person("there is no table in the stream").remedy("see cdc status"));
    }
    let report =
        |unit: &Unit| Mutex::new((TableReport::new(unit.name.clone(), unit.relations.clone()), None));
    let run = Run {
        config,
        options,
        progress,
        stream: stream.as_ref(),
        units: &found.units,
        throttle: Throttle::new(options.max_rate_bytes),
        tables: found.units.iter().map(report).collect(),
        listed: AtomicUsize::new(0),
    };
    let ended = match &stream {
        Some(stream) => tokio::select! {
            worked = run.work(&ends) => worked,
            fault = stream.ended() => Err(fault),
        },
        None => run.work(&ends).await,
    };
    let unfinished = match &ended {
        Ok(()) => "nothing of it was compared".to_owned(),
        Err(fault) => format!("the comparison ended before: {}", fault.what()),
    };
    for table in run.tables {
        let (mut table, _) = table.into_inner().unwrap_or_else(PoisonError::into_inner);
        table.conclude(&unfinished);
        tables.push(table);
    }
    ended
}

impl Run<'_> {
    async fn work(&self, planning: &Ends) -> Result<()> {
        let workers = self.config.copy.readers;
        let (jobs, taken) = mpsc::channel(2 * workers);
        let taken = Turn::new(taken);
        // Whoever fails ends everything; jobs that nobody takes any more end the planner.
        let (planned, worked) =
            join(self.plan(planning, jobs), try_join_all((0..workers).map(|_| self.take_jobs(&taken)))).await;
        worked.map(|_| ()).and(planned)
    }

    /// Plans the chunks of one table after the other.
    async fn plan(&self, ends: &Ends, jobs: mpsc::Sender<Job>) -> Result<()> {
        self.progress.expect(self.units.iter().map(|unit| weight(unit.bytes)).sum());
        let rate = self.options.max_rate_bytes.map(|rate| rate / self.config.copy.readers as u64);
        let chunk_bytes =
            rate.unwrap_or(limits::CHUNK_BYTES).clamp(limits::CHUNK_BYTES_LEAST, limits::CHUNK_BYTES);
        for (place, unit) in self.units.iter().enumerate() {
            let ranges = match unit.plan(&ends.source, chunk_bytes).await {
                Ok(ranges) => self.sample(ranges),
                Err(fault) if fault.is_unreachable() => return Err(fault),
                Err(fault) => {
                    self.fail(place, &fault);
                    continue;
                }
            };
            self.table(place).0.chunks = ranges.len();
            let bytes = weight(unit.bytes) / ranges.len().max(1) as u64;
            for range in ranges {
                if jobs.send(Job { unit: place, range, bytes }).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The ranges that are to be compared of these.
    fn sample(&self, mut ranges: Vec<KeyRange>) -> Vec<KeyRange> {
        if let Some(percent) = self.options.sample_percent {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is from 0 to the length"
            )]
            let kept = (ranges.len() as f64 * percent / 100.0).ceil() as usize;
            fastrand::shuffle(&mut ranges);
            ranges.truncate(kept.max(1));
        }
        ranges
    }

    /// Takes jobs until there are no more. A table that can't be compared is left; what concerns all of them
    /// is returned.
    async fn take_jobs(&self, jobs: &Turn<mpsc::Receiver<Job>>) -> Result<()> {
        let mut session = None;
        loop {
            let Some(job) = jobs.lock().await.recv().await else { return Ok(()) };
            if self.table(job.unit).0.not_compared.is_some() {
                self.progress.done(job.bytes, 0, 0);
                continue;
            }
            let mut ends = match session.take() {
                Some(ends) => ends,
                None => Ends::open(self.config).await?,
            };
            match self.compare(&mut ends, &job).await {
                Ok(()) => session = Some(ends),
                Err(fault) if fault.reaction() == Reaction::Bug => return Err(fault),
                Err(fault) if self.stream.is_some_and(Stream::is_over) => return Err(fault),
                // The sessions may be in the middle of something, or lost: the next job gets others.
                Err(fault) => self.fail(job.unit, &fault),
            }
        }
    }

    async fn compare(&self, ends: &mut Ends, job: &Job) -> Result<()> {
        let Some(unit) = self.units.get(job.unit) else { return Ok(()) };
        self.progress.begin(unit.name.to_string());
        self.table(job.unit).1.get_or_insert_with(Instant::now);
        ends.read_parts(job.range != KeyRange::ALL).await?;
        let room = limits::VERIFY_CANDIDATES.saturating_sub(self.table(job.unit).0.differences.len());
        let chunk = Chunk {
            ends,
            unit,
            range: &job.range,
            stream: self.stream,
            patience: self.options.patience,
            candidates: room.max(limits::VERIFY_CANDIDATES_LEAST),
        };
        let compared = chunk.compare().await?;
        let listed = self.listed.load(Relaxed);
        let room = room.min(limits::VERIFY_LISTED.saturating_sub(listed)).min(compared.differences.len());
        let described = match &compared.differences[..room] {
            [] => Vec::new(),
            found => describe(ends, unit, found, self.options.show_values).await?,
        };
        let found = compared.differences.len() as u64 + compared.not_looked_at;
        self.progress.done(job.bytes, compared.rows_source, found);
        self.throttle.pass(compared.bytes.unsigned_abs()).await;
        self.note(job, compared, described);
        Ok(())
    }

    fn note(&self, job: &Job, compared: Compared, described: Vec<super::Difference>) {
        let mut table = self.table(job.unit);
        let seconds = table.1.map_or(0.0, |began| began.elapsed().as_secs_f64());
        let report = &mut table.0;
        report.seconds = seconds;
        report.rows_source += compared.rows_source;
        report.rows_target += compared.rows_target;
        report.bytes += compared.bytes;
        report.chunks_compared += 1;
        report.undecided += compared.undecided;
        report.not_looked_at += compared.not_looked_at;
        if !compared.differences.is_empty() {
            report.ranges.push(job.range.clone());
        }
        for found in compared.differences {
            match found.kind {
                Kind::Missing => report.missing += found.rows,
                Kind::Extra => report.extra += found.rows,
                Kind::Different => report.different += found.rows,
            }
        }
        // Others may have listed theirs meanwhile.
        let room = limits::VERIFY_CANDIDATES.saturating_sub(report.differences.len());
        let before = report.differences.len();
        report.differences.extend(described.into_iter().take(room));
        self.listed.fetch_add(report.differences.len() - before, Relaxed);
    }

    fn fail(&self, unit: usize, fault: &Fault) {
        self.table(unit).0.not_compared.get_or_insert_with(|| fault.to_string());
    }

    fn table(&self, unit: usize) -> MutexGuard<'_, (TableReport, Option<Instant>)> {
        // Nothing in here can panic, so a poisoned lock is as good as any.
        self.tables[unit].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a table counts in the progress: an empty one takes its round trips, too.
fn weight(bytes: u64) -> u64 {
    bytes.max(8192)
}
