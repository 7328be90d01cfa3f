//! Receivers to compare with, and dcmtk's sender.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::node::Node;
use super::process::Process;
use super::{free_port, http, wait_until};

/// What receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    /// This project, its destination down: intake alone.
    Hikyaku,
    /// This project, delivering to a folder at the same time.
    HikyakuFolder,
    /// dcmtk storescp, a process for each association.
    Storescp,
    /// The same with +B: bit-preserving, straight to the file.
    StorescpB,
    /// Orthanc as it comes: SyncStorageArea is true.
    Orthanc,
}

impl Receiver {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Hikyaku, Self::HikyakuFolder, Self::Storescp, Self::StorescpB, Self::Orthanc];

    /// As it stands in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hikyaku => "hikyaku",
            Self::HikyakuFolder => "hikyaku + folder",
            Self::Storescp => "storescp --fork",
            Self::StorescpB => "storescp --fork +B",
            Self::Orthanc => "Orthanc",
        }
    }

    /// Starts it with its data below `dir`.
    pub fn start(self, prefix: &[&str], dir: &Path, tuned: bool) -> Running {
        let (port, ops_port) = (free_port(), free_port());
        let _ = fs::remove_dir_all(dir);
        let inbox = dir.join("in");
        fs::create_dir_all(&inbox).expect("a folder");
        let ops = SocketAddr::from(([127, 0, 0, 1], ops_port));
        let process = match self {
            Self::Hikyaku | Self::HikyakuFolder => {
                let toml = intake_config(port, ops_port, self == Self::HikyakuFolder);
                let node = Node::start(prefix, dir, "intake", &toml, ops);
                node.await_ready(Duration::from_secs(20));
                node.process
            }
            Self::Storescp | Self::StorescpB => {
                let mut words = vec!["storescp", "--fork"];
                if self == Self::StorescpB {
                    words.push("+B");
                }
                let inbox = inbox.to_str().expect("a path");
                let port = port.to_string();
                words.extend(["-od", inbox, &port]);
                spawn(prefix, &words, dir, tuned)
            }
            Self::Orthanc => {
                let config = orthanc_config(dir, "ORTHANC", port, ops_port, "");
                spawn(prefix, &["Orthanc", config.to_str().expect("a path")], dir, tuned)
            }
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let step = Duration::from_millis(50);
        let up = wait_until(Duration::from_secs(60), step, || {
            std::net::TcpStream::connect(address).is_ok()
        });
        assert!(up, "{} does not listen", self.name());
        std::thread::sleep(Duration::from_millis(300));
        Running { receiver: self, process, address, ops, inbox }
    }
}

fn intake_config(port: u16, ops: u16, folder: bool) -> String {
    let destination = match folder {
        true => "kind = \"folder\"\npath = \"in\"".to_owned(),
        // Nobody listens on port 1.
        false => "kind = \"dicom\"\naddress = \"127.0.0.1:1\"\nae_title = \"DOWN\"".to_owned(),
    };
    format!(
        r#"[node]
name = "bench"
data = "data"
[dicom]
listen = "127.0.0.1:{port}"
ae_titles = ["HIKYAKU", "ANY-SCP"]
allow = [{{ address = "127.0.0.1" }}]
[[destination]]
name = "next"
{destination}
[[route]]
name = "all"
to = ["next"]
[ops]
listen = "127.0.0.1:{ops}"
"#
    )
}

/// Writes an Orthanc configuration; `more` is added inside the braces.
pub fn orthanc_config(dir: &Path, title: &str, dicom: u16, http: u16, more: &str) -> PathBuf {
    let data = dir.join("orthanc");
    let text = format!(
        r#"{{"Name": "{title}", "StorageDirectory": "{0}", "IndexDirectory": "{0}",
"DicomAet": "{title}", "DicomPort": {dicom}, "HttpPort": {http}, "DicomCheckCalledAet": false,
"RemoteAccessAllowed": true, "AuthenticationEnabled": false, "SyncStorageArea": true,
"Plugins": []{more}}}"#,
        data.display()
    );
    let path = dir.join("orthanc.json");
    fs::write(&path, text).expect("a configuration");
    path
}

/// Starts a command of others; `tuned` sets dcmtk's TCP_NODELAY, which Orthanc heeds too.
pub fn spawn(prefix: &[&str], words: &[&str], dir: &Path, tuned: bool) -> Process {
    let all: Vec<&str> = prefix.iter().chain(words).copied().collect();
    let mut command = Command::new(all[0]);
    command.args(&all[1..]).current_dir(dir).env_remove("TCP_NODELAY");
    if tuned {
        command.env("TCP_NODELAY", "1");
    }
    Process::start(&mut command, &dir.join("log"))
}

/// Starts `storescu +sd` with the files of a folder.
pub fn storescu(prefix: &[&str], called: &str, to: SocketAddr, dir: &Path, tuned: bool) -> Process {
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    let from = dir.to_str().expect("a path");
    let words = ["storescu", "-aec", called, "+sd", &host, &port, from];
    let log = dir.parent().expect("a parent");
    let all: Vec<&str> = prefix.iter().chain(&words).copied().collect();
    let mut command = Command::new(all[0]);
    command.args(&all[1..]).env_remove("TCP_NODELAY");
    if tuned {
        command.env("TCP_NODELAY", "1");
    }
    Process::start(&mut command, &log.join("storescu.log"))
}

/// A receiver that listens.
pub struct Running {
    receiver: Receiver,
    /// Its process.
    pub process: Process,
    /// Where it takes C-STORE.
    pub address: SocketAddr,
    ops: SocketAddr,
    inbox: PathBuf,
}

impl Running {
    /// The AE title to call.
    pub fn title(&self) -> &'static str {
        match self.receiver {
            Receiver::Orthanc => "ORTHANC",
            _ => "HIKYAKU",
        }
    }

    /// Images that it has.
    pub fn count(&self) -> usize {
        match self.receiver {
            Receiver::Hikyaku | Receiver::HikyakuFolder => {
                let page = http::get(self.ops, "/metrics").unwrap_or_default();
                super::node::sum(&page, "hikyaku_kept_total", "") as usize
            }
            Receiver::Orthanc => {
                let page = http::get(self.ops, "/statistics").unwrap_or_default();
                http::number(&page, "CountInstances").unwrap_or(0) as usize
            }
            _ => fs::read_dir(&self.inbox).map_or(0, Iterator::count),
        }
    }
}
