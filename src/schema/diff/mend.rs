//! The statements that make an object of the target like the source's.

use super::Kind;
use super::read::Object;
use super::tokens::{last_name, literals, parts};

/// What makes the target's object like the source's, if that can be said; they differ in these facets.
pub(in crate::schema) fn mend(source: &Object, target: &Object, differing: &[&str]) -> Vec<String> {
    let make = || source.make.clone().unwrap_or_default();
    let anew = || target.take.iter().cloned().chain(make()).collect();
    let name = &source.name;
    match source.kind {
        Kind::Schema | Kind::Extension | Kind::RangeType => Vec::new(),
        Kind::Enum => labels(source, target),
        Kind::CompositeType => attributes(source, target),
        Kind::Domain => domain(source, differing),
        Kind::Sequence => {
            vec![format!("ALTER SEQUENCE {name} {}", source.facet("options").unwrap_or_default())]
        }
        Kind::SequenceOwner => make(),
        Kind::Table => table(source, target, differing),
        Kind::Column => column(source, target, differing),
        Kind::PrimaryKey
        | Kind::UniqueConstraint
        | Kind::ExclusionConstraint
        | Kind::CheckConstraint
        | Kind::ForeignKey
        | Kind::DomainConstraint => match differing {
            // Valid on the target only does no harm.
            ["valid"] if target.facet("valid").is_none() => Vec::new(),
            ["valid"] => vec![validate(source)],
            _ => anew(),
        },
        Kind::Function | Kind::Procedure if differing.contains(&"signature") => anew(),
        Kind::Function | Kind::Procedure => make(),
        Kind::View
            if source
                .facet("columns")
                .zip(target.facet("columns"))
                .is_some_and(|(new, old)| parts(new).starts_with(&parts(old))) =>
        {
            make()
        }
        Kind::Trigger | Kind::Rule if differing == ["fires"] => {
            vec![fires(source, source.facet("fires").unwrap_or("ENABLE"))]
        }
        Kind::View
        | Kind::MaterializedView
        | Kind::Trigger
        | Kind::Rule
        | Kind::Policy
        | Kind::UniqueIndex
        | Kind::Index
        | Kind::Aggregate => anew(),
        Kind::Grant => grant(source, target),
    }
}

/// What keeps an object that only the target has from refusing or changing rows, if it does that.
pub(super) fn disarm(object: &Object) -> Option<String> {
    let (parent, name) = last_name(&object.name);
    match object.kind {
        Kind::PrimaryKey
        | Kind::UniqueConstraint
        | Kind::ExclusionConstraint
        | Kind::CheckConstraint
        | Kind::DomainConstraint
        | Kind::UniqueIndex => object.take.clone(),
        Kind::Column => {
            let has_value =
                ["default", "generated", "identity"].iter().any(|facet| object.facet(facet).is_some());
            (object.facet("not null").is_some() && !has_value)
                .then(|| format!("ALTER TABLE {parent} ALTER COLUMN {name} DROP NOT NULL"))
        }
        Kind::Trigger | Kind::Rule => {
            matches!(object.facet("fires"), Some("ENABLE ALWAYS" | "ENABLE REPLICA"))
                .then(|| fires(object, "ENABLE"))
        }
        // What everybody may do.
        Kind::Grant if object.facet("role") == Some("PUBLIC") => object.take.clone(),
        Kind::Schema
        | Kind::Extension
        | Kind::Enum
        | Kind::CompositeType
        | Kind::RangeType
        | Kind::Domain
        | Kind::Grant
        | Kind::Sequence
        | Kind::SequenceOwner
        | Kind::Function
        | Kind::Procedure
        | Kind::Aggregate
        | Kind::Table
        | Kind::View
        | Kind::MaterializedView
        | Kind::Index
        | Kind::ForeignKey
        | Kind::Policy => None,
    }
}

/// What gives the target's constraint or index the name that it has on the source.
pub(super) fn rename(target: &Object, source: &Object) -> Option<String> {
    let (table, old) = last_name(&target.name);
    let (_, new) = last_name(&source.name);
    match source.kind {
        Kind::Index | Kind::UniqueIndex => Some(format!("ALTER INDEX {} RENAME TO {new}", target.name)),
        Kind::PrimaryKey
        | Kind::UniqueConstraint
        | Kind::ExclusionConstraint
        | Kind::CheckConstraint
        | Kind::ForeignKey => Some(format!("ALTER TABLE {table} RENAME CONSTRAINT {old} TO {new}")),
        _ => None,
    }
}

fn fires(object: &Object, how: &str) -> String {
    let (table, name) = last_name(&object.name);
    let what = if object.kind == Kind::Rule { "RULE" } else { "TRIGGER" };
    format!("ALTER TABLE {table} {how} {what} {name}")
}

fn validate(object: &Object) -> String {
    let (parent, name) = last_name(&object.name);
    let what = if object.kind == Kind::DomainConstraint { "DOMAIN" } else { "TABLE" };
    format!("ALTER {what} {parent} VALIDATE CONSTRAINT {name}")
}

/// Takes back what is too much, and no more than that: REVOKE on a table reaches the grants on its columns too.
fn grant(source: &Object, target: &Object) -> Vec<String> {
    let list = |object: &Object, facet| -> Vec<String> {
        object.facet(facet).map(parts).unwrap_or_default().into_iter().map(str::to_owned).collect()
    };
    let (wanted, wanted_to_grant) = (list(source, "privileges"), list(source, "with grant option"));
    let (there, there_to_grant) = (list(target, "privileges"), list(target, "with grant option"));
    let (on, role) = (target.facet("on").unwrap_or_default(), target.facet("role").unwrap_or_default());
    let (columns, on) = match on.split_once(") ").filter(|_| on.starts_with('(')) {
        Some((column, table)) => (format!(" {column})"), table),
        None => (String::new(), on),
    };
    let revoke = |what: &str, privileges: Vec<&String>| {
        let privileges: Vec<String> =
            privileges.iter().map(|privilege| format!("{privilege}{columns}")).collect();
        (!privileges.is_empty())
            .then(|| format!("REVOKE {what}{} ON {on} FROM {role}", privileges.join(", ")))
    };
    let is_wanted = |privilege: &&String| wanted.contains(privilege) || wanted_to_grant.contains(privilege);
    let too_much = there.iter().chain(&there_to_grant).filter(|privilege| !is_wanted(privilege)).collect();
    let only_option = there_to_grant.iter().filter(|privilege| wanted.contains(privilege)).collect();
    let mut statements: Vec<String> = revoke("", too_much).into_iter().collect();
    statements.extend(revoke("GRANT OPTION FOR ", only_option));
    statements.extend(source.make.clone().unwrap_or_default());
    statements
}

/// True if the target's enum has all the source's labels, in their order.
pub(super) fn has_all_labels(source: &Object, target: &Object) -> bool {
    let (wanted, there) = (labels_of(source), labels_of(target));
    let mut rest = there.iter();
    wanted.iter().all(|label| rest.any(|there| there == label))
}

fn labels_of(object: &Object) -> Vec<&str> {
    object.facet("labels").map(literals).unwrap_or_default()
}

/// Adds the labels that are missing where they belong; labels can't be put into another order.
fn labels(source: &Object, target: &Object) -> Vec<String> {
    let (wanted, mut there) = (labels_of(source), labels_of(target));
    let mut statements = Vec::new();
    for (at, label) in wanted.iter().enumerate().filter(|(_, label)| !labels_of(target).contains(label)) {
        let before = wanted[at..].iter().find_map(|next| there.iter().position(|there| there == next));
        let place = match (at.checked_sub(1).map(|previous| wanted[previous]), before) {
            (Some(previous), _) => format!(" AFTER {previous}"),
            (None, Some(next)) => format!(" BEFORE {}", there[next]),
            (None, None) => String::new(),
        };
        let index = match at.checked_sub(1) {
            Some(previous) => {
                there.iter().position(|there| *there == wanted[previous]).map_or(there.len(), |p| p + 1)
            }
            None => before.unwrap_or(there.len()),
        };
        there.insert(index, label);
        statements.push(format!("ALTER TYPE {} ADD VALUE {label}{place}", source.name));
    }
    let mut rest = there.iter();
    if wanted.iter().all(|label| rest.any(|there| there == label)) { statements } else { Vec::new() }
}

/// Adds the attributes that are missing at the end.
fn attributes(source: &Object, target: &Object) -> Vec<String> {
    let list = |object: &Object| -> Vec<String> {
        let attributes = object.facet("attributes").unwrap_or_default();
        parts(attributes).into_iter().filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let (wanted, there) = (list(source), list(target));
    match wanted.strip_prefix(there.as_slice()) {
        Some(rest) => rest
            .iter()
            .map(|attribute| format!("ALTER TYPE {} ADD ATTRIBUTE {attribute}", source.name))
            .collect(),
        None => Vec::new(),
    }
}

fn domain(source: &Object, differing: &[&str]) -> Vec<String> {
    if differing.iter().any(|facet| matches!(*facet, "type" | "collation")) {
        return Vec::new();
    }
    let change = |facet: &&str| {
        let action = match (*facet, source.facet(facet)) {
            ("default", Some(value)) => format!("SET DEFAULT {value}"),
            ("default", None) => "DROP DEFAULT".to_owned(),
            (_, Some(_)) => "SET NOT NULL".to_owned(),
            (_, None) => "DROP NOT NULL".to_owned(),
        };
        format!("ALTER DOMAIN {} {action}", source.name)
    };
    differing.iter().map(change).collect()
}

fn table(source: &Object, target: &Object, differing: &[&str]) -> Vec<String> {
    if differing.iter().any(|facet| matches!(*facet, "kind" | "partitioned by")) {
        return Vec::new();
    }
    let name = &source.name;
    let mut statements = Vec::new();
    for facet in differing {
        let action = match (*facet, source.facet(facet)) {
            ("persistence", Some(persistence)) => format!("SET {persistence}"),
            ("row security", Some(_)) => "ENABLE ROW LEVEL SECURITY".to_owned(),
            ("row security", None) => "DISABLE ROW LEVEL SECURITY".to_owned(),
            ("row security of the owner", Some(_)) => "FORCE ROW LEVEL SECURITY".to_owned(),
            ("row security of the owner", None) => "NO FORCE ROW LEVEL SECURITY".to_owned(),
            // By an index that may be missing, too, it is set with that.
            ("replica identity", Some(identity))
                if differing.len() == 1 || !identity.starts_with("USING") =>
            {
                format!("REPLICA IDENTITY {identity}")
            }
            _ => continue,
        };
        statements.push(format!("ALTER TABLE {name} {action}"));
    }
    if differing.iter().any(|facet| matches!(*facet, "partition of" | "bound")) {
        let detach = |parent| format!("ALTER TABLE {parent} DETACH PARTITION {name}");
        statements.extend(target.facet("partition of").map(detach));
        let bound = source.facet("partition of").zip(source.facet("bound"));
        statements.extend(
            bound.map(|(parent, bound)| format!("ALTER TABLE {parent} ATTACH PARTITION {name} {bound}")),
        );
    }
    if differing.contains(&"inherits") {
        let parents = |object: &Object| -> Vec<String> {
            let parents = object.facet("inherits").map(parts).unwrap_or_default();
            parents.into_iter().map(str::to_owned).collect()
        };
        let (wanted, there) = (parents(source), parents(target));
        let only = |some: &[String], others: &[String], action: &str| -> Vec<String> {
            let some = some.iter().filter(|parent| !others.contains(parent));
            some.map(|parent| format!("ALTER TABLE {name} {action} {parent}")).collect()
        };
        statements.extend(only(&there, &wanted, "NO INHERIT"));
        statements.extend(only(&wanted, &there, "INHERIT"));
    }
    statements
}

fn column(source: &Object, target: &Object, differing: &[&str]) -> Vec<String> {
    let (table, name) = last_name(&source.name);
    let has = |facet| differing.contains(&facet);
    // What it holds comes from the other columns.
    if has("generated") && source.facet("generated").is_some() {
        let drop = format!("ALTER TABLE {table} DROP COLUMN {name}");
        return std::iter::once(drop).chain(source.make.clone().unwrap_or_default()).collect();
    }
    let mut actions = Vec::new();
    let options = source.facet("identity options").map(parts).unwrap_or_default();
    let (wants_identity, has_identity) = (source.facet("identity"), target.facet("identity"));
    if has("generated") {
        actions.push("DROP EXPRESSION".to_owned());
    }
    if has_identity.is_some() && wants_identity.is_none() {
        actions.push("DROP IDENTITY".to_owned());
    }
    let new_type = has("type") || has("collation");
    if target.facet("default").is_some() && (new_type || has("default")) {
        actions.push("DROP DEFAULT".to_owned());
    }
    if let Some(wanted) = source.facet("type").filter(|_| new_type) {
        let collation =
            source.facet("collation").map_or(String::new(), |collation| format!(" COLLATE {collation}"));
        let is_generated = source.facet("generated").is_some();
        let using = if is_generated { String::new() } else { format!(" USING {name}::{wanted}") };
        actions.push(format!("TYPE {wanted}{collation}{using}"));
    }
    if let Some(default) = source.facet("default").filter(|_| new_type || has("default")) {
        actions.push(format!("SET DEFAULT {default}"));
    }
    match (source.facet("not null"), target.facet("not null")) {
        (Some(_), Some("NOT NULL")) | (None, None) => {}
        (Some(_), _) => actions.push("SET NOT NULL".to_owned()),
        (None, Some(_)) => actions.push("DROP NOT NULL".to_owned()),
    }
    match (wants_identity, has_identity) {
        (Some(wanted), None) => {
            actions.push(format!("ADD GENERATED {wanted} AS IDENTITY ({})", options.join(" ")));
        }
        (Some(wanted), Some(_)) if has("identity") => actions.push(format!("SET GENERATED {wanted}")),
        _ => {}
    }
    if has("identity options") && wants_identity.is_some() && has_identity.is_some() {
        let set: Vec<String> = options.iter().map(|option| format!("SET {option}")).collect();
        actions.push(set.join(" "));
    }
    actions.iter().map(|action| format!("ALTER TABLE {table} ALTER COLUMN {name} {action}")).collect()
}
