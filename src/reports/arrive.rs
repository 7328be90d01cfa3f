//! What arrives, as a report: an ORU^R01 and its OBRs, a DICOM document, a file or a call of the
//! API. What HL7 and DICOM call the states of a report becomes one of four here
//! (docs/decisions/0022).
//!
//! Whoever collects has the bytes in custody or about to be; nothing here refuses them for what
//! they look like. [`NotAReport`] says why there is nothing to match: then they are held.

use jiff::tz::TimeZone;

use super::critical::{Flagging, Reason};
use super::narrative::{self, Narrative};
use super::report::{BYTES_MAX, FORMS_MAX, Form, FormKind, Identifiers, Reader, Report, Status};
use crate::cargo::peer_text;
use crate::clock::Timestamp;
use crate::dicom::report::{DicomReport, EncapsulatedKind, Observer, PatientFacts, Stage};
use crate::hl7::datatype::{Authority as Hl7Authority, Identifier as Hl7Identifier, Name, Person};
use crate::hl7::patient::Patient as Hl7Patient;
use crate::hl7::report::{DocumentKind, ReportMessage, ResultStatus, Value};
use crate::hl7::time::TimeStamp;
use crate::orders::identifier::{Authority, Identifier, Patient};

/// How what arrives on a route is understood.
#[derive(Debug, Clone)]
pub struct ArriveRules {
    /// Who gives patient and accession numbers of senders that do not say; empty: not known.
    pub issuer: String,
    /// The zone of times that have no offset.
    pub zone: TimeZone,
    /// What a message without OBR-25 and OBX-11 is.
    pub unstated: Status,
    /// What is complete and signed by nobody (OBR-25 R; COMPLETE and UNVERIFIED).
    pub unverified: Status,
    /// What is critical.
    pub flagging: Flagging,
}

impl Default for ArriveRules {
    /// No issuer, UTC, and nothing is final that does not say so.
    fn default() -> Self {
        Self {
            issuer: String::new(),
            zone: TimeZone::UTC,
            unstated: Status::Preliminary,
            unverified: Status::Preliminary,
            flagging: Flagging::default(),
        }
    }
}

/// Why there is no report in what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAReport {
    /// OBR-25 O, I, S: there is nothing to read yet.
    #[error("nothing is reported yet")]
    Awaited,
    /// OBR-25 Y, Z: the sender has no such order or patient.
    #[error("its sender has no record of the order or the patient")]
    NoRecord,
    /// Neither text nor document.
    #[error("it has neither text nor document")]
    Empty,
    /// More than a report may have.
    #[error("it is larger than a report may be")]
    TooLarge,
}

impl ArriveRules {
    /// Report `n` of a message that came as `bytes` from `source`.
    pub fn of_message(
        &self,
        said: &ReportMessage,
        n: usize,
        bytes: &[u8],
        source: &str,
    ) -> Result<Report, NotAReport> {
        let own = &said.reports[n];
        let result = own.result();
        let status = match result {
            ResultStatus::Awaited => return Err(NotAReport::Awaited),
            ResultStatus::NoRecord => return Err(NotAReport::NoRecord),
            ResultStatus::Unstated => self.unstated,
            ResultStatus::Unverified => self.unverified,
            ResultStatus::Partial | ResultStatus::Preliminary => Status::Preliminary,
            // What was added to a final report is in place of it.
            ResultStatus::Final if own.has_addendum() => Status::Corrected,
            ResultStatus::Final => Status::Final,
            ResultStatus::Corrected => Status::Corrected,
            ResultStatus::Cancelled => Status::Cancelled,
        };
        let text = own.text();
        let mut forms = Vec::new();
        if !text.is_empty() {
            forms.push(Form::new(FormKind::Text, text.into_bytes()));
        }
        for document in own.documents() {
            let kind = match document.kind {
                DocumentKind::Pdf => FormKind::Pdf,
                DocumentKind::Cda => FormKind::Cda,
                // It stays in the message.
                DocumentKind::Other(_) => continue,
            };
            forms.push(Form::new(kind, document.bytes.clone()));
        }
        if forms.is_empty() && status != Status::Cancelled {
            return Err(NotAReport::Empty);
        }
        forms.push(Form::new(FormKind::Message, bytes.to_vec()));
        let accession = Some(own.accession.as_str()).filter(|a| !a.is_empty());
        let readers = |people: &[Person]| people.iter().map(reader).collect::<Vec<_>>();
        let signers =
            if result == ResultStatus::Unverified { vec![] } else { readers(&own.interpreters) };
        let mut report = Report {
            ids: Identifiers {
                document: own.document_uid.clone(),
                placer: identifier(&own.placer),
                filler: identifier(&own.filler),
                accessions: accession
                    .map(|a| self.issued(Identifier::bare(a)))
                    .into_iter()
                    .collect(),
                studies: own.studies.clone(),
                instances: own.instances.clone(),
                predecessors: vec![],
            },
            status,
            is_signed: !signers.is_empty(),
            patient: self.patient(&said.patient),
            title: own.service.shown().to_owned(),
            language: String::new(),
            authors: readers(&own.assistants),
            verifiers: signers,
            written_at: self.time(&own.reported_at),
            critical: self.reasons_of_message(own),
            forms,
            source: source.to_owned(),
            is_addendum: own.is_only_addendum(),
        };
        report.bound();
        within(report)
    }

    /// A DICOM document whose data set came as `bytes` in `syntax` from `source`.
    pub fn of_document(
        &self,
        read: &DicomReport,
        bytes: &[u8],
        syntax: &str,
        source: &str,
    ) -> Result<Report, NotAReport> {
        let facts = &read.facts;
        let stage = facts.stage();
        let status = match stage {
            Stage::Preliminary => Status::Preliminary,
            Stage::Unverified => self.unverified,
            Stage::Final => Status::Final,
            Stage::Corrected => Status::Corrected,
        };
        let mut forms = Vec::new();
        let kind = match &read.encapsulated {
            Some(document) => {
                let kind = match document.kind {
                    EncapsulatedKind::Pdf => FormKind::Pdf,
                    EncapsulatedKind::Cda => FormKind::Cda,
                };
                forms.push(Form::new(kind, document.bytes.clone()));
                FormKind::Encapsulated
            }
            None => FormKind::Structured,
        };
        forms.push(Form::data_set(kind, bytes.to_vec(), &facts.sop_class, syntax));
        if kind == FormKind::Structured && !read.text.is_empty() {
            forms.push(Form::new(FormKind::Text, read.text.clone().into_bytes()).derived());
        }
        let named = |id: &str, names: &(String, String)| {
            let (namespace, universal) = names.clone();
            let authority = Authority { namespace, universal };
            self.issued(Identifier { id: id.trim().to_owned(), authority })
        };
        let mut accessions = vec![named(&facts.accession, &facts.accession_issuer)];
        accessions.extend(facts.requests.iter().map(|r| named(&r.accession, &r.accession_issuer)));
        accessions.retain(Identifier::is_named);
        accessions.dedup();
        let mut studies = vec![facts.study.clone()];
        studies.extend(facts.requests.iter().map(|r| r.study.clone()));
        studies.retain(|s| !s.is_empty());
        studies.dedup();
        let number = |of: fn(&crate::dicom::report::RequestFacts) -> &String| {
            let mut numbers = facts.requests.iter().map(of).filter(|n| !n.trim().is_empty());
            numbers.next().map(|n| Identifier::bare(n))
        };
        let readers = |all: &[Observer]| all.iter().map(|o| self.observer(o)).collect::<Vec<_>>();
        let verifiers = readers(&facts.verifiers);
        let signed = matches!(stage, Stage::Final | Stage::Corrected);
        let written = format!("{}{}", facts.written_at, facts.zone);
        let mut report = Report {
            ids: Identifiers {
                document: facts.sop_instance.clone(),
                placer: number(|r| &r.placer),
                filler: number(|r| &r.filler),
                accessions,
                studies,
                instances: facts.evidence.iter().map(|e| e.reference.instance.clone()).collect(),
                predecessors: facts
                    .predecessors
                    .iter()
                    .map(|p| p.reference.instance.clone())
                    .collect(),
            },
            status,
            is_signed: signed && !verifiers.is_empty(),
            patient: self.patient_of_document(&facts.patient),
            title: facts.title.meaning.clone(),
            language: facts.language.clone(),
            authors: readers(&facts.authors),
            verifiers,
            written_at: self.time(&TimeStamp::new(&written)),
            critical: self.reasons_of_document(read),
            forms,
            source: source.to_owned(),
            is_addendum: false,
        };
        report.bound();
        within(report)
    }

    /// A report of a file or of the API: `facts` are what its name, sidecar or call says of it, its
    /// forms added here. What the caller says to be critical is.
    pub fn of_file(&self, mut facts: Report, forms: Vec<Form>) -> Result<Report, NotAReport> {
        let titles = [facts.title.as_str()];
        facts.critical.extend(self.flagging.reasons([], [], titles));
        facts.critical.sort();
        facts.critical.dedup();
        facts.forms = forms;
        facts.bound();
        if facts.forms.is_empty() && facts.status != Status::Cancelled {
            return Err(NotAReport::Empty);
        }
        within(facts)
    }

    fn reasons_of_message(&self, own: &crate::hl7::report::Report) -> Vec<Reason> {
        let standing = || own.observations.iter().filter(|o| o.stands());
        let flags = own.flags().map(|(flag, code)| (flag, code.shown()));
        let coded = standing().flat_map(|o| {
            let value = match &o.value {
                Value::Parts(all) => all.first().and_then(|parts| match &parts[..] {
                    [id, _, system, ..] => Some((id.as_str(), system.as_str())),
                    _ => None,
                }),
                _ => None,
            };
            let of = |c: &'_ crate::hl7::datatype::Coded| (c.id.clone(), c.system.clone());
            let value = value.map(|(id, system)| (id.to_owned(), system.to_owned()));
            [Some(of(&o.code)), Some(of(&o.actionable)), value].into_iter().flatten()
        });
        let codes: Vec<(String, String)> = coded.collect();
        let codes = codes.iter().map(|(id, system)| (id.as_str(), system.as_str()));
        let titles = std::iter::once(own.service.shown()).chain(standing().map(|o| o.code.shown()));
        self.flagging.reasons(flags, codes, titles)
    }

    fn reasons_of_document(&self, read: &DicomReport) -> Vec<Reason> {
        let codes = read.codes.iter().chain([&read.facts.title]);
        let codes = codes.map(|c| (c.value.as_str(), c.scheme.as_str()));
        let titles = read.headings.iter().map(String::as_str);
        self.flagging.reasons([], codes, titles.chain([read.facts.title.meaning.as_str()]))
    }

    /// With the route's issuer, where none is named.
    pub(super) fn issued(&self, mut id: Identifier) -> Identifier {
        let unknown = id.authority == Authority::default();
        if unknown && id.is_named() {
            self.issuer.clone_into(&mut id.authority.namespace);
        }
        id
    }

    fn patient(&self, patient: &Hl7Patient) -> Patient {
        let id = |i: &crate::hl7::datatype::PatientIdentifier| {
            self.issued(Identifier { id: peer_text(&i.id), authority: authority(&i.authority) })
        };
        Patient {
            ids: patient.identifiers.iter().map(id).filter(Identifier::is_named).collect(),
            former: vec![],
            names: patient.names.iter().map(name).filter(|n| !n.is_empty()).collect(),
            birth_date: day(patient.birth_date.as_str()),
            sex: peer_text(&patient.sex),
        }
    }

    fn patient_of_document(&self, patient: &PatientFacts) -> Patient {
        let authority = Authority {
            namespace: peer_text(&patient.issuer),
            universal: peer_text(&patient.issuer_universal),
        };
        let id = self.issued(Identifier { id: peer_text(&patient.id), authority });
        let names = patient.name.split('=').map(|n| peer_text(n.trim_matches(['^', ' '])));
        Patient {
            ids: Some(id).filter(Identifier::is_named).into_iter().collect(),
            former: vec![],
            names: names.filter(|n| !n.is_empty()).collect(),
            birth_date: day(&patient.birth_date),
            sex: peer_text(&patient.sex),
        }
    }

    fn observer(&self, observer: &Observer) -> Reader {
        let authority =
            Authority { namespace: peer_text(&observer.code.scheme), universal: String::new() };
        Reader {
            id: Identifier { id: peer_text(&observer.code.value), authority },
            name: peer_text(&observer.name),
            organization: peer_text(&observer.organization),
            at: self.time(&TimeStamp::new(&observer.at)),
        }
    }

    /// A time of HL7 or DICOM (which write them alike), if it is at least a day.
    pub(super) fn time(&self, stamp: &TimeStamp) -> Option<Timestamp> {
        let when = stamp.when().filter(|w| w.precision >= crate::hl7::time::Precision::Day)?;
        let zone = when.offset.map_or_else(|| self.zone.clone(), TimeZone::fixed);
        let at = zone.to_ambiguous_timestamp(when.local).compatible().ok()?;
        Some(Timestamp(at.as_millisecond()))
    }
}

fn within(mut report: Report) -> Result<Report, NotAReport> {
    let fits = |forms: &[Form], more: usize| {
        let bytes: usize = forms.iter().map(|form| form.bytes.len()).sum();
        forms.len() <= FORMS_MAX && bytes + more <= BYTES_MAX
    };
    if !fits(&report.forms, 0) {
        return Err(NotAReport::TooLarge);
    }
    let said = said_by_document(&report)
        .filter(|said| report.forms.len() < FORMS_MAX && fits(&report.forms, said.bytes.len()));
    report.forms.extend(said);
    Ok(report)
}

/// What a CDA document says, where nothing that came beside it says it: most systems read no CDA.
fn said_by_document(report: &Report) -> Option<Form> {
    let lacks = |kind| report.form(kind).is_none();
    let document = report.form(FormKind::Cda).filter(|_| lacks(FormKind::Text))?;
    let form = match narrative::read(&document.bytes)? {
        Narrative::Text(text) => Form::new(FormKind::Text, text.into_bytes()),
        Narrative::Pdf(bytes) if lacks(FormKind::Pdf) => Form::new(FormKind::Pdf, bytes),
        Narrative::Pdf(_) => return None,
    };
    Some(form.derived())
}

fn authority(authority: &Hl7Authority) -> Authority {
    let [namespace, universal] =
        [&authority.namespace, &authority.universal_id].map(|t| peer_text(t));
    Authority { namespace, universal }
}

fn identifier(id: &Hl7Identifier) -> Option<Identifier> {
    let of =
        |id: &Hl7Identifier| Identifier { id: peer_text(&id.id), authority: authority(&id.issuer) };
    Some(of(id)).filter(Identifier::is_named)
}

fn name(name: &Name) -> String {
    let parts = [&name.family, &name.given, &name.middle].map(|part| part.as_str());
    peer_text(parts.join("^").trim_end_matches('^'))
}

fn reader(person: &Person) -> Reader {
    let id = Identifier { id: peer_text(&person.id), authority: authority(&person.authority) };
    Reader { id, name: name(&person.name), ..Reader::default() }
}

/// `YYYYMMDD`, or nothing.
fn day(text: &str) -> String {
    let day = text.get(..8).unwrap_or_default();
    if day.bytes().all(|b| b.is_ascii_digit()) { day.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests;
