//! Envoy's outlier detection, as a way to heal.

use std::time::Duration;

use super::*;
use crate::{
    config::model::Heal,
    healing::{
        ejection::{Backoff, Settings},
        outlier::Outlier,
    },
};

/// The longest time out, unless the first one is longer.
const MAX_EJECTION: Duration = Duration::from_secs(300);

pub(super) fn heal(fields: &Fields<'_>) -> Heal {
    let base_ejection = fields.duration("base_ejection_time");
    let max_ejection = match fields.has("max_ejection_time") {
        true => fields.duration("max_ejection_time"),
        false => MAX_EJECTION.max(base_ejection),
    };
    if base_ejection > max_ejection {
        let message = "`base_ejection_time` is longer than `max_ejection_time`";
        let at = fields.value_span("max_ejection_time");
        let problem = Problem::new(codes::CONTRADICTION, at, message);
        let help = "the first time out cannot be longer than the longest: lower the one or raise the other";
        fields.report.add(problem.label("never reached").help(help));
    }
    let jitter = fields.duration("max_ejection_time_jitter");
    Heal {
        ejection: Settings {
            max_ejection_percent: fields.integer("max_ejection_percent"),
            base_ejection,
            backoff: Backoff::Multiplied { jitter },
            max_ejection,
            forgive_after: fields.duration("interval"),
            outlier: Some(outlier(fields)),
            ..Settings::default()
        },
        ..Heal::default()
    }
}

fn outlier(fields: &Fields<'_>) -> Outlier {
    let number = |key| fields.integer(key);
    Outlier {
        consecutive_5xx: number("consecutive_5xx"),
        enforcing_consecutive_5xx: number("enforcing_consecutive_5xx"),
        consecutive_gateway_failure: number("consecutive_gateway_failure"),
        enforcing_consecutive_gateway_failure: number("enforcing_consecutive_gateway_failure"),
        split_external_local_origin_errors: fields.flag("split_external_local_origin_errors"),
        consecutive_local_origin_failure: number("consecutive_local_origin_failure"),
        enforcing_consecutive_local_origin_failure: number(
            "enforcing_consecutive_local_origin_failure",
        ),
        interval: fields.duration("interval"),
        success_rate_minimum_hosts: number("success_rate_minimum_hosts"),
        success_rate_request_volume: number("success_rate_request_volume"),
        success_rate_stdev_factor: number("success_rate_stdev_factor"),
        enforcing_success_rate: number("enforcing_success_rate"),
        enforcing_local_origin_success_rate: number("enforcing_local_origin_success_rate"),
        failure_percentage_threshold: number("failure_percentage_threshold"),
        failure_percentage_minimum_hosts: number("failure_percentage_minimum_hosts"),
        failure_percentage_request_volume: number("failure_percentage_request_volume"),
        enforcing_failure_percentage: number("enforcing_failure_percentage"),
        enforcing_failure_percentage_local_origin: number(
            "enforcing_failure_percentage_local_origin",
        ),
    }
}
