//! The folder as a source: looks when the watcher says so, and passes on what it finds. The receiver takes one report
//! after the other; while it is busy the folder waits, and nothing piles up.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Report;
use super::catalog::FileChange;
use super::folder::{Folder, Noticed, UnreadableFolder};
use super::watcher::Watcher;

/// A folder that was read whole once.
#[derive(Debug)]
pub struct Files {
    folder: Folder,
    watcher: Watcher,
    again_in: Option<Duration>,
}

impl Files {
    /// Begins to watch, and reads the folder whole. `expected` are the files it had before a restart.
    ///
    /// # Errors
    /// [`UnreadableFolder`] where there is none.
    pub fn open(
        path: &Path,
        expected: BTreeSet<String>,
    ) -> Result<(Self, Vec<FileChange>), UnreadableFolder> {
        let path = absolute(path)?;
        let watcher = Watcher::new(&path);
        let mut folder = Folder::new(path, expected);
        let scan = folder.scan(Instant::now(), &Noticed::default())?;
        Ok((Self { folder, watcher, again_in: scan.again_in }, scan.changes))
    }

    /// Reports changes until the receiver is gone.
    pub async fn run(mut self, reports: mpsc::Sender<Report>) {
        let mut was_readable = true;
        loop {
            let noticed = tokio::select! {
                noticed = self.watcher.changed(self.again_in) => noticed,
                () = reports.closed() => return,
            };
            let mut folder = self.folder;
            let looked = tokio::task::spawn_blocking(move || {
                let scan = folder.scan(Instant::now(), &noticed);
                (folder, scan)
            });
            let Ok((folder, scan)) = looked.await else { return };
            self.folder = folder;
            let report = match scan {
                Ok(scan) => {
                    self.again_in = scan.again_in;
                    let again_readable = !std::mem::replace(&mut was_readable, true);
                    if scan.replaced || again_readable {
                        self.watcher.restart();
                    }
                    let is_news = again_readable || !scan.changes.is_empty();
                    is_news.then_some(Report { changes: scan.changes, trouble: None })
                }
                Err(error) => {
                    self.again_in = None;
                    let is_news = std::mem::replace(&mut was_readable, false);
                    let report = || Report { changes: Vec::new(), trouble: Some(error.to_string()) };
                    is_news.then(report)
                }
            };
            if let Some(report) = report
                && reports.send(report).await.is_err()
            {
                return;
            }
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, UnreadableFolder> {
    std::path::absolute(path).map_err(|source: io::Error| UnreadableFolder::new(path, source))
}
