//! `CiliumCIDRGroup`: blocks that policies refer to by the group's name or labels.

use ipnet::IpNet;
use policy::facts::CidrGroup;
use serde::Deserialize;

use super::decode::{InvalidField, Step, decode as values};
use super::fields;
use super::metadata::Metadata;
use super::node::Node;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "externalCIDRs")]
    external_cidrs: Vec<String>,
}

pub(super) fn decode(node: &Node, metadata: Metadata) -> Result<CidrGroup, InvalidField> {
    fields::only(node, &["apiVersion", "kind", "metadata", "spec"])?;
    fields::only_in(node, "spec", &["externalCIDRs"])?;
    let spec = node.get("spec").ok_or_else(|| InvalidField::new(node, "spec", "is missing"))?;
    let within = |error: InvalidField| error.within(Step::Field("spec"), spec.position);
    let wire: Spec = values(spec).map_err(within)?;
    let mut cidrs = Vec::new();
    for (index, text) in wire.external_cidrs.iter().enumerate() {
        let Ok(net) = text.parse::<IpNet>() else {
            let field = format!("spec.externalCIDRs[{index}]");
            let position = node.position_of(&field);
            let message = format!("{text:?} is no CIDR block such as 10.0.0.0/8 or 2001:db8::/32");
            return Err(InvalidField { position, field, message });
        };
        cidrs.push(net.trunc());
    }
    cidrs.sort();
    cidrs.dedup();
    Ok(CidrGroup { labels: metadata.labels, cidrs })
}
