//! The operator's hooks: commands that are run at their step, with a deadline.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::plan::Step;
use crate::fault::{Fault, Result};

/// What a hook is told about the switch, beside the environment of this command.
pub type Variables = Vec<(&'static str, String)>;

/// How long what a hook has said last is waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Waits for a word of this command, and ends the hook with all that it has started if that dies without one.
const WATCHED: &str =
    "exec 3<&0 0</dev/null; (read -r word <&3 || kill -KILL 0) & exec 3<&-; exec /bin/sh -c \"$1\"";

/// Runs a hook in a shell and a process group of its own. What it says goes to the log, line by line. At the deadline,
/// when nobody waits for it any more, and when this command is killed, the whole group is killed.
///
/// # Errors
/// If it can't be run, fails, or takes too long.
pub async fn run(step: Step, command: &str, variables: &Variables, deadline: Duration) -> Result<()> {
    let failed = |why: String| {
        Fault::person(format!("the hook {} {why}", step.as_str())).remedy(format!(
            "see what it said in the log; it is [cutover] {} in the configuration",
            step.as_str()
        ))
    };
    let mut child = Command::new("/bin/sh")
        .args(["-c", WATCHED, "sh", command])
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
    let (group, word) = (Group(child.id()), child.stdin.take());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let told = tokio::spawn(async move { tokio::join!(tell(step, stdout), tell(step, stderr)) });
    let ended = timeout(deadline, child.wait()).await;
    if let (Ok(_), Some(mut word)) = (&ended, word) {
        // Nobody hears it if the hook has ended its whole group.
        let _ = word.write_all(b"ended\n").await;
    }
    // What it has left running may keep the pipes open.
    let _ = timeout(LAST_WORDS, told).await;
    let status = match ended {
        Err(_) => {
            return Err(failed(format!("has not ended within {} s, and was killed", deadline.as_secs_f64())));
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

async fn tell(step: Step, output: Option<impl AsyncRead + Unpin>) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::info!(hook = step.as_str(), "{line}");
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

    async fn hook(command: &str) -> Result<()> {
        let variables = vec![("CDC_STEP", "smoke".to_owned())];
        run(Step::Smoke, command, &variables, Duration::from_millis(700)).await
    }

    #[tokio::test]
    async fn a_hook_knows_its_step_and_its_failure_says_which_it_was() {
        hook("test \"$CDC_STEP\" = smoke && echo well").await.unwrap();
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
