//! The proxies of a measurement: one between the clients and the origin, or two of the same kind in
//! a chain, as a pair of sidecars is. Both of a chain run on the proxy's core, and what they consume
//! is counted together.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    cost::Sample,
    cpu::Cpu,
    error::Error,
    measure::{Bench, Task},
    peer::{
        certificate::{Certificates, Sessions, Shown, TlsClient},
        process::{Probe, Running, free_address},
        render::{Clients, Heal, Limit, Setting},
    },
    scenario::{HttpVersion, Link},
};

/// What the proxies' settings are borrowed from.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// Where the second proxy listens, in a chain.
    between: Option<SocketAddr>,
    /// The origin's endpoints.
    upstreams: Vec<SocketAddr>,
    routes: Vec<String>,
    admin: Option<SocketAddr>,
    dir: PathBuf,
    back_dir: PathBuf,
}

impl Layout {
    /// Looks for free addresses; without a proxy, the origin's is the one that clients connect to.
    pub(crate) fn of(
        task: Task<'_>,
        upstreams: Vec<SocketAddr>,
        work: &Path,
    ) -> Result<Layout, Error> {
        let row = task.row;
        let listen = match (task.program, upstreams.first()) {
            (None, Some(origin)) => *origin,
            _ => free_address()?,
        };
        let free = |wanted: bool| wanted.then(free_address).transpose();
        let dir = work.join(format!("{}-{}", task.peer.name, listen.port()));
        Ok(Layout {
            listen,
            between: free(row.hops > 1 && task.program.is_some())?,
            upstreams,
            routes: row.prefixes(),
            admin: free(row.asks_admin())?,
            back_dir: dir.with_extension("back"),
            dir,
        })
    }

    /// The proxy that clients speak to.
    pub(crate) fn front<'a>(
        &'a self,
        task: Task<'_>,
        bench: &Bench,
        certificates: Option<&'a Certificates>,
    ) -> Setting<'a> {
        let row = task.row;
        Setting {
            listen: self.listen,
            upstreams: match &self.between {
                Some(between) => std::slice::from_ref(between),
                None => &self.upstreams,
            },
            mode: row.mode(),
            connections: row.client_descriptors() as usize,
            routes: &self.routes,
            certificates,
            clients: match row.tls {
                true => Clients::Tls,
                false => Clients::Plain,
            },
            client_http: row.http(),
            link: row.link,
            link_http: row.link_protocol,
            admin: self.admin,
            reloads: row.reloads(),
            heal: Heal::Off,
            limit: Limit::Off,
            cpu: bench.placement.proxy,
            descriptors: bench.descriptors,
            dir: &self.dir,
        }
    }

    /// The second proxy of a chain, whose client is the first.
    fn back<'a>(&'a self, front: Setting<'a>, between: SocketAddr) -> Setting<'a> {
        Setting {
            listen: between,
            upstreams: &self.upstreams,
            clients: match front.link {
                Link::Plain => Clients::Plain,
                Link::Mtls => Clients::Mtls,
            },
            client_http: front.link_http,
            link: Link::Plain,
            link_http: HttpVersion::Http1,
            admin: None,
            dir: &self.back_dir,
            ..front
        }
    }
}

/// The running proxies.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The one that clients speak to.
    pub(crate) front: Running,
    back: Option<Running>,
}

impl Chain {
    /// Starts them, the last one first, each ready before the next: a proxy that finds nobody behind
    /// it may remember that. Returns their files too.
    pub(crate) fn start(
        task: Task<'_>,
        bench: &Bench,
        layout: &Layout,
        front: Setting<'_>,
    ) -> Result<(Chain, BTreeMap<String, String>), Error> {
        let mut files = BTreeMap::new();
        let back = match layout.between {
            Some(between) => {
                let setting = layout.back(front, between);
                let (running, its) = start(task, bench, &setting)?;
                let second = |(name, text)| (format!("{name} of the second"), text);
                files.extend(its.into_iter().map(second));
                Some(running)
            }
            None => None,
        };
        let (front, its) = start(task, bench, &front)?;
        files.extend(its);
        Ok((Chain { front, back }, files))
    }

    /// An error if any has ended.
    pub(crate) fn check_alive(&mut self) -> Result<(), Error> {
        self.front.check_alive()?;
        match &mut self.back {
            Some(back) => back.check_alive(),
            None => Ok(()),
        }
    }

    /// The roots of their process trees; empty is the direct connection.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let back = self.back.as_ref().and_then(Running::pid);
        self.front.pid().into_iter().chain(back).collect()
    }

    /// What they have consumed so far, together; `None` for the direct connection.
    pub(crate) fn sample(&self, cpu: Cpu) -> Result<Option<Sample>, Error> {
        let pids = self.pids();
        if pids.is_empty() {
            return Ok(None);
        }
        Sample::of_trees(&pids, cpu)
            .map(Some)
            .map_err(|error| self.front.error(&format!("reading its costs: {error}")))
    }
}

fn start(
    task: Task<'_>,
    bench: &Bench,
    setting: &Setting<'_>,
) -> Result<(Running, BTreeMap<String, String>), Error> {
    let Some(program) = task.program else {
        let mut running = Running::direct(task.peer, setting.listen);
        ready(task, bench, setting, &mut running)?;
        return Ok((running, BTreeMap::new()));
    };
    let rendered = task.peer.render(setting)?;
    let mut running = Running::start(task.peer, program, &rendered, setting, bench.placement)?;
    ready(task, bench, setting, &mut running)?;
    Ok((running, rendered.files))
}

/// Waits until a proxy answers the row's exchange to a client like its own.
fn ready(
    task: Task<'_>,
    bench: &Bench,
    setting: &Setting<'_>,
    running: &mut Running,
) -> Result<(), Error> {
    let tls = client(setting, Sessions::Fresh)?;
    let probe = Probe {
        exchange: &task.row.exchange(),
        http: setting.client_http,
        tls: tls.as_ref(),
    };
    running.wait_ready(probe, &bench.interrupt)
}

/// How the clients of a proxy speak.
pub(crate) fn client(
    setting: &Setting<'_>,
    sessions: Sessions,
) -> Result<Option<TlsClient>, Error> {
    let shown = match setting.clients {
        Clients::Plain => return Ok(None),
        Clients::Tls => Shown::Server,
        Clients::Mtls => Shown::Both,
    };
    let certificates = setting.certificates;
    certificates
        .map(|certificates| certificates.client(shown, sessions, setting.client_http))
        .transpose()
}
