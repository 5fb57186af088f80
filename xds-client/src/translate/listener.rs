//! Listeners: an address, filter chains that differ by their TLS, and at their end HTTP or a byte relay.

use tidegate_core::config::{
    model::{Fault, Forwarded, Http, Listener, Protocol, ProxyProtocolIn, XForwarded},
    value,
};

use super::{
    FaultFilter, Listener as Translated, Referred, Typed, action, endpoint, fault,
    node::Node,
    reference, route, template,
    tls::{self, Socket},
    typed,
};

/// Makes a listener.
pub(super) fn listener(node: &Node<'_>) -> Translated {
    let mut faults = FaultFilter::Absent;
    let mut encrypted = None;
    let (protocol, routes) = match chains(node) {
        Some(chains) => {
            let (protocol, routes) = protocol(&chains.first, &mut faults);
            let word = match &protocol {
                Protocol::Http(_) => "http",
                Protocol::Tcp(_) => "tcp",
            };
            encrypted = tls::listener(&chains.contexts, word, chains.takes_plaintext);
            (protocol, routes)
        }
        None => (Protocol::Tcp(template::tcp()), Referred::default()),
    };
    let Referred { name, file } = routes;
    Translated {
        config: Listener {
            bind: bind(node),
            proxy_protocol: listener_filters(node),
            tls: encrypted,
            protocol,
        },
        routes: name,
        file,
        faults,
    }
}

fn bind(node: &Node<'_>) -> std::net::SocketAddr {
    let socket = node
        .node("address")
        .and_then(|address| endpoint::socket_address(&address));
    let Some(socket) = socket else {
        if !node.has("address") {
            node.refuse("address", "is missing");
        }
        return ([0, 0, 0, 0], 0).into();
    };
    let address = endpoint::format_address(&socket).and_then(|text| text.parse().ok());
    address.unwrap_or_else(|| ([0, 0, 0, 0], 0).into())
}

/// What the filter chains come to: the filters, which all of them share, and their TLS.
struct Chains<'a> {
    first: Node<'a>,
    contexts: Vec<Node<'a>>,
    takes_plaintext: bool,
}

/// A connection is in TLS or it is not, and certificates are chosen by its server name: what chains differ by here.
/// Each other difference is refused.
fn chains<'a>(node: &Node<'a>) -> Option<Chains<'a>> {
    let mut all = node.nodes("filter_chains");
    all.extend(node.node("default_filter_chain"));
    let Some(first) = all.first().cloned() else {
        node.refuse("filter_chains", "is empty");
        return None;
    };
    let (mut contexts, mut plain) = (Vec::new(), 0);
    for chain in &all {
        if chain.value("filters") != first.value("filters") {
            chain.refuse("filters", "differ from those of the first chain");
        }
        let socket = chain.node("transport_socket");
        let socket = socket.map(|socket| tls::socket(&socket, "DownstreamTlsContext"));
        let is_tls = match socket {
            Some(Socket::Tls(context)) => {
                contexts.push(context);
                true
            }
            Some(Socket::Refused) => continue,
            Some(Socket::Plaintext) | None => {
                plain += 1;
                false
            }
        };
        chain_match(chain, is_tls, all.len() > 1);
    }
    if plain > 1 {
        node.refuse("filter_chains", "only one without TLS is supported");
    }
    for context in contexts.iter().skip(1) {
        if !is_alike(context, contexts.first()) {
            context.refuse(
                "",
                "differs from the first chain's by more than its certificates",
            );
        }
    }
    Some(Chains {
        first,
        contexts,
        takes_plaintext: plain > 0,
    })
}

/// What a chain is chosen by.
fn chain_match(chain: &Node<'_>, is_tls: bool, has_others: bool) {
    let Some(condition) = chain.node("filter_chain_match") else {
        return;
    };
    let expected = if is_tls { "tls" } else { "raw_buffer" };
    let protocol = condition.text("transport_protocol");
    if !protocol.is_empty() && (protocol != expected || !has_others) {
        condition.refuse(
            "transport_protocol",
            "is for a chain with TLS beside one without, each with its own",
        );
    }
    if condition.has("server_names") {
        condition.warn("server_names", "certificates are chosen by their own names");
    }
}

/// Whether two contexts are the same but for their certificates.
fn is_alike(context: &Node<'_>, first: Option<&Node<'_>>) -> bool {
    let Some(first) = first else { return true };
    let rest = |node: &Node<'_>| {
        let all = node.message().fields.iter();
        let others = all
            .filter(|(name, _)| name != "common_tls_context")
            .cloned();
        let common = node.node("common_tls_context");
        let common = common.map(|common| {
            let fields = common.message().fields.iter();
            let fields = fields.filter(|(name, _)| name != "tls_certificate_sds_secret_configs");
            fields.cloned().collect::<Vec<_>>()
        });
        (others.collect::<Vec<_>>(), common)
    };
    rest(context) == rest(first)
}

fn listener_filters(node: &Node<'_>) -> ProxyProtocolIn {
    let mut proxy_protocol = ProxyProtocolIn::Off;
    for filter in node.nodes("listener_filters") {
        match typed(&filter, "typed_config") {
            Typed::Known(known) => match known.kind() {
                // Both look at first bytes, as every listener does here.
                "TlsInspector" | "HttpInspector" => {}
                "ProxyProtocol" => proxy_protocol = ProxyProtocolIn::Require,
                other => filter.refuse("typed_config", format!("{other} is not supported")),
            },
            Typed::Unknown(name) => {
                filter.refuse("typed_config", format!("{name} is not supported"))
            }
            Typed::Absent => filter.refuse("typed_config", "is missing"),
        }
    }
    proxy_protocol
}

/// What the last filter speaks, and where its routes come from.
fn protocol(chain: &Node<'_>, faults: &mut FaultFilter) -> (Protocol, Referred) {
    let nowhere = || (Protocol::Tcp(template::tcp()), Referred::default());
    let filters = chain.nodes("filters");
    let (Some(filter), 1) = (filters.first(), filters.len()) else {
        chain.refuse("filters", "exactly one is supported");
        return nowhere();
    };
    match typed(filter, "typed_config") {
        Typed::Known(known) => match known.kind() {
            "HttpConnectionManager" => http(&known, faults),
            "TcpProxy" => tcp(&known),
            other => {
                filter.refuse("typed_config", format!("{other} is not supported"));
                nowhere()
            }
        },
        Typed::Unknown(name) => {
            filter.refuse("typed_config", format!("{name} is not supported"));
            nowhere()
        }
        Typed::Absent => {
            filter.refuse("typed_config", "is missing");
            nowhere()
        }
    }
}

fn tcp(node: &Node<'_>) -> (Protocol, Referred) {
    let mut tcp = template::tcp();
    tcp.to = match node.which(&["cluster", "weighted_clusters"]) {
        Some("weighted_clusters") => {
            let split = node.node("weighted_clusters");
            split
                .map(|split| action::weighted(&split, "weight"))
                .unwrap_or_default()
        }
        _ => action::whole(reference(node, "cluster")),
    };
    if let Some(idle) = node.positive("idle_timeout") {
        tcp.idle_timeout = idle;
    }
    tcp.max_age = node.positive("max_downstream_connection_duration");
    (Protocol::Tcp(tcp), Referred::default())
}

fn http(node: &Node<'_>, faults: &mut FaultFilter) -> (Protocol, Referred) {
    if node.word("codec_type", "AUTO") == "HTTP3" {
        node.refuse("codec_type", "HTTP3 is not supported");
    }
    let mut http = template::http();
    let routes = match node.which(&["route_config", "rds"]) {
        Some("route_config") => {
            let inline = node.node("route_config");
            http.routes = inline
                .map(|inline| route::configuration(&inline))
                .unwrap_or_default();
            Referred::default()
        }
        Some(_) => {
            let referred = node.node("rds").map(|rds| {
                let name = reference(&rds, "route_config_name");
                Referred::new(&rds, "config_source", name)
            });
            referred.unwrap_or_default()
        }
        None => {
            node.refuse(
                "",
                "has no routes: one of `route_config` and `rds` is needed",
            );
            Referred::default()
        }
    };
    *faults = filters(node);
    limits(node, &mut http);
    http.forwarded = forwarded(node);
    (Protocol::Http(http), routes)
}

/// The filters before the router: of those that are known, what is said of faults; others may only stand there if they
/// may be left out.
fn filters(node: &Node<'_>) -> FaultFilter {
    let mut faults = FaultFilter::Absent;
    let filters = node.nodes("http_filters");
    let Some((last, before)) = filters.split_last() else {
        node.refuse("http_filters", "is empty: the last has to be the router");
        return faults;
    };
    for filter in before {
        let name = match typed(filter, "typed_config") {
            Typed::Known(known) if known.kind() == "HTTPFault" => {
                // One that is disabled is so for routes that say nothing.
                faults = FaultFilter::Present(match filter.flag("disabled") {
                    true => Fault::default(),
                    false => fault::fault(&known),
                });
                continue;
            }
            Typed::Known(known) => known.kind(),
            Typed::Unknown(name) => name,
            Typed::Absent => "a filter without `typed_config`",
        };
        match filter.flag("is_optional") || filter.flag("disabled") {
            true => filter.warn("", format!("{name} is left out")),
            false => filter.refuse("typed_config", format!("{name} is not supported")),
        }
    }
    if !matches!(typed(last, "typed_config"), Typed::Known(known) if known.kind() == "Router") {
        last.refuse("typed_config", "the last filter has to be the router");
    }
    faults
}

fn limits(node: &Node<'_>, http: &mut Http) {
    if let Some(kib) = node.integer::<u32>("max_request_headers_kb") {
        http.limits.header_list = kib.clamp(1, 1024) * 1024;
        http.limits.target = http.limits.target.min(http.limits.header_list);
    }
    if let Some(timeout) = node
        .duration("request_headers_timeout")
        .filter(|t| !t.is_zero())
    {
        http.timeouts.header = timeout;
    }
    if let Some(timeout) = node
        .duration("stream_idle_timeout")
        .filter(|t| !t.is_zero())
    {
        http.timeouts.idle = timeout;
    }
    if let Some(common) = node.node("common_http_protocol_options") {
        if let Some(timeout) = common.duration("idle_timeout").filter(|t| !t.is_zero()) {
            http.timeouts.keep_alive = timeout;
        }
        if let Some(count) = common
            .integer::<u16>("max_headers_count")
            .filter(|n| *n > 0)
        {
            http.limits.header_fields = count;
        }
        if let Some(requests) = common.integer::<u32>("max_requests_per_connection") {
            http.limits.requests_per_connection = Some(requests).filter(|n| *n > 0);
        }
    }
    if let Some(http2) = node.node("http2_protocol_options")
        && let Some(streams) = http2.integer::<u32>("max_concurrent_streams")
    {
        // More at once than the model's own bound helps nobody but a flood.
        http.limits.http2.streams = streams.clamp(1, 1000);
    }
}

fn forwarded(node: &Node<'_>) -> Forwarded {
    Forwarded {
        x_forwarded: match node.flag("use_remote_address") {
            true => XForwarded::Append,
            false => XForwarded::Preserve,
        },
        via: match node.text("via") {
            "" => None,
            via => node.checked("via", value::token(via)),
        },
    }
}
