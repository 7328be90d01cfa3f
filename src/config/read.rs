//! From TOML to sections: which keys there are, their defaults and their ranges.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use crate::cargo::{DestinationName, Urgency};
use crate::delivery::backoff::Backoff;
use crate::delivery::{Reencode, Timeouts};
use crate::dicom::AeTitle;
use crate::intake;
use crate::routing::{Attribute, Condition, Field, FieldError, Pattern, PatternError, Rule, Times};
use crate::tunnel;

use super::api::{self, ApiSection};
use super::hl7_destination;
use super::homes;
use super::orders::{self, OrdersSection};
use super::reader::{Section, keys_of};
use super::reports::{self, ReportsSection};
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
    pub(super) orders: Option<OrdersSection>,
    pub(super) reports: Option<ReportsSection>,
    pub(super) api: Option<ApiSection>,
    pub(super) ops: OpsSection,
    pub(super) drain: DrainSection,
}

pub(super) fn document(s: &mut Section<'_, '_>) -> Document {
    let mut declared = BTreeMap::<DestinationName, Vec<usize>>::new();
    let node = s.table("node", node);
    let mut dicom = s.maybe_table("dicom", dicom);
    let own = dicom.as_ref().and_then(|dicom| dicom.ae_titles.first()).cloned();
    let own = own.unwrap_or_else(|| "HIKYAKU".parse().expect("an AE title"));
    let spool = s.table("spool", spool);
    let mut tunnel = s.maybe_table("tunnel", tunnel_section);
    let mut position = 0;
    let destinations = s.tables("destination", |s| {
        let (name, destination) = destination(s, &own);
        if let Some(name) = name {
            declared.entry(name).or_default().push(position);
        }
        position += 1;
        destination
    });
    let routes = s.tables("route", route);
    let orders = s.maybe_table("orders", |s| orders::section(s, &own));
    let reports = s.maybe_table("reports", reports::section);
    let api = s.maybe_table("api", api::section);
    let ops =
        s.table("ops", |s| OpsSection { listen: s.or("listen", "\"127.0.0.1:9480\"", socket) });
    let drain =
        s.table("drain", |s| DrainSection { timeout: s.or("timeout", "\"30s\"", duration) });
    if let Some(dicom) = &mut dicom {
        dicom.limits.drain = drain.timeout;
    }
    if let Some(tunnel) = &mut tunnel {
        tunnel.limits.drain = drain.timeout;
    }
    Document {
        node,
        dicom,
        spool,
        tunnel,
        destinations,
        declared,
        routes,
        orders,
        reports,
        api,
        ops,
        drain,
    }
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
    let refuse_sop_classes =
        s.list("refuse_sop_classes", uid).unwrap_or_default().into_iter().collect();
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
    Some(Allow { ae_title: ae_title.filter(|title: &AeTitle| title != "*"), address })
}

fn dicom_limits(s: &mut Section<'_, '_>) -> intake::Limits {
    intake::Limits {
        associations: s.or("associations", "128", count(1..=10_000)) as usize,
        associations_per_address: s.or("associations_per_address", "32", count(1..=10_000))
            as usize,
        pdu_length: s.or("pdu_length", "\"128 KiB\"", size_u32(4 * KIB..=MIB)),
        artim: s.or("artim", "\"30s\"", duration),
        idle: s.or("idle", "\"10m\"", duration),
        dimse: s.or("dimse", "\"60s\"", duration),
        message: s.or("message", "\"1h\"", duration),
        ..intake::Limits::default()
    }
}

fn spool(s: &mut Section<'_, '_>) -> SpoolSection {
    SpoolSection {
        capacity: s.maybe("capacity", size(256 * MIB..=1024 * TIB)),
        high_watermark: s.or("high_watermark", "\"85 %\"", percent(10..=98)),
        stat_watermark: s.or("stat_watermark", "\"95 %\"", percent(10..=99)),
        reserve: s.or("reserve", "\"256 MiB\"", size(16 * MIB..=TIB)),
        retention: s.or("retention", "\"24h\"", duration_from(Duration::ZERO)),
        tombstones: s.or("tombstones", "\"400d\"", duration),
        memory: s.or("memory", "\"64 MiB\"", size(8 * MIB..=64 * GIB)),
        object: s.or("object", "\"8 GiB\"", size(MIB..=TIB)),
        segment: s.or("segment", "\"256 MiB\"", size(16 * MIB..=16 * GIB)),
        partials: s.or("partials", "256", count(1..=100_000)) as usize,
        partial_age: s.or("partial_age", "\"7d\"", duration),
        quota_per_origin: s.maybe("quota_per_origin", share),
    }
}

fn tunnel_section(s: &mut Section<'_, '_>) -> Option<TunnelSection> {
    let listen = s.maybe("listen", socket);
    let (certificate, key) = (s.need_path("certificate"), s.need_path("key"));
    let trust = s.need_path("trust");
    let crl = s.paths("crl");
    let peers = s.tables("peers", |s| {
        let name = s.need("name", parsed);
        let relay = s.list("relay", parsed).unwrap_or_default();
        let quota = s.maybe("quota", share);
        Some(Peer { name: name?, relay, quota })
    });
    let limits = s.table("limits", tunnel_limits);
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

fn tunnel_limits(s: &mut Section<'_, '_>) -> tunnel::Limits {
    tunnel::Limits {
        receive_window: s.or("receive_window", "\"16 MiB\"", size_u32(MIB..=GIB)),
        lane_window: s.or("lane_window", "\"8 MiB\"", size_u32(512 * KIB..=GIB)),
        lanes: s.or("lanes", "32", count(16..=1024)),
        idle: s.or("idle", "\"20s\"", duration),
        keep_alive: s.or("keep_alive", "\"4s\"", duration),
        handshake: s.or("handshake", "\"10s\"", duration),
        handshakes: s.or("handshakes", "64", count(1..=10_000)) as usize,
        retry_above: s.or("retry_above", "16", count(0..=10_000)) as usize,
        ..tunnel::Limits::default()
    }
}

/// A size that fits into 32 bits, as `range` must see to.
fn size_u32(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u32, Wrong> {
    let size = size(range);
    move |value| size(value).map(|bytes| u32::try_from(bytes).expect("the range fits 32 bits"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    Dicom,
    Folder,
    Hl7,
}

fn destination(
    s: &mut Section<'_, '_>,
    own: &AeTitle,
) -> (Option<DestinationName>, Option<Destination>) {
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
        drop((node_kind(s), dicom_kind(s, own), folder_kind(s), hl7_destination::kind(s)));
        homes::every(s);
        return (name, None);
    };
    s.belong_to(&keys_of(node_kind), "kind = \"node\"");
    s.belong_to(&keys_of(|s| dicom_kind(s, own)), "kind = \"dicom\"");
    s.belong_to(&keys_of(folder_kind), "kind = \"folder\"");
    s.belong_to(&keys_of(hl7_destination::kind), "kind = \"hl7\"");
    s.belong_to(&keys_of(homes::folder), "a destination of kind hl7, dicom or folder");
    let (home, kind) = match kind {
        Kind::Node => (None, node_kind(s)),
        Kind::Dicom => (homes::dicom(s), dicom_kind(s, own)),
        Kind::Folder => (homes::folder(s), folder_kind(s)),
        Kind::Hl7 => (homes::hl7(s), hl7_destination::kind(s)),
    };
    let read = name.clone().zip(kind).map(|(name, kind)| Destination { name, quota, home, kind });
    (name, read)
}

fn node_kind(s: &mut Section<'_, '_>) -> Option<DestinationKind> {
    Some(DestinationKind::Node { address: s.maybe("address", host_port) })
}

fn folder_kind(s: &mut Section<'_, '_>) -> Option<DestinationKind> {
    let path = s.need_path("path");
    let backoff = backoff(s);
    path.map(|path| DestinationKind::Folder { path, backoff })
}

pub(super) fn backoff(s: &mut Section<'_, '_>) -> Backoff {
    Backoff {
        first: s.or("backoff", "\"1s\"", duration),
        cap: s.or("backoff_max", "\"60s\"", duration),
    }
}

fn dicom_kind(s: &mut Section<'_, '_>, own: &AeTitle) -> Option<DestinationKind> {
    let address = s.need("address", host_port);
    let called = s.need("ae_title", ae_title);
    let calling = s.maybe("calling_ae", ae_title);
    let associations = s.or("associations", "1", count(1..=32)) as usize;
    let tls = s.maybe_table("tls", client_tls);
    let reencode = s.or(
        "reencode",
        "\"never\"",
        word(&[("never", Reencode::Never), ("native", Reencode::Native)]),
    );
    let reencode_length_max = s.or("reencode_length_max", "\"512 MiB\"", size(MIB..=4 * GIB));
    let backoff = backoff(s);
    let timeouts = s.table("timeouts", |s| Timeouts {
        connect: s.or("connect", "\"10s\"", duration),
        associate: s.or("associate", "\"30s\"", duration),
        write: s.or("write", "\"60s\"", duration),
        response: s.or("response", "\"2m\"", duration),
        idle: s.or("idle", "\"5s\"", duration),
    });
    Some(DestinationKind::Dicom(Box::new(DicomDestination {
        address: address?,
        ae_title: called?,
        calling_ae: calling.unwrap_or_else(|| own.clone()),
        associations: NonZeroUsize::new(associations)?,
        tls,
        reencode,
        reencode_length_max,
        backoff,
        timeouts,
    })))
}

pub(super) fn client_tls(s: &mut Section<'_, '_>) -> Option<ClientTls> {
    let trust = s.need_path("trust");
    let (certificate, key) = (s.maybe_path("certificate"), s.maybe_path("key"));
    let server_name = s.maybe("server_name", text);
    if certificate.is_some() != key.is_some() {
        let lonely = if key.is_some() { "key" } else { "certificate" };
        s.problem(lonely, "stands alone", "give certificate and key together, or neither");
    }
    Some(ClientTls { trust: trust?, identity: certificate.zip(key), server_name })
}

/// The words for urgencies.
pub(super) const URGENCIES: &[(&str, Urgency)] = &[
    ("stat", Urgency::Stat),
    ("urgent", Urgency::Urgent),
    ("routine", Urgency::Routine),
    ("bulk", Urgency::Bulk),
];

fn route(s: &mut Section<'_, '_>) -> Option<Rule> {
    let name = s.need("name", text);
    let when = s.table("when", conditions);
    let to = s.need_one_or_list("to", parsed::<DestinationName>);
    let urgency = s.maybe("urgency", word(URGENCIES));
    let hold = s.maybe("hold", text);
    let last = s.or("last", "false", boolean);
    let correct = s.or("correct", "false", boolean);
    let times = Times {
        settle: s.maybe("settle", duration),
        quiet: s.maybe("quiet", duration),
        overdue: s.maybe("overdue", duration),
        expected: s.maybe("expected", boolean),
    };
    Some(Rule { name: name?, when, to: to?, urgency, hold, last, correct, times })
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

pub(super) fn pattern(
    value: &DeValue<'_>,
    make: fn(&str) -> Result<Pattern, PatternError>,
) -> Result<Pattern, Wrong> {
    let DeValue::String(written) = value else {
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
