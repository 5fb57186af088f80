//! Between the messages of a stream and the words of the state machine.

use futures_lite::{Stream, stream};
use tokio::sync::mpsc;

use super::{Ended, Node};
use crate::{
    pb::{MetadataValue, Request as GrpcRequest, discovery as pb},
    resources::RawResponse,
    response::of_wrapper,
    subscription::{Request, Wanted},
};

/// What servers may count on: resources may have an end, and be wrapped to say so.
pub(super) const FEATURES: [&str; 2] = [
    "xds.config.supports-resource-ttl",
    "xds.config.supports-resource-in-sotw",
];

/// The requests of a stream in the words of its variant. The first one says who asks.
pub(super) fn said<M>(
    taken: mpsc::Receiver<Request>,
    node: pb::Node,
    put: fn(Request, Option<pb::Node>) -> M,
) -> impl Stream<Item = M> {
    stream::unfold(
        (taken, Some(node)),
        move |(mut taken, mut node)| async move {
            let request = taken.recv().await?;
            Some((put(request, node.take()), (taken, node)))
        },
    )
}

pub(super) fn with_token<S>(requests: S, token: Option<&str>) -> Result<GrpcRequest<S>, Ended> {
    let mut request = GrpcRequest::new(requests);
    if let Some(token) = token {
        let bearer = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Ended::Lost("the token has characters that cannot be sent".into()))?;
        request.metadata_mut().insert("authorization", bearer);
    }
    Ok(request)
}

pub(super) fn node(node: &Node) -> pb::Node {
    pb::Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        locality: Some(pb::Locality {
            zone: node.zone.clone(),
        }),
        user_agent_name: "tidegate".into(),
        user_agent_version: env!("CARGO_PKG_VERSION").into(),
        client_features: FEATURES.map(Into::into).into(),
    }
}

/// A NACK is known by this. `INVALID_ARGUMENT`, as Envoy's are.
fn error_detail(error: String) -> pb::Status {
    pb::Status {
        code: 3,
        message: error,
    }
}

pub(super) fn world_request(request: Request, node: Option<pb::Node>) -> pb::DiscoveryRequest {
    let (version_info, resource_names) = match request.wanted {
        Wanted::Names { version, names } => (version, names),
        Wanted::Changes { .. } => unreachable!("a stream speaks the variant of its subscriptions"),
    };
    pb::DiscoveryRequest {
        version_info,
        node,
        resource_names,
        type_url: request.resource_type.url().into(),
        response_nonce: request.nonce,
        error_detail: request.error.map(error_detail),
    }
}

pub(super) fn delta_request(request: Request, node: Option<pb::Node>) -> pb::DeltaDiscoveryRequest {
    let (subscribe, unsubscribe, versions) = match request.wanted {
        Wanted::Changes {
            subscribe,
            unsubscribe,
            versions,
        } => (subscribe, unsubscribe, versions),
        Wanted::Names { .. } => unreachable!("a stream speaks the variant of its subscriptions"),
    };
    pb::DeltaDiscoveryRequest {
        node,
        type_url: request.resource_type.url().into(),
        resource_names_subscribe: subscribe,
        resource_names_unsubscribe: unsubscribe,
        initial_resource_versions: versions.into_iter().collect(),
        response_nonce: request.nonce,
        error_detail: request.error.map(error_detail),
    }
}

pub(super) fn delta_response(response: pb::DeltaDiscoveryResponse) -> RawResponse {
    RawResponse {
        type_url: response.type_url,
        version: String::new(),
        nonce: response.nonce,
        resources: response.resources.into_iter().map(of_wrapper).collect(),
        removed: response.removed_resources,
    }
}
