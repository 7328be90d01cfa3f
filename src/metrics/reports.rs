//! The metrics of reports, critical results and questions.

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Builder;

/// Seconds from one minute to seven days: what a STAT is measured by at one end, what a routine
/// report at the other.
const TURNAROUND: [f64; 16] = [
    60.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 43_200.0, 86_400.0,
    172_800.0, 259_200.0, 345_600.0, 432_000.0, 604_800.0,
];

/// Counters and gauges of reports.
#[derive(Debug, Clone)]
pub struct ReportMetrics {
    /// Documents taken in, by how far they say that they are, `hikyaku_reports_total`.
    pub taken: IntCounterVec,
    /// Documents that wait for a person, `hikyaku_reports_held`.
    pub held: IntGauge,
    /// Versions that came after a later one, `hikyaku_reports_late_total`.
    pub late: IntCounter,
    /// Time from one moment of the loop to another, by route, urgency and the two moments,
    /// `hikyaku_report_turnaround_seconds`.
    pub turnaround: HistogramVec,
    /// Studies of which something is overdue, by what is owed, `hikyaku_reports_overdue`.
    pub overdue: IntGaugeVec,
    /// Latest versions that a system has not said yes to for too long,
    /// `hikyaku_reports_unacknowledged`.
    pub unacknowledged: IntGauge,
    /// Critical results of which nobody has said that he or she knows, `hikyaku_critical_open`.
    pub critical_open: IntGauge,
    /// For how long the oldest of them is open, `hikyaku_critical_oldest_seconds`.
    pub critical_oldest: IntGauge,
    /// Questions without an answer, `hikyaku_questions_open`.
    pub questions: IntGauge,
}

impl ReportMetrics {
    pub(super) fn new(b: &Builder) -> Self {
        let turnaround = HistogramOpts::new(
            "hikyaku_report_turnaround_seconds",
            "Time from one moment of a study's loop to another",
        );
        let turnaround = turnaround.buckets(TURNAROUND.to_vec());
        let labels = ["route", "urgency", "from", "to"];
        Self {
            taken: b.counters("hikyaku_reports_total", "Report documents taken in", &["status"]),
            held: b.gauge("hikyaku_reports_held", "Report documents that wait for a person"),
            late: b.counter(
                "hikyaku_reports_late_total",
                "Versions of reports that came after a later one",
            ),
            turnaround: b.add(HistogramVec::new(turnaround, &labels).expect("valid name")),
            overdue: b.gauges(
                "hikyaku_reports_overdue",
                "Studies of which something promised is overdue",
                &["owed"],
            ),
            unacknowledged: b.gauge(
                "hikyaku_reports_unacknowledged",
                "Reports that a system has not said yes to for too long",
            ),
            critical_open: b
                .gauge("hikyaku_critical_open", "Critical results that nobody has acknowledged"),
            critical_oldest: b.gauge(
                "hikyaku_critical_oldest_seconds",
                "For how long the oldest of them is open",
            ),
            questions: b.gauge("hikyaku_questions_open", "Questions without an answer"),
        }
    }
}
