//! The data types of fields that orders and patients are made of (HL7 2.5 chapter 2A), as far as
//! this node uses them: components that it does not know are not kept here (the message has them).
//!
//! Blanks around a component are padding and are dropped; those within stay, the ideographic blank
//! everywhere.

use super::escape::escape;
use super::message::{Delimiters, Piece};

/// Text of a component, without padding.
pub(super) fn value(piece: Piece<'_>) -> String {
    piece.text().trim_matches(' ').to_owned()
}

/// Reads every repetition that says something.
pub(super) fn all<T: Default + PartialEq>(
    field: Piece<'_>,
    read: impl Fn(Piece<'_>) -> T,
) -> Vec<T> {
    field.repetitions().map(read).filter(|item| *item != T::default()).collect()
}

/// Components as they are written, empty ones at the end left out.
pub(super) fn components(parts: &[String], delimiters: &Delimiters) -> String {
    join(parts, delimiters.component)
}

/// Repetitions as they are written.
pub(super) fn repetitions<T>(items: &[T], d: &Delimiters, write: impl Fn(&T) -> String) -> String {
    join(&items.iter().map(write).collect::<Vec<_>>(), d.repetition)
}

fn join(parts: &[String], delimiter: char) -> String {
    let used = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
    parts[..used].join(delimiter.encode_utf8(&mut [0; 4]))
}

/// A text as it is written.
pub(super) fn escaped(text: &str, delimiters: &Delimiters) -> String {
    let mut raw = String::with_capacity(text.len());
    escape(&mut raw, text, delimiters);
    raw
}

fn texts(parts: &[&str], delimiters: &Delimiters) -> Vec<String> {
    parts.iter().map(|part| escaped(part, delimiters)).collect()
}

/// Who gives out an identifier: HD (2.A.33), and the last three components of EI.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Authority {
    /// Namespace ID: a local name.
    pub namespace: String,
    /// Universal ID, for example an OID.
    pub universal_id: String,
    /// What kind of universal ID it is: `ISO`, `DNS`, `UUID`, ...
    pub universal_id_type: String,
}

impl Authority {
    fn read(parts: [Piece<'_>; 3]) -> Self {
        let [namespace, universal_id, universal_id_type] = parts.map(value);
        Self { namespace, universal_id, universal_id_type }
    }

    /// A component (HD within CX, XCN).
    fn of_component(piece: Piece<'_>) -> Self {
        Self::read([1, 2, 3].map(|n| piece.subcomponent(n)))
    }

    fn parts(&self) -> [&str; 3] {
        [&self.namespace, &self.universal_id, &self.universal_id_type]
    }

    fn as_component(&self, delimiters: &Delimiters) -> String {
        join(&texts(&self.parts(), delimiters), delimiters.subcomponent)
    }
}

/// An order number or other identifier: EI (2.A.28).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Identifier {
    /// The identifier.
    pub id: String,
    /// Who gave it out.
    pub issuer: Authority,
}

impl Identifier {
    pub(super) fn read(piece: Piece<'_>) -> Self {
        Self {
            id: value(piece.component(1)),
            issuer: Authority::read([2, 3, 4].map(|n| piece.component(n))),
        }
    }

    /// EI as a component, of EIP (2.A.29).
    pub(super) fn of_component(piece: Piece<'_>) -> Self {
        Self {
            id: value(piece.subcomponent(1)),
            issuer: Authority::read([2, 3, 4].map(|n| piece.subcomponent(n))),
        }
    }

    fn parts(&self, delimiters: &Delimiters) -> Vec<String> {
        let [namespace, universal_id, kind] = self.issuer.parts();
        texts(&[&self.id, namespace, universal_id, kind], delimiters)
    }

    pub(super) fn write(&self, delimiters: &Delimiters) -> String {
        components(&self.parts(delimiters), delimiters)
    }

    pub(super) fn as_component(&self, delimiters: &Delimiters) -> String {
        join(&self.parts(delimiters), delimiters.subcomponent)
    }

    /// Whether nothing identifies.
    pub fn is_empty(&self) -> bool {
        self.id.is_empty()
    }
}

/// A patient's or visit's identifier: CX (2.A.14).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PatientIdentifier {
    /// The identifier.
    pub id: String,
    /// Assigning authority (CX.4): who gave it out.
    pub authority: Authority,
    /// Identifier type code (CX.5, table 0203): `PI`, `MR`, ...
    pub type_code: String,
}

impl PatientIdentifier {
    pub(super) fn read(piece: Piece<'_>) -> Self {
        Self {
            id: value(piece.component(1)),
            authority: Authority::of_component(piece.component(4)),
            type_code: value(piece.component(5)),
        }
    }

    pub(super) fn write(&self, d: &Delimiters) -> String {
        let none = String::new;
        let authority = self.authority.as_component(d);
        let parts = [escaped(&self.id, d), none(), none(), authority, escaped(&self.type_code, d)];
        components(&parts, d)
    }
}

/// A name in one way of writing it: XPN (2.A.88).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Name {
    /// Surname (FN.1).
    pub family: String,
    /// Given name.
    pub given: String,
    /// Second and further given names.
    pub middle: String,
    /// Suffix.
    pub suffix: String,
    /// Prefix.
    pub prefix: String,
    /// Name type code (table 0200): `L` legal, `M` maiden, ...
    pub type_code: String,
    /// How it is written (XPN.8, table 0465): `I` ideographic, `A` alphabetic, `P` phonetic
    /// (kana).
    pub representation: String,
}

impl Name {
    pub(super) fn read(piece: Piece<'_>) -> Self {
        let [given, middle, suffix, prefix, type_code, representation] =
            [2, 3, 4, 5, 7, 8].map(|n| value(piece.component(n)));
        let family = value(piece.component(1).subcomponent(1));
        Self { family, given, middle, suffix, prefix, type_code, representation }
    }

    pub(super) fn write(&self, delimiters: &Delimiters) -> String {
        let parts = [
            &self.family,
            &self.given,
            &self.middle,
            &self.suffix,
            &self.prefix,
            "",
            &self.type_code,
            &self.representation,
        ];
        components(&texts(&parts, delimiters), delimiters)
    }
}

/// A physician or other person: XCN (2.A.86).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Person {
    /// ID number.
    pub id: String,
    /// Assigning authority of the number (XCN.9).
    pub authority: Authority,
    /// The name; [`Name::type_code`] is XCN.10, [`Name::representation`] XCN.15.
    pub name: Name,
}

impl Person {
    pub(super) fn read(piece: Piece<'_>) -> Self {
        let [id, given, middle, suffix, prefix, type_code, representation] =
            [1, 3, 4, 5, 6, 10, 15].map(|n| value(piece.component(n)));
        let family = value(piece.component(2).subcomponent(1));
        let name = Name { family, given, middle, suffix, prefix, type_code, representation };
        Self { id, authority: Authority::of_component(piece.component(9)), name }
    }

    pub(super) fn write(&self, delimiters: &Delimiters) -> String {
        let name = &self.name;
        let before = [&self.id, &name.family, &name.given, &name.middle, &name.suffix];
        let mut parts = texts(&before.map(String::as_str), delimiters);
        parts.push(escaped(&name.prefix, delimiters));
        parts.resize(8, String::new());
        parts.push(self.authority.as_component(delimiters));
        parts.push(escaped(&name.type_code, delimiters));
        parts.resize(14, String::new());
        parts.push(escaped(&name.representation, delimiters));
        components(&parts, delimiters)
    }
}

/// A code with its meaning: CE (2.A.12), CWE (2.A.13).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Coded {
    /// Identifier.
    pub id: String,
    /// Text.
    pub text: String,
    /// Coding system: `JJ1017`, `L`, ...
    pub system: String,
    /// Alternate identifier.
    pub alternate_id: String,
    /// Alternate text.
    pub alternate_text: String,
    /// Alternate coding system.
    pub alternate_system: String,
}

impl Coded {
    pub(super) fn read(piece: Piece<'_>) -> Self {
        let [id, text, system, alternate_id, alternate_text, alternate_system] =
            [1, 2, 3, 4, 5, 6].map(|n| value(piece.component(n)));
        Self { id, text, system, alternate_id, alternate_text, alternate_system }
    }

    pub(super) fn write(&self, delimiters: &Delimiters) -> String {
        let parts = [
            &self.id,
            &self.text,
            &self.system,
            &self.alternate_id,
            &self.alternate_text,
            &self.alternate_system,
        ];
        components(&texts(&parts.map(String::as_str), delimiters), delimiters)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What to show a person: the text, or the code where there is none.
    pub fn shown(&self) -> &str {
        [&self.text, &self.alternate_text, &self.id]
            .into_iter()
            .find(|text| !text.is_empty())
            .map_or("", String::as_str)
    }
}

/// A telephone number or address as one text: XTN (2.A.89). Written as XTN.12, unformatted.
pub(super) fn telecommunication(piece: Piece<'_>) -> String {
    let [whole, address, country, area, number, unformatted] =
        [1, 4, 5, 6, 7, 12].map(|n| value(piece.component(n)));
    let parts: Vec<String> =
        [country, area, number].into_iter().filter(|part| !part.is_empty()).collect();
    let texts = [unformatted, whole, parts.join("-"), address];
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// XTN of a text.
pub(super) fn write_telecommunication(text: &str, delimiters: &Delimiters) -> String {
    let mut parts = vec![String::new(); 11];
    parts.push(escaped(text, delimiters));
    components(&parts, delimiters)
}
