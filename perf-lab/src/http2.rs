//! HTTP/2 as the lab's two ends speak it, sans-IO, over the project's own codec: a [`Client`] whose
//! requests go out and whose whole answers come back. Like [`crate::response`] it keeps no body, and is
//! strict enough to notice a peer that answers wrongly; what the codec refuses ends the connection.
//!
//! Not here: bodies of requests, pushes (switched off), and the server's end, which is the origin's.

use tidegate_codecs::{
    http2::{Connection, ErrorCode, Event, FieldLine, Options, RequestLine, SendError, StreamId},
    limits::Http2Limits,
};

use crate::clock::Nanos;

/// The name that TLS knows it by (RFC 7301).
pub const ALPN: &[u8] = b"h2";

/// What DATA may be under way, by stream and in all: as much as h2load allows, so that it is never the
/// lab that holds a peer up.
const WINDOW_BYTES: u32 = (1 << 30) - 1;

/// How the lab's ends run a connection with so many streams. The limits that protect a server from its
/// clients are out of the way: both ends are ours, and a peer in between may do as it likes.
pub fn options(streams: usize) -> Options {
    Options {
        limits: Http2Limits {
            concurrent_streams_max: u32::try_from(streams).unwrap_or(u32::MAX),
            stream_window_bytes: WINDOW_BYTES,
            connection_window_bytes: WINDOW_BYTES,
            resets_max: u32::MAX,
            stream_errors_max: u32::MAX,
            settings_frames_max: u32::MAX,
            pings_max: u32::MAX,
            empty_frames_max: u32::MAX,
            idle_frames_max: u32::MAX,
            window_updates_max: u32::MAX,
            tiny_frames_max: u32::MAX,
            unread_bytes_max: usize::MAX,
            ..Http2Limits::default()
        },
        ..Options::default()
    }
}

/// A GET, always the same.
#[derive(Clone, Debug)]
pub struct Request {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// Host and port.
    pub authority: String,
    /// The path, with its query.
    pub path: String,
}

/// What comes back; `T` is what the request was sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// A whole response.
    Response {
        /// The request's.
        tag: T,
        /// The status code.
        status: u16,
        /// Bytes of its body.
        body_bytes: u64,
    },
    /// There will be none.
    Lost {
        /// The request's.
        tag: T,
        /// Why.
        problem: String,
    },
    /// The peer takes no more requests on this connection. Those that it has not acted upon are lost,
    /// and told apart; the others go on.
    GoingAway(String),
}

/// A client's connection.
#[derive(Debug)]
pub struct Client<T> {
    connection: Connection,
    under_way: Vec<Exchange<T>>,
}

#[derive(Debug)]
struct Exchange<T> {
    stream: StreamId,
    tag: T,
    status: u16,
    body_bytes: u64,
}

impl<T> Client<T> {
    /// For so many requests at once. Its preface is in the output.
    pub fn new(streams: usize, now: Nanos) -> Client<T> {
        Client {
            connection: Connection::client(&options(streams), now.0),
            under_way: Vec::with_capacity(streams),
        }
    }

    /// How many requests may be sent now, by the peer's word and ours.
    pub fn streams_available(&self) -> usize {
        self.connection.streams_available()
    }

    /// Whether the peer takes no more requests.
    pub fn is_going_away(&self) -> bool {
        self.connection.is_going_away()
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// What is under way.
    pub fn under_way(&self) -> impl Iterator<Item = &T> {
        self.under_way.iter().map(|exchange| &exchange.tag)
    }

    /// Gives up: takes what is under way.
    pub fn abandon(&mut self) -> impl Iterator<Item = T> + use<T> {
        let under_way = std::mem::take(&mut self.under_way);
        under_way.into_iter().map(|exchange| exchange.tag)
    }

    /// Sends a request; it is in the output.
    pub fn send(&mut self, request: &Request, tag: T) -> Result<(), SendError> {
        let line = RequestLine {
            method: b"GET",
            scheme: request.scheme.as_bytes(),
            authority: request.authority.as_bytes(),
            path: request.path.as_bytes(),
            protocol: None,
        };
        // The fields that a plain client sends, as over HTTP/1.1.
        let fields = [
            FieldLine::new(b"user-agent", b"tidegate-lab"),
            FieldLine::new(b"accept", b"*/*"),
        ];
        let stream = self.connection.send_request(line, fields, true)?;
        self.under_way.push(Exchange {
            stream,
            tag,
            status: 0,
            body_bytes: 0,
        });
        Ok(())
    }

    /// Moves what is to be sent behind `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        self.connection.take_output(out);
    }

    /// Takes bytes as they arrive, and adds what they bring to `answers`. An error is the end of the
    /// connection; what is under way stays to be [abandoned](Client::abandon).
    pub fn feed(
        &mut self,
        input: &[u8],
        now: Nanos,
        answers: &mut Vec<Answer<T>>,
    ) -> Result<(), String> {
        let mut rest = input;
        while !rest.is_empty() {
            let received = self.connection.receive(rest, now.0);
            let received = received.map_err(|error| error.to_string())?;
            rest = rest.get(received.consumed..).unwrap_or_default();
            if let Some(event) = received.event {
                self.take(event, answers);
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, answers: &mut Vec<Answer<T>>) {
        match event {
            Event::Response { stream, end_stream } => {
                let head = self.connection.head();
                let (status, is_interim) = (head.status(), head.is_interim());
                if !is_interim && let Some(exchange) = self.exchange(stream) {
                    exchange.status = status;
                }
                if end_stream {
                    answers.extend(self.finish(stream));
                }
            }
            Event::Data {
                stream,
                payload,
                end_stream,
            } => {
                self.connection.consume(stream, payload.len());
                if let Some(exchange) = self.exchange(stream) {
                    exchange.body_bytes += payload.len() as u64;
                }
                if end_stream {
                    answers.extend(self.finish(stream));
                }
            }
            Event::Trailers { stream } => answers.extend(self.finish(stream)),
            Event::Reset { stream, code } => {
                let problem = format!("the peer reset the stream ({})", named(code));
                answers.extend(self.lose(stream, problem));
            }
            Event::Broken { stream, error } => {
                answers.extend(self.lose(stream, format!("a wrong answer: {error}")));
            }
            Event::GoAway { last, code } => self.go_away(last, code, answers),
            Event::Settings | Event::Request { .. } | Event::Refused { .. } => {}
        }
    }

    fn go_away(&mut self, last: StreamId, code: ErrorCode, answers: &mut Vec<Answer<T>>) {
        let problem = format!("the peer went away (GOAWAY, {})", named(code));
        let (gone, kept) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|exchange: &Exchange<T>| exchange.stream > last);
        self.under_way = kept;
        answers.extend(gone.into_iter().map(|exchange| Answer::Lost {
            tag: exchange.tag,
            problem: problem.clone(),
        }));
        answers.push(Answer::GoingAway(problem));
    }

    fn finish(&mut self, stream: StreamId) -> Option<Answer<T>> {
        let exchange = self.remove(stream)?;
        Some(Answer::Response {
            tag: exchange.tag,
            status: exchange.status,
            body_bytes: exchange.body_bytes,
        })
    }

    /// Nothing, if it is not under way any more: an answer that is whole stays whole.
    fn lose(&mut self, stream: StreamId, problem: String) -> Option<Answer<T>> {
        let tag = self.remove(stream)?.tag;
        Some(Answer::Lost { tag, problem })
    }

    fn exchange(&mut self, stream: StreamId) -> Option<&mut Exchange<T>> {
        let mut under_way = self.under_way.iter_mut();
        under_way.find(|exchange| exchange.stream == stream)
    }

    fn remove(&mut self, stream: StreamId) -> Option<Exchange<T>> {
        let mut under_way = self.under_way.iter();
        let place = under_way.position(|exchange| exchange.stream == stream)?;
        Some(self.under_way.swap_remove(place))
    }
}

/// The name of an error code (RFC 9113, 7), or its number.
fn named(code: ErrorCode) -> String {
    let name = match code {
        ErrorCode::NO_ERROR => "NO_ERROR",
        ErrorCode::PROTOCOL_ERROR => "PROTOCOL_ERROR",
        ErrorCode::INTERNAL_ERROR => "INTERNAL_ERROR",
        ErrorCode::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
        ErrorCode::REFUSED_STREAM => "REFUSED_STREAM",
        ErrorCode::CANCEL => "CANCEL",
        ErrorCode::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
        ErrorCode(number) => return format!("error {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    fn request() -> Request {
        Request {
            scheme: "http",
            authority: "lab.example".to_owned(),
            path: "/b/5".to_owned(),
        }
    }

    /// A server that has read what the client sent, and the streams of its requests.
    fn server(client: &mut Client<u32>) -> (Connection, Vec<StreamId>) {
        let mut server = Connection::server(&options(8), 0);
        let (mut bytes, mut streams) = (Vec::new(), Vec::new());
        client.take_output(&mut bytes);
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            let received = server.receive(input, 0).unwrap();
            input = &input[received.consumed..];
            if let Some(Event::Request { stream, end_stream }) = received.event {
                assert!(end_stream);
                assert_eq!(server.head().path(), b"/b/5");
                streams.push(stream);
            }
        }
        (server, streams)
    }

    fn output(server: &mut Connection) -> Vec<u8> {
        let mut bytes = Vec::new();
        server.take_output(&mut bytes);
        bytes
    }

    fn answer(server: &mut Connection, stream: StreamId, body: &[u8]) -> Vec<u8> {
        server.send_response(stream, 200, [], false).unwrap();
        assert_eq!(
            server.send_data(stream, body.len(), true, 0),
            Ok(body.len())
        );
        let mut bytes = output(server);
        bytes.extend_from_slice(body);
        bytes
    }

    fn response(tag: u32, status: u16, body_bytes: u64) -> Answer<u32> {
        Answer::Response {
            tag,
            status,
            body_bytes,
        }
    }

    /// Goal: answers find their requests, in any order and however they are cut. Method: three requests
    /// answered backwards, with a body, without one, and behind an interim head; fed whole and byte by byte.
    #[test]
    fn answers_find_their_requests() {
        for piece in [usize::MAX, 1] {
            let mut client = Client::new(8, Nanos::ZERO);
            for tag in [10, 11, 12] {
                client.send(&request(), tag).unwrap();
            }
            let (mut server, streams) = server(&mut client);
            let mut bytes = output(&mut server);
            bytes.extend(answer(&mut server, streams[2], b"hello"));
            server.send_response(streams[1], 103, [], false).unwrap();
            server.send_response(streams[1], 503, [], true).unwrap();
            bytes.extend(answer(&mut server, streams[0], b""));
            let mut answers = Vec::new();
            for bytes in bytes.chunks(piece.min(bytes.len())) {
                client.feed(bytes, Nanos::ZERO, &mut answers).unwrap();
            }
            let expected = [
                response(12, 200, 5),
                response(11, 503, 0),
                response(10, 200, 0),
            ];
            assert_eq!(answers, expected, "in pieces of {piece}");
            assert!(client.is_idle());
        }
    }

    /// Goal: a reset stream is a lost exchange with the reason's name, and the others go on.
    #[test]
    fn a_reset_is_named() {
        let mut client = Client::new(8, Nanos::ZERO);
        client.send(&request(), 1).unwrap();
        client.send(&request(), 2).unwrap();
        let (mut server, streams) = server(&mut client);
        server.reset(streams[0], ErrorCode::REFUSED_STREAM);
        let mut bytes = output(&mut server);
        bytes.extend(answer(&mut server, streams[1], b"x"));
        let mut answers = Vec::new();
        client.feed(&bytes, Nanos::ZERO, &mut answers).unwrap();
        let lost = Answer::Lost {
            tag: 1,
            problem: "the peer reset the stream (REFUSED_STREAM)".to_owned(),
        };
        assert_eq!(answers, [lost, response(2, 200, 1)]);
    }

    /// Goal: after GOAWAY what the peer has not acted upon is lost, what it has is not, and no more can be
    /// sent. Method: the frame by hand, which lets the first of two streams go on.
    #[test]
    fn going_away_is_named() {
        let mut client = Client::new(8, Nanos::ZERO);
        client.send(&request(), 1).unwrap();
        client.send(&request(), 2).unwrap();
        let (mut server, streams) = server(&mut client);
        let mut bytes = output(&mut server);
        bytes.extend([0, 0, 8, 7, 0, 0, 0, 0, 0]);
        bytes.extend(streams[0].number().to_be_bytes());
        bytes.extend(ErrorCode::ENHANCE_YOUR_CALM.0.to_be_bytes());
        bytes.extend(answer(&mut server, streams[0], b"x"));
        let mut answers = Vec::new();
        client.feed(&bytes, Nanos::ZERO, &mut answers).unwrap();
        let problem = "the peer went away (GOAWAY, ENHANCE_YOUR_CALM)".to_owned();
        let lost = Answer::Lost {
            tag: 2,
            problem: problem.clone(),
        };
        assert_eq!(
            answers,
            [lost, Answer::GoingAway(problem), response(1, 200, 1)]
        );
        assert!(client.is_going_away() && client.streams_available() == 0);
        assert!(client.send(&request(), 3).is_err());
    }

    /// Goal: what speaks something else is an error, and what was under way is there to be counted.
    #[test]
    fn http1_is_an_error() {
        let mut client = Client::new(8, Nanos::ZERO);
        client.send(&request(), 1).unwrap();
        let fed = client.feed(
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            Nanos::ZERO,
            &mut Vec::new(),
        );
        assert!(fed.is_err());
        assert_eq!(client.abandon().collect::<Vec<u32>>(), [1]);
    }
}
