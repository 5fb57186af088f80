//! From the host of a request to the group of routes that claim it.

use hashbrown::HashMap;

use crate::config::model::HostPattern;

/// The longest host that is looked up (RFC 1035, section 2.3.4: 253 characters in text form). A longer
/// one is claimed by nobody but `*`.
pub const HOST_LEN_MAX: usize = 253;

/// Host patterns, each with what it stands for.
///
/// The most specific pattern wins: the exact host, then the longest `*.suffix`, then the longest
/// `prefix.*`, then `*`. A wildcard stands for one or more labels. Letters compare without case and a
/// trailing dot is ignored: `Pay.Example.` and `pay.example` are one host (RFC 4343, RFC 1034).
#[derive(Debug, Default)]
pub(super) struct HostTable {
    exact: Names,
    suffixes: Names,
    prefixes: Names,
    any: Option<u32>,
}

/// Names and what they stand for, with the bounds of their lengths, so that most candidates are ruled
/// out without hashing.
#[derive(Debug)]
struct Names {
    by_name: HashMap<Box<[u8]>, u32, foldhash::fast::FixedState>,
    len_min: usize,
    len_max: usize,
}

impl Default for Names {
    fn default() -> Self {
        Names {
            by_name: HashMap::default(),
            len_min: usize::MAX,
            len_max: 0,
        }
    }
}

impl Names {
    fn insert(&mut self, name: &str, value: u32) {
        let name = name.to_ascii_lowercase().into_bytes();
        self.len_min = self.len_min.min(name.len());
        self.len_max = self.len_max.max(name.len());
        self.by_name.entry(name.into()).or_insert(value);
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Option<u32> {
        if name.len() < self.len_min || name.len() > self.len_max {
            return None;
        }
        self.by_name.get(name).copied()
    }
}

impl HostTable {
    /// Lets `pattern` stand for `value`, unless it already stands for something.
    pub(super) fn insert(&mut self, pattern: &HostPattern, value: u32) {
        match pattern {
            HostPattern::Exact(name) => self.exact.insert(name, value),
            HostPattern::Suffix(suffix) => self.suffixes.insert(suffix, value),
            HostPattern::Prefix(prefix) => self.prefixes.insert(prefix, value),
            HostPattern::Any => {
                self.any.get_or_insert(value);
            }
        }
    }

    /// What the most specific pattern for `host` stands for.
    #[inline]
    pub(super) fn find(&self, host: &[u8]) -> Option<u32> {
        let host = host.strip_suffix(b".").unwrap_or(host);
        let mut buffer = [0; HOST_LEN_MAX];
        let Some(lower) = buffer.get_mut(..host.len()) else {
            return self.any;
        };
        lower.copy_from_slice(host);
        lower.make_ascii_lowercase();
        self.find_lower(lower).or(self.any)
    }

    fn find_lower(&self, host: &[u8]) -> Option<u32> {
        if let Some(value) = self.exact.find(host) {
            return Some(value);
        }
        // A wildcard stands for at least one character, so a dot at either end does not count.
        if !self.suffixes.by_name.is_empty() {
            let found = memchr::memchr_iter(b'.', host)
                .filter(|dot| *dot > 0)
                .find_map(|dot| self.suffixes.find(host.get(dot..)?));
            if found.is_some() {
                return found;
            }
        }
        if self.prefixes.by_name.is_empty() {
            return None;
        }
        memchr::memrchr_iter(b'.', host)
            .filter(|dot| dot + 1 < host.len())
            .find_map(|dot| self.prefixes.find(host.get(..=dot)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the most specific host wins, whatever the order of insertion. Method: a table.
    #[test]
    fn most_specific_pattern_wins() {
        let patterns = [
            HostPattern::Any,
            HostPattern::Prefix("pay.".into()),
            HostPattern::Prefix("pay.a.".into()),
            HostPattern::Suffix(".example".into()),
            HostPattern::Suffix(".a.example".into()),
            HostPattern::Exact("pay.a.example".into()),
        ];
        let mut table = HostTable::default();
        for (i, pattern) in patterns.iter().enumerate() {
            table.insert(pattern, i as u32);
        }
        for (host, value) in [
            ("pay.a.example", 5),
            ("PAY.A.Example.", 5),
            ("x.a.example", 4),
            ("x.y.a.example", 4),
            ("a.example", 3),
            ("pay.example", 3),
            ("pay.a.test", 2),
            ("pay.b.test", 1),
            ("pay.", 0),
            (".example", 0),
            ("example", 0),
            ("", 0),
            ("[::1]", 0),
        ] {
            assert_eq!(table.find(host.as_bytes()), Some(value), "{host}");
        }
    }

    /// Goal: a host of any length is answered. Method: at the limit and one above.
    #[test]
    fn host_length_has_a_limit() {
        let long = "a".repeat(HOST_LEN_MAX);
        let longer = "a".repeat(HOST_LEN_MAX + 1);
        let mut table = HostTable::default();
        table.insert(&HostPattern::Exact(long.as_str().into()), 1);
        table.insert(&HostPattern::Exact(longer.as_str().into()), 2);
        assert_eq!(table.find(long.as_bytes()), Some(1));
        assert_eq!(table.find(longer.as_bytes()), None);
    }
}
