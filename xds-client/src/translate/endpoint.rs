//! The endpoints of a cluster: `ClusterLoadAssignment`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use tidegate_core::config::{
    ENDPOINTS_MAX, LABELS_MAX,
    model::{Locality, StaticEndpoint},
    value,
};

use super::{Assignment, balance, node::Node, support::METADATA_OF_BALANCERS};
use crate::pb::message::Value;

/// The lowest priority of the API, and of the model.
const PRIORITY_MAX: u32 = 127;

/// The greatest weight of an endpoint in the model.
const WEIGHT_MAX: u64 = 128;

/// Makes the endpoints of an assignment.
pub(super) fn assignment(node: &Node<'_>) -> Assignment {
    let mut weighted: Vec<(StaticEndpoint, u64)> = Vec::new();
    let mut seen = BTreeSet::new();
    for (number, locality) in (0..).zip(node.nodes("endpoints")) {
        let priority = locality.integer::<u32>("priority").unwrap_or(0);
        if priority > PRIORITY_MAX {
            locality.refuse("priority", format!("is more than {PRIORITY_MAX}"));
        }
        let zone = zone(&locality);
        let weight = locality.integer::<u32>("load_balancing_weight");
        let place = Locality {
            number,
            weight: weight.unwrap_or(0),
        };
        for endpoint in locality.nodes("lb_endpoints") {
            let Some(address) = endpoint.node("endpoint").and_then(|inner| address(&inner)) else {
                endpoint.refuse("endpoint", "has no address");
                continue;
            };
            if !seen.insert(address) {
                endpoint.warn(
                    "endpoint",
                    format!("{address} stands twice: the first is taken"),
                );
                continue;
            }
            let weight = endpoint.integer::<u64>("load_balancing_weight");
            if weight == Some(0) {
                endpoint.refuse("load_balancing_weight", "must be at least 1");
            }
            let health = endpoint.word("health_status", "UNKNOWN");
            if health == "DEGRADED" {
                endpoint.warn("health_status", "counts as healthy");
            }
            let made = StaticEndpoint {
                zone: Arc::clone(&zone),
                labels: labels(&endpoint),
                priority,
                locality: place,
                // On purpose; absent and UNKNOWN are for our own checks to say.
                is_out: matches!(health, "UNHEALTHY" | "DRAINING" | "TIMEOUT"),
                ..StaticEndpoint::new(address, 1)
            };
            weighted.push((made, weight.unwrap_or(1).max(1)));
        }
    }
    if weighted.len() > ENDPOINTS_MAX {
        node.refuse(
            "endpoints",
            format!("{} endpoints, at most {ENDPOINTS_MAX}", weighted.len()),
        );
    }
    Assignment {
        endpoints: scaled(weighted),
        overprovisioning: balance::overprovisioning(node),
    }
}

/// Weights above the model's are scaled down together; the lightest keeps a share.
fn scaled(weighted: Vec<(StaticEndpoint, u64)>) -> Vec<StaticEndpoint> {
    let heaviest = weighted
        .iter()
        .map(|(_, weight)| *weight)
        .max()
        .unwrap_or(1);
    let scale = |weight: u64| match heaviest <= WEIGHT_MAX {
        true => weight as u32,
        false => ((u128::from(weight) * u128::from(WEIGHT_MAX) + u128::from(heaviest) / 2)
            / u128::from(heaviest))
        .max(1) as u32,
    };
    let scaled = weighted
        .into_iter()
        .map(|(endpoint, weight)| StaticEndpoint {
            weight: scale(weight),
            ..endpoint
        });
    scaled.collect()
}

fn zone(locality: &Node<'_>) -> Arc<str> {
    let Some(named) = locality.node("locality") else {
        return "".into();
    };
    match named.text("zone") {
        "" => "".into(),
        zone => named
            .checked("zone", value::label(zone))
            .unwrap_or_default(),
    }
}

/// The address of an `Endpoint`.
pub(super) fn address(endpoint: &Node<'_>) -> Option<SocketAddr> {
    let address = endpoint.node("address")?;
    let socket = socket_address(&address)?;
    let text = format_address(&socket)?;
    socket.checked("address", value::endpoint(&text))
}

/// The `SocketAddress` of an `Address`; others are refused by their names.
pub(super) fn socket_address<'a>(address: &Node<'a>) -> Option<Node<'a>> {
    let socket = address.node("socket_address")?;
    if socket.word("protocol", "TCP") != "TCP" {
        socket.refuse("protocol", "only TCP is supported");
    }
    Some(socket)
}

/// `IP:PORT`, unless it is a name.
pub(super) fn format_address(socket: &Node<'_>) -> Option<String> {
    let port = socket.integer::<u16>("port_value").unwrap_or(0);
    match socket.text("address").parse() {
        Ok(ip) => Some(SocketAddr::new(ip, port).to_string()),
        Err(_) => {
            socket.refuse(
                "address",
                format!("`{}` is not an IP address", socket.text("address")),
            );
            None
        }
    }
}

/// The metadata that balancers look at, as far as it is text.
fn labels(endpoint: &Node<'_>) -> BTreeMap<Arc<str>, Arc<str>> {
    let Some(metadata) = endpoint.node("metadata") else {
        return BTreeMap::new();
    };
    let mut labels = BTreeMap::new();
    for (namespace, data) in metadata.entries("filter_metadata") {
        if namespace != METADATA_OF_BALANCERS {
            continue;
        }
        for (key, held) in data.entries("fields") {
            if let Some(Value::Text(text)) = held.value("string_value")
                && let (Ok(key), Ok(text)) = (value::label(key), value::label(text))
            {
                labels.insert(key, text);
            }
        }
    }
    if labels.len() > LABELS_MAX {
        metadata.refuse(
            "filter_metadata",
            format!("{} labels, at most {LABELS_MAX}", labels.len()),
        );
    }
    labels
}
