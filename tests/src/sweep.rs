//! Removing what fixtures made: at their end, on a signal, and what an earlier run left when it was killed.
//! Everything carries the process id of its maker in its name.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_for;

/// What every name begins with.
const PREFIX: &str = "ogr-";

/// The name of `part` of the `serial`th net of this process.
#[must_use]
pub fn name(serial: u32, part: &str) -> String {
    format!("{PREFIX}{}-{serial}-{part}", std::process::id())
}

/// The folder that holds the files of the `serial`th net of this process.
#[must_use]
pub fn folder(serial: u32) -> PathBuf {
    std::env::temp_dir().join(name(serial, "files"))
}

/// Once per process: sweeps what dead processes left and, from now on, cleans up on a signal that ends this one.
pub fn start() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut outcome = Ok(());
    ONCE.call_once(|| {
        sweep(|maker| !Path::new(&format!("/proc/{maker}")).exists());
        outcome = clean_on_signals();
    });
    outcome
}

/// Set where the first signal asks this process to end by itself.
static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on the first signal only sets this; the next one ends the process as before.
pub fn stop_on_signal() -> Arc<AtomicBool> {
    Arc::clone(ASKED.get_or_init(Arc::default))
}

/// Kills what runs in a network namespace and removes its name.
pub fn remove_namespace(name: &str) {
    let members = || {
        let listed = Command::new("ip").args(["netns", "pids", name]).output();
        let text =
            listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().filter_map(|line| line.trim().parse().ok()).collect::<Vec<i32>>()
    };
    for pid in members() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = wait_for("the namespace to be empty", Duration::from_secs(2), || {
        members().iter().all(|pid| is_zombie(*pid))
    });
    let _ = Command::new("ip").args(["netns", "delete", name]).output();
}

/// A killed child that its parent has not waited for yet still counts as a member.
fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z') || rest.is_empty())
}

/// Removes everything whose maker's process id satisfies `gone`.
fn sweep(gone: impl Fn(u32) -> bool) {
    let stale = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let ours = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
            maker.is_some_and(&gone)
        };
        entries.map(|entry| entry.path()).filter(ours).collect()
    };
    for namespace in stale(Path::new("/run/netns")) {
        if let Some(name) = namespace.file_name() {
            remove_namespace(&name.to_string_lossy());
        }
    }
    for folder in stale(&std::env::temp_dir()) {
        let _ = std::fs::remove_dir_all(folder);
    }
}

fn clean_on_signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let context = "cannot watch for signals";
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context(context)?;
    let mut terminate = signal(SignalKind::terminate()).context(context)?;
    let mut hangup = signal(SignalKind::hangup()).context(context)?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                let asked = ASKED.get().is_some_and(|asked| !asked.swap(true, Ordering::Relaxed));
                if !asked {
                    break;
                }
            }
        });
        let own = std::process::id();
        sweep(|maker| maker == own);
        std::process::exit(130);
    });
    Ok(())
}
