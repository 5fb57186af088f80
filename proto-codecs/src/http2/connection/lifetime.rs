//! Keep-alive, time-outs, the drain, the end.

use core::time::Duration;

use super::{Connection, KeepAlive, Options, Role};
use crate::http2::{
    StreamId,
    error::{ConnectionError, ErrorCode},
    frame,
};

/// Where a connection stands between its beginning and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Streams may be opened.
    Open,
    /// Server: the client was told to open no more, but may not know it yet (RFC 9113, 6.8).
    Notified {
        /// When it must know.
        until_ns: u64,
    },
    /// No more streams; those that there are come to their end.
    Draining,
    /// Nothing more.
    Closed(ConnectionError),
}

/// Whether the peer does what it owes us in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Liveness {
    /// When our settings must have been acknowledged; `None` once they are.
    settings_until_ns: Option<u64>,
    keep_alive: Option<KeepAlive>,
    /// When something last came.
    heard_ns: u64,
    /// When a PING went out after which nothing has come.
    asked_ns: Option<u64>,
    drain_notice: Duration,
}

impl Liveness {
    pub(super) fn new(options: &Options, now_ns: u64) -> Liveness {
        Liveness {
            settings_until_ns: Some(after(now_ns, options.settings_timeout)),
            keep_alive: options.keep_alive,
            heard_ns: now_ns,
            asked_ns: None,
            drain_notice: options.drain_notice,
        }
    }

    /// Whatever it is, the peer is there.
    #[inline]
    pub(super) fn heard(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
        self.asked_ns = None;
    }

    pub(super) fn settings_acknowledged(&self) -> bool {
        self.settings_until_ns.is_none()
    }

    pub(super) fn acknowledge_settings(&mut self) {
        self.settings_until_ns = None;
    }

    /// When the peer is asked next, or given up.
    fn next_ns(&self, keep_alive: KeepAlive) -> u64 {
        match self.asked_ns {
            Some(asked_ns) => after(asked_ns, keep_alive.timeout),
            None => after(self.heard_ns, keep_alive.interval),
        }
    }
}

/// What our PINGs say, so that their answers are told apart.
const PING_ALIVE: [u8; 8] = *b"alive???";
const PING_DRAIN: [u8; 8] = *b"draining";

impl Connection {
    /// When [`on_timeout`](Connection::on_timeout) is to be called, if nothing changes before.
    pub fn next_timeout_ns(&self) -> Option<u64> {
        if self.is_closed() {
            return None;
        }
        let drain = match self.life {
            Life::Notified { until_ns } => Some(until_ns),
            _ => None,
        };
        [self.liveness.settings_until_ns, self.keep_alive_ns(), drain]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due at `now_ns`; it may be called at any time.
    ///
    /// # Errors
    ///
    /// The peer was silent for too long: as for [`receive`](Connection::receive).
    pub fn on_timeout(&mut self, now_ns: u64) -> Result<(), ConnectionError> {
        if let Life::Closed(error) = self.life {
            return Err(error);
        }
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now_ns);
        if is_due(self.liveness.settings_until_ns) {
            return Err(self.fail(ConnectionError::SettingsTimeout));
        }
        if is_due(self.keep_alive_ns()) {
            if self.liveness.asked_ns.is_some() {
                return Err(self.fail(ConnectionError::PingTimeout));
            }
            self.liveness.asked_ns = Some(now_ns);
            frame::push_ping(self.output(), PING_ALIVE);
        }
        if let Life::Notified { until_ns } = self.life
            && until_ns <= now_ns
        {
            self.refuse_streams();
        }
        Ok(())
    }

    /// Without streams nobody waits for the peer, and some servers count such PINGs against us.
    fn keep_alive_ns(&self) -> Option<u64> {
        let keep_alive = self.liveness.keep_alive?;
        (self.streams.open() > 0).then(|| self.liveness.next_ns(keep_alive))
    }

    pub(super) fn on_ping_ack(&mut self, payload: [u8; 8]) {
        if payload == PING_DRAIN && matches!(self.life, Life::Notified { .. }) {
            self.refuse_streams();
        }
    }

    /// Begins to end the connection without hurting a request (RFC 9113, 6.8).
    ///
    /// A server tells the client to open no more streams, and goes on taking those that are under way until
    /// the client must have heard; then it names the last one it takes. A client opens no more. The
    /// connection [is drained](Connection::is_drained) when the last stream has ended.
    pub fn drain(&mut self, now_ns: u64) {
        if self.life != Life::Open {
            return;
        }
        match self.role {
            Role::Client => self.refuse_streams(),
            Role::Server => {
                frame::push_go_away(self.output(), StreamId::MAX, ErrorCode::NO_ERROR);
                frame::push_ping(self.output(), PING_DRAIN);
                self.life = Life::Notified {
                    until_ns: after(now_ns, self.liveness.drain_notice),
                };
            }
        }
    }

    /// Whether a [drain](Connection::drain) is over: the connection can be closed once the output is sent.
    pub fn is_drained(&self) -> bool {
        self.life == Life::Draining && self.streams.is_empty()
    }

    /// Whether the connection was told to end, by us or the peer: a client opens no more streams on it.
    pub fn is_going_away(&self) -> bool {
        self.life != Life::Open || self.peer_last.is_some()
    }

    /// Whether GOAWAY with an error is the last that is said.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.life, Life::Closed(_))
    }

    pub(super) fn refuses_streams(&self) -> bool {
        self.life == Life::Draining
    }

    fn refuse_streams(&mut self) {
        let last = self.last_peer;
        frame::push_go_away(self.output(), last, ErrorCode::NO_ERROR);
        self.life = Life::Draining;
    }

    /// Ends the connection: GOAWAY goes into the output, and nothing more is done. Returns `error`.
    pub(super) fn fail(&mut self, error: ConnectionError) -> ConnectionError {
        if !self.is_closed() {
            let last = self.last_peer;
            frame::push_go_away(&mut self.output, last, error.code());
            self.life = Life::Closed(error);
        }
        error
    }
}

fn after(now_ns: u64, time: Duration) -> u64 {
    now_ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
