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

#[test]
fn the_description_names_every_field_of_what_is_told_of_reports() {
    use crate::cargo::Urgency;
    use crate::clock::Timestamp;
    use crate::reports::critical::State;
    use crate::reports::matching::Target;
    use crate::reports::note::Words;
    use crate::reports::report::Status;
    use crate::reports::secretary::{CriticalRow, HeldRow, LoopRow, Row, Why, WordsRow};
    use crate::reports::words::Told;

    let hospital: crate::cargo::NodeName = "st-elsewhere".parse().unwrap();
    let target = Target { origin: hospital.clone(), study: "1.2.3".into(), order: None };
    let row = Row {
        report: "r".into(),
        target: target.clone(),
        status: Status::Final,
        versions: 1,
        arrived_at: Timestamp(0),
        is_signed: true,
        critical: None,
        destinations: vec![("his".parse().unwrap(), "receipted".into())],
    };
    let held = Told::from(HeldRow {
        document: "d".into(),
        arrived_at: Timestamp(0),
        source: "RIS".into(),
        status: Status::Final,
        why: Why::Full,
        words: String::new(),
        is_critical: false,
    });
    let owed = Told::from(LoopRow {
        hospital: hospital.clone(),
        study: "1.2.3".into(),
        order: String::new(),
        urgency: Urgency::Stat,
        moments: vec![],
        owed: vec![],
        overdue: vec![],
    });
    let critical = Told::from(CriticalRow {
        report: "r".into(),
        target,
        state: State::Open,
        since: Timestamp(0),
        reasons: vec![],
        notices: 0,
        record: vec![],
    });
    let words = WordsRow {
        from: hospital.clone(),
        hospital,
        study: "1.2.3".into(),
        at: Timestamp(0),
        words: Words { id: "i".into(), answers: String::new(), text: "t".into(), by: "b".into() },
        is_answered: false,
    };
    let document = document();
    for (name, told) in [
        ("ReportRow", serde_json::to_value(row)),
        ("Held", serde_json::to_value(held)),
        ("Loop", serde_json::to_value(owed)),
        ("Critical", serde_json::to_value(critical)),
        ("Words", serde_json::to_value(words)),
    ] {
        let schema = &document["components"]["schemas"][name];
        let described: BTreeSet<_> = schema["properties"].as_object().expect(name).keys().collect();
        let told = told.unwrap();
        let told: BTreeSet<_> = told.as_object().expect("an object").keys().collect();
        assert_eq!(described, told, "{name}");
        let required = schema["required"].as_array().expect("a list");
        assert_eq!(required.len(), told.len(), "{name}");
    }
}

#[test]
fn every_described_field_of_a_new_report_is_read_and_no_other() {
    use crate::reports::said::SaidReport;

    let document = document();
    let schema = &document["components"]["schemas"]["NewReport"];
    let described = schema["properties"].as_object().expect("properties");
    // A value of the wrong type is another fault than an unknown field.
    let what = |body: Value| SaidReport::read(body.to_string().as_bytes()).err().map(|f| f.what);
    for field in described.keys() {
        let what = what(serde_json::json!({ field.as_str(): null })).unwrap_or_default();
        assert!(!what.contains("unknown field"), "{field}: {what}");
    }
    let what = what(serde_json::json!({ "x": 1 })).expect("a fault");
    assert!(what.contains("unknown field"), "{what}");
    let said = include_str!("../../reports/said.rs");
    let of = said.split("pub struct SaidReport {").nth(1).expect("the struct");
    let of = of.split("\n}").next().expect("its end");
    let fields: BTreeSet<&str> =
        of.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next()).collect();
    assert_eq!(fields, described.keys().map(String::as_str).collect());
}
