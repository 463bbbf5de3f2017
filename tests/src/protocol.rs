//! The control protocol as a model that is checked: random histories of what may happen to a mesh, in one thread, over
//! the code of both ends. The gateway's facts, feed, sessions and registry are its own, the agent's session, its
//! acknowledgements, the snapshot's bytes and the publisher of its tables as well; time, the network, the store and
//! the kernel's tables are here. After every step the promises of `docs/protocol.md` are checked against a reading of
//! their own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::{Result, anyhow};

mod action;
mod cut;
mod hub;
mod ledger;
mod machine;
mod peace;
mod source;
mod truth;
mod world;

pub use action::{Action, Blow, Garble, draw};
pub use machine::{Disk, Fate};
pub use source::Library;
pub use world::World;

/// A history that breaks a promise.
#[derive(Debug)]
pub struct Broken {
    /// What it was drawn from.
    pub seed: u64,
    /// As little of it as breaks the promise still.
    pub actions: Vec<Action>,
    /// The promise.
    pub reason: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.reason)?;
        self.actions.iter().try_for_each(|action| writeln!(f, "    {action:?},"))
    }
}

/// Runs the history of a seed, and peace after it.
///
/// # Errors
/// [`Broken`], which takes many more runs.
pub fn check(library: &Arc<Library>, seed: u64) -> Result<(), Box<Broken>> {
    let actions = draw(seed);
    let Err(reason) = run(library, &actions) else { return Ok(()) };
    let actions = minimised(library, actions);
    let reason = run(library, &actions).err().unwrap_or(reason);
    Err(Box::new(Broken { seed, actions, reason: format!("{reason:#}") }))
}

/// Runs a history, and peace after it.
///
/// # Errors
/// What was broken.
pub fn run(library: &Arc<Library>, actions: &[Action]) -> Result<()> {
    let whole = || {
        let mut world = World::new(library)?;
        for (at, action) in actions.iter().enumerate() {
            world.happen(*action).map_err(|error| error.context(format!("step {at}, {action:?}")))?;
        }
        world.settle().map_err(|error| error.context("in peace"))
    };
    catch_unwind(AssertUnwindSafe(whole)).unwrap_or_else(|_panic| Err(anyhow!("it panicked")))
}

/// Leaves out what is not needed to break something: halves, then less and less.
fn minimised(library: &Arc<Library>, mut actions: Vec<Action>) -> Vec<Action> {
    let mut size = actions.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < actions.len() {
            let mut fewer = actions.clone();
            fewer.drain(at..actions.len().min(at + size));
            if run(library, &fewer).is_err() {
                actions = fewer;
            } else {
                at += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    actions
}
