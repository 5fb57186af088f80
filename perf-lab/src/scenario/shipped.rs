//! The scenarios in the binary, and how one is found by what was typed.

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

use include_dir::{Dir, include_dir};

use super::{Scenario, parse};
use crate::error::Error;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/scenarios");

/// The budget's rows, in the order in which they run; what needs a capability that nobody has is
/// left out when it comes to it. A scenario that needs another's figures comes after it.
pub const BUDGET: [&str; 24] = [
    "h1-128",
    "h1-128-half",
    "h1-16k",
    "h1-16k-half",
    "h1-1m",
    "h1-1m-half",
    "tcp-16k",
    "short-connections",
    "routes-1000",
    "many-connections",
    "idle-connections",
    "idle-memory",
    "tls-128",
    "tls-16k",
    "tls-handshake",
    "tls-handshake-resumed",
    "mtls-out",
    "two-hops",
    "two-hops-plain",
    "encryption-switch",
    "two-hops-h2",
    "h2-tls",
    "h2c",
    "idle-connections-tls",
];

/// All shipped scenarios: the budget's first, the others by name.
pub fn all() -> Result<Vec<Arc<Scenario>>, Error> {
    static PARSED: OnceLock<Result<Vec<Arc<Scenario>>, String>> = OnceLock::new();
    let parsed = PARSED.get_or_init(|| load().map_err(|error| error.to_string()));
    parsed.clone().map_err(Error::Usage)
}

fn load() -> Result<Vec<Arc<Scenario>>, Error> {
    let mut scenarios = Vec::new();
    for file in FILES.files() {
        let path = file.path();
        let name = stem(path);
        let text = file.contents_utf8().unwrap_or_default();
        let shown = format!("scenarios/{}", path.display());
        scenarios.push(Arc::new(parse(&shown, &name, text)?));
    }
    let place = |name: &str| BUDGET.iter().position(|row| *row == name);
    scenarios.sort_by_key(|scenario| {
        let place = place(&scenario.name).unwrap_or(BUDGET.len());
        (place, scenario.name.clone())
    });
    Ok(scenarios)
}

/// One shipped scenario.
pub fn named(name: &str) -> Option<Arc<Scenario>> {
    let all = all().ok()?;
    all.into_iter().find(|scenario| scenario.name == name)
}

/// The file of a shipped one.
pub fn text(name: &str) -> Option<&'static str> {
    FILES.get_file(format!("{name}.yaml"))?.contents_utf8()
}

/// What was typed: a name, or a file's path.
pub fn find(typed: &str) -> Result<Arc<Scenario>, Error> {
    if let Some(scenario) = all()?.into_iter().find(|scenario| scenario.name == typed) {
        return Ok(scenario);
    }
    let path = Path::new(typed);
    if typed.contains('/') || typed.ends_with(".yaml") || typed.ends_with(".yml") {
        let text = fs::read_to_string(path).map_err(Error::io(format!("reading {typed}")))?;
        return parse(typed, &stem(path), &text).map(Arc::new);
    }
    let all = all()?;
    let names: Vec<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
    let error = Error::no_such("scenario", typed, &names);
    Err(Error::Usage(format!(
        "{error}; a file's path ends in .yaml"
    )))
}

/// The scenarios that were asked for, each after those that it needs the figures of, once.
pub fn with_bases(asked: &[Arc<Scenario>]) -> Result<Vec<Arc<Scenario>>, Error> {
    let mut ordered: Vec<Arc<Scenario>> = Vec::new();
    let add = |scenario: Arc<Scenario>, ordered: &mut Vec<Arc<Scenario>>| {
        if !ordered.iter().any(|other| other.name == scenario.name) {
            ordered.push(scenario);
        }
    };
    for scenario in asked {
        for name in scenario.bases() {
            let given = asked.iter().find(|other| other.name == name);
            let base = match given {
                Some(base) => base.clone(),
                None => find(name)?,
            };
            if base.bases().next().is_some() {
                return Err(Error::Usage(format!(
                    "{}: {name} itself needs another scenario",
                    scenario.name
                )));
            }
            add(base, &mut ordered);
        }
        add(scenario.clone(), &mut ordered);
    }
    Ok(ordered)
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}
