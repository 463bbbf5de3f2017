//! `networking.k8s.io/v1 NetworkPolicy`: the language is the policy crate's; here its refusals get their lines.

use policy::rules::PolicyObject;

use super::decode::InvalidField;
use super::node::Node;

pub(super) fn decode(node: &Node) -> Result<PolicyObject, InvalidField> {
    policy::networkpolicy::parse(&node.to_json()).map_err(|invalid| {
        let Some((first, others)) = invalid.errors.split_first() else {
            return InvalidField::new(node, "", "is refused");
        };
        let mut message = first.message.clone();
        for other in others {
            let line = node.position_of(&other.path).line;
            message = format!("{message}; and at line {line}: {other}");
        }
        InvalidField { position: node.position_of(&first.path), field: first.path.clone(), message }
    })
}
