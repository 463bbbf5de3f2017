//! A gateway whose state is in a cluster is one of several: it stands by until it has the lease.

use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::Client;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use telemetry::health::Health;
use telemetry::listener::Listener;
use telemetry::service;
use telemetry::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::listen;
use crate::clock::Clock;
use crate::config::{Config, Replicas, Source, State};
use crate::election::{Election, Leader, Replica, Term};
use crate::ledger::ClusterLedger;
use crate::replicas::{Forwarder, TermKeys, take_over, tell_ended};
use crate::source::cluster;
use crate::store::Beginning;
use crate::tls::Stream;

/// Between two attempts to write the keys of the term.
const AGAIN: Duration = Duration::from_secs(2);
/// Connections of other replicas that wait to be looked at.
const WAITING: usize = 16;

/// One of several gateways, which does not serve yet.
pub(super) struct StandBy {
    client: Client,
    namespace: String,
    clock: Clock,
    /// Whoever waits for the store may hold up a thread of the main one, and must not hold up what is waited for.
    runtime: ManuallyDrop<Runtime>,
    listener: TcpListener,
    address: SocketAddr,
    replica: Replica,
    metrics: ReplicaMetrics,
}

/// One that has the lease.
pub(super) struct Leading {
    pub(super) ledger: Arc<ClusterLedger>,
    pub(super) term: Term,
    pub(super) metrics: ReplicaMetrics,
    /// Answers probes until others do.
    standing: Option<Standing>,
    client: Client,
    namespace: String,
    listener: TcpListener,
    address: SocketAddr,
    /// Where the one before took connections over, and the keys of then: it may not know that its term is over.
    before: Option<(TermKeys, SocketAddr)>,
}

/// Metrics and health of a gateway that stands by.
struct Standing {
    shutdown: Shutdown,
    health: Health,
    metrics: JoinHandle<()>,
}

/// What is counted of replicas.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplicaMetrics {
    leader: Gauge,
    handed_on: Counter,
    lost: Counter,
}

impl ReplicaMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("outrigger_gateway");
        let leader = "Whether this gateway serves (1), or hands connections on to the one that does (0)";
        registry.register("leader", leader, self.leader.clone());
        let handed_on = "Connections that were handed on to the gateway that serves";
        registry.register("connections_handed_on", handed_on, self.handed_on.clone());
        let lost = "Connections that were closed because no gateway took them";
        registry.register("connections_not_handed_on", lost, self.lost.clone());
    }

    pub(super) fn leads(&self) {
        self.leader.set(1);
    }
}

impl StandBy {
    /// `None` where the state is in a folder, which one process alone can have.
    pub(super) async fn try_new(config: &Config, clock: &Clock) -> Result<Option<Self>> {
        let (State::Kubernetes { namespace, replicas }, Source::Kubernetes(settings)) =
            (&config.state, &config.source)
        else {
            return Ok(None);
        };
        let replica = open_replica(&config.state_dir)?;
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("ledger").enable_all().build()?;
        // To end it would wait, which no thread of another one may.
        let runtime = ManuallyDrop::new(runtime);
        let connecting = {
            let settings = settings.clone();
            runtime.spawn(async move { cluster::client(&settings).await })
        };
        let client = connecting.await?.context("the cluster that has the state")?;
        let namespace = namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let listener = listen(replicas.listen)
            .with_context(|| format!("cannot listen on {} (`replicaListen`)", replicas.listen))?;
        let address = address(replicas, listener.local_addr()?, settings).await?;
        let (clock, metrics) = (clock.clone(), ReplicaMetrics::default());
        Ok(Some(Self { client, namespace, clock, runtime, listener, address, replica, metrics }))
    }

    /// Hands connections on until the lease is this one's; `None` if the gateway is to end before that.
    pub(super) async fn stand_by(
        self,
        config: &Config,
        hosts: &TcpListener,
        shutdown: &Shutdown,
    ) -> Result<Option<(Leading, Replica)>> {
        let run = Beginning::random().run;
        let election = Election::new(self.client.clone(), &self.namespace, &self.replica, run);
        let leader = election.leader();
        let forwarder = Forwarder {
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            trust_domain: config.trust_domain.clone(),
            clock: self.clock.clone(),
            leader: leader.clone(),
            connections: config.max_connections,
            keys: Arc::default(),
            handed_on: self.metrics.handed_on.clone(),
            lost: self.metrics.lost.clone(),
        };
        let (health, standing) = (Health::default(), Shutdown::default());
        let mut registry = Registry::default();
        self.metrics.register(&mut registry);
        let metrics = Listener::bind(config.metrics_listen, Arc::new(registry), health.clone()).await?;
        let metrics = tokio::spawn(metrics.serve(standing.clone()));
        let winning = self.runtime.spawn(election.win());
        let won = tokio::select! {
            won = winning => won?,
            () = forwarder.run(hosts) => bail!("connections are not handed on any more"),
            () = tell(leader, health.clone()) => bail!("it is not told any more who serves"),
            () = super::watchdog() => bail!("the service manager is not told any more that this gateway runs"),
            () = shutdown.wait() => return Ok(None),
        };
        Ok(Some(self.led(config, won, Standing { shutdown: standing, health, metrics }).await))
    }

    async fn led(
        self,
        config: &Config,
        (term, before): (Term, Leader),
        standing: Standing,
    ) -> (Leading, Replica) {
        standing.health.unready("leader", "this gateway has the lease and begins to serve");
        let Self { client, namespace, clock, runtime, listener, address, replica, metrics } = self;
        runtime.spawn(term.clone().renew());
        let keys = TermKeys::read(&client, &namespace, &config.trust_domain, clock).await;
        // A process before this one of the same replica is gone.
        let other = before.address.filter(|_| before.name != replica.name());
        let before = match (keys, other) {
            (Ok(Some(keys)), Some(address)) => Some((keys, address)),
            (Err(error), _) => {
                tracing::warn!(%error, "the keys of the term before are not known");
                None
            }
            (Ok(_), _) => None,
        };
        tracing::info!(replica = replica.name(), "this gateway has the lease and serves");
        let ledger = ClusterLedger::new(client.clone(), namespace.clone(), runtime, term.clone());
        let leading = Leading {
            ledger: Arc::new(ledger),
            term,
            metrics,
            standing: Some(standing),
            client,
            namespace,
            listener,
            address,
            before,
        };
        (leading, replica)
    }
}

impl Leading {
    /// Ends what answers probes: others do now, on the same port.
    pub(super) async fn stands_no_longer(&mut self) {
        if let Some(Standing { shutdown, metrics, .. }) = self.standing.take() {
            shutdown.trigger();
            let _ended = metrics.await;
        }
    }

    /// Begins to take over connections of others.
    pub(super) fn take_over(
        self,
        config: &Config,
        clock: &Clock,
        background: &mut JoinSet<()>,
    ) -> Result<mpsc::Receiver<(Stream, SocketAddr)>> {
        let Self { term, client, namespace, listener, address, before, .. } = self;
        let keys = TermKeys::create(&config.trust_domain, clock.clone())?;
        let (connections, handed) = mpsc::channel(WAITING);
        if let Some((keys, address)) = before {
            background.spawn(tell_ended(keys, address));
        }
        background.spawn(async move {
            while let Err(error) = keys.write(&client, &namespace).await {
                tracing::warn!(%error, "no other gateway can hand connections on yet");
                tokio::time::sleep(AGAIN).await;
            }
            match take_over(listener, keys, connections, term.clone()) {
                Ok(taking) => {
                    term.serve_at(address);
                    taking.await;
                }
                Err(error) => tracing::error!(%error, "no other gateway can hand connections on"),
            }
        });
        Ok(handed)
    }
}

fn open_replica(folder: &Path) -> Result<Replica> {
    let host = nix::unistd::gethostname().context("the name of this machine")?;
    Ok(Replica::open(folder, &host.to_string_lossy())?)
}

async fn address(
    replicas: &Replicas,
    listens: SocketAddr,
    settings: &cluster::Settings,
) -> Result<SocketAddr> {
    if let Some(address) = replicas.address {
        return Ok(address);
    }
    if !listens.ip().is_unspecified() {
        return Ok(listens);
    }
    let own = cluster::address_towards(settings).await?;
    let own = own.context(
        "there is no way to the API server: `replicaAddress` says where other gateways reach this one",
    )?;
    Ok(SocketAddr::new(own, listens.port()))
}

/// Tells whoever asks for health and status who serves.
async fn tell(mut leader: watch::Receiver<Leader>, health: Health) {
    loop {
        let now = leader.borrow_and_update().clone();
        if now.address.is_some() {
            health.ready("leader");
            service::ready(&format!("standing by for {}", now.name));
        } else {
            health.unready("leader", "no gateway serves that connections could be handed on to");
            service::status("waiting for the lease");
        }
        if leader.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
