//! The policy of the NICs in the tables of a bank, in a place of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datapath::abi::{
    Bank, CidrEntry, CidrKey, ClassEntry, ClassKey, EndpointEntry, EndpointKey, Place, PolicyEntry,
    PolicyKey, Settings, TunnelEntry, TunnelKey, endpoint_flag, settings_flag,
};
use datapath::{Address, Port};
use policy::identity::Identity;
use policy::state::NodeState;

use super::super::nic::NicImage;
use super::super::tables::Contents;
use super::PolicyTables;

const PLACE: u8 = Place::nic(Bank::A).number();

/// Adds it to the tables of the mesh.
pub(super) fn add(contents: &mut Contents, state: &NodeState, image: &NicImage, tables: &PolicyTables) {
    let known = known(state, image).into_iter();
    contents.endpoints.change(known.map(|(address, entry)| (key(address), Some(entry))).collect());
    let device = |set: &u32| {
        let key = TunnelKey { bank: PLACE, reserved: [0; 3], set: *set, address: Address::NONE };
        (key, Some(TunnelEntry::default()))
    };
    contents.tunnels.change(image.devices.keys().map(device).collect());
    let cidr = |(key, entry): (&CidrKey, &CidrEntry)| (CidrKey { bank: PLACE, ..*key }, Some(*entry));
    contents.cidrs.change(tables.cidrs.iter().map(cidr).collect());
    let class = |(key, entry): (&ClassKey, &ClassEntry)| (ClassKey { bank: PLACE, ..*key }, Some(*entry));
    contents.classes.change(tables.classes.iter().map(class).collect());
    let rule = |(key, entry): (&PolicyKey, &PolicyEntry)| (PolicyKey { bank: PLACE, ..*key }, Some(*entry));
    contents.policy.change(tables.entries.iter().map(rule).collect());
    contents.settings = contents.settings.map(|settings| with(settings, image, tables));
}

fn with(settings: Settings, image: &NicImage, tables: &PolicyTables) -> Settings {
    let audit = if image.audit { settings_flag::AUDIT } else { 0 };
    Settings {
        nic_flags: settings_flag::GOVERNS | tables.flags | audit,
        nic_ingress_default: tables.ingress.action.number(),
        nic_egress_default: tables.egress.action.number(),
        nic_ingress_rule: tables.ingress.rule,
        nic_egress_rule: tables.egress.rule,
        nic_deadline: image.deadline,
        nic_tunnel_port: Port::new(image.tunnel_port),
        ..settings
    }
}

/// This host, and the nodes of the mesh by the addresses of their tunnels.
fn known(state: &NodeState, image: &NicImage) -> BTreeMap<IpAddr, EndpointEntry> {
    let nodes: BTreeSet<IpAddr> =
        state.endpoints.values().flat_map(|endpoint| endpoint.tunnels.iter().copied()).collect();
    let nodes = nodes.into_iter().map(|address| (address, entry(Identity::REMOTE_NODE, 0)));
    // Among the tunnels are the host's own: these come last.
    let own = image.own.iter().map(|address| (*address, entry(Identity::HOST, endpoint_flag::OWN)));
    nodes.chain(own).collect()
}

fn key(address: IpAddr) -> EndpointKey {
    EndpointKey { bank: PLACE, reserved: [0; 3], address: Address::from(address) }
}

const fn entry(identity: Identity, flags: u32) -> EndpointEntry {
    EndpointEntry {
        identity: identity.get(),
        previous: 0,
        mark: 0,
        tunnel_set: 0,
        tunnel: Address::NONE,
        flags,
        reserved: 0,
    }
}
