//! Exact splits of traffic over clusters (S13), and what a request is hashed by.
//!
//! A split turns a 64-bit number into a cluster. The number is random, or the hash of a sticky key; it is
//! mixed with the split's own seed, so that a user in the first 10 % of one rule is not in the first 10 %
//! of all. Everything here is fixed arithmetic: every shard, every process and an offline calculation
//! agree. The error of a share is that of drawing (binomial), nothing else.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

use super::{RequestView, condition::query_parameter};
use crate::{
    balancer::subset::Within,
    config::model::{Descriptor, DescriptorEntry, DescriptorValue, HashOn},
    id::ClusterId,
};

/// The whole of a split, in the unit of its thresholds.
pub const SPLIT_WHOLE: u64 = 1 << 32;

/// The whole of a split, in the unit of the configuration (basis points).
const SHARE_WHOLE: u64 = 10_000;

/// A split over clusters: thresholds in 2^32, the same on every shard.
///
/// Shares lie side by side in the order of the configuration. When one share grows at another's cost,
/// the cluster that grows keeps all it had (with two clusters always; with more, as long as the shares
/// on one side of it keep their sum).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Set apart from other splits.
    seed: u64,
    /// Upper threshold (exclusive, of 2^32) and target, ascending; the last threshold is 2^32.
    thresholds: Vec<(u64, Target)>,
}

/// Where a part of a split goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The cluster.
    pub cluster: ClusterId,
    /// Where within it.
    pub within: Within,
}

impl From<ClusterId> for Target {
    fn from(cluster: ClusterId) -> Target {
        Target {
            cluster,
            within: Within::ALL,
        }
    }
}

impl Split {
    /// Compiles shares in basis points, which sum to 10000. `rule` names the split: its keys fall the
    /// same way as long as it is called the same.
    pub fn new(rule: &str, shares: impl IntoIterator<Item = (impl Into<Target>, u32)>) -> Split {
        let mut thresholds: Vec<(u64, Target)> = Vec::new();
        let mut sum = 0;
        for (target, share) in shares {
            if share == 0 {
                continue;
            }
            sum = SHARE_WHOLE.min(sum + u64::from(share));
            thresholds.push((sum * SPLIT_WHOLE / SHARE_WHOLE, target.into()));
        }
        if let Some((upper, _)) = thresholds.last_mut() {
            *upper = SPLIT_WHOLE;
        }
        Split {
            seed: hash_bytes(0, rule.as_bytes()),
            thresholds,
        }
    }

    /// Every cluster that it leads to; one that is there with several subsets, so often.
    pub fn clusters(&self) -> impl Iterator<Item = ClusterId> {
        self.thresholds.iter().map(|(_, target)| target.cluster)
    }

    /// The cluster for a hash or a random number; `None` only for an empty split.
    #[inline]
    pub fn pick(&self, hash: u64) -> Option<ClusterId> {
        self.target(hash).map(|target| target.cluster)
    }

    /// The same, with the subset.
    #[inline]
    pub fn target(&self, hash: u64) -> Option<Target> {
        if let [(_, only)] = self.thresholds.as_slice() {
            return Some(*only);
        }
        let point = self.point(hash);
        self.thresholds
            .iter()
            .find(|(upper, _)| point < *upper)
            .map(|(_, target)| *target)
    }

    /// Where `hash` falls, of [`SPLIT_WHOLE`].
    #[inline]
    pub fn point(&self, hash: u64) -> u64 {
        mix(hash ^ self.seed) >> 32
    }

    /// The clusters with their shares of [`SPLIT_WHOLE`], in order.
    pub fn shares(&self) -> impl Iterator<Item = (ClusterId, u64)> {
        self.thresholds.iter().scan(0, |lower, (upper, target)| {
            let share = *upper - *lower;
            *lower = *upper;
            Some((target.cluster, share))
        })
    }
}

/// The hash of the sticky key that a request carries; `None` if it carries none. The same key hashes
/// alike whatever it was taken from.
pub fn sticky_hash<R: RequestView + ?Sized>(
    on: &HashOn,
    request: &R,
    client: Option<IpAddr>,
) -> Option<u64> {
    match sticky_key(on, request) {
        Sticky::Bytes(key) => key.map(|key| hash_bytes(0, key)),
        Sticky::ClientIp => client.map(hash_ip),
    }
}

/// The same for a table of buckets, where whoever finds two keys of one hash takes from another's bucket: so
/// it is keyed. Of an IPv6 address the network counts, which is what one client has (RFC 6177). `client` is
/// only asked for if it matters. Requests that carry no key share one.
pub fn bucket_key<R: RequestView + ?Sized>(
    secret: u64,
    on: &HashOn,
    request: &R,
    client: impl FnOnce() -> Option<IpAddr>,
) -> u64 {
    // SipHash, with a prefix that nobody knows.
    let mut hasher = DefaultHasher::new();
    secret.hash(&mut hasher);
    match sticky_key(on, request) {
        Sticky::Bytes(key) => key.hash(&mut hasher),
        Sticky::ClientIp => match client().map(|ip| ip.to_canonical()) {
            Some(IpAddr::V6(ip)) => (ip.to_bits() >> 64).hash(&mut hasher),
            ip => ip.hash(&mut hasher),
        },
    }
    hasher.finish()
}

/// What a service for global limits is told of a request: keys with values, in order; `None` if the request does
/// not have one of them (L13). Bytes that are no UTF-8 are replaced, since protobuf has no other texts.
pub fn describe<'a, R: RequestView + ?Sized>(
    descriptor: &'a Descriptor,
    request: &'a R,
    client_ip: &'a str,
) -> Option<Vec<(&'a str, Cow<'a, str>)>> {
    let entry = |entry: &'a DescriptorEntry| {
        let value = match &entry.value {
            DescriptorValue::Text(text) => Cow::Borrowed(&**text),
            DescriptorValue::Request(on) => match sticky_key(on, request) {
                Sticky::Bytes(value) => String::from_utf8_lossy(value?),
                Sticky::ClientIp => Cow::Borrowed(client_ip),
            },
        };
        Some((&*entry.key, value))
    };
    descriptor.0.iter().map(entry).collect()
}

/// What a request is told from others by.
pub(super) enum Sticky<'a> {
    Bytes(Option<&'a [u8]>),
    ClientIp,
}

pub(super) fn sticky_key<'a, R: RequestView + ?Sized>(on: &HashOn, request: &'a R) -> Sticky<'a> {
    Sticky::Bytes(match on {
        HashOn::Header(name) => request.header(name),
        HashOn::Cookie(name) => request
            .header("cookie")
            .and_then(|cookies| cookie(cookies, name)),
        HashOn::Query(name) => query_parameter(request.query(), name),
        HashOn::ClientIp => return Sticky::ClientIp,
    })
}

/// The hash of an endpoint's address, which the consistent balancers place.
pub fn hash_address(address: SocketAddr) -> u64 {
    mix(hash_ip(address.ip()) ^ u64::from(address.port()))
}

/// FNV-1a, finished by [`mix`]: short, without tables, and easy to repeat in any language. Not keyed: it
/// chooses places for keys, it does not guard a hash table.
pub fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = bytes.iter().fold(OFFSET ^ seed, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    });
    mix(hash)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators): a
/// bijection whose every output bit depends on every input bit.
#[inline]
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn hash_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => hash_bytes(0, &ip.octets()),
        IpAddr::V6(ip) => hash_bytes(0, &ip.octets()),
    }
}

/// The value of a cookie of the request (RFC 6265, section 4.2.1).
pub(super) fn cookie<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    header.split(|byte| *byte == b';').find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const A: ClusterId = ClusterId(0);
    const B: ClusterId = ClusterId(1);
    const C: ClusterId = ClusterId(2);

    /// Goal: shares are exact but for drawing (S13). Method: 10^6 hashed keys stay within five standard
    /// deviations of a binomial draw, for shares small and large.
    #[test]
    fn shares_are_exact() {
        const N: u64 = 1_000_000;
        for share in [1, 100, 1000, 3333, 5000, 9999] {
            let split = Split::new("rule", [(A, 10_000 - share), (B, share)]);
            let hits = (0..N).filter(|i| split.pick(mix(*i)) == Some(B)).count() as f64;
            let p = f64::from(share) / 10_000.0;
            let sigma = (N as f64 * p * (1.0 - p)).sqrt();
            assert!((hits - N as f64 * p).abs() < 5.0 * sigma, "{share}: {hits}");
        }
    }

    /// Goal: a growing share loses no key (S13). Method: the keys of each step are a subset of the next.
    #[test]
    fn growing_share_is_monotone() {
        let keys: Vec<u64> = (0..20_000).map(mix).collect();
        let mut before = Split::new("rule", [(A, 10_000), (B, 0)]);
        for share in (100..=10_000).step_by(100) {
            let after = Split::new("rule", [(A, 10_000 - share), (B, share)]);
            for key in &keys {
                if before.pick(*key) == Some(B) {
                    assert_eq!(after.pick(*key), Some(B));
                }
            }
            before = after;
        }
        assert!(keys.iter().all(|key| before.pick(*key) == Some(B)));
    }

    /// Goal: rules are independent of each other. Method: of the keys in one rule's half, half are in the
    /// other's.
    #[test]
    fn rules_draw_apart() {
        let one = Split::new("one", [(A, 5000), (B, 5000)]);
        let two = Split::new("two", [(A, 5000), (B, 5000)]);
        let both = |i: &u64| one.pick(mix(*i)) == Some(A) && two.pick(mix(*i)) == Some(A);
        let n = (0..100_000).filter(both).count();
        assert!((24_000..26_000).contains(&n), "{n}");
    }

    /// Goal: the arithmetic can be repeated off line. Method: values worked out by hand.
    #[test]
    fn arithmetic_is_fixed() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(hash_bytes(0, b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash_bytes(0, b"a"), mix(0xaf63_dc4c_8601_ec8c));
        let split = Split::new("x", [(A, 2500), (C, 0), (B, 7500)]);
        let shares: Vec<_> = split.shares().collect();
        assert_eq!(shares, [(A, 1 << 30), (B, 3 << 30)]);
        assert_eq!(Split::default().pick(7), None);
    }

    /// Goal: a cookie is found by its whole name. Method: neighbours that begin or end alike.
    #[test]
    fn cookies_are_found() {
        let header = b"xid=0; id=1 ; idx=2; last=a=b";
        assert_eq!(cookie(header, "id"), Some(&b"1"[..]));
        assert_eq!(cookie(header, "last"), Some(&b"a=b"[..]));
        assert_eq!(cookie(header, "i"), None);
    }
}
