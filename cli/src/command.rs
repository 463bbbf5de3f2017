//! The commands, one module each.

use crate::arguments::{Arguments, Command, Connectivity, Endpoint, Enforce, Policy};
use crate::connection::connect;
use crate::failure::Failure;

mod connectivity;
mod endpoint;
mod enforce;
mod join;
mod leave;
mod monitor;
mod policy;
mod seal;
mod status;

/// Runs the command that the arguments name.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { global, command } = arguments;
    let format = global.output;
    match command {
        Command::Join(join) => {
            // Before the agent is asked: a misplaced token is told whether or not it runs.
            let request = join::request(&join)?;
            join::run(connect(&global).await?, request, format).await
        }
        Command::Leave(leave) => leave::run(connect(&global).await?, leave.force, format).await,
        Command::Status => status::run(connect(&global).await?, format).await,
        Command::Monitor(monitor) => monitor::run(connect(&global).await?, &monitor, format).await,
        Command::Policy(Policy::List { nic }) => policy::list(connect(&global).await?, format, nic).await,
        Command::Policy(Policy::Trace(trace)) => {
            let request = policy::request(&trace)?;
            policy::trace(connect(&global).await?, request, format).await
        }
        Command::Endpoint(Endpoint::List) => endpoint::list(connect(&global).await?, format).await,
        Command::Connectivity(Connectivity::Test) => {
            connectivity::test(connect(&global).await?, format).await
        }
        Command::Enforce(Enforce::Audit { time }) => {
            enforce::run(connect(&global).await?, time.0, format).await
        }
        Command::Enforce(Enforce::Resume) => enforce::run(connect(&global).await?, 0, format).await,
        Command::Seal => seal::run(connect(&global).await?, format).await,
    }
}
