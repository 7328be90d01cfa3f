//! `[api]`: the listener for other systems, who they are, and what each may do.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeValue;

use crate::cargo::Sha256;
use crate::intake::Network;
use crate::ops::api::access::{Access, Client, Credential, Right};
use crate::ops::api::{Door, Limits};

use super::Config;
use super::read::Document;
use super::reader::Section;
use super::rooms::{TlsError, server_with};
use super::sections::ServerTls;
use super::source::Source;
use super::value::*;

/// Fewest characters of a token: 32 of the 64 that `hikyaku api token` writes are 128 bits.
const TOKEN_LENGTH_MIN: usize = 32;
/// Most characters of a token.
const TOKEN_LENGTH_MAX: usize = 512;
/// Tokens of one file: the one in use and the one that replaces it.
const TOKENS_MAX: usize = 2;
/// Largest token file, in bytes.
const TOKEN_FILE_MAX: u64 = 4096;

/// `[api]`: the HTTP API for other systems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSection {
    /// Address of the listener.
    pub listen: SocketAddr,
    /// TLS; `None` only on a loopback address.
    pub tls: Option<ApiTls>,
    /// Every `[[api.client]]`, in the order of the file.
    pub clients: Vec<ApiClient>,
    /// `[api.limits]`.
    pub limits: Limits,
}

/// `[api.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTls {
    /// Certificate and key, and the authorities of client certificates.
    pub server: ServerTls,
    /// Revocation lists of client certificates, PEM.
    pub crl: Vec<PathBuf>,
}

/// One `[[api.client]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiClient {
    /// Its name, unique in the file.
    pub name: String,
    /// The file that holds its token.
    pub token: Option<PathBuf>,
    /// The name in its certificate. One of the two is there.
    pub certificate: Option<String>,
    /// Where it may call from; empty: anywhere.
    pub networks: Vec<Network>,
    /// What it may do, at least one.
    pub may: BTreeSet<Right>,
}

pub(super) fn section(s: &mut Section<'_, '_>) -> Option<ApiSection> {
    let listen = s.need("listen", socket);
    let tls = s.maybe_table("tls", |s| {
        let (certificate, key) = (s.need_path("certificate"), s.need_path("key"));
        let trust = s.maybe_path("trust");
        let crl = s.paths("crl");
        let server = ServerTls { certificate: certificate?, key: key?, trust };
        Some(ApiTls { server, crl })
    });
    let clients = s.tables("client", |s| {
        let name = s.need("name", client_name);
        let token = s.maybe_path("token");
        let certificate = s.maybe("certificate", text);
        let networks = s.one_or_list("address", network).unwrap_or_default();
        let may = s.need_one_or_list("may", word(Right::ALL));
        let may = may?.into_iter().collect();
        Some(ApiClient { name: name?, token, certificate, networks, may })
    });
    let limits = s.table("limits", |s| Limits {
        connections: s.or("connections", "64", count(1..=10_000)) as usize,
        connections_per_address: s.or("connections_per_address", "16", count(1..=10_000)) as usize,
    });
    let clients = clients.into_iter().map(|(_, client)| client).collect();
    Some(ApiSection { listen: listen?, tls, clients, limits })
}

/// It stands in logs, metrics and the story of an order.
fn client_name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let name = text(value)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match name.len() <= 64 && name.chars().all(plain) {
        true => Ok(name),
        false => Err(wrong(
            format!("\"{name}\" cannot be taken"),
            "write at most 64 letters, digits, '-', '_' and '.'",
        )),
    }
}

/// Reports what does not fit together.
pub(super) fn check(source: &mut Source<'_>, document: &Document) {
    let Some(api) = &document.api else { return };
    if api.tls.is_none() && !source.has_key("api.tls") && !api.listen.ip().is_loopback() {
        source.problem(
            "api.listen",
            "would speak plain HTTP to other machines",
            "write [api.tls] with certificate and key, or listen on 127.0.0.1",
        );
    }
    if api.clients.is_empty() && !source.has_key("api.client[0]") {
        source.problem(
            "api",
            "has no client, so nobody could call",
            "write [[api.client]] with name, token or certificate, and may; or leave [api] out",
        );
    }
    let limits = api.limits;
    if limits.connections_per_address > limits.connections {
        source.problem(
            "api.limits.connections_per_address",
            "is above api.limits.connections",
            "one address could take all connections: lower it",
        );
    }
    let trust = api.tls.as_ref().and_then(|tls| tls.server.trust.as_ref());
    if trust.is_none() && api.tls.as_ref().is_some_and(|tls| !tls.crl.is_empty()) {
        source.problem(
            "api.tls.crl",
            "revokes nothing without api.tls.trust",
            "write trust, the authorities of client certificates",
        );
    }
    let certified = api.clients.iter().any(|client| client.certificate.is_some());
    if trust.is_some() && !certified {
        source.warning(
            "api.tls.trust",
            "asks for certificates that no client has",
            "write certificate for a client, or leave trust out",
        );
    }
    let (mut names, mut certificates) = (BTreeSet::new(), BTreeSet::new());
    for (i, client) in api.clients.iter().enumerate() {
        let key = format!("api.client[{i}]");
        if !names.insert(client.name.to_ascii_lowercase()) {
            let what = format!("{} is the name of an earlier client", client.name);
            source.problem(&format!("{key}.name"), what, "give each client a name of its own");
        }
        match (&client.token, &client.certificate) {
            (Some(_), None) => {}
            (None, Some(name)) => {
                if trust.is_none() {
                    source.problem(
                        &format!("{key}.certificate"),
                        "needs api.tls.trust",
                        "name the authority of its certificate there, or use a token",
                    );
                }
                if !certificates.insert(name.to_ascii_lowercase()) {
                    let what = format!("{name} is the certificate of an earlier client");
                    let advice = "give each client a certificate of its own";
                    source.problem(&format!("{key}.certificate"), what, advice);
                }
            }
            (None, None) => source.problem(
                &key,
                "has neither token nor certificate",
                "write one: token = \"/etc/hikyaku/NAME.token\" (see `hikyaku api token`)",
            ),
            (Some(_), Some(_)) => source.problem(
                &format!("{key}.certificate"),
                "stands beside a token",
                "keep one of the two: what the client proves itself by",
            ),
        }
        let needs_orders = |right: &Right| *right != Right::ReadStudies;
        if document.orders.is_none() && client.may.iter().any(needs_orders) {
            source.warning(
                &format!("{key}.may"),
                "has rights to orders, but this node keeps none",
                "add an [orders] section, or leave them out",
            );
        }
    }
}

/// Why a token file cannot be used. Never with anything that stands in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("can be read by every user of this machine")]
    Open,
    #[error("holds no token")]
    Empty,
    #[error("holds more than {TOKENS_MAX} tokens")]
    TooMany,
    #[error(
        "holds a token of fewer than {TOKEN_LENGTH_MIN} or more than {TOKEN_LENGTH_MAX} characters"
    )]
    Length,
    #[error("holds characters that cannot stand in a token")]
    Characters,
}

impl TokenError {
    /// What to do.
    pub(super) fn advice(&self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Read(_) => {
                format!("make it: `hikyaku api token {path}`; let the node's user read it")
            }
            Self::Open => {
                format!("run `chmod 0600 {path}`, and make a new token: it is no secret any more")
            }
            Self::TooMany => "keep the token in use and the one that replaces it".into(),
            _ => format!("make one with `hikyaku api token {path}`, one token on a line"),
        }
    }
}

/// The digests of the tokens in a file, one on a line.
///
/// # Errors
///
/// [`TokenError`].
pub(super) fn tokens(path: &Path) -> Result<Vec<Sha256>, TokenError> {
    use std::os::unix::fs::PermissionsExt;
    let file = std::fs::File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o007 != 0 {
        return Err(TokenError::Open);
    }
    let mut bytes = Vec::new();
    file.take(TOKEN_FILE_MAX).read_to_end(&mut bytes)?;
    let lines = bytes.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    let all: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    if all.is_empty() {
        return Err(TokenError::Empty);
    }
    if all.len() > TOKENS_MAX {
        return Err(TokenError::TooMany);
    }
    // b64token (RFC 6750 2.1).
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b);
    for token in &all {
        if !token.iter().all(fits) {
            return Err(TokenError::Characters);
        }
        if !(TOKEN_LENGTH_MIN..=TOKEN_LENGTH_MAX).contains(&token.len()) {
            return Err(TokenError::Length);
        }
    }
    Ok(all.into_iter().map(Sha256::of).collect())
}

/// Why the API cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Its certificate, key or authorities.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A token file.
    #[error("{} {why}: {advice}", file.display())]
    Token {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do.
        advice: String,
    },
}

impl Config {
    /// Who is let in to the API; reads certificates, revocation lists and tokens.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub fn api_door(&self) -> Result<Option<Door>, ApiError> {
        let Some(api) = &self.api else { return Ok(None) };
        let some_token = api.clients.iter().any(|client| client.token.is_some());
        let tls = match &api.tls {
            None => None,
            Some(tls) => {
                let mut config = server_with(&tls.server, &tls.crl, some_token)?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                // Nothing is resumed: every connection shows its certificate anew.
                config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
                Some(Arc::new(config))
            }
        };
        let mut clients = Vec::new();
        for client in &api.clients {
            let credential = match (&client.token, &client.certificate) {
                (Some(path), _) => Credential::Token(tokens(path).map_err(|e| {
                    let (why, advice) = (e.to_string(), e.advice(path));
                    ApiError::Token { file: path.clone(), why, advice }
                })?),
                (None, name) => Credential::Certificate(name.clone().unwrap_or_default()),
            };
            let (networks, may) = (client.networks.clone(), client.may.clone());
            clients.push(Client { name: client.name.as_str().into(), credential, networks, may });
        }
        Ok(Some(Door::new(tls, Access::new(clients), api.limits)))
    }
}

#[cfg(test)]
mod tests;
