//! `hikyaku explain`: which rule applies, and why the others do not.

use std::path::{Path, PathBuf};

use clap::Args;
use dicom_object::OpenFileOptions;
use hyper::Method;
use serde_json::{Value, json};

use super::ask::ask;
use super::table::say;
use super::{Failure, Outcome, Target, print_json};
use crate::cargo::{CargoKind, Envelope, Identity, Sha256, Urgency, peer_text};
use crate::clock;
use crate::config::Config;
use crate::dicom::header::{self, Header, Reading};
use crate::routing::{Explanation, Patient, Subject};

/// Bytes of a file that are looked at.
const HEAD_BYTES: u64 = 4 << 20;

/// `hikyaku explain`
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Study Instance UID of a study in custody, or a DICOM file that was not yet sent
    what: String,
    /// For a file: the AE title that it would be sent to
    #[arg(long, default_value = "HIKYAKU")]
    called: String,
    /// For a file: the AE title that would send it
    #[arg(long, default_value = "ANY")]
    calling: String,
    /// Show values that identify the patient
    #[arg(long)]
    patient: bool,
    #[command(flatten)]
    target: Target,
}

impl Explain {
    pub(super) fn run(self) -> Outcome {
        let path = PathBuf::from(&self.what);
        if path.is_file() {
            return self.file(&path);
        }
        let request = json!({ "study": self.what, "patient": self.patient });
        let found: Vec<Value> = ask(&self.target, Method::POST, "/explain", Some(&request))?;
        if found.is_empty() {
            return Err(Failure::Failed(format!(
                "{} is neither a file nor a study in custody",
                self.what
            )));
        }
        if self.target.json {
            return print_json(&found);
        }
        for group in &found {
            say(&format!("{} images, such as cargo {}:", group["images"], group["example"]))?;
            say(group["words"].as_str().unwrap_or_default())?;
        }
        Ok(())
    }

    fn file(&self, path: &Path) -> Outcome {
        let (config, _) = Config::read(&self.target.config).map_err(|problems| {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure::Usage(words.join("\n"))
        })?;
        let failed =
            |e: &dyn std::fmt::Display| Failure::Failed(format!("{}: {e}", path.display()));
        let meta = OpenFileOptions::new()
            .read_until(dicom_dictionary_std::tags::PIXEL_DATA)
            .open_file(path)
            .map_err(|e| failed(&e))?
            .meta()
            .clone();
        let bytes = std::fs::read(path).map_err(|e| failed(&e))?;
        // 128 bytes of preamble, "DICM", the group length element, then the group it counts.
        let start = 132 + 12 + meta.information_group_length as usize;
        let body = bytes.get(start..).unwrap_or_default();
        let head = &body[..body.len().min(HEAD_BYTES as usize)];
        let syntax = meta.transfer_syntax.trim_end_matches('\0').to_owned();
        let Reading::Header(header) = header::read(head, &syntax, head.len() == body.len()) else {
            return Err(failed(&"no element can be read"));
        };
        let envelope = self.envelope(&config, &header, &syntax, body);
        let attribute =
            |keyword: &str| header.attribute(header::tag_of(keyword)?).map(str::to_owned);
        let patient = if self.patient { Patient::Shown } else { Patient::Masked };
        let subject = Subject { envelope: &envelope, attribute: &attribute };
        let explanation = config.routes.explain(&subject, patient);
        if self.target.json {
            return print_json(&explanation);
        }
        say(&words(&explanation))
    }

    fn envelope(&self, config: &Config, header: &Header, syntax: &str, body: &[u8]) -> Envelope {
        Envelope {
            kind: CargoKind::Image,
            identity: Identity {
                origin: config.node.name.clone(),
                key: peer_text(header.sop_instance()),
                sha256: Sha256::of(body),
            },
            length: body.len() as u64,
            urgency: Urgency::Routine,
            received_at: clock::wall(),
            calling_ae: peer_text(&self.calling),
            called_ae: peer_text(&self.called),
            sop_class: peer_text(header.sop_class()),
            transfer_syntax: syntax.into(),
            study: peer_text(header.study()),
            series: peer_text(header.series()),
            modality: peer_text(header.modality()),
            accession: peer_text(header.accession()),
            patient_id: peer_text(header.patient_id()),
            flags: Vec::new(),
        }
    }
}

fn words(explanation: &Explanation) -> String {
    explanation.to_string()
}
