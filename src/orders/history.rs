//! The messages of an order, and what they amount to.
//!
//! Messages come twice, late and in any order: from HL7, from a polled worklist, from a person. A
//! [`History`] keeps them sorted by when they were *sent* and folds them ([`Order::apply`]), so
//! that the order as it stands depends on which messages there are and not on how they came. The
//! same message (source and control ID) is kept once.
//!
//! Limits: the last [`MESSAGES_MAX`] messages are kept; older ones are folded for good, and one
//! that then arrives and was sent before those is told to be stale and changes nothing.

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::order::{Action, Order, OrderKey};
use crate::clock::Timestamp;

/// Most messages that a history keeps one by one.
pub const MESSAGES_MAX: usize = 64;

/// Where a message stands among the others.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize,
)]
#[cbor(map)]
pub struct Stamp {
    /// When its sender says that it was sent (MSH-7); else when it was heard.
    #[n(0)]
    pub sent: Timestamp,
    /// When this node heard it: tells apart what was sent in the same second.
    #[n(1)]
    pub heard: Timestamp,
    /// Message control ID (MSH-10), unique with the source.
    #[n(2)]
    pub id: String,
}

/// A message about an order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Message {
    /// When, and which.
    #[n(0)]
    pub stamp: Stamp,
    /// Who sent it: an HL7 application, a worklist, a person.
    #[n(1)]
    pub source: String,
    /// What it does.
    #[n(2)]
    pub action: Action,
}

/// What came of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Applied {
    /// The order is another one now.
    Changed,
    /// It says what is known already, or a later message overrules it.
    Unchanged,
    /// The same message was here before.
    Duplicate,
    /// Sent before everything that is still kept one by one; it changes nothing.
    Stale,
}

/// All that was said of one order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct History {
    /// What the messages that are no longer kept amount to.
    #[n(0)]
    base: Order,
    /// The last of those.
    #[n(1)]
    base_stamp: Option<Stamp>,
    /// In the order in which they were sent.
    #[n(2)]
    messages: Vec<Message>,
}

impl History {
    /// Of an order of which nothing was said yet.
    pub fn new(key: OrderKey) -> Self {
        Self { base: Order::empty(key), base_stamp: None, messages: Vec::new() }
    }

    /// Which order.
    pub fn key(&self) -> &OrderKey {
        &self.base.key
    }

    /// The messages that are kept one by one, as they were sent.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The order as it stands.
    pub fn order(&self) -> Order {
        let mut order = self.base.clone();
        for m in &self.messages {
            order.apply(&m.action, &m.source, m.stamp.sent);
        }
        order.state = super::part::state_with(&order.content.parts, order.state);
        order
    }

    /// Takes a message in.
    pub fn apply(&mut self, message: Message) -> Applied {
        if self.base_stamp.as_ref().is_some_and(|base| message.stamp <= *base) {
            return Applied::Stale;
        }
        let same = |m: &Message| m.stamp.id == message.stamp.id && m.source == message.source;
        if let Some(at) = self.messages.iter().position(same) {
            // The first of two is the one that counts, whichever is heard first here.
            if self.messages[at].stamp <= message.stamp {
                return Applied::Duplicate;
            }
            self.messages.remove(at);
            self.insert(message);
            return Applied::Duplicate;
        }
        let before = self.order();
        self.insert(message);
        if self.messages.len() > MESSAGES_MAX {
            self.fold_oldest();
        }
        let after = self.order();
        let same = before.content == after.content && before.state == after.state;
        if same && before.version > 0 { Applied::Unchanged } else { Applied::Changed }
    }

    /// Folds the oldest messages for good until the rest has at most so many bytes.
    pub fn fit(&mut self, bytes: usize) {
        let too_long = |own: &Self| minicbor::to_vec(own).is_ok_and(|b| b.len() > bytes);
        while self.messages.len() > 1 && too_long(self) {
            self.fold_oldest();
        }
    }

    fn fold_oldest(&mut self) {
        let oldest = self.messages.remove(0);
        self.base.apply(&oldest.action, &oldest.source, oldest.stamp.sent);
        self.base_stamp = Some(oldest.stamp);
    }

    fn insert(&mut self, message: Message) {
        let order = |m: &Message| (m.stamp.clone(), m.source.clone());
        let key = order(&message);
        let at = self.messages.partition_point(|m| order(m) < key);
        self.messages.insert(at, message);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::orders::identifier::{Identifier, Patient};
    use crate::orders::order::{Content, OrderState};

    fn history() -> History {
        let origin = "hospital".parse().unwrap();
        History::new(OrderKey { origin, number: "P1".into() })
    }

    fn message(sent: i64, action: Action) -> Message {
        let stamp = Stamp { sent: Timestamp(sent), heard: Timestamp(sent), id: sent.to_string() };
        Message { stamp, source: "RIS".into(), action }
    }

    fn content(accession: &str, reason: &str) -> Content {
        let mut c = Content { accession: Some(Identifier::bare(accession)), ..Content::default() };
        c.clinical.reason = reason.into();
        c
    }

    #[test]
    fn a_change_that_comes_after_the_cancellation_it_was_sent_before_does_not_revive() {
        let mut h = history();
        h.apply(message(1, Action::New(content("A1", "pain"))));
        h.apply(message(3, Action::Cancel("patient left".into())));
        assert_eq!(h.apply(message(2, Action::Change(content("A1", "fall")))), Applied::Changed);
        let order = h.order();
        assert_eq!(order.state, OrderState::Cancelled);
        assert_eq!(order.content.clinical.reason, "fall");
        assert_eq!(order.ended_because, "patient left");
    }

    #[test]
    fn the_same_message_twice_is_a_duplicate_and_changes_nothing() {
        let mut h = history();
        let new = message(1, Action::New(content("A1", "pain")));
        assert_eq!(h.apply(new.clone()), Applied::Changed);
        let before = h.order();
        let resent = Message { stamp: Stamp { heard: Timestamp(99), ..new.stamp.clone() }, ..new };
        assert_eq!(h.apply(resent), Applied::Duplicate);
        assert_eq!(h.order(), before);
    }

    #[test]
    fn a_cancellation_that_comes_first_holds_when_the_order_itself_comes_later() {
        let mut h = history();
        h.apply(message(5, Action::Cancel(String::new())));
        h.apply(message(1, Action::New(content("A1", "pain"))));
        assert_eq!(h.order().state, OrderState::Cancelled);
        h.apply(message(9, Action::New(content("A1", "again"))));
        assert_eq!(h.order().state, OrderState::Requested, "ordered again");
    }

    #[test]
    fn a_merge_keeps_the_retired_number_and_an_update_of_someone_else_changes_nothing() {
        let mut h = history();
        let mut new = content("A1", "pain");
        new.patient.ids = vec![Identifier::of("old", "H")];
        h.apply(message(1, Action::New(new)));
        let stranger = Patient {
            ids: vec![Identifier::of("x", "H")],
            birth_date: "19000101".into(),
            ..Patient::default()
        };
        assert_eq!(h.apply(message(2, Action::Update(stranger))), Applied::Unchanged);
        let survivor = Patient { ids: vec![Identifier::of("new", "H")], ..Patient::default() };
        h.apply(message(3, Action::Merge(survivor, vec![Identifier::of("old", "H")])));
        let patient = h.order().content.patient;
        assert_eq!(patient.ids, [Identifier::of("new", "H")]);
        assert_eq!(patient.former, [Identifier::of("old", "H")]);
    }

    #[test]
    fn more_messages_than_are_kept_still_amount_to_the_same_order() {
        let mut h = history();
        for n in 1..=200 {
            let applied = h.apply(message(n, Action::Change(content("A1", &n.to_string()))));
            assert_eq!(applied, Applied::Changed);
        }
        assert_eq!(h.messages().len(), MESSAGES_MAX);
        assert_eq!(h.order().content.clinical.reason, "200");
        assert_eq!(h.order().version, 200);
        assert_eq!(h.apply(message(3, Action::Cancel(String::new()))), Applied::Stale);
        let bytes = minicbor::to_vec(&h).unwrap();
        assert_eq!(minicbor::decode::<History>(&bytes).unwrap(), h);
    }

    fn action() -> impl Strategy<Value = Action> {
        let ids = |n: u8| vec![Identifier::of(&n.to_string(), "H")];
        let patient = move |n: u8| Patient { ids: ids(n), ..Patient::default() };
        let content = move |n: u8| {
            let mut c = content(&n.to_string(), &n.to_string());
            c.patient = patient(n % 3);
            c
        };
        prop_oneof![
            (0..4u8).prop_map(move |n| Action::New(content(n))),
            (0..4u8).prop_map(move |n| Action::Change(content(n))),
            Just(Action::Cancel("c".into())),
            Just(Action::Discontinue("d".into())),
            Just(Action::Status(OrderState::Performed)),
            (0..3u8).prop_map(move |n| Action::Update(patient(n))),
            (0..3u8, 0..3u8).prop_map(move |(a, b)| Action::Merge(patient(a), ids(b))),
        ]
    }

    proptest! {
        #[test]
        fn the_order_does_not_depend_on_how_its_messages_arrive(
            actions in proptest::collection::vec(action(), 1..12),
            seed in any::<u64>(),
        ) {
            let messages: Vec<_> =
                actions.into_iter().enumerate().map(|(n, a)| message(n as i64, a)).collect();
            let (mut straight, mut mixed) = (history(), history());
            for m in &messages {
                straight.apply(m.clone());
            }
            let mut shuffled = messages.clone();
            shuffled.sort_by_key(|m| seed.rotate_left(m.stamp.sent.0 as u32 * 7) ^ seed);
            for m in shuffled.iter().chain(&messages[..messages.len() / 2]) {
                mixed.apply(m.clone());
            }
            prop_assert_eq!(straight, mixed);
        }
    }
}
