//! What holds for whatever a resource does not say: the defaults of our own format, read from it, so that they are
//! written down once.

use std::{sync::LazyLock, time::Duration};

use tidegate_core::config::{
    self,
    model::{Cluster, Config, Forward, Http, Listener, Protocol, Retry, Route, RouteAction, Tcp},
};

const TEXT: &str = "
version: 1
listeners:
  http:
    bind: 127.0.0.1:1
    routes: [ { to: c, retry: { on: [connect] } } ]
  tcp: { bind: 127.0.0.1:2, protocol: tcp, to: c }
clusters:
  c: { endpoints: { static: [127.0.0.1:3] }, heal: {}, health: { tcp: {} } }
";

static CONFIG: LazyLock<Config> = LazyLock::new(|| match config::parse("defaults", TEXT) {
    Ok((config, _)) => config,
    Err(faults) => unreachable!("a text that is compiled in, and read by the tests: {faults:?}"),
});

/// A cluster without self-healing and health checks.
pub(super) fn cluster() -> Cluster {
    let mut cluster = with_health();
    (cluster.heal, cluster.health) = (None, None);
    cluster
}

/// A cluster with both.
pub(super) fn with_health() -> Cluster {
    let cluster = CONFIG.clusters.values().next();
    cluster
        .cloned()
        .unwrap_or_else(|| unreachable!("it is in the text"))
}

/// A listener, with or without routes.
fn listener(name: &str) -> Listener {
    let listener = CONFIG.listeners.get(name);
    listener
        .cloned()
        .unwrap_or_else(|| unreachable!("it is in the text"))
}

/// A byte relay to nowhere; Envoy's time-outs.
pub(super) fn tcp() -> Tcp {
    match listener("tcp").protocol {
        Protocol::Tcp(tcp) => Tcp {
            to: Vec::new(),
            // TcpProxy.idle_timeout
            idle_timeout: Duration::from_secs(3600),
            ..tcp
        },
        Protocol::Http(_) => unreachable!("it is a relay in the text"),
    }
}

/// HTTP without routes.
pub(super) fn http() -> Http {
    match listener("http").protocol {
        Protocol::Http(http) => Http {
            routes: Vec::new(),
            ..http
        },
        Protocol::Tcp(_) => unreachable!("it is HTTP in the text"),
    }
}

/// A route to nowhere, and how it forwards.
pub(super) fn route() -> (Route, Forward, Retry) {
    let Protocol::Http(http) = listener("http").protocol else {
        unreachable!("it is HTTP in the text")
    };
    let route = http.routes.into_iter().next();
    let route = route.unwrap_or_else(|| unreachable!("it is in the text"));
    let RouteAction::Forward(mut forward) = route.action.clone() else {
        unreachable!("it forwards in the text")
    };
    let retry = forward.retry.take();
    let retry = retry.unwrap_or_else(|| unreachable!("it is in the text"));
    forward.to.clear();
    (route, forward, retry)
}

#[cfg(test)]
mod tests {
    /// Goal: the text is one of the format's, and has what is taken from it. Method: take everything.
    #[test]
    fn the_defaults_are_there() {
        assert_eq!(super::cluster().heal, None);
        assert!(super::with_health().health.is_some());
        assert!(super::tcp().to.is_empty());
        assert!(super::http().routes.is_empty());
        assert!(super::route().1.to.is_empty());
    }
}
