//! The control plane.

use super::{center::servers, *};
use crate::config::model::{Xds, XdsProtocol};

/// Decodes the section.
pub(super) fn xds(fields: &Fields<'_>) -> Xds {
    Xds {
        addresses: servers(fields, &keys::XDS_ADDRESS),
        protocol: match fields.word("protocol") {
            Some("state_of_the_world") => XdsProtocol::StateOfTheWorld,
            _ => XdsProtocol::Delta,
        },
        cluster: fields.text("cluster").map(|text| {
            let plain = syntax::plain_text(&text.text).map(Arc::from);
            checked_opt(fields.report, "cluster", &text, plain).unwrap_or_default()
        }),
        token_file: fields.text("token_file").map(|text| text.text.into()),
        cache: fields.text("cache").map(|text| text.text.into()),
    }
}
