//! A gateway in this process: the real services behind real TLS on loopback, with a clock that tests turn.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gateway::accounts::Accounts;
use gateway::admin::AdminService;
use gateway::audit::Audit;
use gateway::ca::{Ca, External, Signer};
use gateway::clock::Clock;
use gateway::config::{Nodes, Source};
use gateway::enrollment::{EnrollmentService, Settings};
use gateway::index::MeshSettings;
use gateway::mesh_view::MeshView;
use gateway::metrics::Metrics;
use gateway::pipeline::{self, Pipeline};
use gateway::server::{self, Services};
use gateway::session::{MeshService, Registry, SessionMetrics};
use gateway::source::Opened;
use gateway::store::{self, Pools, Store, unix_time};
use gateway::tls::{self, ConnectionMetrics, Incoming, OwnCertificate};
use pki::{Authority, SpiffeId, TrustDomain, UnixTime};
use rustls::time_provider::TimeProvider;
use telemetry::shutdown::Shutdown;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// The group of the tests, in the only manifest.
const MANIFEST: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: outrigger.dev/v1alpha1
kind: ExternalWorkloadGroup
metadata: {name: db, namespace: shop}
spec:
  template:
    labels: {app: db}
";
/// The time at which tests begin: 2026-01-01.
const START: u64 = 1_767_225_600;
/// How long certificates are valid.
pub(crate) const TTL: Duration = Duration::from_hours(24);
/// How long an authority elsewhere may take: less than a stranger may.
const DEADLINE: Duration = Duration::from_secs(2);
/// How many connections there may be.
pub(crate) const CONNECTIONS: usize = 200;
/// How long a connection without a certificate lasts.
pub(crate) const STRANGER: Duration = Duration::from_secs(3);
/// How long after its end a certificate may be renewed.
pub(crate) const GRACE: Duration = Duration::from_hours(90 * 24);

/// A clock that tests turn.
#[derive(Debug, Default)]
pub(crate) struct Hands(AtomicU64);

impl Hands {
    pub(crate) fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

impl TimeProvider for Hands {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.load(Ordering::SeqCst)))
    }
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) hands: Arc<Hands>,
    pub(crate) store: Arc<Store>,
    pub(crate) ca: Arc<Ca>,
    /// The first root; `None`: somebody else signs.
    own: Option<Arc<Authority>>,
    /// When the test began.
    pub(crate) begun: UnixTime,
    pub(crate) trust_domain: TrustDomain,
    /// Who is connected; empty until it serves.
    pub(crate) registry: OnceLock<Arc<Registry>>,
    /// What is counted of connections.
    pub(crate) connections: ConnectionMetrics,
    folder: TempDir,
    shutdown: Shutdown,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// With more manifests.
    pub(crate) async fn with(more: &str) -> Self {
        Self::of(more, START, |store, trust_domain, now| Ca::open(store, trust_domain, now).unwrap()).await
    }

    /// A gateway that another one signs for, whose clock is the system's.
    pub(crate) async fn signed_by(signer: Arc<dyn Signer>, trust_bundle: Option<PathBuf>) -> Self {
        let begun = Clock::system().now().as_secs();
        let ca = |store, trust_domain: &_, now| {
            let external = External { signer, trust_bundle, deadline: DEADLINE };
            Ca::open_external(store, trust_domain, external, now).unwrap()
        };
        Self::of("", begun, ca).await
    }

    async fn of(more: &str, begun: u64, ca: impl FnOnce(Arc<Store>, &TrustDomain, UnixTime) -> Ca) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        std::fs::write(manifests.join("shop.yaml"), MANIFEST).unwrap();
        std::fs::write(manifests.join("more.yaml"), more).unwrap();
        let hands = Arc::new(Hands(AtomicU64::new(begun)));
        let clock = Clock::new(hands.clone());
        let pools = Pools::try_new(&["10.9.0.0/24".parse().unwrap(), "fd09::/112".parse().unwrap()]).unwrap();
        let prefixes = pools.prefixes();
        let settings = store::Settings { pools, cluster_id: 0, quarantine: TTL };
        let store = Arc::new(Store::open(&folder.path().join("state"), settings).unwrap());
        let trust_domain = TrustDomain::try_new("outrigger.local").unwrap();
        let ca = Arc::new(ca(store.clone(), &trust_domain, clock.now()));
        let own = ca.roots().all().first().and_then(|root| root.authority.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = folder.path().join("admin.sock");
        let gateway = Self {
            address,
            socket,
            hands,
            store,
            ca,
            own,
            begun: unix_time(begun),
            trust_domain,
            registry: OnceLock::new(),
            connections: ConnectionMetrics::default(),
            folder,
            shutdown: Shutdown::default(),
        };
        let mesh = MeshSettings {
            cluster: "default".to_owned(),
            pools: prefixes,
            pod_prefixes: vec![],
            tunnel_port: 8479,
        };
        let audit = Arc::new(Audit::open(&gateway.audit_log()).unwrap());
        let settings = pipeline::Settings { mesh, gateways: vec![], audit };
        let kept = gateway.store.kept_objects().unwrap();
        let opened = Opened::of(&Source::Files(manifests), &kept, None).await.unwrap();
        gateway.serve(listener, &clock, settings, opened).await;
        gateway
    }

    async fn serve(
        &self,
        listener: TcpListener,
        clock: &Clock,
        settings: pipeline::Settings,
        opened: Opened,
    ) {
        let (pipeline, mesh) = Pipeline::open(settings, opened, self.store.clone(), clock.clone()).unwrap();
        tokio::spawn(pipeline.run(self.shutdown.clone()));
        self.registry.set(mesh.registry().clone()).unwrap();
        let services = self.services(clock, &mesh);
        let id = SpiffeId::gateway(&self.trust_domain, "g1").unwrap();
        let own = OwnCertificate::issue(self.ca.clone(), id, clock.now()).await.unwrap();
        // A server whose own certificate never expires in a test that turns the clock.
        let trust = tls::trust(&self.ca).unwrap();
        let tls = pki::tls::server_trusting(trust.clone(), &self.trust_domain, own.serving(), clock.source());
        let tls = tls.unwrap();
        tokio::spawn(tls::follow_roots(trust, self.ca.clone(), self.shutdown.clone()));
        // Renewed when another root signs; as old as the test otherwise.
        tokio::spawn(own.keep_fresh(Clock::new(Arc::new(Hands(AtomicU64::new(self.begun.as_secs()))))));
        let limits = tls::Limits {
            handshake: Duration::from_secs(2),
            handshakes: 16,
            stranger: STRANGER,
            connections: CONNECTIONS,
            per_source: 0,
            proxies: Vec::new(),
        };
        let (connections, accepting) = tls::incoming(
            Incoming { own: listener, handed: mpsc::channel(1).1 },
            Arc::new(tls),
            limits,
            self.connections.clone(),
            self.shutdown.clone(),
        );
        tokio::spawn(accepting);
        let socket = config::bind_socket(&self.socket, "gateway").unwrap();
        let socket = tokio::net::UnixListener::from_std(socket).unwrap();
        tokio::spawn(server::serve_socket(socket, services.admin.clone(), self.shutdown.clone()));
        tokio::spawn(server::serve_tls(connections, services, self.shutdown.clone()));
    }

    fn services(&self, clock: &Clock, mesh: &Arc<pipeline::Mesh>) -> Services {
        let view: Arc<dyn MeshView> = mesh.clone();
        let (store, ca) = (self.store.clone(), self.ca.clone());
        let audit = Arc::new(Audit::open(&self.audit_log()).unwrap());
        let metrics = Metrics::default();
        let settings = Arc::new(Settings {
            trust_domain: self.trust_domain.clone(),
            certificate_ttl: TTL,
            renew_grace: GRACE,
            gateways: vec![self.address.to_string()],
        });
        Services {
            enrollment: EnrollmentService {
                store: store.clone(),
                ca: ca.clone(),
                accounts: Arc::new(Accounts::new(None, Nodes::default())),
                mesh: view.clone(),
                audit: audit.clone(),
                metrics: metrics.clone(),
                clock: clock.clone(),
                settings: settings.clone(),
            },
            mesh: MeshService {
                store: store.clone(),
                ca: ca.clone(),
                registry: mesh.registry().clone(),
                audit: audit.clone(),
                feed: mesh.feed(),
                metrics: SessionMetrics::default(),
                clock: clock.clone(),
                shutdown: self.shutdown.clone(),
            },
            admin: AdminService { store, ca, mesh: view, audit, metrics, clock: clock.clone(), settings },
        }
    }

    /// The first root, of a gateway that signs itself.
    pub(crate) fn authority(&self) -> &Authority {
        self.own.as_deref().unwrap()
    }

    /// The time here.
    pub(crate) fn now(&self) -> UnixTime {
        self.hands.current_time().unwrap()
    }

    fn audit_log(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    /// What was written down.
    pub(crate) fn audited(&self) -> String {
        std::fs::read_to_string(self.audit_log()).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}
