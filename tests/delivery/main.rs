//! Delivery from real custody to programs that are not ours: pynetdicom (`tests/foreign/scp.py`)
//! and dcmtk's `storescp`.
//!
//! Needs `storescp` on the path, and a Python that has `tests/foreign/requirements.txt`: the one
//! that `HIKYAKU_TEST_PYTHON` names, else that of `tests/run`.

// Shared with the tests of whole nodes.
#[path = "../gateway/ending.rs"]
mod ending;
// Shared likewise.
#[path = "../gateway/python.rs"]
mod python;
mod reports;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dicom_object::FileMetaTable;
use hikyaku::cargo::{
    Assignment, CargoKind, DestinationName, Envelope, Identity, NodeName, Sha256, Urgency,
};
use hikyaku::clock;
use hikyaku::custody::state::StateName;
use hikyaku::custody::{CargoId, Config, Custody, Draft, DutyStatus, Filter};
use hikyaku::delivery::{
    self, DESTINATION_BACKOFF, Delivery, Destination, DicomTarget, REENCODE_LENGTH_MAX, Reencode,
    Target, Timeouts,
};
use hikyaku::metrics::Metrics;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::ending::Program;
use crate::python::python;

/// Longest wait for anything here; only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// One sample object: its data set and what an envelope says of it.
#[derive(Clone)]
struct Sample {
    name: String,
    sop_class: String,
    syntax: String,
    uid: String,
    data: Vec<u8>,
}

fn samples() -> Vec<Sample> {
    objects("samples/")
}

/// The objects of one folder of the test data.
fn objects(prefix: &str) -> Vec<Sample> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let index = std::fs::read_to_string(folder.join("INDEX.tsv")).unwrap();
    let rows = index.lines().filter(|l| l.starts_with(prefix));
    rows.map(|row| {
        let f: Vec<&str> = row.split('\t').collect();
        let file = std::fs::read(folder.join(f[0])).unwrap();
        let meta = u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize;
        let [name, sop_class, syntax, uid] = [f[0], f[6], f[7], f[8]].map(str::to_owned);
        Sample { name, sop_class, syntax, uid, data: file[144 + meta..].to_vec() }
    })
    .collect()
}

/// A foreign SCP, ended when dropped. Its lines are gathered as they come.
struct Scp {
    _program: Program,
    port: u16,
    lines: Arc<Mutex<Vec<serde_json::Value>>>,
}

impl Scp {
    fn start(options: &[&str]) -> Self {
        let mut command = python("scp.py");
        command.arg("--stdin").args(options).stdin(Stdio::piped());
        let (mut program, port) = Program::listening(&mut command);
        let lines = Arc::new(Mutex::new(vec![]));
        let gathered = lines.clone();
        program.each(move |line| {
            gathered.lock().unwrap().push(serde_json::from_str(&line).unwrap());
        });
        Self { _program: program, port, lines }
    }

    /// The digests of what arrived, by SOP Instance UID.
    fn digests(&self) -> BTreeMap<String, Vec<String>> {
        let mut digests = BTreeMap::<String, Vec<String>>::new();
        for line in self.lines.lock().unwrap().iter() {
            let text = |key: &str| line[key].as_str().unwrap().to_owned();
            digests.entry(text("sop")).or_default().push(text("sha256"));
        }
        digests
    }
}

/// Custody in a temporary folder, with delivery to one destination.
struct Site {
    custody: Custody,
    delivery: Delivery,
    shutdown: CancellationToken,
    _data: TempDir,
}

fn destination() -> DestinationName {
    "pacs".parse().unwrap()
}

fn pacs(port: u16) -> DicomTarget {
    DicomTarget {
        host: "127.0.0.1".into(),
        port,
        called: "FOREIGN".parse().unwrap(),
        calling: "HIKYAKU".parse().unwrap(),
        tls: None,
        associations: 1.try_into().unwrap(),
        reencode: Reencode::Never,
        reencode_length_max: REENCODE_LENGTH_MAX,
        timeouts: Timeouts::default(),
    }
}

impl Site {
    fn start(target: Target) -> Self {
        let data = tempfile::tempdir().unwrap();
        let node: NodeName = "st-elsewhere".parse().unwrap();
        let metrics = Metrics::new();
        let mut config = Config::new(node, data.path().join("data"));
        config.room.capacity = Some(4 << 30);
        config.room.reserve = 1 << 20;
        let custody = Custody::open(config, metrics.clone()).unwrap();
        let shutdown = CancellationToken::new();
        let to = Destination { name: destination(), target, backoff: DESTINATION_BACKOFF };
        let delivery = delivery::start(vec![to], &custody, &metrics, &shutdown);
        Self { custody, delivery, shutdown, _data: data }
    }

    async fn take(&self, kind: CargoKind, sample: &Sample) {
        let cargo = self.keep(self.envelope(kind, sample), &sample.data).await;
        self.owe(cargo).await;
    }

    fn envelope(&self, kind: CargoKind, sample: &Sample) -> Envelope {
        Envelope {
            kind,
            identity: Identity {
                origin: self.custody.node().clone(),
                key: sample.uid.clone(),
                sha256: Sha256::of(&sample.data),
            },
            length: sample.data.len() as u64,
            urgency: Urgency::Routine,
            received_at: clock::wall(),
            calling_ae: "CT1".into(),
            called_ae: "HIKYAKU".into(),
            sop_class: sample.sop_class.clone(),
            transfer_syntax: sample.syntax.clone(),
            study: "1.2.3".into(),
            series: String::new(),
            modality: String::new(),
            accession: String::new(),
            patient_id: String::new(),
            flags: vec![],
        }
    }

    /// Into custody, owed to nobody.
    async fn keep(&self, envelope: Envelope, body: &[u8]) -> CargoId {
        let mut assembly = self.custody.assemble();
        assembly.push(body).await.unwrap();
        let draft = Draft { envelope, body: assembly.finish(), assignments: vec![] };
        self.custody.take(draft).await.unwrap().cargo()
    }

    async fn owe(&self, cargo: CargoId) {
        let assignment =
            Assignment { destination: destination(), urgency: Urgency::Routine, hold: None };
        assert!(self.custody.assign(cargo, vec![assignment]).await);
    }

    async fn take_all(&self, samples: &[Sample]) {
        for sample in samples {
            self.take(CargoKind::Image, sample).await;
        }
    }

    /// The duties by SOP Instance UID, once none of them is owed any more but for `owed`.
    async fn settled(&self, owed: &[&str]) -> BTreeMap<String, DutyStatus> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let mut duties = BTreeMap::new();
            // Owed first: what is settled meanwhile is then seen in its later state.
            for state in StateName::ALL {
                let filter = Filter { state: Some(state), ..Filter::default() };
                let cargo = self.custody.list(filter).await.unwrap();
                let rows = cargo.into_iter().map(|c| (c.key, c.duties.into_iter().next().unwrap()));
                duties.extend(rows);
            }
            let open = duties
                .iter()
                .any(|(uid, duty)| duty.state == StateName::Owed && !owed.contains(&uid.as_str()));
            if !open {
                return duties;
            }
            assert!(tokio::time::Instant::now() < deadline, "still owed: {duties:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        self.shutdown.cancel();
        let finished = tokio::time::timeout(PATIENCE, self.delivery.finished()).await;
        finished.expect("delivery ends whatever the other side does");
        self.custody.close().await;
    }
}

fn assert_all_receipted(duties: &BTreeMap<String, DutyStatus>) {
    for (uid, duty) in duties {
        assert_eq!(duty.state, StateName::Receipted, "{uid}: {:?}", duty.reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_arrives_with_an_identical_data_set_at_a_foreign_scp() {
    let samples = samples();
    let scp = Scp::start(&[]);
    let target = DicomTarget { associations: 2.try_into().unwrap(), ..pacs(scp.port) };
    let site = Site::start(Target::Dicom(target));
    site.take_all(&samples).await;
    let duties = site.settled(&[]).await;
    assert_eq!(duties.len(), samples.len());
    assert_all_receipted(&duties);
    let digests = scp.digests();
    for sample in &samples {
        let sent = Sha256::of(&sample.data).to_string();
        assert_eq!(digests[&sample.uid], [sent], "{}", sample.name);
    }
    assert_eq!(site.delivery.status()[0].up, Some(true));
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_refused_for_good_are_quarantined_and_the_others_go_on() {
    let samples = samples();
    let (refused, unauthorised) = (&samples[3].uid, &samples[9].uid);
    let (a, b) = (format!("{refused}=0122"), format!("{unauthorised}=0124"));
    let warned = &samples[5].uid;
    let c = format!("{warned}=B000");
    let scp = Scp::start(&["--status", &a, "--status", &b, "--status", &c]);
    let site = Site::start(Target::Dicom(pacs(scp.port)));
    site.take_all(&samples).await;
    let mut duties = site.settled(&[]).await;
    for (uid, words) in [(refused, "0122"), (unauthorised, "0124")] {
        let duty = duties.remove(uid).unwrap();
        assert_eq!(duty.state, StateName::Quarantined);
        assert!(duty.reason.as_ref().unwrap().contains(words), "{:?}", duty.reason);
    }
    assert!(duties[warned].reason.as_ref().unwrap().contains("B000"));
    assert_all_receipted(&duties);
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_down_costs_no_object_a_try() {
    let samples = &samples()[..8];
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let site = Site::start(Target::Dicom(pacs(port)));
    site.take_all(samples).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while site.delivery.status()[0].up != Some(false) {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let scp = Scp::start(&["--port", &port.to_string()]);
    let duties = site.settled(&[]).await;
    assert_all_receipted(&duties);
    assert!(duties.values().all(|d| d.attempt == 0));
    assert_eq!(scp.digests().len(), samples.len());
    let status = &site.delivery.status()[0];
    assert!(status.last_error.as_ref().unwrap().contains("cannot connect"), "{status:?}");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_breaks_associations_and_one_out_of_resources_do_not_hold_up_the_others() {
    let samples = samples();
    let (poison, full) = (samples[0].uid.clone(), format!("{}=A700", samples[1].uid));
    let scp = Scp::start(&["--abort-uid", &poison, "--status", &full]);
    let site = Site::start(Target::Dicom(pacs(scp.port)));
    site.take_all(&samples).await;
    let mut duties = site.settled(&[&poison, &samples[1].uid]).await;
    for uid in [&poison, &samples[1].uid] {
        let duty = duties.remove(uid).unwrap();
        assert_eq!(duty.state, StateName::Owed, "{:?}", duty.reason);
        assert!(duty.attempt > 0 && duty.reason.is_some());
    }
    assert_all_receipted(&duties);
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_of_one_syntax_gets_native_objects_reencoded_when_that_is_allowed() {
    let native = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"];
    // pynetdicom takes classes that it does not know only when it takes every syntax as well:
    // CT, MR, ultrasound, secondary capture, segmentation, enhanced SR.
    let known = ["2", "4", "6.1", "7", "66.4", "88.22"];
    let mut samples = samples();
    samples.retain(|s| {
        let class = s.sop_class.strip_prefix("1.2.840.10008.5.1.4.1.1.");
        class.is_some_and(|class| known.contains(&class))
    });
    let scp = Scp::start(&["--syntax", native[0]]);
    let target = DicomTarget { reencode: Reencode::Native, ..pacs(scp.port) };
    let site = Site::start(Target::Dicom(target));
    site.take_all(&samples).await;
    let duties = site.settled(&[]).await;
    let digests = scp.digests();
    for sample in &samples {
        let duty = &duties[&sample.uid];
        let is_native = native.contains(&sample.syntax.as_str());
        let expected = if is_native { StateName::Receipted } else { StateName::Quarantined };
        assert_eq!(duty.state, expected, "{}: {:?}", sample.name, duty.reason);
        assert_eq!(digests.contains_key(&sample.uid), is_native);
        if !is_native {
            assert!(duty.reason.as_ref().unwrap().contains(&sample.syntax));
        }
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_gets_part_10_files_under_names_of_ours() {
    let samples = samples();
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("images");
    std::fs::create_dir_all(folder.join(".partial")).unwrap();
    std::fs::write(folder.join(".partial/stale.dcm.part"), b"cut").unwrap();
    let site = Site::start(Target::Folder(folder.clone()));
    site.take_all(&samples).await;
    let note = Sample { uid: "a-note".into(), ..samples[0].clone() };
    site.take(CargoKind::Note, &note).await;
    let mut duties = site.settled(&[]).await;
    assert_eq!(duties.remove("a-note").unwrap().state, StateName::Quarantined);
    assert_all_receipted(&duties);
    for sample in &samples {
        let digest = Sha256::of(&sample.data).to_string();
        let receipt = duties[&sample.uid].receipt.as_ref().unwrap();
        assert!(receipt.contains(&digest[..32]), "{receipt}");
    }
    let files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|d| d.unwrap().path())
        .filter(|d| !d.ends_with(".partial"))
        .flat_map(|d| std::fs::read_dir(d).unwrap().map(|f| f.unwrap().path()))
        .collect();
    assert_eq!(files.len(), samples.len());
    let left = std::fs::read_dir(folder.join(".partial")).unwrap().count();
    assert_eq!(left, 0, "unfinished files are left");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let meta = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
        let table = FileMetaTable::from_reader(&bytes[128..]).unwrap();
        let uid = table.media_storage_sop_instance_uid();
        let sample = samples.iter().find(|s| s.uid == uid).unwrap();
        assert_eq!(bytes[144 + meta..], sample.data[..], "{}", sample.name);
    }
    site.end().await;
}

/// `storescp` of dcmtk, which wants the syntaxes that it takes named, on a port of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_study_arrives_at_dcmtk_bit_preserved() {
    let out = tempfile::tempdir().unwrap();
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let mut command = Command::new("storescp");
    command.args(["+xa", "+B", "-od"]).arg(out.path()).arg(port.to_string());
    let program = Program::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let samples = objects("study/");
    let site = Site::start(Target::Dicom(pacs(port)));
    site.take_all(&samples).await;
    let duties = site.settled(&[]).await;
    site.end().await;
    drop(program);
    let received: Vec<Vec<u8>> = std::fs::read_dir(out.path())
        .unwrap()
        .map(|f| std::fs::read(f.unwrap().path()).unwrap())
        .collect();
    assert_all_receipted(&duties);
    for sample in &samples {
        let whole = received.iter().any(|file| file.ends_with(&sample.data));
        assert!(whole, "{} is not among {} files", sample.name, received.len());
    }
}
