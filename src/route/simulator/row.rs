//! Tables and rows: what they look like in the stream, and in which chunk a row is.

use std::sync::Arc;

use crate::chunk::{KeyRange, KeyType, KeyValue};
use crate::pgoutput::{Column, OldTuple, Relation, ReplicaIdentity, Tuple, Value};

/// `id`, `value` and `doc`, a value that can be stored out of line.
pub(super) type Row = [Option<i32>; 3];

/// A value as the stream tells it; `None` if it doesn't.
pub(super) type Cell = Option<Option<i32>>;

const COLUMNS: [&str; 3] = ["id", "value", "doc"];

/// What identifies the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Its primary key, `id`.
    Key,
    /// All columns; its chunks are ranges of its primary key.
    FullWithKey,
    /// All columns, and it has no key: rows can be there twice, and everything can be NULL.
    FullBare,
}

/// A table, the same on source and target.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) identity: Identity,
    key: KeyType,
    pub(super) relation: Arc<Relation>,
    /// Where its second chunk begins, and each further one.
    bounds: Vec<i32>,
}

impl Table {
    pub(super) fn new(place: usize, identity: Identity, key: KeyType, bounds: Vec<i32>) -> Self {
        let oid = 100 + u32::try_from(place).unwrap();
        let columns = COLUMNS.map(|name| Column {
            name: name.to_owned(),
            type_oid: 23,
            type_modifier: -1,
            is_key: name == "id" || identity != Identity::Key,
        });
        let relation = Arc::new(Relation {
            oid,
            schema: "public".to_owned(),
            name: format!("t{place}"),
            replica_identity: match identity {
                Identity::Key => ReplicaIdentity::Default,
                Identity::FullWithKey | Identity::FullBare => ReplicaIdentity::Full,
            },
            columns: columns.into(),
        });
        let bounds = if identity == Identity::FullBare { Vec::new() } else { bounds };
        Self { oid, identity, key, relation, bounds }
    }

    pub(super) fn has_key(&self) -> bool {
        self.identity != Identity::FullBare
    }

    pub(super) fn key_columns(&self) -> Vec<(String, KeyType)> {
        if self.bounds.is_empty() { Vec::new() } else { vec![("id".to_owned(), self.key)] }
    }

    pub(super) fn chunks(&self) -> usize {
        self.bounds.len() + 1
    }

    pub(super) fn ranges(&self) -> Vec<KeyRange> {
        let bound = |bound: i32| Some(vec![self.key_value(bound)]);
        let lowers = std::iter::once(None).chain(self.bounds.iter().map(|b| bound(*b)));
        let uppers = self.bounds.iter().map(|b| bound(*b)).chain(std::iter::once(None));
        lowers.zip(uppers).map(|(lower, upper)| KeyRange { lower, upper }).collect()
    }

    /// The ordinal of the chunk that the row is in.
    pub(super) fn chunk_of(&self, row: &Row) -> usize {
        self.bounds.iter().filter(|bound| row[0] >= Some(**bound)).count()
    }

    fn key_value(&self, id: i32) -> KeyValue {
        match self.key {
            KeyType::Integer => KeyValue::Integer(id.into()),
            KeyType::Uuid => KeyValue::Uuid(u128::try_from(id + 1_000).unwrap() << 96),
        }
    }

    fn id_of(&self, text: &[u8]) -> i32 {
        match self.key.parse(text) {
            Some(KeyValue::Integer(id)) => i32::try_from(id).unwrap(),
            Some(KeyValue::Uuid(id)) => i32::try_from(id >> 96).unwrap() - 1_000,
            None => panic!("not a key"),
        }
    }

    /// A row as the stream has it; without `doc` if that was not touched and isn't stored in the row.
    pub(super) fn tuple(&self, row: &Row, doc_is_sent: bool) -> Tuple {
        let texts: Vec<Option<String>> = (0..3)
            .map(|i| {
                let value = row[i]?;
                Some(if i == 0 { self.key_value(value).to_string() } else { value.to_string() })
            })
            .collect();
        let values: Vec<Value<'_>> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| match text {
                Some(_) if i == 2 && !doc_is_sent => Value::Unchanged,
                Some(text) => Value::Text(text.as_bytes()),
                None => Value::Null,
            })
            .collect();
        Tuple::of(&values)
    }

    /// What the stream has of a row that is gone.
    pub(super) fn old(&self, row: &Row) -> OldTuple {
        match self.identity {
            Identity::Key => OldTuple::Key(self.tuple(&[row[0], None, None], true)),
            Identity::FullWithKey | Identity::FullBare => OldTuple::Full(self.tuple(row, true)),
        }
    }

    /// Reads a row of the stream.
    pub(super) fn read(&self, tuple: &Tuple) -> [Cell; 3] {
        let cell = |i| match tuple.value(i) {
            Some(Value::Text(text)) if i == 0 => Some(Some(self.id_of(text))),
            Some(Value::Text(text)) => Some(Some(std::str::from_utf8(text).unwrap().parse().unwrap())),
            Some(Value::Null) => Some(None),
            Some(Value::Unchanged) => None,
            Some(Value::Binary(_)) | None => panic!("not a row of this table"),
        };
        [cell(0), cell(1), cell(2)]
    }
}
