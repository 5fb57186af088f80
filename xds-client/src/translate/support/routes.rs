//! Routes: what they match and what they do.

use super::{OWN_BUFFERS, SHOWN, Support, TRACES};

pub(super) const TABLE: &[Support] = &[
    Support {
        kind: "envoy.config.route.v3.RouteConfiguration",
        taken: &[
            "name",
            "virtual_hosts",
            "request_headers_to_add",
            "request_headers_to_remove",
            "response_headers_to_add",
            "response_headers_to_remove",
        ],
        ignored: &[
            ("internal_only_headers", "no client counts as internal"),
            (
                "validate_clusters",
                "a route waits for its clusters, for 15 s",
            ),
            (
                "max_direct_response_body_size_bytes",
                "a body has a bound of its own",
            ),
            (
                "ignore_port_in_host_matching",
                "ports are ignored in any case",
            ),
            ("metadata", SHOWN),
        ],
    },
    Support {
        kind: "envoy.config.route.v3.VirtualHost",
        taken: &[
            "name",
            "domains",
            "routes",
            "require_tls",
            "request_headers_to_add",
            "request_headers_to_remove",
            "response_headers_to_add",
            "response_headers_to_remove",
            "retry_policy",
        ],
        ignored: &[
            ("virtual_clusters", SHOWN),
            ("metadata", SHOWN),
            ("include_request_attempt_count", "only told to endpoints"),
            ("include_attempt_count_in_response", "only told to clients"),
            ("include_is_timeout_retry_header", "only told to endpoints"),
            ("per_request_buffer_limit_bytes", OWN_BUFFERS),
            ("request_body_buffer_limit", OWN_BUFFERS),
        ],
    },
    Support {
        kind: "envoy.config.route.v3.Route",
        taken: &[
            "name",
            "match",
            "route",
            "redirect",
            "direct_response",
            "request_headers_to_add",
            "request_headers_to_remove",
            "response_headers_to_add",
            "response_headers_to_remove",
        ],
        ignored: &[
            ("metadata", SHOWN),
            ("decorator", TRACES),
            ("tracing", TRACES),
            ("stat_prefix", SHOWN),
            ("per_request_buffer_limit_bytes", OWN_BUFFERS),
            ("request_body_buffer_limit", OWN_BUFFERS),
        ],
    },
    Support {
        kind: "envoy.config.route.v3.RouteMatch",
        taken: &[
            "prefix",
            "path",
            "safe_regex",
            "path_separated_prefix",
            "case_sensitive",
            "runtime_fraction",
            "headers",
            "query_parameters",
        ],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.core.v3.RuntimeFractionalPercent",
        taken: &["default_value"],
        ignored: &[("runtime_key", "there is no runtime")],
    },
    Support {
        kind: "envoy.type.v3.FractionalPercent",
        taken: &["numerator", "denominator"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.route.v3.HeaderMatcher",
        taken: &[
            "name",
            "string_match",
            "exact_match",
            "safe_regex_match",
            "prefix_match",
            "suffix_match",
            "contains_match",
            "present_match",
            "invert_match",
        ],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.route.v3.QueryParameterMatcher",
        taken: &["name", "string_match", "present_match"],
        ignored: &[],
    },
    Support {
        kind: "envoy.type.matcher.v3.StringMatcher",
        taken: &[
            "exact",
            "prefix",
            "suffix",
            "contains",
            "safe_regex",
            "ignore_case",
        ],
        ignored: &[],
    },
    Support {
        kind: "envoy.type.matcher.v3.RegexMatcher",
        taken: &["regex"],
        ignored: &[("google_re2", "expressions have a bound of their own")],
    },
    Support {
        kind: "envoy.type.matcher.v3.RegexMatchAndSubstitute",
        taken: &["pattern", "substitution"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.route.v3.RouteAction",
        taken: &[
            "cluster",
            "weighted_clusters",
            "prefix_rewrite",
            "regex_rewrite",
            "host_rewrite_literal",
            "timeout",
            "retry_policy",
            "hash_policy",
        ],
        ignored: &[
            ("cluster_not_found_response_code", "it is always 503"),
            ("idle_timeout", "the listener's holds"),
            ("flush_timeout", "the listener's holds"),
            ("upgrade_configs", "upgrades are passed on"),
            ("priority", "limits hold for all requests together"),
            ("max_grpc_timeout", "what a client asks for is passed on"),
            ("grpc_timeout_offset", "what a client asks for is passed on"),
            ("early_data_policy", "nothing is sent early"),
        ],
    },
    Support {
        kind: "envoy.config.route.v3.WeightedCluster",
        taken: &["clusters"],
        ignored: &[
            ("total_weight", "it is the sum of the weights"),
            ("runtime_key_prefix", "there is no runtime"),
        ],
    },
    Support {
        kind: "envoy.config.route.v3.WeightedCluster.ClusterWeight",
        taken: &["name", "weight"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.route.v3.RouteAction.HashPolicy",
        taken: &[
            "header",
            "cookie",
            "connection_properties",
            "query_parameter",
        ],
        ignored: &[("terminal", "there is one policy")],
    },
    Support {
        kind: "envoy.config.route.v3.RouteAction.HashPolicy.Header",
        taken: &["header_name"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.route.v3.RouteAction.HashPolicy.Cookie",
        taken: &["name"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties",
        taken: &["source_ip"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter",
        taken: &["name"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.route.v3.RetryPolicy",
        taken: &[
            "retry_on",
            "num_retries",
            "per_try_timeout",
            "retriable_status_codes",
            "retry_back_off",
        ],
        ignored: &[
            (
                "retry_host_predicate",
                "another endpoint is tried in any case",
            ),
            (
                "host_selection_retry_max_attempts",
                "another endpoint is tried in any case",
            ),
            ("retry_priority", "there is one priority"),
        ],
    },
    Support {
        kind: "envoy.config.route.v3.RetryPolicy.RetryBackOff",
        taken: &["base_interval"],
        ignored: &[("max_interval", "pauses double with each try")],
    },
    Support {
        kind: "envoy.config.route.v3.RedirectAction",
        taken: &[
            "https_redirect",
            "scheme_redirect",
            "host_redirect",
            "port_redirect",
            "path_redirect",
            "response_code",
            "strip_query",
        ],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.route.v3.DirectResponseAction",
        taken: &["status", "body"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.core.v3.DataSource",
        taken: &["inline_string", "inline_bytes"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.core.v3.HeaderValueOption",
        taken: &["header", "append", "append_action", "keep_empty_value"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.core.v3.HeaderValue",
        taken: &["key", "value"],
        ignored: &[],
    },
];
