//! Stubs on devices: put there, found again after a restart, put back when someone removed them.

use std::collections::BTreeSet;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{Link, LinkOrder, SchedClassifier, TcAttachType};
use datapath::abi::Hook;
use hostnet::{Classifier, Netlink};

use super::AttachedBy;
use super::error::KernelError;
use super::pins::{Pins, unpin};
use super::programs::Stubs;

#[cfg(test)]
mod tests;

/// Our place among the classifiers of a device: before those of others, which may end a packet's way.
const PRIORITY: u16 = 1;
/// What tells our classifier from others of that priority ("OR").
const HANDLE: TcHandle = TcHandle::new(0, 0x4f52);

/// The hooks of this mesh.
pub(super) struct Hooks {
    pins: Pins,
    stubs: Stubs,
    by: AttachedBy,
}

/// A device that a hook is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HookedDevice {
    pub(super) name: String,
    pub(super) ifindex: u32,
}

/// What had to be done for a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing.
    InPlace,
    /// It was attached, or an older stub was replaced.
    Attached,
}

impl Hooks {
    /// Takes over the stubs. Uses tc links where the kernel has them.
    pub(super) fn new(pins: Pins, stubs: Stubs) -> Self {
        let links = SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok();
        Self { pins, stubs, by: if links { AttachedBy::Link } else { AttachedBy::Classifier } }
    }

    /// How hooks are attached on this kernel.
    pub(super) fn by(&self) -> AttachedBy {
        self.by
    }

    /// Sees to it that the stub of a hook is on a device.
    pub(super) async fn ensure(
        &mut self,
        netlink: &Netlink,
        hook: Hook,
        device: &HookedDevice,
    ) -> Result<Outcome, KernelError> {
        let failed = |reason: String| KernelError::Hook { hook, device: device.name.clone(), reason };
        let pin = self.pins.link(hook, device.ifindex);
        let by = self.by;
        let Some((_, stub)) = self.stubs.iter_mut().find(|(of, _)| *of == hook) else {
            return Err(KernelError::ObjectLacks(format!("stub_{}", hook.program())));
        };
        let id = stub.info().map_err(|error| failed(error.to_string()))?.id();
        match by {
            AttachedBy::Link => ensure_link(stub, id, hook, device, &pin).map_err(failed),
            AttachedBy::Classifier => {
                let there = netlink
                    .classifier(device.ifindex, hook_is_ingress(hook), PRIORITY, u32::from(HANDLE))
                    .await
                    .map_err(|error| failed(error.to_string()))?;
                ensure_classifier(stub, id, hook, device, there.as_ref()).map_err(failed)
            }
        }
    }

    /// Takes stubs off devices that need them no longer and forgets devices that are gone.
    pub(super) fn keep_only(&self, wanted: &BTreeSet<(Hook, u32)>) -> Result<(), KernelError> {
        for (hook, ifindex) in self.pins.links()? {
            if !wanted.contains(&(hook, ifindex)) {
                unpin(&self.pins.link(hook, ifindex))?;
            }
        }
        Ok(())
    }
}

/// Takes our guard off a device where it is a classifier; tells whether there was one.
pub(super) async fn remove_classifier(netlink: &Netlink, ifindex: u32, device: &str) -> bool {
    let hook = Hook::GuardIngress;
    let there = netlink.classifier(ifindex, hook_is_ingress(hook), PRIORITY, u32::from(HANDLE)).await;
    if !matches!(there, Ok(Some(_))) {
        return false;
    }
    let link = SchedClassifierLink::attached(device, direction(hook), PRIORITY, HANDLE, None);
    link.is_ok_and(|link| Link::detach(link).is_ok())
}

fn hook_is_ingress(hook: Hook) -> bool {
    hook.direction() == datapath::Direction::Ingress
}

fn direction(hook: Hook) -> TcAttachType {
    if hook_is_ingress(hook) { TcAttachType::Ingress } else { TcAttachType::Egress }
}

fn ensure_link(
    stub: &mut SchedClassifier,
    id: u32,
    hook: Hook,
    device: &HookedDevice,
    pin: &std::path::Path,
) -> Result<Outcome, String> {
    let (_, attached) =
        SchedClassifier::query_tcx(&device.name, direction(hook)).map_err(|error| error.to_string())?;
    if attached.iter().any(|program| program.id() == id) && pin.exists() {
        return Ok(Outcome::InPlace);
    }
    // A link with an older stub is updated, so that no packet passes between two stubs.
    if let Ok(old) = PinnedLink::from_pin(pin)
        && let Ok(link) = SchedClassifierLink::try_from(FdLink::from(old))
        && let Ok(link_id) = stub.attach_to_link(link)
    {
        // The pin holds the link.
        drop(stub.take_link(link_id));
        return Ok(Outcome::Attached);
    }
    unpin(pin).map_err(|error| error.to_string())?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link_id = stub
        .attach_with_options(&device.name, direction(hook), options)
        .map_err(|error| error.to_string())?;
    let link = stub.take_link(link_id).map_err(|error| error.to_string())?;
    let link = FdLink::try_from(link).map_err(|error| error.to_string())?;
    link.pin(pin).map_err(|error| error.to_string())?;
    Ok(Outcome::Attached)
}

fn ensure_classifier(
    stub: &mut SchedClassifier,
    id: u32,
    hook: Hook,
    device: &HookedDevice,
    there: Option<&Classifier>,
) -> Result<Outcome, String> {
    if there.is_some_and(|there| there.program_id == Some(id)) {
        return Ok(Outcome::InPlace);
    }
    // The queueing discipline may be there already, ours or another's.
    drop(tc::qdisc_add_clsact(&device.name));
    let link_id = if there.is_some() {
        let link = SchedClassifierLink::attached(&device.name, direction(hook), PRIORITY, HANDLE, None)
            .map_err(|error| error.to_string())?;
        stub.attach_to_link(link).map_err(|error| error.to_string())?
    } else {
        let options =
            TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
        stub.attach_with_options(&device.name, direction(hook), options).map_err(|error| error.to_string())?
    };
    // A classifier belongs to its device; dropping the link would remove it.
    std::mem::forget(stub.take_link(link_id).map_err(|error| error.to_string())?);
    Ok(Outcome::Attached)
}
