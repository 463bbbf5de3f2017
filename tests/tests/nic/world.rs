//! A host with servers on its own addresses, and someone outside of the mesh who connects to them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::binaries::Binary;
use e2e::cluster::{Cluster, Member, group};
use e2e::host::Host;
use e2e::json;
use e2e::net::Underlay;
use e2e::process::Process;
use e2e::traffic::tcp::{EchoReport, StreamReport};
use e2e::wait::{wait_for, wait_ok};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Where the "sshd" of these tests listens, and something else.
pub(crate) const SSH: u16 = 2222;
pub(crate) const OTHER: u16 = 9001;

pub(crate) const DENY_ALL: &str = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata:\n  name: closed\n\
    spec:\n  nodeSelector:\n    matchLabels:\n      app: db\n  ingress:\n    - {}\n  egress:\n    - {}\n";

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) db: Member,
    pub(crate) client: Host,
    families: Underlay,
    _servers: [Process; 2],
}

impl World {
    /// A host whose agent has these further settings, with an "sshd" and another server.
    pub(crate) fn new(settings: &str) -> Result<Self> {
        Self::prepared(settings, |_cluster, _host| Ok(()))
    }

    /// The same on an underlay of these families.
    pub(crate) fn on(families: Underlay, settings: &str) -> Result<Self> {
        Self::made(families, settings, |_cluster, _host| Ok(()))
    }

    /// The same, on a machine that is prepared first.
    pub(crate) fn prepared(
        settings: &str,
        prepare: impl FnOnce(&Cluster, &Host) -> Result<()>,
    ) -> Result<Self> {
        Self::made(Underlay::Dual, settings, prepare)
    }

    fn made(
        families: Underlay,
        settings: &str,
        prepare: impl FnOnce(&Cluster, &Host) -> Result<()>,
    ) -> Result<Self> {
        Self::of(Cluster::try_with(families, "")?, families, settings, prepare)
    }

    /// The same in a cluster whose source is an API.
    pub(crate) fn of_api(settings: &str) -> Result<Self> {
        Self::of(Cluster::of_api()?, Underlay::Dual, settings, |_cluster, _host| Ok(()))
    }

    fn of(
        cluster: Cluster,
        families: Underlay,
        settings: &str,
        prepare: impl FnOnce(&Cluster, &Host) -> Result<()>,
    ) -> Result<Self> {
        cluster.group("db")?;
        let host = cluster.net.host_with("db-1", families)?;
        prepare(&cluster, &host)?;
        let db = cluster.member_on(host, "db", settings)?;
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
        Ok(Self { cluster, db, client, families, _servers: servers })
    }

    /// The host's own addresses, outside of the mesh.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let [v4, v6] = [IpAddr::from(self.db.host.v4()), self.db.host.v6().into()];
        match self.families {
            Underlay::V4 => vec![v4],
            Underlay::V6 => vec![v6],
            Underlay::Dual => vec![v4, v6],
        }
    }

    pub(crate) fn set(&self, more: &str) -> Result<()> {
        self.cluster.publish("group-db.yaml", &group("db", &[("app", "db")], more))
    }

    pub(crate) fn wait_state(&self, state: &str) -> Result<()> {
        wait_ok(state, PATIENCE, || {
            let status = self.db.status()?;
            let nic = json::at(&status, &["nic"]);
            ensure!(json::text(nic, "state") == state, "{nic:#}");
            Ok(())
        })
    }

    /// A connection to a port of the host, whatever becomes of it.
    pub(crate) fn connect(&self, address: IpAddr, port: u16) -> Result<Process> {
        let to = SocketAddr::new(address, port);
        self.client.traffic("connect", &format!("tcp-stream --to {to} --timeout-ms 700"))
    }

    /// Whether the host takes new connections to a port, by both families alike.
    pub(crate) fn is_open(&self, port: u16) -> Result<bool> {
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
    pub(crate) fn trace(&self, remote: &str, port: u16) -> Result<[String; 3]> {
        let port = port.to_string();
        let words = ["policy", "trace", "--nic", "--direction", "in", "--remote", remote, "--port", &port];
        let answer = self.db.command(&[&words[..], &["-o", "json"]].concat())?.ok()?.json()?;
        Ok(["verdict", "rule", "kernel_verdict"].map(|key| json::text(&answer, key).to_owned()))
    }

    pub(crate) fn wait_open(&self, port: u16, wanted: bool) -> Result<()> {
        wait_ok("the port", PATIENCE, || {
            ensure!(self.is_open(port)? == wanted, "port {port} is not {wanted}");
            Ok(())
        })
    }
}
