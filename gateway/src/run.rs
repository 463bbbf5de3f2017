//! The composition of the daemon: the only place that spawns long-lived tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crds::Bootstrap;
use pki::SpiffeId;
use prometheus_client::registry::Registry;
use telemetry::health::Health;
use telemetry::listener::Listener;
use telemetry::service;
use telemetry::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

mod foundation;
mod replica;

use foundation::Foundation;
use replica::{Leading, ReplicaMetrics, StandBy};

use crate::admin::AdminService;
use crate::backends;
use crate::bootstrap;
use crate::ca::SignError;
use crate::clock::Clock;
use crate::config::Config;
use crate::election::Term;
use crate::enrollment::EnrollmentService;
use crate::housekeeping::Housekeeper;
use crate::index::MeshSettings;
use crate::ledger::{self, ClusterLedger, Known};
use crate::mesh_view::MeshView;
use crate::metrics::Gauges;
use crate::pipeline::{self, Mesh, Pipeline};
use crate::server::{self, Services};
use crate::session::{MeshService, WRITE_DEADLINE};
use crate::source::Opened;
use crate::tls::{self, Incoming, OwnCertificate, OwnCertificateError};

/// How often it is written down who is connected, and old records are forgotten.
const HOUSEKEEPING: Duration = Duration::from_mins(1);
/// How long expired tokens stay in the list, beside the grace time of certificates.
const KEEP_TOKENS: Duration = Duration::from_hours(7 * 24);
/// How often memory is given back while connections or the state change, and otherwise.
const GIVE_BACK: Duration = Duration::from_secs(5);
const GIVE_BACK_SELDOM: Duration = Duration::from_mins(10);
/// Connections that wait to be accepted; the kernel takes less where `net.core.somaxconn` says so.
const BACKLOG: u32 = 16_384;
/// Files beside connections: the store, the manifests, listeners.
const OTHER_FILES: u64 = 64;
/// The wait before an authority that is away is asked again for the gateway's own certificate.
const CA_PAUSE: Duration = Duration::from_secs(5);
/// How long open calls may take to end.
const LINGER: Duration = Duration::from_secs(5);

/// Runs the gateway until shutdown.
///
/// # Errors
/// Why it could not start, or which part ended.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<()> {
    let clock = Clock::system();
    let files = telemetry::files::raise_limit();
    if files < u64::try_from(config.max_connections)?.saturating_add(OTHER_FILES) {
        tracing::warn!(
            files,
            connections = config.max_connections,
            "there may be fewer open files than connections: raise `LimitNOFILE` of the service"
        );
    }
    let listener =
        listen(config.listen).with_context(|| format!("cannot listen on {} (`listen`)", config.listen))?;
    let Some(replica) = StandBy::try_new(&config, &clock).await? else {
        return lead(config, clock, listener, None, shutdown).await;
    };
    let stood_by = replica.stand_by(&config, &listener, &shutdown).await?;
    let Some((leading, _its_folder)) = stood_by else { return Ok(()) };
    let term = leading.term.clone();
    let led = tokio::select! {
        led = lead(config, clock, listener, Some(leading), shutdown) => led,
        // While it begins nothing else ends it.
        reason = over_for_long(&term) => Err(no_longer(&reason)),
    };
    term.release().await;
    led
}

/// Serves, as the only one of the mesh.
async fn lead(
    config: Config,
    clock: Clock,
    listener: TcpListener,
    mut leading: Option<Leading>,
    shutdown: Shutdown,
) -> Result<()> {
    let socket = UnixListener::from_std(::config::bind_socket(&config.admin_socket, "gateway")?)?;
    let ledger = leading.as_ref().map(|leading| leading.ledger.clone());
    let Some(foundation) = foundation::lay(&config, &clock, ledger.as_ref(), &shutdown).await? else {
        return Ok(());
    };
    let term = leading.as_ref().map(|leading| leading.term.clone());
    let Some(source) = open_source(&config, &foundation, term.as_ref(), &shutdown).await? else {
        return Ok(());
    };
    let (pipeline, mesh) = open_pipeline(&config, &foundation, source, &clock).await?;
    let replicas = leading.as_ref().map(|leading| leading.metrics.clone()).unwrap_or_default();
    replicas.leads();
    let parts = Parts { config, clock, foundation, mesh, replicas };

    let mut tasks = JoinSet::new();
    // Dropped, and so ended, on return.
    let mut background = JoinSet::new();
    tasks.spawn(pipeline.run(shutdown.clone()));
    tasks.spawn(parts.end_revoked(shutdown.clone()));
    if let Some(leading) = &mut leading {
        leading.stands_no_longer().await;
    }
    let health = parts.serve_metrics(&mut tasks, &mut background, &shutdown).await?;
    let Some(certificate) = parts.own_certificate(&shutdown).await? else { return Ok(()) };
    let handed = match leading {
        Some(leading) => leading.take_over(&parts.config, &parts.clock, &mut background)?,
        None => mpsc::channel(1).1,
    };
    parts.serve(&mut tasks, Incoming { own: listener, handed }, socket, &certificate, &shutdown)?;
    health.ready("certificate");
    background.spawn(certificate.keep_fresh(parts.clock.clone()));
    background.spawn(parts.housekeeping());
    background.spawn(parts.foundation.ca.clone().follow(parts.foundation.audit.clone(), parts.clock.clone()));
    background.spawn(parts.cut_stalled());
    background.spawn(parts.give_back());
    if let Some(ledger) = ledger {
        parts.keep_objects(&ledger, &mut background);
    }
    background.spawn(watchdog());
    service::ready("serving");
    tracing::info!(listen = %parts.config.listen, socket = %parts.config.admin_socket.display(), "gateway ready");

    let (mut early, mut over) = (false, None);
    tokio::select! {
        () = shutdown.wait() => {}
        _ended = tasks.join_next() => early = !shutdown.is_triggered(),
        reason = over_of(term.as_ref()) => over = Some(reason),
    }
    service::stopping();
    shutdown.trigger();
    linger(tasks).await;
    let _gone = std::fs::remove_file(&parts.config.admin_socket);
    tracing::info!("gateway stopped");
    if let Some(reason) = over {
        return Err(no_longer(&reason));
    }
    anyhow::ensure!(!early, "a part of the gateway ended; see its log");
    Ok(())
}

/// Compiles what the source has.
async fn open_pipeline(
    config: &Config,
    foundation: &Foundation,
    source: Opened,
    clock: &Clock,
) -> Result<(Pipeline, Arc<Mesh>)> {
    let settings = pipeline_settings(config, foundation);
    let (store, clock) = (foundation.store.clone(), clock.clone());
    let opened = tokio::task::spawn_blocking(move || Pipeline::open(settings, source, store, clock)).await?;
    opened.context("what the source has cannot be compiled")
}

/// Reads the source whole; `None` if the gateway is to end before that.
async fn open_source(
    config: &Config,
    foundation: &Foundation,
    term: Option<&Term>,
    shutdown: &Shutdown,
) -> Result<Option<Opened>> {
    let kept = foundation.store.kept_objects()?;
    service::status("reading the source");
    tokio::select! {
        opened = Opened::of(&config.source, &kept, term) => Ok(Some(opened.context("the source cannot be read")?)),
        () = shutdown.wait() => Ok(None),
    }
}

/// Listens. All agents come back at once when another gateway is gone: one whose connection finds no room in the queue
/// tries again only a second later, and then after two more.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// All that services are made of.
struct Parts {
    config: Config,
    clock: Clock,
    foundation: Foundation,
    mesh: Arc<Mesh>,
    replicas: ReplicaMetrics,
}

impl Parts {
    async fn serve_metrics(
        &self,
        tasks: &mut JoinSet<()>,
        background: &mut JoinSet<()>,
        shutdown: &Shutdown,
    ) -> Result<Health> {
        let mut registry = Registry::default();
        self.foundation.metrics.register(&mut registry);
        self.foundation.sessions.register(&mut registry);
        self.foundation.connections.register(&mut registry);
        self.foundation.ca.metrics().register(&mut registry);
        self.replicas.register(&mut registry);
        let mesh: Arc<dyn MeshView> = self.mesh.clone();
        Gauges::register(self.foundation.store.clone(), mesh, &mut registry);
        let health = Health::default();
        // The pipeline has read the source and published a state before anything is served.
        health.ready("source");
        health.declare("certificate", "the gateway has no certificate of its own yet");
        // A gateway without its folder is broken; one whose cluster is away serves hosts as before.
        if matches!(self.config.source, crate::config::Source::Files(_)) {
            background.spawn(self.mesh.watch_source(health.clone(), "source"));
        }
        let listener = Listener::bind(self.config.metrics_listen, Arc::new(registry), health.clone()).await?;
        tasks.spawn(listener.serve(shutdown.clone()));
        Ok(health)
    }

    fn serve(
        &self,
        tasks: &mut JoinSet<()>,
        listener: Incoming,
        socket: UnixListener,
        certificate: &OwnCertificate,
        shutdown: &Shutdown,
    ) -> Result<()> {
        let services = self.services(shutdown);
        let trust = tls::trust(&self.foundation.ca)?;
        let trust_domain = &self.config.trust_domain;
        let serving = certificate.serving();
        let tls = pki::tls::server_trusting(trust.clone(), trust_domain, serving, self.clock.source())?;
        tasks.spawn(tls::follow_roots(trust, self.foundation.ca.clone(), shutdown.clone()));
        let limits = tls::Limits {
            connections: self.config.max_connections,
            per_source: self.config.max_connections_per_source,
            proxies: self.config.proxies.clone(),
            ..tls::Limits::default()
        };
        let metrics = self.foundation.connections.clone();
        let (connections, accepting) =
            tls::incoming(listener, Arc::new(tls), limits, metrics, shutdown.clone());
        tasks.spawn(accepting);
        let admin = services.admin.clone();
        tasks.spawn(ended("TLS", server::serve_tls(connections, services, shutdown.clone())));
        tasks.spawn(ended("the admin socket", server::serve_socket(socket, admin, shutdown.clone())));
        Ok(())
    }

    fn services(&self, shutdown: &Shutdown) -> Services {
        let Foundation { store, ca, audit, metrics, sessions, connections: _, settings, accounts } =
            &self.foundation;
        let mesh: Arc<dyn MeshView> = self.mesh.clone();
        let enrollment = EnrollmentService {
            store: store.clone(),
            ca: ca.clone(),
            accounts: accounts.clone(),
            mesh: mesh.clone(),
            audit: audit.clone(),
            metrics: metrics.clone(),
            clock: self.clock.clone(),
            settings: settings.clone(),
        };
        let admin = AdminService {
            store: store.clone(),
            ca: ca.clone(),
            mesh,
            audit: audit.clone(),
            metrics: metrics.clone(),
            clock: self.clock.clone(),
            settings: settings.clone(),
        };
        let mesh = MeshService {
            store: store.clone(),
            ca: ca.clone(),
            registry: self.mesh.registry().clone(),
            audit: audit.clone(),
            feed: self.mesh.feed(),
            metrics: sessions.clone(),
            clock: self.clock.clone(),
            shutdown: shutdown.clone(),
        };
        Services { enrollment, admin, mesh }
    }

    /// Brings objects of the cluster and what is known in line, in both directions.
    fn keep_objects(&self, ledger: &Arc<ClusterLedger>, background: &mut JoinSet<()>) {
        let Foundation { store, audit, .. } = &self.foundation;
        let mesh: Arc<dyn MeshView> = self.mesh.clone();
        let (store, audit, clock) = (store.clone(), audit.clone(), self.clock.clone());
        background.spawn(ledger::tell(ledger.clone(), audit.listen(), mesh.clone(), self.name()));
        let known = Known {
            store: store.clone(),
            mesh: mesh.clone(),
            clock: clock.clone(),
            bootstrap: self.bootstrap(&self.config.advertise),
        };
        background.spawn(ledger::report(ledger.clone(), known));
        let (client, settings) = (ledger.client().clone(), self.config.backends());
        if self.config.nodes.is_on() {
            let (namespace, latest) =
                (ledger.namespace().to_owned(), self.bootstrap(&self.config.nodes.gateways));
            background.spawn(bootstrap::keep(client.clone(), namespace, latest));
        }
        background.spawn(backends::keep(client, store.clone(), mesh, settings, self.name()));
        background.spawn(ledger::follow(ledger.clone(), store, audit, clock));
    }

    /// What those who join have to know besides a secret, always the latest, with where they reach gateways.
    fn bootstrap(&self, gateways: &[String]) -> bootstrap::Latest {
        let Foundation { ca, settings, .. } = &self.foundation;
        let (ca, settings, gateways) = (ca.clone(), settings.clone(), gateways.to_vec());
        Arc::new(move || {
            let root_pins = ca.roots().pins().iter().map(ToString::to_string).collect();
            (!gateways.is_empty()).then(|| Bootstrap {
                gateways: gateways.clone(),
                root_pins,
                trust_domain: settings.trust_domain.to_string(),
            })
        })
    }

    /// Writes down who is connected, and forgets what nobody can use any more.
    fn housekeeping(&self) -> impl Future<Output = ()> + Send + use<> {
        let Foundation { store, audit, .. } = &self.foundation;
        let keep = self.config.renew_grace.saturating_add(KEEP_TOKENS);
        let mut keeper = Housekeeper::new(store.clone(), audit.clone(), keep);
        let (mesh, clock) = (self.mesh.clone(), self.clock.clone());
        async move {
            let mut due = tokio::time::interval(HOUSEKEEPING);
            loop {
                let at = due.tick().await.into_std();
                let (connected, now) = (mesh.registry().connected(), clock.now());
                let done = tokio::task::spawn_blocking(move || {
                    let done = keeper.tidy(&connected, now, at);
                    (keeper, done)
                });
                let Ok((back, done)) = done.await else { return };
                keeper = back;
                if let Err(error) = done {
                    tracing::warn!(%error, "old records not forgotten");
                }
            }
        }
    }

    /// Cuts connections whose agents take nothing of what they are sent.
    fn cut_stalled(&self) -> impl Future<Output = ()> + Send + use<> {
        let (registry, sessions) = (self.mesh.registry().clone(), self.foundation.sessions.clone());
        async move {
            let mut due = tokio::time::interval(WRITE_DEADLINE / 12);
            loop {
                let now = due.tick().await.into_std();
                let count = registry.writes().cut_overdue(WRITE_DEADLINE, now);
                if count > 0 {
                    tracing::warn!(count, deadline = ?WRITE_DEADLINE, "sessions cut whose agents take nothing");
                    sessions.stalled(count);
                }
            }
        }
    }

    /// Ends the sessions of workloads that are gone.
    fn end_revoked(&self, shutdown: Shutdown) -> impl Future<Output = ()> + Send + use<> {
        let (registry, mut workloads) =
            (self.mesh.registry().clone(), self.foundation.store.watch_workloads());
        async move {
            loop {
                let now = workloads.borrow_and_update().clone();
                registry.end_revoked(&now);
                tokio::select! {
                    () = shutdown.wait() => return,
                    changed = workloads.changed() => if changed.is_err() { return },
                }
            }
        }
    }

    /// Gives memory back that snapshots and handshakes have used.
    fn give_back(&self) -> impl Future<Output = ()> + Send + use<> {
        let (feed, connections) = (self.mesh.feed(), self.foundation.connections.clone());
        async move {
            let (mut due, mut since, mut last) = (tokio::time::interval(GIVE_BACK), Instant::now(), None);
            loop {
                let now = due.tick().await.into_std();
                let generation = feed.borrow().as_ref().map(|feed| feed.latest.generation());
                let seen = Some((generation, connections.opened()));
                if seen != last || now.saturating_duration_since(since) > GIVE_BACK_SELDOM {
                    (last, since) = (seen, now);
                    let _ended = tokio::task::spawn_blocking(telemetry::memory::give_back).await;
                }
            }
        }
    }

    /// A gateway is named after its store: several of one mesh have several names.
    fn name(&self) -> String {
        format!("gateway-{:08x}", self.foundation.store.incarnation() >> 32)
    }

    /// Without a certificate nobody is served: one that is to be signed elsewhere is waited for. `None`: until the end.
    async fn own_certificate(&self, shutdown: &Shutdown) -> Result<Option<OwnCertificate>> {
        let id = SpiffeId::gateway(&self.config.trust_domain, &self.name())?;
        loop {
            let ca = self.foundation.ca.clone();
            let error = match OwnCertificate::issue(ca, id.clone(), self.clock.now()).await {
                Ok(certificate) => return Ok(Some(certificate)),
                Err(OwnCertificateError::Sign(error @ SignError::Unavailable { .. })) => error,
                Err(error) => return Err(error).context("the gateway's own certificate"),
            };
            tracing::warn!(%error, "no host is served before the gateway has a certificate of its own");
            service::status("waiting for its own certificate");
            tokio::select! {
                () = tokio::time::sleep(CA_PAUSE) => {}
                () = shutdown.wait() => return Ok(None),
            }
        }
    }
}

fn pipeline_settings(config: &Config, foundation: &Foundation) -> pipeline::Settings {
    pipeline::Settings {
        mesh: MeshSettings {
            cluster: config.cluster_name.clone(),
            pools: config.workload_pools.prefixes(),
            pod_prefixes: config.pod_prefixes.clone(),
            tunnel_port: config.tunnel_port,
        },
        gateways: config.advertise.clone(),
        audit: foundation.audit.clone(),
    }
}

fn no_longer(reason: &str) -> anyhow::Error {
    anyhow::anyhow!("this gateway serves no longer, and stands by once it is started again: {reason}")
}

/// Waits until the term was over for long enough to have ended in order.
async fn over_for_long(term: &Term) -> String {
    let reason = term.over().await;
    tokio::time::sleep(2 * LINGER).await;
    reason
}

/// Waits until the term is over, if there is one.
async fn over_of(term: Option<&Term>) -> String {
    match term {
        Some(term) => term.over().await,
        None => std::future::pending().await,
    }
}

async fn ended(what: &'static str, serving: impl Future<Output = Result<(), tonic::transport::Error>>) {
    if let Err(error) = serving.await {
        tracing::error!(%error, what, "no longer served");
    }
}

/// Tells the service manager that the runtime turns.
async fn watchdog() {
    let Some(interval) = service::watchdog_interval() else { return std::future::pending().await };
    let mut due = tokio::time::interval(interval);
    loop {
        due.tick().await;
        service::alive();
    }
}

/// Waits for what ends by itself, and cuts the rest.
async fn linger(mut tasks: JoinSet<()>) {
    let finished = async { while tasks.join_next().await.is_some() {} };
    let _cut = tokio::time::timeout(LINGER, finished).await;
    tasks.abort_all();
}
