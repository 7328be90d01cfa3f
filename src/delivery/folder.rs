//! A folder as a destination: one Part 10 file per image (PS3.10 7), the data set exactly as
//! received behind a file meta group of ours.
//!
//! Names are ours: `<study key>/<digest>.dcm`, 16 and 32 hexadecimal digits, nothing of them from
//! a peer. The same image gets the same name, so writing it again after a crash changes nothing.
//! A file is written under a temporary name in `.partial`, synced, renamed, and its directory
//! synced, before the receipt. A folder that cannot be written to (full, read-only, gone) is a
//! failure of the destination, not of the image.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use super::sender::Sender;
use super::{part10, unfit};
use crate::cargo::Envelope;
use crate::custody::{BodyError, Leased, Outcome, Receipt};

/// Where files grow. On the same file system as the folder, so that a rename is atomic.
const PARTIAL: &str = ".partial";

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
        match deliver(&sender, &root, batch).await {
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

/// Writes a batch, syncs the directories that changed, then gives the receipts. After a failure
/// of the folder everything without a receipt goes back to the queue.
async fn deliver(sender: &Sender, root: &Path, batch: Vec<Leased>) -> Result<(), WriteError> {
    // The folder itself is made at the start only: were its file system unmounted since, making
    // it again would fill another one.
    make(&root.join(PARTIAL)).await?;
    let mut written = vec![];
    let mut changed = BTreeSet::new();
    let mut failure = None;
    for leased in batch {
        if let Some(reason) = unfit(&leased.envelope) {
            sender.settle(leased, Outcome::Quarantine { reason }).await;
            continue;
        }
        match write(root, &leased, &mut changed).await {
            Ok(name) => written.push((leased, name)),
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
    for (leased, name) in written {
        let receipt = Receipt::File { name };
        sender.settle(leased, Outcome::Receipted { receipt }).await;
    }
    failure.map_or(Ok(()), Err)
}

/// Writes one file and renames it into place; the directories in `changed` are still to be
/// synced. The name is relative to `root`.
async fn write(
    root: &Path,
    leased: &Leased,
    changed: &mut BTreeSet<PathBuf>,
) -> Result<String, WriteError> {
    let envelope = &leased.envelope;
    let (study, file) = names(envelope);
    let partial = root.join(PARTIAL).join(format!("{file}.part"));
    let directory = root.join(&study);
    if let Err(e) = write_partial(&partial, leased).await {
        let _ = fs::remove_file(&partial).await;
        return Err(e);
    }
    if make(&directory).await? {
        changed.insert(root.to_owned());
    }
    fs::rename(&partial, directory.join(&file)).await?;
    changed.insert(directory);
    Ok(format!("{study}/{file}"))
}

/// Makes a directory; false when it was there.
async fn make(directory: &Path) -> io::Result<bool> {
    match fs::create_dir(directory).await {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

async fn write_partial(path: &Path, leased: &Leased) -> Result<(), WriteError> {
    let mut file = File::create(path).await?;
    file.write_all(&part10::front(&leased.envelope)).await?;
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

/// The directory and the file name of an image.
fn names(envelope: &Envelope) -> (String, String) {
    let digest = envelope.identity.sha256.to_string();
    (format!("{:016x}", envelope.study_key().0), format!("{}.dcm", &digest[..32]))
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
        let (study, file) = names(&envelope("../../../x", "1.2"));
        assert!(study.len() == 16 && study.bytes().all(|b| b.is_ascii_hexdigit()), "{study}");
        let digits = file.strip_suffix(".dcm").unwrap();
        assert!(digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{file}");
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
