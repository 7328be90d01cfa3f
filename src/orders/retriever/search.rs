//! C-FIND at a source (PS3.4 C.4.1, Study Root): what it has of a study, and which studies it has
//! of a patient.
//!
//! IMAGE level wants exactly one study and one series, so the series are asked for first. What one
//! inquiry cannot tell within its limits is not told: [`SERIES_MAX`] series, [`REFERENCES_MAX`]
//! instances, [`CANDIDATES_MAX`] studies, of which the newest [`LOOKED_AT_MAX`] are looked into.

use std::collections::BTreeSet;

use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

use super::{Archive, unanswered};
use crate::dicom::command::status;
use crate::dicom::dataset::text;
use crate::dicom::text::Repertoire;
use crate::dicom::{STUDY_ROOT_FIND, is_uid};
use crate::inquiry;
use crate::orders::evidence::REFERENCES_MAX;
use crate::orders::identifier::Identifier;
use crate::orders::priors::{CANDIDATES_MAX, Candidate, REPORT_MODALITIES, Search};
use crate::orders::recall::{Answer, Offer};

/// Most series of a study.
const SERIES_MAX: usize = 2000;
/// Candidates whose series are asked for.
const LOOKED_AT_MAX: usize = 30;

/// A key, with its value or to be told.
type Key<'a> = (Tag, VR, &'a str);

/// An identifier of a level (0008,0052).
pub(super) fn identifier(level: &str, keys: &[Key<'_>]) -> InMemDicomObject {
    let element = |(tag, vr, value): &Key<'_>| DataElement::new(*tag, *vr, *value);
    let mut set = InMemDicomObject::from_element_iter(keys.iter().map(element));
    set.put(DataElement::new(tags::QUERY_RETRIEVE_LEVEL, VR::CS, level));
    set
}

async fn find(
    archive: &Archive,
    level: &str,
    keys: &[Key<'_>],
    limit: usize,
) -> Result<Vec<InMemDicomObject>, Answer> {
    let (target, set) = (&archive.target, identifier(level, keys));
    let found = inquiry::find(target, STUDY_ROOT_FIND, &set, Repertoire::UTF8, limit).await;
    let (found, end) = found.map_err(|e| unanswered(&target.called, &e))?;
    if end.more {
        tracing::warn!(source = %target.called, level, "a source has more matches than it gives");
    }
    match end.answer.status {
        status::SUCCESS | status::LIMIT_REACHED => Ok(found),
        _ if end.more => Ok(found),
        status => Err(Answer::Status(status)),
    }
}

struct Series {
    uid: String,
    modality: String,
    body_part: String,
}

async fn series_of(archive: &Archive, study: &str) -> Result<Vec<Series>, Answer> {
    let keys = [
        (tags::STUDY_INSTANCE_UID, VR::UI, study),
        (tags::SERIES_INSTANCE_UID, VR::UI, ""),
        (tags::MODALITY, VR::CS, ""),
        (tags::BODY_PART_EXAMINED, VR::CS, ""),
    ];
    let found = find(archive, "SERIES", &keys, SERIES_MAX).await?;
    let series = found.iter().map(|one| Series {
        uid: text(one, tags::SERIES_INSTANCE_UID),
        modality: text(one, tags::MODALITY),
        body_part: text(one, tags::BODY_PART_EXAMINED),
    });
    Ok(series.filter(|series| is_uid(&series.uid)).collect())
}

/// All that a source has of a study.
pub(super) async fn instances(archive: &Archive, study: &str, reports: bool) -> Answer {
    match all_instances(archive, study, reports).await {
        Ok(offers) => Answer::Found(offers),
        Err(answer) => answer,
    }
}

async fn all_instances(
    archive: &Archive,
    study: &str,
    reports: bool,
) -> Result<Vec<Offer>, Answer> {
    let mut offers = Vec::new();
    for series in series_of(archive, study).await? {
        if !reports && REPORT_MODALITIES.contains(&series.modality.as_str()) {
            continue;
        }
        let keys = [
            (tags::STUDY_INSTANCE_UID, VR::UI, study),
            (tags::SERIES_INSTANCE_UID, VR::UI, series.uid.as_str()),
            (tags::SOP_INSTANCE_UID, VR::UI, ""),
            (tags::SOP_CLASS_UID, VR::UI, ""),
        ];
        let limit = REFERENCES_MAX.saturating_sub(offers.len());
        for one in find(archive, "IMAGE", &keys, limit).await? {
            let (sop, class) =
                (text(&one, tags::SOP_INSTANCE_UID), text(&one, tags::SOP_CLASS_UID));
            if is_uid(&sop) {
                let class = Some(class).filter(|class| is_uid(class)).unwrap_or_default();
                offers.push(Offer { series: series.uid.clone(), sop, class });
            }
        }
    }
    Ok(offers)
}

/// The studies that a source has of a patient.
pub(super) async fn candidates(
    archive: &Archive,
    search: &Search,
) -> Result<Vec<Candidate>, Answer> {
    let days = format!("{}-{}", search.from, search.to);
    let keys = [
        (tags::PATIENT_ID, VR::LO, search.subject.patient.id.as_str()),
        (tags::ISSUER_OF_PATIENT_ID, VR::LO, ""),
        (tags::PATIENT_BIRTH_DATE, VR::DA, ""),
        (tags::STUDY_DATE, VR::DA, days.as_str()),
        (tags::STUDY_TIME, VR::TM, ""),
        (tags::STUDY_INSTANCE_UID, VR::UI, ""),
        (tags::MODALITIES_IN_STUDY, VR::CS, search.modality.as_deref().unwrap_or("")),
        (tags::NUMBER_OF_STUDY_RELATED_INSTANCES, VR::IS, ""),
    ];
    let found = find(archive, "STUDY", &keys, CANDIDATES_MAX).await?;
    let mut all: Vec<Candidate> = found.iter().map(candidate).collect();
    all.retain(|c| is_uid(&c.study) && c.patient.id == search.subject.patient.id);
    all.sort_by(|a, b| b.at.cmp(&a.at));
    all.truncate(LOOKED_AT_MAX);
    for candidate in &mut all {
        for series in series_of(archive, &candidate.study).await? {
            let known = |word: &String| !word.is_empty();
            candidate.modalities.extend(Some(series.modality).filter(known));
            candidate.body_parts.extend(Some(series.body_part).filter(known));
        }
    }
    Ok(all)
}

fn candidate(one: &InMemDicomObject) -> Candidate {
    let digits = |tag| -> String { text(one, tag).chars().filter(char::is_ascii_digit).collect() };
    let words = |tag| -> BTreeSet<String> {
        let all = text(one, tag);
        all.split('\\').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
    };
    Candidate {
        study: text(one, tags::STUDY_INSTANCE_UID),
        at: format!("{}{}", digits(tags::STUDY_DATE), digits(tags::STUDY_TIME)),
        patient: Identifier::of(
            &text(one, tags::PATIENT_ID),
            &text(one, tags::ISSUER_OF_PATIENT_ID),
        ),
        birth_date: digits(tags::PATIENT_BIRTH_DATE),
        modalities: words(tags::MODALITIES_IN_STUDY),
        body_parts: BTreeSet::new(),
        images: text(one, tags::NUMBER_OF_STUDY_RELATED_INSTANCES).parse().ok(),
        known: false,
    }
}
