//! Joining and leaving: what is accepted, what is refused and with which words, and what is left behind. A hundred
//! joins at once with one token are row 8 of `threats_time.rs`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::agent::{Agent, NOT_JOINED};
use e2e::binaries::Binary;
use e2e::cluster::Cluster;
use e2e::host::Host;
use e2e::json;
use e2e::net::Net;
use e2e::shared::{Shared, World};
use e2e::wait::wait_ok;
use serde_json::Value;

static CLUSTER: Shared<Stand> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster with the group `db`, and hosts as the tests need them.
struct Stand {
    cluster: Cluster,
    hosts: AtomicU32,
}

impl World for Stand {
    fn make() -> Result<Self> {
        let cluster = Cluster::try_new()?;
        cluster.group("db")?;
        Ok(Self { cluster, hosts: AtomicU32::new(0) })
    }

    fn net(&self) -> &Net {
        &self.cluster.net
    }
}

impl Stand {
    /// A new machine.
    fn host(&self) -> Result<Host> {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed);
        self.cluster.net.host(&format!("host-{number}"))
    }

    /// An agent on a new machine that has not joined.
    fn agent(&self) -> Result<Agent> {
        Agent::start(&self.host()?)
    }

    fn token(&self, more: &[&str]) -> Result<e2e::gateway::Token> {
        self.cluster.gateway.token("shop/db", more)
    }

    /// What the gateway knows of a workload of the namespace `shop`.
    fn workload(&self, name: &str) -> Result<Option<Value>> {
        Ok(self
            .cluster
            .gateway
            .workloads()?
            .into_iter()
            .find(|workload| json::text(workload, "name") == name))
    }

    /// What the audit stream holds after this many records, as text.
    fn audited(&self, after: usize) -> Result<String> {
        let records = self.cluster.gateway.audit()?;
        Ok(records.iter().skip(after).map(Value::to_string).collect::<Vec<_>>().join("\n"))
    }
}

/// A join that fails changes nothing: the host is as unjoined as before.
fn stays_unjoined(agent: &Agent) -> Result<()> {
    let status = agent.status()?;
    ensure!(json::text(&status, "phase") == "unjoined", "{status:#}");
    let devices = agent.host().devices()?.to_string();
    ensure!(!devices.contains("ogr0"), "a device: {devices}");
    Ok(())
}

#[test]
fn a_used_token_is_refused() {
    CLUSTER.test(|stand| {
        let (first, second) = (stand.agent()?, stand.agent()?);
        let token = stand.token(&[])?;
        first.join(&token.text)?;
        let before = stand.cluster.gateway.audit()?.len();
        second.try_join(&token.text)?.refused_with(&["used"])?;
        stays_unjoined(&second)?;
        let audited = stand.audited(before)?;
        ensure!(audited.contains(&token.id), "the refusal is not in the audit stream: {audited}");
        ensure!(!audited.contains(&token.text), "the audit stream holds a secret");
        Ok(())
    });
}

#[test]
fn an_expired_token_is_refused() {
    CLUSTER.test(|stand| {
        let agent = stand.agent()?;
        let token = stand.token(&["--ttl", "1s"])?;
        let listed = || -> Result<bool> {
            let answer = agent.try_join(&token.text)?;
            ensure!(!answer.succeeded(), "an expired token was accepted: {answer}");
            Ok(answer.stderr.contains("expired"))
        };
        // The clock of the gateway has to pass the second.
        std::thread::sleep(Duration::from_millis(2100));
        ensure!(listed()?, "the refusal does not say why: {}", agent.try_join(&token.text)?);
        stays_unjoined(&agent)
    });
}

#[test]
fn a_revoked_token_is_refused() {
    CLUSTER.test(|stand| {
        let agent = stand.agent()?;
        let token = stand.token(&[])?;
        stand.cluster.gateway.command(&["token", "revoke", &token.id])?.ok()?;
        agent.try_join(&token.text)?.refused_with(&["revoked"])?;
        stays_unjoined(&agent)
    });
}

#[test]
fn a_damaged_token_is_refused_before_anything_is_contacted() {
    CLUSTER.test(|stand| {
        let agent = stand.agent()?;
        let token = stand.token(&[])?.text;
        let half = token.get(..token.len() / 2).context("short")?;
        for bad in [half, "ogr1_", "nonsense", &token.replace("ogr1_", "ogr1_A"), ""] {
            agent.try_join(bad)?.refused_with(&["token"])?;
        }
        let answer = agent.command(&["join", &token])?.with_code(2)?;
        ensure!(!answer.said().contains(&token), "the token is repeated");
        stays_unjoined(&agent)?;
        // None of this used it up.
        agent.join(&token)?;
        Ok(())
    });
}

#[test]
fn a_token_of_another_gateway_is_refused() {
    CLUSTER.test(|stand| {
        let agent = stand.agent()?;
        // The same address, another authority: a gateway that was set up anew.
        let folder = stand.cluster.net.folder().join("foreign");
        std::fs::create_dir_all(folder.join("manifests"))?;
        let yaml = e2e::cluster::group("db", &[("app", "db")], "");
        std::fs::write(folder.join("manifests/group.yaml"), yaml)?;
        std::fs::write(folder.join("manifests/shop.yaml"), e2e::cluster::namespace("shop", &[("team", "shop")]))?;
        let config = folder.join("gateway.yaml");
        let socket = "/run/foreign.sock";
        std::fs::write(
            &config,
            format!(
                "manifests: {dir}/manifests\nstateDir: {dir}/state\nlisten: \"[::]:7543\"\nadminSocket: {socket}\n\
                 metricsListen: 127.0.0.1:9474\nadvertise: [\"{}:7443\"]\nworkloadPools: [10.9.0.0/24]\n",
                stand.cluster.node.v4(),
                dir = folder.display()
            ),
        )?;
        let mut foreign = stand.cluster.node.spawn(
            "foreign",
            &[Binary::Gateway.name(), "serve", "--config", &config.display().to_string()],
        )?;
        let words = ["token", "create", "--group", "shop/db", "-o", "json", "--socket", socket];
        let token = wait_ok("the other gateway", PATIENCE, || stand.cluster.gateway.command(&words)?.json())
            .with_context(|| foreign.output())?;
        foreign.stop()?;
        agent.try_join(json::text(&token, "token"))?.refused_with(&["certificate"])?;
        stays_unjoined(&agent)
    });
}

#[test]
fn a_second_join_on_a_joined_host_is_refused_and_changes_nothing() {
    CLUSTER.test(|stand| {
        let agent = stand.agent()?;
        agent.join(&stand.token(&[])?.text)?;
        let before = agent.wait_enforcing()?;
        let token = stand.token(&[])?;
        let workload = json::text(&before, "workload").to_owned();
        agent.try_join(&token.text)?.refused_with(&["already", &workload])?;
        let after = agent.wait_enforcing()?;
        for key in ["workload", "mesh_addresses", "identity", "certificate_expires"] {
            ensure!(json::at(&before, &[key]) == json::at(&after, &[key]), "{key}: {before:#} {after:#}");
        }
        // The token is still good for another.
        stand.agent()?.join(&token.text)?;
        Ok(())
    });
}

#[test]
fn a_name_that_is_held_is_refused_naming_the_holder_and_can_be_replaced() {
    CLUSTER.test(|stand| {
        let holder = stand.agent()?;
        holder.join(&stand.token(&[])?.text)?;
        let old = holder.wait_enforcing()?;
        let name = holder.host().name().to_owned();
        let workload = format!("shop/{name}");

        let other = stand.agent()?;
        let token = stand.token(&[])?;
        let words = ["join", "--token-stdin", "--name", &name];
        other.command_with(&words, &token.text)?.refused_with(&[&workload])?;
        stays_unjoined(&other)?;

        let replace =
            stand.cluster.gateway.command(&["workload", "replace", &workload, "-o", "json"])?.json()?;
        other.command_with(&words, json::text(&replace, "token"))?.ok()?;
        let new = other.wait_enforcing()?;
        for key in ["workload", "mesh_addresses", "identity"] {
            ensure!(json::at(&old, &[key]) == json::at(&new, &[key]), "{key}: {old:#} {new:#}");
        }
        // The old key is worth nothing any more.
        holder.wait_status("the old host to be refused", |status| !json::flag(status, "connected"))?;
        Ok(())
    });
}

#[test]
fn a_cloned_state_folder_opens_no_session_and_brings_nothing_up() {
    CLUSTER.test(|stand| {
        let mut original = stand.agent()?;
        original.join(&stand.token(&[])?.text)?;
        original.wait_enforcing()?;
        let host = stand.host()?;
        let from = original.host().folder().join("state");
        host.run(&["cp", "-a", &from.display().to_string(), &host.folder().display().to_string()])?.ok()?;
        let clone = Agent::start(&host)?;
        let status = clone
            .wait_status("the clone to be noticed", |status| json::text(status, "phase") == "duplicate")?;
        ensure!(
            !json::flag(&status, "connected") && !json::text(&status, "last_error").is_empty(),
            "{status:#}"
        );
        ensure!(!host.devices()?.to_string().contains("ogr0"), "the clone has a device");
        original.wait_enforcing()?;
        // The gateway takes no second machine with the key while the first is there, also when it is told to be it.
        clone.command(&["join", "--adopt"])?.ok()?;
        clone.wait_status("the refusal", |status| {
            json::text(status, "last_error").contains("DuplicateHost") && !json::flag(status, "connected")
        })?;
        original.wait_enforcing()?;
        // A restored machine, whose original is gone.
        original.stop()?;
        clone.wait_enforcing()?;
        Ok(())
    });
}

#[test]
fn a_sealed_machine_is_new() {
    CLUSTER.test(|stand| {
        let agent = stand.agent()?;
        agent.join(&stand.token(&[])?.text)?;
        agent.wait_enforcing()?;
        agent.command(&["seal"])?.ok()?;
        ensure!(!agent.state().join("identity.key").exists(), "the key is still there");
        stays_unjoined(&agent)
    });
}

#[test]
fn leaving_leaves_nothing_behind_and_says_what_it_removed() {
    CLUSTER.test(|stand| {
        let host = stand.host()?;
        let traces = |host: &Host| -> Result<[String; 5]> {
            let said = |words: &[&str]| -> Result<String> { Ok(host.run(words)?.ok()?.stdout) };
            Ok([
                host.routes()?,
                said(&["ip", "-o", "address", "show"])?,
                said(&["ip", "rule", "show"])?,
                said(&["find", "/sys/fs/bpf"])?,
                said(&["tc", "filter", "show", "dev", "eth0", "ingress"])?,
            ])
        };
        let before = traces(&host)?;
        let agent = Agent::start(&host)?;
        agent.join(&stand.token(&[])?.text)?;
        agent.wait_enforcing()?;
        ensure!(traces(&host)? != before, "nothing to remove");
        let name = host.name().to_owned();
        ensure!(stand.workload(&name)?.is_some(), "the gateway does not know it");

        let answer = agent.command(&["leave"])?.ok()?;
        ensure!(answer.stdout.contains("ogr0"), "{answer}");
        let after = traces(&host)?;
        for (before, after) in before.iter().zip(&after) {
            ensure!(before == after, "before:\n{before}\nafter:\n{after}");
        }
        let left: Vec<_> = walk(&agent.state());
        ensure!(left.is_empty(), "state left: {left:?}");
        wait_ok("the gateway to know", PATIENCE, || {
            ensure!(stand.workload(&name)?.is_none(), "it is still a workload");
            Ok(())
        })?;
        agent.command(&["status"])?.with_code(NOT_JOINED)?;
        // It can come back.
        agent.join(&stand.token(&[])?.text)?;
        agent.wait_enforcing()?;
        Ok(())
    });
}

#[test]
fn a_workload_deleted_at_the_gateway_is_cut_off() {
    CLUSTER.test(|stand| {
        let agent = stand.agent()?;
        agent.join(&stand.token(&[])?.text)?;
        agent.wait_enforcing()?;
        let workload = format!("shop/{}", agent.host().name());
        stand.cluster.gateway.command(&["workload", "delete", &workload])?.ok()?;
        agent.wait_status("the end of the session", |status| !json::flag(status, "connected"))?;
        Ok(())
    });
}

/// The files below a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}
