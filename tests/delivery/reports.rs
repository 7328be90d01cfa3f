//! Reports on their last way: documents by C-STORE, messages by HL7, files into a folder with an
//! index.

use std::path::Path;

use hikyaku::cargo::{CargoKind, ReportFacts, Sha256};
use hikyaku::custody::state::StateName;
use hikyaku::delivery::{Hl7Target, Hl7Timeouts, Target};
use hikyaku::hl7::charset::Charset;

use crate::ending::Program;
use crate::python::python;
use crate::{PATIENCE, Sample, Scp, Site, assert_all_receipted, pacs, samples};

fn is_document(sample: &&Sample) -> bool {
    sample.sop_class.starts_with("1.2.840.10008.5.1.4.1.1.88.")
        || sample.sop_class.starts_with("1.2.840.10008.5.1.4.1.1.104.")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_a_dicom_document_arrives_unchanged_and_a_text_does_not_go_there() {
    let samples = samples();
    let documents: Vec<_> = samples.iter().filter(is_document).collect();
    assert!(documents.len() > 4, "structured reports and a PDF");
    let scp = Scp::start(&[]);
    let site = Site::start(Target::Dicom(pacs(scp.port)));
    for document in &documents {
        site.take(CargoKind::Report, document).await;
    }
    let (uid, none) = ("message-1".to_owned(), String::new());
    let text = Sample { uid, sop_class: none.clone(), syntax: none, ..documents[0].clone() };
    site.take(CargoKind::Report, &text).await;
    let mut duties = site.settled(&[]).await;
    let refused = duties.remove("message-1").unwrap();
    assert_eq!(refused.state, StateName::Quarantined);
    assert!(refused.reason.unwrap().contains("a report cannot go to a dicom"));
    assert_eq!(duties.len(), documents.len());
    assert_all_receipted(&duties);
    let digests = scp.digests();
    for document in &documents {
        let sent = Sha256::of(&document.data).to_string();
        assert_eq!(digests[&document.uid], [sent], "{}", document.name);
    }
    site.end().await;
}

/// A file of a report, as the secretary makes it.
async fn file(site: &Site, key: &str, body: &[u8], facts: &ReportFacts) {
    let (uid, none) = (key.to_owned(), String::new());
    let sample = Sample {
        name: none.clone(),
        sop_class: none.clone(),
        syntax: none,
        uid,
        data: body.to_vec(),
    };
    let mut envelope = site.envelope(CargoKind::Report, &sample);
    envelope.accession = "A7".into();
    facts.write(&mut envelope);
    let cargo = site.keep(envelope, body).await;
    site.owe(cargo).await;
}

fn index(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("reports/index.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_gets_files_of_reports_with_a_line_for_each_in_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::start(Target::Folder(folder.path().into()));
    let first = ReportFacts {
        status: "preliminary".into(),
        report: "r1".into(),
        version: 1,
        ..ReportFacts::default()
    };
    file(&site, "file-aa.pdf", b"%PDF-1.7 first", &first).await;
    site.settled(&[]).await;
    let name = index(folder.path())[0]["file"].as_str().unwrap().to_owned();
    let second =
        ReportFacts { status: "final".into(), version: 2, replaces: name.clone(), ..first.clone() };
    file(&site, "file-bb.txt", "所見なし".as_bytes(), &second).await;
    file(&site, "file-cc.exe", b"MZ", &second).await;
    let document = samples().into_iter().find(|s| is_document(&s)).unwrap();
    site.take(CargoKind::Report, &document).await;
    let mut duties = site.settled(&[]).await;
    assert_eq!(duties.remove("file-cc.exe").unwrap().state, StateName::Quarantined);
    assert_all_receipted(&duties);
    let lines = index(folder.path());
    assert_eq!(lines.len(), 3);
    let line = lines.iter().find(|line| line["version"] == 2).unwrap();
    let told = ["study", "accession", "status", "report", "replaces"].map(|k| line[k].clone());
    assert_eq!(told, ["1.2.3", "A7", "final", "r1", name.as_str()]);
    for line in &lines {
        let file = line["file"].as_str().unwrap();
        let bytes = std::fs::read(folder.path().join(file)).unwrap();
        let body = if file.ends_with(".dcm") {
            let meta = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
            &bytes[144 + meta..]
        } else {
            &bytes[..]
        };
        assert_eq!(line["sha256"], Sha256::of(body).to_string(), "{file}");
    }
    assert_eq!(std::fs::read(folder.path().join(&name)).unwrap(), b"%PDF-1.7 first");
    site.end().await;
}

/// Every state that a kill leaves: nothing, the growing file, the file without its line, half a line,
/// all but the receipt. Another custody, which knows of no receipt, goes on there.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_at_any_step_the_file_of_a_report_is_whole_and_in_the_index_once() {
    let facts = ReportFacts { report: "r1".into(), version: 1, ..ReportFacts::default() };
    let folder = tempfile::tempdir().unwrap();
    let deliver = async |key: &str, body: &[u8]| {
        let site = Site::start(Target::Folder(folder.path().into()));
        file(&site, key, body, &facts).await;
        assert_all_receipted(&site.settled(&[]).await);
        site.end().await;
    };
    deliver("file-00.pdf", b"another").await;
    let path = folder.path().join("reports/index.jsonl");
    let before = std::fs::read(&path).unwrap();
    deliver("file-11.pdf", b"the report").await;
    let after = std::fs::read(&path).unwrap();
    let line = index(folder.path()).pop().unwrap();
    let written = folder.path().join(line["file"].as_str().unwrap());
    let short = written.file_name().unwrap().to_str().unwrap().to_owned();
    for length in [before.len(), before.len() + 1, after.len() - 1, after.len()] {
        for file_there in [false, true] {
            std::fs::write(&path, &after[..length]).unwrap();
            if !file_there {
                std::fs::remove_file(&written).unwrap();
                let partial = folder.path().join(".partial").join(format!("{short}.part"));
                std::fs::write(partial, b"the r").unwrap();
            }
            deliver("file-11.pdf", b"the report").await;
            assert_eq!(std::fs::read(&written).unwrap(), b"the report");
            let files: Vec<_> = index(folder.path()).iter().map(|l| l["file"].clone()).collect();
            assert_eq!(files.len(), 2, "{length} {file_there}: {files:?}");
            assert_eq!(files[1], line["file"]);
            assert_eq!(std::fs::read_dir(folder.path().join(".partial")).unwrap().count(), 0);
        }
    }
}

/// A PDF of 20 MB in an OBX of type ED, to python-hl7; it says AE first.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_with_a_pdf_of_20_mb_reaches_a_receiver_of_hl7_again_after_ae_unchanged() {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let mut command = python("ris.py");
    command.args(["--large", "--answers", "AE,AA,AR", "--text", "BUSY"]);
    let (ris, _) = Program::listening(command.args(["--port", &port.to_string()]));
    let site = Site::start(Target::Hl7(Hl7Target {
        host: "127.0.0.1".into(),
        port,
        tls: None,
        charset: Charset::UTF_8,
        timeouts: Hl7Timeouts { connect: PATIENCE, response: PATIENCE },
    }));
    let pdf = "QUJD".repeat(20_000_000 / 3);
    let message = format!(
        "MSH|^~\\&|HIKYAKU|H|RIS|H|20261128||ORU^R01|C1|P|2.5|||||||UNICODE UTF-8\rOBX|1|ED|PDF||^AP^^Base64^{pdf}\r"
    );
    let give = async |key: &str, body: &[u8]| {
        let sample = Sample {
            name: String::new(),
            sop_class: String::new(),
            syntax: String::new(),
            uid: key.into(),
            data: vec![],
        };
        let mut envelope = site.envelope(CargoKind::Report, &sample);
        envelope.length = body.len() as u64;
        envelope.identity.sha256 = Sha256::of(body);
        let cargo = site.keep(envelope, body).await;
        site.owe(cargo).await;
    };
    give("message-1", message.as_bytes()).await;
    let duties = site.settled(&[]).await;
    assert_all_receipted(&duties);
    let digest = Sha256::of(message.as_bytes()).to_string();
    for answer in ["AE", "AA"] {
        let line: serde_json::Value = serde_json::from_str(&ris.line(PATIENCE)).unwrap();
        assert_eq!((&line["id"], &line["answer"]), (&"C1".into(), &answer.into()));
        assert_eq!(line["hex"], digest, "byte for byte, both times");
    }
    // What is refused for good is not sent again.
    give("message-2", message[..200].replace("|C1|", "|C2|").as_bytes()).await;
    let refused = site.settled(&[]).await.remove("message-2").unwrap();
    assert_eq!(refused.state, StateName::Quarantined);
    assert!(refused.reason.unwrap().contains("AR"));
    site.end().await;
}
