//! Which part of its load an endpoint is to get, as the center says: one that is full alone gets less, by as much
//! as it is over (H5, L12). What is told lasts until another is told or it expires, so that a center that goes
//! away leaves nobody behind with half a load.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

/// The whole load, in basis points.
pub const WHOLE: u32 = 10_000;

/// What was told of endpoints, by address: an endpoint is the same in every cluster.
#[derive(Clone, Debug, Default)]
pub struct Priors {
    /// Share in basis points, and until when. Never the whole.
    told: BTreeMap<SocketAddr, (u32, Duration)>,
    /// Those that shards have to be told.
    untold: BTreeSet<SocketAddr>,
}

impl Priors {
    /// An endpoint is to get `weight` of its load, 0 to 1, until `until`.
    pub fn set(&mut self, address: SocketAddr, weight: f64, until: Duration) {
        let share = (weight * f64::from(WHOLE)).round() as u32;
        let before = self.share(address);
        match share {
            WHOLE.. => drop(self.told.remove(&address)),
            _ => drop(self.told.insert(address, (share, until))),
        }
        if before != self.share(address) {
            self.untold.insert(address);
        }
    }

    /// What an endpoint is to get, in basis points.
    pub fn share(&self, address: SocketAddr) -> u32 {
        self.told.get(&address).map_or(WHOLE, |(share, _)| *share)
    }

    /// Those that get less than the whole, and until when.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, u32, Duration)> {
        let told = self.told.iter();
        told.map(|(address, (share, until))| (*address, *share, *until))
    }

    /// The endpoints are others now: those that are gone are forgotten, and the rest is told again, since shards
    /// know endpoints by ids that do not last.
    pub fn follow(&mut self, is_known: impl Fn(SocketAddr) -> bool) {
        self.told.retain(|address, _| is_known(*address));
        self.untold = self.told.keys().copied().collect();
    }

    /// Those that shards have to be told at `now`. What has expired is the whole again.
    pub fn take_untold(&mut self, now: Duration) -> BTreeSet<SocketAddr> {
        let untold = &mut self.untold;
        self.told.retain(|address, (_, until)| {
            let lasts = now < *until;
            if !lasts {
                untold.insert(*address);
            }
            lasts
        });
        std::mem::take(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Goal: shards are told of what changes, once, and of its end, without anybody's help (H12). Method: one
    /// endpoint is told, told again, and left alone.
    #[test]
    fn what_is_told_ends() {
        let mut priors = Priors::default();
        priors.set(address(1), 0.25, 10 * SECOND);
        assert_eq!(priors.take_untold(SECOND), BTreeSet::from([address(1)]));
        assert_eq!(priors.share(address(1)), 2_500);
        priors.set(address(1), 0.25, 20 * SECOND);
        assert_eq!(priors.take_untold(15 * SECOND), BTreeSet::new());
        assert_eq!(
            priors.take_untold(20 * SECOND),
            BTreeSet::from([address(1)])
        );
        assert_eq!(priors.share(address(1)), WHOLE);
        assert_eq!(priors.take_untold(21 * SECOND), BTreeSet::new());
    }

    /// Goal: the whole is no prior; what is gone is forgotten, what stays is told under its new id. Method: two
    /// endpoints, one of which leaves.
    #[test]
    fn follows_the_endpoints() {
        let mut priors = Priors::default();
        priors.set(address(1), 0.5, SECOND);
        priors.set(address(2), 0.5, SECOND);
        priors.set(address(3), 1.0, SECOND);
        priors.take_untold(Duration::ZERO);
        priors.follow(|known| known == address(2));
        assert_eq!(priors.iter().count(), 1);
        assert_eq!(
            priors.take_untold(Duration::ZERO),
            BTreeSet::from([address(2)])
        );
        priors.set(address(2), 1.0, SECOND);
        assert_eq!(priors.iter().count(), 0);
        assert_eq!(
            priors.take_untold(Duration::ZERO),
            BTreeSet::from([address(2)])
        );
    }
}
