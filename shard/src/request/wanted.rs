//! Whether an answer is one to pass on, or the route would rather have another. Asked before anything of it was sent.

use tidegate_codecs::{
    grpc::{self, Pushback},
    http1::{BodyTracker, ResponseHead, trailer_fields},
    limits::Http1Limits,
};
use tidegate_core::config::model::{Retry, RetryOn};

use super::retry::Failure;
use crate::upstream::Leg;

/// Looks at answers as a route wants it, for one request.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    on: Option<&'a RetryOn>,
    /// The request is a call of gRPC.
    is_call: bool,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(retry: Option<&'a Retry>, is_call: bool) -> Wanted<'a> {
        Wanted {
            on: retry.map(|retry| &retry.on),
            is_call,
        }
    }

    /// What is wrong with the answer whose head is parsed as `response`, and which begins with `chunk`.
    pub(super) fn refuse(
        self,
        response: &ResponseHead,
        leg: &Leg,
        chunk: &[u8],
    ) -> Option<Failure> {
        let on = self.on?;
        if on.statuses.contains(&response.status) {
            return Some(Failure::Status(None));
        }
        if on.grpc_statuses.is_empty() || !self.is_call {
            return None;
        }
        if let Some(status) = response.field(chunk, grpc::STATUS) {
            let pushback = response.field(chunk, grpc::PUSHBACK);
            return refuse_call(on, status, pushback);
        }
        // A head alone is passed on at once, since a client may wait for it; but what is here is looked at.
        let behind = chunk.get(response.len..).unwrap_or_default();
        let waiting = match behind {
            [] => leg.callee()?.try_receive(),
            _ => None,
        };
        let trailers = early_trailers(response, waiting.as_deref().unwrap_or(behind));
        let failure = trailers.and_then(|trailers| {
            let field = |name: &str| {
                let mut fields = trailer_fields(trailers);
                let found = fields.find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
                found.map(|(_, value)| value)
            };
            refuse_call(on, field(grpc::STATUS)?, field(grpc::PUSHBACK))
        });
        if let (Some(waiting), Some(callee)) = (waiting, leg.callee()) {
            callee.put_back(waiting);
        }
        failure
    }

    /// Whether `failure` is told to the client as a status of gRPC that the route names. The operator has named it, so
    /// the method is not asked.
    pub(super) fn refuses_as_call(self, failure: &Failure) -> bool {
        let Some(on) = self.on.filter(|_| self.is_call) else {
            return false;
        };
        let refusal = failure.into_refusal();
        let status = refusal.reason.grpc_status(refusal.status);
        on.grpc_statuses
            .iter()
            .any(|named| u16::from(*named) == status)
    }
}

fn refuse_call(on: &RetryOn, status: &[u8], pushback: Option<&[u8]>) -> Option<Failure> {
    let status = grpc::Status::parse(status).number();
    let is_named = on
        .grpc_statuses
        .iter()
        .any(|named| usize::from(*named) == status);
    is_named.then(|| Failure::Status(pushback.map(Pushback::parse)))
}

/// The trailers of an answer of which `body` has come, if there is nothing but them.
fn early_trailers<'b>(response: &ResponseHead, body: &'b [u8]) -> Option<&'b [u8]> {
    let mut tracker = BodyTracker::new(response.framing, &Http1Limits::default());
    let piece = tracker.next_payload(body).ok()?;
    let is_all = tracker.is_done() && piece.payload.is_empty();
    body.get(piece.trailers).filter(|_| is_all)
}

#[cfg(test)]
mod tests {
    use tidegate_codecs::http1::Framing;

    use super::*;

    /// Goal: trailers are found before any payload, and no later. Method: bodies in chunks, whole and not.
    #[test]
    fn trailers_that_come_first() {
        let response = ResponseHead {
            framing: Framing::Chunked,
            ..ResponseHead::default()
        };
        let whole: &[u8] = b"0\r\ngrpc-status: 14\r\n\r\n";
        assert_eq!(
            early_trailers(&response, whole),
            Some(&b"grpc-status: 14\r\n\r\n"[..])
        );
        for len in 0..whole.len() {
            let part = whole.get(..len).unwrap_or_default();
            assert_eq!(early_trailers(&response, part), None, "{len}");
        }
        let behind = b"1\r\nx\r\n0\r\ngrpc-status: 14\r\n\r\n";
        assert_eq!(early_trailers(&response, behind), None);
    }
}
