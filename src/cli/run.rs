//! `hikyaku run` and `hikyaku check-config`.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::table::say;
use super::{CONFIG_FILE, Failure, Outcome, print_json};
use crate::clock;
use crate::config::{Config, LogFormat, LogSection, describe};
use crate::node::{End, Node};

/// How often in a row the process has begun anew by itself.
const BEGUN: &str = "HIKYAKU_BEGUN_ANEW";
/// After so many times the supervisor decides, or a person.
const BEGUN_MAX: u32 = 5;
/// A process that ran for so long has not failed in a row.
const RAN_WELL: Duration = Duration::from_secs(60);
/// Before the first time; the fifth waits five times as long.
const PAUSE: Duration = Duration::from_millis(500);

/// `hikyaku run`
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
}

/// `hikyaku check-config`
#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    /// Configuration file
    #[arg(default_value = CONFIG_FILE)]
    file: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Sends logs to standard error, in the format and level of `[node] log`; `HIKYAKU_LOG` overrides
/// the level (`info,hikyaku::tunnel=debug`).
pub(super) fn log(section: LogSection) {
    let directives = std::env::var("HIKYAKU_LOG").unwrap_or_else(|_| section.level.as_str().into());
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match section.format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Human => builder.with_ansi(false).init(),
    }
}

impl Run {
    pub(super) fn run(self) -> Outcome {
        let (config, warnings) = Config::load(&self.config).map_err(|problems| {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Failure::Usage(words.join("\n"))
        })?;
        log(config.node.log);
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::Failed(e.to_string()))?;
        let started = clock::now();
        let end = runtime.block_on(async {
            let node = Node::start(config).await.map_err(|e| Failure::Failed(e.to_string()))?;
            tracing::info!(
                node = %node.custody().node(),
                addresses = ?node.addresses(),
                "hikyaku {} is running", env!("CARGO_PKG_VERSION")
            );
            node.run().await.map_err(|e| Failure::Failed(e.to_string()))
        })?;
        // What still blocks on a dead disk must not keep the process.
        runtime.shutdown_background();
        match end {
            End::Stopped => Ok(()),
            End::Failed(reason) => Err(Failure::Failed(reason)),
            End::Begin(reason) => Err(begin_anew(reason, clock::now().since(started))),
        }
    }
}

/// Replaces this process by a new one with the same number, program and arguments, as a supervisor
/// would after a crash, so that a node without one comes back too. Returns only when it cannot, or
/// has done so too often.
fn begin_anew(reason: String, ran: Duration) -> Failure {
    let before = std::env::var(BEGUN).ok().and_then(|n| n.parse().ok()).filter(|_| ran < RAN_WELL);
    let begun: u32 = before.unwrap_or(0) + 1;
    if begun > BEGUN_MAX {
        return Failure::Failed(reason);
    }
    tracing::warn!(begun, "beginning anew, with a new ledger");
    std::thread::sleep(PAUSE * begun);
    let mut args = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    let failed = command.args(args).env(BEGUN, begun.to_string()).exec();
    Failure::Failed(format!("{reason}; beginning anew failed: {failed}"))
}

impl CheckConfig {
    pub(super) fn run(self) -> Outcome {
        let read = Config::load(&self.file);
        if self.json {
            let (problems, warnings) = match &read {
                Ok((_, warnings)) => (Vec::new(), warnings.clone()),
                Err(problems) => (problems.clone(), Vec::new()),
            };
            print_json(&serde_json::json!({ "problems": problems, "warnings": warnings }))?;
        }
        match read {
            Err(problems) if self.json => Err(Failure::Usage(count(problems.len(), "problem"))),
            Err(problems) => {
                let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Err(Failure::Usage(format!(
                    "{} in the configuration\n{}",
                    count(words.len(), "problem"),
                    words.join("\n")
                )))
            }
            Ok((config, warnings)) => {
                if !self.json {
                    say(&describe(&config))?;
                    warnings.iter().try_for_each(|w| say(&format!("warning: {w}")))?;
                }
                match warnings.len() {
                    0 => Ok(()),
                    n => Err(Failure::Found(count(n, "warning"))),
                }
            }
        }
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
