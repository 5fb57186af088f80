//! The reference of the format, printed from the descriptions of its keys: a page and a JSON Schema.

use serde_json::{Map, Value, json};

use super::{
    keys,
    quantity::{format_duration, format_share, format_size},
    shape::{Field, Kind, Presence, Section},
};

/// `docs/reference/config.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         <!-- Generated from core/src/config/keys.rs. -->\n\n\
         A configuration is one YAML file. Unknown keys are errors. Durations (`800ms`, `10s`, `1m`, `1h`), \
         sizes (`64KiB`, `1MiB`) and percentages (`20%`, `0.5%`) carry their unit. `<name>` stands for a name of \
         your choice, `[]` for each item of a list. What can go wrong stands in \
         [config-errors.md](config-errors.md).\n",
    );
    for section in keys::SECTIONS {
        write_section(&mut page, section);
    }
    write_limits(&mut page);
    page
}

fn write_section(page: &mut String, section: &Section) {
    let place = match section.place {
        "" => String::new(),
        place => format!("`{place}`: "),
    };
    page.push_str(&format!(
        "\n## {}\n\n{place}{}\n",
        title(section),
        prose(section.doc)
    ));
    if !section.fields.is_empty() {
        page.push_str("\n| Key | Value | Default | Meaning |\n|---|---|---|---|\n");
    }
    for field in section.fields {
        let cells = [
            format!("`{}`", field.key),
            value_cell(&field.kind),
            default_cell(field),
            meaning(field),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        page.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    if !section.planned.is_empty() {
        let keys = section
            .planned
            .iter()
            .map(|(key, _)| format!("`{key}`"))
            .collect::<Vec<_>>();
        page.push_str(&format!(
            "\nNot available in this version: {}.\n",
            keys.join(", ")
        ));
    }
}

fn write_limits(page: &mut String) {
    page.push_str("\n## Limits of the file itself\n\n| What | At most |\n|---|---|\n");
    for (what, limit) in [
        ("bytes of the file", super::FILE_BYTES_MAX as u64),
        (
            "levels of nesting, aliases followed",
            u64::from(super::DEPTH_MAX),
        ),
        ("keys and values, aliases followed", super::NODES_MAX),
        ("listeners", keys::LISTENERS_MAX as u64),
        ("clusters", keys::CLUSTERS_MAX as u64),
        ("routes of a listener", keys::ROUTES_MAX as u64),
        ("static endpoints of a cluster", keys::ENDPOINTS_MAX as u64),
        (
            "clusters of a split; hosts, methods, conditions or header edits of a route",
            keys::ROUTE_LIST_MAX as u64,
        ),
        ("secrets", keys::SECRETS_MAX as u64),
        ("certificates of a listener", keys::CERTIFICATES_MAX as u64),
        (
            "subject alternative names of a listener or a cluster",
            keys::SUBJECT_ALT_NAMES_MAX as u64,
        ),
        (
            "bytes of a subject alternative name",
            keys::SUBJECT_ALT_NAME_MAX as u64,
        ),
        (
            "cipher suites, groups or protocols of a list",
            keys::TLS_LIST_MAX as u64,
        ),
        (
            "labels of an endpoint or a rollout; zones of a rollout",
            keys::LABELS_MAX as u64,
        ),
        ("bytes of a label's key or value", keys::LABEL_MAX as u64),
        ("bytes of a name", keys::NAME_MAX as u64),
        ("bytes of another text", keys::TEXT_MAX as u64),
        ("bytes of `respond.body`", keys::BODY_MAX as u64),
        (
            "bytes of a compiled regular expression",
            crate::steering::PATTERN_BYTES_MAX as u64,
        ),
    ] {
        page.push_str(&format!("| {what} | {} |\n", grouped(limit)));
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let ahead = digits.len();
    let with_commas = digits.char_indices().flat_map(|(at, digit)| {
        let comma = at > 0 && (ahead - at).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    });
    with_commas.collect()
}

/// Text on one line: descriptions are broken over lines in the source.
fn prose(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn value_cell(kind: &Kind) -> String {
    match kind {
        Kind::Section(section) => format!("[map](#{})", anchor(section)),
        Kind::Map(key, value, _) => format!("map: {key} → {}", value_cell(value)),
        Kind::List(item, _) => format!("list, each {}", value_cell(item)),
        Kind::Any([one, Kind::List(item, _)]) if one.describe() == item.describe() => {
            format!("{}, or a list of such", value_cell(one))
        }
        Kind::Any(kinds) => {
            let cells = kinds
                .iter()
                .filter(|kind| !matches!(kind, Kind::Planned(_)));
            cells.map(value_cell).collect::<Vec<_>>().join(" or ")
        }
        Kind::Integer(min, max) if min == max => format!("`{min}`"),
        Kind::Integer(min, max) => format!("{} to {}", grouped(*min), grouped(*max)),
        Kind::Duration(min, max) => {
            format!("`{}` to `{}`", format_duration(*min), format_duration(*max))
        }
        Kind::Size(min, max) => format!("`{}` to `{}`", format_size(*min), format_size(*max)),
        Kind::Share(min, max) => format!("`{}` to `{}`", format_share(*min), format_share(*max)),
        kind => kind.describe(),
    }
}

/// The name of a section, with a capital.
fn title(section: &Section) -> String {
    let mut letters = section.name.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// The anchor that Markdown viewers give to a section's title.
fn anchor(section: &Section) -> String {
    section.name.to_lowercase().replace(' ', "-")
}

fn default_cell(field: &Field) -> String {
    match field.presence {
        Presence::Required => "required".to_owned(),
        Presence::Optional(meaning) => prose(meaning),
        Presence::Default(value) => format!("`{value}`: {}", prose(field.reason)),
    }
}

fn meaning(field: &Field) -> String {
    let mut meaning = prose(field.doc);
    for (word, doc) in words(&field.kind) {
        meaning.push_str(&format!("<br>`{word}`: {doc}."));
    }
    meaning
}

/// The words of a kind that mean more than themselves.
fn words(kind: &Kind) -> Vec<(&'static str, &'static str)> {
    match kind {
        Kind::Word(words) => words.to_vec(),
        Kind::Any(kinds) => kinds.iter().flat_map(words).collect(),
        Kind::List(item, _) => words(item),
        _ => Vec::new(),
    }
}

/// A JSON Schema (draft 2020-12) of the format, for editors.
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    for section in keys::SECTIONS {
        definitions.insert(definition_name(section), section_schema(section));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidegate configuration",
        "$ref": format!("#/$defs/{}", definition_name(&keys::ROOT)),
        "$defs": definitions,
    })
}

fn definition_name(section: &Section) -> String {
    section.name.to_lowercase().replace(' ', "_")
}

fn section_schema(section: &Section) -> Value {
    let properties = section.fields.iter();
    let properties = properties.map(|field| (field.key.to_owned(), field_schema(field)));
    let required = section.fields.iter();
    let required = required.filter(|field| matches!(field.presence, Presence::Required));
    let mut schema = json!({
        "type": "object",
        "description": prose(section.doc),
        "properties": properties.collect::<Map<_, _>>(),
        "additionalProperties": false,
    });
    let required: Vec<&str> = required.map(|field| field.key).collect();
    if let (false, Some(schema)) = (required.is_empty(), schema.as_object_mut()) {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

fn field_schema(field: &Field) -> Value {
    let mut schema = kind_schema(&field.kind);
    let Some(object) = schema.as_object_mut() else {
        return schema;
    };
    let mut description = meaning(field).replace("<br>", "\n");
    match field.presence {
        Presence::Default(text) => {
            description.push_str(&format!("\nDefault: {text} ({}).", prose(field.reason)));
            object.insert("default".to_owned(), default_value(&field.kind, text));
        }
        Presence::Optional(meaning) if !meaning.is_empty() => {
            description.push_str(&format!("\nAbsent: {}.", prose(meaning)));
        }
        _ => {}
    }
    object.insert("description".to_owned(), description.into());
    schema
}

/// A default as JSON would have it.
fn default_value(kind: &Kind, text: &str) -> Value {
    let number = kind.alternatives().iter().any(|kind| {
        matches!(
            kind,
            Kind::Integer(..) | Kind::PowerOfTwo(..) | Kind::Among(_)
        )
    });
    match (text, text.parse::<u64>()) {
        (_, Ok(value)) if number => value.into(),
        ("true" | "false", _) => (text == "true").into(),
        ("\"\"", _) => "".into(),
        _ => match text
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'))
        {
            Some(inner) => inner
                .split(", ")
                .map(Value::from)
                .collect::<Vec<_>>()
                .into(),
            None => text.into(),
        },
    }
}

fn kind_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Integer(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Among(numbers) => json!({ "enum": numbers }),
        Kind::PowerOfTwo(min, max) => {
            let powers: Vec<u64> = (0..63)
                .map(|bit| 1 << bit)
                .filter(|n| min <= n && n <= max)
                .collect();
            json!({ "enum": powers })
        }
        Kind::Duration(..) => {
            json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?(us|ms|s|m|h)$" })
        }
        Kind::Size(..) => {
            json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?(B|KiB|MiB|GiB|TiB)$" })
        }
        Kind::Share(..) => json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,2})? ?%$" }),
        Kind::Word(words) => {
            json!({ "enum": words.iter().map(|(word, _)| word).collect::<Vec<_>>() })
        }
        Kind::Planned(_) => json!(false),
        Kind::Off => json!({ "const": "off" }),
        // YAML reads a bare `1` as a number where text is meant; so does the configuration.
        Kind::Text(_, max) => json!({ "type": ["string", "number", "boolean"], "maxLength": max }),
        Kind::Section(section) => {
            json!({ "$ref": format!("#/$defs/{}", definition_name(section)) })
        }
        Kind::Map(_, value, max) => json!({
            "type": "object", "additionalProperties": kind_schema(value), "maxProperties": max,
        }),
        Kind::List(item, max) => {
            json!({ "type": "array", "items": kind_schema(item), "maxItems": max })
        }
        Kind::Any(kinds) => {
            let kinds = kinds
                .iter()
                .filter(|kind| !matches!(kind, Kind::Planned(_)));
            let mut kinds: Vec<Value> = kinds.map(kind_schema).collect();
            match (kinds.len(), kinds.pop()) {
                (1, Some(only)) => only,
                (_, last) => json!({ "anyOf": kinds.into_iter().chain(last).collect::<Vec<_>>() }),
            }
        }
    }
}
