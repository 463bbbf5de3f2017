//! Leaving: removes all of ours from the kernel, without loading anything.

use hostnet::{Desired, Inventory, Kernel as _, Netlink, Observed, apply, plan};

use super::error::KernelError;
use super::pins::Pins;
use super::{KernelConfig, hooks};

/// Removes the mesh device, its routes and backstops, the hooks and the pins, and lists what was removed.
///
/// Works whether or not programs are loaded by this process; what others have made stays.
///
/// # Errors
/// The first thing that could not be removed; calling it again goes on from there.
pub async fn remove(config: &KernelConfig) -> Result<Vec<String>, KernelError> {
    let pins = Pins::new(&config.bpffs, &config.mesh);
    let _lock = pins.exist().then(|| pins.lock()).transpose()?;
    remove_ours(config).await
}

/// The same for who has the lock.
pub(super) async fn remove_ours(config: &KernelConfig) -> Result<Vec<String>, KernelError> {
    let netlink = |operation| move |source| KernelError::Netlink { operation, source };
    let mut kernel = Netlink::connect().map_err(netlink("connect"))?;
    let inventory = kernel.inventory().await.map_err(netlink("read links, addresses and routes"))?;
    let observed = Observed::of(&inventory, &config.device);
    let operations = plan(&observed, &Desired::default())?;
    apply(&mut kernel, operations.operations()).await?;
    let mut removed = removed_network(&observed);
    let pins = Pins::new(&config.bpffs, &config.mesh);
    removed.extend(remove_classifiers(&kernel, &pins, &inventory, &config.device).await?);
    removed.extend(pins.remove_all()?);
    Ok(removed)
}

fn removed_network(observed: &Observed) -> Vec<String> {
    let mut removed = Vec::new();
    if let Some(device) = observed.device.as_ref().filter(|device| device.port.is_some()) {
        removed.push(format!("device {}", device.name));
        removed.extend(device.addresses.iter().map(|address| format!("address {address}")));
        removed.extend(device.routes.keys().map(|prefix| format!("route {prefix}")));
    }
    let backstops = observed.unreachable.difference(&observed.others);
    removed.extend(backstops.map(|prefix| format!("route unreachable {prefix}")));
    removed
}

/// Links go with their pins; classifiers of kernels without links have to be taken off one by one.
async fn remove_classifiers(
    kernel: &Netlink,
    pins: &Pins,
    inventory: &Inventory,
    device: &str,
) -> Result<Vec<String>, KernelError> {
    let mut removed = Vec::new();
    for link in inventory.links.values().filter(|link| link.name != device) {
        let device = hooks::HookedDevice { name: link.name.clone(), ifindex: link.index };
        removed.extend(hooks::remove_classifier(kernel, pins, &device).await?);
    }
    Ok(removed)
}
