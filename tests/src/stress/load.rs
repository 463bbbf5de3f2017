//! The changes: a new revision of the world and other pods in a crowd, many times a second, as files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sha2::{Digest as _, Sha256};

use super::Broken;
use super::checker::Checker;
use super::trouble::{Log, wait};
use super::truth::{Asked, verdicts};
use super::watch::Revisions;
use super::world::{FILE, World, bulk, crowd};
use crate::wait::monotonic_ns;

/// New revisions a second.
const REVISIONS: u32 = 10;
/// Of so many revisions, which one brings a policy that is too large for the tables, and which one takes it away.
const BULK: usize = 200;
const BULK_COMES: usize = 60;
const BULK_GOES: usize = 75;
/// Its file.
const BULK_FILE: &str = "bulk.yaml";

/// How much was changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Revisions.
    pub revisions: AtomicU64,
    /// Policies that became others.
    pub policies: AtomicU64,
    /// Pods and groups that became others.
    pub endpoints: AtomicU64,
    /// Policies that no table has room for twice.
    pub bulks: AtomicU64,
}

/// What a writer needs.
#[derive(Debug)]
pub struct Writer<'a> {
    /// The folder.
    pub manifests: PathBuf,
    /// A folder beside it.
    pub drafts: PathBuf,
    /// The hosts' addresses.
    pub hosts: &'a [[std::net::IpAddr; 2]],
    /// The flows.
    pub asked: Vec<Asked>,
    /// What the truth is to be wrong about.
    pub broken: Option<Broken>,
    /// Policies changed a second.
    pub policies: u32,
    /// Pods changed a second.
    pub endpoints: u32,
    /// Whether a policy comes and goes that is too large for the tables.
    pub bulks: bool,
}

impl Writer<'_> {
    /// What a revision allows, wrong where this is asked for.
    pub fn truth(&self, world: &World) -> Result<Vec<Vec<bool>>> {
        let mut verdicts = verdicts(world, self.hosts, &self.asked)?;
        let wrong = match self.broken {
            None => return Ok(verdicts),
            Some(Broken::Deny) => 0,
            Some(Broken::Allow) => self.denied(world)?,
        };
        let hops = verdicts.get_mut(wrong).context("no flow to be wrong about")?;
        hops.fill(self.broken == Some(Broken::Allow));
        Ok(verdicts)
    }

    /// The first flow that is denied at first.
    fn denied(&self, world: &World) -> Result<usize> {
        let first = World::new(world.all_addresses());
        let verdicts = verdicts(&first, self.hosts, &self.asked)?;
        verdicts.iter().position(|hops| hops.contains(&false)).context("every flow is allowed")
    }

    /// Writes revisions until `stop`.
    pub fn run(
        &self,
        mut world: World,
        seed: u64,
        (checker, revisions, changes, log): (&Mutex<Checker>, &Mutex<Revisions>, &Changes, &Log),
        stop: &AtomicBool,
    ) -> Result<()> {
        let mut random = StdRng::seed_from_u64(seed);
        let pause = Duration::from_secs(1) / REVISIONS;
        let crowd_size = u16::try_from(self.endpoints / REVISIONS)?;
        let mut due = Instant::now();
        for number in 0.. {
            due = due.max(Instant::now().checked_sub(pause).unwrap_or(due)) + pause;
            if !wait(due.saturating_duration_since(Instant::now()), stop) {
                return Ok(());
            }
            let (policies, endpoints) =
                world.change(&mut random, usize::try_from(self.policies / REVISIONS)?);
            let allowed = self.truth(&world)?;
            let text = world.manifest();
            {
                let mut revisions = revisions.lock().unwrap_or_else(PoisonError::into_inner);
                let mut checker = checker.lock().unwrap_or_else(PoisonError::into_inner);
                let revision = checker.publish(monotonic_ns(), allowed);
                revisions.by_digest.insert(hex::encode(Sha256::digest(&text)), revision);
            }
            self.save(FILE, &text)?;
            self.bulk(number, changes, log)?;
            if crowd_size > 0 {
                let (file, text) = crowd(number, crowd_size, &mut random);
                self.save(&file, &text)?;
            }
            changes.revisions.fetch_add(1, Ordering::Relaxed);
            changes.policies.fetch_add(policies, Ordering::Relaxed);
            changes.endpoints.fetch_add(endpoints + u64::from(crowd_size), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Fills a table of every host: one bank takes the blocks, both together do not.
    fn bulk(&self, number: usize, changes: &Changes, log: &Log) -> Result<()> {
        if self.bulks && number % BULK == BULK_COMES {
            log.note("a policy that is too large");
            changes.bulks.fetch_add(1, Ordering::Relaxed);
            self.save(BULK_FILE, &bulk())?;
        } else if self.bulks && number % BULK == BULK_GOES {
            log.note("the large policy is gone");
            std::fs::remove_file(self.manifests.join(BULK_FILE)).context("cannot remove a policy")?;
        }
        Ok(())
    }

    fn save(&self, file: &str, text: &str) -> Result<()> {
        let (draft, path): (PathBuf, &Path) = (self.drafts.join("stress-draft"), &self.manifests.join(file));
        std::fs::write(&draft, text).with_context(|| format!("cannot write {}", draft.display()))?;
        std::fs::rename(&draft, path).with_context(|| format!("cannot save {}", path.display()))
    }
}
