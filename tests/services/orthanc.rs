//! Orthanc, as the source PACS that is asked and as a modality that asks for commitment.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hikyaku::inquiry;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::asking::{MR, fill, get_study, images_of, move_study, study};
use crate::foreign::Server;
use crate::http;
use crate::ports;
use crate::recorder::Recorder;
use crate::site::{PATIENCE, Site, target};

/// Orthanc with an empty storage; it knows the node as HIKYAKU. Ended when dropped.
struct Orthanc {
    dicom: u16,
    http: u16,
    _server: Server,
    _folder: TempDir,
}

impl Orthanc {
    fn start(node: u16) -> Self {
        let (folder, dicom, http) = (tempfile::tempdir().unwrap(), ports::free(), ports::free());
        let configuration = json!({
            "StorageDirectory": folder.path().join("storage"),
            "IndexDirectory": folder.path().join("index"),
            "Plugins": [],
            "DicomAet": "ORTHANC",
            "DicomPort": dicom,
            "HttpPort": http,
            "RemoteAccessAllowed": false,
            "AuthenticationEnabled": false,
            "DicomAlwaysAllowStore": true,
            "DicomModalities": { "node": ["HIKYAKU", "127.0.0.1", node] },
        });
        let file = folder.path().join("orthanc.json");
        fs::write(&file, configuration.to_string()).unwrap();
        let mut command = Command::new("Orthanc");
        command.arg(file).stdin(Stdio::null()).stderr(Stdio::null());
        // It listens for DICOM last.
        let server = Server::start(&mut command, dicom);
        Self { dicom, http, _server: server, _folder: folder }
    }

    /// Asks the node for commitment of images: the path of the transaction.
    fn ask_commitment(&self, images: &[&str]) -> String {
        let images: Vec<_> = images.iter().map(|uid| json!([MR, uid])).collect();
        let body = json!({ "DicomInstances": images }).to_string();
        let path = "/modalities/node/storage-commitment";
        let (code, answer) = http::post(self.http, path, body.as_bytes()).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        assert_eq!(code, 200, "{answer}");
        answer["Path"].as_str().unwrap().to_owned()
    }

    /// How a transaction stands, once it is no longer pending.
    fn outcome(&self, path: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, answer) = http::get(self.http, path).unwrap();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["Status"] != "Pending" {
                return answer;
            }
            assert!(Instant::now() < deadline, "{answer}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orthanc_is_asked_for_its_images_and_sends_them_here_or_gives_them_at_once() {
    let site = Site::start(Recorder::new()).await;
    let orthanc = Orthanc::start(site.port);
    fill(orthanc.dicom, "ORTHANC").await;
    let target = target(orthanc.dicom, "ORTHANC");
    let images = images_of(&target).await;
    assert_eq!(images.len(), study().len());
    let study_uid = images.values().next().unwrap().clone();
    get_study(&target, &study_uid).await;
    assert!(site.images().await.is_empty(), "nothing has been moved yet");
    let (moved, _) = move_study(&target, "HIKYAKU", &study_uid).await;
    assert_eq!((moved.answer.status, moved.counts.failed), (0, 0), "{moved:?}");
    assert_eq!(site.images().await, images.into_keys().collect());
    let (refused, _) = move_study(&target, "STRANGER", &study_uid).await;
    assert!(!refused.answer.is_done(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orthanc_asks_for_commitment_and_learns_the_outcome_on_an_association_of_ours() {
    let site = Site::start(Recorder::new()).await;
    let orthanc = Orthanc::start(site.port);
    let target = target(orthanc.dicom, "ORTHANC");
    for (lacking, status) in [(vec![], "Success"), (vec!["1.2.4".to_owned()], "Failure")] {
        let path = orthanc.ask_commitment(&["1.2.3", "1.2.4"]);
        let n = site.seen().asked.len();
        let (caller, asked) = site.seen().asked[n - 1].clone();
        assert_eq!((caller.calling.as_str(), asked.instances.len()), ("ORTHANC", 2));
        let outcome = Recorder::outcome(&asked, &lacking);
        let answer = inquiry::event_report(&target, &outcome).await.unwrap();
        assert_eq!(answer.status, 0);
        let heard = orthanc.outcome(&path);
        assert_eq!(heard["Status"], status, "{heard}");
        let failed: Vec<_> = heard["Failures"].as_array().unwrap().iter().collect();
        assert_eq!(failed.len(), lacking.len());
        assert!(failed.iter().all(|f| f["SOPInstanceUID"] == "1.2.4"), "{heard}");
    }
}
