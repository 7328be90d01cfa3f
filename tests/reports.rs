//! Reports against programs that are not ours, and real ones of other people's making: dcmtk and
//! dicom3tools judge what we write, poppler reads our pages.
//!
//! `HIKYAKU_TEST_REPORTS` names a folder of more reports (DICOM files and HL7 messages, however
//! deep), which are read as well.

// Shared with the tests of whole nodes.
#[path = "gateway/ending.rs"]
mod ending;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hikyaku::cargo::{CargoKind, Envelope, Identity, Sha256};
use hikyaku::clock::Timestamp;
use hikyaku::delivery::part10;
use hikyaku::dicom::EXPLICIT_VR_LE;
use hikyaku::dicom::commitment::Reference;
use hikyaku::dicom::report::{
    self, BASIC_TEXT_SR, Code, DicomReport, ENCAPSULATED_PDF, EncapsulatedKind, Evidence, Heading,
    NewDocument, Observer, Pages, PatientFacts, ReportClass, RequestFacts, Section, Stage,
};
use hikyaku::dicom::text::Repertoire;
use hikyaku::hl7::header::Accepts;
use hikyaku::hl7::inbound::{Content, Inbound, Rules};
use hikyaku::hl7::report::{DocumentKind, ReportMessage};
use hikyaku::orders::identifier::{Identifier, Patient};
use hikyaku::orders::order::{Order, OrderKey};
use hikyaku::reports::arrive::ArriveRules;
use hikyaku::reports::home::{Part, Source};
use hikyaku::reports::make::{self, Before, Home, Made, Task};
use hikyaku::reports::matching::Target;
use hikyaku::reports::report::{Form, FormKind, Identifiers, Reader, Report, Status};
use tempfile::TempDir;

/// Kanji whose bytes in ISO 2022 are delimiters elsewhere, half-width kana, and both scripts.
const TEXT: &str =
    "骨 像 本 表 ソ 移所\n\n右下葉に 4 mm の結節 (S6) を認める。 ﾎﾝﾔｸ ok\nsecond paragraph";

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn run(program: &str, arguments: &[&str], file: &Path) -> (bool, String) {
    let output = ending::run(Command::new(program).args(arguments).arg(file));
    let all = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&all).into_owned())
}

/// A Part 10 file of a data set.
fn file(dir: &TempDir, name: &str, class: &str, uid: &str, bytes: &[u8]) -> PathBuf {
    let identity =
        Identity { origin: "n".parse().unwrap(), key: uid.into(), sha256: Sha256::of(bytes) };
    let length = bytes.len() as u64;
    let mut envelope = Envelope::of_ours(CargoKind::Image, identity, length, Timestamp(0));
    envelope.sop_class = class.into();
    envelope.transfer_syntax = EXPLICIT_VR_LE.into();
    let path = dir.path().join(name);
    fs::write(&path, [part10::front(&envelope), bytes.to_vec()].concat()).unwrap();
    path
}

/// Transfer syntax and data set of a Part 10 file.
fn part10_of(file: &[u8]) -> Option<(String, &[u8])> {
    let rest = file.get(128..)?.strip_prefix(b"DICM")?;
    let table = dicom_object::FileMetaTable::from_reader(&file[128..]).ok()?;
    let length = 12 + table.information_group_length as usize;
    let syntax = table.transfer_syntax.trim_end_matches(['\0', ' ']).to_owned();
    Some((syntax, rest.get(length..)?))
}

fn read(path: &Path) -> DicomReport {
    let bytes = fs::read(path).unwrap();
    let (syntax, set) = part10_of(&bytes).expect("a DICOM file");
    report::read(set, &syntax).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn new<'a>(
    patient: &'a PatientFacts,
    stage: Stage,
    replaces: &'a [Evidence],
    requests: &'a [RequestFacts],
    evidence: &'a [Evidence],
) -> NewDocument<'a> {
    NewDocument {
        uid: "2.25.301",
        series: "2.25.302",
        study: "1.2.3",
        number: 2,
        patient,
        accession: "A1",
        accession_issuer: ("RIS", ""),
        title: Code::new("18748-4", "LN", "Diagnostic Imaging Report"),
        name: "",
        institution: "",
        manufacturer: "hikyaku",
        referrer: "",
        language: "ja",
        stage,
        written_at: ("20261122", "101500"),
        zone: "+0900",
        verifiers: ["DOKUEI^I=読影^医", "KAKUNIN^I=確認^医"]
            .map(|name| Observer {
                name: name.into(),
                organization: "読影センター".into(),
                ..Observer::default()
            })
            .into(),
        author: "DOKUEI^I=読影^医",
        predecessors: replaces,
        requests,
        evidence,
    }
}

fn patient() -> PatientFacts {
    PatientFacts {
        id: "4711".into(),
        issuer: "EAST".into(),
        name: "YAMADA^HONE=山田^骨=やまだ^ほね".into(),
        birth_date: "19500101".into(),
        sex: "F".into(),
        ..PatientFacts::default()
    }
}

fn evidence(class: &str, n: u8) -> Vec<Evidence> {
    let reference = Reference { class: class.into(), instance: format!("1.2.3.4.{n}") };
    vec![Evidence { study: "1.2.3".into(), series: "1.2.3.1".into(), reference }]
}

fn request() -> Vec<RequestFacts> {
    vec![RequestFacts {
        study: "1.2.3".into(),
        accession: "A1".into(),
        placer: "P1".into(),
        filler: "F1".into(),
        requested_procedure: "RP1".into(),
        ..RequestFacts::default()
    }]
}

/// What dciodvfy finds wrong; warnings are about what a site may add.
fn errors(path: &Path) -> Vec<String> {
    let (_, said) = run("dciodvfy", &[], path);
    said.lines().filter(|l| l.starts_with("Error")).map(str::to_owned).collect()
}

#[test]
fn a_structured_report_of_ours_is_valid_for_dcmtk_and_dicom3tools_and_says_all_of_its_text() {
    let dir = TempDir::new().unwrap();
    let (patient, requests) = (patient(), request());
    let (replaces, basis) = (evidence(BASIC_TEXT_SR, 1), evidence("1.2.840.10008.5.1.4.1.1.2", 2));
    let sections = [
        Section { heading: Heading::Findings, text: TEXT.into() },
        Section { heading: Heading::Impressions, text: "異常なし".into() },
    ];
    for (n, stage) in [Stage::Preliminary, Stage::Unverified, Stage::Final, Stage::Corrected]
        .into_iter()
        .enumerate()
    {
        for (wanted, term) in [
            (Repertoire::UTF8, "ISO_IR 192"),
            (Repertoire::JAPANESE, "ISO 2022 IR 13\\ISO 2022 IR 87"),
        ] {
            let before = if stage == Stage::Corrected { &replaces[..] } else { &[] };
            let document = new(&patient, stage, before, &requests, &basis);
            let bytes = document.write_structured(&sections, wanted).unwrap();
            let path =
                file(&dir, &format!("{n}{term:.7}.dcm"), BASIC_TEXT_SR, document.uid, &bytes);
            let (dumped, dump) = run("dcmdump", &[], &path);
            assert!(dumped && dump.contains(term) && !dump.contains("\nW:"), "{dump}");
            let (valid, said) = run("dsrdump", &[], &path);
            // dcmtk 3.6.7 says so of every data set in UTF-8.
            let known = "W: The VR checker does not support this Specific Character Set";
            let faults = said.lines().filter(|l| l.starts_with("W: ") || l.starts_with("E: "));
            let faults: Vec<&str> = faults.filter(|l| !l.starts_with(known)).collect();
            assert!(valid && faults.is_empty(), "{stage:?}: {said}");
            let flags = match stage {
                Stage::Preliminary => ["PRELIMINARY", "PARTIAL", "UNVERIFIED"],
                Stage::Unverified => ["", "COMPLETE", "UNVERIFIED"],
                Stage::Final | Stage::Corrected => ["FINAL", "COMPLETE", "VERIFIED"],
            };
            for flag in flags {
                assert!(said.contains(&format!(": {flag}\n")) || flag.is_empty(), "{flag}: {said}");
            }
            assert_eq!(said.contains("Predecessor Docs"), stage == Stage::Corrected, "{said}");
            if wanted == Repertoire::UTF8 {
                let (valid, xml) = run("dsr2xml", &["+Ea", "+Wt"], &path);
                assert!(valid && TEXT.lines().all(|line| xml.contains(line)), "{xml}");
                assert!(xml.contains("2000"), "its template: {xml}");
            }
            assert_eq!(errors(&path), [""; 0], "{stage:?}");
            assert_eq!(read(&path).text, format!("Findings\n{TEXT}\n\nImpressions\n異常なし"));
        }
    }
}

#[test]
fn pages_of_ours_are_read_by_poppler_to_the_character_and_drawn() {
    let dir = TempDir::new().unwrap();
    let long = format!("{TEXT}\n{}", "所見を記す。".repeat(600));
    let pages = Pages::of("山田 骨 / YAMADA / 4711 / A1", &long);
    assert!(pages.count > 1 && pages.unshown.is_empty() && !pages.is_cut);
    let path = dir.path().join("a.pdf");
    fs::write(&path, &pages.bytes).unwrap();
    let text = dir.path().join("a.txt");
    let (read, said) =
        run("pdftotext", &["-layout", "-enc", "UTF-8", path.to_str().unwrap()], &text);
    assert!(read && said.is_empty(), "{said}");
    let text = fs::read_to_string(&text).unwrap();
    let plain = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    for line in TEXT.lines() {
        assert!(plain(&text).contains(&plain(line)), "{line}: {text}");
    }
    // Head and foot stand between two pages, perhaps within a sentence.
    assert_eq!(text.matches('。').count(), 601, "across lines and pages");
    assert_eq!(text.matches("YAMADA").count(), pages.count, "on each page");
    // An image of the page has ink where the text is.
    let (drawn, said) = run("pdftoppm", &["-r", "40", "-gray", "-l", "1"], &path);
    assert!(drawn, "{said}");
    let mut drawing = Command::new("pdftoppm");
    let image = ending::run(drawing.args(["-r", "40", "-gray", "-l", "1"]).arg(&path));
    let dark = image.stdout.iter().skip(15).filter(|b| **b < 128).count();
    assert!(dark > 50, "{dark} dark pixels");
}

#[test]
fn an_encapsulated_pdf_of_ours_is_valid_and_dcmtk_takes_the_same_pdf_out_of_it() {
    let dir = TempDir::new().unwrap();
    let (patient, requests) = (patient(), request());
    let basis = evidence("1.2.840.10008.5.1.4.1.1.2", 2);
    for text in ["odd", "even", TEXT] {
        let pdf = Pages::of("head", text).bytes;
        for wanted in [Repertoire::UTF8, Repertoire::JAPANESE] {
            let mut document = new(&patient, Stage::Final, &[], &requests, &basis);
            document.title.meaning = "画像診断報告書".into();
            let bytes = document.write_encapsulated(EncapsulatedKind::Pdf, &pdf, wanted).unwrap();
            let path = file(&dir, "e.dcm", ENCAPSULATED_PDF, document.uid, &bytes);
            assert_eq!(errors(&path), [""; 0]);
            let out = dir.path().join("out.pdf");
            let (taken, said) = run("dcm2pdf", &[path.to_str().unwrap()], &out);
            assert!(taken && !said.contains("W: "), "{said}");
            let out = fs::read(&out).unwrap();
            assert!(out == pdf || out == [&pdf[..], &[0]].concat(), "but for one padding byte");
            let again = read(&path);
            assert_eq!(again.encapsulated.unwrap().bytes, pdf);
            assert_eq!(again.facts.title.meaning, "画像診断報告書");
        }
    }
}

#[test]
fn a_pdf_that_dcmtk_has_encapsulated_comes_out_as_it_went_in() {
    let dir = TempDir::new().unwrap();
    let pdf = dir.path().join("a.pdf");
    for text in ["a", "ab"] {
        let bytes = Pages::of("head", text).bytes;
        fs::write(&pdf, &bytes).unwrap();
        let made = dir.path().join("a.dcm");
        let title = ["+t", "Report", "+pi", "4711", "+pn", "YAMADA^HONE"];
        let arguments = [&title[..], &[pdf.to_str().unwrap()]].concat();
        let (ok, said) = run("pdf2dcm", &arguments, &made);
        assert!(ok, "{said}");
        let read = read(&made);
        assert_eq!(read.encapsulated.unwrap().bytes, bytes);
        assert_eq!((&*read.facts.patient.id, &*read.facts.title.meaning), ("4711", "Report"));
    }
}

/// A report of one form that has arrived, and its parts for `home`, which counts as a version of it.
fn made(report: &Report, parts: &[Part], home: &Home) -> Vec<Made> {
    let origin: hikyaku::cargo::NodeName = "hospital".parse().unwrap();
    let key = OrderKey { origin: origin.clone(), number: "P1".into() };
    let mut order = Order::empty(key.clone());
    let c = &mut order.content;
    c.placer = Some(Identifier::bare("P1"));
    c.accession = Some(Identifier::bare("A1"));
    c.patient.ids = vec![Identifier::of("4711", "EAST")];
    c.patient.names = vec!["山田^骨".into(), "ヤマダ^ホネ".into(), "YAMADA^HONE".into()];
    let study = report.ids.studies.first().cloned().unwrap_or_else(|| "1.2.3".into());
    let target = Target { origin, study, order: Some(key) };
    let before = Before { uid: "1.2.9".into(), class: BASIC_TEXT_SR.into(), series: String::new() };
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(9));
    let task = Task {
        report,
        id: "r",
        version: report.digest(),
        number: 1,
        target: &target,
        order: Some(&order),
        before: (report.status == Status::Corrected).then_some(&before),
        at: Timestamp(1_764_000_000_000),
        zone: &zone,
    };
    let part = |part| make::part(&task, part, home).unwrap_or_else(|e| panic!("{part:?}: {e}"));
    parts.iter().map(part).collect()
}

/// A report by its facts and forms.
fn report_of(status: Status, forms: Vec<Form>) -> Report {
    let reader = Reader { name: "DOKUEI^I=読影^医".into(), ..Reader::default() };
    Report {
        ids: Identifiers::default(),
        status,
        is_signed: true,
        patient: Patient::default(),
        title: "頭部CT".into(),
        language: "ja".into(),
        authors: vec![],
        verifiers: vec![reader],
        written_at: Some(Timestamp(1_764_000_000_000)),
        critical: vec![],
        forms,
        source: "RIS".into(),
        is_addendum: false,
    }
}

#[test]
fn what_is_made_for_an_archive_is_valid_in_every_state_and_both_character_sets() {
    let dir = TempDir::new().unwrap();
    let pdf = Pages::of("head", TEXT).bytes;
    let cda = b"<ClinicalDocument xmlns=\"urn:hl7-org:v3\"/>".to_vec();
    let instance = |structured, from| Part::Instance { structured, from };
    let parts = [
        instance(true, Source::StructuredOfText),
        instance(false, Source::PagesOfText),
        instance(false, Source::Around(FormKind::Pdf)),
        instance(false, Source::Around(FormKind::Cda)),
    ];
    for status in [Status::Preliminary, Status::Final, Status::Corrected, Status::Cancelled] {
        let forms = vec![
            Form::new(FormKind::Text, TEXT.into()),
            Form::new(FormKind::Pdf, pdf.clone()),
            Form::new(FormKind::Cda, cda.clone()),
        ];
        let report = report_of(status, forms);
        for japanese in [true, false] {
            let mut home = Home::default();
            home.document.japanese = japanese;
            home.document.institution = "病院".into();
            for (n, made) in made(&report, &parts, &home).into_iter().enumerate() {
                let Made::Instance { uid, class, bytes, .. } = made else { panic!() };
                let path = file(&dir, &format!("{n}.dcm"), &class, &uid, &bytes);
                assert_eq!(errors(&path), [""; 0], "{status:?} {n}");
                assert!(run("dcmftest", &[], &path).1.starts_with("yes:"));
                let read = read(&path);
                assert_eq!(read.facts.patient.name, "YAMADA^HONE=山田^骨=ヤマダ^ホネ");
                assert_eq!((&*read.facts.study, &*read.facts.accession), ("1.2.3", "A1"));
                if n == 0 {
                    let (valid, said) = run("dsrdump", &[], &path);
                    assert!(valid && !said.contains("E: "), "{said}");
                    assert!(read.text.contains(TEXT), "{}", read.text);
                }
                let inside = read.encapsulated.map(|document| document.bytes);
                assert!(n != 2 || inside.as_ref() == Some(&pdf));
                assert!(n != 3 || inside.as_ref() == Some(&cda));
            }
        }
    }
}

#[test]
fn python_reads_the_message_of_a_report_with_all_of_its_text_names_and_its_pdf() {
    let dir = TempDir::new().unwrap();
    let pdf = Pages::of("head", TEXT).bytes;
    for charset in ["UNICODE UTF-8", "~ISO IR87"] {
        // ISO-2022-JP has no half-width kana.
        let text = if charset.is_ascii() && charset.starts_with('~') {
            TEXT.replace("ﾎﾝﾔｸ", "翻訳")
        } else {
            TEXT.to_owned()
        };
        let forms = vec![
            Form::new(FormKind::Text, text.clone().into_bytes()),
            Form::new(FormKind::Pdf, pdf.clone()),
        ];
        let received = Source::Received;
        let part =
            Part::Message { text: received(FormKind::Text), pdf: Some(received(FormKind::Pdf)) };
        let mut home = Home::default();
        home.message.dialect.charset = charset.parse().unwrap();
        let made = made(&report_of(Status::Final, forms), &[part], &home).remove(0);
        let Made::Message { bytes, control_id, lost: 0 } = made else { panic!("{made:?}") };
        let path = dir.path().join("a.hl7");
        fs::write(&path, bytes).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/parse_hl7.py");
        let python = std::env::var("HIKYAKU_TEST_PYTHON").unwrap_or_else(|_| {
            format!("{}/target/test-venv/bin/python", env!("CARGO_MANIFEST_DIR"))
        });
        let (ok, said) = run(&python, &[script.to_str().unwrap()], &path);
        assert!(ok, "{said}");
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let lines: Vec<&str> =
            said["text"].as_array().unwrap().iter().filter_map(|l| l.as_str()).collect();
        assert_eq!(lines.join("\n"), text);
        assert_eq!((&said["kind"], &said["status"]), (&"ORU^R01^ORU_R01".into(), &"F".into()));
        assert_eq!((&said["placer"], &said["accession"]), (&"P1".into(), &"A1".into()));
        assert_eq!(said["control_id"], control_id.as_str());
        let names = said["names"].as_str().unwrap();
        assert!(names.contains("山田^骨") && names.contains("ヤマダ^ホネ"), "{names}");
        assert_eq!(said["reader"], "&読影&医");
        let document = said["documents"][0].as_str().unwrap();
        use base64::Engine as _;
        assert_eq!(base64::engine::general_purpose::STANDARD.decode(document).unwrap(), pdf);
    }
}

#[test]
fn every_real_report_passes_to_the_byte_and_comes_out_of_a_message_with_its_text() {
    let mut passed = 0;
    for path in below(&data().join("samples")).into_iter().chain(more()) {
        let bytes = fs::read(&path).unwrap();
        let Some((syntax, set)) = part10_of(&bytes) else { continue };
        let Ok(read) = report::read(set, &syntax) else { continue };
        let Ok(mut arrived) = ArriveRules::default().of_document(&read, set, &syntax, "X") else {
            continue;
        };
        // As its order has it: that of the same patient.
        arrived.patient = Patient::default();
        let (structured, kind) = match read.encapsulated {
            Some(_) => (false, FormKind::Encapsulated),
            None => (true, FormKind::Structured),
        };
        let received = Part::Instance { structured, from: Source::Received(kind) };
        let home = Home::default();
        let target =
            Target { origin: "h".parse().unwrap(), study: read.facts.study.clone(), order: None };
        let zone = jiff::tz::TimeZone::UTC;
        let task = Task {
            report: &arrived,
            id: "r",
            version: arrived.digest(),
            number: 1,
            target: &target,
            order: None,
            before: None,
            at: Timestamp(0),
            zone: &zone,
        };
        let Made::Instance { bytes, anew: None, .. } = make::part(&task, &received, &home).unwrap()
        else {
            panic!("{}", path.display())
        };
        assert!(bytes == set, "{}", path.display());
        if structured && !read.text.is_empty() {
            let from = Source::TextOf(FormKind::Structured);
            let part = Part::Message { text: from, pdf: None };
            let mut with_patient = arrived.clone();
            with_patient.patient.ids = vec![Identifier::bare("1")];
            let task = Task { report: &with_patient, ..task };
            let Made::Message { bytes, .. } = make::part(&task, &part, &home).unwrap() else {
                panic!()
            };
            let accepts = Accepts { reports: true, ..Accepts::default() };
            let inbound = Inbound::read(&bytes, &Rules { accepts, ..Rules::default() });
            let Ok(Content::Reports(said)) = inbound.content() else {
                panic!("{}: {:?}", path.display(), inbound.content())
            };
            assert_eq!(said.reports[0].text(), read.text, "{}", path.display());
        }
        passed += 1;
    }
    assert!(passed >= 5, "{passed}");
}

/// Files below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

fn more() -> Vec<PathBuf> {
    std::env::var("HIKYAKU_TEST_REPORTS").map(|f| below(Path::new(&f))).unwrap_or_default()
}

#[test]
fn every_real_structured_report_is_read_with_all_of_its_text() {
    let mut seen = BTreeMap::new();
    for path in below(&data().join("samples")).into_iter().chain(more()) {
        let bytes = fs::read(&path).unwrap();
        let Some((syntax, set)) = part10_of(&bytes) else { continue };
        let class = |e: &report::ReportError| matches!(e, report::ReportError::Class(_));
        let read = match report::read(set, &syntax) {
            Ok(read) => read,
            Err(e) if class(&e) => continue,
            // An image in a syntax of images.
            Err(report::ReportError::DataSet(_)) => continue,
            Err(e) => panic!("{}: {e}", path.display()),
        };
        if ReportClass::of(&read.facts.sop_class) == Some(ReportClass::Structured) {
            // What dcmtk finds as text in it, all but observation context.
            let (_, dump) = run("dcmdump", &["+L", "+U8", "+P", "0040,a160"], &path);
            let text: String = read.text.chars().filter(|c| !c.is_whitespace()).collect();
            let whole: Vec<&str> = dump.lines().filter(|l| l.contains("UT [")).collect();
            let found = whole.iter().filter(|line| {
                let value = line.split_once('[').map_or("", |(_, v)| v);
                let value = value.rsplit_once(']').map_or(value, |(v, _)| v);
                text.contains(&value.chars().filter(|c| !c.is_whitespace()).collect::<String>())
            });
            let share = (found.count(), whole.len());
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            seen.insert(name, (read.facts.stage(), share, read.text.lines().count()));
        }
    }
    let shown = |name: &str| seen.get(name).copied();
    assert_eq!(shown("reportsi.dcm"), Some((Stage::Preliminary, (2, 2), 4)), "{seen:#?}");
    assert_eq!(shown("test-SR.dcm"), Some((Stage::Corrected, (7, 7), 21)), "{seen:#?}");
    assert_eq!(shown("report_dfl.dcm"), Some((Stage::Preliminary, (11, 11), 24)), "{seen:#?}");
    // Their texts are identifiers of tracking: observation context, which is not told.
    assert_eq!(shown("sample-sr.dcm"), Some((Stage::Unverified, (0, 1), 12)), "{seen:#?}");
    assert_eq!(shown("sr_document.dcm"), Some((Stage::Preliminary, (0, 2), 10)), "{seen:#?}");
}

#[test]
fn every_real_oru_is_read_or_refused_with_its_reason() {
    let accepts = Accepts { reports: true, ..Accepts::default() };
    let mut rules = Rules { accepts, ..Rules::default() };
    rules.accepts.processing_ids.extend(["T".into(), "D".into()]);
    let mut seen: Vec<String> = Vec::new();
    for path in below(&data().join("hl7")).into_iter().chain(more()) {
        let bytes = fs::read(&path).unwrap();
        let inbound = Inbound::read(&bytes, &rules);
        if inbound.header().is_none_or(|h| h.code != "ORU") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let outcome = match inbound.content() {
            Ok(Content::Reports(said)) => told(said),
            Ok(other) => panic!("{name}: {other:?}"),
            Err(refusals) => refusals[0].to_string(),
        };
        seen.push(format!("{name}: {outcome}"));
    }
    assert_eq!(&seen[..REAL.len()], &REAL);
    println!("{}", seen[REAL.len()..].join("\n"));
}

/// Status, lines of text, studies and documents of each real message; or why it is refused.
const REAL: [&str; 14] = [
    "build_oru-r01.golden.hl7: Final 2 0 []",
    "canonical_oru-r01-sn-results.hl7: Final 3 0 []",
    "datetime_tz-offset.hl7: Final 1 0 []",
    "edge-cases_escape-formatting.hl7: Final 4 0 []",
    "edge-cases_escape-highlight.hl7: Final 1 0 []",
    "edge-cases_truncation-char-msh2.hl7: MSH^1^12: version \"2.7\" is not taken here",
    "edge-cases_unknown-escapes.hl7: Final 1 0 []",
    "nte_obx-result-notes.hl7: Final 4 0 []",
    "text_inject-on-encode.hl7: OBR^1: OBR is missing",
    "vendor-quirks_unknown-escape-sequence.hl7: Final 1 0 []",
    "001.txt: Final 14 0 []",
    "002.txt: Final 14 0 []",
    "005.txt: Unverified 16 0 []",
    "006.txt: Unverified 30 0 []",
];

fn told(said: &ReportMessage) -> String {
    let one = |r: &hikyaku::hl7::report::Report| {
        let documents = r.documents().map(|d| match d.kind {
            DocumentKind::Pdf => "pdf".to_owned(),
            DocumentKind::Cda => "cda".to_owned(),
            DocumentKind::Other(_) => "other".to_owned(),
        });
        let all: Vec<String> = documents.collect();
        let (status, lines) = (r.result(), r.text().lines().count());
        format!("{status:?} {lines} {} [{}]", r.studies.len(), all.join(","))
    };
    said.reports.iter().map(one).collect::<Vec<_>>().join(", ")
}
