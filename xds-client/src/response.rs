//! A response of the state of the world, by whatever it came: a message of a stream, text of a file or of HTTP, or
//! bytes of a file. What it holds is not decoded yet.

use serde_json::Value;

use crate::{
    document::name_of,
    pb::{self, decode_resource, discovery::Any, message},
    resources::{RawResource, RawResponse},
};

/// What wraps a resource that has a version or an end of its own.
const WRAPPER: &str = "/envoy.service.discovery.v3.Resource";

impl From<pb::discovery::DiscoveryResponse> for RawResponse {
    fn from(response: pb::discovery::DiscoveryResponse) -> RawResponse {
        let version = &response.version_info;
        let resources = response.resources.into_iter();
        RawResponse {
            resources: resources.map(|any| unwrapped(any, version)).collect(),
            type_url: response.type_url,
            version: response.version_info,
            nonce: response.nonce,
            removed: Vec::new(),
        }
    }
}

/// Reads the protobuf of one.
///
/// # Errors
///
/// It is none.
pub(crate) fn of_bytes(bytes: &[u8]) -> Result<RawResponse, String> {
    let response = pb::decode_response(bytes).map_err(|e| format!("is no response: {e}"))?;
    Ok(response.into())
}

/// Reads the JSON of one, or YAML with the same words. A resource that is none is refused alone, later and by its name.
///
/// # Errors
///
/// It is none.
pub(crate) fn of_text(text: &str) -> Result<RawResponse, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| format!("is no response: {e}"))?;
    let Value::Object(mut fields) = value else {
        return Err("is no response: it is no map with `resources`".into());
    };
    let word = |names: [&str; 2]| {
        let found = names.into_iter().find_map(|name| fields.get(name));
        found.map_or(String::new(), |found| match found {
            Value::String(text) => text.clone(),
            // A version that is written as a number.
            other => other.to_string(),
        })
    };
    let version = word(["version_info", "versionInfo"]);
    let (type_url, nonce) = (word(["type_url", "typeUrl"]), word(["nonce", "nonce"]));
    let resources = match fields.remove("resources") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(resources)) => resources,
        Some(_) => return Err("is no response: its `resources` are no list".into()),
    };
    Ok(RawResponse {
        resources: resources.iter().map(|one| of_json(one, &version)).collect(),
        type_url,
        version,
        nonce,
        removed: Vec::new(),
    })
}

fn of_json(json: &Value, version: &str) -> RawResource {
    match message::from_json(json) {
        Ok((type_url, value)) => unwrapped(Any { type_url, value }, version),
        Err(why) => RawResource {
            name: name_of(json).to_owned(),
            version: version.to_owned(),
            fault: Some(why),
            ..RawResource::default()
        },
    }
}

/// A resource that stands for itself, or is wrapped.
fn unwrapped(any: Any, version: &str) -> RawResource {
    if any.type_url.ends_with(WRAPPER)
        && let Ok(resource) = decode_resource(&any.value)
    {
        return of_wrapper(resource);
    }
    RawResource {
        version: version.to_owned(),
        type_url: any.type_url,
        bytes: any.value,
        ..RawResource::default()
    }
}

/// What a wrapper holds.
pub(crate) fn of_wrapper(resource: pb::discovery::Resource) -> RawResource {
    let is_heartbeat = resource.resource.is_none() && resource.ttl.is_some();
    let held = resource.resource.unwrap_or_default();
    RawResource {
        name: resource.name,
        version: resource.version,
        ttl: resource.ttl.map(|ttl| (ttl.seconds, ttl.nanos)),
        is_heartbeat,
        type_url: held.type_url,
        bytes: held.value,
        fault: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const URL: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

    /// Goal: a response means the same in YAML, in JSON of either kind of names, and in protobuf. Method: one resource
    /// that stands for itself and one that is wrapped, in each form.
    #[test]
    fn every_form_is_read_alike() {
        let wrapped = r#"{ "@type": "type.googleapis.com/envoy.service.discovery.v3.Resource",
            "name": "b", "version": "2", "ttl": "3s", "resource": { "@type": "URL", "name": "b" } }"#;
        let json = format!(
            r#"{{ "versionInfo": "7", "nonce": "n", "typeUrl": "URL",
                "resources": [{{ "@type": "URL", "name": "a" }}, {wrapped}] }}"#
        )
        .replace("URL", URL);
        let yaml = json
            .replace("versionInfo", "version_info")
            .replace("typeUrl", "type_url")
            .replace("\"7\"", "7");
        let (from_json, from_yaml) = (of_text(&json).unwrap(), of_text(&yaml).unwrap());
        let resources = from_json.resources.iter().map(|one| match one.ttl {
            None => Any {
                type_url: one.type_url.clone(),
                value: one.bytes.clone(),
            },
            Some((seconds, nanos)) => pb::wrap(&pb::discovery::Resource {
                version: one.version.clone(),
                resource: Some(Any {
                    type_url: one.type_url.clone(),
                    value: one.bytes.clone(),
                }),
                name: one.name.clone(),
                ttl: Some(pb::discovery::Duration { seconds, nanos }),
            }),
        });
        let message = pb::discovery::DiscoveryResponse {
            version_info: "7".into(),
            resources: resources.collect(),
            type_url: URL.into(),
            nonce: "n".into(),
        };
        let from_bytes = of_bytes(&pb::encode_response(&message)).unwrap();
        for one in [&from_json, &from_yaml, &from_bytes] {
            assert_eq!(
                (&*one.version, &*one.type_url, &*one.nonce),
                ("7", URL, "n")
            );
            let [a, b] = &one.resources[..] else {
                unreachable!("{one:?}")
            };
            assert_eq!((&*a.name, &*a.version, a.ttl), ("", "7", None));
            assert_eq!((&*b.name, &*b.version, b.ttl), ("b", "2", Some((3, 0))));
            // Field 1, one byte: the name.
            assert_eq!((&*a.bytes, &*b.bytes), (&b"\n\x01a"[..], &b"\n\x01b"[..]));
            assert!(one.resources.iter().all(|one| one.type_url == URL));
        }
    }

    /// Goal: a resource that is none is told by its name and takes no other with it; what is no response is refused.
    /// Method: an unknown field beside a good resource; texts and bytes of other kinds.
    #[test]
    fn what_is_none_is_told() {
        let text = format!(
            "resources: [{{ '@type': {URL}, name: a, x: 1 }}, {{ '@type': {URL}, name: b }}]"
        );
        let response = of_text(&text).unwrap();
        assert_eq!(response.resources[0].name, "a");
        let fault = response.resources[0].fault.as_deref().unwrap();
        assert!(fault.contains("'x'"), "{fault}");
        assert_eq!(response.resources[1].fault, None);
        assert!(of_text("version_info: '1'").unwrap().resources.is_empty());
        for text in ["[]", "a: [", "resources: 1", ""] {
            assert!(of_text(text).is_err(), "{text}");
        }
        assert!(of_bytes(&[0xff; 3]).is_err());
    }
}
