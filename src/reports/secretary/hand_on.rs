//! At the hospital: the latest version goes to each of its systems, and what these answer is
//! remembered and told to the reading node.
//!
//! - A part is cargo of this node with one duty. Its key follows from what it is made of and for
//!   whom, so that it is handed over once, whatever crashes. The duty is the acknowledgement: what
//!   is refused for now is tried again by its sender, what is refused for good waits for a person.
//! - A later version overtakes none: what is still owed of an earlier one is given up first, and
//!   what is being sent just now is waited for.
//! - Without systems that take reports this node's custody is where the report comes home.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Secretary;
use super::handing::{Wish, before, forms, wishes, with_added};
use super::record::{
    DOCUMENTS_MAX, DocumentRecord, Fate, ReportRecord, SENDINGS_MAX, Sending, id_of,
};
use super::timers::What;
use crate::cargo::{
    Assignment, CargoKind, DestinationName, Envelope, Identity, ReportFacts, Sha256, Urgency,
};
use crate::clock::Timestamp;
use crate::custody::overlay::Stopped;
use crate::orders::order::Order;
use crate::reports::critical;
use crate::reports::home::{Lack, Part, Source};
use crate::reports::make::{self, Home, Made, Task};
use crate::reports::matching::Wanted;
use crate::reports::note::{Handed, Note, Says};
use crate::reports::report::{FormKind, Report, Status};
use crate::reports::turnaround::Moment;
use crate::reports::versions::Version;

/// Who gives up a part for a later version, and why.
const BY: &str = "hikyaku";
pub(super) const LATER: &str = "a later version of the report is there";
/// How long after a part could not be made it is tried again: other rules may be in force, or what
/// was unreadable is not.
const REMAKE: Duration = Duration::from_secs(600);

/// The latest version of a report, as it is handed on.
pub(super) struct Latest {
    status: Status,
    number: u32,
    pub(super) documents: Vec<Sha256>,
    records: Vec<DocumentRecord>,
    /// Of an addendum: the versions that it adds to, the oldest first.
    before: Vec<Vec<DocumentRecord>>,
    at: Timestamp,
    /// Read when something is made.
    report: Option<Report>,
    order: Option<Option<Order>>,
}

impl Latest {
    /// What a destination is to get of it; and what of it cannot be given.
    fn wishes(
        &self,
        record: &ReportRecord,
        destination: &DestinationName,
        home: &Home,
    ) -> (Vec<Wish>, BTreeSet<Lack>) {
        let mut forms = forms(&self.records);
        with_added(&mut forms, &self.before);
        wishes((&record.id, destination), home, (&forms, self.status, &self.documents))
    }

    /// A part of it that is to be made.
    fn sending(&self, destination: &DestinationName, part: Sha256, now: Timestamp) -> Sending {
        Sending {
            destination: destination.clone(),
            part,
            key: String::new(),
            cargo: None,
            status: self.status,
            at: now,
            fate: Fate::Open,
            alarmed: false,
            uid: String::new(),
            class: String::new(),
            series: String::new(),
            documents: self.documents.clone(),
            number: self.number,
        }
    }
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
        let is_open = |s: &Sending| matches!(s.fate, Fate::Open | Fate::No(_) | Fate::Unmade(_));
        let open = record.sendings.iter().any(is_open);
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

    pub(super) async fn latest(&self, record: &ReportRecord) -> Result<Option<Latest>, Stopped> {
        let mut versions = record.chain.versions();
        let number = u32::try_from(versions.len()).unwrap_or(u32::MAX);
        let Some(version) = versions.pop() else { return Ok(None) };
        let records = self.records_of(&version).await?;
        let mut before = Vec::new();
        if adds(&records) {
            versions.retain(|v| matches!(v.status, Status::Final | Status::Corrected));
            while let Some(version) = versions.pop() {
                let records = self.records_of(&version).await?;
                let is_whole = !adds(&records);
                before.insert(0, records);
                if is_whole {
                    break;
                }
            }
        }
        Ok(Some(Latest {
            status: version.status,
            number,
            documents: documents_of(&version),
            records,
            before,
            at: version.arrived_at,
            report: None,
            order: None,
        }))
    }

    async fn records_of(&self, version: &Version<'_>) -> Result<Vec<DocumentRecord>, Stopped> {
        let mut records = Vec::new();
        for document in &version.documents {
            if let Some(sha256) = parse(&document.cargo)
                && let Some(doc) = self.document(&sha256).await?
            {
                records.push(doc);
            }
        }
        Ok(records)
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
            let (wishes, lacks) = latest.wishes(record, &destination, &home);
            if !self.give_up_others((&mut *record, &*latest), &destination, &wishes).await? {
                whole = false;
                continue;
            }
            if wishes.is_empty() && !lacks.is_empty() {
                lack(record, latest, &destination, now);
            }
            for wish in wishes {
                let known = |s: &Sending| s.destination == destination && s.part == wish.digest;
                let at = record.sendings.iter().position(known);
                let is_due = |s: &Sending| s.cargo.is_none() && s.fate == Fate::Open;
                let again = |s: &Sending| matches!(s.fate, Fate::Unmade(_)) && s.at + REMAKE <= now;
                let old = at.map(|n| &record.sendings[n]);
                if old.is_some_and(|s| !is_due(s) && !again(s)) {
                    continue;
                }
                let prepared = at.filter(|n| is_due(&record.sendings[*n]));
                let task = (&wish, prepared);
                let sending = self.hand((&*record, &mut *latest), task, (&destination, &home), now);
                let Some(sending) = sending.await? else { return Ok(false) };
                if let Some(n) = prepared {
                    let Sending { at: since, alarmed, .. } = record.sendings[n];
                    record.sendings[n] = Sending { at: since, alarmed, ..sending };
                    continue;
                }
                if let Some(n) = at {
                    let before = record.sendings.remove(n);
                    if before.fate == sending.fate {
                        record.sendings.push(Sending { alarmed: before.alarmed, ..sending });
                        continue;
                    }
                }
                let what = match &sending.fate {
                    Fate::Unmade(why) => format!("nothing goes to {destination}: {why}"),
                    _ => format!("{} goes to {destination}", word(&wish.part)),
                };
                if sending.fate == Fate::Open {
                    self.prepared.insert(record.id.clone());
                }
                record.happened(now, "sent", what, "");
                remember(record, sending);
            }
        }
        Ok(whole)
    }

    /// Gives up what is owed of earlier versions; false while some of it is being sent.
    async fn give_up_others(
        &mut self,
        (record, latest): (&mut ReportRecord, &Latest),
        destination: &DestinationName,
        wishes: &[Wish],
    ) -> Result<bool, Stopped> {
        for at in 0..record.sendings.len() {
            let sending = &record.sendings[at];
            let other = sending.destination == *destination
                && !wishes.iter().any(|wish| wish.digest == sending.part);
            let is_lack = wishes.is_empty()
                && sending.key.is_empty()
                && sending.documents == latest.documents;
            let is_over = matches!(sending.fate, Fate::Yes(..) | Fate::Replaced);
            if !other || is_lack || is_over {
                continue;
            }
            let (own, key, to) =
                (self.config.node.clone(), sending.key.clone(), destination.clone());
            let duty = self.custody.duty(own, key, to.clone()).await.ok_or(Stopped)?;
            // Without a duty it was prepared, or could not be made: custody never had it. What was
            // refused is no more for a person to send again, in place of the later one.
            if let Some((cargo, _)) = duty {
                let gone = self.custody.give_up(cargo, to, BY, LATER.to_owned()).await;
                if !gone.ok_or(Stopped)? && sending.fate == Fate::Open {
                    return Ok(false);
                }
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
        (wish, prepared): (&Wish, Option<usize>),
        (destination, home): (&DestinationName, &Home),
        now: Timestamp,
    ) -> Result<Option<Sending>, Stopped> {
        let mut sending = latest.sending(destination, wish.digest, now);
        if !self.read_latest(record, latest).await {
            sending.fate = Fate::Unmade("the bytes of the report are not here any more".into());
            return Ok(Some(sending));
        }
        // A message without its order may be refused for good: it waits until orders can be asked.
        let Latest { report: Some(report), order: Some(order), .. } = &*latest else {
            return Ok(None);
        };
        let earlier = &record.sendings[..prepared.unwrap_or(record.sendings.len())];
        let before = before(earlier, destination, &wish.part);
        let Some(target) = record.targets.first() else { return Ok(None) };
        let task = Task {
            report,
            id: &record.id,
            version: wish.digest,
            number: latest.number,
            target,
            order: order.as_ref(),
            before: before.as_ref(),
            at: latest.at,
            zone: &self.config.zone,
        };
        let mut made = make::part(&task, &wish.part, home);
        if let Ok(Made::Instance { uid, bytes, anew: None, .. }) = &made
            && let Some(instead) = instead(&wish.part, report)
            && self.is_taken(uid, &Sha256::of(bytes), destination).await?
        {
            tracing::warn!(
                report = record.id,
                %destination,
                "a document has the UID of another one that was handed on; it is said anew"
            );
            made = make::part(&task, &instead, home);
        }
        let made = match made {
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
            file_facts(record, latest, &sending).write(&mut envelope);
            envelope.accession =
                report.ids.accessions.first().map(|a| a.id.clone()).unwrap_or_default();
        }
        if prepared.is_none() {
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

    /// Whether a destination was given other bytes under this UID: what became of those says nothing
    /// of these.
    async fn is_taken(
        &self,
        uid: &str,
        sha256: &Sha256,
        to: &DestinationName,
    ) -> Result<bool, Stopped> {
        let own = self.config.node.clone();
        let duty = self.custody.duty(own, uid.to_owned(), to.clone()).await.ok_or(Stopped)?;
        let Some((cargo, _)) = duty else { return Ok(false) };
        let there = self.custody.read(cargo).await;
        Ok(there.is_none_or(|(envelope, _)| envelope.identity.sha256 != *sha256))
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
            let Some(own) = self.read_version(&latest.records).await else { return false };
            let mut before = Vec::new();
            for records in &latest.before {
                let Some(version) = self.read_version(records).await else { return false };
                before.push(version);
            }
            latest.report = Some(make::added(&before, own));
        }
        if latest.order.is_none() {
            latest.order = self.order_of(record).await;
        }
        true
    }

    /// One version; `None` when not all of its bytes are here: a part of it is not handed on as the
    /// whole.
    async fn read_version(&self, records: &[DocumentRecord]) -> Option<Report> {
        let mut reports = Vec::new();
        for doc in records {
            match self.body(doc).await {
                Some(report) => reports.push(report),
                None => tracing::error!(document = doc.id(), "a report's bytes are gone"),
            }
        }
        (!reports.is_empty() && reports.len() == records.len()).then(|| make::merged(&reports))
    }

    /// What the order says, where there is one; `None`: orders cannot be asked now.
    async fn order_of(&self, record: &ReportRecord) -> Option<Option<Order>> {
        let Some(target) = record.targets.first() else { return Some(None) };
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
        Some(orders.into_values().next())
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
            for wish in latest.wishes(record, destination, home).0 {
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
        if latest.status != Status::Preliminary {
            self.see_of(&targets, Moment::Delivered, at, now).await?;
            self.see_of(&targets, Moment::Acknowledged, at.max(self.known_at(record)), now).await?;
        }
        if wanted == 0 || record.alarm.is_some() {
            // No part tells it to the reading node.
            let handed = Handed {
                report: record.id.clone(),
                documents: latest.documents.clone(),
                destination: DestinationName::from(&self.config.node),
                yes: "kept".into(),
                no: String::new(),
                all: record.is_over(),
            };
            let study = targets.first().map(|t| t.study.clone()).unwrap_or_default();
            let hospital = record.hospital.clone();
            let note = Note { hospital, study, at, says: Says::Handed(handed) };
            self.tell(note, record.from.clone(), Urgency::Routine);
        }
        Ok(())
    }
}

/// What a folder is told of a report.
fn file_facts(record: &ReportRecord, latest: &Latest, sending: &Sending) -> ReportFacts {
    let kind = |s: &Sending| s.key.rsplit('.').next().map(str::to_owned);
    let last = record.sendings.iter().rev().filter_map(|s| match &s.fate {
        Fate::Yes(_, words) if s.destination == sending.destination && kind(s) == kind(sending) => {
            words.strip_prefix("file ")
        }
        _ => None,
    });
    ReportFacts {
        report: record.id.clone(),
        status: latest.status.as_str().to_owned(),
        version: latest.number,
        replaces: last.map(str::to_owned).next().unwrap_or_default(),
    }
}

/// What says the same as a document that was received, in a document of this node's.
fn instead(part: &Part, report: &Report) -> Option<Part> {
    let Part::Instance { structured, from: Source::Received(_) } = part else { return None };
    let kind = if report.form(FormKind::Pdf).is_some() { FormKind::Pdf } else { FormKind::Cda };
    let from = if *structured { Source::StructuredOfText } else { Source::Around(kind) };
    Some(Part::Instance { structured: *structured, from })
}

/// Whether a version brings only what it adds to the one before it.
fn adds(records: &[DocumentRecord]) -> bool {
    let mut said = records.iter().filter_map(|doc| doc.said.as_ref());
    said.any(|said| said.is_addendum)
}

fn word(part: &Part) -> &'static str {
    match part {
        Part::Message { .. } => "a message",
        Part::Instance { structured: true, .. } => "a structured report",
        Part::Instance { .. } => "a document",
        Part::File { .. } => "a file",
    }
}

/// Remembers that a destination gets nothing of a version, in none of the forms that it takes: as a
/// part that cannot be made, of which people are told.
fn lack(record: &mut ReportRecord, latest: &Latest, to: &DestinationName, now: Timestamp) {
    let mut seed = [record.id.as_bytes(), to.as_str().as_bytes()].concat();
    latest.documents.iter().for_each(|digest| seed.extend(digest.0));
    let mut sending = latest.sending(to, Sha256::of(&seed), now);
    if record.sendings.iter().any(|s| s.destination == *to && s.part == sending.part) {
        return;
    }
    let why = "it came in no form that can be said there".to_owned();
    tracing::error!(report = record.id, destination = %to, why, "a report cannot be made");
    record.happened(now, "sent", format!("nothing goes to {to}: {why}"), "");
    sending.fate = Fate::Unmade(why);
    remember(record, sending);
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

/// Digests of the documents of a version, as a part remembers them.
pub(super) fn documents_of(version: &Version<'_>) -> Vec<Sha256> {
    version.documents.iter().map(|d| d.digest).take(DOCUMENTS_MAX).collect()
}

fn parse(digest: &str) -> Option<Sha256> {
    let digit = |at: usize| u8::from_str_radix(digest.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(|n| digit(2 * n)).collect();
    Some(Sha256(bytes?.try_into().ok()?))
}
