//! Orders in, as a polled worklist shows them.
//!
//! What a worklist has said of an order is remembered beside it, in the same change: the same said
//! again writes nothing, and only what it says otherwise than before is told to the order
//! ([`news`]).

use minicbor::{Decode, Encode};

use super::enter::is_part_of;
use super::keys::{entry, said_key};
use super::record::OrderRecord;
use super::{DeskError, Registrar, message};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::orders::history::{Message, Stamp};
use crate::orders::order::{Action, Content};
use crate::orders::worklist::{Item, news};

/// What became of the orders of a worklist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listed {
    /// Orders that were not known.
    pub new: u64,
    /// Orders of which it said something new.
    pub changed: u64,
    /// Orders of which it said nothing new.
    pub same: u64,
}

impl Listed {
    /// Counts others, too.
    pub fn add(&mut self, other: Self) {
        self.new += other.new;
        self.changed += other.changed;
        self.same += other.same;
    }
}

/// All that a worklist has said of one order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Said {
    #[n(0)]
    content: Content,
    /// When it said something new last.
    #[n(1)]
    at: Timestamp,
}

impl Registrar {
    /// Takes in orders as a worklist shows them.
    pub(super) async fn listed(
        &mut self,
        worklist: &str,
        items: Vec<Item>,
        now: Timestamp,
    ) -> Result<Result<Listed, DeskError>, Stopped> {
        let mut listed = Listed::default();
        for item in items {
            if self.store.is_full() && !self.write_some().await? {
                return Ok(Err(DeskError::NotKept("the spool cannot be written to".into())));
            }
            self.take_item(worklist, item.content, now, &mut listed).await?;
        }
        Ok(Ok(listed))
    }

    async fn take_item(
        &mut self,
        worklist: &str,
        item: Content,
        now: Timestamp,
        listed: &mut Listed,
    ) -> Result<(), Stopped> {
        let key = said_key(worklist, item.number().unwrap_or_default());
        let before: Option<Said> = self.store.get(key.clone()).await?;
        let before = before.map(|said| said.content);
        let (mut record, known): (OrderRecord, bool) = self.order_for(&item, now).await?;
        let order = record.history.order();
        let (said, new) = match known && is_part_of(&item, &order) {
            true => {
                let new = message::of_part(item.clone(), &order.content, None);
                let same = before.as_ref() == Some(&item) || order.content.says_all_of(&new);
                (item, (!same).then_some(new))
            }
            false => news(before.as_ref(), &item, known.then_some(&order)),
        };
        if before.as_ref() == Some(&said) && known {
            listed.same += 1;
            return Ok(());
        }
        self.store.put(entry(key, &Said { content: said, at: now }, Vec::new()));
        let Some(mut new) = new else {
            listed.same += 1;
            return Ok(());
        };
        if let Some(merges) = self.merges.get(&self.config.node) {
            new.patient = merges.settle(&new.patient);
        }
        let heard = self.hear_at(now);
        let source = format!("worklist {worklist}");
        let stamp = Stamp { sent: heard, heard, id: format!("listed-{}", heard.0) };
        let action = if known { Action::Change(new) } else { Action::New(new) };
        record.history.apply(Message { stamp, source, action });
        match known {
            true => listed.changed += 1,
            false => listed.new += 1,
        }
        self.enter_order(record, &order, now).await
    }
}
