//! Walks a TOML document section by section and gathers everything that is wrong, instead of
//! stopping at the first fault as a derived deserializer does.
//!
//! Each key is asked for once, with its parser and, where it has one, its default as TOML text;
//! so the list of known keys, the defaults and the "unknown key" message cannot drift apart from
//! what is read.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::routing::PATTERNS_MAX;

use super::problem::Problem;
use super::source::{LIKENESS_MIN, Source};
use super::value::{Places, Wrong, mismatch, path};

/// Most items of a list of patterns or destinations.
const ITEMS_MAX: usize = PATTERNS_MAX;

type Value<'d> = Spanned<DeValue<'d>>;

/// A table of the document, or one that is absent, whose keys then all have their defaults.
#[derive(Debug)]
pub(super) struct Section<'d, 's> {
    source: &'s mut Source<'d>,
    table: Option<&'d DeTable<'d>>,
    path: String,
    label: String,
    asked: Vec<&'static str>,
    elsewhere: Vec<(&'static str, &'static str)>,
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

/// `destination[3].address` without its positions.
pub(super) fn without_positions(path: &str) -> String {
    let mut inside = false;
    let keep = |c: &char| {
        inside = *c == '[' || inside && *c != ']';
        !inside || *c == '['
    };
    path.chars().filter(keep).collect()
}

/// One way to write a value, whatever its layout in the file.
pub(super) fn canonical(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(s) => format!("{s:?}"),
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| canonical(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(table) => {
            let one = |(k, v): (&Spanned<_>, &Value<'_>)| {
                let key: &std::borrow::Cow<'_, str> = k.get_ref();
                format!("{key} = {}", canonical(v.get_ref()))
            };
            format!("{{ {} }}", table.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(n) => n.as_str().into(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(t) => t.to_string(),
    }
}

fn name_of<'d>(table: &'d DeTable<'d>) -> Option<&'d str> {
    let (_, value) = table.iter().find(|(key, _)| key.get_ref() == "name")?;
    value.get_ref().as_str()
}

impl<'d, 's> Section<'d, 's> {
    /// The section of the whole document.
    pub(super) fn root(source: &'s mut Source<'d>, table: &'d DeTable<'d>) -> Self {
        Self::new(source, Some(table), String::new(), String::new())
    }

    fn new(
        source: &'s mut Source<'d>,
        table: Option<&'d DeTable<'d>>,
        path: String,
        label: String,
    ) -> Self {
        Self { source, table, path, label, asked: Vec::new(), elsewhere: Vec::new() }
    }

    fn key_path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Marks `key` as known and gives its value.
    fn ask(&mut self, key: &'static str, default: Option<&'static str>) -> Option<&'d Value<'d>> {
        self.asked.push(key);
        let full = self.key_path(key);
        let found = self.table.and_then(|table| table.iter().find(|(k, _)| k.get_ref() == key));
        self.source.note_known(&full, default, found.map(|(_, value)| value.get_ref()));
        let (key_span, value) = found?;
        self.source.positions.insert(full, key_span.span().start);
        Some(value)
    }

    fn set(&mut self, key: &str, value: impl Into<String>) {
        let label = join(&self.label, key);
        self.source.settings.insert(label, value.into());
    }

    fn parse<T>(
        &mut self,
        key: &str,
        value: &Value<'d>,
        parse: impl FnOnce(&DeValue<'d>) -> Result<T, Wrong>,
    ) -> Option<T> {
        match parse(value.get_ref()) {
            Ok(parsed) => Some(parsed),
            Err(wrong) => {
                let key = self.key_path(key);
                let remark = self.source.remark(value.span().start, key, wrong);
                self.source.problems.push(Problem(remark));
                None
            }
        }
    }

    fn missing(&mut self, key: &str) {
        if self.source.is_broken() {
            return;
        }
        let full = self.key_path(key);
        self.source.problem(&full, "is missing", "it has no default: write it into this section");
    }

    /// A key that must be there.
    pub(super) fn need<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'d>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let Some(value) = self.ask(key, None) else {
            self.missing(key);
            return None;
        };
        self.set(key, canonical(value.get_ref()));
        self.parse(key, value, parse)
    }

    /// A key that may be left out.
    pub(super) fn maybe<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'d>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.ask(key, None)?;
        self.set(key, canonical(value.get_ref()));
        self.parse(key, value, parse)
    }

    /// A key with a default, which is given as it would stand in the file.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: &'static str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> T {
        if let Some(value) = self.ask(key, Some(default)) {
            self.set(key, canonical(value.get_ref()));
            if let Some(parsed) = self.parse(key, value, &parse) {
                return parsed;
            }
        } else {
            self.set(key, default);
        }
        let value = DeValue::parse(default).expect("a default of ours is TOML");
        parse(value.get_ref()).unwrap_or_else(|wrong| panic!("default of {key}: {wrong:?}"))
    }

    /// A list, each item by `parse`; `None` when the key is absent or is no list.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&DeValue<'d>) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let value = self.ask(key, None)?;
        self.set(key, canonical(value.get_ref()));
        match value.get_ref() {
            DeValue::Array(_) => Some(self.items(key, value, &parse)),
            other => {
                let wrong = mismatch(other, "a list in square brackets");
                self.parse(key, value, |_| Err::<(), _>(wrong));
                None
            }
        }
    }

    /// The items of a list, or a single value as a list of one.
    fn items<T>(
        &mut self,
        key: &str,
        value: &'d Value<'d>,
        parse: &impl Fn(&DeValue<'d>) -> Result<T, Wrong>,
    ) -> Vec<T> {
        let DeValue::Array(items) = value.get_ref() else {
            return self.parse(key, value, parse).into_iter().collect();
        };
        let mut parsed = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let key = format!("{key}[{i}]");
            self.source.positions.insert(self.key_path(&key), item.span().start);
            parsed.extend(self.parse(&key, item, parse));
        }
        parsed
    }

    /// One value or a list of 1 to [`ITEMS_MAX`]; `None` when absent.
    pub(super) fn one_or_list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&DeValue<'d>) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let value = self.ask(key, None)?;
        self.set(key, canonical(value.get_ref()));
        self.check_length(key, value);
        Some(self.items(key, value, &parse))
    }

    /// The same, when it must be there.
    pub(super) fn need_one_or_list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&DeValue<'d>) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        if !self.has(key) {
            self.missing(key);
        }
        self.one_or_list(key, parse)
    }

    fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.iter().any(|(name, _)| name.get_ref() == key))
    }

    fn check_length(&mut self, key: &str, value: &Value<'d>) {
        let DeValue::Array(items) = value.get_ref() else { return };
        if items.is_empty() || items.len() > ITEMS_MAX {
            let what = format!("is a list of {}", items.len());
            self.problem(key, what, format!("write 1 to {ITEMS_MAX}"));
        }
    }

    /// Every key of this section that is not asked for by name, with one value or several. The
    /// caller says what is wrong with a key.
    pub(super) fn entries<K, T>(
        &mut self,
        key: impl Fn(&str) -> Result<K, Wrong>,
        parse: impl Fn(&DeValue<'d>) -> Result<T, Wrong>,
    ) -> Vec<(K, Vec<T>)> {
        let mut entries = Vec::new();
        for (name, value) in self.table.into_iter().flatten() {
            let full = self.key_path(name.get_ref());
            self.source.positions.insert(full.clone(), name.span().start);
            self.set(name.get_ref(), canonical(value.get_ref()));
            self.check_length(name.get_ref(), value);
            let items = self.items(name.get_ref(), value, &parse);
            match key(name.get_ref()) {
                Ok(key) => entries.push((key, items)),
                Err(Wrong { what, advice }) => self.source.problem(&full, what, advice),
            }
        }
        entries
    }

    /// A path that must be there.
    pub(super) fn need_path(&mut self, key: &'static str) -> Option<PathBuf> {
        let places = self.source.places.clone();
        self.need(key, |value| path(value, &places))
    }

    /// A path that may be left out.
    pub(super) fn maybe_path(&mut self, key: &'static str) -> Option<PathBuf> {
        let places = self.source.places.clone();
        self.maybe(key, |value| path(value, &places))
    }

    /// One path or several; none when absent.
    pub(super) fn paths(&mut self, key: &'static str) -> Vec<PathBuf> {
        let places = self.source.places.clone();
        self.one_or_list(key, |value| path(value, &places)).unwrap_or_default()
    }

    /// A path with a default.
    pub(super) fn path_or(&mut self, key: &'static str, default: &'static str) -> PathBuf {
        let places = self.source.places.clone();
        self.or(key, default, |value| path(value, &places))
    }

    fn sub<T>(
        &mut self,
        key: String,
        table: Option<&'d DeTable<'d>>,
        read: impl FnOnce(&mut Section<'d, '_>) -> T,
    ) -> T {
        let path = self.key_path(&key);
        let name = table.and_then(name_of).filter(|_| key.ends_with(']'));
        let label = match name {
            Some(name) => {
                join(&self.label, &format!("{}.{name}", &without_positions(&key))).replace("[]", "")
            }
            None => join(&self.label, &key),
        };
        let mut section = Section::new(self.source, table, path, label);
        let result = read(&mut section);
        section.finish();
        result
    }

    fn as_table(&mut self, key: &str, value: &'d Value<'d>) -> Option<&'d DeTable<'d>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let wrong = mismatch(other, "a table: a [section] or { key = value }");
                self.parse(key, value, |_| Err(wrong))
            }
        }
    }

    /// A section in which every key has a default; absent, it is read as empty.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'d, '_>) -> T,
    ) -> T {
        let value = self.ask(key, None);
        let table = value.and_then(|value| self.as_table(key, value));
        self.sub(key.into(), table, read)
    }

    /// A section that may be left out.
    pub(super) fn maybe_table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'d, '_>) -> Option<T>,
    ) -> Option<T> {
        let value = self.ask(key, None)?;
        let table = self.as_table(key, value)?;
        self.sub(key.into(), Some(table), read)
    }

    /// A list of tables, with the position of each that could be read.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'d, '_>) -> Option<T>,
    ) -> Vec<(usize, T)> {
        let Some(value) = self.ask(key, None) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            let wanted =
                format!("a list of tables: [[{}]], or {key} = [{{ … }}]", self.key_path(key));
            let wrong = mismatch(value.get_ref(), &wanted);
            self.parse(key, value, |_| Err::<(), _>(wrong));
            return Vec::new();
        };
        let mut all = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let key = format!("{key}[{i}]");
            self.source.positions.insert(self.key_path(&key), item.span().start);
            if let Some(table) = self.as_table(&key, item) {
                all.extend(self.sub(key, Some(table), &mut read).map(|read| (i, read)));
            }
        }
        all
    }

    /// Says of keys that they are known, but belong with `owner`.
    pub(super) fn belong_to(&mut self, keys: &[&'static str], owner: &'static str) {
        self.elsewhere.extend(keys.iter().map(|key| (*key, owner)));
    }

    /// A problem with a key of this section.
    pub(super) fn problem(
        &mut self,
        key: &str,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let full = self.key_path(key);
        self.source.problem(&full, what, advice);
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(mut self) {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if !self.asked.is_empty() && !self.asked.contains(&name) {
                let advice = self.advice(name);
                let full = self.key_path(name);
                self.source.positions.insert(full, key.span().start);
                self.problem(name, "is no key of this section", advice);
            }
        }
    }

    fn advice(&self, wrong: &str) -> String {
        if let Some((_, owner)) = self.elsewhere.iter().find(|(key, _)| *key == wrong) {
            return format!("it belongs to {owner}");
        }
        let likeness = |key: &&&str| strsim::jaro_winkler(key, wrong);
        let nearest = self.asked.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        match nearest {
            Some(key) if likeness(&key) >= LIKENESS_MIN => format!("did you mean `{key}`?"),
            _ => format!("known here: {}", self.asked.join(", ")),
        }
    }
}

/// The keys that `read` asks for.
pub(super) fn keys_of<T>(read: impl FnOnce(&mut Section<'static, '_>) -> T) -> Vec<&'static str> {
    let mut source = Source::new(Path::new(""), "", Places::default());
    let mut section = Section::new(&mut source, None, String::new(), String::new());
    read(&mut section);
    section.asked
}
