//! Nodes that have little: no file descriptors, little memory.
//!
//! `HIKYAKU_HUGE=1` sends 3.9 GiB through two nodes of 300 MiB each instead of the short version's
//! 600 MiB through 150 MiB; it needs 12 GiB in the temporary folder. Control groups need root.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use hikyaku::cargo::Hasher;

use crate::chance::scale;
use crate::crash::settled;
use crate::sender::{Association, Load, Shape, front, new_study};
use crate::site::{Node, Port, READING, Site, is_root, until};

#[test]
fn without_descriptors_senders_are_turned_away_and_nothing_breaks() {
    let site = Site::new();
    let reading = site.reading().folder_destination("out").route_all("out").start();
    let hospital = site
        .hospital(reading.port(Port::Tunnel))
        .set("dicom.limits", "associations = 500\nassociations_per_address = 500")
        .wrapper(&["prlimit", "--nofile=64:64"])
        .start();
    let load = Load::start(hospital.port(Port::Dicom), Shape::default());
    until("there is load", || load.acked_count() > 5);
    // The kernel accepts them; the node has no descriptor for all of them.
    let port = hospital.port(Port::Dicom);
    let idle: Vec<TcpStream> =
        (0..120).filter_map(|_| TcpStream::connect(("127.0.0.1", port)).ok()).collect();
    until("descriptors are gone", || hospital.log().contains("cannot accept connections"));
    thread::sleep(Duration::from_secs(3));
    assert!(hospital.ended().is_none(), "the node goes on");
    drop(idle);
    let before = load.acked_count();
    until("it takes again", || load.acked_count() > before + 20);
    let acked = load.finish();
    settled(&hospital, READING);
    assert_eq!(hospital.count(READING, "receipted"), acked.len() as u64);
    assert_eq!(hospital.count(READING, "quarantined"), 0, "nothing is taken for damaged");
    assert!(!hospital.log().contains("panicked"));
}

/// A control group of one node with so much memory, page cache included.
struct Memory {
    dir: PathBuf,
    limit: u64,
}

impl Memory {
    /// `None`, with a word why, where groups cannot be made.
    fn limited(site: &Site, name: &str, limit: u64) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let unique = site.path().file_name().expect("a name").to_string_lossy().into_owned();
        let old = Path::new("/sys/fs/cgroup/memory");
        let (parent, file) = match old.is_dir() {
            true => (old, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let dir = parent.join(format!("{unique}-{name}"));
        let made = fs::create_dir(&dir).and_then(|()| fs::write(dir.join(file), limit.to_string()));
        if let Err(e) = made {
            eprintln!("skipped: needs a memory control group: {e}");
            return None;
        }
        Some(Self { dir, limit })
    }

    /// What a node is started by, to be in the group.
    fn wrapper(&self) -> [String; 4] {
        let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.dir.display());
        ["sh".into(), "-c".into(), enter, "sh".into()]
    }

    /// Processes that the kernel killed for want of memory.
    fn killed(&self) -> u64 {
        let files = ["memory.oom_control", "memory.events"];
        let text: String =
            files.iter().filter_map(|f| fs::read_to_string(self.dir.join(f)).ok()).collect();
        let line = text.lines().find_map(|l| l.strip_prefix("oom_kill "));
        line.expect("a count").trim().parse().expect("a number")
    }

    /// The node lives and never had more than its memory.
    fn check(&self, node: &Node) {
        assert_eq!(self.killed(), 0, "{} was killed", node.name());
        assert!(node.ended().is_none(), "{} goes on", node.name());
        let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("a process");
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("its peak");
        eprintln!("{}: peak {}, limit {} MiB", node.name(), peak.trim(), self.limit >> 20);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Its process has just ended; the kernel may take a moment.
        for _ in 0..50 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn words(wrapper: &[String; 4]) -> Vec<&str> {
    wrapper.iter().map(String::as_str).collect()
}

#[test]
fn an_image_larger_than_all_memory_passes_through_both_nodes() {
    let huge = scale("HIKYAKU_HUGE", 0) > 0;
    let (length, limit): (u32, u64) =
        if huge { (4_187_593_112, 300 << 20) } else { (600 << 20, 150 << 20) };
    let site = Site::new();
    let Some(near) = Memory::limited(&site, "hospital", limit) else { return };
    let Some(far) = Memory::limited(&site, "reading", limit) else { return };
    let capacity = "capacity = \"64 GiB\"";
    let reading = site.reading().folder_destination("out").route_all("out");
    let reading = reading.set("spool", capacity).wrapper(&words(&far.wrapper())).start();
    let hospital = site.hospital(reading.port(Port::Tunnel));
    let hospital = hospital.set("spool", capacity).wrapper(&words(&near.wrapper())).start();

    let study = new_study();
    let sop = format!("{study}.1.1");
    let mut association = Association::open(hospital.port(Port::Dicom)).expect("an association");
    let stored = association.store_fragments(&sop, pieces(&study, &sop, length));
    assert_eq!(stored, Ok(0));
    association.release();
    let out = site.path().join("out");
    until("the reading node has it", || reading.count("out", "receipted") == 1);
    near.check(&hospital);
    far.check(&reading);

    let mut sent = Hasher::new();
    pieces(&study, &sop, length).for_each(|piece| sent.update(&piece));
    let file = only_file(&out);
    assert_eq!(digest(&file), sent.finish().to_string(), "it arrived as it was sent");
}

/// The data set of a large multi-frame, in pieces that fit into a PDU.
fn pieces(study: &str, sop: &str, length: u32) -> impl Iterator<Item = Vec<u8>> {
    const PIECE: u32 = 60_000;
    let pixels = (0..length.div_ceil(PIECE)).map(move |n| {
        let size = PIECE.min(length - n * PIECE) as usize;
        let mut piece = vec![n as u8; size];
        let mark = n.to_be_bytes();
        piece[..4].copy_from_slice(&mark);
        piece
    });
    std::iter::once(front(study, sop, length)).chain(pixels)
}

fn only_file(dir: &Path) -> PathBuf {
    let mut folders = vec![dir.to_path_buf()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Of the data set of a Part 10 file that does not fit into memory.
fn digest(file: &Path) -> String {
    let mut file = fs::File::open(file).expect("a file");
    let mut head = [0; 144];
    file.read_exact(&mut head).expect("a preamble");
    let group = u32::from_le_bytes(head[140..144].try_into().expect("four bytes"));
    let mut meta = vec![0; group as usize];
    file.read_exact(&mut meta).expect("meta information");
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).expect("a file that can be read") {
            0 => return hasher.finish().to_string(),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[test]
fn two_hundred_associations_fit_into_256_mib() {
    let site = Site::new();
    let Some(group) = Memory::limited(&site, "hospital", 256 << 20) else { return };
    let reading = site.reading().folder_destination("out").route_all("out").start();
    let hospital = site
        .hospital(reading.port(Port::Tunnel))
        .set("dicom.limits", "associations = 200\nassociations_per_address = 200")
        .wrapper(&words(&group.wrapper()))
        .start();
    let shape = Shape { associations: 210, length: 400_000, pause: Duration::ZERO };
    let load = Load::start(hospital.port(Port::Dicom), shape);
    let peak = || hospital.metric("hikyaku_associations", &[]) as u64;
    until("two hundred are open", || peak() >= 195);
    until("there is load", || load.acked_count() > 600);
    // The others are turned away for the moment (PS3.8 9.3.4: result 2) and come again.
    let label = "hikyaku_associations_refused_total";
    hospital.reaches(label, &[], 1.0);
    group.check(&hospital);
    let acked = load.finish();
    settled(&hospital, READING);
    assert_eq!(hospital.count(READING, "receipted"), acked.len() as u64);
    group.check(&hospital);
}
