//! How much there is to copy, and how much of its log the source would hold back meanwhile.

use std::time::Instant;

use bytesize::ByteSize;
use tokio_postgres::Row;

use super::finding::Finding;
use super::migration::Known;
use super::source_tables::Sized;
use super::{Asked, Check, transactions};
use crate::fault::{Fault, Result, Side};
use crate::limits;

const SIDE: Side = Side::Source;

/// What the source was doing when the tables began to be looked at.
pub(super) struct Measure {
    at: Instant,
    wal: i64,
    transactions: Vec<Row>,
}

impl Measure {
    /// Begins it.
    pub(super) async fn begin(source: &Asked, name: &str) -> Result<Self> {
        let transactions = transactions::open(source, name).await?;
        Ok(Self { at: Instant::now(), wal: written(source).await?.0, transactions })
    }
}

/// Ends the measure, after a second at the least, and says what it means for the copy.
pub(super) async fn look(
    check: &mut Check<'_>,
    source: &Asked,
    began: Measure,
    tables: &[Sized],
    known: &Known,
) -> Result<()> {
    tokio::time::sleep(limits::CHECK_WAL.saturating_sub(began.at.elapsed())).await;
    let (wal, mean_rate) = written(source).await?;
    let now = u64::try_from(wal - began.wal).unwrap_or(0).saturating_mul(1_000)
        / u64::try_from(began.at.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    let open = transactions::open(source, &check.config.name).await?;
    transactions::look(check, &began.transactions, &open);
    if !known.is_under_way() {
        check.findings.extend(tables.iter().filter_map(single_chunk));
        check.add(size(tables));
        let readers_rate =
            check.config.copy.max_rate_bytes.map(|rate| rate / check.config.copy.readers as u64);
        let rate = readers_rate.unwrap_or(limits::READER_RATE_BYTES).max(1);
        check.add(budget(source.server.slot_keep_mb, now.max(mean_rate), rate, tables));
    }
    Ok(())
}

/// How much log the source has written so far, and how much a second since its statistics were reset.
async fn written(source: &Asked) -> Result<(i64, u64)> {
    if source.server.is_standby {
        return Ok((0, 0));
    }
    let row = source
        .session
        .query_one(
            "SELECT (pg_catalog.pg_current_wal_insert_lsn() - '0/0')::bigint,
                    coalesce(wal_bytes / nullif(extract(epoch FROM clock_timestamp() - stats_reset), 0), 0)::bigint
               FROM pg_catalog.pg_stat_wal",
            &[],
        )
        .await
        .map_err(|e| Fault::sql(SIDE, "measuring how much is written", &e))?;
    Ok((row.get(0), u64::try_from(row.get::<_, i64>(1)).unwrap_or(0)))
}

fn size(tables: &[Sized]) -> Finding {
    let rows: u64 = tables.iter().map(|table| table.bytes).sum();
    let total: u64 = tables.iter().map(|table| table.total_bytes).sum();
    Finding::informs(
        "disk-space",
        Side::Target,
        format!(
            "{} of rows are to be copied; with their indexes they take {} on the source",
            ByteSize(rows),
            ByteSize(total)
        ),
    )
    .why("the target needs as much free space, and some for its log; SQL can't see how much there is")
}

/// A large table that is copied in one piece.
fn single_chunk(table: &Sized) -> Option<Finding> {
    if !table.is_one_chunk || table.bytes <= limits::CHUNK_BYTES {
        return None;
    }
    let what = format!(
        "it is copied in one piece of {}, as the first column of its key is no integer and no uuid",
        ByteSize(table.bytes)
    );
    let why = "the stream waits, and the source holds its log, for as long as that takes; and it begins anew when it is \
               interrupted";
    Some(
        match table.bytes > limits::SINGLE_CHUNK_BYTES {
            true => Finding::warns("single-chunk", SIDE, what).mend(
                "copy it at a quiet time; with an integer or uuid first in \
            its replica identity's index it could be divided",
            ),
            false => Finding::informs("single-chunk", SIDE, what),
        }
        .table(&table.name)
        .why(why),
    )
}

/// What may be held back against what is: the longest chunk that can be, at the rate that is written now.
fn budget(keep_mb: i64, wal_rate: u64, reader_rate: u64, tables: &[Sized]) -> Finding {
    let chunk = |table: &Sized| match table.is_one_chunk {
        true => table.bytes,
        // Where rows lie in no order, chunks are larger, so that the table isn't read too often.
        false => table.bytes.min(limits::CHUNK_BYTES.max(table.bytes / limits::TABLE_READS)),
    };
    let longest = tables.iter().max_by_key(|table| chunk(table));
    let seconds = longest.map_or(0, chunk) / reader_rate;
    let held = seconds.saturating_mul(wal_rate);
    let written = format!("the source writes {} of log a second", ByteSize(wal_rate));
    let Some(keep) = u64::try_from(keep_mb).ok().map(|mb| mb * 1024 * 1024) else {
        return Finding::informs("wal-budget", SIDE, format!("{written}, and a slot holds it back without a limit"))
            .why(
                "while the daemon is away, the log grows until the source's disk is full; max_slot_wal_keep_size would \
                 give up the slot before that",
            );
    };
    let limit = format!("max_slot_wal_keep_size is {}", ByteSize(keep));
    let mend = format!(
        "ALTER SYSTEM SET max_slot_wal_keep_size = '{}MB'; SELECT pg_reload_conf();",
        (held.saturating_mul(4) / (1024 * 1024)).max(4 * 1024)
    );
    if held > keep / 2 {
        let name = longest.map_or(String::new(), |table| table.name.to_string());
        let what = format!(
            "{limit}, and about {} would be held back: {written}, and the largest chunk takes about {seconds} s",
            ByteSize(held)
        );
        let finding = match held > keep {
            true => Finding::blocks("wal-budget", SIDE, what),
            false => Finding::warns("wal-budget", SIDE, what),
        };
        return finding
            .object(name)
            .why("a slot that would hold back more is lost, and everything has to be copied again")
            .mend(mend);
    }
    let away = keep / wal_rate.max(1) / 60;
    let what = format!("{limit}, and {written}");
    let finding = match away < limits::AWAY_LEAST.as_secs() / 60 {
        true => Finding::warns("wal-budget", SIDE, what).mend(mend),
        false => Finding::informs("wal-budget", SIDE, what),
    };
    finding.why(format!(
        "when the daemon is away for longer than about {away} minutes, the slot is lost, and everything has to be \
         copied again"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use crate::catalog::TableName;

    const MB: u64 = 1024 * 1024;

    fn table(bytes: u64, is_one_chunk: bool) -> Sized {
        Sized { name: TableName::new("public", "t"), bytes, total_bytes: bytes, is_one_chunk, bounds: None }
    }

    #[test]
    fn a_chunk_that_takes_longer_than_the_log_is_kept_blocks() {
        for (keep_mb, wal_rate, table, expected) in [
            // 1000 s at 1 MB/s.
            (500, MB, table(8000 * MB, true), Severity::Blocks),
            (1500, MB, table(8000 * MB, true), Severity::Warns),
            // The daemon may be away for an hour.
            (4000, MB, table(8000 * MB, false), Severity::Informs),
            // For a minute.
            (4000, 60 * MB, table(8000 * MB, false), Severity::Warns),
            (-1, 60 * MB, table(8000 * MB, true), Severity::Informs),
            (4000, 0, table(0, false), Severity::Informs),
        ] {
            let finding = budget(keep_mb, wal_rate, 8 * MB, &[table]);
            assert_eq!(finding.severity, expected, "{finding:?}");
            assert_eq!(finding.mend.is_none(), expected == Severity::Informs, "{finding:?}");
        }
    }
}
