use std::path::Path;

use super::*;
use crate::config::{Change, changes, describe};

fn parse(orders: &str, reports: &str) -> Result<Config, String> {
    let text = format!(
        "[node]\nname = 'n'\ndata = '/data'\n[dicom]\nlisten = '0.0.0.0:104'\nae_titles = ['A']\n\
         allow = [{{ ae_title = 'READ_RIS', address = '10.0.0.1' }}]\n{orders}\n{reports}"
    );
    let read = Config::parse(&text, Path::new("/etc/hikyaku/h.toml"));
    read.map(|(config, _)| config)
        .map_err(|all| all.iter().map(|p| format!("{p}\n")).collect::<String>())
}

fn good(reports: &str) -> Config {
    parse("[orders]\ntime_zone = 'Asia/Tokyo'", reports).unwrap_or_else(|e| panic!("{e}"))
}

const WHOLE: &str = "[reports]\nissuer = 'RC'\nunverified = 'final'\n\
    [reports.hl7]\nlisten = '0.0.0.0:2577'\nallow = '10.0.0.1'\n\
    [reports.dicom]\nfrom = 'READ_RIS'\n\
    [[reports.folder]]\nname = 'editor'\npath = '/srv/reports'\n";

#[test]
fn ways_in_that_do_not_fit_are_named_with_what_to_do() {
    for (wrong, said) in [
        ("[reports]\nunstated = 'corrected'", "unstated"),
        ("[reports]\n[reports.hl7]\nallow = '10.0.0.1'", "has no listener"),
        ("[reports]\n[reports.hl7]\nlisten = '0.0.0.0:1'", "allow: is missing"),
        ("[reports]\n[reports.hl7]\nlisten = '0.0.0.0:104'\nallow = '10.0.0.1'", "same port"),
        (
            "[reports]\n[reports.hl7]\ntls_listen = '0.0.0.0:1'\nallow = '10.0.0.1'",
            "no certificate",
        ),
        ("[reports]\n[reports.hl7]\nfields = { scheduled_at = 'OBR-7' }", "is no key"),
        ("[reports]\n[reports.dicom]\nfrom = 'OTHER'", "OTHER may not connect"),
        ("[reports]\n[[reports.folder]]\nname = 'a'", "path: is missing"),
        ("[reports]\n[[reports.folder]]\nname = 'a'\npath = '/data/x'", "below node.data"),
        ("[reports]\nfolder = [{ name = 'a', path = '/x', settle = '0s' }]", "settle"),
        ("[reports]\nfolder = [{ name = 'a', path = '/x', wait = '5s' }]", "shorter than settle"),
        (
            "[reports]\nfolder = [{ name = 'a', path = '/x' }, { name = 'b', path = '/x' }]",
            "is the folder of reports.folder[0]",
        ),
    ] {
        let read = parse("[orders]", wrong).expect_err(wrong);
        assert!(read.contains(said), "{wrong}: {read}");
    }
    let without = parse("", "[reports]").expect_err("nothing to match to");
    assert!(without.contains("add an [orders] section"), "{without}");
}

#[test]
fn what_is_configured_is_what_the_rules_and_the_words_say() {
    let config = good(WHOLE);
    let rules = config.arrive_rules().unwrap();
    assert_eq!((&*rules.issuer, rules.zone.iana_name()), ("RC", Some("Asia/Tokyo")));
    assert_eq!((rules.unstated, rules.unverified), (Status::Preliminary, Status::Final));
    let hl7 = config.reports.as_ref().unwrap().collect.hl7.as_ref().unwrap();
    assert!(hl7.rules.accepts.reports && !hl7.rules.accepts.orders);
    assert_eq!((hl7.mllp.message, hl7.mllp.connections), (32 << 20, 8));
    assert_eq!(config.report_folders()[0].settle, Duration::from_secs(10));
    let said = describe(&config);
    for line in ["takes HL7 reports on 0.0.0.0:2577", "documents of READ_RIS", "editor: takes"] {
        assert!(said.contains(line), "{said}");
    }
    assert!(good("").arrive_rules().is_none());
}

#[test]
fn who_sends_reports_can_change_while_the_node_runs_and_listeners_cannot() {
    let old = good(WHOLE);
    let change = |from: &str, to: &str| {
        let all = changes(&old, &good(&WHOLE.replace(from, to)));
        assert!(!all.is_empty(), "{from}");
        all.iter().all(|change| matches!(change, Change::Applied { .. }))
    };
    assert!(change("from = 'READ_RIS'", ""));
    assert!(change("'RC'", "'RC2'"));
    assert!(change("unverified = 'final'", "unstated = 'final'"));
    assert!(!change("2577", "2578"));
    assert!(!change("/srv/reports", "/srv/others"));
}
