//! Every metric name, once. Any part may count; [`crate::ops`] shows.
//!
//! Labels are words of ours (destination, urgency, reason, node), never anything that a peer
//! sent, so the number of series is bounded by the configuration. All names start with
//! `hikyaku_`; units are base units (seconds, bytes) and stand in the name.

mod reports;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

pub use reports::ReportMetrics;

/// All counters and gauges of one node.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Associations open now, `hikyaku_associations`.
    pub associations: IntGauge,
    /// Associations accepted, `hikyaku_associations_accepted_total`.
    pub associations_accepted: IntCounter,
    /// Associations turned away, by reason, `hikyaku_associations_refused_total`.
    pub associations_refused: IntCounterVec,
    /// C-STORE answers, by status class word and hexadecimal status.
    pub store_answers: IntCounterVec,
    /// C-ECHO answers.
    pub echo_answers: IntCounter,
    /// Cargo received whole, by way (`dicom`, `tunnel`) whatever became of it.
    pub received: IntCounterVec,
    /// Bytes of cargo received whole, by way.
    pub received_bytes: IntCounterVec,
    /// Cargo taken into custody, by urgency.
    pub kept: IntCounterVec,
    /// Bytes taken into custody, by urgency.
    pub kept_bytes: IntCounterVec,
    /// Cargo answered with success that was in custody already.
    pub kept_already: IntCounter,
    /// Cargo held because its key is in custody with other bytes.
    pub conflicts: IntCounter,
    /// Images that could leave although whoever keeps orders had not looked at them.
    pub unjudged: IntCounter,
    /// Images that a route wants to have as their order says, by outcome (`corrected`, `refused`).
    pub corrections: IntCounterVec,
    /// Cargo refused, by reason (`full`, `io`, `stopped`).
    pub refused: IntCounterVec,
    /// Duties in each state now, by destination, urgency, state.
    pub duties: IntGaugeVec,
    /// Duties leased to a sender now, by destination and urgency.
    pub in_flight: IntGaugeVec,
    /// Bytes owed now, by destination.
    pub owed_bytes: IntGaugeVec,
    /// Receipts taken, by destination and urgency.
    pub receipted: IntCounterVec,
    /// Bytes receipted, by destination.
    pub receipted_bytes: IntCounterVec,
    /// Duties quarantined, by destination and urgency.
    pub quarantined: IntCounterVec,
    /// Tries that failed and will be repeated, by destination.
    pub retried: IntCounterVec,
    /// Age of the oldest owed duty, by destination, in seconds.
    pub oldest_owed: GaugeVec,
    /// Cargo without a destination now.
    pub unrouted: IntGauge,
    /// Time that one sync of a log took.
    pub sync_seconds: Histogram,
    /// Bytes that the spool occupies.
    pub spool_bytes: IntGauge,
    /// Bytes free on the spool's file system.
    pub spool_free_bytes: IntGauge,
    /// Bytes above which the spool refuses routine cargo.
    pub spool_watermark_bytes: IntGauge,
    /// 1 while the spool refuses cargo for want of room.
    pub spool_full: IntGauge,
    /// 1 while writes to the spool fail.
    pub spool_unwritable: IntGauge,
    /// Bodies or records found damaged.
    pub damaged: IntCounter,
    /// 1 while a tunnel to the node stands.
    pub tunnel_up: IntGaugeVec,
    /// Smoothed round-trip time of the tunnel, in seconds.
    pub tunnel_rtt: GaugeVec,
    /// Packets declared lost on the tunnel.
    pub tunnel_lost_packets: IntCounterVec,
    /// Bytes written to and read from the line, by node and direction (`out`, `in`).
    pub tunnel_bytes: IntCounterVec,
    /// HL7 connections open now, `hikyaku_hl7_connections`.
    pub hl7_connections: IntGauge,
    /// HL7 connections turned away or broken off, by reason.
    pub hl7_refused: IntCounterVec,
    /// HL7 messages answered, by answer (`taken`, `again`, `refused`, `not-kept`).
    pub hl7_messages: IntCounterVec,
    /// Reports that came in, by way (`hl7`, `dicom`, `folder`, `api`) and outcome (`taken`, `again`,
    /// `refused`, `not-kept`).
    pub reports_in: IntCounterVec,
    /// Connections of the API open now, `hikyaku_api_connections`.
    pub api_connections: IntGauge,
    /// Connections of the API turned away or broken off, by reason.
    pub api_refused: IntCounterVec,
    /// Requests of the API answered, by client (empty: nobody), call and status.
    pub api_requests: IntCounterVec,
    /// Failed logins at the API, by reason.
    pub api_logins_failed: IntCounterVec,
    /// Open orders, by how far their images are.
    pub orders: IntGaugeVec,
    /// Instances that evidence names and custody lacks.
    pub missing_instances: IntGauge,
    /// Studies of which something lacks.
    pub short_studies: IntGauge,
    /// For how long the oldest of them lacks something, in seconds.
    pub oldest_short: Gauge,
    /// Studies without an order that should have one.
    pub unmatched_studies: IntGauge,
    /// Studies with withdrawn images that nobody has acknowledged.
    pub withdrawn_studies: IntGauge,
    /// Tries to deliver notices, by channel and outcome (`accepted`, `failed`, `given-up`).
    pub notices: IntCounterVec,
    /// Notices that a channel has not taken yet.
    pub notices_undelivered: IntGauge,
    /// Age of the oldest of them, in seconds.
    pub oldest_notice: Gauge,
    /// Requests for storage commitment that are not ended.
    pub commitments_open: IntGauge,
    /// Requests for storage commitment that were reported, by outcome (`committed`, `failures`).
    pub commitments: IntCounterVec,
    /// Outcomes that a peer did not take for as long as they were tried.
    pub commitments_given_up: IntCounter,
    /// Answers of source archives, by source and outcome word.
    pub source_answers: IntCounterVec,
    /// Recalls that came to an end, by source and outcome (`healed`, `given-up`).
    pub recalls: IntCounterVec,
    /// Instances that source archives sent because this node asked for them, by source.
    pub recovered: IntCounterVec,
    /// Earlier studies that were chosen to be fetched, by source.
    pub priors: IntCounterVec,
    /// Worklist queries answered, by end (`whole`, `broken-off`).
    pub worklist_queries: IntCounterVec,
    /// Matches given in answer to them.
    pub worklist_matches: IntCounter,
    /// Polls of other worklists, by worklist and outcome (`whole`, `truncated`, `failed`).
    pub worklist_polls: IntCounterVec,
    /// Orders that polls showed, by worklist and what was done (`new`, `changed`, `same`, `refused`).
    pub worklist_items: IntCounterVec,
    /// When a worklist was last taken whole, by worklist, in seconds since 1970.
    pub worklist_last_success: GaugeVec,
    /// Requests about performed procedure steps, by outcome (`begun`, `changed`, `completed`,
    /// `discontinued`, `refused`).
    pub steps: IntCounterVec,
    /// Requests about steps that were passed on, by receiver and outcome (`taken`, `known`, `later`,
    /// `refused`, `lost`, `unreachable`, `unanswered`, `given-up`).
    pub steps_passed: IntCounterVec,
    /// Requests that a receiver of steps does not have yet.
    pub steps_to_pass: IntGaugeVec,
    /// Steps that a receiver refuses.
    pub steps_refused: IntGaugeVec,
    /// Handshakes refused, by reason word.
    pub tunnel_refused: IntCounterVec,
    /// Whether a destination answered at its last try: 1 yes, 0 no.
    pub destination_up: IntGaugeVec,
    /// Days until a certificate of ours or of a peer expires, by name.
    pub certificate_days: GaugeVec,
    /// 1 while an unexplained leap of the wall clock stops all deletion.
    pub clock_leap: IntGauge,
    /// Wall time at which the process started, in seconds since 1970.
    pub start_time: Gauge,
    /// Reports, critical results and questions.
    pub reports: ReportMetrics,
}

struct Builder(Registry);

impl Builder {
    fn add<C: prometheus::core::Collector + Clone + 'static>(&self, c: C) -> C {
        self.0.register(Box::new(c.clone())).expect("metric names are unique");
        c
    }
    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help).expect("valid name"))
    }
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help).expect("valid name"))
    }
    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels).expect("valid name"))
    }
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels).expect("valid name"))
    }
    fn floats(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(Opts::new(name, help), labels).expect("valid name"))
    }
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    pub fn new() -> Self {
        let b = Builder(Registry::new());
        let dest = &["destination"];
        let dest_urgency = &["destination", "urgency"];
        let node = &["node"];
        let buckets =
            vec![0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 5.0];
        let info = Opts::new("hikyaku_build_info", "Always 1; the labels name the build")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        b.add(IntGauge::with_opts(info).expect("valid name")).set(1);
        Self {
            associations: b.gauge("hikyaku_associations", "DICOM associations open now"),
            associations_accepted: b
                .counter("hikyaku_associations_accepted_total", "DICOM associations accepted"),
            associations_refused: b.counters(
                "hikyaku_associations_refused_total",
                "DICOM associations turned away",
                &["reason"],
            ),
            hl7_connections: b.gauge("hikyaku_hl7_connections", "HL7 connections open now"),
            hl7_refused: b.counters(
                "hikyaku_hl7_refused_total",
                "HL7 connections turned away or broken off",
                &["reason"],
            ),
            hl7_messages: b.counters(
                "hikyaku_hl7_messages_total",
                "HL7 messages answered",
                &["answer"],
            ),
            reports_in: b.counters(
                "hikyaku_reports_in_total",
                "Reports that came in",
                &["way", "outcome"],
            ),
            api_connections: b.gauge("hikyaku_api_connections", "API connections open now"),
            api_refused: b.counters(
                "hikyaku_api_refused_total",
                "API connections turned away or broken off",
                &["reason"],
            ),
            api_requests: b.counters(
                "hikyaku_api_requests_total",
                "API requests answered",
                &["client", "call", "status"],
            ),
            api_logins_failed: b.counters(
                "hikyaku_api_logins_failed_total",
                "Logins at the API that failed",
                &["reason"],
            ),
            orders: b.gauges("hikyaku_orders", "Open orders, by how far images are", &["state"]),
            missing_instances: b
                .gauge("hikyaku_missing_instances", "Instances named by evidence and not here"),
            short_studies: b.gauge("hikyaku_short_studies", "Studies of which something lacks"),
            oldest_short: b.add(
                Gauge::new(
                    "hikyaku_oldest_short_seconds",
                    "For how long the oldest short study is short",
                )
                .expect("valid name"),
            ),
            unmatched_studies: b.gauge("hikyaku_unmatched_studies", "Studies without an order"),
            withdrawn_studies: b.gauge(
                "hikyaku_withdrawn_studies",
                "Studies with withdrawn images that nobody has acknowledged",
            ),
            notices: b.counters(
                "hikyaku_notices_total",
                "Tries to deliver notices",
                &["channel", "outcome"],
            ),
            notices_undelivered: b
                .gauge("hikyaku_notices_undelivered", "Notices that a channel has not taken"),
            oldest_notice: b.add(
                Gauge::new("hikyaku_oldest_notice_seconds", "Age of the oldest undelivered notice")
                    .expect("valid name"),
            ),
            commitments_open: b.gauge(
                "hikyaku_commitments_open",
                "Storage commitment requests that have not ended",
            ),
            commitments: b.counters(
                "hikyaku_commitments_total",
                "Storage commitment requests that have ended",
                &["outcome"],
            ),
            commitments_given_up: b.counter(
                "hikyaku_commitments_given_up_total",
                "Storage commitment outcomes that a peer did not take",
            ),
            source_answers: b.counters(
                "hikyaku_source_answers_total",
                "Answers of source archives",
                &["source", "outcome"],
            ),
            recalls: b.counters(
                "hikyaku_recalls_total",
                "Studies whose missing images were asked for, by how that ended",
                &["source", "outcome"],
            ),
            recovered: b.counters(
                "hikyaku_recovered_instances_total",
                "Instances that a source sent because it was asked for them",
                &["source"],
            ),
            priors: b.counters(
                "hikyaku_priors_total",
                "Earlier studies chosen to be fetched",
                &["source"],
            ),
            worklist_queries: b.counters(
                "hikyaku_worklist_queries_total",
                "Worklist queries answered",
                &["end"],
            ),
            worklist_matches: b
                .counter("hikyaku_worklist_matches_total", "Matches given to worklist queries"),
            worklist_polls: b.counters(
                "hikyaku_worklist_polls_total",
                "Polls of a RIS's worklist",
                &["worklist", "outcome"],
            ),
            worklist_items: b.counters(
                "hikyaku_worklist_items_total",
                "Orders that polls of a worklist showed",
                &["worklist", "done"],
            ),
            worklist_last_success: b.floats(
                "hikyaku_worklist_last_success_seconds",
                "When a worklist was last taken whole, since 1970",
                &["worklist"],
            ),
            steps: b.counters(
                "hikyaku_steps_total",
                "Requests about performed procedure steps, by what became of them",
                &["outcome"],
            ),
            steps_passed: b.counters(
                "hikyaku_steps_passed_total",
                "Tries to pass a request about a step on",
                &["receiver", "outcome"],
            ),
            steps_to_pass: b.gauges(
                "hikyaku_steps_to_pass",
                "Requests about steps that a receiver does not have yet",
                &["receiver"],
            ),
            steps_refused: b.gauges(
                "hikyaku_steps_refused",
                "Steps that a receiver refuses",
                &["receiver"],
            ),
            store_answers: b.counters(
                "hikyaku_store_answers_total",
                "C-STORE answers given, by status (hexadecimal)",
                &["status"],
            ),
            echo_answers: b.counter("hikyaku_echo_answers_total", "C-ECHO answers given"),
            received: b.counters("hikyaku_received_total", "Cargo received whole", &["way"]),
            received_bytes: b.counters(
                "hikyaku_received_bytes_total",
                "Bytes of cargo received whole",
                &["way"],
            ),
            kept: b.counters("hikyaku_kept_total", "Cargo taken into custody", &["urgency"]),
            kept_bytes: b.counters(
                "hikyaku_kept_bytes_total",
                "Bytes taken into custody",
                &["urgency"],
            ),
            kept_already: b.counter(
                "hikyaku_kept_already_total",
                "Cargo answered with success that was in custody already",
            ),
            unjudged: b.counter(
                "hikyaku_unjudged_images_total",
                "Images that could leave before their order was looked up",
            ),
            corrections: b.counters(
                "hikyaku_corrections_total",
                "Images that were to be corrected by their order",
                &["outcome"],
            ),
            conflicts: b.counter(
                "hikyaku_conflicts_total",
                "Cargo held because its key is in custody with other bytes",
            ),
            refused: b.counters("hikyaku_refused_total", "Cargo refused", &["reason"]),
            duties: b.gauges(
                "hikyaku_duties",
                "Duties in each state now",
                &["destination", "urgency", "state"],
            ),
            in_flight: b.gauges("hikyaku_in_flight", "Duties being tried now", dest_urgency),
            owed_bytes: b.gauges("hikyaku_owed_bytes", "Bytes owed now", dest),
            receipted: b.counters("hikyaku_receipted_total", "Receipts taken", dest_urgency),
            receipted_bytes: b.counters("hikyaku_receipted_bytes_total", "Bytes receipted", dest),
            quarantined: b.counters(
                "hikyaku_quarantined_total",
                "Duties quarantined",
                dest_urgency,
            ),
            retried: b.counters(
                "hikyaku_retried_total",
                "Tries that failed and are repeated",
                dest,
            ),
            oldest_owed: b.floats(
                "hikyaku_oldest_owed_seconds",
                "Age of the oldest owed duty",
                dest,
            ),
            unrouted: b.gauge("hikyaku_unrouted", "Cargo without a destination now"),
            sync_seconds: b.add(
                Histogram::with_opts(
                    HistogramOpts::new("hikyaku_sync_seconds", "Time that one sync of a log took")
                        .buckets(buckets),
                )
                .expect("valid name"),
            ),
            spool_bytes: b.gauge("hikyaku_spool_bytes", "Bytes that the spool occupies"),
            spool_free_bytes: b
                .gauge("hikyaku_spool_free_bytes", "Bytes free on the spool's file system"),
            spool_watermark_bytes: b.gauge(
                "hikyaku_spool_watermark_bytes",
                "Bytes above which routine cargo is refused",
            ),
            spool_full: b.gauge("hikyaku_spool_full", "1 while cargo is refused for want of room"),
            spool_unwritable: b
                .gauge("hikyaku_spool_unwritable", "1 while writes to the spool fail"),
            damaged: b.counter("hikyaku_damaged_total", "Records or bodies found damaged"),
            tunnel_up: b.gauges("hikyaku_tunnel_up", "1 while a tunnel to the node stands", node),
            tunnel_rtt: b.floats(
                "hikyaku_tunnel_rtt_seconds",
                "Round-trip time of the tunnel",
                node,
            ),
            tunnel_lost_packets: b.counters(
                "hikyaku_tunnel_lost_packets_total",
                "Packets declared lost on the tunnel",
                node,
            ),
            tunnel_bytes: b.counters(
                "hikyaku_tunnel_bytes_total",
                "Bytes on the line, by direction",
                &["node", "direction"],
            ),
            tunnel_refused: b.counters(
                "hikyaku_tunnel_refused_total",
                "Tunnel handshakes refused",
                &["reason"],
            ),
            destination_up: b.gauges(
                "hikyaku_destination_up",
                "1 when the destination answered at its last try",
                dest,
            ),
            certificate_days: b.floats(
                "hikyaku_certificate_days_left",
                "Days until a certificate expires",
                &["certificate"],
            ),
            clock_leap: b.gauge(
                "hikyaku_clock_leap",
                "1 while an unexplained leap of the wall clock stops all deletion",
            ),
            start_time: b.add(
                Gauge::new("hikyaku_start_time_seconds", "When the process started")
                    .expect("valid"),
            ),
            reports: ReportMetrics::new(&b),
            registry: b.0,
        }
    }

    /// The page for Prometheus, text format 0.0.4.
    pub fn page(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_under_a_name_of_its_own() {
        let m = Metrics::new();
        m.received.with_label_values(&["dicom"]).inc();
        let page = m.page();
        assert!(page.contains("hikyaku_build_info{version="));
        assert!(page.contains("hikyaku_received_total{way=\"dicom\"} 1"));
    }

    /// Every name that stands in `text` and begins as ours do, without what Prometheus appends.
    fn names(text: &str) -> std::collections::BTreeSet<&str> {
        let ends = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let found = text.match_indices("hikyaku_").map(|(at, _)| {
            let rest = &text[at..];
            rest[..rest.find(ends).unwrap_or(rest.len())].trim_end_matches("_bucket")
        });
        found.filter(|name| name.len() > "hikyaku_".len()).collect()
    }

    #[test]
    fn operators_are_told_of_every_metric_and_of_no_other() {
        let code = include_str!("metrics.rs");
        let mut code = names(code.split("#[cfg(test)]").next().unwrap());
        code.extend(names(include_str!("metrics/reports.rs")));
        assert!(code.len() > 30, "{code:?}");
        assert_eq!(names(include_str!("../docs/operating.md")), code);
        let alerts = names(include_str!("../conf/alerts.yml"));
        assert!(alerts.is_subset(&code), "{:?}", alerts.difference(&code));
    }
}
