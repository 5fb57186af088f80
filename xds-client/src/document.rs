//! Resources from a text, as people write them: YAML or JSON. What a control plane would send can be checked before it
//! sends it.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    graph::{CLUSTER_WAIT, Graph, State},
    response,
    subscription::{ResourceType, Update},
    translate::{self, Resource, Translated},
};

/// A resource of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Its type, if that could be read.
    pub resource_type: Option<ResourceType>,
    /// What became of it.
    pub translated: Translated,
}

/// Reads all resources of a text: one with its `@type`, a list of them, a `DiscoveryResponse` with its `resources`, or
/// a bootstrap of Envoy with its `static_resources`.
///
/// # Errors
///
/// It is none of these.
pub fn read(text: &str) -> Result<Vec<Checked>, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let resources = resources(value)?;
    Ok(resources.into_iter().map(check).collect())
}

/// Reads all resources of a `DiscoveryResponse` in protobuf.
///
/// # Errors
///
/// It is none.
pub fn read_bytes(bytes: &[u8]) -> Result<Vec<Checked>, String> {
    let resources = response::of_bytes(bytes)?.resources.into_iter();
    let checked = resources.map(|raw| {
        let found = ResourceType::of_url(&raw.type_url);
        let translated = match found {
            Some(found) => translate::translate(found, &raw.type_url, &raw.bytes),
            None => {
                Translated::refused(format!("a `{}` is no resource that is taken", raw.type_url))
            }
        };
        Checked {
            resource_type: found,
            translated,
        }
    });
    Ok(checked.collect())
}

/// A resource of a text, as it is served.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Its type.
    pub resource_type: ResourceType,
    /// Its name.
    pub name: String,
    /// What it says, the same text for the same: keys in their order, no blanks.
    pub text: String,
    /// Its protobuf. Maps in it have no order: two of the same text may differ in bytes.
    pub bytes: Vec<u8>,
    /// Why a Tidegate refuses it, if it does. Others may take it.
    pub remarks: Vec<String>,
}

/// Reads all resources of a text, as [`read`] does, and encodes them; with those that are none, each by its place in
/// the text.
///
/// # Errors
///
/// The text holds no resources at all.
pub fn encode(text: &str) -> Result<Vec<Result<Encoded, String>>, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let resources = resources(value)?.into_iter().enumerate();
    let encoded = resources.map(|(index, json)| {
        let name = name_of(&json).to_owned();
        encode_one(&json).map_err(|why| match name.is_empty() {
            true => format!("resource {}: {why}", index + 1),
            false => format!("resource {} `{name}`: {why}", index + 1),
        })
    });
    Ok(encoded.collect())
}

fn encode_one(json: &Value) -> Result<Encoded, String> {
    let (resource_type, bytes) = translate::from_json(json)?;
    let name = name_of(json).to_owned();
    translate::check_name(&name).map_err(|why| format!("its name {why}"))?;
    let translated = translate::translate(resource_type, resource_type.url(), &bytes);
    let refused = translated.resource.err().unwrap_or_default();
    let remarks = refused
        .iter()
        .map(|fault| format!("a Tidegate refuses it: {fault}"));
    Ok(Encoded {
        resource_type,
        name,
        text: json.to_string(),
        bytes,
        remarks: remarks.collect(),
    })
}

/// Its name as it stands there, if one does.
pub(crate) fn name_of(json: &Value) -> &str {
    let field = |key: &str| json.get(key).and_then(Value::as_str);
    field("cluster_name")
        .or(field("clusterName"))
        .or(field("name"))
        .unwrap_or_default()
}

fn resources(value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(resources) => Ok(resources),
        Value::Object(mut map) => {
            if map.contains_key("@type") && !map.contains_key("resources") {
                return Ok(vec![Value::Object(map)]);
            }
            if let Some(Value::Object(fixed)) = map.remove("static_resources") {
                return Ok(of_bootstrap(fixed));
            }
            match map.remove("resources") {
                Some(Value::Array(resources)) => Ok(resources),
                _ => Err(NO_RESOURCES.into()),
            }
        }
        _ => Err(NO_RESOURCES.into()),
    }
}

const NO_RESOURCES: &str = "no resources: a resource with its `@type`, a list of them, or a map with `resources` or `static_resources`";

/// What a bootstrap says without types, with them.
fn of_bootstrap(mut fixed: Map<String, Value>) -> Vec<Value> {
    let mut resources = Vec::new();
    for (key, resource_type) in [
        ("listeners", ResourceType::Listener),
        ("clusters", ResourceType::Cluster),
    ] {
        let Some(Value::Array(found)) = fixed.remove(key) else {
            continue;
        };
        resources.extend(found.into_iter().map(|mut one| {
            if let Value::Object(map) = &mut one {
                map.insert("@type".into(), json!(resource_type.url()));
            }
            one
        }));
    }
    resources
}

fn check(json: Value) -> Checked {
    match translate::from_json(&json) {
        Ok((resource_type, bytes)) => Checked {
            resource_type: Some(resource_type),
            translated: translate::translate(resource_type, resource_type.url(), &bytes),
        },
        Err(reason) => {
            let name = name_of(&json);
            Checked {
                resource_type: None,
                translated: Translated {
                    name: name.to_owned(),
                    resource: Err(vec![translate::Fault {
                        path: String::new(),
                        reason,
                    }]),
                    warnings: Vec::new(),
                },
            }
        }
    }
}

/// What files bring is not looked for.
fn leave_out_files(graph: &mut Graph) {
    for resource_type in [ResourceType::Endpoint, ResourceType::Route] {
        for (file, names) in graph.wanted_of_files(resource_type) {
            for name in names {
                let name = (*file.key(&name)).to_owned();
                graph.apply(resource_type, Update::Missing { name });
            }
        }
    }
}

/// What the good ones of these refer to and is not among them, one line each.
pub fn dangling(resources: &[Checked]) -> Vec<String> {
    let mut graph = Graph::default();
    let mut names: Vec<(ResourceType, Arc<str>)> = Vec::new();
    for Checked {
        resource_type,
        translated,
    } in resources
    {
        let (Some(resource_type), Ok(value)) = (resource_type, &translated.resource) else {
            continue;
        };
        names.push((*resource_type, translated.name.as_str().into()));
        let name = translated.name.clone();
        let value: Resource = value.clone();
        graph.apply(*resource_type, Update::Set { name, value });
    }
    leave_out_files(&mut graph);
    graph.poll(Duration::ZERO, &Default::default());
    graph.poll(CLUSTER_WAIT, &Default::default());
    let waiting = names
        .iter()
        .filter(|(one, name)| graph.state(*one, name) == State::Warming);
    let mut lines: Vec<String> = waiting
        .map(|(one, name)| {
            let what = if *one == ResourceType::Cluster {
                "endpoints"
            } else {
                "routes"
            };
            format!(
                "{} `{name}` waits for its {what}, which are not here",
                one.word()
            )
        })
        .collect();
    let unknown = graph.placeholders().iter();
    lines.extend(unknown.map(|name| format!("cluster `{name}` is named by a route, and not here")));
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::pb::{self, discovery::Any};

    const BOOTSTRAP: &str = "
static_resources:
  clusters:
  - { name: a, type: STATIC, connect_timeout: 1s }
  - { name: b, type: EDS, eds_cluster_config: { eds_config: { ads: {} } } }
  listeners:
  - name: l
    address: { socket_address: { address: 127.0.0.1, port_value: 80 } }
    filter_chains:
    - filters:
      - name: t
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: c
";

    /// Goal: a bootstrap, a response, a list and a single resource are read, and what they refer to is followed.
    /// Method: one of each.
    #[test]
    fn texts_of_every_shape_are_read() {
        let checked = read(BOOTSTRAP).unwrap();
        assert!(
            checked.iter().all(|one| one.translated.resource.is_ok()),
            "{checked:?}"
        );
        assert_eq!(
            dangling(&checked),
            [
                "cluster `b` waits for its endpoints, which are not here",
                "cluster `c` is named by a route, and not here",
            ]
        );
        let of_file = BOOTSTRAP.replace("ads: {}", "path_config_source: { path: /eds.yaml }");
        assert_eq!(dangling(&read(&of_file).unwrap()).len(), 1, "not `b`");
        let one = "{ '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a }";
        for text in [
            one.to_owned(),
            format!("[{one}]"),
            format!("resources: [{one}]\nversion_info: '1'"),
        ] {
            let checked = read(&text).unwrap();
            assert_eq!(checked[0].translated.name, "a");
            assert!(dangling(&checked).is_empty());
        }
    }

    /// Goal: what is served is what the text says, whatever the order of its keys; what is none is told with its place, and
    /// what a Tidegate would not take is remarked and served. Method: the same cluster twice, one that does not exist,
    /// one without a name, one with a field that is not supported.
    #[test]
    fn resources_are_encoded() {
        let cluster = "'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster";
        let text = format!(
            "[{{ {cluster}, name: a, connect_timeout: 1s }}, {{ connect_timeout: 1s, name: a, {cluster} }}, \
             {{ {cluster}, name: b, x: 1 }}, {{ {cluster} }}, {{ {cluster}, name: c, protocol_selection: 1 }}]"
        );
        let all = encode(&text).unwrap();
        let good: Vec<&Encoded> = all.iter().flatten().collect();
        assert_eq!(
            (&good[0].text, &good[0].bytes),
            (&good[1].text, &good[1].bytes)
        );
        assert_eq!(good[0].name, "a");
        assert!(good[0].remarks.is_empty(), "{good:?}");
        assert_eq!(good[2].name, "c");
        assert!(
            good[2].remarks[0].contains("protocol_selection"),
            "{good:?}"
        );
        let bad: Vec<&String> = all.iter().filter_map(|one| one.as_ref().err()).collect();
        assert!(bad[0].starts_with("resource 3 `b`: "), "{bad:?}");
        assert_eq!(bad[1], "resource 4: its name is empty");
        assert!(encode("1").is_err());
    }

    /// Goal: what is no resource is told with its name. Method: a field that does not exist, a type that is not taken,
    /// and texts that hold none.
    #[test]
    fn what_is_no_resource_is_told() {
        let faults = |text: &str| {
            let one = read(text).unwrap().remove(0).translated;
            (one.name, one.resource.unwrap_err()[0].reason.clone())
        };
        let (name, why) = faults(
            "{ '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a, x: 1 }",
        );
        assert_eq!(name, "a");
        assert!(why.contains("unrecognized field name 'x'"), "{why}");
        let (_, why) = faults("{ '@type': type.googleapis.com/envoy.config.core.v3.Locality }");
        assert_eq!(
            why,
            "a envoy.config.core.v3.Locality is no resource that is taken"
        );
        for text in ["1", "{}", "a: [", "resources: 1"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read_bytes(&[0xff]).is_err());
    }

    /// Goal: protobuf is read as text is. Method: a good resource, and one of a type that is not taken.
    #[test]
    fn protobuf_is_read() {
        let (_, value) = translate::from_json(&json!({
            "@type": ResourceType::Cluster.url(), "name": "a" }))
        .unwrap();
        let any = |type_url: &str| Any {
            type_url: type_url.into(),
            value: value.clone(),
        };
        let bytes = pb::encode_response(&pb::discovery::DiscoveryResponse {
            resources: vec![any(ResourceType::Cluster.url()), any("x")],
            ..Default::default()
        });
        let [good, bad] = &read_bytes(&bytes).unwrap()[..] else {
            unreachable!()
        };
        assert_eq!(good.translated.name, "a");
        assert!(good.translated.resource.is_ok());
        assert_eq!(bad.resource_type, None);
        let fault = &bad.translated.resource.as_ref().unwrap_err()[0];
        assert_eq!(fault.reason, "a `x` is no resource that is taken");
    }
}
