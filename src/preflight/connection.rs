//! How we get to the servers: directly or through a pooler, with TLS or without.

use std::net::IpAddr;
use std::sync::Arc;

use super::finding::{Finding, Severity};
use super::refuse::refuse_pooler;
use super::server::Server;
use super::{Asked, Check};
use crate::config::Config;
use crate::connect::conninfo::{Host, HostName, Verification};
use crate::connect::{ConnInfo, Session, advice, settings};
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::replication::{SystemIdentity, Walsender};

/// Opens an ordinary session and asks which server it is.
pub(super) async fn open(info: &ConnInfo, side: Side, name: &str) -> Result<Asked> {
    let session = Session::open(info, side, &format!("cdc_{name} check")).await?;
    // Whatever holds a lock on a table, it is not waited for.
    let deadlines = settings::set("lock_timeout", &limits::CHECK_LOCK_WAIT.as_millis().to_string())
        + &settings::set("statement_timeout", &limits::CHECK_STATEMENT.as_millis().to_string());
    session.batch_execute(&deadlines).await.map_err(|e| Fault::sql(side, "setting up the session", &e))?;
    let server = Server::read(&session, side).await?;
    Ok(Asked { session: Arc::new(session), server })
}

/// Adds how well the connection is protected.
pub(super) fn look(check: &mut Check<'_>, asked: &Asked) {
    let (side, server) = (asked.server.side, &asked.server);
    let info = match side {
        Side::Source => &check.config.source,
        Side::Target => &check.config.target,
    };
    if info.hosts().iter().all(|host| host.socket_path().is_some()) {
        return;
    }
    let is_local = info.hosts().iter().all(is_local);
    check.findings.push(protection(side, info.ssl().verification(), server.is_encrypted, is_local));
}

/// True for a socket, and for this machine's own addresses.
fn is_local(host: &Host) -> bool {
    match &host.name {
        HostName::Unix(_) => true,
        HostName::Tcp { hostaddr: Some(address), .. } => address.is_loopback(),
        HostName::Tcp { host: Some(name), .. } => {
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
        HostName::Tcp { .. } => false,
    }
}

/// Says how well a TCP connection is protected. Nobody else reads one within a host.
fn protection(side: Side, verification: Verification, is_encrypted: bool, is_local: bool) -> Finding {
    let verify = "in the connection string: sslmode=verify-full, and sslrootcert=FILE with the provider's root \
                  certificate, or sslrootcert=system if a public authority has signed the server's";
    let (finding, why) = match (is_encrypted, verification) {
        (false, _) if is_local => (
            Finding::informs("no-tls", side, "the connection is not encrypted; it stays within this host"),
            "nobody else can read it there",
        ),
        (false, _) => (
            Finding::warns("no-tls", side, "the connection is not encrypted").mend(verify),
            "whoever is on the way can read and change the rows",
        ),
        (true, Verification::Nothing) => (
            Finding::warns(
                "tls-unverified",
                side,
                "the connection is encrypted, but nobody verifies who is at the other end",
            )
            .mend(verify),
            "another server could take this one's place, and get all the rows",
        ),
        (true, Verification::Authority) => (
            Finding::informs(
                "tls-name-unverified",
                side,
                "the server's certificate is verified, but not that it is made out to this host",
            )
            .mend("sslmode=verify-full, if the certificate has the host's name"),
            "any server with a certificate of the same authority could take this one's place",
        ),
        (true, Verification::AuthorityAndName) => (
            Finding::informs("tls", side, "the connection is encrypted, and the server is who it says it is"),
            "nobody else can read the rows",
        ),
    };
    let finding = finding.why(why);
    if is_local { finding.severity(Severity::Informs) } else { finding }
}

/// Opens a walsender connection, to see that the source really lets us replicate.
pub(super) async fn replication(config: &Config) -> Result<SystemIdentity, Finding> {
    let application = format!("cdc_{} check", config.name);
    let identity = async {
        Walsender::connect(&config.source, Side::Source, &application).await?.identify_system().await
    };
    identity.await.map_err(|fault| {
        let code = match fault.code().map(|code| code.code()) {
            _ if advice::says_pooler(&fault) => "pooler",
            Some("42501") => "no-replication-right",
            Some("53300") => "no-walsender",
            _ => "no-replication",
        };
        Finding::of_fault(code, &fault)
            .why("the changes come through a replication connection to the source's own server")
    })
}

/// Looks whether a pooler gives the target's sessions other backends from one transaction to the next.
pub(super) async fn pooled(config: &Config, target: &Asked) -> Result<Option<Finding>> {
    let other = open(&config.target, Side::Target, &config.name).await?;
    match refuse_pooler(&target.session, &other.session).await {
        Ok(()) => Ok(None),
        Err(fault) if fault.code().is_none() && !fault.is_unreachable() => {
            Ok(Some(Finding::of_fault("pooler", &fault).why(
                "triggers are switched off for a session, and that would hold for others and not for us",
            )))
        }
        Err(fault) => Err(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_others_could_read_is_a_warning_but_within_a_host() {
        for (verification, is_encrypted, is_local, expected) in [
            (Verification::Nothing, false, false, (Severity::Warns, "no-tls")),
            (Verification::Nothing, false, true, (Severity::Informs, "no-tls")),
            (Verification::Nothing, true, false, (Severity::Warns, "tls-unverified")),
            (Verification::Authority, true, false, (Severity::Informs, "tls-name-unverified")),
            (Verification::AuthorityAndName, true, false, (Severity::Informs, "tls")),
        ] {
            let finding = protection(Side::Source, verification, is_encrypted, is_local);
            assert_eq!((finding.severity, finding.code), expected, "{finding:?}");
        }
    }
}
