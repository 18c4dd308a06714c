//! The password file, lines of `host:port:database:user:password`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::SecretString;

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

    /// The password of the first line that matches ("The Password File").
    pub(super) fn find(&self, key: &Key<'_>) -> Option<SecretString> {
        use secrecy::ExposeSecret;
        self.0.expose_secret().lines().find_map(|line| password(line, key)).map(SecretString::from)
    }
}

fn password(line: &str, key: &Key<'_>) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let port = key.port.to_string();
    let mut rest = line;
    for token in [key.host, &port, key.dbname, key.user] {
        rest = match rest.strip_prefix("*:") {
            Some(after) => after,
            None => {
                let (field, after) = field(rest);
                after.filter(|_| field == token)?
            }
        };
    }
    Some(field(rest).0)
}

/// Takes a field off the line, without its backslashes, and what follows its colon, if it has one.
fn field(line: &str) -> (String, Option<&str>) {
    let mut field = String::new();
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ':' => return (field, Some(&line[at + 1..])),
            // A lone backslash at the end stands for itself.
            '\\' => field.push(chars.next().map_or(c, |(_, escaped)| escaped)),
            _ => field.push(c),
        }
    }
    (field, None)
}
