//! Rules that are set or withdrawn by hand, above what the file says, one at a time (S1).
//!
//! A change names its owner and a higher epoch than what it replaces, so that of two people who change a rule at
//! once one is told. It lives until the process ends, or until the file says something else about that rule. What
//! ramps have reached is kept here, too, and a program that is only tried out (S15).

use std::{collections::BTreeMap, sync::Arc};

use super::check;
use crate::config::model::{
    Config,
    steering::{Rule, Steering},
};

/// The changes in effect.
#[derive(Clone, Debug, Default)]
pub struct RuleChanges {
    by_id: BTreeMap<Arc<str>, Set>,
    /// Rules that the file does not have, the newest first: they come in front of the file's.
    added: Vec<Arc<str>>,
    /// What ramps have reached, in basis points, and at which epoch of their rule.
    reached: BTreeMap<Arc<str>, (u64, u32)>,
    /// Changes that are evaluated, and decide nothing; `None` if nothing is.
    tried: Option<Vec<Change>>,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The rule is this from now on.
    Set(Box<Rule>),
    /// There is no such rule any more.
    Withdraw {
        /// Its id.
        id: Arc<str>,
        /// Who asks for it.
        owner: Arc<str>,
        /// The epoch that is withdrawn.
        epoch: u64,
    },
}

#[derive(Clone, Debug)]
struct Set {
    change: Change,
    /// What the file said when it was made.
    configured: Option<Rule>,
}

impl Change {
    /// The rule that it is about.
    pub const fn id(&self) -> &Arc<str> {
        match self {
            Change::Set(rule) => &rule.id,
            Change::Withdraw { id, .. } => id,
        }
    }

    const fn owner(&self) -> &Arc<str> {
        match self {
            Change::Set(rule) => &rule.owner,
            Change::Withdraw { owner, .. } => owner,
        }
    }
}

impl RuleChanges {
    /// Makes a change to `configured`, the file's own configuration.
    ///
    /// # Errors
    ///
    /// Why it cannot be: somebody else's rule, an epoch that is not newer, or a program that cannot be meant.
    pub fn make(&mut self, configured: &Config, change: Change) -> Result<(), String> {
        let mut next = self.clone();
        next.judge(configured, &change)?;
        next.put(configured, change);
        next.check(configured)?;
        *self = next;
        Ok(())
    }

    /// Has a change evaluated beside what is in use; further ones add up.
    ///
    /// # Errors
    ///
    /// As [`RuleChanges::make`].
    pub fn try_out(&mut self, configured: &Config, change: Change) -> Result<(), String> {
        let mut next = self.with_tried();
        next.make(configured, change.clone())?;
        self.tried.get_or_insert_default().push(change);
        Ok(())
    }

    /// Ends the evaluation. Whether there was one.
    pub fn end_trial(&mut self) -> bool {
        self.tried.take().is_some()
    }

    /// A ramp has reached this share, in basis points.
    pub fn reach(&mut self, rule: &Rule, share: u32) {
        self.reached.insert(rule.id.clone(), (rule.epoch, share));
    }

    /// The file was read again: drops the changes of rules about which it says something else now. Returns their ids.
    pub fn follow(&mut self, configured: &Config) -> Vec<Arc<str>> {
        let mut dropped = Vec::new();
        self.by_id.retain(|id, set| {
            let stays = is_same(file_rule(configured, id), set.configured.as_ref());
            if !stays {
                dropped.push(id.clone());
            }
            stays
        });
        // What the rest would come to beside another file may not be a program any more.
        if self.check(configured).is_err() {
            dropped.extend(std::mem::take(&mut self.by_id).into_keys());
        }
        self.added.retain(|id| self.by_id.contains_key(id));
        if self.with_tried().check(configured).is_err() {
            self.tried = None;
        }
        dropped
    }

    /// `configured` with the changes made to it; the same one if there are none.
    pub fn apply(&self, configured: &Arc<Config>) -> Arc<Config> {
        let is_unchanged = self.by_id.is_empty() && self.reached.is_empty() && self.tried.is_none();
        let Some(program) = configured.steering.as_deref().filter(|_| !is_unchanged) else {
            return configured.clone();
        };
        let mut changed = self.apply_to(program);
        if self.tried.is_some() {
            let next = self.with_tried().apply_to(program);
            changed.next = Some(Box::new(next));
        }
        let mut config = Config::clone(configured);
        config.steering = Some(Box::new(changed));
        Arc::new(config)
    }

    /// Ids of rules that are set by hand, and of those that are withdrawn.
    pub fn by_hand(&self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let all = self
            .by_id
            .iter()
            .map(|(id, set)| (id.clone(), matches!(set.change, Change::Set(_))));
        let (set, withdrawn): (Vec<_>, Vec<_>) = all.partition(|(_, is_set)| *is_set);
        let ids = |list: Vec<(Arc<str>, bool)>| list.into_iter().map(|(id, _)| id).collect();
        (ids(set), ids(withdrawn))
    }

    /// Whether the change is its owner's to make, and newer than what it is made to.
    fn judge(&self, configured: &Config, change: &Change) -> Result<(), String> {
        let Some(program) = configured.steering.as_deref() else {
            return Err(
                "the file has no `steering` section, so nothing can be steered: add one".into(),
            );
        };
        let id = change.id();
        let now = self.apply_to(program);
        let now = now.rules.iter().find(|rule| rule.id == *id);
        if let Some(rule) = now.filter(|rule| rule.owner != *change.owner()) {
            return Err(format!(
                "rule `{id}` belongs to `{}`, not to `{}`",
                rule.owner,
                change.owner()
            ));
        }
        match (change, now) {
            (Change::Withdraw { .. }, None) => Err(format!("there is no rule `{id}`")),
            (Change::Withdraw { epoch, .. }, Some(rule)) if rule.epoch != *epoch => Err(format!(
                "rule `{id}` has epoch {} now, not {epoch}: look at it again",
                rule.epoch
            )),
            (Change::Withdraw { .. }, Some(_)) => Ok(()),
            (Change::Set(new), _) => match self.newest(id).max(now.map(|rule| rule.epoch)) {
                Some(epoch) if new.epoch <= epoch => Err(format!(
                    "rule `{id}` has had epoch {epoch}, and {} is not newer: look at it again",
                    new.epoch
                )),
                _ => Ok(()),
            },
        }
    }

    /// The epoch of a rule that was withdrawn by hand.
    fn newest(&self, id: &str) -> Option<u64> {
        match self.by_id.get(id)?.change {
            Change::Withdraw { epoch, .. } => Some(epoch),
            Change::Set(_) => None,
        }
    }

    fn put(&mut self, configured: &Config, change: Change) {
        let id = change.id().clone();
        self.added.retain(|other| *other != id);
        let configured = file_rule(configured, &id).cloned();
        if configured.is_none() && matches!(change, Change::Set(_)) {
            self.added.insert(0, id.clone());
        }
        self.by_id.insert(id, Set { change, configured });
    }

    fn check(&self, configured: &Config) -> Result<(), String> {
        let Some(program) = configured.steering.as_deref() else {
            return Ok(());
        };
        let has = |name: &str| configured.clusters.contains_key(name);
        let faults = check(&self.apply_to(program), &has);
        let lines = faults
            .into_iter()
            .map(|fault| format!("{}; {}", fault.problem, fault.remedy));
        let lines: Vec<String> = lines.collect();
        match lines.is_empty() {
            true => Ok(()),
            false => Err(lines.join("\n")),
        }
    }

    fn apply_to(&self, program: &Steering) -> Steering {
        let mut changed = program.clone();
        let of_file = std::mem::take(&mut changed.rules);
        let set = |id: &Arc<str>| match &self.by_id.get(id)?.change {
            Change::Set(rule) => Some(Rule::clone(rule)),
            Change::Withdraw { .. } => None,
        };
        let added = self.added.iter().filter_map(set);
        let of_file = of_file
            .into_iter()
            .filter_map(|rule| match self.by_id.get(&rule.id) {
                Some(_) => set(&rule.id),
                None => Some(rule),
            });
        changed.rules = added.chain(of_file).collect();
        for rule in &mut changed.rules {
            // Another version begins its ramp anew.
            let reached = self.reached.get(&rule.id);
            let reached = reached.filter(|(epoch, _)| rule.ramp.is_some() && *epoch == rule.epoch);
            rule.reached = reached.map(|(_, share)| *share).or(rule.reached);
        }
        changed
    }

    /// The changes as they would be, with those that are tried out.
    fn with_tried(&self) -> RuleChanges {
        let mut next = self.clone();
        let tried = next.tried.take();
        for change in tried.into_iter().flatten() {
            // The file may have changed meanwhile; what no longer fits is left out.
            let id = change.id().clone();
            let configured = next.by_id.get(&id).and_then(|set| set.configured.clone());
            next.added.retain(|other| *other != id);
            if configured.is_none() && matches!(change, Change::Set(_)) {
                next.added.insert(0, id.clone());
            }
            next.by_id.insert(id, Set { change, configured });
        }
        next
    }
}

fn file_rule<'c>(configured: &'c Config, id: &str) -> Option<&'c Rule> {
    let rules = configured
        .steering
        .iter()
        .flat_map(|steering| &steering.rules);
    rules.into_iter().find(|rule| &*rule.id == id)
}

/// Wherever it stands in the file.
fn is_same(a: Option<&Rule>, b: Option<&Rule>) -> bool {
    let placeless = |rule: &Rule| Rule {
        origin: "".into(),
        ..rule.clone()
    };
    a.map(placeless) == b.map(placeless)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::config;

    const FILE: &str = "version: 1\nclusters:\n  one: { endpoints: { static: [10.0.0.1:80] } }\n  \
        two: { endpoints: { static: [10.0.0.2:80] } }\nsteering:\n  \
        applications: { pay: { units: { u1: one, u2: two } } }\n  rules:\n    \
        - { id: base, owner: ops, epoch: 3, match: { application: pay }, set_unit: u1 }\n";

    fn file(text: &str) -> Arc<Config> {
        Arc::new(config::parse("f.yaml", text).unwrap().0)
    }

    fn rule(text: &str) -> Change {
        let steering = file(FILE).steering.clone().unwrap();
        let id = text.split_once(' ').unwrap().0;
        let rest = format!(
            "{{ match: {{ application: pay }}, {} }}",
            text.split_once(' ').unwrap().1
        );
        Change::Set(Box::new(
            config::parse_steering_rule(id, &rest, &steering).unwrap(),
        ))
    }

    fn withdraw(id: &str, owner: &str, epoch: u64) -> Change {
        Change::Withdraw {
            id: id.into(),
            owner: owner.into(),
            epoch,
        }
    }

    fn rules(changes: &RuleChanges, file: &Arc<Config>) -> Vec<String> {
        let applied = changes.apply(file);
        let rules = &applied.steering.as_ref().unwrap().rules;
        rules
            .iter()
            .map(|rule| format!("{}@{}", rule.id, rule.epoch))
            .collect()
    }

    /// Goal: rules come, change and go one by one, those by hand in front; the file's own change wins (S1). Method: a
    /// life of changes, with what is in use after each.
    #[test]
    fn rules_change_alone() {
        let file_now = file(FILE);
        let mut changes = RuleChanges::default();
        assert!(Arc::ptr_eq(&changes.apply(&file_now), &file_now));
        for (change, expected) in [
            (
                rule("new owner: me, set_unit: u2"),
                &["new@1", "base@3"][..],
            ),
            (
                rule("newer owner: me, set_unit: u2"),
                &["newer@1", "new@1", "base@3"],
            ),
            (
                rule("base owner: ops, epoch: 4, set_unit: u2"),
                &["newer@1", "new@1", "base@4"],
            ),
            (withdraw("new", "me", 1), &["newer@1", "base@4"]),
            (withdraw("base", "ops", 4), &["newer@1"]),
            (
                rule("new owner: me, epoch: 2, set_unit: u1"),
                &["new@2", "newer@1"],
            ),
        ] {
            changes.make(&file_now, change).unwrap();
            assert_eq!(rules(&changes, &file_now), expected);
        }
        let moved = file(&FILE.replace("\nclusters:", "\n\nclusters:"));
        assert_eq!(changes.follow(&moved), [] as [Arc<str>; 0]);
        let other = file(&FILE.replace("epoch: 3", "epoch: 9"));
        assert_eq!(changes.follow(&other), [Arc::from("base")]);
        assert_eq!(rules(&changes, &other), ["new@2", "newer@1", "base@9"]);
        // Beside a file without the place they name, they are no program.
        let without = file(&FILE.replace(", u2: two", ""));
        assert_eq!(changes.follow(&without).len(), 2);
        assert_eq!(rules(&changes, &without), ["base@3"]);
    }

    /// Goal: of two who change a rule at once one is told; nobody changes another's; what cannot be meant is refused as
    /// in a file, and nothing is changed. Method: table.
    #[test]
    fn conflicts_are_refused() {
        let file = file(FILE);
        let mut changes = RuleChanges::default();
        changes
            .make(&file, rule("gone owner: me, epoch: 5, set_unit: u2"))
            .unwrap();
        changes.make(&file, withdraw("gone", "me", 5)).unwrap();
        for (change, said) in [
            (
                rule("base owner: me, epoch: 9, set_unit: u2"),
                "belongs to `ops`, not to `me`",
            ),
            (
                rule("base owner: ops, epoch: 3, set_unit: u2"),
                "has had epoch 3, and 3 is not newer",
            ),
            (
                rule("gone owner: me, epoch: 5, set_unit: u2"),
                "has had epoch 5, and 5 is not newer",
            ),
            (
                rule("bad owner: me, set_unit: u9"),
                "no place `u9`; its places are `u1`, `u2`",
            ),
            (rule("bad owner: me, split: { u1: 10% }"), "sums to 10 %"),
            (withdraw("base", "me", 3), "belongs to `ops`"),
            (withdraw("base", "ops", 2), "has epoch 3 now, not 2"),
            (withdraw("nobody", "me", 1), "there is no rule `nobody`"),
        ] {
            let why = changes.make(&file, change).unwrap_err();
            assert!(why.contains(said), "{why}");
            assert_eq!(rules(&changes, &file), ["base@3"]);
        }
        let without = Arc::new(Config {
            steering: None,
            ..Config::clone(&file)
        });
        let why = changes
            .make(&without, rule("a owner: me, set_unit: u1"))
            .unwrap_err();
        assert!(why.contains("no `steering` section"));
    }

    /// Goal: what is tried out stands beside what is in use, and adds up (S15). Method: two changes tried, one refused,
    /// and the end.
    #[test]
    fn trials_stand_beside() {
        let file = file(FILE);
        let mut changes = RuleChanges::default();
        changes
            .try_out(&file, rule("new owner: me, set_unit: u2"))
            .unwrap();
        changes.try_out(&file, withdraw("base", "ops", 3)).unwrap();
        assert!(
            changes
                .try_out(&file, rule("base owner: me, epoch: 9, set_unit: u9"))
                .is_err()
        );
        let applied = changes.apply(&file);
        let steering = applied.steering.as_ref().unwrap();
        let ids = |rules: &[Rule]| {
            rules
                .iter()
                .map(|rule| rule.id.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&steering.rules), ["base"]);
        assert_eq!(ids(&steering.next.as_ref().unwrap().rules), ["new"]);
        assert!(changes.follow(&file).is_empty());
        assert!(
            changes
                .apply(&file)
                .steering
                .as_ref()
                .unwrap()
                .next
                .is_some()
        );
        assert!(changes.end_trial() && !changes.end_trial());
        assert!(Arc::ptr_eq(&changes.apply(&file), &file));
    }

    /// Goal: what a ramp has reached is in use, until the rule is another. Method: reach, and replace.
    #[test]
    fn ramps_are_remembered() {
        let file = file(FILE);
        let mut changes = RuleChanges::default();
        let ramp = "ramp: { stop: { error_rate: 1% } }";
        changes
            .make(&file, rule(&format!("r owner: me, set_unit: u2, {ramp}")))
            .unwrap();
        let reached = |changes: &RuleChanges| {
            changes.apply(&file).steering.as_ref().unwrap().rules[0].reached
        };
        assert_eq!(reached(&changes), Some(100));
        let set = changes.apply(&file).steering.as_ref().unwrap().rules[0].clone();
        changes.reach(&set, 2_500);
        assert_eq!(reached(&changes), Some(2_500));
        changes
            .make(
                &file,
                rule(&format!("r owner: me, epoch: 2, set_unit: u2, {ramp}")),
            )
            .unwrap();
        assert_eq!(reached(&changes), Some(100));
    }
}
