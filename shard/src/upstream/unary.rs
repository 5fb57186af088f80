//! A question of our own, by gRPC: one message to an endpoint of a cluster, and one back.

use std::{io, pin::pin, rc::Rc, time::Duration};

use tidegate_codecs::{
    grpc,
    http1::{BodyTracker, RequestKind, ResponseHead},
    http2::{FieldLine, RequestLine},
    limits::Http1Limits,
};
use tidegate_core::{healing::counter::Fault, reason::Reason};

use super::{Call, Destination, Endpoint, Fate};
use crate::http2::Stream;

/// Tries: a second one where the first has surely not been heard.
const TRIES: usize = 2;

/// What is asked.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    /// The method's path.
    pub(crate) path: &'a str,
    /// The message with its prefix.
    pub(crate) message: &'a [u8],
    /// For the answer, making a connection included.
    pub(crate) timeout: Duration,
    /// Bytes that the answer may have.
    pub(crate) answer_bytes_max: usize,
}

/// Asks one endpoint of the cluster, which speaks HTTP/2. The message that came back, with its prefix; `None` if none
/// came in time, which the endpoint is judged by as by any request.
pub(crate) async fn ask(to: Destination<'_>, question: Question<'_>) -> Option<Vec<u8>> {
    let _admission = to.admit()?;
    let local = to.local;
    let began = local.now();
    let deadline = local.driver.deadline();
    deadline.set_after(question.timeout);
    let mut tried = Vec::new();
    for _ in 0..TRIES {
        let mut ticket = to
            .cluster
            .pick(to.subset, None, local.random(), &tried, began)?;
        let asked = deadline
            .bound(pin!(ask_endpoint(to, &ticket.endpoint, question)))
            .await;
        let asked = asked.unwrap_or(Err(Fate::Failed(Fault::Deadline)));
        let fate = asked.as_ref().map_or_else(|fate| *fate, |_| Fate::Answered);
        let now = local.now();
        ticket.end(fate, now.saturating_sub(began), now);
        match asked {
            Ok(answer) => return Some(answer),
            Err(Fate::NotConnected | Fate::Unknown) => tried.push(ticket.id),
            Err(_) => return None,
        }
    }
    None
}

async fn ask_endpoint(
    to: Destination<'_>,
    endpoint: &Rc<Endpoint>,
    question: Question<'_>,
) -> Result<Vec<u8>, Fate> {
    let call = match Call::reuse(to, endpoint) {
        Some(call) => call,
        None => Call::connect(to, endpoint).await.map_err(not_connected)?,
    };
    let line = RequestLine {
        method: b"POST",
        scheme: call.link().scheme().as_bytes(),
        authority: to.settings.name.as_bytes(),
        path: question.path.as_bytes(),
        protocol: None,
    };
    let fields =
        grpc::REQUEST_FIELDS.map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes()));
    call.ask(line, fields.into_iter(), false, RequestKind::Other)
        .map_err(|e| lost(&e))?;
    let stream = call.stream().ok_or(Fate::Unknown)?;
    stream
        .send_all(question.message)
        .await
        .map_err(|e| lost(&e))?;
    let head = read_head(stream).await.map_err(|e| lost(&e))?;
    // The status of gRPC stands here if there is nothing but it, and never is a success then.
    if head.status != 200 {
        return Err(Fate::Failed(Fault::Status));
    }
    read_message(stream, &head, question.answer_bytes_max).await
}

async fn read_head(stream: &Stream) -> io::Result<ResponseHead> {
    let mut head = ResponseHead::default();
    loop {
        std::future::poll_fn(|cx| stream.poll_head(cx, &mut head)).await?;
        if head.status >= 200 {
            return Ok(head);
        }
    }
}

/// The body, which of a call that went well is one message.
async fn read_message(
    stream: &Stream,
    head: &ResponseHead,
    bytes_max: usize,
) -> Result<Vec<u8>, Fate> {
    let broken = Fate::Failed(Fault::Protocol);
    let mut tracker = BodyTracker::new(head.framing, &Http1Limits::default());
    let mut message = Vec::new();
    while !tracker.is_done() {
        let received = std::future::poll_fn(|cx| stream.poll_receive(cx)).await;
        let mut chunk = received.map_err(|e| lost(&e))?.ok_or(broken)?;
        while !chunk.is_empty() && !tracker.is_done() {
            let piece = tracker.next_payload(&chunk).map_err(|_| broken)?;
            let payload = chunk.get(piece.payload).unwrap_or_default();
            if message.len() + payload.len() > bytes_max {
                return Err(broken);
            }
            message.extend_from_slice(payload);
            stream.consume(payload.len());
            chunk.advance(piece.consumed);
        }
    }
    match message.is_empty() {
        true => Err(Fate::Failed(Fault::Status)),
        false => Ok(message),
    }
}

fn not_connected(reason: Reason) -> Fate {
    match reason {
        Reason::CircuitConnections => Fate::Unknown,
        _ => Fate::NotConnected,
    }
}

/// What a stream that failed says of the endpoint.
fn lost(error: &io::Error) -> Fate {
    match error.kind() {
        // It did nothing about the question.
        io::ErrorKind::ConnectionRefused => Fate::Unknown,
        _ => Fate::Failed(Fault::Reset),
    }
}
