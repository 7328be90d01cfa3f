//! The services beside storage, against programs that are not ours: pynetdicom
//! (`tests/foreign/modality.py`, `tests/foreign/services.py`) and dcmtk (`findscu`, `wlmscpfs`,
//! `dcmqrscp`, `storescu`). Around the real intake stands a small [`recorder::Recorder`] that
//! keeps what it is told.
//!
//! Needs dcmtk on the path, and a Python that has `tests/foreign/requirements.txt`: the one that
//! `HIKYAKU_TEST_PYTHON` names, else that of `tests/run`.

mod archive;
mod commitment;
mod foreign;
mod inquiry;
mod recorder;
mod site;
mod steps;
mod worklist;
