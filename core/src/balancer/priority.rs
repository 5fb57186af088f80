//! How load is shared over priorities, and when a priority panics: Envoy's rules, in its integers
//! ("Priority levels", "Degraded endpoints" left out, "Panic threshold" of its documentation), so that a
//! cluster that moves here from Envoy spills and fails over at the same moments.
//!
//! ```text
//! health(p) = min(100, overprovisioning × available(p) / endpoints(p))
//! total     = min(100, sum of health)
//! load(p)   = min(what is left, health(p) × 100 / total); what rounding leaves goes to the first that has any
//! panics(p) = total < 100 and available(p) / endpoints(p) < threshold
//! ```
//!
//! If all of them panic, load goes by the number of endpoints instead, whatever their health.

/// How many there are, and how many of them may be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// All.
    pub endpoints: u32,
    /// Those that may be chosen.
    pub available: u32,
}

/// What becomes of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Its share of the load, in percent; those of all priorities sum to 100.
    pub percent: u32,
    /// All of its endpoints are used, whatever their health.
    pub panics: bool,
}

/// The loads of priorities, in their order. `overprovisioning` and `panic_threshold` are percentages; a
/// threshold of 0 never panics. Empty priorities may be left out: they make no difference.
pub fn loads(levels: &[Health], overprovisioning: u32, panic_threshold: u32) -> Vec<Load> {
    let health = |level: &Health| level.percent_of(overprovisioning).min(100);
    let total = levels.iter().map(health).sum::<u32>().min(100);
    let mut left = 100;
    let mut loads: Vec<Load> = levels
        .iter()
        .map(|level| {
            let percent = match total {
                0 => 0,
                total => left.min(health(level) * 100 / total),
            };
            left -= percent;
            let panics = total < 100 && level.is_below(panic_threshold);
            Load { percent, panics }
        })
        .collect();
    if total == 0 && panic_threshold == 0 {
        // Nobody may be chosen, and nobody is: it does not matter where that is found out.
        if let Some(first) = loads.first_mut() {
            first.percent = 100;
        }
        return loads;
    }
    if loads.iter().all(|load| load.panics) {
        return by_size(levels);
    }
    let mut first = levels.iter().zip(&mut loads).filter(|(l, _)| health(l) > 0);
    if let Some((_, load)) = first.next() {
        load.percent += left;
    }
    loads
}

/// The loads of priorities that all panic.
fn by_size(levels: &[Health]) -> Vec<Load> {
    let all: u64 = levels.iter().map(|level| u64::from(level.endpoints)).sum();
    let mut loads: Vec<Load> = levels
        .iter()
        .map(|level| Load {
            percent: (u64::from(level.endpoints) * 100)
                .checked_div(all)
                .unwrap_or(0) as u32,
            panics: true,
        })
        .collect();
    let left = 100 - loads.iter().map(|load| load.percent).sum::<u32>();
    let mut first = levels
        .iter()
        .zip(&mut loads)
        .filter(|(level, _)| level.endpoints > 0);
    if let Some((_, load)) = first.next() {
        load.percent += left;
    }
    loads
}

/// The unit of [`locality_weight`]: fine enough for shares, and far from overflow with every locality that
/// a cluster can have.
const LOCALITY_UNIT: u64 = 1 << 12;

/// What a locality's weight comes to, as long as some of its endpoints are out: overprovisioned, like
/// priorities.
pub fn locality_weight(weight: u32, health: Health, overprovisioning: u32) -> u64 {
    if health.endpoints == 0 {
        return 0;
    }
    let whole = 100 * u64::from(health.endpoints);
    let here = whole.min(u64::from(overprovisioning) * u64::from(health.available));
    u64::from(weight) * LOCALITY_UNIT * here / whole
}

impl Health {
    fn percent_of(self, overprovisioning: u32) -> u32 {
        let health = u64::from(overprovisioning) * u64::from(self.available);
        let health = health.checked_div(u64::from(self.endpoints)).unwrap_or(0);
        u32::try_from(health).unwrap_or(u32::MAX)
    }

    fn is_below(self, percent: u32) -> bool {
        if self.endpoints == 0 {
            return percent > 0;
        }
        u64::from(self.available) * 100 < u64::from(percent) * u64::from(self.endpoints)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    fn of(levels: &[(u32, u32)]) -> Vec<Health> {
        let levels = levels.iter();
        levels
            .map(|(available, endpoints)| Health {
                endpoints: *endpoints,
                available: *available,
            })
            .collect()
    }

    /// Goal: loads are those of Envoy's documentation. Method: its tables of two and three priorities, at the
    /// default factor, and of panic.
    #[test]
    fn loads_are_those_of_the_documentation() {
        // Available of 100 in each priority, loads, and who panics.
        for (available, percents, panics) in [
            (&[100, 100][..], &[100, 0][..], &[false, false][..]),
            (&[72, 100], &[100, 0], &[false, false]),
            (&[71, 100], &[99, 1], &[false, false]),
            (&[50, 100], &[70, 30], &[false, false]),
            (&[25, 100], &[35, 65], &[false, false]),
            (&[0, 100], &[0, 100], &[false, false]),
            (&[72, 20], &[100, 0], &[false, false]),
            (&[25, 25], &[50, 50], &[true, true]),
            (&[0, 0], &[50, 50], &[true, true]),
            (&[5, 0, 5], &[34, 33, 33], &[true, true, true]),
            (&[50, 72, 72], &[70, 30, 0], &[false, false, false]),
            (&[25, 40, 72], &[35, 56, 9], &[false, false, false]),
            // 28 + 14 + 56 = 98 < 100, and all are below the threshold.
            (&[20, 10, 40], &[34, 33, 33], &[true, true, true]),
        ] {
            let levels: Vec<_> = available.iter().map(|n| (*n, 100)).collect();
            let loads = loads(&of(&levels), 140, 50);
            let got: Vec<_> = loads.iter().map(|load| load.percent).collect();
            let panicking: Vec<_> = loads.iter().map(|load| load.panics).collect();
            assert_eq!((&*got, &*panicking), (percents, panics), "{available:?}");
        }
    }

    /// Goal: with a threshold of 0 there is no panic, and with one of 100 any loss that is not made up for is.
    /// Method: one and two priorities at the edges.
    #[test]
    fn thresholds_at_their_ends() {
        let load = |percent, panics| Load { percent, panics };
        assert_eq!(loads(&of(&[(0, 3)]), 140, 0), [load(100, false)]);
        assert_eq!(loads(&of(&[(1, 3)]), 140, 0), [load(100, false)]);
        assert_eq!(loads(&of(&[(2, 3)]), 140, 100), [load(100, true)]);
        // 140 % of 3 in 4 is more than enough.
        assert_eq!(loads(&of(&[(3, 4)]), 140, 100), [load(100, false)]);
        assert_eq!(loads(&of(&[(1, 2)]), 140, 50), [load(100, false)]);
        assert_eq!(loads(&of(&[(49, 100)]), 140, 50), [load(100, true)]);
        assert_eq!(loads(&[], 140, 50), []);
        assert_eq!(loads(&of(&[(0, 0)]), 140, 50), [load(0, true)]);
    }

    /// The rules in fractions, as prose has them: what rounding does is at most one percent per priority.
    fn naive(levels: &[Health], overprovisioning: u32) -> Vec<f64> {
        let health = |level: &Health| match level.endpoints {
            0 => 0.0,
            n => f64::from(overprovisioning * level.available / n).min(100.0),
        };
        let total: f64 = levels.iter().map(health).sum::<f64>().min(100.0);
        let mut left = 100.0;
        let shares = levels.iter().map(|level| {
            let share = f64::min(left, health(level) * 100.0 / total);
            left -= share;
            share
        });
        shares.collect()
    }

    proptest! {
        /// Goal: loads sum to 100, are those of the naive rules but for rounding, and go to nobody who has
        /// nobody, unless all panic; whoever panics is below the threshold. Method: random priorities.
        #[test]
        fn loads_agree_with_a_naive_model(
            levels in prop::collection::vec((0u32..20, 0u32..20), 1..6),
            overprovisioning in 100u32..300,
            threshold in 0u32..=100,
        ) {
            let levels: Vec<_> = levels.into_iter().map(|(a, out)| (a, a + out)).collect();
            let health = of(&levels);
            let loads = loads(&health, overprovisioning, threshold);
            let sum: u32 = loads.iter().map(|load| load.percent).sum();
            let is_empty = health.iter().all(|level| level.endpoints == 0);
            prop_assert_eq!(sum, if is_empty && threshold > 0 { 0 } else { 100 });
            let all_panic = loads.iter().all(|load| load.panics);
            for (i, (load, level)) in loads.iter().zip(&health).enumerate() {
                let share = f64::from(level.available) / f64::from(level.endpoints.max(1));
                prop_assert!(!load.panics || share * 100.0 < f64::from(threshold) + 1e-9);
                let may_be_chosen = level.available > 0 || all_panic;
                let is_nobodys = level.available == 0 && health.iter().all(|l| l.available == 0);
                prop_assert!(load.percent == 0 || may_be_chosen || is_nobodys);
                if !all_panic && health.iter().any(|l| l.available * overprovisioning >= l.endpoints.max(1)) {
                    let off = (f64::from(load.percent) - naive(&health, overprovisioning)[i]).abs();
                    prop_assert!(off <= health.len() as f64, "{loads:?}");
                }
            }
        }

        /// Goal: a locality keeps its weight until more is out than overprovisioning makes up for, then loses it
        /// in proportion. Method: against fractions.
        #[test]
        fn locality_weights_agree_with_a_naive_model(
            weight in 1u32.., available in 0u32..1000, out in 0u32..1000, overprovisioning in 100u32..300,
        ) {
            let health = Health { endpoints: available + out, available };
            let share = match health.endpoints {
                0 => 0.0,
                n => (f64::from(overprovisioning) / 100.0 * f64::from(available) / f64::from(n)).min(1.0),
            };
            let expected = f64::from(weight) * share * LOCALITY_UNIT as f64;
            let got = locality_weight(weight, health, overprovisioning) as f64;
            prop_assert!((got - expected).abs() <= 1.0 + expected * 1e-9, "{got} {expected}");
        }
    }
}
