//! The way to an authenticated connection: hosts, their addresses, with and without TLS, in libpq's
//! order (PostgreSQL documentation, chapters "Specifying Multiple Hosts" and "SSL Support").
//!
//! The next address or host is tried when one can't be reached, is starting up, or isn't what
//! `target_session_attrs` asks for. Everything else (a refused password, a wrong certificate) ends
//! the search, as with libpq: it would hide a mistake.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;

use postgres_protocol::message::{backend, frontend};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::advice::{self, Place};
use super::conninfo::{ConnInfo, Host, HostName, SslMode, TargetSessionAttrs};
use super::login::{Credentials, Greeting, Refusal, login};
use super::transport::{Address, TlsFailure, Transport};
use super::wire::Wire;
use crate::fault::{Fault, Result, Side};
use crate::limits;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// SQL.
    Sql,
    /// Replication commands, with a database so that SQL is understood too.
    Replication,
}

/// A connection that is logged in.
pub(crate) type Open = (Wire<Transport>, Greeting);

/// Connects to the first suitable server and logs in.
///
/// # Errors
///
/// Says what to do: see [`advice`].
pub(crate) async fn open(
    info: &ConnInfo,
    side: Side,
    application_name: &str,
    purpose: Purpose,
) -> Result<Open> {
    let mut failures = Vec::new();
    let search = Search { info, side, application_name, purpose };
    let rounds: &[TargetSessionAttrs] = match info.target_session_attrs() {
        TargetSessionAttrs::PreferStandby => &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any],
        TargetSessionAttrs::Any => &[TargetSessionAttrs::Any],
        TargetSessionAttrs::ReadWrite | TargetSessionAttrs::Primary => &[TargetSessionAttrs::Primary],
        TargetSessionAttrs::ReadOnly | TargetSessionAttrs::Standby => &[TargetSessionAttrs::Standby],
    };
    for wanted in rounds {
        failures.clear();
        if let Some(open) = search.round(*wanted, &mut failures).await? {
            return Ok(open);
        }
    }
    Err(advice::all_failed(side, failures))
}

struct Search<'a> {
    info: &'a ConnInfo,
    side: Side,
    application_name: &'a str,
    purpose: Purpose,
}

/// Why a connection didn't come about, and whether it is worth to try again with TLS, or without.
struct Failure {
    fault: Fault,
    other_encryption: bool,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { fault, other_encryption: false }
    }
}

impl Search<'_> {
    /// Tries every host once. `None`, and why, when none of them can be had.
    async fn round(&self, wanted: TargetSessionAttrs, failures: &mut Vec<Fault>) -> Result<Option<Open>> {
        let mut hosts: Vec<&Host> = self.info.hosts().iter().collect();
        self.balance(&mut hosts);
        for host in hosts {
            let mut addresses = match self.addresses(host).await {
                Ok(addresses) => addresses,
                Err(fault) => {
                    failures.push(fault);
                    continue;
                }
            };
            self.balance(&mut addresses);
            for address in addresses {
                let place = Place { side: self.side, host, address: &address };
                match self.bounded(place, self.attempt(place, wanted)).await {
                    Ok(open) => return Ok(Some(open)),
                    Err(fault) if fault.is_unreachable() => failures.push(fault),
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(None)
    }

    fn balance<T>(&self, list: &mut [T]) {
        if self.info.load_balance_hosts() {
            list.sort_by_cached_key(|_| RandomState::new().hash_one(()));
        }
    }

    async fn bounded<T>(&self, place: Place<'_>, work: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.info.connect_timeout().unwrap_or(limits::CONNECT_TIMEOUT);
        timeout(limit, work).await.unwrap_or_else(|_| Err(advice::timed_out(place, limit)))
    }

    async fn addresses(&self, host: &Host) -> Result<Vec<Address>> {
        let name = match (&host.name, host.socket_path()) {
            (_, Some(path)) => return Ok(vec![Address::Unix(path)]),
            (HostName::Tcp { hostaddr: Some(address), .. }, None) => {
                return Ok(vec![Address::Tcp(SocketAddr::new(*address, host.port))]);
            }
            (HostName::Tcp { host: Some(name), hostaddr: None }, None) => name,
            (HostName::Tcp { host: None, hostaddr: None } | HostName::Unix(_), None) => {
                return Err(Fault::bug("a host without a name").on(self.side));
            }
        };
        let limit = self.info.connect_timeout().unwrap_or(limits::CONNECT_TIMEOUT);
        let found = match timeout(limit, lookup_host((name.as_str(), host.port))).await {
            Ok(found) => found.map(|addresses| addresses.map(Address::Tcp).collect::<Vec<_>>()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match found {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) => Err(advice::no_address(self.side, host, "it has no address")),
            Err(error) => Err(advice::no_address(self.side, host, &error.to_string())),
        }
    }

    /// One address, with TLS or without it, or both in turn (`sslmode` allow and prefer).
    async fn attempt(&self, place: Place<'_>, wanted: TargetSessionAttrs) -> Result<Open> {
        let mode = match place.address {
            Address::Unix(_) => SslMode::Disable,
            Address::Tcp(_) => self.info.ssl().mode,
        };
        let first = self.connect(place, mode > SslMode::Allow).await;
        let open = match (mode, first) {
            (_, Ok(open)) => open,
            (SslMode::Allow, Err(failure)) if failure.other_encryption => {
                tracing::debug!(side = %self.side, "trying again with TLS: {}", failure.fault.what());
                self.connect(place, true).await.map_err(|failure| failure.fault)?
            }
            (SslMode::Prefer, Err(failure)) if failure.other_encryption => {
                tracing::debug!(side = %self.side, "trying again without TLS: {}", failure.fault.what());
                self.connect(place, false).await.map_err(|_| failure.fault)?
            }
            (_, Err(failure)) => return Err(failure.fault),
        };
        self.check_role(place.host, open, wanted).await
    }

    async fn connect(&self, place: Place<'_>, encrypted: bool) -> Result<Open, Failure> {
        let mut transport = Transport::open(place.address, self.info.keepalives())
            .await
            .map_err(|e| advice::network(place, &e))?;
        let ssl = self.info.ssl();
        if encrypted {
            transport = match transport.encrypt(&place.host.name, ssl).await {
                Ok(transport) => transport,
                // sslmode allow and prefer: good enough.
                Err((TlsFailure::NotOffered, Some(plain))) if ssl.mode < SslMode::Require => plain,
                Err((failure, _)) => {
                    // libpq gives up TLS for any handshake that fails, but not for our own files.
                    let other_encryption = !matches!(failure, TlsFailure::Files(_) | TlsFailure::NotPostgres);
                    let fault = advice::tls(place, ssl, &failure);
                    return Err(Failure { fault, other_encryption });
                }
            };
        }
        self.log_in(place, transport).await
    }

    async fn log_in(&self, place: Place<'_>, transport: Transport) -> Result<Open, Failure> {
        let info = self.info;
        let encrypted = transport.is_encrypted();
        let end_point = transport.channel_binding().map(<[u8]>::to_vec);
        let credentials = Credentials {
            user: info.user(),
            password: place.host.password.as_ref(),
            binding: info.channel_binding(),
            end_point: end_point.as_deref(),
            cleartext: encrypted || transport.is_local() || info.ssl().mode == SslMode::Disable,
        };
        let mut parameters = vec![
            ("user", info.user()),
            ("database", info.dbname()),
            ("application_name", self.application_name),
            ("client_encoding", "UTF8"),
        ];
        parameters.extend(info.options().map(|options| ("options", options)));
        if self.purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        let mut wire = Wire::new(transport);
        match login(&mut wire, self.side, &parameters, &credentials).await {
            Ok(greeting) => Ok((wire, greeting)),
            Err(refusal) => Err(Failure {
                // pg_hba.conf can ask for TLS, or for none. Once something made from the password was
                // sent, we aren't sent elsewhere with it.
                other_encryption: matches!(&refusal, Refusal::Server { report, credentials_sent: false }
                    if report.code.code().starts_with("28")),
                fault: advice::login(place, info, encrypted, self.purpose, refusal),
            }),
        }
    }

    /// Keeps the connection if the server is what `target_session_attrs` asks for.
    ///
    /// Our sessions switch `default_transaction_read_only` off, so "read-write" is the same as "primary".
    async fn check_role(&self, host: &Host, open: Open, wanted: TargetSessionAttrs) -> Result<Open> {
        let (mut wire, greeting) = open;
        if wanted == TargetSessionAttrs::Any {
            return Ok((wire, greeting));
        }
        // Reported by servers from 14 on.
        let standby = match greeting.parameters.get("in_hot_standby") {
            Some(value) => value == "on",
            None => ask_whether_standby(&mut wire)
                .await
                .map_err(|e| advice::lost(self.side, "asking whether the server is a standby", &e))?,
        };
        if standby == (wanted == TargetSessionAttrs::Standby) {
            return Ok((wire, greeting));
        }
        Err(advice::wrong_role(self.side, host, standby))
    }
}

/// `pg_is_in_recovery()`, by the simple query protocol.
async fn ask_whether_standby(wire: &mut Wire<Transport>) -> io::Result<bool> {
    frontend::query("SELECT pg_catalog.pg_is_in_recovery()", wire.outbox())?;
    wire.flush().await?;
    let mut standby = false;
    loop {
        let message = wire.read(limits::LOGIN_MESSAGE_BYTES).await?;
        match message.tag {
            backend::DATA_ROW_TAG => standby = message.body.ends_with(b"t"),
            backend::READY_FOR_QUERY_TAG => return Ok(standby),
            backend::ERROR_RESPONSE_TAG => return Err(io::Error::other("the server refuses to tell")),
            _ => {}
        }
    }
}
