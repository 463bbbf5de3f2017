//! Cases through the real datapath: one cluster for all of them, with a gateway, a transit node, six pods and three hosts.
//! Only the hosts are governed, so flows between pods are left to the model. A flow counts as denied when nothing of it
//! arrived although the agents counted as many refusals by policy as there are denied flows.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use gateway::manifest::{manifests, node};
use serde_json::json;

mod packets;

use super::case::{Case, Feature};
use super::cast::{Actor, Addresses, MEMBERS, PORTS, Scene, WORKLOADS};
use super::model::Judge;
use super::probes;
use super::report::{Outcome, Report};
use super::table::Probe;
use crate::cluster::{Cluster, Member};
use crate::json;
use crate::namespace::Namespace;
use crate::net::Underlay;
use crate::node::Pod;
use crate::wait::{wait_for, wait_ok};
use packets::{Flow, Ground};

/// How long verdicts may take to show.
const PATIENCE: Duration = Duration::from_secs(5);
/// The one file with all manifests, so that a case takes effect as a whole.
const FILE: &str = "case.yaml";

/// The stage.
#[derive(Debug)]
pub struct Stage {
    hosts: Vec<(Actor, Member)>,
    pods: Vec<(Actor, Pod)>,
    addresses: Addresses,
    ground: Ground,
    steps: u32,
    cluster: Cluster,
}

impl Stage {
    /// Builds it; everybody serves on the usual ports and these.
    pub fn try_new(more: &BTreeSet<u16>) -> Result<Self> {
        let cluster = Cluster::try_with(Underlay::Dual, "")?;
        let is_host = |number: &usize| WORKLOADS.contains(number);
        let mut pods = Vec::new();
        for (number, index) in (0..MEMBERS).filter(|number| !is_host(number)).zip(2..) {
            let actor = Actor::Member(number);
            pods.push((actor, cluster.node.pod(&title(actor), index)?));
        }
        let known = pods.iter().map(|(actor, pod)| (*actor, pod.addresses()));
        let world = Addresses::of_model().both(Actor::World).map(|both| (Actor::World, both));
        let mut stage = Self {
            addresses: Addresses::new(known.chain(world)),
            hosts: Vec::new(),
            pods,
            ground: Ground::default(),
            steps: 0,
            cluster,
        };
        stage.publish(&Scene::new(stage.addresses.clone()))?;
        for number in WORKLOADS {
            stage.join(Actor::Member(number))?;
        }
        let everybody: Vec<Actor> = (0..MEMBERS).map(Actor::Member).collect();
        let ports = PORTS.into_iter().chain(more.iter().copied()).collect();
        for actor in everybody {
            let namespace = stage.namespace(actor).context("a member without a machine")?;
            stage.ground.serve(namespace, &ports)?;
        }
        Ok(stage)
    }

    fn join(&mut self, actor: Actor) -> Result<()> {
        let (namespace, name) = actor.name().context("no member")?;
        let host = self.cluster.net.host(&title(actor))?;
        let agent = crate::agent::Agent::start(&host)?;
        let token =
            wait_ok("a token", PATIENCE, || self.cluster.gateway.token(&format!("{namespace}/{name}"), &[]))?;
        agent.join(&token.text)?;
        agent.wait_enforcing()?;
        self.addresses.put(actor, agent.addresses()?);
        self.hosts.push((actor, Member { agent, host }));
        Ok(())
    }

    fn namespace(&self, actor: Actor) -> Option<&Namespace> {
        let hosts = self.hosts.iter().map(|(actor, member)| (actor, member.host.namespace()));
        let mut all = hosts.chain(self.pods.iter().map(|(actor, pod)| (actor, pod.namespace())));
        all.find(|(found, _)| **found == actor).map(|(_, namespace)| namespace)
    }

    /// Saves all manifests at once, and waits until what they came to is in force everywhere. A pod that nobody is makes
    /// every state another.
    fn publish(&mut self, scene: &Scene) -> Result<()> {
        self.steps += 1;
        let [_, _, high, low] = self.steps.to_be_bytes();
        let marker = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "marker", "name": "marker"},
            "spec": {"nodeName": "node-1"}, "status": {"podIPs": [{"ip": format!("10.100.{}.{low}", 128 + high)}]},
        });
        let mut documents = scene.manifests();
        documents.push(marker.to_string());
        let before = json::number(&self.cluster.gateway.status()?, "generation");
        self.cluster.gateway.apply(FILE, &documents.join("\n---\n"))?;
        self.cluster
            .gateway
            .wait_status("a new generation", |status| json::number(status, "generation") > before)?;
        self.cluster.settle()
    }

    /// Plays one case.
    pub fn play(&mut self, case: &Case) -> Outcome {
        let mut outcome = Outcome::default();
        if let Err(error) = self.try_play(case, &mut outcome) {
            outcome.failures.push(format!("{error:#}"));
        }
        outcome
    }

    fn try_play(&mut self, case: &Case, outcome: &mut Outcome) -> Result<()> {
        let mut scene = Scene::new(self.addresses.clone());
        let mut judge = Judge::new(Addresses::of_model());
        let mut double = Scene::new(Addresses::of_model());
        if refuses(case, &scene)? {
            // Names recur, and the last valid version of a refused object would stay in force.
            self.publish(&scene)?;
        }
        for (index, step) in case.steps.iter().enumerate() {
            scene.apply(step);
            double.apply(step);
            judge.take(&double)?;
            self.publish(&scene)?;
            let mut flows = Vec::new();
            for probe in probes(case).filter(concerns_a_host) {
                flows.push((probe, judge.judge(&probe)?.allowed_live(&probe)));
            }
            outcome.probes += u64::try_from(flows.len())?;
            let failures = self.try_flows(&flows)?;
            outcome.failures.extend(failures.into_iter().map(|failure| format!("step {index}: {failure}")));
        }
        Ok(())
    }

    /// Opens all flows at once; what is said of each has to come true.
    fn try_flows(&mut self, probes: &[(Probe, bool)]) -> Result<Vec<String>> {
        let before = self.refusals()?;
        let mut flows: Vec<(Flow, bool)> = Vec::new();
        for (probe, is_allowed) in probes {
            let ends = [probe.from, probe.to].map(|actor| self.addresses.of(actor, probe.is_v6));
            let [Some(from), Some(to)] = ends else { anyhow::bail!("{probe}: no address") };
            flows.push((self.ground.flow(*probe, from, to), *is_allowed));
        }
        let mut open = Vec::new();
        for actor in (0..MEMBERS).map(Actor::Member) {
            let own: Vec<&Flow> =
                flows.iter().map(|(flow, _)| flow).filter(|flow| flow.probe.from == actor).collect();
            let namespace = self.namespace(actor).context("a member without a machine")?;
            open.push(namespace.inside(|| packets::open(&own))?);
        }
        let denied = u64::try_from(flows.iter().filter(|(_, is_allowed)| !is_allowed).count())?;
        let arrived =
            || flows.iter().filter(|(_, is_allowed)| *is_allowed).all(|(flow, _)| self.ground.arrived(flow));
        // Whether it comes true is judged below, flow by flow.
        let _in_time = wait_for("what is allowed", PATIENCE, arrived);
        let refused = || self.refusals().is_ok_and(|now| now >= before + denied);
        let is_refused = wait_for("what is denied", PATIENCE, refused).is_ok();
        let mut failures = Vec::new();
        for (flow, is_allowed) in &flows {
            if self.ground.arrived(flow) != *is_allowed {
                failures.push(format!("{}: allowed should be {is_allowed}", flow.probe));
            }
        }
        if !is_refused && failures.is_empty() {
            failures.push(format!("{} of {denied} refusals were counted", self.refusals()? - before));
        }
        Ok(failures)
    }

    /// What policy refused on all hosts, in both directions.
    fn refusals(&self) -> Result<u64> {
        self.hosts.iter().map(|(_, member)| member.counted("policy_denied")).sum()
    }
}

/// Plays all cases.
pub fn play(features: &[Feature], report: &mut Report) -> Result<()> {
    let probes = features.iter().flat_map(|feature| &feature.cases).flat_map(|case| &case.probes);
    let ports = probes.filter(|kind| !matches!(kind.protocol, 1 | 58)).map(|kind| kind.port).collect();
    let mut stage = Stage::try_new(&ports)?;
    for feature in features {
        for case in &feature.cases {
            report.add_live(&feature.name, &case.name, stage.play(case));
        }
    }
    Ok(())
}

/// Pods are nobody's to govern here, and what nobody has is not reached.
fn concerns_a_host(probe: &Probe) -> bool {
    let is_member = |actor| matches!(actor, Actor::Member(_));
    let is_host = |actor| matches!(actor, Actor::Member(number) if WORKLOADS.contains(&number));
    is_member(probe.from) && is_member(probe.to) && (is_host(probe.from) || is_host(probe.to))
}

/// Whether any object of the case is refused.
fn refuses(case: &Case, scene: &Scene) -> Result<bool> {
    let mut scene = scene.clone();
    for step in &case.steps {
        scene.apply(step);
        for text in scene.manifests() {
            if node::parse(&text)?.into_iter().flat_map(manifests).any(|manifest| manifest.object.is_err()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A name for a machine.
fn title(actor: Actor) -> String {
    actor.to_string().replace('/', "-")
}
