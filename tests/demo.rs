//! `cdc demo`: what a newcomer sees first, and that nothing of it stays.

#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long what should be over in a moment may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A demo without a terminal, and a temporary directory of its own.
struct Demo {
    child: Child,
    output: BufReader<ChildStdout>,
    said: String,
    temporary: TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        // Like /tmp: the servers of root's demo run as another account.
        fs::set_permissions(temporary.path(), Permissions::from_mode(0o1777)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_cdc"))
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output, said: String::new(), temporary }
    }

    /// Reads on until a line has this text, and gives that line.
    fn says(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "it never said {text:?}:\n{}",
                self.said
            );
            self.said.push_str(&line);
            if line.contains(text) {
                return line.trim().to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let order = format!("kill -s {name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &order]).status().unwrap().success());
    }

    /// Waits for its end; gives its exit status and all that it has said.
    fn ended(&mut self) -> (ExitStatus, &str) {
        self.output.read_to_string(&mut self.said).unwrap();
        (self.child.wait().unwrap(), &self.said)
    }

    /// What is there of it: files, and processes that were given its temporary directory or work in it.
    fn traces(&self) -> Vec<String> {
        let directory = self.temporary.path();
        let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path().display().to_string());
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let ours = processes.filter(|process| belongs_to(process, directory));
        files
            .chain(ours.map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default()))
            .collect()
    }

    fn assert_no_traces(&self) {
        assert_eq!(self.traces(), Vec::<String>::new());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has ended long ago, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn belongs_to(process: &Path, directory: &Path) -> bool {
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    let wanted = format!("TMPDIR={}", directory.display());
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        || fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
}

#[test]
fn the_demo_ends_identical_and_leaves_nothing_behind() {
    let mut demo = Demo::start(&["--scale", "3", "--rate", "200", "--seconds", "1"]);
    demo.says("cdc run starts");
    assert!(!demo.traces().is_empty(), "what is looked for later isn't found now");
    let (status, said) = demo.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    for wanted in [
        "the target's database is empty",
        "cdc check finds nothing that stands in the way",
        "cdc schema diff finds the same on both sides",
        "kill -9",
        "cdc run starts again",
        "finds them:\n           different public.clients id=",
        ": total_spent, visit_history\n           extra public.companies id=1\n           missing public.reminders id=",
        "(3 tables), and verifies them",
        "cdc cutover: the target takes the writes, and the source refuses them; nothing could be written for ",
        "the application changes 100 rows there",
        "cdc rollback: the source takes the writes again; nothing could be written for ",
        "rows in 13 tables\n",
        "\nidentical  ",
    ] {
        assert!(said.contains(wanted), "it never said {wanted:?}:\n{said}");
    }
    assert!(!said.contains('\x1b'), "colours without a terminal:\n{said}");
    demo.assert_no_traces();
}

#[test]
fn an_interrupted_demo_cleans_up_whatever_it_is_doing() {
    for (moment, signal) in [
        ("starting two", "INT"),
        ("filling the source", "TERM"),
        ("cdc run starts (", "INT"),
        ("kill -9", "HUP"),
        ("cdc run starts again", "INT"),
    ] {
        let mut demo = Demo::start(&["--scale", "3", "--seconds", "60"]);
        demo.says(moment);
        demo.signal(signal);
        let (status, said) = demo.ended();
        assert_eq!(status.code(), Some(1), "{moment}: {said}");
        assert!(said.contains("interrupted"), "{moment}: {said}");
        demo.assert_no_traces();
    }
}

#[test]
fn a_killed_demo_takes_its_daemon_and_its_servers_along() {
    let mut demo = Demo::start(&["--scale", "3", "--seconds", "60"]);
    demo.says("cdc run starts again");
    demo.signal("KILL");
    demo.ended();
    let deadline = Instant::now() + PATIENCE;
    while !demo.traces().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", demo.traces());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn a_row_that_only_the_target_has_is_told_with_its_table() {
    let mut demo = Demo::start(&["--scale", "3", "--seconds", "5"]);
    let target = demo.says("target  ").split_whitespace().last().unwrap().to_owned();
    demo.says("everything is copied");
    let (client, connection) = tokio_postgres::connect(&target, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("INSERT INTO companies (id, title) VALUES (1, 'mine')").await.unwrap();
    let (status, said) = demo.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    for wanted in ["different: 1 of 13 tables differ", "public.companies: ", "0 missing, 1 extra", "(1,mine,"]
    {
        assert!(said.contains(wanted), "it never said {wanted:?}:\n{said}");
    }
    assert!(!said.contains("identical"), "{said}");
    demo.assert_no_traces();
}

#[test]
fn the_demo_wants_no_databases_of_the_users() {
    let output = Command::new(env!("CARGO_BIN_EXE_cdc"))
        .args(["demo", "--source", "postgres://a@production/d"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("two servers of its own"), "{output:?}");
}
