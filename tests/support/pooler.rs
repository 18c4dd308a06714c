//! A real PgBouncer in front of a server.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio_postgres::NoTls;

/// A running PgBouncer; dropping it ends it.
pub struct Pooler {
    port: u16,
    process: Child,
    directory: TempDir,
}

impl Pooler {
    /// Starts one before the server on this port, with this `pool_mode`, and waits until it lets
    /// somebody in.
    pub async fn start(server_port: u16, pool_mode: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\nadmin_users = postgres\nunix_socket_dir =\npool_mode = {pool_mode}\n"
        );
        std::fs::write(&config, text).unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("pgbouncer");
        command.env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null());
        // It refuses to run as root.
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.args(["-u", "nobody"]);
        }
        let process = command.arg(&config).spawn().unwrap();
        let pooler = Self { port, process, directory };
        while tokio_postgres::connect(&pooler.url("postgres"), NoTls).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        pooler
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A command for a shell that has it go to the server on another port, as soon as it is resumed.
    pub fn switch_to(&self, variable: &str) -> String {
        let config = self.directory.path().join("pgbouncer.ini").display().to_string();
        let console = self.url("pgbouncer");
        // In place: another file would be root's, which it may not read.
        format!(
            "sed \"s/ port=[0-9]*/ port={variable}/\" {config} > {config}.new && cat {config}.new > {config} && \
             psql -q \"{console}\" -c RELOAD"
        )
    }

    /// The URL of a database through it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
