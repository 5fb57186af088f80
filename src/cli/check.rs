//! `tidegate check`: is this file right, and what would it change?

mod resources;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidegate_core::config::{self, Diagnostic, Severity};

use super::{Format, render};
use crate::{
    exit::{Exit, Failure},
    secrets::Secrets,
    source::{LoadError, Loaded, Source},
    status::unix_s,
};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate check edge.yaml
  tidegate check new.yaml --diff /etc/tidegate/tidegate.yaml
  tidegate check --deny-warnings *.yaml
  tidegate check edge.yaml --format json | jq .files[].diagnostics
  tidegate check --xds resources.yaml                what a control plane would send")]
pub(super) struct Args {
    /// Configuration files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Say in words what would change if FILE replaced OLD
    #[arg(long, value_name = "OLD")]
    diff: Option<PathBuf>,

    /// Do not look at the files of secrets: they are not on this machine
    #[arg(long)]
    skip_secrets: bool,

    /// The files hold resources of the Envoy API, in YAML or JSON: a list of them with their `@type`, a response with
    /// `resources` (or one in protobuf, by the name `.pb`), or a bootstrap with `static_resources`
    #[arg(long, conflicts_with_all = ["diff", "skip_secrets"])]
    xds: bool,

    /// Exit with 5 if there are warnings
    #[arg(long)]
    deny_warnings: bool,

    /// How results are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One file, checked.
struct Checked {
    name: String,
    diagnostics: Vec<Diagnostic>,
    text: String,
    /// The configuration, if it is one.
    loaded: Option<Loaded>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.xds {
        return resources::run(&args.files, args.deny_warnings, args.format);
    }
    let old = match &args.diff {
        Some(path) => Some(load_old(path)?),
        None => None,
    };
    let secrets = match args.skip_secrets {
        true => SecretFiles::Skipped,
        false => SecretFiles::Checked,
    };
    let mut checked = Vec::with_capacity(args.files.len());
    for path in &args.files {
        checked.push(check(path, secrets)?);
    }
    let changes = |one: &Checked| {
        let (old, new) = (old.as_ref()?, one.loaded.as_ref()?);
        Some(config::diff(&old.config, &new.config))
    };
    match args.format {
        Format::Json => {
            let files: Vec<Value> = checked
                .iter()
                .map(|one| to_json(one, changes(one)))
                .collect();
            super::print_json(&json!({ "files": files }))?;
        }
        Format::Human => {
            for one in &checked {
                eprint!("{}", render::diagnostics(&one.diagnostics, &one.text));
                super::print(&verdict(one, changes(one)))?;
            }
        }
    }
    if checked.iter().any(|one| one.loaded.is_none()) {
        return Err(Failure::reported(Exit::Config));
    }
    let warned = checked.iter().any(|one| !one.diagnostics.is_empty());
    if args.deny_warnings && warned {
        return Err(Failure::reported(Exit::CheckFailed));
    }
    Ok(())
}

/// Whether files of secrets are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SecretFiles {
    Checked,
    Skipped,
}

fn check(path: &Path, secrets: SecretFiles) -> Result<Checked, Failure> {
    let source = Source::File(path.to_owned());
    let name = source.name();
    let loaded = source.load().and_then(|loaded| {
        if secrets == SecretFiles::Checked {
            Secrets::load(&name, &loaded, None, None, unix_s())?;
        }
        Ok(loaded)
    });
    match loaded {
        Ok(loaded) => Ok(Checked {
            name,
            diagnostics: loaded.warnings.clone(),
            text: loaded.text.clone(),
            loaded: Some(loaded),
        }),
        Err(LoadError::Invalid(diagnostics, text)) => Ok(Checked {
            name,
            diagnostics,
            text,
            loaded: None,
        }),
        Err(LoadError::Unreadable(failure)) => Err(failure),
    }
}

/// The configuration to compare with must be one.
fn load_old(path: &Path) -> Result<Loaded, Failure> {
    let old = check(path, SecretFiles::Skipped)?;
    old.loaded.ok_or_else(|| {
        Failure::new(
            Exit::Config,
            format!("`{}` is no valid configuration to compare with", old.name),
            format!("see `tidegate check {}`", old.name),
        )
    })
}

fn verdict(one: &Checked, changes: Option<Vec<String>>) -> String {
    let of = |severity| {
        one.diagnostics
            .iter()
            .filter(|d| d.severity == severity)
            .count()
    };
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let mut text = match &one.loaded {
        None => format!("{}: {errors} errors, {warnings} warnings\n", one.name),
        Some(loaded) => format!(
            "{}: ok, {} listeners, {} clusters, {warnings} warnings\n",
            one.name,
            loaded.config.listeners.len(),
            loaded.config.clusters.len()
        ),
    };
    match changes.as_deref() {
        None => {}
        Some([]) => text += "  changes nothing\n",
        Some(changes) => {
            for change in changes {
                text += &format!("  {change}\n");
            }
        }
    }
    text
}

fn to_json(one: &Checked, changes: Option<Vec<String>>) -> Value {
    json!({
        "file": one.name,
        "ok": one.loaded.is_some(),
        "diagnostics": one.diagnostics.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        "changes": changes,
    })
}
