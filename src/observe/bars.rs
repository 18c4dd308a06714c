//! Bars at the bottom of the terminal, and the log's lines above them.

use std::collections::HashMap;
use std::io::{self, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use super::copy::{of_table, summary};
use crate::ledger::{CopyProgress, TableState};

/// The most tables that have a bar at a time: more would push the log off the screen.
const TABLES_SHOWN: usize = 8;

/// What a full bar counts to.
const FULL: u64 = 1000;

/// Standard error, as all who write there share it. The log writes through it, so that its lines
/// don't tear the bars.
#[derive(Clone, Debug)]
pub struct Screen {
    bars: Option<MultiProgress>,
}

impl Screen {
    /// With bars or without.
    #[must_use]
    pub fn new(has_bars: bool) -> Self {
        Self { bars: has_bars.then(MultiProgress::new) }
    }

    pub(super) fn has_bars(&self) -> bool {
        self.bars.is_some()
    }

    /// Bars, if it can have them.
    pub(super) fn bars(&self) -> Option<Bars> {
        self.bars.clone().map(Bars::new)
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.bars {
            Some(bars) => bars.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A bar for each table under way, and one for the whole; gone when this is dropped.
pub(super) struct Bars {
    screen: MultiProgress,
    total: ProgressBar,
    tables: HashMap<String, ProgressBar>,
}

impl Bars {
    fn new(screen: MultiProgress) -> Self {
        let total = screen.add(bar("copy"));
        Self { screen, total, tables: HashMap::new() }
    }

    /// Draws this.
    pub(super) fn show(&mut self, progress: &CopyProgress) {
        let under_way = progress.details.iter().filter(|table| table.state == TableState::Copying);
        let mut before = std::mem::take(&mut self.tables);
        for table in under_way.take(TABLES_SHOWN) {
            let bar = before
                .remove(&table.table)
                .unwrap_or_else(|| self.screen.insert_before(&self.total, bar(&table.table)));
            draw(&bar, table.fraction, of_table(table));
            self.tables.insert(table.table.clone(), bar);
        }
        for over in before.values() {
            self.screen.remove(over);
        }
        draw(&self.total, progress.fraction, summary(progress));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        for bar in self.tables.values().chain([&self.total]) {
            bar.finish_and_clear();
            self.screen.remove(bar);
        }
    }
}

fn bar(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:24!} {bar:12.green} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(FULL).with_style(style).with_prefix(name.to_owned())
}

/// Between the end of a COPY and its commit nothing counts its rows: a bar doesn't go back for that.
fn draw(bar: &ProgressBar, fraction: f64, text: String) {
    #[expect(clippy::cast_possible_truncation, reason = "it is a number from 0 to FULL")]
    let position = (fraction * FULL as f64) as u64;
    bar.set_message(text);
    bar.set_position(position.max(bar.position()));
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    use super::*;
    use crate::observe::copy::tests::{progress, table};

    #[test]
    fn each_table_under_way_has_a_bar_above_that_of_the_whole() {
        let terminal = InMemoryTerm::new(20, 80);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let screen = MultiProgress::with_draw_target(target);
        let mut bars = Bars::new(screen.clone());
        let mut look = |details| {
            bars.show(&progress(details));
            terminal.contents()
        };
        let copying = |name: &str, fraction| table(name, TableState::Copying, fraction);
        let first = look(vec![
            table("failed", TableState::Failed, 0.3),
            copying("a", 0.5),
            copying("b", 0.25),
            table("waits", TableState::Pending, 0.0),
        ]);
        assert_eq!(
            first,
            "public.a                 ██████░░░░░░ 50 %, about 60 seconds left, 1,234 of abou\n\
             public.b                 ███░░░░░░░░░ 25 %, about 60 seconds left, 1,234 of abou\n\
             copy                     █████░░░░░░░ 42 %, about 5 minutes left, 2,468 of about"
        );
        // One is done, another begins, and the COPY of a chunk has just ended.
        let second = look(vec![copying("a", 0.4), copying("c", 0.0), table("b", TableState::Done, 1.0)]);
        let names = |text: &str| {
            let names: Vec<_> =
                text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
            names
        };
        assert_eq!(names(&second), ["public.a", "public.c", "copy"], "{second}");
        assert!(second.contains("public.a                 ██████░░░░░░ 40 %"), "{second}");
        // Never more than a few.
        let many = look((0..100).map(|i| copying(&format!("t{i}"), 0.0)).collect());
        assert_eq!(names(&many).len(), TABLES_SHOWN + 1, "{many}");
        // What the log says comes above them, and in the end they are gone.
        screen.println("a line").unwrap();
        assert_eq!(names(&terminal.contents()).len(), TABLES_SHOWN + 2);
        drop(bars);
        assert_eq!(terminal.contents(), "a line");
    }
}
