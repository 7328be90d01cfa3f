//! The driver: which letter is tried when, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::MissedTickBehavior;

use super::{
    Call, Config, Failure, LETTERS_MAX, REMEMBERED, TRIES_MAX, Tried, Undelivered, Waiting, Way,
    mail, webhook,
};
use crate::clock::{self, Timestamp};
use crate::custody::Custody;
use crate::custody::overlay::Stopped;
use crate::custody::register::{Book, Change, Entry};
use crate::metrics::Metrics;
use crate::orders::letter::{Channel, GIVEN_UP, Letter, OPEN, Subject};
use crate::orders::notice::Notice;

/// How often lanes are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often the whole book is looked at, for what the bell did not tell.
const READ_PAUSE: u64 = 60;
/// Entries of one question.
const PAGE: usize = 256;

type LaneId = (String, Channel);

#[derive(Debug, Default)]
struct Lane {
    busy: bool,
    /// Nothing is tried before.
    next_at: Timestamp,
    /// Letters that were refused, and when they are tried again.
    refused: BTreeMap<Vec<u8>, Timestamp>,
    last_error: Option<String>,
}

struct Try {
    lane: LaneId,
    key: Vec<u8>,
    /// Recipients that have it.
    taken: BTreeSet<String>,
    outcome: Result<(), Failure>,
}

impl Try {
    /// One that this program has broken off by a fault of its own.
    fn broken((lane, key): (LaneId, Vec<u8>)) -> Self {
        let outcome = Err(Failure::of_one("this program has failed to write it".into()));
        Self { lane, key, taken: BTreeSet::new(), outcome }
    }
}

pub(super) struct Driver {
    config: Arc<Config>,
    custody: Custody,
    metrics: Metrics,
    letters: Arc<Notify>,
    open: BTreeMap<Vec<u8>, Letter>,
    given_up: BTreeMap<Vec<u8>, Letter>,
    lanes: BTreeMap<LaneId, Lane>,
    /// Recipients of a mail that have it, while others have not.
    taken: BTreeMap<Vec<u8>, BTreeSet<String>>,
    /// Letters whose state could not be written down.
    unwritten: BTreeSet<Vec<u8>>,
    tries: JoinSet<Try>,
    /// What each of them tries.
    running: HashMap<Id, (LaneId, Vec<u8>)>,
    shown: watch::Sender<Undelivered>,
    /// The last key that was read.
    read_to: Option<Vec<u8>>,
    read_at: Timestamp,
}

impl Driver {
    pub(super) fn new(
        config: Config,
        custody: Custody,
        letters: Arc<Notify>,
        metrics: Metrics,
        shown: watch::Sender<Undelivered>,
    ) -> Self {
        Self {
            config: Arc::new(config),
            custody,
            metrics,
            letters,
            open: BTreeMap::new(),
            given_up: BTreeMap::new(),
            lanes: BTreeMap::new(),
            taken: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            tries: JoinSet::new(),
            running: HashMap::new(),
            shown,
            read_to: None,
            read_at: Timestamp::default(),
        }
    }

    pub(super) async fn work(mut self, mut inbox: mpsc::Receiver<Call>) -> Result<(), Stopped> {
        self.custody.until_ready().await;
        for letter in self.letters(GIVEN_UP, None).await? {
            self.given_up.insert(letter.key(), letter);
        }
        let bell = self.letters.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                call = inbox.recv() => match call {
                    Some(call) => self.answer(call),
                    None => return Err(Stopped),
                },
                Some(ended) = self.tries.join_next_with_id() => {
                    let tried = match ended {
                        Ok((id, tried)) => self.running.remove(&id).map(|_| tried),
                        Err(fault) => self.running.remove(&fault.id()).map(Try::broken),
                    };
                    if let Some(tried) = tried {
                        self.tried(tried, clock::wall()).await;
                    }
                }
                () = bell.notified() => self.read(false).await?,
                _ = tick.tick() => {}
            }
            let now = clock::wall();
            if now.seconds_since(self.read_at) >= READ_PAUSE || now < self.read_at {
                self.read(true).await?;
                self.read_at = now;
                self.forget(now).await;
            }
            self.write_again().await;
            self.look(now);
            self.show(now);
        }
    }

    /// Letters that bear a term, behind a key.
    async fn letters(
        &self,
        term: &[u8],
        mut after: Option<Vec<u8>>,
    ) -> Result<Vec<Letter>, Stopped> {
        let mut all = Vec::new();
        loop {
            let page = self.custody.entries_with(Book::Orders, term.to_vec(), after, PAGE).await;
            let page = page.ok_or(Stopped)?;
            let read = |entry: &Entry| {
                let read = minicbor::decode::<Letter>(&entry.body);
                read.inspect_err(|error| tracing::error!(%error, "a notice cannot be read")).ok()
            };
            all.extend(page.iter().filter_map(read));
            match page.last() {
                Some(last) if page.len() == PAGE && all.len() < LETTERS_MAX => {
                    after = Some(last.key.clone());
                }
                _ => return Ok(all),
            }
        }
    }

    /// Reads letters that are not known yet: those behind the last one, or all.
    async fn read(&mut self, all: bool) -> Result<(), Stopped> {
        let after = self.read_to.clone().filter(|_| !all);
        for letter in self.letters(OPEN, after).await? {
            let key = letter.key();
            if self.open.len() >= LETTERS_MAX {
                break;
            }
            self.read_to = self.read_to.take().max(Some(key.clone()));
            self.open.entry(key).or_insert(letter);
        }
        Ok(())
    }

    /// Begins whatever can be tried.
    fn look(&mut self, now: Timestamp) {
        let ways = self.config.clone();
        for (rule, way) in &ways.ways {
            for channel in way.channels() {
                if self.tries.len() >= TRIES_MAX {
                    return;
                }
                let lane = self.lanes.entry((rule.clone(), channel)).or_default();
                if lane.busy || is_later(lane.next_at, now) {
                    continue;
                }
                let due =
                    |key: &Vec<u8>| lane.refused.get(key).is_none_or(|at| !is_later(*at, now));
                let next = self.open.iter().find(|(key, letter)| {
                    letter.rule == *rule && !letter.done.contains(&channel) && due(key)
                });
                let Some((key, letter)) = next else { continue };
                lane.busy = true;
                let (key, letter) = (key.clone(), letter.clone());
                let taken = self.taken.remove(&key).unwrap_or_default();
                let (id, config) = ((rule.clone(), channel), self.config.clone());
                let running = (id.clone(), key.clone());
                let task = self.tries.spawn(async move {
                    let mut taken = taken;
                    let outcome = send(&config, &letter, channel, &mut taken).await;
                    Try { lane: id, key, taken, outcome }
                });
                self.running.insert(task.id(), running);
            }
        }
    }

    /// A try has come to its end.
    async fn tried(&mut self, tried: Try, now: Timestamp) {
        let Try { lane: id, key, taken, outcome } = tried;
        let lane = self.lanes.entry(id.clone()).or_default();
        lane.busy = false;
        let Some(letter) = self.open.get_mut(&key) else { return };
        let (rule, channel) = id;
        let give_up = self.config.ways.get(&rule).map_or(0, |way| way.give_up.as_secs());
        let count = |outcome| {
            self.metrics.notices.with_label_values(&[channel.as_str(), outcome]).inc();
        };
        match outcome {
            Ok(()) => {
                count("accepted");
                tracing::info!(
                    rule,
                    channel = channel.as_str(),
                    id = letter.id,
                    about = letter.about(),
                    "a notice is delivered"
                );
                lane.refused.remove(&key);
                lane.last_error = None;
                letter.done.push(channel);
            }
            Err(Failure { words, all }) => {
                count("failed");
                lane.last_error = Some(words.clone());
                if now.seconds_since(letter.at) >= give_up {
                    count("given-up");
                    tracing::error!(
                        rule,
                        channel = channel.as_str(),
                        id = letter.id,
                        about = letter.about(),
                        reason = words,
                        "a notice is given up: tell its receiver by telephone"
                    );
                    lane.refused.remove(&key);
                    letter.given_up_at = Some(now);
                } else {
                    let pause = letter.pause(now);
                    tracing::warn!(
                        rule,
                        channel = channel.as_str(),
                        id = letter.id,
                        reason = words,
                        seconds = pause.as_secs(),
                        "a notice is tried again"
                    );
                    match all {
                        true => lane.next_at = now + pause,
                        false => drop(lane.refused.insert(key.clone(), now + pause)),
                    }
                    if !taken.is_empty() {
                        self.taken.insert(key, taken);
                    }
                    return;
                }
            }
        }
        self.write(key).await;
    }

    /// Writes down how a letter stands; one that is delivered is no more.
    async fn write(&mut self, key: Vec<u8>) {
        let Some(letter) = self.open.get(&key) else { return };
        let channels = self.config.ways.get(&letter.rule).map(Way::channels).unwrap_or_default();
        let delivered = channels.iter().all(|channel| letter.done.contains(channel));
        let change = match delivered {
            true => Change::Remove { key: key.clone() },
            false => Change::Put(letter.entry()),
        };
        if let Err(error) = self.custody.enter(Book::Orders, vec![change]).await {
            tracing::warn!(%error, "what became of a notice cannot be written down yet");
            self.unwritten.insert(key);
            return;
        }
        self.unwritten.remove(&key);
        if delivered || letter.given_up_at.is_some() {
            self.taken.remove(&key);
            let letter = self.open.remove(&key).expect("just looked at");
            if !delivered {
                self.given_up.insert(key, letter);
            }
        }
    }

    async fn write_again(&mut self) {
        for key in self.unwritten.clone() {
            self.write(key).await;
        }
    }

    /// Lets go of letters whose rule is gone, and of those that were given up long ago.
    async fn forget(&mut self, now: Timestamp) {
        let gone = |letter: &&Letter| !self.config.ways.contains_key(&letter.rule);
        let keys: Vec<Vec<u8>> = self.open.values().filter(gone).map(Letter::key).collect();
        for key in keys {
            tracing::warn!("a notice goes to nobody: its rule is gone from the configuration");
            self.write(key).await;
        }
        let old = |letter: &Letter| {
            letter.given_up_at.is_some_and(|at| now.seconds_since(at) >= REMEMBERED.as_secs())
        };
        let old: Vec<Vec<u8>> =
            self.given_up.iter().filter(|(_, l)| old(l)).map(|(key, _)| key.clone()).collect();
        for key in old {
            let change = Change::Remove { key: key.clone() };
            if self.custody.enter(Book::Orders, vec![change]).await.is_ok() {
                self.given_up.remove(&key);
            }
        }
    }

    fn answer(&self, call: Call) {
        match call {
            Call::List { reply } => {
                let all = self.open.values().chain(self.given_up.values());
                let _ = reply.send(all.map(|letter| self.waiting(letter)).collect());
            }
            Call::Test { rule, reply } => {
                let Some(way) = self.config.ways.get(&rule) else {
                    let _ = reply.send(None);
                    return;
                };
                let (channels, config, now) = (way.channels(), self.config.clone(), clock::wall());
                let subject = Subject { origin: config.node.clone(), study: None, order: None };
                let letter = Letter::new(&rule, subject, Notice::test(now), now);
                // The answer to a person: as many at once as people ask for, each for a bounded time.
                tokio::spawn(async move {
                    let mut all = Vec::new();
                    for channel in channels {
                        let sent = send(&config, &letter, channel, &mut BTreeSet::new()).await;
                        all.push(Tried { channel, failure: sent.err().map(|f| f.words) });
                    }
                    let _ = reply.send(Some(all));
                });
            }
        }
    }

    fn waiting(&self, letter: &Letter) -> Waiting {
        let channels = self.config.ways.get(&letter.rule).map(Way::channels).unwrap_or_default();
        let mut channels = channels;
        channels.retain(|channel| !letter.done.contains(channel));
        let error = |c: &Channel| self.lanes.get(&(letter.rule.clone(), *c))?.last_error.clone();
        Waiting {
            id: letter.id.clone(),
            rule: letter.rule.clone(),
            at: letter.at,
            about: letter.about(),
            study: letter.subject.study.clone(),
            last_error: channels.iter().find_map(error),
            channels,
            given_up_at: letter.given_up_at,
        }
    }

    fn show(&self, now: Timestamp) {
        let oldest = self.open.values().next().map_or(0, |letter| now.seconds_since(letter.at));
        let error = |((rule, channel), lane): (&LaneId, &Lane)| {
            let error = lane.last_error.as_ref()?;
            Some(format!("notices of {rule} by {}: {error}", channel.as_str()))
        };
        let shown = Undelivered {
            waiting: self.open.len() as u64,
            oldest_seconds: oldest,
            given_up: self.given_up.len() as u64,
            errors: self.lanes.iter().filter_map(error).collect(),
        };
        self.metrics.notices_undelivered.set(i64::try_from(shown.waiting).unwrap_or(i64::MAX));
        self.metrics.oldest_notice.set(oldest as f64);
        self.shown.send_if_modified(|old| {
            let new = *old != shown;
            *old = shown;
            new
        });
    }
}

/// Whether it is too soon; a time that lies further ahead than any pause comes from a clock that
/// has leapt back.
fn is_later(at: Timestamp, now: Timestamp) -> bool {
    const FAR: u64 = 3600;
    at > now && at.seconds_since(now) <= FAR
}

/// One try.
async fn send(
    config: &Config,
    letter: &Letter,
    channel: Channel,
    taken: &mut BTreeSet<String>,
) -> Result<(), Failure> {
    let gone = || Failure::of_one("the channel is not configured any more".into());
    let way = config.ways.get(&letter.rule).ok_or_else(gone)?;
    let link = way.link.as_ref().map(|link| link.to(&letter.subject));
    match channel {
        Channel::Webhook => {
            let webhook = way.webhook.as_ref().ok_or_else(gone)?;
            let document = letter.document(&config.node, link.as_deref());
            webhook::post(webhook, &letter.id, &document).await
        }
        Channel::Mail => {
            let relay = config.relay.as_ref().ok_or_else(gone)?;
            let (subject, text) = letter.mail(&config.node, link.as_deref(), &way.languages);
            let (node, id, at) = (&config.node, letter.id.as_str(), letter.at);
            let mail = mail::Mail { node, id, at, to: &way.mail, subject, text };
            mail::send(relay, mail, taken).await
        }
    }
}
