//! What peers say of worklists: queries to us, and items in answer to ours.

use hikyaku::clock::Timestamp;
use hikyaku::dicom::text::Repertoire;
use hikyaku::dicom::{EXPLICIT_VR_LE, IMPLICIT_VR_LE, dataset};
use hikyaku::orders::order::{Action, Content, Order, OrderKey};
use hikyaku::orders::worklist::{self, Query};
use jiff::tz::TimeZone;

fn order(content: &Content) -> Order {
    let key = OrderKey { origin: "east".parse().expect("a name"), number: "P1".into() };
    let mut order = Order::empty(key);
    order.apply(&Action::New(content.clone()), "worklist", Timestamp(1));
    order
}

pub(crate) fn worklist(data: &[u8]) {
    let [how, data @ ..] = data else { return };
    let syntax = [IMPLICIT_VR_LE, EXPLICIT_VR_LE][usize::from(*how) % 2];
    let Ok(set) = dataset::read(data, syntax) else { return };
    let content = worklist::read(&set, "SITE", &TimeZone::UTC);
    let mut orders = vec![order(&Content::default())];
    if let Ok(content) = &content {
        let (items, _) = worklist::unite([content.clone(), content.clone()]);
        assert!(items.len() == 1, "the same twice is one");
        let (said, new) = worklist::news(None, &items[0].content, None);
        assert!(new.is_some(), "an order that nobody knows is new");
        assert_eq!(worklist::news(Some(&said), &items[0].content, None).1, None);
        orders.push(order(&said));
    }
    let Ok(query) = Query::read(&set) else { return };
    let _ = query.found(jiff::civil::date(2026, 11, 27));
    for order in &orders {
        for entry in worklist::entries(order, Timestamp(0), &TimeZone::UTC) {
            let _ = query.matches(&entry);
            let answer = worklist::answer(&entry, &query, "CT1");
            let wire = dataset::write(&answer, syntax, Repertoire::JAPANESE).expect("our own");
            let read = dataset::read(&wire, syntax).expect("our own answer");
            worklist::read(&read, "SITE", &TimeZone::UTC).expect("an answer names its order");
        }
    }
}

/// Identifiers and items, each with the byte that chooses its syntax.
pub(crate) fn identifiers() -> Vec<Vec<u8>> {
    let day = jiff::civil::date(2026, 11, 27);
    let mut seeds = Vec::new();
    for (modality, station) in [(Some("CT"), None), (None, Some("CT*")), (Some("M?"), Some("A"))] {
        let set = worklist::identifier((day, day), modality, station);
        let query = Query::read(&set).expect("our own query");
        let order = order(&Content::default());
        let entries = worklist::entries(&order, Timestamp(1_795_737_600_000), &TimeZone::UTC);
        let answer = worklist::answer(&entries[0], &query, "CT1");
        for (n, syntax) in [IMPLICIT_VR_LE, EXPLICIT_VR_LE].into_iter().enumerate() {
            for set in [&set, &answer] {
                let bytes = dataset::write(set, syntax, Repertoire::UTF8).expect("our own");
                seeds.push([&[n as u8][..], &bytes].concat());
            }
        }
    }
    seeds
}
