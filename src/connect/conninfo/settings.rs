//! libpq's parameters, by name, and the values given for them so far.
//!
//! Text comes in from the connection string, then from the service file, then from the environment;
//! an earlier source wins, so filling up in that order is libpq's precedence. What a value means is
//! decided later, in one place, whatever its source was.
//!
//! No fault made here repeats a value, or a parameter name nobody knows: after a slip with a quote or
//! a space in a keyword string, such a name is a piece of the password.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use crate::fault::{Fault, Result};

/// Every parameter of libpq (PostgreSQL documentation, "Parameter Key Words") with the variable that
/// gives its default ("Environment Variables"); `None` where libpq has none.
///
/// `PGDATESTYLE`, `PGTZ` and `PGGEQO` are missing on purpose: they shape what a person sees in a
/// session, and our sessions set what they need.
const PARAMETERS: &[(&str, Option<&str>)] = &[
    ("application_name", Some("PGAPPNAME")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("client_encoding", Some("PGCLIENTENCODING")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("dbname", Some("PGDATABASE")),
    ("fallback_application_name", None),
    ("gssdelegation", Some("PGGSSDELEGATION")),
    ("gssencmode", Some("PGGSSENCMODE")),
    ("gsslib", Some("PGGSSLIB")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("keepalives", None),
    ("keepalives_count", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("krbsrvname", Some("PGKRBSRVNAME")),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
    ("max_protocol_version", Some("PGMAXPROTOCOLVERSION")),
    ("min_protocol_version", Some("PGMINPROTOCOLVERSION")),
    ("oauth_client_id", None),
    ("oauth_client_secret", None),
    ("oauth_issuer", None),
    ("oauth_scope", None),
    ("options", Some("PGOPTIONS")),
    ("passfile", Some("PGPASSFILE")),
    ("password", Some("PGPASSWORD")),
    ("port", Some("PGPORT")),
    ("replication", None),
    ("require_auth", Some("PGREQUIREAUTH")),
    ("requirepeer", Some("PGREQUIREPEER")),
    ("scram_client_key", None),
    ("scram_server_key", None),
    ("service", Some("PGSERVICE")),
    ("servicefile", Some("PGSERVICEFILE")),
    ("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION")),
    ("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslcertmode", Some("PGSSLCERTMODE")),
    ("sslcompression", Some("PGSSLCOMPRESSION")),
    ("sslcrl", Some("PGSSLCRL")),
    ("sslcrldir", Some("PGSSLCRLDIR")),
    ("sslkey", Some("PGSSLKEY")),
    ("sslkeylogfile", None),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslpassword", None),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslsni", Some("PGSSLSNI")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("tcp_user_timeout", None),
    ("user", Some("PGUSER")),
];

/// The parameters whose values nobody else may see.
const SECRETS: &[&str] =
    &["password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"];

/// Where a value came from, for messages.
#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Text,
    Service(PathBuf),
    Variable(&'static str),
}

struct Setting {
    value: String,
    origin: Origin,
}

/// The values given so far. It holds passwords: no `Debug`.
#[derive(Default)]
pub(super) struct Settings(BTreeMap<&'static str, Setting>);

impl Settings {
    /// Takes a parameter from the connection string; the last one of a name counts. `place` says
    /// where it stands, for the message when nobody knows it.
    pub(super) fn take(&mut self, name: &str, value: String, place: &str) -> Result<()> {
        // The spelling before PostgreSQL 7.4, which libpq still translates.
        let (name, value) = match (name, value.starts_with('1')) {
            ("requiressl", true) => ("sslmode", "require".to_owned()),
            ("requiressl", false) => ("sslmode", "prefer".to_owned()),
            _ => (name, value),
        };
        let name = known(name).ok_or_else(|| unknown(name, place))?;
        self.put(name, value, Origin::Text)
    }

    /// Takes a parameter from a service file, unless it has a value already.
    pub(super) fn take_from_service(
        &mut self,
        name: &str,
        value: &str,
        file: &Path,
        place: &str,
    ) -> Result<()> {
        let name = known(name).ok_or_else(|| unknown(name, place))?;
        if self.0.contains_key(name) {
            return Ok(());
        }
        self.put(name, value.to_owned(), Origin::Service(file.to_owned()))
    }

    /// Fills up with the `PG*` variables.
    pub(super) fn take_from_environment(&mut self, env: &Environment) -> Result<()> {
        for &(name, variable) in PARAMETERS {
            let Some(variable) = variable.filter(|_| !self.0.contains_key(name)) else { continue };
            if let Some(value) = env.variable(variable)? {
                self.put(name, value.to_owned(), Origin::Variable(variable))?;
            }
        }
        // Deprecated, and weaker than PGSSLMODE since PostgreSQL 9.3.
        if !self.0.contains_key("sslmode")
            && env.variable("PGREQUIRESSL")?.is_some_and(|value| value.starts_with('1'))
        {
            self.put("sslmode", "require".to_owned(), Origin::Variable("PGREQUIRESSL"))?;
        }
        Ok(())
    }

    fn put(&mut self, name: &'static str, value: String, origin: Origin) -> Result<()> {
        let zero = value.contains('\0');
        self.0.insert(name, Setting { value, origin });
        // It would end the value early in the startup packet, and what follows would be read as another one.
        if zero { Err(self.wrong(name, "contains a zero byte")) } else { Ok(()) }
    }

    /// The value, which can be empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(known(name).is_some(), "{name} is not a parameter");
        self.0.get(name).map(|setting| setting.value.as_str())
    }

    /// The value, where libpq takes an empty one for none.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// One of a few words; an empty or unknown one is wrong, as in libpq.
    pub(super) fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == value) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(self.wrong(name, &format!("must be one of {}", words.join(", "))))
            }
        }
    }

    /// A whole number; like libpq's, with spaces around it if need be.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i32>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.trim_matches(is_space).parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self.wrong(name, "must be a whole number")),
        }
    }

    /// A usage fault about a parameter's value, which it doesn't repeat.
    pub(super) fn wrong(&self, name: &str, why: &str) -> Fault {
        let from = match self.0.get(name).map(|setting| &setting.origin) {
            None | Some(Origin::Text) => String::new(),
            Some(Origin::Service(file)) => format!(" (from the service file {})", file.display()),
            Some(Origin::Variable(variable)) => format!(" (from the environment variable {variable})"),
        };
        Fault::usage(format!("connection parameter {name}{from} {why}"))
    }

    /// True when a secret is among the values.
    pub(super) fn has_secret(&self) -> bool {
        SECRETS.iter().any(|name| self.filled(name).is_some())
    }
}

/// C's `isspace` in the C locale; Rust's own idea leaves the vertical tab out.
pub(super) fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0B'
}

fn known(name: &str) -> Option<&'static str> {
    PARAMETERS.iter().map(|(known, _)| *known).find(|known| *known == name)
}

/// The fault for a parameter that libpq doesn't know; it shows the name it could have been.
fn unknown(name: &str, place: &str) -> Fault {
    let fault = Fault::usage(format!("unknown connection parameter {place}"));
    let lower = name.to_ascii_lowercase();
    let nearest = PARAMETERS
        .iter()
        // Names of other lengths can't be so near, and the name can be of any length.
        .filter(|(known, _)| known.len().abs_diff(lower.len()) <= 2)
        .map(|(known, _)| (strsim::damerau_levenshtein(&lower, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= 2 && *distance < known.len() / 2);
    match nearest {
        Some((_, known)) => fault.remedy(format!("write {known}, if that is what was meant")),
        None => fault.remedy(
            "use libpq's parameter names; a value with spaces is written in single quotes, \
             and in a URI with %20",
        ),
    }
}
