use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::orders::verdict::What;

fn document() -> Value {
    serde_json::from_str(status::OPENAPI).expect("JSON")
}

#[test]
fn the_description_names_every_call_with_its_right_and_no_other() {
    let ours: BTreeSet<_> = calls()
        .iter()
        .map(|c| (c.method.to_lowercase(), c.path.to_owned(), c.right.map(Right::as_str)))
        .map(|(method, path, right)| (method, path, right.map(str::to_owned)))
        .collect();
    let mut told = BTreeSet::new();
    for (path, methods) in document()["paths"].as_object().expect("paths") {
        for (method, call) in methods.as_object().expect("methods") {
            let right = call["x-hikyaku-right"].as_str().map(str::to_owned);
            told.insert((method.clone(), path.clone(), right));
        }
    }
    assert_eq!(ours, told);
    assert_eq!(ours.len(), calls().len(), "no call twice");
}

#[test]
fn a_call_that_changes_something_or_shows_a_patient_needs_a_right() {
    let free: Vec<_> = calls().into_iter().filter(|c| c.right.is_none()).map(|c| c.path).collect();
    assert_eq!(free, ["/status", "/openapi.json"]);
}

#[test]
fn the_description_names_every_field_of_an_order_and_every_word() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let fields = |v: &Value| -> BTreeSet<String> {
        v.as_object().expect("an object").keys().cloned().collect()
    };
    let order = serde_json::to_value(crate::orders::registrar::NewOrder::default()).unwrap();
    assert_eq!(fields(&schemas["NewOrder"]["properties"]), fields(&order));
    let all = serde_json::to_value(What::all()).unwrap();
    assert_eq!(schemas["What"]["enum"], all);
    let told: Vec<What> = What::all().into_iter().filter(|what| what.needs_attention()).collect();
    let parameters = document["paths"]["/missing"]["get"]["parameters"].as_array().expect("some");
    let attention = parameters.iter().find(|p| p["name"] == "attention").expect("a filter");
    assert_eq!(attention["schema"]["enum"], serde_json::to_value(told).unwrap());
}

#[test]
fn the_documents_of_both_languages_name_every_call_and_every_right() {
    let pages = [include_str!("../../../docs/api.md"), include_str!("../../../docs/ja/api.md")];
    for page in pages {
        for Call { method, path, .. } in calls() {
            assert!(page.contains(&format!("`{method} {path}")), "{method} {path}");
        }
        for (word, _) in Right::ALL {
            assert!(page.contains(&format!("`{word}`")), "{word}");
        }
    }
}
