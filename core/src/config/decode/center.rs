//! The healing center.

use super::*;
use crate::config::model::{Center, Hook, Restart};

/// Decodes the section.
pub(super) fn center(fields: &Fields<'_>) -> Center {
    Center {
        addresses: servers(fields, &keys::CENTER_ADDRESS),
        token_file: fields.text("token_file").map(|text| text.text.into()),
        fronts: texts(fields, "fronts", &keys::FRONT_ADDRESS, |text| {
            checked_opt(fields.report, "fronts", text, syntax::endpoint(&text.text))
        }),
        restart: fields
            .section_opt("restart", &keys::RESTART)
            .and_then(|fields| restart(&fields)),
    }
}

/// The servers under `addresses`.
pub(super) fn servers(fields: &Fields<'_>, item: &Kind) -> Vec<Arc<str>> {
    fields.refuse_empty("addresses");
    texts(fields, "addresses", item, |text| {
        if !host_and_port(&text.text) {
            let help = "write `HOST:PORT`";
            fields::malformed(
                fields.report,
                codes::ADDRESS,
                "addresses",
                text,
                "no port",
                help,
            );
        }
        Some(text.text.as_str().into())
    })
}

fn restart(fields: &Fields<'_>) -> Option<Restart> {
    let key = fields.exactly_one(&["command", "http", "unix"])?;
    if key == "command" {
        fields.refuse(
            &["path"],
            "for a command",
            "it is what an HTTP hook is asked for: remove it",
        );
    }
    let text = fields.text("path").unwrap_or_default();
    let path = checked_opt(fields.report, "path", &text, syntax::path(&text.text));
    let path = path.unwrap_or_else(|| "/".into());
    let hook = match key {
        "http" => {
            let text = fields.text("http")?;
            let address = checked_opt(fields.report, "http", &text, syntax::endpoint(&text.text))?;
            Hook::Http(address, path)
        }
        "unix" => Hook::Unix(fields.text("unix")?.text.into(), path),
        _ => {
            fields.refuse_empty("command");
            let word = |text: &Text| Some(text.text.as_str().into());
            Hook::Command(texts(fields, "command", &keys::COMMAND_WORD, word))
        }
    };
    Some(Restart {
        hook,
        timeout: fields.duration("timeout"),
    })
}

/// The items of a list, as `read` takes them. What it does not take it has reported.
fn texts<T>(
    fields: &Fields<'_>,
    key: &str,
    item: &Kind,
    read: impl Fn(&Text) -> Option<T>,
) -> Vec<T> {
    let nodes = fields.list(key);
    let texts = nodes
        .iter()
        .filter_map(|node| fields::read_text(fields.report, key, node, item));
    texts.filter_map(|text| read(&text)).collect()
}

fn host_and_port(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
}
