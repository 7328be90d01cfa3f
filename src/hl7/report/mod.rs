//! Reports: ORU^R01 (HL7 2.3 to 2.5.1, chapter 7; IHE RAD-28 and RAD-128) to plain values and back.
//!
//! A message has one patient, one visit and any number of reports; each OBR begins one, with the
//! ORC before it. Where sites put accession number and Study Instance UID is configured as for
//! orders ([`OrderFields`](super::order::OrderFields)); UIDs that come as observations (OBX-3
//! `113014^DICOM Study^DCM`, `^SR Instance UID`) are taken out of the observations.
//!
//! What the status of a report means is decided here once ([`ResultStatus`]). Where OBR-25 is
//! empty, the observations' own statuses (OBX-11) stand in for it.
//!
//! A report is taken or refused with its whole message. Absent and deleted (`""`) fields are both
//! empty here.
//!
//! Limits: [`REPORTS_MAX`] reports, [`UIDS_MAX`] UIDs of a kind, [`DOCUMENT_LENGTH_MAX`] bytes of
//! one document.

mod formatted;
mod read;
mod value;
mod write;

pub use value::{Document, DocumentKind, Value};
pub use write::{DialectError, ReportDialect, ReportSending, StudyAs, TextAs};

use super::datatype::{Coded, Identifier, Person};
use super::patient::{Patient, Visit};
use super::time::TimeStamp;

/// Most reports of one message.
pub const REPORTS_MAX: usize = 1_000;

/// Most Study, Series or SOP Instance UIDs of one report.
pub const UIDS_MAX: usize = 1_000;

/// Longest document of an observation (OBX-2 ED), decoded, in bytes.
pub const DOCUMENT_LENGTH_MAX: usize = 64 << 20;

/// What a message of reports says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReportMessage {
    /// Whom they are about.
    pub patient: Patient,
    /// During which visit.
    pub visit: Visit,
    /// The reports, in their order; never empty when read.
    pub reports: Vec<Report>,
}

/// How far a report is (OBR-25, table 0123; OBX-11, table 0085).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ResultStatus {
    /// O, I, S: ordered, scheduled, in process; there is nothing to read yet.
    Awaited,
    /// A, N: some of it.
    Partial,
    /// R: stored, and nobody has signed it.
    Unverified,
    /// P: an early result that somebody has signed (HL7 2.5 table 0123: "a verified early result").
    Preliminary,
    /// F: final. U, "changed to final without retransmission", of an observation.
    Final,
    /// C: a correction of what was final.
    Corrected,
    /// X: no result; the procedure was not done, or the report is withdrawn.
    Cancelled,
    /// Y, Z: the sender has no such order or patient.
    NoRecord,
    /// Nothing is said.
    #[default]
    Unstated,
}

impl ResultStatus {
    /// What a code of OBR-25 means; `None` when it is not in the table.
    pub fn of_code(code: &str) -> Option<Self> {
        Some(match code {
            "" => Self::Unstated,
            "O" | "I" | "S" => Self::Awaited,
            "A" => Self::Partial,
            "R" => Self::Unverified,
            "P" => Self::Preliminary,
            "F" => Self::Final,
            "C" => Self::Corrected,
            "X" => Self::Cancelled,
            "Y" | "Z" => Self::NoRecord,
            _ => return None,
        })
    }

    /// The code of OBR-25 that says so.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unstated => "",
            Self::Awaited => "I",
            Self::Partial => "A",
            Self::Unverified => "R",
            Self::Preliminary => "P",
            Self::Final => "F",
            Self::Corrected => "C",
            Self::Cancelled => "X",
            Self::NoRecord => "Y",
        }
    }

    /// What OBX-11 says of one observation.
    fn of_observation(code: &str) -> Self {
        match code {
            "U" => Self::Final,
            "N" => Self::Awaited,
            "S" => Self::Partial,
            // Deleted, or sent by mistake for this patient: not a result.
            "D" | "W" => Self::Cancelled,
            code => Self::of_code(code).unwrap_or_default(),
        }
    }
}

/// A report: OBR, the ORC before it, and the OBX and NTE after it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Placer order number (OBR-2, ORC-2).
    pub placer: Identifier,
    /// Filler order number (OBR-3, ORC-3).
    pub filler: Identifier,
    /// Accession number.
    pub accession: String,
    /// Study Instance UIDs, the configured field's first.
    pub studies: Vec<String>,
    /// Series Instance UIDs.
    pub series: Vec<String>,
    /// SOP Instance UIDs that it refers to.
    pub instances: Vec<String>,
    /// SOP Instance UID of the DICOM document that says the same (IHE: OBX-3 `^SR Instance UID`).
    pub document_uid: String,
    /// What was reported on: universal service (OBR-4).
    pub service: Coded,
    /// When it was observed (OBR-7).
    pub observed_at: TimeStamp,
    /// When the report got this status (OBR-22).
    pub reported_at: TimeStamp,
    /// How far it is (OBR-25).
    pub status: ResultStatus,
    /// Who has read it and signs (OBR-32.1), of NDL its name.
    pub interpreters: Vec<Person>,
    /// Who has read it with them (OBR-33.1).
    pub assistants: Vec<Person>,
    /// Who asked for it (OBR-16, ORC-12).
    pub requesters: Vec<Person>,
    /// Requested procedure and scheduled step: OBR-19, OBR-20.
    pub procedure: (String, String),
    /// Remarks (NTE after OBR).
    pub notes: Vec<String>,
    /// What it says, UIDs left out.
    pub observations: Vec<Observation>,
}

/// One observation: OBX and the NTE after it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// Value type (OBX-2, table 0125): `TX`, `FT`, `ED`, ...
    pub kind: String,
    /// What is observed (OBX-3).
    pub code: Coded,
    /// Suffix of OBX-3.1 (HL7 2.5 7.2.4): `ADT` addendum, `IMP` impression, `GDT` description.
    pub suffix: String,
    /// Which of several that belong together (OBX-4).
    pub sub_id: String,
    /// The value (OBX-5).
    pub value: Value,
    /// Units (OBX-6).
    pub units: Coded,
    /// Abnormal flags (OBX-8, table 0078): `AA` and `HH`, `LL` are critical.
    pub flags: Vec<String>,
    /// How far it is (OBX-11) as sent.
    pub status: String,
    /// Category of an actionable finding (OBX-13, as IHE RAD-128 uses it).
    pub actionable: Coded,
    /// When it was observed (OBX-14).
    pub observed_at: TimeStamp,
    /// Remarks (NTE).
    pub notes: Vec<String>,
}

impl Observation {
    /// Whether it is there to be read: not deleted, not another patient's, not impossible to get.
    pub fn stands(&self) -> bool {
        !matches!(self.status.as_str(), "D" | "W" | "X")
    }

    /// Whether it was added to a report that was final.
    pub fn is_addendum(&self) -> bool {
        self.suffix == "ADT"
    }

    /// Whether it stands and is told in the text of the report.
    pub fn is_told(&self) -> bool {
        self.stands() && (self.is_text() || !self.value.shown(&self.units).is_empty())
    }

    /// Whether its value is text for people; an empty one is an empty line.
    fn is_text(&self) -> bool {
        matches!(self.value, Value::Text(_))
            || self.value == Value::Nothing && matches!(&*self.kind, "TX" | "FT" | "ST")
    }

    /// What it is, for people: name of its code, and that it is an addendum.
    fn heading(&self) -> String {
        match (self.code.shown(), self.is_addendum()) {
            ("", true) => "Addendum".to_owned(),
            (name, true) => format!("{name} (addendum)"),
            (name, false) => name.to_owned(),
        }
    }
}

impl Report {
    /// How far it is: OBR-25, or what its observations say together. One that is corrected makes a
    /// correction, one that is preliminary keeps it from being final.
    pub fn result(&self) -> ResultStatus {
        if self.status != ResultStatus::Unstated {
            return self.status;
        }
        let all = || self.observations.iter().map(|o| ResultStatus::of_observation(&o.status));
        // Whatever weakens it counts before what strengthens it.
        let order = [
            ResultStatus::Unverified,
            ResultStatus::Preliminary,
            ResultStatus::Partial,
            ResultStatus::Corrected,
            ResultStatus::Final,
            ResultStatus::Awaited,
            ResultStatus::Cancelled,
        ];
        order.into_iter().find(|s| all().any(|o| o == *s)).unwrap_or_default()
    }

    /// The report as text: observations of one code as one paragraph, under its name where there
    /// are several; values with their units; pointers as they stand; remarks last. Documents and
    /// what does not stand any more are left out.
    pub fn text(&self) -> String {
        let texts: Vec<String> = self.paragraphs().into_iter().map(|(_, text)| text).collect();
        texts.join("\n")
    }

    /// The paragraphs of [`text`](Self::text), each with the first of its observations; remarks
    /// on the report have none.
    pub fn paragraphs(&self) -> Vec<(Option<&Observation>, String)> {
        let shown: Vec<&Observation> = self.observations.iter().filter(|o| o.is_told()).collect();
        let same = |a: &Observation, b: &Observation| {
            (&a.code, &a.suffix) == (&b.code, &b.suffix) && a.is_text() && b.is_text()
        };
        let alone = shown.windows(2).all(|two| same(two[0], two[1]));
        let mut paragraphs: Vec<(Option<&Observation>, String)> = Vec::new();
        for run in shown.chunk_by(|a, b| same(a, b)) {
            let heading = run[0].heading();
            let lines: Vec<String> = run.iter().map(|o| o.value.shown(&o.units)).collect();
            let text = lines.join("\n");
            let told = match (alone && run[0].is_text() && !run[0].is_addendum(), &*heading) {
                (true, _) | (_, "") => text,
                (_, heading) if run[0].is_text() => format!("{heading}\n{text}"),
                (_, heading) => format!("{heading}: {text}"),
            };
            paragraphs.push((Some(run[0]), told));
            let notes = run.iter().flat_map(|o| &o.notes);
            paragraphs.extend(notes.map(|note| (Some(run[0]), note.clone())));
        }
        paragraphs.extend(self.notes.iter().map(|note| (None, note.clone())));
        paragraphs.retain(|(_, text)| !text.trim().is_empty());
        paragraphs
    }

    /// The documents it brings (OBX-2 ED) that stand.
    pub fn documents(&self) -> impl Iterator<Item = &Document> {
        self.observations.iter().filter(|o| o.stands()).filter_map(|o| match &o.value {
            Value::Document(document) => Some(document),
            _ => None,
        })
    }

    /// Abnormal flags (OBX-8) of what stands, each with the observation's code.
    pub fn flags(&self) -> impl Iterator<Item = (&str, &Coded)> {
        let standing = self.observations.iter().filter(|o| o.stands());
        standing.flat_map(|o| o.flags.iter().map(move |flag| (flag.as_str(), &o.code)))
    }

    /// Whether something in it was added to what was final.
    pub fn has_addendum(&self) -> bool {
        self.observations.iter().any(|o| o.stands() && o.is_addendum())
    }

    /// Whether all that it tells was added to what was final: the rest is not said again.
    pub fn is_only_addendum(&self) -> bool {
        let mut told = self.observations.iter().filter(|o| o.is_told());
        self.has_addendum() && told.all(Observation::is_addendum)
    }
}

#[cfg(test)]
mod tests;
