//! Threats 17, 18, 32 to 34, 36 to 40, 42 and 43 of `docs/security.md`: what the policy languages mean to whom, from the
//! manifests through compiler and maps to the verdict.

#[path = "threats_languages/empty.rs"]
mod empty;
#[path = "threats_languages/kinds.rs"]
mod kinds;
#[path = "threats_languages/names.rs"]
mod names;
#[path = "threats_languages/namespaces.rs"]
mod namespaces;
#[path = "threats_languages/order.rs"]
mod order;
#[path = "threats_languages/own.rs"]
mod own;
#[path = "threats_languages/protocols.rs"]
mod protocols;
