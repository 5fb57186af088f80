//! The healing center, from the proxy's side: what self-healing found is reported, and what the center asks for
//! is done (H4, H5). Whether anybody listens changes nothing here: reports wait, bounded, in the client (H12).

use std::{net::SocketAddr, path::Path, sync::Arc};

use tidegate_core::{
    config::model::{Center, Config, Hook as ConfiguredHook},
    coordinator::Healing,
    healing::{
        directive::Action,
        ejection::{Cause, Event, Evidence, WINDOW},
        report::{Body, DirectiveAck, Finding, Node, OutboxLimits, Outcome, Overload, Subject},
    },
};
use tidegate_xds::healing::{
    client::{Client, Order, Settings, Times},
    lifecycle::{Hook, Lifecycle},
};

use tokio::sync::Semaphore;

use super::Coordinator;
use crate::{
    exit::{Exit, Failure},
    status::{State, Status, unix_ms},
    token,
};

/// Reports, and directives, that may be on their way between the coordinator and the client.
const ON_THE_WAY: usize = 256;

/// Probes for the center at once: it asks three proxies about an endpoint, not one about many.
const PROBES_MAX: usize = 16;

/// The ends of the client that the coordinator holds.
pub(crate) struct Reporting {
    reports: flume::Sender<Body>,
    pub(super) orders: flume::Receiver<Order>,
    /// Keeps `orders` open where nobody is reported to.
    nobody: Option<flume::Sender<Order>>,
    /// The other end, until it begins.
    client: Option<Client>,
    /// Places for probes.
    probes: Arc<Semaphore>,
}

impl Reporting {
    /// Without a center.
    pub(super) fn to_nobody() -> Reporting {
        let (reports, _) = flume::bounded(0);
        let (given, orders) = flume::bounded(0);
        Reporting {
            reports,
            orders,
            nobody: Some(given),
            client: None,
            probes: Arc::new(Semaphore::new(PROBES_MAX)),
        }
    }

    /// To the configured center, if there is one; from [`Self::begin`] on.
    fn prepare(config: &Config, status: &Status) -> Result<Reporting, Failure> {
        let Some(center) = config.center.as_deref() else {
            return Ok(Reporting::to_nobody());
        };
        let (reports, taken) = flume::bounded(ON_THE_WAY);
        let (given, orders) = flume::bounded(ON_THE_WAY);
        let settings = settings(config, center, unix_ms())?;
        let (client, watched) = Client::new(settings, taken, given).map_err(|error| {
            Failure::new(
                Exit::Config,
                format!("center: {error}"),
                "name a center, or remove `center`",
            )
        })?;
        status.live_mut().center = Some(watched);
        Ok(Reporting {
            reports,
            orders,
            nobody: None,
            client: Some(client),
            probes: Arc::new(Semaphore::new(PROBES_MAX)),
        })
    }

    /// Starts the client, if there is one that was not yet. To be called on the coordinator's runtime.
    pub(super) fn begin(&mut self) {
        if let Some(client) = self.client.take() {
            tokio::spawn(client.run());
        }
    }

    fn report(&self, body: Body) {
        // Nobody takes it where there is no center; a client that is behind by so many has a full outbox too.
        if self.nobody.is_none() && self.reports.try_send(body).is_err() {
            tracing::warn!("a report to the healing center was dropped: its client is behind");
        }
    }
}

fn settings(config: &Config, center: &Center, incarnation: u64) -> Result<Settings, Failure> {
    let token = match center.token_file.as_deref() {
        Some(file) => Some(token::read(Path::new(file))?),
        None => None,
    };
    let lifecycle = center.restart.as_ref().map(|restart| Lifecycle {
        hook: match &restart.hook {
            ConfiguredHook::Command(words) => {
                Hook::Command(words.iter().map(|word| (**word).into()).collect())
            }
            ConfiguredHook::Http(address, path) => Hook::Http(*address, (**path).into()),
            ConfiguredHook::Unix(socket, path) => Hook::Unix((**socket).into(), (**path).into()),
        },
        timeout: restart.timeout,
    });
    let node = &config.node;
    Ok(Settings {
        centers: center
            .addresses
            .iter()
            .map(|address| (**address).into())
            .collect(),
        node: Node {
            id: node.id.as_str().into(),
            incarnation,
            application: node.app.as_str().into(),
            fronts: center.fronts.clone(),
            zone: node.zone.as_str().into(),
            calls: config.clusters.keys().map(|name| (**name).into()).collect(),
        },
        token,
        lifecycle,
        outbox: OutboxLimits::default(),
        times: Times::default(),
    })
}

impl Coordinator {
    /// Reports to the configured center, if there is one, as soon as requests are served: not earlier, since the
    /// center takes the newest process of a name for the one that counts.
    ///
    /// # Errors
    ///
    /// A token that cannot be read.
    pub(crate) fn report_to_center(&mut self) -> Result<(), Failure> {
        self.reporting = Reporting::prepare(&self.config, &self.status)?;
        Ok(())
    }

    /// Reports what self-healing found.
    pub(super) fn report(&self, healing: &Healing) {
        let Some(ward) = self.policy.wards().get(&healing.cluster) else {
            return;
        };
        let subject = Subject {
            cluster: (*healing.cluster).into(),
            service: (*healing.cluster).into(),
            endpoint: healing.address,
            unit: "".into(),
        };
        let finding = |reason: Cause, evidence: &Evidence| Finding {
            reason,
            window: WINDOW,
            calls: evidence.own.calls.round() as u64,
            errors: ward
                .failures(healing.event.node())
                .into_iter()
                .map(|(fault, count)| (fault.word().into(), count))
                .collect(),
            local_rate: evidence.own.mean(),
            peer_rate: evidence.peers.mean(),
            group: ward.nodes().count() as u32,
        };
        self.reporting.report(match &healing.event {
            Event::Suspected {
                cause,
                guard,
                evidence,
                ..
            } => Body::Suspect {
                subject,
                finding: finding(*cause, evidence),
                guard: *guard,
            },
            Event::Ejected {
                cause,
                penalty,
                times,
                evidence,
                ..
            } => Body::Ejected {
                subject,
                finding: finding(*cause, evidence),
                enforced: healing.enforced,
                times: *times,
                cool_down: *penalty,
            },
            Event::Probation { .. } => Body::Probation(subject),
            Event::Recovered { .. } => Body::Recovered(subject),
        });
    }

    /// Reports that the application is over its watermark (L12).
    pub(super) fn report_overload(&self, overload: Overload) {
        self.reporting.report(Body::Overload(overload));
    }

    /// Probes an endpoint as its health check does, and reports what came of it.
    ///
    /// # Errors
    ///
    /// Why it is not probed.
    fn probe_for_center(&self, id: u64, endpoint: SocketAddr) -> Result<(), &'static str> {
        // That something listens says nothing about what is wrong with what it answers.
        let probing = self.checker.probe_once(endpoint);
        let probing = probing.ok_or("the endpoint has no health check here")?;
        let place = self.reporting.probes.clone().try_acquire_owned();
        let place = place.map_err(|_| "too many probes at once")?;
        let reports = self.reporting.reports.clone();
        tokio::spawn(async move {
            let (outcome, detail) = match probing.await {
                Ok(()) => (Outcome::ProbeSucceeded, "".into()),
                Err(why) => (Outcome::ProbeFailed, why.into()),
            };
            tracing::info!("healing center: probe_now of {endpoint}: {outcome:?} {detail}");
            // Where there are that many reports on the way, the center asks again.
            let _ = reports.try_send(Body::DirectiveAck(DirectiveAck {
                id,
                outcome,
                detail,
            }));
            drop(place);
        });
        Ok(())
    }

    /// Does what the center asks for, and says what came of it.
    pub(super) fn on_order(&mut self, order: &Order) {
        let action = &order.directive.action;
        let now = self.status.started.elapsed();
        let (outcome, detail) = match action {
            _ if tokio::time::Instant::now() > order.expires => (Outcome::Refused, "it expired"),
            Action::Confirm { .. } | Action::Clear { .. } | Action::Prior { .. } => {
                let lasts = order.expires - tokio::time::Instant::now();
                match (self.policy.obey(action, now, now + lasts), action) {
                    (true, _) => (Outcome::Done, ""),
                    (false, Action::Prior { .. }) => (Outcome::Failed, "no such endpoint here"),
                    (false, _) => (Outcome::Failed, "the endpoint is not ejected here"),
                }
            }
            Action::Drain { .. } if self.status.state() == State::Ready => {
                self.drain(State::Draining);
                (Outcome::Done, "")
            }
            Action::Drain { .. } => (Outcome::Failed, "not while it starts, drains or stops"),
            Action::ProbeNow { endpoint } => {
                match self.probe_for_center(order.directive.id, *endpoint) {
                    // Its outcome is the answer.
                    Ok(()) => return,
                    Err(why) => (Outcome::Refused, why),
                }
            }
            Action::Restart(_) | Action::Offline(_) => (Outcome::Refused, "a hook's business"),
        };
        let word = action.word();
        tracing::info!("healing center: {word} asked for: {outcome:?} {detail}");
        self.reporting.report(Body::DirectiveAck(DirectiveAck {
            id: order.directive.id,
            outcome,
            detail: detail.into(),
        }));
    }
}
