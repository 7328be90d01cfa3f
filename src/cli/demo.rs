//! `hikyaku demo`: a hospital, a reading centre and a scanner on this machine, with real keys, real
//! configuration files, real sockets and real images.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use dicom_ul::association::client::ClientAssociationOptions;
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu};

use super::table::say;
use super::{Failure, Outcome};
use crate::cargo::{NodeName, Sha256};
use crate::clock;
use crate::config::Config;
use crate::custody::{CargoStatus, Filter};
use crate::dicom::command::{Command, Priority, StoreRequest};
use crate::dicom::header::{self, Reading};
use crate::node::Node;
use crate::tunnel::pki;

/// The study that is sent: MR slices of a melon (tests/data/README.md).
const STUDY: [&[u8]; 10] = [
    include_bytes!("../../tests/data/study/slice_060.dcm"),
    include_bytes!("../../tests/data/study/slice_070.dcm"),
    include_bytes!("../../tests/data/study/slice_080.dcm"),
    include_bytes!("../../tests/data/study/slice_085.dcm"),
    include_bytes!("../../tests/data/study/slice_090.dcm"),
    include_bytes!("../../tests/data/study/slice_095.dcm"),
    include_bytes!("../../tests/data/study/slice_100.dcm"),
    include_bytes!("../../tests/data/study/slice_105.dcm"),
    include_bytes!("../../tests/data/study/slice_110.dcm"),
    include_bytes!("../../tests/data/study/slice_115.dcm"),
];
/// How long any step may take before the demo says that it failed.
const PATIENCE: Duration = Duration::from_secs(60);
const HOSPITAL: &str = "hospital";
const READING: &str = "reading-centre";

/// `hikyaku demo`
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Keep running, for images of your own
    #[arg(long)]
    stay: bool,
    /// Folder to work in; made when missing, a new temporary one when not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Demo {
    pub(super) fn run(self) -> Outcome {
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => std::env::temp_dir().join(format!("hikyaku-demo-{}", std::process::id())),
        };
        fs::create_dir_all(&dir).map_err(failed)?;
        let dir = fs::canonicalize(dir).map_err(failed)?;
        let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
        runtime.block_on(self.show(&dir))
    }

    async fn show(&self, dir: &Path) -> Outcome {
        say(&format!("Working in {}\n", dir.display()))?;
        keys(dir)?;
        let (hospital, reading) = start(dir).await?;
        let dicom = hospital.addresses().dicom.ok_or_else(|| failed("no DICOM port"))?;
        say(&format!(
            "3. {HOSPITAL} listens for DICOM on {dicom}, AE titles HIKYAKU and TELE_STAT;\n   \
             {READING} waits for its tunnel on {} (UDP).",
            reading.addresses().tunnel.map_or_else(String::new, |a| a.to_string())
        ))?;
        let images = images()?;
        say(&format!("4. A scanner sends {} MR images by C-STORE:", images.len()))?;
        let sent = images.clone();
        tokio::task::spawn_blocking(move || scan(dicom, &sent)).await.map_err(failed)??;
        let delivered = dir.join("delivered");
        report(&hospital, &reading, &images, &delivered).await?;
        say(&format!(
            "\nAll {} images arrived, bit for bit. The files: {}",
            images.len(),
            delivered.display()
        ))?;
        if self.stay {
            invite(dir, dicom)?;
            // As daemons, until Ctrl-C: they can be asked, and told to reload.
            let (hospital, reading) = tokio::join!(hospital.run(), reading.run());
            return hospital.and(reading).map(drop).map_err(failed);
        }
        hospital.stop().await;
        reading.stop().await;
        Ok(())
    }
}

fn failed(e: impl std::fmt::Display) -> Failure {
    Failure::Failed(e.to_string())
}

fn name(s: &str) -> NodeName {
    s.parse().expect("the demo's names are names")
}

fn keys(dir: &Path) -> Outcome {
    let pki_dir = dir.join("pki");
    if !pki_dir.join("ca.key").exists() {
        pki::write_ca(&pki_dir, "Demo authority", clock::wall()).map_err(failed)?;
    }
    for node in [HOSPITAL, READING] {
        if !pki_dir.join(format!("{node}.key")).exists() {
            pki::write_node(&pki_dir, &name(node), 30, clock::wall()).map_err(failed)?;
        }
    }
    say("1. Keys: a private authority, and a certificate for each node, in pki/")
}

async fn start(dir: &Path) -> Result<(Node, Node), Failure> {
    let reading_file = dir.join("reading-centre.toml");
    write(&reading_file, &reading_conf())?;
    let reading = node(&reading_file).await?;
    let tunnel = reading.addresses().tunnel.ok_or_else(|| failed("no tunnel port"))?;
    let hospital_file = dir.join("hospital.toml");
    write(&hospital_file, &hospital_conf(tunnel))?;
    let hospital = node(&hospital_file).await?;
    say("2. Configurations: hospital.toml and reading-centre.toml; both nodes run.")?;
    Ok((hospital, reading))
}

fn write(file: &Path, text: &str) -> Outcome {
    fs::File::create(file).and_then(|mut f| f.write_all(text.as_bytes())).map_err(failed)
}

async fn node(file: &Path) -> Result<Node, Failure> {
    let (config, _) = Config::load(file).map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        failed(words.join("\n"))
    })?;
    Node::start(config).await.map_err(failed)
}

fn hospital_conf(tunnel: SocketAddr) -> String {
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

[[route]]
name = "emergency"
when = {{ called_ae = "TELE_STAT" }}
to = ["{READING}"]
urgency = "stat"

[[route]]
name = "everything"
to = ["{READING}"]

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

[ops]
listen = "127.0.0.1:0"
"#
    )
}

/// One image of the study.
#[derive(Debug, Clone)]
struct Image {
    sop_class: String,
    sop_instance: String,
    transfer_syntax: String,
    data_set: &'static [u8],
}

fn images() -> Result<Vec<Image>, Failure> {
    STUDY.iter().map(|file| image(file)).collect()
}

fn image(file: &'static [u8]) -> Result<Image, Failure> {
    let meta = dicom_object::FileMetaTable::from_reader(&file[128..]).map_err(failed)?;
    // Preamble, magic, the group length element, then the group that it counts.
    let data_set = &file[128 + 4 + 12 + meta.information_group_length as usize..];
    let Reading::Header(header) = header::read(data_set, meta.transfer_syntax(), true) else {
        return Err(failed("a sample image is unreadable"));
    };
    Ok(Image {
        sop_class: header.sop_class().into(),
        sop_instance: header.sop_instance().into(),
        transfer_syntax: meta.transfer_syntax().into(),
        data_set,
    })
}

/// The scanner: dicom-ul's client, which shares no code with this node's intake.
fn scan(address: SocketAddr, images: &[Image]) -> Outcome {
    let first = &images[0];
    let mut association = ClientAssociationOptions::new()
        .calling_ae_title("SCANNER")
        .called_ae_title("HIKYAKU")
        .with_presentation_context(first.sop_class.as_str(), vec![first.transfer_syntax.as_str()])
        .establish(address)
        .map_err(failed)?;
    let context = association.presentation_contexts()[0].id;
    for (n, image) in (1u16..).zip(images) {
        let command = Command::StoreRequest(StoreRequest {
            message_id: n,
            sop_class: image.sop_class.clone(),
            sop_instance: image.sop_instance.clone(),
            priority: Priority::Medium,
            move_originator: None,
            has_data_set: true,
        });
        let command = PDataValue {
            presentation_context_id: context,
            value_type: PDataValueType::Command,
            is_last: true,
            data: command.encode(),
        };
        association.send(&Pdu::PData { data: vec![command] }).map_err(failed)?;
        for chunk in chunks(image.data_set) {
            let (data, is_last) = chunk;
            let value_type = PDataValueType::Data;
            let value = PDataValue { presentation_context_id: context, value_type, is_last, data };
            association.send(&Pdu::PData { data: vec![value] }).map_err(failed)?;
        }
        let status = status(&association.receive().map_err(failed)?)?;
        say(&format!("   image {n:2}: {:>7} bytes, answer {status:04X}H", image.data_set.len()))?;
        if status != 0 {
            return Err(failed("the hospital node refused an image"));
        }
    }
    association.release().map_err(failed)
}

fn chunks(data: &[u8]) -> impl Iterator<Item = (Vec<u8>, bool)> {
    const CHUNK: usize = 16_000;
    let count = data.len().div_ceil(CHUNK);
    data.chunks(CHUNK).enumerate().map(move |(n, chunk)| (chunk.to_vec(), n + 1 == count))
}

fn status(pdu: &Pdu) -> Result<u16, Failure> {
    let Pdu::PData { data } = pdu else { return Err(failed("no C-STORE answer")) };
    let bytes: Vec<u8> = data.iter().flat_map(|v| v.data.iter().copied()).collect();
    match Command::decode(&bytes).map_err(failed)? {
        Command::Response(response) => Ok(response.status),
        _ => Err(failed("no C-STORE answer")),
    }
}

/// Waits until every image has gone its whole way, and shows the receipts.
async fn report(hospital: &Node, reading: &Node, images: &[Image], folder: &Path) -> Outcome {
    let mut carried = Vec::new();
    for image in images {
        carried.push(settled(hospital, image).await?);
    }
    say(&format!("5. {READING} has signed for every image:"))?;
    for (n, (image, cargo)) in images.iter().zip(&carried).enumerate() {
        let receipt = cargo.duties[0].receipt.clone().unwrap_or_default();
        say(&format!("   image {:2}: SHA-256 {}…, {receipt:.60}…", n + 1, &cargo.sha256[..16]))?;
        if cargo.sha256 != Sha256::of(image.data_set).to_string() {
            return Err(failed("the hospital node kept other bytes than were sent"));
        }
    }
    say(&format!("6. {READING} has delivered them to its folder:"))?;
    for (n, image) in images.iter().enumerate() {
        let cargo = settled(reading, image).await?;
        let receipt = cargo.duties[0].receipt.clone().unwrap_or_default();
        let path = folder.join(receipt.trim_start_matches("file "));
        let file = fs::read(&path).map_err(failed)?;
        if !file.ends_with(image.data_set) {
            return Err(failed(format!("{} differs from what was sent", path.display())));
        }
        say(&format!("   image {:2}: {receipt}, identical", n + 1))?;
    }
    say(&format!("7. {HOSPITAL} hears what became of them there:"))?;
    for (n, image) in images.iter().enumerate() {
        let told = |c: &CargoStatus| !c.duties[0].beyond.is_empty();
        let cargo = when(hospital, image, told).await?;
        let beyond = &cargo.duties[0].beyond[0];
        say(&format!("   image {:2}: {} by {}", n + 1, beyond.state, beyond.destination))?;
    }
    Ok(())
}

/// The cargo of `image` at `node`, once all its duties are receipted.
async fn settled(node: &Node, image: &Image) -> Result<CargoStatus, Failure> {
    when(node, image, |c| c.duties.iter().all(|d| d.receipt.is_some())).await
}

/// The cargo of `image` at `node`, once `done` says so.
async fn when(
    node: &Node,
    image: &Image,
    done: impl Fn(&CargoStatus) -> bool,
) -> Result<CargoStatus, Failure> {
    let Reading::Header(header) = header::read(image.data_set, &image.transfer_syntax, true) else {
        return Err(failed("a sample image is unreadable"));
    };
    let filter = Filter { study: Some(header.study().into()), ..Filter::default() };
    let deadline = clock::now() + PATIENCE;
    while clock::now() < deadline {
        let cargo = node.custody().list(filter.clone()).await.unwrap_or_default();
        let found = cargo.into_iter().find(|c| c.key == image.sop_instance);
        if let Some(found) = found
            && !found.duties.is_empty()
            && done(&found)
        {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(failed(format!("an image did not arrive within {} s", PATIENCE.as_secs())))
}

fn invite(dir: &Path, dicom: SocketAddr) -> Outcome {
    let dir = dir.display();
    say(&format!(
        "\nBoth nodes keep running. Send images of your own:\n\n    \
         storescu -aec HIKYAKU {} {} FILE.dcm\n\nand look at them:\n\n    \
         hikyaku status --config {dir}/hospital.toml\n    \
         hikyaku studies --config {dir}/reading-centre.toml\n\nCtrl-C ends it.",
        dicom.ip(),
        dicom.port()
    ))
}
