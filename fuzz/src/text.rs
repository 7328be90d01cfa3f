//! What people and other systems write: the configuration, requests to the control socket and to
//! the API.

use std::fs;
use std::path::Path;

use hikyaku::config::Config;
use hikyaku::custody::Filter;
use hikyaku::ops::control::{Decision, ExplainRequest};
use hikyaku::orders::registrar::{NewOrder, Place};

use super::dicom::project;

pub(crate) fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::parse(&text, Path::new("/etc/hikyaku/fuzz.toml")) {
        Ok((config, _)) => assert!(!config.node.name.as_str().is_empty()),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            problems.iter().for_each(|p| assert!(!p.to_string().is_empty()));
        }
    }
}

pub(crate) fn control(data: &[u8]) {
    let _ = serde_json::from_slice::<Filter>(data);
    let _ = serde_json::from_slice::<ExplainRequest>(data);
    if let Err(flaws) = NewOrder::read(data) {
        assert!(!flaws.is_empty(), "refused without a reason");
    }
    if let Ok(place) = String::from_utf8_lossy(data).parse::<Place>() {
        assert_eq!(place.to_string().parse(), Ok(place));
    }
    if let Ok(decision) = serde_json::from_slice::<Decision>(data) {
        let again = serde_json::to_vec(&decision).expect("memory");
        serde_json::from_slice::<Decision>(&again).expect("our own decision");
    }
}

/// The examples, and the same with every key switched on.
pub(crate) fn configs() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for name in ["hospital.toml", "reading-centre.toml"] {
        let text = fs::read_to_string(project().join("conf").join(name)).expect("an example");
        let prose = |line: &&str| !line.starts_with("# ") && !line.is_empty();
        let short: Vec<_> = text.lines().filter(prose).collect();
        let on: Vec<_> = short.iter().map(|line| line.trim_start_matches('#')).collect();
        seeds.push(short.join("\n").into_bytes());
        seeds.push(on.join("\n").into_bytes());
    }
    seeds
}

pub(crate) fn controls() -> Vec<Vec<u8>> {
    [
        r#"{"filter":{"destination":"pacs","state":"owed","study":"1.2","cargo":7,"limit":9},
            "action":"retry","reason":"why"}"#,
        r#"{"destination":"pacs","state":"quarantined"}"#,
        r#"{"study":"1.2.3","patient":true}"#,
        r#"{"number":"P1","scheduled":"2026-11-22T13:00:00+09:00","urgency":"stat","again":true}"#,
        "short/1795000000123/study/hospital/1.2.3",
    ]
    .map(|s| s.as_bytes().to_vec())
    .to_vec()
}
