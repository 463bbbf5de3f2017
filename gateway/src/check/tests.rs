use policy::compare::DifferentPorts;
use policy::facts::Workload;
use policy::state::RuleAction;

use super::*;

fn facts(policies: &str) -> Facts {
    let labels = BTreeMap::from([("app".to_owned(), "db".to_owned())]);
    let workload = |address: &str| Workload {
        namespace: "shop".to_owned(),
        labels: labels.clone(),
        addresses: vec![address.parse().unwrap()],
        ..Workload::default()
    };
    let pod = policy::facts::Pod {
        namespace: "shop".to_owned(),
        addresses: vec!["10.244.0.7".parse().unwrap()],
        ..policy::facts::Pod::default()
    };
    let mut facts = Facts {
        cluster: "default".to_owned(),
        workloads: BTreeMap::from([
            (Arc::from("shop/db-1"), Arc::new(workload("10.9.0.1"))),
            (Arc::from("shop/db-2"), Arc::new(workload("10.9.0.2"))),
        ]),
        pods: BTreeMap::from([(Arc::from("shop/web"), Arc::new(pod))]),
        ..Facts::default()
    };
    for checked in read(&[File { name: "now".to_owned(), text: policies.to_owned() }]) {
        let (key, Object::Policies(policies)) = checked.object.unwrap() else { panic!() };
        parts::replace(&mut facts.policies, &key, &policies);
    }
    facts
}

fn policy(name: &str, port: u16) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{from: [{{podSelector: {{}}}}], ports: [{{port: {port}}}]}}]}}\n"
    )
}

fn check(facts: &Facts, text: &str) -> (Vec<Checked>, Effect) {
    let objects = read(&[File { name: "new.yaml".to_owned(), text: text.to_owned() }]);
    let effect = effect(facts, &objects).unwrap();
    (objects, effect)
}

#[test]
fn a_version_takes_the_place_of_the_former_one() {
    let facts = facts(&policy("db", 80));
    let (objects, effect) = check(&facts, &policy("db", 81));
    assert!(objects.iter().all(|checked| checked.object.is_ok()));
    let both = BTreeSet::from(["shop/db-1", "shop/db-2"].map(Arc::from));
    assert_eq!(effect.selects, [Some(both.clone())]);
    let seen: BTreeSet<_> = effect
        .changes
        .iter()
        .map(|change| {
            assert_eq!(change.workloads, both);
            let Difference { ports: DifferentPorts::Range(ports), before, after, .. } = &change.difference
            else {
                panic!("{change:?}")
            };
            (ports.first, before.0 == RuleAction::Allow, after.0 == RuleAction::Allow)
        })
        .collect();
    assert_eq!(seen, BTreeSet::from([(80, true, false), (81, false, true)]));
    assert!(effect.changes.iter().any(|change| change.remote_owner.as_deref() == Some("shop/web")));
    // What is in force already changes nothing, and what is added to it only adds.
    assert!(check(&facts, &policy("db", 80)).1.changes.is_empty());
    let (_, effect) = check(&facts, &policy("other", 81));
    assert!(effect.changes.iter().all(|change| change.difference.after.0 == RuleAction::Allow));
    assert!(!effect.changes.is_empty());
}

#[test]
fn what_is_wrong_is_placed_and_does_nothing() {
    let text = policy("db", 81).replace("port: 81", "port: 0") + "---\n" + &policy("b", 81) + "---\n{";
    let (objects, effect) = check(&facts(&policy("db", 80)), &text);
    assert_eq!(objects.len(), 1, "what follows broken YAML cannot be told apart");
    let refusal = objects[0].object.as_ref().unwrap_err();
    assert_eq!((objects[0].file.as_str(), refusal.key.is_none()), ("new.yaml", true));
    assert!(effect.changes.is_empty());
    let (objects, effect) = check(&facts(&policy("db", 80)), text.trim_end_matches("---\n{"));
    let refusal = objects[0].object.as_ref().unwrap_err();
    assert_eq!(refusal.key.as_ref().map(ToString::to_string).as_deref(), Some("NetworkPolicy/shop/db"));
    assert!(refusal.reason.starts_with("spec.ingress[0].ports[0].port"), "{}", refusal.reason);
    assert!(objects[1].object.is_ok() && objects[1].line > objects[0].line);
    assert!(effect.changes.iter().all(|change| change.difference.after.1.contains("/b#")), "{effect:?}");
}

#[test]
fn new_warnings_are_told_apart_from_old_ones() {
    let group = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: NAME}\n\
                 spec: {endpointSelector: {}, ingress: [{fromCIDRSet: [{cidrGroupRef: NAME}]}]}\n";
    let facts = facts(&group.replace("NAME", "a"));
    let (_, effect) = check(&facts, &(group.replace("NAME", "a") + "---\n" + &group.replace("NAME", "b")));
    let warnings: Vec<_> = effect.warnings.iter().collect();
    assert!(matches!(&*warnings, [one] if one.contains("CiliumCIDRGroup b")), "{warnings:?}");
}
