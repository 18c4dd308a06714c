//! The live view of `cdc status --watch`: what is seen, as lines that fit a terminal of any size.
//!
//! It knows what `cdc status` knows, from the databases alone; its charts begin when it does.

mod paint;
mod rows;

use std::time::SystemTime;

use ratatui::Frame;

use super::history::History;
use super::status::Status;
use crate::fault::{Fault, Result};
use paint::paint;
use rows::rows;

/// What was seen, and how it is drawn.
pub struct View {
    name: String,
    /// The steps of a switch, in their order.
    steps: Vec<&'static str>,
    began: SystemTime,
    history: History,
    /// The last look that knew something.
    known: Option<(Status, SystemTime)>,
    /// Why the last one didn't.
    error: Option<Fault>,
}

impl View {
    /// Of a migration of which nothing was seen yet.
    #[must_use]
    pub fn new(name: &str, steps: Vec<&'static str>, began: SystemTime) -> Self {
        Self { name: name.to_owned(), steps, began, history: History::default(), known: None, error: None }
    }

    /// Notes a look.
    pub fn note(&mut self, looked: Result<Status>, at: SystemTime) {
        match looked {
            Ok(status) => {
                self.history.note(&status, at);
                (self.known, self.error) = (Some((status, at)), None);
            }
            Err(fault) => self.error = Some(fault),
        }
    }

    /// Draws it as it is at this time.
    pub fn draw(&self, frame: &mut Frame<'_>, now: SystemTime) {
        let area = frame.area();
        paint(frame, &rows(self, now, usize::from(area.width), usize::from(area.height)));
    }
}
