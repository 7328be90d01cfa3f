//! dcmtk's worklist server and archive, asked by this program.

use std::fs;
use std::process::Command;

use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use hikyaku::dicom::MODALITY_WORKLIST;
use hikyaku::dicom::dataset::text;
use hikyaku::dicom::text::Repertoire;
use hikyaku::inquiry;
use tempfile::TempDir;

use crate::asking::{fill, get_study, images_of, move_study, study};
use crate::foreign::{Server, run};
use crate::ports;
use crate::recorder::Recorder;
use crate::site::{Site, target};

/// 山田^太郎 as PS3.5 H.3.1 has it.
const NAME: &str = "Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B";

/// `dcmqrscp` with the study in it; it knows the node as HIKYAKU.
async fn archive(folder: &TempDir, node: u16) -> (Server, u16) {
    let (port, data) = (ports::free(), folder.path().join("data"));
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
    fill(port, "PACS").await;
    (server, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn dcmqrscp_is_asked_for_the_images_of_a_series_and_sends_them_here() {
    let site = Site::start(Recorder::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let (_server, port) = archive(&folder, site.port).await;
    let target = target(port, "PACS");
    let images = images_of(&target).await;
    assert_eq!(images.len(), study().len());
    let study_uid = images.values().next().unwrap();
    let (moved, pending) = move_study(&target, "HIKYAKU", study_uid).await;
    assert_eq!((moved.answer.status, moved.counts.failed), (0, 0), "{moved:?}");
    assert_eq!((usize::from(moved.counts.completed), pending > 0), (images.len(), true));
    assert_eq!(site.images().await, images.into_keys().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn dcmqrscp_says_whether_it_does_not_know_the_destination_or_cannot_reach_it() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = ports::free();
    let (_server, port) = archive(&folder, nobody).await;
    let target = target(port, "PACS");
    let images = images_of(&target).await;
    let study_uid = images.values().next().unwrap();
    for (to, status) in [("STRANGER", 0xA801), ("HIKYAKU", 0xA702)] {
        let (moved, _) = move_study(&target, to, study_uid).await;
        assert_eq!((moved.answer.status, moved.answer.is_done()), (status, false), "{moved:?}");
        assert_eq!(moved.counts.completed, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dcmqrscp_gives_a_study_on_the_same_association() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, port) = archive(&folder, ports::free()).await;
    let target = target(port, "PACS");
    let images = images_of(&target).await;
    get_study(&target, images.values().next().unwrap()).await;
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
            "(0008,0005) CS \\ISO 2022 IR 87\n\
             (0008,0050) SH A{n}\n(0010,0010) PN {NAME}\n(0010,0020) LO P{n}\n\
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
    let port = ports::free();
    let mut command = Command::new("wlmscpfs");
    command.arg("-dfp").arg(folder.path()).arg("-dfr").arg(port.to_string());
    let _server = Server::start(&mut command, port);
    let query = InMemDicomObject::from_element_iter([
        DataElement::new(tags::ACCESSION_NUMBER, VR::SH, ""),
        DataElement::new(tags::PATIENT_NAME, VR::PN, "Yamada*"),
        DataElement::new(tags::PATIENT_ID, VR::LO, ""),
        DataElement::new(tags::STUDY_INSTANCE_UID, VR::UI, ""),
    ]);
    let target = target(port, "RIS");
    let utf8 = Repertoire::UTF8;
    let (found, end) = inquiry::find(&target, MODALITY_WORKLIST, &query, utf8, 10).await.unwrap();
    let mut accessions: Vec<_> = found.iter().map(|f| text(f, tags::ACCESSION_NUMBER)).collect();
    accessions.sort();
    assert_eq!((end.answer.status, accessions), (0, vec!["A1".to_owned(), "A2".to_owned()]));
    let names = found.iter().map(|f| text(f, tags::PATIENT_NAME));
    assert!(names.eq(["Yamada^Tarou=山田^太郎"; 2]), "{found:?}");
}
