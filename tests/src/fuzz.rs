//! What the fuzz targets do with their input. The targets in `tests/fuzz` and the replay of their corpora call the
//! same functions; each panics when a promise is broken.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a target tells what it found"
)]

mod certificate;
mod choices;
mod cidr;
mod config;
mod csr;
mod delta;
mod der;
mod flows;
mod kernel;
mod lower;
mod manifest;
mod names;
mod packet;
mod parse;
mod policies;
mod shake;
mod snapshot;
pub(crate) mod tables;
mod token;
mod wire;
mod world;

pub use certificate::certificate;
pub use cidr::cidr;
pub use config::config;
pub use csr::csr;
pub use delta::delta;
pub use flows::flows;
pub use kernel::kernel;
pub use lower::lower;
pub use manifest::manifest;
pub use names::names;
pub use packet::packet;
pub use parse::parse;
pub use shake::Shaker;
pub use snapshot::snapshot;
pub use token::token;
pub use wire::wire;
pub use world::{PROBES, world};

/// A target: its name, which is also its corpus' folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// The targets that need nothing but their input.
pub const TARGETS: [Target; 15] = [
    ("certificate", certificate),
    ("cidr", cidr),
    ("config", config),
    ("csr", csr),
    ("delta", delta),
    ("flows", flows),
    ("lower", lower),
    ("manifest", manifest),
    ("names", names),
    ("packet", packet),
    ("parse", parse),
    ("snapshot", snapshot),
    ("token", token),
    ("wire", wire),
    ("world", world),
];
