//! An order as a person or another system enters it. Pure.

use serde_json::Value;

use super::message;
use crate::cargo::Urgency;
use crate::clock::Timestamp;
use crate::dicom::is_uid;
use crate::orders::identifier::{Identifier, Patient};
use crate::orders::order::{Content, Procedure};

/// Longest number or name of an order that a person or another system enters, in bytes.
const NAME_MAX: usize = 1024;
/// Longest reason, history or list of allergies, in bytes.
const TEXT_MAX: usize = 16 * 1024;

/// An order from a person or another system. Times are RFC 3339; all but the number may be left
/// out.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewOrder {
    /// Order number, unique at this node.
    pub number: String,
    /// Accession number.
    pub accession: String,
    /// Study Instance UID.
    pub study: String,
    /// Patient ID.
    pub patient_id: String,
    /// Who gives the patient ID; empty: this site.
    pub patient_issuer: String,
    /// Patient's name, components by `^`.
    pub patient_name: String,
    /// `YYYYMMDD`.
    pub birth_date: String,
    /// `M`, `F`, `O`.
    pub sex: String,
    /// Modality.
    pub modality: String,
    /// What is to be done.
    pub procedure: String,
    /// When.
    pub scheduled: String,
    /// `stat`, `urgent`, `routine`, `bulk`.
    pub urgency: Option<Urgency>,
    /// Why.
    pub reason: String,
    /// What the reader should know.
    pub history: String,
    /// Allergies.
    pub allergies: String,
    /// Who asks.
    pub department: String,
    /// Whom to call.
    pub contact: String,
    /// Order it again though it was cancelled or discontinued: what is merely sent twice must not
    /// bring back what a person has ended.
    pub again: bool,
}

/// What is wrong with one field of an order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Flaw {
    /// Which field.
    pub field: String,
    /// What is wrong with it, and what would do.
    pub what: String,
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.what),
            field => write!(f, "{field} {}", self.what),
        }
    }
}

fn flaw(field: &str, what: impl Into<String>) -> Flaw {
    Flaw { field: field.to_owned(), what: what.into() }
}

/// What came of entering an order.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Entered {
    /// Its number.
    pub number: String,
    /// What was done.
    pub how: Entry,
}

/// What entering an order has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// There is an order that was not there before, or is wanted again.
    New,
    /// An order that was there says something else now.
    Changed,
    /// It says what was known already: nothing has changed.
    Same,
}

impl NewOrder {
    /// Reads a JSON document.
    ///
    /// # Errors
    ///
    /// Every field that is unknown or cannot be read, at once.
    pub fn read(json: &[u8]) -> Result<Self, Vec<Flaw>> {
        // A list would be read as the fields in their order.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(vec![flaw("", "an order is a JSON object")]);
        }
        let whole = match serde_json::from_slice::<Self>(json) {
            Ok(order) => return Ok(order),
            Err(whole) => whole,
        };
        let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(json) else {
            return Err(vec![flaw("", said(&whole))]);
        };
        let alone = fields.into_iter().filter_map(|(field, value)| {
            let one = Value::Object([(field.clone(), value)].into_iter().collect());
            let error = serde_json::from_value::<Self>(one).err()?;
            Some(flaw(&field, said(&error)))
        });
        let flaws: Vec<Flaw> = alone.collect();
        match flaws.is_empty() {
            // Only together they are wrong: a field stands there twice.
            true => Err(vec![flaw("", said(&whole))]),
            false => Err(flaws),
        }
    }

    /// What it says, or every field that cannot be taken.
    pub(super) fn content(self, issuer: &str) -> Result<Content, Vec<Flaw>> {
        let mut flaws = self.flaws();
        let scheduled = match self.scheduled.trim() {
            "" => None,
            text => match text.parse::<jiff::Timestamp>() {
                Ok(at) => Some(Timestamp(at.as_millisecond())),
                Err(_) => {
                    let what = "cannot be read: a time looks like 2026-11-22T13:00:00+09:00";
                    flaws.push(flaw("scheduled", what));
                    None
                }
            },
        };
        if !flaws.is_empty() {
            return Err(flaws);
        }
        let some = |text: &str| (!text.trim().is_empty()).then(|| Identifier::bare(text));
        let issuer = if self.patient_issuer.is_empty() { issuer } else { &self.patient_issuer };
        let id = some(&self.patient_id).map(|id| message::issued(&id.id, id.authority, issuer));
        let mut content = Content {
            placer: some(&self.number),
            accession: some(&self.accession),
            studies: some(&self.study).map(|s| s.id).into_iter().collect(),
            patient: Patient {
                ids: id.into_iter().collect(),
                names: some(&self.patient_name).map(|n| n.id).into_iter().collect(),
                birth_date: self.birth_date,
                sex: self.sex,
                ..Patient::default()
            },
            modality: self.modality,
            scheduled,
            urgency: self.urgency,
            ..Content::default()
        };
        if !self.procedure.is_empty() {
            let mut procedure = Procedure::default();
            procedure.code.meaning = self.procedure;
            content.procedures.push(procedure);
        }
        let c = &mut content.clinical;
        (c.reason, c.history, c.allergies) = (self.reason, self.history, self.allergies);
        (c.department, c.contact) = (self.department, self.contact);
        Ok(content)
    }

    fn flaws(&self) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        for (field, name) in [
            ("number", &self.number),
            ("accession", &self.accession),
            ("study", &self.study),
            ("patient_id", &self.patient_id),
            ("patient_issuer", &self.patient_issuer),
            ("patient_name", &self.patient_name),
            ("modality", &self.modality),
            ("procedure", &self.procedure),
            ("department", &self.department),
            ("contact", &self.contact),
        ] {
            if name.len() > NAME_MAX {
                flaws.push(flaw(field, format!("is too long: at most {NAME_MAX} bytes")));
            } else if name.chars().any(char::is_control) {
                flaws.push(flaw(field, "has control characters"));
            }
        }
        for (field, text) in
            [("reason", &self.reason), ("history", &self.history), ("allergies", &self.allergies)]
        {
            let laid_out = |c: char| matches!(c, '\n' | '\r' | '\t');
            if text.len() > TEXT_MAX {
                flaws.push(flaw(field, format!("is too long: at most {TEXT_MAX} bytes")));
            } else if text.chars().any(|c| c.is_control() && !laid_out(c)) {
                flaws.push(flaw(field, "has control characters other than line ends and tabs"));
            }
        }
        if self.number.trim().is_empty() {
            flaws.push(flaw("number", "is missing: an order needs one"));
        }
        let study = self.study.trim();
        if !study.is_empty() && !is_uid(study) {
            flaws.push(flaw("study", "is no UID: digits and dots, at most 64 characters"));
        }
        let date = |d: &str| {
            d.len() == 8
                && jiff::fmt::strtime::parse("%Y%m%d", d).is_ok_and(|d| d.to_date().is_ok())
        };
        if !self.birth_date.is_empty() && !date(&self.birth_date) {
            flaws.push(flaw("birth_date", "is no date: write YYYYMMDD"));
        }
        if !["", "M", "F", "O"].contains(&self.sex.as_str()) {
            flaws.push(flaw("sex", "is not M, F or O"));
        }
        flaws
    }
}

/// What serde says, without the value that was sent, which may be a patient's.
fn said(error: &serde_json::Error) -> String {
    let words = error.to_string();
    match words.split_once(": ") {
        Some(("invalid type", rest)) => match rest.rsplit_once(", expected ") {
            Some((_, expected)) => format!("has the wrong type: write {expected}"),
            None => "has the wrong type".into(),
        },
        _ if words.starts_with("unknown field") => "is no field of an order".into(),
        _ if words.starts_with("unknown variant") => {
            "is no urgency: stat, urgent, routine or bulk".into()
        }
        _ if words.starts_with("duplicate field") => "a field stands there twice".into(),
        _ => format!("it is not JSON (line {}, column {})", error.line(), error.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(flaws: &[Flaw]) -> Vec<&str> {
        flaws.iter().map(|f| f.field.as_str()).collect()
    }

    #[test]
    fn every_field_that_cannot_be_read_is_named_at_once_and_no_value_is_repeated() {
        let json =
            r#"{"number":1,"colour":"SECRET","urgency":"SECRET","sex":"M","again":"SECRET"}"#;
        let flaws = NewOrder::read(json.as_bytes()).unwrap_err();
        assert_eq!(fields(&flaws), ["again", "colour", "number", "urgency"], "{flaws:?}");
        assert!(!format!("{flaws:?}").contains("SECRET"), "{flaws:?}");
        for odd in ["[]", "\"x\"", "{", "", "{\"number\":\"1\",\"number\":\"2\"}"] {
            assert_eq!(fields(&NewOrder::read(odd.as_bytes()).unwrap_err()), [""], "{odd}");
        }
        assert_eq!(NewOrder::read(br#"{"number":"1"}"#).unwrap().number, "1");
    }

    #[test]
    fn every_field_that_cannot_be_taken_is_named_at_once() {
        let wrong = NewOrder {
            study: "1.2.x".into(),
            birth_date: "20260231".into(),
            sex: "male".into(),
            scheduled: "tomorrow".into(),
            history: "x".repeat(TEXT_MAX + 1),
            reason: "a\u{1b}[2J".into(),
            contact: "a\nb".into(),
            patient_name: "x".repeat(NAME_MAX + 1),
            ..NewOrder::default()
        };
        let flaws = wrong.content("").unwrap_err();
        let mut named = fields(&flaws);
        named.sort_unstable();
        let all = ["birth_date", "contact", "history", "number", "patient_name", "reason"];
        assert_eq!(named, [&all[..], &["scheduled", "sex", "study"]].concat());
    }

    #[test]
    fn texts_keep_their_lines_and_every_character() {
        let order = NewOrder {
            number: "1".into(),
            history: "造影剤アレルギー\n喘息（髙橋 𠮷野）".into(),
            birth_date: "19500229".replace("0229", "0228"),
            ..NewOrder::default()
        };
        let content = order.clone().content("").unwrap();
        assert_eq!(content.clinical.history, order.history);
    }
}
