use std::collections::BTreeMap;

use super::*;
use crate::inventory::{LinkAddress, Route, RouteKind};

fn link(index: u32, name: &str, kind: Option<&str>, addresses: &[&str]) -> Link {
    let known = LinkAddress { prefix_len: 24, usable: true };
    Link {
        index,
        name: name.to_owned(),
        kind: kind.map(ToOwned::to_owned),
        up: true,
        loopback: name == "lo",
        mtu: 1500,
        addresses: addresses.iter().map(|text| (text.parse().unwrap(), known)).collect(),
        ..Link::default()
    }
}

fn port(index: u32, kind: Option<&str>, controller: u32) -> Link {
    Link { controller: Some(controller), ..link(index, &format!("port{index}"), kind, &[]) }
}

fn inventory(links: Vec<Link>) -> Inventory {
    Inventory { links: links.into_iter().map(|link| (link.index, link)).collect(), routes: Vec::new() }
}

fn default_route(device: u32) -> Route {
    Route {
        destination: "0.0.0.0/0".parse().unwrap(),
        kind: RouteKind::Unicast,
        protocol: 4,
        table: 254,
        device: Some(device),
        gateways: vec!["192.0.2.1".parse().unwrap()],
        source: None,
        metric: 0,
    }
}

/// A host as they are: a NIC, a second one with the default route, containers, tunnels of others.
fn host() -> Inventory {
    let mut host = inventory(vec![
        link(1, "lo", None, &["127.0.0.1", "::1", "10.255.0.1"]),
        link(2, "eth0", None, &["192.0.2.2", "fe80::2"]),
        link(3, "eth1", None, &["198.51.100.3", "2001:db8::3", "169.254.3.3"]),
        link(4, "docker0", Some("bridge"), &["172.17.0.1"]),
        port(5, Some("veth"), 4),
        link(6, "flannel.1", Some("vxlan"), &["10.42.0.0"]),
        link(7, "wg0", Some("wireguard"), &["10.9.0.1"]),
        link(8, "ogr0", Some("vxlan"), &["10.244.240.7"]),
        link(9, "br0", Some("bridge"), &["203.0.113.9"]),
        port(10, None, 9),
        link(11, "veth0", Some("veth"), &["192.0.2.77"]),
        link(12, "unused", None, &[]),
    ]);
    host.routes.push(default_route(3));
    host
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn underlay_addresses_are_global_and_the_hosts_own() {
    let expected = ["198.51.100.3", "2001:db8::3", "192.0.2.2", "203.0.113.9", "192.0.2.77"];
    assert_eq!(underlay_addresses(&host(), "ogr0"), addresses(&expected));
}

#[test]
fn what_is_down_or_not_usable_is_left_out() {
    let mut host = host();
    host.links.get_mut(&3).unwrap().up = false;
    let known = host.links.get_mut(&2).unwrap().addresses.values_mut();
    known.for_each(|address| address.usable = false);
    assert_eq!(underlay_addresses(&host, "ogr0"), addresses(&["203.0.113.9", "192.0.2.77"]));
}

#[test]
fn every_other_device_that_takes_packets_is_guarded() {
    let names: Vec<String> = guarded(&host(), "ogr0").iter().map(|link| link.name.clone()).collect();
    assert_eq!(names, ["eth0", "eth1", "flannel.1", "wg0", "br0", "veth0", "unused"]);
}

#[test]
fn what_is_down_without_an_address_needs_no_guard() {
    let mut host = host();
    host.links.get_mut(&12).unwrap().up = false;
    assert!(guarded(&host, "ogr0").iter().all(|link| link.name != "unused"));
}

#[test]
fn a_transit_node_guards_the_bridges_of_its_pods() {
    let host = host();
    let added: Vec<&str> = guarded_on_transit(&host, "ogr0")
        .iter()
        .filter(|link| guarded(&host, "ogr0").iter().all(|other| other.index != link.index))
        .map(|link| link.name.as_str())
        .collect();
    assert_eq!(added, ["docker0"]);
}

#[test]
fn a_bridge_with_the_default_route_is_the_hosts_own() {
    let mut host = inventory(vec![link(4, "br0", Some("bridge"), &["192.0.2.4"]), port(5, Some("veth"), 4)]);
    assert!(guarded(&host, "ogr0").is_empty());
    host.routes.push(default_route(4));
    assert_eq!(guarded(&host, "ogr0").len(), 1);
}

#[test]
fn the_mesh_mtu_leaves_room_for_the_tunnel() {
    let mtu = |mtu, v6, path| mesh_mtu(UnderlayMtu { mtu, v6 }, path);
    assert_eq!(mtu(1500, false, None), 1450);
    assert_eq!(mtu(1500, true, None), 1430);
    assert_eq!(mtu(9000, false, None), 1450, "jumbo frames only where someone says so");
    assert_eq!(mtu(9000, false, Some(9000)), 8950);
    assert_eq!(mtu(1400, false, Some(9000)), 1350);
}

#[test]
fn the_smallest_underlay_device_decides() {
    let mut host = host();
    host.links.get_mut(&2).unwrap().mtu = 1400;
    let underlay = addresses(&["192.0.2.2", "2001:db8::3"]);
    assert_eq!(underlay_mtu(&host, &underlay), Some(UnderlayMtu { mtu: 1400, v6: true }));
    assert_eq!(underlay_mtu(&host, &addresses(&["203.0.113.200"])), None);
}

#[test]
fn a_pods_own_device_is_no_underlay_but_a_nic_with_a_lone_address_is() {
    let lone = |index, name, kind| {
        let mut link = link(index, name, kind, &["10.100.1.1", "fe80::1"]);
        link.addresses.values_mut().for_each(|address| address.prefix_len = 32);
        link
    };
    let mut host = inventory(vec![lone(2, "veth1", Some("veth")), lone(3, "ens4", None)]);
    assert_eq!(underlay_addresses(&host, "ogr0"), addresses(&["10.100.1.1"]));
    host = inventory(vec![lone(2, "veth1", Some("veth"))]);
    assert_eq!(underlay_addresses(&host, "ogr0"), Vec::<IpAddr>::new());
    host.routes.push(default_route(2));
    assert_eq!(underlay_addresses(&host, "ogr0"), addresses(&["10.100.1.1"]));
}

#[test]
fn no_devices_no_underlay() {
    let nothing = Inventory { links: BTreeMap::new(), routes: Vec::new() };
    assert_eq!(underlay_addresses(&nothing, "ogr0"), Vec::<IpAddr>::new());
}
