//! The files of a watched folder: listed, read, moved. An edge: all of it blocks.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::super::arrive::ArriveRules;
use super::super::report::{BYTES_MAX, Form, FormKind, Report};
use super::super::said::{SaidReport, text_form};
use super::watch::{Found, Group, Mark, Part, part_of};
use super::{FolderConfig, HELD, MOVING, TAKEN};

/// Most files that are looked at together; the others have their turn when these are gone.
const FILES_MAX: usize = 10_000;
/// Longest sidecar in bytes.
const SIDECAR_MAX: u64 = 4 << 20;
/// Longest list of files on their way.
const MOVING_MAX: u64 = 1 << 20;

/// Why files are not a report.
#[derive(Debug)]
pub(super) enum Unread {
    /// They are not as they were, or something is missing: another time.
    Changed,
    /// They are none: why, without a name.
    Odd(String),
}

/// A watched folder.
pub(super) struct Folder(pub(super) PathBuf);

fn mark(found: &Metadata) -> Mark {
    let changed = (found.mtime(), found.mtime_nsec());
    Mark { length: found.len(), changed, inode: found.ino() }
}

/// Opens a file that is one itself: no link, nothing that waits for a writer.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

impl Folder {
    /// Makes what stands below the folder. The folder itself is not made: were its file system
    /// unmounted, another would be filled.
    pub(super) fn prepare(&self) -> io::Result<()> {
        for name in [TAKEN, HELD] {
            let path = self.0.join(name);
            match fs::create_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            if !fs::symlink_metadata(&path)?.is_dir() {
                return Err(io::Error::other(format!("{name} in it is no folder")));
            }
        }
        Ok(())
    }

    /// The plain files that may be ours, and how they are.
    pub(super) fn list(&self) -> io::Result<Vec<(OsString, Mark)>> {
        let mut seen = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            // Of the entry itself: a link is not followed.
            let Ok(found) = entry.metadata() else { continue };
            if found.is_file() && part_of(&entry.file_name()).is_some() {
                seen.push((entry.file_name(), mark(&found)));
                if seen.len() == FILES_MAX {
                    break;
                }
            }
        }
        Ok(seen)
    }

    /// Reads a file that must be as it was seen, of at most `most` bytes.
    fn read(&self, file: &Found, most: u64) -> Result<Vec<u8>, Unread> {
        if file.mark.length > most {
            return Err(Unread::Odd(format!("it is longer than {most} bytes")));
        }
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Unread::Changed,
            _ => Unread::Odd(format!("it cannot be read: {e}")),
        };
        let opened = open(&self.0.join(&file.name)).map_err(failed)?;
        let is_same = || opened.metadata().is_ok_and(|m| m.is_file() && mark(&m) == file.mark);
        if !is_same() {
            return Err(Unread::Changed);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(file.mark.length).unwrap_or(0));
        (&opened).take(file.mark.length + 1).read_to_end(&mut bytes).map_err(failed)?;
        match is_same() && bytes.len() as u64 == file.mark.length {
            true => Ok(bytes),
            false => Err(Unread::Changed),
        }
    }

    /// The report that the files of a group are together.
    pub(super) fn report(
        &self,
        group: &Group,
        config: &FolderConfig,
        rules: &ArriveRules,
    ) -> Result<Report, Unread> {
        let mut rules = rules.clone();
        rules.unstated = config.status.unwrap_or(rules.unstated);
        let sidecar = group.files.iter().find(|file| file.part == Part::Sidecar);
        let said = match sidecar {
            Some(file) => {
                let json = self.read(file, SIDECAR_MAX)?;
                let odd = |flaw| Unread::Odd(format!("the sidecar (.json) {flaw}"));
                SaidReport::read(&json).map_err(odd)?
            }
            None => {
                let stem = group.stem.to_str().unwrap_or_default();
                let no = || Unread::Odd("its name does not say what it is".into());
                SaidReport::of_name(stem, &rules).ok_or_else(no)?
            }
        };
        let documents = || group.files.iter().filter(|file| file.part != Part::Sidecar);
        if documents().next().is_none() && said.is_bare(&rules) {
            let why = "there is no document of this name (.pdf, .txt), and none in the sidecar";
            return Err(match group.is_overdue {
                true => Unread::Odd(why.into()),
                false => Unread::Changed,
            });
        }
        let mut forms = Vec::new();
        for file in documents() {
            let bytes = self.read(file, BYTES_MAX as u64)?;
            forms.push(match file.part {
                Part::Text => {
                    let text = String::from_utf8(bytes);
                    let odd = |_| Unread::Odd("the text (.txt) is not written in UTF-8".into());
                    text_form(&text.map_err(odd)?)
                }
                _ => Form::new(FormKind::Pdf, bytes),
            });
        }
        said.with_forms(&rules, &config.name, forms).map_err(|flaws| {
            let words: Vec<String> = flaws.iter().map(ToString::to_string).collect();
            Unread::Odd(words.join("; "))
        })
    }

    /// Moves files whose report is durable in custody.
    pub(super) fn move_taken(&self, files: &[Found]) -> io::Result<()> {
        let moving: Vec<(&str, Mark)> =
            files.iter().filter_map(|f| Some((f.name.to_str()?, f.mark))).collect();
        let (path, new) = (self.0.join(MOVING), self.0.join(format!("{MOVING}.tmp")));
        let mut list = File::create(&new)?;
        list.write_all(&serde_json::to_vec(&moving)?)?;
        list.sync_all()?;
        fs::rename(&new, path)?;
        self.finish_moving()
    }

    /// Moves what is on its way, here or since before a crash.
    pub(super) fn finish_moving(&self) -> io::Result<()> {
        let path = self.0.join(MOVING);
        let list = match open(&path) {
            Ok(list) => list,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let mut json = Vec::new();
        list.take(MOVING_MAX).read_to_end(&mut json)?;
        let moving: Vec<(String, Mark)> = serde_json::from_slice(&json).unwrap_or_default();
        let still: Vec<Found> = moving
            .into_iter()
            .filter(|(name, _)| !name.contains('/') && part_of(name.as_ref()).is_some())
            .filter(|(name, known)| {
                let found = fs::symlink_metadata(self.0.join(name));
                found.is_ok_and(|found| found.is_file() && mark(&found) == *known)
            })
            .map(|(name, mark)| Found { name: name.into(), part: Part::Other, mark })
            .collect();
        self.set_aside(TAKEN, &still, None)?;
        fs::remove_file(path)
    }

    /// Moves files that are no report, with the reason beside them.
    pub(super) fn hold(&self, files: &[Found], why: &str) -> io::Result<()> {
        self.set_aside(HELD, files, Some(why))
    }

    /// Moves files under names that nothing has yet; the same addition for all of them.
    fn set_aside(&self, to: &str, files: &[Found], why: Option<&str>) -> io::Result<()> {
        let Some(first) = files.first() else { return Ok(()) };
        let target = self.0.join(to);
        let is_free = |name: &OsString| {
            let found = fs::symlink_metadata(target.join(name));
            found.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        };
        let reason = |addition: &str| {
            let stem = Path::new(&first.name).file_stem().unwrap_or(&first.name);
            let mut name = stem.to_owned();
            name.push(format!("{addition}.why.txt"));
            name
        };
        let mut addition = String::new();
        let mut tries = 0_u32;
        while !files.iter().all(|file| is_free(&renamed(file, &addition)))
            || (why.is_some() && !is_free(&reason(&addition)))
        {
            tries += 1;
            let (seconds, nanoseconds) = first.mark.changed;
            addition = format!("-{seconds:x}{nanoseconds:x}");
            if tries > 1 {
                addition.push_str(&format!("-{tries}"));
            }
        }
        if let Some(why) = why {
            let path = target.join(reason(&addition));
            let mut words = OpenOptions::new().write(true).create_new(true).open(path)?;
            writeln!(words, "{why}\n\nMove it back when it is put right: it is looked at again.")?;
        }
        for file in files {
            match fs::rename(self.0.join(&file.name), target.join(renamed(file, &addition))) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    // It is tried again, and must not leave a reason each time.
                    if why.is_some() {
                        let _ = fs::remove_file(target.join(reason(&addition)));
                    }
                    return Err(e);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// The name of a file with something added before its ending.
fn renamed(file: &Found, addition: &str) -> OsString {
    let path = Path::new(&file.name);
    let mut name = path.file_stem().unwrap_or(&file.name).to_owned();
    name.push(addition);
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    name
}

#[cfg(test)]
mod tests;
