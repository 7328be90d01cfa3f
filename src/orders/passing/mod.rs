//! Performed procedure steps passed on (PS3.4 F.7): every request that a modality has made of this
//! node is made of other MPPS SCPs too, such as the RIS, until they have taken it.
//!
//! - A request is entered by the registrar in the same change as the step itself: a 0000 to the
//!   modality also says that the receivers will be told, complete with the lists of images, under
//!   the same SOP Instance UID, in the same character set where that has all characters.
//! - The requests of one step go in the order in which they were made, one after the other.
//!   Different steps, and different receivers, do not wait for each other.
//! - A receiver that cannot be reached is tried until it can. One that refuses a request is told of
//!   (log, metric, status) and tried for as long as the configuration says; then that step is given
//!   up there, and remembered for [`REMEMBERED`].
//! - Requests stay until their step has ended and every receiver has all of it: one that loses a
//!   step is sent all of it again, once.
//!
//! Limits: [`REQUESTS_MAX`] requests that have not ended, of at most 4 MiB each;
//! [`ASSOCIATIONS_MAX`] associations with one receiver at a time, one request on each.

mod book;
mod outcome;
pub(in crate::orders) mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Timestamp};
use crate::custody::Custody;
use crate::custody::overlay::Stopped;
use crate::dicom::text::Repertoire;
use crate::dicom::{EXPLICIT_VR_LE, PERFORMED_STEP, dataset};
use crate::inquiry::{self, Answer, InquiryError, Target};
use crate::metrics::Metrics;
use book::Book;
use outcome::{Became, became};
use record::{Progress, Request};

/// Requests that have not ended; above that, no step is taken from a modality.
pub const REQUESTS_MAX: u64 = 50_000;
/// Associations with one receiver at a time.
pub const ASSOCIATIONS_MAX: usize = 4;
/// How long it is remembered that a step was given up, and how long a step that does not end
/// keeps its requests after the last one.
pub const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often it is looked for new requests, and for those that are due.
const TICK: Duration = Duration::from_millis(500);
/// Pauses after failures, in seconds; the last one repeats.
const PAUSES: [u64; 6] = [1, 2, 5, 15, 60, 300];
/// How often what is over is forgotten.
const FORGET_PAUSE: Duration = Duration::from_secs(3600);

/// Another MPPS SCP.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// What the configuration calls it.
    pub name: String,
    /// Where and how to reach it.
    pub target: Target,
}

/// Who is told of steps; already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Each with a name of its own.
    pub receivers: Vec<Receiver>,
    /// A step that a receiver refuses for so long is given up there.
    pub give_up: Duration,
}

/// What the registrar must know of this: for whom requests are, and how many have not ended.
#[derive(Debug, Clone, Default)]
pub struct Door {
    /// Names of the receivers.
    pub receivers: Vec<String>,
    pub(in crate::orders) open: Arc<AtomicU64>,
}

impl Config {
    /// The door to these receivers.
    pub fn door(&self) -> Door {
        let receivers = self.receivers.iter().map(|r| r.name.clone()).collect();
        Door { receivers, open: Arc::default() }
    }
}

/// How a receiver fares.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Standing {
    /// Its name.
    pub receiver: String,
    /// It answered at the last try; absent before the first.
    pub up: Option<bool>,
    /// Requests that it does not have yet.
    pub open: u64,
    /// Age of the oldest of them.
    pub oldest_seconds: u64,
    /// Steps that it refuses.
    pub refused: u64,
    /// Steps that were given up here, as long as that is remembered.
    pub given_up: u64,
    /// What went wrong last, in words.
    pub last_error: Option<String>,
}

/// How all receivers fare, brought up to date every second.
pub type Watch = watch::Receiver<Vec<Standing>>;

/// One step at one receiver.
struct Line {
    progress: Progress,
    next_at: Instant,
    failures: usize,
    underway: bool,
    /// The next request may have reached the receiver before.
    unsure: bool,
}

/// What is known of a receiver beside its lines.
#[derive(Debug, Clone, Default)]
struct Peer {
    up: Option<bool>,
    failures: usize,
    next_at: Option<Instant>,
    last_error: Option<String>,
}

type LineKey = (String, String);

/// What a try came to.
enum Tried {
    Answered(Answer),
    /// There was no association.
    Unreachable(String),
    /// There was one, and no answer.
    Broke(String),
    /// It cannot be done like this.
    Refused(String),
}

struct Driver {
    config: Config,
    door: Door,
    book: Book,
    metrics: Metrics,
    requests: BTreeMap<u64, Request>,
    /// The requests of each step.
    steps: BTreeMap<String, BTreeSet<u64>>,
    lines: BTreeMap<LineKey, Line>,
    peers: BTreeMap<String, Peer>,
    /// Steps that may be over.
    over: BTreeSet<String>,
    tries: JoinSet<(LineKey, u64, Tried)>,
    last: u64,
    forgot_at: Option<Instant>,
    watch: watch::Sender<Vec<Standing>>,
}

/// Starts passing steps on. It works until `shutdown`; what is under way then is tried again by the
/// next start.
pub fn start(
    config: Config,
    door: Door,
    custody: Custody,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> (Watch, JoinHandle<()>) {
    let (watch, watched) = watch::channel(Vec::new());
    let peers = config.receivers.iter().map(|r| (r.name.clone(), Peer::default())).collect();
    let driver = Driver {
        config,
        door,
        book: Book::new(custody.clone()),
        metrics,
        requests: BTreeMap::new(),
        steps: BTreeMap::new(),
        lines: BTreeMap::new(),
        peers,
        over: BTreeSet::new(),
        tries: JoinSet::new(),
        last: 0,
        forgot_at: None,
        watch,
    };
    let task = tokio::spawn(async move {
        let work = async {
            custody.until_ready().await;
            driver.work().await
        };
        shutdown.run_until_cancelled(work).await;
    });
    (watched, task)
}

impl Driver {
    async fn work(mut self) -> Result<(), Stopped> {
        for progress in self.book.progress().await? {
            let key = (progress.receiver.clone(), progress.instance.clone());
            self.lines.insert(key, Line::new(progress));
        }
        self.hear().await?;
        // What an earlier life had under way may have arrived.
        self.lines.values_mut().for_each(|line| line.unsure = true);
        let requests = &self.requests;
        self.book.tidy(self.last, |number| requests.contains_key(&number)).await?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(Ok((key, number, tried))) = self.tries.join_next() => {
                    self.tried(key, number, tried).await;
                }
                _ = tick.tick() => {
                    self.hear().await?;
                    self.forget().await;
                    self.show();
                }
            }
            self.refuse_unknown().await;
            self.begin();
        }
    }

    /// Looks for new requests.
    async fn hear(&mut self) -> Result<(), Stopped> {
        for request in self.book.requests(self.last).await? {
            self.last = self.last.max(request.number);
            for receiver in &request.to {
                let key = (receiver.clone(), request.instance.clone());
                let new = || Line::new(Progress::new(receiver, &request.instance));
                let line = self.lines.entry(key).or_insert_with(new);
                if line.progress.given_up.is_some() {
                    tracing::warn!(receiver, step = request.instance, "not passed on: given up");
                    self.count(receiver, "given-up");
                }
            }
            self.steps.entry(request.instance.clone()).or_default().insert(request.number);
            self.over.insert(request.instance.clone());
            self.requests.insert(request.number, request);
        }
        self.door.open.store(self.requests.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn count(&self, receiver: &str, outcome: &str) {
        self.metrics.steps_passed.with_label_values(&[receiver, outcome]).inc();
    }

    /// The request that a receiver is to have next.
    fn next(&self, (receiver, instance): &LineKey, progress: &Progress) -> Option<&Request> {
        if progress.given_up.is_some() {
            return None;
        }
        let numbers = self.steps.get(instance)?.range(progress.accepted + 1..);
        let mut open = numbers.filter_map(|number| self.requests.get(number));
        open.find(|request| request.to.contains(receiver))
    }

    /// Begins what is due, the oldest first.
    fn begin(&mut self) {
        let now = Instant::now();
        for receiver in self.config.receivers.clone() {
            let peer = &self.peers[&receiver.name];
            if peer.next_at.is_some_and(|at| at > now) {
                continue;
            }
            // One try finds out whether it is there again.
            let places = if peer.failures > 0 { 1 } else { ASSOCIATIONS_MAX };
            let own = (receiver.name.clone(), String::new())..;
            let own = self.lines.range(own).take_while(|((name, _), _)| *name == receiver.name);
            let own: Vec<(&LineKey, &Line)> = own.collect();
            let underway = own.iter().filter(|(_, line)| line.underway).count();
            let due = own.iter().filter(|(_, line)| !line.underway && line.next_at <= now);
            let next = |(key, line): &(&LineKey, &Line)| {
                Some((self.next(key, &line.progress)?.number, LineKey::clone(key)))
            };
            let mut due: Vec<(u64, LineKey)> = due.filter_map(next).collect();
            due.sort_unstable();
            for (number, key) in due.into_iter().take(places.saturating_sub(underway)) {
                let request = self.requests[&number].clone();
                self.lines.get_mut(&key).expect("just looked at").underway = true;
                let (book, target) = (self.book.clone(), receiver.target.clone());
                self.tries
                    .spawn(async move { (key, number, attempt(&book, &target, &request).await) });
            }
        }
    }

    /// What is for a receiver that the configuration has no more is refused by nobody.
    async fn refuse_unknown(&mut self) {
        let now = Instant::now();
        let gone = self.lines.iter().filter(|((receiver, _), line)| {
            line.next_at <= now && !self.peers.contains_key(receiver)
        });
        let gone = gone.filter(|(key, line)| self.next(key, &line.progress).is_some());
        for key in gone.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.refused(&key, "no receiver of this name is configured any more".into()).await;
        }
    }

    /// A try has come to its end.
    async fn tried(&mut self, key: LineKey, number: u64, tried: Tried) {
        let Some(request) = self.requests.get(&number).cloned() else { return };
        let Some(line) = self.lines.get_mut(&key) else { return };
        line.underway = false;
        let peer = self.peers.entry(key.0.clone()).or_default();
        if let Tried::Unreachable(why) = tried {
            peer.failures += 1;
            peer.next_at = Some(Instant::now() + pause(peer.failures));
            if peer.up != Some(false) {
                tracing::warn!(receiver = key.0, why, "steps cannot be passed on just now");
            }
            (peer.up, peer.last_error) = (Some(false), Some(why));
            self.count(&key.0, "unreachable");
            return;
        }
        (peer.failures, peer.next_at) = (0, None);
        match tried {
            Tried::Answered(answer) => {
                peer.up = Some(true);
                match became(&request, &answer, line.progress.again, line.unsure) {
                    Became::Taken => self.accepted(&key, &request, "taken").await,
                    Became::Known => self.accepted(&key, &request, "known").await,
                    Became::Lost => self.begin_anew(&key).await,
                    Became::Later(why) => self.later(&key, why, "later"),
                    Became::Refused(why) => self.refused(&key, why).await,
                }
            }
            Tried::Broke(why) => {
                line.unsure = true;
                self.later(&key, why, "unanswered");
            }
            Tried::Refused(why) => self.refused(&key, why).await,
            Tried::Unreachable(_) => {}
        }
    }

    /// Writes down how far a line has come; false when it cannot be, and the try counts as unsure.
    async fn write(&mut self, key: &LineKey, progress: Progress) -> bool {
        let kept = self.book.put(&progress).await;
        let line = self.lines.get_mut(key).expect("its caller has it");
        if let Err(error) = kept {
            tracing::warn!(%error, "how far a step was passed on cannot be written down yet");
            line.unsure = true;
            line.next_at = Instant::now() + pause(1);
            return false;
        }
        line.progress = progress;
        true
    }

    async fn accepted(&mut self, key: &LineKey, request: &Request, outcome: &str) {
        let mut progress = self.lines[key].progress.clone();
        progress.accepted = request.number;
        progress.refused_since = None;
        progress.reason.clear();
        if !self.write(key, progress).await {
            return;
        }
        let line = self.lines.get_mut(key).expect("just written");
        (line.failures, line.unsure) = (0, false);
        if let Some(peer) = self.peers.get_mut(&key.0) {
            peer.last_error = None;
        }
        self.count(&key.0, outcome);
        self.over.insert(key.1.clone());
    }

    /// The receiver has lost the step: it begins with its first request.
    async fn begin_anew(&mut self, key: &LineKey) {
        let mut progress = self.lines[key].progress.clone();
        (progress.accepted, progress.again) = (0, true);
        tracing::warn!(
            receiver = key.0,
            step = key.1,
            "a step is lost there; all of it goes again"
        );
        self.count(&key.0, "lost");
        self.write(key, progress).await;
    }

    fn later(&mut self, key: &LineKey, why: String, outcome: &str) {
        let line = self.lines.get_mut(key).expect("its caller has it");
        line.failures += 1;
        let wait = pause(line.failures);
        line.next_at = Instant::now() + wait;
        if line.failures == 1 {
            let seconds = wait.as_secs();
            tracing::warn!(receiver = key.0, step = key.1, why, seconds, "passed on again later");
        }
        self.peers.entry(key.0.clone()).or_default().last_error = Some(why);
        self.count(&key.0, outcome);
    }

    async fn refused(&mut self, key: &LineKey, why: String) {
        let line = self.lines.get_mut(key).expect("its caller has it");
        line.failures += 1;
        line.next_at = Instant::now() + pause(line.failures);
        let mut progress = line.progress.clone();
        let now = clock::wall();
        let since = *progress.refused_since.get_or_insert(now);
        let new = progress.reason != why;
        if new {
            progress.reason.clone_from(&why);
            tracing::error!(
                receiver = key.0,
                step = key.1,
                why,
                "a step is refused; it is tried again until it is given up"
            );
        }
        let over = now.seconds_since(since) >= self.config.give_up.as_secs();
        progress.given_up = over.then_some(now);
        if let Some(peer) = self.peers.get_mut(&key.0) {
            peer.last_error = Some(why);
        }
        self.count(&key.0, "refused");
        if !new && !over {
            return;
        }
        if !self.write(key, progress).await || !over {
            return;
        }
        tracing::error!(receiver = key.0, step = key.1, "a step is given up: tell it by hand");
        self.count(&key.0, "given-up");
        self.over.insert(key.1.clone());
    }

    /// Removes steps that have ended and that every receiver has, and what is remembered too long.
    async fn forget(&mut self) {
        let now = clock::wall();
        let since = self.forgot_at.map(|at| at.elapsed());
        if since.is_none_or(|since| since >= FORGET_PAUSE) {
            self.forgot_at = Some(Instant::now());
            self.over.extend(self.lines.keys().map(|(_, instance)| instance.clone()));
        }
        for instance in std::mem::take(&mut self.over) {
            if self.is_over(&instance, now) && !self.remove(&instance, now).await {
                self.over.insert(instance);
                return;
            }
        }
    }

    fn is_over(&self, instance: &str, now: Timestamp) -> bool {
        let old = |at: Timestamp| now.seconds_since(at) > REMEMBERED.as_secs();
        let numbers = self.steps.get(instance);
        let last = numbers.and_then(|all| all.last()).and_then(|n| self.requests.get(n));
        let ended = last.is_none_or(|last| last.ends || old(last.at));
        let mut own = self.lines.iter().filter(|((_, own), _)| own == instance);
        ended && own.all(|(key, line)| self.next(key, &line.progress).is_none())
    }

    async fn remove(&mut self, instance: &str, now: Timestamp) -> bool {
        let numbers = self.steps.get(instance).into_iter().flatten();
        let requests: Vec<&Request> = numbers.filter_map(|n| self.requests.get(n)).collect();
        let remembered = |line: &Line| {
            let at = line.progress.given_up;
            at.is_some_and(|at| now.seconds_since(at) <= REMEMBERED.as_secs())
        };
        let own = self.lines.iter().filter(|((_, own), line)| own == instance && !remembered(line));
        let own: Vec<(&LineKey, &Line)> = own.collect();
        let progress: Vec<&Progress> = own.iter().map(|(_, line)| &line.progress).collect();
        if requests.is_empty() && progress.is_empty() {
            return true;
        }
        if let Err(error) = self.book.end(&requests, &progress).await {
            tracing::warn!(%error, "a step that was passed on cannot be removed yet");
            return false;
        }
        let keys: Vec<LineKey> = own.iter().map(|(key, _)| LineKey::clone(key)).collect();
        for number in self.steps.remove(instance).unwrap_or_default() {
            self.requests.remove(&number);
        }
        keys.iter().for_each(|key| drop(self.lines.remove(key)));
        true
    }

    fn show(&self) {
        let now = clock::wall();
        let mut all: BTreeMap<&str, Standing> = BTreeMap::new();
        for (name, peer) in &self.peers {
            let Peer { up, last_error, .. } = peer.clone();
            all.insert(name, Standing { up, last_error, ..Standing::new(name) });
        }
        for (key, line) in &self.lines {
            let standing = all.entry(&key.0).or_insert_with(|| Standing::new(&key.0));
            if line.progress.given_up.is_some() {
                standing.given_up += 1;
                continue;
            }
            standing.refused += u64::from(line.progress.refused_since.is_some());
            let Some(next) = self.next(key, &line.progress) else { continue };
            let rest = self.steps[&key.1].range(next.number..);
            let rest = rest.filter_map(|n| self.requests.get(n));
            standing.open += rest.filter(|request| request.to.contains(&key.0)).count() as u64;
            standing.oldest_seconds = standing.oldest_seconds.max(now.seconds_since(next.at));
        }
        let set = |gauge: &prometheus::IntGaugeVec, name: &str, n: u64| {
            gauge.with_label_values(&[name]).set(i64::try_from(n).unwrap_or(i64::MAX));
        };
        for s in all.values() {
            set(&self.metrics.steps_to_pass, &s.receiver, s.open);
            set(&self.metrics.steps_refused, &s.receiver, s.refused);
        }
        self.watch.send_replace(all.into_values().collect());
    }
}

impl Line {
    fn new(progress: Progress) -> Self {
        Self { progress, next_at: Instant::now(), failures: 0, underway: false, unsure: false }
    }
}

impl Standing {
    fn new(receiver: &str) -> Self {
        Self {
            receiver: receiver.to_owned(),
            up: None,
            open: 0,
            oldest_seconds: 0,
            refused: 0,
            given_up: 0,
            last_error: None,
        }
    }
}

fn pause(failures: usize) -> Duration {
    Duration::from_secs(PAUSES[failures.clamp(1, PAUSES.len()) - 1])
}

/// Makes one request of a receiver.
async fn attempt(book: &Book, target: &Target, request: &Request) -> Tried {
    let Some(bytes) = book.data_set(request).await else {
        return Tried::Refused("it cannot be read here".into());
    };
    let Ok(set) = dataset::read(&bytes, EXPLICIT_VR_LE) else {
        return Tried::Refused("it cannot be read here".into());
    };
    let (class, instance) = (PERFORMED_STEP, &request.instance);
    let repertoire = Repertoire::of(&request.charset);
    let answer = match request.begins {
        true => inquiry::n_create(target, class, instance, &set, repertoire).await,
        false => inquiry::n_set(target, class, instance, &set, repertoire).await,
    };
    match answer {
        Ok(answer) => Tried::Answered(answer),
        Err(e @ InquiryError::Open(_)) => Tried::Unreachable(e.to_string()),
        Err(e @ InquiryError::Broke(_)) => Tried::Broke(e.to_string()),
        Err(e @ (InquiryError::NotTaken(_) | InquiryError::DataSet(_))) => {
            Tried::Refused(e.to_string())
        }
    }
}
