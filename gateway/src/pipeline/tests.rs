//! From a saved file to an agent's stream, with the real store and the real service.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use futures_util::FutureExt as _;
use pki::{Asked, CheckedCsr, KeyPair, SpiffeId, Svid, TrustDomain};
use policy::identity::Identity;
use proto::node::Node;
use proto::v1::gateway_message::Message;
use proto::v1::mesh_client::MeshClient;
use proto::v1::mesh_server::MeshServer;
use proto::v1::{Ack, AgentMessage, GatewayMessage, Hello, HostReport, Reject, Update, agent_message};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Status, Streaming};

use super::*;
use crate::ca::Ca;
use crate::mesh_view::MeshView as _;
use crate::session::{MeshService, SessionMetrics};
use crate::store::{Joining, Minting, Pools, Proof, Settings as StoreSettings, Target, WorkloadName};
use crate::tls::{Cut, PeerIdentity};

mod folder;
mod sessions;

const GROUP: &str = "{apiVersion: outrigger.dev/v1alpha1, kind: ExternalWorkloadGroup, \
     metadata: {name: db, namespace: shop}, spec: {template: {labels: {app: db}}}}\n";

fn pod(app: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: shop, labels: {{app: {app}}}}}, \
         status: {{podIP: 10.1.0.1}}}}\n"
    )
}

fn policy(port: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: db, namespace: shop}}, \
         spec: {{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{ports: [{{port: {port}}}]}}]}}}}\n"
    )
}

/// A gateway without TLS: what a certificate would prove stands in a header.
struct Gateway {
    folder: TempDir,
    store: Arc<Store>,
    mesh: Arc<Mesh>,
    address: SocketAddr,
    shutdown: Shutdown,
    peers: Arc<std::sync::Mutex<BTreeMap<String, PeerIdentity>>>,
}

fn store(folder: &Path) -> Arc<Store> {
    let pools = Pools::try_new(&["10.9.0.0/24".parse().unwrap()]).unwrap();
    let settings = StoreSettings { pools, cluster_id: 0, quarantine: Duration::from_hours(24) };
    Arc::new(Store::open(&folder.join("state"), settings).unwrap())
}

fn ca(store: &Arc<Store>) -> Arc<Ca> {
    let trust_domain = TrustDomain::try_new("outrigger.local").unwrap();
    Arc::new(Ca::open(store.clone(), &trust_domain, Clock::system().now()).unwrap())
}

fn settings(folder: &Path) -> Settings {
    let mesh = MeshSettings {
        cluster: "default".into(),
        pools: vec!["10.9.0.0/24".parse().unwrap()],
        pod_prefixes: vec!["10.1.0.0/16".parse().unwrap()],
        tunnel_port: 8479,
    };
    let audit = Arc::new(Audit::open(&folder.join("audit.log")).unwrap());
    Settings { mesh, gateways: vec!["gateway:7443".into()], audit }
}

impl Gateway {
    async fn start(manifests: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("manifests")).unwrap();
        for (name, text) in manifests {
            fs::write(folder.path().join("manifests").join(name), text).unwrap();
        }
        let store = store(folder.path());
        Self::start_in(folder, store).await
    }

    async fn start_in(folder: TempDir, store: Arc<Store>) -> Self {
        let opened = folder::open(folder.path(), &store).await;
        let settings = settings(folder.path());
        let (pipeline, mesh) = Pipeline::open(settings, opened, store.clone(), Clock::system()).unwrap();
        let shutdown = Shutdown::default();
        tokio::spawn(pipeline.run(shutdown.clone()));
        let service = MeshService {
            store: store.clone(),
            ca: ca(&store),
            registry: mesh.registry().clone(),
            audit: Arc::new(Audit::open(&folder.path().join("agents.log")).unwrap()),
            feed: mesh.feed(),
            metrics: SessionMetrics::default(),
            clock: Clock::system(),
            shutdown: shutdown.clone(),
        };
        let peers = Arc::default();
        let address = serve(service, Arc::clone(&peers)).await;
        Self { folder, store, mesh, address, shutdown, peers }
    }

    fn save(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join("manifests").join(name), text).unwrap();
    }

    fn join(&self, name: &str, underlay: &str) -> Host {
        self.join_with(name, underlay, None)
    }

    /// Joins with a token that replaces a workload.
    fn join_with(&self, name: &str, underlay: &str, bound_to: Option<WorkloadName>) -> Host {
        let target = Target::Group { namespace: "shop".into(), name: "db".into() };
        let minting = Minting { bound_to, ..Minting::new(target, Duration::from_hours(1)) };
        let now = Clock::system().now();
        let minted = self.store.mint(minting, now).unwrap();
        let csr = CheckedCsr::from_der(&KeyPair::generate().unwrap().request().unwrap()).unwrap();
        let id: SpiffeId = format!("spiffe://outrigger.local/ns/shop/ew/{name}").parse().unwrap();
        let joining = Joining {
            proof: Proof::Token { id: minted.token.id, secret: minted.secret },
            name: WorkloadName::try_new("shop", name).unwrap(),
            key: csr.key_hash(),
            machine: b"machine".to_vec(),
            underlay: vec![underlay.parse().unwrap()],
            source: None,
            agent_version: "1".into(),
            wanted: Vec::new(),
            promised: std::collections::BTreeSet::new(),
        };
        let asked = Asked { csr: &csr, id: &id, now, lifetime: Duration::from_hours(1) };
        let certificate = ca(&self.store).issue(&asked).now_or_never().unwrap().unwrap();
        let workload = self.store.join(&joining, certificate.issued.expires, now).unwrap();
        self.store.gave(&workload.name, certificate.given()).unwrap();
        let svid = Svid::from_der(&certificate.issued.chain[0]).unwrap();
        let peer =
            PeerIdentity { svid: Some(svid), remote: self.address, by_proxy: false, cut: Cut::default() };
        self.peers.lock().unwrap().insert(name.to_owned(), peer);
        Host { name: workload.name.clone(), header: name.to_owned(), address: workload.addresses[0] }
    }

    async fn connect(&self, host: &Host, hello: Hello) -> Result<Stream, Status> {
        self.connect_when(host, std::future::ready(hello)).await
    }

    /// Calls at once, and says hello when it is known.
    async fn connect_when(&self, host: &Host, hello: impl Future<Output = Hello>) -> Result<Stream, Status> {
        let mut client = MeshClient::connect(format!("http://{}", self.address)).await.unwrap();
        let (sender, receiver) = mpsc::channel(8);
        let mut request = Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("peer", host.header.parse().unwrap());
        // Who is refused before its hello hears none.
        let said = async { sender.send(agent(agent_message::Message::Hello(hello.await))).await };
        let (opened, _heard) = tokio::join!(client.sync(request), said);
        Ok(Stream { sender, inbound: opened?.into_inner(), node: Node::default() })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

async fn serve(
    service: MeshService,
    peers: Arc<std::sync::Mutex<BTreeMap<String, PeerIdentity>>>,
) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = MeshServer::with_interceptor(service, move |mut request: Request<()>| {
        let name = request.metadata().get("peer").map(|name| name.to_str().unwrap().to_owned());
        if let Some(peer) = name.and_then(|name| peers.lock().unwrap().get(&name).cloned()) {
            request.extensions_mut().insert(peer);
        }
        Ok(request)
    });
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// A host that joined.
struct Host {
    name: WorkloadName,
    header: String,
    address: IpAddr,
}

/// An agent's end of a session.
struct Stream {
    sender: mpsc::Sender<AgentMessage>,
    inbound: Streaming<GatewayMessage>,
    node: Node,
}

fn agent(message: agent_message::Message) -> AgentMessage {
    AgentMessage { message: Some(message) }
}

fn hello(machine: &str) -> Hello {
    Hello { agent_version: "1".into(), machine: machine.as_bytes().to_vec(), ..Hello::default() }
}

impl Stream {
    async fn next(&mut self) -> Result<Message, Status> {
        let received = tokio::time::timeout(Duration::from_secs(10), self.inbound.message()).await;
        let received = received.expect("the gateway says nothing for 10 s")?;
        Ok(received.expect("the gateway ended the stream").message.unwrap())
    }

    /// The next update, applied and not confirmed.
    async fn update(&mut self) -> Update {
        let message = self.next().await.unwrap();
        let Message::Update(update) = message else { panic!("{message:?}") };
        assert!(update.last, "these states fit into one chunk");
        if update.base.is_none() {
            self.node = Node::default();
        }
        self.node.apply(&update.parts).unwrap();
        update
    }

    async fn say(&self, message: agent_message::Message) {
        self.sender.send(agent(message)).await.unwrap();
    }

    /// The next update, applied and confirmed.
    async fn follow(&mut self) -> Update {
        let update = self.update().await;
        self.say(agent_message::Message::Ack(Ack { generation: update.generation, ..Ack::default() })).await;
        update
    }

    /// Identity, previous and mark of an address.
    fn on_wire(&self, address: &str) -> (u32, Option<u32>, u32) {
        let state = self.node.state().unwrap();
        let endpoint = state.endpoints.get(&address.parse().unwrap()).unwrap();
        (endpoint.identity.get(), endpoint.previous.map(Identity::get), endpoint.mark.get())
    }

    fn tunnels(&self, address: IpAddr) -> Vec<IpAddr> {
        self.node.state().unwrap().endpoints.get(&address).unwrap().tunnels.to_vec()
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_file_reaches_the_agent_at_once_and_a_broken_one_changes_nothing() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into()), ("policy.yaml", policy("80"))]).await;
    let host = gateway.join("db-1", "192.0.2.1");
    let mut stream = gateway.connect(&host, hello("one")).await.unwrap();
    let snapshot = stream.follow().await;
    assert_eq!(snapshot.base, None);
    let state = stream.node.state().unwrap();
    assert_eq!(state.settings.addresses, [host.address]);
    assert_eq!(stream.node.gateways(), ["gateway:7443"]);
    assert_eq!(state.policy.ingress.rules.len(), 1);

    let started = Instant::now();
    gateway.save("policy.yaml", &policy("443"));
    let delta = stream.follow().await;
    assert!(started.elapsed() < Duration::from_secs(1), "after {:?}", started.elapsed());
    assert_eq!(delta.base, snapshot.generation);
    assert_ne!(stream.node.state().unwrap().policy, state.policy);

    gateway.save("policy.yaml", &policy("99999"));
    let told = stream.follow().await;
    assert_eq!(told.base, delta.generation);
    let state = stream.node.state().unwrap();
    assert!(
        matches!(&*state.settings.rejected, [one] if one.starts_with("NetworkPolicy/shop/db: ")),
        "{state:?}"
    );
    let policy_text = format!("{:?}", state.policy);
    assert!(policy_text.contains("443"), "the last good version stays: {policy_text}");
    eventually("it is reported", || !gateway.mesh.summary().rejected.is_empty()).await;
    let rejected = gateway.mesh.summary().rejected;
    assert!(
        matches!(&*rejected, [one] if one.last_good_in_force && one.file == "policy.yaml:1"),
        "{rejected:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_last_good_is_in_force_after_a_restart() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into()), ("policy.yaml", policy("80"))]).await;
    let host = gateway.join("db-1", "192.0.2.1");
    gateway.save("policy.yaml", "broken: [");
    gateway.save("group.yaml", "");
    eventually("both are reported", || gateway.mesh.summary().rejected.len() == 2).await;
    let (store, manifests) = (gateway.store.clone(), gateway.folder.path().join("manifests"));
    gateway.shutdown.trigger();
    let other = tempfile::tempdir().unwrap();
    fs::rename(&manifests, other.path().join("manifests")).unwrap();
    let gateway = Gateway::start_in(other, store).await;
    let summary = gateway.mesh.summary();
    assert_eq!((summary.policies, summary.rejected.len(), summary.synced), (1, 2, true), "{summary:?}");
    let view = gateway.mesh.workload(&host.name).unwrap();
    assert_eq!(view.policies, ["NetworkPolicy/shop/db"]);
    assert!(view.ingress_default_deny && !view.egress_default_deny);
    assert!(gateway.mesh.group_exists("shop", "db"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relabel_is_told_in_the_phases_that_agents_confirm() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into()), ("pod.yaml", pod("web"))]).await;
    let host = gateway.join("db-1", "192.0.2.1");
    let mut stream = gateway.connect(&host, hello("one")).await.unwrap();
    stream.follow().await;
    let (before, _, _) = stream.on_wire("10.1.0.1");
    gateway.save("pod.yaml", &pod("web2"));
    let update = stream.update().await;
    let (after, previous, mark) = stream.on_wire("10.1.0.1");
    assert_eq!((previous, mark), (Some(before), before));
    assert_ne!(after, before);
    let silence = tokio::time::timeout(Duration::from_millis(200), stream.inbound.message()).await;
    assert!(silence.is_err(), "the next phase waits for the ack: {silence:?}");
    stream.say(agent_message::Message::Ack(Ack { generation: update.generation, ..Ack::default() })).await;
    stream.follow().await;
    assert_eq!(stream.on_wire("10.1.0.1"), (after, Some(before), after));
    stream.follow().await;
    assert_eq!(stream.on_wire("10.1.0.1"), (after, None, after));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_moves_is_told_to_the_others() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into())]).await;
    let (one, two) = (gateway.join("db-1", "192.0.2.1"), gateway.join("db-2", "192.0.2.2"));
    let mut at_one = gateway.connect(&one, hello("one")).await.unwrap();
    let mut at_two = gateway.connect(&two, hello("two")).await.unwrap();
    at_one.follow().await;
    at_two.follow().await;
    while !at_one.node.state().unwrap().endpoints.contains_key(&two.address) {
        at_one.follow().await;
    }
    assert_eq!(at_one.tunnels(two.address), ["192.0.2.2".parse::<IpAddr>().unwrap()]);
    let moved: IpAddr = "192.0.2.22".parse().unwrap();
    let underlay_addresses = vec![proto::convert::address_to_wire(moved)];
    let report = HostReport { underlay_addresses, ..HostReport::default() };
    at_two.say(agent_message::Message::Report(report)).await;
    while at_one.tunnels(two.address) != [moved] {
        at_one.follow().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_workload_is_cut_off_and_gone_for_all() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into())]).await;
    let (one, two) = (gateway.join("db-1", "192.0.2.1"), gateway.join("db-2", "192.0.2.2"));
    let mut at_one = gateway.connect(&one, hello("one")).await.unwrap();
    let mut at_two = gateway.connect(&two, hello("two")).await.unwrap();
    at_one.follow().await;
    at_two.follow().await;
    gateway.store.remove(&two.name, Clock::system().now(), "deleted").unwrap();
    let status = loop {
        match at_two.next().await {
            Ok(_update) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    while at_one.node.state().unwrap().endpoints.contains_key(&two.address) {
        at_one.follow().await;
    }
    let refused = gateway.connect(&two, hello("two")).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_workload_is_cut_off_and_its_successor_let_in() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into())]).await;
    let old = gateway.join("db-1", "192.0.2.1");
    let mut at_old = gateway.connect(&old, hello("one")).await.unwrap();
    at_old.follow().await;
    let new = gateway.join_with("db-1", "192.0.2.2", Some(old.name.clone()));
    assert_eq!(new.address, old.address);
    let status = loop {
        match at_old.next().await {
            Ok(_update) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let mut at_new = gateway.connect(&new, hello("two")).await.unwrap();
    at_new.follow().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_opened_before_a_replacement_does_not_end_the_successors_session() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into())]).await;
    let old = gateway.join("db-1", "192.0.2.1");
    let (says, said) = tokio::sync::oneshot::channel();
    let replacing = async {
        tokio::time::sleep(Duration::from_millis(200)).await; // The call has arrived.
        let new = gateway.join_with("db-1", "192.0.2.2", Some(old.name.clone()));
        let mut at_new = gateway.connect(&new, hello("two")).await.unwrap();
        at_new.follow().await;
        says.send(hello("one")).map(|()| at_new).unwrap()
    };
    let late = gateway.connect_when(&old, async { said.await.unwrap() });
    let (late, mut at_new) = tokio::join!(late, replacing);
    assert_eq!(late.err().unwrap().code(), Code::PermissionDenied);
    gateway.join("db-2", "192.0.2.3");
    at_new.follow().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_machine_has_one_session_and_a_copy_has_none() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into())]).await;
    let host = gateway.join("db-1", "192.0.2.1");
    let mut first = gateway.connect(&host, hello("one")).await.unwrap();
    first.follow().await;
    let refused = gateway.connect(&host, hello("copy")).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with("DuplicateHost: "), "{refused}");
    let view = gateway.mesh.workload(&host.name).unwrap();
    assert!(view.connected && view.conditions["DuplicateHost"].status);
    let mut second = gateway.connect(&host, hello("one")).await.unwrap();
    assert_eq!(first.next().await.unwrap_err().code(), Code::Aborted);
    second.follow().await;
    assert!(!gateway.mesh.workload(&host.name).unwrap().conditions.contains_key("DuplicateHost"));
    drop(second);
    eventually("the session is over", || !gateway.mesh.workload(&host.name).unwrap().connected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_has_the_state_is_told_so_and_a_refusal_is_shown() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into())]).await;
    let host = gateway.join("db-1", "192.0.2.1");
    let mut stream = gateway.connect(&host, hello("one")).await.unwrap();
    let update = stream.update().await;
    let reason = "a route would cut the host off".to_owned();
    stream
        .say(agent_message::Message::Reject(Reject {
            generation: update.generation,
            reason: reason.clone(),
            contradicts: false,
        }))
        .await;
    let view = || gateway.mesh.workload(&host.name).unwrap();
    eventually("the refusal is shown", || view().rejected_reason == reason).await;
    let with_state =
        |generation, digest: &[u8]| Hello { applied: generation, digest: digest.to_vec(), ..hello("one") };
    let known = with_state(update.generation, &stream.node.digest());
    let mut stream = gateway.connect(&host, known).await.unwrap();
    assert!(matches!(stream.next().await.unwrap(), Message::UpToDate(_)));
    eventually("it counts as applied", || view().acked_generation == update.generation.unwrap().counter)
        .await;
    let mut newer = update.generation.unwrap();
    newer.counter += 1;
    let mut stream = gateway.connect(&host, with_state(Some(newer), &[])).await.unwrap();
    assert!(matches!(stream.next().await.unwrap(), Message::Behind(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_early_callers_are_refused() {
    let gateway = Gateway::start(&[("group.yaml", GROUP.into())]).await;
    let mut host = gateway.join("db-1", "192.0.2.1");
    let nobody = PeerIdentity { svid: None, remote: gateway.address, by_proxy: false, cut: Cut::default() };
    gateway.peers.lock().unwrap().insert("nobody".into(), nobody);
    host.header = "nobody".into();
    assert_eq!(gateway.connect(&host, hello("one")).await.err().unwrap().code(), Code::Unauthenticated);
    host.header = "no-tls".into();
    assert_eq!(gateway.connect(&host, hello("one")).await.err().unwrap().code(), Code::Unauthenticated);
    host.header = "db-1".into();
    let (_sender, feed) = watch::channel(None);
    let service = MeshService {
        store: gateway.store.clone(),
        ca: ca(&gateway.store),
        registry: Arc::default(),
        audit: Arc::new(Audit::open(&gateway.folder.path().join("others.log")).unwrap()),
        feed,
        metrics: SessionMetrics::default(),
        clock: Clock::system(),
        shutdown: Shutdown::default(),
    };
    let address = serve(service, Arc::clone(&gateway.peers)).await;
    let mut client = MeshClient::connect(format!("http://{address}")).await.unwrap();
    let mut request = Request::new(tokio_stream::once(agent(agent_message::Message::Hello(hello("one")))));
    request.metadata_mut().insert("peer", "db-1".parse().unwrap());
    assert_eq!(client.sync(request).await.unwrap_err().code(), Code::Unavailable);
}
