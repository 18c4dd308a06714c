//! Certificates for the tests: authorities, servers, clients, and the ones that must be refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, SignatureAlgorithm, SigningKey,
    date_time_ymd, string::Ia5String,
};
use tempfile::TempDir;
use x509_cert::der::asn1::BitString;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, DecodePem, Encode, EncodePem};

/// A certificate and its key, as PEM text.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// An authority that signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for these hosts (names and addresses), with this common name.
    pub(crate) fn sign(&self, common_name: &str, hosts: &[&str]) -> Pair {
        self.sign_params(named(common_name, hosts), &KeyPair::generate().unwrap())
    }

    /// One that is over since 2001.
    pub(crate) fn sign_expired(&self, host: &str) -> Pair {
        let mut params = named(host, &[host]);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.sign_params(params, &KeyPair::generate().unwrap())
    }

    /// One of X.509 version 1, as `openssl x509 -req` made them for twenty years.
    pub(crate) fn sign_version_1(&self, common_name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = named(common_name, &[]).signed_by(&key, &self.issuer).unwrap();
        let mut certificate = x509_cert::Certificate::from_der(certificate.der()).unwrap();
        certificate.tbs_certificate.version = x509_cert::Version::V1;
        certificate.tbs_certificate.extensions = None;
        let signature = self.issuer.key().sign(&certificate.tbs_certificate.to_der().unwrap()).unwrap();
        certificate.signature = BitString::from_bytes(&signature).unwrap();
        Pair { certificate: certificate.to_pem(LineEnding::LF).unwrap(), key: key.serialize_pem() }
    }

    /// The list of the certificates that it has revoked: this one.
    pub(crate) fn revoke(&self, pair: &Pair) -> String {
        let certificate = x509_cert::Certificate::from_pem(&pair.certificate).unwrap();
        let serial = certificate.tbs_certificate.serial_number.as_bytes();
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(3000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    fn sign_params(&self, params: CertificateParams, key: &KeyPair) -> Pair {
        let certificate = params.signed_by(key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

/// A certificate that has signed itself, with a signature of this kind.
pub(crate) fn self_signed(common_name: &str, hosts: &[&str], algorithm: &'static SignatureAlgorithm) -> Pair {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = named(common_name, hosts).self_signed(&key).unwrap().pem();
    let key = if *algorithm == rcgen::PKCS_ED25519 { ed25519_key(&key) } else { key.serialize_pem() };
    Pair { certificate, key }
}

/// The key in PKCS#8 version 1 (RFC 8410, section 7): OpenSSL 3.0 can't read version 2.
fn ed25519_key(key: &KeyPair) -> String {
    const HEAD_BYTES: usize = 16;
    let mut der = key.serialize_der()[..HEAD_BYTES + 32].to_vec();
    // The length of what is left, and the version.
    (der[1], der[4]) = (u8::try_from(der.len() - 2).unwrap(), 0);
    x509_cert::der::pem::encode_string("PRIVATE KEY", LineEnding::LF, &der).unwrap()
}

fn named(common_name: &str, hosts: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = hosts
        .iter()
        .map(|host| match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(Ia5String::try_from(*host).unwrap()),
        })
        .collect();
    params
}

/// Files that live as long as this.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The server reads some of them, and is another user.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    /// Writes a file, and gives its path.
    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}
