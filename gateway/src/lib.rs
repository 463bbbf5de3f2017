//! The gateway: enrolls hosts, compiles what the source says into state, and streams it to agents.

pub mod authorization;
pub mod mesh_view;
pub mod store;
pub mod tls;
