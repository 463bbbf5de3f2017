//! Fixtures of the end-to-end tests: simulated networks of machines made of namespaces, the project's real
//! programs on them, and traffic between them.

#![expect(clippy::missing_errors_doc, reason = "a fixture fails with what it attempted, for a test to show")]

pub mod agent;
pub mod apiserver;
pub mod bench;
pub mod binaries;
pub mod certmanager;
pub mod cluster;
pub mod command;
pub mod compiler;
pub mod conformance;
pub mod daemon;
pub mod demo;
pub mod forgery;
pub mod fuzz;
pub mod gateway;
pub mod host;
pub mod json;
pub mod long;
pub mod namespace;
pub mod net;
pub mod node;
pub mod paper;
pub mod process;
pub mod prog_test;
pub mod protocol;
pub mod shared;
pub mod shop;
pub mod stranger;
pub mod stress;
pub mod sweep;
pub mod traffic;
pub mod wait;
