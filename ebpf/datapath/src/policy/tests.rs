use proptest::prelude::*;

use super::{Answer, Question, ask};
use crate::{
    Action, Address, Direction, Port,
    abi::{
        Bank, CidrEntry, CidrKey, ClassEntry, ClassKey, Place, PolicyEntry, PolicyKey, Rank, Settings,
        settings_flag,
    },
    model::Model,
    testing::{World, address},
};

#[derive(Clone, Copy, Debug)]
struct Rule {
    class: u32,
    protocol: u8,
    port: u16,
    bits: u32,
    rank: Rank,
    below: Rank,
}

fn rank() -> impl Strategy<Value = Rank> {
    let action = prop_oneof![Just(Action::Allow), Just(Action::Pass), Just(Action::Deny)];
    (0..3_u32, action).prop_map(|(precedence, action)| Rank::new(precedence, action))
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let protocol = prop_oneof![Just(6), Just(17), Just(PolicyKey::ANY_PROTOCOL)];
    let rule = (
        0..4_u32,
        protocol,
        0..8_u16,
        prop_oneof![Just(0), Just(14), Just(15), Just(16)],
        rank(),
        prop_oneof![Just(Rank::NONE), rank()],
    )
        .prop_map(|(class, protocol, port, bits, rank, below)| Rule {
            class,
            protocol,
            port: port & u16::MAX.checked_shl(16 - bits).unwrap_or(0),
            bits,
            rank,
            below,
        });
    proptest::collection::vec(rule, 0..12)
}

/// The same by looking at every entry.
fn naive(
    rules: &[(PolicyKey, PolicyEntry)],
    classes: &[u32],
    question: &Question,
    default: Answer,
) -> Answer {
    let mut candidates = Vec::new();
    for class in classes {
        for protocol in [question.protocol, PolicyKey::ANY_PROTOCOL] {
            let matching = rules.iter().filter(|(key, _)| {
                let bits = key.prefix_len - PolicyKey::BASE_BITS;
                key.class == *class
                    && key.protocol == protocol
                    && key.direction == question.direction.number()
                    && u32::from(key.port.get() ^ question.port.get()) >> (16 - bits) == 0
            });
            candidates.extend(matching.max_by_key(|(key, _)| key.prefix_len).map(|(_, entry)| *entry));
        }
    }
    let rank = |entry: &&PolicyEntry| entry.rank;
    let Some(first) =
        candidates.iter().reduce(|best, entry| if rank(&entry) > rank(&best) { entry } else { best })
    else {
        return default;
    };
    if !first.rank.says(Action::Pass) {
        return Answer { rule: first.rule, allowed: u32::from(first.rank.says(Action::Allow)) };
    }
    let below = candidates.iter().filter(|entry| entry.below_rank != Rank::NONE);
    let below = below.reduce(|best, entry| if entry.below_rank > best.below_rank { entry } else { best });
    below.map_or(default, |entry| Answer {
        rule: entry.below_rule,
        allowed: u32::from(entry.below_rank.says(Action::Allow)),
    })
}

#[test]
fn precedence_comes_before_strictness() {
    let order = [
        Rank::NONE,
        Rank::new(0, Action::Allow),
        Rank::new(0, Action::Pass),
        Rank::new(0, Action::Deny),
        Rank::new(1, Action::Allow),
        Rank::new(Rank::HIGHEST_PRECEDENCE, Action::Allow),
        Rank::new(u32::MAX, Action::Deny),
    ];
    assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
    for rank in &order[1..] {
        let said = [Action::Allow, Action::Pass, Action::Deny].map(|action| rank.says(action));
        assert_eq!(said.into_iter().filter(|said| *said).count(), 1, "{rank:?}");
    }
}

fn settings(flags: u32) -> Settings {
    Settings { flags, ..World::new().model.settings[0].unwrap() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn the_highest_precedence_decides_and_deny_wins_a_tie(
        rules in rules(),
        identity_class in 0..4_u32,
        cidr_class in 0..4_u32,
        has_cidrs: bool,
        protocol in prop_oneof![Just(6_u8), Just(17)],
        port in 0..8_u16,
    ) {
        let mut model = Model::default();
        for (number, rule) in (1..).zip(&rules) {
            let key = PolicyKey {
                prefix_len: PolicyKey::BASE_BITS + rule.bits,
                bank: 0,
                direction: Direction::Ingress.number(),
                protocol: rule.protocol,
                reserved: 0,
                class: rule.class,
                port: Port::new(rule.port),
                padding: [0; 2],
            };
            let entry = PolicyEntry { rank: rule.rank, rule: number, below_rank: rule.below, below_rule: number + 100 };
            model.policy.insert(key, entry);
        }
        model.classes.insert(ClassKey { bank: 0, reserved: [0; 3], identity: 300 }, ClassEntry { class: identity_class });
        let cidr = CidrKey { prefix_len: CidrKey::BASE_BITS, bank: 0, reserved: [0; 3], address: Address::NONE };
        model.cidrs.insert(cidr, CidrEntry { class: cidr_class, outside: 9 });
        let settings = settings(settings_flag::PASSES | if has_cidrs { settings_flag::CIDR_RULES } else { 0 });
        let question = Question {
            remote: address("10.0.0.2"),
            identity: 300,
            port: Port::new(port),
            protocol,
            direction: Direction::Ingress,
        };
        let entries: Vec<_> = model.policy.iter().map(|(key, entry)| (*key, *entry)).collect();
        let mut classes = vec![identity_class];
        if has_cidrs && cidr_class != 0 {
            classes.push(cidr_class);
        }
        let default = Answer { rule: settings.ingress_rule, allowed: 1 };
        let expected = naive(&entries, &classes, &question, default);
        let mut answer = Answer::default();
        prop_assert_eq!(ask(&model, Place::mesh(Bank::A), &settings, &question, &mut answer), expected.allowed != 0);
        prop_assert_eq!(answer.allowed, expected.allowed);
        prop_assert_eq!(answer.rule, expected.rule);
    }
}

#[test]
fn a_default_that_is_no_action_denies() {
    let question = Question {
        remote: address("10.0.0.2"),
        identity: 300,
        port: Port::new(1),
        protocol: 6,
        direction: Direction::Egress,
    };
    let settings = Settings { egress_default: 0, egress_rule: 9, ..settings(0) };
    let mut answer = Answer::default();
    assert!(!ask(&Model::default(), Place::mesh(Bank::A), &settings, &question, &mut answer));
    assert_eq!(answer.rule, 9);
}
