//! What a receiver of HL7 was told of an order, and what it is told next. Pure.
//!
//! | the receiver has the order | the order is | told |
//! |---|---|---|
//! | no | open | NW, all of it |
//! | yes | open, otherwise than it was told | XO, all of it |
//! | yes | open, and only further than it was told | SC, with ORC-5 |
//! | yes | cancelled, discontinued | CA, DC |
//! | no | cancelled, discontinued | nothing |
//!
//! It has the order once it has acknowledged a message that says so. What it has refused for good,
//! or what a person has dismissed, it does not have.

use minicbor::{Decode, Encode};

use crate::cargo::{DestinationName, Hasher, Sha256};
use crate::clock::Timestamp;
use crate::orders::order::{OrderKey, OrderState};

/// Messages to one destination that an order remembers; the oldest go first.
pub(super) const TELLINGS_MAX: usize = 8;
/// Destinations to which an order is told.
pub(super) const TOLD_MAX: usize = 16;

/// What a message asks (ORC-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Control {
    /// NW
    #[n(0)]
    New,
    /// XO
    #[n(1)]
    Change,
    /// CA
    #[n(2)]
    Cancel,
    /// DC
    #[n(3)]
    Discontinue,
    /// SC
    #[n(4)]
    Status,
}

impl Control {
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::New => "NW",
            Self::Change => "XO",
            Self::Cancel => "CA",
            Self::Discontinue => "DC",
            Self::Status => "SC",
        }
    }

    /// Whether a receiver that has taken it has an order in force.
    const fn leaves_order(self) -> bool {
        !matches!(self, Self::Cancel | Self::Discontinue)
    }
}

/// One message about an order to one destination.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Telling {
    #[n(0)]
    pub(super) destination: DestinationName,
    /// MSH-10.
    #[n(1)]
    pub(super) id: String,
    /// Of the order.
    #[n(2)]
    pub(super) revision: u64,
    #[n(3)]
    pub(super) control: Control,
    /// Of all that it says.
    #[n(4)]
    pub(super) said: Sha256,
    /// The same without how far the order is.
    #[n(5)]
    pub(super) content: Sha256,
    /// The destination had the order before.
    #[n(6)]
    pub(super) had: bool,
    /// When it was written.
    #[n(7)]
    pub(super) at: Timestamp,
    /// Its number in custody; absent: custody may not have it yet.
    #[n(8)]
    pub(super) cargo: Option<u64>,
}

/// What became of the last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was acknowledged.
    Taken,
    /// It was refused for good, or dismissed.
    Lost,
    /// It is still owed, or held.
    Open,
}

impl Telling {
    /// Its key in custody.
    pub(super) fn key(&self) -> String {
        format!("hl7-{}", self.id)
    }

    /// Whether the destination has the order after this message.
    const fn leaves_order(&self, fate: Fate) -> bool {
        match fate {
            Fate::Taken => self.control.leaves_order(),
            Fate::Lost | Fate::Open => self.had,
        }
    }
}

/// What is to be told now: the control code, and whether the destination has the order before it.
/// `said` and `content` are of what would be told.
pub(super) fn next(
    last: Option<(&Telling, Fate)>,
    state: OrderState,
    (said, content): (Sha256, Sha256),
) -> Option<(Control, bool)> {
    if last.is_some_and(|(last, _)| last.said == said) {
        return None;
    }
    let had = last.is_some_and(|(last, fate)| last.leaves_order(fate));
    let is_known = last.is_some_and(|(last, fate)| fate == Fate::Taken && last.content == content);
    let control = match (state, had) {
        (OrderState::Cancelled, true) => Control::Cancel,
        (OrderState::Discontinued, true) => Control::Discontinue,
        (OrderState::Cancelled | OrderState::Discontinued, false) => return None,
        (_, false) => Control::New,
        (_, true) if is_known => Control::Status,
        (_, true) => Control::Change,
    };
    Some((control, had))
}

/// MSH-10 of a message: follows from what it says and what was said before, so that it is the same
/// when the message is written again, and no other message has it. 20 characters, as HL7 allows.
pub(super) fn control_id(
    order: &OrderKey,
    destination: &DestinationName,
    before: Option<&Telling>,
    (revision, control, said): (u64, Control, Sha256),
) -> String {
    let mut hasher = Hasher::new();
    let before = before.map_or("", |before| before.id.as_str());
    for part in [order.origin.as_str(), &order.number, destination.as_str(), before, control.code()]
    {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&revision.to_be_bytes());
    hasher.update(&said.0);
    let digest = hasher.finish().to_string();
    digest[..20].to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(control: Control, had: bool, said: u8, content: u8) -> Telling {
        Telling {
            destination: "ris".parse().unwrap(),
            id: "1".into(),
            revision: 1,
            control,
            said: Sha256([said; 32]),
            content: Sha256([content; 32]),
            had,
            at: Timestamp(1),
            cargo: Some(1),
        }
    }

    fn control(
        last: Option<(Telling, Fate)>,
        state: OrderState,
        says: (u8, u8),
    ) -> Option<Control> {
        let last = last.as_ref().map(|(last, fate)| (last, *fate));
        let says = (Sha256([says.0; 32]), Sha256([says.1; 32]));
        next(last, state, says).map(|(control, _)| control)
    }

    #[test]
    fn a_receiver_is_told_new_change_status_and_end_by_what_it_has_acknowledged() {
        use Fate::{Lost, Taken};
        use OrderState::{Cancelled, Discontinued, InProgress, Requested};
        let new = || told(Control::New, false, 1, 1);
        let change = || told(Control::Change, true, 2, 2);
        let cancel = || told(Control::Cancel, true, 3, 2);
        for (last, state, says, wanted) in [
            (None, Requested, (1, 1), Some(Control::New)),
            (None, Cancelled, (1, 1), None),
            (Some((new(), Taken)), Requested, (1, 1), None),
            (Some((new(), Taken)), Requested, (2, 2), Some(Control::Change)),
            (Some((new(), Taken)), InProgress, (2, 1), Some(Control::Status)),
            (Some((new(), Taken)), Cancelled, (2, 1), Some(Control::Cancel)),
            (Some((new(), Taken)), Discontinued, (2, 1), Some(Control::Discontinue)),
            // Refused: it still does not have it, and hears all of it again when it is otherwise.
            (Some((new(), Lost)), Requested, (1, 1), None),
            (Some((new(), Lost)), Requested, (2, 2), Some(Control::New)),
            (Some((new(), Lost)), Cancelled, (2, 1), None),
            (Some((change(), Lost)), InProgress, (3, 2), Some(Control::Change)),
            (Some((change(), Lost)), Cancelled, (3, 2), Some(Control::Cancel)),
            // Ordered again.
            (Some((cancel(), Taken)), Requested, (1, 1), Some(Control::New)),
            (Some((cancel(), Lost)), Requested, (1, 1), Some(Control::Change)),
        ] {
            let shown = format!("{last:?} {state:?}");
            assert_eq!(control(last, state, says), wanted, "{shown}");
        }
    }

    #[test]
    fn the_control_id_is_the_same_for_the_same_message_and_for_no_other() {
        let order = |number: &str| OrderKey { origin: "h".parse().unwrap(), number: number.into() };
        let ris: DestinationName = "ris".parse().unwrap();
        let id = |number, revision, control| {
            control_id(&order(number), &ris, None, (revision, control, Sha256([1; 32])))
        };
        let first = id("P1", 1, Control::New);
        assert_eq!((first.len(), &first), (20, &id("P1", 1, Control::New)));
        let after = Telling { id: first.clone(), ..told(Control::New, false, 1, 1) };
        let others = [
            id("P2", 1, Control::New),
            id("P1", 2, Control::New),
            id("P1", 1, Control::Change),
            control_id(&order("P1"), &ris, Some(&after), (1, Control::New, Sha256([1; 32]))),
        ];
        assert!(!others.contains(&first));
    }
}
