//! The part of a terminal that changes: a bar for each table while rows are copied, and a line below.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::screen::{count, how_it_goes};
use crate::ledger::{Phase, TableProgress, TableState};
use crate::observe::Status;

/// The largest tables have a bar of their own; the others share one.
const BARS: usize = 6;

/// How long a bar is, in columns, and how many there have to be beside it.
const BAR_SHORTEST: usize = 8;
const BAR_LONGEST: usize = 24;
const BESIDE_BAR: usize = 60;

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// What changes on a terminal.
pub(super) struct Live {
    drawn: MultiProgress,
    bar_columns: usize,
    bars: Vec<ProgressBar>,
    line: Option<ProgressBar>,
}

impl Live {
    /// On a terminal with so many columns.
    pub(super) fn new(terminal: ProgressDrawTarget, columns: u16) -> Self {
        let bar_columns = usize::from(columns).saturating_sub(BESIDE_BAR).clamp(BAR_SHORTEST, BAR_LONGEST);
        let drawn = MultiProgress::with_draw_target(terminal);
        Self { drawn, bar_columns, bars: Vec::new(), line: None }
    }

    /// A line that stays, above everything that changes.
    pub(super) fn line(&self, text: &str) {
        let _ = self.drawn.println(text);
    }

    /// Shows only this, with a spinner.
    pub(super) fn busy(&mut self, text: &str) {
        self.clear();
        self.say(text);
    }

    /// Shows how the migration goes.
    pub(super) fn show(&mut self, status: &Status) {
        if let Some(copy) = status.copy.as_ref().filter(|_| status.phase == Some(Phase::Copy)) {
            self.show_bars(&copy.details);
        }
        self.say(&how_it_goes(status));
    }

    /// Takes everything away that isn't meant to stay.
    pub(super) fn clear(&mut self) {
        self.bars.drain(..).chain(self.line.take()).for_each(|bar| bar.finish_and_clear());
        let _ = self.drawn.clear();
    }

    fn say(&mut self, text: &str) {
        let line = self.line.get_or_insert_with(|| {
            let style = style_of("  {spinner:.cyan}        {wide_msg}").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ");
            let line = self.drawn.add(ProgressBar::new_spinner().with_style(style));
            line.enable_steady_tick(TICK);
            line
        });
        line.set_message(text.to_owned());
    }

    fn show_bars(&mut self, tables: &[TableProgress]) {
        let mut tables: Vec<&TableProgress> = tables.iter().collect();
        tables.sort_by(|a, b| b.bytes_planned.cmp(&a.bytes_planned).then_with(|| a.table.cmp(&b.table)));
        let (large, small) = tables.split_at(tables.len().min(BARS));
        for (at, table) in large.iter().enumerate() {
            self.show_bar(at, &table.table, &[table]);
        }
        if !small.is_empty() {
            self.show_bar(large.len(), &format!("{} smaller tables", small.len()), small);
        }
    }

    /// One bar for these tables.
    fn show_bar(&mut self, at: usize, name: &str, tables: &[&TableProgress]) {
        if self.bars.len() <= at {
            self.bars.push(self.drawn.insert(at, ProgressBar::new(0)));
        }
        let sum = |of: fn(&TableProgress) -> i64| tables.iter().map(|t| of(t).unsigned_abs()).sum::<u64>();
        let (rows, planned) = (sum(|t| t.rows), sum(|t| t.rows_planned));
        let is_done = tables.iter().all(|table| table.state == TableState::Done);
        let bar = &self.bars[at];
        bar.set_style(bar_style(self.bar_columns, if is_done { "green" } else { "cyan" }));
        bar.set_prefix(name.to_owned());
        // What was planned was an estimate.
        bar.set_length(if is_done { rows } else { planned.max(rows) });
        bar.set_position(rows);
        bar.set_message(format!("{} rows", count(rows)));
    }
}

fn bar_style(columns: usize, colour: &str) -> ProgressStyle {
    let bar = format!("{{bar:{columns}.{colour}/black.bright}}");
    style_of(&format!("           {{prefix:26!}} {bar} {{percent:>3}} %  {{wide_msg}}")).progress_chars("━╸─")
}

fn style_of(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    fn table(name: &str, state: TableState, rows: i64, planned: i64) -> TableProgress {
        TableProgress {
            table: format!("public.{name}"),
            state,
            rows,
            rows_planned: planned,
            bytes: 0,
            bytes_planned: planned,
            chunks: 1,
            chunks_done: i64::from(state == TableState::Done),
            fraction: 0.0,
            rows_per_second: None,
            eta_seconds: None,
        }
    }

    #[test]
    fn the_largest_tables_have_a_bar_and_the_others_share_one() {
        let terminal = InMemoryTerm::new(20, 90);
        let mut live = Live::new(ProgressDrawTarget::term_like(Box::new(terminal.clone())), 90);
        let mut tables = vec![
            // One more than was planned, one less, and one that hasn't begun.
            table("clients", TableState::Copying, 1_200, 1_000),
            table("messages", TableState::Done, 890, 900),
            table("keys", TableState::Pending, 0, 800),
        ];
        tables.extend((1..=4).map(|n| table(&format!("t{n}"), TableState::Pending, 0, 100)));
        tables.push(table("small", TableState::Done, 60, 60));
        live.show_bars(&tables);
        live.say("copying");
        live.line("this stays");
        let drawn = terminal.contents();
        let lines: Vec<&str> = drawn.lines().map(str::trim).collect();
        let bar = |name: &str, bar: &str, rest: &str| format!("{name:26} {bar:─<24} {rest}");
        let full = "━".repeat(24);
        assert_eq!(lines[0], "this stays");
        assert_eq!(lines[1], bar("public.clients", &full, "100 %  1,200 rows"));
        assert_eq!(lines[2], bar("public.messages", &full, "100 %  890 rows"));
        assert_eq!(lines[3], bar("public.keys", "", "  0 %  0 rows"));
        assert_eq!(lines[6], bar("public.t3", "", "  0 %  0 rows"));
        assert_eq!(lines[7], bar("2 smaller tables", "━━━━━━━━━╸", " 38 %  60 rows"));
        assert!(lines[8].ends_with("copying") && lines.len() == 9, "{drawn}");

        live.clear();
        assert_eq!(terminal.contents(), "this stays");
    }
}
