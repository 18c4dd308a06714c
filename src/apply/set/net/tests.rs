use std::sync::Arc;

use super::*;
use crate::apply::table::{Equality, FittedColumn};
use crate::catalog::TableName;
use crate::pgoutput::{Column, Relation, ReplicaIdentity};

/// `id` (bigint, the key) and `note` (text).
fn table(change: impl Fn(&mut Fitted)) -> Fitted {
    let columns = [("id", "bigint", true), ("note", "text", false)];
    let relation = Relation {
        oid: 1,
        schema: "public".into(),
        name: "t".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: columns
            .map(|(name, _, is_key)| Column { name: name.into(), type_oid: 0, type_modifier: -1, is_key })
            .to_vec(),
    };
    let mut table = Fitted {
        relation: Arc::new(relation),
        source: TableName::new("public", "t"),
        target: TableName::new("public", "t"),
        is_partitioned: false,
        columns: columns
            .map(|(name, type_name, is_key)| FittedColumn {
                name: name.into(),
                is_gone: false,
                is_key,
                is_identity_always: false,
                type_name: type_name.into(),
                equality_schema: "pg_catalog".into(),
                equality: Equality::Exact,
            })
            .to_vec(),
        only_on_target: Vec::new(),
        has_identity: false,
        through_root: false,
        root: None,
    };
    change(&mut table);
    table
}

const UNCHANGED: Option<&str> = Some("(unchanged)");

fn tuple(id: &str, note: Option<&str>) -> Tuple {
    let note = match note {
        UNCHANGED => Value::Unchanged,
        Some(note) => Value::Text(note.as_bytes()),
        None => Value::Null,
    };
    Tuple::of(&[Value::Text(id.as_bytes()), note])
}

fn relation() -> Arc<Relation> {
    table(|_| {}).relation
}

fn insert(id: &str, note: Option<&str>) -> Change {
    Change::Insert { relation: relation(), new: tuple(id, note) }
}

fn update(id: &str, note: Option<&str>) -> Change {
    Change::Update { relation: relation(), old: None, new: tuple(id, note) }
}

fn rekey(old: &str, new: &str, note: Option<&str>) -> Change {
    let old = OldTuple::Key(tuple(old, None));
    Change::Update { relation: relation(), old: Some(old), new: tuple(new, note) }
}

fn delete(id: &str) -> Change {
    Change::Delete { relation: relation(), old: OldTuple::Key(tuple(id, None)) }
}

/// What the changes come to, for people: `?` must not be there, `-` goes, `~` changes, `+` is new.
fn told_of(table: &Fitted, changes: &[Change]) -> Option<String> {
    let changes: Vec<&Change> = changes.iter().collect();
    let effects = net(table, &changes, false)?;
    fn text(value: Value<'_>) -> String {
        match value {
            Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Value::Null => "NULL".to_owned(),
            Value::Unchanged => "as it is".to_owned(),
            Value::Binary(_) => unreachable!("nothing asks for it"),
        }
    }
    let key = |key: &Key<'_>| String::from_utf8_lossy(key[0]).into_owned();
    let row = |row: &Row<'_>| format!("{} {}", text(row.value(0)), text(row.value(1)));
    let mut told: Vec<String> = effects.passing.iter().map(|k| format!("? {}", key(k))).collect();
    told.extend(effects.deleted.iter().map(|k| format!("- {}", key(k))));
    for (columns, rows) in &effects.updated {
        told.extend(rows.iter().map(|(k, r)| {
            let note = if columns.has(1) { text(r.value(1)) } else { "as it is".to_owned() };
            format!("~ {} {note}", key(k))
        }));
    }
    told.extend(effects.inserted.iter().map(|r| format!("+ {}", row(r))));
    Some(told.join(", "))
}

fn told(changes: &[Change]) -> Option<String> {
    told_of(&table(|_| {}), changes)
}

#[test]
fn only_the_last_state_of_a_row_counts() {
    let changes = [update("1", Some("a")), update("1", Some("b")), insert("2", None), update("2", Some("c"))];
    assert_eq!(told(&changes).unwrap(), "~ 1 b, + 2 c");
}

#[test]
fn a_row_that_comes_and_goes_must_not_have_been_there() {
    assert_eq!(told(&[insert("1", None), delete("1")]).unwrap(), "? 1");
}

#[test]
fn a_row_that_goes_and_comes_is_a_new_one() {
    let changes = [delete("1"), insert("1", Some("new")), update("1", Some("newer"))];
    assert_eq!(told(&changes).unwrap(), "- 1, + 1 newer");
    assert_eq!(told(&[delete("1"), insert("1", None), delete("1")]).unwrap(), "- 1");
}

#[test]
fn unchanged_toast_is_what_an_earlier_change_brought_or_stays() {
    let changes = [insert("1", Some("a")), update("1", UNCHANGED), update("2", UNCHANGED)];
    assert_eq!(told(&changes).unwrap(), "~ 2 as it is, + 1 a");
    assert_eq!(told(&[update("1", Some("a")), update("1", UNCHANGED)]).unwrap(), "~ 1 a");
    assert_eq!(told(&[update("1", UNCHANGED), update("1", Some("a"))]).unwrap(), "~ 1 a");
}

#[test]
fn a_row_that_moves_goes_here_and_comes_there() {
    assert_eq!(told(&[rekey("1", "2", Some("a"))]).unwrap(), "- 1, + 2 a");
    assert_eq!(told(&[insert("1", Some("a")), rekey("1", "2", UNCHANGED)]).unwrap(), "? 1, + 2 a");
    let chain = [rekey("2", "3", Some("b")), rekey("1", "2", Some("a"))];
    assert_eq!(told(&chain).unwrap(), "- 1, - 2, + 2 a, + 3 b");
    // The old key can be sent although it is the same.
    assert_eq!(told(&[rekey("1", "1", Some("a"))]).unwrap(), "~ 1 a");
}

#[test]
fn a_row_that_moves_with_what_is_not_known_of_it_is_left_alone() {
    assert_eq!(told(&[rekey("1", "2", UNCHANGED)]), None);
    let wider = table(|table| table.only_on_target.push("extra".into()));
    assert_eq!(told_of(&wider, &[rekey("1", "2", Some("a"))]), None);
}

#[test]
fn what_contradicts_itself_is_left_alone() {
    assert_eq!(told(&[insert("1", None), insert("1", None)]), None);
    assert_eq!(told(&[update("1", None), insert("1", None)]), None);
    assert_eq!(told(&[delete("1"), delete("1")]), None);
    assert_eq!(told(&[delete("1"), update("1", None)]), None);
    assert_eq!(told(&[insert("1", None), rekey("2", "1", Some("a"))]), None);
}

#[test]
fn an_identity_column_that_an_update_can_t_write_is_left_alone() {
    let always = table(|table| table.columns[1].is_identity_always = true);
    assert_eq!(told_of(&always, &[update("1", Some("7"))]), None);
    let key = table(|table| table.columns[0].is_identity_always = true);
    assert_eq!(told_of(&key, &[update("1", Some("7"))]).unwrap(), "~ 1 7");
    assert_eq!(told_of(&key, &[rekey("1", "2", Some("7"))]).unwrap(), "- 1, + 2 7");
}

#[test]
fn keys_come_in_the_order_of_their_values() {
    let ids = ["10", "9", "100", "1"].map(delete);
    assert_eq!(told(&ids).unwrap(), "- 1, - 9, - 10, - 100");
}

#[test]
fn where_rows_can_t_be_told_apart_there_are_only_new_ones() {
    let table = table(|_| {});
    let (a, b, gone) = (insert("1", None), insert("1", None), delete("1"));
    assert_eq!(net(&table, &[&a, &b], true).unwrap().inserted.len(), 2);
    assert_eq!(net(&table, &[&a, &gone], true), None);
}
