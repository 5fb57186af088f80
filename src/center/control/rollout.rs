//! Which world is for which node: a new one for all at once, or first for some (a canary), and then for all, or not at
//! all. Pure: what happens comes in, with the time and who it was; whoever serves asks which world is whose.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tidegate_xds::server::{streams::Node, world::World};

/// Pushes that are kept, to go back to. Each holds its resources as far as no other has the same.
pub(super) const HISTORY_MAX: usize = 16;

/// Bytes of the resources of all pushes that are kept to go back to: four of the largest.
pub(super) const HISTORY_BYTES_MAX: usize = 256 << 20;

/// Words of a selector.
const WORDS_MAX: usize = 1000;

/// Who gets a push first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    /// So many of 10,000 nodes, by a hash of their ids: the same nodes each time, and more of them as it grows.
    Share(u32),
    /// Nodes with one of these ids.
    Ids(Vec<String>),
    /// Nodes of one of these clusters: what our own proxies call their `app`.
    Clusters(Vec<String>),
    /// Nodes in one of these zones.
    Zones(Vec<String>),
}

impl Selector {
    fn selects(&self, node: &Node) -> bool {
        match self {
            Selector::Share(share) => place(&node.id) < *share,
            Selector::Ids(ids) => ids.contains(&node.id),
            Selector::Clusters(clusters) => clusters.contains(&node.cluster),
            Selector::Zones(zones) => zones.contains(&node.zone),
        }
    }
}

/// Where a node stands among 10,000: the same on every center.
fn place(id: &str) -> u32 {
    let hash = digest(&SHA256, id.as_bytes());
    let first = hash.as_ref().first_chunk::<4>();
    first.map_or(0, |bytes| u32::from_be_bytes(*bytes) % 10_000)
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Selector, String> {
        const FORMS: &str = "use 10%, id=NODE,NODE, cluster=NAME,NAME or zone=NAME,NAME";
        if let Some(percent) = text.strip_suffix('%') {
            let share: f64 = percent.parse().map_err(|_| FORMS)?;
            if !(0.01..=100.0).contains(&share) {
                return Err("a share lies between 0.01% and 100%".into());
            }
            return Ok(Selector::Share((share * 100.0).round() as u32));
        }
        let (key, words) = text.split_once('=').ok_or(FORMS)?;
        let words: Vec<String> = words.split(',').map(str::to_owned).collect();
        if words.len() > WORDS_MAX || words.iter().any(String::is_empty) {
            return Err(FORMS.into());
        }
        match key {
            "id" => Ok(Selector::Ids(words)),
            "cluster" => Ok(Selector::Clusters(words)),
            "zone" => Ok(Selector::Zones(words)),
            _ => Err(FORMS.into()),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Share(share) => write!(f, "{}%", f64::from(*share) / 100.0),
            Selector::Ids(ids) => write!(f, "id={}", ids.join(",")),
            Selector::Clusters(clusters) => write!(f, "cluster={}", clusters.join(",")),
            Selector::Zones(zones) => write!(f, "zone={}", zones.join(",")),
        }
    }
}

/// A world that was to be served.
#[derive(Clone, Debug)]
pub(super) struct Push {
    /// Counts from one.
    pub(super) number: u64,
    /// When it came, since the Unix epoch.
    pub(super) at: Duration,
    pub(super) world: Arc<World>,
}

/// A push that some nodes have.
#[derive(Clone, Debug)]
pub(super) struct Canary {
    pub(super) push: Push,
    /// Why nobody has it any more, if it was refused.
    pub(super) halted: Option<Halt>,
}

/// Who refused a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Halt {
    /// Since the Unix epoch.
    pub(super) at: Duration,
    pub(super) node: String,
    pub(super) error: String,
}

/// How a rollout stands, without its worlds: what outlives the process beside them.
#[derive(Serialize, Deserialize)]
struct Standing {
    stable: u64,
    canary: Option<u64>,
    halted: Option<Halt>,
    /// The newest last.
    history: Vec<u64>,
    withdrawn: Option<String>,
    pushes: u64,
    /// When each of these came, by number.
    at: BTreeMap<u64, Duration>,
}

/// Why something that was asked for cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotDone {
    NoCanary,
    Halted,
    NothingBefore,
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotDone::NoCanary => "there is no canary",
            NotDone::Halted => {
                "the canary was halted by a refusal: change the resources, or roll back"
            }
            NotDone::NothingBefore => "there is no push before this one",
        })
    }
}

/// What is served to whom.
#[derive(Debug)]
pub(super) struct Rollout {
    /// Who gets a push first; nobody: all get it at once.
    selector: Option<Selector>,
    stable: Push,
    canary: Option<Canary>,
    /// What was stable before, the newest last.
    history: VecDeque<Push>,
    /// The version that was rolled back: the source still has it, and it does not come again until the source has
    /// another.
    withdrawn: Option<Arc<str>>,
    pushes: u64,
}

impl Rollout {
    /// With what is served at first, to all.
    pub(super) fn new(selector: Option<Selector>, at: Duration, world: Arc<World>) -> Rollout {
        Rollout {
            selector,
            stable: Push {
                number: 1,
                at,
                world,
            },
            canary: None,
            history: VecDeque::new(),
            withdrawn: None,
            pushes: 1,
        }
    }

    /// What was [saved](Self::standing), with its worlds; nothing if a part of it is missing.
    pub(super) fn restore(
        selector: Option<Selector>,
        standing: &str,
        mut worlds: BTreeMap<u64, Arc<World>>,
    ) -> Option<Rollout> {
        let standing: Standing = serde_json::from_str(standing).ok()?;
        let mut push = |number: u64| {
            Some(Push {
                number,
                at: *standing.at.get(&number)?,
                world: worlds.remove(&number)?,
            })
        };
        let stable = push(standing.stable)?;
        let history = standing.history.iter().map(|number| push(*number));
        let history = history.collect::<Option<_>>()?;
        let canary = match standing.canary {
            Some(number) => Some(Canary {
                push: push(number)?,
                halted: standing.halted,
            }),
            None => None,
        };
        Some(Rollout {
            selector,
            stable,
            canary,
            history,
            withdrawn: standing.withdrawn.map(Into::into),
            pushes: standing.pushes,
        })
    }

    /// How it stands, to be kept beside its [pushes](Self::kept).
    pub(super) fn standing(&self) -> String {
        let standing = Standing {
            stable: self.stable.number,
            canary: self.canary.as_ref().map(|canary| canary.push.number),
            halted: self
                .canary
                .as_ref()
                .and_then(|canary| canary.halted.clone()),
            history: self.history.iter().map(|push| push.number).collect(),
            withdrawn: self.withdrawn.as_ref().map(ToString::to_string),
            pushes: self.pushes,
            at: self.kept().map(|push| (push.number, push.at)).collect(),
        };
        // Of numbers and texts alone: it cannot fail.
        serde_json::to_string(&standing).unwrap_or_default()
    }

    /// Every push that is held.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Push> {
        let canary = self.canary.iter().map(|canary| &canary.push);
        self.history.iter().chain([&self.stable]).chain(canary)
    }

    pub(super) fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }

    pub(super) fn stable(&self) -> &Push {
        &self.stable
    }

    pub(super) fn canary(&self) -> Option<&Canary> {
        self.canary.as_ref()
    }

    pub(super) fn history(&self) -> impl DoubleEndedIterator<Item = &Push> {
        self.history.iter()
    }

    pub(super) fn withdrawn(&self) -> Option<&Arc<str>> {
        self.withdrawn.as_ref()
    }

    /// The newest of all, served or not.
    pub(super) fn newest(&self) -> &Arc<World> {
        let push = self.canary.as_ref().map_or(&self.stable, |one| &one.push);
        &push.world
    }

    pub(super) fn is_canary(&self, node: &Node) -> bool {
        let selector = self.selector.as_ref();
        selector.is_some_and(|selector| selector.selects(node))
    }

    /// What a node is served.
    pub(super) fn world_for(&self, node: &Node) -> &Arc<World> {
        match &self.canary {
            Some(canary) if canary.halted.is_none() && self.is_canary(node) => &canary.push.world,
            _ => &self.stable.world,
        }
    }

    /// The source has this now. Whether that is anything new.
    pub(super) fn push(&mut self, now: Duration, world: Arc<World>) -> bool {
        let version = world.version();
        if self.withdrawn.as_ref() == Some(version) || self.newest().version() == version {
            return false;
        }
        self.withdrawn = None;
        if self.stable.world.version() == version {
            // The source went back by itself.
            self.canary = None;
            return true;
        }
        self.pushes += 1;
        let push = Push {
            number: self.pushes,
            at: now,
            world,
        };
        match self.selector {
            Some(_) => self.canary = Some(Canary { push, halted: None }),
            None => self.settle(push),
        }
        true
    }

    /// A node refused a part of a world: nobody else is to get it. Whether that ended a canary.
    pub(super) fn refused(&mut self, now: Duration, node: &Node, world: &str, error: &str) -> bool {
        let Some(canary) = &mut self.canary else {
            return false;
        };
        if canary.halted.is_some() || **canary.push.world.version() != *world {
            return false;
        }
        canary.halted = Some(Halt {
            at: now,
            node: node.id.clone(),
            error: error.to_owned(),
        });
        true
    }

    /// The canary is for all.
    pub(super) fn promote(&mut self) -> Result<(), NotDone> {
        let canary = self.canary.take_if(|canary| canary.halted.is_none());
        match canary {
            Some(canary) => {
                self.settle(canary.push);
                Ok(())
            }
            None if self.canary.is_some() => Err(NotDone::Halted),
            None => Err(NotDone::NoCanary),
        }
    }

    /// Back by one push: the canary is withdrawn, or what all have for what they had before.
    pub(super) fn roll_back(&mut self) -> Result<(), NotDone> {
        let left = match self.canary.take() {
            Some(canary) => canary.push,
            None => {
                let before = self.history.pop_back().ok_or(NotDone::NothingBefore)?;
                std::mem::replace(&mut self.stable, before)
            }
        };
        self.withdrawn = Some(left.world.version().clone());
        Ok(())
    }

    fn settle(&mut self, push: Push) {
        let before = std::mem::replace(&mut self.stable, push);
        self.history.push_back(before);
        let bytes = |history: &VecDeque<Push>| -> usize {
            history.iter().map(|push| push.world.bytes()).sum()
        };
        while self.history.len() > HISTORY_MAX || bytes(&self.history) > HISTORY_BYTES_MAX {
            self.history.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tidegate_xds::{server::world::Resource, subscription::ResourceType};

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn world(version: &str) -> Arc<World> {
        world_of(version, 0)
    }

    fn world_of(version: &str, bytes: usize) -> Arc<World> {
        let resource = Resource {
            name: "a".into(),
            version: version.into(),
            bytes: vec![0; bytes],
        };
        let resources = [(ResourceType::Cluster, Arc::new(resource))];
        Arc::new(World::new(resources, |text| text.into()))
    }

    fn node(id: &str) -> Node {
        Node {
            id: id.into(),
            cluster: "edge".into(),
            zone: "hz-a".into(),
            agent: String::new(),
        }
    }

    /// Rollout with `id=c` as the canary, and what `c` and `d` are served, by version.
    struct Fleet(Rollout);

    impl Fleet {
        fn new(selector: &str) -> Fleet {
            let selector = (!selector.is_empty()).then(|| selector.parse().unwrap());
            Fleet(Rollout::new(selector, NOW, world("1")))
        }

        fn push(&mut self, version: &str) -> bool {
            self.0.push(NOW, world(version))
        }

        fn refuse(&mut self, id: &str, version: &str) -> bool {
            let version = world(version).version().clone();
            self.0.refused(NOW, &node(id), &version, "bad")
        }

        fn served(&self) -> (String, String) {
            let of = |id: &str| {
                let world = self.0.world_for(&node(id));
                let one = world.resource(ResourceType::Cluster, "a").unwrap();
                one.version.to_string()
            };
            (of("c"), of("d"))
        }
    }

    fn both(c: &str, d: &str) -> (String, String) {
        (c.into(), d.into())
    }

    /// Goal: without a selector a push is for all; with one it is for some until it is promoted. Method: a push, the
    /// same again, a promotion.
    #[test]
    fn canary_comes_first() {
        let mut fleet = Fleet::new("");
        assert!(fleet.push("2"));
        assert_eq!(fleet.served(), both("2", "2"));
        assert_eq!(fleet.0.promote(), Err(NotDone::NoCanary));
        let mut fleet = Fleet::new("id=c,x");
        assert!(fleet.push("2"));
        assert!(!fleet.push("2"), "nothing new");
        assert_eq!(fleet.served(), both("2", "1"));
        assert!(fleet.push("3"), "another one in place of it");
        assert_eq!(fleet.served(), both("3", "1"));
        fleet.0.promote().unwrap();
        assert_eq!(fleet.served(), both("3", "3"));
        assert_eq!(fleet.0.history().count(), 1);
    }

    /// Goal: a canary that is refused ends by itself, and its nodes go back; it cannot be promoted, only mended. Method:
    /// a refusal of the stable world, of the canary, and a new push.
    #[test]
    fn refusal_halts_the_canary() {
        let mut fleet = Fleet::new("id=c");
        assert!(!fleet.refuse("d", "1"));
        fleet.push("2");
        assert!(!fleet.refuse("d", "1"), "the stable one");
        assert!(fleet.refuse("c", "2"));
        assert!(!fleet.refuse("c", "2"), "once");
        assert_eq!(fleet.served(), both("1", "1"));
        assert_eq!(fleet.0.promote(), Err(NotDone::Halted));
        assert_eq!(fleet.0.canary().unwrap().halted.as_ref().unwrap().node, "c");
        assert!(!fleet.push("2"), "it is what is halted");
        assert!(fleet.push("3"));
        assert_eq!(fleet.served(), both("3", "1"));
        assert!(fleet.push("1"), "the source went back by itself");
        assert!(fleet.0.canary().is_none());
    }

    /// Goal: there is a way back from a canary and from what all have, and the source does not undo it. Method: both, and
    /// the source as it was, then with something new.
    #[test]
    fn way_back_holds() {
        let mut fleet = Fleet::new("id=c");
        fleet.push("2");
        fleet.0.roll_back().unwrap();
        assert_eq!(fleet.served(), both("1", "1"));
        assert!(!fleet.push("2"), "it was withdrawn");
        assert!(fleet.push("3"));
        fleet.0.promote().unwrap();
        fleet.0.roll_back().unwrap();
        assert_eq!(fleet.served(), both("1", "1"));
        assert!(!fleet.push("3"));
        assert_eq!(fleet.0.roll_back(), Err(NotDone::NothingBefore));
        assert!(fleet.push("4"));
        assert!(fleet.0.withdrawn().is_none());
    }

    /// Goal: what is kept is bounded. Method: as many pushes as are kept, and one more.
    #[test]
    fn history_is_bounded() {
        let mut fleet = Fleet::new("");
        for push in 2..=HISTORY_MAX + 1 {
            fleet.push(&push.to_string());
        }
        let oldest = |fleet: &Fleet| fleet.0.history().next().unwrap().number;
        assert_eq!(
            (fleet.0.history().count(), oldest(&fleet)),
            (HISTORY_MAX, 1)
        );
        fleet.push("x");
        assert_eq!(
            (fleet.0.history().count(), oldest(&fleet)),
            (HISTORY_MAX, 2)
        );
    }

    /// Goal: pushes that are kept are bounded in bytes, too. Method: two with as many as are allowed together, and with
    /// one more.
    #[test]
    fn history_is_bounded_in_bytes() {
        for (bytes, kept) in [(HISTORY_BYTES_MAX / 2, 2), (HISTORY_BYTES_MAX / 2 + 1, 1)] {
            let first = world_of("1", HISTORY_BYTES_MAX / 2);
            let mut rollout = Rollout::new(None, NOW, first);
            rollout.push(NOW, world_of("2", bytes));
            rollout.push(NOW, world("3"));
            assert_eq!(rollout.history().count(), kept);
        }
    }

    /// Goal: a rollout outlives the process as it was. Method: one with everything in it, there and back; and one of
    /// whose worlds one is missing.
    #[test]
    fn rollouts_are_restored() {
        let mut fleet = Fleet::new("id=c");
        for version in ["2", "3"] {
            fleet.push(version);
            fleet.0.promote().unwrap();
        }
        fleet.0.roll_back().unwrap();
        fleet.push("4");
        fleet.refuse("c", "4");
        let worlds: BTreeMap<u64, Arc<World>> = fleet
            .0
            .kept()
            .map(|push| (push.number, push.world.clone()))
            .collect();
        assert_eq!(worlds.keys().copied().collect::<Vec<u64>>(), [1, 2, 4]);
        let standing = fleet.0.standing();
        let restore = |worlds| Rollout::restore(fleet.0.selector().cloned(), &standing, worlds);
        let mut restored = Fleet(restore(worlds.clone()).unwrap());
        assert_eq!(restored.0.standing(), standing);
        assert_eq!(restored.served(), both("2", "2"));
        assert_eq!(restored.0.promote(), Err(NotDone::Halted));
        restored.0.roll_back().unwrap();
        assert!(!restored.push("4"), "it was withdrawn");
        restored.0.roll_back().unwrap();
        assert_eq!(restored.served(), both("1", "1"));
        restored.push("5");
        assert_eq!(restored.0.canary().unwrap().push.number, 5, "numbers go on");
        for number in worlds.keys() {
            let mut some = worlds.clone();
            some.remove(number);
            assert!(restore(some).is_none());
        }
    }

    /// Goal: a share takes in as many as it says, and keeps whom it has as it grows. Method: ten thousand nodes.
    #[test]
    fn shares_grow_by_the_same_nodes() {
        let nodes: Vec<Node> = (0..10_000).map(|n| node(&format!("node-{n}"))).collect();
        let chosen = |text: &str| {
            let selector: Selector = text.parse().unwrap();
            let is_chosen = nodes.iter().map(|node| selector.selects(node));
            is_chosen.collect::<Vec<bool>>()
        };
        let (few, many) = (chosen("10%"), chosen("20%"));
        let count = |chosen: &[bool]| chosen.iter().filter(|is_chosen| **is_chosen).count();
        // Five standard deviations of a binomial.
        assert!((850..1150).contains(&count(&few)), "{}", count(&few));
        assert!((1800..2200).contains(&count(&many)), "{}", count(&many));
        assert!(few.iter().zip(&many).all(|(few, many)| !few || *many));
        assert_eq!(count(&chosen("100%")), 10_000);
    }

    /// Goal: selectors are read as they are shown, and mistakes are told. Method: table.
    #[test]
    fn selectors_are_read() {
        for text in [
            "10%",
            "0.01%",
            "100%",
            "id=a,b",
            "cluster=edge",
            "zone=hz-a,hz-b",
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
        for bad in ["", "0%", "101%", "x%", "id=", "id=a,,b", "name=a", "half"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
        let too_many = format!("id={}", vec!["a"; WORDS_MAX + 1].join(","));
        assert!(too_many.parse::<Selector>().is_err());
        assert!(too_many[..too_many.len() - 2].parse::<Selector>().is_ok());
        for (text, is_chosen) in [("cluster=edge", true), ("zone=hz-b", false)] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.selects(&node("a")), is_chosen, "{text}");
        }
    }
}
