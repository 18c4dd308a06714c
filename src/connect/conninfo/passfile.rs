//! The password file, lines of `host:port:database:user:password`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

/// A password file's text. It holds passwords: no `Debug`.
pub(super) struct Passfile(SecretString);

/// What a line must match for its password to count.
pub(super) struct Key<'a> {
    /// The host, or its address when it has no name; `localhost` for the default socket directory.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) dbname: &'a str,
    pub(super) user: &'a str,
}

impl Passfile {
    /// Reads a password file. Like libpq, a file that isn't there is no password at all, and one that
    /// others can read, or that isn't a plain file, is ignored with a warning.
    pub(super) fn read(file: &Path) -> Option<Self> {
        let metadata = fs::metadata(file).ok()?;
        let name = file.display();
        if !metadata.is_file() {
            tracing::warn!("password file {name} is not a plain file: ignored");
            return None;
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            tracing::warn!(
                "password file {name} has group or world access; permissions should be u=rw (0600) or less: ignored"
            );
            return None;
        }
        match fs::read_to_string(file) {
            Ok(text) => Some(Self(text.into())),
            Err(error) => {
                tracing::warn!("cannot read the password file {name}: {error}");
                None
            }
        }
    }

    /// The password of the first line that matches ("The Password File"); an empty one is none.
    pub(super) fn find(&self, key: &Key<'_>) -> Option<SecretString> {
        let password = self.0.expose_secret().split('\n').find_map(|line| password(line, key))?;
        (!password.is_empty()).then(|| password.into())
    }
}

fn password(line: &str, key: &Key<'_>) -> Option<String> {
    let line = line.trim_end_matches('\r');
    if line.starts_with('#') {
        return None;
    }
    let port = key.port.to_string();
    let mut rest = line;
    for token in [key.host, &port, key.dbname, key.user] {
        rest = rest.strip_prefix("*:").or_else(|| after(token, rest))?;
    }
    Some(last_field(rest))
}

/// What follows the first field and its colon, if the field is `token`. As libpq reads it, a colon
/// within the token needs no backslash in the field.
fn after<'a>(token: &str, line: &'a str) -> Option<&'a str> {
    let mut rest = line;
    for c in token.chars() {
        rest = rest.strip_prefix('\\').unwrap_or(rest).strip_prefix(c)?;
    }
    rest.strip_prefix(':')
}

/// The password: up to a colon, without the backslashes.
fn last_field(text: &str) -> String {
    let mut field = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next().filter(|c| *c != ':') {
        match c {
            // A lone backslash at the end stands for itself.
            '\\' => field.push(chars.next().unwrap_or(c)),
            _ => field.push(c),
        }
    }
    field
}
