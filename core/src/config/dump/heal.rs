//! Self-healing, in words of the file.

use super::*;
use crate::healing::{
    ejection::{Backoff, Settings},
    outlier::Outlier,
};

/// As `heal`, or as `outlier_detection`.
pub(super) fn put_heal(object: &mut Object, heal: &Heal) {
    match &heal.ejection.outlier {
        Some(outlier) => object.put("outlier_detection", envoys(&heal.ejection, outlier)),
        None => object.put("heal", own(heal)),
    }
}

fn own(heal: &Heal) -> Object {
    let mut object = Object::default();
    let ejection = &heal.ejection;
    object.put("mode", heal.mode.word());
    object.put("max_ejection_percent", ejection.max_ejection_percent);
    object.put("common_mode_percent", ejection.common_mode_percent);
    object.put("base_ejection", duration(ejection.base_ejection));
    object.put("max_ejection", duration(ejection.max_ejection));
    object.put("forgive_after", duration(ejection.forgive_after));
    object.put("slow_start", duration(heal.slow_start));
    object
}

fn envoys(ejection: &Settings, outlier: &Outlier) -> Object {
    let mut object = Object::default();
    for (key, number) in [
        ("consecutive_5xx", outlier.consecutive_5xx),
        (
            "enforcing_consecutive_5xx",
            outlier.enforcing_consecutive_5xx,
        ),
        (
            "consecutive_gateway_failure",
            outlier.consecutive_gateway_failure,
        ),
        (
            "enforcing_consecutive_gateway_failure",
            outlier.enforcing_consecutive_gateway_failure,
        ),
        (
            "consecutive_local_origin_failure",
            outlier.consecutive_local_origin_failure,
        ),
        (
            "enforcing_consecutive_local_origin_failure",
            outlier.enforcing_consecutive_local_origin_failure,
        ),
        (
            "success_rate_minimum_hosts",
            outlier.success_rate_minimum_hosts,
        ),
        (
            "success_rate_request_volume",
            outlier.success_rate_request_volume,
        ),
        (
            "success_rate_stdev_factor",
            outlier.success_rate_stdev_factor,
        ),
        ("enforcing_success_rate", outlier.enforcing_success_rate),
        (
            "enforcing_local_origin_success_rate",
            outlier.enforcing_local_origin_success_rate,
        ),
        (
            "failure_percentage_threshold",
            outlier.failure_percentage_threshold,
        ),
        (
            "failure_percentage_minimum_hosts",
            outlier.failure_percentage_minimum_hosts,
        ),
        (
            "failure_percentage_request_volume",
            outlier.failure_percentage_request_volume,
        ),
        (
            "enforcing_failure_percentage",
            outlier.enforcing_failure_percentage,
        ),
        (
            "enforcing_failure_percentage_local_origin",
            outlier.enforcing_failure_percentage_local_origin,
        ),
        ("max_ejection_percent", ejection.max_ejection_percent),
    ] {
        object.put(key, number);
    }
    let is_split = outlier.split_external_local_origin_errors;
    object.put("split_external_local_origin_errors", is_split);
    object.put("interval", duration(outlier.interval));
    object.put("base_ejection_time", duration(ejection.base_ejection));
    object.put("max_ejection_time", duration(ejection.max_ejection));
    if let Backoff::Multiplied { jitter } = ejection.backoff {
        object.put("max_ejection_time_jitter", duration(jitter));
    }
    object
}
