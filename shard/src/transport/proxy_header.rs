//! The PROXY protocol header, the first bytes of a connection before its protocol.

use std::net::SocketAddr;

use tidegate_codecs::proxy_protocol::{self, Parsed};

use super::Stream;
use crate::ring::{Chunk, Driver};

/// What a PROXY header says of the connection behind the balancer.
pub(crate) struct Proxied {
    /// The client; `None` for a health check of the balancer itself, or another address family.
    pub(crate) source: Option<SocketAddr>,
}

/// Reads a PROXY protocol header, v1 or v2. `None` if there is none, or a malformed one.
pub(crate) async fn read_proxy_header(
    driver: &std::rc::Rc<Driver>,
    socket: &Stream,
) -> Option<Proxied> {
    let mut chunk = socket.receive().await.ok()??;
    loop {
        match proxy_protocol::parse(&chunk).ok()? {
            Parsed::Complete(header) => {
                chunk.advance(header.len);
                socket.put_back(chunk);
                return Some(Proxied {
                    source: header.source,
                });
            }
            // The codec bounds the header, so this ends.
            Parsed::Partial => {
                let more = socket.receive().await.ok()??;
                let joined = [&chunk[..], &more[..]].concat();
                chunk = Chunk::from_vec(driver, joined);
            }
        }
    }
}
