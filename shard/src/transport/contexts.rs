//! What connections are encrypted with: one context per listener and per cluster, made off the shards
//! from policy and secrets, and shared by all of them unchanged.
//!
//! A shard makes its own [share](super::shares) of them.

use std::{cell::Cell, collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
    pki_types::{CertificateDer, ServerName},
    server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tidegate_core::{
    config::model::{
        ClientCertificate, ClientCertificateMode, Cluster, ClusterTls, Config, Endpoints, Listener,
        ListenerTls, ProxyProtocolIn, ServerMode, TlsParameters, TlsVersion,
    },
    encryption::secret::{Material, SecretFault},
    message::TlsContexts,
};

use super::{
    certificate::{Names, authorities, certified_key},
    own::OwnHandshakes,
    tickets::{SealOnly, TicketKeys},
    tls::Lasting,
    verify::{ClientPolicy, ServerPolicy},
};

/// The secrets that are loaded, by name.
pub(super) type Secrets = BTreeMap<Arc<str>, Material>;

/// Everything that connections are encrypted with.
#[derive(Default)]
pub(super) struct Contexts {
    /// By listener.
    pub(super) servers: BTreeMap<Arc<str>, Arc<ServerContext>>,
    /// By cluster.
    pub(super) clients: BTreeMap<Arc<str>, Arc<ClientContext>>,
    /// The process's handshakes with itself; one for its life.
    pub(super) own: Arc<OwnHandshakes>,
}

/// What a listener encrypts with.
pub(super) struct ServerContext {
    inputs: ServerInputs,
    tickets: Arc<TicketKeys>,
    generation: u64,
    pub(super) config: ServerConfig,
    pub(super) policy: Option<Arc<ClientPolicy>>,
    /// The leaf of each certificate, and a name that it is chosen by.
    pub(super) leaves: Vec<(CertificateDer<'static>, Option<Box<str>>)>,
    /// Connections begin with a PROXY header.
    pub(super) is_proxied: bool,
}

/// What a cluster's links encrypt with.
pub(super) struct ClientContext {
    inputs: ClientInputs,
    pub(super) generation: u64,
    pub(super) config: ClientConfig,
    pub(super) policy: Arc<ServerPolicy>,
    /// `None`: the address of the endpoint.
    server_name: Option<ServerName<'static>>,
}

/// What a server context is made of; another of the same makes no other context.
#[derive(Clone, PartialEq, Eq)]
struct ServerInputs {
    certificates: Vec<Material>,
    client: ClientCertificate,
    trusted_ca: Option<Material>,
    parameters: TlsParameters,
    alpn: Vec<Arc<str>>,
    session_tickets: bool,
    is_proxied: bool,
}

/// What a client context is made of. When links are encrypted is no part of it (E11).
#[derive(Clone, PartialEq, Eq)]
struct ClientInputs {
    certificate: Option<Material>,
    trusted_ca: Material,
    subject_alt_names: Vec<tidegate_core::config::model::SanMatch>,
    server_name: Option<Arc<str>>,
    parameters: TlsParameters,
    alpn: Vec<Arc<str>>,
    resumption: bool,
}

impl Contexts {
    /// The contexts behind what crosses threads.
    pub(super) fn of(contexts: &TlsContexts) -> Option<&Contexts> {
        contexts.0.downcast_ref()
    }

    /// See [`super::tls::build`].
    pub(super) fn build(
        config: &Config,
        secrets: &Secrets,
        lasting: &Lasting,
        generation: u64,
        previous: Option<&Contexts>,
    ) -> (Contexts, Vec<(Arc<str>, String)>) {
        let mut contexts = Contexts {
            own: previous.map(|p| p.own.clone()).unwrap_or_default(),
            ..Contexts::default()
        };
        let mut faults = Vec::new();
        for (name, listener) in &config.listeners {
            let tls = listener.tls.as_deref();
            let Some(tls) = tls.filter(|tls| tls.mode != ServerMode::Disabled) else {
                continue;
            };
            let old = previous.and_then(|previous| previous.servers.get(name));
            let made = ServerInputs::gather(listener, tls, secrets)
                .and_then(|inputs| ServerContext::make(name, inputs, lasting, generation, old));
            match made {
                Ok(context) => drop(contexts.servers.insert(name.clone(), context)),
                Err(fault) => faults.push((name.clone(), fault)),
            }
        }
        for (name, cluster) in &config.clusters {
            let Some(tls) = &cluster.tls else { continue };
            let old = previous.and_then(|previous| previous.clients.get(name));
            let made = ClientInputs::gather(cluster, tls, secrets)
                .and_then(|inputs| ClientContext::make(inputs, lasting, generation, old));
            match made {
                Ok(context) => drop(contexts.clients.insert(name.clone(), context)),
                Err(fault) => faults.push((name.clone(), fault)),
            }
        }
        (contexts, faults)
    }
}

impl ServerInputs {
    fn gather(listener: &Listener, tls: &ListenerTls, secrets: &Secrets) -> Result<Self, String> {
        let certificates = tls.certificates.iter().map(|name| find(secrets, name));
        Ok(ServerInputs {
            certificates: certificates.collect::<Result<_, _>>()?,
            trusted_ca: match (&tls.client.trusted_ca, tls.client.mode) {
                (_, ClientCertificateMode::None) => None,
                (Some(name), _) => Some(find(secrets, name)?),
                (None, _) => return Err("client certificates have no `trusted_ca`".into()),
            },
            client: tls.client.clone(),
            parameters: tls.parameters.clone(),
            alpn: tls.alpn.clone(),
            session_tickets: tls.session_tickets,
            is_proxied: listener.proxy_protocol == ProxyProtocolIn::Require,
        })
    }

    /// Whether the same clients are let in.
    fn lets_in_as(&self, other: &ServerInputs) -> bool {
        (&self.client, &self.trusted_ca, &self.parameters)
            == (&other.client, &other.trusted_ca, &other.parameters)
    }

    /// What a ticket is bound to: it must not resume where clients are asked for something else.
    fn ticket_purpose(&self, listener: &str) -> Vec<u8> {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut put = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        put(listener.as_bytes());
        put(format!("{:?}", self.client.mode).as_bytes());
        put(format!("{:?}", self.client.subject_alt_names).as_bytes());
        if let Some(Material::TrustedCa { certificates, .. }) = &self.trusted_ca {
            put(certificates);
        }
        context.finish().as_ref().to_vec()
    }
}

impl ServerContext {
    fn make(
        listener: &str,
        inputs: ServerInputs,
        lasting: &Lasting,
        generation: u64,
        old: Option<&Arc<ServerContext>>,
    ) -> Result<Arc<ServerContext>, String> {
        let tickets = &lasting.tickets;
        let same = old.filter(|old| old.inputs == inputs);
        if let Some(same) = same.filter(|old| Arc::ptr_eq(&old.tickets, tickets)) {
            return Ok(same.clone());
        }
        let provider = provider(&inputs.parameters)?;
        let resolver = Certificates::new(&inputs.certificates)?;
        let leaves = resolver.leaves();
        let policy = match old.filter(|old| old.inputs.lets_in_as(&inputs)) {
            Some(old) => old.policy.clone(),
            None => client_policy(&provider, &inputs)?,
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(&inputs.parameters))
            .map_err(|error| error.to_string())?;
        let builder = match &policy {
            Some(policy) => builder.with_client_cert_verifier(policy.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = wire_names(&inputs.alpn);
        // The operator's order, or rustls' own, which has the strongest first.
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        config.key_log = lasting.key_log();
        match inputs.session_tickets {
            true => {
                let purpose = inputs.ticket_purpose(listener);
                let ticketer = tickets.ticketer(&purpose);
                config.ticketer = ticketer.ok_or("the ticket keys do not serve")?;
            }
            false => {
                config.ticketer = Arc::new(NoTickets);
                config.send_tls13_tickets = 0;
            }
        }
        Ok(Arc::new(ServerContext {
            is_proxied: inputs.is_proxied,
            inputs,
            tickets: tickets.clone(),
            generation: same.map_or(generation, |old| old.generation),
            config,
            policy,
            leaves,
        }))
    }
}

impl ServerContext {
    /// How long a client that is let in no more may finish what is in flight.
    pub(super) fn drain_timeout(&self) -> Duration {
        self.inputs.client.drain_timeout
    }

    /// The configuration for clients whose session is not resumed: they get new tickets.
    pub(super) fn unresumed(&self) -> ServerConfig {
        let mut config = self.config.clone();
        config.ticketer = Arc::new(SealOnly(config.ticketer.clone()));
        config
    }
}

fn client_policy(
    provider: &Arc<CryptoProvider>,
    inputs: &ServerInputs,
) -> Result<Option<Arc<ClientPolicy>>, String> {
    let Some(trusted_ca) = &inputs.trusted_ca else {
        return Ok(None);
    };
    let authorities = authorities(trusted_ca).map_err(in_words)?;
    let (mode, names) = (inputs.client.mode, inputs.client.subject_alt_names.clone());
    let policy = ClientPolicy::new(provider, authorities, mode, names);
    policy
        .map(|policy| Some(Arc::new(policy)))
        .map_err(|error| error.to_string())
}

impl ClientInputs {
    fn gather(cluster: &Cluster, tls: &ClusterTls, secrets: &Secrets) -> Result<Self, String> {
        let dns_name = match &cluster.endpoints {
            Endpoints::Dns { host, .. } => Some(host.clone()),
            Endpoints::Static(_) => None,
        };
        let certificate = tls.certificate.as_ref().map(|name| find(secrets, name));
        Ok(ClientInputs {
            certificate: certificate.transpose()?,
            trusted_ca: find(secrets, &tls.trusted_ca)?,
            subject_alt_names: tls.subject_alt_names.clone(),
            server_name: tls.server_name.clone().or(dns_name),
            parameters: tls.parameters.clone(),
            alpn: tls.alpn.clone(),
            resumption: tls.resumption,
        })
    }
}

impl ClientContext {
    fn make(
        inputs: ClientInputs,
        lasting: &Lasting,
        generation: u64,
        old: Option<&Arc<ClientContext>>,
    ) -> Result<Arc<ClientContext>, String> {
        if let Some(old) = old.filter(|old| old.inputs == inputs) {
            return Ok(old.clone());
        }
        let server_name = inputs.server_name.as_deref().map(|name| {
            ServerName::try_from(name.to_owned())
                .map_err(|_| format!("`{name}` is no name that a server could have"))
        });
        let server_name = server_name.transpose()?;
        let provider = provider(&inputs.parameters)?;
        let authorities = authorities(&inputs.trusted_ca).map_err(in_words)?;
        let names = inputs.subject_alt_names.clone();
        let policy = ServerPolicy::new(&provider, authorities, names)
            .map(Arc::new)
            .map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(&inputs.parameters))
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(policy.clone());
        let mut config = match &inputs.certificate {
            Some(material) => {
                let certified = certified_key(material).map_err(in_words)?;
                builder.with_client_cert_resolver(Arc::new(Shown(Arc::new(certified))))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = wire_names(&inputs.alpn);
        config.enable_early_data = false;
        config.key_log = lasting.key_log();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(ClientContext {
            inputs,
            generation,
            config,
            policy,
            server_name,
        }))
    }

    /// Whether sessions are resumed.
    pub(super) fn resumes(&self) -> bool {
        self.inputs.resumption
    }

    /// The name that the endpoint at `address` is asked for and compared with.
    pub(super) fn server_name(&self, address: SocketAddr) -> ServerName<'static> {
        let name = self.server_name.clone();
        name.unwrap_or_else(|| ServerName::IpAddress(address.ip().into()))
    }
}

thread_local! {
    /// The server name of the hello that was processed last. rustls' unbuffered connections do not tell
    /// it; whoever processes a hello takes it from here right after.
    static SERVER_NAME: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// Takes the server name that the hello processed just now has asked for.
pub(super) fn take_server_name() -> Option<Box<str>> {
    SERVER_NAME.take()
}

/// The certificates of a listener, chosen by server name.
#[derive(Debug)]
struct Certificates {
    /// The first is for the rest. Never empty.
    all: Vec<(Arc<CertifiedKey>, Names)>,
}

impl Certificates {
    fn new(materials: &[Material]) -> Result<Certificates, String> {
        let all = materials.iter().map(|material| {
            let certified = certified_key(material).map_err(in_words)?;
            let names = certified.cert.first().map(|leaf| Names::of(leaf));
            Ok((Arc::new(certified), names.unwrap_or_default()))
        });
        let all: Vec<_> = all.collect::<Result<_, String>>()?;
        match all.is_empty() {
            true => Err("there is no certificate".into()),
            false => Ok(Certificates { all }),
        }
    }

    fn leaves(&self) -> Vec<(CertificateDer<'static>, Option<Box<str>>)> {
        let leaves = self.all.iter().filter_map(|(certified, names)| {
            let name = names.dns.first().map(|name| match name.strip_prefix("*.") {
                Some(rest) => format!("self-handshake.{rest}").into(),
                None => name.clone(),
            });
            Some((certified.cert.first()?.clone(), name))
        });
        leaves.collect()
    }

    /// An exact name goes before a wildcard; among equals, one whose key the client can verify, the
    /// first listed. A name that no certificate has gets the first, and the client judges.
    fn choose(&self, name: Option<&str>, usable: impl Fn(&CertifiedKey) -> bool) -> Option<usize> {
        let best_by = |fits: &dyn Fn(&Names) -> bool| {
            let mut fitting = self.all.iter().enumerate().filter(|(_, (_, n))| fits(n));
            let first = fitting.clone().next();
            fitting
                .find(|(_, (certified, _))| usable(certified))
                .or(first)
                .map(|(i, _)| i)
        };
        let by_name = name.map(str::to_ascii_lowercase).and_then(|name| {
            let parent = name.split_once('.').map_or("", |(_, parent)| parent);
            let exact = |n: &Names| n.dns.iter().any(|dns| dns.eq_ignore_ascii_case(&name));
            let wild = |n: &Names| {
                let mut parents = n.dns.iter().filter_map(|dns| dns.strip_prefix("*."));
                parents.any(|dns| dns.eq_ignore_ascii_case(parent))
            };
            best_by(&exact).or_else(|| best_by(&wild))
        });
        by_name.or_else(|| best_by(&|_| true))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        SERVER_NAME.set(hello.server_name().map(Into::into));
        let schemes = hello.signature_schemes();
        let usable = |certified: &CertifiedKey| certified.key.choose_scheme(schemes).is_some();
        let chosen = self.choose(hello.server_name(), usable)?;
        self.all.get(chosen).map(|(certified, _)| certified.clone())
    }
}

/// The certificate that a cluster's links show.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let usable = self.0.key.choose_scheme(schemes).is_some();
        usable.then(|| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// No resumption.
#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// The suites and groups that `parameters` name, in their order; X25519MLKEM768 first by default.
fn provider(parameters: &TlsParameters) -> Result<Arc<CryptoProvider>, String> {
    let mut provider = default_provider();
    if !parameters.cipher_suites.is_empty() {
        let named = |name: &Arc<str>| {
            let mut all = provider.cipher_suites.iter();
            let found = all.find(|suite| suite_name(suite.suite()) == Some(&**name));
            found
                .copied()
                .ok_or_else(|| format!("there is no cipher suite `{name}`"))
        };
        provider.cipher_suites = parameters
            .cipher_suites
            .iter()
            .map(named)
            .collect::<Result<_, _>>()?;
    }
    if !parameters.groups.is_empty() {
        let known = rustls::crypto::aws_lc_rs::ALL_KX_GROUPS;
        let named = |name: &Arc<str>| {
            let mut all = known.iter();
            let is_it = |group: &str| group.eq_ignore_ascii_case(name);
            let found = all.find(|group| group.name().as_str().is_some_and(is_it));
            found
                .copied()
                .ok_or_else(|| format!("there is no key exchange group `{name}`"))
        };
        provider.kx_groups = parameters
            .groups
            .iter()
            .map(named)
            .collect::<Result<_, _>>()?;
    }
    Ok(Arc::new(provider))
}

/// The IANA name of a suite; rustls' own differ for TLS 1.3.
pub(super) fn suite_name(suite: rustls::CipherSuite) -> Option<&'static str> {
    use rustls::CipherSuite::*;
    Some(match suite {
        TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str()?,
    })
}

fn versions(parameters: &TlsParameters) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::Tls13, &TLS13), (TlsVersion::Tls12, &TLS12)];
    let range = parameters.min_version..=parameters.max_version;
    let kept = all
        .into_iter()
        .filter(|(version, _)| range.contains(version));
    kept.map(|(_, version)| version).collect()
}

fn wire_names(alpn: &[Arc<str>]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn find(secrets: &Secrets, name: &Arc<str>) -> Result<Material, String> {
    let found = secrets.get(name).cloned();
    found.ok_or_else(|| format!("secret `{name}` is not loaded"))
}

fn in_words(fault: SecretFault) -> String {
    format!("{} ({})", fault.cause, fault.remedy)
}
