//! Every reader of bytes that somebody else has written, as an entry point for fuzzing.
//!
//! An entry takes any bytes and returns; it panics when a promise is broken. `fuzz_targets/` gives
//! them to cargo-fuzz, `tests/fuzz.rs` runs the same ones on stable Rust with a seeded mutator and
//! bounds what an input may cost. Seeds come from `tests/data` and from this program's own
//! encoders.

mod dicom;
mod hl7;
mod reports;
mod spool;
mod text;
mod tunnel;
mod worklist;

/// A reader under test.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Its name: the fuzz target, and the folder of its inputs below `tests/regressions`.
    pub name: &'static str,
    /// Reads.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs of the cheapest entry take the time of one.
    pub cost: u32,
}

/// All of them.
pub const ENTRIES: [Entry; 25] = [
    entry("pdata_decoder", dicom::pdata_decoder, dicom::pdus, 1),
    entry("command_set", dicom::command_set, dicom::command_sets, 1),
    entry("association", dicom::association, dicom::pdus, 2),
    entry("requestor", dicom::requestor, dicom::answers, 2),
    entry("inquiry", dicom::inquiry, dicom::answers, 2),
    entry("data_set", dicom::data_set, dicom::data_sets, 10),
    entry("worklist", worklist::worklist, worklist::identifiers, 10),
    entry("header", dicom::header, dicom::data_sets, 4),
    entry("reencode", dicom::reencode, dicom::data_sets, 40),
    entry("mllp", hl7::mllp, hl7::frames, 2),
    entry("hl7", hl7::hl7, hl7::messages, 10),
    entry("hl7_answer", hl7::answer, hl7::answers, 4),
    entry("oru", reports::oru, reports::messages, 10),
    entry("report_document", reports::document, reports::documents, 10),
    entry("report", reports::report, reports::carried, 10),
    entry("said", reports::said, reports::saidings, 4),
    entry("narrative", reports::narrative, reports::narratives, 4),
    entry("frame", tunnel::frame, tunnel::frames, 1),
    entry("exchange", tunnel::exchange, tunnel::frames, 1),
    entry("receipt", tunnel::receipt, tunnel::receipts, 4),
    entry("note", tunnel::note, tunnel::notes, 2),
    entry("config", text::config, text::configs, 20),
    entry("control", text::control, text::controls, 1),
    entry("segment", spool::segment, spool::segments, 20),
    entry("recovery", spool::recovery, spool::spools, 400),
];

const fn entry(
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    cost: u32,
) -> Entry {
    Entry { name, run, seeds, cost }
}

/// Gives `data` to the entry of that name.
///
/// # Panics
///
/// When there is none, or the entry finds a promise broken.
pub fn run(name: &str, data: &[u8]) {
    let entry = ENTRIES.iter().find(|e| e.name == name).expect("a fuzz target of this name");
    (entry.run)(data);
}
