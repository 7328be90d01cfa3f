//! A report as a program says it in JSON: the sidecar of a file (`NAME.json` beside `NAME.pdf`), and
//! the body of `POST /reports`. Also what the name of a file says where there is no sidecar.
//!
//! Whoever writes this is a program that somebody can correct: what is odd is refused with the field
//! and what to do, and nothing is guessed. No value is repeated in the words, because they reach logs
//! and values are a patient's.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::arrive::{ArriveRules, NotAReport};
use super::critical::Reason;
use super::report::{Form, FormKind, Identifiers, LIST_MAX, Reader, Report, Status, TEXT_MAX};
use crate::clock::Timestamp;
use crate::dicom::is_uid;
use crate::hl7::time::TimeStamp;
use crate::orders::identifier::{Identifier, Patient};

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flaw {
    /// The field; empty: the whole.
    pub field: String,
    /// What is wrong and what to do, without what it says.
    pub what: String,
}

impl Flaw {
    fn new(field: &str, what: impl Into<String>) -> Self {
        Self { field: field.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.what),
            field => write!(f, "{field}: {}", self.what),
        }
    }
}

/// Of whom.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SaidPatient {
    /// Patient number.
    pub id: String,
    /// Who gave it; empty: the issuer of `[reports]`.
    pub issuer: String,
    /// Name, components separated by `^`, representations by `=`.
    pub name: String,
    /// `YYYYMMDD` or `YYYY-MM-DD`.
    pub birth_date: String,
    /// `M`, `F` or `O`.
    pub sex: String,
}

/// Somebody who has read or signed: a name alone, or all that is known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum SaidPerson {
    /// Name, components separated by `^`.
    Name(String),
    /// More.
    Known(SaidReader),
}

/// Somebody with a number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SaidReader {
    /// Name, components separated by `^`.
    pub name: String,
    /// Number.
    pub id: String,
    /// Who gave the number.
    pub issuer: String,
    /// Organization.
    pub organization: String,
    /// When he or she signed; a time as in `written_at`.
    pub at: String,
}

/// One, or several in a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum SaidPeople {
    /// One.
    One(SaidPerson),
    /// Several.
    All(Vec<SaidPerson>),
}

impl Default for SaidPeople {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

/// A report in JSON. Every field may be left out; at least one of `accession`, `study`, `placer`,
/// `filler` must say what it is about, and one of `text`, `pdf`, `cda` must be there unless it is
/// cancelled.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SaidReport {
    /// Accession number.
    pub accession: String,
    /// Who gave it; empty: the issuer of `[reports]`.
    pub accession_issuer: String,
    /// Study Instance UID.
    pub study: String,
    /// Placer order number.
    pub placer: String,
    /// Filler order number.
    pub filler: String,
    /// Of whom.
    pub patient: SaidPatient,
    /// How far it is: see [`status_of`]; empty: as the receiver is told.
    pub status: String,
    /// Whether it adds to a final report.
    pub addendum: bool,
    /// What the sender calls this version of the document.
    pub document: String,
    /// What it calls the versions that this one replaces.
    pub replaces: Vec<String>,
    /// Title.
    pub title: String,
    /// Language, RFC 5646: `ja`.
    pub language: String,
    /// Who has read it.
    pub author: SaidPeople,
    /// Who has signed it.
    pub signed_by: SaidPeople,
    /// When: `2026-11-28T10:15:00+09:00`, or without an offset in local time, or `YYYYMMDDHHMMSS`.
    pub written_at: String,
    /// Whether somebody must know of it at once.
    pub critical: bool,
    /// The report as text.
    pub text: String,
    /// A PDF, base64.
    pub pdf: String,
    /// A CDA document, base64.
    pub cda: String,
}

/// Without what it says: it is a patient's.
impl fmt::Debug for SaidReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaidReport")
    }
}

/// What a status word says; `None`: there is no such word.
///
/// | word | means |
/// |---|---|
/// | `P`, `A`, `preliminary`, `partial`, `draft` | preliminary |
/// | `R`, `unverified` | as `unverified` of the receiver says |
/// | `F`, `final` | final |
/// | `C`, `corrected`, `amended` | corrected |
/// | `addendum` | corrected, and an addendum |
/// | `X`, `cancelled`, `canceled`, `withdrawn` | cancelled |
pub fn status_of(word: &str, rules: &ArriveRules) -> Option<Status> {
    Some(match word.trim().to_ascii_lowercase().as_str() {
        "p" | "a" | "preliminary" | "partial" | "draft" => Status::Preliminary,
        "r" | "unverified" => rules.unverified,
        "f" | "final" => Status::Final,
        "c" | "corrected" | "amended" | "addendum" => Status::Corrected,
        "x" | "cancelled" | "canceled" | "withdrawn" => Status::Cancelled,
        _ => return None,
    })
}

impl SaidReport {
    /// Reads JSON in UTF-8. A field that is not known is refused: it might be one that matters,
    /// mistyped.
    pub fn read(json: &[u8]) -> Result<Self, Flaw> {
        let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
        if std::str::from_utf8(json).is_err() {
            return Err(Flaw::new("", "is not written in UTF-8"));
        }
        serde_json::from_slice(json).map_err(|e| {
            let place = format!("line {}, column {}", e.line(), e.column());
            let said = e.to_string();
            // Only these name keys, and no values.
            let of_a_key = ["unknown field", "duplicate field"].iter().any(|w| said.starts_with(w));
            let what = match e.classify() {
                serde_json::error::Category::Data if of_a_key => {
                    said.chars().take(300).filter(|c| !c.is_control()).collect()
                }
                serde_json::error::Category::Data => {
                    format!("has a value of another type than its field has ({place})")
                }
                _ => format!("is no JSON ({place})"),
            };
            Flaw::new("", what)
        })
    }

    /// What the name of a file says, without its ending: `ACCESSION_STATUS` or `STUDYUID_STATUS`.
    /// `None`: it does not follow this rule.
    pub fn of_name(stem: &str, rules: &ArriveRules) -> Option<Self> {
        let (of, word) = stem.rsplit_once('_')?;
        status_of(word, rules)?;
        let of = of.trim();
        if of.is_empty() || of.len() > TEXT_MAX {
            return None;
        }
        let mut said = Self { status: word.to_owned(), ..Self::default() };
        let is_study = is_uid(of) && of.matches('.').count() > 2;
        let field = if is_study { &mut said.study } else { &mut said.accession };
        of.clone_into(field);
        Some(said)
    }

    /// The report that it says, sent by `source` (who may be shown to people).
    pub fn report(self, rules: &ArriveRules, source: &str) -> Result<Report, Vec<Flaw>> {
        self.with_forms(rules, source, Vec::new())
    }

    /// The same, with these forms beside its own: the files that it is the sidecar of.
    pub fn with_forms(
        mut self,
        rules: &ArriveRules,
        source: &str,
        mut forms: Vec<Form>,
    ) -> Result<Report, Vec<Flaw>> {
        let mut flaws = Vec::new();
        self.own_forms(&mut forms, &mut flaws);
        for form in &forms {
            flaws.extend(flaw_of(form));
        }
        self.check(&mut flaws);
        let status = match self.status.trim() {
            "" => Some(rules.unstated),
            word => status_of(word, rules),
        };
        if status.is_none() {
            let what = "is no status: write preliminary, unverified, final, corrected, addendum or \
                        cancelled, or one of P R F C X";
            flaws.push(Flaw::new("status", what));
        }
        let is_addendum = self.addendum || self.status.trim().eq_ignore_ascii_case("addendum");
        let authors = people(&self.author, "author", rules, &mut flaws);
        let verifiers = people(&self.signed_by, "signed_by", rules, &mut flaws);
        let written_at = time(&self.written_at, "written_at", rules, &mut flaws);
        let named = |id: &str| Some(Identifier::bare(id)).filter(Identifier::is_named);
        let issued = |id: &str, issuer: &str| {
            let id = rules.issued(Identifier::of(id, issuer.trim()));
            Some(id).filter(Identifier::is_named).into_iter().collect::<Vec<_>>()
        };
        let patient = patient(&self.patient, &issued, &mut flaws);
        let facts = Report {
            ids: Identifiers {
                document: self.document.trim().to_owned(),
                placer: named(&self.placer),
                filler: named(&self.filler),
                accessions: issued(&self.accession, &self.accession_issuer),
                studies: Some(self.study.trim().to_owned())
                    .filter(|s| !s.is_empty())
                    .into_iter()
                    .collect(),
                instances: vec![],
                predecessors: self.replaces,
            },
            status: status.unwrap_or(Status::Preliminary),
            is_signed: !verifiers.is_empty(),
            patient,
            title: self.title,
            language: self.language,
            authors,
            verifiers,
            written_at,
            critical: self.critical.then(|| Reason::Said(source.to_owned())).into_iter().collect(),
            forms: vec![],
            source: source.to_owned(),
            is_addendum,
        };
        if !flaws.is_empty() {
            return Err(flaws);
        }
        rules.of_file(facts, forms).map_err(|why| {
            let what = match why {
                NotAReport::Empty => "has neither text, pdf nor cda: add one of them".to_owned(),
                other => other.to_string(),
            };
            vec![Flaw::new("", what)]
        })
    }

    fn own_forms(&mut self, forms: &mut Vec<Form>, flaws: &mut Vec<Flaw>) {
        let text = std::mem::take(&mut self.text);
        if !text.trim().is_empty() {
            forms.push(text_form(&text));
        }
        for (field, kind, encoded) in [
            ("pdf", FormKind::Pdf, std::mem::take(&mut self.pdf)),
            ("cda", FormKind::Cda, std::mem::take(&mut self.cda)),
        ] {
            if encoded.is_empty() {
                continue;
            }
            // Some encoders break lines.
            let plain: Vec<u8> = encoded.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
            match STANDARD.decode(plain) {
                Ok(bytes) => forms.push(Form::new(kind, bytes)),
                Err(_) => flaws.push(Flaw::new(field, "is not base64")),
            }
        }
    }

    fn check(&self, flaws: &mut Vec<Flaw>) {
        let names = [
            ("accession", &self.accession),
            ("accession_issuer", &self.accession_issuer),
            ("study", &self.study),
            ("placer", &self.placer),
            ("filler", &self.filler),
            ("patient.id", &self.patient.id),
            ("patient.issuer", &self.patient.issuer),
            ("patient.name", &self.patient.name),
            ("patient.sex", &self.patient.sex),
            ("document", &self.document),
            ("title", &self.title),
            ("language", &self.language),
        ];
        let replaces = self.replaces.iter().take(LIST_MAX).map(|name| ("replaces", name));
        for (field, text) in names.into_iter().chain(replaces) {
            flaws.extend(flaw_of_text(field, text));
        }
        if self.replaces.len() > LIST_MAX {
            flaws.push(Flaw::new("replaces", format!("has more than {LIST_MAX} entries")));
        }
        let of = [&self.accession, &self.study, &self.placer, &self.filler];
        if of.iter().all(|id| id.trim().is_empty()) {
            let what = "says nothing of what it is about: give accession, study, placer or filler";
            flaws.push(Flaw::new("", what));
        }
        let study = self.study.trim();
        if !study.is_empty() && !is_uid(study) {
            flaws.push(Flaw::new("study", "is no UID"));
        }
    }
}

/// Text as a form: lines end with LF, without a byte order mark.
pub fn text_form(text: &str) -> Form {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Form::new(FormKind::Text, text.replace("\r\n", "\n").replace('\r', "\n").into_bytes())
}

fn flaw_of_text(field: &str, text: &str) -> Option<Flaw> {
    if text.len() > TEXT_MAX {
        return Some(Flaw::new(field, format!("is longer than {TEXT_MAX} bytes")));
    }
    let odd = text.chars().any(char::is_control);
    odd.then(|| Flaw::new(field, "has control characters"))
}

/// Why a document is not what its ending or field says.
fn flaw_of(form: &Form) -> Option<Flaw> {
    let head = &form.bytes[..form.bytes.len().min(1024)];
    let has = |word: &[u8]| head.windows(word.len()).any(|w| w == word);
    match form.kind {
        // ISO 32000-1, annex H.3.4.1: readers take the header within the first 1024 bytes.
        FormKind::Pdf if !has(b"%PDF-") => Some(Flaw::new("pdf", "is no PDF")),
        FormKind::Cda if !has(b"<") => Some(Flaw::new("cda", "is no XML")),
        FormKind::Text if form.bytes.iter().all(u8::is_ascii_whitespace) => {
            Some(Flaw::new("text", "is empty"))
        }
        FormKind::Text if form.bytes.contains(&0) => {
            Some(Flaw::new("text", "has NUL characters: is it written in UTF-16?"))
        }
        _ => None,
    }
}

fn people(
    said: &SaidPeople,
    field: &str,
    rules: &ArriveRules,
    flaws: &mut Vec<Flaw>,
) -> Vec<Reader> {
    let all = match said {
        SaidPeople::One(one) => std::slice::from_ref(one),
        SaidPeople::All(all) => all,
    };
    if all.len() > LIST_MAX {
        flaws.push(Flaw::new(field, format!("has more than {LIST_MAX} entries")));
    }
    let mut readers = Vec::new();
    for person in all.iter().take(LIST_MAX) {
        let known = match person {
            SaidPerson::Name(name) => SaidReader { name: name.clone(), ..SaidReader::default() },
            SaidPerson::Known(known) => known.clone(),
        };
        let texts = [&known.name, &known.id, &known.issuer, &known.organization];
        flaws.extend(texts.iter().find_map(|text| flaw_of_text(field, text)));
        let reader = Reader {
            id: Identifier::of(&known.id, known.issuer.trim()),
            name: known.name.trim().to_owned(),
            organization: known.organization,
            at: time(&known.at, &format!("{field}.at"), rules, flaws),
        };
        if reader.id.is_named() || !reader.name.is_empty() {
            readers.push(reader);
        }
    }
    readers
}

fn patient(
    said: &SaidPatient,
    issued: &impl Fn(&str, &str) -> Vec<Identifier>,
    flaws: &mut Vec<Flaw>,
) -> Patient {
    let birth_date = said.birth_date.trim().replace('-', "");
    let day = birth_date.len() == 8 && TimeStamp::new(&birth_date).when().is_some();
    if !birth_date.is_empty() && !day {
        flaws.push(Flaw::new("patient.birth_date", "is no day: write YYYY-MM-DD"));
    }
    let names = said.name.split('=').map(|name| name.trim_matches(['^', ' ']).to_owned());
    Patient {
        ids: issued(&said.id, &said.issuer),
        former: vec![],
        names: names.filter(|name| !name.is_empty()).take(LIST_MAX).collect(),
        birth_date,
        sex: said.sex.trim().to_ascii_uppercase(),
    }
}

/// A time, in the zone of the route where it has no offset.
fn time(said: &str, field: &str, rules: &ArriveRules, flaws: &mut Vec<Flaw>) -> Option<Timestamp> {
    let said = said.trim();
    if said.is_empty() {
        return None;
    }
    let exact = said.parse::<jiff::Timestamp>().ok();
    let local = || {
        let local = said.parse::<jiff::civil::DateTime>().ok()?;
        rules.zone.to_ambiguous_timestamp(local).compatible().ok()
    };
    // Eight digits and more: a time as HL7 and DICOM write it.
    let digits = said.bytes().take(8).all(|b| b.is_ascii_digit());
    let at = match digits {
        true => rules.time(&TimeStamp::new(said)),
        false => exact.or_else(local).map(|at| Timestamp(at.as_millisecond())),
    };
    if at.is_none() {
        flaws.push(Flaw::new(field, "is no time: write 2026-11-28T10:15:00+09:00"));
    }
    at
}

#[cfg(test)]
mod tests;
