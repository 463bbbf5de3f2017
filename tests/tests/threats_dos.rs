//! Threats to availability: what one peer does must not be felt by another. The row `dos` of the catalogue in
//! `docs/security.md`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use datapath::abi::{Bank, Control};
use datapath::model::Model;
use datapath::{Action, Outer};
use e2e::agent::Agent;
use e2e::cluster::allow_ingress;
use e2e::compiler;
use e2e::host::Host;
use e2e::json;
use e2e::long::rounds;
use e2e::process::Process;
use e2e::prog_test::frames;
use e2e::prog_test::host;
use e2e::prog_test::kernel::{Kernel, PASSED, control_buffer};
use e2e::prog_test::mesh::address;
use e2e::shared::Shared;
use e2e::shop::{Shop, db_clients, pings};
use e2e::stranger::Stranger;
use e2e::traffic::hold::HoldReport;
use e2e::wait::{wait_for, wait_ok};
use nix::sys::signal::Signal;
use proto::v1::JoinRequest;
use proto::v1::join_request::Credential;
use tonic::Code;

static SHOP: Shared<Shop> = Shared::new();

const PATIENCE: Duration = Duration::from_secs(20);

/// A new host joins and is served.
fn joins(shop: &Shop, name: &str) -> Result<()> {
    let agent = Agent::start(&shop.cluster.net.host(name)?)?;
    agent.join(&shop.cluster.gateway.token("shop/batch", &[])?.text)?;
    agent.wait_enforcing()?;
    agent.command(&["leave"])?.ok().map(|_| ())
}

/// Kilobytes of memory that the gateway has.
fn gateway_memory(shop: &mut Shop) -> Result<u64> {
    let id = shop.cluster.gateway.process()?.id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Connections to the gateway that say something or nothing, and then nothing more; `more` are options of the tool.
fn hold(shop: &Shop, from: &Host, count: u32, more: &str) -> Result<Process> {
    let to = format!("{}:7443", shop.cluster.node.v4());
    let tool = format!("ulimit -S -n $(ulimit -H -n); exec traffic hold --to {to} --count {count} {more}");
    from.spawn("hold", &["sh", "-c", &tool])
}

#[test]
fn threat_dos_half_open_handshakes() {
    SHOP.test(|shop| {
        let attacker = shop.cluster.net.host("attacker")?;
        // Many sources, so that a limit for each is none.
        let mut from = String::new();
        for number in 150..170 {
            attacker.namespace().ip(&format!("addr add 172.31.0.{number}/24 dev eth0"))?;
            let _ = write!(from, "--from 172.31.0.{number} ");
        }
        let count = rounds(2000, 5000);
        // Silence, and the first half of a ClientHello, which never ends; who is cut comes again.
        let mut silent = hold(shop, &attacker, count, &format!("{from} --again"))?;
        let mut half = hold(shop, &attacker, count, &format!("{from} --again --say 16030100c8010000c40303"))?;
        wait_for("connections without a handshake", PATIENCE, || {
            [&silent, &half]
                .iter()
                .all(|held| held.report::<HoldReport>().is_ok_and(|held| held.opened > 600))
        })?;
        joins(shop, "newcomer")?;
        silent.finish::<HoldReport>()?;
        half.finish::<HoldReport>()?;
        shop.db.wait_enforcing()?;
        Ok(())
    });
}

#[test]
fn threat_dos_accept_goes_on() {
    SHOP.test(|shop| {
        let attacker = shop.cluster.net.host("garbler")?;
        // HTTP without TLS, a record that is too long, an alert, a hello with an impossible length, zeros.
        for garbage in [
            "474554202f20485454502f312e310d0a0d0a",
            "1603ffffffff",
            "15030300020228",
            "160303000801ffffffffffff",
            "00000000",
        ] {
            let mut held = hold(shop, &attacker, 64, &format!("--say {garbage}"))?;
            wait_for("garbage", PATIENCE, || {
                held.report::<HoldReport>().is_ok_and(|report| report.is_done())
            })?;
            held.kill()?;
        }
        // The gateway has no file descriptor left, for a while.
        let id = shop.cluster.gateway.process()?.id();
        let open = std::fs::read_dir(format!("/proc/{id}/fd"))?.count();
        let limits = format!("/proc/{id}/limits");
        let limits = std::fs::read_to_string(limits)?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit")?;
        let usual = line.split_whitespace().next().context("no soft limit")?.to_owned();
        let limit = |shop: &Shop, soft: &str| -> Result<()> {
            let words = format!("prlimit --pid {id} --nofile={soft}:");
            shop.cluster.node.run(&words.split(' ').collect::<Vec<_>>())?.ok().map(|_| ())
        };
        limit(shop, &(open + 8).to_string())?;
        let mut held = hold(shop, &attacker, 100, "")?;
        let logged = |shop: &mut Shop| -> Result<bool> {
            Ok(shop.cluster.gateway.process()?.output().contains("connection not accepted"))
        };
        wait_ok("the lack to show", PATIENCE, || {
            ensure!(logged(shop)?, "nothing was refused");
            Ok(())
        })?;
        held.kill()?;
        limit(shop, &usual)?;
        joins(shop, "after")?;
        shop.db.wait_enforcing()?;
        ensure!(shop.cluster.gateway.process()?.is_running(), "the gateway ended");
        Ok(())
    });
}

#[test]
fn threat_dos_rapid_reset() {
    SHOP.test(|shop| {
        let attacker = shop.cluster.net.host("resetter")?;
        let token = shop.cluster.gateway.token("shop/batch", &[])?;
        let stranger = Stranger::try_new(&shop.cluster.gateway, &token)?;
        let before = gateway_memory(shop)?;
        let count = rounds(5000, 1_000_000);
        let sent = stranger.on(&attacker, async || {
            let (mut client, connection) = h2::client::handshake(stranger.connect().await?).await?;
            let driving = tokio::spawn(connection);
            for number in 0..count {
                let request = http::Request::post("https://gateway/outrigger.v1.Enrollment/Join").body(())?;
                let Ok(ready) = client.ready().await else { return Ok(number) };
                client = ready;
                let Ok((_answer, mut stream)) = client.send_request(request, false) else {
                    return Ok(number);
                };
                stream.send_reset(h2::Reason::CANCEL);
                tokio::task::yield_now().await;
                if driving.is_finished() {
                    return Ok(number);
                }
            }
            Ok(count)
        })?;
        ensure!(sent < count, "{sent} resets, and the connection was not cut");
        let grown = gateway_memory(shop)?.saturating_sub(before);
        ensure!(grown < 16 * 1024, "{grown} kB for {sent} resets");
        joins(shop, "after-resets")?;
        shop.db.wait_enforcing().map(|_| ())
    });
}

#[test]
fn threat_dos_large_names() {
    SHOP.test(|shop| {
        let attacker = shop.cluster.net.host("namer")?;
        let token = shop.cluster.gateway.token("shop/batch", &[])?;
        let stranger = Stranger::try_new(&shop.cluster.gateway, &token)?;
        let audited = std::fs::metadata(shop.cluster.gateway.audit_log())?.len();
        let workloads = shop.cluster.gateway.workloads()?.len();
        let codes = stranger.on(&attacker, async || {
            let mut codes = Vec::new();
            for size in [1 << 20, 60 << 10, 254] {
                let long = "a".repeat(size);
                let honest = JoinRequest {
                    token_id: stranger.token().id.clone(),
                    credential: Some(Credential::TokenSecret(stranger.token().secret.clone())),
                    ..JoinRequest::default()
                };
                for request in [
                    JoinRequest { name: long.clone(), ..honest.clone() },
                    JoinRequest { hostname: long.clone(), ..honest.clone() },
                    JoinRequest { token_id: long.clone(), ..honest.clone() },
                    JoinRequest { agent_version: long.clone(), csr: vec![b'a'; size], ..honest.clone() },
                ] {
                    let answer = stranger.enrollment().await?.join(request).await;
                    codes.push((size, answer.map(|_| ()).map_err(|status| status.code())));
                }
            }
            Ok(codes)
        })?;
        for (size, answer) in codes {
            ensure!(answer.is_err(), "a name of {size} bytes joined");
            // The message is not even read.
            ensure!(size < 1 << 20 || answer == Err(Code::OutOfRange), "{size} bytes: {answer:?}");
        }
        let grown = std::fs::metadata(shop.cluster.gateway.audit_log())?.len() - audited;
        ensure!(grown < 16 * 1024, "{grown} bytes in the audit stream");
        ensure!(shop.cluster.gateway.workloads()?.len() == workloads, "a workload more");
        // Manifests neither.
        let huge = compiler::pod(&"p".repeat(1 << 20), "{app: web}", "node-1", "10.100.1.77");
        shop.cluster.gateway.apply("huge.yaml", &huge)?;
        shop.cluster.gateway.wait_status("the rejection", |status| {
            json::list(status, "rejected")
                .iter()
                .any(|entry| json::text(entry, "file").starts_with("huge.yaml"))
        })?;
        let said = shop.cluster.gateway.status()?.to_string().len();
        ensure!(said < 16 * 1024, "the status has {said} bytes");
        shop.cluster.gateway.remove("huge.yaml")?;
        joins(shop, "after-names")
    });
}

#[test]
fn threat_dos_slow_reader() {
    SHOP.test(|shop| {
        shop.batch.agent.process()?.signal(Signal::SIGSTOP)?;
        let before = gateway_memory(shop)?;
        for round in 0..rounds(30, 2000) {
            let pods: String = (2..200_u32)
                .map(|pod| {
                    compiler::pod(
                        &format!("x{pod}"),
                        &format!("{{app: x{}}}", round % 3),
                        "node-1",
                        &format!("10.100.9.{pod}"),
                    )
                })
                .collect();
            shop.cluster.gateway.apply("many.yaml", &pods)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        // Another host hears of a new policy meanwhile, and of the end of it.
        let [to, _] = shop.db.addresses()?;
        for (apps, reaches) in [(&["api", "web"][..], true), (&["api"], false)] {
            shop.cluster.gateway.apply("db-clients.yaml", &db_clients(apps))?;
            wait_ok("the policy to show", PATIENCE, || {
                ensure!(pings(&shop.web, to, 56)? == reaches, "web: not yet {reaches}");
                Ok(())
            })?;
        }
        let grown = gateway_memory(shop)?.saturating_sub(before);
        ensure!(grown < 64 * 1024, "{grown} kB more");
        shop.batch.agent.process()?.signal(Signal::SIGCONT)?;
        shop.cluster.gateway.remove("many.yaml")?;
        shop.cluster.publish("slow.yaml", &allow_ingress("slow", "batch", &["nobody"], None))?;
        shop.batch
            .wait_status("the slow one to catch up", |status| json::flag(status, "ingress_default_deny"))?;
        shop.cluster.gateway.remove("slow.yaml")?;
        shop.cluster.settle()
    });
}

/// A host that lets one peer in.
fn open_host() -> Model {
    let mut model = Model::default();
    for (text, entry) in [("10.0.0.1", host::OWN), ("10.0.0.2", host::peer(301, "192.0.2.2"))] {
        model.endpoints.insert(host::endpoint_key(Bank::A, text), entry);
    }
    model.settings[0] = Some(host::settings(Action::Allow, Action::Deny));
    model
}

#[test]
fn threat_dos_flow_flood() -> Result<()> {
    let mut kernel = Kernel::load()?;
    kernel.write_tables(&open_host())?;
    kernel.publish(Control::new(Bank::A, 0, 1))?;
    let facts = control_buffer(&Outer { source: address("192.0.2.2"), vni: 301 });
    let frame = |is_egress: bool, ports: (u16, u16), flags: u8| {
        let (from, to) = if is_egress { ("10.0.0.1", "10.0.0.2") } else { ("10.0.0.2", "10.0.0.1") };
        let segment = frames::tcp(ports.0, ports.1, flags);
        frames::ethernet(&frames::ipv4(address(from), address(to), 6, [0; 4], &segment))
    };
    let passes = |kernel: &Kernel, is_egress: bool, flags: u8| -> Result<bool> {
        let program = if is_egress { "test_mesh_egress" } else { "test_mesh_ingress" };
        let ports = if is_egress { (80, 4000) } else { (4000, 80) };
        let facts = if is_egress { [0; 5] } else { facts };
        Ok(kernel.run(program, &frame(is_egress, ports, flags), facts)?.action == PASSED)
    };
    for (is_egress, flags) in [(false, 2), (true, 0x12), (false, 0x10)] {
        ensure!(passes(&kernel, is_egress, flags)?, "the live flow does not begin");
    }
    // Many times what both tables hold; the live flow is used seldom.
    for number in 0..rounds(60_000, 10_000_000) {
        let ports = (u16::try_from(number % 60_000)? + 5000, 81 + u16::try_from(number / 60_000)?);
        kernel.run("test_mesh_ingress", &frame(false, ports, 2), facts)?;
    }
    ensure!(
        passes(&kernel, false, 0x10)? && passes(&kernel, true, 0x10)?,
        "the live flow is gone: {:?}",
        kernel.counters()?
    );
    // A new one still begins.
    ensure!(kernel.run("test_mesh_ingress", &frame(false, (4001, 80), 2), facts)?.action == PASSED);
    Ok(())
}
