//! Two catalogs become a list of differences. Touches no socket.

use std::collections::{BTreeMap, BTreeSet};

use super::read::{Catalog, FORCED, Object};
use super::{Difference, Kind, What, mend, tokens};
use crate::catalog::TableName;
use crate::provider;
use crate::schema::Scope;

/// What the target lacks, or has differently, in the order in which it can be mended.
///
/// `held_back` names what is held back, as an [`super::read::Id`] does, and says until when: `copy` or `cutover`.
pub(super) fn compare(
    source: &Catalog,
    target: &Catalog,
    scope: &Scope,
    held_back: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let both = Both::new(source, target, scope, held_back);
    let mut found: Vec<Found> = Vec::new();
    for (id, object) in source {
        match (both.why_not(object), target.get(id)) {
            (None, Some(there)) => found.extend(both.different(object, there)),
            (None, None) => found.extend(both.missing(object)),
            (Some(why), None) if !is_part(object) => {
                found.extend(Found::left_out(object, None, why.to_owned()));
            }
            (Some(_), _) => {}
        }
    }
    for (id, object) in target.iter().filter(|(_, object)| both.why_not(object).is_none()) {
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
        until: Option<&str>,
    ) -> Option<Self> {
        let object = source.or(target)?;
        let (source, target) = match (source, target) {
            (Some(source), Some(target)) => (facets(source, target), facets(target, source)),
            (source, target) => (source.map(Object::describe), target.map(Object::describe)),
        };
        let note = match what {
            What::Missing | What::Different => foreign_note(&mend),
            What::HeldBack if until == Some("cutover") => Some("until the cutover".to_owned()),
            What::HeldBack => Some("until the copy is over".to_owned()),
            What::Harmless | What::Extra | What::LeftOut => None,
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

    fn left_out(source: &'a Object, target: Option<&'a Object>, why: String) -> Option<Self> {
        let mut found = Self::new(What::LeftOut, Some(source), target, Vec::new(), None)?;
        found.difference.note = Some(why);
        Some(found)
    }
}

/// True if it comes and goes with a table or another object.
fn is_part(object: &Object) -> bool {
    match object.kind {
        Kind::Table | Kind::View | Kind::MaterializedView => false,
        Kind::Grant => true,
        _ => object.table.is_some(),
    }
}

/// The role that something is granted to, quoted.
fn grantee(grant: &Object) -> &str {
    grant.facet("role").unwrap_or_default()
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
            "used" | "names a table" | "on" | "role" | "by itself" | "owner" => false,
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
    let schema = provider::INTERNAL_SCHEMAS
        .iter()
        .filter(|schema| **schema != provider::EXTENSIONS_SCHEMA)
        .find(names)?;
    Some(format!(
        "it refers to the provider's own schema {schema}, which is not copied: make a stand-in for it, or do without"
    ))
}

/// Both catalogs, and what is none of ours in them.
struct Both<'a> {
    scope: &'a Scope,
    held_back: &'a BTreeMap<String, String>,
    source_tables: BTreeSet<&'a TableName>,
    target_tables: BTreeSet<&'a TableName>,
    /// What anything is granted on: there is nothing without an owner.
    source_objects: BTreeSet<&'a str>,
    target_objects: BTreeSet<&'a str>,
    /// Views that can't be on the target, each with the reason.
    views_left_out: BTreeMap<&'a TableName, String>,
}

impl<'a> Both<'a> {
    fn new(
        source: &'a Catalog,
        target: &'a Catalog,
        scope: &'a Scope,
        held_back: &'a BTreeMap<String, String>,
    ) -> Self {
        let is_relation =
            |object: &&Object| matches!(object.kind, Kind::Table | Kind::View | Kind::MaterializedView);
        let tables = |catalog: &'a Catalog| {
            catalog.values().filter(is_relation).filter_map(|object| object.table.as_ref())
        };
        Self {
            scope,
            held_back,
            source_tables: tables(source).collect(),
            target_tables: tables(target).collect(),
            source_objects: source.values().filter_map(|object| object.facet("on")).collect(),
            target_objects: target.values().filter_map(|object| object.facet("on")).collect(),
            views_left_out: views_left_out(source, scope),
        }
    }

    /// Why the configuration leaves it out, if it does.
    fn why_not(&self, object: &Object) -> Option<&'static str> {
        match (&object.table, object.kind) {
            (Some(table), _) => self.scope.why_not(table),
            (None, Kind::Schema | Kind::Extension) => None,
            (None, _) => self.scope.why_not(&tokens::first_names(object.facet("on").unwrap_or(&object.name))),
        }
    }

    /// Why it can't be on the target, if that is so: it needs what the target lacks, and nobody copies.
    fn left_out(&self, object: &Object) -> Option<String> {
        let view = object.table.as_ref().and_then(|table| self.views_left_out.get(table));
        let role = (object.kind == Kind::Grant && !self.has_role(grantee(object)))
            .then(|| format!("the target has no role {}", grantee(object)));
        let other = object.facet("definition").filter(|_| object.kind == Kind::ForeignKey);
        let other = other.and_then(|definition| self.scope.on_other(definition));
        view.or_else(|| self.scope.left_out.get(&object.name)).cloned().or(role).or(other)
    }

    fn has_role(&self, role: &str) -> bool {
        role == "PUBLIC" || self.scope.roles.contains(role)
    }

    /// Everything gives some rights to everybody when it is made, a function EXECUTE; and a schema of its own is
    /// nobody's.
    fn comes_with_object(&self, grant: &Object) -> bool {
        let is_there = grant.facet("on").is_some_and(|on| self.target_objects.contains(on));
        grant.facet("by itself").is_some() && !is_there
    }

    /// Until when it is held back, if it is.
    fn held_until(&self, object: &Object) -> Option<&str> {
        self.held_back.get(&object.name).map(String::as_str)
    }

    /// The same, for what differs so on both sides.
    fn held_until_as(&self, target: &Object, differing: &[&str]) -> Option<&str> {
        match (target.kind, differing) {
            (Kind::Table, ["row security of the owner"]) => {
                self.held_back.get(&format!("{}{FORCED}", target.name)).map(String::as_str)
            }
            (Kind::Trigger | Kind::Rule, ["fires"]) => self.held_until(target),
            (Kind::Table | Kind::Trigger | Kind::Rule, _) => None,
            _ => self.held_until(target),
        }
    }

    fn missing<'o>(&self, object: &'o Object) -> Option<Found<'o>> {
        let comes_with_table = object.kind == Kind::Column
            && object.table.as_ref().is_none_or(|table| !self.target_tables.contains(table));
        let mend = object.make.clone().filter(|_| !comes_with_table)?;
        if object.facet("owner").is_some() || self.comes_with_object(object) {
            return None;
        }
        if let Some(why) = self.left_out(object) {
            return Found::left_out(object, None, why);
        }
        let until = self.held_until(object);
        let what = if until.is_some() {
            What::HeldBack
        } else if object.kind == Kind::Extension && object.facet("used").is_none() {
            What::Harmless
        } else {
            What::Missing
        };
        Found::new(what, Some(object), None, mend, until)
    }

    fn different<'o>(&self, source: &'o Object, target: &'o Object) -> Option<Found<'o>> {
        let differing = differing(source, target);
        // Whoever owns it may do everything.
        if differing.is_empty() || source.facet("owner").or(target.facet("owner")).is_some() {
            return None;
        }
        if let Some(why) = self.left_out(source).filter(|_| differing == ["default"]) {
            return Found::left_out(source, Some(target), why);
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
        let until = self.held_until_as(target, &differing);
        let what = if until.is_some() {
            What::HeldBack
        } else if differing.iter().all(is_harmless) {
            What::Harmless
        } else {
            What::Different
        };
        Found::new(what, Some(source), Some(target), mend::mend(source, target, &differing), until)
    }

    fn extra<'o>(&self, object: &'o Object) -> Option<Found<'o>> {
        let table = object.table.as_ref();
        let is_of_extra_table = !matches!(object.kind, Kind::Table | Kind::View | Kind::MaterializedView)
            && table.is_some_and(|table| !self.source_tables.contains(table));
        let is_on_extra = object.facet("on").is_some_and(|on| !self.source_objects.contains(on));
        if object.make.is_none() || is_of_extra_table || is_on_extra || object.facet("owner").is_some() {
            return None;
        }
        match mend::disarm(object) {
            Some(mend) => Found::new(What::Different, None, Some(object), vec![mend], None),
            None => Found::new(What::Extra, None, Some(object), Vec::new(), None),
        }
    }
}

/// The views that refer to what can't be on the target, and those that are views on them.
fn views_left_out<'a>(source: &'a Catalog, scope: &Scope) -> BTreeMap<&'a TableName, String> {
    let views = || {
        let is_view = |o: &&Object| matches!(o.kind, Kind::View | Kind::MaterializedView);
        source.values().filter(is_view).filter_map(|view| Some((view.table.as_ref()?, view)))
    };
    let mut left_out = BTreeMap::new();
    let mut names: Vec<&str> = Vec::new();
    loop {
        let known = names.len();
        for (table, view) in
            views().filter(|(_, view)| !names.contains(&view.name.as_str())).collect::<Vec<_>>()
        {
            let definition = view.facet("definition").unwrap_or_default();
            let on = || names.iter().find(|name| tokens::names_object(definition, name));
            let why = scope.left_out.get(&view.name).cloned().or_else(|| scope.on_other(definition));
            if let Some(why) = why.or_else(|| Some(format!("it is a view on {}, which is left out", on()?))) {
                left_out.insert(table, why);
                names.push(&view.name);
            }
        }
        if names.len() == known {
            return left_out;
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
        Kind::Grant => 15,
    };
    // Parents before those that have them.
    let has_parent = object.facet("partition of").is_some() || object.facet("inherits").is_some();
    (stage, has_parent)
}
