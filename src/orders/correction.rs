//! What of an image is to be as its order says, where a route wants that (`correct`). Pure.
//!
//! | attribute | corrected when |
//! |---|---|
//! | patient | a person has linked the study to the order of somebody else; or the RIS has merged the image's number into that of the order (ADT^A40) |
//! | accession number | the order was found by a person's link or by the Study Instance UID, and nothing says that it is another patient's |
//!
//! Never else: no image moves to another patient because two numbers are alike. Only what the order
//! knows is corrected, and only where the image says something else.

use super::identifier::{Agreement, Identifier, Patient, pn_of};
use super::matching::{By, Match, StudyFacts};
use super::order::Order;
use crate::dicom::correct::{Reason, Wanted};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the attributes are to be.
    pub wanted: Wanted,
    /// Why.
    pub reason: Reason,
    /// Whether the image shows another patient than it says: uncorrected it must not leave.
    pub moves: bool,
}

/// Decides about an image. `image` is the patient as its header says; `facts` is what is known of its
/// study, with that patient's number in force.
pub fn decide(
    image: &Patient,
    facts: &StudyFacts,
    matched: &Match,
    order: &Order,
) -> Option<Decision> {
    let Match::Order { by, doubts, .. } = matched else { return None };
    let person = *by == By::Person;
    let content = &order.content;
    let retired = |id: &Identifier| image.ids.contains(id);
    let merged = matches!(by, By::Person | By::Study | By::Accession)
        && doubts.patient == Agreement::Same
        && facts.patient.former.iter().any(retired);
    let moves = person && doubts.patient != Agreement::Same;
    let mut wanted = Wanted::default();
    if moves || merged {
        wanted = patient(image, &content.patient);
    }
    let same = moves || doubts.patient != Agreement::Different;
    if matches!(by, By::Person | By::Study) && same {
        let accession = content.accession.as_ref().filter(|a| a.is_named());
        wanted.accession = accession.map(|a| a.id.clone());
    }
    let reason = if person { Reason::Correct } else { Reason::Coerce };
    (wanted != Wanted::default()).then_some(Decision { wanted, reason, moves })
}

/// The order's patient as attributes; what it does not know stays as it is.
fn patient(image: &Patient, order: &Patient) -> Wanted {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    // Of several numbers the one that the same authority gave.
    let same = |id: &&Identifier| image.ids.iter().any(|i| i.authority == id.authority);
    let named = || order.ids.iter().filter(|id| id.is_named());
    let id = named().find(same).or_else(|| named().next());
    Wanted {
        accession: None,
        name: some(&pn_of(&order.names)),
        patient_id: id.map(|id| id.id.clone()),
        issuer: id.and_then(|id| some(&id.authority.namespace)),
        birth_date: some(&order.birth_date).filter(|date| date.len() == 8),
        sex: some(&order.sex).filter(|sex| matches!(sex.as_str(), "M" | "F" | "O")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::orders::history::Stamp;
    use crate::orders::matching::{Link, order_of};
    use crate::orders::merges::Merges;
    use crate::orders::order::{Content, OrderKey};

    fn of(id: &str, name: &str) -> Patient {
        let names = vec![name.to_owned()];
        Patient { ids: vec![Identifier::of(id, "SITE")], names, ..Patient::default() }
    }

    fn order(patient: Patient) -> Order {
        let key = OrderKey { origin: "h".parse().unwrap(), number: "P1".into() };
        let content = Content {
            accession: Some(Identifier::bare("A1")),
            studies: vec!["1.2".into()],
            patient,
            ..Content::default()
        };
        Order { content, ..Order::empty(key) }
    }

    fn study(uid: &str, accession: &str, patient: &Patient) -> StudyFacts {
        StudyFacts {
            origin: "h".parse().unwrap(),
            study: uid.into(),
            accession: Some(Identifier::bare(accession)),
            filler: None,
            placer: None,
            procedures: Vec::new(),
            patient: patient.clone(),
        }
    }

    fn ask(facts: &StudyFacts, image: &Patient, linked: bool, order: &Order) -> Option<Decision> {
        let link = Link { at: Timestamp(1), order: Some(order.key.clone()), by: "sato".into() };
        let matched = order_of(facts, linked.then_some(&link), [order]);
        decide(image, facts, &matched, order)
    }

    #[test]
    fn another_patients_image_is_moved_only_by_a_persons_link() {
        let (image, order) = (of("99", "SUZUKI^HANAKO"), order(of("4711", "YAMADA^TARO")));
        for facts in [study("1.2", "A9", &image), study("9.9", "A1", &image)] {
            assert_eq!(ask(&facts, &image, false, &order), None);
            let linked = ask(&facts, &image, true, &order).expect("a person has looked");
            assert!(linked.moves);
            assert_eq!(linked.reason, Reason::Correct);
            assert_eq!(linked.wanted.patient_id.as_deref(), Some("4711"));
            assert_eq!(linked.wanted.issuer.as_deref(), Some("SITE"));
            assert_eq!(linked.wanted.name.as_deref(), Some("YAMADA^TARO"));
            assert_eq!(linked.wanted.birth_date, None, "the order does not know it");
            assert_eq!(linked.wanted.accession.as_deref(), Some("A1"));
        }
    }

    #[test]
    fn the_accession_number_follows_the_study_uid_and_the_patient_stays() {
        let image = of("4711", "Yamada^Taro");
        let order = order(of("4711", "YAMADA^TARO"));
        let decision = ask(&study("1.2", "A9", &image), &image, false, &order).unwrap();
        let only = Wanted { accession: Some("A1".into()), ..Wanted::default() };
        assert_eq!((decision.wanted, decision.moves), (only, false));
        assert_eq!(decision.reason, Reason::Coerce);
        assert_eq!(ask(&study("9.9", "A1", &image), &image, false, &order), None);
        assert_eq!(ask(&study("9.9", "A9", &image), &image, false, &order), None);
    }

    #[test]
    fn a_number_that_the_ris_has_retired_becomes_the_survivors() {
        let image = of("99", "YAMADA^TARO");
        let order = order(of("4711", "YAMADA^TARO"));
        let mut merges = Merges::default();
        let stamp = Stamp { sent: Timestamp(1), ..Stamp::default() };
        merges.apply(&stamp, &Identifier::of("4711", "SITE"), &Identifier::of("99", "SITE"));
        let facts = study("9.9", "A1", &merges.settle(&image));
        let decision = ask(&facts, &image, false, &order).expect("the RIS has said so");
        assert_eq!(decision.wanted.patient_id.as_deref(), Some("4711"));
        assert_eq!((decision.reason, decision.moves), (Reason::Coerce, false));
    }

    #[test]
    fn names_stand_in_their_groups_whichever_order_they_came_in() {
        let names = |all: &[&str]| pn_of(&all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["山田^太郎", "YAMADA^TARO"]), "YAMADA^TARO=山田^太郎");
        assert_eq!(names(&["ヤマダ^タロウ", "山田^太郎"]), "=山田^太郎=ヤマダ^タロウ");
        assert_eq!(names(&["YAMADA^TARO=山田^太郎="]), "YAMADA^TARO=山田^太郎=");
        assert_eq!(names(&[]), "");
    }
}
