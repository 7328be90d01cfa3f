//! The study, the scanner that sends it, and its way to the reading room with every receipt.

use std::fs;
use std::net::SocketAddr;

use dicom_ul::association::client::ClientAssociationOptions;
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu};

use super::scene::{HOSPITAL, READING, Scene};
use super::{failed, soon};
use crate::cargo::Sha256;
use crate::cli::table::say;
use crate::cli::{Failure, Outcome};
use crate::custody::{CargoStatus, Filter};
use crate::dicom::command::{Command, Priority, StoreRequest};
use crate::dicom::header::{self, Reading};
use crate::node::Node;

/// The scanner's AE title.
pub(super) const SCANNER: &str = "SCANNER";
/// The study that is sent: MR slices of a melon (tests/data/README.md).
const STUDY: [&[u8]; 10] = [
    include_bytes!("../../../tests/data/study/slice_060.dcm"),
    include_bytes!("../../../tests/data/study/slice_070.dcm"),
    include_bytes!("../../../tests/data/study/slice_080.dcm"),
    include_bytes!("../../../tests/data/study/slice_085.dcm"),
    include_bytes!("../../../tests/data/study/slice_090.dcm"),
    include_bytes!("../../../tests/data/study/slice_095.dcm"),
    include_bytes!("../../../tests/data/study/slice_100.dcm"),
    include_bytes!("../../../tests/data/study/slice_105.dcm"),
    include_bytes!("../../../tests/data/study/slice_110.dcm"),
    include_bytes!("../../../tests/data/study/slice_115.dcm"),
];

/// One image of the study.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// Study Instance UID.
    pub(super) study: String,
    /// Series Instance UID; all are of one.
    pub(super) series: String,
    pub(super) sop_class: String,
    pub(super) sop_instance: String,
    transfer_syntax: String,
    data_set: &'static [u8],
}

/// All of them.
pub(super) fn images() -> Result<Vec<Image>, Failure> {
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
        study: header.study().into(),
        series: header.series().into(),
        sop_class: header.sop_class().into(),
        sop_instance: header.sop_instance().into(),
        transfer_syntax: meta.transfer_syntax().into(),
        data_set,
    })
}

/// The scanner: dicom-ul's client, which shares no code with this node's intake.
pub(super) fn scan(address: SocketAddr, images: &[Image]) -> Outcome {
    let first = &images[0];
    let mut association = ClientAssociationOptions::new()
        .calling_ae_title(SCANNER)
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
pub(super) async fn receipts(scene: &Scene, images: &[Image]) -> Outcome {
    let (hospital, reading) = (&scene.hospital, &scene.reading);
    let folder = scene.dir.join("delivered");
    let mut carried = Vec::new();
    for image in images {
        carried.push(settled(hospital, image).await?);
    }
    say(&format!("6. {READING} has signed for every image:"))?;
    for (n, (image, cargo)) in images.iter().zip(&carried).enumerate() {
        let receipt = cargo.duties[0].receipt.clone().unwrap_or_default();
        say(&format!("   image {:2}: SHA-256 {}…, {receipt:.60}…", n + 1, &cargo.sha256[..16]))?;
        if cargo.sha256 != Sha256::of(image.data_set).to_string() {
            return Err(failed("the hospital node kept other bytes than were sent"));
        }
    }
    say(&format!("7. {READING} has delivered them to its folder:"))?;
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
    say(&format!("8. {HOSPITAL} hears what became of them there:"))?;
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
    let filter = Filter { study: Some(image.study.clone()), ..Filter::default() };
    let what = format!("an image to have gone its way at {}", node.view().node());
    soon(&what, async || {
        let cargo = node.custody().list(filter.clone()).await.unwrap_or_default();
        let found = cargo.into_iter().find(|c| c.key == image.sop_instance)?;
        (!found.duties.is_empty() && done(&found)).then_some(found)
    })
    .await
}
