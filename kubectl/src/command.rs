//! What the command line says.

use crate::arguments::{Arguments, Command, Policy, Token, Workload};
use crate::cluster;
use crate::failure::Failure;

mod check;
mod describe;
mod status;
mod token;

/// Does it.
pub(crate) async fn run(Arguments { command, target }: Arguments) -> Result<(), Failure> {
    let output = target.output;
    match command {
        Command::Token(Token::Create(wanted)) => {
            let (client, namespace) = cluster::connect(&target).await?;
            token::create(client, &namespace, wanted, output).await
        }
        Command::Status { all_namespaces } => {
            let (client, namespace) = cluster::connect(&target).await?;
            status::list(client, (!all_namespaces).then_some(&*namespace), output).await
        }
        Command::Workload(Workload::Describe { name, cluster_name }) => {
            let (client, namespace) = cluster::connect(&target).await?;
            let (namespace, name) = cluster::named(&namespace, &name);
            describe::show(client, namespace, name, &cluster_name, output).await
        }
        Command::Policy(Policy::Check { files, offline: true, all_namespaces: _, cluster_name: _ }) => {
            check::form(&files, output)
        }
        Command::Policy(Policy::Check { files, offline: false, all_namespaces, cluster_name }) => {
            let files = check::open(&files)?;
            let (client, namespace) = cluster::connect(&target).await?;
            let standing = check::standing(&client, &cluster_name).await?;
            if files.is_empty() {
                check::in_force(&standing, (!all_namespaces).then_some(&*namespace), output)
            } else {
                check::change(&standing, &files, output)
            }
        }
    }
}
