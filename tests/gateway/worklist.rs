//! The modality worklist both ways: orders of a node asked for by dcmtk and pynetdicom, and worklists
//! of dcmtk's `wlmscpfs` and of pynetdicom that a node asks.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use hikyaku::dicom::dataset;
use hikyaku::dicom::text::Repertoire;
use serde_json::{Value, json};

use crate::ending::Program;
use crate::foreign::{modality, modality_with, python};
use crate::hl7::{Order, Ris, code};
use crate::ports;
use crate::sender::{new_study, send_study};
use crate::site::{HOSPITAL, Node, Plan, Port, READING, Site, run, text, until};

const EXPLICIT: &str = "1.2.840.10008.1.2.1";

fn plan(site: &Site) -> Plan {
    site.lone().orders().folder_destination("folder").route_all("folder")
}

/// An order with a scheduled step, as OMI^O23 has it.
struct Step<'a> {
    number: &'a str,
    patient: &'a str,
    names: &'a str,
    /// `YYYYMMDDHHMM`.
    at: &'a str,
    /// S, A, R.
    priority: &'a str,
    modality: &'a str,
    station: &'a str,
    procedure: &'a str,
    study: &'a str,
}

impl Default for Step<'_> {
    fn default() -> Self {
        Self {
            number: "P1",
            patient: "4711",
            names: "YAMADA^TARO",
            at: "202611271030",
            priority: "R",
            modality: "CT",
            station: "CT1",
            procedure: "CT HEAD",
            study: "",
        }
    }
}

impl Step<'_> {
    fn write(&self, charset: &str) -> String {
        let Step { number, patient, names, at, priority, modality, station, procedure, study } =
            self;
        format!(
            "MSH|^~\\&|RIS|EAST|HIKYAKU|X|||OMI^O23|{number}|P|2.5.1||||||{charset}\r\
             PID|||{patient}||{names}||19500101|M\r\
             PV1||O||||||7^SUZUKI^ICHIRO\r\
             AL1|1||^penicillin\r\
             ORC|NW|{number}|F{number}|||||||||8^SATO^JIRO|||||DEPT^Neurology\r\
             TQ1|1||||||{at}||{priority}\r\
             OBR|1|{number}|F{number}|CODE^{procedure}|||||||||headache||||||||||||||||||^vertigo\r\
             NTE|1||second line\r\
             IPC|A{number}|RP{number}|{study}|SP{number}|{modality}|^head plain|NAME1|ROOM2|{station}\r"
        )
    }

    fn send(&self, node: &Node) {
        assert_eq!(Ris::connect(node).ask(&self.write("UNICODE UTF-8")), "AA");
    }
}

/// What pynetdicom is answered, the matches and the last status.
fn find(port: u16, data: &Value) -> (Vec<Value>, Vec<String>) {
    let lines = modality(port, &json!([{ "do": "find", "data": data }]));
    let statuses = lines.iter().filter_map(|l| l["status"].as_str().map(str::to_owned)).collect();
    let found = lines.iter().map(|l| l["data"].clone()).filter(|d| !d.is_null()).collect();
    (found, statuses)
}

/// Accession numbers that a query finds, in order.
fn accessions(node: &Node, keys: &Value, step: &Value) -> Vec<String> {
    let mut data = keys.clone();
    data["AccessionNumber"] = keys.get("AccessionNumber").cloned().unwrap_or_else(|| "".into());
    data["ScheduledProcedureStepSequence"] = json!([step]);
    let (found, statuses) = find(node.port(Port::Dicom), &data);
    assert_eq!(statuses.last().map(String::as_str), Some("0000"), "{statuses:?}");
    let accession = |d: &Value| d["AccessionNumber"].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<String> = found.iter().map(accession).collect();
    all.sort();
    all
}

fn order(node: &Node, number: &str) -> Value {
    node.ask(&["order", "show", number])[0].clone()
}

#[test]
fn orders_are_found_by_every_key_of_the_worklist_and_by_nothing_else() {
    let site = Site::new();
    let node = plan(&site).start();
    Step::default().send(&node);
    let mr = Step {
        number: "P2",
        patient: "4712",
        names: "SUZUKI^HANAKO~鈴木^花子",
        at: "202611281500",
        priority: "S",
        modality: "MR",
        station: "MR1",
        ..Step::default()
    };
    mr.send(&node);
    Step { number: "P3", at: "20261129", station: "", ..Step::default() }.send(&node);
    let all = ["AP1", "AP2", "AP3"];
    let cases = [
        (json!({ "PatientID": "4711" }), json!({}), vec!["AP1", "AP3"]),
        (json!({ "PatientID": "47*" }), json!({}), all.to_vec()),
        (json!({ "PatientName": "suzuki*" }), json!({}), vec!["AP2"]),
        (
            json!({ "SpecificCharacterSet": "ISO_IR 192", "PatientName": "*鈴木*" }),
            json!({}),
            vec!["AP2"],
        ),
        (json!({ "PatientName": "SUZUKI" }), json!({}), vec![]),
        (json!({ "AccessionNumber": "AP2" }), json!({}), vec!["AP2"]),
        (json!({ "RequestedProcedureID": "RPP3" }), json!({}), vec!["AP3"]),
        (json!({}), json!({ "Modality": "MR" }), vec!["AP2"]),
        (json!({}), json!({ "ScheduledStationAETitle": "CT1" }), vec!["AP1", "AP3"]),
        (json!({}), json!({ "ScheduledProcedureStepStartDate": "20261128" }), vec!["AP2"]),
        (
            json!({}),
            json!({ "ScheduledProcedureStepStartDate": "20261127-20261128" }),
            vec!["AP1", "AP2"],
        ),
        (json!({}), json!({ "ScheduledProcedureStepStartDate": "20261128-" }), vec!["AP2", "AP3"]),
        (json!({}), json!({ "ScheduledProcedureStepStartDate": "-20261231" }), all.to_vec()),
        (
            json!({}),
            json!({ "ScheduledProcedureStepStartDate": "20261127-20261128",
                    "ScheduledProcedureStepStartTime": "1100-1600" }),
            vec!["AP2"],
        ),
        (json!({ "PatientID": "4711" }), json!({ "Modality": "MR" }), vec![]),
    ];
    for (keys, step, expected) in &cases {
        assert_eq!(&accessions(&node, keys, step), expected, "{keys} {step}");
    }
    // A list of UIDs, and a key that is not matched.
    let uids: Vec<Value> = ["P1", "P2"]
        .iter()
        .map(|n| {
            let (found, _) = find(
                node.port(Port::Dicom),
                &json!({ "AccessionNumber": format!("A{n}"), "StudyInstanceUID": "" }),
            );
            found[0]["StudyInstanceUID"].clone()
        })
        .collect();
    assert_eq!(accessions(&node, &json!({ "StudyInstanceUID": uids }), &json!({})), ["AP1", "AP2"]);
    let (_, statuses) =
        find(node.port(Port::Dicom), &json!({ "AccessionNumber": "AP1", "PatientSex": "M" }));
    assert_eq!(statuses, ["FF01", "0000"]);
    let bad = json!({ "ScheduledProcedureStepSequence":
        [{ "ScheduledProcedureStepStartTime": "noon" }] });
    assert_eq!(find(node.port(Port::Dicom), &bad).1, ["A900"]);
    // What has ended is shown no more, and what is counted names nobody.
    let cancel =
        Order { id: "9", control: "CA", number: "P2", patient: "4712", ..Order::default() };
    assert_eq!(Ris::connect(&node).ask(&cancel.write()), "AA");
    assert_eq!(accessions(&node, &json!({}), &json!({})), ["AP1", "AP3"]);
    node.reaches("hikyaku_worklist_matches_total", &[], 20.0);
    assert!(!node.log().contains("YAMADA") && !node.log().contains("4711"));
}

#[test]
fn an_answer_says_all_that_was_ordered_with_what_is_mandatory() {
    let site = Site::new();
    let node = plan(&site).start();
    let names = "YAMADA^TARO~山田^太郎~やまだ^たろう";
    Step { names, priority: "S", ..Step::default() }.send(&node);
    let optional = json!({
        "AdditionalPatientHistory": "", "ReasonForTheRequestedProcedure": "",
        "RequestingService": "", "PlacerOrderNumberImagingServiceRequest": "",
        "FillerOrderNumberImagingServiceRequest": "", "InstitutionName": "",
        "ScheduledProcedureStepSequence": [{ "ScheduledProcedureStepStatus": "" }],
    });
    let (found, _) = find(node.port(Port::Dicom), &optional);
    let item = &found[0];
    for (keyword, value) in [
        ("PatientName", "YAMADA^TARO=山田^太郎=やまだ^たろう"),
        ("PatientID", "4711"),
        ("IssuerOfPatientID", "SITE"),
        ("PatientBirthDate", "19500101"),
        ("PatientSex", "M"),
        ("AccessionNumber", "AP1"),
        ("RequestedProcedureID", "RPP1"),
        ("RequestedProcedureDescription", "CT HEAD"),
        ("RequestedProcedurePriority", "STAT"),
        ("RequestingPhysician", "SATO^JIRO"),
        ("ReferringPhysicianName", "SUZUKI^ICHIRO"),
        ("RequestingService", "Neurology"),
        ("ReasonForTheRequestedProcedure", "vertigo"),
        ("AdditionalPatientHistory", "headache\nsecond line"),
        ("Allergies", "penicillin"),
        ("PlacerOrderNumberImagingServiceRequest", "P1"),
        ("FillerOrderNumberImagingServiceRequest", "FP1"),
        ("InstitutionName", "lone"),
        ("PatientState", ""),
    ] {
        assert_eq!(item[keyword], value, "{keyword}: {item}");
    }
    let step = &item["ScheduledProcedureStepSequence"][0];
    for (keyword, value) in [
        ("ScheduledStationAETitle", "CT1"),
        ("ScheduledProcedureStepStartDate", "20261127"),
        ("ScheduledProcedureStepStartTime", "103000"),
        ("Modality", "CT"),
        ("ScheduledProcedureStepID", "SPP1"),
        ("ScheduledStationName", "NAME1"),
        ("ScheduledProcedureStepLocation", "ROOM2"),
        ("ScheduledProcedureStepStatus", "SCHEDULED"),
    ] {
        assert_eq!(step[keyword], value, "{keyword}: {step}");
    }
    let code = &item["RequestedProcedureCodeSequence"][0];
    assert_eq!(code["CodeMeaning"], "CT HEAD");
}

/// `findscu -W` with these keys; what it was answered, one file for each match.
fn findscu(site: &Site, port: u16, keys: &[&[u8]]) -> (Vec<Vec<u8>>, String) {
    use std::os::unix::ffi::OsStrExt;
    let folder = site.path().join(format!("found-{}", ports::free()));
    fs::create_dir(&folder).expect("a folder");
    let mut command = Command::new("findscu");
    command.args(["-v", "-W", "-X", "-aec", "HIKYAKU", "127.0.0.1", &port.to_string()]);
    command.current_dir(&folder);
    for key in keys {
        command.arg("-k").arg(std::ffi::OsStr::from_bytes(key));
    }
    let output = run(&mut command);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let files = fs::read_dir(&folder).expect("a folder").map(|e| e.expect("an entry").path());
    (files.map(|file| fs::read(file).expect("a match")).collect(), said)
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

#[test]
fn kanji_whose_bytes_are_delimiters_come_out_of_the_worklist_as_they_came_in_by_hl7() {
    let site = Site::new();
    let node = plan(&site).start();
    let step =
        Step {
            names: "KOTSU^YAMA~骨画像^山本", procedure: "骨画像 山本", ..Step::default()
        };
    let message = step.write("~ISO IR87");
    let (bytes, _, lost) = encoding_rs::ISO_2022_JP.encode(&message);
    assert!(!lost && has(&bytes, b"\x1b$B9|2hA|"), "it is ISO-2022-JP");
    assert_eq!(code(&Ris::connect(&node).send(&bytes)), "AA");
    Step { number: "P2", ..Step::default() }.send(&node);
    let (name, _, _) = encoding_rs::ISO_2022_JP.encode("PatientName=*骨画像*");
    let (expected, _, _) = encoding_rs::ISO_2022_JP.encode("KOTSU^YAMA=骨画像^山本");
    let procedure = "骨画像 山本".as_bytes();
    let cases: [(&[u8], &[u8], &[u8]); 2] = [
        (b"SpecificCharacterSet=\\ISO 2022 IR 87", &name, &expected),
        (
            b"SpecificCharacterSet=ISO_IR 192",
            "PatientName=*骨画像*".as_bytes(),
            "KOTSU^YAMA=骨画像^山本".as_bytes(),
        ),
    ];
    for (charset, name, expected) in cases {
        let keys = [charset, name, b"AccessionNumber", b"RequestedProcedureDescription"];
        let (found, said) = findscu(&site, node.port(Port::Dicom), &keys);
        assert_eq!(found.len(), 1, "{said}");
        assert!(has(&found[0], expected) && has(&found[0], b"AP1"), "{charset:?}");
        assert!(said.contains("Final Find Response (Success)"), "{said}");
    }
    let (found, _) = findscu(&site, node.port(Port::Dicom), &[b"AccessionNumber=AP1"]);
    assert!(has(&found[0], procedure), "others get Unicode");
}

#[test]
fn images_under_the_uid_that_the_worklist_gave_find_their_order_also_after_a_kill() {
    let site = Site::new();
    let node = plan(&site).start();
    // An order that says neither study nor procedure nor step nor time.
    assert_eq!(Ris::connect(&node).ask(&Order::default().write()), "AA");
    let ask = json!({ "PatientID": "ORACLE", "StudyInstanceUID": "" });
    let (found, _) = find(node.port(Port::Dicom), &ask);
    let study = found[0]["StudyInstanceUID"].as_str().expect("a UID").to_owned();
    let step = &found[0]["ScheduledProcedureStepSequence"][0];
    for keyword in ["ScheduledProcedureStepID", "ScheduledProcedureStepStartDate", "Modality"] {
        assert!(!step[keyword].as_str().unwrap_or_default().is_empty(), "{step}");
    }
    assert_eq!(step["ScheduledStationAETitle"], "CT1", "it is whoever's who asks");
    node.kill();
    node.start();
    assert_eq!(find(node.port(Port::Dicom), &ask).0, found, "the same after a kill");
    // The RIS gives a UID of its own after the modality has taken ours.
    let late = Order { id: "2", control: "XO", study: "1.2.3.4", ..Order::default() };
    assert_eq!(Ris::connect(&node).ask(&late.write()), "AA");
    send_study(&node, &study, 1..3);
    until("the images have found their order", || {
        node.ask(&["study", &study])["cases"][0]["matched"]["order"]["number"] == "P1"
    });
}

#[test]
fn orders_of_two_hospitals_are_on_the_reading_centres_worklist_and_stay_apart() {
    let site = Site::new();
    let reading = site
        .reading()
        .awaits("clinic")
        .dicom()
        .orders()
        .set("orders", "expected = false\npatient_issuer = \"READING\"")
        .start();
    let tunnel = reading.port(Port::Tunnel);
    let hospital = site.hospital(tunnel).orders().start();
    let everything = format!("name = \"everything\"\nto = [{READING:?}]");
    let clinic = site.node("clinic").dicom().dials(READING, tunnel).table("route", &everything);
    let hl7 = format!("listen = \"127.0.0.1:{}\"\nallow = [\"127.0.0.1\"]", clinic.port(Port::Hl7));
    let clinic = clinic.set("orders", "time_zone = \"Asia/Tokyo\"").set("orders.hl7", &hl7).start();
    Step::default().send(&hospital);
    // The same numbers at another site, which does not say who gives them.
    Step { names: "OTHER^PERSON", ..Step::default() }.send(&clinic);
    let ask = json!({ "PatientID": "4711", "InstitutionName": "", "IssuerOfPatientID": "",
                      "StudyInstanceUID": "" });
    let mut found = Vec::new();
    until("both orders are there", || {
        found = find(reading.port(Port::Dicom), &ask).0;
        found.len() == 2
    });
    let by = |name: &str| found.iter().find(|d| d["InstitutionName"] == name).expect("an origin");
    let (one, other) = (by(HOSPITAL), by("clinic"));
    assert_eq!(
        (&one["IssuerOfPatientID"], &one["PatientName"]),
        (&json!("SITE"), &json!("YAMADA^TARO"))
    );
    assert_eq!(other["IssuerOfPatientID"], "clinic");
    assert_ne!(one["StudyInstanceUID"], other["StudyInstanceUID"]);
    // The hospital gives the same study UID as the reading centre.
    let own = find(hospital.port(Port::Dicom), &ask).0;
    assert_eq!(own[0]["StudyInstanceUID"], one["StudyInstanceUID"]);
    let only = json!({ "PatientID": "4711", "IssuerOfPatientID": "SITE" });
    assert_eq!(find(reading.port(Port::Dicom), &only).0.len(), 1);
    let only = json!({ "InstitutionName": "clinic" });
    assert_eq!(find(reading.port(Port::Dicom), &only).0.len(), 1);
}

/// An item of a RIS's worklist, `accession` being its number.
fn item(accession: &str, patient: &str, name: &str, station: &str, study: &str) -> Vec<u8> {
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::get("Asia/Tokyo").unwrap());
    let mut step = InMemDicomObject::new_empty();
    let put = |set: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str| {
        set.put(DataElement::new(tag, vr, value));
    };
    put(&mut step, tags::MODALITY, VR::CS, "CT");
    put(&mut step, tags::SCHEDULED_STATION_AE_TITLE, VR::AE, station);
    let day = today.strftime("%Y%m%d").to_string();
    put(&mut step, tags::SCHEDULED_PROCEDURE_STEP_START_DATE, VR::DA, &day);
    put(&mut step, tags::SCHEDULED_PROCEDURE_STEP_START_TIME, VR::TM, "101500");
    put(&mut step, tags::SCHEDULED_PERFORMING_PHYSICIAN_NAME, VR::PN, "DOCTOR");
    put(&mut step, tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION, VR::LO, "頭部単純");
    put(&mut step, tags::SCHEDULED_PROCEDURE_STEP_ID, VR::SH, &format!("SP{accession}"));
    let mut set = InMemDicomObject::new_empty();
    put(&mut set, tags::ACCESSION_NUMBER, VR::SH, accession);
    put(&mut set, tags::PATIENT_NAME, VR::PN, name);
    put(&mut set, tags::PATIENT_ID, VR::LO, patient);
    put(&mut set, tags::PATIENT_BIRTH_DATE, VR::DA, "19500101");
    put(&mut set, tags::PATIENT_SEX, VR::CS, "M");
    put(&mut set, tags::STUDY_INSTANCE_UID, VR::UI, study);
    put(&mut set, tags::REQUESTED_PROCEDURE_DESCRIPTION, VR::LO, "頭部CT");
    put(&mut set, tags::REQUESTED_PROCEDURE_ID, VR::SH, &format!("RP{accession}"));
    put(&mut set, tags::REQUESTED_PROCEDURE_PRIORITY, VR::CS, "HIGH");
    let steps = DataSetSequence::from(vec![step]);
    set.put(DataElement::new(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE, VR::SQ, steps));
    dataset::write(&set, EXPLICIT, Repertoire::JAPANESE).expect("a data set")
}

/// dcmtk's worklist server over a folder of files.
struct Wlmscpfs {
    port: u16,
    folder: PathBuf,
    program: Option<Program>,
}

impl Wlmscpfs {
    fn start(site: &Site) -> Self {
        let folder = site.path().join("worklists");
        fs::create_dir_all(folder.join("RIS")).expect("a folder");
        fs::write(folder.join("RIS/lockfile"), "").expect("a lock file");
        let mut ris = Self { port: ports::free(), folder, program: None };
        ris.up();
        ris
    }

    fn up(&mut self) {
        let mut command = Command::new("wlmscpfs");
        command.args(["-csk", "-dfr", "-dfp"]).arg(&self.folder).arg(self.port.to_string());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.program = Some(Program::start(&mut command));
    }

    fn down(&mut self) {
        self.program = None;
    }

    fn put(&self, name: &str, item: &[u8]) {
        let path = self.folder.join("RIS").join(format!("{name}.wl"));
        let whole = path.with_extension("new");
        fs::write(&whole, part10(item)).expect("a file");
        fs::rename(whole, path).expect("a file");
    }
}

/// A worklist file: file meta information with a transfer syntax alone, which dcmtk takes.
fn part10(item: &[u8]) -> Vec<u8> {
    let mut syntax = EXPLICIT.as_bytes().to_vec();
    syntax.push(0);
    let mut meta = b"\x02\0\x10\0UI".to_vec();
    meta.extend_from_slice(&u16::try_from(syntax.len()).expect("short").to_le_bytes());
    meta.extend_from_slice(&syntax);
    let mut file = [&[0; 128][..], b"DICM\x02\0\0\0UL\x04\0"].concat();
    file.extend_from_slice(&u32::try_from(meta.len()).expect("short").to_le_bytes());
    [file, meta, item.to_vec()].concat()
}

fn polls(plan: Plan, port: u16, more: &str) -> Plan {
    let body = format!(
        "name = \"ris\"\naddress = \"127.0.0.1:{port}\"\nae_title = \"RIS\"\nevery = \"1s\"\n{more}"
    );
    plan.table("orders.worklist", &body)
}

fn worklist(node: &Node) -> Value {
    node.status()["worklists"][0].clone()
}

/// Waits until so many more polls have been taken whole.
fn wait_polls(node: &Node, more: f64) {
    let whole = || node.metric("hikyaku_worklist_polls_total", &["outcome=\"whole\""]);
    let before = whole();
    until("the worklist is polled again", || whole() >= before + more);
}

#[test]
fn orders_of_a_polled_worklist_are_kept_once_changed_once_and_found_by_their_images() {
    let site = Site::new();
    let ris = Wlmscpfs::start(&site);
    let study = new_study();
    ris.put("one", &item("A1", "ORACLE", "YAMADA^TARO=骨画像^山本", "CT1", &study));
    ris.put("two", &item("A2", "4712", "SUZUKI", "CT2", "1.2.3.2"));
    let node = polls(plan(&site), ris.port, "").start();
    until("both orders are known", || node.ask(&["orders"]).as_array().map(Vec::len) == Some(2));
    let shown = order(&node, "A1");
    assert_eq!(shown["content"]["patient"]["names"], json!(["YAMADA^TARO", "骨画像^山本"]));
    assert_eq!(shown["content"]["patient"]["ids"][0]["authority"]["namespace"], "SITE");
    assert_eq!(shown["content"]["urgency"], "urgent");
    assert_eq!(shown["content"]["procedures"][0]["description"], "頭部単純");
    assert_eq!(shown["source"], "worklist ris");
    // The same again changes nothing, also after a kill between two polls.
    wait_polls(&node, 2.0);
    node.kill();
    node.start();
    wait_polls(&node, 2.0);
    assert_eq!(order(&node, "A1"), shown);
    assert_eq!(node.ask(&["orders"]).as_array().map(Vec::len), Some(2));
    assert!(node.metric("hikyaku_worklist_items_total", &["done=\"new\""]) < 0.5);
    node.reaches("hikyaku_worklist_items_total", &["done=\"same\""], 3.5);
    // A change is taken; an item that vanishes changes nothing.
    ris.put("one", &item("A1", "ORACLE", "YAMADA^TARO=骨画像^山本", "CT9", &study));
    fs::remove_file(ris.folder.join("RIS/two.wl")).expect("a file");
    until("the change is known", || {
        order(&node, "A1")["content"]["procedures"][0]["stations"] == json!(["CT9"])
    });
    wait_polls(&node, 1.0);
    assert_eq!(order(&node, "A2")["state"], "requested");
    assert_eq!(order(&node, "A1")["version"], 2);
    // The order is on this node's own worklist, and its images find it.
    let (found, _) =
        find(node.port(Port::Dicom), &json!({ "AccessionNumber": "A1", "StudyInstanceUID": "" }));
    assert_eq!(found[0]["StudyInstanceUID"], study.as_str());
    assert_eq!(found[0]["PatientName"], "YAMADA^TARO=骨画像^山本");
    send_study(&node, &study, 1..3);
    until("the images have found their order", || {
        node.ask(&["study", &study])["cases"][0]["matched"]["order"]["number"] == "A1"
    });
    assert!(!node.log().contains("YAMADA"), "nobody is named in the log");
}

#[test]
fn a_worklist_does_not_overrule_what_hl7_says_of_the_same_order() {
    let site = Site::new();
    let ris = Wlmscpfs::start(&site);
    let node = polls(plan(&site), ris.port, "").start();
    let of = |id, control, study| Order { id, control, accession: "A1", study, ..Order::default() };
    assert_eq!(Ris::connect(&node).ask(&of("1", "NW", "1.2.3.1").write()), "AA");
    ris.put("one", &item("A1", "ORACLE", "YAMADA", "CT1", "1.2.3.9"));
    until("the worklist has added what HL7 did not say", || {
        order(&node, "P1")["content"]["procedures"][0]["stations"] == json!(["CT1"])
    });
    let shown = order(&node, "P1");
    assert_eq!(
        shown["content"]["studies"],
        json!(["1.2.3.1", "1.2.3.9"]),
        "images may bear either"
    );
    assert_eq!(shown["content"]["urgency"], "routine", "HL7 has said so");
    assert_eq!(node.ask(&["orders"]).as_array().map(Vec::len), Some(1), "it is one order");
    assert_eq!(Ris::connect(&node).ask(&of("2", "CA", "").write()), "AA");
    wait_polls(&node, 2.0);
    assert_eq!(order(&node, "P1")["state"], "cancelled");
}

#[test]
fn a_dead_ris_and_an_answer_that_is_not_whole_are_told_until_they_are_mended() {
    let site = Site::new();
    let mut ris = Wlmscpfs::start(&site);
    ris.put("one", &item("A1", "4711", "A", "CT1", "1.2.3.1"));
    ris.put("two", &item("A2", "4712", "B", "CT1", "1.2.3.2"));
    let node = polls(plan(&site), ris.port, "limit = 1").start();
    until("it is told that there is more", || {
        worklist(&node)["trouble"].as_str().unwrap_or_default().contains("limit")
    });
    assert_eq!(worklist(&node)["last_success"], Value::Null, "it was never whole");
    assert!(node.metric("hikyaku_worklist_last_success_seconds", &[]) < 1.0);
    node.edit(|plan| polls(plan.without("orders.worklist", "ris"), ris.port, ""));
    node.restart();
    until("it is whole", || worklist(&node)["last_success"].is_string());
    assert_eq!((&worklist(&node)["up"], &worklist(&node)["items"]), (&json!(true), &json!(2)));
    node.reaches("hikyaku_worklist_last_success_seconds", &["worklist=\"ris\""], 1e9);
    ris.down();
    until("it is told that the RIS is down", || worklist(&node)["up"] == json!(false));
    let shown = text(&node.cli(&["status"]).stdout);
    assert!(shown.contains("WORKLIST") && shown.contains("cannot connect"), "{shown}");
    node.reaches("hikyaku_worklist_polls_total", &["outcome=\"failed\""], 0.5);
    assert_eq!(node.ask(&["orders"]).as_array().map(Vec::len), Some(2), "nothing is lost by it");
    ris.up();
    until("it has recovered", || worklist(&node)["up"] == json!(true));
    assert_eq!(worklist(&node)["trouble"], Value::Null);
}

/// A RIS by pynetdicom that ends its answers with a status, and its port.
fn failing(status: &str) -> (Program, u16) {
    let mut command = python("services.py");
    command.args(["--final", status, "--matches", "2", "--charset", "\\ISO 2022 IR 87"]);
    Program::listening(command.stdin(Stdio::piped()))
}

#[test]
fn a_ris_that_answers_with_a_failure_is_told_with_its_status_and_items_without_number_are_refused()
{
    let site = Site::new();
    for (status, words) in [("A700", "A700"), ("C001", "C001"), ("B001", "B001")] {
        let (_ris, port) = failing(status);
        let name = format!("n{}", status.to_lowercase());
        let own =
            site.node(&name).dicom().orders().folder_destination("folder").route_all("folder");
        let node = polls(own, port, "modalities = [\"CT\"]\nstations = \"CT1\"").start();
        until(words, || worklist(&node)["trouble"].as_str().is_some_and(|t| t.contains(words)));
        node.reaches("hikyaku_worklist_items_total", &["done=\"refused\""], 1.5);
        assert!(!node.log().contains("Yamada"), "{}", node.log());
    }
}

#[test]
fn who_may_not_send_images_may_not_ask_for_the_worklist() {
    let site = Site::new();
    let node = plan(&site)
        .set("dicom", "allow = [{ ae_title = \"CT1\", address = \"127.0.0.1\" }]")
        .start();
    let port = node.port(Port::Dicom).to_string();
    let mut command = Command::new("findscu");
    command.args(["-v", "-W", "-aet", "STRANGER", "-aec", "HIKYAKU", "127.0.0.1", &port]);
    let output = run(command.args(["-k", "PatientName"]));
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(said.contains("Calling AE Title Not Recognized"), "{said}");
    let find = json!([{ "do": "find", "data": { "PatientName": "" } }]);
    let lines = modality_with(node.port(Port::Dicom), &["--ae", "CT1"], &find);
    assert_eq!(lines[0]["status"], "0000");
}
