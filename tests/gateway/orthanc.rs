//! Orthanc, as a sender and as a final receiver.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::foreign::AE_TITLE;
use crate::site::{Site, terminate, until};
use crate::{http, ports};

pub(crate) struct Orthanc {
    dicom: u16,
    http: u16,
    child: Child,
}

impl Orthanc {
    /// One with an empty storage, which only receives.
    pub(crate) fn receiving(site: &Site) -> Self {
        Self::sending_to(site, &[])
    }

    /// One that also knows receivers by name, at DICOM ports of this machine.
    pub(crate) fn sending_to(site: &Site, receivers: &[(&str, u16)]) -> Self {
        let receivers: BTreeMap<_, _> = receivers
            .iter()
            .map(|(name, port)| (*name, json!(["HIKYAKU", "127.0.0.1", port])))
            .collect();
        let (dicom, http) = (ports::free(), ports::free());
        let dir = site.path().join(format!("orthanc-{dicom}"));
        fs::create_dir(&dir).expect("a folder");
        let configuration = json!({
            "Name": "foreign",
            "StorageDirectory": dir.join("storage"),
            "IndexDirectory": dir.join("index"),
            "Plugins": [],
            "DicomAet": AE_TITLE,
            "DicomPort": dicom,
            "HttpPort": http,
            "RemoteAccessAllowed": false,
            "AuthenticationEnabled": false,
            "DicomAlwaysAllowStore": true,
            "DicomAlwaysAllowEcho": true,
            "DicomCheckCalledAet": false,
            "UnknownSopClassAccepted": true,
            "OverwriteInstances": false,
            "HttpsVerifyPeers": false,
            "DicomModalities": receivers,
        });
        let file = dir.join("orthanc.json");
        fs::write(&file, configuration.to_string()).expect("a file that can be written");
        let log = fs::File::create(dir.join("log")).expect("a file that can be written");
        let mut command = Command::new("Orthanc");
        command.arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("Orthanc starts");
        let orthanc = Self { dicom, http, child };
        until("Orthanc answers", || http::get(http, "/system").is_ok_and(|(code, _)| code == 200));
        orthanc
    }

    /// Its DICOM port.
    pub(crate) const fn port(&self) -> u16 {
        self.dicom
    }

    fn json(&self, path: &str) -> Value {
        let (code, body) = http::get(self.http, path).expect("Orthanc answers");
        assert_eq!(code, 200, "{path}");
        serde_json::from_slice(&body).expect("JSON")
    }

    /// Its own names of the instances that it has.
    pub(crate) fn instances(&self) -> Vec<String> {
        let names = self.json("/instances");
        let names = names.as_array().expect("a list").iter();
        names.map(|n| n.as_str().expect("a name").to_owned()).collect()
    }

    /// An instance as a DICOM file.
    pub(crate) fn file(&self, instance: &str) -> Vec<u8> {
        let (code, body) =
            http::get(self.http, &format!("/instances/{instance}/file")).expect("Orthanc answers");
        assert_eq!(code, 200, "{instance}");
        body
    }

    /// Puts a DICOM file into its storage.
    pub(crate) fn upload(&self, file: &[u8]) -> Value {
        let (code, body) = http::post(self.http, "/instances", file).expect("Orthanc answers");
        assert_eq!(code, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    /// Sends instances to a receiver by C-STORE; what Orthanc says of it.
    pub(crate) fn send(&self, receiver: &str, instances: &[String]) -> (u16, Value) {
        let body = json!({ "Resources": instances, "Synchronous": true }).to_string();
        let path = format!("/modalities/{receiver}/store");
        let answer = http::post(self.http, &path, body.as_bytes());
        let (code, body) = answer.expect("Orthanc answers");
        (code, serde_json::from_slice(&body).unwrap_or_default())
    }
}

impl Drop for Orthanc {
    fn drop(&mut self) {
        terminate(&mut self.child);
    }
}
