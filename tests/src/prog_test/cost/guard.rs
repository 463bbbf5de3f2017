//! What the guard of a NIC costs a packet: one that is not the mesh's, without a scope; one of this host itself, with one.

use anyhow::{Result, ensure};
use datapath::abi::{
    Bank, Control, EndpointKey, Place, PolicyEntry, PolicyKey, Rank, TunnelEntry, TunnelKey, settings_flag,
};
use datapath::model::Model;
use datapath::{Action, Address, Direction, Port};

use super::super::frames::{ethernet, ipv4, ipv6, tcp, udp};
use super::super::kernel::{Kernel, PASSED};
use super::super::mesh::address;
use super::Cost;
use super::tables::{own, tables};

/// The device of a test run.
const LOOPBACK: u32 = 1;
/// This host's addresses outside of the mesh, and somebody else's.
const HOST: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const ELSE: [&str; 2] = ["198.51.100.7", "2001:db8:1::7"];
const PORT: u16 = 443;

/// The same packet again and again, over the empty program, which takes so many nanoseconds.
pub(super) fn guard(kernel: &mut Kernel, empty: f64, rounds: u32) -> Result<Vec<Cost>> {
    const TIMES: u32 = 20_000;
    let control = [Control::new(Bank::A, 0, 1).0, 0, 0, 0, 0];
    let best = |kernel: &Kernel, program: &str, frame: &[u8]| -> Result<f64> {
        let mut best = u64::MAX;
        for _ in 0..rounds {
            let run = kernel.repeat(program, frame, control, TIMES)?;
            ensure!(run.action == PASSED, "{program} returned {}", run.action);
            best = best.min(run.ns);
        }
        Ok(f64::from(u32::try_from(best)?) - empty)
    };
    let foreign = ethernet(&ipv4(address(ELSE[0]), address("198.51.100.2"), 17, [0; 4], &udp(1, 2)));
    let mut costs = vec![Cost::ns(
        "guard, foreign IPv4 in, same packet".to_owned(),
        best(kernel, "guard_ingress", &foreign)?,
        None,
    )];

    kernel.write_tables(&with_scope(tables(1)))?;
    costs.push(Cost::ns(
        "guard with a scope, foreign IPv4 in, same packet".to_owned(),
        best(kernel, "guard_ingress", &foreign)?,
        None,
    ));
    for (((index, family), own), other) in ["IPv4", "IPv6"].into_iter().enumerate().zip(HOST).zip(ELSE) {
        let [own, other] = [address(own), address(other)];
        let packet = |from: Address, to: Address, segment: &[u8]| {
            ethernet(&if index == 0 {
                ipv4(from, to, 6, [0; 4], segment)
            } else {
                ipv6(from, to, 6, segment)
            })
        };
        let opens = packet(other, own, &tcp(4000, PORT, 2));
        let answers = packet(own, other, &tcp(PORT, 4000, 0x12));
        let (comes, goes) =
            (packet(other, own, &tcp(4000, PORT, 0x10)), packet(own, other, &tcp(PORT, 4000, 0x10)));
        for (program, frame) in [("guard_ingress", opens), ("guard_egress", answers)] {
            ensure!(kernel.run(program, &frame, control)?.action == PASSED, "{family}: the handshake passes");
        }
        let refused = packet(other, own, &tcp(4000, PORT + 1, 2));
        ensure!(kernel.run("guard_ingress", &refused, control)?.action != PASSED, "{family} is not governed");
        for (program, frame, way) in [("guard_ingress", comes, "in"), ("guard_egress", goes, "out")] {
            let name = format!("guard with a scope, established, {family} {way}, same packet");
            costs.push(Cost::ns(name, best(kernel, program, &frame)?, None));
        }
    }
    Ok(costs)
}

/// The tables of a host that has one port open on its NIC.
fn with_scope(mut model: Model) -> Model {
    let bank = Place::nic(Bank::A).number();
    let device = TunnelKey { bank, reserved: [0; 3], set: LOOPBACK, address: Address::NONE };
    model.tunnels.insert(device, TunnelEntry::default());
    for text in HOST {
        model.endpoints.insert(EndpointKey { bank, reserved: [0; 3], address: address(text) }, own(1));
    }
    let open = PolicyKey {
        prefix_len: PolicyKey::BASE_BITS + 16,
        bank,
        direction: Direction::Ingress.number(),
        protocol: 6,
        reserved: 0,
        class: 0,
        port: Port::new(PORT),
        padding: [0; 2],
    };
    model.policy.insert(open, PolicyEntry::of(Rank::new(1, Action::Allow), 5));
    for settings in model.settings.iter_mut().flatten() {
        settings.nic_flags = settings_flag::GOVERNS;
        settings.nic_ingress_default = Action::Deny.number();
        settings.nic_egress_default = Action::Deny.number();
    }
    model
}
