//! The rules of a stream as its server knows it, one test a rule. What is served is told in short: `ca1` is the cluster
//! `a` in version 1.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use crate::subscription::Variant::{Delta, StateOfTheWorld};

fn kind(letter: char) -> ResourceType {
    match letter {
        'c' => ResourceType::Cluster,
        'e' => ResourceType::Endpoint,
        'l' => ResourceType::Listener,
        _ => ResourceType::Route,
    }
}

/// Of `bytes` each.
fn world_of(resources: &str, bytes: usize) -> Arc<World> {
    let resources = resources.split_whitespace().map(|word| {
        let (name, version) = word[1..].split_at(1);
        let resource = Resource {
            name: name.into(),
            version: version.into(),
            bytes: vec![0; bytes],
        };
        (kind(word.chars().next().unwrap()), Arc::new(resource))
    });
    Arc::new(World::new(resources, |text| text.replace('\n', "").into()))
}

fn world(resources: &str) -> Arc<World> {
    world_of(resources, 1)
}

/// A client of a session.
struct Client {
    session: Session,
    variant: Variant,
    /// The newest names asked for, by kind: an answer in the state of the world says them again.
    names: BTreeMap<ResourceType, Vec<String>>,
    newest: BTreeMap<ResourceType, String>,
}

impl Client {
    fn new(variant: Variant, resources: &str) -> Client {
        Client {
            session: Session::new(variant, world(resources)),
            variant,
            names: BTreeMap::new(),
            newest: BTreeMap::new(),
        }
    }

    fn publish(&mut self, resources: &str) {
        self.session.publish(world(resources));
    }

    fn request(
        &mut self,
        kind: ResourceType,
        nonce: &str,
        error: Option<&str>,
        asked: Asked,
    ) -> Heard {
        let request = Request {
            kind,
            nonce: nonce.into(),
            error: error.map(Into::into),
            asked,
        };
        self.session.receive(request).unwrap()
    }

    /// Asks for these of a kind, a letter each; `*` for all.
    fn ask(&mut self, letter: char, names: &str) {
        let (kind, names) = (kind(letter), letters(names));
        let nonce = self.newest.get(&kind).cloned().unwrap_or_default();
        let asked = match self.variant {
            Delta => changes(names.clone(), Vec::new(), Vec::new()),
            StateOfTheWorld => Asked::Names(names.clone()),
        };
        self.names.insert(kind, names);
        let nonce = if self.variant == Delta { "" } else { &nonce };
        self.request(kind, nonce, None, asked);
    }

    fn answer(&mut self, kind: ResourceType, nonce: &str, error: Option<&str>) -> Heard {
        let asked = match self.variant {
            Delta => changes(Vec::new(), Vec::new(), Vec::new()),
            StateOfTheWorld => Asked::Names(self.names[&kind].clone()),
        };
        self.request(kind, nonce, error, asked)
    }

    /// The next response in short, `c:a1,b2-x`, and its nonce.
    fn response(&mut self) -> Option<(ResourceType, String, String)> {
        let response = self.session.poll_response()?;
        let resources = response.resources.iter();
        let resources: Vec<String> = resources
            .map(|one| format!("{}{}", one.name, one.version))
            .collect();
        let mut text = format!("{}:{}", &response.kind.word()[..1], resources.join(","));
        for name in &response.removed {
            text += &format!("-{name}");
        }
        self.newest.insert(response.kind, response.nonce.clone());
        Some((response.kind, response.nonce, text))
    }

    /// All responses until there is none, each acknowledged.
    fn drain(&mut self) -> Vec<String> {
        self.drain_but("\0")
    }

    /// The same, but what holds `bad` is refused.
    fn drain_but(&mut self, bad: &str) -> Vec<String> {
        let mut all = Vec::new();
        while let Some((kind, nonce, text)) = self.response() {
            let error = text.contains(bad).then_some("bad");
            self.answer(kind, &nonce, error);
            all.push(text);
        }
        all
    }

    fn status(&self, letter: char) -> Status {
        let all = self.session.status();
        all.into_iter()
            .find(|one| one.kind == kind(letter))
            .unwrap()
    }
}

fn letters(names: &str) -> Vec<String> {
    names.chars().map(Into::into).collect()
}

fn changes(subscribe: Vec<String>, unsubscribe: Vec<String>, held: Vec<(String, String)>) -> Asked {
    Asked::Changes {
        subscribe,
        unsubscribe,
        held,
    }
}

const BOTH: [Variant; 2] = [Delta, StateOfTheWorld];

/// Goal: who names nothing of clusters or listeners gets all, who names some those, and of other kinds nothing comes
/// without a name. Method: both variants.
#[test]
fn what_is_asked_for_is_sent_once() {
    for variant in BOTH {
        let mut client = Client::new(variant, "ca1 cb1 ea1 eb1 ra1");
        client.ask('c', "");
        assert_eq!(client.drain(), ["c:a1,b1"]);
        client.ask('e', "");
        assert_eq!(client.drain(), [""; 0]);
        client.ask('e', "b");
        assert_eq!(client.drain(), ["e:b1"]);
        client.publish("ca1 cb1 ea2 eb1 ra2");
        assert_eq!(client.drain(), [""; 0], "nothing of what is asked for");
        client.publish("ca1 cb1 ea2 eb2");
        assert_eq!(client.drain(), ["e:b2"]);
        assert!(client.status('e').settled && client.status('c').settled);
    }
}

/// Goal: after names were said, none means none; `*` means all with names beside it. Method: clusters, which may be
/// asked for without a name.
#[test]
fn everything_ends_with_the_first_name() {
    let mut client = Client::new(StateOfTheWorld, "ca1 cb1");
    client.ask('c', "a");
    assert_eq!(client.drain(), ["c:a1"]);
    client.ask('c', "");
    assert_eq!(client.drain(), ["c:"]);
    client.ask('c', "*a");
    assert_eq!(client.drain(), ["c:a1,b1"]);
    let mut client = Client::new(Delta, "ca1 cb1");
    client.ask('c', "a");
    assert_eq!(client.drain(), ["c:a1"]);
    client.ask('c', "*");
    assert_eq!(client.drain(), ["c:b1"]);
    client.request(
        ResourceType::Cluster,
        "",
        None,
        changes(Vec::new(), letters("*"), Vec::new()),
    );
    client.publish("ca2 cb2");
    assert_eq!(client.drain(), ["c:a2"]);
}

/// Goal: an empty world is an answer where absence means something: a client that starts waits for no longer.
/// Method: all listeners of none, and a name that does not exist.
#[test]
fn nothing_is_told_as_nothing() {
    let mut client = Client::new(StateOfTheWorld, "");
    client.ask('l', "");
    assert_eq!(client.drain(), ["l:"]);
    client.ask('e', "a");
    assert_eq!(client.drain(), [""; 0], "absence says nothing of endpoints");
    let mut client = Client::new(Delta, "");
    client.ask('e', "a");
    assert_eq!(client.drain(), ["e:-a"]);
    client.publish("eb1");
    assert_eq!(client.drain(), [""; 0], "told once");
    client.publish("ea1");
    assert_eq!(client.drain(), ["e:a1"]);
}

/// Goal: a world that changes goes out in the order of making, and what is no more goes when nothing refers to it
/// (make before break). Method: everything changes at once, a cluster is replaced by another.
#[test]
fn changes_go_in_order() {
    let mut client = Client::new(Delta, "ca1 ea1 la1 ra1");
    for kind in "clre".chars() {
        client.ask(kind, if kind == 'c' || kind == 'l' { "" } else { "a" });
    }
    client.drain();
    client.publish("cb1 eb1 la2 ra2");
    assert_eq!(client.drain(), ["c:b1", "l:a2", "r:a2", "c:-a", "e:-a"]);
    let mut client = Client::new(StateOfTheWorld, "ca1 la1 ra1");
    client.ask('c', "");
    client.ask('l', "");
    client.ask('r', "a");
    client.drain();
    client.publish("cb1 la1 ra2");
    assert_eq!(client.drain(), ["c:a1,b1", "r:a2", "c:b1"]);
}

/// Goal: routes wait for clusters that are on their way. Method: the answer of the clusters comes late, by a client
/// that warms them; what they wait for themselves is not held up.
#[test]
fn routes_wait_for_clusters() {
    let mut client = Client::new(Delta, "ra1");
    client.ask('r', "a");
    client.ask('c', "");
    client.drain();
    client.publish("ca1 ea1 ra2");
    let (_, nonce, text) = client.response().unwrap();
    assert_eq!(text, "c:a1");
    assert!(client.response().is_none());
    client.ask('e', "a");
    let (endpoint, e_nonce, text) = client.response().unwrap();
    assert_eq!(text, "e:a1");
    client.answer(endpoint, &e_nonce, None);
    assert!(client.response().is_none());
    client.answer(ResourceType::Cluster, &nonce, None);
    assert_eq!(client.drain(), ["r:a2"]);
}

/// Goal: who refuses new routes keeps the old ones, and the cluster that they name. Method: routes move to another
/// cluster and are refused; the old cluster is taken away only when better ones are taken.
#[test]
fn nothing_is_taken_from_under_refused_routes() {
    for (variant, kept, gone) in [
        (Delta, "c:b1", "c:-a"),
        (StateOfTheWorld, "c:a1,b1", "c:b1"),
    ] {
        let mut client = Client::new(variant, "ca1 ra1");
        client.ask('c', "");
        client.ask('r', "a");
        client.drain();
        client.publish("cb1 ra2");
        assert_eq!(client.drain_but("r:a2"), [kept, "r:a2"]);
        assert_eq!(client.status('r').error.as_deref(), Some("bad"));
        client.publish("cb1 ra3");
        assert_eq!(client.drain(), ["r:a3", gone]);
        assert_eq!(client.status('r').error, None);
    }
}

/// Goal: one bad resource costs itself, also with a client that refuses all that came with it. Method: the bad one of
/// five in the middle: all others are taken, it is told by name, and not sent again before it changes.
#[test]
fn refused_ones_are_found_by_halves() {
    for (variant, letter) in [(Delta, 'c'), (Delta, 'e'), (StateOfTheWorld, 'e')] {
        let mut client = Client::new(variant, "");
        let of = |versions: &str| {
            let named = "abcdf".chars().zip(versions.chars());
            let words: Vec<String> = named.map(|(n, v)| format!("{letter}{n}{v}")).collect();
            words.join(" ")
        };
        client.publish(&of("11111"));
        client.ask(letter, "abcdf");
        let sent = client.drain_but("c1");
        let taken: Vec<&String> = sent.iter().filter(|text| !text.contains("c1")).collect();
        let taken = format!("{taken:?}");
        for name in ["a1", "b1", "d1", "f1"] {
            assert!(taken.contains(name), "{name} in {taken}");
        }
        assert!(sent.len() <= 6, "{sent:?}");
        let status = client.status(letter);
        assert_eq!(status.refused, [("c".into(), "1".into(), "bad".to_owned())]);
        assert!(!status.settled);
        client.publish(&of("21111"));
        assert_eq!(client.drain(), [format!("{letter}:a2")]);
        assert_eq!(client.status(letter).refused.len(), 1);
        client.publish(&of("21211"));
        assert_eq!(client.drain(), [format!("{letter}:c2")]);
        assert!(client.status(letter).settled);
    }
}

/// Goal: the way back from a world that was refused is open: the version before is sent again. Method: the whole of a
/// kind is refused, and the world goes back.
#[test]
fn what_was_before_a_refusal_is_sent_again() {
    for variant in BOTH {
        let mut client = Client::new(variant, "ca1");
        client.ask('c', "");
        client.drain();
        client.publish("ca2");
        assert_eq!(client.drain_but("a2"), ["c:a2"]);
        assert!(client.response().is_none(), "it is not sent again");
        client.publish("ca1");
        assert_eq!(client.drain(), ["c:a1"]);
        assert!(client.status('c').settled);
        assert_eq!(&*client.status('c').acknowledged, "a1");
    }
}

/// Goal: a refusal says of which world it was, and is bounded, in one line. Method: a reason that is too long by a byte,
/// cut within a letter of two bytes; one with lines and a bell; one of nothing.
#[test]
fn refusals_are_told() {
    let mut client = Client::new(Delta, "ca1");
    client.ask('c', "");
    let (kind, nonce, _) = client.response().unwrap();
    let long = format!("x{}", "é".repeat(ERROR_TEXT_MAX / 2));
    let heard = client.answer(kind, &nonce, Some(&long));
    let Heard::Refused { world: of, error } = heard else {
        panic!("{heard:?}");
    };
    assert_eq!(of, *world("ca1").version());
    assert_eq!(error.len(), ERROR_TEXT_MAX - 1);
    assert_eq!(client.answer(kind, &nonce, Some("again")), Heard::Nothing);
    for (error, told) in [("a\n b\u{7}", "a b?"), ("\n", "refused without a reason")] {
        let mut client = Client::new(Delta, "ca1");
        client.ask('c', "");
        let (kind, nonce, _) = client.response().unwrap();
        client.answer(kind, &nonce, Some(error));
        assert_eq!(client.status('c').error.as_deref(), Some(told));
    }
}

/// Goal: a client that asks once more gets an answer, as Envoy does for the endpoints of a cluster that was updated;
/// its answers do not count as such. Method: the same names with the newest nonce, answered before.
#[test]
fn who_asks_again_is_answered() {
    let mut client = Client::new(StateOfTheWorld, "ea1 la1");
    client.ask('e', "a");
    assert_eq!(client.drain(), ["e:a1"]);
    client.ask('e', "a");
    assert_eq!(client.drain(), ["e:a1"]);
    client.ask('l', "");
    assert_eq!(client.drain(), ["l:a1"]);
    client.ask('l', "");
    assert_eq!(client.drain(), ["l:a1"]);
    let mut client = Client::new(Delta, "ea1");
    client.ask('e', "a");
    client.drain();
    client.ask('e', "a");
    assert_eq!(client.drain(), ["e:a1"]);
}

/// Goal: what was asked before the newest response came does not count: the client asks again in its answer. Method: a
/// request with the nonce of the response before.
#[test]
fn stale_requests_are_ignored() {
    let mut client = Client::new(StateOfTheWorld, "ea1 eb1");
    client.ask('e', "a");
    let (kind, first, _) = client.response().unwrap();
    client.answer(kind, &first, None);
    client.publish("ea2 eb1");
    let (_, second, _) = client.response().unwrap();
    client.request(kind, &first, None, Asked::Names(letters("b")));
    assert!(client.response().is_none());
    client.request(kind, &second, None, Asked::Names(letters("ab")));
    assert_eq!(client.drain(), ["e:b1"]);
}

/// Goal: after a reconnect a client is sent what it does not have, and told what is no more. Method: it says what it
/// has.
#[test]
fn reconnect_sends_the_difference() {
    let mut client = Client::new(Delta, "ca1 cb2 ea1");
    let held = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter();
        pairs
            .map(|(name, version)| ((*name).into(), (*version).into()))
            .collect()
    };
    let asked = changes(
        Vec::new(),
        Vec::new(),
        held(&[("a", "1"), ("b", "1"), ("x", "1")]),
    );
    client.request(ResourceType::Cluster, "", None, asked);
    let asked = changes(letters("a"), Vec::new(), held(&[("a", "1")]));
    client.request(ResourceType::Endpoint, "", None, asked);
    assert_eq!(client.drain(), ["c:b2", "c:-x"]);
    assert!(client.status('c').settled && client.status('e').settled);
}

/// Goal: who unsubscribes is told no more, and gets it anew when it asks again. Method: endpoints.
#[test]
fn unsubscribed_is_forgotten() {
    let mut client = Client::new(Delta, "ea1 eb1");
    client.ask('e', "ab");
    client.drain();
    let asked = changes(Vec::new(), letters("a"), Vec::new());
    client.request(ResourceType::Endpoint, "", None, asked);
    client.publish("eb1");
    assert_eq!(client.drain(), [""; 0]);
    assert_eq!(client.status('e').names, 1);
    client.publish("ea1 eb1");
    client.ask('e', "a");
    assert_eq!(client.drain(), ["e:a1"]);
}

/// Goal: a client that does not answer is sent no more than a few responses. Method: worlds without an answer, up to
/// the limit and one above; the newest is what it gets when it answers.
#[test]
fn unanswered_responses_are_bounded() {
    for variant in BOTH {
        let mut client = Client::new(variant, "ca0");
        client.ask('c', "");
        let mut nonces = Vec::new();
        for version in 1..=UNANSWERED_MAX {
            nonces.push(client.response().unwrap().1);
            client.publish(&format!("ca{version}"));
        }
        assert!(client.response().is_none());
        assert_eq!(client.status('c').unanswered, UNANSWERED_MAX);
        // The answer to the newest stands for those before it.
        let newest = nonces.pop().unwrap();
        client.answer(ResourceType::Cluster, &newest, None);
        assert_eq!(client.drain(), [format!("c:a{UNANSWERED_MAX}")]);
    }
}

/// Goal: a response that may be split is no larger than its limit, unless a single resource is. Method: resources of
/// half the limit: two fit, and a byte more fits once.
#[test]
fn responses_are_split_by_bytes() {
    for (bytes, expected) in [
        (RESPONSE_BYTES / 2, &["e:a1,b1", "e:c1"][..]),
        (RESPONSE_BYTES / 2 + 1, &["e:a1", "e:b1", "e:c1"]),
        (RESPONSE_BYTES + 1, &["e:a1", "e:b1", "e:c1"]),
    ] {
        for variant in BOTH {
            let mut client = Client::new(variant, "");
            client.session.publish(world_of("ea1 eb1 ec1", bytes));
            client.ask('e', "abc");
            assert_eq!(client.drain(), expected);
        }
    }
}

/// Goal: what a client may ask for is bounded. Method: as many names as are allowed and one more, in one request and in
/// two; names and versions of the greatest length and one byte more.
#[test]
fn what_is_asked_for_is_bounded() {
    let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    let receive = |session: &mut Session, asked: Asked| {
        let request = Request {
            kind: ResourceType::Endpoint,
            nonce: String::new(),
            error: None,
            asked,
        };
        session.receive(request)
    };
    let session = |variant| Session::new(variant, world(""));
    let too_many = Err(Wrong::TooManyNames(ResourceType::Endpoint));
    let too_long = Err(Wrong::TooLong(ResourceType::Endpoint));
    let good = Ok(Heard::Nothing);
    let subscribe = |names| changes(names, Vec::new(), Vec::new());
    let held = |n: usize, version: usize| {
        let held = names(n).into_iter();
        let held = held.map(|name| (name, "v".repeat(version))).collect();
        changes(Vec::new(), Vec::new(), held)
    };
    for (variant, asked, expected) in [
        (StateOfTheWorld, Asked::Names(names(NAMES_MAX)), &good),
        (
            StateOfTheWorld,
            Asked::Names(names(NAMES_MAX + 1)),
            &too_many,
        ),
        (
            StateOfTheWorld,
            Asked::Names(vec!["n".repeat(NAME_MAX)]),
            &good,
        ),
        (
            StateOfTheWorld,
            Asked::Names(vec!["n".repeat(NAME_MAX + 1)]),
            &too_long,
        ),
        (Delta, subscribe(names(NAMES_MAX)), &good),
        (Delta, subscribe(names(NAMES_MAX + 1)), &too_many),
        (Delta, subscribe(vec!["n".repeat(NAME_MAX + 1)]), &too_long),
        (Delta, held(NAMES_MAX, 1), &good),
        (Delta, held(NAMES_MAX + 1, 1), &too_many),
        (Delta, held(1, VERSION_MAX), &good),
        (Delta, held(1, VERSION_MAX + 1), &too_long),
    ] {
        assert_eq!(receive(&mut session(variant), asked), *expected);
    }
    let mut session = session(Delta);
    assert_eq!(receive(&mut session, subscribe(names(NAMES_MAX))), good);
    assert_eq!(receive(&mut session, subscribe(names(1))), good);
    assert_eq!(receive(&mut session, subscribe(letters("x"))), too_many);
}
