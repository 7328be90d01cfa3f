//! Reports to messages for a HIS or RIS, in its dialect: version, names, character set, how text
//! is laid out, where accession number and study stand.
//!
//! What is written is read back as it was, but for what a dialect leaves out on purpose: documents,
//! UIDs, and the lines of a text, which [`TextAs::Lines`] makes observations of their own.

use super::value::Value;
use super::{Observation, Report, ReportMessage};
use crate::hl7::charset::Charset;
use crate::hl7::datatype::{Coded, Person, components, escaped, repetitions};
use crate::hl7::message::{Delimiters, Message, Segment};
use crate::hl7::path::Path;
use crate::hl7::patient::write_note;

/// Versions that can be written.
const VERSIONS: [&str; 5] = ["2.3", "2.3.1", "2.4", "2.5", "2.5.1"];

/// How a receiver wants text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextAs {
    /// One TX for each line: what every receiver shows right.
    #[default]
    Lines,
    /// One FT, with `\.br\` between the lines.
    One,
}

/// How a receiver wants to be told the study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StudyAs {
    /// As observations: `113014^DICOM Study^DCM` (IHE RAD-128) and the others of its kind.
    #[default]
    Observation,
    /// In a ZDS segment: the first Study Instance UID (IHE, 2.3.1).
    Zds,
    /// Not at all.
    Nowhere,
}

/// The dialect of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportDialect {
    /// MSH-12: 2.3 to 2.5.1.
    pub version: String,
    /// MSH-3 and MSH-4: application and facility.
    pub from: (String, String),
    /// MSH-5 and MSH-6: application and facility.
    pub to: (String, String),
    /// MSH-11: `P`.
    pub processing_id: String,
    /// MSH-18 and MSH-20; the caller encodes with it.
    pub charset: Charset,
    /// How text is laid out.
    pub text: TextAs,
    /// OBX-3 of text that has no code of its own.
    pub text_code: Coded,
    /// OBX-3 of a document that has no code of its own.
    pub document_code: Coded,
    /// Whether documents are sent at all (OBX-2 ED, base64).
    pub documents: bool,
    /// How the study is told.
    pub study: StudyAs,
    /// Where the accession number stands: a field of OBR or ORC.
    pub accession: Path,
}

/// Why a dialect cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialectError {
    /// Another version.
    #[error("version {0:?} is not one of 2.3, 2.3.1, 2.4, 2.5 and 2.5.1")]
    Version(String),
    /// The accession number stands elsewhere.
    #[error("the accession number of a report stands in OBR or ORC, not in {0}")]
    Accession(Path),
}

/// What is new in one sending.
#[derive(Debug, Clone, Copy)]
pub struct ReportSending<'a> {
    /// MSH-7: the time, as HL7 writes it.
    pub at: &'a str,
    /// MSH-10: unique at the sender; the same again when the same is sent again.
    pub control_id: &'a str,
}

impl Default for ReportDialect {
    /// 2.5.1 in UTF-8 from nobody to nobody; text as lines under LOINC 18748-4, documents with it.
    fn default() -> Self {
        let loinc = Coded {
            id: "18748-4".to_owned(),
            text: "Diagnostic imaging study".to_owned(),
            system: "LN".to_owned(),
            ..Coded::default()
        };
        Self {
            version: "2.5.1".to_owned(),
            from: Default::default(),
            to: Default::default(),
            processing_id: "P".to_owned(),
            charset: Charset::UTF_8,
            text: TextAs::default(),
            text_code: loinc.clone(),
            document_code: loinc,
            documents: true,
            study: StudyAs::default(),
            accession: "OBR-18".parse().expect("a path"),
        }
    }
}

impl ReportDialect {
    /// Whether it can be written.
    pub fn check(&self) -> Result<(), DialectError> {
        if !VERSIONS.contains(&self.version.as_str()) {
            return Err(DialectError::Version(self.version.clone()));
        }
        if !["OBR", "ORC"].contains(&self.accession.segment()) {
            return Err(DialectError::Accession(self.accession.clone()));
        }
        Ok(())
    }
}

impl ReportMessage {
    /// The message; see [`Message::write`] and [`Charset::encode`] for its bytes.
    pub fn write(&self, dialect: &ReportDialect, sending: ReportSending<'_>) -> Message {
        let mut message = Message::new();
        let d = *message.delimiters();
        let msh = message.header_mut();
        for (field, text) in [
            (3, dialect.from.0.as_str()),
            (4, &dialect.from.1),
            (5, &dialect.to.0),
            (6, &dialect.to.1),
            (7, sending.at),
            (10, sending.control_id),
            (11, &dialect.processing_id),
            (12, &dialect.version),
        ] {
            msh.put(field, escaped(text, &d));
        }
        // The message structure came with 2.3.1.
        let kind = if dialect.version == "2.3" { "ORU^R01" } else { "ORU^R01^ORU_R01" };
        msh.put(9, kind.to_owned());
        msh.put(18, dialect.charset.msh_18().to_owned());
        msh.put(20, dialect.charset.msh_20().to_owned());
        let pid = self.patient.write_pid(&self.visit, &d);
        let pv1 = self.visit.write(&d);
        pid.into_iter().chain([pv1]).for_each(|segment| message.push(segment));
        for (n, report) in self.reports.iter().enumerate() {
            report.write(n + 1, dialect, &d).into_iter().for_each(|s| message.push(s));
        }
        message
    }
}

impl Report {
    fn write(&self, n: usize, dialect: &ReportDialect, d: &Delimiters) -> Vec<Segment> {
        // A message of its own, so that the path finds this report's segments.
        let mut group = Message::new();
        group.push(self.write_orc(d));
        group.push(self.write_obr(n, d));
        group.set(&dialect.accession, &self.accession);
        let mut segments = group.into_segments();
        segments.remove(0);
        segments.extend(self.notes.iter().enumerate().map(|(n, text)| write_note(n + 1, text, d)));
        let uids = match dialect.study {
            StudyAs::Observation => self.uids(),
            StudyAs::Zds | StudyAs::Nowhere => Vec::new(),
        };
        let mut count = 0;
        for observation in uids.iter().chain(&self.observations) {
            if matches!(observation.value, Value::Document(_)) && !dialect.documents {
                continue;
            }
            for obx in observation.write(dialect, d) {
                count += 1;
                let mut obx = obx;
                obx.put(1, count.to_string());
                segments.push(obx);
            }
            let notes = observation.notes.iter().enumerate();
            segments.extend(notes.map(|(n, text)| write_note(n + 1, text, d)));
        }
        if let (StudyAs::Zds, Some(uid)) = (dialect.study, self.studies.first()) {
            let uid = escaped(uid, d);
            let parts = [uid, String::new(), "Application".to_owned(), "DICOM".to_owned()];
            let mut zds = Segment::new("ZDS");
            zds.put(1, components(&parts, d));
            segments.push(zds);
        }
        segments
    }

    fn write_orc(&self, d: &Delimiters) -> Segment {
        let mut orc = Segment::new("ORC");
        orc.put(1, "RE".to_owned());
        orc.put(2, self.placer.write(d));
        orc.put(3, self.filler.write(d));
        orc.put(12, repetitions(&self.requesters, d, |person| person.write(d)));
        orc
    }

    fn write_obr(&self, n: usize, d: &Delimiters) -> Segment {
        let mut obr = Segment::new("OBR");
        obr.put(1, n.to_string());
        obr.put(2, self.placer.write(d));
        obr.put(3, self.filler.write(d));
        obr.put(4, self.service.write(d));
        obr.put(7, escaped(self.observed_at.as_str(), d));
        obr.put(16, repetitions(&self.requesters, d, |person| person.write(d)));
        obr.put(19, escaped(&self.procedure.0, d));
        obr.put(20, escaped(&self.procedure.1, d));
        obr.put(22, escaped(self.reported_at.as_str(), d));
        obr.put(25, self.status.code().to_owned());
        obr.put(32, repetitions(&self.interpreters, d, |person| named(person, d)));
        obr.put(33, repetitions(&self.assistants, d, |person| named(person, d)));
        obr
    }

    /// The UIDs as observations (IHE RAD-28, RAD-128).
    fn uids(&self) -> Vec<Observation> {
        let one = |id: &str, text: &str, uid: &String| Observation {
            kind: "ST".to_owned(),
            code: Coded {
                id: id.to_owned(),
                text: text.to_owned(),
                system: if id.is_empty() { String::new() } else { "DCM".to_owned() },
                ..Coded::default()
            },
            value: Value::Text(uid.clone()),
            status: if self.status.code().is_empty() { "F" } else { self.status.code() }.to_owned(),
            ..Observation::default()
        };
        let document = Some(&self.document_uid).filter(|uid| !uid.is_empty());
        let studies = self.studies.iter().map(|uid| one("113014", "DICOM Study", uid));
        let series = self.series.iter().map(|uid| one("", "Series Instance UID", uid));
        let document = document.map(|uid| one("", "SR Instance UID", uid));
        let instances = self.instances.iter().map(|uid| one("", "SOP Instance UID", uid));
        studies.chain(series).chain(document).chain(instances).collect()
    }
}

/// NDL with a name (2.A.46).
fn named(person: &Person, d: &Delimiters) -> String {
    let name = &person.name;
    let parts = [&person.id, &name.family, &name.given, &name.middle, &name.suffix, &name.prefix];
    let parts = parts.map(|part| escaped(part, d));
    let used = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
    parts[..used].join(d.subcomponent.encode_utf8(&mut [0; 4]))
}

impl Observation {
    /// OBX without its number: one, or one for each line.
    fn write(&self, dialect: &ReportDialect, d: &Delimiters) -> Vec<Segment> {
        let own = match &self.value {
            _ if !self.code.is_empty() => &self.code,
            Value::Document(_) => &dialect.document_code,
            _ => &dialect.text_code,
        };
        let suffix = |code: String| match self.suffix.as_str() {
            "" => code,
            suffix => {
                let mut parts: Vec<&str> = code.split(d.component).collect();
                let first = format!("{}{}{}", parts[0], d.subcomponent, escaped(suffix, d));
                parts[0] = &first;
                parts.join(d.component.encode_utf8(&mut [0; 4]))
            }
        };
        let obx = |kind: &str, value: String| {
            let mut obx = Segment::new("OBX");
            obx.put(2, escaped(kind, d));
            obx.put(3, suffix(own.write(d)));
            obx.put(4, escaped(&self.sub_id, d));
            obx.put(5, value);
            obx.put(6, self.units.write(d));
            obx.put(8, repetitions(&self.flags, d, |flag| escaped(flag, d)));
            obx.put(11, escaped(&self.status, d));
            obx.put(13, self.actionable.write(d));
            obx.put(14, escaped(self.observed_at.as_str(), d));
            obx
        };
        match (&self.value, dialect.text) {
            (Value::Text(text), TextAs::Lines) if matches!(&*self.kind, "TX" | "FT" | "") => {
                text.split('\n').map(|line| obx("TX", escaped(line, d))).collect()
            }
            (Value::Text(text), TextAs::One) if matches!(&*self.kind, "TX" | "FT" | "") => {
                vec![obx("FT", escaped(text, d))]
            }
            (value, _) => vec![obx(&self.kind, value.write(d))],
        }
    }
}
