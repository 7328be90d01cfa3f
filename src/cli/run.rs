//! `hikyaku run` and `hikyaku check-config`.

use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::table::say;
use super::{CONFIG_FILE, Failure, Outcome, print_json};
use crate::config::{Config, LogFormat, LogSection, describe};
use crate::node::{End, Node};

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
        }
    }
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
