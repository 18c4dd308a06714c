//! A look at both catalogs, and what is done about what has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::Client;

use super::known::Known;
use super::make::{make, needed};
use super::plan::{Facts, Make, away, is_new_to_the_stream, plan};
use super::shape::{Shape, Table, oids, tables};
use crate::catalog::{PublishedTable, TableName, published, quote_identifier, with_digest};
use crate::config::Ddl;
use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::{Ledger, ask_again, record_shape};
use crate::lsn::Lsn;
use crate::schema::diff::read::{Catalog, catalog, relocate};

/// What a person has to run on the target for a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Its name on the source, as `schema.table`.
    pub table: String,
    /// The statements, in their order.
    pub statements: Vec<String>,
    /// Rows of the table can't be applied as they come without them.
    pub stops: bool,
    /// Why one of them could not be run by ourselves.
    pub refusal: Option<String>,
    /// Changes from before can still come. A column or a table that got its new name too early would take them for
    /// those of another one.
    pub is_early: bool,
}

/// The catalogs of both sides, and what was seen there last.
pub struct Drift {
    /// A session to the source.
    pub source: Session,
    /// A session to the target.
    pub target: Session,
    /// The ledger.
    pub ledger: Ledger,
    /// The migration's name.
    pub name: String,
    /// What may be done.
    pub ddl: Ddl,
    /// What the stream is decoded with.
    pub publications: Vec<String>,
    seen: [String; 2],
    pub(super) open: BTreeMap<u32, Open>,
    /// What the log was told of that last.
    told: Vec<Open>,
    known: HashMap<u32, Known>,
    /// The digests of tables that need a person, and a position behind what has made them so.
    since: HashMap<u32, (Option<String>, Lsn)>,
    /// What was done since somebody has taken that.
    done: Vec<String>,
    /// Something is to be done when the checkpoint has come further.
    is_waiting: bool,
}

/// What of a table it is that isn't as on the source.
const NOT_ALIKE: &str = "schema";

/// What one look has at hand.
pub(super) struct Ends {
    pub(super) published: BTreeMap<u32, PublishedTable>,
    pub(super) there: BTreeMap<u32, Table>,
    pub(super) here: BTreeMap<u32, Table>,
    /// A position of the source's log behind all of that.
    pub(super) at: Lsn,
    pub(super) checkpoint: Lsn,
    /// Tables that are being copied, or will be.
    pub(super) unfinished: Vec<u32>,
    pub(super) objects: Option<(Catalog, Catalog)>,
}

impl Drift {
    /// Nothing has been looked at yet.
    #[must_use]
    pub fn new(
        source: Session,
        target: Session,
        ledger: Ledger,
        name: String,
        ddl: Ddl,
        publications: Vec<String>,
    ) -> Self {
        Self {
            source,
            target,
            ledger,
            name,
            ddl,
            publications,
            seen: Default::default(),
            open: BTreeMap::new(),
            told: Vec::new(),
            known: HashMap::new(),
            since: HashMap::new(),
            done: Vec::new(),
            is_waiting: false,
        }
    }

    /// Brings the target's tables to what the source's are, as far as that may be done. Says how the tables' changes go
    /// to the target's, by the source's oids.
    ///
    /// # Errors
    /// If a database can't be asked.
    pub async fn begin(&mut self) -> Result<HashMap<u32, Known>> {
        self.look().await?;
        for done in self.done.drain(..) {
            tracing::info!("{done}");
        }
        Ok(self.known.clone())
    }

    /// True if a catalog is not as it was at the last look.
    ///
    /// # Errors
    /// If a database can't be asked.
    pub async fn has_changed(&self) -> Result<bool> {
        Ok(self.seen != self.see().await?)
    }

    /// Looks, if there is something to be seen. Says what was done that the stream has to begin anew for.
    ///
    /// # Errors
    /// If a database can't be asked.
    pub async fn glance(&mut self) -> Result<Option<Fault>> {
        if self.is_waiting || self.has_changed().await? {
            self.look().await?;
        }
        Ok(self.begins_anew())
    }

    /// Says more of a fault that ended the stream, once both catalogs were looked at: what was done about it, or what
    /// a person has to do.
    ///
    /// # Errors
    /// If a database can't be asked.
    pub async fn explain(&mut self, fault: Fault) -> Result<Fault> {
        if fault.reaction() != Reaction::Person && !fault.is_unfit() {
            return Ok(fault);
        }
        let Some(table) = fault.table_name().map(str::to_owned) else { return Ok(fault) };
        self.look().await?;
        if let Some(done) = self.begins_anew() {
            return Ok(done);
        }
        let is_of = |open: &&Open| open.table == table;
        if let Some(open) = self.open.values().find(is_of).filter(|open| explains(open, &fault)) {
            return Ok(fault.reacting(Reaction::Person).remedy(remedy(open)));
        }
        if !fault.is_unfit() {
            return Ok(fault);
        }
        let Some(relation) = self.relation(&table) else { return Ok(fault.reacting(Reaction::Person)) };
        ask_again(&self.target, &self.name, relation, "the source's columns have changed more than once")
            .await?;
        self.done.push(format!("{table} is copied again, as its columns have changed more than once"));
        Ok(self.begins_anew().unwrap_or(fault))
    }

    /// The engine that goes by what was known before has to end, if there is anything new.
    fn begins_anew(&self) -> Option<Fault> {
        (!self.done.is_empty()).then(|| {
            Fault::retry(format!("{}: the stream begins anew with it", self.done.join("; ")))
                .on(Side::Source)
                .remedy("nothing: it goes on by itself")
        })
    }

    fn relation(&self, table: &str) -> Option<u32> {
        let is_of = |(_, known): &(&u32, &Known)| known.is_called(table);
        self.known.iter().find(is_of).map(|(relation, _)| *relation)
    }

    /// What the catalogs of both sides are like.
    async fn see(&self) -> Result<[String; 2]> {
        let (source, target) =
            tokio::try_join!(seen(&self.source, Side::Source), seen(&self.target, Side::Target))?;
        Ok([source, target])
    }

    async fn look(&mut self) -> Result<()> {
        let before = self.done.len();
        let seen = self.see().await?;
        let recorded: Vec<(u32, Option<Shape>)> = self.ledger.shapes().await?;
        let mut ends = self.ends(&recorded).await?;
        self.open.clear();
        self.known.clear();
        self.is_waiting = false;
        if let Some(enums) = self.enums(&mut ends).await? {
            self.done.push(enums);
        }
        for (relation, shape) in recorded {
            if let Some(what) = self.table(&mut ends, relation, shape).await? {
                self.done.push(what);
            }
        }
        self.tell().await?;
        let [source, target] = seen;
        // What we have done ourselves is no reason to look again.
        let target = if self.done.len() > before { self.see().await?[1].clone() } else { target };
        self.seen = [source, target];
        Ok(())
    }

    async fn ends(&self, recorded: &[(u32, Option<Shape>)]) -> Result<Ends> {
        let published = published(&self.source, &self.publications).await?;
        let published: BTreeMap<u32, PublishedTable> = published.into_iter().map(|t| (t.oid, t)).collect();
        let relations: Vec<u32> =
            recorded.iter().map(|(oid, _)| *oid).filter(|oid| published.contains_key(oid)).collect();
        let there = tables(&self.source, Side::Source, &relations).await?;
        let row = self.source.query_one("SELECT pg_catalog.pg_current_wal_insert_lsn()", &[]).await;
        let at = row.map_err(|e| Fault::sql(Side::Source, "asking for the position", &e))?.get(0);
        let targets: Vec<u32> =
            recorded.iter().filter_map(|(_, shape)| shape.as_ref()).map(|shape| shape.target).collect();
        let mut here = tables(&self.target, Side::Target, &targets).await?;
        // Those that the ledger doesn't know, or that somebody has made (anew): by their names.
        let lost = |(oid, shape): &&(u32, Option<Shape>)| {
            let is_here = |shape: &Shape| here.contains_key(&shape.target) && !shape.is_through_root;
            there.contains_key(oid) && !shape.as_ref().is_some_and(is_here)
        };
        let names: Vec<TableName> = recorded
            .iter()
            .filter(lost)
            .filter_map(|(oid, _)| there.get(oid))
            .flat_map(|table| std::iter::once(&table.name).chain(&table.root).cloned())
            .collect();
        let found: Vec<u32> = oids(&self.target, Side::Target, &names).await?.into_iter().flatten().collect();
        here.extend(tables(&self.target, Side::Target, &found).await?);
        Ok(Ends {
            published,
            there,
            here,
            at,
            checkpoint: self.ledger.checkpoint().await?.map_or(Lsn::ZERO, |checkpoint| checkpoint.lsn),
            unfinished: self.ledger.unfinished_tables().await?,
            objects: None,
        })
    }

    /// Both schemas, read when they are needed.
    pub(super) async fn objects(&self, ends: &mut Ends, anew: bool) -> Result<(Catalog, Catalog)> {
        if let Some(objects) = &ends.objects
            && !anew
        {
            return Ok(objects.clone());
        }
        let all = ends.there.values().chain(ends.here.values());
        let schemas: BTreeSet<&String> =
            all.flat_map(|table| [&table.name.schema, &table.altered_as().schema]).collect();
        let schemas: Vec<String> = schemas.into_iter().cloned().collect();
        Ok(ends.objects.insert(self.catalogs(&schemas).await?).clone())
    }

    /// The source's objects as they would be on the target, and those that are there.
    pub(super) async fn catalogs(&self, schemas: &[String]) -> Result<(Catalog, Catalog)> {
        let (there, here) = tokio::try_join!(
            catalog(&self.source, Side::Source, schemas),
            catalog(&self.target, Side::Target, schemas)
        )?;
        Ok((relocate(&self.source, there, &here).await?, here))
    }

    /// Brings one table of the target to what the source's is. Says what was done.
    async fn table(
        &mut self,
        ends: &mut Ends,
        relation: u32,
        shape: Option<Shape>,
    ) -> Result<Option<String>> {
        let Some(source) = ends.there.get(&relation).cloned() else { return Ok(None) };
        let Some(columns) = ends.published.get(&relation).map(|table| table.columns.len()) else {
            return Ok(None);
        };
        let by_name = |name: &TableName| ends.here.values().find(|table| table.name == *name).cloned();
        let own = shape.as_ref().filter(|shape| !shape.is_through_root);
        let mut own = own.and_then(|shape| Some((shape, ends.here.get(&shape.target)?)));
        // One that somebody has renamed there, and the source has not, isn't followed.
        own = own.filter(|(shape, here)| {
            [&shape.name, &source.name].contains(&&here.name) || here.name == away(&shape.name)
        });
        let found = match own {
            Some((_, target)) => Some(target.clone()),
            None => by_name(&source.name).or_else(|| source.root.as_ref().and_then(by_name)),
        };
        // The stream will say so.
        let Some(mut target) = found else { return Ok(None) };
        let is_through_root = source.root.as_ref() == Some(&target.name);
        // What a version has adopted that didn't look, or what somebody has made anew on the target.
        let recorded = match shape.clone().filter(|shape| shape.target == target.oid) {
            Some(shape) => shape,
            None => Shape::new(&source, &target, is_through_root),
        };
        let settled = settled(recorded, &source, ends.checkpoint);
        let (done, next) = match settled.is_of(&source) && !settled.is_open() {
            true => (None, settled),
            false => self.bring(ends, &settled, &source, &mut target).await?,
        };
        if shape.as_ref() != Some(&next) {
            record_shape(&self.target, &self.name, relation, &next).await?;
        }
        let is_copied = ends.unfinished.contains(&relation);
        let waits = |lsn: Option<Lsn>| lsn.is_some_and(|lsn| is_copied || lsn > ends.checkpoint);
        let is_unfinished = next.columns.iter().any(|column| waits(column.unfinished));
        self.is_waiting |= is_unfinished || !next.earlier.is_empty();
        let known = Known::new(&next, &target, columns);
        self.known.insert(relation, known);
        Ok(done)
    }

    /// Does what may be done, and gives what was, with the shape that the target has been brought to.
    async fn bring(
        &mut self,
        ends: &mut Ends,
        recorded: &Shape,
        source: &Table,
        target: &mut Table,
    ) -> Result<(Option<String>, Shape)> {
        let mut made = Vec::new();
        let mut open = Open { table: source.name.to_string(), ..Open::default() };
        let (mut next, again) = loop {
            // What was made for another partition is here, too.
            *target = self.target_now(target).await?;
            let (there, here) = self.objects(ends, !made.is_empty()).await?;
            let (plan, shape) = plan(&Facts {
                recorded,
                source,
                target,
                there: &there,
                here: &here,
                at: ends.at,
                is_being_copied: ends.unfinished.contains(&source.oid),
                name_is_taken: self.is_there("to_regclass", &source.name.to_sql()).await?,
                schema_is_there: self
                    .is_there("to_regnamespace", &quote_identifier(&source.name.schema))
                    .await?,
            });
            let with_needs =
                |statements: &[String]| [needed(statements, &there, &here), statements.to_vec()].concat();
            if self.ddl == Ddl::Additive && open.refusal.is_none() && !plan.make.is_empty() {
                for Make { statements, .. } in &plan.make {
                    match self.make(target.altered_as(), &with_needs(statements)).await? {
                        Ok(()) => made.extend(statements.clone()),
                        Err(refusal) => open.refusal = Some(refusal),
                    }
                }
                continue;
            }
            for Make { statements, is_advice } in &plan.make {
                open.statements.extend(with_needs(statements));
                open.stops |= !is_advice;
            }
            open.stops |= !plan.needed.is_empty();
            open.statements.extend(plan.needed.into_iter().chain(plan.advised));
            break (shape, plan.again);
        };
        if open.stops && again.is_some() {
            // It is copied again when it fits.
            next = recorded.clone();
        }
        open.statements.extend(self.finish(ends, source, target, &mut next).await?);
        let again = again.filter(|_| !open.stops);
        if let Some(reason) = &again {
            tracing::info!(table = %source.name, "the table is copied again: {reason}");
            self.target.batch_execute("BEGIN").await.map_err(|e| recording(&e))?;
            ask_again(&self.target, &self.name, source.oid, reason).await?;
            record_shape(&self.target, &self.name, source.oid, &next).await?;
            self.target.batch_execute("COMMIT").await.map_err(|e| recording(&e))?;
        }
        if open.stops {
            let since = self.since.entry(source.oid).or_default();
            if since.0 != source.digest || since.1 == Lsn::ZERO {
                *since = (source.digest.clone(), ends.at);
            }
            open.is_early = since.1 > ends.checkpoint;
            self.is_waiting |= open.is_early;
        }
        if !open.statements.is_empty() {
            let known = self.open.entry(source.oid).or_default();
            open.statements.splice(0..0, std::mem::take(&mut known.statements));
            *known = open;
        }
        let is_new = !made.is_empty() || again.is_some() || is_new_to_the_stream(recorded, &next);
        Ok((is_new.then(|| format!("the source's table {} has changed", source.name)), next))
    }

    async fn target_now(&self, target: &Table) -> Result<Table> {
        let mut now = tables(&self.target, Side::Target, &[target.oid]).await?;
        now.remove(&target.oid).ok_or_else(|| Fault::retry("a table has gone meanwhile").on(Side::Target))
    }

    /// Makes it; or says why the target refuses that.
    pub(super) async fn make(
        &mut self,
        table: &TableName,
        statements: &[String],
    ) -> Result<Result<(), String>> {
        let Err(error) = make(&self.target, table, statements).await else {
            tracing::info!("made on the target: {}", statements.join("; "));
            return Ok(Ok(()));
        };
        let fault = Fault::sql(Side::Target, "changing the schema", &error).table(table.to_string());
        if fault.is_unreachable() {
            return Err(fault);
        }
        // A lock that can't be had for now, say: meanwhile the stream goes on as far as it can.
        self.is_waiting |= fault.reaction() == Reaction::Retry;
        Ok(Err(fault.what().to_owned()))
    }

    pub(super) async fn is_there(&self, function: &str, name: &str) -> Result<bool> {
        let sql = format!("SELECT pg_catalog.{function}($1) IS NOT NULL");
        let row = self.target.query_one(&sql, &[&name]).await;
        Ok(row.map_err(|e| Fault::sql(Side::Target, "looking for a name", &e))?.get(0))
    }

    /// Warns of what a person has to run, until it is.
    async fn tell(&mut self) -> Result<()> {
        let open: Vec<&str> = self.open.values().map(|open| open.table.as_str()).collect();
        self.ledger.resolve_warnings(NOT_ALIKE, &open).await?;
        for open in self.open.values() {
            let what = match &open.refusal {
                None => "the source's table has changed, and the target's isn't yet as that is".to_owned(),
                Some(refusal) => {
                    format!("the source's table has changed, and the target refuses that: {refusal}")
                }
            };
            let remedy = match open.is_early {
                true => {
                    "nothing yet: the statement is said when the changes from before have come".to_owned()
                }
                false => remedy(open),
            };
            let fault = Fault::person(what).on(Side::Target).table(&open.table).remedy(remedy);
            if !self.told.contains(open) {
                tracing::warn!("{fault}");
            }
            self.ledger.record_warning(&open.table, NOT_ALIKE, &fault).await?;
        }
        self.told = self.open.values().cloned().collect();
        Ok(())
    }
}

/// What a database's catalog is like: another text when anything was done to a table, a column, a key or an enum.
///
/// # Errors
/// If the database can't be asked.
pub async fn seen(client: &Client, side: Side) -> Result<String> {
    let sql = with_digest(include_str!("../../../sql/catalog/seen.sql"));
    let row = client.query_one(&sql, &[]).await;
    Ok(row.map_err(|e| Fault::sql(side, "looking whether the schema has changed", &e))?.get(0))
}

/// True if what is open can be why this has failed.
fn explains(open: &Open, fault: &Fault) -> bool {
    match fault.code().map(|code| code.code()) {
        Some(code) => matches!(code, "23502" | "23505") || matches!(&code[..2], "22" | "42"),
        None => open.stops,
    }
}

fn recording(error: &tokio_postgres::Error) -> Fault {
    Fault::sql(Side::Target, "recording that a table is copied again", error)
}

fn remedy(open: &Open) -> String {
    format!("on the target: {}; it goes on by itself within moments", open.statements.join("; "))
}

/// The shape, without what nothing can come of any more.
fn settled(mut shape: Shape, source: &Table, checkpoint: Lsn) -> Shape {
    shape.earlier.retain(|earlier| earlier.until.is_some_and(|until| until > checkpoint));
    if shape.is_of(source) {
        shape.filenode = source.filenode;
    }
    shape
}
