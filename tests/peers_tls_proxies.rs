//! Proxies and servers that others wrote on the other end of an encrypted link, each side of us, with
//! certificates both ways (E15).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use common::{
    Origin, Proxy,
    client::exchange_all,
    peer,
    tls::{Authority, CLIENT_ID, Identity, Leaf, SERVER_NAME},
};
use serde_json::Value;

/// Other versions are not there.
const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// An authority, a certificate for whoever is the server and one for whoever is the client.
struct Mesh {
    authority: Authority,
    server: Identity,
    client: Identity,
}

impl Mesh {
    fn new() -> Mesh {
        let authority = Authority::new();
        let server =
            authority.issue(&Leaf::server(SERVER_NAME).uri("spiffe://mesh.example/ns/shop/sa/pay"));
        let client = authority.issue(&Leaf::client(CLIENT_ID));
        Mesh {
            authority,
            server,
            client,
        }
    }

    fn ca(&self) -> PathBuf {
        self.authority.pem()
    }

    fn secrets(&self) -> String {
        format!(
            "secrets:\n{}{}{}",
            self.server.secret("server"),
            self.client.secret("client"),
            self.authority.secret("ca")
        )
    }

    /// A proxy that encrypts everything to `address`, in this version, and shows the client's certificate.
    /// `more` is more of the cluster's `tls`.
    #[track_caller]
    fn before(&self, address: SocketAddr, version: &str, more: &str) -> Proxy {
        Proxy::start(format!(
            "{}listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
             clusters:\n  app: {{ endpoints: {{ static: ['{address}'] }}, \
             tls: {{ trusted_ca: ca, certificate: client, server_name: {SERVER_NAME}, \
             min_version: '{version}', max_version: '{version}' {more} }} }}\n",
            self.secrets()
        ))
    }

    /// A proxy that takes only TLS, in this version, from [`CLIENT_ID`]'s namespace, before `origin`.
    #[track_caller]
    fn behind(&self, origin: &Origin, version: &str, more: &str) -> Proxy {
        Proxy::start(format!(
            "{}listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}], \
             tls: {{ certificates: server, client_certificate: {{ trusted_ca: ca, \
             subject_alt_names: [{{ uri: 'spiffe://mesh.example/ns/shop/*' }}] }}, \
             min_version: '{version}', max_version: '{version}' {more} }} }}\n\
             clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }} }}\n",
            self.secrets()
        ))
    }
}

/// Goal: a link to `address` is not made when the server is somebody else, or distrusts us; the client is
/// told, and nothing falls back to plaintext (E16). Method: other names, another authority.
#[track_caller]
fn refuses(mesh: &Mesh, address: SocketAddr) {
    for bad in [
        ", subject_alt_names: [{ uri: 'spiffe://mesh.example/ns/shop/sa/other' }]",
        ", subject_alt_names: [{ dns: other.example }]",
    ] {
        for version in VERSIONS {
            let proxy = mesh.before(address, version, bad);
            let answer = proxy.client().get("/one");
            let seen = (answer.status, answer.reason());
            assert_eq!(seen, (502, Some("upstream_tls")), "{bad}");
        }
    }
    let stranger = Mesh::new();
    for version in VERSIONS {
        let proxy = stranger.before(address, version, "");
        let answer = proxy.client().get("/one");
        assert_eq!(answer.reason(), Some("upstream_tls"));
    }
    let proxy = mesh.before(
        address,
        "1.3",
        ", subject_alt_names: [{ uri: 'spiffe://mesh.example/ns/shop/sa/*' }]",
    );
    assert_eq!(proxy.client().get("/one").status, 200);
}

/// Goal: nginx as a TLS server behind us: verified both ways, and resumed. Method: it asks for our
/// certificate, says what it saw, and closes after every seventh request, so that links are made anew.
#[test]
fn nginx_behind() {
    let Some(program) = peer::program("nginx") else {
        return;
    };
    let (mesh, origin) = (Mesh::new(), Origin::echo());
    let server = peer::nginx(&program, |_, address| {
        format!(
            "keepalive_requests 7; ssl_session_cache shared:a:1m;\n\
             server {{ listen {address} ssl; ssl_certificate {}; ssl_certificate_key {};\n\
             ssl_protocols TLSv1.2 TLSv1.3; ssl_verify_client on; ssl_client_certificate {};\n\
             location /seen {{ return 200 \"$ssl_client_verify $ssl_protocol $ssl_server_name \
             $ssl_session_reused\"; }}\n\
             location / {{ proxy_pass http://{origin}; proxy_http_version 1.1; }} }}",
            mesh.server.certificate.display(),
            mesh.server.private_key.display(),
            mesh.ca().display(),
        )
    });
    for version in VERSIONS {
        let proxy = mesh.before(server.address, version, "");
        let mut client = proxy.client();
        let seen: BTreeSet<String> = (0..30).map(|_| client.get("/seen").text()).collect();
        // The first handshake is a full one, every other resumes it.
        let full = format!("SUCCESS TLSv{version} {SERVER_NAME} .");
        let resumed = format!("SUCCESS TLSv{version} {SERVER_NAME} r");
        assert_eq!(seen, BTreeSet::from([full, resumed]));
        exchange_all(proxy.web());
    }
    refuses(&mesh, server.address);
}

/// Goal: nginx as a TLS client before us: verified both ways, resumed, kept alive. Method: plaintext into
/// nginx, TLS to us; what we logged of the links.
#[test]
fn nginx_before() {
    let Some(program) = peer::program("nginx") else {
        return;
    };
    let (mesh, origin) = (Mesh::new(), Origin::echo());
    for version in VERSIONS {
        let proxy = mesh.behind(&origin, version, "");
        let server = peer::nginx(&program, |_, address| {
            format!(
                "upstream us {{ server {}; keepalive 4; keepalive_requests 7; }}\n\
                 server {{ listen {address}; location / {{ proxy_pass https://us;\n\
                 proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                 proxy_request_buffering off; proxy_ssl_protocols TLSv1.2 TLSv1.3;\n\
                 proxy_ssl_verify on; proxy_ssl_trusted_certificate {};\n\
                 proxy_ssl_name {SERVER_NAME}; proxy_ssl_server_name on;\n\
                 proxy_ssl_certificate {}; proxy_ssl_certificate_key {}; }} }}",
                proxy.web(),
                mesh.ca().display(),
                mesh.client.certificate.display(),
                mesh.client.private_key.display(),
            )
        });
        exchange_all(server.address);
        logged(&proxy, version);
        let resumed = proxy.access_log(20).into_iter();
        assert!(resumed.filter(|line| line["tls.resumed"] == true).count() > 0);
    }
}

/// Every line of the access log says who the client is, and over what it came.
#[track_caller]
fn logged(proxy: &Proxy, version: &str) {
    let is_request = |line: &Value| line["http.request.method"].is_string();
    let requests = common::eventually("the requests in the log", || {
        let lines: Vec<Value> = proxy
            .access_log(20)
            .into_iter()
            .filter(&is_request)
            .collect();
        (lines.len() >= 20).then_some(lines)
    });
    for line in requests {
        assert_eq!(line["tls.protocol.version"], version, "{line}");
        assert_eq!(line["tls.client.server_name"], SERVER_NAME, "{line}");
        assert_eq!(line["tls.client.subject"], CLIENT_ID, "{line}");
    }
}

/// Goal: HAProxy as a TLS server behind us. Method: it asks for our certificate, and says to the origin what
/// it saw.
#[test]
fn haproxy_behind() {
    let Some(program) = peer::program("haproxy") else {
        return;
    };
    let (mesh, origin) = (Mesh::new(), Origin::echo());
    let server = peer::haproxy(&program, |address| {
        format!(
            "frontend in\n  bind {address} ssl crt {} ca-file {} verify required alpn h2,http/1.1\n\
             \x20 http-request set-header x-seen \"%[ssl_c_verify] %[ssl_fc_protocol] %[ssl_fc_sni] \
             %[ssl_fc_alpn]\"\n  default_backend app\nbackend app\n  server app {origin}\n",
            mesh.server.both.display(),
            mesh.ca().display()
        )
    });
    for version in VERSIONS {
        let proxy = mesh.before(server.address, version, "");
        exchange_all(proxy.web());
        let text = proxy.client().get("/one").text();
        let seen = format!("x-seen: 0 TLSv{version} {SERVER_NAME} http/1.1");
        assert!(
            text.to_ascii_lowercase()
                .contains(&seen.to_ascii_lowercase()),
            "{text}"
        );
    }
    refuses(&mesh, server.address);
}

/// Goal: HAProxy as a TLS client before us, with its health checks. Method: plaintext into HAProxy, TLS to us.
#[test]
fn haproxy_before() {
    let Some(program) = peer::program("haproxy") else {
        return;
    };
    let (mesh, origin) = (Mesh::new(), Origin::echo());
    for version in VERSIONS {
        let proxy = mesh.behind(&origin, version, "");
        let server = peer::haproxy(&program, |address| {
            format!(
                "frontend in\n  bind {address}\n  default_backend us\nbackend us\n\
                 \x20 option httpchk GET /health\n\
                 \x20 server us {} check ssl verify required ca-file {} crt {} \
                 sni str({SERVER_NAME}) check-sni {SERVER_NAME} verifyhost {SERVER_NAME} alpn http/1.1\n",
                proxy.web(),
                mesh.ca().display(),
                mesh.client.both.display()
            )
        });
        exchange_all(server.address);
        logged(&proxy, version);
    }
}

/// Envoy's common part of a context: who it is, whom it trusts, the group for TLS 1.3, which is the
/// post-quantum one alone. In TLS 1.2 the certificate's curve must be among them.
fn common_context(mesh: &Mesh, identity: &Identity, version: &str, peer: &str) -> String {
    let (protocol, group) = match version {
        "1.2" => ("TLSv1_2", "X25519, P-256"),
        _ => ("TLSv1_3", "X25519MLKEM768"),
    };
    format!(
        "tls_certificates: [{{ certificate_chain: {{ filename: '{}' }}, private_key: {{ filename: '{}' }} }}], \
         tls_params: {{ tls_minimum_protocol_version: {protocol}, \
         tls_maximum_protocol_version: {protocol}, ecdh_curves: [{group}] }}, \
         validation_context: {{ trusted_ca: {{ filename: '{}' }}, \
         match_typed_subject_alt_names: [{{ san_type: URI, matcher: {{ exact: '{peer}' }} }}] }}, \
         alpn_protocols: [http/1.1]",
        identity.certificate.display(),
        identity.private_key.display(),
        mesh.ca().display()
    )
}

const EXTENSION: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// Goal: Envoy as a TLS server behind us: SPIFFE IDs both ways, X25519MLKEM768 in TLS 1.3. Method: it takes
/// only our ID, and in TLS 1.3 only that group.
#[test]
fn envoy_behind() {
    let Some(program) = peer::envoy() else {
        return;
    };
    let (mesh, origin) = (Mesh::new(), Origin::echo());
    for version in VERSIONS {
        let context = common_context(&mesh, &mesh.server, version, CLIENT_ID);
        let socket = format!(
            "{{ name: tls, typed_config: {{ \"@type\": {EXTENSION}.DownstreamTlsContext, \
             require_client_certificate: true, common_tls_context: {{ {context} }} }} }}"
        );
        let server = peer::envoy_before(&program, origin.address, &socket, "null");
        let proxy = mesh.before(
            server.address,
            version,
            ", subject_alt_names: [{ uri: 'spiffe://mesh.example/ns/shop/sa/pay' }]",
        );
        exchange_all(proxy.web());
        let other = mesh.before(
            server.address,
            version,
            ", subject_alt_names: [{ uri: 'spiffe://mesh.example/ns/shop/sa/other' }]",
        );
        assert_eq!(other.client().get("/one").reason(), Some("upstream_tls"));
    }
}

/// Goal: Envoy as a TLS client before us: SPIFFE IDs both ways, X25519MLKEM768 in TLS 1.3. Method: plaintext
/// into Envoy, which takes only our ID, and in TLS 1.3 only that group.
#[test]
fn envoy_before() {
    let Some(program) = peer::envoy() else {
        return;
    };
    let (mesh, origin) = (Mesh::new(), Origin::echo());
    for version in VERSIONS {
        let proxy = mesh.behind(&origin, version, "");
        let us = "spiffe://mesh.example/ns/shop/sa/pay";
        let context = common_context(&mesh, &mesh.client, version, us);
        let socket = format!(
            "{{ name: tls, typed_config: {{ \"@type\": {EXTENSION}.UpstreamTlsContext, \
             sni: {SERVER_NAME}, common_tls_context: {{ {context} }} }} }}"
        );
        let server = peer::envoy_before(&program, proxy.web(), "null", &socket);
        exchange_all(server.address);
        logged(&proxy, version);
    }
}
