//! The content tree of a structured report (PS3.3 C.17.3) as text that a person reads.
//!
//! Containers become headings, their texts paragraphs; codes, numbers, names and times become
//! `name: value`. What qualifies an item stands in brackets after it, what it was inferred from
//! and its properties below it, indented. Coordinates are left out: they say nothing without the
//! image. Observation context (who, where, what of) is not report text; names of observers are
//! taken out of it.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::{Code, LIST_MAX, TEXT_LENGTH_MAX, code_of};
use crate::dicom::commitment::Reference;
use crate::dicom::dataset::{DEPTH_MAX, items, text};

/// What a tree says.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) text: String,
    pub(super) is_cut: bool,
    pub(super) language: String,
    /// Names of person observers.
    pub(super) observers: Vec<String>,
    /// Instances that it refers to.
    pub(super) references: Vec<Reference>,
    /// What its items say in codes.
    pub(super) codes: Vec<Code>,
    /// Names of its containers.
    pub(super) headings: Vec<String>,
}

/// An item that waits to be told.
struct Waiting<'a> {
    item: &'a InMemDicomObject,
    /// Levels of indentation.
    indent: usize,
    depth: usize,
    /// Whether the container it stands in has a heading.
    headed: bool,
}

impl Content {
    /// Reads the tree below a root.
    pub(super) fn of(root: &InMemDicomObject) -> Self {
        let mut content = Self::default();
        // Last in, first told; nothing recurses.
        let mut stack: Vec<Waiting<'_>> = Vec::new();
        let children = |parent: &Waiting<'_>| (parent.indent, parent.headed);
        let root = Waiting { item: root, indent: 0, depth: 0, headed: false };
        content.push_children(&root, children(&root), &mut stack);
        while let Some(next) = stack.pop() {
            if content.text.len() >= TEXT_LENGTH_MAX {
                content.is_cut = true;
                break;
            }
            content.tell(&next, &mut stack);
        }
        let end = content.text.trim_end().len();
        content.text.truncate(end);
        content
    }

    fn push_children<'a>(
        &mut self,
        parent: &Waiting<'a>,
        (indent, headed): (usize, bool),
        stack: &mut Vec<Waiting<'a>>,
    ) {
        if parent.depth >= DEPTH_MAX {
            self.is_cut = true;
            return;
        }
        let all = items(parent.item, tags::CONTENT_SEQUENCE);
        for item in all {
            self.note_context(item);
        }
        let told = |item: &&InMemDicomObject| {
            !matches!(&*relationship(item), "HAS OBS CONTEXT" | "HAS CONCEPT MOD")
        };
        let depth = parent.depth + 1;
        let waiting = all.iter().filter(told).map(|item| Waiting { item, indent, depth, headed });
        stack.extend(waiting.rev());
    }

    /// Language and observers, wherever they stand.
    fn note_context(&mut self, item: &InMemDicomObject) {
        let name = name_of(item);
        // DCM 121049 "Language of Content Item and Descendants".
        if name.is("121049", "DCM") && self.language.is_empty() {
            self.language = code_of(items(item, tags::CONCEPT_CODE_SEQUENCE)).value;
        }
        let is_name = text(item, tags::VALUE_TYPE) == "PNAME";
        if is_name && relationship(item) == "HAS OBS CONTEXT" && self.observers.len() < LIST_MAX {
            let name = text(item, tags::PERSON_NAME);
            if !name.is_empty() && !self.observers.contains(&name) {
                self.observers.push(name);
            }
        }
    }

    fn tell<'a>(&mut self, next: &Waiting<'a>, stack: &mut Vec<Waiting<'a>>) {
        let item = next.item;
        let (name, kind) = (name_of(item), text(item, tags::VALUE_TYPE));
        let modifiers = modifiers(item);
        if kind == "CONTAINER" {
            let headed = !name.meaning.is_empty();
            if headed {
                if self.headings.len() < LIST_MAX {
                    self.headings.push(name.meaning.clone());
                }
                if !self.text.is_empty() {
                    self.text.push('\n');
                }
                self.line(next.indent, &format!("{}{modifiers}", name.meaning));
            }
            self.push_children(next, (next.indent, headed), stack);
            return;
        }
        for reference in items(item, tags::REFERENCED_SOP_SEQUENCE).iter().map(Reference::of) {
            if self.references.len() < LIST_MAX && !self.references.contains(&reference) {
                self.references.push(reference);
            }
        }
        if kind == "CODE" && self.codes.len() < LIST_MAX {
            self.codes.push(code_of(items(item, tags::CONCEPT_CODE_SEQUENCE)));
        }
        let value = value_of(item, &kind);
        if let Some(value) = value {
            // A text below a heading needs no name: "Findings / Finding: ..." says it twice.
            let named = !(name.meaning.is_empty() || kind == "TEXT" && next.headed);
            let told = match (named, value.contains('\n')) {
                (false, _) => format!("{value}{modifiers}"),
                (true, true) => format!("{}{modifiers}:\n{value}", name.meaning),
                (true, false) => format!("{}: {value}{modifiers}", name.meaning),
            };
            self.line(next.indent, &told);
        }
        self.push_children(next, ((next.indent + 1).min(DEPTH_MAX), false), stack);
    }

    fn line(&mut self, indent: usize, told: &str) {
        for line in told.split('\n') {
            if self.text.len() + line.len() > TEXT_LENGTH_MAX {
                self.is_cut = true;
                return;
            }
            self.text.extend(std::iter::repeat_n("  ", indent));
            self.text.push_str(line);
            self.text.push('\n');
        }
    }
}

fn relationship(item: &InMemDicomObject) -> String {
    text(item, tags::RELATIONSHIP_TYPE)
}

fn name_of(item: &InMemDicomObject) -> Code {
    code_of(items(item, tags::CONCEPT_NAME_CODE_SEQUENCE))
}

/// ` [side: left, type: mass]`, or nothing.
fn modifiers(item: &InMemDicomObject) -> String {
    let told: Vec<String> = items(item, tags::CONTENT_SEQUENCE)
        .iter()
        .filter(|child| relationship(child) == "HAS CONCEPT MOD")
        // The language is no part of the text.
        .filter(|child| !name_of(child).is("121049", "DCM"))
        .filter_map(|child| {
            let value = value_of(child, &text(child, tags::VALUE_TYPE))?;
            let name = name_of(child).meaning;
            Some(if name.is_empty() { value } else { format!("{name}: {value}") })
        })
        .collect();
    if told.is_empty() { String::new() } else { format!(" [{}]", told.join(", ")) }
}

/// The value of an item as text; none where it has none that a person could read.
fn value_of(item: &InMemDicomObject, kind: &str) -> Option<String> {
    let of = |tag: Tag| text(item, tag);
    let value = match kind {
        "TEXT" => paragraph(item),
        "CODE" => shown(&code_of(items(item, tags::CONCEPT_CODE_SEQUENCE))),
        "NUM" => number(item),
        "PNAME" => of(tags::PERSON_NAME),
        "DATE" => of(tags::DATE),
        "TIME" => of(tags::TIME),
        "DATETIME" => of(tags::DATE_TIME),
        "UIDREF" => of(tags::UID),
        "IMAGE" | "COMPOSITE" | "WAVEFORM" => {
            let referenced = items(item, tags::REFERENCED_SOP_SEQUENCE).first()?;
            format!("({} {})", kind.to_ascii_lowercase(), Reference::of(referenced).instance)
        }
        _ => return None,
    };
    (!value.trim().is_empty()).then_some(value)
}

/// Text Value (0040,A160): its lines, with the blanks that they begin with.
fn paragraph(item: &InMemDicomObject) -> String {
    let value = item.get(tags::TEXT_VALUE).and_then(|e| e.value().primitive());
    let text = value.map(|v| v.to_str().into_owned()).unwrap_or_default();
    text.replace("\r\n", "\n").replace('\r', "\n").trim_end().to_owned()
}

fn shown(code: &Code) -> String {
    if code.meaning.is_empty() { code.value.clone() } else { code.meaning.clone() }
}

/// Value and unit; or why there is none.
fn number(item: &InMemDicomObject) -> String {
    let Some(measured) = items(item, tags::MEASURED_VALUE_SEQUENCE).first() else {
        return shown(&code_of(items(item, tags::NUMERIC_VALUE_QUALIFIER_CODE_SEQUENCE)));
    };
    let value = text(measured, tags::NUMERIC_VALUE);
    let unit = code_of(items(measured, tags::MEASUREMENT_UNITS_CODE_SEQUENCE));
    // UCUM's name of "no unit".
    match &*unit.value {
        "" | "1" => value,
        unit => format!("{value} {unit}"),
    }
}
