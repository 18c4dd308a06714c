//! Sequences: those of the new side give values that the old side has not given.
//!
//! The stream has no sequences, and no trigger fires for `nextval()`. So they are read when nothing can be written any
//! more, all of them in one statement, owned by a column or not, and those of the other side that are behind are set in
//! another one. None is ever set back.

use std::collections::HashMap;

use tokio_postgres::SimpleQueryMessage;

use crate::catalog::{TableName, quote_literal};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::provider;

/// A sequence of the old side, and which one of the new side takes its place.
#[derive(Clone, Debug)]
struct Pair {
    old: TableName,
    new: TableName,
    increment: i64,
    min: i64,
    max: i64,
}

/// The sequences of both sides, as far as it is known before anything rests which belong together.
#[derive(Debug, Default)]
pub struct Sequences {
    pairs: Vec<Pair>,
    /// Those of the old side that the new side has nothing for.
    pub missing: Vec<TableName>,
}

struct Known {
    name: TableName,
    /// The column that it is for, as `schema.table.column`.
    owner: Option<String>,
    increment: i64,
    min: i64,
    max: i64,
}

async fn known(session: &Session, side: Side) -> Result<Vec<Known>> {
    let rows = session
        .query(include_str!("../../sql/cutover/sequences.sql"), &[&provider::INTERNAL_SCHEMAS])
        .await
        .map_err(|e| Fault::sql(side, "listing the sequences", &e))?;
    let known = |row: &tokio_postgres::Row| Known {
        name: TableName::new(row.get::<_, &str>("schema"), row.get::<_, &str>("name")),
        owner: row.get("owner"),
        increment: row.get("increment"),
        min: row.get("min_value"),
        max: row.get("max_value"),
    };
    Ok(rows.iter().map(known).collect())
}

impl Sequences {
    /// Looks which belong together: by the column that they are for, or else by their names.
    ///
    /// # Errors
    /// If a database can't be asked.
    pub async fn find(old: &Session, new: &Session) -> Result<Self> {
        let (there, here) = tokio::try_join!(known(old, Side::Source), known(new, Side::Target))?;
        let by_owner: HashMap<&str, &Known> =
            here.iter().filter_map(|known| Some((known.owner.as_deref()?, known))).collect();
        let by_name: HashMap<&TableName, &Known> = here.iter().map(|known| (&known.name, known)).collect();
        let mut found = Self::default();
        for old in there {
            let owned = old.owner.as_deref().and_then(|owner| by_owner.get(owner));
            match owned.or_else(|| by_name.get(&old.name)) {
                Some(new) => found.pairs.push(Pair {
                    old: old.name,
                    new: new.name.clone(),
                    increment: old.increment,
                    min: new.min.max(old.min),
                    max: new.max.min(old.max),
                }),
                None => found.missing.push(old.name),
            }
        }
        Ok(found)
    }

    /// How many there are on both sides.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The values of both sides.
    pub(super) async fn read(&self, old: &Session, new: &Session) -> Result<(Vec<Value>, Vec<Value>)> {
        tokio::try_join!(
            values(old, Side::Source, self.pairs.iter().map(|pair| &pair.old)),
            values(new, Side::Target, self.pairs.iter().map(|pair| &pair.new)),
        )
    }

    /// Sets those of the new side that are behind, to where the old side's are, and `margin` values beyond. Gives how
    /// many that were.
    ///
    /// # Errors
    /// If a database can't be asked, or the role may not.
    pub async fn set(&self, old: &Session, new: &Session, margin: i64) -> Result<usize> {
        let (there, here) = self.read(old, new).await?;
        let behind: Vec<String> = self
            .pairs
            .iter()
            .zip(there.iter().zip(&here))
            .filter_map(|(pair, (there, here))| {
                let (value, is_called) = pair.wanted(*there, *here, margin)?;
                let name = quote_literal(&pair.new.to_sql());
                Some(format!("pg_catalog.setval({name}::pg_catalog.regclass, {value}, {is_called})"))
            })
            .collect();
        if !behind.is_empty() {
            let sql = behind.iter().map(|set| format!("SELECT {set};")).collect::<String>();
            new.batch_execute(&format!("BEGIN; {sql} COMMIT"))
                .await
                .map_err(|e| Fault::sql(Side::Target, "setting the sequences", &e))?;
        }
        Ok(behind.len())
    }
}

/// The last value, and whether it was given.
pub(super) type Value = (i64, bool);

async fn values(
    session: &Session,
    side: Side,
    names: impl Iterator<Item = &TableName>,
) -> Result<Vec<Value>> {
    let selects: Vec<String> = names
        .enumerate()
        .map(|(i, name)| format!("SELECT {i} AS i, last_value, is_called FROM {}", name.to_sql()))
        .collect();
    let odd = || Fault::bug("a sequence has no value").on(side);
    let mut values = Vec::with_capacity(selects.len());
    // One statement would be planned for seconds if there are very many.
    for some in selects.chunks(500) {
        let answers = session
            .simple_query(&format!("{} ORDER BY i", some.join(" UNION ALL ")))
            .await
            .map_err(|e| Fault::sql(side, "reading the sequences", &e))?;
        for answer in answers {
            if let SimpleQueryMessage::Row(row) = answer {
                let last = row.get(1).and_then(|value| value.parse().ok()).ok_or_else(odd)?;
                values.push((last, row.get(2) == Some("t")));
            }
        }
    }
    if values.len() == selects.len() { Ok(values) } else { Err(odd()) }
}

impl Pair {
    /// What the new side's is to be set to; `None` if it is there already, or further.
    fn wanted(&self, there: Value, here: Value, margin: i64) -> Option<Value> {
        let next = |(last, is_called): Value| {
            i128::from(last) + if is_called { i128::from(self.increment) } else { 0 }
        };
        let wanted = next(there) + i128::from(margin) * i128::from(self.increment);
        let is_behind = if self.increment > 0 { next(here) < wanted } else { next(here) > wanted };
        if !is_behind {
            return None;
        }
        let (min, max) = (i128::from(self.min), i128::from(self.max));
        if (min..=max).contains(&wanted) {
            return Some((i64::try_from(wanted).ok()?, false));
        }
        // At its end it gives no more, or begins anew, as the other one does.
        Some((if self.increment > 0 { self.max } else { self.min }, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(increment: i64) -> Pair {
        let name = TableName::new("public", "s");
        Pair { old: name.clone(), new: name, increment, min: -100, max: 100 }
    }

    #[test]
    fn the_next_value_is_the_one_that_the_old_side_would_have_given() {
        for (increment, there, here, margin, wanted) in [
            (1, (7, true), (1, false), 0, Some((8, false))),
            (1, (7, false), (1, false), 0, Some((7, false))),
            (1, (7, true), (8, false), 0, None),
            (1, (7, true), (50, true), 0, None),
            (1, (7, true), (1, true), 10, Some((18, false))),
            (5, (10, true), (1, false), 2, Some((25, false))),
            (-1, (-7, true), (-1, false), 0, Some((-8, false))),
            (-1, (-7, true), (-9, true), 0, None),
            (1, (100, true), (1, false), 0, Some((100, true))),
            (-1, (-100, true), (-1, false), 3, Some((-100, true))),
        ] {
            let set = pair(increment).wanted(there, here, margin);
            assert_eq!(set, wanted, "{increment} {there:?} {here:?} {margin}");
        }
    }
}
