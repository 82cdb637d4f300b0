use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::guard::GuardedChild;
use crate::{REGION, wait_until};

/// A moto server in a process of its own: an independent S3 implementation to compare with.
///
/// Its port is a free one of loopback. It ends when this is dropped, and when the test process is killed.
#[derive(Debug)]
pub struct Moto {
    // Held for its end.
    _server: GuardedChild,
    address: String,
}

impl Moto {
    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// One sentence when moto is not installed, or does not answer within 60 s.
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]);
        let mut server = GuardedChild::spawn(command, None).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("python3 is needed to run moto, and does not start: {error}"),
            )
        })?;
        let mut address = None;
        wait_until(Duration::from_mins(1), || {
            address = address_in(&server.stderr().text()).or_else(|| address_in(&server.stdout().text()));
            address.is_some() || matches!(server.exited(), Ok(Some(_)) | Err(_))
        });
        let Some(address) = address else {
            let said = server.stderr().text();
            let sentence = format!(
                "moto does not answer; install it with `pip install 'moto[server]'`. It said:\n{said}"
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, sentence));
        };
        Ok(Self { _server: server, address })
    }

    /// The endpoint as a URL; requests are path-style.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The AWS variables that make a client speak to this server. It takes any key pair.
    pub fn env(&self) -> Vec<(String, String)> {
        let endpoint = self.endpoint();
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "moto"),
            ("AWS_SECRET_ACCESS_KEY", "moto"),
            ("AWS_REGION", REGION),
            ("AWS_DEFAULT_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Adds a bucket.
    ///
    /// # Errors
    /// When the server refuses, or cannot be reached.
    pub fn create_bucket(&self, name: &str) -> io::Result<()> {
        self.request("PUT", &format!("/{name}"), "")
    }

    /// Adds a bucket that keeps versions.
    ///
    /// # Errors
    /// When the server refuses, or cannot be reached.
    pub fn create_versioned_bucket(&self, name: &str) -> io::Result<()> {
        self.create_bucket(name)?;
        let on = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        self.request("PUT", &format!("/{name}?versioning"), on)
    }

    /// Forgets everything that was stored.
    ///
    /// # Errors
    /// When the server refuses, or cannot be reached.
    pub fn reset(&self) -> io::Result<()> {
        self.request("POST", "/moto-api/reset", "")
    }

    /// One unsigned request: moto checks no signature.
    fn request(&self, method: &str, path: &str, body: &str) -> io::Result<()> {
        let mut stream = TcpStream::connect(&self.address)?;
        let (address, length) = (&self.address, body.len());
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(()),
            _ => Err(io::Error::other(format!("moto answers {method} {path} with: {answer}"))),
        }
    }
}

/// The address in the line that the server prints when it listens.
fn address_in(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("Running on http://")?;
    let end = rest.find(|c: char| c.is_whitespace() || c == '/')?;
    Some(rest[..end].to_owned())
}
