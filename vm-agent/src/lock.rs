//! One agent for each state folder, each folder of pins and each device. A second one is refused by the name of the key
//! that has to differ, with the other's process id.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket, sockopt,
};

/// What another agent has.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It has what this one wants.
    #[error("{what} belongs to another agent{}: give one of them another {key}", process(*.by))]
    Taken {
        /// What both want.
        what: String,
        /// The keys of the configuration that may differ.
        key: &'static str,
        /// The other's process id, where the kernel tells it.
        by: Option<i32>,
    },
    /// Whether it does cannot be told.
    #[error("locking {}: {source}", path.display())]
    Unknown {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A folder that is this process's until this is dropped.
#[derive(Debug)]
pub struct FolderLock {
    _lock: Flock<File>,
}

/// A device name that is this process's, in its network namespace, until this is dropped.
#[derive(Debug)]
pub struct DeviceLock {
    _socket: Option<OwnedFd>,
}

impl FolderLock {
    /// Locks a folder that is there. The folder itself is locked, so that nothing has to be left in it. `key` names what
    /// makes another folder.
    ///
    /// # Errors
    /// [`LockError::Taken`] if another agent has it.
    pub fn take(folder: &Path, key: &'static str) -> Result<Self, LockError> {
        let unknown = |source| LockError::Unknown { path: folder.to_owned(), source };
        let file = File::open(folder).map_err(unknown)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err((file, Errno::EWOULDBLOCK)) => {
                let what = format!("the folder {}", folder.display());
                Err(LockError::Taken { what, key, by: holder(&file) })
            }
            Err((_, errno)) => Err(unknown(errno.into())),
        }
    }
}

impl DeviceLock {
    /// Reserves a device name: by an abstract socket, which is of a network namespace as the device is, and goes with its
    /// process. Anybody may make one, so only root's counts.
    ///
    /// # Errors
    /// [`LockError::Taken`] if another agent has it.
    pub fn take(device: &str) -> Result<Self, LockError> {
        let unknown = |errno: Errno| LockError::Unknown { path: device.into(), source: errno.into() };
        let name =
            UnixAddr::new_abstract(format!("outrigger/device/{device}").as_bytes()).map_err(unknown)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let new = || socket(AddressFamily::Unix, SockType::Stream, flags, None);
        let own = new().map_err(unknown)?;
        match bind(std::os::fd::AsRawFd::as_raw_fd(&own), &name) {
            Ok(()) => {
                listen(&own, Backlog::new(1).map_err(unknown)?).map_err(unknown)?;
                return Ok(Self { _socket: Some(own) });
            }
            Err(Errno::EADDRINUSE) => {}
            Err(errno) => return Err(unknown(errno)),
        }
        let other = new().map_err(unknown)?;
        let peer = connect(std::os::fd::AsRawFd::as_raw_fd(&other), &name)
            .and_then(|()| getsockopt(&other.as_fd(), sockopt::PeerCredentials));
        match peer {
            Ok(peer) if peer.uid() != 0 => {
                tracing::warn!(
                    device,
                    process = peer.pid(),
                    "the name of this agent's lock is taken by a user"
                );
                Ok(Self { _socket: None })
            }
            peer => {
                let by = peer.ok().map(|peer| peer.pid());
                Err(LockError::Taken { what: format!("the device {device}"), key: "`device`", by })
            }
        }
    }
}

/// Who holds the lock of a file (`/proc/locks`, proc(5)).
fn holder(file: &File) -> Option<i32> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // `1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF`
        let [_, "FLOCK", _, _, pid, place, ..] = words.as_slice() else { return None };
        (place.rsplit(':').next() == Some(inode.as_str())).then(|| pid.parse().ok()).flatten()
    })
}

fn process(by: Option<i32>) -> String {
    by.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(error: &LockError) -> String {
        assert!(matches!(error, LockError::Taken { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn a_folder_belongs_to_one_and_the_other_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path(), "`stateDir`").unwrap();
        let said = taken(&FolderLock::take(folder.path(), "`stateDir`").unwrap_err());
        let own = format!("process {}", std::process::id());
        assert!(said.contains("`stateDir`") && said.contains(&own), "{said}");
        drop(first);
        assert!(FolderLock::take(folder.path(), "`stateDir`").is_ok());
    }

    #[test]
    fn a_device_belongs_to_one_and_the_other_is_named() {
        let device = format!("ogr{}", std::process::id() % 100_000);
        let first = DeviceLock::take(&device).unwrap();
        for _ in 0..4 {
            let said = taken(&DeviceLock::take(&device).unwrap_err());
            assert!(said.contains("`device`") && said.contains(&device), "{said}");
        }
        let said = DeviceLock::take(&device).unwrap_err().to_string();
        drop(first);
        assert!(DeviceLock::take(&device).is_ok(), "{said}");
    }
}
