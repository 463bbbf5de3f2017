//! Compiling the policies of a large cluster: all of it, and what one change takes; and what many peers on many ports
//! become in the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use datapath::abi::Bank;
use datapath::model::Model;
use policy::facts::{Facts, Pod, Workload};
use policy::identity::Identity;
use policy::labels::Labels;
use policy::lower::Lowered;
use policy::resolve::{Resolver, identity_labels};
use policy::rules::{PolicyObject, precedence};
use policy::state::{
    Default as Fallback, DirectionPolicy, Peers, Policy, PortRange, Ports, Rule, RuleAction,
};
use serde_json::{Value, json};

use super::statistics::Median;
use super::{Measurement, float, usage};
use crate::prog_test::kernel::Kernel;

/// Targets, in milliseconds and megabytes (10⁶ bytes).
const FULL: f64 = 2000.0;
const CHANGE: f64 = 10.0;
const COMPILED: f64 = 200.0;
const KERNEL: f64 = 10.0;

const IDENTITIES: u32 = 10_000;
const PODS: u32 = 20_000;
const POLICIES: u32 = 1_000;
const GROUPS: u32 = 100;
const HOSTS: u32 = 1_000;
const NAMESPACES: u32 = 50;
const TCP: u8 = 6;

pub(super) fn measure(quick: bool) -> Result<Vec<Measurement>> {
    let changes = if quick { 10 } else { 50 };
    let mut facts = facts()?;
    let identities: Arc<BTreeMap<Labels, Identity>> = identity_labels(&facts)
        .into_iter()
        .zip(Identity::FIRST_ALLOCATED..)
        .map(|(labels, number)| Ok((labels, Identity::try_new(number)?)))
        .collect::<Result<_>>()
        .map(Arc::new)?;
    let before = usage::memory(std::process::id())?.anonymous;
    let began = Instant::now();
    let mut resolver = Resolver::default();
    let mut state = resolver.resolve(&facts, &identities)?.state;
    let full = began.elapsed();
    let compiled = usage::memory(std::process::id())?.anonymous.saturating_sub(before);
    let name = format!("policy, {} identities, {POLICIES} policies, {PODS} pods", state.identities.len());
    let mut rows = vec![
        Measurement::at_most(&format!("{name}: full compile"), ms(full), "ms", FULL),
        Measurement::at_most(
            &format!("{name}: memory of what is compiled"),
            float(compiled) / 1e6,
            "MB",
            COMPILED,
        ),
    ];
    let mut timed = |what: &str, change: fn(u32, &mut Facts) -> Result<()>| -> Result<()> {
        let mut times = Vec::new();
        for number in 0..changes {
            let began = Instant::now();
            change(number, &mut facts)?;
            state = resolver.resolve(&facts, &identities)?.state;
            times.push(ms(began.elapsed()));
        }
        let median = Median::of(&times);
        let row = Measurement::at_most(&format!("{name}: {what}"), median.value, "ms", CHANGE);
        rows.push(row.within([median.low, median.high]));
        Ok(())
    };
    timed("one pod relabelled", |number, facts| {
        let (name, _) = pod(number * 37 % PODS);
        let (_, like) = pod((number * 37 + 7 * NAMESPACES) % PODS);
        let known = facts.pods.get_mut(&name).context("a pod")?;
        let pod = Pod { labels: like.labels, ..Pod::clone(known) };
        *known = Arc::new(pod);
        Ok(())
    })?;
    timed("one policy edited", |number, facts| {
        let object = policy::networkpolicy::parse(&manifest(number * 13 % POLICIES, 9000 + number))?;
        facts.policies.insert(Arc::clone(&object.origin), Arc::new(object));
        Ok(())
    })?;
    drop(state);
    rows.extend(many_ports()?);
    Ok(rows)
}

/// Half of the label sets in use have two pods each, the others more or one.
fn facts() -> Result<Facts> {
    let policies: Vec<PolicyObject> = (0..POLICIES)
        .map(|number| Ok(policy::networkpolicy::parse(&manifest(number, 5432))?))
        .collect::<Result<_>>()?;
    Ok(Facts {
        cluster: "default".to_owned(),
        pods: (0..PODS).map(pod).map(|(name, pod)| (name, Arc::new(pod))).collect(),
        workloads: (0..HOSTS).map(host).collect(),
        policies: policies.into_iter().map(|policy| (Arc::clone(&policy.origin), Arc::new(policy))).collect(),
        ..Facts::default()
    })
}

fn pod(number: u32) -> (Arc<str>, Pod) {
    let app = number % IDENTITIES;
    let namespace = format!("team-{}", app % NAMESPACES);
    let labels = [("app", format!("service-{app}")), ("tier", format!("tier-{}", app % 20))];
    let pod = Pod {
        namespace: namespace.clone(),
        labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        addresses: vec![IpAddr::V4(Ipv4Addr::from(0x0a40_0001 + number))],
        ..Pod::default()
    };
    (format!("{namespace}/service-{app}-{number}").into(), pod)
}

fn host(number: u32) -> (Arc<str>, Arc<Workload>) {
    let group = number % GROUPS;
    let namespace = format!("team-{}", group % NAMESPACES);
    let workload = Workload {
        namespace: namespace.clone(),
        labels: BTreeMap::from([("db".to_owned(), format!("db-{group}"))]),
        addresses: vec![IpAddr::V4(Ipv4Addr::from(0x0ac0_0001 + number))],
        ..Workload::default()
    };
    (format!("{namespace}/db-{number}").into(), Arc::new(workload))
}

/// Ten policies for each group of hosts: some services of the namespace, a tier of another one, and a block.
fn manifest(number: u32, port: u32) -> Value {
    let group = number % GROUPS;
    let app =
        |step: u32| format!("service-{}", (number * 7 + step * NAMESPACES + group % NAMESPACES) % IDENTITIES);
    let other = format!("team-{}", (group + number / GROUPS) % NAMESPACES);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("p-{number}"), "namespace": format!("team-{}", group % NAMESPACES)},
        "spec": {
            "podSelector": {"matchLabels": {"db": format!("db-{group}")}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [
                        {"podSelector": {"matchExpressions": [
                            {"key": "app", "operator": "In", "values": [app(0), app(1), app(2)]}]}},
                        {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}},
                    ],
                    "ports": [{"port": port}],
                },
                {
                    "from": [{
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": other}},
                        "podSelector": {"matchLabels": {"tier": format!("tier-{}", number % 20)}},
                    }],
                    "ports": [{"port": 8080, "endPort": 8090}],
                },
            ],
            "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}]}],
        },
    })
}

/// What a workload with many peers on many ports has in its maps, and how much of that one relabelled peer changes.
fn many_ports() -> Result<Vec<Measurement>> {
    let entries = |identities: BTreeSet<Identity>| {
        let range = |number: u16| PortRange { protocol: TCP, first: 2 * number, last: 2 * number };
        let rule = Rule {
            origin: "NetworkPolicy/shop/db#ingress[0]".into(),
            peers: Peers::Only { identities: Arc::new(identities), blocks: Vec::new() },
            ports: Ports::Only((1..=50).map(range).collect()),
            action: RuleAction::Allow,
            precedence: precedence::NETWORK_POLICY,
        };
        let default = Fallback::Deny { by: vec!["NetworkPolicy/shop/db".to_owned()] };
        let ingress = DirectionPolicy { default, rules: vec![rule] };
        policy::lower(&Policy { ingress, ..Policy::unrestricted() })
    };
    let of_bank = |lowered: &Lowered| -> (BTreeSet<_>, BTreeSet<_>) {
        (lowered.classes(Bank::A).collect(), lowered.policy(Bank::A).collect())
    };
    let identities = (0..IDENTITIES).map(|number| Identity::try_new(Identity::FIRST_ALLOCATED + number));
    let all: BTreeSet<Identity> = identities.collect::<Result<_, _>>()?;
    let mut without = all.clone();
    without.pop_last();
    let lowered = entries(all);
    let (classes, ports) = of_bank(&lowered);
    let (fewer_classes, same_ports) = of_bank(&entries(without));
    let changed = classes.symmetric_difference(&fewer_classes).count()
        + ports.symmetric_difference(&same_ports).count();
    let count = |number: usize| u64::try_from(number).map(float);
    let name = format!("policy, a workload with {IDENTITIES} peers on 50 ports");
    Ok(vec![
        Measurement::known(
            &format!("{name}: entries of a bank"),
            count(classes.len() + ports.len())?,
            "entries",
        ),
        Measurement::at_most(
            &format!("{name}: entries of a bank that one relabelled peer changes"),
            count(changed)?,
            "entries",
            1.0,
        ),
        Measurement::at_most(
            &format!("{name}: kernel memory of both banks"),
            float(kernel_memory(&lowered)?) / 1e6,
            "MB",
            KERNEL,
        ),
    ])
}

/// What the maps of a policy take in the kernel, in bytes, at the size that agents load them with.
fn kernel_memory(lowered: &Lowered) -> Result<u64> {
    let mut model = Model::default();
    for bank in [Bank::A, Bank::B] {
        model.classes.extend(lowered.classes(bank));
        model.policy.extend(lowered.policy(bank));
    }
    let mut kernel = Kernel::load()?;
    kernel.write_tables(&model)?;
    Ok(kernel.memory("CLASSES")? + kernel.memory("POLICY")?)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
