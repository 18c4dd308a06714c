//! What a connection string says about TLS.

use std::path::PathBuf;

use super::environment::Environment;
use super::settings::Settings;
use crate::fault::Result;

/// When to use TLS, and how much to verify (PostgreSQL documentation, "SSL Support").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Without TLS first; with it if the server doesn't want that.
    Allow,
    /// With TLS first; without it if the server can't or the handshake fails.
    Prefer,
    /// Only with TLS.
    Require,
    /// Only with TLS, and a certificate that a trusted authority signed.
    VerifyCa,
    /// Only with TLS, and such a certificate made out to the host's name.
    VerifyFull,
}

/// The authorities to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCert {
    /// Those in this PEM file.
    File(PathBuf),
    /// Those that the system trusts.
    System,
}

/// Who starts TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslNegotiation {
    /// The client asks with an `SSLRequest` message first.
    Postgres,
    /// The handshake comes first (PostgreSQL 17 or a proxy), with the ALPN protocol `postgresql`.
    Direct,
}

/// A version of TLS that we can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// How much of a server's certificate to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Nothing.
    Nothing,
    /// That a trusted authority signed it.
    Authority,
    /// That a trusted authority signed it, for the host's name.
    AuthorityAndName,
}

/// The TLS settings of a connection. They don't concern Unix-domain sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssl {
    /// When to use TLS.
    pub mode: SslMode,
    /// The authorities to trust. There always are some when `mode` verifies and a host is on TCP.
    pub root_cert: Option<RootCert>,
    /// The client's certificate (PEM); it comes with a `key`.
    pub cert: Option<PathBuf>,
    /// The client's private key (PEM, without a passphrase); it comes with a `cert`.
    pub key: Option<PathBuf>,
    /// Whether to tell the server the host's name in the handshake (never an IP address).
    pub sni: bool,
    /// Who starts TLS.
    pub negotiation: SslNegotiation,
    /// The lowest version to accept.
    pub min_protocol: TlsVersion,
    /// The highest version to offer.
    pub max_protocol: TlsVersion,
    /// A file of certificate revocation lists (PEM).
    pub crl: Option<PathBuf>,
    /// A directory of such files.
    pub crl_dir: Option<PathBuf>,
}

impl Ssl {
    /// How much of a server's certificate to verify: with authorities to trust, libpq verifies the
    /// signature in weaker modes too (a failure then counts as a failed handshake).
    #[must_use]
    pub fn verification(&self) -> Verification {
        match (self.mode, &self.root_cert) {
            (SslMode::VerifyFull, _) => Verification::AuthorityAndName,
            (SslMode::VerifyCa, _) | (_, Some(_)) => Verification::Authority,
            (_, None) => Verification::Nothing,
        }
    }
}

/// Reads the TLS parameters; `tcp` says whether a host is reached over TCP, so that TLS matters.
///
/// # Errors
/// A usage fault for a wrong value, for values that contradict each other, and for what would make
/// the connection less secure than asked for.
pub(super) fn resolve(settings: &Settings, env: &Environment, tcp: bool) -> Result<Ssl> {
    let system = settings.get("sslrootcert") == Some("system");
    let mode = mode(settings, system)?;
    let used = tcp && mode != SslMode::Disable;
    let negotiation = negotiation(settings, mode)?;
    let (min_protocol, max_protocol) = protocols(settings)?;
    let root_cert = if system {
        Some(RootCert::System)
    } else {
        file(settings, env, "sslrootcert", "root.crt", used).map(RootCert::File)
    };
    if used && mode >= SslMode::VerifyCa && root_cert.is_none() {
        return Err(settings
            .wrong(
                "sslmode",
                "asks to verify the server's certificate, but there is no root certificate file",
            )
            .remedy(
                "name the provider's root certificate with sslrootcert, put it into ~/.postgresql/root.crt, \
                 or trust the system's authorities with sslrootcert=system",
            ));
    }
    let (cert, key) = if used { client_certificate(settings, env)? } else { (None, None) };
    Ok(Ssl {
        mode,
        root_cert,
        cert,
        key,
        sni: settings.get("sslsni").is_none_or(|value| value.starts_with('1')),
        negotiation,
        min_protocol,
        max_protocol,
        crl: file(settings, env, "sslcrl", "root.crl", used),
        crl_dir: settings.filled("sslcrldir").map(PathBuf::from),
    })
}

fn mode(settings: &Settings, system: bool) -> Result<SslMode> {
    let mode = settings.choice(
        "sslmode",
        &[
            ("disable", SslMode::Disable),
            ("allow", SslMode::Allow),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ],
    )?;
    match mode {
        // Anybody can have a certificate that the system trusts: without the name it proves nothing.
        Some(mode) if system && mode != SslMode::VerifyFull => {
            Err(settings.wrong("sslmode", "must be verify-full together with sslrootcert=system"))
        }
        Some(mode) => Ok(mode),
        None if system => Ok(SslMode::VerifyFull),
        None => Ok(SslMode::Prefer),
    }
}

fn negotiation(settings: &Settings, mode: SslMode) -> Result<SslNegotiation> {
    let words = [("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)];
    let negotiation = settings.choice("sslnegotiation", &words)?.unwrap_or(SslNegotiation::Postgres);
    // There is no way back to plain text from there.
    if negotiation == SslNegotiation::Direct && mode < SslMode::Require {
        return Err(settings.wrong("sslnegotiation", "can be direct only if sslmode is require or stronger"));
    }
    Ok(negotiation)
}

fn protocols(settings: &Settings) -> Result<(TlsVersion, TlsVersion)> {
    let version = |name: &str| -> Result<Option<TlsVersion>> {
        let Some(value) = settings.filled(name) else { return Ok(None) };
        match value.to_ascii_lowercase().as_str() {
            // As a lower bound these are met by what we have; as an upper one nothing is left.
            "tlsv1" | "tlsv1.1" if name == "ssl_min_protocol_version" => Ok(None),
            "tlsv1" | "tlsv1.1" => {
                Err(settings.wrong(name, "asks for a TLS version below 1.2, which is not secure"))
            }
            "tlsv1.2" => Ok(Some(TlsVersion::Tls12)),
            "tlsv1.3" => Ok(Some(TlsVersion::Tls13)),
            _ => Err(settings.wrong(name, "must be one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3")),
        }
    };
    let min = version("ssl_min_protocol_version")?.unwrap_or(TlsVersion::Tls12);
    let max = version("ssl_max_protocol_version")?.unwrap_or(TlsVersion::Tls13);
    if min > max {
        return Err(settings.wrong("ssl_max_protocol_version", "is lower than ssl_min_protocol_version"));
    }
    Ok((min, max))
}

/// The file that a parameter names, or the default one in `~/.postgresql`; like in libpq, only if it
/// exists. One that was named and isn't there is worth a warning.
fn file(settings: &Settings, env: &Environment, name: &str, default: &str, used: bool) -> Option<PathBuf> {
    match settings.filled(name) {
        Some(named) => {
            let file = PathBuf::from(named);
            let exists = file.exists();
            if used && !exists {
                tracing::warn!(
                    "{name}: the file {named} does not exist; continuing without it, as libpq does"
                );
            }
            exists.then_some(file)
        }
        None => env.in_home(".postgresql").map(|dir| dir.join(default)).filter(|file| file.exists()),
    }
}

/// The client's certificate and its key, if it has one.
fn client_certificate(settings: &Settings, env: &Environment) -> Result<(Option<PathBuf>, Option<PathBuf>)> {
    #[derive(Clone, Copy)]
    enum Send {
        Never,
        IfAsked,
        Required,
    }
    let modes = [("disable", Send::Never), ("allow", Send::IfAsked), ("require", Send::Required)];
    match settings.choice("sslcertmode", &modes)? {
        Some(Send::Never) => return Ok((None, None)),
        Some(Send::Required) => {
            return Err(settings
                .wrong(
                    "sslcertmode",
                    "asks to make sure that the server requests a certificate, which is not supported",
                )
                .remedy("use sslcertmode=allow, and clientcert=verify-full in the server's pg_hba.conf"));
        }
        Some(Send::IfAsked) | None => {}
    }
    let Some(cert) = file(settings, env, "sslcert", "postgresql.crt", true) else { return Ok((None, None)) };
    if settings.filled("sslkey").is_some_and(|key| key.contains(':')) {
        return Err(settings
            .wrong("sslkey", "names a key of an OpenSSL engine, which is not supported")
            .remedy("give the key as a PEM file"));
    }
    let Some(key) = file(settings, env, "sslkey", "postgresql.key", true) else {
        return Err(settings
            .wrong("sslkey", "gives no file for the client certificate's private key")
            .remedy(
                "name the key's file with sslkey, or do without a certificate with sslcertmode=disable",
            ));
    };
    if settings.filled("sslpassword").is_some() {
        return Err(settings.wrong("sslpassword", "is given, but encrypted private keys are not supported")
            .remedy("decrypt the key (openssl pkey -in KEY -out NEW), keep the file private, and leave sslpassword out"));
    }
    Ok((Some(cert), Some(key)))
}
