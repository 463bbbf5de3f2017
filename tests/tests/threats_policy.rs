//! Threats 32 to 35 and 44 of `docs/security.md`: what a policy means, from the manifest through compiler, wire and
//! tables to the verdict, in the kernel and in the host build at once.

use anyhow::{Context, Result, ensure};
use datapath::Reason;
use e2e::prog_test::frames::{ipv4, ipv6, tcp, udp};
use e2e::prog_test::twin::{API, DB, OPS, PEERS, Peer, Twin, WEB, compiled, network_policy};
use policy::rules::precedence;
use policy::state::{
    Block, Default, DirectionPolicy, Peers, Policy, PortRange, Ports, Reach, Rule, RuleAction,
};
use prost::Message as _;
use proto::v1;
use serde_json::{Value, json};

const SYN: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A packet that opens a flow between a peer and the host.
fn opener(from: (Peer, Peer), is_v6: bool, protocol: u8, port: u16) -> Vec<u8> {
    let (source, destination) = (from.0.address(is_v6), from.1.address(is_v6));
    let payload = if protocol == TCP { tcp(4000, port, SYN) } else { udp(4000, port) };
    if is_v6 {
        ipv6(source, destination, protocol, &payload)
    } else {
        ipv4(source, destination, protocol, [0; 4], &payload)
    }
}

/// Whether the peer may open a flow to a port of the host.
fn may_enter(twin: &mut Twin, from: Peer, is_v6: bool, protocol: u8, port: u16) -> Result<bool> {
    allowed(twin.ingress(from, &opener((from, DB), is_v6, protocol, port))?)
}

/// Whether the host may open a flow to a port of the peer.
fn may_leave(twin: &mut Twin, to: Peer, is_v6: bool, protocol: u8, port: u16) -> Result<bool> {
    allowed(twin.egress(&opener((DB, to), is_v6, protocol, port))?)
}

fn allowed(reason: Reason) -> Result<bool> {
    let is_allowed = matches!(reason, Reason::NewAllowed | Reason::Established);
    let is_decided = is_allowed || reason == Reason::PolicyDenied;
    ensure!(is_decided, "neither allowed nor denied: {}", reason.name());
    Ok(is_allowed)
}

fn selects(app: &str) -> Value {
    json!({"podSelector": {"matchLabels": {"app": app}}})
}

/// A policy for the host with these ingress rules.
fn ingress(rules: &Value) -> Value {
    network_policy("db", &json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": rules}))
}

#[test]
fn threat_32_empty_sets_match_nothing() -> Result<()> {
    let mut twin = Twin::with(&[])?;
    let nothing = [
        ("no rules", json!([])),
        ("a selector of nobody", json!([{"from": [selects("nobody")]}])),
        ("a namespace of nobody", json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "x"}}}]}])),
        ("a port of a name that nobody has", json!([{"ports": [{"port": "http"}]}])),
        (
            "a block with no address left",
            json!([{"from": [{"ipBlock":
            {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9", "10.128.0.0/9"]}}]}]),
        ),
        ("an address of nobody", json!([{"from": [{"ipBlock": {"cidr": "203.0.113.1/32"}}]}])),
    ];
    for (what, rules) in nothing {
        twin.apply(&[ingress(&rules)])?;
        for (peer, is_v6, protocol) in everyone() {
            ensure!(!may_enter(&mut twin, peer, is_v6, protocol, 80)?, "{what}: {} enters", peer.name);
        }
    }
    Ok(())
}

fn everyone() -> impl Iterator<Item = (Peer, bool, u8)> {
    let families = PEERS.into_iter().flat_map(|peer| [(peer, false), (peer, true)]);
    families.flat_map(|(peer, is_v6)| [(peer, is_v6, TCP), (peer, is_v6, UDP)])
}

/// A way to lose a part: its name, and what it does.
type Mutilation = (&'static str, fn(&mut v1::Rule));

/// Every way in which a rule about `ops` and port 80 can lose a part on the wire.
fn mutilations() -> Vec<Mutilation> {
    vec![
        ("no peers", |rule| rule.peers = None),
        ("peers of no kind", |rule| rule.peers = Some(v1::Peers { peers: None })),
        ("no peer", |rule| {
            let only = v1::peers::Peers::Only(v1::PeerSet::default());
            rule.peers = Some(v1::Peers { peers: Some(only) });
        }),
        ("a block of no address", |rule| {
            let set = v1::PeerSet { blocks: vec![v1::Block::default()], ..v1::PeerSet::default() };
            rule.peers = Some(v1::Peers { peers: Some(v1::peers::Peers::Only(set)) });
        }),
        ("no ports", |rule| rule.ports = None),
        ("ports of no kind", |rule| rule.ports = Some(v1::Ports { ports: None })),
        ("no port", |rule| {
            let only = v1::ports::Ports::Only(v1::PortSet::default());
            rule.ports = Some(v1::Ports { ports: Some(only) });
        }),
        ("no verdict", |rule| rule.verdict = 0),
        ("a verdict of the future", |rule| rule.verdict = 77),
    ]
}

#[test]
fn threat_32_what_is_missing_on_the_wire_is_never_everything() -> Result<()> {
    let rules = json!([{"from": [selects("ops")], "ports": [{"port": 80}]}]);
    let whole = proto::convert::policy_to_wire(&compiled(&[ingress(&rules)])?);
    let mut twin = Twin::under(proto::convert::policy_from_wire(&whole)?)?;
    ensure!(may_enter(&mut twin, OPS, false, TCP, 80)?, "the rule as it is");
    for (what, mutilate) in mutilations() {
        let mut wire = whole.clone();
        mutilate(wire.ingress.as_mut().and_then(|ingress| ingress.rules.first_mut()).context("a rule")?);
        let received = v1::Policy::decode(wire.encode_to_vec().as_slice())?;
        // Refused, or worth nothing.
        let Ok(policy) = proto::convert::policy_from_wire(&received) else { continue };
        twin.put(policy)?;
        for (peer, is_v6, protocol) in everyone() {
            ensure!(!may_enter(&mut twin, peer, is_v6, protocol, 80)?, "{what}: {} enters", peer.name);
        }
    }
    for mutilate in [
        |wire: &mut v1::Policy| wire.ingress = None,
        |wire: &mut v1::Policy| {
            if let Some(ingress) = wire.ingress.as_mut() {
                ingress.default = None;
            }
        },
    ] {
        let mut wire = whole.clone();
        mutilate(&mut wire);
        ensure!(proto::convert::policy_from_wire(&wire).is_err(), "a direction without a default: {wire:?}");
    }
    Ok(())
}

#[test]
fn threat_33_every_allow_has_its_rule() -> Result<()> {
    // Which peers each list of rules justifies, in IPv4 and in IPv6: written down by hand.
    let block = |cidr: &str| json!({"ipBlock": {"cidr": cidr}});
    let cases: [(Value, &[Peer], &[Peer]); 6] = [
        (json!([{"from": [block("10.0.0.2/32")]}]), &[API], &[]),
        (json!([{"from": [block("fd00::3/128")]}]), &[], &[OPS]),
        (json!([{"from": [block("203.0.113.0/24")]}]), &[], &[]),
        (json!([{"from": [block("10.0.0.2/32"), selects("ops")]}]), &[API, OPS], &[OPS]),
        (json!([{"from": [block("10.0.0.2/32")]}, {"from": [selects("ops")]}]), &[API, OPS], &[OPS]),
        (json!([{"from": [block("10.0.0.2/31")]}]), &[API, OPS], &[]),
    ];
    let mut twin = Twin::with(&[])?;
    for (rules, v4, v6) in cases {
        twin.apply(&[ingress(&rules)])?;
        for (peer, is_v6, protocol) in everyone() {
            let justified = if is_v6 { v6 } else { v4 }.contains(&peer);
            let enters = may_enter(&mut twin, peer, is_v6, protocol, 80)?;
            ensure!(enters == justified, "{rules}: {} enters: {enters}, IPv6 {is_v6}", peer.name);
        }
    }
    Ok(())
}

/// A rule about a block, for every protocol and port.
fn about(cidr: &str, action: RuleAction, order: u32) -> Result<Rule> {
    let block = Block { cidr: cidr.parse()?, except: Vec::new(), reach: Reach::Everyone };
    Ok(Rule {
        origin: format!("Test/shop/{action:?}-{cidr}#ingress[0]").into(),
        peers: Peers::Only { identities: std::sync::Arc::default(), blocks: vec![block] },
        ports: Ports::Any,
        action,
        precedence: precedence::NETWORK_POLICY + order,
    })
}

fn denying_by_default(rules: Vec<Rule>) -> Policy {
    let default = Default::Deny { by: vec!["Test/shop/all".to_owned()] };
    Policy { ingress: DirectionPolicy { default, rules }, ..Policy::unrestricted() }
}

#[test]
fn threat_34_a_narrow_allow_does_not_hide_a_broad_deny() -> Result<()> {
    // All contain the first address of `api` (10.0.0.2, fd00::2), from the broadest to the narrowest.
    let nested = [
        ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/30", "10.0.0.2/31", "10.0.0.2/32"],
        ["::/0", "fd00::/8", "fd00::/126", "fd00::2/127", "fd00::2/128"],
    ];
    let mut twin = Twin::with(&[])?;
    for (is_v6, nested) in [false, true].into_iter().zip(nested) {
        for deny in nested {
            for allow in nested {
                for (deny_precedence, expected) in [(1, true), (2, false), (3, false)] {
                    let rules = vec![
                        about(allow, RuleAction::Allow, 2)?,
                        about(deny, RuleAction::Deny, deny_precedence)?,
                    ];
                    twin.put(denying_by_default(rules))?;
                    let enters = may_enter(&mut twin, API, is_v6, TCP, 80)?;
                    ensure!(
                        enters == expected,
                        "allow {allow} at 2, deny {deny} at {deny_precedence}: enters {enters}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn threat_34_a_hole_is_a_hole_of_its_own_block_only() -> Result<()> {
    let mut twin = Twin::with(&[])?;
    let holed = json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/30"]}});
    twin.apply(&[ingress(&json!([{"from": [holed]}]))])?;
    ensure!(!may_enter(&mut twin, API, false, TCP, 80)?, "within the hole");
    ensure!(may_enter(&mut twin, WEB, false, TCP, 80)?, "beside the hole");
    let narrow = json!({"ipBlock": {"cidr": "10.0.0.2/32"}});
    twin.apply(&[ingress(&json!([{"from": [holed]}, {"from": [narrow]}]))])?;
    ensure!(may_enter(&mut twin, API, false, TCP, 80)?, "allowed by the other rule");
    ensure!(!may_enter(&mut twin, OPS, false, TCP, 80)?, "still within the hole");
    Ok(())
}

#[test]
fn threat_35_port_ranges_hold_at_every_boundary() -> Result<()> {
    let ranges: [(u16, u16); 12] = [
        (1, 65535),
        (1024, 65535),
        (65535, 65535),
        (65534, 65535),
        (1, 1),
        (1, 65534),
        (32767, 32768),
        (32768, 65535),
        (1, 32767),
        (255, 257),
        (4095, 4097),
        (30000, 32767),
    ];
    let mut twin = Twin::with(&[])?;
    for (first, last) in ranges {
        let ports =
            json!([{"port": first, "endPort": last}, {"protocol": "UDP", "port": first, "endPort": last}]);
        twin.apply(&[ingress(&json!([{"from": [selects("api")], "ports": ports}]))])?;
        let near = |port: u16| [port.saturating_sub(1), port, port.saturating_add(1)];
        let middle = first + (last - first) / 2;
        let mut probes: Vec<u16> =
            [0, 1, 80, 65535].into_iter().chain(near(first)).chain(near(last)).collect();
        probes.extend([middle, middle & 0xff00, middle | 0x00ff]);
        for port in probes {
            for protocol in [TCP, UDP] {
                let enters = may_enter(&mut twin, API, false, protocol, port)?;
                ensure!(enters == (first..=last).contains(&port), "{first}-{last}: port {port}: {enters}");
            }
            ensure!(!may_enter(&mut twin, WEB, false, TCP, port)?, "{first}-{last}: another peer");
        }
    }
    Ok(())
}

#[test]
fn threat_35_of_overlapping_ranges_the_stronger_decides_each_port() -> Result<()> {
    let rule = |first, last, action, order| Rule {
        origin: format!("Test/shop/{action:?}-{first}-{last}#ingress[0]").into(),
        peers: Peers::Any,
        ports: Ports::Only(vec![PortRange { protocol: TCP, first, last }]),
        action,
        precedence: precedence::NETWORK_POLICY + order,
    };
    let pairs = [
        ((1, 65535), (80, 80)),
        ((80, 80), (1, 65535)),
        ((1000, 2000), (1500, 3000)),
        ((0, 65535), (65535, 65535)),
    ];
    let mut twin = Twin::with(&[])?;
    for ((allow_first, allow_last), (deny_first, deny_last)) in pairs {
        for deny_precedence in [1, 2, 3] {
            twin.put(denying_by_default(vec![
                rule(allow_first, allow_last, RuleAction::Allow, 2),
                rule(deny_first, deny_last, RuleAction::Deny, deny_precedence),
            ]))?;
            for port in [1, 79, 80, 81, 999, 1000, 1499, 1500, 2000, 2001, 3000, 3001, 65534, 65535] {
                let denied = (deny_first..=deny_last).contains(&port) && deny_precedence >= 2;
                let expected = (allow_first..=allow_last).contains(&port) && !denied;
                let enters = may_enter(&mut twin, API, true, TCP, port)?;
                ensure!(
                    enters == expected,
                    "allow {allow_first}-{allow_last} at 2, deny {deny_first}-{deny_last} at {deny_precedence}: port {port}: {enters}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn threat_44_defaults_are_what_they_are_documented_to_be() -> Result<()> {
    let select = json!({"matchLabels": {"app": "db"}});
    let peer = || json!([selects("api")]);
    // Whether `api` and `web` may enter, and whether the host may reach them.
    let cases = [
        ("no policy", None, [true, true, true, true]),
        (
            "of another workload",
            Some(json!({"podSelector": {"matchLabels": {"app": "other"}}})),
            [true, true, true, true],
        ),
        ("nothing but a subject", Some(json!({"podSelector": select})), [false, false, true, true]),
        ("an empty subject", Some(json!({"podSelector": {}})), [false, false, true, true]),
        (
            "ingress",
            Some(json!({"podSelector": select, "ingress": [{"from": peer()}]})),
            [true, false, true, true],
        ),
        (
            "egress",
            Some(json!({"podSelector": select, "egress": [{"to": peer()}]})),
            [false, false, true, false],
        ),
        (
            "egress alone",
            Some(json!({"podSelector": select, "policyTypes": ["Egress"], "egress": [{"to": peer()}]})),
            [true, true, true, false],
        ),
        (
            "both, empty",
            Some(json!({"podSelector": select, "policyTypes": ["Ingress", "Egress"]})),
            [false; 4],
        ),
        (
            "rules of a direction that is left out",
            Some(json!({"podSelector": select, "policyTypes": ["Ingress"], "egress": [{"to": peer()}]})),
            [false, false, true, true],
        ),
        ("a rule about all", Some(json!({"podSelector": select, "ingress": [{}]})), [true, true, true, true]),
    ];
    let mut twin = Twin::with(&[])?;
    for (what, spec, expected) in cases {
        let manifests: Vec<Value> = spec.iter().map(|spec| network_policy("db", spec)).collect();
        for is_v6 in [false, true] {
            twin.apply(&manifests)?;
            let enter = [API, WEB].map(|peer| may_enter(&mut twin, peer, is_v6, UDP, 80));
            twin.forget()?;
            let leave = [API, WEB].map(|peer| may_leave(&mut twin, peer, is_v6, UDP, 80));
            let seen: Vec<bool> = enter.into_iter().chain(leave).collect::<Result<_>>()?;
            ensure!(seen == expected, "{what}: {seen:?} instead of {expected:?}, IPv6 {is_v6}");
        }
    }
    Ok(())
}

#[test]
fn threat_44_directions_are_not_swapped() -> Result<()> {
    let select = json!({"matchLabels": {"app": "db"}});
    let both = json!(["Ingress", "Egress"]);
    let rule =
        |field: &str, app: &str, port: u16| json!([{field: [selects(app)], "ports": [{"port": port}]}]);
    let spec = json!({"podSelector": select, "policyTypes": both,
        "ingress": rule("from", "api", 80), "egress": rule("to", "ops", 443)});
    let mirrored = json!({"podSelector": select, "policyTypes": both,
        "ingress": rule("from", "ops", 443), "egress": rule("to", "api", 80)});
    let mut twin = Twin::with(&[])?;
    for (spec, enters, leaves) in [(spec, (API, 80), (OPS, 443)), (mirrored, (OPS, 443), (API, 80))] {
        for is_v6 in [false, true] {
            twin.apply(&[network_policy("db", &spec)])?;
            for (peer, port) in [(API, 80), (API, 443), (OPS, 80), (OPS, 443), (WEB, 80), (WEB, 443)] {
                let seen = may_enter(&mut twin, peer, is_v6, TCP, port)?;
                ensure!(seen == (enters == (peer, port)), "{} enters {port}: {seen}", peer.name);
            }
            twin.forget()?;
            for (peer, port) in [(API, 80), (API, 443), (OPS, 80), (OPS, 443), (WEB, 80), (WEB, 443)] {
                let seen = may_leave(&mut twin, peer, is_v6, TCP, port)?;
                ensure!(seen == (leaves == (peer, port)), "to {} port {port}: {seen}", peer.name);
            }
        }
    }
    Ok(())
}
