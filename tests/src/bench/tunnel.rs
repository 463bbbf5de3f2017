//! Bulk TCP between two hosts: our VXLAN with its policy against plain external VXLAN of the kernel, in the same
//! namespaces and at the same MTU.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::statistics::Median;
use super::{Measurement, Options, float, noise};
use crate::cluster::{Cluster, Member};
use crate::host::Host;
use crate::process::Process;
use crate::shop::db_clients;
use crate::traffic::tcp::{BlastReport, EchoReport};
use crate::wait::wait_for;

const PORT: u16 = 9002;

/// What bulk should reach of plain VXLAN.
const TARGET: f64 = 0.97;

/// The plain tunnel's addresses.
const PLAIN: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// A way from the sender to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Ours,
    Plain,
}

/// One cell: gigabits a second, and bytes per second of CPU time of the whole machine.
#[derive(Clone, Copy, Debug)]
struct Cell {
    rate: f64,
    per_cpu: f64,
}

struct Bed {
    _cluster: Cluster,
    sender: Member,
    receiver: Member,
    _sink: Process,
}

pub(super) fn measure(options: Options) -> Result<Vec<Measurement>> {
    let bed = Bed::try_new()?;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for way in [Way::Ours, Way::Plain] {
        bed.cell(way, options.cell_ms)?;
    }
    for block in 0..options.blocks {
        let order = if block % 2 == 0 {
            [Way::Ours, Way::Plain, Way::Plain, Way::Ours]
        } else {
            [Way::Plain, Way::Ours, Way::Ours, Way::Plain]
        };
        let cells = order.map(|way| (way, bed.cell(way, options.cell_ms)));
        let mut done = Vec::new();
        for (way, cell) in cells {
            done.push((way, cell?));
        }
        for pair in done.chunks(2) {
            let of = |way| pair.iter().find(|(found, _)| *found == way).map(|(_, cell)| *cell);
            let (a, b) = (of(Way::Ours).context("no cell")?, of(Way::Plain).context("no cell")?);
            rates.push(a.rate / b.rate);
            costs.push(a.per_cpu / b.per_cpu);
            ours.push(a.rate);
            plain.push(b.rate);
        }
        println!("block {} of {}: {:.3}", block + 1, options.blocks, Median::of(&rates).value);
    }
    let (rate, cost) = (Median::of(&rates), Median::of(&costs));
    Ok(vec![
        Measurement::at_least("bulk: ours / plain VXLAN", rate.value, "ratio", TARGET),
        Measurement::known("bulk: ours / plain VXLAN, 95 % low", rate.low, "ratio"),
        Measurement::known("bulk: ours / plain VXLAN, 95 % high", rate.high, "ratio"),
        Measurement::at_least("bulk per CPU: ours / plain VXLAN", cost.value, "ratio", TARGET),
        Measurement::known("bulk per CPU: ours / plain VXLAN, 95 % low", cost.low, "ratio"),
        Measurement::known("bulk per CPU: ours / plain VXLAN, 95 % high", cost.high, "ratio"),
        Measurement::known("bulk: ours", Median::of(&ours).value, "Gb/s"),
        Measurement::known("bulk: plain VXLAN", Median::of(&plain).value, "Gb/s"),
    ])
}

impl Bed {
    fn try_new() -> Result<Self> {
        let cluster = Cluster::try_new()?;
        cluster.group("db")?;
        cluster.group("api")?;
        cluster.gateway.apply("db-clients.yaml", &db_clients(&["api"]))?;
        let (receiver, sender) = (cluster.member("db", "receiver")?, cluster.member("api", "sender")?);
        cluster.settle()?;
        plain_tunnel(&sender.host, &receiver.host, PLAIN)?;
        let [first, second] = PLAIN;
        plain_tunnel(&receiver.host, &sender.host, [second, first])?;
        let sink = receiver.host.traffic("sink", &format!("tcp-sink --port {PORT}"))?;
        wait_for("the sink", Duration::from_secs(5), || {
            sink.report::<EchoReport>().is_ok_and(|report| report.listening)
        })?;
        Ok(Self { _cluster: cluster, sender, receiver, _sink: sink })
    }

    fn cell(&self, way: Way, ms: u64) -> Result<Cell> {
        let address: IpAddr = match way {
            Way::Ours => self.receiver.addresses().map(|[v4, _]| v4)?,
            Way::Plain => PLAIN.last().context("no address")?.parse()?,
        };
        let to = SocketAddr::new(address, PORT).to_string();
        let before = noise::busy()?;
        let answer = self.sender.host.run(&["traffic", "tcp-blast", "--to", &to, "--ms", &ms.to_string()])?;
        let report: BlastReport = serde_json::from_value(answer.json()?)?;
        let busy = noise::busy()?.saturating_sub(before).as_secs_f64();
        ensure!(report.bytes > 0 && report.ns > 0 && busy > 0.0, "{way:?}: {report:?}");
        let bytes = float(report.bytes);
        Ok(Cell { rate: bytes * 8.0 / float(report.ns), per_cpu: bytes / busy })
    }
}

/// A device as ours, without programs, and a route that encapsulates.
fn plain_tunnel(here: &Host, there: &Host, [own, other]: [&str; 2]) -> Result<()> {
    here.namespace().ip(&format!(
        "link add plain0 address {mac} type vxlan external dstport 4789\n\
         link set plain0 mtu 1450 up\n\
         addr add {own}/32 dev plain0\n\
         route add {other}/32 encap ip id 77 dst {underlay} dev plain0\n\
         neigh add {other} lladdr {peer} dev plain0",
        mac = mac(own),
        peer = mac(other),
        underlay = there.v4(),
    ))
}

fn mac(address: &str) -> String {
    format!("02:00:00:00:00:0{}", address.chars().last().unwrap_or('0'))
}
