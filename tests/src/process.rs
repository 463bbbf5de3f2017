//! Processes that stay: started with their output in files, ended with the fixture that owns them.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use crate::command::line_of;
use crate::wait::wait_for;

/// How long a process may take to end when it is asked to.
const END: Duration = Duration::from_secs(10);

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    label: String,
    line: String,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command`; its outputs go to new files `<logs>/<label>-<number>.out` and `.err`.
    pub fn start(label: &str, command: &mut Command, logs: &Path) -> Result<Self> {
        let line = line_of(command);
        let path = |number: u32, end| logs.join(format!("{label}-{number}.{end}"));
        let number = (1..u32::MAX).find(|number| !path(*number, "out").exists()).unwrap_or_default();
        let (out, err) = (path(number, "out"), path(number, "err"));
        let file =
            |path: &Path| File::create(path).with_context(|| format!("cannot make {}", path.display()));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(file(&out)?)
            .stderr(file(&err)?)
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, label: label.to_owned(), line, out, err })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Writes to its standard input.
    pub fn say(&mut self, text: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its standard input is closed")?;
        stdin.write_all(text.as_bytes()).with_context(|| format!("cannot write to {}", self.label))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        signal::kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.label))
    }

    /// Kills it (`SIGKILL`).
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (`SIGTERM`) and waits until it did.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if self.is_running() {
            self.signal(Signal::SIGTERM)?;
        }
        self.wait(END)
    }

    /// Waits until it ended by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        let what = format!("{} to end", self.label);
        wait_for(&what, limit, || !self.is_running())
            .with_context(|| format!("after {:?}\n{}", started.elapsed(), self.output()))?;
        Ok(self.child.wait()?)
    }

    /// Closes its standard input, which is how the traffic tools are told to finish, waits for its end and
    /// returns its last report.
    pub fn finish<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.stdin = None;
        let status = self.wait(END)?;
        if !status.success() {
            bail!("`{}` ended with {status}\n{}", self.line, self.output());
        }
        self.report()
    }

    /// The last complete line of its standard output, as JSON.
    pub fn report<T: DeserializeOwned>(&self) -> Result<T> {
        let text = self.stdout();
        let complete = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
        let last = complete.lines().next_back().ok_or_else(|| anyhow!("`{}` reported nothing", self.line))?;
        serde_json::from_str(last).with_context(|| format!("`{}` reported {last:?}", self.line))
    }

    /// What it wrote to its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it wrote to its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// The ends of both outputs, for messages.
    #[must_use]
    pub fn output(&self) -> String {
        format!("`{}`:\n{}{}", self.line, tail(&self.stdout()), tail(&self.stderr()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stdin = None;
        if self.is_running() {
            let _ = self.signal(Signal::SIGTERM);
            if wait_for("end", Duration::from_secs(2), || !self.is_running()).is_err() {
                let _ = self.kill();
            }
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let skip = lines.len().saturating_sub(40);
    lines.iter().skip(skip).fold(String::new(), |all, line| all + line + "\n")
}
