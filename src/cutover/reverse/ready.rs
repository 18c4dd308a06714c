//! What is made before the fence: publications and slot on the sender, and in the receiver's ledger the tables as they
//! are, all of them copied.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::{Turn, application, clear, remove_slot};
use crate::catalog::{Bounds, PublishedTable, TableName, destination, published, published_names};
use crate::chunk::{KeyRange, Snapshot};
use crate::config::Direction;
use crate::connect::Session;
use crate::copy::{current_snapshot, who};
use crate::fault::{Fault, Result, Side};
use crate::ledger::{CopiedTable, Origin, record_followed, record_shape};
use crate::lsn::Lsn;
use crate::preflight::Wanted;
use crate::preflight::refuse::unknown_slot;
use crate::replication::{Slot, Walsender};
use crate::schema::drift::{Shape, Table, seen, tables};

impl Turn {
    pub(super) async fn make_ready(&self, patience: Duration) -> Result<()> {
        // What the direction before has left has the names that are needed now.
        clear(&self.next, self.home()).await?;
        let (sender, receiver) = (self.sender.session(), self.receiver.session());
        let origin = self.origin().await?;
        let is_known = self.receiver.exists().await? && self.receiver.origin().await?.is_some();
        if is_known && self.receiver.course().await?.direction != Direction::Reverse && self.is_away() {
            return Err(self.somebody_elses());
        }
        if !is_known && Slot::find(sender, &origin.slot).await?.is_some() {
            return Err(unknown_slot(&origin.slot));
        }
        let followed = self.followed().await?;
        remove_slot(sender, &self.next).await?;
        Slot::check_room(sender).await?;
        let mut wanted = Wanted::on(sender, &self.next).await?;
        let left_alone = wanted.keep(&followed);
        wanted.check()?;
        wanted.check_target(receiver).await?;
        self.receiver.begin_turn(self.next.direction, &origin).await?;
        wanted.publish(sender, &self.receiver).await?;
        self.make_slot(&origin.slot, patience).await?;
        // What this snapshot sees lies behind that position, and both lie below the one at which the stream begins.
        let snapshot = current_snapshot(sender).await?;
        let row = sender.query_one("SELECT pg_catalog.pg_current_wal_insert_lsn()", &[]).await;
        let behind: Lsn = row.map_err(|e| Fault::sql(Side::Source, "asking for the position", &e))?.get(0);
        let catalog = seen(sender, Side::Source).await?;
        let all = published(sender, &wanted.names()).await?;
        let sql = |doing: &'static str| move |e: tokio_postgres::Error| Fault::sql(Side::Target, doing, &e);
        receiver.batch_execute("BEGIN").await.map_err(sql("beginning a transaction"))?;
        self.receiver.record_publications(&wanted.names(), &left_alone, &catalog).await?;
        self.record(&all, (&snapshot, behind)).await?;
        receiver.batch_execute("COMMIT").await.map_err(sql("recording the tables of the next direction"))
    }

    /// The database that the next direction reads from.
    async fn origin(&self) -> Result<Origin> {
        let application = application(&self.next);
        let mut walsender = Walsender::connect(&self.next.source, Side::Source, &application).await?;
        let identity = walsender.identify_system().await?;
        Ok(Origin {
            system_id: identity.system_id,
            timeline: identity.timeline,
            database: self.next.source.dbname().to_owned(),
            slot: self.next.slot(),
        })
    }

    /// True if the ledger of the next direction isn't home.
    fn is_away(&self) -> bool {
        self.next.direction == Direction::Reverse
    }

    fn somebody_elses(&self) -> Fault {
        Fault::person(format!(
            "this database is the target of another migration of the name {:?}",
            self.now.name
        ))
        .on(Side::Target)
        .remedy("end the one of the two that is over (cdc drop)")
    }

    /// The tables that are replicated now, partitions by their topmost parents: those that both sides have alike.
    async fn followed(&self) -> Result<BTreeSet<TableName>> {
        let publications = self.sender.publications().await?;
        let now = published_names(self.receiver.session(), &publications).await?;
        let relations: Vec<u32> = now.iter().map(|table| table.oid).collect();
        if !self.sender.copy_is_complete().await? || self.sender.copied_at(&relations).await?.is_none() {
            return Err(Fault::retry("rows are still being copied")
                .on(Side::Source)
                .remedy("wait until the copy is complete (cdc status)"));
        }
        Ok(now.into_iter().map(|table| table.root.unwrap_or(table.name)).collect())
    }

    async fn make_slot(&self, name: &str, patience: Duration) -> Result<()> {
        let sender = self.sender.session();
        let set = |ms: u128| async move {
            let sql = format!("SET statement_timeout = {ms}");
            sender.batch_execute(&sql).await.map_err(|e| Fault::sql(Side::Source, "setting a deadline", &e))
        };
        set(patience.as_millis()).await?;
        let created = Slot::create(sender, name).await;
        set(0).await?;
        match created {
            Ok(_) => Ok(()),
            Err(fault) if fault.code().is_some_and(|code| code.code() == "57014") => {
                let oldest = current_snapshot(sender).await?.xmin();
                Err(Fault::retry(format!(
                    "the replication slot {name} could not be made within {} s: it waits for the end of {}",
                    patience.as_secs(),
                    who(sender, oldest).await?
                ))
                .on(Side::Source)
                .remedy("wait until that has ended, or end it (pg_terminate_backend)"))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Takes the tables into the ledger of the next direction, in the transaction that is open there.
    async fn record(&self, all: &[PublishedTable], seen: (&Snapshot, Lsn)) -> Result<()> {
        let (receiver, name) = (self.receiver.session(), &self.now.name);
        let oids: Vec<u32> = all.iter().map(|table| table.oid).collect();
        let there = tables(self.sender.session(), Side::Source, &oids).await?;
        // In the same parts as now, where these are ranges of the same key.
        let now = self.sender.copied_tables().await?;
        let parts: HashMap<_, _> = now.iter().map(|(table, chunks)| (&table.name, (table, chunks))).collect();
        for table in all {
            let changed = || Fault::retry("a table has changed meanwhile").table(table.name.to_string());
            let (here, through_root) = self.here(receiver, table).await?.ok_or_else(changed)?;
            let shape = Shape::new(there.get(&table.oid).ok_or_else(changed)?, &here, through_root);
            let ranges: Vec<KeyRange> = match parts.get(&table.name) {
                Some((now, chunks)) if !through_root && now.key_columns == table.chunk_columns() => {
                    chunks.iter().map(|chunk| chunk.range.clone()).collect()
                }
                Some(_) | None => vec![KeyRange::ALL],
            };
            let key_columns = if ranges.len() > 1 { table.chunk_columns().to_vec() } else { Vec::new() };
            let followed = CopiedTable {
                relation: table.oid,
                name: table.name.clone(),
                membership: table.membership.clone(),
                key_columns,
                rows_planned: 0,
                bytes_planned: 0,
            };
            record_followed(receiver, name, &followed, &ranges, seen).await?;
            record_shape(receiver, name, table.oid, &shape).await?;
        }
        Ok(())
    }

    /// The receiver's table that takes the rows of this one, and whether that is the topmost parent of a partition that
    /// the receiver lacks.
    async fn here(&self, receiver: &Session, table: &PublishedTable) -> Result<Option<(Table, bool)>> {
        let (target, through_root) =
            destination(receiver, &table.name, table.root.as_ref(), Bounds::LeftOut).await?;
        let row =
            receiver.query_one("SELECT pg_catalog.to_regclass($1)::oid", &[&target.name.to_sql()]).await;
        let oid: Option<u32> = row.map_err(|e| Fault::sql(Side::Target, "looking for a table", &e))?.get(0);
        let mut here = tables(receiver, Side::Target, oid.as_slice()).await?;
        Ok(here.pop_first().map(|(_, table)| (table, through_root)))
    }
}
