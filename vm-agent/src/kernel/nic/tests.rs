use hostnet::{Link, LinkAddress};
use policy::evaluate::{Flow, evaluate};
use policy::state::{Default as Verdict, Nic, Role, Scope};
use std::path::PathBuf;
use std::time::Duration;

use super::super::TableSizes;
use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn deny_all(name: &str) -> Policy {
    let direction =
        || DirectionPolicy { default: Verdict::Deny { by: vec![name.to_owned()] }, rules: Vec::new() };
    Policy { ingress: direction(), egress: direction() }
}

fn settings(policy: &Arc<Policy>, mode: Mode) -> NodeSettings {
    let identity = Identity::try_new(4000).unwrap();
    NodeSettings {
        workload: "shop/db".to_owned(),
        identity,
        mark: identity,
        addresses: vec![address("10.244.240.7")],
        prefixes: Vec::new(),
        role: Role::Host,
        mode: Mode::Enforce,
        tunnel_port: 8479,
        rejected: Vec::new(),
        nic: Some(Nic { scope: Scope::Host, mode, policy: Arc::clone(policy) }),
        partly_enforced: Vec::new(),
        probes: Vec::new(),
    }
}

#[test]
fn nothing_is_enforced_that_was_neither_confirmed_nor_is_tried() {
    let (policy, other) = (Arc::new(deny_all("a")), Arc::new(deny_all("b")));
    let digest = Digest::of(&policy);
    let enforced = settings(&policy, Mode::Enforce);
    let mut orders = NicOrders::default();
    assert_eq!(choose(&enforced, &orders), Some((Arc::clone(&policy), true, 0)), "at first");
    orders.trial = Some((Digest::of(&other), 9));
    assert_eq!(choose(&enforced, &orders), Some((Arc::clone(&policy), true, 0)), "another is tried");
    orders.trial = Some((digest, 9));
    assert_eq!(choose(&enforced, &orders), Some((Arc::clone(&policy), false, 9)));
    orders = NicOrders { confirmed: Some((Digest::of(&other), Arc::clone(&other))), ..NicOrders::default() };
    assert_eq!(choose(&enforced, &orders), Some((Arc::clone(&other), false, 0)), "the last that did no harm");
    orders.trial = Some((digest, 9));
    assert_eq!(choose(&enforced, &orders), Some((Arc::clone(&policy), false, 9)));
    orders.audit = true;
    assert_eq!(choose(&enforced, &orders), Some((Arc::clone(&policy), true, 0)));
    orders.audit = false;
    assert_eq!(choose(&settings(&policy, Mode::Audit), &orders), Some((Arc::clone(&policy), true, 0)));
    let none = NodeSettings { nic: None, ..enforced };
    assert_eq!(choose(&none, &orders), None);
}

fn image(failsafes: Failsafes) -> NicImage {
    let config = KernelConfig {
        mesh: "default".to_owned(),
        device: "ogr0".to_owned(),
        bpffs: PathBuf::new(),
        mtu: None,
        allowed_cidrs: None,
        underlay_addresses: Vec::new(),
        sizes: TableSizes::default(),
        verify_every: Duration::from_secs(1),
        nic: NicConfig { failsafes, ..NicConfig::unwatched() },
        silent: watch::channel(crate::kernel::Silent::default()).1,
    };
    let known = LinkAddress { prefix_len: 24, usable: true };
    let link = |index: u32, name: &str, own: &str| Link {
        index,
        name: name.to_owned(),
        up: true,
        addresses: [(address(own), known)].into(),
        ..Link::default()
    };
    let links = [(2, link(2, "eth0", "192.0.2.2")), (9, link(9, "ogr0", "10.244.240.7"))];
    let inventory = Inventory { links: links.into(), routes: Vec::new() };
    let facts = HostFacts {
        nameservers: vec![address("192.0.2.53")],
        protected: vec![
            ("gateway gw:7443".to_owned(), address("192.0.2.7")),
            ("the tunnel endpoint".to_owned(), address("192.0.2.8")),
        ],
        ..HostFacts::default()
    };
    let ssh = [22, 2222].into();
    let policy = Arc::new(deny_all("all"));
    let surroundings = Surroundings { config: &config, inventory: &inventory, facts: &facts, ssh: &ssh };
    surroundings.image(&settings(&policy, Mode::Enforce)).unwrap()
}

fn allows(image: &NicImage, direction: datapath::Direction, remote: &str, protocol: u8, port: u16) -> bool {
    let flow = Flow { direction, remote: address(remote), identity: None, protocol, port };
    evaluate(&image.policy, &flow).action == RuleAction::Allow
}

#[test]
fn a_policy_that_denies_everything_leaves_the_host_reachable() {
    use datapath::Direction::{Egress, Ingress};
    let whole = image(Failsafes::default());
    assert_eq!(whole.devices, [(2, "eth0".to_owned())].into());
    assert_eq!(whole.own, ["192.0.2.2", "192.0.2.255"].map(address).into());
    assert_eq!(whole.tunnel_port, 8479);
    for port in [22, 2222] {
        assert!(allows(&whole, Ingress, "198.51.100.1", 6, port));
    }
    assert!(!allows(&whole, Ingress, "198.51.100.1", 6, 80));
    assert!(allows(&whole, Egress, "192.0.2.7", 6, 7443) && !allows(&whole, Egress, "192.0.2.8", 6, 7443));
    assert!(allows(&whole, Egress, "192.0.2.53", 17, 53) && !allows(&whole, Egress, "192.0.2.54", 17, 53));
    assert!(allows(&whole, Ingress, "192.0.2.1", 17, 68) && allows(&whole, Egress, "192.0.2.1", 17, 67));
    assert!(allows(&whole, Egress, "192.0.2.1", 17, 123));
    assert_eq!(whole.open.len(), 7, "{:?}", whole.open);
}

#[test]
fn what_stays_open_can_be_narrowed_and_widened() {
    use datapath::Direction::{Egress, Ingress};
    let narrow = image(Failsafes {
        kinds: vec![Failsafe::Ssh],
        ports: vec![9100],
        sources: Some(vec!["198.51.100.0/24".parse().unwrap()]),
    });
    for port in [22, 9100] {
        assert!(allows(&narrow, Ingress, "198.51.100.1", 6, port));
        assert!(!allows(&narrow, Ingress, "203.0.113.1", 6, port));
    }
    assert!(!allows(&narrow, Egress, "192.0.2.7", 6, 7443));
    assert_eq!(narrow.tunnel_port, 0);
}
