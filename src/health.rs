//! Active health checks (H14): one task an endpoint opens a connection, or asks for a page, and reports
//! what it found. What a series of results means is decided by `tidegate_core::coordinator`.
//!
//! Checks run on the coordinator, once for all shards: an endpoint is not asked more often because the
//! proxy has more cores. Where a link would be encrypted the check is, with the same certificates: what a new
//! link would meet is what it tests.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tidegate_codecs::{
    grpc::{self, Malformed, health::Health},
    http2::RequestLine,
};
use tidegate_core::{
    config::model::{HealthCheck, Probe, UpstreamProtocol},
    encryption::rollout::{self, LinkKind},
    message::TlsContexts,
    snapshot::Snapshot,
};
use tidegate_shard::tls::ProbeSession;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::chance;

mod http2;

/// Bytes read of an answer: the status line is in the first few; the rest is not looked at.
const ANSWER_BYTES_MAX: usize = 256;

/// Who asks.
const USER_AGENT: (&str, &str) = ("user-agent", "tidegate-health");

/// Bytes received at once: a TLS flight with a certificate chain comes in a few.
const RECEIVED_BYTES: usize = 1024;

/// An endpoint under a check: cluster and address. Outlives snapshots, unlike ids.
pub(crate) type Checked = (Arc<str>, SocketAddr);

/// What one probe found.
#[derive(Debug)]
pub(crate) struct Probed {
    /// Which endpoint.
    pub(crate) endpoint: Checked,
    /// Nothing wrong, or what, in words.
    pub(crate) result: Result<(), String>,
}

/// The running checks.
pub(crate) struct Checker {
    reports: flume::Sender<Probed>,
    tasks: BTreeMap<Checked, (Plan, JoinHandle<()>)>,
    /// What checks encrypt with; they take it at each connection.
    contexts: watch::Sender<Option<TlsContexts>>,
}

/// How an endpoint is checked.
#[derive(Clone, PartialEq)]
struct Plan {
    check: HealthCheck,
    link: LinkKind,
    protocol: UpstreamProtocol,
}

impl Checker {
    /// Results go to `reports`.
    pub(crate) fn new(reports: flume::Sender<Probed>) -> Self {
        Checker {
            reports,
            tasks: BTreeMap::new(),
            contexts: watch::Sender::new(None),
        }
    }

    /// Encrypts with `contexts` from the next probe on.
    pub(crate) fn encrypt_with(&mut self, contexts: TlsContexts) {
        self.contexts.send_replace(Some(contexts));
    }

    /// Checks the endpoints of `snapshot` whose cluster has a health check, and no others, from now on.
    /// Checks that stay the same go on undisturbed.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        let wanted = plans(snapshot);
        self.tasks.retain(|endpoint, (plan, task)| {
            let stays = wanted.get(endpoint) == Some(plan);
            if !stays {
                task.abort();
            }
            stays
        });
        for (endpoint, plan) in wanted {
            if self.tasks.contains_key(&endpoint) {
                continue;
            }
            let task = tokio::spawn(probe_forever(
                endpoint.clone(),
                plan.clone(),
                self.contexts.subscribe(),
                self.reports.clone(),
            ));
            self.tasks.insert(endpoint, (plan, task));
        }
    }

    /// One probe of an endpoint, out of turn: as its cluster checks it, the first that does. `None` where nobody
    /// checks it.
    pub(crate) fn probe_once(
        &self,
        address: SocketAddr,
    ) -> Option<impl Future<Output = Result<(), String>> + use<>> {
        let mut checks = self.tasks.iter();
        let (endpoint, (plan, _)) = checks.find(|((_, checked), _)| *checked == address)?;
        let (endpoint, plan) = (endpoint.clone(), plan.clone());
        let contexts = self.contexts.subscribe();
        Some(async move {
            let session = session(&endpoint, plan.link, &contexts)?;
            probe(address, session, &plan.check, plan.protocol).await
        })
    }

    /// Whether an endpoint is under a check.
    pub(crate) fn checks(&self, endpoint: &Checked) -> bool {
        self.tasks.contains_key(endpoint)
    }
}

fn plans(snapshot: &Snapshot) -> BTreeMap<Checked, Plan> {
    let node_id = &snapshot.config.node.id;
    let mut plans = BTreeMap::new();
    for cluster in &snapshot.clusters {
        let Some(check) = &cluster.config.health else {
            continue;
        };
        for endpoint in &cluster.endpoints {
            let link = match &cluster.config.tls {
                None => LinkKind::Plaintext,
                Some(tls) => rollout::wanted(
                    tls,
                    node_id,
                    endpoint.address,
                    &endpoint.zone,
                    &endpoint.labels,
                    &endpoint.capability,
                ),
            };
            let plan = Plan {
                check: check.clone(),
                link,
                protocol: cluster.config.protocol,
            };
            plans.insert((cluster.name.clone(), endpoint.address), plan);
        }
    }
    plans
}

async fn probe_forever(
    endpoint: Checked,
    plan: Plan,
    contexts: watch::Receiver<Option<TlsContexts>>,
    reports: flume::Sender<Probed>,
) {
    loop {
        let session = session(&endpoint, plan.link, &contexts);
        let result = match session {
            Ok(session) => probe(endpoint.1, session, &plan.check, plan.protocol).await,
            Err(error) => Err(error),
        };
        let probed = Probed {
            endpoint: endpoint.clone(),
            result,
        };
        if reports.send_async(probed).await.is_err() {
            return;
        }
        sleep(jittered(plan.check.interval, chance::random())).await;
    }
}

/// The TLS side of the next probe, if it is to be encrypted. A missing secret fails the probe.
fn session(
    (cluster, address): &Checked,
    link: LinkKind,
    contexts: &watch::Receiver<Option<TlsContexts>>,
) -> Result<Option<ProbeSession>, String> {
    if link == LinkKind::Plaintext {
        return Ok(None);
    }
    let contexts = contexts.borrow();
    let contexts = contexts.as_ref().ok_or("no secret is loaded yet")?;
    ProbeSession::new(contexts, cluster, *address).map(Some)
}

/// `interval` less or more up to a tenth, so that proxies started together do not probe together.
fn jittered(interval: Duration, random: u64) -> Duration {
    let share = (random >> 32) as f64 / f64::from(u32::MAX);
    interval.mul_f64(0.9 + 0.2 * share)
}

/// One probe.
pub(crate) async fn probe(
    address: SocketAddr,
    session: Option<ProbeSession>,
    check: &HealthCheck,
    protocol: UpstreamProtocol,
) -> Result<(), String> {
    let patience = check.timeout;
    let attempt = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| format!("connect: {e}"))?;
        let mut connection = Connection { stream, session };
        connection.shake_hands().await?;
        match &check.probe {
            Probe::Tcp => Ok(()),
            Probe::Http { path, host, expect } => {
                let host = authority(host.as_deref(), address);
                let status = match protocol {
                    UpstreamProtocol::Http1 => status_of(connection, path, &host).await?,
                    UpstreamProtocol::Http2 => get(connection, path, &host).await?.status,
                };
                match expect
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&status))
                {
                    true => Ok(()),
                    false => Err(format!("status {status}")),
                }
            }
            Probe::Grpc { service, host } => {
                call(connection, service, &authority(host.as_deref(), address)).await
            }
        }
    };
    timeout(patience, attempt)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {patience:?}")))
}

/// A connection to an endpoint, encrypted or not.
struct Connection {
    stream: TcpStream,
    session: Option<ProbeSession>,
}

impl Connection {
    /// The TLS handshake, where there is one.
    async fn shake_hands(&mut self) -> Result<(), String> {
        while self
            .session
            .as_ref()
            .is_some_and(ProbeSession::is_handshaking)
        {
            self.flush().await?;
            let mut early = Vec::new();
            match self.receive(&mut early).await {
                Ok(false) => return Err("TLS handshake: closed by the endpoint".into()),
                Ok(true) => {}
                Err(error) => {
                    // The alert tells the endpoint why, as far as it still listens.
                    let _ = self.flush().await;
                    return Err(format!("TLS handshake: {error}"));
                }
            }
        }
        self.flush().await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.session {
            Some(session) => session.send(bytes),
            None => {
                let sent = self.stream.write_all(bytes).await;
                sent.map_err(|e| format!("send: {e}"))?;
            }
        }
        self.flush().await
    }

    /// Sends what TLS holds back.
    async fn flush(&mut self) -> Result<(), String> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        let outgoing = session.outgoing();
        let sent = self.stream.write_all(&outgoing).await;
        sent.map_err(|e| format!("send: {e}"))
    }

    /// Adds what comes next to `plaintext`; `false` at the end.
    async fn receive(&mut self, plaintext: &mut Vec<u8>) -> Result<bool, String> {
        let mut bytes = [0; RECEIVED_BYTES];
        let received = self.stream.read(&mut bytes).await;
        let received = received.map_err(|e| format!("receive: {e}"))?;
        let bytes = bytes.get(..received).unwrap_or_default();
        match &mut self.session {
            Some(session) => session.received(bytes, plaintext)?,
            None => plaintext.extend_from_slice(bytes),
        }
        Ok(received > 0)
    }
}

fn authority(host: Option<&str>, address: SocketAddr) -> String {
    host.map_or_else(|| address.to_string(), str::to_owned)
}

/// Asks for `path` in HTTP/2.
async fn get(connection: Connection, path: &str, host: &str) -> Result<http2::Answer, String> {
    let line = line(&connection, b"GET", path, host);
    http2::ask(connection, line, &[USER_AGENT], b"").await
}

/// Calls gRPC's health service.
async fn call(connection: Connection, service: &str, host: &str) -> Result<(), String> {
    let line = line(&connection, b"POST", grpc::health::PATH, host);
    let [content_type, te] = grpc::REQUEST_FIELDS;
    let fields = [content_type, te, USER_AGENT];
    let question = grpc::health::question(service);
    let answer = http2::ask(connection, line, &fields, &question).await?;
    match (answer.status, answer.grpc_status) {
        (200, Some(grpc::Status::OK)) => {}
        (200, Some(status)) => return Err(format!("grpc-status {}", status.name())),
        (200, None) => return Err("not a gRPC answer".into()),
        (status, _) => return Err(format!("status {status}")),
    }
    match Health::decode(&answer.body) {
        Ok(Health::Serving) => Ok(()),
        Ok(Health::NotServing) => Err("NOT_SERVING".into()),
        Ok(Health::Unknown) => Err("UNKNOWN".into()),
        Err(Malformed) => Err("not an answer of grpc.health.v1".into()),
    }
}

fn line<'a>(
    connection: &Connection,
    method: &'static [u8],
    path: &'a str,
    host: &'a str,
) -> RequestLine<'a> {
    RequestLine {
        method,
        scheme: match connection.session {
            None => b"http",
            Some(_) => b"https",
        },
        authority: host.as_bytes(),
        path: path.as_bytes(),
        protocol: None,
    }
}

/// Asks for `path` and reads the status line. The rest of the answer is not waited for.
async fn status_of(mut connection: Connection, path: &str, host: &str) -> Result<u16, String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {}\r\nConnection: close\r\n\r\n",
        USER_AGENT.1
    );
    connection.send(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        if !connection.receive(&mut answer).await? {
            return Err("closed before a status line".into());
        }
    }
    status_line(&answer).ok_or_else(|| "not an HTTP/1 answer".into())
}

/// The status of `HTTP/1.x NNN …` (RFC 9112, section 4).
fn status_line(bytes: &[u8]) -> Option<u16> {
    let rest = bytes.strip_prefix(b"HTTP/1.")?;
    let (minor, rest) = rest.split_first()?;
    let rest = rest.strip_prefix(b" ")?;
    let (digits, after) = rest.split_at_checked(3)?;
    let ends = after
        .first()
        .is_none_or(|b| matches!(b, b' ' | b'\r' | b'\n'));
    if !minor.is_ascii_digit() || !ends || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn check(probe: Probe, timeout: Duration) -> HealthCheck {
        HealthCheck {
            probe,
            interval: PATIENCE,
            timeout,
            healthy_after: 1,
            unhealthy_after: 1,
        }
    }

    fn http(timeout: Duration) -> HealthCheck {
        let probe = Probe::Http {
            path: "/health".into(),
            host: None,
            expect: vec![(200, 299), (404, 404)],
        };
        check(probe, timeout)
    }

    async fn in_http1(address: SocketAddr, check: HealthCheck) -> Result<(), String> {
        probe(address, None, &check, UpstreamProtocol::Http1).await
    }

    /// An endpoint that answers one connection with `answer`, then closes.
    async fn endpoint(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
        });
        address
    }

    /// Goal: an HTTP check passes on an expected status only (H14). Method: endpoints with fixed answers.
    #[tokio::test]
    async fn http_probe_judges_the_status() {
        for (answer, expected) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], Ok(())),
            (b"HTTP/1.0 404 Not Found\r\n\r\n", Ok(())),
            (b"HTTP/1.1 503\r\n\r\n", Err("status 503")),
            (b"HTTP/1.1 2000 OK\r\n\r\n", Err("not an HTTP/1 answer")),
            (b"SSH-2.0-OpenSSH\r\n", Err("not an HTTP/1 answer")),
            (b"", Err("closed before a status line")),
        ] {
            let found = in_http1(endpoint(answer).await, http(PATIENCE)).await;
            assert_eq!(found, expected.map_err(str::to_owned));
        }
    }

    /// Goal: an endless first line does not grow memory. Method: more than the bound without a line feed.
    #[tokio::test]
    async fn endless_answer_is_cut() {
        let found = in_http1(endpoint(&[b'x'; 4096]).await, http(PATIENCE)).await;
        assert_eq!(found, Err("not an HTTP/1 answer".into()));
    }

    /// Goal: a silent endpoint fails in time, a closed port at once. Method: a listener that never
    /// accepts, with a short patience; a port that was just closed.
    #[tokio::test]
    async fn silence_and_refusal_fail() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(in_http1(address, check(Probe::Tcp, PATIENCE)).await, Ok(()));
        let silent = in_http1(address, http(Duration::from_millis(20))).await;
        assert!(silent.unwrap_err().starts_with("no answer"));
        drop(listener);
        let refused = in_http1(address, check(Probe::Tcp, PATIENCE)).await;
        assert!(refused.unwrap_err().starts_with("connect"));
    }

    /// Goal: jitter stays within a tenth. Method: both ends of the random numbers.
    #[test]
    fn jitter_is_bounded() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, 0), Duration::from_millis(900));
        assert_eq!(jittered(second, u64::MAX), Duration::from_millis(1100));
    }
}
