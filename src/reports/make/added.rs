//! An addendum that brings only its own text, together with what it adds to: who gets it gets the
//! whole text, and the former one is not lost in its place.

use super::said;
use crate::reports::report::{Form, FormKind, Report};

/// Words before what was added, where the addendum does not say so itself.
const HEADINGS: (&str, &str) = ("Addendum", "追記");

/// `last`, an addendum, with the text of the versions before it, the oldest first: the last whole
/// one, and the addenda to it. Documents of those stay what they are; they are not sent again as
/// if they had the addendum. Without a text before it, or of its own, it stays as it is.
pub fn added(before: &[Report], last: Report) -> Report {
    let Some(own) = said::text_of(&last) else { return last };
    let mut parts: Vec<String> = Vec::new();
    for report in before {
        let Some(text) = said::text_of(report) else { continue };
        parts.push(if parts.is_empty() { text } else { headed(report, text) });
    }
    if parts.is_empty() {
        return last;
    }
    parts.push(headed(&last, own));
    let text = Form::new(FormKind::Text, parts.join("\n\n").into_bytes()).derived();
    let mut forms = vec![text];
    let others = last.forms.into_iter();
    forms.extend(others.filter(|f| !matches!(f.kind, FormKind::Text | FormKind::Structured)));
    Report { forms, ..last }
}

/// A message names what was added in its text; a file or a call does not.
fn headed(report: &Report, text: String) -> String {
    if report.form(FormKind::Message).is_some() {
        return text;
    }
    let heading = if report.language.starts_with("ja") { HEADINGS.1 } else { HEADINGS.0 };
    format!("{heading}\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::report::Status;
    use crate::reports::report::tests::report;

    fn text(text: &str) -> Report {
        report(Status::Corrected, Form::new(FormKind::Text, text.into()))
    }

    #[test]
    fn an_addendum_is_told_behind_all_that_it_adds_to() {
        let mut with_pdf = text("the report");
        with_pdf.forms.push(Form::new(FormKind::Pdf, b"%PDF".to_vec()));
        let all = added(&[with_pdf, text("first")], text("second"));
        assert_eq!(all.text(), Some("the report\n\n追記\nfirst\n\n追記\nsecond"));
        assert!(all.form(FormKind::Pdf).is_none(), "a PDF without the addendum is not sent as it");
        // A message has its own heading.
        let mut message = text("Findings, addendum\nlater");
        message.forms.push(Form::new(FormKind::Message, b"MSH".to_vec()));
        let all = added(&[text("the report")], message);
        assert_eq!(all.text(), Some("the report\n\nFindings, addendum\nlater"));
    }

    #[test]
    fn without_a_text_before_it_an_addendum_is_as_it_came() {
        let before = report(Status::Final, Form::new(FormKind::Pdf, b"%PDF".to_vec()));
        assert_eq!(added(&[before], text("later")), text("later"));
        assert_eq!(added(&[], text("later")), text("later"));
    }
}
