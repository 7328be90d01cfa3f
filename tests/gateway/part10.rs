//! DICOM files, as far as the tests must look into them: what follows the file meta information
//! (PS3.10 7.1) is the data set, byte for byte.

use std::path::{Path, PathBuf};

use hikyaku::cargo::Sha256;

/// A folder of test data.
pub(crate) fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder)
}

/// The files of a folder, in order of their names.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of files");
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.is_file());
    files.sort();
    files
}

/// The data set of a DICOM file's bytes.
pub(crate) fn data_set(file: &[u8]) -> &[u8] {
    assert_eq!(file.get(128..132), Some(&b"DICM"[..]), "a file with a preamble");
    // (0002,0000) UL is the first element: its value counts what is left of the group.
    let group: [u8; 4] = file[140..144].try_into().expect("four bytes");
    &file[144 + u32::from_le_bytes(group) as usize..]
}

/// Digest of the data set of a DICOM file, in hexadecimal.
pub(crate) fn digest(file: &Path) -> String {
    let bytes = std::fs::read(file).expect("a file that can be read");
    Sha256::of(data_set(&bytes)).to_string()
}
