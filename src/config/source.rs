//! A document being read: its text, what was found wrong with it so far, and where.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::DeValue;

use crate::cargo::DestinationName;

use super::problem::{Problem, Remark, Warning};
use super::value::{Places, Wrong, wrong};

/// How like a known word a wrong one must be to be taken for a typing error (Jaro-Winkler).
pub(super) const LIKENESS_MIN: f64 = 0.75;

/// A key that the configuration knows.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// Its path, list positions left out: `destination[].address`.
    pub(super) path: String,
    /// Its default as TOML text; `None` when it is required or has none.
    pub(super) default: Option<&'static str>,
    /// What stands in the file, if anything, in one layout.
    pub(super) written: Option<String>,
}

/// A document being read.
#[derive(Debug)]
pub(super) struct Source<'d> {
    file: &'d Path,
    text: &'d str,
    /// The text is no TOML: what is missing may be behind the fault.
    broken: bool,
    pub(super) places: Places,
    pub(super) positions: BTreeMap<String, usize>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
    /// Every key that was asked for: the schema, as far as this document brings it out.
    #[cfg(test)]
    pub(super) known: Vec<Known>,
    /// What is set, by key path with names instead of list positions.
    pub(super) settings: BTreeMap<String, String>,
}

impl<'d> Source<'d> {
    pub(super) fn new(file: &'d Path, text: &'d str, places: Places) -> Self {
        Self {
            file,
            text,
            broken: false,
            places,
            positions: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            #[cfg(test)]
            known: Vec::new(),
            settings: BTreeMap::new(),
        }
    }

    /// Records that `key` is known; only the tests of the examples ask for that.
    #[cfg(test)]
    pub(super) fn note_known(
        &mut self,
        key: &str,
        default: Option<&'static str>,
        written: Option<&DeValue<'_>>,
    ) {
        use super::reader::{canonical, without_positions};
        let (path, written) = (without_positions(key), written.map(canonical));
        self.known.push(Known { path, default, written });
    }

    #[cfg(not(test))]
    pub(super) fn note_known(&self, _: &str, _: Option<&'static str>, _: Option<&DeValue<'_>>) {}

    pub(super) fn syntax(&mut self, error: &toml::de::Error) {
        self.broken = true;
        let offset = error.span().map_or(0, |span| span.start);
        let what = error.message().to_owned();
        let remark = self.remark(offset, String::new(), wrong(what, "this line is not TOML"));
        self.problems.push(Problem(remark));
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn remark(&self, offset: usize, key: String, wrong: Wrong) -> Remark {
        let before = self.text.get(..offset).unwrap_or_default();
        let line = before.bytes().filter(|c| *c == b'\n').count() + 1;
        Remark { file: self.file.into(), line, key, what: wrong.what, advice: wrong.advice }
    }

    /// The place of a key, or of the section that would have it.
    fn offset(&self, key: &str) -> usize {
        let mut key = key;
        loop {
            if let Some(offset) = self.positions.get(key) {
                return *offset;
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return 0,
            }
        }
    }

    pub(super) fn problem(
        &mut self,
        key: &str,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let remark = self.remark(self.offset(key), key.into(), wrong(what, advice));
        self.problems.push(Problem(remark));
    }

    pub(super) fn warning(
        &mut self,
        key: &str,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let remark = self.remark(self.offset(key), key.into(), wrong(what, advice));
        self.warnings.push(Warning(remark));
    }

    /// Whether the key or section stands in the file, readable or not.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.positions.contains_key(key)
    }

    pub(super) fn unknown_destination(
        &mut self,
        key: &str,
        name: &DestinationName,
        declared: &BTreeMap<DestinationName, Vec<usize>>,
    ) {
        let likeness =
            |known: &&DestinationName| strsim::jaro_winkler(known.as_str(), name.as_str());
        let nearest = declared.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let advice = match nearest {
            Some(known) if likeness(&known) >= LIKENESS_MIN => format!("did you mean `{known}`?"),
            _ => "add a [[destination]] with this name".into(),
        };
        self.problem(key, format!("there is no destination {name}"), advice);
    }
}
