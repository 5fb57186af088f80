//! Everything that a control plane serves at one moment. A world is never changed, only replaced: streams hold it by
//! an `Arc`, and what is the same in two worlds is one and the same resource in both.

use std::{collections::BTreeMap, sync::Arc};

use crate::{pb, resources::RawResource, subscription::ResourceType};

/// A resource that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: Arc<str>,
    /// Two resources of one kind, name and version are the same.
    pub version: Arc<str>,
    /// Its protobuf.
    pub bytes: Vec<u8>,
}

/// Resources of one kind, by name.
pub(crate) type Named = BTreeMap<Arc<str>, Arc<Resource>>;

/// Everything that is served.
#[derive(Clone, Debug, Default)]
pub struct World {
    version: Arc<str>,
    kinds: BTreeMap<ResourceType, (Arc<str>, Named)>,
}

impl World {
    /// A world of these; of two of a kind and name the last one counts. `digest` makes versions of what is in it, the
    /// same for the same.
    pub fn new(
        resources: impl IntoIterator<Item = (ResourceType, Arc<Resource>)>,
        digest: impl Fn(&str) -> Arc<str>,
    ) -> World {
        let mut kinds: BTreeMap<ResourceType, Named> = BTreeMap::new();
        for (kind, resource) in resources {
            let of_kind = kinds.entry(kind).or_default();
            of_kind.insert(resource.name.clone(), resource);
        }
        let mut all = String::new();
        let kinds = kinds.into_iter().map(|(kind, resources)| {
            let mut text = String::new();
            for resource in resources.values() {
                text.extend([&*resource.name, "\n", &*resource.version, "\n"]);
            }
            let version = digest(&text);
            all.extend([kind.word(), "\n", &*version, "\n"]);
            (kind, (version, resources))
        });
        let kinds = kinds.collect();
        World {
            version: digest(&all),
            kinds,
        }
    }

    /// All of it as bytes, for a later life.
    pub fn encode(&self) -> Vec<u8> {
        let raw = self.all().map(|(kind, one)| RawResource {
            name: one.name.to_string(),
            version: one.version.to_string(),
            type_url: kind.url().into(),
            bytes: one.bytes.clone(),
            ..RawResource::default()
        });
        pb::encode_kept(raw.collect())
    }

    /// What was [encoded](Self::encode); nothing if these are no such bytes.
    pub fn decode(bytes: &[u8], digest: impl Fn(&str) -> Arc<str>) -> Option<World> {
        let raw = pb::decode_kept(bytes).ok()?;
        let resources = raw.into_iter().map(|one| {
            let kind = ResourceType::of_url(&one.type_url)?;
            let resource = Resource {
                name: one.name.into(),
                version: one.version.into(),
                bytes: one.bytes,
            };
            Some((kind, Arc::new(resource)))
        });
        let resources: Vec<_> = resources.collect::<Option<_>>()?;
        Some(World::new(resources, digest))
    }

    /// Bytes of all resources.
    pub fn bytes(&self) -> usize {
        self.all().map(|(_, one)| one.bytes.len()).sum()
    }

    /// The version of all of it.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// The version of all of a kind; empty if there is none of it.
    pub fn version_of(&self, kind: ResourceType) -> Arc<str> {
        self.kinds
            .get(&kind)
            .map_or_else(Arc::default, |(version, _)| version.clone())
    }

    /// One resource.
    pub fn resource(&self, kind: ResourceType, name: &str) -> Option<&Arc<Resource>> {
        self.kinds.get(&kind)?.1.get(name)
    }

    /// All of a kind, by name.
    pub fn resources(&self, kind: ResourceType) -> impl Iterator<Item = &Arc<Resource>> {
        self.kinds
            .get(&kind)
            .into_iter()
            .flat_map(|(_, resources)| resources.values())
    }

    /// Everything, with its kind.
    pub fn all(&self) -> impl Iterator<Item = (ResourceType, &Arc<Resource>)> {
        ResourceType::ALL
            .into_iter()
            .flat_map(|kind| self.resources(kind).map(move |one| (kind, one)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, version: &str) -> Arc<Resource> {
        Arc::new(Resource {
            name: name.into(),
            version: version.into(),
            bytes: Vec::new(),
        })
    }

    fn world(resources: &[(ResourceType, &str, &str)]) -> World {
        let resources = resources
            .iter()
            .map(|(kind, name, version)| (*kind, resource(name, version)));
        World::new(resources, |text| text.into())
    }

    /// Goal: the version of a world says what is in it: not in which order it came, but of which kind, name and
    /// version each is. Method: a world against others that differ in one of these.
    #[test]
    fn versions_say_what_is_in_it() {
        let one = world(&[
            (ResourceType::Cluster, "a", "1"),
            (ResourceType::Route, "r", "1"),
        ]);
        let reversed = world(&[
            (ResourceType::Route, "r", "1"),
            (ResourceType::Cluster, "a", "1"),
        ]);
        assert_eq!(one.version(), reversed.version());
        for other in [
            world(&[
                (ResourceType::Cluster, "a", "2"),
                (ResourceType::Route, "r", "1"),
            ]),
            world(&[
                (ResourceType::Cluster, "b", "1"),
                (ResourceType::Route, "r", "1"),
            ]),
            world(&[
                (ResourceType::Endpoint, "a", "1"),
                (ResourceType::Route, "r", "1"),
            ]),
            world(&[(ResourceType::Cluster, "a", "1")]),
        ] {
            assert_ne!(one.version(), other.version());
        }
        let other = world(&[
            (ResourceType::Cluster, "a", "2"),
            (ResourceType::Route, "r", "1"),
        ]);
        assert_eq!(
            one.version_of(ResourceType::Route),
            other.version_of(ResourceType::Route),
            "of what did not change"
        );
    }
    /// Goal: a world outlives the process as it was. Method: there and back, and bytes that are none.
    #[test]
    fn worlds_are_encoded() {
        let one = world(&[
            (ResourceType::Cluster, "a", "1"),
            (ResourceType::Route, "r", "2"),
        ]);
        let back = World::decode(&one.encode(), |text| text.into());
        let back = back.unwrap_or_default();
        assert_eq!(back.version(), one.version());
        assert!(back.all().eq(one.all()));
        assert!(World::decode(b"\xff", |text| text.into()).is_none());
    }
}
