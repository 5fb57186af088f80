//! Limits that an operator sets by hand, beside those that are found: of a cluster, of one of its interfaces, or of
//! that at one priority. Of two limits the lower one counts, so that no hand takes an application over its watermark.
//!
//! One of several units is divided over them at each tick: to the highest class first what it asks for, and what is
//! left to all by demand. In use over all of them is never more than the limit, but for what was there when it was set.

use std::{sync::Arc, time::Duration};

use super::{
    Priority,
    baseline::{Usage, demands},
    decision::{Share, divide, make_way},
};

/// What a limit by hand is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    /// Name of the interface, `listener/route`; all of the cluster without one.
    pub interface: Option<Arc<str>>,
    /// Requests of this priority; of all without one.
    pub priority: Option<Priority>,
}

impl Whose {
    /// Whether an interface at a priority is in it.
    pub fn has(&self, interface: &str, priority: Priority) -> bool {
        let is_other = |name: &Arc<str>| **name != *interface;
        !self.interface.as_ref().is_some_and(is_other)
            && self.priority.is_none_or(|p| p == priority)
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.interface.as_deref().unwrap_or("all interfaces"))?;
        match self.priority {
            Some(priority) => write!(f, " ({})", priority.word()),
            None => Ok(()),
        }
    }
}

/// A limit by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandLimit {
    /// Requests in flight over all shards.
    pub total: u32,
    /// When it ends, on the coordinator's clock.
    pub until: Duration,
}

/// Why a limit by hand is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its time is over.
    Expired,
    /// There is no such interface any more.
    Gone,
}

/// A limit on some units together, by their positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cap {
    /// Requests in flight.
    pub total: u32,
    /// Ascending.
    pub units: Vec<usize>,
}

/// The lowest that `caps` leave to each unit; `None` where no cap is on it.
pub(super) fn caps_by_unit(caps: &[Cap], units: &[(Priority, Vec<Usage>)]) -> Vec<Option<u32>> {
    let mut lowest = vec![None; units.len()];
    for cap in caps {
        let members = cap.units.iter().filter_map(|k| units.get(*k));
        let members: Vec<Member> = members.map(|(p, shards)| Member::of(*p, shards)).collect();
        for (k, part) in cap.units.iter().zip(allot(cap.total, &members)) {
            if let Some(slot) = lowest.get_mut(*k) {
                *slot = Some(slot.map_or(part, |known: u32| known.min(part)));
            }
        }
    }
    lowest
}

/// A unit that a cap is on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Member {
    priority: Priority,
    /// Slots that it could use.
    demand: u64,
    in_flight: u32,
}

impl Member {
    fn of(priority: Priority, shards: &[Usage]) -> Member {
        Member {
            priority,
            demand: demands(shards).iter().sum::<f64>().ceil() as u64,
            in_flight: shards.iter().map(|usage| usage.in_flight).sum(),
        }
    }
}

/// Divides a cap over its units.
fn allot(total: u32, members: &[Member]) -> Vec<u32> {
    let mut parts = vec![0; members.len()];
    let mut left = u64::from(total);
    for class in Priority::ALL.into_iter().rev() {
        let of_class = |one: &Member| if one.priority == class { one.demand } else { 0 };
        let demands: Vec<u64> = members.iter().map(of_class).collect();
        let given = left.min(demands.iter().sum());
        add(&mut parts, &divide(given, &demands));
        left -= given;
    }
    // Who asks for nothing now may at once.
    let demands: Vec<u64> = members.iter().map(|one| one.demand + 1).collect();
    add(&mut parts, &divide(left, &demands));
    let slots = |part: &u64| u32::try_from(*part).unwrap_or(u32::MAX);
    let mut shares: Vec<Share> = parts
        .iter()
        .map(|part| Share { slots: slots(part) })
        .collect();
    let held: Vec<u32> = members.iter().map(|one| one.in_flight).collect();
    make_way(total, &mut shares, &held, 0);
    shares.into_iter().map(|share| share.slots).collect()
}

fn add(parts: &mut [u64], more: &[u64]) {
    for (part, more) in parts.iter_mut().zip(more) {
        *part += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(priority: Priority, demand: u64, in_flight: u32) -> Member {
        Member {
            priority,
            demand,
            in_flight,
        }
    }

    /// Goal: the highest class has what it asks for, those below share what is left by demand, and nobody who is idle is
    /// locked out. Method: table.
    #[test]
    fn the_highest_class_is_served_first() {
        use Priority::{Batch, Critical, Normal};
        let of = |demands: [u64; 4]| {
            let [critical, one, other, batch] = demands;
            [
                member(Critical, critical, 0),
                member(Normal, one, 0),
                member(Normal, other, 0),
                member(Batch, batch, 0),
            ]
        };
        for (total, demands, expected) in [
            (0, [5, 5, 5, 5], [0, 0, 0, 0]),
            (10, [20, 5, 5, 5], [10, 0, 0, 0]),
            (10, [4, 12, 6, 5], [4, 4, 2, 0]),
            (20, [4, 8, 6, 5], [4, 8, 6, 2]),
            (8, [0, 0, 0, 0], [2, 2, 2, 2]),
            (20, [3, 3, 3, 3], [5, 5, 5, 5]),
        ] {
            assert_eq!(allot(total, &of(demands)), expected, "{total} {demands:?}");
        }
    }

    proptest! {
        /// Goal: slots are neither lost nor invented, and what moves from one unit to another waits until it is free:
        /// no more is in flight than the limit, but for what was there already. Method: any demands and requests in
        /// flight.
        #[test]
        fn caps_hold_over_all_units(
            total in 0u32..1_000,
            units in prop::collection::vec((prop::sample::select(&Priority::ALL[..]), 0u64..500, 0u32..200), 1..12),
        ) {
            let members: Vec<Member> = units
                .iter()
                .map(|(p, demand, held)| member(*p, *demand, *held))
                .collect();
            let parts = allot(total, &members);
            let most: u32 = parts.iter().zip(&members).map(|(part, one)| (*part).max(one.in_flight)).sum();
            let held: u32 = members.iter().map(|one| one.in_flight).sum();
            prop_assert_eq!(most, total.max(held));
        }
    }

    /// Goal: of several limits on a unit the lowest counts, and on others there is none. Method: a cap on two of three
    /// units and one on the second.
    #[test]
    fn the_lowest_counts() {
        let usage = Usage {
            in_flight: 4,
            ..Usage::default()
        };
        let units: Vec<_> = (0..3).map(|_| (Priority::Normal, vec![usage])).collect();
        let both = Cap {
            total: 20,
            units: vec![0, 1],
        };
        let second = Cap {
            total: 3,
            units: vec![1],
        };
        let caps = caps_by_unit(&[both, second], &units);
        assert_eq!(caps, [Some(10), Some(3), None]);
    }

    /// Goal: a limit is of what it says. Method: every kind of it.
    #[test]
    fn limits_are_of_what_they_say() {
        let whose = |interface: Option<&str>, priority| Whose {
            interface: interface.map(Arc::from),
            priority,
        };
        use Priority::{Batch, Normal};
        for (it, said, has) in [
            (whose(None, None), "all interfaces", [true, true, true]),
            (whose(Some("web/a"), None), "web/a", [true, true, false]),
            (
                whose(None, Some(Batch)),
                "all interfaces (batch)",
                [false, true, true],
            ),
            (
                whose(Some("web/a"), Some(Batch)),
                "web/a (batch)",
                [false, true, false],
            ),
        ] {
            assert_eq!(it.to_string(), said);
            let units = [("web/a", Normal), ("web/a", Batch), ("web/b", Batch)];
            assert_eq!(
                units.map(|(name, priority)| it.has(name, priority)),
                has,
                "{said}"
            );
        }
    }
}
