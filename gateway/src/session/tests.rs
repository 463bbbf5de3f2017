//! Law 2 of the sessions: whatever the history, an agent that applies what it gets has the state, and knows nothing
//! that it may not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use policy::identity::Identity;
use policy::labels::{Labels, NAMESPACE};
use policy::pages::Pages;
use policy::state::{
    Default, DirectionPolicy, Endpoint, EndpointKind, Mode, NodeSettings, Peers, Policy, Ports, Role, Rule,
    RuleAction, State,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proto::node::Node;
use proto::v1::{Generation, Hello, Update};

use super::*;
use crate::index::Compiled;
use crate::store::WorkloadName;

const INCARNATION: u64 = 7;

/// A state as its few variable parts: small numbers, so that histories collide.
#[derive(Clone, Debug)]
struct Sketch {
    /// Address → identity and owner.
    endpoints: BTreeMap<u8, (u8, u8)>,
    /// Workload → identity.
    workloads: BTreeMap<u8, u8>,
    /// Identity → identities that its policy mentions.
    policies: BTreeMap<u8, BTreeSet<u8>>,
    /// Identity → namespace.
    namespaces: BTreeMap<u8, u8>,
}

/// What happens between two looks at the agents.
#[derive(Clone, Debug)]
enum Happening {
    Publish(Sketch),
    /// The agent of this workload is sent what is due.
    Send(u8),
    /// It confirms what it received.
    Acknowledge(u8),
    /// It refuses what it received.
    Refuse(u8),
    /// It connects anew, with the state it has.
    Reconnect(u8),
    /// It loses its state and connects anew.
    Forget(u8),
    /// The gateway restarts: the log is gone, the numbers jump.
    Restart,
}

const IDENTITIES: std::ops::Range<u8> = 0..5;
const WORKLOADS: std::ops::Range<u8> = 0..3;

fn sketch() -> impl Strategy<Value = Sketch> {
    (
        btree_map(0..6_u8, (IDENTITIES, 0..4_u8), 0..6),
        btree_map(WORKLOADS, IDENTITIES, 1..4),
        btree_map(IDENTITIES, btree_set(IDENTITIES, 0..3), 0..4),
        btree_map(IDENTITIES, 0..2_u8, 0..5),
    )
        .prop_map(|(endpoints, workloads, policies, namespaces)| Sketch {
            endpoints,
            workloads,
            policies,
            namespaces,
        })
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => sketch().prop_map(Happening::Publish),
        6 => WORKLOADS.prop_map(Happening::Send),
        5 => WORKLOADS.prop_map(Happening::Acknowledge),
        1 => WORKLOADS.prop_map(Happening::Refuse),
        2 => WORKLOADS.prop_map(Happening::Reconnect),
        1 => WORKLOADS.prop_map(Happening::Forget),
        1 => Just(Happening::Restart),
    ]
}

fn identity(number: u8) -> Identity {
    Identity::try_new(256 + u32::from(number)).unwrap()
}

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 0, number).into()
}

fn workload(number: u8) -> WorkloadName {
    format!("ns-0/w-{number}").parse().unwrap()
}

impl Sketch {
    fn compiled(&self) -> Compiled {
        let namespace =
            |number: &u8| format!("ns-{}", self.namespaces.get(number).copied().unwrap_or_default());
        let labels = |number: u8| {
            Labels(BTreeMap::from([
                (NAMESPACE.to_owned(), namespace(&number)),
                ("k8s:app".to_owned(), number.to_string()),
            ]))
        };
        let endpoints = self.endpoints.iter().map(|(at, (of, owner))| {
            let endpoint = Endpoint {
                identity: identity(*of),
                previous: None,
                mark: identity(*of),
                tunnels: Arc::default(),
                kind: EndpointKind::Workload,
                owner: Some(format!("{}/pod-{owner}", namespace(of)).into()),
            };
            (address(*at), Arc::new(endpoint))
        });
        let policies = self.workloads.values().map(|of| (identity(*of), Arc::new(self.policy(*of))));
        let nodes = self.workloads.iter().map(|(number, of)| {
            let settings = NodeSettings {
                workload: workload(*number).to_string(),
                identity: identity(*of),
                mark: identity(*of),
                addresses: vec![Ipv4Addr::new(10, 9, 0, *number).into()],
                prefixes: Vec::new(),
                role: Role::Host,
                mode: Mode::Enforce,
                tunnel_port: 8479,
                rejected: Vec::new(),
                nic: None,
                partly_enforced: Vec::new(),
                probes: Vec::new(),
            };
            (workload(*number), Arc::new(settings))
        });
        Compiled {
            state: State {
                endpoints: endpoints.collect(),
                identities: IDENTITIES.map(|number| (identity(number), Arc::new(labels(number)))).collect(),
                policies: policies.collect(),
                host_policies: BTreeMap::new(),
            },
            nodes: Arc::new(nodes.collect()),
            warnings: BTreeSet::new(),
        }
    }

    fn policy(&self, of: u8) -> Policy {
        let Some(mentioned) = self.policies.get(&of) else { return Policy::unrestricted() };
        let rule = Rule {
            origin: "NetworkPolicy/ns/p#ingress[0]".into(),
            peers: Peers::Only {
                identities: Arc::new(mentioned.iter().copied().map(identity).collect()),
                blocks: Vec::new(),
            },
            ports: Ports::Any,
            action: RuleAction::Allow,
            precedence: policy::rules::precedence::NETWORK_POLICY,
        };
        let ingress = DirectionPolicy { default: Default::Deny { by: vec!["p".into()] }, rules: vec![rule] };
        Policy { ingress, ..Policy::unrestricted() }
    }
}

/// An agent as the protocol sees it.
#[derive(Default)]
struct Agent {
    node: Node,
    applied: Option<Generation>,
    cursor: Option<Cursor>,
    received: Option<Vec<Update>>,
}

struct World {
    feed: Feed,
    counter: u64,
    /// The first number that this process gave.
    started: u64,
    agents: BTreeMap<u8, Agent>,
}

impl World {
    fn new(first: &Sketch) -> Self {
        let generation = Generation { incarnation: INCARNATION, counter: 1, origin: 0 };
        let published = Published::new(generation, Arc::new(first.compiled()), Arc::default(), None);
        let agents = WORKLOADS.map(|number| (number, Agent::default())).collect();
        let mut world = Self { feed: Feed::new(published), counter: 1, started: 1, agents };
        WORKLOADS.for_each(|number| world.reconnect(number));
        world
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Publish(sketch) => {
                self.counter += 1;
                let next = self.published(sketch.compiled(), Some(&self.feed.latest));
                self.feed = self.feed.followed_by(next);
            }
            Happening::Send(number) => self.send(*number),
            Happening::Acknowledge(number) => self.answer(*number, true),
            Happening::Refuse(number) => self.answer(*number, false),
            Happening::Reconnect(number) => self.reconnect(*number),
            Happening::Forget(number) => {
                self.agents.insert(*number, Agent::default());
                self.reconnect(*number);
            }
            Happening::Restart => {
                self.counter += 1000;
                self.started = self.counter;
                let same = Compiled::clone(self.feed.latest.compiled());
                self.feed = Feed::new(self.published(same, None));
                WORKLOADS.for_each(|number| self.reconnect(number));
            }
        }
    }

    fn published(&self, compiled: Compiled, before: Option<&Published>) -> Published {
        let generation = Generation { incarnation: INCARNATION, counter: self.counter, origin: 0 };
        Published::new(generation, Arc::new(compiled), Arc::default(), before)
    }

    fn reconnect(&mut self, number: u8) {
        let agent = self.agents.get_mut(&number).unwrap();
        let digest = if agent.applied.is_some() { agent.node.digest().to_vec() } else { Vec::new() };
        let hello = Hello { applied: agent.applied, digest, ..Hello::default() };
        let is_told = agent.applied.is_some_and(|applied| applied.counter >= self.started);
        let told = if is_told { Told::Here } else { Told::Elsewhere };
        let (cursor, greeting) = Cursor::open(workload(number), &hello, &self.feed, told);
        assert!(!matches!(greeting, Greeting::Behind(_)), "the gateway is never older here");
        agent.cursor = Some(cursor);
        agent.received = None;
    }

    fn send(&mut self, number: u8) {
        let agent = self.agents.get_mut(&number).unwrap();
        match agent.cursor.as_mut().unwrap().next(&self.feed) {
            Step::Wait | Step::Absent => {}
            Step::Behind => panic!("the gateway is never older here"),
            Step::Send(updates) => {
                assert!(agent.received.is_none(), "a second update before the answer to the first");
                agent.received = Some(updates);
            }
        }
    }

    fn answer(&mut self, number: u8, good: bool) {
        let agent = self.agents.get_mut(&number).unwrap();
        let Some(updates) = agent.received.take() else { return };
        let generation = updates[0].generation.unwrap();
        let cursor = agent.cursor.as_mut().unwrap();
        if !good {
            assert!(cursor.refuse(generation));
            return;
        }
        if updates[0].base.is_none() {
            agent.node = Node::default();
        } else {
            assert_eq!(updates[0].base, agent.applied, "a delta that builds on another state");
        }
        let parts: Vec<_> = updates.iter().flat_map(|update| update.parts.iter().cloned()).collect();
        agent.node.apply(&parts).unwrap();
        agent.applied = Some(generation);
        assert!(cursor.acknowledge(generation));
        if generation == self.feed.latest.generation() {
            self.check(number);
        }
    }

    /// The agent has the latest state, and nothing that it may not know.
    fn check(&self, number: u8) {
        let (agent, name) = (&self.agents[&number], workload(number));
        let latest = &self.feed.latest;
        assert_eq!(Some(agent.node.digest()), latest.digest(&name), "workload {name}");
        let compiled = latest.compiled();
        let node = agent.node.state().unwrap();
        assert_eq!(node.settings, *compiled.nodes[&name]);
        assert_eq!(node.policy, compiled.state.policies[&node.settings.identity]);
        let Peers::Only { identities: mentioned, .. } =
            node.policy.ingress.rules.first().map_or(&Peers::Any, |rule| &rule.peers).clone()
        else {
            return self.check_known(&node.endpoints, &BTreeSet::new(), node.settings.identity);
        };
        self.check_known(&node.endpoints, &mentioned, node.settings.identity);
    }

    fn check_known(
        &self,
        endpoints: &Pages<IpAddr, Endpoint>,
        mentioned: &BTreeSet<Identity>,
        own: Identity,
    ) {
        let state = &self.feed.latest.compiled().state;
        assert_eq!(endpoints.keys().collect::<Vec<_>>(), state.endpoints.keys().collect::<Vec<_>>());
        for (address, endpoint) in endpoints.iter() {
            let truth = &state.endpoints[address];
            let namespace = state.identities[&truth.identity].namespace();
            let may_know =
                truth.identity == own || mentioned.contains(&truth.identity) || namespace == Some("ns-0");
            let owner = truth.owner.clone().filter(|_| may_know);
            assert_eq!(*endpoint, Endpoint { owner, ..Endpoint::clone(truth) }, "{address}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_history_ends_in_the_state(first in sketch(), happenings in vec(happening(), 0..60)) {
        let mut world = World::new(&first);
        for happening in &happenings {
            world.happen(happening);
        }
        // A new state, so that a refusal of the last one does not count, and then everybody answers.
        world.happen(&Happening::Publish(first));
        for number in WORKLOADS {
            for _ in 0..3 {
                world.send(number);
                world.answer(number, true);
            }
            if world.feed.latest.audience(&workload(number)).is_some() {
                let applied = world.agents[&number].applied;
                prop_assert_eq!(applied, Some(world.feed.latest.generation()));
                world.check(number);
            }
        }
    }
}

fn everything_to(number: u8) -> Sketch {
    Sketch {
        endpoints: BTreeMap::from([(1, (1, 1)), (2, (2, 2))]),
        workloads: BTreeMap::from([(number, 0), (1, 3)]),
        policies: BTreeMap::new(),
        namespaces: BTreeMap::from([(1, 1), (2, 1), (3, 1)]),
    }
}

fn hello(applied: Option<Generation>, digest: &[u8]) -> Hello {
    Hello { applied, digest: digest.to_vec(), ..Hello::default() }
}

#[test]
fn a_hello_is_answered_by_what_the_agent_knows() {
    let mut world = World::new(&everything_to(0));
    world.happen(&Happening::Publish(everything_to(0)));
    world.send(0);
    world.answer(0, true);
    let digest = world.agents[&0].node.digest();
    let latest = world.feed.latest.generation();
    let open_as = |applied, digest: &[u8], told| {
        let (mut cursor, greeting) = Cursor::open(workload(0), &hello(applied, digest), &world.feed, told);
        let base = match cursor.next(&world.feed) {
            Step::Send(updates) => Some((updates[0].base, updates[0].parts.len())),
            Step::Wait | Step::Behind => None,
            Step::Absent => panic!("absent"),
        };
        (greeting, base)
    };
    let open = |applied, digest: &[u8]| open_as(applied, digest, Told::Here);
    let at = |incarnation, counter| Some(Generation { incarnation, counter, origin: 0 });
    assert_eq!(open(Some(latest), &digest), (Greeting::UpToDate(latest), None));
    let snapshot = (Greeting::Follows, Some((None, 3)));
    assert_eq!(open(None, &[]), snapshot);
    // The number stands for another state there: what follows must have another number.
    assert_eq!(open(Some(latest), b"something else"), (Greeting::Contradicts(latest), None));
    assert_eq!(open(at(INCARNATION + 1, 900), b"something else"), snapshot);
    assert_eq!(open(at(INCARNATION, latest.counter + 1), &digest).0, Greeting::Behind(latest));
    let older = at(INCARNATION, 1);
    assert_eq!(
        open(older, b"unknown"),
        (Greeting::Follows, Some((older, 0))),
        "nothing differs between 1 and 2"
    );
    // Whoever has what this store never published keeps it, whatever its number is, unless it is another store's.
    assert_eq!(open_as(older, b"unknown", Told::Later), (Greeting::Behind(latest), None));
    assert_eq!(open_as(at(INCARNATION + 1, 1), b"unknown", Told::Later), snapshot);
    assert_eq!(open_as(older, b"unknown", Told::Elsewhere), snapshot, "somebody else gave it that number");
    let other = at(INCARNATION + 1, 5);
    assert_eq!(open(other, &digest), (Greeting::Follows, Some((other, 0))), "only the number differs");
}

#[test]
fn what_was_refused_at_first_and_applied_then_is_what_the_next_one_builds_on() {
    let mut world = World::new(&everything_to(0));
    world.send(0);
    let refused = world.agents[&0].received.as_ref().unwrap()[0].generation.unwrap();
    world.answer(0, false);
    let agent = world.agents.get_mut(&0).unwrap();
    let cursor = agent.cursor.as_mut().unwrap();
    assert!(cursor.acknowledge(refused));
    assert!(!cursor.acknowledge(refused));
    assert_eq!(cursor.applied(), Some(refused));
    let mut next = everything_to(0);
    next.endpoints.clear();
    world.happen(&Happening::Publish(next));
    world.send(0);
    assert_eq!(world.agents[&0].received.as_ref().unwrap()[0].base, Some(refused));
}

#[test]
fn a_refused_state_is_not_sent_again_but_the_next_one_is() {
    let mut world = World::new(&everything_to(0));
    world.send(0);
    world.answer(0, false);
    world.send(0);
    assert!(world.agents[&0].received.is_none());
    let mut next = everything_to(0);
    next.endpoints.clear();
    world.happen(&Happening::Publish(next));
    world.send(0);
    assert!(world.agents[&0].received.is_some());
    world.answer(0, true);
    world.check(0);
}

#[test]
fn an_agent_that_follows_gets_deltas() {
    let mut world = World::new(&everything_to(0));
    world.send(0);
    world.answer(0, true);
    let before = world.agents[&0].applied;
    assert!(before.is_some());
    for round in 0..3 {
        let mut next = everything_to(0);
        next.endpoints.insert(4 + round, (1, 1));
        world.happen(&Happening::Publish(next));
    }
    world.send(0);
    assert_eq!(world.agents[&0].received.as_ref().unwrap()[0].base, before);
    world.answer(0, true);
    world.check(0);
}

#[test]
fn an_agent_that_lags_behind_the_log_gets_a_snapshot() {
    let mut world = World::new(&everything_to(0));
    world.send(0);
    world.answer(0, true);
    for round in 0..1000 {
        let mut sketch = everything_to(0);
        sketch.endpoints.insert(3, (1, u8::try_from(round % 4).unwrap()));
        world.happen(&Happening::Publish(sketch));
    }
    let applied = world.agents[&0].applied.unwrap();
    let audience = world.feed.latest.audience(&workload(0)).unwrap();
    assert_eq!(world.feed.log.since(applied.counter, &workload(0), audience), None);
    world.send(0);
    assert_eq!(world.agents[&0].received.as_ref().unwrap()[0].base, None);
    world.answer(0, true);
    world.check(0);
}

#[test]
fn a_workload_that_is_not_there_gets_nothing() {
    let world = World::new(&everything_to(0));
    let (mut cursor, _) = Cursor::open(workload(2), &hello(None, &[]), &world.feed, Told::Elsewhere);
    assert_eq!(cursor.next(&world.feed), Step::Absent);
}

#[test]
fn what_all_audiences_get_is_encoded_once() {
    let mut world = World::new(&everything_to(0));
    let mut next = everything_to(0);
    next.endpoints.insert(3, (1, 1));
    world.happen(&Happening::Publish(next));
    let parts = |number| {
        let audience = world.feed.latest.audience(&workload(number)).unwrap();
        world.feed.log.since(1, &workload(number), audience).unwrap()
    };
    let (one, two) = (parts(0), parts(1));
    assert_eq!(one[0].as_ptr(), two[0].as_ptr());
    assert_ne!(world.feed.latest.audience(&workload(0)), world.feed.latest.audience(&workload(1)));
}
