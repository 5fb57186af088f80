//! The least that makes a proxy of Pingora: `pingora-peer LISTEN UPSTREAMS ROUTES`, where the last two
//! are files with an address and a path prefix a line. One thread, connections kept on both sides,
//! X-Forwarded-For and -Proto as all peers of the lab send them.

#![forbid(unsafe_code)]

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use pingora::{
    prelude::*,
    server::configuration::ServerConf,
};

struct Lab {
    upstreams: Vec<String>,
    /// In the order of the file; empty means that everything matches.
    routes: Vec<String>,
    next: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Lab {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let path = session.req_header().uri.path();
        let matches = self.routes.is_empty() || self.routes.iter().any(|route| path.starts_with(route));
        if !matches {
            return Err(Error::new(ErrorType::HTTPStatus(404)));
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let upstream = &self.upstreams[turn % self.upstreams.len()];
        Ok(Box::new(HttpPeer::new(upstream.as_str(), false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        request.insert_header("X-Forwarded-Proto", "http")
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstreams, routes] = arguments.as_slice() else {
        println!("pingora-peer {} on pingora 0.9", env!("CARGO_PKG_VERSION"));
        return;
    };
    let lines = |path: &str| -> Vec<String> {
        let text = fs::read_to_string(path).expect("the lab writes its files before it starts a peer");
        text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
    };
    let lab = Lab {
        upstreams: lines(upstreams),
        routes: lines(routes),
        next: AtomicUsize::new(0),
    };
    let configuration = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 1024,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, lab);
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever();
}
