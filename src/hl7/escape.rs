//! Escape sequences of formatted text (HL7 2.7): `\F\ \S\ \T\ \R\ \E\ \Xdd..\ \.br\`.
//!
//! Any other sequence, and an escape character without a partner, stays in the text as it stands:
//! reading never loses what it does not understand. Written again, such a text reads the same.

use std::borrow::Cow;

use super::message::Delimiters;

/// The text that `raw` stands for.
pub(super) fn unescape<'a>(raw: &'a str, delimiters: &Delimiters) -> Cow<'a, str> {
    let escape = delimiters.escape;
    let Some(first) = raw.find(escape) else { return Cow::Borrowed(raw) };
    let mut text = String::with_capacity(raw.len());
    text.push_str(&raw[..first]);
    let mut rest = &raw[first..];
    while let Some(begun) = rest.strip_prefix(escape) {
        let Some(end) = begun.find(escape) else { break };
        let after = &begun[end + escape.len_utf8()..];
        if !push(&mut text, &begun[..end], delimiters) {
            text.push_str(&rest[..rest.len() - after.len()]);
        }
        let plain = after.find(escape).unwrap_or(after.len());
        text.push_str(&after[..plain]);
        rest = &after[plain..];
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Adds what the sequence means; `false` when nobody knows.
fn push(text: &mut String, sequence: &str, delimiters: &Delimiters) -> bool {
    text.push(match sequence {
        "F" => delimiters.field,
        "S" => delimiters.component,
        "T" => delimiters.subcomponent,
        "R" => delimiters.repetition,
        "E" => delimiters.escape,
        ".br" => '\n',
        _ => {
            // Hexadecimal data is bytes of the sender's own making: read where they are UTF-8,
            // which ASCII is.
            let Some(hex) = sequence.strip_prefix('X') else { return false };
            let Some(hex) = bytes(hex).and_then(|b| String::from_utf8(b).ok()) else {
                return false;
            };
            text.push_str(&hex);
            return true;
        }
    });
    true
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        hex.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let whole = !pairs.is_empty() && rest.is_empty();
    whole.then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Adds `text` to `raw` so that it reads the same. Control characters are written in hexadecimal:
/// none of them may end a segment, a frame, or begin an escape of ISO 2022.
pub(super) fn escape(raw: &mut String, text: &str, delimiters: &Delimiters) {
    // A text that looks like the null value would delete.
    let text = text.strip_prefix("\"\"").filter(|rest| rest.is_empty()).map_or(text, |_| {
        raw.push_str(&["", "X22", ""].join(delimiters.escape.encode_utf8(&mut [0; 4])));
        "\""
    });
    for character in text.chars() {
        let sequence = match character {
            c if c == delimiters.field => "F",
            c if c == delimiters.component => "S",
            c if c == delimiters.subcomponent => "T",
            c if c == delimiters.repetition => "R",
            c if c == delimiters.escape => "E",
            '\n' => ".br",
            '\0'..=' ' | '\x7F' if character != ' ' => {
                let number = u32::from(character);
                raw.push(delimiters.escape);
                raw.push('X');
                raw.extend(
                    [number >> 4, number & 15]
                        .iter()
                        .filter_map(|n| char::from_digit(*n, 16).map(|c| c.to_ascii_uppercase())),
                );
                raw.push(delimiters.escape);
                continue;
            }
            _ => {
                raw.push(character);
                continue;
            }
        };
        raw.push(delimiters.escape);
        raw.push_str(sequence);
        raw.push(delimiters.escape);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sequences_are_read_and_unknown_ones_kept() {
        let d = Delimiters::default();
        for (raw, text) in [
            (r"a\F\b\S\c\T\d\R\e\E\f", r"a|b^c&d~e\f"),
            (r"1\.br\2\X0D0A\3", "1\n2\r\n3"),
            (r"\XE9AAA8\", "骨"),
            (
                r"\Z99\ \H\x\N\ \C2842\ \XZZ\ \X8\ \X\ \X82\",
                r"\Z99\ \H\x\N\ \C2842\ \XZZ\ \X8\ \X\ \X82\",
            ),
            (r"C:\dir", r"C:\dir"),
            (r"\\\F\", r"\\|"),
            (r"\", r"\"),
            ("", ""),
        ] {
            assert_eq!(unescape(raw, &d), text, "{raw}");
        }
    }

    #[test]
    fn control_characters_are_written_so_that_they_end_nothing() {
        let d = Delimiters::default();
        let mut raw = String::new();
        escape(&mut raw, "a\r\n\x0b\x1c\x1b b|^", &d);
        assert_eq!(raw, r"a\X0D\\.br\\X0B\\X1C\\X1B\ b\F\\S\");
        assert_eq!(unescape(&raw, &d), "a\r\n\x0b\x1c\x1b b|^");
    }
}
