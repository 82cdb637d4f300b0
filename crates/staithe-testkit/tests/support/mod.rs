//! A plain HTTP client that shows what a connection really does: its resets, its early ends, its silence.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use staithe_testkit::{S3Server, Versioning};

/// A server with one bucket, `b`, that serves unsigned requests.
pub(crate) fn open_server() -> S3Server {
    let server = S3Server::start_blocking().unwrap();
    server.credentials().allow_anonymous(true);
    server.create_bucket("b", Versioning::Off);
    server
}

/// An answer, as far as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// The connection ended before the promised length.
    pub(crate) is_short: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The S3 error code in the body.
    pub(crate) fn code(&self) -> String {
        self.element("Code")
    }

    /// The text of the first element of this name.
    pub(crate) fn element(&self, name: &str) -> String {
        let text = self.text();
        let begin = text.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
        begin.split_once(&format!("</{name}>")).map_or(String::new(), |(value, _)| value.to_owned())
    }
}

pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(server: &S3Server) -> io::Result<Self> {
        let stream = TcpStream::connect(server.address())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) fn give_up_after(&self, wait: Duration) -> io::Result<()> {
        self.0.get_ref().set_read_timeout(Some(wait))
    }

    /// `request` is `METHOD /path`.
    pub(crate) fn send(
        &mut self,
        request: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut head = format!("{request} HTTP/1.1\r\nhost: s3\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers.iter().copied() {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.0.get_mut().write_all(&bytes)?;
        self.receive(request.starts_with("HEAD"))
    }

    fn receive(&mut self, is_head: bool) -> io::Result<Answer> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, first))?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = Vec::new();
        let length: u64 = headers.get("content-length").map_or(0, |v| v.parse().unwrap());
        let length = if is_head { 0 } else { length };
        if headers.get("transfer-encoding").is_some_and(|v| v == "chunked") && !is_head {
            self.chunks(&mut body)?;
        } else {
            self.0.by_ref().take(length).read_to_end(&mut body)?;
        }
        let is_short = (body.len() as u64) < length;
        Ok(Answer { status, headers, body, is_short })
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let size = u64::from_str_radix(self.line()?.trim(), 16).map_err(io::Error::other)?;
            self.0.by_ref().take(size).read_to_end(body)?;
            self.line()?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

/// One request on a connection of its own.
pub(crate) fn send(
    server: &S3Server,
    request: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    Connection::open(server)?.send(request, headers, body)
}

pub(crate) fn get(server: &S3Server, path: &str) -> io::Result<Answer> {
    send(server, &format!("GET {path}"), &[], b"")
}

pub(crate) fn put(server: &S3Server, path: &str, body: &[u8]) -> io::Result<Answer> {
    send(server, &format!("PUT {path}"), &[], body)
}
