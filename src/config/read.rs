//! From TOML to sections: which keys there are, their defaults and their ranges.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cargo::{DestinationName, Urgency};
use crate::routing::{Attribute, Condition, Field, FieldError, Pattern, PatternError, Rule};

use super::reader::{Section, keys_of};
use super::sections::*;
use super::value::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// All sections, each `None` when it could not be read. Positions go with what comes in lists,
/// as items that could not be read are missing.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) node: Option<NodeSection>,
    pub(super) dicom: Option<DicomSection>,
    pub(super) spool: SpoolSection,
    pub(super) tunnel: Option<TunnelSection>,
    pub(super) destinations: Vec<(usize, Destination)>,
    /// Names of all destinations, also of those that could not be read.
    pub(super) declared: BTreeMap<DestinationName, Vec<usize>>,
    pub(super) routes: Vec<(usize, Rule)>,
    pub(super) ops: OpsSection,
    pub(super) drain: DrainSection,
}

pub(super) fn document(s: &mut Section<'_, '_>) -> Document {
    let mut declared = BTreeMap::<DestinationName, Vec<usize>>::new();
    let node = s.table("node", node);
    let dicom = s.maybe_table("dicom", dicom);
    let spool = s.table("spool", spool);
    let tunnel = s.maybe_table("tunnel", tunnel);
    let mut position = 0;
    let destinations = s.tables("destination", |s| {
        let (name, destination) = destination(s);
        if let Some(name) = name {
            declared.entry(name).or_default().push(position);
        }
        position += 1;
        destination
    });
    let routes = s.tables("route", route);
    let ops =
        s.table("ops", |s| OpsSection { listen: s.or("listen", "\"127.0.0.1:9480\"", socket) });
    let drain =
        s.table("drain", |s| DrainSection { timeout: s.or("timeout", "\"30s\"", duration) });
    Document { node, dicom, spool, tunnel, destinations, declared, routes, ops, drain }
}

fn node(s: &mut Section<'_, '_>) -> Option<NodeSection> {
    let name = s.need("name", parsed);
    let data = s.path_or("data", "\"/var/lib/hikyaku\"");
    let log = s.table("log", |s| LogSection {
        format: s.or(
            "format",
            "\"human\"",
            word(&[("human", LogFormat::Human), ("json", LogFormat::Json)]),
        ),
        level: s.or(
            "level",
            "\"info\"",
            word(&[
                ("error", LogLevel::Error),
                ("warn", LogLevel::Warn),
                ("info", LogLevel::Info),
                ("debug", LogLevel::Debug),
                ("trace", LogLevel::Trace),
            ]),
        ),
    });
    Some(NodeSection { name: name?, data, log })
}

fn dicom(s: &mut Section<'_, '_>) -> Option<DicomSection> {
    let listen = s.maybe("listen", socket);
    let tls_listen = s.maybe("tls_listen", socket);
    let tls = s.maybe_table("tls", |s| {
        let (certificate, key) = (s.need_path("certificate"), s.need_path("key"));
        let trust = s.maybe_path("trust");
        Some(ServerTls { certificate: certificate?, key: key?, trust })
    });
    let ae_titles = s.need_one_or_list("ae_titles", ae_title);
    let allow = s.tables("allow", allow);
    let refuse_sop_classes = s.list("refuse_sop_classes", uid).unwrap_or_default();
    let limits = s.table("limits", dicom_limits);
    Some(DicomSection {
        listen,
        tls_listen,
        tls,
        ae_titles: ae_titles?,
        allow: allow.into_iter().map(|(_, allow)| allow).collect(),
        refuse_sop_classes,
        limits,
    })
}

fn allow(s: &mut Section<'_, '_>) -> Option<Allow> {
    let ae_title = s.maybe("ae_title", ae_title);
    let address = s.maybe("address", network);
    Some(Allow { ae_title: ae_title.filter(|title| title != "*"), address })
}

fn dicom_limits(s: &mut Section<'_, '_>) -> DicomLimits {
    DicomLimits {
        associations: s.or("associations", "200", count(1..=10_000)),
        associations_per_address: s.or("associations_per_address", "50", count(1..=10_000)),
        pdu: s.or("pdu", "\"128 KiB\"", size(4 * KIB..=MIB)),
        command_set: s.or("command_set", "\"16 KiB\"", size(KIB..=64 * KIB)),
        object: s.or("object", "\"4 GiB\"", size(MIB..=TIB)),
        idle: s.or("idle", "\"5m\"", duration),
        artim: s.or("artim", "\"30s\"", duration),
        stall: s.or("stall", "\"60s\"", duration),
        total: s.or("total", "\"24h\"", duration),
    }
}

fn spool(s: &mut Section<'_, '_>) -> SpoolSection {
    SpoolSection {
        capacity: s.maybe("capacity", size(256 * MIB..=1024 * TIB)),
        high_watermark: s.or("high_watermark", "\"90 %\"", percent(10..=98)),
        stat_share: s.or("stat_share", "\"5 %\"", percent(0..=50)),
        reserve: s.or("reserve", "\"512 MiB\"", size(16 * MIB..=TIB)),
        retention: s.or("retention", "\"24h\"", duration_from(Duration::ZERO)),
        tombstones: s.or("tombstones", "\"400d\"", duration),
        memory: s.or("memory", "\"64 MiB\"", size(8 * MIB..=64 * GIB)),
        in_memory: s.or("in_memory", "\"4 MiB\"", size(64 * KIB..=64 * MIB)),
        segment: s.or("segment", "\"256 MiB\"", size(16 * MIB..=16 * GIB)),
        partials: s.or("partials", "\"10 GiB\"", size(MIB..=1024 * TIB)),
        partial_age: s.or("partial_age", "\"7d\"", duration),
        quota_per_origin: s.maybe("quota_per_origin", share),
    }
}

fn tunnel(s: &mut Section<'_, '_>) -> Option<TunnelSection> {
    let listen = s.maybe("listen", socket);
    let (certificate, key) = (s.need_path("certificate"), s.need_path("key"));
    let trust = s.need_path("trust");
    let crl = s.maybe_path("crl");
    let peers = s.tables("peers", |s| {
        let name = s.need("name", parsed);
        let relay = s.list("relay", parsed).unwrap_or_default();
        let quota = s.maybe("quota", share);
        Some(Peer { name: name?, relay, quota })
    });
    let limits = s.table("limits", |s| TunnelLimits {
        connections: s.or("connections", "256", count(1..=10_000)),
        lanes: s.or("lanes", "32", count(4..=1024)),
        window: s.or("window", "\"32 MiB\"", size(MIB..=GIB)),
        lane_window: s.or("lane_window", "\"8 MiB\"", size(512 * KIB..=GIB)),
        send_window: s.or("send_window", "\"32 MiB\"", size(MIB..=GIB)),
        object: s.or("object", "\"4 GiB\"", size(MIB..=TIB)),
        handshake: s.or("handshake", "\"10s\"", duration),
        idle: s.or("idle", "\"30s\"", duration),
        keep_alive: s.or("keep_alive", "\"10s\"", duration),
        reconnect: s.or("reconnect", "\"60s\"", duration),
    });
    Some(TunnelSection {
        listen,
        certificate: certificate?,
        key: key?,
        trust: trust?,
        crl,
        peers: peers.into_iter().map(|(_, peer)| peer).collect(),
        limits,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    Dicom,
    Folder,
    Hl7,
}

fn destination(s: &mut Section<'_, '_>) -> (Option<DestinationName>, Option<Destination>) {
    let name = s.need("name", parsed::<DestinationName>);
    let quota = s.maybe("quota", share);
    let words = &[
        ("node", Kind::Node),
        ("dicom", Kind::Dicom),
        ("folder", Kind::Folder),
        ("hl7", Kind::Hl7),
    ];
    let Some(kind) = s.need("kind", word(words)) else {
        // Which keys belong here is unknown without the kind: take those of every kind for known.
        drop((node_kind(s), dicom_kind(s), folder_kind(s)));
        return (name, None);
    };
    if kind == Kind::Hl7 {
        s.problem("kind", "hl7 comes later", "this release sends to node, dicom and folder");
        drop((node_kind(s), dicom_kind(s), folder_kind(s)));
        return (name, None);
    }
    s.belong_to(&keys_of(node_kind), "kind = \"node\"");
    s.belong_to(&keys_of(dicom_kind), "kind = \"dicom\"");
    s.belong_to(&keys_of(folder_kind), "kind = \"folder\"");
    let kind = match kind {
        Kind::Node => node_kind(s),
        Kind::Dicom => dicom_kind(s),
        _ => folder_kind(s),
    };
    let read = name.clone().zip(kind).map(|(name, kind)| Destination { name, quota, kind });
    (name, read)
}

fn node_kind(s: &mut Section<'_, '_>) -> Option<DestinationKind> {
    Some(DestinationKind::Node { address: s.maybe("address", host_port) })
}

fn folder_kind(s: &mut Section<'_, '_>) -> Option<DestinationKind> {
    s.need_path("path").map(|path| DestinationKind::Folder { path })
}

fn dicom_kind(s: &mut Section<'_, '_>) -> Option<DestinationKind> {
    let address = s.need("address", host_port);
    let called = s.need("ae_title", ae_title);
    let calling = s.maybe("calling_ae", ae_title);
    let associations = s.or("associations", "1", count(1..=32));
    let tls = s.maybe_table("tls", client_tls);
    let reencode = s.or(
        "reencode",
        "\"never\"",
        word(&[("never", Reencode::Never), ("native", Reencode::Native)]),
    );
    let tries = s.or("tries", "3", count(1..=100));
    let backoff = s.or("backoff", "\"5s\"", duration);
    let backoff_max = s.or("backoff_max", "\"5m\"", duration);
    let timeouts = s.table("timeouts", |s| DicomTimeouts {
        connect: s.or("connect", "\"10s\"", duration),
        association: s.or("association", "\"30s\"", duration),
        send: s.or("send", "\"60s\"", duration),
        response: s.or("response", "\"2m\"", duration),
        idle: s.or("idle", "\"10s\"", duration),
    });
    Some(DestinationKind::Dicom(Box::new(DicomDestination {
        address: address?,
        ae_title: called?,
        calling_ae: calling.unwrap_or_default(),
        associations,
        tls,
        reencode,
        tries,
        backoff,
        backoff_max,
        timeouts,
    })))
}

fn client_tls(s: &mut Section<'_, '_>) -> Option<ClientTls> {
    let trust = s.need_path("trust");
    let (certificate, key) = (s.maybe_path("certificate"), s.maybe_path("key"));
    let server_name = s.maybe("server_name", text);
    if certificate.is_some() != key.is_some() {
        let lonely = if key.is_some() { "key" } else { "certificate" };
        s.problem(lonely, "stands alone", "give certificate and key together, or neither");
    }
    Some(ClientTls { trust: trust?, identity: certificate.zip(key), server_name })
}

fn route(s: &mut Section<'_, '_>) -> Option<Rule> {
    let name = s.need("name", text);
    let when = s.table("when", conditions);
    let to = s.need_one_or_list("to", parsed::<DestinationName>);
    let urgencies = &[
        ("stat", Urgency::Stat),
        ("urgent", Urgency::Urgent),
        ("routine", Urgency::Routine),
        ("bulk", Urgency::Bulk),
    ];
    let urgency = s.maybe("urgency", word(urgencies));
    let hold = s.maybe("hold", text);
    let last = s.or("last", "false", boolean);
    Some(Rule { name: name?, when, to: to?, urgency, hold, last })
}

fn conditions(s: &mut Section<'_, '_>) -> Vec<Condition> {
    let fields = [
        ("called_ae", Field::CalledAe),
        ("calling_ae", Field::CallingAe),
        ("modality", Field::Modality),
        ("origin", Field::Origin),
        ("sop_class", Field::SopClass),
    ];
    let mut all = Vec::new();
    for (key, field) in fields {
        let patterns = match field {
            Field::SopClass => s.one_or_list(key, |v| pattern(v, Pattern::sop_class)),
            _ => s.one_or_list(key, |v| pattern(v, Pattern::new)),
        };
        all.extend(patterns.map(|patterns| Condition { field, patterns }));
    }
    let attributes = s.table("attributes", |s| {
        s.entries(
            |keyword| Attribute::new(keyword).map_err(attribute_wrong),
            |v| pattern(v, Pattern::new),
        )
    });
    let attributes = attributes
        .into_iter()
        .map(|(attribute, patterns)| Condition { field: Field::Attribute(attribute), patterns });
    all.into_iter().chain(attributes).collect()
}

fn pattern(
    value: &toml::de::DeValue<'_>,
    make: fn(&str) -> Result<Pattern, PatternError>,
) -> Result<Pattern, Wrong> {
    let toml::de::DeValue::String(written) = value else {
        return Err(mismatch(value, "text in quotes, or a list of such texts"));
    };
    make(written).map_err(|e| match e {
        PatternError::SopClass(_) => {
            wrong(e.to_string(), "write a UID, or a keyword such as CTImageStorage")
        }
        _ => wrong(e.to_string(), "write a shorter, plain text; * and ? are wildcards"),
    })
}

fn attribute_wrong(error: FieldError) -> Wrong {
    let advice = match &error {
        FieldError::Unknown { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
        FieldError::Unknown { nearest: None, .. } => {
            "keywords are those of DICOM PS3.6, such as BodyPartExamined".into()
        }
        _ => "choose an attribute of the header that has text or a number".into(),
    };
    wrong(error.to_string(), advice)
}
