//! Questions to whoever sits at the terminal.

use std::io::{IsTerminal, stdin, stdout};

use super::print;
use crate::fault::{Fault, Result};

/// True if somebody sits there who can be asked.
pub(super) fn can_ask() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// Asks, and waits for a line. The end of the input is an empty answer.
pub(super) async fn ask(question: &str) -> Result<String> {
    print(question)?;
    // Whoever ends the command doesn't wait for this thread.
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        stdin().read_line(&mut line).map(|_| line)
    });
    match line.await {
        Ok(Ok(line)) => Ok(line.trim().to_owned()),
        Ok(Err(error)) => Err(Fault::person(format!("the answer can't be read: {error}"))),
        Err(error) => Err(Fault::bug(format!("the answer can't be read: {error}"))),
    }
}
