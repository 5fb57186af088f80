//! Reading requests and building answers, apart from any connection.

use std::{collections::BTreeMap, sync::Arc};

use super::BODY_BYTES_MAX;

/// Different answers kept ready; a benchmark asks for a handful.
const ANSWERS_MAX: usize = 64;
const HEAD_FIELDS_MAX: usize = 64;

/// Whole answers by body size.
pub(crate) type Answers = BTreeMap<usize, Arc<[u8]>>;

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    NextRequest,
    Close,
}

pub(crate) struct Request {
    pub(crate) head_bytes: usize,
    /// Size of the body asked for; `None` is not found.
    pub(crate) body_bytes: Option<usize>,
    pub(crate) content_length: u64,
    pub(crate) close: bool,
}

pub(crate) enum Parsed {
    Partial,
    Malformed,
    Request(Request),
}

pub(crate) fn parse(input: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let head_bytes = match parsed.parse(input) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Malformed,
    };
    let mut request = Request {
        head_bytes,
        body_bytes: parsed.path.and_then(body_size),
        content_length: 0,
        close: parsed.version == Some(0),
    };
    for field in parsed.headers.iter() {
        match field.name.len() {
            10 if field.name.eq_ignore_ascii_case("connection") => {
                request.close |= field.value.eq_ignore_ascii_case(b"close");
            }
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                let value = std::str::from_utf8(field.value).ok();
                match value.and_then(|text| text.parse().ok()) {
                    Some(length) => request.content_length = length,
                    None => return Parsed::Malformed,
                }
            }
            // Peers pass a length on as a length, and skipping chunks would be code without use.
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                return Parsed::Malformed;
            }
            _ => {}
        }
    }
    Parsed::Request(request)
}

/// The N of a path that ends in `/b/N`.
pub(super) fn body_size(path: &str) -> Option<usize> {
    let (_, size) = path.rsplit_once("/b/")?;
    size.parse().ok().filter(|size| *size <= BODY_BYTES_MAX)
}

pub(crate) fn answer(body_bytes: Option<usize>, after: After, answers: &mut Answers) -> Arc<[u8]> {
    let Some(size) = body_bytes else {
        return Arc::from(&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..]);
    };
    if after == After::Close {
        return build_answer(size, "Connection: close\r\n");
    }
    if let Some(answer) = answers.get(&size) {
        return answer.clone();
    }
    let answer = build_answer(size, "");
    if answers.len() < ANSWERS_MAX {
        answers.insert(size, answer.clone());
    }
    answer
}

/// The answer of an origin that fails.
pub(crate) fn failure() -> Arc<[u8]> {
    Arc::from(&b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"[..])
}

fn build_answer(size: usize, connection: &str) -> Arc<[u8]> {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n{connection}\r\n"
    )
    .into_bytes();
    bytes.resize(bytes.len() + size, b'x');
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size is the number after the last `/b/`, within the limit, whatever stands before it.
    #[test]
    fn body_sizes_by_path() {
        for (path, size) in [
            ("/b/128", Some(128)),
            ("/route-0999/b/16384", Some(16384)),
            ("/b/1/b/2", Some(2)),
            ("/b/", None),
            ("/b/-1", None),
            ("/", None),
            ("/b/67108864", Some(BODY_BYTES_MAX)),
            ("/b/67108865", None),
        ] {
            assert_eq!(body_size(path), size, "{path}");
        }
    }

    /// An answer's length is its head's and the body's, and is built once.
    #[test]
    fn answers_are_kept() {
        let mut answers = BTreeMap::new();
        let first = answer(Some(128), After::NextRequest, &mut answers);
        let second = answer(Some(128), After::NextRequest, &mut answers);
        assert!(Arc::ptr_eq(&first, &second));
        assert!(first.ends_with(&[b'x'; 128]));
        assert_eq!(answers.len(), 1);
    }
}
