//! A control plane that is asked by REST, played by the test.

use std::time::Duration;

use hyper::{
    Method, Request as HttpRequest, Response as HttpResponse, StatusCode,
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use serde_json::Value;
use tokio::sync::oneshot;

use super::*;

/// One post, and where its answer goes.
struct Post {
    path: String,
    headers: hyper::HeaderMap,
    body: Value,
    answer: oneshot::Sender<HttpResponse<String>>,
}

impl Post {
    fn names(&self) -> Vec<&str> {
        let names = self.body["resource_names"].as_array().unwrap();
        names.iter().map(|one| one.as_str().unwrap()).collect()
    }

    fn say(self, status: StatusCode, headers: &[(&str, &str)], body: Value) {
        let mut response = HttpResponse::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let _ = self.answer.send(response.body(body).unwrap());
    }

    fn nothing_new(self) {
        self.say(StatusCode::NOT_MODIFIED, &[], Value::Null);
    }

    /// A response with clusters of these names, whose endpoints come by the same way.
    fn clusters(self, version: &str, names: &[&str]) {
        let source = json!({ "eds_config": { "ads": {} } });
        let one = |name: &&str| {
            json!({ "@type": ResourceType::Cluster.url(), "name": name, "type": "EDS",
                "eds_cluster_config": source })
        };
        let resources: Vec<Value> = names.iter().map(one).collect();
        let body = json!({ "version_info": version, "resources": resources });
        self.say(StatusCode::OK, &[("etag", version)], body);
    }
}

/// A server of REST.
struct RestServer {
    address: SocketAddr,
    posts: mpsc::UnboundedReceiver<Post>,
    task: JoinHandle<()>,
}

impl Drop for RestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RestServer {
    async fn start() -> RestServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, posts) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let told = told.clone();
                let service = service_fn(move |request| serve(request, told.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        RestServer {
            address,
            posts,
            task,
        }
    }

    /// The next post for a type. Others are told that there is nothing new.
    async fn post(&mut self, of: &str) -> Post {
        loop {
            let post = timeout(PATIENCE, self.posts.recv()).await.unwrap().unwrap();
            if post.path == format!("/v3/discovery:{of}") {
                return post;
            }
            post.nothing_new();
        }
    }
}

async fn serve(
    request: HttpRequest<Incoming>,
    told: mpsc::UnboundedSender<Post>,
) -> Result<HttpResponse<String>, oneshot::error::RecvError> {
    assert_eq!(request.method(), Method::POST);
    let (head, body) = request.into_parts();
    let mut body = Box::pin(body);
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        bytes.extend_from_slice(frame.unwrap().data_ref().unwrap());
    }
    let (answer, answered) = oneshot::channel();
    let post = Post {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body: serde_json::from_slice(&bytes).unwrap(),
        answer,
    };
    let _ = told.send(post);
    answered.await
}

fn rest(servers: &[SocketAddr]) -> Settings {
    Settings {
        rest: Some(Rest {
            refresh_delay: Duration::from_millis(10),
            request_timeout: Duration::from_secs(10),
        }),
        ..settings(servers, Variant::StateOfTheWorld)
    }
}

/// Goal: each type is asked for with who asks, and again with what was accepted; what that refers to is asked for at
/// once and by name; a bad response is refused with a reason and the good version stays. Method: a server that sends
/// two clusters, nothing new, and a bad one.
#[tokio::test]
async fn types_are_asked_for_again_and_again() {
    let mut server = RestServer::start().await;
    let mut watched = start(rest(&[server.address]));
    let first = server.post("clusters").await;
    assert_eq!(first.headers["authorization"], "Bearer secret");
    assert_eq!(first.headers["content-type"], "application/json");
    assert_eq!(first.headers["host"], server.address.to_string());
    let node = &first.body["node"];
    assert_eq!(
        (&node["id"], &node["cluster"], &node["locality"]["zone"]),
        (&json!("gw-1"), &json!("edge"), &json!("z1"))
    );
    assert_eq!(
        (
            &first.body["version_info"],
            first.names(),
            &first.body["type_url"]
        ),
        (&json!(""), vec![], &json!(ResourceType::Cluster.url()))
    );
    first.clusters("v1", &["a", "b"]);
    let endpoints = server.post("endpoints").await;
    assert_eq!(endpoints.names(), ["a", "b"]);
    let url = ResourceType::Endpoint.url();
    let none = |name: &str| json!({ "@type": url, "cluster_name": name });
    let body = json!({ "version_info": "e1", "resources": [none("a"), none("b")] });
    endpoints.say(StatusCode::OK, &[], body);
    part(&mut watched, |part| part.clusters.len() == 2).await;

    let again = server.post("clusters").await;
    assert_eq!(again.body["version_info"], "v1");
    assert_eq!(again.headers["if-none-match"], "v1");
    again.nothing_new();
    let again = server.post("clusters").await;
    let bad = json!({ "@type": ResourceType::Cluster.url(), "name": "b", "no_such": 1 });
    let body = json!({ "version_info": "v2", "resources": [bad] });
    again.say(StatusCode::OK, &[("etag", "v2")], body);
    let refused = server.post("clusters").await;
    assert_eq!(refused.body["version_info"], "v1");
    assert_eq!(refused.headers.get("if-none-match"), None);
    let detail = &refused.body["error_detail"];
    assert_eq!(detail["code"], 3);
    let why = detail["message"].as_str().unwrap();
    assert!(why.starts_with("b: ") && why.contains("'no_such'"), "{why}");
    // All clusters that there are: `a` is gone, `b` is held.
    part(&mut watched, |part| {
        part.clusters.keys().map(|name| &**name).eq(["b"])
    })
    .await;
    let status = shown(&mut watched, |status| status.types[0].rejected == 1).await;
    assert_eq!(status.server, Some(server.address.to_string().into()));
    assert_eq!(status.streams, 1);
}

/// Goal: a version that is held is no news, and names that are new are asked for though the version is the old one.
/// Method: a server that says the same again, and then has a third cluster.
#[tokio::test]
async fn a_version_that_is_held_is_no_news() {
    let mut server = RestServer::start().await;
    let mut watched = start(rest(&[server.address]));
    server.post("clusters").await.clusters("v1", &["a"]);
    let url = ResourceType::Endpoint.url();
    let endpoints = |names: &[&str]| {
        let one = |name: &&str| json!({ "@type": url, "cluster_name": name });
        let resources: Vec<Value> = names.iter().map(one).collect();
        json!({ "version_info": "always", "resources": resources })
    };
    let post = server.post("endpoints").await;
    post.say(StatusCode::OK, &[], endpoints(&["a"]));
    part(&mut watched, |part| part.clusters.len() == 1).await;
    for _ in 0..3 {
        let post = server.post("endpoints").await;
        post.say(StatusCode::OK, &[], endpoints(&["a"]));
    }
    server.post("clusters").await.clusters("v2", &["a", "b"]);
    loop {
        let post = server.post("endpoints").await;
        let names: Vec<String> = post.names().into_iter().map(str::to_owned).collect();
        let names: Vec<&str> = names.iter().map(|one| &**one).collect();
        let held = post.body["version_info"].clone();
        post.say(StatusCode::OK, &[], endpoints(&names));
        if names == ["a", "b"] {
            // A server that goes by the version alone would have nothing new to say.
            assert_eq!(held, "");
            break;
        }
        assert_eq!(held, "always");
    }
    part(&mut watched, |part| part.clusters.len() == 2).await;
    let status = shown(&mut watched, |status| status.types[1].responses > 1).await;
    assert_eq!(status.types[1].responses, 2, "what was no news is none");
}

/// Goal: a type that a server has nothing of does not stop the others; a server that fails, answers with something
/// else, or does not answer in time is left for the next, and what was accepted stays. Method: one fault after the
/// other, at the first of two servers.
#[tokio::test]
async fn servers_that_fail_are_left() {
    let (mut server, mut second) = (RestServer::start().await, RestServer::start().await);
    let mut settings = rest(&[server.address, second.address]);
    settings.rest.as_mut().unwrap().request_timeout = Duration::from_secs(1);
    let mut watched = start(settings);
    let post = server.post("listeners").await;
    post.say(StatusCode::NOT_FOUND, &[], Value::Null);
    let status = shown(&mut watched, |status| status.last_error.is_some()).await;
    let error = status.last_error.as_deref().unwrap();
    assert!(
        error.ends_with("it has nothing at /v3/discovery:listeners (404)"),
        "{error}"
    );
    server.post("clusters").await.clusters("v1", &[]);

    let post = server.post("clusters").await;
    post.say(StatusCode::SERVICE_UNAVAILABLE, &[], Value::Null);
    let lost = |status: &Status, why: &str| {
        let error = status.last_error.as_deref().unwrap_or_default();
        error.contains(why)
    };
    shown(&mut watched, |status| lost(status, "503")).await;
    let post = server.post("clusters").await;
    post.say(StatusCode::OK, &[], json!([]));
    shown(&mut watched, |status| lost(status, "is no response")).await;
    let held = server.post("clusters").await;
    shown(&mut watched, |status| lost(status, "no answer in time")).await;
    drop(held);
    // Only such an end is one without a word of the server.
    server.task.abort();
    let post = second.post("clusters").await;
    post.clusters("v2", &["a"]);
    let status = shown(&mut watched, |status| status.types[0].accepted == 1).await;
    assert_eq!(status.server, Some(second.address.to_string().into()));
}
