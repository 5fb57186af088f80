//! How load goes over a cluster's priorities, zones and subsets.

use super::{matching::listed_twice, *};
use crate::config::model::{
    Failover, Fallback, Labels, StaticEndpoint, SubsetSelector, Subsets, WeightedCluster,
};

/// Decodes `failover`; zones count by `zone_weights`, if that is there.
pub(super) fn failover(cluster: &Fields<'_>) -> Failover {
    let fields = cluster.section("failover", &keys::FAILOVER);
    Failover {
        overprovisioning: fields.integer("overprovisioning_percent"),
        panic_threshold: fields.integer("panic_percent"),
        by_locality: cluster.has("zone_weights"),
    }
}

/// Gives endpoints the localities that their zones are, with the weights of `zone_weights`.
pub(super) fn localities(cluster: &Fields<'_>, endpoints: &mut [StaticEndpoint]) {
    let kind = Kind::Integer(1, keys::ZONE_WEIGHT_MAX);
    let mut weights = BTreeMap::<Arc<str>, u32>::new();
    for entry in cluster.map("zone_weights") {
        let weight = fields::read_integer(cluster.report, &entry.key, &entry.value, &kind);
        weights.insert(entry.key.as_str().into(), weight.unwrap_or(1) as u32);
        if !endpoints.iter().any(|endpoint| *endpoint.zone == entry.key) {
            let message = format!("no endpoint is in zone `{}`", entry.key);
            let problem = Problem::new(codes::NO_EFFECT, entry.key_span.clone(), message);
            let help = "remove it, or write `zone` to the endpoints that run there";
            cluster.report.add(problem.label("nobody's").help(help));
        }
    }
    cluster.refuse_empty("zone_weights");
    let zones: std::collections::BTreeSet<Arc<str>> = endpoints
        .iter()
        .map(|endpoint| endpoint.zone.clone())
        .collect();
    let numbers: BTreeMap<Arc<str>, u32> = zones.into_iter().zip(0..).collect();
    for endpoint in endpoints.iter_mut().filter(|_| !weights.is_empty()) {
        endpoint.locality.number = numbers.get(&endpoint.zone).copied().unwrap_or(0);
        endpoint.locality.weight = weights.get(&endpoint.zone).copied().unwrap_or(0);
        if endpoint.locality.weight == 0 {
            let message = format!(
                "`zone_weights` says nothing of the zone of {}",
                endpoint.address
            );
            let span = cluster.key_span("zone_weights");
            let problem = Problem::new(codes::ZERO_WEIGHT, span, message);
            let help = "give its zone a weight";
            cluster.report.add(problem.label("gets nothing").help(help));
        }
    }
}

/// Decodes `subsets`.
pub(super) fn subsets(fields: &Fields<'_>) -> Subsets {
    fields.refuse_empty("selectors");
    let items = fields.list("selectors");
    let open = |node| {
        Fields::open(
            fields.report,
            &keys::SUBSET_SELECTOR,
            node,
            node.span.clone(),
        )
    };
    let selectors = items.iter().map(|node| selector(&open(node))).collect();
    let fallback = fields.word("fallback").and_then(Fallback::of);
    if fallback != Some(Fallback::Default) {
        fields.refuse(
            &["default"],
            "without `fallback: default`",
            "nothing falls back to it: remove it, or write `fallback: default`",
        );
    }
    Subsets {
        selectors,
        fallback: fallback.unwrap_or_default(),
        default: tls::labels(fields, "default"),
        by_locality: fields.flag("zone_weights"),
    }
}

fn selector(fields: &Fields<'_>) -> SubsetSelector {
    fields.refuse_empty("keys");
    let kind = Kind::Text("the key of a label", keys::LABEL_MAX);
    let mut selector: Vec<Arc<str>> = Vec::new();
    for text in texts(fields, "keys", &kind, &fields.list("keys")) {
        let key = checked(fields.report, "keys", &text, syntax::label(&text.text));
        match selector.contains(&key) {
            true => listed_twice(fields.report, "keys", &text),
            false => selector.push(key),
        }
    }
    selector.sort();
    SubsetSelector {
        keys: selector,
        fallback: fields
            .has("fallback")
            .then(|| fields.word("fallback"))
            .flatten()
            .and_then(Fallback::of),
    }
}

/// Adds what a route says of subsets to what its destinations say.
pub(super) fn add_subset(of_route: &Labels, to: &mut [WeightedCluster]) {
    for destination in to {
        for (key, value) in of_route {
            let known = destination.subset.entry(key.clone());
            known.or_insert_with(|| value.clone());
        }
    }
}

/// The clusters of `to` or `split`, whichever is there.
pub(super) fn destinations(
    fields: &Fields<'_>,
    key: &str,
    clusters: &Names<'_>,
) -> Vec<WeightedCluster> {
    if key == "to" {
        let Some(text) = fields.text("to") else {
            return Vec::new();
        };
        check_cluster(fields.report, &text, clusters);
        return vec![WeightedCluster {
            cluster: text.text.into(),
            share: WHOLE,
            subset: Labels::new(),
        }];
    }
    let is_list = |entry: &Entry| matches!(entry.value.value, Value::List(_));
    let read = match fields.entry("split").is_some_and(is_list) {
        true => listed(fields, clusters),
        false => mapped(fields, clusters),
    };
    fields.refuse_empty("split");
    let shares = read.iter().map(|(_, share)| *share);
    let sum = shares.sum::<Option<u32>>().filter(|_| !read.is_empty());
    if let Some(sum) = sum.filter(|sum| *sum != WHOLE) {
        let sum = super::super::quantity::format_share(sum);
        let message = format!("the shares of the split sum to {sum}, not to 100 %");
        let problem = Problem::new(codes::SPLIT_SUM, fields.value_span("split"), message);
        fields.report.add(
            problem
                .label(format!("sums to {sum}"))
                .help("shares are exact: make them sum to 100 %"),
        );
    }
    read.into_iter().map(|(one, _)| one).collect()
}

/// A destination, and its share as far as that could be read.
type Read = (WeightedCluster, Option<u32>);

fn mapped(fields: &Fields<'_>, clusters: &Names<'_>) -> Vec<Read> {
    let entries = fields.map("split").into_iter();
    let mut split: Vec<Read> = entries
        .map(|entry| {
            let name = Text {
                text: entry.key.clone(),
                span: entry.key_span.clone(),
            };
            check_cluster(fields.report, &name, clusters);
            let share = fields::read_share(fields.report, &entry.key, &entry.value, &keys::SHARE);
            destination(fields, name, share, &entry.value.span, Labels::new())
        })
        .collect();
    // Keys of a map have no order: written differently, a sticky split must not move its clients.
    split.sort_by(|(a, _), (b, _)| a.cluster.cmp(&b.cluster));
    split
}

fn listed(fields: &Fields<'_>, clusters: &Names<'_>) -> Vec<Read> {
    let items = fields.list("split");
    let read = items.iter().filter_map(|node| {
        let one = Fields::open(fields.report, &keys::DESTINATION, node, node.span.clone());
        let share = one.share_or_off("share");
        let subset = tls::labels(&one, "subset");
        let name = one.text("to")?;
        check_cluster(fields.report, &name, clusters);
        Some(destination(
            fields,
            name,
            share,
            &one.value_span("share"),
            subset,
        ))
    });
    read.collect()
}

fn destination(
    fields: &Fields<'_>,
    name: Text,
    share: Option<u32>,
    at: &Range<usize>,
    subset: Labels,
) -> Read {
    if share == Some(0) {
        let message = format!("cluster `{}` gets 0 % of the split", name.text);
        let problem = Problem::new(codes::ZERO_WEIGHT, at.clone(), message);
        let help = "remove it, or give it a share";
        fields.report.add(problem.label("gets nothing").help(help));
    }
    let one = WeightedCluster {
        cluster: name.text.into(),
        share: share.unwrap_or(0),
        subset,
    };
    (one, share)
}

/// All of a split, in basis points.
pub(super) const WHOLE: u32 = 10_000;
