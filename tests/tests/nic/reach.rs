//! What a host must go on reaching through closed NICs when it moves or cannot be looked up.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use e2e::cluster::{Cluster, allow_ingress};
use e2e::host::Host;
use e2e::json;
use e2e::net::Underlay;
use e2e::traffic::tcp::{EchoReport, StreamReport};
use e2e::wait::{wait_for, wait_ok};

use crate::world::{DENY_ALL, OTHER, PATIENCE, SSH, World};

const DNS: u16 = 53;

/// The machine's own file of hosts, in which the gateway's name has these addresses.
fn name_gateway(host: &Host, addresses: &[IpAddr]) -> Result<()> {
    let lines = addresses.iter().fold(String::new(), |all, address| format!("{all}{address} gateway.test\n"));
    let file = host.folder().join("hosts");
    // In place: what is mounted is the file and not its name.
    std::fs::write(&file, lines)?;
    Ok(())
}

fn name_and_mount(cluster: &Cluster, host: &Host) -> Result<()> {
    let node = cluster.node.host();
    name_gateway(host, &[node.v4().into(), node.v6().into()])?;
    let file = host.folder().join("hosts").display().to_string();
    host.run(&["mount", "--bind", &file, "/etc/hosts"])?.ok()?;
    Ok(())
}

fn wait_session(world: &World) -> Result<()> {
    wait_ok("a session", PATIENCE, || {
        let status = world.db.status()?;
        ensure!(json::flag(&status, "connected"), "{status:#}");
        Ok(())
    })
}

#[test]
fn threat_lockout_a_gateway_by_name_stays_reachable_wherever_it_moves() -> Result<()> {
    let settings = "confirmWithin: 2\ngateways: [\"gateway.test:7443\"]\n";
    let mut world = World::prepared(settings, name_and_mount)?;
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    world.set("  scope: host\n  nicMode: enforce\n")?;
    world.wait_state("enforce")?;
    world.wait_open(OTHER, false)?;

    let node = world.cluster.node.host().clone();
    let [a, b, c, _] = node.v4().octets();
    let mut segments = node.v6().segments();
    segments[7] = 0xf0;
    let moved: [IpAddr; 2] = [[a, b, c, 240].into(), segments.into()];
    node.namespace()
        .ip(&format!("addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n", moved[0], moved[1]))?;
    for new in moved {
        world.cluster.gateway.kill()?;
        name_gateway(&world.db.host, &[new])?;
        wait_ok("the session to be lost", PATIENCE, || {
            ensure!(!json::flag(&world.db.status()?, "connected"), "still connected");
            Ok(())
        })?;
        world.cluster.gateway.launch()?;
        wait_session(&world)?;
        ensure!(!world.is_open(OTHER)?, "closed all the time");
    }

    // An agent that starts knows of no address before it has looked.
    world.db.agent.kill()?;
    world.db.agent.launch()?;
    wait_session(&world)?;
    world.wait_state("enforce")?;
    ensure!(!world.is_open(OTHER)?, "closed all the time");
    Ok(())
}

/// Whether a machine can ask someone there.
fn asks(from: &Host, to: IpAddr, port: u16) -> Result<bool> {
    let to = SocketAddr::new(to, port);
    let stream = from.traffic("ask", &format!("tcp-stream --to {to} --timeout-ms 700"))?;
    wait_for("an outcome", PATIENCE, || {
        stream.report::<StreamReport>().is_ok_and(|report| report.connected || report.error.is_some())
    })?;
    Ok(stream.report::<StreamReport>()?.connected)
}

#[test]
fn threat_lockout_resolvers_stay_reachable_while_their_file_cannot_be_read() -> Result<()> {
    const FILE: &str = "/run/systemd/resolve/resolv.conf";
    let world = World::new("confirmWithin: 2\n")?;
    let resolvers: [IpAddr; 2] = [world.client.v4().into(), world.client.v6().into()];
    let write = format!(
        "mkdir -p {} && printf 'nameserver {}\\nnameserver {}\\n' > {FILE}",
        FILE.trim_end_matches("/resolv.conf"),
        resolvers[0],
        resolvers[1]
    );
    world.db.host.run(&["sh", "-c", &write])?.ok()?;
    let mut servers = Vec::new();
    for port in [DNS, OTHER] {
        let server = world.client.traffic("resolver", &format!("tcp-echo --port {port}"))?;
        wait_for("the server", PATIENCE, || {
            server.report::<EchoReport>().is_ok_and(|report| report.listening)
        })?;
        servers.push(server);
    }
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    world.set("  scope: host\n  nicMode: enforce\n")?;
    world.wait_state("enforce")?;
    for resolver in resolvers {
        ensure!(asks(&world.db.host, resolver, DNS)?, "{resolver} is asked");
        ensure!(!asks(&world.db.host, resolver, OTHER)?, "{resolver} is nothing else");
    }

    // A folder there is an error to whoever reads it, root too.
    world.db.host.run(&["sh", "-c", &format!("rm {FILE} && mkdir {FILE}")])?.ok()?;
    let other =
        DENY_ALL.replace("name: closed", "name: again").replace("    - {}\n", "    - toEntities: []\n");
    world.cluster.publish("again.yaml", &other.replacen("toEntities", "fromEntities", 1))?;
    world.wait_state("enforce")?;
    for resolver in resolvers {
        ensure!(asks(&world.db.host, resolver, DNS)?, "{resolver} is asked as before");
    }
    world.set("")?;
    world.wait_state("off")
}

#[test]
fn threat_41_policy_on_the_nics_holds_on_every_underlay_and_leaves_the_mesh_alone() -> Result<()> {
    for families in [Underlay::V4, Underlay::V6, Underlay::Dual] {
        let world = World::on(families, "confirmWithin: 2\n")?;
        let web = world.cluster.pod("web", 2)?;
        let server = web.traffic("server", &format!("tcp-echo --port {OTHER}"))?;
        wait_for("the server", PATIENCE, || {
            server.report::<EchoReport>().is_ok_and(|report| report.listening)
        })?;
        world.cluster.publish("mesh.yaml", &allow_ingress("mesh", "db", &["web"], Some(OTHER)))?;
        world.cluster.publish("closed.yaml", DENY_ALL)?;
        world.set("  scope: host\n  nicMode: enforce\n")?;
        world.wait_state("enforce")?;
        world.wait_open(OTHER, false)?;
        ensure!(world.is_open(SSH)?, "{families:?}: logins");
        for (own, pod) in world.db.addresses()?.into_iter().zip(web.addresses()) {
            ensure!(asks(&web, own, OTHER)?, "{families:?}: {pod} is allowed to {own}");
            ensure!(
                !asks(&web, own, SSH)?,
                "{families:?}: in the mesh its own policy decides, without failsafes"
            );
            ensure!(asks(&world.db.host, pod, OTHER)?, "{families:?}: {own} to {pod}");
        }
    }
    Ok(())
}
