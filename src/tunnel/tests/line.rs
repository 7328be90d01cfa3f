//! A UDP line between two endpoints that can be cut and made thin.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Datagrams that wait on the line; more are dropped, as a router does.
const QUEUE_MAX: usize = 256;
/// How late a timer may be.
const TIMER: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
struct State {
    cut: AtomicBool,
    /// Bytes per second from the dialler to the listener; 0: as fast as it goes.
    rate: AtomicU64,
    forwarded: AtomicU64,
    /// Bytes from the listener to the dialler.
    returned: AtomicU64,
}

pub(super) struct Line {
    state: Arc<State>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Line {
    /// A line to a listener. Whoever dialled last gets the answers.
    pub(super) async fn to(listener: SocketAddr) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        far.connect(listener).await.unwrap();
        let (address, state) = (near.local_addr().unwrap(), Arc::<State>::default());
        let (queue, mut queued) = mpsc::channel::<Vec<u8>>(QUEUE_MAX);
        let (dialler, from) = tokio::sync::watch::channel(None);
        let mut tasks = JoinSet::new();
        let (near_in, held) = (near.clone(), state.clone());
        tasks.spawn(async move {
            let mut buffer = vec![0; 65536];
            loop {
                let Ok((n, who)) = near_in.recv_from(&mut buffer).await else { continue };
                dialler.send_replace(Some(who));
                if !held.cut.load(Ordering::Relaxed) {
                    let _ = queue.try_send(buffer[..n].to_vec());
                }
            }
        });
        let (far_out, held) = (far.clone(), state.clone());
        tasks.spawn(async move {
            let mut free = Instant::now();
            while let Some(datagram) = queued.recv().await {
                let rate = held.rate.load(Ordering::Relaxed);
                if rate > 0 {
                    let takes = Duration::from_secs_f64(datagram.len() as f64 / rate as f64);
                    // A timer that fires late is made up for; an idle line saves up nothing.
                    free = free.max(Instant::now() - TIMER) + takes;
                    if free > Instant::now() + TIMER / 4 {
                        tokio::time::sleep_until(free).await;
                    }
                }
                held.forwarded.fetch_add(datagram.len() as u64, Ordering::Relaxed);
                let _ = far_out.send(&datagram).await;
            }
        });
        let held = state.clone();
        tasks.spawn(async move {
            let mut buffer = vec![0; 65536];
            loop {
                let Ok(n) = far.recv(&mut buffer).await else { continue };
                let who = *from.borrow();
                if let (Some(who), false) = (who, held.cut.load(Ordering::Relaxed)) {
                    held.returned.fetch_add(n as u64, Ordering::Relaxed);
                    let _ = near.send_to(&buffer[..n], who).await;
                }
            }
        });
        Self { state, address, _tasks: tasks }
    }

    /// Where to dial.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// While cut, nothing passes in either direction.
    pub(super) fn cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::Relaxed);
    }

    /// Bytes per second from the dialler on.
    pub(super) fn set_rate(&self, bytes: u64) {
        self.state.rate.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that went from the dialler to the listener.
    pub(super) fn forwarded(&self) -> u64 {
        self.state.forwarded.load(Ordering::Relaxed)
    }

    /// Bytes that went from the listener to the dialler.
    pub(super) fn returned(&self) -> u64 {
        self.state.returned.load(Ordering::Relaxed)
    }
}
