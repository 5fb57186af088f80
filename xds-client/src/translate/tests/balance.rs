//! Priorities, localities, subsets and faults.

use tidegate_core::config::model::{Failover, Fallback};

use super::*;

/// Goal: priorities, localities and their weights come with endpoints, the factor beside them (S3). Method: two
/// localities of two priorities.
#[test]
fn priorities_and_localities_are_taken() {
    let locality = |zone: &str, priority: u32, weight: u32, port: u16| {
        json!({ "locality": { "zone": zone }, "priority": priority, "load_balancing_weight": weight,
            "lb_endpoints": [{ "endpoint": { "address": socket(port) } }] })
    };
    let made = of(
        ResourceType::Endpoint,
        json!({ "cluster_name": "a", "policy": { "overprovisioning_factor": 200 },
            "endpoints": [locality("z1", 0, 3, 1), locality("z2", 1, 5, 2)] }),
    );
    assert_eq!(warned(&made), Vec::<String>::new());
    let Resource::Assignment(assignment) = made.resource.unwrap() else {
        panic!()
    };
    let endpoints = assignment.endpoints.iter();
    let places: Vec<_> = endpoints
        .map(|one| (one.priority, one.locality.number, one.locality.weight))
        .collect();
    assert_eq!(places, [(0, 0, 3), (1, 1, 5)]);
    assert_eq!(assignment.overprovisioning, Some(200));
}

/// Goal: subsets, the panic threshold and weights of localities are taken, and what is not supported of them is refused
/// by name. Method: a cluster with all of it, and one with the rest.
#[test]
fn subsets_and_panic_are_taken() {
    let of_cluster = |more: Json| {
        let mut cluster = json!({ "name": "c", "connect_timeout": "1s" });
        cluster
            .as_object_mut()
            .unwrap()
            .append(more.clone().as_object_mut().unwrap());
        of(ResourceType::Cluster, cluster)
    };
    let made = of_cluster(json!({
        "common_lb_config": { "healthy_panic_threshold": { "value": 33.4 }, "locality_weighted_lb_config": {} },
        "lb_subset_config": { "fallback_policy": "DEFAULT_SUBSET", "default_subset": { "version": "v1" },
            "locality_weight_aware": true, "subset_selectors": [
            { "keys": ["version"] }, { "keys": ["version", "stage"], "fallback_policy": "ANY_ENDPOINT" } ] },
    }));
    let Resource::Cluster(cluster) = made.resource.unwrap() else {
        panic!()
    };
    assert_eq!(
        cluster.config.failover,
        Failover {
            overprovisioning: 140,
            panic_threshold: 33,
            by_locality: true
        }
    );
    let subsets = cluster.config.subsets.unwrap();
    assert_eq!(
        (subsets.fallback, subsets.by_locality),
        (Fallback::Default, true)
    );
    assert_eq!(subsets.default.get("version").map(|v| &**v), Some("v1"));
    let selectors: Vec<_> = subsets
        .selectors
        .iter()
        .map(|one| (one.keys.join(","), one.fallback))
        .collect();
    let both = ("stage,version".to_owned(), Some(Fallback::AnyEndpoint));
    assert_eq!(selectors, [("version".to_owned(), None), both]);
    let made = of_cluster(json!({
        "common_lb_config": { "healthy_panic_threshold": { "value": 101 } },
        "lb_subset_config": { "list_as_any": true, "default_subset": { "n": 1 },
            "subset_selectors": [ { "keys": ["a"], "fallback_policy": "KEYS_SUBSET" } ] },
    }));
    assert_eq!(
        refused(&made),
        [
            "lb_subset_config.list_as_any: is not supported",
            "common_lb_config.healthy_panic_threshold.value: 101 is not from 0 to 100",
            "lb_subset_config.subset_selectors[0].fallback_policy: KEYS_SUBSET is not supported",
            "lb_subset_config.default_subset.fields[\"n\"]: only texts are supported",
        ]
    );
}

/// Goal: what routes and clusters of a split ask of subsets is taken together, and one cluster can be there twice.
/// Method: a split of one cluster, whose parts say more than the route and against it.
#[test]
fn subsets_of_routes_are_taken() {
    let labels =
        |labels: Json| json!({ "filter_metadata": { "envoy.lb": labels, "other": { "n": 1 } } });
    let made = routes(json!([{ "match": { "prefix": "/" }, "route": {
        "metadata_match": labels(json!({ "stage": "prod", "version": "v0" })),
        "weighted_clusters": { "clusters": [
            { "name": "a", "weight": 1, "metadata_match": labels(json!({ "version": "v1" })) },
            { "name": "a", "weight": 3, "metadata_match": labels(json!({ "version": "v2" })) },
            { "name": "a", "weight": 4 } ] } } }]));
    let RouteAction::Forward(forward) = &made[0].action else {
        panic!()
    };
    let parts: Vec<_> = forward
        .to
        .iter()
        .map(|one| {
            (
                one.share,
                format!("{} {}", one.subset["stage"], one.subset["version"]),
            )
        })
        .collect();
    assert_eq!(
        parts,
        [
            (5000, "prod v0".to_owned()),
            (1250, "prod v1".to_owned()),
            (3750, "prod v2".to_owned())
        ]
    );
}

/// Goal: faults are taken from the filter and from routes, the more specific one whole, and mean nothing without the
/// filter. Method: routes that say nothing, something and that there is none, in listeners with and without the filter.
#[test]
fn faults_are_taken() {
    const FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
    let filter = |mut fault: Json| {
        fault["@type"] = FAULT.into();
        fault
    };
    let delay = json!({ "delay": { "fixed_delay": "0.1s", "percentage": { "numerator": 5, "denominator": "TEN_THOUSAND" } } });
    let abort = json!({ "abort": { "grpc_status": 14, "percentage": { "numerator": 100 } }, "max_active_faults": 7,
        "headers": [{ "name": "x-chaos", "string_match": { "exact": "1" } }] });
    let per_route = |path: &str, fault: Option<Json>| {
        let mut route = json!({ "match": { "path": path }, "route": { "cluster": "a" } });
        if let Some(fault) = fault {
            route["typed_per_filter_config"] = json!({ "fault": filter(fault) });
        }
        route
    };
    let with_filters = |filters: Vec<Json>| {
        let made = http(json!([
            per_route("/own", Some(abort.clone())),
            per_route("/none", Some(json!({}))),
            per_route("/rest", None)
        ]));
        let mut json = made;
        let hcm = &mut json["filter_chains"][0]["filters"][0]["typed_config"];
        let router = hcm["http_filters"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        hcm["http_filters"] = filters.into_iter().chain([router]).collect();
        let mut made = listener(json);
        let Protocol::Http(http) = &mut made.config.protocol else {
            panic!()
        };
        made.faults.apply(&mut http.routes);
        let faults = http
            .routes
            .iter()
            .map(|route| route.fault.as_deref().cloned());
        faults.collect::<Vec<_>>()
    };
    let chance = |numerator, denominator| model::Chance {
        numerator,
        denominator,
    };
    let own = model::Fault {
        abort: Some(model::FaultAbort {
            with: model::AbortWith::Grpc(14),
            chance: chance(100, 100),
        }),
        headers: vec![("x-chaos".into(), ValuePattern::Exact("1".into()))],
        active_max: Some(7),
        ..model::Fault::default()
    };
    let default = model::Fault {
        delay: Some(model::FaultDelay {
            fixed: Some(std::time::Duration::from_millis(100)),
            chance: chance(5, 10_000),
        }),
        ..model::Fault::default()
    };
    assert_eq!(with_filters(vec![]), [None, None, None]);
    let filters = vec![json!({ "name": "fault", "typed_config": filter(delay.clone()) })];
    assert_eq!(
        with_filters(filters),
        [Some(own.clone()), None, Some(default)]
    );
    let filters = vec![json!({ "name": "fault", "typed_config": filter(delay), "disabled": true })];
    assert_eq!(with_filters(filters), [Some(own), None, None]);
}

/// Goal: what is not supported of faults, and other filters' settings, are refused by name. Method: one route with each.
#[test]
fn other_settings_of_filters_are_refused() {
    let made = of(
        ResourceType::Route,
        json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [
            { "match": { "path": "/" }, "route": { "cluster": "a" }, "typed_per_filter_config": {
                "fault": { "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
                    "upstream_cluster": "a", "delay": {}, "abort": { "http_status": 100 } },
                "router": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } } }] }] }),
    );
    let at = "virtual_hosts[0].routes[0].typed_per_filter_config";
    assert_eq!(
        refused(&made),
        [
            format!("{at}[\"fault\"].upstream_cluster: is not supported"),
            format!("{at}[\"fault\"].delay: names no delay"),
            format!("{at}[\"fault\"].abort.http_status: 100 is not one of 200 to 599"),
            format!("{at}[\"router\"]: Router is not supported"),
        ]
    );
}

/// Goal: mirrors of routes are taken, or else those of the virtual host, with their share. Method: routes that say some and
/// none, a share of nobody, and what is not supported.
#[test]
fn mirrors_are_taken() {
    let mirror = |cluster: &str, more: Json| {
        let mut mirror = more;
        mirror["cluster"] = cluster.into();
        mirror
    };
    let share = |share: Json| json!({ "runtime_fraction": { "default_value": share } });
    let configuration = |mirrors: Json| {
        json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"],
            "request_mirror_policies": [mirror("of-host", json!({}))],
            "routes": [
                { "match": { "path": "/own" }, "route": { "cluster": "a", "request_mirror_policies": mirrors } },
                { "match": { "path": "/host" }, "route": { "cluster": "a" } },
            ] }] })
    };
    let own = json!([
        mirror(
            "b",
            share(json!({ "numerator": 5, "denominator": "MILLION" }))
        ),
        mirror(
            "c",
            json!({ "runtime_fraction": {}, "disable_shadow_host_suffix_append": true })
        ),
    ]);
    let Resource::Routes(made) = of(ResourceType::Route, configuration(own))
        .resource
        .unwrap()
    else {
        panic!()
    };
    let mirrors = |route: &model::Route| match &route.action {
        RouteAction::Forward(forward) => forward.mirrors.clone(),
        other => panic!("{other:?}"),
    };
    let of_share = |cluster: &str, numerator, denominator, host_suffix| model::Mirror {
        cluster: cluster.into(),
        chance: model::Chance {
            numerator,
            denominator,
        },
        host_suffix,
    };
    assert_eq!(
        mirrors(&made[0]),
        [
            of_share("b", 5, 1_000_000, true),
            of_share("c", 0, 100, false)
        ]
    );
    assert_eq!(mirrors(&made[1]), [of_share("of-host", 1, 1, true)]);
    let made = of(
        ResourceType::Route,
        configuration(json!([{ "cluster_header": "x" }, {}, {}, {}, {}])),
    );
    let at = "virtual_hosts[0].routes[0].route.request_mirror_policies";
    let faults = refused(&made);
    assert!(
        faults.contains(&format!("{at}[0].cluster_header: is not supported")),
        "{faults:?}"
    );
    assert!(
        faults.contains(&format!("{at}: 5 mirrors, at most 4")),
        "{faults:?}"
    );
    assert!(
        faults.contains(&format!("{at}[1].cluster: is empty")),
        "{faults:?}"
    );
}
