//! A program that serves a socket: started, killed, and stopped as a service manager would.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::wait::wait_for;

/// How long it may take to serve its socket.
const READY: Duration = Duration::from_secs(10);

/// The program, which may run.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    process: Option<Process>,
}

impl Daemon {
    /// One that does not run yet; the name is for messages.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, process: None }
    }

    /// Takes over its process when that serves the socket.
    pub fn serves(&mut self, mut process: Process, socket: &Path) -> Result<()> {
        wait_for(&format!("the {}'s socket", self.name), READY, || {
            UnixStream::connect(socket).is_ok() || !process.is_running()
        })
        .with_context(|| process.output())?;
        ensure!(process.is_running(), "the {} ended: {}", self.name, process.output());
        self.process = Some(process);
        Ok(())
    }

    /// Takes over its process, which serves nothing yet.
    pub fn runs(&mut self, process: Process) {
        self.process = Some(process);
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("the {} was not started", self.name))
    }

    /// What it wrote, if it runs.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    /// Kills it (`SIGKILL`).
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Stops it as a service manager would.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process()?.stop()?;
        let name = self.name;
        ensure!(status.success(), "the {name} ended with {status}: {}", self.process()?.output());
        self.process = None;
        Ok(())
    }
}
