//! The stage: keys, configurations, two nodes, and the hospital's HIS.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::failed;
use super::players::His;
use crate::cargo::NodeName;
use crate::cli::table::say;
use crate::cli::{Failure, Outcome};
use crate::clock;
use crate::config::Config;
use crate::node::Node;
use crate::orders::registrar;
use crate::reports::secretary;
use crate::tunnel::pki;

/// The node that has the patient.
pub(super) const HOSPITAL: &str = "hospital";
/// The node that has the readers.
pub(super) const READING: &str = "reading-centre";
/// The hospital's destinations of reports: its HIS, and a folder.
pub(super) const HIS: &str = "his";
pub(super) const FILES: &str = "report-files";

/// Two nodes that run, and who stands around them.
pub(super) struct Scene {
    pub(super) dir: PathBuf,
    pub(super) hospital: Node,
    pub(super) reading: Node,
    pub(super) his: His,
}

impl Scene {
    /// Makes keys and configurations in `dir`, and starts both nodes.
    pub(super) async fn set(dir: &Path) -> Result<Self, Failure> {
        keys(dir)?;
        let reading_file = dir.join("reading-centre.toml");
        fs::create_dir_all(dir.join("reporting")).map_err(failed)?;
        fs::write(&reading_file, reading_conf()).map_err(failed)?;
        let reading = node(&reading_file).await?;
        let tunnel = reading.addresses().tunnel.ok_or_else(|| failed("no tunnel port"))?;
        let his = His::start().await?;
        let hospital_file = dir.join("hospital.toml");
        fs::write(&hospital_file, hospital_conf(tunnel, his.address)).map_err(failed)?;
        let hospital = node(&hospital_file).await?;
        say("2. Configurations: hospital.toml and reading-centre.toml; both nodes run.")?;
        let scene = Self { dir: dir.to_owned(), hospital, reading, his };
        say(&format!(
            "3. {HOSPITAL} listens for DICOM on {}, AE titles HIKYAKU and TELE_STAT, and for orders \
             by HL7 on {};\n   {READING} waits for its tunnel on {tunnel} (UDP), and for reports by \
             HL7 on {};\n   a HIS that knows nothing of all this listens on {}.",
            scene.dicom()?,
            scene.orders()?,
            scene.reports()?,
            scene.his.address
        ))?;
        Ok(scene)
    }

    /// Where the hospital takes images.
    pub(super) fn dicom(&self) -> Result<SocketAddr, Failure> {
        self.hospital.addresses().dicom.ok_or_else(|| failed("no DICOM port"))
    }

    /// Where the hospital takes orders.
    pub(super) fn orders(&self) -> Result<SocketAddr, Failure> {
        self.hospital.addresses().hl7.ok_or_else(|| failed("no port for orders"))
    }

    /// Where the reading centre takes reports.
    pub(super) fn reports(&self) -> Result<SocketAddr, Failure> {
        self.reading.addresses().reports.ok_or_else(|| failed("no port for reports"))
    }
}

/// Who keeps a node's orders.
pub(super) fn registrar(node: &Node) -> Result<registrar::Desk, Failure> {
    node.view().orders.clone().ok_or_else(|| failed("a node keeps no orders"))
}

/// Who keeps a node's reports.
pub(super) fn secretary(node: &Node) -> Result<secretary::Desk, Failure> {
    node.view().reports.clone().ok_or_else(|| failed("a node keeps no reports"))
}

fn name(s: &str) -> NodeName {
    s.parse().expect("the demo's names are names")
}

fn keys(dir: &Path) -> Outcome {
    let pki_dir = dir.join("pki");
    pki::write_ca(&pki_dir, "Demo authority", clock::wall()).map_err(failed)?;
    for node in [HOSPITAL, READING] {
        pki::write_node(&pki_dir, &name(node), 30, clock::wall()).map_err(failed)?;
    }
    say("1. Keys: a private authority, and a certificate for each node, in pki/")
}

async fn node(file: &Path) -> Result<Node, Failure> {
    let (config, _) = Config::load(file).map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        failed(words.join("\n"))
    })?;
    Node::start(config).await.map_err(failed)
}

/// The hospital. Its times are a hundredth of what a hospital would take.
fn hospital_conf(tunnel: SocketAddr, his: SocketAddr) -> String {
    format!(
        r#"[node]
name = "{HOSPITAL}"
data = "hospital"

[spool]
reserve = "16 MiB"
capacity = "2 GiB"

[dicom]
listen = "127.0.0.1:0"
ae_titles = ["HIKYAKU", "TELE_STAT"]
allow = [{{ address = "127.0.0.1" }}]

[tunnel]
certificate = "pki/{HOSPITAL}.crt"
key = "pki/{HOSPITAL}.key"
trust = "pki/ca.crt"

[[destination]]
name = "{READING}"
kind = "node"
address = "localhost:{}"

[[destination]]
name = "{HIS}"
kind = "hl7"
address = "{his}"
receiving_application = "HIS"
reports = ["message"]

[[destination]]
name = "{FILES}"
kind = "folder"
path = "home"
reports = ["files"]
report_pages = true

[[route]]
name = "emergency"
when = {{ called_ae = "TELE_STAT" }}
to = ["{READING}"]
urgency = "stat"

[[route]]
name = "everything"
to = ["{READING}"]

[orders]
patient_issuer = "DEMO"
settle = "1s"
quiet = "2s"

[orders.hl7]
listen = "127.0.0.1:0"
allow = ["127.0.0.1"]

[reports]

[ops]
listen = "127.0.0.1:0"
"#,
        tunnel.port()
    )
}

fn reading_conf() -> String {
    format!(
        r#"[node]
name = "{READING}"
data = "reading-centre"

[spool]
reserve = "16 MiB"
capacity = "2 GiB"

[tunnel]
listen = "127.0.0.1:0"
certificate = "pki/{READING}.crt"
key = "pki/{READING}.key"
trust = "pki/ca.crt"
peers = [{{ name = "{HOSPITAL}" }}]

[[destination]]
name = "reading-room"
kind = "folder"
path = "delivered"

[[route]]
name = "everything"
to = ["reading-room"]

[orders]
expected = false
settle = "1s"
quiet = "2s"

[reports]

[reports.hl7]
listen = "127.0.0.1:0"
allow = ["127.0.0.1"]

[[reports.folder]]
name = "editor"
path = "reporting"
settle = "1s"
every = "1s"

[ops]
listen = "127.0.0.1:0"
"#
    )
}
