//! Route configurations: virtual hosts and their routes, in the order of the model.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidegate_core::config::{
    ROUTES_MAX,
    model::{HeaderEdits, HostPattern, Respond, Route, RouteAction, RouteMatch},
    value,
};

use super::{action, check_name, fault, matching, node::Node, template};

/// Makes the routes of a route configuration.
///
/// A virtual host of the API takes every request of its hosts, and answers 404 where no route of its matches; so do
/// the routes of the model that name a host. One without routes becomes a route that says 404.
pub(super) fn configuration(node: &Node<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    let mut claimed: BTreeMap<String, String> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for host in node.nodes("virtual_hosts") {
        let hosts = domains(&host, &mut claimed);
        if host.word("require_tls", "NONE") != "NONE" {
            host.refuse(
                "require_tls",
                "is not supported: redirect by a route with `https_redirect`",
            );
        }
        let of_host = host.nodes("routes");
        if of_host.is_empty() {
            routes.push(nothing(node, &host, &hosts, &mut names));
        }
        for (index, route) in of_host.iter().enumerate() {
            routes.push(one(node, &host, route, index, &hosts, &mut names));
        }
    }
    if routes.len() > ROUTES_MAX {
        node.refuse(
            "virtual_hosts",
            format!("{} routes, at most {ROUTES_MAX}", routes.len()),
        );
    }
    routes
}

/// The hosts of a virtual host. Ports are no part of them: requests are matched without theirs.
fn domains(host: &Node<'_>, claimed: &mut BTreeMap<String, String>) -> Vec<HostPattern> {
    let mut hosts: Vec<HostPattern> = Vec::new();
    let domains = host.texts("domains");
    if domains.is_empty() {
        host.refuse("domains", "is empty");
    }
    for (domain, at) in domains {
        let bare = without_port(domain);
        let Some(pattern) = host.checked(&at, value::host_pattern(bare)) else {
            continue;
        };
        if hosts.contains(&pattern) {
            continue;
        }
        let key = bare.to_ascii_lowercase();
        match claimed.get(&key) {
            Some(other) => host.refuse(
                &at,
                format!("`{bare}` is a domain of virtual host `{other}`, too"),
            ),
            None => {
                claimed.insert(key, host.text("name").to_owned());
            }
        }
        hosts.push(pattern);
    }
    hosts
}

fn without_port(domain: &str) -> &str {
    match domain.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.ends_with(':') => {
            let is_port = port == "*" || port.parse::<u16>().is_ok();
            if is_port { host } else { domain }
        }
        _ => domain,
    }
}

fn one(
    configuration: &Node<'_>,
    host: &Node<'_>,
    route: &Node<'_>,
    index: usize,
    hosts: &[HostPattern],
    names: &mut BTreeSet<Arc<str>>,
) -> Route {
    let matched = match route.node("match") {
        Some(node) => matching::matches(&node),
        None => {
            route.refuse("match", "is missing");
            matching::Matched {
                matches: RouteMatch::default(),
                prefix: matching::Prefix::None,
            }
        }
    };
    let (mut request_headers, mut response_headers) =
        (HeaderEdits::default(), HeaderEdits::default());
    for node in [route, host, configuration] {
        let (add, remove) = ("request_headers_to_add", "request_headers_to_remove");
        action::edits(node, add, remove, &mut request_headers);
        let (add, remove) = ("response_headers_to_add", "response_headers_to_remove");
        action::edits(node, add, remove, &mut response_headers);
    }
    let action = action::action(route, host, &matched.prefix);
    if !matches!(action, RouteAction::Forward(_)) {
        request_headers = HeaderEdits::default();
    }
    Route {
        name: name(host, route.text("name"), index, names),
        matches: RouteMatch {
            hosts: hosts.to_vec(),
            ..matched.matches
        },
        fault: fault::of_route(route, host),
        action,
        request_headers,
        response_headers,
        origin: origin(configuration, route),
        ..template::route().0
    }
}

/// The route of a virtual host without routes.
fn nothing(
    configuration: &Node<'_>,
    host: &Node<'_>,
    hosts: &[HostPattern],
    names: &mut BTreeSet<Arc<str>>,
) -> Route {
    Route {
        name: name(host, "", 0, names),
        matches: RouteMatch {
            hosts: hosts.to_vec(),
            ..RouteMatch::default()
        },
        action: RouteAction::Respond(Respond {
            status: 404,
            body: "".into(),
            content_type: "text/plain".into(),
        }),
        origin: origin(configuration, host),
        ..template::route().0
    }
}

/// Where it stands: the path within the resource.
fn origin(configuration: &Node<'_>, node: &Node<'_>) -> Arc<str> {
    format!("xds:{}:{}", configuration.text("name"), node.path()).into()
}

/// The name that counters go by: the route's own, or its place, and in any case one of its own.
fn name(host: &Node<'_>, own: &str, index: usize, names: &mut BTreeSet<Arc<str>>) -> Arc<str> {
    let place = format!("{}/{}", host.text("name"), index + 1);
    let own = Some(own).filter(|own| check_name(own).is_ok());
    let base = match (own, check_name(&place)) {
        (Some(own), _) => own.to_owned(),
        (None, Ok(())) => place,
        (None, Err(_)) => format!("{}", names.len() + 1),
    };
    let mut name: Arc<str> = base.as_str().into();
    let mut number = names.len();
    while !names.insert(Arc::clone(&name)) {
        number += 1;
        name = format!("{base}~{number}").into();
    }
    name
}
