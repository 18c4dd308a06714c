//! Where to connect, as whom, and how securely: libpq's connection strings, unchanged.
//!
//! ```text
//!   connection string (URI or keyword/value)
//!     > service file > PG* variables > defaults     an earlier source wins
//!                     |
//!                  Settings                         every parameter as text
//!                     |
//!     hosts + password file, TLS, the rest          values checked and understood
//!                     |
//!                  ConnInfo
//! ```
//!
//! The facts are those of the PostgreSQL documentation's chapter "libpq - C Library" ("Connection
//! Strings", "Parameter Key Words", "Environment Variables", "The Password File", "The Connection
//! Service File"). What we can't do is refused if it would make the connection less secure than asked
//! for, and makes no difference otherwise.

mod environment;
mod hosts;
mod keyword;
mod passfile;
mod service;
mod settings;
mod ssl;
#[cfg(test)]
mod tests;
mod uri;

use std::fmt;
use std::time::Duration;

pub use environment::Environment;
pub use hosts::{Host, HostName};
pub use ssl::{RootCert, Ssl, SslMode, SslNegotiation, TlsVersion, Verification};

use crate::fault::{Fault, Result};
use settings::Settings;

/// A connection string with everything that its surroundings add to it.
///
/// `Display` and `Debug` show `user@host:port/dbname` and never a password.
#[derive(Clone)]
pub struct ConnInfo {
    hosts: Vec<Host>,
    user: String,
    dbname: String,
    application_name: Option<String>,
    options: Option<String>,
    ssl: Ssl,
    channel_binding: ChannelBinding,
    connect_timeout: Option<Duration>,
    keepalives: Keepalives,
    target_session_attrs: TargetSessionAttrs,
    load_balance_hosts: bool,
}

/// Whether SCRAM authentication is bound to the TLS channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server offers it over TLS.
    Prefer,
    /// Always: every other authentication, and a connection without TLS, is refused.
    Require,
}

/// What the server must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSessionAttrs {
    /// Anything.
    Any,
    /// Sessions can write.
    ReadWrite,
    /// Sessions can't write.
    ReadOnly,
    /// Not in hot standby mode.
    Primary,
    /// In hot standby mode.
    Standby,
    /// A standby if there is one among the hosts, anything otherwise.
    PreferStandby,
}

/// How a dead peer is noticed on a TCP connection. `None` leaves it to the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether to send TCP keepalives.
    pub enabled: bool,
    /// How long the connection is idle before the first one.
    pub idle: Option<Duration>,
    /// How long to wait for an answer before the next one.
    pub interval: Option<Duration>,
    /// How many can be lost before the connection is.
    pub count: Option<u32>,
    /// How long sent data can stay unacknowledged before the connection is lost; keepalives or not.
    pub tcp_user_timeout: Option<Duration>,
}

impl ConnInfo {
    /// Reads a connection string (a URI or keyword/value pairs; an empty one is all defaults) and
    /// completes it from a service file, the `PG*` variables, libpq's defaults and the password file.
    ///
    /// # Errors
    /// A usage fault that says which parameter is wrong and why. It never shows the connection string
    /// or a part of it that could be a password.
    pub fn parse(text: &str, env: &Environment) -> Result<Self> {
        let mut settings = read(text)?;
        service::resolve(&mut settings, env)?;
        settings.take_from_environment(env)?;
        Self::resolve(&settings, env)
    }

    /// Whether there is a password in the connection string itself, or another secret. Text that can't
    /// be understood counts as one with a password if there could be one in it.
    #[must_use]
    pub fn has_password(text: &str) -> bool {
        let suspicious = || {
            let lower = text.to_lowercase();
            ["pass", "pwd", "secret", "@"].iter().any(|word| lower.contains(word))
        };
        read(text).map_or_else(|_| suspicious(), |settings| settings.has_secret())
    }

    /// The servers to try, in order; there is at least one.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The role to log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database; named like the user by default.
    #[must_use]
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// `application_name`, or else `fallback_application_name`.
    #[must_use]
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// The server's command-line options for the session.
    #[must_use]
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// The TLS settings.
    #[must_use]
    pub fn ssl(&self) -> &Ssl {
        &self.ssl
    }

    /// Whether SCRAM authentication is bound to the TLS channel.
    #[must_use]
    pub fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    /// How long to try each host or address; `None` is without end.
    #[must_use]
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// How a dead peer is noticed.
    #[must_use]
    pub fn keepalives(&self) -> &Keepalives {
        &self.keepalives
    }

    /// What the server must be like.
    #[must_use]
    pub fn target_session_attrs(&self) -> TargetSessionAttrs {
        self.target_session_attrs
    }

    /// Whether to try the hosts, and the addresses of each, in random order.
    #[must_use]
    pub fn load_balance_hosts(&self) -> bool {
        self.load_balance_hosts
    }

    fn resolve(settings: &Settings, env: &Environment) -> Result<Self> {
        let user = match settings.get("user") {
            Some("") => return Err(settings.wrong("user", "is empty")),
            Some(user) => user.to_owned(),
            None => env.user_name().map(str::to_owned).ok_or_else(|| {
                Fault::usage("no user to connect as: the operating system's user has no name")
                    .remedy("give the user in the connection string or in PGUSER")
            })?,
        };
        let dbname = settings.filled("dbname").unwrap_or(&user).to_owned();
        let hosts = hosts::resolve(settings, env, &user, &dbname)?;
        let tcp = hosts.iter().any(|host| matches!(host.name, HostName::Tcp { .. }));
        refuse_the_unsupported(settings, hosts.iter().any(|host| matches!(host.name, HostName::Unix(_))))?;
        let application_name =
            settings.filled("application_name").or_else(|| settings.filled("fallback_application_name"));
        Ok(Self {
            application_name: application_name.map(str::to_owned),
            options: settings.filled("options").map(str::to_owned),
            ssl: ssl::resolve(settings, env, tcp)?,
            channel_binding: channel_binding(settings)?,
            connect_timeout: settings.integer("connect_timeout")?.and_then(positive).map(seconds),
            keepalives: keepalives(settings)?,
            target_session_attrs: target_session_attrs(settings)?,
            load_balance_hosts: settings
                .choice("load_balance_hosts", &[("disable", false), ("random", true)])?
                .unwrap_or(false),
            hosts,
            user,
            dbname,
        })
    }
}

impl fmt::Display for ConnInfo {
    /// `user@host:port/dbname`, several hosts separated by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        write!(f, "{}@{}/{}", self.user, hosts.join(","), self.dbname)
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnInfo({self})")
    }
}

/// Reads the connection string alone.
fn read(text: &str) -> Result<Settings> {
    let mut settings = Settings::default();
    // A space at the end of a keyword string can be an escaped one; in a URI none means anything.
    if let Some(uri) = uri::after_scheme(text.trim_matches(settings::is_space)) {
        uri::parse(uri, &mut settings)?;
    } else if text.find("://").is_some_and(|scheme| !text[..scheme].contains('=')) {
        return Err(Fault::usage("a connection URI must start with postgres:// or postgresql://"));
    } else {
        keyword::parse(text, &mut settings)?;
    }
    Ok(settings)
}

fn channel_binding(settings: &Settings) -> Result<ChannelBinding> {
    let words = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    Ok(settings.choice("channel_binding", &words)?.unwrap_or(ChannelBinding::Prefer))
}

fn target_session_attrs(settings: &Settings) -> Result<TargetSessionAttrs> {
    let words = [
        ("any", TargetSessionAttrs::Any),
        ("read-write", TargetSessionAttrs::ReadWrite),
        ("read-only", TargetSessionAttrs::ReadOnly),
        ("primary", TargetSessionAttrs::Primary),
        ("standby", TargetSessionAttrs::Standby),
        ("prefer-standby", TargetSessionAttrs::PreferStandby),
    ];
    Ok(settings.choice("target_session_attrs", &words)?.unwrap_or(TargetSessionAttrs::Any))
}

fn keepalives(settings: &Settings) -> Result<Keepalives> {
    let number = |name| Ok::<_, Fault>(settings.integer(name)?.and_then(positive));
    Ok(Keepalives {
        enabled: settings.integer("keepalives")? != Some(0),
        idle: number("keepalives_idle")?.map(seconds),
        interval: number("keepalives_interval")?.map(seconds),
        count: number("keepalives_count")?,
        tcp_user_timeout: number("tcp_user_timeout")?.map(|n| Duration::from_millis(n.into())),
    })
}

/// libpq takes 0 and less for "not given".
fn positive(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

/// Refuses what libpq can do and we can't, where silence would change what the user gets.
///
/// The other parameters of libpq that nobody asks for here make no difference to us: `client_encoding`
/// (always UTF8), `sslcompression` (libpq's TLS has none either), and `krbsrvname`, `gsslib` and
/// `gssdelegation` (GSSAPI authentication is refused when the server asks for it).
fn refuse_the_unsupported(settings: &Settings, unix: bool) -> Result<()> {
    let modes = [("disable", false), ("prefer", false), ("require", true)];
    if settings.choice("gssencmode", &modes)? == Some(true) {
        return Err(settings
            .wrong("gssencmode", "asks for GSSAPI encryption, which is not supported")
            .remedy("encrypt with TLS: gssencmode=disable and sslmode=verify-full"));
    }
    if settings.filled("require_auth").is_some() {
        return Err(settings
            .wrong("require_auth", "cannot be enforced")
            .remedy("leave it out; channel_binding=require makes sure that SCRAM over TLS is used"));
    }
    if unix && settings.filled("requirepeer").is_some() {
        return Err(settings
            .wrong("requirepeer", "cannot be enforced on a Unix-domain socket")
            .remedy("leave it out, or connect over TCP with sslmode=verify-full"));
    }
    let off = ["off", "false", "no", "0"];
    if settings.filled("replication").is_some_and(|value| !off.contains(&value)) {
        return Err(settings
            .wrong("replication", "is not the user's to set")
            .remedy("leave it out: replication connections are opened as needed"));
    }
    let versions = [("3.0", false), ("3.2", true), ("latest", true)];
    if settings.filled("min_protocol_version").is_some()
        && settings.choice("min_protocol_version", &versions)? == Some(true)
    {
        return Err(settings
            .wrong("min_protocol_version", "asks for a newer protocol than 3.0")
            .remedy("leave it out: every server speaks 3.0"));
    }
    if settings.filled("max_protocol_version").is_some() {
        settings.choice("max_protocol_version", &versions)?;
    }
    let others = [
        ("scram_client_key", "give the password instead"),
        ("scram_server_key", "give the password instead"),
        ("oauth_issuer", "use a password or a client certificate"),
        ("oauth_client_id", "use a password or a client certificate"),
        ("oauth_client_secret", "use a password or a client certificate"),
        ("oauth_scope", "use a password or a client certificate"),
        ("sslkeylogfile", "leave it out"),
    ];
    match others.iter().find(|(name, _)| settings.filled(name).is_some()) {
        Some((name, remedy)) => Err(settings.wrong(name, "is not supported").remedy(*remedy)),
        None => Ok(()),
    }
}
