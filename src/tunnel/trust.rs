//! Who we are and whom we trust: certificate, key, authorities and revocation lists, from files.
//!
//! TLS 1.3 only, aws-lc-rs, hybrid post-quantum key exchange X25519MLKEM768 first, both sides
//! show a certificate, ALPN [`ALPN`], no 0-RTT, no tickets, no resumption. The peer's certificate
//! must lead to one of our authorities, be valid now, not be on a revocation list that we hold,
//! and carry the peer's name. An authority for which we hold no list is not checked for
//! revocation; a list past its next update still counts, and is logged at load: a forgotten list
//! must not stop images.
//!
//! Files are read at start and at every reload; an error names the file and what is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ::aws_lc_rs::hmac;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version::TLS13};
use webpki::EndEntityCert;

use super::receipt::server_name;
use crate::cargo::{NodeName, Sha256};
use crate::clock::Timestamp;

/// The application protocol: the name and the major version of the frames on the lanes.
pub const ALPN: &[u8] = b"hikyaku/1";

/// Largest certificate, key, trust or CRL file, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// Where identity and trust stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Our certificate, PEM, leaf first, then intermediates.
    pub certificate: PathBuf,
    /// Its private key, PEM, not encrypted.
    pub key: PathBuf,
    /// The authorities that we trust, PEM.
    pub trust: PathBuf,
    /// Revocation lists, PEM.
    pub crl: Vec<PathBuf>,
}

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Not there, not readable, too large.
    #[error("{}: {why}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Readable, and not what it should be.
    #[error("{}: {why}", file.display())]
    Content {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key do not belong together.
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The TLS library refuses the combination.
    #[error("TLS set-up: {0}")]
    Tls(String),
}

/// Which part the peer plays in the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The peer was dialled.
    Server,
    /// The peer has dialled.
    Client,
}

/// The cryptography of the tunnel.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ];
        Arc::new(provider)
    })
}

/// Whom we trust.
#[derive(Debug, Clone)]
pub struct Trust {
    server: Arc<WebPkiServerVerifier>,
    client: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    fn new(
        roots: RootCertStore,
        crls: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, TrustError> {
        let tls = |e: rustls::client::VerifierBuilderError| TrustError::Tls(e.to_string());
        let (roots, provider) = (Arc::new(roots), provider());
        let server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .with_crls(crls.iter().cloned())
            .allow_unknown_revocation_status()
            .build()
            .map_err(tls)?;
        let client = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(crls)
            .allow_unknown_revocation_status()
            .build()
            .map_err(tls)?;
        Ok(Self { server, client })
    }

    /// Whether the chain (leaf first) leads to one of our authorities at `time`, is not revoked,
    /// and is for `name`. The error says why not.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        name: &NodeName,
        role: Role,
        time: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (leaf, rest) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let name = server_name(name)
            .ok_or_else(|| rustls::Error::General(format!("{name} is not a DNS name")))?;
        match role {
            Role::Server => {
                self.server.verify_server_cert(leaf, rest, &name, &[], time)?;
            }
            Role::Client => {
                self.client.verify_client_cert(leaf, rest, time)?;
                let bad = rustls::CertificateError::NotValidForName;
                EndEntityCert::try_from(leaf)
                    .and_then(|leaf| leaf.verify_is_valid_for_subject_name(&name))
                    .map_err(|_| rustls::Error::InvalidCertificate(bad))?;
            }
        }
        Ok(())
    }
}

/// Who we are and whom we trust, ready for handshakes. Immutable: a reload makes a new one, and
/// each connection keeps the one that it was made with.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
    trust: Trust,
    client: Arc<QuicClientConfig>,
    server: Arc<QuicServerConfig>,
    not_after: Timestamp,
    reset_seed: [u8; 32],
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials {{ not_after: {} }}", self.not_after)
    }
}

impl Credentials {
    /// Reads the files of the node called `node`.
    pub fn load(files: &Files, node: &NodeName) -> Result<Self, TrustError> {
        let chain = certificates(&files.certificate)?;
        let not_after = check_own(&files.certificate, &chain[0], node)?;
        let key = private_key(&files.key)?;
        let reset_seed = reset_seed(&key);
        let key_file = || files.key.clone();
        let signer = provider()
            .key_provider
            .load_private_key(key.clone_key())
            .map_err(|e| TrustError::Content { file: key_file(), why: e.to_string() })?;
        let certified = CertifiedKey::new(chain.clone(), signer.clone());
        certified.keys_match().map_err(|_| TrustError::Mismatch {
            certificate: files.certificate.clone(),
            key: key_file(),
        })?;
        let trust = Trust::new(roots(&files.trust)?, crls(&files.crl)?)?;
        let tls = |e: rustls::Error| TrustError::Tls(e.to_string());
        let mut client = ClientConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(tls)?
            .with_webpki_verifier(trust.server.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(tls)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        let mut server = ServerConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(tls)?
            .with_client_cert_verifier(trust.client.clone())
            .with_single_cert(chain.clone(), key)
            .map_err(tls)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        let suite = |e: quinn::crypto::rustls::NoInitialCipherSuite| TrustError::Tls(e.to_string());
        let client = Arc::new(QuicClientConfig::try_from(client).map_err(suite)?);
        let server = Arc::new(QuicServerConfig::try_from(server).map_err(suite)?);
        Ok(Self { chain, key: signer, trust, client, server, not_after, reset_seed })
    }

    /// Our certificate chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Our key, to sign receipts with.
    pub fn key(&self) -> &dyn SigningKey {
        &*self.key
    }

    /// Whom we trust.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// For connections that we dial.
    pub fn client(&self) -> Arc<QuicClientConfig> {
        self.client.clone()
    }

    /// For connections that come in.
    pub fn server(&self) -> Arc<QuicServerConfig> {
        self.server.clone()
    }

    /// A secret that outlives the process: with it a node that has restarted can tell the peers of
    /// its former life that it has (stateless reset, RFC 9000 10.3).
    pub const fn reset_seed(&self) -> &[u8; 32] {
        &self.reset_seed
    }

    /// When our certificate expires.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

/// When a certificate expires; `None` when it cannot be read.
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(Timestamp(parsed.validity().not_after.timestamp().saturating_mul(1000)))
}

/// Days from `now` until `expiry`, negative when it is past.
pub fn days_left(expiry: Timestamp, now: Timestamp) -> f64 {
    (expiry.0 - now.0) as f64 / 86_400_000.0
}

/// The SHA-256 of a certificate, by which people and logs name it.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Sha256 {
    Sha256::of(certificate)
}

/// The DNS names of a certificate that are names of nodes.
pub fn node_names(certificate: &CertificateDer<'_>) -> Vec<NodeName> {
    EndEntityCert::try_from(certificate)
        .map(|c| c.valid_dns_names().filter_map(|n| n.parse().ok()).collect())
        .unwrap_or_default()
}

fn read(file: &Path) -> Result<Vec<u8>, TrustError> {
    let fail = |why: String| TrustError::Read { file: file.to_owned(), why };
    let meta = fs::metadata(file).map_err(|e| fail(e.to_string()))?;
    if meta.len() > FILE_MAX {
        return Err(fail(format!("larger than {FILE_MAX} bytes")));
    }
    fs::read(file).map_err(|e| fail(e.to_string()))
}

fn content(file: &Path, why: impl ToString) -> TrustError {
    TrustError::Content { file: file.to_owned(), why: why.to_string() }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let pem = read(file)?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|e| content(file, format!("not PEM: {e}")))?;
    if all.is_empty() {
        return Err(content(file, "holds no certificate (BEGIN CERTIFICATE)"));
    }
    Ok(all)
}

fn check_own(
    file: &Path,
    leaf: &CertificateDer<'_>,
    node: &NodeName,
) -> Result<Timestamp, TrustError> {
    if !node_names(leaf).contains(node) {
        let why = format!("the certificate is not for {node}, the name in [node] name");
        return Err(content(file, why));
    }
    not_after(leaf).ok_or_else(|| content(file, "the certificate cannot be read"))
}

fn reset_seed(key: &PrivateKeyDer<'_>) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.secret_der());
    let tag = hmac::sign(&key, b"hikyaku stateless reset");
    tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TrustError> {
    let pem = read(file)?;
    let mode = fs::metadata(file).map(|m| m.permissions().mode()).unwrap_or(0);
    if mode & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "others than the owner may read this private key");
    }
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|e| content(file, format!("holds no usable private key: {e}")))
}

fn roots(file: &Path) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|e| content(file, format!("not an authority: {e}")))?;
    }
    Ok(roots)
}

fn crls(files: &[PathBuf]) -> Result<Vec<CertificateRevocationListDer<'static>>, TrustError> {
    let mut all = vec![];
    for file in files {
        let pem = read(file)?;
        let before = all.len();
        for crl in CertificateRevocationListDer::pem_slice_iter(&pem) {
            let crl = crl.map_err(|e| content(file, format!("not PEM: {e}")))?;
            let (_, parsed) = x509_parser::parse_x509_crl(&crl)
                .map_err(|e| content(file, format!("not a revocation list: {e}")))?;
            if parsed.next_update().is_some_and(|t| t < x509_parser::time::ASN1Time::now()) {
                tracing::warn!(file = %file.display(), "the revocation list is past its next update");
            }
            all.push(crl);
        }
        if all.len() == before {
            return Err(content(file, "holds no revocation list (BEGIN X509 CRL)"));
        }
    }
    Ok(all)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::pki;
    use super::*;
    use std::time::Duration;

    /// A certificate authority for tests, made by our own `pki`.
    pub(crate) struct Authority {
        pub(crate) dir: tempfile::TempDir,
        pair: pki::Pair,
    }

    pub(crate) fn later(by: Duration) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + by)
    }

    impl Authority {
        pub(crate) fn new(name: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let pair = pki::ca(name, crate::clock::wall()).unwrap();
            fs::write(dir.path().join("ca.crt"), &pair.certificate).unwrap();
            Self { dir, pair }
        }

        /// Files of a node; issued `age` days ago for `days` days.
        pub(crate) fn files(&self, name: &str, age: i64, days: u32) -> Files {
            let node: NodeName = name.parse().unwrap();
            let now = Timestamp(crate::clock::wall().0 - age * 86_400_000);
            let pair = pki::issue(&self.pair, &node, days, now).unwrap();
            let at = |s: &str| self.dir.path().join(format!("{name}.{s}"));
            fs::write(at("crt"), &pair.certificate).unwrap();
            fs::write(at("key"), &pair.key).unwrap();
            Files {
                certificate: at("crt"),
                key: at("key"),
                trust: self.dir.path().join("ca.crt"),
                crl: vec![],
            }
        }

        pub(crate) fn node(&self, name: &str) -> Credentials {
            let node = name.parse().unwrap();
            Credentials::load(&self.files(name, 0, pki::NODE_DAYS), &node).unwrap()
        }

        /// Writes a revocation list with the certificate in `file` and gives its path.
        pub(crate) fn revoke(&self, file: &Path) -> PathBuf {
            use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair};
            let leaf = certificates(file).unwrap().remove(0);
            let serial = EndEntityCert::try_from(&leaf).unwrap().serial().to_vec();
            let key = KeyPair::from_pem(&self.pair.key).unwrap();
            let issuer = Issuer::from_ca_cert_pem(&self.pair.certificate, key).unwrap();
            let epoch = rcgen::date_time_ymd(1970, 1, 1);
            let now = Duration::from_secs(UnixTime::now().as_secs());
            let crl = CertificateRevocationListParams {
                this_update: epoch + now,
                next_update: epoch + now + Duration::from_secs(86_400),
                crl_number: 1.into(),
                issuing_distribution_point: None,
                revoked_certs: vec![rcgen::RevokedCertParams {
                    serial_number: serial.into(),
                    revocation_time: epoch + now,
                    reason_code: None,
                    invalidity_date: None,
                }],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            let path = self.dir.path().join("revoked.crl");
            fs::write(&path, crl.signed_by(&issuer).unwrap().pem().unwrap()).unwrap();
            path
        }
    }

    #[test]
    fn every_broken_file_is_named_with_its_reason() {
        let authority = Authority::new("ca");
        let node: NodeName = "a".parse().unwrap();
        let good = authority.files("a", 0, 30);
        let other = authority.files("b", 0, 30);
        let nothing = authority.dir.path().join("nothing.pem");
        let text = authority.dir.path().join("text.pem");
        fs::write(&text, "hello").unwrap();
        for (files, file, why) in [
            (Files { certificate: nothing.clone(), ..good.clone() }, &nothing, "No such file"),
            (Files { certificate: text.clone(), ..good.clone() }, &text, "no certificate"),
            (Files { key: text.clone(), ..good.clone() }, &text, "no usable private key"),
            (Files { key: other.key.clone(), ..good.clone() }, &other.key, "is not the key of"),
            (Files { trust: text.clone(), ..good.clone() }, &text, "no certificate"),
            (Files { crl: vec![text.clone()], ..good.clone() }, &text, "no revocation list"),
            (other.clone(), &other.certificate, "is not for a"),
        ] {
            let error = Credentials::load(&files, &node).unwrap_err().to_string();
            assert!(error.contains(&file.display().to_string()), "{error}");
            assert!(error.contains(why), "{error}");
        }
        Credentials::load(&good, &node).unwrap();
    }

    #[test]
    fn a_revoked_certificate_is_no_longer_trusted_in_either_role() {
        let authority = Authority::new("ca");
        let mut files = authority.files("a", 0, 30);
        let peer = authority.files("b", 0, 30);
        let chain = certificates(&peer.certificate).unwrap();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let before = Credentials::load(&files, &a).unwrap();
        files.crl = vec![authority.revoke(&peer.certificate)];
        let after = Credentials::load(&files, &a).unwrap();
        for role in [Role::Server, Role::Client] {
            before.trust().verify(&chain, &b, role, UnixTime::now()).unwrap();
            let error = after.trust().verify(&chain, &b, role, UnixTime::now()).unwrap_err();
            let revoked = rustls::CertificateError::Revoked;
            assert_eq!(error, rustls::Error::InvalidCertificate(revoked));
        }
    }

    #[test]
    fn the_days_left_of_a_certificate_are_those_it_was_issued_for() {
        let authority = Authority::new("ca");
        let credentials = authority.node("a");
        let days = days_left(credentials.not_after(), crate::clock::wall());
        assert!((396.9..397.1).contains(&days), "{days}");
    }

    #[test]
    fn the_first_key_exchange_offered_is_the_post_quantum_hybrid() {
        assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }
}
