//! The protos and the gRPC library, under the names that the rest of the crate uses: the only file that
//! knows either. The code below it is generated; `tests/protos_are_current.rs` makes it anew.

#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub(crate) mod discovery;
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub(crate) mod etcd;
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub(crate) mod healing;
pub(crate) mod message;
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub(crate) mod status;

use crate::resources::RawResource;

pub(crate) use tonic::{
    Request, Response, Status, Streaming, async_trait,
    body::Body,
    codegen::{Body as HttpBody, BoxFuture, Service, StdError, http::Uri},
    metadata::MetadataValue,
    transport::{Channel, Endpoint, Error as ConnectError},
};

/// The wrapper of a resource, which the state of the world puts into an `Any`.
pub(crate) fn decode_resource(bytes: &[u8]) -> Result<discovery::Resource, prost::DecodeError> {
    prost::Message::decode(bytes)
}

/// A response of the state of the world.
pub(crate) fn decode_response(
    bytes: &[u8],
) -> Result<discovery::DiscoveryResponse, prost::DecodeError> {
    prost::Message::decode(bytes)
}

/// The bytes of [`decode_response`].
#[cfg(test)]
pub(crate) fn encode_response(response: &discovery::DiscoveryResponse) -> Vec<u8> {
    prost::Message::encode_to_vec(response)
}

/// Resources with their names and versions as one message, and back.
pub(crate) fn encode_kept(resources: Vec<RawResource>) -> Vec<u8> {
    let resources = resources.into_iter().map(|raw| discovery::Resource {
        version: raw.version,
        resource: Some(discovery::Any {
            type_url: raw.type_url,
            value: raw.bytes,
        }),
        name: raw.name,
        ttl: raw
            .ttl
            .map(|(seconds, nanos)| discovery::Duration { seconds, nanos }),
    });
    let message = discovery::DeltaDiscoveryResponse {
        resources: resources.collect(),
        ..Default::default()
    };
    prost::Message::encode_to_vec(&message)
}

/// See [`encode_kept`].
pub(crate) fn decode_kept(bytes: &[u8]) -> Result<Vec<RawResource>, prost::DecodeError> {
    let message: discovery::DeltaDiscoveryResponse = prost::Message::decode(bytes)?;
    let resources = message.resources.into_iter().map(|one| {
        let held = one.resource.unwrap_or_default();
        RawResource {
            name: one.name,
            version: one.version,
            ttl: one.ttl.map(|ttl| (ttl.seconds, ttl.nanos)),
            type_url: held.type_url,
            bytes: held.value,
            ..RawResource::default()
        }
    });
    Ok(resources.collect())
}

/// The wrapper of a resource, put into an `Any`.
#[cfg(test)]
pub(crate) fn wrap(resource: &discovery::Resource) -> discovery::Any {
    discovery::Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
        value: prost::Message::encode_to_vec(resource),
    }
}
