//! Priorities: as many as there are, at both ends of their range.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use datapath::Direction;
use e2e::paper::{Kind, Member, Mesh, NOBODY, TCP, admin, closed, refusal, tiered};
use policy::rules::precedence;
use serde_json::{Value, json};

const MEMBERS: [Member; 2] = [
    (Kind::Workload, "shop", "db", "10.9.0.1", &["app=db"]),
    (Kind::Pod, "shop", "web", "10.0.0.1", &["app=web"]),
];
const DB: &str = "10.9.0.1";
const WEB: &str = "10.0.0.1";

/// More than 65,536, and more than there are priorities.
const POLICIES: u32 = 70_000;
const PRIORITIES: u32 = 1001;
/// On how many ports they have their rules, two each.
const PORTS: u32 = 35_000;

fn rule(action: &str, port: u32) -> Value {
    json!({"action": action, "from": [{"namespaces": {}}], "protocols": [{"tcp": {"destinationPort": {"number": port}}}]})
}

#[test]
fn threat_36_seventy_thousand_policies_keep_their_order() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    let mut policies = Vec::new();
    // By port: the strongest rule, as its priority and whether it accepts; deny before accept.
    let mut strongest: BTreeMap<u32, (u32, bool)> = BTreeMap::new();
    for number in 0..POLICIES {
        let (priority, port, accepts) =
            (number.wrapping_mul(7919) % PRIORITIES, 1 + number % PORTS, number % 3 == 0);
        let rules = json!([rule(if accepts { "Accept" } else { "Deny" }, port)]);
        policies.push(tiered(&format!("p{number}"), "Admin", priority.into(), "ingress", &rules));
        let best = strongest.entry(port).or_insert((priority, accepts));
        *best = (*best).min((priority, accepts));
    }
    mesh.apply(&policies)?;
    for (port, (priority, accepts)) in strongest.into_iter().step_by(97) {
        let enters = mesh.enters(DB, WEB, (TCP, u16::try_from(port)?))?;
        ensure!(enters == accepts, "port {port}: {enters}, but priority {priority} says {accepts}");
    }
    Ok(())
}

#[test]
fn threat_36_every_priority_comes_before_the_next_one() -> Result<()> {
    let mut mesh = Mesh::of(&MEMBERS)?;
    // A hundred rules each, the last of which matches: whatever an object holds, its priority counts.
    let last = |action: &str| {
        let mut rules = vec![rule("Deny", 1); 99];
        rules.push(rule(action, 80));
        json!(rules)
    };
    // Where numbers of 8, 9 and 16 bits end, and at both ends.
    let priorities = [0, 1, 255, 256, 489, 490, 511, 512, 999, 1000];
    let pairs = priorities.into_iter().flat_map(|low| priorities.map(|high| (low, high)));
    for (low, high) in pairs.filter(|(low, high)| low < high) {
        for (tier, strong, weak) in [("Admin", "Accept", "Deny"), ("Baseline", "Deny", "Accept")] {
            mesh.apply(&[
                tiered("z", tier, low, "ingress", &last(strong)),
                tiered("a", tier, high, "ingress", &json!([rule(weak, 80)])),
            ])?;
            let (enters, reason) = mesh.decide(DB, Direction::Ingress, WEB, (TCP, 80))?;
            ensure!(enters == (strong == "Accept"), "{tier}: {low} {strong}, {high} {weak}: {enters}");
            ensure!(reason == "ClusterNetworkPolicy/z#ingress[99]", "{reason}");
        }
    }
    // The weakest of a tier is stronger than the strongest of the next one.
    let old = admin(None, "ingress", &json!([{"action": "Deny", "from": [{"namespaces": {}}]}]));
    mesh.apply(&[tiered("p", "Baseline", 1000, "ingress", &last("Accept")), old.clone()])?;
    ensure!(mesh.enters(DB, WEB, (TCP, 80))?, "the last rule of the baseline above the old one");
    mesh.apply(&[tiered("p", "Admin", 1000, "ingress", &last("Accept")), closed(), old])?;
    ensure!(
        mesh.enters(DB, WEB, (TCP, 80))? && !mesh.enters(DB, NOBODY, (TCP, 80))?,
        "the last administrators' rule"
    );
    Ok(())
}

#[test]
fn threat_36_what_does_not_fit_is_refused() -> Result<()> {
    for priority in
        [-1, 1001, 1024, 32_768, 65_535, 65_536, 65_546, 1 << 31, 1 << 32, (1 << 32) + 10, i64::MAX, i64::MIN]
    {
        for policy in [
            tiered("p", "Admin", priority, "ingress", &json!([rule("Deny", 80)])),
            tiered("p", "Baseline", priority, "ingress", &json!([])),
            admin(Some(priority), "ingress", &json!([{"action": "Deny", "from": [{"namespaces": {}}]}])),
        ] {
            let said = refusal(&policy)?;
            ensure!(said.contains("priority"), "{priority}: {said}");
        }
    }
    let said = refusal(&tiered("p", "Admin", 1, "ingress", &json!(vec![rule("Deny", 1); 101])))?;
    ensure!(said.contains("spec.ingress"), "{said}");
    // Nor does the wire take what stands in no word of the maps.
    let mut mesh = Mesh::of(&MEMBERS)?;
    mesh.apply(&[tiered("p", "Admin", 0, "ingress", &json!([rule("Deny", 80)]))])?;
    let mut wire = proto::convert::policy_to_wire(mesh.policy(DB)?);
    let rules = &mut wire.ingress.as_mut().context("ingress")?.rules;
    rules.first_mut().context("a rule")?.precedence = precedence::HIGHEST + 1;
    ensure!(proto::convert::policy_from_wire(&wire).is_err(), "a precedence that does not fit");
    Ok(())
}
