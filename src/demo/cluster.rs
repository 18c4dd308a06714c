//! One throw-away server: started, asked, stopped, crashed, and gone without a trace when dropped.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::account::{Account, cannot};
use super::{Binaries, random, template};
use crate::fault::{Fault, Result};

/// Keeps the server from outliving us; see its own comments.
const SUPERVISE: &str = include_str!("supervise.sh");

/// How long a start (with its recovery) or a stop may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a server that starts or stops is asked whether it is there, or gone.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// How many ports are tried before giving up.
const PORT_ATTEMPTS: u32 = 20;

/// What every server is started with: all that logical replication needs, durable (crashes are
/// part of the tests), and small.
const SETTINGS: [(&str, &str); 5] = [
    ("wal_level", "logical"),
    ("listen_addresses", "127.0.0.1,::1"),
    ("shared_buffers", "32MB"),
    ("unix_socket_permissions", "0700"),
    ("log_line_prefix", "%m [%p] "),
];

/// Who may log in, if the builder doesn't say otherwise.
const HBA: [&str; 4] = [
    "host all all 127.0.0.1/32 trust",
    "host all all ::1/128 trust",
    "host replication all 127.0.0.1/32 trust",
    "host replication all ::1/128 trust",
];

/// How a server is stopped (`pg_ctl(1)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Waits until the clients have left.
    Smart,
    /// Ends the clients' sessions, and writes a shutdown checkpoint.
    Fast,
    /// Ends everything without a checkpoint; the next start recovers from the WAL.
    Immediate,
}

impl Stop {
    /// The signal for it ("Shutting Down the Server" in PostgreSQL's documentation).
    fn signal(self) -> &'static str {
        match self {
            Self::Smart => "TERM",
            Self::Fast => "INT",
            Self::Immediate => "QUIT",
        }
    }
}

/// How a server shall be; [`Builder::start`] starts it.
#[derive(Clone, Debug)]
pub struct Builder {
    name: String,
    binaries: Option<Binaries>,
    initdb_args: Vec<String>,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    tls: Option<(String, String)>,
    from_template: bool,
}

impl Builder {
    /// Sets a configuration parameter; `ALTER SYSTEM` can still change it.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Uses this installation rather than the one that [`Binaries::find`] finds.
    #[must_use]
    pub fn binaries(mut self, binaries: Binaries) -> Self {
        self.binaries = Some(binaries);
        self
    }

    /// Replaces the lines of `pg_hba.conf` for TCP (trust on loopback). The superuser can always
    /// log in through the Unix socket.
    #[must_use]
    pub fn hba<L: Into<String>>(mut self, lines: impl IntoIterator<Item = L>) -> Self {
        self.hba = lines.into_iter().map(Into::into).collect();
        self
    }

    /// Turns TLS on, with a certificate (or chain) and its key, both as PEM text.
    #[must_use]
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some((certificate.into(), key.into()));
        self
    }

    /// Runs `initdb` for this server alone: slower, but no template stays behind in the temporary directory.
    #[must_use]
    pub fn without_template(mut self) -> Self {
        self.from_template = false;
        self
    }

    /// Adds an argument for `initdb`, `--locale=de_DE.utf8` for example.
    #[must_use]
    pub fn initdb_arg(mut self, arg: impl Into<String>) -> Self {
        self.initdb_args.push(arg.into());
        self
    }

    /// The encoding of the databases, if not UTF8.
    #[must_use]
    pub fn encoding(self, encoding: &str) -> Self {
        self.initdb_arg(format!("--encoding={encoding}"))
    }

    /// Starts the server, and returns when it answers.
    ///
    /// # Errors
    /// A fault that holds the server's log when it doesn't come up; a fault that names the package
    /// when PostgreSQL isn't installed.
    pub async fn start(self) -> Result<Cluster> {
        let binaries = match &self.binaries {
            Some(binaries) => binaries.clone(),
            None => Binaries::find()?,
        };
        let home = tempfile::Builder::new()
            .prefix(&format!("cdc-{}-", self.name))
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|e| cannot("create a directory in", &std::env::temp_dir(), &e))?;
        let account = Account::for_owner_of(home.path())?;
        account.own(home.path())?;
        let mut cluster = Cluster { home, binaries, account, port: 0, supervisor: None };
        let data = cluster.data_dir();
        if self.from_template {
            template::instantiate(&cluster.binaries, &self.initdb_args, account, &data).await?;
        } else {
            template::initialize(&cluster.binaries, &self.initdb_args, account, &data).await?;
        }
        self.configure(&cluster)?;
        cluster.first_start().await?;
        Ok(cluster)
    }

    /// Writes the configuration files.
    fn configure(&self, cluster: &Cluster) -> Result<()> {
        let data = cluster.data_dir();
        let mut text = String::new();
        let mut set = |name: &str, value: &str| {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
        };
        set("unix_socket_directories", &cluster.socket_dir().to_string_lossy());
        SETTINGS.iter().for_each(|(name, value)| set(name, value));
        if let Some((certificate, key)) = &self.tls {
            for (file, pem) in [("server.crt", certificate), ("server.key", key)] {
                write_private(&data.join(file), pem, cluster.account)?;
            }
            set("ssl", "on");
        }
        self.settings.iter().for_each(|(name, value)| set(name, value));

        let path = data.join("postgresql.conf");
        let append = File::options().append(true).open(&path);
        append.and_then(|mut f| f.write_all(text.as_bytes())).map_err(|e| cannot("write", &path, &e))?;

        let mut hba = vec!["local all all trust", "local replication all trust"];
        hba.extend(self.hba.iter().map(String::as_str));
        let path = data.join("pg_hba.conf");
        fs::write(&path, hba.join("\n") + "\n").map_err(|e| cannot("write", &path, &e))
    }
}

/// A throw-away server. Dropping it ends every process of it and removes its files.
#[derive(Debug)]
pub struct Cluster {
    home: TempDir,
    binaries: Binaries,
    account: Account,
    port: u16,
    supervisor: Option<Child>,
}

impl Cluster {
    /// Starts a server with the defaults: `wal_level = logical`, durable, user `postgres` trusted
    /// on loopback. The name is part of its directory's name.
    ///
    /// # Errors
    /// See [`Builder::start`].
    pub async fn start(name: &str) -> Result<Self> {
        Self::builder(name).start().await
    }

    /// How a server shall be, beginning with the defaults.
    #[must_use]
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            binaries: None,
            initdb_args: Vec::new(),
            settings: Vec::new(),
            hba: HBA.map(str::to_owned).to_vec(),
            tls: None,
            from_template: true,
        }
    }

    /// The URL of a database over TCP, as the superuser.
    #[must_use]
    pub fn url(&self, dbname: &str) -> String {
        self.url_as("postgres", dbname)
    }

    /// The URL of a database over TCP, as this user.
    #[must_use]
    pub fn url_as(&self, user: &str, dbname: &str) -> String {
        format!("postgres://{}@127.0.0.1:{}/{}", percent_encoded(user), self.port, percent_encoded(dbname))
    }

    /// The TCP port; the same for the whole life of the cluster.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the Unix socket: the `host` to connect to without TCP.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The programs that it runs.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// What the server has written to its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// Stops the server, and returns when all of its processes are gone.
    ///
    /// # Errors
    /// A fault when it isn't running, or doesn't stop.
    pub async fn stop(&mut self, how: Stop) -> Result<()> {
        self.end(how.signal()).await
    }

    /// Kills the postmaster and all its children with SIGKILL, and returns when they are gone.
    ///
    /// # Errors
    /// A fault when it isn't running.
    pub async fn crash(&mut self) -> Result<()> {
        self.end("crash").await
    }

    /// Starts a stopped or crashed server again, on the same port and the same data.
    ///
    /// # Errors
    /// A fault that holds the server's log when it doesn't come up.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.supervisor.is_some() {
            return Err(Fault::bug("the demo server runs already"));
        }
        match self.launch().await? {
            Launch::Up => Ok(()),
            Launch::PortTaken => Err(self.did_not_come_up("its port was taken by another program")),
        }
    }

    /// Stops the server and starts it again.
    ///
    /// # Errors
    /// Those of [`Cluster::stop`] and [`Cluster::start_again`].
    pub async fn restart(&mut self, how: Stop) -> Result<()> {
        self.stop(how).await?;
        self.start_again().await
    }

    /// Chooses a port, and another one as long as somebody else was quicker.
    async fn first_start(&mut self) -> Result<()> {
        for _ in 0..PORT_ATTEMPTS {
            self.port = free_port()?;
            match self.launch().await? {
                Launch::Up => return Ok(()),
                Launch::PortTaken => {
                    if self.supervisor.is_some() {
                        self.crash().await?;
                    }
                    fs::remove_file(self.log_path()).map_err(|e| cannot("remove", &self.log_path(), &e))?;
                }
            }
        }
        Err(Fault::person(format!("no free TCP port was found in {PORT_ATTEMPTS} attempts")))
    }

    /// Starts the server's processes and waits until it answers.
    async fn launch(&mut self) -> Result<Launch> {
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.map_err(|e| cannot("write", &self.log_path(), &e))?;
        let written_before = self.log().len();
        let mut command = self.account.command("sh");
        command.args(["-c", SUPERVISE, "sh"]);
        command.args([self.home.path(), &self.data_dir(), &self.binaries.program("postgres")]);
        command.arg("-D").arg(self.data_dir()).args(["-p", &self.port.to_string()]);
        // A group of its own: Ctrl-C in a terminal is for us, and we decide what it means for the server.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|e| Fault::person(format!("can't run sh: {e}")))?;
        self.supervisor = Some(child);

        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.exit_status()?;
            let up = self.answers().await;
            if up || ended.is_some() {
                // One address of two is enough for the server, but not for us.
                let log = self.log();
                if log.get(written_before..).is_some_and(|new| new.contains("Address already in use")) {
                    return Ok(Launch::PortTaken);
                }
            }
            match (up, ended) {
                (_, Some(status)) => return Err(self.did_not_come_up(&format!("it ended ({status})"))),
                (true, None) => return Ok(Launch::Up),
                (false, None) if Instant::now() > deadline => {
                    return Err(self.did_not_come_up(&format!("no answer in {} s", PATIENCE.as_secs())));
                }
                (false, None) => tokio::time::sleep(ASK_EVERY).await,
            }
        }
    }

    /// True once the server lets the superuser in. (In another encoding's databases UTF-8 clients
    /// may be refused a query, so there is none; and a server that only starts says 57P03.)
    async fn answers(&self) -> bool {
        let mut config = Config::new();
        config.host_path(self.home.path()).port(self.port).user("postgres").dbname("postgres");
        match config.connect(NoTls).await {
            Ok(_) => true,
            // It is up, and full.
            Err(error) => error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS),
        }
    }

    fn did_not_come_up(&self, why: &str) -> Fault {
        Fault::person(format!("the demo server did not come up: {why}; its log:\n{}", self.log().trim_end()))
    }

    /// Orders the supervisor to end the server, and waits until it has.
    async fn end(&mut self, order: &str) -> Result<()> {
        let orders = self.supervisor.as_mut().and_then(|child| child.stdin.as_mut());
        let orders = orders.ok_or_else(|| Fault::bug("the demo server doesn't run"))?;
        // A supervisor that takes no orders has just ended with its server, which is what we want.
        let _ = writeln!(orders, "{order}");
        let deadline = Instant::now() + PATIENCE;
        while self.exit_status()?.is_none() {
            if Instant::now() > deadline {
                let why = format!("the demo server did not stop in {} s; its log:\n", PATIENCE.as_secs());
                return Err(Fault::person(why + &self.log()));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// The server's exit status, once, when it has ended with all its processes.
    fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.supervisor else { return Ok(None) };
        let status = child.try_wait().map_err(|e| Fault::person(format!("can't wait for a process: {e}")))?;
        if status.is_some() {
            self.supervisor = None;
        }
        Ok(status)
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            // The end of its input: the supervisor kills the server, and removes the directory.
            drop(child.stdin.take());
            // Without a supervisor there is nobody left to wait for.
            let _ = child.wait();
        }
    }
}

/// How a launch ended, if it wasn't a failure.
enum Launch {
    Up,
    PortTaken,
}

/// A port that nobody listens on now. It is not one of those that Linux gives to outgoing
/// connections (from 32768 on): one of them could take it while the server is being restarted, and
/// a client that reconnects could even be given the very port it connects to, and meet itself.
fn free_port() -> Result<u16> {
    let candidates = std::iter::repeat_with(|| 20_000 + u16::try_from(random() % 12_000).unwrap_or(0));
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.take(1_000).find(free).ok_or_else(|| Fault::person("no free TCP port was found"))
}

fn write_private(path: &Path, text: &str, account: Account) -> Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut f| f.write_all(text.as_bytes())).map_err(|e| cannot("write", path, &e))?;
    account.own(path)
}

/// Everything but the unreserved characters of RFC 3986 as `%XX`.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
