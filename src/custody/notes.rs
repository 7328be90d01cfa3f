//! News between nodes: what became of cargo beyond the next node.
//!
//! A node that settles, holds or quarantines a duty for cargo of another origin writes that into a
//! note for the origin, many duties in one. Notes are cargo: durable, carried over the tunnel,
//! receipted. The origin keeps what they say as facts beside its own duty to that node.
//!
//! A note can only speak of cargo of the node that receives it and that was owed to the node that
//! wrote it, at no more than [`BEYOND_MAX`] destinations; all else in it is ignored, and its words
//! are made fit to be shown. After a rebuilt ledger news may be told twice.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::assembly::Assembled;
use super::custodian::{Custodian, LedgerState};
use super::fact::{self, Fact};
use super::ledger::LedgerError;
use super::rows::{CargoId, DestinationNumber};
use super::state::DutyState;
use super::view::Known;
use crate::cargo::{
    Assignment, CargoKind, DestinationName, Envelope, Identity, NodeName, Urgency, peer_text,
};
use crate::clock;

/// Duties in one note.
const NOTE_DUTIES_MAX: usize = 500;
/// Longest note that is believed, in bytes.
pub(super) const NOTE_LENGTH_MAX: u64 = 1 << 20;
/// Destinations beyond the next node that are remembered for one duty.
const BEYOND_MAX: usize = 32;

/// The body of a note.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Note {
    /// What became of which duties.
    #[n(0)]
    pub news: Vec<News>,
}

/// What became of one duty at the node that writes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct News {
    /// Which cargo.
    #[n(0)]
    pub identity: Identity,
    /// To whom that node owed it.
    #[n(1)]
    pub destination: DestinationName,
    /// In which state the duty is there.
    #[n(2)]
    pub state: DutyState,
}

/// Duties that wait to be told of, by origin.
type Waiting = BTreeMap<NodeName, (Note, Vec<(u64, DestinationName)>)>;

impl Custodian {
    /// Writes what waits to be told into notes.
    pub(super) fn write_notes(&mut self) -> Result<(), LedgerError> {
        let keys: Vec<Vec<u8>> = match &self.ledger {
            LedgerState::Ready(view) => {
                let keys = view.ledger.keys(b"o", vec![b'o']);
                keys.take(NOTE_DUTIES_MAX).collect::<Result<_, _>>()?
            }
            LedgerState::Building(_) => return Ok(()),
        };
        let mut waiting = Waiting::new();
        for key in keys {
            let (id, number) = parts(&key);
            match self.news_of(id, number)? {
                Some(news) => {
                    let (note, told) = waiting.entry(news.identity.origin.clone()).or_default();
                    told.push((id.0, news.destination.clone()));
                    note.news.push(news);
                }
                None => {
                    if let Some(view) = self.view() {
                        view.ledger.remove(key)?;
                    }
                }
            }
        }
        for (origin, (note, told)) in waiting {
            // News for a node that nobody here can reach go no further.
            if !self.config.told.contains(&origin) || self.write_note(&origin, &note) {
                let _ = self.state(&Fact::Noted { duties: told });
            }
        }
        Ok(())
    }

    fn news_of(
        &mut self,
        id: CargoId,
        number: DestinationNumber,
    ) -> Result<Option<News>, LedgerError> {
        let LedgerState::Ready(view) = &self.ledger else { return Ok(None) };
        let Some(row) = view.cargo(id)? else { return Ok(None) };
        let Some(duty) = row.duty(number) else { return Ok(None) };
        let (destination, state) = (view.name(number).clone(), duty.state.clone());
        let identity = match self.head_of(id) {
            Some((head, _, _)) => Some(head.envelope.identity),
            None => match row.tombstone.and_then(|place| self.fact_at(place)) {
                Some(Fact::Reclaimed { identity, .. }) => Some(identity),
                _ => None,
            },
        };
        Ok(identity.map(|identity| News { identity, destination, state }))
    }

    fn write_note(&mut self, origin: &NodeName, note: &Note) -> bool {
        let body = Assembled::from_bytes(fact::encode(note));
        let sha256 = body.sha256();
        let identity = Identity {
            origin: self.config.node.clone(),
            key: format!("{}{}", Identity::NEWS, self.peek_id().0),
            sha256,
        };
        let envelope = Envelope::of_ours(CargoKind::Note, identity, body.len(), clock::wall());
        let to = vec![Assignment {
            destination: DestinationName::from(origin),
            urgency: Urgency::Routine,
            hold: None,
        }];
        self.record(envelope, body, to, (None, None)).is_ok()
    }

    /// Keeps what a note says. `writer` is the node that wrote it.
    pub(super) fn read_note(&mut self, writer: &NodeName, body: &[u8]) {
        if body.len() as u64 > NOTE_LENGTH_MAX {
            tracing::warn!(%writer, bytes = body.len(), "a note is too long; ignored");
            return;
        }
        let Ok(note) = minicbor::decode::<Note>(body) else {
            tracing::warn!(%writer, "a note is unreadable; kept, but not acted on");
            return;
        };
        for News { identity, destination, state } in note.news.into_iter().take(NOTE_DUTIES_MAX) {
            if let Some(id) = self.spoken_of(writer, &identity, &destination) {
                let (cargo, node, state) = (id.0, writer.clone(), bounded(state));
                let _ = self.state(&Fact::Beyond { cargo, node, destination, state });
            }
        }
    }

    /// The cargo that `writer` may tell news of: ours, owed to it once, and with room for what
    /// becomes of it at one more destination.
    fn spoken_of(
        &mut self,
        writer: &NodeName,
        identity: &Identity,
        destination: &DestinationName,
    ) -> Option<CargoId> {
        if identity.origin != self.config.node {
            return None;
        }
        let view = self.view()?;
        let number = view.known_number(&DestinationName::from(writer))?;
        let Ok(Known::Same(id, row)) = view.known(identity) else { return None };
        let beyond = &row.duty(number)?.beyond;
        let known = beyond.iter().any(|b| b.destination == *destination);
        (known || beyond.len() < BEYOND_MAX).then_some(id)
    }
}

/// The same state with a peer's words made fit for rows, logs and terminals.
fn bounded(state: DutyState) -> DutyState {
    match state {
        DutyState::Owed { attempt, cause } => {
            DutyState::Owed { attempt, cause: cause.as_deref().map(peer_text) }
        }
        DutyState::Held { reason, by } => {
            DutyState::Held { reason: peer_text(&reason), by: peer_text(&by) }
        }
        DutyState::Receipted { at, warning } => {
            DutyState::Receipted { at, warning: warning.as_deref().map(peer_text) }
        }
        DutyState::Quarantined { reason, at, damaged } => {
            DutyState::Quarantined { reason: peer_text(&reason), at, damaged }
        }
        DutyState::Dismissed { by, reason, at } => {
            DutyState::Dismissed { by: peer_text(&by), reason: peer_text(&reason), at }
        }
    }
}

/// Cargo and destination of an `o` key.
fn parts(key: &[u8]) -> (CargoId, DestinationNumber) {
    let id = u64::from_be_bytes(key[5..13].try_into().expect("an o key has 15 bytes"));
    (CargoId(id), DestinationNumber::from_be_bytes([key[13], key[14]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cargo::Sha256;
    use crate::clock::Timestamp;

    /// docs/wire-protocol.md 4.2.
    #[test]
    fn a_note_stands_on_the_line_as_the_wire_protocol_says() {
        let identity =
            Identity { origin: "a".parse().unwrap(), key: "1.2".into(), sha256: Sha256([7; 32]) };
        let news = |state| News {
            identity: identity.clone(),
            destination: "pacs".parse().unwrap(),
            state,
        };
        let front = [
            &[0xa3, 0x00, 0xa3, 0x00, 0x61, b'a', 0x01, 0x63, b'1', b'.', b'2', 0x02, 0x58, 32][..],
            &[7; 32],
            &[0x01, 0x64, b'p', b'a', b'c', b's', 0x02],
        ]
        .concat();
        let (reason, by, at) = ("r".to_owned(), "b".to_owned(), Timestamp(5));
        let (text_r, text_b) = ([0x61, b'r'], [0x61, b'b']);
        let states = [
            (
                DutyState::Owed { attempt: 3, cause: Some(reason.clone()) },
                [&[0x82, 0, 0xa2, 0, 3, 1][..], &text_r].concat(),
            ),
            (
                DutyState::Held { reason: reason.clone(), by: by.clone() },
                [&[0x82, 1, 0xa2, 0][..], &text_r, &[1], &text_b].concat(),
            ),
            (DutyState::Receipted { at, warning: None }, vec![0x82, 2, 0xa1, 0, 5]),
            (
                DutyState::Quarantined { reason: reason.clone(), at, damaged: false },
                [&[0x82, 3, 0xa2, 0][..], &text_r, &[1, 5]].concat(),
            ),
            (
                DutyState::Quarantined { reason: reason.clone(), at, damaged: true },
                [&[0x82, 3, 0xa3, 0][..], &text_r, &[1, 5, 2, 0xf5]].concat(),
            ),
            (
                DutyState::Dismissed { by, reason, at },
                [&[0x82, 4, 0xa3, 0][..], &text_b, &[1], &text_r, &[2, 5]].concat(),
            ),
        ];
        for (state, bytes) in states {
            let note = Note { news: vec![news(state)] };
            let expected = [&[0xa1, 0x00, 0x81][..], &front, &bytes].concat();
            assert_eq!(fact::encode(&note), expected, "{note:?}");
        }
    }
}
