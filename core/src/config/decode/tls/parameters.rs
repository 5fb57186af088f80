//! Versions, suites and groups, and whether they go together.

use super::*;
use crate::{
    config::model::TlsParameters,
    config::parameters::{GROUPS, SUITES},
};

/// Decodes what listeners and clusters have alike.
pub(super) fn parameters(fields: &Fields<'_>) -> TlsParameters {
    let min_version = version(fields, "min_version").unwrap_or(TlsVersion::Tls12);
    let max_version = version(fields, "max_version").unwrap_or(TlsVersion::Tls13);
    let (suites, suites_known) = suites(fields);
    let (groups, groups_known) = groups(fields);
    if min_version > max_version {
        let at = ["min_version", "max_version"]
            .into_iter()
            .rfind(|key| fields.has(key));
        let at = fields.value_span(at.unwrap_or("min_version"));
        let message = "`min_version` is higher than `max_version`";
        let problem = Problem::new(codes::TLS_VERSIONS, at, message).label("no version is left");
        fields
            .report
            .add(problem.help("lower `min_version`, or raise `max_version`"));
    } else {
        let range = (min_version, max_version);
        // What was reported may have been meant to be what is missed.
        if suites_known {
            suites_fit(fields, &suites, range);
        }
        if groups_known {
            groups_fit(fields, &groups, range);
        }
    }
    let names = |chosen: Vec<&'static str>| chosen.into_iter().map(Arc::from).collect();
    TlsParameters {
        min_version,
        max_version,
        cipher_suites: names(suites.iter().map(|(suite, _)| suite.name).collect()),
        groups: names(groups.iter().map(|(group, _)| group.name).collect()),
    }
}

/// A version; `None` when it is absent without a default, or was reported.
pub(super) fn version(fields: &Fields<'_>, key: &str) -> Option<TlsVersion> {
    match fields.word(key)? {
        "1.2" => Some(TlsVersion::Tls12),
        _ => Some(TlsVersion::Tls13),
    }
}

/// Items of a list, and where they stand.
type Chosen<T> = Vec<(&'static T, Text)>;

/// The suites, and whether all that is listed is one.
fn suites(fields: &Fields<'_>) -> (Chosen<Suite>, bool) {
    let renamed = |text: &str| {
        let foreign = SUITES
            .iter()
            .find(|suite| suite.alias.eq_ignore_ascii_case(text));
        foreign.map(|suite| suite.name)
    };
    let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
    chosen(fields, "cipher_suites", Suite::by_name, renamed, &names)
}

/// Likewise for groups.
fn groups(fields: &Fields<'_>) -> (Chosen<Group>, bool) {
    let renamed = |text: &str| match text {
        "prime256v1" | "P256" => Some("secp256r1"),
        "P384" => Some("secp384r1"),
        _ => {
            let foreign = GROUPS
                .iter()
                .find(|group| group.alias.eq_ignore_ascii_case(text));
            foreign.map(|group| group.name)
        }
    };
    let names: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
    chosen(fields, "groups", Group::by_name, renamed, &names)
}

/// The items of `key` by name, each once. `renamed` knows what others call them.
fn chosen<T: PartialEq>(
    fields: &Fields<'_>,
    key: &str,
    by_name: fn(&str) -> Option<&'static T>,
    renamed: impl Fn(&str) -> Option<&'static str>,
    names: &[&str],
) -> (Chosen<T>, bool) {
    let kind = Kind::Text("a name", keys::NAME_MAX);
    let items = fields.list(key);
    let mut chosen: Chosen<T> = Vec::new();
    for text in texts(fields, key, &kind, &items) {
        let Some(found) = by_name(&text.text) else {
            let meant = renamed(&text.text).or_else(|| suggest(&text.text, names.iter().copied()));
            let known = list(names.iter().copied());
            let help = match meant {
                Some(name) => format!("did you mean `{name}`?"),
                None if text.text.contains([':', ',']) => {
                    format!("write a list: there are {known}")
                }
                None => format!("there are {known}"),
            };
            let shown = Text {
                text: shown(&text.text),
                span: text.span,
            };
            let why = "not one that links can have";
            fields::malformed(fields.report, codes::TLS_NAME, key, &shown, why, &help);
            continue;
        };
        match chosen.iter().any(|(other, _)| *other == found) {
            true => listed_twice(fields.report, key, &text),
            false => chosen.push((found, text)),
        }
    }
    let all_known = chosen.len() == items.len();
    (chosen, all_known)
}

/// Reports suites of versions that are not allowed, or else versions that no suite is left for.
fn suites_fit(fields: &Fields<'_>, suites: &Chosen<Suite>, (min, max): (TlsVersion, TlsVersion)) {
    let mut fit = true;
    let allowed = min..=max;
    for (suite, text) in suites
        .iter()
        .filter(|(suite, _)| !allowed.contains(&suite.version))
    {
        fit = false;
        let message = format!("`{}` belongs to {}", suite.name, called(suite.version));
        let help = match suite.version {
            TlsVersion::Tls12 => "remove it, or lower `min_version`",
            TlsVersion::Tls13 => "remove it, or raise `max_version`",
        };
        misfit(fields, text.span.clone(), message, help.to_owned());
    }
    let served = |version| suites.iter().any(|(suite, _)| suite.version == version);
    let unserved_version = [min, max].into_iter().find(|version| !served(*version));
    if let (Some(version), true, false) = (unserved_version, fit, suites.is_empty()) {
        unserved(fields, "cipher_suites", version);
    }
}

/// Likewise for groups; those of TLS 1.2 are in 1.3, too.
fn groups_fit(fields: &Fields<'_>, groups: &Chosen<Group>, (min, max): (TlsVersion, TlsVersion)) {
    let mut fit = true;
    for (group, text) in groups.iter().filter(|(group, _)| group.version > max) {
        fit = false;
        let message = format!("`{}` needs {}", group.name, called(group.version));
        let help = "remove it, or raise `max_version`";
        misfit(fields, text.span.clone(), message, help.to_owned());
    }
    let served = groups.is_empty() || groups.iter().any(|(group, _)| group.version <= min);
    if fit && !served {
        unserved(fields, "groups", min);
    }
}

fn unserved(fields: &Fields<'_>, key: &str, version: TlsVersion) {
    let message = format!(
        "{} is allowed, and nothing in `{key}` belongs to it",
        called(version)
    );
    let help = match version {
        TlsVersion::Tls12 => format!("write `min_version: \"1.3\"`, or add to `{key}`"),
        TlsVersion::Tls13 => format!("write `max_version: \"1.2\"`, or add to `{key}`"),
    };
    misfit(fields, fields.value_span(key), message, help);
}

fn misfit(fields: &Fields<'_>, at: Range<usize>, message: String, help: String) {
    let problem = Problem::new(codes::TLS_VERSIONS, at, message);
    fields
        .report
        .add(problem.label("does not fit the versions").help(help));
}

fn called(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::Tls12 => "TLS 1.2",
        TlsVersion::Tls13 => "TLS 1.3",
    }
}
