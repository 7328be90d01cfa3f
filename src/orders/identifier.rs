//! Identifiers with the authority that gave them, and patients as orders and images name them.
//!
//! A number says nothing without its issuer: two hospitals give the same patient number to
//! different people (HL7 CX-4, DICOM Issuer of Patient ID (0010,0021), Issuer of Accession Number
//! (0008,0051)). So comparing has three answers, and a name alone never decides.
//!
//! Names are compared leniently: case, width of characters, hiragana for katakana, spelling
//! variants of a transcription, initials. What is compared is never changed.

use minicbor::{Decode, Encode};
use serde::Serialize;

/// Below this likeness of two transcriptions they are different names.
const LIKENESS_MIN: f64 = 0.75;

/// Who gave an identifier (HL7 HD; DICOM Issuer of Patient ID (0010,0021) with its qualifiers
/// (0010,0024)). Empty where not known.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize,
)]
#[cbor(map)]
pub struct Authority {
    /// A local name, HD-1.
    #[n(0)]
    pub namespace: String,
    /// A universal identifier, mostly an OID, HD-2.
    #[n(1)]
    pub universal: String,
}

/// An identifier and who gave it.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize,
)]
#[cbor(map)]
pub struct Identifier {
    /// The identifier, without surrounding blanks.
    #[n(0)]
    pub id: String,
    /// Who gave it.
    #[n(1)]
    pub authority: Authority,
}

/// Whether two statements are about the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Agreement {
    /// They are.
    #[n(0)]
    Same,
    /// What can be compared does not tell.
    #[n(1)]
    Unsure,
    /// They are not.
    #[n(2)]
    Different,
}

impl Authority {
    fn is_unknown(&self) -> bool {
        self.namespace.is_empty() && self.universal.is_empty()
    }

    fn agrees(&self, other: &Self) -> Agreement {
        let one = |a: &str, b: &str| {
            (!a.is_empty() && !b.is_empty()).then(|| a.trim().eq_ignore_ascii_case(b.trim()))
        };
        // The universal name decides where both have one: namespaces are local nicknames.
        match one(&self.universal, &other.universal)
            .or_else(|| one(&self.namespace, &other.namespace))
        {
            Some(true) => Agreement::Same,
            Some(false) => Agreement::Different,
            None => Agreement::Unsure,
        }
    }
}

impl Identifier {
    /// An identifier whose issuer is not known.
    pub fn bare(id: &str) -> Self {
        Self { id: id.trim().to_owned(), authority: Authority::default() }
    }

    /// An identifier that `namespace` gave.
    pub fn of(id: &str, namespace: &str) -> Self {
        let authority = Authority { namespace: namespace.to_owned(), universal: String::new() };
        Self { id: id.trim().to_owned(), authority }
    }

    /// Compares number and issuer. The same number is [`Agreement::Unsure`] where an issuer is
    /// missing, and different where issuers differ; different numbers are different unless their
    /// issuers differ or are missing on one side only, which tells nothing.
    pub fn agrees(&self, other: &Self) -> Agreement {
        let authority = self.authority.agrees(&other.authority);
        let neither = self.authority.is_unknown() && other.authority.is_unknown();
        match (self.id == other.id, authority) {
            (true, authority) => authority,
            (false, Agreement::Same) => Agreement::Different,
            (false, _) if neither => Agreement::Different,
            (false, _) => Agreement::Unsure,
        }
    }

    /// Whether it can be compared by number: empty ones cannot.
    pub fn is_named(&self) -> bool {
        !self.id.is_empty()
    }
}

/// A patient as a message or an image names him or her.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Patient {
    /// Identifiers in force, PID-3 or (0010,0020) and (0010,1002).
    #[n(0)]
    pub ids: Vec<Identifier>,
    /// Identifiers that a merge has retired (ADT^A40): older images bear them.
    #[n(1)]
    pub former: Vec<Identifier>,
    /// Names, one per representation: alphabetic, ideographic, phonetic; components separated by
    /// `^`.
    #[n(2)]
    pub names: Vec<String>,
    /// Birth date, `YYYYMMDD`; empty when not known.
    #[n(3)]
    pub birth_date: String,
    /// Sex, `M`, `F`, `O`; empty when not known.
    #[n(4)]
    pub sex: String,
}

impl Patient {
    fn all_ids(&self) -> impl Iterator<Item = &Identifier> {
        self.ids.iter().chain(&self.former).filter(|id| id.is_named())
    }

    /// Whether any identifier in force or retired is surely, or perhaps, one of these.
    pub fn bears(&self, ids: &[Identifier]) -> bool {
        self.all_ids().any(|own| {
            ids.iter().any(|id| own.id == id.id && own.agrees(id) != Agreement::Different)
        })
    }

    /// Whether `other` is the same person.
    ///
    /// - An identifier of the same issuer decides, unless birth date *and* name contradict it:
    ///   then a number was mistyped, and they are different.
    /// - The same number without an issuer holds if nothing contradicts it.
    /// - Other numbers, one of them without an issuer (images seldom have one), are other patients
    ///   unless the birth date agrees and the name does not differ: then nothing is sure.
    /// - Identifiers that cannot be compared leave it to birth date, sex and name together.
    pub fn agrees(&self, other: &Self) -> Agreement {
        let pairs = self.all_ids().flat_map(|a| other.all_ids().map(move |b| (a, b)));
        let (mut sure, mut perhaps, mut other_number, mut bare) = (false, false, false, false);
        for (a, b) in pairs {
            match a.agrees(b) {
                Agreement::Same => sure = true,
                Agreement::Unsure => {
                    perhaps |= a.id == b.id;
                    bare |= a.authority.is_unknown() || b.authority.is_unknown();
                }
                Agreement::Different => other_number |= a.id != b.id,
            }
        }
        let person = self.person_agrees(other);
        let contradicted = person.birth == Some(false) && person.name == Some(false);
        if sure {
            return if contradicted { Agreement::Different } else { Agreement::Same };
        }
        if other_number {
            return Agreement::Different;
        }
        let doubts = [person.birth, person.sex, person.name];
        let against = doubts.iter().filter(|d| **d == Some(false)).count();
        if bare && !perhaps {
            let likely = person.birth == Some(true) && person.name != Some(false);
            return if likely { Agreement::Unsure } else { Agreement::Different };
        }
        match (perhaps, against) {
            (true, 0) => Agreement::Same,
            (true, 1) => Agreement::Unsure,
            (true, _) => Agreement::Different,
            (false, 0) if doubts.iter().all(|d| *d == Some(true)) => Agreement::Same,
            (false, _) if person.birth == Some(false) && against > 1 => Agreement::Different,
            (false, _) => Agreement::Unsure,
        }
    }

    fn person_agrees(&self, other: &Self) -> Person {
        let same =
            |a: &str, b: &str| (!a.is_empty() && !b.is_empty()).then(|| a.eq_ignore_ascii_case(b));
        // "Other" and "unknown" contradict nobody.
        let known = |s: &str| matches!(s, "M" | "F" | "m" | "f");
        let sexes = known(&self.sex) && known(&other.sex);
        Person {
            birth: same(&self.birth_date, &other.birth_date),
            sex: sexes.then(|| self.sex.eq_ignore_ascii_case(&other.sex)),
            name: names_agree(&self.names, &other.names),
        }
    }
}

/// What speaks for or against the same person, where both sides say it.
struct Person {
    birth: Option<bool>,
    sex: Option<bool>,
    name: Option<bool>,
}

/// Whether one name of each side agrees; `None` when no two are in the same script.
pub fn names_agree(a: &[String], b: &[String]) -> Option<bool> {
    let folded = |names: &[String]| -> Vec<String> {
        let groups = names.iter().flat_map(|n| n.split('='));
        groups.map(fold).filter(|n| !n.is_empty()).collect()
    };
    let (a, b) = (folded(a), folded(b));
    let mut compared = None;
    for (x, y) in a.iter().flat_map(|x| b.iter().map(move |y| (x, y))) {
        if script(x) == script(y) {
            if name_agrees(x, y) {
                return Some(true);
            }
            compared = Some(false);
        }
    }
    compared
}

fn name_agrees(a: &str, b: &str) -> bool {
    let parts = |s: &str| -> Vec<String> {
        s.split(['^', ' ', ',']).filter(|p| !p.is_empty()).map(str::to_owned).collect()
    };
    let (mut a, mut b) = (parts(a), parts(b));
    let joined = (a.concat(), b.concat());
    if strsim::normalized_damerau_levenshtein(&joined.0, &joined.1) >= LIKENESS_MIN {
        return true;
    }
    // Initials, a missing given name, or family and given name the other way round.
    a.sort();
    b.sort();
    let (few, many) = if a.len() <= b.len() { (&a, &b) } else { (&b, &a) };
    let alike = |x: &String, y: &String| {
        let (short, long) = if x.len() <= y.len() { (x, y) } else { (y, x) };
        long.starts_with(short.as_str()) || strsim::jaro_winkler(x, y) > 0.9
    };
    !few.is_empty() && few.iter().all(|x| many.iter().any(|y| alike(x, y)))
}

#[derive(PartialEq, Eq)]
enum Script {
    Latin,
    Kana,
    Ideographic,
}

/// Names as one PN (PS3.5 6.2): alphabetic, ideographic and phonetic group joined by `=`; the first
/// of each script counts, and one that has groups already counts for all.
pub fn pn_of(names: &[String]) -> String {
    if let Some(whole) = names.iter().find(|name| name.contains('=')) {
        return whole.clone();
    }
    // Katakana of half width stand in the alphabetic group (PS3.5 H.3.2).
    let plain = |c: char| c.is_ascii() || ('\u{ff61}'..='\u{ff9f}').contains(&c);
    let group = |name: &str| if name.chars().all(plain) { Script::Latin } else { script(name) };
    let of = |wanted| names.iter().find(|n| group(n) == wanted).map_or("", String::as_str);
    let groups = [Script::Latin, Script::Ideographic, Script::Kana].map(of);
    groups.join("=").trim_end_matches('=').to_owned()
}

fn script(name: &str) -> Script {
    let kanji = |c: char| ('\u{3400}'..='\u{9fff}').contains(&c) || ('\u{f900}'..).contains(&c);
    if name.chars().any(kanji) {
        Script::Ideographic
    } else if name.chars().any(|c| ('\u{3040}'..='\u{30ff}').contains(&c)) {
        Script::Kana
    } else {
        Script::Latin
    }
}

/// How a name is written (HL7 table 0465): `I` ideographic, `P` phonetic (kana), `A` alphabetic.
pub fn representation(name: &str) -> &'static str {
    match script(&fold(name)) {
        Script::Ideographic => "I",
        Script::Kana => "P",
        Script::Latin => "A",
    }
}

/// Katakana of half width, U+FF66 to U+FF9D, in full width.
const HALF_WIDTH: &str = "ヲァィゥェォャュョッーアイウエオカキクケコサシスセソタチツテトナニヌネノ\
                          ハヒフヘホマミムメモヤユヨラリルレロワン";

/// One spelling for what differs in width, case, or kind of kana only.
pub(super) fn fold(name: &str) -> String {
    let mut out = String::new();
    for c in name.trim().chars() {
        let c = match c {
            '\u{ff01}'..='\u{ff5e}' => shift(c, -0xfee0),
            '\u{3000}' => ' ',
            '\u{3041}'..='\u{3096}' => shift(c, 0x60),
            '\u{ff66}'..='\u{ff9d}' => {
                HALF_WIDTH.chars().nth(c as usize - 0xff66).expect("one for each of 56")
            }
            c => c,
        };
        match (c, out.pop()) {
            // Voiced marks of half width follow their letter; in full width they are one.
            ('\u{ff9e}' | '\u{3099}', Some('ウ')) => out.push('ヴ'),
            ('\u{ff9e}' | '\u{3099}', Some(last)) => out.push(shift(last, 1)),
            ('\u{ff9f}' | '\u{309a}', Some(last)) => out.push(shift(last, 2)),
            (c, last) => {
                out.extend(last);
                out.extend(c.to_lowercase());
            }
        }
    }
    out.trim_matches(['^', ' ']).to_owned()
}

fn shift(c: char, by: i32) -> char {
    let code = i64::from(u32::from(c)) + i64::from(by);
    u32::try_from(code).ok().and_then(char::from_u32).unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patient(id: &str, issuer: &str, name: &str, birth: &str) -> Patient {
        Patient {
            ids: vec![Identifier::of(id, issuer)],
            names: vec![name.into()],
            birth_date: birth.into(),
            ..Patient::default()
        }
    }

    #[test]
    fn the_same_number_of_two_issuers_is_two_patients_and_without_an_issuer_nothing_is_sure() {
        let a = Identifier::of("4711", "EAST");
        assert_eq!(a.agrees(&Identifier::of("4711", "WEST")), Agreement::Different);
        assert_eq!(a.agrees(&Identifier::bare("4711")), Agreement::Unsure);
        assert_eq!(a.agrees(&Identifier::of("4711", "east")), Agreement::Same);
        assert_eq!(a.agrees(&Identifier::bare("4712")), Agreement::Unsure);
        assert_eq!(Identifier::bare("1").agrees(&Identifier::bare("2")), Agreement::Different);
    }

    #[test]
    fn a_name_alone_never_makes_two_patients_one() {
        let a = patient("1", "H", "YAMADA^TARO", "19500101");
        let b = patient("2", "H", "YAMADA^TARO", "19500101");
        assert_eq!(a.agrees(&b), Agreement::Different);
        let c = patient("9", "OTHER", "YAMADA^TARO", "");
        assert_eq!(a.agrees(&c), Agreement::Unsure);
    }

    #[test]
    fn a_name_alone_never_makes_one_patient_two_but_with_the_birth_date_it_does() {
        let a = patient("1", "H", "YAMADA^HANAKO", "19500101");
        let married = patient("1", "H", "SUZUKI^HANAKO", "19500101");
        assert_eq!(a.agrees(&married), Agreement::Same);
        let mistyped = patient("1", "H", "GOTO^KEN", "19801231");
        assert_eq!(a.agrees(&mistyped), Agreement::Different);
    }

    #[test]
    fn another_number_without_an_issuer_is_another_patient_unless_the_person_agrees() {
        let a = patient("1", "H", "YAMADA^TARO", "19500101");
        let image = |id, name, birth| patient(id, "", name, birth);
        assert_eq!(a.agrees(&image("1", "YAMADA^TARO", "")), Agreement::Same);
        assert_eq!(a.agrees(&image("2", "YAMADA^TARO", "")), Agreement::Different);
        assert_eq!(a.agrees(&image("2", "YAMADA^TARO", "19500101")), Agreement::Unsure);
        assert_eq!(a.agrees(&image("2", "GOTO^KEN", "19500101")), Agreement::Different);
    }

    #[test]
    fn a_retired_number_still_means_the_patient() {
        let mut a = patient("2", "H", "A^B", "19500101");
        a.former.push(Identifier::of("1", "H"));
        assert_eq!(a.agrees(&patient("1", "H", "A^B", "19500101")), Agreement::Same);
    }

    #[test]
    fn names_agree_across_width_kana_spelling_initials_and_order() {
        let agree = |a: &str, b: &str| names_agree(&[a.into()], &[b.into()]);
        assert_eq!(agree("Yamada^Tarou", "YAMADA^TARO"), Some(true));
        assert_eq!(agree("ＹＡＭＡＤＡ^ＴＡＲＯ", "yamada^taro"), Some(true));
        assert_eq!(agree("ﾔﾏﾀﾞ^ﾀﾛｳ", "やまだ^たろう"), Some(true));
        assert_eq!(agree("ﾊﾟｰｸ^ｳﾞｨ", "パーク^ヴィ"), Some(true));
        assert_eq!(agree("YAMADA^T", "YAMADA^TARO^X"), Some(true));
        assert_eq!(agree("TARO YAMADA", "YAMADA^TARO"), Some(true));
        assert_eq!(agree("Yamada^Tarou=山田^太郎=やまだ^たろう", "山田^太郎"), Some(true));
        assert_eq!(agree("YAMADA^TARO", "SUZUKI^HANAKO"), Some(false));
        assert_eq!(agree("YAMADA^TARO", "山田^太郎"), None);
        assert_eq!(agree("", "A"), None);
    }
}
