//! `[[orders.worklist]]`: worklists of RISes that this node asks for orders.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Config;
use super::reader::Section;
use super::rooms::{self, TlsError};
use super::sections::ClientTls;
use super::source::Source;
use super::value::*;
use crate::cargo::DestinationName;
use crate::dicom::AeTitle;
use crate::inquiry::{Target, Timeouts};
use crate::orders::worklist::poll::{self, QUESTIONS_MAX};

/// One of `[[orders.worklist]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorklistSection {
    /// Its name here; stands in metrics, in the log, and as the source of what it says.
    pub name: DestinationName,
    /// Where to connect.
    pub address: HostPort,
    /// Called AE title.
    pub ae_title: AeTitle,
    /// Calling AE title; `None`: the first of `[dicom] ae_titles`, else `HIKYAKU`.
    pub calling_ae: Option<AeTitle>,
    /// TLS; `None`: plain.
    pub tls: Option<ClientTls>,
    /// Pause between two polls.
    pub every: Duration,
    /// How far ahead steps are asked for.
    pub ahead: Duration,
    /// How far back.
    pub behind: Duration,
    /// Modalities to ask for; none: all.
    pub modalities: Vec<String>,
    /// Station AE titles to ask for; none: all.
    pub stations: Vec<AeTitle>,
    /// Most items of one question.
    pub limit: usize,
    /// `[orders.worklist.timeouts]`.
    pub timeouts: Timeouts,
}

pub(super) fn section(s: &mut Section<'_, '_>) -> Option<WorklistSection> {
    let name = s.need("name", parsed);
    let address = s.need("address", host_port);
    let called = s.need("ae_title", ae_title);
    let calling_ae = s.maybe("calling_ae", ae_title);
    let tls = s.maybe_table("tls", super::read::client_tls);
    let any = duration_from(Duration::ZERO);
    let every = s.or("every", "\"1m\"", duration);
    let (ahead, behind) = (s.or("ahead", "\"7d\"", &any), s.or("behind", "\"1d\"", &any));
    let modalities = s.one_or_list("modalities", text).unwrap_or_default();
    let stations = s.one_or_list("stations", ae_title).unwrap_or_default();
    let limit = s.or("limit", "2000", count(1..=20_000)) as usize;
    let timeouts = s.table("timeouts", |s| Timeouts {
        connect: s.or("connect", "\"10s\"", duration),
        associate: s.or("associate", "\"30s\"", duration),
        response: s.or("response", "\"1m\"", duration),
        operation: s.or("operation", "\"5m\"", duration),
        write: s.or("write", "\"30s\"", duration),
    });
    Some(WorklistSection {
        name: name?,
        address: address?,
        ae_title: called?,
        calling_ae,
        tls,
        every,
        ahead,
        behind,
        modalities,
        stations,
        limit,
        timeouts,
    })
}

pub(super) fn check(worklists: &[(usize, WorklistSection)], source: &mut Source<'_>) {
    let mut names = BTreeSet::new();
    for (position, worklist) in worklists {
        let key = format!("orders.worklist[{position}]");
        if !names.insert(&worklist.name) {
            let what = format!("{} is the name of an earlier worklist", worklist.name);
            source.problem(&format!("{key}.name"), what, "give each worklist a name of its own");
        }
        let questions = worklist.modalities.len().max(1) * worklist.stations.len().max(1);
        if questions > QUESTIONS_MAX {
            source.problem(
                &key,
                format!(
                    "asks {questions} questions at each poll, one for each modality and station"
                ),
                format!("name fewer, so that there are at most {QUESTIONS_MAX}"),
            );
        }
        let cs = |m: &&String| {
            let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            !(1..=16).contains(&m.len()) || !m.bytes().all(plain)
        };
        if let Some(wrong) = worklist.modalities.iter().find(cs) {
            source.problem(
                &format!("{key}.modalities"),
                format!("\"{wrong}\" is no modality"),
                "a modality is a code such as CT, MR, CR",
            );
        }
        if worklist.every < Duration::from_secs(10) {
            source.warning(
                &format!("{key}.every"),
                "asks the RIS more often than every ten seconds",
                "a RIS seldom likes that: 1m is usual",
            );
        }
    }
}

impl Config {
    /// The worklists that this node asks; reads the files of TLS.
    pub fn worklists(&self) -> Result<Vec<poll::Source>, TlsError> {
        let Some(orders) = &self.orders else { return Ok(Vec::new()) };
        let own = self.dicom.as_ref().and_then(|dicom| dicom.ae_titles.first()).cloned();
        let own = own.unwrap_or_else(|| "HIKYAKU".parse().expect("an AE title"));
        let source = |w: &WorklistSection| {
            let tls = w.tls.as_ref().map(|tls| rooms::client(tls, &w.address.host));
            Ok(poll::Source {
                name: w.name.to_string(),
                target: Target {
                    host: w.address.host.clone(),
                    port: w.address.port,
                    calling: w.calling_ae.clone().unwrap_or_else(|| own.clone()),
                    called: w.ae_title.clone(),
                    tls: tls.transpose()?,
                    timeouts: w.timeouts,
                },
                every: w.every,
                ahead: w.ahead,
                behind: w.behind,
                modalities: w.modalities.clone(),
                stations: w.stations.clone(),
                limit: w.limit,
                patient_issuer: orders.patient_issuer.clone(),
                zone: orders.zone.clone(),
            })
        };
        orders.worklists.iter().map(|(_, worklist)| source(worklist)).collect()
    }
}
