//! What a destination is to get of a version, told apart so that nothing is handed on twice. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{DocumentRecord, Fate, Sending};
use crate::cargo::{DestinationName, Hasher, Sha256};
use crate::reports::home::{self, Lack, Part, Source};
use crate::reports::make::{Before, Home};
use crate::reports::report::{FormKind, Report, Status};

/// A part that a destination is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) part: Part,
    /// Made of what it is made of, and for whom: the same part is not handed on twice.
    pub(super) digest: Sha256,
}

/// The forms of a version: of each kind the digest of the last document that brings it. Not that of
/// its bytes: a correction may bring back what an earlier version said, and goes on as its own.
pub(super) fn forms(documents: &[DocumentRecord]) -> BTreeMap<FormKind, Sha256> {
    let said = || documents.iter().filter_map(|doc| Some((doc.digest, doc.said.as_ref()?)));
    let of = |is_derived: bool, brings: fn(&Report) -> bool| {
        let some = said().filter(move |(_, said)| brings(said));
        let all = some.flat_map(|(digest, said)| said.forms.iter().map(move |f| (f, digest)));
        all.filter(move |(form, _)| form.is_derived == is_derived).map(|(f, d)| (f.kind, d))
    };
    // What a CDA document says itself goes for received, where nothing else brings it. That of a
    // structured report is told out of it.
    let narrated = of(true, |said| said.form(FormKind::Cda).is_some());
    narrated.chain(of(false, |_| true)).collect()
}

/// The same of an addendum: its text is told behind that of the versions before it, so it is
/// another one when one of these is.
pub(super) fn with_added(forms: &mut BTreeMap<FormKind, Sha256>, before: &[Vec<DocumentRecord>]) {
    let Some(own) = forms.get(&FormKind::Text).copied() else { return };
    let mut hasher = Hasher::new();
    for version in before {
        let had = self::forms(version);
        let text = had.get(&FormKind::Text).or(had.get(&FormKind::Structured));
        text.iter().for_each(|digest| hasher.update(&digest.0));
    }
    if !before.is_empty() {
        hasher.update(&own.0);
        forms.insert(FormKind::Text, hasher.finish());
    }
}

fn kinds(part: &Part) -> Vec<FormKind> {
    let kind = |source: &Source| match source {
        Source::Received(kind) | Source::TextOf(kind) | Source::Around(kind) => Some(*kind),
        Source::PagesOfText | Source::StructuredOfText => Some(FormKind::Text),
        Source::SeeAttached => None,
    };
    match part {
        Part::Message { text, pdf } => {
            [Some(text), pdf.as_ref()].into_iter().flatten().filter_map(kind).collect()
        }
        Part::Instance { from, .. } | Part::File { from, .. } => kind(from).into_iter().collect(),
    }
}

/// What a destination is to get of a version with these forms; and what of it cannot be given.
pub(super) fn wishes(
    (report, destination): (&str, &DestinationName),
    home: &Home,
    (forms, status, documents): (&BTreeMap<FormKind, Sha256>, Status, &[Sha256]),
) -> (Vec<Wish>, BTreeSet<Lack>) {
    if status == Status::Preliminary && !home.preliminary {
        return (Vec::new(), BTreeSet::new());
    }
    let have: BTreeSet<FormKind> = forms.keys().copied().collect();
    let plan = home::plan(&have, status, &home.wants, home.makes_pages);
    let wish = |part: Part| {
        let mut hasher = Hasher::new();
        for text in [report, destination.as_str(), &format!("{part:?} {status:?}")] {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        let kinds = kinds(&part);
        let mut used: Vec<&Sha256> = kinds.iter().filter_map(|kind| forms.get(kind)).collect();
        // Pages of a structured report are made of its text.
        if used.is_empty() {
            used.extend(documents);
        }
        used.iter().for_each(|digest| hasher.update(&digest.0));
        Wish { part, digest: hasher.finish() }
    };
    (plan.parts.into_iter().map(wish).collect(), plan.lacks)
}

/// What a destination has of a report so far, the last of the same kind: a new one replaces it.
pub(super) fn before(sendings: &[Sending], to: &DestinationName, part: &Part) -> Option<Before> {
    let Part::Instance { structured, .. } = part else { return None };
    let of_kind = |s: &&Sending| s.class.starts_with("1.2.840.10008.5.1.4.1.1.88.") == *structured;
    let had = sendings.iter().rev().filter(|s| {
        s.destination == *to && !s.class.is_empty() && matches!(s.fate, Fate::Yes(..) | Fate::Open)
    });
    had.into_iter().find(of_kind).map(|s| Before {
        uid: s.uid.clone(),
        series: s.series.clone(),
        class: s.class.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::remembered;
    use super::*;
    use crate::clock::Timestamp;
    use crate::reports::home::Want;
    use crate::reports::report::Form;
    use crate::reports::report::tests::report;

    fn home(wants: &[Want]) -> Home {
        Home { wants: wants.iter().copied().collect(), ..Home::default() }
    }

    fn digests(home: &Home, forms: &[(FormKind, u8)], status: Status) -> Vec<Sha256> {
        let to = "his".parse().unwrap();
        let forms = forms.iter().map(|(kind, n)| (*kind, Sha256([*n; 32]))).collect();
        let (wishes, _) = wishes(("r", &to), home, (&forms, status, &[Sha256([9; 32])]));
        wishes.into_iter().map(|wish| wish.digest).collect()
    }

    #[test]
    fn a_part_is_new_when_what_it_is_made_of_is_and_not_when_another_form_comes() {
        use FormKind::{Pdf, Text};
        let text_only = home(&[Want::MessageText]);
        let one = digests(&text_only, &[(Text, 1)], Status::Final);
        assert_eq!(one, digests(&text_only, &[(Text, 1), (Pdf, 2)], Status::Final));
        assert_ne!(one, digests(&text_only, &[(Text, 3)], Status::Final));
        assert_ne!(one, digests(&text_only, &[(Text, 1)], Status::Corrected));
        let with_pdf = home(&[Want::Message]);
        assert_ne!(
            digests(&with_pdf, &[(Text, 1)], Status::Final),
            digests(&with_pdf, &[(Text, 1), (Pdf, 2)], Status::Final)
        );
    }

    #[test]
    fn a_correction_back_to_the_words_of_an_earlier_version_is_a_part_of_its_own() {
        let document = |id: &str, text: &str| {
            let form = Form::new(FormKind::Text, text.into());
            let mut said = report(Status::Corrected, form);
            said.ids.document = id.into();
            let sha256 = Sha256::of(&said.encode());
            DocumentRecord {
                cargo: Some(1),
                digest: said.digest(),
                said: remembered(&said).map(Box::new),
                ..DocumentRecord::new(sha256, &"reading".parse().unwrap(), Timestamp(0))
            }
        };
        let digest = |id: &str, text: &str| {
            let forms = forms(&[document(id, text)]);
            let to = "his".parse().unwrap();
            let home = home(&[Want::MessageText]);
            wishes(("r", &to), &home, (&forms, Status::Corrected, &[])).0[0].digest
        };
        assert_ne!(digest("1", "a"), digest("2", "b"));
        assert_ne!(digest("1", "a"), digest("3", "a"));
        assert_eq!(digest("1", "a"), digest("1", "a"));
    }

    #[test]
    fn the_narrative_of_a_cda_document_is_told_where_no_text_was_sent() {
        use FormKind::{Cda, Structured, Text};
        let document = |kind, with: Form| {
            let mut said = report(Status::Final, Form::new(kind, b"<a/>".to_vec()));
            said.forms.push(with);
            DocumentRecord {
                digest: said.digest(),
                said: remembered(&said).map(Box::new),
                ..DocumentRecord::new(said.digest(), &"reading".parse().unwrap(), Timestamp(0))
            }
        };
        let text = || Form::new(Text, b"words".to_vec());
        let narrated = document(Cda, text().derived());
        let flattened = document(Structured, text().derived());
        let sent = document(Text, text());
        assert_eq!(forms(std::slice::from_ref(&narrated)).get(&Text), Some(&narrated.digest));
        assert_eq!(forms(&[sent.clone(), narrated]).get(&Text), Some(&sent.digest));
        assert_eq!(forms(&[flattened]).get(&Text), None);
    }

    #[test]
    fn who_wants_no_preliminary_reports_gets_none() {
        let mut home = home(&[Want::Message]);
        home.preliminary = false;
        assert!(digests(&home, &[(FormKind::Text, 1)], Status::Preliminary).is_empty());
        assert_eq!(digests(&home, &[(FormKind::Text, 1)], Status::Final).len(), 1);
    }
}
