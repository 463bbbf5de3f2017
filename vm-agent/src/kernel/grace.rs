//! The array of maps whose update waits for an RCU grace period. The only raw `bpf()` calls: aya can use such a map,
//! but creates one only as part of an object.
#![expect(unsafe_code, reason = "a system call on a struct, and ownership of the descriptor it returns")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use aya::maps::{Array, ArrayOfMaps, Map, MapData};

use super::error::{KernelError, on_map};

const NAME: &str = "GRACE";
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// An array of maps with one slot. The kernel ends an update of it with `synchronize_rcu`, since programs may still
/// hold the map that was in the slot: after the update no program runs that was running before.
pub(super) struct Grace {
    outer: ArrayOfMaps<MapData, Array<MapData, u32>>,
    inner: Array<MapData, u32>,
}

/// The head of `union bpf_attr` for `BPF_MAP_CREATE`; the kernel takes what is absent as zero.
#[repr(C)]
struct CreateAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

impl Grace {
    /// Opens the pinned map, or creates and pins it.
    pub(super) fn open(pin: &Path) -> Result<Self, KernelError> {
        let inner = create(BPF_MAP_TYPE_ARRAY, 0).map_err(refused)?;
        let outer = if let Ok(pinned) = MapData::from_pin(pin) {
            pinned
        } else {
            let fd = u32::try_from(inner.as_raw_fd()).unwrap_or(0);
            let outer = create(BPF_MAP_TYPE_ARRAY_OF_MAPS, fd).map_err(refused)?;
            let outer = MapData::from_fd(outer).map_err(on_map(NAME))?;
            outer.pin(pin).map_err(|error| refused(io::Error::other(error)))?;
            outer
        };
        let inner = Map::Array(MapData::from_fd(inner).map_err(on_map(NAME))?);
        Ok(Self {
            outer: ArrayOfMaps::try_from(Map::ArrayOfMaps(outer)).map_err(on_map(NAME))?,
            inner: Array::try_from(inner).map_err(on_map(NAME))?,
        })
    }

    /// Waits until no program runs that was running at the call.
    pub(super) fn wait(&mut self) -> Result<(), aya::maps::MapError> {
        self.outer.set(0, &self.inner, 0)
    }
}

fn create(map_type: u32, inner_map_fd: u32) -> io::Result<OwnedFd> {
    let attributes =
        CreateAttributes { map_type, key_size: 4, value_size: 4, max_entries: 1, map_flags: 0, inner_map_fd };
    // SAFETY: the kernel reads `size_of` bytes of a struct that lives across the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, &raw const attributes, size_of::<CreateAttributes>())
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the descriptor is new and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn refused(source: io::Error) -> KernelError {
    KernelError::File { operation: "create the map", path: NAME.into(), source }
}
