//! Text as pages: a PDF 1.7 of A4 pages with Japanese and Western text (docs/decisions/0023).
//!
//! No font file is embedded. ASCII is set in Courier, one of the fonts that every reader has; all
//! else in a font of the character collection Adobe-Japan1 by way of the predefined CMap
//! `UniJIS-UTF16-H` (ISO 32000-1 9.7.5.2), for which readers have or find one. Widths do not
//! depend on which: 600 for ASCII, 500 for half-width kana, 1000 for the rest. A map to Unicode
//! goes along, so that text is found and copied exactly.
//!
//! A character that the collection lacks is shown as 〓 and told below the text by its number: it
//! is never silently gone.

use encoding_rs::EUC_JP;
use pdf_writer::types::{CidFontType, FontFlags, SystemInfo};
use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

/// Most pages; a longer text is told to be cut.
pub const PDF_PAGES_MAX: usize = 500;

/// A4 in points, wide and high.
const PAGE: (f32, f32) = (595.0, 842.0);
/// Blank on every side.
const MARGIN: f32 = 56.0;
const SIZE: f32 = 10.5;
const LEADING: f32 = 15.75;
/// Width of a line in thousandths of the size.
const LINE_WIDTH: u32 = 46_000;
/// Lines of a page, the head line left out.
const LINES: usize = 44;
/// What a character is shown as that no font here has.
const GETA: char = '〓';

const LATIN: Name<'static> = Name(b"L");
const JAPANESE: Name<'static> = Name(b"J");
/// ISO 32000-1 does not say that it must be installed: readers substitute by its collection.
const JAPANESE_FONT: Name<'static> = Name(b"Ryumin-Light");

/// A text as pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    /// The PDF.
    pub bytes: Vec<u8>,
    /// How many pages.
    pub count: usize,
    /// Characters that are shown as 〓.
    pub unshown: Vec<char>,
    /// Whether the text goes on beyond [`PDF_PAGES_MAX`].
    pub is_cut: bool,
}

/// A character as it is set.
struct Glyph {
    is_latin: bool,
    width: u32,
}

fn glyph(c: char) -> Glyph {
    match c {
        ' '..='~' => Glyph { is_latin: true, width: 600 },
        '\u{FF61}'..='\u{FF9F}' => Glyph { is_latin: false, width: 500 },
        _ => Glyph { is_latin: false, width: 1000 },
    }
}

/// Whether Adobe-Japan1 surely has it: ASCII, half-width kana, JIS X 0208 and 0212, all of which
/// EUC-JP reads.
fn is_shown(c: char) -> bool {
    let mut one = [0; 4];
    // Its writer lacks JIS X 0212; its reader says what there is.
    c.is_ascii_graphic()
        || c == ' '
        || ('\u{FF61}'..='\u{FF9F}').contains(&c)
        || !EUC_JP.encode(c.encode_utf8(&mut one)).2
        || supplement(c)
}

fn supplement(c: char) -> bool {
    static HAS: std::sync::OnceLock<std::collections::HashSet<char>> = std::sync::OnceLock::new();
    let codes = || (0xA1..=0xFE_u8).flat_map(|a| (0xA1..=0xFE_u8).map(move |b| [0x8F, a, b]));
    let read = |code: [u8; 3]| {
        let text = EUC_JP.decode_without_bom_handling_and_without_replacement(&code)?;
        text.chars().next()
    };
    HAS.get_or_init(|| codes().filter_map(read).collect()).contains(&c)
}

impl Pages {
    /// Sets `text`, lines separated by LF, under `head`, which stands on each page.
    pub fn of(head: &str, text: &str) -> Self {
        let mut unshown = Vec::new();
        let head: String = shown(head, &mut unshown).chars().take(76).collect();
        let mut lines: Vec<String> = Vec::new();
        let most = LINES * PDF_PAGES_MAX;
        let mut is_cut = false;
        for line in text.replace("\r\n", "\n").split(['\n', '\r']) {
            if lines.len() >= most {
                is_cut = true;
                break;
            }
            wrap(&shown(line, &mut unshown), &mut lines);
        }
        if !unshown.is_empty() {
            let numbers: Vec<String> =
                unshown.iter().take(100).map(|c| format!("U+{:04X}", u32::from(*c))).collect();
            lines.push(String::new());
            wrap(&format!("{GETA} = {}", numbers.join(", ")), &mut lines);
        }
        is_cut |= lines.len() > most;
        lines.truncate(most);
        if is_cut && let Some(last) = lines.last_mut() {
            "[...]".clone_into(last);
        }
        let pages: Vec<&[String]> = lines.chunks(LINES).collect();
        let bytes = document(&head, &pages);
        Self { bytes, count: pages.len(), unshown, is_cut }
    }
}

/// A line with blanks for tabs and 〓 for what cannot be shown.
fn shown(line: &str, unshown: &mut Vec<char>) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            '\u{A0}' => out.push(' '),
            c if is_shown(c) => out.push(c),
            c => {
                if !unshown.contains(&c) && unshown.len() < 1000 {
                    unshown.push(c);
                }
                out.push(GETA);
            }
        }
    }
    out
}

/// Breaks a line where it is full: at the last blank of Western text, anywhere between kanji, but
/// not before a full stop or closing bracket.
fn wrap(line: &str, lines: &mut Vec<String>) {
    let mut rest: Vec<char> = line.chars().collect();
    loop {
        let mut width = 0;
        let fits = rest
            .iter()
            .take_while(|c| {
                width += glyph(**c).width;
                width <= LINE_WIDTH
            })
            .count();
        if fits == rest.len() {
            lines.push(rest.into_iter().collect());
            return;
        }
        let within_word = |at: usize| {
            let word = |c: char| c.is_ascii_graphic();
            word(rest[at - 1]) && word(rest[at])
        };
        let hangs = |at: usize| "、。，．・：；？！）」』】〕］｝ー".contains(rest[at]);
        let at = (fits / 2..=fits).rev().find(|at| *at > 0 && !within_word(*at) && !hangs(*at));
        let at = at.unwrap_or(fits).max(1);
        let tail = rest.split_off(at);
        lines.push(rest.into_iter().collect::<String>().trim_end().to_owned());
        let blanks = tail.iter().take_while(|c| **c == ' ').count();
        rest = tail[blanks.min(tail.len())..].to_vec();
        if rest.is_empty() {
            return;
        }
    }
}

/// Object numbers.
const CATALOG: Ref = Ref::new(1);
const TREE: Ref = Ref::new(2);
const LATIN_FONT: Ref = Ref::new(3);
const COMPOSITE: Ref = Ref::new(4);
const CID_FONT: Ref = Ref::new(5);
const DESCRIPTOR: Ref = Ref::new(6);
const TO_UNICODE: Ref = Ref::new(7);
const INFO: Ref = Ref::new(8);

fn document(head: &str, pages: &[&[String]]) -> Vec<u8> {
    let mut pdf = Pdf::new();
    // Two objects for each page, after those that all of them share.
    let number = |page: usize, which: i32| {
        Ref::new(9 + 2 * i32::try_from(page).unwrap_or(i32::MAX / 4) + which)
    };
    pdf.set_version(1, 7);
    pdf.catalog(CATALOG).pages(TREE);
    pdf.document_info(INFO).producer(TextStr("hikyaku"));
    let count = i32::try_from(pages.len()).unwrap_or(i32::MAX);
    pdf.pages(TREE).kids((0..pages.len()).map(|n| number(n, 0))).count(count);
    for (n, lines) in pages.iter().enumerate() {
        let mut page = pdf.page(number(n, 0));
        page.media_box(Rect::new(0.0, 0.0, PAGE.0, PAGE.1)).parent(TREE).contents(number(n, 1));
        let mut resources = page.resources();
        resources.fonts().pair(LATIN, LATIN_FONT).pair(JAPANESE, COMPOSITE);
        resources.finish();
        page.finish();
        let mut content = Content::new();
        let top = PAGE.1 - MARGIN;
        set_line(&mut content, head, top);
        let foot = format!("{} / {}", n + 1, pages.len());
        set_line(&mut content, &foot, MARGIN - LEADING);
        let mut y = top - LEADING;
        for line in *lines {
            y -= LEADING;
            set_line(&mut content, line, y);
        }
        pdf.stream(number(n, 1), &content.finish());
    }
    fonts(&mut pdf);
    pdf.finish()
}

/// One line, in runs of either font.
fn set_line(content: &mut Content, line: &str, y: f32) {
    if line.is_empty() {
        return;
    }
    content.begin_text().next_line(MARGIN, y);
    let chars: Vec<char> = line.chars().collect();
    for run in chars.chunk_by(|a, b| glyph(*a).is_latin == glyph(*b).is_latin) {
        let latin = glyph(run[0]).is_latin;
        content.set_font(if latin { LATIN } else { JAPANESE }, SIZE);
        let text: String = run.iter().collect();
        let bytes: Vec<u8> = if latin {
            text.into_bytes()
        } else {
            text.encode_utf16().flat_map(u16::to_be_bytes).collect()
        };
        content.show(Str(&bytes));
    }
    content.end_text();
}

fn fonts(pdf: &mut Pdf) {
    pdf.type1_font(LATIN_FONT)
        .base_font(Name(b"Courier"))
        .encoding_predefined(Name(b"WinAnsiEncoding"));
    pdf.type0_font(COMPOSITE)
        .base_font(Name(b"Ryumin-Light-UniJIS-UTF16-H"))
        .encoding_predefined(Name(b"UniJIS-UTF16-H"))
        .descendant_font(CID_FONT)
        .to_unicode(TO_UNICODE);
    let info = SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"Japan1"), supplement: 6 };
    let mut font = pdf.cid_font(CID_FONT);
    font.subtype(CidFontType::Type0).base_font(JAPANESE_FONT).system_info(info);
    font.font_descriptor(DESCRIPTOR).default_width(1000.0);
    // Proportional Latin and half-width characters of the collection.
    font.widths().same(1, 632, 500.0);
    font.finish();
    pdf.font_descriptor(DESCRIPTOR)
        .name(JAPANESE_FONT)
        .flags(FontFlags::SERIF | FontFlags::SYMBOLIC)
        .bbox(Rect::new(0.0, -250.0, 1000.0, 880.0))
        .italic_angle(0.0)
        .ascent(880.0)
        .descent(-120.0)
        .cap_height(700.0)
        .stem_v(80.0);
    pdf.stream(TO_UNICODE, &to_unicode());
}

/// UTF-16 to itself: a range may vary in its last byte only, and 100 ranges make a block
/// (Adobe technical note 5014).
fn to_unicode() -> Vec<u8> {
    let mut out = String::from(
        "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n/CIDSystemInfo \
         << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def\n/CMapName /Adobe-Identity-UCS \
         def\n/CMapType 2 def\n1 begincodespacerange\n<0000> <FFFF>\nendcodespacerange\n",
    );
    // Surrogates come in pairs, which a range of two bytes cannot say.
    let rows: Vec<u32> = (0..=0xFF).filter(|row| !(0xD8..=0xDF).contains(row)).collect();
    for block in rows.chunks(100) {
        out.push_str(&format!("{} beginbfrange\n", block.len()));
        for row in block {
            out.push_str(&format!("<{row:02X}00> <{row:02X}FF> <{row:02X}00>\n"));
        }
        out.push_str("endbfrange\n");
    }
    out.push_str("endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n");
    out.into_bytes()
}
