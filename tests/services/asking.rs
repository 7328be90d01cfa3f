//! What this program asks of an archive, whichever it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use hikyaku::dicom::command::StoreRequest;
use hikyaku::dicom::dataset::text;
use hikyaku::dicom::text::Repertoire;
use hikyaku::dicom::{EXPLICIT_VR_LE, STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE};
use hikyaku::inquiry::{self, Receiver, Retrieved, Target};
use tokio_util::sync::CancellationToken;

use crate::foreign::run;

pub(crate) const MR: &str = "1.2.840.10008.5.1.4.1.1.4";

/// Bytes of pixel data at the end of each image of the study.
const PIXEL_BYTES: usize = 256 * 256 * 2;

/// The images of the study in `tests/data`.
pub(crate) fn study() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/study");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// `storescu` stores the study in an archive.
pub(crate) async fn fill(port: u16, called: &str) {
    let (port, files) = (port.to_string(), study());
    let mut arguments = vec!["-aec", called, "127.0.0.1", &port];
    arguments.extend(files.iter().map(|f| f.to_str().unwrap()));
    let stored = run("storescu", &arguments).await;
    assert!(stored.status.success(), "{}", String::from_utf8_lossy(&stored.stderr));
}

pub(crate) fn keys(level: &str, keys: &[(Tag, &str)]) -> InMemDicomObject {
    let element = |(tag, value): &(_, &str)| DataElement::new(*tag, VR::UI, *value);
    let mut identifier = InMemDicomObject::from_element_iter(keys.iter().map(element));
    identifier.put(DataElement::new(tags::QUERY_RETRIEVE_LEVEL, VR::CS, level));
    identifier
}

/// The UIDs of one level under what is above it.
async fn find(target: &Target, level: &str, above: &[(Tag, &str)], wanted: Tag) -> Vec<String> {
    let identifier = keys(level, &[above, &[(wanted, "")]].concat());
    let utf8 = Repertoire::UTF8;
    let found = inquiry::find(target, STUDY_ROOT_FIND, &identifier, utf8, 1000).await;
    let (found, end) = found.unwrap();
    assert_eq!((end.answer.status, end.more), (0, false), "{end:?}");
    found.iter().map(|one| text(one, wanted)).collect()
}

/// The images of an archive by SOP Instance UID, each with its study: found level by level, as
/// C-FIND wants it (PS3.4 C.4.1.3.1.1).
pub(crate) async fn images_of(target: &Target) -> BTreeMap<String, String> {
    let mut images = BTreeMap::new();
    for study in find(target, "STUDY", &[], tags::STUDY_INSTANCE_UID).await {
        let in_study = [(tags::STUDY_INSTANCE_UID, &*study)];
        for series in find(target, "SERIES", &in_study, tags::SERIES_INSTANCE_UID).await {
            let in_series = [in_study[0], (tags::SERIES_INSTANCE_UID, &*series)];
            let found = find(target, "IMAGE", &in_series, tags::SOP_INSTANCE_UID).await;
            images.extend(found.into_iter().map(|uid| (uid, study.clone())));
        }
    }
    images
}

/// C-MOVE of a study.
pub(crate) async fn move_study(target: &Target, to: &str, study: &str) -> (Retrieved, usize) {
    let (never, to) = (CancellationToken::new(), to.parse().unwrap());
    let identifier = keys("STUDY", &[(tags::STUDY_INSTANCE_UID, study)]);
    let mut pending = 0;
    let moved =
        inquiry::move_to(target, STUDY_ROOT_MOVE, &to, &identifier, &never, |_| pending += 1);
    (moved.await.unwrap(), pending)
}

/// Keeps what a C-GET brings.
#[derive(Default)]
struct Keeping {
    images: BTreeMap<String, Vec<u8>>,
    arriving: (String, Vec<u8>),
}

impl Receiver for Keeping {
    async fn begin(&mut self, request: &StoreRequest, syntax: &str) {
        assert_eq!((&*request.sop_class, syntax), (MR, EXPLICIT_VR_LE));
        self.arriving = (request.sop_instance.clone(), vec![]);
    }

    async fn push(&mut self, bytes: &[u8]) {
        self.arriving.1.extend_from_slice(bytes);
    }

    async fn finish(&mut self) -> u16 {
        let (uid, bytes) = std::mem::take(&mut self.arriving);
        self.images.insert(uid, bytes);
        0
    }
}

/// C-GET of a study: every image comes whole, with the pixels that were stored.
pub(crate) async fn get_study(target: &Target, study_uid: &str) {
    let never = CancellationToken::new();
    let identifier = keys("STUDY", &[(tags::STUDY_INSTANCE_UID, study_uid)]);
    let classes = vec![(MR.to_owned(), vec![EXPLICIT_VR_LE.to_owned()])];
    let mut keeping = Keeping::default();
    let got =
        inquiry::get(target, STUDY_ROOT_GET, classes, &identifier, &never, &mut keeping).await;
    let got = got.unwrap();
    assert_eq!((got.answer.status, got.counts.failed, got.failed.len()), (0, 0, 0), "{got:?}");
    assert_eq!(usize::from(got.counts.completed), study().len());
    for file in study() {
        let bytes = fs::read(&file).unwrap();
        let pixels = &bytes[bytes.len() - PIXEL_BYTES..];
        let same = keeping.images.values().filter(|image| image.ends_with(pixels)).count();
        assert_eq!(same, 1, "{}", file.display());
    }
    assert_eq!(keeping.images.len(), study().len());
}
