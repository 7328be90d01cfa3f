//! What stands in where nobody gave an order a number that a worklist must have: Study Instance UID,
//! Requested Procedure ID, Scheduled Procedure Step ID. Pure.
//!
//! Each follows from origin and number of the order alone, so that it is the same at every node and
//! after every restart, and images and steps that bear it find their order, also when the RIS gives
//! numbers of its own later.

use super::order::{Order, OrderKey, Procedure};
use crate::cargo::{Hasher, Sha256};

/// Digits of a number that stands in: with its letter, what fits into VR SH.
const DIGITS: usize = 15;

fn digest(key: &OrderKey, what: &str) -> [u8; 16] {
    let mut hasher = Hasher::new();
    for part in ["hikyaku worklist", key.origin.as_str(), &key.number, what] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let Sha256(whole) = hasher.finish();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    half
}

fn number(key: &OrderKey, letter: char, step: usize) -> String {
    let digest = u128::from_be_bytes(digest(key, &format!("{letter}{step}")));
    let number = digest % 10u128.pow(DIGITS as u32);
    format!("{letter}{number:0DIGITS$}")
}

/// The Study Instance UID of an order without one: under 2.25, from a UUID of version 8 (PS3.5 B.2,
/// RFC 9562 5.8).
pub fn study_uid(key: &OrderKey) -> String {
    let mut bytes = digest(key, "study");
    bytes[6] = bytes[6] & 0x0F | 0x80;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    format!("2.25.{}", u128::from_be_bytes(bytes))
}

/// Whether a study bears the UID that stands in for this order's.
pub fn is_study_of(key: &OrderKey, study: &str) -> bool {
    study.starts_with("2.25.") && study == study_uid(key)
}

/// The Requested Procedure ID of the step at this place of an order, where it has none.
pub fn requested_id(key: &OrderKey, step: usize) -> String {
    number(key, 'R', step)
}

/// The Scheduled Procedure Step ID of the step at this place of an order, where it has none.
pub fn step_id(key: &OrderKey, step: usize) -> String {
    number(key, 'S', step)
}

/// The Requested Procedure IDs that stand in, of the first `max` steps.
pub fn requested_ids(order: &Order, max: usize) -> Vec<String> {
    let nameless = |p: &Procedure| p.requested.is_empty();
    let steps = order.content.procedures.iter().take(max).enumerate();
    let mut all: Vec<String> =
        steps.filter(|(_, p)| nameless(p)).map(|(n, _)| requested_id(&order.key, n)).collect();
    if order.content.procedures.is_empty() {
        all.push(requested_id(&order.key, 0));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::is_uid;

    #[test]
    fn what_stands_in_is_stable_unique_and_of_the_length_that_dicom_has() {
        let key = |origin: &str, number: &str| OrderKey {
            origin: origin.parse().unwrap(),
            number: number.into(),
        };
        let uid = study_uid(&key("east", "P1"));
        // Other nodes and later releases must find the same.
        assert_eq!(uid, "2.25.267613766170257790755556839517412046758");
        assert!(is_uid(&uid) && is_study_of(&key("east", "P1"), &uid));
        let others = [key("west", "P1"), key("east", "P2"), key("eas", "tP1")];
        assert!(others.iter().all(|other| study_uid(other) != uid));
        let ids = [step_id(&others[0], 0), step_id(&others[0], 1), requested_id(&others[0], 0)];
        assert!(ids.iter().all(|id| id.len() == 16), "{ids:?}");
        assert!(ids[0] != ids[1]);
    }
}
