//! HTTP/2 with another implementation at the other end: the `h2` crate, in memory, in both roles.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tidegate_codecs::http2::{
    Connection, Event, FieldLine, Options, RequestLine, StreamId, end_to_end,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Exchanges of a test, all at once.
const EXCHANGES: usize = 20;
/// Of each body: beyond the windows of a stream, all of them beyond the connection's.
const BODY_BYTES: usize = 200_000;
/// What is on its way in memory.
const PIPE_BYTES: usize = 1 << 20;

fn body(number: usize) -> Vec<u8> {
    (0..BODY_BYTES)
        .map(|at| (at * 7 + at / 251 + number) as u8)
        .collect()
}

/// Our side of an exchange.
#[derive(Default)]
struct Exchange {
    number: usize,
    received: Vec<u8>,
    received_all: bool,
    to_send: Vec<u8>,
    sent: usize,
    /// All of what is to be sent is there.
    may_end: bool,
    has_ended: bool,
    trailer: Option<Vec<u8>>,
}

/// Our side of a connection.
struct Ours {
    connection: Connection,
    exchanges: BTreeMap<StreamId, Exchange>,
}

impl Ours {
    fn new(connection: Connection) -> Ours {
        Ours {
            connection,
            exchanges: BTreeMap::new(),
        }
    }

    /// Sends whatever may be sent, until `is_done` or the peer has closed.
    async fn drive(&mut self, io: &mut DuplexStream, is_done: impl Fn(&Ours) -> bool) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let mut out = Vec::new();
            self.send(&mut out);
            if io.write_all(&out).await.is_err() || is_done(self) {
                return;
            }
            let len = io.read(&mut buffer).await.unwrap();
            if len == 0 {
                return;
            }
            let mut rest = &buffer[..len];
            while !rest.is_empty() {
                let step = self.connection.receive(rest, 0).unwrap();
                rest = &rest[step.consumed..];
                if let Some(event) = step.event {
                    self.on_event(event);
                }
            }
        }
    }

    fn send(&mut self, out: &mut Vec<u8>) {
        self.connection.take_output(out);
        for (id, exchange) in &mut self.exchanges {
            while !exchange.has_ended {
                let left = exchange.to_send.len() - exchange.sent;
                if left == 0 && exchange.may_end {
                    let trailer = [FieldLine::new(b"x-checksum", b"fine")];
                    self.connection.send_trailers(*id, trailer).unwrap();
                    exchange.has_ended = true;
                    break;
                }
                let granted = self.connection.send_data(*id, left, false, 0).unwrap();
                if granted == 0 {
                    break;
                }
                self.connection.take_output(out);
                let payload = &exchange.to_send[exchange.sent..][..granted];
                out.extend_from_slice(payload);
                exchange.sent += granted;
            }
        }
        while self.connection.next_writable().is_some() {}
        self.connection.take_output(out);
    }

    fn on_event(&mut self, event: Event<'_>) {
        match event {
            Event::Request { stream, .. } => {
                let head = self.connection.head();
                assert_eq!(head.method(), b"POST");
                assert_eq!(head.authority(), b"orders.example");
                assert_eq!(head.query(), Some(&b"q=1"[..]));
                assert_eq!(head.field("cookie"), Some(&b"a=b; c=d"[..]));
                let number = str::from_utf8(head.path()).unwrap()[1..].parse().unwrap();
                // The request's fields, `x-` and all, come back.
                let (text, fields) = (head.text().to_vec(), head.fields().to_vec());
                let fields = end_to_end(&fields, &text, &[]);
                self.connection
                    .send_response(stream, 103, [FieldLine::new(b"link", b"</a>")], false)
                    .unwrap();
                self.connection
                    .send_response(stream, 200, fields, false)
                    .unwrap();
                let exchange = Exchange {
                    number,
                    ..Exchange::default()
                };
                self.exchanges.insert(stream, exchange);
            }
            Event::Response { stream, end_stream } => {
                assert_eq!(self.connection.head().status(), 200);
                assert!(self.exchanges.contains_key(&stream) && !end_stream);
            }
            Event::Data {
                stream,
                payload,
                end_stream,
            } => {
                let exchange = self.exchanges.get_mut(&stream).unwrap();
                exchange.received.extend_from_slice(payload);
                exchange.received_all = end_stream;
                self.connection.consume(stream, payload.len());
                self.echo(stream);
            }
            Event::Trailers { stream } => {
                let trailer = self.connection.head().field("x-checksum");
                let exchange = self.exchanges.get_mut(&stream).unwrap();
                exchange.trailer = trailer.map(<[u8]>::to_vec);
                exchange.received_all = true;
                self.echo(stream);
            }
            // Theirs says goodbye as well.
            Event::Settings | Event::GoAway { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    /// A server sends back what it has received.
    fn echo(&mut self, stream: StreamId) {
        if self.connection.role() == tidegate_codecs::http2::Role::Server {
            let exchange = self.exchanges.get_mut(&stream).unwrap();
            let more = &exchange.received[exchange.to_send.len()..];
            exchange.to_send.extend_from_slice(more);
            exchange.may_end = exchange.received_all;
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// Goal: a server of ours serves another implementation's client: concurrent bodies both ways beyond all
/// windows, interim answers, trailers, cookies in crumbs. Method: the `h2` crate sends, ours echoes, every
/// byte is compared.
#[test]
fn our_server_with_their_client() {
    runtime().block_on(async {
        let (mut near, far) = tokio::io::duplex(PIPE_BYTES);
        let theirs = tokio::spawn(async move {
            let (client, connection) = h2::client::handshake(far).await.unwrap();
            tokio::spawn(connection);
            let mut tasks = Vec::new();
            for number in 0..EXCHANGES {
                let mut client = client.clone().ready().await.unwrap();
                let request = Request::builder()
                    .method(Method::POST)
                    .uri(format!("https://orders.example/{number}?q=1"))
                    .header("cookie", "a=b")
                    .header("cookie", "c=d")
                    .header("x-number", number.to_string())
                    .body(())
                    .unwrap();
                let (response, send) = client.send_request(request, false).unwrap();
                tasks.push(tokio::spawn(exchange_with_us(number, response, send)));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
        let mut ours = Ours::new(Connection::server(&Options::default(), 0));
        let done = |ours: &Ours| {
            let ended = ours
                .exchanges
                .values()
                .filter(|exchange| exchange.has_ended);
            ended.count() == EXCHANGES
        };
        ours.drive(&mut near, done).await;
        assert_eq!(ours.connection.streams_open(), 0);
        for exchange in ours.exchanges.values() {
            assert_eq!(exchange.received, body(exchange.number));
            assert_eq!(exchange.trailer.as_deref(), Some(&b"fine"[..]));
        }
        theirs.await.unwrap();
    });
}

async fn exchange_with_us(
    number: usize,
    response: h2::client::ResponseFuture,
    send: h2::SendStream<Bytes>,
) {
    let sending = tokio::spawn(send_all(send, body(number)));
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-number"], number.to_string());
    let (received, trailers) = receive_all(response.into_body()).await;
    assert_eq!(received, body(number));
    assert_eq!(trailers.unwrap()["x-checksum"], "fine");
    sending.await.unwrap();
}

async fn send_all(mut send: h2::SendStream<Bytes>, body: Vec<u8>) {
    let mut rest = Bytes::from(body);
    while !rest.is_empty() {
        send.reserve_capacity(rest.len());
        let capacity = core::future::poll_fn(|context| send.poll_capacity(context)).await;
        let len = capacity.unwrap().unwrap().min(rest.len());
        send.send_data(rest.split_to(len), false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "fine".parse().unwrap());
    send.send_trailers(trailers).unwrap();
}

async fn receive_all(mut body: h2::RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut received = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        received.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    (received, body.trailers().await.unwrap())
}

/// Goal: a client of ours is served by another implementation's server, the same way. Method: ours sends,
/// the `h2` crate echoes, every byte is compared.
#[test]
fn our_client_with_their_server() {
    runtime().block_on(async {
        let (mut near, far) = tokio::io::duplex(PIPE_BYTES);
        let theirs = tokio::spawn(async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            while let Some(accepted) = connection.accept().await {
                let (request, mut respond) = accepted.unwrap();
                assert_eq!(request.uri().path(), "/echo");
                assert_eq!(request.headers()["x-mixed-case"], "yes");
                tokio::spawn(async move {
                    let response = Response::builder().header("server", "h2").body(()).unwrap();
                    let send = respond.send_response(response, false).unwrap();
                    let (received, trailers) = receive_all(request.into_body()).await;
                    assert_eq!(trailers.unwrap()["x-checksum"], "fine");
                    send_all(send, received).await;
                });
            }
        });
        let mut ours = Ours::new(Connection::client(&Options::default(), 0));
        let line = RequestLine {
            method: b"POST",
            scheme: b"http",
            authority: b"orders.example",
            path: b"/echo",
            protocol: None,
        };
        for number in 0..EXCHANGES {
            let fields = [FieldLine::new(b"X-Mixed-Case", b"yes")];
            let stream = ours.connection.send_request(line, fields, false).unwrap();
            let exchange = Exchange {
                number,
                to_send: body(number),
                may_end: true,
                ..Exchange::default()
            };
            ours.exchanges.insert(stream, exchange);
        }
        let done = |ours: &Ours| {
            ours.exchanges
                .values()
                .all(|exchange| exchange.received_all)
        };
        ours.drive(&mut near, done).await;
        for exchange in ours.exchanges.values() {
            assert_eq!(exchange.received, body(exchange.number));
            assert_eq!(exchange.trailer.as_deref(), Some(&b"fine"[..]));
        }
        assert_eq!(ours.connection.streams_open(), 0);
        ours.connection.drain(0);
        assert!(ours.connection.is_drained());
        let mut out = Vec::new();
        ours.send(&mut out);
        near.write_all(&out).await.unwrap();
        drop(near);
        theirs.await.unwrap();
    });
}

/// Goal: a drain of ours is a graceful shutdown to another implementation: what it has under way ends well.
/// Method: a request, the drain, the answer; the client's connection ends without an error.
#[test]
fn our_drain_with_their_client() {
    runtime().block_on(async {
        let (mut near, far) = tokio::io::duplex(PIPE_BYTES);
        let theirs = tokio::spawn(async move {
            let (client, connection) = h2::client::handshake(far).await.unwrap();
            let connection = tokio::spawn(connection);
            let mut client = client.ready().await.unwrap();
            let request = Request::builder()
                .method(Method::POST)
                .uri("https://orders.example/0?q=1")
                .header("cookie", "a=b; c=d")
                .body(())
                .unwrap();
            let (response, mut send) = client.send_request(request, false).unwrap();
            send.send_data(Bytes::from_static(b"x"), true).unwrap();
            let response = response.await.unwrap();
            let (received, _) = receive_all(response.into_body()).await;
            assert_eq!(received, b"x");
            drop((client, send));
            connection.await.unwrap().unwrap();
        });
        let mut ours = Ours::new(Connection::server(&Options::default(), 0));
        ours.drive(&mut near, |ours| !ours.exchanges.is_empty())
            .await;
        ours.connection.drain(0);
        // Theirs closes as soon as it has its answer.
        ours.drive(&mut near, |_| false).await;
        assert_eq!(ours.connection.streams_open(), 0);
        theirs.await.unwrap();
    });
}
