//! HTTP of the simplest kind, for pages of metrics and for Orthanc's REST interface.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The body of the answer; `None` when nobody answers or the answer is an error.
pub fn request(to: SocketAddr, method: &str, path: &str, body: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.set_nodelay(true).ok()?;
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|code| code.starts_with('2'))?;
    Some(body.to_owned())
}

/// GET.
pub fn get(to: SocketAddr, path: &str) -> Option<String> {
    request(to, "GET", path, &[])
}

/// The number behind `"key" :` of a flat JSON document.
pub fn number(json: &str, key: &str) -> Option<u64> {
    let at = json.find(&format!("\"{key}\""))?;
    let rest = json[at..].split_once(':')?.1.trim_start();
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The text behind `"key" :` of a flat JSON document.
pub fn text(json: &str, key: &str) -> Option<String> {
    let at = json.find(&format!("\"{key}\""))?;
    let rest = json[at..].split_once(':')?.1.trim_start().strip_prefix('"')?;
    rest.split('"').next().map(str::to_owned)
}
