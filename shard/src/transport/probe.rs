//! TLS for an active health check: as a link of the cluster would speak it, without a socket. The check runs on
//! the coordinator, in its own I/O: bytes go in and come out.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use rustls::ClientConnection;
use tidegate_core::message::TlsContexts;

use super::contexts::Contexts;

/// A TLS connection of a health check. What is received and sent over its socket passes through here.
pub struct ProbeSession {
    connection: ClientConnection,
}

impl ProbeSession {
    /// One to the endpoint at `address`, with the certificate, the authorities and the names of `cluster`. It
    /// never resumes: a check is to see what a new link would see.
    ///
    /// # Errors
    ///
    /// That there is no context: a secret is missing.
    pub fn new(
        contexts: &TlsContexts,
        cluster: &str,
        address: SocketAddr,
    ) -> Result<ProbeSession, String> {
        let context = Contexts::of(contexts).and_then(|contexts| contexts.clients.get(cluster));
        let context = context.ok_or("a secret that TLS needs is missing")?;
        let config = Arc::new(context.config.clone());
        let connection = ClientConnection::new(config, context.server_name(address));
        Ok(ProbeSession {
            connection: connection.map_err(|error| error.to_string())?,
        })
    }

    /// Whether the handshake goes on.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// What is to be sent over the socket now; after an error of [`Self::received`], an alert.
    pub fn outgoing(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            // A vector takes everything.
            if self.connection.write_tls(&mut bytes).is_err() {
                break;
            }
        }
        bytes
    }

    /// Takes what came over the socket, and adds what it says to `plaintext`.
    ///
    /// # Errors
    ///
    /// Why the connection is of no use: its certificate is refused, an alert came, it makes no sense.
    pub fn received(&mut self, mut bytes: &[u8], plaintext: &mut Vec<u8>) -> Result<(), String> {
        while !bytes.is_empty() {
            let read = self.connection.read_tls(&mut bytes);
            if read.map_err(|error| error.to_string())? == 0 {
                return Ok(());
            }
            let state = self.connection.process_new_packets();
            let state = state.map_err(|error| error.to_string())?;
            let before = plaintext.len();
            plaintext.resize(before + state.plaintext_bytes_to_read(), 0);
            let room = plaintext.get_mut(before..).unwrap_or_default();
            let read = self.connection.reader().read_exact(room);
            read.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Takes what is to be sent encrypted; a short text.
    pub fn send(&mut self, plaintext: &[u8]) {
        // It is buffered, up to a limit far above the request of a check.
        let _ = self.connection.writer().write_all(plaintext);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: without its secret, a check fails with a cause rather than going on in plaintext (E16). Method:
    /// contexts that hold nothing.
    #[test]
    fn no_context_is_a_failure() {
        let contexts = TlsContexts(Arc::new(Contexts::default()));
        let address = "127.0.0.1:1".parse().unwrap();
        let refused = ProbeSession::new(&contexts, "app", address);
        assert!(refused.err().unwrap().contains("secret"));
    }
}
