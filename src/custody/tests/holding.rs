//! What custody says of instances that somebody names.

use super::{give, name, open, receipt_all, to};
use crate::custody::state::StateName;

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
