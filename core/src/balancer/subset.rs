//! Subsets of a cluster by the labels of its endpoints, and which of them a request is for: Envoy's
//! `lb_subset_config`. Worked out when a snapshot is compiled, so that a request finds its subset as a number.
//!
//! A selector is a set of keys; the endpoints that have all of them make a subset for each set of values.
//! A request asks with keys and values, which its route gives it, and gets the subset of exactly these; or
//! what the fallback says, if nobody asked, no selector has these keys, or no endpoint these values.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    config::model::{Fallback, Labels, SubsetSelector, Subsets},
    id::{EndpointId, SubsetId},
};

/// Subsets of a cluster. Each is a list of its endpoints, and pools of each shard: enough for every version of
/// every zone, and not for a subset per user. Values beyond have no subset of their own, so that their requests
/// go by the fallback; they are counted.
pub const SUBSETS_MAX: usize = 1024;

/// Where requests go within a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within {
    /// `None` if they go nowhere, as there is no such subset and no fallback.
    pub subset: Option<SubsetId>,
    /// They do not get what they ask for, but what the fallback says.
    pub is_fallback: bool,
}

impl Within {
    /// The whole cluster.
    pub const ALL: Within = Within {
        subset: Some(SubsetId::ALL),
        is_fallback: false,
    };
}

/// The subsets of one cluster.
#[derive(Debug, Default)]
pub struct SubsetTable {
    /// `None` for a cluster without: every request is for all of it.
    rule: Option<Box<Subsets>>,
    by_labels: BTreeMap<Labels, SubsetId>,
    /// By [`SubsetId`] less one: the endpoints of each.
    members: Vec<Vec<EndpointId>>,
    /// Sets of values beyond [`SUBSETS_MAX`].
    dropped: usize,
}

impl SubsetTable {
    /// The subsets of endpoints with these labels, in the order of their ids.
    pub fn compile<'a>(
        rule: Option<&Subsets>,
        endpoints: impl Iterator<Item = &'a Labels> + Clone,
    ) -> SubsetTable {
        let mut table = SubsetTable {
            rule: rule.map(|rule| Box::new(rule.clone())),
            ..SubsetTable::default()
        };
        let Some(rule) = rule else {
            return table;
        };
        let mut members = BTreeMap::<Labels, Vec<EndpointId>>::new();
        for (id, labels) in (0u32..).map(EndpointId).zip(endpoints) {
            let mut add = |subset: Labels| {
                let endpoints = members.entry(subset).or_default();
                // Selectors of the same keys make the same subsets.
                if endpoints.last() != Some(&id) {
                    endpoints.push(id);
                }
            };
            let values = |selector: &SubsetSelector| {
                let pair = |key: &Arc<str>| Some((key.clone(), labels.get(key)?.clone()));
                selector.keys.iter().map(pair).collect::<Option<Labels>>()
            };
            rule.selectors.iter().filter_map(values).for_each(&mut add);
            if !rule.default.is_empty() && contains(labels, &rule.default) {
                add(rule.default.clone());
            }
        }
        // The default is always there, whatever else is: it is what others fall back to.
        let is_default = |(labels, _): &(Labels, Vec<EndpointId>)| *labels != rule.default;
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort_by_key(is_default);
        table.dropped = members.len().saturating_sub(SUBSETS_MAX);
        for ((labels, endpoints), id) in members.into_iter().take(SUBSETS_MAX).zip(1..) {
            table.by_labels.insert(labels, SubsetId(id));
            table.members.push(endpoints);
        }
        table
    }

    /// Where requests go that ask for these labels.
    pub fn find(&self, asked: &Labels) -> Within {
        let Some(rule) = &self.rule else {
            return Within::ALL;
        };
        let selector = rule
            .selectors
            .iter()
            .find(|selector| !asked.is_empty() && selector.keys.iter().eq(asked.keys()));
        if let (Some(_), Some(subset)) = (selector, self.by_labels.get(asked)) {
            return Within {
                subset: Some(*subset),
                is_fallback: false,
            };
        }
        let fallback = selector.and_then(|selector| selector.fallback);
        Within {
            subset: match fallback.unwrap_or(rule.fallback) {
                Fallback::None => None,
                Fallback::AnyEndpoint => Some(SubsetId::ALL),
                // As in Envoy, the default of no labels is everybody.
                Fallback::Default if rule.default.is_empty() => Some(SubsetId::ALL),
                Fallback::Default => self.by_labels.get(&rule.default).copied(),
            },
            is_fallback: true,
        }
    }

    /// The endpoints of each subset, in the order of their ids, which begin at 1.
    pub fn members(&self) -> &[Vec<EndpointId>] {
        &self.members
    }

    /// Every subset by its labels.
    pub fn iter(&self) -> impl Iterator<Item = (&Labels, &[EndpointId])> {
        self.by_labels.iter().filter_map(|(labels, id)| {
            let members = self.members.get(id.index().checked_sub(1)?)?;
            Some((labels, members.as_slice()))
        })
    }

    /// How many sets of values have no subset, since there are too many.
    pub fn dropped(&self) -> usize {
        self.dropped
    }
}

fn contains(labels: &Labels, asked: &Labels) -> bool {
    asked
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    }

    fn rule(fallback: Fallback, default: &[(&str, &str)], selectors: &[&[&str]]) -> Subsets {
        let selectors = selectors.iter().map(|keys| SubsetSelector {
            keys: keys.iter().map(|key| Arc::from(*key)).collect(),
            fallback: None,
        });
        Subsets {
            selectors: selectors.collect(),
            fallback,
            default: labels(default),
            by_locality: false,
        }
    }

    /// Three endpoints: stable in production, canary in production, stable without a stage.
    fn endpoints() -> Vec<Labels> {
        vec![
            labels(&[("version", "stable"), ("stage", "prod")]),
            labels(&[("version", "canary"), ("stage", "prod")]),
            labels(&[("version", "stable")]),
        ]
    }

    fn found(table: &SubsetTable, asked: &[(&str, &str)]) -> (Option<Vec<u32>>, bool) {
        let within = table.find(&labels(asked));
        let members = within.subset.map(|subset| match subset {
            SubsetId::ALL => vec![0, 1, 2],
            SubsetId(id) => {
                let members = table.members().get(id as usize - 1);
                members.into_iter().flatten().map(|id| id.0).collect()
            }
        });
        (members, within.is_fallback)
    }

    /// Goal: a request gets the subset of exactly what it asks for, or the fallback. Method: a table of requests
    /// for each fallback.
    #[test]
    fn requests_find_their_subset() {
        let selectors: &[&[&str]] = &[&["version"], &["stage", "version"]];
        for (fallback, default, falls_to) in [
            (Fallback::None, &[][..], None),
            (Fallback::AnyEndpoint, &[], Some(vec![0, 1, 2])),
            (Fallback::Default, &[("version", "canary")], Some(vec![1])),
            (Fallback::Default, &[("stage", "prod")], Some(vec![0, 1])),
            (Fallback::Default, &[("version", "old")], None),
            (Fallback::Default, &[], Some(vec![0, 1, 2])),
        ] {
            let table = SubsetTable::compile(
                Some(&rule(fallback, default, selectors)),
                endpoints().iter(),
            );
            for (asked, expected) in [
                (&[("version", "stable")][..], Some(vec![0, 2])),
                (&[("version", "canary")], Some(vec![1])),
                (&[("stage", "prod"), ("version", "stable")], Some(vec![0])),
                // No endpoint has it.
                (&[("version", "old")], None),
                // No selector has these keys, though endpoints do.
                (&[("stage", "prod")], None),
                (&[("version", "stable"), ("zone", "a")], None),
                // Nobody asked.
                (&[], None),
            ] {
                let expected = match expected {
                    Some(members) => (Some(members), false),
                    None => (falls_to.clone(), true),
                };
                assert_eq!(found(&table, asked), expected, "{fallback:?} {asked:?}");
            }
        }
    }

    /// Goal: the fallback of a selector goes before that of the cluster. Method: one with, one without.
    #[test]
    fn selectors_have_fallbacks_of_their_own() {
        let mut rule = rule(Fallback::None, &[], &[&["stage"], &["version"]]);
        if let Some(selector) = rule.selectors.first_mut() {
            selector.fallback = Some(Fallback::AnyEndpoint);
        }
        let table = SubsetTable::compile(Some(&rule), endpoints().iter());
        assert_eq!(
            found(&table, &[("stage", "dev")]),
            (Some(vec![0, 1, 2]), true)
        );
        assert_eq!(found(&table, &[("version", "dev")]), (None, true));
    }

    /// Goal: a cluster without subsets is whole for everybody. Method: ask for something.
    #[test]
    fn without_subsets_labels_mean_nothing() {
        let table = SubsetTable::compile(None, endpoints().iter());
        assert_eq!(table.find(&labels(&[("version", "stable")])), Within::ALL);
        assert!(table.members().is_empty());
    }

    /// Goal: labels cannot make subsets without bound, and the default is never the one that is left out. Method:
    /// as many values as there may be, one more, and a default that sorts last.
    #[test]
    fn subsets_are_bounded() {
        for (values, dropped) in [(SUBSETS_MAX, 0), (SUBSETS_MAX + 1, 1)] {
            let rule = rule(Fallback::Default, &[("user", "~")], &[&["user"]]);
            let users: Vec<Labels> = (1..values)
                .map(|user| labels(&[("user", &format!("{user:05}"))]))
                .chain([labels(&[("user", "~")])])
                .collect();
            let table = SubsetTable::compile(Some(&rule), users.iter());
            assert_eq!(table.members().len(), SUBSETS_MAX);
            assert_eq!(table.dropped(), dropped);
            let last = labels(&[("user", &format!("{:05}", values - 1))]);
            assert_eq!(table.find(&last).is_fallback, dropped > 0);
            assert!(!table.find(&labels(&[("user", "~")])).is_fallback);
        }
    }
}
