//! File systems that a test mounts for itself. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::site::{run, run_ok, text};

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
