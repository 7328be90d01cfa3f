//! What the sections must have to do with each other. Pure: no file is opened here.

use std::collections::{BTreeMap, BTreeSet};

use crate::cargo::NodeName;
use crate::delivery::backoff::Backoff;
use crate::intake::Network;
use crate::routing::{Field, RULES_MAX};
use crate::tunnel::receipt::stands_in_certificates;

use super::hl7_destination;
use super::homes;
use super::read::Document;
use super::sections::*;
use super::source::Source;

/// Reports everything that does not fit together.
pub(super) fn check(source: &mut Source<'_>, document: &Document) {
    if let Some(dicom) = &document.dicom {
        check_dicom(source, dicom);
    }
    check_listeners(source, document);
    super::orders::check(source, document);
    super::reports::check(source, document);
    super::collect::check(source, document);
    super::api::check(source, document);
    check_spool(source, &document.spool);
    if let Some(tunnel) = &document.tunnel {
        check_tunnel(source, tunnel, document);
    }
    check_destinations(source, document);
    check_routes(source, document);
    check_called_titles(source, document);
    if let Some(node) = &document.node
        && node.log.level > LogLevel::Info
    {
        source.warning(
            "node.log.level",
            "may write identifiers of patients to the log",
            "use \"info\" when the search for a fault is over",
        );
    }
    if document.dicom.is_none() && document.tunnel.is_none() {
        source.warning("", "nothing comes in", "add a [dicom] or a [tunnel] section");
    }
}

fn check_dicom(source: &mut Source<'_>, dicom: &DicomSection) {
    if !source.has_key("dicom.listen") && !source.has_key("dicom.tls_listen") {
        source.problem("dicom", "has no listener", "write listen, tls_listen, or both");
    }
    if dicom.tls_listen.is_some() && !source.has_key("dicom.tls") {
        source.problem(
            "dicom.tls_listen",
            "has no certificate",
            "write tls = { certificate = \"…\", key = \"…\" }",
        );
    }
    if dicom.tls.is_some() && dicom.tls_listen.is_none() {
        source.warning("dicom.tls", "is not used", "write tls_listen, or leave tls out");
    }
    if dicom.allow.is_empty() && !source.has_key("dicom.allow[0]") {
        let advice = "nobody could send: list senders, such as \
                      allow = [{ ae_title = \"CT1\", address = \"10.1.0.7\" }]";
        source.problem("dicom.allow", "lets nobody in", advice);
    }
    for (i, entry) in dicom.allow.iter().enumerate() {
        if entry.ae_title.is_none() && entry.address.is_none_or(is_everything) {
            source.warning(
                &format!("dicom.allow[{i}]"),
                "lets every address send under every AE title",
                "name the senders or their network",
            );
        }
    }
    let limits = &dicom.limits;
    if limits.associations_per_address > limits.associations {
        source.warning(
            "dicom.limits.associations_per_address",
            "is above dicom.limits.associations",
            "one sender can take all associations: lower it",
        );
    }
}

/// Whether a network holds every address of its family.
fn is_everything(network: Network) -> bool {
    ["0.0.0.0/0", "::/0"].contains(&network.to_string().as_str())
}

fn check_listeners(source: &mut Source<'_>, document: &Document) {
    let dicom = document.dicom.as_ref();
    let hl7 = document.orders.as_ref().and_then(|orders| orders.hl7.as_ref());
    let reports = document.reports.as_ref().and_then(|reports| reports.collect.hl7.as_ref());
    let tcp = [
        ("dicom.listen", dicom.and_then(|d| d.listen)),
        ("dicom.tls_listen", dicom.and_then(|d| d.tls_listen)),
        ("orders.hl7.listen", hl7.and_then(|h| h.listen)),
        ("orders.hl7.tls_listen", hl7.and_then(|h| h.tls_listen)),
        ("reports.hl7.listen", reports.and_then(|h| h.listen)),
        ("reports.hl7.tls_listen", reports.and_then(|h| h.tls_listen)),
        ("api.listen", document.api.as_ref().map(|api| api.listen)),
        ("ops.listen", Some(document.ops.listen)),
    ];
    for (i, (key, address)) in tcp.iter().enumerate() {
        let Some(address) = address else { continue };
        for (other_key, other) in &tcp[..i] {
            let Some(other) = other else { continue };
            let overlap = address.ip() == other.ip()
                || address.ip().is_unspecified()
                || other.ip().is_unspecified();
            if address.port() != 0 && address.port() == other.port() && overlap {
                let what = format!("uses the same port as {other_key}");
                source.problem(key, what, "give each listener a port of its own");
            }
        }
    }
}

fn check_spool(source: &mut Source<'_>, spool: &SpoolSection) {
    if spool.stat_watermark < spool.high_watermark {
        source.problem(
            "spool.stat_watermark",
            "is below spool.high_watermark",
            "STAT must fit where routine cargo does: make it larger",
        );
    }
    let needed = spool.reserve.saturating_add(spool.segment.saturating_mul(2));
    if spool.capacity.is_some_and(|capacity| capacity < needed.saturating_mul(2)) {
        source.problem(
            "spool.capacity",
            "leaves too little room beside reserve and two segments",
            "make it at least twice as large as these, or make them smaller",
        );
    }
    if spool.tombstones < spool.retention {
        source.problem("spool.tombstones", "is shorter than spool.retention", "make it longer");
    }
}

/// A node's name stands in its certificate as a DNS name, which an address is none.
fn check_node_names(source: &mut Source<'_>, tunnel: &TunnelSection, document: &Document) {
    let own = document.node.iter().map(|node| ("node.name".to_owned(), node.name.as_str()));
    let peers = tunnel.peers.iter().enumerate();
    let peers = peers.map(|(i, p)| (format!("tunnel.peers[{i}].name"), p.name.as_str()));
    let is_node = |d: &&(usize, Destination)| matches!(d.1.kind, DestinationKind::Node { .. });
    let nodes = document.destinations.iter().filter(is_node);
    let nodes = nodes.map(|(i, d)| (format!("destination[{i}].name"), d.name.as_str()));
    for (key, name) in own.chain(peers).chain(nodes) {
        if !stands_in_certificates(name) {
            source.problem(
                &key,
                format!("{name} cannot stand in a certificate as a node's name"),
                "write a name such as st-elsewhere, not an address, and without '..'",
            );
        }
    }
}

fn check_tunnel(source: &mut Source<'_>, tunnel: &TunnelSection, document: &Document) {
    check_node_names(source, tunnel, document);
    if tunnel.limits.keep_alive >= tunnel.limits.idle {
        source.problem(
            "tunnel.limits.keep_alive",
            "is not shorter than tunnel.limits.idle",
            "an idle connection would be lost: a third of idle is usual",
        );
    }
    if tunnel.limits.lane_window > tunnel.limits.receive_window {
        source.problem(
            "tunnel.limits.lane_window",
            "is above tunnel.limits.receive_window",
            "lower it",
        );
    }
    let own = document.node.as_ref().map(|node| &node.name);
    let mut seen = BTreeSet::new();
    for (i, peer) in tunnel.peers.iter().enumerate() {
        let key = format!("tunnel.peers[{i}].name");
        if !seen.insert(&peer.name) {
            source.problem(&key, format!("{} is listed twice", peer.name), "keep one entry");
        }
        if Some(&peer.name) == own {
            source.problem(&key, "is this node's own name", "list other nodes only");
        }
        if own.is_some_and(|own| peer.relay.contains(own)) {
            let key = format!("tunnel.peers[{i}].relay");
            source.problem(&key, "holds this node's own name", "list other origins only");
        }
        if tunnel.listen.is_none() && !dials(document, &peer.name) {
            let what = format!("{} can never connect", peer.name);
            source.warning(&key, what, "write tunnel.listen, or a destination with its address");
        }
    }
    let nodes = |d: &(usize, Destination)| matches!(d.1.kind, DestinationKind::Node { .. });
    if tunnel.peers.is_empty() && !document.destinations.iter().any(nodes) {
        source.warning(
            "tunnel",
            "has nobody at the other end",
            "add [[tunnel.peers]] for nodes that dial us, or a destination of kind node",
        );
    }
}

fn dials(document: &Document, node: &NodeName) -> bool {
    document.destinations.iter().any(|(_, destination)| {
        destination.name == *node
            && matches!(destination.kind, DestinationKind::Node { address: Some(_) })
    })
}

fn check_destinations(source: &mut Source<'_>, document: &Document) {
    for (name, positions) in &document.declared {
        for position in &positions[1..] {
            source.problem(
                &format!("destination[{position}].name"),
                format!("{name} is the name of an earlier destination"),
                "give each destination a name of its own",
            );
        }
    }
    for (position, destination) in &document.destinations {
        let key = format!("destination[{position}]");
        if document.node.as_ref().is_some_and(|node| destination.name == node.name) {
            let what = "is this node's own name";
            source.problem(&format!("{key}.name"), what, "a node does not send to itself");
        }
        match &destination.kind {
            DestinationKind::Node { address } => {
                check_node_destination(source, &key, address.is_some(), document);
            }
            DestinationKind::Dicom(dicom) => check_backoff(source, &key, dicom.backoff),
            DestinationKind::Folder { backoff, .. } => check_backoff(source, &key, *backoff),
            DestinationKind::Hl7(hl7) => {
                check_backoff(source, &key, hl7.backoff);
                hl7_destination::check(source, &key, destination, document);
            }
        }
        homes::check(source, &key, destination, document);
        let is_named = document.routes.iter().any(|(_, rule)| rule.to.contains(&destination.name));
        // Reports go home without a route.
        if !is_named && destination.home.is_none() {
            let what = format!("no route leads to {}", destination.name);
            source.warning(&format!("{key}.name"), what, "add a [[route]], or remove it");
        }
    }
}

fn check_backoff(source: &mut Source<'_>, key: &str, backoff: Backoff) {
    if backoff.first > backoff.cap {
        source.problem(&format!("{key}.backoff"), "is above backoff_max", "make it smaller");
    }
}

fn check_node_destination(
    source: &mut Source<'_>,
    key: &str,
    has_address: bool,
    document: &Document,
) {
    let Some(tunnel) = &document.tunnel else {
        if !source.has_key("tunnel") {
            let advice = "add a [tunnel] section with certificate, key and trust";
            source.problem(key, "of kind node needs a tunnel", advice);
        }
        return;
    };
    let unreadable = source.has_key(&format!("{key}.address")) || source.has_key("tunnel.listen");
    if !has_address && tunnel.listen.is_none() && !unreadable {
        source.problem(
            key,
            "cannot be reached: it has no address, and this node does not listen",
            "write its address, or tunnel.listen so that it can dial us",
        );
    }
}

fn check_routes(source: &mut Source<'_>, document: &Document) {
    if document.routes.len() > RULES_MAX {
        source.problem("route", format!("more than {RULES_MAX} routes"), "use wildcards and lists");
    }
    if document.routes.is_empty() && !source.has_key("route") {
        source.warning("", "there is no route", "all cargo would stay here, shown as unrouted");
    }
    let mut names = BTreeMap::new();
    let mut ended_by: Option<&str> = None;
    for (position, rule) in &document.routes {
        let key = format!("route[{position}]");
        if names.insert(rule.name.as_str(), position).is_some() {
            let what = format!("{} is the name of an earlier route", rule.name);
            source.problem(&format!("{key}.name"), what, "give each route a name of its own");
        }
        for (i, name) in rule.to.iter().enumerate() {
            if !document.declared.contains_key(name) {
                source.unknown_destination(&format!("{key}.to[{i}]"), name, &document.declared);
            }
            if rule.to[..i].contains(name) {
                let what = format!("names {name} twice");
                source.warning(&format!("{key}.to[{i}]"), what, "once is enough");
            }
        }
        if let Some(earlier) = ended_by {
            let what =
                format!("is never reached: route {earlier} takes everything and is the last");
            source.warning(&key, what, "move it up");
        } else if rule.last && rule.when.is_empty() {
            ended_by = Some(&rule.name);
        }
    }
}

/// Catches the typing error in a called AE title that would leave an emergency unrouted.
fn check_called_titles(source: &mut Source<'_>, document: &Document) {
    let Some(dicom) = &document.dicom else { return };
    if document.tunnel.as_ref().is_some_and(|tunnel| tunnel.listen.is_some()) {
        return;
    }
    for (position, rule) in &document.routes {
        let called = rule.when.iter().find(|condition| condition.field == Field::CalledAe);
        for pattern in called.into_iter().flat_map(|condition| &condition.patterns) {
            if !dicom.ae_titles.iter().any(|title| pattern.matches(title.as_str())) {
                source.warning(
                    &format!("route[{position}].when.called_ae"),
                    format!("no AE title of this node matches \"{}\"", pattern.as_str()),
                    "add it to dicom.ae_titles, or correct it",
                );
            }
        }
    }
}
