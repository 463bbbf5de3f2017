//! Stubs on devices: put there, found again after a restart, put back when someone removed them.

use std::collections::BTreeSet;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{Link, LinkOrder, SchedClassifier, TcAttachType};
use datapath::abi::Hook;
use hostnet::Netlink;

use super::AttachedBy;
use super::error::KernelError;
use super::pins::{Pins, unpin};
use super::programs::Stubs;

#[cfg(test)]
mod tests;

/// Our place among the classifiers of a device: before those of others, which may end a packet's way. Several meshes
/// share it, each with its handle, and a stub that lets a packet pass hands it to the next.
const PRIORITY: u16 = 1;

/// The hooks of this mesh.
pub(super) struct Hooks {
    pins: Pins,
    stubs: Stubs,
    by: AttachedBy,
    handle: TcHandle,
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
        let handle = handle(pins.mesh());
        Self { pins, stubs, by: if links { AttachedBy::Link } else { AttachedBy::Classifier }, handle }
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
                    .classifier(device.ifindex, hook_is_ingress(hook), PRIORITY, u32::from(self.handle))
                    .await
                    .map_err(|error| failed(error.to_string()))?;
                if there.as_ref().is_some_and(|there| there.program_id == Some(id)) {
                    return Ok(Outcome::InPlace);
                }
                add_qdisc(&self.pins, device)?;
                ensure_classifier(stub, self.handle, hook, device, there.is_some()).map_err(failed)?;
                Ok(Outcome::Attached)
            }
        }
    }

    /// Takes the stub off a hook of a device where it is a classifier; links are found by their pins.
    pub(super) async fn release(
        &self,
        netlink: &Netlink,
        hook: Hook,
        device: &HookedDevice,
    ) -> Result<(), KernelError> {
        match self.by {
            AttachedBy::Link => Ok(()),
            AttachedBy::Classifier => detach_classifier(netlink, &self.pins, hook, device).await.map(drop),
        }
    }

    /// Takes stubs off devices that need them no longer and forgets devices that are gone.
    pub(super) fn keep_only(
        &self,
        wanted: &BTreeSet<(Hook, u32)>,
        exists: impl Fn(u32) -> bool,
    ) -> Result<(), KernelError> {
        if self.by == AttachedBy::Classifier {
            self.pins.forget_qdiscs(exists)?;
        }
        for (hook, ifindex) in self.pins.links()? {
            if !wanted.contains(&(hook, ifindex)) {
                unpin(&self.pins.link(hook, ifindex))?;
            }
        }
        Ok(())
    }
}

/// What tells the classifiers of a mesh from those of others, of other meshes too: a number of its name (FNV-1a), the
/// same in every process and version.
fn handle(mesh: &str) -> TcHandle {
    let hash =
        mesh.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // 0 would have the kernel choose.
    TcHandle::from(hash.max(1))
}

/// Sees to it that a device has a `clsact`, and remembers if it is a mesh that made it.
fn add_qdisc(pins: &Pins, device: &HookedDevice) -> Result<(), KernelError> {
    // Whether it was there already shows here; why there is none, when the classifier is attached.
    let is_made = tc::qdisc_add_clsact(&device.name).is_ok();
    if is_made || pins.another_made_qdisc(device.ifindex) { pins.made_qdisc(device.ifindex) } else { Ok(()) }
}

/// Takes our guard off a device where it is a classifier, and the `clsact` that a mesh made if it is empty now; tells
/// what was there.
pub(super) async fn remove_classifier(
    netlink: &Netlink,
    pins: &Pins,
    device: &HookedDevice,
) -> Result<Vec<String>, KernelError> {
    let HookedDevice { name, ifindex } = device;
    let failed = |source| KernelError::Netlink { operation: "read classifiers", source };
    let mut removed = Vec::new();
    for hook in [Hook::GuardIngress, Hook::GuardEgress] {
        if detach_classifier(netlink, pins, hook, device).await? {
            removed.push(format!("classifier on {name}"));
        }
    }
    if pins.has_made_qdisc(*ifindex) && netlink.remove_empty_clsact(*ifindex).await.map_err(failed)? {
        removed.push(format!("clsact of {name}"));
    }
    Ok(removed)
}

/// Takes our classifier off one hook of a device, if it is there.
async fn detach_classifier(
    netlink: &Netlink,
    pins: &Pins,
    hook: Hook,
    device: &HookedDevice,
) -> Result<bool, KernelError> {
    let HookedDevice { name, ifindex } = device;
    let handle = handle(pins.mesh());
    let there = netlink.classifier(*ifindex, hook_is_ingress(hook), PRIORITY, u32::from(handle)).await;
    let there = there.map_err(|source| KernelError::Netlink { operation: "read classifiers", source })?;
    if there.is_none() {
        return Ok(false);
    }
    let link = SchedClassifierLink::attached(name, direction(hook), PRIORITY, handle, None);
    let detached = link.map(Link::detach).map_err(|error| error.to_string());
    detached
        .and_then(|detached| detached.map_err(|error| error.to_string()))
        .map_err(|reason| KernelError::Hook { hook, device: name.clone(), reason })?;
    Ok(true)
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
    handle: TcHandle,
    hook: Hook,
    device: &HookedDevice,
    is_there: bool,
) -> Result<(), String> {
    let link_id = if is_there {
        let link = SchedClassifierLink::attached(&device.name, direction(hook), PRIORITY, handle, None)
            .map_err(|error| error.to_string())?;
        stub.attach_to_link(link).map_err(|error| error.to_string())?
    } else {
        let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle, classid: None });
        stub.attach_with_options(&device.name, direction(hook), options).map_err(|error| error.to_string())?
    };
    // A classifier belongs to its device; dropping the link would remove it.
    std::mem::forget(stub.take_link(link_id).map_err(|error| error.to_string())?);
    Ok(())
}
