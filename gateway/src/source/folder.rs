//! A folder of manifests: finds what became of its files since it was last looked at. Time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::catalog::FileChange;

#[cfg(test)]
mod tests;

/// How long a file must be missing before it counts as gone: editors put a new one in the place of the old.
const GONE_AFTER: Duration = Duration::from_millis(40);
/// How long a file that is being written is waited for.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);
/// Larger files are refused.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Deeper folders are refused: a link leads back to where it stands.
const MAX_DEPTH: usize = 16;

/// A folder, and what is known of its files.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Device and inode of the folder itself, as last seen.
    itself: Option<(u64, u64)>,
    known: BTreeMap<String, Known>,
    /// Files that were there before a restart, until the first look.
    expected: BTreeSet<String>,
    missing: BTreeMap<String, Instant>,
}

/// What was noticed since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// Files that are being written, with when that was last noticed: they are left alone for a while.
    pub writing: BTreeMap<PathBuf, Instant>,
    /// Files that are to be read even if nothing about them seems to have changed.
    pub touched: BTreeSet<PathBuf>,
}

/// What a look at the folder found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// What became of files.
    pub changes: Vec<FileChange>,
    /// Whether another folder stands in the place of the one before.
    pub replaced: bool,
    /// When to look again without being told to.
    pub again_in: Option<Duration>,
}

/// The folder cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("manifest folder {}: {source}", path.display())]
pub struct UnreadableFolder {
    path: PathBuf,
    source: io::Error,
}

impl UnreadableFolder {
    pub(super) fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

/// What of a file changes when its content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Read(Stamp),
    Unreadable(String),
}

impl Folder {
    /// A folder of which nothing is known yet but the names of the files it had before a restart: where those are
    /// cannot be listed, they count as unreadable, not as gone.
    #[must_use]
    pub const fn new(path: PathBuf, expected: BTreeSet<String>) -> Self {
        Self { path, itself: None, known: BTreeMap::new(), expected, missing: BTreeMap::new() }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at every file.
    ///
    /// # Errors
    /// [`UnreadableFolder`]; nothing is then changed, and nothing counts as gone.
    pub fn scan(&mut self, now: Instant, noticed: &Noticed) -> Result<Scan, UnreadableFolder> {
        let mut found = BTreeMap::new();
        self.list(&self.path, 0, &mut found).map_err(|source| UnreadableFolder::new(&self.path, source))?;
        let metadata =
            fs::metadata(&self.path).map_err(|source| UnreadableFolder::new(&self.path, source))?;
        let itself = (metadata.dev(), metadata.ino());
        let replaced = self.itself.replace(itself).is_some_and(|before| before != itself);
        let mut scan = Scan { replaced, ..Scan::default() };
        for (name, entry) in &found {
            self.missing.remove(name);
            let path = self.path.join(name);
            let still = noticed.writing.get(&path).map(|since| now.saturating_duration_since(*since));
            match still.and_then(|since| WRITTEN_WITHIN.checked_sub(since)).filter(|left| !left.is_zero()) {
                Some(left) => scan.look_again(left),
                None => scan.changes.extend(self.look(name, entry, noticed.touched.contains(&path))),
            }
        }
        let names: BTreeSet<_> = found.keys().collect();
        let gone: Vec<_> = self.known.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            let since = *self.missing.entry(name.clone()).or_insert(now);
            let left = GONE_AFTER.saturating_sub(now.saturating_duration_since(since));
            if left.is_zero() {
                self.missing.remove(&name);
                self.known.remove(&name);
                scan.changes.push(FileChange::Gone(name));
            } else {
                scan.look_again(left);
            }
        }
        self.expected.clear();
        Ok(scan)
    }

    fn look(&mut self, name: &str, entry: &Result<Stamp, String>, again: bool) -> Option<FileChange> {
        let known = self.known.get(name);
        let refuse = |reason: String| {
            (Known::Unreadable(reason.clone()), FileChange::Unreadable(name.to_owned(), reason))
        };
        let (new, change) = match entry {
            Err(reason) if known == Some(&Known::Unreadable(reason.clone())) => return None,
            Err(reason) => refuse(reason.clone()),
            Ok(stamp) if !again && known == Some(&Known::Read(*stamp)) => return None,
            Ok(stamp) => match read(&self.path.join(name)) {
                Ok(bytes) => (Known::Read(*stamp), FileChange::Text(name.to_owned(), bytes)),
                // Gone between the listing and here: the next look decides.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                Err(error) if known == Some(&Known::Unreadable(error.to_string())) => return None,
                Err(error) => refuse(error.to_string()),
            },
        };
        self.known.insert(name.to_owned(), new);
        Some(change)
    }

    /// Lists the manifests of a folder and of those below it. What cannot be listed below the top is unreadable itself,
    /// and so are the files known there: they are not gone.
    fn list(
        &self,
        folder: &Path,
        depth: usize,
        found: &mut BTreeMap<String, Result<Stamp, String>>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(name) = path.strip_prefix(&self.path).ok().and_then(Path::to_str).map(str::to_owned)
            else {
                continue;
            };
            if path.file_name().and_then(|name| name.to_str()).is_none_or(is_ignored) {
                continue;
            }
            // Follows links: a mounted ConfigMap is made of them.
            let listed = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() && depth >= MAX_DEPTH => {
                    Err(io::Error::other("too many levels"))
                }
                Ok(metadata) if metadata.is_dir() => self.list(&path, depth + 1, found),
                Ok(metadata) if metadata.is_file() && is_manifest(&path) => {
                    found.insert(name.clone(), Ok(Stamp::of(&metadata)));
                    Ok(())
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            match listed {
                Ok(()) => {}
                Err(error) if is_manifest(&path) && error.kind() != io::ErrorKind::NotFound => {
                    found.insert(name, Err(error.to_string()));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let below = format!("{name}/");
                    let known = self.known.keys().chain(&self.expected);
                    for known in known.filter(|known| known.starts_with(&below)) {
                        found.insert(known.clone(), Err(format!("{name}: {error}")));
                    }
                    found.insert(name, Err(error.to_string()));
                }
            }
        }
        Ok(())
    }
}

impl Scan {
    fn look_again(&mut self, after: Duration) {
        self.again_in = Some(self.again_in.map_or(after, |before| before.min(after)));
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Hidden files and folders (the inner workings of a mounted `ConfigMap` among them) and editors' leftovers.
fn is_ignored(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with('~')
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(bytes)
}
