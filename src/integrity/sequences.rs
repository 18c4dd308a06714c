//! Sequences of the target whose next value is taken already.
//!
//! The stream has no sequences: those of the target stay where they are while rows arrive, and are set when the
//! applications move. Until then they are behind by nature.

use std::fmt;

use serde::Serialize;
use tokio_postgres::Row;

use crate::catalog::{TableName, quote_identifier, source_tables};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::{Ledger, Phase};

const COLUMNS: &str = include_str!("../../sql/catalog/sequence_columns.sql");

/// How a sequence of the target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SequenceState {
    /// Its next value is taken neither by a row nor by the source.
    Ahead,
    /// It is behind, and the cutover will set it.
    ToBeSet,
    /// It is behind, and applications write here: its next values collide with rows, or were given before.
    Behind,
    /// The target's column has no sequence.
    Missing,
}

/// A column of the source whose values come from a sequence, and the target's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnSequence {
    /// The column's table, as `schema.table`.
    pub table: String,
    /// The column.
    pub column: String,
    /// The source's sequence, as `schema.sequence`.
    pub source_sequence: String,
    /// The last value that the source's gave; null if it gave none yet.
    pub source_last_value: Option<i64>,
    /// The target's sequence; null if the column has none there.
    pub target_sequence: Option<String>,
    /// The value that the target's gives next.
    pub next_value: Option<i64>,
    /// The value in the column, within the sequence's range, that is furthest on its way: the largest one, or
    /// the smallest one if it counts down; null if there is none, or it is no number.
    pub furthest_value: Option<i64>,
    /// How it is.
    pub state: SequenceState,
}

/// All sequences of the columns of tables that are in the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sequences {
    /// Sorted by table and column.
    pub sequences: Vec<ColumnSequence>,
}

impl Sequences {
    /// True if none is behind that should not be. Whether the target has them at all is for
    /// [`crate::schema::diff()`] to say.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.sequences.iter().all(|sequence| sequence.state != SequenceState::Behind)
    }
}

impl fmt::Display for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |state| self.sequences.iter().filter(|sequence| sequence.state == state).count();
        let to_be_set = count(SequenceState::ToBeSet);
        write!(f, "sequences: {}", self.sequences.len())?;
        if to_be_set > 0 {
            write!(f, ", to be set at the cutover: {to_be_set}")?;
        }
        writeln!(f)?;
        self.sequences.iter().try_for_each(|sequence| {
            let ColumnSequence { table, column, .. } = sequence;
            let shown = |value: Option<i64>| value.map_or("none".to_owned(), |value| value.to_string());
            match sequence.state {
                SequenceState::Ahead | SequenceState::ToBeSet => Ok(()),
                SequenceState::Missing => {
                    let source = &sequence.source_sequence;
                    writeln!(f, "  {column} of {table}: has no sequence on the target (on the source {source})")
                }
                SequenceState::Behind => writeln!(
                    f,
                    "  {column} of {table}: {} gives {} next; furthest value in the table {}, last one of the source {}",
                    sequence.target_sequence.as_deref().unwrap_or_default(),
                    shown(sequence.next_value),
                    shown(sequence.furthest_value),
                    shown(sequence.source_last_value)
                ),
            }
        })
    }
}

/// Looks at the sequences of every table that is in the stream. `ledger` is the target's.
///
/// # Errors
/// If a database can't be asked.
pub async fn sequences(source: &Session, ledger: &Ledger) -> Result<Sequences> {
    let target = ledger.session();
    let copied: Vec<u32> = ledger.copied_tables().await?.iter().map(|(table, _)| table.relation).collect();
    // The sequence of a partitioned table's column is that of all its partitions.
    let mut tables: Vec<TableName> = source_tables(source)
        .await?
        .iter()
        .filter(|table| copied.contains(&table.oid))
        .map(|table| table.published_as().clone())
        .collect();
    tables.sort();
    tables.dedup();
    let is_written = ledger.phase().await? == Some(Phase::Done);
    let (there, here) =
        (columns(source, Side::Source, &tables).await?, columns(target, Side::Target, &tables).await?);
    let mut sequences = Vec::with_capacity(there.len());
    for column in there {
        let counterpart = counterpart(&column, &here);
        sequences.push(compare(source, target, column, counterpart, is_written).await?);
    }
    Ok(Sequences { sequences })
}

/// A column and its sequence on one side.
struct Column {
    table: TableName,
    column: String,
    sequence: TableName,
    increment: i64,
    min: i64,
    max: i64,
    is_number: bool,
}

impl Column {
    fn new(row: &Row) -> Self {
        let name = |schema, name| TableName::new(row.get::<_, &str>(schema), row.get::<_, &str>(name));
        Self {
            table: name("schema", "table_name"),
            column: row.get("column_name"),
            sequence: name("sequence_schema", "sequence_name"),
            increment: row.get("increment"),
            min: row.get("min_value"),
            max: row.get("max_value"),
            is_number: row.get("is_number"),
        }
    }

    /// The last value that the sequence gave and the one that it gives next.
    async fn values(&self, session: &Session, side: Side) -> Result<(Option<i64>, i64)> {
        let sql = format!("SELECT last_value, is_called FROM {}", self.sequence.to_sql());
        let row = session.query_one(&sql, &[]).await.map_err(|e| self.fault(side, &e))?;
        let (last, is_called): (i64, bool) = (row.get(0), row.get(1));
        // At the end of its type it gives no more.
        Ok(if is_called { (Some(last), last.saturating_add(self.increment)) } else { (None, last) })
    }

    /// The value in the column that is furthest on the sequence's way.
    async fn furthest(&self, target: &Session) -> Result<Option<i64>> {
        if !self.is_number {
            return Ok(None);
        }
        let (column, furthest) =
            (quote_identifier(&self.column), if self.increment > 0 { "max" } else { "min" });
        let sql = format!(
            "SELECT pg_catalog.{furthest}({column})::int8 FROM {} WHERE {column} BETWEEN $1::int8 AND $2::int8",
            self.table.to_sql()
        );
        let row = target.query_one(&sql, &[&self.min, &self.max]).await;
        Ok(row.map_err(|e| self.fault(Side::Target, &e))?.get(0))
    }

    fn fault(&self, side: Side, error: &tokio_postgres::Error) -> Fault {
        Fault::sql(side, &format!("reading the sequence {}", self.sequence), error)
            .table(self.table.to_string())
    }
}

async fn columns(session: &Session, side: Side, tables: &[TableName]) -> Result<Vec<Column>> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip();
    let rows = session.query(COLUMNS, &[&schemas, &names]).await;
    let rows = rows.map_err(|e| Fault::sql(side, "listing the sequences", &e))?;
    Ok(rows.iter().map(Column::new).collect())
}

/// The target's sequence of the same column: the one of the same name, if it has several.
fn counterpart<'a>(column: &Column, here: &'a [Column]) -> Option<&'a Column> {
    let same = || here.iter().filter(|there| there.table == column.table && there.column == column.column);
    same().find(|there| there.sequence == column.sequence).or_else(|| same().next())
}

async fn compare(
    source: &Session,
    target: &Session,
    column: Column,
    here: Option<&Column>,
    is_written: bool,
) -> Result<ColumnSequence> {
    let (source_last_value, source_next) = column.values(source, Side::Source).await?;
    let (mut next_value, mut furthest_value, mut state) = (None, None, SequenceState::Missing);
    if let Some(here) = here {
        let next = here.values(target, Side::Target).await?.1;
        furthest_value = here.furthest(target).await?;
        let is_up = here.increment > 0;
        let is_taken = |value: i64| if is_up { next <= value } else { next >= value };
        let is_before_source =
            is_up == (column.increment > 0) && next != source_next && is_taken(source_next);
        let is_behind = furthest_value.is_some_and(is_taken) || is_before_source;
        next_value = Some(next);
        state = match (is_behind, is_written) {
            (false, _) => SequenceState::Ahead,
            (true, false) => SequenceState::ToBeSet,
            (true, true) => SequenceState::Behind,
        };
    }
    Ok(ColumnSequence {
        table: column.table.to_string(),
        column: column.column,
        source_sequence: column.sequence.to_string(),
        source_last_value,
        target_sequence: here.map(|here| here.sequence.to_string()),
        next_value,
        furthest_value,
        state,
    })
}
