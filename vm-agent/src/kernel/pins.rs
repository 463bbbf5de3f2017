//! Where things are pinned, so that they outlive the agent.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use datapath::abi::{Hook, VERSION};

use super::error::{KernelError, on_file};
use crate::lock::FolderLock;

/// A symbolic link to nothing, since bpffs holds no files: its target is the digest of the object.
const OBJECT: &str = "object";

/// The pins of one mesh: `stable/` outlives versions of the ABI, `v<N>/` belongs to one.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    mesh: PathBuf,
}

impl Pins {
    pub(super) fn new(bpffs: &Path, mesh: &str) -> Self {
        Self { mesh: bpffs.join(mesh) }
    }

    /// What all versions share.
    pub(super) fn stable(&self, name: &str) -> PathBuf {
        self.mesh.join("stable").join(name)
    }

    /// What belongs to this version of the ABI.
    pub(super) fn versioned(&self, name: &str) -> PathBuf {
        self.mesh.join(Self::version()).join(name)
    }

    /// The link of a hook on a device. By index, since names change and may hold dots, which bpffs refuses.
    pub(super) fn link(&self, hook: Hook, ifindex: u32) -> PathBuf {
        self.stable(&format!("link_{}_{ifindex}", hook.program()))
    }

    /// Makes the folders, and keeps other agents away from them.
    pub(super) fn lock(&self) -> Result<FolderLock, KernelError> {
        self.create()?;
        Ok(FolderLock::take(&self.mesh, "`mesh` or `bpffs`")?)
    }

    /// Whether anything was pinned.
    pub(super) fn exist(&self) -> bool {
        self.mesh.is_dir()
    }

    /// The digest of the object whose programs are pinned; `None` if that is not known.
    pub(super) fn object(&self) -> Option<String> {
        fs::read_link(self.versioned(OBJECT)).ok()?.into_os_string().into_string().ok()
    }

    /// Notes whose programs are pinned.
    pub(super) fn set_object(&self, digest: &str) -> Result<(), KernelError> {
        let path = self.versioned(OBJECT);
        unpin(&path)?;
        symlink(digest, &path).map_err(on_file("note", path))
    }

    /// The name of the mesh.
    pub(super) fn mesh(&self) -> &str {
        self.mesh.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default()
    }

    /// Remembers that a mesh made the `clsact` of a device. A symbolic link, since bpffs holds no files.
    pub(super) fn made_qdisc(&self, ifindex: u32) -> Result<(), KernelError> {
        let path = self.qdisc(ifindex);
        match symlink("clsact", &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(on_file("note", path)(error)),
            _ => Ok(()),
        }
    }

    /// Whether this mesh has to see to the `clsact` of a device.
    pub(super) fn has_made_qdisc(&self, ifindex: u32) -> bool {
        self.qdisc(ifindex).is_symlink()
    }

    /// Whether another mesh of the same folder has to: the last one that leaves removes it.
    pub(super) fn another_made_qdisc(&self, ifindex: u32) -> bool {
        let Some(folder) = self.mesh.parent() else { return false };
        let meshes = names(folder).unwrap_or_default();
        meshes.iter().any(|mesh| Self::new(folder, mesh).has_made_qdisc(ifindex))
    }

    /// Forgets that a mesh made the `clsact` of devices that are gone: another device may get their number.
    pub(super) fn forget_qdiscs(&self, exists: impl Fn(u32) -> bool) -> Result<(), KernelError> {
        let folder = self.stable("");
        for name in names(&folder).map_err(on_file("list", folder))? {
            let ifindex = name.strip_prefix("clsact_").and_then(|ifindex| ifindex.parse().ok());
            if let Some(ifindex) = ifindex.filter(|ifindex| !exists(*ifindex)) {
                unpin(&self.qdisc(ifindex))?;
            }
        }
        Ok(())
    }

    fn qdisc(&self, ifindex: u32) -> PathBuf {
        self.stable(&format!("clsact_{ifindex}"))
    }

    /// Makes the folders.
    fn create(&self) -> Result<(), KernelError> {
        for folder in [self.stable(""), self.versioned("")] {
            fs::create_dir_all(&folder).map_err(on_file("create", folder))?;
        }
        Ok(())
    }

    /// The indices of devices with a pinned link, with the hook.
    pub(super) fn links(&self) -> Result<Vec<(Hook, u32)>, KernelError> {
        let folder = self.stable("");
        let names = names(&folder).map_err(on_file("list", folder))?;
        let link = |name: &String| {
            let (hook, ifindex) = name.strip_prefix("link_")?.rsplit_once('_')?;
            let hook = Hook::ALL.into_iter().find(|known| known.program() == hook)?;
            Some((hook, ifindex.parse().ok()?))
        };
        Ok(names.iter().filter_map(link).collect())
    }

    /// Unpins the programs of every version of the ABI, but no stub.
    pub(super) fn remove_programs(&self) -> Result<(), KernelError> {
        for name in names(&self.mesh).map_err(on_file("list", &self.mesh))? {
            if !name.starts_with('v') {
                continue;
            }
            unpin(&self.mesh.join(&name).join(OBJECT))?;
            for hook in Hook::ALL {
                unpin(&self.mesh.join(&name).join(hook.program()))?;
            }
        }
        Ok(())
    }

    /// Unpins what other versions of the ABI left.
    pub(super) fn remove_other_versions(&self) -> Result<Vec<String>, KernelError> {
        let mut removed = Vec::new();
        for name in names(&self.mesh).map_err(on_file("list", &self.mesh))? {
            if name.starts_with('v') && name != Self::version() {
                remove_folder(&self.mesh.join(name), &mut removed)?;
            }
        }
        Ok(removed)
    }

    /// Unpins everything, and lists what was unpinned.
    pub(super) fn remove_all(&self) -> Result<Vec<String>, KernelError> {
        let mut removed = Vec::new();
        // Hooks first: without them nothing reads what is unpinned next.
        for (hook, ifindex) in self.links()? {
            remove_file(&self.link(hook, ifindex), &mut removed)?;
        }
        for name in names(&self.mesh).map_err(on_file("list", &self.mesh))? {
            remove_folder(&self.mesh.join(name), &mut removed)?;
        }
        match fs::remove_dir(&self.mesh) {
            Ok(()) => removed.push(format!("folder {}", self.mesh.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(on_file("remove", &self.mesh)(error)),
        }
        Ok(removed)
    }

    fn version() -> String {
        format!("v{VERSION}")
    }
}

/// Removes a pin; one that is absent is no error.
pub(super) fn unpin(path: &Path) -> Result<(), KernelError> {
    remove_file(path, &mut Vec::new())
}

fn remove_file(path: &Path, removed: &mut Vec<String>) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Ok(()) => removed.push(format!("pin {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(on_file("unpin", path)(error)),
    }
    Ok(())
}

fn remove_folder(folder: &Path, removed: &mut Vec<String>) -> Result<(), KernelError> {
    for name in names(folder).map_err(on_file("list", folder))? {
        remove_file(&folder.join(name), removed)?;
    }
    fs::remove_dir(folder).map_err(on_file("remove", folder))
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            let mut names = Vec::new();
            for entry in entries? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort_unstable();
            Ok(names)
        }
    }
}
