//! `restore accept`.

use clap::Subcommand;
use proto::v1;

use super::connection::Arguments;
use super::failure::Failure;
use super::output::{self, Format};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Lets the gateway's state count, whatever hosts have.
    ///
    /// After the cluster, or the gateway's folder, was restored from a backup, hosts have states that it does not know, and
    /// keep them: their policy is never rolled back by itself. Look at the policies first: hosts follow them at once.
    Accept,
}

/// Does what the command line says.
pub(super) async fn run(arguments: Arguments<Action>) -> Result<(), Failure> {
    let Action::Accept = arguments.action;
    let mut client = arguments.connection.connect().await?;
    client.accept_restored(v1::AcceptRestoredRequest {}).await?;
    match arguments.connection.output {
        Format::Json => output::json(&serde_json::json!({ "accepted": true })),
        Format::Text => {
            output::line("The gateway's state counts from now on: hosts take it when they connect.")
        }
    }
}
