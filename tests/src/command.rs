//! Commands that end: run with a time limit, with everything they said kept for the failure message. Knows nothing
//! of namespaces or of the project's programs.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What a command answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Answer {
    /// Whether it ended with code 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Itself, if it ended with code 0.
    pub fn ok(self) -> Result<Self> {
        if self.succeeded() {
            return Ok(self);
        }
        bail!("{self}")
    }

    /// Itself, if it ended with `code`.
    pub fn with_code(self, code: i32) -> Result<Self> {
        if self.code == Some(code) {
            return Ok(self);
        }
        bail!("expected exit code {code}: {self}")
    }

    /// Itself, if it failed and its standard error contains every word, in any case of letters.
    pub fn refused_with(self, words: &[&str]) -> Result<Self> {
        if self.succeeded() {
            bail!("expected a failure: {self}");
        }
        let said = self.stderr.to_lowercase();
        match words.iter().find(|word| !said.contains(&word.to_lowercase())) {
            Some(missing) => bail!("expected {missing:?} in the error: {self}"),
            None => Ok(self),
        }
    }

    /// Its standard output as JSON, if it succeeded.
    pub fn json(self) -> Result<Value> {
        let answer = self.ok()?;
        serde_json::from_str(&answer.stdout).with_context(|| format!("no JSON: {answer}"))
    }

    /// Both outputs: progress and errors, then the result.
    #[must_use]
    pub fn said(&self) -> String {
        format!("{}{}", self.stderr, self.stdout)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with ", self.line)?;
        match self.code {
            Some(code) => write!(f, "code {code}")?,
            None => write!(f, "a signal")?,
        }
        write!(f, " after {:?}\n{}{}", self.took, self.stdout, self.stderr)
    }
}

/// The command line of `command`, for messages.
#[must_use]
pub fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs `command` to its end; kills it after `limit`, which is an error.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Answer> {
    let line = line_of(command);
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input is free to close it.
        let _ = stdin.write_all(input);
    }
    let mut pause = Duration::from_micros(500);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    };
    let took = started.elapsed();
    let rest = Duration::from_secs(5);
    let answer = Answer {
        line,
        code: status.and_then(|status| status.code()),
        stdout: stdout.recv_timeout(rest).unwrap_or_default(),
        stderr: stderr.recv_timeout(rest).unwrap_or_default(),
        took,
    };
    if status.is_none() {
        bail!("killed after {limit:?}: {answer}");
    }
    Ok(answer)
}

/// Runs a tool of the system that must succeed.
pub fn tool(program: &str, args: &[&str]) -> Result<Answer> {
    run(Command::new(program).args(args), b"", Duration::from_secs(10))?.ok()
}

fn collect(source: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receive
}
