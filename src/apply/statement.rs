//! The SQL for one change. Pure: a shape and a fitted table in, a statement out.
//!
//! Changes of one shape share a statement, which is prepared once. Parameters travel as text, in
//! the very bytes that the source's output functions wrote; the target's input functions read them
//! as the type of the column they go to, so nothing is parsed or printed on the way.

use crate::catalog::quote_identifier;
use crate::chunk::KeyRange;
use crate::fault::{Fault, Result, Side};
use crate::pgoutput::{OldTuple, ReplicaIdentity, Tuple, Value};

use super::table::{Equality, Fitted, FittedColumn};

/// A set of column positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Columns(Vec<u64>);

impl Columns {
    pub(super) fn of(positions: impl Iterator<Item = usize>) -> Self {
        let mut words = Vec::new();
        for position in positions {
            let word = position / 64;
            if word >= words.len() {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (position % 64);
        }
        Self(words)
    }

    pub(super) fn has(&self, position: usize) -> bool {
        self.0.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
    }
}

/// How a row is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Find {
    /// By the key columns of the new row: the key has not changed.
    NewKey,
    /// By the key columns of the old row.
    OldKey,
    /// By every column of the old row; some of these are NULL.
    OldRow { nulls: Columns },
}

/// What a statement depends on besides the table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    /// A new row.
    Insert,
    /// A row changed in place.
    Update { find: Find, set: Columns },
    /// A row changed where an identity column forbids UPDATE: deleted and inserted in one statement.
    Replace { find: Find, set: Columns },
    /// A row deleted.
    Delete { find: Find },
}

/// Where a parameter's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    /// This column of the new row.
    New(usize),
    /// This column of the old row or key.
    Old(usize),
}

/// A statement and where its parameters come from.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
}

/// The shape of an INSERT.
pub(super) fn insert_shape(new: &Tuple) -> Result<Shape> {
    if new.values().any(|v| matches!(v, Value::Unchanged)) {
        return Err(Fault::person("the source sent a new row without one of its TOASTed values")
            .on(Side::Source)
            .remedy(
                "this happens when a row filter of the publication turns an UPDATE into an INSERT; \
             give the table REPLICA IDENTITY FULL or drop the row filter",
            ));
    }
    Ok(Shape::Insert)
}

/// The shape of an UPDATE.
pub(super) fn update_shape(table: &Fitted, old: Option<&OldTuple>, new: &Tuple) -> Result<Shape> {
    let find = match old {
        None => Find::NewKey,
        Some(old) => find_old(old),
    };
    require_key(table, &find)?;
    // The key needs no writing if it has not changed, and what has not been sent can't be written.
    let set = Columns::of(new.values().zip(&table.columns).enumerate().filter_map(|(i, (value, column))| {
        let is_known_unchanged = matches!(value, Value::Unchanged)
            || column.is_gone
            || (column.is_key && find == Find::NewKey)
            || (column.is_identity_always && unchanged(old, i, value));
        (!is_known_unchanged).then_some(i)
    }));
    let identity =
        table.columns.iter().enumerate().any(|(i, column)| column.is_identity_always && set.has(i));
    Ok(if identity { Shape::Replace { find, set } } else { Shape::Update { find, set } })
}

/// The shape of a DELETE.
pub(super) fn delete_shape(table: &Fitted, old: &OldTuple) -> Result<Shape> {
    let find = find_old(old);
    require_key(table, &find)?;
    Ok(Shape::Delete { find })
}

fn find_old(old: &OldTuple) -> Find {
    match old {
        OldTuple::Key(_) => Find::OldKey,
        OldTuple::Full(tuple) => Find::OldRow {
            nulls: Columns::of(
                tuple.values().enumerate().filter(|(_, value)| matches!(value, Value::Null)).map(|(i, _)| i),
            ),
        },
    }
}

/// True if the old row is known and has the same value there.
fn unchanged(old: Option<&OldTuple>, column: usize, value: Value<'_>) -> bool {
    matches!(old, Some(OldTuple::Full(tuple)) if tuple.value(column) == Some(value))
}

fn require_key(table: &Fitted, find: &Find) -> Result<()> {
    let can_find = match (find, table.relation.replica_identity) {
        (Find::OldRow { .. }, _) => true,
        // FULL always comes with the whole old row.
        (Find::NewKey | Find::OldKey, ReplicaIdentity::Full) => false,
        (Find::NewKey | Find::OldKey, _) => table.columns.iter().any(|c| c.is_key),
    };
    if !can_find {
        return Err(Fault::person(
            "the source sent an UPDATE or DELETE of a table without a replica identity",
        )
        .on(Side::Source)
        .remedy("give the table a primary key or ALTER TABLE ... REPLICA IDENTITY FULL on the source"));
    }
    Ok(())
}

/// Empties a key range.
pub(super) fn clear(table: &Fitted, key: &[String], range: &KeyRange) -> String {
    let rows = range.to_sql(key).map_or(String::new(), |range| format!(" WHERE {range}"));
    format!("DELETE FROM {}{rows}", table.only())
}

impl Shape {
    /// The statement for this shape.
    pub(super) fn statement(&self, table: &Fitted) -> Statement {
        let mut sql = Builder { sql: String::new(), parameters: Vec::new() };
        match self {
            Self::Insert => sql.insert(table),
            Self::Update { find, set } => sql.update(table, find, set),
            Self::Replace { find, set } => sql.replace(table, find, set),
            Self::Delete { find } => {
                sql.push(&format!("DELETE FROM {}", table.only()));
                sql.find(table, find);
            }
        }
        Statement { sql: sql.sql, parameters: sql.parameters }
    }
}

/// A statement under construction.
struct Builder {
    sql: String,
    parameters: Vec<Parameter>,
}

impl Builder {
    fn push(&mut self, text: &str) {
        self.sql.push_str(text);
    }

    fn parameter(&mut self, parameter: Parameter) -> String {
        self.parameters.push(parameter);
        format!("${}", self.parameters.len())
    }

    fn insert(&mut self, table: &Fitted) {
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (i, column) in table.columns.iter().enumerate().filter(|(_, column)| !column.is_gone) {
            names.push(quote_identifier(&column.name));
            values.push(self.parameter(Parameter::New(i)));
        }
        self.push(&format!("INSERT INTO {}", table.target.to_sql()));
        if names.is_empty() {
            return self.push(" DEFAULT VALUES");
        }
        self.push(&format!(" ({}){} VALUES ({})", names.join(", "), overriding(table), values.join(", ")));
    }

    fn update(&mut self, table: &Fitted, find: &Find, set: &Columns) {
        let assignments: Vec<String> = table
            .columns
            .iter()
            .enumerate()
            .filter(|(i, _)| set.has(*i))
            .map(|(i, column)| {
                let parameter = self.parameter(Parameter::New(i));
                format!("{} = {parameter}", quote_identifier(&column.name))
            })
            .collect();
        if assignments.is_empty() {
            // Nothing to write (an UPDATE of a table that has nothing but its key), but the row must
            // be there: it is locked and counted.
            self.push(&format!("SELECT FROM {}", table.only()));
            self.find(table, find);
            return self.push(" FOR UPDATE");
        }
        self.push(&format!("UPDATE {} SET {}", table.only(), assignments.join(", ")));
        self.find(table, find);
    }

    fn replace(&mut self, table: &Fitted, find: &Find, set: &Columns) {
        self.push(&format!("WITH gone AS (DELETE FROM {}", table.only()));
        self.find(table, find);
        self.push(" RETURNING *)");
        let mut names = Vec::new();
        let mut values = Vec::new();
        for (i, column) in table.columns.iter().enumerate().filter(|(_, column)| !column.is_gone) {
            let name = quote_identifier(&column.name);
            values.push(if set.has(i) {
                format!("{}::{}", self.parameter(Parameter::New(i)), column.type_name)
            } else {
                format!("gone.{name}")
            });
            names.push(name);
        }
        for column in &table.only_on_target {
            let name = quote_identifier(column);
            values.push(format!("gone.{name}"));
            names.push(name);
        }
        self.push(&format!(
            " INSERT INTO {} ({}){} SELECT {} FROM gone",
            table.target.to_sql(),
            names.join(", "),
            overriding(table),
            values.join(", ")
        ));
    }

    /// Adds the WHERE clause that finds the row.
    fn find(&mut self, table: &Fitted, find: &Find) {
        let conditions: Vec<String> = table
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| !column.is_gone && (matches!(find, Find::OldRow { .. }) || column.is_key))
            .map(|(i, column)| self.condition(i, column, find))
            .collect();
        let row = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") };
        match find {
            Find::NewKey | Find::OldKey => self.push(&format!(" WHERE {row}")),
            // Several rows can be equal in every column; exactly one of them is meant.
            Find::OldRow { .. } if table.is_partitioned => self.push(&format!(
                " WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM {} WHERE {row} LIMIT 1)",
                table.only()
            )),
            Find::OldRow { .. } => {
                self.push(&format!(" WHERE ctid = (SELECT ctid FROM {} WHERE {row} LIMIT 1)", table.only()));
            }
        }
    }

    fn condition(&mut self, position: usize, column: &FittedColumn, find: &Find) -> String {
        let name = quote_identifier(&column.name);
        let parameter = match find {
            Find::NewKey => Parameter::New(position),
            Find::OldKey => Parameter::Old(position),
            // IS NULL would be true of a row of NULLs, too.
            Find::OldRow { nulls } if nulls.has(position) => {
                return format!("{name} IS NOT DISTINCT FROM NULL");
            }
            Find::OldRow { .. } => Parameter::Old(position),
        };
        let parameter = self.parameter(parameter);
        let by_print = matches!(find, Find::OldRow { .. }) && column.equality == Equality::Printed;
        if by_print {
            // format() calls the type's output function, as the source has done; a cast to text would
            // not (xml loses its declaration, char(n) its blanks). Its result has the column's
            // collation, which may call different texts equal. It prints NULL as an empty value.
            return format!(
                "{name} IS DISTINCT FROM NULL AND pg_catalog.format('%s', {name}) = {parameter} COLLATE pg_catalog.\"C\""
            );
        }
        // Without the cast, a composite type's parameter would be an anonymous record.
        let equality = quote_identifier(&column.equality_schema);
        format!("{name} OPERATOR({equality}.=) {parameter}::{}", column.type_name)
    }
}

pub(super) fn overriding(table: &Fitted) -> &'static str {
    if table.has_identity { " OVERRIDING SYSTEM VALUE" } else { "" }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::TableName;
    use crate::pgoutput::{Column, Relation};

    /// `id` (key), `n` (numeric), `note` (text); the target also has `extra`.
    fn table(replica_identity: ReplicaIdentity, change: impl Fn(&mut Fitted)) -> Fitted {
        let names = ["id", "n", "note"];
        let is_key = |name: &str| replica_identity == ReplicaIdentity::Full || name == "id";
        let columns = names
            .map(|name| Column { name: name.into(), type_oid: 0, type_modifier: -1, is_key: is_key(name) })
            .to_vec();
        let relation = Relation { oid: 1, schema: "s".into(), name: "T t".into(), replica_identity, columns };
        let mut fitted = Fitted {
            relation: Arc::new(relation),
            source: TableName::new("s", "T t"),
            target: TableName::new("s", "T t"),
            is_partitioned: false,
            columns: names
                .map(|name| FittedColumn {
                    name: name.into(),
                    is_gone: false,
                    is_key: is_key(name),
                    is_identity_always: false,
                    type_name: "text".into(),
                    equality_schema: "pg_catalog".into(),
                    equality: if name == "n" { Equality::Printed } else { Equality::Exact },
                })
                .to_vec(),
            only_on_target: vec!["extra".into()],
            has_identity: false,
            through_root: false,
            root: None,
        };
        change(&mut fitted);
        fitted
    }

    fn text(value: &'static str) -> Value<'static> {
        Value::Text(value.as_bytes())
    }

    fn sql(shape: Result<Shape>, table: &Fitted) -> (String, Vec<Parameter>) {
        let statement = shape.unwrap().statement(table);
        (statement.sql, statement.parameters)
    }

    use Parameter::{New, Old};

    #[test]
    fn an_insert_names_the_source_s_columns_only() {
        let table = table(ReplicaIdentity::Default, |_| {});
        let new = Tuple::of(&[text("1"), Value::Null, text("x")]);
        assert_eq!(
            sql(insert_shape(&new), &table),
            (
                r#"INSERT INTO "s"."T t" ("id", "n", "note") VALUES ($1, $2, $3)"#.to_owned(),
                vec![New(0), New(1), New(2)]
            )
        );
    }

    #[test]
    fn an_insert_insists_on_identity_values() {
        let table = table(ReplicaIdentity::Default, |table| table.has_identity = true);
        let (sql, _) = sql(insert_shape(&Tuple::of(&[text("1"), Value::Null, text("x")])), &table);
        assert!(sql.contains("OVERRIDING SYSTEM VALUE"), "{sql}");
    }

    #[test]
    fn an_insert_without_a_value_is_refused() {
        assert!(insert_shape(&Tuple::of(&[text("1"), Value::Unchanged])).is_err());
    }

    #[test]
    fn an_update_writes_neither_the_unchanged_key_nor_unchanged_toast() {
        let table = table(ReplicaIdentity::Default, |_| {});
        let new = Tuple::of(&[text("1"), text("2"), Value::Unchanged]);
        assert_eq!(
            sql(update_shape(&table, None, &new), &table),
            (
                r#"UPDATE ONLY "s"."T t" SET "n" = $1 WHERE "id" OPERATOR("pg_catalog".=) $2::text"#
                    .to_owned(),
                vec![New(1), New(0)]
            )
        );
    }

    #[test]
    fn an_update_with_nothing_to_write_still_finds_its_row() {
        let table = table(ReplicaIdentity::Default, |_| {});
        let new = Tuple::of(&[text("1"), Value::Unchanged, Value::Unchanged]);
        assert_eq!(
            sql(update_shape(&table, None, &new), &table),
            (
                r#"SELECT FROM ONLY "s"."T t" WHERE "id" OPERATOR("pg_catalog".=) $1::text FOR UPDATE"#
                    .to_owned(),
                vec![New(0)]
            )
        );
    }

    #[test]
    fn a_changed_key_is_found_by_the_old_one_and_written() {
        let table = table(ReplicaIdentity::Default, |_| {});
        let old = OldTuple::Key(Tuple::of(&[text("1"), Value::Null, Value::Null]));
        let new = Tuple::of(&[text("2"), text("3"), Value::Unchanged]);
        assert_eq!(
            sql(update_shape(&table, Some(&old), &new), &table),
            (
                r#"UPDATE ONLY "s"."T t" SET "id" = $1, "n" = $2 WHERE "id" OPERATOR("pg_catalog".=) $3::text"#
                    .to_owned(),
                vec![New(0), New(1), Old(0)]
            )
        );
    }

    #[test]
    fn a_full_old_row_is_found_exactly_and_once() {
        let table = table(ReplicaIdentity::Full, |_| {});
        let old = OldTuple::Full(Tuple::of(&[text("1"), text("1.0"), Value::Null]));
        assert_eq!(
            sql(delete_shape(&table, &old), &table),
            (
                concat!(
                    r#"DELETE FROM ONLY "s"."T t" WHERE ctid = (SELECT ctid FROM ONLY "s"."T t" WHERE "#,
                    r#""id" OPERATOR("pg_catalog".=) $1::text AND "n" IS DISTINCT FROM NULL AND pg_catalog.format('%s', "n") = $2 COLLATE pg_catalog."C" "#,
                    r#"AND "note" IS NOT DISTINCT FROM NULL LIMIT 1)"#
                )
                .to_owned(),
                vec![Old(0), Old(1)]
            )
        );
    }

    #[test]
    fn a_full_row_in_partitions_is_found_by_its_table_too() {
        let table = table(ReplicaIdentity::Full, |table| table.is_partitioned = true);
        let old = OldTuple::Full(Tuple::of(&[Value::Null, Value::Null, Value::Null]));
        let (sql, _) = sql(delete_shape(&table, &old), &table);
        assert!(
            sql.starts_with(r#"DELETE FROM "s"."T t" WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM "#),
            "{sql}"
        );
    }

    #[test]
    fn a_changed_identity_column_replaces_the_row_and_keeps_what_was_not_sent() {
        let table = table(ReplicaIdentity::Default, |table| {
            table.columns[0].is_identity_always = true;
            table.has_identity = true;
        });
        let old = OldTuple::Key(Tuple::of(&[text("1"), Value::Null, Value::Null]));
        let new = Tuple::of(&[text("2"), text("3"), Value::Unchanged]);
        assert_eq!(
            sql(update_shape(&table, Some(&old), &new), &table),
            (
                concat!(
                    r#"WITH gone AS (DELETE FROM ONLY "s"."T t" WHERE "id" OPERATOR("pg_catalog".=) $1::text RETURNING *) "#,
                    r#"INSERT INTO "s"."T t" ("id", "n", "note", "extra") OVERRIDING SYSTEM VALUE "#,
                    r#"SELECT $2::text, $3::text, gone."note", gone."extra" FROM gone"#
                )
                .to_owned(),
                vec![Old(0), New(0), New(1)]
            )
        );
    }

    #[test]
    fn an_update_without_an_identity_is_refused() {
        let table = table(ReplicaIdentity::Nothing, |table| table.columns[0].is_key = false);
        assert!(update_shape(&table, None, &Tuple::of(&[text("1"), text("2"), text("3")])).is_err());
        let full = self::table(ReplicaIdentity::Full, |_| {});
        assert!(update_shape(&full, None, &Tuple::of(&[text("1"), text("2"), text("3")])).is_err());
    }

    #[test]
    fn a_set_of_columns_holds_what_was_put_in() {
        let columns = Columns::of([0, 63, 64, 1599].into_iter());
        for i in 0..1700 {
            assert_eq!(columns.has(i), [0, 63, 64, 1599].contains(&i), "{i}");
        }
    }
}
