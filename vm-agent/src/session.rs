//! The session with a gateway: state comes down, acknowledgements go up.
//!
//! [`Core`] decides, without a clock, a network or the kernel; [`Shell`] moves what it decides. A lost gateway
//! changes nothing that is enforced.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::agent::{Agent, Session};

mod backoff;
mod confirmation;
mod core;
mod gateways;
mod news;
mod refusal;
mod shell;

pub use self::backoff::Backoff;
pub use self::confirmation::{Unconfirmed, contradicts, generation};
pub use self::core::{Core, Outcome, Version};
pub use self::gateways::Gateways;
pub use self::shell::Shell;

/// Keeps a session as long as there is a membership.
pub async fn run(agent: Arc<Agent>, mut rng: StdRng) {
    let mut members = agent.member.subscribe();
    loop {
        let member = members.borrow_and_update().clone();
        let closed = match member {
            Some(member) => {
                let shell = Shell::new(agent.clone(), member, StdRng::seed_from_u64(rng.random()));
                let closed = tokio::select! {
                    () = shell.run() => false,
                    changed = members.changed() => changed.is_err(),
                };
                agent.tell(|report| report.session = Session::default());
                closed
            }
            None => members.changed().await.is_err(),
        };
        if closed {
            return;
        }
    }
}
