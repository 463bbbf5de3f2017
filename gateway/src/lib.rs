//! The gateway: enrolls hosts, compiles what the source says into state, and streams it to agents.

pub mod admin;
pub mod audit;
pub mod authorization;
pub mod index;
pub mod manifest;
pub mod clock;
pub mod enrollment;
pub mod mesh_view;
pub mod metrics;
pub mod pipeline;
pub mod session;
pub mod source;
pub mod store;
pub mod tls;
