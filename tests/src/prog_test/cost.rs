//! Nanoseconds per packet, over an empty program, in `BPF_PROG_TEST_RUN`.

use anyhow::{Result, ensure};
use datapath::abi::{Bank, Control, EndpointEntry, EndpointKey, Settings, endpoint_flag};
use datapath::model::Model;
use datapath::{Action, Address, Outer};

use super::frames::{ethernet, ipv4, ipv6, tcp, udp};
use super::kernel::{DROPPED, Kernel, PASSED, control_buffer};
use super::mesh::address;

const TIMES: u32 = 200_000;
const ROUNDS: usize = 7;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const PEER_IDENTITY: u32 = 300;

/// What one kind of packet costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The kind.
    pub name: &'static str,
    /// Nanoseconds for the whole run of the program.
    pub ns: u64,
    /// Nanoseconds over the empty program.
    pub over_empty_ns: u64,
}

/// Measures the kinds of packets; the first is the empty program. Each is the best of several rounds, since anything
/// else on the machine only adds.
pub fn measure() -> Result<Vec<Cost>> {
    measure_in(&mut Kernel::load()?)
}

/// Measures the programs of a loaded object.
pub fn measure_in(kernel: &mut Kernel) -> Result<Vec<Cost>> {
    kernel.write_tables(&tables())?;
    kernel.publish(Control::new(Bank::A, 0, 1))?;
    let good = control_buffer(&Outer { source: address("192.0.2.2"), vni: PEER_IDENTITY });
    let bad = control_buffer(&Outer { source: address("192.0.2.9"), vni: PEER_IDENTITY });
    for family in [V4, V6] {
        let runs = [
            ("test_mesh_ingress", family.tcp(false, SYN), good),
            ("test_mesh_egress", family.tcp(true, SYN_ACK), [0; 5]),
            ("test_mesh_ingress", family.tcp(false, ACK), good),
        ];
        for (program, frame, control) in runs {
            ensure!(kernel.run(program, &frame, control)?.action == PASSED, "the handshake passes");
        }
    }
    let cells = [
        ("empty program", "test_empty", V4.tcp(false, ACK), good, PASSED),
        ("established, IPv4 in", "test_mesh_ingress", V4.tcp(false, ACK), good, PASSED),
        ("established, IPv4 out", "test_mesh_egress", V4.tcp(true, ACK), [0; 5], PASSED),
        ("established, IPv6 in", "test_mesh_ingress", V6.tcp(false, ACK), good, PASSED),
        ("established, IPv6 out", "test_mesh_egress", V6.tcp(true, ACK), [0; 5], PASSED),
        ("tunnel header alone, IPv4", "test_encapsulate", V4.tcp(true, ACK), good, PASSED),
        ("half-open again, IPv4 in", "test_mesh_ingress", V4.udp(false, 7000), good, PASSED),
        ("denied, IPv4 out", "test_mesh_egress", V4.udp(true, 7001), [0; 5], DROPPED),
        ("spoofed, IPv4 in", "test_mesh_ingress", V4.udp(false, 7002), bad, DROPPED),
        ("spoofed, IPv6 in", "test_mesh_ingress", V6.udp(false, 7002), bad, DROPPED),
        (
            "guard, foreign IPv4 in",
            "guard_ingress",
            foreign(),
            [Control::new(Bank::A, 0, 1).0, 0, 0, 0, 0],
            PASSED,
        ),
    ];
    let mut costs = Vec::new();
    let mut empty = 0;
    for (name, program, frame, control, action) in cells {
        let mut best = u64::MAX;
        for _ in 0..ROUNDS {
            let run = kernel.repeat(program, &frame, control, TIMES)?;
            ensure!(run.action == action, "{name}: the program returned {}", run.action);
            best = best.min(run.ns);
        }
        if costs.is_empty() {
            empty = best;
        }
        costs.push(Cost { name, ns: best, over_empty_ns: best.saturating_sub(empty) });
    }
    costs.push(new_flows(kernel, good)?);
    Ok(costs)
}

/// Every packet opens a flow: one run each, with what a single run of the empty program costs taken off.
fn new_flows(kernel: &mut Kernel, outer: [u32; 5]) -> Result<Cost> {
    let frames: Vec<_> = (1..=2000).map(|port| V4.udp(false, 10_000 + port)).collect();
    let mut total = 0;
    let mut baseline = 0;
    for frame in &frames {
        baseline += kernel.run("test_empty", frame, outer)?.ns;
        let run = kernel.run("test_mesh_ingress", frame, outer)?;
        ensure!(run.action == PASSED, "a new flow passes");
        total += run.ns;
    }
    let count = u64::try_from(frames.len())?;
    Ok(Cost {
        name: "new flow, IPv4 in (single runs)",
        ns: total / count,
        over_empty_ns: total.saturating_sub(baseline) / count,
    })
}

/// A packet that is no business of the mesh.
fn foreign() -> Vec<u8> {
    ethernet(&ipv4(address("198.51.100.1"), address("198.51.100.2"), UDP, [0; 4], &udp(1, 2)))
}

#[derive(Clone, Copy)]
struct Family {
    own: &'static str,
    peer: &'static str,
}

const V4: Family = Family { own: "10.0.0.1", peer: "10.0.0.2" };
const V6: Family = Family { own: "fd00::1", peer: "fd00::2" };

impl Family {
    fn tcp(self, is_egress: bool, flags: u8) -> Vec<u8> {
        let (from, to) = if is_egress { (80, 4000) } else { (4000, 80) };
        self.frame(is_egress, TCP, &tcp(from, to, flags))
    }

    fn udp(self, is_egress: bool, port: u16) -> Vec<u8> {
        self.frame(is_egress, UDP, &udp(port, 53))
    }

    fn frame(self, is_egress: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (own, peer) = (address(self.own), address(self.peer));
        let (source, destination) = if is_egress { (own, peer) } else { (peer, own) };
        let ip = if own.is_v4() {
            ipv4(source, destination, protocol, [0; 4], payload)
        } else {
            ipv6(source, destination, protocol, payload)
        };
        ethernet(&ip)
    }
}

/// One peer that may open flows, and nothing else allowed.
fn tables() -> Model {
    let mut model = Model::default();
    let own = EndpointEntry {
        identity: 200,
        previous: 0,
        mark: 200,
        tunnel_set: 0,
        tunnel: Address::NONE,
        flags: endpoint_flag::OWN,
        reserved: 0,
    };
    let peer = EndpointEntry {
        identity: PEER_IDENTITY,
        mark: PEER_IDENTITY,
        tunnel: address("192.0.2.2"),
        flags: 0,
        ..own
    };
    for family in [V4, V6] {
        for (text, entry) in [(family.own, own), (family.peer, peer)] {
            model.endpoints.insert(EndpointKey { bank: 0, reserved: [0; 3], address: address(text) }, entry);
        }
    }
    model.settings = [Some(Settings {
        identity: 200,
        mark: 200,
        flags: 0,
        ingress_default: Action::Allow.number(),
        egress_default: Action::Deny.number(),
        reserved: [0; 2],
        ingress_rule: 0,
        egress_rule: 9,
        address_v4: address(V4.own),
        address_v6: address(V6.own),
        mtu: 1450,
        spare: [0; 20],
    }); 2];
    model
}
