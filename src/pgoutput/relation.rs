//! Relations as the server describes them, and the cache that changes refer to by OID.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::error::{DecodeError, Problem};
use super::reader::{self, Reader};
use super::tuple::Tuple;
use crate::limits;

/// A table as the server publishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its OID on the server.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What identifies a row in updates and deletes.
    pub replica_identity: ReplicaIdentity,
    /// Its published columns, in the order in which every tuple has their values.
    pub columns: Vec<Column>,
}

/// `REPLICA IDENTITY` of a table (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    /// Nothing: updates and deletes can't be published.
    Nothing,
    /// All columns.
    Full,
    /// The columns of a chosen unique index.
    Index,
}

/// A published column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The OID of its type on the server.
    pub type_oid: u32,
    /// The type's modifier (`atttypmod`), such as the length of a varchar; -1 for none.
    pub type_modifier: i32,
    /// Whether it is part of the replica identity; with FULL, every column is.
    pub is_key: bool,
}

/// The flag of a column that is part of the replica identity.
const IS_KEY: u8 = 1;

impl Relation {
    /// Reads a relation.
    pub(super) fn read(reader: &mut Reader<'_>) -> reader::Result<Self> {
        let oid = reader.u32()?;
        let schema = reader.schema()?;
        let name = reader.string()?;
        let replica_identity = ReplicaIdentity::read(reader)?;
        let at = reader.offset();
        let count = usize::from(reader.u16()?);
        if count > limits::COLUMNS || count > reader.remaining() / Column::MIN_BYTES {
            return Err(reader.fail_at(at, Problem::ColumnCount(count)));
        }
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            columns.push(Column::read(reader)?);
        }
        Ok(Self { oid, schema, name, replica_identity, columns })
    }
}

impl ReplicaIdentity {
    fn read(reader: &mut Reader<'_>) -> reader::Result<Self> {
        let at = reader.offset();
        match reader.u8()? {
            b'd' => Ok(Self::Default),
            b'n' => Ok(Self::Nothing),
            b'f' => Ok(Self::Full),
            b'i' => Ok(Self::Index),
            found => {
                let expected = "a replica identity: d, n, f or i";
                Err(reader.fail_at(at, Problem::Unexpected { expected, found }))
            }
        }
    }
}

impl Column {
    /// Flags, an empty name's end, type, modifier.
    const MIN_BYTES: usize = 1 + 1 + 4 + 4;

    fn read(reader: &mut Reader<'_>) -> reader::Result<Self> {
        Ok(Self {
            is_key: reader.flags(IS_KEY)? == IS_KEY,
            name: reader.string()?,
            type_oid: reader.u32()?,
            type_modifier: reader.i32()?,
        })
    }
}

/// The relations that the server has described in this session.
#[derive(Debug, Default)]
pub struct Relations {
    by_oid: HashMap<u32, Arc<Relation>>,
}

impl Relations {
    /// An empty cache, for a new session.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a description over. The `Arc` stays the same when nothing changed (a server repeats
    /// itself often), so that `Arc::ptr_eq` tells whether what was derived from it still holds.
    pub fn update(&mut self, relation: Relation) -> Arc<Relation> {
        match self.by_oid.entry(relation.oid) {
            Entry::Occupied(mut known) => {
                if **known.get() != relation {
                    known.insert(Arc::new(relation));
                }
                Arc::clone(known.get())
            }
            Entry::Vacant(free) => Arc::clone(free.insert(Arc::new(relation))),
        }
    }

    /// The relation with that OID.
    ///
    /// # Errors
    /// When it was not described in this session.
    pub fn get(&self, oid: u32) -> Result<&Arc<Relation>, DecodeError> {
        self.by_oid.get(&oid).ok_or(DecodeError::UnknownRelation(oid))
    }

    /// Checks that the tuple has as many columns as the relation.
    ///
    /// # Errors
    /// When it hasn't: its values would end up in the wrong columns.
    pub fn check(tuple: &Tuple, relation: &Relation) -> Result<(), DecodeError> {
        if tuple.len() == relation.columns.len() {
            return Ok(());
        }
        Err(DecodeError::ColumnsDiffer {
            table: format!("{}.{}", relation.schema, relation.name),
            expected: relation.columns.len(),
            found: tuple.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::Value;

    fn relation(oid: u32, columns: &[&str]) -> Relation {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            type_oid: 23,
            type_modifier: -1,
            is_key: *name == "id",
        };
        Relation {
            oid,
            schema: "public".into(),
            name: format!("t{oid}"),
            replica_identity: ReplicaIdentity::Default,
            columns: columns.iter().map(column).collect(),
        }
    }

    #[test]
    fn a_relation_described_again_is_the_same_unless_it_changed() {
        let mut relations = Relations::new();
        let first = relations.update(relation(1, &["id"]));
        let other = relations.update(relation(2, &["id"]));
        assert!(Arc::ptr_eq(&first, &relations.update(relation(1, &["id"]))));
        let wider = relations.update(relation(1, &["id", "name"]));
        assert!(!Arc::ptr_eq(&first, &wider));
        assert_eq!(*wider, relation(1, &["id", "name"]));
        assert!(Arc::ptr_eq(&wider, relations.get(1).unwrap()));
        assert!(Arc::ptr_eq(&other, relations.get(2).unwrap()));
    }

    #[test]
    fn a_relation_that_was_not_described_is_an_error() {
        assert_eq!(Relations::new().get(7), Err(DecodeError::UnknownRelation(7)));
    }

    #[test]
    fn a_tuple_with_another_number_of_columns_is_an_error() {
        let relation = relation(1, &["id", "name"]);
        let differ =
            |found| Err(DecodeError::ColumnsDiffer { table: "public.t1".into(), expected: 2, found });
        assert_eq!(Relations::check(&Tuple::of(&[Value::Null; 2]), &relation), Ok(()));
        assert_eq!(Relations::check(&Tuple::of(&[Value::Null; 1]), &relation), differ(1));
        assert_eq!(Relations::check(&Tuple::of(&[Value::Null; 3]), &relation), differ(3));
    }
}
