//! Where objects come from. `folder` reads a folder of manifests, `watcher` says when to look again, `files` joins
//! both; `cluster` follows the API of a cluster; `catalog` decides which version of each object is in force, `last_good`
//! keeps those versions over a restart.
//! Knows nothing of what objects mean together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tokio::sync::mpsc;

use crate::config;
use crate::election::Term;
use crate::manifest::{Object, ObjectKey, Position};

pub mod catalog;
pub mod cluster;
pub mod files;
pub mod folder;
pub mod last_good;
pub mod watcher;

pub use catalog::Catalog;
pub use cluster::Cluster;
pub use files::Files;
pub use folder::Folder;
pub use watcher::Watcher;

/// What a source tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What became of files, or of objects of a cluster.
    pub changes: Vec<catalog::FileChange>,
    /// What cannot be read now, and why; what it said stays.
    pub trouble: Option<String>,
}

/// A source that was read whole once.
#[derive(Debug)]
pub struct Opened {
    /// The source.
    pub source: Source,
    /// What was good before a restart.
    pub kept: BTreeMap<ObjectKey, catalog::Good>,
    /// What the source has.
    pub changes: Vec<catalog::FileChange>,
}

/// Where objects come from.
#[derive(Debug)]
pub enum Source {
    /// A folder of manifests.
    Files(Files),
    /// The API of a cluster; its parts are large.
    Cluster(Box<Cluster>),
}

/// A source that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no folder of manifests.
    #[error(transparent)]
    Folder(#[from] folder::UnreadableFolder),
    /// Nobody knows how to reach the cluster.
    #[error(transparent)]
    Cluster(#[from] cluster::ConnectError),
    /// This process ends.
    #[error("it was not read to its end")]
    Stopped,
}

impl Opened {
    /// Begins to follow a source, and reads it whole. `kept` is what the store kept of the last good versions.
    ///
    /// # Errors
    /// [`OpenError`]. A cluster that does not answer is waited for.
    pub async fn of(
        source: &config::Source,
        kept: &BTreeMap<String, Vec<u8>>,
        term: Option<&Term>,
    ) -> Result<Self, OpenError> {
        let kept = last_good::decode(kept);
        let (source, changes) = match source {
            config::Source::Files(folder) => {
                let expected: BTreeSet<_> = kept.values().map(|good| good.file.clone()).collect();
                let folder = folder.clone();
                let opened = tokio::task::spawn_blocking(move || Files::open(&folder, expected)).await;
                let (files, changes) = opened.map_err(|_cut_off| OpenError::Stopped)??;
                (Source::Files(files), changes)
            }
            config::Source::Kubernetes(settings) => {
                let (cluster, changes) = Cluster::open(settings, term).await?;
                (Source::Cluster(Box::new(cluster)), changes)
            }
        };
        Ok(Self { source, kept, changes })
    }
}

impl Source {
    /// Reports changes until the receiver is gone.
    pub async fn run(self, reports: mpsc::Sender<Report>) {
        match self {
            Self::Files(files) => files.run(reports).await,
            Self::Cluster(cluster) => cluster.run(reports).await,
        }
    }
}

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
        // An object of a cluster is a file of its own.
        if let Some(key) = self.key.as_ref().filter(|key| key.to_string() != self.file) {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.reason)
    }
}
