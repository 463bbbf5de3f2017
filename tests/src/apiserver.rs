//! A double of the Kubernetes API server: what the tests rely on, over HTTPS, in a process of its own. It refuses what
//! it does not know, and says so on its standard error, instead of ignoring it.

pub mod fixture;

mod control;
mod discovery;
mod events;
mod failure;
mod kind;
mod kinds;
mod object;
mod patch;
mod persist;
mod query;
mod read;
mod review;
mod routes;
mod selector;
mod server;
mod state;
mod store;
mod users;
mod watch;
mod write;

pub use server::{Arguments, run};
