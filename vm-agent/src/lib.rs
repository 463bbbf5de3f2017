//! The agent on the host: enrolment, session, reconciliation, BPF maps and links.

pub mod kernel;
