//! Bugs planted on purpose: each test of the threat catalogue is shown to fail when its subject is broken.
//!
//! `tests/mutants/*.patch` are the bugs. They are planted in a work tree of their own below `target/mutants`, never in
//! the one that a person edits.

pub(crate) mod patch;
mod tree;

use std::{collections::BTreeSet, fmt, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::workspace;
use patch::Patch;
use tree::{Outcome, Tree};

/// Which mutants are run.
#[derive(Args)]
pub(crate) struct Selection {
    /// Only checks that every patch applies and that catalogue, tests and mutants belong together.
    #[arg(long)]
    pub(crate) check: bool,
    /// Only the mutants whose name starts like one of these.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Killed,
    Survived,
    Hung,
    NotApplied,
    NotCompiled,
    NoSuchTest,
    FailsAnyway,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed",
            Self::Survived => "SURVIVED",
            Self::Hung => "HUNG",
            Self::NotApplied => "does not apply",
            Self::NotCompiled => "does not compile",
            Self::NoSuchTest => "has no such test",
            Self::FailsAnyway => "its test fails without it",
        })
    }
}

/// Plants the selected mutants one after the other, and fails if a test did not notice.
pub(crate) fn run(selection: &Selection) -> Result<()> {
    let wanted = |patch: &Patch| {
        selection.names.is_empty() || selection.names.iter().any(|name| patch.name.starts_with(name.as_str()))
    };
    let patches: Vec<_> = patch::all(workspace::root())?.into_iter().filter(wanted).collect();
    ensure!(!patches.is_empty(), "no mutant of that name");
    let mut tree = Tree::prepare()?;
    let broken = baseline(&mut tree, &patches)?;
    let mut fates = Vec::new();
    for patch in &patches {
        let start = Instant::now();
        let fate = if broken.contains(&patch.test) { Fate::FailsAnyway } else { fate(&mut tree, patch)? };
        println!("{} → {}: {fate} ({:.0} s)", patch.name, patch.test, start.elapsed().as_secs_f64());
        fates.push((patch, fate));
    }
    print(&fates)
}

/// The tests that fail although nothing is planted.
fn baseline(tree: &mut Tree, patches: &[Patch]) -> Result<BTreeSet<patch::Test>> {
    ensure!(tree.build(true, true)?, "the tree does not compile without mutants");
    let tests: BTreeSet<_> = patches.iter().map(|patch| patch.test.clone()).collect();
    let mut broken = BTreeSet::new();
    for test in tests {
        // One that is missing is told with its mutant.
        if matches!(tree.test(&test)?, Outcome::Failed | Outcome::Hung) {
            println!("{test} fails without a mutant");
            broken.insert(test);
        }
    }
    Ok(broken)
}

fn fate(tree: &mut Tree, patch: &Patch) -> Result<Fate> {
    if !tree.plant(patch)? {
        return Ok(Fate::NotApplied);
    }
    let fate = if tree.build(patch.needs_bpf, patch.needs_programs)? {
        match tree.test(&patch.test)? {
            Outcome::Failed => Fate::Killed,
            Outcome::Passed => Fate::Survived,
            Outcome::Hung => Fate::Hung,
            Outcome::NotFound => Fate::NoSuchTest,
            Outcome::NotCompiled => Fate::NotCompiled,
        }
    } else {
        Fate::NotCompiled
    };
    tree.clean().with_context(|| format!("remove {}", patch.name))?;
    Ok(fate)
}

fn print(fates: &[(&Patch, Fate)]) -> Result<()> {
    let width = fates.iter().map(|(patch, _)| patch.name.len()).max().unwrap_or_default();
    println!();
    for (patch, fate) in fates {
        println!("{:width$}  {fate:<9}  {}  ({})", patch.name, patch.test, patch.bug);
    }
    let missed = fates.iter().filter(|(_, fate)| *fate != Fate::Killed).count();
    println!("{} mutants, {} killed", fates.len(), fates.len() - missed);
    if missed == 0 { Ok(()) } else { bail!("{missed} mutants were not killed") }
}
