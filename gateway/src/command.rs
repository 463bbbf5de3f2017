//! The command line: the daemon, and the administration of a running one.

mod admin;
mod ca;
mod connection;
mod failure;
mod output;
mod policy;
mod restore;
mod status;
mod token;
mod workload;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use telemetry::shutdown::Shutdown;

use crate::companions;
use crate::config::{Arguments, Config};
use connection::Connection;
use failure::Failure;

/// The gateway of an Outrigger mesh.
#[derive(Debug, Parser)]
#[command(
    name = "outrigger-gateway",
    version,
    about = "The gateway of an Outrigger mesh: enrolls hosts, compiles policy, streams it to agents.",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 4 no gateway runs here, 5 not permitted.",
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Runs the gateway in the foreground, as a service manager does.
    #[command(
        after_help = "Every option is also a key of the configuration file (camelCase) and an environment variable.\n\
                      A flag wins over the environment, the environment over the file, the file over the default."
    )]
    Serve(Box<Arguments>),
    /// Keeps companions of `NetworkPolicy`s in the foreground, for CNIs that know no external workloads (docs/companions.md).
    #[command(
        after_help = "Every option is also a key of the configuration file (camelCase) and an environment variable.\n\
                      A flag wins over the environment, the environment over the file, the file over the default."
    )]
    Companions(Box<companions::config::Arguments>),
    /// Makes, lists and revokes join tokens.
    Token(connection::Arguments<token::Action>),
    /// Lists, describes, replaces and deletes the hosts that joined.
    Workload(connection::Arguments<workload::Action>),
    /// Shows the gateway's state: generation, sessions, and what it refuses of its manifests.
    Status {
        #[command(flatten)]
        connection: Connection,
    },
    /// Lists and rotates the roots that certificates are signed with.
    Ca(connection::Arguments<ca::Action>),
    /// Lets the state count of a gateway that was restored from a backup.
    Restore(connection::Arguments<restore::Action>),
    /// Says what manifests would do.
    Policy(connection::Arguments<policy::Action>),
    /// Administrators' certificates.
    Admin(connection::Arguments<admin::Action>),
}

/// Does what the command line says.
#[must_use]
pub fn main(command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::Failed(format!("cannot start: {error}")).report(),
    };
    let done = runtime.block_on(async {
        match command.action {
            Action::Serve(arguments) => serve(*arguments).await,
            Action::Companions(arguments) => companions(*arguments).await,
            Action::Token(arguments) => token::run(arguments).await,
            Action::Workload(arguments) => workload::run(arguments).await,
            Action::Status { connection } => status::run(&connection).await,
            Action::Ca(arguments) => ca::run(arguments).await,
            Action::Restore(arguments) => restore::run(arguments).await,
            Action::Policy(arguments) => policy::run(arguments).await,
            Action::Admin(arguments) => admin::run(arguments).await,
        }
    });
    // What still blocks on the disk must not hold up the end.
    runtime.shutdown_background();
    done.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

async fn serve(arguments: Arguments) -> Result<(), Failure> {
    let config = Config::load(arguments).map_err(|error| Failure::Usage(error.to_string()))?;
    telemetry::logging::init(config.log_format, &config.log_level)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let served = async {
        let shutdown = Shutdown::on_signals().context("cannot handle signals")?;
        crate::run(config, shutdown).await
    };
    served.await.map_err(|error: anyhow::Error| Failure::Failed(console::causes(error.as_ref())))
}

async fn companions(arguments: companions::config::Arguments) -> Result<(), Failure> {
    let config =
        companions::config::Config::load(arguments).map_err(|error| Failure::Usage(error.to_string()))?;
    telemetry::logging::init(config.log_format, &config.log_level)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let kept = async {
        let shutdown = Shutdown::on_signals().context("cannot handle signals")?;
        companions::run(config, shutdown).await
    };
    kept.await.map_err(|error: anyhow::Error| Failure::Failed(console::causes(error.as_ref())))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn options_stand_anywhere_after_their_command() {
        for words in [
            "outrigger-gateway token create --group shop/db --ttl 1s --uses 3 -o json --socket /x",
            "outrigger-gateway token -o json create --transit-node node-1",
            "outrigger-gateway token create --node node-2",
            "outrigger-gateway workload replace shop/db -o json",
            "outrigger-gateway status -o json",
            "outrigger-gateway policy check a.yaml - -o json",
            "outrigger-gateway policy check --offline a.yaml",
            "outrigger-gateway ca list -o json",
            "outrigger-gateway restore accept",
            "outrigger-gateway ca activate 0a1b2c3d4e5f --force",
            "outrigger-gateway serve --config /x --listen 127.0.0.1:1",
            "outrigger-gateway companions --namespaces shop,web --source-addresses preserved",
        ] {
            Command::try_parse_from(words.split(' ')).unwrap();
        }
        for words in [
            "outrigger-gateway token create",
            "outrigger-gateway token create --group shop/db --transit-node n",
            "outrigger-gateway token create --group shop",
            "outrigger-gateway workload describe shop",
            "outrigger-gateway serve -o json",
            "outrigger-gateway companions --source-addresses maybe",
            "outrigger-gateway policy check",
        ] {
            assert!(Command::try_parse_from(words.split(' ')).is_err(), "{words}");
        }
    }
}
