//! Clusters and endpoints, and what stands in them.

use super::{OWN_BUFFERS, OWN_CONNECTION, SHOWN, Support};

pub(super) const TABLE: &[Support] = &[
    Support {
        kind: "envoy.config.cluster.v3.Cluster",
        taken: &[
            "name",
            "type",
            "eds_cluster_config",
            "connect_timeout",
            "lb_policy",
            "load_assignment",
            "health_checks",
            "max_requests_per_connection",
            "circuit_breakers",
            "typed_extension_protocol_options",
            "dns_refresh_rate",
            "outlier_detection",
            "common_lb_config",
            "lb_subset_config",
            "least_request_lb_config",
            "round_robin_lb_config",
            "transport_socket",
        ],
        ignored: &[
            ("alt_stat_name", SHOWN),
            ("metadata", SHOWN),
            ("ring_hash_lb_config", "the ring has its own size"),
            ("maglev_lb_config", "the table has its own size"),
            ("dns_lookup_family", "all addresses of a name are used"),
            (
                "respect_dns_ttl",
                "names are looked up every `dns_refresh_rate`",
            ),
            (
                "dns_failure_refresh_rate",
                "names are looked up every `dns_refresh_rate`",
            ),
            ("dns_jitter", "names are looked up every `dns_refresh_rate`"),
            ("per_connection_buffer_limit_bytes", OWN_BUFFERS),
            ("upstream_connection_options", OWN_CONNECTION),
            ("cleanup_interval", OWN_CONNECTION),
            ("ignore_health_on_host_removal", OWN_CONNECTION),
            ("close_connections_on_host_health_failure", OWN_CONNECTION),
            (
                "wait_for_warm_on_init",
                "a cluster is waited for in any case",
            ),
            ("track_cluster_stats", SHOWN),
            ("track_timeout_budgets", SHOWN),
        ],
    },
    Support {
        kind: "envoy.config.cluster.v3.Cluster.EdsClusterConfig",
        taken: &["eds_config", "service_name"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.cluster.v3.Cluster.CommonLbConfig",
        taken: &["healthy_panic_threshold", "locality_weighted_lb_config"],
        ignored: &[
            (
                "zone_aware_lb_config",
                "zones are not preferred, as in Envoy without a local cluster",
            ),
            ("update_merge_window", "a change is used at once"),
            (
                "ignore_new_hosts_until_first_hc",
                "a new endpoint counts as well until a check says otherwise",
            ),
            ("close_connections_on_host_set_change", OWN_CONNECTION),
        ],
    },
    Support {
        kind: "envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig",
        taken: &[],
        ignored: &[],
    },
    Support {
        kind: "envoy.type.v3.Percent",
        taken: &["value"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.cluster.v3.Cluster.LbSubsetConfig",
        taken: &[
            "fallback_policy",
            "default_subset",
            "subset_selectors",
            "locality_weight_aware",
        ],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.cluster.v3.Cluster.LbSubsetConfig.LbSubsetSelector",
        taken: &["keys", "fallback_policy"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig",
        taken: &["slow_start_config"],
        ignored: &[
            ("choice_count", "two are compared"),
            ("active_request_bias", "weights count in full"),
        ],
    },
    Support {
        kind: "envoy.config.cluster.v3.Cluster.RoundRobinLbConfig",
        taken: &["slow_start_config"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.cluster.v3.Cluster.SlowStartConfig",
        taken: &["slow_start_window"],
        ignored: &[
            ("aggression", "shares grow linearly"),
            ("min_weight_percent", "shares grow from a tenth"),
        ],
    },
    Support {
        kind: "envoy.config.cluster.v3.CircuitBreakers",
        taken: &["thresholds"],
        ignored: &[("per_host_thresholds", "limits hold for the cluster")],
    },
    Support {
        kind: "envoy.config.cluster.v3.CircuitBreakers.Thresholds",
        taken: &["priority", "max_connections", "max_requests"],
        ignored: &[
            (
                "max_pending_requests",
                "no request waits without bound: `max_requests` counts those that wait, too",
            ),
            ("max_retries", "retries have a budget"),
            ("retry_budget", "retries have a budget"),
            ("track_remaining", SHOWN),
            ("max_connection_pools", OWN_CONNECTION),
        ],
    },
    Support {
        kind: "envoy.config.cluster.v3.OutlierDetection",
        taken: &[
            "consecutive_5xx",
            "interval",
            "base_ejection_time",
            "max_ejection_percent",
            "enforcing_consecutive_5xx",
            "enforcing_success_rate",
            "success_rate_minimum_hosts",
            "success_rate_request_volume",
            "success_rate_stdev_factor",
            "consecutive_gateway_failure",
            "enforcing_consecutive_gateway_failure",
            "split_external_local_origin_errors",
            "consecutive_local_origin_failure",
            "enforcing_consecutive_local_origin_failure",
            "enforcing_local_origin_success_rate",
            "failure_percentage_threshold",
            "enforcing_failure_percentage",
            "enforcing_failure_percentage_local_origin",
            "failure_percentage_minimum_hosts",
            "failure_percentage_request_volume",
            "max_ejection_time",
            "max_ejection_time_jitter",
        ],
        ignored: &[
            (
                "successful_active_health_check_uneject_host",
                "an endpoint comes back by a trial",
            ),
            (
                "always_eject_one_host",
                "one endpoint may always be out, and the last one never is",
            ),
        ],
    },
    Support {
        kind: "xds.type.v3.TypedStruct",
        taken: &["type_url", "value"],
        ignored: &[],
    },
    Support {
        kind: "udpa.type.v1.TypedStruct",
        taken: &["type_url", "value"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.core.v3.HealthCheck",
        taken: &[
            "timeout",
            "interval",
            "unhealthy_threshold",
            "healthy_threshold",
            "http_health_check",
            "grpc_health_check",
            "tcp_health_check",
        ],
        ignored: &[
            ("initial_jitter", "checks are jittered"),
            ("interval_jitter", "checks are jittered"),
            ("interval_jitter_percent", "checks are jittered"),
            ("reuse_connection", "each check has its connection"),
            ("no_traffic_interval", "checks go on at their interval"),
            (
                "no_traffic_healthy_interval",
                "checks go on at their interval",
            ),
            ("unhealthy_interval", "checks go on at their interval"),
            ("unhealthy_edge_interval", "checks go on at their interval"),
            ("healthy_edge_interval", "checks go on at their interval"),
            ("always_log_health_check_failures", SHOWN),
            ("always_log_health_check_success", SHOWN),
        ],
    },
    Support {
        kind: "envoy.config.core.v3.HealthCheck.HttpHealthCheck",
        taken: &["host", "path", "expected_statuses"],
        ignored: &[(
            "retriable_statuses",
            "every other status counts as a failure",
        )],
    },
    Support {
        kind: "envoy.config.core.v3.HealthCheck.GrpcHealthCheck",
        taken: &["service_name", "authority"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.core.v3.HealthCheck.TcpHealthCheck",
        taken: &[],
        ignored: &[],
    },
    Support {
        kind: "envoy.type.v3.Int64Range",
        taken: &["start", "end"],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        taken: &["common_http_protocol_options", "explicit_http_config"],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig",
        taken: &["http_protocol_options", "http2_protocol_options"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.endpoint.v3.ClusterLoadAssignment",
        taken: &["cluster_name", "endpoints", "policy"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy",
        taken: &["overprovisioning_factor"],
        ignored: &[(
            "endpoint_stale_after",
            "endpoints are kept until they change",
        )],
    },
    Support {
        kind: "envoy.config.endpoint.v3.LocalityLbEndpoints",
        taken: &[
            "locality",
            "lb_endpoints",
            "priority",
            "load_balancing_weight",
        ],
        ignored: &[("metadata", SHOWN), ("proximity", "unused by Envoy")],
    },
    Support {
        kind: "envoy.config.core.v3.Locality",
        taken: &["zone"],
        ignored: &[
            ("region", "a zone is known by its name"),
            ("sub_zone", "a zone is known by its name"),
        ],
    },
    Support {
        kind: "envoy.config.endpoint.v3.LbEndpoint",
        taken: &[
            "endpoint",
            "health_status",
            "metadata",
            "load_balancing_weight",
        ],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.endpoint.v3.Endpoint",
        taken: &["address"],
        ignored: &[("hostname", "the host of a health check is the check's own")],
    },
    Support {
        kind: "envoy.config.core.v3.Metadata",
        taken: &["filter_metadata"],
        ignored: &[("typed_filter_metadata", SHOWN)],
    },
];
