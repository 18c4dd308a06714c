//! A look at both catalogs, and what is done about what has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

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
use crate::schema::diff::Kind;
use crate::schema::diff::mend::mend;
use crate::schema::diff::read::{Catalog, Id, Object, catalog, relocate};
use crate::schema::diff::tokens::literals;

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
    open: BTreeMap<u32, Open>,
    /// What the log was told of that last.
    told: Vec<Open>,
    known: HashMap<u32, Known>,
    /// What was done since somebody has taken that.
    done: Vec<String>,
    /// Something is to be done when the checkpoint has come further.
    is_waiting: bool,
}

/// What of a table it is that isn't as on the source.
const NOT_ALIKE: &str = "schema";

/// What one look has at hand.
struct Ends {
    published: BTreeMap<u32, PublishedTable>,
    there: BTreeMap<u32, Table>,
    here: BTreeMap<u32, Table>,
    /// A position of the source's log behind all of that.
    at: Lsn,
    checkpoint: Lsn,
    /// Tables that are being copied, or will be.
    unfinished: Vec<u32>,
    objects: Option<(Catalog, Catalog)>,
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
        let sql = with_digest(include_str!("../../../sql/catalog/seen.sql"));
        let (source, target) =
            tokio::join!(self.source.query_one(&sql, &[]), self.target.query_one(&sql, &[]));
        let fault = |side| move |e| Fault::sql(side, "looking whether the schema has changed", &e);
        Ok([source.map_err(fault(Side::Source))?.get(0), target.map_err(fault(Side::Target))?.get(0)])
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
    async fn objects(&self, ends: &mut Ends, anew: bool) -> Result<(Catalog, Catalog)> {
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
    async fn catalogs(&self, schemas: &[String]) -> Result<(Catalog, Catalog)> {
        let (there, here) = tokio::try_join!(
            catalog(&self.source, Side::Source, schemas),
            catalog(&self.target, Side::Target, schemas)
        )?;
        Ok((relocate(&self.source, there, &here).await?, here))
    }

    /// Makes tables that the target lacks, with what belongs to them: a new table, or a partitioned one with its
    /// partitions. Says what is in the way, or what a person has to run.
    ///
    /// # Errors
    /// If a database can't be asked.
    pub async fn make_tables(&mut self, name: &TableName, tables: &[TableName]) -> Result<Option<Fault>> {
        if self.is_there("to_regclass", &name.to_sql()).await? {
            return Ok(None);
        }
        let schemas: BTreeSet<&String> = tables.iter().map(|table| &table.schema).collect();
        let schemas: Vec<String> = schemas.into_iter().cloned().collect();
        let (there, here) = self.catalogs(&schemas).await?;
        let is_theirs = |(id, object): &(&Id, &Object)| {
            object.table.as_ref().is_some_and(|table| tables.contains(table)) && !here.contains_key(id)
        };
        let mut objects: Vec<&Object> = there.iter().filter(is_theirs).map(|(_, object)| object).collect();
        // Sequences are made with what needs them.
        objects
            .retain(|object| !matches!(object.kind, Kind::Column | Kind::Sequence) && object.make.is_some());
        // Parents before those that have them.
        objects.sort_by_key(|object| {
            (
                object.kind,
                object.facet("partition of").is_some() || object.facet("inherits").is_some(),
                object.oid,
            )
        });
        let has_rows = |object: &&Object| matches!(object.kind, Kind::Table | Kind::PrimaryKey);
        let (first, then): (Vec<&Object>, Vec<&Object>) = objects.into_iter().partition(has_rows);
        let statements = |objects: &[&Object], here: &Catalog| -> Vec<String> {
            let statements: Vec<String> =
                objects.iter().flat_map(|object| object.make.clone().unwrap_or_default()).collect();
            [needed(&statements, &there, here), statements].concat()
        };
        let first = statements(&first, &here);
        let fault = |what: String| {
            let remedy = format!("on the target: {}; it is followed by itself then", first.join("; "));
            Fault::person(what).on(Side::Target).table(name.to_string()).remedy(remedy)
        };
        if self.ddl == Ddl::None {
            return Ok(Some(fault("the source has a new table, which the target lacks".to_owned())));
        }
        if let Err(refusal) = self.make(name, &first).await? {
            return Ok(Some(fault(format!(
                "the source has a new table, which the target refuses: {refusal}"
            ))));
        }
        let (_, here) = self.catalogs(&schemas).await?;
        for object in then {
            // What can't be made now is missing in `cdc schema diff`.
            if let Err(refusal) = self.make(name, &statements(&[object], &here)).await? {
                tracing::warn!(table = %name, "{} {} is not made: {refusal}", object.kind.as_str(), object.name);
            }
        }
        Ok(None)
    }

    /// The labels of enums that the target lacks.
    async fn enums(&mut self, ends: &mut Ends) -> Result<Option<String>> {
        let labels = "SELECT enumtypid::pg_catalog.regtype::text, enumlabel::text FROM pg_catalog.pg_enum ORDER BY 1, enumsortorder";
        let (there, here) = tokio::join!(self.source.query(labels, &[]), self.target.query(labels, &[]));
        let there = there.map_err(|e| Fault::sql(Side::Source, "reading the enums", &e))?;
        let here = here.map_err(|e| Fault::sql(Side::Target, "reading the enums", &e))?;
        let here: BTreeSet<(String, String)> = here.iter().map(|row| (row.get(0), row.get(1))).collect();
        let types: BTreeSet<&String> = here.iter().map(|(name, _)| name).collect();
        let lacks = |row: &tokio_postgres::Row| {
            let (name, label): (String, String) = (row.get(0), row.get(1));
            types.contains(&name) && !here.contains(&(name, label))
        };
        if !there.iter().any(lacks) {
            return Ok(None);
        }
        let (there, here) = self.objects(ends, false).await?;
        let mut done = Vec::new();
        for (id, object) in there.iter().filter(|(id, _)| id.0 == Kind::Enum) {
            let Some(target) = here.get(id).filter(|target| target.facets != object.facets) else { continue };
            let statements = match renamed_label(object, target) {
                Some(rename) => Err(rename),
                None => Ok(mend(object, target, &["labels"])),
            };
            match statements {
                Ok(statements) if statements.is_empty() => {}
                Ok(statements) if self.ddl == Ddl::Additive => {
                    for statement in &statements {
                        // In transactions of their own: a value can't be used in the one that adds it.
                        let added = self.target.batch_execute(statement).await;
                        added.map_err(|e| Fault::sql(Side::Target, "adding a value to an enum", &e))?;
                        tracing::info!("made on the target: {statement}");
                    }
                    done.push(format!("the enum {} has got values", object.name));
                }
                Ok(statements) | Err(statements) => {
                    for (relation, table) in users(&ends.there, &object.name) {
                        let open = self.open.entry(relation).or_default();
                        open.table = table;
                        open.statements.extend(statements.iter().cloned());
                    }
                }
            }
        }
        if !done.is_empty() {
            self.objects(ends, true).await?;
        }
        Ok((!done.is_empty()).then(|| done.join(", ")))
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
    async fn make(&self, table: &TableName, statements: &[String]) -> Result<Result<(), String>> {
        let Err(error) = make(&self.target, table, statements).await else {
            tracing::info!("made on the target: {}", statements.join("; "));
            return Ok(Ok(()));
        };
        let fault = Fault::sql(Side::Target, "changing the schema", &error).table(table.to_string());
        match fault.reaction() {
            Reaction::Retry => Err(fault),
            Reaction::Person | Reaction::CopyAgain | Reaction::Usage | Reaction::Bug => {
                Ok(Err(fault.what().to_owned()))
            }
        }
    }

    /// Gives new columns the default that they have on the source, and NOT NULL, once every row of before is here.
    /// Gives the statements that may not be run.
    async fn finish(
        &mut self,
        ends: &mut Ends,
        source: &Table,
        target: &Table,
        next: &mut Shape,
    ) -> Result<Vec<String>> {
        let checkpoint = ends.checkpoint;
        let is_due = |lsn: Option<Lsn>| lsn.is_some_and(|lsn| lsn <= checkpoint);
        if ends.unfinished.contains(&source.oid) || !next.columns.iter().any(|c| is_due(c.unfinished)) {
            return Ok(Vec::new());
        }
        let (there, here) = self.objects(ends, false).await?;
        let object = |catalog: &Catalog, table: &Table, name: &str| {
            let object = table.by_name(name)?.object.clone();
            catalog.get(&(Kind::Column, object)).cloned()
        };
        let mut statements = Vec::new();
        for column in next.columns.iter().filter(|column| is_due(column.unfinished)) {
            let both = object(&there, source, &column.name).zip(object(&here, target, &column.name));
            if let Some((wanted, has)) = both {
                statements.extend(finishing(target.altered_as(), &column.name, &wanted, &has));
            }
        }
        let owners = there.iter().filter(|(id, object)| {
            id.0 == Kind::SequenceOwner
                && object.table.as_ref() == Some(&source.name)
                && !here.contains_key(id)
        });
        let owners: Vec<String> =
            owners.flat_map(|(_, object)| object.make.clone().unwrap_or_default()).collect();
        let all = [needed(&statements, &there, &here), statements, owners].concat();
        if !all.is_empty() && (self.ddl == Ddl::None || self.make(target.altered_as(), &all).await?.is_err())
        {
            return Ok(all);
        }
        next.columns
            .iter_mut()
            .filter(|column| is_due(column.unfinished))
            .for_each(|column| column.unfinished = None);
        ends.objects = None;
        Ok(Vec::new())
    }

    async fn is_there(&self, function: &str, name: &str) -> Result<bool> {
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
            let fault = Fault::person(what).on(Side::Target).table(&open.table).remedy(remedy(open));
            if !self.told.contains(open) {
                tracing::warn!("{fault}");
            }
            self.ledger.record_warning(&open.table, NOT_ALIKE, &fault).await?;
        }
        self.told = self.open.values().cloned().collect();
        Ok(())
    }
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

/// What makes a column's default and NOT NULL the source's.
fn finishing(table: &TableName, column: &str, wanted: &Object, has: &Object) -> Vec<String> {
    let mut actions = Vec::new();
    match (wanted.facet("default"), has.facet("default")) {
        (wanted, has) if wanted == has => {}
        (Some(default), _) => actions.push(format!("SET DEFAULT {default}")),
        (None, _) => actions.push("DROP DEFAULT".to_owned()),
    }
    if wanted.facet("not null").is_some() && has.facet("not null").is_none() {
        actions.push("SET NOT NULL".to_owned());
    }
    let column = quote_identifier(column);
    actions
        .iter()
        .map(|action| format!("ALTER TABLE {} ALTER COLUMN {column} {action}", table.to_sql()))
        .collect()
}

/// The statement that renames a label: the target has another one where the source has one that it lacks. Rows that
/// have it look different on the source from then on, and no change says so.
fn renamed_label(source: &Object, target: &Object) -> Option<Vec<String>> {
    let labels = |object: &Object| -> Vec<String> {
        let labels = object.facet("labels").map(literals).unwrap_or_default();
        labels.into_iter().map(str::to_owned).collect()
    };
    let (wanted, has) = (labels(source), labels(target));
    let renamed = has.iter().filter(|label| !wanted.contains(label)).map(|label| {
        let place = has.iter().position(|other| other == label)?;
        let new = wanted.get(place).filter(|new| !has.contains(new))?;
        Some(format!("ALTER TYPE {} RENAME VALUE {label} TO {new}", source.name))
    });
    let renamed: Vec<String> = renamed.flatten().collect();
    (!renamed.is_empty()).then_some(renamed)
}

/// The tables with a column of this type.
fn users(tables: &BTreeMap<u32, Table>, type_name: &str) -> Vec<(u32, String)> {
    let uses = |table: &&Table| {
        table.columns.iter().any(|column| column.type_name.trim_end_matches("[]") == type_name)
    };
    tables.values().filter(uses).map(|table| (table.oid, table.name.to_string())).collect()
}
