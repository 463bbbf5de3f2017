//! What may happen, and how often it does.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::machine::{Disk, Fate};
use super::source::MACHINES;

/// One thing that happens. What it happens to may not be there: then nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A version of an object is saved.
    Save(usize, usize),
    /// A machine joins, in place of another one if that has the name.
    Join(usize),
    /// A machine's workload is deleted.
    Delete(usize),
    /// The gateway compiles what it knows.
    Publish,
    /// The agent of a machine connects.
    Connect(usize),
    /// The gateway looks after one of its sessions.
    Talk(usize),
    /// A machine receives so many messages.
    Deliver(usize, usize),
    /// A kernel takes what it is given.
    Kernel(usize, Fate),
    /// An agent hears what its kernel says.
    Answer(usize),
    /// An agent's disk has (or has not) taken what it was given.
    Record(usize, bool),
    /// All of that, until nothing is left to do.
    Flow(usize),
    /// A connection breaks; so many messages of each direction still arrive.
    Cut(usize, usize, usize),
    /// An agent learns that its connection is broken.
    AgentNotices(usize),
    /// The gateway learns that one of its connections is.
    GatewayNotices(usize),
    /// Something happens to a machine as a whole.
    Machine(usize, Blow),
    /// The gateway dies.
    CrashGateway,
    /// It starts.
    StartGateway,
    /// Its disk is full, or no longer.
    Fill(bool),
    /// Its store is copied.
    Backup,
    /// The copy is put in its place.
    Restore,
    /// So many milliseconds pass.
    Pass(u64),
    /// What is said to or by a machine is garbled.
    Line(usize, Garble),
}

/// What happens to a machine as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// Its agent dies.
    Crash(Disk),
    /// It loses its power.
    Reboot(Disk),
    /// Its agent starts.
    Start,
    /// Its clock is set, to so many seconds from the right time.
    Clock(i64),
}

/// What no transport does that keeps its promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garble {
    /// The newest update on the way to the machine is lost.
    Lose,
    /// An update that it was sent before comes again.
    Double(usize),
    /// What it has said last is lost.
    LoseWord,
    /// What it has said last is said twice.
    DoubleWord,
    /// The two latest things that it has said change places.
    SwapWords,
}

/// What happens from a seed.
#[must_use]
pub fn draw(seed: u64) -> Vec<Action> {
    let mut rng = StdRng::seed_from_u64(seed);
    // Not every history has everything: what is rare would hide what it takes long to come to.
    let mood = Mood { is_hostile: rng.random_ratio(1, 4), is_restored: rng.random_ratio(1, 8) };
    let length = rng.random_range(20..120);
    let mut actions: Vec<_> =
        (0..MACHINES - 1).filter(|_| rng.random_ratio(3, 4)).map(Action::Flow).collect();
    actions.extend((0..length).map(|_| one(&mut rng, &mood)));
    actions
}

struct Mood {
    is_hostile: bool,
    is_restored: bool,
}

fn one(rng: &mut StdRng, mood: &Mood) -> Action {
    let machine = rng.random_range(0..MACHINES);
    if mood.is_hostile && rng.random_ratio(1, 10) {
        return Action::Line(machine, garble(rng));
    }
    match rng.random_range(0..100) {
        0..12 => Action::Save(rng.random_range(0..16), rng.random_range(0..16)),
        12..24 => Action::Publish,
        24..36 => Action::Flow(machine),
        36..40 => Action::Connect(machine),
        40..50 => Action::Talk(rng.random_range(0..8)),
        50..57 => Action::Deliver(machine, rng.random_range(1..6)),
        57..64 => Action::Kernel(machine, fate(rng)),
        64..69 => Action::Answer(machine),
        69..74 => Action::Record(machine, rng.random_ratio(9, 10)),
        74..78 => Action::Cut(machine, rng.random_range(0..4), rng.random_range(0..4)),
        78..80 => Action::AgentNotices(machine),
        80..82 => Action::GatewayNotices(rng.random_range(0..8)),
        82..85 => Action::Machine(machine, Blow::Crash(disk(rng))),
        85 => Action::Machine(machine, Blow::Reboot(disk(rng))),
        86..88 => Action::Machine(machine, Blow::Start),
        88 => Action::Machine(machine, Blow::Clock(rng.random_range(-1_000_000_000..1_000_000_000))),
        89 => Action::CrashGateway,
        90 => Action::StartGateway,
        91 => Action::Join(machine),
        92 if rng.random_ratio(1, 3) => Action::Delete(machine),
        93 if rng.random_ratio(1, 3) => Action::Fill(rng.random_ratio(1, 2)),
        94 if mood.is_restored => {
            if rng.random_ratio(1, 2) {
                Action::Backup
            } else {
                Action::Restore
            }
        }
        _ => Action::Pass(
            *[10, 1100, 5100, 16_000, 100_000, 301_000].get(rng.random_range(0..6)).unwrap_or(&10),
        ),
    }
}

fn fate(rng: &mut StdRng) -> Fate {
    match rng.random_range(0..10) {
        0..5 => Fate::Runs,
        5 => Fate::Lacks,
        6..8 => Fate::Waits,
        8 => Fate::Refused,
        _ => Fate::Dies,
    }
}

fn disk(rng: &mut StdRng) -> Disk {
    match rng.random_range(0..8) {
        0 => Disk::Lost,
        1 => Disk::Older(rng.random_range(0..4)),
        _ => Disk::Kept,
    }
}

fn garble(rng: &mut StdRng) -> Garble {
    match rng.random_range(0..6) {
        0 => Garble::Lose,
        1..3 => Garble::Double(rng.random_range(0..8)),
        3 => Garble::LoseWord,
        4 => Garble::DoubleWord,
        _ => Garble::SwapWords,
    }
}
