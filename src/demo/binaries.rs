//! Finding a PostgreSQL installation.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fault::{Fault, Result};

/// Where Debian and its relatives install each major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The programs of one PostgreSQL installation: a directory with `postgres` and `initdb`.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
    version: String,
    major: u32,
}

impl Binaries {
    /// The installation named by `$CDC_PG_BIN` (its bin directory), else the newest one in Debian's
    /// place, else the one on the `PATH`.
    ///
    /// # Errors
    /// A fault that names the package to install when there is none.
    pub fn find() -> Result<Self> {
        if let Some(dir) = env::var_os("CDC_PG_BIN") {
            return Self::at(dir);
        }
        match newest_in(Path::new(DEBIAN)).or_else(on_path) {
            Some(dir) => Self::at(dir),
            None => Err(Fault::person("no PostgreSQL server is installed here").remedy(
                "install it (Debian and Ubuntu: apt-get install postgresql), or name its bin directory in $CDC_PG_BIN",
            )),
        }
    }

    /// The installation with this bin directory.
    ///
    /// # Errors
    /// A fault when there is no server in it that runs.
    pub fn at(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        // Servers run as another account than root, which may not enter where a link to them is.
        let dir = dir.canonicalize().unwrap_or(dir);
        let broken = |why: String| {
            Fault::person(format!("no PostgreSQL server in {}: {why}", dir.display()))
                .remedy("name the directory that holds `postgres` and `initdb`")
        };
        if !has_server(&dir) {
            return Err(broken("`postgres` or `initdb` is missing".into()));
        }
        let output = Command::new(dir.join("postgres"))
            .arg("--version")
            .output()
            .map_err(|e| broken(e.to_string()))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let major = major_of(&version).ok_or_else(|| broken(format!("its version is {version:?}")))?;
        Ok(Self { dir, version, major })
    }

    /// The major version, such as 15.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// What the server says its version is.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// The path of one of the programs, `pg_dump` for example.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The bin directory of the highest version below `dir` that has a server, not only a client.
fn newest_in(dir: &Path) -> Option<PathBuf> {
    fs::read_dir(dir)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| has_server(bin))
        .max()
        .map(|(_, bin)| bin)
}

/// The bin directory that `pg_config` names, else the one on the `PATH` that holds `initdb`.
fn on_path() -> Option<PathBuf> {
    let told = Command::new("pg_config").arg("--bindir").output().ok();
    let told = told.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    told.into_iter().chain(env::split_paths(&env::var_os("PATH")?)).find(|dir| has_server(dir))
}

fn has_server(dir: &Path) -> bool {
    dir.join("postgres").is_file() && dir.join("initdb").is_file()
}

/// The major version in `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`, or `19devel`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_server_says() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(major_of("postgres (PostgreSQL) 19devel"), Some(19));
        assert_eq!(major_of("mysqld 8"), None);
    }

    #[test]
    fn the_newest_version_with_a_server_is_taken() {
        let root = tempfile::tempdir().unwrap();
        for (version, files) in [("9", 2), ("15", 2), ("17", 1), ("old", 2)] {
            let bin = root.path().join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            for name in ["initdb", "postgres"].iter().take(files) {
                fs::write(bin.join(name), "").unwrap();
            }
        }
        assert_eq!(newest_in(root.path()), Some(root.path().join("15/bin")));
    }

    #[test]
    fn a_directory_without_a_server_is_refused_with_advice() {
        let fault = Binaries::at("/nonexistent").unwrap_err();
        assert!(fault.what().contains("/nonexistent"), "{fault}");
        assert!(fault.advice().is_some());
    }
}
