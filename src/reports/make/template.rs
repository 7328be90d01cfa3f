//! Lines that a site writes itself, with places for what is known of a report: `{title} ({status})`.
//! Two braces stand for one: `{{`.

use std::fmt;
use std::str::FromStr;

/// Longest template, in bytes.
const TEMPLATE_LENGTH_MAX: usize = 1_000;

/// The places that there are.
pub(super) const PLACES: [&str; 16] = [
    "accession",
    "code",
    "filler",
    "modality",
    "number",
    "patient",
    "placer",
    "procedure",
    "reader",
    "requester",
    "signed",
    "source",
    "status",
    "study",
    "title",
    "written",
];

/// A line with places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    written: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(&'static str),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A place that there is not.
    #[error("there is no {{{place}}}; there are {}", PLACES.join(", "))]
    Place {
        /// What stands between the braces.
        place: String,
    },
    /// An opening brace without its partner, or the other way round.
    #[error("a brace stands alone: write {{{{ or }}}} for one")]
    Brace,
    /// Too long.
    #[error("it has more than {TEMPLATE_LENGTH_MAX} bytes")]
    TooLong,
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(written: &str) -> Result<Self, TemplateError> {
        if written.len() > TEMPLATE_LENGTH_MAX {
            return Err(TemplateError::TooLong);
        }
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = written;
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                text.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) = rest.split_once('}').ok_or(TemplateError::Brace)?;
            if brace == "}" || name.contains('{') {
                return Err(TemplateError::Brace);
            }
            let known = PLACES.iter().find(|place| **place == name);
            let place = *known.ok_or_else(|| TemplateError::Place { place: name.to_owned() })?;
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(Piece::Place(place));
            rest = after;
        }
        text.push_str(rest);
        pieces.push(Piece::Text(text));
        Ok(Self { written: written.to_owned(), pieces })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Template {
    /// The line, with what `fact` says of each place.
    pub(super) fn fill(&self, fact: impl Fn(&str) -> String) -> String {
        let one = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Place(place) => fact(place),
        };
        self.pieces.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, TemplateError> {
        Ok(text.parse::<Template>()?.fill(|place| format!("<{place}>")))
    }

    #[test]
    fn places_are_filled_and_what_is_no_place_is_refused_by_name() {
        assert_eq!(
            filled("{title}: {{{status}}} 読影 {reader}").unwrap(),
            "<title>: {<status>} 読影 <reader>"
        );
        assert_eq!(filled("").unwrap(), "");
        assert_eq!(filled("{nobody}"), Err(TemplateError::Place { place: "nobody".into() }));
        for lonely in ["{", "}", "{title", "title}", "{a{title}"] {
            assert_eq!(filled(lonely), Err(TemplateError::Brace), "{lonely}");
        }
        assert_eq!(filled(&"x".repeat(1_001)), Err(TemplateError::TooLong));
    }
}
