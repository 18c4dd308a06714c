//! The SQL of the copy. Pure.
//!
//! The key's columns come first: when the target refuses a line, the error quotes it from its start.

use super::format::Format;
use crate::catalog::{PublishedTable, TableName, quote_identifier};
use crate::chunk::KeyRange;

/// Reads a chunk's rows.
#[must_use]
pub fn copy_out(table: &PublishedTable, range: &KeyRange, format: Format) -> String {
    let name = table.name.only(table.is_partitioned);
    let filter = table.row_filter.as_ref().map(|filter| format!("({filter})"));
    let wanted = condition(range.to_sql(table.chunk_columns()).into_iter().chain(filter));
    let columns = quoted(&columns(table));
    format!("COPY (SELECT {columns} FROM {name}{wanted}) TO STDOUT{}", format.option())
}

/// Writes rows as [`copy_out`] reads them.
#[must_use]
pub fn copy_in(table: &PublishedTable, target: &TableName, format: Format) -> String {
    // `COPY t ()` is a syntax error. Without a list it is all columns but the generated ones: none, if
    // the target's table is like the source's; each row is an empty line then.
    let columns = quoted(&columns(table));
    let list = if columns.is_empty() { columns } else { format!(" ({columns})") };
    format!("COPY {}{list} FROM STDIN{}", target.to_sql(), format.option())
}

/// Removes a chunk's rows. A row filter is none of its concern: what no longer passes must go too.
#[must_use]
pub fn delete(
    table: &PublishedTable,
    range: &KeyRange,
    target: &TableName,
    target_is_partitioned: bool,
) -> String {
    let wanted = condition(range.to_sql(table.chunk_columns()));
    format!("DELETE FROM {}{wanted}", target.only(target_is_partitioned))
}

/// Removes rows that no range of the key holds, since a part of it is null.
#[must_use]
pub fn delete_without_key(table: &PublishedTable, target: &TableName, target_is_partitioned: bool) -> String {
    let nulls: Vec<String> =
        table.chunk_columns().iter().map(|column| format!("{} IS NULL", quote_identifier(column))).collect();
    format!("DELETE FROM {} WHERE {}", target.only(target_is_partitioned), nulls.join(" OR "))
}

/// The published columns in the order in which they travel: those of the key first.
pub(super) fn columns(table: &PublishedTable) -> Vec<String> {
    let others = table.columns.iter().filter(|column| !table.key.contains(column));
    table.key.iter().chain(others).cloned().collect()
}

fn quoted(columns: &[String]) -> String {
    columns.iter().map(|column| quote_identifier(column)).collect::<Vec<_>>().join(", ")
}

fn condition(parts: impl IntoIterator<Item = String>) -> String {
    let parts: Vec<String> = parts.into_iter().collect();
    if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Identity;
    use crate::chunk::{KeyType, KeyValue};

    fn table(columns: &[&str], key: &[&str], chunk_key: &[KeyType]) -> PublishedTable {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        PublishedTable {
            oid: 1,
            name: TableName::new("public", "Order"),
            membership: String::new(),
            is_partitioned: false,
            root: None,
            bounds: None,
            identity: Identity::Key,
            digest: None,
            columns: names(columns),
            row_filter: None,
            key: names(key),
            chunk_key: chunk_key.to_vec(),
            rows: None,
            bytes: 0,
            pages: 0,
        }
    }

    #[test]
    fn a_chunk_of_a_composite_key_is_compared_as_a_row() {
        let table =
            table(&["v", "id", "tenant", "a\"b"], &["tenant", "id"], &[KeyType::Integer, KeyType::Uuid]);
        let target = TableName::new("public", "Order");
        let range = KeyRange {
            lower: Some(vec![KeyValue::Integer(-5), KeyValue::Uuid(1)]),
            upper: Some(vec![KeyValue::Integer(7), KeyValue::Uuid(2)]),
        };
        let condition = "(\"tenant\", \"id\") >= ('-5'::pg_catalog.int8, \
                         '00000000-0000-0000-0000-000000000001'::pg_catalog.uuid) AND (\"tenant\", \"id\") < \
                         ('7'::pg_catalog.int8, '00000000-0000-0000-0000-000000000002'::pg_catalog.uuid)";
        assert_eq!(
            copy_out(&table, &range, Format::Text),
            format!(
                "COPY (SELECT \"tenant\", \"id\", \"v\", \"a\"\"b\" FROM ONLY \"public\".\"Order\" WHERE {condition}) \
                 TO STDOUT"
            )
        );
        assert_eq!(
            copy_in(&table, &target, Format::Binary),
            "COPY \"public\".\"Order\" (\"tenant\", \"id\", \"v\", \"a\"\"b\") FROM STDIN (FORMAT binary)"
        );
        assert_eq!(
            delete(&table, &range, &target, false),
            format!("DELETE FROM ONLY \"public\".\"Order\" WHERE {condition}")
        );
        assert_eq!(delete(&table, &KeyRange::ALL, &target, true), "DELETE FROM \"public\".\"Order\"");
    }

    #[test]
    fn a_row_filter_decides_what_is_read_and_not_what_is_removed() {
        let mut table = table(&["id"], &["id"], &[KeyType::Integer]);
        table.row_filter = Some("(a > 1) OR b".to_owned());
        table.is_partitioned = true;
        let target = TableName::new("public", "t");
        let upper = KeyRange { lower: None, upper: Some(vec![KeyValue::Integer(9)]) };
        assert_eq!(
            copy_out(&table, &upper, Format::Text),
            "COPY (SELECT \"id\" FROM \"public\".\"Order\" WHERE (\"id\") < ('9'::pg_catalog.int8) AND ((a > 1) OR \
             b)) TO STDOUT"
        );
        assert_eq!(
            copy_out(&table, &KeyRange::ALL, Format::Binary),
            "COPY (SELECT \"id\" FROM \"public\".\"Order\" WHERE ((a > 1) OR b)) TO STDOUT (FORMAT binary)"
        );
        assert_eq!(
            delete(&table, &upper, &target, false),
            "DELETE FROM ONLY \"public\".\"t\" WHERE (\"id\") < ('9'::pg_catalog.int8)"
        );
    }

    #[test]
    fn a_table_without_columns_has_rows_all_the_same() {
        let table = table(&[], &[], &[]);
        assert_eq!(
            copy_out(&table, &KeyRange::ALL, Format::Text),
            "COPY (SELECT  FROM ONLY \"public\".\"Order\") TO STDOUT"
        );
        assert_eq!(copy_in(&table, &table.name, Format::Text), "COPY \"public\".\"Order\" FROM STDIN");
    }
}
