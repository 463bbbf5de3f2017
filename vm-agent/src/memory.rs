//! Memory goes back to the system once it is not used: states come and go as a whole.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::agent::Agent;

/// The threads share one heap: they allocate little at a time.
pub const HEAPS: i32 = 1;
/// After a publication, the time until what it needed is given back.
const PAUSE: Duration = Duration::from_secs(1);
/// Once more: the looks at the network that follow a change are over.
const LATER: Duration = Duration::from_secs(10);
/// The same without one: certificates are renewed, streams are opened anew.
const SELDOM: Duration = Duration::from_mins(10);

/// Gives memory back once things have settled after a change of state.
pub async fn run(agent: Arc<Agent>) {
    let mut members = agent.member.subscribe();
    loop {
        let running = members.borrow_and_update().as_ref().map(|member| member.running.subscribe());
        tokio::select! {
            changed = members.changed() => if changed.is_err() { return },
            () = follow(running) => {}
        }
    }
}

async fn follow<T>(running: Option<watch::Receiver<T>>) {
    let Some(mut running) = running else { return std::future::pending().await };
    'changed: loop {
        sleep(PAUSE).await;
        for rest in [LATER, SELDOM] {
            telemetry::memory::give_back();
            telemetry::memory::let_go_of_program();
            match timeout(rest, running.changed()).await {
                Ok(Ok(())) => continue 'changed,
                Ok(Err(_closed)) => return,
                Err(_elapsed) => {}
            }
        }
    }
}
