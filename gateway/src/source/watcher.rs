//! Says when to look at a folder again: soon after something in it changed, and from time to time in any case, for
//! folders whose changes nobody announces.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::folder::Noticed;

/// How long nothing must happen before a change is looked at.
const QUIET: Duration = Duration::from_millis(10);
/// How long a change waits at most.
const LONGEST: Duration = Duration::from_millis(50);
/// How often the folder is looked at without any sign of change.
const PERIOD: Duration = Duration::from_secs(5);

/// Watches a folder and the one above it, where the folder itself may be replaced.
#[derive(Debug)]
pub struct Watcher {
    path: PathBuf,
    shared: Arc<Shared>,
    /// `None`: changes are not announced.
    announcer: Option<RecommendedWatcher>,
}

#[derive(Debug, Default)]
struct Shared {
    noticed: Mutex<Noticed>,
    wake: tokio::sync::Notify,
}

impl Watcher {
    /// Starts to watch; to be called before the first look.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let mut watcher = Self { path: path.to_owned(), shared: Arc::default(), announcer: None };
        watcher.restart();
        watcher
    }

    /// Watches anew: for a folder that was replaced. Without a watch the folder is still looked at periodically.
    pub fn restart(&mut self) {
        self.announcer = None;
        match self.start() {
            Ok(announcer) => self.announcer = Some(announcer),
            Err(error) => tracing::warn!(
                folder = %self.path.display(), %error, period = ?PERIOD,
                "changes of manifests are not announced; the folder is looked at periodically"
            ),
        }
    }

    /// Waits until the folder is to be looked at: a change, the time that the last look named, or the period.
    pub async fn changed(&self, again_in: Option<Duration>) -> Noticed {
        let deadline = tokio::time::Instant::now() + again_in.unwrap_or(PERIOD).min(PERIOD);
        if tokio::time::timeout_at(deadline, self.shared.wake.notified()).await.is_ok() {
            let latest = tokio::time::Instant::now() + LONGEST;
            loop {
                let quiet = (tokio::time::Instant::now() + QUIET).min(latest);
                if tokio::time::timeout_at(quiet, self.shared.wake.notified()).await.is_err() {
                    break;
                }
                if tokio::time::Instant::now() >= latest {
                    break;
                }
            }
        }
        self.take()
    }

    fn take(&self) -> Noticed {
        let mut noticed = self.shared.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        let touched = std::mem::take(&mut noticed.touched);
        Noticed { writing: noticed.writing.clone(), touched }
    }

    fn start(&self) -> notify::Result<RecommendedWatcher> {
        let shared = Arc::clone(&self.shared);
        let folder = self.path.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            match event {
                Ok(event) if event.need_rescan() => {}
                // What else happens beside the folder is nothing to it.
                Ok(event) if !event.paths.iter().any(|path| path.starts_with(&folder)) => return,
                Ok(event) if !is_change(event.kind) => return,
                Ok(event) => shared.notice(&event, Instant::now()),
                Err(error) => tracing::debug!(%error, "a change of manifests was announced incompletely"),
            }
            shared.wake.notify_one();
        })?;
        watcher.watch(&self.path, RecursiveMode::Recursive)?;
        if let Some(parent) = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            watcher.watch(parent, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }
}

impl Shared {
    fn notice(&self, event: &Event, now: Instant) {
        let mut noticed = self.noticed.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.notice(event, now);
    }
}

impl Noticed {
    /// Takes note of an event.
    pub fn notice(&mut self, event: &Event, now: Instant) {
        self.writing.retain(|_, since| now.saturating_duration_since(*since) < Duration::from_secs(1));
        for path in &event.paths {
            if matches!(event.kind, EventKind::Modify(ModifyKind::Data(_))) {
                self.writing.insert(path.clone(), now);
            } else if is_end_of_writing(event.kind) {
                self.writing.remove(path);
            }
            self.touched.insert(path.clone());
        }
    }
}

const fn is_end_of_writing(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_)
    )
}

/// Whether the event says that something changed: the folder's own looks are none.
const fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(_)) || is_end_of_writing(kind)
}

#[cfg(test)]
mod tests {
    use notify::event::DataChange;

    use super::*;

    #[test]
    fn a_file_counts_as_being_written_until_it_is_closed() {
        let mut noticed = Noticed::default();
        let now = Instant::now();
        let event = |kind| Event::new(kind).add_path("/m/a.yaml".into());
        noticed.notice(&event(EventKind::Modify(ModifyKind::Data(DataChange::Any))), now);
        assert!(noticed.writing.contains_key(Path::new("/m/a.yaml")));
        noticed.notice(&event(EventKind::Access(AccessKind::Close(AccessMode::Write))), now);
        assert!(noticed.writing.is_empty());
        assert!(noticed.touched.contains(Path::new("/m/a.yaml")));
    }

    #[tokio::test]
    async fn a_change_is_announced_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let watcher = Watcher::new(folder.path());
        std::fs::write(folder.path().join("a.yaml"), "").unwrap();
        let started = Instant::now();
        let noticed = watcher.changed(None).await;
        assert!(started.elapsed() < Duration::from_secs(1), "announced after {:?}", started.elapsed());
        assert!(noticed.touched.contains(&folder.path().join("a.yaml")), "{noticed:?}");
    }
}
