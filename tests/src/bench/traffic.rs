//! What applications get: our tunnel with and without a policy against the kernel's plain one, in the same namespaces
//! at the same MTU, and what the network below gives.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::bed::{Bed, Family, Receiver, Way};
use super::pairs::{Cell, Comparison, compare};
use super::{Measurement, float, noise};
use crate::traffic::load::{self, LoadReport};

/// A kind of traffic.
struct Kind {
    name: &'static str,
    /// The tool and the port of its server.
    tool: &'static str,
    port: u16,
    /// What our tunnel should reach of the plain one.
    target: f64,
    /// What is counted, and how many of them are one of the unit.
    unit: &'static str,
    scale: f64,
}

const KINDS: [Kind; 4] = [
    Kind { name: "bulk TCP", tool: "tcp-blast", port: load::SINK, target: 0.97, unit: "Gb/s", scale: 8e-9 },
    Kind {
        name: "request/response",
        tool: "tcp-rr",
        port: load::ECHO,
        target: 0.95,
        unit: "1/s",
        scale: 1.0,
    },
    Kind {
        name: "connect/request/response",
        tool: "tcp-crr",
        port: load::ONCE,
        target: 0.90,
        unit: "1/s",
        scale: 1.0,
    },
    Kind {
        name: "64-byte datagrams",
        tool: "udp-flood",
        port: load::COUNT,
        target: 0.90,
        unit: "1/s",
        scale: 1.0,
    },
];

/// How much is measured.
struct Extent {
    blocks: u32,
    cell_ms: u64,
}

pub(super) fn measure(quick: bool) -> Result<Vec<Measurement>> {
    let extent = if quick { Extent { blocks: 2, cell_ms: 400 } } else { Extent { blocks: 8, cell_ms: 1000 } };
    let bed = Bed::try_new()?;
    let mut results = Vec::new();
    for kind in &KINDS {
        for (family, of) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
            for (receiver, policy) in [(&bed.governed, "policy"), (&bed.open, "no policy")] {
                let name = format!("{}, {of}, {policy}", kind.name);
                let way = |ours| if ours { Way::Ours } else { Way::Plain };
                let comparison =
                    compare(extent.blocks, |ours| cell(&bed, kind, receiver, family, way(ours), &extent))
                        .with_context(|| name.clone())?;
                println!("{name}: {:.3}", comparison.rate.value);
                results.extend(rows(kind, &name, policy == "policy", &comparison));
            }
            let below = cell(&bed, kind, &bed.open, family, Way::Direct, &extent)?;
            let name = format!("{}, {of}: below the tunnels", kind.name);
            results.push(Measurement::known(&name, below.rate * kind.scale, kind.unit));
        }
    }
    bed.governed.check_closed(&bed.sender)?;
    Ok(results)
}

/// The targets are for a host whose policy is enforced.
fn rows(kind: &Kind, name: &str, has_target: bool, comparison: &Comparison) -> Vec<Measurement> {
    let ratio = |what: &str, median: &super::statistics::Median| {
        let name = format!("{name}: ours / plain VXLAN{what}");
        let row = if has_target && what.is_empty() {
            Measurement::at_least(&name, median.value, "ratio", kind.target)
        } else {
            Measurement::known(&name, median.value, "ratio")
        };
        row.within([median.low, median.high])
    };
    vec![
        ratio("", &comparison.rate),
        ratio(", per CPU", &comparison.per_cpu),
        Measurement::known(&format!("{name}: ours"), comparison.first * kind.scale, kind.unit),
        Measurement::known(&format!("{name}: plain VXLAN"), comparison.second * kind.scale, kind.unit),
    ]
}

fn cell(
    bed: &Bed,
    kind: &Kind,
    receiver: &Receiver,
    family: Family,
    way: Way,
    extent: &Extent,
) -> Result<Cell> {
    let to = SocketAddr::new(receiver.address(way, family)?, kind.port).to_string();
    let is_udp = kind.port == load::COUNT;
    let arrived = if is_udp { receiver.datagrams()?[0] } else { 0 };
    let before = noise::busy()?;
    let words = ["traffic", kind.tool, "--to", &to, "--ms", &extent.cell_ms.to_string()];
    let answer = bed.sender.host.run(&words)?.ok()?;
    let busy = noise::busy()?.saturating_sub(before).as_secs_f64();
    let report: LoadReport = serde_json::from_value(answer.json()?)?;
    // What counts of datagrams is what arrives.
    let done = if is_udp { receiver.datagrams()?[0] - arrived } else { report.done };
    ensure!(done > 0 && report.ns > 0 && busy > 0.0, "{way:?}: {report:?}");
    Ok(Cell { rate: float(done) * 1e9 / float(report.ns), per_cpu: float(done) / busy })
}
