//! The kernel against the host build: the same packets through `BPF_PROG_TEST_RUN` and through the host model, and
//! what each packet costs.

pub mod batch;
pub mod compare;
pub mod cost;
pub mod frames;
pub mod host;
pub mod kernel;
pub mod mesh;
pub mod twin;

pub use cost::{Cost, measure, publications};
