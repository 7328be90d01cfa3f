//! Where the lanes of one connection wait for their turn to write: [`Share`] with waiting.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::share::{CHUNK_MIN, Share};
use crate::cargo::Urgency;
use crate::clock;

/// How long a waiting lane goes without looking, for stalls are noticed by time alone.
const LOOK: Duration = Duration::from_millis(250);

/// One connection's gate.
#[derive(Debug)]
pub(crate) struct Gate {
    share: Mutex<Share>,
    changed: Notify,
    chunk: AtomicUsize,
}

/// A lane has something to send, until this is dropped.
#[derive(Debug)]
pub(crate) struct Presence<'a>(&'a Gate, Urgency);

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.with(|share| share.leave(self.1));
        self.0.changed.notify_waiters();
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        let chunk = AtomicUsize::new(CHUNK_MIN);
        Self { share: Mutex::default(), changed: Notify::new(), chunk }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Share) -> T) -> T {
        f(&mut self.share.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that a lane of this class has something to send.
    pub(crate) fn enter(&self, class: Urgency) -> Presence<'_> {
        self.with(|share| share.enter(class, clock::now()));
        Presence(self, class)
    }

    /// Waits until a lane of this class may write `bytes`.
    pub(crate) async fn turn(&self, class: Urgency, bytes: usize) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.with(|share| share.grant(class, bytes as u64, clock::now())) {
                self.changed.notify_waiters();
                return;
            }
            let _ = tokio::time::timeout(LOOK, changed).await;
        }
    }

    /// Bytes that a chunk should have on this line now.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk.load(Ordering::Relaxed)
    }

    /// Follows the measured line.
    pub(crate) fn set_chunk(&self, bytes: usize) {
        self.chunk.store(bytes, Ordering::Relaxed);
    }
}
