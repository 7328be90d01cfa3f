//! What custody says of instances that somebody names.

use super::{give, name, open, receipt_all, to, want};
use crate::custody::state::StateName;
use crate::custody::{Outcome, Receipt};

#[tokio::test(flavor = "multi_thread")]
async fn a_uid_under_which_other_bytes_came_is_held_by_all_of_its_versions() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    give(&custody, "1.2.3.1", b"first", to("pacs")).await;
    assert_eq!(receipt_all(&custody, "pacs").await, 1);
    let origin = name("st-elsewhere");
    let states = async || {
        let held = custody.holdings(&origin, &["1.2.3.1", "1.2.3.2"]).await.unwrap();
        assert_eq!(held[1], None);
        let held = held[0].clone().unwrap();
        assert_eq!((held.study.as_str(), held.unrouted), ("1.2.3", false));
        held.duties.into_iter().map(|(_, state)| state).collect::<Vec<_>>()
    };
    assert_eq!(states().await, [StateName::Receipted]);
    give(&custody, "1.2.3.1", b"other", to("pacs")).await;
    assert_eq!(states().await, [StateName::Receipted, StateName::Held]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duty_is_given_up_unless_it_is_being_tried_or_has_its_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let custody = open(dir.path());
    let kept = give(&custody, "hl7-1", b"MSH", to("ris")).await;
    let key = || (name("st-elsewhere"), "hl7-1".to_owned(), name("ris"));
    let duty = async || {
        let (origin, key, destination) = key();
        custody.duty(origin, key, destination).await.unwrap()
    };
    let (cargo, owed) = duty().await.unwrap();
    assert_eq!((cargo, owed.state), (kept.cargo(), StateName::Owed));
    let give_up =
        async || custody.give_up(cargo, name("ris"), "us", "it says more".into()).await.unwrap();
    let leased = custody.lease(want("ris", 1)).await;
    assert!(!give_up().await, "it is being tried");
    drop(leased);
    assert!(custody.turn().await && give_up().await);
    let (_, given_up) = duty().await.unwrap();
    assert_eq!((given_up.state, given_up.by.as_deref()), (StateName::Dismissed, Some("us")));
    assert!(give_up().await, "it is so already");
    // What was refused is no more for a person to send again.
    give(&custody, "hl7-1", b"MSH", to("third")).await;
    let leased = custody.lease(want("third", 1)).await.pop().unwrap();
    custody.settle(leased, Outcome::Quarantine { reason: "HL7 AR".into() }).await;
    assert_eq!(custody.give_up(cargo, name("third"), "us", "more".into()).await, Some(true));
    // What a receiver of HL7 has said is shown as it was said.
    give(&custody, "hl7-1", b"MSH", to("other")).await;
    let receipt = Receipt::Hl7 { code: "AA".into(), control_id: "7".into() };
    let leased = custody.lease(want("other", 1)).await.pop().unwrap();
    custody.settle(leased, Outcome::Receipted { receipt }).await;
    let (origin, key, _) = key();
    let found = custody.duty(origin.clone(), key, name("other")).await.unwrap().unwrap();
    assert_eq!(found.1.receipt.as_deref(), Some("HL7 AA to message 7"));
    assert_eq!(custody.give_up(cargo, name("other"), "us", "more".into()).await, Some(false));
    assert_eq!(custody.duty(origin, "hl7-2".into(), name("ris")).await, Some(None));
}
