//! As much of an HTTP/1.1 client as the admin server needs: one request a connection, blocking, bounded in
//! time and in size.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::exit_of;
use crate::exit::{Exit, Failure};

/// The longest answer that is read: `/encryption` of a full census (hundreds of applications by as many
/// listeners) is a few MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// An admin server.
pub(in crate::cli) struct Admin {
    pub(in crate::cli) address: SocketAddr,
    /// For the connection, and again for the answer.
    pub(in crate::cli) timeout: Duration,
}

/// What it said.
#[derive(Debug)]
pub(in crate::cli) struct Answer {
    pub(in crate::cli) status: u16,
    pub(in crate::cli) body: String,
}

impl Admin {
    pub(in crate::cli) fn get(&self, target: &str) -> Result<Answer, Failure> {
        self.ask("GET", target, "")
    }

    pub(in crate::cli) fn post(&self, target: &str) -> Result<Answer, Failure> {
        self.ask("POST", target, "")
    }

    /// With something to say.
    pub(in crate::cli) fn post_with(&self, target: &str, body: &str) -> Result<Answer, Failure> {
        self.ask("POST", target, body)
    }

    /// A page of it that is JSON.
    pub(in crate::cli) fn view(&self, target: &str) -> Result<Value, Failure> {
        let body = self.get(target)?.expect_ok()?;
        serde_json::from_str(&body).map_err(|e| self.strange(&e.to_string()))
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> Result<Answer, Failure> {
        let answer = self.exchange(method, target, body);
        let answer = answer.map_err(|e| self.lost(&e))?;
        parse(&answer).ok_or_else(|| self.strange("it is no HTTP/1.1 answer"))
    }

    fn exchange(&self, method: &str, target: &str, body: &str) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
        stream.set_write_timeout(Some(self.timeout))?;
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        receive(&mut stream, Instant::now() + self.timeout)
    }

    fn lost(&self, error: &io::Error) -> Failure {
        let problem = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!(
                "the admin server at {} did not answer within {} s",
                self.address,
                self.timeout.as_secs()
            ),
            _ => format!("cannot ask the admin server at {}: {error}", self.address),
        };
        Failure::new(
            Exit::Runtime,
            problem,
            "is the process running there? its address is `admin` in its configuration: --admin ADDR",
        )
    }

    /// Something answers there that is no admin server of ours.
    fn strange(&self, what: &str) -> Failure {
        Failure::new(
            Exit::Runtime,
            format!("the answer from {} is not understood: {what}", self.address),
            "is that the admin server of tidegate? --admin ADDR",
        )
    }
}

impl Answer {
    /// What it says, if it says yes.
    pub(in crate::cli) fn expect_ok(self) -> Result<String, Failure> {
        match self.status {
            200..300 => Ok(self.body),
            status => Err(Failure::new(
                exit_of(status),
                self.body.trim_end().to_owned(),
                "",
            )),
        }
    }
}

/// What a view says at a JSON pointer (RFC 6901), to be shown; a dash if nothing.
pub(in crate::cli) fn text(view: &Value, pointer: &str) -> String {
    match view.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "–".to_owned(),
        Some(value) => value.to_string(),
    }
}

/// Percent-encodes what is not unreserved (RFC 3986, 2.3).
pub(in crate::cli) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            byte => out += &format!("%{byte:02X}"),
        }
    }
    out
}

/// An answer to its end: by its length, or by the end of the connection.
fn receive(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut piece = vec![0; 64 << 10];
    while !is_whole(&answer) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let n = stream.read(&mut piece)?;
        if n == 0 {
            break;
        }
        answer.extend_from_slice(piece.get(..n).unwrap_or_default());
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
    }
    Ok(answer)
}

/// Whether all came that its length promises.
fn is_whole(answer: &[u8]) -> bool {
    split(answer).is_some_and(|(head, body)| length(head).is_some_and(|all| body.len() >= all))
}

/// Status and body; `None` if it is cut, or no answer at all.
fn parse(answer: &[u8]) -> Option<Answer> {
    let (head, body) = split(answer)?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let body = match length(head) {
        Some(length) => body.get(..length)?,
        None => body,
    };
    Some(Answer {
        status,
        body: String::from_utf8_lossy(body).into_owned(),
    })
}

/// Head and body.
fn split(answer: &[u8]) -> Option<(&str, &[u8])> {
    const END: &[u8] = b"\r\n\r\n";
    let at = answer.windows(END.len()).position(|w| w == END)?;
    let head = std::str::from_utf8(answer.get(..at)?).ok()?;
    Some((head, answer.get(at + END.len()..)?))
}

fn length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: answers are read, and what is cut or none at all is not taken for one. Method: table.
    #[test]
    fn answers_are_read() {
        let whole = parse(b"HTTP/1.1 409 Conflict\r\ncontent-length: 3\r\n\r\nno\n").unwrap();
        assert_eq!((whole.status, &*whole.body), (409, "no\n"));
        assert_eq!(whole.expect_ok().unwrap_err().exit, Exit::CheckFailed);
        for bad in [
            &b""[..],
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 2",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nno\n",
        ] {
            assert!(parse(bad).is_none());
        }
    }
}
