//! Random histories: updates are lost, doubled and reordered, the kernel refuses or lags, the stream breaks. What
//! the kernel is given is always a state that the gateway had, and never goes back.

use std::collections::BTreeMap;

use policy::identity::Identity;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::kernel::Refusal;

/// The state of one generation, reduced to what differs: host → identity.
type Facts = BTreeMap<u8, u32>;

/// A gateway that remembers every generation it ever had.
#[derive(Default)]
struct Gateway {
    incarnation: u64,
    history: BTreeMap<Tag, Facts>,
}

impl Gateway {
    fn current(&self) -> Option<Tag> {
        self.history.keys().next_back().copied()
    }

    fn advance(&mut self, host: u8, identity: u32) {
        let current = self.current();
        let mut facts = current.map(|tag| self.history[&tag].clone()).unwrap_or_default();
        if identity.is_multiple_of(4) {
            facts.remove(&host);
        } else {
            facts.insert(host, identity);
        }
        let counter =
            current.filter(|tag| tag.incarnation == self.incarnation).map_or(1, |tag| tag.counter + 1);
        self.history.insert(Tag { incarnation: self.incarnation, counter, origin: 0 }, facts);
    }

    /// The whole state of a generation.
    fn snapshot(&self, tag: Tag) -> v1::ResourceSet {
        let facts = &self.history[&tag];
        v1::ResourceSet {
            endpoints: facts.iter().map(|(&host, &identity)| endpoint(host, identity)).collect(),
            policy: Some(policy()),
            settings: Some(settings(tag)),
            ..v1::ResourceSet::default()
        }
    }

    fn delta(&self, base: Tag, tag: Tag) -> v1::ResourceSet {
        let (old, new) = (&self.history[&base], &self.history[&tag]);
        let changed = new.iter().filter(|(host, identity)| old.get(host) != Some(identity));
        let removed = old.keys().filter(|host| !new.contains_key(host));
        v1::ResourceSet {
            endpoints: changed.map(|(&host, &identity)| endpoint(host, identity)).collect(),
            removed_endpoints: removed.map(|&host| vec![10, 0, 0, host]).collect(),
            settings: Some(settings(tag)),
            ..v1::ResourceSet::default()
        }
    }

    /// The update to the current generation, cut into chunks.
    fn update(&self, base: Option<Tag>, chunks: usize) -> Vec<v1::GatewayMessage> {
        let tag = self.current().unwrap();
        let set = base.map_or_else(|| self.snapshot(tag), |base| self.delta(base, tag));
        let rest = v1::ResourceSet { endpoints: Vec::new(), ..set.clone() };
        let mut parts: Vec<v1::ResourceSet> = set
            .endpoints
            .into_iter()
            .map(|endpoint| v1::ResourceSet { endpoints: vec![endpoint], ..v1::ResourceSet::default() })
            .collect();
        parts.push(rest);
        let size = parts.len().div_ceil(chunks.max(1));
        let groups: Vec<_> = parts.chunks(size).collect();
        let count = groups.len();
        let message = |(at, group): (usize, &&[v1::ResourceSet])| {
            let parts = group.iter().map(|part| part.encode_to_vec().into()).collect();
            wrap(v1::Update {
                generation: Some(wire(tag)),
                base: base.map(wire),
                last: at + 1 == count,
                parts,
                continues: false,
            })
        };
        groups.iter().enumerate().map(message).collect()
    }

    fn truth(&self, tag: Tag) -> Node {
        let mut node = Node::default();
        node.apply(&[self.snapshot(tag).encode_to_vec()]).unwrap();
        node
    }
}

fn wire(tag: Tag) -> v1::Generation {
    v1::Generation { incarnation: tag.incarnation, counter: tag.counter, origin: tag.origin }
}

fn wrap(update: v1::Update) -> v1::GatewayMessage {
    v1::GatewayMessage { message: Some(v1::gateway_message::Message::Update(update)) }
}

fn endpoint(host: u8, identity: u32) -> v1::Endpoint {
    v1::Endpoint {
        address: vec![10, 0, 0, host],
        identity,
        previous: 0,
        mark: identity,
        tunnels: vec![vec![192, 0, 2, host]],
        kind: Some(v1::endpoint::Kind::Workload(v1::WorkloadKind {})),
    }
}

fn policy() -> v1::Policy {
    let direction = || {
        let default = v1::direction_policy::Default::Deny(v1::DenyDefault { by: Vec::new() });
        Some(v1::DirectionPolicy { default: Some(default), rules: Vec::new() })
    };
    v1::Policy { ingress: direction(), egress: direction() }
}

/// Differs in every generation, so that no two states are equal.
fn settings(tag: Tag) -> v1::Settings {
    v1::Settings {
        workload: "shop/db".to_owned(),
        identity: 300,
        mark: 300,
        addresses: vec![vec![10, 0, 0, 250]],
        prefixes: Vec::new(),
        role: v1::Role::Host.into(),
        mode: v1::Mode::Enforce.into(),
        tunnel_port: 8479,
        rejected: vec![format!("{tag:?}")],
        ..v1::Settings::default()
    }
}

/// One step of a history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Advance(u8, u32),
    /// A restored store: a new incarnation.
    Restore,
    /// An update is sent, on the base that the gateway takes for acknowledged, or as a snapshot.
    Send {
        snapshot: bool,
        chunks: usize,
    },
    /// The update at this place of the network arrives; it may arrive again.
    Deliver {
        at: usize,
        again: bool,
    },
    Lose(usize),
    /// The kernel takes the newest target.
    Apply,
    Refuse {
        retrying: bool,
    },
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8, 256..262_u32).prop_map(|(host, identity)| Step::Advance(host, identity)),
        1 => Just(Step::Restore),
        4 => (any::<bool>(), 1..4_usize).prop_map(|(snapshot, chunks)| Step::Send { snapshot, chunks }),
        6 => (0..8_usize, any::<bool>()).prop_map(|(at, again)| Step::Deliver { at, again }),
        1 => (0..8_usize).prop_map(Step::Lose),
        4 => Just(Step::Apply),
        1 => any::<bool>().prop_map(|retrying| Step::Refuse { retrying }),
        1 => Just(Step::Reconnect),
    ]
}

#[derive(Default)]
struct World {
    gateway: Gateway,
    core: Core,
    network: Vec<Vec<v1::GatewayMessage>>,
    /// What the gateway takes for acknowledged on this stream.
    acked: Option<Tag>,
    /// The latest-value channel to the kernel.
    target: Option<Version>,
    runs: Option<Tag>,
}

impl World {
    fn run(&mut self, step: Step) {
        match step {
            Step::Advance(host, identity) => self.gateway.advance(host, identity),
            Step::Restore => {
                self.gateway.incarnation += 1;
                self.gateway.advance(1, 257);
                self.reconnect();
            }
            Step::Send { snapshot, chunks } if self.gateway.current().is_some() => {
                let update = self.gateway.update(self.acked.filter(|_| !snapshot), chunks);
                self.network.push(update);
            }
            Step::Deliver { at, again } if at < self.network.len() => {
                let update = if again { self.network[at].clone() } else { self.network.remove(at) };
                for message in update {
                    let outcomes = self.core.receive(message);
                    self.check(outcomes);
                }
            }
            Step::Lose(at) if at < self.network.len() => drop(self.network.remove(at)),
            Step::Apply => self.apply(),
            Step::Refuse { retrying } => self.refuse(retrying),
            Step::Reconnect => self.reconnect(),
            Step::Send { .. } | Step::Deliver { .. } | Step::Lose(_) => {}
        }
    }

    fn apply(&mut self) {
        let Some(target) = self.target.clone() else { return };
        let forward =
            self.runs.is_none_or(|runs| runs.incarnation != target.tag.incarnation || runs <= target.tag);
        assert!(forward, "{:?} goes back from {:?}", target.tag, self.runs);
        self.runs = Some(target.tag);
        let outcomes = self.core.answer(&Applied { tag: self.runs, epoch: 1, ..Applied::default() });
        self.check(outcomes);
    }

    fn refuse(&mut self, retrying: bool) {
        let Some(target) = self.target.clone() else { return };
        let refused = Some(Refusal { tag: target.tag, reason: "no".to_owned(), retrying });
        let outcomes = self.core.answer(&Applied { tag: self.runs, epoch: 1, refused, trouble: None });
        if !retrying && self.target.as_ref() == Some(&target) {
            self.target = None;
        }
        self.check(outcomes);
    }

    fn reconnect(&mut self) {
        self.network.clear();
        self.acked = self.core.connect().map(|version| version.tag);
        // A restored store does not know what was acknowledged to the lost one.
        self.acked = self
            .acked
            .filter(|tag| self.gateway.current().is_some_and(|now| now.incarnation == tag.incarnation));
    }

    fn check(&mut self, outcomes: impl IntoIterator<Item = Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Target(version) => {
                    assert_eq!(*version.node, self.gateway.truth(version.tag));
                    self.target = Some(version);
                }
                Outcome::Ack(version) => {
                    assert_eq!(Some(version.tag), self.runs, "acknowledged what the kernel does not run");
                    self.acked = Some(version.tag);
                }
                Outcome::Reject(..) | Outcome::Trouble(..) | Outcome::Current | Outcome::Renew(_) => {}
                Outcome::Contradicts(tag) => panic!("one gateway has two states of {tag:?}"),
                Outcome::Behind(_) | Outcome::Resync(_) => return self.reconnect(),
            }
        }
        if let Some(applied) = self.core.applied() {
            assert_eq!(*applied.node, self.gateway.truth(applied.tag));
        }
    }

    /// From any state, a working stream and kernel lead to the gateway's state.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.reconnect();
            self.network.push(self.gateway.update(self.acked, 2));
            self.run(Step::Deliver { at: 0, again: false });
            self.apply();
        }
        assert_eq!(self.core.applied().map(|version| version.tag), self.gateway.current());
        assert_eq!(self.runs, self.gateway.current());
    }
}

proptest! {
    #[test]
    fn a_host_only_runs_states_that_the_gateway_had(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::default();
        world.gateway.advance(0, 257);
        for step in steps {
            world.run(step);
        }
        world.settle();
    }
}

fn started() -> World {
    let mut world = World::default();
    world.gateway.advance(0, 257);
    world.run(Step::Send { snapshot: true, chunks: 1 });
    world.run(Step::Deliver { at: 0, again: false });
    world.apply();
    world
}

#[test]
fn half_an_update_changes_nothing() {
    let mut world = started();
    world.gateway.advance(1, 258);
    world.gateway.advance(2, 259);
    let chunks = world.gateway.update(world.acked, 2);
    assert_eq!(chunks.len(), 2);
    assert!(world.core.receive(chunks[0].clone()).is_empty());
    // The stream breaks; the next one begins with the first chunk again, and no part counts twice.
    let _hello = world.core.connect();
    world.gateway.advance(3, 260);
    for message in world.gateway.update(world.acked, 2) {
        let outcomes = world.core.receive(message);
        world.check(outcomes);
    }
    assert_eq!(world.target.unwrap().tag, world.gateway.current().unwrap());
}

#[test]
fn what_cannot_be_converted_is_rejected_whole() {
    let mut world = started();
    let before = world.core.applied().cloned();
    let mut bad = endpoint(1, 258);
    bad.address = vec![1, 2, 3];
    let set = v1::ResourceSet { endpoints: vec![endpoint(2, 259), bad], ..v1::ResourceSet::default() };
    let generation = v1::Generation { counter: 9, ..wire(world.runs.unwrap()) };
    let update = v1::Update {
        generation: Some(generation),
        base: world.runs.map(wire),
        last: true,
        parts: vec![set.encode_to_vec().into()],
        continues: false,
    };
    let outcomes = world.core.receive(wrap(update));
    assert!(matches!(&outcomes[..], [Outcome::Reject(tag, _)] if tag.counter == 9), "{outcomes:?}");
    assert_eq!(world.core.applied().cloned(), before);
}

#[test]
fn a_refusal_that_the_kernel_retries_is_told_once_and_acked_when_it_works() {
    let mut world = started();
    world.gateway.advance(1, 258);
    world.run(Step::Send { snapshot: false, chunks: 1 });
    world.run(Step::Deliver { at: 0, again: false });
    let tag = world.gateway.current().unwrap();
    let refused = Some(Refusal { tag, reason: "device in the way".to_owned(), retrying: true });
    let answer = Applied { tag: world.runs, epoch: 1, refused, trouble: None };
    assert!(matches!(world.core.answer(&answer)[..], [Outcome::Reject(..)]));
    assert!(world.core.answer(&answer).is_empty());
    world.apply();
    assert_eq!(world.acked, Some(tag));
}

#[test]
fn a_state_that_can_never_run_is_given_up_and_not_built_upon() {
    let mut world = started();
    let good = world.core.applied().cloned();
    world.gateway.advance(1, 258);
    world.run(Step::Send { snapshot: false, chunks: 1 });
    world.run(Step::Deliver { at: 0, again: false });
    let tag = world.gateway.current().unwrap();
    let refused = Some(Refusal { tag, reason: "full".to_owned(), retrying: false });
    let answer = Applied { tag: world.runs, epoch: 1, refused, trouble: None };
    assert_eq!(world.core.answer(&answer), [Outcome::Reject(tag, "full".to_owned())]);
    assert!(world.core.answer(&answer).is_empty(), "given up");
    assert_eq!(world.core.applied().cloned(), good);
    world.gateway.advance(1, 259);
    let on_refused = world.gateway.update(Some(tag), 1);
    assert!(matches!(world.core.receive(on_refused[0].clone())[..], [Outcome::Resync(_)]));
    let on_good = world.gateway.update(world.runs, 1);
    let outcomes = world.core.receive(on_good[0].clone());
    assert!(matches!(outcomes[..], [Outcome::Target(_)]), "{outcomes:?}");
    world.check(outcomes);
}

#[test]
fn another_state_under_a_number_that_the_kernel_has_not_answered_is_told() {
    let mut world = started();
    world.gateway.advance(1, 258);
    let update = world.gateway.update(world.acked, 1);
    world.run(Step::Send { snapshot: false, chunks: 1 });
    world.run(Step::Deliver { at: 0, again: false });
    let tag = world.gateway.current().unwrap();
    assert_eq!(world.core.receive(update[0].clone()), [], "the same again");
    let set = v1::ResourceSet { endpoints: vec![endpoint(2, 259)], ..v1::ResourceSet::default() };
    let other = |generation, base: Tag| {
        let parts = vec![set.encode_to_vec().into()];
        wrap(v1::Update {
            generation: Some(generation),
            base: Some(wire(base)),
            last: true,
            parts,
            continues: false,
        })
    };
    let before = world.runs.unwrap();
    assert_eq!(world.core.receive(other(wire(tag), before)), [Outcome::Contradicts(tag)]);
    let next = v1::Generation { counter: tag.counter + 1, ..wire(tag) };
    let outcomes = world.core.receive(other(next, tag));
    assert!(matches!(outcomes[..], [Outcome::Resync(_)]), "it builds on the other state: {outcomes:?}");
    world.apply();
    assert_eq!(world.acked, Some(tag), "what the kernel runs is what was received first");
}

#[test]
fn an_older_gateway_is_left() {
    let mut world = started();
    let old = world.gateway.update(None, 1);
    world.gateway.advance(1, 258);
    world.run(Step::Send { snapshot: false, chunks: 1 });
    world.run(Step::Deliver { at: 0, again: false });
    assert!(matches!(world.core.receive(old[0].clone())[..], [Outcome::Behind(_)]));
    let behind = v1::gateway_message::Message::Behind(v1::Behind { generation: None });
    let outcomes = world.core.receive(v1::GatewayMessage { message: Some(behind) });
    assert!(matches!(outcomes[..], [Outcome::Behind(_)]));
}

#[test]
fn a_confirmation_counts_for_the_state_that_is_there() {
    let mut world = started();
    let confirm = |tag: Option<Tag>| v1::GatewayMessage {
        message: Some(v1::gateway_message::Message::UpToDate(v1::UpToDate { generation: tag.map(wire) })),
    };
    assert_eq!(world.core.receive(confirm(world.runs)), [Outcome::Current]);
    let other = Tag { incarnation: 9, counter: 9, origin: 0 };
    assert!(matches!(world.core.receive(confirm(Some(other)))[..], [Outcome::Resync(_)]));
    assert!(matches!(world.core.receive(confirm(None))[..], [Outcome::Resync(_)]));
}

#[test]
fn a_gateway_may_ask_for_a_renewal() {
    let mut world = started();
    let renew = v1::gateway_message::Message::Renew(v1::Renew { within_seconds: 400 });
    let outcomes = world.core.receive(v1::GatewayMessage { message: Some(renew) });
    assert_eq!(outcomes, [Outcome::Renew(std::time::Duration::from_secs(400))]);
}

#[test]
fn the_state_of_the_previous_run_comes_first() {
    let world = started();
    let version = world.core.applied().unwrap().clone();
    let (mut core, outcome) = Core::restored(version.clone());
    assert_eq!(outcome, Outcome::Target(version.clone()));
    assert!(core.connect().is_none(), "not before the kernel runs it");
    let answer = Applied { tag: Some(version.tag), epoch: 1, ..Applied::default() };
    assert_eq!(core.answer(&answer), [Outcome::Ack(version.clone())]);
    assert_eq!(core.connect(), Some(&version));
    assert_eq!(version.state.settings.identity, Identity::try_new(300).unwrap());
}

#[test]
fn a_part_that_goes_on_in_the_next_chunk_is_put_together() {
    let mut world = started();
    let tag = world.runs.unwrap();
    let set = v1::ResourceSet { endpoints: vec![endpoint(2, 259)], ..v1::ResourceSet::default() };
    let mut part: bytes::Bytes = set.encode_to_vec().into();
    let rest = part.split_off(3);
    let generation = Some(v1::Generation { counter: tag.counter + 1, ..wire(tag) });
    let chunk = |part, last, continues| {
        wrap(v1::Update { generation, base: Some(wire(tag)), last, parts: vec![part], continues })
    };
    assert_eq!(world.core.receive(chunk(part.clone(), false, true)), []);
    let outcomes = world.core.receive(chunk(rest, true, false));
    assert!(matches!(&outcomes[..], [Outcome::Target(_)]), "{outcomes:?}");
    let outcomes = world.core.receive(chunk(part, true, true));
    assert!(matches!(&outcomes[..], [Outcome::Resync(_)]), "{outcomes:?}");
}

#[test]
fn trouble_with_the_network_is_told_beside_the_acknowledgement_and_once() {
    let mut world = started();
    world.gateway.advance(1, 258);
    world.run(Step::Send { snapshot: false, chunks: 1 });
    world.run(Step::Deliver { at: 0, again: false });
    let version = world.target.clone().unwrap();
    let trouble = "cannot add route".to_owned();
    let answer = Applied { tag: Some(version.tag), epoch: 2, trouble: Some(trouble.clone()), refused: None };
    let told = Outcome::Trouble(version.tag, trouble);
    assert_eq!(world.core.answer(&answer), [Outcome::Ack(version.clone()), told.clone()]);
    assert!(world.core.answer(&answer).is_empty());
    world.core.forget_told();
    assert_eq!(world.core.answer(&answer), [told]);
    let well = Applied { trouble: None, ..answer };
    assert_eq!(world.core.answer(&well), [Outcome::Trouble(version.tag, String::new())]);
}
