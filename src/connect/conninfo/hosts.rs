//! The servers that a connection string names, in the order to try them.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::environment::Environment;
use super::passfile::{Key, Passfile};
use super::settings::Settings;
use crate::fault::Result;

/// PostgreSQL's port.
const DEFAULT_PORT: u16 = 5432;

/// One server to try.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where it is.
    pub name: HostName,
    /// Its TCP port, or the number in its socket's file name.
    pub port: u16,
    /// The password for it: the one of the connection string, or the one that the password file has
    /// for this host.
    pub password: Option<SecretString>,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostName {
    /// Reached over TCP. At least one of the two is there.
    Tcp {
        /// The name, or an address in text form (with a zone perhaps, `fe80::1%eth0`). It is what the
        /// server's certificate must carry, and what to look up when there is no `hostaddr`.
        host: Option<String>,
        /// The address to connect to without looking up the name.
        hostaddr: Option<IpAddr>,
    },
    /// Reached through the socket in this directory; one that begins with `@` is a name in the
    /// abstract namespace. TLS isn't used there.
    Unix(PathBuf),
}

impl Host {
    /// The path of the server's Unix-domain socket; `None` for TCP.
    ///
    /// A path in the abstract namespace begins with a zero byte, as tokio wants it.
    #[must_use]
    pub fn socket_path(&self) -> Option<PathBuf> {
        let HostName::Unix(directory) = &self.name else { return None };
        let file = directory.join(format!(".s.PGSQL.{}", self.port));
        Some(match file.to_str().and_then(|file| file.strip_prefix('@')) {
            Some(name) => PathBuf::from(format!("\0{name}")),
            None => file,
        })
    }
}

impl fmt::Display for Host {
    /// `host:port`, with an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            HostName::Unix(directory) => write!(f, "{}", directory.display())?,
            HostName::Tcp { host: Some(host), .. } if host.contains(':') => write!(f, "[{host}]")?,
            HostName::Tcp { host: Some(host), .. } => f.write_str(host)?,
            HostName::Tcp { hostaddr: Some(IpAddr::V6(address)), .. } => write!(f, "[{address}]")?,
            HostName::Tcp { hostaddr: Some(address), .. } => write!(f, "{address}")?,
            HostName::Tcp { host: None, hostaddr: None } => {}
        }
        write!(f, ":{}", self.port)
    }
}

/// Puts `host`, `hostaddr` and `port` together and finds each host's password.
///
/// # Errors
/// A usage fault when the lists don't fit together, or an address or a port is none.
pub(super) fn resolve(settings: &Settings, env: &Environment, user: &str, dbname: &str) -> Result<Vec<Host>> {
    let names = list(settings.filled("host"));
    let addresses = list(settings.filled("hostaddr"));
    let count = addresses.len().max(names.len()).max(1);
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(settings
            .wrong("hostaddr", &format!("has {} entries, but host has {}", addresses.len(), names.len())));
    }
    let ports = ports(settings, count)?;
    let passwords = Passwords::new(settings, env);
    let mut hosts = Vec::with_capacity(count);
    for (index, port) in ports.into_iter().enumerate() {
        let name = names.get(index).copied().unwrap_or_default();
        let address = addresses.get(index).copied().unwrap_or_default();
        let pass_host = passfile_host(name, address, env.sockets());
        let password = passwords.find(&Key { host: pass_host, port, dbname, user });
        hosts.push(Host { name: host_name(name, address, settings, env)?, port, password });
    }
    Ok(hosts)
}

/// A comma-separated list; nothing at all is an empty one.
fn list(value: Option<&str>) -> Vec<&str> {
    value.map(|value| value.split(',').collect()).unwrap_or_default()
}

fn host_name(name: &str, address: &str, settings: &Settings, env: &Environment) -> Result<HostName> {
    if !address.is_empty() {
        let hostaddr = address.parse().map_err(|_| {
            settings.wrong("hostaddr", "must be an IPv4 or IPv6 address").remedy(
                "write the number form of the address; a name, or an address with a zone, belongs into host",
            )
        })?;
        let host = (!name.is_empty()).then(|| name.to_owned());
        return Ok(HostName::Tcp { host, hostaddr: Some(hostaddr) });
    }
    Ok(match name {
        "" => HostName::Unix(env.sockets().to_owned()),
        path if path.starts_with(['/', '@']) => HostName::Unix(path.into()),
        host => HostName::Tcp { host: Some(host.to_owned()), hostaddr: None },
    })
}

/// One port for each host: a single one counts for all of them, an empty one is the default.
fn ports(settings: &Settings, hosts: usize) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    for port in settings.get("port").unwrap_or_default().split(',') {
        ports.push(match port.trim_ascii() {
            "" => DEFAULT_PORT,
            port => match port.parse() {
                Ok(0) | Err(_) => return Err(settings.wrong("port", "must be a number from 1 to 65535")),
                Ok(port) => port,
            },
        });
    }
    match ports.len() {
        1 => Ok(vec![ports[0]; hosts]),
        n if n == hosts => Ok(ports),
        n => Err(settings
            .wrong("port", &format!("has {n} entries for a list of {hosts} hosts"))
            .remedy("give one port for all hosts, or one for each")),
    }
}

/// What stands for a host in the password file.
fn passfile_host<'a>(name: &'a str, address: &'a str, sockets: &Path) -> &'a str {
    match (name, address) {
        ("", "") => "localhost",
        ("", address) => address,
        // Other socket directories stand for themselves.
        (name, _) if Path::new(name) == sockets => "localhost",
        (name, _) => name,
    }
}

/// Where passwords come from.
enum Passwords {
    Given(SecretString),
    File(Option<Passfile>),
}

impl Passwords {
    fn new(settings: &Settings, env: &Environment) -> Self {
        match settings.filled("password") {
            Some(password) => Self::Given(password.into()),
            None => {
                let file = settings.filled("passfile").map(PathBuf::from).or_else(|| env.in_home(".pgpass"));
                Self::File(file.and_then(|file| Passfile::read(&file)))
            }
        }
    }

    fn find(&self, key: &Key<'_>) -> Option<SecretString> {
        match self {
            Self::Given(password) => Some(password.clone()),
            Self::File(file) => file.as_ref()?.find(key),
        }
    }
}
