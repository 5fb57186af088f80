//! Servers that misbehave.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// A cluster that is refused.
fn bad(nonce: &str) -> pb::DeltaDiscoveryResponse {
    let mut response = delta_clusters(nonce, &["a"]);
    let url = ResourceType::Cluster.url();
    let bad = json!({ "@type": url, "name": "a", "connect_timeout": "-1s" });
    let (_, value) = translate::from_json(&bad).unwrap();
    response.resources[0].resource.as_mut().unwrap().value = value;
    response
}

/// Goal: a server that answers each NACK with the same bad resource is read with pauses, the last good version stays in
/// use, and what is good behind it is taken. Method: such a server for half a second; then a good version.
#[tokio::test]
async fn a_loop_of_refusals_is_slowed_down() {
    let mut server = Server::start().await;
    let mut watched = start(settings(&[server.address], Variant::Delta));
    let mut stream = server.delta.recv().await.unwrap();
    stream
        .answers
        .send(Ok(delta_clusters("good", &["a"])))
        .unwrap();
    part(&mut watched, |part| part.clusters.contains_key("a")).await;
    stream.answers.send(Ok(bad("bad"))).unwrap();
    let mut refusals = 0;
    let looping = async {
        loop {
            if stream.request().await.error_detail.is_some() {
                refusals += 1;
                stream.answers.send(Ok(bad("bad"))).unwrap();
            }
        }
    };
    let ended: Result<(), _> = timeout(Duration::from_millis(500), looping).await;
    assert!(ended.is_err(), "it goes on for ever");
    // Pauses of 10, 20, 40 ms and so on: six of them are longer than that.
    let most = FREE + 6;
    assert!((FREE..=most).contains(&refusals), "{refusals}");
    let status = watched.status.borrow().clone();
    assert_eq!(status.types[0].resources[0].version, "7");
    let newest = watched.parts.borrow().clone().unwrap();
    assert!(newest.part.clusters.contains_key("a"));
    stream
        .answers
        .send(Ok(delta_clusters("better", &["a", "b"])))
        .unwrap();
    part(&mut watched, |part| part.clusters.contains_key("b")).await;
}

const FREE: u32 = super::pace::REFUSED_FREE;

/// Passes bytes on to `server`, each connection until it is frozen: open, and silent.
async fn through(server: SocketAddr, is_frozen: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(server).await.unwrap();
            let (client_in, client_out) = client.into_split();
            let (server_in, server_out) = server.into_split();
            tokio::spawn(pass(client_in, server_out, is_frozen.clone()));
            tokio::spawn(pass(server_in, client_out, is_frozen.clone()));
        }
    });
    address
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    is_frozen: Arc<AtomicBool>,
) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if is_frozen.load(Ordering::Relaxed) {
            // Both ends stay open.
            std::future::pending::<()>().await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Goal: a connection that is half open (no end, no byte) is found by its pings, what was accepted stays in use, and a
/// new one is made. Method: a relay that stops passing bytes on.
#[tokio::test]
async fn a_half_open_connection_is_left() {
    let mut server = Server::start().await;
    let is_frozen = Arc::new(AtomicBool::new(false));
    let address = through(server.address, is_frozen.clone()).await;
    let mut settings = settings(&[address], Variant::Delta);
    settings.times.keep_alive = Duration::from_millis(50);
    let mut watched = start(settings);
    let stream = server.delta.recv().await.unwrap();
    stream
        .answers
        .send(Ok(delta_clusters("n1", &["a"])))
        .unwrap();
    part(&mut watched, |part| part.clusters.contains_key("a")).await;
    is_frozen.store(true, Ordering::Relaxed);
    shown(&mut watched, |status| status.last_error.is_some()).await;
    let held = watched.parts.borrow().clone().unwrap();
    assert!(held.part.clusters.contains_key("a"));
    is_frozen.store(false, Ordering::Relaxed);
    // Those that were tried meanwhile are frozen, too.
    let mut stream = timeout(PATIENCE, server.delta.recv())
        .await
        .unwrap()
        .unwrap();
    stream.request().await;
    shown(&mut watched, |status| status.server.is_some()).await;
}

/// Goal: responses that nobody asked for, of types that nobody knows, and nonces of another's change nothing. Method:
/// each of them, then a good one.
#[tokio::test]
async fn nonsense_changes_nothing() {
    let mut server = Server::start().await;
    let mut watched = start(settings(&[server.address], Variant::Delta));
    let mut stream = server.delta.recv().await.unwrap();
    let mut foreign = delta_clusters("x", &["a"]);
    foreign.type_url = "type.googleapis.com/no.such.Type".into();
    let mut mixed = delta_clusters("m", &["a"]);
    mixed.type_url = ResourceType::Listener.url().into();
    let mut unasked = delta_clusters("u", &["a"]);
    unasked.type_url = ResourceType::Endpoint.url().into();
    let twice = delta_clusters("t", &["a", "a"]);
    let nameless = delta_clusters("n", &[""]);
    for response in [foreign, mixed, unasked, nameless] {
        stream.answers.send(Ok(response)).unwrap();
    }
    stream.answers.send(Ok(twice)).unwrap();
    part(&mut watched, |part| part.clusters.len() == 1).await;
    let mut refused = Vec::new();
    while refused.last().map(String::as_str) != Some("t") {
        let request = stream.request().await;
        if request.error_detail.is_some() {
            refused.push(request.response_nonce);
        }
    }
    assert_eq!(refused, ["m", "u", "n", "t"]);
    let status = watched.status.borrow().clone();
    assert_eq!((status.streams, &status.last_error), (1, &None));
}
