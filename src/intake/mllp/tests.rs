//! The MLLP listener on real sockets.

use std::sync::Mutex;

use super::*;

/// Remembers messages, and answers each with `ACK` and itself.
#[derive(Default)]
struct Echo(Mutex<Vec<Bytes>>);

impl Messages for Echo {
    async fn take(&self, message: Bytes, _: SocketAddr) -> Vec<Bytes> {
        self.0.lock().unwrap().push(message.clone());
        vec![[b"ACK ", &message[..]].concat().into()]
    }
}

struct Site {
    address: SocketAddr,
    taken: Arc<Echo>,
    metrics: Metrics,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

async fn site(config: MllpConfig) -> Site {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (taken, metrics, shutdown) =
        (Arc::new(Echo::default()), Metrics::new(), CancellationToken::new());
    let listeners = MllpListeners { plain: Some(listener), tls: None };
    let config = Arc::new(ArcSwap::from_pointee(config));
    let served = serve(listeners, config, taken.clone(), metrics.clone(), shutdown.clone());
    Site { address, taken, metrics, shutdown, served: tokio::spawn(served) }
}

fn local() -> MllpConfig {
    MllpConfig { allow: vec!["127.0.0.1".parse().unwrap()], ..MllpConfig::default() }
}

impl Site {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn refused(&self, reason: &str) -> u64 {
        self.metrics.hl7_refused.with_label_values(&[reason]).get()
    }
}

/// What the stream says until it says no more for a moment, or ends.
async fn hear(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut heard = Vec::new();
    loop {
        let read = timeout(Duration::from_millis(300), stream.read_buf(&mut heard)).await;
        match read {
            Err(_) => return (heard, false),
            Ok(Ok(0) | Err(_)) => return (heard, true),
            Ok(Ok(_)) => {}
        }
    }
}

#[tokio::test]
async fn messages_are_answered_one_by_one_however_their_bytes_come() {
    let site = site(local()).await;
    let mut stream = site.connect().await;
    for piece in [&b"\x0bMSH|1\x1c\r\r\n\x0bMS"[..], b"H|2\x1c", b"\r\x0bMSH|3\x1c\r"] {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let (heard, ended) = hear(&mut stream).await;
    assert_eq!(heard, b"\x0bACK MSH|1\x1c\r\x0bACK MSH|2\x1c\r\x0bACK MSH|3\x1c\r");
    assert!(!ended);
    assert_eq!(site.metrics.hl7_connections.get(), 1);
}

#[tokio::test]
async fn who_is_not_allowed_or_one_too_many_is_closed_unread() {
    let stranger = site(MllpConfig::default()).await;
    let mut stream = stranger.connect().await;
    assert_eq!(hear(&mut stream).await, (vec![], true));
    assert_eq!(stranger.refused("address"), 1);
    let site = site(MllpConfig { connections_per_address: 2, ..local() }).await;
    let (mut a, _b, mut c) = (site.connect().await, site.connect().await, site.connect().await);
    assert_eq!(hear(&mut c).await, (vec![], true));
    assert_eq!(site.refused("address-full"), 1);
    a.write_all(b"\x0bMSH\x1c\r").await.unwrap();
    assert_eq!(hear(&mut a).await.0, b"\x0bACK MSH\x1c\r");
}

#[tokio::test]
async fn what_is_too_long_too_slow_or_no_frame_ends_the_connection_and_is_counted() {
    let config = MllpConfig { message: 100, message_time: Duration::from_millis(200), ..local() };
    let site = site(config).await;
    let long = [&b"\x0b"[..], &[b'x'; 200]].concat();
    for (bytes, reason) in
        [(&long[..], "frame"), (b"GET / HTTP/1.1", "frame"), (b"\x0bMSH", "slow")]
    {
        let before = site.refused(reason);
        let mut stream = site.connect().await;
        stream.write_all(bytes).await.unwrap();
        assert_eq!(hear(&mut stream).await, (vec![], true), "{reason}");
        assert_eq!(site.refused(reason), before + 1);
    }
    assert!(site.taken.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_node_that_stops_lets_idle_connections_go_and_answers_what_is_under_way() {
    let site = site(local()).await;
    let (mut idle, mut busy) = (site.connect().await, site.connect().await);
    busy.write_all(b"\x0bMSH|1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    site.shutdown.cancel();
    assert_eq!(hear(&mut idle).await, (vec![], true));
    busy.write_all(b"|2\x1c\r").await.unwrap();
    assert_eq!(hear(&mut busy).await, (b"\x0bACK MSH|1|2\x1c\r".to_vec(), true));
    timeout(Duration::from_secs(5), site.served).await.expect("it returns").unwrap();
}
