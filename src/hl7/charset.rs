//! Which character set a message has (MSH-18, MSH-20; table 0211), to Unicode and back.
//!
//! A message is decoded as a whole before anything is split. A byte that means nothing in its
//! character set does not cost the order: U+FFFD stands for it, the text is flagged, and its place
//! is named ([`Decoded::faults`]); a split field is never moved by it, since the byte that follows
//! is read anew. Names with a hospital's own characters (外字) are common, and an order that is
//! refused for one is an examination nobody waits for. Custody keeps the bytes as they came.
//!
//! Writing is strict: a character that the receiver's set lacks is an error that names it, or, by
//! [`Charset::encode_lossy`], 〓 and a list of what was lost.
//!
//! A well-formed Japanese message comes back byte for byte, whichever escapes it used (`jis`).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use encoding_rs::{DecoderResult, EncoderResult, Encoding};

use super::jis::{self, Dialect};

/// Most places that [`Decoded::faults`] names.
pub const FAULTS_MAX: usize = 16;

/// ISO 2022 as MSH-20 names it.
const ISO_2022: &str = "ISO 2022-1994";

/// A character set, or a combination of them that ISO 2022 escapes switch between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charset(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// ASCII, and what ISO 2022 adds to it.
    Jis(Dialect),
    Latin1,
    Utf8,
    Other(&'static Encoding),
}

impl Default for Charset {
    /// ASCII, which HL7 means when MSH-18 is empty (2.15.9.18).
    fn default() -> Self {
        Self(Kind::Jis(Dialect::default()))
    }
}

/// How the character set of a message is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CharsetRule {
    /// For messages whose MSH-18 is empty.
    pub default: Charset,
    /// For all messages, whatever MSH-18 says: some senders say nothing true.
    pub always: Option<Charset>,
}

/// MSH-18 names a set that this program does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("character set {0:?} is not known")]
pub struct UnknownCharset(pub String);

/// A character that the set lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{charset} has no {character:?} (U+{:04X})", u32::from(*.character))]
pub struct Unencodable {
    /// The set.
    pub charset: Charset,
    /// The first character it lacks.
    pub character: char,
}

/// A message in Unicode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The text; U+FFFD stands for what could not be decoded.
    pub text: String,
    /// What it was written in, with all that its escapes used: encoding with it gives the bytes
    /// back.
    pub charset: Charset,
    /// Offsets of the first bytes that mean nothing, [`FAULTS_MAX`] at most. Empty: nothing was
    /// replaced.
    pub faults: Vec<usize>,
}

impl CharsetRule {
    /// The character set of the message in `bytes`.
    ///
    /// A set that is not known does not matter as long as all bytes are ASCII.
    pub fn charset(&self, bytes: &[u8]) -> Result<Charset, UnknownCharset> {
        if let Some(charset) = self.always {
            return Ok(charset);
        }
        let declared = self.declared(bytes);
        if declared.trim_matches(['~', ' ']).is_empty() {
            return Ok(self.default);
        }
        let plain = bytes.is_ascii() && !bytes.contains(&0x1B);
        match declared.parse() {
            Err(_) if plain => Ok(Charset::default()),
            charset => charset,
        }
    }

    /// Finds the character set and decodes.
    pub fn decode(&self, bytes: &[u8]) -> Result<Decoded, UnknownCharset> {
        Ok(self.charset(bytes)?.decode(bytes))
    }

    /// MSH-18. What stands before it may be kanji, so the segment is decoded to be split: by its
    /// own escapes where it has some, otherwise as the default has it.
    fn declared(&self, bytes: &[u8]) -> String {
        let end = bytes.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(bytes.len());
        let msh = &bytes[..end];
        let charset = if msh.contains(&0x1B) { Charset::default() } else { self.default };
        let text = charset.decode(msh).text;
        let Some(separator) = text.chars().nth(3) else { return String::new() };
        text.split(separator).nth(17).unwrap_or_default().to_owned()
    }
}

impl Charset {
    /// UTF-8.
    pub const UTF_8: Self = Self(Kind::Utf8);

    /// ISO 8859-1.
    pub const LATIN_1: Self = Self(Kind::Latin1);

    /// To Unicode.
    pub fn decode(self, bytes: &[u8]) -> Decoded {
        let mut faults = Vec::new();
        let mut fault = |at| {
            if faults.len() < FAULTS_MAX {
                faults.push(at);
            }
        };
        let mut charset = self;
        let text = match &mut charset.0 {
            Kind::Jis(dialect) => jis::decode(bytes, dialect, fault),
            Kind::Latin1 => bytes.iter().copied().map(char::from).collect(),
            Kind::Utf8 => {
                let mut text = String::with_capacity(bytes.len());
                let mut at = 0;
                for chunk in bytes.utf8_chunks() {
                    text.push_str(chunk.valid());
                    if !chunk.invalid().is_empty() {
                        fault(at + chunk.valid().len());
                        text.push(char::REPLACEMENT_CHARACTER);
                    }
                    at += chunk.valid().len() + chunk.invalid().len();
                }
                text
            }
            Kind::Other(encoding) => decode(encoding, bytes, fault),
        };
        Decoded { text, charset, faults }
    }

    /// From Unicode; the first character that the set lacks is an error.
    pub fn encode(self, text: &str) -> Result<Vec<u8>, Unencodable> {
        let mut lost = None;
        let bytes = self.encode_with(text, |character| {
            lost = Some(character);
            None
        });
        bytes.ok_or(Unencodable { charset: self, character: lost.unwrap_or_default() })
    }

    /// From Unicode, with 〓 (or `?`) for characters that the set lacks, and those characters.
    pub fn encode_lossy(self, text: &str) -> (Vec<u8>, Vec<char>) {
        let mut lost = Vec::new();
        let bytes = self.encode_with(text, |character| {
            lost.push(character);
            let geta = matches!(self.0, Kind::Jis(Dialect { kanji: true, .. }))
                || matches!(self.0, Kind::Other(e) if is_japanese(e));
            Some(if geta { '〓' } else { '?' })
        });
        (bytes.unwrap_or_default(), lost)
    }

    fn encode_with(
        self,
        text: &str,
        mut replace: impl FnMut(char) -> Option<char>,
    ) -> Option<Vec<u8>> {
        match self.0 {
            Kind::Utf8 => Some(text.as_bytes().to_vec()),
            Kind::Latin1 => text
                .chars()
                .map(|c| u8::try_from(c).ok().or_else(|| u8::try_from(replace(c)?).ok()))
                .collect(),
            Kind::Jis(dialect) => jis::encode(&in_japanese(text), dialect, replace),
            Kind::Other(encoding) if is_japanese(encoding) => {
                encode(encoding, &in_japanese(text), replace)
            }
            Kind::Other(encoding) => encode(encoding, text, replace),
        }
    }

    /// MSH-18 for a message in this set; empty where table 0211 has no name for it.
    pub fn msh_18(self) -> &'static str {
        match self.0 {
            Kind::Utf8 => "UNICODE UTF-8",
            Kind::Latin1 => "8859/1",
            Kind::Other(encoding) => {
                let name = OTHERS.iter().find(|(_, e)| *e == encoding);
                name.map_or("", |(name, _)| name)
            }
            Kind::Jis(dialect) => match (dialect.kana, dialect.kanji, dialect.supplement) {
                (false, false, false) => "",
                (false, true, false) => "~ISO IR87",
                (false, _, true) => "~ISO IR87~ISO IR159",
                (true, false, false) if dialect.kana_in_g1 => "ISO IR13",
                (true, true, false) if dialect.kana_in_g1 => "ISO IR13~ISO IR87",
                (true, _, true) if dialect.kana_in_g1 => "ISO IR13~ISO IR87~ISO IR159",
                (true, false, false) => "~ISO IR13",
                (true, true, false) => "~ISO IR13~ISO IR87",
                (true, _, true) => "~ISO IR13~ISO IR87~ISO IR159",
            },
        }
    }

    /// MSH-20 for a message in this set: how it switches between sets, where it does.
    pub fn msh_20(self) -> &'static str {
        let switches = matches!(self.0, Kind::Jis(d) if d.kanji || d.supplement || d.kana);
        if switches { ISO_2022 } else { "" }
    }
}

impl FromStr for Charset {
    type Err = UnknownCharset;

    /// Reads MSH-18 (table 0211; repetitions with `~`), with or without blanks, and the names
    /// that configurations use: `UTF-8`, `Shift_JIS`, `EUC-JP`, `ISO-2022-JP`.
    fn from_str(s: &str) -> Result<Self, UnknownCharset> {
        // `ISO 2022 IR 87` is how DICOM has it.
        let name = |name| plain(name).replace("ISO2022IR", "ISOIR");
        let names: Vec<String> = s.split('~').take(8).map(name).collect();
        let alone = names.iter().skip(1).all(String::is_empty);
        match names.first().map_or("", String::as_str) {
            "UNICODEUTF8" | "UTF8" | "ISOIR192" => return Ok(Self::UTF_8),
            "88591" | "ISO88591" | "ISOIR100" if alone => return Ok(Self::LATIN_1),
            "ISO2022JP" if alone => return "~ISO IR87".parse(),
            first if alone => {
                let first =
                    first.strip_prefix("ISO8859").map_or(first.into(), |n| format!("8859{n}"));
                let mut others = OTHERS.iter().chain(&NAMELESS);
                if let Some((_, encoding)) = others.find(|(name, _)| plain(name) == first) {
                    return Ok(Self(Kind::Other(encoding)));
                }
            }
            _ => {}
        }
        let mut dialect = Dialect::default();
        for (nth, name) in names.iter().enumerate() {
            match name.as_str() {
                "" | "ASCII" | "ISOIR6" => {}
                "ISOIR13" => {
                    dialect.kana = true;
                    dialect.kana_in_g1 |= nth == 0;
                    dialect.romaji |= nth == 0;
                }
                "ISOIR14" => dialect.romaji |= nth == 0,
                "ISOIR87" => dialect.kanji = true,
                "ISOIR159" => dialect.supplement = true,
                _ => return Err(UnknownCharset(s.chars().take(80).collect())),
            }
        }
        Ok(Self(Kind::Jis(dialect)))
    }
}

impl fmt::Display for Charset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.msh_18()) {
            (Kind::Other(encoding), "") => f.write_str(encoding.name()),
            (_, "") => f.write_str("ASCII"),
            (_, name) => f.write_str(name),
        }
    }
}

/// Sets of table 0211 that `encoding_rs` has.
static OTHERS: [(&str, &Encoding); 12] = [
    ("8859/2", encoding_rs::ISO_8859_2),
    ("8859/3", encoding_rs::ISO_8859_3),
    ("8859/4", encoding_rs::ISO_8859_4),
    ("8859/5", encoding_rs::ISO_8859_5),
    ("8859/6", encoding_rs::ISO_8859_6),
    ("8859/7", encoding_rs::ISO_8859_7),
    ("8859/8", encoding_rs::ISO_8859_8),
    ("8859/9", encoding_rs::WINDOWS_1254),
    ("8859/15", encoding_rs::ISO_8859_15),
    ("GB 18030-2000", encoding_rs::GB18030),
    ("KS X 1001", encoding_rs::EUC_KR),
    ("BIG-5", encoding_rs::BIG5),
];

/// Sets that are in use and not in the table: only configuration names them.
static NAMELESS: [(&str, &Encoding); 5] = [
    ("Shift_JIS", encoding_rs::SHIFT_JIS),
    ("SJIS", encoding_rs::SHIFT_JIS),
    ("MS932", encoding_rs::SHIFT_JIS),
    ("Windows-31J", encoding_rs::SHIFT_JIS),
    ("EUC-JP", encoding_rs::EUC_JP),
];

/// A name without what senders leave out or add: `ISO IR87`, `ISOIR87`, `ISO_IR 87`.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
}

fn is_japanese(encoding: &'static Encoding) -> bool {
    encoding == encoding_rs::SHIFT_JIS || encoding == encoding_rs::EUC_JP
}

/// Characters that Unicode has twice and Japanese sets once, in the form that the tables of
/// `encoding_rs` have; and the yen sign, which otherwise would be written as a backslash and read
/// as an escape character.
fn in_japanese(text: &str) -> Cow<'_, str> {
    const FORMS: [(char, char); 9] = [
        ('\u{301C}', '\u{FF5E}'),
        ('\u{2212}', '\u{FF0D}'),
        ('\u{2016}', '\u{2225}'),
        ('\u{2014}', '\u{2015}'),
        ('\u{00A2}', '\u{FFE0}'),
        ('\u{00A3}', '\u{FFE1}'),
        ('\u{00AC}', '\u{FFE2}'),
        ('\u{00A5}', '\u{FFE5}'),
        ('\u{203E}', '\u{FFE3}'),
    ];
    let form = |c: char| FORMS.iter().find(|(from, _)| *from == c).map(|(_, to)| *to);
    if text.is_ascii() || !text.chars().any(|c| form(c).is_some()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| form(c).unwrap_or(c)).collect())
}

fn decode(encoding: &'static Encoding, bytes: &[u8], mut fault: impl FnMut(usize)) -> String {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut text = String::with_capacity(bytes.len() * 2 + 16);
    let mut at = 0;
    loop {
        let (result, read) =
            decoder.decode_to_string_without_replacement(&bytes[at..], &mut text, true);
        at += read;
        match result {
            DecoderResult::InputEmpty => return text,
            DecoderResult::OutputFull => text.reserve(bytes.len() - at + 16),
            DecoderResult::Malformed(length, after) => {
                fault(at.saturating_sub(usize::from(length) + usize::from(after)));
                text.reserve(16);
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }
}

fn encode(
    encoding: &'static Encoding,
    text: &str,
    mut replace: impl FnMut(char) -> Option<char>,
) -> Option<Vec<u8>> {
    let mut encoder = encoding.new_encoder();
    let mut bytes = Vec::with_capacity(text.len() * 2 + 16);
    let mut at = 0;
    let mut one = [0; 4];
    loop {
        let (result, read) =
            encoder.encode_from_utf8_to_vec_without_replacement(&text[at..], &mut bytes, true);
        at += read;
        match result {
            EncoderResult::InputEmpty => return Some(bytes),
            EncoderResult::OutputFull => bytes.reserve(text.len() - at + 16),
            EncoderResult::Unmappable(character) => {
                if let Some(pair) = own_character(encoding, character) {
                    bytes.extend_from_slice(&pair);
                    continue;
                }
                let instead: &str = replace(character)?.encode_utf8(&mut one);
                bytes.reserve(16);
                let (result, _) =
                    encoder.encode_from_utf8_to_vec_without_replacement(instead, &mut bytes, false);
                if result != EncoderResult::InputEmpty {
                    return None;
                }
            }
        }
    }
}

/// The code of a hospital's own character (外字, F040 to F9FC) in Shift_JIS. `encoding_rs` reads
/// them as U+E000 to U+E757 and does not write them.
fn own_character(encoding: &'static Encoding, character: char) -> Option<[u8; 2]> {
    if encoding != encoding_rs::SHIFT_JIS || !('\u{E000}'..='\u{E757}').contains(&character) {
        return None;
    }
    let nth = u32::from(character) - 0xE000;
    let trail = u8::try_from(nth % 188).ok()?;
    let lead = 0xF0 + u8::try_from(nth / 188).ok()?;
    Some([lead, trail + if trail < 0x3F { 0x40 } else { 0x41 }])
}

#[cfg(test)]
mod tests;
