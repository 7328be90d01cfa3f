//! Every refused handshake, between real QUIC endpoints on loopback, and what each side says.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::connection::peer_chain;
use super::super::peers::{Live, Peers};
use super::super::transport::{client_config, dialling, listening, server_config};
use super::super::trust::tests::Authority;
use super::super::trust::{Credentials, Files, Role, provider};
use super::super::{Limits, PeerConfig};
use super::*;

fn load(files: &Files, name: &str) -> Credentials {
    Credentials::load(files, &name.parse().unwrap()).unwrap()
}

fn limits() -> Limits {
    Limits { idle: Duration::from_secs(2), ..Limits::default() }
}

fn server(credentials: &Credentials) -> Endpoint {
    let config = server_config(credentials, &limits());
    listening("127.0.0.1:0".parse().unwrap(), config, credentials.reset_seed()).unwrap()
}

/// What the client and the server say when `client` dials `name`; `None`: all is well.
async fn shake(
    server: &Endpoint,
    client: quinn::ClientConfig,
    name: &str,
) -> (Option<Reason>, Option<Reason>) {
    let dialling = dialling().unwrap();
    let address = server.local_addr().unwrap();
    let dial = async {
        let connection = match dialling.connect_with(client, address, name).unwrap().await {
            Ok(connection) => connection,
            Err(e) => return Err(explain_dial(&e)),
        };
        // TLS 1.3: the client learns what the server thinks of it only now.
        match connection.accept_uni().await {
            Ok(_) => Ok(connection),
            Err(e) => Err(explain_handshake(&e)),
        }
    };
    let answer = async {
        match server.accept().await.unwrap().await {
            Ok(connection) => {
                let mut well = connection.open_uni().await.unwrap();
                well.write_all(b"well").await.unwrap();
                Ok((connection, well))
            }
            Err(e) => Err(explain_handshake(&e)),
        }
    };
    let (dialled, answered) = tokio::join!(dial, answer);
    (dialled.err(), answered.err())
}

/// As [`shake`], with our own configuration on both sides. The transport lets the server open no
/// unidirectional stream, so the test's client config allows one.
async fn between(
    server_side: &Credentials,
    client_side: &Credentials,
    name: &str,
) -> (Option<Reason>, Option<Reason>) {
    shake(&server(server_side), client_of(client_side), name).await
}

fn client_of(credentials: &Credentials) -> quinn::ClientConfig {
    let mut config = client_config(credentials, &limits());
    config.transport_config(Arc::new(quinn::TransportConfig::default()));
    config
}

fn refused(fault: Fault, by: Role) -> (Option<Reason>, Option<Reason>) {
    let (client, server) = match by {
        Role::Client => (Whose::Theirs, Whose::Ours),
        Role::Server => (Whose::Ours, Whose::Theirs),
    };
    (Some(Reason::Certificate(client, fault)), Some(Reason::Certificate(server, fault)))
}

#[tokio::test]
async fn two_nodes_of_one_authority_shake_hands() {
    let ca = Authority::new("ca");
    assert_eq!(between(&ca.node("b"), &ca.node("a"), "b").await, (None, None));
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_that_name_on_both_sides() {
    let ca = Authority::new("ca");
    let old = load(&ca.files("old", 40, 30), "old");
    let good = ca.node("good");
    assert_eq!(between(&old, &good, "old").await, refused(Fault::Expired, Role::Client));
    assert_eq!(between(&good, &old, "good").await, refused(Fault::Expired, Role::Server));
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_told_apart_from_an_expired_one() {
    let ca = Authority::new("ca");
    let early = load(&ca.files("early", -2, 30), "early");
    let good = ca.node("good");
    assert_eq!(between(&early, &good, "early").await, refused(Fault::NotYetValid, Role::Client));
    assert_eq!(between(&good, &early, "good").await, refused(Fault::NotYetValid, Role::Server));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    // Each side trusts its own authority; here one side also trusts the other's.
    let mut both = ca.files("a", 0, 30);
    let text = [&both.trust, &other.dir.path().join("ca.crt")]
        .map(|f| std::fs::read_to_string(f).unwrap())
        .concat();
    both.trust = ca.dir.path().join("both.crt");
    std::fs::write(&both.trust, text).unwrap();
    let (a, b) = (load(&both, "a"), other.node("b"));
    assert_eq!(between(&a, &b, "a").await, refused(Fault::UnknownAuthority, Role::Client));
    assert_eq!(between(&b, &a, "b").await, refused(Fault::UnknownAuthority, Role::Server));
}

#[tokio::test]
async fn a_server_with_another_name_is_refused() {
    let ca = Authority::new("ca");
    let answer = between(&ca.node("b"), &ca.node("a"), "c").await;
    assert_eq!(answer, refused(Fault::WrongName, Role::Client));
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_on_both_sides() {
    let ca = Authority::new("ca");
    let bad = ca.files("bad", 0, 30);
    let strict = Files { crl: vec![ca.revoke(&bad.certificate)], ..ca.files("strict", 0, 30) };
    let (bad, strict) = (load(&bad, "bad"), load(&strict, "strict"));
    assert_eq!(between(&bad, &strict, "bad").await, refused(Fault::Revoked, Role::Client));
    assert_eq!(between(&strict, &bad, "strict").await, refused(Fault::Revoked, Role::Server));
}

/// A client that trusts `ca` and differs from ours in one thing.
fn stranger(ca: &Authority, alpn: &[u8], own: Option<&Files>) -> quinn::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let file = ca.dir.path().join("ca.crt");
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(files) => {
            let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
            let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&files.key).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    quinn::ClientConfig::new(Arc::new(crypto))
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let ca = Authority::new("ca");
    let server = server(&ca.node("b"));
    let answer = shake(&server, stranger(&ca, b"hikyaku/1", None), "b").await;
    assert_eq!(answer, refused(Fault::Absent, Role::Server));
}

#[tokio::test]
async fn another_application_protocol_is_refused_as_such() {
    let ca = Authority::new("ca");
    let files = ca.files("a", 0, 30);
    let server = server(&ca.node("b"));
    let answer = shake(&server, stranger(&ca, b"h3", Some(&files)), "b").await;
    assert_eq!(answer, (Some(Reason::Alpn), Some(Reason::Alpn)));
}

#[tokio::test]
async fn a_draft_version_of_quic_is_refused() {
    let ca = Authority::new("ca");
    let server = server(&ca.node("b"));
    let mut config = client_of(&ca.node("a"));
    config.version(0xff00_001d);
    let mut dialling = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    dialling.set_default_client_config(config);
    let address = server.local_addr().unwrap();
    let error = dialling.connect(address, "b").unwrap().await.unwrap_err();
    assert_eq!(explain_dial(&error), Reason::Version);
}

#[tokio::test]
async fn an_address_where_nothing_speaks_quic_gives_no_answer() {
    let ca = Authority::new("ca");
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let quick = Limits { idle: Duration::from_millis(300), ..limits() };
    let config = client_config(&ca.node("a"), &quick);
    let address = silent.local_addr().unwrap();
    let connecting = dialling().unwrap().connect_with(config, address, "b").unwrap();
    assert_eq!(explain_dial(&connecting.await.unwrap_err()), Reason::NoAnswer);
}

#[tokio::test]
async fn what_the_peer_says_when_it_closes_is_shown_without_its_control_characters() {
    let ca = Authority::new("ca");
    let (a, b) = connected(&ca.node("b"), &ca.node("a"), "b").await;
    b.close(close::NOT_A_PEER.into(), b"no \x1b[2J destination");
    let reason = explain_handshake(&a.closed().await);
    assert_eq!(reason.word(), "not-a-peer");
    assert_eq!(reason.to_string(), "closed by the peer (1): no \u{fffd}[2J destination");
}

async fn connected(
    server_side: &Credentials,
    client_side: &Credentials,
    name: &str,
) -> (Connection, Connection) {
    let (server, dialling) = (server(server_side), dialling().unwrap());
    let config = client_config(client_side, &limits());
    let connecting = dialling.connect_with(config, server.local_addr().unwrap(), name).unwrap();
    let (a, b) = tokio::join!(connecting, async { server.accept().await.unwrap().await });
    (a.unwrap(), b.unwrap())
}

fn live(connection: &Connection, role: Role) -> Live {
    let (connection, chain) = (connection.clone(), peer_chain(connection));
    Live { connection, chain, role, joined: crate::clock::now(), farewell: None }
}

#[tokio::test]
async fn of_two_connections_that_cross_both_sides_keep_the_same_one() {
    let ca = Authority::new("ca");
    let (a, b) = (ca.node("a"), ca.node("b"));
    let name = |n: &str| n.parse::<crate::cargo::NodeName>().unwrap();
    let peers = |n: &str| Peers::new(&[PeerConfig { name: name(n), address: None, relay: vec![] }]);
    // In every order in which the two sides may notice the two connections.
    for orders in 0..4 {
        let (at_a, at_b) = (peers("b"), peers("a"));
        // Server, then client of each.
        let by_a = connected(&b, &a, "b").await;
        let by_b = connected(&a, &b, "a").await;
        let mut joins_a = [live(&by_a.0, Role::Server), live(&by_b.1, Role::Client)];
        let mut joins_b = [live(&by_a.1, Role::Client), live(&by_b.0, Role::Server)];
        if orders & 1 != 0 {
            joins_a.reverse();
        }
        if orders & 2 != 0 {
            joins_b.reverse();
        }
        for (peers, peer, own, joins) in [(&at_a, "b", "a", joins_a), (&at_b, "a", "b", joins_b)] {
            let peer = peers.get(&name(peer)).unwrap();
            for live in joins {
                let connection = live.connection.clone();
                if !peer.join(live, &name(own)) {
                    connection.close(close::REPLACED.into(), b"");
                }
            }
            assert!(peer.is_up());
        }
        assert!(by_b.0.closed().await != ConnectionError::TimedOut, "what b dialled is closed");
        assert!(by_a.0.close_reason().is_none() && by_a.1.close_reason().is_none(), "{orders}");
    }
}

#[tokio::test]
async fn a_reload_closes_the_connection_of_a_revoked_peer_and_no_other() {
    let ca = Authority::new("ca");
    let names = ["good", "bad"];
    let files = names.map(|n| ca.files(n, 0, 30));
    let own = ca.files("own", 0, 30);
    let peers = Peers::new(&names.map(|n| PeerConfig {
        name: n.parse().unwrap(),
        address: None,
        relay: vec![],
    }));
    let credentials = load(&own, "own");
    let mut lines = vec![];
    for (name, files) in names.iter().zip(&files) {
        let (there, here) = connected(&credentials, &load(files, name), "own").await;
        let chain = peer_chain(&here);
        let peer = peers.named(&chain[0]).unwrap();
        assert_eq!(peer.config.name.as_str(), *name);
        assert!(peer.join(live(&here, Role::Client), &"own".parse().unwrap()));
        lines.push((there, here));
    }
    assert!(peers.close_distrusted(credentials.trust()).is_empty());

    let strict = Files { crl: vec![ca.revoke(&files[1].certificate)], ..own };
    let closed = peers.close_distrusted(load(&strict, "own").trust());
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].0.as_str(), "bad");
    let reason = explain_handshake(&lines[1].0.closed().await);
    assert_eq!(reason.word(), "distrusted");
    assert!(lines[0].0.close_reason().is_none() && lines[0].1.close_reason().is_none());
    lines[0].0.open_bi().await.expect("the good peer's connection still carries lanes");
}

#[tokio::test]
async fn a_certificate_that_names_no_configured_peer_is_nobody() {
    let ca = Authority::new("ca");
    let peers = Peers::new(&[]);
    let chain = ca.node("somebody").chain().to_vec();
    let words = peers.named(&chain[0]).unwrap_err();
    assert!(words.contains("somebody"), "{words}");
}

#[tokio::test]
async fn a_newer_connection_of_the_same_peer_replaces_the_older() {
    let ca = Authority::new("ca");
    let (own, a) = (ca.node("own"), ca.node("a"));
    let name = "a".parse().unwrap();
    let peers = Peers::new(&[PeerConfig { name, address: None, relay: vec![] }]);
    let first = connected(&own, &a, "own").await;
    let second = connected(&own, &a, "own").await;
    for (_, here) in [&first, &second] {
        let peer = peers.named(&peer_chain(here)[0]).unwrap();
        assert!(peer.join(live(here, Role::Client), &"own".parse().unwrap()));
    }
    assert_eq!(explain_handshake(&first.0.closed().await).word(), "replaced");
    let peer = peers.get(&"a".parse().unwrap()).unwrap();
    assert!(!peer.leave(&first.1, &Reason::Lost), "the older one is no longer the live one");
    assert!(peer.is_up());
    assert!(peer.leave(&second.1, &Reason::Lost));
    assert!(!peer.is_up());
}
