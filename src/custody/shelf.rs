//! Shelves: neighbouring rows of the ledger share one stored row.
//!
//! sled holds few rows on a page and remembers each page for good, so that a queue would cost
//! memory by its rows (docs/decisions/0011). A row's letter says which bits of its key tell it from
//! its neighbours: the rows that differ in those bits only stand on one shelf, whose key has zeros
//! there. Nobody but [`Ledger`](super::ledger::Ledger) sees shelves.
//!
//! A shelf is a list in the order of the rows' keys: what the key has in those bits, the length of
//! the value (four bytes), the value. On most shelves stand at most 32 rows; those of digests grow
//! with the ledger, by one for 131,072 pieces of cargo.

/// The bits of a key that tell neighbours apart: places of bytes, and a mask for each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    bits: &'static [(usize, u8)],
}

const fn spread(bits: &'static [(usize, u8)]) -> Spread {
    Spread { bits }
}

impl Spread {
    /// How rows of this kind stand together; `None` when each has a row of its own.
    pub(super) const fn of(letter: u8) -> Option<Self> {
        const BY_CARGO: u8 = 0x1f;
        Some(match letter {
            // Rows of cargo are long and change several times: fewer of them.
            b'c' => spread(&[(8, 0x03)]),
            b'u' => spread(&[(8, BY_CARGO)]),
            b'm' => spread(&[(16, BY_CARGO)]),
            b'd' => spread(&[(10, BY_CARGO)]),
            b'a' => spread(&[(11, BY_CARGO)]),
            b'q' => spread(&[(23, BY_CARGO)]),
            // The time to about four seconds.
            b'r' | b'f' => spread(&[(7, 0x0f), (8, 0xff), (16, BY_CARGO)]),
            b'o' => spread(&[(12, BY_CARGO), (13, 0xff), (14, 0xff)]),
            b'i' => spread(&DIGEST),
            _ => return None,
        })
    }

    /// The key of the shelf on which the row under `key` stands, and its place there.
    pub(super) fn split(self, key: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut shelf = key.to_vec();
        let mut place = Vec::with_capacity(self.bits.len());
        for &(at, mask) in self.bits {
            // Scans begin at keys that are cut short.
            let byte = key.get(at).copied().unwrap_or(0);
            place.push(byte & mask);
            if let Some(byte) = shelf.get_mut(at) {
                *byte &= !mask;
            }
        }
        (shelf, place)
    }

    /// The key of the row that has `place` on `shelf`.
    fn join(self, shelf: &[u8], place: &[u8]) -> Vec<u8> {
        let mut key = shelf.to_vec();
        for (&(at, _), byte) in self.bits.iter().zip(place) {
            key[at] |= byte;
        }
        key
    }

    /// The value at `place`; `Err` when these bytes are no shelf.
    pub(super) fn find<'a>(self, shelf: &'a [u8], place: &[u8]) -> Result<Option<&'a [u8]>, Torn> {
        Ok(self.spot(shelf, place)?.value(shelf))
    }

    /// The shelf with another value at `place`, or with none there; empty when nothing is left.
    pub(super) fn with(
        self,
        shelf: &[u8],
        place: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Vec<u8>, Torn> {
        let spot = self.spot(shelf, place)?;
        let mut new = Vec::with_capacity(shelf.len() + 64);
        new.extend_from_slice(&shelf[..spot.from]);
        if let Some(value) = value {
            new.extend_from_slice(place);
            new.extend_from_slice(&(value.len() as u32).to_be_bytes());
            new.extend_from_slice(value);
        }
        new.extend_from_slice(&shelf[spot.to..]);
        Ok(new)
    }

    /// All rows of the shelf under `key`.
    pub(super) fn rows(self, key: &[u8], shelf: &[u8]) -> Result<Vec<Row>, Torn> {
        let mut rows = Vec::new();
        let mut at = 0;
        while at < shelf.len() {
            let (place, value, end) = self.entry(shelf, at)?;
            rows.push((self.join(key, place), value.to_vec()));
            at = end;
        }
        Ok(rows)
    }

    fn entry(self, shelf: &[u8], at: usize) -> Result<(&[u8], &[u8], usize), Torn> {
        let value_at = at + self.bits.len() + 4;
        let place = shelf.get(at..at + self.bits.len()).ok_or(Torn)?;
        let length = shelf.get(value_at - 4..value_at).ok_or(Torn)?;
        let length = u32::from_be_bytes(length.try_into().map_err(|_| Torn)?) as usize;
        let end = value_at.checked_add(length).ok_or(Torn)?;
        Ok((place, shelf.get(value_at..end).ok_or(Torn)?, end))
    }

    fn spot(self, shelf: &[u8], place: &[u8]) -> Result<Spot, Torn> {
        let mut at = 0;
        while at < shelf.len() {
            let (here, value, end) = self.entry(shelf, at)?;
            match here.cmp(place) {
                std::cmp::Ordering::Less => at = end,
                std::cmp::Ordering::Equal => {
                    return Ok(Spot { from: at, to: end, value: Some(end - value.len()) });
                }
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(Spot { from: at, to: at, value: None })
    }
}

/// All of a digest of 16 bytes but the first 17 bits.
const DIGEST: [(usize, u8); 14] = {
    let mut bits = [(0, 0xff); 14];
    let mut at = 0;
    while at < bits.len() {
        bits[at].0 = at + 3;
        at += 1;
    }
    bits[0].1 = 0x7f;
    bits
};

/// A row: its key, its value.
pub(super) type Row = (Vec<u8>, Vec<u8>);

/// These bytes are no shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Torn;

/// Where a row stands on a shelf, or would stand.
struct Spot {
    from: usize,
    to: usize,
    value: Option<usize>,
}

impl Spot {
    fn value(self, shelf: &[u8]) -> Option<&[u8]> {
        self.value.map(|at| &shelf[at..self.to])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Keys of every kind that stands on shelves, with few different numbers.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let kinds = [(b'c', 8), (b'u', 8), (b'm', 16), (b'd', 10), (b'a', 11), (b'q', 23)];
        let more = [(b'r', 16), (b'f', 16), (b'o', 14), (b'i', 16)];
        let kinds: Vec<(u8, usize)> = kinds.into_iter().chain(more).collect();
        (
            prop::sample::select(kinds),
            prop::collection::vec(prop::sample::select(vec![0u8, 1, 31, 32, 255]), 23),
        )
            .prop_map(|((letter, len), bytes)| [&[letter], &bytes[..len]].concat())
    }

    proptest! {
        #[test]
        fn what_was_put_on_shelves_stands_there_in_order_until_it_is_taken(
            steps in prop::collection::vec((key(), prop::option::of(prop::collection::vec(0u8..9, 0..9))), 0..200),
        ) {
            let mut rows = BTreeMap::new();
            let mut shelves = BTreeMap::<Vec<u8>, Vec<u8>>::new();
            for (key, value) in steps {
                let spread = Spread::of(key[0]).unwrap();
                let (at, place) = spread.split(&key);
                let shelf = shelves.remove(&at).unwrap_or_default();
                let new = spread.with(&shelf, &place, value.as_deref()).unwrap();
                if !new.is_empty() {
                    shelves.insert(at, new);
                }
                match value {
                    Some(value) => drop(rows.insert(key, value)),
                    None => drop(rows.remove(&key)),
                }
            }
            let mut found = Vec::new();
            for (key, shelf) in &shelves {
                let spread = Spread::of(key[0]).unwrap();
                let here = spread.rows(key, shelf).unwrap();
                prop_assert!(here.is_sorted());
                found.extend(here);
            }
            for (key, value) in &found {
                let spread = Spread::of(key[0]).unwrap();
                let (at, place) = spread.split(key);
                prop_assert_eq!(spread.find(&shelves[&at], &place), Ok(Some(&value[..])));
            }
            prop_assert_eq!(BTreeMap::from_iter(found), rows);
        }

        #[test]
        fn any_bytes_are_a_shelf_or_torn(key in key(), shelf in prop::collection::vec(any::<u8>(), 0..99)) {
            let spread = Spread::of(key[0]).unwrap();
            let (at, place) = spread.split(&key);
            let _ = spread.find(&shelf, &place);
            let _ = spread.with(&shelf, &place, Some(b"x"));
            let _ = spread.rows(&at, &shelf);
        }
    }
}
