//! The services beside storage, against programs that are not ours: pynetdicom
//! (`tests/foreign/modality.py`, `tests/foreign/services.py`), dcmtk (`findscu`, `wlmscpfs`,
//! `dcmqrscp`, `storescu`) and Orthanc. Around the real intake stands a small
//! [`recorder::Recorder`] that keeps what it is told.
//!
//! Needs dcmtk and Orthanc on the path, and a Python that has `tests/foreign/requirements.txt`:
//! the one that `HIKYAKU_TEST_PYTHON` names, else that of `tests/run`.

mod archive;
mod asking;
mod commitment;
// Shared with the tests of whole nodes.
#[path = "../gateway/ending.rs"]
mod ending;
mod foreign;
// Shared likewise.
#[path = "../gateway/http.rs"]
mod http;
mod inquiry;
mod orthanc;
// Shared likewise.
#[path = "../gateway/ports.rs"]
mod ports;
// Shared likewise.
#[path = "../gateway/python.rs"]
mod python;
mod recorder;
mod site;
mod steps;
mod worklist;
