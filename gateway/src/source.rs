//! Where objects come from. `folder` reads a folder of manifests, `watcher` says when to look again, `files` joins
//! both; `catalog` decides which version of each object is in force, `last_good` keeps those versions over a restart.
//! Knows nothing of what objects mean together.

use std::fmt;

use crate::manifest::{Object, ObjectKey, Position};

pub mod catalog;
pub mod files;
pub mod folder;
pub mod last_good;
pub mod watcher;

pub use catalog::Catalog;
pub use files::Files;
pub use folder::Folder;
pub use watcher::Watcher;

/// A change of what is in force.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is new or another.
    Put(ObjectKey, Object),
    /// The object is gone.
    Delete(ObjectKey),
}

/// Something in the source that is not in force, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejected {
    /// The file, relative to its folder.
    pub file: String,
    /// Where in it.
    pub position: Position,
    /// Which object, where that can be read.
    pub key: Option<ObjectKey>,
    /// What is wrong, with field and value.
    pub reason: String,
    /// What is in force instead.
    pub instead: Instead,
}

/// What is in force in place of something rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instead {
    /// Nothing.
    Nothing,
    /// The last good version.
    LastGood,
    /// A policy that isolates what the object evidently selects, and allows nothing.
    Isolation,
    /// A namespace whose labels no selector matches.
    Unreadable,
    /// The same object of another file.
    Other,
}

/// A reason as it is shown: what a file holds may be a megabyte, and everyone who asks is told it.
fn shown(reason: String) -> String {
    const LONGEST: usize = 500;
    match reason.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", reason.get(..end).unwrap_or_default()),
        None => reason,
    }
}

impl fmt::Display for Rejected {
    /// `file:line:column: object: reason`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.position.line > 0 {
            write!(f, ":{}:{}", self.position.line, self.position.column)?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.reason)
    }
}
