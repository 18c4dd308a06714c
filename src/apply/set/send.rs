//! The statements of a batch in sets.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::types::{ArrayDimension, array_to_sql};
use tokio_postgres::types::{Format, Type};

use super::net::{Effects, Key, Row, net};
use super::{Allowed, Group, Segment, SetShape, alone, relation_of, segments};
use crate::apply::batch::Batch;
use crate::apply::encoded::{Encoded, What};
use crate::apply::encoder::Encoder;
use crate::apply::explain::{RoundFailure, advised};
use crate::apply::statement::Statement;
use crate::apply::statements::Kind;
use crate::apply::table::Fitted;
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::pgoutput::Value;

/// Rows are found by the key's index and taken from where it says they are, whatever the statistics say.
const BY_INDEX: [&str; 3] =
    ["SET LOCAL enable_seqscan = off", "SET LOCAL enable_hashjoin = off", "SET LOCAL enable_mergejoin = off"];

/// As the planner likes it again.
const AS_BEFORE: [&str; 3] =
    ["SET LOCAL enable_seqscan = on", "SET LOCAL enable_hashjoin = on", "SET LOCAL enable_mergejoin = on"];

impl Encoder {
    /// Adds the changes of a batch in sets, as far as they can be.
    ///
    /// # Errors
    /// If one can't be sent.
    pub(in crate::apply) async fn in_sets(
        &mut self,
        encoded: &mut Encoded,
        batch: &Batch,
    ) -> Result<(), RoundFailure> {
        for segment in segments(batch) {
            self.segment(encoded, batch, segment).await?;
        }
        Ok(())
    }

    async fn segment(
        &mut self,
        encoded: &mut Encoded,
        batch: &Batch,
        segment: Segment<'_>,
    ) -> Result<(), RoundFailure> {
        let groups = self.groups(&segment).await?;
        let mut effects = BTreeMap::new();
        for (oid, group) in alone(&groups) {
            let has_gone = group.table.columns.iter().any(|column| column.is_gone);
            if group.changes.len() >= limits::SET_TABLE_CHANGES && !has_gone && !self.sets.rests(oid) {
                let only_inserts = self.allowed(&group.table).await? == Allowed::Inserts;
                let few = if only_inserts { limits::SET_CHANGES } else { limits::SET_TABLE_CHANGES };
                if group.changes.len() >= few
                    && let Some(net) = net(&group.table, &group.changes, only_inserts)
                {
                    effects.insert(oid, net);
                }
            }
            tokio::task::yield_now().await;
        }
        for (place, change) in segment {
            if !relation_of(change).is_some_and(|relation| effects.contains_key(&relation.oid)) {
                self.change(encoded, batch, place, change).await?;
            }
        }
        if effects.is_empty() {
            return Ok(());
        }
        for setting in BY_INDEX {
            encoded.frame(setting)?;
        }
        for (oid, effects) in effects {
            let group = &groups[&oid];
            encoded.in_sets += group.changes.len();
            self.effects(encoded, group, effects).await?;
        }
        for setting in AS_BEFORE {
            encoded.frame(setting)?;
        }
        Ok(())
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
            .map_err(|e| advised(Fault::sql(Side::Target, "describing a table", &e)))
            .map_err(|fault| fault.table(table.target.to_string()))?;
        let are_found = row.get::<_, bool>("tells_rows_apart") && !table.is_partitioned;
        let allowed = Allowed::by(&table.relation, are_found && row.get::<_, bool>("reads_text"));
        self.sets.tables.insert(oid, (Arc::clone(table), allowed));
        Ok(allowed)
    }

    /// Adds what a table's changes come to.
    async fn effects(
        &mut self,
        encoded: &mut Encoded,
        group: &Group<'_>,
        effects: Effects<'_>,
    ) -> Result<()> {
        let Effects { passing, deleted, updated, inserted } = effects;
        self.set(encoded, group, SetShape::Find, &keys(&passing), 0)?;
        self.set(encoded, group, SetShape::Delete, &keys(&deleted), deleted.len())?;
        for (set, rows) in updated {
            tokio::task::yield_now().await;
            let count = rows.len();
            let (found, rows): (Vec<Key<'_>>, Vec<Row<'_>>) = rows.into_iter().unzip();
            let mut columns = keys(&found);
            let written = (0..group.table.columns.len()).filter(|i| set.has(*i));
            columns.extend(written.map(|i| column(&rows, i)));
            self.set(encoded, group, SetShape::Update(set), &columns, count)?;
        }
        let reads_text = self.allowed(&group.table).await? == Allowed::All;
        if inserted.len() >= limits::SET_COPY_ROWS || (!reads_text && !inserted.is_empty()) {
            return self.copy(encoded, group, &inserted).await;
        }
        let columns: Vec<Texts<'_>> = match inserted.is_empty() {
            true => Vec::new(),
            false => (0..group.table.columns.len()).map(|i| column(&inserted, i)).collect(),
        };
        self.set(encoded, group, SetShape::Insert, &columns, inserted.len())
    }

    /// Adds a statement that must touch this many rows, if there are any values for it.
    fn set(
        &mut self,
        encoded: &mut Encoded,
        group: &Group<'_>,
        shape: SetShape,
        columns: &[Texts<'_>],
        rows: usize,
    ) -> Result<()> {
        if columns.is_empty() {
            return Ok(());
        }
        let kind = Kind::Set(group.table.relation.oid, shape.clone());
        let types = vec![Type::TEXT_ARRAY; columns.len()];
        let make = |_: &Kind| Statement { sql: shape.sql(&group.table), parameters: Vec::new() };
        let prepared = self.statements.get(encoded, kind, &types, make)?;
        encoded.script.execute(&prepared.name, Format::Binary, columns, put_array)?;
        encoded.expect(What::Change(group.first), u64::try_from(rows).ok());
        Ok(())
    }

    /// Adds a COPY of new rows.
    async fn copy(&mut self, encoded: &mut Encoded, group: &Group<'_>, rows: &[Row<'_>]) -> Result<()> {
        encoded.script.run(&SetShape::Copy.sql(&group.table))?;
        let mut gathered = BytesMut::with_capacity(limits::COPY_MESSAGE_BYTES);
        for row in rows {
            for column in 0..group.table.columns.len() {
                put_field(text(row.value(column)), column > 0, &mut gathered);
            }
            gathered.put_u8(b'\n');
            if gathered.len() >= limits::COPY_MESSAGE_BYTES {
                encoded.script.copy_data(&gathered)?;
                gathered.clear();
                tokio::task::yield_now().await;
            }
        }
        encoded.script.copy_data(&gathered)?;
        encoded.script.copy_done();
        encoded.expect(What::Change(group.first), u64::try_from(rows.len()).ok());
        Ok(())
    }
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

/// A column of rows.
fn column<'a>(rows: &[Row<'a>], column: usize) -> Texts<'a> {
    rows.iter().map(|row| text(row.value(column))).collect()
}

/// The columns of keys; none at all of no keys.
fn keys<'a>(keys: &[Key<'a>]) -> Vec<Texts<'a>> {
    let mut columns: Vec<Texts<'a>> = Vec::new();
    for key in keys {
        for (i, value) in key.iter().enumerate() {
            if columns.len() <= i {
                columns.push(Vec::with_capacity(keys.len()));
            }
            columns[i].push(Some(*value));
        }
    }
    columns
}

/// A column of many rows, in the text that the source's output function wrote.
type Texts<'a> = Vec<Option<&'a [u8]>>;

/// A column as an array of text.
fn put_array(
    column: &Texts<'_>,
    out: &mut BytesMut,
) -> std::result::Result<IsNull, Box<dyn Error + Sync + Send>> {
    let dimension = ArrayDimension { len: i32::try_from(column.len())?, lower_bound: 1 };
    let put = |value: &Option<&[u8]>, out: &mut BytesMut| match value {
        Some(text) => {
            out.put_slice(text);
            Ok(IsNull::No)
        }
        None => Ok(IsNull::Yes),
    };
    array_to_sql([dimension], Type::TEXT.oid(), column, put, out)?;
    Ok(IsNull::No)
}
