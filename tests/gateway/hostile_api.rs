//! Callers with bad intent at the API: they say too much, too slowly, nonsense, or come in crowds.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::ports;
use crate::site::{Node, Site, hikyaku, run, run_ok, text, until};

/// Longest wait for what must come.
const WAIT: Duration = Duration::from_secs(60);

struct Target {
    node: Node,
    port: u16,
    token: String,
}

impl Target {
    /// Plain HTTP on loopback: what is tried is not TLS.
    fn start(site: &Site, limits: &str) -> Self {
        let path = site.path().join("ris.token");
        run_ok(hikyaku().args(["api", "token"]).arg(&path));
        let token = fs::read_to_string(&path).expect("a token").trim().to_owned();
        let port = ports::free();
        let client = "name = \"ris\"\ntoken = \"ris.token\"\naddress = \"127.0.0.1\"\n\
                      may = [\"read-orders\", \"write-orders\"]";
        let node = site
            .lone()
            .orders()
            .folder_destination("folder")
            .route_all("folder")
            .set("api", &format!("listen = \"127.0.0.1:{port}\""))
            .set("api.limits", limits)
            .table("api.client", client)
            .start();
        Self { node, port, token }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a listener");
        stream.set_read_timeout(Some(WAIT)).expect("a timeout");
        stream.set_write_timeout(Some(WAIT)).expect("a timeout");
        stream
    }

    fn head(&self, what: &str, more: &str) -> String {
        format!("{what} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n{more}\r\n", self.token)
    }

    /// All that comes until the node closes the connection.
    fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // It may close before it has taken all.
        let _ = stream.write_all(bytes);
        rest(&mut stream)
    }

    /// It still answers whoever behaves.
    fn lives(&self) {
        let said = self.say(self.head("GET /orders", "Connection: close\r\n").as_bytes());
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        assert_eq!(self.node.page("/health").0, 200);
    }
}

fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    text(&all)
}

#[test]
fn a_body_is_not_read_further_than_its_limit() {
    let site = Site::new();
    let target = Target::start(&site, "connections = 8\nconnections_per_address = 8");
    let json = "Content-Type: application/json\r\n";
    let of = |length: u64| format!("{json}Content-Length: {length}\r\nConnection: close\r\n");
    let fits = format!("{{\"number\":\"P1\"{}}}", " ".repeat((64 << 10) - 15));
    assert_eq!(fits.len(), 64 << 10);
    let head = target.head("POST /orders", &of(fits.len() as u64));
    let said = target.say(&[head.as_bytes(), fits.as_bytes()].concat());
    assert!(said.starts_with("HTTP/1.1 201"), "{said}");
    // One byte more, said or not said beforehand.
    let long = format!("{fits} ");
    let head = target.head("POST /orders", &of(long.len() as u64));
    let said = target.say(&[head.as_bytes(), long.as_bytes()].concat());
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    let head = target.head("POST /orders", &format!("{json}Transfer-Encoding: chunked\r\n"));
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let said = target.say(&[head.as_bytes(), chunk.repeat(3).as_bytes()].concat());
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    let said = target.say(target.head("POST /orders", &of(1 << 40)).as_bytes());
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    target.lives();
}

#[test]
fn who_is_slow_is_cut_off_and_keeps_nobody_waiting() {
    let site = Site::new();
    let target = Target::start(&site, "connections = 16\nconnections_per_address = 16");
    let begun = Instant::now();
    let mut silent = target.connect();
    let mut head = target.connect();
    head.write_all(b"GET /orders HTTP/1.1\r\nHost: x\r\n").expect("a listener");
    let mut body = target.connect();
    let more = "Content-Type: application/json\r\nContent-Length: 20\r\n";
    body.write_all(target.head("POST /orders", more).as_bytes()).expect("a listener");
    body.write_all(b"{").expect("a listener");
    let mut idle = target.connect();
    idle.write_all(target.head("GET /orders", "").as_bytes()).expect("a listener");
    target.lives();
    // One that says a byte now and then gains nothing by it.
    let mut drip = target.connect();
    let mut taken = 0;
    while drip.write_all(b"G").is_ok() && begun.elapsed() < WAIT {
        taken += 1;
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(taken < 100, "{taken}");
    let said = rest(&mut body);
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    assert_eq!(rest(&mut silent), "");
    rest(&mut head);
    assert!(rest(&mut idle).starts_with("HTTP/1.1 200"));
    assert!(begun.elapsed() < WAIT, "{:?}", begun.elapsed());
    until("all are gone", || target.node.metric("hikyaku_api_connections", &[]) < 0.5);
    target.node.reaches("hikyaku_api_refused_total", &["reason=\"slow\""], 0.5);
    target.lives();
}

#[test]
fn nonsense_is_refused_and_requests_that_come_at_once_are_answered_one_by_one() {
    let site = Site::new();
    let target = Target::start(&site, "connections = 16\nconnections_per_address = 16");
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    for odd in [
        "\0\u{1}\u{2}",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        &long,
        &many,
    ] {
        let mut stream = target.connect();
        let _ = stream.write_all(odd.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let said = rest(&mut stream);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{odd:.40}: {said}");
    }
    let said = target.say(b"GET /orders HTTP/1.0\r\n\r\n");
    assert!(said.contains(" 505 "), "{said}");
    // Two tokens are none, and a path is a path.
    let twice = format!("Authorization: Bearer {}\r\nConnection: close\r\n", target.token);
    assert!(target.say(target.head("GET /orders", &twice).as_bytes()).starts_with("HTTP/1.1 401"));
    for path in ["/orders/%FF", "/orders/..%2f..%2fetc", "/orders/%00", "//orders", "/orders/"] {
        let head = target.head(&format!("GET {path}"), "Connection: close\r\n");
        let said = target.say(head.as_bytes());
        assert!(said.starts_with("HTTP/1.1 40"), "{path}: {said}");
    }
    let order = "{\"number\":\"P1\"}";
    let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", order.len());
    let one = target.head("POST /orders", &more) + order;
    let last = target.head("GET /orders", "Connection: close\r\n");
    let said = target.say((one.repeat(20) + &last).as_bytes());
    assert_eq!(said.matches("HTTP/1.1 201").count(), 1, "{said}");
    assert_eq!(said.matches("HTTP/1.1 200").count(), 20, "{said}");
    target.lives();
}

#[test]
fn one_connection_too_many_is_closed_and_so_is_an_address_of_no_client() {
    let site = Site::new();
    let target = Target::start(&site, "connections = 4\nconnections_per_address = 3");
    let metric = |reason: &str| {
        let label = format!("reason={reason:?}");
        target.node.metric("hikyaku_api_refused_total", &[&label])
    };
    let mut held: Vec<TcpStream> = (0..3).map(|_| target.connect()).collect();
    until("they are counted", || target.node.metric("hikyaku_api_connections", &[]) > 2.5);
    assert_eq!(target.say(b""), "", "closed unread");
    until("that is counted", || metric("address-full") > 0.5);
    held.pop();
    until("there is room again", || {
        let head = target.head("GET /orders", "Connection: close\r\n");
        target.say(head.as_bytes()).starts_with("HTTP/1.1 200")
    });
    target.node.edit(|plan| {
        let client = "name = \"ris\"\ntoken = \"ris.token\"\naddress = \"192.0.2.0/24\"\n\
                      may = [\"read-orders\"]";
        plan.without("api.client", "ris").table("api.client", client)
    });
    target.node.ask(&["reload"]);
    drop(held);
    assert_eq!(target.say(b"GET / HTTP/1.1\r\n\r\n"), "");
    until("that is counted", || metric("address") > 0.5);
}

#[test]
fn plain_http_beyond_this_machine_is_no_configuration() {
    let site = Site::new();
    let path = site.path().join("ris.token");
    run_ok(hikyaku().args(["api", "token"]).arg(&path));
    let client = "name = \"ris\"\ntoken = \"ris.token\"\nmay = [\"read-orders\"]";
    let plan = site.lone().orders().table("api.client", client);
    let node = plan.set("api", &format!("listen = \"0.0.0.0:{}\"", ports::free())).write();
    let check = run(hikyaku().args(["check-config"]).arg(node.config()));
    assert_eq!(check.status.code(), Some(2));
    let said = text(&check.stderr);
    assert!(said.contains("api.listen") && said.contains("plain HTTP"), "{said}");
}

#[test]
fn a_request_in_hand_is_answered_when_the_node_stops() {
    let site = Site::new();
    let target = Target::start(&site, "connections = 8\nconnections_per_address = 8");
    let order = "{\"number\":\"P1\"}";
    let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", order.len());
    let mut stream = target.connect();
    let (begin, end) = order.split_at(5);
    let head = target.head("POST /orders", &more) + begin;
    stream.write_all(head.as_bytes()).expect("a listener");
    let idle = target.connect();
    until("both are there", || target.node.metric("hikyaku_api_connections", &[]) > 1.5);
    target.node.signal(nix::sys::signal::Signal::SIGTERM);
    until("it drains", || target.node.log_of_this_life().contains("draining"));
    stream.write_all(end.as_bytes()).expect("a listener");
    let said = rest(&mut stream);
    assert!(said.starts_with("HTTP/1.1 201"), "{said}");
    drop(idle);
    assert!(target.node.wait_ended().success());
    target.node.start();
    assert_eq!(target.node.ask(&["order", "show", "P1"])[0]["key"]["number"], "P1");
}
