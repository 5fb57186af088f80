//! The route table against a reference that tries one route after the other, and `explain` against both,
//! over random tables and requests. The seed of a failing case is in its message.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};

use regex_automata::{meta::Regex, util::syntax};
use tidegate_core::{
    config::model::{
        Config, Forwarded, HeaderEdits, HostPattern, Http, HttpLimits, HttpTimeouts, Limits,
        Listener, Node, PathPattern, Protocol, ProxyProtocolIn, Respond, Ring, Route, RouteAction,
        RouteMatch, Shards, ValuePattern,
    },
    id::{Epoch, RouteId},
    snapshot::{Resolution, Snapshot},
    steering::{
        RequestView, RouteScratch,
        destination::mix,
        explain::{Circumstances, Outcome, Verdict, explain},
    },
};

/// Goal: the table finds what trying one route after the other finds, and `explain` says so (S16).
/// Method: 500 random tables of up to 40 routes, 200 random requests each, from few words so that most
/// parts of a route match often.
#[test]
fn table_agrees_with_reference_and_explain() {
    let mut found = 0;
    for seed in 0..500 {
        let mut dice = Dice(seed);
        let routes: Vec<Route> = (0..dice.below(40)).map(|i| dice.route(i)).collect();
        let snapshot = snapshot(routes.clone());
        let listener = snapshot.listener_by_name("l").unwrap();
        let tidegate_core::snapshot::Protocol::Http(http) = &listener.protocol else {
            panic!("not HTTP");
        };
        let mut scratch = RouteScratch::default();
        for n in 0..200 {
            let request = dice.request();
            let expected = reference(&routes, &request);
            let table = http.table.find(&mut scratch, &request).map(RouteId::index);
            let context = || {
                let route = |at: Option<usize>| Some(&routes[at?].matches);
                let (found, expected) = (route(table), route(expected));
                format!("seed {seed}, request {n}: {request:?}\n{found:?}\n{expected:?}")
            };
            assert_eq!(table, expected, "{}", context());
            found += usize::from(expected.is_some());

            let why = explain(&snapshot, None, &request, &Circumstances::default()).unwrap();
            assert!(why.consistent, "{why}\n{}", context());
            let taken = why.routes.iter().position(|r| r.verdict == Verdict::Taken);
            assert_eq!(taken, expected, "{why}\n{}", context());
            let refused = matches!(why.outcome, Outcome::Refuse { .. });
            assert_eq!(refused, expected.is_none());
        }
    }
    // The test would prove little if most requests matched nothing.
    assert!(found > 50_000, "{found}");
}

/// Goal: the cost of a look-up hardly grows with the table; here: the same answer comes from a table of
/// 10,000 routes and hosts. Method: every route is asked for, and something beside each.
#[test]
fn every_route_of_a_large_table_is_found() {
    let routes: Vec<Route> = (0..10_000)
        .map(|i| {
            let mut route = plain_route(i);
            let name = format!("h{i}.example");
            match i % 4 {
                0 => route.matches.hosts = vec![HostPattern::Exact(name.into())],
                1 => route.matches.path = PathPattern::Exact(format!("/e/{i}").into()),
                2 => route.matches.path = PathPattern::Prefix(format!("/p/{i}").into()),
                _ => route.matches.path = PathPattern::Template(format!("/t/{{x}}/{i}").into()),
            }
            route
        })
        .collect();
    let snapshot = snapshot(routes);
    let tidegate_core::snapshot::Protocol::Http(http) = &snapshot.listeners[0].protocol else {
        panic!("not HTTP");
    };
    let mut scratch = RouteScratch::default();
    let mut find = |host: &str, path: &str| {
        let request = Request::get(host, path);
        http.table.find(&mut scratch, &request).map(RouteId::index)
    };
    for i in (0..10_000).step_by(4) {
        let (exact, prefix, template) = (i + 1, i + 2, i + 3);
        assert_eq!(find(&format!("H{i}.example"), "/"), Some(i));
        assert_eq!(find("x", &format!("/e/{exact}")), Some(exact));
        assert_eq!(find("x", &format!("/e/{exact}/")), None);
        assert_eq!(find("x", &format!("/p/{prefix}")), Some(prefix));
        assert_eq!(find("x", &format!("/p/{prefix}/y")), Some(prefix));
        assert_eq!(find("x", &format!("/p/{prefix}y")), None);
        assert_eq!(find("x", &format!("/t/any/{template}")), Some(template));
        assert_eq!(find("x", &format!("/t//{template}")), None);
    }
}

/// Goal: the rules of the module's documentation hold. Method: a small file, a table of requests.
#[test]
fn documented_rules_hold() {
    let route = |hosts: &[HostPattern], path: PathPattern| {
        let mut route = plain_route(0);
        route.matches.hosts = hosts.to_vec();
        route.matches.path = path;
        route
    };
    let exact = |host: &str| HostPattern::Exact(host.into());
    let suffix = |host: &str| HostPattern::Suffix(host.into());
    let prefix = |path: &str| PathPattern::Prefix(path.into());
    let routes = vec![
        route(&[], PathPattern::Exact("/health".into())),
        route(&[suffix(".example")], prefix("/wild")),
        route(&[exact("pay.example")], prefix("/pay")),
        route(&[HostPattern::Any], prefix("/other")),
        route(
            &[exact("pay.example"), exact("shop.example")],
            PathPattern::Regex("/v[12]/.*".into()),
        ),
        route(&[], prefix("/fallback")),
    ];
    let snapshot = snapshot(routes);
    let tidegate_core::snapshot::Protocol::Http(http) = &snapshot.listeners[0].protocol else {
        panic!("not HTTP");
    };
    let mut scratch = RouteScratch::default();
    for (host, path, expected) in [
        // A route without host takes part everywhere, at its place.
        ("pay.example", "/health", Some(0)),
        ("a.example", "/health", Some(0)),
        ("elsewhere", "/health", Some(0)),
        ("pay.example", "/fallback/x", Some(5)),
        // Only the most specific host's routes take part.
        ("a.example", "/wild", Some(1)),
        ("pay.example", "/wild", None),
        ("pay.example", "/pay/1", Some(2)),
        ("PAY.example.", "/pay", Some(2)),
        // `*` is for hosts that nobody claims.
        ("elsewhere", "/other", Some(3)),
        ("pay.example", "/other", None),
        // An expression stands for the whole path.
        ("shop.example", "/v1/x", Some(4)),
        ("shop.example", "/v1", None),
        ("shop.example", "/x/v1/x", None),
        // Prefixes end at segments.
        ("pay.example", "/payroll", None),
        ("pay.example", "/pay//x", Some(2)),
        // Escapes that mean the same are the same, and nothing hides behind a dot segment.
        ("pay.example", "/%70ay/1", Some(2)),
        ("pay.example", "/pay%2F1", None),
        ("pay.example", "/fallback/../pay", None),
        ("pay.example", "/fallback/%2e%2E/pay", None),
        ("pay.example", "/fallback/..", None),
        ("pay.example", "*", None),
    ] {
        let request = Request::get(host, path);
        let found = http.table.find(&mut scratch, &request).map(RouteId::index);
        assert_eq!(found, expected, "{host}{path}");
    }
}

/// Goal: a look-up allocates nothing (requirement of `RouteTable::find`). Method: allocations are counted
/// over requests of every kind, once the scratch has seen each expression.
#[test]
fn lookup_allocates_nothing() {
    for seed in 1000..1020 {
        let mut dice = Dice(seed);
        let routes: Vec<Route> = (0..40).map(|i| dice.route(i)).collect();
        let snapshot = snapshot(routes);
        let tidegate_core::snapshot::Protocol::Http(http) = &snapshot.listeners[0].protocol else {
            panic!("not HTTP");
        };
        let mut scratch = RouteScratch::default();
        let requests: Vec<Request> = (0..200).map(|_| dice.request()).collect();
        let mut pass = || {
            let found = requests.iter().map(|r| http.table.find(&mut scratch, r));
            found.flatten().count()
        };
        let warm = pass();
        let mut again = 0;
        let allocations = allocation_counter::measure(|| again = pass());
        assert_eq!(again, warm);
        assert_eq!(allocations.count_total, 0, "seed {seed}");
    }
}

/// A request as an operator would type it.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    host: String,
    path: Vec<u8>,
    query: Option<String>,
    headers: Vec<(String, String)>,
}

impl Request {
    fn get(host: &str, path: &str) -> Request {
        Request {
            method: "GET".into(),
            host: host.into(),
            path: path.into(),
            query: None,
            headers: Vec::new(),
        }
    }
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn path(&self) -> &[u8] {
        &self.path
    }
    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref().map(str::as_bytes)
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.headers.iter();
        fields.find(|(n, _)| n == name).map(|(_, v)| v.as_bytes())
    }
}

/// The slow truth: the first route, in file order, all of whose parts hold.
fn reference(routes: &[Route], request: &Request) -> Option<usize> {
    let path = reference_path(&request.path)?;
    let host = request.host.strip_suffix('.').unwrap_or(&request.host);
    let host = host.to_lowercase();
    let named = routes.iter().flat_map(|r| &r.matches.hosts);
    let best = named.filter_map(|p| specificity(p, &host)).max();
    routes.iter().position(|route| {
        let RouteMatch {
            hosts,
            path: pattern,
            methods,
            headers,
            query,
        } = &route.matches;
        let takes_part = |p: &HostPattern| best.is_some() && specificity(p, &host) == best;
        (hosts.is_empty() || hosts.iter().any(takes_part))
            && path_holds(pattern, &path)
            && (methods.is_empty() || methods.iter().any(|m| **m == request.method))
            && headers
                .iter()
                .all(|(n, p)| value_holds(p, request.header(n)))
            && query
                .iter()
                .all(|(n, p)| value_holds(p, parameter(request, n).as_deref()))
    })
}

/// Greater is more specific; `None` does not match.
fn specificity(pattern: &HostPattern, host: &str) -> Option<(u8, usize)> {
    match pattern {
        HostPattern::Exact(name) => (**name == *host).then_some((3, 0)),
        HostPattern::Suffix(s) => {
            (host.ends_with(&**s) && host.len() > s.len()).then_some((2, s.len()))
        }
        HostPattern::Prefix(p) => {
            (host.starts_with(&**p) && host.len() > p.len()).then_some((1, p.len()))
        }
        HostPattern::Any => Some((0, 0)),
    }
}

/// Unescapes unreserved characters; `None` with a dot segment.
fn reference_path(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut i = 0;
    while i < path.len() {
        let escape = path.get(i..i + 3).filter(|e| e[0] == b'%');
        let digits = escape.and_then(|e| std::str::from_utf8(&e[1..]).ok());
        let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(digits) = digits else {
            out.push(path[i]);
            i += 1;
            continue;
        };
        let byte = u8::from_str_radix(digits, 16).unwrap();
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => out.push(byte),
            false => out.extend(format!("%{byte:02X}").bytes()),
        }
        i += 3;
    }
    let text = String::from_utf8_lossy(&out);
    let slashes = text
        .replace("%2F", "/")
        .replace("%5C", "/")
        .replace('\\', "/");
    let params = slashes.replace("%3B", ";");
    let dotted = params.split('/').skip(1).any(|segment| {
        let name = segment.split(';').next().unwrap();
        name == "." || name == ".."
    });
    (!dotted).then_some(out)
}

fn path_holds(pattern: &PathPattern, path: &[u8]) -> bool {
    let segments = |path: &[u8]| -> Option<Vec<Vec<u8>>> {
        let below = path.strip_prefix(b"/")?;
        Some(below.split(|b| *b == b'/').map(<[u8]>::to_vec).collect())
    };
    match pattern {
        PathPattern::Any => true,
        PathPattern::Exact(exact) => path == exact.as_bytes(),
        PathPattern::Prefix(prefix) => path
            .strip_prefix(prefix.as_bytes())
            .is_some_and(|rest| rest.starts_with(b"/") || (rest.is_empty() && !path.is_empty())),
        PathPattern::Template(template) => {
            let mut wanted = segments(template.as_bytes()).unwrap();
            let Some(mut found) = segments(path) else {
                return false;
            };
            if wanted.last().unwrap().ends_with(b"=**}") {
                wanted.pop();
                if found.len() <= wanted.len() {
                    return false;
                }
                found.truncate(wanted.len());
            }
            wanted.len() == found.len()
                && wanted
                    .iter()
                    .zip(&found)
                    .all(|(w, f)| match w.starts_with(b"{") {
                        true => !f.is_empty(),
                        false => w == f,
                    })
        }
        PathPattern::Regex(regex) => regex_holds(regex, path),
    }
}

fn regex_holds(regex: &str, haystack: &[u8]) -> bool {
    thread_local! {
        static COMPILED: RefCell<BTreeMap<String, Regex>> = const { RefCell::new(BTreeMap::new()) };
    }
    COMPILED.with_borrow_mut(|compiled| {
        let whole = compiled.entry(regex.to_owned()).or_insert_with(|| {
            let bytes = syntax::Config::new().unicode(false).utf8(false);
            let whole = format!("^(?s:{regex})$");
            Regex::builder().syntax(bytes).build(&whole).unwrap()
        });
        whole.is_match(haystack)
    })
}

fn value_holds(pattern: &ValuePattern, value: Option<&[u8]>) -> bool {
    let text = |p: &Arc<str>| p.as_bytes().to_vec();
    match (pattern, value) {
        (ValuePattern::Absent, value) => value.is_none(),
        (_, None) => false,
        (ValuePattern::Present, _) => true,
        (ValuePattern::Exact(p), Some(v)) => v == text(p),
        (ValuePattern::Prefix(p), Some(v)) => v.starts_with(&text(p)),
        (ValuePattern::Suffix(p), Some(v)) => v.ends_with(&text(p)),
        (ValuePattern::Contains(p), Some(v)) => {
            v.windows(p.len()).any(|window| window == p.as_bytes())
        }
        (ValuePattern::Regex(p), Some(v)) => regex_holds(p, v),
    }
}

fn parameter(request: &Request, name: &str) -> Option<Vec<u8>> {
    let query = request.query.as_ref()?;
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| value.as_bytes().to_vec())
    })
}

/// Random choices, repeatable by seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = mix(self.0);
        (self.0 % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    fn segment(&mut self) -> &'static str {
        self.of(&["a", "b", "a", "b", "v1", "v2", "x.y", ""])
    }

    fn path(&mut self) -> String {
        let depth = self.below(4);
        (0..=depth)
            .map(|_| format!("/{}", self.segment()))
            .collect()
    }

    fn route(&mut self, position: usize) -> Route {
        let mut route = plain_route(position);
        for _ in 0..self.below(3) {
            route.matches.hosts.push(self.host_pattern());
        }
        route.matches.path = self.path_pattern();
        if self.one_in(4) {
            route.matches.methods.push(self.of(&["GET", "POST"]).into());
        }
        if self.one_in(4) {
            let name = self.of(&["x-a", "x-b"]).into();
            route.matches.headers.push((name, self.value_pattern()));
        }
        if self.one_in(4) {
            let name = self.of(&["q", "r"]).into();
            route.matches.query.push((name, self.value_pattern()));
        }
        route
    }

    fn host_pattern(&mut self) -> HostPattern {
        match self.below(8) {
            0 => HostPattern::Any,
            1 => HostPattern::Suffix(self.of(&[".example", ".a.example"]).into()),
            2 => HostPattern::Prefix(self.of(&["pay.", "pay.a."]).into()),
            _ => HostPattern::Exact(self.of(&["pay.example", "pay.a.example", "b"]).into()),
        }
    }

    fn path_pattern(&mut self) -> PathPattern {
        match self.below(24) {
            0..4 => PathPattern::Any,
            4..8 => PathPattern::Exact(self.path().into()),
            8..14 => PathPattern::Prefix(self.path().trim_end_matches('/').into()),
            14..23 => {
                let depth = self.below(3);
                let mut segments: Vec<&str> = Vec::new();
                for _ in 0..=depth {
                    let literal = self.segment();
                    segments.push(if self.one_in(2) { "{x}" } else { literal });
                }
                if self.one_in(3) {
                    segments.push("{rest=**}");
                }
                PathPattern::Template(format!("/{}", segments.join("/")).into())
            }
            _ => PathPattern::Regex(
                self.of(&[
                    "/v[12](/.*)?",
                    "/a/.*",
                    "(/[ab])+",
                    "/.*",
                    r"/x\.y/a",
                    "/a|/b",
                ])
                .into(),
            ),
        }
    }

    fn value_pattern(&mut self) -> ValuePattern {
        let text: Arc<str> = self.of(&["1", "2", "12"]).into();
        match self.below(12) {
            0 | 6 => ValuePattern::Present,
            1 | 7 => ValuePattern::Absent,
            2 | 8 => ValuePattern::Exact(text),
            3 | 9 => ValuePattern::Prefix(text),
            4 | 10 => ValuePattern::Suffix(text),
            5 => ValuePattern::Contains(text),
            _ => ValuePattern::Regex("[12]+".into()),
        }
    }

    fn request(&mut self) -> Request {
        let host = self.of(&[
            "pay.example",
            "PAY.Example.",
            "pay.a.example",
            "x.a.example",
            "x.example",
            "pay.x",
            "pay.a.x",
            "b",
            "c",
            "",
        ]);
        let mut path = self.path();
        match self.below(12) {
            0 => path = path.replace('a', "%61"),
            1 => path = path.replace('b', "%2fb"),
            2 => path += self.of(&["/..", "/.", "/%2e%2e/a", "/..;x", "\\..", "/...", "/%2E."]),
            3 => path = self.of(&["*", "", "a"]).to_owned(),
            _ => {}
        }
        let mut path = path.into_bytes();
        if self.one_in(20) {
            path.push(0xff);
        }
        let pairs = ["q=1", "q=2", "q", "r=12", "qq=1", "q=1&q=2", "x&r=1"];
        Request {
            method: self.of(&["GET", "GET", "POST", "get"]).into(),
            host: host.into(),
            path,
            query: self.one_in(2).then(|| self.of(&pairs).into()),
            headers: (0..self.below(3))
                .map(|_| {
                    (
                        self.of(&["x-a", "x-b"]).into(),
                        self.of(&["1", "2", "121", ""]).into(),
                    )
                })
                .collect(),
        }
    }
}

fn plain_route(position: usize) -> Route {
    Route {
        name: format!("l/{position}").into(),
        matches: RouteMatch::default(),
        rate_limits: Vec::new(),
        global_rate_limits: Vec::new(),
        fault: None,
        action: RouteAction::Respond(Respond {
            status: 200,
            body: "".into(),
            content_type: "text/plain".into(),
        }),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        origin: "".into(),
    }
}

fn snapshot(routes: Vec<Route>) -> Snapshot {
    let listener = Listener {
        bind: "127.0.0.1:1".parse().unwrap(),
        proxy_protocol: ProxyProtocolIn::Off,
        tls: None,
        protocol: Protocol::Http(Http {
            routes,
            timeouts: HttpTimeouts::default(),
            limits: HttpLimits::default(),
            forwarded: Forwarded::default(),
        }),
    };
    let config = Config {
        node: Node::default(),
        shards: Shards {
            cpus: Vec::new(),
            count: None,
            ring: Ring::default(),
        },
        admin: None,
        access_log: None,
        limits: Limits::default(),
        drain_timeout: Duration::ZERO,
        upgrade_timeout: Duration::ZERO,
        listeners: BTreeMap::from([("l".into(), listener)]),
        clusters: BTreeMap::new(),
        secrets: BTreeMap::new(),
        center: None,
        rate_limit_service: None,
        xds: None,
        steering: None,
    };
    Snapshot::compile(Arc::new(config), &Resolution::new(), None, 1, Epoch(1))
}
