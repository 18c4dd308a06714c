//! One round of sets: all statements of a batch, pipelined as far as COPY lets them.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use postgres_protocol::types::{ArrayDimension, array_to_sql};
use tokio_postgres::Statement;
use tokio_postgres::types::{IsNull, ToSql, Type};

use super::net::{Effects, Key, Row, net};
use super::{Allowed, Group, Segment, SetShape, Sets, alone, relation_of, segments};
use crate::apply::applier::Applier;
use crate::apply::batch::{Batch, Change};
use crate::apply::explain::{RoundFailure, explain, refused};
use crate::apply::in_flight::{InFlight, Place, Trouble, Wrong};
use crate::apply::table::Fitted;
use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::limits;
use crate::pgoutput::{PgTimestamp, Value};

/// What fails is undone to here, and earlier pieces of a huge transaction stay. Rows are found by the key's index
/// and taken from where it says they are, whatever the statistics say.
const BEGIN: &str = "SAVEPOINT sets; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
                     SET LOCAL enable_mergejoin = off";

/// A round that didn't work.
struct SetFailure {
    fault: Fault,
    /// The source's oid of the table that it was at, if it is known.
    relation: Option<u32>,
}

impl From<Fault> for SetFailure {
    fn from(fault: Fault) -> Self {
        Self { fault, relation: None }
    }
}

impl From<RoundFailure> for SetFailure {
    fn from(failure: RoundFailure) -> Self {
        failure.fault.into()
    }
}

impl Applier {
    /// Applies a batch in sets, as far as its changes can be, in the open transaction, and gives how many
    /// were; `None` if it isn't worth it or has failed, and nothing is applied then.
    ///
    /// # Errors
    /// If it failed for a reason that passes.
    pub(in crate::apply) async fn in_sets<'a>(
        &mut self,
        session: &'a Arc<Session>,
        batch: &'a Batch,
        caught_up_to: Option<PgTimestamp>,
    ) -> Result<Option<usize>, RoundFailure> {
        if !Sets::suit(batch) {
            return Ok(None);
        }
        let failure = match self.round_of_sets(session, batch, caught_up_to).await {
            Ok(changes) => return Ok(Some(changes)),
            Err(failure) if failure.fault.reaction() == Reaction::Retry && !failure.fault.is_unfit() => {
                return Err(failure.fault.into());
            }
            Err(failure) => failure,
        };
        tracing::debug!("a batch goes row by row: {}", failure.fault);
        if let Some(relation) = failure.relation {
            self.sets.rest(relation);
        }
        let back = session.batch_execute("ROLLBACK TO SAVEPOINT sets; RELEASE SAVEPOINT sets").await;
        back.map_err(|e| Fault::sql(Side::Target, "undoing a part of a batch", &e))?;
        Ok(None)
    }

    async fn round_of_sets<'a>(
        &mut self,
        session: &'a Arc<Session>,
        batch: &'a Batch,
        caught_up_to: Option<PgTimestamp>,
    ) -> Result<usize, SetFailure> {
        let mut in_flight = InFlight::default();
        let doing = |trouble| SetFailure::of(batch, trouble);
        self.begin(session, &mut in_flight).await.map_err(doing)?;
        let begin = async move { session.batch_execute(BEGIN).await.map(|()| 0) };
        in_flight.push(begin, 0, None, None).await.map_err(doing)?;
        let mut in_sets = 0;
        for segment in segments(batch) {
            in_sets += self.send_segment(session, &mut in_flight, batch, segment).await?;
        }
        if batch.end.is_none() {
            // Left in place, the savepoints of a huge transaction's pieces would be inside each other.
            let release = async move { session.batch_execute("RELEASE SAVEPOINT sets").await.map(|()| 0) };
            in_flight.push(release, 0, None, None).await.map_err(doing)?;
        }
        self.settle(in_flight, batch, caught_up_to).await?;
        Ok(in_sets)
    }

    /// Sends a segment and gives how many of its changes were in sets.
    async fn send_segment<'a>(
        &mut self,
        session: &'a Arc<Session>,
        in_flight: &mut InFlight<'a>,
        batch: &'a Batch,
        segment: Segment<'a>,
    ) -> Result<usize, SetFailure> {
        let groups = self.groups(&segment).await?;
        let mut effects = BTreeMap::new();
        for (oid, group) in alone(&groups) {
            let has_gone = group.table.columns.iter().any(|column| column.is_gone);
            if group.changes.len() >= limits::SET_CHANGES && !has_gone && !self.sets.rests(oid) {
                let only_inserts = self.allowed(&group.table).await? == Allowed::Inserts;
                if let Some(net) = net(&group.table, &group.changes, only_inserts) {
                    effects.insert(oid, net);
                }
            }
        }
        for (place, change) in segment {
            if !relation_of(change).is_some_and(|relation| effects.contains_key(&relation.oid)) {
                self.send(session, in_flight, batch, place, change).await?;
            }
        }
        let mut in_sets = 0;
        for (oid, effects) in effects {
            let group = &groups[&oid];
            in_sets += group.changes.len();
            self.send_effects(session, in_flight, group, effects)
                .await
                .map_err(|trouble| SetFailure::of(batch, trouble))?;
        }
        Ok(in_sets)
    }

    /// The changes of rows by table.
    async fn groups<'a>(&mut self, segment: &Segment<'a>) -> Result<BTreeMap<u32, Group<'a>>> {
        let mut groups: BTreeMap<u32, Group<'a>> = BTreeMap::new();
        for &(first, change) in segment {
            let Some(relation) = relation_of(change) else { continue };
            if let Some(group) = groups.get_mut(&relation.oid) {
                group.changes.push(change);
            } else {
                let table = self.fitted(relation).await?;
                groups.insert(relation.oid, Group { table, first, changes: vec![change] });
            }
        }
        Ok(groups)
    }

    /// What the target's table allows.
    async fn allowed(&mut self, table: &Arc<Fitted>) -> Result<Allowed> {
        let oid = table.relation.oid;
        if let Some((known, allowed)) = self.sets.tables.get(&oid)
            && Arc::ptr_eq(known, table)
        {
            return Ok(*allowed);
        }
        let keys: Vec<&str> = table.columns.iter().filter(|c| c.is_key).map(|c| c.name.as_str()).collect();
        let types: Vec<&str> = table.columns.iter().map(|c| c.type_name.as_str()).collect();
        let row = self
            .session
            .query_one(
                include_str!("../../../sql/catalog/set_target.sql"),
                &[&table.target.schema, &table.target.name, &keys, &types],
            )
            .await
            .map_err(|e| refused("describing a table", &e).table(table.target.to_string()))?;
        let are_found = row.get::<_, bool>("tells_rows_apart") && !table.is_partitioned;
        let allowed = Allowed::by(&table.relation, are_found && row.get::<_, bool>("reads_text"));
        self.sets.tables.insert(oid, (Arc::clone(table), allowed));
        Ok(allowed)
    }

    /// Sends what a table's changes come to.
    async fn send_effects<'a>(
        &mut self,
        session: &'a Arc<Session>,
        in_flight: &mut InFlight<'a>,
        group: &Group<'a>,
        effects: Effects<'a>,
    ) -> Result<(), Trouble> {
        let Effects { passing, deleted, updated, inserted } = effects;
        let none = Some(0);
        self.send_set(session, in_flight, group, SetShape::Find, keys(&passing), none).await?;
        let all = u64::try_from(deleted.len()).ok();
        self.send_set(session, in_flight, group, SetShape::Delete, keys(&deleted), all).await?;
        for (set, rows) in updated {
            let all = u64::try_from(rows.len()).ok();
            let (found, rows): (Vec<Key<'a>>, Vec<Row<'a>>) = rows.into_iter().unzip();
            let mut columns = keys(&found);
            let written = (0..group.table.columns.len()).filter(|i| set.has(*i));
            columns.extend(written.map(|i| Texts(rows.iter().map(|row| text(row.value(i))).collect())));
            self.send_set(session, in_flight, group, SetShape::Update(set), columns, all).await?;
        }
        if inserted.is_empty() {
            return Ok(());
        }
        let copy = self.set_statement(session, in_flight, group, SetShape::Insert).await?;
        copy_in(session, in_flight, group, &copy, &inserted).await
    }

    /// Sends a statement that must touch this many rows, if there are any values for it.
    async fn send_set<'a>(
        &mut self,
        session: &'a Arc<Session>,
        in_flight: &mut InFlight<'a>,
        group: &Group<'a>,
        shape: SetShape,
        columns: Vec<Texts<'a>>,
        rows: Option<u64>,
    ) -> Result<(), Trouble> {
        if columns.is_empty() {
            return Ok(());
        }
        let statement = self.set_statement(session, in_flight, group, shape).await?;
        let bytes = columns.iter().map(Texts::bytes).sum();
        let execute = async move { session.execute_raw(&statement, columns).await };
        in_flight.push(execute, bytes, Some(group.first), rows).await
    }

    async fn set_statement(
        &mut self,
        session: &Session,
        in_flight: &mut InFlight<'_>,
        group: &Group<'_>,
        shape: SetShape,
    ) -> Result<Statement, Trouble> {
        let key = (group.table.relation.oid, shape);
        if let Some(statement) = self.sets.statements.get(&key) {
            return Ok(statement.clone());
        }
        let types = vec![Type::TEXT_ARRAY; key.1.parameters(&group.table)];
        let statement = match session.prepare_typed(&key.1.sql(&group.table), &types).await {
            Ok(statement) => statement,
            Err(error) => {
                // An earlier statement that has failed is the cause.
                in_flight.drain().await?;
                return Err((Some(group.first), Wrong::Refused(error)));
            }
        };
        if self.sets.statements.len() >= limits::PREPARED_STATEMENTS {
            self.sets.statements.clear();
        }
        self.sets.statements.insert(key, statement.clone());
        Ok(statement)
    }
}

impl SetFailure {
    fn of(batch: &Batch, trouble: Trouble) -> Self {
        let place: Option<Place> = trouble.0;
        let change: Option<&Change> = place.map(|p| &batch.transactions[p.transaction].changes[p.change]);
        let relation = change.and_then(relation_of).map(|relation| relation.oid);
        Self { fault: explain(batch, trouble).fault, relation }
    }
}

/// Copies new rows in.
async fn copy_in<'a>(
    session: &'a Session,
    in_flight: &mut InFlight<'a>,
    group: &Group<'a>,
    statement: &Statement,
    rows: &[Row<'a>],
) -> Result<(), Trouble> {
    let failed = |e| (Some(group.first), Wrong::Refused(e));
    // Refused, it would leave an answer too many behind it: nothing that can fail may be under way.
    in_flight.drain().await?;
    let mut sink = Box::pin(session.copy_in::<_, Bytes>(statement).await.map_err(failed)?);
    let mut gathered = BytesMut::with_capacity(limits::COPY_MESSAGE_BYTES);
    for row in rows {
        for column in 0..group.table.columns.len() {
            put_field(text(row.value(column)), column > 0, &mut gathered);
        }
        gathered.put_u8(b'\n');
        if gathered.len() >= limits::COPY_MESSAGE_BYTES {
            sink.feed(gathered.split().freeze()).await.map_err(failed)?;
        }
    }
    sink.feed(gathered.freeze()).await.map_err(failed)?;
    // Then the first poll of what follows sends all of it, and statements behind it don't wait for the next.
    sink.flush().await.map_err(failed)?;
    let finish = async move { sink.as_mut().finish().await };
    in_flight.push(finish, 0, Some(group.first), u64::try_from(rows.len()).ok()).await
}

/// A value as COPY reads it.
fn put_field(value: Option<&[u8]>, is_next: bool, out: &mut BytesMut) {
    if is_next {
        out.put_u8(b'\t');
    }
    let Some(mut rest) = value else { return out.put_slice(b"\\N") };
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t')) {
        out.put_slice(&rest[..at]);
        out.put_slice(match rest[at] {
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            _ => b"\\\\",
        });
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
}

fn text(value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::Text(text) => Some(text),
        Value::Null | Value::Unchanged | Value::Binary(_) => None,
    }
}

/// The columns of keys; none at all of no keys.
fn keys<'a>(keys: &[Key<'a>]) -> Vec<Texts<'a>> {
    let mut columns: Vec<Texts<'a>> = Vec::new();
    for key in keys {
        for (i, value) in key.iter().enumerate() {
            if columns.len() <= i {
                columns.push(Texts(Vec::with_capacity(keys.len())));
            }
            columns[i].0.push(Some(*value));
        }
    }
    columns
}

/// A column of many rows, in the text that the source's output function wrote.
#[derive(Debug)]
struct Texts<'a>(Vec<Option<&'a [u8]>>);

impl Texts<'_> {
    fn bytes(&self) -> usize {
        self.0.iter().map(|value| 4 + value.map_or(0, <[u8]>::len)).sum()
    }
}

impl ToSql for Texts<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let dimension = ArrayDimension { len: i32::try_from(self.0.len())?, lower_bound: 1 };
        let put = |value: &Option<&[u8]>, out: &mut BytesMut| match value {
            Some(text) => {
                out.put_slice(text);
                Ok(postgres_protocol::IsNull::No)
            }
            None => Ok(postgres_protocol::IsNull::Yes),
        };
        array_to_sql([dimension], Type::TEXT.oid(), &self.0, put, out)?;
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT_ARRAY
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(ty, out)
    }
}
