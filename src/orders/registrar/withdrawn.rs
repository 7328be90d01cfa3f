//! Images that were withdrawn where they are read: what a reader must know until a person has
//! acknowledged it.
//!
//! A rejection note (113001, 113037, 113038, 113039) reaches a reading node by itself, as an image,
//! and in the manifest of its study; whichever comes first counts, and what either says stays said.
//! The finding [`What::Withdrawn`] stands while this node has withdrawn images that nobody has
//! acknowledged. Nothing is deleted. The node that first took the study has no such finding: its
//! people have withdrawn the images.
//!
//! At most [`SEEN_MAX`] images are remembered as acknowledged. Of a study with more of them, later
//! ones are not told.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::cases::OpenStudy;
use super::keys::{entry, seen_key};
use super::record::{Acknowledged, Standing, StudyRef};
use super::{DeskError, Registrar, travel};
use crate::cargo::Sha256;
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::orders::evidence::Rejection;
use crate::orders::manifest::Carried;
use crate::orders::verdict::{Finding, Verdict, What};
use crate::orders::words::{Sentence, Word};

/// Most images of a study that are remembered as acknowledged.
pub(super) const SEEN_MAX: usize = 50_000;

/// Which withdrawn images of a study a person has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub(super) struct Seen {
    /// The first eight bytes of the digest of each SOP Instance UID.
    #[n(0)]
    instances: BTreeSet<u64>,
}

fn short(sop: &str) -> u64 {
    Sha256::of(sop.as_bytes()).short()
}

impl Seen {
    fn has(&self, sop: &str) -> bool {
        self.instances.len() >= SEEN_MAX || self.instances.contains(&short(sop))
    }
}

/// Withdrawn images that are here and that nobody has acknowledged, by reason.
type Unseen = BTreeMap<String, Option<Rejection>>;

fn unseen(study: &OpenStudy) -> Unseen {
    let mut all = Unseen::new();
    let mut tell = |sop: &str, why| {
        if !study.seen.has(sop) {
            all.insert(sop.to_owned(), why);
        }
    };
    if let Some(manifest) = study.carried.as_ref().map(Carried::manifest) {
        let held = |sop: &&str| study.tally.holds(sop);
        manifest.withdrawn.iter().filter(held).for_each(|sop| tell(sop, None));
        for withdrawal in &manifest.because {
            let here = withdrawal.instances.iter().filter(held);
            here.for_each(|sop| tell(sop, withdrawal.why));
        }
    }
    if study.tally.counts().withdrawn_held > 0 {
        let rejected = study.tally.rejected().filter(|(sop, _)| study.tally.holds(sop));
        rejected.for_each(|(sop, why)| tell(sop, Some(why)));
    }
    all
}

const fn word_of(why: Option<Rejection>) -> Word {
    match why {
        Some(Rejection::Quality) => Word::WithdrawnQuality,
        Some(Rejection::Safety) => Word::WithdrawnSafety,
        Some(Rejection::Worklist) => Word::WithdrawnWorklist,
        Some(Rejection::Retention) => Word::WithdrawnRetention,
        None => Word::WithdrawnUnsaid,
    }
}

/// One for each reason.
fn findings(unseen: &Unseen) -> Vec<Finding> {
    let mut counts: BTreeMap<Word, u32> = BTreeMap::new();
    unseen.values().for_each(|why| *counts.entry(word_of(*why)).or_default() += 1);
    let finding = |(word, n): (Word, u32)| {
        Finding::new(What::Withdrawn, Sentence::new(word, &[&n]), Word::DoNotReport)
    };
    counts.into_iter().map(finding).collect()
}

/// A verdict as this node shows it: of a study of its own as it is, of another node's what that
/// node says, with what was withdrawn.
pub(super) fn shown(study: &OpenStudy, own: bool, verdict: Verdict) -> Verdict {
    if own {
        return verdict;
    }
    let mut shown = match &study.carried {
        Some(carried) => travel::verdict(carried),
        None => verdict,
    };
    let unseen = unseen(study);
    shown.withdrawn = u32::try_from(unseen.len()).unwrap_or(u32::MAX);
    shown.findings.extend(findings(&unseen));
    shown.findings.sort_by_key(|f| f.what);
    shown
}

/// The standing with what was withdrawn, which a manifest cannot know.
pub(super) fn added(
    id: &StudyRef,
    mut standing: Standing,
    verdict: &Verdict,
    before: Option<&Standing>,
    now: Timestamp,
) -> Standing {
    let Some(found) = verdict.finding(What::Withdrawn) else { return standing };
    if before.is_none_or(|b| !b.attention.contains(&What::Withdrawn)) {
        let StudyRef { origin, study } = id;
        let images = verdict.withdrawn;
        tracing::info!(target: "audit", by = "orders", %origin, study, images, "images are withdrawn");
    }
    if standing.attention.contains(&What::Withdrawn) {
        return standing;
    }
    standing.attention.push(What::Withdrawn);
    standing.attention.sort_unstable();
    if What::Withdrawn < standing.headline {
        standing.headline = What::Withdrawn;
        standing.reason = found.reason.clone();
        standing.action = found.action;
        let same = before.filter(|b| b.headline == What::Withdrawn);
        standing.since = same.map_or(now, |b| b.since);
    }
    standing
}

impl Registrar {
    /// A person acknowledges that images of a study were withdrawn; how many, over all origins.
    pub(super) async fn acknowledge(
        &mut self,
        uid: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Result<u32, DeskError>, Stopped> {
        let mut all: u32 = 0;
        for origin in self.config.peers.clone() {
            let id = StudyRef { origin, study: uid.to_owned() };
            if id.origin == self.config.node {
                continue;
            }
            let Some(study) = self.study(&id, None).await? else { continue };
            let new: Vec<u64> = unseen(study).keys().map(|sop| short(sop)).collect();
            if new.is_empty() {
                continue;
            }
            let count = u32::try_from(new.len()).unwrap_or(u32::MAX);
            let room = SEEN_MAX.saturating_sub(study.seen.instances.len());
            study.seen.instances.extend(new.into_iter().take(room));
            let before = study.dossier.seen.as_ref().map_or(0, |seen| seen.count);
            let count_of_all = before.saturating_add(count);
            study.dossier.seen =
                Some(Acknowledged { at: now, by: by.to_owned(), count: count_of_all });
            let kept = entry(seen_key(&id), &study.seen, Vec::new());
            self.store.put(kept);
            self.changed(&id);
            self.judge_study(&id, now).await?;
            all = all.saturating_add(count);
        }
        let none = "no withdrawn image of this study waits for anybody here";
        Ok(if all > 0 { Ok(all) } else { Err(DeskError::Refused(none.into())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_with_its_count_and_its_code() {
        let all =
            [("1.1", Some(Rejection::Safety)), ("1.2", None), ("1.3", Some(Rejection::Safety))];
        let unseen = all.into_iter().map(|(sop, why)| (sop.to_owned(), why)).collect();
        let found = findings(&unseen);
        let reasons = found.iter().map(|f| (f.reason.word, f.reason.values[0].as_str()));
        let reasons: Vec<_> = reasons.collect();
        assert_eq!(reasons, [(Word::WithdrawnSafety, "2"), (Word::WithdrawnUnsaid, "1")]);
        assert!(found[0].reason.text(Default::default()).contains("113037"));
    }

    #[test]
    fn what_was_acknowledged_stays_so_and_beyond_the_limit_all_is() {
        let mut seen = Seen { instances: ["1.1"].map(short).into() };
        assert!(seen.has("1.1") && !seen.has("1.2"));
        let bytes = minicbor::to_vec(&seen).unwrap();
        assert_eq!(minicbor::decode::<Seen>(&bytes).unwrap(), seen);
        seen.instances.extend(0..SEEN_MAX as u64);
        assert!(seen.has("1.2"));
        assert!(minicbor::to_vec(&seen).unwrap().len() < 500_000);
    }
}
