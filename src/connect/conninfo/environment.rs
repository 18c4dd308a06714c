//! The process's surroundings, as a value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::fault::{Fault, Result};

/// Where Debian's and the PGDG's packages put the server's socket (libpq's compiled-in default there).
const PACKAGED_SOCKET_DIRECTORY: &str = "/var/run/postgresql";
/// PostgreSQL's own default, for servers built from source.
const SOURCE_SOCKET_DIRECTORY: &str = "/tmp";
/// Where Debian's libpq looks for the system-wide `pg_service.conf`.
const SYSTEM_DIRECTORY: &str = "/etc/postgresql-common";

/// The surroundings that a connection string is completed from: environment variables, the home
/// directory, the name of the operating system's user, and where this system keeps PostgreSQL's files.
///
/// Files are always read from the disk; which ones is decided by what is in here, so that a test
/// that starts from [`Environment::empty`] sees no file that it didn't name.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    home: Option<PathBuf>,
    user: Option<String>,
    socket_directory: PathBuf,
    system_directory: Option<PathBuf>,
}

impl Environment {
    /// The surroundings of this process.
    #[must_use]
    pub fn from_process() -> Self {
        let packaged = PathBuf::from(PACKAGED_SOCKET_DIRECTORY);
        Self {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
            home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
            user: whoami::username().ok().filter(|user| !user.is_empty()),
            socket_directory: if packaged.is_dir() { packaged } else { SOURCE_SOCKET_DIRECTORY.into() },
            system_directory: Some(SYSTEM_DIRECTORY.into()),
        }
    }

    /// No variables, no home directory, no user name; sockets in `/tmp`.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            variables: BTreeMap::new(),
            home: None,
            user: None,
            socket_directory: SOURCE_SOCKET_DIRECTORY.into(),
            system_directory: None,
        }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn set(mut self, variable: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.variables.insert(variable.into(), value.into());
        self
    }

    /// Sets the home directory, where `.pgpass`, `.pg_service.conf` and `.postgresql` are looked for.
    #[must_use]
    pub fn home(mut self, directory: impl Into<PathBuf>) -> Self {
        self.home = Some(directory.into());
        self
    }

    /// Sets the name of the operating system's user, the default for `user`.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.user = Some(name.into());
        self
    }

    /// Sets the directory of the server's sockets, the default for `host`.
    #[must_use]
    pub fn socket_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.socket_directory = directory.into();
        self
    }

    /// The value of a variable; `None` when it isn't set.
    ///
    /// # Errors
    /// A usage fault when the value isn't UTF-8.
    pub fn variable(&self, name: &str) -> Result<Option<&str>> {
        match self.variables.get(name) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(value) => Ok(Some(value)),
                None => Err(Fault::usage(format!("the environment variable {name} is not valid UTF-8"))),
            },
        }
    }

    /// The path of a file in the home directory.
    pub(super) fn in_home(&self, file: impl AsRef<Path>) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(file))
    }

    /// Where the system-wide `pg_service.conf` is, unless `PGSYSCONFDIR` says otherwise.
    pub(super) fn system(&self) -> Option<&Path> {
        self.system_directory.as_deref()
    }

    /// The name of the operating system's user.
    pub(super) fn user_name(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The directory of the server's sockets.
    pub(super) fn sockets(&self) -> &Path {
        &self.socket_directory
    }
}
