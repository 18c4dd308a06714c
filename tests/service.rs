//! `cdc run` as a service: what it tells systemd, the units, their installation, the configuration's keys.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cdc::config::{Arguments, Config};
use cdc::connect::Environment;
use support::pair::{PATIENCE, Pair, connect};
use tempfile::{NamedTempFile, TempDir};

/// How long the service manager of these tests waits to be fed; and the longest that a loop may stand still.
const WATCHDOG: Duration = Duration::from_secs(2);

/// A daemon that a service manager has started: the test is that service manager.
struct Unit {
    child: Child,
    socket: UnixDatagram,
    said: Vec<String>,
    log: NamedTempFile,
    _directory: TempDir,
}

impl Unit {
    /// Starts `cdc run`, with the log as the journal or not.
    fn start(pair: &Pair, has_journal: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let log = NamedTempFile::new().unwrap();
        let file = log.as_file().metadata().unwrap();
        let inode = if has_journal { file.ino() } else { file.ino() + 1 };
        let child = pair
            .command()
            .arg("run")
            .env("CDC_LOG", "info")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .env("JOURNAL_STREAM", format!("{}:{inode}", file.dev()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Self { child, socket, said: Vec::new(), log, _directory: directory }
    }

    /// What it says next, if it says something in time.
    fn next(&mut self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut message = vec![0; 8192];
        match self.socket.recv(&mut message) {
            Ok(length) => {
                let text = str::from_utf8(&message[..length]).unwrap();
                let text = text.strip_suffix('\n').unwrap();
                assert!(!text.contains('\n'), "more than one variable: {text:?}");
                self.said.push(text.to_owned());
                Some(text.to_owned())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits until it says something that begins so.
    fn says(&mut self, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(text) = self.next(WATCHDOG).filter(|text| text.starts_with(start)) {
                return text;
            }
        }
        panic!("it never said {start:?} but {:#?}\n{}", self.said, self.log());
    }

    /// It feeds the watchdog, twice as often as that wants to be fed, for longer than a loop may stand still.
    fn feeds(&mut self) {
        const TIMES: u32 = 3;
        self.says("WATCHDOG=1");
        let since = Instant::now();
        for _ in 0..TIMES {
            self.says("WATCHDOG=1");
        }
        let mean = since.elapsed() / TIMES;
        assert!(mean > WATCHDOG * 2 / 5 && mean < WATCHDOG, "every {mean:?}");
    }

    fn has_said(&self, text: &str) -> bool {
        self.said.iter().any(|said| said == text)
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end, and hears the rest.
    fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait().unwrap();
            while self.next(Duration::from_millis(20)).is_some() {}
            if let Some(status) = ended {
                return status;
            }
            assert!(Instant::now() < deadline, "it doesn't end\n{}", self.log());
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_how_it_is_from_the_start_to_the_stop() {
    let mut pair = Pair::new("told").await;
    pair.config = "[copy]\nmax_rate = \"600kB\"\n".to_owned();
    pair.both("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    pair.write("INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 12000) i; ANALYZE")
        .await;
    let mut unit = Unit::start(&pair, true);
    assert_eq!(unit.says("STATUS="), "STATUS=starting");
    assert!(!unit.has_said("READY=1"), "{:#?}", unit.said);
    unit.says("READY=1");
    let copying = unit.says("STATUS=copying; copied ");
    assert!(copying.contains(" of about 12,000 rows, tables 0 of 1"), "{copying}");
    let streaming = unit.says("STATUS=streaming; lag ");
    assert!(streaming.contains(" B, ") && streaming.ends_with(" s"), "{streaming}");

    // Stopped, it is silent.
    unit.signal("STOP");
    while unit.next(WATCHDOG / 10).is_some() {}
    assert_eq!(unit.next(WATCHDOG), None);
    unit.signal("CONT");

    // Waiting for a lock, it lives; and so does one that waits to take over.
    let holder = connect(&pair.target_url).await;
    holder.batch_execute("BEGIN; LOCK TABLE t IN SHARE MODE").await.unwrap();
    pair.write("INSERT INTO t VALUES (0)").await;
    pair.target_is(
        "waiting for a lock",
        "SELECT EXISTS (SELECT FROM pg_stat_activity
                         WHERE application_name = 'cdc_told apply' AND wait_event_type = 'Lock' AND $1 <> '')",
        &[&pair.name],
    )
    .await;
    unit.feeds();
    let mut second = Unit::start(&pair, false);
    second.says("STATUS=waiting to take over");
    second.says("READY=1");
    second.signal("TERM");
    assert!(second.ends().success());
    holder.batch_execute("COMMIT").await.unwrap();

    // Blocked, it lives and says why, in one line.
    pair.caught_up().await;
    pair.target.execute("DELETE FROM t WHERE id = 1", &[]).await.unwrap();
    pair.write("UPDATE t SET v = 'new' WHERE id = 1").await;
    let blocked = unit.says("STATUS=blocked; ");
    assert!(
        blocked.contains("[table public.t, key id=1, LSN ") && blocked.contains("what to do: "),
        "{blocked}"
    );
    unit.feeds();
    unit.signal("TERM");
    assert!(unit.ends().success());
    let (_, after) = unit.said.split_at(unit.said.iter().position(|said| said == "STOPPING=1").unwrap());
    assert!(after.iter().any(|said| said == "STATUS=stopped"), "{after:#?}");
    assert_eq!(unit.said.iter().filter(|said| *said == "READY=1").count(), 1);

    // The journal has a clock of its own, and keeps the priority of each line.
    let log = unit.log();
    let has_line = |start: &str| log.lines().any(|line| line.starts_with(start));
    assert!(has_line("<6>starting version=") && has_line("<6>streaming"), "{log}");
    assert!(has_line("<3>blocked: target: ") && has_line("<3>  what to do: "), "{log}");
    assert!(log.lines().all(|line| line.starts_with("<6>") || line.starts_with("<3>")), "{log}");
    assert!(second.log().starts_with("20") && second.log().contains(" INFO starting "), "{}", second.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_failed_start_and_a_server_that_is_down_is_waited_for() {
    let mut pair = Pair::new("first").await;
    pair.both("CREATE TABLE keyless (v text)").await;
    let mut unit = Unit::start(&pair, true);
    assert_eq!(unit.ends().code(), Some(2), "{}", unit.log());
    assert!(!unit.has_said("READY=1"), "{:#?}", unit.said);
    let last = unit.said.iter().rfind(|said| said.starts_with("STATUS=")).unwrap();
    assert!(last.starts_with("STATUS=stopped; ") && last.contains("keyless"), "{last}");

    pair.daemon_target_url = "postgres://nobody:s3cret@127.0.0.1:1/nowhere".to_owned();
    let mut unit = Unit::start(&pair, true);
    let waiting = unit.says("STATUS=retrying; target: ");
    unit.says("READY=1");
    unit.feeds();
    unit.signal("TERM");
    assert!(unit.ends().success());
    assert!(waiting.contains("127.0.0.1") && unit.has_said("STOPPING=1"), "{waiting}");
    assert!(!unit.said.join("\n").contains("s3cret"), "{:#?}", unit.said);
}

/// Runs a program to its end, which must be a success that says nothing to complain of; gives what it said.
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.is_empty(), "{command:?}\n{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn files_under(directory: &Path) -> BTreeSet<String> {
    let files = succeeds(Command::new("find").args([".", "-type", "f"]).current_dir(directory));
    files.lines().map(str::to_owned).collect()
}

#[test]
fn what_make_installs_is_accepted_by_systemd_and_is_removed_again_but_for_the_configuration() {
    let root = tempfile::tempdir().unwrap();
    let make = |variables: &[String]| {
        let binary = format!("BINARY={}", env!("CARGO_BIN_EXE_cdc"));
        let mut command = Command::new("make");
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("MAKEFLAGS").args(["-s", &binary]);
        succeeds(command.args(variables))
    };
    let [prefix, etc] = ["usr", "etc"].map(|part| root.path().join(part).display().to_string());
    let here = [format!("PREFIX={prefix}"), format!("SYSCONFDIR={etc}")];
    make(&[&["install".to_owned()], &here[..]].concat());
    let configuration = root.path().join("etc/cdc/cdc.toml");
    assert_eq!(configuration.metadata().unwrap().mode() & 0o777, 0o600);
    for unit in ["cdc.service", "cdc@.service"] {
        let path = root.path().join("usr/lib/systemd/system").join(unit);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("ExecStart={prefix}/bin/cdc ")), "{text}");
        succeeds(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=yes", "--threshold=20", "--no-pager"]).arg(&path);
        assert!(succeeds(&mut security).contains("Overall exposure level"), "{unit}");
    }
    // A second installation keeps what was configured.
    std::fs::write(&configuration, "name = \"mine\"\n").unwrap();
    make(&[&["install".to_owned()], &here[..]].concat());
    make(&[&["uninstall".to_owned()], &here[..]].concat());
    assert_eq!(files_under(root.path()), BTreeSet::from(["./etc/cdc/cdc.toml".to_owned()]));
    assert_eq!(std::fs::read_to_string(&configuration).unwrap(), "name = \"mine\"\n");

    let staged = tempfile::tempdir().unwrap();
    let destination = format!("DESTDIR={}", staged.path().display());
    make(&["install".to_owned(), destination, "PREFIX=/usr".to_owned()]);
    let expected = [
        "./etc/cdc/cdc.toml",
        "./usr/bin/cdc",
        "./usr/lib/systemd/system/cdc.service",
        "./usr/lib/systemd/system/cdc@.service",
        "./usr/share/doc/cdc/README.md",
        "./usr/share/doc/cdc/cdc.dashboard.json",
        "./usr/share/doc/cdc/cdc.rules.yml",
        "./usr/share/doc/cdc/cdc.toml",
        "./usr/share/doc/cdc/prometheus.yml",
    ];
    assert_eq!(files_under(staged.path()), expected.map(str::to_owned).into());
    let unit = std::fs::read_to_string(staged.path().join("usr/lib/systemd/system/cdc.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/cdc ") && unit.contains(":/etc/cdc/cdc.toml"), "{unit}");
}

/// Loads a configuration of this text.
fn load(text: &str) -> cdc::fault::Result<Config> {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let arguments = Arguments { file: Some(file.path().to_owned()), ..Arguments::default() };
    Config::load(&arguments, &Environment::empty())
}

/// The keys that may be in this section, as the parser tells them who is given another.
fn keys(section: &str) -> Vec<String> {
    let said = load(&format!("{section}\nnonsense = 1\n")).unwrap_err().to_string();
    let Some((_, expected)) = said.split_once("unknown field `nonsense`, expected ") else {
        return Vec::new();
    };
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_readme_and_the_example_have_every_key_and_no_other() {
    let mut known = BTreeSet::new();
    for key in keys("") {
        let section = keys(&format!("[{key}]"));
        known.extend(section.iter().map(|inner| format!("{key}.{inner}")));
        if section.is_empty() {
            known.insert(key);
        }
    }
    assert!(known.contains("tables.include") && known.contains("source_credential"), "{known:?}");

    let readme = include_str!("../README.md");
    let (_, table) = readme.split_once("| key | default | meaning |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let written: BTreeSet<String> =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    assert_eq!(written, known);

    let example = include_str!("../systemd/cdc.toml");
    load(example).unwrap();
    let mut section = String::new();
    let mut written = BTreeSet::new();
    for line in example.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with("# ")) {
            written.insert(format!("{section}{}", key.trim_start_matches('#')));
        }
    }
    assert_eq!(written, known);
}
