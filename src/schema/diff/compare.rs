//! Two catalogs become a list of differences. Touches no socket.

use std::collections::BTreeSet;

use super::read::{Catalog, Object};
use super::{Difference, Kind, Scope, What, mend, tokens};
use crate::catalog::TableName;
use crate::provider;

/// What the target lacks, or has differently, in the order in which it can be mended.
pub(super) fn compare(source: &Catalog, target: &Catalog, scope: &Scope) -> Vec<Difference> {
    let both = Both::new(source, target, scope);
    let mut found: Vec<Found> = Vec::new();
    for (id, object) in source.iter().filter(|(_, object)| both.is_ours(object)) {
        match target.get(id) {
            Some(there) => found.extend(both.different(object, there)),
            None => found.extend(both.missing(object)),
        }
    }
    for (id, object) in target.iter().filter(|(_, object)| both.is_ours(object)) {
        if !source.contains_key(id) {
            found.extend(both.extra(object));
        }
    }
    pair_renamed(&mut found);
    found.sort_by_key(|found| {
        (!found.difference.what.counts(), stage(found), found.object.oid, found.object.name.clone())
    });
    found.into_iter().map(|found| found.difference).collect()
}

/// A difference, and the object that it is about: the source's, if it has it.
struct Found<'a> {
    object: &'a Object,
    difference: Difference,
}

impl<'a> Found<'a> {
    fn new(
        what: What,
        source: Option<&'a Object>,
        target: Option<&'a Object>,
        mend: Vec<String>,
    ) -> Option<Self> {
        let object = source.or(target)?;
        let (source, target) = match (source, target) {
            (Some(source), Some(target)) => (facets(source, target), facets(target, source)),
            (source, target) => (source.map(Object::describe), target.map(Object::describe)),
        };
        let note = match what {
            What::Missing | What::Different => foreign_note(&mend),
            What::HeldBack => Some("held back until the copy is over".to_owned()),
            What::Harmless | What::Extra => None,
        };
        let difference = Difference {
            what,
            kind: object.kind,
            name: object.name.clone(),
            table: object.table.as_ref().map(ToString::to_string),
            source,
            target,
            mend: if what == What::HeldBack { Vec::new() } else { mend },
            note,
        };
        Some(Self { object, difference })
    }
}

/// What `one` has, as far as `other` has it not.
fn facets(one: &Object, other: &Object) -> Option<String> {
    let differing = differing(one, other);
    if differing == ["definition"] {
        return one.facet("definition").map(str::to_owned);
    }
    let value = |name: &&str| format!("{name}: {}", one.facet(name).unwrap_or("none"));
    Some(differing.iter().map(value).collect::<Vec<_>>().join(", "))
}

/// The names of the facets that are not the same.
fn differing<'a>(one: &'a Object, other: &'a Object) -> Vec<&'a str> {
    let names: BTreeSet<&str> = one.facets.keys().chain(other.facets.keys()).map(String::as_str).collect();
    // The rest of a part is as it is in the whole.
    let is_whole = one.make.is_some() && other.make.is_some();
    let told = |name: &&str| {
        let is_compared = match *name {
            "used" | "names a table" => false,
            "default" | "not null" | "fires" => true,
            _ => is_whole,
        };
        is_compared && one.facet(name) != other.facet(name)
    };
    names.into_iter().filter(told).collect()
}

/// What refers to a schema that isn't copied can't be made before there is a stand-in.
fn foreign_note(mend: &[String]) -> Option<String> {
    let names = |schema: &&&str| mend.iter().any(|sql| tokens::names_schema(sql, schema));
    let schema = provider::INTERNAL_SCHEMAS.iter().filter(|schema| **schema != "extensions").find(names)?;
    Some(format!(
        "it refers to the provider's own schema {schema}, which is not copied: make a stand-in for it, or do without"
    ))
}

/// Both catalogs, and what is none of ours in them.
struct Both<'a> {
    scope: &'a Scope,
    /// The source's tables and views that are not selected.
    others: BTreeSet<&'a TableName>,
    source_tables: BTreeSet<&'a TableName>,
    target_tables: BTreeSet<&'a TableName>,
}

impl<'a> Both<'a> {
    fn new(source: &'a Catalog, target: &'a Catalog, scope: &'a Scope) -> Self {
        let is_relation =
            |object: &&Object| matches!(object.kind, Kind::Table | Kind::View | Kind::MaterializedView);
        let tables = |catalog: &'a Catalog| {
            catalog.values().filter(is_relation).filter_map(|object| object.table.as_ref())
        };
        let is_other = |object: &&Object| {
            object.kind == Kind::Table
                && object.table.as_ref().is_some_and(|table| !scope.selected.contains(table))
        };
        Self {
            scope,
            others: source.values().filter(is_other).filter_map(|object| object.table.as_ref()).collect(),
            source_tables: tables(source).collect(),
            target_tables: tables(target).collect(),
        }
    }

    fn is_ours(&self, object: &Object) -> bool {
        object.table.as_ref().is_none_or(|table| !self.others.contains(table))
    }

    fn is_held_back(&self, object: &Object) -> bool {
        self.scope.held_back.contains(&object.name)
    }

    fn missing<'o>(&self, object: &'o Object) -> Option<Found<'o>> {
        let comes_with_table = object.kind == Kind::Column
            && object.table.as_ref().is_none_or(|table| !self.target_tables.contains(table));
        let mend = object.make.clone().filter(|_| !comes_with_table)?;
        let what = if self.is_held_back(object) {
            What::HeldBack
        } else if object.kind == Kind::Extension && object.facet("used").is_none() {
            What::Harmless
        } else {
            What::Missing
        };
        Found::new(what, Some(object), None, mend)
    }

    fn different<'o>(&self, source: &'o Object, target: &'o Object) -> Option<Found<'o>> {
        let differing = differing(source, target);
        if differing.is_empty() {
            return None;
        }
        let is_harmless = |name: &&str| match (source.kind, *name) {
            (Kind::Extension, _) | (Kind::Table, "replica identity") => true,
            (Kind::Enum, _) => mend::has_all_labels(source, target),
            // What holds for every row holds for the new ones.
            (_, "valid") => target.facet("valid").is_none(),
            (Kind::Column, "not null") => {
                source.facet("not null").is_some() && target.facet("not null") == Some("NOT NULL")
            }
            _ => false,
        };
        let what = if self.is_held_back(target) {
            What::HeldBack
        } else if differing.iter().all(is_harmless) {
            What::Harmless
        } else {
            What::Different
        };
        Found::new(what, Some(source), Some(target), mend::mend(source, target, &differing))
    }

    fn extra<'o>(&self, object: &'o Object) -> Option<Found<'o>> {
        let table = object.table.as_ref();
        let is_of_extra_table = !matches!(object.kind, Kind::Table | Kind::View | Kind::MaterializedView)
            && table.is_some_and(|table| !self.source_tables.contains(table));
        if object.make.is_none() || is_of_extra_table {
            return None;
        }
        match mend::disarm(object) {
            Some(mend) => Found::new(What::Different, None, Some(object), vec![mend]),
            None => Found::new(What::Extra, None, Some(object), Vec::new()),
        }
    }
}

/// What is missing under one name and there under another is the same.
fn pair_renamed(found: &mut Vec<Found<'_>>) {
    let mut index = 0;
    while index < found.len() {
        let Found { object: missing, difference } = &found[index];
        let twin = found.iter().position(|other| {
            difference.what == What::Missing
                && difference.target.is_none()
                && other.difference.source.is_none()
                && other.object.kind == missing.kind
                && other.object.table == missing.table
                && other.object.facets == missing.facets
        });
        let renamed = twin.and_then(|twin| Some((twin, mend::rename(found[twin].object, missing)?)));
        if let Some((twin, rename)) = renamed {
            let name = found[twin].object.name.clone();
            let difference = &mut found[index].difference;
            difference.what = What::Harmless;
            difference.target = Some(format!("the same, named {name}"));
            difference.mend = vec![rename];
            difference.note = None;
            found.remove(twin);
            // What was behind it has moved.
            index -= usize::from(twin < index);
        }
        index += 1;
    }
}

/// When it can be mended: what others need comes first.
fn stage(found: &Found<'_>) -> (u8, bool) {
    let object = found.object;
    let stage = match object.kind {
        Kind::Schema => 0,
        Kind::Extension => 1,
        Kind::Enum | Kind::CompositeType | Kind::RangeType | Kind::Domain => 2,
        Kind::Sequence => 3,
        Kind::Function | Kind::Procedure if object.facet("names a table").is_none() => 4,
        Kind::DomainConstraint => 5,
        // A replica identity can be an index.
        Kind::Table if found.difference.what == What::Harmless => 13,
        Kind::Table => 6,
        Kind::Column => 7,
        Kind::SequenceOwner => 8,
        Kind::PrimaryKey | Kind::UniqueConstraint | Kind::ExclusionConstraint => 9,
        Kind::View | Kind::MaterializedView | Kind::Function | Kind::Procedure | Kind::Aggregate => 10,
        Kind::CheckConstraint => 11,
        Kind::UniqueIndex | Kind::Index => 12,
        Kind::ForeignKey => 13,
        Kind::Rule | Kind::Trigger | Kind::Policy => 14,
    };
    // Parents before those that have them.
    let has_parent = object.facet("partition of").is_some() || object.facet("inherits").is_some();
    (stage, has_parent)
}
