//! Corrected versions: one for each image, known by the bytes as received, across crashes.

use super::{envelope, give, name, open, ready, receipt_all, to};
use crate::cargo::{Assignment, Sha256, StudyKey};
use crate::custody::correction::{HeldBy, SUPERSEDES};
use crate::custody::state::StateName;
use crate::custody::{CargoId, Custody, Draft, Filter, Kept};

const HELD: HeldBy = HeldBy { by: "orders", reasons: &["patient-mismatch"] };

fn held(reason: &str) -> Vec<Assignment> {
    let hold = Some(reason.to_owned());
    to("pacs").into_iter().map(|a| Assignment { hold: hold.clone(), ..a }).collect()
}

async fn correct(custody: &Custody, key: &str, new: &[u8], old: &[u8]) -> Kept {
    let mut assembly = custody.assemble();
    assembly.push(new).await.unwrap();
    let draft = Draft {
        envelope: envelope("st-elsewhere", "1.2.3", key, new),
        body: assembly.finish(),
        assignments: held(SUPERSEDES),
    };
    custody.take_corrected(draft, Sha256::of(old)).await.unwrap()
}

async fn states(custody: &Custody, cargo: CargoId) -> Vec<StateName> {
    let filter = Filter { cargo: Some(cargo.0), ..Filter::default() };
    let found = custody.list(filter).await.unwrap();
    found.iter().flat_map(|c| c.duties.iter().map(|d| d.state)).collect()
}

fn study() -> StudyKey {
    StudyKey::of(&name("st-elsewhere"), "1.2.3")
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_come_again_are_known_by_the_version_that_was_corrected() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    ready(&custody).await;
    let first = correct(&custody, "1.1", b"corrected", b"received").await;
    assert!(first.is_new() && first.is_corrected() && !first.is_conflict());
    let other = correct(&custody, "1.1", b"corrected later", b"received").await;
    assert_eq!((other.cargo(), other.is_new()), (first.cargo(), false), "one correction each");
    let again = give(&custody, "1.1", b"received", Vec::new()).await;
    assert_eq!((again.cargo(), again.is_new()), (first.cargo(), false));
    assert!(again.is_corrected());
    custody.close().await;
    // The record says so, not the ledger.
    std::fs::remove_dir_all(dir.path().join("ledger")).unwrap();
    let custody = open(dir.path());
    ready(&custody).await;
    let again = give(&custody, "1.1", b"received", Vec::new()).await;
    assert!(again.is_corrected() && again.cargo() == first.cargo());
    assert!(give(&custody, "1.1", b"something else", to("pacs")).await.is_conflict());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_version_takes_the_place_of_the_former_though_each_step_is_the_last_of_a_life()
{
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    ready(&custody).await;
    let old = give(&custody, "1.1", b"received", held("patient-mismatch")).await;
    let waiting = custody.waiting(study(), CargoId(0), HELD, 9).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].cargo, waiting[0].successor), (old.cargo(), None));
    let new = correct(&custody, "1.1", b"corrected", b"received").await;
    assert!(!new.is_conflict());
    custody.close().await;
    // The next life finds what is left of it, and nothing has left.
    let custody = open(dir.path());
    ready(&custody).await;
    assert_eq!(receipt_all(&custody, "pacs").await, 0);
    let waiting = custody.waiting(study(), CargoId(0), HELD, 9).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].successor, Some(new.cargo()));
    for _ in 0..2 {
        let done = custody.supersede(old.cargo(), new.cargo(), HELD).await.unwrap();
        assert!(done <= 1);
        assert_eq!(states(&custody, old.cargo()).await, [StateName::Dismissed]);
        assert_eq!(states(&custody, new.cargo()).await, [StateName::Owed]);
    }
    assert!(custody.waiting(study(), CargoId(0), HELD, 9).await.unwrap().is_empty());
    assert_eq!(receipt_all(&custody, "pacs").await, 1);
    assert_eq!(custody.left_as_received(study()).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_has_released_meanwhile_goes_as_it_is_and_the_correction_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    ready(&custody).await;
    let old = give(&custody, "1.1", b"received", held("patient-mismatch")).await;
    let new = correct(&custody, "1.1", b"corrected", b"received").await;
    let filter = Filter { cargo: Some(old.cargo().0), ..Filter::default() };
    let release = crate::custody::Action::Release;
    custody.decide(filter, release, "sato".into(), String::new()).await.unwrap();
    assert_eq!(custody.supersede(old.cargo(), new.cargo(), HELD).await, Some(0));
    assert_eq!(states(&custody, old.cargo()).await, [StateName::Owed]);
    assert_eq!(states(&custody, new.cargo()).await, [StateName::Dismissed]);
    assert_eq!(receipt_all(&custody, "pacs").await, 1);
    assert_eq!(custody.left_as_received(study()).await, Some(1));
}
