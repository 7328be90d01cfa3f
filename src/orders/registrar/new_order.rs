//! An order as a person or another system enters it. Pure.

use super::message;
use crate::cargo::Urgency;
use crate::clock::Timestamp;
use crate::orders::identifier::{Identifier, Patient};
use crate::orders::order::{Content, Procedure};

/// Longest number, name or text of an order that a person or another system enters, in bytes.
const TEXT_MAX: usize = 1024;

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
}

impl NewOrder {
    pub(super) fn content(self, issuer: &str) -> Result<Content, String> {
        let texts = [
            &self.number,
            &self.accession,
            &self.study,
            &self.patient_id,
            &self.patient_issuer,
            &self.patient_name,
            &self.birth_date,
            &self.sex,
            &self.modality,
            &self.procedure,
        ];
        if texts.iter().any(|t| t.len() > TEXT_MAX || t.chars().any(char::is_control)) {
            return Err(format!(
                "numbers and names have at most {TEXT_MAX} bytes, without control characters"
            ));
        }
        if self.number.trim().is_empty() {
            return Err("an order needs a number".into());
        }
        let scheduled = match self.scheduled.trim() {
            "" => None,
            text => match text.parse::<jiff::Timestamp>() {
                Ok(at) => Some(Timestamp(at.as_millisecond())),
                Err(_) => return Err("a time looks like 2026-11-22T13:00:00+09:00".into()),
            },
        };
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
}
