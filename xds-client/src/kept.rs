//! The resources that were accepted, as they came: for the next start without a control plane, and for the process that
//! takes over from this one, whose coordinator asks for them at any moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    resources::RawResource,
    subscription::{ResourceType, Update},
};

/// All of them, by type and name. The client writes; a lock, since it may wait for its server while somebody reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<Mutex<BTreeMap<(ResourceType, String), One>>>);

#[derive(Debug)]
struct One {
    raw: RawResource,
    /// When it comes to its end, if it has one.
    until: Option<Duration>,
}

impl Kept {
    pub(crate) fn put(
        &self,
        resource_type: ResourceType,
        name: &str,
        raw: RawResource,
        until: Option<Duration>,
    ) {
        self.with(|all| all.insert((resource_type, name.to_owned()), One { raw, until }));
    }

    /// Takes what was accepted of a response: `raw` by name, good until `expiries` say, which heartbeats move as well.
    pub(crate) fn accept<T>(
        &self,
        resource_type: ResourceType,
        updates: &[Update<T>],
        mut raw: BTreeMap<String, RawResource>,
        expiries: &BTreeMap<String, Duration>,
    ) {
        for update in updates {
            let Update::Set { name, .. } = update else {
                continue;
            };
            match raw.remove(name) {
                Some(raw) => self.put(resource_type, name, raw, expiries.get(name).copied()),
                None => self.remove(resource_type, name),
            }
        }
        for (name, until) in expiries {
            self.good_until(resource_type, name, *until);
        }
    }

    pub(crate) fn remove(&self, resource_type: ResourceType, name: &str) {
        self.with(|all| all.remove(&(resource_type, name.to_owned())));
    }

    /// Moves the end of one that has one.
    fn good_until(&self, resource_type: ResourceType, name: &str, until: Duration) {
        self.with(|all| {
            if let Some(one) = all.get_mut(&(resource_type, name.to_owned())) {
                one.until = Some(until);
            }
        });
    }

    /// The type and the bytes of one.
    pub(crate) fn content(
        &self,
        resource_type: ResourceType,
        name: &str,
    ) -> Option<(String, Vec<u8>)> {
        self.with(|all| {
            let raw = &all.get(&(resource_type, name.to_owned()))?.raw;
            Some((raw.type_url.clone(), raw.bytes.clone()))
        })
    }

    /// Those without an end: whoever begins with them some day could not know when that was.
    pub(crate) fn endless(&self) -> Vec<RawResource> {
        self.with(|all| {
            let endless = all.values().filter(|one| one.until.is_none());
            endless.map(|one| one.raw.clone()).collect()
        })
    }

    /// All of them, good for what is left of their time.
    pub(crate) fn left(&self, now: Duration) -> Vec<RawResource> {
        let left = |one: &One| {
            let ttl = match one.until {
                None => None,
                Some(until) => {
                    let left = until.checked_sub(now)?;
                    let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
                    Some((seconds, left.subsec_nanos() as i32))
                }
            };
            let raw = one.raw.clone();
            Some(RawResource { ttl, ..raw })
        };
        self.with(|all| all.values().filter_map(left).collect())
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut BTreeMap<(ResourceType, String), One>) -> T) -> T {
        // Nothing in here panics half-way.
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what has an end is handed over for the rest of its time, and is not there for a later start. Method: one
    /// with an end, which is moved, and one without, at several times.
    #[test]
    fn ends_are_kept_to() {
        let kept = Kept::default();
        let raw = |name: &str| RawResource {
            name: name.into(),
            ..RawResource::default()
        };
        let s = Duration::from_secs;
        kept.put(ResourceType::Cluster, "a", raw("a"), None);
        kept.put(ResourceType::Cluster, "b", raw("b"), Some(s(5)));
        let names = |all: Vec<RawResource>| all.into_iter().map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(names(kept.endless()), ["a"]);
        let left = |now: u64| {
            kept.left(s(now))
                .into_iter()
                .map(|one| one.ttl)
                .collect::<Vec<_>>()
        };
        assert_eq!(left(2), [None, Some((3, 0))]);
        assert_eq!(left(6), [None]);
        kept.good_until(ResourceType::Cluster, "b", s(9));
        kept.good_until(ResourceType::Cluster, "c", s(9));
        assert_eq!(left(6), [None, Some((3, 0))]);
        kept.remove(ResourceType::Cluster, "a");
        assert_eq!(names(kept.left(s(0))), ["b"]);
    }
}
