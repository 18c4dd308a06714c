//! A source and a target database, and the built `cdc` between them.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use cdc::demo::{Binaries, Builder, Cluster, compare::compare};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, Config, NoTls};

/// How long a test waits for what should happen in a moment, on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The password in the daemon's connection strings; the servers that trust everybody don't ask for it.
/// It may appear in nothing that `cdc` says.
pub const PASSWORD: &str = "s3same-0pen";

/// What `cdc` has said, whatever was wrong, says what to do, is no panic, no bug, and no secret.
pub fn assert_well_said(text: &str) {
    for never in ["panicked", "bug in cdc", PASSWORD] {
        assert!(!text.contains(never), "it says {never:?}:\n{text}");
    }
    let lines: Vec<&str> = text.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        let needs_person = line.contains(" ERROR blocked: ") || line.contains(" ERROR refused to start: ");
        let is_advised = lines.get(i + 1).is_some_and(|next| next.starts_with("  what to do: "));
        assert!(!needs_person || is_advised, "it doesn't say what to do: {line}\n{text}");
    }
}

/// Two servers that all tests of one file share; each test has databases of its own on them.
struct Servers {
    source: Cluster,
    target: Cluster,
}

static SERVERS: OnceCell<Servers> = OnceCell::const_new();

/// How the source's server shall be: of the installation whose bin directory is `$CDC_SOURCE_PG_BIN`, if set.
pub fn source() -> Builder {
    builder("source", "CDC_SOURCE_PG_BIN")
}

/// How the target's server shall be: of the installation whose bin directory is `$CDC_TARGET_PG_BIN`, if set.
pub fn target() -> Builder {
    builder("target", "CDC_TARGET_PG_BIN")
}

fn builder(name: &str, variable: &str) -> Builder {
    let builder = Cluster::builder(name);
    match std::env::var_os(variable) {
        Some(bin) => builder.binaries(Binaries::at(bin).expect("a PostgreSQL is there")),
        None => builder,
    }
}

async fn servers() -> &'static Servers {
    let start = |builder: Builder| async move {
        builder
            .setting("max_replication_slots", "100")
            .setting("max_wal_senders", "100")
            .setting("max_connections", "400")
            .setting("max_prepared_transactions", "10")
            .start()
            .await
            .expect("a server starts")
    };
    SERVERS
        .get_or_init(|| async { Servers { source: start(source()).await, target: start(target()).await } })
        .await
}

/// The major version of the source that this file's tests share.
pub async fn source_major() -> u32 {
    servers().await.source.binaries().major()
}

/// A source and a target database of one test, and how `cdc` reaches them.
pub struct Pair {
    /// The name of both databases and of the migration.
    pub name: String,
    /// Where the test writes.
    pub source: Client,
    /// Where the test looks.
    pub target: Client,
    /// How the test reaches the databases.
    pub source_url: String,
    pub target_url: String,
    /// How the daemon reaches them; a test can put a proxy there.
    pub daemon_source_url: String,
    pub daemon_target_url: String,
    /// What follows in the configuration file.
    pub config: String,
    /// More variables for `cdc`.
    pub environment: Vec<(String, String)>,
    directory: TempDir,
}

/// True if `$CDC_TEST_ROLE` is `owner`: no superuser works on the databases then, but on each side a role
/// that owns the database and can do nothing more, for the test (through `SET ROLE`) and for the daemon.
pub fn as_owner() -> bool {
    std::env::var("CDC_TEST_ROLE").is_ok_and(|role| role == "owner")
}

/// True if the tests run as a superuser. A test that needs one ends otherwise, and says so.
pub fn as_superuser() -> bool {
    if as_owner() {
        eprintln!("not tested: an ordinary owner can't do this");
    }
    !as_owner()
}

/// Runs a statement that only a superuser may.
pub async fn as_admin(client: &Client, sql: &str) {
    for sql in ["SET ROLE NONE", sql, "RESET ROLE"] {
        client.batch_execute(sql).await.expect("it is taken");
    }
}

/// Makes the role that owns the test's database on this server, if there is to be one, and gives how the test
/// and the daemon reach it.
async fn reached(cluster: &Cluster, name: &str, is_owner: bool, attributes: &str) -> (String, String) {
    let url = cluster.url(name);
    if !is_owner {
        return (url.clone(), url);
    }
    let sql = format!(
        "CREATE ROLE {name}_owner LOGIN {attributes}; ALTER DATABASE {name} OWNER TO {name}_owner;
         ALTER SCHEMA public OWNER TO {name}_owner"
    );
    connect(&url).await.batch_execute(&sql).await.expect("the role is made");
    (format!("{url}?options=-c%20role%3D{name}_owner"), cluster.url_as(&format!("{name}_owner"), name))
}

/// Connects as a test does.
pub async fn connect(url: &str) -> Client {
    let mut config: Config = url.parse().expect("it is a URL");
    // A database's own deadlines are for the daemon.
    let options = config.get_options().unwrap_or_default();
    config.options(format!("{options} -c statement_timeout=0 -c idle_session_timeout=0"));
    let (client, connection) = config.connect(NoTls).await.expect("the server answers");
    tokio::spawn(async move {
        // The end of a connection is the test's own doing.
        let _ = connection.await;
    });
    client
}

/// The one number that a query gives.
pub async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.expect("it answers").get(0)
}

/// True on a server of this major version or a newer one. A test that ends otherwise says so.
pub async fn is_since(major: i64, client: &Client) -> bool {
    let version = number(client, "SELECT current_setting('server_version_num')::bigint / 10000").await;
    if version < major {
        eprintln!("not tested: PostgreSQL {version} has nothing of this, {major} has");
    }
    version >= major
}

/// Every constraint and index of the tables in `public`, as the server tells them, with their marks.
pub async fn constraints(client: &Client) -> Vec<String> {
    let sql = "
        SELECT format('%s %s %s valid=%s', conrelid::regclass, conname, pg_get_constraintdef(c.oid), convalidated)
          FROM pg_constraint AS c WHERE connamespace = 'public'::regnamespace
         UNION ALL
        SELECT format('%s valid=%s identity=%s clustered=%s', pg_get_indexdef(indexrelid), indisvalid,
                      indisreplident, indisclustered)
          FROM pg_index JOIN pg_class AS c ON c.oid = indrelid WHERE relnamespace = 'public'::regnamespace
         ORDER BY 1";
    let rows = client.query(sql, &[]).await.expect("it answers");
    rows.iter().map(|row| row.get(0)).collect()
}

impl Pair {
    /// Fresh databases on the servers that this file's tests share.
    pub async fn new(name: &str) -> Self {
        let servers = servers().await;
        Self::on(&servers.source, &servers.target, name).await
    }

    /// The same as an ordinary owner, `{name}_owner`, on both sides.
    pub async fn of_owner(name: &str) -> Self {
        let servers = servers().await;
        Self::on_with(&servers.source, &servers.target, name, ["", ""], true).await
    }

    /// Fresh databases on the shared servers, with these options of `CREATE DATABASE`.
    pub async fn with_options(name: &str, source: &str, target: &str) -> Self {
        let servers = servers().await;
        Self::on_with(&servers.source, &servers.target, name, [source, target], as_owner()).await
    }

    /// Fresh databases on these servers.
    pub async fn on(source: &Cluster, target: &Cluster, name: &str) -> Self {
        Self::on_with(source, target, name, ["", ""], as_owner()).await
    }

    async fn on_with(
        source: &Cluster,
        target: &Cluster,
        name: &str,
        options: [&str; 2],
        is_owner: bool,
    ) -> Self {
        for (cluster, options) in [source, target].into_iter().zip(options) {
            let admin = connect(&cluster.url("postgres")).await;
            let sql = format!("CREATE DATABASE {name} {options}");
            admin.batch_execute(&sql).await.expect("a database is made");
        }
        let (source_url, daemon_source_url) = reached(source, name, is_owner, "REPLICATION").await;
        let (target_url, daemon_target_url) = reached(target, name, is_owner, "").await;
        Self {
            name: name.to_owned(),
            source: connect(&source_url).await,
            target: connect(&target_url).await,
            daemon_source_url,
            daemon_target_url,
            source_url,
            target_url,
            config: String::new(),
            environment: Vec::new(),
            directory: tempfile::tempdir().expect("a directory is made"),
        }
    }

    /// Runs the same SQL on both sides.
    pub async fn both(&self, sql: &str) {
        self.target.batch_execute(sql).await.expect("the target takes it");
        self.source.batch_execute(sql).await.expect("the source takes it");
    }

    /// Runs SQL on the source.
    pub async fn write(&self, sql: &str) {
        self.source.batch_execute(sql).await.expect("the source takes it");
    }

    /// `cdc` with this pair's configuration.
    pub fn command(&self) -> Command {
        let file = self.directory.path().join("cdc.toml");
        // Most tests write the same rows on both sides before they begin.
        let tables = "[tables]\nexisting_rows = \"replace\"\n";
        let config = match self.config.contains("[tables]") || self.config.contains("existing_rows") {
            true if self.config.contains("existing_rows") => self.config.clone(),
            true => self.config.replace("[tables]\n", tables),
            false => format!("{}\n{tables}", self.config),
        };
        let secret = |url: &str| match url.strip_prefix("postgres://").and_then(|rest| rest.split_once('@')) {
            Some((role, rest)) if role == "postgres" || role.ends_with("_owner") => {
                format!("postgres://{role}:{PASSWORD}@{rest}")
            }
            _ => url.to_owned(),
        };
        // Most tests make the schema of both sides themselves.
        let schema = if self.config.contains("[schema]") { "" } else { "[schema]\ncopy = false\n" };
        // One port for all of them would be one daemon's.
        let http = if self.config.contains("[http]") { "" } else { "[http]\nlisten = \"off\"\n" };
        let text = format!(
            "name = {:?}\nsource = {:?}\ntarget = {:?}\n{config}\n{schema}{http}",
            self.name,
            secret(&self.daemon_source_url),
            secret(&self.daemon_target_url)
        );
        // Not under the eyes of a daemon that is starting.
        if std::fs::read_to_string(&file).ok().as_ref() != Some(&text) {
            std::fs::write(&file, text).expect("the configuration is written");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdc"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("CDC_LOG", "debug,tokio_postgres=info")
            // As the unit has it.
            .env("MALLOC_MMAP_THRESHOLD_", "1048576")
            .envs(self.environment.iter().cloned())
            .arg("--config")
            .arg(file);
        command
    }

    /// Runs `cdc` with these arguments to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command().args(arguments).output().expect("cdc runs");
        assert_well_said(&String::from_utf8_lossy(&output.stdout));
        assert_well_said(&String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Starts the daemon.
    pub fn daemon(&self) -> Daemon {
        self.daemon_with(&[])
    }

    /// Starts the daemon with these arguments.
    pub fn daemon_with(&self, arguments: &[&str]) -> Daemon {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let log = self.directory.path().join(format!("daemon-{number}.log"));
        let child = self
            .command()
            .arg("run")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("the log is made"))
            .spawn()
            .expect("the daemon starts");
        Daemon { child: Some(child), log }
    }

    /// Starts the daemon and waits until it streams, with every row copied.
    pub async fn streaming(&self) -> Daemon {
        let daemon = self.daemon();
        daemon.wait_for_log("streaming").await;
        self.copied().await;
        daemon
    }

    /// Waits until every row is copied, and what was held back is put back.
    pub async fn copied(&self) {
        let target = connect(&self.target_url).await;
        let sql = "SELECT phase = 'stream' AND consistent_since IS NOT NULL,
                          (SELECT count(*) FROM cdc.chunk c WHERE c.name = m.name AND state = 'done')
                     FROM cdc.migration m WHERE name = $1";
        // A slow machine may take its time, as long as it gets on.
        let (mut chunks, mut deadline) = (0, Instant::now() + PATIENCE);
        loop {
            let row = target.query_opt(sql, &[&self.name]).await.expect("the target answers");
            if row.as_ref().is_some_and(|row| row.get(0)) {
                return;
            }
            let done: i64 = row.map_or(0, |row| row.get(1));
            if done > chunks {
                (chunks, deadline) = (done, Instant::now() + PATIENCE);
            }
            assert!(Instant::now() < deadline, "the target never was copied\n{:#}", self.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the target answers `true`, on a connection of its own: a test may have restarted the
    /// servers under the others.
    pub async fn target_is(
        &self,
        what: &str,
        sql: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) {
        let target = connect(&self.target_url).await;
        let deadline = Instant::now() + PATIENCE;
        while !target.query_one(sql, parameters).await.expect("the target answers").get::<_, bool>(0) {
            assert!(Instant::now() < deadline, "the target never was {what}\n{:#}", self.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `cdc status --json`.
    pub fn status(&self) -> Value {
        let output = self.run(&["status", "--json", "--incidents"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!(
                "cdc status: {e}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// `cdc status` with these arguments: its exit status and its text.
    pub fn status_text(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(&[&["status"], arguments].concat());
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("it is text");
        (output.status.code().expect("it ends"), text)
    }

    /// The daemon ends with this exit status, having said all of this. Gives its log.
    pub async fn refuses(&self, status: i32, said: &[&str]) -> String {
        let (code, log) = self.daemon().outcome().await;
        assert_eq!(code, Some(status), "{log}");
        for text in said {
            assert!(log.contains(text), "it never said {text:?}:\n{log}");
        }
        log
    }

    /// Waits until the status ends with this.
    pub async fn exits_with(&self, status: i32) {
        let deadline = Instant::now() + PATIENCE;
        while self.status_text(&[]).0 != status {
            assert!(Instant::now() < deadline, "the status never ends with {status}: {:#}", self.status());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until `cdc status` is as wanted, and returns it.
    pub async fn status_is(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "the status never was: {what}\n{status:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until everything that the source has committed by now is on the target.
    pub async fn caught_up(&self) {
        let row =
            connect(&self.source_url).await.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await;
        let wanted: String = row.expect("the source answers").get(0);
        let target = connect(&self.target_url).await;
        let sql = "SELECT lsn::text, lsn >= $1::text::pg_lsn FROM cdc.checkpoint WHERE name = $2";
        // A slow machine may take its time, as long as it gets on.
        let (mut checkpoint, mut deadline) = (None, Instant::now() + PATIENCE);
        loop {
            let row = target.query_opt(sql, &[&wanted, &self.name]).await.expect("the target answers");
            if row.as_ref().is_some_and(|row| row.get(1)) {
                break;
            }
            let now: Option<String> = row.map(|row| row.get(0));
            if now != checkpoint {
                (checkpoint, deadline) = (now, Instant::now() + PATIENCE);
            }
            assert!(Instant::now() < deadline, "it never caught up with {wanted}\n{:#}", self.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.copied().await;
    }

    /// Every row of every table is the same on both sides.
    pub async fn assert_equal(&self) {
        let comparison =
            compare(&self.source_url, &self.target_url).await.expect("both sides can be compared");
        assert!(comparison.is_equal(), "{comparison}");
    }

    /// Catches up, compares every row of every table, and stops the daemon.
    pub async fn ends_equal(&self, daemon: Daemon) {
        self.caught_up().await;
        self.assert_equal().await;
        assert!(daemon.terminate().await.success());
    }
}

/// A running `cdc run`; dropping it kills it.
pub struct Daemon {
    child: Option<Child>,
    log: PathBuf,
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log can be read")
    }

    /// Waits until the log has this text.
    pub async fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "the log never said {text:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// kill -9. Gives its log.
    pub fn kill(mut self) -> String {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is killed");
        child.wait().expect("it has ended");
        self.log()
    }

    /// SIGTERM, and its exit status.
    pub async fn terminate(self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Waits for it to end by itself; gives its exit status and its log.
    pub async fn outcome(mut self) -> (Option<i32>, String) {
        let status = self.wait().await;
        (status.code(), self.log())
    }

    /// Waits for it to end by itself.
    pub async fn ended(mut self) -> ExitStatus {
        self.wait().await
    }

    async fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon doesn't end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its directory may be gone already.
        let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            if std::thread::panicking() {
                eprintln!("--- the daemon's log\n{}", log());
            }
        }
        if !std::thread::panicking() {
            assert_well_said(&log());
        }
    }
}
