//! `make stress`: changes, kills and floods while probes flow between hosts and pods, and a checker that knows what each
//! generation allows and finds every packet that none explains.
//!
//! The seed decides what is changed and cut, and roughly when; the schedule of a machine is not part of it. What a
//! finding was made of is in `target/stress/<seed>.json`.

pub mod cast;
pub mod checker;
pub mod double;
pub mod flood;
pub mod load;
pub mod probe;
pub mod proxy;
pub mod report;
pub mod stage;
pub mod trouble;
pub mod truth;
pub mod watch;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use cast::{Cast, Kind, Lane, Machine};
use checker::{Checker, Excuse, Packet};
use flood::Flood;
use load::{Changes, Writer};
use probe::{Seen, Shared};
pub use report::Summary;
use report::{Evidence, Findings};
use stage::Stage;
use trouble::{Counts, Log};
use watch::Revisions;
use world::{Actor, World, port};

/// How long after it was sent a packet is judged: what has not arrived by then is lost.
const JUDGED_AFTER_NS: u64 = 4_000_000_000;
/// How often counters are read.
const SAMPLE: Duration = Duration::from_millis(250);
/// How often a line says how it goes.
const TELL: Duration = Duration::from_mins(1);

/// What the truth is to be wrong about: what the checker must find then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Broken {
    /// That a denied flow is denied: its losses must be found.
    Allow,
    /// That an allowed flow is allowed: its deliveries must be found.
    Deny,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long.
    pub seconds: u64,
    /// What is random.
    pub seed: u64,
    /// Policies changed a second.
    pub policies: u32,
    /// Pods changed a second.
    pub endpoints: u32,
    /// Probes a second on each flow.
    pub rate: u32,
    /// Whether anything is killed, cut or flooded.
    pub trouble: bool,
    /// What the truth is to be wrong about.
    pub broken: Option<Broken>,
}

/// What the threads of a run share.
struct Run<'a> {
    options: &'a Options,
    cast: &'a Cast,
    lanes: &'a [Lane],
    checker: Mutex<Checker>,
    revisions: Mutex<Revisions>,
    changes: Changes,
    counts: Counts,
    log: Log,
    evidence: Evidence,
    /// No more changes and troubles.
    stop: AtomicBool,
    /// No more looking.
    end: AtomicBool,
}

/// Runs it, prints the table and writes the history. Ends early on a signal, with what was found so far.
pub fn run(options: &Options) -> Result<Summary> {
    let signalled = crate::sweep::stop_on_signal();
    println!("seed {}", options.seed);
    let (mut stage, world, cast) = Stage::build(options.seed)?;
    let lanes = cast.lanes()?;
    let writer = writer(options, &stage, &cast, &lanes)?;
    let paths = lanes.iter().map(|lane| lane.path.clone()).collect();
    let run = Run {
        options,
        cast: &cast,
        lanes: &lanes,
        checker: Mutex::new(Checker::new(paths, cast.transit() + 1, writer.truth(&world)?)),
        revisions: Mutex::default(),
        changes: Changes::default(),
        counts: Counts::default(),
        log: Log::default(),
        evidence: Evidence::default(),
        stop: AtomicBool::new(false),
        end: AtomicBool::new(false),
    };
    let (shared, seen) = start_probes(&stage, &lanes, options.rate)?;
    stage.set_line(options.trouble);
    let started = Instant::now();
    let findings = run.conduct(&mut stage, world, &writer, &shared, &seen, &signalled)?;
    let summary = run.summary(&stage, &shared, findings, started.elapsed());
    println!("{summary}");
    let path = summary.write(&run.log, &run.evidence)?;
    println!("\n{}", path.display());
    if !summary.is_clean() {
        println!("{}", report::keep_logs(&path, &stage.cluster.net.logs())?.display());
    }
    Ok(summary)
}

fn writer<'a>(options: &Options, stage: &Stage, cast: &'a Cast, lanes: &[Lane]) -> Result<Writer<'a>> {
    let manifests = stage.cluster.gateway.manifests();
    Ok(Writer {
        drafts: manifests.parent().context("the manifests are in no folder")?.to_path_buf(),
        manifests,
        hosts: &cast.hosts,
        asked: lanes.iter().map(|lane| lane.asked.clone()).collect(),
        broken: options.broken,
        policies: options.policies,
        endpoints: options.endpoints,
        bulks: options.trouble,
    })
}

/// Opens all sockets, and begins to send.
fn start_probes(stage: &Stage, lanes: &[Lane], rate: u32) -> Result<(Shared, Receiver<Seen>)> {
    let (sender, seen) = channel();
    let shared = Shared {
        seen: sender,
        stop: Arc::new(AtomicBool::new(false)),
        broken: Arc::new(AtomicU64::new(0)),
        unsent: Arc::new(AtomicU64::new(0)),
    };
    let mut ports: BTreeMap<Machine, BTreeSet<u16>> = BTreeMap::new();
    for lane in lanes.iter().filter(|lane| matches!(lane.kind, Kind::Datagrams { .. })) {
        ports.entry(lane.toward).or_default().insert(lane.to.port());
    }
    for (machine, ports) in &ports {
        probe::receive(stage.namespace(*machine)?, ports, &shared)?;
    }
    for host in 0..stage.hosts.len() {
        let namespace = stage.namespace(Machine::Host(host))?;
        probe::accept(namespace, port::STREAM, &shared)?;
        flood::answer(namespace)?;
    }
    let mut datagrams = Vec::new();
    for (flow, lane) in lanes.iter().enumerate() {
        let namespace = stage.namespace(lane.from)?;
        match lane.kind {
            Kind::Datagrams { .. } => datagrams.push((flow, lane.clone(), probe::sender(namespace, lane)?)),
            Kind::Echo => {}
            Kind::Stream => probe::stream(namespace, flow, lane, &shared)?,
            Kind::Knocks => probe::knock(namespace, flow, lane, &shared)?,
        }
    }
    probe::send(datagrams, rate, &shared);
    Ok((shared, seen))
}

impl Run<'_> {
    /// Starts everything, judges meanwhile, and ends everything.
    fn conduct(
        &self,
        stage: &mut Stage,
        world: World,
        writer: &Writer<'_>,
        shared: &Shared,
        seen: &Receiver<Seen>,
        signalled: &AtomicBool,
    ) -> Result<Findings> {
        let (points, holders, doubles) = (stage.watched(), stage.holders(), stage.doubles());
        let random = self.options.seed;
        let Stage { agents, cluster, pods, .. } = stage;
        let flooder = pods.get(&Actor::Flood).context("nobody floods")?;
        thread::scope(|scope| {
            let told = (&self.checker, &self.revisions, &self.changes, &self.log);
            let mut threads = vec![
                self.spawn(scope, move || watch::follow(&points, &self.revisions, &self.checker, &self.end)),
                self.spawn(scope, move || self.sample(&holders)),
                self.spawn(scope, move || writer.run(world, random, told, &self.stop)),
            ];
            if self.options.trouble {
                let gateway = &mut cluster.gateway;
                let mut killed: Vec<_> = agents.iter_mut().collect();
                killed.push(&mut cluster.transit);
                let (log, counts, stop) = (&self.log, &self.counts, &self.stop);
                let hosts = self.cast.hosts.iter().flatten().copied().filter(std::net::IpAddr::is_ipv4);
                let flood =
                    Flood { from: flooder.namespace(), hosts: hosts.collect(), seed: random, counts, log };
                for (double, seed) in doubles.into_iter().zip(random..) {
                    threads.push(self.spawn(scope, move || double.run(seed, (log, counts), stop)));
                }
                threads.push(
                    self.spawn(scope, move || {
                        trouble::kill_agents(killed, log, (counts, &self.checker), stop)
                    }),
                );
                threads.push(
                    self.spawn(scope, move || trouble::restart_gateway(gateway, random, log, counts, stop)),
                );
                threads.push(self.spawn(scope, move || flood.run(stop)));
            }
            let findings = self.judge(shared, seen, signalled);
            let mut outcome = Ok(());
            for thread in threads {
                let ended = thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")));
                outcome = outcome.and(ended);
            }
            outcome.map(|()| findings)
        })
    }

    /// A thread whose failure ends the run.
    fn spawn<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() -> Result<()> + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, Result<()>> {
        scope.spawn(move || {
            let outcome = work();
            if outcome.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            outcome
        })
    }

    /// Judges packets as they grow old enough, until the time is over and all are judged.
    fn judge(&self, shared: &Shared, seen: &Receiver<Seen>, signalled: &AtomicBool) -> Findings {
        let started = Instant::now();
        let limit = Duration::from_secs(self.options.seconds);
        let mut findings = Findings::default();
        let mut open: BTreeMap<(u64, usize, u64), Option<u64>> = BTreeMap::new();
        let mut told = Instant::now();
        let mut stopped: Option<Instant> = None;
        loop {
            let over = started.elapsed() > limit || signalled.load(Ordering::Relaxed);
            if stopped.is_none() && (over || self.stop.load(Ordering::Relaxed)) {
                self.stop.store(true, Ordering::Relaxed);
                shared.stop.store(true, Ordering::Relaxed);
                stopped = Some(Instant::now());
            }
            thread::sleep(SAMPLE);
            for Seen { flow, number, sent_ns, received_ns } in seen.try_iter() {
                let entry = open.entry((sent_ns, flow, number)).or_insert(None);
                *entry = received_ns.or(*entry);
            }
            let before = crate::wait::monotonic_ns().saturating_sub(JUDGED_AFTER_NS);
            let young = open.split_off(&(before, 0, 0));
            self.judge_all(std::mem::replace(&mut open, young), &mut findings);
            if told.elapsed() > TELL {
                told = Instant::now();
                println!("{}", self.line(started.elapsed()));
            }
            let done = stopped.is_some_and(|at| at.elapsed() > Duration::from_secs(1));
            if done && open.is_empty() {
                self.end.store(true, Ordering::Relaxed);
                return findings;
            }
        }
    }

    fn judge_all(&self, old: BTreeMap<(u64, usize, u64), Option<u64>>, findings: &mut Findings) {
        let mut checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
        for ((sent_ns, flow, number), received_ns) in old {
            if let Some(finding) = checker.judge(Packet { flow, number, sent_ns, received_ns }) {
                findings.add(&checker, finding, &self.evidence);
            }
        }
    }

    /// Reads counters until the end.
    fn sample(&self, holders: &[(String, u32)]) -> Result<()> {
        let mut before: BTreeMap<(String, String), u64> = BTreeMap::new();
        let (mut from_ns, mut first) = (crate::wait::monotonic_ns(), true);
        while trouble::wait(SAMPLE, &self.end) {
            let to_ns = crate::wait::monotonic_ns();
            let mut now = BTreeMap::new();
            for (at, (name, holder)) in holders.iter().enumerate() {
                let mut note =
                    |reason: &str, count: u64| now.insert((name.clone(), reason.to_owned()), count);
                note("socket_buffer", watch::overflows(*holder));
                note("device_queue", watch::device_drops(*holder));
                if at <= self.cast.transit() {
                    for (reason, count) in watch::drops(*holder)? {
                        note(reason, count);
                    }
                }
            }
            for ((machine, reason), count) in now {
                let key = (machine, reason);
                let old = before.insert(key.clone(), count).unwrap_or_default();
                let packets = count.saturating_sub(old);
                if packets > 0 && !first {
                    self.admit(Excuse { reason: key.1.clone(), from_ns, to_ns, packets });
                    self.evidence.dropped(to_ns, &key.0, &key.1, packets);
                }
            }
            (from_ns, first) = (to_ns, false);
        }
        Ok(())
    }

    /// Only what a full table, queue or buffer costs is an excuse.
    fn admit(&self, excuse: Excuse) {
        if ["flow_table_full", "socket_buffer", "device_queue"].contains(&excuse.reason.as_str()) {
            self.checker.lock().unwrap_or_else(PoisonError::into_inner).excuse(excuse);
        }
    }

    fn line(&self, elapsed: Duration) -> String {
        let checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = &checker.tally;
        format!(
            "{} s: {} revisions, {} agents and {} gateways killed, {} packets, wrongly allowed {}, wrongly dropped {}",
            elapsed.as_secs(),
            self.changes.revisions.load(Ordering::Relaxed),
            self.counts.agents.load(Ordering::Relaxed),
            self.counts.gateways.load(Ordering::Relaxed),
            tally.packets,
            tally.wrongly_allowed,
            tally.wrongly_dropped
        )
    }

    fn summary(&self, stage: &Stage, shared: &Shared, findings: Findings, took: Duration) -> Summary {
        let number = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        let checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
        Summary {
            seed: self.options.seed,
            seconds: took.as_secs(),
            flows: self.lanes.len(),
            revisions: number(&self.changes.revisions),
            policies: number(&self.changes.policies),
            endpoints: number(&self.changes.endpoints),
            generations: revisions.generations(),
            acknowledged: checker.acknowledgements(),
            agents_killed: number(&self.counts.agents),
            gateways_restarted: number(&self.counts.gateways),
            connections_cut: number(&stage.line.cuts),
            flood: number(&self.counts.flood),
            answered: number(&self.counts.answered),
            streams_doubled: number(&self.counts.doubles),
            bulks: number(&self.changes.bulks),
            refusals: revisions.refusals(),
            established: stage.established(),
            unsent: number(&shared.unsent),
            streams_broken: number(&shared.broken),
            tally: checker.tally.clone(),
            findings,
        }
    }
}
