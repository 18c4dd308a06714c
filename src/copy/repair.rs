//! Takes up what somebody asks to have copied again: chunks that were done are pending from then on.
//!
//! The ledger is told first. Until the router hears of it, changes are applied, which is harmless: the
//! snapshot that is still to be taken has them. A crash in between is a start with pending chunks.

use std::collections::HashSet;

use super::again::{Piece, overlay};
use super::partitions::refuse_meeting;
use super::plan::plan;
use super::planner::{CopiedAgain, Planned, Planner, recorded};
use super::statements::delete_without_key;
use super::table::TableCopy;
use crate::catalog::{Bounds, PublishedTable, destination, published};
use crate::chunk::{Key, KeyRange, Snapshot};
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{Again, LedgerChunk, Repair, RepairedChunk, record_repair};
use crate::lsn::Lsn;

impl Planner {
    /// Takes up what can be while the stream runs: parts of tables all of whose chunks are over, so that
    /// nothing is on its way that speaks of the chunks of before.
    pub(super) async fn take_up_repairs(&self) -> Result<Vec<Planned>> {
        self.ledger.finish_repairs().await?;
        let mut relations = HashSet::new();
        let mut found = Vec::new();
        for repair in self.ledger.repairs_to_begin().await? {
            let Some(relation) = repair.again.relation else {
                return Err(Fault::retry(
                    "everything is copied again, as somebody has asked (cdc repair --all): the stream begins anew",
                ));
            };
            if relations.insert(relation) {
                found.extend(self.take_up(&repair).await?.map(|again| Planned::Again(Box::new(again))));
            }
        }
        Ok(found)
    }

    /// Takes up everything that is asked for of tables, before the stream begins: the router is made of what
    /// the ledger says then.
    ///
    /// # Errors
    /// If one of the databases can't be asked.
    pub async fn take_up_all_repairs(&self) -> Result<()> {
        for repair in self.ledger.open_repairs().await? {
            if repair.begun_at.is_none() {
                self.take_up(&repair).await?;
            }
        }
        Ok(())
    }

    /// `None` if it is refused, or has to wait.
    async fn take_up(&self, repair: &Repair) -> Result<Option<CopiedAgain>> {
        let fault = match self.copy_again(repair).await {
            Ok(again) => return Ok(again),
            Err(fault) if fault.is_unreachable() => return Err(fault),
            Err(fault) => fault,
        };
        self.target
            .batch_execute("ROLLBACK")
            .await
            .map_err(|e| Fault::sql(Side::Target, "giving a repair up for now", &e))?;
        if fault.reaction() == Reaction::Retry {
            tracing::debug!("a repair has to wait: {fault}");
        } else {
            tracing::error!("a repair is refused: {fault}");
            self.ledger.refuse_repair(repair.id, &fault).await?;
        }
        Ok(None)
    }

    async fn copy_again(&self, repair: &Repair) -> Result<Option<CopiedAgain>> {
        let Some(relation) = repair.again.relation else { return Ok(None) };
        let tables = published(&self.source, &self.settings.publications).await?;
        let Some(table) = tables.into_iter().find(|table| table.oid == relation) else {
            return Err(Fault::person(
                "the table is not in the stream (any more), so nothing of it can be copied again",
            )
            .on(Side::Source)
            .table(repair.table.clone().unwrap_or_else(|| format!("with the oid {relation}"))));
        };
        let (target, through_root) =
            destination(&self.target, &table.name, table.root.as_ref(), Bounds::Told).await?;
        let publications = &self.settings.publications;
        refuse_meeting(&self.source, &self.target, publications, &table, &target, through_root).await?;
        let copy = TableCopy::new(table, &target, through_root);
        self.shape(&copy).await?;
        let table = &copy.source;
        if through_root {
            return Err(Fault::person(format!(
                "the target has no such partition, and its rows are in {} among others: they can't be replaced alone",
                target.name
            ))
            .on(Side::Target)
            .table(table.name.to_string())
            .remedy("cdc repair --all, which copies everything again"));
        }
        // It has just come into the stream: it will be copied as it is.
        let Some((_, chunks)) = self.ledger.copied_table(relation).await? else { return Ok(None) };
        let is_one_chunk = !target.has_ranges_of(&copy.chunk_key());
        let fresh = plan(&self.source, table, self.settings.chunk_bytes, is_one_chunk).await?;
        let boundaries: Vec<Key> = fresh.into_iter().filter_map(|range| range.upper).collect();
        let present: Vec<KeyRange> = chunks.iter().map(|chunk| chunk.range.clone()).collect();
        let asked = match &repair.again.ranges {
            Some(ranges) if !is_one_chunk && fits(&repair.again, ranges, &present, table) => ranges.clone(),
            Some(_) | None => vec![KeyRange::ALL],
        };
        let pieces = overlay(&present, &asked, &boundaries);
        self.record(repair.id, &copy, &pieces).await?;
        tracing::info!(
            table = %table.name,
            chunks = pieces.iter().filter(|piece| piece.is_asked).count(),
            "chunks of the table are copied again, as asked"
        );
        Ok(Some(CopiedAgain { chunks: with_state(pieces, &chunks), copy }))
    }

    /// In one transaction of the target.
    async fn record(&self, request: i64, copy: &TableCopy, pieces: &[Piece]) -> Result<()> {
        let table = &copy.source;
        let sql = |doing: &'static str| move |e: tokio_postgres::Error| Fault::sql(Side::Target, doing, &e);
        let (name, epoch) = (&self.settings.name, self.settings.epoch);
        let chunks: Vec<RepairedChunk<'_>> = pieces
            .iter()
            .map(|Piece { range, was, is_asked }| RepairedChunk { range, was: *was, is_pending: *is_asked })
            .collect();
        self.target.batch_execute("BEGIN").await.map_err(sql("beginning a transaction"))?;
        record_repair(&self.target, name, epoch, request, &recorded(table), &chunks).await?;
        if pieces.len() > 1 && pieces.iter().all(|piece| piece.is_asked) {
            // All rows: also those of the target that no chunk holds.
            let delete = delete_without_key(table, &copy.target, copy.target_is_partitioned);
            self.target.batch_execute(&delete).await.map_err(sql("removing rows without a key"))?;
        }
        self.target.batch_execute("COMMIT").await.map_err(sql("recording what is copied again"))
    }
}

/// True if the ranges and the chunks that are there are both of the key that the table has now.
fn fits(again: &Again, asked: &[KeyRange], present: &[KeyRange], table: &PublishedTable) -> bool {
    let is_of = |range: &KeyRange| {
        let is_key = |key: &Key| key.iter().map(|value| value.key_type()).eq(table.chunk_key.iter().copied());
        range.lower.iter().chain(&range.upper).all(is_key)
    };
    again.key_columns == table.chunk_columns() && asked.iter().chain(present).all(is_of)
}

fn with_state(pieces: Vec<Piece>, chunks: &[LedgerChunk]) -> Vec<(KeyRange, Option<(Snapshot, Lsn)>)> {
    let state = |piece: &Piece| match piece.is_asked {
        true => None,
        false => chunks.get(piece.was).and_then(|chunk| chunk.done.clone()),
    };
    pieces.into_iter().map(|piece| (piece.range.clone(), state(&piece))).collect()
}
