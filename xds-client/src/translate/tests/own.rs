//! Sections of our own configuration in resources.

use super::*;

/// Goal: every field of outlier detection is the one of its name in our own configuration, and its checks are ours.
/// Method: all of them from JSON, the same ones in a file; then values that a file may not have, each told where it
/// stands.
#[test]
fn outlier_detection_is_that_of_a_file() {
    let fields = json!({
        "consecutive_5xx": 7, "interval": "1.5s", "base_ejection_time": "2s", "max_ejection_percent": 40,
        "enforcing_consecutive_5xx": 90, "enforcing_success_rate": 80, "success_rate_minimum_hosts": 3,
        "success_rate_request_volume": 20, "success_rate_stdev_factor": 1500, "consecutive_gateway_failure": 4,
        "enforcing_consecutive_gateway_failure": 70, "split_external_local_origin_errors": true,
        "consecutive_local_origin_failure": 6, "enforcing_consecutive_local_origin_failure": 60,
        "enforcing_local_origin_success_rate": 50, "failure_percentage_threshold": 30,
        "enforcing_failure_percentage": 20, "enforcing_failure_percentage_local_origin": 10,
        "failure_percentage_minimum_hosts": 2, "failure_percentage_request_volume": 25,
        "max_ejection_time": "60s", "max_ejection_time_jitter": "1s",
    });
    let made = cluster(json!({ "name": "a", "outlier_detection": fields }));
    let section = fields.to_string();
    let text = format!(
        "version: 1\nclusters: {{ a: {{ endpoints: {{ static: [127.0.0.1:1] }}, outlier_detection: {section} }} }}"
    );
    let (file, _) = tidegate_core::config::parse("file", &text).unwrap();
    assert_eq!(made.config.heal, file.clusters["a"].heal);
    assert!(made.config.heal.unwrap().ejection.outlier.is_some());

    for (fields, path, reason) in [
        (
            json!({ "max_ejection_percent": 101, "always_eject_one_host": true }),
            "max_ejection_percent",
            "101",
        ),
        (json!({ "interval": "0.001s" }), "interval", "out of range"),
    ] {
        let bad = of(
            ResourceType::Cluster,
            json!({ "name": "a", "outlier_detection": fields }),
        );
        let told = refused(&bad);
        assert_eq!(told.len(), 1, "{told:#?}");
        let begin = format!("outlier_detection.{path}: ");
        assert!(
            told[0].starts_with(&begin) && told[0].contains(reason),
            "{told:#?}"
        );
        assert!(
            warned(&bad)
                .iter()
                .all(|path| *path == "outlier_detection.always_eject_one_host"),
            "{bad:?}"
        );
    }
    // What is doubtful in a file is doubtful here.
    let doubtful = json!({ "base_ejection_time": "400s", "max_ejection_time": "10s" });
    let doubtful = of(
        ResourceType::Cluster,
        json!({ "name": "a", "outlier_detection": doubtful }),
    );
    assert!(doubtful.resource.is_ok());
    assert_eq!(warned(&doubtful), ["outlier_detection.max_ejection_time"]);
}

/// An extension in our own words.
fn own(kind: &str, value: Json) -> Json {
    json!({ "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
        "type_url": format!("type.googleapis.com/tidegate.config.v1.{kind}"), "value": value })
}

/// Goal: healing and adaptive limits come in the words of our own files, beside Envoy's options. Method: both, compared
/// with a file; then faults, with paths; then a type that is not ours.
#[test]
fn own_sections_are_those_of_a_file() {
    let (heal, limit) = (
        json!({ "mode": "shadow", "max_ejection_percent": 20, "base_ejection": "2s" }),
        json!({ "targets": { "cpu": "70%", "psi_cpu": "off" }, "floor": 2, "scope": "own" }),
    );
    let with =
        |extensions: Json| json!({ "name": "a", "typed_extension_protocol_options": extensions });
    let made = cluster(with(json!({
        "heal": own("Heal", heal.clone()), "limit": own("AdaptiveLimit", limit.clone()),
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} } },
    })));
    let text = format!(
        "version: 1\nclusters: {{ a: {{ endpoints: {{ static: [127.0.0.1:1] }}, heal: {heal}, adaptive_limit: {limit} }} }}"
    );
    let (file, _) = tidegate_core::config::parse("file", &text).unwrap();
    let file = &file.clusters["a"];
    assert_eq!(made.config.heal, file.heal);
    assert_eq!(made.config.adaptive_limit, file.adaptive_limit);
    assert!(file.heal.is_some() && file.adaptive_limit.is_some());
    assert_eq!(made.config.protocol, model::UpstreamProtocol::Http2);
    // Without anything in it, it is the section with its defaults.
    assert!(
        cluster(with(json!({ "heal": own("Heal", json!({})) })))
            .config
            .heal
            .is_some()
    );

    let faults = |extensions: Json| refused(&of(ResourceType::Cluster, with(extensions)));
    let told = faults(
        json!({ "x": own("AdaptiveLimit", json!({ "targets": { "cpu": "700%" }, "flor": 2 })) }),
    );
    let at = |path: &str| format!("typed_extension_protocol_options[\"x\"].value.{path}: ");
    assert!(
        told.iter().any(|line| line.starts_with(&at("targets.cpu"))),
        "{told:#?}"
    );
    assert!(
        told.iter().any(|line| line.starts_with(&at("flor"))),
        "{told:#?}"
    );
    let told = faults(json!({ "x": own("Steer", json!({})) }));
    assert_eq!(
        told,
        ["typed_extension_protocol_options: `x` is not supported"]
    );
    let both = json!({ "name": "a", "outlier_detection": {},
        "typed_extension_protocol_options": { "x": own("Heal", json!({})) } });
    let told = refused(&of(ResourceType::Cluster, both));
    assert!(told[0].contains("exclude each other"), "{told:#?}");
}
