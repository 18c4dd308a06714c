//! The operator's hooks: commands that are run in a shell, with a deadline.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::fault::{Fault, Result};

/// What a hook is told, beside the environment of this process.
pub type Variables = Vec<(&'static str, String)>;

/// A command of the operator's.
#[derive(Clone, Copy, Debug)]
pub struct Hook<'a> {
    /// Its name in messages and in the log.
    pub name: &'a str,
    /// Where the configuration has it.
    pub key: &'a str,
    /// The command, for a shell.
    pub command: &'a str,
    /// How long it may take.
    pub deadline: Duration,
}

/// How long what a hook has said last is waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Waits for a word of this process, and ends the hook with all that it has started if that dies without one.
const WATCHED: &str =
    "exec 3<&0 0</dev/null; (read -r word <&3 || kill -KILL 0) & exec 3<&-; exec /bin/sh -c \"$1\"";

impl Hook<'_> {
    /// Runs it in a process group of its own, with this as its input. What it says goes to the log, line by line. At the
    /// deadline, or when nobody waits for it any more, the whole group is killed; without any input, which takes the
    /// place of the watch, also when this process is killed.
    ///
    /// # Errors
    /// If it can't be run, fails, or takes too long.
    pub async fn run(&self, variables: &Variables, input: &[u8]) -> Result<()> {
        let failed = |why: String| {
            Fault::person(format!("the hook {} {why}", self.name))
                .remedy(format!("see what it said in the log; it is {} in the configuration", self.key))
        };
        let is_watched = input.is_empty();
        let mut child = Command::new("/bin/sh")
            .args(["-c", if is_watched { WATCHED } else { "exec /bin/sh -c \"$1\"" }, "sh", self.command])
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .env_remove("CDC_SOURCE_URL")
            .env_remove("CDC_TARGET_URL")
            .env_remove("PGPASSWORD")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| failed(format!("can't be run: {e}")))?;
        let group = Group(child.id());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let name = self.name.to_owned();
        let told = tokio::spawn(async move { tokio::join!(tell(&name, stdout), tell(&name, stderr)) });
        let mut stdin = child.stdin.take();
        let ended = timeout(self.deadline, async {
            if !is_watched && let Some(mut stdin) = stdin.take() {
                // That it doesn't read it is its own business.
                let _ = stdin.write_all(input).await;
            }
            child.wait().await
        })
        .await;
        if let (Ok(_), Some(mut word)) = (&ended, stdin) {
            // Nobody hears it if the hook has ended its whole group.
            let _ = word.write_all(b"ended\n").await;
        }
        // What it has left running may keep the pipes open.
        let _ = timeout(LAST_WORDS, told).await;
        let status = match ended {
            Err(_) => {
                return Err(failed(format!(
                    "has not ended within {} s, and was killed",
                    self.deadline.as_secs_f64()
                )));
            }
            Ok(Err(error)) => return Err(failed(format!("can't be waited for: {error}"))),
            Ok(Ok(status)) => status,
        };
        // What it leaves running is the operator's own.
        group.keep();
        match (status.success(), status.code(), status.signal()) {
            (true, _, _) => Ok(()),
            (false, Some(code), _) => Err(failed(format!("has failed with the exit status {code}"))),
            (false, None, signal) => {
                Err(failed(format!("was ended by the signal {}", signal.unwrap_or_default())))
            }
        }
    }
}

async fn tell(name: &str, output: Option<impl AsyncRead + Unpin>) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::info!(hook = name, "{line}");
    }
}

/// A process group that is killed when this is dropped.
struct Group(Option<u32>);

impl Group {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // There is no call for it without unsafe code. That it is gone already is as well.
            let _ = std::process::Command::new("kill")
                .args(["-KILL", "--", &format!("-{id}")])
                .stderr(Stdio::null())
                .status();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn hook_reading(command: &str, input: &[u8]) -> Result<()> {
        let variables = vec![("CDC_STEP", "smoke".to_owned())];
        let deadline = Duration::from_millis(700);
        Hook { name: "smoke", key: "[cutover] smoke", command, deadline }.run(&variables, input).await
    }

    async fn hook(command: &str) -> Result<()> {
        hook_reading(command, b"").await
    }

    #[tokio::test]
    async fn a_hook_knows_its_step_and_its_failure_says_which_it_was() {
        hook("test \"$CDC_STEP\" = smoke && echo well").await.unwrap();
        hook_reading("read -r line && test \"$line\" = 'read me'", b"read me\n").await.unwrap();
        let fault = hook("exit 3").await.unwrap_err();
        assert!(fault.to_string().contains("the hook smoke has failed with the exit status 3"), "{fault}");
        let fault = hook("kill -TERM $$").await.unwrap_err();
        assert!(fault.to_string().contains("ended by the signal 15"), "{fault}");
    }

    #[tokio::test]
    async fn a_hook_that_hangs_is_killed_with_all_that_it_has_started() {
        let mark = tempfile::NamedTempFile::new().unwrap();
        let path = mark.path().display();
        let began = Instant::now();
        let fault = hook(&format!("(sleep 1.5; echo late >> {path}) & sleep 60")).await.unwrap_err();
        assert!(fault.to_string().contains("has not ended within 0.7 s"), "{fault}");
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(std::fs::read_to_string(mark.path()).unwrap(), "");
    }

    #[tokio::test]
    async fn a_hook_dies_with_the_command_and_keeps_what_it_leaves_running() {
        let mark = tempfile::NamedTempFile::new().unwrap();
        let path = mark.path().display();
        let command = format!("(sleep 1; echo left >> {path}) >/dev/null 2>&1 & wait; echo here >> {path}");
        let mut child = Command::new("/bin/sh")
            .args(["-c", WATCHED, "sh", &command])
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        // As the kernel does when this command is killed.
        drop(child.stdin.take());
        assert_eq!(child.wait().await.unwrap().signal(), Some(9));
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(std::fs::read_to_string(mark.path()).unwrap(), "");

        hook(&format!("(sleep 0.3; echo left >> {path}) >/dev/null 2>&1 &")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert_eq!(std::fs::read_to_string(mark.path()).unwrap(), "left\n");
    }

    #[tokio::test]
    async fn what_a_hook_leaves_running_is_not_waited_for() {
        let began = Instant::now();
        hook("sleep 5 &").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}
