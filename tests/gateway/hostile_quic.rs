//! Hostile QUIC against the real binary. Whoever is not a peer is refused by name of the reason on
//! both sides; a peer that misbehaves loses its connection and keeps nobody else from theirs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use hikyaku::cargo::{CargoKind, Envelope, Identity, Sha256, Urgency};
use hikyaku::clock::Timestamp;
use hikyaku::tunnel::frame::{Frame, Hello, Offer, Purpose, Refusal, Withdraw};

use crate::line::{Line, Quality};
use crate::rogue::{ALPN, Authority, Lane, Rogue, initials, install, installed};
use crate::sender::{Load, Shape};
use crate::site::{HOSPITAL, Node, PATIENCE, Port, READING, Site, is_up, tunnel, until};

/// Resident KiB of a node that may be added by floods: half of what the goals allow a node.
const FLOOD_GROWTH_MAX: u64 = 50 << 10;

fn memory(node: &Node, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("a process");
    let line = status.lines().find_map(|l| l.strip_prefix(line)).expect("a line");
    line.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).expect("KiB")
}

fn refused(node: &Node, reason: &str) -> f64 {
    node.metric("hikyaku_tunnel_refused_total", &[&format!("reason=\"{reason}\"")])
}

fn reading(site: &Site) -> Node {
    site.reading().folder_destination("out").route_all("out").start()
}

/// One image goes from the hospital to the folder: both nodes are as they should be.
fn carries(hospital: &Node, reading: &Node) {
    let before = reading.count("out", "receipted");
    let load = Load::start(hospital.port(Port::Dicom), Shape { associations: 1, ..<_>::default() });
    until("an image is accepted", || load.acked_count() > 0);
    let sent = load.finish().len() as u64;
    reading.wait_count("out", "receipted", before + sent);
}

#[test]
fn a_hospital_with_a_bad_certificate_is_refused_and_both_sides_name_the_reason() {
    let site = Site::new();
    let reading = reading(&site);
    let plan = site.hospital(reading.port(Port::Tunnel));
    let authority = Authority::of(&site);
    let good = installed(&site, HOSPITAL);
    let bad = [
        (authority.issue(HOSPITAL, 20, 10), "expired", "has expired"),
        (authority.issue(HOSPITAL, -20, 30), "not-yet-valid", "is not valid yet"),
        (Authority::foreign().issue(HOSPITAL, 0, 30), "unknown-authority", "not trusted"),
    ];
    let hospital = plan.write();
    for (pair, word, words) in bad {
        install(&site, HOSPITAL, &pair);
        hospital.start();
        until(&format!("the reading centre counts {word}"), || refused(&reading, word) > 0.0);
        until("the hospital knows why", || {
            let reason = tunnel(&hospital, "reason");
            reason.contains("our certificate") && reason.contains(words)
        });
        assert!(refused(&hospital, word) > 0.0, "{}", tunnel(&hospital, "reason"));
        assert!(!is_up(&hospital) && !is_up(&reading));
        for (node, whose) in [(&reading, "the peer's certificate"), (&hospital, "our certificate")]
        {
            let said = |l: &str| l.contains(whose) && l.contains(words);
            assert!(node.log().lines().any(said), "{} does not say {words}", node.name());
        }
        assert!(hospital.stop().success());
    }
    install(&site, HOSPITAL, &good);
    hospital.start();
    carries(&hospital, &reading);
}

#[test]
fn a_reading_centre_with_a_bad_certificate_is_refused_by_the_hospital() {
    let site = Site::new();
    let reading = site.reading().folder_destination("out").route_all("out").write();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let authority = Authority::of(&site);
    let good = installed(&site, READING);
    let bad = [
        (authority.issue(READING, 20, 10), "expired", "has expired"),
        (Authority::foreign().issue(READING, 0, 30), "unknown-authority", "not trusted"),
    ];
    for (pair, word, words) in bad {
        install(&site, READING, &pair);
        reading.start();
        until(&format!("the hospital counts {word}"), || refused(&hospital, word) > 0.0);
        until("the hospital says why", || {
            let reason = tunnel(&hospital, "reason");
            reason.contains("the peer's certificate") && reason.contains(words)
        });
        until("the reading centre counts it", || refused(&reading, word) > 0.0);
        assert!(reading.stop().success());
    }
    install(&site, READING, &good);
    reading.start();
    carries(&hospital, &reading);
}

#[test]
fn strangers_at_the_tunnels_port_are_told_no_and_why() {
    let site = Site::new();
    let reading = reading(&site);
    let port = reading.port(Port::Tunnel);
    // There is nothing that speaks TCP, and so nothing that speaks TLS 1.2.
    let mut plain = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    plain.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let _ = plain.write_all(b"GET / HTTP/1.1\r\n\r\n");
    let heard = plain.read(&mut [0; 1]);
    let silent = heard.as_ref().is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
    assert!(!silent && heard.unwrap_or(0) == 0, "closed without a word");
    until("plain-tcp is counted", || refused(&reading, "plain-tcp") > 0.5);
    assert!(reading.log().contains("it came by plain TCP"));
    let authority = Authority::of(&site);
    let (hospital, other) = (stolen_key(&site, port), authority.issue("stranger", 0, 30));
    let expired = authority.issue(HOSPITAL, 20, 10);
    let elsewhere = Authority::foreign().issue(HOSPITAL, 0, 30);
    let rogue = Rogue::new(&site);
    let tries = [
        // TLS alerts (RFC 8446 6.2).
        (rogue.config(Some(&hospital), b"h3"), "alpn", "error 120"),
        (rogue.config(Some(&hospital), b"hikyaku/0"), "alpn", "error 120"),
        (rogue.config(None, ALPN), "no-certificate", "error 116"),
        (rogue.config(Some(&elsewhere), ALPN), "unknown-authority", "error 48"),
        (rogue.config(Some(&expired), ALPN), "expired", "error 45"),
        (rogue.config(Some(&other), ALPN), "closed", "no destination here has the name"),
    ];
    for (config, word, told) in tries {
        let before = refused(&reading, word);
        let Err(words) = rogue.dial(port, config) else { panic!("{word}: let in") };
        assert!(words.contains(told), "{word}: {words}");
        until(&format!("{word} is counted"), || refused(&reading, word) > before);
    }
    assert!(reading.log().contains("incoming tunnel refused"));
    let peer = rogue.dial(port, rogue.config(Some(&hospital), ALPN));
    assert!(peer.is_ok(), "the hospital itself is let in: {:?}", peer.err());
}

#[test]
fn where_tcp_gets_through_and_udp_does_not_the_hospital_says_that_udp_is_blocked() {
    let site = Site::new();
    let line = Line::to(1, Quality { cut: true, ..Quality::default() });
    let _tcp = TcpListener::bind(("127.0.0.1", line.port())).expect("the port for TCP");
    let hospital = site.hospital(line.port()).set("tunnel.limits", "handshake = \"1s\"").start();
    until("it says so", || tunnel(&hospital, "reason").contains("UDP is blocked on the way"));
    until("it is counted", || refused(&hospital, "udp-blocked") > 0.5);
}

#[test]
fn a_revoked_certificate_closes_the_living_tunnel_and_opens_no_other() {
    let site = Site::new();
    let reading = reading(&site);
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    carries(&hospital, &reading);
    let authority = Authority::of(&site);
    let old = installed(&site, HOSPITAL);
    authority.revoke(&site, &old);
    reading.edit(|plan| plan.set("tunnel", "crl = \"pki/revoked.crl\""));
    reading.signal(nix::sys::signal::Signal::SIGHUP);
    // A list that was not configured before takes a restart or a reload, whichever the node says.
    until("the list is taken, or a restart is asked for", || {
        !is_up(&reading) || reading.log().contains("restart")
    });
    if is_up(&reading) {
        reading.restart();
    }
    until("the hospital is refused as revoked", || {
        refused(&reading, "revoked") > 0.0 || !is_up(&reading)
    });
    until("the hospital knows why", || {
        let reason = tunnel(&hospital, "reason");
        reason.contains("revocation list") || reason.contains("no longer accepted")
    });
    assert!(!is_up(&hospital) && !is_up(&reading));
    // A new certificate for a new key heals it, without a restart of the hospital.
    install(&site, HOSPITAL, &authority.issue(HOSPITAL, 0, 30));
    hospital.signal(nix::sys::signal::Signal::SIGHUP);
    until("the tunnel stands again", || is_up(&hospital) && is_up(&reading));
    carries(&hospital, &reading);
    // And revoking that one closes a tunnel that stands.
    authority.revoke(&site, &installed(&site, HOSPITAL));
    reading.signal(nix::sys::signal::Signal::SIGHUP);
    until("the living tunnel is closed", || !is_up(&reading) && !is_up(&hospital));
    let closed = |l: &str| l.contains("no longer accepted");
    assert!(reading.log().lines().any(closed));
}

/// Row 39. Each source port is a stranger to the node, as a spoofed address would be.
#[test]
fn a_flood_of_first_packets_is_answered_less_than_thrice_and_shuts_nobody_out() {
    let site = Site::new();
    let reading = reading(&site);
    let port = reading.port(Port::Tunnel);
    let rogue = Rogue::new(&site);
    let caught = initials(&rogue, 300);
    assert!(caught.len() >= 100, "{} first packets", caught.len());
    let resident = memory(&reading, "VmRSS:");
    let hospital = site.hospital(port).write();
    let mut started = false;
    let (mut said, mut heard) = (BTreeMap::new(), Heard::default());
    let mut sockets = Vec::new();
    for round in 0..6 {
        for (n, packet) in caught.iter().enumerate() {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.set_nonblocking(true).expect("a socket");
            // Some come alone, some again and again from one place.
            let times = if n % 10 == 0 { 5 } else { 1 };
            for _ in 0..times {
                let _ = socket.send_to(packet, ("127.0.0.1", port));
            }
            let local = socket.local_addr().expect("an address");
            *said.entry(local).or_insert(0) += packet.len() * times;
            sockets.push((local, socket));
        }
        if round == 2 {
            hospital.spawn();
            started = true;
        }
        listen(&sockets, &mut heard);
        sockets.drain(..sockets.len().saturating_sub(300));
    }
    assert!(started && hospital.wait_running().is_ok());
    carries(&hospital, &reading);
    listen(&sockets, &mut heard);
    for (from, bytes) in &heard.bytes {
        assert!(*bytes <= 3 * said[from], "{bytes} bytes for {} of {from}", said[from]);
    }
    assert!(heard.retries > 0, "nobody had to prove an address");
    let grown = memory(&reading, "VmHWM:").saturating_sub(resident);
    assert!(grown <= FLOOD_GROWTH_MAX, "a flood made the node grow by {grown} KiB");
    assert!(reading.ended().is_none());
}

/// What came back.
#[derive(Default)]
struct Heard {
    /// By whom it was for.
    bytes: BTreeMap<SocketAddr, usize>,
    /// Retry packets (RFC 9000 17.2.5).
    retries: usize,
}

fn listen(sockets: &[(SocketAddr, UdpSocket)], heard: &mut Heard) {
    std::thread::sleep(Duration::from_millis(300));
    let mut packet = [0; 65_536];
    for (local, socket) in sockets {
        while let Ok(length) = socket.recv(&mut packet) {
            *heard.bytes.entry(*local).or_default() += length;
            heard.retries += usize::from(packet[0] & 0xf0 == 0xf0);
        }
    }
}

/// Row 42: what an eavesdropper has recorded does nothing when it comes again.
#[test]
fn captured_datagrams_are_inert() {
    let site = Site::new();
    let reading = reading(&site);
    let line = Line::to(reading.port(Port::Tunnel), Quality::default());
    line.listen_in();
    let hospital = site.hospital(line.port()).start();
    carries(&hospital, &reading);
    let copies = line.overheard();
    assert!(copies.len() > 20, "{} datagrams", copies.len());
    let (kept, since) = (reading.status()["spool"]["present"].clone(), tunnel(&reading, "since"));
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let replay = || {
        for copy in &copies {
            let _ = stranger.send_to(copy, ("127.0.0.1", reading.port(Port::Tunnel)));
        }
    };
    replay();
    carries(&hospital, &reading);
    assert_eq!(tunnel(&reading, "since"), since, "the tunnel was not disturbed");
    // And when the connection that they belong to is gone.
    assert!(hospital.stop().success());
    until("the tunnel is down", || !is_up(&reading));
    let before = reading.metric("hikyaku_received_total", &["tunnel"]);
    replay();
    replay();
    hospital.start();
    until("the tunnel stands", || is_up(&reading));
    let after = reading.metric("hikyaku_received_total", &["tunnel"]);
    assert!(after - before < 1.0, "replayed cargo was taken");
    assert!(reading.status()["spool"]["present"].as_u64() >= kept.as_u64());
    carries(&hospital, &reading);
}

#[test]
fn datagrams_of_garbage_are_answered_with_no_more_than_they_are() {
    let site = Site::new();
    let reading = reading(&site);
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    carries(&hospital, &reading);
    let resident = memory(&reading, "VmRSS:");
    let mut state = 88_172_645_463_325_252u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    let (mut said, mut heard) = (0, 0);
    for n in 0..20_000 {
        let length = 1 + random() as usize % 1500;
        let mut packet: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        match n % 4 {
            // Long header of QUIC version 1, of another version, of version negotiation.
            0 if length > 6 => packet[..5].copy_from_slice(&[0xc0, 0, 0, 0, 1]),
            1 if length > 6 => packet[..5].copy_from_slice(&[0xc0, 0xba, 0xba, 0xba, 0xba]),
            2 if length > 6 => packet[..5].copy_from_slice(&[0x80, 0, 0, 0, 0]),
            _ => packet[0] = 0x40 | packet[0] & 0x3f,
        }
        if socket.send_to(&packet, ("127.0.0.1", reading.port(Port::Tunnel))).is_ok() {
            said += length;
        }
        let mut answer = [0; 2048];
        while let Ok(length) = socket.recv(&mut answer) {
            heard += length;
        }
    }
    assert!(heard <= said, "{heard} bytes for {said}");
    assert!(is_up(&hospital), "the tunnel stands all the while");
    carries(&hospital, &reading);
    let grown = memory(&reading, "VmHWM:").saturating_sub(resident);
    assert!(grown <= FLOOD_GROWTH_MAX, "garbage made the node grow by {grown} KiB");
}

fn offer(exchange: u64, body: &[u8]) -> Offer {
    let origin = HOSPITAL.parse().expect("a name");
    let key = format!("1.2.3.{}", Sha256::of(body).short());
    let envelope = Envelope {
        kind: CargoKind::Image,
        identity: Identity { origin, key, sha256: Sha256::of(body) },
        length: body.len() as u64,
        urgency: Urgency::Routine,
        received_at: Timestamp(0),
        calling_ae: "CT1".into(),
        called_ae: "HIKYAKU".into(),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        study: "1.2.3".into(),
        series: "1.2.3.1".into(),
        modality: "CT".into(),
        accession: String::new(),
        patient_id: String::new(),
        flags: vec![],
    };
    Offer { exchange, envelope, coding: 0, ask: false }
}

fn say(lane: &mut Lane<'_>, frame: Frame) {
    lane.say(&frame.encode());
}

fn chunk(exchange: u64, bytes: &[u8]) -> Frame {
    Frame::Chunk { exchange, bytes: Bytes::copy_from_slice(bytes) }
}

#[test]
fn a_peer_that_breaks_the_protocol_loses_its_connection_and_both_logs_can_say_why() {
    let site = Site::new();
    let reading = reading(&site);
    let port = reading.port(Port::Tunnel);
    let key = stolen_key(&site, port);
    let rogue = Rogue::new(&site);
    let hello = |lane: &mut Lane<'_>| {
        let frame = Hello::of(&HOSPITAL.parse().expect("a name"), Purpose::Cargo);
        lane.say(&Frame::Hello(frame).encode());
    };
    type Attack = fn(&mut Lane<'_>);
    let breaches: [(&str, bool, Attack); 11] = [
        ("more bytes than offered", true, |lane| {
            say(lane, Frame::Offer(Box::new(offer(1, b"body"))));
            say(lane, chunk(1, b"bodies"));
        }),
        ("claims 4294967295 bytes", true, |lane| lane.say(&[2, 0xff, 0xff, 0xff, 0xff])),
        ("claims 262153 bytes", true, |lane| lane.say(&[3, 0, 4, 0, 9])),
        ("frame type 0x47", true, |lane| lane.say(b"GET / HTTP/1.1\r\n\r\n")),
        ("malformed", true, |lane| lane.say(&[2, 0, 0, 0, 3, 0xa1, 0, 0xff])),
        ("does not follow", true, |lane| say(lane, Frame::Offer(Box::new(offer(7, b"body"))))),
        ("does not follow", true, |lane| {
            for _ in 0..2 {
                say(lane, Frame::Offer(Box::new(offer(1, b"body"))));
            }
        }),
        ("unfinished bodies", true, |lane| {
            for n in 1..=5 {
                say(lane, Frame::Offer(Box::new(offer(n, b"body"))));
            }
        }),
        ("does not expect that frame", true, |lane| say(lane, chunk(9, b"body"))),
        ("wrong side", true, |lane| say(lane, Frame::Receipts(vec![]))),
        ("begins with one Hello", false, |lane| {
            say(lane, Frame::Withdraw(Withdraw { exchange: 1 }));
        }),
    ];
    for (words, greets, attack) in breaches {
        let peer = rogue.dial(port, rogue.config(Some(&key), ALPN)).expect("let in");
        let mut lane = peer.silent_lane().expect("a lane");
        if greets {
            hello(&mut lane);
        }
        attack(&mut lane);
        let told = peer.closed();
        assert!(told.contains(words), "{words}: {told}");
        let noted = |l: &str| l.contains("tunnel down") && l.contains(words);
        until("the log says it too", || reading.log().lines().any(noted));
    }
    assert_eq!(reading.status()["spool"]["present"], 0);
    assert!(reading.ended().is_none());
}

/// The hospital's key, as somebody has it who stole it.
fn stolen_key(site: &Site, port: u16) -> hikyaku::tunnel::pki::Pair {
    drop(site.hospital(port));
    installed(site, HOSPITAL)
}

#[test]
fn what_a_peer_may_not_bring_is_refused_by_reason_and_never_kept() {
    let site = Site::new();
    let reading = reading(&site);
    let port = reading.port(Port::Tunnel);
    let key = stolen_key(&site, port);
    let rogue = Rogue::new(&site);
    let peer = rogue.dial(port, rogue.config(Some(&key), ALPN)).expect("let in");
    let mut lane = peer.lane(Purpose::Cargo).expect("a lane");
    assert!(matches!(lane.hear(), Ok(Frame::Hello(_))));
    let good = offer(0, b"body");
    let mut foreign = good.clone();
    foreign.envelope.identity.origin = "elsewhere".parse().expect("a name");
    let mut rude = good.clone();
    rude.envelope.modality = "\u{1b}[2J".into();
    let mut long = good.clone();
    long.envelope.patient_id = "x".repeat(10_000);
    let mut lie = good.clone();
    lie.envelope.identity.sha256 = Sha256::of(b"another");
    let huge = Envelope { length: 1 << 60, ..good.envelope.clone() };
    let huge = Offer { envelope: huge, ask: true, ..good.clone() };
    let tries = [
        ("a foreign origin", foreign, Refusal::Relay),
        ("terminal controls", rude, Refusal::Envelope),
        ("an endless text", long, Refusal::Envelope),
        ("a wrong digest", lie, Refusal::Digest),
        ("an unknown coding", Offer { coding: 9, ..good.clone() }, Refusal::Coding),
        ("an exabyte", huge, Refusal::TooLarge),
    ];
    for (exchange, (what, offer, refusal)) in (1..).zip(tries) {
        let ask = offer.ask;
        say(&mut lane, Frame::Offer(Box::new(Offer { exchange, ..offer })));
        if !ask {
            say(&mut lane, chunk(exchange, b"body"));
        }
        match lane.hear() {
            Ok(Frame::Refuse(refuse)) => assert_eq!(Refusal::of(refuse.reason), refusal, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(reading.status()["spool"]["present"], 0);
    say(&mut lane, Frame::Offer(Box::new(Offer { exchange: 7, ..good })));
    say(&mut lane, chunk(7, b"body"));
    assert!(matches!(lane.hear(), Ok(Frame::Receipts(_))), "the same lane still serves");
}

#[test]
fn thousands_of_offers_without_an_end_stay_within_the_nodes_memory() {
    let site = Site::new();
    let other = "other-hospital";
    let plan = site.reading().awaits(other).folder_destination("out").route_all("out");
    let reading = plan.start();
    let port = reading.port(Port::Tunnel);
    let key = stolen_key(&site, port);
    let rogue = Rogue::new(&site);
    let resident = memory(&reading, "VmRSS:");
    let peer = rogue.dial(port, rogue.config(Some(&key), ALPN)).expect("let in");
    // Bodies of 4 MiB that never end, four on each lane, and offers of 8 GiB that are asked about.
    let mut lanes = Vec::new();
    let piece = vec![7; 200_000];
    while let Ok(mut lane) = peer.lane(Purpose::Cargo) {
        assert!(lanes.len() < 100, "lanes without end");
        for exchange in 1..=4u64 {
            let unique = [lanes.len() as u8, exchange as u8];
            let mut offer = offer(exchange, &unique);
            offer.ask = lanes.len() % 4 == 3;
            offer.envelope.length = if offer.ask { 7 << 30 } else { 4 << 20 };
            say(&mut lane, Frame::Offer(Box::new(offer)));
            for _ in 0..4 {
                if lanes.len() % 4 != 3 {
                    say(&mut lane, chunk(exchange, &piece));
                }
            }
        }
        lanes.push(lane);
    }
    assert!(lanes.len() >= 10, "{} lanes", lanes.len());
    // Another hospital is served beside it.
    let good = site.node(other).dicom().dials(READING, port).route_all(READING).start();
    carries(&good, &reading);
    let grown = memory(&reading, "VmHWM:").saturating_sub(resident);
    // The budget of bodies, the receive window, and as much for buffers on their way.
    assert!(grown < (64 + 16 + 80) << 10, "the node has grown by {grown} KiB");
    drop(lanes);
    peer.leave();
    carries(&good, &reading);
    assert!(reading.ended().is_none());
}
