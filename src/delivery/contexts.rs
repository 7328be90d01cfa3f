//! Which presentation contexts to propose, and what an object may travel in (PS3.8 9.3.2.2, PS3.4
//! B.3.1). Pure.
//!
//! One context per pair of SOP class and transfer syntax, with that one syntax: an acceptor that
//! chooses among several would choose for us, and dcmtk's choose badly.

use std::collections::VecDeque;

use dicom_ul::pdu::{
    PresentationContextProposed, PresentationContextResult, PresentationContextResultReason,
};

use crate::dicom::{EXPLICIT_VR_BE, EXPLICIT_VR_LE, IMPLICIT_VR_LE};

/// Most presentation contexts of an association: odd numbers of one byte.
pub const CONTEXTS_MAX: usize = 128;

/// How many pairs that were sent lately are proposed again, so that one association serves a
/// mixed study.
const RECENT_MAX: usize = 64;

/// What an object needs: its SOP class and the transfer syntax in which its bytes stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pair {
    /// SOP Class UID.
    pub sop_class: String,
    /// Transfer syntax UID.
    pub syntax: String,
}

/// Whether we can re-encode from and to this transfer syntax.
pub fn is_native(syntax: &str) -> bool {
    [IMPLICIT_VR_LE, EXPLICIT_VR_LE, EXPLICIT_VR_BE].contains(&syntax)
}

/// Syntaxes that a native object may be re-encoded to, best first. Big endian is retired and
/// never offered.
fn alternatives(syntax: &str) -> Vec<String> {
    let others = [EXPLICIT_VR_LE, IMPLICIT_VR_LE].into_iter().filter(|s| *s != syntax);
    others.map(str::to_owned).collect()
}

/// Pairs that were sent lately, newest first.
#[derive(Debug, Default)]
pub struct Recent(VecDeque<Pair>);

impl Recent {
    /// Notes that `pair` was wanted.
    pub fn note(&mut self, pair: &Pair) {
        self.0.retain(|p| p != pair);
        self.0.push_front(pair.clone());
        self.0.truncate(RECENT_MAX);
    }
}

/// What is proposed, in the order of the context numbers 1, 3, 5 …
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proposal(Vec<Proposed>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Proposed {
    sop_class: String,
    syntaxes: Vec<String>,
    /// The native syntax from which an object would be re-encoded to use this context.
    from: Option<String>,
}

impl Proposal {
    /// For `wanted`, in their order, and after them for `recent` while there is room. With
    /// `reencode`, native pairs get a second context with the syntaxes they may be changed to.
    pub fn plan<'a>(
        wanted: impl IntoIterator<Item = &'a Pair>,
        recent: &'a Recent,
        reencode: bool,
    ) -> Self {
        let mut plan = Self::default();
        for pair in wanted.into_iter().chain(&recent.0) {
            let with_alternatives = reencode && is_native(&pair.syntax);
            let room = CONTEXTS_MAX - plan.0.len();
            if room < 1 + usize::from(with_alternatives) || plan.covers(pair) {
                continue;
            }
            plan.0.push(Proposed {
                sop_class: pair.sop_class.clone(),
                syntaxes: vec![pair.syntax.clone()],
                from: None,
            });
            if with_alternatives {
                plan.0.push(Proposed {
                    sop_class: pair.sop_class.clone(),
                    syntaxes: alternatives(&pair.syntax),
                    from: Some(pair.syntax.clone()),
                });
            }
        }
        plan
    }

    /// Whether an association with this proposal says what becomes of `pair`.
    pub fn covers(&self, pair: &Pair) -> bool {
        self.position(pair).is_some()
    }

    fn position(&self, pair: &Pair) -> Option<usize> {
        self.0.iter().position(|p| {
            p.from.is_none() && p.sop_class == pair.sop_class && p.syntaxes[0] == pair.syntax
        })
    }

    /// As items of an A-ASSOCIATE-RQ.
    pub fn items(&self) -> Vec<PresentationContextProposed> {
        let items = self.0.iter().enumerate().map(|(n, p)| PresentationContextProposed {
            id: context_id(n),
            abstract_syntax: p.sop_class.clone(),
            transfer_syntaxes: p.syntaxes.clone(),
        });
        items.collect()
    }
}

fn context_id(position: usize) -> u8 {
    u8::try_from(2 * position + 1).expect("at most 128 contexts")
}

/// What was negotiated.
#[derive(Debug, Clone)]
pub struct Terms {
    proposal: Proposal,
    results: Vec<PresentationContextResult>,
}

/// How an object may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// In this context, its bytes as they are.
    AsIs(u8),
    /// In this context, re-encoded to this native syntax.
    Reencoded(u8, String),
    /// Not at all: the destination does not take it; in words.
    Refused(String),
    /// Not now: the destination declined without saying why, or did not answer; in words.
    Declined(String),
    /// The association was not asked.
    Unasked,
}

impl Terms {
    /// Of a proposal and the items of the A-ASSOCIATE-AC.
    pub fn new(proposal: Proposal, results: Vec<PresentationContextResult>) -> Self {
        Self { proposal, results }
    }

    /// Whether the peer was asked about `pair`.
    pub fn covers(&self, pair: &Pair) -> bool {
        self.proposal.covers(pair)
    }

    /// The way for an object of this pair.
    pub fn way(&self, pair: &Pair) -> Way {
        use PresentationContextResultReason as R;
        let Some(at) = self.proposal.position(pair) else { return Way::Unasked };
        if self.accepted(at).is_some() {
            return Way::AsIs(context_id(at));
        }
        let alternative = self
            .proposal
            .0
            .get(at + 1)
            .filter(|p| p.from.as_deref() == Some(&pair.syntax))
            .and_then(|_| self.accepted(at + 1));
        if let Some(syntax) = alternative {
            return Way::Reencoded(context_id(at + 1), syntax.to_owned());
        }
        let Pair { sop_class, syntax } = pair;
        match self.result(at).map(|r| &r.reason) {
            Some(R::AbstractSyntaxNotSupported) => Way::Refused(format!(
                "the destination does not take SOP class {sop_class}; enable it there, or route \
                 such objects elsewhere"
            )),
            Some(R::TransferSyntaxesNotSupported) => Way::Refused(refused_syntax(pair)),
            Some(R::Acceptance) => Way::Declined(format!(
                "the destination answered transfer syntax {syntax} of SOP class {sop_class} with \
                 another one"
            )),
            Some(R::UserRejection | R::NoReason) | None => Way::Declined(format!(
                "the destination declined SOP class {sop_class} in transfer syntax {syntax} \
                 without a reason"
            )),
        }
    }

    fn result(&self, position: usize) -> Option<&PresentationContextResult> {
        self.results.iter().find(|r| r.id == context_id(position))
    }

    /// The syntax in which the context was accepted, if it is one that was proposed.
    fn accepted(&self, position: usize) -> Option<&str> {
        let result = self.result(position)?;
        let syntax = crate::dicom::trim_uid(&result.transfer_syntax);
        let proposed = &self.proposal.0[position].syntaxes;
        let good = result.reason == PresentationContextResultReason::Acceptance
            && proposed.iter().any(|s| s == syntax);
        good.then_some(syntax)
    }
}

fn refused_syntax(Pair { sop_class, syntax }: &Pair) -> String {
    let advice = if is_native(syntax) {
        "enable it there, or allow re-encoding with reencode = \"native\""
    } else {
        "enable it there, or have the sender send another syntax"
    };
    format!(
        "the destination does not take transfer syntax {syntax} for SOP class {sop_class}; {advice}"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
    const J2K: &str = "1.2.840.10008.1.2.4.90";

    fn pair(sop_class: &str, syntax: &str) -> Pair {
        Pair { sop_class: sop_class.into(), syntax: syntax.into() }
    }

    fn result(
        id: u8,
        reason: PresentationContextResultReason,
        s: &str,
    ) -> PresentationContextResult {
        PresentationContextResult { id, reason, transfer_syntax: s.into() }
    }

    #[test]
    fn each_pair_is_proposed_once_with_its_own_syntax_alone() {
        let pairs = [pair(CT, J2K), pair(CT, EXPLICIT_VR_LE), pair(CT, J2K)];
        let items = Proposal::plan(&pairs, &Recent::default(), false).items();
        let seen: Vec<_> = items.iter().map(|i| (i.id, &i.transfer_syntaxes[..])).collect();
        assert_eq!(seen, [(1, &[J2K.to_owned()][..]), (3, &[EXPLICIT_VR_LE.to_owned()][..])]);
    }

    #[test]
    fn a_native_object_is_reencoded_only_where_its_own_syntax_is_refused_and_that_is_allowed() {
        use PresentationContextResultReason::*;
        let p = pair(CT, EXPLICIT_VR_LE);
        let plan = Proposal::plan([&p], &Recent::default(), true);
        let both =
            vec![result(1, Acceptance, EXPLICIT_VR_LE), result(3, Acceptance, IMPLICIT_VR_LE)];
        assert_eq!(Terms::new(plan.clone(), both).way(&p), Way::AsIs(1));
        let refused = vec![
            result(1, TransferSyntaxesNotSupported, ""),
            result(3, Acceptance, IMPLICIT_VR_LE),
        ];
        let way = Terms::new(plan, refused.clone()).way(&p);
        assert_eq!(way, Way::Reencoded(3, IMPLICIT_VR_LE.into()));
        let strict = Proposal::plan([&p], &Recent::default(), false);
        let Way::Refused(reason) = Terms::new(strict, refused).way(&p) else { panic!() };
        assert!(reason.contains(CT) && reason.contains(EXPLICIT_VR_LE), "{reason}");
        assert!(reason.contains("reencode"), "{reason}");
    }

    #[test]
    fn an_acceptor_that_answers_with_a_syntax_of_its_own_gets_nothing() {
        let p = pair(CT, J2K);
        let plan = Proposal::plan([&p], &Recent::default(), true);
        let results = vec![result(1, PresentationContextResultReason::Acceptance, IMPLICIT_VR_LE)];
        assert!(matches!(Terms::new(plan, results).way(&p), Way::Declined(_)));
    }

    #[test]
    fn a_pair_that_was_not_proposed_is_unasked_and_not_refused() {
        let terms = Terms::new(Proposal::default(), vec![]);
        assert_eq!(terms.way(&pair(CT, J2K)), Way::Unasked);
    }

    proptest! {
        #[test]
        fn a_plan_covers_what_comes_first_and_never_exceeds_128(
            pairs in proptest::collection::vec((0u8..200, 0u8..3), 1..300),
            reencode in any::<bool>(),
        ) {
            let syntaxes = [J2K, EXPLICIT_VR_LE, IMPLICIT_VR_LE];
            let pairs: Vec<_> =
                pairs.iter().map(|(c, s)| pair(&format!("1.{c}"), syntaxes[*s as usize])).collect();
            let mut recent = Recent::default();
            pairs.iter().for_each(|p| recent.note(p));
            let plan = Proposal::plan(&pairs[..pairs.len().min(50)], &recent, reencode);
            let items = plan.items();
            prop_assert!(items.len() <= CONTEXTS_MAX);
            prop_assert!(pairs.iter().take(50).all(|p| plan.covers(p)));
            prop_assert!(items.iter().all(|i| i.id % 2 == 1));
        }
    }
}
