//! The counters of the programs, summed over CPUs.

use aya::maps::{Map, MapData, PerCpuArray};
use datapath::Reason;
use datapath::abi::{Hook, counter_slot};

use super::Counter;
use super::error::{KernelError, on_map};
use super::pins::Pins;
use super::programs::pinned;

const NAME: &str = "COUNTERS";

/// Reads what is not zero, in the order of hooks and reasons.
pub(super) fn read(pins: &Pins) -> Result<Vec<Counter>, KernelError> {
    let data = pinned(&pins.stable(NAME), NAME)?;
    // Packets, bytes: the layout of `datapath::abi::Counter`.
    let array: PerCpuArray<MapData, [u64; 2]> =
        PerCpuArray::try_from(Map::PerCpuArray(data)).map_err(on_map(NAME))?;
    let mut counters = Vec::new();
    for hook in Hook::ALL {
        for reason in Reason::ALL {
            let values = array.get(&counter_slot(hook, *reason), 0).map_err(on_map(NAME))?;
            let (packets, bytes) = values.iter().fold((0_u64, 0_u64), |sum, [packets, bytes]| {
                (sum.0.wrapping_add(*packets), sum.1.wrapping_add(*bytes))
            });
            if packets > 0 {
                counters.push(Counter { hook, direction: hook.direction(), reason: *reason, packets, bytes });
            }
        }
    }
    Ok(counters)
}
