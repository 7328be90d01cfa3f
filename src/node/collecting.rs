//! The ways in for reports: messages, data sets, folders. Each ends in `reports::collect`, and its
//! sender hears yes only after that.
//!
//! A message is taken with all its reports, or answered with no: what of it was kept by then stays,
//! and is the same piece when the message comes again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::orders::{self, Hl7};
use super::router::TableRouter;
use crate::clock;
use crate::config::Config;
use crate::custody::{Custody, Kept};
use crate::dicom::AeTitle;
use crate::dicom::report::{self, ReportClass};
use crate::hl7::ack::{Condition, Refusal};
use crate::hl7::inbound::{self, Content, Inbound};
use crate::hl7::path::Location;
use crate::hl7::report::ReportMessage;
use crate::hl7::time::written;
use crate::intake::mllp::Messages;
use crate::intake::report::{NotTaken, Reports, Taking};
use crate::metrics::Metrics;
use crate::reports::arrive::{ArriveRules, NotAReport};
use crate::reports::collect::{self, CollectError};
use crate::reports::folder;
use crate::reports::report::{BYTES_MAX, Report};

/// Most bytes that the reports of one message come to together: each keeps the message.
const MESSAGE_REPORTS_MAX: usize = 256 << 20;

/// What takes reports in, while the node accepts anything.
pub(super) struct Collecting {
    clerk: Arc<Clerk>,
    pub(super) hl7: Option<Hl7>,
}

impl Collecting {
    /// Takes over what can change while the node runs.
    pub(super) fn reload(&self, new: &Config, tls: Option<Arc<rustls::ServerConfig>>) {
        let (Some(rules), Some(reports)) = (new.arrive_rules(), &new.reports) else { return };
        self.clerk.rules.store(Arc::new(rules));
        self.clerk.from.store(Arc::new(reports.collect.dicom.clone()));
        let shown = self.hl7.as_ref().and_then(|hl7| hl7.certificate.as_ref());
        if let (Some(shown), Some(tls)) = (shown, tls) {
            shown.store(tls);
        }
    }

    /// Waits until every HL7 connection has ended.
    pub(super) async fn drained(self) {
        if let Some(hl7) = self.hl7 {
            let _ = hl7.task.await;
        }
    }
}

/// Opens the ways in, where the configuration has `[reports]`.
pub(super) async fn start(
    config: &Config,
    custody: Custody,
    router: &TableRouter,
    metrics: Metrics,
    accepting: CancellationToken,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Result<Option<Collecting>, StartError> {
    let (Some(rules), Some(reports)) = (config.arrive_rules(), &config.reports) else {
        return Ok(None);
    };
    let section = reports.collect.hl7.as_ref();
    let clerk = Arc::new(Clerk {
        custody: custody.clone(),
        rules: Arc::new(ArcSwap::from_pointee(rules)),
        from: ArcSwap::from_pointee(reports.collect.dicom.clone()),
        hl7: section.map(|hl7| hl7.rules.clone()).unwrap_or_default(),
        metrics: metrics.clone(),
        answered: AtomicU64::new(0),
    });
    router.collect(clerk.clone());
    for config in config.report_folders() {
        let (rules, metrics, end) = (clerk.rules.clone(), metrics.clone(), accepting.clone());
        tasks.push(tokio::spawn(folder::run(config, custody.clone(), rules, metrics, end)));
    }
    let hl7 = match section {
        Some(section) => {
            let section = (section, config.reports_tls()?);
            let what = "reports by HL7";
            Some(orders::serve(what, section, clerk.clone(), metrics, accepting).await?)
        }
        None => None,
    };
    Ok(Some(Collecting { clerk, hl7 }))
}

/// Takes what comes by message or data set.
struct Clerk {
    custody: Custody,
    rules: Arc<ArcSwap<ArriveRules>>,
    /// Callers whose documents are reports.
    from: ArcSwap<Vec<AeTitle>>,
    hl7: inbound::Rules,
    metrics: Metrics,
    answered: AtomicU64,
}

impl Clerk {
    fn count(&self, way: &str, outcome: &str) {
        self.metrics.reports_in.with_label_values(&[way, outcome]).inc();
    }

    async fn collect(&self, way: &str, report: &Report) -> Result<Kept, CollectError> {
        let taken = collect::take(&self.custody, report).await.map(|collected| collected.kept);
        self.count(
            way,
            match &taken {
                Ok(kept) if kept.is_new() => "taken",
                Ok(_) => "again",
                Err(_) => "not-kept",
            },
        );
        taken
    }

    /// Takes all reports of a message; what is wrong with it, and whether any of it was new.
    async fn take_all(&self, read: &Read, bytes: &Bytes) -> Result<bool, Vec<Refusal>> {
        let Ok(Content::Reports(said)) = read.inbound.content() else { return Ok(false) };
        let rules = self.rules.load_full();
        let mut new = false;
        for n in 0..said.reports.len() {
            // It was built once to see whether all can be taken: a message is mostly one report.
            let report = rules.of_message(said, n, bytes, &read.source);
            let report = report.map_err(|why| vec![refusal(n, why)])?;
            match self.collect("hl7", &report).await {
                Ok(kept) => new |= kept.is_new(),
                Err(why) => {
                    tracing::warn!(%why, "a report cannot be kept; its sender is asked to try again");
                    return Err(vec![Refusal::not_kept()]);
                }
            }
        }
        Ok(new)
    }
}

/// A message as it was read.
struct Read {
    inbound: Inbound,
    /// Who sends it: MSH-3 and MSH-4.
    source: String,
    /// Why it is not taken, beside what reading it found.
    refusals: Vec<Refusal>,
}

fn read(bytes: &[u8], hl7: &inbound::Rules, rules: &ArriveRules) -> Read {
    let inbound = Inbound::read(bytes, hl7);
    let header = inbound.header().unwrap_or_default();
    let source = format!("{}^{}", header.sending_application, header.sending_facility);
    let refusals = match inbound.content() {
        Ok(Content::Reports(said)) => refusals(said, bytes, &source, rules),
        // What is taken here is reports alone.
        Ok(_) | Err(_) => Vec::new(),
    };
    Read { inbound, source, refusals }
}

/// Why a message cannot be taken as a whole.
fn refusals(said: &ReportMessage, bytes: &[u8], source: &str, rules: &ArriveRules) -> Vec<Refusal> {
    if said.reports.len().saturating_mul(bytes.len()) > MESSAGE_REPORTS_MAX {
        let words = "too many reports for a message of this length: send them in several";
        let condition = Condition::ApplicationInternalError;
        return vec![Refusal::error(
            Location::segment("OBR", said.reports.len()),
            condition,
            words,
        )];
    }
    let all = 0..said.reports.len();
    all.filter_map(|n| Some(refusal(n, rules.of_message(said, n, bytes, source).err()?))).collect()
}

/// Why report `n` of a message is none, at its place in the message.
fn refusal(n: usize, why: NotAReport) -> Refusal {
    let status = Location::field("OBR", n + 1, 25);
    match why {
        NotAReport::Awaited => Refusal::error(
            status,
            Condition::TableValueNotFound,
            "OBR-25 says that nothing is reported yet: send it when there is something to read",
        ),
        NotAReport::NoRecord => Refusal::error(
            status,
            Condition::UnknownKeyIdentifier,
            "OBR-25 says that the sender has no such order or patient: there is no report in it",
        ),
        NotAReport::Empty => Refusal::error(
            Location::segment("OBR", n + 1),
            Condition::RequiredFieldMissing,
            "no OBX-5 below this OBR has text or a document",
        ),
        NotAReport::TooLarge => Refusal::error(
            Location::segment("OBR", n + 1),
            Condition::ApplicationInternalError,
            format!("the report is longer than {BYTES_MAX} bytes"),
        ),
    }
}

impl Messages for Clerk {
    async fn take(&self, message: Bytes, _from: SocketAddr) -> Vec<Bytes> {
        let rules = self.rules.load_full();
        let zone = rules.zone.clone();
        let (bytes, hl7) = (message.clone(), self.hl7.clone());
        // Decoding megabytes must not keep other connections from being served.
        let reading = tokio::task::spawn_blocking(move || read(&bytes, &hl7, &rules));
        let mut read = reading.await.expect("reading a message does not panic");
        let places = read.inbound.faults().len();
        if places > 0 {
            tracing::warn!(places, "a report by HL7 has bytes that its character set lacks");
        }
        let refused = read.inbound.content().is_err() || !read.refusals.is_empty();
        let word = if refused {
            let own = read.inbound.content().err().and_then(|own| own.first());
            let reason = own.or(read.refusals.first()).map(ToString::to_string);
            tracing::warn!(reason, "a report by HL7 is refused");
            self.count("hl7", "refused");
            "refused"
        } else {
            match self.take_all(&read, &message).await {
                Ok(true) => "taken",
                Ok(false) => "again",
                Err(refusals) => {
                    read.refusals = refusals;
                    "not-kept"
                }
            }
        };
        self.metrics.hl7_messages.with_label_values(&[word]).inc();
        let now = clock::wall();
        let at = written(jiff::Timestamp::from_millisecond(now.0).unwrap_or_default(), &zone);
        let control_id = || {
            let n = self.answered.fetch_add(1, Ordering::Relaxed);
            format!("R{:X}{:03X}", now.0, n % 0x1000)
        };
        let answers = read.inbound.answers(&read.refusals, &at, control_id);
        answers.into_iter().map(Bytes::from).collect()
    }
}

impl Reports for Clerk {
    fn wants(&self, calling: &AeTitle, sop_class: &str) -> bool {
        self.from.load().contains(calling) && ReportClass::of(sop_class).is_some()
    }

    fn length_max(&self) -> u64 {
        BYTES_MAX as u64
    }

    fn take<'a>(&'a self, calling: &'a AeTitle, syntax: &'a str, bytes: Vec<u8>) -> Taking<'a> {
        Box::pin(async move {
            let rules = self.rules.load_full();
            let (source, syntax) = (calling.to_string(), syntax.to_owned());
            let reading = tokio::task::spawn_blocking(move || {
                let said = report::read(&bytes, &syntax).map_err(|e| e.to_string())?;
                rules.of_document(&said, &bytes, &syntax, &source).map_err(|e| e.to_string())
            });
            let read = reading.await.unwrap_or_else(|_| Err("it cannot be read".into()));
            let report = read.map_err(|why| {
                self.count("dicom", "refused");
                NotTaken::NoReport(why)
            })?;
            self.collect("dicom", &report).await.map_err(|why| match why {
                CollectError::Assemble(e) => e.into(),
                CollectError::Take(e) => e.into(),
            })
        })
    }
}
