//! Who may sign: an allow-list by route. What an unknown person signed, and what nobody signed, is
//! held for a person; nothing is lost by that.
//!
//! A number with its issuer decides where the list names one; a name alone must be the same to the
//! character, but for case, width and blanks: names that are only alike are not signatures.

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::report::{Reader, Status};
use crate::orders::identifier::{Agreement, Identifier};

/// Most signers of one route.
pub const SIGNERS_MAX: usize = 10_000;

/// Somebody who may sign.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signer {
    /// The number; empty where only a name is listed.
    pub id: Identifier,
    /// Name, components separated by `^`, as any of its representations.
    pub name: String,
}

/// What a route asks of signatures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignerRules {
    /// Who may sign; empty: anybody.
    pub allow: Vec<Signer>,
    /// Whether a preliminary report must be signed too.
    pub preliminary: bool,
    /// Whether a final or corrected report may come without a signature: some systems name nobody.
    pub unsigned: bool,
}

/// Why a report is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Doubt {
    /// Nobody has signed.
    #[n(0)]
    Unsigned,
    /// Somebody has signed who is not on the list.
    #[n(1)]
    Unknown,
}

impl SignerRules {
    /// Why a report must be held, if it must.
    pub fn doubt(&self, status: Status, is_signed: bool, verifiers: &[Reader]) -> Option<Doubt> {
        if status == Status::Preliminary && !self.preliminary {
            return None;
        }
        let named: Vec<&Reader> =
            verifiers.iter().filter(|v| v.id.is_named() || !v.name.trim().is_empty()).collect();
        if named.is_empty() || !is_signed {
            // Somebody on the list must be named: who nobody knows did not sign.
            let may = self.unsigned && self.allow.is_empty();
            return if may { None } else { Some(Doubt::Unsigned) };
        }
        if self.allow.is_empty() || named.iter().all(|verifier| self.knows(verifier)) {
            return None;
        }
        Some(Doubt::Unknown)
    }

    fn knows(&self, verifier: &Reader) -> bool {
        self.allow.iter().take(SIGNERS_MAX).any(|signer| {
            if signer.id.is_named() {
                // A number of the list without an issuer is of any issuer: the list says so.
                return signer.id.id == verifier.id.id
                    && signer.id.agrees(&verifier.id) != Agreement::Different;
            }
            let listed = representations(&signer.name);
            let signed = representations(&verifier.name);
            listed.iter().any(|name| signed.contains(name))
        })
    }
}

/// A name in each of its representations, one spelling for what differs in case, width or blanks.
fn representations(name: &str) -> Vec<String> {
    let fold = |part: &str| -> String {
        let narrow = |c: char| match c {
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
            '\u{3000}' => ' ',
            c => c,
        };
        let folded: String = part.chars().map(narrow).flat_map(char::to_lowercase).collect();
        let words: Vec<&str> = folded.split([' ', '^', ',']).filter(|w| !w.is_empty()).collect();
        words.join("^")
    };
    name.split('=').map(fold).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(id: &str, name: &str) -> Reader {
        Reader { id: Identifier::of(id, "H"), name: name.into(), ..Reader::default() }
    }

    fn listed() -> SignerRules {
        let by_id = Signer { id: Identifier::bare("R1"), name: String::new() };
        let by_name = Signer { name: "Yamada^Taro=山田^太郎".into(), ..Signer::default() };
        SignerRules { allow: vec![by_id, by_name], ..SignerRules::default() }
    }

    #[test]
    fn an_unknown_signer_and_none_at_all_hold_a_final_report() {
        let rules = listed();
        let doubt = |status, v: &[Reader]| rules.doubt(status, !v.is_empty(), v);
        assert_eq!(doubt(Status::Final, &[reader("R1", "")]), None);
        assert_eq!(doubt(Status::Final, &[reader("", "ＹＡＭＡＤＡ taro")]), None);
        assert_eq!(doubt(Status::Corrected, &[reader("", "X=山田　太郎")]), None);
        assert_eq!(doubt(Status::Final, &[reader("R2", "")]), Some(Doubt::Unknown));
        assert_eq!(doubt(Status::Final, &[reader("", "Yamada^Tarou")]), Some(Doubt::Unknown));
        let both = [reader("R1", ""), reader("R2", "")];
        assert_eq!(doubt(Status::Final, &both), Some(Doubt::Unknown), "every one of them");
        assert_eq!(doubt(Status::Cancelled, &[]), Some(Doubt::Unsigned));
        assert_eq!(rules.doubt(Status::Final, false, &[reader("R1", "")]), Some(Doubt::Unsigned));
        assert_eq!(doubt(Status::Preliminary, &[]), None);
    }

    #[test]
    fn a_route_decides_about_preliminary_and_unsigned_reports_but_a_list_is_a_list() {
        let anybody = SignerRules { unsigned: true, ..SignerRules::default() };
        assert_eq!(anybody.doubt(Status::Final, false, &[]), None);
        assert_eq!(anybody.doubt(Status::Final, true, &[reader("R9", "")]), None);
        let strict = SignerRules { preliminary: true, ..listed() };
        assert_eq!(strict.doubt(Status::Preliminary, false, &[]), Some(Doubt::Unsigned));
        let list = SignerRules { unsigned: true, ..listed() };
        assert_eq!(list.doubt(Status::Final, false, &[]), Some(Doubt::Unsigned));
    }
}
