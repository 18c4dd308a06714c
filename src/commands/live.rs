//! A text that is drawn anew in its place.

use console::{Term, measure_text_width};

/// The terminal, and what is drawn on it.
pub(super) struct Live {
    terminal: Term,
    drawn: String,
}

impl Live {
    /// Standard output, if it is a terminal that can do it.
    pub(super) fn on_terminal() -> Option<Self> {
        let terminal = Term::stdout();
        (terminal.is_term() && !console::is_dumb()).then(|| Self { terminal, drawn: String::new() })
    }

    /// What has to be written so that this is drawn in place of what was drawn last. What is too long for
    /// the terminal is left out.
    pub(super) fn draw(&mut self, text: &str) -> String {
        let (height, width) = self.terminal.size();
        let (height, width) = (usize::from(height), usize::from(width).max(1));
        let mut room = height.saturating_sub(1);
        let mut next = String::new();
        for line in text.lines() {
            let needed = rows(line, width);
            if needed > room {
                break;
            }
            room -= needed;
            next.push_str(line);
            next.push('\n');
        }
        // The terminal may have another width by now.
        let up = self.drawn.lines().map(|line| rows(line, width)).sum::<usize>().min(height);
        let back = if up == 0 { String::new() } else { format!("\x1b[{up}A\r\x1b[J") };
        self.drawn = next;
        format!("{back}{}", self.drawn)
    }
}

/// How many rows of the terminal a line takes.
fn rows(line: &str, width: usize) -> usize {
    measure_text_width(line).div_ceil(width).max(1)
}
