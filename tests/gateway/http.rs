//! The little HTTP that asking nodes and Orthanc takes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for a piece of an answer, and for a reader.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Status code and body of `GET path`.
pub(crate) fn get(port: u16, path: &str) -> io::Result<(u16, Vec<u8>)> {
    exchange(port, "GET", path, b"")
}

/// Status code and body of `POST path`.
pub(crate) fn post(port: u16, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    exchange(port, "POST", path, body)
}

/// HTTP/1.0, so that the end of the connection is the end of the body.
fn exchange(port: u16, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::other("an answer without a head"))?;
    let code = std::str::from_utf8(&answer[..end]).ok();
    let code = code.and_then(|head| head.split_ascii_whitespace().nth(1)?.parse().ok());
    let code = code.ok_or_else(|| io::Error::other("an answer without a status"))?;
    Ok((code, answer.split_off(end + 4)))
}
