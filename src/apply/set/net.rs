//! What the changes of one table come to, key by key. Pure.
//!
//! The first change of a key says whether its row was there before, and that is kept: what was deleted or
//! updated first must be found, what was inserted first must not be there already, even where nothing of
//! it remains (rule C4). Keys are the same if their text is. Where a type calls different texts equal (numeric
//! 1.0 and 1.00), one row has two keys here; then either the outcome is the same, or a statement touches
//! fewer rows than it has keys, and the batch goes row by row.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::apply::batch::Change;
use crate::apply::statement::Columns;
use crate::apply::table::Fitted;
use crate::pgoutput::{OldTuple, Tuple, Value};

/// The values of the key's columns, in the order of the columns.
pub(super) type Key<'a> = SmallVec<[&'a [u8]; 2]>;

/// A row after its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    tuple: &'a Tuple,
    /// Values that the last change left alone (unchanged TOAST) and an earlier one had brought.
    earlier: Vec<(usize, Value<'a>)>,
}

/// What the changes of one table come to, each list in the order of the keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects<'a> {
    /// Rows that were inserted and deleted again: they must not have been there.
    pub(super) passing: Vec<Key<'a>>,
    /// Rows that must go; some of them are inserted anew.
    pub(super) deleted: Vec<Key<'a>>,
    /// Rows that change in place, by the columns that are written.
    pub(super) updated: Vec<(Columns, Vec<(Key<'a>, Row<'a>)>)>,
    /// New rows.
    pub(super) inserted: Vec<Row<'a>>,
}

/// What happens to the row of one key.
struct Fate<'a> {
    /// It was there before.
    existed: bool,
    /// It has been deleted since, or has moved to another key.
    is_deleted: bool,
    /// The row as it is now, if there is one.
    now: Option<Row<'a>>,
}

/// The changes of one table, one after the other.
struct Net<'a, 't> {
    table: &'t Fitted,
    /// Which columns are the key's.
    key: Vec<usize>,
    /// Where in `fates` a key is.
    places: HashMap<Key<'a>, usize>,
    /// What happens to each row, in the order of the first changes.
    fates: Vec<(Key<'a>, Fate<'a>)>,
    /// The rows of a table whose rows can't be told apart: it takes nothing but new ones.
    new: Vec<Row<'a>>,
}

/// What the changes come to; `None` if that can't be said without looking at the target, or can't be
/// written in sets.
pub(super) fn net<'a>(table: &Fitted, changes: &[&'a Change], only_inserts: bool) -> Option<Effects<'a>> {
    let positions = table.columns.iter().enumerate();
    let key = positions.filter(|(_, column)| column.is_key && !only_inserts).map(|(i, _)| i).collect();
    let places = HashMap::with_capacity(changes.len());
    let mut net = Net { table, key, places, fates: Vec::with_capacity(changes.len()), new: Vec::new() };
    for change in changes {
        match change {
            Change::Insert { new, .. } => net.insert(Row::new(new))?,
            Change::Update { old, new, .. } => net.update(old.as_ref(), new)?,
            Change::Delete { old, .. } => net.delete(old)?,
            Change::Truncate { .. } | Change::Clear { .. } | Change::SendBack { .. } => return None,
        }
    }
    net.effects()
}

impl<'a> Row<'a> {
    fn new(tuple: &'a Tuple) -> Self {
        Self { tuple, earlier: Vec::new() }
    }

    /// The value of a column; `Unchanged` if no change has brought it.
    pub(super) fn value(&self, column: usize) -> Value<'a> {
        match self.tuple.value(column) {
            Some(Value::Unchanged) | None => self
                .earlier
                .iter()
                .find(|(known, _)| *known == column)
                .map_or(Value::Unchanged, |(_, value)| *value),
            Some(value) => value,
        }
    }

    /// This row after an update.
    fn updated(&self, tuple: &'a Tuple) -> Self {
        let is_known = |value: &Value<'_>| !matches!(value, Value::Unchanged);
        let left_alone = tuple.values().enumerate().filter(|(_, value)| !is_known(value));
        let earlier =
            left_alone.map(|(i, _)| (i, self.value(i))).filter(|(_, value)| is_known(value)).collect();
        Self { tuple, earlier }
    }

    /// True if all of it is known.
    fn is_whole(&self) -> bool {
        (0..self.tuple.len()).all(|i| matches!(self.value(i), Value::Text(_) | Value::Null))
    }
}

impl<'a> Net<'a, '_> {
    fn insert(&mut self, row: Row<'a>) -> Option<()> {
        if !row.is_whole() {
            return None;
        }
        if self.key.is_empty() {
            self.new.push(row);
            return Some(());
        }
        let key = self.key_of(row.tuple)?;
        match self.fate(&key) {
            None => self.begin(key, Fate { existed: false, is_deleted: false, now: Some(row) }),
            Some(Fate { now: Some(_), .. }) => return None,
            Some(fate) => fate.now = Some(row),
        }
        Some(())
    }

    fn update(&mut self, old: Option<&'a OldTuple>, new: &'a Tuple) -> Option<()> {
        let new_key = self.key_of(new)?;
        let old_key = match old {
            None => None,
            Some(OldTuple::Key(old)) => Some(self.key_of(old)?).filter(|old| *old != new_key),
            Some(OldTuple::Full(_)) => return None,
        };
        let Some(old_key) = old_key else {
            match self.fate(&new_key) {
                None => {
                    let now = Some(Row::new(new));
                    self.begin(new_key, Fate { existed: true, is_deleted: false, now });
                }
                Some(fate) => {
                    let now = fate.now.as_mut()?;
                    *now = now.updated(new);
                }
            }
            return Some(());
        };
        // The row moves, and takes along what only the target has.
        if !self.table.only_on_target.is_empty() {
            return None;
        }
        let row = self.remove(old_key)?.map_or_else(|| Row::new(new), |before| before.updated(new));
        self.insert(row)
    }

    fn delete(&mut self, old: &'a OldTuple) -> Option<()> {
        match old {
            OldTuple::Key(old) => self.remove(self.key_of(old)?).map(|_| ()),
            OldTuple::Full(_) => None,
        }
    }

    /// Takes the row of a key away; gives it as far as it is known. The outer `None`: it is gone already.
    fn remove(&mut self, key: Key<'a>) -> Option<Option<Row<'a>>> {
        match self.fate(&key) {
            None => {
                self.begin(key, Fate { existed: true, is_deleted: true, now: None });
                Some(None)
            }
            Some(fate) => {
                fate.is_deleted = true;
                fate.now.take().map(Some)
            }
        }
    }

    /// The key of a row; `None` if there is no key, or one of its values isn't there.
    fn key_of(&self, tuple: &'a Tuple) -> Option<Key<'a>> {
        let text = |&i: &usize| match tuple.value(i)? {
            Value::Text(text) => Some(text),
            Value::Null | Value::Unchanged | Value::Binary(_) => None,
        };
        if self.key.is_empty() { None } else { self.key.iter().map(text).collect() }
    }

    /// What has happened to the row of a key so far.
    fn fate(&mut self, key: &Key<'a>) -> Option<&mut Fate<'a>> {
        self.places.get(key).map(|&place| &mut self.fates[place].1)
    }

    fn begin(&mut self, key: Key<'a>, fate: Fate<'a>) {
        self.places.insert(key.clone(), self.fates.len());
        self.fates.push((key, fate));
    }

    fn effects(self) -> Option<Effects<'a>> {
        let mut effects = Effects { inserted: self.new, ..Effects::default() };
        let is_number: Vec<bool> =
            self.key.iter().map(|&i| is_integer(&self.table.columns[i].type_name)).collect();
        let mut fates: Vec<_> =
            self.fates.into_iter().map(|(key, fate)| (ranks(&key, &is_number), key, fate)).collect();
        // Neighbours in the index share a page. New rows mostly come in order, which this sort likes.
        fates.sort_by(|(a, a_key, _), (b, b_key, _)| a.cmp(b).then_with(|| a_key.cmp(b_key)));
        let mut shapes: HashMap<Columns, usize> = HashMap::new();
        for (_, key, fate) in fates {
            match fate {
                Fate { existed: false, now: None, .. } => effects.passing.push(key),
                Fate { existed: true, now: None, .. } => effects.deleted.push(key),
                Fate { existed: false, now: Some(row), .. } => effects.inserted.push(row),
                Fate { existed: true, is_deleted: true, now: Some(row) } => {
                    effects.deleted.push(key);
                    effects.inserted.push(row);
                }
                Fate { existed: true, is_deleted: false, now: Some(row) } => {
                    let shape = written(self.table, &row)?;
                    let at = *shapes.entry(shape).or_insert_with_key(|shape| {
                        effects.updated.push((shape.clone(), Vec::new()));
                        effects.updated.len() - 1
                    });
                    effects.updated[at].1.push((key, row));
                }
            }
        }
        Some(effects)
    }
}

/// The columns that an update of this row writes: those whose values are known, without the key's. `None`
/// if an UPDATE can't write one of them.
fn written(table: &Fitted, row: &Row<'_>) -> Option<Columns> {
    let is_written = |i: usize| !table.columns[i].is_key && !matches!(row.value(i), Value::Unchanged);
    let set = || (0..table.columns.len()).filter(|&i| is_written(i));
    if set().any(|i| table.columns[i].is_identity_always) {
        return None;
    }
    Some(Columns::of(set()))
}

fn is_integer(type_name: &str) -> bool {
    matches!(type_name, "smallint" | "integer" | "bigint")
}

/// About where the first two columns put a key in its index: numbers are compared faster than texts.
fn ranks(key: &Key<'_>, is_number: &[bool]) -> [i64; 2] {
    let mut ranks = key.iter().zip(is_number).map(|(text, is_number)| rank(text, *is_number));
    [ranks.next().unwrap_or(0), ranks.next().unwrap_or(0)]
}

fn rank(text: &[u8], is_number: bool) -> i64 {
    if is_number && let Some(number) = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
        return number;
    }
    let mut first = [0; 8];
    let known = text.len().min(first.len());
    first[..known].copy_from_slice(&text[..known]);
    // The order of unsigned numbers in signed ones.
    i64::from_be_bytes(first) ^ i64::MIN
}

#[cfg(test)]
mod tests;
