//! A double of the Kubernetes API server: what the tests rely on, over HTTPS, in a process of its own. It refuses what
//! it does not know, and says so on its standard error, instead of ignoring it.

pub mod fixture;

mod admit;
mod apply;
mod bound;
mod cel;
mod control;
mod crd;
mod delete;
mod discovery;
mod events;
mod failure;
mod gc;
mod kind;
mod kinds;
mod object;
mod openapi;
mod patch;
mod persist;
mod query;
mod rbac;
mod read;
mod review;
mod routes;
mod schema;
mod selector;
mod server;
mod state;
mod store;
mod users;
mod validate;
mod watch;
mod write;

pub use server::{Arguments, run};
