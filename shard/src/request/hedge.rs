//! Tries beside the one that goes on, for requests whose answer is late. The first good answer is taken, and the others
//! are given up: their streams are reset, their connections closed.
//!
//! A try beside the first has nothing to do with the client: it sends what is kept of the request, which has to be all
//! of it, and passes nothing on. What came of it is taken over if it is the best there is.

use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tidegate_codecs::{
    http1::{RequestKind, ResponseHead},
    http2::request_fields,
};
use tidegate_core::{
    config::model::Hedge,
    id::EndpointId,
    snapshot::{Forward, Route},
};

use super::{
    ask,
    attempt::Attempt,
    caller::Caller,
    exchange::{Exchange, Pace},
    fate,
    head::{lost, read_head},
    replay::Replay,
    retry::Failure,
    upload::Upload,
    wanted::Wanted,
};
use crate::{
    ring::{Chunk, Deadline, Payload},
    upstream::{Admission, Destination, Leg, Ticket},
};

/// Tries of one request beside its first.
pub(super) struct Hedges<'a> {
    route: &'a Route,
    forward: &'a Forward,
    hedge: &'a Hedge,
    to: Destination<'a>,
    caller: Caller<'a>,
    kind: RequestKind,
    head: Vec<u8>,
    /// Of a call of gRPC.
    attempt: Option<Attempt>,
    /// The request's body, if it has one.
    replay: Option<Rc<Replay>>,
    wanted: Wanted<'a>,
    pace: Pace,
    /// When the next may begin.
    due: Deadline,
    /// Tries that the request had before, those beside another included.
    tries: u8,
    /// How many may still begin.
    left: u8,
    /// Endpoints that they have nothing to do with.
    avoid: Vec<EndpointId>,
    running: Vec<Pin<Box<dyn Future<Output = Beside> + 'a>>>,
}

/// A way to an endpoint, and the head of its answer.
type Asked = Result<(Leg, Chunk), Failure>;

/// What came of a try beside the first.
struct Beside {
    ticket: Ticket,
    asked: Asked,
    response: ResponseHead,
    upload: Upload,
    sent_ns: u64,
    first_byte_ns: u64,
}

/// Which try is over.
enum Over {
    First(Asked),
    Beside(Box<Beside>),
}

impl<'a> Exchange<'a> {
    /// Whether the request may be tried while a try goes on.
    pub(super) fn may_hedge(&self, hedge: &Hedge) -> bool {
        let request = &self.scratch.request;
        let method = request.method.of(&self.scratch.bytes);
        // RFC 9110, 9.2.1.
        let is_safe = matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE");
        (is_safe || hedge.unsafe_methods) && request.upgrade.is_none() && !request.expect_continue
    }

    /// What tries beside the next one need; `None` if there are to be none.
    pub(super) fn hedges(
        &mut self,
        route: &'a Route,
        forward: &'a Forward,
        to: Destination<'a>,
    ) -> Option<Hedges<'a>> {
        let hedge = forward
            .hedge
            .as_ref()
            .filter(|hedge| self.may_hedge(hedge))?;
        let left = hedge.times.saturating_sub(self.hedges);
        let replay = self.upload.replay().cloned();
        if left == 0 || self.upload.has_body() && replay.is_none() {
            return None;
        }
        let due = self.client.local.driver.deadline();
        due.set_after(hedge.delay);
        Some(Hedges {
            route,
            forward,
            hedge,
            to,
            caller: self.caller,
            kind: self.scratch.request.kind(),
            head: self.write_request_head(route, forward, true),
            attempt: self.attempt(),
            replay,
            wanted: self.wanted(forward),
            pace: self.pace(),
            due,
            tries: self.retries + self.hedges,
            left,
            avoid: Vec::new(),
            running: Vec::new(),
        })
    }

    /// Takes over what a try beside the first has brought.
    fn adopt(&mut self, to: Destination<'_>, beside: Beside, ticket: &mut Ticket) -> Asked {
        self.client.local.counters().hedges_won.add(1);
        self.endpoint = Some(beside.ticket.endpoint.address);
        beside.ticket.describe(to.settings, &mut self.choice);
        *ticket = beside.ticket;
        self.scratch.response = beside.response;
        self.upload
            .went_beside(self.caller, beside.upload.sent_bytes);
        self.times.sent_ns = beside.sent_ns;
        self.times.first_byte_ns = beside.first_byte_ns;
        beside.asked
    }
}

impl<'a> Hedges<'a> {
    /// Asks the endpoint of `ticket`, and others beside it. The first good answer, with the ticket that it came by; if
    /// there is none, what came of the first.
    pub(super) async fn race(
        mut self,
        exchange: &mut Exchange<'a>,
        ticket: &mut Ticket,
        tried: &mut Vec<EndpointId>,
        fresh: bool,
        admission: &mut Admission,
    ) -> Asked {
        self.avoid.extend_from_slice(tried);
        self.avoid.push(ticket.id);
        let left = self.left;
        let (route, forward, to) = (self.route, self.forward, self.to);
        let over = {
            let mut first = pin!(ask(exchange, route, forward, to, ticket, fresh));
            std::future::poll_fn(|cx| {
                if let Poll::Ready(asked) = first.as_mut().poll(cx) {
                    return Poll::Ready(Over::First(asked));
                }
                self.begin_due(cx, admission);
                self.poll_good(cx, tried).map(Over::Beside)
            })
            .await
        };
        exchange.hedges += left - self.left;
        let head = std::mem::take(&mut self.head);
        to.local.driver.keep_buffer(head);
        match over {
            Over::Beside(beside) => exchange.adopt(to, *beside, ticket),
            Over::First(asked) if self.is_final(exchange, &asked) => asked,
            Over::First(asked) => match self.last_good(tried).await {
                Some(beside) => {
                    exchange.judge(ticket, &asked);
                    exchange.adopt(to, *beside, ticket)
                }
                None => asked,
            },
        }
    }

    /// Whether what came of the first try is good, or nothing that another could better.
    fn is_final(&self, exchange: &Exchange<'a>, asked: &Asked) -> bool {
        match asked {
            Ok((leg, head)) => {
                let response = &exchange.scratch.response;
                self.wanted.refuse(response, leg, head).is_none()
            }
            Err(failure) => matches!(failure, Failure::Refused(_)),
        }
    }

    /// Begins the next, if it is time for it.
    fn begin_due(&mut self, cx: &mut Context<'_>, admission: &mut Admission) {
        while self.left > 0 && pin!(self.due.reached()).poll(cx).is_ready() {
            let Some(upload) = self.upload() else {
                // What the rest of it comes with looks here again.
                return;
            };
            match self.begin(upload, admission) {
                Some(()) => {
                    self.left -= 1;
                    self.due.set_after(self.hedge.delay);
                }
                None => return self.due.set(u64::MAX),
            }
        }
    }

    /// The request's body, once all of it has come.
    fn upload(&self) -> Option<Upload> {
        match &self.replay {
            None => Some(Upload::default()),
            Some(replay) => Upload::of_kept(replay),
        }
    }

    /// Begins a try on another endpoint, if there is one, within the budget.
    fn begin(&mut self, upload: Upload, admission: &mut Admission) -> Option<()> {
        let local = self.to.local;
        let now = local.now();
        if self.to.settings.endpoints.len() <= self.avoid.len() {
            return None;
        }
        let Destination {
            cluster,
            subset,
            hash,
            ..
        } = self.to;
        let ticket = cluster.pick(subset, hash, local.random(), &self.avoid, now)?;
        if self.avoid.contains(&ticket.id) {
            return None;
        }
        if !admission.may_retry(self.hedge.budget) {
            local.counters().retries_over_budget.add(1);
            return None;
        }
        local.counters().hedges.add(1);
        self.avoid.push(ticket.id);
        self.tries += 1;
        let mut head = self.head.clone();
        if let Some(attempt) = self.attempt {
            attempt.append_to(&mut head, self.tries, local.driver.now_ns());
        }
        let deadline = local.driver.deadline();
        let per_try = self.forward.retry.as_ref().and_then(|r| r.per_try_timeout);
        let until = per_try.map_or(Duration::MAX, |limit| now.saturating_add(limit));
        deadline.set((until.as_nanos() as u64).min(self.pace.until_ns));
        let beside = Beside {
            ticket,
            asked: Err(Failure::TryTimeout),
            response: ResponseHead::default(),
            upload,
            sent_ns: 0,
            first_byte_ns: 0,
        };
        let (to, caller, kind, wanted) = (self.to, self.caller, self.kind, self.wanted);
        let pace = self.pace.beside();
        self.running.push(Box::pin(async move {
            let mut beside = beside;
            let asking = beside.ask(to, caller, kind, head, pace);
            let asked = deadline.bound(pin!(asking)).await;
            if let Ok(asked) = asked {
                beside.asked = asked;
            }
            beside.judge(wanted, to);
            beside
        }));
        Some(())
    }

    /// The next good answer of those that are running. The endpoints of the others are added to `tried`.
    fn poll_good(
        &mut self,
        cx: &mut Context<'_>,
        tried: &mut Vec<EndpointId>,
    ) -> Poll<Box<Beside>> {
        let mut at = 0;
        while let Some(running) = self.running.get_mut(at) {
            let Poll::Ready(beside) = running.as_mut().poll(cx) else {
                at += 1;
                continue;
            };
            drop(self.running.swap_remove(at));
            if beside.is_good(self.wanted) {
                return Poll::Ready(Box::new(beside));
            }
            tried.push(beside.ticket.id);
        }
        Poll::Pending
    }

    /// The first good answer of those that are running, each of which ends in its time.
    async fn last_good(&mut self, tried: &mut Vec<EndpointId>) -> Option<Box<Beside>> {
        std::future::poll_fn(|cx| match self.poll_good(cx, tried) {
            Poll::Ready(beside) => Poll::Ready(Some(beside)),
            Poll::Pending if self.running.is_empty() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

impl Beside {
    /// Sends the request and reads the head of its answer.
    async fn ask(
        &mut self,
        to: Destination<'_>,
        caller: Caller<'_>,
        kind: RequestKind,
        head: Vec<u8>,
        pace: Pace,
    ) -> Asked {
        let endpoint = &self.ticket.endpoint;
        let leg = match Leg::reuse(to, endpoint) {
            Some(leg) => leg,
            None => Leg::connect(to, endpoint).await.map_err(Failure::Connect)?,
        };
        let driver = &to.local.driver;
        match &leg {
            Leg::Http1(_) => self.upload.begin(caller, Payload::head(head)),
            Leg::Http2(call) => {
                let (line, fields) = request_fields(&head, leg.scheme());
                let asked = call.ask(line, fields, !self.upload.has_body(), kind);
                asked.map_err(|e| lost(&e))?;
                self.upload.begin_in_frames(caller);
            }
        }
        self.sent_ns = driver.clock_ns();
        loop {
            let callee = leg.callee().ok_or(Failure::Reset)?;
            let reading = read_head(driver, callee, &mut self.response, kind);
            let mut chunk = (self.upload)
                .alongside(caller, callee, pace, pin!(reading))
                .await??;
            self.first_byte_ns = leg.received_at_ns().saturating_sub(self.sent_ns);
            match self.response.status {
                101 => return Err(Failure::Protocol("a 101 that nobody asked for")),
                // The first try's are passed on.
                100..=199 => {
                    chunk.advance(self.response.len);
                    callee.put_back(chunk);
                }
                _ => return Ok((leg, chunk)),
            }
        }
    }

    fn is_good(&self, wanted: Wanted<'_>) -> bool {
        let (leg, head) = match &self.asked {
            Ok((leg, head)) => (leg, head),
            Err(_) => return false,
        };
        wanted.refuse(&self.response, leg, head).is_none()
    }

    /// Judges the endpoint of one that is no good. A good one is judged as any answer is.
    fn judge(&mut self, wanted: Wanted<'_>, to: Destination<'_>) {
        if self.is_good(wanted) {
            return;
        }
        let asked = self.asked.as_ref().map(|(_, head)| &**head);
        let fate = fate::of(&self.response, asked);
        let latency = Duration::from_nanos(self.first_byte_ns);
        self.ticket.end(fate, latency, to.local.now());
    }
}
