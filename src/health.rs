//! Active health checks (H14): one task an endpoint opens a connection, or asks for a page, and reports
//! what it found. What a series of results means is decided by `tidegate_core::coordinator`.
//!
//! Checks run on the coordinator, once for all shards: an endpoint is not asked more often because the
//! proxy has more cores.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tidegate_core::{
    config::model::{HealthCheck, Probe},
    snapshot::Snapshot,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Bytes read of an answer: the status line is in the first few; the rest is not looked at.
const ANSWER_BYTES_MAX: usize = 256;

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
    tasks: BTreeMap<Checked, (HealthCheck, JoinHandle<()>)>,
}

impl Checker {
    /// Results go to `reports`.
    pub(crate) fn new(reports: flume::Sender<Probed>) -> Self {
        Checker {
            reports,
            tasks: BTreeMap::new(),
        }
    }

    /// Checks the endpoints of `snapshot` whose cluster has a health check, and no others, from now on.
    /// Checks that stay the same go on undisturbed.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        let wanted = checks(snapshot);
        self.tasks.retain(|endpoint, (check, task)| {
            let stays = wanted.get(endpoint) == Some(check);
            if !stays {
                task.abort();
            }
            stays
        });
        for (endpoint, check) in wanted {
            if self.tasks.contains_key(&endpoint) {
                continue;
            }
            let task = tokio::spawn(probe_forever(
                endpoint.clone(),
                check.clone(),
                self.reports.clone(),
            ));
            self.tasks.insert(endpoint, (check, task));
        }
    }

    /// Whether an endpoint is under a check.
    pub(crate) fn checks(&self, endpoint: &Checked) -> bool {
        self.tasks.contains_key(endpoint)
    }
}

fn checks(snapshot: &Snapshot) -> BTreeMap<Checked, HealthCheck> {
    let mut checks = BTreeMap::new();
    for cluster in &snapshot.clusters {
        let Some(check) = &cluster.config.health else {
            continue;
        };
        for endpoint in &cluster.endpoints {
            checks.insert((cluster.name.clone(), endpoint.address), check.clone());
        }
    }
    checks
}

async fn probe_forever(endpoint: Checked, check: HealthCheck, reports: flume::Sender<Probed>) {
    let chance = RandomState::new();
    for round in 0u64.. {
        let result = probe(endpoint.1, &check.probe, check.timeout).await;
        let probed = Probed {
            endpoint: endpoint.clone(),
            result,
        };
        if reports.send_async(probed).await.is_err() {
            return;
        }
        sleep(jittered(check.interval, chance.hash_one(round))).await;
    }
}

/// `interval` less or more up to a tenth, so that proxies started together do not probe together.
fn jittered(interval: Duration, random: u64) -> Duration {
    let share = (random >> 32) as f64 / f64::from(u32::MAX);
    interval.mul_f64(0.9 + 0.2 * share)
}

/// One probe.
pub(crate) async fn probe(
    address: SocketAddr,
    probe: &Probe,
    patience: Duration,
) -> Result<(), String> {
    let attempt = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| format!("connect: {e}"))?;
        match probe {
            Probe::Tcp => Ok(()),
            Probe::Http { path, host, expect } => {
                let status = status_of(stream, path, host.as_deref(), address).await?;
                if expect
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&status))
                {
                    Ok(())
                } else {
                    Err(format!("status {status}"))
                }
            }
        }
    };
    timeout(patience, attempt)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {patience:?}")))
}

/// Asks for `path` and returns the status of the answer; its body is not waited for.
async fn status_of(
    mut stream: TcpStream,
    path: &str,
    host: Option<&str>,
    address: SocketAddr,
) -> Result<u16, String> {
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tidegate-health\r\n\
         Connection: close\r\n\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|e| format!("send: {e}"))?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES_MAX);
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Err("closed before a status line".into()),
            Ok(_) => {}
            Err(e) => return Err(format!("receive: {e}")),
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

    fn http() -> Probe {
        Probe::Http {
            path: "/health".into(),
            host: None,
            expect: vec![(200, 299), (404, 404)],
        }
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
            let found = probe(endpoint(answer).await, &http(), PATIENCE).await;
            assert_eq!(found, expected.map_err(str::to_owned));
        }
    }

    /// Goal: an endless first line does not grow memory. Method: more than the bound without a line feed.
    #[tokio::test]
    async fn endless_answer_is_cut() {
        let found = probe(endpoint(&[b'x'; 4096]).await, &http(), PATIENCE).await;
        assert_eq!(found, Err("not an HTTP/1 answer".into()));
    }

    /// Goal: a silent endpoint fails in time, a closed port at once. Method: a listener that never
    /// accepts, with a short patience; a port that was just closed.
    #[tokio::test]
    async fn silence_and_refusal_fail() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(probe(address, &Probe::Tcp, PATIENCE).await, Ok(()));
        let silent = probe(address, &http(), Duration::from_millis(20)).await;
        assert!(silent.unwrap_err().starts_with("no answer"));
        drop(listener);
        let refused = probe(address, &Probe::Tcp, PATIENCE).await;
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
