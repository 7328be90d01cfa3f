//! Evidence in: performed procedure steps, requests for commitment, availability notices, key
//! objects.
//!
//! What is said of a study is kept as it is told, one entry for each time that something new is
//! said, and joined when the study is read. A long list is kept in parts of [`PART_REFERENCES`], so
//! that no change exceeds what custody takes; the yes is given after the last of them.
//!
//! A step is kept as long as this node is; the images that it lists are kept as evidence alone. One
//! that names several studies lists its images for the first.

use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::keys::{entry, evidence_key, step_key};
use super::record::{Dossier, StepRecord, StudyRef};
use super::{DeskError, Owed, Registrar, message};
use crate::clock::Timestamp;
use crate::custody::Arrival;
use crate::custody::overlay::Stopped;
use crate::dicom::availability::{Availability, Notice};
use crate::dicom::commitment::Reference as Referenced;
use crate::dicom::dataset::{self, items, text};
use crate::dicom::fault::Fault;
use crate::dicom::performed::{StepStatus as Status, judge_end, performed_series};
use crate::dicom::text::Repertoire;
use crate::dicom::{EXPLICIT_VR_LE, is_uid};
use crate::orders::evidence::{
    KEY_OBJECT, KeyTitle, Reference, Said, SeriesList, Statement, StepStatus,
};
use crate::orders::identifier::{Authority, Identifier, Patient};

/// References of one part.
const PART_REFERENCES: usize = 2000;
/// Times that something new is said of one study; what is said after that is refused.
const STATEMENTS_MAX: u32 = 10_000;
/// Longest key object that is read, in bytes.
const KEY_OBJECT_BYTES_MAX: u64 = 4 << 20;
/// Longest step without its images, in bytes.
const STEP_BYTES_MAX: usize = 256 << 10;

/// A step that a modality has begun or changed.
#[derive(Debug)]
pub struct Step {
    /// Its SOP Instance UID.
    pub instance: String,
    /// Whether it begins (N-CREATE) or changes (N-SET).
    pub begins: bool,
    /// The status that it gets, if it gets one.
    pub status: Option<Status>,
    /// Its attributes, or those that change; text is Unicode.
    pub attributes: InMemDicomObject,
    /// The AE title that says so.
    pub caller: String,
}

/// What a modality wants committed of one study: it says that these images exist.
#[derive(Debug, Clone)]
pub struct CommitmentList {
    /// Transaction UID.
    pub transaction: String,
    /// The AE title that asks.
    pub caller: String,
    /// Study Instance UID.
    pub study: String,
    /// The images.
    pub instances: Vec<Referenced>,
}

fn references(all: &[Referenced]) -> Vec<Reference> {
    let named = all.iter().filter(|r| is_uid(&r.instance));
    named.map(|r| Reference { sop: r.instance.clone(), class: r.class.clone() }).collect()
}

/// The lists in parts; at least one, which may be empty.
fn parts(lists: Vec<SeriesList>) -> Vec<Vec<SeriesList>> {
    let mut parts = vec![Vec::new()];
    let mut left = PART_REFERENCES;
    for list in lists {
        for some in list.instances.chunks(PART_REFERENCES) {
            if some.len() > left {
                parts.push(Vec::new());
                left = PART_REFERENCES;
            }
            left -= some.len();
            let list = SeriesList { series: list.series.clone(), instances: some.to_vec() };
            parts.last_mut().expect("never empty").push(list);
        }
    }
    parts
}

impl Registrar {
    /// Takes in what is said of a study, in as many parts as it has. `said` makes the statement of
    /// one part.
    pub(super) async fn hear_of(
        &mut self,
        study: &StudyRef,
        (id, source): (&str, &str),
        lists: Vec<SeriesList>,
        said: impl Fn(Vec<SeriesList>) -> Said,
        now: Timestamp,
    ) -> Result<Result<(), DeskError>, Stopped> {
        for part in parts(lists) {
            if self.store.is_full() && !self.write_some().await? {
                return Ok(Err(DeskError::NotKept("the spool cannot be written to".into())));
            }
            let statement = Statement::new(id, source, now, said(part));
            self.study(study, Some(now)).await?;
            let open = self.study(study, None).await?.expect("just read or made");
            if open.dossier.statements >= STATEMENTS_MAX {
                return Ok(Err(DeskError::Refused("too much was said of this study".into())));
            }
            if open.evidence.hear(statement.clone()).is_none() {
                continue;
            }
            open.tally.hear(&statement);
            let key = evidence_key(study, &statement, open.dossier.statements);
            open.dossier.statements += 1;
            self.store.put(entry(key, &statement, Vec::new()));
            self.changed(study);
        }
        Ok(Ok(()))
    }

    /// A step begins or changes.
    pub(super) async fn step(
        &mut self,
        step: Step,
        now: Timestamp,
    ) -> Result<Result<(), Fault>, Stopped> {
        let known: Option<StepRecord> = self.store.get(step_key(&step.instance)).await?;
        let mut whole = match (&known, step.begins) {
            (Some(_), true) => return Ok(Err(Fault::duplicate())),
            (None, false) => return Ok(Err(Fault::no_such_instance())),
            (None, true) => InMemDicomObject::new_empty(),
            (Some(record), false) if record.status != StepStatus::InProgress => {
                return Ok(Err(Fault::step_is_final()));
            }
            (Some(record), false) => match dataset::read(&record.attributes, EXPLICIT_VR_LE) {
                Ok(whole) => whole,
                Err(_) => return Ok(Err(Fault::failed("the step cannot be read here"))),
            },
        };
        let mut outgoing = match self.outgoing(&step) {
            Ok(outgoing) => outgoing,
            Err(fault) => return Ok(Err(fault)),
        };
        let lists = performed_series(&step.attributes);
        for element in step.attributes {
            whole.put(element);
        }
        let status = step.status.unwrap_or(Status::InProgress);
        if status.is_final()
            && let Err(fault) = judge_end(&whole, status)
        {
            return Ok(Err(fault));
        }
        let studies = studies_of_step(&whole);
        without_images(&mut whole);
        let Ok(attributes) = dataset::write(&whole, EXPLICIT_VR_LE, Repertoire::UTF8) else {
            return Ok(Err(Fault::failed("the step cannot be written down")));
        };
        if attributes.len() > STEP_BYTES_MAX {
            return Ok(Err(Fault::no_room("the step is longer than is kept here")));
        }
        let status = match status {
            Status::InProgress => StepStatus::InProgress,
            Status::Completed => StepStatus::Completed,
            Status::Discontinued => StepStatus::Discontinued,
        };
        let lists: Vec<SeriesList> = lists
            .iter()
            .map(|s| SeriesList { series: s.series.clone(), instances: references(&s.instances) })
            .collect();
        let reason = reason_of(&whole);
        for (n, study) in studies.iter().enumerate() {
            let origin = self.config.node.clone();
            let study = StudyRef { origin, study: study.clone() };
            let lists = if n == 0 { lists.clone() } else { Vec::new() };
            let said = |lists| Said::Performed { status, reason: reason.clone(), lists };
            let id = format!("mpps:{}", step.instance);
            let heard = self.hear_of(&study, (&id, &step.caller), lists, said, now).await?;
            if heard.is_err() {
                return Ok(Err(Fault::failed("the step cannot be kept just now")));
            }
            self.learn_of_step(&study, &whole).await?;
            self.judge_study(&study, now).await?;
        }
        if let Some(outgoing) = &mut outgoing
            && !self.number(outgoing).await?
        {
            return Ok(Err(Fault::failed("the step cannot be kept just now")));
        }
        let record = StepRecord { status, attributes };
        self.store.put(entry(step_key(&step.instance), &record, Vec::new()));
        if let Some(outgoing) = &outgoing {
            self.pass_on(outgoing);
        }
        Ok(Ok(()))
    }

    /// What a step says of its study, where nothing was known.
    async fn learn_of_step(
        &mut self,
        id: &StudyRef,
        whole: &InMemDicomObject,
    ) -> Result<(), Stopped> {
        let issuer = self.config.patient_issuer.clone();
        let Some(study) = self.study(id, None).await? else { return Ok(()) };
        let Dossier { facts, modality, .. } = &mut study.dossier;
        let bare = |id: String| (!id.is_empty()).then(|| Identifier::bare(&id));
        for item in items(whole, tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE) {
            if text(item, tags::STUDY_INSTANCE_UID) != id.study {
                continue;
            }
            let said = |tag| bare(text(item, tag));
            facts.accession = facts.accession.take().or(said(tags::ACCESSION_NUMBER));
            let placer = tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST;
            facts.placer = facts.placer.take().or(said(placer));
            let filler = tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST;
            facts.filler = facts.filler.take().or(said(filler));
            let requested = text(item, tags::REQUESTED_PROCEDURE_ID);
            let procedure = (requested, text(item, tags::SCHEDULED_PROCEDURE_STEP_ID));
            let room = facts.procedures.len() < crate::orders::order::PARTS_MAX;
            if !procedure.0.is_empty() && room && !facts.procedures.contains(&procedure) {
                facts.procedures.push(procedure);
            }
        }
        if facts.patient == Patient::default() {
            let namespace = text(whole, tags::ISSUER_OF_PATIENT_ID);
            let authority = Authority { namespace, universal: String::new() };
            let number = text(whole, tags::PATIENT_ID);
            let some = |text: String| (!text.is_empty()).then_some(text);
            facts.patient = Patient {
                ids: some(number)
                    .map(|id| message::issued(&id, authority, &issuer))
                    .into_iter()
                    .collect(),
                former: Vec::new(),
                names: some(text(whole, tags::PATIENT_NAME)).into_iter().collect(),
                birth_date: text(whole, tags::PATIENT_BIRTH_DATE),
                sex: text(whole, tags::PATIENT_SEX),
            };
        }
        if modality.is_empty() {
            *modality = text(whole, tags::MODALITY);
        }
        self.changed(id);
        Ok(())
    }

    /// A modality asks for images to be committed.
    pub(super) async fn commitment_asked(
        &mut self,
        list: CommitmentList,
        now: Timestamp,
    ) -> Result<Result<(), Fault>, Stopped> {
        let id = StudyRef { origin: self.config.node.clone(), study: list.study };
        // A request does not say of which series its images are.
        let all = SeriesList { series: String::new(), instances: references(&list.instances) };
        let name = (format!("commitment:{}", list.transaction), list.caller);
        let said = |lists| Said::Commitment { lists };
        let heard = self.hear_of(&id, (&name.0, &name.1), vec![all], said, now).await?;
        self.judge_study(&id, now).await?;
        Ok(heard.map_err(|_| Fault::failed("the list cannot be kept just now")))
    }

    /// An archive says what it has of a study.
    pub(super) async fn announced(
        &mut self,
        notice: Notice,
        caller: &str,
        now: Timestamp,
    ) -> Result<Result<(), Fault>, Stopped> {
        let id = StudyRef { origin: self.config.node.clone(), study: notice.study };
        let is = |unavailable: bool| {
            let mut lists: Vec<SeriesList> = Vec::new();
            let some = notice
                .instances
                .iter()
                .filter(|i| (i.availability == Availability::Unavailable) == unavailable);
            for instance in some {
                let series = &instance.series;
                let new = references(std::slice::from_ref(&instance.reference));
                match lists.iter_mut().find(|l| l.series == *series) {
                    Some(list) => list.instances.extend(new),
                    None => lists.push(SeriesList { series: series.clone(), instances: new }),
                }
            }
            lists
        };
        let name = format!("availability:{caller}");
        let here = |lists| Said::Available { lists, unavailable: Vec::new() };
        let gone = |unavailable| Said::Available { lists: Vec::new(), unavailable };
        let heard = self.hear_of(&id, (&name, caller), is(false), here, now).await?;
        let unavailable = is(true);
        let heard = match heard {
            Ok(()) if !unavailable.is_empty() => {
                self.hear_of(&id, (&name, caller), unavailable, gone, now).await?
            }
            heard => heard,
        };
        self.judge_study(&id, now).await?;
        Ok(heard.map_err(|_| Fault::failed("the notice cannot be kept just now")))
    }

    /// A key object that says what a study holds, or what of it is rejected. Other key objects, and
    /// those that cannot be read, say nothing.
    pub(super) async fn take_key_object(
        &mut self,
        arrival: &Arrival,
        study: &StudyRef,
    ) -> Result<(), Stopped> {
        let envelope = &arrival.envelope;
        if envelope.sop_class != KEY_OBJECT || arrival.body.len() > KEY_OBJECT_BYTES_MAX {
            return Ok(());
        }
        let Ok(bytes) = arrival.body.read().await else { return Ok(()) };
        let Ok(set) = dataset::read(&bytes, &envelope.transfer_syntax) else { return Ok(()) };
        let title = items(&set, tags::CONCEPT_NAME_CODE_SEQUENCE).first();
        let title = title.map(|code| text(code, tags::CODE_VALUE)).unwrap_or_default();
        let Some(title) = KeyTitle::of(&title) else { return Ok(()) };
        let lists: Vec<SeriesList> =
            items(&set, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE)
                .iter()
                .filter(|of| text(of, tags::STUDY_INSTANCE_UID) == study.study)
                .flat_map(|of| items(of, tags::REFERENCED_SERIES_SEQUENCE))
                .map(|series| {
                    let all = items(series, tags::REFERENCED_SOP_SEQUENCE);
                    let all: Vec<Referenced> = all.iter().map(Referenced::of).collect();
                    let instances = references(&all);
                    SeriesList { series: text(series, tags::SERIES_INSTANCE_UID), instances }
                })
                .collect();
        let said = |lists| match title {
            KeyTitle::Complete => Said::KeyObject { lists },
            KeyTitle::Rejected(why) => Said::Rejected { why, lists },
        };
        let name = (format!("key-object:{}", envelope.identity.key), envelope.calling_ae.clone());
        let heard = self.hear_of(study, (&name.0, &name.1), lists, said, arrival.kept_at).await?;
        if let Err(error) = heard {
            tracing::warn!(cargo = %arrival.cargo, %error, "a key object is passed over");
        }
        Ok(())
    }
}

fn reason_of(whole: &InMemDicomObject) -> String {
    let tag = tags::PERFORMED_PROCEDURE_STEP_DISCONTINUATION_REASON_CODE_SEQUENCE;
    items(whole, tag).first().map(|code| text(code, tags::CODE_VALUE)).unwrap_or_default()
}

/// The studies that a step belongs to, each once.
fn studies_of_step(whole: &InMemDicomObject) -> Vec<String> {
    let mut studies: Vec<String> = Vec::new();
    for item in items(whole, tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE) {
        let study = text(item, tags::STUDY_INSTANCE_UID);
        if !study.is_empty() && !studies.contains(&study) {
            studies.push(study);
        }
    }
    studies
}

/// Takes the images out of the series; that there are series stays.
fn without_images(whole: &mut InMemDicomObject) {
    let mut kept = Vec::new();
    for series in items(whole, tags::PERFORMED_SERIES_SEQUENCE) {
        let mut series = series.clone();
        series.remove_element(tags::REFERENCED_IMAGE_SEQUENCE);
        let others = tags::REFERENCED_NON_IMAGE_COMPOSITE_SOP_INSTANCE_SEQUENCE;
        series.remove_element(others);
        kept.push(series);
    }
    if !kept.is_empty() {
        let sequence = dicom_core::value::DataSetSequence::from(kept);
        let tag = tags::PERFORMED_SERIES_SEQUENCE;
        whole.put(dicom_core::DataElement::new(tag, dicom_core::VR::SQ, sequence));
    }
}

impl Step {
    /// What becomes of it when it is taken, as metrics say it.
    pub(super) fn word(&self) -> &'static str {
        match (self.begins, self.status) {
            (true, _) => "begun",
            (false, Some(Status::Completed)) => "completed",
            (false, Some(Status::Discontinued)) => "discontinued",
            (false, _) => "changed",
        }
    }
}

/// The same as [`later`] for a step, which is counted.
pub(super) fn later_counted(
    reply: tokio::sync::oneshot::Sender<Result<(), Fault>>,
    heard: Result<(), Fault>,
    (counts, word): (prometheus::IntCounterVec, &'static str),
) -> Owed {
    Box::new(move |durable| {
        let taken = durable.is_ok() && heard.is_ok();
        counts.with_label_values(&[if taken { word } else { "refused" }]).inc();
        later(reply, heard)(durable);
    })
}

/// Says what became of a call about evidence, once the turn is durable.
pub(super) fn later(
    reply: tokio::sync::oneshot::Sender<Result<(), Fault>>,
    heard: Result<(), Fault>,
) -> Owed {
    Box::new(move |durable| {
        let kept = durable.map_err(|_| Fault::failed("it cannot be kept just now; try again"));
        let _ = reply.send(kept.and(heard));
    })
}
