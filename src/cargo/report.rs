//! What a delivered report says of itself beyond its envelope, as words among the envelope's flags:
//! so it goes with the cargo without a change of its bytes.

use super::{Envelope, peer_text};

/// Which report, and which version of it, a piece of cargo was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportFacts {
    /// How far it is: `preliminary`, `final`, `corrected` …; empty: unknown.
    pub status: String,
    /// Id of the report: the same for all its versions.
    pub report: String,
    /// Which version, from one; 0: unknown.
    pub version: u32,
    /// What it replaces at the same destination, by the name that its receipt gave; empty: nothing.
    pub replaces: String,
}

impl ReportFacts {
    /// Writes them into an envelope, in the place of what stood there.
    pub fn write(&self, envelope: &mut Envelope) {
        let version = self.version.to_string();
        let words = [
            ("status", &self.status),
            ("report", &self.report),
            ("version", &version),
            ("replaces", &self.replaces),
        ];
        let all = words.into_iter().filter(|(_, value)| !value.is_empty());
        envelope.flags = all.map(|(word, value)| peer_text(&format!("{word}={value}"))).collect();
    }

    /// Reads them from an envelope; what is not there stays empty.
    pub fn of(envelope: &Envelope) -> Self {
        let mut facts = Self::default();
        for flag in &envelope.flags {
            match flag.split_once('=') {
                Some(("status", value)) => value.clone_into(&mut facts.status),
                Some(("report", value)) => value.clone_into(&mut facts.report),
                Some(("version", value)) => facts.version = value.parse().unwrap_or(0),
                Some(("replaces", value)) => value.clone_into(&mut facts.replaces),
                _ => {}
            }
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo::{CargoKind, Identity, Sha256};
    use crate::clock::Timestamp;

    #[test]
    fn what_is_written_into_an_envelope_is_read_from_it() {
        let (origin, sha256) = ("a".parse().unwrap(), Sha256::of(b"x"));
        let identity = Identity { origin, key: "file-1.pdf".into(), sha256 };
        let mut envelope = Envelope::of_ours(CargoKind::Report, identity, 1, Timestamp(0));
        assert_eq!(ReportFacts::of(&envelope), ReportFacts::default());
        let facts = ReportFacts {
            status: "final".into(),
            report: "r=1".into(),
            version: 2,
            replaces: "reports/0/1.pdf".into(),
        };
        facts.write(&mut envelope);
        assert_eq!(ReportFacts::of(&envelope), facts);
        envelope.flags.push("an odd header".into());
        assert_eq!(ReportFacts::of(&envelope), facts);
    }
}
