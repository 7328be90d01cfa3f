//! Fuzzing on stable Rust: every entry point of `fuzz/`, with mutated seeds, from one number.
//!
//! An input fails when it panics in any thread, takes more than [`CPU_MAX`] of processor time, or
//! makes more than [`MEMORY_MAX`] bytes stand at once. It is then written to
//! `tests/regressions/ENTRY/`, from where every later run reads it first: commit it with the fix.
//!
//! `HIKYAKU_FUZZ_ITERATIONS` is the number of inputs of the cheapest entry (default
//! [`ITERATIONS`]); `HIKYAKU_FUZZ_SEED` another beginning (default 1). See docs/testing.md.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, dead_code, reason = "it is a crate of its own for cargo-fuzz")]
mod targets;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use peak_alloc::PeakAlloc;
use targets::{ENTRIES, Entry};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Inputs of the cheapest entry in the short run.
const ITERATIONS: u64 = 20_000;
/// Most processor time of one input.
const CPU_MAX: Duration = Duration::from_secs(1);
/// Most bytes that one input may make stand at once: a node's fixed buffers, and 16 MiB.
const MEMORY_MAX: usize = 64 << 20;
/// Longest input.
const LENGTH_MAX: usize = 64 << 10;
/// After this time without an end, an input hangs.
const HANG: Duration = Duration::from_secs(120);

/// One entry at a time: allocations are counted for the whole process.
static TURN: Mutex<()> = Mutex::new(());
static PANICS: AtomicU64 = AtomicU64::new(0);
/// The input under test, and since when.
static LAST: LazyLock<Mutex<(Instant, Vec<u8>)>> =
    LazyLock::new(|| Mutex::new((Instant::now(), Vec::new())));

/// SplitMix64 (Steele, Lea, Flood 2014): the whole run follows from its first number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Numbers at which readers go wrong.
const NUMBERS: [u64; 12] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_fffe,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(input.len());
    let length = 1 + random.below(input.len() - at).min(1 << random.below(12));
    let end = (at + length).min(input.len());
    match random.below(9) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = random.next() as u8,
        2 => drop(input.drain(at..end)),
        3 => {
            let piece = input[at..end].to_vec();
            let times = 1 + random.below(4);
            (0..times).for_each(|_| drop(input.splice(at..at, piece.iter().copied())));
        }
        4 => input.truncate(at),
        5 => {
            let from = random.below(other.len());
            let to = (from + length).min(other.len());
            input.splice(at..end, other[from..to].iter().copied());
        }
        6 => {
            let piece: Vec<u8> = (0..length.min(16)).map(|_| random.next() as u8).collect();
            input.splice(at..at, piece);
        }
        _ => {
            let number = match random.below(4) {
                0 => input.len() as u64,
                1 => random.next() & 0x1_ffff,
                _ => NUMBERS[random.below(NUMBERS.len())],
            };
            let width = 1 << random.below(4);
            let mut bytes = number.to_le_bytes()[..width].to_vec();
            if random.below(2) == 0 {
                bytes.reverse();
            }
            let width = width.min(input.len() - at);
            input[at..at + width].copy_from_slice(&bytes[..width]);
        }
    }
    input.truncate(LENGTH_MAX);
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the kernel counts");
    let used = usage.user_time() + usage.system_time();
    Duration::from_micros(used.num_microseconds().unsigned_abs())
}

/// What is wrong with this input, if anything is.
fn fault(entry: &Entry, input: &[u8]) -> Option<String> {
    let (panics, spent) = (PANICS.load(Ordering::SeqCst), cpu());
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let ended = panic::catch_unwind(AssertUnwindSafe(|| (entry.run)(input)));
    let stood = ALLOCATED.peak_usage().saturating_sub(before);
    let spent = cpu().saturating_sub(spent);
    if ended.is_err() || PANICS.load(Ordering::SeqCst) != panics {
        return Some("it panics".into());
    }
    if stood > MEMORY_MAX {
        return Some(format!("it makes {stood} bytes stand"));
    }
    (spent > CPU_MAX).then(|| format!("it takes {spent:?} of processor time"))
}

fn regressions(entry: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions").join(entry)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(entry: &Entry, input: &[u8], origin: &str) {
    lock(&LAST).clone_from(&(Instant::now(), input.to_vec()));
    if let Some(fault) = fault(entry, input) {
        let path = keep(entry.name, input);
        panic!("{} ({origin}): {fault}: {}", entry.name, path.display());
    }
}

/// Writes a failing input where later runs read it first.
fn keep(entry: &str, input: &[u8]) -> PathBuf {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| {
        (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = regressions(entry).join(format!("{hash:016x}"));
    fs::create_dir_all(regressions(entry)).expect("a folder");
    fs::write(&path, input).expect("a file");
    path
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().expect("a number"))
}

/// Counts panics of every thread.
fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let say = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            say(info);
        }));
    });
}

/// Ends the process when an input hangs.
struct Watchdog(#[expect(dead_code, reason = "its drop says that all is over")] Sender<()>);

impl Watchdog {
    fn over(entry: &'static str) -> Self {
        let (over, is_over) = channel();
        std::thread::spawn(move || {
            while is_over.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                let (since, input) = &*lock(&LAST);
                if since.elapsed() > HANG {
                    eprintln!("{entry}: an input hangs: {}", keep(entry, input).display());
                    std::process::abort();
                }
            }
        });
        Self(over)
    }
}

fn fuzz(name: &str) {
    let _turn = lock(&TURN);
    watch();
    let entry = ENTRIES.iter().find(|e| e.name == name).expect("an entry of this name");
    let _watchdog = Watchdog::over(entry.name);
    let seeds = (entry.seeds)();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    if let Ok(files) = fs::read_dir(regressions(entry.name)) {
        for file in files {
            let path = file.expect("an entry").path();
            check(entry, &fs::read(&path).expect("a file"), "known");
        }
    }
    for seed in &seeds {
        check(entry, seed, "seed");
    }
    let first = number("HIKYAKU_FUZZ_SEED", 1);
    let iterations = number("HIKYAKU_FUZZ_ITERATIONS", ITERATIONS) / u64::from(entry.cost);
    let began = Instant::now();
    let mut random = Random(first);
    for n in 0..iterations.max(1) {
        let mut input = seeds[random.below(seeds.len())].clone();
        let other = &seeds[random.below(seeds.len())];
        for _ in 0..=random.below(8) {
            mutate(&mut random, &mut input, other);
        }
        check(entry, &input, &format!("HIKYAKU_FUZZ_SEED={first}, input {n}"));
    }
    println!("{name}: {iterations} inputs in {:?}", began.elapsed());
}

#[test]
fn no_bytes_make_the_upper_layer_decoder_fail() {
    fuzz("pdata_decoder");
}

#[test]
fn no_bytes_make_the_command_set_reader_fail() {
    fuzz("command_set");
}

#[test]
fn no_bytes_make_an_association_fail() {
    fuzz("association");
}

#[test]
fn no_answer_makes_the_requestor_fail() {
    fuzz("requestor");
}

#[test]
fn no_answer_makes_an_inquiry_fail() {
    fuzz("inquiry");
}

#[test]
fn no_data_set_of_a_service_makes_its_reader_fail() {
    fuzz("data_set");
}

#[test]
fn no_worklist_query_and_no_item_makes_its_reader_fail() {
    fuzz("worklist");
}

#[test]
fn no_data_set_makes_the_header_reader_fail() {
    fuzz("header");
}

#[test]
fn no_data_set_makes_reencoding_fail() {
    fuzz("reencode");
}

#[test]
fn no_bytes_make_the_mllp_deframer_fail_and_how_they_are_cut_does_not_matter() {
    fuzz("mllp");
}

#[test]
fn no_message_makes_the_hl7_reader_fail_and_orders_are_written_as_they_read() {
    fuzz("hl7");
}

#[test]
fn no_answer_makes_the_hl7_sender_fail_or_tell_a_name_and_none_counts_for_another_message() {
    fuzz("hl7_answer");
}

#[test]
fn no_message_makes_the_reader_of_reports_fail() {
    fuzz("oru");
}

#[test]
fn no_document_makes_the_reader_of_reports_fail() {
    fuzz("report_document");
}

#[test]
fn no_carried_report_makes_its_reader_fail() {
    fuzz("report");
}

#[test]
fn no_sidecar_and_no_name_of_a_file_makes_its_reader_fail() {
    fuzz("said");
}

#[test]
fn no_cda_document_makes_the_reader_of_its_narrative_fail() {
    fuzz("narrative");
}

#[test]
fn no_bytes_make_the_frame_decoder_fail() {
    fuzz("frame");
}

#[test]
fn no_frames_make_an_exchange_fail() {
    fuzz("exchange");
}

#[test]
fn no_receipt_makes_the_verifier_fail() {
    fuzz("receipt");
}

#[test]
fn no_note_makes_its_reader_fail() {
    fuzz("note");
}

#[test]
fn no_configuration_makes_its_reader_fail() {
    fuzz("config");
}

#[test]
fn no_request_makes_the_control_socket_fail() {
    fuzz("control");
}

#[test]
fn no_segment_makes_its_reader_fail() {
    fuzz("segment");
}

#[test]
fn no_damaged_segment_keeps_a_node_from_starting() {
    fuzz("recovery");
}

/// For cargo-fuzz: `fuzz/corpus/TARGET/`.
#[test]
#[ignore = "writes files: run it by name before cargo fuzz"]
fn write_the_seeds_as_corpora() {
    for entry in ENTRIES {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(entry.name);
        fs::create_dir_all(&dir).expect("a folder");
        for (n, seed) in (entry.seeds)().iter().enumerate() {
            fs::write(dir.join(format!("seed-{n:03}")), seed).expect("a file");
        }
    }
}
