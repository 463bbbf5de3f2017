//! The agent's files: key, certificate, roots, enrolment and the last good state. One agent owns them at a time.
//!
//! Every file is written whole and synced beside its place and then renamed over it, so that a crash leaves the
//! old or the new one. The journal alone grows, and knows where it ends. The enrolment is written last when joining and removed first when leaving: with it the
//! other files count, without it they are leftovers.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::lock::{FolderLock, LockError};

mod enrolment;
mod journal;
mod snapshot;

pub use enrolment::{Enrolment, InvalidEnrolment};
pub use journal::{Checksum, Entry, Journal};
pub use snapshot::{InvalidSnapshot, Snapshot, checksum};

/// A file of the state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StateFile {
    /// Who this host is and where gateways are.
    Enrolment,
    /// The private key (PEM).
    Key,
    /// The certificate chain (PEM).
    Certificate,
    /// The trusted roots (PEM).
    Bundle,
    /// The last good state, as it was written whole.
    Snapshot,
    /// What changed since.
    Journal,
    /// What was decided about policy on the NICs.
    Nic,
    /// Which transit nodes do not answer.
    Silent,
}

impl StateFile {
    /// All, in the order in which they are removed.
    pub const ALL: [Self; 8] = [
        Self::Enrolment,
        Self::Key,
        Self::Certificate,
        Self::Bundle,
        Self::Snapshot,
        Self::Journal,
        Self::Nic,
        Self::Silent,
    ];

    /// The file's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enrolment => "enrolment.json",
            Self::Key => "identity.key",
            Self::Certificate => "certificate.pem",
            Self::Bundle => "bundle.pem",
            Self::Snapshot => "snapshot.bin",
            Self::Journal => "journal.bin",
            Self::Nic => "nic.json",
            Self::Silent => "silent.json",
        }
    }
}

/// What went wrong with a file of the state folder.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder cannot be made.
    #[error("making the state folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent works with the folder.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// Reading failed.
    #[error("reading {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed; the old content is still there.
    #[error("writing {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Removing failed.
    #[error("removing {}: {source}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The state folder of one mesh, locked.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: FolderLock,
}

impl StateDir {
    /// Makes `<root>/<mesh>` where it is missing, and locks it for this process.
    ///
    /// # Errors
    /// [`StateError::Locked`] if another agent has it, else [`StateError::Folder`].
    pub fn open(root: &Path, mesh: &str) -> Result<Self, StateError> {
        let path = root.join(mesh);
        let folder = |source| StateError::Folder { path: path.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(folder)?;
        let lock = FolderLock::take(&path, "`mesh` or `stateDir`")?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content of a file, wiped from memory when dropped; `None` if it is missing.
    ///
    /// # Errors
    /// [`StateError::Read`].
    pub fn read(&self, file: StateFile) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        let path = self.path.join(file.name());
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Read { path, source }),
        }
    }

    /// Replaces a file: readable for root only, whole and on the disk when this returns.
    ///
    /// # Errors
    /// [`StateError::Write`]; the old content is still there.
    pub fn write(&self, file: StateFile, content: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(file.name());
        self.replace(&path, content).map_err(|source| StateError::Write { path, source })
    }

    /// Writes behind what a file holds, which is on the disk when this returns.
    ///
    /// # Errors
    /// [`StateError::Write`]: also if the file has another length than this. A part of the content may be written.
    pub fn append(&self, file: StateFile, length: u64, content: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(file.name());
        let append = || {
            let mut file = File::options().append(true).open(&path)?;
            if file.metadata()?.len() != length {
                return Err(io::Error::other("it was changed by somebody else"));
            }
            file.write_all(content)?;
            file.sync_data()
        };
        append().map_err(|source| StateError::Write { path: path.clone(), source })
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        // Made with mode 0600, and removed again when anything below fails.
        let mut temporary = tempfile::NamedTempFile::with_prefix_in(".new-", &self.path)?;
        temporary.write_all(content)?;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        self.sync()
    }

    /// Whether there is room for this many bytes; finds out by writing them.
    ///
    /// # Errors
    /// [`StateError::Write`] with what the system says.
    pub fn reserve(&self, bytes: usize) -> Result<(), StateError> {
        let probe = || {
            let mut temporary = tempfile::NamedTempFile::with_prefix_in(".new-", &self.path)?;
            temporary.write_all(&vec![0; bytes])?;
            temporary.as_file().sync_all()
        };
        probe().map_err(|source| StateError::Write { path: self.path.clone(), source })
    }

    /// Removes the files that are there, and returns their paths.
    ///
    /// # Errors
    /// [`StateError::Remove`] for the first that cannot be removed.
    pub fn remove(&self, files: &[StateFile]) -> Result<Vec<PathBuf>, StateError> {
        let mut removed = Vec::new();
        for file in files {
            let path = self.path.join(file.name());
            match std::fs::remove_file(&path) {
                Ok(()) => removed.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(StateError::Remove { path, source }),
            }
        }
        self.sync().map_err(|source| StateError::Remove { path: self.path.clone(), source })?;
        Ok(removed)
    }

    /// Renames are durable only once the folder is synced.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_replaced_whole_and_private() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "blue").unwrap();
        assert!(state.read(StateFile::Key).unwrap().is_none());
        state.write(StateFile::Key, b"one").unwrap();
        state.write(StateFile::Key, b"two").unwrap();
        assert_eq!(**state.read(StateFile::Key).unwrap().unwrap(), *b"two");
        let mode =
            |name: &str| std::fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("blue"), 0o700);
        assert_eq!(mode("blue/identity.key"), 0o600);
        let names = std::fs::read_dir(state.path()).unwrap().count();
        assert_eq!(names, 1, "the key, no temporary file");
    }

    #[test]
    fn a_second_agent_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "blue").unwrap();
        assert!(matches!(StateDir::open(root.path(), "blue"), Err(StateError::Locked(_))));
        assert!(StateDir::open(root.path(), "red").is_ok(), "another mesh is another folder");
        drop(state);
        assert!(StateDir::open(root.path(), "blue").is_ok());
    }

    #[test]
    fn a_failed_write_keeps_the_old_content() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "blue").unwrap();
        // A folder in the way makes the rename fail, as a full disk makes the write fail before it.
        std::fs::create_dir(state.path().join("snapshot.bin")).unwrap();
        assert!(matches!(state.write(StateFile::Snapshot, b"x"), Err(StateError::Write { .. })));
        assert!(state.path().join("snapshot.bin").is_dir());
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_is_appended_stands_behind_what_is_known() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "blue").unwrap();
        assert!(
            matches!(state.append(StateFile::Journal, 0, b"x"), Err(StateError::Write { .. })),
            "no file"
        );
        state.write(StateFile::Journal, b"one").unwrap();
        state.append(StateFile::Journal, 3, b"two").unwrap();
        assert!(matches!(state.append(StateFile::Journal, 3, b"x"), Err(StateError::Write { .. })));
        assert_eq!(**state.read(StateFile::Journal).unwrap().unwrap(), *b"onetwo");
    }

    #[test]
    fn removing_lists_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "blue").unwrap();
        state.write(StateFile::Bundle, b"x").unwrap();
        assert_eq!(state.remove(&StateFile::ALL).unwrap(), [state.path().join("bundle.pem")]);
        assert!(state.remove(&StateFile::ALL).unwrap().is_empty());
    }
}
