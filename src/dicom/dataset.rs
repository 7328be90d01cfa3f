//! Small data sets as objects: those of worklist, performed procedure step, commitment and query.
//!
//! Never on the way of an image, whose bytes stay as they came. A data set is read whole, at most
//! [`DATA_SET_LENGTH_MAX`] bytes of it, from a flat stream of tokens with an explicit stack of at
//! most [`DEPTH_MAX`] levels, so that no nesting overflows anything, and with at most
//! [`ELEMENTS_MAX`] elements, so that memory is bounded. Text is Unicode in the object, whatever
//! its Specific Character Set was, and without padding.

use dicom_core::value::{C, DataSetSequence, PrimitiveValue, Value};
use dicom_core::{DataElement, Length, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_encoding::TransferSyntax;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_object::InMemDicomObject;
use dicom_parser::dataset::DataToken;
use dicom_parser::dataset::read::{DataSetReader, DataSetReaderOptions, ValueReadStrategy};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::text::Repertoire;
use super::{EXPLICIT_VR_LE, IMPLICIT_VR_LE};

/// Longest data set that is read into an object, in bytes.
pub const DATA_SET_LENGTH_MAX: usize = 4 * 1024 * 1024;

/// Deepest nesting of sequences.
pub const DEPTH_MAX: usize = 32;

/// Most elements and items, nested ones included: a commitment of 30,000 images has 90,000.
pub const ELEMENTS_MAX: usize = 100_000;

/// Why bytes are no data set that can be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataSetError {
    /// Longer than [`DATA_SET_LENGTH_MAX`], or more elements than [`ELEMENTS_MAX`].
    #[error("the data set is larger than this node takes for this service")]
    TooLarge,
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("sequences are nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// The bytes cannot be read to their end; in words without values.
    #[error("the data set cannot be read: {0}")]
    Unreadable(String),
    /// Neither Explicit nor Implicit VR Little Endian.
    #[error("transfer syntax {0} is not one of this service")]
    Syntax(String),
}

fn syntax_of(uid: &str) -> Result<&'static TransferSyntax, DataSetError> {
    let unknown = || DataSetError::Syntax(uid.to_owned());
    if ![EXPLICIT_VR_LE, IMPLICIT_VR_LE].contains(&uid) {
        return Err(unknown());
    }
    TransferSyntaxRegistry.get(uid).ok_or_else(unknown)
}

/// Without its sources: those may quote values.
fn unreadable(e: impl std::error::Error) -> DataSetError {
    DataSetError::Unreadable(e.to_string())
}

/// One level of nesting.
struct Level {
    set: InMemDicomObject,
    repertoire: Repertoire,
    /// The sequence that is open in it.
    sequence: Option<(Tag, C<InMemDicomObject>)>,
}

impl Level {
    fn new(repertoire: Repertoire) -> Self {
        Self { set: InMemDicomObject::new_empty(), repertoire, sequence: None }
    }
}

/// The data set that `bytes` are in `syntax`, which is Explicit or Implicit VR Little Endian.
pub fn read(bytes: &[u8], syntax: &str) -> Result<InMemDicomObject, DataSetError> {
    read_within(bytes, syntax, DATA_SET_LENGTH_MAX)
}

/// The same with a limit of its own: for documents that a data set carries as one value.
pub fn read_within(
    bytes: &[u8],
    syntax: &str,
    length_max: usize,
) -> Result<InMemDicomObject, DataSetError> {
    if bytes.len() > length_max {
        return Err(DataSetError::TooLarge);
    }
    let options = DataSetReaderOptions::default().value_read(ValueReadStrategy::Raw);
    let reader = DataSetReader::new_with_ts_options(bytes, syntax_of(syntax)?, options)
        .map_err(unreadable)?;
    let mut builder = Builder { levels: vec![Level::new(Repertoire::default())], element: None };
    for (n, token) in reader.enumerate() {
        // An element is two tokens, an item as well.
        if n > 2 * ELEMENTS_MAX {
            return Err(DataSetError::TooLarge);
        }
        builder.take(token.map_err(unreadable)?, bytes.len())?;
    }
    match (builder.levels.pop(), builder.levels.is_empty()) {
        (Some(Level { set, sequence: None, .. }), true) => Ok(set),
        _ => Err(DataSetError::Unreadable("it ends within a sequence".into())),
    }
}

struct Builder {
    levels: Vec<Level>,
    /// The element whose value comes next.
    element: Option<(Tag, VR)>,
}

impl Builder {
    fn take(&mut self, token: DataToken, length: usize) -> Result<(), DataSetError> {
        let depth = self.levels.len();
        let misplaced = || DataSetError::Unreadable("an item or its end outside a sequence".into());
        let level = self.levels.last_mut().ok_or_else(misplaced)?;
        match token {
            // A delimiter that ends nothing: an element before it has a wrong length.
            DataToken::ElementHeader(header) if header.tag.group() == 0xFFFE => {
                return Err(misplaced());
            }
            DataToken::ElementHeader(header) => {
                // Before the value is read: its length is a claim.
                if header.len.get().is_none_or(|len| len as usize > length) {
                    let tag = header.tag;
                    return Err(DataSetError::Unreadable(format!("{tag} reaches beyond it")));
                }
                self.element = Some((header.tag, header.vr));
            }
            DataToken::PrimitiveValue(value) => {
                if let Some((tag, vr)) = self.element.take() {
                    let value = typed(value, vr, level.repertoire);
                    if tag == tags::SPECIFIC_CHARACTER_SET {
                        level.repertoire = Repertoire::of(&value.to_str());
                    }
                    // A group length says nothing that is still true.
                    if tag.element() != 0 {
                        level.set.put(DataElement::new(tag, vr, value));
                    }
                }
            }
            DataToken::SequenceStart { tag, .. } => level.sequence = Some((tag, C::new())),
            DataToken::SequenceEnd => {
                let (tag, items) = level.sequence.take().ok_or_else(misplaced)?;
                let items = DataSetSequence::new(items, Length::UNDEFINED);
                level.set.put(DataElement::new(tag, VR::SQ, Value::from(items)));
            }
            DataToken::ItemStart { .. } => {
                if depth > DEPTH_MAX {
                    return Err(DataSetError::TooDeep);
                }
                let repertoire = level.repertoire;
                self.levels.push(Level::new(repertoire));
            }
            DataToken::ItemEnd => {
                let item = self.levels.pop().ok_or_else(misplaced)?;
                let parent = self.levels.last_mut().ok_or_else(misplaced)?;
                parent.sequence.as_mut().ok_or_else(misplaced)?.1.push(item.set);
            }
            DataToken::PixelSequenceStart | DataToken::ItemValue(_) | DataToken::OffsetTable(_) => {
                return Err(DataSetError::Unreadable("encapsulated pixel data".into()));
            }
        }
        Ok(())
    }
}

/// Whether Specific Character Set says how these are written (PS3.5 6.1.2.2).
const fn is_text(vr: VR) -> bool {
    matches!(vr, VR::LO | VR::LT | VR::PN | VR::SH | VR::ST | VR::UC | VR::UT)
}

/// Raw bytes as what their VR says (PS3.5 6.2). What is no whole number of numbers loses its end.
fn typed(value: PrimitiveValue, vr: VR, repertoire: Repertoire) -> PrimitiveValue {
    let PrimitiveValue::U8(raw) = value else { return value };
    macro_rules! numbers {
        ($variant:ident, $number:ty) => {{
            let (numbers, _) = raw.as_chunks::<{ size_of::<$number>() }>();
            PrimitiveValue::$variant(
                numbers.iter().map(|n| <$number>::from_le_bytes(*n)).collect::<C<_>>(),
            )
        }};
    }
    let pad = |c| [' ', '\0'].contains(&c);
    match vr {
        VR::ST | VR::LT | VR::UT => {
            PrimitiveValue::Str(repertoire.decode(&raw).trim_end_matches(pad).to_owned())
        }
        VR::UR => PrimitiveValue::Str(Repertoire::UTF8.decode(&raw).trim_end_matches(pad).into()),
        VR::LO | VR::SH | VR::PN | VR::UC => several(&repertoire.decode(&raw)),
        VR::AE | VR::AS | VR::CS | VR::DA | VR::DS | VR::DT | VR::IS | VR::TM | VR::UI => {
            several(&Repertoire::default().decode(&raw))
        }
        VR::US => numbers!(U16, u16),
        VR::SS => numbers!(I16, i16),
        VR::UL => numbers!(U32, u32),
        VR::SL => numbers!(I32, i32),
        VR::FL => numbers!(F32, f32),
        VR::FD => numbers!(F64, f64),
        VR::SV => numbers!(I64, i64),
        VR::UV => numbers!(U64, u64),
        VR::AT => {
            let (tags, _) = raw.as_chunks::<4>();
            let number = |a, b| u16::from_le_bytes([a, b]);
            let tag = |[a, b, c, d]: &[u8; 4]| Tag(number(*a, *b), number(*c, *d));
            PrimitiveValue::Tags(tags.iter().map(tag).collect())
        }
        _ => PrimitiveValue::U8(raw),
    }
}

/// Values between backslashes, each without its padding.
fn several(text: &str) -> PrimitiveValue {
    let values: C<String> =
        text.split('\\').map(|v| v.trim_matches([' ', '\0']).to_owned()).collect();
    match &values[..] {
        [one] if one.is_empty() => PrimitiveValue::Empty,
        [_] => PrimitiveValue::Str(values.into_iter().next().unwrap_or_default()),
        _ => PrimitiveValue::Strs(values),
    }
}

/// The bytes of `set` in `syntax`, its text in `wanted` where that has all of its characters
/// (a Japanese one with its half-width kana, if need be), else in UTF-8; its Specific Character Set
/// (0008,0005) says which, and is left out for ASCII.
pub fn write(
    set: &InMemDicomObject,
    syntax: &str,
    wanted: Repertoire,
) -> Result<Vec<u8>, DataSetError> {
    let in_ascii = encoded(set, Repertoire::default(), 0)?;
    let (mut coded, used) = match in_ascii {
        Some(coded) => (coded, Repertoire::default()),
        None => first_that_has_all(set, wanted)?,
    };
    if let Some(term) = used.term() {
        let value = several(term);
        coded.put(DataElement::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, value));
    }
    let mut out = vec![];
    coded.write_dataset_with_ts(&mut out, syntax_of(syntax)?).map_err(unreadable)?;
    Ok(out)
}

/// In the wanted repertoire; with half-width kana, in the Japanese one that has them; in UTF-8.
fn first_that_has_all(
    set: &InMemDicomObject,
    wanted: Repertoire,
) -> Result<(InMemDicomObject, Repertoire), DataSetError> {
    let tries: &[Repertoire] = if wanted == Repertoire::JAPANESE {
        &[wanted, Repertoire::JAPANESE_KANA]
    } else if wanted == Repertoire::JIS {
        &[wanted, Repertoire::JIS_KANA]
    } else if wanted == Repertoire::default() {
        &[]
    } else {
        &[wanted]
    };
    for repertoire in tries {
        if let Some(coded) = encoded(set, *repertoire, 0)? {
            return Ok((coded, *repertoire));
        }
    }
    let coded = encoded(set, Repertoire::UTF8, 0)?;
    Ok((coded.unwrap_or_else(InMemDicomObject::new_empty), Repertoire::UTF8))
}

/// A value with the VR to write it in, its text as bytes; `None` when the repertoire does not have
/// all of it. What a device wrote beside the default repertoire into a UID, a code or a number,
/// which have no other, goes on as UTF-8, as it is read.
fn coded(vr: VR, value: &PrimitiveValue, repertoire: Repertoire) -> Option<(VR, PrimitiveValue)> {
    let text = match value {
        PrimitiveValue::Strs(values) => Some(values.join("\\")),
        PrimitiveValue::Str(text) => Some(text.clone()),
        other => is_text(vr).then(|| other.to_str().into_owned()),
    };
    let value = match text {
        None => value.clone(),
        Some(text) => {
            let bytes = if is_text(vr) { repertoire.encode(&text)? } else { text.into_bytes() };
            padded(bytes, if vr == VR::UI { 0 } else { b' ' })
        }
    };
    // The writer takes bytes of these two for numbers, and writes "1 " as `49\32`.
    let value = match (vr, value) {
        (VR::IS | VR::DS, PrimitiveValue::U8(bytes)) => match std::str::from_utf8(&bytes) {
            Ok(text) if text.is_ascii() => PrimitiveValue::Str(text.to_owned()),
            _ => return Some((VR::UN, PrimitiveValue::U8(bytes))),
        },
        (_, value) => value,
    };
    // Where the header has no room for the length, the VR is UN (PS3.5 6.2.2).
    let vr = match value.calculate_byte_len() {
        0xFFFF.. if has_short_length(vr) => VR::UN,
        _ => vr,
    };
    Some((vr, value))
}

fn padded(mut bytes: Vec<u8>, with: u8) -> PrimitiveValue {
    if bytes.len() % 2 == 1 {
        bytes.push(with);
    }
    PrimitiveValue::U8(bytes.into())
}

/// Whether Explicit VR has two bytes for the length (PS3.5 Table 7.1-2).
const fn has_short_length(vr: VR) -> bool {
    matches!(
        vr,
        VR::AE
            | VR::AS
            | VR::AT
            | VR::CS
            | VR::DA
            | VR::DS
            | VR::DT
            | VR::FL
            | VR::FD
            | VR::IS
            | VR::LO
            | VR::LT
            | VR::PN
            | VR::SH
            | VR::SL
            | VR::SS
            | VR::ST
            | VR::TM
            | VR::UI
            | VR::UL
            | VR::US
    )
}

/// A copy whose text is bytes; `None` when the repertoire does not have all of it.
fn encoded(
    set: &InMemDicomObject,
    repertoire: Repertoire,
    depth: usize,
) -> Result<Option<InMemDicomObject>, DataSetError> {
    if depth > DEPTH_MAX {
        return Err(DataSetError::TooDeep);
    }
    let mut copy = InMemDicomObject::new_empty();
    for element in set {
        let (tag, vr) = (element.header().tag, element.header().vr);
        if tag == tags::SPECIFIC_CHARACTER_SET {
            continue;
        }
        match element.value() {
            Value::Primitive(value) => {
                let Some((vr, value)) = coded(vr, value, repertoire) else { return Ok(None) };
                copy.put(DataElement::new(tag, vr, value));
            }
            Value::Sequence(items) => {
                let mut coded = C::new();
                for item in items.items() {
                    let Some(item) = encoded(item, repertoire, depth + 1)? else {
                        return Ok(None);
                    };
                    coded.push(item);
                }
                let items = DataSetSequence::new(coded, Length::UNDEFINED);
                copy.put(DataElement::new(tag, VR::SQ, Value::from(items)));
            }
            Value::PixelSequence(_) => {
                return Err(DataSetError::Unreadable("encapsulated pixel data".into()));
            }
        }
    }
    Ok(Some(copy))
}

/// The text of a top-level attribute, its values joined by `\`; empty when absent.
pub fn text(set: &InMemDicomObject, tag: Tag) -> String {
    let value = set.get(tag).and_then(|e| e.value().primitive());
    value.map(|v| v.to_str().trim_matches([' ', '\0']).to_owned()).unwrap_or_default()
}

/// The items of a sequence; none when it is absent or empty.
pub fn items(set: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    set.get(tag).and_then(|e| e.items()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
