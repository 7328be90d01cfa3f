//! Proves that the examples in `conf/` know every key and tell the truth about defaults.

use std::collections::BTreeSet;
use std::path::Path;

use toml::de::DeTable;

use super::reader::{Section, canonical};
use super::source::{Known, Source};
use super::value::Places;
use super::{Config, read};

const EXAMPLES: [(&str, &str); 2] = [
    ("conf/hospital.toml", include_str!("../../conf/hospital.toml")),
    ("conf/reading-centre.toml", include_str!("../../conf/reading-centre.toml")),
];

/// Every section and every kind, with nothing in them: brings out every key there is.
const EVERY_SECTION: &str = "
    node.log = {}
    dicom = { tls = {}, allow = [{}], limits = {} }
    spool = {}
    tunnel = { peers = [{}], limits = {} }
    destination = [{ kind = 'node' }, { kind = 'dicom', tls = {}, timeouts = {}, report = {} },
        { kind = 'folder', report = {} },
        { kind = 'hl7', tls = {}, timeouts = {}, report = { fields = {} } }]
    route = [{ when = { attributes = {} } }]
    orders = { hl7 = { tls = {}, fields = {}, limits = {} }, commitment = { report_to = [{}] },
        source = [{ tls = {}, timeouts = {} }], priors = [{ when = {} }],
        worklist = [{ tls = {}, timeouts = {} }],
        notice = [{ webhook = {}, mail = {} }], mail = {},
        steps = { pass_on_to = [{ tls = {}, timeouts = {} }] } }
    reports = { critical = { rung = [{}] }, promises = {}, signing = [{ allow = [{}] }],
        hl7 = { tls = {}, fields = {}, limits = {} }, dicom = {}, folder = [{}] }
    api = { tls = {}, client = [{}], limits = {} }
    ops = {}
    drain = {}
";

/// Prose begins with a hash and a blank; what follows a bare hash is switched off.
fn switched_on(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(off) if !off.is_empty() && !off.starts_with(' ') => format!("{off}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn known(text: &str) -> Vec<Known> {
    let table = DeTable::parse(text).unwrap_or_else(|e| panic!("{e}")).into_inner();
    let mut source = Source::new(Path::new(""), text, Places::default());
    read::document(&mut Section::root(&mut source, &table));
    source.known
}

fn paths(known: &[Known]) -> BTreeSet<&str> {
    known.iter().map(|known| known.path.as_str()).collect()
}

#[test]
fn the_examples_are_valid_as_they_are_and_with_every_key_switched_on() {
    for (name, text) in EXAMPLES {
        for text in [text.to_owned(), switched_on(text)] {
            match Config::parse(&text, Path::new(name)) {
                Ok((_, warnings)) => assert_eq!(warnings, [], "{name}"),
                Err(problems) => {
                    let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
                    panic!("{}", all.join("\n"));
                }
            }
        }
    }
}

#[test]
fn every_key_stands_in_at_least_one_example() {
    let schema = known(EVERY_SECTION);
    let examples: Vec<_> =
        EXAMPLES.iter().flat_map(|(_, text)| known(&switched_on(text))).collect();
    assert_eq!(paths(&schema), paths(&examples), "EVERY_SECTION brings out every key");
    let written: BTreeSet<_> = examples
        .iter()
        .filter(|known| known.written.is_some())
        .map(|known| known.path.as_str())
        .collect();
    let forgotten: Vec<_> = paths(&schema).difference(&written).copied().collect();
    assert_eq!(forgotten, [""; 0]);
}

#[test]
fn a_default_that_is_shown_switched_off_is_the_default() {
    let mut shown = 0;
    for (name, text) in EXAMPLES {
        let on: BTreeSet<_> = known(text)
            .into_iter()
            .filter_map(|known| known.written.map(|written| (known.path, written)))
            .collect();
        for key in known(&switched_on(text)) {
            let (Some(default), Some(written)) = (key.default, key.written) else { continue };
            if on.contains(&(key.path.clone(), written.clone())) {
                continue;
            }
            let default = toml::de::DeValue::parse(default).unwrap();
            assert_eq!(written, canonical(default.get_ref()), "{name}: {}", key.path);
            shown += 1;
        }
    }
    assert!(shown > 40, "only {shown} defaults are shown");
}

#[test]
fn every_key_of_an_example_has_prose_or_is_explained_in_the_other() {
    let explained = |text: &str| -> BTreeSet<String> {
        let mut prose = false;
        let mut keys = BTreeSet::new();
        for line in text.lines() {
            let code = line.strip_prefix('#').unwrap_or(line);
            match code.split_once(" = ") {
                _ if line.starts_with("# ") => prose = true,
                Some((key, _)) if prose => drop(keys.insert(key.to_owned())),
                _ => {}
            }
            if line.is_empty() {
                prose = false;
            }
        }
        keys
    };
    let all: BTreeSet<_> = EXAMPLES.iter().flat_map(|(_, text)| explained(text)).collect();
    for known in known(EVERY_SECTION).iter().filter(|known| known.default.is_some()) {
        let key = known.path.rsplit('.').next().unwrap();
        assert!(all.contains(key), "{} has no prose above it", known.path);
    }
}

#[test]
fn the_unit_gives_the_node_longer_to_stop_than_its_drain_takes() {
    let unit = include_str!("../../systemd/hikyaku.service");
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    let stop: u64 = stop.strip_suffix('s').unwrap().parse().unwrap();
    for (name, text) in EXAMPLES {
        let (config, _) = Config::parse(text, Path::new(name)).unwrap();
        assert!(stop > config.drain.timeout.as_secs(), "{name}");
    }
}
