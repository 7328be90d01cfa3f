//! What is new in what a worklist says of an order. Pure.
//!
//! A worklist repeats itself at every poll, without saying when it was changed; HL7 says when. So
//! only what a worklist says *otherwise than before* counts as said now. What it says of an order that
//! was known without it fills what nobody has said, and overrules nothing. A step or a field that is
//! no longer there says nothing.

use crate::orders::order::{Content, Order, PARTS_MAX, Procedure};

/// What counts as said now: `now`, unless it is empty, was said before, or, the first time, would
/// overrule what is known.
fn told<T: Clone + PartialEq + Default>(known: &T, before: Option<&T>, now: &T) -> Option<T> {
    let empty = T::default();
    let new = match before {
        Some(before) => before != now,
        None => *known == empty,
    };
    (new && *now != empty).then(|| now.clone())
}

/// All that the worklist has said of the order by now, and what of it is to be told to the order;
/// `None` when that is nothing. `before` is all that it had said until now, `order` the order as it
/// stands, where it is known.
pub fn news(
    before: Option<&Content>,
    item: &Content,
    order: Option<&Order>,
) -> (Content, Option<Content>) {
    let said = with_what_was_said(before, item);
    if before == Some(&said) {
        return (said, None);
    }
    let Some(order) = order else {
        let all = said.clone();
        return (said, Some(all));
    };
    let (known, mut new) = (&order.content, Content::default());
    macro_rules! tell {
        ($($($field:ident).+),+ $(,)?) => { $(
            let old = before.map(|b| &b.$($field).+);
            if let Some(now) = told(&known.$($field).+, old, &said.$($field).+) {
                new.$($field).+ = now;
            }
        )+ };
    }
    tell!(
        placer,
        filler,
        accession,
        patient.ids,
        patient.names,
        patient.birth_date,
        patient.sex,
        modality,
        scheduled,
        urgency,
        clinical.reason,
        clinical.history,
        clinical.allergies,
        clinical.department,
        requester,
        referrer,
        weight,
    );
    // A modality takes its UID from the RIS's worklist, whatever HL7 said: images may bear either.
    let mut studies = known.studies.clone();
    studies.extend(said.studies.iter().filter(|s| !known.studies.contains(s)).cloned());
    studies.truncate(PARTS_MAX);
    if studies != known.studies {
        new.studies = studies;
    }
    let procedures = procedures(&known.procedures, before, &said.procedures);
    if procedures != known.procedures {
        new.procedures = procedures;
    }
    let new = (new != Content::default()).then_some(new);
    (said, new)
}

/// The item, with the steps that were said before and are not in it now.
fn with_what_was_said(before: Option<&Content>, item: &Content) -> Content {
    let mut said = item.clone();
    let Some(before) = before else { return said };
    let same = |a: &Procedure, b: &Procedure| (&a.requested, &a.step) == (&b.requested, &b.step);
    for old in &before.procedures {
        let gone = !said.procedures.iter().any(|step| same(step, old));
        if gone && said.procedures.len() < PARTS_MAX {
            said.procedures.push(old.clone());
        }
    }
    said.procedures.sort_by(|a, b| (&a.requested, &a.step).cmp(&(&b.requested, &b.step)));
    for study in &before.studies {
        if !said.studies.contains(study) && said.studies.len() < PARTS_MAX {
            said.studies.push(study.clone());
        }
    }
    said.studies.sort();
    let first = said.procedures.iter().filter_map(|step| step.scheduled).min();
    said.scheduled = first.or(item.scheduled);
    said
}

/// The steps of the order with what is new of them.
fn procedures(known: &[Procedure], before: Option<&Content>, said: &[Procedure]) -> Vec<Procedure> {
    let mut all = known.to_vec();
    for step in said {
        let same = |p: &&Procedure| (&p.requested, &p.step) == (&step.requested, &step.step);
        let old = before.and_then(|before| before.procedures.iter().find(same));
        if old == Some(step) {
            continue;
        }
        let mut meant = (0..all.len()).filter(|n| all[*n].is_same_step(step));
        match (meant.next(), meant.next()) {
            (Some(at), None) => tell_step(&mut all[at], old, step),
            (None, _) if all.len() < PARTS_MAX => all.push(step.clone()),
            // Which of several is meant cannot be told.
            _ => {}
        }
    }
    all
}

fn tell_step(known: &mut Procedure, before: Option<&Procedure>, now: &Procedure) {
    macro_rules! tell {
        ($($field:ident),+ $(,)?) => { $(
            if let Some(now) = told(&known.$field, before.map(|b| &b.$field), &now.$field) {
                known.$field = now;
            }
        )+ };
    }
    tell!(
        requested,
        step,
        code,
        modality,
        study,
        stations,
        station_name,
        location,
        protocols,
        description,
        performer,
        scheduled,
    );
}
