//! The steps of the circle around the images: the order before them, and what comes home after them.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::images::Image;
use super::players::{self, ACCESSION, ORDER, PHYSICIAN, READER, TEXT};
use super::scene::{FILES, HIS, HOSPITAL, READING, Scene, registrar, secretary};
use super::{PATIENCE, failed, soon, too_late};
use crate::cargo::Sha256;
use crate::cli::table::say;
use crate::cli::{Failure, Outcome};
use crate::clock;
use crate::node::Node;
use crate::orders::verdict::What;
use crate::reports::critical::State;
use crate::reports::secretary::{LoopRow, Story};
use crate::reports::turnaround::Moment;

/// The RIS orders, and the reading centre knows of it before there is an image.
pub(super) async fn order(scene: &Scene, study: &str) -> Outcome {
    say("4. A RIS sends an order by HL7 (ORM^O01) to the hospital:")?;
    let begun = clock::now();
    let answer = players::tell(scene.orders()?, &players::order(study)).await?;
    if answer != "AA" {
        return Err(failed(format!("{HOSPITAL} answered {answer} to the order")));
    }
    say(&format!("   order {ORDER}, accession number {ACCESSION}: answer AA {}", since(begun)))?;
    let reading = registrar(&scene.reading)?;
    let order = soon("the order to be at the reading centre", async || {
        reading.order(ORDER.into()).await.ok()?.into_iter().next()
    });
    let order = order.await?.order;
    say(&format!(
        "   {READING} has it {}, as version {} of {}",
        since(begun),
        order.version,
        order.key.origin
    ))
}

/// The reading centre counts, and says so to the hospital.
pub(super) async fn complete(scene: &Scene, study: &str, images: usize) -> Outcome {
    say(&format!(
        "9. {READING} counts the images, and compares them with what the scanner has said:"
    ))?;
    let reading = registrar(&scene.reading)?;
    let case = soon("the study to be complete at the reading centre", async || {
        let case = reading.study(study.into()).await.ok()?.into_iter().next()?;
        let progress = case.standing.as_ref()?.progress;
        (progress == What::Complete).then_some(case)
    });
    let case = case.await?;
    let of = case.matched.order().map(|key| key.number.clone()).unwrap_or_default();
    let standing = case.standing.ok_or_else(|| failed("a complete study has no standing"))?;
    if standing.arrived as usize != images || of != ORDER {
        let arrived = standing.arrived;
        return Err(failed(format!("{READING} counted {arrived} images of order {of:?}")));
    }
    let word = word(&standing.progress);
    say(&format!("   {} images of order {of}: {word}", standing.arrived))?;
    let received = moment(&scene.hospital, study, Moment::Received).await?;
    say(&format!("   {HOSPITAL} has its receipt notice: the study is whole there since {received}"))
}

/// The reporting system reports, and the report finds its study and comes home.
pub(super) async fn report(scene: &Scene, study: &str) -> Result<Story, Failure> {
    let message = players::report(study);
    say("10. A reporting system sends a signed, final, critical report by HL7 (ORU^R01):")?;
    for line in TEXT {
        say(&format!("    {line}"))?;
    }
    let begun = clock::now();
    let answer = players::tell(scene.reports()?, &message).await?;
    if answer != "AA" {
        return Err(failed(format!("{READING} answered {answer} to the report")));
    }
    let digest = Sha256::of(message.as_bytes()).to_string();
    say(&format!(
        "    signed by {READER}, SHA-256 {}…: answer AA {}",
        &digest[..16],
        since(begun)
    ))?;
    let there = story(&scene.reading, study).await?;
    say(&format!("11. {READING} has placed it by {}; {HOSPITAL} has it, too:", word(&there.by)))?;
    let here = story(&scene.hospital, study).await?;
    let document = |story: &Story| -> Option<String> {
        Some(story.versions.last()?.documents.first()?.0.clone())
    };
    let (mine, theirs) = (document(&here), document(&there));
    if mine.is_none() || mine != theirs {
        return Err(failed("the two nodes have different reports"));
    }
    say(&format!(
        "    report {}, document {}, {}, {}",
        here.row.report,
        mine.unwrap_or_default(),
        word(&here.row.status),
        if here.row.is_signed { "signed" } else { "NOT SIGNED" }
    ))?;
    Ok(here)
}

/// The hospital's systems have it, and both ends know.
pub(super) async fn home(scene: &mut Scene, study: &str) -> Outcome {
    say("12. The HIS gets an ORU^R01, and answers AA:")?;
    let patience = tokio::time::timeout(PATIENCE, scene.his.told.recv());
    let told = patience.await.ok().flatten();
    let told = told.ok_or_else(|| too_late("the HIS to get the report"))?;
    for (what, field, expected) in [
        ("MSH-9", players::field(&told, "MSH", 9), "ORU^R01^ORU_R01"),
        ("OBR-2", players::field(&told, "OBR", 2), ORDER),
        ("OBR-18", players::field(&told, "OBR", 18), ACCESSION),
        ("OBR-25", players::field(&told, "OBR", 25), "F"),
    ] {
        if field != expected {
            return Err(failed(format!("the HIS got {field:?} in {what}, and not {expected:?}")));
        }
    }
    let id = players::field(&told, "MSH", 10);
    fs::write(scene.dir.join("his.hl7"), &told).map_err(failed)?;
    say(&format!(
        "    message {id}: order {ORDER}, accession number {ACCESSION}, final (his.hl7)"
    ))?;
    let lines = players::lines(&told);
    for line in TEXT {
        if !lines.contains(&line) {
            return Err(failed("the HIS got another text than was written"));
        }
        say(&format!("    {line} (identical)"))?;
    }
    say("13. A folder of the hospital gets files:")?;
    for file in soon("the files of the report", async || files(scene)).await? {
        say(&format!("    {file}"))?;
    }
    for (at, node) in [(HOSPITAL, &scene.hospital), (READING, &scene.reading)] {
        let desk = secretary(node)?;
        soon("every system's yes to be known at both ends", async || {
            let story = desk.story(study.into()).await.ok()?.into_iter().next()?;
            let has = |name: &str| {
                let mut all = story.row.destinations.iter();
                all.any(|(d, state)| d.as_str() == name && state == "accepted")
            };
            (has(HIS) && has(FILES)).then_some(())
        })
        .await?;
        say(&format!("    {at} knows: {HIS} accepted, {FILES} accepted"))?;
    }
    Ok(())
}

/// A line for each file that the index names, once PDF and text are there.
fn files(scene: &Scene) -> Option<Vec<String>> {
    let home = scene.dir.join("home");
    let index = fs::read_to_string(home.join("reports/index.jsonl")).ok()?;
    let lines: Vec<Value> =
        index.lines().map(serde_json::from_str).collect::<Result<_, _>>().ok()?;
    let (mut shown, mut pdf, mut text) = (Vec::new(), false, false);
    for line in lines {
        let (file, said) = (line["file"].as_str()?, line["sha256"].as_str()?);
        let bytes = fs::read(home.join(file)).ok()?;
        if Sha256::of(&bytes).to_string() != said {
            return None;
        }
        pdf |= bytes.starts_with(b"%PDF-");
        let is_text = file.ends_with(".txt");
        let read = String::from_utf8_lossy(&bytes);
        text |= is_text && TEXT.iter().all(|line| read.lines().any(|have| have == *line));
        let note = if is_text { ", text identical" } else { "" };
        let (short, length) = (&said[..16], bytes.len());
        shown.push(format!("home/{file}: {length} bytes, SHA-256 {short}…{note}"));
    }
    (pdf && text).then_some(shown)
}

/// It is critical: a system's yes is not enough, a person must know.
pub(super) async fn acknowledge(scene: &Scene, study: &str, report: &str) -> Outcome {
    let desk = secretary(&scene.hospital)?;
    say("14. The report is critical: that systems have it is not enough, a person must know.")?;
    let open = soon("the critical result to be told", async || {
        let open = desk.criticals(false, 10).await.ok()?;
        open.into_iter().find(|row| row.report == report)
    });
    let open = open.await?;
    say(&format!("    {HOSPITAL}: {} since {}", word(&open.state), open.since))?;
    moment(&scene.hospital, study, Moment::Delivered).await?;
    let before = row(&scene.hospital, study).await.ok_or_else(|| failed("the loop is closed"))?;
    if before.moments.iter().any(|(moment, _)| *moment == Moment::Acknowledged) {
        return Err(failed("the circle was closed before a person knew"));
    }
    let by = format!("{PHYSICIAN} (demo)");
    desk.acknowledge(report.into(), by.clone()).await.map_err(failed)?;
    say(&format!("    {PHYSICIAN} says: I know (hikyaku critical ack {report} --by NAME)"))?;
    let away = secretary(&scene.reading)?;
    soon("the reading centre to hear that a person knows", async || {
        let story = away.story(study.into()).await.ok()?.into_iter().next()?;
        (story.row.critical == Some(State::Acknowledged)).then_some(())
    })
    .await?;
    say(&format!("    {READING} has heard it."))?;
    for node in [&scene.hospital, &scene.reading] {
        soon("the circle to be closed at both ends", async || {
            let desk = node.view().reports.clone()?;
            let rows = desk.loops(false, 10).await.ok()?;
            rows.iter().all(|row| row.study != study).then_some(())
        })
        .await?;
    }
    let mut said = String::from("15. The circle is closed at both ends:");
    for (moment, at) in &before.moments {
        said.push_str(&format!("\n    {:12} {at}", moment.as_str()));
    }
    said.push_str(&format!("\n    {:12} {}", Moment::Acknowledged.as_str(), clock::wall()));
    say(&said)
}

/// The report of a study at a node, once it is there.
async fn story(node: &Node, study: &str) -> Result<Story, Failure> {
    let desk = secretary(node)?;
    let what = format!("the report to be placed at {}", node.view().node());
    soon(&what, async || desk.story(study.into()).await.ok()?.into_iter().next()).await
}

/// The open loop of a study.
async fn row(node: &Node, study: &str) -> Option<LoopRow> {
    let rows = node.view().reports.clone()?.loops(false, 10).await.ok()?;
    rows.into_iter().find(|row| row.study == study)
}

/// When a moment of the loop was, once it was.
async fn moment(node: &Node, study: &str, wanted: Moment) -> Result<String, Failure> {
    let what = format!("{} to know that the study is {}", node.view().node(), wanted.as_str());
    soon(&what, async || {
        let row = row(node, study).await?;
        row.moments.iter().find(|(m, _)| *m == wanted).map(|(_, at)| at.to_string())
    })
    .await
}

/// The word that documents use.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

fn since(begun: clock::Monotonic) -> String {
    format!("after {:.2} s", clock::now().since(begun).as_secs_f64())
}

/// Study Instance UID of the images.
pub(super) fn study(images: &[Image]) -> Result<String, Failure> {
    images.first().map(|image| image.study.clone()).ok_or_else(|| failed("there are no images"))
}

/// Where the hospital's files are.
pub(super) fn folder(scene: &Scene) -> PathBuf {
    scene.dir.join("home/reports")
}
