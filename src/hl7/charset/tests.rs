use proptest::prelude::*;

use super::*;

/// Kanji whose bytes are delimiters in ISO-2022-JP or Shift_JIS, kana of both widths, and others.
const TEXT: &str = "像骨本移美所十ソ表能|^~\\&ｱｲｳﾞﾟ山田^太郎 Ａ１−";

fn charset(name: &str) -> Charset {
    name.parse().unwrap()
}

fn msh(msh_18: &str) -> Vec<u8> {
    format!("MSH|^~\\&|A|B|C|D|2026||ORM^O01|1|P|2.5||||||{msh_18}\rPID|1\r").into_bytes()
}

#[test]
fn kanji_made_of_delimiters_are_decoded_before_anything_is_split() {
    let bytes = b"PID|||\x1b$BA|9|K\\0\\H~=j==\x1b(B^X~\x1b(I1\x1b(B|";
    let decoded = Charset::default().decode(bytes);
    assert_eq!(decoded.text, "PID|||像骨本移美所十^X~ｱ|");
    assert!(decoded.faults.is_empty());
    assert_eq!(decoded.charset.encode(&decoded.text).unwrap(), bytes);
    let bytes = b"PID|||\x83\x5c\x95\x5c\x94\x5c^\xb1|";
    let decoded = charset("Shift_JIS").decode(bytes);
    assert_eq!(decoded.text, "PID|||ソ表能^ｱ|");
    assert_eq!(decoded.charset.encode(&decoded.text).unwrap(), bytes);
}

#[test]
fn each_japanese_set_comes_back_byte_for_byte_with_the_escapes_its_sender_uses() {
    for (name, bytes, text) in [
        ("~ISO IR87", &b"a\x1b$B;3ED\x1b(B^b"[..], "a山田^b"),
        ("~ISO IR87", b"a\x1b$@;3ED\x1b(J^b\r\x1b$@;3\x1b(J", "a山田^b\r山"),
        ("~ISO IR159", b"\x1b$(D0!\x1b$B;3\x1b(B", "丂山"),
        ("ISO IR13~ISO IR87", b"\xb1\xde^\x1b$B;3\x1b(J|\xb2", "ｱﾞ^山|ｲ"),
        ("ISO IR13~ISO IR87", b"\x1b(I1^\x1b(J^\x1b$B;3\x1b(J", "ｱﾞ^山"),
        ("ISO IR13", b"A\\F\\~\xdf", "A\\F\\~ﾟ"),
        ("Shift_JIS", b"\xf0\x40\xf0\x80\xf9\xfc\x8eR", "\u{E000}\u{E03F}\u{E757}山"),
        ("EUC-JP", b"\xbb\xb3\x8e\xb1", "山ｱ"),
        ("UNICODE UTF-8", "山𠮷".as_bytes(), "山𠮷"),
    ] {
        let decoded = charset(name).decode(bytes);
        assert_eq!((decoded.text.as_str(), decoded.faults), (text, vec![]), "{name}");
        let again = decoded.charset.encode(text).unwrap();
        assert_eq!(again.escape_ascii().to_string(), bytes.escape_ascii().to_string(), "{name}");
    }
}

#[test]
fn kana_called_into_g1_are_read_and_written_into_g0() {
    let decoded = charset("~ISO IR87").decode(b"\x1b)I\xb1\x1b$B;3\xb2\x1b(B");
    assert_eq!((decoded.text.as_str(), decoded.faults), ("ｱ山ｲ", vec![]));
    assert_eq!(decoded.charset.encode("ｱ山").unwrap(), b"\x1b(I1\x1b$B;3\x1b(B");
}

#[test]
fn the_end_of_a_segment_ends_kanji_that_a_sender_forgot_to_end() {
    let decoded = Charset::default().decode(b"PID|\x1b$B;3\rPV1|1\r");
    assert_eq!((decoded.text.as_str(), decoded.faults), ("PID|山\rPV1|1\r", vec![]));
}

#[test]
fn bytes_that_mean_nothing_are_replaced_flagged_and_move_no_delimiter() {
    for (name, bytes, text, faults) in [
        // A hospital's own character, in a row that JIS X 0208 leaves empty.
        ("~ISO IR87", &b"\x1b$B;3)!ED\x1b(B^b"[..], "山\u{FFFD}田^b", vec![5]),
        ("~ISO IR87", b"\x1b$B;\x1b(B^\x80", "\u{FFFD}^\u{FFFD}", vec![3, 8]),
        ("~ISO IR87", b"\x1b$B;\r|", "\u{FFFD}\r|", vec![3]),
        (
            "~ISO IR87",
            b"\x1b$A;3|\x1b(B|\x1b-A|\x1b",
            "\u{FFFD}\u{FFFD}\u{FFFD}|\u{FFFD}-A|\u{FFFD}",
            vec![0, 3, 5, 10, 14],
        ),
        ("ASCII", b"M\xfcller|", "M\u{FFFD}ller|", vec![1]),
        ("UTF-8", b"a\xff|\xe5\xb1|", "a\u{FFFD}|\u{FFFD}|", vec![1, 3]),
        ("Shift_JIS", b"\x8e!|\x8e\x52\xff^", "\u{FFFD}!|山\u{FFFD}^", vec![0, 5]),
    ] {
        let decoded = charset(name).decode(bytes);
        assert_eq!((decoded.text.as_str(), decoded.faults), (text, faults), "{name}");
    }
    assert_eq!(Charset::default().decode(&[0x80; 99]).faults.len(), FAULTS_MAX);
}

#[test]
fn a_character_that_the_set_lacks_is_an_error_or_a_geta() {
    let jis = charset("~ISO IR87");
    let error = jis.encode("山𠮷").unwrap_err();
    assert_eq!(error.to_string(), "~ISO IR87 has no '𠮷' (U+20BB7)");
    assert_eq!(jis.encode("ｱ").unwrap_err().character, 'ｱ');
    assert_eq!(jis.encode_lossy("山𠮷").0, jis.encode("山〓").unwrap());
    assert_eq!(jis.encode_lossy("山𠮷\u{FFFD}").1, ['𠮷', '\u{FFFD}']);
    assert_eq!(Charset::default().encode_lossy("a山"), (b"a?".to_vec(), vec!['山']));
    assert_eq!(Charset::LATIN_1.encode_lossy("é山"), (b"\xe9?".to_vec(), vec!['山']));
    assert_eq!(charset("8859/2").encode_lossy("ł山"), (b"\xb3?".to_vec(), vec!['山']));
    let sjis = charset("Shift_JIS");
    assert_eq!(sjis.encode_lossy("𠮷山").0, sjis.encode("〓山").unwrap());
}

#[test]
fn characters_that_unicode_has_twice_are_written_in_the_form_that_japanese_sets_have() {
    for name in ["~ISO IR87", "Shift_JIS", "EUC-JP"] {
        let set = charset(name);
        let bytes = set.encode("1〜2−3—¥‾¢£¬‖").unwrap();
        assert_eq!(set.decode(&bytes).text, "1～2－3―￥￣￠￡￢∥", "{name}");
    }
}

#[test]
fn the_character_set_is_that_of_msh_18_the_default_or_the_one_that_always_holds() {
    let rule = CharsetRule { default: charset("Shift_JIS"), always: None };
    let found = |msh_18: &str| {
        let mut bytes = msh(msh_18);
        bytes.push(0x83);
        rule.charset(&bytes)
    };
    assert_eq!(found(""), Ok(charset("Shift_JIS")));
    assert_eq!(found("~"), Ok(charset("Shift_JIS")));
    for (written, meant) in [
        ("~ISO IR87", "~ISO IR87"),
        ("~ISOIR87", "~ISO IR87"),
        ("~ISO_IR 87", "~ISO IR87"),
        ("~ISO 2022 IR 87", "~ISO IR87"),
        ("ISO IR6~ISO IR87", "~ISO IR87"),
        ("ISO-2022-JP", "~ISO IR87"),
        ("ISO IR13~ISO IR87~ISO IR159", "ISO IR13~ISO IR87~ISO IR159"),
        ("UTF-8", "UNICODE UTF-8"),
        ("ISO 8859-1", "8859/1"),
        ("8859/15", "8859/15"),
        ("ISO8859-2", "8859/2"),
        ("ASCII", "ASCII"),
    ] {
        assert_eq!(found(written), Ok(charset(meant)), "{written}");
    }
    assert_eq!(found("ISO IR 999"), Err(UnknownCharset("ISO IR 999".into())));
    assert_eq!(found("8859/1~ISO IR87"), Err(UnknownCharset("8859/1~ISO IR87".into())));
    let always = CharsetRule { always: Some(Charset::UTF_8), ..rule };
    assert_eq!(always.charset(&msh("ISO IR 999")), Ok(Charset::UTF_8));
    assert_eq!(rule.charset(b""), Ok(charset("Shift_JIS")));
}

#[test]
fn a_set_that_is_not_known_does_not_matter_to_a_message_of_ascii() {
    assert_eq!(CharsetRule::default().charset(&msh("ISO IR 999")), Ok(Charset::default()));
}

#[test]
fn msh_18_is_found_behind_kanji_that_contain_delimiters() {
    let bytes = b"MSH|^~\\&|\x1b$B9|A|\x1b(B|B|C|D|2026||ORM^O01|1|P|2.5||||||~ISO IR87\r";
    assert_eq!(CharsetRule::default().charset(bytes), Ok(charset("~ISO IR87")));
    let bytes = b"MSH|^~\\&|\x8e|x|B|C|D|2026||ORM^O01|1|P|2.5||||||8859/1\xff\r";
    let rule = CharsetRule { default: charset("Shift_JIS"), always: None };
    assert_eq!(rule.declared(bytes), "8859/1\u{FFFD}");
}

#[test]
fn msh_18_and_msh_20_name_the_set_that_a_message_is_written_in() {
    for (name, msh_18, msh_20) in [
        ("ASCII", "", ""),
        ("~ISO IR87", "~ISO IR87", ISO_2022),
        ("ISO IR13~ISO IR87", "ISO IR13~ISO IR87", ISO_2022),
        ("~ISO IR87~ISO IR159", "~ISO IR87~ISO IR159", ISO_2022),
        ("UTF-8", "UNICODE UTF-8", ""),
        ("8859/1", "8859/1", ""),
        ("KS X 1001", "KS X 1001", ""),
        ("Shift_JIS", "", ""),
    ] {
        let set = charset(name);
        assert_eq!((set.msh_18(), set.msh_20()), (msh_18, msh_20), "{name}");
        if !msh_18.is_empty() {
            assert_eq!(charset(set.msh_18()), set, "{name}");
        }
        assert_eq!(charset(&set.to_string()), set, "{name}");
    }
}

/// Characters of the Japanese sets in the form that their tables have.
fn japanese() -> impl Strategy<Value = String> {
    let characters: Vec<char> = TEXT.chars().filter(|c| *c != '−').collect();
    let some = prop_oneof![
        proptest::sample::select(characters),
        proptest::char::range(' ', '~'),
        proptest::char::range('ｱ', 'ﾟ'),
        proptest::char::range('ぁ', 'ん'),
        Just('\r'),
    ];
    proptest::collection::vec(some, 0..60).prop_map(|c| c.into_iter().collect())
}

proptest! {
    #[test]
    fn japanese_text_comes_back_from_each_set_that_has_it(text in japanese()) {
        for name in ["~ISO IR13~ISO IR87", "ISO IR13~ISO IR87", "Shift_JIS", "EUC-JP", "UTF-8"] {
            let set = charset(name);
            let bytes = set.encode(&text).unwrap();
            let decoded = set.decode(&bytes);
            prop_assert_eq!((&decoded.text, decoded.faults.len()), (&text, 0), "{}", name);
            prop_assert_eq!(decoded.charset.encode(&text).unwrap(), bytes, "{}", name);
        }
    }

    #[test]
    fn any_bytes_are_decoded_and_what_is_decoded_without_fault_is_written(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(0x1B), Just(b'$'), Just(b'('), Just(b'B'), 0x20..0x7Fu8],
            0..80),
    ) {
        for name in ["~ISO IR87", "ISO IR13~ISO IR87~ISO IR159", "Shift_JIS", "EUC-JP", "UTF-8",
            "8859/1", "8859/5", "GB 18030-2000", "KS X 1001", "BIG-5"]
        {
            let decoded = charset(name).decode(&bytes);
            prop_assert!(decoded.text.len() <= 3 * bytes.len());
            // Big5 is written without the characters that Hong Kong added.
            if decoded.faults.is_empty() && name != "BIG-5" {
                let again = decoded.charset.encode(&decoded.text).unwrap();
                prop_assert_eq!(&charset(name).decode(&again).text, &decoded.text, "{}", name);
            } else {
                decoded.charset.encode_lossy(&decoded.text);
            }
        }
    }
}
