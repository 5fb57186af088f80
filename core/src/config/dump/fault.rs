//! Faults that are injected on purpose, and copies of requests, in words of the file.

use super::*;
use crate::config::model::{AbortWith, Chance, Fault, Mirror};

pub(super) fn fault(fault: &Fault) -> Object {
    let mut object = Object::default();
    object.put_opt(
        "delay",
        fault.delay.map(|delay| {
            let mut object = Object::default();
            match delay.fixed {
                Some(fixed) => object.put("fixed", duration(fixed)),
                None => object.put("by_header", true),
            }
            object.put("share", share(delay.chance));
            object
        }),
    );
    object.put_opt(
        "abort",
        fault.abort.map(|abort| {
            let mut object = Object::default();
            match abort.with {
                AbortWith::Http(status) => object.put("status", status),
                AbortWith::Grpc(status) => object.put("grpc_status", status),
                AbortWith::Header => object.put("by_header", true),
            }
            object.put("share", share(abort.chance));
            object
        }),
    );
    object.put_filled("header", values(&fault.headers));
    object.put("max_active", or_off(fault.active_max));
    object
}

pub(super) fn mirrors(mirrors: &[Mirror]) -> Option<Vec<Value>> {
    let mirrors = mirrors.iter().map(|mirror| {
        let mut object = Object::default();
        object.put("to", &*mirror.cluster);
        object.put("share", share(mirror.chance));
        object.put("host_suffix", mirror.host_suffix);
        Value::from(object)
    });
    Some(mirrors.collect::<Vec<_>>()).filter(|mirrors| !mirrors.is_empty())
}

/// In basis points, which a millionth of the API is rounded to.
fn share(chance: Chance) -> String {
    let whole = u64::from(chance.denominator.max(1));
    format_share((u64::from(chance.numerator) * 10_000 / whole) as u32)
}
