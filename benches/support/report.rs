//! The result: tables, and a chart, as files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::chart::Chart;
use super::{Servers, connect, turns};

pub struct Report {
    text: String,
    chart: Chart,
}

impl Report {
    /// Begins with the machine.
    pub async fn begin(servers: &Servers) -> Self {
        let client = connect(&servers.source.url("postgres")).await;
        let version: String = client.query_one("SHOW server_version", &[]).await.unwrap().get(0);
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let field = |file: &str, name: &str| {
            let text = read(file);
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
        };
        let memory = field("/proc/meminfo", "MemTotal").replace(" kB", "").parse().unwrap_or(0.0) / 1024.0;
        let text = format!(
            "# cdc {}\n\n{} ({} cores), {} MiB, Linux {}, PostgreSQL {version}; both servers, cdc and the clients on \
             this machine; load average before: {}. Medians of {} turns; autovacuum is off.\n",
            env!("CARGO_PKG_VERSION"),
            field("/proc/cpuinfo", "model name"),
            std::thread::available_parallelism().map_or(1, usize::from),
            number(memory),
            read("/proc/sys/kernel/osrelease").trim(),
            read("/proc/loadavg").split(' ').next().unwrap_or_default(),
            turns(),
        );
        Self { text, chart: Chart::default() }
    }

    /// Adds a table, if there is something in it, and writes what there is so far.
    pub fn section(&mut self, title: &str, what: &str, table: &Table) {
        if table.rows.is_empty() {
            return;
        }
        // Writing to a string can't fail.
        let _ = write!(self.text, "\n## {title}\n\n{what}\n\n{}", table.markdown());
        let directory = directory();
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("speed.md"), &self.text).unwrap();
        fs::write(directory.join("speed.svg"), self.chart.svg()).unwrap();
    }

    /// Adds bars to the chart: each way's rows a second.
    pub fn bars(&mut self, title: &str, bars: &[(&'static str, f64)]) {
        self.chart.groups.push((title.to_owned(), bars.to_vec()));
    }

    /// Shows it all.
    pub fn print(&self) {
        let directory = directory();
        println!("\n{}\n{}/speed.md and speed.svg", self.text, directory.display());
    }
}

/// `target/bench`.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}

/// A table whose first column says what the others are about.
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.header.len());
        self.rows.push(row);
    }

    /// As Markdown that can be read as it is.
    fn markdown(&self) -> String {
        let lines = || [&self.header].into_iter().chain(&self.rows);
        let width = |column: usize| lines().map(|line| line[column].len()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |cells: &[String]| {
            let cells = cells.iter().zip(&widths).enumerate();
            let padded = cells.map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
        };
        let rules: Vec<String> = widths
            .iter()
            .enumerate()
            .map(|(column, &width)| {
                "-".repeat(width.max(1) - usize::from(column > 0)) + if column > 0 { ":" } else { "" }
            })
            .collect();
        line(&self.header) + &line(&rules) + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }
}

/// A rounded number, in groups of three digits.
pub fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
