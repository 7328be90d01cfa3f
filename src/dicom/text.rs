//! Text of data sets in its Specific Character Set (PS3.5 6.1, PS3.3 C.12.1.1.2).
//!
//! Decoding never fails: what cannot be read becomes U+FFFD, and a data set that names no
//! character set although it has more than ASCII is read by what its bytes look like. Escapes of
//! ISO 2022 are resolved before a value is split: bytes of kanji may be `\`, `^` or `=`.

use encoding_rs::{
    EUC_JP, EUC_KR, Encoding, GB18030, ISO_2022_JP, ISO_8859_2, ISO_8859_3, ISO_8859_4, ISO_8859_5,
    ISO_8859_6, ISO_8859_7, ISO_8859_8, ISO_8859_15, SHIFT_JIS, UTF_8, WINDOWS_874, WINDOWS_1252,
    WINDOWS_1254,
};

const ESCAPE: u8 = 0x1B;

/// The character repertoire of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repertoire(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    /// ISO_IR 6, or none named.
    #[default]
    Default,
    /// One encoding throughout; escapes are left out.
    One(&'static Encoding),
    /// JIS X 0201, 0208 and 0212 by escapes (ISO 2022 IR 13, 14, 87, 159).
    Japanese,
    /// The same, with half-width kana in G1 from the beginning.
    JapaneseKana,
    /// The first, but nothing is written that only vendors have in JIS X 0208.
    Jis,
    /// The second, likewise.
    JisKana,
}

impl Repertoire {
    /// Unicode in UTF-8 (ISO_IR 192).
    pub const UTF8: Self = Self(Kind::One(UTF_8));

    /// ASCII with kanji and kana by escapes (`\ISO 2022 IR 87`), as Japanese devices have it.
    pub const JAPANESE: Self = Self(Kind::Japanese);

    /// JIS X 0201 with kanji and kana by escapes (`ISO 2022 IR 13\ISO 2022 IR 87`): the only one
    /// of the two that has half-width kana.
    pub const JAPANESE_KANA: Self = Self(Kind::JapaneseKana);

    /// [`Self::JAPANESE`] as the standard has it: what NEC and IBM have put into free rows of JIS X
    /// 0208 (髙, 﨑, ①), and strict readers refuse, is not in it.
    pub const JIS: Self = Self(Kind::Jis);

    /// [`Self::JAPANESE_KANA`], likewise.
    pub const JIS_KANA: Self = Self(Kind::JisKana);

    /// Of a Specific Character Set (0008,0005), several values joined by `\`. Unknown terms count
    /// as not there.
    pub fn of(terms: &str) -> Self {
        let mut found = Kind::Default;
        for term in terms.split('\\') {
            let term = term.trim().to_ascii_uppercase().replace("ISO 2022 IR", "ISO_IR");
            let kind = match term.strip_prefix("ISO_IR").unwrap_or(&term).trim() {
                "87" | "159" => return Self::JAPANESE,
                "13" if terms.contains("2022") => return Self::JAPANESE,
                "13" => Kind::One(SHIFT_JIS),
                "100" => Kind::One(WINDOWS_1252),
                "101" => Kind::One(ISO_8859_2),
                "109" => Kind::One(ISO_8859_3),
                "110" => Kind::One(ISO_8859_4),
                "144" => Kind::One(ISO_8859_5),
                "127" => Kind::One(ISO_8859_6),
                "126" => Kind::One(ISO_8859_7),
                "138" => Kind::One(ISO_8859_8),
                "148" => Kind::One(WINDOWS_1254),
                "203" => Kind::One(ISO_8859_15),
                "166" => Kind::One(WINDOWS_874),
                "149" => Kind::One(EUC_KR),
                "58" | "GB18030" | "GBK" => Kind::One(GB18030),
                "192" => Kind::One(UTF_8),
                _ => continue,
            };
            // The first is the one that needs no escape; multi-byte ones are never the first.
            if found == Kind::Default || kind == Kind::One(EUC_KR) || kind == Kind::One(GB18030) {
                found = kind;
            }
        }
        Self(found)
    }

    /// The value of Specific Character Set that says so; `None` for the default repertoire.
    /// Written are the default, Japanese, and UTF-8 for everything else.
    pub fn term(self) -> Option<&'static str> {
        match self.0 {
            Kind::Default => None,
            Kind::Japanese | Kind::Jis => Some("\\ISO 2022 IR 87"),
            Kind::JapaneseKana | Kind::JisKana => Some("ISO 2022 IR 13\\ISO 2022 IR 87"),
            Kind::One(_) => Some("ISO_IR 192"),
        }
    }

    /// Bytes as text.
    pub fn decode(self, bytes: &[u8]) -> String {
        match self.0 {
            _ if bytes.is_ascii() && !bytes.contains(&ESCAPE) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            Kind::One(encoding) => {
                let plain = without_escapes(bytes);
                encoding.decode_without_bom_handling(&plain).0.into_owned()
            }
            Kind::Japanese | Kind::JapaneseKana | Kind::Jis | Kind::JisKana => japanese(bytes),
            Kind::Default if bytes.contains(&ESCAPE) => japanese(bytes),
            Kind::Default => match std::str::from_utf8(bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
            },
        }
    }

    /// Text as bytes, or `None` when this repertoire does not have all of it.
    pub fn encode(self, text: &str) -> Option<Vec<u8>> {
        match self.0 {
            _ if text.is_ascii() => Some(text.as_bytes().to_vec()),
            Kind::Default => None,
            Kind::Jis => Self::JAPANESE.encode(text).filter(|bytes| is_standard(bytes)),
            Kind::JisKana => with_kana(text).filter(|bytes| is_standard(bytes)),
            Kind::JapaneseKana => with_kana(text),
            // Ends in ASCII, and is in ASCII at every `\`, `^` and `=`, as PS3.5 6.1.2.5.3 wants:
            // these are not among the characters of JIS X 0208 that are escaped to.
            Kind::Japanese => {
                let (bytes, _, lost) = ISO_2022_JP.encode(text);
                // What its table only has in another form (half-width kana, the yen sign of JIS
                // X 0201) would come back as something else.
                (!lost && japanese(&bytes) == text).then(|| bytes.into_owned())
            }
            Kind::One(_) => Some(text.as_bytes().to_vec()),
        }
    }
}

/// Whether kanji are of the rows that JIS X 0208 fills: 1 to 8 and 16 to 84.
fn is_standard(bytes: &[u8]) -> bool {
    let (mut is_kanji, mut rest) = (false, bytes);
    while let Some((first, after)) = rest.split_first() {
        if let Some((to, length)) = designation(rest) {
            is_kanji = to.map_or(is_kanji, |to| to == Designated::Kanji);
            rest = rest.get(length..).unwrap_or_default();
        } else if is_kanji && *first >= 0x21 {
            if !matches!(first, 0x21..=0x28 | 0x30..=0x74) {
                return false;
            }
            rest = after.get(1..).unwrap_or_default();
        } else {
            rest = after;
        }
    }
    true
}

/// JIS X 0201 in both halves, and kanji by escapes. Its romaji have the yen sign and the overline
/// where ASCII has `\` and `~`: a text with those is not written so.
fn with_kana(text: &str) -> Option<Vec<u8>> {
    const KANA: std::ops::RangeInclusive<char> = '\u{FF61}'..='\u{FF9F}';
    if text.contains(['\\', '~']) {
        return None;
    }
    let chars: Vec<char> = text.chars().collect();
    let mut out = Vec::with_capacity(text.len());
    for run in chars.chunk_by(|a, b| KANA.contains(a) == KANA.contains(b)) {
        if KANA.contains(&run[0]) {
            let code = |c: &char| u8::try_from(u32::from(*c) - 0xFF61 + 0xA1).ok();
            out.extend(run.iter().filter_map(code));
        } else {
            let run: String = run.iter().collect();
            let (bytes, _, lost) = ISO_2022_JP.encode(&run);
            if lost || japanese(&bytes) != run {
                return None;
            }
            // Back to the set that the first term names (PS3.5 6.1.2.5.3).
            let mut rest = &bytes[..];
            while let Some((first, after)) = rest.split_first() {
                if let Some(after) = rest.strip_prefix(b"\x1b(B") {
                    out.extend_from_slice(b"\x1b(J");
                    rest = after;
                } else {
                    out.push(*first);
                    rest = after;
                }
            }
        }
    }
    Some(out)
}

/// The bytes without the escapes that designate what the encoding has anyway: `ESC - A`,
/// `ESC $ ) C`.
fn without_escapes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != ESCAPE {
            out.push(*first);
            continue;
        }
        // Intermediate bytes, then one final byte (ISO/IEC 2022 13.1).
        let intermediate = rest.iter().take_while(|b| (0x20..=0x2F).contains(*b)).count();
        rest = rest.get(intermediate + 1..).unwrap_or_default();
    }
    out
}

/// What the bytes of G0 mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Designated {
    Ascii,
    Katakana,
    Kanji,
    Supplement,
}

/// ISO 2022 to EUC-JP, which has the same character sets without escapes.
fn japanese(bytes: &[u8]) -> String {
    let mut euc = Vec::with_capacity(bytes.len() + 8);
    let mut designated = Designated::Ascii;
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        if let Some((to, length)) = designation(rest) {
            designated = to.unwrap_or(designated);
            rest = rest.get(length..).unwrap_or_default();
            continue;
        }
        rest = after;
        match (designated, *first) {
            // Control characters are in no set; a line's end resets to ASCII.
            (_, 0..=0x1F) => {
                designated = Designated::Ascii;
                euc.push(*first);
            }
            (Designated::Kanji | Designated::Supplement, high @ 0x21..=0x7E) => {
                let low = rest.first().copied().unwrap_or_default();
                rest = rest.get(1..).unwrap_or_default();
                if designated == Designated::Supplement {
                    euc.push(0x8F);
                }
                euc.extend_from_slice(&[high | 0x80, low | 0x80]);
            }
            (Designated::Katakana, kana @ 0x21..=0x5F) => {
                euc.extend_from_slice(&[0x8E, kana | 0x80])
            }
            // Katakana of JIS X 0201 in G1.
            (_, kana @ 0xA1..=0xDF) => euc.extend_from_slice(&[0x8E, kana]),
            (_, other) => euc.push(other),
        }
    }
    EUC_JP.decode_without_bom_handling(&euc).0.into_owned()
}

/// The escape that `bytes` begin with: what it designates to G0, if that, and how long it is.
fn designation(bytes: &[u8]) -> Option<(Option<Designated>, usize)> {
    let [ESCAPE, escape @ ..] = bytes else { return None };
    Some(match escape {
        [b'$', b'B' | b'@', ..] => (Some(Designated::Kanji), 3),
        [b'$', b'(', b'D', ..] => (Some(Designated::Supplement), 4),
        [b'(', b'B' | b'J', ..] => (Some(Designated::Ascii), 3),
        [b'(', b'I', ..] => (Some(Designated::Katakana), 3),
        [b')', _, ..] => (None, 3),
        _ => (None, 1),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_japanese_name_is_read_as_part_5_has_it_in_its_examples() {
        // PS3.5 H.3.1 and H.3.2.
        let h31 = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\
                    \x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B";
        let name = Repertoire::of("\\ISO 2022 IR 87").decode(h31);
        assert_eq!(name, "Yamada^Tarou=山田^太郎=やまだ^たろう");
        let h32 = b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J";
        let name = Repertoire::of("ISO 2022 IR 13\\ISO 2022 IR 87").decode(h32);
        assert_eq!(name, "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎");
    }

    #[test]
    fn kanji_with_the_byte_of_a_backslash_stay_whole() {
        for text in ["骨画像 山本", "移所^十\\表"] {
            let bytes = Repertoire::JAPANESE.encode(text).unwrap();
            assert_eq!(Repertoire::JAPANESE.decode(&bytes), text);
        }
    }

    #[test]
    fn japanese_text_comes_back_exactly_or_is_not_written_so() {
        for (text, plain, kana) in [
            ("骨 像 本 表 ソ", true, true),
            ("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎", false, true),
            ("ﾎﾝ\\本", false, false),
            ("¥", false, false),
            ("−", false, false),
            ("김", false, false),
        ] {
            for (repertoire, writes) in
                [(Repertoire::JAPANESE, plain), (Repertoire::JAPANESE_KANA, kana)]
            {
                let bytes = repertoire.encode(text);
                assert_eq!(bytes.is_some(), writes, "{text}");
                if let Some(bytes) = bytes {
                    let read = Repertoire::of(repertoire.term().unwrap());
                    assert_eq!(read.decode(&bytes), text);
                }
            }
        }
    }

    #[test]
    fn what_only_vendors_have_is_not_written_where_readers_go_by_the_standard() {
        for (text, loose, strict) in [
            ("高橋 熙", true, true),
            ("髙橋", true, false),
            ("①骨折", true, false),
            ("ﾎﾈ 髙", false, false),
            ("ﾎﾈ 骨", false, false),
        ] {
            assert_eq!(Repertoire::JAPANESE.encode(text).is_some(), loose, "{text}");
            let bytes = Repertoire::JIS.encode(text);
            assert_eq!(bytes.is_some(), strict, "{text}");
            if let Some(bytes) = bytes {
                assert_eq!(Repertoire::JIS.decode(&bytes), text);
            }
        }
        assert!(Repertoire::JIS_KANA.encode("ﾎﾈ 骨").is_some());
        assert!(Repertoire::JAPANESE_KANA.encode("ﾎﾈ 髙").is_some());
        assert!(Repertoire::JIS_KANA.encode("ﾎﾈ 髙").is_none());
    }

    #[test]
    fn western_korean_and_unicode_text_is_read() {
        assert_eq!(Repertoire::of("ISO_IR 100").decode(b"Buc^J\xe9r\xf4me"), "Buc^Jérôme");
        // PS3.5 I.2.
        let korean = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7";
        let text = Repertoire::of("\\ISO 2022 IR 149").decode(korean);
        assert_eq!(text, "Hong^Gildong=洪^吉洞");
        assert_eq!(Repertoire::of("ISO_IR 192").decode("王^小東".as_bytes()), "王^小東");
        assert_eq!(Repertoire::of("").decode("Ä".as_bytes()), "Ä");
        assert_eq!(Repertoire::of("nonsense").decode(b"\xc4"), "Ä");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            escapes in proptest::collection::vec(any::<bool>(), 0..60),
        ) {
            let bytes: Vec<u8> = bytes
                .iter()
                .zip(escapes.iter().chain(std::iter::repeat(&false)))
                .flat_map(|(b, e)| if *e { vec![ESCAPE, b'$', *b] } else { vec![*b] })
                .collect();
            for terms in ["", "ISO_IR 100", "\\ISO 2022 IR 87", "\\ISO 2022 IR 149", "GB18030"] {
                let _ = Repertoire::of(terms).decode(&bytes);
            }
        }
    }
}
