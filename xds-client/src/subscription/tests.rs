//! The rules of a subscription, one test a rule. Time is a number that the tests choose.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;

const NOW: Duration = Duration::from_secs(100);

impl Subscription {
    fn hear<T>(&mut self, response: Response<T>) -> Vec<Update<T>> {
        self.receive(response, NOW)
    }
}

fn good(name: &str, value: u32) -> Resource<u32> {
    Resource {
        name: name.into(),
        version: format!("{value}"),
        ttl: None,
        value: Ok(value),
    }
}

fn bad(name: &str, reason: &str) -> Resource<u32> {
    Resource {
        name: name.into(),
        version: "bad".into(),
        ttl: None,
        value: Err(reason.into()),
    }
}

fn response(version: &str, nonce: &str, resources: Vec<Resource<u32>>) -> Response<u32> {
    Response {
        version: version.into(),
        nonce: nonce.into(),
        resources,
        heartbeats: Vec::new(),
        removed: Vec::new(),
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

/// What a request of the state of the world asks for.
fn names(request: &Request) -> Vec<&str> {
    let Wanted::Names { names, .. } = &request.wanted else {
        panic!("{request:?}");
    };
    names.iter().map(String::as_str).collect()
}

fn version(request: &Request) -> &str {
    let Wanted::Names { version, .. } = &request.wanted else {
        panic!("{request:?}");
    };
    version
}

/// A connected wildcard subscription to clusters whose first request is out.
fn clusters() -> Subscription {
    let mut subscription = Subscription::wildcard(ResourceType::Cluster, Variant::StateOfTheWorld);
    subscription.connected(Claim::Versions);
    subscription.poll_request(NOW).unwrap();
    subscription
}

/// A connected subscription to the endpoints of `names` whose first request is out.
fn endpoints(names: &[&str]) -> Subscription {
    let mut subscription = Subscription::named(ResourceType::Endpoint, Variant::StateOfTheWorld);
    for name in names {
        subscription.subscribe(name);
    }
    subscription.connected(Claim::Versions);
    subscription.poll_request(NOW).unwrap();
    subscription
}

/// Goal: a wildcard subscription says so on the wire. Method: its first request has no names, no version
/// and no nonce, and is sent once.
#[test]
fn wildcard_begins_with_an_empty_request() {
    let mut subscription = Subscription::wildcard(ResourceType::Listener, Variant::StateOfTheWorld);
    assert_eq!(subscription.poll_request(NOW), None);
    subscription.connected(Claim::Versions);
    let request = subscription.poll_request(NOW).unwrap();
    assert!(names(&request).is_empty());
    assert_eq!(
        (version(&request), request.nonce.as_str()),
        Default::default()
    );
    assert_eq!(request.error, None);
    assert_eq!(subscription.poll_request(NOW), None);
}

/// Goal: a named type without names never asks for everything by accident. Method: nothing is sent
/// until there is a name; after that, the empty list is sent.
#[test]
fn named_without_names_is_silent_until_it_has_spoken() {
    let mut subscription = Subscription::named(ResourceType::Endpoint, Variant::StateOfTheWorld);
    subscription.connected(Claim::Versions);
    assert_eq!(subscription.poll_request(NOW), None);
    subscription.subscribe("a");
    subscription.unsubscribe("a");
    assert_eq!(subscription.poll_request(NOW), None);
    subscription.subscribe("a");
    assert_eq!(names(&subscription.poll_request(NOW).unwrap()), ["a"]);
    subscription.unsubscribe("a");
    assert!(names(&subscription.poll_request(NOW).unwrap()).is_empty());
}

/// Goal: an accepted response is acknowledged. Method: the next request carries its version and nonce.
#[test]
fn ack_carries_version_and_nonce() {
    let mut subscription = clusters();
    let updates = subscription.hear(response("v1", "n1", vec![good("a", 1), good("b", 2)]));
    assert_eq!(updates, [set("a", 1), set("b", 2)]);
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!((version(&request), request.nonce.as_str()), ("v1", "n1"));
    assert_eq!(request.error, None);
}

/// Goal: one bad resource does not hold up the good ones (A46). Method: the good one is taken, the bad
/// one keeps its last value, the request is a NACK with the old version and the new nonce.
#[test]
fn nack_keeps_the_version_and_the_last_good_value() {
    let mut subscription = clusters();
    subscription.hear(response("v1", "n1", vec![good("a", 1), good("b", 1)]));
    subscription.poll_request(NOW);
    let updates = subscription.hear(response(
        "v2",
        "n2",
        vec![bad("a", "connect_timeout is negative"), good("b", 2)],
    ));
    assert_eq!(updates, [set("b", 2)]);
    assert!(subscription.holds("a"));
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!((version(&request), request.nonce.as_str()), ("v1", "n2"));
    assert_eq!(
        request.error.as_deref(),
        Some("a: connect_timeout is negative")
    );
    // A good one clears the error.
    subscription.hear(response("v3", "n3", vec![good("a", 3), good("b", 3)]));
    assert_eq!(subscription.poll_request(NOW).unwrap().error, None);
    assert_eq!(subscription.version(), "v3");
}

/// Goal: absence removes clusters and listeners, never endpoints. Method: the same two responses.
#[test]
fn absence_removes_by_type() {
    let mut subscription = clusters();
    subscription.hear(response("v1", "n1", vec![good("a", 1), good("b", 1)]));
    let updates = subscription.hear(response("v2", "n2", vec![good("b", 2)]));
    assert_eq!(updates, [set("b", 2), removed("a")]);
    let updates = subscription.hear(response("v3", "n3", vec![]));
    assert_eq!(updates, [removed("b")]);

    let mut subscription = endpoints(&["a", "b"]);
    subscription.hear(response("v1", "n1", vec![good("a", 1), good("b", 1)]));
    let updates = subscription.hear(response("v2", "n2", vec![good("b", 2)]));
    assert_eq!(updates, [set("b", 2)]);
    assert!(subscription.holds("a"));
}

/// Goal: an ambiguous response is refused. Method: a name twice is a NACK that names it.
#[test]
fn a_name_twice_is_refused() {
    let mut subscription = clusters();
    let updates = subscription.hear(response("v1", "n1", vec![good("a", 1), good("a", 2)]));
    assert_eq!(updates, [set("a", 1)]);
    let error = subscription.poll_request(NOW).unwrap().error.unwrap();
    assert!(error.contains("a: named twice"), "{error}");
    assert_eq!(subscription.version(), "");
}

/// Goal: a server that sends more than was asked for changes nothing. Method: an unwanted name.
#[test]
fn unwanted_resources_are_ignored() {
    let mut subscription = endpoints(&["a"]);
    let updates = subscription.hear(response("v1", "n1", vec![good("a", 1), good("x", 9)]));
    assert_eq!(updates, [set("a", 1)]);
    assert!(!subscription.holds("x"));
    assert_eq!(subscription.poll_request(NOW).unwrap().error, None);
}

/// Goal: a broken stream loses nothing. Method: after it, names and version are said again with an
/// empty nonce, and what was held stays held.
#[test]
fn reconnect_repeats_names_and_version() {
    let mut subscription = endpoints(&["a", "b"]);
    subscription.hear(response("v1", "n1", vec![good("a", 1)]));
    subscription.disconnected();
    subscription.subscribe("c");
    assert_eq!(subscription.poll_request(NOW), None);
    assert!(
        subscription
            .hear(response("v9", "n9", vec![good("a", 9)]))
            .is_empty()
    );
    subscription.connected(Claim::Versions);
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(names(&request), ["a", "b", "c"]);
    assert_eq!((version(&request), request.nonce.as_str()), ("v1", ""));
    assert!(subscription.holds("a"));
}

/// Goal: changes between two sends are one request. Method: an ACK and two subscriptions.
#[test]
fn changes_are_sent_together() {
    let mut subscription = endpoints(&["a"]);
    subscription.hear(response("v1", "n1", vec![good("a", 1)]));
    subscription.subscribe("b");
    subscription.subscribe("c");
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(names(&request), ["a", "b", "c"]);
    assert_eq!(request.nonce, "n1");
    assert_eq!(subscription.poll_request(NOW), None);
}

/// Goal: names beside a wildcard do not end it. Method: the list then begins with `*`.
#[test]
fn wildcard_with_names_says_both() {
    let mut subscription = clusters();
    subscription.subscribe("a");
    assert_eq!(names(&subscription.poll_request(NOW).unwrap()), ["*", "a"]);
    subscription.unsubscribe("a");
    assert!(names(&subscription.poll_request(NOW).unwrap()).is_empty());
}

/// Goal: a resource that does not come is found missing, once, and only by connected time (A57).
/// Method: time before, at and after the deadline; a disconnection in between starts it anew.
#[test]
fn missing_after_fifteen_connected_seconds() {
    let mut subscription = endpoints(&["a", "b"]);
    subscription.hear(response("v1", "n1", vec![good("a", 1)]));
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
    subscription.connected(Claim::Versions);
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
    let updates = subscription.hear(response("v2", "n2", vec![good("b", 2)]));
    assert_eq!(updates, [set("b", 2)]);
    assert_eq!(subscription.deadline(), None);
}

/// Goal: a resource that cannot even be named takes no other with it. Method: of two clusters that are held one comes
/// again and the other in pieces: what is absent by name may be what could not be read.
#[test]
fn what_has_no_name_removes_nothing() {
    let mut subscription = clusters();
    subscription.hear(response("v1", "n1", vec![good("a", 1), good("b", 1)]));
    let updates = subscription.hear(response("v2", "n2", vec![good("a", 2), bad("", "cut off")]));
    assert_eq!(updates, [set("a", 2)]);
    assert!(subscription.holds("b"));
    let error = subscription.poll_request(NOW).unwrap().error.unwrap();
    assert_eq!(error, "(no name): cut off");
}

/// Goal: a server cannot make us hold or send without end. Method: the limits and one above, and a
/// NACK of many resources.
#[test]
fn limits_hold() {
    let many = |n: usize| (0..n).map(|i| good(&format!("c{i}"), 1)).collect();
    let most = ResourceType::Cluster.held_max();
    let mut subscription = clusters();
    let updates = subscription.hear(response("v1", "n1", many(most)));
    assert_eq!(updates.len(), most);
    assert_eq!(subscription.version(), "v1");
    let updates = subscription.hear(response("v2", "n2", many(most + 1)));
    assert_eq!(updates.len(), most);
    assert_eq!(subscription.version(), "v1");
    let updates = subscription.hear(response("v3", "n3", many(RESOURCES_MAX + 1)));
    assert!(updates.is_empty());
    assert!(subscription.holds("c0"));

    let broken = (0..1000).map(|i| bad(&format!("c{i}"), "broken")).collect();
    subscription.hear(response("v3", "n3", broken));
    let error = subscription.poll_request(NOW).unwrap().error.unwrap();
    assert!(error.len() <= ERROR_TEXT_MAX, "{}", error.len());
    assert!(error.ends_with("more"), "{error}");
}

/// Goal: one bad resource in ten spoils nothing of a flood of updates. Method: a thousand responses, each with one
/// that is refused: every good one is taken, every response is answered once, with its own nonce.
#[test]
fn a_flood_with_bad_resources_is_taken_in() {
    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        let mut subscription = Subscription::wildcard(ResourceType::Cluster, variant);
        subscription.connected(Claim::Versions);
        subscription.poll_request(NOW).unwrap();
        for round in 0..1000 {
            let mut resources: Vec<_> = (0..9).map(|i| good(&format!("c{i}"), round)).collect();
            resources.push(bad("c9", "broken"));
            let updates = subscription.hear(response("v", &format!("n{round}"), resources));
            assert_eq!(updates.len(), 9);
            let request = subscription.poll_request(NOW).unwrap();
            assert_eq!(request.nonce, format!("n{round}"));
            assert_eq!(request.error.as_deref(), Some("c9: broken"));
            assert_eq!(subscription.poll_request(NOW), None);
        }
        assert_eq!(subscription.held().len(), 9);
    }
}

/// What a delta request says: subscribe, unsubscribe, versions.
fn changes(request: &Request) -> (Vec<&str>, Vec<&str>, Vec<(&str, &str)>) {
    let Wanted::Changes {
        subscribe,
        unsubscribe,
        versions,
    } = &request.wanted
    else {
        panic!("{request:?}");
    };
    (
        subscribe.iter().map(String::as_str).collect(),
        unsubscribe.iter().map(String::as_str).collect(),
        versions
            .iter()
            .map(|(name, version)| (name.as_str(), version.as_str()))
            .collect(),
    )
}

/// A connected delta subscription to the endpoints of `names` whose first request is out.
fn delta(names: &[&str]) -> Subscription {
    let mut subscription = Subscription::named(ResourceType::Endpoint, Variant::Delta);
    names.iter().for_each(|name| subscription.subscribe(name));
    subscription.connected(Claim::Versions);
    subscription.poll_request(NOW).unwrap();
    subscription
}

/// Goal: delta requests say changes only, and answer only what was received. Method: subscribe, answer, change one's
/// mind between two sends, unsubscribe.
#[test]
fn delta_requests_say_what_changed() {
    let mut subscription = Subscription::named(ResourceType::Endpoint, Variant::Delta);
    subscription.connected(Claim::Versions);
    assert_eq!(subscription.poll_request(NOW), None);
    subscription.subscribe("a");
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(changes(&request), (vec!["a"], vec![], vec![]));
    assert_eq!(request.nonce, "");
    subscription.hear(response("", "n1", vec![good("a", 1)]));
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(changes(&request), (vec![], vec![], vec![]));
    assert_eq!((request.nonce.as_str(), request.error), ("n1", None));
    // A spontaneous request answers nothing.
    subscription.subscribe("b");
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(changes(&request), (vec!["b"], vec![], vec![]));
    assert_eq!(request.nonce, "");
    subscription.subscribe("c");
    subscription.unsubscribe("c");
    assert_eq!(subscription.poll_request(NOW), None);
    subscription.unsubscribe("a");
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(changes(&request), (vec![], vec!["a"], vec![]));
    assert!(!subscription.holds("a"));
}

/// Goal: each delta response has its own answer. Method: two are received before an answer is taken.
#[test]
fn delta_answers_are_not_merged() {
    let mut subscription = delta(&["a"]);
    subscription.hear(response("", "n1", vec![bad("a", "broken")]));
    subscription.hear(response("", "n2", vec![good("a", 2)]));
    let answers: Vec<_> = std::iter::from_fn(|| subscription.poll_request(NOW))
        .map(|request| (request.nonce, request.error))
        .collect();
    assert_eq!(
        answers,
        [("n1".into(), Some("a: broken".into())), ("n2".into(), None)]
    );
}

/// Goal: a new stream hears what is held, in its newest version, and nothing that is not held. Method: one resource
/// is changed, one refused after a good version, one refused from the first, one removed.
#[test]
fn delta_reconnects_with_the_versions_held() {
    let mut subscription = delta(&["a", "b", "c", "d"]);
    let first = vec![good("a", 1), good("b", 1), bad("c", "broken"), good("d", 1)];
    subscription.hear(response("", "n1", first));
    subscription.hear(response("", "n2", vec![good("a", 2), bad("b", "broken")]));
    let mut gone = response("", "n3", vec![]);
    gone.removed = vec!["d".into()];
    assert_eq!(subscription.hear::<u32>(gone), [removed("d")]);
    subscription.disconnected();
    subscription.connected(Claim::Versions);
    let request = subscription.poll_request(NOW).unwrap();
    let (subscribe, unsubscribe, versions) = changes(&request);
    assert_eq!(subscribe, ["a", "b", "c", "d"]);
    assert!(unsubscribe.is_empty());
    assert_eq!(versions, [("a", "2"), ("b", "1")]);
    assert_eq!(request.nonce, "");
    assert_eq!(subscription.poll_request(NOW), None);
}

/// Goal: a wildcard delta subscription names nothing when it comes back, only versions, and absence removes nothing.
/// Method: two responses, a reconnection.
#[test]
fn delta_wildcard_keeps_what_is_absent() {
    let mut subscription = Subscription::wildcard(ResourceType::Cluster, Variant::Delta);
    subscription.connected(Claim::Versions);
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(changes(&request), (vec![], vec![], vec![]));
    subscription.hear(response("", "n1", vec![good("a", 1)]));
    assert_eq!(
        subscription.hear(response("", "n2", vec![good("b", 2)])),
        [set("b", 2)]
    );
    subscription.connected(Claim::Versions);
    let request = subscription.poll_request(NOW).unwrap();
    assert_eq!(
        changes(&request),
        (vec![], vec![], vec![("a", "1"), ("b", "2")])
    );
}

/// Goal: in delta a server can say that there is no such resource, without anybody waiting. Method: a removal of what
/// was never held, and of a name that nobody asked for.
#[test]
fn delta_removal_of_what_is_not_held_is_its_absence() {
    let mut subscription = delta(&["a"]);
    let mut answer = response("", "n1", vec![]);
    answer.removed = vec!["a".into(), "x".into()];
    let missing = Update::Missing::<u32> { name: "a".into() };
    assert_eq!(subscription.hear(answer), [missing]);
    assert!(
        subscription
            .elapsed::<u32>(NOW + 2 * MISSING_AFTER)
            .is_empty()
    );
    let mut both = response("", "n2", vec![good("a", 1)]);
    both.removed = vec!["a".into()];
    assert_eq!(subscription.hear(both), [set("a", 1)]);
    subscription.poll_request(NOW);
    assert!(
        subscription
            .poll_request(NOW)
            .unwrap()
            .error
            .unwrap()
            .contains("named twice")
    );
}

/// A resource that is good for `ttl` seconds.
fn good_for(name: &str, ttl: u64) -> Resource<u32> {
    Resource {
        ttl: Some(Duration::from_secs(ttl)),
        ..good(name, 1)
    }
}

fn heartbeat(name: &str, version: &str, ttl: u64) -> Response<u32> {
    Response {
        heartbeats: vec![Heartbeat {
            name: name.into(),
            version: version.into(),
            ttl: Some(Duration::from_secs(ttl)),
        }],
        ..response("2", "beat", Vec::new())
    }
}

fn after(seconds: u64) -> Duration {
    NOW + Duration::from_secs(seconds)
}

fn expired(name: &str) -> Update<u32> {
    Update::Expired { name: name.into() }
}

/// Goal: what has an end comes to it, also while nobody is connected, and is not said to be held afterwards. Method:
/// one resource with an end and one without; the stream breaks before.
#[test]
fn what_has_an_end_comes_to_it() {
    let mut subscription = delta(&["a", "b"]);
    subscription.hear(response("", "n", vec![good_for("a", 5), good("b", 1)]));
    assert_eq!(subscription.deadline(), Some(after(5)));
    subscription.disconnected();
    assert_eq!(subscription.elapsed::<u32>(after(4)), []);
    assert_eq!(subscription.elapsed(after(5)), [expired("a")]);
    assert_eq!(subscription.deadline(), None);
    subscription.connected(Claim::Versions);
    let request = subscription.poll_request(after(6)).unwrap();
    assert_eq!(changes(&request).2, [("b", "1")]);
}

/// Goal: a heartbeat prolongs what is held, in its version alone, and a resource without an end has none any more.
/// Method: a good heartbeat, one of another version, one of a stranger, then the resource without an end.
#[test]
fn heartbeats_prolong() {
    let mut subscription = delta(&["a"]);
    subscription.hear(response("", "n", vec![good_for("a", 5)]));
    subscription.receive(heartbeat("a", "1", 5), after(4));
    assert_eq!(subscription.error(), None);
    assert_eq!(subscription.elapsed::<u32>(after(8)), []);
    subscription.receive(heartbeat("a", "9", 100), after(8));
    assert_eq!(
        subscription.error(),
        Some("a: has no content, and version `9` is not held")
    );
    subscription.receive(heartbeat("stranger", "1", 1), after(8));
    assert_eq!(subscription.error(), None);
    assert_eq!(subscription.deadline(), Some(after(9)));
    subscription.receive(response("", "n", vec![good("a", 2)]), after(8));
    assert_eq!(subscription.elapsed::<u32>(after(1000)), []);
    assert!(subscription.holds("a"));
}

/// Goal: a heartbeat is a presence: in the state of the world it keeps what it names. Method: a response of a
/// heartbeat alone, then an empty one.
#[test]
fn a_heartbeat_is_a_presence() {
    let mut subscription = clusters();
    subscription.hear(response("1", "n1", vec![good_for("a", 5)]));
    assert_eq!(subscription.hear(heartbeat("a", "1", 5)), []);
    assert_eq!(
        subscription.hear(response("3", "n3", vec![])),
        [removed("a")]
    );
    assert_eq!(subscription.deadline(), None, "nothing is left to expire");
}

/// Goal: a name that is asked for again is named again, by both variants. Method: one that is held.
#[test]
fn a_name_is_asked_for_again() {
    let mut by_changes = delta(&["a"]);
    by_changes.hear(response("", "n", vec![good("a", 1)]));
    while by_changes.poll_request(NOW).is_some() {}
    assert!(!by_changes.ask_again("stranger"));
    assert_eq!(by_changes.poll_request(NOW), None);
    assert!(by_changes.ask_again("a"));
    let request = by_changes.poll_request(NOW).unwrap();
    assert_eq!(
        (changes(&request), request.nonce.as_str()),
        ((vec!["a"], vec![], vec![]), "")
    );
    let mut by_names = endpoints(&["a"]);
    by_names.hear(response("1", "n", vec![good("a", 1)]));
    by_names.poll_request(NOW).unwrap();
    by_names.ask_again("a");
    assert_eq!(names(&by_names.poll_request(NOW).unwrap()), ["a"]);
    by_names.disconnected();
    assert!(!by_names.ask_again("a"), "there is nobody to ask");
}

/// Goal: a server that has nothing to add is not taken for a dead one. Method: names and a wildcard before and after
/// their answers.
#[test]
fn what_is_held_is_not_lacking() {
    let mut named = delta(&["a"]);
    assert!(named.lacks());
    named.hear(response("", "n", vec![good("a", 1)]));
    assert!(!named.lacks());
    let mut all = clusters();
    assert!(all.lacks());
    all.hear(response("1", "n", vec![good("a", 1)]));
    assert!(!all.lacks());
}

/// Goal: a stream whose server is not trusted to live makes it answer: what is held is named without its versions, in
/// the first request alone. Method: both variants after a response.
#[test]
fn a_server_can_be_made_to_answer() {
    let mut by_changes = delta(&["a"]);
    by_changes.hear(response("", "n", vec![good("a", 1)]));
    by_changes.connected(Claim::Names);
    let first = by_changes.poll_request(NOW).unwrap();
    assert_eq!(changes(&first), (vec!["a"], vec![], vec![("a", "")]));
    let mut by_names = clusters();
    by_names.hear(response("1", "n", vec![good("a", 1)]));
    by_names.connected(Claim::Names);
    assert_eq!(version(&by_names.poll_request(NOW).unwrap()), "");
    by_names.hear(response("bad", "n2", vec![bad("a", "x")]));
    assert_eq!(version(&by_names.poll_request(NOW).unwrap()), "1");
}
