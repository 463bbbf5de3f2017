//! What the fuzz targets do with their input. The targets in `tests/fuzz` and the replay of their corpora call the
//! same functions; each panics when a promise is broken.

mod packet;
mod token;
mod wire;

pub use packet::packet;
pub use token::token;
pub use wire::wire;

/// A target: its name, which is also its corpus' folder, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 3] = [("packet", packet), ("token", token), ("wire", wire)];
