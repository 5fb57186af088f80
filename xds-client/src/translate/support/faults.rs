//! Fault injection.

use super::{SHOWN, Support};

const NO_RUNTIME: &str = "there is no runtime";

pub(super) const TABLE: &[Support] = &[
    Support {
        kind: "envoy.extensions.filters.http.fault.v3.HTTPFault",
        taken: &["delay", "abort", "headers", "max_active_faults"],
        ignored: &[
            ("delay_percent_runtime", NO_RUNTIME),
            ("abort_percent_runtime", NO_RUNTIME),
            ("delay_duration_runtime", NO_RUNTIME),
            ("abort_http_status_runtime", NO_RUNTIME),
            ("abort_grpc_status_runtime", NO_RUNTIME),
            ("max_active_faults_runtime", NO_RUNTIME),
            ("response_rate_limit_percent_runtime", NO_RUNTIME),
            ("disable_downstream_cluster_stats", SHOWN),
            ("filter_metadata", SHOWN),
        ],
    },
    Support {
        kind: "envoy.extensions.filters.common.fault.v3.FaultDelay",
        taken: &["fixed_delay", "header_delay", "percentage"],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.filters.common.fault.v3.FaultDelay.HeaderDelay",
        taken: &[],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.filters.http.fault.v3.FaultAbort",
        taken: &["http_status", "grpc_status", "header_abort", "percentage"],
        ignored: &[],
    },
    Support {
        kind: "envoy.extensions.filters.http.fault.v3.FaultAbort.HeaderAbort",
        taken: &[],
        ignored: &[],
    },
];
