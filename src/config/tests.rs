use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cargo::Urgency;

const HOSPITAL: &str = r#"
[node]
name = "st-elsewhere"

[dicom]
listen = "0.0.0.0:11112"
ae_titles = ["HIKYAKU", "TELE_STAT"]
allow = [{ ae_title = "CT1", address = "10.1.0.0/16" }]

[tunnel]
certificate = "node.crt"
key = "node.key"
trust = "ca.crt"

[[destination]]
name = "reading-centre"
kind = "node"
address = "reading.example.jp:4433"

[[route]]
name = "emergency"
when = { called_ae = "TELE_STAT" }
to = ["reading-centre"]
urgency = "stat"

[[route]]
name = "rest"
to = "reading-centre"
"#;

fn parse(text: &str) -> Read {
    Config::parse(text, Path::new("/etc/hikyaku/h.toml"))
}

fn good(text: &str) -> Config {
    match parse(text) {
        Ok((config, _)) => config,
        Err(problems) => panic!("{}", words(&problems)),
    }
}

fn words<T: ToString>(remarks: &[T]) -> String {
    remarks.iter().map(|remark| format!("{}\n", remark.to_string())).collect()
}

/// What is wrong with the hospital's configuration after a replacement.
fn wrong_after(from: &str, to: &str) -> String {
    assert!(HOSPITAL.contains(from), "{from}");
    words(&parse(&HOSPITAL.replacen(from, to, 1)).expect_err("nothing is wrong"))
}

fn warned_after(from: &str, to: &str) -> String {
    assert!(HOSPITAL.contains(from), "{from}");
    match parse(&HOSPITAL.replacen(from, to, 1)) {
        Ok((_, warnings)) => words(&warnings),
        Err(problems) => panic!("{}", words(&problems)),
    }
}

#[test]
fn the_configuration_of_the_design_is_read_without_a_warning() {
    let (config, warnings) = parse(HOSPITAL).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(config.node.name.as_str(), "st-elsewhere");
    assert_eq!(config.tunnel.as_ref().unwrap().key, Path::new("/etc/hikyaku/node.key"));
    assert_eq!(config.routes.rules()[0].urgency, Some(Urgency::Stat));
    assert_eq!(config.routes.rules()[1].to[0].as_str(), "reading-centre");
    assert_eq!(config.spool.memory, 64 << 20);
    assert_eq!(config.peers().len(), 1);
}

#[test]
fn defaults_of_the_file_are_those_of_the_rooms() {
    let (config, _) = parse(HOSPITAL).unwrap();
    let drain = config.drain.timeout;
    let (dicom, tunnel) = (config.dicom.unwrap().limits, config.tunnel.unwrap().limits);
    assert_eq!(dicom, crate::intake::Limits { drain, ..Default::default() });
    assert_eq!(tunnel, crate::tunnel::Limits { drain, ..Default::default() });
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_line() {
    let text = r#"
[node]
nam = "st-elsewhere"
data = 7
[dicom]
listen = "11112"
ae_titles = ["TOO_LONG_AE_TITLE", "OK", 3]
allow = [{ adress = "10.1.0.0/16" }]
limits = { idle = 300 }
[[destination]]
name = "pacs"
kind = "dicom"
path = "/x"
[[route]]
name = "r"
to = ["pax", "elsewhere"]
when = { attributes = { BodyPart = "HEAD", BodyPartExamine = "HEAD" }, modality = 5 }
[sppol]
"#;
    let all = words(&parse(text).unwrap_err());
    let expected = [
        ":2: node.name: is missing",
        ":3: node.nam: is no key of this section; did you mean `name`?",
        ":4: node.data: is a whole number; write text in quotes",
        ":6: dicom.listen: \"11112\" cannot be read",
        ":7: dicom.ae_titles[0]: \"TOO_LONG_AE_TITLE\" cannot be taken; an AE title has 1 to 16",
        ":7: dicom.ae_titles[2]: is a whole number",
        ":8: dicom.allow[0].adress: is no key of this section; did you mean `address`?",
        ":9: dicom.limits.idle: is a whole number; write a time such as",
        ":10: destination[0].address: is missing",
        ":10: destination[0].ae_title: is missing",
        ":13: destination[0].path: is no key of this section; it belongs to kind = \"folder\"",
        ":16: route[0].to[0]: there is no destination pax; did you mean `pacs`?",
        ":16: route[0].to[1]: there is no destination elsewhere; add a [[destination]]",
        ":17: route[0].when.attributes.BodyPartExamine: no DICOM attribute has the keyword \
         'BodyPartExamine'; did you mean `BodyPartExamined`?",
        ":17: route[0].when.modality: is a whole number",
        ":18: sppol: is no key of this section; did you mean `spool`?",
    ];
    for line in expected {
        assert!(all.contains(&format!("/etc/hikyaku/h.toml{line}")), "{line}\nnot in\n{all}");
    }
}

#[test]
fn text_that_is_no_toml_is_a_problem_with_a_line_and_nothing_is_called_missing_for_it() {
    let problems = parse("[node]\nname = \"a\n\n[dicom\n").unwrap_err();
    assert!(problems[0].0.line == 2, "{problems:?}");
    assert!(!words(&problems).contains("is missing"), "{}", words(&problems));
    assert!(!parse("\u{feff}]").unwrap_err().is_empty());
}

#[test]
fn an_empty_configuration_asks_for_a_name_and_warns_that_nothing_comes_in() {
    assert!(words(&parse("").unwrap_err()).contains("node.name: is missing"));
    let (_, warnings) = parse("[node]\nname = \"a\"").unwrap();
    assert!(words(&warnings).contains("nothing comes in"));
    assert!(words(&warnings).contains("there is no route"));
}

#[test]
fn a_ris_takes_orders_where_the_node_keeps_some_and_its_keys_belong_to_no_other_kind() {
    let ris = "[node]\nname = 'rc'\n[[destination]]\nname = 'ris'\nkind = 'hl7'\n\
               address = 'ris:2575'\ncharset = '~ISO IR87'\n[[route]]\nname = 'all'\nto = 'ris'\n";
    let said = words(&parse(ris).unwrap_err());
    assert!(said.contains("destination[0]: of kind hl7 takes orders, but this node keeps none"));
    let (config, _) = parse(&format!("{ris}[orders]\n")).unwrap();
    let receivers = config.receivers();
    let receiver = receivers.values().next().unwrap();
    assert_eq!(receiver.from, ("HIKYAKU".to_owned(), "rc".to_owned()));
    assert_eq!(receiver.charset.msh_18(), "~ISO IR87");
    assert!(describe(&config).contains("ris: orders as OMI^O23 to ris:2575; no images"));
    assert_eq!(config.delivery().unwrap().len(), 1);
    let wrong = ris.replace("charset = '~ISO IR87'", "charset = 'KLINGON'\nae_title = 'RIS'");
    let said = words(&parse(&format!("{wrong}[orders]\n")).unwrap_err());
    assert!(
        said.contains("destination[0].charset: character set \"KLINGON\" is not known"),
        "{said}"
    );
    assert!(said.contains("ae_title: is no key of this section; it belongs to kind = \"dicom\""));
}

#[test]
fn a_node_is_not_named_by_an_address() {
    for name in ["10.1.2.3", "a..b"] {
        let named = format!("name = {name:?}");
        let said = wrong_after("name = \"st-elsewhere\"", &named);
        assert!(said.contains("node.name") && said.contains("cannot stand in a certificate"));
        let said = wrong_after("name = \"reading-centre\"", &named);
        assert!(said.contains("destination[0].name"), "{said}");
    }
}

#[test]
fn sections_that_do_not_fit_together_are_problems() {
    let cases = [
        ("name = \"st-elsewhere\"", "name = \"reading-centre\"", "is this node's own name"),
        ("name = \"st-elsewhere\"", "name = \"St E\"", "a name is made of a-z"),
        ("name = \"rest\"", "name = \"emergency\"", "is the name of an earlier route"),
        ("address = \"reading.example.jp:4433\"", "", "cannot be reached"),
        ("listen = \"0.0.0.0:11112\"", "", "has no listener"),
        ("listen = \"0.0.0.0:11112\"", "listen = \"0.0.0.0:9480\"", "uses the same port as dicom"),
        ("listen = \"0.0.0.0:11112\"", "tls_listen = \"[::]:2762\"", "has no certificate"),
        ("allow = [{ ae_title = \"CT1\", address = \"10.1.0.0/16\" }]", "", "lets nobody in"),
        ("10.1.0.0/16", "10.1.0.1/16", "has bits beyond its prefix length"),
        (
            "[[route]]",
            "[spool]\nhigh_watermark = \"98%\"\n[[route]]",
            "is below spool.high_watermark",
        ),
        ("[[route]]", "[spool]\nhigh_watermark = 90\n[[route]]", "write a share"),
        ("[[route]]", "[spool]\ncapacity = \"900 MiB\"\n[[route]]", "too little room"),
        ("[[route]]", "[spool]\ntombstones = \"1h\"\n[[route]]", "shorter than spool.retention"),
        ("[[route]]", "[tunnel.limits]\nidle = \"3s\"\n[[route]]", "is not shorter than"),
        ("urgency = \"stat\"", "urgency = \"STAT\"", "write \"stat\" or \"urgent\""),
        ("to = [\"reading-centre\"]", "to = []", "is a list of 0"),
        ("called_ae = \"TELE_STAT\"", "called_ae = []", "is a list of 0"),
        ("called_ae = \"TELE_STAT\"", "sop_class = \"CT\"", "is neither a UID nor"),
        ("urgency = \"stat\"", "correct = true", "corrects by orders, but this node keeps none"),
        ("key = \"node.key\"", "key = \"-----BEGIN PRIVATE KEY-----\"", "holds a key"),
    ];
    for (from, to, expected) in cases {
        let said = wrong_after(from, to);
        assert!(said.contains(expected), "{to}: {said}");
        assert_eq!(said.lines().count(), 1, "{to}: {said}");
    }
}

#[test]
fn a_destination_of_kind_node_needs_a_tunnel() {
    let tunnel = "[tunnel]\ncertificate = \"node.crt\"\nkey = \"node.key\"\ntrust = \"ca.crt\"\n";
    assert!(wrong_after(tunnel, "").contains("of kind node needs a tunnel"));
}

#[test]
fn what_is_odd_but_possible_is_a_warning() {
    let cases = [
        ("TELE_STAT\" }", "TELE_STATT\" }", "no AE title of this node matches \"TELE_STATT\""),
        ("ae_title = \"CT1\", address = \"10.1.0.0/16\"", "ae_title = \"*\"", "lets every address"),
        (
            "[[route]]",
            "[[destination]]\nname = \"f\"\nkind = \"folder\"\npath = \"/f\"\n[[route]]",
            "no route leads to f",
        ),
        (
            "urgency = \"stat\"",
            "[[route]]\nname = \"all\"\nlast = true\nto = \"reading-centre\"",
            "is never reached: route all",
        ),
        ("[node]", "[node]\nlog = { level = \"debug\" }", "may write identifiers"),
        (
            "urgency = \"stat\"",
            "correct = true\n[orders]",
            "images of emergency may leave with other bytes",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(warned_after(from, to).contains(expected), "{to}: {}", warned_after(from, to));
    }
}

#[test]
fn one_place_at_fault_does_not_make_others_look_wrong() {
    let said = wrong_after("address = \"reading.example.jp:4433\"", "address = 4433");
    assert_eq!(said.lines().count(), 1, "{said}");
    let said = wrong_after("key = \"node.key\"", "");
    assert_eq!(said.lines().count(), 1, "{said}");
    let said = wrong_after("to = \"reading-centre\"", "too = \"reading-centre\"");
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn the_calling_title_of_a_destination_is_that_of_the_node_unless_it_has_its_own() {
    let pacs = "[[destination]]\nname = \"pacs\"\nkind = \"dicom\"\naddress = \"10.2.0.5:104\"\n\
                ae_title = \"PACS\"\n";
    let calling = |config: &Config| match &config.destinations.last().unwrap().kind {
        DestinationKind::Dicom(dicom) => dicom.calling_ae.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(calling(&good(&format!("{HOSPITAL}{pacs}"))), "HIKYAKU");
    assert_eq!(calling(&good(&format!("{HOSPITAL}{pacs}calling_ae = \"ME\"\n"))), "ME");
}

#[test]
fn a_destination_that_is_owed_cargo_cannot_go() {
    let config = good(HOSPITAL);
    let here = "reading-centre".parse().unwrap();
    let gone = "old-pacs".parse().unwrap();
    assert_eq!(config.check_against(&[here]), []);
    let problems = config.check_against(&[gone]);
    assert!(words(&problems).contains("old-pacs is gone, but cargo is owed to it"));
}

#[test]
fn notes_may_be_owed_to_a_node_that_only_connects_to_us() {
    let text = HOSPITAL.replacen(
        "[tunnel]\n",
        "[tunnel]\nlisten = \"0.0.0.0:4433\"\npeers = [{ name = \"island-clinic\" }]\n",
        1,
    );
    let clinic = "island-clinic".parse().unwrap();
    assert_eq!(good(&text).check_against(&[clinic]), []);
}

#[test]
fn the_description_says_who_listens_for_whom_and_what_goes_where() {
    let text = describe(&good(HOSPITAL));
    for line in [
        "listens on 0.0.0.0:11112 (not encrypted)",
        "answers to HIKYAKU, TELE_STAT",
        "lets CT1 from 10.1.0.0/16 send",
        "dials out only; needs no inbound port",
        "reading-centre: the node at reading.example.jp:4433",
        "emergency: when called_ae is \"TELE_STAT\" -> reading-centre, as stat",
        "rest: everything -> reading-centre\n",
        "frees bytes 1d after the last receipt, forgets that they were here 400d later",
    ] {
        assert!(text.contains(line), "{line}\nnot in\n{text}");
    }
}

fn changed(from: &str, to: &str) -> Vec<Change> {
    assert!(HOSPITAL.contains(from), "{from}");
    changes(&good(HOSPITAL), &good(&HOSPITAL.replacen(from, to, 1)))
}

#[test]
fn a_reload_says_what_counts_now_and_what_needs_a_restart() {
    let applied = |key: &str| Change::Applied { key: key.into() };
    assert_eq!(changed("CT1", "CT2"), [applied("dicom.allow[0].ae_title")]);
    assert_eq!(changed("\"stat\"", "\"urgent\""), [applied("route.emergency.urgency")]);
    let quota = "kind = \"node\"\nquota = \"50 %\"";
    assert_eq!(changed("kind = \"node\"", quota), [applied("destination.reading-centre.quota")]);
    let pacs = "\n[[destination]]\nname = \"f\"\nkind = \"folder\"\npath = \"/f\"\n[[route]]";
    let new: Vec<_> = changed("[[route]]", pacs);
    assert!(new.contains(&applied("destination.f.path")), "{new:?}");
    assert!(new.iter().all(|change| matches!(change, Change::Applied { .. })), "{new:?}");
    for (from, to, expected) in [
        ("\"st-elsewhere\"", "\"other\"", "node.name"),
        ("11112", "11113", "dicom.listen"),
        ("reading.example.jp", "r.example.jp", "destination.reading-centre.address"),
        ("[[route]]", "[spool]\nsegment = \"1 GiB\"\n[[route]]", "spool.segment"),
    ] {
        let changes = changed(from, to);
        assert!(
            matches!(&changes[..], [Change::NeedsRestart { key, .. }] if key == expected),
            "{changes:?}"
        );
    }
}

#[test]
fn what_waits_for_a_restart_is_named_at_every_reload_until_it_is_put_back() {
    let started = good(HOSPITAL);
    let moved = good(&HOSPITAL.replacen("11112", "11113", 1));
    let waits = |all: &[Change]| {
        let waits = all.iter().filter(|c| matches!(c, Change::NeedsRestart { .. }));
        waits.count()
    };
    assert_eq!(waits(&reloaded(&started, &started, &moved)), 1);
    assert_eq!(waits(&reloaded(&started, &moved, &moved)), 1);
    assert_eq!(reloaded(&started, &moved, &started), []);
    let other = good(&HOSPITAL.replacen("11112", "11113", 1).replacen("CT1", "CT2", 1));
    let all = reloaded(&started, &moved, &other);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all.contains(&Change::Applied { key: "dicom.allow[0].ae_title".into() }));
}

#[test]
fn a_section_that_was_not_there_at_the_start_takes_no_settings_before_the_restart() {
    let started = good("[node]\nname = \"a\"\n");
    let with = |title: &str| {
        good(&format!(
            "[node]\nname = \"a\"\n[dicom]\nlisten = \"127.0.0.1:104\"\nae_titles = [\"A\"]\n\
             allow = [{{ ae_title = \"{title}\" }}]\n"
        ))
    };
    let all = reloaded(&started, &with("B"), &with("C"));
    assert!(matches!(&all[..], [Change::NeedsRestart { key, .. }] if key == "dicom"), "{all:?}");
}

#[test]
fn another_layout_or_a_default_written_out_is_no_change() {
    assert_eq!(changed("[\"HIKYAKU\", \"TELE_STAT\"]", "[ 'HIKYAKU',\n  'TELE_STAT' ]"), []);
    assert_eq!(changed("[[route]]", "[drain]\ntimeout = \"30s\"\n[[route]]"), []);
}

#[test]
fn a_section_that_goes_is_one_change_that_needs_a_restart() {
    let text = "[node]\nname = \"a\"\n";
    let dicom = "[dicom]\nlisten = \"127.0.0.1:104\"\nae_titles = [\"A\"]\n\
                 allow = [{ ae_title = \"B\" }]\n";
    let changes = changes(&good(text), &good(&format!("{text}{dicom}")));
    assert!(matches!(&changes[..], [Change::NeedsRestart { key, .. }] if key == "dicom"));
}

#[test]
fn receivers_of_steps_and_times_of_routes_are_checked_with_what_they_stand_beside() {
    let route = "[[route]]\nname = 'r'\nto = ['f']\n";
    let orders = |more: &str, route_more: &str| {
        format!(
            "[node]\nname = 'n'\n[dicom]\nlisten = '0.0.0.0:104'\nae_titles = ['A']\n\
             allow = [{{ address = '10.0.0.1' }}]\n[orders]\n{more}\n\
             [[destination]]\nname = 'f'\nkind = 'folder'\npath = '/f'\n{route}{route_more}"
        )
    };
    let ris = "{ name = 'ris', address = 'ris:104', ae_title = 'RIS' }";
    let config = good(&orders(&format!("steps.pass_on_to = [{ris}]"), "quiet = '1h'"));
    let receiver = &config.orders.as_ref().unwrap().steps.pass_on_to[0];
    assert_eq!((receiver.calling_ae.as_str(), receiver.name.as_str()), ("A", "ris"));
    assert_eq!(config.routes.rules()[0].times.quiet, Some(Duration::from_secs(3600)));
    let wrong = |text: &str| words(&parse(text).unwrap_err());
    let twice = wrong(&orders(&format!("steps.pass_on_to = [{ris}, {ris}]"), ""));
    assert!(twice.contains("names ris twice"), "{twice}");
    // What a route leaves out stands in [orders].
    let odd = wrong(&orders("settle = '5m'", "quiet = '2m'"));
    assert!(odd.contains("route[0]") && odd.contains("settle"), "{odd}");
    let none = orders("", "quiet = '2m'").replace("[orders]", "");
    assert!(wrong(&none).contains("keeps no orders"));
}

#[test]
fn routes_in_another_order_are_a_change() {
    let (before, after) = HOSPITAL.split_at(HOSPITAL.find("[[route]]").unwrap());
    let (first, second) = after.split_at(after[1..].find("[[route]]").unwrap() + 1);
    let turned = good(&format!("{before}{second}{first}"));
    assert_eq!(changes(&good(HOSPITAL), &turned), [Change::Applied { key: "route".into() }]);
}

/// A folder with a CA, a certificate for `st-elsewhere`, its key, and the configuration.
fn site(days: i64) -> tempfile::TempDir {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    };
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["st-elsewhere".into()]).unwrap();
    let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let end = x509_parser::time::ASN1Time::from_timestamp(end as i64 + days * 86_400 + 3600);
    params.not_after = end.unwrap().to_datetime();
    let key = KeyPair::generate().unwrap();
    write("node.crt", params.signed_by(&key, &ca).unwrap().pem());
    write("node.key", key.serialize_pem());
    write("other.key", KeyPair::generate().unwrap().serialize_pem());
    write("ca.crt", ca.pem());
    write("bad.crl", "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n".into());
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let node = format!("name = \"st-elsewhere\"\ndata = \"{}\"", data.display());
    write("h.toml", HOSPITAL.replacen("name = \"st-elsewhere\"", &node, 1));
    folder
}

fn load_after(folder: &tempfile::TempDir, from: &str, to: &str) -> Read {
    let path = folder.path().join("h.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    let read = Config::load(&path);
    std::fs::write(&path, text).unwrap();
    read
}

#[test]
fn certificates_and_keys_that_fit_are_loaded_without_a_word() {
    let (_, warnings) = load_after(&site(365), "[node]", "[node]").unwrap();
    assert_eq!(warnings, []);
}

#[test]
fn certificates_and_keys_that_do_not_fit_are_problems() {
    let folder = site(365);
    for (from, to, expected) in [
        ("name = \"st-elsewhere\"", "name = \"other\"", "has the name st-elsewhere, not other"),
        ("node.key", "other.key", "is not the key of"),
        ("node.key", "ca.crt", "holds no private key"),
        ("\"ca.crt\"", "\"node.key\"", "holds no certificate"),
        ("\"ca.crt\"", "\"none.crt\"", "cannot be read"),
        ("/data\"", "/h.toml\"", "is no folder"),
        ("trust =", "crl = \"ca.crt\"\ntrust =", "holds no revocation list"),
        ("trust =", "crl = [\"bad.crl\"]\ntrust =", "bad.crl cannot be used"),
    ] {
        let said = words(&load_after(&folder, from, to).unwrap_err());
        assert!(said.contains(expected), "{to}: {said}");
    }
}

#[test]
fn commands_that_only_ask_need_no_key_file() {
    let folder = site(365);
    std::fs::remove_file(folder.path().join("node.key")).unwrap();
    assert!(Config::load(&folder.path().join("h.toml")).is_err());
    assert!(Config::read(&folder.path().join("h.toml")).is_ok());
    assert!(Config::read(&folder.path().join("none.toml")).is_err());
}

#[test]
fn a_node_starts_with_a_certificate_that_ends_soon_or_has_ended_but_says_so() {
    for (days, expected) in [(10, "expires in 10 days"), (-10, "has expired")] {
        let (_, warnings) = load_after(&site(days), "[node]", "[node]").unwrap();
        assert!(words(&warnings).contains(expected), "{}", words(&warnings));
    }
}

#[test]
fn a_key_that_everybody_can_read_and_a_missing_folder_are_warnings() {
    let folder = site(365);
    let key = folder.path().join("node.key");
    std::fs::set_permissions(key, PermissionsExt::from_mode(0o644)).unwrap();
    let (_, warnings) = load_after(&folder, "/data\"", "/new\"").unwrap();
    assert!(words(&warnings).contains("every user of this machine can read"));
    assert!(words(&warnings).contains("/new does not exist"));
}

#[test]
fn a_credential_that_is_not_there_outside_the_service_is_a_warning() {
    let credential = "\"$CREDENTIALS_DIRECTORY/node.key\"";
    let (_, warnings) = load_after(&site(365), "\"node.key\"", credential).unwrap();
    assert!(words(&warnings).contains("$CREDENTIALS_DIRECTORY is not set here"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "[\\[\\]a-z=\"{}, .\n0-9#]{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_value_in_any_place_panics(
        place in 0usize..12,
        value in prop_oneof![
            Just("1".to_owned()), Just("-1.5".into()), Just("true".into()), Just("[]".into()),
            Just("[[1]]".into()), Just("{ a = 1 }".into()), Just("[{ a = [1] }]".into()),
            Just("1979-05-27".into()), "\"[a-z0-9:./ *%]{0,12}\"".prop_map(|s| s)
        ]
    ) {
        let key = ["node.name", "node.log", "dicom.allow", "dicom.ae_titles", "dicom.limits.pdu",
            "spool.high_watermark", "tunnel.peers", "destination", "route", "drain", "dicom.tls",
            "ops.listen"][place];
        let _ = parse(&format!("{key} = {value}\n"));
    }
}
