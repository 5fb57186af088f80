//! Fault injection: the filter of that name in a listener, and what routes and virtual hosts say of it.

use std::time::Duration;

use tidegate_core::config::model::{
    AbortWith, Chance, Fault, FaultAbort, FaultDelay, Route, RouteMatch,
};

use super::{matching, node::Node};
use crate::pb::message::Value;

/// The longest delay of our own format.
const DELAY_MAX: Duration = Duration::from_secs(300);

/// What a listener does about faults.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum FaultFilter {
    /// It has no such filter: what routes say of it means nothing, as in Envoy.
    #[default]
    Absent,
    /// It has, with what holds for routes that say nothing.
    Present(Fault),
}

impl FaultFilter {
    /// Gives routes the faults that they have in this listener.
    pub fn apply(&self, routes: &mut [Route]) {
        for route in routes {
            let own = route.fault.take();
            let fault = match self {
                FaultFilter::Absent => None,
                FaultFilter::Present(default) => own.or_else(|| Some(Box::new(default.clone()))),
            };
            route.fault = fault.filter(|fault| fault.delay.is_some() || fault.abort.is_some());
        }
    }
}

/// What a route, or else its virtual host, says of faults.
pub(super) fn of_route(route: &Node<'_>, host: &Node<'_>) -> Option<Box<Fault>> {
    let found = [route, host].into_iter().find_map(per_filter);
    found.map(Box::new)
}

fn per_filter(node: &Node<'_>) -> Option<Fault> {
    let mut found = None;
    let configs = match node.value("typed_per_filter_config") {
        Some(Value::Map(configs)) => configs.as_slice(),
        _ => &[],
    };
    for (key, config) in configs {
        let what = match config {
            Value::Message(_) => continue,
            Value::Opaque(name) => name,
            _ => "this type",
        };
        let field = format!("typed_per_filter_config[\"{key}\"]");
        node.refuse(&field, format!("{what} is not supported"));
    }
    for (_, config) in node.entries("typed_per_filter_config") {
        match config.kind() {
            "HTTPFault" => found = Some(fault(&config)),
            other => config.refuse("", format!("{other} is not supported")),
        }
    }
    found
}

/// Makes the rule of an `HTTPFault`.
pub(super) fn fault(node: &Node<'_>) -> Fault {
    let mut matches = RouteMatch::default();
    for header in node.nodes("headers") {
        matching::header_condition(&header, &mut matches);
    }
    if !matches.methods.is_empty() || !matches.hosts.is_empty() {
        node.refuse("headers", "only header fields are supported");
    }
    Fault {
        delay: node.node("delay").and_then(|node| delay(&node)),
        abort: node.node("abort").and_then(|node| abort(&node)),
        headers: matches.headers,
        active_max: node.integer("max_active_faults"),
    }
}

fn delay(node: &Node<'_>) -> Option<FaultDelay> {
    let fixed = match node.which(&["fixed_delay", "header_delay"]) {
        Some("fixed_delay") => {
            let delay = node.positive("fixed_delay")?;
            if delay > DELAY_MAX {
                node.refuse("fixed_delay", format!("is longer than {DELAY_MAX:?}"));
            }
            Some(delay)
        }
        Some(_) => None,
        None => {
            node.refuse("", "names no delay");
            return None;
        }
    };
    Some(FaultDelay {
        fixed,
        chance: chance(node),
    })
}

fn abort(node: &Node<'_>) -> Option<FaultAbort> {
    let with = match node.which(&["http_status", "grpc_status", "header_abort"]) {
        Some("http_status") => {
            let status = node.integer::<u16>("http_status")?;
            if !(200..600).contains(&status) {
                node.refuse("http_status", format!("{status} is not one of 200 to 599"));
            }
            AbortWith::Http(status)
        }
        Some("grpc_status") => AbortWith::Grpc(node.integer("grpc_status")?),
        Some(_) => AbortWith::Header,
        None => {
            node.refuse("", "names no status");
            return None;
        }
    };
    Some(FaultAbort {
        with,
        chance: chance(node),
    })
}

/// Nobody, if nothing is said.
fn chance(node: &Node<'_>) -> Chance {
    node.node("percentage")
        .map_or(NEVER, |node| fraction(&node))
}

pub(super) const NEVER: Chance = Chance {
    numerator: 0,
    denominator: 100,
};

/// A `FractionalPercent`.
pub(super) fn fraction(node: &Node<'_>) -> Chance {
    Chance {
        numerator: node.integer("numerator").unwrap_or(0),
        denominator: match node.word("denominator", "HUNDRED") {
            "TEN_THOUSAND" => 10_000,
            "MILLION" => 1_000_000,
            _ => 100,
        },
    }
}
