//! `[orders]`: what is known of orders, when images are called late or complete, and HL7 in.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::tz::TimeZone;
use toml::de::DeValue;

use crate::dicom::AeTitle;
use crate::hl7::charset::{Charset, CharsetRule};
use crate::hl7::header::Accepts;
use crate::hl7::inbound;
use crate::hl7::order::OrderFields;
use crate::hl7::path::Path as FieldPath;
use crate::intake::Network;
use crate::intake::mllp::MllpConfig;
use crate::orders::judge::Rules;
use crate::orders::priors::PriorRule;
use crate::orders::registrar::{self, UNTIL_MATCHED};
use crate::routing::{Rule, Times};

use super::Config;
use super::commitment::{self, CommitmentSection};
use super::notices::{self, MailSection, NoticeSection};
use super::read::Document;
use super::reader::Section;
use super::sections::ServerTls;
use super::source::Source;
use super::sources::{self, SourceSection};
use super::steps::{self, StepsSection};
use super::value::*;
use super::worklist::{self, WorklistSection};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// `[orders]`: orders, evidence and gaps. Present: this node keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrdersSection {
    /// Times and choices.
    pub rules: Rules,
    /// Who gives this site's patient numbers; empty: not known.
    pub patient_issuer: String,
    /// Where the times of a message are local that states no offset.
    pub zone: TimeZone,
    /// `[orders.hl7]`; `None`: no orders come by HL7.
    pub hl7: Option<Hl7Section>,
    /// `[orders.commitment]`.
    pub commitment: CommitmentSection,
    /// Every `[[orders.source]]`, in the order of the file.
    pub sources: Vec<SourceSection>,
    /// Every `[[orders.priors]]`, in the order of the file.
    pub priors: Vec<PriorRule>,
    /// Every `[[orders.worklist]]`, with its place in the file.
    pub worklists: Vec<(usize, WorklistSection)>,
    /// Every `[[orders.notice]]` that could be read, with its position.
    pub notices: Vec<(usize, NoticeSection)>,
    /// `[orders.mail]`; `None`: no notice goes by mail.
    pub mail: Option<MailSection>,
    /// `[orders.steps]`.
    pub steps: StepsSection,
}

/// `[orders.hl7]`: orders by HL7 version 2 over MLLP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hl7Section {
    /// Plain listener. One of the two is there.
    pub listen: Option<SocketAddr>,
    /// TLS listener; only together with `tls`.
    pub tls_listen: Option<SocketAddr>,
    /// Certificate of the TLS listener.
    pub tls: Option<ServerTls>,
    /// How messages are read.
    pub rules: inbound::Rules,
    /// Who may send, and limits.
    pub mllp: MllpConfig,
}

pub(super) fn section(s: &mut Section<'_, '_>, own: &AeTitle) -> Option<OrdersSection> {
    let rules = Rules {
        settle: s.or("settle", "\"1m\"", duration),
        quiet: s.or("quiet", "\"10m\"", duration),
        overdue: s.or("overdue", "\"1h\"", duration),
        orders_expected: s.or("expected", "true", boolean),
        hold_patient_mismatch: s.or("hold_patient_mismatch", "true", boolean),
        ..Rules::default()
    };
    let patient_issuer = s.maybe("patient_issuer", text).unwrap_or_default();
    let zone = s.maybe("time_zone", time_zone).unwrap_or_else(TimeZone::system);
    let hl7 = s.maybe_table("hl7", |s| hl7(s, &ORDERS));
    let commitment = s.table("commitment", commitment::section);
    let steps = s.table("steps", |s| steps::section(s, own));
    let (sources, priors) = sources::sections(s, own);
    let worklists = s.tables("worklist", worklist::section);
    let notices = notices::notices(s);
    let mail = s.maybe_table("mail", notices::mail);
    Some(OrdersSection {
        rules,
        patient_issuer,
        zone,
        hl7,
        commitment,
        sources,
        priors,
        worklists,
        notices,
        mail,
        steps,
    })
}

/// What differs between listeners for orders and for reports.
pub(super) struct Brings {
    /// Whether it is reports.
    reports: bool,
    /// Connections in all, and bytes of one message, by default.
    defaults: (&'static str, &'static str),
    /// Most bytes of one message that can be configured.
    message_max: u64,
}

/// Orders are short.
const ORDERS: Brings =
    Brings { reports: false, defaults: ("32", "\"1 MiB\""), message_max: 16 << 20 };
/// Reports bring documents, and a message stands in memory as a whole.
pub(super) const REPORTS: Brings =
    Brings { reports: true, defaults: ("8", "\"32 MiB\""), message_max: 128 << 20 };

pub(super) fn hl7(s: &mut Section<'_, '_>, brings: &Brings) -> Option<Hl7Section> {
    let listen = s.maybe("listen", socket);
    let tls_listen = s.maybe("tls_listen", socket);
    let tls = s.maybe_table("tls", |s| {
        let (certificate, key) = (s.need_path("certificate"), s.need_path("key"));
        let trust = s.maybe_path("trust");
        Some(ServerTls { certificate: certificate?, key: key?, trust })
    });
    let allow = s.need_one_or_list("allow", network).unwrap_or_default();
    let charset = CharsetRule {
        default: s.or("charset", "\"ASCII\"", charset),
        always: s.maybe("charset_always", charset),
    };
    let default = Accepts::default();
    let processing_ids = s.one_or_list("processing_ids", text).unwrap_or(default.processing_ids);
    let accepts =
        Accepts { processing_ids, orders: !brings.reports, reports: brings.reports, ..default };
    let fields = s.table("fields", |s| fields(s, brings));
    let mllp = s.table("limits", |s| limits(s, allow, brings));
    let rules = inbound::Rules { charset, accepts, fields };
    Some(Hl7Section { listen, tls_listen, tls, rules, mllp })
}

fn fields(s: &mut Section<'_, '_>, brings: &Brings) -> OrderFields {
    let default = OrderFields::default();
    let accession = s.one_or_list("accession", field).unwrap_or(default.accession);
    let study_uid = s.one_or_list("study_uid", field).unwrap_or(default.study_uid);
    // A report is scheduled for no time.
    let scheduled = (!brings.reports).then(|| s.one_or_list("scheduled_at", field)).flatten();
    OrderFields { accession, study_uid, scheduled_at: scheduled.unwrap_or(default.scheduled_at) }
}

fn limits(s: &mut Section<'_, '_>, allow: Vec<Network>, brings: &Brings) -> MllpConfig {
    let (connections, message) = brings.defaults;
    MllpConfig {
        allow,
        connections: s.or("connections", connections, count(1..=10_000)) as usize,
        connections_per_address: s.or("connections_per_address", "8", count(1..=10_000)) as usize,
        message: usize::try_from(s.or("message", message, size(4096..=brings.message_max)))
            .unwrap_or(1 << 20),
        message_time: s.or("message_time", "\"60s\"", duration),
        idle: s.or("idle", "\"1d\"", duration),
    }
}

fn field(value: &DeValue<'_>) -> Result<FieldPath, Wrong> {
    let written = text(value)?;
    let advice = "a place in a message looks like OBR-18 or ORC-7.4";
    written.parse().map_err(|e| wrong(format!("\"{written}\" cannot be taken: {e}"), advice))
}

pub(super) fn charset(value: &DeValue<'_>) -> Result<Charset, Wrong> {
    let written = text(value)?;
    let advice = "HL7 names are ASCII, 8859/1, UNICODE UTF-8, ISO IR87, SHIFT_JIS";
    written.parse().map_err(|e| wrong(format!("{e}"), advice))
}

fn time_zone(value: &DeValue<'_>) -> Result<TimeZone, Wrong> {
    let written = text(value)?;
    let advice = "write a zone of the IANA database, such as Asia/Tokyo";
    TimeZone::get(&written).map_err(|_| wrong(format!("\"{written}\" is no time zone"), advice))
}

/// Whether what a route sends waits for its order.
fn waits_for_order(rule: &Rule) -> bool {
    rule.hold.as_deref() == Some(UNTIL_MATCHED)
}

/// Correcting needs orders, and changes what the modality sent.
fn check_correct(source: &mut Source<'_>, document: &Document) {
    for (i, rule) in document.routes.iter().filter(|(_, rule)| rule.correct) {
        let key = format!("route[{i}].correct");
        match &document.orders {
            None => source.problem(
                &key,
                "corrects by orders, but this node keeps none",
                "add an [orders] section, or leave it out",
            ),
            Some(_) => source.warning(
                &key,
                format!(
                    "images of {} may leave with other bytes than the modality sent",
                    rule.name
                ),
                "they say so (Original Attributes Sequence), and the sender is answered B000; \
                 leave it out where bytes must stay as they are",
            ),
        }
    }
}

/// Reports what does not fit together.
pub(super) fn check(source: &mut Source<'_>, document: &Document) {
    check_correct(source, document);
    let Some(orders) = &document.orders else {
        for (i, _) in document.routes.iter().filter(|(_, rule)| waits_for_order(rule)) {
            source.problem(
                &format!("route[{i}].hold"),
                "waits for orders, but this node keeps none",
                "add an [orders] section, or hold for another reason",
            );
        }
        for (i, _) in document.routes.iter().filter(|(_, rule)| rule.times != Times::default()) {
            source.problem(
                &format!("route[{i}]"),
                "says how long is waited for its images, but this node keeps no orders",
                "add an [orders] section, or leave settle, quiet, overdue and expected out",
            );
        }
        return;
    };
    let rules = &orders.rules;
    for (i, rule) in &document.routes {
        check_times(source, *i, rules, rule.times);
    }
    if rules.settle > rules.quiet {
        source.problem(
            "orders.settle",
            "is longer than orders.quiet",
            "a gap is told after settle, and nothing is presumed before quiet: make it shorter",
        );
    }
    if rules.settle > DAY || rules.quiet > 30 * DAY || rules.overdue > 365 * DAY {
        source.problem(
            "orders",
            "waits too long",
            "settle: 1 day, quiet: 30, overdue: 365 at most",
        );
    }
    commitment::check(&orders.commitment, source);
    sources::check(orders, document, source);
    worklist::check(&orders.worklists, source);
    notices::check(orders, source);
    steps::check(&orders.steps, source);
    if let Some(hl7) = &orders.hl7 {
        check_hl7(source, "orders.hl7", hl7);
    }
}

/// Reports what is wrong with the listeners for HL7 in section `key`.
pub(super) fn check_hl7(source: &mut Source<'_>, key: &str, hl7: &Hl7Section) {
    let [listen, tls_listen, tls] = ["listen", "tls_listen", "tls"].map(|k| format!("{key}.{k}"));
    if !source.has_key(&listen) && !source.has_key(&tls_listen) {
        source.problem(key, "has no listener", "write listen, tls_listen, or both");
    }
    if hl7.tls_listen.is_some() && !source.has_key(&tls) {
        source.problem(
            &tls_listen,
            "has no certificate",
            "write tls = { certificate = \"…\", key = \"…\" }",
        );
    }
    if hl7.tls.is_some() && hl7.tls_listen.is_none() {
        source.warning(&tls, "is not used", "write tls_listen, or leave tls out");
    }
}

/// A route's times with those of `[orders]` where it says none.
fn check_times(source: &mut Source<'_>, position: usize, rules: &Rules, times: Times) {
    let key = format!("route[{position}]");
    let (settle, quiet) =
        (times.settle.unwrap_or(rules.settle), times.quiet.unwrap_or(rules.quiet));
    let said = times.settle.is_some() || times.quiet.is_some();
    if said && settle > quiet {
        source.problem(
            &key,
            "waits longer for gaps (settle) than for images (quiet)",
            "what it does not say stands in [orders]: make settle shorter, or quiet longer",
        );
    }
    let overdue = times.overdue.unwrap_or(DAY);
    if times.settle.is_some_and(|t| t > DAY) || quiet > 30 * DAY || overdue > 365 * DAY {
        let advice = "settle: 1 day, quiet: 30, overdue: 365 at most";
        source.problem(&key, "waits too long", advice);
    }
}

impl Config {
    /// What the registrar is started with.
    pub fn registrar(&self) -> Option<registrar::Config> {
        let orders = self.orders.as_ref()?;
        let peers = self.peers().into_iter();
        let peers = peers.flat_map(|(name, relay)| std::iter::once(name).chain(relay.to_vec()));
        Some(registrar::Config {
            node: self.node.name.clone(),
            peers: peers.collect::<std::collections::BTreeSet<_>>().into_iter().collect(),
            rules: orders.rules.clone(),
            until_matched: self.routes.rules().iter().any(waits_for_order),
            patient_issuer: orders.patient_issuer.clone(),
            hl7: orders.hl7.as_ref().map(|hl7| hl7.rules.clone()).unwrap_or_default(),
            zone: orders.zone.clone(),
            sources: orders.sources.iter().map(SourceSection::recall).collect(),
            priors: orders.priors.clone(),
            notices: self.notice_rules(),
            pass_on: Default::default(),
        })
    }
}
