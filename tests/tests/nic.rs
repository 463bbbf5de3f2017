//! Policy on the NICs: what it closes, what it never does, and that a host comes back by itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::binaries::Binary;
use e2e::cluster::{Cluster, Member, group};
use e2e::host::Host;
use e2e::json;
use e2e::net::Underlay;
use e2e::process::Process;
use e2e::traffic::tcp::{EchoReport, StreamReport};
use e2e::wait::{wait_for, wait_ok};

const PATIENCE: Duration = Duration::from_secs(20);
/// Where the "sshd" of these tests listens, and something else.
const SSH: u16 = 2222;
const OTHER: u16 = 9001;

const DENY_ALL: &str = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata:\n  name: closed\n\
    spec:\n  nodeSelector:\n    matchLabels:\n      app: db\n  ingress:\n    - {}\n  egress:\n    - {}\n";

struct World {
    cluster: Cluster,
    db: Member,
    client: Host,
    _servers: [Process; 2],
}

impl World {
    /// A host whose agent has these further settings, with an "sshd" and another server.
    fn new(settings: &str) -> Result<Self> {
        let cluster = Cluster::try_new()?;
        cluster.group("db")?;
        let db = cluster.member_with("db", "db-1", Underlay::Dual, settings)?;
        let client = cluster.net.host("client")?;
        let sshd = db.host.folder().join("sshd");
        std::os::unix::fs::symlink(Binary::Traffic.path()?, &sshd)?;
        let sshd = sshd.display().to_string();
        let servers = [
            db.host.spawn("sshd", &[&sshd, "tcp-echo", "--port", &SSH.to_string()])?,
            db.host.traffic("other", &format!("tcp-echo --port {OTHER}"))?,
        ];
        for server in &servers {
            wait_for("the server", PATIENCE, || {
                server.report::<EchoReport>().is_ok_and(|report| report.listening)
            })?;
        }
        Ok(Self { cluster, db, client, _servers: servers })
    }

    fn addresses(&self) -> [IpAddr; 2] {
        [self.db.host.v4().into(), self.db.host.v6().into()]
    }

    fn set(&self, more: &str) -> Result<()> {
        self.cluster.publish("group-db.yaml", &group("db", &[("app", "db")], more))
    }

    fn wait_state(&self, state: &str) -> Result<()> {
        wait_ok(state, PATIENCE, || {
            let status = self.db.status()?;
            let nic = json::at(&status, &["nic"]);
            ensure!(json::text(nic, "state") == state, "{nic:#}");
            Ok(())
        })
    }

    /// A connection to a port of the host, whatever becomes of it.
    fn connect(&self, address: IpAddr, port: u16) -> Result<Process> {
        let to = SocketAddr::new(address, port);
        self.client.traffic("connect", &format!("tcp-stream --to {to} --timeout-ms 700"))
    }

    /// Whether the host takes new connections to a port, by both families alike.
    fn is_open(&self, port: u16) -> Result<bool> {
        let mut open = BTreeSet::new();
        for address in self.addresses() {
            let stream = self.connect(address, port)?;
            wait_for("an outcome", PATIENCE, || {
                stream.report::<StreamReport>().is_ok_and(|report| report.connected || report.error.is_some())
            })?;
            open.insert(stream.report::<StreamReport>()?.connected);
        }
        ensure!(open.len() == 1, "IPv4 and IPv6 differ on port {port}");
        Ok(open.contains(&true))
    }

    /// Verdict, rule, and the kernel's verdict for a connection to a port of the host.
    fn trace(&self, remote: &str, port: u16) -> Result<[String; 3]> {
        let port = port.to_string();
        let words = ["policy", "trace", "--nic", "--direction", "in", "--remote", remote, "--port", &port];
        let answer = self.db.command(&[&words[..], &["-o", "json"]].concat())?.ok()?.json()?;
        Ok(["verdict", "rule", "kernel_verdict"].map(|key| json::text(&answer, key).to_owned()))
    }

    fn wait_open(&self, port: u16, wanted: bool) -> Result<()> {
        wait_ok("the port", PATIENCE, || {
            ensure!(self.is_open(port)? == wanted, "port {port} is not {wanted}");
            Ok(())
        })
    }
}

/// Whether records still come back on a connection.
fn lives(stream: &Process) -> Result<()> {
    let before = stream.report::<StreamReport>()?.echoed;
    wait_ok("an established connection to go on", PATIENCE, || {
        let report = stream.report::<StreamReport>()?;
        ensure!(report.echoed > before + 50, "{report:?}");
        Ok(())
    })
}

#[test]
fn threat_lockout_logins_survive_a_policy_that_denies_everything() -> Result<()> {
    let world = World::new("confirmWithin: 3\n")?;
    let sessions = world.addresses().map(|address| world.connect(address, SSH));
    let sessions = sessions.into_iter().collect::<Result<Vec<_>>>()?;
    for session in &sessions {
        wait_for("a login", PATIENCE, || {
            session.report::<StreamReport>().is_ok_and(|report| report.connected)
        })?;
    }
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    let status = world.db.status()?;
    let left_out = json::texts(&status, "partly_enforced");
    ensure!(left_out.iter().any(|line| line.contains("closed")), "{left_out:?}");
    ensure!(world.is_open(OTHER)?, "the scope is mesh");

    world.set("  scope: host\n")?;
    world.wait_state("audit")?;
    ensure!(world.is_open(OTHER)?, "audit drops nothing");
    ensure!(world.db.counted("audited")? > 0, "audit reports");
    ensure!(json::texts(&world.db.status()?, "partly_enforced").is_empty());

    world.set("  scope: host\n  nicMode: enforce\n")?;
    world.wait_state("trial")?;
    world.wait_open(OTHER, false)?;
    world.wait_state("enforce")?;
    for session in &sessions {
        lives(session)?;
    }
    ensure!(world.is_open(SSH)?, "new logins");
    for remote in ["192.0.2.77", "2001:db8::77"] {
        ensure!(
            world.trace(remote, SSH)? == ["allow", "failsafe/ssh", "allow"],
            "{:?}",
            world.trace(remote, SSH)?
        );
        let [verdict, rule, kernel] = world.trace(remote, OTHER)?;
        ensure!(
            verdict == "deny" && rule.contains("closed") && kernel == "deny",
            "{rule}: {verdict}, {kernel}"
        );
    }
    ensure!(!world.is_open(OTHER)?, "closed");
    ensure!(json::flag(&world.db.status()?, "connected"), "the gateway");

    world.db.command(&["enforce", "audit", "--for", "15m"])?.ok()?;
    world.wait_state("audit")?;
    world.wait_open(OTHER, true)?;
    world.db.command(&["enforce", "resume"])?.ok()?;
    world.wait_state("enforce")?;
    world.wait_open(OTHER, false)?;

    world.set("")?;
    world.wait_state("off")?;
    ensure!(world.trace("192.0.2.77", SSH).is_err(), "nothing governs the NIC");
    world.wait_open(OTHER, true)?;
    wait_for("the record to be gone", PATIENCE, || !world.db.state().join("nic.json").exists())?;
    for session in &sessions {
        lives(session)?;
    }
    Ok(())
}

#[test]
fn threat_lockout_a_policy_that_cuts_the_gateway_off_is_reverted() -> Result<()> {
    let world = World::new("confirmWithin: 3\nfailsafe: [ssh]\n")?;
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    world.set("  scope: host\n  nicMode: enforce\n")?;
    world.wait_state("reverted")?;
    world.wait_open(OTHER, true)?;
    world.db.wait_enforcing()?;
    wait_ok("the audit log to tell", PATIENCE, || {
        let audit = world.cluster.gateway.audit()?;
        let told = audit.iter().any(|event| event["event"] == "nic-policy" && event["state"] == "reverted");
        ensure!(told, "{audit:?}");
        Ok(())
    })?;
    // It is not tried again as it is, and is when it became another.
    world.cluster.publish("closed.yaml", &DENY_ALL.replace("  egress:\n    - {}\n", ""))?;
    world.wait_state("enforce")?;
    world.wait_open(OTHER, false)
}

#[test]
fn threat_lockout_without_an_agent_a_tried_policy_ends() -> Result<()> {
    let mut world = World::new("confirmWithin: 5\n")?;
    world.cluster.publish("closed.yaml", DENY_ALL)?;
    world.set("  scope: host\n  nicMode: enforce\n")?;
    world.wait_state("trial")?;
    world.wait_open(OTHER, false)?;
    world.db.agent.kill()?;
    ensure!(!world.is_open(OTHER)?, "the kernel goes on for a while");
    world.wait_open(OTHER, true).context("without any agent")?;
    world.db.agent.launch()?;
    world.wait_state("reverted")?;
    world.wait_open(OTHER, true)
}

#[test]
fn without_a_good_state_the_last_confirmed_policy_holds_unless_the_host_says_open() -> Result<()> {
    for (setting, is_open) in [("failsafe", false), ("open", true)] {
        let mut world = World::new(&format!("confirmWithin: 2\nonFailure: {setting}\n"))?;
        world.cluster.publish("closed.yaml", DENY_ALL)?;
        world.set("  scope: host\n  nicMode: enforce\n")?;
        world.wait_state("enforce")?;
        world.cluster.gateway.kill()?;
        world.db.power_off()?;
        std::fs::write(world.db.state().join("snapshot.bin"), b"damaged")?;
        world.db.agent.launch()?;
        let status = world.db.wait_status("the damage to be told", |status| {
            json::texts(status, "warnings").iter().any(|warning| warning.contains("onFailure"))
        })?;
        ensure!(json::text(&status, "phase") != "enforcing", "{status:#}");
        world.wait_open(OTHER, is_open).context(setting)?;
        ensure!(world.is_open(SSH)?, "logins");
        world.cluster.gateway.launch()?;
        world.db.wait_enforcing()?;
        world.wait_state("enforce")?;
        world.wait_open(OTHER, false)?;
    }
    Ok(())
}
