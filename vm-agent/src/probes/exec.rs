//! Programs that the host's administrator made for probes. A gateway knows their names and nothing else of them. They run as a
//! user without rights, with nothing of the agent's, and not a moment longer than they may.

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, User};
use tokio::sync::oneshot;

/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Who else may write to a file.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// How programs are started.
#[derive(Debug)]
pub struct Exec {
    folder: PathBuf,
    user: String,
    /// Whose the files have to be.
    owner: u32,
}

impl Exec {
    /// Programs of a folder, which run as a user.
    #[must_use]
    pub const fn new(folder: PathBuf, user: String) -> Self {
        Self { folder, user, owner: 0 }
    }

    /// Runs one; why not, where it does not end with success.
    ///
    /// # Errors
    /// A sentence.
    pub async fn run(&self, name: String, limit: Duration) -> Result<(), String> {
        let command = self.command(&name)?;
        let (done, result) = oneshot::channel();
        let running = std::thread::Builder::new().name("probe".to_owned());
        // A thread of its own: what it gives up, it gives up for ever.
        let spawned = running.spawn(move || drop(done.send(run(command, limit))));
        spawned.map_err(|error| format!("no thread for it: {error}"))?;
        result.await.unwrap_or_else(|_gone| Err("its thread ended".to_owned()))
    }

    /// The program with all that is taken from it.
    fn command(&self, name: &str) -> Result<Command, String> {
        let path = self.checked(name)?;
        let user = User::from_name(&self.user).map_err(|error| format!("user {}: {error}", self.user))?;
        let user = user.ok_or_else(|| format!("there is no user {}", self.user))?;
        if user.uid.is_root() {
            return Err(format!("user {} is root", self.user));
        }
        let mut command = Command::new(path);
        // Setting the user also drops supplementary groups.
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).process_group(0);
        command.env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }

    /// The file, if nobody but root can have written it.
    fn checked(&self, name: &str) -> Result<PathBuf, String> {
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if name.is_empty() || name.starts_with('.') || !is_name {
            return Err(format!("{name:?} is no name of a file"));
        }
        let folder = open(&self.folder, OFlag::O_DIRECTORY)?;
        self.check(&self.folder, &folder)?;
        let path = self.folder.join(name);
        let file = open(&path, OFlag::empty())?;
        self.check(&path, &file)?;
        if !file.is_file() || file.permissions().mode() & 0o111 == 0 {
            return Err(format!("{} is no program", path.display()));
        }
        Ok(path)
    }

    fn check(&self, path: &Path, found: &Metadata) -> Result<(), String> {
        if found.uid() != self.owner || found.mode() & WRITABLE_BY_OTHERS != 0 {
            let what = "has to belong to root, and to be writable by nobody else";
            return Err(format!("{} {what}", path.display()));
        }
        Ok(())
    }
}

/// What there is; a symbolic link is nothing.
fn open(path: &Path, more: OFlag) -> Result<Metadata, String> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | more).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    file.and_then(|file: File| file.metadata()).map_err(|error| format!("{}: {error}", path.display()))
}

fn run(mut command: Command, limit: Duration) -> Result<(), String> {
    nix::sys::prctl::set_no_new_privs().map_err(|error| format!("no_new_privs: {error}"))?;
    let until = Instant::now() + limit;
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let in_time = ends(&child, until);
    // Also what it left behind: the number is its own as long as nobody has waited for it.
    let group = Pid::from_raw(child.id().try_into().unwrap_or(i32::MAX));
    match killpg(group, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(%error, "what a probe left behind cannot be ended"),
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if in_time { judged(status) } else { Err(format!("did not end within {} s", limit.as_secs())) }
}

/// Whether it ends before then; nobody has waited for it after that.
fn ends(child: &Child, until: Instant) -> bool {
    let pid = Pid::from_raw(child.id().try_into().unwrap_or(i32::MAX));
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    loop {
        match waitid(Id::Pid(pid), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            Ok(_) | Err(_) => return true,
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

fn judged(status: ExitStatus) -> Result<(), String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("ended with {code}")),
        (None, signal) => Err(format!("was ended by signal {}", signal.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests;
