//! Servers that come, go, and forget.

use super::*;

fn short(servers: &[SocketAddr], times: Times) -> Settings {
    Settings {
        times,
        ..settings(servers, Variant::Delta)
    }
}

fn times() -> Times {
    settings(&[], Variant::Delta).times
}

fn failing(clusters: &[&str]) -> Local {
    let names = clusters.iter().map(|name| Arc::from(*name));
    Local {
        failing: Arc::new(names.collect()),
        ..Local::default()
    }
}

/// A port that nobody listens on.
async fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Goal: a backup is taken when the first server fails, and left when that one is back. Method: a port where nobody
/// listens, then somebody does.
#[tokio::test]
async fn the_preferred_server_is_returned_to() {
    let (first, mut backup) = (free().await, Server::start().await);
    let quick = Times {
        return_after: Duration::from_millis(20),
        ..times()
    };
    let mut watched = start(short(&[first, backup.address], quick));
    let stream = backup.delta.recv().await.unwrap();
    stream
        .answers
        .send(Ok(delta_clusters("n1", &["a"])))
        .unwrap();
    part(&mut watched, |part| part.clusters.contains_key("a")).await;

    let mut first = Server::on(TcpListener::bind(first).await.unwrap(), None);
    let mut stream = timeout(PATIENCE, first.delta.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        stream.request().await.initial_resource_versions,
        [("a".into(), "7".into())].into(),
        "what is held is said to it"
    );
    let to = first.address.to_string();
    shown(&mut watched, |status| {
        status.server.as_deref() == Some(&*to)
    })
    .await;
    part(&mut watched, |part| part.clusters.contains_key("a")).await;
}

/// Goal: a server that lives and has forgotten its stream is found by what fails: the endpoints are asked for again, and
/// if nobody answers the stream is made anew, by one that has to be answered. Method: a server that falls silent; a
/// cluster that fails.
#[tokio::test]
async fn what_fails_is_asked_for_again() {
    let mut server = Server::start().await;
    let (mut watched, tell) = start_with(short(&[server.address], times()), Local::default());
    let mut stream = server.delta.recv().await.unwrap();
    let mut clusters = delta_clusters("n1", &["a"]);
    let source = json!({ "eds_config": { "ads": {} } });
    let url = ResourceType::Cluster.url();
    let eds = json!({ "@type": url, "name": "a", "type": "EDS", "eds_cluster_config": source });
    let (_, value) = translate::from_json(&eds).unwrap();
    clusters.resources[0].resource.as_mut().unwrap().value = value;
    stream.answers.send(Ok(clusters)).unwrap();
    let asks = |request: &pb::DeltaDiscoveryRequest| {
        request.type_url == ResourceType::Endpoint.url()
            && request.resource_names_subscribe == ["a"]
    };
    while !asks(&stream.request().await) {}
    let url = ResourceType::Endpoint.url();
    let none = json!({ "@type": url, "cluster_name": "a" });
    let (_, value) = translate::from_json(&none).unwrap();
    let endpoints = pb::DeltaDiscoveryResponse {
        resources: vec![pb::Resource {
            version: "1".into(),
            resource: Some(pb::Any {
                type_url: url.into(),
                value,
            }),
            name: "a".into(),
            ttl: None,
        }],
        type_url: url.into(),
        nonce: "e1".into(),
        removed_resources: Vec::new(),
    };
    stream.answers.send(Ok(endpoints)).unwrap();
    part(&mut watched, |part| part.clusters.contains_key("a")).await;

    tell.send_replace(failing(&["a", "of the file"]));
    while !asks(&stream.request().await) {}
    // It says nothing.
    let mut stream = timeout(PATIENCE, server.delta.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        stream.request().await.initial_resource_versions,
        [("a".into(), String::new())].into()
    );
    let status = shown(&mut watched, |status| status.streams == 2).await;
    assert!(
        status
            .last_error
            .as_ref()
            .unwrap()
            .ends_with("it says nothing")
    );
    part(&mut watched, |part| part.clusters.contains_key("a")).await;
    // The same failure is not news.
    tell.send_replace(failing(&["a"]));
    stream
        .answers
        .send(Ok(delta_clusters("n2", &["a"])))
        .unwrap();
    while stream.request().await.response_nonce != "n2" {}
    let another = timeout(2 * times().answer, server.delta.recv()).await;
    assert!(another.is_err(), "a server that answered is kept");
}

/// Goal: a stream without news is made anew from time to time, and that is no error. Method: a short time.
#[tokio::test]
async fn a_silent_stream_is_made_anew() {
    let mut server = Server::start().await;
    let brief = Times {
        silence: Duration::from_millis(50),
        ..times()
    };
    let mut watched = start(short(&[server.address], brief));
    let mut streams = Vec::new();
    for _ in 0..2 {
        let stream = timeout(PATIENCE, server.delta.recv())
            .await
            .unwrap()
            .unwrap();
        stream
            .answers
            .send(Ok(delta_clusters("n1", &["a"])))
            .unwrap();
        part(&mut watched, |part| part.clusters.contains_key("a")).await;
        streams.push(stream);
    }
    assert_eq!(watched.status.borrow().last_error, None);
}

/// Goal: a server that has nothing to add is left alone. Method: a stream that comes back to one that stays silent,
/// for twice as long as an answer may take; what is held covers all that is asked for.
#[tokio::test]
async fn a_server_without_news_is_kept() {
    let mut server = Server::start().await;
    let mut watched = start(short(&[server.address], times()));
    let stream = server.delta.recv().await.unwrap();
    for kind in [ResourceType::Cluster, ResourceType::Listener] {
        let all = match kind {
            ResourceType::Cluster => delta_clusters("n1", &["a"]),
            _ => delta_listeners("n2", &["l"]),
        };
        stream.answers.send(Ok(all)).unwrap();
    }
    part(&mut watched, |part| !part.listeners.is_empty()).await;
    drop(stream);
    let _silent = server.delta.recv().await.unwrap();
    let another = timeout(2 * times().answer, server.delta.recv()).await;
    assert!(another.is_err(), "{:?}", watched.status.borrow().last_error);
}

/// Byte relays to cluster `a`.
fn delta_listeners(nonce: &str, names: &[&str]) -> pb::DeltaDiscoveryResponse {
    let url = ResourceType::Listener.url();
    let resource = |(port, name): (usize, &&str)| {
        let tcp = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "t", "cluster": "a" });
        let json = json!({ "@type": url, "name": name,
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": 80 + port } },
            "filter_chains": [{ "filters": [{ "name": "t", "typed_config": tcp }] }] });
        let (_, value) = translate::from_json(&json).unwrap();
        pb::Resource {
            version: "1".into(),
            resource: Some(pb::Any {
                type_url: url.into(),
                value,
            }),
            name: (*name).into(),
            ttl: None,
        }
    };
    pb::DeltaDiscoveryResponse {
        resources: names.iter().enumerate().map(resource).collect(),
        type_url: url.into(),
        nonce: nonce.into(),
        removed_resources: Vec::new(),
    }
}
