//! gRPC's own clients and servers through TCP listeners: HTTP/2 passes as bytes, and TLS is ours on either side
//! (E15). gRPC refuses a peer that does not choose `h2` by ALPN.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{net::SocketAddr, path::Path, process::Command};

use common::{
    Proxy, peer,
    tls::{Authority, CLIENT_ID, Identity, Leaf, SERVER_NAME},
};

/// Other versions are not there.
const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// An authority with a server's and a client's certificate, and a Python that knows gRPC.
struct Peers {
    python: std::path::PathBuf,
    authority: Authority,
    server: Identity,
    client: Identity,
}

impl Peers {
    #[track_caller]
    fn new() -> Option<Peers> {
        let python = peer::python("grpc")?;
        let authority = Authority::new();
        let server = authority.issue(&Leaf::server(SERVER_NAME));
        let client = authority.issue(&Leaf::client(CLIENT_ID));
        Some(Peers {
            python,
            authority,
            server,
            client,
        })
    }

    fn secrets(&self) -> String {
        format!(
            "secrets:\n{}{}{}",
            self.server.secret("server"),
            self.client.secret("client"),
            self.authority.secret("ca")
        )
    }

    /// This side of gRPC at `address`, in plaintext.
    fn plain(&self, side: &str, address: SocketAddr) -> Command {
        let mut command = Command::new(&self.python);
        command
            .arg(peer::script("grpc_peer.py"))
            .args([side, &address.to_string()]);
        command
    }

    /// The same with this certificate.
    fn secure(&self, side: &str, address: SocketAddr, identity: &Identity) -> Command {
        let mut command = self.plain(side, address);
        let paths: [&Path; 3] = [
            &identity.certificate,
            &identity.private_key,
            &self.authority.pem(),
        ];
        command.args(paths);
        command
    }

    /// A proxy that takes TLS with certificates both ways, and passes on to `to` in plaintext.
    #[track_caller]
    fn terminating(&self, to: SocketAddr, version: &str, alpn: &str) -> Proxy {
        Proxy::start(format!(
            "{}listeners:\n  web: {{ bind: 127.0.0.1:0, protocol: tcp, to: app, \
             tls: {{ certificates: server, client_certificate: {{ trusted_ca: ca }}, \
             min_version: '{version}', max_version: '{version}', alpn: {alpn} }} }}\n\
             clusters:\n  app: {{ endpoints: {{ static: ['{to}'] }} }}\n",
            self.secrets()
        ))
    }

    /// A proxy that takes plaintext, and passes on to `to` in TLS with certificates both ways.
    #[track_caller]
    fn originating(&self, to: SocketAddr, version: &str, alpn: &str) -> Proxy {
        Proxy::start(format!(
            "{}listeners:\n  web: {{ bind: 127.0.0.1:0, protocol: tcp, to: app }}\n\
             clusters:\n  app: {{ endpoints: {{ static: ['{to}'] }}, \
             tls: {{ trusted_ca: ca, certificate: client, server_name: {SERVER_NAME}, \
             min_version: '{version}', max_version: '{version}', alpn: {alpn} }} }}\n",
            self.secrets()
        ))
    }
}

/// Goal: a gRPC client over TLS reaches a server in plaintext, with certificates both ways, in every kind of
/// call (E15). Method: gRPC's own client and server in TLS 1.2 and 1.3; without `h2` in `alpn` the client refuses
/// the connection.
#[test]
fn client_over_tls() {
    let Some(peers) = Peers::new() else {
        return;
    };
    let server = peer::Server::start(|_, address| peers.plain("server", address));
    let client = |proxy: &Proxy| {
        let mut command = peers.secure("client", proxy.web(), &peers.client);
        command.arg(SERVER_NAME);
        command
    };
    for version in VERSIONS {
        let proxy = peers.terminating(server.address, version, "[h2]");
        assert_eq!(peer::run(&mut client(&proxy)), "done\n");
    }
    let proxy = peers.terminating(server.address, "1.3", "[]");
    let refused = client(&proxy).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("ALPN"), "{said}");
}

/// Goal: a gRPC client in plaintext reaches a server that wants TLS and a client's certificate (E15). Method: as
/// above, the other way round; the server refuses whoever does not offer `h2`.
#[test]
fn server_over_tls() {
    let Some(peers) = Peers::new() else {
        return;
    };
    let server = peer::Server::start(|_, address| peers.secure("server", address, &peers.server));
    for version in VERSIONS {
        let proxy = peers.originating(server.address, version, "[h2]");
        let mut client = peers.plain("client", proxy.web());
        assert_eq!(peer::run(&mut client), "done\n");
        assert!(proxy.metric("tidegate_shard_upstream_tls_handshakes_full_total") >= 1.0);
    }
    let proxy = peers.originating(server.address, "1.3", "[]");
    let refused = peers.plain("client", proxy.web()).output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
}
