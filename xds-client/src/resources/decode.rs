//! From a response as it came to one that a subscription takes: each resource translated or refused, and what is said of
//! it noted.

use std::{collections::BTreeMap, time::Duration};

use super::{RawResource, RawResponse, Refusal, Told};
use crate::{
    source::OfFile,
    subscription::{Heartbeat, Resource, ResourceType, Response},
    translate::{self, Fault, Translated},
};

/// A response that was looked into.
pub(super) struct Decoded {
    pub(super) response: Response<translate::Resource>,
    /// Its resources as they came, by name.
    pub(super) raw: BTreeMap<String, RawResource>,
    /// How many were refused.
    pub(super) refused: usize,
}

/// Looks into a response, of the stream or `of` a file.
pub(super) fn decode(
    resource_type: ResourceType,
    response: RawResponse,
    told: &mut Told,
    of: Option<&OfFile>,
    now: Duration,
) -> Decoded {
    let mut raw: BTreeMap<String, RawResource> = BTreeMap::new();
    let (beats, whole): (Vec<_>, Vec<_>) = response
        .resources
        .into_iter()
        .partition(|one| one.is_heartbeat);
    let resources = whole.into_iter().map(|one| {
        let read = read(resource_type, &one, told, of, now);
        // Those of files are there when they are wanted. Of two of one name the first is taken.
        if of.is_none() {
            let name = read.name.clone();
            raw.entry(name.clone())
                .or_insert(RawResource { name, ..one });
        }
        read
    });
    let mut resources: Vec<_> = resources.collect();
    let (heartbeats, bad) = heartbeats(beats);
    resources.extend(bad);
    let refused = resources.iter().filter(|one| one.value.is_err()).count();
    let response = Response {
        version: response.version,
        nonce: response.nonce,
        resources,
        heartbeats,
        removed: response.removed,
    };
    Decoded {
        response,
        raw,
        refused,
    }
}

/// Translates a resource, and notes what is said of it.
pub(super) fn read(
    resource_type: ResourceType,
    raw: &RawResource,
    told: &mut Told,
    of: Option<&OfFile>,
    now: Duration,
) -> Resource<translate::Resource> {
    let Translated {
        name,
        mut resource,
        warnings,
    } = match &raw.fault {
        Some(why) => Translated::refused(why.clone()),
        None => translate::translate(resource_type, &raw.type_url, &raw.bytes),
    };
    if !raw.name.is_empty() && !name.is_empty() && raw.name != name {
        let reason = format!("calls itself `{name}`");
        resource = Err(vec![Fault {
            path: String::new(),
            reason,
        }]);
    }
    let name = match raw.name.is_empty() {
        true => name,
        false => raw.name.clone(),
    };
    let lines = |faults: &[Fault]| faults.iter().map(ToString::to_string).collect::<Vec<_>>();
    let value = resource.map_err(|faults| lines(&faults).join("; "));
    let shown = of.map_or_else(|| name.clone(), |of| of.key(name.clone()));
    match &value {
        Err(error) => {
            let has_room =
                told.errors.len() < resource_type.held_max() || told.errors.contains_key(&shown);
            if !name.is_empty() && has_room {
                let refusal = Refusal {
                    why: error.clone(),
                    version: raw.version.clone(),
                    at: now,
                };
                told.errors.insert(shown, refusal);
            }
        }
        Ok(_) => {
            told.errors.remove(&shown);
            if told.taken.len() < resource_type.held_max() || told.taken.contains_key(&shown) {
                told.taken.insert(shown.clone(), now);
            }
            match warnings.is_empty() {
                true => drop(told.warnings.remove(&shown)),
                false if told.warnings.len() < resource_type.held_max() => {
                    drop(told.warnings.insert(shown, lines(&warnings)));
                }
                false => {}
            }
        }
    }
    let (ttl, value) = match (ttl(raw.ttl), value) {
        (Ok(ttl), value) => (ttl, value),
        (Err(why), Ok(_)) => (None, Err(why)),
        (Err(_), Err(error)) => (None, Err(error)),
    };
    Resource {
        name,
        version: raw.version.clone(),
        ttl,
        value,
    }
}

/// Those that are well formed, and what is wrong with the others.
fn heartbeats<T>(beats: Vec<RawResource>) -> (Vec<Heartbeat>, Vec<Resource<T>>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for RawResource {
        name,
        version,
        ttl: given,
        ..
    } in beats
    {
        match ttl(given) {
            Ok(ttl) => good.push(Heartbeat { name, version, ttl }),
            Err(why) => bad.push(Resource {
                name,
                version,
                ttl: None,
                value: Err(why),
            }),
        }
    }
    (good, bad)
}

fn ttl(given: Option<(i64, i32)>) -> Result<Option<Duration>, String> {
    let Some((seconds, nanos)) = given else {
        return Ok(None);
    };
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos @ ..1_000_000_000)) => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(format!(
            "ttl: {seconds}.{nanos:09}s is negative or malformed"
        )),
    }
}
