//! What became of the parts that were handed on: asked of custody, told to people, and asked for
//! again by a person.

use super::hand_on::LATER;
use super::record::{Fate, ReportRecord, Sending};
use super::{DeskError, Secretary};
use crate::cargo::Sha256;
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::custody::state::StateName;
use crate::custody::{Action, Filter};
use crate::reports::report::Status;
use crate::reports::turnaround::Moment;

impl Secretary {
    /// Asks custody what became of what was handed on; the parts of which something is to be
    /// told.
    pub(super) async fn settle(
        &mut self,
        record: &mut ReportRecord,
        now: Timestamp,
    ) -> Result<Vec<Sha256>, Stopped> {
        let mut news = Vec::new();
        for n in 0..record.sendings.len() {
            let sending = &record.sendings[n];
            if !matches!(sending.fate, Fate::Open | Fate::No(_)) {
                continue;
            }
            let own = self.config.node.clone();
            let (key, to) = (sending.key.clone(), sending.destination.clone());
            let Some((cargo, duty)) =
                self.custody.duty(own, key, to.clone()).await.ok_or(Stopped)?
            else {
                continue;
            };
            record.sendings[n].cargo = Some(cargo.0);
            let words = |text: &Option<String>| text.clone().unwrap_or_default();
            let fate = match duty.state {
                StateName::Receipted => Fate::Yes(duty.at.unwrap_or(now), words(&duty.receipt)),
                // An earlier life has given it up.
                StateName::Dismissed if duty.reason.as_deref() == Some(LATER) => Fate::Replaced,
                StateName::Quarantined | StateName::Dismissed => Fate::No(words(&duty.reason)),
                StateName::Owed | StateName::Held => Fate::Open,
            };
            if fate == record.sendings[n].fate {
                continue;
            }
            if let Fate::Yes(at, words) = &fate {
                record.happened(*at, "handed", format!("{to} has it: {words}"), to.as_str());
                // Of a preliminary report the loop is not over.
                if record.sendings[n].status != Status::Preliminary {
                    let targets = record.targets.clone();
                    self.see_of(&targets, Moment::Delivered, *at, now).await?;
                }
            }
            if let Fate::No(why) = &fate {
                tracing::warn!(report = record.id, destination = %to, why, "a report is refused");
                record.happened(now, "handed", format!("{to} does not take it: {why}"), "");
            }
            record.sendings[n].fate = fate;
            news.push(record.sendings[n].part);
        }
        Ok(news)
    }

    /// A person wants the latest version handed on again.
    pub(super) async fn send_again(
        &mut self,
        id: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Result<String, DeskError>, Stopped> {
        let Some(mut record) = self.report(id).await? else {
            return Ok(Err(DeskError::Unknown(format!("there is no report {id}"))));
        };
        let latest = self.latest(&record).await?;
        let documents = latest.map(|latest| latest.documents).unwrap_or_default();
        let mut again = 0;
        for at in 0..record.sendings.len() {
            let sending = &record.sendings[at];
            let (Some(cargo), true) = (sending.cargo, sending.is_of(&documents)) else {
                continue;
            };
            let filter = Filter {
                destination: Some(sending.destination.clone()),
                cargo: Some(cargo),
                state: None,
                study: None,
                limit: None,
            };
            let why = "handed on again".to_owned();
            let changed = self.custody.decide(filter, Action::Retry, by.to_owned(), why).await;
            if changed.ok_or(Stopped)? > 0 {
                record.sendings[at].fate = Fate::Open;
                again += 1;
            }
        }
        if again == 0 {
            let what = format!("nothing of report {id} was handed on that could be sent again");
            return Ok(Err(DeskError::Refused(what)));
        }
        record.happened(now, "person", "handed on again".into(), by);
        record.is_open = true;
        self.timers.report_now(id, now);
        self.store.put(record.entry());
        Ok(Ok(format!("{again} parts are handed on again")))
    }

    /// Tells people once that no yes comes.
    pub(super) fn tell_unacknowledged(&mut self, record: &mut ReportRecord, now: Timestamp) {
        let late = |s: &Sending| match &s.fate {
            Fate::Open => s.at + self.config.alarm <= now,
            Fate::No(_) | Fate::Unmade(_) => true,
            _ => false,
        };
        let due: Vec<usize> = (0..record.sendings.len())
            .filter(|n| !record.sendings[*n].alarmed && late(&record.sendings[*n]))
            .collect();
        for at in due {
            record.sendings[at].alarmed = true;
            let seed = record.sendings[at].part;
            self.tell_unanswered(record, &seed, now);
        }
    }
}
