//! Which account servers run as: PostgreSQL refuses to run as root.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::fault::{Fault, Result};

/// The accounts that take root's place, the first that exists.
const STAND_INS: [&str; 2] = ["postgres", "nobody"];

/// The account that servers and their tools run as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// Its user id.
    pub(super) uid: u32,
    /// The group to change to; `None` when it is our own account.
    stand_in_gid: Option<u32>,
}

impl Account {
    /// Our own account, told by the owner of a directory that we have made, or root's stand-in.
    pub(super) fn for_owner_of(dir: &Path) -> Result<Self> {
        let uid = fs::metadata(dir).map_err(|e| cannot("read", dir, &e))?.uid();
        if uid != 0 {
            return Ok(Self { uid, stand_in_gid: None });
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        STAND_INS.iter().find_map(|name| look_up(&passwd, name)).ok_or_else(|| {
            Fault::person("a PostgreSQL server can't run as root, and there is no user to run it as")
                .remedy("create a user named postgres, or run this as an ordinary user")
        })
    }

    /// Gives the account a file or directory that we have made.
    pub(super) fn own(self, path: &Path) -> Result<()> {
        let Some(gid) = self.stand_in_gid else { return Ok(()) };
        chown(path, Some(self.uid), Some(gid)).map_err(|e| cannot("give away", path, &e))
    }

    /// A command that will run as this account, in the root directory and with messages in English.
    pub(super) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            // PGDATA, PGPORT and their like are meant for somebody else's server.
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        if let Some(gid) = self.stand_in_gid {
            command.gid(gid).uid(self.uid);
        }
        command
    }

    /// Runs a tool to its end; what it wrote to its standard error is in the fault if it fails.
    pub(super) async fn run<A: AsRef<OsStr>>(self, program: impl AsRef<OsStr>, args: &[A]) -> Result<()> {
        let program = program.as_ref();
        let name = program.to_string_lossy();
        let mut command = tokio::process::Command::from(self.command(program));
        let output = command
            .args(args)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| Fault::person(format!("can't run {name}: {e}")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Fault::person(format!("{name} failed ({}): {}", output.status, said.trim())))
    }
}

/// A fault about a path.
pub(super) fn cannot(doing: &str, path: &Path, error: &std::io::Error) -> Fault {
    Fault::person(format!("can't {doing} {}: {error}", path.display()))
}

/// Finds a user in the text of a passwd file (passwd(5)).
fn look_up(passwd: &str, user: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != user {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { uid, stand_in_gid: Some(gid) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\npostgres2:x:7:8::/:\npostgres:x:101:104:,,,:/:/bin/sh\n";
        let account = look_up(passwd, "postgres").unwrap();
        assert_eq!((account.uid, account.stand_in_gid), (101, Some(104)));
        assert!(look_up(passwd, "nobody").is_none());
    }
}
