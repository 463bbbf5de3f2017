//! A list of steps with the time that each took.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// What became of a step.
#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// Runs steps and remembers them.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration, Outcome)>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "ok"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

impl Steps {
    /// Runs a step that later ones need: its failure is returned at once.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut failed = None;
        self.note(name, |_| step().inspect_err(|error| failed = Some(format!("{error:#}"))));
        failed.map_or(Ok(()), |why| bail!("{name}: {why}"))
    }

    /// Runs a step; its failure is told at the end.
    pub(crate) fn note(&mut self, name: &str, step: impl FnOnce(&mut Self) -> Result<()>) {
        eprintln!("== {name}");
        let start = Instant::now();
        let outcome = match step(self) {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        eprintln!("== {name}: {outcome} ({:.1} s)", start.elapsed().as_secs_f64());
        self.done.push((name.to_owned(), start.elapsed(), outcome));
    }

    /// Notes a step that cannot run here.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        eprintln!("== {name}: skipped: {why}");
        self.done.push((name.to_owned(), Duration::ZERO, Outcome::Skipped(why.to_owned())));
    }

    /// Prints every step with its time, those of at least `slow` marked.
    pub(crate) fn print(&self, slow: Duration) {
        for (name, took, outcome) in &self.done {
            let mark = if slow > Duration::ZERO && *took >= slow { "  slow" } else { "" };
            println!("{:>8.1} s  {name:<20} {outcome}{mark}", took.as_secs_f64());
        }
    }

    /// Fails if a step failed.
    pub(crate) fn outcome(&self) -> Result<()> {
        let failed = self.done.iter().filter(|(_, _, outcome)| matches!(outcome, Outcome::Failed(_)));
        let names: Vec<_> = failed.map(|(name, _, _)| name.as_str()).collect();
        if names.is_empty() { Ok(()) } else { bail!("failed: {}", names.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_fails_the_whole_and_does_not_stop_the_next() {
        let mut steps = Steps::default();
        let mut ran = false;
        steps.note("first", |_| bail!("broken"));
        steps.note("second", |_| {
            ran = true;
            Ok(())
        });
        steps.skip("third", "not installed");
        assert!(ran);
        assert_eq!(steps.outcome().unwrap_err().to_string(), "failed: first");
    }

    #[test]
    fn a_needed_step_returns_its_failure() {
        let mut steps = Steps::default();
        assert!(steps.run("first", || Ok(())).is_ok());
        assert_eq!(steps.run("second", || bail!("broken")).unwrap_err().to_string(), "second: broken");
    }
}
