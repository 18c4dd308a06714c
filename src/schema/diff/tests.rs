//! The comparison, without a server.

use std::collections::BTreeMap;

use super::compare::compare;
use super::read::{Catalog, Object};
use super::{Difference, Kind, What};
use crate::catalog::TableName;
use crate::schema::Scope;

fn object(kind: Kind, name: &str, oid: u32, facets: &[(&str, &str)]) -> Object {
    let of_table = !matches!(kind, Kind::Enum | Kind::CompositeType | Kind::Function);
    Object {
        kind,
        name: name.to_owned(),
        table: of_table.then(|| TableName::new("public", name.split('.').nth(1).unwrap())),
        oid,
        facets: facets.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        make: Some(vec![format!("make {name}")]),
        take: Some(format!("take {name}")),
    }
}

fn part(kind: Kind, name: &str, facets: &[(&str, &str)]) -> Object {
    Object { make: None, ..object(kind, name, 1, facets) }
}

fn catalog(objects: &[Object]) -> Catalog {
    objects.iter().map(|object| ((object.kind, object.name.clone()), object.clone())).collect()
}

fn between(source: &[Object], target: &[Object]) -> Vec<Difference> {
    let scope = Scope::of_tables(source.iter().filter_map(|object| object.table.clone()));
    compare(&catalog(source), &catalog(target), &scope, &BTreeMap::new())
}

fn told(differences: &[Difference]) -> Vec<(What, &str, Vec<&str>)> {
    differences
        .iter()
        .map(|d| (d.what, d.name.as_str(), d.mend.iter().map(String::as_str).collect()))
        .collect()
}

#[test]
fn labels_are_added_where_they_belong_or_not_at_all() {
    let of = |labels| object(Kind::Enum, "public.e", 1, &[("labels", labels)]);
    let mend = |wanted, there| -> Option<(What, Vec<String>)> {
        let differences = between(&[of(wanted)], &[of(there)]);
        differences.into_iter().next().map(|difference| (difference.what, difference.mend))
    };
    let statements = |list: &[&str]| -> Vec<String> {
        list.iter().map(|rest| format!("ALTER TYPE public.e ADD VALUE {rest}")).collect()
    };
    assert_eq!(mend("'a', 'b'", "'a', 'b'"), None);
    for (wanted, there, what, added) in [
        ("'a', 'b'", "'b'", What::Different, &["'a' BEFORE 'b'"][..]),
        ("'a', 'b', 'c'", "'c'", What::Different, &["'a' BEFORE 'c'", "'b' AFTER 'a'"]),
        ("'a', 'it''s', 'c'", "'a', 'c', 'x'", What::Different, &["'it''s' AFTER 'a'"]),
        ("'a', 'b'", "'b', 'a'", What::Different, &[]),
        ("'a', 'b', 'c'", "'b', 'a'", What::Different, &[]),
        ("'a', 'c'", "'x', 'a', 'b', 'c'", What::Harmless, &[]),
    ] {
        assert_eq!(mend(wanted, there), Some((what, statements(added))), "{wanted} from {there}");
    }
}

#[test]
fn what_others_need_is_mended_first() {
    let differences = between(
        &[
            object(Kind::ForeignKey, "public.t.f", 1, &[]),
            object(Kind::Table, "public.part", 2, &[("partition of", "public.t")]),
            object(Kind::Table, "public.t", 3, &[]),
            object(Kind::Function, "public.late", 4, &[("names a table", "yes")]),
            object(Kind::Function, "public.early", 5, &[]),
            object(Kind::View, "public.v", 6, &[]),
            object(Kind::View, "public.a", 7, &[]),
            object(Kind::PrimaryKey, "public.t.p", 8, &[]),
            object(Kind::Enum, "public.e", 9, &[]),
        ],
        &[],
    );
    let names: Vec<&str> = differences.iter().map(|difference| difference.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "public.e",
            "public.early",
            "public.t",
            "public.part",
            "public.t.p",
            "public.late",
            "public.v",
            "public.a",
            "public.t.f"
        ]
    );
}

#[test]
fn what_is_there_under_another_name_is_renamed() {
    let index = |name: &str, definition| object(Kind::Index, name, 1, &[("definition", definition)]);
    let of_t = |index: Object| Object { table: Some(TableName::new("public", "t")), ..index };
    let t = object(Kind::Table, "public.t", 1, &[]);
    let differences = between(
        &[
            t.clone(),
            of_t(index("public.b", "one")),
            of_t(index("public.c", "two")),
            of_t(index("public.d", "three")),
        ],
        &[
            t,
            of_t(index("public.a", "two")),
            of_t(index("public.z", "one")),
            of_t(index("public.y", "other")),
        ],
    );
    assert_eq!(
        told(&differences),
        [
            (What::Missing, "public.d", vec!["make public.d"]),
            (What::Harmless, "public.b", vec!["ALTER INDEX public.z RENAME TO b"]),
            (What::Harmless, "public.c", vec!["ALTER INDEX public.a RENAME TO c"]),
            (What::Extra, "public.y", vec![]),
        ]
    );
}

#[test]
fn a_part_is_compared_only_in_what_can_be_its_own() {
    let column = "public.t.c";
    let whole = |default| object(Kind::Column, column, 1, &[("type", "int"), ("default", default)]);
    let inherited = |default| part(Kind::Column, column, &[("default", default)]);
    assert_eq!(between(&[inherited("1")], &[whole("1")]), []);
    assert_eq!(between(&[whole("1")], &[inherited("1")]), []);
    assert_eq!(
        told(&between(&[inherited("1")], &[inherited("2")])),
        [(
            What::Different,
            column,
            vec![
                "ALTER TABLE public.t ALTER COLUMN c DROP DEFAULT",
                "ALTER TABLE public.t ALTER COLUMN c SET DEFAULT 1"
            ]
        )]
    );
    // It comes and goes with its whole.
    assert_eq!(between(&[inherited("1")], &[]), []);
    assert_eq!(
        between(
            &[object(Kind::Table, "public.t", 1, &[])],
            &[object(Kind::Table, "public.t", 1, &[]), inherited("1")]
        ),
        []
    );
}

#[test]
fn what_is_not_selected_or_held_back_does_not_count() {
    let (t, key) = (object(Kind::Table, "public.t", 1, &[]), object(Kind::ForeignKey, "public.t.f", 2, &[]));
    let source = catalog(&[t.clone(), key]);
    let mut not_selected = Scope::of_tables([]);
    not_selected.others.insert(TableName::new("public", "t"));
    assert_eq!(
        told(&compare(&source, &Catalog::new(), &not_selected, &BTreeMap::new())),
        [(What::LeftOut, "public.t", vec![])]
    );
    let scope = Scope::of_tables([TableName::new("public", "t")]);
    let differences =
        compare(&source, &catalog(&[t]), &scope, &[("public.t.f".to_owned(), "copy".to_owned())].into());
    assert_eq!(told(&differences), [(What::HeldBack, "public.t.f", vec![])]);
    assert!(!differences[0].what.counts());
}

#[test]
fn a_difference_has_a_stable_shape_as_json() {
    let differences = between(&[object(Kind::Enum, "public.e", 1, &[("labels", "'a'")])], &[]);
    let expected: BTreeMap<&str, serde_json::Value> = [
        ("what", "missing".into()),
        ("kind", "enum".into()),
        ("name", "public.e".into()),
        ("table", serde_json::Value::Null),
        ("source", "labels: 'a'".into()),
        ("target", serde_json::Value::Null),
        ("mend", vec!["make public.e"].into()),
        ("note", serde_json::Value::Null),
    ]
    .into();
    assert_eq!(serde_json::to_value(&differences[0]).unwrap(), serde_json::to_value(expected).unwrap());
}
