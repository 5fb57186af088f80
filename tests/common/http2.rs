//! A client in HTTP/2 that others wrote: the `h2` crate, over real sockets.

use std::{future::Future, net::SocketAddr};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response};
use tokio::{net::TcpStream, task::JoinHandle};

use super::PATIENCE;

/// Runs a test to its end, or to the end of the suite's patience.
#[track_caller]
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("the test to come to its end")
    })
}

/// Polls until `condition` holds, without holding up what else the test does.
pub async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A connection. Clones share it.
#[derive(Clone)]
pub struct Http2 {
    send: SendRequest<Bytes>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Answer {
    #[track_caller]
    pub fn field(&self, name: &str) -> &str {
        text(&self.fields, name)
    }

    #[track_caller]
    pub fn trailer(&self, name: &str) -> &str {
        text(&self.trailers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

#[track_caller]
fn text<'f>(fields: &'f HeaderMap, name: &str) -> &'f str {
    let value = fields.get(name);
    value
        .unwrap_or_else(|| panic!("no {name} in {fields:?}"))
        .to_str()
        .unwrap()
}

impl Http2 {
    /// Connects with prior knowledge; also the end of the connection.
    pub async fn connect(address: SocketAddr) -> (Http2, JoinHandle<Result<(), h2::Error>>) {
        Http2::connect_with(address, &h2::client::Builder::new()).await
    }

    pub async fn connect_with(
        address: SocketAddr,
        builder: &h2::client::Builder,
    ) -> (Http2, JoinHandle<Result<(), h2::Error>>) {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (send, connection) = builder.handshake(stream).await.unwrap();
        (Http2 { send }, tokio::spawn(connection))
    }

    /// Waits until the server has offered to take an extended CONNECT (RFC 8441).
    pub async fn tunnels(&self) {
        until(|| self.send.is_extended_connect_protocol_enabled()).await;
    }

    /// Begins an exchange; `None` for the stream if there is no body.
    pub async fn begin(
        &mut self,
        request: Request<()>,
        has_body: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut ready = self.send.clone().ready().await?;
        ready.send_request(request, !has_body)
    }

    /// A whole exchange.
    pub async fn exchange(
        &mut self,
        request: Request<()>,
        body: &[u8],
    ) -> Result<Answer, h2::Error> {
        let (answer, stream) = self.begin(request, !body.is_empty()).await?;
        let sending = async {
            match body.is_empty() {
                true => Ok(()),
                false => send_all(stream, body, None).await,
            }
        };
        let (answer, _) = tokio::join!(read(answer), sending);
        answer
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer, h2::Error> {
        self.exchange(request("GET", path), b"").await
    }

    pub async fn post(&mut self, path: &str, body: &[u8]) -> Result<Answer, h2::Error> {
        self.exchange(request("POST", path), body).await
    }
}

pub fn request(method: &str, path: &str) -> Request<()> {
    with(method, path, &[])
}

pub fn with(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut builder = Request::builder()
        .method(method)
        .uri(format!("http://a.example{path}"))
        .version(http::Version::HTTP_2);
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap()
}

/// Sends a body as the windows allow it, and trailers if there are any.
pub async fn send_all(
    mut stream: SendStream<Bytes>,
    body: &[u8],
    trailers: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    let mut rest = Bytes::copy_from_slice(body);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(room) = room else {
            return Ok(());
        };
        let piece = rest.split_to(room?.min(rest.len()));
        let is_last = rest.is_empty() && trailers.is_none();
        stream.send_data(piece, is_last)?;
    }
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => Ok(()),
    }
}

/// Reads an answer to its end.
pub async fn read(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    read_body(answer.await?).await
}

pub async fn read_body(answer: Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut stream) = answer.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    Ok(Answer {
        status: head.status.as_u16(),
        fields: head.headers,
        body,
        trailers: stream.trailers().await?.unwrap_or_default(),
    })
}

/// An extended CONNECT for a WebSocket (RFC 8441).
pub fn websocket(path: &str) -> Request<()> {
    let fields = [
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
    ];
    let mut request = with("CONNECT", path, &fields);
    let protocol = h2::ext::Protocol::from_static("websocket");
    request.extensions_mut().insert(protocol);
    request
}
