use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::inventory::{Inventory, Link, LinkAddress, Route, RouteKind, Vxlan};
use crate::kernel::{Kernel as _, apply};
use crate::{BACKSTOP_METRIC, Memory, ROUTE_PROTOCOL};

const NAME: &str = "ogr0";

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u8..4).prop_map(|last| IpAddr::from([10, 244, 240, last])),
        (0_u16..4).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])),
    ]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0_u8..4).prop_map(|third| IpNet::new([10, 244, third, 0].into(), 24).unwrap()),
        (0_u16..4).prop_map(|third| IpNet::new([0xfd00, third, 0, 0, 0, 0, 0, 0].into(), 32).unwrap()),
    ]
}

prop_compose! {
    fn device()(
        port in 8479_u16..8481,
        mtu in 1400_u32..1403,
        up: bool,
        addresses in prop::collection::btree_set(address(), 0..4),
        prefixes in prop::collection::btree_set(prefix(), 0..5),
    ) -> Device {
        let source = |v4: bool| addresses.iter().copied().find(|address| address.is_ipv4() == v4);
        let routes = prefixes.iter().map(|prefix| (*prefix, source(prefix.addr().is_ipv4()))).collect();
        Device { name: NAME.to_owned(), port, mtu, up, addresses, routes }
    }
}

prop_compose! {
    fn desired()(
        device in prop::option::of(device()),
        unreachable in prop::collection::btree_set(prefix(), 0..5),
    ) -> Desired {
        Desired { device, unreachable }
    }
}

/// What others have on the host.
fn foreign() -> Inventory {
    let eth0 = Link {
        index: 2,
        name: "eth0".to_owned(),
        up: true,
        mtu: 1500,
        addresses: BTreeMap::from([(
            "192.0.2.2".parse().unwrap(),
            LinkAddress { prefix_len: 24, usable: true },
        )]),
        ..Link::default()
    };
    let cilium = Link {
        index: 3,
        name: "cilium_vxlan".to_owned(),
        kind: Some("vxlan".to_owned()),
        vxlan: Some(Vxlan { port: 8472, external: true }),
        ..Link::default()
    };
    let connected = Route {
        destination: "192.0.2.0/24".parse().unwrap(),
        kind: RouteKind::Unicast,
        protocol: 2,
        table: 254,
        device: Some(2),
        gateways: Vec::new(),
        source: Some("192.0.2.2".parse().unwrap()),
        metric: 0,
    };
    Inventory { links: BTreeMap::from([(2, eth0), (3, cilium)]), routes: vec![connected] }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn observe(kernel: &mut Memory) -> Observed {
    Observed::of(&kernel.inventory().await.unwrap(), NAME)
}

async fn converge(kernel: &mut Memory, desired: &Desired) {
    let plan = plan(&observe(kernel).await, desired).unwrap();
    apply(kernel, plan.operations()).await.unwrap();
}

proptest! {
    /// From any state that plans can lead to, and after someone meddled, one plan leads to what is desired.
    #[test]
    fn a_plan_leads_to_what_is_desired(first in desired(), second in desired(), meddle in 0_u8..5) {
        run(async {
            let mut kernel = Memory { inventory: foreign() };
            converge(&mut kernel, &first).await;
            meddle_with(&mut kernel, meddle).await;
            converge(&mut kernel, &second).await;
            let observed = observe(&mut kernel).await;
            if second == Desired::default() {
                assert_eq!(observed.unreachable, BTreeSet::new());
            } else {
                assert!(observed.unreachable.is_superset(&second.unreachable));
                assert!(observed.unreachable.is_superset(&first.unreachable), "only leaving removes a backstop");
            }
            match (&observed.device, &second.device) {
                (None, None) => {}
                (Some(found), Some(wanted)) => {
                    assert_eq!((found.port, found.mtu, found.up), (Some(wanted.port), wanted.mtu, wanted.up));
                    if let Some(mac) = Mac::of(&wanted.addresses) {
                        assert_eq!(found.mac, Some(mac));
                    }
                    if wanted.up {
                        assert_eq!(&found.addresses, &wanted.addresses);
                        assert_eq!(&found.routes, &wanted.routes);
                    }
                }
                (found, wanted) => panic!("{found:?} instead of {wanted:?}"),
            }
            assert_eq!(plan(&observed, &second), Ok(Plan::default()), "a second plan is empty");
        });
    }

    #[test]
    fn what_others_have_is_not_touched(first in desired(), second in desired()) {
        run(async {
            let mut kernel = Memory { inventory: foreign() };
            converge(&mut kernel, &first).await;
            converge(&mut kernel, &second).await;
            converge(&mut kernel, &Desired::default()).await;
            assert_eq!(kernel.inventory, foreign());
        });
    }

    /// Before a publication nothing of the running state may go, except what is replaced.
    #[test]
    fn removals_come_after_the_publication(first in desired(), second in desired()) {
        run(async {
            let mut kernel = Memory { inventory: foreign() };
            converge(&mut kernel, &first).await;
            let plan = plan(&observe(&mut kernel).await, &second).unwrap();
            for operation in &plan.before {
                assert!(!matches!(operation, Operation::RemoveUnreachable(_) | Operation::RemoveAddress { .. }));
            }
            for operation in &plan.after {
                assert!(matches!(
                    operation,
                    Operation::RemoveUnreachable(_)
                        | Operation::RemoveAddress { .. }
                        | Operation::RemoveRoute { .. }
                        | Operation::DeleteDevice(_)
                ));
            }
        });
    }
}

async fn meddle_with(kernel: &mut Memory, how: u8) {
    if kernel.inventory.link(NAME).is_none() {
        return;
    }
    let operation = match how {
        0 => Operation::SetDown(NAME.to_owned()),
        1 => Operation::DeleteDevice(NAME.to_owned()),
        2 => Operation::AddAddress { device: NAME.to_owned(), address: "198.51.100.1".parse().unwrap() },
        3 => Operation::SetMac { device: NAME.to_owned(), mac: Mac([2, 0, 0, 0, 0, 1]) },
        _ => return,
    };
    kernel.apply(&operation).await.unwrap();
}

#[test]
fn backstops_come_first_and_the_device_is_created_down() {
    let prefix: IpNet = "10.244.0.0/16".parse().unwrap();
    let device = Device {
        name: NAME.to_owned(),
        port: 8479,
        mtu: 1450,
        up: true,
        addresses: BTreeSet::new(),
        routes: BTreeMap::from([(prefix, None)]),
    };
    let desired = Desired { device: Some(device), unreachable: BTreeSet::from([prefix]) };
    let planned = plan(&Observed::default(), &desired).unwrap().before;
    assert!(matches!(
        planned.as_slice(),
        [
            Operation::AddUnreachable(_),
            Operation::CreateDevice { .. },
            Operation::SetUp { .. },
            Operation::AddRoute { .. },
        ]
    ));
}

#[test]
fn a_device_of_that_name_that_is_not_ours_is_a_conflict() {
    let mut inventory = foreign();
    inventory.links.get_mut(&2).unwrap().name = NAME.to_owned();
    let desired = Desired { device: Some(some_device(8479)), ..Desired::default() };
    let conflict = plan(&Observed::of(&inventory, NAME), &desired);
    assert_eq!(conflict, Err(Conflict::NameTaken(NAME.to_owned())));
}

#[test]
fn the_holder_of_the_port_is_named() {
    let desired = Desired { device: Some(some_device(8472)), ..Desired::default() };
    let conflict = plan(&Observed::of(&foreign(), NAME), &desired);
    assert_eq!(conflict, Err(Conflict::PortTaken { port: 8472, other: "cilium_vxlan".to_owned() }));
}

#[test]
fn an_unreachable_route_of_another_metric_is_not_ours() {
    let mut inventory = foreign();
    let mut route = inventory.routes.remove(0);
    route.kind = RouteKind::Unreachable;
    route.protocol = ROUTE_PROTOCOL;
    route.metric = BACKSTOP_METRIC - 1;
    inventory.routes.push(route);
    assert_eq!(Observed::of(&inventory, NAME).unreachable, BTreeSet::new());
}

fn some_device(port: u16) -> Device {
    Device {
        name: NAME.to_owned(),
        port,
        mtu: 1450,
        up: true,
        addresses: BTreeSet::new(),
        routes: BTreeMap::new(),
    }
}

#[test]
fn leaving_one_mesh_keeps_the_backstops_of_another() {
    let mut inventory = foreign();
    let (theirs, mine) = ("10.9.0.0/16".parse().unwrap(), "10.8.0.0/16".parse().unwrap());
    let route = |destination, kind, metric| Route {
        destination,
        kind,
        metric,
        protocol: ROUTE_PROTOCOL,
        ..inventory.routes[0].clone()
    };
    let routes = [
        route(theirs, RouteKind::Unicast, 0),
        route(theirs, RouteKind::Unreachable, BACKSTOP_METRIC),
        route(mine, RouteKind::Unreachable, BACKSTOP_METRIC),
    ];
    inventory.routes.extend(routes);
    let left = plan(&Observed::of(&inventory, NAME), &Desired::default()).unwrap();
    assert_eq!(left.after, [Operation::RemoveUnreachable(mine)]);
}
