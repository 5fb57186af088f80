//! The reference pages and the JSON Schema are what the table of keys says.
//!
//! `TIDEGATE_BLESS=1` rewrites the pages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::Path;

use serde_json::{Value, json};
use tidegate_core::config;

const EVERYTHING: &str = include_str!("config/everything.yaml");

/// Goal: the committed pages are current. Method: compare with what is generated.
#[test]
#[allow(clippy::disallowed_methods)] // The policy knows no file; its pages are files.
fn pages_are_current() {
    for (name, text) in [
        ("config.md", config::reference()),
        ("config-errors.md", config::errors_reference()),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs/reference")
            .join(name);
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "{name} is out of date: run this test with TIDEGATE_BLESS=1"
        );
    }
}

/// Goal: links between sections lead somewhere. Method: each anchor is a title, as viewers make anchors.
#[test]
fn links_lead_somewhere() {
    let page = config::reference();
    let anchors: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| {
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect();
    let links: Vec<&str> = page
        .split("](#")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap())
        .collect();
    assert!(links.len() > 20);
    for link in links {
        assert!(
            anchors.iter().any(|anchor| anchor == link),
            "{link} in {anchors:#?}"
        );
    }
}

/// Goal: no key is described and not read. Method: the file that tests every key has them all.
#[test]
fn every_key_is_tested() {
    let schema = config::json_schema();
    for (section, definition) in schema["$defs"].as_object().unwrap() {
        for key in definition["properties"].as_object().unwrap().keys() {
            assert!(
                EVERYTHING.contains(&format!("{key}: "))
                    || EVERYTHING.contains(&format!("{key}:\n")),
                "{section}.{key}"
            );
            assert!(
                definition["properties"][key]["description"].is_string(),
                "{section}.{key}"
            );
        }
    }
}

/// Goal: editors accept what the program accepts. Method: a small validator over the dump of every
/// example, and mistakes that it must find.
#[test]
fn the_schema_agrees_with_the_reader() {
    let schema = config::json_schema();
    let valid = |value: &Value| holds(&schema, &schema, value);
    let examples = [
        EVERYTHING,
        include_str!("../../examples/gateway.yaml"),
        include_str!("../../examples/sidecar.yaml"),
        include_str!("../../examples/tcp.yaml"),
        include_str!("../../examples/encryption.yaml"),
        include_str!("../../examples/static-answers.yaml"),
        config::embedded_default(),
    ];
    for text in examples {
        let (config, _) = config::parse("test.yaml", text).unwrap();
        assert!(valid(&config::to_json(&config)), "{text}");
    }
    let (config, _) = config::parse("test.yaml", EVERYTHING).unwrap();
    for (pointer, wrong) in [
        ("/drain_timeout", json!(30)),
        ("/drain_timeout", json!("30sec")),
        ("/version", json!(2)),
        ("/shards", json!("many")),
        ("/shards/ring/head_buffers", json!(100)),
        ("/listeners/edge/protocol", json!("bolt")),
        ("/listeners/edge/limits/body", json!("unlimited")),
        ("/listeners/edge/routes/0/retry/on/0", json!("conect")),
        ("/listeners/edge/routes/0/retry/times", json!(11)),
        ("/clusters/pay/balance", json!("fastest")),
        ("/listeners/edge/tls/mode", json!("off")),
        ("/listeners/edge/tls/min_version", json!("1.1")),
        ("/listeners/edge/tls/cipher_suites/0", json!("HIGH")),
        ("/clusters/pay/tls/rollout", json!(20)),
        ("/clusters/pay/tls/trusted_ca", json!([])),
        ("/clusters/pay/endpoints/static/1/tls", json!(true)),
        ("/clusters/pay/endpoints/static/1/tls/epoch", json!("3")),
        ("/secrets/web/private_key", json!({ "file": "a" })),
        ("/clusters/pay/endpoints", json!([])),
        ("/clusters/pay/circuit", json!({ "connection": 1 })),
        (
            "/listeners/db",
            json!({ "protocol": "tcp", "to": "database" }),
        ),
    ] {
        let mut dump = config::to_json(&config);
        assert!(valid(&dump));
        *dump.pointer_mut(pointer).unwrap() = wrong.clone();
        assert!(!valid(&dump), "{pointer} takes {wrong}");
    }
}

/// Goal: a default in the schema is a valid value. Method: each against its own schema.
#[test]
fn schema_defaults_are_valid() {
    let schema = config::json_schema();
    let mut count = 0;
    for (section, definition) in schema["$defs"].as_object().unwrap() {
        for (key, field) in definition["properties"].as_object().unwrap() {
            let Some(default) = field.get("default") else {
                continue;
            };
            assert!(holds(&schema, field, default), "{section}.{key}: {default}");
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

/// Whether `value` is valid: the part of JSON Schema that we use.
fn holds(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(rules) = schema.as_object() else {
        return schema.as_bool().unwrap();
    };
    rules.iter().all(|(rule, limit)| match rule.as_str() {
        "$ref" => holds(
            root,
            root.pointer(limit.as_str().unwrap().trim_start_matches('#'))
                .unwrap(),
            value,
        ),
        "anyOf" => limit
            .as_array()
            .unwrap()
            .iter()
            .any(|one| holds(root, one, value)),
        "enum" => limit.as_array().unwrap().contains(value),
        "const" => limit == value,
        "type" => match limit {
            Value::Array(types) => types.iter().any(|one| is_type(one, value)),
            one => is_type(one, value),
        },
        "minimum" => value
            .as_u64()
            .is_none_or(|number| number >= limit.as_u64().unwrap()),
        "maximum" => value
            .as_u64()
            .is_none_or(|number| number <= limit.as_u64().unwrap()),
        "maxLength" => value
            .as_str()
            .is_none_or(|text| text.len() as u64 <= limit.as_u64().unwrap()),
        "maxItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 <= limit.as_u64().unwrap()),
        "maxProperties" => value
            .as_object()
            .is_none_or(|map| map.len() as u64 <= limit.as_u64().unwrap()),
        "pattern" => value.as_str().is_none_or(|text| {
            regex_automata::meta::Regex::new(limit.as_str().unwrap())
                .unwrap()
                .is_match(text)
        }),
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| holds(root, limit, item))),
        "required" => value.as_object().is_none_or(|map| {
            limit
                .as_array()
                .unwrap()
                .iter()
                .all(|key| map.contains_key(key.as_str().unwrap()))
        }),
        "additionalProperties" => value.as_object().is_none_or(|map| {
            let known = rules.get("properties").and_then(Value::as_object);
            map.iter()
                .filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key)))
                .all(|(_, value)| holds(root, limit, value))
        }),
        "properties" => value.as_object().is_none_or(|map| {
            let limits = limit.as_object().unwrap();
            map.iter().all(|(key, value)| {
                limits
                    .get(key)
                    .is_none_or(|limit| holds(root, limit, value))
            })
        }),
        "$schema" | "$defs" | "title" | "description" | "default" => true,
        other => panic!("the validator does not know `{other}`"),
    })
}

fn is_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        other => panic!("{other}"),
    }
}
