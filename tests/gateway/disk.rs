//! Disks that are full, read-only, broken or slow. Most of it needs root (mounts) or ptrace
//! (strace), and says so where it cannot have it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;

use crate::crash::{all_arrived, settled};
use crate::foreign::Scp;
use crate::mount::Mounted;
use crate::sender::{Association, Load, Object, Shape, new_study, objects, send_ok};
use crate::site::{HOSPITAL, Node, Port, READING, Site, is_root, run, run_ok, terminate, until};
use crate::trace::Strace;

/// Refused: out of resources (PS3.4 B.2.3).
const OUT_OF_RESOURCES: u16 = 0xA700;

/// The smallest spool that a configuration may have.
const SMALL: &str = "capacity = \"256 MiB\"\nreserve = \"16 MiB\"\nsegment = \"16 MiB\"";

/// A hospital on a file system of its own, a reading node that is down, and a receiver.
struct Ward {
    pacs: Scp,
    hospital: Node,
    reading: Node,
    place: PathBuf,
    _mounted: Mounted,
    _site: Site,
}

impl Ward {
    /// On a tmpfs with these options; `None`, with a word why, where it cannot be mounted.
    fn on_tmpfs(options: &str, spool: &str) -> Option<Self> {
        Self::on(|_, place| Mounted::new(place, &["-t", "tmpfs", "-o", options, "none"]), spool)
    }

    fn on(mount: impl Fn(&Path, &Path) -> Option<Mounted>, spool: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let site = Site::new();
        let place = site.path().join(HOSPITAL);
        let mounted = mount(site.path(), &place)?;
        let pacs = Scp::start(&site, &[]);
        let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs");
        let hospital = site.hospital(reading.port(Port::Tunnel)).set("spool", spool).start();
        let reading = reading.write();
        Some(Self { pacs, hospital, reading, place, _mounted: mounted, _site: site })
    }

    fn port(&self) -> u16 {
        self.hospital.port(Port::Dicom)
    }

    fn free(&self) -> u64 {
        let fs = statvfs(&self.place).expect("a file system");
        fs.blocks_available() * fs.fragment_size()
    }

    /// Files of bodies on their way in.
    fn partials(&self) -> usize {
        fs::read_dir(self.place.join("partial")).map_or(0, Iterator::count)
    }

    /// Ends the load and checks that all it was promised arrives.
    fn end(&self, load: Load) {
        let acked = load.finish();
        self.pacs.wait(acked.len());
        settled(&self.hospital, READING);
        settled(&self.reading, "pacs");
        all_arrived(&acked, &self.pacs.arrived());
    }
}

/// 400 kB objects as fast as they are taken.
fn heavy() -> Shape {
    Shape { length: 400_000, pause: Duration::from_millis(1), ..Shape::default() }
}

#[test]
fn a_full_spool_refuses_with_a700_drains_and_takes_again_by_itself() {
    let spool = &format!("{SMALL}\nretention = \"0s\"");
    let Some(ward) = Ward::on_tmpfs("size=64M", spool) else { return };
    let load = Load::start(ward.port(), heavy());
    until("the spool is full", || load.refused(OUT_OF_RESOURCES) > 5);
    assert_eq!(load.refusals().len(), 1, "no other refusal: {:?}", load.refusals());
    assert_eq!(load.lost(), 0, "no association is lost");
    assert!(ward.free() > 5 << 20, "refused before the disk is full: {} free", ward.free());
    until("it is not ready", || ward.hospital.page("/ready").0 == 503);
    until("the metric says so", || ward.hospital.metric("hikyaku_spool_full", &[]) > 0.5);

    // A body that grows beyond what is left is refused late, and leaves nothing behind.
    let large = Object::new(&new_study(), 1, 30_000_000);
    let mut association = Association::open(ward.port()).expect("an association");
    assert_eq!(association.store(&large), Ok(OUT_OF_RESOURCES));
    association.release();
    until("what came of it is removed", || ward.partials() == 0);

    let before = load.acked_count();
    ward.reading.start();
    until("it takes again", || load.acked_count() > before + 20);
    ward.end(load);
    until("it is ready", || ward.hospital.page("/ready").0 == 200);
}

#[test]
fn a_disk_that_another_program_has_filled_still_drains() {
    let spool = &format!("{SMALL}\nretention = \"0s\"");
    let Some(ward) = Ward::on_tmpfs("size=64M", spool) else { return };
    let sent = objects(20, 100_000);
    send_ok(ward.port(), &sent);
    let filler = ward.place.join("not-ours");
    fill(&filler);
    assert!(ward.free() < 1 << 20);
    let mut association = Association::open(ward.port()).expect("an association");
    until("it refuses", || {
        association.store(&Object::new(&new_study(), 1, 100_000)) == Ok(OUT_OF_RESOURCES)
    });
    association.release();
    ward.reading.start();
    ward.pacs.wait(20);
    settled(&ward.hospital, READING);
    assert_eq!(ward.hospital.ended(), None, "the node goes on");
    fs::remove_file(&filler).expect("the filler");
    let load = Load::start(ward.port(), heavy());
    until("it takes again", || load.acked_count() > 5);
    ward.end(load);
}

#[test]
fn a_node_starts_and_drains_on_a_disk_without_room() {
    let spool = &format!("{SMALL}\nretention = \"0s\"");
    let Some(ward) = Ward::on_tmpfs("size=64M", spool) else { return };
    let sent = objects(150, 50_000);
    send_ok(ward.port(), &sent);
    fill(&ward.place.join("not-ours"));
    for ending in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
        ward.hospital.signal(ending);
        ward.hospital.wait_ended();
        ward.hospital.start();
    }
    ward.reading.start();
    ward.pacs.wait(150);
    settled(&ward.hospital, READING);
    assert!(ward.hospital.ended().is_none(), "the node goes on");
    let arrived = ward.pacs.arrived();
    assert_eq!(arrived.len(), 150, "each once");
}

/// Writes until the file system has no room.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = File::create(path).expect("a file");
    let mut chunk = 1 << 20;
    while chunk >= 512 {
        if file.write_all(&vec![1; chunk]).is_err() {
            chunk /= 2;
        }
    }
}

#[test]
fn a_disk_without_inodes_refuses_with_a700_and_takes_again_by_itself() {
    let Some(ward) = Ward::on_tmpfs("size=256M,nr_inodes=200", SMALL) else { return };
    let folder = ward.place.join("not-ours");
    fs::create_dir(&folder).expect("a folder");
    let made = (0..).take_while(|n| File::create(folder.join(n.to_string())).is_ok()).count();
    assert!(made > 50, "{made} inodes are gone");
    // A large body needs a file of its own.
    let large = Object::new(&new_study(), 1, 9_000_000);
    let mut association = Association::open(ward.port()).expect("an association");
    assert_eq!(association.store(&large), Ok(OUT_OF_RESOURCES));
    // Small ones go on into the segment that is open.
    let small = Object::new(&new_study(), 1, 10_000);
    assert_eq!(association.store(&small), Ok(0));
    fs::remove_dir_all(&folder).expect("the folder");
    assert_eq!(association.store(&large), Ok(0));
    association.release();
    ward.reading.start();
    let arrived = ward.pacs.wait(2);
    let digests: Vec<&str> = arrived.iter().map(|a| a.sha256.as_str()).collect();
    assert!(digests.contains(&large.sha256().as_str()));
    assert!(digests.contains(&small.sha256().as_str()));
}

#[test]
fn a_spool_that_turns_read_only_refuses_alarms_and_recovers_by_itself() {
    let site = Site::new();
    let reading = site.reading().folder_destination("out").route_all("out").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let sent = objects(3, 20_000);
    send_ok(hospital.port(Port::Dicom), &sent);
    // A file system with files open for writing cannot be remounted; this is what they would see.
    let calls = "pwrite64,ftruncate,fallocate,unlink,rename,mkdir:error=EROFS";
    let Some(broken) = Strace::attach(&hospital, calls) else { return };
    let object = Object::new(&new_study(), 1, 20_000);
    let mut association = Association::open(hospital.port(Port::Dicom)).expect("an association");
    for _ in 0..3 {
        assert_eq!(association.store(&object), Ok(OUT_OF_RESOURCES));
    }
    // Its ledger cannot be written either. Then it ends, and whoever supervises it starts it
    // again until it can.
    until("it says why, or ends", || {
        hospital.ended().is_some() || {
            let (_, page) = hospital.page("/ready");
            page.contains("the spool cannot be written to")
        }
    });
    assert!(hospital.log().contains("Read-only file system"));
    drop(broken);
    thread::sleep(Duration::from_secs(2));
    if hospital.ended().is_some() {
        assert_eq!(hospital.wait_ended().code(), Some(1));
        hospital.start();
    }
    until("it takes again", || {
        let again = Association::open(hospital.port(Port::Dicom));
        again.and_then(|mut a| a.store(&object)) == Ok(0)
    });
    until("it is ready", || hospital.page("/ready").0 == 200);
    settled(&hospital, READING);
    assert_eq!(hospital.count(READING, "receipted"), 4);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_the_node_ends() {
    for when in ["1", "3"] {
        let site = Site::new();
        let pacs = Scp::start(&site, &[]);
        let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs");
        let hospital = site.hospital(reading.port(Port::Tunnel)).start();
        let reading = reading.write();
        let load = Load::start(hospital.port(Port::Dicom), Shape::default());
        until("there is load", || load.acked_count() > 10);
        // It fails once; the next sync of the same file would succeed and mean nothing.
        let calls = format!("fdatasync,fsync,sync_file_range:error=EIO:when={when}");
        let Some(broken) = Strace::attach(&hospital, &calls) else { return };
        let status = hospital.wait_ended();
        drop(broken);
        assert_eq!(status.code(), Some(1), "it ends with an error");
        let at_the_end = load.acked_count();
        let log = hospital.log();
        assert!(log.contains("nothing will be acknowledged any more"), "it is said");
        thread::sleep(Duration::from_millis(500));
        assert_eq!(load.acked_count(), at_the_end);
        hospital.start();
        reading.start();
        until("it takes again", || load.acked_count() > at_the_end);
        let acked = load.finish();
        pacs.wait(acked.len());
        all_arrived(&acked, &pacs.arrived());
    }
}

#[test]
fn a_ledger_that_cannot_be_written_makes_the_node_begin_anew_and_loses_nothing() {
    let site = Site::new();
    let pacs = Scp::start(&site, &[]);
    let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let load = Load::start(hospital.port(Port::Dicom), Shape::default());
    until("there is load", || load.acked_count() > 10);
    let pid = hospital.pid();
    let ledger = hospital.data().join("ledger/db");
    let calls = "pwrite64:error=ENOSPC";
    let Some(broken) = Strace::attach_to_file(&hospital, calls, &ledger) else { return };
    until("it begins anew", || hospital.log().contains("beginning anew"));
    drop(broken);
    let then = load.acked_count();
    until("it takes again", || load.acked_count() > then + 20);
    assert_eq!((hospital.ended(), hospital.pid()), (None, pid), "it is the same process");
    let acked = load.finish();
    settled(&hospital, READING);
    settled(&reading, "pacs");
    all_arrived(&acked, &pacs.arrived());
    assert_eq!(pacs.arrived().len(), acked.len(), "each once");
}

#[test]
fn slow_syncs_slow_the_senders_down_and_not_the_memory_up() {
    let site = Site::new();
    let reading = site.reading().folder_destination("out").route_all("out").start();
    let hospital = site.hospital(reading.port(Port::Tunnel)).start();
    let calls = "fdatasync,fsync:delay_enter=300000";
    let Some(slow) = Strace::attach(&hospital, calls) else { return };
    let shape = Shape { associations: 12, length: 500_000, pause: Duration::ZERO };
    let load = Load::start(hospital.port(Port::Dicom), shape);
    until("there is load", || load.acked_count() >= 24);
    let before = resident(&hospital);
    until("there is more load", || load.acked_count() >= 200);
    let after = resident(&hospital);
    assert!(after < before + (48 << 20), "{before} bytes of memory became {after}");
    assert_eq!(load.refusals().len(), 0, "{:?}", load.refusals());
    assert_eq!(load.lost(), 0);
    drop(slow);
    let acked = load.finish();
    settled(&hospital, READING);
    assert_eq!(hospital.count(READING, "receipted"), acked.len() as u64);
}

/// Bytes of a node's memory that are in use.
pub(crate) fn resident(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("a process");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("its memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

#[test]
fn a_file_system_that_goes_down_under_load_loses_nothing_that_was_acknowledged() {
    let image = |dir: &Path, place: &Path| {
        let image = dir.join("disk.img");
        File::create(&image).and_then(|f| f.set_len(400 << 20)).expect("a sparse file");
        let made = run(Command::new("mkfs.xfs").arg("-q").arg(&image));
        if !made.status.success() {
            eprintln!("skipped: needs xfsprogs");
            return None;
        }
        Mounted::new(place, &["-o", "loop", image.to_str().expect("UTF-8")])
    };
    let Some(mut ward) = Ward::on(image, SMALL) else { return };
    let load = Load::start(ward.port(), Shape::default());
    until("there is load", || load.acked_count() > 20);
    run_ok(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&ward.place));
    let refused = || load.refused(OUT_OF_RESOURCES) > 5;
    until("it refuses or ends", || refused() || ward.hospital.ended().is_some());
    let at_the_end = load.acked_count();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(load.acked_count(), at_the_end, "nothing is acknowledged any more");
    match ward.hospital.ended() {
        Some(_) => assert!(!ward.hospital.wait_ended().success(), "it ends with an error"),
        None => ward.hospital.kill(),
    }
    assert!(ward.hospital.try_start().is_err(), "it does not start on a dead file system");

    let dir = ward.place.parent().expect("the site").to_path_buf();
    drop(std::mem::replace(&mut ward._mounted, Mounted::none()));
    ward._mounted =
        Mounted::new(&ward.place, &["-o", "loop", dir.join("disk.img").to_str().expect("UTF-8")])
            .expect("the disk comes back");
    ward.hospital.start();
    ward.reading.start();
    until("it takes again", || load.acked_count() > at_the_end);
    ward.end(load);
}

/// A block device that answers with errors while a file exists.
struct BadBlocks {
    nbd: Child,
    trigger: PathBuf,
    device: PathBuf,
}

impl BadBlocks {
    fn new(dir: &Path) -> Option<Self> {
        let (image, point) = (dir.join("bad.img"), dir.join("bad"));
        File::create(&image).and_then(|f| f.set_len(300 << 20)).expect("a sparse file");
        run_ok(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let trigger = dir.join("broken");
        fs::write(&point, b"").expect("a mount point");
        let mut command = Command::new("nbdfuse");
        command.arg(&point).args(["--command", "nbdkit", "-s", "--exit-with-parent"]);
        command.args(["--filter=error", "file"]).arg(&image).arg("error=EIO");
        command.args(["error-pwrite-rate=100%", "error-zero-rate=100%"]);
        command.arg(format!("error-file={}", trigger.display()));
        let nbd = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().ok();
        let Some(mut nbd) = nbd else {
            eprintln!("skipped: needs nbdkit and nbdfuse");
            return None;
        };
        let mut up = false;
        until("nbdfuse stands", || {
            up = fs::metadata(&point).is_ok_and(|m| m.len() == 300 << 20);
            up || matches!(nbd.try_wait(), Ok(Some(_)))
        });
        if !up {
            eprintln!("skipped: needs FUSE");
            return None;
        }
        Some(Self { nbd, trigger, device: point })
    }
}

impl Drop for BadBlocks {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.trigger);
        let _ = run(Command::new("umount").arg("-l").arg(&self.device));
        terminate(&mut self.nbd);
    }
}

#[test]
fn blocks_that_fail_and_heal_never_turn_into_a_yes() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let site = Site::new();
    let Some(bad) = BadBlocks::new(site.path()) else { return };
    let place = site.path().join(HOSPITAL);
    let device = bad.device.to_str().expect("UTF-8").to_owned();
    let mount = || Mounted::new(&place, &["-o", "loop", &device]);
    let Some(mounted) = mount() else { return };
    let pacs = Scp::start(&site, &[]);
    let reading = site.reading().dicom_destination("pacs", pacs.port()).route_all("pacs").start();
    let hospital = site.hospital(reading.port(Port::Tunnel));
    let hospital = hospital.set("spool", SMALL).start();
    let load = Load::start(hospital.port(Port::Dicom), Shape::default());
    until("there is load", || load.acked_count() > 10);
    fs::write(&bad.trigger, b"").expect("a trigger");
    let status = hospital.wait_ended();
    assert!(!status.success(), "it ends with an error");
    let at_the_end = load.acked_count();
    fs::remove_file(&bad.trigger).expect("the trigger");
    // The page cache may show what the disk never got: it goes with the mount.
    drop(mounted);
    let mounted = mount().expect("the disk comes back");
    hospital.start();
    until("it takes again", || load.acked_count() > at_the_end);
    let acked = load.finish();
    pacs.wait(acked.len());
    settled(&hospital, READING);
    all_arrived(&acked, &pacs.arrived());
    hospital.kill();
    drop(mounted);
}
