//! One stream to one server: how it is made, and what is heard on it, by whatever transport.

use std::pin::Pin;

use futures_lite::{Stream, StreamExt};
use tokio::{sync::mpsc, time::timeout};

use super::{
    Client, Ended, Link, MESSAGE_MAX, Rest, Times,
    connection::{connect, dial},
    rest::{self, Asking},
    wire::{delta_request, delta_response, node, said, with_token, world_request},
};
use crate::{
    pb::{
        Channel, Streaming,
        discovery::{
            self as pb,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Ads,
        },
    },
    resources::RawResponse,
    subscription::{Claim, Request, Variant},
};

/// Requests between the state machine and the socket.
const IN_FLIGHT: usize = 16;

/// One stream.
pub(super) struct Session {
    pub(super) outgoing: mpsc::Sender<Request>,
    pub(super) incoming: Incoming,
}

pub(super) enum Incoming {
    Delta(Streaming<pb::DeltaDiscoveryResponse>),
    World(Streaming<pb::DiscoveryResponse>),
    Polled(Pin<Box<dyn Stream<Item = Result<Heard, Ended>> + Send>>),
}

/// What a server says.
pub(super) enum Heard {
    /// These resources.
    Response(RawResponse),
    /// That there is nothing new.
    Nothing,
    /// That it has none of a type, in words.
    Absent(String),
}

impl Incoming {
    /// The next thing that the server says.
    pub(super) async fn next(&mut self) -> Result<Heard, Ended> {
        let response = match self {
            Incoming::Delta(answers) => answers.message().await?.map(delta_response),
            Incoming::World(answers) => answers.message().await?.map(RawResponse::from),
            Incoming::Polled(answers) => {
                return answers.next().await.unwrap_or_else(|| Err(over()));
            }
        };
        response.map(Heard::Response).ok_or_else(over)
    }
}

fn over() -> Ended {
    Ended::Lost("it ended the stream".into())
}

/// Whether a server can be reached.
pub(super) async fn reach(
    server: &str,
    link: &Link,
    times: Times,
    rest: Option<Rest>,
) -> Result<(), Ended> {
    match rest {
        Some(_) => dial(server, link, times, b"http/1.1").await.map(drop),
        None => connect(server, link, times).await.map(drop),
    }
}

impl Client {
    /// Makes a connection and a stream. Some servers say nothing before the first request, so that those are on their
    /// way before anything is waited for.
    pub(super) async fn open(&mut self, server: &str) -> Result<Session, Ended> {
        if let Some(rest) = self.settings.rest {
            return self.open_rest(server, rest).await;
        }
        let times = self.settings.times;
        let link = self.local.borrow().link.clone();
        let channel = tokio::select! {
            channel = connect(server, &link, times) => channel?,
            () = self.parts.closed() => return Err(Ended::Closed),
        };
        let (outgoing, taken) = self.begin();
        let opened = timeout(times.answer, self.call(channel, taken)).await;
        let incoming = opened.map_err(|_| Ended::Lost("no answer".into()))??;
        Ok(Session { outgoing, incoming })
    }

    async fn open_rest(&mut self, server: &str, rest: Rest) -> Result<Session, Ended> {
        let asking = Asking {
            server: server.into(),
            link: self.local.borrow().link.clone(),
            times: self.settings.times,
            rest,
            node: self.settings.node.clone(),
            token: self.settings.token.clone(),
        };
        let sender = tokio::select! {
            sender = rest::connect(&asking) => sender?,
            () = self.parts.closed() => return Err(Ended::Closed),
        };
        let (outgoing, taken) = self.begin();
        let incoming = Incoming::Polled(rest::heard(asking, sender, taken));
        Ok(Session { outgoing, incoming })
    }

    /// The first requests.
    fn begin(&mut self) -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
        let (outgoing, taken) = mpsc::channel(IN_FLIGHT);
        let claim = match self.is_suspect {
            true => Claim::Names,
            false => Claim::Versions,
        };
        self.resources.connected(claim);
        self.send(&outgoing);
        (outgoing, taken)
    }

    async fn call(
        &self,
        channel: Channel,
        taken: mpsc::Receiver<Request>,
    ) -> Result<Incoming, Ended> {
        let mut ads = Ads::new(channel).max_decoding_message_size(MESSAGE_MAX);
        let node = node(&self.settings.node);
        let token = self.settings.token.as_deref();
        Ok(match self.settings.variant {
            Variant::Delta => {
                let requests = with_token(said(taken, node, delta_request), token)?;
                let answers = ads.delta_aggregated_resources(requests).await?;
                Incoming::Delta(answers.into_inner())
            }
            Variant::StateOfTheWorld => {
                let requests = with_token(said(taken, node, world_request), token)?;
                let answers = ads.stream_aggregated_resources(requests).await?;
                Incoming::World(answers.into_inner())
            }
        })
    }
}
