//! The agent on the host: enrolment, session, reconciliation, BPF maps and links.

pub mod config;
pub mod kernel;
pub mod machine;
pub mod session;
pub mod state_dir;
