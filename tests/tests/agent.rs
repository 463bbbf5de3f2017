//! The agent as a service: what it tells its manager, what it refuses to share, and what it does when the host is in
//! its way.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::agent::Agent;
use e2e::binaries::{self, Binary};
use e2e::cluster::{Cluster, allow_ingress};
use e2e::host::Host;
use e2e::json;
use e2e::net::Net;
use e2e::process::Process;
use e2e::wait::{wait_for, wait_ok};

const PATIENCE: Duration = Duration::from_secs(10);

/// Starts an agent with these variables, or by way of these words.
fn spawn(agent: &Agent, by: &[&str], variables: &[(&str, &str)]) -> Result<Process> {
    let host = agent.host();
    let config = agent.config().display().to_string();
    let words = [by, &[Binary::Agent.name(), "--config", &config]].concat();
    let (program, arguments) = words.split_first().context("no program")?;
    let mut command = host.command(program)?;
    command.args(arguments).envs(variables.iter().copied());
    let mut process = Process::start(&format!("{}-agent", host.name()), &mut command, &host.net().logs())?;
    let socket = agent.socket();
    wait_for("the agent's socket", PATIENCE, || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok() || !process.is_running()
    })?;
    ensure!(process.is_running(), "{}", process.output());
    Ok(process)
}

/// A service manager's end of `sd_notify(3)`. It reads all the time, since a sender waits for a reader.
struct Manager {
    lines: mpsc::Receiver<String>,
    path: PathBuf,
}

impl Manager {
    fn new(host: &Host) -> Result<Self> {
        let path = host.folder().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                if text.lines().any(|line| send.send(line.to_owned()).is_err()) {
                    return;
                }
            }
        });
        Ok(Self { lines, path })
    }

    /// What was said since the last call, a line each.
    fn said(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Waits until it is told a line that starts so; returns what was said until then.
    fn hears(&self, start: &str) -> Result<Vec<String>> {
        let mut all = Vec::new();
        wait_for(start, PATIENCE, || {
            all.extend(self.said());
            all.iter().any(|line: &String| line.starts_with(start))
        })
        .with_context(|| format!("{all:?}"))?;
        Ok(all)
    }
}

#[test]
fn the_service_manager_hears_when_the_agent_stands_and_that_it_lives() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let host = cluster.net.host("db-1")?;
    let manager = Manager::new(&host)?;
    let notify = manager.path.display().to_string();
    let variables = [("NOTIFY_SOCKET", notify.as_str()), ("WATCHDOG_USEC", "2000000")];

    let agent = Agent::configured(&host, "")?;
    let mut process = spawn(&agent, &[], &variables)?;
    let said = manager.hears("READY=1")?;
    ensure!(said.iter().any(|line| line.starts_with("STATUS=not a member")), "{said:?}");
    manager.hears("WATCHDOG=1")?;
    agent.join(&cluster.gateway.token("shop/db", &[])?.text)?;
    manager.hears("STATUS=shop/db-1 enforces generation")?;
    process.stop()?;
    manager.hears("STOPPING=1")?;

    // A host that joined is ready once its state is in force.
    let mut process = spawn(&agent, &[], &variables)?;
    let said = manager.hears("READY=1")?;
    ensure!(said.iter().any(|line| line.starts_with("STATUS=shop/db-1 enforces")), "{said:?}");
    process.stop()?;

    // One whose state cannot be enforced is not.
    host.run(&["rm", "-rf", "/sys/fs/bpf/outrigger"])?.ok()?;
    host.namespace().ip("link delete ogr0\nlink add ogr0 type veth peer name other")?;
    manager.said();
    let mut process = spawn(&agent, &[], &variables)?;
    let said = manager.hears("STATUS=failed")?;
    let ready = said.iter().any(|line| line == "READY=1");
    ensure!(!ready, "{said:?}");
    host.namespace().ip("link delete ogr0")?;
    manager.hears("READY=1").with_context(|| process.output())?;
    process.stop().map(|_| ())
}

#[test]
fn a_task_that_hangs_stops_the_watchdog() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let host = cluster.net.host("db-1")?;
    let manager = Manager::new(&host)?;
    let notify = manager.path.display().to_string();
    let agent = Agent::configured(&host, "")?;
    let process = spawn(&agent, &[], &[("NOTIFY_SOCKET", &notify), ("WATCHDOG_USEC", "1000000")])?;
    agent.join(&cluster.gateway.token("shop/db", &[])?.text)?;
    agent.wait_enforcing()?;
    manager.said();
    manager.hears("WATCHDOG=1")?;

    // Whoever reads the resolver file waits for a writer who does not come.
    let pipe = host.folder().join("resolv.conf").display().to_string();
    host.run(&["mkfifo", &pipe])?.ok()?;
    host.run(&["mount", "--bind", &pipe, "/etc/resolv.conf"])?.ok()?;
    wait_for("the agent to notice", PATIENCE * 2, || process.stderr().contains("a task hangs"))?;
    manager.said();
    std::thread::sleep(Duration::from_secs(2));
    let said = manager.said();
    ensure!(!said.contains(&"WATCHDOG=1".to_owned()), "fed while a task hangs: {said:?}");
    ensure!(json::text(&agent.status()?, "phase") == "enforcing", "the command is not answered");

    host.run(&["umount", "--lazy", "/etc/resolv.conf"])?.ok()?;
    std::fs::write(&pipe, "nameserver 203.0.113.53\n")?;
    manager.hears("WATCHDOG=1").map(|_| ())
}

#[test]
fn a_second_agent_for_the_device_is_refused_and_the_first_is_named() -> Result<()> {
    let net = Net::try_new()?;
    let host = net.host("host")?;
    let mut agent = Agent::start(&host)?;
    let pid = agent.process()?.id().to_string();
    let other = host.folder().join("other").display().to_string();
    let second = [
        "outrigger-agent",
        "--mesh",
        "second",
        "--state-dir",
        &other,
        "--run-dir",
        &other,
        "--metrics-listen",
        "127.0.0.1:0",
        "--machine-id-file",
    ];
    let machine = host.folder().join("machine-id").display().to_string();
    let answer = host.run(&[&second[..], &[&machine]].concat())?;
    answer.refused_with(&["ogr0", "`device`", &format!("process {pid}")]).map(|_| ())
}

#[test]
fn a_leave_that_fails_says_so_and_can_be_repeated() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let agent = cluster.member("db", "db-1")?;
    let obstacle = "/sys/fs/bpf/outrigger/default/stable/obstacle";
    agent.host.run(&["mkdir", obstacle])?.ok()?;
    agent.command(&["leave"])?.refused_with(&["obstacle"])?;
    let status = agent.status()?;
    ensure!(json::text(&status, "phase") == "failed", "{status:#}");
    ensure!(json::text(&status, "last_error").contains("leaving is not complete"), "{status:#}");
    agent.host.run(&["rmdir", obstacle])?.ok()?;
    // By hand, or before that by itself.
    wait_ok("the leave", PATIENCE, || {
        let answer = agent.command(&["leave"])?;
        ensure!(answer.succeeded() || answer.code == Some(e2e::agent::NOT_JOINED), "{answer}");
        Ok(())
    })?;
    ensure!(json::text(&agent.status()?, "phase") == "unjoined", "{:#}", agent.status()?);
    let left = agent.host.run(&["find", "/sys/fs/bpf"])?.ok()?.stdout;
    ensure!(!left.contains("outrigger"), "{left}");
    Ok(())
}

#[test]
fn a_disk_that_is_full_later_is_told_and_does_not_hold_back_policy() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let host = cluster.net.host("db-1")?;
    let state = host.folder().join("state").display().to_string();
    host.run(&["mkdir", "-p", &state])?.ok()?;
    host.run(&["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", &state])?.ok()?;
    let agent = Agent::start(&host)?;
    agent.join(&cluster.gateway.token("shop/db", &[])?.text)?;
    agent.wait_enforcing()?;
    host.run(&["sh", "-c", &format!("cat /dev/zero > {state}/filler; true")])?;
    cluster.publish("policy.yaml", &allow_ingress("closed", "db", &[], None))?;
    let status = agent.wait_status("a warning", |status| {
        json::texts(status, "warnings").iter().any(|line| line.contains("older state"))
    })?;
    ensure!(json::flag(&status, "ingress_default_deny"), "policy waits for the disk: {status:#}");
    host.run(&["rm", &format!("{state}/filler")])?.ok()?;
    cluster.publish("policy.yaml", &allow_ingress("closed", "db", &["api"], None))?;
    agent.wait_status("no warning", |status| json::texts(status, "warnings").is_empty())?;
    host.run(&["umount", "--lazy", &state])?.ok().map(|_| ())
}

#[test]
fn a_kernel_without_a_feature_is_told_by_its_name_and_version() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    for (name, refused, words) in [
        ("host-a", "map-create", ["ring buffer", "Linux 5.8"]),
        ("host-b", "prog-load", ["CONFIG_NET_CLS_BPF", "Linux 4.1"]),
    ] {
        let host = cluster.net.host(name)?;
        let agent = Agent::configured(&host, "")?;
        let _process = spawn(&agent, &["confine", refused], &[])?;
        let token = cluster.gateway.token("shop/db", &[])?;
        agent.try_join(&token.text)?.refused_with(&words).context(name)?;
        ensure!(json::text(&agent.status()?, "phase") == "unjoined", "{:#}", agent.status()?);
    }
    Ok(())
}

#[test]
fn a_clock_that_is_wrong_is_told_with_both_times_and_costs_no_token() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let host = cluster.net.host("db-1")?;
    let agent = Agent::configured(&host, "")?;
    let token = cluster.gateway.token("shop/db", &[])?;
    let shim = binaries::folder()?.join("examples/libwrong_clock.so").display().to_string();
    for (wrong_by, words) in [
        ("-31536000", ["valid from", "the clock here shows"]),
        ("315360000", ["expired", "the clock here shows"]),
    ] {
        let variables = [("LD_PRELOAD", shim.as_str()), ("WRONG_CLOCK_SECONDS", wrong_by)];
        let mut process = spawn(&agent, &[], &variables)?;
        agent.try_join(&token.text)?.refused_with(&words).context(wrong_by)?;
        process.stop()?;
    }
    let mut agent = agent;
    agent.launch()?;
    agent.join(&token.text).map(|_| ())
}

#[test]
fn a_route_that_is_refused_is_told_to_the_host_and_to_the_gateway() -> Result<()> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let agent = cluster.member("db", "db-1")?;
    agent
        .host
        .namespace()
        .ip("route del 10.100.0.0/16 dev ogr0\nroute add 10.100.0.0/16 dev ogr0 proto static")?;
    agent.wait_status("the trouble", |status| json::text(status, "last_error").contains("10.100.0.0/16"))?;
    cluster.publish("policy.yaml", &allow_ingress("closed", "db", &[], None))?;
    agent.wait_status("the policy", |status| json::flag(status, "ingress_default_deny"))?;
    let told = || -> Result<bool> {
        Ok(cluster.gateway.workloads()?.iter().any(|it| it.to_string().contains("NetworkIncomplete")))
    };
    wait_for("the gateway to hear", PATIENCE, || told().unwrap_or(false))?;
    agent.host.namespace().ip("route del 10.100.0.0/16 dev ogr0 proto static")?;
    wait_for("the gateway to hear that it is over", PATIENCE, || !told().unwrap_or(true))?;
    agent.wait_status("no error", |status| json::text(status, "last_error").is_empty()).map(|_| ())
}
