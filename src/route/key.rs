//! Finds the key that a table's chunks are ranges of in the rows of the stream.

use std::sync::Arc;

use crate::chunk::{Key, KeyType};
use crate::fault::{Fault, Result, Side};
use crate::pgoutput::{Relation, Tuple, Value};

/// The key columns of a table, and where they are in its rows.
pub(super) struct KeyOf {
    columns: Vec<(String, KeyType)>,
    /// For the relation that came last: each column's place, and whether old rows tell it.
    places: Option<(Arc<Relation>, Vec<usize>, bool)>,
}

impl KeyOf {
    pub(super) fn new(columns: Vec<(String, KeyType)>) -> Self {
        Self { columns, places: None }
    }

    pub(super) fn columns(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The key of a row. `names_rows`: it comes with an UPDATE or a DELETE, which must tell the old
    /// key; an INSERT always has all values.
    pub(super) fn of(&mut self, relation: &Arc<Relation>, row: &Tuple, names_rows: bool) -> Result<Key> {
        let is_known = matches!(&self.places, Some((known, ..)) if Arc::ptr_eq(known, relation));
        if !is_known {
            self.places = Some(self.look_up(relation)?);
        }
        let Some((_, places, is_identity)) = &self.places else {
            return Err(Fault::bug("the key's columns are not known"));
        };
        if names_rows && !is_identity {
            return Err(changed(relation));
        }
        self.columns
            .iter()
            .zip(places)
            .map(|((name, kind), place)| match row.value(*place) {
                Some(Value::Text(text)) => kind.parse(text).ok_or_else(|| no_key(relation, name)),
                Some(Value::Null | Value::Unchanged | Value::Binary(_)) | None => Err(no_key(relation, name)),
            })
            .collect()
    }

    fn look_up(&self, relation: &Arc<Relation>) -> Result<(Arc<Relation>, Vec<usize>, bool)> {
        let place = |name: &String| {
            relation.columns.iter().position(|c| c.name == *name).ok_or_else(|| changed(relation))
        };
        let places = self.columns.iter().map(|(name, _)| place(name)).collect::<Result<Vec<_>>>()?;
        let is_identity = places.iter().all(|place| relation.columns[*place].is_key);
        Ok((Arc::clone(relation), places, is_identity))
    }
}

fn changed(relation: &Relation) -> Fault {
    Fault::person("the table's replica identity has changed while its rows are being copied")
        .on(Side::Source)
        .table(format!("{}.{}", relation.schema, relation.name))
        .remedy("give it the replica identity again that it had when the copy began")
}

fn no_key(relation: &Relation, column: &str) -> Fault {
    Fault::person(format!("the key column {column} came with a value that is no integer and no uuid"))
        .on(Side::Source)
        .table(format!("{}.{}", relation.schema, relation.name))
        .remedy("give it the type again that it had when the copy began")
}
