//! Formatted text (FT, HL7 2.5 2.7.6) as plain lines. Senders put its commands into TX and ST as
//! well, and so all three are read alike.
//!
//! Line breaks stay line breaks, skips become blanks, highlighting and margins are dropped.
//! Sequences that nobody knows stay in the text as they stand.

use crate::hl7::message::Delimiters;

/// Most lines or blanks that one command makes.
const SKIP_MAX: usize = 80;

/// The plain text of `raw`, whose repetitions are lines.
pub(super) fn plain(
    raw: &str,
    delimiters: &Delimiters,
    unescape: impl Fn(&str) -> String,
) -> String {
    let escape = delimiters.escape;
    let mut text = String::with_capacity(raw.len());
    for (n, line) in raw.split(delimiters.repetition).enumerate() {
        if n > 0 {
            text.push('\n');
        }
        let mut rest = line;
        while let Some((before, after)) = rest.split_once(escape) {
            text.push_str(before);
            let Some((sequence, later)) = after.split_once(escape) else {
                // One without a partner is text.
                text.push(escape);
                rest = after;
                continue;
            };
            if !command(&mut text, sequence) {
                let whole = &rest[before.len()..rest.len() - later.len()];
                text.push_str(&unescape(whole));
            }
            rest = later;
        }
        text.push_str(rest);
    }
    text
}

/// Does what a formatting command says; `false` when it is none.
fn command(text: &mut String, sequence: &str) -> bool {
    let Some(command) = sequence.strip_prefix('.') else {
        // Highlighting begins and ends.
        return matches!(sequence, "H" | "N");
    };
    let Some((name, number)) = command.split_at_checked(2) else { return false };
    if !number.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-')) {
        return false;
    }
    let times = || number.trim_start_matches('+').parse().unwrap_or(1).min(SKIP_MAX);
    match name {
        "br" | "ce" => text.push('\n'),
        "sp" => text.extend(std::iter::repeat_n('\n', times().max(1))),
        "sk" => text.extend(std::iter::repeat_n(' ', times())),
        "in" | "ti" | "fi" | "nf" => {}
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> String {
        plain(raw, &Delimiters::default(), |s| match s {
            r"\F\" => "|".to_owned(),
            other => other.to_owned(),
        })
    }

    #[test]
    fn commands_become_lines_and_blanks_and_what_nobody_knows_stays() {
        for (raw, text) in [
            (r"a\.br\b\.sp2\c\.ce\d", "a\nb\n\nc\nd"),
            (r"\H\bold\N\ \.in+4\x\.sk3\y", "bold x   y"),
            (r"one~two\F\", "one\ntwo|"),
            (r"\Z1\ C:\dir \.zz\", r"\Z1\ C:\dir \.zz\"),
            (r"\.sp999999999\|", &("\n".repeat(80) + "|")),
            (r"\", r"\"),
        ] {
            assert_eq!(read(raw), text, "{raw}");
        }
    }
}
