//! Shows the copy while it runs: bars on a terminal, and lines in the log.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::bars::Screen;
use super::copy::{count, summary};
use crate::fault::Result;
use crate::ledger::{CopyProgress, Ledger, Phase};

/// How often the bars are drawn anew.
const BARS_INTERVAL: Duration = Duration::from_secs(1);

/// How often the ledger is asked for the log alone.
const LINES_INTERVAL: Duration = Duration::from_secs(5);

/// How often the log says how far the copy is while no table is finished.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows how far the copy is, until it is over.
pub async fn show_copy(ledger: Ledger, screen: Screen) {
    if let Err(fault) = show(&ledger, &screen).await {
        // Whoever copies meets the same fault and tells of it.
        tracing::debug!("the progress of the copy is not known: {fault}");
    }
}

async fn show(ledger: &Ledger, screen: &Screen) -> Result<()> {
    let interval = if screen.has_bars() { BARS_INTERVAL } else { LINES_INTERVAL };
    let mut bars = None;
    let mut lines = Lines::default();
    loop {
        let is_streaming = ledger.phase().await? != Some(Phase::Copy);
        let progress = ledger.copy_progress().await?;
        let is_over = is_streaming && progress.as_ref().is_none_or(CopyProgress::is_complete);
        if let Some(progress) = progress {
            if !is_over {
                bars = bars.or_else(|| screen.bars());
            }
            if let Some(bars) = &mut bars {
                bars.show(&progress);
            }
            if let Some(line) = lines.next(&progress, Instant::now(), screen.has_bars()) {
                tracing::info!("{line}");
            }
        } else {
            lines.done = Some(HashSet::new());
        }
        if is_over {
            return Ok(());
        }
        tokio::time::sleep(interval).await;
    }
}

/// Decides what the log says, and when. Tables that are finished between two looks share a line.
#[derive(Debug, Default)]
struct Lines {
    said_at: Option<Instant>,
    /// The tables that were finished at the last look; before the first, nobody knows.
    done: Option<HashSet<String>>,
}

impl Lines {
    /// The line for this progress, if there is one.
    fn next(&mut self, progress: &CopyProgress, now: Instant, has_bars: bool) -> Option<String> {
        let done = progress.details.iter().filter(|table| table.chunks == table.chunks_done);
        // What an earlier life has copied is no news.
        let known = self.done.replace(done.clone().map(|table| table.table.clone()).collect());
        let news: Vec<_> =
            known.map_or(Vec::new(), |known| done.filter(|table| !known.contains(&table.table)).collect());
        let is_due = !has_bars && self.said_at.is_none_or(|at| now - at >= LINE_INTERVAL);
        let rows = count(news.iter().map(|table| table.rows).sum());
        let line = match news[..] {
            [] if !is_due => return None,
            [] if progress.is_complete() && progress.held_back == 0 => return None,
            [] if progress.is_complete() => {
                format!(
                    "every row is copied; constraints and indexes still held back: {}",
                    progress.held_back
                )
            }
            [] => format!("copying: {}", summary(progress)),
            [one] => format!("copied {}, rows {rows}; in all {}", one.table, summary(progress)),
            _ => format!("copied tables: {}, rows {rows}; in all {}", news.len(), summary(progress)),
        };
        self.said_at = Some(now);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{TableProgress, TableState};
    use crate::observe::copy::tests::{progress, table};

    /// How many of these tables are finished, and what the log says of that after so many seconds.
    fn said(has_bars: bool, looks: &[(u64, &[bool])]) -> Vec<Option<String>> {
        let mut lines = Lines::default();
        let began = Instant::now();
        let mut look = |(seconds, tables): &(u64, &[bool])| {
            let tables = tables.iter().zip(["a", "b", "c"]).map(|(is_done, name)| match is_done {
                true => TableProgress { rows: 1000, ..table(name, TableState::Done, 1.0) },
                false => table(name, TableState::Pending, 0.0),
            });
            let line =
                lines.next(&progress(tables.collect()), began + Duration::from_secs(*seconds), has_bars);
            line.map(|line| line.split([';', '%']).next().unwrap().to_owned())
        };
        looks.iter().map(&mut look).collect()
    }

    fn lines<const N: usize>(lines: [&str; N]) -> Vec<Option<String>> {
        lines.map(|line| (!line.is_empty()).then(|| line.to_owned())).to_vec()
    }

    #[test]
    fn the_log_says_how_far_it_is_now_and_then_and_what_is_finished() {
        assert_eq!(
            said(
                false,
                &[
                    (0, &[true, false, false]),
                    (5, &[true, false, false]),
                    (9, &[true, true, false]),
                    (18, &[true, true, false]),
                    (19, &[true, true, false]),
                    (20, &[true, true, true]),
                    (29, &[true, true, true]),
                    (30, &[true, true, true]),
                ]
            ),
            lines([
                "copying: 42 ",
                "",
                "copied public.b, rows 1,000",
                "",
                "copying: 42 ",
                "copied public.c, rows 1,000",
                "",
                "every row is copied",
            ])
        );
    }

    #[test]
    fn tables_that_are_finished_together_share_a_line_and_a_table_that_is_copied_again_has_another() {
        assert_eq!(
            said(
                false,
                &[
                    (0, &[false; 3]),
                    (1, &[true, false, true]),
                    (2, &[false, false, true]),
                    (3, &[true, false, true])
                ]
            ),
            lines(["copying: 42 ", "copied tables: 2, rows 2,000", "", "copied public.a, rows 1,000"])
        );
    }

    #[test]
    fn beside_bars_the_log_says_only_what_is_finished() {
        assert_eq!(
            said(true, &[(0, &[false; 3]), (60, &[false; 3]), (61, &[true, false, false])]),
            lines(["", "", "copied public.a, rows 1,000"])
        );
    }
}
