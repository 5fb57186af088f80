//! Why a request is steered as it is (S16), from the table that the data path uses.

use std::{
    fmt::{self, Display, Formatter},
    time::Duration,
};

use serde::Serialize;

use super::{
    Asked, Decision, Refused, Surroundings, Table,
    rule::{Action, CompiledRule, Mismatch, Targets},
    share::{part, percent},
    table::Place,
};
use crate::{
    id::ClusterId,
    steering::{RequestView, RouteScratch},
};

/// What the program says to a request of one home.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Steered {
    /// The application.
    pub application: String,
    /// The place that the request's route leads to.
    pub from: String,
    /// The rules that may match, in order.
    pub rules: Vec<RuleVerdict>,
    /// Where the request goes; `None` where chance decides, or if it is refused.
    pub to: Option<String>,
    /// What log and header say: `rule42@17:unit1→unit2`.
    pub decision: Option<String>,
    /// Why it is refused, in a word.
    pub reason: Option<&'static str>,
}

/// What one rule says to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleVerdict {
    /// Its id and epoch, `rule42@17`.
    pub rule: String,
    /// Whether it chose the place.
    pub decides: bool,
    /// In words.
    pub because: String,
}

impl Display for Decision<'_> {
    /// `rule42@17:unit1→unit2`; `-` in place of the rule where none decided.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.rule {
            Some(rule) => write!(f, "{}@{}", rule.id, rule.epoch)?,
            None => f.write_str("-")?,
        }
        write!(f, ":{}→{}", self.from.name, self.to.name)
    }
}

/// Explains what happens to a request whose route leads to `home`; `None` if that is no place. `usable` says which
/// clusters have an endpoint.
pub fn explain(
    table: &Table,
    home: ClusterId,
    asked: &Asked<'_, dyn RequestView + '_>,
    usable: impl Fn(ClusterId) -> bool,
) -> Option<Steered> {
    let place = table.place(home)?;
    let around = Around(usable);
    let mut placed = false;
    let mut is_chance = false;
    let mut rules = Vec::new();
    for (rule, mismatch) in table.verdicts(place, asked) {
        let unknown = rule.known_key(asked).is_none();
        let open = rule
            .percent()
            .filter(|_| unknown && !placed && !matches!(mismatch, Some(Mismatch::Expired)));
        let is_placing = matches!(rule.action, Action::Place(..));
        let because = match (&mismatch, open) {
            // Whether the rest holds was not looked at behind a share that chance decides.
            (None | Some(Mismatch::Percent(_)), Some(draw)) => {
                is_chance = true;
                format!(
                    "takes {} of what matches, by chance",
                    percent(part(draw.threshold()))
                )
            }
            (Some(mismatch), _) => why_not(mismatch),
            (None, None) if is_placing && asked.is_moved => {
                "matches, but the request was moved already".to_owned()
            }
            (None, None) if is_placing && placed => "matches, but comes later".to_owned(),
            (None, None) => {
                is_chance |= is_placing && unknown && is_drawn(rule);
                says(table, rule, asked)
            }
        };
        let decides =
            mismatch.is_none() && is_placing && !placed && !asked.is_moved && open.is_none();
        placed |= decides;
        rules.push(RuleVerdict {
            rule: format!("{}@{}", rule.id, rule.epoch),
            decides,
            because,
        });
    }
    let decided = table.decide(home, asked, &mut RouteScratch::default(), &around)?;
    let decision = decided.as_ref().ok().filter(|_| !is_chance);
    Some(Steered {
        application: place.application.to_string(),
        from: place.name.to_string(),
        rules,
        to: decision.map(|decision| decision.to.name.to_string()),
        decision: decision.map(ToString::to_string),
        reason: match &decided {
            Err(refused) if !is_chance => Some(Refused::reason(refused).word()),
            _ => None,
        },
    })
}

struct Around<F>(F);

impl<F: Fn(ClusterId) -> bool> Surroundings for Around<F> {
    fn is_usable(&self, cluster: ClusterId) -> bool {
        self.0(cluster)
    }

    // An explanation takes nothing from anybody.
    fn take_token(&self, _: &CompiledRule) -> Option<Duration> {
        None
    }
}

/// Whether what it decides depends on where a request falls.
fn is_drawn(rule: &CompiledRule) -> bool {
    let whole = super::share::threshold(super::share::WHOLE);
    match &rule.action {
        Action::Place(draw, Targets::One(_)) => draw.threshold() != 0 && draw.threshold() != whole,
        Action::Place(draw, _) => draw.threshold() != 0,
        _ => false,
    }
}

/// What a rule that matches does.
fn says(table: &Table, rule: &CompiledRule, asked: &Asked<'_, dyn RequestView + '_>) -> String {
    let name = |cluster: ClusterId| {
        table
            .place(cluster)
            .map_or("nowhere", |place: &Place| &place.name)
    };
    let names = |clusters: &[ClusterId]| {
        clusters
            .iter()
            .map(|c| name(*c))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match &rule.action {
        Action::Cap => "matches: refuses what is over its rate".to_owned(),
        Action::FailTo(clusters) => {
            format!("matches: {} if the place has no endpoint", names(clusters))
        }
        Action::Place(draw, _) => {
            let targets = names(&rule.targets());
            let share = percent(part(draw.threshold()));
            match rule.known_key(asked) {
                Some(key) => {
                    let point = percent(part(draw.point(key)));
                    let is_in = if draw.takes(key) { "in" } else { "outside" };
                    format!(
                        "{} to {targets}, {share}: the request falls at {point}, {is_in}",
                        rule.word
                    )
                }
                None => format!("{} to {targets}, {share}, by chance", rule.word),
            }
        }
    }
}

fn why_not(mismatch: &Mismatch<'_>) -> String {
    match mismatch {
        Mismatch::Expired => "has expired".to_owned(),
        Mismatch::Header(name) => format!("header {name} does not say so"),
        Mismatch::Cookie(name) => format!("cookie {name} does not say so"),
        Mismatch::User(Some(number)) => format!("user {number:02} is not in its range"),
        Mismatch::User(None) => "the request names no user".to_owned(),
        Mismatch::Percent(point) => {
            format!("falls at {}, outside of its percent", percent(part(*point)))
        }
    }
}

impl Display for Steered {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "steering  {}, home {}", self.application, self.from)?;
        let width = self
            .rules
            .iter()
            .map(|r| r.rule.chars().count())
            .max()
            .unwrap_or(0);
        for RuleVerdict {
            rule,
            decides,
            because,
        } in &self.rules
        {
            let mark = if *decides { '>' } else { ' ' };
            writeln!(f, "  {mark} {rule:width$}  {because}")?;
        }
        match (&self.decision, self.reason) {
            (Some(decision), _) => writeln!(f, "steer     {decision}"),
            (None, Some(reason)) => writeln!(f, "steer     refused: {reason}"),
            (None, None) => writeln!(f, "steer     by chance"),
        }
    }
}
