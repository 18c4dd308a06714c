//! `cdc run` and other commands, the real ones: this executable as a process of its own.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::Arguments;
use crate::fault::{Fault, Result};

/// How many lines of its log are kept, for the case that something fails.
const LOG_LINES: usize = 30;

/// How long it may take to stop when it is asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked at while it stops.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// A running daemon. It ends with this value, and with this process however that ends.
pub(super) struct Daemon {
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts it.
    pub(super) fn start(arguments: &Arguments) -> Result<Self> {
        let mut command = command(arguments, &["run"])?;
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| {
            Fault::person(format!("can't run setpriv: {e}")).remedy("install it: it is part of util-linux")
        })?;
        let log = Arc::default();
        let reader = child.stderr.take().map(|stderr| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || keep_last(BufReader::new(stderr), &log))
        });
        Ok(Self { child, log, reader })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged last; all of that, if it has ended.
    pub(super) fn log(&mut self) -> Vec<String> {
        if let (Ok(Some(_)), Some(reader)) = (self.child.try_wait(), self.reader.take()) {
            // What it has read is all that matters of it.
            let _ = reader.join();
        }
        self.log.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Its exit status, if it has ended.
    pub(super) fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|e| Fault::bug(format!("the daemon can't be waited for: {e}")))
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its exit status.
    pub(super) async fn stop(&mut self) -> Result<ExitStatus> {
        let order = format!("kill -s TERM {}", self.pid());
        let sent = Command::new("sh").args(["-c", &order]).status();
        sent.map_err(|e| Fault::person(format!("can't run sh: {e}")))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(Fault::bug(format!("the daemon did not stop in {} s", PATIENCE.as_secs())));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

/// A command of this executable, as a process that ends with this one.
pub(super) fn command(arguments: &Arguments, what: &[&str]) -> Result<Command> {
    let executable =
        std::env::current_exe().map_err(|e| Fault::bug(format!("this executable can't be found: {e}")))?;
    // The kernel kills it when we die, whatever we die of. If that was before it had been told to, its
    // parent is another one by now, and it doesn't even begin.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "sh", "-c", "test \"$PPID\" = \"$0\" && exec \"$@\""]);
    command.arg(std::process::id().to_string()).arg(executable);
    if let Some(file) = &arguments.file {
        command.arg("--config").arg(file);
    }
    let named =
        [("--name", &arguments.name), ("--source", &arguments.source), ("--target", &arguments.target)];
    for (option, value) in named {
        if let Some(value) = value {
            command.args([option, value]);
        }
    }
    for (name, _) in std::env::vars_os() {
        // Meant for somebody else's databases.
        if ["PG", "CDC_"].iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            command.env_remove(name);
        }
    }
    // A group of its own: Ctrl-C in a terminal is for us, and we decide what it means for the command.
    command.args(what).process_group(0).current_dir("/").stdin(Stdio::null());
    Ok(command)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads the log to its end and keeps its last lines.
fn keep_last(log: impl BufRead, kept: &Mutex<VecDeque<String>>) {
    for line in log.lines().map_while(std::result::Result::ok) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == LOG_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_log_are_kept() {
        let text = (1..=100).map(|n| format!("line {n}\n")).collect::<String>();
        let kept = Mutex::default();
        keep_last(text.as_bytes(), &kept);
        let kept = kept.into_inner().unwrap();
        assert_eq!((kept.len(), kept[0].as_str(), kept[29].as_str()), (30, "line 71", "line 100"));
    }
}
