//! The lowered maps behind the datapath's own seam, so that its real decision runs over them. Longest prefixes are
//! found by looking at every key.

use datapath::abi::{
    Bank, Bucket, CidrEntry, CidrKey, ClassEntry, ClassKey, EndpointEntry, EndpointKey, Event,
    Flow as FlowEntry, FlowKey, FragmentEntry, FragmentKey, Place, PolicyEntry, PolicyKey, PrefixKey,
    Settings, TunnelKey,
};
use datapath::policy::{Answer, NO_ENDPOINT, Question, ask};
use datapath::{Address, FlowTable, Port, Tables};

use crate::evaluate::Flow;
use crate::lower::Lowered;
use crate::state::canonical;

/// One bank as the kernel holds it.
pub(super) struct Maps {
    bank: Bank,
    classes: Vec<(ClassKey, ClassEntry)>,
    cidrs: Vec<(TrieKey, CidrEntry)>,
    policy: Vec<(TrieKey, PolicyEntry)>,
    settings: Settings,
}

impl Maps {
    pub(super) fn of(lowered: &Lowered, bank: Bank) -> Self {
        let settings = Settings {
            identity: 256,
            mark: 256,
            flags: lowered.flags(),
            ingress_default: lowered.ingress.action.number(),
            egress_default: lowered.egress.action.number(),
            ingress_rule: lowered.ingress.rule,
            egress_rule: lowered.egress.rule,
            address_v4: Address::NONE,
            address_v6: Address::NONE,
            mtu: 1450,
            ..Settings::default()
        };
        Self {
            bank,
            classes: lowered.classes(bank).collect(),
            cidrs: lowered.cidrs(bank).map(|(key, value)| (cidr_key(&key), value)).collect(),
            policy: lowered.policy(bank).map(|(key, value)| (policy_key(&key), value)).collect(),
            settings,
        }
    }

    pub(super) fn ask(&self, flow: &Flow) -> Answer {
        let question = Question {
            remote: Address::from(canonical(flow.remote)),
            identity: flow.identity.map_or(NO_ENDPOINT, crate::identity::Identity::get),
            port: Port::new(flow.port),
            protocol: flow.protocol,
            direction: flow.direction,
        };
        let mut answer = Answer::default();
        ask(self, Place::mesh(self.bank), &self.settings, &question, &mut answer);
        answer
    }
}

/// A key of a trie: how many bits count, and the bits.
type TrieKey = (u32, u128, u32);

fn cidr_key(key: &CidrKey) -> TrieKey {
    (key.prefix_len, u128::from_be_bytes(key.address.0), u32::from_be_bytes([key.bank, 0, 0, 0]))
}

fn policy_key(key: &PolicyKey) -> TrieKey {
    let [a, b, c, d] = key.class.to_ne_bytes();
    let [high, low] = key.port.0;
    let rest = u128::from_be_bytes([a, b, c, d, high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    (key.prefix_len, rest, u32::from_be_bytes([key.bank, key.direction, key.protocol, key.reserved]))
}

/// Both tries have at least 32 bits before the part that may be shortened.
fn longest<V>(entries: &[(TrieKey, V)], (longest, rest, head): TrieKey) -> Option<&V> {
    let covering = entries.iter().filter(|((length, bits, first), _)| {
        let shift = 160 - length;
        *length <= longest && *first == head && (shift == 128 || (bits ^ rest) >> shift == 0)
    });
    covering.max_by_key(|((length, ..), _)| *length).map(|(_, value)| value)
}

const OTHER: &str = "policy reads no other map";

impl Tables for Maps {
    type Slot = ();

    fn cidr(&self, key: &CidrKey) -> Option<&CidrEntry> {
        longest(&self.cidrs, cidr_key(key))
    }

    fn class(&self, key: &ClassKey) -> u32 {
        self.classes.iter().find(|(found, _)| found == key).map_or(0, |(_, entry)| entry.class)
    }

    fn policy(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
        longest(&self.policy, policy_key(key))
    }

    fn settings(&self, _: Bank) -> Option<&Settings> {
        panic!("{OTHER}")
    }

    fn endpoint(&self, _: &EndpointKey) -> Option<&EndpointEntry> {
        panic!("{OTHER}")
    }

    fn tunnel(&self, _: &TunnelKey) -> bool {
        panic!("{OTHER}")
    }

    fn prefix(&self, _: &PrefixKey) -> bool {
        panic!("{OTHER}")
    }

    fn flow(&self, _: FlowTable, _: &FlowKey) -> Option<()> {
        panic!("{OTHER}")
    }

    fn load(&self, (): ()) -> FlowEntry {
        panic!("{OTHER}")
    }

    fn is_still(&self, (): (), _: u32) -> bool {
        panic!("{OTHER}")
    }

    fn store(&self, (): (), _: &FlowEntry) {
        panic!("{OTHER}")
    }

    fn touch(&self, (): (), _: u32) {
        panic!("{OTHER}")
    }

    fn insert(&self, _: FlowTable, _: &FlowKey, _: &FlowEntry) -> bool {
        panic!("{OTHER}")
    }

    fn remove_half_open(&self, _: &FlowKey) {
        panic!("{OTHER}")
    }

    fn fragment(&self, _: &FragmentKey) -> Option<FragmentEntry> {
        panic!("{OTHER}")
    }

    fn insert_fragment(&self, _: &FragmentKey, _: &FragmentEntry) -> bool {
        panic!("{OTHER}")
    }

    fn count(&self, _: u32, _: u32) {
        panic!("{OTHER}")
    }

    fn bucket(&self, _: u32) -> Option<Bucket> {
        panic!("{OTHER}")
    }

    fn store_bucket(&self, _: u32, _: &Bucket) {
        panic!("{OTHER}")
    }

    fn emit(&self, _: Event) -> bool {
        panic!("{OTHER}")
    }
}
