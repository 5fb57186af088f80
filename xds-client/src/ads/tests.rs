//! The client against control planes that the test plays, over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod encrypted;
mod liveness;
mod misbehaving;
mod rest;

use std::{net::SocketAddr, pin::Pin};

use futures_lite::{Stream, stream};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    pb::{
        Request as GrpcRequest, Response as GrpcResponse, Streaming, async_trait,
        discovery::{
            self as pb,
            aggregated_discovery_service_server::{
                AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
            },
        },
    },
    subscription::{ResourceType, Variant},
    translate,
};

/// How long a test waits for what must come: generous, since the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

type Sent<M> = Pin<Box<dyn Stream<Item = Result<M, GrpcStatus>> + Send>>;

/// A stream that a client opened: its requests, and what is sent on it.
struct Opened<Q, A> {
    requests: Streaming<Q>,
    answers: mpsc::UnboundedSender<Result<A, GrpcStatus>>,
}

type Delta = Opened<pb::DeltaDiscoveryRequest, pb::DeltaDiscoveryResponse>;
type World = Opened<pb::DiscoveryRequest, pb::DiscoveryResponse>;

/// Hands each stream to the test.
struct Script {
    delta: mpsc::UnboundedSender<Delta>,
    world: mpsc::UnboundedSender<World>,
}

fn open<Q, A: Send + 'static>(
    request: GrpcRequest<Streaming<Q>>,
    to: &mpsc::UnboundedSender<Opened<Q, A>>,
) -> Result<GrpcResponse<Sent<A>>, GrpcStatus> {
    let (answers, taken) = mpsc::unbounded_channel();
    let requests = request.into_inner();
    let _ = to.send(Opened { requests, answers });
    let sent = stream::unfold(taken, |mut taken| async {
        taken.recv().await.map(|one| (one, taken))
    });
    Ok(GrpcResponse::new(Box::pin(sent)))
}

#[async_trait]
impl AggregatedDiscoveryService for Script {
    type StreamAggregatedResourcesStream = Sent<pb::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Sent<pb::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: GrpcRequest<Streaming<pb::DiscoveryRequest>>,
    ) -> Result<GrpcResponse<Self::StreamAggregatedResourcesStream>, GrpcStatus> {
        open(request, &self.world)
    }

    async fn delta_aggregated_resources(
        &self,
        request: GrpcRequest<Streaming<pb::DeltaDiscoveryRequest>>,
    ) -> Result<GrpcResponse<Self::DeltaAggregatedResourcesStream>, GrpcStatus> {
        open(request, &self.delta)
    }
}

/// A control plane.
struct Server {
    address: SocketAddr,
    delta: mpsc::UnboundedReceiver<Delta>,
    world: mpsc::UnboundedReceiver<World>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start() -> Server {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), None)
    }

    /// Takes connections of `listener`, encrypted if it has what to encrypt with.
    fn on(listener: TcpListener, tls: Option<TlsAcceptor>) -> Server {
        let address = listener.local_addr().unwrap();
        let (delta, taken_delta) = mpsc::unbounded_channel();
        let (world, taken_world) = mpsc::unbounded_channel();
        let service = AggregatedDiscoveryServiceServer::new(Script { delta, world });
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                let builder = http2::Builder::new(TokioExecutor::new());
                match tls.clone() {
                    None => drop(tokio::spawn(
                        builder.serve_connection(TokioIo::new(socket), service),
                    )),
                    Some(tls) => drop(tokio::spawn(async move {
                        let Ok(socket) = tls.accept(socket).await else {
                            return;
                        };
                        let _ = builder
                            .serve_connection(TokioIo::new(socket), service)
                            .await;
                    })),
                }
            }
        });
        Server {
            address,
            delta: taken_delta,
            world: taken_world,
            task,
        }
    }
}

impl<Q: 'static, A: 'static> Opened<Q, A> {
    async fn request(&mut self) -> Q {
        let next = self.requests.message();
        timeout(PATIENCE, next)
            .await
            .unwrap()
            .unwrap()
            .expect("the client ended the stream")
    }
}

fn settings(servers: &[SocketAddr], variant: Variant) -> Settings {
    Settings {
        servers: servers.iter().map(|one| one.to_string().into()).collect(),
        variant,
        rest: None,
        files: Vec::new(),
        node: Node {
            id: "gw-1".into(),
            cluster: "edge".into(),
            zone: "z1".into(),
        },
        token: Some("secret".into()),
        cache: None,
        inherited: None,
        times: Times {
            answer: Duration::from_millis(300),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(50),
            ..Times::default()
        },
    }
}

fn start(settings: Settings) -> Watched {
    start_with(settings, Local::default()).0
}

/// A client, and what tells it of its proxy.
fn start_with(settings: Settings, local: Local) -> (Watched, watch::Sender<Local>) {
    let (tell, local) = watch::channel(local);
    let (client, watched) = Client::new(settings, local);
    tokio::spawn(client.run());
    (watched, tell)
}

async fn part(watched: &mut Watched, is_right: impl Fn(&Part) -> bool) {
    let right = watched
        .parts
        .wait_for(|one| one.as_ref().is_some_and(|one| is_right(&one.part)));
    timeout(PATIENCE, right).await.unwrap().unwrap();
}

async fn shown(watched: &mut Watched, is_right: impl Fn(&Status) -> bool) -> Arc<Status> {
    let right = watched.status.wait_for(|one| is_right(one));
    timeout(PATIENCE, right).await.unwrap().unwrap().clone()
}

fn cluster(name: &str) -> pb::Any {
    let url = ResourceType::Cluster.url();
    let (_, value) = translate::from_json(&json!({ "@type": url, "name": name })).unwrap();
    pb::Any {
        type_url: url.into(),
        value,
    }
}

fn delta_clusters(nonce: &str, names: &[&str]) -> pb::DeltaDiscoveryResponse {
    let resource = |name: &&str| pb::Resource {
        version: "7".into(),
        resource: Some(cluster(name)),
        name: (*name).into(),
        ttl: None,
    };
    pb::DeltaDiscoveryResponse {
        resources: names.iter().map(resource).collect(),
        type_url: ResourceType::Cluster.url().into(),
        nonce: nonce.into(),
        removed_resources: Vec::new(),
    }
}

/// Goal: a delta stream says who asks once, is answered, brings a part, and comes back with what is held when it
/// breaks. Method: two streams, the first of which the server ends.
#[tokio::test]
async fn a_delta_stream_comes_back() {
    let mut server = Server::start().await;
    let mut watched = start(settings(&[server.address], Variant::Delta));
    let mut stream = server.delta.recv().await.unwrap();
    let first = stream.request().await;
    let node = first.node.unwrap();
    assert_eq!(
        (
            node.id.as_str(),
            node.cluster.as_str(),
            node.user_agent_name.as_str()
        ),
        ("gw-1", "edge", "tidegate")
    );
    assert_eq!(node.locality.unwrap().zone, "z1");
    assert_eq!(first.type_url, ResourceType::Cluster.url());
    let second = stream.request().await;
    assert_eq!(
        (second.node, second.type_url.as_str()),
        (None, ResourceType::Listener.url())
    );
    stream
        .answers
        .send(Ok(delta_clusters("n1", &["a"])))
        .unwrap();
    let answer = stream.request().await;
    assert_eq!(
        (answer.response_nonce.as_str(), answer.error_detail),
        ("n1", None)
    );
    part(&mut watched, |part| part.clusters.contains_key("a")).await;
    drop(stream);

    let mut stream = server.delta.recv().await.unwrap();
    let first = stream.request().await;
    assert!(first.node.is_some());
    assert_eq!(
        first.initial_resource_versions,
        [("a".into(), "7".into())].into()
    );
    let status = shown(&mut watched, |status| status.streams == 2).await;
    assert!(status.last_error.is_some());
    part(&mut watched, |part| part.clusters.contains_key("a")).await;
}

/// Goal: the state of the world is spoken, too, wrapped resources are taken, and a bad one is refused with a code and a
/// reason. Method: a response with one of each.
#[tokio::test]
async fn a_stream_of_the_state_of_the_world_is_spoken() {
    let mut server = Server::start().await;
    let mut watched = start(settings(&[server.address], Variant::StateOfTheWorld));
    let mut stream = server.world.recv().await.unwrap();
    assert!(stream.request().await.node.is_some());
    stream.request().await;
    let wrapper = pb::Resource {
        version: "1".into(),
        resource: Some(cluster("b")),
        name: "b".into(),
        ttl: None,
    };
    let bad = pb::Any {
        value: vec![0xff],
        ..cluster("c")
    };
    let response = pb::DiscoveryResponse {
        version_info: "v1".into(),
        resources: vec![cluster("a"), crate::pb::wrap(&wrapper), bad],
        type_url: ResourceType::Cluster.url().into(),
        nonce: "n1".into(),
    };
    stream.answers.send(Ok(response)).unwrap();
    let answer = stream.request().await;
    assert_eq!(
        (answer.version_info.as_str(), answer.response_nonce.as_str()),
        ("", "n1")
    );
    let detail = answer.error_detail.unwrap();
    assert_eq!(detail.code, 3);
    assert!(
        detail.message.starts_with("(no name): cannot be decoded"),
        "{}",
        detail.message
    );
    part(&mut watched, |part| part.clusters.len() == 2).await;
}

/// Goal: a server that says nothing is left for the next one, whether it takes the stream or only the connection.
/// Method: a listener that accepts nothing, a server that never answers, and one that does.
#[tokio::test]
async fn silent_servers_are_left() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut mute, mut server) = (Server::start().await, Server::start().await);
    let servers = [deaf.local_addr().unwrap(), mute.address, server.address];
    let mut watched = start(settings(&servers, Variant::Delta));
    let _held = mute.delta.recv().await.unwrap();
    let stream = server.delta.recv().await.unwrap();
    stream
        .answers
        .send(Ok(delta_clusters("n1", &["a"])))
        .unwrap();
    part(&mut watched, |part| part.clusters.contains_key("a")).await;
    let status = shown(&mut watched, |status| status.server.is_some()).await;
    assert_eq!(
        status.server.as_deref(),
        Some(server.address.to_string().as_str())
    );
    assert_eq!(
        status.last_error,
        Some(format!("{}: it says nothing", mute.address))
    );
}

/// Goal: a client ends with whoever wanted to know. Method: drop what watches, once while there is no server and once
/// on a stream.
#[tokio::test]
async fn a_client_ends_when_nobody_watches() {
    let mut server = Server::start().await;
    let (_, of_file) = watch::channel(Local::default());
    let (client, watched) = Client::new(settings(&[server.address], Variant::Delta), of_file);
    let running = tokio::spawn(client.run());
    let mut stream = server.delta.recv().await.unwrap();
    drop(watched);
    timeout(PATIENCE, running).await.unwrap().unwrap();
    while let Ok(Some(_)) = timeout(PATIENCE, stream.requests.message()).await.unwrap() {}
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (_, of_file) = watch::channel(Local::default());
    let (client, watched) = Client::new(settings(&[nobody], Variant::Delta), of_file);
    drop(watched);
    timeout(PATIENCE, client.run()).await.unwrap();
}

/// Goal: what was accepted outlives the process: the next one begins with it, says so to the control plane, and what
/// was removed or is broken does not come back. Method: a client that ends, its file, and one that starts without any
/// server, then with one.
#[tokio::test]
async fn the_last_good_is_kept_on_disk() {
    let folder = std::env::temp_dir().join(format!("tidegate-xds-cache-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("cache.binpb");
    let with_cache = |servers: &[SocketAddr]| Settings {
        cache: Some(path.clone()),
        ..settings(servers, Variant::Delta)
    };
    let mut server = Server::start().await;
    let mut watched = start(with_cache(&[server.address]));
    let stream = server.delta.recv().await.unwrap();
    stream
        .answers
        .send(Ok(delta_clusters("n1", &["a", "b"])))
        .unwrap();
    let mut gone = delta_clusters("n2", &[]);
    gone.removed_resources = vec!["b".into()];
    stream.answers.send(Ok(gone)).unwrap();
    part(&mut watched, |part| part.clusters.len() == 1).await;
    while std::fs::metadata(&path).is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(watched);

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut watched = start(with_cache(&[nobody.local_addr().unwrap(), server.address]));
    part(&mut watched, |part| {
        part.clusters.contains_key("a") && part.clusters.len() == 1
    })
    .await;
    let mut stream = server.delta.recv().await.unwrap();
    let first = stream.request().await;
    assert_eq!(
        first.initial_resource_versions,
        [("a".into(), "7".into())].into()
    );

    std::fs::write(&path, [0xff; 9]).unwrap();
    let watched = start(with_cache(&[nobody.local_addr().unwrap()]));
    assert!(watched.parts.borrow().is_none());
    std::fs::remove_dir_all(&folder).unwrap();
}
