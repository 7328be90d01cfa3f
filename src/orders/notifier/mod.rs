//! The notifier: brings notices to their receivers, by every channel of their rule, and tries until
//! they are taken or given up.
//!
//! - It owns the letters in the book of orders from the moment the registrar has entered them. A
//!   letter goes when all channels have taken it, and durably knows which have. A crash in between
//!   sends it again, under the same id.
//! - One lane for each rule and channel: one letter at a time, the oldest first. A receiver that
//!   cannot just now stops its lane and no other; one that refuses a letter is given the next.
//! - Pauses grow with the age of a letter, so that a restart begins with one try and goes on as
//!   before. After [`Way::give_up`] a letter is told as lost, and remembered [`REMEMBERED`].
//!
//! Limits: [`LETTERS_MAX`] letters in memory, [`TRIES_MAX`] tries at once, [`CALLS_MAX`] calls wait.

mod driver;
mod mail;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lettre::message::Mailbox;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use driver::Driver;
pub use mail::{Protection, Relay};
pub use webhook::Webhook;

use crate::calls::Calls;
use crate::cargo::NodeName;
use crate::clock::Timestamp;
use crate::custody::Custody;
use crate::metrics::Metrics;
use crate::orders::letter::{Channel, Link};
use crate::orders::words::Language;

/// Letters in memory; those that are younger wait in the book.
pub const LETTERS_MAX: usize = 20_000;
/// Tries at once.
pub const TRIES_MAX: usize = 8;
/// Calls that may wait.
pub const CALLS_MAX: usize = 16;
/// How long a letter that was given up is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// How the notices of a rule travel.
#[derive(Debug, Clone)]
pub struct Way {
    /// Languages of mails.
    pub languages: Vec<Language>,
    /// Where a link leads.
    pub link: Option<Link>,
    /// Where notices are posted.
    pub webhook: Option<Webhook>,
    /// Who gets mail.
    pub mail: Vec<Mailbox>,
    /// How long a letter is tried.
    pub give_up: Duration,
}

impl Way {
    fn channels(&self) -> Vec<Channel> {
        let webhook = self.webhook.as_ref().map(|_| Channel::Webhook);
        let mail = (!self.mail.is_empty()).then_some(Channel::Mail);
        webhook.into_iter().chain(mail).collect()
    }
}

/// How the notifier works; already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// By name of the rule.
    pub ways: BTreeMap<String, Way>,
    /// The server that takes mail; there when a rule has mail.
    pub relay: Option<Relay>,
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    words: String,
    /// Every other letter would fail, too.
    all: bool,
}

impl Failure {
    const fn of_all(words: String) -> Self {
        Self { words, all: true }
    }

    const fn of_one(words: String) -> Self {
        Self { words, all: false }
    }
}

/// What became of a test.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Tried {
    /// By which channel.
    pub channel: Channel,
    /// Why it was not taken; absent when it was.
    pub failure: Option<String>,
}

/// A letter that is not delivered, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Waiting {
    /// Its id.
    pub id: String,
    /// Its rule.
    pub rule: String,
    /// When it was made.
    pub at: Timestamp,
    /// What it says.
    pub about: String,
    /// The study, where there is one.
    pub study: Option<String>,
    /// Channels that have not taken it.
    pub channels: Vec<Channel>,
    /// When it was given up.
    pub given_up_at: Option<Timestamp>,
    /// What went wrong last on its lanes.
    pub last_error: Option<String>,
}

/// Undelivered notices at a glance; without patient data.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Undelivered {
    /// Notices that a channel has not taken.
    pub waiting: u64,
    /// Age of the oldest of them.
    pub oldest_seconds: u64,
    /// Given up in the last [`REMEMBERED`].
    pub given_up: u64,
    /// What went wrong last, by rule and channel.
    pub errors: Vec<String>,
}

enum Call {
    Test { rule: String, reply: oneshot::Sender<Option<Vec<Tried>>> },
    List { reply: oneshot::Sender<Vec<Waiting>> },
}

/// Where the notifier is asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notifier {
    calls: Calls<Call>,
    shown: watch::Receiver<Undelivered>,
}

impl Notifier {
    /// Sends a test by every channel of a rule, once; `None`: there is no such rule.
    pub async fn test(&self, rule: String) -> Option<Vec<Tried>> {
        self.calls.ask(|reply| Call::Test { rule, reply }).await.flatten()
    }

    /// Letters that are not delivered, the oldest first.
    pub async fn list(&self) -> Vec<Waiting> {
        self.calls.ask(|reply| Call::List { reply }).await.unwrap_or_default()
    }

    /// At a glance.
    pub fn undelivered(&self) -> Undelivered {
        self.shown.borrow().clone()
    }
}

/// Starts the notifier of a node. `letters` rings when the registrar has entered some. It works
/// until `shutdown`.
pub fn start(
    config: Config,
    custody: Custody,
    letters: Arc<Notify>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> (Notifier, JoinHandle<()>) {
    let (calls, inbox) = mpsc::channel(CALLS_MAX);
    let (shown, watched) = watch::channel(Undelivered::default());
    let driver = Driver::new(config, custody, letters, metrics, shown);
    let task = tokio::spawn(async move {
        shutdown.run_until_cancelled(driver.work(inbox)).await;
    });
    (Notifier { calls: calls.into(), shown: watched }, task)
}
