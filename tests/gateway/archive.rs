//! Source archives that are not ours: dcmtk's `dcmqrscp`, which knows the node or does not, and what
//! both it and Orthanc are filled with.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::foreign::storescu;
use crate::ports;
use crate::sender::Object;
use crate::site::{Site, terminate, until};

/// CT Image Storage.
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
/// The AE title of the archive.
pub(crate) const PACS: &str = "PACS";

/// An image as a DICOM file (PS3.10 7.1).
pub(crate) fn part10(sop: &str, data_set: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    let mut element = |number: u8, vr: &[u8; 2], value: &[u8]| {
        meta.extend_from_slice(&[2, 0, number, 0]);
        meta.extend_from_slice(vr);
        let padded = u16::try_from(value.len().next_multiple_of(2)).expect("a short value");
        if vr == b"OB" {
            meta.extend_from_slice(&[0, 0]);
            meta.extend_from_slice(&u32::from(padded).to_le_bytes());
        } else {
            meta.extend_from_slice(&padded.to_le_bytes());
        }
        meta.extend_from_slice(value);
        meta.resize(meta.len() + usize::from(padded) - value.len(), 0);
    };
    element(0x01, b"OB", &[0, 1]);
    element(0x02, b"UI", CT.as_bytes());
    element(0x03, b"UI", sop.as_bytes());
    element(0x10, b"UI", b"1.2.840.10008.1.2.1");
    element(0x12, b"UI", b"1.2.3.4");
    let mut file = vec![0; 128];
    file.extend_from_slice(b"DICM");
    file.extend_from_slice(&[2, 0, 0, 0, b'U', b'L', 4, 0]);
    file.extend_from_slice(&u32::try_from(meta.len()).expect("short").to_le_bytes());
    file.extend_from_slice(&meta);
    file.extend_from_slice(data_set);
    file
}

/// `dcmqrscp`.
pub(crate) struct Archive {
    port: u16,
    folder: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Archive {
    /// One that has its port but does not listen yet.
    pub(crate) fn down(site: &Site) -> Self {
        let port = ports::free();
        let folder = site.path().join(format!("archive-{port}"));
        fs::create_dir_all(folder.join("data")).expect("a folder");
        Self { port, folder, child: Mutex::new(None) }
    }

    /// Makes it listen; it sends to HIKYAKU at the ports that it knows.
    pub(crate) fn up(&self, nodes: &[u16]) {
        let (port, data) = (self.port, self.folder.join("data"));
        let host = |port: &u16| format!("node = (HIKYAKU, localhost, {port})\n");
        let hosts: String = nodes.iter().map(host).collect();
        let text = format!(
            "NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n\
             HostTable BEGIN\n{hosts}HostTable END\nVendorTable BEGIN\nVendorTable END\n\
             AETable BEGIN\n{PACS} {} RW (200, 1024mb) ANY\nAETable END\n",
            data.display()
        );
        let config = self.folder.join("dcmqrscp.cfg");
        fs::write(&config, text).expect("a file that can be written");
        let log = fs::File::create(self.folder.join("log")).expect("a file that can be written");
        let mut command = Command::new("dcmqrscp");
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        *self.child.lock().expect("no panic") = Some(command.spawn().expect("dcmqrscp starts"));
        until("dcmqrscp listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    /// Ends it; what it has stays.
    pub(crate) fn end(&self) {
        if let Some(mut child) = self.child.lock().expect("no panic").take() {
            terminate(&mut child);
        }
    }

    /// One that runs, and has these images of a study.
    pub(crate) fn with(site: &Site, study: &str, images: std::ops::Range<u64>, node: u16) -> Self {
        let archive = Self::down(site);
        archive.up(&[node]);
        archive.fill(study, images);
        archive
    }

    /// Stores images of a study in it, the very ones that a test's sender sends.
    pub(crate) fn fill(&self, study: &str, images: std::ops::Range<u64>) {
        let folder = self.folder.join(format!("{study}-{}", images.start));
        fs::create_dir(&folder).expect("a folder");
        let n = images.end - images.start;
        for number in images {
            let object = Object::new(study, number, 600);
            let file = folder.join(format!("{number}.dcm"));
            fs::write(file, part10(&object.sop, &object.data_set)).expect("a file");
        }
        let (stored, said) = storescu(self.port, &["-aec", PACS, "+sd"], &[&folder]);
        assert_eq!((stored.len() as u64, stored.iter().all(|s| *s == 0)), (n, true), "{said}");
    }

    /// `[[orders.source]]` for it, with short pauses.
    pub(crate) fn source(&self, more: &str) -> String {
        source(PACS, self.port, more)
    }
}

/// An `[[orders.source]]` with short pauses.
pub(crate) fn source(ae_title: &str, port: u16, more: &str) -> String {
    format!(
        "name = \"pacs\"\naddress = \"127.0.0.1:{port}\"\nae_title = {ae_title:?}\n\
         pause = \"1s\"\npause_max = \"2s\"\n{more}"
    )
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.end();
    }
}
