//! Connections in HTTP/2 to endpoints, each shared by the requests on it.
//!
//! A connection has a task, which moves its bytes ([`Session::poll_run`]) and owns it: where it stands in its
//! life is its link's to say, as for any other. A request takes a stream of a connection that takes more; if
//! there is none, one of those that wait makes a connection, and the others wait for that.

use std::{
    cell::{Cell, OnceCell, RefCell},
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tidegate_codecs::{
    http1::RequestKind,
    http2::{self as codec, FieldLine, KeepAlive, Options, RequestLine},
};
use tidegate_core::{encryption::link::Event, reason::Reason};

use super::{Connection, Destination, Endpoint, link::Link};
use crate::{
    executor,
    http2::{End, Notice, Session, Stream},
    local::Local,
    ring::Deadline,
};

/// gRPC's servers take a PING in five minutes, and end connections that send more.
const KEEP_ALIVE: KeepAlive = KeepAlive {
    interval: Duration::from_secs(300),
    timeout: Duration::from_secs(20),
};
/// How long an endpoint that broke the rules may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A connection.
pub(crate) struct Shared {
    session: Rc<Session>,
    link: Rc<Link>,
    endpoint: Rc<Endpoint>,
    local: Rc<Local>,
    /// Requests that were put on it.
    served: Cell<u32>,
    /// How many may be.
    served_max: Option<u32>,
    idle_timeout: Duration,
    idle_since: Cell<Duration>,
}

/// A request on a connection. Dropping it resets its stream, unless that has ended.
pub(crate) struct Call {
    /// `None` before the head was sent.
    stream: OnceCell<Stream>,
    shared: Rc<Shared>,
}

/// A connection that is being made, for those who wait for it.
#[derive(Default)]
pub(super) struct Dialling {
    /// `None` while it goes on; then, why it failed.
    outcome: Cell<Option<Result<(), Reason>>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Call {
    /// Takes a stream of a connection that takes more: of one that is as wanted, if there is one.
    pub(crate) fn reuse(to: Destination<'_>, endpoint: &Endpoint) -> Option<Call> {
        let wanted = endpoint.wanted();
        let all = endpoint.shared.borrow();
        let mut open = all.iter().filter(|shared| shared.takes_more());
        let best = open.clone().find(|shared| shared.link.make() == wanted);
        let shared = best.or_else(|| open.next())?.clone();
        drop(all);
        to.local.counters().upstream_reused.add(1);
        Some(Call::on(shared))
    }

    /// Takes a stream of a new connection, or of one that another request has made meanwhile.
    pub(crate) async fn connect(
        to: Destination<'_>,
        endpoint: &Rc<Endpoint>,
    ) -> Result<Call, Reason> {
        loop {
            let under_way = endpoint.dialling.borrow().clone();
            let Some(dialling) = under_way else {
                return Call::dial(to, endpoint).await;
            };
            std::future::poll_fn(|cx| dialling.poll_ended(cx)).await?;
            if let Some(call) = Call::reuse(to, endpoint) {
                return Ok(call);
            }
        }
    }

    async fn dial(to: Destination<'_>, endpoint: &Rc<Endpoint>) -> Result<Call, Reason> {
        let dialler = Dialler::new(to.local, endpoint);
        let made = Connection::dial(to, endpoint).await;
        dialler.end(made.as_ref().map(|_| ()).map_err(|reason| *reason));
        let shared = Shared::start(to.local, to.settings, made?);
        let call = Call::on(shared);
        // A guess at how many streams it allows would have those above refused.
        let deadline = to.local.driver.deadline();
        deadline.set_after(to.settings.config.connect_timeout);
        let settled = deadline.bound(pin!(call.shared.session.settled())).await;
        if settled.is_err() {
            dialler.end(Err(Reason::ConnectTimeout));
            call.shared.link.retire(to.local.now());
            return Err(Reason::ConnectTimeout);
        }
        // The others find it in its place.
        drop(dialler);
        Ok(call)
    }

    fn on(shared: Rc<Shared>) -> Call {
        shared.link.step(Event::Selected);
        shared.served.set(shared.served.get().saturating_add(1));
        Call {
            stream: OnceCell::new(),
            shared,
        }
    }

    /// Sends the head of the request.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::ConnectionRefused`] if the connection takes no more requests by now.
    pub(crate) fn ask<'f>(
        &self,
        line: RequestLine<'f>,
        fields: impl Iterator<Item = FieldLine<'f>>,
        end_stream: bool,
        kind: RequestKind,
    ) -> io::Result<()> {
        let asked = (self.shared.session).ask(line, fields, end_stream, kind);
        let stream = asked.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let _ = self.stream.set(stream);
        if self.shared.is_worn() {
            self.shared.link.retire(self.shared.local.now());
        }
        Ok(())
    }

    /// Whether the endpoint takes an extended CONNECT (RFC 8441).
    pub(crate) fn takes_tunnels(&self) -> bool {
        self.shared.session.takes_tunnels()
    }

    pub(super) fn stream(&self) -> Option<&Stream> {
        self.stream.get()
    }

    pub(super) fn link(&self) -> &Link {
        &self.shared.link
    }

    pub(super) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.shared.endpoint
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.idle_since.set(shared.local.now());
        // What became of the request is no matter of the link's: it serves on.
        shared.link.step(Event::Answered);
    }
}

impl Shared {
    /// Takes a connection that was made into use.
    pub(super) fn start(
        local: &Rc<Local>,
        settings: &tidegate_core::snapshot::Cluster,
        connection: Connection,
    ) -> Rc<Shared> {
        let options = Options {
            keep_alive: Some(KEEP_ALIVE),
            ..Options::default()
        };
        let codec = codec::Connection::client(&options, local.driver.now_ns());
        let shared = Rc::new(Shared {
            session: Session::new(&local.driver, codec),
            link: connection.socket.clone(),
            endpoint: connection.endpoint().clone(),
            local: local.clone(),
            served: Cell::new(0),
            served_max: settings.config.requests_per_connection,
            idle_timeout: settings.config.idle_timeout,
            idle_since: Cell::new(local.now()),
        });
        shared.link.set_pooled();
        shared.endpoint.shared.borrow_mut().push(shared.clone());
        executor::spawn(&local.driver, shared.clone().run(connection));
        shared
    }

    /// Whether another request may be put on it.
    fn takes_more(&self) -> bool {
        self.link.state().is_selectable() && self.session.streams_available() > 0 && !self.is_worn()
    }

    fn is_worn(&self) -> bool {
        self.served_max.is_some_and(|max| self.served.get() >= max)
    }

    /// Moves its bytes to its end; `connection` keeps it counted until then.
    async fn run(self: Rc<Self>, connection: Connection) {
        let deadline = self.local.driver.deadline();
        let end = loop {
            let running = std::future::poll_fn(|cx| self.poll(cx, &deadline));
            // When the deadline has passed, the next look finds what is due.
            if let Ok(end) = deadline.bound(pin!(running)).await {
                break end;
            }
        };
        let is_other = |shared: &Rc<Shared>| !Rc::ptr_eq(shared, &self);
        self.endpoint.shared.borrow_mut().retain(is_other);
        drop(connection);
        self.session.lose_all();
        if matches!(end, End::Broken(_)) {
            deadline.set_after(LAST_WORDS);
            let telling = std::future::poll_fn(|cx| self.session.poll_write(cx, &self.link));
            let _ = deadline.bound(pin!(telling)).await;
        }
    }

    fn poll(&self, cx: &Context<'_>, deadline: &Deadline) -> Poll<End> {
        let now = self.local.now();
        let idle_until = self.idle_since.get().saturating_add(self.idle_timeout);
        if self.session.is_idle() && now >= idle_until {
            self.link.retire(now);
        }
        if self.link.state().is_closed() {
            self.session.drain();
        }
        let ended = self.session.poll_run(cx, &self.link, |notice| {
            if notice == Notice::GoAway {
                self.link.retire(now);
                if self.link.state().is_closed() {
                    self.session.drain();
                }
            }
        });
        if ended.is_pending() {
            let idle_ns = match self.session.is_idle() && !self.link.state().is_closed() {
                true => idle_until.as_nanos() as u64,
                false => u64::MAX,
            };
            deadline.set(self.session.next_time_ns().min(idle_ns));
        }
        ended
    }
}

/// Makes a connection for all who wait.
struct Dialler<'a> {
    local: &'a Local,
    endpoint: &'a Endpoint,
    dialling: Rc<Dialling>,
}

impl<'a> Dialler<'a> {
    fn new(local: &'a Local, endpoint: &'a Endpoint) -> Dialler<'a> {
        let dialling = Rc::<Dialling>::default();
        *endpoint.dialling.borrow_mut() = Some(dialling.clone());
        Dialler {
            local,
            endpoint,
            dialling,
        }
    }

    fn end(&self, outcome: Result<(), Reason>) {
        self.dialling.outcome.set(Some(outcome));
    }
}

impl Drop for Dialler<'_> {
    fn drop(&mut self) {
        // Whoever gave up in the midst of it leaves it to another.
        let outcome = self.dialling.outcome.get();
        self.dialling.outcome.set(outcome.or(Some(Ok(()))));
        *self.endpoint.dialling.borrow_mut() = None;
        let waiting = self.dialling.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
        self.local.driver.mark_runnable();
    }
}

impl Dialling {
    fn poll_ended(&self, cx: &Context<'_>) -> Poll<Result<(), Reason>> {
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        self.waiting.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }
}
