//! All structured reports, documents and messages of the test data go home and come out equal:
//! Orthanc and pynetdicom are the archives of the hospital, python-hl7 is its HIS; dcmtk, pydicom
//! and poppler say what is in what they got.
//!
//! `HIKYAKU_TEST_REPORTS` names a folder with further ones (`*.dcm`, `*.hl7`), for data whose
//! licence does not let it be copied here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::api::Caller;
use crate::circle::{Circle, his};
use crate::foreign::{Scp, python, storescu};
use crate::hl7::{Ris, samples};
use crate::orthanc::Orthanc;
use crate::part10::data;
use crate::receiver::{Receiver, Told};
use crate::sender::{Object, element, new_study, send_ok};
use crate::site::{Plan, Port, READING, Site, run, run_ok, text, until};

/// The hospital with all that takes reports there, and a reading centre that takes all forms.
pub(crate) struct Home {
    pub(crate) circle: Circle,
    pub(crate) his: Receiver,
    pub(crate) pacs: Orthanc,
    archive: Scp,
    direct: Scp,
    pub(crate) caller: Caller,
    pub(crate) dir: PathBuf,
}

/// A DICOM file as pydicom reads it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Facts {
    pub(crate) file: PathBuf,
    pub(crate) sop: String,
    pub(crate) class: String,
    pub(crate) study: String,
    pub(crate) patient: String,
    issuer: String,
    pub(crate) accession: String,
    pub(crate) charset: String,
    pub(crate) names: Vec<String>,
    pub(crate) words: Vec<String>,
    pub(crate) texts: Vec<String>,
}

/// An ORU^R01 as python-hl7 reads it.
#[derive(Debug, Clone, Deserialize)]
struct Values {
    file: PathBuf,
    placer: String,
    filler: String,
    patient: String,
    values: Vec<String>,
    documents: Vec<String>,
}

/// What a person decided about a document: the word of why it was held.
pub(crate) type Decided = Vec<String>;

const BASIC_TEXT: &str = "1.2.840.10008.5.1.4.1.1.88.11";
const PDF: &str = "1.2.840.10008.5.1.4.1.1.104.1";

/// Lines of JSON that `documents.py` prints.
fn told<T: for<'a> Deserialize<'a>>(what: &str, files: &[PathBuf]) -> Vec<T> {
    let out = run_ok(python("documents.py").arg(what).args(files));
    out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub(crate) fn facts(files: &[PathBuf]) -> Vec<Facts> {
    told("facts", files)
}

/// Without blanks and ends of lines: pages break lines, and messages make segments of them.
pub(crate) fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

/// A value of HL7 without escapes.
pub(crate) fn decoded(value: &str) -> String {
    let escapes =
        [("\\.br\\", "\n"), ("\\F\\", "|"), ("\\S\\", "^"), ("\\T\\", "&"), ("\\R\\", "~")];
    let text = escapes.iter().fold(value.to_owned(), |text, (from, to)| text.replace(from, to));
    text.replace("\\E\\", "\\")
}

/// OBX-5 of these types of value.
fn observed(told: &Told, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let [kinds, values] = ["OBX-2", "OBX-5"].map(|name| told.fields.get(name).cloned());
    let (kinds, values) = (kinds.unwrap_or_default(), values.unwrap_or_default());
    assert_eq!(kinds.len(), values.len(), "{told:?}");
    let all = kinds.iter().zip(values).filter(|(kind, _)| wanted(kind));
    all.map(|(_, value)| value).collect()
}

/// The lines of the text that a HIS was told.
pub(crate) fn lines(told: &Told) -> Vec<String> {
    let all = observed(told, |kind| kind == "TX" || kind == "FT");
    all.iter()
        .flat_map(|value| decoded(value).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// The documents that a HIS was told.
pub(crate) fn attached(told: &Told) -> Vec<Vec<u8>> {
    let of =
        |value: &String| STANDARD.decode(value.rsplit('^').next().expect("data")).expect("base64");
    observed(told, |kind| kind == "ED").iter().map(of).collect()
}

/// A program's output and whether it was content; the name of the file in it left out.
fn says(program: &str, file: &Path) -> (bool, String) {
    let output = run(Command::new(program).arg(file));
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.success(), said.replace(&file.display().to_string(), "FILE"))
}

/// An order by its numbers; `patient` is PID-3.
pub(crate) struct Ordered<'a> {
    pub(crate) placer: &'a str,
    pub(crate) filler: &'a str,
    pub(crate) patient: &'a str,
    pub(crate) accession: &'a str,
    pub(crate) study: &'a str,
}

impl Home {
    pub(crate) fn start(site: &Site, pages: bool) -> Self {
        let (his_of, pacs) = (Receiver::start(&[]), Orthanc::receiving(site));
        let (archive, direct) = (Scp::start(site, &[]), Scp::start(site, &[]));
        let watched = site.path().join("watched");
        fs::create_dir(&watched).expect("a folder");
        let mut caller = None;
        let away = |plan: Plan| {
            let folder = format!(
                "name = \"editor\"\npath = {:?}\nsettle = \"1s\"\nevery = \"1s\"",
                watched.display().to_string()
            );
            let plan = plan
                .dicom()
                .set("reports", "issuer = \"SITE\"\nunverified = \"final\"")
                .set(
                    "reports.hl7",
                    "processing_ids = [\"P\", \"T\", \"D\"]\ncharset = \"SHIFT_JIS\"",
                )
                .set("reports.dicom", "from = [\"DCMTK\"]")
                .table("reports.folder", &folder);
            let (plan, known) = Caller::at(plan, site, READING);
            caller = Some(known);
            plan
        };
        let archive_as = format!(
            "reports = [\"structured\", \"pdf\"]\nreport_pages = {pages}\nreport_preliminary = true"
        );
        let home = |plan: Plan| {
            let more = "charset = \"UNICODE UTF-8\"\nreport_preliminary = true";
            let plan = his(plan, his_of.port(), more)
                .dicom_destination_with("home-pacs", pacs.port(), &archive_as)
                .dicom_destination_with("archive", archive.port(), &archive_as);
            let body = "name = \"files\"\nkind = \"folder\"\npath = \"files\"\nreports = [\"files\"]\n\
                        report_preliminary = true";
            plan.table("destination", body)
        };
        let circle = Circle::start_with(site, away, home);
        let (caller, dir) = (caller.expect("a caller"), site.path().to_owned());
        Self { circle, his: his_of, pacs, archive, direct, caller, dir }
    }

    /// An order, and one image of its patient, at the reading centre too.
    pub(crate) fn order(&self, ordered: &Ordered<'_>) {
        let Ordered { placer, filler, patient, accession, study } = ordered;
        let message = format!(
            "MSH|^~\\&|RIS|EAST|HIKYAKU|X|||ORM^O01|{placer}|P|2.3.1||||||UNICODE UTF-8\r\
             PID|||{patient}\rORC|NW|{placer}|{filler}\r\
             OBR|1|{placer}|{filler}|CT^CT HEAD||||||||||||||{accession}\r\
             ZDS|{study}^RIS^Application^DICOM\r"
        );
        assert_eq!(Ris::connect(&self.circle.hospital).ask(&message), "AA", "{message}");
        let (mut data_set, sop) = (Vec::new(), new_study());
        element(&mut data_set, 0x0008_0016, *b"UI", "1.2.840.10008.5.1.4.1.1.2");
        element(&mut data_set, 0x0008_0018, *b"UI", &sop);
        element(&mut data_set, 0x0008_0060, *b"CS", "CT");
        let number = patient.split('^').next().unwrap_or_default();
        element(&mut data_set, 0x0010_0020, *b"LO", number);
        element(&mut data_set, 0x0020_000D, *b"UI", study);
        element(&mut data_set, 0x0020_000E, *b"UI", &format!("{sop}.1"));
        send_ok(self.circle.hospital.port(Port::Dicom), &[Object { sop, data_set }]);
        until("the study is whole at the reading centre", || {
            let standing = self.circle.reading.standing(study);
            standing["arrived"] == 1 && standing["progress"] == "presumed-complete"
        });
    }

    /// What is held at the reading centre.
    pub(crate) fn held(&self) -> Vec<Value> {
        let held = self.circle.reading.ask(&["reports", "--held"]);
        held.as_array().cloned().unwrap_or_default()
    }

    /// A person decides about what is held until it is all home: releases it, or says that it is
    /// of this study.
    pub(crate) fn bring(&self, study: &str, destinations: &[&str]) -> Decided {
        let mut decided = Vec::new();
        let start = Instant::now();
        until(&format!("the report of {study} is home"), || {
            for row in self.held() {
                let (document, why) = (row["document"].as_str(), row["reason"]["word"].as_str());
                let (document, why) = (document.expect("an id"), why.expect("a word"));
                // An order may come after it.
                if why == "no-match" && start.elapsed() < Duration::from_secs(6) {
                    continue;
                }
                let words = match why {
                    "unsigned" | "signer-unknown" => vec!["report", "release", document],
                    _ => vec!["report", "match", document, study],
                };
                if self.circle.reading.cli(&words).status.success() {
                    decided.push(why.to_owned());
                }
            }
            self.has(study, destinations)
        });
        decided
    }

    /// Whether all these have said yes to the report of a study, and both ends know.
    pub(crate) fn has(&self, study: &str, destinations: &[&str]) -> bool {
        [&self.circle.hospital, &self.circle.reading].iter().all(|node| {
            let story = self.circle.story(node, study);
            let all = story["row"]["destinations"].as_array().cloned().unwrap_or_default();
            let yes: BTreeSet<&str> =
                all.iter().filter(|d| d[1] == "accepted").filter_map(|d| d[0].as_str()).collect();
            let is_under_way = all.iter().any(|d| d[1] == "sent");
            destinations.iter().all(|name| yes.contains(name)) && !is_under_way
        })
    }

    /// What Orthanc has of a study, as files.
    pub(crate) fn stored(&self, study: &str) -> Vec<Facts> {
        let files: Vec<PathBuf> = self
            .pacs
            .instances()
            .iter()
            .map(|instance| {
                let path = self.dir.join(format!("home-{instance}.dcm"));
                fs::write(&path, self.pacs.file(instance)).expect("a file");
                path
            })
            .collect();
        let mut all = if files.is_empty() { vec![] } else { facts(&files) };
        all.retain(|one| one.study == study);
        all
    }

    /// What the HIS was told of a study.
    pub(crate) fn told(&self, study: &str) -> Vec<Told> {
        let mut told = self.his.told();
        told.retain(|t| t.fields.get("OBX-5").is_some_and(|all| all.iter().any(|v| v == study)));
        told
    }

    /// Files that the folder has.
    pub(crate) fn files(&self) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut open = vec![self.dir.join("files/reports")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => open.push(path),
                    false => found.push(fs::read(path).expect("a file")),
                }
            }
        }
        found
    }

    pub(crate) fn store(&self, file: &Path) {
        // One of them is deflated.
        let deflated = file.ends_with("report_dfl.dcm");
        let options: &[&str] = if deflated { &["-R", "-xd"] } else { &["-R"] };
        for port in [self.direct.port(), self.circle.reading.port(Port::Dicom)] {
            let (statuses, said) = storescu(port, options, &[file]);
            assert_eq!(statuses, [0], "{}: {said}", file.display());
        }
    }

    /// What an instance arrived as: from dcmtk alone, and by way of both nodes.
    fn arrived_alike(&self, sop: &str) {
        let of = |scp: &Scp| {
            let all: Vec<_> = scp.arrived().into_iter().filter(|a| a.sop == sop).collect();
            assert_eq!(all.len(), 1, "{sop}: {all:?}");
            (all[0].ts.clone(), all[0].sha256.clone(), all[0].length)
        };
        assert_eq!(of(&self.archive), of(&self.direct), "{sop}");
    }

    /// A structured report is at home what it was, for whoever looks.
    pub(crate) fn check_document(&self, sent: &Facts) {
        let stored = self.stored(&sent.study);
        let home: Vec<&Facts> = stored.iter().filter(|one| one.sop == sent.sop).collect();
        assert_eq!(home.len(), 1, "{sent:?}: {stored:?}");
        let same = run(python("documents.py").arg("same").args([&sent.file, &home[0].file]));
        assert_eq!(text(&same.stdout).trim(), "same", "{sent:?}");
        self.arrived_alike(&sent.sop);
        for program in ["dcmftest", "dsrdump", "dsr2xml"] {
            let (before, after) = (says(program, &sent.file), says(program, &home[0].file));
            assert_eq!(before, after, "{program}: {}", sent.file.display());
            assert!(after.0 || program != "dcmftest", "{}: {after:?}", sent.file.display());
        }
    }
}

/// The files with these endings below the folders of the test data, and of a person's own.
fn found(folders: &[&str], ending: &str) -> Vec<PathBuf> {
    let own = std::env::var_os("HIKYAKU_TEST_REPORTS").map(PathBuf::from);
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| data(folder)).chain(own).collect();
    let mut all = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => open.push(path),
                false if path.extension().is_some_and(|e| e == ending) => all.push(path),
                false => {}
            }
        }
    }
    all.sort();
    all
}

/// In rounds of distinct studies: two documents of one study are versions of one report.
fn rounds(mut all: Vec<Facts>) -> Vec<Vec<Facts>> {
    let mut rounds: Vec<Vec<Facts>> = Vec::new();
    while !all.is_empty() {
        let mut studies = BTreeSet::new();
        let (now, later) = all.into_iter().partition(|one| studies.insert(one.study.clone()));
        rounds.push(now);
        all = later;
    }
    rounds
}

#[test]
fn every_structured_report_comes_home_as_it_was_and_the_his_gets_its_words() {
    let reports = |one: &Facts| {
        let class = one.class.strip_prefix("1.2.840.10008.5.1.4.1.1.88.");
        class.is_some_and(|class| ["11", "22", "33", "34", "35"].contains(&class))
    };
    let mut all = facts(&found(&["samples", "reports"], "dcm"));
    all.retain(reports);
    assert!(all.len() >= 11, "{}", all.len());
    let (mut decided, mut lost) = (BTreeMap::new(), Vec::new());
    for round in rounds(all) {
        let site = Site::new();
        let home = Home::start(&site, false);
        for (n, sent) in round.iter().enumerate() {
            let issuer = if sent.issuer.is_empty() { "SITE" } else { &sent.issuer };
            let patient = match sent.patient.as_str() {
                "" => "ORACLE^^^SITE".to_owned(),
                id => format!("{id}^^^{issuer}"),
            };
            let (placer, filler) = (format!("P{n}"), format!("F{n}"));
            let (patient, accession) = (&*patient, &*sent.accession);
            let (placer, filler, study) = (&*placer, &*filler, &*sent.study);
            home.order(&Ordered { placer, filler, patient, accession, study });
            home.store(&sent.file);
            let name = sent.file.file_name().expect("a name").to_string_lossy().into_owned();
            let to = ["his", "home-pacs", "archive", "files"];
            decided.insert(name, home.bring(study, &to));
            home.check_document(sent);
            let told = home.told(study);
            assert_eq!(told.len(), 1, "{told:?}");
            let read = squeezed(&lines(&told[0]).join("\n"));
            for word in sent.words.iter().filter(|word| !read.contains(&squeezed(word))) {
                lost.push(format!("{word:?} of {}", sent.file.display()));
            }
            let files = home.files();
            assert!(files.iter().any(|file| squeezed(&text(file)) == read), "{sent:?}");
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
    // Complete, and signed by nobody: somebody answers for it.
    let unsigned: Vec<&str> =
        decided.iter().filter(|(_, why)| *why == &["unsigned"]).map(|(name, _)| &**name).collect();
    assert!(unsigned.contains(&"sample-sr.dcm"), "{decided:?}");
    assert!(unsigned.contains(&"structured_report.dcm"), "{decided:?}");
    // A name and no number: whether that is the patient of the study, a person says.
    let others = decided.iter().filter(|(_, why)| *why == &["patient-unsure"]);
    let unsure: Vec<&str> = others.map(|(name, _)| &**name).collect();
    for name in ["no-pixel-data.dcm", "report_dfl.dcm", "reportsi.dcm", "test-SR.dcm"] {
        assert!(unsure.contains(&name), "{decided:?}");
    }
    let known = |why: &String| ["unsigned", "patient-unsure"].contains(&why.as_str());
    assert!(decided.values().flatten().all(known), "{decided:?}");
}

/// ORUs that are refused, or that have nothing to read.
const NO_REPORTS: [&str; 2] = ["edge-cases_truncation-char-msh2.hl7", "text_inject-on-encode.hl7"];

#[test]
fn every_oru_comes_home_with_its_values_in_message_document_and_pages() {
    let site = Site::new();
    let home = Home::start(&site, true);
    let is_oru = |path: &PathBuf| {
        let no = NO_REPORTS.iter().any(|name| path.ends_with(name));
        text(&fs::read(path).expect("a file")).contains("|ORU^R01") && !no
    };
    let mut all: Vec<PathBuf> = samples().iter().map(|path| data("hl7").join(path)).collect();
    if std::env::var_os("HIKYAKU_TEST_REPORTS").is_some() {
        all.extend(found(&[], "hl7"));
    }
    all.retain(is_oru);
    assert!(all.len() >= 12, "{all:?}");
    let (mut numbers, mut lost) = (BTreeSet::new(), Vec::new());
    for (n, sent) in told::<Values>("values", &all).iter().enumerate() {
        // The same numbers again would be another version of that report.
        if !numbers.insert((&sent.placer, &sent.filler)) && !sent.filler.is_empty() {
            continue;
        }
        let (study, spare) = (new_study(), format!("P{n}"));
        let placer = if sent.placer.is_empty() { &spare } else { &sent.placer };
        let (patient, accession) = (&*sent.patient, "");
        let (filler, study) = (&*sent.filler, &*study);
        home.order(&Ordered { placer, filler, patient, accession, study });
        let message = fs::read(&sent.file).expect("a file");
        let code = home.circle.report(&[&message]).remove(0);
        assert!(["AA", "CA"].contains(&&*code), "{code}: {sent:?}");
        let decided = home.bring(study, &["his", "home-pacs", "archive", "files"]);
        let known = !sent.placer.is_empty() || !sent.filler.is_empty();
        assert_eq!(decided.iter().any(|why| why == "no-match"), !known, "{sent:?}: {decided:?}");
        lost.extend(check_message(&home, sent, study));
    }
    assert!(lost.is_empty(), "{lost:#?}");
}

/// Which values of a message are not in what the HIS, the archive and the folder got.
fn check_message(home: &Home, sent: &Values, study: &str) -> Vec<String> {
    let told = home.told(study);
    assert_eq!(told.len(), 1, "{told:?}");
    let notes = told[0].fields.get("NTE-3").cloned().unwrap_or_default();
    let heard: Vec<String> =
        observed(&told[0], |_| true).iter().chain(&notes).map(|v| decoded(v)).collect();
    let documents: Vec<Vec<u8>> =
        sent.documents.iter().map(|d| STANDARD.decode(d).expect("base64")).collect();
    assert_eq!(attached(&told[0]), documents, "{sent:?}");
    let stored = home.stored(study);
    let one = |class: &str| stored.iter().find(|one| one.class == class).expect(class);
    let (structured, encapsulated) = (one(BASIC_TEXT), one(PDF));
    assert_eq!(stored.len(), 2, "{stored:?}");
    for file in [&structured.file, &encapsulated.file] {
        run_ok(Command::new("dcmftest").arg(file));
    }
    let dump = run_ok(Command::new("dsrdump").args(["+Pl", "+U8"]).arg(&structured.file));
    let pages = home.dir.join(format!("{study}.pdf"));
    run_ok(Command::new("dcm2pdf").arg(&encapsulated.file).arg(&pages));
    let read = run_ok(Command::new("pdftotext").args(["-layout"]).arg(&pages).arg("-"));
    let all = [heard.join("\n"), structured.words.join("\n"), dump, read].map(|t| squeezed(&t));
    let mut lost = Vec::new();
    for value in &sent.values {
        for (place, text) in ["message", "document", "dsrdump", "pages"].iter().zip(&all) {
            // Pages of what came with a PDF are that PDF.
            let is_own = *place == "pages" && !documents.is_empty();
            if !is_own && !text.contains(&squeezed(value)) {
                lost.push(format!("{value:?} in {place} of {}: {text}", sent.file.display()));
            }
        }
    }
    for document in documents {
        assert_eq!(fs::read(&pages).expect("a PDF"), document);
        assert!(home.files().contains(&document));
    }
    lost
}
