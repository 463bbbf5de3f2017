//! Kernel memory of the maps.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use super::MapMemory;
use super::error::{KernelError, on_file};
use super::pins::Pins;
use super::programs::{BANKED, STABLE, pinned};

/// Reads what the kernel accounts for each map.
pub(super) fn read(pins: &Pins) -> Result<Vec<MapMemory>, KernelError> {
    let stable = STABLE.iter().map(|name| (*name, pins.stable(name)));
    let banked = BANKED.iter().map(|name| (*name, pins.versioned(name)));
    let memory = |(name, pin): (&str, std::path::PathBuf)| {
        let map = pinned(&pin, name)?;
        let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let text = fs::read_to_string(&path).map_err(on_file("read", path))?;
        Ok(MapMemory { map: name.to_owned(), bytes: memlock(&text).unwrap_or(0) })
    };
    stable.chain(banked).map(memory).collect()
}

/// The line `memlock:` of a map's fdinfo (see proc(5)).
fn memlock(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_accounted_bytes_are_found() {
        assert_eq!(super::memlock("pos:\t0\nmap_type:\t1\nmemlock:\t4096\nmap_id:\t7\n"), Some(4096));
        assert_eq!(super::memlock("pos:\t0\n"), None);
    }
}
