//! Japanese text, from every set that reports come in to every set that they go home in. Names in
//! three representations come from the report itself: there is no order.

use std::fs;
use std::process::Command;

use encoding_rs::{ISO_2022_JP, SHIFT_JIS};
use serde_json::json;

use crate::api::Caller;
use crate::circle::{Circle, his};
use crate::foreign::python;
use crate::orthanc::Orthanc;
use crate::receiver::Receiver;
use crate::samples_home::{Facts, facts, lines, squeezed};
use crate::sender::{new_study, send_study};
use crate::site::{Node, Plan, Port, READING, Site, run_ok, until};

/// What every Japanese set has: second bytes that are `|`, `\`, `$`, `B` and `}` in one of them.
const COMMON: &str = "骨 像 本 表 ソ、能 予 十";
/// What JIS X 0201 has besides: half-width kana.
const KANA: &str = "ﾊﾝｶｸ ｶﾞｿﾞｳ｡";
/// What vendors have put into a free row of JIS X 0208: messages have it, documents are in UTF-8.
const VENDOR: &str = "髙";
const NAMES: [&str; 3] = ["YAMADA^TARO", "山田^太郎", "やまだ^たろう"];

/// `ESC ( I`: half-width kana in seven bits, which ISO-2022-JP of the web has not.
fn iso_2022_jp(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let is_kana = |c: char| ('\u{ff61}'..='\u{ff9f}').contains(&c);
    for c in text.chars() {
        let one = c.to_string();
        if is_kana(c) {
            out.extend_from_slice(b"\x1b(I");
            out.extend(SHIFT_JIS.encode(&one).0.iter().map(|b| b & 0x7f));
            out.extend_from_slice(b"\x1b(B");
        } else {
            let (bytes, _, lost) = ISO_2022_JP.encode(&one);
            assert!(!lost, "{c}");
            out.extend_from_slice(&bytes);
        }
    }
    out
}

/// An ORU^R01 in a set, by its name in MSH-18.
fn oru(study: &str, text: &[&str], set: &str, encode: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
    let [alphabetic, ideographic, phonetic] = NAMES;
    let observation =
        |(n, line): (usize, &&str)| format!("OBX|{}|TX|F^所見||{line}||||||F\r", n + 1);
    let lines: String = text.iter().enumerate().map(observation).collect();
    let at = "20261128101500+0900";
    encode(&format!(
        "MSH|^~\\&|READER|RC|HIKYAKU|X|{at}||ORU^R01|{study}|P|2.5||||||{set}\r\
         PID|||ORACLE^^^SITE||{alphabetic}^^^^^L^A~{ideographic}^^^^^L^I~{phonetic}^^^^^L^P\r\
         OBR|1|||CT^胸部CT||||||||||||||||||{at}|||F|||||||D1&読影&一郎\r{lines}\
         OBX|9|ST|113014^Study Instance UID^DCM||{study}||||||F\r"
    ))
}

/// Where reports come in, and the hospital's systems, one for each set.
struct Both {
    circle: Circle,
    caller: Caller,
    utf8: Receiver,
    jis: Receiver,
    pacs: Orthanc,
    site: Site,
}

impl Both {
    fn start() -> Self {
        let site = Site::new();
        let (utf8, jis, pacs) =
            (Receiver::start(&[]), Receiver::start(&[]), Orthanc::receiving(&site));
        let watched = site.path().join("watched");
        fs::create_dir(&watched).expect("a folder");
        let mut caller = None;
        let away = |plan: Plan| {
            let path = watched.display().to_string();
            let folder =
                format!("name = \"editor\"\npath = {path:?}\nsettle = \"1s\"\nevery = \"1s\"");
            let plan = plan
                .dicom()
                .set("reports", "issuer = \"SITE\"")
                .set("reports.hl7", "charset = \"SHIFT_JIS\"")
                .set("reports.dicom", "from = [\"DCMTK\"]")
                .table("reports.folder", &folder);
            let (plan, known) = Caller::at(plan, &site, READING);
            caller = Some(known);
            plan
        };
        let to_pacs = "reports = [\"structured\", \"pdf\"]\nreport_pages = true\n";
        let in_jis = format!("{to_pacs}[destination.report]\ncharset = \"ISO 2022 IR 87\"");
        let home = |plan: Plan| {
            let plan = his(plan, utf8.port(), "charset = \"UNICODE UTF-8\"");
            let body = format!(
                "name = \"his-jis\"\nkind = \"hl7\"\naddress = \"127.0.0.1:{}\"\n\
                 reports = [\"message\"]\ncharset = \"~ISO IR87\"",
                jis.port()
            );
            let plan = plan
                .table("destination", &body)
                .dicom_destination_with("pacs-utf8", pacs.port(), to_pacs)
                .dicom_destination_with("pacs-jis", pacs.port(), &in_jis);
            crate::circle::files(plan)
        };
        let circle = Circle::start_with(&site, away, home);
        let caller = caller.expect("a caller");
        Self { circle, caller, utf8, jis, pacs, site }
    }

    /// Images whose study both ends know, and no order.
    fn study(&self) -> String {
        let study = new_study();
        send_study(&self.circle.hospital, &study, 1..2);
        until("the image is there", || self.circle.reading.standing(&study)["arrived"] == 1);
        study
    }

    fn is_home(&self, study: &str) -> bool {
        let node: &Node = &self.circle.hospital;
        let story = self.circle.story(node, study);
        let all = story["row"]["destinations"].as_array().cloned().unwrap_or_default();
        all.len() == 5 && all.iter().all(|d| d[1] == "accepted")
    }

    fn stored(&self, study: &str) -> Vec<Facts> {
        let write = |instance: &String| {
            let path = self.site.path().join(format!("home-{instance}.dcm"));
            fs::write(&path, self.pacs.file(instance)).expect("a file");
            path
        };
        let files: Vec<_> = self.pacs.instances().iter().map(write).collect();
        let mut all = facts(&files);
        all.retain(|one| one.study == study);
        all
    }

    /// The text at every destination, to the character.
    fn check(&self, study: &str, text: &[&str], way: &str) {
        until(&format!("{way} is home"), || self.is_home(study));
        let of = |his: &Receiver| {
            let told = his.told();
            let told = told.iter().find(|t| t.fields["OBX-5"].iter().any(|v| v == study)).cloned();
            let told = told.expect("a message of the study");
            (told.field("MSH-18").to_owned(), told.field("PID-5").to_owned(), lines(&told))
        };
        let (set, names, said) = of(&self.utf8);
        assert_eq!(
            (&*set, said),
            ("UNICODE UTF-8", text.iter().map(|l| (*l).to_owned()).collect()),
            "{way}"
        );
        for name in NAMES {
            assert!(names.contains(name), "{way}: {names}");
        }
        // This set lacks kana: 〓, and told in the log.
        let lacks = |c: char| ('\u{ff61}'..='\u{ff9f}').contains(&c);
        let geta = |line: &&str| line.chars().map(|c| if lacks(c) { '〓' } else { c }).collect();
        let expected: Vec<String> = text.iter().map(geta).collect();
        let (set, names, said) = of(&self.jis);
        assert_eq!((&*set, &said), ("~ISO IR87", &expected), "{way}");
        for name in NAMES {
            assert!(names.contains(name), "{way}: {names}");
        }
        let joined = text.join("\n");
        let stored = self.stored(study);
        assert_eq!(stored.len(), 4, "{way}: {stored:?}");
        for one in &stored {
            assert_eq!(one.names, NAMES, "{way}: {one:?}");
            run_ok(Command::new("dcmftest").arg(&one.file));
            if one.class.contains(".88.") {
                assert_eq!(one.texts, std::slice::from_ref(&joined), "{way}: {one:?}");
            } else {
                self.check_pages(one, &joined, way);
            }
        }
        let folder = self.site.path().join("files/reports");
        let files = walk(&folder);
        let is_text = |file: &Vec<u8>| String::from_utf8_lossy(file).trim_end() == joined;
        assert!(files.iter().any(is_text), "{way}: no such text in the folder");
    }

    fn check_pages(&self, one: &Facts, joined: &str, way: &str) {
        let out = one.file.with_extension("pdf");
        let _ = fs::remove_file(&out);
        run_ok(Command::new("dcm2pdf").arg(&one.file).arg(&out));
        let read = squeezed(&run_ok(Command::new("pdftotext").arg(&out).arg("-")));
        assert!(read.contains(&squeezed(joined)), "{way}: {read}");
        assert!(read.contains("山田太郎"), "{way}: {read}");
    }

    /// The sets that the documents of a study are written in.
    fn sets(&self, study: &str) -> Vec<String> {
        let mut sets: Vec<String> = self
            .stored(study)
            .into_iter()
            .filter(|one| one.class.contains(".88."))
            .map(|one| one.charset)
            .collect();
        sets.sort();
        sets
    }
}

fn walk(folder: &std::path::Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(fs::read(path).expect("a file"));
        }
    }
    found
}

/// A way, its lines, MSH-18, and how its text is written.
type Case<'a> = (&'a str, &'a [&'a str], &'a str, &'a dyn Fn(&str) -> Vec<u8>);

#[test]
fn japanese_by_hl7_in_three_sets_comes_home_exactly_in_every_set() {
    let both = Both::start();
    let utf8 = |text: &str| text.as_bytes().to_vec();
    let sjis = |text: &str| SHIFT_JIS.encode(text).0.into_owned();
    let cases: [Case<'_>; 6] = [
        ("ISO-2022-JP", &[COMMON, "二行目"], "~ISO IR87", &iso_2022_jp),
        ("ISO-2022-JP with kana", &[COMMON, KANA], "~ISO IR13~ISO IR87", &iso_2022_jp),
        ("Shift_JIS as configured", &[COMMON, KANA], "", &sjis),
        ("Shift_JIS with 髙", &[COMMON, KANA, VENDOR], "", &sjis),
        ("UTF-8", &[COMMON, KANA], "UNICODE UTF-8", &utf8),
        ("UTF-8 with 髙", &[COMMON, KANA, VENDOR], "UNICODE UTF-8", &utf8),
    ];
    for (way, text, set, encode) in cases {
        let study = both.study();
        assert_eq!(both.circle.report(&[&oru(&study, text, set, encode)]), ["AA"], "{way}");
        both.check(&study, text, way);
        // Documents are in the archive's own set where that has all of it.
        let own = match (text.concat().contains(VENDOR), text.concat().contains(KANA)) {
            (true, _) => "ISO_IR 192",
            (_, true) => "ISO 2022 IR 13\\ISO 2022 IR 87",
            _ => "\\ISO 2022 IR 87",
        };
        let mut sets = vec![own.to_owned(), "ISO_IR 192".to_owned()];
        sets.sort();
        assert_eq!(both.sets(&study), sets, "{way}");
    }
    let log = both.circle.hospital.log();
    assert!(log.contains("its character set lacks what a report says"), "{log}");
    for node in [&both.circle.hospital, &both.circle.reading] {
        let log = node.log();
        let told = ["骨", "山田", "YAMADA", "髙"].iter().any(|word| log.contains(word));
        assert!(!told, "no patient and no text in the log");
    }
}

#[test]
fn japanese_by_c_store_by_the_folder_and_by_the_api_comes_home_exactly_in_every_set() {
    let both = Both::start();
    let port = both.circle.reading.port(Port::Dicom);
    let sets: [(&[&str], &[&str]); 4] = [
        (&["", "ISO 2022 IR 87"], &[COMMON, "二行目"]),
        (&["ISO 2022 IR 6", "ISO 2022 IR 87"], &[COMMON, "二行目"]),
        (&["ISO 2022 IR 13", "ISO 2022 IR 87"], &[COMMON, KANA]),
        (&["ISO_IR 192"], &[COMMON, KANA, VENDOR]),
    ];
    for (terms, text) in sets {
        let study = both.study();
        let said = json!({
            "charset": terms, "study": study, "patient": "ORACLE", "names": NAMES.join("="),
            "reader": "DOKUEI^ICHIRO=読影^一郎", "text": text.join("\n"),
            "written": "20261128101500",
        });
        let file = both.site.path().join(format!("{study}.dcm"));
        run_ok(python("documents.py").arg("sr").arg(&file).arg(said.to_string()));
        let (statuses, said) = crate::foreign::storescu(port, &[], &[&file]);
        assert_eq!(statuses, [0], "{said}");
        let way = format!("C-STORE in {terms:?}");
        // One document for both archives' names: it goes on as it came.
        both.check_structured(&study, text, &way, &terms.join("\\"));
    }
    let text = [COMMON, KANA, VENDOR];
    let study = both.study();
    let patient = json!({ "id": "ORACLE", "name": NAMES.join("=") });
    let said = json!({ "study": study, "patient": patient, "status": "final",
                       "signed_by": "DOKUEI^ICHIRO=読影^一郎" });
    let watched = both.site.path().join("watched");
    fs::write(watched.join("R1.txt"), text.join("\n")).expect("a file");
    fs::write(watched.join("R1.json"), said.to_string()).expect("a file");
    both.check(&study, &text, "the folder");
    let study = both.study();
    let said = json!({ "study": study, "patient": patient, "status": "final",
                       "signed_by": "DOKUEI^ICHIRO=読影^一郎", "text": text.join("\n") });
    let answer = both.caller.post("/reports", &said);
    assert_eq!(answer.code, 201, "{answer:?}");
    both.check(&study, &text, "the API");
}

impl Both {
    /// A structured report is one object in the archive, in the set in which it came.
    fn check_structured(&self, study: &str, text: &[&str], way: &str, set: &str) {
        until(&format!("{way} is home"), || self.is_home(study));
        let stored = self.stored(study);
        let joined = text.join("\n");
        let structured: Vec<&Facts> = stored.iter().filter(|s| s.class.contains(".88.")).collect();
        assert_eq!(structured.len(), 1, "{way}: {stored:?}");
        assert_eq!((&structured[0].texts[0], &*structured[0].charset), (&joined, set), "{way}");
        for one in &stored {
            assert_eq!(one.names, NAMES, "{way}: {one:?}");
            if !one.class.contains(".88.") {
                self.check_pages(one, &joined, way);
            }
        }
        let told = self.utf8.told();
        let told = told.iter().find(|t| t.fields["OBX-5"].iter().any(|v| v == study));
        let told = told.expect("a message");
        let said = squeezed(&lines(told).join(""));
        assert!(said.contains(&squeezed(&joined)), "{way}: {said}");
        NAMES.iter().for_each(|name| assert!(told.field("PID-5").contains(name), "{way}"));
        let is_text = |f: &Vec<u8>| squeezed(&String::from_utf8_lossy(f)) == said;
        assert!(walk(&self.site.path().join("files/reports")).iter().any(is_text), "{way}");
    }
}
