//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use gateway::config::Lasting;
use ipnet::IpNet;

/// Tokens, hosts and policies of an Outrigger mesh, by the API of the cluster.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-outrigger",
    bin_name = "kubectl outrigger",
    version,
    propagate_version = true,
    after_help = "It acts with the rights of who runs it. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."
)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Where and as whom.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Where and as whom.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Target {
    /// The kubeconfig. [default: as kubectl's]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of it. [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The namespace of the objects. [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// How results are written.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs; names and values stay.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Join tokens.
    #[command(subcommand)]
    Token(Token),
    /// Lists the hosts and how they are.
    Status {
        /// Those of all namespaces.
        #[arg(short = 'A', long)]
        all_namespaces: bool,
    },
    /// One host.
    #[command(subcommand)]
    Workload(Workload),
    /// Policies.
    #[command(subcommand)]
    Policy(Policy),
}

/// Join tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Makes a token that hosts join with. Its secret is made here, shown once, and never sent to the cluster.
    #[command(after_help = "The token alone goes to standard output, so that it can be piped:\n  \
                      kubectl outrigger token create --group db | ssh host sudo outrigger join --token-stdin\n\
                      A token that nobody could join with is deleted again.")]
    Create(Wanted),
}

/// What a token is for.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// The ExternalWorkloadGroup hosts become members of.
    #[arg(long, value_name = "NAME")]
    pub(crate) group: String,
    /// How long it is valid, such as 30m, 24h or 7d.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) ttl: Lasting,
    /// How many hosts may join with it.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) uses: u32,
    /// Where hosts have to come from; may be given several times. [default: anywhere]
    #[arg(long = "source-cidr", value_name = "CIDR")]
    pub(crate) source_prefixes: Vec<IpNet>,
    /// Hosts that join with it are forgotten once they are away for half an hour.
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// The host whose name and addresses a new machine takes over with it. The old one keeps its access until then.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["uses", "ephemeral"])]
    pub(crate) replace: Option<String>,
}

/// One host.
#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// Shows all of one host: addresses, identity, the policies that select it, its conditions.
    #[command(
        after_help = "What was decided about packets is known on the host only: `outrigger monitor` shows each verdict as it is \
                      given, `outrigger policy trace` says which rule decides about a flow."
    )]
    Describe {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
        /// `clusterName` of the gateway, a label of every identity.
        #[arg(long, value_name = "NAME", default_value = "default")]
        cluster_name: String,
    },
}

/// Policies.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Says what manifests would do, and puts nothing in force: whether they are valid, which hosts they select, and which
    /// verdicts change against what the cluster has now. Without files: the same of the policies that the cluster has.
    #[command(
        after_help = "An object of the cluster of the same kind and name counts as replaced; manifests that name no namespace are of \
                      `default`. Exit code 1: an object is refused.\nExamples:\n  \
                      kubectl outrigger policy check db.yaml\n  \
                      kustomize build . | kubectl outrigger policy check -\n  \
                      kubectl outrigger policy check --all-namespaces"
    )]
    Check {
        /// Files of manifests; `-` is standard input.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Looks at the form of files only, without a cluster.
        #[arg(long, requires = "files")]
        offline: bool,
        /// Without files: the policies of all namespaces.
        #[arg(short = 'A', long, conflicts_with = "files")]
        all_namespaces: bool,
        /// `clusterName` of the gateway, a label of every identity.
        #[arg(long, value_name = "NAME", default_value = "default")]
        cluster_name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(words: &str) -> i32 {
        let all = std::iter::once("kubectl-outrigger").chain(words.split_whitespace());
        Arguments::try_parse_from(all).map_or_else(|error| error.exit_code(), |_arguments| 0)
    }

    #[test]
    fn what_users_type_is_understood() {
        for words in [
            "token create --group db",
            "token create --group shop/db --ttl 7d --uses 20 --source-cidr 192.0.2.0/24 --source-cidr 2001:db8::/32",
            "token create --group db --replace db-1 -n shop",
            "status -A -o json",
            "--context other status",
            "workload describe db-1 -n shop",
            "policy check -A",
            "policy check a.yaml - --offline",
            "--help",
            "token create --help",
        ] {
            assert_eq!(code(words), 0, "{words}");
        }
    }

    #[test]
    fn wrong_usage_is_told_apart() {
        for words in [
            "",
            "token create",
            "token create --group db --uses 0",
            "token create --group db --ttl soon",
            "token create --group db --source-cidr 192.0.2.1/33",
            "token create --group db --replace db-1 --uses 2",
            "policy check --offline",
            "policy check -A a.yaml",
            "workload describe",
            "status --everything",
        ] {
            assert_eq!(code(words), 2, "{words}");
        }
    }
}
