//! Lowered policies in the maps of the host model.

use datapath::abi::{Bank, Place, Settings};
use datapath::model::Model;
use datapath::policy::{Answer, Question, ask};
use datapath::{Address, Port};
use policy::evaluate::{Flow, Reason, evaluate, matches};
use policy::identity::Identity;
use policy::lower::Lowered;
use policy::state::{Policy, RuleAction};

/// Fills one bank with a policy and settings that follow from it.
pub(crate) fn fill(model: &mut Model, bank: Bank, lowered: &Lowered, own: [Address; 2], identity: u32) {
    let [address_v4, address_v6] = own;
    let number = bank.number();
    model.classes.retain(|key, _| key.bank != number);
    model.cidrs.retain(|key, _| key.bank != number);
    model.policy.retain(|key, _| key.bank != number);
    model.classes.extend(lowered.classes(bank));
    model.cidrs.extend(lowered.cidrs(bank));
    model.policy.extend(lowered.policy(bank));
    model.settings[usize::from(number)] = Some(Settings {
        identity,
        mark: identity,
        flags: lowered.flags(),
        ingress_default: lowered.ingress.action.number(),
        egress_default: lowered.egress.action.number(),
        ingress_rule: lowered.ingress.rule,
        egress_rule: lowered.egress.rule,
        address_v4,
        address_v6,
        mtu: 1450,
        ..Settings::default()
    });
}

/// What the datapath answers about a flow.
pub(crate) fn answer(model: &Model, bank: Bank, flow: &Flow) -> Answer {
    let question = Question {
        remote: Address::from(flow.remote),
        identity: flow.identity.map_or(datapath::policy::NO_ENDPOINT, Identity::get),
        port: Port::new(flow.port),
        protocol: flow.protocol,
        direction: flow.direction,
    };
    let mut answer = Answer::default();
    let settings = model.settings[usize::from(bank.number())].unwrap();
    ask(model, Place::mesh(bank), &settings, &question, &mut answer);
    answer
}

/// The datapath decides as the specification, and names a rule that did decide.
pub(crate) fn agree(policy: &Policy, lowered: &Lowered, flow: &Flow, answer: Answer) {
    let expected = evaluate(policy, flow);
    assert_eq!(answer.allowed == 1, expected.action == RuleAction::Allow, "{flow:?} of {policy:?}");
    let name = lowered.names.get(&answer.rule).map_or("no name", |name| name);
    let is_decisive = match expected.reason {
        Reason::Default(default) => default.describe(flow.direction) == name,
        Reason::Rule(winner) => policy.direction(flow.direction).rules.iter().any(|rule| {
            (rule.precedence, rule.action) == (winner.precedence, winner.action)
                && matches(rule, flow)
                && &*rule.origin == name
        }),
    };
    assert!(is_decisive, "{name} did not decide {flow:?} of {policy:?}");
}
