//! What is known of a request so far, and the steps that only compute.

use std::{io, net::SocketAddr, pin::pin, rc::Rc, task::Poll, time::Duration};

use tidegate_codecs::{
    grpc,
    http1::{Framing, RequestHead, ResponseHead},
    limits::Http1Limits,
};
use tidegate_core::{
    id::EndpointId,
    limiter::orca,
    message::{Choice, LimitRecord, RateLimitRecord},
    reason::Reason,
    snapshot::{self, Forward, Http, Listener, Protocol, Route},
    stats::Phase,
    steering::{RequestView, is_ambiguous_path, sticky_hash},
};

use super::{
    caller::Caller, fate, fault::Active, mirror::Copies, retry::Failure, steer::Steered,
    upload::Upload,
};
use crate::{
    access_log, census,
    downstream::Client,
    limit::Pass,
    local::Plane,
    ring::{Chunk, is_over_budget},
    upstream::{Destination, Endpoint, Leg, Ticket},
};

/// A scratch whose buffers grew beyond this is freed rather than kept.
const SCRATCH_BYTES_MAX: usize = 16 << 10;

/// The parts of an exchange that allocate, kept from request to request.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(super) response: ResponseHead,
    /// The request head as received: the spans of `request` point into it. A copy, so that the provided
    /// buffer goes back at once: it must not be held while an endpoint thinks.
    pub(crate) bytes: Vec<u8>,
    /// The rewritten target.
    pub(super) target: Vec<u8>,
}

impl Scratch {
    /// Whether it stayed small enough to keep.
    pub(crate) fn is_worth_keeping(&self) -> bool {
        self.bytes.capacity() <= SCRATCH_BYTES_MAX && self.target.capacity() <= SCRATCH_BYTES_MAX
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) status: u16,
    /// More about the reason, in words; may be empty.
    pub(crate) detail: &'static str,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal {
            reason,
            status: reason.status(),
            detail: "",
        }
    }
}

impl Refusal {
    /// What a failed receive or send on the client's connection means.
    pub(super) fn of_client(error: &io::Error) -> Refusal {
        Refusal::of_transfer(error, Reason::ClientGone)
    }

    /// What a failed receive or send on the endpoint's connection means.
    pub(super) fn of_upstream(error: &io::Error) -> Refusal {
        Refusal::of_transfer(error, Reason::UpstreamReset)
    }

    fn of_transfer(error: &io::Error, lost: Reason) -> Refusal {
        match is_over_budget(error) {
            true => Reason::BufferBudget.into(),
            false => lost.into(),
        }
    }

    /// Tells what a TLS handshake with an endpoint failed of, if it is that.
    pub(super) fn with_fault(self, fault: &'static str) -> Refusal {
        match self.reason {
            Reason::UpstreamTls | Reason::SecretMissing => Refusal::with_detail(self.reason, fault),
            _ => self,
        }
    }

    pub(super) fn with_detail(reason: Reason, detail: &'static str) -> Refusal {
        Refusal {
            detail,
            ..Refusal::from(reason)
        }
    }
}

/// Where the time of a request went, on the driver's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// The last bytes of the head arrived.
    pub(crate) began_ns: u64,
    /// From here on what passes is ours: the head's arrival, or the end of a pause that was not.
    pub(super) ready_ns: u64,
    /// The request was given to the kernel.
    pub(super) sent_ns: u64,
    /// Making connections.
    pub(crate) connect_ns: u64,
    /// From `sent_ns` to the arrival of the answer's head.
    pub(crate) first_byte_ns: u64,
    /// What this process added: from the head's arrival until the request was given to the kernel
    /// (without making connections, earlier tries and the pauses between), and from the arrival of the
    /// answer's head until it was given to the kernel.
    pub(crate) added_ns: u64,
    /// The last bytes of the answer were given to the kernel.
    pub(super) ended_ns: u64,
}

impl Times {
    pub(crate) fn total_ns(&self) -> u64 {
        self.ended_ns.saturating_sub(self.began_ns)
    }
}

/// How long the parts of an exchange may take.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// When it ends whatever moves, on the driver's clock.
    pub(super) until_ns: u64,
    /// For any movement; `None` if there is another that sees to it.
    pub(super) idle: Option<Duration>,
}

impl Pace {
    /// Something moved.
    pub(super) fn moved(&self, caller: Caller<'_>) {
        let Some(idle) = self.idle else {
            return;
        };
        let now_ns = caller.client().local.driver.now_ns();
        let idle_until = now_ns.saturating_add(idle.as_nanos() as u64);
        caller.deadline().set(idle_until.min(self.until_ns));
    }

    /// Of what goes on beside it.
    pub(super) fn beside(self) -> Pace {
        Pace { idle: None, ..self }
    }
}

/// One request and its answer.
pub(crate) struct Exchange<'a> {
    pub(crate) caller: Caller<'a>,
    /// The caller's connection.
    pub(crate) client: &'a Client,
    pub(crate) listener: &'a Listener,
    pub(super) http: &'a Http,
    pub(super) scratch: Box<Scratch>,
    pub(super) upload: Upload,
    pub(crate) times: Times,
    pub(crate) route: Option<&'a Route>,
    pub(crate) cluster: Option<&'a snapshot::Cluster>,
    pub(crate) endpoint: Option<SocketAddr>,
    /// How it came to be chosen.
    pub(crate) choice: Choice,
    /// Sent to the client; 0 before.
    pub(crate) status: u16,
    pub(crate) refusal: Option<Refusal>,
    /// The limit that refused it.
    pub(crate) over_limit: Option<Box<LimitRecord>>,
    /// The rate limit that refused it.
    pub(crate) over_rate: Option<Box<RateLimitRecord>>,
    /// It carries a hop mark that nobody who is trusted has set.
    pub(super) distrusts_mark: bool,
    /// What the steering program decided; `None` if its cluster is no place.
    pub(super) steered: Option<Steered<'a>>,
    /// What came of a call of gRPC.
    pub(crate) grpc_status: Option<grpc::Status>,
    /// Messages of gRPC that the client was sent, if they are counted.
    pub(super) response_messages: u64,
    /// The key of a WebSocket handshake that was made up for the endpoint.
    pub(super) tunnel_key: Option<String>,
    /// Its slot of the interface, where that is limited.
    pub(super) pass: Option<Pass>,
    /// Who gets copies of it.
    pub(super) copies: Copies,
    /// The fault that was injected into it.
    pub(super) fault: Option<Active<'a>>,
    /// How long it was delayed on purpose.
    pub(crate) fault_delay_ns: u64,
    /// What a call of gRPC is told instead of what its reason says.
    pub(super) grpc_abort: Option<u16>,
    pub(crate) retries: u8,
    /// Tries beside another.
    pub(crate) hedges: u8,
    /// The pause that the endpoint wants before the next try.
    pub(super) pushback: Option<Duration>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    /// When the whole exchange must have ended.
    pub(super) until_ns: u64,
    /// When this try must have brought the head of an answer.
    pub(super) try_until_ns: u64,
    /// Bytes of the final answer are on their way: it can no longer be replaced.
    pub(super) answering: bool,
}

impl<'a> Exchange<'a> {
    /// An exchange with `caller`; `None` if its listener is gone.
    pub(super) fn begin(caller: Caller<'a>, plane: &'a Rc<Plane>) -> Option<Exchange<'a>> {
        let client = caller.client();
        let listener = plane.listener(*client.bind)?;
        let Protocol::Http(http) = &listener.protocol else {
            return None;
        };
        client.local.counters().requests_active.add(1);
        Some(Exchange {
            caller,
            client,
            listener,
            http,
            scratch: client.local.scratch(),
            upload: Upload::default(),
            times: Times::default(),
            route: None,
            cluster: None,
            endpoint: None,
            choice: Choice::default(),
            status: 0,
            refusal: None,
            over_limit: None,
            over_rate: None,
            distrusts_mark: false,
            steered: None,
            grpc_status: None,
            response_messages: 0,
            tunnel_key: None,
            pass: None,
            copies: Copies::default(),
            fault: None,
            fault_delay_ns: 0,
            grpc_abort: None,
            retries: 0,
            hedges: 0,
            pushback: None,
            received_bytes: 0,
            sent_bytes: 0,
            until_ns: u64::MAX,
            try_until_ns: u64::MAX,
            answering: false,
        })
    }

    /// The parsed head, and the bytes its spans point into.
    pub(crate) fn head(&self) -> (&RequestHead, &[u8]) {
        (&self.scratch.request, &self.scratch.bytes)
    }

    /// The first route that matches.
    pub(super) fn find_route(&mut self) -> Result<&'a Route, Refusal> {
        let (head, bytes) = (&self.scratch.request, &self.scratch.bytes);
        let id = self
            .client
            .local
            .with_route_scratch(|scratch| self.http.table.find(scratch, &View { head, bytes }));
        let Some(route) = id.and_then(|id| self.http.routes.get(id.index())) else {
            return Err(no_route(head.path.of(bytes)));
        };
        self.route = Some(route);
        if let Some(counters) = route.counters.get(self.client.local.id) {
            counters.requests.add(1);
        }
        Ok(route)
    }

    /// From here on the route's time-out counts, and the client's, if it is gRPC and has one.
    pub(super) fn start_clock(&mut self, forward: &Forward) {
        let asked = match self.is_grpc() {
            true => self.field(grpc::TIMEOUT).and_then(grpc::parse_timeout),
            false => None,
        };
        let timeout = forward.timeout.into_iter().chain(asked).min();
        if let Some(timeout) = timeout {
            self.until_ns = self
                .times
                .began_ns
                .saturating_add(self.fault_delay_ns)
                .saturating_add(timeout.as_nanos() as u64);
        }
    }

    /// An endpoint for the next try.
    pub(super) fn pick(
        &mut self,
        to: Destination<'_>,
        tried: &[EndpointId],
    ) -> Result<Ticket, Refusal> {
        let local = &self.client.local;
        let (subset, hash) = (to.subset, to.hash);
        let ticket = (to.cluster).pick(subset, hash, local.random(), tried, local.now());
        let ticket = ticket.ok_or(Reason::NoEndpoint)?;
        self.endpoint = Some(ticket.endpoint.address);
        ticket.describe(to.settings, &mut self.choice);
        Ok(ticket)
    }

    /// Makes a connection, within the time that is left.
    pub(super) async fn connect(
        &mut self,
        to: Destination<'_>,
        endpoint: &Rc<Endpoint>,
    ) -> Result<Leg, Failure> {
        let driver = &self.client.local.driver;
        let began_ns = driver.clock_ns();
        let deadline = self.caller.deadline();
        deadline.set(self.until_ns);
        let caller = self.caller;
        // Boxed, since it is rare and would double what every task has room for.
        let mut connecting = Box::pin(Leg::connect(to, endpoint));
        let connecting = std::future::poll_fn(|cx| {
            // In HTTP/1 it cannot be told from a client that sends no more.
            if caller.is_http2() && caller.poll_failed(cx).is_ready() {
                let gone = Failure::Refused(Reason::ClientGone.into());
                return Poll::Ready(Err(gone));
            }
            connecting.as_mut().poll(cx).map_err(Failure::Connect)
        });
        let made = deadline.bound(pin!(connecting)).await;
        let took_ns = driver.clock_ns().saturating_sub(began_ns);
        self.times.connect_ns += took_ns;
        self.times.ready_ns += took_ns;
        match made {
            Ok(made) => made,
            Err(_) => Err(Failure::Refused(Reason::RequestTimeout.into())),
        }
    }

    /// Tells balancer and counters what came of a try.
    pub(super) fn judge(&self, ticket: &mut Ticket, asked: &Result<(Leg, Chunk), Failure>) {
        if let (Ok((_, head)), Some(pass)) = (asked, &self.pass) {
            let response = &self.scratch.response;
            pass.answered(response.status, || response.field(head, orca::FIELD));
        }
        let fate = fate::of(
            &self.scratch.response,
            asked.as_ref().map(|(_, head)| &**head),
        );
        let latency = Duration::from_nanos(self.times.first_byte_ns);
        ticket.end(fate, latency, self.client.local.now());
    }

    /// The value of the request's first field of this name (lower case).
    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        let (head, bytes) = self.head();
        head.field(bytes, name)
    }

    /// Whether the client speaks gRPC, whose refusals are trailers.
    pub(super) fn is_grpc(&self) -> bool {
        self.caller.is_http2() && self.field("content-type").is_some_and(is_grpc)
    }

    /// Whether nothing but a head is sent.
    pub(super) fn is_bodiless(&self) -> bool {
        self.scratch.request.framing == Framing::None
    }

    /// Limits and grammar for the codec, as the listener has them.
    pub(super) fn codec_limits(&self) -> Http1Limits {
        let limits = &self.http.limits;
        Http1Limits {
            head_bytes_max: limits.header_list as usize,
            fields_max: usize::from(limits.header_fields),
            target_bytes_max: limits.target as usize,
            trailer_bytes_max: limits.header_list as usize,
            ..Http1Limits::default()
        }
    }

    pub(super) fn pace(&self) -> Pace {
        Pace {
            until_ns: self.until_ns,
            idle: Some(self.http.timeouts.idle),
        }
    }

    /// Counts and logs the finished exchange.
    pub(super) fn record(mut self) {
        let local = &self.client.local;
        let counters = local.counters();
        if self.times.ended_ns == 0 {
            self.times.ended_ns = local.driver.clock_ns();
        }
        counters.requests_active.sub(1);
        counters.requests.add(1);
        if self.status > 0 {
            counters.response(self.status);
        }
        if let Some(refusal) = self.refusal {
            counters.refuse(refusal.reason);
        }
        counters.downstream_received_bytes.add(self.received_bytes);
        counters.downstream_sent_bytes.add(self.sent_bytes);
        self.client
            .count_exchange(self.received_bytes, self.sent_bytes);
        census::request_ended(&self);
        counters.phase(Phase::Total, self.times.total_ns());
        if self.times.sent_ns > 0 {
            counters.phase(Phase::Connect, self.times.connect_ns);
            counters.phase(Phase::FirstByte, self.times.first_byte_ns);
            counters.phase(Phase::Added, self.times.added_ns);
        }
        if (self.status >= 500 || self.grpc_status.is_some() || self.choice.is_fallback)
            && let Some(route) = self.route.and_then(|r| r.counters.get(local.id))
        {
            route.failed_5xx.add(u64::from(self.status >= 500));
            (route.subset_fallbacks).add(u64::from(self.choice.is_fallback));
            if let Some(status) = self.grpc_status {
                route.grpc_calls.add(1);
                route.grpc_failed.add(u64::from(status != grpc::Status::OK));
            }
        }
        let is_answered = self.status > 0 && self.status < 500;
        self.judge_steered(
            !is_answered || self.grpc_status.is_some_and(grpc::Status::is_of_server),
        );
        self.record_call();
        if local.logs_access() {
            local.log_access(access_log::record(&self));
        }
        local.keep_scratch(self.scratch);
    }

    /// The hash of what the route is sticky by, if the request carries it.
    pub(super) fn hash(&self, forward: &Forward) -> Option<u64> {
        let on = forward.hash.as_ref()?;
        let view = View {
            head: &self.scratch.request,
            bytes: &self.scratch.bytes,
        };
        sticky_hash(on, &view, self.client.peer().map(|peer| peer.ip()))
    }
}

/// A parsed head as routing sees it.
pub(super) struct View<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) bytes: &'a [u8],
}

impl RequestView for View<'_> {
    fn method(&self) -> &[u8] {
        self.head.method.of(self.bytes)
    }

    fn host(&self) -> &[u8] {
        self.head.host.of(self.bytes)
    }

    fn path(&self) -> &[u8] {
        self.head.path.of(self.bytes)
    }

    fn query(&self) -> Option<&[u8]> {
        self.head.query.map(|query| query.of(self.bytes))
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.head.field(self.bytes, name)
    }
}

/// A path whose meaning depends on who reads it takes no route, which the client should be told.
fn no_route(path: &[u8]) -> Refusal {
    if is_ambiguous_path(path) {
        return Refusal::with_detail(Reason::BadRequest, "a dot segment in the path");
    }
    Reason::NoRoute.into()
}

/// `application/grpc`, with or without a coding of messages; not gRPC-Web.
fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: gRPC is told from gRPC-Web, whose clients read statuses. Method: content types.
    #[test]
    fn grpc_content_types() {
        for yes in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x",
        ] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in [
            "application/grpc-web",
            "application/grpcx",
            "application/json",
            "",
        ] {
            assert!(!is_grpc(no.as_bytes()), "{no}");
        }
    }
}
