//! What to do when a connection fails: every fault of the way to a server is made here.
//!
//! Unreachable (it is tried again, for ever): what the network, name resolution, or a server that
//! is starting or stopping does. A person is needed for certificates, passwords, roles, databases,
//! privileges, and for a pooler in the place of the server.

use std::fmt;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};
use tokio_postgres::error::SqlState;

use super::conninfo::{ConnInfo, Host, HostName, RootCert, Ssl, SslNegotiation};
use super::login::Refusal;
use super::open::Purpose;
use super::report::Report;
use super::tls::Distrust;
use super::transport::{Address, TlsFailure};
use crate::fault::{Fault, Reaction, Side};

const USE_THE_DIRECT_CONNECTION: &str = "this is a connection pooler, which can't replicate: use the direct \
     connection to the server (Supabase: host db.<project>.supabase.co, port 5432, user postgres)";

const SUPABASE_IPV6: &str = "Supabase's direct host has an IPv6 address only: give this machine IPv6, or buy \
     the project's IPv4 add-on (the pooler's host can't replicate)";

/// Where a connection was tried.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Which of the two databases.
    pub(super) side: Side,
    /// What the connection string says.
    pub(super) host: &'a Host,
    /// What was connected to.
    pub(super) address: &'a Address,
}

impl fmt::Display for Place<'_> {
    /// `host:port`, with the address where it says more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)?;
        match (self.address, &self.host.name) {
            (Address::Tcp(address), HostName::Tcp { host: Some(name), .. })
                if *name != address.ip().to_string() =>
            {
                write!(f, " ({})", address.ip())
            }
            _ => Ok(()),
        }
    }
}

impl Place<'_> {
    fn person(self, what: String) -> Fault {
        Fault::person(what).on(self.side)
    }

    fn unreachable(self, what: String) -> Fault {
        Fault::unreachable(self.side, what)
    }
}

/// A name that leads to no address.
pub(super) fn no_address(side: Side, host: &Host, why: &str) -> Fault {
    let fault = Fault::unreachable(side, format!("can't find the address of {host}: {why}"));
    if is_direct_supabase(host) {
        return fault.remedy(format!("check the host name and this machine's DNS. {SUPABASE_IPV6}"));
    }
    fault.remedy("check the host name in the connection string, and this machine's DNS")
}

/// A connection that couldn't be made.
pub(super) fn network(place: Place<'_>, error: &io::Error) -> Fault {
    let fault = place.unreachable(format!("can't connect to {place}: {error}"));
    let ipv6 = matches!(place.address, Address::Tcp(address) if address.is_ipv6());
    match error.kind() {
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::AddrNotAvailable
            if ipv6 =>
        {
            if is_direct_supabase(place.host) {
                fault.remedy(SUPABASE_IPV6)
            } else {
                fault.remedy("this machine has no way to IPv6 addresses: give it one, or use an IPv4 address")
            }
        }
        io::ErrorKind::ConnectionRefused => fault.remedy(
            "nothing listens there: check host and port, that the server runs, and its listen_addresses",
        ),
        io::ErrorKind::NotFound => {
            fault.remedy("the socket doesn't exist: check that the server runs, and its port")
        }
        io::ErrorKind::PermissionDenied => fault.remedy("this user may not open the server's socket"),
        _ => fault
            .remedy("check the network between here and there, and the firewall or allow list of the server"),
    }
}

/// No answer in time.
pub(super) fn timed_out(place: Place<'_>, limit: Duration) -> Fault {
    let limit = humantime::format_duration(limit);
    place.unreachable(format!("no answer from {place} within {limit}")).remedy(
        "check the firewall or allow list of the server; connect_timeout allows more time for a slow network",
    )
}

/// TLS that didn't come about.
pub(super) fn tls(place: Place<'_>, ssl: &Ssl, failure: &TlsFailure) -> Fault {
    let person = |what: String| place.person(what);
    match failure {
        TlsFailure::NotOffered => person(format!("{place} has no TLS")).remedy(
            "switch it on at the server (ssl = on); only in a network that nobody else can read, use sslmode=disable",
        ),
        TlsFailure::Overloaded => {
            place.unreachable(format!("{place} can't take connections now"))
                .remedy("its log says why: too many processes, or too little memory")
        }
        TlsFailure::NotPostgres => person(format!("what answers at {place} is not a PostgreSQL server"))
            .remedy("check host and port (an HTTP API has another address than its database)"),
        TlsFailure::NoAlpn => person(format!("{place} takes TLS, but not PostgreSQL's protocol directly in it"))
            .remedy("use sslnegotiation=postgres: direct negotiation needs PostgreSQL 17"),
        TlsFailure::ImpossibleName(name) => {
            person(format!("the host name {name:?} can't be in a certificate"))
                .remedy("use the server's DNS name as host, and hostaddr for its address")
        }
        TlsFailure::Files(error) => person(format!("can't prepare TLS: {error}"))
            .remedy("check sslrootcert, sslcert, sslkey and sslcrl"),
        TlsFailure::Handshake(error) => handshake(place, ssl, error),
    }
}

fn handshake(place: Place<'_>, ssl: &Ssl, error: &io::Error) -> Fault {
    let person = |what: String| place.person(what);
    let Some(cause) = tls_error(error) else {
        let fault =
            place.unreachable(format!("{place} closed the connection during the TLS handshake: {error}"));
        return match ssl.negotiation {
            SslNegotiation::Direct => {
                fault.remedy("direct negotiation needs PostgreSQL 17: use sslnegotiation=postgres")
            }
            SslNegotiation::Postgres => fault.remedy("check what is between here and the server"),
        };
    };
    match cause {
        rustls::Error::InvalidCertificate(problem) => certificate(place, ssl, problem),
        rustls::Error::AlertReceived(alert) => client_certificate(place, *alert),
        rustls::Error::PeerIncompatible(_) => person(format!("{place} and we have no version of TLS in common: {cause}"))
            .remedy("TLS 1.2 or 1.3 is needed: update the server or its ssl_ciphers, and check ssl_min_protocol_version"),
        _ => person(format!("the TLS handshake with {place} failed: {cause}"))
            .remedy("check that host and port are the PostgreSQL server's own, with nothing in between"),
    }
}

fn certificate(place: Place<'_>, ssl: &Ssl, problem: &CertificateError) -> Fault {
    let refused = |why: &str| place.person(format!("the certificate of {place} is refused: {why}"));
    let roots = match &ssl.root_cert {
        Some(RootCert::File(path)) => path.display().to_string(),
        Some(RootCert::System) | None => "the system's list".to_owned(),
    };
    match problem {
        CertificateError::UnknownIssuer => refused(&format!("no authority in {roots} has signed it")).remedy(
            "download the provider's root certificate (for a server of your own: the authority's, or the \
             server's own self-signed certificate) and name it with sslrootcert",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            refused("it has expired").remedy("renew it at the server; check this machine's clock")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            refused("it isn't valid yet").remedy("check the clocks of this machine and of the server")
        }
        CertificateError::Revoked => refused("it was revoked").remedy("the server needs a new certificate"),
        CertificateError::Other(other) => match other.0.downcast_ref::<Distrust>() {
            Some(distrust @ Distrust::WrongName(_)) => refused(&distrust.to_string()).remedy(
                "use one of these names as host (and hostaddr for the address, if the name doesn't lead \
                 there), or sslmode=verify-ca if the authority signs for this server only",
            ),
            Some(distrust @ Distrust::Version1) => refused(&distrust.to_string()).remedy(
                "make a version 3 certificate (openssl x509 -req -extfile FILE, with subjectAltName=DNS:<host> in \
                 FILE); until then name the server's certificate itself with sslrootcert, or use sslmode=require \
                 without a root certificate",
            ),
            None => refused(&problem.to_string()).remedy("the server needs another certificate"),
        },
        // Many more of them, each with a text of its own.
        _ => refused(&problem.to_string()).remedy("the server needs another certificate, or sslrootcert another root"),
    }
}

fn client_certificate(place: Place<'_>, alert: AlertDescription) -> Fault {
    let fault = place.person(format!("{place} ended the TLS connection with the alert {alert:?}"));
    match alert {
        AlertDescription::CertificateRequired
        | AlertDescription::NoCertificate
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => fault.remedy(
            "it is about the client's certificate: check sslcert and sslkey, and that the server's ssl_ca_file \
             has its authority",
        ),
        AlertDescription::NoApplicationProtocol => {
            fault.remedy("use sslnegotiation=postgres: direct negotiation needs PostgreSQL 17")
        }
        _ => fault.remedy("check the server's log, its ssl settings, and that nothing is in between"),
    }
}

/// A login that failed.
pub(super) fn login(
    place: Place<'_>,
    info: &ConnInfo,
    encrypted: bool,
    purpose: Purpose,
    refusal: Refusal,
) -> Fault {
    match refusal {
        // With TLS 1.3 the server judges the client's certificate after the handshake.
        Refusal::Io(error) if tls_error(&error).is_some() => handshake(place, info.ssl(), &error),
        Refusal::Io(error) => place
            .unreachable(format!("{place} closed the connection during the login: {error}"))
            .remedy("it is probably starting, stopping or full; its log says more"),
        Refusal::Ours(what, remedy) => {
            place.person(format!("can't log in to {place}: {what}")).remedy(remedy)
        }
        Refusal::Protocol(what) => place
            .person(format!("can't log in to {place}: {what}"))
            .remedy("check that host and port are the PostgreSQL server's own"),
        Refusal::Server { report, .. } => refused(place, info, encrypted, purpose, &report),
    }
}

fn refused(place: Place<'_>, info: &ConnInfo, encrypted: bool, purpose: Purpose, report: &Report) -> Fault {
    let doing = format!("can't log in to {place} as {}, database {}", info.user(), info.dbname());
    let fault = report.fault(place.side, &doing);
    if is_pooler(place.host, report, purpose) {
        return pooler(fault);
    }
    let user = info.user();
    match report.code.code() {
        "28P01" if place.host.password.is_none() => fault.remedy(
            "no password was given: put it into the connection string, a passfile or PGPASSWORD",
        ),
        "28P01" => fault.remedy(
            "check user and password, and that the role exists; in a URI, every character of the password other than letters, digits and \
             -._~ must be percent-encoded (@ is %40, : is %3A, / is %2F, % is %25)",
        ),
        "28000" if !encrypted => fault.remedy(format!(
            "check that role {user} exists and may log in, and that pg_hba.conf admits it from here without TLS; \
             most providers want sslmode=require or stronger"
        )),
        "28000" => fault.remedy(format!(
            "check that role {user} exists and may log in, that pg_hba.conf admits it from here with TLS (a \
             hostnossl line wants sslmode=disable), and sslcert and sslkey if it asks for a client certificate"
        )),
        "55000" => fault.remedy(
            "if somebody has closed the database for a while, wait, or open it: ALTER DATABASE ... ALLOW_CONNECTIONS true",
        ),
        "3D000" => fault.remedy("check the database's name (it is the user's name if none is given), or create it"),
        "42501" if purpose == Purpose::Replication => fault.remedy(format!(
            "give the role the privilege, as a superuser: ALTER ROLE {user} REPLICATION (managed servers have \
             their own way: rds_replication, azure_pg_admin, a console)"
        )),
        "42501" => fault.remedy(format!("GRANT CONNECT ON DATABASE ... TO {user}")),
        "53300" if purpose == Purpose::Replication => {
            fault.remedy("end connections or walsenders that aren't needed, or raise max_wal_senders or max_connections")
        }
        "53300" => fault.remedy("end connections that aren't needed, or raise max_connections"),
        "57P01" | "57P02" | "57P03" => {
            place.unreachable(format!("{doing}: {}", report.message)).sqlstate(report.code.clone())
        }
        // A parameter that the server doesn't take won't be taken the next time.
        "08P01" => fault.reacting(Reaction::Person).remedy("check the parameter `options` of the connection string"),
        _ => fault,
    }
}

/// PgBouncer refuses `replication` and `options`; Supabase's pooler has its own ways to be unhelpful.
fn is_pooler(host: &Host, report: &Report, purpose: Purpose) -> bool {
    let unsupported = report.message.contains("unsupported startup parameter");
    let supabase = purpose == Purpose::Replication
        && matches!(&host.name, HostName::Tcp { host: Some(name), .. } if name.ends_with(".pooler.supabase.com"))
        && !matches!(report.code.code(), "28P01" | "57P01" | "57P03");
    unsupported || supabase
}

/// Adds that it is a pooler, and what to use instead.
pub(crate) fn pooler(fault: Fault) -> Fault {
    fault.reacting(Reaction::Person).remedy(USE_THE_DIRECT_CONNECTION)
}

/// True for a fault that says that it is a pooler.
pub(crate) fn says_pooler(fault: &Fault) -> bool {
    fault.advice() == Some(USE_THE_DIRECT_CONNECTION)
}

/// A server in another role than `target_session_attrs` asks for.
pub(super) fn wrong_role(side: Side, host: &Host, standby: bool) -> Fault {
    let is = if standby { "a standby" } else { "a primary" };
    Fault::unreachable(side, format!("{host} is {is}, which target_session_attrs doesn't want"))
        .remedy("name the right host, or wait for the failover to end")
}

/// None of several addresses could be had.
pub(super) fn all_failed(side: Side, mut failures: Vec<Fault>) -> Fault {
    match failures.len() {
        0 => Fault::bug("there is no host to connect to").on(side),
        1 => failures.remove(0),
        _ => {
            let what: Vec<&str> = failures.iter().map(Fault::what).collect();
            let mut remedies: Vec<&str> = failures.iter().filter_map(Fault::advice).collect();
            remedies.dedup();
            let fault = Fault::unreachable(side, what.join("; "));
            if remedies.is_empty() { fault } else { fault.remedy(remedies.join("; ")) }
        }
    }
}

/// A connection that was lost.
pub(crate) fn lost(side: Side, doing: &str, error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::unreachable(
            side,
            format!("{doing}: the server closed the connection without a word"),
        )
        .remedy(
            "it is tried again; if it keeps happening, look at the server's log, and at wal_sender_timeout \
                 (the server gives up a connection that it hasn't heard from for so long)",
        ),
        io::ErrorKind::InvalidData if tls_error(error).is_none() => {
            Fault::retry(format!("{doing}: {error}")).on(side)
        }
        _ => Fault::io(side, doing, error),
    }
}

/// An error that the walsender reports.
pub(crate) fn replication(side: Side, doing: &str, report: &Report) -> Fault {
    let fault = report.fault(side, doing);
    match report.code.code() {
        "57P01" | "57P02" | "57P03" => {
            Fault::unreachable(side, format!("{doing}: {}", report.message)).sqlstate(report.code.clone())
        }
        // The name of a setting isn't translated.
        "55000" if report.message.contains("wal_level") => fault.remedy(
            "set wal_level = logical at the server and restart it (managed servers have a switch for logical replication)",
        ),
        "42501" => fault.remedy("the role needs the privilege REPLICATION: ALTER ROLE ... REPLICATION"),
        "53400" => fault.remedy("drop replication slots that aren't needed, or raise max_replication_slots"),
        "55006" => fault.remedy("another connection holds the slot; it is free when that one has ended"),
        _ => fault,
    }
}

/// A message that doesn't belong there.
pub(crate) fn unexpected(side: Side, tag: u8) -> Fault {
    let tag = char::from(tag).escape_default();
    Fault::person(format!("the server sent a message '{tag}' that doesn't belong here"))
        .on(side)
        .sqlstate(SqlState::PROTOCOL_VIOLATION)
}

fn is_direct_supabase(host: &Host) -> bool {
    matches!(&host.name, HostName::Tcp { host: Some(name), .. } if name.ends_with(".supabase.co"))
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::super::conninfo::Environment;
    use super::*;

    const HERE: Side = Side::Source;

    fn info(text: &str) -> ConnInfo {
        ConnInfo::parse(text, &Environment::empty()).unwrap()
    }

    fn address(text: &str) -> Address {
        Address::Tcp(text.parse().unwrap())
    }

    fn report(code: &'static str, message: &str) -> Report {
        Report {
            severity: "FATAL".to_owned(),
            code: SqlState::from_code(code),
            message: message.to_owned(),
            detail: None,
            hint: None,
            table: None,
        }
    }

    fn login_fault(text: &str, purpose: Purpose, code: &'static str, message: &str) -> Fault {
        let (info, address) = (info(text), address("127.0.0.1:5432"));
        let place = Place { side: HERE, host: &info.hosts()[0], address: &address };
        let refusal = Refusal::Server { report: Box::new(report(code, message)), credentials_sent: true };
        login(place, &info, true, purpose, refusal)
    }

    #[test]
    fn ipv6_that_leads_nowhere_is_explained_for_supabase_and_for_others() {
        let cases = [
            ("postgres://u@db.abc.supabase.co/d", "IPv4 add-on"),
            ("postgres://u@db.example.com/d", "no way to IPv6"),
        ];
        for (text, advice) in cases {
            let (info, v6, v4) = (info(text), address("[2a05::1]:5432"), address("192.0.2.1:5432"));
            for errno in [101, 113, 99] {
                let error = io::Error::from_raw_os_error(errno);
                let at = |address| Place { side: HERE, host: &info.hosts()[0], address };
                let fault = network(at(&v6), &error);
                assert!(fault.is_unreachable() && fault.advice().unwrap().contains(advice), "{fault}");
                assert!(fault.what().contains("5432 (2a05::1)"), "{fault}");
                assert!(!network(at(&v4), &error).advice().unwrap().contains("IPv6"));
            }
        }
        let supabase = info("postgres://u@db.abc.supabase.co/d");
        let fault = no_address(HERE, &supabase.hosts()[0], "Name or service not known");
        assert!(fault.is_unreachable() && fault.advice().unwrap().contains("IPv6 address only"), "{fault}");
    }

    #[test]
    fn supabases_pooler_is_not_taken_for_the_server() {
        let text = "postgres://postgres.abc:x@aws-0-eu-central-1.pooler.supabase.com:5432/postgres";
        let fault = login_fault(text, Purpose::Replication, "XX000", "Tenant or user not found");
        assert!(fault.advice().unwrap().contains("db.<project>.supabase.co"), "{fault}");
        assert_eq!(fault.reaction(), Reaction::Person);
        // Sessions may go through it, and a wrong password is a wrong password.
        let fault = login_fault(text, Purpose::Sql, "XX000", "Tenant or user not found");
        assert!(!fault.advice().unwrap().contains("pooler"), "{fault}");
        let fault = login_fault(text, Purpose::Replication, "28P01", "password authentication failed");
        assert!(fault.advice().unwrap().contains("percent-encoded"), "{fault}");
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_needs_a_person() {
        for (code, reaction, unreachable) in [
            ("57P03", Reaction::Retry, true),
            ("57P01", Reaction::Retry, true),
            ("53300", Reaction::Retry, false),
            ("28P01", Reaction::Person, false),
            ("28000", Reaction::Person, false),
            ("3D000", Reaction::Person, false),
            ("42501", Reaction::Person, false),
            ("08P01", Reaction::Person, false),
        ] {
            for purpose in [Purpose::Sql, Purpose::Replication] {
                let fault = login_fault("postgres://u:p@h/d", purpose, code, "no");
                assert_eq!((fault.reaction(), fault.is_unreachable()), (reaction, unreachable), "{fault}");
                assert_eq!(fault.code().unwrap().code(), code);
            }
        }
    }

    #[test]
    fn several_failures_are_told_together() {
        let fault = |what: &str| Fault::unreachable(HERE, what).remedy("look");
        let all = all_failed(HERE, vec![fault("a is dead"), fault("b is dead")]);
        assert_eq!(all.to_string(), "source: a is dead; b is dead\n  what to do: look");
        assert!(all.is_unreachable());
    }
}
