//! At the hospital: the latest version goes to each of its systems, and what these answer is
//! remembered and told to the reading node.
//!
//! - A part is cargo of this node with one duty. Its key follows from what it is made of and for
//!   whom, so that it is handed over once, whatever crashes. The duty is the acknowledgement: what
//!   is refused for now is tried again by its sender, what is refused for good waits for a person.
//! - A later version overtakes none: what is still owed of an earlier one is given up first, and
//!   what is being sent just now is waited for.
//! - Without systems that take reports this node's custody is where the report comes home.

use std::collections::BTreeMap;

use super::handing::{Wish, before, forms, wishes};
use super::record::{DocumentRecord, Fate, ReportRecord, SENDINGS_MAX, Sending, id_of};
use super::timers::What;
use super::{DeskError, Secretary};
use crate::cargo::{
    Assignment, CargoKind, DestinationName, Envelope, Identity, ReportFacts, Sha256, Urgency,
};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::custody::state::StateName;
use crate::custody::{Action, Filter};
use crate::orders::order::Order;
use crate::reports::critical;
use crate::reports::home::Part;
use crate::reports::make::{self, Home, Made, Task};
use crate::reports::matching::Wanted;
use crate::reports::note::{Handed, Note, Says};
use crate::reports::report::{Report, Status};
use crate::reports::turnaround::Moment;

/// Who gives up a part for a later version.
const BY: &str = "hikyaku";

/// The latest version of a report, as it is handed on.
struct Latest {
    status: Status,
    number: u32,
    documents: Vec<Sha256>,
    records: Vec<DocumentRecord>,
    at: Timestamp,
    /// Read when something is made.
    report: Option<Report>,
    order: Option<Option<Order>>,
}

impl Secretary {
    pub(super) async fn load_reports(&mut self) -> Result<(), Stopped> {
        let open: Vec<ReportRecord> =
            self.store.with(super::record::OPEN, b'r', super::OPEN_MAX).await?;
        for record in open {
            self.timers.report_now(&record.id, Timestamp::default());
        }
        Ok(())
    }

    /// Looks at a report of which something may be to be done.
    pub(super) async fn look_at_report(&mut self, id: &str, now: Timestamp) -> Result<(), Stopped> {
        let Some(mut record) = self.report(id).await? else {
            self.timers.forget(id);
            return Ok(());
        };
        if record.hospital != self.config.node {
            self.timers.forget(id);
            return Ok(());
        }
        let before = record.clone();
        let mut latest = self.latest(&record).await?;
        let news = self.settle(&mut record, now).await?;
        let mut is_unfinished = false;
        if let Some(latest) = &mut latest {
            is_unfinished = !self.hand_on(&mut record, latest, now).await?;
            self.conclude(&mut record, latest, now).await?;
        }
        for part in news {
            self.tell_handed(&record, &part, now);
        }
        let ladder = self.climb(&mut record, now);
        self.tell_unacknowledged(&mut record, now);
        let open = record.sendings.iter().any(|s| matches!(s.fate, Fate::Open | Fate::No(_)));
        let waits = is_unfinished || open;
        record.is_open = waits || ladder.is_some() || self.is_alarming(&record);
        if record != before {
            self.store.put(record.entry());
        }
        let pause = waits.then(|| now + self.timers.pause(id));
        match pause.into_iter().chain(ladder).min() {
            Some(at) => self.timers.set(What::Report(id.to_owned()), Some(at)),
            None => self.timers.forget(id),
        }
        Ok(())
    }

    async fn latest(&self, record: &ReportRecord) -> Result<Option<Latest>, Stopped> {
        let number = u32::try_from(record.chain.versions().len()).unwrap_or(u32::MAX);
        let Some(version) = record.chain.latest() else { return Ok(None) };
        let mut records = Vec::new();
        for document in &version.documents {
            if let Some(sha256) = parse(&document.cargo)
                && let Some(doc) = self.document(&sha256).await?
            {
                records.push(doc);
            }
        }
        Ok(Some(Latest {
            status: version.status,
            number,
            documents: version.documents.iter().map(|d| d.digest).collect(),
            records,
            at: version.arrived_at,
            report: None,
            order: None,
        }))
    }

    /// Asks custody what became of what was handed on; the parts of which something is to be
    /// told.
    async fn settle(
        &mut self,
        record: &mut ReportRecord,
        now: Timestamp,
    ) -> Result<Vec<Sha256>, Stopped> {
        let mut news = Vec::new();
        for at in 0..record.sendings.len() {
            let sending = &record.sendings[at];
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
            record.sendings[at].cargo = Some(cargo.0);
            let words = |text: &Option<String>| text.clone().unwrap_or_default();
            let fate = match duty.state {
                StateName::Receipted => Fate::Yes(duty.at.unwrap_or(now), words(&duty.receipt)),
                StateName::Quarantined | StateName::Dismissed => Fate::No(words(&duty.reason)),
                StateName::Owed | StateName::Held => Fate::Open,
            };
            if fate == record.sendings[at].fate {
                continue;
            }
            if let Fate::Yes(at, words) = &fate {
                record.happened(*at, "handed", format!("{to} has it: {words}"), to.as_str());
                let targets = record.targets.clone();
                self.see_of(&targets, Moment::Delivered, *at, now).await?;
            }
            if let Fate::No(why) = &fate {
                tracing::warn!(report = record.id, destination = %to, why, "a report is refused");
                record.happened(now, "handed", format!("{to} does not take it: {why}"), "");
            }
            record.sendings[at].fate = fate;
            news.push(record.sendings[at].part);
        }
        Ok(news)
    }

    /// Hands on what of the latest version was not, to every system that may have it now; false
    /// when some of it waits for custody, or for what is being sent.
    async fn hand_on(
        &mut self,
        record: &mut ReportRecord,
        latest: &mut Latest,
        now: Timestamp,
    ) -> Result<bool, Stopped> {
        let mut whole = true;
        for (destination, home) in self.config.homes.clone() {
            let wishes = self.wishes(record, &destination, &home, latest);
            if !self.give_up_others(record, &destination, &wishes).await? {
                whole = false;
                continue;
            }
            for wish in wishes {
                let known = |s: &Sending| s.destination == destination && s.part == wish.digest;
                let known = record.sendings.iter().position(known);
                let is_due = |s: &Sending| s.cargo.is_none() && s.fate == Fate::Open;
                if known.is_some_and(|at| !is_due(&record.sendings[at])) {
                    continue;
                }
                let sending =
                    self.hand((&*record, &mut *latest), (&wish, known), (&destination, &home), now);
                let Some(sending) = sending.await? else { return Ok(false) };
                if let Some(at) = known {
                    let Sending { at: since, alarmed, .. } = record.sendings[at];
                    record.sendings[at] = Sending { at: since, alarmed, ..sending };
                    continue;
                }
                let what = match &sending.fate {
                    Fate::Unmade(why) => format!("nothing goes to {destination}: {why}"),
                    _ => format!("{} goes to {destination}", word(&wish.part)),
                };
                self.prepared.insert(record.id.clone());
                record.happened(now, "sent", what, "");
                remember(record, sending);
            }
        }
        Ok(whole)
    }

    fn wishes(
        &self,
        record: &ReportRecord,
        destination: &DestinationName,
        home: &Home,
        latest: &Latest,
    ) -> Vec<Wish> {
        let forms = forms(&latest.records);
        let version = (&forms, latest.status, &latest.documents[..]);
        let (wishes, lacks) = wishes((&record.id, destination), home, version);
        if wishes.is_empty() && !lacks.is_empty() {
            tracing::debug!(report = record.id, %destination, "nothing that it takes can be made");
        }
        wishes
    }

    /// Gives up what is owed of earlier versions; false while some of it is being sent.
    async fn give_up_others(
        &mut self,
        record: &mut ReportRecord,
        destination: &DestinationName,
        wishes: &[Wish],
    ) -> Result<bool, Stopped> {
        for at in 0..record.sendings.len() {
            let sending = &record.sendings[at];
            let other = sending.destination == *destination
                && !wishes.iter().any(|wish| wish.digest == sending.part);
            if !other || sending.fate != Fate::Open {
                continue;
            }
            let reason = "a later version of the report is there".to_owned();
            let (own, key, to) =
                (self.config.node.clone(), sending.key.clone(), destination.clone());
            let duty = self.custody.duty(own, key, to.clone()).await.ok_or(Stopped)?;
            // Without a duty it was prepared, and custody never had it.
            if let Some((cargo, _)) = duty
                && !self.custody.give_up(cargo, to, BY, reason).await.ok_or(Stopped)?
            {
                return Ok(false);
            }
            record.sendings[at].fate = Fate::Replaced;
        }
        Ok(true)
    }

    /// Gives to custody what the last turn has prepared.
    pub(super) async fn hand_prepared(&mut self, now: Timestamp) -> Result<(), Stopped> {
        for id in std::mem::take(&mut self.prepared) {
            self.timers.report_now(&id, now);
            self.look_at_report(&id, now).await?;
        }
        Ok(())
    }

    /// Makes a part. One that is remembered already (its place is given) goes to custody; `None`
    /// when custody does not take it now. A crash in between must not leave cargo behind that
    /// nobody remembers: a later version could not give it up, and it would come after that.
    async fn hand(
        &mut self,
        (record, latest): (&ReportRecord, &mut Latest),
        (wish, known): (&Wish, Option<usize>),
        (destination, home): (&DestinationName, &Home),
        now: Timestamp,
    ) -> Result<Option<Sending>, Stopped> {
        let mut sending = Sending {
            destination: destination.clone(),
            part: wish.digest,
            key: String::new(),
            cargo: None,
            status: latest.status,
            at: now,
            fate: Fate::Open,
            alarmed: false,
            uid: String::new(),
            class: String::new(),
            series: String::new(),
            documents: latest.documents.clone(),
            number: latest.number,
        };
        if !self.read_latest(record, latest).await {
            sending.fate = Fate::Unmade("the bytes of the report are not here any more".into());
            return Ok(Some(sending));
        }
        let Latest { report: Some(report), order, .. } = &*latest else { return Ok(None) };
        let earlier = &record.sendings[..known.unwrap_or(record.sendings.len())];
        let before = before(earlier, destination, &wish.part);
        let Some(target) = record.targets.first() else { return Ok(None) };
        let task = Task {
            report,
            id: &record.id,
            version: wish.digest,
            number: latest.number,
            target,
            order: order.as_ref().and_then(Option::as_ref),
            before: before.as_ref(),
            at: latest.at,
            zone: &self.config.zone,
        };
        let made = match make::part(&task, &wish.part, home) {
            Ok(made) => made,
            Err(error) => {
                tracing::error!(report = record.id, %destination, %error, "a report cannot be made");
                sending.fate = Fate::Unmade(error.to_string());
                return Ok(Some(sending));
            }
        };
        let is_critical = record.alarm.is_some();
        let urgency = if is_critical { Urgency::Stat } else { Urgency::Urgent };
        let (mut envelope, bytes) = self.envelope(&made, &mut sending, now);
        envelope.urgency = urgency;
        envelope.study.clone_from(&target.study);
        if let Made::File { .. } = &made {
            let kind = |s: &Sending| s.key.rsplit('.').next().map(str::to_owned);
            let last = record.sendings.iter().rev().filter_map(|s| match &s.fate {
                Fate::Yes(_, words)
                    if s.destination == *destination && kind(s) == kind(&sending) =>
                {
                    words.strip_prefix("file ")
                }
                _ => None,
            });
            let facts = ReportFacts {
                report: record.id.clone(),
                status: format!("{:?}", latest.status).to_lowercase(),
                version: latest.number,
                replaces: last.map(str::to_owned).next().unwrap_or_default(),
            };
            facts.write(&mut envelope);
            envelope.accession =
                report.ids.accessions.first().map(|a| a.id.clone()).unwrap_or_default();
        }
        if known.is_none() {
            return Ok(Some(sending));
        }
        let (own, to) = (self.config.node.clone(), destination.clone());
        let duty = self.custody.duty(own, sending.key.clone(), to.clone()).await.ok_or(Stopped)?;
        sending.cargo = match duty {
            // An earlier life has handed it over.
            Some((cargo, _)) => Some(cargo.0),
            None => {
                let to = vec![Assignment { destination: to, urgency, hold: None }];
                match self.give(envelope, &bytes, to).await {
                    Ok(cargo) => Some(cargo),
                    Err(error) => {
                        tracing::warn!(error, "reports wait for custody");
                        return Ok(None);
                    }
                }
            }
        };
        Ok(Some(sending))
    }

    /// The envelope of what was made; its key and names go into the sending.
    fn envelope(&self, made: &Made, sending: &mut Sending, now: Timestamp) -> (Envelope, Vec<u8>) {
        let digest = id_of(&sending.part);
        let (key, bytes, class, syntax) = match made {
            Made::Message { bytes, lost, .. } => {
                if *lost > 0 {
                    let (destination, lost) = (&sending.destination, *lost);
                    tracing::warn!(%destination, lost, "its character set lacks what a report says");
                }
                (format!("message-{digest}"), bytes, "", "")
            }
            Made::Instance { uid, series, class, syntax, bytes, anew } => {
                if let Some(why) = anew {
                    let destination = &sending.destination;
                    tracing::warn!(%destination, %why, "a document is said anew");
                }
                sending.series.clone_from(series);
                sending.uid.clone_from(uid);
                sending.class.clone_from(class);
                (uid.clone(), bytes, class.as_str(), syntax.as_str())
            }
            Made::File { extension, bytes } => {
                (format!("file-{digest}.{extension}"), bytes, "", "")
            }
        };
        sending.key.clone_from(&key);
        let sha256 = Sha256::of(bytes);
        let identity = Identity { origin: self.config.node.clone(), key, sha256 };
        let length = bytes.len() as u64;
        let mut envelope = Envelope::of_ours(CargoKind::Report, identity, length, now);
        envelope.sop_class = class.to_owned();
        envelope.transfer_syntax = syntax.to_owned();
        (envelope, bytes.clone())
    }

    /// Reads the version and its order, once; false when its bytes are not here.
    async fn read_latest(&self, record: &ReportRecord, latest: &mut Latest) -> bool {
        if latest.report.is_none() {
            let mut reports = Vec::new();
            for doc in &latest.records {
                match self.body(doc).await {
                    Some(report) => reports.push(report),
                    None => tracing::error!(document = doc.id(), "a report's bytes are gone"),
                }
            }
            if reports.is_empty() {
                return false;
            }
            latest.report = Some(make::merged(&reports));
        }
        if latest.order.is_none() {
            latest.order = Some(self.order_of(record).await);
        }
        true
    }

    async fn order_of(&self, record: &ReportRecord) -> Option<Order> {
        let target = record.targets.first()?;
        let number = target.order.as_ref().map(|order| order.number.as_str());
        let wanted = Wanted {
            studies: Some(target.study.as_str()).filter(|s| !s.is_empty()).into_iter().collect(),
            placers: number.into_iter().collect(),
            accessions: number.into_iter().collect(),
            fillers: number.into_iter().collect(),
            instances: Vec::new(),
        };
        let known = self.known(&wanted).await?;
        let own = known.into_iter().map(|k| k.facts).filter(|f| f.origin == target.origin);
        let mut orders: BTreeMap<bool, Order> = BTreeMap::new();
        for facts in own {
            if let Some(order) = facts.order {
                let same = target.order.as_ref().is_some_and(|key| *key == order.key);
                orders.entry(!same).or_insert(order);
            }
        }
        orders.into_values().next()
    }

    /// Whether all have the latest version, and people know of what is critical.
    async fn conclude(
        &mut self,
        record: &mut ReportRecord,
        latest: &Latest,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let homes = self.config.homes.clone();
        let mut wanted = 0;
        let mut whole = true;
        for (destination, home) in &homes {
            for wish in self.wishes(record, destination, home, latest) {
                wanted += 1;
                let has = |s: &Sending| {
                    s.destination == *destination
                        && s.part == wish.digest
                        && matches!(s.fate, Fate::Yes(..))
                };
                whole &= record.sendings.iter().any(has);
            }
        }
        let known = record.alarm.as_ref().is_none_or(|a| a.state() != critical::State::Open);
        let is_acknowledged = known && whole && (wanted > 0 || homes.is_empty());
        if is_acknowledged == record.is_acknowledged {
            return Ok(());
        }
        record.is_acknowledged = is_acknowledged;
        if !is_acknowledged {
            return Ok(());
        }
        let targets = record.targets.clone();
        let yes = record.sendings.iter().filter_map(|s| match s.fate {
            Fate::Yes(at, _) => Some(at),
            _ => None,
        });
        let at = yes.max().unwrap_or(now).max(latest.at);
        self.see_of(&targets, Moment::Delivered, at, now).await?;
        self.see_of(&targets, Moment::Acknowledged, at.max(self.known_at(record)), now).await?;
        if wanted == 0 || record.alarm.is_some() {
            // No part tells it to the reading node.
            let handed = Handed {
                report: record.id.clone(),
                documents: latest.documents.clone(),
                destination: DestinationName::from(&self.config.node),
                yes: "kept".into(),
                no: String::new(),
                all: true,
            };
            let study = targets.first().map(|t| t.study.clone()).unwrap_or_default();
            let hospital = record.hospital.clone();
            let note = Note { hospital, study, at, says: Says::Handed(handed) };
            self.tell(note, record.from.clone(), Urgency::Routine);
        }
        Ok(())
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
            let (Some(cargo), true) = (sending.cargo, sending.documents == documents) else {
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
    fn tell_unacknowledged(&mut self, record: &mut ReportRecord, now: Timestamp) {
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

fn word(part: &Part) -> &'static str {
    match part {
        Part::Message { .. } => "a message",
        Part::Instance { structured: true, .. } => "a structured report",
        Part::Instance { .. } => "a document",
        Part::File { .. } => "a file",
    }
}

/// Remembers a part, and forgets the oldest of too many that is settled.
fn remember(record: &mut ReportRecord, sending: Sending) {
    if record.sendings.len() >= SENDINGS_MAX
        && let Some(oldest) = record.sendings.iter().position(|s| s.fate != Fate::Open)
    {
        record.sendings.remove(oldest);
    }
    record.sendings.push(sending);
}

fn parse(digest: &str) -> Option<Sha256> {
    let digit = |at: usize| u8::from_str_radix(digest.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(|n| digit(2 * n)).collect();
    Some(Sha256(bytes?.try_into().ok()?))
}
