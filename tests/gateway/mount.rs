//! File systems that a test mounts for itself. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::site::{run, run_ok, text};

/// Size of a disk in a [`Volume`].
const DISK_BYTES: u64 = 600 << 20;

/// A mounted file system; it is unmounted with its test.
pub(crate) struct Mounted {
    at: Option<PathBuf>,
}

impl Mounted {
    /// Nothing is mounted.
    pub(crate) const fn none() -> Self {
        Self { at: None }
    }

    /// `mount ARGUMENTS at`; `None`, with a word why, where this is not allowed.
    pub(crate) fn new(at: &Path, arguments: &[&str]) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder");
        let output = run(Command::new("mount").args(arguments).arg(at));
        if !output.status.success() {
            eprintln!("skipped: needs mount: {}", text(&output.stderr));
            return None;
        }
        Some(Self { at: Some(at.into()) })
    }

    /// Mounts an image through a loop device that passes writes on at once: what the file system
    /// has written is in the image.
    pub(crate) fn image(image: &Path, at: &Path) -> Self {
        let find = ["--find", "--show", "--direct-io=on"];
        let device = run_ok(Command::new("losetup").args(find).arg(image));
        let device = device.trim();
        fs::create_dir_all(at).expect("a folder");
        run_ok(Command::new("mount").args([device]).arg(at));
        // The device goes when it is unmounted.
        run_ok(Command::new("losetup").args(["-d", device]));
        Self { at: Some(at.into()) }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            let gone = run(Command::new("umount").arg(&at));
            if !gone.status.success() {
                let _ = run(Command::new("umount").arg("-l").arg(&at));
            }
        }
    }
}

/// A volume whose files can be copied in no time.
pub(crate) struct Volume {
    dir: PathBuf,
    mounted: bool,
}

impl Volume {
    /// In `dir`; `None`, with a word why, where this is not allowed.
    pub(crate) fn new(dir: &Path) -> Option<Self> {
        let image = dir.join("volume.img");
        let mounted = dir.join("volume");
        fs::create_dir(&mounted).expect("a folder");
        let made = fs::File::create(&image).and_then(|f| f.set_len(40 << 30));
        made.expect("a sparse file");
        let make = run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image));
        let mount = run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted));
        if !make.status.success() || !mount.status.success() {
            eprintln!("skipped: needs xfsprogs and loop devices: {}", text(&mount.stderr));
            return None;
        }
        Some(Self { dir: mounted, mounted: true })
    }

    /// An empty disk of this name, to be mounted.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        let image = self.dir.join(name);
        let made = fs::File::create(&image).and_then(|f| f.set_len(DISK_BYTES));
        made.expect("a sparse file");
        run_ok(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        image
    }

    /// What `disk` holds at this moment.
    pub(crate) fn snapshot(&self, disk: &Path, name: &str) -> PathBuf {
        let copy = self.dir.join(name);
        run_ok(Command::new("cp").arg("--reflink=always").arg(disk).arg(&copy));
        copy
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            let _ = run(Command::new("umount").arg("-l").arg(&self.dir));
        }
    }
}
