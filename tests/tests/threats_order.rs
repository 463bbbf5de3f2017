//! Threats in the order of events: what comes late, twice or in another order. Rows 2 and 6 of the catalogue in
//! `docs/security.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use datapath::abi::Bank;
use e2e::compiler::{self, Compiler};
use gateway::index::{Compiled, LONGEST_PHASE};
use policy::state::Policy;
use prost::Message as _;
use proto::v1;
use vm_agent::kernel::{Applied, Tag};
use vm_agent::session::{Core, Outcome, Version};

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    (0..count).fold(vec![Vec::new()], |all, next| {
        let longer = |order: Vec<usize>| {
            (0..=order.len()).map(move |at| {
                let mut order = order.clone();
                order.insert(at, next);
                order
            })
        };
        all.into_iter().flat_map(longer).collect()
    })
}

/// One thing that happens to a mesh.
type Event = Box<dyn Fn(&mut Compiler) -> Result<()>>;

/// What happens: the second group comes after the first, which it changes; everything else in any order.
fn events() -> Vec<Event> {
    let put = |yaml: String| -> Event { Box::new(move |index| index.put(&yaml)) };
    vec![
        put(compiler::group("db", "{app: old}")),
        put(compiler::group("db", "{app: db}")),
        put("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: blue}}}".to_owned()),
        put(compiler::pod("a", "{app: web}", "n1", "10.1.0.1")),
        put("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, \
             spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}, \
             namespaceSelector: {matchLabels: {team: blue}}}]}]}}"
            .to_owned()),
        Box::new(|index| index.join("db-1", Some("db"), "10.9.0.1", "192.0.2.1")),
        Box::new(|index| index.join("n1", None, "10.9.0.2", "192.0.2.2")),
    ]
}

/// What the kernels of a compiled mesh are given of policy.
fn lowered(compiled: &Compiled) -> Vec<impl PartialEq + std::fmt::Debug> {
    let maps = |policy: &Arc<Policy>| {
        let lowered = policy::lower(policy);
        let defaults = [lowered.ingress.action, lowered.egress.action];
        let classes: BTreeMap<_, _> = lowered.classes(Bank::A).collect();
        (defaults, classes, lowered.policy(Bank::A).collect::<BTreeMap<_, _>>())
    };
    compiled.state.policies.values().map(maps).collect()
}

/// The state that an order of events ends in, with every step published and every relabel over.
fn outcome(
    order: &[usize],
    numbers: &Arc<BTreeMap<policy::labels::Labels, policy::identity::Identity>>,
) -> Result<Compiled> {
    let mut index = Compiler::try_new()?;
    index.numbers.clone_from(numbers);
    let events = events();
    for event in order {
        events.get(*event).context("an event")?(&mut index)?;
        index.publish()?;
    }
    for _ in 0..2 {
        index.silence(LONGEST_PHASE);
        index.publish()?;
    }
    index.compile()
}

#[test]
fn threat_02_any_order_of_events_ends_in_the_same_tables() -> Result<()> {
    let numbers = {
        let mut index = Compiler::try_new()?;
        for event in events() {
            event(&mut index)?;
        }
        index.compile()?;
        index.numbers
    };
    let first = outcome(&[0, 1, 2, 3, 4, 5, 6], &numbers)?;
    ensure!(first.state.endpoints.len() == 3 && first.nodes.len() == 2, "{first:#?}");
    let in_force = first.state.policies.values().any(|policy| !policy.ingress.rules.is_empty());
    ensure!(in_force, "the policy selects nobody: {first:#?}");
    let place = |order: &[usize], event| order.iter().position(|other| *other == event);
    let mut compared = 0;
    for order in orders(7).into_iter().filter(|order| place(order, 0) < place(order, 1)) {
        let other = outcome(&order, &numbers)?;
        ensure!(other.state == first.state, "{order:?}: {:#?}\nand not {:#?}", other.state, first.state);
        ensure!(other.nodes == first.nodes, "{order:?}: {:#?}\nand not {:#?}", other.nodes, first.nodes);
        ensure!(lowered(&other) == lowered(&first), "{order:?}: other tables");
        compared += 1;
    }
    ensure!(compared == 2520, "{compared} orders");
    Ok(())
}

/// The identity of the endpoint 10.0.0.1 in each generation; it is deleted in the second and added anew in the third.
const HISTORY: [Option<u32>; 3] = [Some(257), None, Some(258)];

fn generation(counter: u64) -> v1::Generation {
    v1::Generation { incarnation: 1, counter, origin: 0 }
}

fn endpoint(identity: u32) -> v1::Endpoint {
    v1::Endpoint {
        address: vec![10, 0, 0, 1],
        identity,
        previous: 0,
        mark: identity,
        tunnels: vec![vec![192, 0, 2, 1]],
        kind: Some(v1::endpoint::Kind::Workload(v1::WorkloadKind {})),
    }
}

/// The step to a generation (from 1), from the one before or from nothing.
fn update(to: usize, snapshot: bool) -> v1::GatewayMessage {
    let identity = HISTORY.get(to - 1).copied().flatten();
    let direction = || {
        let default = v1::direction_policy::Default::Deny(v1::DenyDefault { by: Vec::new() });
        Some(v1::DirectionPolicy { default: Some(default), rules: Vec::new() })
    };
    let settings = v1::Settings {
        workload: "shop/db".to_owned(),
        identity: 300,
        mark: 300,
        addresses: vec![vec![10, 0, 0, 250]],
        role: v1::Role::Host.into(),
        mode: v1::Mode::Enforce.into(),
        tunnel_port: 8479,
        ..v1::Settings::default()
    };
    let set = v1::ResourceSet {
        endpoints: identity.map(endpoint).into_iter().collect(),
        removed_endpoints: if identity.is_none() && !snapshot { vec![vec![10, 0, 0, 1]] } else { Vec::new() },
        policy: snapshot.then(|| v1::Policy { ingress: direction(), egress: direction() }),
        settings: snapshot.then_some(settings),
        ..v1::ResourceSet::default()
    };
    let counter = u64::try_from(to).unwrap_or_default();
    let update = v1::Update {
        generation: Some(generation(counter)),
        base: (!snapshot).then(|| generation(counter - 1)),
        last: true,
        continues: false,
        parts: vec![set.encode_to_vec().into()],
    };
    v1::GatewayMessage { message: Some(v1::gateway_message::Message::Update(update)) }
}

/// A kernel that takes what it is given, at once or when it is asked to.
struct Host {
    core: Core,
    target: Option<Version>,
    runs: Option<Tag>,
}

impl Host {
    fn receive(&mut self, message: v1::GatewayMessage) {
        for outcome in self.core.receive(message) {
            if let Outcome::Target(version) = outcome {
                self.target = Some(version);
            }
        }
    }

    /// The kernel runs the newest target, which never goes back and is a state that the gateway had.
    fn apply(&mut self) -> Result<()> {
        let Some(target) = self.target.take() else { return Ok(()) };
        ensure!(
            self.runs.is_none_or(|runs| runs.counter <= target.tag.counter),
            "{:?} after {:?}",
            target.tag,
            self.runs
        );
        self.runs = Some(target.tag);
        let alive = target.state.endpoints.get(&"10.0.0.1".parse::<std::net::IpAddr>()?);
        let alive = alive.map(|endpoint| endpoint.identity.get());
        let at = usize::try_from(target.tag.counter)? - 1;
        ensure!(HISTORY.get(at) == Some(&alive), "generation {} with {alive:?}", target.tag.counter);
        for outcome in self.core.answer(&Applied { tag: self.runs, epoch: 1, ..Applied::default() }) {
            if let Outcome::Target(version) = outcome {
                self.target = Some(version);
            }
        }
        Ok(())
    }
}

#[test]
fn threat_06_a_late_or_doubled_deletion_removes_nothing_that_is_alive() -> Result<()> {
    // The addition, the deletion and the second addition, each twice, and the last state whole.
    let messages = [
        update(1, true),
        update(2, false),
        update(3, false),
        update(1, true),
        update(2, false),
        update(3, false),
        update(3, true),
    ];
    let mut ends = BTreeSet::new();
    for order in orders(messages.len()) {
        for lag in [false, true] {
            let mut host = Host { core: Core::default(), target: None, runs: None };
            for (step, message) in order.iter().enumerate() {
                host.receive(messages.get(*message).context("a message")?.clone());
                if !lag || step % 3 == 2 {
                    host.apply().with_context(|| format!("{order:?}"))?;
                }
            }
            host.apply().with_context(|| format!("{order:?}"))?;
            ends.insert(host.runs.map(|tag| tag.counter));
        }
    }
    ensure!(ends == BTreeSet::from([Some(3)]), "orders end in the generations {ends:?}");
    Ok(())
}
