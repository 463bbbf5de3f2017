//! Threats in time: gaps around restarts, switches and changes. Rows 1, 4, 5, 7 and 8 of the catalogue in
//! `docs/security.md`; 2 and 6 are in `threats_order.rs`.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use datapath::abi::{Bank, ClassEntry, ClassKey, Control, PolicyEntry, PolicyKey, Rank};
use datapath::model::Model;
use datapath::{Action, Outer};
use e2e::binaries::Binary;
use e2e::cluster::pod_manifest;
use e2e::json;
use e2e::long::rounds;
use e2e::process::Process;
use e2e::prog_test::frames;
use e2e::prog_test::host;
use e2e::prog_test::kernel::{DROPPED, Kernel, PASSED, control_buffer};
use e2e::prog_test::mesh::address;
use e2e::shared::Shared;
use e2e::shop::{Brief, Shop, TCP, Traffic, UDP};
use e2e::traffic::knock::KnockReport;
use e2e::traffic::tcp::EchoReport;
use e2e::traffic::udp::{SendReport, SinkReport};
use e2e::wait::{wait_for, wait_ok};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use vm_agent::state_dir::{Snapshot, StateDir};

static SHOP: Shared<Shop> = Shared::new();

/// Floods of one test are not to starve another.
static TURN: Mutex<()> = Mutex::new(());

/// Runs a test in the world of all, alone.
fn alone(test: impl FnOnce(&mut Shop) -> Result<()>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    SHOP.test(test);
}

const PATIENCE: Duration = Duration::from_secs(10);

/// What `web` sends to `db-1` without being allowed to.
struct Flood {
    sink: Process,
    echo: Process,
    datagrams: Vec<Process>,
    knocks: Vec<Process>,
}

impl Flood {
    fn start(shop: &Shop, rate: u32) -> Result<Self> {
        let sink = shop.db.host.traffic("flood-sink", &format!("udp-sink --port {UDP}"))?;
        let echo = shop.db.host.traffic("flood-echo", &format!("tcp-echo --port {TCP}"))?;
        wait_for("servers", PATIENCE, || {
            sink.report::<SinkReport>().is_ok_and(|report| report.listening)
                && echo.report::<EchoReport>().is_ok_and(|report| report.listening)
        })?;
        let mut flood = Self { sink, echo, datagrams: Vec::new(), knocks: Vec::new() };
        for to in shop.db.addresses()? {
            let (udp, tcp) = (SocketAddr::new(to, UDP), SocketAddr::new(to, TCP));
            let datagrams = format!("udp-send --to {udp} --rate {rate}");
            flood.datagrams.push(shop.web.traffic("flood-udp", &datagrams)?);
            flood
                .knocks
                .push(shop.web.traffic("flood-tcp", &format!("knock --to {tcp} --rate {}", rate / 2))?);
        }
        Ok(flood)
    }

    /// Ends it; how many packets were sent, of which none may have been delivered.
    fn finish(mut self) -> Result<u64> {
        let mut sent = 0;
        for process in &mut self.datagrams {
            sent += process.finish::<SendReport>()?.sent;
        }
        for process in &mut self.knocks {
            sent += process.finish::<KnockReport>()?.sent;
        }
        let (sunk, accepted): (SinkReport, EchoReport) = (self.sink.finish()?, self.echo.finish()?);
        ensure!(sunk.flows.is_empty() && sunk.foreign == 0, "delivered: {sunk:?}");
        ensure!(accepted.connections == 0, "connected: {accepted:?}");
        Ok(sent)
    }
}

/// Starts the agent of `db-1` over programs that it takes for another version's: it loads its own beside them, and
/// switches.
fn upgrade(shop: &mut Shop) -> Result<()> {
    shop.db.agent.kill()?;
    let programs = "find /sys/fs/bpf/outrigger ( -name mesh_ingress -o -name mesh_egress ) -print -delete";
    let removed = shop.db.host.run(&programs.split(' ').collect::<Vec<_>>())?.ok()?;
    ensure!(removed.stdout.lines().count() == 2, "no pinned programs: {removed}");
    shop.db.agent.launch()?;
    shop.db.wait_enforcing().map(|_| ())
}

#[test]
fn threat_01_no_gap_around_restarts() {
    alone(|shop| {
        let mut random = StdRng::seed_from_u64(1);
        let denied = shop.db.counted("policy_denied")?;
        let flood = Flood::start(shop, 1500)?;
        for round in 0..rounds(8, 1000) {
            match round % 4 {
                0 => shop.db.agent.kill()?,
                1 => shop.db.agent.stop()?,
                2 => {
                    // Killed again at any point of its start.
                    shop.db.agent.kill()?;
                    let mut early = shop.db.agent.spawn()?;
                    std::thread::sleep(Duration::from_millis(random.random_range(0..500)));
                    early.kill()?;
                }
                _ => {
                    upgrade(shop)?;
                    continue;
                }
            }
            shop.db.agent.launch()?;
            shop.db.wait_enforcing()?;
        }
        wait_ok("the flood to be denied", PATIENCE, || {
            let now = shop.db.counted("policy_denied")?;
            ensure!(now > denied + 5000, "{} packets of the flood", now - denied);
            Ok(())
        })?;
        println!("{} denied packets were sent", flood.finish()?);
        Ok(())
    });
}

#[test]
fn threat_04_no_program_is_missing_while_they_are_switched() {
    alone(|shop| {
        let traffic = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.api, &shop.web)?;
        let to = SocketAddr::new(shop.db.addresses()?[0], UDP);
        let mut fast = shop.web.traffic("fast", &format!("udp-send --to {to} --flow 99 --rate 20000"))?;
        let missed = shop.db.counted("missed_tail_call")?;
        for _ in 0..rounds(3, 100) {
            upgrade(shop)?;
            traffic.wait_flowing(20)?;
        }
        let sent: SendReport = fast.finish()?;
        ensure!(sent.sent > 5000, "{sent:?}");
        ensure!(shop.db.counted("missed_tail_call")? == missed, "{:#}", shop.db.status()?);
        traffic.finish().map(|_| ())
    });
}

#[test]
fn threat_05_no_reply_is_lost_while_labels_change() {
    alone(|shop| {
        let traffic = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.api, &shop.web)?;
        let before = shop.db.counted("spoofed")? + shop.db.counted("unknown_source")?;
        for round in 0..rounds(40, 2000) {
            let tier = format!("t{}", round % 3);
            let labels = [("app", "api"), ("tier", tier.as_str())];
            shop.cluster.gateway.apply("pod-api.yaml", &pod_manifest(&shop.api, &labels))?;
            // Not a wait for anything: the pace of the changes, faster than a relabel takes.
            std::thread::sleep(Duration::from_millis(20));
        }
        shop.cluster.publish("pod-api.yaml", &pod_manifest(&shop.api, &[("app", "api")]))?;
        traffic.wait_flowing(50)?;
        traffic.finish()?;
        let after = shop.db.counted("spoofed")? + shop.db.counted("unknown_source")?;
        ensure!(after == before, "{} packets failed the source check", after - before);
        Ok(())
    });
}

/// The allowed and the denied peer of row 5, and their tunnel endpoints.
const PEERS: [(&str, &str); 2] = [("10.0.0.2", "192.0.2.2"), ("10.0.0.3", "192.0.2.3")];

/// In a bank: the first peer has `allowed`, an identity that may open flows, the second one has `denied`.
fn fill(model: &mut Model, bank: Bank, allowed: u32, denied: u32) {
    let number = bank.number();
    model.endpoints.insert(host::endpoint_key(bank, "10.0.0.1"), host::OWN);
    for ((peer, tunnel), identity) in PEERS.into_iter().zip([allowed, denied]) {
        model.endpoints.insert(host::endpoint_key(bank, peer), host::peer(identity, tunnel));
    }
    for (identity, class) in [(allowed, 1), (denied, 2)] {
        model.classes.insert(ClassKey { bank: number, reserved: [0; 3], identity }, ClassEntry { class });
    }
    let rule = PolicyKey {
        prefix_len: PolicyKey::BASE_BITS,
        bank: number,
        direction: 0,
        protocol: PolicyKey::ANY_PROTOCOL,
        reserved: 0,
        class: 1,
        port: datapath::Port::new(0),
        padding: [0; 2],
    };
    let entry = PolicyEntry::of(Rank::new(1, Action::Allow), 7);
    model.policy.insert(rule, entry);
    if let Some(settings) = model.settings.get_mut(usize::from(number)) {
        *settings = Some(host::settings(Action::Deny, Action::Deny));
    }
}

#[test]
fn threat_05_identities_swapped_at_every_packet() -> Result<()> {
    let mut model = Model::default();
    // With each publication the two peers exchange identities, and the rule follows the first one.
    fill(&mut model, Bank::A, 301, 302);
    fill(&mut model, Bank::B, 302, 301);
    let mut kernel = Kernel::load()?;
    kernel.write_tables(&model)?;
    let packet = |from: &str, to: &str, ports: (u16, u16), flags: u8| {
        let segment = frames::tcp(ports.0, ports.1, flags);
        frames::ethernet(&frames::ipv4(address(from), address(to), 6, [0; 4], &segment))
    };
    let [(peer, tunnel), (other, others_tunnel)] = PEERS;
    let mut control = Control::new(Bank::A, 0, 1);
    let facts = |control: Control, tunnel: &str, first: bool| {
        let vni = if (control.bank() == Bank::A) == first { 301 } else { 302 };
        control_buffer(&Outer { source: address(tunnel), vni })
    };
    kernel.publish(control)?;
    let opened = kernel.run(
        "test_mesh_ingress",
        &packet(peer, "10.0.0.1", (4000, 80), 2),
        facts(control, tunnel, true),
    )?;
    ensure!(opened.action == PASSED, "the flow does not open");
    for round in 0..rounds(1000, 1_000_000) {
        control = control.next();
        kernel.publish(control)?;
        // Either the reply or the next request meets the new identities first.
        for turn in 0..2 {
            let run = if (round + turn) % 2 == 0 {
                kernel.run("test_mesh_egress", &packet("10.0.0.1", peer, (80, 4000), 0x12), [0; 5])?
            } else {
                kernel.run(
                    "test_mesh_ingress",
                    &packet(peer, "10.0.0.1", (4000, 80), 0x10),
                    facts(control, tunnel, true),
                )?
            };
            ensure!(run.action == PASSED, "lost in round {round}, turn {turn}: {:?}", kernel.counters()?);
        }
        let port = 1000 + u16::try_from(round % 50_000)?;
        for flags in [2, 0x10] {
            let frame = packet(other, "10.0.0.1", (port, 80), flags);
            let run = kernel.run("test_mesh_ingress", &frame, facts(control, others_tunnel, false))?;
            ensure!(run.action == DROPPED, "the denied peer got through in round {round}");
        }
    }
    Ok(())
}

static BRIEF: Shared<Brief> = Shared::new();

/// Makes the last good state of `db-1` so much older.
fn age(shop: &Shop, by: Duration) -> Result<()> {
    let state = StateDir::open(&shop.db.host.folder().join("state"), "default")?;
    let mut snapshot = Snapshot::load(&state)?.context("no snapshot")?;
    snapshot.saved -= by.as_secs();
    Ok(snapshot.save(&state)?)
}

#[test]
fn threat_07_nothing_expires_without_the_gateway() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    BRIEF.test(|Brief(shop)| {
        let known = |shop: &Shop| -> Result<[String; 2]> {
            let list = |words: [&str; 2]| -> Result<String> {
                Ok(shop.db.command(&[&words[..], &["-o", "json"]].concat())?.ok()?.stdout)
            };
            Ok([list(["endpoint", "list"])?, list(["policy", "list"])?])
        };
        let (before, expires) = (known(shop)?, json::number(&shop.db.status()?, "certificate_expires"));
        shop.cluster.gateway.kill()?;
        shop.power_off()?;
        wait_for("the certificate to expire", Duration::from_secs(12), || {
            nix::time::ClockId::CLOCK_REALTIME
                .now()
                .is_ok_and(|now| u64::try_from(now.tv_sec()).is_ok_and(|now| now > expires + 1))
        })?;
        // A day later by every clock that a process has: the state is old, and the machine's time has gone on.
        age(shop, Duration::from_hours(25))?;
        let later = ["unshare", "--time", "--monotonic", "90000", "--boottime", "90000", "--kill-child"];
        let config = shop.db.agent.config().display().to_string();
        let agent = [Binary::Agent.name(), "--config", &config];
        let mut late = shop.db.host.spawn("agent-late", &[&later[..], &agent].concat())?;
        let status = wait_ok("the snapshot to be enforced", PATIENCE, || {
            let status = shop.db.status()?;
            ensure!(json::text(&status, "phase") == "enforcing", "{status:#} {}", late.output());
            Ok(status)
        })?;
        ensure!(json::text(&status, "state_source") == "snapshot", "{status:#}");
        ensure!(known(shop)? == before, "another state than before: {before:#?} {:#?}", known(shop)?);
        let traffic = Traffic::start(&shop.db.host, &shop.db.addresses()?, &shop.api, &shop.web)?;
        traffic.wait_flowing(100)?;
        traffic.finish()?;
        late.kill()?;
        shop.cluster.gateway.launch()?;
        wait_ok("the agent of now", PATIENCE, || shop.db.agent.launch())?;
        shop.db.wait_enforcing().map(|_| ())
    });
}
#[test]
fn threat_08_a_hundred_joins_with_one_token_are_one() {
    alone(|shop| {
        let host = shop.cluster.net.host("many")?;
        let token = shop.cluster.gateway.token("shop/db", &[])?;
        let before = shop.cluster.gateway.workloads()?.len();
        let mut processes = Vec::new();
        for number in 0..100 {
            let folder = host.folder().join(number.to_string());
            std::fs::create_dir_all(&folder)?;
            let config = folder.join("agent.yaml");
            let text = format!(
                "mesh: m{number}\ndevice: ogr{number}\nstateDir: {dir}\nrunDir: {dir}\nhostname: many-{number}\n\
                 metricsListen: 127.0.0.1:{port}\nmachineIdFile: {dir}/machine-id\ndmiUuidFile: {dir}/machine-id\n",
                dir = folder.display(),
                port = 10_000 + number
            );
            std::fs::write(&config, text)?;
            std::fs::write(folder.join("machine-id"), format!("{number:032x}\n"))?;
            let words = [Binary::Agent.name(), "--config", &config.display().to_string()];
            processes.push((
                host.spawn(&format!("agent-{number}"), &words)?,
                folder.join(format!("m{number}.sock")),
            ));
        }
        wait_for("a hundred sockets", Duration::from_secs(30), || {
            processes.iter().all(|(_, socket)| socket.exists())
        })?;
        let answers = std::thread::scope(|scope| {
            let joins: Vec<_> = processes
                .iter()
                .map(|(_, socket)| {
                    let (host, text) = (host.clone(), format!("{}\n", token.text));
                    scope.spawn(move || {
                        let socket = socket.display().to_string();
                        host.run_with(
                            &[Binary::Command.name(), "--socket", &socket, "join", "--token-stdin"],
                            &text,
                        )
                    })
                })
                .collect();
            joins.into_iter().filter_map(|join| join.join().ok()).collect::<Result<Vec<_>>>()
        })?;
        let joined = answers.iter().filter(|answer| answer.succeeded()).count();
        ensure!(answers.len() == 100 && joined == 1, "{joined} of {} joined", answers.len());
        let odd = answers.iter().find(|answer| !answer.succeeded() && !answer.stderr.contains("used"));
        ensure!(odd.is_none(), "refused for another reason: {odd:?}");
        let after = shop.cluster.gateway.workloads()?.len();
        ensure!(after == before + 1, "{before} workloads became {after}");
        Ok(())
    });
}

#[test]
fn threat_08_a_token_is_counted_where_it_is_used() -> Result<()> {
    use gateway::store;
    let folder = tempfile::tempdir()?;
    let pools = store::Pools::try_new(&["10.9.0.0/24".parse()?])?;
    let settings = store::Settings { pools, cluster_id: 0, quarantine: Duration::from_hours(1) };
    let store = store::Store::open(&folder.path().join("state"), settings)?;
    let now = store::unix_time(1_800_000_000);
    let target = store::Target::Group { namespace: "shop".into(), name: "db".into() };
    let hour = Duration::from_hours(1);
    let minted = store.mint(store::Minting::new(target, hour), now)?;
    // Whoever races another one has passed all earlier checks when the other one's join is written.
    let join = |name: &str| -> Result<bool> {
        let csr = pki::CheckedCsr::from_der(&pki::KeyPair::generate()?.request()?)?;
        let joining = store::Joining {
            proof: store::Proof::Token { id: minted.token.id.clone(), secret: minted.secret.clone() },
            name: store::WorkloadName::try_new("shop", name)?,
            key: csr.key_hash(),
            machine: name.as_bytes().to_vec(),
            underlay: vec!["192.0.2.1".parse()?],
            source: None,
            agent_version: "1".into(),
            wanted: Vec::new(),
            promised: std::collections::BTreeSet::new(),
        };
        Ok(store.join(&joining, now, now).is_ok())
    };
    ensure!(join("db-1")?, "the first one does not join");
    ensure!(!join("db-2")?, "a second one joins");
    Ok(())
}
