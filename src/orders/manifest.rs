//! What a study should hold, as cargo for the reading node.
//!
//! The node that sent a study tells how it judges it, which SOP Instance UIDs it has or expects,
//! which of them lack there and why, and which are withdrawn. A reading node never says complete
//! because the sender did: [`Carried`] keeps which of the instances are not in its *own* custody
//! yet, and an arriving image costs O(log n).
//!
//! A manifest is numbered; of two of one study the higher counts. On the wire it is a CBOR map
//! with integer keys. UIDs are sorted and each keeps only what differs from the one before, about
//! ten bytes for an instance. Limits, checked before anything is stored for them:
//! [`LENGTH_MAX`] bytes, [`UIDS_MAX`] UIDs of at most [`TEXT_LENGTH_MAX`] bytes;
//! [`DETAILS_MAX`] missing instances are told in detail, the others by UID only.

use std::collections::BTreeSet;

use minicbor::decode::Error;
use minicbor::{Decode, Decoder, Encode, Encoder};
use serde::Serialize;

use super::evidence::{Grade, Rejection};
use super::order::OrderKey;
use super::tally::Tally;
use super::verdict::{GROUNDS_MAX, Ground, Missing, Verdict, What};
use super::words::{Sentence, Word};
use crate::cargo::{NodeName, TEXT_LENGTH_MAX};
use crate::clock::Timestamp;

/// Longest manifest in bytes.
pub const LENGTH_MAX: usize = 16 << 20;
/// Most UIDs of one list.
pub const UIDS_MAX: usize = 250_000;
/// Most missing instances that are told in detail.
pub const DETAILS_MAX: usize = 1000;
/// Longest text of a manifest that is no UID, in bytes.
const SENTENCE_MAX: usize = 1024;

/// Sorted UIDs, each one once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct UidList(Vec<String>);

impl UidList {
    /// Of these UIDs, at most [`UIDS_MAX`].
    pub fn of<'a>(uids: impl IntoIterator<Item = &'a str>) -> Self {
        let sorted: BTreeSet<&str> =
            uids.into_iter().filter(|u| u.len() <= TEXT_LENGTH_MAX).take(UIDS_MAX).collect();
        Self(sorted.into_iter().map(str::to_owned).collect())
    }

    /// The UIDs.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is one of them.
    pub fn contains(&self, uid: &str) -> bool {
        self.0.binary_search_by(|u| u.as_str().cmp(uid)).is_ok()
    }
}

/// Bytes that both begin with, ending between characters.
fn shared(a: &str, b: &str) -> usize {
    let equal = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    (0..=equal).rev().find(|n| b.is_char_boundary(*n)).unwrap_or(0)
}

impl<C> Encode<C> for UidList {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2 * self.0.len() as u64)?;
        let mut before = "";
        for uid in &self.0 {
            let same = shared(before, uid);
            e.u32(u32::try_from(same).expect("bounded"))?.str(&uid[same..])?;
            before = uid;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for UidList {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        let length = d.array()?.ok_or_else(|| Error::message("a list without a length"))?;
        let count = usize::try_from(length / 2).unwrap_or(usize::MAX);
        if length % 2 != 0 || count > UIDS_MAX {
            return Err(Error::message("too many UIDs, or half of one"));
        }
        // Memory grows with what has come, not with what is claimed.
        let mut uids: Vec<String> = Vec::new();
        for _ in 0..count {
            let same = d.u32()? as usize;
            let rest = d.str()?;
            let before = uids.last().map_or("", String::as_str);
            let start = before.get(..same).ok_or_else(|| Error::message("a UID begins nowhere"))?;
            if start.len() + rest.len() > TEXT_LENGTH_MAX {
                return Err(Error::message("a UID is too long"));
            }
            let uid = format!("{start}{rest}");
            if !uids.is_empty() && uid.as_str() <= before {
                return Err(Error::message("UIDs are not in order"));
            }
            uids.push(uid);
        }
        Ok(Self(uids))
    }
}

/// The findings that this release knows.
fn known<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<What>, Error> {
    let count = d.array()?.ok_or_else(|| Error::message("a list without a length"))?;
    let mut known = Vec::new();
    for _ in 0..count {
        let number = minicbor::to_vec(d.u32()?).map_err(|_| Error::message("a number"))?;
        known.extend(minicbor::decode::<What>(&number).ok());
        if known.len() > GROUNDS_MAX {
            return Err(Error::message("too many findings"));
        }
    }
    Ok(known)
}

/// Instances that were withdrawn for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Withdrawal {
    /// Why; absent where only a later release knows it.
    #[cbor(n(0), decode_with = "known_rejection")]
    pub why: Option<Rejection>,
    /// Which.
    #[n(1)]
    pub instances: UidList,
}

impl Withdrawal {
    /// What rejection notes have withdrawn, by reason.
    fn all_of(tally: &Tally) -> Vec<Self> {
        let of = |why| UidList::of(tally.rejected().filter(|(_, w)| *w == why).map(|(sop, _)| sop));
        let all = Rejection::ALL.into_iter();
        let all = all.map(|why| Self { why: Some(why), instances: of(why) });
        all.filter(|w| !w.instances.is_empty()).collect()
    }
}

/// A reason that this release knows.
fn known_rejection<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Option<Rejection>, Error> {
    if d.datatype()? == minicbor::data::Type::Null {
        return d.null().map(|()| None);
    }
    let number = minicbor::to_vec(d.u32()?).map_err(|_| Error::message("a number"))?;
    Ok(minicbor::decode(&number).ok())
}

/// How the node that sent a study judges it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Manifest {
    /// The node that first took the study.
    #[n(0)]
    pub origin: NodeName,
    /// Study Instance UID (0020,000D).
    #[n(1)]
    pub study: String,
    /// Higher is later.
    #[n(2)]
    pub number: u64,
    /// When it was judged.
    #[n(3)]
    pub judged_at: Timestamp,
    /// Its order.
    #[n(4)]
    pub order: Option<OrderKey>,
    /// How far the images are.
    #[n(5)]
    pub what: What,
    /// By which grade.
    #[n(6)]
    pub grade: Option<Grade>,
    /// By which statements.
    #[n(7)]
    pub by: Vec<Ground>,
    /// Why, in words.
    #[n(8)]
    pub reason: Sentence,
    /// What else needs attention; what only a later release finds is skipped.
    #[cbor(n(9), decode_with = "known")]
    pub attention: Vec<What>,
    /// Every instance that is held there or named by evidence.
    #[n(10)]
    pub wanted: UidList,
    /// Those of them that lack there.
    #[n(11)]
    pub missing: UidList,
    /// The first of those, with who names them.
    #[n(12)]
    pub details: Vec<Missing>,
    /// How many more lack than can be named.
    #[n(13)]
    pub unnamed: u32,
    /// Instances that are withdrawn: not to be shown to a reader.
    #[n(14)]
    pub withdrawn: UidList,
    /// The order of which the study is a prior, and not the study that was ordered.
    #[n(15)]
    pub prior_of: Option<OrderKey>,
    /// Why, where a rejection note says so.
    #[cbor(n(20), default)]
    pub because: Vec<Withdrawal>,
}

/// Why bytes are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More than [`LENGTH_MAX`].
    #[error("a manifest of {0} bytes is longer than allowed")]
    TooLong(usize),
    /// Not CBOR, not in this form, or beyond a limit.
    #[error("a manifest is malformed: {0}")]
    Malformed(String),
}

impl Manifest {
    /// Of a study as judged.
    pub fn new(
        (origin, study): (&NodeName, &str),
        number: u64,
        order: Option<&OrderKey>,
        (verdict, tally): (&Verdict, &Tally),
        judged_at: Timestamp,
    ) -> Self {
        let progress = verdict.progress();
        let attention = verdict.findings.iter().map(|f| f.what);
        let wanted = UidList::of(tally.wanted());
        // What the list has no room for is counted: the reading node then never says complete.
        let beyond = tally.wanted().count() - wanted.len();
        let missing = verdict.missing.iter().map(|m| m.sop.as_str());
        Self {
            origin: origin.clone(),
            study: study.to_owned(),
            number,
            judged_at,
            order: order.cloned(),
            what: progress.what,
            grade: progress.grade,
            by: progress.by.clone(),
            reason: progress.reason.clone(),
            attention: attention.filter(|w| w.needs_attention()).collect(),
            missing: UidList::of(missing.filter(|sop| wanted.contains(sop))),
            wanted,
            details: verdict.missing.iter().take(DETAILS_MAX).cloned().collect(),
            unnamed: verdict.unnamed.saturating_add(u32::try_from(beyond).unwrap_or(u32::MAX)),
            withdrawn: UidList::of(tally.withdrawn()),
            prior_of: None,
            because: match verdict.withdrawn {
                0 => Vec::new(),
                _ => Withdrawal::all_of(tally),
            },
        }
    }

    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("encoding into memory cannot fail")
    }

    /// From a peer's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > LENGTH_MAX {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let manifest: Self =
            minicbor::decode(bytes).map_err(|e| ManifestError::Malformed(e.to_string()))?;
        match manifest.fault() {
            None => Ok(manifest),
            Some(fault) => Err(ManifestError::Malformed(fault.into())),
        }
    }

    fn fault(&self) -> Option<&'static str> {
        let long = |s: &String| s.len() > SENTENCE_MAX;
        let lists = self.by.len() > GROUNDS_MAX
            || self.details.len() > DETAILS_MAX
            || self.attention.len() > GROUNDS_MAX
            || self.because.len() > GROUNDS_MAX
            || self.reason.values.len() > GROUNDS_MAX;
        let texts = long(&self.study)
            || [&self.order, &self.prior_of].into_iter().flatten().any(|o| long(&o.number))
            || self.reason.values.iter().any(long)
            || self.by.iter().any(|g| long(&g.id) || long(&g.source))
            || self
                .details
                .iter()
                .any(|m| [&m.sop, &m.class, &m.series, &m.by].into_iter().any(long));
        let strays = self.missing.iter().any(|uid| !self.wanted.contains(uid));
        if lists {
            Some("a list is too long")
        } else if texts {
            Some("a text is too long")
        } else if !self.what.is_progress() {
            Some("it does not say how far the images are")
        } else if strays {
            Some("something lacks that is not wanted")
        } else {
            None
        }
    }
}

/// A study at the reading node: what the sender says, against this node's own custody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    manifest: Manifest,
    awaited: BTreeSet<String>,
}

/// What the reading node says of a study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// How far the images are here.
    pub what: What,
    /// The grade of the evidence, as the sender says.
    pub grade: Option<Grade>,
    /// Instances here, of those that are wanted.
    pub held: u32,
    /// Instances wanted, the unnamed included.
    pub expected: u32,
    /// Not here and not lacking at the sender: they are on the way.
    pub on_the_way: u32,
    /// Why, in words.
    pub reason: Sentence,
}

impl Carried {
    /// A manifest, and what custody here has of its study.
    pub fn new(manifest: Manifest, held: impl Fn(&str) -> bool) -> Self {
        let absent = manifest.wanted.iter().filter(|uid| !held(uid));
        let awaited = absent.map(str::to_owned).collect();
        Self { manifest, awaited }
    }

    /// What the sender says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Takes a later manifest of the same study; false when it is not later.
    pub fn replace(&mut self, manifest: Manifest, held: impl Fn(&str) -> bool) -> bool {
        let later = manifest.number > self.manifest.number;
        if later {
            *self = Self::new(manifest, held);
        }
        later
    }

    /// An image is in custody here.
    pub fn arrive(&mut self, sop: &str) {
        self.awaited.remove(sop);
    }

    /// SOP Instance UIDs that this node does not have, whether on the way or lacking there too.
    pub fn awaited(&self) -> impl Iterator<Item = &str> {
        self.awaited.iter().map(String::as_str)
    }

    /// What is so here: complete only when the sender says so *and* all is here.
    pub fn reading(&self) -> Reading {
        let m = &self.manifest;
        let lacking = m.missing.iter().filter(|uid| self.awaited.contains(*uid)).count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let on_the_way = count(self.awaited.len() - lacking);
        let expected = count(m.wanted.len()).saturating_add(m.unnamed);
        let (what, reason) = if on_the_way > 0 {
            let reason = Sentence::new(Word::OnTheWay, &[&on_the_way, &expected]);
            (What::Arriving, reason)
        } else if lacking + m.unnamed as usize > 0
            && matches!(m.what, What::Complete | What::PresumedComplete)
        {
            // The manifest contradicts itself, or could not name all: what lacks wins.
            (What::Short, Word::OriginJudges.into())
        } else {
            (m.what, m.reason.clone())
        };
        let held = count(m.wanted.len() - self.awaited.len());
        Reading { what, grade: m.grade, held, expected, on_the_way, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::evidence::{Reference, Said, SeriesList, Statement};
    use crate::orders::instance::Instance;
    use crate::orders::judge::{Case, Rules, judge};

    fn uid(n: u32) -> String {
        format!("1.3.46.670589.33.1.60024327917508.{n}")
    }

    /// `named` by a commitment, of which `held` are at the hospital.
    fn manifest(named: u32, held: u32) -> Manifest {
        let mut tally = Tally::default();
        let refs = (0..named).map(|n| Reference { sop: uid(n), class: String::new() });
        let lists = vec![SeriesList { series: String::new(), instances: refs.collect() }];
        tally.hear(&Statement::new(
            "commitment:1",
            "CT1",
            Timestamp(0),
            Said::Commitment { lists },
        ));
        (0..held).for_each(|n| tally.arrive(&Instance { sop: uid(n), ..Instance::default() }));
        let case = Case { order: None, matched: None, tally: &tally, settled: None };
        let now = Timestamp(3_600_000);
        let verdict = judge(&case, &Rules::default(), now);
        let origin: NodeName = "hospital".parse().unwrap();
        Manifest::new((&origin, "1.2.3"), 1, None, (&verdict, &tally), now)
    }

    #[test]
    fn the_reading_node_says_complete_only_when_its_own_custody_holds_all() {
        let m = manifest(3, 3);
        assert_eq!(m.what, What::Complete);
        let mut carried = Carried::new(m, |sop| sop == uid(0));
        let reading = carried.reading();
        assert_eq!((reading.what, reading.held, reading.expected), (What::Arriving, 1, 3));
        carried.arrive(&uid(1));
        carried.arrive(&uid(1));
        assert_eq!(carried.reading().what, What::Arriving);
        carried.arrive(&uid(2));
        assert_eq!(carried.reading().what, What::Complete);
    }

    #[test]
    fn what_lacks_at_the_hospital_is_told_at_the_reading_node_and_is_not_on_the_way() {
        let m = manifest(20, 19);
        let carried = Carried::new(m.clone(), |sop| sop != uid(19));
        let reading = carried.reading();
        assert_eq!((reading.what, reading.on_the_way, reading.held), (What::Short, 0, 19));
        assert_eq!(carried.awaited().collect::<Vec<_>>(), [uid(19)]);
        assert_eq!(m.details[0].by, "commitment:1");
        assert_eq!(Carried::new(m, |_| false).reading().what, What::Arriving);
    }

    #[test]
    fn only_a_later_manifest_replaces_one() {
        let mut carried = Carried::new(manifest(3, 3), |_| true);
        assert!(!carried.replace(manifest(2, 2), |_| true));
        let later = Manifest { number: 2, ..manifest(5, 5) };
        assert!(carried.replace(later, |sop| sop != uid(4)));
        assert_eq!(carried.reading().on_the_way, 1);
    }

    #[test]
    fn a_manifest_of_ten_thousand_images_travels_in_little_and_comes_back_the_same() {
        let m = manifest(10_000, 9_000);
        let bytes = m.encode();
        assert!(bytes.len() < 300_000, "{} bytes", bytes.len());
        assert_eq!(Manifest::decode(&bytes), Ok(m));
    }

    #[test]
    fn what_only_a_later_release_finds_is_skipped() {
        let list = minicbor::to_vec([4_u32, 900, 8]).unwrap();
        let found = known(&mut Decoder::new(&list), &mut ()).unwrap();
        assert_eq!(found, [What::Short, What::NoOrder]);
    }

    #[test]
    fn the_reason_of_a_withdrawal_travels_and_one_that_only_a_later_release_knows_is_none() {
        let mut m = manifest(3, 3);
        let instances = UidList::of([uid(1).as_str()]);
        m.because = vec![Withdrawal { why: Some(Rejection::Safety), instances }];
        assert_eq!(Manifest::decode(&m.encode()), Ok(m));
        let known = |bytes: &[u8]| known_rejection(&mut Decoder::new(bytes), &mut ()).unwrap();
        assert_eq!(
            (known(&[1]), known(&[23]), known(&[0xf6])),
            (Some(Rejection::Safety), None, None)
        );
    }

    #[test]
    fn bytes_beyond_the_limits_are_refused() {
        let mut m = manifest(3, 2);
        m.study = "1".repeat(SENTENCE_MAX + 1);
        assert!(Manifest::decode(&m.encode()).is_err());
        let mut m = manifest(3, 2);
        m.what = What::NoOrder;
        assert!(Manifest::decode(&m.encode()).is_err());
        let huge = vec![0; LENGTH_MAX + 1];
        assert_eq!(Manifest::decode(&huge), Err(ManifestError::TooLong(LENGTH_MAX + 1)));
        // An array that claims 2^60 entries; a UID that takes more of the last than there is.
        let claims: &[&[u8]] = &[&[0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0], &[0x82, 0x05, 0x61, b'1']];
        for bytes in claims {
            assert!(minicbor::decode::<UidList>(bytes).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(0u8.., 0..200)) {
            let _ = Manifest::decode(&bytes);
            let _ = minicbor::decode::<UidList>(&bytes);
        }

        #[test]
        fn uids_travel_whatever_they_hold(uids in proptest::collection::btree_set(".{0,20}", 0..20)) {
            let list = UidList::of(uids.iter().map(String::as_str));
            let bytes = minicbor::to_vec(&list).unwrap();
            proptest::prop_assert_eq!(minicbor::decode::<UidList>(&bytes).unwrap(), list);
        }
    }
}
