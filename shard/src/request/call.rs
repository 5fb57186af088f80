//! Calls of gRPC, counted by method on routes that ask for it.

use tidegate_codecs::grpc::{self, Status};
use tidegate_core::{
    snapshot::Route,
    stats::{FinishedCall, GRPC_STATUSES},
};

use super::exchange::Exchange;

const _: () = assert!(GRPC_STATUSES == Status::COUNT);

impl Exchange<'_> {
    /// Counts messages from here on, if the request is a call and the route counts those.
    pub(super) fn count_call(&mut self, route: &Route) {
        if route.methods.is_some() && self.is_grpc() {
            self.upload.count_messages();
        }
    }

    /// Counts a call that is over.
    pub(super) fn record_call(&self) {
        let methods = self.route.and_then(|route| route.methods.as_ref());
        let Some(methods) = methods.and_then(|methods| methods.get(self.client.local.id)) else {
            return;
        };
        let (head, bytes) = self.head();
        let path = head.path.of(bytes);
        if !self.is_grpc() || grpc::method_of(path).is_none() {
            return;
        }
        let status = self.call_status();
        let call = FinishedCall {
            status: status.number(),
            request_messages: self.upload.messages(),
            response_messages: self.response_messages,
            latency_ns: self.times.total_ns(),
            // A client can make up any name: what counts is that a service has answered to it.
            is_known: self.refusal.is_none() && status != Status::UNIMPLEMENTED,
        };
        methods.record(path, call);
    }

    /// What the call came to, also if nobody was told.
    fn call_status(&self) -> Status {
        let ours = self.refusal.map(|refusal| {
            let number = refusal.reason.grpc_status(refusal.status).to_string();
            Status::parse(number.as_bytes())
        });
        self.grpc_status.or(ours).unwrap_or(Status::UNKNOWN)
    }
}
