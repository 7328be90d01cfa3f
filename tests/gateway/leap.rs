//! Wall clocks that leap, on the real binary, by libfaketime. The monotonic clock is left alone, as
//! the kernel does when somebody sets the time.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::crash::settled;
use crate::sender::{objects, send_ok};
use crate::site::{Node, Port, READING, Site, hikyaku, run_ok, until};

/// Where Debian puts libfaketime.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A hospital whose clock the test sets, and its reading node. Bytes stay for an hour.
struct Times {
    hospital: Node,
    _reading: Node,
    clock: PathBuf,
    _site: Site,
}

impl Times {
    /// `None`, with a word why, without libfaketime.
    fn new() -> Option<Self> {
        if !Path::new(FAKETIME).exists() {
            eprintln!("skipped: needs faketime");
            return None;
        }
        let site = Site::new();
        let reading = site.reading().folder_destination("out").route_all("out").start();
        let clock = site.path().join("clock");
        fs::write(&clock, "+0").expect("a clock");
        let hospital = site
            .hospital(reading.port(Port::Tunnel))
            .set("spool", "retention = \"1h\"")
            .environment("LD_PRELOAD", FAKETIME)
            .environment("FAKETIME_TIMESTAMP_FILE", &clock.to_string_lossy())
            .environment("FAKETIME_NO_CACHE", "1")
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .environment("DONT_FAKE_MONOTONIC", "1")
            .start();
        let times = Self { hospital, _reading: reading, clock, _site: site };
        times.send(5, 5);
        Some(times)
    }

    fn set(&self, clock: &str) {
        fs::write(&self.clock, clock).expect("a clock");
    }

    /// Sends `n` objects, after which `all` must have been receipted.
    fn send(&self, n: u64, all: u64) {
        send_ok(self.hospital.port(Port::Dicom), &objects(n, 10_000));
        self.hospital.wait_count(READING, "receipted", all);
    }

    fn leap(&self) -> Option<String> {
        self.hospital.status()["spool"]["clock_leap"].as_str().map(str::to_owned)
    }

    /// The node says that the clock leapt, and deletes nothing.
    fn nothing_is_deleted(&self, receipted: u64) {
        until("the leap is noticed", || self.leap().is_some());
        assert!(self.hospital.metric("hikyaku_clock_leap", &[]) > 0.5);
        assert!(self.hospital.log().contains("confirm-clock"), "it says what to do");
        thread::sleep(Duration::from_secs(5));
        assert_eq!(self.hospital.count(READING, "receipted"), receipted);
        assert_eq!(self.tombstones(), 0, "nothing is deleted");
    }

    fn tombstones(&self) -> u64 {
        self.hospital.status()["spool"]["tombstones"].as_u64().expect("a number")
    }

    fn confirm(&self) {
        let config = self.hospital.config();
        run_ok(hikyaku().args(["spool", "confirm-clock", "--config"]).arg(config));
        until("the leap is forgotten", || self.leap().is_none());
    }
}

#[test]
fn a_clock_that_leaps_a_day_forward_deletes_nothing_until_it_is_confirmed() {
    let Some(times) = Times::new() else { return };
    times.set("+1d");
    times.nothing_is_deleted(5);
    // Nothing stands still meanwhile.
    times.send(4, 9);
    times.confirm();
    until("what was due is deleted", || times.tombstones() >= 5);
    send_ok(times.hospital.port(Port::Dicom), &objects(1, 10_000));
    settled(&times.hospital, READING);
}

#[test]
fn a_restart_does_not_confirm_a_leap() {
    let Some(times) = Times::new() else { return };
    times.set("+1d");
    times.nothing_is_deleted(5);
    times.hospital.restart();
    times.nothing_is_deleted(5);
    times.hospital.kill();
    times.hospital.start();
    times.nothing_is_deleted(5);
    times.confirm();
    until("what was due is deleted", || times.tombstones() >= 5);
    times.hospital.restart();
    assert_eq!(times.leap(), None);
}

#[test]
fn a_clock_that_leaps_a_day_back_stalls_nothing() {
    let Some(times) = Times::new() else { return };
    times.set("-1d");
    times.nothing_is_deleted(5);
    times.send(4, 9);
    times.confirm();
    times.send(1, 10);
    times.set("+0");
    times.nothing_is_deleted(10);
}

#[test]
fn ten_years_forward_while_the_node_runs_or_is_off_delete_nothing() {
    let Some(times) = Times::new() else { return };
    times.set("+3650d");
    times.nothing_is_deleted(5);
    times.set("+0");
    thread::sleep(Duration::from_secs(2));
    times.confirm();

    times.hospital.stop();
    times.set("+3650d");
    times.hospital.start();
    times.nothing_is_deleted(5);
    let word = times.leap().expect("a leap");
    assert!(word.contains("while the node was off"), "{word}");
    // A crash does not confirm it either.
    times.hospital.kill();
    times.hospital.start();
    times.nothing_is_deleted(5);
    times.confirm();
    until("what was due is deleted", || times.tombstones() >= 5);
    settled(&times.hospital, READING);
}
