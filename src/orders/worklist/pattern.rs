//! Single value and wild card matching of text (PS3.4 C.2.2.2.1, C.2.2.2.4). Pure.
//!
//! `*` is any number of characters, `?` is one. Blanks around a value say nothing. Text is compared
//! with its case; names without it, and without regard to the width of characters and the kind of
//! kana, since a device asks in half-width katakana for what a RIS wrote in full width.

use crate::orders::identifier::fold;

/// A text key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<char>);

impl Pattern {
    /// A value of a key.
    pub fn new(value: &str) -> Self {
        let mut chars: Vec<char> = Vec::new();
        for c in value.trim_matches(' ').chars() {
            // Two stars say what one does, and cost more.
            if c != '*' || chars.last() != Some(&'*') {
                chars.push(c);
            }
        }
        Self(chars)
    }

    /// Whether it matches everything, also what nobody knows.
    pub fn is_universal(&self) -> bool {
        matches!(self.0[..], [] | ['*'])
    }

    /// The value that it is, where it has no wild card.
    pub fn literal(&self) -> Option<String> {
        let plain = !self.0.is_empty() && !self.0.iter().any(|c| matches!(c, '*' | '?'));
        plain.then(|| self.0.iter().collect())
    }

    /// Whether a value matches.
    pub fn matches(&self, value: &str) -> bool {
        self.is_universal() || self.is_like(&value.trim_matches(' ').chars().collect::<Vec<_>>())
    }

    /// Steps back to the last star when what follows it does not fit: no recursion, and at most the
    /// product of both lengths.
    fn is_like(&self, value: &[char]) -> bool {
        let pattern = &self.0;
        let (mut p, mut v) = (0, 0);
        let mut star = None;
        while v < value.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p, v));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == value[v] => (p, v) = (p + 1, v + 1),
                _ => match star {
                    Some((at, from)) => {
                        star = Some((at, from + 1));
                        (p, v) = (at + 1, from + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == '*')
    }
}

/// A key of a person's name (VR PN).
///
/// A key of one component group matches when any group of the name does; of several groups each
/// that says something must match one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(Vec<Pattern>);

impl NamePattern {
    /// A value of a key.
    pub fn new(value: &str) -> Self {
        let groups = value.split('=').map(|group| Pattern::new(&fold(group)));
        Self(groups.filter(|group| !group.is_universal()).collect())
    }

    /// Whether it matches everything.
    pub fn is_universal(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a name matches, whose groups are separated by `=`.
    pub fn matches(&self, name: &str) -> bool {
        let groups: Vec<String> = name.split('=').map(fold).collect();
        self.0.iter().all(|key| groups.iter().any(|group| key.matches(group)))
    }
}
