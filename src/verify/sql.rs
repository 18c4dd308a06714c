//! The SQL of the comparison. Pure.
//!
//! What is compared is the text of a row as its types' output functions print it, `ROW(c1, c2)::text`: NULL
//! and the empty string differ there, as do `1.0` and `1.00`, and columns are named one by one, so that the
//! order of the target's columns means nothing. Sums of its hashes don't depend on the order of the rows.

use crate::catalog::{quote_identifier, quote_literal};
use crate::chunk::KeyRange;

/// How many buckets the rows of a chunk are grouped into.
pub(super) const BUCKETS: i64 = 4096;

/// How a text becomes a number of 64 bits: the same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    /// The server's own hash of the bytes. It depends on the encoding, and on the machine's byte order.
    Fast,
    /// The first half of the MD5 of the text in UTF-8.
    Portable,
}

impl Hash {
    pub(super) fn of(self, text: &str) -> String {
        match self {
            Self::Fast => format!("hashtextextended({text} COLLATE \"C\", 0)"),
            Self::Portable => format!("('x' || left(md5(convert_to({text}, 'UTF8')), 16))::bit(64)::int8"),
        }
    }
}

/// A column of the key, as one side has it.
#[derive(Clone, Debug)]
pub(super) struct KeyColumn {
    /// Its name.
    pub(super) name: String,
    /// What a text is cast to.
    pub(super) type_name: String,
    /// The schema of its type's equality operator.
    pub(super) equality_schema: String,
}

/// One side of what is compared.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Selects the rows, with `tableoid`, `ctid` and `xmin`.
    pub(super) rows: String,
    /// The columns that are compared, in the source's order.
    pub(super) columns: Vec<String>,
    /// Those that tell rows apart; without any, a row's whole text does.
    pub(super) key: Vec<KeyColumn>,
    /// How text becomes a number.
    pub(super) hash: Hash,
}

/// Selects these columns of a table, and what tells its versions apart.
pub(super) fn select(table: &str, columns: &[String], filter: Option<&str>) -> String {
    let columns: String = columns.iter().map(|column| format!(", {}", quote_identifier(column))).collect();
    let filter = filter.map(|filter| format!(" WHERE ({filter})")).unwrap_or_default();
    format!("SELECT tableoid, ctid, xmin{columns} FROM {table}{filter}")
}

impl Place {
    /// The text of a row.
    fn row(&self) -> String {
        row(self.columns.iter())
    }

    /// The text of its key.
    fn id(&self) -> String {
        if self.key.is_empty() { self.row() } else { row(self.key.iter().map(|column| &column.name)) }
    }

    fn range(range: &KeyRange, columns: &[String]) -> String {
        range.to_sql(columns).map(|condition| format!(" WHERE {condition}")).unwrap_or_default()
    }

    /// The number of rows, the sum of their hashes, and of the bytes of their texts. `OFFSET 0` keeps the
    /// server from printing each row twice.
    pub(super) fn sums(&self, range: &KeyRange, columns: &[String]) -> String {
        let hash = self.hash.of("r");
        format!(
            "SELECT count(*), coalesce(sum({hash}), 0)::text, coalesce(sum(octet_length(r)), 0)::int8 \
             FROM (SELECT {} AS r FROM ({}) AS t{} OFFSET 0) AS x",
            self.row(),
            self.rows,
            Self::range(range, columns)
        )
    }

    /// Each row's key and text, or for rows without a key their text twice.
    fn texts(&self, range: &KeyRange, columns: &[String]) -> String {
        let (id, row, wanted) = (self.id(), self.row(), Self::range(range, columns));
        format!("(SELECT {id} AS i, {row} AS r FROM ({}) AS t{wanted} OFFSET 0) AS x", self.rows)
    }

    /// The same sums for each bucket of the rows.
    pub(super) fn buckets(&self, range: &KeyRange, columns: &[String]) -> String {
        format!(
            "SELECT ({} & {})::int4, count(*), sum({})::text FROM {} GROUP BY 1",
            self.hash.of("i"),
            BUCKETS - 1,
            self.hash.of("r"),
            self.texts(range, columns)
        )
    }

    /// The rows of these buckets: identity and content, in the order of the identity's bytes. A row without
    /// a key is its hash, and its content how often it is there.
    pub(super) fn rows_of(&self, buckets: &[i32], range: &KeyRange, columns: &[String]) -> String {
        let list = buckets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let (texts, hash) = (self.texts(range, columns), self.hash.of("r"));
        let wanted = format!("({} & {})::int4 = ANY ('{{{list}}}'::int4[])", self.hash.of("i"), BUCKETS - 1);
        if self.key.is_empty() {
            return format!(
                "SELECT convert_to(h::text, 'UTF8'), count(*) FROM (SELECT {hash} AS h FROM {texts} WHERE {wanted}) \
                 AS h GROUP BY h ORDER BY 1"
            );
        }
        format!("SELECT convert_to(i, 'UTF8'), {hash} FROM {texts} WHERE {wanted} ORDER BY 1")
    }

    /// The rows `t` with these identities, joined to `v`, the identity's number; `None` if one can't be read.
    fn found(&self, ids: &[(usize, &str)]) -> Option<String> {
        let (rows, hash) = (&self.rows, self.hash.of(&format!("({})", self.row())));
        if self.key.is_empty() {
            let values: Vec<String> = ids.iter().map(|(n, id)| format!("({n}, {id}::int8)")).collect();
            return Some(format!(
                "(VALUES {}) AS v (n, h) JOIN ({rows}) AS t ON {hash} = v.h",
                values.join(", ")
            ));
        }
        let value = |(n, id): &(usize, &str)| {
            let fields = fields(id)?;
            let values: Option<Vec<String>> = fields
                .iter()
                .zip(&self.key)
                .map(|(field, column)| {
                    Some(format!("{}::{}", quote_literal(field.as_deref()?), column.type_name))
                })
                .collect();
            (fields.len() == self.key.len()).then_some(format!("({n}, {})", values?.join(", ")))
        };
        let values: Option<Vec<String>> = ids.iter().map(value).collect();
        let names: String = (0..self.key.len()).map(|k| format!(", k{k}")).collect();
        let conditions: Vec<String> = self
            .key
            .iter()
            .enumerate()
            .map(|(k, column)| {
                let schema = quote_identifier(&column.equality_schema);
                format!("{} OPERATOR({schema}.=) v.k{k}", of_t(&column.name))
            })
            .collect();
        Some(format!(
            "(VALUES {}) AS v (n{names}) JOIN ({rows}) AS t ON {}",
            values?.join(", "),
            conditions.join(" AND ")
        ))
    }

    /// Number, version and content of each row with one of these identities.
    pub(super) fn look_up(&self, ids: &[(usize, &str)]) -> Option<String> {
        Some(format!(
            "SELECT v.n, concat_ws(' ', t.tableoid::text, t.ctid::text, t.xmin::text) AS version, {} AS content FROM {}",
            self.hash.of(&format!("({})", self.row())),
            self.found(ids)?
        ))
    }

    /// Number, place and the hash of each column of the rows with these identities.
    pub(super) fn column_hashes(&self, ids: &[(usize, &str)]) -> Option<String> {
        let hashes: Vec<String> =
            self.columns.iter().map(|column| self.hash.of(&format!("({})", row([column])))).collect();
        let found = self.found(ids)?;
        Some(format!("SELECT v.n, t.ctid::text, ARRAY[{}]::int8[] FROM {found}", hashes.join(", ")))
    }

    /// The beginnings of the values of these columns, or without any of the whole row's text.
    pub(super) fn values(&self, id: &str, columns: &[String], chars: usize) -> Option<String> {
        let values: Vec<String> = match columns {
            [] => vec![format!("left({}, {chars})", self.row())],
            _ => columns.iter().map(|column| format!("left({}::text, {chars})", of_t(column))).collect(),
        };
        Some(format!("SELECT ARRAY[{}]::text[] FROM {} LIMIT 1", values.join(", "), self.found(&[(0, id)])?))
    }
}

/// A column of the rows, which are `t` everywhere: it may have any name.
fn of_t(column: &str) -> String {
    format!("t.{}", quote_identifier(column))
}

fn row<'a>(columns: impl IntoIterator<Item = &'a String>) -> String {
    let columns: Vec<String> = columns.into_iter().map(|column| of_t(column)).collect();
    format!("ROW({})::text", columns.join(", "))
}

/// The fields of a row's text (PostgreSQL documentation, 8.16.6), `None` being NULL; nothing if it is no such
/// text.
pub(super) fn fields(text: &str) -> Option<Vec<Option<String>>> {
    let text = text.strip_prefix('(')?.strip_suffix(')')?;
    let mut fields = Vec::new();
    let mut field: Option<String> = None;
    let mut is_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            ',' if !is_quoted => fields.push(field.take()),
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                field.get_or_insert_default().push(chars.next()?)
            }
            '"' => {
                is_quoted = !is_quoted;
                field.get_or_insert_default();
            }
            '\\' => field.get_or_insert_default().push(chars.next()?),
            other => field.get_or_insert_default().push(other),
        }
    }
    fields.push(field);
    (!is_quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::KeyValue;

    fn place(columns: &[&str], key: &[&str]) -> Place {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        Place {
            rows: select("ONLY \"s\".\"t\"", &columns, None),
            columns,
            key: key
                .iter()
                .map(|name| KeyColumn {
                    name: (*name).to_owned(),
                    type_name: "bigint".to_owned(),
                    equality_schema: "pg_catalog".to_owned(),
                })
                .collect(),
            hash: Hash::Fast,
        }
    }

    #[test]
    fn a_chunk_is_summed_up_in_one_statement_that_prints_each_row_once() {
        let range = KeyRange { lower: Some(vec![KeyValue::Integer(5)]), upper: None };
        assert_eq!(
            place(&["id", "V\""], &["id"]).sums(&range, &["id".to_owned()]),
            "SELECT count(*), coalesce(sum(hashtextextended(r COLLATE \"C\", 0)), 0)::text, \
             coalesce(sum(octet_length(r)), 0)::int8 FROM (SELECT ROW(t.\"id\", t.\"V\"\"\")::text AS r FROM (SELECT \
             tableoid, ctid, xmin, \"id\", \"V\"\"\" FROM ONLY \"s\".\"t\") AS t WHERE (\"id\") >= \
             ('5'::pg_catalog.int8) OFFSET 0) AS x"
        );
    }

    #[test]
    fn a_row_filter_stays_with_its_table() {
        assert_eq!(
            select("ONLY t", &["a".to_owned()], Some("b OR c")),
            "SELECT tableoid, ctid, xmin, \"a\" FROM ONLY t WHERE (b OR c)"
        );
    }

    #[test]
    fn rows_are_looked_up_by_their_keys_with_the_operators_of_their_types() {
        let sql = place(&["v", "id"], &["id"]).look_up(&[(0, "(7)"), (3, "(-8)")]).unwrap();
        assert!(
            sql.ends_with(
                "FROM (VALUES (0, '7'::bigint), (3, '-8'::bigint)) AS v (n, k0) JOIN (SELECT tableoid, ctid, xmin, \
                 \"v\", \"id\" FROM ONLY \"s\".\"t\") AS t ON t.\"id\" OPERATOR(\"pg_catalog\".=) v.k0"
            ),
            "{sql}"
        );
        let nothing = place(&["v", "id"], &["id"]);
        assert_eq!((nothing.look_up(&[(0, "()")]), nothing.look_up(&[(0, "(1,2)")])), (None, None));
    }

    #[test]
    fn a_rows_text_is_taken_apart_as_the_server_puts_it_together() {
        let read = |text: &str| {
            fields(text)
                .map(|fields| fields.into_iter().map(|f| f.unwrap_or("NULL".to_owned())).collect::<Vec<_>>())
        };
        let is = |fields: &[&str]| Some(fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>());
        assert_eq!(read("(1,abc)"), is(&["1", "abc"]));
        assert_eq!(read("(,\"\",)"), is(&["NULL", "", "NULL"]));
        assert_eq!(read(r#"("a""b\\c,(d)",{1})"#), is(&[r#"a"b\c,(d)"#, "{1}"]));
        assert_eq!(read("(\"a"), None);
        assert_eq!(read("1"), None);
    }
}
