//! Documents go home to the byte by whichever way they came, and one report in several forms is one
//! report. What gets them is as in `samples_home`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::circle::Said;
use crate::foreign::python;
use crate::part10::data;
use crate::samples_home::{Facts, Home, Ordered, attached, lines};
use crate::sender::new_study;
use crate::site::{Node, Site, run_ok, text, until};

const BASIC_TEXT: &str = "1.2.840.10008.5.1.4.1.1.88.11";
const PDF: &str = "1.2.840.10008.5.1.4.1.1.104.1";
const CDA: &str = "1.2.840.10008.5.1.4.1.1.104.2";

/// Everything that gets reports at the hospital.
const ALL: [&str; 4] = ["his", "home-pacs", "archive", "files"];

/// A PDF of one page with a correct table of references.
fn pdf(words: &str, comment: &str) -> Vec<u8> {
    let stream = format!("BT /F1 12 Tf 72 720 Td ({words}) Tj ET");
    let objects = [
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_owned(),
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R\
         /Resources<</Font<</F1 5 0 R>>>>>>"
            .to_owned(),
        format!("<</Length {}>>stream\n{stream}\nendstream", stream.len()),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(),
    ];
    let mut out = format!("%PDF-1.4\n%{comment}\n");
    let mut table = "0000000000 65535 f \n".to_owned();
    for (n, object) in objects.iter().enumerate() {
        table += &format!("{:010} 00000 n \n", out.len());
        out += &format!("{} 0 obj\n{object}\nendobj\n", n + 1);
    }
    let at = out.len();
    out += &format!("xref\n0 6\n{table}trailer\n<</Size 6/Root 1 0 R>>\nstartxref\n{at}\n%%EOF\n");
    out.into_bytes()
}

/// An order of the study for the patient of these tests.
fn order(home: &Home, n: usize, study: &str) {
    let (placer, filler) = (format!("P{n}"), format!("F{n}"));
    let (placer, filler, patient, accession) = (&*placer, &*filler, "ORACLE^^^SITE", "");
    home.order(&Ordered { placer, filler, patient, accession, study });
}

/// The document as a DICOM file by dcmtk, of this study, written at this time.
fn wrapped(home: &Home, program: &str, document: &[u8], study: &str, keys: &[&str]) -> PathBuf {
    let source = home.dir.join(format!("{study}.source"));
    fs::write(&source, document).expect("a file");
    let file = home.dir.join(format!("{study}.dcm"));
    let mut command = Command::new(program);
    if program == "pdf2dcm" {
        command.args(["+pi", "ORACLE", "+pn", "YAMADA^TARO", "+t", "CT report"]);
    }
    command.arg("-k").arg(format!("StudyInstanceUID={study}"));
    command.args(["-k", "IssuerOfPatientID=SITE"]);
    for key in keys {
        command.args(["-k", key]);
    }
    run_ok(command.arg(&source).arg(&file));
    file
}

/// The only document of a class that the archive has of a study.
fn only<'a>(stored: &'a [Facts], class: &str) -> &'a Facts {
    let all: Vec<&Facts> = stored.iter().filter(|one| one.class == class).collect();
    assert_eq!(all.len(), 1, "{class}: {stored:?}");
    all[0]
}

/// HIS, archive and folder have this PDF to the byte.
fn has_pdf(home: &Home, study: &str, document: &[u8]) {
    let stored = home.stored(study);
    let encapsulated = only(&stored, PDF);
    run_ok(Command::new("dcmftest").arg(&encapsulated.file));
    let out = home.dir.join(format!("{study}.out.pdf"));
    let _ = fs::remove_file(&out);
    run_ok(Command::new("dcm2pdf").arg(&encapsulated.file).arg(&out));
    assert!(fs::read(&out).expect("a PDF") == document, "dcm2pdf gives another PDF");
    let told = home.told(study);
    assert_eq!(attached(told.last().expect("a message")), [document]);
    assert_eq!(home.files().iter().filter(|file| *file == document).count(), 1);
}

#[test]
fn a_pdf_comes_home_to_the_byte_by_c_store_by_the_folder_and_by_the_api() {
    let site = Site::new();
    let home = Home::start(&site, false);
    let studies: Vec<String> = (0..4).map(|_| new_study()).collect();
    studies.iter().enumerate().for_each(|(n, study)| order(&home, n, study));
    // By C-STORE, one with an even number of bytes, one with an odd one.
    let mut documents = vec![pdf("by dcmtk", "a"), pdf("by dcmtk", "ab")];
    assert_ne!(documents[0].len() % 2, documents[1].len() % 2);
    for (document, study) in documents.iter().zip(&studies) {
        let file = wrapped(&home, "pdf2dcm", document, study, &[]);
        home.store(&file);
        assert_eq!(home.bring(study, &ALL), ["unsigned"]);
        home.check_document(&crate::samples_home::facts(&[file])[0]);
    }
    // By the folder.
    documents.push(pdf("by the folder", "c"));
    let said = json!({ "study": studies[2], "patient": { "id": "ORACLE" }, "status": "final",
                       "signed_by": "Dokuei^Ichiro", "written_at": "2026-11-28T10:15:00+09:00" });
    let watched = site.path().join("watched");
    fs::write(watched.join("R1.pdf"), &documents[2]).expect("a file");
    fs::write(watched.join("R1.json"), said.to_string()).expect("a file");
    assert!(home.bring(&studies[2], &ALL).is_empty());
    // By the API.
    documents.push(pdf("by the API", "d"));
    let said = json!({ "study": studies[3], "patient": { "id": "ORACLE" }, "status": "final",
                       "signed_by": "Dokuei^Ichiro", "pdf": STANDARD.encode(&documents[3]) });
    assert_eq!(home.caller.post("/reports", &said).code, 201);
    assert!(home.bring(&studies[3], &ALL).is_empty());
    for (document, study) in documents.iter().zip(&studies) {
        has_pdf(&home, study, document);
    }
}

#[test]
fn the_object_of_the_test_data_and_a_cda_document_come_home_as_they_were() {
    let site = Site::new();
    let home = Home::start(&site, false);
    let sent = crate::samples_home::facts(&[data("samples/encapsulated_pdf.dcm")]).remove(0);
    let (patient, study) = (format!("{}^^^SITE", sent.patient), &*sent.study);
    let (patient, accession) = (&*patient, &*sent.accession);
    home.order(&Ordered { placer: "P0", filler: "F0", patient, accession, study });
    home.store(&sent.file);
    assert_eq!(home.bring(study, &ALL), ["unsigned"]);
    home.check_document(&sent);
    let study = new_study();
    order(&home, 1, &study);
    let document = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <ClinicalDocument xmlns=\"urn:hl7-org:v3\">\
        <typeId root=\"2.16.840.1.113883.1.3\" extension=\"POCD_HD000040\"/><id root=\"1.2.3\"/>\
        <code code=\"18748-4\" codeSystem=\"2.16.840.1.113883.6.1\"/><title>\xe9\xaa\xa8</title>\
        <recordTarget><patientRole><id extension=\"ORACLE\" root=\"1.2.3\"/></patientRole>\
        </recordTarget><component><structuredBody><component><section>\
        <title>\xe6\x89\x80\xe8\xa6\x8b</title><text><paragraph>nothing new</paragraph></text>\
        </section></component></structuredBody></component></ClinicalDocument>\n";
    let keys = ["PatientID=ORACLE"];
    let file = wrapped(&home, "cda2dcm", document, &study, &keys);
    home.store(&file);
    assert_eq!(home.bring(&study, &ALL), ["unsigned"]);
    home.check_document(&crate::samples_home::facts(&[file])[0]);
    only(&home.stored(&study), CDA);
    assert!(home.files().iter().any(|file| file == document), "the folder has the CDA document");
    let told = home.told(&study);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(lines(&told[0]), ["所見", "nothing new"], "the HIS has its words");
}

#[test]
fn a_real_message_with_a_pdf_of_50_kb_brings_it_home_to_the_byte() {
    let site = Site::new();
    let home = Home::start(&site, false);
    let study = new_study();
    order(&home, 1, &study);
    let message = fs::read(data("reports/2_001.txt")).expect("a file");
    let message = text(&message).replace('\n', "\r");
    // As it is it names no patient.
    assert_eq!(home.circle.report(&[message.as_bytes()]), ["AE"]);
    let is_pdf = |line: &&str| line.starts_with("OBX|") && line.contains("^Base64^");
    let own = message.split('\r').find(is_pdf).expect("an OBX with a PDF");
    let base64 = own.split('|').nth(5).and_then(|field| field.rsplit('^').next());
    let document = STANDARD.decode(base64.expect("ED.5")).expect("base64");
    assert!(document.len() > 50_000);
    let said = Said { text: "See the PDF.", ..Said::of(&study) }.write();
    let said = format!("{}{own}\r", text(&said));
    assert_eq!(home.circle.report(&[said.as_bytes()]), ["AA"]);
    assert!(home.bring(&study, &ALL).is_empty());
    has_pdf(&home, &study, &document);
}

/// Versions, and documents of the latest one.
fn counts(home: &Home, node: &Node, study: &str) -> (usize, usize) {
    let story = home.circle.story(node, study);
    let versions = story["versions"].as_array().cloned().unwrap_or_default();
    let documents = versions.last().map(|v| v["documents"].as_array().map_or(0, Vec::len));
    (versions.len(), documents.unwrap_or(0))
}

/// Both ends have one report with one version of so many documents.
fn one_version(home: &Home, study: &str, documents: usize) {
    let both = [&home.circle.hospital, &home.circle.reading];
    until(&format!("one version of {documents} documents at both ends"), || {
        both.iter().all(|node| counts(home, node, study) == (1, documents))
    });
    for node in both {
        let all = node.ask(&["reports", "--of", study]);
        assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    }
}

#[test]
fn a_text_by_hl7_and_its_pdf_by_c_store_are_one_version_and_each_system_has_each_part_once() {
    let site = Site::new();
    let home = Home::start(&site, false);
    let study = new_study();
    order(&home, 1, &study);
    let said = Said { text: "No fracture.", ..Said::of(&study) };
    assert_eq!(home.circle.report(&[&said.write()]), ["AA"]);
    assert!(home.bring(&study, &["his", "home-pacs", "archive", "files"]).is_empty());
    one_version(&home, &study, 1);
    // Nine minutes later.
    let document = pdf("No fracture.", "e");
    let keys = ["ContentDate=20261128", "ContentTime=102400", "TimezoneOffsetFromUTC=+0900"];
    let file = wrapped(&home, "pdf2dcm", &document, &study, &keys);
    home.store(&file);
    assert_eq!(home.bring(&study, &ALL), ["unsigned"]);
    one_version(&home, &study, 2);
    until("the HIS has both", || home.told(&study).len() == 2 && home.has(&study, &ALL));
    let told = home.told(&study);
    for one in &told {
        assert_eq!(lines(one), ["No fracture."]);
    }
    assert!(attached(&told[0]).is_empty());
    has_pdf(&home, &study, &document);
    let stored = home.stored(&study);
    assert_eq!(stored.len(), 2, "{stored:?}");
    assert_eq!(only(&stored, BASIC_TEXT).texts, ["No fracture."]);
    assert_eq!(home.files().iter().filter(|f| f.starts_with(b"No fracture.")).count(), 1);
}

#[test]
fn a_structured_report_and_the_same_by_hl7_are_one_version_and_the_archive_has_one_document() {
    let site = Site::new();
    let home = Home::start(&site, false);
    let study = new_study();
    order(&home, 1, &study);
    let said: Value = json!({
        "charset": ["ISO_IR 192"], "study": study, "patient": "ORACLE", "names": "YAMADA^TARO",
        "reader": "DOKUEI^ICHIRO", "text": "No fracture.", "written": "20261128101500",
    });
    let file: PathBuf = Path::new(&home.dir).join("signed.dcm");
    run_ok(python("documents.py").arg("sr").arg(&file).arg(said.to_string()));
    home.store(&file);
    assert!(home.bring(&study, &ALL).is_empty());
    one_version(&home, &study, 1);
    let said = Said { text: "No fracture.", ..Said::of(&study) };
    assert_eq!(home.circle.report(&[&said.write()]), ["AA"]);
    one_version(&home, &study, 2);
    // The archive has its document already, and gets none again.
    until("all is home", || home.has(&study, &["his", "files"]));
    let stored = home.stored(&study);
    assert_eq!(stored.len(), 1, "{stored:?}");
    home.check_document(&crate::samples_home::facts(&[file])[0]);
    // The text that a person wrote replaces the one that was made of the document, once.
    until("the HIS has the text", || {
        home.told(&study).last().is_some_and(|told| lines(told) == ["No fracture."])
    });
    assert!(home.told(&study).len() <= 2);
    assert_eq!(home.told(&study).iter().filter(|t| lines(t) == ["No fracture."]).count(), 1);
}
