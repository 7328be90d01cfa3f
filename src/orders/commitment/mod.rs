//! Storage commitment (PS3.4 J): takes requests, waits until custody can say yes or no to each
//! instance, and reports until the peer has it.
//!
//! - The yes to a request is given after it is durable; an outcome is durable before it is
//!   reported, so that no restart turns a yes into a no. Reporting goes on across restarts.
//! - Success is a promise on which modalities delete: by default every node that an instance goes
//!   to has signed for it ([`When::Receipted`]).
//! - An outcome goes on the association of its request while that lives, else on one of our own
//!   with the roles reversed, to the address that the configuration has for the AE title.
//! - What a request names is evidence of what its study has: the registrar is told.
//!
//! Limits: [`INSTANCES_MAX`] of one request, [`OPEN_REFERENCES_MAX`] of all open ones,
//! [`REPORTS_MAX`] reports at once. A request is remembered [`REMEMBERED`] after its end, so that
//! its Transaction UID is known when it comes again.

mod book;
mod report;
mod transaction;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use report::{OnAssociation, Peer, Told};
pub use transaction::{Rules, When};

use crate::calls::Calls;
use crate::cargo::NodeName;
use crate::clock::{self, Timestamp};
use crate::custody::Custody;
use crate::custody::overlay::Stopped;
use crate::dicom::AeTitle;
use crate::dicom::commitment::{Asked, Reference};
use crate::dicom::fault::Fault;
use crate::metrics::Metrics;
use crate::orders::registrar::{CommitmentList, Desk};
use book::Book;
use transaction::{Decision, Transaction};

/// Instances of one request.
pub const INSTANCES_MAX: usize = 20_000;
/// Instances of all requests that are open.
pub const OPEN_REFERENCES_MAX: usize = 500_000;
/// Reports under way at once.
pub const REPORTS_MAX: usize = 8;
/// How long a request is remembered after its end.
pub const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Requests that may wait to be taken.
const CALLS_MAX: usize = 64;
/// How often open requests are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Longest pause between two looks at a request that waits.
const LOOK_PAUSE_MAX: u64 = 30;
/// Pauses between tries to report, in seconds; the last one repeats.
const REPORT_PAUSES: [u64; 6] = [2, 5, 15, 60, 300, 600];
/// How often ended requests are forgotten.
const FORGET_PAUSE: Duration = Duration::from_secs(3600);

/// How the committer works; already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node, which is the origin of what its modalities send.
    pub node: NodeName,
    /// When what is committed.
    pub rules: Rules,
    /// Where AE titles take reports when their association has ended.
    pub peers: BTreeMap<AeTitle, Peer>,
}

/// Who asked for commitment.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Its AE title.
    pub calling: AeTitle,
    /// Which of our AE titles it called.
    pub called: AeTitle,
}

struct Call {
    asker: Asker,
    asked: Asked,
    reporter: Box<dyn OnAssociation>,
    reply: oneshot::Sender<Result<(), Fault>>,
}

/// Where requests are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Committer {
    calls: Calls<Call>,
}

impl Committer {
    /// Takes a request; the outcome follows by `reporter` or on an association of our own. Durable
    /// when this returns.
    ///
    /// # Errors
    ///
    /// The response to give; nothing is kept.
    pub async fn commit(
        &self,
        asker: Asker,
        asked: Asked,
        reporter: Box<dyn OnAssociation>,
    ) -> Result<(), Fault> {
        let gone = || Err(Fault::failed("the node is starting or stopping"));
        let call = |reply| Call { asker, asked, reporter, reply };
        self.calls.ask(call).await.unwrap_or_else(gone)
    }
}

/// A request that has not ended.
struct Open {
    transaction: Transaction,
    references: Vec<Reference>,
    /// The association of the request, while it may live.
    reporter: Option<Box<dyn OnAssociation>>,
    /// When it is looked at again.
    next_at: Timestamp,
    tries: usize,
    reporting: bool,
    /// The registrar knows how many of its instances.
    heard: usize,
}

impl Open {
    fn new(
        transaction: Transaction,
        references: Vec<Reference>,
        reporter: Option<Box<dyn OnAssociation>>,
    ) -> Self {
        let next_at = Timestamp::default();
        Self { transaction, references, reporter, next_at, tries: 0, reporting: false, heard: 0 }
    }
}

struct Driver {
    config: Config,
    custody: Custody,
    desk: Desk,
    metrics: Metrics,
    book: Book,
    open: BTreeMap<u64, Open>,
    last: u64,
    reports: JoinSet<(u64, Told)>,
    forgot_at: Timestamp,
}

/// Starts the committer of a node. It works until `shutdown`.
pub fn start(
    config: Config,
    custody: Custody,
    desk: Desk,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> (Committer, JoinHandle<()>) {
    let (calls, inbox) = mpsc::channel(CALLS_MAX);
    let driver = Driver {
        config,
        book: Book::new(custody.clone()),
        custody,
        desk,
        metrics,
        open: BTreeMap::new(),
        last: 0,
        reports: JoinSet::new(),
        forgot_at: Timestamp::default(),
    };
    let task = tokio::spawn(async move {
        shutdown.run_until_cancelled(driver.work(inbox)).await;
    });
    (Committer { calls: calls.into() }, task)
}

impl Driver {
    async fn work(mut self, mut inbox: mpsc::Receiver<Call>) -> Result<(), Stopped> {
        self.custody.until_ready().await;
        for (transaction, references) in self.book.open().await? {
            self.last = self.last.max(transaction.number);
            self.open.insert(transaction.number, Open::new(transaction, references, None));
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                call = inbox.recv() => match call {
                    Some(call) => self.take(call).await?,
                    None => return Err(Stopped),
                },
                Some(Ok((number, told))) = self.reports.join_next() => {
                    self.told(number, told).await?;
                }
                _ = tick.tick() => {}
            }
            self.look().await?;
            self.show();
        }
    }

    /// Takes a request into the book and answers it.
    async fn take(&mut self, call: Call) -> Result<(), Stopped> {
        let Call { asker, asked, reporter, reply } = call;
        let open: usize = self.open.values().map(|o| o.references.len()).sum();
        let instances = asked.instances.len();
        if instances > INSTANCES_MAX || open + instances > OPEN_REFERENCES_MAX {
            let _ = reply.send(Err(Fault::no_room("more instances than are taken at once")));
            return Ok(());
        }
        let now = clock::wall();
        self.last = u64::try_from(now.0).unwrap_or(0).max(self.last + 1);
        let mut transaction = Transaction {
            number: self.last,
            uid: asked.transaction,
            calling: asker.calling.to_string(),
            called: asker.called.to_string(),
            asked_at: now,
            duplicate: false,
            parts: 0,
            decided: None,
            ended_at: None,
        };
        transaction.duplicate = self.book.knows(&transaction).await?;
        let kept = self.book.begin(&mut transaction, &asked.instances).await;
        let answer = kept.map_err(|e| {
            tracing::warn!(error = %e, "a request for commitment cannot be kept");
            Fault::failed("it cannot be kept just now; try again")
        });
        if answer.is_ok() {
            let open = Open::new(transaction, asked.instances, Some(reporter));
            self.open.insert(self.last, open);
        }
        let _ = reply.send(answer);
        Ok(())
    }

    /// Looks at every request whose time has come.
    async fn look(&mut self) -> Result<(), Stopped> {
        let now = clock::wall();
        let is_due = |o: &Open| !o.reporting && (o.next_at <= now || is_far(o.next_at, now));
        let due = self.open.iter().filter(|(_, o)| is_due(o)).map(|(number, _)| *number);
        for number in due.collect::<Vec<_>>() {
            if self.open[&number].transaction.decided.is_none() {
                self.decide(number, now).await?;
            }
            self.report(number, now);
        }
        if now.seconds_since(self.forgot_at) >= FORGET_PAUSE.as_secs() {
            self.forgot_at = now;
            self.book.forget(now, REMEMBERED).await?;
        }
        Ok(())
    }

    /// Decides a request, if all of its instances can be judged.
    async fn decide(&mut self, number: u64, now: Timestamp) -> Result<(), Stopped> {
        let open = self.open.get_mut(&number).expect("only open ones are looked at");
        let age = Duration::from_secs(now.seconds_since(open.transaction.asked_at));
        let failed = if open.transaction.duplicate {
            Some(transaction::all_duplicate(&open.references))
        } else {
            let named: Vec<&str> = open.references.iter().map(|r| r.instance.as_str()).collect();
            let held = self.custody.holdings(&self.config.node, &named).await.ok_or(Stopped)?;
            let lists = report::by_study(&open.references, &held);
            let named = lists.iter().map(|(_, list)| list.len()).sum();
            if named > open.heard {
                for (study, instances) in lists {
                    let list = CommitmentList {
                        transaction: open.transaction.uid.clone(),
                        caller: open.transaction.calling.clone(),
                        study,
                        instances,
                    };
                    // What the registrar cannot take now is told at the next look.
                    if self.desk.commitment(list).await.is_ok() {
                        open.heard = named;
                    }
                }
            }
            transaction::judge(&open.references, &held, &self.config.rules, age)
        };
        let Some(failed) = failed else {
            let pause = (age.as_secs() / 8).clamp(1, LOOK_PAUSE_MAX);
            open.next_at = Timestamp(now.0 + 1000 * pause as i64);
            return Ok(());
        };
        let mut decided = open.transaction.clone();
        decided.decided = Some(Decision { at: now, failed });
        if let Err(error) = self.book.put(&decided).await {
            tracing::warn!(%error, "the outcome of a commitment cannot be written down yet");
            open.next_at = Timestamp(now.0 + 1000);
            return Ok(());
        }
        open.transaction = decided;
        open.next_at = now;
        Ok(())
    }

    /// Begins to report an outcome.
    fn report(&mut self, number: u64, now: Timestamp) {
        if self.reports.len() >= REPORTS_MAX {
            return;
        }
        let Some(open) = self.open.get_mut(&number) else { return };
        let Some(outcome) = open.transaction.outcome(&open.references) else { return };
        if open.next_at > now && !is_far(open.next_at, now) {
            return;
        }
        open.reporting = true;
        let reporter = open.reporter.take().filter(|r| r.is_open());
        let calling = open.transaction.called.parse().ok();
        let called: Option<AeTitle> = open.transaction.calling.parse().ok();
        let target = called.as_ref().and_then(|called| {
            let peer = self.config.peers.get(called)?;
            Some(peer.target(calling?, called.clone()))
        });
        self.reports.spawn(async move { (number, report::tell(outcome, reporter, target).await) });
    }

    /// A report has come to its end.
    async fn told(&mut self, number: u64, told: Told) -> Result<(), Stopped> {
        let Some(open) = self.open.get_mut(&number) else { return Ok(()) };
        open.reporting = false;
        let now = clock::wall();
        let peer = &open.transaction.calling;
        let failed = open.transaction.decided.as_ref().map_or(0, |d| d.failed.len());
        let instances = open.references.len();
        let late =
            now.seconds_since(open.transaction.asked_at) > self.config.rules.report_for.as_secs();
        let ended = match told {
            Told::Taken => {
                tracing::info!(peer, instances, failed, "a commitment is reported");
                true
            }
            Told::Failed(reason) if late => {
                tracing::error!(
                    peer,
                    reason,
                    "the outcome of a commitment is given up: its peer does not take it"
                );
                self.metrics.commitments_given_up.inc();
                true
            }
            Told::Failed(reason) => {
                let pause = REPORT_PAUSES[open.tries.min(REPORT_PAUSES.len() - 1)];
                tracing::warn!(peer, reason, seconds = pause, "a commitment is reported again");
                open.tries += 1;
                open.next_at = Timestamp(now.0 + 1000 * pause as i64);
                false
            }
        };
        if ended {
            let mut last = open.transaction.clone();
            last.ended_at = Some(now);
            if let Err(error) = self.book.end(&last).await {
                // It is reported once more, which a peer can bear; it is not forgotten.
                tracing::warn!(%error, "the end of a commitment cannot be written down yet");
                open.next_at = Timestamp(now.0 + 1000);
                return Ok(());
            }
            let word = if failed == 0 { "committed" } else { "failures" };
            self.metrics.commitments.with_label_values(&[word]).inc();
            self.open.remove(&number);
        }
        Ok(())
    }

    fn show(&self) {
        self.metrics.commitments_open.set(i64::try_from(self.open.len()).unwrap_or(i64::MAX));
    }
}

/// The wall clock has leapt back: what was to come soon is not to wait for it.
fn is_far(next_at: Timestamp, now: Timestamp) -> bool {
    const FAR: u64 = 3600;
    next_at.seconds_since(now) > FAR
}
