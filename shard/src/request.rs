//! The spine: the life of one HTTP request, top to bottom.
//!
//! [`serve_request`] reads like the list of its steps: read the head → route → faults → rate limits → steer → limit →
//! copy → pick an endpoint → check out a connection → exchange → answer → record. Every decision is taken here; the
//! helpers compute and return.
//!
//! * `caller.rs`: the client's side: a connection in HTTP/1, or a stream of one in HTTP/2.
//! * `exchange.rs`: what is known of the request so far.
//! * `fault.rs`: what is delayed or refused on purpose.
//! * `allowance.rs`: what the request needs before it goes on: tokens, and a slot.
//! * `steer.rs`: where the request goes.
//! * `head.rs`: reading heads, which may arrive in pieces, and writing them for the next hop.
//! * `upload.rs`: the request on its way to the endpoint.
//! * `answer.rs`: the answer on its way to the client; `download.rs`: its body.
//! * `mirror.rs`: copies of the request for other clusters.
//! * `tunnel.rs`: requests for another protocol, and the relay behind them.
//! * `reply.rs`: answers of our own.
//! * `retry.rs`: what failed, and whether it is worth another try; `wanted.rs`: whether an answer is;
//!   `replay.rs`: the body for it; `attempt.rs`: what a call says of it.
//! * `call.rs`: calls of gRPC by method.
//! * `hedge.rs`: tries beside the one that goes on.
//! * `fate.rs`: what a try says of its endpoint.

mod allowance;
mod answer;
mod attempt;
mod call;
mod caller;
mod download;
mod exchange;
mod fate;
mod fault;
mod head;
mod hedge;
mod mirror;
mod replay;
mod reply;
mod retry;
mod steer;
mod tunnel;
mod upload;
mod wanted;

use std::rc::Rc;

use tidegate_core::{
    config::model::UpstreamProtocol,
    reason::Reason,
    snapshot::{Action, Forward, Route},
};

pub(crate) use caller::{Caller, Start};
pub(crate) use exchange::{Exchange, Refusal, Scratch};
pub(crate) use reply::refuse_unread;

use crate::{
    census,
    local::Plane,
    ring::Chunk,
    upstream::{Destination, Leg, Ticket},
};
use retry::Failure;

/// What becomes of the client's connection after a request. A stream is over in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It serves the next request.
    KeepAlive,
    /// It is closed; the request was read to its end.
    Close,
    /// It is closed, but what the client still sends is read for a while.
    Linger,
    /// It is reset: the client must not take a broken answer for a complete one.
    Abort,
}

/// Serves one request.
pub(crate) async fn serve_request(caller: Caller<'_>, start: Start) -> Next {
    let Some(plane) = caller.client().local.plane() else {
        return Next::Close;
    };
    let Some(mut exchange) = Exchange::begin(caller, &plane) else {
        return caller.turn_away().await;
    };
    let next = match run(&mut exchange, &plane, start).await {
        Ok(next) => next,
        Err(refusal) => exchange.refuse(refusal).await,
    };
    exchange.send_copies(&plane);
    exchange.record();
    next
}

async fn run<'a>(
    exchange: &mut Exchange<'a>,
    plane: &'a Rc<Plane>,
    start: Start,
) -> Result<Next, Refusal> {
    exchange.read_head(start).await?;
    census::request_began(exchange);
    let route = exchange.find_route()?;
    exchange.inject_fault(route).await?;
    exchange.count_call(route);
    exchange.rate_limit(route)?;
    exchange.ask_rate_limit_service(plane, route).await?;
    let forward = match &route.action {
        Action::Forward(forward) => forward,
        Action::Redirect(redirect) => return exchange.redirect(route, redirect).await,
        Action::Respond(respond) => return exchange.respond(route, respond).await,
    };
    let to = exchange.steer(plane, forward)?;
    exchange.limit(to, forward)?;
    let mut admission = to.admit().ok_or(Reason::CircuitRequests)?;
    exchange.start_clock(forward);
    exchange.mirror(plane, route, forward);
    exchange.keep_body(plane, forward, to);
    let mut tried = Vec::new();
    // A pooled connection that the endpoint closes at this very moment costs one free try on a new one.
    let mut fresh = false;
    loop {
        let mut ticket = exchange.pick(to, &tried)?;
        let asked = match exchange.hedges(route, forward, to) {
            None => ask(exchange, route, forward, to, &mut ticket, fresh).await,
            // Boxed, since it would double what every task has room for.
            Some(hedges) => {
                let (ticket, tried) = (&mut ticket, &mut tried);
                let race = hedges.race(exchange, ticket, tried, fresh, &mut admission);
                Box::pin(race).await
            }
        };
        exchange.judge(&mut ticket, &asked);
        match asked {
            Ok((leg, head)) => match exchange.unwanted(forward, &leg, &head) {
                Some(failure) if exchange.may_retry(forward, &failure, &mut admission) => {}
                _ => return exchange.answer(route, to, leg, head).await,
            },
            Err(Failure::Stale) => {
                fresh = true;
                continue;
            }
            Err(failure) if exchange.may_retry(forward, &failure, &mut admission) => {}
            Err(failure) => {
                return Err(failure.into_refusal().with_fault(ticket.endpoint.fault()));
            }
        }
        tried.push(ticket.id);
        drop(ticket);
        exchange.back_off(forward).await?;
        fresh = false;
    }
}

/// One try: a way to the endpoint, the request, the head of the answer.
async fn ask<'a>(
    exchange: &mut Exchange<'a>,
    route: &'a Route,
    forward: &'a Forward,
    to: Destination<'_>,
    ticket: &mut Ticket,
    fresh: bool,
) -> Result<(Leg, Chunk), Failure> {
    // What refused a request in HTTP/2 takes no more, so that it is not found again.
    let reused = match to.settings.config.protocol {
        UpstreamProtocol::Http1 if fresh => None,
        _ => Leg::reuse(to, &ticket.endpoint),
    };
    let was_open = reused.is_some() && !fresh;
    let mut leg = match reused {
        Some(leg) => leg,
        None => exchange.connect(to, &ticket.endpoint).await?,
    };
    if exchange.is_bodiless() {
        ticket.wait();
    }
    match exchange.send_and_read_head(route, forward, &mut leg).await {
        Ok(head) => Ok((leg, head)),
        // Nothing came back on a connection that was open before: it was closed under our hands.
        Err(Failure::Reset) if was_open && exchange.is_repeatable() => Err(Failure::Stale),
        // The endpoint says that it did nothing, so the method is not asked.
        Err(Failure::NotProcessed) if !fresh && exchange.has_whole_body() => Err(Failure::Stale),
        Err(Failure::NotProcessed) => Err(Failure::Reset),
        Err(failure) => Err(failure),
    }
}
