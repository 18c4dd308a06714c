//! The lines on the terminal.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline};

use super::rows::{INDENT, Row};

/// How many columns a chart's value, a table's name, and a bar take.
const VALUE: u16 = 22;
const NAME: u16 = 24;
const BAR: u16 = 10;

/// Draws them from the top, and the last one at the bottom.
pub(super) fn paint(frame: &mut Frame<'_>, rows: &[Row]) {
    let area = frame.area();
    let Some((foot, rows)) = rows.split_last() else { return };
    let mut y = area.y;
    for row in rows {
        let height = u16::try_from(row.height()).unwrap_or(u16::MAX);
        one(frame, row, Rect { y, height, ..area }.intersection(area));
        y = y.saturating_add(height);
    }
    one(frame, foot, Rect { y: area.bottom().saturating_sub(1), height: 1, ..area }.intersection(area));
}

fn one(frame: &mut Frame<'_>, row: &Row, area: Rect) {
    let dim = Style::new().add_modifier(Modifier::DIM);
    let indent = u16::try_from(INDENT).unwrap_or(0);
    let from = |x: u16| Rect { x: area.x.saturating_add(x), width: area.width.saturating_sub(x), ..area };
    match row {
        Row::Text(line) => frame.render_widget(Paragraph::new(line.clone()), area),
        Row::Chart { label, value, points, full, .. } => {
            let text =
                Line::from(vec![Span::styled(format!("{label:<INDENT$}"), dim), Span::raw(value.clone())]);
            frame.render_widget(Paragraph::new(text), area);
            let chart = from(indent + VALUE);
            // The latest is at the right.
            let skipped = points.len().saturating_sub(usize::from(chart.width));
            let sparkline = Sparkline::default().data(points[skipped..].iter().copied()).max(*full);
            frame.render_widget(sparkline.style(Style::new().fg(Color::Cyan)), chart);
        }
        Row::Gauge { label, fraction, text, color } => {
            let name = if label.starts_with(' ') { NAME } else { indent };
            let (columns, bar) = (usize::from(name), usize::from(BAR));
            let shown: String = format!("{label:<columns$}").chars().take(columns - 1).collect();
            let filled: String =
                (1..=bar).map(|i| if *fraction * bar as f64 >= i as f64 { '█' } else { '░' }).collect();
            let line = vec![
                Span::styled(shown + " ", dim),
                Span::styled(filled, Style::new().fg(*color)),
                Span::raw(" "),
                Span::raw(text.clone()),
            ];
            frame.render_widget(Paragraph::new(Line::from(line)), area);
        }
    }
}
