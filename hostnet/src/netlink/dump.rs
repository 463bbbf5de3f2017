//! Messages of the kernel → inventory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteType, RouteVia,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::inventory::{Inventory, Link, LinkAddress, Route, RouteKind, Vxlan};
use crate::mac::Mac;

const TABLE_LOCAL: u32 = 255;
/// Not in the flags of the netlink crate: an address made by privacy extensions (`IFA_F_TEMPORARY` is the same bit
/// as `IFA_F_SECONDARY`, which in IPv4 is harmless).
const TEMPORARY: AddressFlags = AddressFlags::Secondary;

pub(super) async fn inventory(handle: &Handle) -> Result<Inventory, rtnetlink::Error> {
    let mut inventory = Inventory::default();
    let mut links = handle.link().get().execute();
    while let Some(message) = links.try_next().await? {
        let link = link(&message);
        inventory.links.insert(link.index, link);
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        if let Some((ip, address)) = address(&message)
            && let Some(link) = inventory.links.get_mut(&message.header.index)
        {
            link.addresses.insert(ip, address);
        }
    }
    for query in
        [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
    {
        let mut routes = handle.route().get(query).execute();
        while let Some(message) = routes.try_next().await? {
            inventory.routes.extend(route(&message));
        }
    }
    Ok(inventory)
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = *mtu;
        } else if let LinkAttribute::Address(bytes) = attribute {
            link.mac = bytes.as_slice().try_into().ok().map(Mac);
        } else if let LinkAttribute::Controller(index) = attribute {
            link.controller = Some(*index);
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            for info in infos {
                if let LinkInfo::Kind(kind) = info {
                    link.kind = Some(kind.to_string());
                } else if let LinkInfo::Data(InfoData::Vxlan(attributes)) = info {
                    link.vxlan = Some(vxlan(attributes));
                }
            }
        }
    }
    link
}

fn vxlan(attributes: &[InfoVxlan]) -> Vxlan {
    let mut vxlan = Vxlan::default();
    for attribute in attributes {
        if let InfoVxlan::Port(port) = attribute {
            vxlan.port = *port;
        } else if let InfoVxlan::CollectMetadata(external) = attribute {
            vxlan.external = *external;
        }
    }
    vxlan
}

fn address(message: &AddressMessage) -> Option<(IpAddr, LinkAddress)> {
    let mut ip = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        // On a point-to-point link `Address` is the other end and `Local` is ours.
        if let AddressAttribute::Local(local) = attribute {
            ip = Some(*local);
        } else if let AddressAttribute::Address(address) = attribute {
            ip = ip.or(Some(*address));
        } else if let AddressAttribute::Flags(all) = attribute {
            flags = *all;
        }
    }
    let ip = ip?;
    let mut unusable = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    if ip.is_ipv6() {
        unusable |= TEMPORARY;
    }
    let usable = !flags.intersects(unusable);
    Some((ip, LinkAddress { prefix_len: message.header.prefix_len, usable }))
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let unspecified = if header.address_family == AddressFamily::Inet {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else if header.address_family == AddressFamily::Inet6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        return None;
    };
    let kind = if header.kind == RouteType::Unicast {
        RouteKind::Unicast
    } else if header.kind == RouteType::Unreachable {
        RouteKind::Unreachable
    } else {
        RouteKind::Other
    };
    let mut destination = unspecified;
    let mut route = Route {
        destination: IpNet::new(unspecified, 0).ok()?,
        kind,
        protocol: header.protocol.into(),
        table: u32::from(header.table),
        device: None,
        gateways: Vec::new(),
        source: None,
        metric: 0,
    };
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(address) = attribute {
            destination = ip(address)?;
        } else if let RouteAttribute::Oif(index) = attribute {
            route.device = Some(*index);
        } else if let RouteAttribute::Priority(metric) = attribute {
            route.metric = *metric;
        } else if let RouteAttribute::Table(table) = attribute {
            route.table = *table;
        } else if let RouteAttribute::PrefSource(address) = attribute {
            route.source = ip(address);
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            route.gateways.extend(hops.iter().flat_map(hop_gateways));
        } else {
            route.gateways.extend(gateway(attribute));
        }
    }
    route.destination = IpNet::new(destination, header.destination_prefix_length).ok()?.trunc();
    (route.table != TABLE_LOCAL).then_some(route)
}

fn hop_gateways(hop: &RouteNextHop) -> impl Iterator<Item = IpAddr> {
    hop.attributes.iter().filter_map(gateway)
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    if let RouteAttribute::Gateway(address) = attribute {
        ip(address)
    } else if let RouteAttribute::Via(RouteVia::Inet6(address)) = attribute {
        Some(IpAddr::V6(*address))
    } else {
        None
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(v4) = address {
        Some(IpAddr::V4(*v4))
    } else if let RouteAddress::Inet6(v6) = address {
        Some(IpAddr::V6(*v6))
    } else {
        None
    }
}
