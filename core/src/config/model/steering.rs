//! The steering program: which requests go elsewhere than their route says, rule by rule.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use super::{HashOn, ValuePattern};
use crate::limiter::bucket::Rate;

/// Places of an application at most: what flows between any two of them is counted.
pub const PLACES_MAX: usize = 32;
/// Rules at most.
pub const RULES_MAX: usize = 16_384;

/// The program with what it speaks of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steering {
    /// What may be steered, by name.
    pub applications: BTreeMap<Arc<str>, Application>,
    /// In order: of those that place a request, the first that matches decides.
    pub rules: Vec<Rule>,
    /// Where a request carries what rules ask about.
    pub marks: Marks,
    /// Peers whose hop mark is believed (S12).
    pub trusted_peers: Vec<Network>,
    /// Whether answers say what was decided (S16).
    pub response_header: bool,
    /// A program that is evaluated beside this one, and decides nothing (S15). Not of the file.
    pub next: Option<Box<Steering>>,
}

/// Where its requests may go. A place is a unit or a group, and each is a cluster of its own: so it has its
/// own connections, its own circuit and its own limits (S10).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Application {
    /// Deployment units, with their clusters.
    pub units: BTreeMap<Arc<str>, Arc<str>>,
    /// Groups of instances.
    pub groups: BTreeMap<Arc<str>, Group>,
}

/// A group of instances.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// It gets nothing but what a rule names it for (S9).
    pub exclusive: bool,
}

/// What a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceKind {
    /// A deployment unit.
    Unit,
    /// A group.
    Group,
    /// A group that gets nothing but what a rule names it for.
    Exclusive,
}

impl Application {
    /// Name, cluster and kind of each place.
    pub fn places(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, PlaceKind)> {
        let units = self.units.iter();
        let units = units.map(|(name, cluster)| (name, cluster, PlaceKind::Unit));
        let groups = self.groups.iter().map(|(name, group)| {
            let kind = match group.exclusive {
                true => PlaceKind::Exclusive,
                false => PlaceKind::Group,
            };
            (name, &group.cluster, kind)
        });
        units.chain(groups)
    }

    /// The cluster and the kind of a place.
    pub fn place(&self, name: &str) -> Option<(&Arc<str>, PlaceKind)> {
        let mut places = self.places();
        let found = places.find(|(place, ..)| ***place == *name)?;
        Some((found.1, found.2))
    }
}

/// Where a request carries what rules ask about; header names are lower case.
#[derive(Clone, Debug, PartialEq)]
pub struct Marks {
    /// Who the user is; a range is of the number that it ends with.
    pub user: HashOn,
    /// The colour of a request that is to stay together with its kind.
    pub colour: Arc<str>,
    /// Marks test traffic by being there.
    pub stress: Arc<str>,
    /// What tells requests apart, for shares of rules without a sticky key.
    pub request_id: Arc<str>,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks {
            user: HashOn::Header("x-user-id".into()),
            colour: "x-colour".into(),
            stress: "x-stress".into(),
            request_id: "x-request-id".into(),
        }
    }
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// One of them.
    pub address: IpAddr,
    /// How many bits they share.
    pub bits: u8,
}

impl Network {
    /// Whether `ip` is one of them. An IPv4 address is the same in its IPv6 form.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => is_shared(a.to_bits() ^ b.to_bits(), self.bits, 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => is_shared(a.to_bits() ^ b.to_bits(), self.bits, 128),
            _ => false,
        }
    }
}

/// Whether the first `bits` of `width` are zero in `differing`.
fn is_shared(differing: impl Into<u128>, bits: u8, width: u32) -> bool {
    let rest = width.saturating_sub(u32::from(bits));
    differing.into().checked_shr(rest).unwrap_or(0) == 0
}

/// One rule, added, changed and withdrawn alone (S1).
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique.
    pub id: Arc<str>,
    /// Who may change it.
    pub owner: Arc<str>,
    /// Its version: a change has a higher one.
    pub epoch: u64,
    /// From this second since the Unix epoch on it matches nothing.
    pub expires_unix_s: Option<u64>,
    /// Which requests it is about.
    pub matches: Match,
    /// What it does with them.
    pub verb: Verb,
    /// What a share goes by; `None` goes by the id of the request.
    pub sticky: Option<HashOn>,
    /// What happens if the place that it chose has no endpoint (S17).
    pub fallback: Option<Fallback>,
    /// Its share grows by itself, and stops by itself (S11).
    pub ramp: Option<Ramp>,
    /// What the ramp has reached, in basis points of what matches; `None` where there is none. Not of the file.
    pub reached: Option<u32>,
    /// Where it stands: `edge.yaml:12:9`, or `by hand`.
    pub origin: Arc<str>,
}

/// Which requests a rule is about. All parts must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// Whose requests.
    pub application: Arc<str>,
    /// Of one interface (S7).
    pub interface: Option<Interface>,
    /// That go to this place without steering.
    pub from: Option<Arc<str>>,
    /// Of this colour.
    pub colour: Option<Arc<str>>,
    /// Of users whose last two digits lie between these, both included.
    pub users: Option<(u8, u8)>,
    /// Whether they are marked as test traffic.
    pub stress: Option<bool>,
    /// With these headers; names are lower case.
    pub headers: Vec<(Arc<str>, ValuePattern)>,
    /// With these cookies.
    pub cookies: Vec<(Arc<str>, Arc<str>)>,
    /// This part of those that match otherwise, in basis points; the others go on to the next rule.
    pub percent: Option<u32>,
}

/// `/service/method`, as gRPC and Triple write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The path in front of its last segment, without the first slash.
    pub service: Arc<str>,
    /// The last segment; `None` is any.
    pub method: Option<Arc<str>>,
}

/// Places and what each gets, in basis points that sum to the whole.
pub type Row = Vec<(Arc<str>, u32)>;

/// What a rule does.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// Sends what matches to a unit.
    SetUnit(Arc<str>),
    /// Sends what matches to a group.
    SetGroup(Arc<str>),
    /// Shares what matches out, in basis points that sum to the whole.
    Split(Row),
    /// Moves a share, in basis points.
    Shift {
        /// Where to.
        to: Arc<str>,
        /// Of what matches.
        share: u32,
    },
    /// Moves a share from the server's side.
    Divert {
        /// Where to.
        to: Arc<str>,
        /// How much.
        share: DivertShare,
    },
    /// Refuses what is more than that.
    Cap(Rate),
    /// Where to if the place of a request has no endpoint: the first that has one.
    FailTo(Vec<Arc<str>>),
    /// What each place keeps and gives away, in basis points; each row sums to the whole (S8).
    Matrix(Vec<(Arc<str>, Row)>),
}

impl Verb {
    /// The key of the file.
    pub const fn word(&self) -> &'static str {
        match self {
            Verb::SetUnit(_) => "set_unit",
            Verb::SetGroup(_) => "set_group",
            Verb::Split(_) => "split",
            Verb::Shift { .. } => "shift",
            Verb::Divert { .. } => "divert",
            Verb::Cap(_) => "cap",
            Verb::FailTo(_) => "fail_to",
            Verb::Matrix(_) => "matrix",
        }
    }

    /// Whether it chooses a place.
    pub const fn places(&self) -> bool {
        !matches!(self, Verb::Cap(_) | Verb::FailTo(_))
    }
}

/// How much a server gives away, in basis points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DivertShare {
    /// Of what matches on this server.
    Own(u32),
    /// So much that the target has this share of what all of `servers` equal servers get, itself included.
    Target {
        /// Of all.
        share: u32,
        /// How many there are, at least two.
        servers: u32,
    },
}

/// What happens if the chosen place has no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The request stays where its route sends it.
    Home,
    /// It is refused.
    Refuse,
    /// It goes to this place.
    Place(Arc<str>),
}

/// A share that grows by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// Where it begins, in basis points of what matches.
    pub start: u32,
    /// What each step adds, in basis points.
    pub step: u32,
    /// The time between two steps.
    pub every: Duration,
    /// When it stops by itself.
    pub stop: Stop,
    /// What a stop does.
    pub on_stop: OnStop,
}

/// When a ramp stops by itself; `None` does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stop {
    /// Failures among what was moved, in basis points.
    pub error_rate: Option<u32>,
    /// The 99th percentile of what was moved, head to end of the answer.
    pub p99: Option<Duration>,
    /// How full a target is, of its watermark, in basis points.
    pub watermark: Option<u32>,
}

/// What a stop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// Nothing is moved any more.
    Back,
    /// What is moved now still is.
    Hold,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: who is trusted is exactly who was named (S12). Method: addresses at both edges of networks.
    #[test]
    fn networks_have_edges() {
        for (network, bits, ip, expected) in [
            ("10.1.0.0", 16, "10.1.255.255", true),
            ("10.1.0.0", 16, "10.2.0.0", false),
            ("10.1.0.0", 16, "::ffff:10.1.0.9", true),
            ("10.0.0.7", 32, "10.0.0.7", true),
            ("10.0.0.7", 32, "10.0.0.6", false),
            ("0.0.0.0", 0, "203.0.113.9", true),
            ("0.0.0.0", 0, "::1", false),
            ("fd00::", 8, "fdff::1", true),
            ("fd00::", 8, "fe00::1", false),
            ("::", 0, "2001:db8::1", true),
        ] {
            let network = Network {
                address: network.parse().unwrap(),
                bits,
            };
            assert_eq!(
                network.contains(ip.parse().unwrap()),
                expected,
                "{network:?} {ip}"
            );
        }
    }
}
