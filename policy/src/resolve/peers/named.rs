//! Peers that other objects tell: Services and groups of blocks. An object that is not there has nobody.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Found, outside};
use crate::facts::{CidrGroup, Facts, Service};
use crate::labels::{self, Labels, OBJECT_PREFIX};
use crate::rules::{CidrGroups, ServicePeer, Services};
use crate::selector::{Requirement, Selector};

/// The Service of the API server, which every cluster has.
const API_SERVER: &str = "default/kubernetes";

/// What the Services lead to: those that their selectors choose, or the addresses of their slices.
pub(super) fn add_services(facts: &Facts, peer: &ServicePeer, found: &mut Found) -> Option<String> {
    match &peer.services {
        Services::Named(name) => {
            let key = format!("{}/{name}", peer.namespace.as_deref().unwrap_or_default());
            let Some(service) = facts.services.get(key.as_str()) else {
                return Some(format!("there is no Service {key}: the peer is nobody"));
            };
            add_service(service, found);
        }
        Services::Selected(selector) => {
            let in_scope = |service: &&Arc<Service>| {
                peer.namespace.as_ref().is_none_or(|namespace| *namespace == service.namespace)
            };
            for service in facts.services.values().filter(in_scope) {
                if selector.matches(&of_object(&service.labels)) {
                    add_service(service, found);
                }
            }
        }
    }
    None
}

fn add_service(service: &Service, found: &mut Found) {
    let Some(selector) = &service.selector else {
        found
            .blocks
            .extend(service.addresses.iter().map(|address| outside(IpNet::from(*address), Vec::new())));
        return;
    };
    let within = Selector::default().and(Requirement::is(labels::NAMESPACE, &service.namespace));
    let label = |(key, value): (&String, &String)| Requirement::is(format!("{OBJECT_PREFIX}{key}"), value);
    found.selectors.insert(selector.iter().map(label).fold(within, Selector::and));
}

pub(super) fn add_api_server(facts: &Facts, found: &mut Found) -> Option<String> {
    let Some(service) = facts.services.get(API_SERVER) else {
        return Some("the addresses of the API server are not known: kube-apiserver is nobody".to_owned());
    };
    add_service(service, found);
    None
}

/// The blocks of the groups without the exceptions.
pub(super) fn add_groups(
    facts: &Facts,
    groups: &CidrGroups,
    except: &[IpNet],
    found: &mut Found,
) -> Option<String> {
    let mut add = |group: &CidrGroup| {
        for cidr in &group.cidrs {
            let holes = except.iter().copied().filter(|hole| cidr.contains(hole)).collect();
            // One exception may cover the whole block.
            if !except.iter().any(|hole| hole.contains(cidr)) {
                found.blocks.push(outside(*cidr, holes));
            }
        }
    };
    match groups {
        CidrGroups::Named(name) => {
            let Some(group) = facts.cidr_groups.get(name.as_str()) else {
                return Some(format!("there is no CiliumCIDRGroup {name}: the peer is nobody"));
            };
            add(group);
        }
        CidrGroups::Selected(selector) => {
            for group in
                facts.cidr_groups.values().filter(|group| selector.matches(&of_object(&group.labels)))
            {
                add(group);
            }
        }
    }
    None
}

/// Labels of an object in the form that selectors are about.
fn of_object(labels: &std::collections::BTreeMap<String, String>) -> Labels {
    Labels(labels.iter().map(|(key, value)| (format!("{OBJECT_PREFIX}{key}"), value.clone())).collect())
}
