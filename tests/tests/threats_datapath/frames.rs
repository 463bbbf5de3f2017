//! Real frames, where the kernel itself does something before or after the programs: tags, segments, fragments.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::forgery::{Forgery, families, identity_of};
use e2e::host::Host;
use e2e::json;
use e2e::process::Process;
use e2e::shared::Shared;
use e2e::shop::{Shop, TCP, UDP};
use e2e::traffic::udp::{SendReport, SinkReport};
use e2e::wait::wait_for;
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4};

/// An MTU that no path has, and no kernel takes for too small.
const SMALL: u16 = 1281;

static SHOP: Shared<Shop> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(20);

fn sink(host: &Host, more: &str) -> Result<Process> {
    let sink = host.traffic("sink", &format!("udp-sink --port {UDP} {more}"))?;
    wait_for("the sink", PATIENCE, || sink.report::<SinkReport>().is_ok_and(|report| report.listening))?;
    Ok(sink)
}

/// Sends 50 datagrams behind these tags to the card of `db-1`.
fn send(shop: &Shop, from: &Host, (source, to): (IpAddr, IpAddr), flow: u32, tags: &str) -> Result<()> {
    let card = card(&shop.db.host)?;
    let words = format!(
        "traffic bare --to-card {card} --source {source} --destination {to} --port {UDP} --flow {flow} --count 50 {tags}"
    );
    let sent = from.run(&words.split_whitespace().collect::<Vec<_>>())?.json()?;
    ensure!(json::number(&sent, "sent") == 50, "{sent}");
    Ok(())
}

fn drops(shop: &Shop) -> Result<u64> {
    Ok(shop.db.counted("guard_destination")? + shop.db.counted("unknown_ethertype")?)
}

/// The address of the card that a machine has on the underlay.
fn card(host: &Host) -> Result<String> {
    let devices = host.devices()?;
    let mut found = json::list(&devices, "").iter().filter(|device| json::text(device, "ifname") == "eth0");
    found.next().map(|device| json::text(device, "address").to_owned()).context("no device eth0")
}

/// The kernel strips tags of VLAN 0, however many, and delivers what they hide.
#[test]
fn threat_29_frames_with_priority_tags_do_not_pass_the_guard() {
    SHOP.test(|shop| {
        let attacker = shop.cluster.net.host("tags")?;
        let own: [IpAddr; 2] = [attacker.v4().into(), attacker.v6().into()];
        let cards: [IpAddr; 2] = [shop.db.host.v4().into(), shop.db.host.v6().into()];
        let mut sink = sink(&shop.db.host, "")?;
        let received =
            |flow| sink.report::<SinkReport>().is_ok_and(|report| report.flow(flow).received == 50);
        for ((source, card), mesh) in own.into_iter().zip(cards).zip(shop.db.addresses()?) {
            // What is not of the mesh arrives behind one such tag: these frames do reach the host.
            let flow = if source.is_ipv4() { 4 } else { 6 };
            send(shop, &attacker, (source, card), flow, "--tag 8100:e000")?;
            wait_for("tagged datagrams", PATIENCE, || received(flow))?;
            for tags in ["8100:0000", "8100:e000 --tag 8100:0000", "88a8:0000 --tag 8100:0000", "88a8:0000"] {
                let before = drops(shop)?;
                send(shop, &attacker, (source, mesh), 29, &format!("--tag {tags}"))?;
                wait_for("the drops", PATIENCE, || drops(shop).is_ok_and(|now| now >= before + 50))
                    .with_context(|| format!("{tags} to {mesh}"))?;
            }
        }
        let received: SinkReport = sink.finish()?;
        ensure!(received.flow(29).received == 0, "delivered: {received:?}");
        Ok(())
    });
}

/// Sends packets of the pod `api` from its own node to `db-1`.
fn inject(shop: &Shop, is_v6: bool, flow: u32, inner: &str, more: &str) -> Result<()> {
    let [v4, v6] = families(shop)?;
    let [destination, _, source, _] = if is_v6 { v6 } else { v4 };
    let (from, vni) = (shop.cluster.node.host(), identity_of(shop, source)?);
    Forgery { from, vni, source, destination, flow, inner, more }.send(shop)
}

#[test]
fn threat_29_tagged_frames_in_the_tunnel_are_dropped() {
    SHOP.test(|shop| {
        let mut sink = sink(&shop.db.host, "")?;
        for is_v6 in [false, true] {
            for tags in ["8100:0000", "8100:0005", "88a8:0005", "88a8:0005 --tag 8100:0000"] {
                let before = shop.db.counted("unknown_ethertype")?;
                inject(shop, is_v6, 29, "udp", &format!("--tag {tags}"))?;
                wait_for("the drops", PATIENCE, || {
                    shop.db.counted("unknown_ethertype").is_ok_and(|now| now >= before + 50)
                })
                .with_context(|| tags.to_owned())?;
            }
        }
        // Without tags they are what they say they are.
        inject(shop, false, 30, "udp", "")?;
        wait_for("the untagged", PATIENCE, || {
            sink.report::<SinkReport>().is_ok_and(|report| report.flow(30).received == 50)
        })?;
        let received: SinkReport = sink.finish()?;
        ensure!(received.flow(29).received == 0, "{received:?}");
        Ok(())
    });
}

/// An error for `db-1` about a datagram from its mesh address, of a router that wants it smaller.
fn too_big((router, card): (IpAddr, IpAddr), (mesh, pod): (IpAddr, IpAddr)) -> Result<String> {
    let (mut quoted, mut packet) = (Vec::new(), Vec::new());
    match (router, card, mesh, pod) {
        (IpAddr::V4(router), IpAddr::V4(card), IpAddr::V4(mesh), IpAddr::V4(pod)) => {
            PacketBuilder::ipv4(mesh.octets(), pod.octets(), 64)
                .udp(UDP, 4000)
                .write(&mut quoted, &[0; 32])?;
            let kind = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: SMALL };
            PacketBuilder::ipv4(router.octets(), card.octets(), 64)
                .icmpv4(Icmpv4Type::DestinationUnreachable(kind))
                .write(&mut packet, &quoted)?;
        }
        (IpAddr::V6(router), IpAddr::V6(card), IpAddr::V6(mesh), IpAddr::V6(pod)) => {
            PacketBuilder::ipv6(mesh.octets(), pod.octets(), 64)
                .udp(UDP, 4000)
                .write(&mut quoted, &[0; 32])?;
            PacketBuilder::ipv6(router.octets(), card.octets(), 64)
                .icmpv6(Icmpv6Type::PacketTooBig { mtu: SMALL.into() })
                .write(&mut packet, &quoted)?;
        }
        mixed => anyhow::bail!("addresses of two families: {mixed:?}"),
    }
    Ok(packet.iter().fold(String::new(), |all, byte| all + &format!("{byte:02x}")))
}

/// Outside of tunnels nobody can know of an error within, but the kernel would believe it.
#[test]
fn threat_27_errors_about_the_mesh_do_not_pass_on_other_devices() {
    SHOP.test(|shop| {
        let attacker = shop.cluster.net.host("router")?;
        let own: [IpAddr; 2] = [attacker.v4().into(), attacker.v6().into()];
        let cards: [IpAddr; 2] = [shop.db.host.v4().into(), shop.db.host.v6().into()];
        let _sink = sink(&shop.db.host, "")?;
        let ends = shop.db.addresses()?.into_iter().zip(shop.api.addresses());
        for (path, ends) in own.into_iter().zip(cards).zip(ends) {
            let before = shop.db.counted("icmp_unrelated")?;
            let (packet, card) = (too_big(path, ends)?, card(&shop.db.host)?);
            let words = format!(
                "traffic bare --to-card {card} --source {} --destination {} --packet {packet} --count 50",
                path.0, path.1
            );
            attacker.run(&words.split(' ').collect::<Vec<_>>())?.ok()?;
            let learnt = || {
                Ok::<_, anyhow::Error>(shop.db.host.run(&["ip", "route", "get", &ends.1.to_string()])?.stdout)
            };
            wait_for("the drops", PATIENCE, || {
                shop.db.counted("icmp_unrelated").is_ok_and(|now| now >= before + 50)
            })
            .with_context(|| learnt().unwrap_or_default())?;
            let learnt = learnt()?;
            ensure!(!learnt.contains(&format!("mtu {SMALL}")), "the kernel believes a stranger: {learnt}");
        }
        Ok(())
    });
}

#[test]
fn threat_30_the_largest_and_the_smallest_datagrams_pass() {
    SHOP.test(|shop| {
        let mut sink = sink(&shop.db.host, "--echo")?;
        for (to, flow) in shop.db.addresses()?.into_iter().zip([4_u32, 6]) {
            let to = SocketAddr::new(to, UDP);
            // The first may be lost to a too-big that the sender learns from.
            let probe = format!("udp-send --to {to} --flow {} --size 65507 --rate 10 --count 3", flow + 40);
            shop.api.traffic("probe", &probe)?.wait(PATIENCE)?;
            let send = format!("udp-send --to {to} --flow {flow} --size 65507 --rate 20 --count 10");
            let mut sender = shop.api.traffic("largest", &send)?;
            sender.wait(PATIENCE)?;
            let report: SendReport = sender.report()?;
            ensure!((report.sent, report.echoed) == (10, 10), "{report:?}");
            let before = sink.report::<SinkReport>()?.foreign;
            inject(shop, flow == 6, flow, "empty", "")?;
            wait_for("empty datagrams", PATIENCE, || {
                sink.report::<SinkReport>().is_ok_and(|report| report.foreign >= before + 50)
            })?;
        }
        let received: SinkReport = sink.finish()?;
        for flow in [4, 6] {
            let flow = received.flow(flow);
            ensure!((flow.received, flow.damaged) == (10, 0), "{flow:?}");
        }
        Ok(())
    });
}

#[test]
fn threat_30_segments_of_64_kilobytes_pass_both_ways() {
    SHOP.test(|shop| {
        let before = shop.db.counted("malformed")?;
        let pairs: [(&Host, &Host, [IpAddr; 2]); 2] = [
            (&shop.db.host, &shop.api, shop.db.addresses()?),
            (&shop.api, &shop.db.host, shop.api.addresses()),
        ];
        for (server, client, addresses) in pairs {
            let web = server.traffic("bulk", &format!("serve-http --port {TCP}"))?;
            wait_for("the server", PATIENCE, || !web.stdout().is_empty())?;
            for address in addresses {
                let url = format!("http://{}/bytes/8000000", SocketAddr::new(address, TCP));
                let got = client.run(&["traffic", "get", "--length", "--timeout-ms", "15000", &url])?.ok()?;
                ensure!(got.stdout.trim() == "8000000", "{got}");
            }
        }
        let after = shop.db.counted("malformed")?;
        ensure!(after == before, "{} segments were taken for malformed", after - before);
        Ok(())
    });
}
