//! What has come, in order, across restarts.

use super::{give, open, ready, to};
use crate::custody::CargoId;

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_at_what_comes_sees_each_piece_once_and_in_order_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut seen, mut last) = (Vec::new(), CargoId(0));
    for life in 0..3 {
        let custody = open(dir.path());
        ready(&custody).await;
        for n in 0..10 {
            let mut hint = custody.arrived();
            hint.mark_unchanged();
            give(&custody, &format!("1.2.{life}.{n}"), b"body", to("pacs")).await;
            hint.changed().await.unwrap();
            for arrival in custody.arrivals(last, 3).await.unwrap() {
                last = arrival.cargo;
                assert_eq!(arrival.body.len(), 4);
                seen.push(arrival.envelope.identity.key);
            }
        }
        custody.close().await;
    }
    let wanted: Vec<String> =
        (0..3).flat_map(|life| (0..10).map(move |n| format!("1.2.{life}.{n}"))).collect();
    assert_eq!(seen, wanted);
}
