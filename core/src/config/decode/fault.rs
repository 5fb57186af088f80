//! Faults that are injected on purpose.

use super::*;
use crate::config::model::{AbortWith, Chance, Fault, FaultAbort, FaultDelay};

/// Decodes `fault` of a route.
pub(super) fn fault(fields: &Fields<'_>) -> Fault {
    let delay = fields.section_opt("delay", &keys::FAULT_DELAY);
    let abort = fields.section_opt("abort", &keys::FAULT_ABORT);
    if delay.is_none() && abort.is_none() {
        let message = "`fault` neither delays nor refuses";
        let problem = Problem::new(codes::ONE_OF, fields.at.clone(), message);
        let help = "add `delay` or `abort`, or remove it";
        fields.report.add(problem.label("does nothing").help(help));
    }
    Fault {
        delay: delay.and_then(|fields| self::delay(&fields)),
        abort: abort.and_then(|fields| self::abort(&fields)),
        headers: matching::headers(fields),
        active_max: fields.integer_or_off("max_active"),
    }
}

fn delay(fields: &Fields<'_>) -> Option<FaultDelay> {
    let fixed = match fields.exactly_one(&["fixed", "by_header"])? {
        "fixed" => Some(fields.duration("fixed")),
        _ if is_by_header(fields) => None,
        _ => return None,
    };
    Some(FaultDelay {
        fixed,
        chance: Chance::of_share(fields.share("share")),
    })
}

fn abort(fields: &Fields<'_>) -> Option<FaultAbort> {
    let with = match fields.exactly_one(&["status", "grpc_status", "by_header"])? {
        "status" => AbortWith::Http(fields.integer("status")),
        "grpc_status" => AbortWith::Grpc(fields.integer("grpc_status")),
        _ if is_by_header(fields) => AbortWith::Header,
        _ => return None,
    };
    Some(FaultAbort {
        with,
        chance: Chance::of_share(fields.share("share")),
    })
}

/// `by_header: false` says nothing.
fn is_by_header(fields: &Fields<'_>) -> bool {
    let asked = fields.flag("by_header");
    if !asked {
        let message = "`by_header: false` does nothing";
        let span = fields.value_span("by_header");
        let problem = Problem::new(codes::UNKNOWN_VALUE, span, message);
        let help = "write `by_header: true`, or what is to happen";
        fields.report.add(problem.label("no fault").help(help));
    }
    asked
}
