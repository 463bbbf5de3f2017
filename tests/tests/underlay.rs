//! An underlay of one family only: both families inside all the same.

use anyhow::{Result, ensure};
use e2e::cluster::{Cluster, allow_ingress};
use e2e::json;
use e2e::net::Underlay;
use e2e::shop::{Traffic, pings};

fn over(families: Underlay, mtu: u64) -> Result<()> {
    let cluster = Cluster::try_with(families, "")?;
    let (api, web) = (cluster.pod("api", 2)?, cluster.pod("web", 3)?);
    cluster.group("db")?;
    cluster.gateway.apply("db-clients.yaml", &allow_ingress("db-clients", "db", &["api"], None))?;
    let first = cluster.member_with("db", "db-1", families, "")?;
    let second = cluster.member_with("db", "db-2", families, "")?;
    cluster.settle()?;
    let found = json::number(&first.status()?, "mtu");
    ensure!(found == mtu, "the device's MTU is {found}, not {mtu}");
    Traffic::start(&first.host, &first.addresses()?, &api, &web)?.finish()?;
    for (address, pod) in first.addresses()?.into_iter().zip(api.addresses()) {
        ensure!(!pings(&second.host, address, 56)?, "a host that no policy allows got a reply");
        for size in [56, 1200, 3000] {
            let _ = pings(&api, address, size)?;
            ensure!(pings(&api, address, size)?, "pod to host, {address}, {size}");
            ensure!(pings(&first.host, pod, size)?, "host to pod, {pod}, {size}");
        }
    }
    Ok(())
}

#[test]
fn ipv4_only() -> Result<()> {
    over(Underlay::V4, 1450)
}

#[test]
fn ipv6_only() -> Result<()> {
    over(Underlay::V6, 1430)
}
