//! Rules of the house that no compiler checks. A gate returns what it found; nothing found is a pass.

mod direction;
mod generated;
mod lints;
mod mutants;
mod sizes;
mod tree;

use anyhow::{Result, bail};
use clap::ValueEnum;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Gate {
    /// Source files have at most 500 lines, functions 60.
    Sizes,
    /// Crates depend on each other in one direction only, and pure crates stay pure.
    Direction,
    /// Every crate inherits the lints of the workspace, and the workspace has them.
    Lints,
    /// No file names a place of one machine or a registry's host.
    Tree,
    /// Generated files are what their generators would write now.
    Generated,
    /// Every row of the threat catalogue has tests and mutants, and every mutant applies.
    Mutants,
}

/// One breach of a rule: where, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    place: String,
    problem: String,
}

impl Gate {
    /// Checks the work tree, prints what is wrong, and fails if anything is.
    pub(crate) fn check(self) -> Result<()> {
        let mut findings = match self {
            Self::Sizes => sizes::check(),
            Self::Direction => direction::check(),
            Self::Lints => lints::check(),
            Self::Tree => tree::check(),
            Self::Generated => generated::check(),
            Self::Mutants => mutants::check(),
        }?;
        findings.sort();
        for Finding { place, problem } in &findings {
            eprintln!("{place}: {problem}");
        }
        if findings.is_empty() { Ok(()) } else { bail!("gate {}: {} found", self.name(), findings.len()) }
    }

    /// The name a person types.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Finding {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}
