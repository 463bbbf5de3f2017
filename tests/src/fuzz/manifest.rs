//! Manifests of every kind, as texts and as bent objects.

mod bent;

use std::collections::BTreeMap;

use gateway::manifest::{Kind, Manifest, Node, Object, manifests, node};
use policy::labels::{self, Labels, is_dns_label, is_subdomain};
use policy::rules::{PolicyObject, Subject};
use policy::state::RuleAction;

use super::choices::Choices;

/// Whatever the text, reading it does not panic. What is refused has a line of the file, and a field and what is wrong
/// with it; what is accepted has a valid name and survives being written as JSON. A field that no kind has is refused
/// by its name, wherever it is put into a valid object. What stands for a policy that was never valid allows nothing,
/// and selects in the policy's own namespace.
///
/// # Panics
///
/// If that is not so.
pub fn manifest(data: &[u8]) {
    let mut choices = Choices::new(data);
    if choices.below(4) == 0 {
        if let Ok(text) = std::str::from_utf8(choices.rest()) {
            read(text);
        }
        return;
    }
    let (object, unknown) = bent::object(&mut choices);
    let text =
        if choices.flag() { object.to_string() } else { serde_json::to_string_pretty(&object).unwrap() };
    let manifests = read(&text);
    // A string may hold what YAML does not take.
    if unknown && !manifests.is_empty() {
        let refused = manifests.first().and_then(|manifest| manifest.object.as_ref().err());
        let said = refused.unwrap_or_else(|| panic!("an unknown field is accepted: {text}")).to_string();
        assert!(said.contains(bent::UNKNOWN), "{said}: {text}");
    }
}

fn read(text: &str) -> Vec<Manifest> {
    // A line may end as YAML says or as the file's system does.
    let lines = u64::try_from(text.split(['\n', '\r']).count()).unwrap();
    let documents = match node::parse(text) {
        Ok(documents) => documents,
        Err(error) => {
            assert!(error.position.line <= lines, "{error:?} of {lines} lines");
            assert!(!error.message.trim().is_empty());
            return Vec::new();
        }
    };
    let manifests: Vec<Manifest> = documents.into_iter().flat_map(manifests).collect();
    for manifest in &manifests {
        check(manifest, lines);
    }
    manifests
}

fn check(manifest: &Manifest, lines: u64) {
    match &manifest.object {
        Ok(object) => accepted(manifest, object),
        Err(error) => {
            let line = error.position.line;
            assert!((1..=lines).contains(&line), "line {line} of {lines}: {error:?}");
            assert!(
                !error.message.trim().is_empty() && error.to_string().contains(&error.field),
                "{error:?}"
            );
        }
    }
    match manifest.stand_in() {
        Some(Object::Policies(policies)) => {
            for policy in policies {
                of_namespace(&policy, &manifest.key.as_ref().unwrap().namespace);
                let rules = || policy.ingress.iter().chain(&policy.egress).flat_map(|section| &section.rules);
                assert!(rules().all(|rule| rule.action == RuleAction::Deny), "{policy:?}");
                let isolates = policy.ingress.iter().chain(&policy.egress).any(|section| section.isolates);
                assert!(isolates || rules().count() > 0, "it isolates nothing: {policy:?}");
            }
        }
        Some(Object::Namespace(namespace)) => assert!(namespace.unreadable && namespace.labels.is_empty()),
        Some(other) => panic!("{other:?}"),
        None => {}
    }
}

/// Nobody outside of the policy's namespace is governed by it.
fn of_namespace(policy: &PolicyObject, namespace: &str) {
    let Subject::Endpoints(selector) = &policy.subject else { return };
    let another = Labels(BTreeMap::from([(labels::NAMESPACE.to_owned(), "another".to_owned())]));
    assert!(namespace.is_empty() || !selector.may_match(&another), "{policy:?}");
}

fn accepted(manifest: &Manifest, object: &Object) {
    let key = manifest.key.as_ref().unwrap();
    assert!(is_subdomain(&key.name), "{key:?}");
    let is_clusterwide = matches!(
        key.kind,
        Kind::Namespace
            | Kind::CiliumClusterwideNetworkPolicy
            | Kind::CiliumCidrGroup
            | Kind::ClusterNetworkPolicy
            | Kind::AdminNetworkPolicy
            | Kind::BaselineAdminNetworkPolicy
    );
    assert_eq!(key.namespace.is_empty(), is_clusterwide, "{key:?}");
    assert!(key.namespace.is_empty() || is_dns_label(&key.namespace), "{key:?}");
    if let Object::Policies(policies) = object {
        for policy in policies {
            let name = policy.origin.split('#').next().unwrap();
            assert_eq!(name, key.to_string());
            of_namespace(policy, &key.namespace);
        }
    }
    let json = manifest.node.to_json();
    let again = Manifest::read(Node::from_json(&json));
    assert_eq!(again.key.as_ref(), Some(key));
    assert_eq!(again.object.as_ref().ok(), Some(object), "kept as JSON it is another one: {json}");
}
