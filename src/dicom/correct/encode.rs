//! Text as bytes in the Specific Character Set that a data set has already, exactly, or not at all
//! (PS3.5 6.1, PS3.3 C.12.1.1.2).
//!
//! What a reader of another make could take for another character counts as not there: the
//! extensions that some fonts have beside JIS X 0208, the control range of the one-byte sets.

use encoding_rs::{
    Encoding, GB18030, GBK, ISO_2022_JP, ISO_8859_2, ISO_8859_3, ISO_8859_4, ISO_8859_5,
    ISO_8859_6, ISO_8859_7, ISO_8859_8, ISO_8859_15, WINDOWS_874, WINDOWS_1252, WINDOWS_1254,
};

use crate::dicom::text::Repertoire;

/// The bytes of `text` under the value `terms` of (0008,0005), its values joined by `\`. `None`:
/// that character set does not have all of it.
pub(super) fn encode(terms: &str, text: &str) -> Option<Vec<u8>> {
    if text.chars().any(|c| c.is_control() || c == '\\') {
        return None;
    }
    let values: Vec<String> = terms.split('\\').map(number).collect();
    let first = values.first().map(String::as_str).unwrap_or_default();
    let bytes = match first {
        // JIS X 0201 has an overline where ASCII has a tilde.
        "13" if text.contains('~') => None,
        _ if text.is_ascii() => Some(text.as_bytes().to_vec()),
        "192" => Some(text.as_bytes().to_vec()),
        "GB18030" => whole(GB18030, text),
        "GBK" => whole(GBK, text),
        "" | "6" | "13" => japanese(text, first == "13", values.iter().any(|v| v == "87")),
        other => one_byte(other, text),
    }?;
    // What this program reads there is what it means to write.
    (Repertoire::of(terms).decode(&bytes) == text).then_some(bytes)
}

/// The number of a defined term, such as `87` of `ISO 2022 IR 87`.
fn number(term: &str) -> String {
    let term = term.trim_matches([' ', '\0']).to_ascii_uppercase();
    let number = term.strip_prefix("ISO 2022 IR").or_else(|| term.strip_prefix("ISO_IR"));
    number.unwrap_or(&term).trim().to_owned()
}

fn whole(encoding: &'static Encoding, text: &str) -> Option<Vec<u8>> {
    let (bytes, _, lost) = encoding.encode(text);
    (!lost).then(|| bytes.into_owned())
}

fn one_byte(number: &str, text: &str) -> Option<Vec<u8>> {
    let encoding = match number {
        "100" => WINDOWS_1252,
        "101" => ISO_8859_2,
        "109" => ISO_8859_3,
        "110" => ISO_8859_4,
        "144" => ISO_8859_5,
        "127" => ISO_8859_6,
        "126" => ISO_8859_7,
        "138" => ISO_8859_8,
        "148" => WINDOWS_1254,
        "203" => ISO_8859_15,
        "166" => WINDOWS_874,
        _ => return None,
    };
    // The sets that the Web means by these names have letters where ISO has controls.
    whole(encoding, text).filter(|bytes| !bytes.iter().any(|b| (0x80..0xA0).contains(b)))
}

/// ASCII or JIS X 0201 in G0, kanji by escapes where `kanji`; back to the initial set before any
/// delimiter and at the end (PS3.5 6.1.2.5.3).
fn japanese(text: &str, roman: bool, kanji: bool) -> Option<Vec<u8>> {
    let back: &[u8] = if roman { b"\x1b(J" } else { b"\x1b(B" };
    let (mut out, mut escaped) = (Vec::new(), false);
    for c in text.chars() {
        let half_width = ('\u{ff61}'..='\u{ff9f}').contains(&c);
        if c.is_ascii() || half_width {
            if std::mem::take(&mut escaped) {
                out.extend_from_slice(back);
            }
            match u8::try_from(c) {
                Ok(byte) if c.is_ascii() => out.push(byte),
                _ if roman => out.push(u8::try_from(c as u32 - 0xff61 + 0xa1).ok()?),
                _ => return None,
            }
            continue;
        }
        let [row, cell] = kanji.then(|| of_jis_x_0208(c)).flatten()?;
        if !std::mem::replace(&mut escaped, true) {
            out.extend_from_slice(b"\x1b$B");
        }
        out.extend_from_slice(&[row, cell]);
    }
    if escaped {
        out.extend_from_slice(back);
    }
    Some(out)
}

/// Row and cell of a character, as bytes of G0.
fn of_jis_x_0208(c: char) -> Option<[u8; 2]> {
    let mut one = [0; 4];
    let (bytes, _, lost) = ISO_2022_JP.encode(c.encode_utf8(&mut one));
    let [0x1b, b'$', b'B', row, cell, ..] = bytes[..] else { return None };
    // Rows 9 to 15 and above 84 are extensions of makers.
    let standard = matches!(row, 0x21..=0x28 | 0x30..=0x74) && (row, cell) <= (0x74, 0x26);
    (!lost && standard).then_some([row, cell])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KANJI: &str = "\\ISO 2022 IR 87";

    #[test]
    fn japanese_names_come_out_as_part_5_has_them_in_its_examples() {
        let h31 = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\
                    \x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B";
        let name = "Yamada^Tarou=山田^太郎=やまだ^たろう";
        assert_eq!(encode(KANJI, name).as_deref(), Some(&h31[..]));
        let h32 = b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J";
        let name = "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎";
        let terms = "ISO 2022 IR 13\\ISO 2022 IR 87";
        assert_eq!(encode(terms, name).as_deref(), Some(&h32[..]));
    }

    #[test]
    fn kanji_that_other_encodings_break_stay_whole() {
        for text in ["骨^像", "本^表", "ソ^十", "能^予"] {
            let bytes = encode(KANJI, text).expect("it is in JIS X 0208");
            assert_eq!(Repertoire::JAPANESE.decode(&bytes), text);
        }
    }

    #[test]
    fn what_a_character_set_does_not_have_is_not_written() {
        for (terms, text) in [
            ("", "山田"),
            ("ISO_IR 100", "山田"),
            ("ISO_IR 100", "Zażółć"),
            ("ISO_IR 100", "€"),
            ("ISO 2022 IR 100\\ISO 2022 IR 144", "Иванов"),
            ("ISO_IR 13", "山田"),
            (KANJI, "髙橋"),
            (KANJI, "①"),
            (KANJI, "ﾔﾏﾀﾞ"),
            (KANJI, "Jérôme"),
            ("\\ISO 2022 IR 149", "洪"),
            ("ISO_IR 192", "a\\b"),
            ("ISO_IR 192", "a\nb"),
            ("nonsense", "é"),
        ] {
            assert_eq!(encode(terms, text), None, "{terms} {text}");
        }
    }

    #[test]
    fn what_it_has_is_written_as_it_stands_there() {
        assert_eq!(encode("ISO_IR 100", "Jérôme").as_deref(), Some(&b"J\xe9r\xf4me"[..]));
        assert_eq!(encode("ISO_IR 144", "Иван").as_deref(), Some(&b"\xb8\xd2\xd0\xdd"[..]));
        assert_eq!(encode("ISO_IR 192", "山田").as_deref(), Some("山田".as_bytes()));
        assert_eq!(encode("ISO_IR 13", "ﾔﾏﾀﾞ").as_deref(), Some(&b"\xd4\xcf\xc0\xde"[..]));
        assert_eq!(encode("GB18030", "王^小东").map(|b| b.len()), Some(7));
        for terms in ["", KANJI, "ISO_IR 100", "ISO_IR 192", "ISO 2022 IR 13"] {
            assert_eq!(encode(terms, "YAMADA^TARO").as_deref(), Some(&b"YAMADA^TARO"[..]));
        }
    }
}
