//! Envoy's outlier detection.

use super::*;

/// How often what is found is acted on, in percent.
const ENFORCING: Kind = Kind::Integer(0, 100);
const COUNT: Kind = Kind::Integer(1, u32::MAX as u64);

pub(in super::super) static OUTLIER_DETECTION: Section = Section {
    name: "outlier_detection",
    place: "clusters.<name>.outlier_detection",
    doc: "Self-healing by Envoy's fields, with Envoy's defaults, for those who know them; in place of `heal`. Guards, \
          and the way back by a trial, are those of `heal`. `enforcing_…` is how often what is found is acted on, in \
          percent: else it is told; 0 does not look for it.",
    fields: &[
        Field::new(
            "consecutive_5xx",
            COUNT,
            "Failures in a row: answers of 5xx, and what is no answer (connections refused, reset or late, broken \
             protocol, deadlines) unless it is split off.",
        )
        .default("5", "as Envoy"),
        Field::new("enforcing_consecutive_5xx", ENFORCING, "Of these.").default("100", "as Envoy"),
        Field::new(
            "consecutive_gateway_failure",
            COUNT,
            "Gateway failures in a row: answers of 502, 503 and 504, and what is no answer unless it is split off.",
        )
        .default("5", "as Envoy"),
        Field::new("enforcing_consecutive_gateway_failure", ENFORCING, "Of these.")
            .default("0", "as Envoy"),
        Field::new(
            "split_external_local_origin_errors",
            Kind::Flag,
            "What is no answer is looked at apart, by the fields that have `local_origin` in their names.",
        )
        .default("false", "as Envoy"),
        Field::new(
            "consecutive_local_origin_failure",
            COUNT,
            "Failures in a row that are no answer, if they are split off.",
        )
        .default("5", "as Envoy"),
        Field::new("enforcing_consecutive_local_origin_failure", ENFORCING, "Of these.")
            .default("100", "as Envoy"),
        Field::new(
            "interval",
            Kind::Duration(millis(100), DAY),
            "Time over which rates are taken; and for each such time that an endpoint is well, one time out is forgotten.",
        )
        .default("10s", "as Envoy"),
        Field::new(
            "base_ejection_time",
            Kind::Duration(millis(100), DAY),
            "How long an endpoint is out the first time. The second time it is twice as long, the third time three times.",
        )
        .default("30s", "as Envoy"),
        Field::new("max_ejection_time", Kind::Duration(millis(100), DAY), "The longest time out.")
            .absent("5m, or `base_ejection_time` if that is longer, as Envoy"),
        Field::new(
            "max_ejection_time_jitter",
            Kind::Duration(seconds(0), DAY),
            "An endpoint is out for up to so much longer, by chance.",
        )
        .default("0s", "as Envoy"),
        Field::new(
            "max_ejection_percent",
            Kind::Integer(0, 100),
            "Endpoints that may be out at once, in percent. One always may; the last one never is.",
        )
        .default("10", "as Envoy"),
        Field::new(
            "success_rate_minimum_hosts",
            COUNT,
            "Success rates are compared if so many endpoints had enough requests.",
        )
        .default("5", "as Envoy"),
        Field::new("success_rate_request_volume", COUNT, "Requests in an interval that are enough.")
            .default("100", "as Envoy"),
        Field::new(
            "success_rate_stdev_factor",
            Kind::Integer(0, 1_000_000),
            "An endpoint whose success rate is so many thousandths of the standard deviation below the mean is sick.",
        )
        .default("1900", "as Envoy"),
        Field::new("enforcing_success_rate", ENFORCING, "Of these.").default("100", "as Envoy"),
        Field::new(
            "enforcing_local_origin_success_rate",
            ENFORCING,
            "The same for what is no answer, if it is split off.",
        )
        .default("100", "as Envoy"),
        Field::new(
            "failure_percentage_threshold",
            Kind::Integer(0, 100),
            "An endpoint of whose requests so many of a hundred fail is sick.",
        )
        .default("85", "as Envoy"),
        Field::new(
            "failure_percentage_minimum_hosts",
            COUNT,
            "It is looked at if so many endpoints had enough requests.",
        )
        .default("5", "as Envoy"),
        Field::new(
            "failure_percentage_request_volume",
            COUNT,
            "Requests in an interval that are enough.",
        )
        .default("50", "as Envoy"),
        Field::new("enforcing_failure_percentage", ENFORCING, "Of these.").default("0", "as Envoy"),
        Field::new(
            "enforcing_failure_percentage_local_origin",
            ENFORCING,
            "The same for what is no answer, if it is split off.",
        )
        .default("0", "as Envoy"),
    ],
    planned: &[
        (
            "successful_active_health_check_uneject_host",
            "ejections that end with a check that passes",
        ),
        ("monitors", "Envoy's monitors"),
    ],
};
