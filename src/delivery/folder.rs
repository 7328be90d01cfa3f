//! A folder as a destination: one Part 10 file per image (PS3.10 7), the data set exactly as
//! received behind a file meta group of ours; one file per form of a report.
//!
//! Names are ours: `<study key>/<digest>.dcm`, 16 and 32 hexadecimal digits, nothing of them from
//! a peer. The same image gets the same name, so writing it again after a crash changes nothing.
//! Reports stand apart, so that whoever takes images from here meets none and whoever takes reports
//! looks in one place: `reports/<study key>/<digest>.pdf` (`txt`, `xml`, `dcm`), each with a line in
//! `reports/index.jsonl` ([`index`]) that stands there before the receipt.
//! A file is written under a temporary name in `.partial`, synced, renamed, and its directory
//! synced, before the receipt. A folder that cannot be written to (full, read-only, gone) is a
//! failure of the destination, not of the image.

mod index;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use self::index::{Index, Line};
use super::sender::Sender;
use super::{part10, unfit};
use crate::cargo::{CargoKind, Envelope};
use crate::clock;
use crate::custody::{BodyError, Leased, Outcome, Receipt};

/// Where files grow. On the same file system as the folder, so that a rename is atomic.
const PARTIAL: &str = ".partial";

/// Where reports are.
const REPORTS: &str = "reports";

/// What the key of a file of a report begins with.
const FILE_KEY: &str = "file-";

/// How the name of such a file may end.
const EXTENSIONS: [&str; 3] = ["pdf", "txt", "xml"];

/// How many bytes of a body are written at a time.
const CHUNK_LENGTH: usize = 1024 * 1024;

/// Images that share one sync per directory.
pub(super) const BATCH_ITEMS_MAX: usize = 32;

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// The folder's failure.
    #[error("cannot write to the folder: {0}")]
    Folder(#[from] io::Error),
    /// Ours.
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// Delivers to `root` until shutdown.
pub(super) async fn run(mut sender: Sender, root: PathBuf) {
    while sender.may_try().await {
        match prepare(&root).await {
            Ok(()) => break,
            Err(e) => sender.failed(format!("cannot use the folder: {e}")),
        }
    }
    let mut index = Index::new(&root.join(REPORTS));
    while sender.may_try().await {
        let batch = sender.lease(BATCH_ITEMS_MAX).await;
        if batch.is_empty() {
            let stopped = sender.stopped();
            tokio::select! {
                () = sender.work() => {}
                () = stopped => return,
            }
            continue;
        }
        match deliver(&sender, &root, &mut index, batch).await {
            Ok(()) => sender.answered(),
            Err(e) => sender.failed(e.to_string()),
        }
    }
}

/// Makes the folder, and removes what an earlier process left unfinished there.
async fn prepare(root: &Path) -> io::Result<()> {
    let partial = root.join(PARTIAL);
    fs::create_dir_all(&partial).await?;
    let mut entries = fs::read_dir(&partial).await?;
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|n| n.ends_with(".part"));
        if ours && entry.file_type().await?.is_file() {
            fs::remove_file(entry.path()).await?;
        }
    }
    Ok(())
}

/// Writes a batch, syncs the directories that changed, then the index of reports, then gives the
/// receipts. After a failure of the folder everything without a receipt goes back to the queue.
async fn deliver(
    sender: &Sender,
    root: &Path,
    index: &mut Index,
    batch: Vec<Leased>,
) -> Result<(), WriteError> {
    // The folder itself is made at the start only: were its file system unmounted since, making
    // it again would fill another one.
    make(&root.join(PARTIAL)).await?;
    let mut written = vec![];
    let mut changed = BTreeSet::new();
    let mut failure = None;
    for leased in batch {
        let place = match Place::of(&leased.envelope) {
            Ok(place) => place,
            Err(reason) => {
                sender.settle(leased, Outcome::Quarantine { reason }).await;
                continue;
            }
        };
        match write(root, &leased, &place, &mut changed).await {
            Ok(()) => written.push((leased, place.name())),
            Err(WriteError::Body(e)) => {
                let reason = e.to_string();
                sender.settle(leased, Outcome::Damaged { reason }).await;
            }
            Err(e) => {
                failure = Some(e);
                break;
            }
        }
    }
    for directory in &changed {
        File::open(directory).await?.sync_all().await?;
    }
    enter(index, &written).await?;
    for (leased, name) in written {
        let receipt = Receipt::File { name };
        sender.settle(leased, Outcome::Receipted { receipt }).await;
    }
    failure.map_or(Ok(()), Err)
}

/// Enters the reports among what was written into the index.
async fn enter(index: &mut Index, written: &[(Leased, String)]) -> io::Result<()> {
    let now = clock::wall();
    let reports = written.iter().filter(|(l, _)| l.envelope.kind == CargoKind::Report);
    let lines: Vec<Line> =
        reports.map(|(leased, name)| Line::new(&leased.envelope, name, now)).collect();
    if lines.is_empty() {
        return Ok(());
    }
    // Taken out: should the thread panic, the next one reads the file anew.
    let anew = index.anew();
    let mut at_work = std::mem::replace(index, anew);
    let (at_work, result) = tokio::task::spawn_blocking(move || {
        let result = at_work.append(&lines);
        (at_work, result)
    })
    .await
    .map_err(io::Error::other)?;
    *index = at_work;
    result
}

/// Writes one file and renames it into place; the directories in `changed` are still to be
/// synced.
async fn write(
    root: &Path,
    leased: &Leased,
    place: &Place,
    changed: &mut BTreeSet<PathBuf>,
) -> Result<(), WriteError> {
    let partial = root.join(PARTIAL).join(format!("{}.part", place.file));
    if let Err(e) = write_partial(&partial, leased, place.part10).await {
        let _ = fs::remove_file(&partial).await;
        return Err(e);
    }
    let mut directory = root.to_owned();
    for name in &place.directories {
        let within = directory.clone();
        directory.push(name);
        if make(&directory).await? {
            changed.insert(within);
        }
    }
    fs::rename(&partial, directory.join(&place.file)).await?;
    changed.insert(directory);
    Ok(())
}

/// Makes a directory; false when it was there.
async fn make(directory: &Path) -> io::Result<bool> {
    match fs::create_dir(directory).await {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

async fn write_partial(path: &Path, leased: &Leased, part10: bool) -> Result<(), WriteError> {
    let mut file = File::create(path).await?;
    if part10 {
        file.write_all(&part10::front(&leased.envelope)).await?;
    }
    let mut reader = leased.body.reader(0);
    let mut length = 0;
    while let Some(chunk) = reader.next(CHUNK_LENGTH).await? {
        length += chunk.len() as u64;
        file.write_all(&chunk).await?;
    }
    if length != leased.body.len() {
        let what = format!("{length} bytes instead of {}", leased.body.len());
        return Err(BodyError::Damaged(what).into());
    }
    file.flush().await?;
    file.sync_all().await?;
    Ok(())
}

/// Where a piece of cargo is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// From the destination's folder on.
    directories: Vec<String>,
    file: String,
    /// Whether the front of a DICOM file stands before the body.
    part10: bool,
}

impl Place {
    /// Of an image or a report; else why it cannot be written, for the operator.
    fn of(envelope: &Envelope) -> Result<Self, String> {
        let report = envelope.kind == CargoKind::Report;
        let (extension, part10) = match report && envelope.sop_class.is_empty() {
            true => (extension(envelope)?, false),
            false => match unfit(envelope) {
                Some(reason) => return Err(reason),
                None => ("dcm", true),
            },
        };
        let study = format!("{:016x}", envelope.study_key().0);
        let digest = envelope.identity.sha256.to_string();
        let file = format!("{}.{extension}", &digest[..32]);
        let above = report.then(|| REPORTS.to_owned());
        Ok(Self { directories: above.into_iter().chain([study]).collect(), file, part10 })
    }

    /// Relative to the destination's folder.
    fn name(&self) -> String {
        format!("{}/{}", self.directories.join("/"), self.file)
    }
}

/// How the name of a report's file ends.
fn extension(envelope: &Envelope) -> Result<&'static str, String> {
    let key = envelope.identity.key.strip_prefix(FILE_KEY);
    let end = key.and_then(|key| key.rsplit_once('.')).map(|(_, end)| end);
    EXTENSIONS.into_iter().find(|known| end == Some(known)).ok_or_else(|| {
        "a report that is neither a pdf, txt or xml file nor a DICOM document cannot go to a folder"
            .into()
    })
}

#[cfg(test)]
mod tests {
    use dicom_object::OpenFileOptions;

    use super::*;
    use crate::cargo::{CargoKind, Identity, Sha256, Urgency};
    use crate::clock::Timestamp;
    use crate::dicom::IMPLEMENTATION_CLASS_UID;

    fn envelope(key: &str, sop_class: &str) -> Envelope {
        Envelope {
            kind: CargoKind::Image,
            identity: Identity {
                origin: "st-elsewhere".parse().unwrap(),
                key: key.into(),
                sha256: Sha256::of(b"x"),
            },
            length: 1,
            urgency: Urgency::Routine,
            received_at: Timestamp(0),
            calling_ae: "CT1".into(),
            called_ae: "HIKYAKU".into(),
            sop_class: sop_class.into(),
            transfer_syntax: "1.2.840.10008.1.2.1".into(),
            study: "../../etc".into(),
            series: String::new(),
            modality: String::new(),
            accession: String::new(),
            patient_id: "P".into(),
            flags: vec![],
        }
    }

    #[test]
    fn names_are_hexadecimal_whatever_the_peer_called_its_objects() {
        let hexadecimal = |s: &str, n| s.len() == n && s.bytes().all(|b| b.is_ascii_hexdigit());
        let name = Place::of(&envelope("../../../x", "1.2")).unwrap().name();
        let (study, file) = name.split_once('/').unwrap();
        assert!(hexadecimal(study, 16), "{study}");
        assert!(hexadecimal(file.strip_suffix(".dcm").unwrap(), 32), "{file}");
        let report = |key, class| Envelope { kind: CargoKind::Report, ..envelope(key, class) };
        for (key, class, end) in
            [("file-../../x.pdf", "", ".pdf"), ("file-1.txt", "", ".txt"), ("1.2", "1.3", ".dcm")]
        {
            let name = Place::of(&report(key, class)).unwrap().name();
            let (study, file) =
                name.strip_prefix("reports/").and_then(|n| n.split_once('/')).unwrap();
            assert!(hexadecimal(study, 16), "{study}");
            assert!(hexadecimal(file.strip_suffix(end).unwrap(), 32), "{file}");
        }
        for key in ["file-1.sh", "file-1.PDF", "file-pdf", "message-1", "1.pdf", "file-1.pdf/../x"]
        {
            let reason = Place::of(&report(key, "")).unwrap_err();
            assert!(reason.contains("cannot go to a folder"), "{reason}");
        }
    }

    #[test]
    fn the_head_is_a_file_meta_group_that_others_can_read() {
        let mut file = part10::front(&envelope("1.2.3", "1.2.840.10008.5.1.4.1.1.4"));
        file.extend_from_slice(b"\x08\0\x18\0UI\x06\x001.2.3\0");
        let object = OpenFileOptions::new().from_reader(&file[..]).unwrap();
        let meta = object.meta();
        assert_eq!(meta.media_storage_sop_instance_uid(), "1.2.3");
        assert_eq!(meta.transfer_syntax(), "1.2.840.10008.1.2.1");
        assert_eq!(meta.implementation_class_uid(), IMPLEMENTATION_CLASS_UID);
    }
}
