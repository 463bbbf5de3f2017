//! From a word to the kernel, with a real gateway: how long until a host that joins reaches a pod, and until an edit of
//! a policy is what every kernel decides by.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};

use super::super::Measurement;
use super::super::statistics::Median;
use super::ms;
use crate::agent::Agent;
use crate::cluster::{Cluster, Member, allow_ingress};
use crate::node::Pod;
use crate::wait::monotonic_ns;

/// Milliseconds from the word `join` to an answer of a pod, and from the manifest to the last kernel.
const JOIN: f64 = 2000.0;
const EDIT: f64 = 250.0;
/// Hosts that an edit has to reach.
const HOSTS: usize = 4;
/// A port that nobody listens at: what comes back is the pod's refusal.
const CLOSED: u16 = 9;
const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn measure(edits: usize) -> Result<Vec<Measurement>> {
    let cluster = Cluster::try_new()?;
    cluster.group("db")?;
    let pod = cluster.pod("web", 2)?;
    cluster.settle()?;
    let mut members = Vec::new();
    let mut joins = Vec::new();
    for number in 0..HOSTS {
        let (member, time) = join(&cluster, &pod, number)?;
        members.push(member);
        joins.push(ms(time));
    }
    cluster.settle()?;
    let mut times = Vec::new();
    for number in 0..edits {
        times.push(edit(&cluster, &members, number)?);
    }
    let row = |name: &str, median: Median, limit| {
        Measurement::at_most(name, median.value, "ms", limit).within([median.low, median.high])
    };
    let worst = times.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        row("join to the first answer of a pod", Median::of(&joins), JOIN),
        row(&format!("edit of a policy to {HOSTS} kernels"), Median::of(&times), EDIT),
        Measurement::known(&format!("edit of a policy to {HOSTS} kernels, longest"), worst, "ms"),
    ])
}

/// Lets a host join; returns how long it took until a pod answered it.
fn join(cluster: &Cluster, pod: &Pod, number: usize) -> Result<(Member, Duration)> {
    let host = cluster.net.host(&format!("db-{number}"))?;
    let agent = Agent::start(&host)?;
    let token = cluster.gateway.token("shop/db", &[])?;
    let began = Instant::now();
    let answered = std::thread::scope(|scope| {
        let answer = scope
            .spawn(|| host.namespace().inside(|| first_answer(SocketAddr::new(pod.v4().into(), CLOSED))));
        agent.join(&token.text)?;
        answer.join().ok().context("the caller panicked")?
    })?;
    agent.wait_enforcing()?;
    Ok((Member { agent, host }, answered.saturating_duration_since(began)))
}

/// Calls until somebody answers.
fn first_answer(to: SocketAddr) -> Result<Instant> {
    let until = Instant::now() + LIMIT;
    while Instant::now() < until {
        match TcpStream::connect_timeout(&to, Duration::from_millis(50)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(Instant::now()),
            Ok(_) => return Ok(Instant::now()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    anyhow::bail!("nobody answered at {to}")
}

/// Saves a policy; returns how long it took until every kernel decided by it.
fn edit(cluster: &Cluster, members: &[Member], number: usize) -> Result<f64> {
    let words: Vec<Word> = members.iter().map(Word::of).collect::<Result<_>>()?;
    let before: Vec<u32> = words.iter().map(Word::read).collect::<Result<_>>()?;
    let port = 5432 + u16::try_from(number % 2)?;
    let saved = cluster.gateway.apply("policy.yaml", &allow_ingress("db", "db", &["web"], Some(port)))?;
    let until = Instant::now() + LIMIT;
    while words.iter().zip(&before).any(|(word, before)| word.read().is_ok_and(|now| now == *before)) {
        anyhow::ensure!(Instant::now() < until, "the edit did not reach every kernel");
        std::thread::sleep(Duration::from_micros(200));
    }
    let reached = monotonic_ns().saturating_sub(saved);
    cluster.settle()?;
    Ok(super::super::float(reached) / 1e6)
}

/// The control word of a host.
struct Word(Array<MapData, u32>);

impl Word {
    fn of(member: &Member) -> Result<Self> {
        let holder = member.host.namespace().holder();
        let path = format!("/proc/{holder}/root/sys/fs/bpf/outrigger/default/stable/CONTROL");
        let data = MapData::from_pin(&path).with_context(|| format!("cannot open {path}"))?;
        Ok(Self(Array::try_from(Map::Array(data))?))
    }

    fn read(&self) -> Result<u32> {
        Ok(self.0.get(&0, 0)?)
    }
}
