//! Japanese text under ISO 2022 (JIS X 0202), 7-bit with half-width kana in G1: a thin layer over
//! the tables of `encoding_rs`.
//!
//! `encoding_rs` has no such coding: its ISO-2022-JP knows no JIS X 0212 (ISO IR159), turns
//! half-width kana (ISO IR13) into full-width ones when it writes, and its EUC-JP cannot write
//! JIS X 0212 either. Its EUC-JP *reads* all of them, so both directions here come from what that
//! reader says about each pair of bytes, once.
//!
//! | escape | set | ISO IR |
//! |---|---|---|
//! | `ESC ( B` | ASCII | 6 |
//! | `ESC ( J` | JIS X 0201 romaji, read as ASCII: delimiters must stay delimiters | 14 |
//! | `ESC ( I`, `ESC ) I`, bytes A1 to DF | JIS X 0201 kana | 13 |
//! | `ESC $ B`, `ESC $ @` | JIS X 0208 (1983, 1978) | 87, 42 |
//! | `ESC $ ( D` | JIS X 0212 | 159 |
//!
//! The end of a segment returns to ASCII, whether or not the sender did. The reader notes which
//! of the equivalent escapes were used ([`Dialect`]), so that writing gives the same bytes back.
//! Not kept are the second codes of characters that NEC's row 13 has twice, and `ESC ) I`, for
//! which `ESC ( I` is written.

use std::collections::HashMap;
use std::sync::OnceLock;

use encoding_rs::EUC_JP;

/// Starts an escape sequence.
const ESC: u8 = 0x1B;
/// Codes of a 94-set.
const CODES: std::ops::RangeInclusive<u8> = 0x21..=0x7E;
/// JIS X 0201 kana in the left half; [`KANA_RIGHT`] has the high bit.
const KANA_LEFT: std::ops::RangeInclusive<u8> = 0x21..=0x5F;
const KANA_RIGHT: std::ops::RangeInclusive<u8> = 0xA1..=0xDF;
/// Half-width kana in Unicode, in the order of their codes.
const KANA_FIRST: u32 = 0xFF61;

/// Which sets a text may use, and which of the equivalent escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Dialect {
    /// Half-width kana may be used.
    pub(super) kana: bool,
    /// They stand in G1, as bytes A1 to DF, from the beginning of the message.
    pub(super) kana_in_g1: bool,
    /// JIS X 0208 may be used.
    pub(super) kanji: bool,
    /// JIS X 0208 is called by its name of 1978.
    pub(super) kanji_of_1978: bool,
    /// JIS X 0212 may be used.
    pub(super) supplement: bool,
    /// What is not kanji is called romaji rather than ASCII.
    pub(super) romaji: bool,
}

/// What G0 stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Ascii,
    Kana,
    Kanji,
    Supplement,
    /// A set of one or two bytes that this module does not know.
    Unknown(u8),
}

/// Both directions of one 94×94 set.
struct Table {
    characters: Vec<char>,
    codes: HashMap<char, [u8; 2]>,
}

impl Table {
    /// Asks EUC-JP what each code means after `prefix`. The first code of a character counts.
    fn of(prefix: &[u8]) -> Self {
        let (mut characters, mut codes) = (Vec::new(), HashMap::new());
        for (a, b) in CODES.flat_map(|a| CODES.map(move |b| (a, b))) {
            let bytes = [prefix, &[a | 0x80, b | 0x80]].concat();
            let text = EUC_JP.decode_without_bom_handling_and_without_replacement(&bytes);
            let mut found = text.iter().flat_map(|text| text.chars());
            let character = found.next().unwrap_or(char::REPLACEMENT_CHARACTER);
            characters.push(character);
            if character != char::REPLACEMENT_CHARACTER {
                codes.entry(character).or_insert([a, b]);
            }
        }
        Self { characters, codes }
    }

    fn kanji() -> &'static Self {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(|| Self::of(&[]))
    }

    fn supplement() -> &'static Self {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(|| Self::of(&[0x8F]))
    }

    fn character(&self, a: u8, b: u8) -> char {
        self.characters[usize::from(a - 0x21) * 94 + usize::from(b - 0x21)]
    }
}

/// Reads; `fault` hears the offset of each byte that means nothing, for which U+FFFD stands.
/// Notes in `dialect` what the text uses.
pub(super) fn decode(bytes: &[u8], dialect: &mut Dialect, mut fault: impl FnMut(usize)) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut g0 = Set::Ascii;
    let mut seen = Seen::default();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let mut length = 1;
        let character = match (g0, byte) {
            (_, ESC) => {
                let set = designation(&bytes[at..], dialect, &mut seen);
                if let Some((set, taken)) = set {
                    g0 = set.unwrap_or(g0);
                    length = taken;
                }
                if matches!(set, Some((set, _)) if !matches!(set, Some(Set::Unknown(_)))) {
                    at += length;
                    continue;
                }
                None
            }
            (_, b'\r' | b'\n') => {
                g0 = Set::Ascii;
                Some(char::from(byte))
            }
            (_, 0..=0x20 | 0x7F) | (Set::Ascii | Set::Unknown(1), 0..=0x7F) => {
                Some(char::from(byte))
            }
            (Set::Kana, _) if KANA_LEFT.contains(&byte) => {
                seen.left = true;
                kana(byte)
            }
            (Set::Kanji | Set::Supplement | Set::Unknown(_), _) if CODES.contains(&byte) => {
                let second = bytes.get(at + 1).filter(|b| CODES.contains(b));
                length += usize::from(second.is_some());
                let pair = second.and_then(|second| match g0 {
                    Set::Kanji => Some(Table::kanji().character(byte, *second)),
                    Set::Supplement => Some(Table::supplement().character(byte, *second)),
                    _ => None,
                });
                pair.filter(|c| *c != char::REPLACEMENT_CHARACTER)
            }
            _ if KANA_RIGHT.contains(&byte) && (seen.g1 || dialect.kana_in_g1) => {
                seen.right = true;
                kana(byte & 0x7F)
            }
            _ => None,
        };
        if character.is_none() {
            fault(at);
        }
        text.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
        at += length;
    }
    // Declared for G1, and then called into G0: as a line of seven bits has it.
    dialect.kana_in_g1 &= seen.right || !seen.left;
    text
}

fn kana(code: u8) -> Option<char> {
    char::from_u32(KANA_FIRST + u32::from(code - 0x21))
}

/// What has been met. The first escape of its kind sets the dialect.
#[derive(Default)]
struct Seen {
    kanji: bool,
    romaji: bool,
    /// `ESC ) I`.
    g1: bool,
    /// Kana in G0.
    left: bool,
    /// Kana in G1.
    right: bool,
}

/// What an escape sequence at the beginning of `bytes` makes of G0, and its length.
fn designation(
    bytes: &[u8],
    dialect: &mut Dialect,
    seen: &mut Seen,
) -> Option<(Option<Set>, usize)> {
    Some(match bytes {
        [_, b'(', b'B' | b'J', ..] => {
            if !std::mem::replace(&mut seen.romaji, true) {
                dialect.romaji = bytes[2] == b'J';
            }
            (Some(Set::Ascii), 3)
        }
        [_, b'(', b'I', ..] => {
            dialect.kana = true;
            (Some(Set::Kana), 3)
        }
        [_, b')', b'I', ..] => {
            (dialect.kana, seen.g1) = (true, true);
            (None, 3)
        }
        [_, b'$', b'B' | b'@', ..] => {
            if !std::mem::replace(&mut seen.kanji, true) {
                dialect.kanji_of_1978 = bytes[2] == b'@';
            }
            dialect.kanji = true;
            (Some(Set::Kanji), 3)
        }
        [_, b'$', b'(', b'B', ..] => {
            dialect.kanji = true;
            (Some(Set::Kanji), 4)
        }
        [_, b'$', b'(', b'D', ..] => {
            dialect.supplement = true;
            (Some(Set::Supplement), 4)
        }
        [_, b'$', b'(', 0x30..=0x7E, ..] => (Some(Set::Unknown(2)), 4),
        [_, b'$', 0x30..=0x7E, ..] => (Some(Set::Unknown(2)), 3),
        [_, b'(', 0x30..=0x7E, ..] => (Some(Set::Unknown(1)), 3),
        _ => return None,
    })
}

/// Writes, ASCII again before each ASCII character and at the end. `replace` gives a character
/// that can be written for one that cannot, or ends the writing.
pub(super) fn encode(
    text: &str,
    dialect: Dialect,
    mut replace: impl FnMut(char) -> Option<char>,
) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut g0 = Set::Ascii;
    let mut call = |bytes: &mut Vec<u8>, set: Set| {
        if std::mem::replace(&mut g0, set) != set {
            let escape: &[u8] = match set {
                Set::Kana => b"\x1b(I",
                Set::Kanji if dialect.kanji_of_1978 => b"\x1b$@",
                Set::Kanji => b"\x1b$B",
                Set::Supplement => b"\x1b$(D",
                _ if dialect.romaji => b"\x1b(J",
                _ => b"\x1b(B",
            };
            bytes.extend_from_slice(escape);
        }
    };
    for character in text.chars() {
        let code = match code_of(character, dialect) {
            Some(code) => code,
            None => code_of(replace(character)?, dialect)?,
        };
        match code {
            Code::Ascii(byte) => {
                call(&mut bytes, Set::Ascii);
                bytes.push(byte);
            }
            // The right half needs no escape, whatever G0 is.
            Code::Kana(byte) if dialect.kana_in_g1 => bytes.push(byte | 0x80),
            Code::Kana(byte) => {
                call(&mut bytes, Set::Kana);
                bytes.push(byte);
            }
            Code::Pair(set, pair) => {
                call(&mut bytes, set);
                bytes.extend_from_slice(&pair);
            }
        }
    }
    call(&mut bytes, Set::Ascii);
    Some(bytes)
}

/// How a character is written.
enum Code {
    Ascii(u8),
    Kana(u8),
    Pair(Set, [u8; 2]),
}

fn code_of(character: char, dialect: Dialect) -> Option<Code> {
    if let Ok(byte @ 0..=0x7F) = u8::try_from(character) {
        // An escape character of the text's own would be taken for ours.
        return (byte != ESC).then_some(Code::Ascii(byte));
    }
    let number = u32::from(character);
    if (KANA_FIRST..KANA_FIRST + 63).contains(&number) {
        let byte = u8::try_from(number - KANA_FIRST).ok()? + 0x21;
        return dialect.kana.then_some(Code::Kana(byte));
    }
    let kanji = || Table::kanji().codes.get(&character).map(|c| Code::Pair(Set::Kanji, *c));
    let more =
        || Table::supplement().codes.get(&character).map(|c| Code::Pair(Set::Supplement, *c));
    let kanji = dialect.kanji.then(kanji).flatten();
    kanji.or_else(|| dialect.supplement.then(more).flatten())
}
