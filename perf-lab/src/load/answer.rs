//! What a client sends for each exchange, and how it judges what comes back.

use super::{Connections, Exchange, LoadSpec};
use crate::response::{BadResponse, Progress, Response, ResponseReader, Reuse};

/// Follows the answer to one exchange.
pub(super) enum Reader {
    Http(ResponseReader),
    Echo { left: usize },
}

/// How an exchange ended.
pub(super) enum Answer {
    Pending,
    Complete(Reuse),
    /// A whole answer that is not the right one.
    Wrong(String, Reuse),
    Failed(String),
}

impl Reader {
    pub(super) fn new(exchange: &Exchange) -> Reader {
        match exchange {
            Exchange::Http { .. } => Reader::Http(ResponseReader::default()),
            Exchange::Echo { bytes } => Reader::Echo { left: *bytes },
        }
    }

    /// Bytes that may be [skipped](Reader::skip) next, since any will do.
    pub(super) fn certain(&self) -> usize {
        match self {
            Reader::Http(reader) => usize::try_from(reader.certain()).unwrap_or(usize::MAX),
            Reader::Echo { .. } => 0,
        }
    }

    pub(super) fn skip(&mut self, bytes: usize, exchange: &Exchange) -> Answer {
        match self {
            Reader::Http(reader) => follow(reader.skip(bytes), 0, exchange),
            Reader::Echo { .. } => Answer::Pending,
        }
    }

    pub(super) fn feed(&mut self, input: &[u8], exchange: &Exchange) -> Answer {
        match self {
            Reader::Http(reader) => follow(reader.feed(input), input.len(), exchange),
            Reader::Echo { left } => match left.checked_sub(input.len()) {
                Some(0) => Answer::Complete(Reuse::KeepAlive),
                Some(rest) => {
                    *left = rest;
                    Answer::Pending
                }
                None => Answer::Failed("more bytes came back than were sent".to_owned()),
            },
        }
    }

    pub(super) fn end(&mut self, exchange: &Exchange) -> Answer {
        match self {
            Reader::Http(reader) => match reader.end() {
                Ok(Some(response)) => judge(response, exchange),
                Ok(None) => Answer::Pending,
                Err(problem) => Answer::Failed(problem.to_string()),
            },
            Reader::Echo { .. } => Answer::Pending,
        }
    }
}

/// What it means for the exchange that its response came so far, with so many bytes.
fn follow(read: Result<Progress, BadResponse>, bytes: usize, exchange: &Exchange) -> Answer {
    match read {
        Ok(Progress::More) => Answer::Pending,
        Ok(Progress::Done { response, consumed }) if consumed == bytes => judge(response, exchange),
        Ok(Progress::Done { .. }) => Answer::Failed("bytes after the response".to_owned()),
        Err(problem) => Answer::Failed(problem.to_string()),
    }
}

fn judge(response: Response, exchange: &Exchange) -> Answer {
    let Response {
        status,
        body_bytes,
        reuse,
    } = response;
    match is_right(status, body_bytes, exchange) {
        Ok(()) => Answer::Complete(reuse),
        Err(problem) if is_success(status) => Answer::Failed(problem),
        Err(problem) => Answer::Wrong(problem, reuse),
    }
}

/// Whether a whole response is what the exchange asked for, or what is wrong with it.
pub(super) fn is_right(status: u16, body_bytes: u64, exchange: &Exchange) -> Result<(), String> {
    if !is_success(status) {
        return Err(format!("status {status}"));
    }
    match exchange {
        Exchange::Http {
            body_bytes: Some(expected),
            ..
        } if *expected != body_bytes => Err(format!(
            "a body of {body_bytes} bytes instead of {expected}"
        )),
        _ => Ok(()),
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// What is written for each exchange.
pub(super) fn request_bytes(spec: &LoadSpec) -> Vec<u8> {
    match &spec.exchange {
        Exchange::Http {
            host,
            path,
            request_bytes,
            ..
        } => {
            let connection = match spec.keep {
                Connections::Keep => "",
                Connections::PerRequest => "Connection: close\r\n",
            };
            // The fields that a plain client sends, so that a proxy has something to pass on.
            let common = format!(
                "{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tidegate-lab\r\nAccept: */*\r\n{connection}"
            );
            let mut bytes = match request_bytes {
                0 => format!("GET {common}\r\n"),
                bytes => format!("POST {common}Content-Length: {bytes}\r\n\r\n"),
            }
            .into_bytes();
            bytes.resize(bytes.len() + request_bytes, b'.');
            bytes
        }
        Exchange::Echo { bytes } => vec![b'.'; *bytes],
    }
}
