//! From two connection strings to a stream that begins exactly at the checkpoint.
//!
//! Every start goes the same way: look at both ends, refuse what doesn't fit, make what is missing
//! (ledger, publication, slot, in this order), begin a new epoch, stream. The ledger is told before
//! something is made on the source, so a start that is interrupted anywhere is resumed by the next.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use super::adopt::adopt;
use super::copying;
use super::jobs::Jobs;
use super::leftovers::{end_leftovers, free_slot};
use super::publications;
use crate::apply::Applier;
use crate::catalog::{Published, TableName, empty, published, rows_exist, with_rows_in_sight};
use crate::config::{Config, ExistingRows};
use crate::connect::{Mode, Pipeline, Session};
use crate::copy::{Planner, PlannerSettings, Readers, Throttle, current_snapshot, existing_rows, fence, who};
use crate::fault::{Fault, Result, Side};
use crate::ledger::{DaemonState, Ledger, Origin, Phase, Repair};
use crate::limits;
use crate::lsn::Lsn;
use crate::pgoutput::PgTimestamp;
use crate::preflight::Wanted;
use crate::preflight::refuse::{
    SourceSettings, check_slot, compare_origin, refuse_pooler, refuse_shared, refuse_target, still_creating,
    unknown_slot,
};
use crate::replication::{Publication, ReplicationStream, Slot, Walsender};
use crate::route::{CopyTable, Router};
use crate::schema::drift::Drift;
use crate::schema::{self, apply};

/// Both ends, ready to stream.
pub struct Prepared {
    /// The stream of changes, from the checkpoint on.
    pub(super) stream: ReplicationStream,
    /// An ordinary session to the source.
    pub(super) source: Session,
    /// Applies under this life's epoch.
    pub(super) applier: Applier,
    /// Where the stream begins.
    pub(super) checkpoint: Lsn,
    /// The commit LSNs of the transactions that are to be dropped.
    pub(super) skips: Vec<Lsn>,
    /// The source's `wal_sender_timeout`; `None` if it is switched off.
    pub(super) wal_sender_timeout: Option<Duration>,
    /// Publications that must not go away.
    pub(super) publications: Vec<String>,
    /// Those of them that we have made, and nobody is to change.
    pub(super) ours: Vec<Publication>,
    /// Tables published for INSERT and TRUNCATE only.
    pub(super) insert_only: Vec<TableName>,
    /// What is to be copied, and who does it.
    pub(super) copy: copying::Begin,
    /// What is done when a schema changes.
    pub(super) drift: Arc<Mutex<Drift>>,
    /// Which tables are selected, before all.
    pub(super) config: Config,
}

impl Prepared {
    /// Where the stream begins: everything committed below is on the target.
    #[must_use]
    pub fn checkpoint(&self) -> Lsn {
        self.checkpoint
    }
}

/// The application name of our sessions, so that what an earlier life left behind is recognised.
pub(super) fn application(config: &Config, part: &str) -> String {
    format!("cdc_{} {part}", config.name)
}

/// Connects both ends, compares them with the ledger and makes what is missing.
///
/// `guard` is the session to the target that holds the daemon's lock.
///
/// # Errors
/// With the reason why the stream can't begin. A fault that needs a person has touched nothing that
/// a later start couldn't go on with.
pub async fn prepare(config: &Config, guard: &Arc<Session>, ledger: &Ledger) -> Result<Prepared> {
    let source = Session::open(&config.source, Side::Source, &application(config, "monitor")).await?;
    let settings = SourceSettings::read(&source).await?;
    refuse_target(guard, &source).await?;
    let mut walsender =
        Walsender::connect(&config.source, Side::Source, &application(config, "walsender")).await?;
    let identity = walsender.identify_system().await?;
    let mut wanted = Wanted::on(&source, config).await?;
    let origin = Origin {
        system_id: identity.system_id,
        timeline: identity.timeline,
        database: config.source.dbname().to_owned(),
        slot: config.slot(),
    };

    // The epoch first: a COMMIT of the life before can still come until it has been incremented, and
    // the slot may be compared only with a checkpoint that is final.
    end_leftovers(guard, Side::Target, config, &["apply", "catalog", "copy", "schema"]).await?;
    end_leftovers(&source, Side::Source, config, &["copy", "schema"]).await?;
    let catalog = &application(config, "catalog");
    let apply = Arc::new(Session::open(&config.target, Side::Target, catalog).await?);
    refuse_pooler(guard, &apply).await?;
    let mode = apply.mode().await?;
    apply.write_as(mode).await?;
    ledger.refuse_missing_rows().await?;
    let known = ledger.next_epoch().await?;
    let mut recorded = if known.is_some() { ledger.origin().await? } else { None };
    if let Some(before) = &recorded {
        if start_over_if_asked(config, &source, ledger, before, &origin).await? {
            recorded = Some(origin.clone());
        } else {
            compare_origin(before, &origin)?;
        }
    }
    let checkpoint = if known.is_some() { ledger.checkpoint().await? } else { None };
    let (publications, start) = match checkpoint {
        Some(checkpoint) => {
            let publications = publications::existing(&source, ledger).await?;
            check_slot(&source, &origin, checkpoint, &identity).await?;
            (publications, checkpoint.lsn)
        }
        None => {
            begin(config, &source, (&apply, mode), ledger, &mut wanted, &origin, recorded.is_some()).await?
        }
    };
    let mut drift = drift(config, ledger, &publications).await?;
    adopt(&source, config, ledger, &mut drift).await?;
    publications::warn_of_unpublished(&source, &wanted, &publications, ledger).await?;
    let ours = wanted.ours(ledger).await?;
    publications::refuse_changed(&source, &ours, ledger).await?;
    let epoch = match known {
        Some(epoch) => epoch,
        None => ledger
            .next_epoch()
            .await?
            .ok_or_else(|| Fault::bug("the ledger has just been made and is gone"))?,
    };

    let known_tables = drift.begin().await?;
    let mut pipeline = Pipeline::open(&config.target, Side::Target, &application(config, "apply")).await?;
    pipeline.write_as(mode).await?;
    let applier = Applier::new((pipeline, apply), &config.name, epoch, mode, roots(&wanted), known_tables);
    free_slot(&source, &origin.slot, &application(config, "walsender")).await?;
    let stream = walsender.start_replication(&origin.slot, start, &publications).await?;
    let copy = copy(config, &source, ledger, (epoch, mode), &publications, start).await?;
    Ok(Prepared {
        stream,
        source,
        applier,
        checkpoint: start,
        skips: ledger.skips_to_come().await?,
        wal_sender_timeout: settings.wal_sender_timeout,
        publications,
        ours,
        insert_only: wanted.insert_only().to_vec(),
        copy,
        drift: Arc::new(Mutex::new(drift)),
        config: config.clone(),
    })
}

/// What is done when a schema changes, with sessions of its own: it can wait for locks.
async fn drift(config: &Config, ledger: &Ledger, publications: &[String]) -> Result<Drift> {
    let application = application(config, "schema");
    let source = Session::open(&config.source, Side::Source, &application).await?;
    let target = Session::open(&config.target, Side::Target, &application).await?;
    let (name, ddl) = (config.name.clone(), config.schema.ddl);
    Ok(Drift::new(source, target, ledger.clone(), name, ddl, publications.to_vec()))
}

/// What is to be copied of a stream that has begun, and who does it.
async fn copy(
    config: &Config,
    source: &Session,
    ledger: &Ledger,
    (epoch, mode): (i64, Mode),
    publications: &[String],
    checkpoint: Lsn,
) -> Result<copying::Begin> {
    // After the stream has begun: what runs now, or has been in an earlier stream, must have ended in
    // each snapshot that is accepted.
    let fence = fence(source).await?;
    let planner = planner(config, ledger, (epoch, mode), publications).await?;
    planner.take_up_all_repairs().await?;
    let mut router = Router::new(fence, current_snapshot(source).await?);
    let published = published(source, publications).await?;
    for (table, chunks) in ledger.copied_tables().await? {
        let types = chunks.iter().find_map(|chunk| chunk.range.key_types()).unwrap_or_default();
        let key = table.key_columns.iter().cloned().zip(types).collect();
        let chunks = chunks.into_iter().map(|chunk| (chunk.range, chunk.done));
        router.add(table.relation, CopyTable::new(fence, key, chunks, checkpoint));
        if !published.iter().any(|p| p.oid == table.relation && p.membership == table.membership) {
            // If it is back, or should it come back, nobody knows what it has missed.
            tracing::warn!(table = %table.name, "the table has been taken out of the stream");
            ledger.forget_table(table.relation).await?;
            router.forget(table.relation);
        }
    }
    let mut tables = published;
    let mut published: Vec<Published> = tables.iter().map(Into::into).collect();
    published.sort_by_key(|table| table.oid);
    schema::silence_all(&planner.target, &config.name, &published, mode).await?;
    tables.retain(|table| {
        router.expect(table.oid);
        router.is_unplanned(table.oid) || router.is_copied(table.oid)
    });
    // The large ones take longest, so they go first.
    tables.sort_by_key(|table| std::cmp::Reverse(table.bytes));
    let (offers_out, offers) = mpsc::channel(1);
    let readers = Readers {
        source: config.source.clone(),
        target: config.target.clone(),
        application: application(config, "copy"),
        name: config.name.clone(),
        epoch,
        mode,
        throttle: Throttle::new(config.copy.max_rate_bytes),
        offers: offers_out,
    };
    Ok(copying::Begin {
        router,
        jobs: Jobs::new(readers, config.copy.readers),
        offers,
        planner,
        published,
        tables,
        ledger: ledger.clone(),
        name: config.name.clone(),
        source: config.source.clone(),
        target: config.target.clone(),
        mode,
        next_phase: Phase::following(config.direction),
        is_complete: ledger.copy_is_complete().await?,
    })
}

/// Who takes tables into the stream.
async fn planner(
    config: &Config,
    ledger: &Ledger,
    (epoch, mode): (i64, Mode),
    publications: &[String],
) -> Result<Planner> {
    let application = application(config, "copy");
    let target = Session::open(&config.target, Side::Target, &application).await?;
    target.write_as(mode).await?;
    let readers_rate = config.copy.max_rate_bytes.map(|rate| rate / config.copy.readers as u64);
    let chunk_bytes =
        readers_rate.unwrap_or(limits::CHUNK_BYTES).clamp(limits::CHUNK_BYTES_LEAST, limits::CHUNK_BYTES);
    Ok(Planner {
        source: Session::open(&config.source, Side::Source, &application).await?,
        target,
        ledger: ledger.clone(),
        settings: PlannerSettings {
            name: config.name.clone(),
            epoch,
            publications: publications.to_vec(),
            existing_rows: match ledger.is_starting_over().await? {
                true => ExistingRows::Replace,
                false => config.tables.existing_rows,
            },
            chunk_bytes,
            mode,
        },
    })
}

/// The first start, or one that was interrupted before the first checkpoint.
async fn begin(
    config: &Config,
    source: &Session,
    (target, mode): (&Session, Mode),
    ledger: &Ledger,
    wanted: &mut Wanted,
    origin: &Origin,
    was_recorded: bool,
) -> Result<(Vec<String>, Lsn)> {
    if was_recorded {
        // A start that was killed may have left a backend behind that still waits for its slot.
        free_slot(source, &origin.slot, &application(config, "monitor")).await?;
    }
    let mut slot = Slot::find(source, &origin.slot).await?;
    if slot.is_some() && !was_recorded {
        return Err(unknown_slot(&origin.slot));
    }
    wanted.narrow(source, ledger).await?;
    wanted.check()?;
    wanted.rehearse(source).await?;
    if slot.is_none() {
        Slot::check_room(source).await?;
    }
    let targets = wanted.targets(target).await?;
    refuse_shared(target, &targets, ledger, &config.name).await?;
    let starts_over = ledger.is_starting_over().await?;
    let tables_with_rows = match starts_over {
        true => Vec::new(),
        // Of the others, it is asked when they are taken in.
        false => rows_exist(target, &with_rows_in_sight(target, &targets).await?).await?,
    };
    if config.tables.existing_rows == ExistingRows::Refuse && !tables_with_rows.is_empty() {
        return Err(existing_rows(&tables_with_rows));
    }
    make_schema(config, source, target).await?;
    wanted.check_target(target).await?;
    let targets = wanted.targets(target).await?;
    ledger.create().await?;
    ledger.record_origin(origin).await?;
    if starts_over || !tables_with_rows.is_empty() {
        for table in &targets {
            schema::silence_now(target, &config.name, table, mode).await?;
        }
    }
    if !tables_with_rows.is_empty() {
        // All of them: they may refer to each other.
        empty(target, &targets).await?;
    }
    if starts_over {
        wanted.delete_mixed(target).await?;
    }
    if wanted.publish(source, ledger).await? && slot.take().is_some() {
        // Its changes of before could not be decoded. Nothing has streamed from it yet.
        Slot::remove(source, &origin.slot).await?;
    }
    let (start, caught_up_to) = match slot {
        // Nothing has streamed from it yet, so its first position still holds.
        Some(slot) => (slot.confirmed_flush_lsn.ok_or_else(|| still_creating(&origin.slot))?, None),
        None => {
            tracing::info!(
                slot = origin.slot,
                "making the replication slot; it waits for running transactions"
            );
            let before = clock(source).await?;
            let start = tokio::select! {
                start = Slot::create(source, &origin.slot) => start?,
                never = say_whom_the_slot_waits_for(config, ledger) => match never {},
            };
            (start, Some(before))
        }
    };
    let publications = wanted.names();
    ledger.begin_stream(start, caught_up_to, &publications).await?;
    tracing::info!(slot = origin.slot, lsn = %start, "the replication slot is there; every commit from here on will arrive");
    Ok((publications, start))
}

/// Makes what the target lacks of the source's schema, if that is wanted.
async fn make_schema(config: &Config, source: &Session, target: &Session) -> Result<()> {
    if !config.schema.copy || !apply::is_needed(&schema::diff(source, target, config).await?) {
        return Ok(());
    }
    tracing::info!("making what the target lacks of the source's schema");
    let applied = apply::apply(config, &apply::Options::default(), &application(config, "schema")).await?;
    tracing::info!("made on the target: {}", applied.counts());
    for omission in &applied.left_out {
        tracing::info!("left out: {omission}");
    }
    for stays in &applied.stays_behind {
        tracing::warn!("{stays}");
    }
    for omission in &applied.failed {
        tracing::warn!("not made: {omission}");
    }
    applied.refuse_without_tables()
}

/// If somebody asks to have everything copied again, removes our slot and forgets the copy and the position:
/// from there on it is a first start, but for the rows that are there. True if so.
async fn start_over_if_asked(
    config: &Config,
    source: &Session,
    ledger: &Ledger,
    before: &Origin,
    origin: &Origin,
) -> Result<bool> {
    let is_asked = |repair: &Repair| repair.again.relation.is_none() && repair.begun_at.is_none();
    if !ledger.open_repairs().await?.iter().any(is_asked) {
        return Ok(false);
    }
    tracing::warn!("everything is copied again, as asked, over the rows that are there");
    free_slot(source, &origin.slot, &application(config, "walsender")).await?;
    if Slot::find(source, &origin.slot).await?.is_some() {
        if before.system_id != origin.system_id {
            return Err(unknown_slot(&origin.slot));
        }
        Slot::remove(source, &origin.slot).await?;
    }
    ledger.start_over(origin).await?;
    Ok(true)
}

/// Says in the status whose transaction the slot waits for, as long as it does.
async fn say_whom_the_slot_waits_for(config: &Config, ledger: &Ledger) -> Infallible {
    loop {
        tokio::time::sleep(limits::SNAPSHOT_PATIENCE).await;
        let say = async {
            let source = Session::open(&config.source, Side::Source, &application(config, "monitor")).await?;
            let oldest = current_snapshot(&source).await?.xmin();
            let detail = format!(
                "the replication slot waits for the end of {} on the source",
                who(&source, oldest).await?
            );
            ledger.set_state(DaemonState::Starting, Some(&detail)).await
        };
        if let Err(fault) = say.await {
            // Not being able to tell is no reason not to wait.
            tracing::debug!("{fault}");
        }
    }
}

async fn clock(source: &Session) -> Result<PgTimestamp> {
    let row = source
        .query_one("SELECT pg_catalog.clock_timestamp()", &[])
        .await
        .map_err(|e| Fault::sql(Side::Source, "asking for the time", &e))?;
    Ok(row.get(0))
}

/// The topmost parent of each partition that has rows of its own.
fn roots(wanted: &Wanted) -> HashMap<TableName, TableName> {
    wanted
        .tables
        .iter()
        .filter(|table| !table.is_partitioned)
        .filter_map(|table| table.root.as_ref().map(|root| (table.name.clone(), root.clone())))
        .collect()
}
