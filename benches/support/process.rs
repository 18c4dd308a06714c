//! Processes: what they use, and `cdc` itself.

use std::process::{Child, Command, Stdio};

use cdc::demo::Cluster;
use tokio_postgres::Client;

use super::until;

/// `cdc`, as the migration of this name between these databases.
pub fn cdc(name: &str, source_url: &str, target_url: &str) -> Command {
    cdc_with(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/cdc.toml").as_ref(), name, source_url, target_url)
}

/// The same with another configuration.
pub fn cdc_with(config: &std::path::Path, name: &str, source_url: &str, target_url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cdc"));
    command.arg("--config").arg(config).args(["--name", name]).envs([
        ("CDC_SOURCE_URL", source_url),
        ("CDC_TARGET_URL", target_url),
        ("CDC_LOG", "error"),
    ]);
    command
}

/// A running daemon; dropping it kills it.
pub struct Daemon(pub Child);

impl Daemon {
    pub fn start(name: &str, source_url: &str, target_url: &str) -> Self {
        let mut command = cdc(name, source_url, target_url);
        Self(command.arg("run").stdin(Stdio::null()).spawn().unwrap())
    }

    pub fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    /// Asks it to end, and waits for that.
    pub fn stop(mut self) {
        assert!(Command::new("kill").arg(self.pid().to_string()).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a daemon has copied everything to this target, and put back what it had held back.
pub async fn copied(target: &Client) {
    until(target, "to_regclass('cdc.held_back') IS NOT NULL").await;
    until(target, "(SELECT consistent_since IS NOT NULL FROM cdc.migration)").await;
}

/// The seconds of CPU that a process has used; none if it isn't there.
pub fn cpu_seconds(pid: i32) -> f64 {
    let [itself, _] = own_and_children(&pid.to_string());
    itself
}

/// The seconds of CPU of all processes that we have started and waited for, with those that they had.
pub fn cpu_seconds_of_ended() -> f64 {
    let [_, children] = own_and_children("self");
    children
}

/// The seconds of CPU of a server with all its backends, those that are gone included.
pub fn cpu_seconds_of_server(server: &Cluster) -> f64 {
    let pid_file = std::fs::read_to_string(server.data_dir().join("postmaster.pid")).unwrap();
    let postmaster = pid_file.lines().next().unwrap();
    let living = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
    let living = living.split_whitespace().map(|pid| cpu_seconds(pid.parse().unwrap()));
    own_and_children(postmaster).iter().sum::<f64>() + living.sum::<f64>()
}

/// The seconds of CPU of a process, and those of its children that it has waited for.
fn own_and_children(pid: &str) -> [f64; 2] {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times =
        after_name.split_whitespace().skip(11).map(|ticks| ticks.parse().unwrap_or(0.0) / TICKS_A_SECOND);
    let mut times = times.take(4);
    [(); 2].map(|()| times.by_ref().take(2).sum())
}

/// The most memory that a process has had, in MiB; `None` if it has ended.
pub fn peak_mib(pid: i32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().unwrap() / 1024.0)
}
