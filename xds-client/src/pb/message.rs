//! Messages of the Envoy API as plain values with names: what is set, in the order of the field numbers, and
//! nothing else.
//!
//! Resources are read by descriptors (`envoy.binpb`, made by `protos/envoy/descriptors.py`) and not by generated
//! structs, for two reasons. A struct says nothing of a field that it does not have, and drops one that is unknown:
//! what a proxy does not support could then only be ignored, not refused by name. And the structs of the whole API
//! take half a minute to compile, and many megabytes of program; the descriptors are 137 KiB of data, looked at when
//! the first resource comes.

use std::sync::LazyLock;

use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MapKey, MessageDescriptor,
    ReflectMessage, Value as Dynamic,
};

/// Messages inside of `Any` inside of messages: a listener has four such steps at most. Within one step the
/// decoder has its own bound.
const ANY_DEPTH_MAX: usize = 8;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let descriptors: &[u8] = include_bytes!("envoy.binpb");
    // Compiled in, and read by the tests; nothing can be done about it here.
    DescriptorPool::decode(descriptors).unwrap_or_default()
});

/// A message: its type, and its fields that are set.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Message {
    /// `envoy.config.cluster.v3.Cluster`
    pub(crate) kind: String,
    /// By name, in the order of their numbers.
    pub(crate) fields: Vec<(String, Value)>,
    /// Numbers of fields that the descriptors do not know: a newer API.
    pub(crate) unknown: Vec<u32>,
}

/// The value of a field. Wrapped scalars (`UInt32Value` and the like) stand for what they hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Flag(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// The name of an enum's value, or its number if that is not known.
    Word(String),
    /// Seconds and nanoseconds.
    Duration(i64, i32),
    Message(Message),
    List(Vec<Value>),
    /// By key, ascending.
    Map(Vec<(String, Value)>),
    /// An `Any` of a type that the descriptors do not know.
    Opaque(String),
}

/// The name of a type in its URL.
pub(crate) fn type_name(url: &str) -> &str {
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}

/// Decodes a message of the type that `url` names.
///
/// # Errors
///
/// The type is not known, or the bytes are no such message.
pub(crate) fn decode(url: &str, bytes: &[u8]) -> Result<Message, String> {
    let name = type_name(url);
    let descriptor = POOL.get_message_by_name(name);
    let descriptor = descriptor.ok_or_else(|| format!("the type {name} is not known"))?;
    let message = DynamicMessage::decode(descriptor, bytes).map_err(|e| e.to_string())?;
    read(&message, ANY_DEPTH_MAX)
}

/// A message in JSON, with `@type`, as its type's URL and its bytes.
///
/// # Errors
///
/// It is no message of a type that is known.
pub(crate) fn from_json(json: &serde_json::Value) -> Result<(String, Vec<u8>), String> {
    let any = POOL.get_message_by_name("google.protobuf.Any");
    let any = any.ok_or("no descriptors")?;
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let any =
        DynamicMessage::deserialize_with_options(any, json, &options).map_err(|e| e.to_string())?;
    let url = any.get_field_by_name("type_url");
    let url = url
        .as_ref()
        .and_then(|url| url.as_str())
        .unwrap_or_default();
    let value = any.get_field_by_name("value");
    let value = value.as_ref().and_then(|value| value.as_bytes());
    Ok((
        url.to_owned(),
        value.map(|v| v.to_vec()).unwrap_or_default(),
    ))
}

/// Every field of a type by its number, with the type of what it holds if that is a message.
pub(crate) fn fields_of(kind: &str) -> Vec<(String, Option<String>)> {
    let Some(descriptor) = POOL.get_message_by_name(kind) else {
        return Vec::new();
    };
    let holds = |kind: Kind| match kind {
        Kind::Message(message) if message.is_map_entry() => {
            match message.map_entry_value_field().kind() {
                Kind::Message(value) => Some(value.full_name().to_owned()),
                _ => None,
            }
        }
        Kind::Message(message) => Some(message.full_name().to_owned()),
        _ => None,
    };
    let fields = descriptor.fields();
    fields
        .map(|field| (field.name().to_owned(), holds(field.kind())))
        .collect()
}

fn read(message: &DynamicMessage, depth: usize) -> Result<Message, String> {
    let mut fields = Vec::new();
    for (field, value) in message.fields() {
        let name = field.name();
        let value = read_value(value, &field.kind(), depth).map_err(|why| within(name, &why))?;
        fields.push((name.to_owned(), value));
    }
    Ok(Message {
        kind: message.descriptor().full_name().to_owned(),
        fields,
        unknown: message
            .unknown_fields()
            .map(|field| field.number())
            .collect(),
    })
}

fn within(field: &str, why: &str) -> String {
    format!("{field}: {why}")
}

fn read_value(value: &Dynamic, kind: &Kind, depth: usize) -> Result<Value, String> {
    Ok(match value {
        Dynamic::Bool(flag) => Value::Flag(*flag),
        Dynamic::I32(number) => Value::Integer((*number).into()),
        Dynamic::I64(number) => Value::Integer((*number).into()),
        Dynamic::U32(number) => Value::Integer((*number).into()),
        Dynamic::U64(number) => Value::Integer((*number).into()),
        Dynamic::F32(number) => Value::Float((*number).into()),
        Dynamic::F64(number) => Value::Float(*number),
        Dynamic::String(text) => Value::Text(text.clone()),
        Dynamic::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
        Dynamic::EnumNumber(number) => Value::Word(word(*number, kind)),
        Dynamic::Message(message) => return read_message(message, depth),
        Dynamic::List(items) => {
            let items = items.iter().map(|item| read_value(item, kind, depth));
            Value::List(items.collect::<Result<_, _>>()?)
        }
        Dynamic::Map(entries) => {
            let held = match kind {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other.clone(),
            };
            let mut read = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                read.push((key_text(key), read_value(value, &held, depth)?));
            }
            read.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Map(read)
        }
    })
}

fn word(number: i32, kind: &Kind) -> String {
    let name = match kind {
        Kind::Enum(kind) => kind.get_value(number).map(|value| value.name().to_owned()),
        _ => None,
    };
    name.unwrap_or_else(|| number.to_string())
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

/// A message that is a field: the well-known types stand for what they mean.
fn read_message(message: &DynamicMessage, depth: usize) -> Result<Value, String> {
    let field = |number| message.get_field_by_number(number);
    let descriptor = message.descriptor();
    let name = descriptor.full_name();
    match name {
        "google.protobuf.Duration" => {
            let seconds = field(1).and_then(|value| value.as_i64()).unwrap_or(0);
            let nanos = field(2).and_then(|value| value.as_i32()).unwrap_or(0);
            Ok(Value::Duration(seconds, nanos))
        }
        "google.protobuf.Any" => read_any(message, depth),
        _ if is_wrapper(&descriptor) => {
            let held = field(1).ok_or("an empty wrapper")?;
            read_value(&held, &Kind::Bool, depth)
        }
        _ => read(message, depth).map(Value::Message),
    }
}

fn is_wrapper(descriptor: &MessageDescriptor) -> bool {
    descriptor.package_name() == "google.protobuf"
        && descriptor.name().ends_with("Value")
        && descriptor.name() != "Value"
        && descriptor.name() != "ListValue"
}

fn read_any(any: &DynamicMessage, depth: usize) -> Result<Value, String> {
    let url = any.get_field_by_number(1);
    let url = url
        .as_ref()
        .and_then(|url| url.as_str())
        .unwrap_or_default();
    let Some(descriptor) = POOL.get_message_by_name(type_name(url)) else {
        return Ok(Value::Opaque(type_name(url).to_owned()));
    };
    let depth = depth.checked_sub(1).ok_or("messages nested too deep")?;
    let value = any.get_field_by_number(2);
    let bytes = value.as_ref().and_then(|value| value.as_bytes());
    let bytes = bytes.cloned().unwrap_or_default();
    let message = DynamicMessage::decode(descriptor, bytes).map_err(|e| e.to_string())?;
    read(&message, depth).map(Value::Message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// Goal: what is set is found by name, wrappers and durations as what they mean, enums by their names, and an
    /// `Any` as the message it holds. Method: a cluster, from JSON.
    #[test]
    fn fields_go_by_names() {
        let (url, bytes) = from_json(&json!({
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "name": "a",
            "type": "STRICT_DNS",
            "connect_timeout": "0.25s",
            "per_connection_buffer_limit_bytes": 7,
            "transport_socket": { "name": "raw", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" } },
        }))
        .unwrap();
        let message = decode(&url, &bytes).unwrap();
        let field = |name: &str| {
            message
                .fields
                .iter()
                .find(|(field, _)| field == name)
                .unwrap()
                .1
                .clone()
        };
        assert_eq!(message.kind, "envoy.config.cluster.v3.Cluster");
        assert_eq!(field("type"), Value::Word("STRICT_DNS".into()));
        assert_eq!(field("connect_timeout"), Value::Duration(0, 250_000_000));
        assert_eq!(
            field("per_connection_buffer_limit_bytes"),
            Value::Integer(7)
        );
        let Value::Message(socket) = field("transport_socket") else {
            unreachable!()
        };
        let Some((_, Value::Message(held))) = socket.fields.get(1) else {
            unreachable!()
        };
        assert_eq!(
            held.kind,
            "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
        );
    }

    /// Goal: what is not known is told, not lost. Method: a field of a newer API, an `Any` of another's type, bytes
    /// that are no message, and a type that does not exist.
    #[test]
    fn what_is_unknown_is_told() {
        let url = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
        // Field 1000, varint 1; field 2, a message whose field 1 is "x".
        let message = decode(url, &[0xc0, 0x3e, 1, 0x12, 3, 0x0a, 1, b'x']).unwrap();
        assert_eq!(message.unknown, [1000]);
        assert_eq!(
            message.fields,
            [("typed_config".into(), Value::Opaque("x".into()))]
        );
        assert!(decode(url, &[0x12, 9]).is_err());
        assert!(decode("type.googleapis.com/no.such.Type", &[]).is_err());
    }
}
