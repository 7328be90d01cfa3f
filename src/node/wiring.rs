//! From the checked configuration to what each part is told.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statvfs::statvfs;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;

use crate::cargo::NodeName;
use crate::config::{
    ClientTls, Config, DestinationKind, DicomDestination, Reencode, ServerTls, Share,
};
use crate::custody::{self, AssemblyLimits, RoomLimits};
use crate::delivery::backoff::Backoff;
use crate::dicom::AeTitle;
use crate::{delivery, intake, tunnel};

/// A file or name that a part needs and that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// A PEM file.
    #[error("{}: {why}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// A value that the configuration's check let pass.
    #[error("{key}: {why}")]
    Value {
        /// Which key.
        key: String,
        /// Why.
        why: String,
    },
}

fn file_error(file: &Path, why: impl ToString) -> WiringError {
    WiringError::File { file: file.into(), why: why.to_string() }
}

/// What custody is told.
pub(super) fn custody(config: &Config) -> custody::Config {
    let spool = &config.spool;
    let object = config.dicom.as_ref().map(|d| d.limits.object);
    let object = object.max(config.tunnel.as_ref().map(|t| t.limits.object));
    let mut out = custody::Config::new(config.node.name.clone(), config.node.data.clone());
    out.room = room(config);
    out.assembly = AssemblyLimits {
        memory: spool.memory,
        object: object.unwrap_or(out.assembly.object),
        parked: usize::try_from(spool.partials).unwrap_or(usize::MAX),
        parked_seconds: spool.partial_age.as_secs(),
    };
    out.segment_size = spool.segment;
    out.retention = spool.retention;
    out.tombstones = spool.tombstones;
    out
}

/// Watermarks and quotas.
pub(super) fn room(config: &Config) -> RoomLimits {
    let spool = &config.spool;
    let size = || {
        statvfs(&config.node.data).map_or(u64::MAX, |fs| fs.blocks() * fs.fragment_size())
    };
    let capacity = spool.capacity.unwrap_or_else(size);
    let bytes = |share: &Share| share.of(capacity);
    let destinations = config.destinations.iter();
    let destination_quota = destinations
        .filter_map(|d| Some((d.name.clone(), bytes(d.quota.as_ref()?))))
        .collect();
    let mut origin_quota: HashMap<NodeName, u64> = HashMap::new();
    for (name, _) in config.peers() {
        let own = config.tunnel.iter().flat_map(|t| &t.peers).find(|p| p.name == name);
        let quota = own.and_then(|p| p.quota.as_ref()).or(spool.quota_per_origin.as_ref());
        if let Some(quota) = quota {
            origin_quota.insert(name, bytes(quota));
        }
    }
    RoomLimits {
        capacity: spool.capacity,
        high_watermark: spool.high_watermark,
        stat_watermark: spool.high_watermark.saturating_add(spool.stat_share).min(100),
        reserve: spool.reserve,
        destination_quota,
        origin_quota,
    }
}

fn ae_title(key: &str, title: &str) -> Result<AeTitle, WiringError> {
    title.parse().map_err(|e| WiringError::Value { key: key.into(), why: format!("{title}: {e}") })
}

/// What the intake is told; `None`: no `[dicom]` section.
pub(super) fn intake(config: &Config) -> Option<intake::Config> {
    let dicom = config.dicom.as_ref()?;
    let limits = &dicom.limits;
    let whole = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let everywhere = ["0.0.0.0/0", "::/0"];
    let mut allow = Vec::new();
    for entry in &dicom.allow {
        let networks: Vec<String> = match &entry.address {
            Some(network) => vec![network.to_string()],
            None => everywhere.map(str::to_owned).to_vec(),
        };
        let ae_title = entry.ae_title.as_ref().and_then(|t| t.parse().ok());
        let networks = networks.iter().filter_map(|n| n.parse().ok());
        allow.extend(networks.map(|network| intake::Allow { ae_title: ae_title.clone(), network }));
    }
    Some(intake::Config {
        listen: dicom.listen,
        tls_listen: dicom.tls_listen,
        ae_titles: dicom.ae_titles.iter().filter_map(|t| t.parse().ok()).collect(),
        allow,
        refuse_sop_classes: dicom.refuse_sop_classes.iter().cloned().collect::<BTreeSet<_>>(),
        limits: intake::Limits {
            associations: whole(limits.associations),
            associations_per_address: whole(limits.associations_per_address),
            pdu_length: u32::try_from(limits.pdu).unwrap_or(u32::MAX),
            artim: limits.artim,
            idle: limits.idle,
            dimse: limits.stall,
            message: limits.total,
            drain: config.drain.timeout / 2,
        },
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, WiringError> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<_, _>>);
    let found: Vec<_> = found.map_err(|e| file_error(file, e))?;
    match found.is_empty() {
        true => Err(file_error(file, "holds no certificate")),
        false => Ok(found),
    }
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, WiringError> {
    PrivateKeyDer::from_pem_file(file).map_err(|e| file_error(file, e))
}

fn roots(file: &Path) -> Result<Arc<RootCertStore>, WiringError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store.add(certificate).map_err(|e| file_error(file, e))?;
    }
    Ok(Arc::new(store))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS 1.2 and 1.3 for modalities (PS3.15 B.12); with `trust`, they must show a certificate.
pub(super) fn intake_tls(config: &Config) -> Result<Option<Arc<rustls::ServerConfig>>, WiringError> {
    let Some(tls) = config.dicom.as_ref().and_then(|d| d.tls.as_ref()) else { return Ok(None) };
    server_tls(tls).map(Some)
}

fn server_tls(tls: &ServerTls) -> Result<Arc<rustls::ServerConfig>, WiringError> {
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| file_error(&tls.certificate, e))?;
    let builder = match &tls.trust {
        None => builder.with_no_client_auth(),
        Some(trust) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots(trust)?, provider());
            let verifier = verifier.build().map_err(|e| file_error(trust, e))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates(&tls.certificate)?;
    let built = builder.with_single_cert(chain, key(&tls.key)?);
    Ok(Arc::new(built.map_err(|e| file_error(&tls.key, e))?))
}

fn client_tls(tls: &ClientTls, host: &str) -> Result<delivery::Tls, WiringError> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| file_error(&tls.trust, e))?
        .with_root_certificates(roots(&tls.trust)?);
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key_file)) => builder
            .with_client_auth_cert(certificates(certificate)?, key(key_file)?)
            .map_err(|e| file_error(key_file, e))?,
    };
    let name = tls.server_name.as_deref().unwrap_or(host).to_owned();
    let server_name = ServerName::try_from(name.clone()).map_err(|_| WiringError::Value {
        key: "destination.tls.server_name".into(),
        why: format!("{name} is no DNS name or address"),
    })?;
    Ok(delivery::Tls { config: Arc::new(config), server_name })
}

/// What the senders are told. Nodes are the tunnel's.
pub(super) fn destinations(config: &Config) -> Result<Vec<delivery::Destination>, WiringError> {
    let mut out = Vec::new();
    for destination in &config.destinations {
        let (target, backoff) = match &destination.kind {
            DestinationKind::Node { .. } => continue,
            DestinationKind::Folder { path } => {
                (delivery::Target::Folder(path.clone()), delivery::DESTINATION_BACKOFF)
            }
            DestinationKind::Dicom(dicom) => {
                let backoff = Backoff { first: dicom.backoff, cap: dicom.backoff_max };
                (delivery::Target::Dicom(target(dicom)?), backoff)
            }
        };
        out.push(delivery::Destination { name: destination.name.clone(), target, backoff });
    }
    Ok(out)
}

fn target(dicom: &DicomDestination) -> Result<delivery::DicomTarget, WiringError> {
    let host = dicom.address.host.clone();
    let tls = dicom.tls.as_ref().map(|tls| client_tls(tls, &host)).transpose()?;
    let associations = usize::try_from(dicom.associations).ok().and_then(NonZeroUsize::new);
    Ok(delivery::DicomTarget {
        host,
        port: dicom.address.port,
        called: ae_title("destination.ae_title", &dicom.ae_title)?,
        calling: ae_title("destination.calling_ae", &dicom.calling_ae)?,
        tls,
        associations: associations.unwrap_or(NonZeroUsize::MIN),
        reencode: match dicom.reencode {
            Reencode::Never => delivery::Reencode::Never,
            Reencode::Native => delivery::Reencode::Native,
        },
        reencode_length_max: delivery::REENCODE_LENGTH_MAX,
        timeouts: delivery::Timeouts {
            connect: dicom.timeouts.connect,
            associate: dicom.timeouts.association,
            response: dicom.timeouts.response,
            write: dicom.timeouts.send,
            idle: dicom.timeouts.idle,
        },
    })
}

/// What the tunnel is told; `None`: no `[tunnel]` section.
pub(super) fn tunnel(config: &Config) -> Option<tunnel::Config> {
    let section = config.tunnel.as_ref()?;
    let limits = &section.limits;
    let word = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let address = |name: &NodeName| {
        config.destinations.iter().find_map(|d| match &d.kind {
            DestinationKind::Node { address } if d.name == *name => {
                address.as_ref().map(ToString::to_string)
            }
            _ => None,
        })
    };
    let peers = config.peers().into_iter().map(|(name, relay)| tunnel::PeerConfig {
        address: address(&name),
        relay: relay.to_vec(),
        name,
    });
    Some(tunnel::Config {
        listen: section.listen,
        files: tunnel::Files {
            certificate: section.certificate.clone(),
            key: section.key.clone(),
            trust: section.trust.clone(),
            crl: section.crl.iter().cloned().collect(),
        },
        peers: peers.collect(),
        limits: tunnel::Limits {
            receive_window: word(limits.window),
            lane_window: word(limits.lane_window),
            lanes: limits.lanes,
            idle: limits.idle,
            keep_alive: limits.keep_alive,
            handshake: limits.handshake,
            drain: config.drain.timeout / 3,
            ..tunnel::Limits::default()
        },
    })
}
