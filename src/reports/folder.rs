//! A watched folder as a way in: documents with a sidecar, or with a name that says what they are.
//!
//! ```text
//! NAME.pdf, NAME.txt + NAME.json      one report in one or two forms, as the sidecar says
//! ACCESSION_STATUS.pdf (or .txt)      without a sidecar, as the name says; also STUDYUID_STATUS
//! NAME.json alone                     with the document or its text in it, or cancelled
//! ```
//!
//! A file is read when size and time of change have stood for a while. What is taken is durable in
//! custody, and then moved into `taken/`; what cannot be understood is moved into `held/`, beside a
//! text that says why. Which files are being moved stands in a file of its own ([`MOVING`]) first, so
//! that a crash between two of them does not make a second report of the rest. A crash before that
//! has them taken again: the same bytes are the same piece.
//!
//! Links, folders and special files are not followed and not touched, nor are names that begin with
//! a dot or end as unfinished files do. Names reach neither log nor metrics: they may have a
//! patient's number in them.

mod files;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::arrive::ArriveRules;
use super::collect;
use super::report::{Report, Status};
use crate::clock;
use crate::custody::Custody;
use crate::metrics::Metrics;

use files::{Folder, Unread};
use watch::{Decision, Group, Watch, decide};

/// Where what is taken goes.
pub const TAKEN: &str = "taken";
/// Where what is not understood goes.
pub const HELD: &str = "held";
/// Says which files are on their way to [`TAKEN`].
pub const MOVING: &str = ".hikyaku-moving";

/// A folder; already checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderConfig {
    /// Who is said to have sent what lies there.
    pub name: String,
    /// Where.
    pub path: PathBuf,
    /// For how long a file must stay as it is.
    pub settle: Duration,
    /// Pause between two looks.
    pub every: Duration,
    /// How long a document waits for its sidecar, and a sidecar for its document.
    pub wait: Duration,
    /// What a report is that does not say how far it is; `None`: as the rules say.
    pub status: Option<Status>,
}

/// Takes reports out of a folder until `shutdown`.
pub async fn run(
    config: FolderConfig,
    custody: Custody,
    rules: Arc<ArcSwap<ArriveRules>>,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let mut looking = Looking { config, custody, rules, metrics, shutdown, trouble: String::new() };
    let mut watch = Watch::default();
    loop {
        match looking.look(&mut watch).await {
            Ok(()) => looking.well(),
            Err(why) => looking.trouble(why),
        }
        tokio::select! {
            () = tokio::time::sleep(looking.config.every) => {}
            () = looking.shutdown.cancelled() => return,
        }
    }
}

/// One folder, looked at again and again.
struct Looking {
    config: FolderConfig,
    custody: Custody,
    rules: Arc<ArcSwap<ArriveRules>>,
    metrics: Metrics,
    shutdown: CancellationToken,
    /// What is wrong with the folder or with custody, as last told.
    trouble: String,
}

impl Looking {
    /// Says once what is wrong.
    fn trouble(&mut self, why: String) {
        if why != self.trouble {
            let folder = &self.config.name;
            tracing::warn!(folder, why, "reports in a folder wait; it is tried again and again");
            self.trouble = why;
        }
    }

    fn well(&mut self) {
        if !self.trouble.is_empty() {
            tracing::info!(folder = self.config.name, "reports are taken out of a folder again");
            self.trouble.clear();
        }
    }

    fn count(&self, outcome: &str) {
        self.metrics.reports_in.with_label_values(&["folder", outcome]).inc();
    }

    /// Does blocking work on the folder.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(Folder) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let folder = Folder(self.config.path.clone());
        let done = tokio::task::spawn_blocking(move || work(folder)).await;
        let done = done.map_err(|e| e.to_string())?;
        done.map_err(|e| format!("the folder cannot be used: {e}"))
    }

    async fn look(&mut self, watch: &mut Watch) -> Result<(), String> {
        let seen = self
            .on_disk(|folder| {
                folder.prepare()?;
                folder.finish_moving()?;
                folder.list()
            })
            .await?;
        watch.see(clock::now(), seen);
        for group in watch.ready(clock::now(), self.config.settle, self.config.wait) {
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
            self.handle(group).await?;
        }
        Ok(())
    }

    async fn handle(&mut self, group: Group) -> Result<(), String> {
        let rules = self.rules.load_full();
        let (of, config, own) = (group.clone(), self.config.clone(), rules.clone());
        let read = self
            .on_disk(move |folder| {
                let decision = decide(&of, &own);
                Ok(match decision {
                    Decision::Read => folder.report(&of, &config, &own),
                    Decision::Wait => Err(Unread::Changed),
                    Decision::Hold(why) => Err(Unread::Odd(why)),
                })
            })
            .await?;
        match read {
            Ok(report) => self.take(group, report).await,
            // Somebody still writes, or something is missing: it is looked at again.
            Err(Unread::Changed) => Ok(()),
            Err(Unread::Odd(why)) => {
                let folder = &self.config.name;
                tracing::warn!(
                    folder,
                    why,
                    "a file is no report that can be taken: it is in held/"
                );
                self.count("refused");
                self.on_disk(move |folder| folder.hold(&group.files, &why)).await
            }
        }
    }

    async fn take(&mut self, group: Group, report: Report) -> Result<(), String> {
        match collect::take(&self.custody, &report).await {
            Ok(collected) => {
                self.count(if collected.kept.is_new() { "taken" } else { "again" });
                self.on_disk(move |folder| folder.move_taken(&group.files)).await
            }
            Err(why) => {
                self.count("not-kept");
                Err(format!("they cannot be kept: {why}"))
            }
        }
    }
}
