//! The session with a gateway: state comes down, acknowledgements go up.
//!
//! [`core`] decides, without a clock, a network or the kernel; [`shell`] moves what it decides. A lost gateway
//! changes nothing that is enforced.

mod backoff;
mod core;
mod gateways;

pub use self::backoff::Backoff;
pub use self::core::{Core, Outcome, Version};
pub use self::gateways::Gateways;
