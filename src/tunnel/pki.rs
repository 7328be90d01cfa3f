//! A private certificate authority in one step, and node certificates in another.
//!
//! ECDSA P-256 throughout. The name of a node is the only name in its certificate (subject
//! alternative name, DNS form), which is valid as TLS server and as TLS client, because either
//! side may dial. Keys are written with mode 0600, to a temporary name that is then renamed, and
//! an existing key is never overwritten. A certificate is renewed for the key that it has: the
//! authority needs the old certificate for that, not the node's private key.
//!
//! Limits: the authority is valid for [`CA_DAYS`], a node for [`NODE_DAYS`] unless said otherwise.
//! Revocation is by CRL files that other tools make (`openssl ca -gencrl`); this module issues only.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cargo::NodeName;
use crate::clock::Timestamp;

/// How long an authority is valid, in days: ten years.
pub const CA_DAYS: u32 = 3653;
/// How long a node certificate is valid unless said otherwise, in days.
pub const NODE_DAYS: u32 = 397;
/// How far validity begins in the past, so that a node whose clock lags accepts it: one hour.
const BACKDATE: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Folder of certificates that a renewal has replaced: while they are valid, a stolen key needs
/// them on the revocation list too.
const REPLACED: &str = "replaced";

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair")
    }
}

/// Why no certificate was made or written.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library refused.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The name would be read as an address, or is no DNS name.
    #[error("{0} cannot stand in a certificate: it is not a DNS name")]
    Name(NodeName),
    /// The authority's certificate or key cannot be used.
    #[error("{}: not the certificate or key of an authority: {source}", file.display())]
    Authority {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// A key is there already.
    #[error("{} exists: a key is never overwritten; move it away first", .0.display())]
    Exists(PathBuf),
    /// What is to be renewed is no certificate of that node.
    #[error("{}: not a certificate for {node}", file.display())]
    NotOf {
        /// Which file.
        file: PathBuf,
        /// Whose it should be.
        node: NodeName,
    },
    /// Reading or writing failed.
    #[error("{}: {source}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn params(common_name: &str, days: u32, now: Timestamp) -> Result<CertificateParams, PkiError> {
    let mut p = CertificateParams::default();
    let now = Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    p.not_before = epoch + now.saturating_sub(BACKDATE);
    p.not_after = epoch + now + DAY * days;
    p.distinguished_name = DistinguishedName::new();
    p.distinguished_name.push(DnType::CommonName, common_name);
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    serial[0] &= 0x7f;
    p.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(p)
}

/// Makes a self-signed authority called `name`.
pub fn ca(name: &str, now: Timestamp) -> Result<Pair, PkiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut p = params(name, CA_DAYS, now)?;
    p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = p.self_signed(&key)?.pem();
    Ok(Pair { certificate, key: key.serialize_pem() })
}

/// Makes a key and a certificate for a node, signed by the authority.
pub fn issue(
    authority: &Pair,
    node: &NodeName,
    days: u32,
    now: Timestamp,
) -> Result<Pair, PkiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = certify(authority, node, &key, days, now)?;
    Ok(Pair { certificate, key: key.serialize_pem() })
}

/// A certificate for `node` over `key`, PEM.
fn certify(
    authority: &Pair,
    node: &NodeName,
    key: &impl PublicKeyData,
    days: u32,
    now: Timestamp,
) -> Result<String, PkiError> {
    if node.as_str().parse::<IpAddr>().is_ok() || super::receipt::server_name(node).is_none() {
        return Err(PkiError::Name(node.clone()));
    }
    let ca_key = KeyPair::from_pem(&authority.key)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, ca_key)?;
    let mut p = params(node.as_str(), days, now)?;
    p.subject_alt_names = CertificateParams::new(vec![node.to_string()])?.subject_alt_names;
    p.is_ca = IsCa::ExplicitNoCa;
    p.use_authority_key_identifier_extension = true;
    p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    p.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(p.signed_by(key, &issuer)?.pem())
}

/// `hikyaku pki ca`: writes `ca.crt` and `ca.key` in `dir`, which is created with mode 0700 when
/// absent.
pub fn write_ca(dir: &Path, name: &str, now: Timestamp) -> Result<(), PkiError> {
    create_dir(dir)?;
    let pair = ca(name, now)?;
    write_pair(dir, "ca", &pair)
}

/// `hikyaku pki issue`: writes `NODE.crt` and `NODE.key` in `dir`, signed by `ca.crt` and
/// `ca.key` there.
pub fn write_node(dir: &Path, node: &NodeName, days: u32, now: Timestamp) -> Result<(), PkiError> {
    let pair = issue(&authority(dir)?, node, days, now)?;
    write_pair(dir, node.as_str(), &pair)
}

/// `hikyaku pki issue --renew`: writes a new `NODE.crt` in `dir` for the key of the old one, which
/// is kept as the file that is returned.
pub fn renew_node(
    dir: &Path,
    node: &NodeName,
    days: u32,
    now: Timestamp,
) -> Result<PathBuf, PkiError> {
    let file = dir.join(format!("{node}.crt"));
    let old = read(&file)?;
    let not_of = || PkiError::NotOf { file: file.clone(), node: node.clone() };
    let der = CertificateDer::from_pem_slice(old.as_bytes()).map_err(|_| not_of())?;
    if super::trust::node_names(&der) != [node.clone()] {
        return Err(not_of());
    }
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| not_of())?;
    let key = SubjectPublicKeyInfo::from_der(parsed.public_key().raw)?;
    let certificate = certify(&authority(dir)?, node, &key, days, now)?;
    let replaced = dir.join(REPLACED);
    create_dir(&replaced)?;
    let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let kept = replaced.join(format!("{node}-{serial}.crt"));
    write_over(&replaced, &kept, &old)?;
    write_over(dir, &file, &certificate)?;
    Ok(kept)
}

/// `ca.crt` and `ca.key` of `dir`, looked at.
fn authority(dir: &Path) -> Result<Pair, PkiError> {
    let (crt, key) = (dir.join("ca.crt"), dir.join("ca.key"));
    let authority = Pair { certificate: read(&crt)?, key: read(&key)? };
    let ca_key = KeyPair::from_pem(&authority.key)
        .map_err(|source| PkiError::Authority { file: key, source })?;
    Issuer::from_ca_cert_pem(&authority.certificate, ca_key)
        .map_err(|source| PkiError::Authority { file: crt, source })?;
    Ok(authority)
}

fn at(file: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let file = file.to_owned();
    |source| PkiError::Io { file, source }
}

fn create_dir(dir: &Path) -> Result<(), PkiError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))
}

fn read(file: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(file).map_err(at(file))
}

/// The key first: a certificate without its key would look finished and not be.
fn write_pair(dir: &Path, stem: &str, pair: &Pair) -> Result<(), PkiError> {
    let key = dir.join(format!("{stem}.key"));
    write_new(&key, &pair.key, 0o600)?;
    write_over(dir, &dir.join(format!("{stem}.crt")), &pair.certificate)
}

/// Writes a certificate in `dir` as a whole: whoever reads it meanwhile reads the old one.
fn write_over(dir: &Path, file: &Path, certificate: &str) -> Result<(), PkiError> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    write_part(&part, certificate, 0o644)?;
    std::fs::rename(&part, file).map_err(at(file))?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(at(dir))
}

/// Writes a file that must not exist. A hard link to the final name fails if it is taken, which a
/// rename would not.
fn write_new(file: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    write_part(&part, text, mode)?;
    let linked = std::fs::hard_link(&part, file);
    std::fs::remove_file(&part).map_err(at(&part))?;
    linked.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => PkiError::Exists(file.to_owned()),
        _ => at(file)(e),
    })
}

fn write_part(part: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let _ = std::fs::remove_file(part);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(part)
        .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
        .map_err(at(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn node(s: &str) -> NodeName {
        s.parse().unwrap()
    }

    #[test]
    fn keys_are_readable_by_their_owner_only_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let now = crate::clock::wall();
        write_ca(dir.path(), "test", now).unwrap();
        write_node(dir.path(), &node("a"), NODE_DAYS, now).unwrap();
        for key in ["ca.key", "a.key"] {
            let mode = std::fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        let before = std::fs::read(dir.path().join("a.key")).unwrap();
        let again = write_node(dir.path(), &node("a"), NODE_DAYS, now);
        assert!(matches!(again, Err(PkiError::Exists(_))));
        assert!(matches!(write_ca(dir.path(), "test", now), Err(PkiError::Exists(_))));
        assert_eq!(std::fs::read(dir.path().join("a.key")).unwrap(), before);
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 4, "no temporary file is left behind");
    }

    #[test]
    fn a_renewed_certificate_is_for_the_key_that_the_node_has_and_needs_no_private_key() {
        let dir = tempfile::tempdir().unwrap();
        let now = crate::clock::wall();
        write_ca(dir.path(), "test", now).unwrap();
        write_node(dir.path(), &node("a"), 30, now).unwrap();
        let [old, key] = ["a.crt", "a.key"].map(|f| std::fs::read(dir.path().join(f)).unwrap());
        std::fs::rename(dir.path().join("a.key"), dir.path().join("elsewhere")).unwrap();
        let kept = renew_node(dir.path(), &node("a"), 60, now).unwrap();
        assert_eq!(std::fs::read(kept).unwrap(), old);
        std::fs::write(dir.path().join("a.key"), key).unwrap();
        let files = super::super::trust::Files {
            certificate: dir.path().join("a.crt"),
            key: dir.path().join("a.key"),
            trust: dir.path().join("ca.crt"),
            crl: vec![],
        };
        let credentials = super::super::trust::Credentials::load(&files, &node("a")).unwrap();
        let days = super::super::trust::days_left(credentials.not_after(), now);
        assert!((59.0..61.0).contains(&days), "{days}");
    }

    #[test]
    fn only_a_certificate_of_that_node_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let now = crate::clock::wall();
        write_ca(dir.path(), "test", now).unwrap();
        let absent = renew_node(dir.path(), &node("a"), 1, now).unwrap_err();
        assert!(absent.to_string().contains("a.crt"), "{absent}");
        write_node(dir.path(), &node("b"), 1, now).unwrap();
        std::fs::copy(dir.path().join("b.crt"), dir.path().join("a.crt")).unwrap();
        let wrong = renew_node(dir.path(), &node("a"), 1, now).unwrap_err();
        assert!(matches!(wrong, PkiError::NotOf { .. }), "{wrong}");
    }

    #[test]
    fn a_name_that_reads_as_an_address_gets_no_certificate() {
        let authority = ca("test", crate::clock::wall()).unwrap();
        for bad in ["10.0.0.1", "a..b", "1.2.3.4"] {
            let error = issue(&authority, &node(bad), 1, crate::clock::wall()).unwrap_err();
            assert!(matches!(error, PkiError::Name(_)), "{bad}");
        }
    }

    #[test]
    fn issuing_without_an_authority_names_the_missing_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_node(dir.path(), &node("a"), 1, crate::clock::wall()).unwrap_err();
        assert!(error.to_string().contains("ca.crt"), "{error}");
    }
}
