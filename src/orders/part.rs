//! The parts of an order: what JAHIS writes as children (ORC-1 CH) below a parent (PA), each with
//! numbers of its own (JAHIS 放射線データ交換規約; SS-MIX2 OMG^O19).
//!
//! A part is no order: images that bear its numbers belong to the order, whose state follows its
//! parts where the RIS speaks of them alone. Cancelling the order ends all of it,
//! cancelling a part only that part.

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::identifier::Identifier;
use super::order::{Order, OrderState, PARTS_MAX, Procedure};
use crate::cargo::Urgency;
use crate::clock::Timestamp;

/// A part of an order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Part {
    /// Its placer order number, ORC-2; else its filler order number.
    #[n(0)]
    pub number: String,
    /// Its filler order number, ORC-3.
    #[n(1)]
    pub filler: Option<Identifier>,
    /// Its accession number.
    #[n(2)]
    pub accession: Option<Identifier>,
    /// Its study UIDs.
    #[n(3)]
    pub studies: Vec<String>,
    /// Its procedures and steps.
    #[n(4)]
    pub procedures: Vec<Procedure>,
    /// When it is to be performed.
    #[n(5)]
    pub scheduled: Option<Timestamp>,
    /// How soon.
    #[n(6)]
    pub urgency: Option<Urgency>,
    /// How far it is, as last told; in what a message says: absent where it does not speak of that,
    /// and `Requested` only where the part is ordered anew.
    #[n(7)]
    pub state: Option<OrderState>,
}

impl Part {
    /// Whether images of it are still to be expected.
    pub fn is_open(&self) -> bool {
        self.state.unwrap_or_default().is_open()
    }

    fn take(&mut self, later: &Self) {
        for (own, new) in
            [(&mut self.filler, &later.filler), (&mut self.accession, &later.accession)]
        {
            if new.as_ref().is_some_and(Identifier::is_named) {
                own.clone_from(new);
            }
        }
        if !later.studies.is_empty() {
            self.studies.clone_from(&later.studies);
        }
        if !later.procedures.is_empty() {
            self.procedures.clone_from(&later.procedures);
        }
        self.scheduled = later.scheduled.or(self.scheduled);
        self.urgency = later.urgency.or(self.urgency);
        self.state = match (self.state, later.state) {
            (own, None) => own,
            (_, Some(OrderState::Requested)) => later.state,
            (own, Some(told)) if told.is_open() => Some(own.unwrap_or_default().told(told)),
            (_, ended) => ended,
        };
    }
}

impl Order {
    /// The same with what is open of its parts among its own procedures, studies and numbers: as
    /// one who knows of no parts, such as a worklist or another RIS, is told of it.
    pub fn with_parts(&self) -> Self {
        let mut whole = self.clone();
        let c = &mut whole.content;
        for part in std::mem::take(&mut c.parts).into_iter().filter(Part::is_open) {
            let study = part.studies.first().cloned().unwrap_or_default();
            let of_part = |procedure: Procedure| Procedure {
                study: Some(procedure.study).filter(|s| !s.is_empty()).unwrap_or(study.clone()),
                scheduled: procedure.scheduled.or(part.scheduled),
                ..procedure
            };
            let room = PARTS_MAX.saturating_sub(c.procedures.len());
            c.procedures.extend(part.procedures.into_iter().map(of_part).take(room));
            let new: Vec<String> =
                part.studies.into_iter().filter(|s| !c.studies.contains(s)).collect();
            c.studies.extend(new.into_iter().take(PARTS_MAX.saturating_sub(c.studies.len())));
            c.accession = c.accession.take().or(part.accession);
            c.filler = c.filler.take().or(part.filler);
            c.scheduled = c.scheduled.or(part.scheduled);
            c.urgency = c.urgency.min(part.urgency).or(c.urgency).or(part.urgency);
            if c.modality.is_empty() {
                let named = c.procedures.iter().map(|p| &p.modality).find(|m| !m.is_empty());
                c.modality = named.cloned().unwrap_or_default();
            }
        }
        whole
    }
}

/// Takes over what `later` says of parts; at most [`PARTS_MAX`] are kept.
pub(super) fn take_parts(own: &mut Vec<Part>, later: &[Part]) {
    for part in later {
        match own.iter().position(|p| p.number == part.number) {
            Some(at) => own[at].take(part),
            None if own.len() < PARTS_MAX => own.push(part.clone()),
            None => {}
        }
    }
}

/// The state of an order of which `told` was said, with its parts.
pub(super) fn state_with(parts: &[Part], told: OrderState) -> OrderState {
    use OrderState::{Cancelled, Discontinued, InProgress, Performed, Requested};
    if parts.is_empty() || !matches!(told, Requested | InProgress) {
        return told;
    }
    let states: Vec<OrderState> = parts.iter().map(|p| p.state.unwrap_or_default()).collect();
    let open: Vec<OrderState> = states.iter().copied().filter(|s| s.is_open()).collect();
    if open.is_empty() {
        return if states.contains(&Cancelled) { Cancelled } else { Discontinued };
    }
    if open.iter().all(|s| *s == Performed) {
        return Performed;
    }
    let begun = open.iter().any(|s| matches!(s, InProgress | Performed));
    if begun { InProgress } else { told }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::order::OrderKey;

    fn part(number: &str, state: Option<OrderState>) -> Part {
        Part { number: number.into(), state, ..Part::default() }
    }

    #[test]
    fn an_order_ends_with_the_last_of_its_parts_and_not_with_the_first() {
        use OrderState::{Cancelled, Discontinued, InProgress, Performed, Requested};
        let state = |a, b| state_with(&[part("1", a), part("2", b)], Requested);
        assert_eq!(state(None, Some(Cancelled)), Requested);
        assert_eq!(state(Some(Discontinued), Some(Cancelled)), Cancelled);
        assert_eq!(state(Some(Discontinued), Some(Discontinued)), Discontinued);
        assert_eq!(state(Some(Performed), None), InProgress);
        assert_eq!(state(Some(Performed), Some(Cancelled)), Performed);
        assert_eq!(state_with(&[part("1", None)], Cancelled), Cancelled, "the order has its say");
    }

    #[test]
    fn who_knows_of_no_parts_is_told_of_those_that_are_open() {
        let step = |step: &str| Procedure { step: step.into(), ..Procedure::default() };
        let of = |number: &str, state, studies: &[&str]| Part {
            procedures: vec![step(number)],
            studies: studies.iter().map(|s| (*s).to_owned()).collect(),
            accession: Some(Identifier::bare(number)),
            scheduled: Some(Timestamp(7)),
            ..part(number, state)
        };
        let key = OrderKey { origin: "hospital".parse().unwrap(), number: "P".into() };
        let mut order = Order::empty(key);
        let ended = of("1", Some(OrderState::Cancelled), &["1.1"]);
        order.content.parts = vec![ended, of("2", None, &["1.2"]), of("3", None, &["1.2"])];
        let c = order.with_parts().content;
        let steps: Vec<_> = c.procedures.iter().map(|p| (&p.step[..], &p.study[..])).collect();
        assert_eq!(steps, [("2", "1.2"), ("3", "1.2")]);
        assert_eq!(
            (c.studies.as_slice(), c.scheduled),
            (&["1.2".to_owned()][..], Some(Timestamp(7)))
        );
        assert_eq!(c.accession, Some(Identifier::bare("2")));
        assert!(c.parts.is_empty());
    }

    #[test]
    fn an_order_is_of_the_modality_of_its_parts_even_when_they_have_ended() {
        let step = Procedure { modality: "CT".into(), ..Procedure::default() };
        let ended = Some(OrderState::Cancelled);
        let mut order =
            Order::empty(OrderKey { origin: "hospital".parse().unwrap(), number: "P".into() });
        assert_eq!(order.content.any_modality(), "");
        order.content.parts = vec![Part { procedures: vec![step], ..part("1", ended) }];
        assert_eq!(order.content.any_modality(), "CT");
        order.content.modality = "MR".into();
        assert_eq!(order.content.any_modality(), "MR");
    }

    #[test]
    fn a_cancelled_part_is_brought_back_by_a_new_order_alone() {
        use OrderState::{Cancelled, InProgress, Requested};
        let mut own = vec![part("1", Some(Requested))];
        take_parts(&mut own, &[part("1", Some(Cancelled))]);
        take_parts(&mut own, &[part("1", None), part("1", Some(InProgress))]);
        assert_eq!(own[0].state, Some(Cancelled));
        take_parts(&mut own, &[part("1", Some(Requested)), part("2", None)]);
        assert_eq!((own[0].state, own.len()), (Some(Requested), 2));
    }
}
