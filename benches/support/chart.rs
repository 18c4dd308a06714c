//! Bars, as SVG.

use std::fmt::Write as _;

use super::report::number;

const WIDTH: f64 = 900.0;
const BAR: f64 = 18.0;
const LABELS: f64 = 130.0;
/// What is kept free for the number behind the longest bar.
const NUMBERS: f64 = 80.0;

/// Groups of bars, each with a title, and each bar with its name and rows a second.
#[derive(Default)]
pub struct Chart {
    pub groups: Vec<(String, Vec<(&'static str, f64)>)>,
}

impl Chart {
    pub fn svg(&self) -> String {
        let bars = || self.groups.iter().flat_map(|(_, bars)| bars);
        let most = bars().map(|(_, rate)| *rate).fold(1.0, f64::max);
        let mut body = String::new();
        let mut y = 30.0;
        for (title, bars) in &self.groups {
            y += 2.0 * BAR;
            // Writing to a string can't fail.
            let _ = writeln!(body, "<text x=\"10\" y=\"{}\" font-weight=\"bold\">{title}</text>", y - 8.0);
            for (name, rate) in bars {
                let length = rate / most * (WIDTH - LABELS - NUMBERS);
                let colour = if name.starts_with("cdc") { "#1f6feb" } else { "#9aa4b2" };
                let text = y + BAR - 5.0;
                let _ = writeln!(
                    body,
                    "<text x=\"10\" y=\"{text}\">{name}</text>\
                     <rect x=\"{LABELS}\" y=\"{y}\" width=\"{length:.0}\" height=\"{}\" fill=\"{colour}\"/>\
                     <text x=\"{:.0}\" y=\"{text}\">{}</text>",
                    BAR - 3.0,
                    LABELS + length + 6.0,
                    number(*rate)
                );
                y += BAR;
            }
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"22\" font-size=\"16\">Rows a second</text>\n{body}</svg>\n",
            y + 20.0
        )
    }
}
