//! `policy check`.

use std::path::PathBuf;

use clap::Subcommand;
use proto::v1;

use super::connection::Arguments;
use super::failure::Failure;
use super::output::{self, Format};
use crate::check::{self, Extent, File};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Says what manifests would do, and puts nothing in force: whether they are valid, which hosts they select, and which
    /// verdicts change against what is in force now.
    #[command(
        after_help = "A file in force under the same kind and name counts as replaced. Exit code 1: an object is refused.\n\
                      Examples:\n  outrigger-gateway policy check db.yaml\n  \
                      kustomize build . | outrigger-gateway policy check -\n  \
                      outrigger-gateway policy check --offline policies/*.yaml"
    )]
    Check {
        /// Files of manifests; `-` is standard input.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Looks at the form only, without a gateway.
        #[arg(long)]
        offline: bool,
    },
}

/// Does what the command line says.
pub(super) async fn run(arguments: Arguments<Action>) -> Result<(), Failure> {
    let Action::Check { files, offline } = arguments.action;
    let files = files.iter().map(|path| File::open(path)).collect::<Result<Vec<_>, _>>();
    let files = files.map_err(|unreadable| Failure::Usage(unreadable.to_string()))?;
    let format = arguments.connection.output;
    let (response, extent) = if offline {
        (check::form(&files), Extent::Form)
    } else {
        let mut client = arguments.connection.connect().await?;
        let files = files.into_iter().map(|File { name, text }| v1::ManifestText { name, text });
        let request = v1::CheckPolicyRequest { files: files.collect() };
        (client.check_policy(request).await?.into_inner(), Extent::Change)
    };
    match format {
        Format::Json => output::json(&check::as_json(&response, extent))?,
        Format::Text => check::as_text(&response, extent).iter().try_for_each(|line| output::line(line))?,
    }
    check::refusals(&response).map_or(Ok(()), |refused| Err(Failure::Failed(refused)))
}
