//! Secrets: where they lie, and who refers to them.

use super::*;
use crate::config::model::{ExpiredCrl, Secret};

/// Every secret of the file by name, also those that were reported.
#[derive(Default)]
pub(super) struct Secrets(BTreeMap<Arc<str>, Defined>);

/// A secret that is defined somehow.
struct Defined {
    /// `None` when what it is was reported.
    secret: Option<Secret>,
    place: Range<usize>,
}

/// What a reference wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// [`Secret::Certificate`].
    Certificate,
    /// [`Secret::TrustedCa`].
    TrustedCa,
}

impl Secrets {
    /// Decodes `secrets`.
    pub(super) fn decode(fields: &Fields<'_>) -> Secrets {
        let secrets = fields.map("secrets").into_iter().map(|entry| {
            let defined = Defined {
                secret: secret(fields.report, entry),
                place: entry.key_span.clone(),
            };
            (named(fields.report, entry), defined)
        });
        Secrets(secrets.collect())
    }

    /// Names and places.
    pub(super) fn places(&self) -> BTreeMap<Arc<str>, Range<usize>> {
        let places = self.0.iter();
        places
            .map(|(name, defined)| (Arc::clone(name), defined.place.clone()))
            .collect()
    }

    /// What the model holds.
    pub(super) fn into_model(self) -> BTreeMap<Arc<str>, Secret> {
        let secrets = self.0.into_iter();
        secrets
            .filter_map(|(name, defined)| Some((name, defined.secret?)))
            .collect()
    }

    /// Resolves the secret that `key` names; reports one that is not there, or of the wrong kind.
    pub(super) fn refer(&self, report: &Report<'_>, text: &Text, wanted: Wanted) -> Arc<str> {
        match self.0.get(text.text.as_str()) {
            None => report.add(self.not_found(text, wanted)),
            Some(defined) => {
                let kind = defined.secret.as_ref().map(Wanted::of);
                if kind.is_some_and(|kind| kind != wanted) {
                    report.add(self.wrong_kind(text, wanted, defined.place.clone()));
                }
            }
        }
        text.text.as_str().into()
    }

    fn not_found(&self, text: &Text, wanted: Wanted) -> Problem {
        let name = shown(&text.text);
        let message = format!("secret `{name}` not found");
        let problem = Problem::new(codes::NO_SECRET, text.span.clone(), message);
        let (fitting, definition) = (self.of_kind(wanted), wanted.definition());
        let is_file = [".pem", ".crt", ".cer", ".key"]
            .iter()
            .any(|end| name.ends_with(end));
        let help = match suggest(&text.text, fitting.iter().copied()) {
            Some(secret) => format!("did you mean `{secret}`?"),
            None if is_file || name.starts_with(['/', '.']) => format!(
                "files are named under `secrets`, and referred to by the name of the secret: `secrets: {{ NAME: {definition} }}`"
            ),
            None if fitting.is_empty() => {
                format!("define it: `secrets: {{ {name}: {definition} }}`")
            }
            None => format!("defined are {}", list(fitting)),
        };
        problem.label("not defined under `secrets`").help(help)
    }

    fn wrong_kind(&self, text: &Text, wanted: Wanted, place: Range<usize>) -> Problem {
        let (is, needs) = match wanted {
            Wanted::Certificate => ("trusted authorities", "a certificate with its key"),
            Wanted::TrustedCa => ("a certificate", "trusted authorities"),
        };
        let message = format!(
            "secret `{}` holds {is}, this needs {needs}",
            shown(&text.text)
        );
        let fitting = self.of_kind(wanted);
        let help = match fitting.is_empty() {
            true => format!("define one: `secrets: {{ NAME: {} }}`", wanted.definition()),
            false => format!("name one of {}", list(fitting)),
        };
        Problem::new(codes::SECRET_KIND, text.span.clone(), message)
            .label(format!("not {needs}"))
            .related(place, "defined here")
            .help(help)
    }

    fn of_kind(&self, wanted: Wanted) -> Vec<&str> {
        let fits = |defined: &Defined| {
            let secret = defined.secret.as_ref();
            secret.is_none_or(|secret| Wanted::of(secret) == wanted)
        };
        let fitting = self.0.iter().filter(|(_, defined)| fits(defined));
        fitting.map(|(name, _)| name.as_ref()).collect()
    }
}

impl Wanted {
    fn of(secret: &Secret) -> Wanted {
        match secret {
            Secret::Certificate { .. } => Wanted::Certificate,
            Secret::TrustedCa { .. } => Wanted::TrustedCa,
        }
    }

    /// How such a secret is written.
    fn definition(self) -> &'static str {
        match self {
            Wanted::Certificate => "{ certificate: FILE, private_key: FILE }",
            Wanted::TrustedCa => "{ trusted_ca: FILE }",
        }
    }
}

/// Decodes one secret. `None` when what it is was reported.
fn secret(report: &Report<'_>, entry: &Entry) -> Option<Secret> {
    let fields = Fields::open(report, &keys::SECRET, &entry.value, entry.key_span.clone());
    if fields.has("private_key") && !fields.has("certificate") && !fields.has("trusted_ca") {
        report.add(lacks(&fields, "private_key", "certificate"));
        return None;
    }
    match fields.exactly_one(&["certificate", "trusted_ca"])? {
        "certificate" => {
            let help = "authorities revoke, not certificates: write it beside `trusted_ca`";
            fields.refuse(&["crl", "expired_crl"], "beside `certificate`", help);
            if !fields.has("private_key") {
                report.add(lacks(&fields, "certificate", "private_key"));
            }
            Some(Secret::Certificate {
                certificate: file(&fields, "certificate")?,
                private_key: file(&fields, "private_key")?,
            })
        }
        _ => {
            let help = "authorities are trusted without their keys: remove it";
            fields.refuse(&["private_key"], "beside `trusted_ca`", help);
            if !fields.has("crl") {
                let help = "without revocations nothing expires: remove it, or add `crl: FILE`";
                fields.refuse(&["expired_crl"], "without `crl`", help);
            }
            Some(Secret::TrustedCa {
                certificates: file(&fields, "trusted_ca")?,
                crl: file(&fields, "crl"),
                expired_crl: match fields.word("expired_crl") {
                    Some("refuse") => ExpiredCrl::Refuse,
                    _ => ExpiredCrl::Use,
                },
            })
        }
    }
}

fn lacks(fields: &Fields<'_>, key: &str, missing: &str) -> Problem {
    let message = format!("`{key}` needs `{missing}`");
    Problem::new(codes::MISSING_KEY, fields.key_span(key), message)
        .label(format!("no `{missing}`"))
        .help(format!(
            "add `{missing}: FILE`; a file that holds both is named twice"
        ))
}

/// The path of a file. What looks like the content of one is reported, and never shown (E9).
fn file(fields: &Fields<'_>, key: &str) -> Option<Arc<str>> {
    // Before its length is judged: content is no path, however long.
    let given = fields.entry(key).map(|entry| &entry.value.value);
    if matches!(given, Some(Value::Scalar { text, .. }) if text.contains("-----BEGIN")) {
        let message = format!("`{key}` holds a secret, not the path of a file");
        let problem = Problem::new(codes::SECRET_INLINE, fields.key_span(key), message);
        let help = "put the PEM text into a file that only this user may read, and write its path";
        fields
            .report
            .add(problem.label("its value is PEM text").help(help));
        return None;
    }
    let text = fields.text(key)?;
    checked_opt(fields.report, key, &text, syntax::file_path(&text.text))
}
