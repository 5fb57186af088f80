//! What came of a try, as far as its endpoint is judged by it.

use tidegate_codecs::{
    grpc,
    http1::{ResponseHead, Version},
};
use tidegate_core::{healing::counter::Fault, reason::Reason};

use super::{reply::REASON_HEADER, retry::Failure};
use crate::upstream::Fate;

/// The fate of a try that brought this head of an answer, which is parsed as `response`; or failed.
pub(super) fn of(response: &ResponseHead, asked: Result<&[u8], &Failure>) -> Fate {
    match asked {
        Ok(head) => of_answer(response, head),
        Err(Failure::Reset) => Fate::Failed(Fault::Reset),
        Err(Failure::Protocol(_)) => Fate::Failed(Fault::Protocol),
        Err(Failure::TryTimeout) => Fate::Failed(Fault::Deadline),
        Err(Failure::Refused(refusal)) if refusal.reason == Reason::RequestTimeout => {
            Fate::Failed(Fault::Deadline)
        }
        Err(Failure::Connect(Reason::CircuitConnections)) => Fate::Unknown,
        Err(Failure::Connect(_)) => Fate::NotConnected,
        Err(Failure::Status(_) | Failure::Stale | Failure::NotProcessed | Failure::Refused(_)) => {
            Fate::Unknown
        }
    }
}

fn of_answer(response: &ResponseHead, head: &[u8]) -> Fate {
    match response.status {
        200 if response.version == Version::Http2 && is_failed_call(response, head) => {
            Fate::Failed(Fault::Status)
        }
        0..500 => Fate::Answered,
        503 if is_overload(response.field(head, REASON_HEADER)) => Fate::Failed(Fault::Overloaded),
        502..=504 => Fate::Failed(Fault::Gateway),
        _ => Fate::Failed(Fault::Status),
    }
}

/// Whether an answer that is nothing but a status of gRPC says that the server has failed, and not the request (H2).
fn is_failed_call(response: &ResponseHead, head: &[u8]) -> bool {
    let status = response.field(head, grpc::STATUS);
    status.is_some_and(|status| grpc::Status::parse(status).is_of_server())
}

/// Whether a refusal by a proxy in front of the endpoint is for overload (H13).
fn is_overload(reason: Option<&[u8]>) -> bool {
    reason == Some(Reason::Overloaded.word().as_bytes())
}
