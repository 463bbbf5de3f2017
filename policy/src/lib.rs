//! Labels, identities, selectors and rules; the policy languages; `resolve` from facts to state, `evaluate` (the
//! specification) and `lower` to map entries. Pure: knows no runtime, no wire, no Kubernetes client, no kernel.

pub mod cilium;
pub mod clusternetworkpolicy;
pub mod compare;
pub mod evaluate;
pub mod explain;
pub mod facts;
pub mod identity;
pub mod labels;
pub mod lower;
pub mod networkpolicy;
mod object;
pub mod pages;
pub mod resolve;
pub mod rules;
pub mod selector;
pub mod state;
#[cfg(test)]
mod support;

pub use evaluate::evaluate;
pub use explain::explain;
pub use lower::lower;
pub use object::InvalidObject;
pub use resolve::resolve;
