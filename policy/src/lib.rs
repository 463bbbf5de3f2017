//! Labels, identities, selectors and rules; the policy languages; `resolve` from facts to state, `evaluate` (the
//! specification) and `lower` to map entries. Pure: knows no runtime, no wire, no Kubernetes client, no kernel.

pub mod identity;
pub mod labels;
pub mod state;
