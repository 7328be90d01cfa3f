//! Receipts between nodes: a durable *yes* that proves custody to anybody who trusts the
//! receiver's certificate authority.
//!
//! A receipt is a statement (CBOR map, see [`Statement`]), a signature over exactly those bytes
//! with the key of the receiver's node certificate, and the certificate chain that the receiver
//! has shown in the tunnel's handshake. Only who holds a [`Kept`] can issue one: no receipt
//! without durability. The sender accepts a receipt only when it verifies and names exactly what
//! was offered.

use minicbor::{CborLen, Decode, Encode};
use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use webpki::EndEntityCert;

use super::trust::{Role, Trust, provider};
use crate::cargo::{CargoKind, Envelope, NodeName, Sha256};
use crate::clock::Timestamp;
use crate::custody::Kept;

/// The statement format that this release writes and understands.
pub const FORMAT: u8 = 1;

/// The signature schemes of receipts (RFC 8446 4.2.3), for any usual kind of key.
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// What a receipt says: `receiver` had this piece of cargo in custody at `time`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Statement {
    /// [`FORMAT`].
    #[n(0)]
    pub format: u8,
    /// The node that first took the cargo into custody.
    #[n(1)]
    pub origin: NodeName,
    /// The node that signs.
    #[n(2)]
    pub receiver: NodeName,
    /// What it is.
    #[n(3)]
    pub kind: CargoKind,
    /// Its key (for an image the SOP Instance UID).
    #[n(4)]
    pub key: String,
    /// Digest of its body.
    #[n(5)]
    pub sha256: Sha256,
    /// Length of its body in bytes.
    #[n(6)]
    pub length: u64,
    /// When the receiver took it into custody, by the receiver's wall clock.
    #[n(7)]
    pub time: Timestamp,
    /// The signature scheme, as in TLS 1.3 (RFC 8446 4.2.3).
    #[n(8)]
    pub scheme: u16,
}

/// Why a receipt is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not a statement that this release understands.
    #[error("the receipt's statement cannot be read")]
    Statement,
    /// The scheme is none of ours.
    #[error("the receipt's signature scheme 0x{0:04x} is not accepted")]
    Scheme(u16),
    /// The signature does not fit statement and certificate.
    #[error("the receipt's signature is wrong")]
    Signature,
    /// It is about something else than what was offered.
    #[error("the receipt is about something else: its {0} differs")]
    OtherCargo(&'static str),
    /// The signer's chain does not lead to our trust, or is not for this name.
    #[error("the receipt's signer is not trusted: {0}")]
    Signer(String),
}

/// Signs that `kept` is in custody here. Costs one signature (some ten microseconds for ECDSA).
pub fn issue(
    kept: &Kept,
    envelope: &Envelope,
    receiver: &NodeName,
    key: &dyn SigningKey,
) -> Result<(Vec<u8>, Vec<u8>), rustls::Error> {
    sign(envelope, receiver, kept.at(), key)
}

fn sign(
    envelope: &Envelope,
    receiver: &NodeName,
    time: Timestamp,
    key: &dyn SigningKey,
) -> Result<(Vec<u8>, Vec<u8>), rustls::Error> {
    let signer = key
        .choose_scheme(&SCHEMES)
        .ok_or_else(|| rustls::Error::General("no signature scheme for this key".into()))?;
    let statement = Statement {
        format: FORMAT,
        origin: envelope.identity.origin.clone(),
        receiver: receiver.clone(),
        kind: envelope.kind,
        key: envelope.identity.key.clone(),
        sha256: envelope.identity.sha256,
        length: envelope.length,
        time,
        scheme: signer.scheme().into(),
    };
    let statement = minicbor::to_vec(&statement).expect("writing to memory does not fail");
    let signature = signer.sign(&statement)?;
    Ok((statement, signature))
}

/// Checks receipts of one receiver. Made once per connection; a check then costs one signature
/// verification.
#[derive(Debug)]
pub struct Verifier {
    receiver: NodeName,
    chain: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// For the receiver with this name and certificate chain (leaf first), if the chain leads to
    /// `trust` at `time` and is for that name.
    pub fn new(
        receiver: &NodeName,
        chain: Vec<CertificateDer<'static>>,
        role: Role,
        trust: &Trust,
        time: UnixTime,
    ) -> Result<Self, ReceiptError> {
        trust
            .verify(&chain, receiver, role, time)
            .map_err(|e| ReceiptError::Signer(e.to_string()))?;
        Ok(Self { receiver: receiver.clone(), chain })
    }

    /// The chain, DER, leaf first, to be kept with the receipts.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        self.chain.iter().map(|c| c.to_vec()).collect()
    }

    /// Accepts a receipt for what was offered, and nothing else.
    pub fn check(
        &self,
        offered: &Envelope,
        statement: &[u8],
        signature: &[u8],
    ) -> Result<Statement, ReceiptError> {
        let said: Statement = minicbor::decode(statement).map_err(|_| ReceiptError::Statement)?;
        if said.format != FORMAT {
            return Err(ReceiptError::Statement);
        }
        self.check_signature(said.scheme, statement, signature)?;
        let differs = if said.receiver != self.receiver {
            Some("receiver")
        } else if said.origin != offered.identity.origin {
            Some("origin")
        } else if said.kind != offered.kind {
            Some("kind")
        } else if said.key != offered.identity.key {
            Some("key")
        } else if said.sha256 != offered.identity.sha256 {
            Some("digest")
        } else if said.length != offered.length {
            Some("length")
        } else {
            None
        };
        differs.map_or(Ok(said), |field| Err(ReceiptError::OtherCargo(field)))
    }

    fn check_signature(
        &self,
        scheme: u16,
        statement: &[u8],
        signature: &[u8],
    ) -> Result<(), ReceiptError> {
        let named = SignatureScheme::from(scheme);
        if !SCHEMES.contains(&named) {
            return Err(ReceiptError::Scheme(scheme));
        }
        let leaf = self.chain.first().ok_or(ReceiptError::Signature)?;
        let leaf = EndEntityCert::try_from(leaf).map_err(|_| ReceiptError::Signature)?;
        let known = provider().signature_verification_algorithms;
        let (_, algorithms) =
            known.mapping.iter().find(|(s, _)| *s == named).ok_or(ReceiptError::Scheme(scheme))?;
        let fits = |a: &&dyn rustls::pki_types::SignatureVerificationAlgorithm| {
            leaf.verify_signature(*a, statement, signature).is_ok()
        };
        algorithms.iter().any(fits).then_some(()).ok_or(ReceiptError::Signature)
    }
}

/// The name of a node as certificates carry it, if it can stand in one.
pub(crate) fn server_name(node: &NodeName) -> Option<ServerName<'static>> {
    match ServerName::try_from(node.as_str().to_owned()) {
        Ok(name @ ServerName::DnsName(_)) => Some(name),
        _ => None,
    }
}

/// Whether a node may have this name: certificates carry names as DNS names only.
pub fn stands_in_certificates(name: &str) -> bool {
    name.parse().ok().and_then(|node| server_name(&node)).is_some()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::frame::tests::envelope;
    use super::super::trust::tests::{Authority, later};
    use super::*;
    use std::time::Duration;

    fn name(s: &str) -> NodeName {
        s.parse().unwrap()
    }

    /// A receipt without anything in custody, which only tests can make.
    pub(crate) fn sign_as(
        envelope: &Envelope,
        receiver: &NodeName,
        key: &dyn SigningKey,
    ) -> (Vec<u8>, Vec<u8>) {
        sign(envelope, receiver, Timestamp(5), key).unwrap()
    }

    struct Signed {
        authority: Authority,
        verifier: Verifier,
        statement: Vec<u8>,
        signature: Vec<u8>,
    }

    fn signed() -> Signed {
        let authority = Authority::new("test-ca");
        let reader = authority.node("reading-centre");
        let (statement, signature) =
            sign(&envelope(b"body"), &name("reading-centre"), Timestamp(5), reader.key()).unwrap();
        let chain = reader.chain().to_vec();
        let verifier = Verifier::new(
            &name("reading-centre"),
            chain,
            Role::Server,
            reader.trust(),
            UnixTime::now(),
        )
        .unwrap();
        Signed { authority, verifier, statement, signature }
    }

    #[test]
    fn a_receipt_for_what_was_offered_is_accepted() {
        let s = signed();
        let said = s.verifier.check(&envelope(b"body"), &s.statement, &s.signature).unwrap();
        assert_eq!(said.time, Timestamp(5));
    }

    #[test]
    fn a_receipt_with_any_bit_changed_is_refused() {
        let s = signed();
        for bit in 0..s.statement.len() * 8 {
            let mut statement = s.statement.clone();
            statement[bit / 8] ^= 1 << (bit % 8);
            assert!(s.verifier.check(&envelope(b"body"), &statement, &s.signature).is_err());
        }
        for bit in 0..s.signature.len() * 8 {
            let mut signature = s.signature.clone();
            signature[bit / 8] ^= 1 << (bit % 8);
            assert!(s.verifier.check(&envelope(b"body"), &s.statement, &signature).is_err());
        }
    }

    #[test]
    fn a_true_receipt_for_other_cargo_is_refused() {
        let s = signed();
        let offered = envelope(b"body");
        let mut other_key = offered.clone();
        other_key.identity.key = "1.2.9".into();
        let mut other_origin = offered.clone();
        other_origin.identity.origin = name("elsewhere");
        for (other, field) in [
            (other_key, "key"),
            (other_origin, "origin"),
            (envelope(b"bodies"), "digest"),
            (Envelope { length: 5, ..offered.clone() }, "length"),
            (Envelope { kind: CargoKind::Report, ..offered }, "kind"),
        ] {
            let error = s.verifier.check(&other, &s.statement, &s.signature).unwrap_err();
            assert_eq!(error, ReceiptError::OtherCargo(field));
        }
    }

    #[test]
    fn a_receipt_signed_by_another_node_of_the_same_authority_is_refused() {
        let s = signed();
        let other = s.authority.node("somebody-else");
        let (statement, signature) =
            sign(&envelope(b"body"), &name("reading-centre"), Timestamp(5), other.key()).unwrap();
        let error = s.verifier.check(&envelope(b"body"), &statement, &signature).unwrap_err();
        assert_eq!(error, ReceiptError::Signature);
        let own_name = Verifier::new(
            &name("reading-centre"),
            other.chain().to_vec(),
            Role::Server,
            other.trust(),
            UnixTime::now(),
        );
        assert!(matches!(own_name, Err(ReceiptError::Signer(_))));
    }

    #[test]
    fn a_signer_whose_certificate_has_expired_or_is_of_another_authority_is_refused() {
        let s = signed();
        let name = name("reading-centre");
        let reader = s.authority.node("reading-centre");
        let late = later(Duration::from_secs(86_400 * 400));
        let expired =
            Verifier::new(&name, reader.chain().to_vec(), Role::Client, reader.trust(), late);
        assert!(matches!(expired, Err(ReceiptError::Signer(why)) if why.contains("expired")));
        let foreign = Authority::new("other-ca").node("reading-centre");
        let unknown = Verifier::new(
            &name,
            foreign.chain().to_vec(),
            Role::Client,
            reader.trust(),
            UnixTime::now(),
        );
        assert!(matches!(unknown, Err(ReceiptError::Signer(_))));
    }
}
