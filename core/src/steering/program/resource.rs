//! The program as a control plane sends it: plain texts and numbers, one resource a rule, and their translation.
//!
//! Bytes and transport are the client's. A rule that cannot be meant is refused alone, with the reason; the others
//! are used, and of one that was there before nothing is left: a control plane that sends nonsense about a rule does
//! not mean the old one.

use std::{collections::BTreeMap, sync::Arc};

use super::{check, share::WHOLE};
use crate::config::{
    model::{
        HashOn, ValuePattern,
        steering::{Fallback, Interface, Match, Ramp, Rule, Steering, Verb},
    },
    value,
};

/// One rule. Empty texts stand for what is not asked.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleResource {
    /// Unique; the name of the resource.
    pub id: String,
    /// Who may change it by hand.
    pub owner: String,
    /// Its version.
    pub epoch: u64,
    /// From this second since the Unix epoch on it matches nothing.
    pub expires_unix_s: Option<u64>,
    /// Its place in the program: rules are asked in the order of this number, then of their ids. Resources
    /// themselves have no order.
    pub order: u32,
    /// Which requests.
    pub matches: MatchResource,
    /// What it does, with places by name and shares in basis points.
    pub verb: Verb,
    /// What shares go by.
    pub sticky: Option<HashOn>,
    /// `home`, `refuse`, a place, or nothing.
    pub fallback: String,
    /// Its share grows by itself.
    pub ramp: Option<Ramp>,
}

/// Which requests. Empty texts stand for any.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatchResource {
    /// Whose requests.
    pub application: String,
    /// The path in front of its last segment.
    pub service: String,
    /// The last segment.
    pub method: String,
    /// That go to this place without steering.
    pub from: String,
    /// Of this colour.
    pub colour: String,
    /// Of users whose last two digits lie between these, both included.
    pub users: Option<(u32, u32)>,
    /// Whether they are marked as test traffic.
    pub stress: Option<bool>,
    /// With these headers.
    pub headers: BTreeMap<String, ValuePattern>,
    /// With these cookies.
    pub cookies: BTreeMap<String, String>,
    /// This part of them, in basis points.
    pub percent: Option<u32>,
}

/// A rule that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRule {
    /// Its id.
    pub id: String,
    /// Why, with what to do.
    pub why: String,
}

/// The program of `base` (its applications, marks and peers) with the rules of a control plane behind its own, and
/// what of them is refused.
pub fn translate(
    base: &Steering,
    rules: &[RuleResource],
    has_cluster: &dyn Fn(&str) -> bool,
) -> (Steering, Vec<RefusedRule>) {
    let mut program = base.clone();
    let mut refused = Vec::new();
    let mut ordered: Vec<&RuleResource> = rules.iter().collect();
    ordered.sort_by(|a, b| (a.order, &a.id).cmp(&(b.order, &b.id)));
    for resource in ordered {
        let judged = rule(resource).and_then(|rule| {
            let position = program.rules.len();
            program.rules.push(rule);
            let faults = check(&program, has_cluster);
            let own = faults
                .into_iter()
                .filter(|fault| fault.rule == Some(position));
            let own = own.map(|fault| format!("{}; {}", fault.problem, fault.remedy));
            let own: Vec<String> = own.collect();
            if own.is_empty() {
                return Ok(());
            }
            program.rules.pop();
            Err(own.join("; "))
        });
        if let Err(why) = judged {
            let id = resource.id.clone();
            refused.push(RefusedRule { id, why });
        }
    }
    (program, refused)
}

/// What does not depend on other rules or on places.
fn rule(resource: &RuleResource) -> Result<Rule, String> {
    let name = |what: &str, text: &str| {
        value::name(text).map_err(|why| format!("{what} `{}` {why}", text.escape_default()))
    };
    let text = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    Ok(Rule {
        id: name("id", &resource.id)?,
        owner: name("owner", &resource.owner)?,
        epoch: resource.epoch,
        expires_unix_s: resource.expires_unix_s,
        matches: matches(&resource.matches)?,
        verb: resource.verb.clone(),
        sticky: resource.sticky.clone(),
        fallback: match resource.fallback.as_str() {
            "home" => Some(Fallback::Home),
            "refuse" => Some(Fallback::Refuse),
            place => text(place).map(Fallback::Place),
        },
        ramp: resource.ramp,
        reached: resource.ramp.map(|ramp| ramp.start),
        origin: "xds".into(),
    })
}

fn matches(resource: &MatchResource) -> Result<Match, String> {
    let text = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    let headers = resource.headers.iter().map(|(name, pattern)| {
        let name = value::header_name(name)
            .map_err(|why| format!("header `{}` {why}", name.escape_default()))?;
        if let ValuePattern::Regex(pattern) = pattern {
            value::regex(pattern).map_err(|why| format!("header `{name}`: {why}"))?;
        }
        Ok((name, pattern.clone()))
    });
    let headers: Result<Vec<_>, String> = headers.collect();
    if let Some(percent) = resource.percent.filter(|percent| *percent > WHOLE) {
        return Err(format!(
            "a percent of {percent} basis points is more than the whole, {WHOLE}"
        ));
    }
    if resource.service.is_empty() && !resource.method.is_empty() {
        return Err(format!(
            "method `{}` of no service",
            resource.method.escape_default()
        ));
    }
    let users = resource.users.map(|(low, high)| {
        let digits = |number: u32| {
            u8::try_from(number).map_err(|_| format!("{number} has more than two digits"))
        };
        Ok::<_, String>((digits(low)?, digits(high)?))
    });
    let cookies = resource.cookies.iter();
    Ok(Match {
        application: resource.application.as_str().into(),
        interface: text(&resource.service).map(|service| Interface {
            service,
            method: text(&resource.method),
        }),
        from: text(&resource.from),
        colour: text(&resource.colour),
        users: users.transpose()?,
        stress: resource.stress,
        headers: headers?,
        cookies: cookies
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect(),
        percent: resource.percent,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::config;

    fn base() -> Steering {
        let text = "version: 1\nclusters:\n  one: { endpoints: { static: [10.0.0.1:80] } }\n  \
            two: { endpoints: { static: [10.0.0.2:80] } }\nsteering:\n  \
            applications: { pay: { units: { u1: one, u2: two } } }\n  rules:\n    \
            - { id: base, owner: o, match: { application: pay, interface: a.B/C, users: 00-49, header: { x-a: b } }, set_unit: u1, fallback: home }\n";
        *config::parse("f.yaml", text).unwrap().0.steering.unwrap()
    }

    fn resource(id: &str, order: u32) -> RuleResource {
        RuleResource {
            id: id.into(),
            owner: "o".into(),
            epoch: 1,
            expires_unix_s: None,
            order,
            matches: MatchResource {
                application: "pay".into(),
                ..MatchResource::default()
            },
            verb: Verb::SetUnit("u2".into()),
            sticky: None,
            fallback: String::new(),
            ramp: None,
        }
    }

    fn translated(rules: &[RuleResource]) -> (Vec<String>, Vec<RefusedRule>) {
        let (program, refused) = translate(&base(), rules, &|name| ["one", "two"].contains(&name));
        let ids = program.rules.iter().map(|rule| rule.id.to_string());
        (ids.collect(), refused)
    }

    /// Goal: a rule of a control plane means what the same rule of a file means. Method: the rule of the file, said as a
    /// resource.
    #[test]
    fn a_resource_is_the_rule_of_a_file() {
        let mut resource = resource("again", 0);
        resource.verb = Verb::SetUnit("u1".into());
        resource.fallback = "home".into();
        resource.matches = MatchResource {
            application: "pay".into(),
            service: "a.B".into(),
            method: "C".into(),
            users: Some((0, 49)),
            headers: [("X-A".to_owned(), ValuePattern::Exact("b".into()))].into(),
            ..MatchResource::default()
        };
        let (program, refused) = translate(&base(), &[resource], &|_| true);
        assert_eq!(refused, []);
        let [of_file, translated] = &program.rules[..] else {
            unreachable!()
        };
        let expected = Rule {
            id: "again".into(),
            origin: "xds".into(),
            ..of_file.clone()
        };
        assert_eq!(*translated, expected);
    }

    /// Goal: resources have no order, rules do; a bad one is refused alone, with the reason. Method: good ones in the wrong
    /// order, and one of each mistake between them.
    #[test]
    fn bad_rules_are_refused_alone() {
        let good = [resource("c", 1), resource("b", 2), resource("a", 2)];
        assert_eq!(
            translated(&good),
            (["base", "c", "a", "b"].map(str::to_owned).to_vec(), vec![])
        );
        type Spoil = fn(&mut RuleResource);
        let mistakes: [(Spoil, &str); 8] = [
            (|r| r.id = "a b".into(), "id `a b`"),
            (|r| r.id = "base".into(), "rule `base` stands twice"),
            (
                |r| r.verb = Verb::SetUnit("u9".into()),
                "no place `u9`; its places are `u1`, `u2`",
            ),
            (
                |r| r.matches.application = "buy".into(),
                "no application `buy`",
            ),
            (|r| r.matches.percent = Some(10_001), "more than the whole"),
            (|r| r.matches.users = Some((0, 256)), "more than two digits"),
            (
                |r| r.matches.method = "C".into(),
                "method `C` of no service",
            ),
            (
                |r| {
                    drop(
                        r.matches
                            .headers
                            .insert("x".into(), ValuePattern::Regex("(".into())),
                    )
                },
                "header `x`",
            ),
        ];
        for (spoil, why) in mistakes {
            let mut bad = resource("bad", 0);
            spoil(&mut bad);
            let (ids, refused) = translated(&[resource("first", 0), bad, resource("last", 9)]);
            assert_eq!(ids, ["base", "first", "last"]);
            assert!(
                refused.len() == 1 && refused[0].why.contains(why),
                "{refused:?}"
            );
        }
    }
}
