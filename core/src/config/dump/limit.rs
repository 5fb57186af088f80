//! Limits, adaptive and plain, in words of the file.

use super::*;

pub(super) fn rate_limit(limit: &RateLimit) -> Value {
    let mut object = Object::default();
    object.put("mode", limit.mode.word());
    object.put("requests", limit.rate.requests);
    object.put("per", duration(limit.rate.per));
    object.put("burst", limit.rate.burst);
    if let Some(by) = &limit.by {
        object.put("by", hash(by));
        object.put("keys", limit.keys);
    }
    object.into()
}

pub(super) fn adaptive_limit(limit: &AdaptiveLimit) -> Object {
    let mut object = Object::default();
    object.put("mode", limit.mode.word());
    let mut canary = Object::default();
    let share = limit.canary.as_ref().map_or(10_000, |c| c.basis_points);
    canary.put("share", format_share(share));
    let labels = limit.canary.as_ref().map(|c| tls::labels(&c.labels));
    canary.put_filled("labels", labels.unwrap_or_default());
    object.put("canary", canary);
    match &limit.scope {
        Scope::Host => object.put("scope", "host"),
        Scope::Own => object.put("scope", "own"),
        Scope::Cgroup(path) => object.put("cgroup", &**path),
        Scope::Pid(pid) => object.put("pid", *pid),
    }
    let mut targets = Object::default();
    for (key, signal) in [
        ("cpu", Signal::Cpu),
        ("psi_cpu", Signal::PsiCpu),
        ("psi_memory", Signal::PsiMemory),
        ("memory", Signal::Memory),
        ("app", Signal::App),
    ] {
        let target = limit.policy.targets.get(signal);
        let share = target.map(|part| format_share((part * 10_000.0).round() as u32));
        targets.put(key, or_off(share));
    }
    let target = |signal| limit.policy.targets.get(signal);
    let loop_lag = target(Signal::LoopLag).map(Duration::from_secs_f64);
    targets.put("loop_lag", or_off(loop_lag.map(format_duration)));
    let in_flight = target(Signal::InFlight).map(|ceiling| ceiling as u64);
    targets.put("in_flight", or_off(in_flight));
    object.put("targets", targets);
    object.put("trigger_ticks", limit.policy.trigger_ticks);
    object.put("floor", limit.policy.floor);
    object.put_opt("priority_header", limit.priority_header.as_deref());
    object.put_opt("caller_header", limit.caller_header.as_deref());
    object
}

pub(super) fn descriptor(descriptor: &Descriptor) -> Value {
    let entries = descriptor.0.iter().map(|entry| {
        let mut object = Object::default();
        object.put("key", &*entry.key);
        match &entry.value {
            DescriptorValue::Text(text) => object.put("value", &**text),
            DescriptorValue::Request(on) => object.put("by", hash(on)),
        }
        object.into()
    });
    json!({ "entries": entries.collect::<Vec<Value>>() })
}

pub(super) fn rate_limit_service(service: &RateLimitService) -> Object {
    let mut object = Object::default();
    object.put("mode", service.mode.word());
    object.put("cluster", &*service.cluster);
    object.put("domain", &*service.domain);
    object.put("timeout", duration(service.timeout));
    object.put("on_failure", service.on_failure_word());
    object
}
