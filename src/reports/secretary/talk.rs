//! Questions and answers between the people of both sides, tied to a study.

use super::record::{OPEN, WordsRecord, study_term, words_key};
use super::{DeskError, OPEN_MAX, Secretary, WordsRow};
use crate::cargo::{NodeName, Sha256, Urgency, peer_text};
use crate::clock::Timestamp;
use crate::custody::Filter;
use crate::custody::overlay::Stopped;
use crate::orders::verdict::What as Told;
use crate::orders::words::{Sentence, Word};
use crate::reports::note::{Note, Says, WORDS_MAX, Words};

/// Pieces of a study that are looked at to find where it went.
const PIECES_MAX: usize = 64;

impl Secretary {
    /// A person asks or answers; the id of what was said.
    pub(super) async fn say(
        &mut self,
        study: &str,
        answers: &str,
        text: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Result<String, DeskError>, Stopped> {
        if text.trim().is_empty() || text.len() > WORDS_MAX {
            let what = format!("a note has 1 to {WORDS_MAX} bytes of text");
            return Ok(Err(DeskError::Refused(what)));
        }
        let asked = match answers.is_empty() {
            true => None,
            false => {
                let asked: Option<WordsRecord> = self.store.get(words_key(answers)).await?;
                if asked.as_ref().is_none_or(|a| a.study != study) {
                    let what = format!("there is no question {answers} about study {study}");
                    return Ok(Err(DeskError::Unknown(what)));
                }
                asked
            }
        };
        // Whoever has asked is answered, though the images may be gone from here by now.
        let asker = asked.as_ref().filter(|asked| asked.from != self.config.node);
        let sides = match asker {
            Some(asked) => Some((asked.hospital.clone(), vec![asked.from.clone()])),
            None => self.sides(study).await?,
        };
        let Some((hospital, others)) = sides else {
            let what = format!("study {study} was neither sent from here nor received here");
            return Ok(Err(DeskError::Unknown(what)));
        };
        if others.is_empty() {
            let what = format!("study {study} goes to no other node");
            return Ok(Err(DeskError::Refused(what)));
        }
        let made = format!("{} {study} {} {by} {text}", self.config.node, now.0);
        let words = Words {
            id: Sha256::of(made.as_bytes()).to_string()[..32].to_owned(),
            answers: answers.to_owned(),
            text: text.to_owned(),
            by: by.to_owned(),
        };
        let id = words.id.clone();
        let record = WordsRecord {
            hospital: hospital.clone(),
            study: study.to_owned(),
            at: now,
            from: self.config.node.clone(),
            words: words.clone(),
            is_answered: false,
        };
        self.store.put(record.entry());
        if let Some(asked) = asked {
            self.store.put(WordsRecord { is_answered: true, ..asked }.entry());
        }
        for other in others {
            let says = Says::Words(words.clone());
            let note = Note { hospital: hospital.clone(), study: study.into(), at: now, says };
            self.tell(note, other, Urgency::Urgent);
        }
        Ok(Ok(id))
    }

    /// The hospital of a study, and the nodes at the other side of it.
    async fn sides(&self, study: &str) -> Result<Option<(NodeName, Vec<NodeName>)>, Stopped> {
        let filter = Filter {
            study: Some(study.to_owned()),
            limit: Some(PIECES_MAX),
            destination: None,
            state: None,
            cargo: None,
        };
        let all = [None, Some(crate::custody::state::StateName::Receipted)];
        let mut pieces = Vec::new();
        for state in all {
            let filter = Filter { state, ..filter.clone() };
            pieces.extend(self.custody.list(filter).await.ok_or(Stopped)?);
        }
        let known = self.is_read_here(study);
        let own = &self.config.node;
        if let Some(foreign) = known.filter(|hospital| hospital != own) {
            return Ok(Some((foreign.clone(), vec![foreign])));
        }
        let mut nodes: Vec<NodeName> = Vec::new();
        for piece in &pieces {
            if piece.origin != *own && self.config.peers.contains(&piece.origin) {
                return Ok(Some((piece.origin.clone(), vec![piece.origin.clone()])));
            }
            let to = piece.duties.iter().filter_map(|d| d.destination.as_str().parse().ok());
            nodes.extend(to.filter(|n: &NodeName| self.config.peers.contains(n)));
        }
        nodes.sort();
        nodes.dedup();
        Ok((!pieces.is_empty()).then(|| (own.clone(), nodes)))
    }

    /// The other side asks or answers.
    pub(super) async fn take_words(
        &mut self,
        (hospital, study, at): (NodeName, String, Timestamp),
        words: Words,
        from: NodeName,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let is_id = words.id.len() == 32 && words.id.bytes().all(|c| c.is_ascii_hexdigit());
        let words = Words { by: peer_text(&words.by), answers: peer_text(&words.answers), ..words };
        let known: Option<WordsRecord> = self.store.get(words_key(&words.id)).await?;
        if !is_id || known.is_some() || words.text.len() > WORDS_MAX {
            return Ok(());
        }
        if !words.answers.is_empty() {
            let asked: Option<WordsRecord> = self.store.get(words_key(&words.answers)).await?;
            let own = |asked: &WordsRecord| asked.study == study && asked.hospital == hospital;
            if let Some(asked) = asked.filter(own) {
                self.store.put(WordsRecord { is_answered: true, ..asked }.entry());
            }
        }
        let seed = format!("asked {}", words.id);
        let of = (hospital.clone(), study.clone(), None);
        if words.answers.is_empty() {
            let told = (Told::QuestionAsked, Sentence::new(Word::AskedBy, &[&from, &at]));
            self.tell_rules_of(told, of, seed.as_bytes(), now);
        }
        let record = WordsRecord { hospital, study, at, from, words, is_answered: false };
        self.store.put(record.entry());
        Ok(())
    }

    /// What was said about a study; without one, the open questions.
    pub(super) async fn words_of(
        &self,
        study: &str,
        limit: usize,
    ) -> Result<Result<Vec<WordsRow>, DeskError>, Stopped> {
        let term = if study.is_empty() { OPEN.to_vec() } else { study_term(study) };
        let found: Vec<WordsRecord> = self.store.with(&term, b'w', OPEN_MAX).await?;
        let row = |r: WordsRecord| WordsRow {
            hospital: r.hospital,
            study: r.study,
            at: r.at,
            from: r.from,
            words: r.words,
            is_answered: r.is_answered,
        };
        let mut rows: Vec<WordsRow> = found.into_iter().map(row).collect();
        rows.sort_by(|a, b| (a.at, &a.words.id).cmp(&(b.at, &b.words.id)));
        rows.truncate(limit);
        Ok(Ok(rows))
    }

    pub(super) async fn open_questions(&self) -> Result<usize, Stopped> {
        self.store.count(OPEN, b'w', OPEN_MAX).await
    }
}
