//! MSH (HL7 2.5 2.15.9): who asks what, in which version, and which answers they want.

use super::ack::{Condition, Refusal};
use super::datatype::value;
use super::message::Message;
use super::path::Location;
use super::time::TimeStamp;

/// What MSH says, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Sending application (MSH-3.1).
    pub sending_application: String,
    /// Sending facility (MSH-4.1).
    pub sending_facility: String,
    /// Receiving application (MSH-5.1).
    pub receiving_application: String,
    /// Receiving facility (MSH-6.1).
    pub receiving_facility: String,
    /// Date and time of the message (MSH-7).
    pub sent_at: TimeStamp,
    /// Message code (MSH-9.1): `OMI`.
    pub code: String,
    /// Trigger event (MSH-9.2): `O23`.
    pub trigger: String,
    /// Message structure (MSH-9.3): `OMI_O23`.
    pub structure: String,
    /// Message control ID (MSH-10).
    pub control_id: String,
    /// Processing ID (MSH-11.1): `P` production, `T` training, `D` debugging.
    pub processing_id: String,
    /// Version ID (MSH-12.1).
    pub version: String,
    /// Accept acknowledgment type (MSH-15).
    pub accept: String,
    /// Application acknowledgment type (MSH-16).
    pub application: String,
}

/// When an acknowledgement is wanted (table 0155).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// `AL`, and whatever the table does not have: an answer too many does less harm.
    Always,
    /// `NE`, or nothing in the enhanced mode.
    Never,
    /// `ER`
    OnError,
    /// `SU`
    OnSuccess,
}

impl When {
    fn of(text: &str) -> Self {
        match text {
            "NE" | "" => Self::Never,
            "ER" => Self::OnError,
            "SU" => Self::OnSuccess,
            _ => Self::Always,
        }
    }

    /// Whether a message that was refused, or was not, is answered.
    pub fn wants(self, refused: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::OnError => refused,
            Self::OnSuccess => !refused,
        }
    }
}

/// How a message wants to be acknowledged (HL7 2.9.2, 2.9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Once, by the application. MSH-15 and MSH-16 are empty.
    Original,
    /// By whoever keeps it, and by the application.
    Enhanced {
        /// MSH-15.
        accept: When,
        /// MSH-16.
        application: When,
    },
}

/// Which messages are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepts {
    /// Processing IDs (MSH-11): production only, unless a site tests.
    pub processing_ids: Vec<String>,
    /// Versions (MSH-12), the first and the last, numbers after the first dot: `(3, 5)` is 2.3 to
    /// 2.5.1.
    pub versions: (u32, u32),
    /// Whether orders and patients are taken: where reports come in, they are not.
    pub orders: bool,
    /// Whether reports (ORU^R01) are taken: only where something keeps them.
    pub reports: bool,
}

impl Default for Accepts {
    fn default() -> Self {
        let processing_ids = vec!["P".to_owned()];
        Self { processing_ids, versions: (3, 5), orders: true, reports: false }
    }
}

/// Message types that this program reads: code and triggers.
const TYPES: [(&str, &[&str]); 5] = [
    ("ORM", &["O01"]),
    ("OMG", &["O19"]),
    ("OMI", &["O23"]),
    ("ADT", &["A08", "A40"]),
    (REPORT, &["R01"]),
];

/// The message code of reports.
pub(super) const REPORT: &str = "ORU";

impl Header {
    /// Reads MSH.
    pub fn of(message: &Message) -> Self {
        let msh = message.header();
        let text = |field, component| value(msh.field(field).component(component));
        Self {
            sending_application: text(3, 1),
            sending_facility: text(4, 1),
            receiving_application: text(5, 1),
            receiving_facility: text(6, 1),
            sent_at: TimeStamp::new(&text(7, 1)),
            code: text(9, 1).to_ascii_uppercase(),
            trigger: text(9, 2).to_ascii_uppercase(),
            structure: text(9, 3),
            control_id: text(10, 1),
            processing_id: text(11, 1),
            version: text(12, 1),
            accept: text(15, 1),
            application: text(16, 1),
        }
    }

    /// How it wants to be acknowledged.
    pub fn mode(&self) -> Mode {
        if self.accept.is_empty() && self.application.is_empty() {
            return Mode::Original;
        }
        let (accept, application) = (When::of(&self.accept), When::of(&self.application));
        Mode::Enhanced { accept, application }
    }

    /// Whether the version is 2.5 or later: ERR has other fields since.
    pub fn is_since_2_5(&self) -> bool {
        self.minor().is_some_and(|minor| minor >= 5)
    }

    /// The number after the first dot of a version 2.
    fn minor(&self) -> Option<u32> {
        let rest = self.version.strip_prefix("2.")?;
        rest.split('.').next()?.parse().ok()
    }

    /// Whether this program takes such a message: type, version, processing ID, control ID.
    pub fn check(&self, accepts: &Accepts) -> Result<(), Refusal> {
        let at = |field| Location::field("MSH", 1, field);
        let reject =
            |field, condition, words: String| Err(Refusal::reject(at(field), condition, words));
        if self.code.is_empty() {
            let words = "MSH-9 is missing".to_owned();
            return reject(9, Condition::RequiredFieldMissing, words);
        }
        let shown = |text: &str| text.chars().take(20).collect::<String>();
        let taken = |code: &str| if code == REPORT { accepts.reports } else { accepts.orders };
        let mut types = TYPES.iter().filter(|(code, _)| taken(code));
        let Some((_, triggers)) = types.find(|(code, _)| *code == self.code) else {
            let words = format!("messages {} are not taken here", shown(&self.code));
            return reject(9, Condition::UnsupportedMessageType, words);
        };
        if !triggers.contains(&self.trigger.as_str()) {
            let words =
                format!("messages {}^{} are not taken here", self.code, shown(&self.trigger));
            return reject(9, Condition::UnsupportedEventCode, words);
        }
        if self.control_id.is_empty() {
            let words = "MSH-10 is missing".to_owned();
            return reject(10, Condition::RequiredFieldMissing, words);
        }
        if !accepts.processing_ids.contains(&self.processing_id) {
            let words = format!("processing ID {:?} is not taken here", shown(&self.processing_id));
            return reject(11, Condition::UnsupportedProcessingId, words);
        }
        let (first, last) = accepts.versions;
        if !self.minor().is_some_and(|minor| (first..=last).contains(&minor)) {
            let words = format!("version {:?} is not taken here", shown(&self.version));
            return reject(12, Condition::UnsupportedVersionId, words);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(msh: &str) -> Header {
        Header::of(&Message::parse(msh).unwrap())
    }

    #[test]
    fn a_header_that_is_not_for_us_is_rejected_with_the_field_and_the_code() {
        let accepts = Accepts::default();
        for (rest, field, code) in [
            ("|1|P|2.5", 9, "101"),
            ("ORU^R01|1|P|2.5", 9, "200"),
            ("MDM^T02|1|P|2.5", 9, "200"),
            ("ORM^O02|1|P|2.5", 9, "201"),
            ("ORM|1|P|2.5", 9, "201"),
            ("ORM^O01||P|2.5", 10, "101"),
            ("ORM^O01|1|T|2.5", 11, "202"),
            ("ORM^O01|1||2.5", 11, "202"),
            ("ORM^O01|1|P|2.2", 12, "203"),
            ("ORM^O01|1|P|2.6", 12, "203"),
            ("ORM^O01|1|P|3.0", 12, "203"),
            ("ORM^O01|1|P|", 12, "203"),
        ] {
            let rest = rest.strip_prefix('|').map_or(rest.to_owned(), |r| format!("|{r}"));
            let header = header(&format!("MSH|^~\\&|A|B|C|D|2026||{rest}\r"));
            let refusal = header.check(&accepts).expect_err(&rest);
            assert_eq!(refusal.location, Some(Location::field("MSH", 1, field)), "{rest}");
            assert_eq!(refusal.condition.code(), code, "{rest}");
        }
        for version in ["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.5^JPN"] {
            let header = header(&format!("MSH|^~\\&|A|B|C|D|2026||ORM^O01|1|P^T|{version}\r"));
            assert_eq!(header.check(&accepts), Ok(()), "{version}");
        }
    }

    #[test]
    fn reports_are_taken_where_they_are_kept_and_only_of_the_event_that_brings_them() {
        let accepts = Accepts { reports: true, ..Accepts::default() };
        let check = |kind: &str| {
            header(&format!("MSH|^~\\&|A|B|C|D|2026||{kind}|1|P|2.5\r")).check(&accepts)
        };
        assert_eq!(check("ORU^R01"), Ok(()));
        assert_eq!(check("ORU^R30").unwrap_err().condition.code(), "201");
        let only = Accepts { orders: false, ..accepts.clone() };
        let order = header("MSH|^~\\&|A|B|C|D|2026||ORM^O01|1|P|2.5\r");
        assert_eq!(order.check(&only).unwrap_err().condition.code(), "200");
    }

    #[test]
    fn the_mode_is_enhanced_when_either_acknowledgement_type_is_valued() {
        let mode = |rest| header(&format!("MSH|^~\\&|||||||ORM^O01|1|P|2.4|||{rest}")).mode();
        assert_eq!(mode("|"), Mode::Original);
        let al = Mode::Enhanced { accept: When::Always, application: When::Never };
        assert_eq!((mode("AL|NE"), mode("AL|")), (al, al));
        let er = Mode::Enhanced { accept: When::Never, application: When::OnError };
        assert_eq!(mode("|ER"), er);
    }
}
