//! Threats 52 to 57 of `docs/security.md`, and how secrets are compared: who may ask the gateway and the agent for what,
//! who learns what, and where secrets must not show. Clients of the tests' own ask for what no agent would.

#[path = "threats_control/certificates.rs"]
mod certificates;
#[path = "threats_control/client.rs"]
mod client;
#[path = "threats_control/enrolment.rs"]
mod enrolment;
#[path = "threats_control/handshake.rs"]
mod handshake;
#[path = "threats_control/knowledge.rs"]
mod knowledge;
#[path = "threats_control/secrets.rs"]
mod secrets;
#[path = "threats_control/stand.rs"]
mod stand;
#[path = "threats_control/transit.rs"]
mod transit;
