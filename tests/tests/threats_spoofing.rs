//! Threats to sources: who may speak for which address. Rows 11 to 13 and 19 of the catalogue in `docs/security.md`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use datapath::abi::{Bank, Control, EndpointEntry, Hook, Settings, TunnelEntry, TunnelKey};
use datapath::model::{Frame, Model};
use datapath::{Action, Address, Moment, Outer, Reason, decide};
use e2e::agent::events;
use e2e::compiler::{self, Compiler, endpoint};
use e2e::forgery::{COUNT, Forgery, TUNNEL, families, identity_of, refused, sink};
use e2e::host::Host;
use e2e::json;
use e2e::long::rounds;
use e2e::prog_test::frames;
use e2e::prog_test::host;
use e2e::prog_test::kernel::{DROPPED, Kernel, PASSED, control_buffer};
use e2e::prog_test::mesh::address;
use e2e::shared::Shared;
use e2e::shop::{Shop, UDP, pings};
use e2e::traffic::udp::{SendReport, SinkReport};
use e2e::wait::{wait_for, wait_ok};
use etherparse::PacketBuilder;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

static SHOP: Shared<Shop> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(10);

fn forgery(from: &Host, vni: u64, source: IpAddr, destination: IpAddr) -> Forgery<'_> {
    Forgery { from, vni, source, destination, flow: 7, inner: "udp", more: "" }
}

/// Sources that `batch-1` has no right to, of the family of `db`.
fn foreign_sources(shop: &Shop, [db, _, api, web]: [IpAddr; 4]) -> Result<Vec<IpAddr>> {
    let transit = shop.cluster.transit.addresses()?;
    let node = if db.is_ipv4() { transit[0] } else { transit[1] };
    let fixed: &[&str] = if db.is_ipv4() {
        // An unused pod, an unused mesh address, a service; loopback, link-local, multicast, broadcast, none; the world.
        &[
            "10.100.1.99",
            "10.244.255.254",
            "10.96.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "0.0.0.0",
            "198.51.100.7",
        ]
    } else {
        &[
            "fd00:100:1::99",
            "fd00:244::fffe",
            "fd00:10:96::1",
            "::1",
            "fe80::1",
            "ff02::1",
            "::",
            "2001:db8::7",
            "::ffff:10.100.1.2",
        ]
    };
    let mut sources = vec![
        db,
        api,
        web,
        node,
        if db.is_ipv4() { shop.batch.host.v4().into() } else { shop.batch.host.v6().into() },
    ];
    for source in fixed {
        sources.push(source.parse()?);
    }
    Ok(sources)
}

/// Packets that the datapath of `db-1` dropped, and those that it let pass.
fn dropped_and_passed(shop: &Shop) -> Result<(u64, u64)> {
    let sum =
        |reasons: &[&str]| -> Result<u64> { reasons.iter().map(|reason| shop.db.counted(reason)).sum() };
    let dropped = sum(&[
        "spoofed",
        "unknown_source",
        "malformed",
        "multicast",
        "not_for_us",
        "no_flow",
        "icmp_unrelated",
    ])?;
    Ok((
        dropped,
        sum(&[
            "established",
            "new_allowed",
            "related",
            "forwarded",
            "audited",
            "relayed",
            "given_to_kernel",
        ])?,
    ))
}

#[test]
fn threat_11_inner_source() {
    SHOP.test(|shop| {
        let mut sink = sink(shop)?;
        let own = identity_of(shop, shop.batch.addresses()?[0])?;
        let (dropped, passed) = dropped_and_passed(shop)?;
        let mut sent = 0;
        for family in families(shop)? {
            for source in foreign_sources(shop, family)? {
                for vni in [own, identity_of(shop, source).unwrap_or(6)] {
                    forgery(&shop.batch.host, vni, source, family[0]).send(shop)?;
                    sent += COUNT;
                }
            }
        }
        wait_ok("the drops", PATIENCE, || {
            let (now, _) = dropped_and_passed(shop)?;
            ensure!(now >= dropped + sent, "{} of {sent} dropped: {:#}", now - dropped, shop.db.status()?);
            Ok(())
        })?;
        ensure!(dropped_and_passed(shop)?.1 == passed, "something passed: {:#}", shop.db.status()?);
        let received: SinkReport = sink.finish()?;
        ensure!(received.flows.is_empty() && received.foreign == 0, "delivered: {received:?}");
        Ok(())
    });
}

/// Who has an address of row 12's mesh: its identity, and the tunnel endpoints that speak for it.
const NESTED: [(&str, u32, &[&str]); 6] = [
    // Pods behind two transit nodes, behind one of them, and a host whose address lies between theirs.
    ("10.0.1.4", 301, &["192.0.2.3", "192.0.2.4"]),
    ("10.0.1.5", 302, &["192.0.2.3"]),
    ("10.0.1.6", 303, &["192.0.2.9"]),
    ("fd00:1::4", 301, &["192.0.2.3", "192.0.2.4"]),
    ("fd00:1::5", 302, &["192.0.2.3", "192.0.2.4", "192.0.2.9"]),
    ("fd00:1::6", 303, &["192.0.2.9"]),
];

fn nested_mesh() -> Model {
    let mut model = Model::default();
    let key = |text| host::endpoint_key(Bank::A, text);
    for text in ["10.0.0.1", "fd00::1"] {
        model.endpoints.insert(key(text), host::OWN);
    }
    for (set, (text, identity, tunnels)) in (1..).zip(NESTED) {
        let tunnel_set = if tunnels.len() > 1 { set } else { 0 };
        let entry = EndpointEntry {
            identity,
            mark: identity,
            tunnel_set,
            tunnel: tunnels.first().map_or(Address::NONE, |first| address(first)),
            flags: 0,
            ..host::OWN
        };
        model.endpoints.insert(key(text), entry);
        for tunnel in tunnels.iter().filter(|_| tunnel_set != 0) {
            let key = TunnelKey { bank: 0, reserved: [0; 3], set: tunnel_set, address: address(tunnel) };
            model.tunnels.insert(key, TunnelEntry::default());
        }
    }
    let settings = host::settings(Action::Allow, Action::Allow);
    model.settings[0] = Some(Settings { address_v6: address("fd00::1"), ..settings });
    model
}

#[test]
fn threat_12_only_the_owner_of_an_address_speaks_for_it() -> Result<()> {
    let model = nested_mesh();
    let mut kernel = Kernel::load()?;
    kernel.write_tables(&model)?;
    let control = Control::new(Bank::A, 0, 1);
    kernel.publish(control)?;
    let moment = Moment { hook: Hook::MeshIngress, control, now_ns: 1 << 40 };
    let (mut port, mut passed) = (1_u16, 0);
    for (source, identity, owners) in NESTED {
        let (source, own) =
            (address(source), address(if source.contains(':') { "fd00::1" } else { "10.0.0.1" }));
        for outer in ["192.0.2.3", "192.0.2.4", "192.0.2.9", "192.0.2.5", "2001:db8::3"] {
            for vni in [301, 302, 303, 300, 6] {
                port += 1;
                let udp = frames::udp(port, 80);
                let ip = if source.is_v4() {
                    frames::ipv4(source, own, 17, [0; 4], &udp)
                } else {
                    frames::ipv6(source, own, 17, &udp)
                };
                let frame = frames::ethernet(&ip);
                let facts = Outer { source: address(outer), vni };
                let expected = owners.contains(&outer) && vni == identity;
                let found = Frame::of_ethernet(&frame).context("a frame")?;
                let reason = decide(&found, &facts, &moment, &model).reason;
                ensure!(reason.passes() == expected, "{source:?} from {outer}, {vni}: {}", reason.name());
                let action = kernel.run("test_mesh_ingress", &frame, control_buffer(&facts))?.action;
                ensure!(
                    action == if expected { PASSED } else { DROPPED },
                    "the kernel: {source:?} from {outer}, {vni}"
                );
                passed += u32::from(expected);
            }
        }
    }
    ensure!(passed == 10, "{passed} combinations passed");
    Ok(())
}

#[test]
fn threat_11_random_facts_in_the_programs() -> Result<()> {
    let mut kernel = Kernel::load()?;
    kernel.write_tables(&nested_mesh())?;
    kernel.publish(Control::new(Bank::A, 0, 1))?;
    let mut random = StdRng::seed_from_u64(1);
    let outers: Vec<_> =
        ["192.0.2.3", "192.0.2.4", "192.0.2.9", "192.0.2.5", "2001:db8::3"].map(address).into();
    let (mut accepted, mut sent) = (0_u32, 0_u32);
    while sent < rounds(50_000, 10_000_000) {
        let (source, identity, owners) = *NESTED.choose(&mut random).context("a source")?;
        let outer = *outers.choose(&mut random).context("an outer source")?;
        // Random as often as known.
        let vni = if random.random_bool(0.5) {
            random.random_range(300..304)
        } else {
            random.random_range(0..1 << 24)
        };
        if vni == identity && owners.iter().any(|owner| address(owner) == outer) {
            continue;
        }
        sent += 1;
        let source = address(source);
        let segment = frames::udp(random.random(), random.random());
        let ip = if source.is_v4() {
            frames::ipv4(source, address("10.0.0.1"), 17, [0; 4], &segment)
        } else {
            frames::ipv6(source, address("fd00::1"), 17, &segment)
        };
        let facts = control_buffer(&Outer { source: outer, vni });
        let action = kernel.run("test_mesh_ingress", &frames::ethernet(&ip), facts)?.action;
        accepted += u32::from(action != DROPPED);
    }
    println!("{accepted} accepted of {sent}");
    ensure!(accepted == 0, "{accepted} accepted of {sent}");
    Ok(())
}

/// Lets a machine send random packets in every name but its own.
fn storm(shop: &Shop, from: &Host, own: &[IpAddr], count: u32) -> Result<u64> {
    let mut words = format!("traffic storm --to {}:{TUNNEL} --count {count}", shop.db.host.v4());
    for family in families(shop)? {
        let _ = write!(words, " --destination {}", family[0]);
        for source in family.iter().filter(|source| !own.contains(source)) {
            let _ = write!(words, " --source {source} --vni {}", identity_of(shop, *source)?);
        }
    }
    let mut storm = from.spawn("storm", &words.split(' ').collect::<Vec<_>>())?;
    storm.wait(Duration::from_hours(1))?;
    Ok(storm.report::<SendReport>()?.sent)
}

#[test]
fn threat_11_random_packets_on_the_wire() {
    SHOP.test(|shop| {
        let stranger = shop.cluster.net.host("stranger")?;
        let mut sink = sink(shop)?;
        let (dropped, passed) = dropped_and_passed(shop)?;
        let count = rounds(25_000, 5_000_000);
        let own = shop.batch.addresses()?;
        let sent = storm(shop, &stranger, &[], count)? + storm(shop, &shop.batch.host, &own, count)?;
        wait_ok("the drops", PATIENCE, || {
            let (now, _) = dropped_and_passed(shop)?;
            // A kernel whose queues are full drops some before they are looked at.
            ensure!(now > dropped + sent / 2, "{} of {sent} dropped", now - dropped);
            Ok(())
        })?;
        let (now, accepted) = dropped_and_passed(shop)?;
        let accepted = accepted - passed;
        println!("{accepted} accepted of {sent}, {} looked at", now - dropped);
        ensure!(accepted == 0, "{accepted} accepted of {sent}: {:#}", shop.db.status()?);
        let received: SinkReport = sink.finish()?;
        ensure!(received.flows.is_empty() && received.foreign == 0, "delivered: {received:?}");
        Ok(())
    });
}

#[test]
fn threat_12_a_pod_owns_no_mesh_address() -> Result<()> {
    let mut index = Compiler::try_new()?;
    index.put(&compiler::group("db", "{app: db}"))?;
    index.join("n1", None, "10.9.0.2", "192.0.2.2")?;
    // An address of the pool, given to a host and free; and one outside of it.
    for (pod, address) in [("a", "10.9.0.1"), ("b", "10.9.0.77"), ("c", "10.1.0.3")] {
        index.put(&compiler::pod(pod, "{app: web}", "n1", address))?;
    }
    index.publish()?;
    index.join("db-1", Some("db"), "10.9.0.1", "192.0.2.1")?;
    let compiled = index.publish()?;
    ensure!(endpoint(&compiled, "10.9.0.1")?.owner.as_deref() == Some("shop/db-1"), "{compiled:#?}");
    ensure!(endpoint(&compiled, "10.9.0.77").is_err(), "a pod has an address of the pool");
    ensure!(*endpoint(&compiled, "10.1.0.3")?.tunnels == ["192.0.2.2".parse::<IpAddr>()?]);
    Ok(())
}

#[test]
fn threat_13_a_source_outside_the_mesh_is_nobody() {
    SHOP.test(|shop| {
        let external = shop.cluster.net.host("external")?;
        let node = shop.cluster.node.host();
        let gateways: [IpAddr; 2] = [node.v4().into(), node.v6().into()];
        for (mesh, via) in shop.db.addresses()?.into_iter().zip(gateways) {
            // It comes in at the node, as through a node port, and the node's kernel forwards it into the mesh.
            external.namespace().ip(&format!("route add {mesh} via {via}"))?;
            let mut sink = sink(shop)?;
            let before = shop.cluster.transit.counted("foreign_source")?;
            let to = SocketAddr::new(mesh, UDP);
            let mut sender = external.traffic("external", &format!("udp-send --to {to} --count 50"))?;
            sender.wait(PATIENCE)?;
            let sent: SendReport = sender.report()?;
            ensure!(sent.sent == 50, "{sent:?}");
            wait_ok("the refusal at the node", PATIENCE, || {
                let now = shop.cluster.transit.counted("foreign_source")?;
                ensure!(now >= before + 50, "{}", now - before);
                Ok(())
            })?;
            let received: SinkReport = sink.finish()?;
            ensure!(received.flows.is_empty(), "delivered: {received:?}");
            // Nor does the host take it, whoever the node says it is: host, world, remote node.
            let world: IpAddr = if mesh.is_ipv4() { external.v4().into() } else { external.v6().into() };
            for vni in [1, 2, 6] {
                refused(shop, &forgery(node, vni, world, mesh), "unknown_source")?;
            }
        }
        Ok(())
    });
}

#[test]
fn threat_13_what_a_node_sends_is_a_remote_node() {
    SHOP.test(|shop| {
        let monitor = shop.db.monitor("monitor-node")?;
        for (to, from) in shop.db.addresses()?.into_iter().zip(shop.cluster.transit.addresses()?) {
            let from = from.to_string();
            let event = wait_ok("the refusal of the node", PATIENCE, || {
                ensure!(!pings(shop.cluster.node.host(), to, 56)?, "the node is let in");
                let found = events(&monitor).into_iter().find(|event| json::text(event, "source") == from);
                found.context("no event")
            })?;
            ensure!(event.to_string().contains("remote-node"), "{event:#}");
        }
        Ok(())
    });
}

/// Messages that would have a host send elsewhere, by protocol: a router's advertisement with a default route, a
/// redirect, and a neighbour's solicitation and advertisement that claim an address.
fn discovery(source: IpAddr, to: IpAddr) -> Result<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    match (source, to) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            for (kind, code) in [(5, 0), (5, 1), (9, 0), (10, 0)] {
                let quoted = [&source.octets()[..], &[0x45; 28]].concat();
                let mut packet = Vec::new();
                PacketBuilder::ipv4(source.octets(), to.octets(), 255)
                    .icmpv4_raw(kind, code, source.octets())
                    .write(&mut packet, &quoted)?;
                packets.push(packet);
            }
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            let hardware = [2, 1, 2, 0, 0, 0, 0, 7];
            let prefix = [
                &[3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0][..],
                &Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 0).octets(),
            ]
            .concat();
            let router = [&[0, 0, 0, 0, 0, 0, 0, 0][..], &prefix, &hardware].concat();
            let claim = [&to.octets()[..], &hardware].concat();
            let redirect = [&source.octets()[..], &to.octets(), &hardware].concat();
            for (kind, rest, body) in [
                (134, [64, 0, 7, 8], router),
                (135, [0; 4], claim.clone()),
                (136, [0xe0, 0, 0, 0], claim),
                (137, [0; 4], redirect),
            ] {
                let mut packet = Vec::new();
                PacketBuilder::ipv6(source.octets(), to.octets(), 255)
                    .icmpv6_raw(kind, 0, rest)
                    .write(&mut packet, &body)?;
                packets.push(packet);
            }
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
    }
    Ok(packets)
}

#[test]
fn threat_19_neighbour_discovery() {
    SHOP.test(|shop| {
        let host = &shop.db.host;
        // A host that believes everything.
        for switch in
            ["ipv6/conf/ogr0/accept_ra", "ipv6/conf/ogr0/accept_redirects", "ipv4/conf/ogr0/accept_redirects"]
        {
            host.namespace()
                .sysctl(&format!("net/{switch}"), if switch.ends_with("ra") { "2" } else { "1" })?;
        }
        let learnt = || -> Result<String> {
            let neighbours = host.run(&["ip", "neighbour", "show", "dev", "ogr0"])?.ok()?.stdout;
            let addresses = host.run(&["ip", "-o", "address", "show", "dev", "ogr0"])?.ok()?.stdout;
            Ok(host.routes()? + &neighbours + &addresses)
        };
        let before = learnt()?;
        let mut sent = shop.db.counted("neighbour_discovery")?;
        for [db, _, api, _] in families(shop)? {
            let link_local: IpAddr = "fe80::7".parse()?;
            let sources = if db.is_ipv4() { vec![api] } else { vec![api, link_local] };
            for source in sources {
                for packet in discovery(source, db)? {
                    let hexadecimal = hex::encode(packet);
                    let more = format!("--packet {hexadecimal}");
                    let forgery = forgery(shop.cluster.node.host(), identity_of(shop, api)?, api, db);
                    Forgery { more: &more, ..forgery }.send(shop)?;
                    sent += COUNT;
                    wait_for("the count", PATIENCE, || {
                        shop.db.counted("neighbour_discovery").is_ok_and(|now| now >= sent)
                    })
                    .with_context(|| {
                        format!("{source}: {hexadecimal}\n{:#}", shop.db.status().unwrap_or_default())
                    })?;
                }
            }
        }
        let after = learnt()?;
        ensure!(after == before, "before:\n{before}\nafter:\n{after}");
        Ok(())
    });
}

#[test]
fn threat_19_no_discovery_leaves_either() -> Result<()> {
    let model = nested_mesh();
    let control = Control::new(Bank::A, 0, 1);
    let moment = Moment { hook: Hook::MeshEgress, control, now_ns: 1 << 40 };
    for (own, peer) in [("10.0.0.1", "10.0.1.4"), ("fd00::1", "fd00:1::4")] {
        let packets = discovery(own.parse()?, peer.parse()?)?;
        ensure!(packets.len() == 4, "{} packets", packets.len());
        for packet in packets {
            let verdict = decide(&Frame::of_ip(&packet), &Outer::NONE, &moment, &model);
            ensure!(verdict.reason == Reason::NeighbourDiscovery, "{packet:02x?}: {verdict:?}");
        }
    }
    Ok(())
}
