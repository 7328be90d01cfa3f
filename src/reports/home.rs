//! In which forms a destination gets a version, given the forms in which it came.
//!
//! What came is sent as it came, where the destination takes it: nothing is made anew that somebody
//! has written. Otherwise the nearest form is made: pages from text, text from a structured report,
//! a document around a PDF. The narrative of a CDA document has become text when it arrived. A PDF is
//! never turned into text: reading it back would be a guess. What cannot be made is told, with what is
//! sent in its place where that says the same.

use std::collections::BTreeSet;

use serde::Serialize;

use super::report::{FormKind, Status};

/// What a destination takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Want {
    /// ORU^R01 with text, and a PDF where there is one.
    Message,
    /// ORU^R01 with text alone: the receiver takes no documents.
    MessageText,
    /// A structured report (SR) for the PACS.
    Structured,
    /// An Encapsulated PDF for the PACS.
    Pdf,
    /// Files in a folder: whatever there is, and pages.
    Files,
}

/// Where a part comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// It came like this, and goes on as it is.
    Received(FormKind),
    /// Set as pages from the text.
    PagesOfText,
    /// The text that a form says: of a structured report its flattened tree.
    TextOf(FormKind),
    /// A new document around this form.
    Around(FormKind),
    /// A new structured report that says the text.
    StructuredOfText,
    /// A sentence that names what is attached: there is a document and no text.
    SeeAttached,
}

/// One thing to make and send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "part")]
pub enum Part {
    /// ORU^R01: its text, and the PDF in it.
    Message {
        /// The text.
        text: Source,
        /// The PDF, if one goes along.
        pdf: Option<Source>,
    },
    /// A DICOM instance.
    Instance {
        /// A structured report, else an encapsulated document.
        structured: bool,
        /// Where it comes from.
        from: Source,
    },
    /// A file.
    File {
        /// What it is.
        kind: FormKind,
        /// Where it comes from.
        from: Source,
    },
}

/// Why a wish is not fulfilled as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lack {
    /// There is no text: the message says what is attached, or nothing can be said.
    NoText,
    /// There is nothing that could be shown to a person.
    Nothing,
}

/// What goes to a destination.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In this order.
    pub parts: Vec<Part>,
    /// What is lacking; a person should know where parts are missing because of it.
    pub lacks: BTreeSet<Lack>,
}

/// What goes to a destination that wants `wants`, of a version that came in these forms.
/// `makes_pages`: whether a PDF may be made of a text.
pub fn plan(
    forms: &BTreeSet<FormKind>,
    status: Status,
    wants: &BTreeSet<Want>,
    makes_pages: bool,
) -> Plan {
    let mut plan = Plan::default();
    let has = |kind| forms.contains(&kind);
    let text = if has(FormKind::Text) {
        Some(Source::Received(FormKind::Text))
    } else if has(FormKind::Structured) {
        Some(Source::TextOf(FormKind::Structured))
    } else {
        None
    };
    let pages = (makes_pages && text.is_some()).then_some(Source::PagesOfText);
    let pdf = if has(FormKind::Pdf) { Some(Source::Received(FormKind::Pdf)) } else { pages };
    // A withdrawal is told by its status; what it withdraws need not be said again.
    let said = text.or((status == Status::Cancelled).then_some(Source::SeeAttached));
    for want in wants {
        match want {
            Want::Message | Want::MessageText => {
                let pdf = (*want == Want::Message && has(FormKind::Pdf))
                    .then_some(Source::Received(FormKind::Pdf));
                match said.or(pdf.map(|_| Source::SeeAttached)) {
                    Some(text) => plan.parts.push(Part::Message { text, pdf }),
                    None => drop(plan.lacks.insert(Lack::NoText)),
                }
                if text.is_none() && pdf.is_some() {
                    plan.lacks.insert(Lack::NoText);
                }
            }
            Want::Structured => {
                let from = if has(FormKind::Structured) {
                    Some(Source::Received(FormKind::Structured))
                } else {
                    said.map(|_| Source::StructuredOfText)
                };
                match from {
                    Some(from) => plan.parts.push(Part::Instance { structured: true, from }),
                    None => drop(plan.lacks.insert(Lack::NoText)),
                }
            }
            Want::Pdf => {
                let from = if has(FormKind::Encapsulated) {
                    Some(Source::Received(FormKind::Encapsulated))
                } else if has(FormKind::Pdf) {
                    Some(Source::Around(FormKind::Pdf))
                } else if pages.is_some() {
                    Some(Source::PagesOfText)
                } else if has(FormKind::Cda) {
                    Some(Source::Around(FormKind::Cda))
                } else {
                    None
                };
                match from {
                    Some(from) => plan.parts.push(Part::Instance { structured: false, from }),
                    None => drop(plan.lacks.insert(Lack::Nothing)),
                }
            }
            Want::Files => {
                let file = |kind, from| Part::File { kind, from };
                plan.parts.extend(pdf.map(|from| file(FormKind::Pdf, from)));
                plan.parts.extend(text.map(|from| file(FormKind::Text, from)));
                if has(FormKind::Cda) {
                    plan.parts.push(file(FormKind::Cda, Source::Received(FormKind::Cda)));
                }
                if pdf.is_none() && text.is_none() && !has(FormKind::Cda) {
                    plan.lacks.insert(Lack::Nothing);
                }
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Want; 5] =
        [Want::Message, Want::MessageText, Want::Structured, Want::Pdf, Want::Files];

    fn planned(forms: &[FormKind], want: Want) -> Plan {
        let forms = forms.iter().copied().collect();
        plan(&forms, Status::Final, &[want].into(), true)
    }

    #[test]
    fn what_came_goes_on_as_it_is_and_what_is_wanted_besides_is_made_of_it() {
        use FormKind::{Encapsulated, Pdf, Structured, Text};
        let instance = |structured, from| vec![Part::Instance { structured, from }];
        let received = |kind| Source::Received(kind);
        for (forms, want, parts) in [
            (&[Text][..], Want::Structured, instance(true, Source::StructuredOfText)),
            (&[Structured], Want::Structured, instance(true, received(Structured))),
            (&[Text], Want::Pdf, instance(false, Source::PagesOfText)),
            (&[Text, Pdf], Want::Pdf, instance(false, Source::Around(Pdf))),
            (&[Pdf, Encapsulated], Want::Pdf, instance(false, received(Encapsulated))),
            (&[Structured], Want::Pdf, instance(false, Source::PagesOfText)),
            (
                &[Text, Pdf],
                Want::Message,
                vec![Part::Message { text: received(Text), pdf: Some(received(Pdf)) }],
            ),
            (
                &[Structured, Pdf],
                Want::MessageText,
                vec![Part::Message { text: Source::TextOf(Structured), pdf: None }],
            ),
            (
                &[Text],
                Want::Files,
                vec![
                    Part::File { kind: Pdf, from: Source::PagesOfText },
                    Part::File { kind: Text, from: received(Text) },
                ],
            ),
        ] {
            let plan = planned(forms, want);
            assert_eq!((&plan.parts, plan.lacks.len()), (&parts, 0), "{forms:?} {want:?}");
        }
    }

    #[test]
    fn a_pdf_is_never_turned_into_text_and_what_lacks_is_told() {
        let plan = planned(&[FormKind::Pdf], Want::Message);
        let pdf = Some(Source::Received(FormKind::Pdf));
        assert_eq!(plan.parts, [Part::Message { text: Source::SeeAttached, pdf }]);
        assert!(plan.lacks.contains(&Lack::NoText));
        let plan = planned(&[FormKind::Pdf], Want::Structured);
        assert!(plan.parts.is_empty() && plan.lacks.contains(&Lack::NoText));
        let plan = planned(&[FormKind::Pdf], Want::MessageText);
        assert!(plan.parts.is_empty() && plan.lacks.contains(&Lack::NoText));
    }

    #[test]
    fn whatever_came_every_wish_gets_something_or_is_told_to_lack_it() {
        use FormKind::{Cda, Encapsulated, Message, Pdf, Structured, Text};
        let kinds = [Text, Pdf, Cda, Structured, Encapsulated, Message];
        for bits in 0..1_u32 << kinds.len() {
            let forms: BTreeSet<FormKind> = kinds
                .iter()
                .enumerate()
                .filter(|(n, _)| bits >> n & 1 == 1)
                .map(|(_, k)| *k)
                .collect();
            for want in ALL {
                for makes_pages in [true, false] {
                    let plan = plan(&forms, Status::Final, &[want].into(), makes_pages);
                    assert!(!plan.parts.is_empty() || !plan.lacks.is_empty(), "{forms:?} {want:?}");
                    let invented = |from: Source| match from {
                        Source::Received(kind) | Source::TextOf(kind) | Source::Around(kind) => {
                            !forms.contains(&kind)
                        }
                        _ => false,
                    };
                    for part in &plan.parts {
                        let wrong = match part {
                            Part::Message { text, pdf } => {
                                invented(*text) || pdf.is_some_and(invented)
                            }
                            Part::Instance { from, .. } | Part::File { from, .. } => {
                                invented(*from)
                            }
                        };
                        assert!(!wrong, "{part:?} of {forms:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_withdrawal_is_told_even_without_a_word_of_text() {
        let plan = plan(&BTreeSet::new(), Status::Cancelled, &[Want::Message].into(), true);
        assert_eq!(plan.parts, [Part::Message { text: Source::SeeAttached, pdf: None }]);
    }
}
