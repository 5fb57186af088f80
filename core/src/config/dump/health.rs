//! Active health checks, in words of the file.

use super::*;

pub(super) fn health(health: &HealthCheck) -> Object {
    let mut object = Object::default();
    match &health.probe {
        Probe::Tcp => object.put("tcp", json!({})),
        Probe::Http { path, host, expect } => {
            let mut probe = Object::default();
            probe.put("path", &**path);
            probe.put_opt("host", host.as_deref());
            let expect = expect.iter().map(|(first, last)| match first == last {
                true => json!(first),
                false => json!(format!("{first}-{last}")),
            });
            probe.put("expect", Value::Array(expect.collect()));
            object.put("http", probe);
        }
        Probe::Grpc { service, host } => {
            let mut probe = Object::default();
            probe.put_opt("service", (!service.is_empty()).then_some(&**service));
            probe.put_opt("host", host.as_deref());
            object.put("grpc", probe);
        }
    }
    object.put("interval", duration(health.interval));
    object.put("timeout", duration(health.timeout));
    object.put("healthy_after", health.healthy_after);
    object.put("unhealthy_after", health.unhealthy_after);
    object
}
