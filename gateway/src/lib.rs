//! The gateway: enrolls hosts, compiles what the source says into state, and streams it to agents.

pub mod accounts;
pub mod admin;
pub mod audit;
pub mod authorization;
pub mod backends;
pub mod bootstrap;
pub mod ca;
pub mod check;
pub mod clock;
pub mod command;
pub mod companions;
pub mod config;
pub mod election;
pub mod enrollment;
pub mod housekeeping;
pub mod index;
pub mod ledger;
pub mod manifest;
pub mod mesh_view;
pub mod metrics;
pub mod pipeline;
pub mod replicas;
mod run;
pub mod server;
pub mod session;
pub mod source;
pub mod store;
pub mod tls;
mod watched;

pub use run::run;
