//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

/// Tokens, hosts and policies of an Outrigger mesh, by the API of the cluster.
#[derive(Debug, Parser)]
#[command(name = "kubectl-outrigger", bin_name = "kubectl outrigger", version, propagate_version = true)]
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
    #[arg(long, global = true, env = "KUBECONFIG", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of it. [default: the current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The namespace of the objects. [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Where the gateway is, which `policy check` and `workload describe` ask.
    #[arg(long, global = true, value_name = "NAMESPACE/DEPLOYMENT", default_value = "outrigger/outrigger")]
    pub(crate) gateway: String,
    /// How results are written.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Join tokens.
    #[command(subcommand)]
    Token(Token),
    /// Hosts of the mesh and how they are.
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
                      kubectl outrigger token create --group db | ssh host sudo outrigger join --token-stdin")]
    Create {
        /// The ExternalWorkloadGroup hosts become members of, in the same namespace.
        #[arg(long, value_name = "NAME")]
        group: String,
        /// How long it is valid, such as 30m, 24h or 7d.
        #[arg(long, value_name = "TIME", default_value = "24h")]
        ttl: String,
        /// How many hosts may join with it.
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        uses: u32,
        /// Where hosts have to come from; may be given several times. [default: anywhere]
        #[arg(long = "source-cidr", value_name = "CIDR")]
        source_prefixes: Vec<IpNet>,
        /// Hosts that join with it are forgotten once they are away for half an hour.
        #[arg(long)]
        ephemeral: bool,
    },
}

/// One host.
#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// What it is: its object, its identity, the policies that select it.
    Describe {
        /// Its name.
        name: String,
    },
}

/// Policies.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Says what manifests would do, and puts nothing in force.
    Check {
        /// Files of manifests; `-` is standard input.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}
