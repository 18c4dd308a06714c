//! Finding the `pg_dump` that can read the source.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fault::{Fault, Result};

/// Names the one to use.
const VARIABLE: &str = "CDC_PG_DUMP";

/// Where packages put each major version: Debian's and the PGDG's for Debian, the PGDG's for Red Hat, Homebrew's
/// on either processor.
const PACKAGED: &[(&str, &str)] = &[
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
];

/// The programs that the copy of the schema runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    pg_dump: PathBuf,
    major: u32,
}

impl Programs {
    /// The path of `pg_dump`.
    #[must_use]
    pub fn pg_dump(&self) -> &Path {
        &self.pg_dump
    }

    /// Its major version, such as 17.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }
}

/// The newest `pg_dump` of this machine that can read a server of this major version: it refuses those that are
/// newer than itself. `$CDC_PG_DUMP` names another one.
///
/// # Errors
/// A fault that names what was found and the package to install.
pub fn programs(source_major: u32) -> Result<Programs> {
    let found: Vec<Programs> = match env::var_os(VARIABLE) {
        Some(program) => vec![named(program.into())?],
        None => candidates().into_iter().filter_map(|program| look(&program).ok()).collect(),
    };
    fitting(found, source_major)
}

fn named(program: PathBuf) -> Result<Programs> {
    look(&program).map_err(|why| {
        Fault::person(format!("there is no pg_dump in {}, which {VARIABLE} names: {why}", program.display()))
            .remedy(format!("name the program itself in {VARIABLE}, or leave it out"))
    })
}

fn fitting(mut found: Vec<Programs>, source_major: u32) -> Result<Programs> {
    found.sort_by_key(|programs| programs.major);
    match found.pop() {
        Some(newest) if newest.major >= source_major => Ok(newest),
        newest => {
            let found = newest.map_or_else(
                || "there is none on this machine".to_owned(),
                |newest| format!("{} is of version {}", newest.pg_dump.display(), newest.major),
            );
            Err(Fault::person(format!(
                "the schema is copied with pg_dump of version {source_major} or newer, as the source's server is, and {found}"
            ))
            .remedy(format!(
                "apt-get install postgresql-client-{source_major} (from https://apt.postgresql.org where the \
                 distribution has only older ones), or name a pg_dump in {VARIABLE}; or make the schema by hand, with \
                 copy = false in [schema]"
            )))
        }
    }
}

/// Every place where there may be one. Of those of the same version the last is taken: a package's own rather than
/// what the PATH has, which can be a wrapper.
fn candidates() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = env::split_paths(&path).collect();
    for (directory, prefix) in PACKAGED {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let is_version = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix));
            version.is_some_and(|version| version.parse::<u32>().is_ok())
        };
        candidates.extend(entries.filter(is_version).map(|entry| entry.path().join("bin")));
    }
    candidates.into_iter().map(|bin| bin.join("pg_dump")).filter(|program| program.is_file()).collect()
}

/// What is there, or why it can't be used.
fn look(program: &Path) -> Result<Programs, String> {
    let output = Command::new(program).arg("--version").output().map_err(|e| e.to_string())?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = major_of(&version).ok_or_else(|| format!("its version is {version:?}"))?;
    Ok(Programs { pg_dump: program.to_owned(), major })
}

/// The major version in `pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`, or `19devel`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.strip_prefix("pg_dump (PostgreSQL) ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(major: u32) -> Programs {
        Programs { pg_dump: PathBuf::from(format!("/{major}/pg_dump")), major }
    }

    #[test]
    fn the_newest_that_can_read_the_source_is_taken() {
        assert_eq!(fitting(vec![of(15), of(18), of(16)], 16).unwrap(), of(18));
        assert_eq!(fitting(vec![of(15)], 15).unwrap(), of(15));
        assert_eq!(major_of("pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"), Some(15));
        assert_eq!(major_of("pg_dump (PostgreSQL) 19devel"), Some(19));
        assert_eq!(major_of("pg_restore (PostgreSQL) 15.1"), None);
    }

    #[test]
    fn one_that_is_missing_or_too_old_is_named_with_the_package() {
        let missing = fitting(Vec::new(), 17).unwrap_err().to_string();
        assert!(
            missing.contains("none on this machine") && missing.contains("postgresql-client-17"),
            "{missing}"
        );
        let old = fitting(vec![of(14), of(15)], 17).unwrap_err().to_string();
        assert!(old.contains("/15/pg_dump is of version 15"), "{old}");
        let wrong = named("/nonexistent".into()).unwrap_err().to_string();
        assert!(wrong.contains("/nonexistent") && wrong.contains(VARIABLE), "{wrong}");
    }
}
