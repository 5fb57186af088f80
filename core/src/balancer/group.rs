//! A whole cluster, or a subset of it: its priorities with their localities, and how load goes to them.
//!
//! ```text
//! priority by the loads of `priority` → (in panic: all its endpoints)
//!                                     → locality by its weight, if the cluster goes by locality
//!                                     → endpoint by the policy
//! ```
//!
//! A group of one priority that does not go by locality is one pool, and costs what that costs.

use std::{collections::BTreeMap, time::Duration};

use super::{
    EndpointInput, Rules,
    members::scale,
    mix,
    pool::{Draw, Pool},
    priority::{self, Health, Load},
    slots::Slots,
};

/// Sets the draw of a priority, and of a locality, apart from that of an endpoint.
const PRIORITY_SEED: u64 = 0x7072_696f_7269_7479;
const LOCALITY_SEED: u64 = 0x6c6f_6361_6c69_7479;

/// Some endpoints of a cluster by priority.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// By priority, ascending; only those that have endpoints.
    levels: Vec<Level>,
}

/// The endpoints of one priority.
#[derive(Debug)]
struct Level {
    priority: u32,
    load: Load,
    /// All of them.
    pool: Pool,
    /// The same by locality, with its weight; empty in a group that does not go by locality.
    localities: Vec<Locality>,
    /// By place in `localities`: the sum of effective weights up to and including it.
    sums: Vec<u64>,
}

#[derive(Debug)]
struct Locality {
    id: u32,
    weight: u32,
    pool: Pool,
}

impl Group {
    /// A group of `members`, ascending places in `inputs`; nobody may be chosen before a
    /// [`refill`](Self::refill).
    pub(super) fn new(
        rules: &Rules,
        by_locality: bool,
        inputs: &[EndpointInput],
        members: Vec<u32>,
        slots: &Slots,
    ) -> Group {
        let input = |member: &u32| inputs.get(*member as usize).copied().unwrap_or_default();
        let of_level = split_by(members, |member| input(member).priority);
        let levels = of_level.into_iter().map(|(priority, members)| {
            let localities = match by_locality {
                true => split_by(members.clone(), |member| input(member).locality),
                false => Vec::new(),
            };
            let localities = localities.into_iter().map(|(id, members)| Locality {
                id,
                weight: members.first().map_or(0, |m| input(m).locality_weight),
                pool: Pool::new(rules.policy, members, slots),
            });
            Level {
                priority,
                load: Load::default(),
                localities: localities.collect(),
                sums: Vec::new(),
                pool: Pool::new(rules.policy, members, slots),
            }
        });
        Group {
            levels: levels.collect(),
        }
    }

    /// Takes over what is still good of the group in its place before.
    pub(super) fn inherit(&mut self, before: Group, moved: &[Option<u32>], same: bool) {
        let mut before: BTreeMap<u32, Level> = by_key(before.levels, |level| level.priority);
        for level in &mut self.levels {
            let Some(old) = before.remove(&level.priority) else {
                continue;
            };
            level.pool.inherit(old.pool, moved, same);
            let mut before = by_key(old.localities, |locality| locality.id);
            for locality in &mut level.localities {
                if let Some(old) = before.remove(&locality.id) {
                    locality.pool.inherit(old.pool, moved, same);
                }
            }
        }
    }

    /// Availability changed: loads, localities and pools follow.
    pub(super) fn refill(&mut self, rules: &Rules, slots: &Slots, now: Duration) {
        let health: Vec<Health> = self
            .levels
            .iter()
            .map(|level| level.pool.health(slots))
            .collect();
        let loads = priority::loads(&health, rules.overprovisioning, rules.panic_threshold);
        for (level, load) in self.levels.iter_mut().zip(loads) {
            level.load = load;
            level.refill(rules, slots, now);
        }
    }

    /// The weight of an endpoint changed.
    pub(super) fn weigh(&mut self, endpoint: u32, slots: &Slots, now: Duration) {
        for pool in self.levels.iter_mut().flat_map(Level::pools) {
            if pool.members.contains(endpoint) {
                pool.weigh(slots, now);
            }
        }
    }

    pub(super) fn contains(&self, endpoint: u32) -> bool {
        let mut levels = self.levels.iter();
        levels.any(|level| level.pool.members.contains(endpoint))
    }

    /// Whether some priority uses all of its endpoints, whatever their health.
    pub(super) fn is_panicking(&self) -> bool {
        self.levels.iter().any(|level| level.load.panics)
    }

    /// Priorities with their loads.
    pub(super) fn loads(&self) -> impl Iterator<Item = (u32, Load)> {
        self.levels.iter().map(|level| (level.priority, level.load))
    }

    /// `by` is what priority and locality are chosen by. `None` only if nobody may be chosen.
    #[inline]
    pub(super) fn pick(&mut self, slots: &Slots, by: u64, draw: &Draw<'_>) -> Option<u32> {
        if let [only] = self.levels.as_mut_slice()
            && only.localities.is_empty()
        {
            return only.pool.pick(slots, draw);
        }
        self.pick_level(slots, by, draw)
    }

    fn pick_level(&mut self, slots: &Slots, by: u64, draw: &Draw<'_>) -> Option<u32> {
        let mut point = scale(mix(by ^ PRIORITY_SEED), 100) as u32;
        let level = self.levels.iter_mut().find(|level| {
            let is_here = point < level.load.percent;
            point = point.saturating_sub(level.load.percent);
            is_here
        })?;
        let picked = level.choose(by).pick(slots, draw)?;
        if !draw.has_tried(picked) {
            return Some(picked);
        }
        // A request that has failed on all of them goes where another one is left.
        let others = self.levels.iter_mut().flat_map(Level::pools);
        let mut others = others.filter_map(|pool| pool.pick(slots, draw));
        others
            .find(|other| !draw.has_tried(*other))
            .or(Some(picked))
    }
}

impl Level {
    fn pools(&mut self) -> impl Iterator<Item = &mut Pool> {
        let localities = self
            .localities
            .iter_mut()
            .map(|locality| &mut locality.pool);
        std::iter::once(&mut self.pool).chain(localities)
    }

    fn refill(&mut self, rules: &Rules, slots: &Slots, now: Duration) {
        let panics = self.load.panics;
        self.pools()
            .for_each(|pool| pool.refill(slots, panics, now));
        let weights = self.localities.iter().map(|locality| {
            let health = locality.pool.health(slots);
            priority::locality_weight(locality.weight, health, rules.overprovisioning)
        });
        self.sums.clear();
        self.sums.extend(weights.scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        }));
    }

    /// A locality by its weight; everybody in panic, or where none has a weight.
    fn choose(&mut self, by: u64) -> &mut Pool {
        let total = self.sums.last().copied().unwrap_or(0);
        if total == 0 || self.load.panics {
            return &mut self.pool;
        }
        let point = scale(mix(by ^ LOCALITY_SEED), total);
        let at = self.sums.partition_point(|sum| *sum <= point);
        match self.localities.get_mut(at) {
            Some(locality) => &mut locality.pool,
            None => &mut self.pool,
        }
    }
}

impl Pool {
    fn health(&self, slots: &Slots) -> Health {
        let all = self.members.all();
        let available = all.iter().filter(|e| slots.is_available(**e));
        Health {
            endpoints: all.len() as u32,
            available: available.count() as u32,
        }
    }
}

fn by_key<T>(of: Vec<T>, key: impl Fn(&T) -> u32) -> BTreeMap<u32, T> {
    of.into_iter().map(|one| (key(&one), one)).collect()
}

/// Members by a key, ascending.
fn split_by(members: Vec<u32>, key: impl Fn(&u32) -> u32) -> Vec<(u32, Vec<u32>)> {
    let mut split = BTreeMap::<u32, Vec<u32>>::new();
    for member in members {
        split.entry(key(&member)).or_default().push(member);
    }
    split.into_iter().collect()
}
