//! TLS, in one place: rustls with ring, and libpq's rules of what is verified.
//!
//! Three rules of libpq (OpenSSL) go beyond what rustls does by itself, and servers in the field
//! depend on them: a certificate that is itself listed in the root file is trusted as it is, the
//! common name counts where the certificate lists no alternative name, and without verification
//! any certificate will do, X.509 version 1 included.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use x509_cert::Certificate;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::conninfo::{RootCert, Ssl, TlsVersion, Verification};

/// What is verified about the server's certificate.
#[derive(Debug)]
enum Trust {
    /// Nothing: encryption only.
    Anyone,
    /// A chain to one of the authorities.
    Chain(Authorities),
    /// A chain to one of the authorities, and the host name.
    ChainAndName(Authorities),
}

/// Who is trusted to sign certificates.
#[derive(Debug)]
struct Authorities {
    verifier: Arc<WebPkiServerVerifier>,
    /// The root file's own certificates.
    listed: Vec<CertificateDer<'static>>,
}

impl Authorities {
    fn load(ssl: &Ssl, root_cert: &RootCert, provider: &Arc<CryptoProvider>) -> io::Result<Self> {
        let mut store = RootCertStore::empty();
        let mut listed = Vec::new();
        match root_cert {
            RootCert::File(path) => {
                listed = read_chain(path)?;
                for certificate in &listed {
                    store.add(certificate.clone()).map_err(|e| at(path, &io::Error::other(e)))?;
                }
            }
            RootCert::System => {
                // One certificate that can't be used is no reason to refuse all others.
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if store.is_empty() {
                    return Err(io::Error::other("the system has no root certificates (ca-certificates)"));
                }
            }
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
            .with_crls(revocation_lists(ssl)?)
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { verifier, listed })
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if self.listed.contains(end_entity) {
            return verify_period(end_entity, now);
        }
        if is_version_1(end_entity) {
            return Err(Distrust::Version1.into());
        }
        match self.verifier.verify_server_cert(end_entity, intermediates, server_name, &[], now) {
            // The name is looked at last, after the chain, and is ours to judge.
            Ok(_)
            | Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn revocation_lists(ssl: &Ssl) -> io::Result<Vec<CertificateRevocationListDer<'static>>> {
    let mut files: Vec<PathBuf> = ssl.crl.iter().cloned().collect();
    if let Some(directory) = &ssl.crl_dir {
        for entry in std::fs::read_dir(directory).map_err(|e| at(directory, &e))? {
            files.push(entry.map_err(|e| at(directory, &e))?.path());
        }
    }
    let mut lists = Vec::new();
    for file in files {
        let found: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_file_iter(&file).and_then(Iterator::collect);
        lists.extend(found.map_err(|e| at(&file, &io::Error::other(e)))?);
    }
    Ok(lists)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads the client's chain and key (PKCS#8, PKCS#1 or SEC1). A key that others can read is refused by
/// libpq's rule: mode 0600 or less, or 0640 where root owns it.
fn identity(certificate: &Path, key: &Path) -> io::Result<Identity> {
    let chain = read_chain(certificate)?;
    let metadata = std::fs::metadata(key).map_err(|e| at(key, &e))?;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        let what = "the private key can be read by others; chmod 0600 it";
        return Err(at(key, &io::Error::new(io::ErrorKind::PermissionDenied, what)));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| {
        let hint = "a PEM key without a passphrase is needed (openssl pkey -in OLD -out NEW removes it)";
        at(key, &io::Error::other(format!("{e}; {hint}")))
    })?;
    Ok((chain, key))
}

fn read_chain(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| at(path, &io::Error::other(e)))?;
    if chain.is_empty() {
        return Err(at(path, &io::Error::other("no PEM certificate in it")));
    }
    Ok(chain)
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The protocol's name in ALPN (PostgreSQL documentation, "SSL Session Encryption").
pub(crate) const ALPN: &[u8] = b"postgresql";

/// The configuration of one connection.
///
/// # Errors
///
/// A file can't be read or holds something else, or a certificate and its key don't belong together.
pub(crate) fn client_config(ssl: &Ssl) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authorities = |root_cert| Authorities::load(ssl, root_cert, &provider);
    let trust = match (ssl.verification(), &ssl.root_cert) {
        (Verification::AuthorityAndName, Some(root_cert)) => Trust::ChainAndName(authorities(root_cert)?),
        (Verification::Authority, Some(root_cert)) => Trust::Chain(authorities(root_cert)?),
        (Verification::Nothing, _) => Trust::Anyone,
        (Verification::Authority | Verification::AuthorityAndName, None) => {
            return Err(io::Error::other("no root certificate to verify with"));
        }
    };
    let algorithms = provider.signature_verification_algorithms;
    let versions: Vec<&'static SupportedProtocolVersion> =
        [(TlsVersion::Tls13, &TLS13), (TlsVersion::Tls12, &TLS12)]
            .into_iter()
            .filter(|(version, _)| (ssl.min_protocol..=ssl.max_protocol).contains(version))
            .map(|(_, version)| version)
            .collect();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { trust, algorithms }));
    let mut config = match (&ssl.cert, &ssl.key) {
        (Some(certificate), Some(key)) => {
            let (chain, key) = identity(certificate, key)?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|e| at(certificate, &io::Error::other(e)))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.enable_sni = ssl.sni;
    // Like libpq 17; servers before 17 ignore it.
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// What is wrong with a certificate, beyond what rustls can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Distrust {
    /// It is for other hosts: these.
    WrongName(Vec<String>),
    /// It is X.509 version 1, which has no extensions and can't be verified.
    Version1,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongName(names) if names.is_empty() => f.write_str("the certificate names no host"),
            Self::WrongName(names) => write!(f, "the certificate is for {}", names.join(", ")),
            Self::Version1 => f.write_str("the certificate is X.509 version 1"),
        }
    }
}

impl std::error::Error for Distrust {}

impl From<Distrust> for rustls::Error {
    fn from(distrust: Distrust) -> Self {
        CertificateError::Other(OtherError(Arc::new(distrust))).into()
    }
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trust {
            Trust::Anyone => {}
            Trust::Chain(authorities) => {
                authorities.verify(end_entity, intermediates, server_name, now)?;
            }
            Trust::ChainAndName(authorities) => {
                authorities.verify(end_entity, intermediates, server_name, now)?;
                verify_name(end_entity, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if is_version_1(cert) {
            return Err(Distrust::Version1.into());
        }
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !is_version_1(cert) {
            return verify_tls13_signature(message, cert, dss, &self.algorithms);
        }
        let key = parse(cert)?.tbs_certificate.subject_public_key_info.to_der();
        let key = SubjectPublicKeyInfoDer::from(key.map_err(|_| CertificateError::BadEncoding)?);
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn verify_period(cert: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let validity = parse(cert)?.tbs_certificate.validity;
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

fn verify_name(cert: &CertificateDer<'_>, server_name: &ServerName<'_>) -> Result<(), rustls::Error> {
    let names = Names::of(&parse(cert)?);
    let valid = ParsedCertificate::try_from(cert)
        .is_ok_and(|parsed| verify_server_name(&parsed, server_name).is_ok());
    if valid || names.common_name_matches(server_name) {
        return Ok(());
    }
    Err(Distrust::WrongName(names.into_list()).into())
}

/// The hosts that a certificate is for.
#[derive(Debug, Default)]
struct Names {
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
    common_name: Option<String>,
}

impl Names {
    fn of(certificate: &Certificate) -> Self {
        let mut names = Self { common_name: common_name(certificate), ..Self::default() };
        let Ok(Some((_, alternatives))) = certificate.tbs_certificate.get::<SubjectAltName>() else {
            return names;
        };
        for name in &alternatives.0 {
            match name {
                GeneralName::DnsName(name) => names.dns.push(name.to_string()),
                GeneralName::IpAddress(bytes) => names.addresses.extend(address(bytes.as_bytes())),
                _ => {}
            }
        }
        names
    }

    /// libpq's rule: the common name counts if there is no alternative name of the host's kind
    /// (`pgtls_verify_peer_name_matches_certificate_guts`).
    fn common_name_matches(&self, server_name: &ServerName<'_>) -> bool {
        let Some(common_name) = &self.common_name else { return false };
        match server_name {
            ServerName::DnsName(host) => {
                self.dns.is_empty() && dns_pattern_matches(common_name, host.as_ref())
            }
            ServerName::IpAddress(address) => {
                self.addresses.is_empty() && common_name.parse() == Ok(IpAddr::from(*address))
            }
            _ => false,
        }
    }

    fn into_list(self) -> Vec<String> {
        let mut list = self.dns;
        list.extend(self.addresses.iter().map(ToString::to_string));
        if list.is_empty() {
            list.extend(self.common_name);
        }
        list
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A `*` stands for the whole first label, and for nothing else.
fn dns_pattern_matches(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(suffix), Some((label, rest))) = (pattern.strip_prefix("*."), host.split_once('.')) else {
        return false;
    };
    !label.is_empty() && suffix.contains('.') && suffix.eq_ignore_ascii_case(rest)
}

fn common_name(certificate: &Certificate) -> Option<String> {
    const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
    let mut attributes = certificate.tbs_certificate.subject.0.iter().flat_map(|set| set.0.iter());
    let value = &attributes.find(|attribute| attribute.oid == COMMON_NAME)?.value;
    let text = (value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned()))
        .or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()))
        .or_else(|_| value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned()));
    text.ok()
}

fn parse(cert: &CertificateDer<'_>) -> Result<Certificate, rustls::Error> {
    Certificate::from_der(cert).map_err(|_| CertificateError::BadEncoding.into())
}

fn is_version_1(cert: &CertificateDer<'_>) -> bool {
    parse(cert).is_ok_and(|certificate| certificate.tbs_certificate.version == x509_cert::Version::V1)
}

/// The `tls-server-end-point` channel binding of a certificate (RFC 5929, section 4.1): its hash,
/// with the hash function of its own signature, and SHA-256 in place of MD5 and SHA-1.
///
/// `None` where there is no such function (Ed25519) or servers disagree about it (RSA-PSS, which
/// PostgreSQL hashes from 16 on only).
#[must_use]
pub(crate) fn end_point_hash(cert: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(cert).ok()?;
    let algorithm = match certificate.signature_algorithm.oid.to_string().as_str() {
        // RSA with MD5, SHA-1 and SHA-256; ECDSA with SHA-1 and SHA-256; DSA likewise.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2"
        | "1.2.840.10040.4.3"
        | "2.16.840.1.101.3.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, cert).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    /// The same certificate, said to be signed with another algorithm.
    fn signed_with(oid: &str, certificate: &[u8]) -> Vec<u8> {
        let mut certificate = Certificate::from_der(certificate).unwrap();
        certificate.signature_algorithm.oid = ObjectIdentifier::new(oid).unwrap();
        certificate.to_der().unwrap()
    }

    #[test]
    fn the_end_point_is_hashed_as_its_signature_is() {
        let sha256 = |der: &[u8]| digest::digest(&digest::SHA256, der).as_ref().to_vec();
        let p256 = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(end_point_hash(&p256), Some(sha256(&p256)));
        let p384 = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(end_point_hash(&p384).unwrap(), digest::digest(&digest::SHA384, &p384).as_ref());
        let sha512 = signed_with("1.2.840.113549.1.1.13", &p256);
        assert_eq!(end_point_hash(&sha512).unwrap(), digest::digest(&digest::SHA512, &sha512).as_ref());
        // MD5 and SHA-1 are replaced.
        for oid in ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1"] {
            let weak = signed_with(oid, &p256);
            assert_eq!(end_point_hash(&weak), Some(sha256(&weak)), "{oid}");
        }
        assert_eq!(end_point_hash(&certificate(&rcgen::PKCS_ED25519)), None);
        assert_eq!(end_point_hash(b"no certificate"), None);
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let cases = [
            ("db.example.com", "DB.example.com", true),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.com", "example.com", false),
            ("*", "localhost", false),
            ("d*.example.com", "db.example.com", false),
        ];
        for (pattern, host, matches) in cases {
            assert_eq!(dns_pattern_matches(pattern, host), matches, "{pattern} {host}");
        }
    }
}
