//! dcmtk's worklist server and archive, asked by this program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use hikyaku::dicom::dataset::text;
use hikyaku::dicom::text::Repertoire;
use hikyaku::dicom::{MODALITY_WORKLIST, STUDY_ROOT_FIND, STUDY_ROOT_MOVE};
use hikyaku::inquiry;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::foreign::{Server, free_port, run};
use crate::recorder::Recorder;
use crate::site::{Site, target};

fn keys(keys: &[(dicom_core::Tag, VR, &str)]) -> InMemDicomObject {
    let element = |(tag, vr, value): &(_, _, &str)| DataElement::new(*tag, *vr, *value);
    InMemDicomObject::from_element_iter(keys.iter().map(element))
}

fn study() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/study");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// `dcmqrscp` with the study in it; it knows the node as HIKYAKU.
async fn archive(folder: &TempDir, node: u16) -> (Server, u16) {
    let (port, data) = (free_port(), folder.path().join("data"));
    fs::create_dir_all(&data).unwrap();
    let config = folder.path().join("dcmqrscp.cfg");
    let text = format!(
        "NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n\
         HostTable BEGIN\nnode = (HIKYAKU, localhost, {node})\nHostTable END\n\
         VendorTable BEGIN\nVendorTable END\n\
         AETable BEGIN\nPACS {} RW (200, 1024mb) ANY\nAETable END\n",
        data.display()
    );
    fs::write(&config, text).unwrap();
    let server = Server::start(Command::new("dcmqrscp").arg("-c").arg(config), port);
    let (number, files) = (port.to_string(), study());
    let mut arguments = vec!["-aec", "PACS", "127.0.0.1", &number];
    arguments.extend(files.iter().map(|f| f.to_str().unwrap()));
    let stored = run("storescu", &arguments).await;
    assert!(stored.status.success(), "{}", String::from_utf8_lossy(&stored.stderr));
    (server, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn dcmqrscp_is_asked_for_the_images_of_a_series_and_sends_them_here() {
    let site = Site::start(Recorder::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let (_server, port) = archive(&folder, site.port).await;
    let target = target(port, "PACS");
    let series = keys(&[
        (tags::QUERY_RETRIEVE_LEVEL, VR::CS, "SERIES"),
        (tags::STUDY_INSTANCE_UID, VR::UI, ""),
        (tags::SERIES_INSTANCE_UID, VR::UI, ""),
    ]);
    let utf8 = Repertoire::UTF8;
    // dcmqrscp wants the study of a series: ask for the studies first.
    let studies = keys(&[
        (tags::QUERY_RETRIEVE_LEVEL, VR::CS, "STUDY"),
        (tags::STUDY_INSTANCE_UID, VR::UI, ""),
    ]);
    let (found, end) = inquiry::find(&target, STUDY_ROOT_FIND, &studies, utf8, 10).await.unwrap();
    assert_eq!(end.answer.status, 0);
    let mut wanted = 0;
    for study in &found {
        let uid = text(study, tags::STUDY_INSTANCE_UID);
        let mut series = series.clone();
        series.put(DataElement::new(tags::STUDY_INSTANCE_UID, VR::UI, &*uid));
        let (all, _) = inquiry::find(&target, STUDY_ROOT_FIND, &series, utf8, 100).await.unwrap();
        for one in &all {
            let image = keys(&[
                (tags::QUERY_RETRIEVE_LEVEL, VR::CS, "IMAGE"),
                (tags::STUDY_INSTANCE_UID, VR::UI, &uid),
                (tags::SERIES_INSTANCE_UID, VR::UI, &text(one, tags::SERIES_INSTANCE_UID)),
                (tags::SOP_INSTANCE_UID, VR::UI, ""),
            ]);
            let images = inquiry::find(&target, STUDY_ROOT_FIND, &image, utf8, 1000).await;
            wanted += images.unwrap().0.len();
        }
        let (never, to) = (CancellationToken::new(), "HIKYAKU".parse().unwrap());
        let mut pending = 0;
        let identifier = keys(&[
            (tags::QUERY_RETRIEVE_LEVEL, VR::CS, "STUDY"),
            (tags::STUDY_INSTANCE_UID, VR::UI, &uid),
        ]);
        let moved =
            inquiry::move_to(&target, STUDY_ROOT_MOVE, &to, &identifier, &never, |_| pending += 1);
        let moved = moved.await.unwrap();
        assert_eq!((moved.answer.status, moved.counts.failed), (0, 0), "{moved:?}");
        assert!(pending > 0);
        let stranger = "STRANGER".parse().unwrap();
        let refused =
            inquiry::move_to(&target, STUDY_ROOT_MOVE, &stranger, &identifier, &never, |_| {});
        assert_eq!(refused.await.unwrap().answer.status, 0xA801);
    }
    assert_eq!((wanted, site.images().await), (study().len(), study().len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn wlmscpfs_is_asked_for_its_worklist() {
    let folder = tempfile::tempdir().unwrap();
    let entries = folder.path().join("RIS");
    fs::create_dir_all(&entries).unwrap();
    fs::write(entries.join("lockfile"), "").unwrap();
    for n in 1..=2 {
        let dump = folder.path().join(format!("{n}.dump"));
        let text = format!(
            "(0008,0050) SH A{n}\n(0010,0010) PN Doe^John\n(0010,0020) LO P{n}\n\
             (0010,0030) DA 19700101\n(0010,0040) CS M\n(0020,000d) UI 1.2.{n}\n\
             (0032,1060) LO CT head\n\
             (0040,0100) SQ\n(fffe,e000) -\n(0008,0060) CS CT\n(0040,0001) AE CT1\n\
             (0040,0002) DA 20261122\n(0040,0003) TM 101500\n(0040,0006) PN Who^Ever\n\
             (0040,0007) LO head\n(0040,0009) SH S{n}\n(0040,0010) SH CT1\n(0040,0011) SH here\n\
             (fffe,e00d) -\n(fffe,e0dd) -\n(0040,1001) SH R{n}\n(0040,1003) SH HIGH\n"
        );
        fs::write(&dump, text).unwrap();
        let (from, to) = (dump.to_str().unwrap(), entries.join(format!("{n}.wl")));
        let made = run("dump2dcm", &["+te", from, to.to_str().unwrap()]).await;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let port = free_port();
    let mut command = Command::new("wlmscpfs");
    command.arg("-dfp").arg(folder.path()).arg("-dfr").arg(port.to_string());
    let _server = Server::start(&mut command, port);
    let query = keys(&[
        (tags::ACCESSION_NUMBER, VR::SH, ""),
        (tags::PATIENT_NAME, VR::PN, "Doe*"),
        (tags::PATIENT_ID, VR::LO, ""),
        (tags::STUDY_INSTANCE_UID, VR::UI, ""),
    ]);
    let target = target(port, "RIS");
    let utf8 = Repertoire::UTF8;
    let (found, end) = inquiry::find(&target, MODALITY_WORKLIST, &query, utf8, 10).await.unwrap();
    let mut accessions: Vec<_> = found.iter().map(|f| text(f, tags::ACCESSION_NUMBER)).collect();
    accessions.sort();
    assert_eq!((end.answer.status, accessions), (0, vec!["A1".to_owned(), "A2".to_owned()]));
}
