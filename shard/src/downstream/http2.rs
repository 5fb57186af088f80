//! A client's connection in HTTP/2: its task, which opens a stream's task for each request.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use tidegate_codecs::{
    http1::Framing,
    http2::{ConnectionError, MessageError, Options},
    limits::Http2Limits,
};
use tidegate_core::{
    config::model,
    reason::Reason,
    snapshot::{Http, Protocol},
};

use super::{Client, LINGER, close, linger, timeouts, workers};
use crate::{
    http2::{self, End, Notice, Session, Stream},
    request::{self, Caller, Start},
    ring::Deadline,
};

/// CONTINUATION frames for each that the longest header block needs: some senders cut at smaller sizes.
const CONTINUATIONS_SPARE: u32 = 2;

/// A connection.
pub(crate) struct Connection {
    pub(crate) client: Client,
    session: Rc<Session>,
    /// Until when it is kept without a stream, on the driver's clock.
    idle_until_ns: Cell<u64>,
    /// Deadlines of streams that are over, for the next: moving one costs less than making it.
    deadlines: RefCell<Vec<Deadline>>,
}

/// A request on a connection.
pub(crate) struct ClientStream {
    pub(crate) connection: Rc<Connection>,
    pub(crate) stream: Stream,
    /// The one deadline of the exchange, moved from step to step.
    pub(crate) deadline: Deadline,
    /// When its head arrived, on the driver's clock.
    pub(crate) arrived_ns: u64,
}

/// Serves a connection to its end.
pub(super) async fn serve(client: Client) {
    let Some(options) = options(&client) else {
        return;
    };
    let driver = client.local.driver.clone();
    let now_ns = driver.now_ns();
    let wait_ns = timeouts(&client).header.as_nanos() as u64;
    let codec = tidegate_codecs::http2::Connection::server(&options, now_ns);
    let counters = client.local.counters();
    counters.http2_connections.add(1);
    counters.http2_connections_open.add(1);
    client.socket.start_receiving();
    let connection = Rc::new(Connection {
        client,
        session: Session::new(&driver, codec),
        idle_until_ns: Cell::new(now_ns.saturating_add(wait_ns)),
        deadlines: RefCell::default(),
    });
    let end = connection.run().await;
    connection.session.lose_all();
    match end {
        End::Drained => close(&connection.client).await,
        End::Gone => {}
        End::Broken(error) => connection.end(error).await,
    }
}

/// What the client may do, as its listener says at the beginning; `None` if that is gone.
fn options(client: &Client) -> Option<Options> {
    let plane = client.local.plane()?;
    let Protocol::Http(Http { limits, .. }) = &plane.listener(*client.bind)?.protocol else {
        return None;
    };
    let (defaults, http2) = (Http2Limits::default(), &limits.http2);
    let frames = limits.header_list.div_ceil(defaults.frame_bytes_max);
    let limits = Http2Limits {
        concurrent_streams_max: http2.streams,
        header_list_bytes_max: limits.header_list as usize,
        fields_max: limits.header_fields.into(),
        // Above `header_list` a head is refused; only far above it costs the connection.
        block_bytes_max: defaults.block_bytes_max.max(limits.header_list as usize),
        continuations_max: (frames * CONTINUATIONS_SPARE).max(defaults.continuations_max),
        stream_window_bytes: http2.stream_window,
        connection_window_bytes: http2.connection_window,
        resets_max: http2.resets,
        stream_errors_max: http2.stream_errors,
        settings_frames_max: http2.settings,
        pings_max: http2.pings,
        empty_frames_max: http2.empty_frames,
        idle_frames_max: http2.idle_frames,
        window_updates_max: http2.window_updates,
        tiny_frames_max: http2.tiny_frames,
        budget_span: model::Http2Limits::BUDGET_SPAN,
        ..defaults
    };
    Some(Options {
        limits,
        extended_connect: true,
        ..Options::default()
    })
}

impl Connection {
    async fn run(self: &Rc<Self>) -> End {
        loop {
            let running = std::future::poll_fn(|cx| self.poll(cx));
            // When the deadline has passed, the next look finds what is due.
            if let Ok(end) = self.client.deadline.bound(pin!(running)).await {
                return end;
            }
        }
    }

    fn poll(self: &Rc<Self>, cx: &Context<'_>) -> Poll<End> {
        if !self.is_welcome() {
            self.session.drain();
        }
        let socket = &self.client.socket;
        let ended = self
            .session
            .poll_run(cx, socket, |notice| self.heed(notice));
        if ended.is_pending() {
            self.client.deadline.set(self.next_time_ns());
        }
        ended
    }

    /// Whether it may open more streams; to be looked at whenever something happens, as a drain wakes every
    /// reader.
    fn is_welcome(&self) -> bool {
        let local = &self.client.local;
        if self.session.is_idle() && local.driver.now_ns() >= self.idle_until_ns.get() {
            self.idle_until_ns.set(u64::MAX);
            return false;
        }
        let plane = local.plane();
        let listener = plane.as_ref().and_then(|p| p.listener(*self.client.bind));
        let is_welcome = listener.is_some_and(|listener| !self.client.is_unwelcome(listener));
        is_welcome && !local.drain.is_on() && !self.is_worn(listener.map(|l| &l.protocol))
    }

    /// Whether it has served as many requests as a connection may.
    fn is_worn(&self, protocol: Option<&Protocol>) -> bool {
        let Some(Protocol::Http(http)) = protocol else {
            return false;
        };
        let most = http.limits.requests_per_connection;
        most.is_some_and(|most| self.client.served.get() >= most)
    }

    fn next_time_ns(&self) -> u64 {
        let idle_until_ns = match self.session.is_idle() {
            true => self.idle_until_ns.get(),
            false => u64::MAX,
        };
        self.session.next_time_ns().min(idle_until_ns)
    }

    fn heed(self: &Rc<Self>, notice: Notice) {
        let local = &self.client.local;
        let counters = local.counters();
        match notice {
            Notice::Request { id, end_stream } => {
                let mut scratch = local.scratch();
                self.session.with_head(|head| {
                    head.take_request(!end_stream, &mut scratch.request, &mut scratch.bytes);
                });
                let framing = match scratch.request.framing {
                    // An extended CONNECT.
                    _ if scratch.request.upgrade.is_some() => http2::Framing::Tunnel,
                    Framing::Chunked => http2::Framing::Chunked,
                    _ => http2::Framing::Length,
                };
                let stream = self.session.open(id, framing, end_stream);
                self.open(stream, Start::Head(scratch));
            }
            Notice::Refused {
                id,
                error,
                end_stream,
            } => {
                let stream = self.session.open(id, http2::Framing::Length, end_stream);
                self.open(stream, Start::Refused(error));
            }
            Notice::Reset => counters.http2_resets_received.add(1),
            // A client opens all streams, and may go on to ask for nothing.
            Notice::GoAway => {}
            Notice::Broken { error, was_open } => {
                counters.http2_stream_errors.add(1);
                // One that was open is recorded by its exchange; one too many can come again.
                if !was_open && error != MessageError::StreamsTooMany {
                    counters.refuse(Reason::BadRequest);
                    self.log(Reason::BadRequest, error.detail());
                }
            }
        }
    }

    fn open(self: &Rc<Self>, stream: Stream, start: Start) {
        let Client { local, socket, .. } = &self.client;
        if socket.is_distrusted() {
            stream.refuse();
            return;
        }
        let served = &self.client.served;
        served.set(served.get().saturating_add(1));
        let counters = local.counters();
        counters.http2_streams.add(1);
        counters.http2_streams_open.add(1);
        let deadline = self.deadlines.borrow_mut().pop();
        let on = ClientStream {
            connection: self.clone(),
            stream,
            deadline: deadline.unwrap_or_else(|| local.driver.deadline()),
            arrived_ns: socket.received_at_ns(),
        };
        workers::start(on, start);
        if !self.is_welcome() {
            self.session.drain();
        }
    }

    /// A stream is over.
    fn close(&self, deadline: Deadline) {
        let local = &self.client.local;
        local.counters().http2_streams_open.sub(1);
        self.deadlines.borrow_mut().push(deadline);
        let kept = timeouts(&self.client).keep_alive;
        let now_ns = local.driver.now_ns();
        self.idle_until_ns
            .set(now_ns.saturating_add(kept.as_nanos() as u64));
    }

    /// Tells the client what it did wrong, and ends the connection.
    async fn end(&self, error: ConnectionError) {
        let client = &self.client;
        let counters = client.local.counters();
        let reason = match error {
            ConnectionError::Flood(_) => {
                counters.http2_floods.add(1);
                Reason::Http2Flood
            }
            _ => Reason::Http2Protocol,
        };
        counters.refuse(reason);
        self.log(reason, error.detail());
        client.deadline.set_after(LINGER);
        let telling = std::future::poll_fn(|cx| self.session.poll_write(cx, &client.socket));
        if matches!(client.deadline.bound(pin!(telling)).await, Ok(Ok(()))) {
            linger(client).await;
        }
    }

    /// Logs what no exchange has recorded.
    fn log(&self, reason: Reason, detail: &'static str) {
        let client = &self.client;
        let plane = client.local.plane();
        let listener = plane.as_ref().and_then(|p| p.listener(*client.bind));
        if let Some(listener) = listener {
            super::log(client, listener, reason, detail, "HTTP/2");
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let counters = self.client.local.counters();
        counters.http2_connections_open.sub(1);
    }
}

/// Serves a request to the end of its stream.
pub(super) async fn serve_stream(on: ClientStream, start: Start) {
    request::serve_request(Caller::Http2(&on), start).await;
    let ClientStream {
        connection,
        stream,
        deadline,
        ..
    } = on;
    connection.close(deadline);
    drop(stream);
}
