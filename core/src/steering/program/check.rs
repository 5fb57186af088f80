//! What a program may not say, with a remedy for each (S8, S17).
//!
//! It looks at the model, wherever that came from: a file, a change by hand, or a control plane.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::share::{WHOLE, percent};
use crate::config::model::steering::{
    Application, DivertShare, Fallback, PLACES_MAX, PlaceKind, RULES_MAX, Row, Rule, Steering, Verb,
};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule, by its position; `None` is the application.
    pub rule: Option<usize>,
    /// The application.
    pub application: Arc<str>,
    /// The key that it is about.
    pub key: &'static str,
    /// What is wrong, in a sentence.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// Words that are no places, since they say something else where a place may stand.
const RESERVED: [&str; 2] = ["home", "refuse"];

/// Everything that is wrong with `steering`; compiling takes a program without faults. `has_cluster` says which
/// clusters there are.
pub fn check(steering: &Steering, has_cluster: &dyn Fn(&str) -> bool) -> Vec<Fault> {
    let mut faults = applications(steering, has_cluster);
    let mut ids = BTreeSet::new();
    for (position, rule) in steering.rules.iter().enumerate() {
        let mut checker = Checker {
            steering,
            rule,
            position,
            faults: &mut faults,
        };
        if !ids.insert(&*rule.id) {
            checker.fault(
                "id",
                format!("rule `{}` stands twice", rule.id),
                "give one of them another id",
            );
        }
        if position == RULES_MAX {
            checker.fault(
                "id",
                format!("more than {RULES_MAX} rules"),
                "withdraw what is no longer used",
            );
        }
        checker.rule();
    }
    faults
}

fn applications(steering: &Steering, has_cluster: &dyn Fn(&str) -> bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut owners: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (name, application) in &steering.applications {
        let mut fault = |key, problem: String, remedy: &str| {
            faults.push(Fault {
                rule: None,
                application: name.clone(),
                key,
                problem,
                remedy: remedy.to_owned(),
            });
        };
        if application.places().count() > PLACES_MAX {
            let problem = format!("application `{name}` has more than {PLACES_MAX} places");
            fault("units", problem, "split it into several applications");
        }
        if application.places().next().is_none() {
            fault(
                "units",
                format!("application `{name}` has no place"),
                "add `units` or `groups`",
            );
        }
        for (place, cluster, kind) in application.places() {
            let key = if kind == PlaceKind::Unit {
                "units"
            } else {
                "groups"
            };
            if RESERVED.contains(&&**place) {
                fault(
                    key,
                    format!("a place cannot be called `{place}`"),
                    "choose another name: `fallback` has that word",
                );
            }
            if kind != PlaceKind::Unit && application.units.contains_key(place) {
                fault(
                    key,
                    format!("`{place}` is a unit and a group"),
                    "give one of them another name",
                );
            }
            if !has_cluster(cluster) {
                let problem = format!("place `{place}`: there is no cluster `{cluster}`");
                fault(key, problem, "define it under `clusters`");
            }
            if let Some((other, whose)) = owners.insert(cluster, (place, name)) {
                let problem = format!(
                    "cluster `{cluster}` is place `{place}` of `{name}`, and `{other}` of `{whose}`"
                );
                fault(
                    key,
                    problem,
                    "give each place a cluster of its own: so it has its own connections and limits",
                );
            }
        }
    }
    faults
}

struct Checker<'a> {
    steering: &'a Steering,
    rule: &'a Rule,
    position: usize,
    faults: &'a mut Vec<Fault>,
}

impl Checker<'_> {
    fn fault(&mut self, key: &'static str, problem: String, remedy: &str) {
        self.faults.push(Fault {
            rule: Some(self.position),
            application: self.rule.matches.application.clone(),
            key,
            problem,
            remedy: remedy.to_owned(),
        });
    }

    fn rule(&mut self) {
        let name = self.rule.matches.application.clone();
        let Some(application) = self.steering.applications.get(&name) else {
            let known = list(self.steering.applications.keys());
            let remedy = format!("add it under `steering.applications`; there are {known}");
            return self.fault(
                "match",
                format!("there is no application `{name}`"),
                &remedy,
            );
        };
        if let Some(from) = &self.rule.matches.from {
            self.place(application, "match", from);
        }
        if let Some((low, high)) = self.rule.matches.users
            && (low > high || high > 99)
        {
            let problem = format!("users {low}–{high} are no range of 00 to 99");
            self.fault("match", problem, "write the lower end first, `00-49`");
        }
        self.verb(application);
        self.fallback(application);
        self.ramp();
    }

    /// The cluster and kind of a place; reports one that is none.
    fn place(
        &mut self,
        application: &Application,
        key: &'static str,
        place: &str,
    ) -> Option<PlaceKind> {
        if let Some((_, kind)) = application.place(place) {
            return Some(kind);
        }
        let known = list(application.places().map(|(name, ..)| name));
        let name = self.rule.matches.application.clone();
        let remedy = format!("its places are {known}");
        self.fault(
            key,
            format!("application `{name}` has no place `{place}`"),
            &remedy,
        );
        None
    }

    fn verb(&mut self, application: &Application) {
        let key = self.rule.verb.word();
        match &self.rule.verb {
            Verb::SetUnit(to) => {
                if self
                    .place(application, key, to)
                    .is_some_and(|kind| kind != PlaceKind::Unit)
                {
                    self.fault(key, format!("`{to}` is a group"), "use `set_group`");
                }
            }
            Verb::SetGroup(to) => {
                if self.place(application, key, to) == Some(PlaceKind::Unit) {
                    self.fault(key, format!("`{to}` is a unit"), "use `set_unit`");
                }
            }
            Verb::Shift { to, .. } => {
                self.place(application, key, to);
            }
            Verb::Divert { to, share } => {
                self.place(application, key, to);
                self.divert(*share);
            }
            Verb::Split(row) => self.row(application, key, "the split", row),
            Verb::Matrix(rows) => self.matrix(application, rows),
            Verb::FailTo(places) => {
                for place in places {
                    self.place(application, key, place);
                }
                if places.is_empty() {
                    self.fault(
                        key,
                        "`fail_to` names no place".to_owned(),
                        "name at least one",
                    );
                }
            }
            Verb::Cap(rate) => {
                if rate.requests == 0 || rate.burst == 0 || rate.per.is_zero() {
                    self.fault(
                        key,
                        "a `cap` of nothing".to_owned(),
                        "to refuse all of it, use a route that responds",
                    );
                }
            }
        }
    }

    fn matrix(&mut self, application: &Application, rows: &[(Arc<str>, Row)]) {
        if rows.is_empty() {
            self.fault(
                "matrix",
                "the matrix has no row".to_owned(),
                "add a row for each place that gives something away",
            );
        }
        for (from, row) in rows {
            self.place(application, "matrix", from);
            self.row(application, "matrix", &format!("row `{from}`"), row);
        }
    }

    fn row(
        &mut self,
        application: &Application,
        key: &'static str,
        what: &str,
        row: &[(Arc<str>, u32)],
    ) {
        for (to, _) in row {
            self.place(application, key, to);
        }
        let sum: u64 = row.iter().map(|(_, share)| u64::from(*share)).sum();
        if sum != u64::from(WHOLE) {
            let sum = percent(sum as f64 / f64::from(WHOLE));
            let remedy = "shares are exact: make them sum to 100 %, what stays included";
            self.fault(key, format!("{what} sums to {sum}, not to 100 %"), remedy);
        }
    }

    fn divert(&mut self, share: DivertShare) {
        if self.steering.trusted_peers.is_empty() {
            let problem =
                "a diverted request could be diverted back: no peer's hop mark is believed"
                    .to_owned();
            let remedy = "name the networks of the other proxies in `steering.trusted_peers`";
            self.fault("divert", problem, remedy);
        }
        let DivertShare::Target { share, servers } = share else {
            return;
        };
        if servers < 2 {
            let problem =
                format!("`target_share` of {servers} servers: there is nobody to take it from");
            return self.fault(
                "divert",
                problem,
                "say how many equal `servers` there are, the target included",
            );
        }
        if share * servers < WHOLE {
            let has = percent(1.0 / f64::from(servers));
            let asked = percent(f64::from(share) / f64::from(WHOLE));
            let problem = format!(
                "one of {servers} equal servers has {has} without steering, more than {asked}"
            );
            self.fault(
                "divert",
                problem,
                "ask for more than that, or divert from this server to the others",
            );
        }
    }

    fn fallback(&mut self, application: &Application) {
        let Some(fallback) = &self.rule.fallback else {
            return;
        };
        if !self.rule.verb.places() {
            let problem = format!("`fallback` has no meaning for `{}`", self.rule.verb.word());
            return self.fault("fallback", problem, "remove it");
        }
        let Fallback::Place(place) = fallback else {
            return;
        };
        self.place(application, "fallback", place);
        let only = match &self.rule.verb {
            Verb::SetUnit(to)
            | Verb::SetGroup(to)
            | Verb::Shift { to, .. }
            | Verb::Divert { to, .. } => Some(to),
            _ => None,
        };
        if only == Some(place) {
            self.fault(
                "fallback",
                format!("`{place}` is where the rule sends to"),
                "name another place, `home` or `refuse`",
            );
        }
    }

    fn ramp(&mut self) {
        let Some(ramp) = &self.rule.ramp else {
            return;
        };
        if !self.rule.verb.places() {
            let problem = format!("`ramp` has no meaning for `{}`", self.rule.verb.word());
            return self.fault("ramp", problem, "remove it");
        }
        if ramp.step == 0 {
            self.fault(
                "ramp",
                "a ramp with steps of 0 % never moves".to_owned(),
                "write a larger `step`",
            );
        }
        let stop = &ramp.stop;
        if stop.error_rate.is_none() && stop.p99.is_none() && stop.watermark.is_none() {
            let remedy = "add `stop: { error_rate: … }`, `p99` or `watermark`";
            self.fault("ramp", "a ramp that nothing stops".to_owned(), remedy);
        }
    }
}

fn list<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}
