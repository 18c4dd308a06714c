//! The SQL for a set of rows. Pure: a shape and a fitted table in, a statement out.
//!
//! Values travel as arrays of text, one for each column, in the very bytes that the source's output
//! functions wrote; a cast has the target's input functions read them.

use crate::apply::statement::{Columns, overriding};
use crate::apply::table::Fitted;
use crate::catalog::quote_identifier;

/// What is done to a set of rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::apply) enum SetShape {
    /// Finds rows that must not be there.
    Find,
    /// Deletes rows.
    Delete,
    /// Writes these columns of rows.
    Update(Columns),
    /// Takes in new rows.
    Insert,
    /// Takes in many new rows (COPY).
    Copy,
}

impl SetShape {
    /// The statement. Its parameters are the columns of the key, then those that are written.
    pub(super) fn sql(&self, table: &Fitted) -> String {
        let rows = table.only();
        match self {
            Self::Find => format!("SELECT FROM {} WHERE u.place IS NOT NULL", found(table, 0)),
            Self::Delete => {
                format!("DELETE FROM {rows} AS t USING {} WHERE t.ctid = u.place", found(table, 0))
            }
            Self::Update(set) => {
                let first = keys(table);
                let written: Vec<_> =
                    table.columns.iter().enumerate().filter(|(i, _)| set.has(*i)).map(|(_, c)| c).collect();
                let found = found(table, written.len());
                if written.is_empty() {
                    // Nothing to write, but the rows must be there: they are locked and counted.
                    return format!(
                        "SELECT FROM {rows} AS t, {found} WHERE t.ctid = u.place FOR UPDATE OF t"
                    );
                }
                let assignments: Vec<String> = (first..)
                    .zip(written)
                    .map(|(n, c)| format!("{} = u.c{n}::{}", quote_identifier(&c.name), c.type_name))
                    .collect();
                format!(
                    "UPDATE {rows} AS t SET {} FROM {found} WHERE t.ctid = u.place",
                    assignments.join(", ")
                )
            }
            Self::Insert => {
                let count = table.columns.len();
                let values: Vec<String> = table
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(n, c)| format!("r.c{n}::{}", c.type_name))
                    .collect();
                format!(
                    "INSERT INTO {} ({}){} SELECT {} FROM {} AS r ({})",
                    table.target.to_sql(),
                    columns(table),
                    overriding(table),
                    values.join(", "),
                    arrays(count),
                    names(count)
                )
            }
            Self::Copy => format!("COPY {} ({}) FROM STDIN", table.target.to_sql(), columns(table)),
        }
    }
}

fn columns(table: &Fitted) -> String {
    table.columns.iter().map(|c| quote_identifier(&c.name)).collect::<Vec<_>>().join(", ")
}

/// The parameters, each a column.
fn arrays(count: usize) -> String {
    let arrays: Vec<String> = (1..=count).map(|n| format!("pg_catalog.unnest(${n})")).collect();
    format!("ROWS FROM ({})", arrays.join(", "))
}

/// What the columns of [`arrays`] are called.
fn names(count: usize) -> String {
    (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ")
}

fn keys(table: &Fitted) -> usize {
    table.columns.iter().filter(|column| column.is_key).count()
}

/// The rows that the parameters hold, with this many columns besides the key, and each one's place in the
/// table.
///
/// A join by the key would leave it to the planner which side it begins with, and to its statistics, which know
/// nothing of a table that has just been empty: it could read the whole table for each batch, or for each row.
/// Here it can only look for each key in its index.
fn found(table: &Fitted, others: usize) -> String {
    let keys: Vec<_> = table.columns.iter().filter(|column| column.is_key).collect();
    let count = keys.len() + others;
    let conditions: Vec<String> = keys
        .iter()
        .enumerate()
        .map(|(n, column)| {
            format!(
                "f.{} OPERATOR({}.=) r.c{n}::{}",
                quote_identifier(&column.name),
                quote_identifier(&column.equality_schema),
                column.type_name
            )
        })
        .collect();
    format!(
        "(SELECT r.*, (SELECT f.ctid FROM {} AS f WHERE {}) AS place FROM {} AS r ({}) OFFSET 0) AS u",
        table.only(),
        conditions.join(" AND "),
        arrays(count),
        names(count)
    )
}
