//! What the command line says.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::arguments::{Arguments, Command, Format, Policy, Target, Token, Workload};
use crate::cluster;
use crate::failure::Failure;

mod status;
mod token;

/// Does it.
pub(crate) async fn run(Arguments { command, target }: Arguments) -> Result<ExitCode, Failure> {
    match command {
        Command::Token(Token::Create { group, ttl, uses, source_prefixes, ephemeral }) => {
            let (client, namespace) = cluster::connect(&target).await?;
            let wanted = token::Wanted { group, ttl, uses, source_prefixes, ephemeral };
            token::create(client, &namespace, wanted, target.output).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status { all_namespaces } => {
            let (client, namespace) = cluster::connect(&target).await?;
            status::list(client, (!all_namespaces).then_some(&*namespace), target.output).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Workload(Workload::Describe { name }) => {
            let (_client, namespace) = cluster::connect(&target).await?;
            let full = format!("{namespace}/{name}");
            let mut words = vec!["workload", "describe", &full];
            words.extend(format(&target));
            cluster::in_gateway(&target, &words, b"")
        }
        Command::Policy(Policy::Check { files }) => {
            let mut words = vec!["policy", "check", "-"];
            words.extend(format(&target));
            cluster::in_gateway(&target, &words, &read(&files)?)
        }
    }
}

fn format(target: &Target) -> &'static [&'static str] {
    match target.output {
        Format::Text => &[],
        Format::Json => &["-o", "json"],
    }
}

/// All files as one stream of documents.
fn read(files: &[PathBuf]) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    for path in files {
        let text = if path.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(path)
        };
        let text =
            text.map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))?;
        all.extend_from_slice(b"---\n");
        all.extend_from_slice(text.as_bytes());
        all.push(b'\n');
    }
    Ok(all)
}
