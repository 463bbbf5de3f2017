//! The socket that a daemon is administered by: for its owner only, from the first moment on.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the socket {}: {source}", path.display())]
pub struct SocketError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Makes the socket of a daemon, called `owner` in errors, in place of a stale one. Its folder is made where it does not
/// exist. It is bound in a folder that nobody else can enter, and moved to its place once it is closed to others: a mode
/// that is set afterwards would come too late for who connects before. Does not block when it accepts.
///
/// # Errors
/// [`SocketError`]; also where somebody serves it. Something that is no socket is never removed.
pub fn bind_socket(path: &Path, owner: &str) -> Result<UnixListener, SocketError> {
    try_bind(path, owner).map_err(|source| SocketError { path: path.to_owned(), source })
}

impl SocketError {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

fn try_bind(path: &Path, owner: &str) -> io::Result<UnixListener> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    refuse_taken(path, owner)?;
    let draft = Draft::make(folder)?;
    let listener = UnixListener::bind(draft.socket())?;
    std::fs::set_permissions(draft.socket(), Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    std::fs::rename(draft.socket(), path)?;
    Ok(listener)
}

fn refuse_taken(path: &Path, owner: &str) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket"));
    }
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("another {owner} serves it")));
    }
    Ok(())
}

/// A folder for its owner only, removed in the end.
struct Draft(PathBuf);

impl Draft {
    fn make(beside: &Path) -> io::Result<Self> {
        let folder = beside.join(format!(".{}", std::process::id()));
        // Of a process that was killed.
        let _absent = std::fs::remove_dir_all(&folder);
        DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("s")
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_its_owner_and_replaces_a_stale_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/admin.sock");
        drop(bind_socket(&path, "daemon").unwrap());
        let served = bind_socket(&path, "daemon").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = bind_socket(&path, "daemon").unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(taken.to_string().contains("another daemon serves it"), "{taken}");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a draft is left");
        drop(served);
    }

    #[test]
    fn what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind_socket(&path, "daemon").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
