//! Listeners and their filters, and what clusters share with them.

use super::{LOGS, OWN_BUFFERS, OWN_CONNECTION, SHOWN, Support, TRACES};

pub(super) const TABLE: &[Support] = &[
    Support {
        kind: "envoy.config.core.v3.HttpProtocolOptions",
        taken: &[
            "idle_timeout",
            "max_requests_per_connection",
            "max_connection_duration",
            "max_headers_count",
        ],
        ignored: &[(
            "headers_with_underscores_action",
            "such headers are passed on",
        )],
    },
    Support {
        kind: "envoy.config.core.v3.Http1ProtocolOptions",
        taken: &[],
        ignored: &[
            ("allow_absolute_url", "both forms are taken"),
            ("accept_http_10", "HTTP/1.0 is taken"),
            ("enable_trailers", "trailers are passed on"),
            ("use_balsa_parser", SHOWN),
            (
                "override_stream_error_on_invalid_http_message",
                OWN_CONNECTION,
            ),
        ],
    },
    Support {
        kind: "envoy.config.core.v3.Http2ProtocolOptions",
        taken: &["max_concurrent_streams"],
        ignored: &[
            ("hpack_table_size", OWN_CONNECTION),
            ("initial_stream_window_size", OWN_CONNECTION),
            ("initial_connection_window_size", OWN_CONNECTION),
            ("max_outbound_frames", OWN_CONNECTION),
            ("max_outbound_control_frames", OWN_CONNECTION),
            (
                "max_consecutive_inbound_frames_with_empty_payload",
                OWN_CONNECTION,
            ),
            ("max_inbound_priority_frames_per_stream", OWN_CONNECTION),
            (
                "max_inbound_window_update_frames_per_data_frame_sent",
                OWN_CONNECTION,
            ),
            (
                "override_stream_error_on_invalid_http_message",
                OWN_CONNECTION,
            ),
            ("use_oghttp2_codec", SHOWN),
        ],
    },
    Support {
        kind: "envoy.config.core.v3.TransportSocket",
        taken: &["name", "typed_config"],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        taken: &[],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        taken: &[
            "common_tls_context",
            "require_client_certificate",
            "disable_stateless_session_resumption",
        ],
        ignored: &[
            ("session_timeout", "tickets have their own life"),
            ("disable_stateful_session_resumption", "there is none"),
            ("ocsp_staple_policy", "nothing is stapled"),
            (
                "full_scan_certs_on_sni_mismatch",
                "the first certificate is for the rest",
            ),
            (
                "prefer_client_ciphers",
                "the client's order does not matter",
            ),
        ],
    },
    Support {
        kind: "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        taken: &["common_tls_context", "sni", "max_session_keys"],
        ignored: &[
            ("allow_renegotiation", "there is none"),
            ("enforce_rsa_key_usage", "it is enforced"),
        ],
    },
    Support {
        kind: "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        taken: &[
            "tls_params",
            "tls_certificate_sds_secret_configs",
            "validation_context_sds_secret_config",
            "combined_validation_context",
            "alpn_protocols",
        ],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext",
        taken: &[
            "default_validation_context",
            "validation_context_sds_secret_config",
        ],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        taken: &["match_typed_subject_alt_names"],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher",
        taken: &["san_type", "matcher"],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.transport_sockets.tls.v3.TlsParameters",
        taken: &[
            "tls_minimum_protocol_version",
            "tls_maximum_protocol_version",
        ],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig",
        taken: &["name", "sds_config"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.core.v3.ConfigSource",
        taken: &["ads", "self", "path", "path_config_source"],
        ignored: &[
            ("resource_api_version", "there is only v3"),
            ("initial_fetch_timeout", "waiting is bounded by 15 s"),
        ],
    },
    Support {
        kind: "envoy.config.core.v3.AggregatedConfigSource",
        taken: &[],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.core.v3.PathConfigSource",
        taken: &["path", "watched_directory"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.core.v3.WatchedDirectory",
        taken: &["path"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.core.v3.SelfConfigSource",
        taken: &[],
        ignored: &[("transport_api_version", "there is only v3")],
    },
    Support {
        kind: "envoy.config.core.v3.Address",
        taken: &["socket_address"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.core.v3.SocketAddress",
        taken: &["protocol", "address", "port_value"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.listener.v3.Listener",
        taken: &[
            "name",
            "address",
            "filter_chains",
            "default_filter_chain",
            "listener_filters",
        ],
        ignored: &[
            ("stat_prefix", SHOWN),
            ("metadata", SHOWN),
            ("traffic_direction", SHOWN),
            ("access_log", LOGS),
            ("per_connection_buffer_limit_bytes", OWN_BUFFERS),
            ("drain_type", OWN_CONNECTION),
            ("listener_filters_timeout", OWN_CONNECTION),
            ("continue_on_listener_filters_timeout", OWN_CONNECTION),
            ("connection_balance_config", OWN_CONNECTION),
            ("enable_reuse_port", OWN_CONNECTION),
            ("reuse_port", OWN_CONNECTION),
            ("tcp_backlog_size", OWN_CONNECTION),
            ("max_connections_to_accept_per_socket_event", OWN_CONNECTION),
            ("tcp_fast_open_queue_length", OWN_CONNECTION),
        ],
    },
    Support {
        kind: "envoy.config.listener.v3.FilterChain",
        taken: &["filter_chain_match", "filters", "transport_socket"],
        ignored: &[
            ("name", SHOWN),
            ("metadata", SHOWN),
            ("transport_socket_connect_timeout", OWN_CONNECTION),
        ],
    },
    Support {
        kind: "envoy.config.listener.v3.FilterChainMatch",
        taken: &["transport_protocol", "server_names"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.listener.v3.Filter",
        taken: &["name", "typed_config"],
        ignored: &[],
    },
    Support {
        kind: "envoy.config.listener.v3.ListenerFilter",
        taken: &["name", "typed_config"],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        taken: &[],
        ignored: &[
            ("enable_ja3_fingerprinting", SHOWN),
            ("enable_ja4_fingerprinting", SHOWN),
            ("initial_read_buffer_size", OWN_CONNECTION),
        ],
    },
    Support {
        kind: "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
        taken: &[],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        taken: &[],
        ignored: &[("stat_prefix", SHOWN)],
    },
    Support {
        kind: "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        taken: &[
            "codec_type",
            "rds",
            "route_config",
            "http_filters",
            "common_http_protocol_options",
            "http2_protocol_options",
            "http_protocol_options",
            "max_request_headers_kb",
            "stream_idle_timeout",
            "request_headers_timeout",
            "use_remote_address",
            "via",
        ],
        ignored: &[
            ("stat_prefix", SHOWN),
            ("tracing", TRACES),
            ("access_log", LOGS),
            ("access_log_options", LOGS),
            ("access_log_flush_interval", LOGS),
            ("flush_access_log_on_new_request", LOGS),
            ("server_name", "the `server` header is the endpoint's"),
            (
                "server_header_transformation",
                "the `server` header is the endpoint's",
            ),
            ("generate_request_id", "request ids are not made"),
            ("preserve_external_request_id", "request ids are passed on"),
            (
                "always_set_request_id_in_response",
                "request ids are not made",
            ),
            ("drain_timeout", "`drain_timeout` of the file holds"),
            ("delayed_close_timeout", OWN_CONNECTION),
            ("request_timeout", "the routes' time-outs hold"),
            ("stream_flush_timeout", "`stream_idle_timeout` holds"),
            ("upgrade_configs", "upgrades are passed on"),
            ("normalize_path", "a path with dot segments takes no route"),
            ("merge_slashes", "a path is matched as it is sent"),
            (
                "path_with_escaped_slashes_action",
                "a path is matched as it is sent",
            ),
            ("strip_matching_host_port", "ports are ignored in matching"),
            ("strip_any_host_port", "ports are ignored in matching"),
            (
                "strip_trailing_host_dot",
                "a dot at the end of a host is ignored",
            ),
            ("stream_error_on_invalid_http_message", OWN_CONNECTION),
            ("internal_address_config", "no client counts as internal"),
            (
                "xff_num_trusted_hops",
                "a client's address is that of its connection",
            ),
        ],
    },
    Support {
        kind: "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        taken: &["config_source", "route_config_name"],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        taken: &["name", "typed_config", "is_optional", "disabled"],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.filters.http.router.v3.Router",
        taken: &[],
        ignored: &[
            ("dynamic_stats", SHOWN),
            ("start_child_span", TRACES),
            ("upstream_log", LOGS),
            ("upstream_log_options", LOGS),
            ("suppress_envoy_headers", "there are none"),
            ("respect_expected_rq_timeout", "there are none"),
            ("suppress_grpc_request_failure_code_stats", SHOWN),
        ],
    },
    Support {
        kind: "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        taken: &[
            "cluster",
            "weighted_clusters",
            "idle_timeout",
            "max_downstream_connection_duration",
        ],
        ignored: &[
            ("stat_prefix", SHOWN),
            ("access_log", LOGS),
            ("access_log_options", LOGS),
            ("access_log_flush_interval", LOGS),
            ("flush_access_log_on_connected", LOGS),
            ("max_connect_attempts", "a connection is tried once"),
        ],
    },
    Support {
        kind: "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster",
        taken: &["clusters"],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight",
        taken: &["name", "weight"],
        ignored: &[],
    },
];
