//! Hooks that restart the application that a proxy fronts, or take it off line. What they may be asked is
//! judged before (`tidegate_core::healing::directive`); here it is carried out, within a time.
//!
//! A command gets the order in its environment (`TIDEGATE_ACTION`, `TIDEGATE_APPLICATION`,
//! `TIDEGATE_ENDPOINT`, `TIDEGATE_DIRECTIVE`) and succeeds by its exit status. HTTP, over TCP or a Unix
//! socket, gets it as the JSON body of a POST and succeeds by a 2xx.

use std::{net::SocketAddr, path::PathBuf, pin::pin, process::Stdio, time::Duration};

use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tidegate_core::healing::directive::{Action, Directive, Fronted};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    process::Command,
    time::{Instant, timeout},
};

/// How long a hook may take unless said otherwise: a process that stops in an orderly way needs some
/// seconds, and the center waits a minute for the effect.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How an application is restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A program and its arguments; no shell in between.
    Command(Vec<Box<str>>),
    /// A POST to this path at this address.
    Http(SocketAddr, Box<str>),
    /// A POST to this path over this socket.
    Unix(PathBuf, Box<str>),
}

/// A hook and the time it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// What is run or asked.
    pub hook: Hook,
    /// After which it has failed; a command is killed then.
    pub timeout: Duration,
}

/// Whether an action is one for a hook.
pub(super) fn order_of(directive: &Directive) -> Option<&Fronted> {
    match &directive.action {
        Action::Restart(fronted) | Action::Offline(fronted) => Some(fronted),
        _ => None,
    }
}

impl Lifecycle {
    /// Carries out a directive to restart or to take off line, unless `expires` has passed.
    pub async fn carry_out(&self, directive: &Directive, expires: Instant) -> Result<(), String> {
        let Some(fronted) = order_of(directive) else {
            return Err(format!("{} is not for a hook", directive.action.word()));
        };
        if Instant::now() > expires {
            return Err("it expired before the hook ran".into());
        }
        let run = async {
            match &self.hook {
                Hook::Command(words) => run(words, directive, fronted).await,
                Hook::Http(address, path) => {
                    let connected = TcpStream::connect(address).await;
                    let stream = connected.map_err(|e| format!("{address}: {e}"))?;
                    post(stream, &address.to_string(), path, directive, fronted).await
                }
                Hook::Unix(socket, path) => {
                    let connected = UnixStream::connect(socket).await;
                    let stream = connected.map_err(|e| format!("{}: {e}", socket.display()))?;
                    post(stream, "localhost", path, directive, fronted).await
                }
            }
        };
        match timeout(self.timeout, run).await {
            Ok(done) => done,
            Err(_) => Err(format!("not done within {} s", self.timeout.as_secs_f64())),
        }
    }
}

async fn run(words: &[Box<str>], directive: &Directive, fronted: &Fronted) -> Result<(), String> {
    let [program, arguments @ ..] = words else {
        return Err("an empty command".into());
    };
    let status = Command::new(&**program)
        .args(arguments.iter().map(|word| &**word))
        .env("TIDEGATE_ACTION", directive.action.word())
        .env("TIDEGATE_APPLICATION", &*fronted.application)
        .env("TIDEGATE_ENDPOINT", fronted.endpoint.to_string())
        .env("TIDEGATE_DIRECTIVE", directive.id.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|e| format!("{program}: {e}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {status}")),
    }
}

async fn post<S>(
    stream: S,
    host: &str,
    path: &str,
    directive: &Directive,
    fronted: &Fronted,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let text = |error: &dyn std::fmt::Display| format!("{host}{path}: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| text(&e))?;
    let body = serde_json::json!({
        "action": directive.action.word(),
        "application": fronted.application,
        "endpoint": fronted.endpoint,
        "directive": directive.id.to_string(),
    });
    let request = Request::post(path)
        .header("host", host)
        .header("content-type", "application/json")
        .body(body.to_string())
        .map_err(|e| text(&e))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|e| text(&e))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(text(&status)),
        }
    };
    let mut exchange = pin!(exchange);
    // The connection is driven until the answer is there, and then dropped. It may end in the moment in
    // which the answer arrives.
    tokio::select! {
        done = &mut exchange => done,
        _ = connection => exchange.await,
    }
}
