//! Who may call, and what: clients by name, each with its credential, its networks and its rights.
//! Pure.
//!
//! A token is compared by its SHA-256, with every client's, in constant time: how long an answer
//! takes tells nothing of how near a guess was. Tokens themselves are not kept in memory.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::cargo::Sha256;
use crate::intake::Network;

/// What a client may do. A later resource adds its own here and in `docs/api.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// See orders with their patients.
    ReadOrders,
    /// Enter, change and cancel orders.
    WriteOrders,
    /// See the list of missing images.
    ReadMissing,
    /// See studies, their images and where these went.
    ReadStudies,
    /// Say to which order a study belongs.
    LinkStudies,
    /// See reports with their texts, what is owed, and what is critical.
    ReadReports,
    /// Send reports, match, release and discard them, call them critical.
    WriteReports,
    /// Say that a person knows of a critical result, or has dealt with it.
    Acknowledge,
    /// See what both sides ask each other about studies.
    ReadNotes,
    /// Ask and answer.
    WriteNotes,
}

impl Right {
    /// All rights with their words.
    pub const ALL: &[(&str, Self)] = &[
        ("read-orders", Self::ReadOrders),
        ("write-orders", Self::WriteOrders),
        ("read-missing", Self::ReadMissing),
        ("read-studies", Self::ReadStudies),
        ("link-studies", Self::LinkStudies),
        ("read-reports", Self::ReadReports),
        ("write-reports", Self::WriteReports),
        ("acknowledge", Self::Acknowledge),
        ("read-notes", Self::ReadNotes),
        ("write-notes", Self::WriteNotes),
    ];

    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, right)| *right == self).map_or("", |(word, _)| word)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a client proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// It knows one of these tokens, of which only the digests are kept: two while one replaces the
    /// other.
    Token(Vec<Sha256>),
    /// Its certificate, of a trusted authority, has this name.
    Certificate(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token"),
            Self::Certificate(name) => write!(f, "Certificate({name:?})"),
        }
    }
}

/// Another system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its name here: in the log, in the story of an order, in metrics.
    pub name: Arc<str>,
    /// How it proves that.
    pub credential: Credential,
    /// Where it may call from; empty: from anywhere.
    pub networks: Vec<Network>,
    /// What it may do.
    pub may: BTreeSet<Right>,
}

impl Client {
    fn may_come_from(&self, address: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|n| n.contains(address))
    }
}

/// Why a caller is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// It shows neither a token nor a certificate.
    Nothing,
    /// No client has this token.
    Token,
    /// No client, or more than one, has a name of this certificate.
    Certificate,
    /// It is a client, which may not call from this address.
    Address,
}

impl Denial {
    /// The word in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Address => "address",
        }
    }
}

/// What a caller shows.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The value of `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// The names in the certificate of its connection, which TLS has verified; empty: it has none.
    pub certificate: &'a [String],
    /// Where it calls from.
    pub address: IpAddr,
}

/// All clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access(Vec<Arc<Client>>);

impl Access {
    /// Of these clients, whose names and credentials differ.
    pub fn new(clients: Vec<Client>) -> Self {
        Self(clients.into_iter().map(Arc::new).collect())
    }

    /// Whether anybody may call from `address`.
    pub fn is_anybody_from(&self, address: IpAddr) -> bool {
        self.0.iter().any(|client| client.may_come_from(address))
    }

    /// Who calls. A token goes before a certificate: one that is wrong is not mended by the other.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn identify(&self, shown: &Shown<'_>) -> Result<Arc<Client>, Denial> {
        let found = match shown.authorization {
            Some(value) => {
                let token = bearer(value).ok_or(Denial::Token)?;
                self.with_token(&Sha256::of(token)).ok_or(Denial::Token)
            }
            None if shown.certificate.is_empty() => Err(Denial::Nothing),
            None => self.with_certificate(shown.certificate).ok_or(Denial::Certificate),
        }?;
        match found.may_come_from(shown.address) {
            true => Ok(found.clone()),
            false => Err(Denial::Address),
        }
    }

    fn with_token(&self, digest: &Sha256) -> Option<&Arc<Client>> {
        let mut found = None;
        for client in &self.0 {
            let Credential::Token(tokens) = &client.credential else { continue };
            // All are compared, whichever fits.
            for token in tokens {
                if verify_slices_are_equal(&token.0, &digest.0).is_ok() {
                    found = Some(client);
                }
            }
        }
        found
    }

    fn with_certificate(&self, names: &[String]) -> Option<&Arc<Client>> {
        let is = |client: &&Arc<Client>| match &client.credential {
            Credential::Certificate(name) => names.iter().any(|n| n.eq_ignore_ascii_case(name)),
            Credential::Token(_) => false,
        };
        let mut found = self.0.iter().filter(is);
        match (found.next(), found.next()) {
            (found, None) => found,
            _ => None,
        }
    }
}

/// The token of `Bearer TOKEN` (RFC 6750 2.1); the scheme in any case (RFC 9110 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(6)?;
    let token = token.strip_prefix(b" ")?.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str, credential: Credential, networks: &[&str]) -> Client {
        Client {
            name: name.into(),
            credential,
            networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
            may: [Right::ReadOrders].into(),
        }
    }

    fn token(token: &str) -> Sha256 {
        Sha256::of(token.as_bytes())
    }

    fn access() -> Access {
        Access::new(vec![
            client("ris", Credential::Token(vec![token("new"), token("old")]), &["10.1.0.0/16"]),
            client("portal", Credential::Token(vec![token("portal")]), &[]),
            client("pacs", Credential::Certificate("pacs.example".into()), &[]),
            client("twin", Credential::Certificate("twin.example".into()), &[]),
        ])
    }

    fn who(authorization: Option<&str>, names: &[&str], address: &str) -> Result<String, Denial> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let shown = Shown {
            authorization: authorization.map(str::as_bytes),
            certificate: &names,
            address: address.parse().unwrap(),
        };
        access().identify(&shown).map(|client| client.name.to_string())
    }

    #[test]
    fn a_token_names_its_client_the_old_one_beside_the_new_and_no_other_does() {
        for good in ["Bearer new", "bearer old", "BEARER  new "] {
            assert_eq!(who(Some(good), &[], "10.1.2.3"), Ok("ris".into()), "{good}");
        }
        for wrong in ["Bearer NEW", "Bearer ", "Bearer", "Basic new", "new", "", "Bearer new x"] {
            assert_eq!(who(Some(wrong), &[], "10.1.2.3"), Err(Denial::Token), "{wrong}");
        }
        assert_eq!(who(None, &[], "10.1.2.3"), Err(Denial::Nothing));
    }

    #[test]
    fn a_client_calls_only_from_its_networks() {
        assert_eq!(who(Some("Bearer new"), &[], "10.2.0.1"), Err(Denial::Address));
        assert_eq!(who(Some("Bearer new"), &[], "::ffff:10.1.2.3"), Ok("ris".into()));
        assert_eq!(who(Some("Bearer portal"), &[], "192.0.2.1"), Ok("portal".into()));
        let one = client("ris", Credential::Token(Vec::new()), &["10.1.0.0/16"]);
        let access = Access::new(vec![one]);
        assert!(access.is_anybody_from("10.1.0.1".parse().unwrap()));
        assert!(!access.is_anybody_from("10.2.0.1".parse().unwrap()));
    }

    #[test]
    fn a_certificate_names_one_client_or_none_and_mends_no_wrong_token() {
        assert_eq!(who(None, &["other", "PACS.example"], "::1"), Ok("pacs".into()));
        assert_eq!(who(None, &["nobody"], "::1"), Err(Denial::Certificate));
        let both = ["pacs.example", "twin.example"];
        assert_eq!(who(None, &both, "::1"), Err(Denial::Certificate));
        assert_eq!(who(Some("Bearer x"), &["pacs.example"], "::1"), Err(Denial::Token));
        assert_eq!(who(Some("Bearer portal"), &["pacs.example"], "::1"), Ok("portal".into()));
    }

    #[test]
    fn every_right_has_a_word_of_its_own() {
        let words: BTreeSet<_> = Right::ALL.iter().map(|(word, _)| word).collect();
        assert_eq!(words.len(), Right::ALL.len());
        for (word, right) in Right::ALL {
            assert_eq!(right.as_str(), *word);
        }
    }

    #[test]
    fn no_token_is_ever_shown() {
        assert_eq!(format!("{:?}", Credential::Token(vec![token("x")])), "Token");
    }
}
