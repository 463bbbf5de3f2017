//! Watching: the changes of a kind from a version on, as lines.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::failure::{Answer, Failure};
use super::object;
use super::query::{Match, Query};
use super::read::{Form, shown};
use super::routes::Target;
use super::selector::Selector;
use super::state::{Shared, State};
use super::store::Change;

/// How many changes are taken at a time.
const BATCH: usize = 500;
/// How long a watch lasts that does not say.
const LONGEST: Duration = Duration::from_mins(30);

/// Where the lines of a watch go.
pub(super) type Lines = mpsc::Sender<Result<Bytes, io::Error>>;

/// A watch.
pub(super) struct Watch {
    shared: Arc<Shared>,
    target: Target,
    selector: Selector,
    form: Form,
    user: String,
    /// What was told is up to this version.
    version: u64,
    /// Lines that come before any change.
    first: Vec<Bytes>,
    bookmarks: bool,
    ends: Instant,
    cut: u64,
}

/// Why a watch ends.
enum End {
    /// Its time is over, or nobody listens.
    Quiet,
    /// As a broken connection does.
    Broken,
}

impl Watch {
    /// A watch as it is asked for.
    pub(super) fn open(
        shared: &Arc<Shared>,
        user: &str,
        target: Target,
        query: &Query,
        form: Form,
    ) -> Answer<Self> {
        query.only(&[
            "watch",
            "resourceVersion",
            "resourceVersionMatch",
            "timeoutSeconds",
            "allowWatchBookmarks",
            "sendInitialEvents",
            "labelSelector",
            "fieldSelector",
        ])?;
        let mut selector = Selector::parse(
            &target.kind,
            &target.namespace,
            query.text("labelSelector"),
            query.text("fieldSelector"),
        )?;
        if !target.name.is_empty() {
            selector.also_named(&target.name);
        }
        let bookmarks = query.flag("allowWatchBookmarks")?;
        let streaming = query.flag("sendInitialEvents")?;
        check_streaming(query, streaming)?;
        let time = query.number("timeoutSeconds")?.map_or(LONGEST, Duration::from_secs);
        let from = query.number("resourceVersion")?.unwrap_or(0);
        let state = shared.lock();
        let mut watch = Self {
            shared: Arc::clone(shared),
            target,
            selector,
            form,
            user: user.to_owned(),
            version: from,
            first: Vec::new(),
            bookmarks,
            ends: Instant::now() + time,
            cut: state.control.cut,
        };
        if from == 0 || streaming {
            watch.begin_with_all(&state, streaming && bookmarks);
        }
        drop(state);
        Ok(watch)
    }

    /// Tells what there is before what changes.
    fn begin_with_all(&mut self, state: &State, say_when_done: bool) {
        self.version = state.store.version();
        let objects =
            state.store.list(&self.target.kind.bucket()).filter(|object| self.selector.matches(object));
        let mut first: Vec<Bytes> = objects.map(|object| self.line("ADDED", object)).collect();
        if say_when_done {
            first.push(self.bookmark(self.version, true));
        }
        self.first = first;
    }

    /// Writes lines until the watch ends.
    pub(super) async fn run(mut self, lines: Lines) {
        if let End::Broken = self.feed(&lines).await {
            let _ = lines.send(Err(io::Error::from(io::ErrorKind::ConnectionReset))).await;
        }
    }

    async fn feed(&mut self, lines: &Lines) -> End {
        let mut changed = self.shared.changed.subscribe();
        let mut told = self.version;
        let pause = Duration::from_millis(self.shared.bookmark_ms);
        let mut bookmark = Instant::now() + pause;
        loop {
            changed.mark_unchanged();
            let next = self.next();
            let more = match next {
                Next::Cut => return End::Broken,
                Next::Frozen => false,
                Next::Lines(batch, more) => {
                    for line in batch {
                        if lines.send(Ok(line)).await.is_err() {
                            return End::Quiet;
                        }
                    }
                    more
                }
                Next::Last(line) => {
                    let _ = lines.send(Ok(line)).await;
                    return End::Quiet;
                }
            };
            if more {
                continue;
            }
            tokio::select! {
                () = sleep_until(self.ends) => return End::Quiet,
                () = lines.closed() => return End::Quiet,
                _ = changed.changed() => {}
                () = sleep_until(bookmark), if self.bookmarks => {
                    bookmark = Instant::now() + pause;
                    if self.version > told && !self.shared.lock().control.is_frozen(&self.user) {
                        told = self.version;
                        self.first.push(self.bookmark(told, false));
                    }
                }
            }
        }
    }

    /// What is to be written now.
    fn next(&mut self) -> Next {
        let shared = Arc::clone(&self.shared);
        let state = shared.lock();
        if state.control.cut != self.cut {
            return Next::Cut;
        }
        if state.control.is_frozen(&self.user) {
            return Next::Frozen;
        }
        let mut lines = std::mem::take(&mut self.first);
        let Ok(changes) = state.store.since(&self.target.kind.bucket(), self.version, BATCH) else {
            let message = format!("too old resource version: {} ({})", self.version, state.store.version());
            return Next::Last(event("ERROR", &Failure::expired(message).status()));
        };
        if state.kinds.of(&self.target.kind.bucket()).is_none() && changes.is_empty() {
            return Next::Cut;
        }
        let more = changes.len() == BATCH;
        lines.extend(changes.iter().filter_map(|change| self.change(change)));
        // Without a rest, all up to the newest version is told; a version of the future stays what it is.
        let reached = changes.last().filter(|_| more).map_or(state.store.version(), |change| change.version);
        self.version = self.version.max(reached);
        Next::Lines(lines, more)
    }

    /// What a change is to someone who sees only what is selected.
    fn change(&self, change: &Change) -> Option<Bytes> {
        let before = change.previous.as_ref().is_some_and(|previous| self.selector.matches(previous));
        let after = !change.deleted && self.selector.matches(&change.object);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(self.line("ADDED", &change.object)),
            (true, true) => Some(self.line("MODIFIED", &change.object)),
            (true, false) if change.deleted => Some(self.line("DELETED", &change.object)),
            (true, false) => {
                // The last state that was selected, with the version at which it no longer was.
                let mut last = change.previous.as_deref().cloned().unwrap_or_default();
                object::set_meta(&mut last, "resourceVersion", change.version.to_string());
                Some(self.line("DELETED", &last))
            }
        }
    }

    fn line(&self, what: &str, object: &Value) -> Bytes {
        event(what, &shown(&self.target.kind, object, self.form))
    }

    fn bookmark(&self, version: u64, initial: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        if initial {
            metadata = json!({
                "resourceVersion": version.to_string(),
                "creationTimestamp": null,
                "annotations": {"k8s.io/initial-events-end": "true"},
            });
        }
        let kind = &self.target.kind;
        event("BOOKMARK", &json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata}))
    }
}

enum Next {
    Cut,
    Frozen,
    /// Lines, and whether there are more.
    Lines(Vec<Bytes>, bool),
    /// A line after which there is nothing.
    Last(Bytes),
}

fn event(what: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{{\"type\":\"{what}\",\"object\":{object}}}\n"))
}

fn check_streaming(query: &Query, streaming: bool) -> Answer<()> {
    match (streaming, query.version_match()?) {
        (true, Some(Match::NotOlderThan)) | (false, None) => Ok(()),
        (true, _) => Err(Failure::bad_request(
            "sendInitialEvents is forbidden unless resourceVersionMatch is NotOlderThan",
        )),
        (false, Some(_)) => Err(Failure::bad_request(
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )),
    }
}
