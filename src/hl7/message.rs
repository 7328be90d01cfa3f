//! A message as segments and fields (HL7 2.5 2.6), read, changed and written.
//!
//! Each field keeps its text as written, escape sequences and all; repetitions, components and
//! subcomponents are split when somebody asks. So writing a message that nobody changed gives back
//! what was read, but for its line ends: segments end in CR, as they must.
//!
//! Lenient: CRLF and LF end segments too (LF only where the name of a segment follows: some
//! senders leave line breaks in texts), empty lines are skipped, segment names may be lower case.
//! Not lenient: a line that is no segment, since what follows it cannot be trusted to belong where
//! it stands.

use std::borrow::Cow;

use super::escape::{escape, unescape};
use super::path::{Location, Path, is_segment_name};

/// Most segments of a message.
pub const SEGMENTS_MAX: usize = 16_384;

/// Most fields of a message, all segments together.
pub const FIELDS_MAX: usize = 262_144;

/// Most repetitions that are read of a field.
pub const REPETITIONS_MAX: usize = 64;

/// Most components that are listed of a repetition.
pub const COMPONENTS_MAX: usize = 64;

/// The characters that split a message (HL7 2.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delimiters {
    /// MSH-1.
    pub field: char,
    /// First of MSH-2.
    pub component: char,
    /// Second of MSH-2.
    pub repetition: char,
    /// Third of MSH-2.
    pub escape: char,
    /// Fourth of MSH-2.
    pub subcomponent: char,
}

impl Default for Delimiters {
    /// `|^~\&`, which the standard recommends and nearly everybody uses.
    fn default() -> Self {
        Self { field: '|', component: '^', repetition: '~', escape: '\\', subcomponent: '&' }
    }
}

impl Delimiters {
    /// Reads MSH-1 and MSH-2 of a text that begins with `MSH`. A fifth character of MSH-2 (HL7
    /// 2.7: truncation) is left alone.
    fn of(msh: &str) -> Option<Self> {
        let mut characters = msh.chars().skip(3);
        let field = characters.next()?;
        let ends = [field, '\r', '\n'];
        let two: Vec<char> = characters.take(6).take_while(|c| !ends.contains(c)).collect();
        let (&[component, repetition, escape, subcomponent], rest) = two.split_first_chunk()?;
        let mut all = vec![field];
        all.extend(&two);
        let distinct = (1..all.len()).all(|n| !all[n..].contains(&all[n - 1]));
        let signs = all.iter().all(char::is_ascii_punctuation);
        let fits = rest.len() <= 1 && distinct && signs;
        fits.then_some(Self { field, component, repetition, escape, subcomponent })
    }
}

/// Why a text is no message. All of them are for the sender's programmer: the same text will not
/// do better next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A batch or file (FHS, BHS); only single messages are taken.
    #[error("batches are not taken; send each message in a frame of its own")]
    Batch,
    /// It does not begin with MSH.
    #[error("a message begins with MSH")]
    NoHeader,
    /// MSH-1 and MSH-2 are not five different signs.
    #[error("MSH-1 and MSH-2 do not name five different delimiters")]
    Delimiters,
    /// A line that is no segment.
    #[error("line {line} does not begin with the name of a segment")]
    NotASegment {
        /// Counted from one, empty lines not counted.
        line: usize,
    },
    /// Another MSH: two messages in one frame.
    #[error("line {line} begins a second message")]
    SecondHeader {
        /// Counted from one, empty lines not counted.
        line: usize,
    },
    /// More than [`SEGMENTS_MAX`] segments or [`FIELDS_MAX`] fields.
    #[error("more than {SEGMENTS_MAX} segments or {FIELDS_MAX} fields")]
    TooLarge,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    delimiters: Delimiters,
    segments: Vec<Segment>,
}

/// A segment: its name, and its fields as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    name: String,
    /// The first is field 1; of MSH that is the separator itself.
    fields: Vec<String>,
}

impl Message {
    /// An empty message: MSH with the usual delimiters.
    pub fn new() -> Self {
        let mut msh = Segment::new("MSH");
        msh.put(1, "|".to_owned());
        msh.put(2, r"^~\&".to_owned());
        Self { delimiters: Delimiters::default(), segments: vec![msh] }
    }

    /// A message with these delimiters, which `msh` has already.
    pub(super) fn of(delimiters: Delimiters, msh: Segment) -> Self {
        Self { delimiters, segments: vec![msh] }
    }

    /// Splits a message.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        let mut message = Self::parse_header(text)?;
        let field = message.delimiters.field;
        let mut fields = message.segments[0].fields.len();
        for (n, line) in lines(text, field).enumerate().skip(1) {
            let line_number = n + 1;
            let segment = Segment::parse(line, field)
                .ok_or(MessageError::NotASegment { line: line_number })?;
            // A bare name has been seen at the end of test files, and says nothing.
            if segment.is("MSH") && !segment.fields.is_empty() {
                return Err(MessageError::SecondHeader { line: line_number });
            }
            fields += segment.fields.len();
            if message.segments.len() == SEGMENTS_MAX || fields > FIELDS_MAX {
                return Err(MessageError::TooLarge);
            }
            message.segments.push(segment);
        }
        Ok(message)
    }

    /// Reads MSH alone: enough to tell the sender what is wrong with the rest.
    pub fn parse_header(text: &str) -> Result<Self, MessageError> {
        if text.starts_with("FHS") || text.starts_with("BHS") {
            return Err(MessageError::Batch);
        }
        if !text.starts_with("MSH") {
            return Err(MessageError::NoHeader);
        }
        let delimiters = Delimiters::of(text).ok_or(MessageError::Delimiters)?;
        let line = lines(text, delimiters.field).next().ok_or(MessageError::NoHeader)?;
        let msh = Segment::parse(line, delimiters.field).ok_or(MessageError::NoHeader)?;
        if msh.fields.len() > FIELDS_MAX {
            return Err(MessageError::TooLarge);
        }
        Ok(Self { delimiters, segments: vec![msh] })
    }

    /// The text of the message; each segment ends in CR.
    pub fn write(&self) -> String {
        let mut text = String::new();
        for segment in &self.segments {
            text.push_str(&segment.name);
            // MSH-1 is the separator that stands after the name anyway.
            for field in segment.fields.iter().skip(usize::from(segment.is("MSH"))) {
                text.push(self.delimiters.field);
                text.push_str(field);
            }
            text.push('\r');
        }
        text
    }

    /// The delimiters.
    pub fn delimiters(&self) -> &Delimiters {
        &self.delimiters
    }

    /// MSH.
    pub fn header(&self) -> SegmentRef<'_> {
        SegmentRef { segment: &self.segments[0], delimiters: &self.delimiters, sequence: 1 }
    }

    pub(super) fn header_mut(&mut self) -> &mut Segment {
        &mut self.segments[0]
    }

    /// The segments in their order, MSH first.
    pub fn segments(&self) -> impl Iterator<Item = SegmentRef<'_>> {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        self.segments.iter().map(move |segment| {
            let known = counts.iter().position(|(name, _)| segment.is(name));
            // Whoever sends hundreds of names of segments learns no sequence of the last ones.
            let at = known.or_else(|| {
                counts.push((&segment.name, 0));
                (counts.len() <= 256).then_some(counts.len() - 1)
            });
            let sequence = at.map_or(1, |at| {
                counts[at].1 += 1;
                counts[at].1
            });
            counts.truncate(256);
            SegmentRef { segment, delimiters: &self.delimiters, sequence }
        })
    }

    /// The text at `path` of the first segment of that name; empty where there is none.
    pub fn text(&self, path: &Path) -> Cow<'_, str> {
        let segment = self.segments.iter().find(|s| s.is(path.segment()));
        segment.map_or(Cow::Borrowed(""), |segment| {
            SegmentRef { segment, delimiters: &self.delimiters, sequence: 1 }.text(path)
        })
    }

    /// Writes `text` at `path` of the first segment of that name, which is added at the end if
    /// there is none. MSH-1 and MSH-2 stay as they are.
    pub fn set(&mut self, path: &Path, text: &str) {
        if path.segment() == "MSH" && path.field() <= 2 {
            return;
        }
        let at = self.segments.iter().position(|s| s.is(path.segment())).unwrap_or_else(|| {
            self.segments.push(Segment::new(path.segment()));
            self.segments.len() - 1
        });
        let d = &self.delimiters;
        let mut raw = String::new();
        escape(&mut raw, text, d);
        let field = self.segments[at].raw(path.field());
        let field = with(field, d.repetition, path.repetition(), |repetition| {
            with(repetition, d.component, path.component(), |component| match path.subcomponent() {
                Some(n) => with(component, d.subcomponent, n, |_| raw.clone()),
                None => raw.clone(),
            })
        });
        self.segments[at].put(path.field(), field);
    }

    /// Adds a segment at the end.
    pub fn push(&mut self, segment: Segment) {
        self.segments.push(segment);
    }

    /// Its segments, MSH first.
    pub(super) fn into_segments(self) -> Vec<Segment> {
        self.segments
    }

    /// Where U+FFFD stands for bytes that could not be decoded.
    pub fn undecoded(&self) -> impl Iterator<Item = Location> {
        self.segments().flat_map(|segment| {
            let fields = segment.segment.fields.iter().zip(1..=u16::MAX);
            fields
                .filter(|(field, _)| field.contains(char::REPLACEMENT_CHARACTER))
                .map(move |(_, n)| Location::field(&segment.segment.name, segment.sequence, n))
        })
    }
}

impl Default for Message {
    fn default() -> Self {
        Self::new()
    }
}

/// `raw` with part `n` of those that `delimiter` separates changed; parts before it are added.
fn with(raw: &str, delimiter: char, n: u16, change: impl FnOnce(&str) -> String) -> String {
    let n = usize::from(n.max(1)) - 1;
    let mut parts: Vec<Cow<'_, str>> = raw.split(delimiter).map(Cow::Borrowed).collect();
    parts.resize(parts.len().max(n + 1), Cow::Borrowed(""));
    parts[n] = Cow::Owned(change(&parts[n]));
    parts.join(delimiter.encode_utf8(&mut [0; 4]))
}

/// Lines that are not empty, without their ends.
fn lines(text: &str, field: char) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = rest.char_indices().find(|(at, c)| match c {
                '\r' => true,
                '\n' => ends_a_segment(&rest[at + 1..], field),
                _ => false,
            });
            let (line, after) = match end {
                Some((at, _)) => (&rest[..at], &rest[at + 1..]),
                None => (rest, ""),
            };
            rest = after;
            // Files of SS-MIX2 keep the first byte of the end of their frame.
            let line = line.trim_start_matches('\n');
            if !line.is_empty() && line != "\x1c" {
                return Some(line);
            }
        }
        None
    })
}

/// Whether an LF before `rest` ends a segment rather than a line within a text.
fn ends_a_segment(rest: &str, field: char) -> bool {
    let Some(next) = rest.chars().next() else { return true };
    let named = rest.get(..3).is_some_and(is_segment_name);
    let ends = rest.get(3..).is_some_and(|r| r.is_empty() || r.starts_with([field, '\r', '\n']));
    matches!(next, '\r' | '\n' | '\x1c') || (named && ends)
}

impl Segment {
    /// A segment without fields.
    ///
    /// # Panics
    ///
    /// When the name has not three letters or digits: names come from this program.
    pub fn new(name: &str) -> Self {
        assert!(is_segment_name(name), "{name:?} names no segment");
        Self { name: name.to_owned(), fields: Vec::new() }
    }

    fn parse(line: &str, field: char) -> Option<Self> {
        let (name, rest) = line.split_at_checked(3)?;
        if !is_segment_name(name) {
            return None;
        }
        let mut segment = Self { name: name.to_owned(), fields: Vec::new() };
        if let Some(rest) = rest.strip_prefix(field) {
            if segment.is("MSH") {
                segment.fields.push(field.to_string());
            }
            // More are refused anyway; they need not stand in memory first.
            segment.fields.extend(rest.split(field).take(FIELDS_MAX + 1).map(str::to_owned));
        } else if !rest.is_empty() {
            return None;
        }
        Some(segment)
    }

    /// The name as written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is a segment of that name.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The field as written, empty when absent.
    pub(super) fn raw(&self, field: u16) -> &str {
        let at = usize::from(field).checked_sub(1);
        at.and_then(|at| self.fields.get(at)).map_or("", String::as_str)
    }

    /// Puts a field as it will be written. An empty one does not make the segment longer.
    pub(super) fn put(&mut self, field: u16, raw: String) {
        let at = usize::from(field.max(1)) - 1;
        if at >= self.fields.len() {
            if raw.is_empty() {
                return;
            }
            self.fields.resize(at + 1, String::new());
        }
        self.fields[at] = raw;
    }
}

/// A segment of a message, with what splits it.
#[derive(Debug, Clone, Copy)]
pub struct SegmentRef<'a> {
    segment: &'a Segment,
    delimiters: &'a Delimiters,
    sequence: usize,
}

impl<'a> SegmentRef<'a> {
    /// Whether this is a segment of that name.
    pub fn is(&self, name: &str) -> bool {
        self.segment.is(name)
    }

    /// The name as written.
    pub fn name(&self) -> &'a str {
        &self.segment.name
    }

    /// Which of the segments of its name in the message this is, from one.
    pub fn sequence(&self) -> usize {
        self.sequence
    }

    /// A field, counted from one; an empty one when absent.
    pub fn field(&self, field: u16) -> Piece<'a> {
        Piece { raw: self.segment.raw(field), delimiters: self.delimiters }
    }

    /// The text at `path`; empty when `path` is of another segment.
    pub fn text(&self, path: &Path) -> Cow<'a, str> {
        if !self.is(path.segment()) {
            return Cow::Borrowed("");
        }
        let repetition = self.field(path.field()).repetition(path.repetition());
        let component = repetition.component(path.component());
        path.subcomponent().map_or(component, |n| component.subcomponent(n)).text()
    }

    /// Where `field` of this segment is, as ERR tells it.
    pub fn location(&self, field: u16) -> Location {
        Location::field(&self.segment.name, self.sequence, field)
    }
}

/// A field, or a part of one, as written.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    raw: &'a str,
    delimiters: &'a Delimiters,
}

impl<'a> Piece<'a> {
    /// As written, with its escape sequences.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// The text it stands for, delimiters that remain included. The null value `""`, by which a
    /// sender deletes (HL7 2.5.3), reads as an empty text.
    pub fn text(&self) -> Cow<'a, str> {
        if self.raw == r#""""# { Cow::Borrowed("") } else { unescape(self.raw, self.delimiters) }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.text().trim().is_empty()
    }

    /// The repetitions of a field that are not empty, [`REPETITIONS_MAX`] at most.
    pub fn repetitions(&self) -> impl Iterator<Item = Self> {
        let raw = self.raw.split(self.delimiters.repetition).filter(|raw| !raw.is_empty());
        raw.map(|raw| Self { raw, ..*self }).take(REPETITIONS_MAX)
    }

    /// A repetition of a field, from one.
    pub fn repetition(&self, n: u16) -> Self {
        self.part(self.delimiters.repetition, n)
    }

    /// The components of a repetition, empty ones included, [`COMPONENTS_MAX`] at most.
    pub fn components(&self) -> impl Iterator<Item = Self> {
        let raw = self.raw.split(self.delimiters.component).take(COMPONENTS_MAX);
        raw.map(|raw| Self { raw, ..*self })
    }

    /// A component of a repetition, from one.
    pub fn component(&self, n: u16) -> Self {
        self.part(self.delimiters.component, n)
    }

    /// A subcomponent of a component, from one.
    pub fn subcomponent(&self, n: u16) -> Self {
        self.part(self.delimiters.subcomponent, n)
    }

    fn part(&self, delimiter: char, n: u16) -> Self {
        let raw = self.raw.split(delimiter).nth(usize::from(n.max(1)) - 1).unwrap_or("");
        Self { raw, ..*self }
    }
}

#[cfg(test)]
mod tests;
