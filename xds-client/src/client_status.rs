//! What a client holds, said by the protocol itself (CSDS): each resource with its version, whether it was acknowledged or
//! refused, and why. A service of gRPC, for whoever has a port; tools that ask Envoy and gRPC's clients ask it the same.
//!
//! Contents are those that came, if they are asked for. Secrets never are among them: no content of one is kept.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_lite::{Stream, StreamExt, stream};
use tokio::{sync::watch, time::Instant};

use crate::{
    ads::{Node, Status},
    graph::State,
    kept::Kept,
    pb::{
        self, Request, Response, Service, Status as GrpcStatus, Streaming, async_trait,
        status::{
            Any, ClientConfig, ClientResourceStatus, ClientStatusRequest, ClientStatusResponse,
            Locality, Node as GrpcNode, Timestamp, UpdateFailureState,
            client_config::GenericXdsConfig,
            client_status_discovery_service_server::{
                ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
            },
        },
    },
    resources::ResourceStatus,
    subscription::ResourceType,
};

/// The path of the service, up to its methods.
pub const PATH: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService";

/// Where all that can be said of one client comes from.
#[derive(Clone, Debug)]
pub struct Source {
    pub(crate) node: Node,
    pub(crate) status: watch::Receiver<Arc<Status>>,
    pub(crate) kept: Kept,
    /// Zero of the clock that the resources go by.
    pub(crate) started: Instant,
}

impl Source {
    fn config(&self, with_contents: bool, now_unix_s: u64) -> ClientConfig {
        let started = Duration::from_secs(now_unix_s).saturating_sub(self.started.elapsed());
        let status = self.status.borrow().clone();
        let resources = status.types.iter().flat_map(|of_type| {
            let one = |one| self.resource(of_type.resource_type, one, with_contents, started);
            of_type.resources.iter().map(one)
        });
        ClientConfig {
            node: Some(GrpcNode {
                id: self.node.id.clone(),
                cluster: self.node.cluster.clone(),
                locality: Some(Locality {
                    zone: self.node.zone.clone(),
                }),
                user_agent_name: "tidegate".into(),
                user_agent_version: env!("CARGO_PKG_VERSION").into(),
            }),
            generic_xds_configs: resources.collect(),
        }
    }

    fn resource(
        &self,
        resource_type: ResourceType,
        one: &ResourceStatus,
        with_contents: bool,
        started: Duration,
    ) -> GenericXdsConfig {
        let time = |at: Duration| timestamp(started + at);
        let content = with_contents
            .then(|| self.kept.content(resource_type, &one.name))
            .flatten();
        GenericXdsConfig {
            type_url: resource_type.url().into(),
            name: one.name.clone(),
            version_info: one.version.clone(),
            xds_config: content.map(|(type_url, value)| Any { type_url, value }),
            last_updated: one.taken.map(time),
            client_status: status(one).into(),
            error_state: one.error.as_ref().map(|error| UpdateFailureState {
                last_update_attempt: one.refused.as_ref().map(|(_, at)| time(*at)),
                details: error.clone(),
                version_info: one
                    .refused
                    .as_ref()
                    .map_or(String::new(), |(version, _)| version.clone()),
            }),
        }
    }
}

fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
        nanos: since_epoch.subsec_nanos() as i32,
    }
}

/// A version that is held is acknowledged, unless a newer one was refused; whether it is in use yet does not matter.
fn status(one: &ResourceStatus) -> ClientResourceStatus {
    match (one.state, &one.error) {
        (_, Some(_)) => ClientResourceStatus::Nacked,
        (Some(State::Missing), None) => ClientResourceStatus::DoesNotExist,
        (Some(State::Active | State::Warming), None) => ClientResourceStatus::Acked,
        (None, None) => ClientResourceStatus::Requested,
    }
}

/// Finds the client, if there is one, and says what time it is, in seconds of Unix.
type Find = Arc<dyn Fn() -> (Option<Source>, u64) + Send + Sync>;

/// The service.
#[derive(Clone)]
pub struct ClientStatus(ClientStatusDiscoveryServiceServer<Csds>);

struct Csds(Find);

impl ClientStatus {
    /// Of the client that `find` finds at each request, with the time then, in seconds of Unix.
    pub fn new(find: impl Fn() -> (Option<Source>, u64) + Send + Sync + 'static) -> ClientStatus {
        ClientStatus(ClientStatusDiscoveryServiceServer::new(Csds(Arc::new(
            find,
        ))))
    }
}

fn answer(find: &Find, request: &ClientStatusRequest) -> Result<ClientStatusResponse, GrpcStatus> {
    if !request.node_matchers.is_empty() {
        let why = "a client knows of itself alone: ask without `node_matchers`";
        return Err(GrpcStatus::invalid_argument(why));
    }
    let (source, now_unix_s) = find();
    let with_contents = !request.exclude_resource_contents;
    let config = source.map(|source| source.config(with_contents, now_unix_s));
    Ok(ClientStatusResponse {
        config: config.into_iter().collect(),
    })
}

#[async_trait]
impl ClientStatusDiscoveryService for Csds {
    type StreamClientStatusStream =
        Pin<Box<dyn Stream<Item = Result<ClientStatusResponse, GrpcStatus>> + Send>>;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, GrpcStatus> {
        let find = Arc::clone(&self.0);
        let answers = request
            .into_inner()
            .map(move |request| answer(&find, &request?));
        // The first refusal ends the stream.
        let answers = stream::unfold(Some(answers), |answers| async {
            let mut answers = answers?;
            let next = answers.next().await?;
            let rest = next.is_ok().then_some(answers);
            Some((next, rest))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, GrpcStatus> {
        answer(&self.0, request.get_ref()).map(Response::new)
    }
}

impl<B> Service<hyper::Request<B>> for ClientStatus
where
    B: pb::HttpBody + Send + 'static,
    B::Error: Into<pb::StdError> + Send + 'static,
{
    type Response = hyper::Response<pb::Body>;
    type Error = std::convert::Infallible;
    type Future = pb::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: hyper::Request<B>) -> Self::Future {
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: each state of a resource is the protocol's. Method: all that there are.
    #[test]
    fn states_are_the_protocols() {
        let one = |state, error: Option<&str>| ResourceStatus {
            name: "a".into(),
            version: String::new(),
            state,
            error: error.map(str::to_owned),
            warnings: Vec::new(),
            taken: None,
            refused: None,
        };
        for (state, error, expected) in [
            (None, None, ClientResourceStatus::Requested),
            (None, Some("bad"), ClientResourceStatus::Nacked),
            (Some(State::Active), None, ClientResourceStatus::Acked),
            (Some(State::Warming), None, ClientResourceStatus::Acked),
            (
                Some(State::Active),
                Some("bad"),
                ClientResourceStatus::Nacked,
            ),
            (
                Some(State::Missing),
                None,
                ClientResourceStatus::DoesNotExist,
            ),
        ] {
            assert_eq!(status(&one(state, error)), expected);
        }
    }
}
