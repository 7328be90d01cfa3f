//! The ways in for reports: `[reports]` itself, `[reports.hl7]`, `[reports.dicom]` and
//! `[[reports.folder]]`.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::orders::{self, Hl7Section, REPORTS};
use super::read::Document;
use super::reader::Section;
use super::source::Source;
use super::value::*;
use crate::dicom::AeTitle;
use crate::reports::arrive::ArriveRules;
use crate::reports::folder::FolderConfig;
use crate::reports::report::Status;

/// How reports are understood, and by which ways they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectSection {
    /// Who gives patient and accession numbers where nobody says; empty: not known.
    pub issuer: String,
    /// What a report is that does not say how far it is.
    pub unstated: Status,
    /// What is complete and signed by nobody.
    pub unverified: Status,
    /// `[reports.hl7]`; `None`: no reports come by HL7.
    pub hl7: Option<Hl7Section>,
    /// `[reports.dicom] from`: whose structured reports and encapsulated documents are reports.
    pub dicom: Vec<AeTitle>,
    /// Every `[[reports.folder]]`, with its place in the file.
    pub folders: Vec<(usize, FolderSection)>,
}

/// One of `[[reports.folder]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderSection {
    /// Who is said to have sent what lies there; stands in the log and in listings.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// For how long a file must stay as it is before it is read.
    pub settle: Duration,
    /// Pause between two looks.
    pub every: Duration,
    /// How long a document waits for its sidecar, and a sidecar for its document.
    pub wait: Duration,
    /// What a report is whose sidecar does not say how far it is; `None`: as `unstated` says.
    pub status: Option<Status>,
}

fn status(value: &toml::de::DeValue<'_>) -> Result<Status, Wrong> {
    word(&[("preliminary", Status::Preliminary), ("final", Status::Final)])(value)
}

/// Reads what stands in `[reports]` about ways in.
pub(super) fn section(s: &mut Section<'_, '_>) -> CollectSection {
    CollectSection {
        issuer: s.maybe("issuer", text).unwrap_or_default(),
        unstated: s.or("unstated", "\"preliminary\"", status),
        unverified: s.or("unverified", "\"preliminary\"", status),
        hl7: s.maybe_table("hl7", |s| orders::hl7(s, &REPORTS)),
        dicom: s.table("dicom", |s| s.one_or_list("from", ae_title).unwrap_or_default()),
        folders: s.tables("folder", folder),
    }
}

fn folder(s: &mut Section<'_, '_>) -> Option<FolderSection> {
    let (name, path) = (s.need("name", text), s.need_path("path"));
    let settle = s.or("settle", "\"10s\"", duration);
    let every = s.or("every", "\"5s\"", duration);
    let wait = s.or("wait", "\"10m\"", duration);
    let status = s.maybe("status", status);
    Some(FolderSection { name: name?, path: path?, settle, every, wait, status })
}

/// Reports what does not fit together.
pub(super) fn check(source: &mut Source<'_>, document: &Document) {
    let Some(reports) = &document.reports else { return };
    if document.orders.is_none() && !source.has_key("orders") {
        source.problem(
            "reports",
            "are matched to orders and studies, but this node keeps none",
            "add an [orders] section, or leave [reports] out",
        );
    }
    let collect = &reports.collect;
    if let Some(hl7) = &collect.hl7 {
        orders::check_hl7(source, "reports.hl7", hl7);
    }
    check_dicom(source, &collect.dicom, document);
    for (n, (position, folder)) in collect.folders.iter().enumerate() {
        let key = |name: &str| format!("reports.folder[{position}].{name}");
        if folder.wait < folder.settle {
            let advice = "what belongs together would be set aside before it is looked at";
            source.problem(&key("wait"), "is shorter than settle", advice);
        }
        let others = collect.folders[..n].iter();
        if let Some((other, _)) = others.clone().find(|(_, other)| other.path == folder.path) {
            let what = format!("is the folder of reports.folder[{other}] too");
            source.problem(&key("path"), what, "give each its own");
        }
        if let Some(node) = &document.node
            && folder.path.starts_with(&node.data)
        {
            let advice = "custody keeps its own files there: choose another folder";
            source.problem(&key("path"), "lies below node.data", advice);
        }
    }
}

fn check_dicom(source: &mut Source<'_>, from: &[AeTitle], document: &Document) {
    let key = "reports.dicom.from";
    let Some(dicom) = &document.dicom else {
        if !from.is_empty() && !source.has_key("dicom") {
            let advice = "add a [dicom] section with a listener, or leave it out";
            source.problem(key, "names senders, but nothing is taken by DICOM here", advice);
        }
        return;
    };
    for title in from {
        let may = |allowed: &super::Allow| allowed.ae_title.as_ref().is_none_or(|t| t == title);
        if !dicom.allow.iter().any(may) {
            let what = format!("{title} may not connect");
            source.problem(key, what, "list it in dicom.allow too");
        }
    }
}

impl CollectSection {
    /// In plain words, for `check-config`.
    pub(super) fn describe(&self, out: &mut String) -> fmt::Result {
        if let Some(hl7) = &self.hl7 {
            for (address, how) in [(hl7.listen, "not encrypted"), (hl7.tls_listen, "with TLS")] {
                if let Some(address) = address {
                    writeln!(out, "  takes HL7 reports on {address} ({how})")?;
                }
            }
            let allow: Vec<_> = hl7.mllp.allow.iter().map(ToString::to_string).collect();
            writeln!(out, "  lets {} send them", allow.join(", "))?;
        }
        if !self.dicom.is_empty() {
            let from: Vec<_> = self.dicom.iter().map(ToString::to_string).collect();
            let from = from.join(", ");
            writeln!(out, "  takes structured reports and documents of {from} as reports")?;
        }
        for (_, folder) in &self.folders {
            let (path, settle) = (folder.path.display(), show_duration(folder.settle));
            writeln!(
                out,
                "  {}: takes reports out of {path}, {settle} after their last change",
                folder.name
            )?;
        }
        Ok(())
    }
}

impl Config {
    /// How reports that arrive are understood; `None`: this node keeps no reports.
    pub fn arrive_rules(&self) -> Option<ArriveRules> {
        let (reports, orders) = (self.reports.as_ref()?, self.orders.as_ref()?);
        Some(ArriveRules {
            issuer: reports.collect.issuer.clone(),
            zone: orders.zone.clone(),
            unstated: reports.collect.unstated,
            unverified: reports.collect.unverified,
            flagging: reports.flagging.clone(),
        })
    }

    /// The folders that reports are taken out of.
    pub fn report_folders(&self) -> Vec<FolderConfig> {
        let folders = self.reports.iter().flat_map(|reports| &reports.collect.folders);
        let config = |(_, folder): &(usize, FolderSection)| FolderConfig {
            name: folder.name.clone(),
            path: folder.path.clone(),
            settle: folder.settle,
            every: folder.every,
            wait: folder.wait,
            status: folder.status,
        };
        folders.map(config).collect()
    }
}

#[cfg(test)]
mod tests;
