//! The cast of the demo: machines, servers, gateway and agents, before anybody has joined.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::Result;

use super::screen::Screen;
use crate::agent::Agent;
use crate::command::Answer;
use crate::gateway::Gateway;
use crate::host::Host;
use crate::net::{Net, Underlay};
use crate::node::{Node, Pod};
use crate::process::Process;
use crate::wait::wait_for;

/// The port of the HTTP servers.
pub(super) const HTTP: u16 = 8080;

/// The port of the host's connections that stay.
pub(super) const POSTGRES: u16 = 5432;

/// The policy after the edit.
pub(super) const EDITED: &str = include_str!("../../demo/edited/db-clients.yaml");

const MANIFESTS: [(&str, &str); 4] = [
    ("namespace.yaml", include_str!("../../demo/namespace.yaml")),
    ("pods.yaml", include_str!("../../demo/pods.yaml")),
    ("groups.yaml", include_str!("../../demo/groups.yaml")),
    ("db-clients.yaml", include_str!("../../demo/db-clients.yaml")),
];

/// The cast.
#[derive(Debug)]
pub(super) struct Stage {
    /// They serve as long as they are here.
    _servers: Vec<Process>,
    pub(super) db: Agent,
    pub(super) batch: Agent,
    pub(super) transit: Agent,
    pub(super) gateway: Gateway,
    pub(super) api: Pod,
    pub(super) web: Pod,
    node: Node,
    net: Net,
}

impl Stage {
    /// Builds the machines and starts what runs on them.
    pub(super) fn try_new(screen: &mut Screen) -> Result<Self> {
        screen.scene("Five machines: a cluster node with two pods, and two hosts outside the cluster");
        let net = Net::try_new()?;
        let node = net.node("node-1", 1)?;
        let (api, web) = (node.pod("api", 2)?, node.pod("web", 3)?);
        let (db, batch) = (net.host("db-1")?, net.host("batch-1")?);
        for (host, what) in [
            (node.host(), "cluster node: gateway and transit agent"),
            (&api, "pod on node-1"),
            (&web, "pod on node-1"),
            (&db, "host with an agent"),
            (&batch, "host with an agent"),
        ] {
            screen.say(&format!("{:8} {:12} {:14} {what}", host.name(), host.v4(), host.v6()));
        }
        let mut gateway = Gateway::configured(node.host(), Underlay::Dual, "")?;
        for (file, yaml) in MANIFESTS {
            gateway.apply(file, yaml)?;
        }
        gateway.launch()?;
        let mut servers = Vec::new();
        for host in [&*api, &db] {
            let serve = format!("serve-http --port {HTTP} --name {}", host.name());
            servers.push(host.traffic("http", &serve)?);
        }
        servers.push(db.traffic("postgres", &format!("tcp-echo --port {POSTGRES}"))?);
        for server in &servers {
            wait_for("a server", Duration::from_secs(3), || server.report::<serde_json::Value>().is_ok())?;
        }
        let transit = Agent::start(node.host())?;
        let (db, batch) = (Agent::start(&db)?, Agent::start(&batch)?);
        Ok(Self { _servers: servers, db, batch, transit, gateway, api, web, node, net })
    }

    /// Writes a script that runs commands on the machines, and says how to use it.
    pub(super) fn hints(&self) -> Result<()> {
        let script = self.net.folder().join("on");
        let mut text =
            "#!/bin/sh\n# on MACHINE COMMAND…: runs a command on a machine of the demo.\ncase \"$1\" in\n"
                .to_owned();
        for host in [self.node.host(), &self.api, &self.web, self.db.host(), self.batch.host()] {
            writeln!(text, "{}) pid={} ;;", host.name(), host.namespace().holder())?;
        }
        let programs = crate::binaries::folder()?;
        write!(
            text,
            "*) echo \"no machine $1\" >&2; exit 2 ;;\nesac\nshift\nPATH=\"{}:$PATH\" exec nsenter \
             --mount=/proc/$pid/ns/mnt --uts=/proc/$pid/ns/uts --net=/proc/$pid/ns/net -- \"$@\"\n",
            programs.display()
        )?;
        std::fs::write(&script, text)?;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
        let (on, manifests) = (script.display(), self.gateway.manifests());
        println!("\nEverything keeps running until Ctrl-C. In another terminal, as root:\n");
        println!("  {on} db-1 outrigger status");
        println!("  {on} db-1 outrigger monitor");
        println!("  {on} db-1 outrigger policy list");
        println!("  {on} db-1 outrigger connectivity test");
        println!("  {on} batch-1 {}", curl_words(SocketAddr::new(self.db.addresses()?[0], HTTP)).join(" "));
        println!("  {on} node-1 outrigger-gateway workload list");
        println!("  $EDITOR {}", manifests.join("db-clients.yaml").display());
        Ok(())
    }
}

/// Fetches `/` of a server, from a machine.
pub(super) fn fetch(host: &Host, address: IpAddr) -> Result<Answer> {
    let words = curl_words(SocketAddr::new(address, HTTP));
    host.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// `curl`, or this package's own client where there is none.
fn curl_words(server: SocketAddr) -> Vec<String> {
    let url = format!("http://{server}/");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let curl = std::env::split_paths(&path).any(|folder| folder.join("curl").is_file());
    let words = if curl {
        vec!["curl", "-sS", "--max-time", "1", &url]
    } else {
        vec!["traffic", "get", "--timeout-ms", "1000", &url]
    };
    words.into_iter().map(str::to_owned).collect()
}
