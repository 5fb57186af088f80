//! A client that sends exactly the bytes it is given. Panics where the other side does not do what it
//! must: it is used by tests only.

use std::{
    net::{SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
};

use super::{
    assert_same_bytes,
    origin::send_chunk,
    pattern,
    wire::{Response, Wire},
};

/// A client's connection.
pub struct Client(Wire);

impl Deref for Client {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.0
    }
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        Client(Wire::new(TcpStream::connect(address).unwrap()))
    }

    /// Sends `request` and reads the answer.
    #[track_caller]
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> Response {
        let request = request.as_ref();
        // An early answer may close the connection while we still send.
        let _ = self.0.send(request);
        self.answer_to(request)
    }

    /// Reads the answer to a request that begins like `request`.
    #[track_caller]
    pub fn answer_to(&mut self, request: &[u8]) -> Response {
        let method = request.split(|b| *b == b' ').next().unwrap_or_default();
        let method = String::from_utf8_lossy(method).into_owned();
        match self.0.response(&method) {
            Ok(response) => response,
            Err(error) => panic!("no answer to {:?}: {error}", printable(request)),
        }
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.exchange(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
    }

    #[track_caller]
    pub fn post(&mut self, target: &str, body: &[u8]) -> Response {
        let mut request = format!(
            "POST {target} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.exchange(request)
    }

    /// The peer closes, and says nothing more.
    #[track_caller]
    pub fn expect_close(&mut self) {
        assert!(
            self.0.is_closed_without_more(),
            "the connection should have been closed"
        );
    }

    pub fn into_wire(self) -> Wire {
        self.0
    }
}

/// One request on a connection of its own.
#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Response {
    Client::connect(address).get(target)
}

fn printable(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(400)];
    String::from_utf8_lossy(shown).into_owned()
}

/// Every kind of body through `address`, behind which something echoes; on one connection as far as the
/// other side keeps it.
#[track_caller]
pub fn exchange_all(address: SocketAddr) {
    let body = pattern(1_000_000);
    let mut client = Client::connect(address);
    for i in 0..20 {
        let text = client.get(&format!("/{i}")).text();
        assert!(text.starts_with(&format!("GET /{i} HTTP/1.1")), "{text}");
    }
    assert_same_bytes(&client.post("/body", &body).body, &body);
    let mut chunked =
        b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(9999) {
        send_chunk(&mut chunked, chunk).unwrap();
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_same_bytes(&client.exchange(chunked).body, &body);
    assert_same_bytes(&client.get("/bytes/1000000").body, &body);
    assert_same_bytes(&client.get("/chunked/1000000").body, &body);
    assert_eq!(client.get("/status/204").status, 204);
    // The end of the connection is the end of the body.
    let closing = get(address, "/close/1000000");
    assert_same_bytes(&closing.body, &body);
}
