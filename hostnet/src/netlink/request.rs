//! Operation → request to the kernel.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressScope};
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoVxlan, LinkAttribute};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
use nix::errno::Errno;
use rtnetlink::{Error, Handle, LinkMessageBuilder, LinkUnspec, LinkVxlan, RouteMessageBuilder};

use crate::kernel::ApplyError;
use crate::mac::Mac;
use crate::plan::Operation;
use crate::{BACKSTOP_METRIC, ROUTE_PROTOCOL};

/// Asks the kernel for one operation.
pub(super) async fn execute(handle: &Handle, operation: &Operation) -> Result<(), Error> {
    match operation {
        Operation::AddUnreachable(prefix) => handle.route().add(unreachable(*prefix)?).execute().await,
        Operation::RemoveUnreachable(prefix) => handle.route().del(unreachable(*prefix)?).execute().await,
        Operation::CreateDevice { name, port, mtu, mac } => create(handle, name, *port, *mtu, *mac).await,
        Operation::DeleteDevice(name) => {
            let index = index(handle, name).await?;
            handle.link().del(index).execute().await
        }
        Operation::SetMtu { device, mtu } => {
            handle.link().set(LinkUnspec::new_with_name(device).mtu(*mtu).build()).execute().await
        }
        Operation::SetMac { device, mac: Mac(bytes) } => {
            handle
                .link()
                .set(LinkUnspec::new_with_name(device).address(bytes.to_vec()).build())
                .execute()
                .await
        }
        Operation::SetUp { device, port: _ } => {
            handle.link().set(LinkUnspec::new_with_name(device).up().build()).execute().await
        }
        Operation::SetDown(device) => {
            handle.link().set(LinkUnspec::new_with_name(device).down().build()).execute().await
        }
        Operation::AddAddress { device, address } => add_address(handle, device, *address).await,
        Operation::RemoveAddress { device, address } => remove_address(handle, device, *address).await,
        Operation::AddRoute { device, prefix, source } => {
            let message = route(index(handle, device).await?, *prefix, *source)?;
            handle.route().add(message).execute().await
        }
        Operation::RemoveRoute { device, prefix } => {
            let message = route(index(handle, device).await?, *prefix, None)?;
            handle.route().del(message).execute().await
        }
    }
}

/// Tells apart what is already done, what has a better explanation, and what is simply refused.
pub(super) fn judge(operation: &Operation, error: io::Error) -> Result<(), ApplyError> {
    let code = error.raw_os_error().map(Errno::from_raw);
    match (operation, code) {
        (Operation::AddUnreachable(_) | Operation::AddAddress { .. }, Some(Errno::EEXIST))
        | (Operation::RemoveUnreachable(_) | Operation::RemoveRoute { .. }, Some(Errno::ESRCH))
        | (Operation::RemoveAddress { .. }, Some(Errno::EADDRNOTAVAIL))
        | (
            Operation::DeleteDevice(_)
            | Operation::SetDown(_)
            | Operation::RemoveAddress { .. }
            | Operation::RemoveRoute { .. },
            Some(Errno::ENODEV),
        ) => Ok(()),
        (
            Operation::CreateDevice { port, .. } | Operation::SetUp { port, .. },
            Some(Errno::EEXIST | Errno::EADDRINUSE),
        ) => Err(ApplyError::PortInUse { operation: operation.clone(), port: *port }),
        (Operation::AddAddress { address, .. }, Some(Errno::EACCES)) if address.is_ipv6() => {
            Err(ApplyError::NoIpv6(operation.clone()))
        }
        (Operation::AddRoute { .. }, Some(Errno::EEXIST)) => Err(ApplyError::RouteTaken(operation.clone())),
        _ => Err(ApplyError::Refused { operation: operation.clone(), source: error }),
    }
}

async fn index(handle: &Handle, name: &str) -> Result<u32, Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await?;
    link.map(|link| link.header.index).ok_or(Error::RequestFailed)
}

/// Without ARP and generated addresses the device says nothing by itself. Checksums of the outer UDP header may be
/// missing on an IPv6 underlay (RFC 6935): senders behind offloads leave them out.
async fn create(handle: &Handle, name: &str, port: u16, mtu: u32, mac: Option<Mac>) -> Result<(), Error> {
    let mut device = LinkMessageBuilder::<LinkVxlan>::new(name)
        .port(port)
        .append_info_data(InfoVxlan::CollectMetadata(true))
        .append_info_data(InfoVxlan::Learning(false))
        .append_info_data(InfoVxlan::UDPZeroCsumRX(true))
        .mtu(mtu)
        .arp(false)
        .down();
    if let Some(Mac(bytes)) = mac {
        device = device.address(bytes.to_vec());
    }
    handle.link().add(device.build()).execute().await?;
    let silenced = silence(handle, name).await;
    if silenced.is_err() {
        // Half a device would later be taken for a whole one.
        let index = index(handle, name).await?;
        handle.link().del(index).execute().await?;
    }
    silenced
}

/// Turns off generated addresses, which only a device that exists can be told. A host without IPv6 has none.
async fn silence(handle: &Handle, name: &str) -> Result<(), Error> {
    let quiet = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let message = LinkUnspec::new_with_name(name)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![quiet]))
        .build();
    match handle.link().set(message).execute().await {
        Err(Error::NetlinkError(error)) if Errno::from_raw(-error.raw_code()) == Errno::EAFNOSUPPORT => {
            Ok(())
        }
        result => result,
    }
}

async fn add_address(handle: &Handle, device: &str, address: IpAddr) -> Result<(), Error> {
    let mut request = handle.address().add(index(handle, device).await?, address, full_length(address));
    let message = request.message_mut();
    message.header.scope = AddressScope::Universe;
    let flags = match address {
        IpAddr::V4(_) => AddressFlags::Noprefixroute,
        IpAddr::V6(_) => AddressFlags::Nodad | AddressFlags::Noprefixroute,
    };
    message.attributes.push(AddressAttribute::Flags(flags));
    request.execute().await
}

async fn remove_address(handle: &Handle, device: &str, address: IpAddr) -> Result<(), Error> {
    let index = index(handle, device).await?;
    let mut addresses =
        handle.address().get().set_link_index_filter(index).set_address_filter(address).execute();
    while let Some(message) = addresses.try_next().await? {
        handle.address().del(message).execute().await?;
    }
    Ok(())
}

fn full_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn unreachable(prefix: IpNet) -> Result<RouteMessage, Error> {
    let mut message = destination(prefix)?.kind(RouteType::Unreachable).priority(BACKSTOP_METRIC).build();
    message.header.scope = RouteScope::Universe;
    Ok(message)
}

fn route(device: u32, prefix: IpNet, source: Option<IpAddr>) -> Result<RouteMessage, Error> {
    let mut builder = destination(prefix)?.output_interface(device).kind(RouteType::Unicast);
    if prefix.addr().is_ipv4() {
        builder = builder.scope(RouteScope::Link);
    }
    if let Some(source) = source {
        builder = builder.pref_source(source).map_err(invalid)?;
    }
    Ok(builder.build())
}

fn destination(prefix: IpNet) -> Result<RouteMessageBuilder<IpAddr>, Error> {
    let builder = RouteMessageBuilder::<IpAddr>::new().protocol(RouteProtocol::from(ROUTE_PROTOCOL));
    builder.destination_prefix(prefix.network(), prefix.prefix_len()).map_err(invalid)
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::InvalidNla(error.to_string())
}
