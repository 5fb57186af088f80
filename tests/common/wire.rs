//! One side of a connection: bytes out as given, HTTP/1.1 messages in, read naively.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
};

use super::PATIENCE;

/// Names as written, values trimmed.
pub type Fields = Vec<(String, String)>;

/// A connection with what was received and not read yet.
pub struct Wire {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

/// A message head as it came.
#[derive(Clone, Debug)]
pub struct Head {
    /// All of it, the empty line included.
    pub raw: String,
    /// Request line or status line.
    pub start: String,
    pub fields: Fields,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// The 1xx heads before it.
    pub interim: Vec<Head>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Wire {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire {
            stream,
            unread: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends each byte in a segment of its own, as far as the kernel lets one.
    pub fn send_bytewise(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        bytes
            .as_ref()
            .iter()
            .try_for_each(|byte| self.stream.write_all(&[*byte]))
    }

    /// Ends the sending direction.
    pub fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Makes the close a reset.
    pub fn reset(&self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 << 10];
        let n = self.stream.read(&mut chunk)?;
        self.unread.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    /// Bytes up to and with `end`. At the end of the stream: `UnexpectedEof`.
    pub fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let from = searched.min(self.unread.len());
            if let Some(at) = self.unread[from..]
                .windows(end.len())
                .position(|w| w == end)
            {
                let len = from + at + end.len();
                return Ok(self.unread.drain(..len).collect());
            }
            searched = self.unread.len().saturating_sub(end.len());
            if self.fill()? == 0 {
                let got = String::from_utf8_lossy(&self.unread).into_owned();
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("closed after {got:?}"),
                ));
            }
        }
    }

    pub fn exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < len {
            if self.fill()? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("closed after {} of {len} bytes", self.unread.len()),
                ));
            }
        }
        Ok(self.unread.drain(..len).collect())
    }

    /// Whatever comes until the peer closes.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// Whether the peer closed, orderly or not, without sending anything more.
    pub fn is_closed_without_more(&mut self) -> bool {
        match self.rest() {
            Ok(rest) => rest.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset && self.unread.is_empty(),
        }
    }

    pub fn head(&mut self) -> io::Result<Head> {
        let raw = self.until(b"\r\n\r\n")?;
        Head::parse(&String::from_utf8_lossy(&raw))
    }

    /// The body that `head` announces; `until_close` says what no announcement means.
    pub fn body(&mut self, head: &Head, until_close: bool) -> io::Result<(Vec<u8>, Fields)> {
        if head
            .get("transfer-encoding")
            .is_some_and(|codings| codings.eq_ignore_ascii_case("chunked"))
        {
            return self.chunked();
        }
        match head.get("content-length") {
            Some(length) => {
                let length = length.parse().map_err(io::Error::other)?;
                Ok((self.exactly(length)?, Vec::new()))
            }
            None if until_close => Ok((self.rest()?, Vec::new())),
            None => Ok((Vec::new(), Vec::new())),
        }
    }

    fn chunked(&mut self) -> io::Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let text = String::from_utf8_lossy(&line);
            let size = text.trim_end().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size.trim(), 16)
                .map_err(|e| io::Error::other(format!("chunk size {text:?}: {e}")))?;
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size)?);
            let end = self.exactly(2)?;
            if end != b"\r\n" {
                return Err(io::Error::other("no line end after a chunk"));
            }
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            if line == b"\r\n" {
                return Ok((body, trailers));
            }
            trailers.push(field(&String::from_utf8_lossy(&line))?);
        }
    }

    /// An answer to a request of `method`.
    pub fn response(&mut self, method: &str) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let head = self.head()?;
            let status = head.status()?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(head);
                continue;
            }
            let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
            let (body, trailers) = if bodiless {
                Default::default()
            } else {
                self.body(&head, true)?
            };
            return Ok(Response {
                status,
                head,
                body,
                trailers,
                interim,
            });
        }
    }
}

impl Head {
    pub fn parse(raw: &str) -> io::Result<Head> {
        let mut lines = raw.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(field).collect::<io::Result<_>>()?;
        Ok(Head {
            raw: raw.to_owned(),
            start,
            fields,
        })
    }

    /// The first field of this name, without regard to case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub fn status(&self) -> io::Result<u16> {
        let word = self.start.split(' ').nth(1).unwrap_or_default();
        word.parse()
            .map_err(|e| io::Error::other(format!("status line {:?}: {e}", self.start)))
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Why the proxy itself answered, if it did.
    pub fn reason(&self) -> Option<&str> {
        self.head.get("x-tidegate-reason")
    }
}

fn field(line: &str) -> io::Result<(String, String)> {
    let (name, value) = line
        .trim_end_matches("\r\n")
        .split_once(':')
        .ok_or_else(|| io::Error::other(format!("no colon in {line:?}")))?;
    Ok((name.to_owned(), value.trim().to_owned()))
}
