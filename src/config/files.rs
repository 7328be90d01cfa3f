//! The files that a configuration names: certificates, keys, folders. This is an edge: it reads
//! the disk and the wall clock.
//!
//! What would keep the node from starting is a problem. What it can start with (a certificate
//! that has expired: intake goes on, and the tunnel says why it does not) is a warning.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::unistd::{AccessFlags, access};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cargo::NodeName;
use crate::clock::Timestamp;

use super::api::{self, ApiSection};
use super::read::Document;
use super::sections::*;
use super::source::Source;
use super::value::CREDENTIALS;

/// Days before its end at which a certificate is worth a warning.
const CERTIFICATE_DAYS_MIN: i64 = 30;

/// Largest file that is read, in bytes: chains and revocation lists are far smaller.
const FILE_LENGTH_MAX: u64 = 16 << 20;

/// Reports what is wrong with the files.
pub(super) fn check(source: &mut Source<'_>, document: &Document, now: Timestamp) {
    let node = document.node.as_ref();
    if let Some(node) = node {
        check_folder(source, "node.data", &node.data, true);
    }
    let mut files = Files { source, now };
    if let Some(tunnel) = &document.tunnel {
        let name = node.map(|node| &node.name);
        files.identity("tunnel", &tunnel.certificate, &tunnel.key, name);
        files.certificates("tunnel.trust", &tunnel.trust);
        for crl in &tunnel.crl {
            files.revocations("tunnel.crl", crl);
        }
    }
    if let Some(tls) = document.dicom.as_ref().and_then(|dicom| dicom.tls.as_ref()) {
        files.identity("dicom.tls", &tls.certificate, &tls.key, None);
        if let Some(trust) = &tls.trust {
            files.certificates("dicom.tls.trust", trust);
        }
    }
    let orders = document.orders.as_ref().and_then(|orders| orders.hl7.as_ref());
    let reports = document.reports.as_ref().and_then(|reports| reports.collect.hl7.as_ref());
    for (key, hl7) in [("orders.hl7.tls", orders), ("reports.hl7.tls", reports)] {
        let Some(tls) = hl7.and_then(|hl7| hl7.tls.as_ref()) else { continue };
        files.identity(key, &tls.certificate, &tls.key, None);
        if let Some(trust) = &tls.trust {
            files.certificates(&format!("{key}.trust"), trust);
        }
    }
    for (position, folder) in document.reports.iter().flat_map(|r| &r.collect.folders) {
        let key = format!("reports.folder[{position}].path");
        check_folder(files.source, &key, &folder.path, false);
    }
    if let Some(api) = &document.api {
        files.api(api);
    }
    for source in document.orders.iter().flat_map(|orders| &orders.sources) {
        let Some(tls) = &source.tls else { continue };
        files.certificates("orders.source.tls.trust", &tls.trust);
        if let Some((certificate, private)) = &tls.identity {
            files.identity("orders.source.tls", certificate, private, None);
        }
    }
    for (position, worklist) in document.orders.iter().flat_map(|orders| &orders.worklists) {
        let key = format!("orders.worklist[{position}].tls");
        if let Some(tls) = &worklist.tls {
            files.certificates(&format!("{key}.trust"), &tls.trust);
            if let Some((certificate, private)) = &tls.identity {
                files.identity(&key, certificate, private, None);
            }
        }
    }
    if let Some(orders) = &document.orders {
        let (secrets, trust) = orders.notice_files();
        for (key, file) in secrets {
            files.secret(&key, file);
        }
        for (key, file) in trust {
            files.certificates(&key, file);
        }
    }
    let steps = document.orders.iter().flat_map(|orders| &orders.steps.pass_on_to);
    for (position, receiver) in steps.enumerate() {
        let Some(tls) = &receiver.tls else { continue };
        let key = format!("orders.steps.pass_on_to[{position}].tls");
        files.certificates(&format!("{key}.trust"), &tls.trust);
        if let Some((certificate, private)) = &tls.identity {
            files.identity(&key, certificate, private, None);
        }
    }
    for (position, destination) in &document.destinations {
        let key = format!("destination[{position}]");
        match &destination.kind {
            DestinationKind::Dicom(dicom) => files.client(&key, dicom.tls.as_ref()),
            DestinationKind::Hl7(hl7) => files.client(&key, hl7.tls.as_ref()),
            DestinationKind::Folder { path, .. } => {
                check_folder(files.source, &format!("{key}.path"), path, false);
            }
            DestinationKind::Node { .. } => {}
        }
    }
}

/// A folder that we write to. One that is `ours` is made at start when it is missing.
fn check_folder(source: &mut Source<'_>, key: &str, path: &Path, ours: bool) {
    let shown = path.display();
    let (what, advice) = match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => (format!("{shown} is no folder"), "name a folder"),
        Ok(_) if access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok() => return,
        Ok(_) => {
            (format!("{shown} cannot be written to by this user"), "let the node's user own it")
        }
        Err(e) if ours && e.kind() == std::io::ErrorKind::NotFound => {
            let what = format!("{shown} does not exist");
            source.warning(key, what, "the node makes it at its first start, if it may");
            return;
        }
        Err(e) => (format!("{shown}: {e}"), "create it, and let the node's user own it"),
    };
    match ours {
        true => source.problem(key, what, advice),
        false => source.warning(key, what, advice),
    }
}

struct Files<'a, 'd> {
    source: &'a mut Source<'d>,
    now: Timestamp,
}

impl Files<'_, '_> {
    /// What TLS to a destination is made of.
    fn client(&mut self, key: &str, tls: Option<&ClientTls>) {
        let Some(tls) = tls else { return };
        self.certificates(&format!("{key}.tls.trust"), &tls.trust);
        if let Some((certificate, private)) = &tls.identity {
            self.identity(&format!("{key}.tls"), certificate, private, None);
        }
    }

    /// Certificates and tokens of the API. A token that two clients have names neither.
    fn api(&mut self, api: &ApiSection) {
        if let Some(tls) = &api.tls {
            self.identity("api.tls", &tls.server.certificate, &tls.server.key, None);
            if let Some(trust) = &tls.server.trust {
                self.certificates("api.tls.trust", trust);
            }
            for crl in &tls.crl {
                self.revocations("api.tls.crl", crl);
            }
        }
        let mut known = HashMap::new();
        for (i, client) in api.clients.iter().enumerate() {
            let Some(path) = &client.token else { continue };
            let key = format!("api.client[{i}].token");
            if path.starts_with(CREDENTIALS) {
                self.is_readable(&key, path);
                continue;
            }
            match api::tokens(path) {
                Err(e) => {
                    let what = format!("{} {e}", path.display());
                    self.source.problem(&key, what, e.advice(path));
                }
                Ok(tokens) => {
                    for token in tokens {
                        let other = known.insert(token, &client.name);
                        if let Some(other) = other.filter(|other| **other != client.name) {
                            let what = format!("{} holds the token of {other}", path.display());
                            let advice = "give each client a token of its own";
                            self.source.problem(&key, what, advice);
                        }
                    }
                }
            }
        }
    }

    /// Whether the file can be read and is of a size that makes sense; reports it if not.
    fn is_readable(&mut self, key: &str, path: &Path) -> bool {
        let shown = path.display();
        if path.starts_with(CREDENTIALS) {
            let what = format!("{CREDENTIALS} is not set here, so {shown} was not checked");
            self.source.warning(key, what, "systemd sets it for the service");
            return false;
        }
        let checked = std::fs::File::open(path).and_then(|file| file.metadata());
        let (what, advice) = match checked {
            Ok(found) if found.is_file() && found.len() <= FILE_LENGTH_MAX => return true,
            Ok(_) => (format!("{shown} is no file of certificates or keys"), "name a PEM file"),
            Err(e) => (
                format!("{shown} cannot be read: {e}"),
                "create it (`hikyaku pki issue`), and let the node's user read it",
            ),
        };
        self.source.problem(key, what, advice);
        false
    }

    fn certificates(&mut self, key: &str, path: &Path) -> Vec<CertificateDer<'static>> {
        if !self.is_readable(key, path) {
            return Vec::new();
        }
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<_, _>>);
        let chain: Vec<_> = read.unwrap_or_default();
        let readable = chain.iter().all(|der| X509Certificate::from_der(der).is_ok());
        if chain.is_empty() || !readable {
            let what = format!("{} holds no certificate that can be read", path.display());
            self.source.problem(key, what, "it must be PEM: -----BEGIN CERTIFICATE-----");
            return Vec::new();
        }
        for der in &chain {
            if let Ok((_, certificate)) = X509Certificate::from_der(der) {
                self.validity(key, path, &certificate);
            }
        }
        chain
    }

    fn validity(&mut self, key: &str, path: &Path, certificate: &X509Certificate<'_>) {
        let now = self.now.0.div_euclid(1000);
        let (begin, end) = (certificate.validity().not_before, certificate.validity().not_after);
        let days = (end.timestamp() - now).div_euclid(86_400);
        let what = match () {
            () if end.timestamp() < now => format!("has expired ({end})"),
            () if begin.timestamp() > now => format!("is not valid before {begin}"),
            () if days < CERTIFICATE_DAYS_MIN => format!("expires in {days} days ({end})"),
            () => return,
        };
        let what = format!("the certificate in {} {what}", path.display());
        self.source.warning(key, what, "issue a new one and reload; check the clock");
    }

    fn revocations(&mut self, key: &str, path: &Path) {
        if !self.is_readable(key, path) {
            return;
        }
        let read = CertificateRevocationListDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let lists = read.unwrap_or_default();
        if lists.is_empty() {
            let what = format!("{} holds no revocation list that can be read", path.display());
            self.source.problem(key, what, "it must be PEM: -----BEGIN X509 CRL-----");
        }
        for list in lists {
            if let Err(e) = webpki::OwnedCertRevocationList::from_der(&list) {
                let what = format!("a revocation list in {} cannot be used: {e:?}", path.display());
                self.source.problem(key, what, "make it version 2 with a CRL number (RFC 5280 5)");
            }
        }
    }

    /// A certificate, its key, and the node name that the certificate must carry.
    fn identity(&mut self, section: &str, certificate: &Path, key: &Path, name: Option<&NodeName>) {
        let certificate_key = format!("{section}.certificate");
        let chain = self.certificates(&certificate_key, certificate);
        if let (Some(leaf), Some(name)) = (chain.first(), name) {
            self.name(&certificate_key, certificate, leaf, name);
        }
        let private_key = format!("{section}.key");
        if !self.is_readable(&private_key, key) {
            return;
        }
        self.permissions(&private_key, key);
        let shown = key.display();
        let signer = PrivateKeyDer::from_pem_file(key)
            .ok()
            .and_then(|der| rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).ok());
        let Some(signer) = signer else {
            let what = format!("{shown} holds no private key that can be used");
            self.source.problem(
                &private_key,
                what,
                "it must be PEM, unencrypted, PKCS #8 or SEC 1",
            );
            return;
        };
        let pair = rustls::sign::CertifiedKey::new(chain, signer);
        if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) =
            pair.keys_match()
        {
            let what = format!("{shown} is not the key of {}", certificate.display());
            self.source.problem(&private_key, what, "name the pair that was issued together");
        }
    }

    fn name(&mut self, key: &str, path: &Path, leaf: &CertificateDer<'_>, name: &NodeName) {
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else { return };
        let names: Vec<String> = certificate
            .subject_alternative_name()
            .ok()
            .flatten()
            .into_iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|general| match general {
                GeneralName::DNSName(dns) => Some((*dns).to_owned()),
                _ => None,
            })
            .collect();
        if names.iter().any(|dns| dns == name.as_str()) {
            return;
        }
        let has = match names.is_empty() {
            true => "no name".to_owned(),
            false => format!("the name {}", names.join(", ")),
        };
        let what = format!("the certificate in {} has {has}, not {name}", path.display());
        let advice = format!("run `hikyaku pki issue --name {name}`, or correct node.name");
        self.source.problem(key, what, advice);
    }

    /// A password or token.
    fn secret(&mut self, key: &str, path: &Path) {
        if path.starts_with(CREDENTIALS) {
            return;
        }
        match std::fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => self.permissions(key, path),
            Ok(_) => {
                let what = format!("{} is empty", path.display());
                self.source.problem(key, what, "write the secret into it, on one line");
            }
            Err(e) => {
                let what = format!("{} cannot be read: {e}", path.display());
                let advice = "write the secret into it, and let the node's user read it";
                self.source.problem(key, what, advice);
            }
        }
    }

    fn permissions(&mut self, key: &str, path: &Path) {
        let Ok(found) = std::fs::metadata(path) else { return };
        if found.permissions().mode() & 0o007 != 0 {
            let what = format!("every user of this machine can read {}", path.display());
            self.source.warning(key, what, format!("run `chmod 0600 {}`", path.display()));
        }
    }
}
