//! Names of places in a message: `OBR-4.2` by which configuration names a field, and the location
//! that an ERR segment tells (HL7 2.5 2.15.5, ERL).

use std::fmt;
use std::str::FromStr;

/// Highest field, repetition, component or subcomponent number that a path may name.
pub const NUMBER_MAX: u16 = 999;

/// A field, or a part of one: `OBR-18`, `OBR-4.2`, `PID-3[2].4.1`.
///
/// Counted from one as the standard does. Without a repetition it is the first; without a
/// component the first, which is what a receiver reads of a field that grew components after its
/// time (HL7 2.8.2); without a subcomponent the whole component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    segment: String,
    field: u16,
    repetition: Option<u16>,
    component: Option<u16>,
    subcomponent: Option<u16>,
}

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no field; write SEGMENT-FIELD, such as OBR-18, OBR-4.2 or PID-3[2].4.1")]
pub struct PathError(String);

impl Path {
    /// The segment's name.
    pub fn segment(&self) -> &str {
        &self.segment
    }

    /// The field's number.
    pub fn field(&self) -> u16 {
        self.field
    }

    /// The repetition.
    pub fn repetition(&self) -> u16 {
        self.repetition.unwrap_or(1)
    }

    /// The component.
    pub fn component(&self) -> u16 {
        self.component.unwrap_or(1)
    }

    /// The subcomponent, when one is named.
    pub fn subcomponent(&self) -> Option<u16> {
        self.subcomponent
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(s: &str) -> Result<Self, PathError> {
        read(s.trim()).ok_or_else(|| PathError(s.chars().take(40).collect()))
    }
}

fn read(s: &str) -> Option<Path> {
    let (segment, rest) = s.split_once('-')?;
    if !is_segment_name(segment) {
        return None;
    }
    let mut parts = rest.split('.');
    let (field, repetition) = match parts.next()?.split_once('[') {
        None => (rest.split('.').next()?, None),
        Some((field, repetition)) => (field, Some(number(repetition.strip_suffix(']')?)?)),
    };
    let component = parts.next().map(number);
    let subcomponent = parts.next().map(number);
    let ends = parts.next().is_none();
    ends.then_some(())?;
    Some(Path {
        segment: segment.to_ascii_uppercase(),
        field: number(field)?,
        repetition,
        component: transpose(component)?,
        subcomponent: transpose(subcomponent)?,
    })
}

/// Nothing where nothing was written, an end where something wrong was.
fn transpose(written: Option<Option<u16>>) -> Option<Option<u16>> {
    match written {
        Some(None) => None,
        Some(number) => Some(number),
        None => Some(None),
    }
}

fn number(s: &str) -> Option<u16> {
    let digits = s.bytes().all(|b| b.is_ascii_digit());
    s.parse().ok().filter(|n| digits && (1..=NUMBER_MAX).contains(n))
}

/// Whether `name` can name a segment: three letters or digits, a letter first (HL7 2.5.2).
pub(super) fn is_segment_name(name: &str) -> bool {
    name.len() == 3
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
        && name.as_bytes()[0].is_ascii_alphabetic()
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.segment, self.field)?;
        if let Some(repetition) = self.repetition {
            write!(f, "[{repetition}]")?;
        }
        if let Some(component) = self.component {
            write!(f, ".{component}")?;
        }
        if let Some(subcomponent) = self.subcomponent {
            write!(f, ".{subcomponent}")?;
        }
        Ok(())
    }
}

/// A place in a message, as ERR tells it (HL7 2.15.5.2): `PID^1^3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    /// The segment's name.
    pub segment: String,
    /// Which of the segments of that name, from one.
    pub sequence: usize,
    /// The field; none when the segment is what is missing or wrong.
    pub field: Option<u16>,
    /// The component of the field, where that is known.
    pub component: Option<u16>,
}

impl Location {
    /// A segment.
    pub fn segment(segment: &str, sequence: usize) -> Self {
        Self { segment: segment.to_owned(), sequence, field: None, component: None }
    }

    /// A field.
    pub fn field(segment: &str, sequence: usize, field: u16) -> Self {
        Self { field: Some(field), ..Self::segment(segment, sequence) }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}^{}", self.segment, self.sequence)?;
        if let Some(field) = self.field {
            write!(f, "^{field}")?;
        }
        if let Some(component) = self.component {
            write!(f, "^1^{component}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_and_written_as_configuration_has_it() {
        for text in ["OBR-18", "OBR-4.2", "PID-3[2].4.1", "ZDS-1", "IPC-1.1"] {
            assert_eq!(text.parse::<Path>().unwrap().to_string(), text);
        }
        let path: Path = " pid-3[2].4 ".parse().unwrap();
        assert_eq!((path.segment(), path.field(), path.repetition()), ("PID", 3, 2));
        assert_eq!((path.component(), path.subcomponent()), (4, None));
    }

    #[test]
    fn what_names_no_field_is_refused_with_an_example() {
        for bad in [
            "",
            "OBR",
            "OBR-",
            "OBR-0",
            "OBR-1000",
            "OB-1",
            "1BR-1",
            "OBR-1.",
            "OBR-1.0",
            "OBR-1.2.3.4",
            "OBR-1[]",
            "OBR-1[2",
            "OBR-+1",
            "OBR--1",
            "OBR-1.a",
            "骨-1",
            "OBR-1]",
        ] {
            let error = bad.parse::<Path>().expect_err(bad).to_string();
            assert!(error.contains("OBR-4.2"), "{error}");
        }
    }
}
