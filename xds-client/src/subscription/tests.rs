//! The rules of a subscription, one test a rule. Time is a number that the tests choose.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn good(name: &str, value: u32) -> Resource<u32> {
    Resource {
        name: name.into(),
        value: Ok(value),
    }
}

fn bad(name: &str, reason: &str) -> Resource<u32> {
    Resource {
        name: name.into(),
        value: Err(reason.into()),
    }
}

fn response(version: &str, nonce: &str, resources: Vec<Resource<u32>>) -> Response<u32> {
    Response {
        version: version.into(),
        nonce: nonce.into(),
        resources,
    }
}

fn set(name: &str, value: u32) -> Update<u32> {
    Update::Set {
        name: name.into(),
        value,
    }
}

fn removed(name: &str) -> Update<u32> {
    Update::Removed { name: name.into() }
}

/// A connected wildcard subscription to clusters whose first request is out.
fn clusters() -> Subscription {
    let mut subscription = Subscription::wildcard(ResourceType::Cluster);
    subscription.connected();
    subscription.poll_request(NOW).unwrap();
    subscription
}

/// A connected subscription to the endpoints of `names` whose first request is out.
fn endpoints(names: &[&str]) -> Subscription {
    let mut subscription = Subscription::named(ResourceType::Endpoint);
    for name in names {
        subscription.subscribe(name);
    }
    subscription.connected();
    subscription.poll_request(NOW).unwrap();
    subscription
}

/// Goal: a wildcard subscription says so on the wire. Method: its first request has no names, no version
/// and no nonce, and is sent once.
#[test]
fn wildcard_begins_with_an_empty_request() {
    let mut subscription = Subscription::wildcard(ResourceType::Listener);
    assert_eq!(subscription.poll_request(NOW), None);
    subscription.connected();
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(request.names, Vec::<String>::new());
    assert_eq!((request.version, request.nonce), Default::default());
    assert_eq!(request.error, None);
    assert_eq!(subscription.poll_request(NOW), None);
}

/// Goal: a named type without names never asks for everything by accident. Method: nothing is sent
/// until there is a name; after that, the empty list is sent.
#[test]
fn named_without_names_is_silent_until_it_has_spoken() {
    let mut subscription = Subscription::named(ResourceType::Endpoint);
    subscription.connected();
    assert_eq!(subscription.poll_request(NOW), None);
    subscription.subscribe("a");
    subscription.unsubscribe("a");
    assert_eq!(subscription.poll_request(NOW), None);
    subscription.subscribe("a");
    assert_eq!(subscription.poll_request(NOW).unwrap().names, ["a"]);
    subscription.unsubscribe("a");
    assert!(subscription.poll_request(NOW).unwrap().names.is_empty());
}

/// Goal: an accepted response is acknowledged. Method: the next request carries its version and nonce.
#[test]
fn ack_carries_version_and_nonce() {
    let mut subscription = clusters();
    let updates = subscription.receive(response("v1", "n1", vec![good("a", 1), good("b", 2)]));
    assert_eq!(updates, [set("a", 1), set("b", 2)]);
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(
        (request.version.as_str(), request.nonce.as_str()),
        ("v1", "n1")
    );
    assert_eq!(request.error, None);
}

/// Goal: one bad resource does not hold up the good ones (A46). Method: the good one is taken, the bad
/// one keeps its last value, the request is a NACK with the old version and the new nonce.
#[test]
fn nack_keeps_the_version_and_the_last_good_value() {
    let mut subscription = clusters();
    subscription.receive(response("v1", "n1", vec![good("a", 1), good("b", 1)]));
    subscription.poll_request(NOW);
    let updates = subscription.receive(response(
        "v2",
        "n2",
        vec![bad("a", "connect_timeout is negative"), good("b", 2)],
    ));
    assert_eq!(updates, [set("b", 2)]);
    assert!(subscription.holds("a"));
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(
        (request.version.as_str(), request.nonce.as_str()),
        ("v1", "n2")
    );
    assert_eq!(
        request.error.as_deref(),
        Some("a: connect_timeout is negative")
    );
    // A good one clears the error.
    subscription.receive(response("v3", "n3", vec![good("a", 3), good("b", 3)]));
    assert_eq!(subscription.poll_request(NOW).unwrap().error, None);
    assert_eq!(subscription.version(), "v3");
}

/// Goal: absence removes clusters and listeners, never endpoints. Method: the same two responses.
#[test]
fn absence_removes_by_type() {
    let mut subscription = clusters();
    subscription.receive(response("v1", "n1", vec![good("a", 1), good("b", 1)]));
    let updates = subscription.receive(response("v2", "n2", vec![good("b", 2)]));
    assert_eq!(updates, [set("b", 2), removed("a")]);
    let updates = subscription.receive(response("v3", "n3", vec![]));
    assert_eq!(updates, [removed("b")]);

    let mut subscription = endpoints(&["a", "b"]);
    subscription.receive(response("v1", "n1", vec![good("a", 1), good("b", 1)]));
    let updates = subscription.receive(response("v2", "n2", vec![good("b", 2)]));
    assert_eq!(updates, [set("b", 2)]);
    assert!(subscription.holds("a"));
}

/// Goal: an ambiguous response is refused. Method: a name twice is a NACK that names it.
#[test]
fn a_name_twice_is_refused() {
    let mut subscription = clusters();
    let updates = subscription.receive(response("v1", "n1", vec![good("a", 1), good("a", 2)]));
    assert_eq!(updates, [set("a", 1)]);
    let error = subscription.poll_request(NOW).unwrap().error.unwrap();
    assert!(error.contains("a: named twice"), "{error}");
    assert_eq!(subscription.version(), "");
}

/// Goal: a server that sends more than was asked for changes nothing. Method: an unwanted name.
#[test]
fn unwanted_resources_are_ignored() {
    let mut subscription = endpoints(&["a"]);
    let updates = subscription.receive(response("v1", "n1", vec![good("a", 1), good("x", 9)]));
    assert_eq!(updates, [set("a", 1)]);
    assert!(!subscription.holds("x"));
    assert_eq!(subscription.poll_request(NOW).unwrap().error, None);
}

/// Goal: a broken stream loses nothing. Method: after it, names and version are said again with an
/// empty nonce, and what was held stays held.
#[test]
fn reconnect_repeats_names_and_version() {
    let mut subscription = endpoints(&["a", "b"]);
    subscription.receive(response("v1", "n1", vec![good("a", 1)]));
    subscription.disconnected();
    subscription.subscribe("c");
    assert_eq!(subscription.poll_request(NOW), None);
    assert!(
        subscription
            .receive(response("v9", "n9", vec![good("a", 9)]))
            .is_empty()
    );
    subscription.connected();
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(request.names, ["a", "b", "c"]);
    assert_eq!(
        (request.version.as_str(), request.nonce.as_str()),
        ("v1", "")
    );
    assert!(subscription.holds("a"));
}

/// Goal: changes between two sends are one request. Method: an ACK and two subscriptions.
#[test]
fn changes_are_sent_together() {
    let mut subscription = endpoints(&["a"]);
    subscription.receive(response("v1", "n1", vec![good("a", 1)]));
    subscription.subscribe("b");
    subscription.subscribe("c");
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(request.names, ["a", "b", "c"]);
    assert_eq!(request.nonce, "n1");
    assert_eq!(subscription.poll_request(NOW), None);
}

/// Goal: names beside a wildcard do not end it. Method: the list then begins with `*`.
#[test]
fn wildcard_with_names_says_both() {
    let mut subscription = clusters();
    subscription.subscribe("a");
    assert_eq!(subscription.poll_request(NOW).unwrap().names, ["*", "a"]);
    subscription.unsubscribe("a");
    assert!(subscription.poll_request(NOW).unwrap().names.is_empty());
}

/// Goal: a resource that does not come is found missing, once, and only by connected time (A57).
/// Method: time before, at and after the deadline; a disconnection in between starts it anew.
#[test]
fn missing_after_fifteen_connected_seconds() {
    let mut subscription = endpoints(&["a", "b"]);
    subscription.receive(response("v1", "n1", vec![good("a", 1)]));
    assert_eq!(subscription.deadline(), Some(NOW + MISSING_AFTER));
    let just_before = NOW + MISSING_AFTER - Duration::from_nanos(1);
    assert!(subscription.elapsed::<u32>(just_before).is_empty());

    subscription.disconnected();
    assert_eq!(subscription.deadline(), None);
    assert!(
        subscription
            .elapsed::<u32>(NOW + 2 * MISSING_AFTER)
            .is_empty()
    );
    subscription.connected();
    let later = NOW + 3 * MISSING_AFTER;
    subscription.poll_request(later).unwrap();
    let missing = Update::Missing::<u32> { name: "b".into() };
    assert_eq!(subscription.elapsed(later + MISSING_AFTER), [missing]);
    assert!(
        subscription
            .elapsed::<u32>(later + 3 * MISSING_AFTER)
            .is_empty()
    );
    // It may still come.
    let updates = subscription.receive(response("v2", "n2", vec![good("b", 2)]));
    assert_eq!(updates, [set("b", 2)]);
    assert_eq!(subscription.deadline(), None);
}

/// Goal: a server cannot make us hold or send without end. Method: the limit and one above, and a
/// NACK of many resources.
#[test]
fn limits_hold() {
    let many = |n: usize| (0..n).map(|i| good(&format!("c{i}"), 1)).collect();
    let mut subscription = clusters();
    let updates = subscription.receive(response("v1", "n1", many(RESOURCES_MAX)));
    assert_eq!(updates.len(), RESOURCES_MAX);
    let updates = subscription.receive(response("v2", "n2", many(RESOURCES_MAX + 1)));
    assert!(updates.is_empty());
    assert_eq!(subscription.version(), "v1");
    assert!(subscription.holds("c0"));

    let broken = (0..1000).map(|i| bad(&format!("c{i}"), "broken")).collect();
    subscription.receive(response("v3", "n3", broken));
    let error = subscription.poll_request(NOW).unwrap().error.unwrap();
    assert!(error.len() <= ERROR_TEXT_MAX, "{}", error.len());
    assert!(error.ends_with("more"), "{error}");
}
