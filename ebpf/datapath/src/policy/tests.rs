use proptest::prelude::*;

use super::{Answer, Question, ask};
use crate::{
    Action, Address, Direction, Port,
    abi::{Bank, CidrEntry, CidrKey, ClassEntry, ClassKey, PolicyEntry, PolicyKey, Settings, settings_flag},
    model::Model,
    testing::{World, address},
};

#[derive(Clone, Copy, Debug)]
struct Rule {
    class: u32,
    protocol: u8,
    port: u16,
    bits: u32,
    precedence: u32,
    action: u8,
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let protocol = prop_oneof![Just(6), Just(17), Just(PolicyKey::ANY_PROTOCOL)];
    let rule =
        (0..4_u32, protocol, 0..8_u16, prop_oneof![Just(0), Just(14), Just(15), Just(16)], 0..3_u32, 0..4_u8)
            .prop_map(|(class, protocol, port, bits, precedence, action)| Rule {
                class,
                protocol,
                port: port & u16::MAX.checked_shl(16 - bits).unwrap_or(0),
                bits,
                precedence,
                action,
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
    let Some(highest) = candidates.iter().map(|entry| entry.precedence).max() else { return default };
    candidates.retain(|entry| entry.precedence == highest);
    let is_denied = |entry: &&PolicyEntry| entry.action != Action::Allow.number();
    match candidates.iter().find(is_denied) {
        Some(entry) => Answer { rule: entry.rule, allowed: 0 },
        None => Answer { rule: candidates[0].rule, allowed: 1 },
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
            let entry =
                PolicyEntry { precedence: rule.precedence, rule: number, action: rule.action, reserved: [0; 7] };
            model.policy.insert(key, entry);
        }
        model.classes.insert(ClassKey { bank: 0, reserved: [0; 3], identity: 300 }, ClassEntry { class: identity_class });
        let cidr = CidrKey { prefix_len: CidrKey::BASE_BITS, bank: 0, reserved: [0; 3], address: Address::NONE };
        model.cidrs.insert(cidr, CidrEntry { class: cidr_class });
        let settings = settings(if has_cidrs { settings_flag::CIDR_RULES } else { 0 });
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
        prop_assert_eq!(ask(&model, Bank::A, &settings, &question, &mut answer), expected.allowed != 0);
        prop_assert_eq!(answer.allowed, expected.allowed);
        if rules.iter().all(|rule| rule.action == Action::Allow.number()) || expected.allowed == 0 {
            // Which of several equal allows is named does not matter.
            prop_assert!(answer == expected || entries.iter().any(|(_, entry)| entry.rule == answer.rule));
        }
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
    assert!(!ask(&Model::default(), Bank::A, &settings, &question, &mut answer));
    assert_eq!(answer.rule, 9);
}
