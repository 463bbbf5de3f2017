//! One simulated machine's namespaces: its own network, hostname, `/run` and bpffs, held open by a process that
//! lives exactly as long as the fixture.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::command::tool;

/// What the holder does before it says that it is ready. Addresses are usable at once (no duplicate address
/// detection), nothing is autoconfigured, and the kernel does not check sources: the guard must do without that help.
const HOLDER: &str = r#"
set -e
hostname "$1"
mount -t tmpfs -o mode=755 tmpfs /run
mount -t bpf bpf /sys/fs/bpf
for scope in all default; do
    echo 0 > /proc/sys/net/ipv6/conf/$scope/accept_dad
    echo 0 > /proc/sys/net/ipv6/conf/$scope/accept_ra
    echo 0 > /proc/sys/net/ipv6/conf/$scope/disable_ipv6
    echo 0 > /proc/sys/net/ipv4/conf/$scope/rp_filter
done
ip link set lo up
echo ready
exec cat > /dev/null
"#;

/// A machine's namespaces.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    holder: Child,
}

impl Namespace {
    /// Makes the namespaces; the network namespace is called `name` in `ip netns`.
    pub fn try_new(name: &str, hostname: &str) -> Result<Self> {
        tool("ip", &["netns", "add", name])?;
        let mut holder = Command::new("ip")
            .args(["netns", "exec", name, "unshare", "--uts", "sh", "-c", HOLDER, "holder", hostname])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the holder of a namespace")?;
        let mut line = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let namespace = Self { name: name.to_owned(), holder };
        if line.trim() != "ready" {
            bail!("the namespace {name} could not be set up; the error is above");
        }
        Ok(namespace)
    }

    /// The name of the network namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process that holds the namespaces.
    #[must_use]
    pub fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// The options of `nsenter` that lead inside.
    #[must_use]
    pub fn entry(&self) -> Vec<String> {
        let pid = self.holder.id();
        vec![
            format!("--mount=/proc/{pid}/ns/mnt"),
            format!("--uts=/proc/{pid}/ns/uts"),
            format!("--net=/proc/{pid}/ns/net"),
        ]
    }

    /// A command that will run inside. It is the process itself, not a parent of it, that gets signals.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(self.entry()).arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread of this process that is inside the network namespace, as are the sockets it makes.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", self.holder.id()))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(&network, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
                work()
            });
            inside.join().unwrap_or_else(|_| bail!("the thread in {} panicked", self.name))
        })
    }

    /// Runs `ip` with the commands of `batch`, one a line, inside the network namespace.
    pub fn ip(&self, batch: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        let answer = crate::command::run(&mut command, batch.as_bytes(), std::time::Duration::from_secs(10))?;
        answer.ok().with_context(|| format!("in {}:\n{batch}", self.name)).map(|_| ())
    }

    /// Sets a value below `/proc/sys`.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        let mut command = self.command("sh");
        command.args(["-c", r#"echo "$2" > "/proc/sys/$1""#, "sysctl", path, value]);
        crate::command::run(&mut command, b"", std::time::Duration::from_secs(5))?.ok().map(|_| ())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        crate::sweep::remove_namespace(&self.name);
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
