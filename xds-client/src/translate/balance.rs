//! How load goes over a cluster's priorities, localities and subsets, and the metadata that subsets are found by.

use std::sync::Arc;

use tidegate_core::config::{
    LABELS_MAX,
    model::{Cluster, Fallback, Labels, SubsetSelector, Subsets},
    value,
};

use super::{node::Node, support::METADATA_OF_BALANCERS};
use crate::pb::message::Value;

/// Selectors of a cluster, and keys of one: the bounds of our own format.
const SELECTORS_MAX: usize = 16;
const KEYS_MAX: usize = 16;

/// `common_lb_config` and `lb_subset_config` of a cluster.
pub(super) fn balance(node: &Node<'_>, config: &mut Cluster) {
    if let Some(common) = node.node("common_lb_config") {
        config.failover.by_locality = common.has("locality_weighted_lb_config");
        if let Some(threshold) = common.node("healthy_panic_threshold") {
            config.failover.panic_threshold = percent(&threshold);
        }
    }
    config.subsets = node
        .node("lb_subset_config")
        .map(|subsets| Box::new(self::subsets(&subsets)));
}

/// The factor of an assignment's policy, in percent.
pub(super) fn overprovisioning(assignment: &Node<'_>) -> Option<u32> {
    let policy = assignment.node("policy")?;
    let factor = policy.integer::<u32>("overprovisioning_factor")?;
    let read = match factor {
        // As in Envoy.
        0 => Err("must be more than 0".to_owned()),
        factor => Ok(factor),
    };
    policy.checked("overprovisioning_factor", read)
}

/// A `Percent`, rounded as Envoy does.
fn percent(node: &Node<'_>) -> u32 {
    let given = match node.value("value") {
        Some(Value::Float(given)) => *given,
        _ => 0.0,
    };
    let read = match (0.0..=100.0).contains(&given) {
        true => Ok(given.round() as u32),
        false => Err(format!("{given} is not from 0 to 100")),
    };
    node.checked("value", read).unwrap_or_default()
}

fn subsets(node: &Node<'_>) -> Subsets {
    let selectors = node.nodes("subset_selectors");
    if selectors.len() > SELECTORS_MAX {
        let count = selectors.len();
        node.refuse(
            "subset_selectors",
            format!("{count} selectors, at most {SELECTORS_MAX}"),
        );
    }
    Subsets {
        selectors: selectors.iter().filter_map(selector).collect(),
        fallback: fallback(node).unwrap_or_default(),
        default: node
            .node("default_subset")
            .map_or_else(Labels::new, |data| texts(&data)),
        by_locality: node.flag("locality_weight_aware"),
    }
}

fn selector(node: &Node<'_>) -> Option<SubsetSelector> {
    let keys = node.texts("keys").into_iter();
    let keys = keys.filter_map(|(key, at)| node.checked(&at, value::label(key)));
    let mut keys: Vec<Arc<str>> = keys.collect();
    keys.sort();
    keys.dedup();
    if keys.len() > KEYS_MAX {
        node.refuse("keys", format!("{} keys, at most {KEYS_MAX}", keys.len()));
    }
    // One without keys selects nobody, as in Envoy.
    (!keys.is_empty()).then(|| SubsetSelector {
        keys,
        fallback: fallback(node),
    })
}

fn fallback(node: &Node<'_>) -> Option<Fallback> {
    match node.word("fallback_policy", "") {
        "" | "NOT_DEFINED" => None,
        "NO_FALLBACK" => Some(Fallback::None),
        "ANY_ENDPOINT" => Some(Fallback::AnyEndpoint),
        "DEFAULT_SUBSET" => Some(Fallback::Default),
        other => {
            node.refuse("fallback_policy", format!("{other} is not supported"));
            None
        }
    }
}

/// What a route asks of the subsets of its cluster.
pub(super) fn asked(node: &Node<'_>) -> Labels {
    let Some(metadata) = node.node("metadata_match") else {
        return Labels::new();
    };
    let data = metadata.entries("filter_metadata").into_iter();
    let of_balancers = data.filter(|(namespace, _)| *namespace == METADATA_OF_BALANCERS);
    of_balancers.flat_map(|(_, data)| texts(&data)).collect()
}

/// The texts of a `Struct`; other values are refused, since none of ours would be equal to them.
fn texts(data: &Node<'_>) -> Labels {
    let mut labels = Labels::new();
    for (key, held) in data.entries("fields") {
        let Some(Value::Text(text)) = held.value("string_value") else {
            held.refuse("", "only texts are supported");
            continue;
        };
        let pair = (
            held.checked("", value::label(key)),
            held.checked("", value::label(text)),
        );
        if let (Some(key), Some(text)) = pair {
            labels.insert(key, text);
        }
    }
    if labels.len() > LABELS_MAX {
        data.refuse(
            "fields",
            format!("{} texts, at most {LABELS_MAX}", labels.len()),
        );
    }
    labels
}
