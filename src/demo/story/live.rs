//! The part of a terminal that changes: a bar for each table while rows are copied, and a line below.

use std::time::Duration;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::screen::{count, how_it_goes};
use crate::ledger::{CopyProgress, Phase, TableProgress, TableState};
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
    bars: Vec<ProgressBar>,
    line: Option<ProgressBar>,
}

impl Live {
    pub(super) fn new() -> Self {
        Self {
            drawn: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()),
            bars: Vec::new(),
            line: None,
        }
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
            self.show_bars(copy);
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

    fn show_bars(&mut self, copy: &CopyProgress) {
        let mut tables: Vec<&TableProgress> = copy.details.iter().collect();
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
        bar.set_style(bar_style(if is_done { "green" } else { "cyan" }));
        bar.set_prefix(name.to_owned());
        // What was planned was an estimate.
        bar.set_length(if is_done { rows } else { planned.max(rows) });
        bar.set_position(rows);
        bar.set_message(format!("{} rows", count(rows)));
    }
}

fn bar_style(colour: &str) -> ProgressStyle {
    let columns = usize::from(Term::stdout().size().1);
    let width = columns.saturating_sub(BESIDE_BAR).clamp(BAR_SHORTEST, BAR_LONGEST);
    let bar = format!("{{bar:{width}.{colour}/black.bright}}");
    let template = format!("           {{prefix:26!}} {bar} {{percent:>3}} %  {{wide_msg}}");
    style_of(&template).progress_chars("━╸─")
}

fn style_of(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
