//! `cdc status --watch` on a real terminal, which it leaves as it was, and without one.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::pair::{PATIENCE, Pair};
use indicatif::{InMemoryTerm, TermLike};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

/// What brings a terminal to the screen of a program, and back.
const ENTERS: &str = "\x1b[?1049h";
const LEAVES: &str = "\x1b[?1049l";

/// A shell on a terminal of this size that runs the view and says how it ended.
struct Terminal {
    child: Child,
    file: tempfile::NamedTempFile,
    size: (u16, u16),
}

impl Terminal {
    fn start(pair: &Pair, (rows, columns): (u16, u16)) -> Self {
        let command = pair.command();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        let run = format!(
            "stty rows {rows} cols {columns}; stty -a > {0}.before; {1} status --watch; echo \"ended with $?\"; stty -a > {0}.after",
            file.path().display(),
            words.join(" ")
        );
        let child = Command::new("script")
            .args(["-qfc", &run])
            .arg(file.path())
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, file, size: (rows, columns) }
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.file.path()).unwrap()).into_owned()
    }

    /// What is on the screen now.
    fn screen(&self) -> String {
        let output = self.output();
        let drawn = output.split_once(ENTERS).map_or("", |(_, drawn)| drawn);
        let terminal = InMemoryTerm::new(self.size.0, self.size.1);
        terminal.write_str(drawn.split(LEAVES).next().unwrap()).unwrap();
        terminal.contents()
    }

    async fn shows(&self, texts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if texts.iter().all(|text| screen.contains(text)) {
                return screen;
            }
            assert!(Instant::now() < deadline, "it never showed all of {texts:?}:\n{screen}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn types(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// It ends with this status, and the terminal is as it was before.
    async fn ends_with(mut self, code: i32) {
        let deadline = Instant::now() + PATIENCE;
        while !self.output().contains("ended with ") {
            assert!(Instant::now() < deadline, "it doesn't end:\n{}", self.screen());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(self.child.wait().unwrap().success());
        let output = self.output();
        let left = output.rsplit_once(LEAVES).expect("it has left its screen").1;
        assert!(left.contains("\x1b[?25h") || output.contains("\x1b[?25h"), "the cursor is hidden");
        assert!(left.contains(&format!("ended with {code}")), "{left:?}");
        let stty =
            |when: &str| std::fs::read_to_string(format!("{}.{when}", self.file.path().display())).unwrap();
        assert_eq!(stty("before"), stty("after"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_shows_how_it_is_and_leaves_the_terminal_as_it_was() {
    let pair = Pair::new("view").await;
    pair.both(TABLE).await;
    let mut stopped = Terminal::start(&pair, (24, 80));
    stopped.shows(&["view: stopped: no daemon is running", "has never run", "q quits"]).await;
    stopped.types("q");
    stopped.ends_with(2).await;

    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 500) i").await;
    pair.caught_up().await;
    let mut view = Terminal::start(&pair, (24, 80));
    let screen = view
        .shows(&[
            "view: streaming",
            "lag         0.0 s, 0 B",
            "rows out    ",
            "complete, the target is consistent since",
            "none is open",
        ])
        .await;
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");

    // A row in the way: what to do is on the screen until it is mended.
    pair.target.batch_execute("INSERT INTO t VALUES (1000, 'in the way')").await.unwrap();
    pair.write("INSERT INTO t VALUES (1000, 'v')").await;
    view.shows(&[
        "view: blocked: a person is needed",
        "table public.t, key id=1000",
        "SQLSTATE 23505",
        "what to do: ",
    ])
    .await;
    let status = pair.status();
    let lsn = status["incidents"][0]["lsn"].as_str().unwrap();
    assert!(pair.run(&["skip", lsn, "--yes", "--reason", "a test"]).status.success());
    view.shows(&["view: streaming", "none is open", "skipped     transactions 1"]).await;
    view.types("\x03");
    view.ends_with(0).await;

    // Too small for anything.
    let mut tiny = Terminal::start(&pair, (2, 12));
    tiny.shows(&["view: strea"]).await;
    tiny.types("q");
    tiny.ends_with(0).await;

    // Asked from without.
    let asked = Terminal::start(&pair, (24, 80));
    asked.shows(&["view: streaming"]).await;
    let children = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let shell = children(&asked.child.id().to_string());
    let cdc = children(shell.trim());
    assert!(
        Command::new("kill").args(["-TERM", cdc.trim()]).status().unwrap().success(),
        "{shell:?} {cdc:?}"
    );
    asked.ends_with(0).await;
    pair.target.batch_execute("UPDATE t SET v = 'v' WHERE id = 1000").await.unwrap();
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_there_is_a_line_when_something_changes() {
    let pair = Pair::new("lines").await;
    pair.both(TABLE).await;
    let mut command = pair.command();
    let mut watching =
        command.args(["status", "--watch"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let mut says = |text: &str| lines.find(|line| line.contains(text)).expect("it goes on");
    says("Z  lines: stopped: no daemon is running");
    let daemon = pair.streaming().await;
    says("lines: streaming");
    assert!(daemon.terminate().await.success());
    let stopped = says("lines: stopped");
    // While nothing changes there is one now and then.
    let since = Instant::now();
    let again = says("lines: stopped");
    assert!(since.elapsed() > Duration::from_secs(5), "{stopped}\n{again}");
    let pid = watching.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(watching.wait().unwrap().code(), Some(2));
}
