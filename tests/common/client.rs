//! A client that sends exactly the bytes it is given. Panics where the other side does not do what it
//! must: it is used by tests only.

use std::{
    net::{SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
};

use super::wire::{Response, Wire};

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
