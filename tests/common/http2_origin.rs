//! An origin in HTTP/2 that others wrote: the `h2` crate's server, on a thread of its own.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;

use super::{http2::send_all, pattern};

/// A listening origin. Displays as its address.
pub struct Http2Origin {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
    /// Where its first request stands among those of all origins.
    first: std::sync::OnceLock<usize>,
    resets: AtomicUsize,
    answered: AtomicUsize,
    /// Every connection says GOAWAY before its next request.
    goes_away: AtomicBool,
    /// How many requests are refused unread.
    refuses: AtomicUsize,
    /// An extended CONNECT is taken.
    takes_tunnels: bool,
    /// What such a request said.
    tunnels: Mutex<Vec<String>>,
    /// Every request is answered by this status of gRPC alone.
    grpc_status: Option<&'static str>,
    /// The fields of each request.
    seen: Mutex<Vec<HeaderMap>>,
    /// How the next requests fail.
    failures: Mutex<Vec<Failing>>,
    /// Nothing is answered before it is told to go on.
    held: Mutex<Option<tokio::sync::watch::Receiver<bool>>>,
}

/// How a call of gRPC fails.
#[derive(Clone, Copy, Default)]
pub struct Failing {
    pub status: &'static str,
    /// Behind a head, in trailers; otherwise there is nothing but a head.
    pub in_trailers: bool,
    /// A piece of a message stands before it.
    pub behind_data: bool,
    /// Before the body is read.
    pub at_once: bool,
    /// `grpc-retry-pushback-ms`.
    pub pushback: Option<&'static str>,
}

impl Http2Origin {
    /// Answers by the path: `/bytes/N`, N bytes of [`pattern`] · `/body`, the request's body, with its
    /// trailers · `/never`, not at all · `/trailers`, trailers · anything else, the fields it came with.
    pub fn start(streams_max: u32) -> Http2Origin {
        Http2Origin::start_with(streams_max, State::default())
    }

    /// The same, which takes an extended CONNECT (RFC 8441) to anything, and sends back what comes.
    pub fn with_tunnels() -> Http2Origin {
        let state = State {
            takes_tunnels: true,
            ..State::default()
        };
        Http2Origin::start_with(100, state)
    }

    /// One that answers every request by this status of gRPC alone.
    pub fn with_status(status: &'static str) -> Http2Origin {
        let state = State {
            grpc_status: Some(status),
            ..State::default()
        };
        Http2Origin::start_with(100, state)
    }

    /// Fails the next `times` requests so.
    pub fn fail(&self, times: usize, how: Failing) {
        let mut failures = self.state.failures.lock().unwrap();
        failures.extend(std::iter::repeat_n(how, times));
    }

    /// Answers nothing until the sender says true.
    pub fn hold(&self) -> tokio::sync::watch::Sender<bool> {
        let (sender, receiver) = tokio::sync::watch::channel(false);
        *self.state.held.lock().unwrap() = Some(receiver);
        sender
    }

    /// The values of a field in the requests that came, in order; empty where there is none.
    pub fn seen(&self, field: &str) -> Vec<String> {
        let seen = self.state.seen.lock().unwrap();
        let value = |head: &HeaderMap| {
            let values: Vec<_> = head.get_all(field).iter().collect();
            assert!(values.len() < 2, "{field}: {values:?}");
            let value = values.first();
            value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
        };
        seen.iter().map(value).collect()
    }

    fn start_with(streams_max: u32, state: State) -> Http2Origin {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(state);
        let shared = state.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    let state = shared.clone();
                    tokio::spawn(async move {
                        serve(stream, streams_max, &state).await;
                        state.open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        });
        Http2Origin { address, state }
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    pub fn open_connections(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Requests that it has taken.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Where its first request stands among those of all origins.
    pub fn first_request(&self) -> Option<usize> {
        self.state.first.get().copied()
    }

    /// Requests that were reset while it thought.
    pub fn resets(&self) -> usize {
        self.state.resets.load(Ordering::SeqCst)
    }

    /// Requests that it is done with, one way or another.
    pub fn answered(&self) -> usize {
        self.state.answered.load(Ordering::SeqCst)
    }

    /// What each extended CONNECT said: line and fields.
    pub fn tunnels(&self) -> Vec<String> {
        self.state.tunnels.lock().unwrap().clone()
    }

    /// From here on every connection is ended, politely, at its next request.
    pub fn go_away(&self, goes_away: bool) {
        self.state.goes_away.store(goes_away, Ordering::SeqCst);
    }

    /// Refuses the next `requests` unread.
    pub fn refuse(&self, requests: usize) {
        self.state.refuses.store(requests, Ordering::SeqCst);
    }
}

impl State {
    /// How this request fails, if it does at this point.
    fn failing(&self, at_once: bool) -> Option<Failing> {
        let mut failures = self.failures.lock().unwrap();
        failures.pop_if(|failing| failing.at_once == at_once)
    }
}

impl fmt::Display for Http2Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

async fn serve(stream: tokio::net::TcpStream, streams_max: u32, state: &Arc<State>) {
    stream.set_nodelay(true).unwrap();
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams_max);
    if state.takes_tunnels {
        builder.enable_connect_protocol();
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if state.goes_away.load(Ordering::SeqCst) {
            connection.graceful_shutdown();
        }
        let left = state.refuses.load(Ordering::SeqCst);
        if left > 0 {
            state.refuses.store(left - 1, Ordering::SeqCst);
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            continue;
        }
        static ORDER: AtomicUsize = AtomicUsize::new(0);
        let place = ORDER.fetch_add(1, Ordering::SeqCst);
        state.first.get_or_init(|| place);
        state.requests.fetch_add(1, Ordering::SeqCst);
        let state = state.clone();
        tokio::spawn(async move {
            // The other side may give up at any moment; what matters is asserted by the test.
            let _ = answer(request, respond, &state).await;
            state.answered.fetch_add(1, Ordering::SeqCst);
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    state: &State,
) -> Result<(), h2::Error> {
    if request.method() == "CONNECT" {
        return tunnel(request, respond, state).await;
    }
    if let Some(status) = state.grpc_status {
        let answer = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", status);
        respond.send_response(answer.body(()).unwrap(), true)?;
        return Ok(());
    }
    let (head, mut stream) = request.into_parts();
    let path = head.uri.path().to_owned();
    state.seen.lock().unwrap().push(head.headers.clone());
    let failing = state.failing(true);
    if let Some(failing) = failing {
        return fail(failing, &mut respond).await;
    }
    if path == "/never" {
        let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
        state.resets.fetch_add(1, Ordering::SeqCst);
        return Ok(());
    }
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let mut trailers = stream.trailers().await?;
    let held = state.held.lock().unwrap().clone();
    if let Some(mut held) = held {
        tokio::select! {
            _ = held.wait_for(|go_on| *go_on) => {}
            _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => {
                state.resets.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
        }
    }
    if let Some(failing) = state.failing(false) {
        return fail(failing, &mut respond).await;
    }
    let body = match path.trim_start_matches('/').split_once('/') {
        Some(("bytes", n)) => pattern(n.parse().unwrap()),
        _ if path == "/body" => body,
        _ if path == "/trailers" => {
            trailers = Some(HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                http::HeaderValue::from_static("42"),
            )]));
            b"hello world".to_vec()
        }
        _ => format!("{} {}\n{:?}", head.method, head.uri, head.headers).into_bytes(),
    };
    let is_empty = body.is_empty() && trailers.is_none() || head.method == "HEAD";
    let mut answer = Response::builder().status(200);
    if head.uri.query() == Some("length") {
        answer = answer.header("content-length", body.len());
    }
    let stream = respond.send_response(answer.body(()).unwrap(), is_empty)?;
    match is_empty {
        true => Ok(()),
        false => send_all(stream, &body, trailers).await,
    }
}

async fn fail(failing: Failing, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", failing.status.parse().unwrap());
    if let Some(pushback) = failing.pushback {
        fields.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    }
    let mut answer = Response::builder().header("content-type", "application/grpc");
    if !failing.in_trailers {
        answer.headers_mut().unwrap().extend(fields);
        respond.send_response(answer.body(()).unwrap(), true)?;
        return Ok(());
    }
    let mut stream = respond.send_response(answer.body(()).unwrap(), false)?;
    if failing.behind_data {
        stream.send_data(Bytes::from_static(&[0; 5]), false)?;
    }
    stream.send_trailers(fields)
}

async fn tunnel(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    state: &State,
) -> Result<(), h2::Error> {
    let (head, mut stream) = request.into_parts();
    let protocol = head.extensions.get::<h2::ext::Protocol>();
    let protocol = protocol.map_or("", h2::ext::Protocol::as_str);
    let said = format!("{protocol} {} {:?}", head.uri, head.headers);
    state.tunnels.lock().unwrap().push(said);
    let answer = Response::builder().header("sec-websocket-protocol", "chat");
    let mut back = respond.send_response(answer.body(()).unwrap(), false)?;
    while let Some(piece) = stream.data().await {
        let mut piece = piece?;
        let length = piece.len();
        while !piece.is_empty() {
            back.reserve_capacity(piece.len());
            let Some(room) = std::future::poll_fn(|cx| back.poll_capacity(cx)).await else {
                return Ok(());
            };
            back.send_data(piece.split_to(room?.min(piece.len())), false)?;
        }
        stream.flow_control().release_capacity(length)?;
    }
    back.send_data(Bytes::new(), true)
}
