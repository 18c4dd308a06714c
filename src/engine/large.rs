//! A row that the source can't send.

use tokio::time::timeout;
use tokio_postgres::error::SqlState;

use crate::catalog::{LargeRow, largest_row, published};
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};
use crate::ledger::Ledger;
use crate::limits;
use crate::lsn::Lsn;

/// Says which row a fault of the stream is about, if it is about one that is too large: the server fails
/// while it prints the row and doesn't tell.
#[derive(Debug, Default)]
pub struct LargeRows {
    /// The transaction that it failed at last, and what was found: the tables are searched only once.
    seen: Option<(Lsn, Option<LargeRow>)>,
}

impl LargeRows {
    /// Adds the row, looked for among those that are there now, and what to do.
    pub async fn explain(&mut self, config: &Config, ledger: &Ledger, fault: Fault) -> Fault {
        let Some(lsn) = fault.position().filter(|_| fault.may_be_a_large_row()) else { return fault };
        if fault.side() != Some(Side::Source) {
            return fault;
        }
        let found = match self.seen.take() {
            Some((seen, found)) if seen == lsn => found,
            _ => match timeout(limits::LARGE_ROW_SEARCH, search(config, ledger)).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    tracing::warn!("looking for a row that is too large: {error}");
                    None
                }
                Err(_) => None,
            },
        };
        self.seen = Some((lsn, found.clone()));
        named(fault, found)
    }
}

fn named(fault: Fault, found: Option<LargeRow>) -> Fault {
    let row = match &found {
        Some(row) => format!("the largest row there is now has about {} bytes", row.bytes),
        None => "none was found among the rows that are there now".to_owned(),
    };
    let fault = match found {
        Some(row) => fault.table(row.table).key(row.key),
        // A server that is short of memory, rather.
        None if fault.code() == Some(&SqlState::OUT_OF_MEMORY) => return fault,
        None => fault,
    };
    fault.reacting(Reaction::Person).remedy(format!(
        "the text of a row with all its values (bytea counts twice, and with REPLICA IDENTITY FULL the old row, too) \
         must stay below 1 GiB; {row}. This change can't be decoded any more, whatever becomes of the row: pass its \
         transaction over (cdc skip with the LSN) and carry its rows by hand, with COPY ... (FORMAT binary)"
    ))
}

async fn search(config: &Config, ledger: &Ledger) -> Result<Option<LargeRow>> {
    let publications = ledger.publications().await?;
    let source = Session::open(&config.source, Side::Source, &format!("cdc_{} search", config.name)).await?;
    let mut largest: Option<LargeRow> = None;
    for table in published(&source, &publications).await? {
        let row = if table.has_large_values() { largest_row(&source, &table, None).await? } else { None };
        if row.as_ref().map(|row| row.bytes) > largest.as_ref().map(|row| row.bytes) {
            largest = row;
        }
    }
    Ok(largest)
}
