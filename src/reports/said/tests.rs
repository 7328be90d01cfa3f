use super::super::arrive::ArriveRules;
use super::*;

fn rules() -> ArriveRules {
    let zone = jiff::tz::TimeZone::get("Asia/Tokyo").unwrap();
    ArriveRules { issuer: "EAST".into(), zone, ..ArriveRules::default() }
}

fn report(json: &str) -> Result<Report, Vec<Flaw>> {
    SaidReport::read(json.as_bytes()).map_err(|flaw| vec![flaw])?.report(&rules(), "editor")
}

fn flaws(json: &str) -> Vec<String> {
    report(json).expect_err(json).iter().map(ToString::to_string).collect()
}

const WHOLE: &str = r#"{"accession": "A1", "study": "1.2.3", "placer": "P1", "filler": "F1",
  "patient": {"id": "4711", "issuer": "WEST", "name": "YAMADA^HONE=山田^骨", "birth_date": "1950-01-01", "sex": "f"},
  "status": "final", "document": "R-7.2", "replaces": ["R-7.1"], "title": "CT 胸部", "language": "ja",
  "author": "DOKUEI^I",
  "signed_by": [{"name": "読影^医", "id": "R1", "issuer": "RC", "at": "2026-11-28T10:15:00"}, "B^C"],
  "written_at": "2026-11-28T10:15:00+09:00", "critical": true,
  "text": "骨 像\r\nソ", "pdf": "JVBERi0x\nLjc=", "cda": "PENsaW5pY2FsRG9jdW1lbnQvPg=="}"#;

#[test]
fn a_report_in_json_becomes_a_report_with_all_that_it_says() {
    let report = report(WHOLE).unwrap();
    assert_eq!(report.ids.accessions, [Identifier::of("A1", "EAST")]);
    assert_eq!((&*report.ids.studies, &*report.ids.document), (&["1.2.3".to_owned()][..], "R-7.2"));
    assert_eq!(report.ids.placer, Some(Identifier::bare("P1")));
    assert_eq!(report.ids.predecessors, ["R-7.1"]);
    assert_eq!(report.patient.ids, [Identifier::of("4711", "WEST")]);
    assert_eq!(report.patient.names, ["YAMADA^HONE", "山田^骨"]);
    assert_eq!((&*report.patient.birth_date, &*report.patient.sex), ("19500101", "F"));
    assert_eq!((report.status, report.is_signed), (Status::Final, true));
    let signed = &report.verifiers[0];
    assert_eq!((&signed.id, signed.at), (&Identifier::of("R1", "RC"), report.written_at));
    assert_eq!((&*report.verifiers[1].name, &*report.authors[0].name), ("B^C", "DOKUEI^I"));
    assert_eq!(report.written_at.unwrap().to_string(), "2026-11-28T01:15:00.000Z");
    assert_eq!(report.critical, [Reason::Said("editor".into())]);
    assert_eq!(report.text(), Some("骨 像\nソ"));
    assert_eq!(report.form(FormKind::Pdf).unwrap().bytes, b"%PDF-1.7");
    assert_eq!(report.form(FormKind::Cda).unwrap().bytes, b"<ClinicalDocument/>");
}

#[test]
fn the_same_json_gives_the_same_bytes() {
    assert_eq!(report(WHOLE).unwrap().encode(), report(WHOLE).unwrap().encode());
}

#[test]
fn what_is_odd_is_named_by_its_field_and_never_by_what_it_says() {
    let text = r#""text": "x""#;
    for (json, field) in [
        (format!(r#"{{"accesion": "SECRET", {text}}}"#), "unknown field `accesion`"),
        (format!(r#"{{"study": "SECRET", {text}}}"#), "study: is no UID"),
        (format!(r#"{{"accession": "A", "status": "SECRET", {text}}}"#), "status: is no status"),
        (
            format!(r#"{{"accession": "A", "critical": "SECRET", {text}}}"#),
            "has a value of another",
        ),
        (format!(r#"{{"accession": "A\u0001SECRET", {text}}}"#), "accession: has control"),
        (
            format!(r#"{{"accession": "A", "written_at": "SECRET", {text}}}"#),
            "written_at: is no time",
        ),
        (
            format!(r#"{{"accession": "A", "signed_by": {{"nme": "SECRET"}}, {text}}}"#),
            "has a value",
        ),
        (format!(r#"{{"patient": {{"id": "SECRET"}}, {text}}}"#), "says nothing of what"),
        (r#"{"accession": "A", "title": "SECRET"}"#.into(), "has neither text, pdf nor cda"),
        (r#"{"accession": "A", "pdf": "SECRET!"}"#.into(), "pdf: is not base64"),
        (r#"{"accession": "A", "pdf": "U0VDUkVU"}"#.into(), "pdf: is no PDF"),
        (r#"{"accession": "SECRET""#.into(), "is no JSON"),
        (format!(r#"{{"accession": "{}SECRET", {text}}}"#, "a".repeat(TEXT_MAX)), "is longer than"),
    ] {
        let all = flaws(&json).join("; ");
        assert!(all.contains(field), "{json}: {all}");
        assert!(!all.contains("SECRET"), "{all}");
    }
    assert_eq!(
        SaidReport::read(b"{\"title\": \"\x93\"}").unwrap_err().what,
        "is not written in UTF-8"
    );
}

#[test]
fn a_cancelled_report_needs_no_document_and_an_addendum_says_that_it_is_one() {
    assert_eq!(report(r#"{"accession": "A", "status": "X"}"#).unwrap().status, Status::Cancelled);
    let addendum = report(r#"{"accession": "A", "status": "addendum", "text": "x"}"#).unwrap();
    assert_eq!((addendum.status, addendum.is_addendum), (Status::Corrected, true));
    let unstated = report(r#"{"accession": "A", "text": "x"}"#).unwrap();
    assert_eq!((unstated.status, unstated.is_signed), (Status::Preliminary, false));
}

#[test]
fn a_name_says_what_the_file_is_about_and_how_far_or_nothing() {
    let of = |stem: &str| SaidReport::of_name(stem, &rules());
    let said = of("A_1_F").unwrap();
    assert_eq!((&*said.accession, &*said.status, &*said.study), ("A_1", "F", ""));
    let said = of("1.2.840.113619.2.55_final").unwrap();
    assert_eq!((&*said.study, &*said.accession), ("1.2.840.113619.2.55", ""));
    for odd in ["A1", "A1_Q", "_F", " _F", "F", "A1_"] {
        assert_eq!(of(odd), None, "{odd}");
    }
}
