//! Keyword/value connection strings: `host=db.example.com password='it''s \'quoted\''`.

use super::settings::{Settings, is_space};
use crate::fault::{Fault, Result};

/// Reads `name = value` pairs, as libpq does ("Keyword/Value Connection Strings").
///
/// # Errors
/// A usage fault that gives the place by its character position and shows nothing of the text.
pub(super) fn parse(text: &str, settings: &mut Settings) -> Result<()> {
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let place = place(text, rest);
        let (name, after) = rest.split_at(rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len()));
        let after = after.trim_start_matches(is_space);
        let Some(after) = after.strip_prefix('=') else {
            return Err(Fault::usage(format!("the connection string lacks a = after the word {place}"))
                .remedy(
                    "write name=value pairs, with values that contain spaces in single quotes, \
                     or a URI that starts with postgres:// or postgresql://",
                ));
        };
        let (value, after) = value(after.trim_start_matches(is_space)).ok_or_else(|| {
            Fault::usage(format!("the connection string lacks the closing quote of the parameter {place}"))
                .remedy("write a single quote inside a value as \\'")
        })?;
        settings.take(name, value, &place)?;
        rest = after.trim_start_matches(is_space);
    }
    Ok(())
}

/// Where `rest` begins in `text`, for a message.
fn place(text: &str, rest: &str) -> String {
    let before = &text[..text.len() - rest.len()];
    format!("at character {}", before.chars().count() + 1)
}

/// Takes a value off the text: up to a space, or between single quotes; a backslash takes the next
/// character as it is. `None` without a closing quote.
fn value(text: &str) -> Option<(String, &str)> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(inside) => (true, inside),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Some((value, &text[at + 1..])),
            _ if !quoted && is_space(c) => return Some((value, &text[at..])),
            _ => value.push(c),
        }
    }
    (!quoted).then_some((value, ""))
}
