use std::collections::BTreeMap;

use super::*;
use crate::ROUTE_PROTOCOL;
use crate::inventory::{Link, LinkAddress, Route, RouteKind};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn route(destination: &str, gateways: &[&str], device: u32) -> Route {
    Route {
        destination: net(destination),
        kind: RouteKind::Unicast,
        protocol: 4,
        table: 254,
        device: Some(device),
        gateways: gateways.iter().map(|gateway| address(gateway)).collect(),
        source: None,
        metric: 0,
    }
}

fn link(index: u32, name: &str, addresses: &[&str]) -> (u32, Link) {
    let known = LinkAddress { prefix_len: 24, usable: true };
    let addresses = addresses.iter().map(|text| (address(text), known)).collect();
    (index, Link { index, name: name.to_owned(), addresses, ..Link::default() })
}

/// A host behind 172.16.5.1 with a VPN to 10.8.0.0/16, in the mesh already.
fn host() -> Inventory {
    Inventory {
        links: BTreeMap::from([
            link(2, "eth0", &["172.16.5.7", "2001:db8:5::7"]),
            link(3, "tun0", &[]),
            link(9, "ogr0", &["10.244.240.7"]),
        ]),
        routes: vec![
            route("0.0.0.0/0", &["172.16.5.1"], 2),
            route("::/0", &["fe80::1"], 2),
            route("172.16.5.0/24", &[], 2),
            route("2001:db8:5::/64", &[], 2),
            route("10.8.0.0/16", &[], 3),
            Route { protocol: ROUTE_PROTOCOL, ..route("10.244.0.0/16", &[], 9) },
            Route { protocol: 2, ..route("10.244.240.7/32", &[], 9) },
        ],
    }
}

fn facts() -> HostFacts {
    HostFacts {
        nameservers: vec![address("10.99.0.53")],
        ssh_connections: vec![
            (address("172.16.5.7"), address("203.0.113.50")),
            (address("10.244.240.7"), address("10.244.1.5")),
        ],
        protected: vec![
            ("gateway gw.example:7443".to_owned(), address("198.51.100.4")),
            ("the tunnel endpoint".to_owned(), address("2001:db8:7::1")),
        ],
    }
}

fn check(prefix: &str, allowed: Option<&[IpNet]>) -> Option<String> {
    let refused = check_prefixes(&[net(prefix)], &host(), &facts(), allowed, "ogr0").err()?;
    Some(refused[0].to_string())
}

#[test]
fn ordinary_prefixes_pass() {
    for prefix in ["10.244.0.0/16", "10.244.240.0/20", "fd00:244::/64", "10.8.4.0/24"] {
        assert_eq!(check(prefix, None), None, "{prefix}");
    }
}

#[test]
fn what_would_be_cut_off_is_named() {
    for (prefix, what) in [
        ("172.16.0.0/12", "the default gateway 172.16.5.1"),
        ("10.99.0.0/16", "the nameserver 10.99.0.53"),
        ("203.0.113.0/24", "the SSH client 203.0.113.50"),
        ("198.51.100.0/24", "gateway gw.example:7443 198.51.100.4"),
        ("2001:db8:7::/48", "the tunnel endpoint 2001:db8:7::1"),
        ("2001:db8:5::/64", "this host's address on eth0 2001:db8:5::7"),
        ("10.8.0.0/16", "the existing route 10.8.0.0/16 dev tun0"),
        ("10.0.0.0/9", "the nameserver 10.99.0.53"),
        ("10.0.0.0/12", "the existing route 10.8.0.0/16 dev tun0"),
        ("0.0.0.0/0", "this network 0.0.0.0/8"),
        ("127.0.0.0/16", "the loopback block 127.0.0.0/8"),
        ("fe80::/64", "the link-local block fe80::/10"),
        ("224.0.0.0/8", "multicast and reserved addresses 224.0.0.0/3"),
    ] {
        let sentence = check(prefix, None).unwrap_or_else(|| panic!("{prefix} passed"));
        assert!(sentence.contains(prefix) && sentence.contains(what), "{sentence}");
    }
}

#[test]
fn the_administrator_bounds_what_a_gateway_can_do() {
    let allowed = [net("10.244.0.0/16"), net("fd00::/16")];
    assert_eq!(check("10.244.240.0/20", Some(&allowed)), None);
    assert_eq!(check("fd00:244::/64", Some(&allowed)), None);
    let sentence = check("10.244.0.0/15", Some(&allowed)).unwrap();
    assert!(sentence.contains("10.244.0.0/15") && sentence.contains("10.244.0.0/16"), "{sentence}");
    assert!(check("10.244.0.0/16", Some(&[])).unwrap().contains("is empty"));
}

#[test]
fn every_refused_prefix_is_listed() {
    let prefixes = [net("10.244.0.0/16"), net("10.99.0.0/16"), net("203.0.113.0/24")];
    let refused = check_prefixes(&prefixes, &host(), &facts(), None, "ogr0").unwrap_err();
    assert_eq!(refused.len(), 2);
}

#[test]
fn what_the_host_reaches_everything_by_is_told_from_what_it_reaches() {
    let mut host = host();
    for link in host.links.values_mut() {
        link.up = true;
    }
    let covers = |prefix| covers_underlay(&net(prefix), &host, "ogr0");
    assert!(covers("172.16.0.0/16") && covers("172.16.5.7/32") && covers("fe80::/10"));
    assert!(!covers("10.8.0.0/16"), "a VPN is reached, nothing is reached by it");
    assert!(!covers("10.244.0.0/16"), "the mesh address is no underlay");
}
