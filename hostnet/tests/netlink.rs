//! The real kernel, in network namespaces of their own. Needs root.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "fixtures fail where they stand")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use hostnet::{
    ApplyError, Changes, Conflict, Desired, Device, Inventory, Kernel as _, Netlink, Observed, RouteKind,
    apply, plan,
};
use nix::sched::{CloneFlags, unshare};

/// Runs a test in a network namespace that is gone when its thread is. Namespaces belong to threads: the thread
/// enters first, the runtime is built after.
fn isolated<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let host = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
        ip("link set lo up");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    host.join().unwrap();
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

fn device(up: bool) -> Device {
    let v4: Option<IpAddr> = "10.244.240.7".parse().ok();
    let v6: Option<IpAddr> = "fd00:244::7".parse().ok();
    Device {
        name: "ogr0".to_owned(),
        port: 8479,
        mtu: 1430,
        up,
        addresses: addresses(&["10.244.240.7", "fd00:244::7"]),
        routes: BTreeMap::from([
            ("10.244.0.0/16".parse().unwrap(), v4),
            ("fd00:244::/64".parse().unwrap(), v6),
        ]),
    }
}

fn desired(up: bool) -> Desired {
    let unreachable = device(up).routes.into_keys().collect();
    Desired { device: Some(device(up)), unreachable }
}

async fn observe(kernel: &mut Netlink) -> Observed {
    Observed::of(&kernel.inventory().await.unwrap(), "ogr0")
}

async fn converge(kernel: &mut Netlink, desired: &Desired) {
    let plan = plan(&observe(kernel).await, desired).unwrap();
    apply(kernel, plan.operations()).await.unwrap();
}

#[test]
fn what_is_desired_becomes_what_is_observed() {
    isolated(|| async {
        let mut kernel = Netlink::connect().unwrap();
        converge(&mut kernel, &desired(false)).await;
        let observed = observe(&mut kernel).await;
        assert!(!observed.device.as_ref().unwrap().up, "created down");
        assert_eq!(
            observed.unreachable,
            desired(false).unreachable,
            "backstops stand before the device is up"
        );

        converge(&mut kernel, &desired(true)).await;
        let observed = observe(&mut kernel).await;
        let found = observed.device.as_ref().unwrap();
        let wanted = device(true);
        assert_eq!((found.port, found.mtu, found.up), (Some(8479), 1430, true));
        assert_eq!(found.addresses, wanted.addresses);
        assert_eq!(found.routes, wanted.routes);
        assert!(plan(&observed, &desired(true)).unwrap().is_empty());

        let details = ip("-d link show dev ogr0");
        for word in ["external", "NOARP", "addrgenmode none", "nolearning"] {
            assert!(details.contains(word), "{word} is missing in {details}");
        }
        assert!(!ip("-6 address show dev ogr0").contains("tentative"), "no duplicate address detection");
    });
}

#[test]
fn an_upside_down_device_is_put_right() {
    isolated(|| async {
        let mut kernel = Netlink::connect().unwrap();
        converge(&mut kernel, &desired(true)).await;
        ip("link set ogr0 down");
        ip("link set ogr0 mtu 1400");
        ip("address add 192.0.2.1/32 dev ogr0");
        converge(&mut kernel, &desired(true)).await;
        // Raising a device may bring routes back by itself; a second look settles it.
        converge(&mut kernel, &desired(true)).await;
        let found = observe(&mut kernel).await.device.unwrap();
        assert_eq!((found.mtu, found.up), (1430, true));
        assert_eq!(found.addresses, device(true).addresses);
        assert_eq!(found.routes, device(true).routes);
    });
}

#[test]
fn without_the_device_mesh_traffic_is_unreachable() {
    isolated(|| async {
        ip("link add eth0 type veth peer name far");
        ip("address add 192.0.2.2/24 dev eth0");
        ip("link set eth0 up");
        ip("link set far up");
        ip("route add default via 192.0.2.1");
        let mut kernel = Netlink::connect().unwrap();
        converge(&mut kernel, &desired(true)).await;
        ip("link delete ogr0");
        let output = Command::new("ip").args(["route", "get", "10.244.3.3"]).output().unwrap();
        assert!(!output.status.success(), "went out by {}", String::from_utf8_lossy(&output.stdout));
    });
}

#[test]
fn a_mac_that_someone_changed_is_put_back_while_the_device_is_up() {
    isolated(|| async {
        let mut kernel = Netlink::connect().unwrap();
        converge(&mut kernel, &desired(true)).await;
        let before = observe(&mut kernel).await;
        let mac = before.device.as_ref().and_then(|device| device.mac).unwrap();
        assert_eq!(mac.to_string(), "02:04:0a:f4:f0:07");
        ip("link set ogr0 address 02:00:00:00:0f:02");
        converge(&mut kernel, &desired(true)).await;
        assert_eq!(observe(&mut kernel).await, before, "addresses and routes stay");
    });
}

#[test]
fn leaving_removes_ours_and_nothing_else() {
    isolated(|| async {
        let mut kernel = Netlink::connect().unwrap();
        ip("link add flannel.1 type vxlan id 1 dstport 8472 nolearning");
        ip("link add eth0 type veth peer name far");
        ip("address add 192.0.2.2/24 dev eth0");
        for device in ["eth0", "far"] {
            // An address that comes a moment later is no change of ours.
            ip(&format!("link set {device} addrgenmode none up"));
        }
        ip("route add 198.51.100.0/24 via 192.0.2.9");
        let before = kernel.inventory().await.unwrap();
        converge(&mut kernel, &desired(true)).await;
        converge(&mut kernel, &Desired::default()).await;
        assert_eq!(sorted(kernel.inventory().await.unwrap()), sorted(before));
    });
}

fn sorted(mut inventory: Inventory) -> Inventory {
    inventory.routes.sort_by_key(|route| (route.destination, route.device, route.metric));
    inventory
}

#[test]
fn a_second_external_vxlan_on_the_port_is_named() {
    isolated(|| async {
        ip("link add cilium_vxlan type vxlan external dstport 8479");
        let mut kernel = Netlink::connect().unwrap();
        let conflict = plan(&observe(&mut kernel).await, &desired(true)).unwrap_err();
        assert_eq!(conflict, Conflict::PortTaken { port: 8479, other: "cilium_vxlan".to_owned() });
    });
}

#[test]
fn a_socket_on_the_port_is_explained() {
    isolated(|| async {
        let _socket = std::net::UdpSocket::bind("0.0.0.0:8479").unwrap();
        let mut kernel = Netlink::connect().unwrap();
        let plan = plan(&observe(&mut kernel).await, &desired(true)).unwrap();
        let error = apply(&mut kernel, plan.operations()).await.unwrap_err();
        assert!(matches!(error, ApplyError::PortInUse { port: 8479, .. }), "{error}");
    });
}

#[test]
fn a_foreign_device_of_that_name_is_left_alone() {
    isolated(|| async {
        ip("link add ogr0 type veth peer name far");
        let mut kernel = Netlink::connect().unwrap();
        let observed = observe(&mut kernel).await;
        assert_eq!(plan(&observed, &desired(true)), Err(Conflict::NameTaken("ogr0".to_owned())));
        assert!(plan(&observed, &Desired::default()).unwrap().is_empty());
    });
}

#[test]
fn every_kind_of_change_is_noticed() {
    isolated(|| async {
        let mut changes = Changes::subscribe().unwrap();
        for change in [
            "link add eth0 type veth peer name far",
            "link set eth0 up",
            "link set far up",
            "address add 192.0.2.2/24 dev eth0",
            "route add 198.51.100.0/24 via 192.0.2.9",
            "-6 route add 2001:db8::/32 dev eth0",
            "link delete eth0",
        ] {
            ip(change);
            changes.next().await.expect(change);
        }
    });
}

/// More notifications than a socket holds are one change, and not the last one.
#[test]
fn a_flood_of_changes_is_one_change() {
    isolated(|| async {
        let mut changes = Changes::subscribe().unwrap();
        flood(10_000);
        changes.next().await.unwrap();
        // What the kernel could not store is told once, after what it could.
        while tokio::time::timeout(Duration::from_millis(50), changes.next()).await.is_ok() {}
        ip("link add eth1 type veth peer name far1");
        changes.next().await.expect("the change after the flood");
    });
}

/// Adds so many routes at once.
fn flood(count: u32) {
    let lines: Vec<String> = (0..count)
        .map(|number| format!("route add unreachable 10.{}.{}.0/24", number / 256, number % 256))
        .collect();
    let mut child =
        Command::new("ip").args(["-batch", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.join("\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn routes_are_told_apart() {
    isolated(|| async {
        ip("link add eth0 type veth peer name far");
        ip("address add 192.0.2.2/24 dev eth0");
        ip("link set eth0 up");
        ip("link set far up");
        ip("route add default proto static nexthop via 192.0.2.1 nexthop via 192.0.2.3");
        ip("route add unreachable 198.51.100.0/24 metric 7");
        let inventory = Netlink::connect().unwrap().inventory().await.unwrap();
        let default = inventory.routes.iter().find(|route| route.is_default()).unwrap();
        assert_eq!(default.gateways, [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 3])]);
        let refused = inventory.routes.iter().find(|route| route.kind == RouteKind::Unreachable).unwrap();
        assert_eq!((refused.destination.to_string().as_str(), refused.metric), ("198.51.100.0/24", 7));
    });
}
