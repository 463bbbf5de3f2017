//! The owner of kernel state on the real kernel, each test on a host of its own. Needs root and the BPF object.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "fixtures fail where they stand")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use datapath::{Direction, Reason};
use futures_util::StreamExt;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use policy::identity::Identity;
use policy::pages::Pages;
use policy::state::{
    Default as DefaultVerdict, DirectionPolicy, Endpoint, EndpointKind, Mode, NodeSettings, NodeState,
    Policy, Role,
};
use telemetry::pulse::Pulse;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vm_agent::kernel::{
    Applied, Counter, Kernel, KernelConfig, KernelError, KernelStatus, NicConfig, Silent, TableSizes, Tag,
    Target, TraceQuery, remove,
};

#[path = "kernel/hazards.rs"]
mod hazards;
#[path = "kernel/network.rs"]
mod network;

const BPFFS: &str = "/sys/fs/bpf";
const LIMIT: Duration = Duration::from_secs(20);

/// Runs a test on a host of its own: a network namespace with one NIC and a BPF file system, both gone when the
/// thread is. The thread enters first, the runtime is built after.
fn isolated<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let host = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces need root");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), none).unwrap();
        for line in
            ["link set lo up", "link add eth0 type veth peer name far", "address add 192.0.2.2/24 dev eth0"]
        {
            ip(line);
        }
        for line in ["link set eth0 up", "link set far up", "route add default via 192.0.2.1"] {
            ip(line);
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    host.join().unwrap();
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn config() -> KernelConfig {
    KernelConfig {
        mesh: "default".to_owned(),
        device: "ogr0".to_owned(),
        bpffs: format!("{BPFFS}/outrigger").into(),
        mtu: None,
        allowed_cidrs: None,
        underlay_addresses: Vec::new(),
        sizes: TableSizes { endpoints: 64, ..TableSizes::default() },
        verify_every: Duration::from_millis(200),
        nic: NicConfig::unwatched(),
        silent: watch::channel(Silent::default()).1,
    }
}

fn endpoint(identity: u32, tunnels: &[&str], kind: EndpointKind) -> Endpoint {
    let identity = Identity::try_new(identity).unwrap();
    let tunnels = Arc::new(tunnels.iter().map(|address| address.parse().unwrap()).collect());
    Endpoint { identity, previous: None, mark: identity, tunnels, kind, owner: None }
}

fn pod(tunnels: &[&str]) -> Endpoint {
    endpoint(3000, tunnels, EndpointKind::Pod { behind: Arc::new(BTreeSet::new()) })
}

fn state() -> NodeState {
    let own = "10.244.240.7";
    let open = DirectionPolicy { default: DefaultVerdict::Allow, rules: Vec::new() };
    let closed = DefaultVerdict::Deny { by: vec!["NetworkPolicy/shop/db".to_owned()] };
    let identity = Identity::try_new(4000).unwrap();
    NodeState {
        endpoints: Pages::from_iter([
            (own.parse().unwrap(), endpoint(4000, &["192.0.2.2"], EndpointKind::Workload)),
            ("10.244.1.5".parse().unwrap(), pod(&["192.0.2.9", "192.0.2.10"])),
        ]),
        identities: Pages::new(),
        policy: Arc::new(Policy {
            ingress: DirectionPolicy { default: closed, rules: Vec::new() },
            egress: open,
        }),
        settings: NodeSettings {
            workload: "shop/db".to_owned(),
            identity,
            mark: identity,
            addresses: vec![own.parse().unwrap(), "fd00:244::7".parse().unwrap()],
            prefixes: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/64".parse().unwrap()],
            role: Role::Host,
            mode: Mode::Enforce,
            tunnel_port: 8479,
            rejected: Vec::new(),
            nic: None,
            partly_enforced: Vec::new(),
            probes: Vec::new(),
        },
    }
}

fn target(counter: u64, state: NodeState) -> Arc<Target> {
    let tag = Some(Tag { incarnation: 1, counter, origin: 0 });
    Arc::new(Target { tag, state: Arc::new(state), protected: Vec::new() })
}

/// A running owner of kernel state.
struct Running {
    kernel: Kernel,
    targets: watch::Sender<Option<Arc<Target>>>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(config: KernelConfig, first: Arc<Target>) -> Self {
        let (targets, receiver) = watch::channel(Some(first));
        let (kernel, reconcile) = Kernel::start(config, receiver).await.unwrap();
        Self { kernel, targets, task: tokio::spawn(reconcile.run(Pulse::unwatched())) }
    }

    async fn wait(&self, what: &str, mut condition: impl FnMut(&Applied) -> bool) -> Applied {
        let mut applied = self.kernel.applied();
        let found = timeout(LIMIT, applied.wait_for(|applied| condition(applied))).await;
        found
            .unwrap_or_else(|_| panic!("{what} did not come: {:?}", self.kernel.applied().borrow()))
            .unwrap()
            .clone()
    }

    async fn applied(&self, counter: u64) -> Applied {
        self.wait("the target", |applied| applied.tag.is_some_and(|tag| tag.counter == counter)).await
    }

    async fn refused(&self, counter: u64) -> String {
        let is = |applied: &Applied| {
            applied.refused.as_ref().is_some_and(|refused| refused.tag.counter == counter)
        };
        self.wait("the refusal", is).await.refused.unwrap().reason
    }

    /// Waits until the network of the target in force lacks something; returns what.
    async fn troubled(&self, counter: u64) -> String {
        let is = |applied: &Applied| {
            applied.trouble.is_some() && applied.tag.is_some_and(|tag| tag.counter == counter)
        };
        self.wait("the trouble", is).await.trouble.unwrap()
    }

    async fn status(&self, what: &str, mut condition: impl FnMut(&KernelStatus) -> bool) {
        let mut status = self.kernel.status();
        let found = timeout(LIMIT, status.wait_for(|status| condition(status))).await;
        assert!(found.is_ok(), "{what} did not come: {:?}", self.kernel.status().borrow());
    }

    /// Someone deletes the device; waits until another one is in its place.
    async fn loses_its_device(&self) {
        let index = |status: &KernelStatus| status.device.as_ref().map(|device| device.index);
        self.status("the device", |status| index(status).is_some()).await;
        let before = index(&self.kernel.status().borrow());
        ip("link delete ogr0");
        let restored = |status: &KernelStatus| {
            index(status) != before
                && status.device.as_ref().is_some_and(|device| device.up && device.routes.len() == 2)
        };
        self.status("another device", restored).await;
    }

    /// Dies without a word, as by SIGKILL.
    async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }
}

fn routes() -> String {
    ip("route show proto 157") + &ip("-6 route show proto 157")
}

/// Links by name and the routes that are no link-local ones: the rest changes with the carrier of a cable.
fn network() -> Vec<String> {
    let links = ip("-o link");
    let names = links.lines().filter_map(|line| line.split_whitespace().nth(1));
    let routes = ip("route") + &ip("-6 route");
    let routes =
        routes.lines().filter(|line| !line.starts_with("fe80::")).map(|line| line.replace(" linkdown", ""));
    names.map(ToOwned::to_owned).chain(routes.map(|line| line.trim().to_owned())).collect()
}

#[test]
fn a_state_becomes_device_routes_hooks_and_tables() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        let applied = host.applied(1).await;
        assert_eq!((applied.epoch, applied.refused), (1, None));
        let routes = routes();
        for line in ["10.244.0.0/16 dev ogr0", "unreachable 10.244.0.0/16", "unreachable fd00:244::/64"] {
            assert!(routes.contains(line), "{line} is missing in {routes}");
        }
        host.status("every hook", |status| {
            let attached = |hook: &str, device: &str| {
                status
                    .hooks
                    .iter()
                    .any(|found| found.hook == hook && found.device == device && found.attached.is_some())
            };
            attached("mesh_ingress", "ogr0")
                && attached("mesh_egress", "ogr0")
                && attached("guard_ingress", "eth0")
        })
        .await;
        let status = host.kernel.status().borrow().clone();
        assert_eq!(status.device.unwrap().mtu, 1450);
        assert_eq!(status.entries.get("ENDPOINTS"), Some(&2));
        assert_eq!(status.entries.get("TUNNELS"), Some(&2));
        assert_eq!(status.publications, 1);
        let memory = host.kernel.memory().unwrap();
        assert!(memory.iter().any(|map| map.map == "ENDPOINTS" && map.bytes > 0), "{memory:?}");
        assert!(host.kernel.rules().borrow().values().any(|name| name.contains("NetworkPolicy/shop/db")));
    });
}

#[test]
fn a_kernel_outlives_its_owner_and_is_adopted() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        // The status comes after the grace period, when nothing is left to be done.
        host.status("the device", |status| status.device.is_some()).await;
        let device = ip("link show dev ogr0");
        host.kill().await;
        assert_eq!(ip("link show dev ogr0"), device, "nothing changes without the owner");

        let host = Running::start(config(), target(7, state())).await;
        assert_eq!(host.applied(7).await.epoch, 1, "the same state is not published again");
        assert_eq!(host.kernel.status().borrow().publications, 0);
        assert_eq!(ip("link show dev ogr0"), device);

        let mut next = state();
        next.endpoints.insert("10.244.1.6".parse().unwrap(), pod(&["192.0.2.9"]));
        host.targets.send_replace(Some(target(8, next)));
        assert_eq!(host.applied(8).await.epoch, 2);
    });
}

#[test]
fn a_refused_state_leaves_the_last_one_in_force() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;

        let mut cutting = state();
        cutting.settings.addresses.push("192.0.2.2".parse().unwrap());
        host.targets.send_replace(Some(target(2, cutting)));
        let reason = host.refused(2).await;
        assert!(reason.contains("192.0.2.2"), "{reason}");

        let mut large = state();
        for last in 0..=255 {
            large.endpoints.insert(IpAddr::from([10, 244, 9, last]), pod(&["192.0.2.9"]));
        }
        host.targets.send_replace(Some(target(3, large)));
        let reason = host.refused(3).await;
        assert!(reason.contains("ENDPOINTS") && reason.contains("full"), "{reason}");
        let applied = host.kernel.applied().borrow().clone();
        assert_eq!((applied.tag.unwrap().counter, applied.epoch), (1, 1));

        host.loses_its_device().await;

        let mut small = state();
        small.settings.mode = Mode::Audit;
        host.targets.send_replace(Some(target(4, small)));
        let applied = host.applied(4).await;
        assert_eq!((applied.epoch, applied.refused), (2, None));
    });
}

#[test]
fn what_others_break_is_put_right() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        host.loses_its_device().await;

        ip("link add eth1 type veth peer name far1");
        ip("address add 198.51.100.2/24 dev eth1");
        let guarded = |status: &KernelStatus| {
            status.hooks.iter().any(|hook| hook.device == "eth1" && hook.attached.is_some())
        };
        host.status("the guard of a new device", guarded).await;

        let ifindex = ip("-o link show dev eth0").split(':').next().unwrap().to_owned();
        std::fs::remove_file(format!("{BPFFS}/outrigger/default/stable/link_guard_ingress_{ifindex}"))
            .unwrap();
        host.status("the guard that was taken off", |status| status.reattached > 0).await;
    });
}

#[test]
fn drops_are_counted_told_and_foretold() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        let mut events = host.kernel.events().unwrap();
        let socket = std::net::UdpSocket::bind("10.244.240.7:0").unwrap();
        socket.send_to(b"nobody is there", "10.244.9.9:53").unwrap();
        let event = timeout(LIMIT, events.next()).await.unwrap().unwrap();
        assert_eq!(IpAddr::from(event.destination), IpAddr::from([10, 244, 9, 9]));
        assert_eq!(Reason::from_u8(event.reason), Some(Reason::UnknownDestination));
        let counters = host.kernel.counters().unwrap();
        let counted = |counter: &Counter| {
            counter.reason == Reason::UnknownDestination
                && counter.direction == Direction::Egress
                && counter.packets == 1
        };
        assert!(counters.iter().any(counted), "{counters:?}");

        let query = TraceQuery {
            direction: Direction::Ingress,
            remote: "10.244.1.5".parse().unwrap(),
            protocol: 6,
            source_port: 40_000,
            destination_port: 5432,
            nic: false,
        };
        let denied = host.kernel.trace(&query).unwrap();
        assert_eq!((denied.reason, denied.identity), (Reason::PolicyDenied, 3000));
        assert!(host.kernel.rules().borrow().contains_key(&denied.rule));
        let allowed = host.kernel.trace(&TraceQuery { direction: Direction::Egress, ..query }).unwrap();
        assert_eq!((allowed.reason, allowed.tunnel), (Reason::NewAllowed, "192.0.2.9".parse().ok()));
    });
}

#[test]
fn the_guard_keeps_bare_packets_from_the_mesh_address() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        let listener = tokio::net::UdpSocket::bind("10.244.240.7:7777").await.unwrap();
        let on_nic = tokio::net::UdpSocket::bind("192.0.2.2:7777").await.unwrap();
        // The far end of the cable is another machine.
        let (to_mesh, to_nic) = ("10.244.240.7:7777", "192.0.2.2:7777");
        let mac = mac("eth0");
        let lines = [
            "link set far up".to_owned(),
            "address add 192.0.2.1/24 dev far".to_owned(),
            "route add 10.244.240.7/32 dev far".to_owned(),
            format!("neighbour add 10.244.240.7 dev far lladdr {mac}"),
        ];
        neighbour("far", lines.to_vec(), "192.0.2.1:0", vec![to_mesh, to_nic]);
        let mut buffer = [0; 16];
        timeout(LIMIT, on_nic.recv(&mut buffer)).await.unwrap().unwrap();
        assert!(listener.try_recv(&mut buffer).is_err(), "a bare packet reached the mesh address");
        let guarded = |counter: &Counter| counter.reason == Reason::GuardDestination && counter.packets > 0;
        assert!(host.kernel.counters().unwrap().iter().any(guarded));
    });
}

fn mac(device: &str) -> String {
    let line = ip(&format!("-o link show dev {device}"));
    line.split("link/ether ").nth(1).unwrap()[..17].to_owned()
}

/// Moves a device into a network namespace of its own, sets it up and sends a datagram to each address in turn.
fn neighbour(device: &str, lines: Vec<String>, from: &'static str, to: Vec<&'static str>) {
    let (here, there) = std::sync::mpsc::channel();
    let (ready, go) = std::sync::mpsc::channel::<()>();
    let machine = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        here.send(nix::unistd::gettid()).unwrap();
        go.recv().unwrap();
        for line in lines {
            ip(&line);
        }
        // A bridge learns of its port's carrier a moment later.
        std::thread::sleep(Duration::from_secs(1));
        let socket = std::net::UdpSocket::bind(from).unwrap();
        for address in to {
            assert_eq!(socket.send_to(b"bare", address).unwrap(), 4);
        }
        // What was sent is on its way before the namespace, and with it the cable, is gone.
        socket
    });
    ip(&format!("link set {device} netns {}", there.recv().unwrap()));
    ready.send(()).unwrap();
    drop(machine.join().unwrap());
}

#[test]
fn a_burst_is_paced() {
    isolated(|| async {
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        let start = std::time::Instant::now();
        let mut next = state();
        for counter in 2..6 {
            next.settings.mode = if next.settings.mode == Mode::Audit { Mode::Enforce } else { Mode::Audit };
            host.targets.send_replace(Some(target(counter, next.clone())));
            host.applied(counter).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(3 * 50), "more than 20 publications a second");
    });
}

#[test]
fn leaving_leaves_nothing() {
    isolated(|| async {
        let before = network();
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        let removed = host.kernel.leave().await.unwrap();
        assert!(removed.iter().any(|line| line == "device ogr0"), "{removed:?}");
        timeout(LIMIT, host.task).await.unwrap().unwrap();
        assert_eq!(network(), before);
        assert!(!std::fs::exists(format!("{BPFFS}/outrigger/default")).unwrap());
        assert!(matches!(host.kernel.leave().await, Err(KernelError::Stopped)));
        // What an agent that never started leaves behind is removed as well, and nothing is no error.
        assert_eq!(remove(&config()).await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_device_in_the_way_is_named_and_waited_for() {
    isolated(|| async {
        ip("link add ogr0 type veth peer name other");
        let host = Running::start(config(), target(1, state())).await;
        let reason = host.refused(1).await;
        assert!(reason.contains("ogr0"), "{reason}");
        ip("link delete ogr0");
        host.applied(1).await;
    });
}

#[test]
fn a_host_without_ipv6_has_the_rest() {
    isolated(|| async {
        for scope in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
        }
        let host = Running::start(config(), target(1, state())).await;
        host.applied(1).await;
        let said =
            |status: &KernelStatus| status.warnings.iter().any(|warning| warning.contains("IPv6 is off"));
        host.status("a warning", said).await;
        let device = host.kernel.status().borrow().device.clone().unwrap();
        assert_eq!(device.addresses, [IpAddr::from([10, 244, 240, 7])]);
    });
}

#[test]
fn without_a_bpffs_the_folder_is_named() {
    isolated(|| async {
        let elsewhere = KernelConfig { bpffs: "/tmp/outrigger-no-bpffs".into(), ..config() };
        let (_targets, receiver) = watch::channel(None);
        let error = Kernel::start(elsewhere, receiver).await.err().unwrap();
        assert!(matches!(error, KernelError::NoBpffs { .. }), "{error}");
    });
}
