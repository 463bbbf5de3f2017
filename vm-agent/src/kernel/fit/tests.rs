use std::collections::BTreeMap;
use std::net::IpAddr;

use hostnet::{Link, LinkAddress, ROUTE_PROTOCOL, Route, RouteKind, Vxlan};
use policy::identity::Identity;
use policy::state::{Mode, Role};

use super::*;

const MESH: &str = "10.244.0.0/16";

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(index: u32, name: &str, own: &str) -> Link {
    let known = LinkAddress { prefix_len: 24, usable: true };
    let addresses = BTreeMap::from([(address(own), known)]);
    Link { index, name: name.to_owned(), up: true, addresses, ..Link::default() }
}

fn route(destination: &str, gateway: Option<&str>, device: u32, protocol: u8) -> Route {
    Route {
        destination: net(destination),
        kind: RouteKind::Unicast,
        protocol,
        table: 254,
        device: Some(device),
        gateways: gateway.map(address).into_iter().collect(),
        source: None,
        metric: 0,
    }
}

/// A host at 192.0.2.2 behind 192.0.2.1, with the prefix in force or not.
fn host(in_force: bool) -> Inventory {
    let mut mesh = link(9, "ogr0", "10.244.240.7");
    mesh.vxlan = Some(Vxlan { port: 8479, external: true });
    let links = BTreeMap::from([(2, link(2, "eth0", "192.0.2.2")), (9, mesh)]);
    let mut routes = vec![route("0.0.0.0/0", Some("192.0.2.1"), 2, 4), route("192.0.2.0/24", None, 2, 2)];
    if in_force {
        routes.push(route(MESH, None, 9, ROUTE_PROTOCOL));
    }
    Inventory { links, routes }
}

fn settings(prefixes: &[&str]) -> NodeSettings {
    let identity = Identity::try_new(4000).unwrap();
    NodeSettings {
        workload: "shop/db".to_owned(),
        identity,
        mark: identity,
        addresses: vec![address("10.244.240.7")],
        prefixes: prefixes.iter().map(|prefix| net(prefix)).collect(),
        role: Role::Host,
        mode: Mode::Enforce,
        tunnel_port: 8479,
        rejected: Vec::new(),
        nic: None,
        partly_enforced: Vec::new(),
        probes: Vec::new(),
    }
}

fn fit(inventory: &Inventory, nameserver: Option<&str>, allowed: Option<&[IpNet]>) -> Fit {
    let facts =
        HostFacts { nameservers: nameserver.map(address).into_iter().collect(), ..HostFacts::default() };
    let surroundings = Surroundings { inventory, facts: &facts, allowed, device: "ogr0", held: &[] };
    surroundings.fit(&settings(&[MESH, "10.100.0.0/16"])).unwrap()
}

#[test]
fn a_new_prefix_that_is_unsafe_is_left_out_alone() {
    let found = fit(&host(false), Some("10.244.0.10"), None);
    assert_eq!(found.prefixes, [net("10.100.0.0/16")]);
    assert!(
        matches!(&*found.missing, [one] if one.contains(MESH) && one.contains("10.244.0.10")),
        "{found:?}"
    );
}

#[test]
fn one_in_force_stays_when_a_resolver_file_names_an_address_in_it() {
    let found = fit(&host(true), Some("10.244.0.10"), None);
    assert_eq!(found.prefixes, [net(MESH), net("10.100.0.0/16")]);
    assert!(found.missing.is_empty() && found.doubtful.len() == 1, "{found:?}");
}

#[test]
fn one_in_force_goes_when_the_underlay_moves_into_it() {
    let mut host = host(true);
    host.links.insert(2, link(2, "eth0", "10.244.3.9"));
    let found = fit(&host, None, None);
    assert_eq!(found.prefixes, [net("10.100.0.0/16")]);
    assert_eq!(found.missing.len(), 1, "{found:?}");
}

#[test]
fn one_in_force_goes_when_the_administrator_forbids_it() {
    let found = fit(&host(true), None, Some(&[net("10.100.0.0/16"), net("10.244.240.0/20")]));
    assert_eq!(found.prefixes, [net("10.100.0.0/16")]);
}

#[test]
fn an_address_of_the_host_itself_is_no_mesh_address() {
    let facts = HostFacts::default();
    let inventory = host(true);
    let surroundings =
        Surroundings { inventory: &inventory, facts: &facts, allowed: None, device: "ogr0", held: &[] };
    let mut stolen = settings(&[MESH]);
    stolen.addresses.push(address("192.0.2.2"));
    assert!(matches!(surroundings.fit(&stolen), Err(KernelError::Unsafe(_))));
}
