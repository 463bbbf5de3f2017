//! The audit log: who got, used or lost access. Lines of JSON, appended; the file is opened for each line, so that it
//! can be rotated from outside. Secrets are in no event.

mod event;

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pki::UnixTime;
use serde::Serialize;
use tokio::sync::mpsc;

pub use event::Event;

/// Events that wait for somebody else.
const LISTENED: usize = 256;
/// How many refusals of strangers a second are written: who has no secret cannot fill the disk.
const REFUSALS_PER_SECOND: u32 = 20;

/// The audit log.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    refusals: Mutex<Window>,
    /// Who else is told.
    listener: Mutex<Option<mpsc::Sender<Event>>>,
}

/// The refusals of one second.
#[derive(Debug, Default)]
struct Window {
    second: u64,
    written: u32,
    left_out: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event,
    /// Refusals that were left out before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
}

impl Audit {
    /// Opens the log, and makes it where it does not exist; only its owner can read it.
    ///
    /// # Errors
    /// The operating system's, with the file's name.
    pub fn open(path: &Path) -> io::Result<Self> {
        append(path, b"").map_err(|e| {
            io::Error::new(e.kind(), format!("cannot open the audit log {}: {e}", path.display()))
        })?;
        Ok(Self { path: path.to_owned(), refusals: Mutex::default(), listener: Mutex::default() })
    }

    /// What is recorded from now on, for somebody else too. Whoever is too slow misses something.
    pub fn listen(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(LISTENED);
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Appends an event. What cannot be written is an error in the daemon's log and stops nothing: the change that it
    /// tells of was made.
    pub fn record(&self, event: &Event, now: UnixTime) {
        let Some(left_out) = self.admit(event, now) else { return };
        if let Some(listener) = &*self.listener.lock().unwrap_or_else(PoisonError::into_inner) {
            // The log has it in any case.
            let _missed = listener.try_send(event.clone());
        }
        let line = Line { time: pki::display_time(now), event, left_out };
        let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            append(&self.path, &bytes)
        });
        if let Err(error) = written {
            tracing::error!(%error, file = %self.path.display(), ?event, "audit event not written");
        }
    }

    /// Whether an event is written, and how many before it were not.
    #[expect(clippy::option_option, reason = "whether, and if so with which number if any")]
    fn admit(&self, event: &Event, now: UnixTime) -> Option<Option<u64>> {
        if !event.is_a_strangers() {
            return Some(None);
        }
        let mut window = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if window.second != now.as_secs() {
            window.second = now.as_secs();
            window.written = 0;
        }
        if window.written >= REFUSALS_PER_SECOND {
            window.left_out += 1;
            return None;
        }
        window.written += 1;
        let left_out = std::mem::take(&mut window.left_out);
        Some((left_out > 0).then_some(left_out))
    }
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)?.write_all(bytes)
}

/// An address as the log has it.
pub(crate) fn text(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::unix_time;

    #[test]
    fn events_are_lines_of_json_that_only_the_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::open(&path).unwrap();
        let event = Event::TokenRevoked { token: "abc".to_owned(), by: "uid 0".to_owned() };
        audit.record(&event, unix_time(0));
        audit.record(&event, unix_time(1));
        let text = std::fs::read_to_string(&path).unwrap();
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            first,
            serde_json::json!({"time": "1970-01-01T00:00:00Z", "event": "token-revoked", "token": "abc", "by": "uid 0"})
        );
        assert_eq!(text.lines().count(), 2);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn strangers_cannot_fill_the_disk_and_what_is_left_out_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::open(&path).unwrap();
        let refused = Event::JoinRefused {
            token: "t".to_owned(),
            name: "n".to_owned(),
            remote: "192.0.2.1".to_owned(),
            reason: "token-unknown",
            detail: String::new(),
        };
        for _ in 0..100 {
            audit.record(&refused, unix_time(5));
        }
        audit.record(&Event::TokenRevoked { token: "abc".to_owned(), by: "b".to_owned() }, unix_time(5));
        audit.record(&refused, unix_time(6));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 22);
        assert!(text.lines().last().unwrap().contains(r#""left_out":80"#), "{text}");
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let error = Audit::open(Path::new("/nonexistent/audit.log")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/audit.log"));
    }
}
