//! Which column of the target a column of the stream is.
//!
//! The stream tells names, not numbers: of a renamed column it says the same as of one that was dropped and another
//! that was added. So the columns of each change are compared with those that the ledger has for the table. What
//! isn't among them is not guessed: the stream stops there, and the source's catalogs are looked at.

use super::shape::{Column, Shape, Table};
use crate::catalog::TableName;

/// How the changes of a table go to the target's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The names of the table in the stream, the present one first.
    names: Vec<TableName>,
    /// The table of the target; none for a partition that the target lacks.
    target: Option<TableName>,
    now: Vec<Place>,
    /// How it was before: changes from then can still come.
    earlier: Vec<Vec<Place>>,
    /// The stream has some of the columns only.
    is_partial: bool,
}

/// A column of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    number: i16,
    name: String,
    /// The name of the target's column; none if both sides have dropped it.
    target: Option<String>,
}

impl Known {
    /// How the changes of this table go to that one. `published` is how many columns the stream has.
    #[must_use]
    pub fn new(shape: &Shape, target: &Table, published: usize) -> Self {
        let place = |column: &Column, is_alive: bool| {
            let there =
                column.target.and_then(|number| target.by_number(number)).map(|there| there.name.clone());
            let by_name = || is_alive.then(|| column.name.clone());
            Place { number: column.number, name: column.name.clone(), target: there.or_else(by_name) }
        };
        let in_stream = |columns: &[Column]| -> Vec<Place> {
            let in_stream = columns.iter().filter(|column| !column.is_generated);
            let now = |number| shape.columns.iter().find(|column| column.number == number);
            in_stream
                .map(|column| match now(column.number) {
                    Some(now) => Place { name: column.name.clone(), ..place(now, true) },
                    None => place(column, false),
                })
                .collect()
        };
        let now = in_stream(&shape.columns);
        Self {
            names: std::iter::once(&shape.name)
                .chain(shape.earlier.iter().map(|e| &e.name))
                .cloned()
                .collect(),
            target: (!shape.is_through_root).then(|| target.name.clone()),
            earlier: shape.earlier.iter().map(|earlier| in_stream(&earlier.columns)).collect(),
            is_partial: published != now.len(),
            now,
        }
    }

    /// True if the table has this name in the stream.
    #[must_use]
    pub fn is_named(&self, name: &TableName) -> bool {
        self.names.contains(name)
    }

    /// True if people call it that.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.names.iter().chain(&self.target).any(|known| known.to_string() == name)
    }

    /// The name that the table has on the target, or would have there.
    #[must_use]
    pub fn there<'a>(&'a self, name: &'a TableName) -> &'a TableName {
        self.target.as_ref().unwrap_or(name)
    }

    /// The target's columns for these of the stream, in their order; `None` for one that both sides have dropped.
    /// Nothing if they aren't those that are known.
    #[must_use]
    pub fn places<'a>(&'a self, names: &[&str]) -> Option<Vec<Option<&'a str>>> {
        let targets = |places: &[&'a Place]| places.iter().map(|place| place.target.as_deref()).collect();
        let is_named =
            |places: &&Vec<Place>| places.iter().map(|place| place.name.as_str()).eq(names.iter().copied());
        if let Some(places) = std::iter::once(&self.now).chain(&self.earlier).find(is_named) {
            return Some(targets(&places.iter().collect::<Vec<_>>()));
        }
        if self.earlier.is_empty() && !self.is_partial {
            return None;
        }
        // Something in between: each name must have meant one column only, and they come in the order of those.
        let all = || std::iter::once(&self.now).chain(&self.earlier).flatten();
        let found = names.iter().map(|name| {
            let mut meant = all().filter(|place| place.name == *name);
            let first = meant.next()?;
            meant.all(|other| other.number == first.number).then_some(first)
        });
        let found = found.collect::<Option<Vec<_>>>()?;
        found.is_sorted_by(|one, next| one.number < next.number).then(|| targets(&found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(columns: &[(i16, &str, Option<&str>)]) -> Vec<Place> {
        let place = |(number, name, target): &(i16, &str, Option<&str>)| Place {
            number: *number,
            name: (*name).to_owned(),
            target: target.map(str::to_owned),
        };
        columns.iter().map(place).collect()
    }

    fn known(now: &[(i16, &str, Option<&str>)], earlier: &[&[(i16, &str, Option<&str>)]]) -> Known {
        Known {
            names: vec![TableName::new("s", "t")],
            target: Some(TableName::new("s", "t")),
            now: places(now),
            earlier: earlier.iter().map(|columns| places(columns)).collect(),
            is_partial: false,
        }
    }

    #[test]
    fn only_what_was_seen_is_accepted() {
        let known = known(&[(1, "id", Some("id")), (2, "a", Some("a"))], &[]);
        assert_eq!(known.places(&["id", "a"]), Some(vec![Some("id"), Some("a")]));
        for columns in [&["id"][..], &["a", "id"], &["id", "b"], &["id", "a", "b"], &[]] {
            assert_eq!(known.places(columns), None, "{columns:?}");
        }
    }

    #[test]
    fn a_column_that_was_renamed_is_the_same_under_either_name() {
        let known = known(
            &[(1, "id", Some("id")), (2, "b", Some("b"))],
            &[&[(1, "id", Some("id")), (2, "a", Some("b"))]],
        );
        assert_eq!(known.places(&["id", "a"]), Some(vec![Some("id"), Some("b")]));
        assert_eq!(known.places(&["id", "b"]), Some(vec![Some("id"), Some("b")]));
    }

    #[test]
    fn two_that_have_traded_their_names_are_told_apart_by_their_order() {
        let before = [(1, "id", Some("id")), (2, "a", Some("b")), (3, "b", Some("a"))];
        let known = known(&[(1, "id", Some("id")), (2, "b", Some("b")), (3, "a", Some("a"))], &[&before]);
        assert_eq!(known.places(&["id", "a", "b"]), Some(vec![Some("id"), Some("b"), Some("a")]));
        assert_eq!(known.places(&["id", "b", "a"]), Some(vec![Some("id"), Some("b"), Some("a")]));
        // Which of the two it is can't be told.
        assert_eq!(known.places(&["id", "a"]), None);
    }

    #[test]
    fn what_was_in_between_is_accepted_if_it_can_mean_one_thing_only() {
        let before = [(1, "id", Some("id")), (2, "a", None)];
        let known = known(&[(1, "id", Some("id")), (3, "c", Some("c"))], &[&before]);
        assert_eq!(known.places(&["id", "a", "c"]), Some(vec![Some("id"), None, Some("c")]));
        assert_eq!(known.places(&["id"]), Some(vec![Some("id")]));
        assert_eq!(known.places(&["id", "c", "a"]), None);
        assert_eq!(known.places(&["id", "d"]), None);
    }
}
