//! The steering program, in words of the file.

use super::*;
use crate::config::{
    model::steering::{DivertShare, Fallback, Match, OnStop, Ramp, Rule, Steering, Verb},
    syntax::format_instant,
};

pub(super) fn steering(steering: &Steering) -> Object {
    let mut object = Object::default();
    let applications = steering.applications.iter().map(|(name, application)| {
        let units = application
            .units
            .iter()
            .map(|(name, cluster)| (name.to_string(), json!(**cluster)));
        let groups = application.groups.iter().map(|(name, group)| {
            let value = json!({ "cluster": *group.cluster, "exclusive": group.exclusive });
            (name.to_string(), value)
        });
        let mut places = Object::default();
        places.put_filled("units", Object(units.collect()));
        places.put_filled("groups", Object(groups.collect()));
        (name.to_string(), places.into())
    });
    object.put_filled("applications", Object(applications.collect()));
    let rules: Vec<Value> = steering.rules.iter().map(rule).collect();
    object.put_opt("rules", (!rules.is_empty()).then_some(rules));
    let marks = &steering.marks;
    object.put(
        "marks",
        json!({
            "user": hash(&marks.user),
            "colour": *marks.colour,
            "stress": *marks.stress,
            "request_id": *marks.request_id,
        }),
    );
    let peers = steering
        .trusted_peers
        .iter()
        .map(|network| json!(format!("{}/{}", network.address, network.bits)));
    let peers: Vec<Value> = peers.collect();
    object.put_opt("trusted_peers", (!peers.is_empty()).then_some(peers));
    object.put("response_header", steering.response_header);
    object
}

pub(super) fn rule(rule: &Rule) -> Value {
    let mut object = Object::default();
    object.put("id", &*rule.id);
    object.put("owner", &*rule.owner);
    object.put("epoch", rule.epoch);
    object.put_opt("expires", rule.expires_unix_s.map(format_instant));
    object.put("match", matches(&rule.matches));
    verb(&mut object, &rule.verb);
    object.put_opt("hash", rule.sticky.as_ref().map(hash));
    let fallback = rule.fallback.as_ref().map(|fallback| match fallback {
        Fallback::Home => "home".to_owned(),
        Fallback::Refuse => "refuse".to_owned(),
        Fallback::Place(place) => place.to_string(),
    });
    object.put_opt("fallback", fallback);
    object.put_opt("ramp", rule.ramp.as_ref().map(ramp));
    object.into()
}

fn matches(matches: &Match) -> Object {
    let mut object = Object::default();
    object.put("application", &*matches.application);
    let interface = matches
        .interface
        .as_ref()
        .map(|interface| match &interface.method {
            Some(method) => format!("{}/{method}", interface.service),
            None => format!("{}/*", interface.service),
        });
    object.put_opt("interface", interface);
    object.put_opt("from", matches.from.as_deref());
    object.put_opt("colour", matches.colour.as_deref());
    object.put_opt(
        "users",
        matches
            .users
            .map(|(low, high)| format!("{low:02}-{high:02}")),
    );
    object.put_opt("stress", matches.stress);
    object.put_filled("header", values(&matches.headers));
    let cookies = matches
        .cookies
        .iter()
        .map(|(name, value)| (name.to_string(), json!(**value)));
    object.put_filled("cookie", Object(cookies.collect()));
    object.put_opt("percent", matches.percent.map(format_share));
    object
}

fn verb(object: &mut Object, verb: &Verb) {
    let key = verb.word();
    match verb {
        Verb::SetUnit(to) | Verb::SetGroup(to) => object.put(key, &**to),
        Verb::Split(shares) => object.put(key, row(shares)),
        Verb::Shift { to, share } => object.put(key, json!({ "to": **to, "share": format_share(*share) })),
        Verb::Divert { to, share } => object.put(
            key,
            match share {
                DivertShare::Own(share) => json!({ "to": **to, "own_fraction": format_share(*share) }),
                DivertShare::Target { share, servers } => {
                    json!({ "to": **to, "target_share": format_share(*share), "servers": servers })
                }
            },
        ),
        Verb::Cap(rate) => object.put(
            key,
            json!({ "requests": rate.requests, "per": format_duration(rate.per), "burst": rate.burst }),
        ),
        Verb::FailTo(places) => object.put(key, super::texts(places)),
        Verb::Matrix(rows) => {
            let rows = rows.iter().map(|(from, shares)| (from.to_string(), row(shares)));
            object.put(key, Value::Object(rows.collect()));
        }
    }
}

fn row(shares: &[(Arc<str>, u32)]) -> Value {
    let shares = shares
        .iter()
        .map(|(to, share)| (to.to_string(), json!(format_share(*share))));
    Value::Object(shares.collect())
}

fn ramp(ramp: &Ramp) -> Object {
    let mut stop = Object::default();
    stop.put_opt("error_rate", ramp.stop.error_rate.map(format_share));
    stop.put_opt("p99", ramp.stop.p99.map(format_duration));
    stop.put_opt("watermark", ramp.stop.watermark.map(format_share));
    let mut object = Object::default();
    object.put("start", format_share(ramp.start));
    object.put("step", format_share(ramp.step));
    object.put("every", format_duration(ramp.every));
    object.put("stop", stop);
    object.put(
        "on_stop",
        match ramp.on_stop {
            OnStop::Back => "back",
            OnStop::Hold => "hold",
        },
    );
    object
}
