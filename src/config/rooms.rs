//! From sections to what each room of the house is started with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::cargo::{DestinationName, NodeName};
use crate::custody::Follower;
use crate::{custody, delivery, intake, tunnel};

use super::orders::Hl7Section;
use super::sections::*;
use super::{Config, Share};

/// Why TLS cannot be spoken with the configured files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate, key or authorities cannot be used.
    #[error("{}: {source}", file.display())]
    Unusable {
        /// The certificate or authority.
        file: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The name that the other side's certificate should have is none.
    #[error("'{0}' can stand in no certificate")]
    ServerName(String),
}

impl Config {
    /// What custody is opened with. `disk` is the size of the file system of `node.data` in bytes,
    /// of which shares are taken when the spool has no capacity of its own.
    pub fn custody(&self, disk: u64) -> custody::Config {
        let spool = &self.spool;
        let defaults = custody::Config::new(self.node.name.clone(), self.node.data.clone());
        let followers = [
            self.orders.as_ref().map(|_| Follower::Orders),
            self.reports.as_ref().and(self.orders.as_ref()).map(|_| Follower::Reports),
        ];
        custody::Config {
            room: self.room(disk),
            assembly: custody::AssemblyLimits {
                memory: spool.memory,
                object: spool.object,
                parked: spool.partials,
                parked_seconds: spool.partial_age.as_secs(),
            },
            segment_size: spool.segment,
            retention: spool.retention,
            tombstones: spool.tombstones,
            told: self.peers().into_keys().collect(),
            keep_reports: self.reports.as_ref().map_or(defaults.keep_reports, |r| r.keep),
            followed: followers.into_iter().flatten().collect(),
            ..defaults
        }
    }

    /// The watermarks and quotas of custody, at start and after a reload. `disk` as in
    /// [`custody`](Self::custody).
    pub fn room(&self, disk: u64) -> custody::RoomLimits {
        let spool = &self.spool;
        let capacity = spool.capacity.unwrap_or(disk);
        let bytes = |share: Share| share.of(capacity);
        let destinations = self.destinations.iter();
        let destination_quota: HashMap<DestinationName, u64> = destinations
            .filter_map(|d| d.quota.map(|quota| (d.name.clone(), bytes(quota))))
            .collect();
        custody::RoomLimits {
            capacity: spool.capacity,
            high_watermark: spool.high_watermark,
            stat_watermark: spool.stat_watermark,
            reserve: spool.reserve,
            destination_quota,
            origin_quota: self.origin_quotas().map(|(name, quota)| (name, bytes(quota))).collect(),
        }
    }

    /// Quotas of the nodes that bring cargo and of the origins that they relay. This node's own
    /// intake has none: its watermark is the quota.
    fn origin_quotas(&self) -> impl Iterator<Item = (NodeName, Share)> {
        let own = |name: &NodeName| {
            let peers = self.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
            peers.filter(|peer| peer.name == *name).find_map(|peer| peer.quota)
        };
        let peers = self.peers().into_iter();
        let names: Vec<NodeName> =
            peers.flat_map(|(name, relay)| std::iter::once(name).chain(relay.to_vec())).collect();
        names.into_iter().filter_map(move |name| {
            Some((name.clone(), own(&name).or(self.spool.quota_per_origin)?))
        })
    }

    /// What the DICOM intake is started with, and goes on with after a reload.
    pub fn intake(&self) -> Option<intake::Config> {
        let dicom = self.dicom.as_ref()?;
        Some(intake::Config {
            listen: dicom.listen,
            tls_listen: dicom.tls_listen,
            ae_titles: dicom.ae_titles.clone(),
            allow: dicom.allow.iter().flat_map(allow).collect(),
            refuse_sop_classes: dicom.refuse_sop_classes.clone(),
            limits: dicom.limits.clone(),
        })
    }

    /// What the TLS listener of the DICOM intake shows and asks for; reads the files.
    pub fn intake_tls(&self) -> Result<Option<Arc<ServerConfig>>, TlsError> {
        match self.dicom.as_ref().and_then(|dicom| dicom.tls.as_ref()) {
            Some(tls) => server(tls).map(|config| Some(Arc::new(config))),
            None => Ok(None),
        }
    }

    /// What the TLS listener for orders by HL7 shows and asks for; reads the files.
    pub fn hl7_tls(&self) -> Result<Option<Arc<ServerConfig>>, TlsError> {
        mllp_tls(self.orders.as_ref().and_then(|orders| orders.hl7.as_ref()))
    }

    /// What the TLS listener for reports by HL7 shows and asks for; reads the files.
    pub fn reports_tls(&self) -> Result<Option<Arc<ServerConfig>>, TlsError> {
        mllp_tls(self.reports.as_ref().and_then(|reports| reports.collect.hl7.as_ref()))
    }

    /// What the tunnel is started with.
    pub fn tunnel(&self) -> Option<tunnel::Config> {
        let section = self.tunnel.as_ref()?;
        let address = |name: &NodeName| {
            self.destinations.iter().find(|d| d.name == *name).and_then(|d| match &d.kind {
                DestinationKind::Node { address } => address.as_ref().map(ToString::to_string),
                _ => None,
            })
        };
        let peer = |(name, relay): (NodeName, &[NodeName])| tunnel::PeerConfig {
            address: address(&name),
            relay: relay.to_vec(),
            name,
        };
        Some(tunnel::Config {
            listen: section.listen,
            files: tunnel::Files {
                certificate: section.certificate.clone(),
                key: section.key.clone(),
                trust: section.trust.clone(),
                crl: section.crl.clone(),
            },
            peers: self.peers().into_iter().map(peer).collect(),
            limits: section.limits.clone(),
        })
    }

    /// The files that TLS to destinations is made of.
    pub fn delivery_files(&self) -> Vec<&Path> {
        let tls = self.destinations.iter().filter_map(|d| match &d.kind {
            DestinationKind::Dicom(dicom) => dicom.tls.as_ref(),
            DestinationKind::Hl7(hl7) => hl7.tls.as_ref(),
            DestinationKind::Node { .. } | DestinationKind::Folder { .. } => None,
        });
        let mut files = Vec::new();
        for ClientTls { trust, identity, server_name: _ } in tls {
            files.push(trust.as_path());
            files.extend(identity.iter().flat_map(|(crt, key)| [crt.as_path(), key.as_path()]));
        }
        files
    }

    /// The destinations of delivery, which are all but the nodes; reads the files of TLS.
    pub fn delivery(&self) -> Result<Vec<delivery::Destination>, TlsError> {
        let one = |destination: &Destination| {
            let (target, backoff) = match &destination.kind {
                DestinationKind::Node { .. } => return Ok(None),
                DestinationKind::Folder { path, backoff } => {
                    (delivery::Target::Folder(path.clone()), *backoff)
                }
                DestinationKind::Dicom(dicom) => {
                    (delivery::Target::Dicom(dicom_target(dicom)?), dicom.backoff)
                }
                DestinationKind::Hl7(hl7) => (delivery::Target::Hl7(hl7.target()?), hl7.backoff),
            };
            Ok(Some(delivery::Destination { name: destination.name.clone(), target, backoff }))
        };
        self.destinations.iter().map(one).filter_map(Result::transpose).collect()
    }
}

fn mllp_tls(hl7: Option<&Hl7Section>) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    match hl7.and_then(|hl7| hl7.tls.as_ref()) {
        Some(tls) => server(tls).map(|config| Some(Arc::new(config))),
        None => Ok(None),
    }
}

/// An entry without an address stands for both families.
fn allow(entry: &Allow) -> Vec<intake::Allow> {
    let networks = match entry.address {
        Some(network) => vec![network],
        None => ["0.0.0.0/0", "::/0"].map(|all| all.parse().expect("a network")).to_vec(),
    };
    let one = |network| intake::Allow { ae_title: entry.ae_title.clone(), network };
    networks.into_iter().map(one).collect()
}

fn dicom_target(dicom: &DicomDestination) -> Result<delivery::DicomTarget, TlsError> {
    Ok(delivery::DicomTarget {
        host: dicom.address.host.clone(),
        port: dicom.address.port,
        called: dicom.ae_title.clone(),
        calling: dicom.calling_ae.clone(),
        tls: dicom.tls.as_ref().map(|tls| client(tls, &dicom.address.host)).transpose()?,
        associations: dicom.associations,
        reencode: dicom.reencode,
        reencode_length_max: dicom.reencode_length_max,
        timeouts: dicom.timeouts,
    })
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::File { file: file.to_owned(), source })
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|source| TlsError::File { file: file.to_owned(), source })
}

pub(super) fn unusable(file: &Path) -> impl Fn(rustls::Error) -> TlsError {
    move |source| TlsError::Unusable { file: file.to_owned(), source }
}

pub(super) fn authorities(file: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(file)? {
        roots.add(certificate).map_err(unusable(file))?;
    }
    Ok(Arc::new(roots))
}

fn revocations(files: &[PathBuf]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let mut all = Vec::new();
    for file in files {
        let lists = CertificateRevocationListDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| TlsError::File { file: file.clone(), source })?;
        all.extend(lists);
    }
    Ok(all)
}

/// TLS 1.2 and 1.3 with the provider's suites, which are those of BCP 195 (PS3.15 B.12). Where
/// there are authorities, peers must show a certificate.
fn server(tls: &ServerTls) -> Result<ServerConfig, TlsError> {
    server_with(tls, &[], false)
}

/// The same with revocation lists; `optional`: peers may come without a certificate. An authority
/// without a list is not checked for revocation, as on the tunnel.
pub(super) fn server_with(
    tls: &ServerTls,
    crl: &[PathBuf],
    optional: bool,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable(&tls.certificate))?;
    let builder = match &tls.trust {
        None => builder.with_no_client_auth(),
        Some(trust) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(authorities(trust)?, provider)
                    .with_crls(revocations(crl)?)
                    .allow_unknown_revocation_status();
            let verifier = match optional {
                true => verifier.allow_unauthenticated(),
                false => verifier,
            };
            let verifier = verifier
                .build()
                .map_err(|e| unusable(trust)(rustls::Error::General(e.to_string())))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder
        .with_single_cert(chain(&tls.certificate)?, key(&tls.key)?)
        .map_err(unusable(&tls.certificate))
}

pub(super) fn client(tls: &ClientTls, host: &str) -> Result<delivery::Tls, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable(&tls.trust))?
        .with_root_certificates(authorities(&tls.trust)?);
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, private)) => builder
            .with_client_auth_cert(chain(certificate)?, key(private)?)
            .map_err(unusable(certificate))?,
    };
    let name = tls.server_name.as_deref().unwrap_or(host);
    let server_name =
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))?;
    Ok(delivery::Tls { config: Arc::new(config), server_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading_centre(more: &str) -> Config {
        let text = format!(
            "[node]\nname = 'rc'\n[spool]\ncapacity = '100 GiB'\nquota_per_origin = '10 %'\n\
             [tunnel]\nlisten = '0.0.0.0:4433'\ncertificate = 'c'\nkey = 'k'\ntrust = 't'\n\
             peers = [{{ name = 'a', relay = ['clinic'] }}, {{ name = 'b', quota = '1 GiB' }}]\n\
             [[destination]]\nname = 'a'\nkind = 'node'\naddress = 'a.example:4433'\n\
             [[destination]]\nname = 'pacs'\nkind = 'dicom'\naddress = 'pacs:104'\n\
             ae_title = 'PACS'\nquota = '50 %'\n{more}\n\
             [[destination]]\nname = 'f'\nkind = 'folder'\npath = '/f'\n"
        );
        Config::parse(&text, Path::new("/etc/h.toml")).map(|(config, _)| config).unwrap()
    }

    #[test]
    fn quotas_become_bytes_of_the_spool_and_an_origins_own_goes_before_the_general_one() {
        let room = reading_centre("").room(1);
        let origins: HashMap<_, _> =
            room.origin_quota.iter().map(|(name, quota)| (name.as_str(), quota >> 30)).collect();
        assert_eq!(origins, HashMap::from([("a", 10), ("b", 1), ("clinic", 10)]));
        let pacs: DestinationName = "pacs".parse().unwrap();
        assert_eq!(room.destination_quota, HashMap::from([(pacs, 50 << 30)]));
    }

    #[test]
    fn a_peer_that_is_a_destination_too_is_dialled_and_keeps_what_it_may_relay() {
        let tunnel = reading_centre("").tunnel().unwrap();
        let a = &tunnel.peers[0];
        assert_eq!((a.name.as_str(), a.address.as_deref()), ("a", Some("a.example:4433")));
        assert_eq!(a.relay[0].as_str(), "clinic");
        assert_eq!(tunnel.peers[1].address, None);
    }

    #[test]
    fn delivery_gets_every_destination_but_the_nodes() {
        let destinations = reading_centre("").delivery().unwrap();
        let names: Vec<_> = destinations.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["pacs", "f"]);
        let missing = reading_centre("tls = { trust = 'none.crt' }").delivery();
        assert!(matches!(missing, Err(TlsError::File { .. })), "{missing:?}");
    }

    #[test]
    fn a_sender_without_an_address_is_let_in_from_both_families() {
        let entry = Allow { ae_title: None, address: None };
        let networks: Vec<_> = allow(&entry).iter().map(|a| a.network.to_string()).collect();
        assert_eq!(networks, ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn tls_of_both_sides_is_built_from_files_of_one_authority() {
        let folder = tempfile::tempdir().unwrap();
        let now = crate::clock::wall();
        tunnel::pki::write_ca(folder.path(), "test", now).unwrap();
        tunnel::pki::write_node(folder.path(), &"pacs".parse().unwrap(), 30, now).unwrap();
        let [certificate, private, trust] =
            ["pacs.crt", "pacs.key", "ca.crt"].map(|file| folder.path().join(file));
        let listener =
            ServerTls { certificate: certificate.clone(), key: private.clone(), trust: None };
        assert!(server(&ServerTls { trust: Some(trust.clone()), ..listener.clone() }).is_ok());
        assert!(server(&listener).is_ok());
        let wrong = ServerTls { key: trust.clone(), ..listener };
        assert!(matches!(server(&wrong), Err(TlsError::File { .. })));
        let ours = ClientTls { trust, identity: Some((certificate, private)), server_name: None };
        assert!(client(&ours, "pacs").is_ok());
        assert!(matches!(client(&ours, "not a name"), Err(TlsError::ServerName(_))));
    }
}
