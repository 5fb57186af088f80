//! `/xds`: the control plane, by type of resources: version, nonce, what is in use, what waits for what, and why
//! something was refused. As JSON for programs, and as text for people.

use std::fmt::Write;

use serde_json::{Value, json};
use tidegate_core::config::model::XdsProtocol;
use tidegate_xds::{
    ads::Status as Client,
    resources::{FileStatus, ResourceStatus, TypeStatus},
};

use crate::{status::Status, xds::Shown};

/// Everything; null without a control plane.
pub(crate) fn view(status: &Status) -> Value {
    let Some(shown) = status.live().xds.clone() else {
        return Value::Null;
    };
    let client: std::sync::Arc<Client> = shown.client.borrow().clone();
    json!({
        "connected_to": client.server.as_deref(),
        "protocol": shown.protocol.map(XdsProtocol::word),
        "streams": client.streams,
        "last_error": client.last_error,
        "applied": {
            "parts": shown.applied.parts,
            "last_ms": shown.applied.last.as_secs_f64() * 1e3,
            "refused": shown.applied.refused,
        },
        "unknown_clusters": client.unknown_clusters.iter().map(|name| json!(&**name)).collect::<Vec<_>>(),
        "files": client.files.iter().map(file).collect::<Vec<_>>(),
        "types": client.types.iter().map(of_type).collect::<Vec<_>>(),
    })
}

fn file(one: &FileStatus) -> Value {
    json!({
        "path": &*one.of.file.path,
        "watched_directory": one.of.file.watched_directory.as_deref(),
        "type": one.of.resource_type.word(),
        "version": one.version,
        "error": one.error,
    })
}

fn of_type(one: &TypeStatus) -> Value {
    json!({
        "type": one.resource_type.word(),
        "type_url": one.resource_type.url(),
        "version": one.version,
        "nonce": one.nonce,
        "responses": one.responses,
        "accepted": one.accepted,
        "rejected": one.rejected,
        "last_error": one.last_error,
        "resources": one.resources.iter().map(resource).collect::<Vec<_>>(),
    })
}

fn resource(one: &ResourceStatus) -> Value {
    json!({
        "name": one.name,
        "version": one.version,
        "state": word(one),
        "error": one.error,
        "warnings": one.warnings,
    })
}

/// What a resource is doing; one that never came is asked for, or was refused.
fn word(one: &ResourceStatus) -> &'static str {
    match (one.state, &one.error) {
        (Some(state), _) => state.word(),
        (None, Some(_)) => "refused",
        (None, None) => "asked",
    }
}

/// The same as text.
pub(crate) fn text(status: &Status) -> String {
    let Some(shown) = status.live().xds.clone() else {
        return "no control plane: the configuration has no `xds`\n".into();
    };
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_text(&mut out, &shown);
    out
}

fn write_text(out: &mut String, shown: &Shown) -> std::fmt::Result {
    let client = shown.client.borrow().clone();
    let to = client.server.as_deref().unwrap_or("none");
    let protocol = shown.protocol.map_or("files alone", XdsProtocol::word);
    let error = client.last_error.as_deref().unwrap_or("no error");
    writeln!(
        out,
        "control plane {to} ({protocol}): {} streams, {} changes applied, the last after {:.1} ms, {error}",
        client.streams,
        shown.applied.parts,
        shown.applied.last.as_secs_f64() * 1e3,
    )?;
    for line in &shown.applied.refused {
        writeln!(out, "not used: {line}")?;
    }
    for name in &client.unknown_clusters {
        writeln!(
            out,
            "routes lead to cluster {name}, which does not exist: they answer 503"
        )?;
    }
    for one in &client.files {
        let (path, error) = (&one.of.file.path, one.error.as_deref());
        let error = error.unwrap_or("no error");
        writeln!(
            out,
            "file {path} ({}): {error}",
            one.of.resource_type.word()
        )?;
    }
    for one in &client.types {
        writeln!(
            out,
            "{}: version {}, {} accepted, {} rejected",
            one.resource_type.word(),
            if one.version.is_empty() {
                "-"
            } else {
                &one.version
            },
            one.accepted,
            one.rejected,
        )?;
        for resource in &one.resources {
            writeln!(out, "  {:<9} {}", word(resource), resource.name)?;
            if let Some(error) = &resource.error {
                writeln!(out, "            refused: {error}")?;
            }
            for warning in &resource.warnings {
                writeln!(out, "            {warning}")?;
            }
        }
    }
    Ok(())
}
