//! What makes a `NetworkPolicy` a companion: the one definition, for who writes them and for who leaves them out. A label is
//! easily put on any policy, and alone it makes none.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Label and value of the companions of `NetworkPolicy`s.
pub const COMPANION: (&str, &str) = ("app.kubernetes.io/managed-by", "companions.outrigger.dev");

/// What names begin with.
const PREFIX: &str = "outrigger-companion-";
/// Bytes of the longest name.
const LONGEST: usize = 253;

/// What an object lacks to be a companion.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// The label.
    #[error("it has no label {}={}", COMPANION.0, COMPANION.1)]
    Label,
    /// The owner.
    #[error("it has no networking.k8s.io/v1 NetworkPolicy as its controller and only owner")]
    Owner,
    /// The name.
    #[error("its name `{name}` is not `{expected}`, which follows from its owner")]
    Name {
        /// The name it has.
        name: String,
        /// The name of a companion of this owner.
        expected: String,
    },
    /// What it says.
    #[error("a companion does not say this: {0}")]
    Shape(&'static str),
}

/// What the companion of a policy is called.
#[must_use]
pub fn name_of(original: &str) -> String {
    let name = format!("{PREFIX}{original}");
    if name.len() <= LONGEST {
        return name;
    }
    format!("{PREFIX}{}", hex::encode(Sha256::digest(original)))
}

/// Whether an object says to be a companion.
#[must_use]
pub fn is_labelled(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(COMPANION.0)).is_some_and(|value| value == COMPANION.1)
}

/// The owner of an object that is a companion but for what it says, which somebody may have changed.
///
/// # Errors
/// What it lacks.
pub fn owner_of(metadata: &ObjectMeta) -> Result<&OwnerReference, Lack> {
    if !is_labelled(metadata) {
        return Err(Lack::Label);
    }
    let owner = match metadata.owner_references.as_deref() {
        Some([only]) if is_policy(only) && only.controller == Some(true) => only,
        _ => return Err(Lack::Owner),
    };
    let (name, expected) = (metadata.name.clone().unwrap_or_default(), name_of(&owner.name));
    if name == expected { Ok(owner) } else { Err(Lack::Name { name, expected }) }
}

/// The owner of a companion. Whether there is such a policy is to be found out by who sees them.
///
/// # Errors
/// What the object lacks to be a companion.
pub fn companion<'a>(metadata: &'a ObjectMeta, spec: &Value) -> Result<&'a OwnerReference, Lack> {
    let owner = owner_of(metadata)?;
    shape(spec).map(|()| owner).map_err(Lack::Shape)
}

/// Of a manifest with the label that is in force all the same: why it is no companion. `None` without the label.
pub(super) fn why_none(raw: &Value) -> Option<String> {
    let metadata: ObjectMeta = serde_json::from_value(raw.get("metadata")?.clone()).ok()?;
    if !is_labelled(&metadata) {
        return None;
    }
    let why = match companion(&metadata, raw.get("spec").unwrap_or(&Value::Null)) {
        Err(lack) => lack.to_string(),
        Ok(owner) => {
            format!(
                "its owner, NetworkPolicy `{}` with the uid `{}`, is not known here",
                owner.name, owner.uid
            )
        }
    };
    Some(format!("has the label {}={} and is no companion, so it applies: {why}", COMPANION.0, COMPANION.1))
}

fn is_policy(owner: &OwnerReference) -> bool {
    owner.kind == NetworkPolicy::kind(&()) && owner.api_version == NetworkPolicy::api_version(&())
}

/// Companions allow single addresses, in directions that they name and have rules for.
fn shape(raw: &Value) -> Result<(), &'static str> {
    let spec: NetworkPolicySpec =
        serde_json::from_value(raw.clone()).map_err(|_invalid| "it cannot be read")?;
    if serde_json::to_value(&spec).ok().as_ref() != Some(raw) {
        return Err("it has fields that are not known");
    }
    let ingress: Vec<_> = spec.ingress.iter().flatten().map(|rule| (&rule.from, &rule.ports)).collect();
    let egress: Vec<_> = spec.egress.iter().flatten().map(|rule| (&rule.to, &rule.ports)).collect();
    let types = [("Ingress", !ingress.is_empty()), ("Egress", !egress.is_empty())];
    let types: Vec<_> = types.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
    if types.is_empty() || !types.iter().eq(spec.policy_types.iter().flatten()) {
        return Err("`policyTypes` are not the directions that it has rules for");
    }
    for (peers, ports) in ingress.into_iter().chain(egress) {
        if peers.as_ref().is_none_or(Vec::is_empty) || ports.as_ref().is_some_and(Vec::is_empty) {
            return Err("a rule for everybody, or for all ports by an empty list");
        }
        if !peers.iter().flatten().all(is_address) {
            return Err("a peer is something else than the ipBlock of one address");
        }
    }
    Ok(())
}

fn is_address(peer: &NetworkPolicyPeer) -> bool {
    let NetworkPolicyPeer { ip_block: Some(block), namespace_selector: None, pod_selector: None } = peer
    else {
        return false;
    };
    let is_single = |cidr: IpNet| cidr.prefix_len() == cidr.max_prefix_len();
    block.except.is_none() && block.cidr.parse().is_ok_and(is_single)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made() -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "outrigger-companion-api", "namespace": "shop", "labels": {COMPANION.0: COMPANION.1},
                "ownerReferences": [{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "name": "api",
                    "uid": "u-api", "controller": true}]},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"ipBlock": {"cidr": "10.9.0.1/32"}}], "ports": [{"port": 80, "protocol": "TCP"}]}]}})
    }

    fn judged(raw: &Value) -> Result<String, Lack> {
        let metadata: ObjectMeta = serde_json::from_value(raw["metadata"].clone()).unwrap();
        companion(&metadata, &raw["spec"]).map(|owner| owner.uid.clone())
    }

    #[test]
    fn a_name_is_never_too_long_and_never_two_policies() {
        assert_eq!(name_of("db"), "outrigger-companion-db");
        let (long, other) = ("a".repeat(253), "a".repeat(252));
        assert!(name_of(&long).len() <= LONGEST);
        assert_ne!(name_of(&long), name_of(&other));
    }

    #[test]
    fn label_owner_and_name_are_needed_together() {
        assert_eq!(judged(&made()).as_deref(), Ok("u-api"));
        for (path, value) in [
            ("/metadata/ownerReferences", json!([])),
            ("/metadata/ownerReferences/0/kind", json!("Deployment")),
            ("/metadata/ownerReferences/0/apiVersion", json!("cilium.io/v2")),
            ("/metadata/ownerReferences/0/controller", json!(false)),
        ] {
            let mut spoiled = made();
            *spoiled.pointer_mut(path).unwrap() = value;
            assert_eq!(judged(&spoiled), Err(Lack::Owner), "{path}");
        }
        for name in ["api", "outrigger-companion-db"] {
            let mut spoiled = made();
            spoiled["metadata"]["name"] = json!(name);
            assert!(matches!(judged(&spoiled), Err(Lack::Name { .. })), "{name}");
        }
        let mut spoiled = made();
        spoiled["metadata"]["labels"][COMPANION.0] = json!("helm");
        assert_eq!(judged(&spoiled), Err(Lack::Label));
        assert_eq!(why_none(&spoiled), None);
    }

    #[test]
    fn it_says_single_addresses_and_nothing_else() {
        for (path, value) in [
            ("/spec", json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
            ("/spec/policyTypes", json!(["Ingress", "Egress"])),
            ("/spec/policyTypes", json!([])),
            ("/spec/ingress", json!([{}])),
            ("/spec/ingress/0/from", json!([])),
            ("/spec/ingress/0/ports", json!([])),
            ("/spec/ingress/0/from/0", json!({"podSelector": {}})),
            ("/spec/ingress/0/from/0", json!({"ipBlock": {"cidr": "10.9.0.0/24"}})),
            ("/spec/ingress/0/from/0/ipBlock", json!({"cidr": "10.9.0.1/32", "except": ["10.9.0.1/32"]})),
            ("/spec/podSelector", json!({"matchFuture": {}})),
            ("/spec/ingress/0", json!({"from": [{"ipBlock": {"cidr": "10.9.0.1/32"}}], "future": 1})),
        ] {
            let mut spoiled = made();
            *spoiled.pointer_mut(path).unwrap() = value;
            assert!(matches!(judged(&spoiled), Err(Lack::Shape(_))), "{path}: {spoiled:#}");
        }
    }
}
