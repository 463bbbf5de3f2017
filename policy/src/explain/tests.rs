use std::sync::Arc;

use super::*;
use crate::identity::Identity;
use crate::rules::precedence::{ADMIN, BASELINE, NETWORK_POLICY};
use crate::state::{Block, Default, DirectionPolicy};

fn rule(origin: &str, peers: Peers, ports: Ports) -> Rule {
    Rule {
        origin: origin.into(),
        peers,
        ports,
        action: RuleAction::Allow,
        precedence: crate::rules::precedence::NETWORK_POLICY,
    }
}

fn tcp(first: u16, last: u16) -> Ports {
    Ports::Only(vec![PortRange { protocol: 6, first, last }])
}

#[test]
fn each_rule_says_what_did_not_match() {
    let web = Peers::Only {
        identities: Arc::new([300, 301].map(|n| Identity::try_new(n).unwrap()).into()),
        blocks: vec![Block {
            cidr: "10.0.0.0/8".parse().unwrap(),
            except: vec!["10.1.0.0/16".parse().unwrap()],
            reach: Reach::Everyone,
        }],
    };
    let nobody = Peers::Only { identities: Arc::default(), blocks: Vec::new() };
    let rules = vec![
        rule("NetworkPolicy/shop/db#ingress[0]", web, tcp(5432, 5432)),
        rule("NetworkPolicy/shop/db#ingress[1]", nobody, Ports::Any),
        rule(
            "NetworkPolicy/shop/db#ingress[2]",
            Peers::Any,
            Ports::Only(vec![PortRange { protocol: 17, first: 0, last: 65535 }]),
        ),
        rule("NetworkPolicy/shop/db#ingress[3]", Peers::Any, tcp(80, 90)),
    ];
    let default = Default::Deny { by: vec!["NetworkPolicy/shop/db".into()] };
    let policy = Policy { ingress: DirectionPolicy { default, rules }, ..Policy::unrestricted() };
    let mut flow = Flow {
        direction: Direction::Ingress,
        identity: Identity::try_new(302).ok(),
        remote: "10.1.0.1".parse().unwrap(),
        protocol: 6,
        port: 5432,
    };
    assert_eq!(
        explain(&policy, &flow).to_string(),
        "ingress from 10.1.0.1 (identity 302), TCP port 5432\n  \
         NetworkPolicy/shop/db#ingress[0]: other peer: the rule is about identities 300 301, 10.0.0.0/8 except 10.1.0.0/16\n  \
         NetworkPolicy/shop/db#ingress[1]: other peer: the rule is about nobody\n  \
         NetworkPolicy/shop/db#ingress[2]: other protocol: the rule is about UDP\n  \
         NetworkPolicy/shop/db#ingress[3]: other port: the rule is about TCP 80-90\n\
         denied by default-deny ingress (NetworkPolicy/shop/db)"
    );
    flow.identity = Identity::try_new(300).ok();
    let explanation = explain(&policy, &flow);
    assert_eq!(explanation.steps[0].outcome, Outcome::Matched);
    assert!(explanation.to_string().ends_with("\nallowed by NetworkPolicy/shop/db#ingress[0]"));
}

/// Of rules that matched, one decides; what is said of the others is why they do not.
#[test]
fn a_rule_that_matched_and_does_not_decide_says_why() {
    let flow = Flow {
        direction: Direction::Ingress,
        identity: Identity::try_new(300).ok(),
        remote: "10.1.0.1".parse().unwrap(),
        protocol: 6,
        port: 80,
    };
    let of = |origin: &str, action, precedence| Rule {
        action,
        precedence,
        ..rule(origin, Peers::Any, Ports::Any)
    };
    let rules = vec![
        of("baseline", RuleAction::Deny, BASELINE),
        of("network", RuleAction::Allow, NETWORK_POLICY),
        of("late", RuleAction::Deny, ADMIN + 1),
        of("pass", RuleAction::Pass, ADMIN + 2),
    ];
    let explained = |rules: &[Rule], default| {
        let policy =
            Policy { ingress: DirectionPolicy { default, rules: rules.to_vec() }, ..Policy::unrestricted() };
        let explanation = explain(&policy, &flow);
        explanation.steps.iter().map(|step| (step.rule.origin.to_string(), step.outcome)).collect::<Vec<_>>()
    };
    let is = |origin: &str, outcome| (origin.to_owned(), outcome);
    let deny = Default::Deny { by: Vec::new() };
    assert_eq!(
        explained(&rules, deny.clone()),
        [
            is("pass", Outcome::Matched),
            is("late", Outcome::Overruled),
            is("network", Outcome::Matched),
            is("baseline", Outcome::NotAsked),
        ]
    );
    assert_eq!(explained(&rules[..2], Default::Allow)[1], is("baseline", Outcome::Overruled));
    assert_eq!(explained(&rules[..1], Default::Allow), [is("baseline", Outcome::Matched)]);
    assert_eq!(explained(&rules[..1], deny), [is("baseline", Outcome::NotAsked)]);
    // One that counts as much and denies decides in the place of one that passes.
    let mut tie = rules;
    tie[2].precedence = ADMIN + 2;
    assert_eq!(explained(&tie, Default::Allow)[1], is("pass", Outcome::Overruled));
}

#[test]
fn without_rules_the_default_speaks() {
    let flow = Flow {
        direction: Direction::Egress,
        identity: None,
        remote: "2001:db8::1".parse().unwrap(),
        protocol: 58,
        port: 0,
    };
    assert_eq!(
        explain(&Policy::unrestricted(), &flow).to_string(),
        "egress to 2001:db8::1 (no endpoint), ICMPv6 port 0\n  no rules\nallowed by default-allow egress"
    );
}
