//! The ceiling: ranged GETs and uploads in parts over plain sockets, by a client that signs nothing, sums nothing up, and
//! does nothing with what it gets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::Result;
use crate::data::{SMALL, Sizes, noise};
use crate::options::Link;
use crate::reads::random_places;
use crate::rows::{AT_MOST, Done, FIRST, PIECE, RANDOM, Row};

/// The range of one request where a file is read as a whole, and the part where one is written.
const RANGE: u64 = 8 << 20;
/// Connections for one file: a single stream where the server is near, as many as help where it is far.
fn connections(link: Link) -> u64 {
    if link == Link::Far { 16 } else { 1 }
}

/// Connections for one upload: two streams keep the server busy where it is near.
fn uploads_at_once(link: Link) -> u64 {
    if link == Link::Far { 16 } else { 2 }
}

/// Whether the row can be done without a file system.
pub(crate) fn can(row: Row) -> bool {
    matches!(row, Row::Read | Row::Read4 | Row::Random | Row::FirstByte | Row::Cat | Row::Write)
}

/// Does the work of a row.
pub(crate) fn run(row: Row, server: SocketAddr, bucket: &str, sizes: &Sizes, link: Link) -> Result<Done> {
    let start = Instant::now();
    let ops = match row {
        Row::Read => {
            let connections = connections(link);
            side_by_side(connections, |n| {
                let mut client = Client::connect(server, bucket)?;
                let mine = (n * RANGE..sizes.big).step_by((connections * RANGE) as usize);
                mine.map(|at| client.get("big", at, RANGE.min(sizes.big - at))).sum()
            })? >> 20
        }
        Row::Read4 => {
            side_by_side(4, |n| {
                let mut client = Client::connect(server, bucket)?;
                let (key, end) = (format!("four/{n}"), sizes.each_of_four);
                (0..end).step_by(RANGE as usize).map(|at| client.get(&key, at, RANGE.min(end - at))).sum()
            })? >> 20
        }
        Row::Random => {
            let mut client = Client::connect(server, bucket)?;
            let places = random_places(sizes).into_iter().take_while(|_| start.elapsed() < AT_MOST);
            places.map(|at| client.get("big", at, RANDOM as u64).map(|_| 1)).sum::<Result<u64>>()?
        }
        Row::FirstByte => {
            for n in 0..4 {
                Client::connect(server, bucket)?.get(&format!("four/{n}"), 0, FIRST as u64)?;
            }
            4
        }
        Row::Cat => {
            let mut client = Client::connect(server, bucket)?;
            for n in 0..sizes.small_files {
                client.get(&format!("small/{n:05}"), 0, SMALL as u64)?;
            }
            sizes.small_files as u64
        }
        Row::Write => upload(server, bucket, sizes.written, uploads_at_once(link))? >> 20,
        _ => return Err("there is no such request".into()),
    };
    Ok(Done { ops, time: start.elapsed() })
}

/// One object in parts.
fn upload(server: SocketAddr, bucket: &str, len: u64, connections: u64) -> Result<u64> {
    let key = "dir/written";
    let begun = Client::connect(server, bucket)?.post(&format!("{key}?uploads"), "")?;
    let id = between(&begun, "<UploadId>", "</UploadId>")?;
    let (tags, bytes) = (Mutex::new(BTreeMap::new()), noise(PIECE));
    let sent = side_by_side(connections, |n| {
        let mut client = Client::connect(server, bucket)?;
        let mut sent = 0;
        for at in (n * RANGE..len).step_by((connections * RANGE) as usize) {
            let (number, part) = (at / RANGE + 1, RANGE.min(len - at));
            let tag = client.put(&format!("{key}?partNumber={number}&uploadId={id}"), &bytes, part)?;
            tags.lock().unwrap_or_else(PoisonError::into_inner).insert(number, tag);
            sent += part;
        }
        Ok(sent)
    })?;
    let mut parts = String::new();
    for (number, tag) in tags.into_inner().unwrap_or_else(PoisonError::into_inner) {
        write!(parts, "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")?;
    }
    let all = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let ended = Client::connect(server, bucket)?.post(&format!("{key}?uploadId={id}"), &all)?;
    between(&ended, "<ETag>", "</ETag>")?;
    Ok(sent)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Result<&'a str> {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
    found.map(|(found, _)| found).ok_or_else(|| text.into())
}

fn side_by_side(connections: u64, work: impl Fn(u64) -> Result<u64> + Sync) -> Result<u64> {
    let work = &work;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..connections).map(|n| scope.spawn(move || work(n))).collect();
        clients.into_iter().map(|client| client.join().map_err(|_| "a client panicked")?).sum()
    })
}

/// One connection, kept alive.
struct Client {
    socket: TcpStream,
    bucket: String,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(server: SocketAddr, bucket: &str) -> Result<Self> {
        let socket = TcpStream::connect(server)?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, bucket: bucket.to_owned(), buffer: vec![0; 1 << 20] })
    }

    /// Fetches `len` bytes from `at`, and forgets them; says how many.
    fn get(&mut self, key: &str, at: u64, len: u64) -> Result<u64> {
        let (bucket, last) = (&self.bucket, at + len - 1);
        let request =
            format!("GET /{bucket}/{key} HTTP/1.1\r\nhost: bench\r\nrange: bytes={at}-{last}\r\n\r\n");
        self.socket.write_all(request.as_bytes())?;
        let (head, filled) = self.head("HTTP/1.1 206")?;
        let mut left = len.checked_sub((filled - head) as u64).ok_or("the body is too long")?;
        while left > 0 {
            let room = self.buffer.len().min(left as usize);
            match self.socket.read(&mut self.buffer[..room])? {
                0 => return Err("the server hung up within a body".into()),
                n => left -= n as u64,
            }
        }
        Ok(len)
    }

    /// Stores a part of so many bytes, those of `piece` again and again; its entity tag.
    fn put(&mut self, target: &str, piece: &[u8], len: u64) -> Result<String> {
        let bucket = &self.bucket;
        let request =
            format!("PUT /{bucket}/{target} HTTP/1.1\r\nhost: bench\r\ncontent-length: {len}\r\n\r\n");
        self.socket.write_all(request.as_bytes())?;
        for at in (0..len).step_by(piece.len()) {
            self.socket.write_all(&piece[..piece.len().min((len - at) as usize)])?;
        }
        let (head, _) = self.head("HTTP/1.1 200")?;
        let head = String::from_utf8_lossy(&self.buffer[..head]);
        Ok(between(&head, "etag: ", "\r\n")?.to_owned())
    }

    /// Asks for something in words, on a connection that ends with the answer.
    fn post(mut self, target: &str, body: &str) -> Result<String> {
        let (bucket, len) = (&self.bucket, body.len());
        let head = format!("POST /{bucket}/{target} HTTP/1.1\r\nhost: bench\r\nconnection: close");
        let request = format!("{head}\r\ncontent-length: {len}\r\n\r\n{body}");
        self.socket.write_all(request.as_bytes())?;
        let mut answer = String::new();
        self.socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Reads the head of an answer into the buffer: its length, and that of what came with it.
    fn head(&mut self, expected: &str) -> Result<(usize, usize)> {
        let mut filled = 0;
        let head = loop {
            match self.socket.read(&mut self.buffer[filled..])? {
                0 => return Err("the server hung up".into()),
                n => filled += n,
            }
            if let Some(end) = self.buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
        };
        if self.buffer.starts_with(expected.as_bytes()) {
            return Ok((head, filled));
        }
        Err(String::from_utf8_lossy(&self.buffer[..head]).into_owned().into())
    }
}
