//! `hikyaku spool`: looking after the spool, with or without its node.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::ask::ask;
use super::table::{bytes, say};
use super::{Failure, Outcome, Target, print_json};
use crate::cargo::CargoKind;
use crate::config::Config;
use crate::custody::{self, Custody, OpenError};
use crate::delivery::part10;
use crate::metrics::Metrics;

/// `hikyaku spool …`
#[derive(Debug, Subcommand)]
pub(super) enum Spool {
    /// Read every byte in custody and compare it with its digest
    ///
    /// Works with the node running or stopped. Exit code 4 when something is damaged.
    Verify(Verify),
    /// Rebuild the ledger from the logs; the node must be stopped
    ///
    /// The old one is kept below `[node] data` as aside/ledger. A node does this by itself when it
    /// finds its ledger wanting.
    RebuildLedger(Rebuild),
    /// Write what is in the spool as DICOM files; the node must be stopped
    ///
    /// One file NUMBER.dcm for each image whose bytes are here, delivered or not. Needs no ledger.
    /// Exit code 4 when something is damaged; all else is written.
    Export(Export),
    /// Say that the wall clock is right after an unexplained leap, so that deletion goes on
    ///
    /// Look at `timedatectl` first: bytes are deleted by the wall clock.
    ConfirmClock(Rebuild),
}

/// `hikyaku spool verify`
#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    target: Target,
}

/// `hikyaku spool rebuild-ledger`, `confirm-clock`
#[derive(Debug, Args)]
pub(super) struct Rebuild {
    #[command(flatten)]
    target: Target,
}

/// `hikyaku spool export`
#[derive(Debug, Args)]
pub(super) struct Export {
    /// Folder to write to; made when missing
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Only this study (Study Instance UID)
    #[arg(long, value_name = "UID")]
    study: Option<String>,
    #[command(flatten)]
    target: Target,
}

impl Spool {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Verify(c) => c.run(),
            Self::RebuildLedger(c) => c.rebuild(),
            Self::Export(c) => c.run(),
            Self::ConfirmClock(c) => c.confirm(),
        }
    }
}

fn config(target: &Target) -> Result<Config, Failure> {
    match Config::read(&target.config) {
        Ok((config, _)) => Ok(config),
        Err(problems) => {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Err(Failure::Usage(words.join("\n")))
        }
    }
}

impl Verify {
    fn run(self) -> Outcome {
        let data = config(&self.target)?.node.data;
        let verdict = match custody::verify(&data) {
            Ok(verdict) => json!(verdict),
            Err(OpenError::InUse { .. }) => ask(&self.target, Method::POST, "/verify", None)?,
            Err(e) => return Err(Failure::Failed(e.to_string())),
        };
        let damage = verdict["damage"].as_array().cloned().unwrap_or_default();
        if self.target.json {
            print_json(&verdict)?;
        } else {
            let whole = verdict["whole"].as_u64().unwrap_or(0);
            let size = bytes(verdict["bytes"].as_u64().unwrap_or(0));
            say(&format!("{whole} pieces of cargo are whole ({size})"))?;
            let torn = verdict["torn"].as_array().into_iter().flatten();
            damage.iter().chain(torn).try_for_each(|d| say(d.as_str().unwrap_or_default()))?;
        }
        match damage.len() {
            0 => Ok(()),
            n => Err(Failure::Found(format!("{n} findings of damage"))),
        }
    }
}

impl Rebuild {
    fn rebuild(self) -> Outcome {
        let config = config(&self.target)?;
        let failed = |e: String| Failure::Failed(e);
        let ledger = config.node.data.join("ledger");
        let kept = config.node.data.join("aside").join("ledger");
        custody::try_lock(&config.node.data).map_err(|e| failed(e.to_string()))?;
        if ledger.exists() {
            let moved = fs::create_dir_all(kept.parent().unwrap_or(Path::new(".")))
                .and_then(|()| match kept.exists() {
                    true => fs::remove_dir_all(&kept),
                    false => Ok(()),
                })
                .and_then(|()| fs::rename(&ledger, &kept));
            moved.map_err(|e| failed(format!("{}: {e}", ledger.display())))?;
        }
        let runtime = tokio::runtime::Runtime::new().map_err(|e| failed(e.to_string()))?;
        let present = runtime.block_on(async {
            let section = custody::Config::new(config.node.name.clone(), config.node.data.clone());
            let custody =
                Custody::open(section, Metrics::new()).map_err(|e| failed(e.to_string()))?;
            loop {
                if let Some(why) = custody.stop_switch().reason() {
                    return Err(failed(why));
                }
                let summary = custody.summary_now().await.unwrap_or_default();
                if summary.ready {
                    custody.close().await;
                    return Ok(summary.present);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })?;
        if self.target.json {
            return print_json(&json!({ "present": present }));
        }
        say(&format!("the ledger is rebuilt: {present} pieces of cargo are present"))
    }

    fn confirm(self) -> Outcome {
        let answer: Value = ask(&self.target, Method::POST, "/confirm-clock", None)?;
        match answer["confirmed"] == true {
            true => say("confirmed: what has passed its retention is deleted again"),
            false => Err(Failure::Failed("the node could not record it".into())),
        }
    }
}

impl Export {
    fn run(self) -> Outcome {
        let data = config(&self.target)?.node.data;
        fs::create_dir_all(&self.to)
            .map_err(|e| Failure::Failed(format!("{}: {e}", self.to.display())))?;
        let mut damage = Vec::new();
        let study = self.study.clone();
        let to = self.to.clone();
        let written = custody::export(
            &data,
            |entry| {
                let envelope = entry.envelope();
                envelope.kind == CargoKind::Image
                    && study.as_ref().is_none_or(|uid| envelope.study == *uid)
            },
            |entry, file| write_part10(&to, entry, file),
            &mut damage,
        )
        .map_err(|e| Failure::Failed(e.to_string()))?;
        if self.target.json {
            print_json(&json!({ "written": written, "damage": damage }))?;
        } else {
            say(&format!("{written} files in {}", self.to.display()))?;
            damage.iter().try_for_each(|d| say(d))?;
        }
        match damage.len() {
            0 => Ok(()),
            n => Err(Failure::Found(format!("{n} findings of damage"))),
        }
    }
}

fn write_part10(to: &Path, entry: &custody::CargoEntry, file: &File) -> io::Result<()> {
    let envelope = entry.envelope();
    let path = to.join(format!("{}.dcm", entry.cargo()));
    let mut out = io::BufWriter::new(File::create(path)?);
    out.write_all(&part10::front(envelope))?;
    let body = entry.body();
    let mut buf = vec![0; 1 << 20];
    let mut at = body.start;
    while at < body.end {
        let n = usize::try_from(body.end - at).unwrap_or(buf.len()).min(buf.len());
        file.read_exact_at(&mut buf[..n], at)?;
        out.write_all(&buf[..n])?;
        at += n as u64;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}
