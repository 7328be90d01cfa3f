//! Grade 6: gaps that the headers themselves betray. Warnings only.
//!
//! The traps, all met in real studies:
//! - An instance number is unique in nothing: each echo of a series counts from 1 again, magnitude
//!   and phase series have the same numbers, and acquisitions count on or begin again. So only
//!   numbers *absent* between the first and the last matter; where acquisitions of a series share
//!   numbers each is looked at alone, else the run goes through the series.
//! - Runs begin at 0, at 1, or anywhere; what may lack before the first and after the last cannot
//!   be told from numbers. Images in Acquisition and stronger evidence tell.
//! - Numbers may be sparse on purpose: where more than half of a run is absent it is no run.
//! - Images in Acquisition may be smaller than what an acquisition gives (one repetition of a
//!   time series) and counts no derived images. Multi-frame images count their frames.
//! - Localizers, dose reports and key objects may take numbers of a run, but make none.
//! - Slices may be unevenly spaced on purpose: only a step of a whole multiple where nearly all
//!   others are alike is a gap.
//!
//! Adding an image costs O(log n); finding the gaps O(n), and is done for quiet studies only.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::instance::{Instance, Plane, Role};

/// Most absent numbers that one gap lists.
pub const NUMBERS_MAX: usize = 1000;
/// Most gaps of one study.
pub const GAPS_MAX: usize = 1000;
/// Fewest slices for which spacing means something.
const SLICES_MIN: usize = 5;

/// Something that seems to lack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Gap {
    /// Series Instance UID.
    #[n(0)]
    pub series: String,
    /// Acquisition Number, where the gap is within one.
    #[n(1)]
    pub acquisition: Option<i32>,
    /// How it shows.
    #[n(2)]
    pub sign: Sign,
}

/// How a gap shows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// These instance numbers are absent from a run.
    #[n(0)]
    Numbers(#[n(0)] Vec<i32>),
    /// These numbers stand less often than all others of the run, as when one echo lacks.
    #[n(1)]
    Uneven(#[n(0)] Vec<i32>),
    /// Fewer images than Images in Acquisition (0020,1002).
    #[n(2)]
    #[cbor(map)]
    Acquisition {
        /// What it says.
        #[n(0)]
        claimed: u32,
        /// Frames in custody.
        #[n(1)]
        held: u32,
    },
    /// An image has fewer frames than it claims.
    #[n(3)]
    #[cbor(map)]
    Frames {
        /// Which.
        #[n(0)]
        sop: String,
        /// Number of Frames (0028,0008).
        #[n(1)]
        claimed: u32,
        /// Frames in its pixel data.
        #[n(2)]
        held: u32,
    },
    /// Slices lack between others.
    #[n(4)]
    #[cbor(map)]
    Spacing {
        /// How many.
        #[n(0)]
        slices: u32,
        /// Between which distance along the normal, in micrometres, ...
        #[n(1)]
        from_um: i64,
        /// ... and which.
        #[n(2)]
        to_um: i64,
    },
}

/// What one acquisition of a series holds.
#[derive(Debug, Clone, Default)]
struct Run {
    /// How often images bear a number.
    images: BTreeMap<i32, u32>,
    /// Numbers that something else bears.
    others: BTreeSet<i32>,
    /// Frames of its images.
    frames: u32,
    /// Images in Acquisition.
    claimed: u32,
}

#[derive(Debug, Clone, Default)]
struct Series {
    runs: BTreeMap<Option<i32>, Run>,
    planes: BTreeSet<Plane>,
}

/// The numbers of one study's images.
#[derive(Debug, Clone, Default)]
pub struct Numbering {
    series: BTreeMap<String, Series>,
    cut: BTreeSet<Gap>,
}

impl Numbering {
    /// Adds an instance; the caller adds each only once.
    pub fn add(&mut self, i: &Instance) {
        if !self.series.contains_key(&i.series) {
            self.series.insert(i.series.clone(), Series::default());
        }
        let series = self.series.get_mut(&i.series).expect("just made sure");
        let run = series.runs.entry(i.acquisition).or_default();
        if i.role == Role::Image {
            if let Some(number) = i.number {
                *run.images.entry(number).or_default() += 1;
            }
            run.frames = run.frames.saturating_add(i.frames.unwrap_or(1));
            run.claimed = run.claimed.max(i.in_acquisition.unwrap_or(0));
            series.planes.extend(i.plane);
        } else if let Some(number) = i.number {
            run.others.insert(number);
        }
        if let Some(held) = i.frames_present {
            let claimed = i.frames.unwrap_or(1);
            self.cut.insert(Gap {
                series: i.series.clone(),
                acquisition: i.acquisition,
                sign: Sign::Frames { sop: i.sop.clone(), claimed, held },
            });
        }
    }

    /// All gaps, at most [`GAPS_MAX`].
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps: Vec<Gap> = self.cut.iter().take(GAPS_MAX).cloned().collect();
        for (uid, series) in &self.series {
            let gap = |acquisition, sign| Gap { series: uid.clone(), acquisition, sign };
            series.numbers(|acquisition, sign| gaps.push(gap(acquisition, sign)));
            for (acquisition, run) in &series.runs {
                // Without an Acquisition Number there is nothing that the claim is about.
                if acquisition.is_some() && run.frames > 0 && run.frames < run.claimed {
                    let sign = Sign::Acquisition { claimed: run.claimed, held: run.frames };
                    gaps.push(gap(*acquisition, sign));
                }
            }
            series.spacing(|sign| gaps.push(gap(None, sign)));
            if gaps.len() >= GAPS_MAX {
                break;
            }
        }
        gaps.truncate(GAPS_MAX);
        gaps
    }
}

impl Series {
    fn numbers(&self, mut tell: impl FnMut(Option<i32>, Sign)) {
        let each = || self.runs.values().flat_map(|r| r.images.keys());
        let distinct: BTreeSet<i32> = each().copied().collect();
        if distinct.len() == each().count() {
            let mut whole = Run::default();
            for run in self.runs.values() {
                whole.images.extend(&run.images);
                whole.others.extend(&run.others);
            }
            whole.numbers(|sign| tell(None, sign));
        } else {
            for (acquisition, run) in &self.runs {
                run.numbers(|sign| tell(*acquisition, sign));
            }
        }
    }

    fn spacing(&self, mut tell: impl FnMut(Sign)) {
        let mut by_normal: BTreeMap<[i16; 3], Vec<i64>> = BTreeMap::new();
        for plane in &self.planes {
            by_normal.entry(plane.normal).or_default().push(plane.distance_um);
        }
        for distances in by_normal.values().filter(|d| d.len() >= SLICES_MIN) {
            let steps: Vec<i64> = distances.windows(2).map(|w| w[1] - w[0]).collect();
            let mut sorted = steps.clone();
            sorted.sort_unstable();
            let usual = sorted[sorted.len() / 2];
            let near = |step: i64, of: i64| (step - of).abs() * 10 <= usual;
            let alike = steps.iter().filter(|s| near(**s, usual)).count();
            // Steps of a few micrometres are noise, and nearly all must be alike.
            if usual < 50 || alike * 4 < steps.len() * 3 {
                continue;
            }
            for (at, step) in steps.iter().enumerate() {
                let times = (step + usual / 2) / usual;
                if times >= 2 && near(*step, times * usual) {
                    let slices = u32::try_from(times - 1).unwrap_or(u32::MAX);
                    let (from_um, to_um) = (distances[at], distances[at + 1]);
                    tell(Sign::Spacing { slices, from_um, to_um });
                }
            }
        }
    }
}

impl Run {
    fn numbers(&self, mut tell: impl FnMut(Sign)) {
        let (Some((first, _)), Some((last, _))) =
            (self.images.first_key_value(), self.images.last_key_value())
        else {
            return;
        };
        let there: BTreeSet<i32> =
            self.images.keys().chain(self.others.range(first..=last)).copied().collect();
        let span = i64::from(*last) - i64::from(*first) + 1;
        let absent = span - there.len() as i64;
        if absent > 0 && absent * 2 <= span {
            let absent = (*first..=*last).filter(|n| !there.contains(n)).take(NUMBERS_MAX);
            tell(Sign::Numbers(absent.collect()));
        }
        let most = self.images.values().copied().max().unwrap_or(0);
        let fewer: Vec<i32> =
            self.images.iter().filter(|(_, n)| **n < most).map(|(number, _)| *number).collect();
        if !fewer.is_empty() && fewer.len() * 10 <= self.images.len() {
            tell(Sign::Uneven(fewer.into_iter().take(NUMBERS_MAX).collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(series: &str, number: i32, acquisition: i32) -> Instance {
        Instance {
            sop: format!("{series}.{number}.{acquisition}"),
            series: series.into(),
            number: Some(number),
            acquisition: Some(acquisition),
            ..Instance::default()
        }
    }

    fn gaps(images: impl IntoIterator<Item = Instance>) -> Vec<Sign> {
        let mut n = Numbering::default();
        images.into_iter().for_each(|i| n.add(&i));
        n.gaps().into_iter().map(|g| g.sign).collect()
    }

    #[test]
    fn a_lacking_slice_shows_in_its_number() {
        let images = (1..=20).filter(|n| *n != 7).map(|n| image("1", n, 1));
        assert_eq!(gaps(images), [Sign::Numbers(vec![7])]);
    }

    /// Public phantom, a gradient-echo field map: 36 slices, two echoes in one series and one
    /// acquisition, each numbered 1 to 36; the phase series has the same numbers again.
    fn two_echoes() -> Vec<Instance> {
        let magnitude = (1..=36).flat_map(|n| [image("2", n, 1), image("2", n, 1)]);
        magnitude.chain((1..=36).map(|n| image("3", n, 1))).collect()
    }

    #[test]
    fn duplicate_instance_numbers_are_no_gap_but_one_echo_less_is() {
        let mut images = two_echoes();
        assert_eq!(gaps(images.clone()), []);
        images.remove(33);
        assert_eq!(gaps(images), [Sign::Uneven(vec![17])]);
    }

    #[test]
    fn numbers_that_run_through_the_acquisitions_of_a_series_are_one_run() {
        // The same study: mosaics, two per acquisition, numbered 1 to 6.
        let numbers = [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3)];
        let run = |without: i32| {
            let images = numbers.into_iter().filter(move |(n, _)| *n != without);
            gaps(images.map(|(n, a)| image("4", n, a)))
        };
        assert_eq!(run(0), []);
        assert_eq!(run(4), [Sign::Numbers(vec![4])]);
    }

    #[test]
    fn acquisitions_that_begin_again_are_looked_at_one_by_one() {
        let images = (1..=10).flat_map(|n| [image("1", n, 1), image("1", n, 2)]);
        let images = images.filter(|i| (i.number, i.acquisition) != (Some(4), Some(2)));
        assert_eq!(gaps(images), [Sign::Numbers(vec![4])]);
    }

    #[test]
    fn runs_begin_anywhere_and_sparse_numbers_are_no_run() {
        // Public examples: an axial series that begins at 6, one that begins at 0, and one of
        // which 18, 180, 181 and 182 are published.
        assert_eq!(gaps((6..=10).map(|n| image("5", n, if n < 9 { 1 } else { 2 }))), []);
        assert_eq!(gaps((0..50).map(|n| image("1", n, 0))), []);
        assert_eq!(gaps([18, 180, 181, 182].map(|n| image("2", n, 4))), []);
        assert_eq!(gaps([i32::MIN, i32::MAX].map(|n| image("2", n, 4))), []);
    }

    #[test]
    fn images_in_acquisition_counts_frames_and_may_be_exceeded_by_repetitions() {
        let claim = |count: i32, claimed, frames| {
            gaps((1..=count).map(|n| Instance {
                in_acquisition: Some(claimed),
                frames: Some(frames),
                ..image("1", n, 1)
            }))
        };
        // Public fMRI: 150 images in an acquisition that claims 15.
        assert_eq!(claim(150, 15, 1), []);
        assert_eq!(claim(195, 196, 1), [Sign::Acquisition { claimed: 196, held: 195 }]);
        assert_eq!(claim(1, 60, 60), []);
    }

    #[test]
    fn projections_of_a_published_subset_claim_nothing() {
        // Seven of twelve derived projections are published.
        let images = (1..=7).map(|n| Instance {
            role: Role::Derived,
            in_acquisition: Some(12),
            ..image("700", n, 6)
        });
        assert_eq!(gaps(images), []);
    }

    #[test]
    fn a_localizer_may_take_a_number_of_the_run() {
        let images = (1..=9).map(|n| Instance {
            role: if n == 4 { Role::Localizer } else { Role::Image },
            ..image("1", n, 1)
        });
        assert_eq!(gaps(images), []);
    }

    #[test]
    fn a_lacking_slice_shows_in_the_spacing_when_the_numbers_were_given_again() {
        let slice = |at: i32, number: i32| Instance {
            plane: Plane::of(&format!(r"-115.5\-1.85\{}.21", 696 + 5 * at), r"1\0\0\0\1\0"),
            ..image("201", number, 1)
        };
        assert_eq!(gaps((0..28).map(|n| slice(n, n + 1))), []);
        let images = (0..28).filter(|n| *n != 9).enumerate().map(|(i, n)| slice(n, i as i32 + 1));
        let lacking = Sign::Spacing { slices: 1, from_um: 736_210, to_um: 746_210 };
        assert_eq!(gaps(images), [lacking]);
        let uneven = [0, 1, 3, 7, 8, 12, 20].into_iter().enumerate();
        assert_eq!(gaps(uneven.map(|(i, n)| slice(n, i as i32 + 1))), []);
    }

    #[test]
    fn an_image_with_too_few_frames_is_a_gap() {
        let cut = Instance { frames: Some(10), frames_present: Some(9), ..image("1", 1, 1) };
        let sop = cut.sop.clone();
        assert_eq!(gaps([cut]), [Sign::Frames { sop, claimed: 10, held: 9 }]);
    }
}
