//! REST in the place of a stream: each type is asked for with a POST, again and again, and what is answered goes the way
//! of what a stream brings. Requests of the subscriptions are kept by type, and the newest of each is what is posted:
//! an acknowledgement travels with the next one, a new name is asked for at once.
//!
//! A server that has nothing new says so with 304, or with the version that is held. HTTP/1.1, one connection.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::{Pin, pin},
    time::Duration,
};

use futures_lite::{Stream, stream};
use hyper::{
    Request as HttpRequest, Response as HttpResponse, StatusCode,
    body::{Body, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderValue, IF_NONE_MATCH},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Ended, Heard, Link, MESSAGE_MAX, Node, Times,
    connection::{Bytes, dial},
    wake,
    wire::FEATURES,
};
use crate::{
    resources::RawResponse,
    response,
    subscription::{Absence, Request, ResourceType, Wanted},
};

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Between two times that a type is asked for; up to a quarter more, by chance.
    pub refresh_delay: Duration,
    /// For an answer to come whole.
    pub request_timeout: Duration,
}

/// Who is asked, and who asks.
pub(super) struct Asking {
    pub(super) server: Box<str>,
    pub(super) link: Link,
    pub(super) times: Times,
    pub(super) rest: Rest,
    pub(super) node: Node,
    pub(super) token: Option<Box<str>>,
}

/// What a server says to the requests that are taken.
pub(super) fn heard(
    asking: Asking,
    sender: SendRequest<String>,
    taken: mpsc::Receiver<Request>,
) -> Pin<Box<dyn Stream<Item = Result<Heard, Ended>> + Send>> {
    let poller = Poller {
        asking,
        taken,
        sender: Some(sender),
        asked: BTreeMap::new(),
    };
    Box::pin(stream::unfold(poller, |mut poller| async move {
        let heard = poller.next().await;
        Some((heard, poller))
    }))
}

struct Poller {
    asking: Asking,
    taken: mpsc::Receiver<Request>,
    /// To the connection, if there is one.
    sender: Option<SendRequest<String>>,
    asked: BTreeMap<ResourceType, Asked>,
}

/// What is asked for of a type, as the subscription said it.
struct Asked {
    version: String,
    names: Vec<String>,
    nonce: String,
    error: Option<String>,
    /// When it is to be posted.
    at: Instant,
    /// The version of the newest response to these names, taken or refused: the same again is no news.
    answered: Option<String>,
    /// The next request is the answer to that response.
    is_unanswered: bool,
    /// Of that response, unless it was refused.
    etag: Option<HeaderValue>,
}

impl Asked {
    /// The version that a server is told. None while it has not answered to these names: its version may well be that
    /// of all that it has, whoever asks for what of it.
    fn held(&self, resource_type: ResourceType) -> &str {
        match self.answered.is_some() || !is_named(resource_type) {
            true => &self.version,
            false => "",
        }
    }
}

impl Poller {
    async fn next(&mut self) -> Result<Heard, Ended> {
        loop {
            let next = self.asked.iter().min_by_key(|(_, asked)| asked.at);
            let next = next.map(|(resource_type, asked)| (*resource_type, asked.at));
            tokio::select! {
                biased;
                request = self.taken.recv() => match request {
                    Some(request) => self.take(request),
                    None => std::future::pending().await,
                },
                () = wake(next.map(|(_, at)| at)) => {
                    let Some((resource_type, _)) = next else { continue };
                    return self.ask(resource_type).await;
                }
            }
        }
    }

    /// Keeps a request for the next post, and makes that now if it asks for something new.
    fn take(&mut self, request: Request) {
        let Wanted::Names { version, names } = request.wanted else {
            unreachable!("REST speaks the state of the world");
        };
        let resource_type = request.resource_type;
        if is_named(resource_type) && names.is_empty() {
            // Without names it would ask for everything.
            self.asked.remove(&resource_type);
            return;
        }
        let now = Instant::now();
        let before = self.asked.remove(&resource_type);
        let before = before.filter(|before| before.names == names);
        let is_answer = before.as_ref().is_some_and(|before| before.is_unanswered);
        let at = before.as_ref().map_or(now, |before| before.at);
        let asked = Asked {
            version,
            names,
            nonce: request.nonce,
            at: if is_answer { at } else { now },
            is_unanswered: false,
            etag: before
                .as_ref()
                .and_then(|before| before.etag.clone())
                .filter(|_| request.error.is_none()),
            answered: before.and_then(|before| before.answered),
            error: request.error,
        };
        self.asked.insert(resource_type, asked);
    }

    /// Posts what is asked for of a type.
    async fn ask(&mut self, resource_type: ResourceType) -> Result<Heard, Ended> {
        let Some(asked) = self.asked.get_mut(&resource_type) else {
            return Ok(Heard::Nothing);
        };
        let pause = self.asking.rest.refresh_delay;
        asked.at = Instant::now() + pause.mul_f64(1.0 + fastrand::f64() / 4.0);
        let request = self.asking.request(resource_type, asked)?;
        let held = Some(asked.held(resource_type).to_owned());
        let exchange = exchange(&self.asking, &mut self.sender, request);
        let answer = match timeout(self.asking.rest.request_timeout, exchange).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Ended::Lost("no answer in time".into())),
        };
        let path = path(resource_type);
        match answer.status {
            StatusCode::NOT_MODIFIED => return Ok(Heard::Nothing),
            // It has none of these, or does not know the type: the others go on.
            StatusCode::NOT_FOUND => {
                return Ok(Heard::Absent(format!("it has nothing at {path} (404)")));
            }
            status if status.is_success() => {}
            status => return Err(Ended::Lost(format!("{path}: {status}"))),
        }
        let etag = answer.etag.clone();
        let response = answer.read(resource_type).await?;
        if let Some(asked) = self.asked.get_mut(&resource_type) {
            let version = Some(response.version.clone()).filter(|version| !version.is_empty());
            if version.is_some() && (version == held || version == asked.answered) {
                return Ok(Heard::Nothing);
            }
            asked.answered = version;
            asked.is_unanswered = true;
            asked.etag = etag;
        }
        Ok(Heard::Response(response))
    }
}

impl Asking {
    fn request(
        &self,
        resource_type: ResourceType,
        asked: &Asked,
    ) -> Result<HttpRequest<String>, Ended> {
        let lost = |error: &dyn std::fmt::Display| Ended::Lost(error.to_string());
        let mut request = HttpRequest::post(path(resource_type))
            .header(HOST, &*self.server)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            let bearer = HeaderValue::try_from(format!("Bearer {token}"));
            request = request.header(AUTHORIZATION, bearer.map_err(|e| lost(&e))?);
        }
        if let Some(etag) = &asked.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let body = self.body(resource_type, asked).to_string();
        request.body(body).map_err(|e| lost(&e))
    }

    /// A `DiscoveryRequest`. Each is whole, with who asks: servers of REST have no memory.
    fn body(&self, resource_type: ResourceType, asked: &Asked) -> Value {
        let node = &self.node;
        let mut body = json!({
            "version_info": asked.held(resource_type),
            "node": {
                "id": node.id,
                "cluster": node.cluster,
                "locality": { "zone": node.zone },
                "user_agent_name": "tidegate",
                "user_agent_version": env!("CARGO_PKG_VERSION"),
                "client_features": FEATURES,
            },
            "resource_names": asked.names,
            "type_url": resource_type.url(),
            "response_nonce": asked.nonce,
        });
        if let (Some(error), Value::Object(body)) = (&asked.error, &mut body) {
            let detail = json!({ "code": 3, "message": error });
            body.insert("error_detail".into(), detail);
        }
        body
    }
}

struct Answer {
    status: StatusCode,
    etag: Option<HeaderValue>,
    body: Vec<u8>,
}

impl Answer {
    /// The response that it is. What is none is as good as no answer: the last good stays.
    async fn read(self, resource_type: ResourceType) -> Result<RawResponse, Ended> {
        let path = path(resource_type);
        let text = String::from_utf8(self.body);
        let text = text.map_err(|e| Ended::Lost(format!("{path}: is no text: {e}")))?;
        // Tens of thousands of resources take a while.
        let read = tokio::task::spawn_blocking(move || response::of_text(&text)).await;
        let read = read.unwrap_or_else(|e| Err(e.to_string()));
        let mut response = read.map_err(|why| Ended::Lost(format!("{path}: {why}")))?;
        if response.type_url.is_empty() {
            response.type_url = resource_type.url().to_owned();
        }
        Ok(response)
    }
}

/// One exchange, on the connection that is there or a new one.
async fn exchange(
    asking: &Asking,
    sender: &mut Option<SendRequest<String>>,
    request: HttpRequest<String>,
) -> Result<Answer, Ended> {
    let is_usable = match sender {
        // A server may close a connection whenever it is idle.
        Some(sender) => sender.ready().await.is_ok(),
        None => false,
    };
    if !is_usable {
        *sender = Some(connect(asking).await?);
    }
    // If anything goes wrong, the connection goes with it.
    let Some(mut used) = sender.take() else {
        return Err(Ended::Lost("no connection".into()));
    };
    let lost = |error: hyper::Error| Ended::Lost(super::innermost(&error));
    let response = used.send_request(request).await.map_err(lost)?;
    let answer = whole(response).await?;
    *sender = Some(used);
    Ok(answer)
}

/// Makes the connection on which is asked.
pub(super) async fn connect(asking: &Asking) -> Result<SendRequest<String>, Ended> {
    let bytes: Box<dyn Bytes> =
        dial(&asking.server, &asking.link, asking.times, b"http/1.1").await?;
    let (sender, connection) = http1::handshake(TokioIo::new(bytes))
        .await
        .map_err(|error| Ended::Lost(super::innermost(&error)))?;
    // It ends with the sender.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("xDS: {error}");
        }
    });
    Ok(sender)
}

async fn whole(response: HttpResponse<Incoming>) -> Result<Answer, Ended> {
    let (head, body) = response.into_parts();
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|error| Ended::Lost(super::innermost(&error)))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if bytes.len() + data.len() > MESSAGE_MAX {
            let most = MESSAGE_MAX >> 20;
            return Err(Ended::Lost(format!("its answer is larger than {most} MiB")));
        }
        bytes.extend_from_slice(data);
    }
    Ok(Answer {
        status: head.status,
        etag: head.headers.get(ETAG).cloned(),
        body: bytes,
    })
}

/// Whether resources of a type are asked for by name.
fn is_named(resource_type: ResourceType) -> bool {
    resource_type.absence() == Absence::Keeps
}

/// Where a type is asked for.
fn path(resource_type: ResourceType) -> &'static str {
    match resource_type {
        ResourceType::Cluster => "/v3/discovery:clusters",
        ResourceType::Endpoint => "/v3/discovery:endpoints",
        ResourceType::Listener => "/v3/discovery:listeners",
        ResourceType::Route => "/v3/discovery:routes",
    }
}
