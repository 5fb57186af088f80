//! `tidegate check --xds`: are these resources of the Envoy API, and what would become of them?

use std::{fs, io, path::PathBuf};

use serde_json::{Value, json};
use tidegate_core::config::FILE_BYTES_MAX;
use tidegate_xds::{
    document::{self, Checked},
    translate::Fault,
};

use crate::{
    cli::{self, Format},
    exit::{Exit, Failure},
};

/// One file, checked.
struct File {
    name: String,
    resources: Vec<Checked>,
    /// What is referred to and not in it.
    dangling: Vec<String>,
}

/// Checks the files.
pub(super) fn run(paths: &[PathBuf], deny_warnings: bool, format: Format) -> Result<(), Failure> {
    let files = paths.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    match format {
        Format::Json => {
            let files: Vec<Value> = files.iter().map(to_json).collect();
            cli::print_json(&json!({ "files": files }))?;
        }
        Format::Human => {
            for file in &files {
                cli::print(&text(file))?;
            }
        }
    }
    let resources = || files.iter().flat_map(|file| &file.resources);
    if resources().any(|one| one.translated.resource.is_err()) {
        return Err(Failure::reported(Exit::Config));
    }
    let warned = resources().any(|one| !one.translated.warnings.is_empty())
        || files.iter().any(|file| !file.dangling.is_empty());
    match deny_warnings && warned {
        true => Err(Failure::reported(Exit::CheckFailed)),
        false => Ok(()),
    }
}

fn read(path: &PathBuf) -> Result<File, Failure> {
    let name = path.display().to_string();
    let bad =
        |why: String, remedy: &str| Failure::new(Exit::Config, format!("`{name}`: {why}"), remedy);
    let length = fs::metadata(path).map(|found| found.len());
    if length.is_ok_and(|length| length > FILE_BYTES_MAX as u64) {
        return Err(bad("is too large".into(), "is this the right file?"));
    }
    let unreadable = |e: io::Error| {
        bad(
            e.to_string(),
            "name a file that exists and that this user may read",
        )
    };
    let resources = match path.extension() {
        Some(end) if end == "pb" => document::read_bytes(&fs::read(path).map_err(unreadable)?),
        _ => document::read(&fs::read_to_string(path).map_err(unreadable)?),
    };
    let resources = resources.map_err(|why| {
        bad(
            why,
            "write resources as the protocol's own JSON mapping has them",
        )
    })?;
    let dangling = document::dangling(&resources);
    Ok(File {
        name,
        resources,
        dangling,
    })
}

fn kind(one: &Checked) -> &'static str {
    one.resource_type.map_or("resource", |kind| kind.word())
}

fn text(file: &File) -> String {
    let mut text = String::new();
    let (mut refused, mut warnings) = (0, file.dangling.len());
    for one in &file.resources {
        let (name, kind) = (&one.translated.name, kind(one));
        if let Err(faults) = &one.translated.resource {
            refused += 1;
            for fault in faults {
                text += &format!("{kind} `{name}`: refused: {fault}\n");
            }
        }
        warnings += one.translated.warnings.len();
        for warning in &one.translated.warnings {
            text += &format!("{kind} `{name}`: {warning}\n");
        }
    }
    for line in &file.dangling {
        text += &format!("{line}\n");
    }
    let count = file.resources.len();
    text + &format!(
        "{}: {count} resources, {refused} refused, {warnings} warnings\n",
        file.name
    )
}

fn to_json(file: &File) -> Value {
    let faults = |faults: &[Fault]| {
        let fault = |one: &Fault| json!({ "path": one.path, "reason": one.reason });
        faults.iter().map(fault).collect::<Vec<_>>()
    };
    let resource = |one: &Checked| {
        json!({
            "type": one.resource_type.map(|kind| kind.url()),
            "name": one.translated.name,
            "ok": one.translated.resource.is_ok(),
            "errors": one.translated.resource.as_ref().err().map(|all| faults(all)).unwrap_or_default(),
            "warnings": faults(&one.translated.warnings),
        })
    };
    json!({
        "file": file.name,
        "ok": file.resources.iter().all(|one| one.translated.resource.is_ok()),
        "resources": file.resources.iter().map(resource).collect::<Vec<_>>(),
        "dangling": file.dangling,
    })
}
