//! Calls: questions to the one task or thread that owns some state, each with its own answer.
//!
//! - A call waits for its turn, and whoever makes it for the answer. Nothing is dropped for want of
//!   room: where the channel is full, whoever comes then waits to get in.
//! - An owner that has ended, or ends before it answers, gives no answer: `None`. What was asked
//!   may have been done even so. Nobody waits for ever on an owner that is gone.
//! - Whoever stops waiting takes no call back that has got in.
//! - An owner that works in turns answers at once, or owes the answer until the turn is durable.
//!
//! Limits: as many calls wait as the channel has room, which its owner says.

use std::fmt;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Longest wait for an answer of an owner that first reads what is durable, such as while the
/// ledger is being rebuilt.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where an owner of state is called. Cheap to clone; the owner ends with the last of them.
pub struct Calls<C>(mpsc::Sender<C>);

impl<C> Calls<C> {
    /// Makes a call and waits for its answer. `call` puts in where the answer goes.
    pub async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> C) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.0.send(call(reply)).await.ok()?;
        answer.await.ok()
    }

    /// The same, and no longer than `patience`.
    pub async fn ask_within<T>(
        &self,
        patience: Duration,
        call: impl FnOnce(oneshot::Sender<T>) -> C,
    ) -> Option<T> {
        tokio::time::timeout(patience, self.ask(call)).await.ok().flatten()
    }

    /// Makes a call that has no answer; false: the owner has ended.
    pub async fn tell(&self, call: C) -> bool {
        self.0.send(call).await.is_ok()
    }
}

impl<C> From<mpsc::Sender<C>> for Calls<C> {
    fn from(calls: mpsc::Sender<C>) -> Self {
        Self(calls)
    }
}

impl<C> Clone for Calls<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C> fmt::Debug for Calls<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

/// What the end of a turn does for a call: it hears whether the turn is durable, or why not, and
/// says the answer.
pub type Owed<E> = Box<dyn FnOnce(Result<(), E>) + Send>;

/// Owes `found` until the turn is durable; if that fails, the answer is why.
pub fn later<T: Send + 'static, E: Send + 'static>(
    reply: oneshot::Sender<Result<T, E>>,
    found: Result<T, E>,
) -> Owed<E> {
    Box::new(move |durable| drop(reply.send(durable.and(found))))
}

/// Says `found` now, whatever becomes of the turn.
pub fn at_once<T, E>(reply: oneshot::Sender<T>, found: T) -> Owed<E> {
    let _ = reply.send(found);
    Box::new(|_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    type Number = oneshot::Sender<u32>;

    #[tokio::test]
    async fn each_call_gets_its_own_answer_and_who_finds_no_room_waits() {
        let (calls, mut inbox) = mpsc::channel::<(u32, Number)>(1);
        let calls = Calls::from(calls);
        let ask = |n: u32| {
            let calls = calls.clone();
            async move { calls.ask(|reply| (n, reply)).await }
        };
        let owner = async {
            // All three have been made by now, and only one has room.
            tokio::task::yield_now().await;
            assert_eq!(inbox.len(), 1);
            for _ in 0..3 {
                let (n, reply) = inbox.recv().await.expect("a call");
                reply.send(10 * n).expect("somebody who waits");
            }
        };
        let (first, second, third, ()) = tokio::join!(ask(1), ask(2), ask(3), owner);
        assert_eq!([first, second, third], [Some(10), Some(20), Some(30)]);
    }

    #[tokio::test]
    async fn an_owner_that_ends_before_or_after_it_has_the_call_gives_no_answer() {
        let (calls, mut inbox) = mpsc::channel::<Number>(1);
        let calls = Calls::from(calls);
        let asked = calls.ask(|reply| reply);
        let (answer, ()) = tokio::join!(asked, async { drop(inbox.recv().await) });
        assert_eq!(answer, None);
        drop(inbox);
        assert_eq!(calls.ask(|reply| reply).await, None);
        assert!(!calls.tell(oneshot::channel().0).await);
    }

    #[tokio::test]
    async fn who_stops_waiting_takes_no_call_back() {
        let (calls, mut inbox) = mpsc::channel::<Number>(1);
        let calls = Calls::from(calls);
        assert_eq!(calls.ask_within(Duration::ZERO, |reply| reply).await, None);
        assert!(inbox.recv().await.expect("the call").send(1).is_err());
    }

    #[tokio::test]
    async fn what_is_owed_is_said_when_the_turn_ends_and_what_is_said_at_once_stays_said() {
        let owed = |durable: Result<(), &'static str>, found| async move {
            let (reply, mut answer) = oneshot::channel::<Result<u32, &str>>();
            let owed = later(reply, found);
            assert!(answer.try_recv().is_err(), "before the turn is durable");
            owed(durable);
            answer.await.expect("an answer")
        };
        assert_eq!(owed(Ok(()), Ok(1)).await, Ok(1));
        assert_eq!(owed(Ok(()), Err("refused")).await, Err("refused"));
        assert_eq!(owed(Err("not kept"), Ok(1)).await, Err("not kept"));

        let (reply, mut answer) = oneshot::channel::<u32>();
        let owed = at_once::<_, &str>(reply, 7);
        assert_eq!(answer.try_recv(), Ok(7));
        owed(Err("not kept"));
    }
}
