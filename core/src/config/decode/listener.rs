//! Listeners.

use super::*;
use crate::config::model::{
    Forwarded, Http, Http2Limits, HttpLimits, HttpTimeouts, Listener, Protocol, ProxyProtocolIn,
    Route, Tcp, XForwarded,
};

/// Decodes one listener; also says where its routes begin.
pub(super) fn listener(
    report: &Report<'_>,
    name: &Arc<str>,
    entry: &Entry,
    defined: &Defined<'_>,
    binds: &mut Binds,
) -> (Listener, Vec<Range<usize>>) {
    let fields = Fields::open(
        report,
        &keys::LISTENER,
        &entry.value,
        entry.key_span.clone(),
    );
    let bind = bind(&fields, name, binds);
    let proxy_protocol = match fields.word("proxy_protocol") {
        Some("require") => ProxyProtocolIn::Require,
        _ => ProxyProtocolIn::Off,
    };
    let spoken = fields.word("protocol");
    let tls = tls::listener(&fields, spoken, &defined.secrets);
    let (protocol, routes) = match spoken {
        Some("tcp") => (Protocol::Tcp(tcp(&fields, &defined.clusters)), Vec::new()),
        Some(_) => {
            let (http, routes) = http(&fields, name, defined);
            (Protocol::Http(http), routes)
        }
        // Reported; which keys would be right is not known, so none is looked at.
        None => (
            Protocol::Tcp(Tcp {
                to: Vec::new(),
                idle_timeout: Default::default(),
                max_age: None,
            }),
            Vec::new(),
        ),
    };
    (
        Listener {
            bind,
            proxy_protocol,
            tls,
            protocol,
        },
        routes,
    )
}

fn bind(fields: &Fields<'_>, name: &str, binds: &mut Binds) -> SocketAddr {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let Some(text) = fields.text("bind") else {
        return nowhere;
    };
    match checked_opt(fields.report, "bind", &text, syntax::address(&text.text)) {
        Some(address) => {
            binds.claim(
                fields.report,
                address,
                text.span,
                format!("listener `{}`", shown(name)),
            );
            address
        }
        None => nowhere,
    }
}

fn tcp(fields: &Fields<'_>, clusters: &Names<'_>) -> Tcp {
    let help = "a TCP listener has `to` or `split`, and `timeouts: { idle, max_age }`; is `protocol: tcp` meant?";
    fields.refuse(
        &["routes", "limits", "forwarded"],
        "with `protocol: tcp`",
        help,
    );
    let to = match fields.exactly_one(&["to", "split"]) {
        Some(key) => destinations(fields, key, clusters),
        None => Vec::new(),
    };
    let timeouts = fields.section("timeouts", &keys::TCP_TIMEOUTS);
    Tcp {
        to,
        idle_timeout: timeouts.duration("idle"),
        max_age: timeouts.duration_or_off("max_age"),
    }
}

fn http(fields: &Fields<'_>, name: &Arc<str>, defined: &Defined<'_>) -> (Http, Vec<Range<usize>>) {
    let help = "write `routes: [ { to: … } ]`, or add `protocol: tcp` for a byte relay";
    fields.refuse(&["to", "split"], "with `protocol: http`", help);
    let misplaced = fields.has("to") || fields.has("split");
    if !fields.has("routes") && !misplaced {
        let message = "an HTTP listener needs `routes`";
        let problem =
            Problem::new(codes::MISSING_KEY, fields.at.clone(), message).label("no `routes`");
        fields.report.add(
            problem.help(
                "add `routes: [ { to: … } ]`, or `protocol: tcp` and `to: …` for a byte relay",
            ),
        );
    }
    let (routes, places) = routes(fields, name, defined);
    let http = Http {
        routes,
        timeouts: timeouts(&fields.section("timeouts", &keys::HTTP_TIMEOUTS)),
        limits: limits(&fields.section("limits", &keys::HTTP_LIMITS)),
        forwarded: forwarded(&fields.section("forwarded", &keys::FORWARDED)),
    };
    (http, places)
}

fn routes(
    fields: &Fields<'_>,
    listener: &Arc<str>,
    defined: &Defined<'_>,
) -> (Vec<Route>, Vec<Range<usize>>) {
    if refuses_rds(fields) {
        return (Vec::new(), Vec::new());
    }
    let items = fields.list("routes");
    if items.is_empty()
        && matches!(
            fields.entry("routes").map(|entry| &entry.value.value),
            Some(Value::List(_))
        )
    {
        let message = format!("listener `{}` has no routes", shown(listener));
        let problem = Problem::new(codes::EMPTY_ROUTES, fields.value_span("routes"), message);
        fields.report.add(
            problem
                .label("answers everything with 404")
                .help("add a route: `- { to: … }`"),
        );
    }
    let mut names: BTreeMap<Arc<str>, Range<usize>> = BTreeMap::new();
    let mut routes = Vec::with_capacity(items.len());
    let mut places = Vec::with_capacity(items.len());
    for (index, node) in items.iter().enumerate() {
        let (route, place) = route::route(fields.report, listener, index, node, defined);
        match names.get(&route.name) {
            Some(first) => {
                let message = format!("route name `{}` is used twice", shown(&route.name));
                let problem = Problem::new(codes::DUPLICATE_NAME, place.clone(), message)
                    .label("second time")
                    .related(first.clone(), "first time")
                    .help("give each route of a listener its own name, or none");
                fields.report.add(problem);
            }
            None => {
                names.insert(Arc::clone(&route.name), place.clone());
            }
        }
        routes.push(route);
        places.push(node.span.clone());
    }
    (routes, places)
}

/// `routes: { rds: … }` is in the format, and not in this version.
fn refuses_rds(fields: &Fields<'_>) -> bool {
    let rds = fields.entry("routes").and_then(|entry| {
        let entries = entry.value.entries();
        entries.iter().find(|entry| entry.key == "rds")
    });
    let Some(rds) = rds else { return false };
    let problem = fields::unavailable("rds", "routes from xDS", rds.key_span.clone());
    fields.report.add(problem);
    true
}

fn timeouts(fields: &Fields<'_>) -> HttpTimeouts {
    HttpTimeouts {
        header: fields.duration("header"),
        keep_alive: fields.duration("keep_alive"),
        idle: fields.duration("idle"),
    }
}

fn limits(fields: &Fields<'_>) -> HttpLimits {
    let limits = HttpLimits {
        header_list: fields.size32("header_list"),
        header_fields: fields.integer("header_fields"),
        target: fields.size32("target"),
        body: fields.size_or_off("body"),
        requests_per_connection: fields.integer_or_off("requests_per_connection"),
        http2: http2_limits(&fields.section("http2", &keys::HTTP2_LIMITS)),
    };
    if limits.target > limits.header_list && limits.header_list != 0 {
        let message = "`target` is larger than `header_list`, of which it is a part";
        let at = if fields.has("target") {
            "target"
        } else {
            "header_list"
        };
        let problem = Problem::new(codes::NEVER_BINDS, fields.value_span(at), message);
        fields.report.add(
            problem
                .label("never reached")
                .help("lower `target` or raise `header_list`"),
        );
    }
    limits
}

fn http2_limits(fields: &Fields<'_>) -> Http2Limits {
    Http2Limits {
        streams: fields.integer("streams"),
        stream_window: fields.size32("stream_window"),
        connection_window: fields.size32("connection_window"),
        resets: fields.integer("resets"),
        stream_errors: fields.integer("stream_errors"),
        settings: fields.integer("settings"),
        pings: fields.integer("pings"),
        empty_frames: fields.integer("empty_frames"),
        idle_frames: fields.integer("idle_frames"),
        window_updates: fields.integer("window_updates"),
        tiny_frames: fields.integer("tiny_frames"),
    }
}

fn forwarded(fields: &Fields<'_>) -> Forwarded {
    let x_forwarded = match fields.word("x_forwarded") {
        Some("replace") => XForwarded::Replace,
        Some("preserve") => XForwarded::Preserve,
        _ => XForwarded::Append,
    };
    let via = fields.text("via").and_then(|text| {
        if syntax::is_token(&text.text) {
            return Some(text.text.into());
        }
        let help = "write a token such as `gw-1` (RFC 9110, 7.6.3)";
        fields::malformed(
            fields.report,
            codes::HEADER_VALUE,
            "via",
            &text,
            "not a token",
            help,
        );
        None
    });
    Forwarded { x_forwarded, via }
}
