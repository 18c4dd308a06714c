//! Proof that two databases hold the same rows.
//!
//! Both sides render each row with the output functions of its types (`ROW(...)::text`, in which
//! NULL and the empty string differ, as do `1.0` and `1.00`), encode it as UTF-8 and sort it by its
//! bytes. The two sorted streams are merged here, so that memory doesn't grow with the tables.
//! It is exact and knows nothing of keys, chunks or checksums: whatever the daemon believes about a
//! table, this doesn't share it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;

use futures_util::TryStreamExt;
use postgres_protocol::escape::escape_identifier;
use tokio_postgres::{Client, Config, NoTls, Row, RowStream};

use crate::fault::{Fault, Result, Side};

/// How many differing rows are kept of each table; all of them are counted.
const EXAMPLES: usize = 10;

/// How many bytes of a differing row are shown from its beginning, and around the place where it differs.
const SHOWN_BYTES: usize = 120;

/// What decides how values are printed, the same on both sides; `lc_monetary` only changes how
/// `money` is printed. One snapshot for all tables of a side.
const PIN: &str = "
    SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET timezone = 'UTC';
    SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C';
    SET quote_all_identifiers = off; SET search_path = ''; SET row_security = off;
    SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Permanent tables with their columns; a partition shows up through its root.
const TABLES: &str = "
    SELECT n.nspname, c.relname, c.relkind = 'p',
           array_remove(array_agg(a.attname ORDER BY a.attnum), NULL)
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
       AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'cdc')
     GROUP BY 1, 2, 3";

/// What came out of comparing two databases: one entry for each of the source's tables, by name.
#[derive(Debug)]
pub struct Comparison {
    /// The source's tables.
    pub tables: Vec<TableComparison>,
}

/// What came out of comparing one table.
#[derive(Debug)]
pub struct TableComparison {
    /// `schema.table`, as the source calls it.
    pub name: String,
    /// The rows on the source.
    pub source_rows: u64,
    /// The rows on the target; `None` if it has no such table.
    pub target_rows: Option<u64>,
    /// The source's columns that the target's table lacks; the others are compared all the same.
    pub missing_columns: Vec<String>,
    /// How many rows of the source the target lacks. A row that differs is one missing and one extra.
    pub missing_rows: u64,
    /// How many rows of the target the source lacks.
    pub extra_rows: u64,
    /// Some of the missing and extra rows, shortened.
    pub examples: Vec<Difference>,
}

/// One row that is on one side only.
#[derive(Debug)]
pub struct Difference {
    /// The side that has it.
    pub only_on: Side,
    /// The row's text, shortened to its beginning and the place where it differs.
    pub row: String,
}

impl Comparison {
    /// True when every row of every table of the source is on the target, and no other one.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.tables.iter().all(TableComparison::is_equal)
    }

    /// The tables that differ.
    pub fn differing(&self) -> impl Iterator<Item = &TableComparison> {
        self.tables.iter().filter(|table| !table.is_equal())
    }

    /// The rows on the source, of all tables.
    #[must_use]
    pub fn source_rows(&self) -> u64 {
        self.tables.iter().map(|table| table.source_rows).sum()
    }
}

impl TableComparison {
    /// True when the target has this table with exactly these rows.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.target_rows.is_some()
            && self.missing_columns.is_empty()
            && self.missing_rows == 0
            && self.extra_rows == 0
    }
}

impl fmt::Display for Comparison {
    /// One line if all is equal; otherwise each table that differs, with some of its rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differing = self.differing().count();
        let tables = self.tables.len();
        if differing == 0 {
            return write!(f, "equal: {} rows in {tables} tables", self.source_rows());
        }
        write!(f, "{differing} of {tables} tables differ")?;
        self.differing().try_for_each(|table| write!(f, "\n{table}"))
    }
}

impl fmt::Display for TableComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(target_rows) = self.target_rows else {
            return write!(f, "{}: not on the target ({} rows on the source)", self.name, self.source_rows);
        };
        write!(
            f,
            "{}: {} rows on the source, {target_rows} on the target, {} missing, {} extra",
            self.name, self.source_rows, self.missing_rows, self.extra_rows
        )?;
        if !self.missing_columns.is_empty() {
            write!(f, "; the target lacks the columns {}", self.missing_columns.join(", "))?;
        }
        self.examples.iter().try_for_each(|difference| write!(f, "\n  {difference}"))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only_on {
            Side::Source => write!(f, "missing {}", self.row),
            Side::Target => write!(f, "extra   {}", self.row),
        }
    }
}

/// Compares every row of every permanent table of the source with the target's table of that name.
///
/// Columns are matched by name. Tables and columns that only the target has are not looked at, nor
/// are the schemas `pg_catalog`, `information_schema` and `cdc`.
///
/// # Errors
/// A database that can't be reached, or a table that can't be read.
pub async fn compare(source_url: &str, target_url: &str) -> Result<Comparison> {
    let (source, target) =
        tokio::try_join!(Session::open(source_url, Side::Source), Session::open(target_url, Side::Target))?;
    let mut tables = Vec::with_capacity(source.tables.len());
    for (name, table) in &source.tables {
        tables.push(compare_table(&source, &target, name, table).await?);
    }
    Ok(Comparison { tables })
}

/// A table's schema and name.
type Name = (String, String);

/// What has to be known of a table to read it.
struct Table {
    partitioned: bool,
    columns: Vec<String>,
}

/// One side, with its settings pinned and its snapshot taken.
struct Session {
    client: Client,
    side: Side,
    tables: BTreeMap<Name, Table>,
}

impl Session {
    async fn open(url: &str, side: Side) -> Result<Self> {
        let fault = |e| Fault::sql(side, "can't begin to compare", &e);
        let mut config: Config = url.parse().map_err(fault)?;
        // Lifted from the very start, so that not even the pins are cancelled.
        config.options("-c statement_timeout=0 -c idle_session_timeout=0");
        let (client, connection) = config.connect(NoTls).await.map_err(fault)?;
        // What goes wrong with the connection also fails the query in progress.
        tokio::spawn(connection);
        client.batch_execute(PIN).await.map_err(fault)?;
        let tables = client.query(TABLES, &[]).await.map_err(fault)?;
        let tables = tables
            .iter()
            .map(|row| ((row.get(0), row.get(1)), Table { partitioned: row.get(2), columns: row.get(3) }))
            .collect();
        Ok(Self { client, side, tables })
    }

    /// The rows of a table, as sorted text of these columns.
    async fn rows(&self, name: &Name, partitioned: bool, columns: &[&String]) -> Result<Rows> {
        let columns: Vec<String> = columns.iter().map(|c| format!("t.{}", escape_identifier(c))).collect();
        let sql = format!(
            "SELECT convert_to(ROW({})::text, 'UTF8') FROM {} {}.{} AS t ORDER BY 1",
            columns.join(", "),
            if partitioned { "" } else { "ONLY" },
            escape_identifier(&name.0),
            escape_identifier(&name.1),
        );
        let mut rows = Rows {
            side: self.side,
            table: display(name),
            stream: Box::pin(
                self.client
                    .query_raw(&sql, Vec::<String>::new())
                    .await
                    .map_err(|e| Fault::sql(self.side, "can't read a table", &e).table(display(name)))?,
            ),
            head: None,
            count: 0,
        };
        rows.advance().await?;
        Ok(rows)
    }
}

/// A stream of rendered rows, with the next one at hand.
struct Rows {
    side: Side,
    table: String,
    stream: Pin<Box<RowStream>>,
    head: Option<Row>,
    /// The rows seen, the head included.
    count: u64,
}

impl Rows {
    async fn advance(&mut self) -> Result<()> {
        let fault = |e| Fault::sql(self.side, "can't read a table", &e).table(&self.table);
        self.head = self.stream.try_next().await.map_err(fault)?;
        self.count += u64::from(self.head.is_some());
        Ok(())
    }

    fn head(&self) -> Option<&[u8]> {
        self.head.as_ref().map(|row| row.get(0))
    }
}

async fn compare_table(
    source: &Session,
    target: &Session,
    name: &Name,
    table: &Table,
) -> Result<TableComparison> {
    let mut result = TableComparison {
        name: display(name),
        source_rows: 0,
        target_rows: None,
        missing_columns: Vec::new(),
        missing_rows: 0,
        extra_rows: 0,
        examples: Vec::new(),
    };
    let Some(other) = target.tables.get(name) else {
        let mut rows = source.rows(name, table.partitioned, &[]).await?;
        while rows.head.is_some() {
            rows.advance().await?;
        }
        result.source_rows = rows.count;
        return Ok(result);
    };
    let (columns, missing): (Vec<_>, Vec<_>) = table.columns.iter().partition(|c| other.columns.contains(c));
    result.missing_columns = missing.into_iter().cloned().collect();
    let (mut left, mut right) = tokio::try_join!(
        source.rows(name, table.partitioned, &columns),
        target.rows(name, other.partitioned, &columns)
    )?;
    result.merge(&mut left, &mut right).await?;
    result.source_rows = left.count;
    result.target_rows = Some(right.count);
    Ok(result)
}

impl TableComparison {
    /// Walks through both sorted streams and notes what only one of them has.
    async fn merge(&mut self, source: &mut Rows, target: &mut Rows) -> Result<()> {
        loop {
            let order = match (source.head(), target.head()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(left), Some(right)) => left.cmp(right),
            };
            match order {
                Ordering::Equal => {
                    tokio::try_join!(source.advance(), target.advance())?;
                }
                Ordering::Less => {
                    self.missing_rows += 1;
                    self.note(Side::Source, source.head(), target.head());
                    source.advance().await?;
                }
                Ordering::Greater => {
                    self.extra_rows += 1;
                    self.note(Side::Target, target.head(), source.head());
                    target.advance().await?;
                }
            }
        }
    }

    fn note(&mut self, only_on: Side, row: Option<&[u8]>, other: Option<&[u8]>) {
        if self.examples.len() < EXAMPLES {
            let row = shorten(row.unwrap_or_default(), other.unwrap_or_default());
            self.examples.push(Difference { only_on, row });
        }
    }
}

fn display((schema, table): &Name) -> String {
    format!("{schema}.{table}")
}

/// The beginning of a row, which tells which one it is, and the place where it differs from another.
fn shorten(row: &[u8], other: &[u8]) -> String {
    let text = |range: &[u8]| String::from_utf8_lossy(range).into_owned();
    if row.len() <= 2 * SHOWN_BYTES {
        return text(row);
    }
    let same = row.iter().zip(other).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(SHOWN_BYTES / 2);
    let to = row.len().min(from + SHOWN_BYTES);
    if from <= SHOWN_BYTES {
        return format!("{}… ({} bytes)", text(&row[..to]), row.len());
    }
    format!("{}…{}… ({} bytes)", text(&row[..SHOWN_BYTES]), text(&row[from..to]), row.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_row_is_shown_by_its_beginning_and_where_it_differs() {
        let row = |byte: &str| format!("(17,{}{byte}{})", "a".repeat(5000), "b".repeat(5000));
        let shown = shorten(row("X").as_bytes(), row("Y").as_bytes());
        assert!(shown.starts_with("(17,aaa") && shown.contains("aXb") && shown.ends_with("(10006 bytes)"));
        assert!(shown.len() < 300, "{shown}");
        assert_eq!(shorten(b"(1,a)", b"(1,b)"), "(1,a)");
    }
}
