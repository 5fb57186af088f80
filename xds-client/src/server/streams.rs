//! The streams of a control plane: reads requests and writes responses within limits, and leaves what is said on them
//! to a [`Session`] each. What a node is served, and what is remembered of it, is the business of the [`Plane`].

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_lite::{Stream, stream};
use tidegate_core::healing::report::Bucket;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    session::{Asked, Heard, Request, Response, Session},
    world::{Resource, World},
};
use crate::{
    listen::Token,
    pb::{
        self as grpc, Request as GrpcRequest, Response as GrpcResponse, Status, Streaming,
        discovery::{
            self as pb,
            aggregated_discovery_service_server::{
                AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
            },
        },
    },
    subscription::{ResourceType, Variant},
    translate::NAME_MAX,
};

/// Calls of the service go to paths that begin so.
pub(crate) const PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";

/// Bytes of a request. All names that may be asked for, with their versions, are some 5 MiB.
pub const MESSAGE_MAX: usize = 8 << 20;

/// Responses between a session and the socket. They are encoded when their turn comes: what waits costs nothing.
const WAITING_MAX: usize = 2;

/// What a peer may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Streams at a time; one more is refused. A node has one, and while it reconnects two.
    pub streams: usize,
    /// For the first request of a stream.
    pub hello: Duration,
    /// Requests that one stream may send at once; then it is read more slowly, and nothing is lost. A client has few
    /// kinds, and answers what it is sent.
    pub burst: u32,
    /// And per second in the long run.
    pub rate: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            streams: 11_000,
            hello: Duration::from_secs(5),
            burst: 500,
            rate: 100.0,
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Unique in the fleet.
    pub id: String,
    /// What it is a part of.
    pub cluster: String,
    /// The failure domain that it runs in.
    pub zone: String,
    /// What it is, in its own words: `envoy`, `tidegate 0.1.0`.
    pub agent: String,
}

/// Who decides what a node is served, and remembers what became of it.
pub trait Plane: Send + Sync + 'static {
    /// A node has opened a stream: what it is served, now and from now on.
    ///
    /// # Errors
    ///
    /// Why it is not let in.
    fn open(
        &self,
        stream: u64,
        node: Node,
        variant: Variant,
    ) -> Result<watch::Receiver<Arc<World>>, &'static str>;

    /// Something was said on the stream, or sent.
    fn noted(&self, stream: u64, session: &Session, heard: &Heard);

    /// The stream has ended.
    fn close(&self, stream: u64);
}

/// The service, for the port of a center.
#[derive(Clone)]
pub struct Ads(pub(crate) AggregatedDiscoveryServiceServer<Streams>);

/// Makes the service. Whoever does not know `token`, if there is one, gets no further than his first request.
pub fn service(token: Option<&str>, limits: Limits, plane: Arc<dyn Plane>) -> Ads {
    let streams = Streams {
        token: Token::new(token),
        limits,
        plane,
        opened: AtomicU64::new(0),
        open: Arc::default(),
    };
    Ads(AggregatedDiscoveryServiceServer::new(streams).max_decoding_message_size(MESSAGE_MAX))
}

/// The service: makes a task of each stream.
pub(crate) struct Streams {
    token: Token,
    limits: Limits,
    plane: Arc<dyn Plane>,
    /// Streams so far.
    opened: AtomicU64,
    /// Streams now.
    open: Arc<AtomicUsize>,
}

type Responses<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

#[grpc::async_trait]
impl AggregatedDiscoveryService for Streams {
    type StreamAggregatedResourcesStream = Responses<pb::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<pb::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: GrpcRequest<Streaming<pb::DiscoveryRequest>>,
    ) -> Result<GrpcResponse<Responses<pb::DiscoveryResponse>>, Status> {
        self.start(request, Variant::StateOfTheWorld, of_world, world_response)
    }

    async fn delta_aggregated_resources(
        &self,
        request: GrpcRequest<Streaming<pb::DeltaDiscoveryRequest>>,
    ) -> Result<GrpcResponse<Responses<pb::DeltaDiscoveryResponse>>, Status> {
        self.start(request, Variant::Delta, of_delta, delta_response)
    }
}

impl Streams {
    fn start<I: Send + 'static, O: 'static>(
        &self,
        request: GrpcRequest<Streaming<I>>,
        variant: Variant,
        read: fn(I) -> Said,
        write: fn(Response) -> O,
    ) -> Result<GrpcResponse<Responses<O>>, Status> {
        self.token.check(&request)?;
        let place = Place::take(&self.open, self.limits.streams)
            .ok_or_else(|| Status::resource_exhausted("too many streams are open"))?;
        let (out, waiting) = mpsc::channel(WAITING_MAX);
        let running = Running {
            stream: self.opened.fetch_add(1, Ordering::Relaxed),
            variant,
            requests: Box::new(request.into_inner()),
            read,
            limits: self.limits,
            plane: self.plane.clone(),
        };
        tokio::spawn(async move {
            let said_last = out.clone();
            tokio::select! {
                () = out.closed() => {}
                ended = running.run(&out) => if let Err(status) = ended {
                    // If it is full, its reader is no better served by a reason.
                    let _ = said_last.try_send(Err(status));
                }
            }
            drop(place);
        });
        let responses = stream::unfold(waiting, move |mut waiting| async move {
            let response: Result<Response, Status> = waiting.recv().await?;
            Some((response.map(write), waiting))
        });
        Ok(GrpcResponse::new(Box::pin(responses)))
    }
}

/// One of the streams that may be open.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>, max: usize) -> Option<Place> {
        let place = Place(open.clone());
        // A place that is too many gives itself back when it is dropped.
        (open.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request of either variant.
struct Said {
    node: Option<pb::Node>,
    url: String,
    nonce: String,
    error: Option<pb::Status>,
    asked: Asked,
}

/// Says that a stream has ended, however it came to its end.
struct Closing(u64, Arc<dyn Plane>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.1.close(self.0);
    }
}

/// One stream.
struct Running<I> {
    stream: u64,
    variant: Variant,
    requests: Box<Streaming<I>>,
    read: fn(I) -> Said,
    limits: Limits,
    plane: Arc<dyn Plane>,
}

impl<I> Running<I> {
    /// Until the client ends it, or something is wrong with what it says.
    async fn run(mut self, out: &mpsc::Sender<Result<Response, Status>>) -> Result<(), Status> {
        let hello = timeout(self.limits.hello, self.requests.message()).await;
        let hello = hello.map_err(|_| Status::deadline_exceeded("no first request in time"))??;
        let Some(hello) = hello.map(self.read) else {
            return Ok(());
        };
        let node = node(hello.node.clone())?;
        let (stream, plane) = (self.stream, self.plane.clone());
        let closing = Closing(stream, plane.clone());
        let opened = plane.open(stream, node, self.variant);
        let mut worlds = opened.map_err(Status::resource_exhausted)?;
        let world = worlds.borrow_and_update().clone();
        let mut session = Session::new(self.variant, world);
        self.take(&mut session, hello)?;
        let mut pace = Pace::new(self.limits);
        loop {
            tokio::select! {
                request = async { pace.wait().await; self.requests.message().await } => {
                    pace.may_read = false;
                    let Some(request) = request? else { break };
                    let said = (self.read)(request);
                    self.take(&mut session, said)?;
                }
                changed = worlds.changed() => {
                    changed.map_err(|_| Status::unavailable("stopping"))?;
                    session.publish(worlds.borrow_and_update().clone());
                }
                room = out.reserve(), if session.is_due() => {
                    let Ok(room) = room else { break };
                    match session.poll_response() {
                        Some(response) => room.send(Ok(response)),
                        None => plane.noted(stream, &session, &Heard::Nothing),
                    }
                }
            }
        }
        drop(closing);
        Ok(())
    }

    fn take(&self, session: &mut Session, said: Said) -> Result<(), Status> {
        let Some(kind) = ResourceType::of_url(&said.url) else {
            tracing::debug!("control plane: `{}` is asked for, and not served", said.url);
            return Ok(());
        };
        let request = Request {
            kind,
            nonce: said.nonce,
            error: said.error.map(|error| error.message),
            asked: said.asked,
        };
        let heard = session.receive(request);
        let heard = heard.map_err(|wrong| Status::resource_exhausted(wrong.to_string()))?;
        self.plane.noted(self.stream, session, &heard);
        Ok(())
    }
}

/// When the next request may be read.
struct Pace {
    bucket: Bucket,
    began: Instant,
    /// A token was taken for it.
    may_read: bool,
}

impl Pace {
    fn new(limits: Limits) -> Pace {
        Pace {
            bucket: Bucket::new(limits.burst, limits.rate),
            began: Instant::now(),
            may_read: false,
        }
    }

    /// Waits until it may. Nothing is lost when this is given up half way.
    async fn wait(&mut self) {
        while !self.may_read {
            match self.bucket.take(self.began.elapsed()) {
                Ok(()) => self.may_read = true,
                Err(at) => sleep_until(self.began + at).await,
            }
        }
    }
}

/// Who asks, if he says so in words that can be shown.
fn node(node: Option<pb::Node>) -> Result<Node, Status> {
    let node = node.unwrap_or_default();
    let node = Node {
        id: node.id,
        cluster: node.cluster,
        zone: node.locality.unwrap_or_default().zone,
        agent: format!("{} {}", node.user_agent_name, node.user_agent_version)
            .trim_end()
            .to_owned(),
    };
    if node.id.is_empty() {
        return Err(Status::invalid_argument(
            "the first request does not say who asks: set `node.id`",
        ));
    }
    let is_short = |text: &&String| text.len() <= NAME_MAX && !text.contains(char::is_control);
    let words = [&node.id, &node.cluster, &node.zone, &node.agent];
    if !words.iter().all(is_short) {
        return Err(Status::invalid_argument(format!(
            "a word of `node` is longer than {NAME_MAX} bytes, or no text"
        )));
    }
    Ok(node)
}

fn of_world(request: pb::DiscoveryRequest) -> Said {
    Said {
        node: request.node,
        url: request.type_url,
        nonce: request.response_nonce,
        error: request.error_detail,
        asked: Asked::Names(request.resource_names),
    }
}

fn of_delta(request: pb::DeltaDiscoveryRequest) -> Said {
    Said {
        node: request.node,
        url: request.type_url,
        nonce: request.response_nonce,
        error: request.error_detail,
        asked: Asked::Changes {
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            held: request.initial_resource_versions.into_iter().collect(),
        },
    }
}

fn world_response(response: Response) -> pb::DiscoveryResponse {
    let resources = response.resources.iter();
    pb::DiscoveryResponse {
        version_info: response.version.to_string(),
        resources: resources.map(|one| any(response.kind, one)).collect(),
        type_url: response.kind.url().into(),
        nonce: response.nonce,
    }
}

fn delta_response(response: Response) -> pb::DeltaDiscoveryResponse {
    let resources = response.resources.iter().map(|one| pb::Resource {
        version: one.version.to_string(),
        resource: Some(any(response.kind, one)),
        name: one.name.to_string(),
        ttl: None,
    });
    pb::DeltaDiscoveryResponse {
        resources: resources.collect(),
        type_url: response.kind.url().into(),
        nonce: response.nonce,
        removed_resources: response.removed.iter().map(ToString::to_string).collect(),
    }
}

fn any(kind: ResourceType, resource: &Resource) -> pb::Any {
    pb::Any {
        type_url: kind.url().into(),
        value: resource.bytes.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: no more streams are open than are allowed, and one that ends makes room for another. Method: as many as
    /// are allowed and one more.
    #[test]
    fn streams_are_bounded() {
        let open = Arc::default();
        let mut places: Vec<Place> = (0..3).map(|_| Place::take(&open, 3).unwrap()).collect();
        assert!(Place::take(&open, 3).is_none());
        places.pop();
        assert!(Place::take(&open, 3).is_some());
    }

    /// Goal: a node that cannot be shown is not let in. Method: words of the greatest length and a byte more, a line end,
    /// and no id.
    #[test]
    fn nodes_are_checked() {
        let of = |id: &str, cluster: &str| {
            node(Some(pb::Node {
                id: id.into(),
                cluster: cluster.into(),
                user_agent_name: "envoy".into(),
                ..pb::Node::default()
            }))
        };
        assert_eq!(of("a", "").unwrap().agent, "envoy");
        assert!(of(&"a".repeat(NAME_MAX), "").is_ok());
        assert!(of(&"a".repeat(NAME_MAX + 1), "").is_err());
        assert!(of("a", "b\n").is_err());
        assert!(of("", "b").is_err());
        assert!(node(None).is_err());
    }
}
