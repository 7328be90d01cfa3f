//! What a CDA document says to a person: the narrative of its sections, which is what its signer
//! attests to (CDA R2 4.3.5), or the plain text or PDF that stands in their place (`nonXMLBody`).
//!
//! - Lines as a browser would break them: a paragraph, a row of a table, an item of a list each. The
//!   white space of XML counts as one space, and as none where a line of Japanese is broken; an
//!   ideographic space is a character like others. What is marked as deleted is not said.
//! - Nothing but the document is read: no DTD, no entity, no file or address that it names.
//! - All or nothing: what cannot be read, or is longer or deeper than the limits, tells nothing. The
//!   document itself goes on as it came.
//!
//! Limits: [`NODES_MAX`] nodes, [`DEPTH_MAX`] deep, [`TEXT_LENGTH_MAX`] bytes of text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use encoding_rs::{Encoding, UTF_8};
use roxmltree::{Document, Node, ParsingOptions};

use crate::dicom::report::TEXT_LENGTH_MAX;

/// Most nodes of a document that is read.
pub const NODES_MAX: u32 = 1_000_000;
/// Deepest nesting of sections and of what stands in them.
pub const DEPTH_MAX: usize = 64;
/// Where the XML declaration ends at the latest.
const DECLARATION_MAX: usize = 256;

/// What stands in a CDA document for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Narrative {
    /// Lines, ended by LF.
    Text(String),
    /// Its body is a PDF.
    Pdf(Vec<u8>),
}

/// The document could not be told within the limits.
struct Beyond;

/// What the document says; `None`: nothing, or nothing that can be read.
pub fn read(bytes: &[u8]) -> Option<Narrative> {
    let text = decoded(bytes);
    let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(&text, options).ok()?;
    let root = Some(document.root_element()).filter(|r| is(*r, "ClinicalDocument"))?;
    let body = children(root, "component").next()?;
    if let Some(plain) = children(body, "nonXMLBody").next() {
        return of_plain(children(plain, "text").next()?);
    }
    let mut lines = Lines::default();
    let sections = children(body, "structuredBody").flat_map(|b| children(b, "component"));
    for section in sections.flat_map(|c| children(c, "section")) {
        lines.section(section, 0).ok()?;
    }
    told(lines.text)
}

/// Whatever says something, and fits.
fn told(text: String) -> Option<Narrative> {
    let is_told = !text.trim().is_empty() && text.len() <= TEXT_LENGTH_MAX;
    is_told.then_some(Narrative::Text(text))
}

/// As its byte order mark or its declaration says it is written (XML 1.0 4.3.3).
fn decoded(bytes: &[u8]) -> String {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return encoding.decode_without_bom_handling(&bytes[mark..]).0.into_owned();
    }
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(DECLARATION_MAX)]);
    let declared = head.split_once("?>").and_then(|(declaration, _)| {
        let (_, value) = declaration.split_once("encoding")?;
        let value = value.trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
        Encoding::for_label(value[1..].split(quote).next()?.as_bytes())
    });
    declared.unwrap_or(UTF_8).decode_without_bom_handling(bytes).0.into_owned()
}

fn of_plain(said: Node<'_, '_>) -> Option<Narrative> {
    let texts = said.descendants().filter(|node| node.is_text());
    let text: String = texts.filter_map(|node| node.text()).collect();
    let is_coded = said.attribute("representation") == Some("B64");
    let bytes = match is_coded {
        true => {
            let plain: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
            STANDARD.decode(plain).ok()?
        }
        false => text.into_bytes(),
    };
    match said.attribute("mediaType").unwrap_or("text/plain") {
        "application/pdf" if is_coded => Some(Narrative::Pdf(bytes)),
        "text/plain" => {
            let text = decoded(&bytes).replace("\r\n", "\n").replace('\r', "\n");
            told(text.trim().to_owned())
        }
        _ => None,
    }
}

fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name
}

fn children<'a, 'i>(
    of: Node<'a, 'i>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> + use<'a, 'i> {
    of.children().filter(move |node| is(*node, name))
}

/// Between these a broken line of XML is no space.
const fn is_wide(c: char) -> bool {
    matches!(c, '\u{3000}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{ff00}'..='\u{ff9f}' | '\u{20000}'..='\u{3fffd}')
}

#[derive(Default)]
struct Lines {
    text: String,
    line: String,
    /// White space that has come since the last character of the line.
    space: Option<Space>,
    /// What the next line of an item begins with.
    mark: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    Blank,
    Break,
}

impl Lines {
    fn section(&mut self, section: Node<'_, '_>, depth: usize) -> Result<(), Beyond> {
        if depth > DEPTH_MAX {
            return Err(Beyond);
        }
        if !self.text.is_empty() && section.children().any(|n| is(n, "title") || is(n, "text")) {
            self.text.push('\n');
        }
        for part in children(section, "title").chain(children(section, "text")) {
            self.block(part, depth)?;
        }
        let inner = children(section, "component").flat_map(|c| children(c, "section"));
        for section in inner {
            self.section(section, depth + 1)?;
        }
        Ok(())
    }

    /// On lines of its own.
    fn block(&mut self, node: Node<'_, '_>, depth: usize) -> Result<(), Beyond> {
        self.end()?;
        self.inner(node, depth)?;
        self.end()
    }

    fn inner(&mut self, node: Node<'_, '_>, depth: usize) -> Result<(), Beyond> {
        if depth > DEPTH_MAX {
            return Err(Beyond);
        }
        for (n, child) in node.children().enumerate() {
            if let Some(text) = child.text().filter(|_| child.is_text()) {
                self.say(text);
            }
            if !child.is_element() || child.attribute("revised") == Some("delete") {
                continue;
            }
            match child.tag_name().name() {
                "paragraph" | "caption" | "table" | "tr" => self.block(child, depth + 1)?,
                "br" => self.end()?,
                "list" => self.list(child, depth + 1)?,
                "td" | "th" => {
                    if n > 0 && !self.line.is_empty() {
                        self.line.push_str("  ");
                        self.space = None;
                    }
                    self.inner(child, depth + 1)?;
                }
                _ => self.inner(child, depth + 1)?,
            }
        }
        Ok(())
    }

    fn list(&mut self, list: Node<'_, '_>, depth: usize) -> Result<(), Beyond> {
        for caption in children(list, "caption") {
            self.block(caption, depth)?;
        }
        let is_ordered = list.attribute("listType") == Some("ordered");
        for (n, item) in children(list, "item").enumerate() {
            self.end()?;
            self.mark = if is_ordered { format!("{}. ", n + 1) } else { "- ".to_owned() };
            self.inner(item, depth)?;
            self.end()?;
            self.mark.clear();
        }
        Ok(())
    }

    fn say(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\n' | '\r' => self.space = Some(Space::Break),
                ' ' | '\t' => self.space = self.space.or(Some(Space::Blank)),
                c => {
                    self.line.push_str(&std::mem::take(&mut self.mark));
                    let last = self.line.chars().next_back();
                    let is_broken = self.space == Some(Space::Break);
                    let is_one_word = is_broken && is_wide(c) && last.is_some_and(is_wide);
                    if self.space.take().is_some()
                        && !is_one_word
                        && last.is_some_and(|last| last != ' ')
                    {
                        self.line.push(' ');
                    }
                    self.line.push(c);
                }
            }
        }
    }

    /// The line ends; one that says nothing is none.
    fn end(&mut self) -> Result<(), Beyond> {
        let line = std::mem::take(&mut self.line);
        self.space = None;
        let line = line.trim_end_matches(' ');
        if !line.is_empty() {
            self.text.push_str(line);
            self.text.push('\n');
        }
        if self.text.len() > TEXT_LENGTH_MAX { Err(Beyond) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(body: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><ClinicalDocument xmlns=\"urn:hl7-org:v3\"><title>T</title>\
             <component>{body}</component></ClinicalDocument>"
        )
    }

    fn sections(sections: &str) -> Option<String> {
        match read(document(&format!("<structuredBody>{sections}</structuredBody>")).as_bytes()) {
            Some(Narrative::Text(text)) => Some(text),
            Some(Narrative::Pdf(_)) => panic!("no PDF"),
            None => None,
        }
    }

    #[test]
    fn sections_paragraphs_lists_and_tables_are_lines_and_deleted_words_are_not_said() {
        let said = sections(
            "<component><section><title>所見</title><text>
               <paragraph>右下葉に <content styleCode=\"Bold\">4 mm</content>\n     の結節を認\n  める。</paragraph>
               first<br/>second <content revised=\"delete\">not </content>line
               <list><item>骨　像 本 表 ソ</item><item><paragraph>ﾎﾝﾔｸ &amp; more</paragraph></item></list>
               <list listType=\"ordered\"><caption>Next</caption><item>CT</item><item>MR</item></list>
               <table><thead><tr><th>Size</th><th>HU</th></tr></thead>
                 <tbody><tr><td>4</td> <td>-600</td></tr></tbody></table></text>
               <component><section><title>Inner</title><text>deep</text></section></component>
             </section></component>
             <component><section><code code=\"1\"/></section></component>
             <component><section><title>診断</title><text>異常なし</text></section></component>",
        );
        let wanted = "所見\n右下葉に 4 mm の結節を認める。\nfirst\nsecond line\n- 骨　像 本 表 ソ\n\
                      - ﾎﾝﾔｸ & more\nNext\n1. CT\n2. MR\nSize  HU\n4  -600\n\nInner\ndeep\n\n\
                      診断\n異常なし\n";
        assert_eq!(said.as_deref(), Some(wanted));
    }

    #[test]
    fn a_body_that_is_plain_text_or_a_pdf_is_told_as_it_is() {
        let plain = document("<nonXMLBody><text> a\r\n b </text></nonXMLBody>");
        assert_eq!(read(plain.as_bytes()), Some(Narrative::Text("a\n b".into())));
        let pdf = document(
            "<nonXMLBody><text mediaType=\"application/pdf\" representation=\"B64\">JVBE\nRg==\
             </text></nonXMLBody>",
        );
        assert_eq!(read(pdf.as_bytes()), Some(Narrative::Pdf(b"%PDF".into())));
        let image = pdf.replace("application/pdf", "image/png");
        assert_eq!(read(image.as_bytes()), None);
    }

    #[test]
    fn every_encoding_that_the_document_names_is_read() {
        let body = "<structuredBody><component><section><text>骨 ソ 表</text></section></component>\
                    </structuredBody>";
        for label in ["UTF-8", "Shift_JIS", "EUC-JP", "ISO-2022-JP"] {
            let declared = format!("version='1.0' encoding='{label}'");
            let text = document(body).replace("version=\"1.0\"", &declared);
            let encoding = Encoding::for_label(label.as_bytes()).expect(label);
            let bytes = encoding.encode(&text).0;
            assert_eq!(read(&bytes), Some(Narrative::Text("骨 ソ 表\n".into())), "{label}");
        }
        let wide: Vec<u8> = "\u{feff}"
            .chars()
            .chain(document(body).chars())
            .collect::<String>()
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(read(&wide), Some(Narrative::Text("骨 ソ 表\n".into())));
    }

    #[test]
    fn what_is_no_document_too_deep_or_refers_to_something_else_tells_nothing() {
        let deep = |n: usize| {
            let (open, close) = ("<content>".repeat(n), "</content>".repeat(n));
            sections(&format!(
                "<component><section><text>{open}x{close}</text></section></component>"
            ))
        };
        assert_eq!(deep(DEPTH_MAX).as_deref(), Some("x\n"));
        assert_eq!(deep(DEPTH_MAX + 1), None);
        assert_eq!(deep(200_000), None);
        let bomb = "<!DOCTYPE d [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]>\
                    <ClinicalDocument><component><structuredBody><component><section><text>&b;\
                    </text></section></component></structuredBody></component></ClinicalDocument>";
        for odd in [bomb, "", "<a/>", "<ClinicalDocument/>", "\u{0}", "<ClinicalDocument>"] {
            assert_eq!(read(odd.as_bytes()), None, "{odd}");
        }
    }
}
